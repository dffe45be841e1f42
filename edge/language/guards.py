"""Interlocks, alarms and permissives of cells and recipes, compiled: what is watched beside the steps."""

from typing import Any

from edge.language import recipe, rules, units
from edge.language.binding import Binding
from edge.language.cell import Tag, unknown_unit
from edge.language.cell_file import CellForm
from edge.language.expression import Compiled
from edge.language.program import Alarm, CellInterlock, Interlock, Permissive
from edge.language.source import Node, suggest, tick


def interlock(binding: Binding, form: rules.Interlock, given: int) -> Interlock | None:
    """An interlock of a recipe or of a step; None with its problems reported. The first `given` variables are
    parameters: the others may have no value yet.
    """
    found = _watch(binding, form, given, "the recipe could never run")
    return None if found is None else Interlock(**found, **_reaction(binding, form))


def permissives(binding: Binding, forms: tuple[rules.Permissive, ...], given: int) -> tuple[Permissive, ...]:
    """The permissives of a recipe or of a unit, those that are sound. They are asked before anything is remembered."""
    found: list[Permissive] = []
    memory, binding.memory = binding.memory, None
    for form in forms:
        must = binding.condition(form.must)
        if must is None:
            continue
        _known(binding, form.must, must, given)
        if must.always is False:
            binding.decided(form.must, must, "never-true", "nothing could ever start")
        elif must.always is None and not must.tags and not must.variables:
            _changes(binding, form.must)
        fixed = not must.variables
        found.append(Permissive(must.code, recipe.texts(form.say), must.text, form.before, fixed))
    binding.memory = memory
    return tuple(found)


class CellGuards:
    """What a cell watches, whatever recipe runs."""

    def __init__(self, form: CellForm, binding: Binding) -> None:
        cell = binding.plan.cell
        self.form = form
        self.binding = binding
        self.problems = binding.problems
        self.cell = cell
        self.units = cell.units
        self.tags = {tag.name: tag for tag in cell.tags}
        self.unit_of = {device: unit for unit, devices in cell.units.items() for device in devices}

    def interlocks(self) -> tuple[CellInterlock, ...]:
        made = [self._interlock(form) for form in self.form.interlocks]
        return tuple(one for one in made if one is not None)

    def alarms(self) -> tuple[Alarm, ...]:
        found: list[Alarm] = []
        for name, form in self.form.alarms.items():
            watch = _watch(self.binding, form, 0, "it would never clear")
            if watch is not None:
                found.append(Alarm(**watch, name=name, latch=form.latch))
        return tuple(found)

    def permissives(self) -> dict[str, tuple[Permissive, ...]]:
        """The permissives of each unit."""
        found: dict[str, tuple[Permissive, ...]] = {}
        for unit, forms in self.form.permissives.items():
            if unit not in self.units and unit not in self.binding.broken:
                unknown_unit(self.cell, unit, self.form.place("permissives").entries[unit].key, self.problems)
            found[unit] = permissives(self.binding, forms, 0)
        return found

    def _interlock(self, form: rules.CellInterlock) -> CellInterlock | None:
        watch = _watch(self.binding, form, 0, "nothing could ever run")
        units = form.units or ()
        for name, node in zip(units, form.place("units").items, strict=False):
            if name not in self.units and name not in self.binding.broken:
                unknown_unit(self.cell, name, node, self.problems)
        outputs = {name: self._output(name, node) for name, node in _listed(form.block, form.place("block"))}
        if watch is None:
            return None
        if form.units is None:
            units = tuple(dict.fromkeys(self.unit_of[self.cell.tags[tag].device] for tag in watch["inputs"]))
        block = [tag.index for tag in outputs.values() if tag is not None]
        if form.block is None:
            block = [tag for unit in units for tag in self._outputs(unit)]
        return CellInterlock(**watch, **_reaction(self.binding, form), units=units, block=tuple(block))

    def _outputs(self, unit: str) -> list[int]:
        """The outputs of a unit that a hand can set."""
        devices, beats = self.units.get(unit, ()), self.cell.heartbeats.values()
        written = [one for one in self.cell.tags if one.writable and one.device in devices]
        return [tag.index for tag in written if tag.index not in beats]

    def _output(self, name: str, node: Node) -> Tag | None:
        tag = self.tags.get(name)
        if tag is None and name not in self.binding.broken:
            hint = suggest(name, self.tags) or f"there are {', '.join(self.tags) or 'none'}"
            self.problems.error(node, "unknown-tag", f"no tag {tick(name)}", hint)
        elif tag is not None and not tag.writable:
            hint = "name outputs: tags with `access: write`"
            self.problems.error(node, "not-writable", f"`{name}` is only read: no hand sets it", hint)
        return tag


def _listed(names: tuple[str, ...] | None, node: Node) -> list[tuple[str, Node]]:
    return [] if names is None else list(zip(names, node.items, strict=False))


def _reaction(binding: Binding, form: rules.Interlock) -> dict[str, Any]:
    return {"do": form.do, "grace": binding.plan.cycles(form.grace)}


def _watch(binding: Binding, form: rules.Watch, given: int, so: str) -> dict[str, Any] | None:
    """The fields of a Watch; None with its problems reported. `so` is what comes of a condition that is always true."""
    when = binding.condition(form.when, "interlock")
    clears, release = _clears(binding, form.clears, given)
    priority = form.priority if isinstance(form, rules.Interlock | rules.Alarm) else "medium"
    if when is None:
        return None
    if when.always is True:
        binding.decided(form.when, when, "always-true", so)
    _known(binding, form.when, when, given)
    if not when.tags and not when.blocks and when.always is None:
        _changes(binding, form.when)
    tags = {*when.tags, *(clears.tags if clears is not None else ())}
    return {
        "when": when.code,
        "say": recipe.texts(form.say),
        "condition": when.text,
        "line": form.node.place.line,
        "settle": binding.plan.cycles(form.settle),
        "clears": None if clears is None else clears.code,
        "release": binding.plan.cycles(release),
        "inputs": tuple(sorted(tags)),
        "priority": priority,
    }


def _clears(binding: Binding, node: Node | None, given: int) -> tuple[Compiled | None, float]:
    """The condition of `clears`, or its off-delay in seconds."""
    if node is None:
        return None, 0.0
    try:
        return None, units.duration(node.text)
    except ValueError:
        clears = binding.condition(node, "interlock")
    if clears is not None:
        _known(binding, node, clears, given)
        if clears.always is False:
            binding.decided(node, clears, "never-true", "it would never clear")
    return clears, 0.0


def _known(binding: Binding, node: Node, compiled: Compiled, given: int) -> None:
    for index in compiled.variables:
        if index >= given:
            hint = "what is watched, is watched from the start on: tags and parameters"
            message = f"`{binding.variables[index]}` may have no answer yet"
            binding.problems.error(node, "not-yet-answered", message, hint)


def _changes(binding: Binding, node: Node) -> None:
    binding.problems.error(node, "never-changes", "nothing in this changes", "it must watch a tag")
