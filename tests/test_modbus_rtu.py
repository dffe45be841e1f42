"""Modbus RTU: its frames, serial lines (a pseudo-terminal in place of the wire), and RTU over TCP, against pymodbus."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import termios
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from drivers import modbus_codec as modbus
from drivers.driver import DeviceError, Point, SettingError
from drivers.modbus import ModbusDriver
from drivers.modbus_rtu import MOST, RtuCodec, crc, frame, silence_s
from drivers.modbus_settings import ModbusSettings, Serial
from drivers.serial_line import SerialLine
from drivers.value import BAD_CONFIGURATION, BAD_NO_COMMUNICATION, BAD_TIMEOUT, GOOD, parse_type
from edge.language.cell_file import apply_endpoints, load_cell
from edge.language.source import Problems
from hil.modbus_plc import ModbusPlc

LONG_S, SHORT_S = 30.0, 0.15
REQUEST = modbus.read_request(3, modbus.READ_HOLDING, 7, 2)
ANSWER = bytes.fromhex("03 03 04 00 2a 01 00")
GOLDEN = Path(__file__).parent / "golden"


def registers(count: int, *, writable: bool = True) -> list[Point]:
    return [Point(f"device.{at}", f"holding:{at}", parse_type("uint16"), writable) for at in range(count)]


# Frames


def test_check_sums() -> None:
    """The example of the Serial Line Protocol, 6.2.2, and pymodbus's for any bytes."""
    assert crc(bytes.fromhex("0207")) == bytes.fromhex("4112")


@given(st.binary(max_size=300))
def test_check_sums_are_pymodbuss(data: bytes) -> None:
    from pymodbus.framer.rtu import FramerRTU

    assert crc(data) == FramerRTU.compute_CRC(data).to_bytes(2, "big")


@given(st.binary(min_size=2, max_size=250), st.integers(1, 247))
def test_frames_are_pymodbuss(pdu: bytes, unit: int) -> None:
    from pymodbus.framer.rtu import FramerRTU
    from pymodbus.pdu import DecodePDU

    payload = bytes((unit, *pdu))
    assert frame(payload) == FramerRTU(DecodePDU(False)).encode(pdu, unit, 0)


@pytest.mark.parametrize(("baud", "bits", "expected"), [(9600, 11, 0.00401), (19200, 11, 0.002), (115200, 11, 0.00175)])
def test_the_silence_between_frames(baud: int, bits: int, expected: float) -> None:
    assert silence_s(baud, bits) == pytest.approx(expected, abs=1e-5)


def answered(request: bytes, pieces: Sequence[bytes]) -> list[bytes]:
    codec = RtuCodec()
    key, _ = codec.encode(request)
    found = [found for piece in pieces for found in codec.feed(piece)]
    assert all(one == key for one, _ in found)
    return [payload for _, payload in found]


STALE = frame(bytes.fromhex("04 03 04 00 01 00 02"))
RIGHT = frame(ANSWER)


@pytest.mark.parametrize(
    "pieces",
    [
        [RIGHT],
        [RIGHT[at : at + 1] for at in range(len(RIGHT))],
        [RIGHT + RIGHT],
        [STALE + RIGHT],
        [STALE, RIGHT],
        [STALE[:5] + RIGHT],
        [b"\x03\x03" + RIGHT],
        [frame(REQUEST) + RIGHT],
        [b"\0\xff" * 600 + RIGHT],
        [RIGHT[:6] + b"\x55" + RIGHT[7:], RIGHT],
    ],
    ids=[
        "whole", "byte by byte", "doubled", "stale and right", "stale, right", "half a stale one", "a false start",
        "with an echo", "after much noise", "garbled, right",
    ],
)  # fmt: skip
def test_the_answer_is_found_whatever_else_comes(pieces: list[bytes]) -> None:
    assert answered(REQUEST, pieces) == [ANSWER]


@pytest.mark.parametrize(
    "piece",
    [
        RIGHT[:-1],
        RIGHT[:-1] + b"\0",
        STALE,
        frame(b"\x03\x04" + ANSWER[2:]),
        frame(bytes.fromhex("03 03 02 00 2a")),
        frame(bytes.fromhex("04 83 02")),
        frame(REQUEST),
        b"",
    ],
    ids=["truncated", "check sum", "unit", "function", "size", "another's exception", "echo", "nothing"],
)
def test_what_is_no_answer_is_none(piece: bytes) -> None:
    assert answered(REQUEST, [piece]) == []


