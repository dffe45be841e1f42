"""Recipe tests in virtual time: how many times faster than the plant, and how many faults a sweep tries in a second."""

import contextlib
import os
import time

from edge.language.plan import load_trials
from edge.language.source import Problems
from edge.trial.sweep import sweep
from edge.trial.trial import run_trial
from tests.bench.case import Case, Unavailable
from tests.processes import BOTTLING

FACTOR = 1000
FAULTS, SWEEP_S = 10_000, 60
TRIED = 500


class TimesRealTime(Case):
    """All tests of the bottling cell, whose scan is 10 ms, on one core."""

    names = ("trial.times_real_time",)
    unit = "×"
    peer_name = "what is asked"
    rounds = 3

    def begin(self, stack: contextlib.ExitStack) -> None:
        problems = Problems()
        self.files = load_trials([BOTTLING.parent], problems)
        if problems.errors:
            raise Unavailable("the recipes have mistakes")

    def edge(self) -> tuple[float, ...]:
        began = time.process_time()
        runs = [run_trial(one.plan, trial, one.plant) for one in self.files for trial in one.trials]
        return (sum(run.seconds for run in runs) / (time.process_time() - began),)

    def peer(self) -> tuple[float, ...]:
        return (FACTOR,)


class SweepFaults(TimesRealTime):
    """Faults spread over the first test of rinse-and-fill, on all cores."""

    names = ("trial.sweep_faults_per_second",)
    unit = "1/s"

    def edge(self) -> tuple[float, ...]:
        one = next(one for one in self.files if one.file.endswith("rinse-and-fill.test.yaml"))
        began = time.perf_counter()
        swept = sweep(one.plan, one.trials[0], one.plant, TRIED)
        self.notes = [f"{swept.covered} of {swept.total} on {len(os.sched_getaffinity(0))} cores"]
        return (swept.covered / (time.perf_counter() - began),)

    def peer(self) -> tuple[float, ...]:
        return (FAULTS / SWEEP_S,)


CASES: tuple[type[Case], ...] = (TimesRealTime, SweepFaults)
