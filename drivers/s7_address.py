"""Addresses of S7 memory, `DB1.DBX4.0`, `MW12`, and the bytes of the values that lie there (all big-endian)."""

import re
import struct

import msgspec

from drivers.driver import AddressError, Point
from drivers.s7_codec import BIT, BYTE, DATA_BLOCK, INPUTS, MEMORY, OUTPUTS, Area
from drivers.value import DataType, Value

LAST_BYTE = 65535
LAST_BLOCK = 65535

_AREAS = {"I": INPUTS, "Q": OUTPUTS, "M": MEMORY}
_NAMES = {INPUTS: "the inputs (I)", OUTPUTS: "the outputs (Q)", MEMORY: "the bit memory (M)"}
_BLOCK = re.compile(r"DB(?P<db>[0-9]{1,9})\.DB(?P<width>[XBWD])(?P<byte>[0-9]{1,9})(?:\.(?P<bit>[0-9]{1,9}))?")
_OTHER = re.compile(r"(?P<area>[IQM])(?P<width>[BWD]?)(?P<byte>[0-9]{1,9})(?:\.(?P<bit>[0-9]{1,9}))?")
_FORMS = "write it as `DB1.DBX4.0`, `DB1.DBB5`, `DB1.DBW6`, `DB1.DBD8`, `M10.0`, `MB10`, `MW12`, `MD14` (I and Q as M)"
_TYPES = {
    "X": "bool",
    "B": "int8, uint8, or begins an int64, uint64, float64 or string[n]",
    "W": "int16 or uint16",
    "D": "int32, uint32 or float32",
}


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a value of `type` lies: area, data block (0 outside of them), first byte, bit (0 unless a bool)."""

    area: int
    db: int
    byte: int
    bit: int
    type: DataType

    @property
    def size(self) -> int:
        """Its bytes: a STRING has two before its characters, the most that it can hold and those that it holds."""
        return self.type.size + 2 if self.type.kind == "string" else self.type.size

    @property
    def room(self) -> str:
        """What it lies in, as a person says it: `DB1`, `the inputs (I)`…"""
        return _NAMES.get(self.area, f"DB{self.db}")

    def item(self) -> Area:
        """The item of a job that is exactly this place: a bit as a bit, else bytes."""
        if self.type.kind == "bool":
            return Area(self.area, self.db, self.byte * 8 + self.bit, 1, BIT)
        return Area(self.area, self.db, self.byte * 8, self.size, BYTE)


def place(point: Point) -> Place:
    """Where a point lies. Raises AddressError, with what to write instead."""
    text, kind = point.address, point.type
    match = _BLOCK.fullmatch(text) or _OTHER.fullmatch(text)
    if match is None:
        raise AddressError(f"`{text}` is no S7 address", _advice(text))
    parts = match.groupdict()
    width, byte, bit = parts["width"] or "X", int(parts["byte"]), parts["bit"]
    db = int(parts.get("db") or 0)
    prefix = f"DB{db}.DB" if "db" in parts else parts["area"]
    if "db" in parts and not 1 <= db <= LAST_BLOCK:
        raise AddressError(f"`{text}`: there is no DB{db}", f"data blocks have the numbers 1 to {LAST_BLOCK}")
    _check_bit(text, prefix, width, byte, bit)
    _check_type(text, prefix, width, byte, kind)
    area = DATA_BLOCK if "db" in parts else _AREAS[parts["area"]]
    found = Place(area, db, byte, int(bit or 0), kind)
    if byte + found.size - 1 > LAST_BYTE:
        raise AddressError(
            f"`{text}` lies behind the end: {found.size} bytes from {byte}", f"the last byte of an area is {LAST_BYTE}"
        )
    for what, order in (("byte_order", point.byte_order), ("word_order", point.word_order)):
        if order != "big":
            raise AddressError(f"`{text}`: an S7 PLC has {what} big, never {order}", f"leave {what} out")
    if point.writable and area == INPUTS:
        raise AddressError(f"`{text}`: inputs cannot be written", "write to M, to Q or to a data block")
    return found


def _check_bit(text: str, prefix: str, width: str, byte: int, bit: str | None) -> None:
    if width == "X" and bit is None:
        raise AddressError(f"`{text}` names no bit", f"the bits of a byte are 0 to 7: `{text}.0`")
    if width == "X" and bit is not None and int(bit) > 7:
        raise AddressError(f"`{text}`: a byte has no bit {bit}", "the bits of a byte are 0 to 7")
    if width != "X" and bit is not None:
        single = _address(prefix, "X", byte, int(bit) if int(bit) < 8 else 0)
        raise AddressError(f"`{text}`: only a bit has a number after the point", f"for one bit, write `{single}`")


def _check_type(text: str, prefix: str, width: str, byte: int, kind: DataType) -> None:
    wanted = "X" if kind.kind == "bool" else {2: "W", 4: "D"}.get(kind.size if kind.kind != "string" else 0, "B")
    if wanted != width:
        raise AddressError(
            f"`{text}` is {_TYPES[width]}; it cannot be {kind.name}",
            f"a {kind.name} lies at `{_address(prefix, wanted, byte, 0)}`",
        )


def _address(prefix: str, width: str, byte: int, bit: int) -> str:
    letter = "" if width == "X" and not prefix.startswith("DB") else width
    return f"{prefix}{letter}{byte}" + (f".{bit}" if width == "X" else "")


def _advice(text: str) -> str:
    """What the person who wrote `text` most likely needs to hear."""
    plain = text.strip().removeprefix("%").upper()
    if german := re.fullmatch(r"([EA])([BWD]?[0-9]+(?:\.[0-9]+)?)", plain):
        plain = {"E": "I", "A": "Q"}[german[1]] + german[2]
    elif short := re.fullmatch(r"DB([0-9]+)[.,](?:DB)?([XBWD]?)([0-9]+)(?:\.([0-9]+))?", plain):
        width = short[2] or ("X" if short[4] else "W")
        plain = f"DB{short[1]}.DB{width}{short[3]}" + (f".{short[4]}" if short[4] else "")
    elif re.fullmatch(r"[IQM]X[0-9]+\.[0-9]+", plain):
        plain = plain.replace("X", "")
    if plain != text and (_BLOCK.fullmatch(plain) or _OTHER.fullmatch(plain)):
        return f"did you mean `{plain}`?"
    if re.fullmatch(r"[TCZ][0-9]+", plain):
        return "timers and counters cannot be read: let the PLC's program copy them to a data block"
    if re.fullmatch(r'"[^"]*"(\..+)?|[A-Za-z_]\w*(\.\w+)+', text.strip()):
        return (
            "names of tags cannot be read: in TIA Portal switch off `Optimized block access` of the data block, "
            "compile and download, and take the number of the column `Offset`: `DB1.DBD8`"
        )
    return _FORMS


class NoString(ValueError):
    """A string's place does not hold a STRING that fits; the message says what it holds."""


