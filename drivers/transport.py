"""What a link runs over: TCP, TLS over TCP, a serial line; how each is opened, and what is said where it cannot be."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol, TypeVar

from drivers.driver import DeviceError
from drivers.value import (
    BAD_CERTIFICATE_INVALID,
    BAD_CERTIFICATE_TIME_INVALID,
    BAD_CERTIFICATE_UNTRUSTED,
    BAD_CONFIGURATION,
    BAD_CONNECTION_CLOSED,
    BAD_CONNECTION_REJECTED,
    BAD_NO_COMMUNICATION,
    BAD_SECURITY_CHECKS_FAILED,
    BAD_TIMEOUT,
)

KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_PROBES = 10, 3, 3

P = TypeVar("P", bound=asyncio.Protocol)


class Transport(Protocol):
    """How a device is reached."""

    place: str
    """Where it is, for texts: `192.168.10.12:502`, `/dev/ttyUSB0`."""

    async def open(self, wire: Callable[[], P]) -> P:
        """Connects, and gives the protocol that `wire` made, whose `connection_made` was called. Raises OSError."""
        ...

    def refused(self, error: OSError) -> DeviceError:
        """A failed `open` in words."""
        ...

    def silent(self, timeout_s: float) -> DeviceError:
        """An `open` that took longer than `timeout_s`, in words."""
        ...

    def lost(self, error: Exception | None) -> DeviceError:
        """The end of an open connection that edge did not want, in words."""
        ...


class Tcp:
    """A TCP connection (drivers.transport.Transport): without delay, kept alive."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def open(self, wire: Callable[[], P]) -> P:
        """To the first address of the host that answers."""
        connection = await _connected(self.host, self.port)
        try:
            _, protocol = await asyncio.get_running_loop().create_connection(wire, sock=connection)
        except BaseException:
            connection.close()
            raise
        return protocol

    def refused(self, error: OSError) -> DeviceError:
        """Which of the usual reasons it is."""
        text, hint = f"cannot connect to {self.place}: {error.strerror or error}", "check host and port"
        status = BAD_NO_COMMUNICATION
        if isinstance(error, socket.gaierror):
            text, hint = f"no machine is known as `{self.host}`", "check `host`; an IP address needs no name server"
        elif isinstance(error, ConnectionRefusedError):
            text = f"{self.place} refuses the connection"
            hint = "is the port right, and the device's server switched on? it may allow only one connection"
            status = BAD_CONNECTION_REJECTED
        elif error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            text = f"there is no way to {self.place}"
            hint = "check the cable, the device's power, and the network address of this machine"
        elif isinstance(error, ConnectionError):
            text = f"{self.place} closed the connection at once"
            hint = "the device may allow only one connection: end other programs that use it"
            status = BAD_CONNECTION_CLOSED
        return DeviceError(text, hint, status=status)

    def silent(self, timeout_s: float) -> DeviceError:
        """Nobody there, or nobody who answers."""
        return DeviceError(
            f"{self.place} does not answer within {timeout_s:g} s",
            "is the device on and its cable in? does a firewall block the port?",
            status=BAD_TIMEOUT,
        )

    def lost(self, error: Exception | None) -> DeviceError:
        """Closed by the device, or no longer heard of."""
        silent = isinstance(error, TimeoutError)
        return DeviceError(
            f"the connection to {self.place} {'was lost' if silent else 'was closed by the device'}",
            "was it restarted? the device may allow only one connection: end other programs that use it",
            status=BAD_TIMEOUT if silent else BAD_CONNECTION_CLOSED,
        )


async def _connected(host: str, port: int) -> socket.socket:
    """A connected non-blocking socket: the first address of the host that answers. Raises OSError."""
    loop = asyncio.get_running_loop()
    try:  # an address needs no name server, and so no thread that may hang in it
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure = OSError(errno.EHOSTUNREACH, "no address")
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            _prepare(connection)
            await loop.sock_connect(connection, address)
            return connection
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
    raise failure


def _prepare(connection: socket.socket) -> None:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with contextlib.suppress(AttributeError):  # the names are Linux's
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


