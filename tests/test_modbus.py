"""The Modbus driver and the simulated PLC: over real sockets, against pymodbus and mbpoll, and against bad devices."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import modbus as driver_module
from drivers import modbus_codec as modbus
from drivers import modbus_identity
from drivers.depth import Depth
from drivers.driver import DeviceError, Point, find
from drivers.modbus import ModbusDriver, ModbusSettings
from drivers.modbus_codec import Frames
from drivers.value import (
    BAD,
    BAD_COMMUNICATION,
    BAD_DEVICE_FAILURE,
    BAD_NO_COMMUNICATION,
    BAD_NODE_UNKNOWN,
    BAD_NOT_SUPPORTED,
    BAD_NOT_WRITABLE,
    BAD_OUT_OF_RANGE,
    BAD_TIMEOUT,
    BAD_WAITING,
    GOOD,
    TYPES,
    Value,
    parse_type,
)
from hil.modbus_plc import Memory, ModbusPlc, Session

LONG_S, SHORT_S = 30.0, 0.15
Answer = Callable[[int, bytes], Sequence[bytes]]


def point(address: str, kind: str = "uint16", *, writable: bool = False, **extra: Any) -> Point:
    return Point(f"device.{address}", address, parse_type(kind), writable, **extra)


def registers(first: int, count: int, *, writable: bool = False) -> list[Point]:
    return [point(f"holding:{at}", writable=writable) for at in range(first, first + count)]


CONVEYOR = [
    point("holding:10", writable=True),
    point("input:20", "float32", word_order="little"),
    point("discrete:3", "bool"),
    point("coil:7", "bool", writable=True),
    point("holding:12.3", "bool"),
    point("holding:40", "string[16]", writable=True),
]


class Device:
    """A device in memory behind a driver's link: what it was asked, and any answer that a test wants of it."""

    def __init__(self, points: Sequence[Point], **options: Any) -> None:
        self.settings = ModbusSettings(host="device", timeout=LONG_S, **options)
        self.plc = ModbusPlc("device", points, self.settings)
        self.asked: list[tuple[int, int, int]] = []
        self.refuse: Callable[[int, int, int], int | None] = lambda function, start, count: None
        self.codec, self.place, self.depth, self.delay_s, self.up = None, "device:502", Depth(1), 0.0, True
        self.tried, self.users = False, set[object]()
        self.session = Session({1: self.plc.memory})
        self.driver = ModbusDriver(self.settings, points, {self.settings.connection: self})  # type: ignore[dict-item]

    async def connect(self) -> None:
        self.up = True

    def join(self, user: object) -> None:
        self.users.add(user)

    async def leave(self, user: object) -> None:
        self.users.discard(user)
        self.up = False

    async def requests(self, payloads: Sequence[bytes], *, timeout_s: float, write: bool = False) -> list[bytes]:
        assert all(write == (payload[1] > modbus.READ_INPUT) for payload in payloads)
        return [self.answer(payload) for payload in payloads]

    def answer(self, payload: bytes) -> bytes:
        function, start, last = payload[1], payload[2] << 8 | payload[3], payload[4] << 8 | payload[5]
        self.asked.append((function, start, last))
        if code := self.refuse(function, start, last):
            return bytes((payload[0], function | modbus.FAILED, code))
        ((_, answer),) = Frames().feed(self.session.feed(modbus.frame(1, payload)))
        return answer

    def told(self) -> list[tuple[int, int, int]]:
        """What was asked since the last call: (function, address, count or value)."""
        asked, self.asked = self.asked, []
        return asked

    async def values(self) -> list[Value | None]:
        return [reading.value for reading in await self.driver.scan()]

    async def statuses(self) -> list[int]:
        return [reading.status for reading in await self.driver.scan()]


# Reading in blocks


async def test_neighbours_are_read_in_one_request_and_nothing_else_is() -> None:
    device = Device(CONVEYOR)
    device.plc.write(1, 12.5)
    device.plc.write(2, True)
    device.plc.write(4, True)
    device.plc.write(5, "lot 7")
    assert await device.values() == [0, 12.5, True, False, True, "lot 7"]
    assert device.told() == [(1, 7, 1), (2, 3, 1), (3, 10, 1), (3, 12, 1), (3, 40, 8), (4, 20, 2)]


async def test_a_gap_that_the_device_allows_is_read_along() -> None:
    device = Device(CONVEYOR, gap=1)
    assert await device.statuses() == [GOOD] * 6
    assert (3, 10, 3) in device.told()


async def test_the_protocols_limits() -> None:
    device = Device(registers(0, 300) + [point(f"coil:{at}", "bool") for at in range(2001)])
    assert set(await device.statuses()) == {GOOD}
    assert device.told() == [(1, 0, 2000), (1, 2000, 1), (3, 0, 125), (3, 125, 125), (3, 250, 50)]


