"""What a step has others do: runs of equipment phases, and recipes that it includes, each with its parameters."""

from collections.abc import Sequence

from drivers.value import Value
from edge.language import recipe
from edge.language.binding import Binding
from edge.language.expression import Compiled
from edge.language.program import Code, Parameter, Run
from edge.language.source import Node, suggest, tick
from edge.language.units import parse


def run(binding: Binding, form: recipe.Step) -> Run | None:
    """The run of an equipment phase by a step; None where the cell has no such phase."""
    phases = {phase.name: index for index, phase in enumerate(binding.plan.phases)}
    if form.do is None:
        return None
    if form.do not in phases:
        if form.do not in binding.broken:
            _no_phase(binding, form, form.do, list(phases))
        return None
    index, place = phases[form.do], form.place("do")
    phase, tags = binding.plan.phases[index], binding.plan.cell.tags
    for tag in (*phase.inputs, *phase.outputs):
        binding.owns(tags[tag].device, place)
    given = form.place("with").entries if form.has("with") else {}
    for key, entry in given.items():
        if key not in phase.parameters:
            hint = suggest(key, phase.parameters) or f"it has {', '.join(phase.parameters) or 'none'}"
            binding.problems.error(entry.key, "unknown-parameter", f"{form.do} has no parameter {tick(key)}", hint)
    for key in phase.parameters:
        if key not in given:
            hint = f"add `with: {{{key}: …}}`"
            binding.problems.error(place, "missing-parameter", f"the parameter `{key}` of {form.do} is missing", hint)
    if not form.has("within"):
        hint = "add `within: 60 s`, or `within: none`"
        binding.problems.warning(place, "no-within", "this `do` has no `within`: it may wait for ever", hint)
    levels = [
        level
        for key, node in form.with_.items()
        if key in phase.parameters and (level := binding.level(tags[phase.parameters[key]], node)) is not None
    ]
    return Run(index, tuple(levels))


def _no_phase(binding: Binding, form: recipe.Step, name: str, phases: Sequence[str]) -> None:
    """Reports a phase that the cell has not; the hint looks at those of its unit first."""
    unit = name.partition(".")[0]
    able = [known for known in phases if known.partition(".")[0] == unit]
    hint = suggest(name.partition(".")[2], [known.partition(".")[2] for known in able])
    hint = hint.replace("`", f"`{unit}.", 1) or suggest(name, set(phases) - set(able))
    if able and not hint:
        hint = f"what {unit} can do: {', '.join(able)}"
    hint = hint or "the cell's `phases` name what its units can do"
    binding.problems.error(form.place("do"), "unknown-phase", f"no phase {tick(name)}", hint)


def arguments(
    binding: Binding, form: recipe.Step, parameters: Sequence[Parameter], first: int
) -> tuple[tuple[int, Parameter, Value | Code], ...]:
    """The values for the parameters of the recipe that a step includes; the first is the variable `first`."""
    given = form.place("with").entries if form.has("with") else {}
    known = [one.name for one in parameters]
    for name, entry in given.items():
        if name not in known:
            hint = suggest(name, known) or f"it has {', '.join(known) or 'none'}"
            message = f"{form.include} has no parameter {tick(name)}"
            binding.problems.error(entry.key, "unknown-parameter", message, hint)
    found: list[tuple[int, Parameter, Value | Code]] = []
    for place, one in enumerate(parameters):
        value = _argument(binding, form, one, given[one.name].value if one.name in given else None)
        if value is not None:
            found.append((first + place, one, value))
    return tuple(found)


def _argument(binding: Binding, form: recipe.Step, one: Parameter, node: Node | None) -> Value | Code | None:
    if node is None:
        if one.default is None:
            hint = f"add `with: {{{one.name}: …}}`"
            message = f"the parameter `{one.name}` of {form.include} is missing"
            binding.problems.error(form.place("include"), "missing-parameter", message, hint)
        return one.default
    value = binding.expression(node, one.type, parse(one.unit) if one.type == "number" else None)
    if value is None:
        return None
    _held(binding, one, value, node)
    return value.code if value.constant is None else value.constant


def _held(binding: Binding, one: Parameter, value: Compiled, node: Node) -> None:
    """Reports a value that may be outside the parameter's range, or is not among its choices."""
    if one.choices and value.constant is not None and value.constant not in one.choices:
        hint = suggest(str(value.constant), one.choices) or f"it is one of {', '.join(one.choices)}"
        message = f"{tick(str(value.constant))} is not among the choices of `{one.name}`"
        binding.problems.error(node, "no-such-choice", message, hint)
    below = one.low is not None and value.low is not None and value.low < one.low
    above = one.high is not None and value.high is not None and value.high > one.high
    if below or above:
        limits = f"{one.low:g} to {one.high:g} {one.unit}".rstrip()
        message = f"`{one.name}` goes from {limits}, and this can be outside"
        hint = "narrow the `range` of what it is made of, or `clamp(…)` it"
        binding.problems.error(node, "out-of-range", message, hint)
