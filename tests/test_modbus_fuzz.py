"""Whatever a Modbus peer sends: an error and a reconnect, or the right values; never anything else.

The peer is in memory, so that thousands of its moods pass in a second. Its registers have other values in each scan,
and each its own: a value that is taken from another frame than the answer to its request is seen.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import depth as depth_module
from drivers import modbus_codec as modbus
from drivers import modbus_rtu as rtu
from drivers.driver import DeviceError, Point
from drivers.modbus import ModbusDriver
from drivers.modbus_rtu import RtuCodec
from drivers.modbus_settings import ModbusSettings, Serial
from drivers.value import BAD_TIMEOUT, GOOD, parse_type
from drivers.wire import MOST_STALE

COUNT, BLOCK = 40, 10
POINTS = [Point(f"device.{at}", f"holding:{at}", parse_type("uint16"), True) for at in range(COUNT)]
Mood = Callable[["Peer", bytes, bytes], list[bytes]]
"""What a peer does with a request's frame, whose right answer's frame is the second: the pieces that it sends."""


class Peer:
    """A transport and the device behind it (drivers.transport.Transport); a mood may be its last."""

    def __init__(self, *, serial: bool) -> None:
        self.place = "peer"
        self.serial = serial
        self.scan = 0
        self.moods: list[tuple[Mood, bool]] = []
        self.old: list[bytes] = []
        self.wire: Any = None
        self.connections = 0

    async def open(self, wire: Callable[[], Any]) -> Any:
        self.connections += 1
        self.wire = wire()
        self.wire.connection_made(self)
        return self.wire

    def refused(self, error: OSError) -> DeviceError:
        raise AssertionError(error)

    def silent(self, timeout_s: float) -> DeviceError:
        raise AssertionError(timeout_s)

    def lost(self, error: Exception | None) -> DeviceError:
        return DeviceError("the peer hung up", "let it", status=BAD_TIMEOUT)

    def abort(self) -> None:
        wire, self.wire = self.wire, None
        if wire is not None:
            asyncio.get_running_loop().call_soon(wire.connection_lost, None)

    def write(self, data: bytes) -> None:
        asyncio.get_running_loop().call_soon(self.hear, self.wire, data)

    def hear(self, wire: Any, data: bytes) -> None:
        while data:
            size = len(data) if self.serial else 6 + int.from_bytes(data[4:6], "big")
            request, data = data[:size], data[size:]
            right = self.right(request)
            mood, last = self.moods.pop(0) if self.moods else (plainly, False)
            for piece in mood(self, request, right):
                wire.data_received(piece)
            self.old = [right, *self.old[:5]]
            if last:
                wire.connection_lost(None)

    def stale(self) -> list[bytes]:
        """Answers to what was asked before; on a line, where nothing tells them apart, they are another unit's."""
        if not self.serial:
            return self.old
        return [rtu.frame(bytes((frame[0] ^ 1,)) + frame[1:-2]) for frame in self.old]

    def right(self, request: bytes) -> bytes:
        payload = request[:-2] if self.serial else request[6:]
        first, count = int.from_bytes(payload[2:4], "big"), int.from_bytes(payload[4:6], "big")
        if payload[1] == modbus.READ_HOLDING:
            data = b"".join(self.value(at).to_bytes(2, "big") for at in range(first, first + count))
            answer = payload[:2] + bytes((2 * count,)) + data
        else:
            answer = payload[:6]
        return rtu.frame(answer) if self.serial else modbus.frame(int.from_bytes(request[:2], "big"), answer)

    def value(self, at: int) -> int:
        return self.scan * 100 + at & 0xFFFF


# Moods


def plainly(_peer: Peer, _request: bytes, right: bytes) -> list[bytes]:
    return [right]


def at_field(offset_tcp: int, offset_rtu: int, change: int) -> Mood:
    """One byte of the right answer is another; over RTU with a check sum that is right."""

    def mood(peer: Peer, _request: bytes, right: bytes) -> list[bytes]:
        other = bytearray(right[:-2] if peer.serial else right)
        other[offset_rtu if peer.serial else offset_tcp] ^= change
        return [rtu.frame(bytes(other)) if peer.serial else bytes(other)]

    return mood


def pieces_of(frames: bytes, size: int) -> list[bytes]:
    return [frames[at : at + size] for at in range(0, len(frames), size)]


