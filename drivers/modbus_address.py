"""Addresses of a cell file for Modbus: `holding:10`, `holding:12.3`, `input:20`, `discrete:3`, `coil:7`, from 0."""

import re
from difflib import get_close_matches

import msgspec

from drivers import modbus_codec as modbus
from drivers.blocks import Field
from drivers.driver import AddressError, Point
from drivers.value import TYPES, DataType

READS = {
    "coil": modbus.READ_COILS,
    "discrete": modbus.READ_DISCRETE,
    "holding": modbus.READ_HOLDING,
    "input": modbus.READ_INPUT,
}
"""The areas of a device (Application Protocol, 4.3), and the function that reads each."""

BIT_AREAS = frozenset({"coil", "discrete"})
WRITABLE_AREAS = frozenset({"coil", "holding"})
NAMES = {"coil": "coil", "discrete": "discrete input", "holding": "holding register", "input": "input register"}

_FORM = re.compile(r"([a-z]+):([0-9]{1,9})(?:\.([0-9]{1,9}))?")
_EXPECTED = "an address is holding:10, input:20, discrete:3, coil:7, or holding:12.3 for bit 3 of a register"
_NUMBERED = re.compile(r"([0134])[xX]?([0-9]{4,5})")
_NUMBERED_AREAS = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
_LAST = 0xFFFF


class Place(msgspec.Struct, frozen=True):
    """Where a point is: its area, first bit or register, how many of them; the bit of a register, None for no bit."""

    area: str
    start: int
    size: int
    bit: int | None = None

    def __str__(self) -> str:
        name = NAMES[self.area]
        if self.bit is not None:
            return f"{name} {self.start}"
        return f"{name} {self.start}" if self.size == 1 else f"{name}s {self.start} to {self.start + self.size - 1}"


def place(point: Point) -> Place:
    """Where a point is. Raises AddressError where its address, type, access or orders cannot be Modbus's."""
    match = _FORM.fullmatch(point.address)
    if match is None or match[1] not in READS:
        raise _no_address(point.address)
    area, start, bit = match[1], int(match[2]), None if match[3] is None else int(match[3])
    _check_type(point, area, bit)
    size = 1 if area in BIT_AREAS else registers(point.type)
    if start + size - 1 > _LAST:
        raise AddressError(f"`{point.address}` as {point.type.name} ends after {_LAST}, the last address")
    _check_access(point, area, bit)
    return Place(area, start, size, bit)


def registers(kind: DataType) -> int:
    """How many registers a value takes: 8 bits are the low byte of one."""
    return (kind.size + 1) // 2


def _a(area: str) -> str:
    return f"an {NAMES[area]}" if area == "input" else f"a {NAMES[area]}"


def _check_type(point: Point, area: str, bit: int | None) -> None:
    kind, bare = point.type, point.address.partition(".")[0]
    if area in BIT_AREAS:
        if bit is not None:
            raise AddressError(f"{_a(area)} has no bits", f"write {bare}")
        if kind.kind != "bool":
            raise AddressError(f"{_a(area)} is a bool, not {kind.name}", "write type: bool")
        return
    if bit is not None and bit > 15:
        raise AddressError(f"a register has the bits 0 to 15, not {bit}", "bit 0 is the least significant")
    if bit is None and kind.kind == "bool":
        raise AddressError(f"{_a(area)} is no bool", f"write the bit too: {bare}.0 is the least significant")
    if bit is not None and kind.kind != "bool":
        raise AddressError(f"a bit is a bool, not {kind.name}", f"write type: bool, or {bare} for the whole register")
    if kind.kind == "string":
        if registers(kind) > modbus.MAX_READ_REGISTERS:
            most = modbus.MAX_READ_REGISTERS * 2
            raise AddressError(f"{kind.name} is more than one read can hold", f"string[{most}] is the longest")
        if point.word_order != "big":
            raise AddressError("a string has no word order", "write byte_order: little where letters are swapped")


def _check_access(point: Point, area: str, bit: int | None) -> None:
    if not point.writable:
        return
    if area not in WRITABLE_AREAS:
        raise AddressError(f"{_a(area)} can only be read", "coils and holding registers can be written")
    if bit is not None:
        raise AddressError(
            "a bit of a register can only be read: writing it would undo what the device does to the other bits",
            "let the device offer it as a coil, or write the whole register",
        )
    if point.type.kind == "string" and registers(point.type) > modbus.MAX_WRITE_REGISTERS:
        most = modbus.MAX_WRITE_REGISTERS * 2
        raise AddressError(f"{point.type.name} is more than one write can hold", f"string[{most}] is the longest")


def _no_address(text: str) -> AddressError:
    message = f"`{text}` is no Modbus address"
    if numbered := _NUMBERED.fullmatch(text):
        area, number = _NUMBERED_AREAS[numbered[1]], int(numbered[2]) - 1
        example = f"{area}:{number}" if number >= 0 else "holding:0"
        return AddressError(message, f"addresses are the protocol's own, from 0: {example}")
    area, colon, number = text.partition(":")
    if colon and number.startswith("-"):
        return AddressError(message, "addresses count from 0")
    near = get_close_matches(area.strip().lower(), READS, n=1)
    if near and near[0] != area:
        return AddressError(message, f"did you mean {near[0]}:{number.strip() or '0'}?")
    return AddressError(message, _EXPECTED)


def field(point: Point, at: Place, base: int, *, whole: bool = False) -> Field:
    """How a point of a register area lies in the bytes of a block that starts at register `base`.

    `whole`: an 8-bit value takes both bytes of its register, as it must when that is written.
    """
    first = (at.start - base) * 2
    high, low = (0, 1) if point.byte_order == "big" else (1, 0)
    order = range(at.size) if point.word_order == "big" else reversed(range(at.size))
    places = tuple(first + 2 * word + byte for word in order for byte in (high, low))
    kind = point.type
    if at.bit is not None:
        return Field(kind, (places[0 if at.bit > 7 else 1],), at.bit % 8)
    if kind.kind == "string":
        return Field(kind, places[: kind.size])
    if kind.size == 1:
        return Field(TYPES["int16" if kind.low else "uint16"], places) if whole else Field(kind, places[1:])
    return Field(kind, places)
