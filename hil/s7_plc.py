"""A simulated S7 PLC: a server of S7 communication over data blocks, bit memory, inputs and outputs."""

from collections.abc import Sequence
from typing import Any

from drivers import s7_codec as s7
from drivers.blocks import Field, unpacker
from drivers.driver import Point
from drivers.link import FramingError
from drivers.s7_address import Place, encode, place
from drivers.value import Value
from hil.controllers import S7Controller
from hil.port import Port

PARALLEL_JOBS = 8

# Errors of a whole job (error class and code). The first is what an S7-1200 and 1500 say without PUT/GET, too.
NOT_AVAILABLE = 0x8104
WRONG_SIZE = 0x8500


class Memory:
    """The PLC's areas: {(area, data block): bytes}. `no_access` are those whose access the PLC does not permit,
    `optimized` the data blocks that have no addresses; without `put_get` nobody may read or write.
    """

    def __init__(self, areas: dict[tuple[int, int], bytearray]) -> None:
        self.areas = areas
        self.no_access: set[tuple[int, int]] = set()
        self.optimized: set[int] = set()
        self.put_get = True

    def _find(self, item: s7.Area | None) -> tuple[int, bytearray]:
        """(return code, the area) of an item."""
        if item is None or not item.size or (item.transport == s7.BIT and item.count != 1):
            return s7.WRONG_TYPE, bytearray()
        key = (item.area, item.db if item.area == s7.DATA_BLOCK else 0)
        if key in self.no_access:
            return s7.NO_ACCESS, bytearray()
        memory = self.areas.get(key)
        if memory is None or (item.area == s7.DATA_BLOCK and item.db in self.optimized):
            return s7.NO_OBJECT, bytearray()
        misplaced = item.transport != s7.BIT and item.bit & 7
        if misplaced or (item.bit >> 3) + item.size > len(memory):
            return s7.OUT_OF_RANGE, bytearray()
        return s7.OK, memory

    def read(self, item: s7.Area | None) -> tuple[int, bytes]:
        """(return code, data) of an item; a bit is one byte, 0 or 1."""
        code, memory = self._find(item)
        if item is None or code != s7.OK:
            return code, b""
        byte = item.bit >> 3
        if item.transport == s7.BIT:
            return s7.OK, bytes((memory[byte] >> (item.bit & 7) & 1,))
        return s7.OK, bytes(memory[byte : byte + item.size])

    def write(self, item: s7.Area | None, data: bytes) -> int:
        """Writes an item whole or not at all, a bit without its neighbours; gives its return code."""
        code, _ = self._find(item)
        if item is None or code != s7.OK:
            return code
        if len(data) != item.size:
            return s7.WRONG_TYPE
        self.put(item, data)
        return s7.OK

    def put(self, item: s7.Area, data: bytes) -> None:
        """The PLC's own program writes an item that is there, whoever may do so from outside."""
        memory = self.areas[item.area, item.db]
        byte = item.bit >> 3
        if item.transport == s7.BIT:
            mask = 1 << (item.bit & 7)
            memory[byte] = memory[byte] | mask if data[0] & 1 else memory[byte] & ~mask
        else:
            memory[byte : byte + item.size] = data


