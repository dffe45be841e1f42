"""The S7 driver and the simulated S7 PLC: with each other, with python-snap7, and with peers that misbehave."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random
from typing import Any

import msgspec
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from snap7 import Client as Snap7Client
from snap7 import Server as Snap7Server
from snap7.type import Area, SrvArea, WordLen

from drivers import s7 as s7_driver
from drivers import s7_codec as s7
from drivers.blocks import Field, unpacker
from drivers.driver import DeviceError, Point
from drivers.s7 import S7Driver, Settings
from drivers.s7_address import Place
from drivers.s7_codec import ClientCodec
from drivers.s7_jobs import Item, pack, read_jobs, side_by_side, write_jobs
from drivers.value import (
    BAD_CONFIGURATION,
    BAD_NODE_UNKNOWN,
    BAD_NOT_READABLE,
    BAD_NOT_SUPPORTED,
    BAD_NOT_WRITABLE,
    BAD_OUT_OF_RANGE,
    BAD_TIMEOUT,
    BAD_TYPE_MISMATCH,
    GOOD,
    Value,
    parse_type,
)
from hil import s7_plc
from hil.s7_plc import Memory, S7Plc, Session
from tests.listening import listening

CELL: list[tuple[str, str, Value]] = [
    ("DB1.DBD0", "float32", 12.5),
    ("DB1.DBX4.0", "bool", True),
    ("DB1.DBX4.7", "bool", False),
    ("DB1.DBB5", "int8", -5),
    ("DB1.DBW6", "uint16", 65535),
    ("DB1.DBD8", "int32", -(2**31)),
    ("DB1.DBB12", "int64", -(2**63)),
    ("DB1.DBB20", "uint64", 2**64 - 1),
    ("DB1.DBB28", "float64", -1.25e300),
    ("DB1.DBB36", "string[16]", "Äpfel"),
    ("DB7.DBW400", "int16", -300),
    ("M10.0", "bool", True),
    ("MB11", "uint8", 200),
    ("MW12", "uint16", 1234),
    ("MD14", "uint32", 2**32 - 1),
    ("QW4", "int16", -4),
    ("Q0.1", "bool", True),
]
INPUTS: list[tuple[str, str, Value]] = [
    ("I0.3", "bool", True),
    ("IB1", "uint8", 7),
    ("IW2", "uint16", 9),
    ("ID4", "float32", -0.5),
]


def points(*addresses: tuple[str, str], writable: bool = True) -> list[Point]:
    return [Point(f"tag{n}", at, parse_type(kind), writable) for n, (at, kind) in enumerate(addresses)]


CELL_POINTS = points(*[(at, kind) for at, kind, _ in CELL])
CELL_VALUES = [value for _, _, value in CELL]


@contextlib.asynccontextmanager
async def simulated(of: list[Point], *, pdu: int = 240, **settings: Any) -> AsyncIterator[tuple[S7Plc, Settings]]:
    chosen = Settings(host="127.0.0.1", timeout=10.0, **settings)
    plc = S7Plc("plc", of, chosen, pdu=pdu)
    reached = await plc.start("127.0.0.1", 0)
    try:
        yield plc, msgspec.structs.replace(chosen, **reached)
    finally:
        await plc.stop()


class Asked(list[bytes]):
    """Every request that drivers send, in order, and how many were on their way at a time."""

    now = most = 0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    requests = Asked()
    encode, feed = ClientCodec.encode, ClientCodec.feed

    def sent(codec: ClientCodec, request: bytes) -> tuple[int, bytes]:
        requests.append(request)
        requests.now += 1
        requests.most = max(requests.most, requests.now)
        return encode(codec, request)

    def received(codec: ClientCodec, data: bytes) -> list[tuple[int, bytes]]:
        answers = feed(codec, data)
        requests.now -= len(answers)
        return answers

    monkeypatch.setattr(ClientCodec, "encode", sent)
    monkeypatch.setattr(ClientCodec, "feed", received)
    return requests


@contextlib.asynccontextmanager
async def connected(settings: Settings, of: list[Point]) -> AsyncIterator[S7Driver]:
    driver = S7Driver(settings, of, {})
    try:
        await driver.connect()
        yield driver
    finally:
        await driver.close()


# the driver and the simulated PLC


@pytest.mark.parametrize(("pdu", "depth"), [(240, 1), (480, 1), (960, 4)])
async def test_reads_and_writes_every_type_and_area(pdu: int, depth: int) -> None:
    inputs = [Point(f"in{n}", at, parse_type(kind)) for n, (at, kind, _) in enumerate(INPUTS)]
    everything = [*CELL_POINTS, *inputs]
    async with (
        simulated(everything, pdu=pdu, depth=depth) as (plc, settings),
        connected(settings, everything) as driver,
    ):
        for n, (_, _, value) in enumerate(INPUTS):
            plc.write(len(CELL) + n, value)
        assert await driver.write(dict(enumerate(CELL_VALUES))) == dict.fromkeys(range(len(CELL)), GOOD)
        assert [plc.read(n) for n in range(len(CELL))] == CELL_VALUES
        readings = await driver.scan()
        assert [reading.value for reading in readings] == [*CELL_VALUES, *(value for _, _, value in INPUTS)]
        assert {reading.status for reading in readings} == {GOOD}
        assert all(reading.time_ns > 0 for reading in readings)
        assert driver.troubles == {}


async def test_a_scan_says_whether_anything_changed() -> None:
    async with simulated(CELL_POINTS) as (plc, settings), connected(settings, CELL_POINTS) as driver:
        first, again = await driver.scan(), await driver.scan()
        assert first.changed and not again.changed
        assert list(again.values) == list(first.values) and again.time_ns > first.time_ns
        plc.write(0, CELL_VALUES[0])
        third = await driver.scan()
        assert third.changed and third.values[0] == CELL_VALUES[0] != first.values[0]
        assert third.values[1:] == first.values[1:]
        assert not (await driver.scan()).changed


async def test_a_bit_is_written_without_its_neighbours() -> None:
    bits = points(*[(f"DB1.DBX0.{bit}", "bool") for bit in range(8)])
    async with simulated(bits) as (plc, settings), connected(settings, bits) as driver:
        for n in (1, 4, 6):
            plc.write(n, True)
        await driver.write({0: True, 4: False, 7: True})
        assert [plc.read(n) for n in range(8)] == [True, True, False, False, False, False, True, True]


async def test_hundreds_of_scattered_points_in_few_jobs(asked: Asked) -> None:
    scattered = points(*[(f"DB{1 + n % 3}.DBW{n * 6}", "uint16") for n in range(600)])
    async with simulated(scattered, pdu=960, depth=8) as (plc, settings):
        for n in range(600):
            plc.write(n, n * 7)
        async with connected(msgspec.structs.replace(settings, pdu=960), scattered) as driver:
            asked.clear()
            assert [reading.value for reading in await driver.scan()] == [n * 7 for n in range(600)]
            assert len(asked) == 600 / s7.MAX_ITEMS
            statuses = await driver.write({n: n + 1 for n in range(600)})
            assert set(statuses.values()) == {GOOD} and len(statuses) == 600
            assert [plc.read(n) for n in range(600)] == [n + 1 for n in range(600)]


@pytest.mark.parametrize(("granted", "most"), [(1, 1), (3, 3), (8, 4)])
async def test_no_more_jobs_at_a_time_than_the_plc_grants(
    granted: int, most: int, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s7_plc, "PARALLEL_JOBS", granted)
    scattered = points(*[(f"DB1.DBW{n * 4}", "uint16") for n in range(80)])
    async with simulated(scattered, depth=4) as (plc, settings), connected(settings, scattered) as driver:
        plc.write(79, 5)
        assert [reading.value for reading in await driver.scan()] == [0] * 79 + [5]
        assert asked.most == most


async def test_how_many_jobs_at_a_time_is_found_out(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `depth: auto`: more than one where it is granted, never more than that."""
    monkeypatch.setattr(s7_plc, "PARALLEL_JOBS", 3)
    scattered = points(*[(f"DB1.DBW{n * 4}", "uint16") for n in range(160)])
    async with simulated(scattered, depth="auto") as (_, settings), connected(settings, scattered) as driver:
        for _ in range(100):
            assert set((await driver.scan()).statuses) == {GOOD}
        assert 2 <= asked.most <= 3


