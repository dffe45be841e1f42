"""A cell with its plant in virtual time, and the faults between the plant and edge."""

import copy
from collections.abc import Collection, Iterable
from typing import Self

import msgspec

from drivers.value import BAD_OUT_OF_RANGE, GOOD, Value, from_raw
from edge.engine.engine import Output
from edge.language.cell import Tag
from edge.language.plant import Plant, raw
from edge.language.program import Plan
from edge.language.trial_program import Event
from edge.messages import TagReport
from edge.outputs import WRITE_AGAIN_S
from edge.trial.bench import Bench

_ByKind = list[tuple[int, Tag | None]]
"""Tags by index; with the tag where the device's type is whole numbers, so that not every value can be shown."""


class Refused(msgspec.Struct):
    """A level that an output does not take: since which cycle, and whether edge has been told."""

    level: Value
    since: int
    told: bool = False


class Disturbed(msgspec.Struct):
    """A tag under a fault: since which cycle, and where it stood then."""

    event: Event
    since: int
    stood: Value | None


class Site(Bench):
    """The devices show what the plant does, or what a fault makes of it. `truth` is what the plant does: for a tag that
    is read what the sensor should show, for an output what the device really gives. It is true in every cycle of tags
    that are `watched`, of others when their device is read. `now` counts the cycles.
    """

    def __init__(self, plan: Plan, plant: Plant, watched: Collection[int]) -> None:
        self.plant = plant
        self.now = 0
        self.powered = True
        self.scan_s = plan.cell.scan_ns / 1e9
        self.truth: list[Value | None] = [{"bool": False, "string": ""}.get(tag.type.kind, 0) for tag in plan.cell.tags]
        sensors = [tag for tag in plan.cell.tags if not tag.writable]
        self.watched = _by_kind(tag for tag in sensors if tag.index in watched)
        self.others = [
            _by_kind(tag for tag in sensors if tag.device == device.index and tag.index not in watched)
            for device in plan.cell.devices
        ]
        self.disturbed: list[Disturbed] = []
        self.refused: dict[int, Refused] = {}
        self.patience = plan.cycles(2 * WRITE_AGAIN_S)
        super().__init__(plan)

    def fork(self) -> Self:
        made = super().fork()
        made.plant = self.plant.copy()
        made.truth = self.truth.copy()
        made.values = made.truth if self.values is self.truth else made.values
        made.disturbed = self.disturbed.copy()
        made.refused = {tag: copy.copy(one) for tag, one in self.refused.items()}
        return made

    @property
    def quiet(self) -> bool:
        """Whether nothing is wrong between the plant and edge."""
        whole = self.powered and not self.disturbed and not self.refused and len(self.present) == len(self.periods)
        return whole and not any(way.late or way.inward or way.outward for way in self.ways.values())

    def run(self) -> Output | None:
        """The plant a cycle later, then the engine's cycle; None while edge is without power."""
        self.now += 1
        self.plant.step(self.scan_s)
        self._sense(self.watched)
        for device, due in enumerate(self.due):
            if self.cycle + 1 >= due:
                self._sense(self.others[device])
        self.values = self.truth if not self.disturbed else self._disturb()
        if not self.powered:
            return None
        for tag, refused in self.refused.items():
            if not refused.told and self.now - refused.since >= self.patience:
                refused.told = True
                self.send(TagReport(tag, BAD_OUT_OF_RANGE, "the device confirms it and shows another", write=True))
        return self.step()

    def look(self) -> None:
        """Makes all of `truth` that of this cycle."""
        for tags in self.others:
            self._sense(tags)

    def _sense(self, tags: _ByKind) -> None:
        truth, read = self.truth, self.plant.read
        for index, tag in tags:
            value = read(index)
            truth[index] = value if tag is None else _sensed(tag, value)

    def take(self, device: int, frame: bytes) -> None:
        layout = self.engine.layouts[device]
        for tag, level in zip(layout.outputs, layout.unpack_output(frame)[1], strict=True):
            self._give(tag, level)

    def _give(self, tag: int, level: Value) -> None:
        """An output's level; of one that is stuck edge is told after the time that a fieldbus process takes."""
        if level == self.truth[tag]:
            self._taken(tag)
        elif any(one.event.what == "stuck" and one.event.target == tag for one in self.disturbed):
            known = self.refused.setdefault(tag, Refused(level, self.now))
            known.level = level
        else:
            self._taken(tag)
            self.truth[tag] = level
            self.plant.write(tag, level)

    def _taken(self, tag: int) -> None:
        refused = self.refused.pop(tag, None)
        if refused is not None and refused.told:
            self.send(TagReport(tag, GOOD, write=True))

    # --- faults ------------------------------------------------------------------------------------------------------

    def disturb(self, event: Event) -> None:
        """A fault of a tag begins."""
        tag = self.plan.cell.tags[event.target]
        if event.what == "stuck" and event.value is not None and tag.writable:
            self._give(tag.index, event.value)
        stood = self.values[tag.index] if event.value is None else event.value
        self.disturbed.append(Disturbed(event, self.now, stood))

    def mend(self, event: Event) -> None:
        """It ends; an output goes to the level that it was last given."""
        self.disturbed = [one for one in self.disturbed if one.event is not event]
        refused = self.refused.get(event.target)
        if refused is not None:
            self._give(event.target, refused.level)

    def cut(self) -> None:
        """edge is without power: the devices' own watchdogs take the outputs to failsafe."""
        self.powered = False
        for tag in self.plan.cell.tags:
            if tag.writable and tag.failsafe is not None:
                self._give(tag.index, tag.failsafe)

    def restore(self) -> None:
        """Power returns: edge starts anew and finds the batches that had not ended in its record."""
        self.powered = True
        for way in self.ways.values():
            way.inward.clear()
            way.outward.clear()
        for refused in self.refused.values():
            refused.since, refused.told = self.now, False
        self.power_up([batch for batch in self.blobs.values() if batch])

    def _disturb(self) -> list[Value | None]:
        """What the devices show, faults and all."""
        values = self.truth.copy()
        for one in self.disturbed:
            tag = self.plan.cell.tags[one.event.target]
            value = values[tag.index]
            match one.event.what:
                case "bad":
                    values[tag.index] = None
                case "drift" if isinstance(value, int | float):
                    drifted = value + one.event.rate * (self.now - one.since) * self.scan_s
                    values[tag.index] = _sensed(tag, drifted)
                case "stuck" | "spike":
                    values[tag.index] = one.stood if value is not None else None
                case _:
                    pass
        return values


def _by_kind(tags: Iterable[Tag]) -> _ByKind:
    return [(tag.index, tag if tag.type.kind == "int" else None) for tag in tags]


def _sensed(tag: Tag, value: Value) -> Value | None:
    """A value as the device's own type can have it: whole, in steps, saturated."""
    if tag.type.kind != "int" or (type(value) is int and tag.scale is None and tag.type.low <= value <= tag.type.high):
        return value
    return from_raw(raw(tag, value), tag.scale)
