"""IEC 61131-3 data types, OPC UA quality, and the reading of one tag."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

Value = bool | int | float | str
"""A tag's value: BOOL, an integer type, REAL/LREAL, or STRING."""

# OPC 10000-4, 7.39 StatusCode; the numeric codes are those of OPC 10000-6, Annex A.
GOOD = 0x0000_0000
BAD = 0x8000_0000
BAD_COMMUNICATION = 0x8005_0000
BAD_TIMEOUT = 0x800A_0000
BAD_CERTIFICATE_INVALID = 0x8012_0000
BAD_SECURITY_CHECKS_FAILED = 0x8013_0000
BAD_CERTIFICATE_TIME_INVALID = 0x8014_0000
BAD_CERTIFICATE_URI_INVALID = 0x8017_0000
BAD_CERTIFICATE_UNTRUSTED = 0x801A_0000
BAD_ACCESS_DENIED = 0x801F_0000
BAD_IDENTITY_TOKEN_INVALID = 0x8020_0000
BAD_IDENTITY_TOKEN_REJECTED = 0x8021_0000
BAD_SESSION_INVALID = 0x8025_0000
BAD_NOT_READABLE = 0x803A_0000
BAD_NOT_WRITABLE = 0x803B_0000
BAD_OUT_OF_RANGE = 0x803C_0000
BAD_NOT_SUPPORTED = 0x803D_0000
BAD_NO_COMMUNICATION = 0x8031_0000
BAD_WAITING = 0x8032_0000
BAD_NODE_UNKNOWN = 0x8034_0000
BAD_SECURITY_MODE_REJECTED = 0x8054_0000
BAD_SECURITY_POLICY_REJECTED = 0x8055_0000
BAD_TOO_MANY_SESSIONS = 0x8056_0000
BAD_TYPE_MISMATCH = 0x8074_0000
BAD_CONFIGURATION = 0x8089_0000
BAD_NOT_CONNECTED = 0x808A_0000
BAD_DEVICE_FAILURE = 0x808B_0000
BAD_CONNECTION_REJECTED = 0x80AC_0000
BAD_CONNECTION_CLOSED = 0x80AE_0000
BAD_MAX_CONNECTIONS = 0x80B7_0000
UNCERTAIN = 0x4000_0000

STATUS_NAMES: dict[int, str] = {
    GOOD: "good",
    BAD: "bad",
    BAD_COMMUNICATION: "bad: communication error",
    BAD_TIMEOUT: "bad: no answer in time",
    BAD_CERTIFICATE_INVALID: "bad: certificate refused",
    BAD_SECURITY_CHECKS_FAILED: "bad: certificate refused",
    BAD_CERTIFICATE_TIME_INVALID: "bad: certificate out of date",
    BAD_CERTIFICATE_URI_INVALID: "bad: certificate refused",
    BAD_CERTIFICATE_UNTRUSTED: "bad: certificate refused",
    BAD_ACCESS_DENIED: "bad: access denied",
    BAD_IDENTITY_TOKEN_INVALID: "bad: user or password refused",
    BAD_IDENTITY_TOKEN_REJECTED: "bad: user or password refused",
    BAD_SESSION_INVALID: "bad: connection closed",
    BAD_NOT_READABLE: "bad: not readable",
    BAD_NOT_WRITABLE: "bad: not writable",
    BAD_OUT_OF_RANGE: "bad: out of range",
    BAD_NOT_SUPPORTED: "bad: not supported",
    BAD_NO_COMMUNICATION: "bad: device lost",
    BAD_WAITING: "bad: no value yet",
    BAD_NODE_UNKNOWN: "bad: no such address",
    BAD_SECURITY_MODE_REJECTED: "bad: security setting refused",
    BAD_SECURITY_POLICY_REJECTED: "bad: security setting refused",
    BAD_TOO_MANY_SESSIONS: "bad: no connection free",
    BAD_TYPE_MISMATCH: "bad: other type",
    BAD_CONFIGURATION: "bad: configuration",
    BAD_NOT_CONNECTED: "bad: not connected",
    BAD_DEVICE_FAILURE: "bad: device failure",
    BAD_CONNECTION_REJECTED: "bad: connection refused",
    BAD_CONNECTION_CLOSED: "bad: connection closed",
    BAD_MAX_CONNECTIONS: "bad: no connection free",
    UNCERTAIN: "uncertain",
}


def display(value: Value, unit: str = "", digits: int = 6) -> str:
    """A value with its unit as people read it: `12.5 L`, `true`, a text as it is."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = f"{value:.{digits}g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}" if unit else text


def is_good(status: int) -> bool:
    """Whether a value of this OPC UA StatusCode may be used: severity Good (OPC 10000-4, 7.39.1: bits 30 and 31)."""
    return status & 0xC000_0000 == 0


def status_name(status: int) -> str:
    """The StatusCode in words: `good`, `uncertain…`, or `bad: why`."""
    named = STATUS_NAMES.get(status & 0xFFFF_0000)
    if named is not None:
        return named
    severity = ("good", "uncertain", "bad", "bad")[status >> 30]
    return f"{severity}: 0x{status:08X}"


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One tag as the device gave it: raw value (None: there is none), StatusCode, source time (ns since 1970, UTC)."""

    value: Value | None
    status: int
    time_ns: int


