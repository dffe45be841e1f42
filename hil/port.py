"""The TCP port of a simulated PLC: many connections, each with a session of its protocol's server role, sans I/O."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from drivers.link import FramingError


class Session(Protocol):
    """One client's connection without a socket."""

    ended: bool
    """The client or the PLC has ended it."""

    def feed(self, data: bytes) -> bytes:
        """What the client sent -> what it gets. Raises FramingError."""
        ...


class _Connection(asyncio.Protocol):
    """A session on a socket."""

    def __init__(self, session: Session, connections: "set[_Connection]") -> None:
        self._session = session
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            self.transport.write(self._session.feed(data))
        except FramingError:
            self.transport.abort()
        if self._session.ended:
            self.transport.close()

    def pause_writing(self) -> None:
        self.transport.pause_reading()  # a client that does not read its answers gets no further ones

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()


class Port:
    """Serves a new session to each client."""

    def __init__(self, session: Callable[[], Session]) -> None:
        self.connections: set[_Connection] = set()
        self._session = session
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> dict[str, Any]:
        """Serves on host and port (0: any free one); gives host and port. Raises OSError where the port is in use."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self._session(), self.connections), host, port
        )
        return {"host": host, "port": self._server.sockets[0].getsockname()[1]}

    async def close(self) -> None:
        """Closes every connection and the port."""
        if self._server is None:
            return
        self._server.close()
        for connection in tuple(self.connections):
            connection.transport.abort()
        await self._server.wait_closed()
        self._server = None
