"""What differs between a cycle as the journal has it and the same cycle run again, in words: tags, steps, events."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from drivers.value import Value
from edge.engine.engine import Engine, Output
from edge.engine.sequence import active
from edge.image import device_of
from edge.journal import Cycle
from edge.language.program import Step
from edge.messages import BatchStarted, Event, StepEnded, unpack_events

_MOST = 12
"""Of the lines that a cycle gives."""


class Difference(msgspec.Struct, frozen=True):
    """The cycle in which something differs, and what, in lines."""

    cycle: int
    lines: tuple[str, ...]


def difference(
    engine: Engine, cycle: Cycle, now: Output, shown: Mapping[int, bytes], *, other_recipe: bool = False
) -> Difference | None:
    """What the engine has just given against what the journal has of this cycle; None where nothing differs. `shown` is
    the last output frame that the journal has of each device before it.

    With another version of a recipe, what its steps' places and its hash make different is none.
    """
    try:
        recorded = unpack_events(cycle.events)
    except msgspec.MsgspecError as error:
        return Difference(cycle.cycle, (f"the journal's events are of another edge ({error})",))
    before, after = (_known(events, other_recipe=other_recipe) for events in (recorded, now.events))
    lines = [*_levels(engine, shown, cycle.outputs, now.frames), *_events(before, after)]
    if not lines and other_recipe:
        return None
    lines = lines or ["the same values and events in other bytes"]
    steps = list(_steps(engine, [*recorded, *now.events]))
    return Difference(cycle.cycle, (*[_step(engine, *step) for step in steps[:_MOST]], *lines[:_MOST]))


def _known(events: Iterable[Event], *, other_recipe: bool) -> list[Event]:
    return [_placeless(event) for event in events] if other_recipe else list(events)


def _placeless(event: Any) -> Event:
    """An event without what differs wherever another version of a recipe runs."""
    if isinstance(event, BatchStarted):
        return msgspec.structs.replace(event, hash="")
    return msgspec.structs.replace(event, step=0) if hasattr(event, "step") else event


def _levels(
    engine: Engine, shown: Mapping[int, bytes], recorded: Sequence[bytes], now: Sequence[bytes]
) -> Iterator[str]:
    """The outputs that differ, by the tags' names; of frames that differ in nothing else, which side gave one."""
    before, after = ({device_of(frame): frame for frame in frames} for frames in (recorded, now))
    tags = engine.plan.cell.tags
    for device in sorted(before.keys() | after.keys()):
        if before.get(device) == after.get(device) or device >= len(engine.layouts):
            continue
        layout = engine.layouts[device]
        given = before.get(device, shown.get(device))
        was = layout.unpack_output(given)[1] if given is not None else [None] * len(layout.outputs)
        gives = [engine.state.levels[tag] for tag in layout.outputs]
        differ = [
            f"output {tags[tag].name}: journal {value(one)}, replay {value(other)}"
            for tag, one, other in zip(layout.outputs, was, gives, strict=True)
            if one != other
        ]
        side = "journal" if device in before else "replay"
        yield from differ or [f"outputs of {engine.plan.cell.devices[device].name}: given in the {side} alone"]


def _events(recorded: Sequence[Event], now: Sequence[Event]) -> Iterator[str]:
    """The events that one side alone has, in their order."""
    only = [event for event in recorded if event not in now], [event for event in now if event not in recorded]
    for side, events in zip(("journal", "replay"), only, strict=True):
        for event in events:
            yield f"{side} alone: {told(event)}"
    if not any(only):
        for one, other in zip_longest(recorded, now):
            if one != other:
                yield f"order of events: journal {told(one)}, replay {told(other)}"


def told(event: Event | None) -> str:
    """An event in a line: its kind, then what it says."""
    if event is None:
        return "nothing"
    fields = {
        name: getattr(event, name) for name in event.__struct_fields__ if name not in ("say", "cause_say", "text")
    }
    return f"{type(event).__name__} " + ", ".join(
        f"{name} {value(one)}" for name, one in fields.items() if one not in ("", (), {}, None)
    )


def value(one: Any) -> str:
    """A value as recipes write it."""
    if isinstance(one, bool):
        return "true" if one else "false"
    return f"{one:.9g}" if isinstance(one, float) else str(one)


# --- the steps that it happened in -----------------------------------------------------------------------------------


def _steps(engine: Engine, events: Iterable[Event]) -> Iterator[tuple[str, Step]]:
    """(batch, step) of each step that ended or is active in this cycle."""
    seen: set[tuple[str, int]] = set()
    ended = [(event.batch, event.step) for event in events if isinstance(event, StepEnded)]
    stand = [
        (name, branch.block[branch.at])
        for name, sequence in engine.control.sequences.items()
        for body in (sequence.batch.body, sequence.batch.handling)
        if body is not None
        for branch, _ in active(body)
    ]
    for name, index in [*ended, *stand]:
        sequence = engine.control.sequences.get(name)
        if sequence is not None and index < len(sequence.recipe.steps) and (name, index) not in seen:
            seen.add((name, index))
            yield name, sequence.recipe.steps[index]


def _step(engine: Engine, batch: str, step: Step) -> str:
    """A step, what it waits for, and what the tags read in the replay that it looks at."""
    tags, values = engine.plan.cell.tags, engine.state.values
    waits = f", waits for {step.condition}" if step.condition else ""
    reads = ", ".join(f"{tags[tag].name} = {_read(values[tag])} {tags[tag].unit}".rstrip() for tag in step.inputs)
    return f"batch {batch}, step {step.name}{waits}" + (f" ({reads})" if reads else "")


def _read(one: Value | None) -> str:
    return "bad" if one is None else value(one)