async def test_a_devices_own_limits() -> None:
    device = Device(registers(0, 50) + [point(f"coil:{at}", "bool") for at in range(20)], max_registers=20, max_bits=16)
    assert set(await device.statuses()) == {GOOD}
    assert device.told() == [(1, 0, 16), (1, 16, 4), (3, 0, 20), (3, 20, 20), (3, 40, 10)]


async def test_a_value_larger_than_the_devices_limit_is_asked_for_whole() -> None:
    device = Device([point("holding:0", "float64")], max_registers=2)
    assert await device.values() == [0.0]
    assert device.told() == [(3, 0, 4)]


async def test_readings_have_one_time_in_the_order_of_the_points() -> None:
    device = Device([*registers(0, 3), point("coil:0", "bool")])
    readings = await device.driver.scan()
    assert len({reading.time_ns for reading in readings}) == 1
    assert [type(reading.value) for reading in readings] == [int, int, int, bool]


KINDS = [*(kind for kind in TYPES.values() if kind.kind != "bool"), parse_type("string[1]"), parse_type("string[7]")]
ORDERS = st.sampled_from(["big", "little"])


@st.composite
def cells(draw: st.DrawFn) -> tuple[list[Point], dict[int, Value]]:
    """Points of every type and order, side by side or apart, and a value for each."""
    points: list[Point] = []
    values: dict[int, Value] = {}
    at = {"holding": draw(st.integers(0, 60_000)), "coil": draw(st.integers(0, 60_000))}
    for index in range(draw(st.integers(1, 30))):
        if draw(st.integers(0, 4)) == 0:
            points.append(point(f"coil:{at['coil']}", "bool", writable=True))
            values[index] = draw(st.booleans())
            at["coil"] += draw(st.integers(1, 3))
            continue
        kind = draw(st.sampled_from(KINDS))
        orders = {"byte_order": draw(ORDERS), "word_order": "big" if kind.kind == "string" else draw(ORDERS)}
        points.append(point(f"holding:{at['holding']}", kind.name, writable=True, **orders))
        at["holding"] += (kind.size + 1) // 2 + draw(st.integers(0, 2))
        if kind.kind == "string":
            values[index] = draw(st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=kind.size))
        elif kind.kind == "int":
            values[index] = draw(st.integers(int(kind.low), int(kind.high)))
        else:
            values[index] = draw(st.floats(width=kind.size * 8, allow_nan=False, allow_infinity=False))
    return points, values


@settings(max_examples=60)
@given(cells())
async def test_whatever_is_written_is_in_the_plc_and_is_read_back(case: tuple[list[Point], dict[int, Value]]) -> None:
    points, values = case
    device = Device(points)
    assert await device.driver.write(values) == dict.fromkeys(values, GOOD)
    assert [device.plc.read(index) for index in range(len(points))] == list(values.values())
    assert await device.values() == list(values.values())


@settings(max_examples=60)
@given(cells())
async def test_whatever_the_plc_has_is_read(case: tuple[list[Point], dict[int, Value]]) -> None:
    points, values = case
    device = Device(points)
    for index, value in values.items():
        device.plc.write(index, value)
    assert await device.values() == list(values.values())


async def test_overlapping_points_are_views_of_the_same_registers() -> None:
    bits = [point(f"holding:1.{bit}", "bool") for bit in (0, 3, 8, 15)]
    swapped = point("holding:1.0", "bool", byte_order="little")
    device = Device([point("holding:0", "uint32"), point("holding:1"), point("holding:1", "uint8"), *bits, swapped])
    device.plc.write(0, 0x0001_8109)
    assert await device.values() == [0x0001_8109, 0x8109, 0x09, True, True, True, True, True]
    assert device.told() == [(3, 0, 2)]


async def test_an_8_bit_value_is_written_as_a_whole_register() -> None:
    device = Device([point("holding:0", "int8", writable=True), point("holding:1", "uint8", writable=True)])
    device.plc.memory.areas["holding"].update({0: 0x5555, 1: 0x5555})
    await device.driver.write({0: -2, 1: 200})
    assert device.plc.memory.areas["holding"] == {0: 0xFFFE, 1: 200}


# What a device refuses


async def test_only_the_points_that_the_device_does_not_have_are_bad() -> None:
    device = Device(registers(0, 100))
    for missing in (37, 38, 90):
        del device.plc.memory.areas["holding"][missing]
    bad = [index for index, status in enumerate(await device.statuses()) if status == BAD_NODE_UNKNOWN]
    assert bad == [37, 38, 90]
    assert set(device.driver.troubles) == {"device.holding:37", "device.holding:38", "device.holding:90"}
    text = device.driver.troubles["device.holding:37"]
    assert text.startswith("the device has no holding register 37; addresses count from 0")


