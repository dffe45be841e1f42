"""Modbus/TCP Security: certificates of both sides, against TLS servers around our own server role, and pymodbus's."""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from drivers.driver import DeviceError, Point, SettingError
from drivers.modbus import ModbusDriver
from drivers.modbus_settings import ModbusSettings, TlsSettings
from drivers.transport import _same_name
from drivers.value import (
    BAD_CERTIFICATE_INVALID,
    BAD_CERTIFICATE_TIME_INVALID,
    BAD_CERTIFICATE_UNTRUSTED,
    BAD_CONFIGURATION,
    BAD_CONNECTION_CLOSED,
    BAD_SECURITY_CHECKS_FAILED,
    GOOD,
    parse_type,
)
from hil.modbus_plc import ModbusPlc, Session
from tests.listening import listening

LONG_S = 30.0
POINTS = [Point(f"device.{at}", f"holding:{at}", parse_type("uint16"), writable=True) for at in range(3)]
ROLE = x509.ObjectIdentifier("1.3.6.1.4.1.50316.802.1")


class Certificate:
    """A certificate and its key, in files: of an authority where `by` is None, else signed by that one."""

    def __init__(
        self, path: Path, name: str, by: "Certificate | None" = None, *, names: tuple[str, ...] = (), days: int = 30
    ) -> None:
        self.own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        begin = datetime.now(UTC) - timedelta(days=60)
        builder = (
            x509.CertificateBuilder(subject if by is None else by.made.subject, subject, self.own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(datetime.now(UTC) + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        )
        if names:
            given = [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(given), critical=False)
        if by is not None:
            builder = builder.add_extension(x509.UnrecognizedExtension(ROLE, b"\x0c\x08Operator"), critical=False)
        self.made = builder.sign((by or self).own, hashes.SHA256())
        self.file, self.key, self.der = path / f"{name}.pem", path / f"{name}.key", path / f"{name}.der"
        self.file.write_bytes(self.made.public_bytes(serialization.Encoding.PEM))
        self.der.write_bytes(self.made.public_bytes(serialization.Encoding.DER))
        self.key.write_bytes(
            self.own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


class House:
    """The certificates of a plant: its authority, the device, edge, and some that are of no use."""

    def __init__(self, path: Path) -> None:
        self.authority = Certificate(path, "authority")
        self.device = Certificate(path, "device", self.authority, names=("127.0.0.1", "plc.plant.example"))
        self.elsewhere = Certificate(path, "elsewhere", self.authority, names=("press.plant.example",))
        self.old = Certificate(path, "old", self.authority, names=("127.0.0.1",), days=-1)
        self.alone = Certificate(path, "alone")
        self.edge = Certificate(path, "edge", self.authority)

    def server(self, who: Certificate, *, trust: Certificate | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(who.file, who.key)
        context.load_verify_locations((trust or self.authority).file)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def settings(self, port: int, **tls: Any) -> ModbusSettings:
        files = {"trust": str(self.authority.file), "certificate": str(self.edge.file), "key": str(self.edge.key)}
        return ModbusSettings(host="127.0.0.1", port=port, timeout=LONG_S, tls=TlsSettings(**{**files, **tls}))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("certificates"))


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A Modbus device behind TLS. Gives its port."""
    plc = ModbusPlc("device", POINTS, ModbusSettings(host=""))

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session({1: plc.memory})
        while data := await reader.read(4096):
            writer.write(session.feed(data))

    async with listening(peer, context) as port:
        yield port


async def used(settings: ModbusSettings) -> list[Any]:
    """What a device that is written and read has in the end."""
    driver = ModbusDriver(settings, POINTS, {})
    try:
        await driver.connect()
        assert await driver.write({1: 7}) == {1: GOOD}
        return list((await driver.scan()).values)
    finally:
        await driver.close()


async def refusal(settings: ModbusSettings) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        await used(settings)
    assert "\n" not in caught.value.text and caught.value.hint
    return caught.value


async def test_both_sides_show_certificates(house: House) -> None:
    async with serving(house.server(house.device)) as port:
        assert await used(house.settings(port)) == [0, 7, 0]
        assert await used(house.settings(port, name="plc.plant.example")) == [0, 7, 0]


@pytest.mark.parametrize("form", ["file", "der"])
async def test_a_device_whose_own_certificate_is_trusted_may_be_called_anything(house: House, form: str) -> None:
    for who in (house.alone, house.elsewhere):
        async with serving(house.server(who)) as port:
            assert await used(house.settings(port, trust=str(getattr(who, form)))) == [0, 7, 0]


async def test_another_device_of_the_same_authority(house: House) -> None:
    async with serving(house.server(house.elsewhere)) as port:
        error = await refusal(house.settings(port))
        assert error.text == f"the certificate of 127.0.0.1:{port} is for press.plant.example, not for 127.0.0.1"
        assert error.status == BAD_CERTIFICATE_INVALID
        assert await used(house.settings(port, name="press.plant.example")) == [0, 7, 0]


async def test_a_certificate_of_nobody(house: House) -> None:
    async with serving(house.server(house.alone)) as port:
        error = await refusal(house.settings(port))
        assert error.text.startswith(f"the certificate of 127.0.0.1:{port} is not accepted: ")
        assert error.status == BAD_CERTIFICATE_UNTRUSTED and "trust" in error.hint


async def test_a_certificate_out_of_date(house: House) -> None:
    async with serving(house.server(house.old)) as port:
        error = await refusal(house.settings(port))
        assert "expired" in error.text and error.status == BAD_CERTIFICATE_TIME_INVALID


@contextlib.asynccontextmanager
async def alerting(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A device that says why it refuses: asyncio's servers only hang up. Gives its port."""

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            session = context.wrap_bio(incoming, outgoing, server_side=True)
            while data := connection.recv(4096):
                incoming.write(data)
                with contextlib.suppress(ssl.SSLError):
                    session.do_handshake()
                connection.sendall(outgoing.read())

    with socket.create_server(("127.0.0.1", 0)) as server:
        served = asyncio.create_task(asyncio.to_thread(serve, server))
        yield server.getsockname()[1]
        await served


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def versed(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_device_that_does_not_know_edge(house: House, version: ssl.TLSVersion) -> None:
    async with alerting(versed(house.server(house.device, trust=house.alone), version)) as port:
        error = await refusal(house.settings(port))
        assert error.text.startswith(f"127.0.0.1:{port} does not accept edge's certificate (")
        assert error.status == BAD_SECURITY_CHECKS_FAILED


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_device_that_wants_a_certificate_and_gets_none(house: House, version: ssl.TLSVersion) -> None:
    async with alerting(versed(house.server(house.device), version)) as port:
        error = await refusal(house.settings(port, certificate=None, key=None))
        assert error.text.startswith(f"127.0.0.1:{port} does not accept edge's certificate (")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_device_that_hangs_up_where_it_refuses_a_certificate(house: House, version: ssl.TLSVersion) -> None:
    async with serving(versed(house.server(house.device, trust=house.alone), version)) as port:
        error = await refusal(house.settings(port))
        assert error.status == BAD_CONNECTION_CLOSED and "let the device trust" in error.hint


async def test_a_port_without_tls(house: House) -> None:
    plc = ModbusPlc("device", POINTS, ModbusSettings(host=""))
    where = await plc.start("127.0.0.1", 0)
    error = await refusal(house.settings(where["port"]))
    assert "127.0.0.1" in error.text
    await plc.stop()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (lambda house: {"trust": "/nowhere.pem"}, "/nowhere.pem cannot be read: No such file or directory"),
        (lambda house: {"certificate": "/nowhere.pem"}, "/nowhere.pem cannot be read: No such file or directory"),
        (lambda house: {"key": "/nowhere.key"}, "/nowhere.key cannot be read: No such file or directory"),
        (lambda house: {"key": str(house.device.key)}, "device.key is not that of the certificate"),
        (lambda house: {"key": str(house.edge.file)}, "edge.pem holds no private key in PEM form"),
        (lambda house: {"trust": str(house.edge.key)}, "edge.key holds no certificate"),
        (lambda house: {"certificate": str(house.edge.der)}, "edge.der holds no certificate in PEM form"),
    ],
)
async def test_files_that_are_of_no_use(house: House, files: Callable[[House], dict[str, str]], words: str) -> None:
    async with serving(house.server(house.device)) as port:
        error = await refusal(house.settings(port, **files(house)))
        assert words in error.text and error.status == BAD_CONFIGURATION


async def test_the_tls_server_of_pymodbus(house: House) -> None:
    """It cuts frames by the data that a TLS record holds, but they are the same (MB-TCP-Security-v21, 7)."""
    from pymodbus import FramerType
    from pymodbus.server import ModbusTlsServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    device = SimDevice(1, simdata=[SimData(0, count=10, values=3, datatype=DataType.REGISTERS)])
    server = ModbusTlsServer(
        device, framer=FramerType.SOCKET, sslctx=house.server(house.device), address=("127.0.0.1", 0)
    )
    await server.serve_forever(background=True)
    assert server.transport is not None
    try:
        port = server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        assert await used(house.settings(port)) == [3, 7, 3]
    finally:
        await server.shutdown()


def test_the_same_on_uvloop(house: House) -> None:
    """The loop on which the devices are read."""
    for case in (
        test_both_sides_show_certificates,
        test_another_device_of_the_same_authority,
        test_a_certificate_of_nobody,
        test_a_port_without_tls,
    ):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(case(house))
    for version in VERSIONS:
        for refused in (
            test_a_device_that_does_not_know_edge,
            test_a_device_that_wants_a_certificate_and_gets_none,
            test_a_device_that_hangs_up_where_it_refuses_a_certificate,
        ):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(refused(house, version))


def test_a_certificate_without_its_key() -> None:
    with pytest.raises(SettingError) as caught:
        TlsSettings(trust="t", certificate="c")
    assert caught.value.key == "certificate"


def test_the_port_is_that_of_the_standard() -> None:
    transport = ModbusSettings(host="h", tls=TlsSettings(trust="t")).transport()
    assert transport.place == "h:802"


@pytest.mark.parametrize(
    ("wanted", "given", "same"),
    [
        ("plc.example", "PLC.example", True),
        ("plc.example", "*.example", False),
        ("plc.plant.example", "*.plant.example", True),
        ("a.plc.plant.example", "*.plant.example", False),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "*.0.0.1", False),
    ],
)
def test_names_of_certificates(wanted: str, given: str, same: bool) -> None:
    assert _same_name(wanted, given) == same
