"""The faults that a sweep tries: each kind that a test knows, of each device and tag that the recipe concerns."""

from collections.abc import Iterator, Sequence

import msgspec

from drivers.value import Value, display
from edge.language.cell import Tag
from edge.language.program import Plan, Recipe
from edge.language.source import Place
from edge.language.trial_program import Event, Moment

LOST_S, LATE_S, SLOW_S, BAD_S, STUCK_S, DRIFT_S, CUT_S = 1.0, 0.5, 2.0, 1.0, 2.0, 3.0, 1.0
"""How long each lasts; a spike is seen for one scan of its device."""

WAY_S = 10.0
"""In so long a sensor drifts through all that it can show."""


class Fault(msgspec.Struct, frozen=True):
    """A fault that begins at once: its kind, its device or tag by name, the event, and its keys in a test file."""

    kind: str
    target: str
    event: Event
    keys: str


def faults_of(plan: Plan, recipe: Recipe, largest: Sequence[Value | None], place: Place) -> list[Fault]:
    """Those of the recipe's devices, of the tags that it reads, and of the outputs that it writes.

    `largest` is the most that each tag shows without a fault: the way of a sensor that has no range. `place` is that
    of the test.
    """
    found = [*_of_devices(plan, recipe)]
    for index in sorted({*recipe.inputs, *recipe.outputs}):
        tag = plan.cell.tags[index]
        found += _of_output(tag) if tag.writable else _of_sensor(plan, tag, largest[index])
    found.append(("cut", "power", {}, f"cut: power, for: {CUT_S:g} s", CUT_S))
    return [
        Fault(kind, target, _event(plan, kind, keys, seconds, place, parts), keys)
        for kind, target, parts, keys, seconds in found
    ]


_Found = tuple[str, str, dict[str, object], str, float]


def _event(plan: Plan, kind: str, keys: str, seconds: float, place: Place, parts: dict[str, object]) -> Event:
    event = Event(Moment(0), kind, keys, place, cycles=plan.cycles(seconds))  # pyright: ignore[reportArgumentType]
    return msgspec.structs.replace(event, **parts)


def _of_devices(plan: Plan, recipe: Recipe) -> Iterator[_Found]:
    tags = plan.cell.tags
    for index in sorted({*recipe.devices, *(tags[tag].device for tag in (*recipe.inputs, *recipe.outputs))}):
        name = plan.cell.devices[index].name
        yield "lost", name, {"target": index}, f"lost: {name}, for: {LOST_S:g} s", LOST_S
        late: dict[str, object] = {"target": index, "late": plan.cycles(LATE_S)}
        yield "slow", name, late, f"slow: {name}, by: {LATE_S * 1000:g} ms, for: {SLOW_S:g} s", SLOW_S


def _of_output(tag: Tag) -> Iterator[_Found]:
    yield "stuck", tag.name, {"target": tag.index}, f"stuck: {tag.name}, for: {STUCK_S:g} s", STUCK_S


def _of_sensor(plan: Plan, tag: Tag, largest: Value | None) -> Iterator[_Found]:
    target: dict[str, object] = {"target": tag.index}
    yield "bad", tag.name, target, f"bad: {tag.name}, for: {BAD_S:g} s", BAD_S
    yield "stuck", tag.name, target, f"stuck: {tag.name}, for: {STUCK_S:g} s", STUCK_S
    low, high = _range(tag, largest)
    ends: tuple[Value, ...] = (False, True) if tag.type.kind == "bool" else (low, high)
    scan_s = plan.cell.devices[tag.device].every_ns / 1e9
    if tag.type.kind != "string":
        for value in dict.fromkeys(ends):
            keys = f"spike: {tag.name}, to: {display(value, tag.unit)}"
            yield "spike", tag.name, {**target, "value": value}, keys, scan_s
    if tag.type.kind not in ("string", "bool"):
        unit = {"degC": "K", "degF": "K"}.get(tag.unit, tag.unit)
        for rate in ((high - low) / WAY_S, (low - high) / WAY_S):
            keys = f"drift: {tag.name}, by: {rate:.6g} {unit or '1'}/s, for: {DRIFT_S:g} s"
            yield "drift", tag.name, {**target, "rate": float(f"{rate:.6g}")}, keys, DRIFT_S


def _range(tag: Tag, largest: Value | None) -> tuple[float, float]:
    """The least and the most that a sensor shows: of its range, or else nothing and twice what it has shown."""
    shown = 1.0 if largest is None or isinstance(largest, str) or not largest else abs(float(largest))
    low, high = tag.low if tag.low is not None else 0.0, tag.high if tag.high is not None else 2 * shown
    return (round(low), round(high)) if tag.type.kind == "int" and tag.scale is None else (low, high)