async def test_what_was_refused_is_remembered_and_not_asked_for_in_each_scan() -> None:
    device = Device(registers(0, 100))
    for missing in (37, 38, 90):
        del device.plc.memory.areas["holding"][missing]
    await device.statuses()
    device.told()
    for _ in range(3):
        assert (await device.statuses()).count(BAD_NODE_UNKNOWN) == 3
        assert device.told() == [(3, 0, 37), (3, 39, 51), (3, 91, 9)]
    assert len(device.driver.troubles) == 3


async def test_what_was_refused_is_asked_for_again_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(registers(0, 100))
    del device.plc.memory.areas["holding"][37]
    assert (await device.statuses())[37] == BAD_NODE_UNKNOWN
    monkeypatch.setattr(driver_module, "RETRY_S", 0.0)
    device.driver._retry_s = 0.0
    device.told()
    assert (await device.statuses())[37] == BAD_NODE_UNKNOWN
    assert device.told() == [(3, 37, 1), (3, 0, 37), (3, 38, 62)]
    device.plc.memory.areas["holding"][37] = 5
    assert (await device.values())[37] == 5
    assert device.told() == [(3, 37, 1), (3, 0, 100)]
    assert device.driver.troubles == {}


async def test_good_points_stay_good_while_a_refused_one_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "RETRY_S", 0.0)
    device = Device(registers(0, 20))
    for missing in (3, 7, 11):
        del device.plc.memory.areas["holding"][missing]
    for step in range(12):
        if step == 6:
            device.plc.memory.areas["holding"][7] = 0
        statuses = await device.statuses()
        assert {index for index, status in enumerate(statuses) if status != GOOD} <= {3, 7, 11}
    assert statuses[7] == GOOD


async def test_a_new_connection_is_asked_for_everything() -> None:
    device = Device(registers(0, 10))
    del device.plc.memory.areas["holding"][4]
    await device.statuses()
    device.plc.memory.areas["holding"][4] = 0
    await device.driver.close()
    await device.driver.connect()
    device.told()
    assert await device.statuses() == [GOOD] * 10
    assert device.told() == [(3, 0, 10)]


async def test_a_gap_that_the_device_does_not_have_makes_nobody_bad() -> None:
    device = Device([*registers(0, 3), *registers(5, 3)], gap=5)
    del device.plc.memory.areas["holding"][3], device.plc.memory.areas["holding"][4]
    for _ in range(2):
        assert await device.statuses() == [GOOD] * 6
    assert device.told() == [(3, 0, 8), (3, 0, 3), (3, 5, 3), (3, 0, 3), (3, 5, 3)]


async def test_a_value_of_two_registers_is_bad_where_one_is_missing() -> None:
    device = Device([point("holding:0", "float32"), point("holding:2", "float32"), point("holding:2")])
    del device.plc.memory.areas["holding"][3]
    assert await device.statuses() == [GOOD, BAD_NODE_UNKNOWN, GOOD]
    assert "holding registers 2 to 3" in device.driver.troubles["device.holding:2"]


@pytest.mark.parametrize("code", [modbus.ILLEGAL_ADDRESS, modbus.ILLEGAL_VALUE, modbus.FAILURE])
async def test_a_device_that_gives_only_so_many_registers_at_once(code: int) -> None:
    device = Device(registers(0, 100))
    device.refuse = lambda _function, _start, count: code if count > 30 else None
    assert await device.statuses() == [GOOD] * 100
    device.told()
    assert await device.statuses() == [GOOD] * 100
    assert device.told() == [(3, 0, 25), (3, 25, 25), (3, 50, 25), (3, 75, 25)]
    assert device.driver.troubles == {}


async def test_a_single_failure_leaves_no_split_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(registers(0, 100))
    codes = [modbus.FAILURE]
    device.refuse = lambda *_: codes.pop() if codes else None
    assert await device.statuses() == [GOOD] * 100
    monkeypatch.setattr(driver_module, "RETRY_S", 0.0)
    device.driver._retry_s = 0.0
    device.told()
    assert await device.statuses() == [GOOD] * 100
    assert device.told() == [(3, 0, 100)]


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        (modbus.ILLEGAL_FUNCTION, BAD_NOT_SUPPORTED, "no holding registers at all"),
        (modbus.ILLEGAL_ADDRESS, BAD_NODE_UNKNOWN, "no holding register"),
        (modbus.ILLEGAL_VALUE, BAD_OUT_OF_RANGE, "does not give holding register"),
        (modbus.FAILURE, BAD_DEVICE_FAILURE, "the device failed while it read holding register"),
        (modbus.ACKNOWLEDGE, BAD_WAITING, "busy"),
        (modbus.BUSY, BAD_WAITING, "busy"),
        (modbus.PARITY, BAD_DEVICE_FAILURE, "memory damaged"),
        (99, BAD, "the device refuses holding register"),
    ],
)
async def test_each_exception_in_words(code: int, status: int, words: str) -> None:
    device = Device([*registers(0, 4), point("input:0")])
    device.refuse = lambda function, _start, _count: code if function == modbus.READ_HOLDING else None
    assert await device.statuses() == [status] * 4 + [GOOD]
    assert set(device.driver.troubles) == {f"device.holding:{at}" for at in range(4)}
    assert all(words in text and f"(exception {code})" in text for text in device.driver.troubles.values())
    assert [reading.value for reading in await device.driver.scan()] == [None] * 4 + [0]


