"""The process image's frames (IEC 61131-3: process image), struct-packed: one device, one struct.

An input frame brings a device's values to the loop, an output frame its desired levels to the device; a tick says that
the loop is alive, and when its cycles are due; a record is all that the loop took in and gave out in one cycle. Values
are in the tags' units.
"""

import struct
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from drivers.blocks import Runs, runs
from drivers.value import GOOD, Value, is_good
from edge.language.cell import Cell, Device, Tag

INPUT, OUTPUT, TICK, RECORD = 1, 2, 3, 4

MOST_SKIPPED = 0xFFFF

_MACHINE: tuple[type[Any], ...] = (array, Runs)
_STATUSES, _TIMES, _UNCHANGED = 1, 2, 4
_CAUSED = 1
_START = struct.Struct("<BBH")
_HEADER = struct.Struct("<BBHIqq")
_ARRIVAL = struct.Struct("<BBHxxxxqxxxxxxxx")
_OUTPUT_HEADER = struct.Struct("<BBHIQ")
_CAUSE = struct.Struct("<BBHI")
_TICK = struct.Struct("<BxxxxxxxQq")
_RECORD = struct.Struct("<BxHHHQ")
_LENGTH = struct.Struct("<I")


def _letter(tag: Tag) -> str:
    if tag.type.kind == "string":
        return f"{tag.type.size}s"
    if tag.type.kind == "float" or tag.scale is not None:
        return "d"
    if tag.type.kind == "bool":
        return "?"
    return "Q" if tag.type.name == "uint64" else "q"


def _own_letter(tag: Tag) -> str:
    """A value that was read, unless it is scaled, is as large as its type."""
    return _letter(tag) if tag.scale is not None or tag.type.kind == "string" else tag.type.code


def _blank(tag: Tag) -> Value:
    if tag.type.kind == "string":
        return ""
    return False if tag.type.kind == "bool" else 0


class Fields:
    """Packs and unpacks the values of some tags in their order: one struct for all; text is UTF-8, zero-padded."""

    def __init__(self, tags: Sequence[Tag], *, as_read: bool = False) -> None:
        letters = [_own_letter(tag) if as_read else _letter(tag) for tag in tags]
        self.struct = struct.Struct("<" + "".join(letters))
        self.letters = "" if sys.byteorder == "big" else "".join(letters)
        self.blanks = [_blank(tag) for tag in tags]
        self.texts = [place for place, tag in enumerate(tags) if tag.type.kind == "string"]

    def pack(self, values: Sequence[Value | None]) -> bytes:
        """None is packed as the type's zero: its status says that it is no value."""
        if not self.texts:
            try:
                return self._joined(values) if isinstance(values, _MACHINE) else self.struct.pack(*values)
            except struct.error:  # there is a None
                pass
        plain: list[Value | bytes] = [
            blank if value is None else value for value, blank in zip(values, self.blanks, strict=True)
        ]
        for place in self.texts:
            plain[place] = str(plain[place]).encode()
        return self.struct.pack(*plain)

    def _joined(self, values: Sequence[Any]) -> bytes:
        """Machine numbers that are as the frame has them are copied, not looked at."""
        packed, at = b"", 0
        for part in runs(values):
            end = at + len(part)
            letters = self.letters[at:end]
            if isinstance(part, array) and letters == part.typecode * len(part):
                packed += part.tobytes()
            else:
                packed += struct.pack(f"<{letters}", *part)
            at = end
        return packed

    def unpack(self, frame: bytes, offset: int) -> Sequence[Value]:
        values = self.struct.unpack_from(frame, offset)
        if not self.texts:
            return values
        decoded = list(values)
        for place in self.texts:
            decoded[place] = values[place].rstrip(b"\x00").decode(errors="replace")
        return decoded


