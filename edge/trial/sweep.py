"""A test repeated with each fault at each cycle: the run without a fault is forked there, and what comes is watched.

A case fails where something is not as it must always be, or an output is not at its failsafe after an abort. What the
test expects and how it must end does not count: a fault may change these. A case is followed no further when it has
rejoined the run without a fault, has ended, or waits for a person.
"""

import contextlib
import math
import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

import msgspec

from drivers.value import Value
from edge.engine.states import ENDED
from edge.language.plant import Plant
from edge.language.program import Plan
from edge.language.trial_program import Event as Happening
from edge.language.trial_program import Moment, Trial
from edge.messages import AlarmRaised, Event, StateChanged, StepEnded, StepStarted
from edge.trial.faults import Fault, faults_of
from edge.trial.trial import Due, Failed, Failure, Run

WAITING = frozenset({"held", "paused"})
PATIENCE_S = 0.5
"""So long a batch that waits for a person is watched after the fault is over."""

LONGEST_S = 60.0
"""So long a case is followed at most beyond the end of the run without a fault."""

_SELDOM = 32
"""A case is compared with the run without a fault in each cycle first, then less often, at last after so many."""

_encode = msgspec.msgpack.Encoder().encode


class Finding(msgspec.Struct, frozen=True):
    """A case that fails: the fault by its place among them, the cycle of the batch in which it begins, the failure.

    `state` and `alarms` are how the batch comes to rest after it, in so many `cycles`.
    """

    cycle: int
    fault: int
    failure: Failure
    state: str
    alarms: tuple[str, ...]
    cycles: int


class Sweep(msgspec.Struct, frozen=True):
    """What came of a sweep: how many cases there are in `total`, how many were tried and how each ended by its name
    (`rejoined`, `ended`, `waiting`, `going on`, `failed`), and the smallest that fails, with its fault.
    """

    total: int
    counts: dict[str, int]
    smallest: tuple[Finding, Fault] | None

    @property
    def covered(self) -> int:
        return sum(self.counts.values())