async def test_a_busy_device_is_good_again_with_the_next_scan() -> None:
    device = Device(registers(0, 4))
    codes = [modbus.BUSY]
    device.refuse = lambda *_: codes.pop() if codes else None
    assert await device.statuses() == [BAD_WAITING] * 4
    assert await device.statuses() == [GOOD] * 4
    assert device.driver.troubles == {}
    assert device.told() == [(3, 0, 4)] * 2


@pytest.mark.parametrize("code", [modbus.NO_PATH, modbus.NO_TARGET])
async def test_a_gateway_that_does_not_reach_the_unit(code: int) -> None:
    device = Device(registers(0, 4, writable=True))
    device.refuse = lambda *_: code
    for doing in (device.driver.scan(), device.driver.write({0: 1})):
        with pytest.raises(DeviceError, match="the gateway device:502 does not reach unit 1") as caught:
            await doing
        assert caught.value.status == BAD_NO_COMMUNICATION and "`unit`" in caught.value.hint


# Writing


async def test_single_values_are_written_by_functions_5_and_6() -> None:
    device = Device(CONVEYOR)
    assert await device.driver.write({0: 500, 3: True}) == {0: GOOD, 3: GOOD}
    assert device.told() == [(5, 7, 0xFF00), (6, 10, 500)]
    await device.driver.write({3: False})
    assert device.told() == [(5, 7, 0)]
    assert (device.plc.read(0), device.plc.read(3)) == (500, False)


async def test_neighbours_are_written_together_and_no_gap_is_ever_bridged() -> None:
    coils = [point(f"coil:{at}", "bool", writable=True) for at in (0, 1, 2, 4)]
    device = Device([*registers(0, 4, writable=True), *registers(5, 1, writable=True), *coils], gap=10)
    values: dict[int, Value] = {0: 1, 1: 2, 3: 4, 4: 5, 5: True, 6: False, 7: True, 8: True}
    assert await device.driver.write(values) == dict.fromkeys(values, GOOD)
    assert device.told() == [(15, 0, 3), (5, 4, 0xFF00), (16, 0, 2), (6, 3, 4), (6, 5, 5)]
    assert [device.plc.read(index) for index in range(9)] == [1, 2, 0, 4, 5, True, False, True, True]


async def test_the_protocols_limits_of_writes() -> None:
    device = Device(
        [*registers(0, 130, writable=True), *(point(f"coil:{n}", "bool", writable=True) for n in range(1970))]
    )
    values = dict.fromkeys(range(130), 7) | dict.fromkeys(range(130, 2100), True)
    assert set((await device.driver.write(values)).values()) == {GOOD}
    assert device.told() == [(15, 0, 1968), (15, 1968, 2), (16, 0, 123), (16, 123, 7)]


async def test_values_and_points_that_cannot_be_written_are_not_sent() -> None:
    device = Device(CONVEYOR)
    wrong: dict[int, Value] = {0: 65536, 1: 1.0, 3: 1, 5: "seventeen letters"}
    expected = {0: BAD_OUT_OF_RANGE, 1: BAD_NOT_WRITABLE, 3: BAD_OUT_OF_RANGE, 5: BAD_OUT_OF_RANGE}
    assert await device.driver.write(wrong) == expected
    assert device.told() == []
    assert await device.driver.write({0: True, 2: True}) == {0: BAD_OUT_OF_RANGE, 2: BAD_NOT_WRITABLE}


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (modbus.ILLEGAL_FUNCTION, BAD_NOT_SUPPORTED),
        (modbus.ILLEGAL_ADDRESS, BAD_NOT_WRITABLE),
        (modbus.ILLEGAL_VALUE, BAD_OUT_OF_RANGE),
        (modbus.FAILURE, BAD_DEVICE_FAILURE),
        (modbus.BUSY, BAD_WAITING),
        (77, BAD),
    ],
)
async def test_a_refused_write_is_not_repeated_by_the_driver(code: int, status: int) -> None:
    device = Device(registers(0, 1, writable=True))
    device.refuse = lambda *_: code
    assert await device.driver.write({0: 5}) == {0: status}
    assert device.told() == [(6, 0, 5)]


async def test_a_write_to_a_register_that_is_not_there() -> None:
    device = Device(registers(0, 2, writable=True))
    del device.plc.memory.areas["holding"][1]
    await device.driver.scan()
    assert await device.driver.write({1: 5}) == {1: BAD_NODE_UNKNOWN}