CHANGES = st.integers(1, 255)
EXCEPTIONS = st.integers(0, 255)
SIZES = st.integers(1, 300)


def refused(code: int) -> Mood:
    def mood(peer: Peer, _request: bytes, right: bytes) -> list[bytes]:
        payload = (right[0:2] if peer.serial else right[6:8])[:1]
        answer = payload + bytes((modbus.READ_HOLDING | modbus.FAILED, code))
        return [rtu.frame(answer) if peer.serial else modbus.frame(int.from_bytes(right[:2], "big"), answer)]

    return mood


def mutated(places: list[tuple[int, int]]) -> Mood:
    """Bytes of the frame's head changed anywhere: what is data cannot be told from data."""

    def mood(peer: Peer, _request: bytes, right: bytes) -> list[bytes]:
        head = 3 if peer.serial else 9
        other = bytearray(right)
        for at, change in places:
            other[at % head] ^= change
        return [bytes(other)] if bytes(other) != right else []

    return mood


WRONG: st.SearchStrategy[Mood] = st.one_of(
    st.binary(max_size=600).map(lambda data: lambda *_: [data]),
    st.lists(st.binary(max_size=30), max_size=30).map(lambda pieces: lambda *_: pieces),
    st.integers(0, 300).map(lambda size: lambda _p, _q, right: [right[: min(size, len(right) - 1)]]),
    st.just(lambda peer, _request, _right: [b"".join(peer.stale())]),
    st.just(lambda _peer, request, _right: [request]),
    st.tuples(st.sampled_from([(1, 0), (6, 0), (7, 1), (8, 2)]), CHANGES).map(lambda one: at_field(*one[0], one[1])),
    st.lists(st.tuples(st.integers(0, 9), CHANGES), min_size=1, max_size=5).map(mutated),
)
"""Nothing of it is the answer to the request."""

ODD: st.SearchStrategy[Mood] = st.one_of(
    SIZES.map(lambda size: lambda _p, _q, right: pieces_of(right, size)),
    SIZES.map(lambda size: lambda _p, _q, right: pieces_of(right * 2, size)),
    SIZES.map(lambda size: lambda peer, _q, right: pieces_of(b"".join(peer.stale()) + right, size)),
    st.just(lambda peer, _request, right: [*peer.stale(), right]),
)
"""The right answer is in it."""

MOODS = st.one_of(st.tuples(WRONG, st.just(True)), st.tuples(st.one_of(ODD, EXCEPTIONS.map(refused)), st.booleans()))


def driver_of(peer: Peer, depth: Any) -> ModbusDriver:
    """The driver of a device behind the peer, in blocks of ten registers."""
    options: dict[str, Any] = {"max_registers": BLOCK, "timeout": 30.0, "depth": depth}
    where = ModbusSettings(**options, **({"serial": Serial("peer")} if peer.serial else {"host": "peer"}))
    made = ModbusDriver(where, POINTS, {})
    made._link.transport = peer
    return made


async def scanned(peer: Peer, moods: Sequence[tuple[Mood, bool]], *, depth: Any) -> None:
    """Scans against a peer in these moods: only right values, or errors; and all is well when they are over."""
    driver = driver_of(peer, depth)
    await driver.connect()
    assert list((await driver.scan()).values) == [peer.value(at) for at in range(COUNT)]
    peer.moods = list(moods)
    for _ in range(2 * len(moods) + 1):
        peer.scan += 1
        try:
            await driver.connect()
            scan = await driver.scan()
            for at, (value, status) in enumerate(zip(scan.values, scan.statuses, strict=True)):
                assert value == (peer.value(at) if status == GOOD else None)
        except DeviceError as error:
            assert error.text and "\n" not in error.text
            driver._late_s = 0.0  # a peer that hangs up has no late answers
            await driver.close()
        bounded(driver)
    peer.moods.clear()
    await driver.close()
    await driver.connect()
    assert list((await driver.scan()).values) == [peer.value(at) for at in range(COUNT)]
    await driver.close()


def bounded(driver: ModbusDriver) -> None:
    codec: Any = driver._link.codec
    rest = codec._come if isinstance(codec, RtuCodec) else codec.feed.__self__._rest
    assert len(rest) <= 600
    wire = driver._link._wire
    assert wire is None or (len(wire.pending) == 0 and len(wire.queue) == 0)


DEPTHS = st.sampled_from([1, 3, 16, "auto"])


