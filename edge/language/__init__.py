"""The files that an engineer writes: read, checked, compiled."""
