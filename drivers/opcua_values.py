"""Arrays of OPC UA DataValues as parallel lists (OPC 10000-6, 5.2.2.16 and 5.2.2.17).

`data_values` reads any array strictly. A `Layout`, learnt from one array, reads all of the same shape with one struct.
"""

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from drivers.link import FramingError
from drivers.opcua_codec import (
    I32,
    MAX_NESTING,
    READ_ANSWER,
    array,
    plain_answer,
    skip_array,
    skip_bytes,
    skip_diagnostics,
    skip_expanded_node,
    skip_extension,
    skip_node,
)
from drivers.value import Value

STRING = 12
ARRAY = 0x80
_VALUE, _STATUS, _SOURCE, _SERVER, _SOURCE_PICO, _SERVER_PICO = 1, 2, 4, 8, 16, 32
_NUMBERS = dict(zip(range(1, 12), "?bBhHiIqQfd", strict=True))
_FIXED = {0: 0, 13: 8, 14: 16, 19: 4}  # Null, DateTime, Guid, StatusCode: passed over


class Columns(msgspec.Struct, frozen=True, gc=False):
    """The DataValues of an array, in its order.

    `kinds` are Variants' encoding bytes: built-in type, and ARRAY; 0 where there is no value. Of other types than bool,
    numbers and String, and of arrays, the value is None. `ticks` are source times, 100 ns since 1601; 0: there is none.
    """

    values: Sequence[Value | None]
    kinds: Sequence[int]
    statuses: Sequence[int]
    ticks: Sequence[int]


class _Shape(msgspec.Struct, frozen=True):
    """A DataValue of fixed size: three fields (value, status, ticks; empty bytes for what is not there).

    `head` is the part of `layout` that is its structure, whose bytes never change.
    """

    layout: tuple[str, str, str, str]
    kind: int
    has_value: bool
    head: int
    codec: struct.Struct


def _shape(mask: int, kind: int) -> _Shape:
    has_value = kind in _NUMBERS
    head = 2 if mask & _VALUE else 1
    value = _NUMBERS.get(kind) or (f"{_FIXED[kind]}x0s" if _FIXED[kind] else "0s")
    layout = (f"{head}x{value}", *_tail(mask))
    return _Shape(layout, kind, has_value, head, struct.Struct("<" + "".join(layout)))


def _tail(mask: int) -> tuple[str, str, str]:
    """What follows the value: status, source time, what is passed over."""
    pad = 2 * bool(mask & _SOURCE_PICO) + 8 * bool(mask & _SERVER) + 2 * bool(mask & _SERVER_PICO)
    return "I" if mask & _STATUS else "0s", "q" if mask & _SOURCE else "0s", f"{pad}x" if pad else ""


_SHAPES = {
    mask << 8 | kind: _shape(mask, kind)
    for mask in range(64)
    for kind in ((*_NUMBERS, *_FIXED) if mask & _VALUE else (0,))
}
_CODECS = {key: (shape.codec.unpack_from, shape.codec.size, shape) for key, shape in _SHAPES.items()}
_TAILS = {mask: struct.Struct("<" + "".join(_tail(mask))) for mask in range(64)}


def data_value(data: bytes, at: int) -> tuple[Value | None, int, int, int, int]:
    """(value, kind, status, ticks, where it ends). Raises FramingError, struct.error or IndexError."""
    mask = data[at]
    found = _CODECS.get(mask << 8 | data[at + 1] if mask & _VALUE else mask << 8)
    if found is not None:
        unpack, size, shape = found
        value, status, ticks = unpack(data, at)
        return value if shape.has_value else None, shape.kind, status or 0, ticks or 0, at + size
    if mask > 63:
        raise FramingError(f"a DataValue of form {mask}")
    value, kind, at = _variant(data, at + 1)
    status, ticks = _TAILS[mask].unpack_from(data, at)
    return value, kind, status or 0, ticks or 0, at + _TAILS[mask].size


