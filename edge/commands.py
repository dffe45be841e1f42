"""What a person commands: start, steer, answer, set, acknowledge; each checked against what is, and answered."""

from collections.abc import Callable

from drivers.value import Value
from edge import states, words
from edge.alarms import Alarms
from edge.batch import BatchState, State
from edge.control import Control
from edge.levels import Levels
from edge.messages import Answered, Asked, Command, CommandDone, Event, TagSet
from edge.program import Parameter, Plan, Recipe
from edge.sequence import Refused, Sequence, fit

MAX_BATCHES = 64


class Denied(Exception):
    """A command that is refused; the text says why to the person who gave it."""


class Commands:
    """Obeys or refuses each command."""

    def __init__(
        self,
        plan: Plan,
        state: State,
        emit: Callable[[Event], None],
        levels: Levels,
        alarms: Alarms,
        control: Control,
    ) -> None:
        self.plan = plan
        self.cell = plan.cell
        self.state = state
        self.emit = emit
        self.levels = levels
        self.alarms = alarms
        self.control = control

    def take(self, command: Command) -> None:
        """Obeys a command, or refuses it in words; either way it is answered."""
        try:
            self._obey(command)
        except Denied as denied:
            self.emit(CommandDone(command.id, False, str(denied), command.batch))
            return
        self.emit(CommandDone(command.id, True, "", command.batch))

    def _obey(self, command: Command) -> None:
        match command.do:
            case "start":
                self._start(command)
            case "answer":
                self._answer(command)
            case "set":
                self._set(command)
            case "acknowledge":
                if not self.alarms.acknowledge(command.alarm, command.by):
                    raise Denied("there is no such alarm to acknowledge")
            case _:
                self._steer(command)

    def _start(self, command: Command) -> None:
        recipe = self.plan.recipes.get(command.recipe)
        if recipe is None:
            raise Denied(f"there is no recipe {command.recipe}")
        if not command.batch or command.batch in self.state.batches:
            raise Denied(f"there is a batch {command.batch} already")
        if len(self.state.batches) >= MAX_BATCHES:
            raise Denied(f"{MAX_BATCHES} batches are here already: reset those that have ended")
        values = _parameters(recipe, command.parameters)
        for unit in recipe.uses:
            if unit in self.state.owners:
                raise Denied(f"{unit} is used by batch {self.state.owners[unit]}")
        for device in recipe.devices:
            if not self.state.up[device]:
                raise Denied(f"{self.cell.devices[device].name} is not there: {self.state.reasons[device]}")
        variables: list[Value | None] = [*values.values(), *[None] * (len(recipe.variables) - len(values))]
        batch = BatchState(command.batch, recipe.name, recipe.hash, command.by, variables=variables)
        sequence = self.control.sequence(batch)
        self._ready(sequence)
        self.control.begin(sequence, values, command.by)

    def _ready(self, sequence: Sequence) -> None:
        """Raises Denied while an input is bad or an interlock stands."""
        bad = [tag for tag in sequence.recipe.inputs if self.state.values[tag] is None]
        if bad:
            raise Denied(f"no good value from {', '.join(self.cell.tags[tag].name for tag in bad[:5])}")
        for interlock in sequence.recipe.interlocks:
            if interlock.when(self.state.values, sequence.batch.variables) is not False:
                raise Denied(f"an interlock stands: {words.english(interlock.say)} ({interlock.condition})")

    def _steer(self, command: Command) -> None:
        sequence = self._find(command.batch)
        batch = sequence.batch
        if command.do not in states.allowed(batch.state):
            possible = ", ".join(states.allowed(batch.state)) or "nothing"
            raise Denied(
                f"batch {batch.batch} is {batch.state}: {command.do} is not possible now (possible: {possible})"
            )
        if command.do == "reset":
            self.control.remove(sequence, command.by)
            return
        if command.do == "restart":
            for device in sequence.recipe.devices:
                self._reach(device)
            self._ready(sequence)
        self.control.change(sequence, command.do, command.cause or f"{command.do} by {command.by}", command.by)

    def _find(self, name: str) -> Sequence:
        sequence = self.control.sequences.get(name)
        if sequence is None:
            raise Denied(f"no batch {name} is running here")
        return sequence

    def _reach(self, device: int) -> None:
        """Raises Denied where the device is lost."""
        if not self.state.up[device]:
            raise Denied(f"{self.cell.devices[device].name} is lost: {self.state.reasons[device]}")

    def _answer(self, command: Command) -> None:
        batch = self._find(command.batch).batch
        asked = batch.prompts.get(command.prompt)
        if asked is None or command.prompt in batch.answers:
            raise Denied("this question is not open")
        value = _answer(asked, command.value)
        batch.answers[command.prompt] = value
        recipe = self.plan.recipes[batch.recipe]
        if asked.name:
            batch.variables[recipe.variables.index(asked.name)] = value
        del batch.prompts[command.prompt]
        self.emit(Answered(batch.batch, command.prompt, value, command.by, asked.name))

    def _set(self, command: Command) -> None:
        tag = next((tag for tag in self.cell.tags if tag.name == command.tag), None)
        if tag is None:
            raise Denied(f"there is no tag {command.tag}")
        if not tag.writable:
            raise Denied(f"{tag.name} can only be read")
        if tag.index in self.levels.beats:
            raise Denied(f"{tag.name} is a heartbeat: edge counts it")
        owner = self.levels.owner(tag.index)
        if owner is not None:
            raise Denied(f"{tag.name} belongs to batch {owner.batch} ({owner.recipe}) while it runs")
        self._reach(tag.device)
        if command.value is None:
            raise Denied("a value is needed")
        try:
            value = fit(tag, command.value)
        except Refused as refused:
            raise Denied(refused.say["en"]) from None
        self.state.manual[tag.index] = value
        self.levels.settle((tag.index,))
        self.emit(TagSet(tag.name, value, command.by))


