"""Recipe tests in virtual time: the engine and the plan as on the wire, a plant model, no sockets and no sleeping.

A test ends with the first thing that is not as it must be, or some cycles after its batch has ended and all that it
waits for has come. Its time, in cycles, counts from the start of the batch.
"""

import copy
from collections.abc import Iterator
from typing import Self

import msgspec

from drivers.value import Value, display
from edge.batch import BatchState, BranchState
from edge.engine.function_blocks import FunctionBlocks, Instances
from edge.engine.states import ENDED
from edge.language.plant import Plant
from edge.language.program import Plan
from edge.language.source import Place
from edge.language.trial_program import Condition, Moment, Trial, Wish
from edge.language.trial_program import Event as Happening
from edge.messages import (
    AlarmRaised,
    CommandDone,
    Event,
    Recorded,
    StateChanged,
    StepEnded,
    StepStarted,
)
from edge.trial.site import Site

BATCH, OPERATOR = "test", "operator"
SETTLE_S = 0.1
"""So long a test goes on after its batch has ended."""

_SHOWN = 12


class Shown(msgspec.Struct, frozen=True):
    """A tag at the moment of a failure: what the plant does, and what edge knows of it (None: no good value)."""

    tag: str
    unit: str
    truth: Value | None
    seen: Value | None


class Failure(msgspec.Struct, frozen=True):
    """What was not as it must be: what the test says and where, after how many seconds, and how things stood then.

    `steps` are those that were active, or the last one: name, and where it stands.
    """

    message: str
    place: Place
    seconds: float
    state: str
    cause: str
    steps: tuple[tuple[str, str], ...]
    tags: tuple[Shown, ...]


class Verdict(msgspec.Struct, frozen=True):
    """How a test came out, after how many seconds of the plant's time."""

    trial: Trial
    seconds: float
    failure: Failure | None


def run_trial(plan: Plan, trial: Trial, plant: Plant) -> Verdict:
    """Runs a test. The plant is left as it is: a copy of it is used."""
    return Run(plan, trial, plant.copy()).verdict()