async def test_one_point_that_refuses_does_not_keep_its_neighbours_from_being_written() -> None:
    device = Device(registers(0, 3, writable=True))
    device.refuse = lambda function, start, count: (
        modbus.ILLEGAL_VALUE if (function, count) == (16, 3) or (function, start) == (6, 1) else None
    )
    values: dict[int, Value] = {0: 1, 1: 2, 2: 3}
    assert await device.driver.write(values) == dict.fromkeys(values, BAD_OUT_OF_RANGE)
    assert device.told() == [(16, 0, 3)]
    assert await device.driver.write(values) == {0: GOOD, 1: BAD_OUT_OF_RANGE, 2: GOOD}
    assert device.told() == [(6, 0, 1), (6, 1, 2), (6, 2, 3)]


async def test_a_device_without_function_6_is_written_by_16_and_the_other_way_round() -> None:
    device = Device(registers(0, 2, writable=True))
    device.refuse = lambda function, *_: modbus.ILLEGAL_FUNCTION if function == 6 else None
    assert await device.driver.write({0: 1}) == {0: BAD_NOT_SUPPORTED}
    assert await device.driver.write({0: 1}) == {0: GOOD}
    device = Device(registers(0, 2, writable=True))
    device.refuse = lambda function, *_: modbus.ILLEGAL_FUNCTION if function == 16 else None
    assert await device.driver.write({0: 1, 1: 2}) == dict.fromkeys((0, 1), BAD_NOT_SUPPORTED)
    assert await device.driver.write({0: 1, 1: 2}) == dict.fromkeys((0, 1), GOOD)


# Real sockets


@contextlib.asynccontextmanager
async def connected(where: Mapping[str, Any], points: Sequence[Point], **options: Any) -> AsyncIterator[ModbusDriver]:
    driver = ModbusDriver(ModbusSettings(**{"timeout": LONG_S, **where, **options}), points, {})
    await driver.connect()
    try:
        yield driver
    finally:
        await driver.close()


@contextlib.asynccontextmanager
async def simulated(points: Sequence[Point], **options: Any) -> AsyncIterator[tuple[ModbusPlc, dict[str, Any]]]:
    plc = ModbusPlc("plc", points, ModbusSettings(host="unused", **options))
    where = await plc.start("127.0.0.1", 0)
    try:
        yield plc, where
    finally:
        await plc.stop()


async def scanned(driver: ModbusDriver) -> list[Value | None]:
    return [reading.value for reading in await driver.scan()]


@pytest.mark.parametrize("depth", [1, 4])
async def test_the_driver_and_the_simulated_plc(depth: int) -> None:
    points = CONVEYOR + registers(100, 400)
    async with simulated(points) as (plc, where), connected(where, points, depth=depth) as driver:
        plc.write(1, -1.25)
        plc.write(4, True)
        plc.write(405, 65535)
        assert await driver.write({0: 321, 3: True, 5: "é"}) == {0: GOOD, 3: GOOD, 5: GOOD}
        values = await scanned(driver)
        assert values[:6] == [321, -1.25, False, True, True, "é"]
        assert values[6:] == [0] * 399 + [65535]
        assert [plc.read(index) for index in (0, 3, 5)] == [321, True, "é"]


async def test_many_clients_at_once() -> None:
    points = registers(0, 10, writable=True)
    async with simulated(points) as (_, where), contextlib.AsyncExitStack() as stack:
        drivers = [await stack.enter_async_context(connected(where, points)) for _ in range(10)]
        await asyncio.gather(*(driver.write({index: index + 1}) for index, driver in enumerate(drivers)))
        assert await asyncio.gather(*map(scanned, drivers)) == [list(range(1, 11))] * 10


async def test_a_lost_plc_is_said_at_once_and_found_again() -> None:
    points = registers(0, 3)
    async with simulated(points) as (plc, where), connected(where, points) as driver:
        await driver.scan()
        await plc.stop()
        with pytest.raises(DeviceError) as caught:
            await driver.scan()
        place = f"127.0.0.1:{where['port']}"
        assert caught.value.text == f"the connection to {place} was closed by the device"
        with pytest.raises(DeviceError, match=f"{place} refuses the connection"):
            await driver.connect()
        await driver.close()
        await plc.start("127.0.0.1", where["port"])
        await driver.connect()
        assert await scanned(driver) == [0, 0, 0]


async def test_the_port_of_a_plc_in_use() -> None:
    async with simulated([]) as (_, where):
        with pytest.raises(OSError, match="address already in use"):
            await ModbusPlc("other", [], ModbusSettings(host="unused")).start("127.0.0.1", where["port"])


async def test_a_plc_that_hears_something_else_hangs_up() -> None:
    async with simulated(registers(0, 1)) as (_, where):
        reader, writer = await asyncio.open_connection(where["host"], where["port"])
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