class Layout:
    """The frames of one device. `tags` are all its tags in the cell's order, `outputs` those that can be written."""

    def __init__(self, cell: Cell, device: Device) -> None:
        tags = [cell.tags[index] for index in device.tags]
        self.device = device.index
        self.first = device.tags[0] if device.tags else 0
        self.end = self.first + len(tags)
        if device.tags != tuple(range(self.first, self.end)):
            raise ValueError(f"the tags of {device.name} do not follow one another")
        self.inputs = Fields(tags, as_read=True)
        self.outputs = tuple(tag.index for tag in tags if tag.writable)
        self.levels = Fields([cell.tags[index] for index in self.outputs])
        self.statuses = struct.Struct(f"<{len(tags)}I")
        self.times = struct.Struct(f"<{len(tags)}q")
        self.good = (GOOD,) * len(tags)

    def pack_input(
        self,
        scan: int,
        received_ns: int,
        time_ns: int,
        values: Sequence[Value | None],
        statuses: Sequence[int] | None = None,
        times: Sequence[int] | None = None,
    ) -> bytes:
        """An input frame. `received_ns` is CLOCK_MONOTONIC, `time_ns` the source time in ns since 1970.

        `statuses` None: all are good; `times` None: `time_ns` is that of every value.
        """
        return self.with_body(scan, received_ns, time_ns, self.pack_body(values, statuses, times))

    def pack_body(
        self, values: Sequence[Value | None], statuses: Sequence[int] | None, times: Sequence[int] | None
    ) -> tuple[int, bytes]:
        """The part of an input frame that stays the same while nothing changes: its flags, and all after its header."""
        flags, body = 0, self.inputs.pack(values)
        if times is not None:
            flags, body = _TIMES, self.times.pack(*times) + body
        if statuses is not None:
            flags, body = flags | _STATUSES, self.statuses.pack(*statuses) + body
        return flags, body

    def with_body(self, scan: int, received_ns: int, time_ns: int, packed: tuple[int, bytes]) -> bytes:
        """An input frame of what `pack_body` gave."""
        flags, body = packed
        return _HEADER.pack(INPUT, flags, self.device, scan & 0xFFFF_FFFF, received_ns, time_ns) + body

    def pack_unchanged(self, scan: int, received_ns: int, time_ns: int) -> bytes:
        """An input frame that says: read again, nothing has changed."""
        return _HEADER.pack(INPUT, _UNCHANGED, self.device, scan & 0xFFFF_FFFF, received_ns, time_ns)

    def unpack_input(self, frame: bytes) -> "Input":
        """Raises struct.error for a frame that is not of this device's shape."""
        _, flags, _, scan, received_ns, time_ns = _HEADER.unpack_from(frame)
        if flags & _UNCHANGED:
            return Input(scan, received_ns, time_ns, None, None, None)
        offset = _HEADER.size
        statuses = times = None
        if flags & _STATUSES:
            statuses = self.statuses.unpack_from(frame, offset)
            offset += self.statuses.size
        if flags & _TIMES:
            times = self.times.unpack_from(frame, offset)
            offset += self.times.size
        return Input(scan, received_ns, time_ns, self.inputs.unpack(frame, offset), statuses, times)

    def latch(self, frame: bytes, values: list[Value | None], statuses: list[int]) -> bool:
        """Takes an input frame into the image: values (None where not good) and statuses of the cell's tags.

        False where the frame says that nothing has changed. Raises struct.error for one that is not of this shape.
        """
        flags = _HEADER.unpack_from(frame)[1]
        if flags & _UNCHANGED:
            return False
        offset = _HEADER.size
        codes: Sequence[int] = self.good
        if flags & _STATUSES:
            codes = self.statuses.unpack_from(frame, offset)
            offset += self.statuses.size
        if flags & _TIMES:
            offset += self.times.size
        new: Sequence[Value | None] = self.inputs.unpack(frame, offset)
        if codes is not self.good:
            new = [value if is_good(code) else None for value, code in zip(new, codes, strict=True)]
        values[self.first : self.end] = new
        statuses[self.first : self.end] = codes
        return True

    def pack_output(self, cycle: int, levels: Sequence[Value | None]) -> bytes:
        """An output frame: the desired level of each of `outputs`, in their order."""
        return _OUTPUT_HEADER.pack(OUTPUT, 0, self.device, 0, cycle) + self.levels.pack(levels)

    def unpack_output(self, frame: bytes) -> tuple[int, Sequence[Value]]:
        """(cycle, levels of `outputs`)."""
        return _OUTPUT_HEADER.unpack_from(frame)[4], self.levels.unpack(frame, _OUTPUT_HEADER.size)