@pytest.mark.parametrize(("gap", "jobs"), [(0, 3), (1, 3), (2, 1)])
async def test_a_gap_is_bridged_only_where_the_device_allows_it(gap: int, jobs: int, asked: Asked) -> None:
    spread = points(*[(f"DB1.DBW{n * 4}", "uint16") for n in range(40)])
    async with simulated(spread, gap=gap) as (_, settings), connected(settings, spread) as driver:
        asked.clear()
        await driver.scan()
        assert len(asked) == jobs


async def test_two_devices_at_one_address_share_a_connection() -> None:
    connections: dict[str, Any] = {}
    async with simulated(CELL_POINTS) as (plc, settings):
        first, second = (S7Driver(settings, CELL_POINTS[part], connections) for part in (slice(5), slice(5, None)))
        await asyncio.gather(first.connect(), second.connect())
        assert len(plc.port.connections) == 1
        await asyncio.gather(first.scan(), second.scan())
        await first.close()
        assert [reading.status for reading in await second.scan()] == [GOOD] * (len(CELL) - 5)
        await second.close()


async def test_only_the_guilty_points_are_bad() -> None:
    there = points(("DB1.DBW0", "int16"), ("DB1.DBW14", "int16"), ("DB2.DBW0", "int16"), ("MW0", "int16"))
    lost = points(
        ("DB1.DBW16", "int16"),
        ("DB1.DBD18", "float32"),
        ("DB9.DBW0", "int16"),
        ("DB9.DBW2", "int16"),
        ("QW60000", "int16"),
    )
    wanted = [*there, *[msgspec.structs.replace(point, name=f"lost{n}") for n, point in enumerate(lost)]]
    async with simulated(there) as (plc, settings), connected(settings, wanted) as driver:
        plc.memory.no_access.add((s7.DATA_BLOCK, 2))
        plc.write(1, 77)
        for _ in range(3):
            readings = list(await driver.scan())
            assert [reading.status for reading in readings[:4]] == [GOOD, GOOD, BAD_NOT_READABLE, GOOD]
            assert readings[1].value == 77
            statuses = [BAD_OUT_OF_RANGE] * 2 + [BAD_NODE_UNKNOWN] * 2 + [BAD_OUT_OF_RANGE]
            assert [reading.status for reading in readings[4:]] == statuses
        assert set(driver.troubles) == {"tag2", "lost0", "lost1", "lost2", "lost3", "lost4"}
        assert "PUT/GET" in driver.troubles["tag2"] and "block access` of DB2" in driver.troubles["tag2"]
        assert "outside of DB1" in driver.troubles["lost1"] and "DB1.DBD18" in driver.troubles["lost1"]
        assert "does not know DB9" in driver.troubles["lost2"]
        assert "hardware configuration" in driver.troubles["lost4"]
        assert await driver.write({0: 5, 2: 5, 4: 5, 6: 5}) == {
            0: GOOD,
            2: BAD_NOT_WRITABLE,
            4: BAD_OUT_OF_RANGE,
            6: BAD_NODE_UNKNOWN,
        }


