"""Modbus: coalesced block reads, coalesced writes, refusals narrowed down to the points that are guilty."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, ClassVar

import msgspec

from drivers import modbus_codec as modbus
from drivers import modbus_identity
from drivers.blocks import Block, Runs, coalesce, unpacker
from drivers.driver import DeviceError, Node, Point
from drivers.link import shared
from drivers.modbus_address import BIT_AREAS, NAMES, READS, field, place
from drivers.modbus_codec import ClientCodec, Mismatch, Refused
from drivers.modbus_rtu import RtuCodec
from drivers.modbus_settings import ModbusSettings
from drivers.value import (
    BAD,
    BAD_DEVICE_FAILURE,
    BAD_NO_COMMUNICATION,
    BAD_NODE_UNKNOWN,
    BAD_NOT_SUPPORTED,
    BAD_NOT_WRITABLE,
    BAD_OUT_OF_RANGE,
    BAD_TIMEOUT,
    BAD_WAITING,
    GOOD,
    Scan,
    Value,
    to_raw,
)

RETRY_S = 5.0
"""How often what the device has refused is asked for again, one point at a time: its program may have changed."""

_BITS = [tuple(byte >> bit & 1 == 1 for bit in range(8)) for byte in range(256)]
_WRITES = {"coil": (modbus.WRITE_COIL, modbus.WRITE_COILS), "holding": (modbus.WRITE_REGISTER, modbus.WRITE_REGISTERS)}
_NARROWED = frozenset({modbus.ILLEGAL_ADDRESS, modbus.ILLEGAL_VALUE, modbus.FAILURE, modbus.NO_DATA})
"""Exceptions that one point of a block may cause, or its size: a smaller read may be answered."""

_NOT_THERE = "the device has no {place}; addresses count from 0: {numbered}"
_NUMBERED = {
    "coil": "00013 is coil:12",
    "discrete": "10013 is discrete:12",
    "input": "30013 is input:12",
    "holding": "40013 is holding:12",
}
_READ_REFUSALS = {
    modbus.NO_DATA: (BAD_NODE_UNKNOWN, _NOT_THERE),
    modbus.ILLEGAL_FUNCTION: (BAD_NOT_SUPPORTED, "the device has no {area}s at all; is it another area?"),
    modbus.ILLEGAL_ADDRESS: (BAD_NODE_UNKNOWN, _NOT_THERE),
    modbus.ILLEGAL_VALUE: (BAD_OUT_OF_RANGE, "the device does not give {place} in this size; compare its type"),
    modbus.FAILURE: (BAD_DEVICE_FAILURE, "the device failed while it read {place}; see its own diagnostics"),
    modbus.ACKNOWLEDGE: (BAD_WAITING, "the device is busy with a long command"),
    modbus.BUSY: (BAD_WAITING, "the device is busy with a long command"),
    modbus.PARITY: (BAD_DEVICE_FAILURE, "the device finds its memory damaged at {place}; it may need service"),
}
_LASTING = _NARROWED | {modbus.ILLEGAL_FUNCTION}
_WRITE_REFUSALS = {
    modbus.ILLEGAL_FUNCTION: BAD_NOT_SUPPORTED,
    modbus.ILLEGAL_ADDRESS: BAD_NOT_WRITABLE,
    modbus.ILLEGAL_VALUE: BAD_OUT_OF_RANGE,
    modbus.FAILURE: BAD_DEVICE_FAILURE,
    modbus.ACKNOWLEDGE: BAD_WAITING,
    modbus.BUSY: BAD_WAITING,
    modbus.PARITY: BAD_DEVICE_FAILURE,
}


class _Read(msgspec.Struct, frozen=True, gc=False):
    """One request, how its answer begins and how long that is, the points in it, and what takes their values out."""

    area: str
    request: bytes
    head: bytes
    length: int
    members: tuple[int, ...]
    unpack: Callable[[bytes], Sequence[Any]]
    run: slice | None
    """The place of the values among all, where they lie side by side there, too."""

    def put(self, data: bytes, values: list[Any]) -> None:
        """The values of an answer's data, each to its point's place."""
        if self.run is not None:
            values[self.run] = self.unpack(data)
            return
        for point, value in zip(self.members, self.unpack(data), strict=True):
            values[point] = value


class _Refusal(msgspec.Struct, frozen=True):
    status: int
    text: str


class ModbusDriver:
    """One Modbus device (drivers.driver.Driver). Devices of one host and port, or on one line, share a connection."""

    Settings: ClassVar[type[msgspec.Struct]] = ModbusSettings

    def __init__(self, settings: ModbusSettings, points: Sequence[Point], connections: dict[str, Any]) -> None:
        self.troubles: dict[str, str] = {}
        self._settings = settings
        self._points = list(points)
        self._places = [place(point) for point in points]
        self._link = shared(
            connections,
            settings.connection,
            settings.transport(),
            RtuCodec if settings.rtu else ClientCodec,
            timeout_s=settings.timeout,
            depth=settings.depth,
            delay_s=settings.silence_s,
        )
        self._ask = self._asked_on_line if settings.rtu else self._link.requests
        self._late_s = 0.0  # until then an answer may come that is no longer waited for, and is like the next one
        self._reads: list[_Read] = []
        self._requests: list[bytes] = []
        self._seen: list[bytes] = []  # the last answers, one a read; empty where all must be taken anew
        self._good = (GOOD,) * len(points)
        self._in_order = False  # whether the reads one after another bring every point in its order
        self._parts: list[Sequence[Any]] = []  # then: the values of each read
        self._last = Scan([None] * len(points), [BAD_WAITING] * len(points), 0)
        self._refused: dict[int, _Refusal] = {}
        self._fewest = 0
        self._partial = False  # whether it is read otherwise than planned, because of what was refused
        self._retry_s = 0.0
        self._alone: set[int] = set()  # points whose write was refused together with others
        self._without: set[int] = set()  # write functions that the device does not have
        self._plan()

    @staticmethod
    def check(point: Point) -> None:
        """Raises AddressError where the point's address, type, access or orders are not Modbus's."""
        place(point)

    async def connect(self) -> None:
        """Connects within the timeout, or raises DeviceError. A device that is new here is asked for everything."""
        self._link.join(self)
        if self._late_s > (now_s := time.monotonic()):
            await asyncio.sleep(self._late_s - now_s)
        if not self._link.up:
            await self._link.connect()
            self._alone.clear()
            self._without.clear()
            self._plan()

    async def browse(self) -> Sequence[Node]:
        """Nothing: a Modbus device cannot tell what its addresses are."""
        return ()

    async def identify(self) -> Mapping[str, str]:
        """Vendor, product, version: function 43/14, which many devices do not have. Not asked for in RTU frames."""
        found: dict[str, str] = {}
        first = 0
        for _ in modbus_identity.NAMES if not self._settings.rtu else ():
            payload = modbus_identity.request(self._settings.unit, first)
            (answer,) = await self._ask([payload], timeout_s=self._settings.timeout)
            texts, following = modbus_identity.parse(answer)
            found |= texts
            if following <= first:
                break
            first = following
        return found

    async def close(self) -> None:
        """Gives the connection up; it is closed with its last device. Never raises."""
        await self._link.leave(self)

    # Reading

    def _plan(self) -> None:
        """Every point in the fewest reads; forgets what was refused."""
        self._refused.clear()
        self._read_by([read for area in READS for read in self._reads_of(area, range(len(self._points)))])
        self._fewest = len(self._reads)

    def _read_by(self, reads: list[_Read]) -> None:
        """These are the reads of each scan from now on."""
        self._reads, self._requests, self._seen = reads, [read.request for read in reads], []
        self._in_order = [point for read in reads for point in read.members] == list(range(len(self._points)))
        self._parts = [()] * len(reads)

    def _reads_of(self, area: str, points: Iterable[int], gap: int | None = None) -> list[_Read]:
        limit = self._settings.max_bits if area in BIT_AREAS else self._settings.max_registers
        spans = self._spans(area, points)
        return [self._read(area, block) for block in coalesce(spans, limit, self._settings.gap if gap is None else gap)]

    def _spans(self, area: str, points: Iterable[int]) -> dict[int, tuple[int, int]]:
        places = ((point, self._places[point]) for point in points)
        return {point: (at.start, at.size) for point, at in places if at.area == area}

    def _read(self, area: str, block: Block) -> _Read:
        request = modbus.read_request(self._settings.unit, READS[area], block.start, block.size)
        places = [self._places[point] for point in block.members]
        if area in BIT_AREAS:
            unpack = _bits([at.start - block.start for at in places])
        else:
            points = [self._points[point] for point in block.members]
            unpack = unpacker([field(point, at, block.start) for point, at in zip(points, places, strict=True)])
        size = (block.size + 7) // 8 if area in BIT_AREAS else block.size * 2
        first, last = block.members[0], block.members[-1]
        run = slice(first, last + 1) if block.members == tuple(range(first, last + 1)) else None
        return _Read(area, request, request[:2] + bytes((size,)), 3 + size, block.members, unpack, run)

    async def scan(self) -> Scan:
        """Every point, raw; their time is when the scan began. Raises DeviceError when the device is lost."""
        began_ns = time.time_ns()
        if self._partial:
            await self._retry()
        try:
            answers = await self._ask(self._requests, timeout_s=self._settings.timeout)
            if answers == self._seen:
                return Scan(self._last.values, self._last.statuses, began_ns, changed=False)
            values, refused = self._taken(answers)
        except DeviceError:
            if not self._link.tried:
                raise
            await self.connect()
            return await self.scan()
        self._seen = [] if refused else answers  # a refused read is looked at in each scan
        if refused or self._partial:
            values = list(values)
            statuses = self._judged(values, await self._narrow(refused, values))
        else:
            statuses = self._good
            if self.troubles:
                self.troubles = {}
        self._last = Scan(values, statuses, began_ns)
        return self._last

    def _taken(self, answers: Sequence[bytes]) -> tuple[Sequence[Any], list[tuple[_Read, int]]]:
        """All values, and the reads that were refused; answers as in the last scan are not looked at."""
        parts, values = self._parts.copy(), None if self._in_order else list(self._last.values)
        refused: list[tuple[_Read, int]] = []
        asked = zip(self._reads, answers, self._seen or repeat(b""), strict=False)
        for number, (read, answer, before) in enumerate(asked):
            if answer == before:
                continue
            whole = len(answer) == read.length and answer[:3] == read.head
            data = answer[3:] if whole else self._data(read.request, answer)
            if isinstance(data, int):
                refused.append((read, data))
                parts[number] = (None,) * len(read.members)
            elif values is None:
                parts[number] = read.unpack(data)
            else:
                read.put(data, values)
        self._parts = parts
        if values is not None:
            return values, refused
        return parts[0] if len(parts) == 1 else Runs(parts), refused

    def _judged(self, values: list[Value | None], transient: dict[int, _Refusal]) -> Sequence[int]:
        """The points' statuses; what is refused has no value, and is spoken of."""
        self._partial = bool(self._refused) or len(self._reads) > self._fewest
        statuses, refused = [GOOD] * len(values), self._refused | transient
        for point, refusal in refused.items():
            values[point], statuses[point] = None, refusal.status
        self.troubles = {self._points[point].name: one.text for point, one in refused.items()}
        return statuses

    async def _asked_on_line(self, requests: Sequence[bytes], *, timeout_s: float, write: bool = False) -> list[bytes]:
        """As Link.requests, for frames without an identifier."""
        codec = self._link.codec
        assert isinstance(codec, RtuCodec)
        try:
            return await self._link.requests(requests, timeout_s=timeout_s, write=write)
        except DeviceError as error:
            if error.status != BAD_TIMEOUT:
                raise
            self._late_s = time.monotonic() + timeout_s
            text = f"unit {self._settings.unit} on {error.text}"
            hint = "is the device on, `unit` right, the line connected with A and B the right way round?"
            if noise := sum(codec.noise.get(request, 0) for request in requests):
                text = f"{text}; {noise} bytes came that are no answer to it"
                hint = "compare `baud`, `parity` and `stop_bits`; is the line terminated, and no number there twice?"
            raise DeviceError(text, hint, status=BAD_TIMEOUT) from error

    async def _answer(self, read: _Read) -> bytes | int:
        """The data of one read, or the exception code that refused it. Raises DeviceError."""
        answer = (await self._ask([read.request], timeout_s=self._settings.timeout))[0]
        return self._data(read.request, answer)

    def _data(self, request: bytes, answer: bytes) -> bytes | int:
        """The data of the answer, or the exception code. Raises DeviceError where it cannot be trusted."""
        try:
            return modbus.answer_data(request, answer)
        except Mismatch as mismatch:
            raise self._link.give_up(
                f"{self._link.place} does not answer what it was asked: {mismatch}",
                "is `unit` right? where a gateway is between, it may mix up late answers: give a longer `timeout`",
            ) from mismatch
        except Refused as refused:
            if refused.code not in (modbus.NO_PATH, modbus.NO_TARGET):
                return refused.code
            raise DeviceError(
                f"the gateway {self._link.place} does not reach unit {self._settings.unit}",
                "is `unit` right, the device on, and the line between gateway and device in order?",
                status=BAD_NO_COMMUNICATION,
            ) from refused

    async def _narrow(self, refused: Sequence[tuple[_Read, int]], values: list[Any]) -> dict[int, _Refusal]:
        """Finds out what of refused reads the device does give, and plans the next scans so.

        Gives the points that it does not give this time alone.
        """
        transient: dict[int, _Refusal] = {}
        for read, code in refused:
            self._retry_s = time.monotonic() + RETRY_S
            parts = await self._split(read, code, transient)
            good = [point for point in read.members if point not in self._refused]
            reads = self._reads_of(read.area, good, 0) if len(good) < len(read.members) else [part for part, _ in parts]
            self._read_by([new for old in self._reads for new in (reads if old is read else [old])])
            for part, data in parts:
                if data is not None:
                    part.put(data, values)
        return transient

    async def _split(self, read: _Read, code: int, transient: dict[int, _Refusal]) -> list[tuple[_Read, bytes | None]]:
        """Asks for ever smaller parts: those answered, with their data, and (None) those that may be another time."""
        if code not in _LASTING:
            transient.update({point: self._refusal(point, code) for point in read.members})
            return [(read, None)]
        if len(read.members) == 1 or code not in _NARROWED:
            self._refused.update({point: self._refusal(point, code) for point in read.members})
            return []
        parts = self._reads_of(read.area, read.members, 0)  # first without what lies between the points
        if len(parts) == 1:
            middle = len(read.members) // 2
            halves = read.members[:middle], read.members[middle:]
            parts = [part for half in halves for part in self._reads_of(read.area, half, 0)]
        found: list[tuple[_Read, bytes | None]] = []
        for part in parts:
            answer = await self._answer(part)
            found += [(part, answer)] if isinstance(answer, bytes) else await self._split(part, answer, transient)
        return found

    def _refusal(self, point: int, code: int) -> _Refusal:
        at = self._places[point]
        status, text = _READ_REFUSALS.get(code, (BAD, "the device refuses {place}; see its manual"))
        return _Refusal(
            status, f"{text.format(place=at, area=NAMES[at.area], numbered=_NUMBERED[at.area])} (exception {code})"
        )

    async def _retry(self) -> None:
        """Now and then asks for a refused point, each time the next; where it is given, for everything as at first."""
        now_s = time.monotonic()
        if now_s < self._retry_s:
            return
        self._retry_s = now_s + RETRY_S
        if not self._refused:
            self._plan()
            return
        point = next(iter(self._refused))
        self._refused[point] = self._refused.pop(point)
        (read,) = self._reads_of(self._places[point].area, [point], 0)
        if isinstance(await self._answer(read), bytes):
            self._plan()

    # Writing

    async def write(self, values: Mapping[int, Value]) -> Mapping[int, int]:
        """Writes raw values {point: value}, neighbours together; {point: StatusCode}, good where it was confirmed.

        Nothing is sent twice. Raises DeviceError when the device is lost: then nothing is known of any of them.
        """
        statuses: dict[int, int] = {}
        raw: dict[int, Value] = {}
        for index, value in values.items():
            point = self._points[index]
            try:
                raw[index] = to_raw(value, point.type, None)
            except ValueError:
                statuses[index] = BAD_OUT_OF_RANGE
            if not point.writable:
                statuses[index] = BAD_NOT_WRITABLE
        for area in _WRITES:
            for block in self._runs(area, [index for index in raw if index not in statuses]):
                statuses.update(await self._write(area, block, raw))
        return statuses

    def _runs(self, area: str, points: Iterable[int]) -> list[Block]:
        """Neighbours in one block, but for those that the device takes only alone."""
        bits = area in BIT_AREAS
        limit = (
            min(self._settings.max_bits, modbus.MAX_WRITE_BITS)
            if bits
            else min(self._settings.max_registers, modbus.MAX_WRITE_REGISTERS)
        )
        spans = self._spans(area, points)
        apart = spans if _WRITES[area][1] in self._without else self._alone & spans.keys()
        together = {point: span for point, span in spans.items() if point not in apart}
        return coalesce(together, limit) + [
            block for point in apart for block in coalesce({point: spans[point]}, limit)
        ]

    async def _write(self, area: str, block: Block, raw: Mapping[int, Value]) -> dict[int, int]:
        single, multiple = _WRITES[area]
        function = single if block.size == 1 and single not in self._without else multiple
        data = self._laid(area, block, raw)
        request = modbus.write_request(self._settings.unit, function, block.start, block.size, data)
        (answer,) = await self._ask([request], timeout_s=self._settings.timeout, write=True)
        confirmed = self._data(request, answer)
        if isinstance(confirmed, int):
            if confirmed == modbus.ILLEGAL_FUNCTION:
                self._without.add(function)
            if len(block.members) > 1:
                self._alone.update(block.members)
            status = _WRITE_REFUSALS.get(confirmed, BAD)
            return {
                point: BAD_NODE_UNKNOWN if status == BAD_NOT_WRITABLE and point in self._refused else status
                for point in block.members
            }
        return dict.fromkeys(block.members, GOOD if confirmed == request[4:6] else BAD_OUT_OF_RANGE)

    def _laid(self, area: str, block: Block, raw: Mapping[int, Value]) -> bytes:
        """The data of a write: the block's values as they lie in registers, or as bits."""
        if area in BIT_AREAS:
            bits = sum(1 << self._places[point].start - block.start for point in block.members if raw[point])
            return bits.to_bytes((block.size + 7) // 8, "little")
        data = bytearray(block.size * 2)
        for point in block.members:
            field(self._points[point], self._places[point], block.start, whole=True).put(data, raw[point])
        return bytes(data)


def _bits(offsets: Sequence[int]) -> Callable[[bytes], list[bool]]:
    """What takes bits out of an answer's data (Application Protocol, 6.1: the first in the lowest place)."""

    def unpack(data: bytes) -> list[bool]:
        bits = list(chain.from_iterable(map(_BITS.__getitem__, data)))
        return [bits[offset] for offset in offsets]

    return unpack
