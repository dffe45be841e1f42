"""Siemens S7 PLCs by S7 communication over ISO-on-TCP: S7-300, 400, 1200, 1500 and what speaks as they do.

Cyclic reads and writes go through our own codec. python-snap7 makes and reads the rare messages of `browse`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Meta

from drivers import s7_codec as s7
from drivers.blocks import Runs
from drivers.driver import DeviceError, Node, Point
from drivers.link import FramingError, Link, shared
from drivers.s7_address import NoString, decode_string, encode, place
from drivers.s7_codec import Area, ClientCodec, JobRefused
from drivers.s7_jobs import Item, ReadJob, largest_read, largest_write, read_jobs, side_by_side, write_jobs
from drivers.transport import Tcp
from drivers.value import (
    BAD,
    BAD_CONFIGURATION,
    BAD_DEVICE_FAILURE,
    BAD_NODE_UNKNOWN,
    BAD_NOT_READABLE,
    BAD_NOT_SUPPORTED,
    BAD_NOT_WRITABLE,
    BAD_OUT_OF_RANGE,
    BAD_TYPE_MISMATCH,
    BAD_WAITING,
    GOOD,
    Scan,
    Value,
)

RETRY_S = 30.0
"""After so long a point that the PLC refused is asked for again: its block may have been downloaded meanwhile."""
SMALLEST_PDU = 112
"""Bytes of the smallest message that an S7 PLC grants."""
MOST_JOBS = 8
"""The most jobs at a time that is asked for: no S7 PLC grants more."""
MAX_BROWSE_ANSWERS = 100
_DATA_BLOCKS, _IDENTIFICATION = 0x41, 0x001C
_PARTS = {1: "station", 2: "name", 3: "plant", 4: "vendor", 5: "serial number", 7: "product"}
"""The records of a component identification by their indices."""

_PUT_GET = (
    "in TIA Portal permit access with PUT/GET communication (properties of the CPU, Protection & Security, "
    "Connection mechanisms) and download the hardware"
)
_OPTIMIZED = "in TIA Portal switch off `Optimized block access` of {room} (Properties, Attributes) and download it"
_ELSEWHERE = "compare it with the addresses in the PLC's hardware configuration"
_JOB_ERRORS = {
    0x8104: ("does not let edge read or write", _PUT_GET),
    0x8500: ("finds a request too long", "give the device a smaller `pdu`, for instance 240"),
    0xD602: ("wants a password", _PUT_GET),
}
_ITEM_ERRORS = {
    0x01: (BAD_DEVICE_FAILURE, "the hardware there does not answer", "look into the PLC's diagnostic buffer"),
    s7.NO_ACCESS: (BAD_NOT_READABLE, "the PLC does not permit access", f"{_PUT_GET}; or {_OPTIMIZED}"),
    s7.OUT_OF_RANGE: (
        BAD_OUT_OF_RANGE,
        "this lies outside of {room}",
        f"is it what the column `Offset` says? otherwise {_OPTIMIZED}",
    ),
    s7.WRONG_TYPE: (BAD_TYPE_MISMATCH, "the PLC does not support this type here", "check the address"),
    0x07: (BAD_TYPE_MISMATCH, "the PLC has another type here", "check the address"),
    s7.NO_OBJECT: (
        BAD_NODE_UNKNOWN,
        "the PLC does not know {room}",
        f"is the number right, and the block downloaded? otherwise {_OPTIMIZED}",
    ),
}
_OTHER_ERROR = (BAD, "the PLC refuses it (return code 0x{code:02X})", "look into the PLC's diagnostic buffer")
_ALIVE = s7.read_request([Area(s7.MEMORY, 0, 0, 1)])  # asked where the PLC gives no point, so that its loss is seen
_WHOLE_AREA = (s7.NO_ACCESS, s7.NO_OBJECT)

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An S7 device of a cell file: `timeout` in s; `pdu`, the bytes of a message to ask for (the PLC may grant less).

    `gap`: the unused bytes that a read may bridge. `depth`: the jobs that may be on their way at a time, if the PLC
    grants as many; `auto` finds out how many it stands. `delay`: the least time from an answer to the next job, in s.
    """

    host: Annotated[str, Meta(description="Its address.", examples=["192.168.10.11"])]
    port: Annotated[int, Meta(ge=1, le=65535, description="Its TCP port.")] = 102
    rack: Annotated[int, Meta(ge=0, le=7, description="The CPU's rack.")] = 0
    slot: Annotated[
        int, Meta(ge=0, le=31, description="The CPU's slot: 1 of an S7-1200 or 1500, 2 of an S7-300.", examples=[1, 2])
    ] = 1
    timeout: Annotated[
        float, Meta(ge=0.01, le=60, description="How long to wait for an answer, in s.", extra={"unit": "s"})
    ] = 1.0
    pdu: Annotated[int, Meta(ge=240, le=960, description="Bytes of a message to ask for; the PLC may grant less.")] = (
        480
    )
    gap: Annotated[int, Meta(ge=0, le=200, description="Bytes that no tag needs, and that may be read along.")] = 0
    depth: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_JOBS)] | Literal["auto"],
        Meta(description="Jobs that may be on their way at a time; auto finds out how many."),
    ] = 1
    delay: Annotated[
        float,
        Meta(ge=0, le=10, description="Least time between an answer and the next job, in s.", extra={"unit": "s"}),
    ] = 0.0