def test_exceptions_and_answers_without_data() -> None:
    for payload in (bytes.fromhex("03 83 02"), bytes.fromhex("03 03 00")):
        assert answered(REQUEST, [frame(payload)]) == [payload]


def test_a_write_is_confirmed_at_its_own_address() -> None:
    request = modbus.write_request(3, modbus.WRITE_REGISTERS, 7, 2, b"\0\1\0\2")
    assert answered(request, [frame(bytes.fromhex("03 10 00 08 00 02"))]) == []
    assert answered(request, [frame(bytes.fromhex("03 10 00 07 00 02"))]) == [bytes.fromhex("03 10 00 07 00 02")]


def test_nothing_is_an_answer_while_nothing_is_asked() -> None:
    codec = RtuCodec()
    assert codec.feed(RIGHT) == []
    codec.encode(REQUEST)
    assert len(codec.feed(RIGHT)) == 1
    assert codec.feed(RIGHT) == []
    codec.encode(REQUEST)
    codec.reset()
    assert codec.feed(RIGHT) == []


@given(st.lists(st.binary(max_size=400), max_size=20))
def test_any_bytes_are_noise_or_the_answer(pieces: list[bytes]) -> None:
    codec = RtuCodec()
    codec.encode(REQUEST)
    for piece in pieces:
        for _, payload in codec.feed(piece):
            assert payload[:1] == b"\x03" and frame(payload) in b"".join(pieces)
        assert len(codec._come) <= MOST


def conversations() -> Iterator[tuple[bytes, bytes]]:
    """Requests and answers that third parties exchanged over TCP, as payloads."""
    for path in sorted(GOLDEN.glob("modbus_*.jsonl")):
        asked: dict[int, bytes] = {}
        for line in path.read_text().splitlines():
            message = json.loads(line)
            for transaction, payload in modbus.Frames().feed(bytes.fromhex(message["hex"])):
                if message["from"] == "client":
                    asked[transaction] = payload
                else:
                    yield asked[transaction], payload


@pytest.mark.parametrize("pair", list(conversations()), ids=lambda pair: pair[0].hex())
def test_golden_answers(pair: tuple[bytes, bytes]) -> None:
    """Each whole, byte by byte, doubled, after a stale one, truncated."""
    request, answer = pair
    whole, other = frame(answer), frame(bytes((request[0] ^ 1,)) + answer[1:])
    for pieces in ([whole], [bytes((byte,)) for byte in whole], [whole + whole], [other + whole], [other, whole]):
        assert answered(request, pieces) == [answer]
    for size in range(len(whole)):
        assert answered(request, [whole[:size]]) == []


# Settings


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("", {}),
        ("host", {"host": "h", "serial": Serial("/dev/ttyS0")}),
        ("port", {"port": 502, "serial": Serial("/dev/ttyS0")}),
        ("framing", {"framing": "tcp", "serial": Serial("/dev/ttyS0")}),
        ("unit", {"unit": 0, "serial": Serial("/dev/ttyS0")}),
        ("depth", {"depth": "auto", "host": "h", "framing": "rtu"}),
    ],
)
def test_settings_that_do_not_go_together(key: str, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError) as caught:
        ModbusSettings(**settings)
    assert caught.value.key == key and caught.value.hint


def test_a_rate_that_no_line_has() -> None:
    with pytest.raises(SettingError, match="no line has 1234 bits a second"):
        Serial("/dev/ttyS0", baud=1234)


def test_a_mistake_in_a_cell_is_shown_at_its_key(tmp_path: Path) -> None:
    path = tmp_path / "cell.yaml"
    path.write_text("cell: a\ndevices:\n  pump: {driver: modbus, host: h, serial: {port: /dev/ttyS0}}\ntags: {}\n")
    load_cell(path, problems := Problems())
    (problem,) = problems
    assert (problem.line, problem.column, problem.message) == (
        3, 32, "a device on a serial line has no `host`",
    )  # fmt: skip


async def test_a_simulated_plc_stands_for_a_device_on_a_line(tmp_path: Path) -> None:
    path = tmp_path / "cell.yaml"
    path.write_text("cell: a\ndevices:\n  pump: {driver: modbus, serial: {port: /dev/ttyS0}}\ntags: {}\n")
    found = load_cell(path, problems := Problems())
    assert found is not None
    plc = ModbusPlc("pump", [], found.cell.devices[0].settings)
    endpoints = {"pump": await plc.start("127.0.0.1", 0)}
    settings = apply_endpoints(found.cell, endpoints, problems).devices[0].settings
    assert not problems.errors and isinstance(settings, ModbusSettings)
    assert (settings.host, settings.serial, settings.rtu) == ("127.0.0.1", None, False)
    await plc.stop()


