"""What a step of a batch gives while it is active: levels of outputs, questions, values for the record."""

from collections.abc import Callable

import msgspec

from drivers.value import Value
from edge.batch import BatchState, BranchState, Instance, Slope, State
from edge.engine import refusals, words
from edge.engine.fit import agrees, fit
from edge.engine.formula import fault_of
from edge.engine.function_blocks import FunctionBlocks
from edge.engine.refusals import Refused
from edge.language.program import (
    LONGEST_S,
    Code,
    Interlock,
    Level,
    Notice,
    Operation,
    Plan,
    Prompt,
    Ramp,
    Recipe,
    Step,
    Texts,
)
from edge.language.rules import AlarmKind, Priority
from edge.messages import Answered, Asked, Event, Recorded, VariableSet

BLIND_S = 2.0
"""So long a step may wait for a value that is unknown, with no time limit to end that wait, before it is an alarm."""


class Fault(msgspec.Struct, frozen=True):
    """What went wrong in a step: the alarm to raise, and what the batch must `do` ("": go on).

    A batch has one alarm of each kind, or, where `step` is given, one for each step (by its index).
    """

    do: str
    kind: AlarmKind
    say: Texts
    tag: str = ""
    step: int | None = None
    priority: Priority | None = None

    def key(self, batch: str) -> str:
        """The key of its alarm."""
        if self.kind == "alarm":
            return f"notice:{batch}:{self.step}"
        return f"batch:{batch}:{self.kind}" + ("" if self.step is None else f":{self.step}")


