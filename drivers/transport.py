"""What a link runs over: TCP, TLS over TCP, a serial line; how each is opened, and what is said where it cannot be."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Protocol, TypeVar

from drivers.driver import DeviceError
from drivers.value import BAD_CONNECTION_CLOSED, BAD_CONNECTION_REJECTED, BAD_NO_COMMUNICATION, BAD_TIMEOUT

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
