"""What an output can be set to, and whether what a device shows is what it was set to."""

from drivers.value import Value
from edge.engine import refusals, words
from edge.engine.refusals import Refused
from edge.language.arithmetic import rounded
from edge.language.cell import Tag
from edge.language.program import Texts


def fit(tag: Tag, value: Value, *, calculated: bool = False) -> Value:
    """A value as `tag` can have it: whole for an integer type, within range. Raises Refused.

    What was `calculated` is rounded for an integer type, a half away from zero.
    """
    kind = tag.type.kind
    if kind in ("bool", "string"):
        if isinstance(value, bool) != (kind == "bool") or isinstance(value, str) != (kind == "string"):
            raise _misfit(tag, value, refusals.IS_BOOL if kind == "bool" else refusals.IS_TEXT)
        if isinstance(value, str) and len(value.encode()) > tag.type.size:
            raise _misfit(tag, value, refusals.longest(tag.type.size))
        return value
    if isinstance(value, bool | str):
        raise _misfit(tag, value, refusals.IS_NUMBER)
    low, high = tag.low, tag.high
    if low is None and tag.scale is None:
        low = tag.type.low
    if high is None and tag.scale is None:
        high = tag.type.high
    if not _between(low, value, high):
        raise _misfit(tag, value, refusals.span(low, high, tag.unit))
    fitted = rounded(value) if kind == "int" and tag.scale is None else float(value)
    if not _between(low, fitted, high):
        raise _misfit(tag, value, refusals.span(low, high, tag.unit))
    if fitted != value and not calculated:
        raise _misfit(tag, value, refusals.IS_WHOLE)
    return fitted


def _between(low: float | None, value: float, high: float | None) -> bool:
    return (low is None or low <= value) and (high is None or value <= high)


def _misfit(tag: Tag, value: Value, wanted: Texts) -> Refused:
    return Refused(words.value_refused(tag.name, value, wanted))


def agrees(tag: Tag, value: Value | None, level: Value | None) -> bool:
    """Whether a value read back is this level, as far as the tag's raw type can tell them apart."""
    if value is None or level is None or isinstance(level, bool | str) or isinstance(value, bool | str):
        return value is not None and value == level
    step = 0.0
    if tag.type.kind == "int":
        scale = tag.scale
        step = abs((scale.high - scale.low) / (scale.raw_high - scale.raw_low)) if scale is not None else 0.5
    return abs(value - level) <= max(step, 1e-6 * abs(level))