class Tls(Tcp):
    """TLS over TCP, version 1.2 or later (Modbus/TCP Security, MB-TCP-Security-v21, 8): both sides show certificates.

    `trust` has the device's own certificate, or that of who signed it; a signed one must also be for `name`, or for
    the host. `certificate` and `key` are edge's own (PEM). Raises DeviceError where a file is of no use.
    """

    def __init__(
        self, host: str, port: int, *, trust: str, certificate: str | None, key: str | None, name: str | None
    ) -> None:
        super().__init__(host, port)
        self._trust, self._certificate, self._key, self._name = trust, certificate, key, name or host

    async def open(self, wire: Callable[[], P]) -> P:
        """Connects, and compares the device's certificate."""
        context = self._context()
        connection = await _connected(self.host, self.port)
        try:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                wire, sock=connection, ssl=context, server_hostname=self._name
            )
        except BaseException:
            connection.close()
            raise
        try:
            self._compare(transport.get_extra_info("ssl_object"))
        except BaseException:
            transport.abort()
            raise
        return protocol

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False  # a certificate that is trusted itself may be for any name: see _compare
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            for certificate in self._trusted():
                context.load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError) as error:
            raise _unusable(f"{self._trust} holds no certificate") from error
        if self._certificate is not None and self._key is not None:
            certificate, key = _pem(self._certificate, b"CERTIFICATE-----"), _pem(self._key, b"PRIVATE KEY-----")
            try:
                context.load_cert_chain(certificate, key, password="")
            except ssl.SSLError as error:
                raise _unusable(f"the key {key} is not that of the certificate {certificate}") from error
        return context

    def _trusted(self) -> list[bytes]:
        """The certificates of `trust`, PEM or DER, as DER. Raises DeviceError, ValueError."""
        data = _read(self._trust)
        parts = data.decode("latin-1").split(_BEGIN)[1:]
        return [ssl.PEM_cert_to_DER_cert(_BEGIN + part[: part.find(_END)] + _END) for part in parts] or [data]

    def _compare(self, session: Any) -> None:
        """The device's certificate is one that is trusted itself, or it is for the name."""
        if session.getpeercert(binary_form=True) in self._trusted():
            return
        names = [value for kind, value in session.getpeercert().get("subjectAltName", ()) if kind in _NAMES]
        if not any(_same_name(self._name, name) for name in names):
            shown = ", ".join(names) or "no name at all"
            raise DeviceError(
                f"the certificate of {self.place} is for {shown}, not for {self._name}",
                "is it the right device? then put the certificate's name in `tls: {name: …}`",
                status=BAD_CERTIFICATE_INVALID,
            )

    def refused(self, error: OSError) -> DeviceError:
        """Also what is wrong with a certificate."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._distrusted(error)
        if isinstance(error, ssl.SSLError):
            return self._not_accepted(error)
        return self._advised(super().refused(error))

    def _distrusted(self, error: ssl.SSLCertVerificationError) -> DeviceError:
        text = f"the certificate of {self.place} is not accepted: {error.verify_message}"
        if error.verify_code in (_NOT_YET, _EXPIRED):
            hint = "compare the clocks of this machine and of the device; an old certificate has to be renewed"
            return DeviceError(text, hint, status=BAD_CERTIFICATE_TIME_INVALID)
        hint = "put the device's certificate, or that of who signed it, in the file of `trust`"
        return DeviceError(text, hint, status=BAD_CERTIFICATE_UNTRUSTED)

    def _not_accepted(self, error: ssl.SSLError) -> DeviceError:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        if "alert" in reason:
            text = f"{self.place} does not accept edge's certificate ({reason})"
            return DeviceError(text, _LET_TRUST, status=BAD_SECURITY_CHECKS_FAILED)
        text = f"{self.place} does not speak TLS as edge does ({reason})"
        return DeviceError(text, "is this the port for Modbus/TCP Security, 802?", status=BAD_SECURITY_CHECKS_FAILED)

    def lost(self, error: Exception | None) -> DeviceError:
        """A device that refuses a certificate says so only after the handshake (RFC 8446, 4.4.2.4)."""
        return self._not_accepted(error) if isinstance(error, ssl.SSLError) else self._advised(super().lost(error))

    def _advised(self, error: DeviceError) -> DeviceError:
        """Some devices only close the connection where they refuse a certificate."""
        if error.status == BAD_CONNECTION_CLOSED:
            error.hint = f"{error.hint}; where that is always so at once: {_LET_TRUST}"
        return error


_LET_TRUST = "let the device trust the `certificate` of `tls`; is it valid, and has it the role that is needed?"
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_NAMES = ("DNS", "IP Address")
_NOT_YET, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


def _unusable(text: str) -> DeviceError:
    return DeviceError(text, "see the files that `tls` of the device names", status=BAD_CONFIGURATION)


def _read(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise _unusable(f"{path} cannot be read: {error.strerror}") from error


def _pem(path: str, kind: bytes) -> Path:
    """A file that has such a part in PEM form, in the clear."""
    data = _read(path)
    if b"ENCRYPTED" in data:
        raise _unusable(
            f"the key {path} is encrypted, and edge has no password for it: keep it in the clear, chmod 600"
        )
    if kind not in data:
        raise _unusable(f"{path} holds no {kind.strip(b'-').decode().lower()} in PEM form")
    return Path(path).expanduser()


def _same_name(wanted: str, given: str) -> bool:
    """Whether a name of a certificate is the one that is wanted (RFC 9525, 6.3): `*` is the whole first label."""
    wanted, given = wanted.lower().rstrip("."), given.lower().rstrip(".")
    with contextlib.suppress(ValueError):
        address = ip_address(wanted)
        with contextlib.suppress(ValueError):
            return address == ip_address(given)
        return False
    first, _, rest = given.partition(".")
    return wanted == given or (first == "*" and "." in rest and wanted.partition(".")[2] == rest)