async def test_a_refused_point_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s7_driver, "RETRY_S", 0.0)
    wanted = points(("DB1.DBW0", "int16"), ("DB2.DBW0", "int16"))
    async with simulated(wanted) as (plc, settings), connected(settings, wanted) as driver:
        block = plc.memory.areas.pop((s7.DATA_BLOCK, 2))
        assert [reading.status for reading in await driver.scan()] == [GOOD, BAD_NODE_UNKNOWN]
        plc.memory.areas[s7.DATA_BLOCK, 2] = block
        assert [reading.status for reading in await driver.scan()] == [GOOD, GOOD]
        assert driver.troubles == {}


async def test_a_refused_point_is_left_out_meanwhile(asked: Asked) -> None:
    wanted = points(*[(f"DB1.DBW{n * 2}", "int16") for n in range(100)])
    async with simulated(wanted[:50]) as (_, settings), connected(settings, wanted) as driver:
        await driver.scan()
        asked.clear()
        readings = await driver.scan()
        assert len(asked) == 1
        assert sum(reading.status == GOOD for reading in readings) == 56  # the block ends at a multiple of 16 bytes


async def test_a_plc_that_gives_no_point_is_still_seen_to_be_lost() -> None:
    wanted = points(("DB2.DBW0", "int16"))
    async with simulated(CELL_POINTS) as (plc, settings), connected(settings, wanted) as driver:
        for _ in range(3):
            assert [reading.status for reading in await driver.scan()] == [BAD_NODE_UNKNOWN]
        await plc.stop()
        with pytest.raises(DeviceError):
            await driver.scan()