class Session:
    """One client's connection in the server's role, without a socket: bytes in, bytes out.

    Grants messages of at most `pdu` bytes to a client that names this `rack` and `slot`. A job longer than what was
    granted, or whose answer would be, is refused. `ended` once the client or the PLC has ended the connection.
    """

    def __init__(self, memory: Memory, *, rack: int, slot: int, pdu: int) -> None:
        self.ended = False
        self._memory = memory
        self._station = rack << 5 | slot
        self._limit = pdu
        self._pdu = 0
        self._reader = s7.Reader()
        self._tpdu_size = 0

    def feed(self, data: bytes) -> bytes:
        """What the client sent -> what it gets. Raises FramingError, after which the connection is of no use."""
        answers: list[bytes] = []
        for code, content in self._reader.feed(data):
            if code == s7.CR and not self._tpdu_size:
                answers.append(self._connect(s7.parse_connect(content)))
            elif code == s7.DT and self._tpdu_size:
                answers.append(s7.fragments(self._answer(content), self._tpdu_size))
            elif code == s7.DR:
                self.ended = True
            else:
                raise FramingError(f"an unexpected TPDU 0x{code:02X}")
        return b"".join(answers)

    def _connect(self, request: s7.Connect) -> bytes:
        if len(request.called) != 2 or request.called[1] != self._station:
            self.ended = True
            refused = s7.DR.to_bytes(1, "big") + request.source.to_bytes(2, "big") + b"\x00\x00\x03"  # no such address
            return s7.frame(bytes((len(refused),)) + refused)
        self._tpdu_size = request.tpdu_size
        confirm = s7.Connect(1, request.source, request.size_code, request.calling, request.called)
        return s7.frame(confirm.encode(s7.CC))

    def _answer(self, message: bytes) -> bytes:
        job = s7.parse_message(message)
        if job.kind not in (s7.JOB, s7.USERDATA):
            raise FramingError("an answer to no job")
        function = job.function if job.kind == s7.JOB else -1
        if function == s7.SETUP:
            asked, depth = s7.parse_setup(job.parameters)
            self._pdu = min(asked, self._limit)
            return s7.setup_answer(job, self._pdu, min(depth, PARALLEL_JOBS))
        if function not in (s7.READ_VAR, s7.WRITE_VAR) or not self._pdu or not self._memory.put_get:
            return s7.refusal(job, NOT_AVAILABLE)
        items = s7.parse_items(job.parameters)
        if len(message) > self._pdu or not items:
            return s7.refusal(job, WRONG_SIZE)
        if function == s7.READ_VAR:
            answer = s7.read_answer(job, [(item, *self._memory.read(item)) for item in items])
            return answer if len(answer) <= self._pdu else s7.refusal(job, WRONG_SIZE)
        values = s7.parse_values(job.data, len(items), answer=False)
        return s7.write_answer(
            job, [self._memory.write(item, data) for item, (_, data) in zip(items, values, strict=True)]
        )


def _areas(places: Sequence[Place]) -> dict[tuple[int, int], bytearray]:
    """Memory for these places: I, Q and M as large as those of an S7-1200, data blocks to the next 16 bytes."""
    sizes = {(s7.INPUTS, 0): 1024, (s7.OUTPUTS, 0): 1024, (s7.MEMORY, 0): 4096}
    for at in places:
        key = (at.area, at.db)
        sizes[key] = max(sizes.get(key, 0), -(-(at.byte + at.size) // 16) * 16)
    return {key: bytearray(size) for key, size in sizes.items()}


class S7Plc:
    """A simulated S7 PLC (hil.plc.SimulatedPlc). `settings` are those of the `s7` driver."""

    def __init__(
        self,
        name: str,
        points: Sequence[Point],
        settings: Any,
        controller: S7Controller | None = None,
        *,
        pdu: int = s7.DEFAULT_PDU,
    ) -> None:
        self.name = name
        self.pdu = pdu
        self._settings = settings
        self._places = [place(point) for point in points]
        controller = controller or S7Controller()
        self.memory = Memory(_areas(self._places))
        self.memory.optimized.update(controller.optimized)
        self.memory.put_get = controller.put_get
        self._values = [unpacker([Field(at.type, tuple(range(at.type.size)), at.bit)]) for at in self._places]
        for at in self._places:
            if at.type.kind == "string":
                self._bytes(at)[at.byte] = at.type.size
        self.port = Port(self._session, controller.connections, controller.answer_time)

    def _bytes(self, at: Place) -> bytearray:
        return self.memory.areas[at.area, at.db]

    async def start(self, host: str, port: int) -> dict[str, Any]:
        """Serves on host and port (0: any free one); gives host and port. Raises OSError where the port is in use."""
        return await self.port.open(host, port)

    def _session(self) -> Session:
        return Session(self.memory, rack=self._settings.rack, slot=self._settings.slot, pdu=self.pdu)

    def read(self, index: int) -> Value:
        """The raw value of a point as it lies in memory; of a STRING that a client damaged, what is left."""
        at = self._places[index]
        raw = bytes(self._bytes(at)[at.byte : at.byte + at.size])
        if at.type.kind == "string":
            return raw[2 : 2 + min(raw[1], at.type.size)].decode("latin-1")
        return self._values[index](raw)[0]

    def write(self, index: int, value: Value) -> None:
        """The PLC's program puts a raw value into memory. Raises ValueError where the type cannot hold it."""
        at = self._places[index]
        data = encode(at.type, value)
        if at.type.kind == "string":
            data = bytes((at.type.size,)) + data
            self._bytes(at)[at.byte : at.byte + len(data)] = data
        else:
            self.memory.put(at.item(), data)

    async def stop(self) -> None:
        """Closes every connection and the port."""
        await self.port.close()
