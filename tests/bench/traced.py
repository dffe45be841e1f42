"""An edge command whose loop leaves each cycle's times in a file: `python -m tests.bench.traced FILE COMMAND…`.

The file lies in memory (/dev/shm): its pages are there before the loop's first cycle, and writing to it waits for
nothing.
"""

import mmap
import struct
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from edge import cli, loop

ROOM = 1 << 20
"""Cycles that a trace keeps: the last ones."""

_COUNT = struct.Struct("<Q")
_CYCLE = struct.Struct("<qqqq")


class Cycle(msgspec.Struct, frozen=True):
    """A cycle's number, when its work was done (CLOCK_MONOTONIC), how late it had begun, the processor time it took."""

    number: int
    done_ns: int
    late_ns: int
    cpu_ns: int


class Trace:
    """The file, for the loop that writes it and for who reads it."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self.data = mmap.mmap(file.fileno(), 0)

    @staticmethod
    def create(path: Path) -> "Trace":
        path.write_bytes(bytes(_COUNT.size + ROOM * _CYCLE.size))
        return Trace(path)

    @property
    def count(self) -> int:
        """Cycles so far."""
        return _COUNT.unpack_from(self.data)[0]

    def add(self, number: int, late_ns: int, cpu_ns: int) -> None:
        count = self.count
        place = _COUNT.size + count % ROOM * _CYCLE.size
        _CYCLE.pack_into(self.data, place, number, time.monotonic_ns(), late_ns, cpu_ns)
        _COUNT.pack_into(self.data, 0, count + 1)

    def since(self, count: int) -> list[Cycle]:
        """The cycles after the first `count`."""
        places = (_COUNT.size + number % ROOM * _CYCLE.size for number in range(count, self.count))
        return [Cycle(*_CYCLE.unpack_from(self.data, place)) for place in places]


class Lateness(loop.Histogram):
    """Keeps the last one besides."""

    last = 0

    def add(self, time_ns: int) -> None:
        super().add(time_ns)
        self.last = time_ns


def traced(trace: Trace) -> type[loop.Loop]:
    """A loop that adds each cycle to a trace."""

    class Traced(loop.Loop):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.lateness = self.late = Lateness()

        def run_cycle(self, cycle: int) -> None:
            began = time.thread_time_ns()
            super().run_cycle(cycle)
            trace.add(cycle, self.late.last, time.thread_time_ns() - began)

    return Traced


if __name__ == "__main__":
    loop.Loop = traced(Trace(Path(sys.argv[1])))
    sys.exit(cli.main(sys.argv[2:]))