# Lines


class Line:
    """A pseudo-terminal: `port` is the driver's end; the other end gives each piece that comes to `hear`."""

    def __init__(self) -> None:
        self.end, self._kept = pty.openpty()
        os.set_blocking(self.end, False)
        self.port = os.ttyname(self._kept)
        self.hear: Callable[[bytes], bytes | None] = lambda _: None
        asyncio.get_running_loop().add_reader(self.end, self._read)

    def _read(self) -> None:
        if said := self.hear(os.read(self.end, 4096)):
            self.say(said)

    def say(self, data: bytes) -> None:
        os.write(self.end, data)

    def unplug(self) -> None:
        asyncio.get_running_loop().remove_reader(self.end)
        for end in (self.end, self._kept):
            with contextlib.suppress(OSError):
                os.close(end)

    def settings(self, **options: Any) -> ModbusSettings:
        return ModbusSettings(serial=Serial(self.port), **{"timeout": LONG_S, **options})


@contextlib.asynccontextmanager
async def line() -> AsyncIterator[Line]:
    one = Line()
    try:
        yield one
    finally:
        one.unplug()


@contextlib.asynccontextmanager
async def pymodbus_rtu(units: Sequence[int]) -> AsyncIterator[int]:
    """pymodbus's server of RTU over TCP; a unit that is not there is silent. Gives its port."""
    from pymodbus import FramerType
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    bits = [SimData(0, count=100, values=False, datatype=DataType.BITS)]
    devices: list[SimDevice] = []
    for unit in units:
        words = [SimData(0, count=300, values=unit, datatype=DataType.REGISTERS)]
        devices.append(SimDevice(unit, simdata=(list(bits), list(bits), list(words), list(words))))
    server = ModbusTcpServer(devices, framer=FramerType.RTU, address=("127.0.0.1", 0), ignore_missing_devices=True)
    await server.serve_forever(background=True)
    assert server.transport is not None
    try:
        yield server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    finally:
        await server.shutdown()


@contextlib.asynccontextmanager
async def pymodbus_line(units: Sequence[int]) -> AsyncIterator[Line]:
    """A line with pymodbus's devices on it."""
    async with pymodbus_rtu(units) as port, line() as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while data := await reader.read(4096):
                one.say(data)

        one.hear = writer.write  # type: ignore[assignment]
        task = asyncio.create_task(back())
        try:
            yield one
        finally:
            task.cancel()
            await asyncio.wait([task])
            writer.close()


async def values(driver: ModbusDriver) -> list[Any]:
    return list((await driver.scan()).values)


async def test_devices_of_pymodbus_on_one_line() -> None:
    async with pymodbus_line([3, 5]) as one:
        connections: dict[str, Any] = {}
        drivers = [ModbusDriver(one.settings(unit=unit), registers(130), connections) for unit in (3, 5)]
        assert len(connections) == 1
        await asyncio.gather(*(driver.connect() for driver in drivers))
        assert await asyncio.gather(*map(values, drivers)) == [[3] * 130, [5] * 130]
        assert await drivers[0].write({1: 11, 2: 12}) == {1: GOOD, 2: GOOD}
        assert await drivers[1].write({0: 50}) == {0: GOOD}
        assert [found[:3] for found in await asyncio.gather(*map(values, drivers))] == [[3, 11, 12], [50, 5, 5]]
        for driver in drivers:
            await driver.close()


async def test_a_device_that_is_not_there_keeps_no_other_on_the_line_from_being_read() -> None:
    async with pymodbus_line([3]) as one:
        heard = one.hear
        one.hear = lambda data: None if data[0] == 4 else heard(data)
        connections: dict[str, Any] = {}
        here, gone = (ModbusDriver(one.settings(unit=unit), registers(2), connections) for unit in (3, 4))
        gone._settings = msgspec.structs.replace(gone._settings, timeout=SHORT_S)
        await here.connect()
        await gone.connect()
        assert await values(here) == [3, 3]
        with pytest.raises(DeviceError) as caught:
            await gone.scan()
        assert caught.value.status == BAD_TIMEOUT
        assert caught.value.text == f"unit 4 on {one.port} did not answer within {SHORT_S:g} s"
        assert await values(here) == [3, 3]
        await here.close()
        await gone.close()