def decode_string(kind: DataType, raw: bytes) -> str:
    """A STRING: a byte with the characters that it can hold, one with those that it holds, the characters (Latin-1)."""
    maximum, actual = raw[0], raw[1]
    if maximum < kind.size or actual > maximum:
        raise NoString(
            f"no {kind.name}: " + (f"it is a STRING[{maximum}]" if actual <= maximum else "no STRING at all")
        )
    if actual > kind.size:
        raise NoString(f"{actual} characters now, more than {kind.name}; the PLC's STRING has {maximum}")
    return raw[2 : 2 + actual].decode("latin-1")


def encode(kind: DataType, value: Value) -> bytes:
    """A raw value's bytes: 0 or 1 for a bool; for a string its length and characters, without the maximum before them.

    Raises ValueError where the type cannot hold the value.
    """
    if kind.kind == "bool":
        return b"\x01" if value else b"\x00"
    if isinstance(value, str):
        try:
            text = value.encode("latin-1")
        except UnicodeEncodeError as error:
            raise ValueError(f"{value!r} has characters that a STRING cannot hold") from error
        if kind.kind != "string" or len(text) > kind.size:
            raise ValueError(f"{value!r} does not fit {kind.name}")
        return bytes((len(text),)) + text
    try:
        return struct.pack(">" + kind.code, value)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"{value!r} does not fit {kind.name}") from error