def read_results(body: bytes, expected: int) -> Columns:
    """The parameters of a ReadResponse (OPC 10000-4, 5.11.2.2), whole: so many DataValues. Raises FramingError."""
    values: list[Value | None] = []
    kinds: list[int] = []
    statuses: list[int] = []
    ticks: list[int] = []
    try:
        count, at = array(body, 0)
        if count != expected:
            raise FramingError(f"an answer of {count} of {expected} items")
        for _ in range(count):
            value, kind, status, tick, at = data_value(body, at)
            values.append(value)
            kinds.append(kind)
            statuses.append(status)
            ticks.append(tick)
    except (struct.error, IndexError) as error:
        raise FramingError("an array of values is cut off") from error
    if at > len(body):
        raise FramingError("an array of values is cut off")
    end_of_results(body, at)
    return Columns(values, kinds, statuses, ticks)


def read_statuses(body: bytes, expected: int) -> list[int]:
    """The parameters of a WriteResponse (OPC 10000-4, 5.11.4.2): so many StatusCodes. Raises FramingError."""
    try:
        count, at = array(body, 0)
        if count != expected:
            raise FramingError(f"an answer of {count} of {expected} items")
        statuses = list(struct.unpack_from(f"<{count}I", body, at))
    except struct.error as error:
        raise FramingError("an array of StatusCodes is cut off") from error
    end_of_results(body, at + 4 * count)
    return statuses


def encode_variant(built_in: int, value: Value) -> bytes:
    """A scalar of a number type, Boolean or String (OPC 10000-6, 5.2.2.16); the value must fit the type."""
    if isinstance(value, str):
        data = value.encode()
        return struct.pack("<Bi", STRING, len(data)) + data
    return struct.pack(f"<B{_NUMBERS[built_in]}", built_in, value)


def check_answer(message: bytes) -> None:
    """Refuses what asyncua would not stand: objects in the header, arrays that are longer than the message.

    Raises FramingError.
    """
    kind, body = plain_answer(message)
    if kind == READ_ANSWER:
        (count,) = I32.unpack_from(body) if len(body) >= I32.size else (0,)
        read_results(body, max(count, 0))


def end_of_results(data: bytes, at: int) -> None:
    """Only DiagnosticInfos follow, then the end. Raises FramingError."""
    try:
        end = skip_array(data, at, skip_diagnostics)
    except (struct.error, IndexError) as error:
        raise FramingError("an answer is cut off") from error
    if end != len(data):
        raise FramingError(f"an answer of {len(data)} bytes ends at {end}")


def text(data: bytes) -> str:
    """What is not UTF-8 is kept as surrogates: whoever uses the text sees it."""
    return data.decode("utf-8", "surrogateescape")


def _variant(data: bytes, at: int, depth: int = 0) -> tuple[Value | None, int, int]:
    """(value, kind, where it ends) of a Variant."""
    kind = data[at]
    if kind == STRING:
        end = skip_bytes(data, at + 1)
        return (text(data[at + 5 : end]) if data[at + 1 : at + 5] != b"\xff\xff\xff\xff" else None), kind, end
    if kind & 0x40 and not kind & ARRAY:
        raise FramingError(f"a Variant of form {kind}")
    end = _skip_variant(data, at, depth)
    return None, kind & (ARRAY | 0x3F), end


def _skip_variant(data: bytes, at: int, depth: int = 0) -> int:
    kind = data[at]
    built_in = kind & 0x3F
    if depth > MAX_NESTING:
        raise FramingError("values nested too deeply")
    if not kind & ARRAY:
        return _skip(data, at + 1, built_in, depth)
    count, at = array(data, at + 1)
    size = _size(built_in)
    if size is not None:
        at += count * size
    else:
        for _ in range(count):
            at = _skip(data, at, built_in, depth)
    if kind & 0x40:
        dimensions, at = array(data, at)
        at += 4 * dimensions
    return at


def _size(built_in: int) -> int | None:
    code = _NUMBERS.get(built_in)
    return _FIXED.get(built_in) if code is None else struct.calcsize(f"<{code}")


def _skip(data: bytes, at: int, built_in: int, depth: int) -> int:
    """Behind one value of a built-in type (OPC 10000-6, table 1); 26 to 31 are read as ByteString (5.2.2.16)."""
    size = _size(built_in)
    if size is not None:
        return at + size
    if built_in == 23:
        return _skip_data_value(data, at, depth + 1)
    if built_in == 24:
        return _skip_variant(data, at, depth + 1)
    skip = _SKIPS.get(built_in)
    if skip is None:
        raise FramingError(f"a value of type {built_in}")
    return skip(data, at)