async def test_rtu_over_tcp() -> None:
    async with pymodbus_rtu([7]) as port:
        driver = ModbusDriver(
            ModbusSettings(host="127.0.0.1", port=port, framing="rtu", unit=7, timeout=LONG_S), registers(200), {}
        )
        await driver.connect()
        assert await values(driver) == [7] * 200
        assert await driver.write({5: 55}) == {5: GOOD}
        assert (await values(driver))[5] == 55
        await driver.close()


def test_the_same_on_uvloop() -> None:
    """The loop on which the devices are read."""
    for case in (test_devices_of_pymodbus_on_one_line, test_rtu_over_tcp, test_a_line_that_is_unplugged):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(case())


async def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    late = frame(bytes.fromhex("01 03 04 00 63 00 63"))
    async with line() as one:
        driver = ModbusDriver(one.settings(timeout=SHORT_S), registers(2), {})
        await driver.connect()
        with pytest.raises(DeviceError, match="did not answer"):
            await driver.scan()
        await driver.close()
        one.hear = lambda _: frame(bytes.fromhex("01 03 04 00 01 00 02"))
        asyncio.get_running_loop().call_later(SHORT_S / 3, one.say, late)
        await driver.connect()
        assert await values(driver) == [1, 2]
        await driver.close()


async def test_a_wrong_rate_is_spoken_of() -> None:
    async with line() as one:
        one.hear = lambda _: b"\xf3\x1c\x00\x7e"
        driver = ModbusDriver(one.settings(timeout=SHORT_S, unit=9), registers(2), {})
        await driver.connect()
        with pytest.raises(DeviceError) as caught:
            await driver.scan()
        assert caught.value.text.startswith(f"unit 9 on {one.port} did not answer within")
        assert caught.value.text.endswith("4 bytes came that are no answer to it")
        assert "baud" in caught.value.hint
        await driver.close()


async def test_how_a_line_is_set_up() -> None:
    async with line() as one:
        serial = Serial(one.port, baud=9600, parity="odd", stop_bits=2)
        driver = ModbusDriver(ModbusSettings(serial=serial), registers(1), {})
        await driver.connect()
        _, output, control, local, speed, _, special = termios.tcgetattr(one._kept)
        assert (output, local, speed, special[termios.VMIN]) == (0, 0, termios.B9600, 1)
        assert control & termios.CSTOPB and control & termios.CSIZE == termios.CS8
        await driver.close()


async def test_a_line_that_is_unplugged() -> None:
    async with line() as one:
        one.hear = lambda _: one.unplug()
        driver = ModbusDriver(one.settings(), registers(2), {})
        await driver.connect()
        with pytest.raises(DeviceError, match=f"the serial line {one.port} is gone") as caught:
            await driver.scan()
        assert "unplugged" in caught.value.hint
        await driver.close()


@pytest.mark.parametrize(
    ("path", "words", "status"),
    [
        ("/dev/tty-of-nobody", "there is no serial line /dev/tty-of-nobody", BAD_NO_COMMUNICATION),
        ("/dev/null", "/dev/null is no serial line that can be set up so", BAD_CONFIGURATION),
    ],
)
async def test_a_line_that_cannot_be_opened(path: str, words: str, status: int) -> None:
    driver = ModbusDriver(ModbusSettings(serial=Serial(path)), registers(1), {})
    with pytest.raises(DeviceError) as caught:
        await driver.connect()
    assert (caught.value.text, caught.value.status) == (words, status)
    assert caught.value.hint
    await driver.close()


async def test_a_line_that_another_program_uses() -> None:
    async with line() as one:
        fcntl.flock(other := os.open(one.port, os.O_RDWR | os.O_NOCTTY), fcntl.LOCK_EX)
        driver = ModbusDriver(one.settings(), registers(1), {})
        with pytest.raises(DeviceError, match=f"another program uses the serial line {one.port}"):
            await driver.connect()
        os.close(other)
        await driver.connect()
        await driver.close()


def test_no_right_to_a_line() -> None:
    refused = SerialLine("/dev/ttyS0", baud=9600, parity="none", stop_bits=1).refused(PermissionError(13, "no"))
    assert "may not open" in refused.text and "dialout" in refused.hint
