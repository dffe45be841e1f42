"""The memory of all of edge's processes with the bottling cell: what would be free again without them."""

import contextlib
import re
import time
from pathlib import Path

from tests.bench import serving
from tests.bench.case import Case
from tests.processes import BOTTLING, Served, descendants, running

LIMIT_MB = 120
SETTLE_S = 3.0


class Memory(Case):
    """`edge serve` with a batch that runs. Pages that processes share count once (proportional set size, proc(5))."""

    names = ("memory.total_rss",)
    unit = "MB"
    peer_name = "the limit"
    rounds = 3

    def begin(self, stack: contextlib.ExitStack) -> None:
        folder, plcs = stack.enter_context(serving.plcs())
        self.served = stack.enter_context(running(Served(folder, BOTTLING, "--endpoints", plcs.endpoints)))
        batch = self.served.start("rinse-and-fill")
        self.served.await_state(batch, "running")

    def edge(self) -> tuple[float, ...]:
        time.sleep(SETTLE_S)
        sizes = {name: proportional_mb(pid) for name, pid in descendants(self.served.pid).items()}
        sizes["edge-daemon"] = proportional_mb(self.served.pid)
        self.notes = [", ".join(f"{name} {size:.0f}" for name, size in sorted(sizes.items()))]
        return (sum(sizes.values()),)

    def peer(self) -> tuple[float, ...]:
        return (LIMIT_MB,)


def proportional_mb(pid: int) -> float:
    found = re.search(r"(?m)^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text())
    return int(found[1]) * 1024 / 1e6 if found is not None else 0.0


CASES: tuple[type[Case], ...] = (Memory,)
