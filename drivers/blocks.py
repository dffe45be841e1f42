"""Spans of points -> the fewest legal reads, and the values of a block taken out of its bytes with one struct."""

import struct
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import msgspec

from drivers.value import DataType, Value

MANY = 16
"""So many numbers are taken out faster as an array than by a struct."""


class Block(msgspec.Struct, frozen=True, gc=False):
    """One read: `size` units (registers, bits, bytes) from `start`; `members` are the points in it, by place."""

    start: int
    size: int
    members: tuple[int, ...]


def coalesce(spans: Mapping[int, tuple[int, int]], limit: int, gap: int = 0) -> list[Block]:
    """{point: (start, size)} of one area -> the fewest blocks that hold each span whole, in order.

    No block is over `limit`, but for a span that alone is. Up to `gap` units that no span needs are read along between
    two spans: with 0 nothing is read that was not asked for.
    """
    blocks: list[Block] = []
    start = end = 0
    members: list[int] = []
    for point, (first, size) in sorted(spans.items(), key=itemgetter(1, 0)):
        if members and (first > end + gap or max(end, first + size) - start > limit):
            blocks.append(Block(start, end - start, tuple(members)))
            members.clear()
        if not members:
            start = end = first
        members.append(point)
        end = max(end, first + size)
    if members:
        blocks.append(Block(start, end - start, tuple(members)))
    return blocks


class Field(msgspec.Struct, frozen=True):
    """How a value lies in a block: the `places` of its bytes, most significant first; the bit of a bool's byte.

    A string's bytes are in reading order: UTF-8, filled up with NUL.
    """

    type: DataType
    places: tuple[int, ...]
    bit: int = 0

    def put(self, buffer: bytearray, value: Value) -> None:
        """Lays a raw value into the bytes of a block. Raises ValueError where the type cannot hold it."""
        if self.type.kind == "bool":
            mask = 1 << self.bit
            buffer[self.places[0]] = buffer[self.places[0]] & ~mask | (mask if value else 0)
            return
        for place, byte in zip(self.places, _pack(self.type, value), strict=True):
            buffer[place] = byte


def _pack(kind: DataType, value: Value) -> bytes:
    if kind.kind == "string":
        data = str(value).encode()
        if len(data) > kind.size:
            raise ValueError(f"{value!r} is longer than {kind.name}")
        return data.ljust(kind.size, b"\0")
    try:
        return struct.pack(f">{kind.code}", value)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"{value!r} does not fit {kind.name}") from error


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode(errors="replace")


def _layout(slots: Sequence[tuple[tuple[int, ...], str]]) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    """(places of its bytes, `struct` letter) of each value -> what unpacks them, and what picks their bytes before."""
    every = [place for places, _ in slots for place in places]
    padded = all(low < high for low, high in pairwise(every)) and all(
        places[-1] - places[0] == len(places) - 1 for places, _ in slots
    )
    letters, at = list[str](), 0
    for places, letter in slots:
        if padded:
            letters += "x" * (places[0] - at)
            at = places[-1] + 1
        letters.append(letter)
    runs = ((letter, len(list(same))) for letter, same in groupby(letters))
    layout = "".join(letter * count if letter.endswith("s") else f"{count}{letter}" for letter, count in runs)
    return struct.Struct(f">{layout}").unpack_from, None if padded else itemgetter(*every)


def _array(fields: Sequence[Field]) -> Callable[[bytes], Sequence[Any]] | None:
    """What takes out many numbers of one type that lie side by side: they stay machine numbers until one is used."""
    kind, start = fields[0].type, fields[0].places[0]
    places = [place for field in fields for place in field.places]
    if kind.kind not in ("int", "float") or any(field.type != kind for field in fields):
        return None
    if places != list(range(start, start + len(places))):
        return None
    code, part, swapped = kind.code, slice(start, start + len(places)), sys.byteorder == "little"

    def numbers(data: bytes) -> Sequence[Any]:
        found = array(code, data[part])
        if swapped:
            found.byteswap()
        return found

    return numbers


def unpacker(fields: Sequence[Field]) -> Callable[[bytes], Sequence[Any]]:
    """Compiles fields of a block into one function: its bytes -> the fields' values, in order.

    MANY fields of one type side by side are an array of it. Others that lie in order cost one `struct`, the bits of
    one byte once; where they overlap or their bytes are swapped, their bytes are first picked into order.
    """
    numbers = _array(fields) if len(fields) >= MANY else None
    if numbers is not None:
        return numbers
    letters = [{"string": f"{one.type.size}s", "bool": "B"}.get(one.type.kind, one.type.code) for one in fields]
    slots: dict[tuple[tuple[int, ...], str], int] = {}
    order = [slots.setdefault((one.places, letter), len(slots)) for one, letter in zip(fields, letters, strict=True)]
    unpack, pick = _layout(list(slots))
    shared = len(slots) < len(fields)
    bits = [(index, 1 << field.bit) for index, field in enumerate(fields) if field.type.kind == "bool"]
    texts = [index for index, field in enumerate(fields) if field.type.kind == "string"]

    if pick is None and not (shared or bits or texts):
        return unpack

    def values(data: bytes) -> list[Any]:
        found: list[Any] = list(unpack(data if pick is None else bytes(pick(data))))
        if shared:
            found = [found[slot] for slot in order]
        for index, mask in bits:
            found[index] = found[index] & mask != 0
        for index in texts:
            found[index] = _text(found[index])
        return found

    return values
