"""From the command to the first cycle of the bottling cell, with compiled bytecode."""

import contextlib
import time

from tests.bench import serving
from tests.bench.case import Case
from tests.processes import BOTTLING, running, until

LIMIT_MS = 1500


class Start(Case):
    """`edge serve` until its loop has run one cycle; the simulated PLCs are there before."""

    names = ("start.first_cycle",)
    unit = "ms"
    peer_name = "the limit"

    def begin(self, stack: contextlib.ExitStack) -> None:
        self.folder, self.plcs = stack.enter_context(serving.plcs())
        self.edge()

    def edge(self) -> tuple[float, ...]:
        with serving.trace() as (path, trace):
            began_ns = time.monotonic_ns()
            started = serving.TracedServed(self.folder, BOTTLING, path, "--endpoints", self.plcs.endpoints)
            with running(started):
                until(lambda: trace.count, "the first cycle")
                return ((trace.since(0)[0].done_ns - began_ns) / 1e6,)

    def peer(self) -> tuple[float, ...]:
        return (LIMIT_MS,)


CASES: tuple[type[Case], ...] = (Start,)