async def test_the_plcs_strings_are_not_overrun() -> None:
    declared = points(("DB1.DBB0", "string[10]"), ("DB1.DBW12", "uint16"))
    async with simulated(declared) as (plc, settings), connected(settings, declared) as driver:
        assert await driver.write({0: "0123456789"}) == {0: GOOD}
        assert (await driver.scan())[0].value == "0123456789"
        assert await driver.write({0: "عرب"}) == {0: BAD_OUT_OF_RANGE}
        memory = plc.memory.areas[s7.DATA_BLOCK, 1]
        memory[0:2] = b"\x08\x03"  # the PLC's own is a STRING[8]
        readings = await driver.scan()
        assert readings[0].status == BAD_TYPE_MISMATCH and "STRING[8]" in driver.troubles["tag0"]
        assert await driver.write({0: "0123456789"}) == {0: BAD_TYPE_MISMATCH}
        memory[0] = 254
        assert await driver.write({0: "ab"}) == {0: GOOD}
        assert memory[0] == 254
        assert [reading.value for reading in await driver.scan()] == ["ab", 0]
        assert driver.troubles == {}


async def test_a_string_larger_than_a_message_is_bad_alone() -> None:
    wanted = points(("DB1.DBB0", "string[254]"), ("DB1.DBW256", "int16"), ("DB2.DBB0", "string[220]"))
    async with simulated(wanted) as (_, settings), connected(settings, wanted) as driver:
        assert [reading.status for reading in await driver.scan()] == [BAD_NOT_SUPPORTED, GOOD, GOOD]
        assert "string[220] can be read" in driver.troubles["tag0"]
        assert await driver.write({0: "x", 2: "x" * 211}) == {0: BAD_TYPE_MISMATCH, 2: GOOD}
        assert await driver.write({2: "x" * 212}) == {2: BAD_NOT_SUPPORTED}
    async with simulated(wanted, pdu=480) as (_, settings), connected(settings, wanted) as driver:
        assert await driver.write({0: "x" * 254}) == {0: GOOD}
        assert (await driver.scan())[0].value == "x" * 254


async def test_a_read_point_is_not_written() -> None:
    wanted = points(("DB1.DBW0", "int16"), writable=False)
    async with simulated(wanted) as (plc, settings), connected(settings, wanted) as driver:
        assert await driver.write({0: 3}) == {0: BAD_NOT_WRITABLE}
        assert plc.read(0) == 0


async def test_another_slot_is_refused_in_plain_words() -> None:
    async with simulated(CELL_POINTS, slot=2) as (_, settings):
        driver = S7Driver(msgspec.structs.replace(settings, slot=1), CELL_POINTS, {})
        with pytest.raises(DeviceError, match="CPU in rack 0, slot 1") as caught:
            await driver.connect()
        assert caught.value.status == BAD_CONFIGURATION and "slot 2" in caught.value.hint
        await driver.close()


async def test_after_a_restart_of_the_plc_it_connects_again() -> None:
    async with simulated(CELL_POINTS) as (plc, settings), connected(settings, CELL_POINTS) as driver:
        await driver.scan()
        await plc.stop()
        with pytest.raises(DeviceError):
            await driver.scan()
        with pytest.raises(DeviceError):
            await driver.connect()
        await plc.start("127.0.0.1", settings.port)
        await driver.connect()
        assert {reading.status for reading in await driver.scan()} == {GOOD}


async def test_a_scan_that_is_cancelled_leaves_a_good_connection() -> None:
    async with simulated(CELL_POINTS) as (_, settings), connected(settings, CELL_POINTS) as driver:
        for turns in range(6):
            scan = asyncio.create_task(driver.scan())
            for _ in range(turns):
                await asyncio.sleep(0)
            scan.cancel()
            await asyncio.gather(scan, return_exceptions=True)
        assert {reading.status for reading in await driver.scan()} == {GOOD}


