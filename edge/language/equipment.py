"""The equipment phases of a cell as its engineer writes them (ISA-88: what a unit can do by itself), and their checks.

What they say is compiled in `phases.py`.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, field

from edge.language.cell import Cell, Tag
from edge.language.shape import Condition, Expression, Form, Name, Seconds
from edge.language.source import Node, Problems, suggest, tick

CONFIRMED = {
    "reset": "ready",
    "start": "running",
    "hold": "held",
    "restart": "running",
    "stop": "stopped",
    "abort": "aborted",
}
"""The commands that a phase may take, each with the condition that says that it has happened."""

_Outputs = Annotated[
    dict[str, Expression],
    Meta(description="The outputs that are given for it.", examples=[{"reactor.command": 1}]),
]


class PhaseLimits(Form, frozen=True):
    """How long each command may take."""

    reset: Annotated[Seconds | None, Meta(description="Until `ready`.")] = None
    start: Annotated[Seconds | None, Meta(description="Until `running`.")] = None
    hold: Annotated[Seconds | None, Meta(description="Until `held`; 10 s if left out.")] = None
    restart: Annotated[Seconds | None, Meta(description="Until `running`.")] = None
    stop: Annotated[Seconds | None, Meta(description="Until `stopped`; 10 s if left out.")] = None
    abort: Annotated[Seconds | None, Meta(description="Until `aborted`; 10 s if left out.")] = None


class PhaseForm(Form, frozen=True):
    """An equipment phase: what a unit can do by itself, a PLC's phase, a PackML unit or a robot's program."""

    running: Annotated[Condition, Meta(description="True while it runs.", examples=["robot.state == 2"])]
    done: Annotated[Condition, Meta(description="True when it has ended well.", examples=["robot.state == 3"])]
    failed: Annotated[Condition | None, Meta(description="True when it has failed.", examples=["robot.state == 9"])] = (
        None
    )
    parameters: Annotated[
        dict[Name, str], Meta(description="The written tag of each parameter.", examples=[{"program": "robot.program"}])
    ] = field(default_factory=dict[str, str])
    start: Annotated[_Outputs | None, Meta(description="Outputs that start it; if left out its parameters do.")] = None
    ready: Annotated[
        Condition | None, Meta(description="True when it can be started.", examples=["plc.status == 1"])
    ] = None
    reset: Annotated[_Outputs | None, Meta(description="Outputs that make it `ready` again.")] = None
    hold: Annotated[_Outputs | None, Meta(description="Outputs that hold it.")] = None
    held: Annotated[Condition | None, Meta(description="True when it is held.")] = None
    restart: Annotated[_Outputs | None, Meta(description="Outputs that let it go on when it is held.")] = None
    stop: Annotated[_Outputs | None, Meta(description="Outputs that stop it in order.")] = None
    stopped: Annotated[Condition | None, Meta(description="True when it has been stopped.")] = None
    abort: Annotated[_Outputs | None, Meta(description="Outputs that stop it at once.")] = None
    aborted: Annotated[Condition | None, Meta(description="True when it has been aborted.")] = None
    request: Annotated[
        str | None,
        Meta(
            description="A written bool whose rising edge hands a command over: given once the command's outputs read "
            "back, taken back when it is acknowledged.",
            examples=["capper.command_request"],
        ),
    ] = None
    acknowledged: Annotated[
        Condition | None,
        Meta(
            description="True when a command has been taken; its outputs (or the `request`) are then taken back.",
            examples=["reactor.echo == reactor.command"],
        ),
    ] = None
    within: Annotated[
        PhaseLimits | None, Meta(description="How long each command may take.", examples=[{"hold": "10 s"}])
    ] = None

    def commands(self) -> dict[str, dict[str, Node]]:
        """The outputs of each command that it takes, by the names of their tags."""
        return {name: outputs for name in CONFIRMED if (outputs := getattr(self, name)) is not None}

    def driven(self) -> Iterator[tuple[str, Node]]:
        """The tags that its commands drive, with their places."""
        for command, outputs in self.commands().items():
            entries = self.place(command).entries
            yield from ((name, entries[name].key) for name in outputs)
        if self.request is not None:
            yield self.request, self.place("request")

    def edges(self) -> frozenset[str]:
        """The tags whose change is a command in itself: each is written once, and the device may take it back."""
        if self.request is not None:
            return frozenset({self.request})
        return frozenset(name for name, _ in self.driven()) if self.acknowledged is not None else frozenset()


def with_edges(cell: Cell, phases: Mapping[str, PhaseForm]) -> Cell:
    """The cell, in which the tags that are edges of a phase's handshake are marked as such."""
    edges = {name for form in phases.values() for name in form.edges()}
    tags = tuple(msgspec.structs.replace(tag, once=True) if tag.name in edges else tag for tag in cell.tags)
    return msgspec.structs.replace(cell, tags=tags) if edges else cell


