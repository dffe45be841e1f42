"""How late the loop's tick comes at 1 kHz with everything running, next to cyclictest at the same priority.

The loop and cyclictest take turns. While cyclictest runs, edge's loop is an ordinary process: the machine bears the
same load in both turns, and only the one that is measured has real-time priority.
"""

import contextlib
import http.client
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from edge.loop import PRIORITY
from tests.bench import serving
from tests.bench.case import Case, Unavailable
from tests.bench.traced import Cycle
from tests.processes import BOTTLING, descendants, running, until

SCAN = EVERY = "1 ms"
PERIOD_US = 1000
LONGEST_US = 20_000
SCRAPE_S = 0.1
SETTLE_S = 2.0
QUANTILES = (0.5, 0.999)
TURNS = """\
recipe: turns
uses: [mixer, conveyor, robot]
steps:
  - repeat: {times: 1000000}
    steps:
      - {name: Flash, during: {conveyor.lamp: true, mixer.drain: true}, wait: 100 ms}
      - {name: Stir, set: {mixer.agitator: 60 rpm}, wait: 100 ms}
      - {record: {level: mixer.level}, set: {mixer.agitator: 0 rpm}}
"""
"""A recipe that works as long as the case runs."""


def fast_cell(folder: Path) -> Path:
    """The bottling cell, its recipes and TURNS, with a scan of 1 ms and devices read as often as they answer."""
    shutil.copytree(BOTTLING.parent, folder, dirs_exist_ok=True)
    (folder / "turns.yaml").write_text(TURNS, encoding="utf-8")
    cell = folder / BOTTLING.name
    text = re.sub(r"(?m)^scan: [^#\n]*", f"scan: {SCAN} ", cell.read_text(encoding="utf-8"))
    cell.write_text(re.sub(r"(?m)^    every: [^#\n]*", f"    every: {EVERY} ", text), encoding="utf-8")
    return cell


class Watchers:
    """Prometheus, which scrapes ten times a second, and a page with its event stream open."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url).netloc
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=work) for work in (self._scrape, self._listen)]
        for thread in self.threads:
            thread.start()

    def _connection(self) -> "contextlib.closing[http.client.HTTPConnection]":
        return contextlib.closing(http.client.HTTPConnection(self.address, timeout=10))

    def _scrape(self) -> None:
        with self._connection() as connection:
            while not self.ended.wait(SCRAPE_S):
                connection.request("GET", "/metrics")
                connection.getresponse().read()

    def _listen(self) -> None:
        with self._connection() as connection:
            connection.request("GET", "/api/events")
            answer = connection.getresponse()
            while not self.ended.is_set():
                answer.read1(65536)

    def end(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()


class Lateness(Case):
    """The bottling cell over its three protocols, a batch, the recorder, a scraper and a page."""

    names = ("loop.lateness_p50", "loop.lateness_p999")
    unit = "µs"
    peer_name = f"cyclictest -p {PRIORITY} -i {PERIOD_US}"
    rounds = 4

    def begin(self, stack: contextlib.ExitStack) -> None:
        cell = fast_cell(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-bench-"))))
        folder, plcs = stack.enter_context(serving.plcs(cell))
        path, self.trace = stack.enter_context(serving.trace())
        started = serving.TracedServed(folder, cell, path, "--endpoints", plcs.endpoints)
        served = stack.enter_context(running(started))
        served.start("turns")
        self.loop = until(lambda: descendants(served.pid).get("edge-loop"), "the loop")
        self.priority = os.sched_getscheduler(self.loop), os.sched_getparam(self.loop)
        watchers = Watchers(served.url)
        stack.callback(watchers.end)
        time.sleep(SETTLE_S)

    def edge(self) -> tuple[float, ...]:
        return quantiles(sorted(cycle.late_ns / 1000 for cycle in self.cycles()))

    def cycles(self) -> list[Cycle]:
        """Those of a round, and a note of their extremes."""
        before = self.trace.count
        time.sleep(self.seconds)
        cycles = self.trace.since(before)
        overruns = cycles[-1].number - cycles[0].number + 1 - len(cycles)
        late, cpu = max(cycle.late_ns for cycle in cycles), max(cycle.cpu_ns for cycle in cycles)
        self.notes.append(
            f"edge: {len(cycles)} cycles, {overruns} skipped by overruns; the latest came {late / 1000:.0f} µs late, "
            f"the longest took {cpu / 1000:.0f} µs of processor time"
        )
        return cycles

    def peer(self) -> tuple[float, ...]:
        os.sched_setscheduler(self.loop, os.SCHED_OTHER, os.sched_param(0))
        try:
            late = cyclictest(self.seconds, real_time=self.priority[0] == os.SCHED_FIFO)
        finally:
            os.sched_setscheduler(self.loop, *self.priority)
        over = sum(one > PERIOD_US for one in late)
        self.notes.append(f"cyclictest: {len(late)} ticks, {over} late by more than a period; the latest {late[-1]} µs")
        return quantiles(late)


class CycleCpu(Lateness):
    """The most processor time that one cycle took: above the period the loop itself would be what overruns.

    `--seconds 600` for the full run. Overruns that other programs cause are told below the table.
    """

    names = ("loop.cycle_cpu_max",)
    peer_name = "the period"
    rounds = 1

    def edge(self) -> tuple[float, ...]:
        return (max(cycle.cpu_ns for cycle in self.cycles()) / 1000,)

    def peer(self) -> tuple[float, ...]:
        return (PERIOD_US,)


def quantiles(late: Sequence[float]) -> tuple[float, ...]:
    """Of sorted numbers, at QUANTILES."""
    return tuple(float(late[int(len(late) * quantile)]) for quantile in QUANTILES)


def cyclictest(seconds: float, *, real_time: bool) -> list[int]:
    """The latencies of cyclictest, sorted, in µs (at most LONGEST_US). Raises Unavailable."""
    if shutil.which("cyclictest") is None:
        raise Unavailable("not installed: apt-get install rt-tests")
    policy = ["-p", str(PRIORITY)] if real_time else ["--policy=other"]
    command = [
        "cyclictest",
        *policy,
        "-i",
        str(PERIOD_US),
        "-D",
        str(round(seconds)),
        "-m",
        "-q",
        "-h",
        str(LONGEST_US),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise Unavailable(f"it says: {ended.stderr.strip()}")
    return latencies(ended.stdout)


def latencies(said: str) -> list[int]:
    """Every latency of cyclictest's histogram, sorted; one that is too long for it counts as LONGEST_US."""
    counts = {int(late): int(count) for late, count in re.findall(r"(?m)^(\d{6}) (\d+)$", said)}
    over = re.search(r"Histogram Overflows: (\d+)", said)
    counts[LONGEST_US] = int(over[1]) if over is not None else 0
    return [late for late, count in sorted(counts.items()) for _ in range(count)]


CASES: tuple[type[Case], ...] = (Lateness, CycleCpu)
