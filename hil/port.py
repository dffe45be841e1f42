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

    def __init__(self, port: "Port", session: Session) -> None:
        self._port = port
        self._session = session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        if len(self._port.connections) >= self._port.most:
            self.transport.abort()
        else:
            self._port.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._port.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            answer = self._session.feed(data)
        except FramingError:
            self.transport.abort()
        else:
            self._port.later(self._answer, answer)

    def _answer(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
        if self._session.ended:
            self.transport.close()

    def pause_writing(self) -> None:
        self.transport.pause_reading()  # a client that does not read its answers gets no further ones

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()


class Port:
    """Serves a new session to each client, to `most` at a time, and answers after `answer_time_s`."""

    def __init__(self, session: Callable[[], Session], most: int, answer_time_s: float = 0.0) -> None:
        self.connections: set[_Connection] = set()
        self.most = most
        self.answer_time_s = answer_time_s
        self._session = session
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> dict[str, Any]:
        """Serves on host and port (0: any free one); gives host and port. Raises OSError where the port is in use."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self, self._session()), host, port
        )
        return {"host": host, "port": self._server.sockets[0].getsockname()[1]}

    def later(self, work: Callable[[bytes], None], answer: bytes) -> None:
        """Does it when the time of an answer has come: at once where it takes none."""
        if self.answer_time_s:
            asyncio.get_running_loop().call_later(self.answer_time_s, work, answer)
        else:
            work(answer)

    async def close(self) -> None:
        """Closes every connection and the port."""
        if self._server is None:
            return
        self._server.close()
        for connection in tuple(self.connections):
            connection.transport.abort()
        await self._server.wait_closed()
        self._server = None