def test_runs_on_uvloop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_reads_and_writes_every_type_and_area(240, 1))
        runner.run(test_after_a_restart_of_the_plc_it_connects_again())


async def test_a_port_in_use_is_an_os_error() -> None:
    async with simulated(CELL_POINTS) as (_, settings):
        other = S7Plc("other", CELL_POINTS, settings)
        with pytest.raises(OSError):
            await other.start("127.0.0.1", settings.port)
        await other.stop()


@pytest.mark.parametrize(
    "wrong",
    [{"rack": 8}, {"slot": 32}, {"timeout": 0}, {"pdu": 239}, {"pdu": 961}, {"depth": 0}, {"gap": -1}, {"unit": 1}],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"host": "plc", **wrong}, Settings)


# jobs


@st.composite
def many_places(draw: st.DrawFn) -> list[Place]:
    kinds = st.sampled_from(["bool", "uint8", "int16", "float32", "int64", "string[16]", "string[98]", "string[220]"])
    return [
        Place(s7.DATA_BLOCK, db, byte, bit if kind == "bool" else 0, parse_type(kind))
        for db, byte, bit, kind in draw(
            st.lists(st.tuples(st.integers(1, 3), st.integers(0, 600), st.integers(0, 7), kinds), max_size=120)
        )
    ]


def check_item(item: Item, data: bytes, places: list[Place], memory: Memory) -> None:
    """Each value that the item takes out of its bytes is what lies in memory at the value's own place."""
    inside, first = memory.areas[item.area.area, item.area.db], item.area.bit // 8
    assert sorted([*item.plain, *(index for index, _ in item.strings)]) == sorted(item.points)
    for index, value in zip(item.plain, item.values(data), strict=True):
        at = places[index]
        [expected] = unpacker([Field(at.type, tuple(range(at.byte, at.byte + at.size)), at.bit)])(inside)
        assert value == expected or value != value
    for index, part in item.strings:
        at = places[index]
        assert data[part] == inside[at.byte : at.byte + at.size] and part.start == at.byte - first


def same(values: list[object] | None, others: list[object]) -> bool:
    """Equal, where one that is not a number is equal to itself."""
    return values is not None and [repr(one) for one in values] == [repr(one) for one in others]


@given(many_places(), st.integers(0, 20), st.sampled_from([240, 241, 480, 960]))
def test_every_job_and_its_answer_fit_and_no_value_is_cut(places: list[Place], gap: int, pdu: int) -> None:
    groups = side_by_side(places, range(len(places)), gap=gap, largest=pdu - 18)
    assert sorted(index for group in groups for index in group) == list(range(len(places)))
    memory = Memory({(s7.DATA_BLOCK, db): bytearray(Random(db).randbytes(1000)) for db in (1, 2, 3)})
    codec, peer = s7.ClientCodec(), Session(memory, rack=0, slot=1, pdu=pdu)
    for request in (s7.connection_request(0, 1), s7.setup_request(pdu, 1)):
        codec.feed(peer.feed(codec.encode(request)[1]))
    for job in read_jobs(places, groups, pdu):
        [(_, message)] = codec.feed(peer.feed(codec.encode(job.request)[1]))
        assert len(job.request) <= pdu and len(message) <= pdu and len(job.items) <= s7.MAX_ITEMS
        singly: list[object] = []
        for item, (code, data) in zip(job.items, job.parse(message), strict=True):
            assert code == s7.OK
            check_item(item, data, places, memory)
            singly += item.values(data)
        assert same(job.values(message), singly)
        assert [message[part] for _, part in job.strings] == [
            data[part]
            for item, (_, data) in zip(job.items, job.parse(message), strict=True)
            for _, part in item.strings
        ]
        for cut in (len(message) - 1, 14, 10):
            assert job.values(message[:cut]) is None
        refused = message[:14] + b"\x0a\x00\x00\x00" + message[18:]
        assert job.values(refused) is None
    items = [(index, at.item(), bytes(at.size)) for index, at in enumerate(places) if at.size <= pdu - 28]
    for job in write_jobs(items, pdu):
        [(_, message)] = codec.feed(peer.feed(codec.encode(job.request)[1]))
        assert len(job.request) <= pdu and job.parse(message) == [s7.OK] * len(job.points)


