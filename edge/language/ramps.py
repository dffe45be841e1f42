"""Ramps of a recipe: outputs that go to a value at a rate."""

from edge.language import recipe
from edge.language.binding import Binding
from edge.language.cell import Tag
from edge.language.program import Code, Ramp
from edge.language.source import Node
from edge.language.units import parse


def ramps(binding: Binding, form: recipe.Step) -> tuple[Ramp, ...]:
    """The outputs of `ramp`, each checked against its tag."""
    entries = form.place("ramp").entries
    if form.ramp is not None and not entries:
        hint = "such as `{mixer.agitator: {to: 120 rpm, rate: 10 rpm/s}}`"
        binding.problems.error(form.place("ramp"), "no-outputs", "here is no output", hint)
    found: list[Ramp] = []
    for name, one in (form.ramp or {}).items():
        tag = binding.written(name, entries[name].key)
        if tag is not None and tag.type.kind in ("bool", "string"):
            message = f"`{name}` is a {tag.type.name}: only a number goes to a value at a rate"
            binding.problems.error(entries[name].key, "not-number", message, "use `set`")
        elif tag is not None and (made := _ramp(binding, tag, one)) is not None:
            found.append(made)
    return tuple(found)


def _ramp(binding: Binding, tag: Tag, form: recipe.Ramp) -> Ramp | None:
    to, rate = binding.level(tag, form.to), _rate(binding, tag, form.rate)
    start = binding.level(tag, form.from_) if form.from_ is not None else None
    if to is None or rate is None or (start is None) != (form.from_ is None):
        return None
    return Ramp(tag.index, to.value, rate, start and start.value)


def _rate(binding: Binding, tag: Tag, node: Node) -> float | Code | None:
    """How fast, in the tag's unit a second: more than nothing. A temperature goes in K a time."""
    unit = f"{tag.unit or 1}/s"
    rate = binding.expression(node, "number", parse(unit))
    if rate is None:
        return None
    if rate.high is not None and rate.high <= 0:
        hint = "where it goes to says whether it rises or falls"
        binding.problems.error(node, "out-of-range", "a rate is more than nothing", hint)
        return None
    if rate.constant is None and rate.low is not None and rate.low <= 0:
        hint = "narrow the `range` of what it is made of, or use `max(…)`"
        binding.problems.error(node, "out-of-range", f"this can be {rate.low:g} {unit}: it would never arrive", hint)
        return None
    return rate.code if rate.constant is None else float(rate.constant)
