"""HTTP API, metrics and the operator's page, in a process of their own."""