@contextlib.asynccontextmanager
async def gateway(devices: Mapping[int, Memory], silent: Sequence[int] = ()) -> AsyncIterator[tuple[int, list[int]]]:
    """A gateway that takes one connection; gives its port and the units asked for. It has no answer of silent units."""
    asked: list[int] = []
    taken: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        session, frames = Session(devices), Frames()
        while len(taken) == 1 and (data := await reader.read(4096)):
            for transaction, payload in frames.feed(data):
                asked.append(payload[0])
                if payload[0] not in silent:
                    writer.write(session.feed(modbus.frame(transaction, payload)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()
        for writer in taken:
            writer.transport.abort()
        await server.wait_closed()


def units(port: int, *numbers: int, timeout: float = LONG_S) -> list[ModbusDriver]:
    connections: dict[str, Any] = {}
    where = ModbusSettings(host="127.0.0.1", port=port, timeout=timeout)
    return [
        ModbusDriver(msgspec.structs.replace(where, unit=number), registers(0, 2, writable=True), connections)
        for number in numbers
    ]


async def test_two_units_of_one_gateway_share_a_connection() -> None:
    memories = {unit: ModbusPlc("m", registers(0, 2), ModbusSettings(host="")).memory for unit in (1, 2)}
    async with gateway(memories) as (port, asked):
        one, two = units(port, 1, 2)
        await asyncio.gather(one.connect(), two.connect())
        await asyncio.gather(one.write({0: 11}), two.write({0: 22}))
        assert await asyncio.gather(scanned(one), scanned(two)) == [[11, 0], [22, 0]]
        assert sorted(asked) == [1, 1, 2, 2]
        await one.close()
        assert await scanned(two) == [22, 0]
        await two.close()


async def test_a_unit_that_is_not_there_does_not_disturb_the_others() -> None:
    async with gateway({1: ModbusPlc("m", registers(0, 2), ModbusSettings(host="")).memory}) as (port, _):
        one, two = units(port, 1, 2)
        await one.connect()
        await two.connect()
        for _ in range(3):
            with pytest.raises(DeviceError, match="does not reach unit 2"):
                await two.scan()
            await two.close()
            assert await scanned(one) == [0, 0]
            await two.connect()
        await one.close()
        await two.close()


async def test_a_unit_that_is_silent_does_not_end_the_others_connection() -> None:
    async with gateway({1: ModbusPlc("m", registers(0, 2), ModbusSettings(host="")).memory}, silent=[2]) as (port, _):
        one, two = units(port, 1, 2, timeout=SHORT_S)
        await one.connect()
        await two.connect()
        assert await scanned(one) == [0, 0]
        with pytest.raises(DeviceError) as caught:
            await two.scan()
        assert caught.value.status == BAD_TIMEOUT
        assert await scanned(one) == [0, 0]
        await two.close()
        assert await scanned(one) == [0, 0]
        await one.close()


# Bad devices: each answers the first requests as a script says


@contextlib.asynccontextmanager
async def scripted(answer: Answer, *, requests: int = 1) -> AsyncIterator[tuple[dict[str, Any], list[bytes]]]:
    """A device that answers a request (transaction, payload) with these pieces, and closes after so many requests."""
    asked: list[bytes] = []
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        frames, left = Frames(), requests
        while left and (data := await reader.read(4096)):
            for transaction, payload in frames.feed(data):
                asked.append(payload)
                for piece in answer(transaction, payload):
                    writer.write(piece)
                    await writer.drain()
                left -= 1
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]}, asked
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


SEVEN = [point("holding:7", writable=True)]
RIGHT = b"\x01\x03\x02\x00\x2a"


@pytest.mark.parametrize(
    "pieces",
    [
        lambda right, _: [right],
        lambda right, _: [right[at : at + 1] for at in range(len(right))],
        lambda right, stale: [stale + right],
        lambda right, stale: [stale, right],
        lambda right, stale: [stale + right[:5], right[5:]],
        lambda right, _: [right + right],
        lambda right, stale: [right + stale],
    ],
    ids=["whole", "byte by byte", "stale and right", "stale, right", "stale and half", "doubled", "stale after it"],
)
async def test_answers_that_come_oddly_are_still_the_right_ones(pieces: Callable[..., list[bytes]]) -> None:
    def answer(transaction: int, _payload: bytes) -> list[bytes]:
        return pieces(modbus.frame(transaction, RIGHT), modbus.frame(transaction - 1 & 0xFFFF, b"\1\3\2\xff\xff"))

    async with scripted(answer, requests=3) as (where, _), connected(where, SEVEN) as driver:
        for _ in range(3):
            assert await scanned(driver) == [42]


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\x02\x03\x02\x00\x2a", "it answered for unit 2 instead of 1"),
        (b"\x01\x04\x02\x00\x2a", "it answered function 4 to function 3"),
        (b"\x01\x84\x02", "it answered function 132 to function 3"),
        (b"\x01\x03\x04\x00\x2a\x00\x2a", "it answered 4 bytes where 2 were asked for"),
        (b"\x01\x03\x02\x00", "it answered 1 bytes where 2 were asked for"),
        (b"\x01\x03", "where 2 were asked for"),
    ],
)
async def test_an_answer_to_another_question_ends_the_connection(payload: bytes, words: str) -> None:
    async with (
        scripted(lambda transaction, _: [modbus.frame(transaction, payload)], requests=9) as (where, _),
        connected(where, SEVEN) as driver,
    ):
        with pytest.raises(DeviceError) as caught:
            await driver.scan()
        assert f"127.0.0.1:{where['port']} does not answer what it was asked: " in caught.value.text
        assert words in caught.value.text and caught.value.status == BAD_COMMUNICATION
        assert not driver._link.up


