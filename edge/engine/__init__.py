"""The pure engine: packets of a cycle in, levels and events out."""
