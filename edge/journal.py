"""The journal: all that the loop took in and gave out, cycle by cycle, in bounded append-only files for replay.

A segment `NNNNNNNN.journal` is a magic number and blocks: length and CRC-32 of what follows (uint32, little-endian),
then zlib. The first block is msgpack of a Header, the others are packets, each with its length before it: RECORD
(`image.py`) for a cycle, and Snapshot for a keyframe, the engine's state after a cycle, from which a replay can start.
Idle cycles send nothing, and frames that say "unchanged" pack to a few bytes.
"""

import errno
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Literal

import msgspec
from msgspec.structs import replace

from edge import __version__
from edge.image import skipped_before, unpack_record
from edge.language.program import Plan
from edge.messages import MESSAGE, Hello, Snapshot, pack, unpack_outward
from edge.record import explain

DIRECTORY = "journal"
"""The journal's name in the state directory."""

FORMAT = 2
"""1 kept the hash of the plan in place of its texts, and neither keyframes nor what an overrun skipped."""

SEGMENT_BYTES = 4 << 20
TOTAL_BYTES = 256 << 20
FLUSH_S = 1.0

_GAP = pack(Hello("gap"))
_BLOCK_BYTES = 64 << 10
_MAGIC = b"edgejrnl"
_FRAME = struct.Struct("<II")
_LENGTH = struct.Struct("<I")

log = logging.getLogger(__name__)


class RecipeText(msgspec.Struct, frozen=True):
    """A version of a recipe that the loop had when it began: in force, or run by a batch that had not ended."""

    name: str
    hash: str
    text: str
    in_force: bool


class Header(msgspec.Struct, frozen=True):
    """Of a segment. `run` is the life of the loop, `time_ns` when it was begun (both since 1970, UTC), `edge` the
    version that wrote it, `text` that of the cell file.

    `after` is what its first record comes after: the start of the run, the segment before it, or a gap.
    """

    format: int
    run: int
    scan_ns: int
    cell: str
    edge: str = ""
    text: str = ""
    recipes: tuple[RecipeText, ...] = ()
    time_ns: int = 0
    after: Literal["start", "segment", "gap"] = "start"


class Cycle(msgspec.Struct, frozen=True):
    """What happened in one cycle: the packets that the loop drained, the frames that it sent, its packed events.

    An overrun had skipped `skipped` cycles right before it; others that are not here were run, and were idle.
    """

    cycle: int
    inputs: list[bytes]
    outputs: list[bytes]
    events: bytes
    skipped: int = 0


class Keyframe(msgspec.Struct, frozen=True):
    """The engine's whole state (msgpack of `batch.State`) after a cycle."""

    cycle: int
    state: bytes


class Gap(msgspec.Struct, frozen=True):
    """Something is missing here; `text` says why."""

    text: str


def header_of(plan: Plan, run: int) -> Header:
    """The header of a run with this plan."""
    texts = [RecipeText(one.name, one.hash, one.text, True) for one in plan.recipes.values()]
    texts += [RecipeText(one.name, one.hash, one.text, False) for one in plan.others.values()]
    return Header(FORMAT, run, plan.cell.scan_ns, plan.cell.name, __version__, plan.text, tuple(texts))


# --- writing ---------------------------------------------------------------------------------------------------------