async def test_an_answer_without_data_is_taken_as_a_refusal() -> None:
    async with (
        scripted(lambda transaction, _: [modbus.frame(transaction, b"\1\3\0")], requests=9) as (where, _),
        connected(where, SEVEN) as driver,
    ):
        assert [reading.status for reading in await driver.scan()] == [BAD_NODE_UNKNOWN]


@pytest.mark.parametrize("size", [0, 3, 8])
async def test_a_device_that_closes_in_the_middle_of_an_answer(size: int) -> None:
    def answer(transaction: int, _payload: bytes) -> list[bytes]:
        return [modbus.frame(transaction, RIGHT)[:size]]

    async with scripted(answer) as (where, asked), connected(where, SEVEN) as driver:
        with pytest.raises(DeviceError, match="was closed by the device") as caught:
            await driver.write({0: 5})
        assert "only one connection" in caught.value.hint
        assert asked == [modbus.write_request(1, 6, 7, 1, b"\0\5")]


async def test_a_device_that_accepts_and_never_answers() -> None:
    async with scripted(lambda *_: [], requests=9) as (where, asked):
        async with connected(where, SEVEN, timeout=SHORT_S) as driver:
            for doing in (driver.scan, lambda: driver.write({0: 5})):
                await driver.connect()
                with pytest.raises(DeviceError) as caught:
                    await doing()
                assert caught.value.status == BAD_TIMEOUT
                assert caught.value.text == f"127.0.0.1:{where['port']} did not answer within {SHORT_S:g} s"
        assert len(asked) == 2  # the write went out once


async def test_a_device_that_echoes_another_value_has_not_confirmed_the_write() -> None:
    def clipped(transaction: int, payload: bytes) -> list[bytes]:
        return [modbus.frame(transaction, payload[:4] + b"\0\x09")]

    async with scripted(clipped, requests=9) as (where, _), connected(where, SEVEN) as driver:
        assert await driver.write({0: 10}) == {0: BAD_OUT_OF_RANGE}


async def test_a_port_of_another_protocol() -> None:
    async with (
        scripted(lambda *_: [b"220 plc FTP ready\r\n"], requests=9) as (where, _),
        connected(where, SEVEN) as driver,
    ):
        with pytest.raises(DeviceError, match="sends what is not of its protocol") as caught:
            await driver.scan()
        assert "right port" in caught.value.hint


# pymodbus


async def test_the_driver_against_pymodbuss_server() -> None:
    from pymodbus import ModbusDeviceIdentification
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    bits = [SimData(0, count=100, values=False, datatype=DataType.BITS)]
    words = [SimData(0, count=300, values=7, datatype=DataType.REGISTERS)]
    device = SimDevice(1, simdata=(list(bits), list(bits), list(words), list(words)))
    told = {"VendorName": "Atelier", "ProductCode": "P1", "MajorMinorRevision": "2.5", "ProductName": "Press"}
    identity = ModbusDeviceIdentification(info_name=told)
    server = ModbusTcpServer(device, address=("127.0.0.1", 0), identity=identity)
    await server.serve_forever(background=True)
    assert server.transport is not None
    where = {"host": "127.0.0.1", "port": server.transport.sockets[0].getsockname()[1]}  # type: ignore[attr-defined]
    try:
        points = [*CONVEYOR, *registers(60, 60, writable=True), point("holding:299"), point("holding:300")]
        async with connected(where, points) as driver:
            values: dict[int, Value] = {0: 500, 3: True, 5: "lot 7", **{index: index for index in range(6, 20)}}
            assert await driver.write(values) == dict.fromkeys(values, GOOD)
            readings = await driver.scan()
            assert {index: readings[index].value for index in values} == values
            assert readings[25].value == 7 and readings[-2].value == 7
            assert readings[-1].status == BAD_NODE_UNKNOWN and list(driver.troubles) == ["device.holding:300"]
            identified = {"vendor": "Atelier", "code": "P1", "version": "2.5", "product": "Press"}
            assert await driver.identify() == identified
    finally:
        await server.shutdown()