class Input:
    """An input frame, taken apart; `values` None: unchanged since the last one."""

    __slots__ = ("received_ns", "scan", "statuses", "time_ns", "times", "values")

    def __init__(
        self,
        scan: int,
        received_ns: int,
        time_ns: int,
        values: Sequence[Value] | None,
        statuses: Sequence[int] | None,
        times: Sequence[int] | None,
    ) -> None:
        self.scan = scan
        self.received_ns = received_ns
        self.time_ns = time_ns
        self.values = values
        self.statuses = statuses
        self.times = times


def layouts(cell: Cell) -> tuple[Layout, ...]:
    """The layout of each device, by its index."""
    return tuple(Layout(cell, device) for device in cell.devices)


def device_of(frame: bytes) -> int:
    """The device that an input or output frame is of. Raises struct.error for a frame that is too short to say."""
    return _START.unpack_from(frame)[2]


def arrival(frame: bytes) -> tuple[int, bool, int]:
    """(device, whether it brings values, CLOCK_MONOTONIC when they came) of an input frame.

    Raises struct.error for one that is too short to say.
    """
    _, flags, device, received_ns = _ARRIVAL.unpack_from(frame)
    return device, not flags & _UNCHANGED, received_ns


def caused(frame: bytes, arrived_ns: int) -> bytes:
    """An output frame that says when the inputs had arrived that changed in its cycle: for the figures alone.

    In µs of CLOCK_MONOTONIC, of which the lower 32 bits say enough for an hour.
    """
    kind, flags, device, _ = _CAUSE.unpack_from(frame)
    return _CAUSE.pack(kind, flags | _CAUSED, device, arrived_ns // 1000 & 0xFFFF_FFFF) + frame[_CAUSE.size :]


def since_cause(frame: bytes, now_ns: int) -> int | None:
    """How long ago, in ns, the inputs arrived that an output frame was `caused` by; None where it does not say."""
    _, flags, _, arrived_us = _CAUSE.unpack_from(frame)
    return (now_ns // 1000 - arrived_us & 0xFFFF_FFFF) * 1000 if flags & _CAUSED else None


def pack_tick(cycle: int, due_ns: int) -> bytes:
    """To a fieldbus process: the loop has run this cycle, which was due then (CLOCK_MONOTONIC)."""
    return _TICK.pack(TICK, cycle, due_ns)


def unpack_tick(frame: bytes) -> tuple[int, int]:
    """(cycle, when it was due)."""
    _, cycle, due_ns = _TICK.unpack(frame)
    return cycle, due_ns


def pack_record(
    cycle: int, inputs: Sequence[bytes], outputs: Sequence[bytes], events: bytes, skipped: int = 0
) -> bytes:
    """One cycle: the packets that it drained, the output frames that it made, its packed events, how many cycles right
    before it an overrun had skipped.
    """
    parts = [_RECORD.pack(RECORD, len(inputs), len(outputs), min(skipped, MOST_SKIPPED), cycle)]
    for frame in (*inputs, *outputs):
        parts += (_LENGTH.pack(len(frame)), frame)
    parts.append(events)
    return b"".join(parts)


def unpack_record(packet: bytes) -> tuple[int, list[bytes], list[bytes], bytes]:
    """(cycle, inputs, outputs, events). Raises struct.error for bytes that are none."""
    _, inputs, outputs, _, cycle = _RECORD.unpack_from(packet)
    offset = _RECORD.size
    frames: list[bytes] = []
    for _ in range(inputs + outputs):
        (length,) = _LENGTH.unpack_from(packet, offset)
        offset += _LENGTH.size
        frames.append(packet[offset : offset + length])
        offset += length
    return cycle, frames[:inputs], frames[inputs:], packet[offset:]


def skipped_before(packet: bytes) -> int:
    """How many cycles right before that of a RECORD packet were not run; MOST_SKIPPED: so many or more."""
    return _RECORD.unpack_from(packet)[3]