def _parameters(recipe: Recipe, given: dict[str, Value]) -> dict[str, Value]:
    """The recipe's parameters in their order, defaults filled in. Raises Denied."""
    names = [parameter.name for parameter in recipe.parameters]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise Denied(f"{recipe.name} has no parameter {unknown[0]}; it has {', '.join(names) or 'none'}")
    return {one.name: _parameter(one, given.get(one.name, one.default)) for one in recipe.parameters}


def _parameter(parameter: Parameter, value: Value | None) -> Value:
    name, unit = parameter.name, f" {parameter.unit}" if parameter.unit else ""
    if value is None:
        raise Denied(f"parameter {name} is needed")
    kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
    if kind != parameter.type:
        raise Denied(f"parameter {name} is a {parameter.type}, {value!r} is none")
    if isinstance(value, str) and parameter.choices and value not in parameter.choices:
        raise Denied(f"parameter {name} is one of {', '.join(parameter.choices)}, not {value}")
    if not isinstance(value, str) and not _within(value, parameter.low, parameter.high):
        raise Denied(
            f"parameter {name} goes from {parameter.low} to {parameter.high}{unit}, {value}{unit} does not fit"
        )
    return value


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or low <= value) and (high is None or value <= high)


def _answer(asked: Asked, value: Value | None) -> Value:
    """The answer as the question wants it. Raises Denied."""
    match asked.kind:
        case "confirm":
            if value is None or value is True:
                return True
            raise Denied("this is to be confirmed")
        case "choice":
            if isinstance(value, str) and value in asked.answers:
                return value
            raise Denied(f"answer one of {', '.join(asked.answers)}")
        case "number":
            if isinstance(value, bool | str) or value is None:
                raise Denied("answer with a number")
            if not _within(value, asked.low, asked.high):
                raise Denied(f"the answer goes from {asked.low} to {asked.high} {asked.unit}".rstrip())
            return value
        case _:
            if isinstance(value, str) and 0 < len(value) <= 200:
                return value
            raise Denied("answer with a text of at most 200 characters")
