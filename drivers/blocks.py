"""Spans of points -> the fewest legal reads, and the values of a block taken out of its bytes with one struct."""

import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby, pairwise
from operator import itemgetter
from typing import Any

import msgspec

from drivers.value import DataType, Value

MANY = 16
"""So many numbers are taken out faster as an array than by a struct."""


class Runs(Sequence[Any]):
    """Values of some blocks, one after another. Those that are machine arrays stay so until one is asked for."""

    __slots__ = ("_flat", "parts")

    def __init__(self, parts: Sequence[Sequence[Any]]) -> None:
        self.parts = [inner for part in parts for inner in runs(part)]
        self._flat: list[Any] | None = None

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.parts)

    def __getitem__(self, place: Any) -> Any:
        if self._flat is None:
            self._flat = list(self)
        return self._flat[place]


def runs(values: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """The parts that values are made of."""
    return values.parts if isinstance(values, Runs) else (values,)


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


def _side_by_side(one: Field, other: Field) -> bool:
    """Whether two numbers of one type lie so that an array takes both."""
    return one.type == other.type and other.places[0] == one.places[-1] + 1 and _straight(other)


def _straight(field: Field) -> bool:
    first, size = field.places[0], len(field.places)
    return field.type.kind in ("int", "float") and field.places == tuple(range(first, first + size))


def _array(fields: Sequence[Field]) -> Callable[[bytes], Sequence[Any]]:
    """What takes out numbers of one type that lie side by side: they stay machine numbers until one is used."""
    code, start, end = fields[0].type.code, fields[0].places[0], fields[-1].places[-1] + 1
    part, swapped = slice(start, end), sys.byteorder == "little"

    def numbers(data: bytes) -> Sequence[Any]:
        found = array(code, data[part])
        if swapped:
            found.byteswap()
        return found

    return numbers


def unpacker(fields: Sequence[Field]) -> Callable[[bytes], Sequence[Any]]:
    """Compiles fields of a block into one function: its bytes -> the fields' values, in order.

    MANY numbers of one type side by side are an array, and where there is one, the values are `Runs`.
    """
    stretches: list[tuple[Sequence[Field], bool]] = []
    for stretch in _stretches(fields):
        many = len(stretch) >= MANY and _straight(stretch[0])
        if stretches and not many and not stretches[-1][1]:
            stretch = [*stretches.pop()[0], *stretch]
        stretches.append((stretch, many))
    parts = [_array(stretch) if many else _struct(stretch) for stretch, many in stretches]
    if len(parts) == 1:
        return parts[0]
    return lambda data: Runs([part(data) for part in parts])


def _stretches(fields: Sequence[Field]) -> list[list[Field]]:
    """The fields in their order, those together that an array could take."""
    found: list[list[Field]] = []
    for field in fields:
        if found and _straight(found[-1][-1]) and _side_by_side(found[-1][-1], field):
            found[-1].append(field)
        else:
            found.append([field])
    return found


def _struct(fields: Sequence[Field]) -> Callable[[bytes], Sequence[Any]]:
    """Fields that lie in order cost one `struct`, the bits of one byte once; where they overlap or their bytes are
    swapped, their bytes are first picked into order.
    """
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