def test_packing_fills_jobs() -> None:
    assert pack([], 100, 100) == []
    assert pack([(12, 60)] * 5, 228, 226) == [[0, 1, 2], [3, 4]]
    assert pack([(12, 200), (12, 100), (12, 20), (12, 100)], 228, 226) == [[0, 2], [1, 3]]
    assert pack([(12, 500), (12, 10)], 228, 226) == [[0], [1]]
    assert [len(job) for job in pack([(12, 6)] * 41, 948, 946)] == [20, 20, 1]


# peers that misbehave


class Last(bytes):
    """An answer after which the PLC closes the connection."""


@contextlib.asynccontextmanager
async def odd_plc(change: Callable[[bytes], bytes], *, good: int = 2, timeout: float = 10.0) -> AsyncIterator[Settings]:
    """A PLC whose answers, after the first `good`, are changed on their way."""
    memory = S7Plc("odd", CELL_POINTS, Settings(host="127.0.0.1")).memory

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session, frames, answered = Session(memory, rack=0, slot=1, pdu=240), s7.Reader(), 0
        while data := await reader.read(65536):
            frames.feed(data)
            answer = session.feed(data)
            answered += 1
            if answered > good:
                answer = change(answer)
            writer.write(answer)
            if isinstance(answer, Last):
                return

    async with listening(serve) as port:
        yield Settings(host="127.0.0.1", port=port, timeout=timeout)


async def test_a_peer_that_falls_silent_is_lost_within_the_deadline() -> None:
    async with odd_plc(lambda _: b"", timeout=0.5) as settings, connected(settings, CELL_POINTS) as driver:
        with pytest.raises(DeviceError, match="did not answer") as caught:
            await driver.scan()
        assert caught.value.status == BAD_TIMEOUT


@pytest.mark.parametrize("good", [0, 1])
async def test_a_peer_that_never_sets_up_is_no_connection(good: int) -> None:
    async with odd_plc(lambda _: b"", good=good, timeout=0.5) as settings:
        driver = S7Driver(settings, CELL_POINTS, {})
        with pytest.raises(DeviceError):
            await driver.connect()
        await driver.close()


async def test_a_peer_that_closes_on_the_connection_request_may_have_another_slot() -> None:
    async with odd_plc(lambda _: Last(), good=0) as settings:
        driver = S7Driver(settings, CELL_POINTS, {})
        with pytest.raises(DeviceError, match="rack 0, slot 1") as caught:
            await driver.connect()
        assert "slot 2" in caught.value.hint
        await driver.close()


async def test_a_write_to_a_silent_peer_is_not_repeated() -> None:
    writes = 0

    def count(answer: bytes) -> bytes:
        nonlocal writes
        writes += 1
        return b""

    async with odd_plc(count, timeout=0.5) as settings, connected(settings, CELL_POINTS) as driver:
        with pytest.raises(DeviceError):
            await driver.write({0: 1.0})
        assert writes == 1


@pytest.mark.parametrize("sent", [0, 1, 4, 7, 20, 40])
async def test_a_peer_that_closes_in_the_middle_of_an_answer(sent: int) -> None:
    async with odd_plc(lambda answer: Last(answer[:sent])) as settings, connected(settings, CELL_POINTS) as driver:
        with pytest.raises(DeviceError, match="closed by the device"):
            await driver.scan()


async def test_a_stale_answer_is_passed_over() -> None:
    def after_a_stale_one(answer: bytes) -> bytes:
        return answer[:11] + b"\xff\xfe" + answer[13:] + answer

    async with odd_plc(after_a_stale_one) as settings, connected(settings, CELL_POINTS) as driver:
        assert {reading.status for reading in await driver.scan()} == {GOOD}


async def test_a_doubled_answer_does_no_harm() -> None:
    async with odd_plc(lambda answer: answer * 2) as settings, connected(settings, CELL_POINTS) as driver:
        for _ in range(3):
            assert {reading.status for reading in await driver.scan()} == {GOOD}