class Scan(msgspec.Struct, frozen=True, gc=False):
    """What one scan of a device gave, in the order of its points: raw values (None: there is none) and StatusCodes.

    `times` are the source times (ns since 1970, UTC), None where all are `time_ns`, the newest. `changed` is False
    where values and statuses are sure to be those of the driver's last scan: then nobody needs to look at them.
    `heard_ns` is when the device last said that they hold (CLOCK_MONOTONIC), None: with this scan.
    """

    values: Sequence[Value | None]
    statuses: Sequence[int]
    time_ns: int
    changed: bool = True
    times: Sequence[int] | None = None
    heard_ns: int | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, point: int) -> Reading:
        time_ns = self.time_ns if self.times is None else self.times[point]
        return Reading(self.values[point], self.statuses[point], time_ns)

    def __iter__(self) -> Iterator[Reading]:
        return (self[point] for point in range(len(self.values)))


class DataType(msgspec.Struct, frozen=True):
    """An elementary data type (IEC 61131-3:2013, table 10).

    `code` is its `struct` letter (no byte order; empty for a string), `size` its bytes, `low` and `high` its range.
    """

    name: str
    kind: Literal["bool", "int", "float", "string"]
    code: str
    size: int
    low: float = 0
    high: float = 0


def _integer(name: str, code: str, size: int, *, signed: bool) -> DataType:
    bits = size * 8
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return DataType(name, "int", code, size, low, high)


_FLOAT32_MAX = (2 - 2**-23) * 2.0**127
_FLOAT64_MAX = (2 - 2**-52) * 2.0**1023

TYPES: dict[str, DataType] = {
    kind.name: kind
    for kind in (
        DataType("bool", "bool", "?", 1, 0, 1),
        _integer("int8", "b", 1, signed=True),
        _integer("int16", "h", 2, signed=True),
        _integer("int32", "i", 4, signed=True),
        _integer("int64", "q", 8, signed=True),
        _integer("uint8", "B", 1, signed=False),
        _integer("uint16", "H", 2, signed=False),
        _integer("uint32", "I", 4, signed=False),
        _integer("uint64", "Q", 8, signed=False),
        DataType("float32", "float", "f", 4, -_FLOAT32_MAX, _FLOAT32_MAX),
        DataType("float64", "float", "d", 8, -_FLOAT64_MAX, _FLOAT64_MAX),
    )
}

MAX_STRING = 254
_STRING = re.compile(r"string\[([0-9]{1,3})\]")


def parse_type(text: str) -> DataType:
    """`float32`, `string[16]`… -> its type. Raises ValueError with a message for a person."""
    if text in TYPES:
        return TYPES[text]
    match = _STRING.fullmatch(text)
    if match and 1 <= int(match[1]) <= MAX_STRING:
        return DataType(text, "string", "", int(match[1]))
    if match:
        raise ValueError(f"a string has 1 to {MAX_STRING} bytes, not {match[1]}")
    raise ValueError(f"no type `{text}`; the types are {', '.join(TYPES)} and string[n]")


class Scale(msgspec.Struct, frozen=True):
    """A linear scale: raw `raw_low`…`raw_high` is `low`…`high` in the tag's unit."""

    raw_low: float
    raw_high: float
    low: float
    high: float

    def from_raw(self, raw: float) -> float:
        return self.low + (raw - self.raw_low) * (self.high - self.low) / (self.raw_high - self.raw_low)

    def to_raw(self, value: float) -> float:
        return self.raw_low + (value - self.low) * (self.raw_high - self.raw_low) / (self.high - self.low)


def from_raw(raw: Value | None, scale: Scale | None) -> Value | None:
    """A device's raw value in the tag's unit; None for a float that is not finite (it is no value)."""
    if isinstance(raw, float) and not math.isfinite(raw):
        return None
    if scale is None or raw is None or isinstance(raw, bool | str):
        return raw
    return scale.from_raw(raw)


def to_raw(value: Value, kind: DataType, scale: Scale | None) -> Value:
    """A value in the tag's unit as the raw value of its type. Raises ValueError where the type cannot hold it."""
    if kind.kind == "bool":
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is not true or false")
        return value
    if kind.kind == "string":
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is not text")
        if len(value.encode()) > kind.size:
            raise ValueError(f"{value!r} is longer than {kind.name}")
        return value
    if isinstance(value, bool | str):
        raise ValueError(f"{value!r} is not a number")
    raw = scale.to_raw(value) if scale is not None else value
    if not math.isfinite(raw) or not kind.low <= raw <= kind.high:
        raise ValueError(f"{value!r} does not fit {kind.name}")
    return round(raw) if kind.kind == "int" else float(raw)