def _skip_data_value(data: bytes, at: int, depth: int) -> int:
    mask = data[at]
    if mask > 63:
        raise FramingError(f"a DataValue of form {mask}")
    at = _skip_variant(data, at + 1, depth) if mask & _VALUE else at + 1
    return at + _TAILS[mask].size


def _skip_qualified_name(data: bytes, at: int) -> int:
    return skip_bytes(data, at + 2)


def _skip_localized_text(data: bytes, at: int) -> int:
    mask = data[at]
    if mask > 3:
        raise FramingError(f"a LocalizedText of form {mask}")
    at += 1
    for _ in range(mask.bit_count()):
        at = skip_bytes(data, at)
    return at


_SKIPS = {
    STRING: skip_bytes, 15: skip_bytes, 16: skip_bytes, 17: skip_node, 18: skip_expanded_node,
    20: _skip_qualified_name, 21: _skip_localized_text, 22: skip_extension, 25: skip_diagnostics,
    **dict.fromkeys(range(26, 32), skip_bytes),
}  # fmt: skip


def _place(data: bytes, at: int) -> tuple[tuple[str, str, str, str], int, int]:
    """(its fields in the layout of a struct, how long its structure is at its front, where it ends) of a DataValue."""
    mask = data[at]
    shape = _SHAPES.get(mask << 8 | data[at + 1] if mask & _VALUE else mask << 8)
    if shape is not None:
        return shape.layout, shape.head, at + shape.codec.size
    _, kind, behind = _variant(data, at + 1)
    head = 6 if kind == STRING else behind - at  # mask, type and length; of what is passed over, all
    return (f"{head}x{behind - at - head}s", *_tail(mask)), head, behind + _TAILS[mask].size


class Layout:
    """The shape of one ReadResponse: answers of the same shape are read with one struct."""

    def __init__(self, body: bytes, columns: Columns) -> None:
        """`columns` is what `read_results` gave for `body`."""
        structure, at = bytearray(b"\xff\xff\xff\xff"), 4
        places: list[tuple[str, str, str, str]] = []
        for _ in columns.values:
            place, head, end = _place(body, at)
            places.append(place)
            structure += b"\xff" * head + bytes(end - at - head)
            at = end
        rest = len(body) - at
        structure += b"\xff" * rest
        self._structure = int.from_bytes(structure, "little")
        self._expected = int.from_bytes(body, "little") & self._structure
        # a field that no value has is left out
        present = [any(place[field] != "0s" for place in places) for field in (1, 2)]
        fields = "".join(value + status * present[0] + ticks * present[1] + pad for value, status, ticks, pad in places)
        self._codec = struct.Struct(f"<4x{fields}{rest}x")
        self._step = 1 + sum(present)
        self._columns = [
            (sum(present[:field]) + 1, any(place[field + 1] == "0s" for place in places)) if present[field] else None
            for field in (0, 1)
        ]
        self._zeros = [0] * len(places)
        self._kinds = columns.kinds
        kinds = list(enumerate(columns.kinds))
        self._texts = [index for index, kind in kinds if kind == STRING and columns.values[index] is not None]
        self._nones = [index for index, value in enumerate(columns.values) if value is None]

    def read(self, body: bytes) -> Columns | None:
        """None where it is of another shape."""
        if len(body) != self._codec.size or int.from_bytes(body, "little") & self._structure != self._expected:
            return None
        fields = self._codec.unpack(body)
        values: Sequence[Any] = fields[:: self._step]
        if self._texts or self._nones:
            values = list(values)
            for index in self._texts:
                values[index] = text(values[index])
            for index in self._nones:
                values[index] = None
        return Columns(values, self._kinds, self._column(fields, 0), self._column(fields, 1))

    def _column(self, fields: Sequence[Any], which: int) -> Sequence[int]:
        place = self._columns[which]
        if place is None:
            return self._zeros
        first, some_empty = place
        column = fields[first :: self._step]
        return [one or 0 for one in column] if some_empty else column
