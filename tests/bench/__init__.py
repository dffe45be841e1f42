"""The benchmarks: edge next to its peers, in one run. `python -m tests.bench [NAME…]`; see docs/benchmarks.md."""
