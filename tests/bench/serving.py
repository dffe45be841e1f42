"""The bottling cell served against simulated PLCs, for the cases that need the whole of edge."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.traced import Trace
from tests.processes import BOTTLING, Plcs, Served, running


class TracedServed(Served):
    """`edge serve` whose loop leaves each cycle's times in a trace."""

    def __init__(self, folder: Path, cell: Path, trace: Path, *options: str | Path) -> None:
        self.program = ("-m", "tests.bench.traced", trace)
        super().__init__(folder, cell, *options)


@contextlib.contextmanager
def plcs(cell: Path = BOTTLING) -> Iterator[tuple[Path, Plcs]]:
    """The simulated PLCs of a cell, and a folder for what is served against them."""
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name, running(Plcs(Path(name), cell)) as started:
        yield Path(name), started


@contextlib.contextmanager
def trace() -> Iterator[tuple[Path, Trace]]:
    """A trace in memory."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="edge-bench-") as file:
        yield Path(file.name), Trace.create(Path(file.name))