@pytest.mark.parametrize(
    ("error", "words"), [(b"\x81\x04", "PUT/GET"), (b"\x85\x00", "smaller `pdu`"), (b"\xd4\x01", "RUN")]
)
async def test_a_refused_job_says_what_to_do(error: bytes, words: str) -> None:
    def refuse(answer: bytes) -> bytes:
        return s7.fragments(b"\x32\x02\0\0" + answer[11:13] + b"\0\0\0\0" + error)

    async with odd_plc(refuse) as settings, connected(settings, CELL_POINTS) as driver:
        with pytest.raises(DeviceError) as caught:
            await driver.scan()
        assert words in caught.value.hint
        with pytest.raises(DeviceError):
            await driver.write({0: 1.0})


@pytest.mark.parametrize("seed", range(40))
async def test_any_answer_is_a_reading_or_a_device_error(seed: int) -> None:
    """Answers with bytes changed, left out, put in: values or a DeviceError, at once or by the deadline."""
    rng = Random(seed)

    def spoil(answer: bytes) -> bytes:
        spoiled = bytearray(answer)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(spoiled)) if rng.random() < 0.5 else rng.randrange(min(30, len(spoiled)))
            spoiled[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
        return bytes(spoiled)

    async with odd_plc(spoil, good=seed % 3, timeout=0.05) as settings:
        driver = S7Driver(settings, CELL_POINTS, {})
        with contextlib.suppress(DeviceError):
            await driver.connect()
            await driver.scan()
            await driver.write(dict(enumerate(CELL_VALUES)))
            await driver.browse()
        await driver.close()


# python-snap7 as the oracle


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(call, *arguments)


@contextlib.asynccontextmanager
async def snap7_client(settings: Settings) -> AsyncIterator[Snap7Client]:
    client = Snap7Client()
    await in_thread(client.connect, "127.0.0.1", settings.rack, settings.slot, settings.port)
    try:
        yield client
    finally:
        await in_thread(client.disconnect)


async def test_snap7_reads_and_writes_the_simulated_plc() -> None:
    async with simulated(CELL_POINTS, slot=2) as (plc, settings), snap7_client(settings) as client:
        for n, value in enumerate(CELL_VALUES):
            plc.write(n, value)
        assert await in_thread(client.db_read_real, 1, 0) == 12.5
        assert await in_thread(client.db_read_bool, 1, 4, 0) is True
        assert await in_thread(client.db_read_string, 1, 36) == "Äpfel"
        assert await in_thread(client.db_read_lreal, 1, 28) == -1.25e300
        assert await in_thread(client.read_area, Area.MK, 0, 10 * 8, 1, WordLen.Bit) == b"\1"
        assert await in_thread(client.read_area, Area.PA, 0, 4, 1, WordLen.Int) == b"\xff\xfc"
        assert len(await in_thread(client.db_read, 7, 0, 400)) == 400
        await in_thread(client.db_write_string, 1, 36, "ab", 16)
        await in_thread(client.db_write_uint, 1, 6, 4321)
        await in_thread(client.write_area, Area.MK, 0, 10 * 8 + 3, bytearray(b"\1"), WordLen.Bit)
        await in_thread(client.db_write, 7, 0, bytearray(range(200)) * 2)
        assert (plc.read(9), plc.read(4), plc.memory.areas[s7.MEMORY, 0][10]) == ("ab", 4321, 0b1001)
        assert plc.memory.areas[s7.DATA_BLOCK, 7][:400] == bytes(range(200)) * 2
        wanted = [{"area": Area.DB, "db_number": 1, "start": 4 * n, "size": 3} for n in range(15)]
        _, found = await in_thread(client.read_multi_vars, wanted)
        memory = plc.memory.areas[s7.DATA_BLOCK, 1]
        assert [bytes(data) for data in found] == [bytes(memory[4 * n : 4 * n + 3]) for n in range(15)]


async def test_snap7_gets_errors_from_the_simulated_plc_not_silence() -> None:
    async with simulated(CELL_POINTS) as (_, settings), snap7_client(settings) as client:
        for call, arguments in (
            (client.db_read, (99, 0, 2)),
            (client.db_read, (1, 5000, 2)),
            (client.db_write, (99, 0, bytearray(2))),
            (client.get_cpu_info, ()),
            (client.list_blocks, ()),
            (client.plc_stop, ()),
        ):
            with pytest.raises(Exception, match=r"0x|error|fail|object|not"):
                await in_thread(call, *arguments)
        assert await in_thread(client.db_read, 1, 0, 2) == b"\0\0"


@pytest.fixture
def snap7_server() -> Iterator[tuple[Snap7Server, dict[str, bytearray], int]]:
    server = Snap7Server(log=False)
    areas = {"DB1": bytearray(64), "DB7": bytearray(500), "M": bytearray(32), "Q": bytearray(32), "I": bytearray(32)}
    areas["DB1"][36] = 16
    server.register_area(SrvArea.DB, 1, areas["DB1"])
    server.register_area(SrvArea.DB, 7, areas["DB7"])
    server.register_area(SrvArea.MK, 0, areas["M"])
    server.register_area(SrvArea.PA, 0, areas["Q"])
    server.register_area(SrvArea.PE, 0, areas["I"])
    server.start_to("127.0.0.1", 0)
    assert server.server_socket is not None
    before = set(threading.enumerate())
    yield server, areas, server.server_socket.getsockname()[1]
    server.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)