def sweep(plan: Plan, trial: Trial, plant: Plant, cases: int | None, cores: int | None = None) -> Sweep:
    """Tries up to so many cases (None: all) of a test that passes, spread evenly over its cycles, on so many cores.

    The smallest failing case is the earliest; the cycles between it and the one tried before it are tried too.
    """
    course = Course(plan, trial, plant)
    total = course.end * len(course.faults)
    step = max(1, -(-total // cases)) if cases is not None else 1
    while math.gcd(step, len(course.faults)) > 1:
        step += 1
    found, counts = course.run(step, cores or len(os.sched_getaffinity(0)))
    smallest = min(found, key=lambda one: (one.cycle, one.fault), default=None)
    if smallest is not None:
        between = range(max(0, smallest.cycle - step + 1), smallest.cycle)
        earlier = course.first(between, smallest.fault)
        smallest = earlier or smallest
    found_with = None if smallest is None else (smallest, course.faults[smallest.fault])
    return Sweep(total, dict(counts), found_with)


class Course:
    """The run of a test without a fault beside its own, and all that can go wrong in it."""

    def __init__(self, plan: Plan, trial: Trial, plant: Plant) -> None:
        quiet = msgspec.structs.replace(trial, wishes=(), recordings=(), limit=1 << 60)
        self.start = Case(plan, quiet, plant)
        self.start.begin()
        self.recipe = plan.recipes[trial.recipe]
        self.marks: list[int] = []
        self.truths: list[list[Value | None]] = []
        largest: list[Value | None] = self.start.site.truth.copy()
        case = self.start.fork()
        while not case.rests(0):
            self.marks.append(case.mark())
            self.truths.append(case.site.truth.copy())
            case.forward()
            for index, value in enumerate(case.site.truth):
                most = largest[index]
                if not isinstance(value, str | None) and (most is None or isinstance(most, str) or value > most):
                    largest[index] = value
        self.end = len(self.marks)
        self.faults = faults_of(plan, self.recipe, largest, trial.place)
        self.last = case.now + plan.cycles(LONGEST_S)

    def stands(self, event: Happening, at: int, over: int) -> bool:
        """Whether what a fault holds in its place stands there anyway, so that nothing can come of it."""
        tag = event.target
        if event.what != "stuck" or event.value is not None or over >= self.end:
            return False
        return all(self.truths[cycle][tag] == self.truths[at - 1][tag] for cycle in range(at, over + 1))

    def run(self, step: int, cores: int) -> tuple[list[Finding], Counter[str]]:
        """One case of every `step`, on so many cores: what fails, and how the cases ended.

        Each fault comes at one of so many cycles, where `step` has no divisor in common with the number of faults.
        """
        context = multiprocessing.get_context("fork")  # a plan's code cannot be sent to a process, only inherited
        processes: list[ForkProcess] = []
        ends: list[Connection] = []
        for core in range(cores):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=self._work, args=(range(core, self.end, cores), step, theirs), daemon=True)
            process.start()
            processes.append(process)
            theirs.close()
            ends.append(ours)
        found: list[Finding] = []
        counts = Counter[str]()
        for end in ends:
            with end:
                some, how = end.recv()
                found += some
                counts += how
        for process in processes:
            process.join()
        return found, counts

    def _work(self, cycles: Sequence[int], step: int, end: Connection) -> None:
        found: list[Finding] = []
        counts = Counter[str]()
        case = self.start.fork()
        for cycle in cycles:
            while case.now < cycle:
                case.forward()
            for number in range(-cycle * len(self.faults) % step, len(self.faults), step):
                how, finding = case.fork().follow(number, self.faults[number], self)
                counts[how] += 1
                if finding is not None:
                    found.append(finding)
        end.send((sorted(found, key=lambda one: (one.cycle, one.fault))[:1], counts))

    def first(self, cycles: Sequence[int], fault: int) -> Finding | None:
        """The first of the cycles at which this fault makes the test fail."""
        case = self.start.fork()
        for cycle in cycles:
            while case.now < cycle:
                case.forward()
            _, finding = case.fork().follow(fault, self.faults[fault], self)
            if finding is not None:
                return finding
        return None


class Case(Run):
    """A run that goes on whatever is raised, refused or ended: only what must always be counts."""

    def __init__(self, plan: Plan, trial: Trial, plant: Plant) -> None:
        super().__init__(plan, trial, plant.copy())
        self.changed = 0

    def begin(self) -> None:
        """Starts the batch."""
        self._begin()

    def forward(self) -> None:
        """One cycle. Raises Failed, also where edge itself cannot go on: no fault of the plant may do that."""
        try:
            self._cycle()
        except Failed:
            raise
        except Exception as error:
            raise Failed(f"edge itself fails: {error!r}", self.trial.place) from error

    def rests(self, since: int) -> bool:
        """Whether nothing more comes: the batch has ended, or has waited for a person since the cycle or longer."""
        if self.ended is not None:
            return self.now >= self.ended + self.settle
        pending = any(due.cycle is not None for _, due in self.happenings)
        since = max(self.changed, since)
        return self.state in WAITING and not pending and self.now >= since + self.plan.cycles(PATIENCE_S)

    def follow(self, number: int, fault: Fault, course: Course) -> tuple[str, Finding | None]:
        """What comes of a fault in the next cycle."""
        at = self.now + 1
        self.happenings.append((fault.event, Due(Moment(at))))
        over = at + (fault.event.cycles or 0)
        if course.stands(fault.event, at, over):
            return "rejoined", None
        look = over + 1
        try:
            while True:
                self.forward()
                if self.now <= over:
                    continue
                if look <= self.now < course.end:
                    if self.site.quiet and self.mark() == course.marks[self.now]:
                        return "rejoined", None
                    look = self.now + min(_SELDOM, 1 + (self.now - over) // 4)
                if self.rests(over):
                    return ("waiting" if self.ended is None else "ended"), None
                if self.now >= course.last:
                    return "going on", None
        except Failed as failed:
            failure = self._failure(failed)
        return "failed", self._finding(number, at, failure, course)

    def _finding(self, number: int, at: int, failure: Failure, course: Course) -> Finding:
        """Goes on to where the batch comes to rest, whatever else is not as it must be."""
        self.trial = msgspec.structs.replace(self.trial, always=())
        since = self.now
        with contextlib.suppress(Failed):
            while not self.rests(since) and self.now < course.last:
                self.forward()
        return Finding(at, number, failure, self.state, tuple(sorted(self.raised)), self.now)

    def mark(self) -> int:
        """Equal for runs that go on alike, but for what was told of them: the numbers of alarms and commits."""
        site, state = self.site, self.site.engine.state
        known = _encode(
            (
                site.cycle, site.due, site.truth, len(site.packets), len(self.happenings), len(self.mends),
                state.values, state.statuses, state.up, state.levels, state.manual, state.batches, state.owners,
                state.marks, state.held, sorted(state.alarm_keys), self.memory.variables, self.instances,
            )
        )  # fmt: skip
        return hash((known, site.plant.state()))

    # --- what counts, and what does not ------------------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        match event:
            case StateChanged():
                self.state, self.cause, self.changed = event.state, event.cause, self.now
                self.ended = self.now if event.state in ENDED else None
            case StepStarted():
                self.last_step = event.step
                for _, due in self.happenings:
                    due.began(event.step, self.now)
            case StepEnded():
                self.last_step = event.step
            case AlarmRaised():
                self.raised.add(event.kind)
            case _:
                pass

    def _answer_now(self, event: Happening) -> None:
        with contextlib.suppress(Failed):  # a fault may have put off the question
            super()._answer_now(event)

    def _watch(self) -> None:
        super()._watch()
        settled = self.ended is not None and self.now == self.ended + self.settle
        if settled and self.state == "aborted" and self.site.powered:
            self._safe()

    def _safe(self) -> None:
        """After an abort every output of the batch stands at its failsafe."""
        cell, levels = self.plan.cell, self.site.engine.state.levels
        for tag in self.recipe.outputs:
            failsafe = cell.tags[tag].failsafe
            if cell.tags[tag].device in self.recipe.devices and levels[tag] != failsafe:
                raise Failed(f"`{cell.tags[tag].name}` is not at its failsafe after an abort", self.trial.place, (tag,))
