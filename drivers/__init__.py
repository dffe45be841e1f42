"""The field: how a device is read and written. Knows nothing of cells, recipes or processes."""