async def test_pymodbuss_client_and_the_simulated_plc() -> None:
    from pymodbus.client import AsyncModbusTcpClient

    async with simulated(CONVEYOR, unit=5) as (plc, where):
        client = AsyncModbusTcpClient(where["host"], port=where["port"], retries=0)
        await client.connect()
        plc.write(1, 12.5)
        plc.write(2, True)
        read = await client.read_input_registers(20, count=2, device_id=5)
        assert client.convert_from_registers(read.registers, client.DATATYPE.FLOAT32, word_order="little") == 12.5
        assert (await client.read_discrete_inputs(3, count=1, device_id=5)).bits[0]
        await client.write_register(10, 77, device_id=5)
        await client.write_coil(7, True, device_id=5)
        await client.write_registers(40, [0x6162, 0], device_id=5)
        assert [plc.read(index) for index in (0, 3, 5)] == [77, True, "ab"]
        assert (await client.read_holding_registers(11, count=1, device_id=5)).exception_code == 2
        assert (await client.read_holding_registers(10, count=1, device_id=6)).exception_code == 11
        client.close()


async def test_the_simulated_plc_answers_every_pipelined_request() -> None:
    async with simulated(registers(0, 100)) as (plc, where):
        for index in range(100):
            plc.write(index, index * 3)
        reader, writer = await asyncio.open_connection(where["host"], where["port"])
        writer.write(b"".join(modbus.frame(n, modbus.read_request(1, 3, n, 1)) for n in range(100)))
        expected = b"".join(modbus.frame(n, b"\1\3\2" + (n * 3).to_bytes(2, "big")) for n in range(100))
        assert await reader.readexactly(len(expected)) == expected
        writer.close()


# mbpoll


async def mbpoll(where: Mapping[str, Any], *arguments: str) -> str:
    """What mbpoll prints."""
    command = ["mbpoll", "-m", "tcp", "-p", str(where["port"]), "-0", "-1", "-o", "10", where["host"], *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.peer
async def test_mbpoll_reads_and_writes_what_the_plc_has() -> None:
    async with simulated(CONVEYOR) as (plc, where):
        plc.write(0, 500)
        plc.write(1, 12.5)
        plc.write(2, True)
        assert "[10]: \t500" in await mbpoll(where, "-t", "4", "-r", "10")
        assert "[20]: \t12.5" in await mbpoll(where, "-t", "3:float", "-r", "20")
        assert "[3]: \t1" in await mbpoll(where, "-t", "1", "-r", "3")
        assert "Written 1 references" in await mbpoll(where, "-t", "4", "-r", "10", "250")
        assert "Written 1 references" in await mbpoll(where, "-t", "0", "-r", "7", "1")
        assert "Written 2 references" in await mbpoll(where, "-t", "4", "-r", "40", "24930", "0")
        assert [plc.read(index) for index in (0, 3, 5)] == [250, True, "ab"]
        assert "Illegal data address" in await mbpoll(where, "-t", "4", "-r", "11")
        assert "Target device failed to respond" in await mbpoll(where, "-t", "4", "-r", "10", "-a", "9")


# Settings and the driver's entry


def test_the_driver_is_found_by_its_name() -> None:
    assert find("modbus") is ModbusDriver


@pytest.mark.parametrize(
    "wrong",
    [{"port": 0}, {"unit": 256}, {"timeout": 0}, {"depth": 0}, {"max_registers": 126}, {"speed": 9600}, {"host": 1}],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"host": "h", **wrong}, ModbusSettings)


async def test_a_connection_to_nowhere() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        driver = ModbusDriver(ModbusSettings(host="127.0.0.1", port=taken.getsockname()[1]), SEVEN, {})
        with pytest.raises(DeviceError, match="refuses the connection"):
            await driver.connect()
        await driver.close()
        await driver.close()


async def test_a_device_cannot_tell_what_it_offers_but_who_it_is() -> None:
    async with simulated(CONVEYOR) as (plc, where), connected(where, CONVEYOR) as driver:
        assert await driver.browse() == ()
        assert await driver.identify() == {"vendor": "edge", "code": "simulated", "version": "1"}
        plc.memory.functions.remove(modbus_identity.FUNCTION)
        assert await driver.identify() == {}
        assert set((await driver.scan()).statuses) == {GOOD}


@given(st.binary(max_size=40), st.booleans())
def test_any_answer_says_who_a_device_is_or_nothing(tail: bytes, begun: bool) -> None:
    texts, following = modbus_identity.parse(b"\x01\x2b\x0e" + tail if begun else tail)
    assert all(isinstance(text, str) for text in texts.values()) and 0 <= following <= 255