class Failed(Exception):
    """The test has failed."""

    def __init__(self, message: str, place: Place, tags: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.tags = tags


class Due:
    """When a moment comes: at `cycle`, once that is known."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.cycle = None if moment.when or moment.steps else moment.cycles

    def began(self, step: int, now: int) -> None:
        if self.cycle is None and step in self.moment.steps:
            self.cycle = now + self.moment.cycles

    def look(self, truth: list[Value | None], variables: list[Value | None], now: int) -> None:
        when = self.moment.when
        if self.cycle is None and when is not None and when(truth, variables) is True:
            self.cycle = now + self.moment.cycles


class Run:
    """One run of a test."""

    def __init__(self, plan: Plan, trial: Trial, plant: Plant) -> None:
        self.plan = plan
        self.trial = trial
        self.recipe = plan.recipes[trial.recipe]
        self.site = Site(plan, plant, trial.tags)
        self.scan_s = plan.cell.scan_ns / 1e9
        self.settle = plan.cycles(SETTLE_S)
        self.now = 0
        self.happenings = [(one, Due(one.moment)) for one in trial.events]
        self.wishes = [(one, Due(one.moment)) for one in trial.wishes]
        self.mends: list[tuple[int, Happening]] = []
        self.asked: dict[int, Place] = {}
        self.answered = set[int]()
        self.state = "idle"
        self.cause = ""
        self.ended: int | None = None
        self.last_step = -1
        self.raised: set[str] = set()
        self.recorded: dict[str, Value] = {}
        self.variables: list[Value | None] = []
        self.own = len(self.recipe.variables) + len(self.recipe.blocks)
        self.memory = BatchState(BATCH, self.recipe.name, "", "", variables=[None] * (self.own + len(trial.blocks)))
        self.blocks = FunctionBlocks(plan, trial.blocks, self.site.truth, self.memory)
        self.instances: Instances = {}

    def fork(self) -> Self:
        """Another run in the same state, which goes its own way from here; between two cycles."""
        made = copy.copy(self)
        made.site = self.site.fork()
        made.happenings = [(one, copy.copy(due)) for one, due in self.happenings]
        made.wishes = [(one, copy.copy(due)) for one, due in self.wishes]
        made.mends, made.asked, made.answered = self.mends.copy(), self.asked.copy(), self.answered.copy()
        made.raised, made.recorded, made.variables = self.raised.copy(), self.recorded.copy(), self.variables.copy()
        made.memory = msgspec.structs.replace(self.memory, variables=self.memory.variables.copy())
        made.blocks = FunctionBlocks(self.plan, self.trial.blocks, made.site.truth, made.memory)
        made.instances = copy.deepcopy(self.instances)
        return made

    def verdict(self) -> Verdict:
        failure = None
        try:
            self._begin()
            while not self._over():
                self._cycle()
            self._close()
        except Failed as failed:
            failure = self._failure(failed)
        return Verdict(self.trial, self.now * self.scan_s, failure)

    # --- the course of a test ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Lets the devices come, then starts the batch."""
        for _ in range(2 * max(self.site.periods)):
            self.site.run()
        trial = self.trial
        number = self.site.command("start", OPERATOR, BATCH, recipe=trial.recipe, parameters=trial.parameters)
        self.asked[number] = trial.place
        self.now = -1
        self._cycle()

    def _over(self) -> bool:
        """Whether nothing more can come: what waits for a moment that may never be is waited for until the end only."""
        end = self.trial.limit if self.ended is None else self.ended + self.settle
        if self.now < end:
            return False
        known = any(due.cycle is not None for _, due in (*self.happenings, *self.wishes))
        return not known and not (self.mends and self.ended is None)

    def _cycle(self) -> None:
        self.now += 1
        self._happen()
        output = self.site.run()
        if output is not None:
            for event in output.events:
                self._hear(event)
            self._answer()
        self._watch()
        if self.ended is None and self.now >= self.trial.limit and self.trial.state in ENDED:
            self._not_ended()

    def _close(self) -> None:
        trial = self.trial
        if self.state != trial.state:
            raise Failed(f"the batch is {self.state}, not {trial.state}", trial.ends)
        for one, _ in self.happenings:
            raise Failed(f"the moment of this never came: {one.text}", one.place)
        for wish, _ in self.wishes:
            raise Failed(f"the moment of this never came: {wish.text}", wish.place)
        for one in trial.recordings:
            for name in one.names:
                if name not in self.recorded:
                    raise Failed(f"`{name}` was not recorded: {one.that.text}", one.that.place)
        for kind in trial.alarms:
            if kind not in self.raised:
                raise Failed(f"no alarm {kind} was raised", trial.ends)

    def _not_ended(self) -> None:
        batch = self._batch()
        asked = [
            prompt.name or self.recipe.steps[prompt.step].name for prompt in (batch.prompts if batch else {}).values()
        ]
        why = f", and waits for an answer to {', '.join(asked)}" if asked else ""
        seconds = self.trial.limit * self.scan_s
        raise Failed(f"the batch has not ended by {seconds:g} s: it is {self.state}{why}", self.trial.ends)

    # --- what happens ------------------------------------------------------------------------------------------------

    def _happen(self) -> None:
        if not self.mends and not self.happenings:
            return
        for one in tuple(self.mends):
            if one[0] <= self.now:
                self.mends.remove(one)
                self._mend(one[1])
        for one in tuple(self.happenings):
            if one[1].cycle is not None and one[1].cycle <= self.now:
                self.happenings.remove(one)
                self._begin_event(one[0])

    def _begin_event(self, event: Happening) -> None:
        site, cycles = self.site, event.cycles
        match event.what:
            case "lost":
                site.lose(event.target)
            case "returns":
                site.find(event.target)
                site.delay(event.target, 0)
            case "slow":
                site.delay(event.target, event.late)
            case "cut":
                site.cut()
            case "command":
                self.asked[site.command(event.command, OPERATOR, BATCH)] = event.place
            case "answer":
                self._answer_now(event)
            case _:
                site.disturb(event)
                device = self.plan.cell.tags[event.target].device
                cycles = site.periods[device] if event.what == "spike" and cycles is None else cycles
        if cycles is not None:
            self.mends.append((self.now + cycles, event))

    def _mend(self, event: Happening) -> None:
        match event.what:
            case "lost":
                self.site.find(event.target)
            case "slow":
                self.site.delay(event.target, 0)
            case "cut":
                self.answered.clear()
                self.site.restore()
            case _:
                self.site.mend(event)

    def _batch(self) -> BatchState | None:
        return self.site.engine.state.batches.get(BATCH)

    def _answer(self) -> None:
        """The operator answers what is open and has an answer in the test."""
        batch = self._batch()
        for number, prompt in (batch.prompts if batch is not None else {}).items():
            names = [name for name in (prompt.name, self.recipe.steps[prompt.step].name) if name in self.trial.answers]
            if names and number not in self.answered:
                self._give(number, self.trial.answers[names[0]], self.trial.place)

    def _answer_now(self, event: Happening) -> None:
        batch = self._batch()
        prompts = batch.prompts if batch is not None else {}
        for name, value in event.answers.items():
            found = [
                number
                for number, prompt in prompts.items()
                if name in (prompt.name, self.recipe.steps[prompt.step].name) and number not in self.answered
            ]
            if not found:
                raise Failed(f"`{name}` is not asked now", event.place)
            self._give(found[0], value, event.place)

    def _give(self, prompt: int, value: Value, place: Place) -> None:
        self.answered.add(prompt)
        self.asked[self.site.command("answer", OPERATOR, BATCH, prompt=prompt, value=value, role="engineer")] = place

    # --- what comes of it --------------------------------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        match event:
            case StateChanged():
                self._changed(event)
            case StepStarted():
                self.last_step = event.step
                for _, due in (*self.happenings, *self.wishes):
                    due.began(event.step, self.now)
            case StepEnded():
                self.last_step = event.step
            case Recorded():
                self._record(event)
            case AlarmRaised():
                self.raised.add(event.kind)
                if event.kind not in self.trial.alarms:
                    text = event.say.get("en") or next(iter(event.say.values()), "")
                    raise Failed(f"an alarm that the test does not expect, {event.kind}: {text}", self.trial.ends)
            case CommandDone(ok=False):
                raise Failed(f"it was refused: {event.text}", self.asked.get(event.id, self.trial.place))
            case _:
                pass

    def _changed(self, event: StateChanged) -> None:
        self.state, self.cause = event.state, event.cause
        if event.state in ENDED:
            self.ended = self.now
            if event.state != self.trial.state:
                wanted = self.trial.state
                raise Failed(f"the batch is {event.state}, not {wanted}: {event.cause}", self.trial.ends)

    def _record(self, event: Recorded) -> None:
        self.recorded[event.name] = event.value
        for one in self.trial.recordings:
            if event.name in one.names:
                own = self._variables()[: len(self.recipe.variables)]  # what function blocks keep comes after these
                variables = [*own, *map(self.recorded.get, self.trial.recorded)]
                if one.that.code(self.site.truth, variables) is False:
                    shown = [(name, self.recorded.get(name)) for name in one.names]
                    values = ", ".join(f"{name} = {display(value)}" for name, value in shown if value is not None)
                    raise Failed(f"not recorded as it must be, {values}: {one.that.text}", one.that.place)

    def _variables(self) -> list[Value | None]:
        """The recipe's parameters and answers; those of the last cycle where there is no batch now."""
        batch = self._batch()
        if batch is not None:
            self.variables = batch.variables
        return self.variables

    def _watch(self) -> None:
        truth, variables = self.site.truth, self._variables()
        if len(variables) < self.own:
            return  # before the batch has begun
        if self.trial.blocks:
            variables = self._remember(variables)
        for condition in self.trial.always:
            if condition.code(truth, variables) is False:
                raise Failed(f"this must always be: {condition.text}", condition.place, condition.tags)
        for _, due in self.happenings:
            due.look(truth, variables, self.now)
        for one in tuple(self.wishes):
            if self._granted(*one):
                self.wishes.remove(one)

    def _remember(self, variables: list[Value | None]) -> list[Value | None]:
        """The cycle's call of the conditions' function blocks, which begin with the batch; the variables and theirs."""
        self.memory.variables[: self.own] = variables[: self.own]
        if self.instances:
            self.blocks.call(self.instances, self.now)
        else:
            self.blocks.begin(self.trial.blocks, self.instances, self.now)
        self.variables = self.memory.variables
        return self.variables

    def _granted(self, wish: Wish, due: Due) -> bool:
        """Whether it has come true; raises where it is too late."""
        due.look(self.site.truth, self.variables, self.now)
        if due.cycle is None or self.now < due.cycle:
            return False
        if self._holds(wish.that) and wish.state in ("", self.state):
            return True
        if self.now >= due.cycle + wish.cycles:
            raise Failed(f"this has not come true: {wish.text}", wish.place, wish.that.tags if wish.that else ())
        return False

    def _holds(self, condition: Condition | None) -> bool:
        return condition is None or condition.code(self.site.truth, self.variables) is True

    # --- how things stand --------------------------------------------------------------------------------------------

    def _failure(self, failed: Failed) -> Failure:
        self.site.look()
        batch = self._batch()
        active = list(dict.fromkeys(self._active(batch)))
        steps = [self.recipe.steps[index] for index in active or [self.last_step] if index >= 0]
        of_steps = [
            tag for step in steps for tag in (*step.inputs, *(level.tag for level in (*step.set, *step.during)))
        ]
        tags = list(dict.fromkeys([*failed.tags, *of_steps]))[:_SHOWN]
        known, seen = self.plan.cell.tags, self.site.engine.state.values
        return Failure(
            failed.message,
            failed.place,
            self.now * self.scan_s,
            self.state if self.site.powered else f"{self.state}, edge without power",
            self.cause,
            tuple((step.name, f"{step.file or self.recipe.file}:{step.line}") for step in steps),
            tuple(Shown(known[tag].name, known[tag].unit, self.site.truth[tag], seen[tag]) for tag in tags),
        )

    def _active(self, batch: BatchState | None) -> Iterator[int]:
        """The steps that are active, those inside others too."""
        waiting: list[BranchState] = [one for one in (batch.handling, batch.body) if one] if batch is not None else []
        while waiting:
            branch = waiting.pop(0)
            if branch.at < len(branch.block):
                yield branch.block[branch.at]
            waiting += branch.children