class Journal:
    """Writes the journal of one run of the loop. A disk that does not take it costs records, never an exception.

    Records are gathered for at most FLUSH_S and written as one compressed block: a kill loses at most those, and a card
    is written to once a second. `deleted` counts the segments that gave way, `lost` the records that could not be kept;
    `begun`: a segment has begun, and no keyframe was asked for since.
    """

    def __init__(
        self, state_dir: Path, header: Header, *, total_bytes: int = TOTAL_BYTES, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.directory = state_dir / DIRECTORY
        self.total_bytes = total_bytes
        self.segment_bytes = segment_bytes
        self.deleted = 0
        self.lost = 0
        self.begun = False
        self._header = header
        self._lock = Lock()
        self._trouble = ""
        self._file = -1
        self._size = 0
        self._number = 0
        self._records: list[bytes] = []
        self._bytes = 0
        self._since = 0.0
        if any(found is not None and found.run == header.run for found in map(_read_header, _segments(self.directory))):
            self._header = replace(header, after="gap")

    @property
    def due_s(self) -> float | None:
        """How long until `flush` is due; None when there is nothing to be written."""
        return max(0.0, self._since + FLUSH_S - time.monotonic()) if self._records else None

    def begin(self) -> None:
        """Makes a segment before the first record is taken: what a kill loses from now on shows as a gap."""
        self._put(b"")

    def add(self, packet: bytes) -> None:
        """Keeps one packet."""
        if not self._records:
            self._since = time.monotonic()
        self._records += (_LENGTH.pack(len(packet)), packet)
        self._bytes += len(packet)
        if self._bytes >= _BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what has been gathered."""
        if self._records:
            self._put(_block(b"".join(self._records)))
            self._records.clear()
            self._bytes = 0

    def close(self) -> None:
        self.flush()
        self._close()

    def give_way(self) -> None:
        """Deletes the oldest closed segment: the disk is full, and the batch record comes first. From any thread."""
        with self._lock:
            for segment in _segments(self.directory)[:-1][:1]:
                self._delete(segment)

    def _put(self, data: bytes) -> None:
        try:
            if self._file < 0:
                self._begin(data)
            else:
                _write(self._file, data)
                self._size += len(data)
        except OSError as error:
            self._give_up(error)
            return
        if self._trouble:
            log.warning("The journal is kept again; %d records of it are missing.", self.lost)
            self._trouble = ""
        if self._size >= self.segment_bytes:
            self._close()

    def _begin(self, data: bytes) -> None:
        """A new segment; it comes to be with its first records, or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        segments = self._bound()
        number = max(self._number, int(segments[-1].stem) if segments else 0) + 1
        data = _MAGIC + _block(msgspec.msgpack.encode(replace(self._header, time_ns=time.time_ns()))) + data
        path = self.directory / f"{number:08}.journal"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            _write(file, data)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        self._file, self._size, self._number, self.begun = file, len(data), number, True
        self._header = replace(self._header, after="segment")

    def _bound(self) -> list[Path]:
        """The segments that stay when one more is to have room."""
        with self._lock:
            segments = _segments(self.directory)
            sizes = [segment.stat().st_size for segment in segments]
            while segments and sum(sizes) > self.total_bytes - self.segment_bytes:
                sizes.pop(0)
                self._delete(segments.pop(0))
        return segments

    def _delete(self, segment: Path) -> None:
        segment.unlink(missing_ok=True)
        self.deleted += 1
        log.info("The journal's oldest segment %s was deleted to make room (%d so far).", segment.name, self.deleted)

    def _give_up(self, error: OSError) -> None:
        """What was to be written is lost; the next try makes a new segment, which says that it comes after a gap."""
        self.lost += len(self._records) // 2
        self._header = replace(self._header, after="gap")
        if self._file >= 0:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
        self._close()
        text = explain(error, self.directory / "journal")
        if text != self._trouble:
            log.error("The journal is not kept: %s. Batches run on; this time cannot be replayed.", text)
            self._trouble = text
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.give_way()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size = -1, 0


def _block(data: bytes) -> bytes:
    packed = zlib.compress(data, 1)
    return _FRAME.pack(len(packed), zlib.crc32(packed)) + packed


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _segments(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*.journal") if path.stem.isdecimal())


# --- reading ---------------------------------------------------------------------------------------------------------


def read_journal(state_dir: Path) -> Iterator[Header | Cycle | Keyframe | Gap]:
    """The journal from its oldest record on, also while it is written: a Header where a run of the loop begins, then
    its cycles and keyframes, with a Gap wherever some may be missing (a kill, a full disk, an overflow, a deleted
    segment).

    A RECORD packet with nothing but the loop's Hello("gap") among its inputs says that the socket to here overflowed.
    """
    run: int | None = None
    number = 0
    for path in _segments(state_dir / DIRECTORY):
        header = _read_header(path)
        if header is None:
            yield Gap(_unread(path))
            continue
        if int(path.stem) != number + 1:
            yield Gap(f"the segments before {path.name} are no longer there")
        number = int(path.stem)
        if header.run != run:
            yield header
            run = header.run
        if header.after == "gap":
            yield Gap("the recorder was interrupted, or its disk took nothing")
        yield from _read_cycles(path)


def _read_header(path: Path) -> Header | None:
    """None where it is none of this format."""
    with suppress(OSError, msgspec.DecodeError):
        block = _first_block(path)
        if block and msgspec.msgpack.decode(block, type=_Format).format == FORMAT:
            return msgspec.msgpack.decode(block, type=Header)
    return None


class _Format(msgspec.Struct, frozen=True):
    """What the headers of all formats have."""

    format: int
    edge: str = ""


def _first_block(path: Path) -> bytes | None:
    with path.open("rb") as file:
        return next(_blocks(file), None)


def _unread(path: Path) -> str:
    """Why a segment cannot be read."""
    found = None
    with suppress(OSError, msgspec.DecodeError):
        block = _first_block(path)
        found = msgspec.msgpack.decode(block, type=_Format) if block else None
    if found is None or found.format == FORMAT:
        return f"segment {path.name} cannot be read"
    age, by = ("an earlier" if found.format < FORMAT else "a newer"), f" ({found.edge})" if found.edge else ""
    wrote = f"segment {path.name} was written by {age} edge{by}, in format {found.format} of the journal"
    return f"{wrote}; this edge reads format {FORMAT}: replay it with that edge"


def _read_cycles(path: Path) -> Iterator[Cycle | Keyframe | Gap]:
    with suppress(FileNotFoundError), path.open("rb") as file:
        blocks = _blocks(file)
        next(blocks)
        for block in blocks:
            if block is None:
                yield Gap(f"{path.name} ends in the middle of a record")
            else:
                yield from map(_item, _packets(block))


def _blocks(file: BinaryIO) -> Iterator[bytes | None]:
    """What the blocks hold; None at the end where the file stops in the middle of one, or is no journal."""
    if file.read(len(_MAGIC)) != _MAGIC:
        yield None
        return
    while frame := file.read(_FRAME.size):
        size, check = _FRAME.unpack(frame) if len(frame) == _FRAME.size else (0, 0)
        packed = file.read(size)
        # A file that a power cut left with zeros at its end must not read as empty blocks: their CRC-32 is 0 too.
        if not size or len(packed) < size or zlib.crc32(packed) != check:
            yield None
            return
        yield zlib.decompress(packed)


def _packets(block: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(block):
        (length,) = _LENGTH.unpack_from(block, offset)
        offset += _LENGTH.size
        yield block[offset : offset + length]
        offset += length


def _item(packet: bytes) -> Cycle | Keyframe | Gap:
    try:
        if packet[0] == MESSAGE:
            snapshot = unpack_outward(packet)
            return Keyframe(snapshot.cycle, snapshot.state) if isinstance(snapshot, Snapshot) else _UNREAD
        cycle, inputs, outputs, events = unpack_record(packet)
    except (struct.error, msgspec.DecodeError):
        return _UNREAD
    if inputs == [_GAP] and not outputs and not events:
        return Gap(f"the loop could not hand over every record before cycle {cycle}")
    return Cycle(cycle, inputs, outputs, events, skipped_before(packet))


_UNREAD = Gap("a record that the loop sent cannot be read")
