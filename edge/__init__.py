"""The runtime of a work cell: recipes, one deterministic control loop, the batch record."""

__version__ = "0.1.0"