class PhaseCheck:
    """Checks one phase of a cell: its tags are written ones of its unit, its keys go together. `broken` tags are not
    reported again.
    """

    def __init__(
        self, name: str, form: PhaseForm, cell: Cell, tags: Mapping[str, Tag], broken: set[str], problems: Problems
    ) -> None:
        self.name = name
        self.unit = name.partition(".")[0]
        self.form = form
        self.cell = cell
        self.tags = tags
        self.broken = broken
        self.problems = problems

    def sound(self) -> bool:
        """Whether nothing is wrong; what is has been reported."""
        before, form = self.problems.errors, self.form
        parameters = {tag: name for name, tag in form.parameters.items()}
        places = [(tag, form.place("parameters").entries[name].value) for tag, name in parameters.items()]
        driven = list(form.driven())
        writable = [self._writable(tag, node) for tag, node in (*places, *driven)]
        for tag, node in driven:
            if tag in parameters:
                message = f"`{tag}` is the parameter `{parameters[tag]}` of this phase already"
                self.problems.error(node, "driven-twice", message, "leave it out here: parameters are given first")
        if form.request is not None:
            self._request(form.request)
        self._pairs()
        return all(writable) and self.problems.errors == before

    def _writable(self, name: str, node: Node) -> bool:
        """Whether a phase of the unit may drive this tag."""
        tag = self.tags.get(name)
        if tag is None:
            if name not in self.broken:
                hint = suggest(name, list(self.tags)) or f"there are {', '.join(self.tags)}"
                self.problems.error(node, "unknown-tag", f"no tag {tick(name)}", hint)
        elif not tag.writable:
            self.problems.error(node, "not-writable", f"`{name}` is only read", "give the tag `access: write`")
        elif tag.index in self.cell.heartbeats.values():
            self.problems.error(node, "heartbeat", f"`{name}` is a heartbeat: edge itself writes it")
        elif tag.device not in self.cell.units[self.unit]:
            self.problems.error(node, "other-unit", f"`{name}` is not a tag of the unit {self.unit}")
        else:
            return True
        return False

    def _request(self, name: str) -> None:
        """The request is a bool that rises, and no command's own output."""
        tag, node = self.tags.get(name), self.form.place("request")
        if tag is not None and (tag.type.kind != "bool" or tag.failsafe is True):
            hint = "a rising edge needs a `bool` with `failsafe: false`; an integer goes under `start`, `hold` …"
            self.problems.error(node, "bad-request", f"`{name}` has no rising edge", hint)
        for command, outputs in self.form.commands().items():
            if name in outputs:
                place = self.form.place(command).entries[name].key
                hint = "leave it out here: it is given with every command"
                self.problems.error(place, "driven-twice", f"`{name}` is the `request` already", hint)

    def _pairs(self) -> None:
        """Keys that need another, or that another says nothing without."""
        form, entries = self.form, self.form.node.entries
        if form.request is not None and form.has("ready") and not form.has("reset"):
            hint = "add `reset: {TAG: …}`, what makes it `ready` after `done`"
            message = "each command is an edge of `request`: nothing makes it `ready` again for a second run"
            self.problems.warning(entries["ready"].key, "no-reset", message, hint)
        for command, condition in CONFIRMED.items():
            if form.has(command) and not form.has(condition):
                hint = f"add `{condition}: …`, the condition that says so"
                message = f"nothing says when `{command}` has happened: `{condition}` is missing"
                self.problems.error(entries[command].key, "missing-key", message, hint)
            elif condition in ("held", "stopped", "aborted") and form.has(condition) and not form.has(command):
                hint = f"add `{command}: {{…}}`, or leave it out"
                self.problems.error(
                    entries[condition].key, "key-not-here", f"`{condition}` goes with `{command}`", hint
                )
            limits = form.within
            if limits is not None and limits.has(command) and not form.has(command):
                message = f"this phase has no `{command}`, which could take so long"
                self.problems.error(
                    limits.node.entries[command].key, "key-not-here", message, f"add `{command}: {{…}}`"
                )
            if form.has(command) and form.place(command).kind == "map" and not form.place(command).entries:
                message = f"here are no outputs: nothing tells the machine to {command}"
                self.problems.error(form.place(command), "no-outputs", message, f"such as `{{{self.unit}.command: 1}}`")
        if form.has("restart") and not form.has("hold"):
            hint = "add `hold: {…}` and `held: …`"
            self.problems.error(entries["restart"].key, "key-not-here", "a phase restarts when it was held", hint)
        for key in ("request", "acknowledged", "hold", "stop", "abort", "reset"):
            if form.has(key) and not form.has("start"):
                message = f"`{key}` goes with `start`: this phase is started by its parameters alone"
                self.problems.error(entries[key].key, "key-not-here", message, "add `start: {…}`")