class S7Driver:
    """One S7 CPU (drivers.driver.Driver)."""

    Settings: ClassVar[type[msgspec.Struct]] = Settings

    def __init__(self, settings: Any, points: Sequence[Point], connections: dict[str, Any]) -> None:
        self.troubles: dict[str, str] = {}
        self._settings: Settings = settings
        self._points = tuple(points)
        self._places = [place(point) for point in points]
        self._values: list[Value | None] = [None] * len(points)
        self._statuses = [BAD_WAITING] * len(points)
        self._good = (GOOD,) * len(points)
        self._newer: dict[bytes, Sequence[Any]] = {}  # by request, values that are newer than those in `_values`
        self._in_order = False  # whether the jobs one after another bring every point in its order
        self._seen: dict[bytes, bytes] = {}  # by request, the last answer that refused nothing, from its lengths on
        self._sound: set[bytes] = set()  # the jobs of which every point was good in the last scan
        self._changed = False
        self._long_enough: set[int] = set()  # strings whose STRING in the PLC is known to hold as much
        self._refused: set[int] = set()
        self._alone: set[int] = set()  # points that can be read, but in no item with others
        self._last = Scan(tuple(self._values), tuple(self._statuses), 0)
        self._retry_s = 0.0
        self._jobs: list[ReadJob] = []
        self._requests: list[bytes] = []
        self._planned_pdu = 0  # the size of messages that the jobs are for; 0: to be planned
        key = ("s7", settings.host, settings.port, settings.rack, settings.slot)
        transport = Tcp(settings.host, settings.port)
        timeout_s, depth, delay_s = settings.timeout, settings.depth, settings.delay
        self._link = shared(connections, key, transport, ClientCodec, timeout_s=timeout_s, depth=depth, delay_s=delay_s)
        assert isinstance(self._link.codec, ClientCodec)
        self._codec = self._link.codec

    @staticmethod
    def check(point: Point) -> None:
        """Raises AddressError where the point's address, type or orders are not S7's."""
        place(point)

    # the connection

    async def connect(self) -> None:
        """Connects and negotiates the size of messages. Raises DeviceError."""
        self._link.join(self)
        if not self._link.up:
            await self._link.connect(self._handshake)
            self._forget()

    async def _handshake(self, link: Link) -> None:
        """Opens the COTP connection and sets S7 communication up."""
        chosen = self._settings
        where = f"the CPU in rack {chosen.rack}, slot {chosen.slot} of {link.place}"
        hint = "an S7-1200 or 1500 is in slot 1, an S7-300 in slot 2; end other programs that use the PLC"
        try:
            confirmed = await link.request(s7.connection_request(chosen.rack, chosen.slot))
        except DeviceError as error:  # some PLCs close the connection where others refuse it
            raise DeviceError(f"no connection to {where}: {error.text}", hint, status=error.status) from error
        if confirmed[1] & 0xF0 != s7.CC:
            raise DeviceError(f"{where} is not there, or has no connection left", hint, status=BAD_CONFIGURATION)
        most = MOST_JOBS if chosen.depth == "auto" else chosen.depth
        granted, depth = await self._ask(s7.setup_request(chosen.pdu, most), s7.parse_setup_answer)
        if granted < SMALLEST_PDU:
            raise DeviceError(f"{link.place} grants messages of {granted} bytes", "is it an S7 PLC?", status=BAD)
        self._codec.pdu = min(granted, chosen.pdu)
        link.depth.limit(max(depth, 1))

    async def _ask(self, request: bytes, parse: Callable[[bytes], T], *, write: bool = False) -> T:
        """One job and its parsed answer. Raises DeviceError, also where the PLC refuses the whole job."""
        return self._parsed(await self._link.request(request, write=write), parse)

    def _parsed(self, message: bytes, parse: Callable[[bytes], T]) -> T:
        try:
            return parse(message)
        except JobRefused as error:
            other = f"refuses a request (error 0x{error.error:04X})", "is the CPU in RUN?"
            what, hint = _JOB_ERRORS.get(error.error, other)
            raise DeviceError(f"the PLC at {self._link.place} {what}", hint, status=BAD_NOT_READABLE) from error
        except FramingError as error:
            text = f"{self._link.place} sends answers that fit no request ({error})"
            raise self._link.give_up(text, "is it an S7 PLC?") from error

    async def close(self) -> None:
        """Leaves the connection; the last device on it closes it. Never raises."""
        await self._link.leave(self)

    # reading

    async def scan(self) -> Scan:
        """Every point, raw, in as few jobs as the size of messages allows. Raises DeviceError."""
        began_ns = time.time_ns()
        if (self._refused or self._alone) and time.monotonic() >= self._retry_s:
            self._forget()
        if self._planned_pdu != self._codec.pdu:
            self._plan()
        refused: list[tuple[Item, int]] = []
        for job, message in zip(self._jobs, await self._link.requests(self._requests), strict=True):
            if message[6:] != self._seen.get(job.request):
                refused += self._take(job, message)
        if refused:
            await self._isolate(refused)
        elif not self._jobs:
            await self._ask(_ALIVE, lambda message: s7.parse_read(message, 1))
        if self._changed:
            self._last, self._changed = Scan(*self._all(), began_ns), False
            return self._last
        return Scan(self._last.values, self._last.statuses, began_ns, changed=False)

    def _all(self) -> tuple[Sequence[Value | None], Sequence[int]]:
        """All values and their StatusCodes."""
        if self._in_order and len(self._newer) == len(self._jobs):
            parts = [self._newer[request] for request in self._requests]
            return parts[0] if len(parts) == 1 else Runs(parts), self._good
        self._lay_out()
        return tuple(self._values), tuple(self._statuses)

    def _lay_out(self) -> None:
        """Puts into `_values` what is newer than it: before anything else is."""
        if self._newer:
            for job in self._jobs:
                if job.request in self._newer and job.run is not None:
                    self._values[job.run] = self._newer.pop(job.request)

    def _forget(self) -> None:
        """Asks for everything again, also for what the PLC refused."""
        self._refused.clear()
        self._alone.clear()
        self._planned_pdu = 0

    def _plan(self) -> None:
        """Makes the jobs anew, without the points that were refused."""
        self._lay_out()
        self._planned_pdu = self._codec.pdu
        self._seen.clear()
        self._sound.clear()
        largest = largest_read(self._planned_pdu)
        wanted = set(range(len(self._points))) - self._refused
        for index in [index for index in wanted if self._places[index].size > largest]:
            what = f"this PLC sends {largest} bytes at once, too few for {self._points[index].type.name}"
            self._give_up(index, BAD_NOT_SUPPORTED, what, f"string[{largest - 2}] can be read")
            wanted.remove(index)
        groups = side_by_side(self._places, wanted, gap=self._settings.gap, largest=largest, alone=self._alone)
        self._jobs = read_jobs(self._places, groups, self._planned_pdu)
        self._requests = [job.request for job in self._jobs]
        self._in_order = [index for job in self._jobs for index in job.plain] == list(range(len(self._points)))

    async def _read(self, jobs: Sequence[ReadJob]) -> list[tuple[Item, int]]:
        """Reads jobs into the readings; gives the blocks that the PLC refused, with its return codes."""
        messages = await self._link.requests([job.request for job in jobs])
        return [found for job, message in zip(jobs, messages, strict=True) for found in self._take(job, message)]

    def _take(self, job: ReadJob, message: bytes) -> list[tuple[Item, int]]:
        """An answer into the readings; gives what it refuses."""
        values = job.values(message)
        if values is not None:
            self._seen[job.request] = message[6:]
            if job.run is not None and job.request in self._sound and not job.strings:
                self._newer[job.request], self._changed = values, True
            else:
                self._sound.add(job.request)
                self._decode(job.plain, values, job.strings, message)
            return []
        self._seen.pop(job.request, None)
        refused: list[tuple[Item, int]] = []
        for item, (code, data) in zip(job.items, self._parsed(message, job.parse), strict=True):
            if code == s7.OK:
                self._decode(item.plain, item.values(data), item.strings, data)
            else:
                refused.append((item, code))
        return refused

    def _decode(
        self, plain: Sequence[int], values: Sequence[Value], strings: Sequence[tuple[int, slice]], data: bytes
    ) -> None:
        self._lay_out()
        self._changed = True
        if self.troubles:
            for index in (*plain, *(index for index, _ in strings)):
                self.troubles.pop(self._points[index].name, None)
        for index, value in zip(plain, values, strict=True):
            self._values[index], self._statuses[index] = value, GOOD
        for index, part in strings:
            self._decode_string(index, data[part])

    def _decode_string(self, index: int, raw: bytes) -> None:
        kind = self._places[index].type
        (self._long_enough.add if raw[0] >= kind.size else self._long_enough.discard)(index)
        try:
            self._values[index], self._statuses[index] = decode_string(kind, raw), GOOD
        except NoString as error:
            self._give_up(index, BAD_TYPE_MISMATCH, str(error), "declare the length of the PLC's STRING")

    def _give_up(self, index: int, status: int, what: str, hint: str, where: str = "") -> None:
        """This point is bad, and why; `where` is what else is bad for the same reason."""
        point = self._points[index]
        self._lay_out()
        self._sound.clear()
        self._changed = self._changed or self._statuses[index] != status
        self._values[index], self._statuses[index] = None, status
        self.troubles[point.name] = f"{where or point.address}: {what}: {hint}"

    def _refuse(self, index: int, code: int) -> None:
        """The PLC does not give this point: it is left out of the jobs for a while."""
        status, what, hint = _ITEM_ERRORS.get(code, _OTHER_ERROR)
        at = self._places[index]
        room = at.room
        if at.area != s7.DATA_BLOCK and "{room}" in hint:
            hint = _ELSEWHERE
        what, hint = what.format(room=room, code=code), hint.format(room=room)
        self._give_up(index, status, what, hint, room if code in _WHOLE_AREA else "")
        self._refused.add(index)

    async def _isolate(self, refused: Sequence[tuple[Item, int]]) -> None:
        """Finds the points for which the PLC refused blocks, by halves, and reads their neighbours."""
        self._planned_pdu = 0
        self._retry_s = time.monotonic() + RETRY_S
        suspects = [(item.points, code) for item, code in refused]
        while suspects:
            for points, code in suspects:
                if len(points) == 1:
                    self._refuse(points[0], code)
            halves = [_halves(points) for points, _ in suspects if len(points) > 1]
            jobs = read_jobs(self._places, [half for pair in halves for half in pair], self._codec.pdu)
            codes = {item.points: code for item, code in await self._read(jobs)}
            suspects.clear()
            for left, right in halves:
                guilty = [(half, codes[half]) for half in (left, right) if half in codes]
                if not guilty:
                    self._alone.update(left, right)
                elif len(guilty) == 2 and guilty[0][1] == guilty[1][1] and guilty[0][1] in _WHOLE_AREA:
                    suspects += [((index,), guilty[0][1]) for index in left + right]
                else:
                    suspects += guilty

    # writing

    async def write(self, values: Mapping[int, Value]) -> Mapping[int, int]:
        """Writes raw values, bits as bits; {index: StatusCode}, good where the PLC confirmed. Raises DeviceError.

        A string is written only where the PLC's STRING is as long as declared, so that it never runs into a neighbour.
        """
        statuses: dict[int, int] = {}
        await self._look_at_strings(values)
        items: list[tuple[int, Area, bytes]] = []
        for index, value in values.items():
            found = self._item(index, value)
            if isinstance(found, int):
                statuses[index] = found
            else:
                items.append((index, *found))
        for job in write_jobs(items, self._codec.pdu):
            codes = await self._ask(job.request, job.parse, write=True)
            statuses.update({index: _written(code) for index, code in zip(job.points, codes, strict=True)})
        return statuses

    async def _look_at_strings(self, points: Iterable[int]) -> None:
        """Reads those strings of which it is not known yet how long they are in the PLC."""
        pdu = self._codec.pdu
        unknown = [
            (index,)
            for index in points
            if self._points[index].type.kind == "string"
            and index not in self._long_enough
            and self._places[index].size <= largest_read(pdu)
        ]
        await self._read(read_jobs(self._places, unknown, pdu))

    def _item(self, index: int, value: Value) -> tuple[Area, bytes] | int:
        """What is to be written where, or the StatusCode that says why it cannot be."""
        point, at = self._points[index], self._places[index]
        if not point.writable:
            return BAD_NOT_WRITABLE
        if point.type.kind == "string" and index not in self._long_enough:
            return BAD_TYPE_MISMATCH
        try:
            data = encode(point.type, value)
        except ValueError:
            return BAD_OUT_OF_RANGE
        if len(data) > largest_write(self._codec.pdu):
            return BAD_NOT_SUPPORTED
        if point.type.kind == "string":
            return Area(at.area, at.db, 8 * at.byte + 8, len(data)), data  # behind the byte with its maximum
        return at.item(), data

    # browsing

    async def browse(self) -> Sequence[Node]:
        """The data blocks, by their first bytes; empty where the PLC does not list them. Raises DeviceError."""
        protocol = await asyncio.to_thread(_snap7_protocol)
        request = protocol.build_list_blocks_of_type_request(_DATA_BLOCKS)
        listed = await self._userdata(protocol, request, (3, 2), protocol.parse_list_blocks_of_type_response)
        numbers = sorted({number for part in listed for number in part})
        return [Node(f"DB{number}.DBB0", "uint8", f"DB{number}", True) for number in numbers]

    async def identify(self) -> Mapping[str, str]:
        """Station, module, serial number… of the CPU (system status list 0x001C); empty where it is not permitted."""
        protocol = await asyncio.to_thread(_snap7_protocol)
        request = protocol.build_read_szl_request(_IDENTIFICATION, 0)
        parts = await self._userdata(protocol, request, (4, 1), lambda answer: answer["data"]["data"])
        return _identified(b"".join(parts))

    async def _userdata(
        self, protocol: Any, request: bytes, function: tuple[int, int], parse: Callable[[Any], T]
    ) -> list[T]:
        """What the parts of an answer hold, as far as they are understood. Raises DeviceError."""
        found: list[T] = []
        for _ in range(MAX_BROWSE_ANSWERS):
            message = await self._link.request(request)
            try:
                answer = protocol.parse_response(message)
                found.append(parse(answer))
                more, sequence = answer["parameters"]["last_data_unit"], answer["parameters"]["sequence_number"]
            except Exception:  # the library raises what it likes on an answer that is none
                break
            if not more:
                break
            request = protocol.build_userdata_followup_request(*function, sequence)
        return found


def _identified(answer: bytes) -> dict[str, str]:
    """The texts of a system status list 0x001C: its identifier and index, then the size and number of its records."""
    if len(answer) < 8:
        return {}
    size, count = int.from_bytes(answer[4:6], "big"), int.from_bytes(answer[6:8], "big")
    records = [answer[8 + size * place :][:size] for place in range(count)]
    texts = {record[1]: record[2:].rstrip(b"\0 ").decode(errors="replace") for record in records if len(record) > 2}
    return {_PARTS[number]: text for number, text in texts.items() if number in _PARTS and text}


def _snap7_protocol() -> Any:
    from snap7.s7protocol import S7Protocol

    logging.getLogger("snap7").setLevel(logging.CRITICAL)  # it warns of what is not permitted, which is no fault
    return S7Protocol()


def _halves(points: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    middle = len(points) // 2
    return points[:middle], points[middle:]


def _written(code: int) -> int:
    """The StatusCode of a write's return code."""
    if code == s7.OK:
        return GOOD
    return BAD_NOT_WRITABLE if code == s7.NO_ACCESS else _ITEM_ERRORS.get(code, _OTHER_ERROR)[0]