async def test_reads_snap7s_server(snap7_server: tuple[Snap7Server, dict[str, bytearray], int]) -> None:
    _, areas, port = snap7_server
    plc = S7Plc("like", CELL_POINTS, Settings(host="127.0.0.1"))
    for n, value in enumerate(CELL_VALUES):
        plc.write(n, value)
    for name, key in (
        ("DB1", (s7.DATA_BLOCK, 1)),
        ("DB7", (s7.DATA_BLOCK, 7)),
        ("M", (s7.MEMORY, 0)),
        ("Q", (s7.OUTPUTS, 0)),
    ):
        areas[name][:] = plc.memory.areas[key][: len(areas[name])].ljust(len(areas[name]), b"\0")
    wanted = [
        *CELL_POINTS,
        Point("lost", "DB9.DBW0", parse_type("int16")),
        Point("far", "DB1.DBW70", parse_type("int16")),
    ]
    async with connected(Settings(host="127.0.0.1", port=port, timeout=10.0), wanted) as driver:
        readings = list(await driver.scan())
        assert [reading.value for reading in readings[:-2]] == CELL_VALUES
        assert [reading.status for reading in readings[-2:]] == [BAD_NODE_UNKNOWN, BAD_OUT_OF_RANGE]
        for n in (0, 5, 8, 9):  # one item at a time, and no bits: its server knows no more
            assert await driver.write({n: CELL_VALUES[n]}) == {n: GOOD}
        assert [reading.value for reading in list(await driver.scan())[:-2]] == CELL_VALUES


async def test_lists_the_data_blocks_of_snap7s_server(
    snap7_server: tuple[Snap7Server, dict[str, bytearray], int],
) -> None:
    async with connected(Settings(host="127.0.0.1", port=snap7_server[2], timeout=10.0), CELL_POINTS) as driver:
        assert [node.address for node in await driver.browse()] == ["DB1.DBB0", "DB7.DBB0"]
        assert (await driver.scan())[0].status == GOOD
    async with simulated(CELL_POINTS) as (_, settings), connected(settings, CELL_POINTS) as driver:
        assert await driver.browse() == []
        assert await driver.identify() == {}


def test_a_cpu_says_who_it_is() -> None:
    """The C server of Snap7's answer to a read of the system status list 0x001C."""
    texts = {1: "SNAP7-SERVER", 2: "CPU 315-2 PN/DP", 3: "", 4: "Original Siemens Equipment", 5: "S C-C2UR28922012"}
    records = [bytes((0, number)) + text.encode().ljust(32, b"\0") for number, text in {**texts, 8: "MMC"}.items()]
    answer = bytes.fromhex("001c00000022") + bytes((0, len(records))) + b"".join(records)
    assert s7_driver._identified(answer) == {
        "station": "SNAP7-SERVER",
        "name": "CPU 315-2 PN/DP",
        "vendor": "Original Siemens Equipment",
        "serial number": "S C-C2UR28922012",
    }
    for cut in range(len(answer)):
        assert s7_driver._identified(answer[:cut]).keys() <= {"station", "name", "vendor", "serial number"}
