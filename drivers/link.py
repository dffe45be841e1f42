"""The owner of one TCP connection: it alone reads and writes; callers wait for answers, matched by key, in time."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Hashable
from random import Random
from typing import Any, Protocol, cast

from drivers.driver import DeviceError
from drivers.value import (
    BAD_COMMUNICATION,
    BAD_CONNECTION_CLOSED,
    BAD_CONNECTION_REJECTED,
    BAD_NO_COMMUNICATION,
    BAD_NOT_CONNECTED,
    BAD_TIMEOUT,
)

KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_PROBES = 10, 3, 3
CLOSE_DEADLINE_S = 1.0


class FramingError(ValueError):
    """Bytes that cannot be of the protocol: the stream has lost its frames, only a new connection helps."""


class Codec(Protocol):
    """A protocol's frames without a socket."""

    def encode(self, request: bytes) -> tuple[int, bytes]:
        """A request as a frame, and the key that its answer will have."""
        ...

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Received bytes -> the answers that they complete, (key, payload), in order. Raises FramingError."""
        ...

    def reset(self) -> None:
        """A new connection: forgets partial bytes."""
        ...


class Backoff:
    """Delays between attempts: doubled from `first_s` up to `cap_s`, each shortened at random by up to a half."""

    def __init__(self, first_s: float, cap_s: float, random: Random) -> None:
        self._first_s, self._cap_s, self._random = first_s, cap_s, random
        self._delay_s = min(first_s, cap_s)

    def next(self) -> float:
        """The delay before the next attempt, in seconds."""
        delay_s = self._delay_s
        self._delay_s = min(delay_s * 2, self._cap_s)
        return delay_s * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """After a success: the next delay is the first again."""
        self._delay_s = min(self._first_s, self._cap_s)


class _Pending:
    """A request that was sent: its answer, its deadline, and how many stale answers had come before it."""

    __slots__ = ("answer", "stale", "timer")

    def __init__(self, answer: asyncio.Future[bytes], timer: asyncio.TimerHandle, stale: int) -> None:
        self.answer, self.timer, self.stale = answer, timer, stale


class _Wire(asyncio.Protocol):
    """One TCP connection of a link, from its connect to its loss: what is sent, what is awaited."""

    def __init__(self, link: "Link") -> None:
        self.link = link
        self.turn = asyncio.Semaphore(link.depth)
        self.pending: dict[int, _Pending] = {}
        self.lost: Loss | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard_s = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        if self.lost is not None:
            return
        self.heard_s = asyncio.get_running_loop().time()
        try:
            answers = self.link.codec.feed(data)
        except FramingError as error:
            self.lose(Loss(
                f"{self.link.place} sends what is not of its protocol ({error})",
                "is this the right port, and is the device of this kind?",
                BAD_COMMUNICATION,
            ))  # fmt: skip
            return
        for key, payload in answers:
            if key not in self.pending:
                self.link.stale += 1
                continue
            answer = self.settle(key)
            if not answer.done():
                answer.set_result(payload)

    def settle(self, key: int) -> asyncio.Future[bytes]:
        """Takes a request off the list and lets the next one have its turn."""
        pending = self.pending.pop(key)
        pending.timer.cancel()
        self.turn.release()
        return pending.answer

    def send(self, payload: bytes, timeout_s: float) -> asyncio.Future[bytes]:
        """Sends a request whose turn it is.

        A caller who is cancelled leaves it pending: its turn ends with the answer, or with the deadline.
        """
        loop = asyncio.get_running_loop()
        key, frame = self.link.codec.encode(payload)
        if key in self.pending:
            self.turn.release()
            raise RuntimeError(f"request {key} is still pending")
        answer: asyncio.Future[bytes] = loop.create_future()
        timer = loop.call_later(timeout_s, self._expire, key, timeout_s)
        self.pending[key] = _Pending(answer, timer, self.link.stale)
        self.transport.write(frame)
        return answer

    def _expire(self, key: int, timeout_s: float) -> None:
        stale = self.link.stale - self.pending[key].stale
        others_came = f"; it sent {stale} answers to what was not asked" if stale else ""
        loss = Loss(
            f"{self.link.place} did not answer within {timeout_s:g} s{others_came}",
            "is the device running? where it is only slow, give it a longer `timeout`",
            BAD_TIMEOUT,
        )
        others = len(self.link.users) - 1
        silent_s = asyncio.get_running_loop().time() - self.heard_s
        if others > 0 and silent_s < (others + 1) * timeout_s:
            answer = self.settle(key)  # one of several devices behind a gateway: the others' connection stays
            if not answer.done():
                answer.set_exception(loss.error())
        else:
            self.lose(loss)

    def lose(self, loss: "Loss") -> None:
        """Gives the connection up and fails whatever waits for it. Only the first reason counts."""
        if self.lost is not None:
            return
        self.lost = loss
        self.transport.abort()
        for key in tuple(self.pending):
            answer = self.settle(key)
            if not answer.done():
                answer.set_exception(loss.error())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        silent = isinstance(exc, TimeoutError)
        how = "was lost" if silent else "was closed by the device"
        self.lose(Loss(
            f"the connection to {self.link.place} {how}",
            "was it restarted? the device may allow only one connection: end other programs that use it",
            BAD_TIMEOUT if silent else BAD_CONNECTION_CLOSED,
        ))  # fmt: skip


class Loss:
    """Why there is no connection: the text, hint and status of each DeviceError that says so."""

    def __init__(self, text: str, hint: str, status: int) -> None:
        self.text, self.hint, self.status = text, hint, status

    def error(self) -> DeviceError:
        return DeviceError(self.text, self.hint, status=self.status)


class Link:
    """One TCP connection, shared by its `users`; at most `depth` requests are on their way at a time.

    A framing error, a broken deadline or the peer's close ends the connection and fails every request that waits, with
    a DeviceError; `connect` opens the next one. Answers that nobody waits for are dropped and counted in `stale`.
    """

    def __init__(self, host: str, port: int, codec: Codec, *, timeout_s: float, depth: int = 1) -> None:
        self.host, self.port, self.codec = host, port, codec
        self.timeout_s, self.depth = timeout_s, depth
        self.place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.users: set[object] = set()
        self.stale = 0
        self._wire: _Wire | None = None
        self._attempt: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether requests can be sent: connected, and the handshake done."""
        return self._wire is not None and self._wire.lost is None and self._attempt is None

    async def connect(self, handshake: Callable[["Link"], Awaitable[None]] | None = None) -> None:
        """Connects within `timeout_s`, handshake included; who comes meanwhile waits for the same attempt.

        Harmless when up. Raises DeviceError; what the handshake raises is passed on.
        """
        if self.up:
            return
        if self._attempt is None:
            self._attempt = asyncio.get_running_loop().create_task(self._open(handshake))
            self._attempt.add_done_callback(self._attempted)
        attempt = self._attempt
        await asyncio.wait([attempt])  # a caller who is cancelled does not cancel the attempt of the others
        if attempt.cancelled():
            raise self._not_connected()
        attempt.result()

    def _attempted(self, attempt: asyncio.Task[None]) -> None:
        if self._attempt is attempt:
            self._attempt = None
        if not attempt.cancelled():
            attempt.exception()  # seen, even where every caller has gone

    async def _open(self, handshake: Callable[["Link"], Awaitable[None]] | None) -> None:
        self.codec.reset()
        try:
            async with asyncio.timeout(self.timeout_s):
                self._wire = await self._wired(await _connected(self.host, self.port))
                if handshake is not None:
                    await handshake(self)
        except TimeoutError as error:
            self._drop()
            raise DeviceError(
                f"{self.place} does not answer within {self.timeout_s:g} s",
                "is the device on and its cable in? does a firewall block the port?",
                status=BAD_TIMEOUT,
            ) from error
        except OSError as error:
            self._drop()
            raise _refused(self.place, self.host, error) from error
        except BaseException:
            self._drop()
            raise

    async def _wired(self, connection: socket.socket) -> _Wire:
        try:
            _, wire = await asyncio.get_running_loop().create_connection(lambda: _Wire(self), sock=connection)
        except BaseException:
            connection.close()
            raise
        return wire

    async def request(self, payload: bytes, *, timeout_s: float | None = None) -> bytes:
        """Sends a request when its turn comes and gives the answer's payload.

        Raises DeviceError where there is no connection, it is lost, or the answer is not there `timeout_s` after the
        request was sent.
        """
        wire = self._wire
        if wire is None or (self._attempt is not None and asyncio.current_task() is not self._attempt):
            raise self._not_connected()
        await wire.turn.acquire()
        if wire.lost is not None:
            wire.turn.release()
            raise wire.lost.error()
        return await wire.send(payload, self.timeout_s if timeout_s is None else timeout_s)

    def give_up(self, text: str, hint: str) -> DeviceError:
        """Ends a connection whose peer cannot be understood; gives the DeviceError that every waiting request has."""
        loss = Loss(text, hint, BAD_COMMUNICATION)
        if self._wire is not None:
            self._wire.lose(loss)
        return loss.error()

    def join(self, user: object) -> None:
        """`user` uses this connection from now on."""
        self.users.add(user)

    async def leave(self, user: object) -> None:
        """`user` no longer does; the connection is closed with the last one."""
        self.users.discard(user)
        if not self.users:
            await self.close()

    async def close(self) -> None:
        """Ends the connection within a second; what waits for it fails. Never raises."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        wire = self._wire
        if wire is not None:
            self._drop()
            await asyncio.wait([wire.closed], timeout=CLOSE_DEADLINE_S)

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.lose(self._closed())
            self._wire = None

    def _closed(self) -> Loss:
        return Loss(f"the connection to {self.place} was closed", "", BAD_NOT_CONNECTED)

    def _not_connected(self) -> DeviceError:
        return DeviceError(
            f"{self.place} is not connected", "wait: it is connected again by itself", status=BAD_NOT_CONNECTED
        )


def shared(connections: dict[str, Any], key: Hashable, make: Callable[[], Link]) -> Link:
    """The link of this key in a process's `connections`; made where there is none yet."""
    known: dict[Hashable, Any] = connections  # type: ignore[assignment]
    if key not in known:
        known[key] = make()
    return known[key]


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


def _refused(place: str, host: str, error: OSError) -> DeviceError:
    """A failed connect in words."""
    text, hint = f"cannot connect to {place}: {error.strerror or error}", "check host and port"
    status = BAD_NO_COMMUNICATION
    if isinstance(error, socket.gaierror):
        text, hint = f"no machine is known as `{host}`", "check `host`; an IP address needs no name server"
    elif isinstance(error, ConnectionRefusedError):
        text = f"{place} refuses the connection"
        hint = "is the port right, and the device's server switched on? it may allow only one connection"
        status = BAD_CONNECTION_REJECTED
    elif error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        text = f"there is no way to {place}"
        hint = "check the cable, the device's power, and the network address of this machine"
    elif isinstance(error, ConnectionError):
        text = f"{place} closed the connection at once"
        hint = "the device may allow only one connection: end other programs that use it"
        status = BAD_CONNECTION_CLOSED
    return DeviceError(text, hint, status=status)
