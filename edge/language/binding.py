"""What a recipe says of the tags of its cell: its expressions typed, its outputs' levels held to their ranges."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import msgspec

from edge.language import grammar, recipe
from edge.language.calls import Memory, Use
from edge.language.cell import Tag, outside, whole
from edge.language.expression import Compiled, Scope, Type, compile_expression
from edge.language.program import BlockScope, Code, Level, Plan
from edge.language.source import Node, Place, Problems, origin, suggest, tick
from edge.language.units import Unit, parse

_SECOND = parse("s")
_WORD = re.compile(r"[\w.]+")

Written = tuple[str, bool, Type | None, str | None]
"""An expression as it is written (text, and whether in quotes), and what is expected of it (type, name of the unit)."""


class Context(msgspec.Struct, frozen=True):
    """What the names of one recipe mean.

    `variables` are those of `scope` by index, `choices` what texts may be, `owned` the devices of the units that the
    recipe uses or `shares`. `broken` names have problems of their own: an expression over them is left out in
    silence. `known` are expressions that were compiled before, for any recipe of the cell: those without variables
    mean the same in each. `slots` are the variables of loops by the `id` of their step's form.
    """

    plan: Plan
    scope: Scope
    variables: Sequence[str]
    choices: Mapping[int, Sequence[str]]
    owned: Collection[int]
    broken: frozenset[str]
    known: dict[Written, Compiled]
    slots: Mapping[int, int] = {}
    shares: Collection[str] = ()


class Binding:
    """Compiles the expressions and levels of one recipe against its cell.

    `reads` are the expressions that were compiled, with the places where they stand. `memory` has their function
    blocks; without it they can have none.
    """

    def __init__(self, context: Context, problems: Problems, memory: Memory | None = None) -> None:
        self.memory = memory
        self.plan = context.plan
        self.scope = context.scope
        self.variables = context.variables
        self.choices = context.choices
        self.owned = context.owned
        self.shares = context.shares
        self.broken = context.broken
        self.known = context.known
        self.slots = context.slots
        self.problems = problems
        self.used: set[int] = set()
        self.variables_read: set[int] = set()
        self.ages: set[int] = set()
        self.reads: list[tuple[Node, Compiled]] = []
        self._tags = {tag.name: tag for tag in self.plan.cell.tags}
        self._commanded = {tag: phase.name for phase in self.plan.phases for tag in phase.commanded}

    # Expressions.

    def expression(
        self, node: Node | None, expect: Type | None, unit: Unit | None = None, scope: BlockScope = "batch"
    ) -> Compiled | None:
        """The expression at a node, None with its problems reported. It is calculated once unless `scope` says else."""
        if node is None or (self.broken and not self.broken.isdisjoint(_WORD.findall(node.text))):
            return None
        written = node.text, node.quoted, expect, unit and unit.name
        tags = self.plan.cell.tags
        compiled = self.known.get(written)
        if compiled is None or any(tags[tag].device not in self.owned for tag in compiled.tags):
            before = self.problems.errors + self.problems.warnings
            use = None if self.memory is None else Use(self.memory, scope)
            compiled = compile_expression(node, self.scope, self.problems, expect=expect, unit=unit, use=use)
            if (
                compiled is not None
                and not compiled.variables
                and not compiled.blocks
                and self.problems.errors + self.problems.warnings == before
            ):
                self.known[written] = compiled
        if compiled is not None:
            self.reads.append((node, compiled))
            self.variables_read.update(compiled.variables)
            self.ages.update(compiled.ages)
            for tag, place in compiled.places.items():
                self.owns(tags[tag].device, place)
            if not self.choices.keys().isdisjoint(compiled.variables):
                self._compared(grammar.parse(node.text), node)
        return compiled

    def _compared(self, tree: grammar.Tree, node: Node) -> None:
        """Reports an answer that is compared with a text that it can never be."""
        for part in tree.args:
            self._compared(part, node)
        if tree.kind != "compare":
            return
        symbols = {
            name: self.scope.symbols[name] for part in tree.args if part.kind == "name" and (name := str(part.value))
        }
        names = [name for name, symbol in symbols.items() if symbol.kind == "variable"]
        choices = self.choices.get(symbols[names[0]].index) if names else None
        for part in tree.args:
            if choices is not None and part.kind == "text" and part.value not in choices:
                hint = suggest(str(part.value), choices) or f"it is one of {', '.join(map(tick, choices))}"
                place = origin(node, part.start, part.end - part.start, self.problems)
                self.problems.error(place, "no-such-answer", f"`{names[0]}` is never {tick(str(part.value))}", hint)

    def condition(self, node: Node | None, scope: BlockScope = "batch") -> Compiled | None:
        """An expression that is true or false."""
        return self.expression(node, "bool", scope=scope)

    def decided(self, node: Node, condition: Compiled, code: str, so: str) -> None:
        """Reports a condition that cannot be otherwise as an error, with the reason where the checker gave one."""
        reason = self.problems.withdraw(node, ("always-true", "never-true"))
        message = f"{reason}; {so}" if reason else f"this is {'always' if condition.always else 'never'} true: {so}"
        self.problems.error(node, code, message, "check the value, or the range of the tag" if reason else "")

    def owns(self, device: int, node: Place | Node) -> None:
        """Reports a device whose unit the recipe does not use, once."""
        if device not in self.owned and device not in self.used:
            name = self.plan.cell.devices[device].name
            unit = next((unit for unit, members in self.plan.cell.units.items() if device in members), name)
            hint = f"add `{unit}` to `uses`, so that no other recipe drives it meanwhile"
            self.problems.error(node, "unit-not-used", f"the recipe does not use the unit `{unit}`", hint)
        self.used.add(device)

    def seconds(self, node: Node | None) -> Compiled | None:
        """A time, in seconds; None with its problems reported."""
        compiled = self.expression(node, "number", _SECOND)
        if compiled is not None and node is not None and compiled.high is not None and compiled.high < 0:
            self.problems.error(node, "negative-time", "a time cannot be negative")
            return None
        if compiled is not None and node is not None and compiled.low is not None and compiled.low < 0:
            message = f"this may be negative, {_interval(compiled.low, compiled.high)} s: that counts as 0 s"
            hint = f"write {tick(f'max({compiled.text}, 0 s)')} where that is meant, or narrow the range"
            self.problems.warning(node, "negative-time", message, hint)
        return compiled

    def cycles(self, seconds: Compiled | None) -> int | Code | None:
        """A time in scan cycles where it is constant, else the code that gives its seconds."""
        if seconds is None:
            return None
        constant = seconds.constant
        return seconds.code if constant is None else self.plan.cycles(float(constant))

    # Levels.

    def levels(self, form: recipe.Step, key: str, nodes: dict[str, Node]) -> tuple[Level, ...]:
        """The levels of `set` or `during`."""
        if not nodes:
            return ()
        entries = form.place(key).entries
        levels: list[Level] = []
        for name, node in nodes.items():
            tag = self.written(name, entries[name].key)
            level = None if tag is None else self.level(tag, node)
            if level is not None:
                levels.append(level)
        return tuple(levels)

    def written(self, name: str, node: Node) -> Tag | None:
        """The tag of this name, which the recipe may write; else None."""
        tag = self._tags.get(name)
        if tag is None:
            if name not in self.broken:
                hint = suggest(name, self._tags)
                self.problems.error(node, "unknown-tag", f"no tag {tick(name)}", hint)
            return None
        self.owns(tag.device, node)
        if not tag.writable:
            self.problems.error(
                node, "not-writable", f"`{name}` is only read", "in the cell, give it `access: write` and a `failsafe`"
            )
            return None
        if tag.index in self.plan.cell.heartbeats.values():
            self.problems.error(node, "heartbeat", f"`{name}` is a heartbeat: edge itself writes it")
            return None
        if tag.index in self._commanded:
            phase = self._commanded[tag.index]
            message = f"`{name}` commands the phase {phase}: no step may set it"
            self.problems.error(node, "phase-tag", message, f"let `do: {phase}` give it")
            return None
        return tag

    def level(self, tag: Tag, node: Node) -> Level | None:
        """A value for a tag: of its type, in its unit, within its range."""
        kinds: dict[str, Literal["bool", "text"]] = {"bool": "bool", "string": "text"}
        value = self.expression(node, kinds.get(tag.type.kind, "number"), parse(tag.unit))
        if value is None:
            return None
        if value.constant is not None:
            if reason := outside(value.constant, tag):
                self.problems.error(node, "out-of-range", reason)
                return None
            return Level(tag.index, whole(value.constant, tag))
        self._within_range(value, tag, node)
        if tag.type.kind == "int" and tag.scale is None and not value.whole:
            said, unit = value.text, f" in {tag.unit}" if tag.unit else ""
            message = f"{tick(said)} may not be whole{unit}, and `{tag.name}` is {tag.type.name}: it is rounded"
            self.problems.warning(node, "not-whole", message, f"write {tick(f'round({said})')} where that is meant")
        return Level(tag.index, value.code)

    def _within_range(self, value: Compiled, tag: Tag, node: Node) -> None:
        """Reports a computed value that may be outside the tag's range, or, made of parameters alone, of its type."""
        lowest, highest = tag.low, tag.high
        if lowest is None and not value.tags and tag.scale is None and tag.type.kind == "int":
            lowest, highest = tag.type.low, tag.type.high
        low, high = value.low, value.high
        if value.type != "number" or lowest is None or highest is None:
            return
        if (low is not None and low < lowest) or (high is not None and high > highest):
            unit = f" {tag.unit}" if tag.unit else ""
            message = (
                f"this can be {_interval(low, high)}{unit}; `{tag.name}` goes from {lowest:g} to {highest:g}{unit}"
            )
            hint = f"narrow the `range` of what it is made of, or use `clamp(…, {lowest:g}{unit}, {highest:g}{unit})`"
            self.problems.error(node, "out-of-range", message, hint)


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{high:g} and less" if high is not None else f"{low:g} and more"
    return f"{low:g} to {high:g}"
