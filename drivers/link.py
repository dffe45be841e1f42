"""The owner of one connection: it alone reads and writes; callers wait for answers, matched by key, in time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from random import Random
from typing import Any, Literal

from drivers.depth import Depth
from drivers.driver import DeviceError
from drivers.transport import Transport
from drivers.value import BAD_COMMUNICATION, BAD_NOT_CONNECTED
from drivers.wire import Codec, Loss, Wire
from drivers.wire import FramingError as FramingError

CLOSE_DEADLINE_S = 1.0


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


class Link:
    """One connection, shared by its `users`; at most `depth` requests are on their way at a time.

    `delay_s` is the least time between an answer and the next request. A framing error, a broken deadline or the peer's
    close ends the connection and fails every request that waits, with a DeviceError; `connect` opens the next one.
    Answers that nobody waits for are dropped and counted in `stale`.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        *,
        timeout_s: float,
        depth: int | Literal["auto"] = 1,
        delay_s: float = 0.0,
    ) -> None:
        self.transport, self.codec, self.place = transport, codec, transport.place
        self.timeout_s, self.delay_s, self.depth = timeout_s, delay_s, Depth(depth)
        self.users: set[object] = set()
        self.stale = 0
        self._wire: Wire | None = None
        self._attempt: asyncio.Task[None] | None = None
        self._handshake: Handshake | None = None

    @property
    def up(self) -> bool:
        """Whether requests can be sent: connected, and the handshake done."""
        return self._wire is not None and self._wire.lost is None and self._attempt is None

    @property
    def tried(self) -> bool:
        """Whether the connection was lost while a greater depth was tried: it will not be tried again."""
        return self._wire is not None and self._wire.lost is not None and self._wire.lost.tried

    async def connect(self, handshake: "Handshake | None" = None) -> None:
        """Connects within `timeout_s`, handshake included; who comes meanwhile waits for the same attempt.

        Harmless when up. Raises DeviceError; what the handshake raises is passed on.
        """
        if self.up:
            return
        if self._attempt is None:
            self._handshake = handshake
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

    async def _open(self, handshake: "Handshake | None") -> None:
        self.codec.reset()
        try:
            async with asyncio.timeout(self.timeout_s):
                self._wire = await self.transport.open(lambda: Wire(self))
                if handshake is not None:
                    await handshake(self)
        except TimeoutError as error:
            self._drop()
            raise self.transport.silent(self.timeout_s) from error
        except OSError as error:
            self._drop()
            raise self.transport.refused(error) from error
        except BaseException:
            self._drop()
            raise

    async def request(self, payload: bytes, *, timeout_s: float | None = None, write: bool = False) -> bytes:
        """One request's answer: see `requests`."""
        return (await self.requests((payload,), timeout_s=timeout_s, write=write))[0]

    async def requests(
        self, payloads: Sequence[bytes], *, timeout_s: float | None = None, write: bool = False
    ) -> list[bytes]:
        """Sends requests when their turn comes, as many at a time as `depth` allows; their answers' payloads, in order.

        What is no `write` may be asked twice: where a greater depth was tried and did harm. Raises DeviceError where
        there is no connection, it is lost, or an answer is not there `timeout_s` after its request was sent.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        while payloads:
            wire = self._wire
            if wire is None or (self._attempt is not None and asyncio.current_task() is not self._attempt):
                raise self._not_connected()
            if wire.lost is not None:
                raise wire.lost.error()
            batch = wire.ask(payloads, timeout_s, write)
            try:
                await batch.done
            except DeviceError:
                if wire.lost is None or not wire.lost.tried or (write and batch.sent):
                    raise
                await self.connect(self._handshake)
            else:
                return batch.answers
        return []

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


Handshake = Callable[[Link], Awaitable[None]]
"""What a protocol says first on a new connection."""


def shared(
    connections: dict[str, Any],
    key: Hashable,
    transport: Transport,
    codec: Callable[[], Codec],
    *,
    timeout_s: float,
    depth: int | Literal["auto"] = 1,
    delay_s: float = 0.0,
) -> Link:
    """The link of this key in a process's `connections`; made where there is none yet.

    Where several devices share it, it is as careful as the most careful of them: the least depth, the longest delay.
    """
    known: dict[Hashable, Any] = connections  # type: ignore[assignment]
    if key not in known:
        known[key] = Link(transport, codec(), timeout_s=timeout_s, depth=depth, delay_s=delay_s)
    link: Link = known[key]
    link.delay_s = max(link.delay_s, delay_s)
    if depth != "auto":
        link.depth.limit(depth)
    return link
