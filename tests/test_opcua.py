"""The OPC UA driver against real servers on loopback: simulated PLCs, an odd server, and peers that misbehave."""

import asyncio
import contextlib
import gc
import socket
import stat
import struct
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import msgspec
import pytest

from drivers import driver, identity, opcua, opcua_session
from drivers.driver import DeviceError, Point
from drivers.opcua import OpcUaDriver, _below
from drivers.opcua_session import OpcUaSettings
from drivers.value import (
    BAD_CONNECTION_CLOSED,
    BAD_CONNECTION_REJECTED,
    BAD_NODE_UNKNOWN,
    BAD_NOT_CONNECTED,
    BAD_OUT_OF_RANGE,
    BAD_SECURITY_POLICY_REJECTED,
    BAD_TIMEOUT,
    BAD_TYPE_MISMATCH,
    BAD_WAITING,
    GOOD,
    Reading,
    is_good,
    parse_type,
)
from hil.opcua_plc import OpcUaPlc

DEADLINE_S = 20
BAD_SENSOR_FAILURE = 0x808C_0000
BAD_USER_ACCESS_DENIED = 0x801F_0000
UNCERTAIN_SUBSTITUTE = 0x4091_0000
SAMPLES = {
    "bool": True, "int8": -128, "int16": -32768, "int32": -(2**31), "int64": -(2**63), "uint8": 255, "uint16": 65535,
    "uint32": 2**32 - 1, "uint64": 2**64 - 1, "float32": 0.5, "float64": 1 / 3, "string[16]": "حالة é",
}  # fmt: skip


def point(address: str, kind: str = "int32", *, name: str = "", writable: bool = False) -> Point:
    return Point(name or address, address, parse_type(kind), writable)


ALL_TYPES = [point(f"ns=3;s={kind}", kind, name=kind, writable=True) for kind in SAMPLES]
POINTS = [*ALL_TYPES, point("nsu=urn:robot;i=7", name="program", writable=True), point("ns=2;s=State", name="state")]


