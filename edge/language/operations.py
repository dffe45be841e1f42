"""Recipes that others include: what is given to their parameters, checked as a start would be."""

from collections.abc import Sequence

from drivers.value import Value
from edge.language import recipe
from edge.language.binding import Binding
from edge.language.expression import Compiled
from edge.language.program import Code, Parameter
from edge.language.source import Node, suggest, tick
from edge.language.units import parse


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
