"""A simulated Modbus/TCP PLC: a server over the coils, discrete inputs, holding and input registers of its points."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from drivers import modbus_codec as modbus
from drivers import modbus_identity
from drivers.blocks import coalesce, unpacker
from drivers.driver import Point
from drivers.modbus_address import BIT_AREAS, READS, Place, field, place
from drivers.modbus_codec import Refused
from drivers.value import Value
from hil.controllers import ModbusController, Span
from hil.port import Port

IDENTITY = {0: "edge", 1: "simulated", 2: "1"}
"""What it says of itself: vendor, product code, version."""
_READ_AREAS = {function: area for area, function in READS.items()}
_READ_LIMITS = {area: modbus.MAX_READ_BITS if area in BIT_AREAS else modbus.MAX_READ_REGISTERS for area in READS}


class Memory:
    """A device's areas: {area: {address: bit or register}}; what is not in them is an illegal address.

    So are `unmapped` parts of them; a function that is not among its `functions` is an illegal function.
    """

    def __init__(self, places: Iterable[Place]) -> None:
        self.functions = set(ModbusController().functions)
        self.unmapped: tuple[Span, ...] = ()
        self.areas: dict[str, dict[int, int]] = {area: {} for area in READS}
        for at in places:
            self.areas[at.area].update(dict.fromkeys(range(at.start, at.start + at.size), 0))

    def answer(self, function: int, data: bytes) -> bytes:
        """A request's function and data -> the data of its answer (Application Protocol, 6). Raises Refused."""
        if function not in self.functions:
            raise Refused(modbus.ILLEGAL_FUNCTION)
        if function in _READ_AREAS:
            return self._read(_READ_AREAS[function], data)
        if function in (modbus.WRITE_COIL, modbus.WRITE_REGISTER):
            return self._write_one(function, data)
        if function in (modbus.WRITE_COILS, modbus.WRITE_REGISTERS):
            return self._write_many(function, data)
        if function == modbus_identity.FUNCTION and data[:1] == b"\x0e":
            return modbus_identity.answer(0, IDENTITY)[2:]
        raise Refused(modbus.ILLEGAL_FUNCTION)

    def _read(self, area: str, data: bytes) -> bytes:
        start, count = _two_words(data, 4)
        if not 1 <= count <= _READ_LIMITS[area]:
            raise Refused(modbus.ILLEGAL_VALUE)
        cells = self._mapped(area, start, count)
        found = (cells[address] for address in range(start, start + count))
        packed = _pack_bits(found) if area in BIT_AREAS else b"".join(word.to_bytes(2, "big") for word in found)
        return bytes((len(packed),)) + packed

    def _write_one(self, function: int, data: bytes) -> bytes:
        address, value = _two_words(data, 4)
        area = "coil" if function == modbus.WRITE_COIL else "holding"
        if area == "coil" and value not in (0, 0xFF00):
            raise Refused(modbus.ILLEGAL_VALUE)
        self._mapped(area, address, 1)[address] = value if area == "holding" else value >> 15
        return data

    def _write_many(self, function: int, data: bytes) -> bytes:
        area = "coil" if function == modbus.WRITE_COILS else "holding"
        most = modbus.MAX_WRITE_BITS if area == "coil" else modbus.MAX_WRITE_REGISTERS
        start, count = _two_words(data, 5)
        size = (count + 7) // 8 if area == "coil" else count * 2
        if not 1 <= count <= most or data[4] != size or len(data) != 5 + size:
            raise Refused(modbus.ILLEGAL_VALUE)
        cells = self._mapped(area, start, count)
        for offset in range(count):
            if area == "coil":
                cells[start + offset] = data[5 + offset // 8] >> offset % 8 & 1
            else:
                cells[start + offset] = data[5 + 2 * offset] << 8 | data[6 + 2 * offset]
        return data[:4]

    def _mapped(self, area: str, start: int, count: int) -> dict[int, int]:
        cells = self.areas[area]
        if not all(address in cells for address in range(start, start + count)) or any(
            span.area == area and span.first < start + count and start <= span.last for span in self.unmapped
        ):
            raise Refused(modbus.ILLEGAL_ADDRESS)
        return cells


def _with_gaps(places: Sequence[Place], gap: int) -> list[Place]:
    """What a device has whose cell says that `gap` bits or registers between two points may be read along."""
    found: list[Place] = []
    for area in READS:
        spans = {index: (at.start, at.size) for index, at in enumerate(places) if at.area == area}
        found += (Place(area, block.start, block.size) for block in coalesce(spans, 0x10000, gap))
    return found


def _two_words(data: bytes, size: int) -> tuple[int, int]:
    """The two words at the start of a request's data, which has at least `size` bytes."""
    if len(data) < size:
        raise Refused(modbus.ILLEGAL_VALUE)
    return data[0] << 8 | data[1], data[2] << 8 | data[3]


def _pack_bits(bits: Iterable[int]) -> bytes:
    found = list(bits)
    return sum(bit << place for place, bit in enumerate(found)).to_bytes((len(found) + 7) // 8, "little")


class Session:
    """One client's connection in the server's role, without a socket: bytes in, bytes out.

    `devices` are the memories by unit identifier: a gateway has several.
    """

    def __init__(self, devices: Mapping[int, Memory]) -> None:
        self.ended = False
        self._devices = devices
        self._frames = modbus.Frames()

    def feed(self, data: bytes) -> bytes:
        """What the client sent -> what it gets: every request is answered, in order. Raises FramingError."""
        answers = (modbus.frame(transaction, self._answer(request)) for transaction, request in self._frames.feed(data))
        return b"".join(answers)

    def _answer(self, request: bytes) -> bytes:
        unit, function = request[0], request[1]
        try:
            if unit not in self._devices:
                raise Refused(modbus.NO_TARGET)
            return request[:2] + self._devices[unit].answer(function, request[2:])
        except Refused as refused:
            return bytes((unit, function | modbus.FAILED, refused.code))


class ModbusPlc:
    """A simulated Modbus/TCP PLC (hil.plc.SimulatedPlc). `settings` are those of the `modbus` driver."""

    def __init__(
        self, name: str, points: Sequence[Point], settings: Any, controller: ModbusController | None = None
    ) -> None:
        self.name = name
        self._points = points
        self._settings = settings
        self._places = [place(point) for point in points]
        controller = controller or ModbusController()
        self.memory = Memory(_with_gaps(self._places, settings.gap))
        self.memory.functions = set(controller.functions)
        self.memory.unmapped = controller.unmapped
        self._devices = {settings.unit: self.memory}
        self.port = Port(lambda: Session(self._devices), controller.connections, controller.answer_time)

    async def start(self, host: str, port: int) -> dict[str, Any]:
        """Serves on host and port (0: any free one), over plain TCP whatever the device has; gives the settings for it.

        Raises OSError where the port is in use.
        """
        other = ("serial", "tls", "framing")
        return {**await self.port.open(host, port), **{key: None for key in other if getattr(self._settings, key)}}

    def read(self, index: int) -> Value:
        """The raw value of a point as it lies in memory."""
        point, at = self._points[index], self._places[index]
        if at.area in BIT_AREAS:
            return bool(self.memory.areas[at.area][at.start])
        return unpacker([field(point, at, at.start)])(bytes(self._registers(at)))[0]

    def write(self, index: int, value: Value) -> None:
        """The PLC's program puts a raw value into memory. Raises ValueError where the type cannot hold it."""
        point, at = self._points[index], self._places[index]
        cells = self.memory.areas[at.area]
        if at.area in BIT_AREAS:
            cells[at.start] = int(bool(value))
            return
        data = self._registers(at)
        field(point, at, at.start, whole=True).put(data, value)
        for offset in range(at.size):
            cells[at.start + offset] = data[2 * offset] << 8 | data[2 * offset + 1]

    def _registers(self, at: Place) -> bytearray:
        cells = self.memory.areas[at.area]
        return bytearray(b"".join(cells[at.start + offset].to_bytes(2, "big") for offset in range(at.size)))

    async def stop(self) -> None:
        """Closes every connection and the port."""
        await self.port.close()