class Bench:
    """A thread with an event loop of its own, where the servers live; the driver has the test's loop to itself."""

    def __init__(self) -> None:
        self.noise: list[dict] = []
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _loop, context: self.noise.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE_S)

    def call(self, function, *arguments):
        async def called():
            return function(*arguments)

        return self.run(called())

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE_S)
        left = asyncio.all_tasks(self.loop)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        assert not left, left
        assert not self.noise, self.noise


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory):
    """Keys are made once, in a state directory of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("state")
        patch.setenv("EDGE_STATE", str(path))
        yield path


@pytest.fixture(scope="module")
def bench(state):
    bench = Bench()
    yield bench
    bench.end()


@pytest.fixture(autouse=True)
async def nothing_left():
    """Every test leaves its loop without a task, and without an exception that nobody saw."""
    noise: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: noise.append(context))
    before = asyncio.all_tasks()
    gc.freeze()
    yield
    await asyncio.sleep(0)
    gc.collect()
    gc.unfreeze()
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left
    assert not noise


def served(bench: Bench, name: str, points: list[Point], **wanted) -> tuple[OpcUaPlc, dict]:
    plc = OpcUaPlc(name, points, OpcUaSettings("opc.tcp://robot", **wanted))
    return plc, bench.run(plc.start("127.0.0.1", 0))


@pytest.fixture(scope="module")
def plain(bench):
    plc, settings = served(bench, "plain", POINTS)
    yield plc, settings
    bench.run(plc.stop())


@pytest.fixture(scope="module")
def secure(bench):
    plc, settings = served(bench, "secure", POINTS, security="Basic256Sha256/SignAndEncrypt", user="edge")
    yield plc, settings
    bench.run(plc.stop())


@pytest.fixture
async def brief(bench, plain, monkeypatch):
    """A server that soon ends the sessions of clients that are gone, and has ended them when the test is over."""
    server = plain[0]._server.iserver
    monkeypatch.setattr(opcua_session, "SESSION_MS", 500)
    monkeypatch.setattr(server, "min_session_timeout_ms", 100)
    yield plain
    async with asyncio.timeout(DEADLINE_S):
        while bench.call(lambda: list(server._external_sessions)):  # noqa: ASYNC110 (it tells nobody)
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def connected(settings: dict, points: list[Point], **more):
    patient = {"timeout": DEADLINE_S}  # the machine may be busy
    device = OpcUaDriver(msgspec.convert(patient | settings | more, OpcUaSettings), points, {})
    try:
        await device.connect()
        yield device
    finally:
        await device.close()


async def failure(settings: dict, points=(), **more) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        async with connected(settings, list(points), **more):
            pass
    assert caught.value.text
    assert "Traceback" not in caught.value.text
    return caught.value


def port_of(settings: dict) -> int:
    return int(settings["url"].rpartition(":")[2])


class Wire:
    """A TCP relay to a server, which keeps what was `sent`.

    `frozen` lets nothing through, `deaf` no answers; both connections stay open.
    """

    def __init__(self, port: int, cut: bytes | None = None, spoil: Random | None = None) -> None:
        """With `cut`, what secures a channel does not reach the server: the client gets `cut`, then the end.

        With `spoil` some of what the server says has a wrong bit.
        """
        self.cut = cut
        self.spoil = spoil
        self.frozen = self.deaf = False
        self.sent = b""
        self._port = port
        self._tasks: set[asyncio.Task] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        return f"opc.tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, reader, writer) -> None:
        self._tasks.add(asyncio.current_task())
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(self._pump(reader, far_writer, writer), self._pump(far_reader, writer, answers=True))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, far_writer):
                end.transport.abort()
            await asyncio.sleep(0)

    async def _pump(self, reader, writer, back=None, *, answers=False) -> None:
        while data := await reader.read(65536):
            if answers and self.spoil is not None and self.spoil.random() < 0.3:
                place = self.spoil.randrange(len(data))
                data = data[:place] + bytes([data[place] ^ 1 << self.spoil.randrange(8)]) + data[place + 1 :]
            if back is not None:
                self.sent += data
                if self.cut is not None and b"#Basic256Sha256" in data:
                    back.write(self.cut)
                    await back.drain()
                    break
            if not self.frozen and not (self.deaf and answers):
                writer.write(data)
        raise ConnectionResetError


# Settings.


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "http://robot"}, "opc.tcp://HOST:4840"),
        ({"url": "opc.tcp://"}, "opc.tcp://HOST:4840"),
        ({"url": "opc.tcp://robot:99999"}, "opc.tcp://HOST:4840"),
        ({"url": "opc.tcp://edge:secret@robot"}, "user"),
        ({"url": "opc.tcp://robot", "user": "edge", "password": "hunter2"}, "{credential: NAME}"),
        ({"url": "opc.tcp://robot", "password": {"file": "x"}}, "user"),
        ({"url": "opc.tcp://robot", "user": "edge", "password": {}}, "one of them"),
        ({"url": "opc.tcp://robot", "user": "edge", "password": {"credential": "../x"}}, "credential"),
        ({"url": "opc.tcp://robot", "certificate": "x.der"}, "key"),
        ({"url": "opc.tcp://robot", "security": "Basic128"}, "Basic128"),
        ({"url": "opc.tcp://robot", "timeout": 0}, "timeout"),
        ({"url": "opc.tcp://robot", "port": 4840}, "port"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(settings, OpcUaSettings)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_settings_know_their_parts():
    plain, signed = OpcUaSettings("opc.tcp://robot"), OpcUaSettings("opc.tcp://[::1]:4841/x", "Basic256Sha256/Sign")
    assert (plain.server, plain.mode) == ("robot:4840", 1)
    assert (signed.server, signed.policy, signed.mode) == ("[::1]:4841", "Basic256Sha256", 2)
    assert OpcUaSettings("opc.tcp://robot", "Basic256Sha256").mode == 3
    assert driver.find("opcua") is OpcUaDriver


async def test_a_state_directory_that_cannot_be_written_is_told(monkeypatch):
    monkeypatch.setenv("EDGE_STATE", "/proc/edge")
    error = await failure({"url": "opc.tcp://127.0.0.1:1", "security": "Basic256Sha256"})
    assert "EDGE_STATE" in error.hint


def test_the_library_is_imported_only_to_connect():
    code = (
        "import sys, drivers.opcua, hil.opcua_plc\n"
        "sys.exit(any(name in sys.modules for name in ('asyncua', 'cryptography', 'anyio')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE_S)


# A simulated PLC, without security.


async def test_all_types_round_trip(bench, plain):
    plc, settings = plain
    samples = dict(enumerate(SAMPLES.values()))
    async with connected(settings, POINTS, batch=5) as device:
        assert await device.write(samples) == dict.fromkeys(samples, GOOD)
        assert {index: bench.call(plc.read, index) for index in samples} == samples
        readings = await device.scan()
        assert {index: readings[index].value for index in samples} == samples
        assert {index: type(readings[index].value) for index in samples} == {
            index: type(value) for index, value in samples.items()
        }
        assert all(reading.status == GOOD for reading in readings)
        assert device.troubles == {}
        zeros = {index: type(value)() for index, value in samples.items()}
        for index, value in zeros.items():
            bench.call(plc.write, index, value)
        readings = await device.scan()
        assert {index: readings[index].value for index in samples} == zeros


async def test_the_source_time_is_that_of_the_last_change(bench, plain):
    plc, settings = plain
    async with connected(settings, POINTS) as device:
        await device.write({2: 11})
        first = (await device.scan())[2]
        await device.write({2: 11})
        bench.call(plc.write, 2, 11)
        assert (await device.scan())[2] == first
        bench.call(plc.write, 2, 12)
        second = (await device.scan())[2]
        await device.write({2: 13})
        third = (await device.scan())[2]
    assert [first.value, second.value, third.value] == [11, 12, 13]
    assert first.time_ns < second.time_ns < third.time_ns
    assert abs(third.time_ns / 1e9 - datetime.now(UTC).timestamp()) < DEADLINE_S


async def test_a_namespace_is_found_by_its_uri(bench, plain):
    plc, settings = plain
    asked = [point("nsu=urn:robot;i=7", name="by uri"), point("ns=2;i=7", name="by index"), point("nsu=urn:none;i=7")]
    bench.call(plc.write, len(ALL_TYPES), 42)
    async with connected(settings, asked) as device:
        by_uri, by_index, nowhere = await device.scan()
    assert (by_uri.value, by_index.value) == (42, 42)
    assert (nowhere.value, nowhere.status) == (None, BAD_NODE_UNKNOWN)
    assert "`urn:robot`" in device.troubles["nsu=urn:none;i=7"]


async def test_a_node_that_is_not_there_has_a_bad_status_and_advice(plain):
    _, settings = plain
    async with connected(settings, [point("ns=3;s=absent", name="absent", writable=True), ALL_TYPES[0]]) as device:
        absent, present = await device.scan()
        assert not is_good((await device.write({0: 1}))[0])
    assert (absent.value, absent.status) == (None, BAD_NODE_UNKNOWN)
    assert present.status == GOOD
    assert list(device.troubles) == ["absent"]
    assert "ns=3;s=absent" in device.troubles["absent"]


async def test_widths_may_differ_as_long_as_the_value_fits(bench, plain):
    plc, settings = plain
    asked = [
        point("ns=3;s=int16", "int32", name="wider", writable=True),
        point("ns=3;s=int16", "uint8", name="narrower"),
        point("ns=3;s=string[16]", "string[4]", name="text"),
        point("ns=3;s=float64", "float32", name="real", writable=True),
        point("ns=3;s=float32", "float64", name="long real", writable=True),
    ]
    for index, value in ((2, 300), (10, 1e300), (11, "five!")):
        bench.call(plc.write, index, value)
    async with connected(settings, asked) as device:
        wider, *others = await device.scan()
        assert (wider.value, wider.status) == (300, GOOD)
        assert {reading.status for reading in others[:3]} == {BAD_OUT_OF_RANGE}
        assert set(device.troubles) == {"narrower", "text", "real"}
        assert await device.write({0: -32768, 3: 2, 4: 0.1}) == {0: GOOD, 3: GOOD, 4: GOOD}
        assert bench.call(plc.read, 2) == -32768
        assert await device.write({0: 32768, 4: 1e300}) == {0: BAD_OUT_OF_RANGE, 4: BAD_OUT_OF_RANGE}
        bench.call(plc.write, 2, 200)
        bench.call(plc.write, 11, "four")
        assert [reading.value for reading in await device.scan()][:4] == [200, 200, "four", 2.0]
        assert device.troubles == {}


async def test_another_kind_is_a_type_mismatch_and_says_which(plain):
    _, settings = plain
    asked = [
        point("ns=3;s=float64", "int32", writable=True),
        point("ns=3;s=bool", "int8"),
        point("ns=3;s=int8", "bool"),
    ]
    asked += [point("ns=3;s=string[16]", "float64"), point("ns=3;s=int16", "float64")]
    async with connected(settings, asked) as device:
        assert {reading.status for reading in await device.scan()} == {BAD_TYPE_MISMATCH}
        assert await device.write({0: True}) == {0: BAD_TYPE_MISMATCH}
    assert "declare `type: float64`" in device.troubles["ns=3;s=float64"]
    assert "declare `type: string" in device.troubles["ns=3;s=string[16]"]


async def test_a_node_that_is_not_writable_says_so(plain):
    _, settings = plain
    async with connected(settings, [point("ns=2;s=State", writable=True)]) as device:
        assert await device.write({0: 1}) == {0: BAD_USER_ACCESS_DENIED}


async def test_browsing_finds_addresses_that_can_be_used(plain):
    _, settings = plain
    async with connected(settings, POINTS) as device:
        assert (await device.identify())["vendor"] == "FreeOpcUa"
        nodes = {node.name: node for node in await device.browse()}
    found = nodes["plain/program"]
    assert (found.address, found.type, found.writable) == ("nsu=urn:robot;i=7", "int32", True)
    assert not nodes["plain/state"].writable
    usable = [Point(name, node.address, parse_type(node.type)) for name, node in nodes.items() if node.type != "other"]
    assert len(usable) >= len(POINTS)
    async with connected(settings, usable) as device:
        assert {reading.status for reading in await device.scan()} == {GOOD}


async def test_the_channel_is_renewed_in_time(secure, plain, monkeypatch):
    monkeypatch.setattr(opcua_session, "CHANNEL_MS", 0)
    for _, settings in (plain, secure):
        async with connected(settings, POINTS) as device:
            for _ in range(3):
                assert {reading.status for reading in await device.scan()} == {GOOD}
            assert await device.write({0: True}) == {0: GOOD}


async def test_a_simulated_plc_takes_a_type_s_values_only(bench, plain):
    plc, settings = plain
    for value in (300.5e40, "x", True):
        with pytest.raises(ValueError):
            bench.call(plc.write, 2, value)
    bench.call(plc.write, 9, 0.1)
    assert bench.call(plc.read, 9) == struct.unpack("f", struct.pack("f", 0.1))[0]
    async with connected(settings, POINTS) as device:
        assert (await device.scan())[9].value == bench.call(plc.read, 9)


async def test_subscribers_of_a_simulated_plc_hear_of_changes(bench, plain):
    from asyncua import Client, ua

    plc, settings = plain
    bench.call(plc.write, 3, 1)
    async with Client(settings["url"]) as client:
        subscription = await client.create_subscription(10)
        async with subscription:
            await subscription.subscribe_data_change(client.get_node("ns=3;s=int32"))
            events = aiter(subscription)
            heard = [(await asyncio.wait_for(anext(events), DEADLINE_S)).value]
            bench.call(plc.write, 3, 2)
            heard.append((await asyncio.wait_for(anext(events), DEADLINE_S)).value)
        array = ua.DataValue(ua.Variant([1, 2], ua.VariantType.Int32))
        with pytest.raises(ua.UaStatusCodeError):
            await client.get_node("ns=3;s=int32").write_value(array)
        now = await client.get_node(ua.ObjectIds.Server_ServerStatus_CurrentTime).read_value()
    assert heard == [1, 2]
    assert bench.call(plc.read, 3) == 2
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=DEADLINE_S)


# Subscriptions.


async def until(device: OpcUaDriver, true) -> None:
    """Scans until it is so."""
    async with asyncio.timeout(DEADLINE_S):
        while not true(await device.scan()):  # noqa: ASYNC110 (the driver scans when it is asked to)
            await asyncio.sleep(0.005)


SUBSCRIBE = {"mode": "subscribe", "every": 0.02}


@pytest.mark.parametrize("server", ["plain", "secure"])
async def test_a_subscription_tells_values_of_every_type(request, bench, server, monkeypatch):
    monkeypatch.setattr(opcua_session, "CHANNEL_MS", 100)  # the channel is renewed meanwhile
    plc, settings = request.getfixturevalue(server)
    samples = dict(enumerate(SAMPLES.values()))
    asked = [*POINTS, point("ns=3;s=absent", name="absent"), point("nsu=urn:none;i=1", name="nowhere")]
    async with connected(settings, asked, batch=5, **SUBSCRIBE) as device:
        scan = await device.scan()
        assert list(scan.statuses) == [GOOD] * len(POINTS) + [BAD_NODE_UNKNOWN] * 2
        assert set(device.troubles) == {"absent", "nowhere"}
        for values in (samples, {index: type(value)() for index, value in samples.items()}, samples):
            for index, value in values.items():
                bench.call(plc.write, index, value)
            await until(device, lambda scan, values=values: list(scan.values)[: len(values)] == list(values.values()))
        assert await device.write({2: 17}) == {2: GOOD}
        await until(device, lambda scan: scan.values[2] == 17)
        assert abs(device._image.times[2] / 1e9 - datetime.now(UTC).timestamp()) < DEADLINE_S


async def test_a_subscription_that_is_deleted_at_the_server_is_made_again(bench, plain):
    plc, settings = plain
    async with connected(settings, POINTS, **SUBSCRIBE) as device:
        service = plc._server.iserver.subscription_service
        before = device._subscription._id
        bench.run(service.delete_subscriptions([before]))
        bench.call(plc.write, 2, 1234)
        await until(device, lambda scan: scan.values[2] == 1234)
        assert device._subscription._id not in (0, before)
    assert not bench.call(lambda: list(service.subscriptions))


async def test_a_server_that_tells_no_more_is_lost_within_the_deadline(bench, brief):
    plc, settings = brief
    wire = Wire(port_of(settings))
    async with wire as url:
        device = OpcUaDriver(
            msgspec.convert(settings | {"url": url, "timeout": 0.3} | SUBSCRIBE, OpcUaSettings), POINTS, {}
        )
        await device.connect()
        wire.frozen = True
        with pytest.raises(DeviceError) as caught:
            await until(device, lambda _: False)
        assert caught.value.status == BAD_TIMEOUT
        wire.frozen = False
        bench.call(plc.write, 2, 4321)
        await device.connect()
        assert (await device.scan()).values[2] == 4321
        await device.close()


# Long answers, and wrong ones.


@pytest.mark.parametrize("security", ["None", "Basic256Sha256/Sign", "Basic256Sha256/SignAndEncrypt"])
async def test_an_answer_in_several_chunks(bench, security):
    texts = [point(f"ns=2;s=text{at}", "string[254]", name=f"text{at}", writable=True) for at in range(600)]
    plc, settings = served(bench, "long", texts, security=security)
    try:
        async with connected(settings, texts, batch=600) as device:
            for letter in "abc":
                for at in range(0, 600, 10):
                    bench.call(plc.write, at, letter * 250)
                    bench.call(plc.write, at + 1, letter * (at % 254))
                scan = await device.scan()
                assert list(scan.values[::10]) == [letter * 250] * 60
                assert scan.values[241] == letter * 240
            for at in range(600):
                bench.call(plc.write, at, chr(97 + at % 26) * 254)
            assert [text[:1] for text in (await device.scan()).values] == [chr(97 + at % 26) for at in range(600)]
    finally:
        bench.run(plc.stop())


@pytest.mark.parametrize("mode", ["poll", "subscribe"])
@pytest.mark.parametrize("seed", range(8))
async def test_wrong_bytes_end_in_an_error_and_a_new_connection(bench, brief, mode, seed):
    plc, settings = brief
    bench.call(plc.write, 2, 77)
    wire = Wire(port_of(settings), spoil=Random(seed))
    async with wire as url:
        wanted = settings | {"url": url, "timeout": 0.3, "mode": mode, "every": 0.02}
        device = OpcUaDriver(msgspec.convert(wanted, OpcUaSettings), POINTS, {})
        for _ in range(6):
            try:
                await device.connect()
                for _ in range(5):
                    await device.scan()
                    await asyncio.sleep(0)
            except DeviceError as error:
                assert error.text
        wire.spoil = None
        await device.close()
        await device.connect()
        assert (await device.scan()).values[2] == 77
        await device.close()


# Security.


async def test_encrypted_with_user_and_password(bench, secure, state):
    plc, settings = secure
    assert settings["security"] == "Basic256Sha256/SignAndEncrypt"
    assert stat.S_IMODE(Path(settings["password"]["file"]).stat().st_mode) == 0o600
    async with connected(settings, POINTS) as device:
        assert await device.write({2: 99}) == {2: GOOD}
        assert (await device.scan())[2].value == 99 == bench.call(plc.read, 2)
    assert (state / "pki" / "client.der").exists()


async def test_only_signed(bench, state):
    plc, settings = served(bench, "signed", POINTS, security="Basic256Sha256/Sign", user="edge")
    try:
        async with connected(settings, POINTS) as device:
            assert {reading.status for reading in await device.scan()} == {GOOD}
        error = await failure(settings, security="Basic256Sha256")
        assert "does not offer" in error.text
        assert "Basic256Sha256/Sign" in error.hint
    finally:
        bench.run(plc.stop())


async def test_a_password_without_security_is_encrypted_or_stays_at_home(bench, state):
    plc, settings = served(bench, "password", POINTS, user="edge")
    password = Path(settings["password"]["file"]).read_bytes()
    wire = Wire(port_of(settings))
    try:
        async with wire as url:
            async with connected(settings, POINTS, url=url) as device:
                assert {reading.status for reading in await device.scan()} == {GOOD}
            for endpoint in plc._server.iserver.endpoints:
                for token in endpoint.UserIdentityTokens:
                    token.SecurityPolicyUri = "http://opcfoundation.org/UA/SecurityPolicy#None"
            error = await failure(settings, url=url)
            assert "clear text" in error.text
            assert "SignAndEncrypt" in error.hint
            assert b"edge" in wire.sent
            assert password not in wire.sent
            async with connected(settings, POINTS, url=url, password_in_clear=True) as device:
                assert {reading.status for reading in await device.scan()} == {GOOD}
            assert password in wire.sent
    finally:
        bench.run(plc.stop())


async def test_wrong_password_wrong_user_and_nobody_are_refused(secure, tmp_path):
    _, settings = secure
    wrong = tmp_path / "password"
    wrong.write_text("wrong")
    wrong.chmod(0o600)
    for changed in ({"password": {"file": str(wrong)}}, {"user": "somebody"}):
        error = await failure(settings, **changed)
        assert f"refuses the user `{changed.get('user', 'edge')}`" in error.text
        assert "password" in error.hint
        assert error.status == BAD_USER_ACCESS_DENIED
    error = await failure(settings, user=None, password=None)
    assert "without a user" in error.text


async def test_a_secured_server_lets_nobody_in_without_security(secure):
    from asyncua import Client, ua

    _, settings = secure
    error = await failure(settings, security="None", trust=None)
    assert error.status == BAD_SECURITY_POLICY_REJECTED
    assert "it offers Basic256Sha256/SignAndEncrypt" in error.hint
    client = Client(settings["url"], timeout=DEADLINE_S)
    client.set_user("edge")
    client.set_password(Path(settings["password"]["file"]).read_text())
    client.find_endpoint = lambda endpoints, *_: endpoints[0]
    with pytest.raises(ua.UaError):
        await client.connect()


async def test_a_user_where_there_are_none(plain, secure):
    error = await failure(plain[1], user="edge", password=secure[1]["password"])
    assert "takes no user" in error.text


async def test_another_server_than_the_trusted_one_is_not_spoken_to(secure, plain, tmp_path):
    other = identity.own_identity(tmp_path, "other", "urn:other")
    for settings in (secure[1], plain[1]):
        error = await failure(settings, trust=str(other.path))
        assert "another certificate" in error.text
        assert str(other.path) in error.hint
    pem = tmp_path / "server.pem"
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    kept = x509.load_der_x509_certificate(Path(secure[1]["trust"]).read_bytes())
    pem.write_bytes(kept.public_bytes(Encoding.PEM))
    async with connected(secure[1], POINTS, trust=str(pem)) as device:
        assert {reading.status for reading in await device.scan()} == {GOOD}
    (tmp_path / "nonsense").write_text("nonsense")
    assert "no certificate" in (await failure(secure[1], trust=str(tmp_path / "nonsense"))).text
    assert "cannot be read" in (await failure(secure[1], trust=str(tmp_path / "absent"))).text


async def test_a_server_that_does_not_trust_edge_says_where_the_certificate_is(bench, secure, state):
    from asyncua import ua
    from asyncua.common.utils import ServiceError

    async def untrusted(_certificate, _application):
        raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)

    plc, settings = secure
    plc._server.iserver.certificate_validator = untrusted
    try:
        error = await failure(settings)
    finally:
        plc._server.iserver.certificate_validator = None
    assert "does not trust" in error.text
    assert str(state / "pki" / "client.der") in error.hint


def error_message(code: int) -> bytes:
    """An Error message (OPC 10000-6, 7.1.2.5)."""
    return b"ERRF" + struct.pack("<IIi", 16, code, -1)


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (error_message(0x8013_0000), "does not trust edge's certificate: BadSecurityChecksFailed"),
        (error_message(0x8055_0000), "rejects the security policy"),
        (b"", "broke off while the channel was being secured"),
        (bytes(64), "broke off while the channel was being secured"),
    ],
)
async def test_a_channel_that_cannot_be_secured(secure, state, cut, said):
    async with Wire(port_of(secure[1]), cut) as url:
        error = await failure(secure[1], url=url)
    assert said in error.text
    assert str(state / "pki" / "client.der") in error.hint or "`security`" in error.hint


async def test_a_url_that_the_server_does_not_know():
    async def reply(reader, writer):
        await reader.read(4096)
        writer.write(error_message(0x8083_0000))
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        error = await failure({"url": f"opc.tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}/wrong"})
    assert "does not know this url" in error.text


async def test_too_many_sessions(plain, monkeypatch):
    from asyncua.server.internal_session import InternalSession

    monkeypatch.setattr(InternalSession, "max_connections", 0)
    error = await failure(plain[1])
    assert "no connection free" in error.text
    assert "close other OPC UA clients" in error.hint


async def test_own_certificate_and_key_of_the_cell(secure, tmp_path):
    own = identity.own_identity(tmp_path, "mine", "urn:mine")
    pair = {"certificate": str(own.path), "key": str(tmp_path / "mine.pem")}
    async with connected(secure[1], POINTS, **pair) as device:
        assert {reading.status for reading in await device.scan()} == {GOOD}
    error = await failure(secure[1], certificate=str(own.path), key=str(own.path))
    assert "private key" in error.text


# What other servers have.


@pytest.fixture(scope="module")
def odd(bench):
    """A server with arrays, structures, an enumeration, other statuses and times, and limits."""
    from asyncua import Server, ua

    when = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    kind = ua.VariantType
    values = {
        "array": ua.DataValue(ua.Variant([1, 2], kind.Int32)),
        "time": ua.DataValue(ua.Variant(when, kind.DateTime)),
        "bytes": ua.DataValue(ua.Variant(b"x", kind.ByteString)),
        "structure": ua.DataValue(ua.Variant(ua.Argument(), kind.ExtensionObject)),
        "null": ua.DataValue(ua.Variant(None, kind.Null)),
        "no text": ua.DataValue(ua.Variant(None, kind.String)),
        "uncertain": ua.DataValue(ua.Variant(5, kind.Int32), ua.StatusCode(UNCERTAIN_SUBSTITUTE), when),
        "sensor": ua.DataValue(ua.Variant(5, kind.Int32), ua.StatusCode(BAD_SENSOR_FAILURE), when),
        "server time": ua.DataValue(ua.Variant(5, kind.Int32), None, None, when),
        "no time": ua.DataValue(ua.Variant(5, kind.Int32), None),
        "old time": ua.DataValue(ua.Variant(5, kind.Int32), None, datetime(1601, 1, 1, tzinfo=UTC)),
        "nan": ua.DataValue(ua.Variant(float("nan"), kind.Double)),
    }

    async def start():
        server = Server()
        server.disable_clock()
        server.set_endpoint("opc.tcp://a-name-of-its-own.example:0/path")
        server.socket_address = ("127.0.0.1", 0)
        server.set_match_discovery_endpoint_url(False)
        server.set_match_discovery_client_ip(False)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        await server.init()
        index = await server.register_namespace("urn:odd")
        for name, value in values.items():
            node = await server.nodes.objects.add_variable(ua.NodeId(name, index), name, 0)
            server.iserver.aspace[node.nodeid].attributes[ua.AttributeIds.Value].value = value
        state = ua.NodeId(ua.ObjectIds.ServerState)
        node = await server.nodes.objects.add_variable(ua.NodeId("enum", index), "enum", 2, kind.Int32, state)
        await node.set_writable()
        limits = server.get_node(ua.NodeId(ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead))
        await limits.write_value(ua.Variant(3, kind.UInt32))
        await server.start()
        return server

    server = bench.run(start())
    yield server, {"url": f"opc.tcp://127.0.0.1:{server.bserver.port}"}, when
    bench.run(server.stop())


async def test_statuses_times_and_values_of_other_servers(odd, monkeypatch):
    _, settings, when = odd
    names = ["array", "time", "bytes", "structure", "null", "uncertain", "sensor", "server time", "no time", "old time"]
    asked = [point(f"nsu=urn:odd;s={name}", name=name) for name in names]
    asked += [point("nsu=urn:odd;s=no text", "string[8]", name="no text"), point("nsu=urn:odd;s=nan", "float64")]
    asked += [point("i=85", name="folder")]
    sizes = []
    parameters = opcua.read_parameters
    monkeypatch.setattr(opcua, "read_parameters", lambda nodes: (sizes.append(len(nodes)), parameters(nodes))[1])
    start_ns = datetime.now(UTC).timestamp() * 1e9
    async with connected(settings, asked) as device:
        readings = dict(zip([each.name for each in asked], await device.scan(), strict=True))
    assert max(sizes) == 3
    for name in ("array", "time", "bytes", "structure"):
        assert (readings[name].value, readings[name].status) == (None, BAD_TYPE_MISMATCH)
        assert name in device.troubles
    assert "array" in device.troubles["array"]
    assert readings["null"].status == BAD_WAITING
    assert (readings["no text"].value, readings["no text"].status) == ("", GOOD)
    expected_ns = int(when.timestamp()) * 10**9 + when.microsecond * 1000
    assert readings["uncertain"] == Reading(5, UNCERTAIN_SUBSTITUTE, expected_ns)
    assert readings["sensor"] == Reading(None, BAD_SENSOR_FAILURE, expected_ns)
    assert "BadSensorFailure" in device.troubles["sensor"]
    # a server time changes with every read, and is not asked for
    assert all(readings[name].time_ns >= start_ns for name in ("server time", "no time", "old time"))
    assert "no variable" in device.troubles["folder"]


async def test_an_enumeration_is_written_as_its_number(bench, odd):
    _, settings, _ = odd
    async with connected(settings, [point("nsu=urn:odd;s=enum", "uint8", writable=True)]) as device:
        assert await device.write({0: 3}) == {0: GOOD}
        assert (await device.scan())[0].value == 3
        types = {node.name: node.type for node in await device.browse()}
    assert types["enum"] == "int32"
    assert types["array"] == "int64[]"


async def test_browsing_asks_for_the_rest_of_long_answers():
    from asyncua import ua

    def answer(name: str, more: bytes | None) -> ua.BrowseResult:
        reference = ua.ReferenceDescription()
        reference.NodeId, reference.BrowseName = ua.NodeId(name, 2), ua.QualifiedName(name, 2)
        reference.NodeClass = ua.NodeClass.Variable
        return ua.BrowseResult(ua.StatusCode(), more, [reference])

    class Paged:
        async def browse(self, request, count):
            assert count == len(request.NodesToBrowse) == 2
            return [answer("a", None), answer("b", b"1")]

        async def browse_next(self, request, count):
            page = request.ContinuationPoints
            assert (count, request.ReleaseContinuationPoints) == (1, False)
            return [answer("c", b"2")] if page == [b"1"] else [answer("d", None)]

    parents = [(ua.NodeId(1, 2), ""), (ua.NodeId(2, 2), "cell")]
    found = await _below(Paged(), parents)
    assert [path for _, path, is_variable in found if is_variable] == ["a", "cell/b", "cell/c", "cell/d"]


async def test_browsing_a_server_without_end_ends():
    from asyncua import ua

    reference = ua.ReferenceDescription()
    reference.NodeId, reference.BrowseName = ua.NodeId("a", 2), ua.QualifiedName("a", 2)

    class Endless:
        async def browse(self, request, count):
            return [ua.BrowseResult(ua.StatusCode(), b"more", [reference] * 1000)]

        browse_next = browse

    assert len(await _below(Endless(), [(ua.NodeId(1, 2), "")])) == opcua.BROWSE_NODES


# Losing the server.


async def test_not_connected_is_told():
    device = OpcUaDriver(OpcUaSettings("opc.tcp://robot"), [point("ns=2;i=1")], {})
    for call in (device.scan(), device.write({0: 1}), device.browse()):
        with pytest.raises(DeviceError) as caught:
            await call
        assert caught.value.status == BAD_NOT_CONNECTED
    await device.close()


async def test_a_refused_connection():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await failure({"url": f"opc.tcp://127.0.0.1:{unused.getsockname()[1]}"})
    assert "refuses the connection" in error.text
    assert error.status == BAD_CONNECTION_REJECTED


@pytest.mark.parametrize("security", ["None", "Basic256Sha256"])
async def test_a_peer_that_takes_the_connection_and_says_nothing(security):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"opc.tcp://127.0.0.1:{mute.getsockname()[1]}"
        error = await failure({"url": url, "security": security, "timeout": 0.1})
    assert error.status == BAD_TIMEOUT
    assert "did not answer within 0.1 s" in error.text


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"ACKF\x08\x00\x00\x00", bytes(64)])
async def test_a_peer_that_is_no_opc_ua_server(answer):
    async def reply(reader, writer):
        await reader.read(4)
        writer.write(answer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        error = await failure({"url": f"opc.tcp://127.0.0.1:{port}"})
    assert f"127.0.0.1:{port}" in error.text


@pytest.mark.parametrize("call", ["scan", "write", "browse"])
async def test_a_server_that_falls_silent_is_lost_within_the_deadline(secure, call):
    _, settings = secure
    wire = Wire(port_of(settings))
    async with wire as url:
        device = OpcUaDriver(msgspec.convert(settings | {"url": url, "timeout": 0.3}, OpcUaSettings), POINTS, {})
        await device.connect()
        await device.connect()
        wire.frozen = True
        with pytest.raises(DeviceError) as caught:
            await (device.write({2: 1}) if call == "write" else getattr(device, call)())
        assert caught.value.status == BAD_TIMEOUT
        wire.frozen = False
        await device.connect()
        assert {reading.status for reading in await device.scan()} == {GOOD}
        wire.frozen = True
        await device.close()
        await device.close()


async def test_a_session_that_took_too_long_is_ended_at_the_server(bench, plain):
    plc, settings = plain
    wire = Wire(port_of(settings))
    async with wire as url:
        device = OpcUaDriver(msgspec.convert(settings | {"url": url, "timeout": 0.3}, OpcUaSettings), POINTS, {})
        await device.connect()
        sessions = plc._server.iserver._external_sessions
        assert len(bench.call(lambda: list(sessions))) == 1
        wire.deaf = True
        with pytest.raises(DeviceError):
            await device.scan()
        async with asyncio.timeout(DEADLINE_S):
            while bench.call(lambda: list(sessions)):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_a_cancelled_scan_leaves_nothing_behind(plain):
    wire = Wire(port_of(plain[1]))
    async with wire as url:
        device = OpcUaDriver(OpcUaSettings(url), POINTS, {})
        await device.connect()
        wire.frozen = True
        scan = asyncio.ensure_future(device.scan())
        await asyncio.sleep(0)
        scan.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scan
        wire.frozen = False
        assert {reading.status for reading in await device.scan()} == {GOOD}
        await device.close()


async def test_a_cancelled_connect_leaves_nothing_behind():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        device = OpcUaDriver(OpcUaSettings(f"opc.tcp://127.0.0.1:{mute.getsockname()[1]}", timeout=5), [], {})
        attempt = asyncio.ensure_future(device.connect())
        end, _ = await asyncio.to_thread(mute.accept)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        end.settimeout(DEADLINE_S)
        with end:
            while end.recv(4096):
                pass


async def test_a_connection_that_cannot_be_used_is_ended(plain, monkeypatch):
    wire = Wire(port_of(plain[1]))
    async with wire as url:
        device = OpcUaDriver(OpcUaSettings(url), POINTS, {})
        entered = asyncio.Event()

        async def stuck(_device, _session):
            entered.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(OpcUaDriver, "_look_up", stuck)
            attempt = asyncio.ensure_future(device.connect())
            await asyncio.wait_for(entered.wait(), DEADLINE_S)
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
        await device.connect()
        assert {reading.status for reading in await device.scan()} == {GOOD}
        await device.close()


async def test_a_server_that_stops_and_comes_back(bench, state):
    wanted = OpcUaSettings("opc.tcp://robot", "Basic256Sha256", user="edge")
    plc = OpcUaPlc("again", POINTS, wanted)
    plc.write(2, 5)
    settings = bench.run(plc.start("127.0.0.1", 0))
    port = port_of(settings)
    async with connected(settings, POINTS, timeout=5) as device:
        assert (await device.scan())[2].value == 5
        assert await device.write({2: 6}) == {2: GOOD}
        bench.run(plc.stop())
        with pytest.raises(DeviceError) as caught:
            await device.scan()
        assert caught.value.status in (BAD_CONNECTION_CLOSED, BAD_NOT_CONNECTED)
        with pytest.raises(DeviceError, match="refuses the connection"):
            await device.connect()
        assert plc.read(2) == 6
        with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError):
            bench.run(OpcUaPlc("taken", [], OpcUaSettings("opc.tcp://robot")).start("127.0.0.1", port))
        plc = OpcUaPlc("again", POINTS, wanted)
        assert bench.run(plc.start("127.0.0.1", port)) == settings
        await device.connect()
        assert (await device.scan())[2].value == 0
    bench.run(plc.stop())
    bench.run(plc.stop())
