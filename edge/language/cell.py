"""The typed cell: devices, tags, units (ISA-88 part 1, physical model)."""

import math
from typing import Literal

import msgspec

from drivers.driver import MAX_AGE_S, Point
from drivers.value import DataType, Scale, Value, to_raw
from edge.language.source import Node, Problems, suggest, tick


class Tag(msgspec.Struct, frozen=True):
    """One tag. Values, range and failsafe are in `unit` (after `scale`); `index` is its place in `Cell.tags`.

    `once`: each change of it is a command (the edge of a handshake), written once: the device may take it back itself.
    """

    index: int
    name: str
    device: int
    address: str
    type: DataType
    unit: str = ""
    scale: Scale | None = None
    low: float | None = None
    high: float | None = None
    writable: bool = False
    failsafe: Value | None = None
    byte_order: Literal["big", "little"] = "big"
    word_order: Literal["big", "little"] = "big"
    once: bool = False

    @property
    def point(self) -> Point:
        return Point(self.name, self.address, self.type, self.writable, self.byte_order, self.word_order)


MAX_AGE_NS = round(MAX_AGE_S * 1e9)


class Device(msgspec.Struct, frozen=True):
    """One PLC or robot controller: its driver, that driver's settings, its scan period, and its tags (indices).

    A value that is older than `max_age_ns` is bad.
    """

    index: int
    name: str
    driver: str
    settings: msgspec.Struct
    every_ns: int
    tags: tuple[int, ...]
    max_age_ns: int = MAX_AGE_NS


class Cell(msgspec.Struct, frozen=True):
    """A work cell. `units` names the devices (indices) of each unit; `heartbeats` the tag that counts for a device.

    `unexpected_restart` is why its machines may start by themselves when power returns; "": they may not.
    """

    name: str
    path: str
    scan_ns: int
    devices: tuple[Device, ...]
    tags: tuple[Tag, ...]
    units: dict[str, tuple[int, ...]]
    heartbeats: dict[int, int]
    unexpected_restart: str = ""

    @property
    def silence_ns(self) -> int:
        """A loop that runs no cycle for so long is silent: outputs are at failsafe, and batches are held after it."""
        return max(20 * self.scan_ns, 250_000_000)

    def tag(self, name: str) -> Tag:
        """The tag of this name. Raises KeyError."""
        for tag in self.tags:
            if tag.name == name:
                return tag
        raise KeyError(name)


def unknown_unit(cell: Cell, name: str, node: Node, problems: Problems) -> None:
    """Reports a unit that the cell does not have; the hint says where a device was meant that is in a group."""
    device = next((one.index for one in cell.devices if one.name == name), None)
    group = next((unit for unit, devices in cell.units.items() if device in devices), None)
    hint = suggest(name, cell.units) or f"the units are {', '.join(cell.units) or 'none'}"
    if group is not None:
        hint = f"it is a device of the unit `{group}`: write `{group}`"
    problems.error(node, "unknown-unit", f"no unit {tick(name)}", hint)


MOST_BEATS = 32767
"""Every 16-bit type holds as much, and at ten counts a second it lasts for an hour."""


def beats(tag: Tag) -> range:
    """The numbers that a heartbeat goes through: from 0 as far as its type and its range let it."""
    low = max(tag.type.low, 0) if tag.low is None else max(tag.type.low, 0, math.ceil(tag.low))
    high = min(tag.type.high, MOST_BEATS) if tag.high is None else min(tag.type.high, MOST_BEATS, math.floor(tag.high))
    return range(int(low), int(high) + 1)


def whole(value: Value, tag: Tag) -> Value:
    """A value that the tag may have, as an integer where the tag is one."""
    return int(value) if tag.type.kind == "int" and tag.scale is None else value


def outside(value: Value, tag: Tag) -> str:
    """Why the tag may not have this value, in words; empty where it may."""
    if not isinstance(value, bool | str):
        low, high = tag.low, tag.high
        if (low is not None and value < low) or (high is not None and value > high):
            return f"{_amount(value, tag)} is outside the range of `{tag.name}`, {low:g} to {_amount(high or 0, tag)}"
        raw = tag.scale.to_raw(value) if tag.scale else value
        if tag.type.kind == "int" and tag.scale is None and raw != round(raw):
            return f"`{tag.name}` is {tag.type.name}: it cannot be {value:g}"
    try:
        to_raw(value, tag.type, tag.scale)
    except ValueError as error:
        return f"`{tag.name}` cannot be written: {error}"
    return ""


def _amount(value: float, tag: Tag) -> str:
    return f"{value:g} {tag.unit}".rstrip()