@settings(max_examples=200, deadline=None)
@given(st.lists(MOODS, min_size=1, max_size=5), DEPTHS)
async def test_any_peer_over_tcp(moods: list[tuple[Mood, bool]], depth: Any) -> None:
    await scanned(Peer(serial=False), moods, depth=depth)


@settings(max_examples=100, deadline=None)
@given(st.lists(MOODS, min_size=1, max_size=5))
async def test_any_peer_on_a_line(moods: list[tuple[Mood, bool]]) -> None:
    await scanned(Peer(serial=True), moods, depth=1)


@settings(max_examples=50, deadline=None)
@given(ODD, st.booleans())
async def test_the_right_answer_is_taken_wherever_it_is(mood: Mood, serial: bool) -> None:
    peer = Peer(serial=serial)
    driver = driver_of(peer, 1)
    await driver.connect()
    await driver.scan()
    peer.scan += 1
    peer.moods = [(mood, False)] * 4
    assert list((await driver.scan()).values) == [peer.value(at) for at in range(COUNT)]
    await driver.close()


@settings(max_examples=100, deadline=None)
@given(WRONG, st.booleans())
async def test_no_write_is_confirmed_by_anything_else(mood: Mood, serial: bool) -> None:
    peer = Peer(serial=serial)
    driver = driver_of(peer, 1)
    await driver.connect()
    await driver.scan()
    peer.moods = [(mood, True)]
    with contextlib.suppress(DeviceError):
        assert GOOD not in (await driver.write({1: 5, 2: 6})).values() or confirmed(mood, peer, driver)
    await driver.close()


def confirmed(mood: Mood, peer: Peer, driver: ModbusDriver) -> bool:
    """Whether what the mood makes of this write is its confirmation, byte for byte."""
    request = modbus.write_request(1, modbus.WRITE_REGISTERS, 1, 2, b"\0\5\0\6")
    frame = rtu.frame(request) if peer.serial else modbus.frame(driver._link.codec._transaction, request)  # type: ignore
    return peer.right(frame) in b"".join(mood(peer, frame, peer.right(frame)))


async def test_a_device_that_mixes_up_what_it_is_asked_at_once_costs_one_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Confused(Peer):
        def hear(self, wire: Any, data: bytes) -> None:
            if len(data) == 12:
                super().hear(wire, data)
                return
            self.together += 1
            for at in range(0, len(data), 12):
                other = data[at : at + 11] + bytes((data[at + 11] - 1,))  # a register too few
                wire.data_received(self.right(other))

        together = 0

    monkeypatch.setattr(depth_module, "GAIN", 0.0)
    peer = Confused(serial=False)
    driver = driver_of(peer, "auto")
    await driver.connect()
    for peer.scan in range(depth_module.ROUNDS * 3):
        assert list((await driver.scan()).values) == [peer.value(at) for at in range(COUNT)]
    assert (peer.connections, driver._link.depth.proven, driver._link.depth.trial) == (2, 1, 1)
    assert peer.together == 1
    await driver.close()


@pytest.mark.parametrize("asked", [True, False], ids=["while it is asked", "while nothing is asked"])
async def test_a_flood_of_answers_that_nobody_asked_for_is_ended(asked: bool) -> None:
    peer = Peer(serial=False)
    driver = driver_of(peer, 1)
    await driver.connect()
    flood = b"".join(modbus.frame(0xFFFF, b"\1\3\2\0\0") for _ in range(MOST_STALE // 2 + 1))
    if asked:
        peer.moods = [(lambda *_: [flood, flood], False)]
        with pytest.raises(DeviceError, match="answers to what was not asked"):
            await driver.scan()
    else:
        peer.wire.data_received(flood)
        assert driver._link.up
        peer.wire.data_received(flood)
    assert not driver._link.up
    await driver.close()


async def test_a_real_socket_with_any_bytes() -> None:
    """A few streams of noise through TCP itself: each is one error, and the next connection is as good as the first."""
    noise = iter(range(10_000))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        seed = next(noise)
        writer.write(bytes((seed * at * 7 + at * at) & 0xFF for at in range(3000)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    where = ModbusSettings(host="127.0.0.1", port=server.sockets[0].getsockname()[1], timeout=30.0, depth=4)
    driver = ModbusDriver(where, POINTS, {})
    for _ in range(40):
        await driver.connect()
        with pytest.raises(DeviceError):
            await driver.scan()
        await driver.close()
    server.close()
    await server.wait_closed()