class Acting:
    """One batch, and what its active steps give.

    `faults` gathers what is wrong and may change the batch's state, `mended` what is so no longer, `touched` the tags
    whose level may have changed; the engine takes them after each turn. `blind` are the steps that found a value
    unknown in this turn and have no time limit that ends the wait for it. `clock` is the batch's own; in a handler it
    is the cell's cycles, since its batch stands still. `instances` are the function blocks of that which has its turn,
    `guards` the interlocks that count now, with their places.
    """

    def __init__(self, plan: Plan, recipe: Recipe, state: State, batch: BatchState, emit: Callable[[Event], None]):
        self.plan = plan
        self.recipe = recipe
        self.state = state
        self.batch = batch
        self.steps = recipe.steps
        self.values = state.values
        self.variables = batch.variables
        self.blocks = FunctionBlocks(plan, recipe.blocks, state.values, batch)
        self.emit = emit
        self.faults: list[Fault] = []
        self.mended: list[Fault] = []
        self.blind: list[int] = []
        self.blind_limit = plan.cycles(BLIND_S)
        self.touched: set[int] = set()
        self.handling = False
        self.clock = 0
        self.instances: dict[int, Instance] = {}
        self.guards = self._guards()

    def devices(self) -> frozenset[int]:
        """The devices of the units that the batch has now."""
        units = self.plan.cell.units
        return frozenset([*self.recipe.devices, *[one for unit in self.batch.units for one in units[unit]]])

    def inputs(self) -> tuple[int, ...]:
        """The tags that the batch reads, of the units that it has now."""
        return self._owned(self.recipe.inputs)

    def outputs(self) -> tuple[int, ...]:
        """The outputs that the batch drives, of the units that it has now."""
        return self._owned(self.recipe.outputs)

    def _owned(self, tags: tuple[int, ...]) -> tuple[int, ...]:
        if not self.recipe.shares:
            return tags
        devices = self.devices()
        return tuple([tag for tag in tags if self.plan.cell.tags[tag].device in devices])

    def _guards(self) -> list[tuple[int, Interlock]]:
        """The interlocks that count now: those of the recipe, then those of active steps."""
        always, interlocks = range(self.recipe.guards), self.recipe.interlocks
        return [(number, interlocks[number]) for number in (*always, *self.batch.armed)]

    def _arm(self, step: Step) -> bool:
        """Whether the step's interlocks count already; else from the next cycle on: before anything of it is given."""
        if step.interlocks[0] in self.batch.armed:
            return True
        self.batch.armed = [*self.batch.armed, *step.interlocks]
        self.guards = self._guards()
        return False

    def _disarm(self, step: Step) -> None:
        self.batch.armed = [number for number in self.batch.armed if number not in step.interlocks]
        self.guards = self._guards()
        for number in step.interlocks:
            if self.batch.marks.pop(number, None) is not None:
                self.mended.append(Fault("", "interlock", {}, step=number))

    def levels(self, levels: tuple[Level, ...]) -> dict[int, Value] | None:
        """The levels' values now; None while one is unknown, or when one is refused, which is a fault."""
        found: dict[int, Value] = {}
        for level in levels:
            value = level.value
            if callable(value):
                value = value(self.values, self.variables)
            if value is None:
                return None
            try:
                found[level.tag] = fit(self.plan.cell.tags[level.tag], value, calculated=True)
            except Refused as refused:
                self.faults.append(
                    Fault("" if self.handling else "hold", "refused", refused.say, self.plan.cell.tags[level.tag].name)
                )
                return None
        return found

    def _cycles(self, amount: int | Code | None) -> int | None:
        """A time in cycles; 0 where none is given, None while it is unknown."""
        if not callable(amount):
            return amount or 0
        seconds = amount(self.values, self.variables)
        if seconds is None or isinstance(seconds, str):
            return None
        return self.plan.cycles(min(max(0.0, seconds), LONGEST_S))

    def _give(self, branch: BranchState, levels: dict[int, Value]) -> None:
        branch.during = {**branch.during, **levels}
        (self.batch.pulsed if self.handling else self.batch.during).update(levels)
        self.touched.update(levels)

    def _take_back(self, branch: BranchState) -> None:
        layer = self.batch.pulsed if self.handling else self.batch.during
        for tag in branch.during:
            layer.pop(tag, None)
        self.touched.update(branch.during)
        branch.during = {}

    def _slopes(self, ramps: tuple[Ramp, ...]) -> dict[int, Slope] | None:
        """The outputs that begin to move now; None while one has no value, or is refused, which is a fault."""
        found: dict[int, Slope] = {}
        for ramp in ramps:
            rate = ramp.rate(self.values, self.variables) if callable(ramp.rate) else ramp.rate
            start = self._resting(ramp.tag) if ramp.start is None else ramp.start
            ends = self.levels((Level(ramp.tag, ramp.to),)), self.levels((Level(ramp.tag, start),))
            if rate is None or isinstance(rate, str) or ends[0] is None or ends[1] is None:
                return None
            if rate <= 0:
                tag = self.plan.cell.tags[ramp.tag].name
                self.faults.append(Fault("" if self.handling else "hold", "refused", words.no_rate(tag), tag))
                return None
            end, first = ends[0][ramp.tag], ends[1][ramp.tag]
            assert not isinstance(end, str) and not isinstance(first, str)
            found[ramp.tag] = Slope(float(first), float(end), float(rate), self.clock)
        return found

    def _pass_on(self, operation: Operation) -> bool:
        """Gives an operation its parameters; False while one is unknown, or refused, which is a fault."""
        values: dict[int, Value] = {}
        for variable, parameter, value in operation.parameters:
            if callable(value):
                value = value(self.values, self.variables)
                fault = None if value is None else fault_of(parameter, value)
                if fault is not None:
                    say = refusals.parameter_wrong(parameter.name, fault)
                    self.faults.append(Fault("hold", "refused", say))
                if value is None or fault is not None:
                    return False
            values[variable] = value
        for variable, value in values.items():
            self.variables[variable] = value
        return True

    def _resting(self, tag: int) -> Value:
        """The level that the steps, or those of the handler, have left an output at."""
        failsafe = self.plan.cell.tags[tag].failsafe
        assert failsafe is not None
        rest = self.batch.set.get(tag, failsafe)
        return self.batch.handler.get(tag, rest) if self.handling else rest

    def _move(self, branch: BranchState) -> bool:
        """Outputs of a ramp take the level that they have at this clock; True when all have arrived."""
        layer = self.batch.handler if self.handling else self.batch.set
        arrived = True
        for tag, slope in branch.slopes.items():
            value = slope.at((self.clock - slope.since) * self.plan.cell.scan_ns / 1e9)
            arrived = arrived and value == slope.end
            level = fit(self.plan.cell.tags[tag], value, calculated=True)
            if level != layer.get(tag):
                layer[tag] = level
                self.touched.add(tag)
        return arrived

    def _shown(self, levels: tuple[Level, ...]) -> bool | None:
        """Whether these outputs read back as they are set now; None while one has no good value."""
        for level in levels:
            value = self.values[level.tag]
            if not agrees(self.plan.cell.tags[level.tag], value, self.state.levels[level.tag]):
                return None if value is None else False
        return True

    def _pulse(self, levels: tuple[Level, ...], branch: BranchState) -> bool | None:
        """Stage 0: the outputs are at rest and read back so; 1: given; 2: read back, and so long for the device.

        A handler waits for no device: it gives its pulse from its beginning to its end.
        """
        if branch.stage == 0:
            shown = True if self.handling else self._shown(levels)
            given = self.levels(levels) if shown else None
            if given is None:
                return self.handling or (None if shown is not False else False)
            self._give(branch, given)
            branch.stage = 2 if self.handling else 1
            branch.wait = max(1, branch.wait) + (self.clock if self.handling else 0)
            return False
        if branch.stage == 1:
            shown = self._shown(levels)
            if not shown:
                return shown
            branch.stage = 2
            branch.wait += self.clock
        return self.clock >= branch.wait

    def _notify(self, notice: Notice, step: Step, branch: BranchState) -> bool:
        """Raises the alarm of a step; True when nobody is waited for, or somebody has acknowledged it."""
        fault = Fault("", "alarm", notice.say, step=step.index, priority=notice.priority)
        if branch.stage == 0:
            branch.stage = 1
            self.faults.append(fault)
            if step.index not in self.batch.notices:
                self.batch.notices = [*self.batch.notices, step.index]
            return not notice.acknowledge
        return fault.key(self.batch.batch) not in self.state.alarm_keys

    def notices(self) -> list[Fault]:
        """The alarms of its steps that nobody has acknowledged, as they were raised."""
        found = [(index, self.steps[index].alarm) for index in self.batch.notices]
        return [
            Fault("", "alarm", notice.say, step=index, priority=notice.priority)
            for index, notice in found
            if notice is not None
        ]

    def _record(self, step: Step) -> bool:
        """Keeps the values of a `record` step; False while one is unknown, since bad is never used."""
        values = [_kept(entry.value(self.values, self.variables)) for entry in step.record]
        if None in values and not self.handling:
            return False
        for entry, value in zip(step.record, values, strict=True):
            if value is not None:
                self.emit(Recorded(self.batch.batch, step.index, entry.name, value, entry.unit.name))
        return True

    def _let(self, step: Step) -> bool:
        """Sets the variables of a `let` step, each after those before it; False, and none, while one is unknown."""
        variables = self.variables
        before = variables.copy()
        for let in step.let:
            value = _kept(let.value(self.values, variables))
            if value is not None:
                variables[let.variable] = value
            elif not self.handling:
                variables[:] = before
                return False
        for let in step.let:
            value, name = variables[let.variable], self.recipe.variables[let.variable]
            if value is not None:
                self.emit(VariableSet(self.batch.batch, step.index, name, value, let.unit.name))
        return True

    def _ask(self, step: Step, branch: BranchState) -> None:
        ask = step.ask
        assert ask is not None
        branch.prompt = self.state.next_prompt
        self.state.next_prompt += 1
        name = "" if ask.into is None else self.recipe.variables[ask.into]
        asked = Asked(
            self.batch.batch,
            branch.prompt,
            step.index,
            ask.say,
            ask.kind,
            name,
            ask.answers,
            ask.unit,
            ask.low,
            ask.high,
            ask.labels,
            ask.who,
        )
        self.batch.prompts[branch.prompt] = asked
        self.emit(asked)

    def _unanswered(self, ask: Prompt, branch: BranchState) -> None:
        """Nobody has answered in time: what the recipe says then counts as the answer."""
        if ask.default is None:
            return
        name = ""
        if ask.into is not None:
            self.variables[ask.into] = ask.default
            name = self.recipe.variables[ask.into]
        label = ask.labels.get(ask.default, {}) if isinstance(ask.default, str) else {}
        self.emit(Answered(self.batch.batch, branch.prompt, ask.default, "recipe", name, label=label))


def _kept(value: Value | None) -> Value | None:
    """A value as msgpack and JSON can keep it: a whole number of more than 64 bits as a double."""
    return float(value) if type(value) is int and not -(1 << 63) <= value < 1 << 63 else value
