"""The owner of one connection: it alone reads and writes; callers wait for answers, matched by key, in time."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from random import Random
from time import monotonic
from typing import Any, Literal, Protocol, cast

from drivers.depth import Depth
from drivers.driver import DeviceError
from drivers.transport import Transport
from drivers.value import BAD_COMMUNICATION, BAD_NOT_CONNECTED, BAD_TIMEOUT

CLOSE_DEADLINE_S = 1.0
EARLY_S = 10.0
"""A connection that ends so soon, with several requests on their way, may have ended because of them."""
MOST_STALE = 1000
"""So many answers in a row that nobody asked for are no protocol."""


class FramingError(ValueError):
    """Bytes that cannot be of the protocol: the stream has lost its frames, only a new connection helps."""


class Codec(Protocol):
    """A protocol's frames without a socket."""

    def encode(self, request: bytes) -> tuple[int, bytes]:
        """A request as a frame, and the key that its answer will have."""
        ...

    def feed(self, data: bytes) -> Sequence[tuple[int, bytes]]:
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


class _Batch:
    """Requests of one caller: how many were sent, the answers, and how many of them are missing."""

    __slots__ = ("answers", "done", "missing", "requests", "sent", "timeout_s", "write")

    def __init__(self, requests: Sequence[bytes], timeout_s: float, write: bool, done: asyncio.Future[None]) -> None:
        self.requests, self.timeout_s, self.write, self.done = requests, timeout_s, write, done
        self.sent, self.missing = 0, len(requests)
        self.answers = [b""] * self.missing

    def begin_again(self) -> None:
        """Nothing of it counts as asked."""
        self.sent, self.missing = 0, len(self.requests)


_Pending = tuple[_Batch, int, float, int]
"""A request that was sent: its batch and place there, its deadline, the stale answers that had come before it."""


class _Wire(asyncio.Protocol):
    """One connection of a link, from its opening to its loss: what is to be sent, what is awaited."""

    def __init__(self, link: "Link") -> None:
        self.link = link
        self.loop = asyncio.get_running_loop()
        self.queue: deque[_Batch] = deque()
        self.pending: dict[int, _Pending] = {}
        self.writing = 0  # how many writes are pending
        self.lost: Loss | None = None
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.began_s = self.heard_s = monotonic()
        self.strays = 0
        self.deadline_s = math.inf
        self.deadline_timer: asyncio.TimerHandle | None = None
        self.delay_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    # Sending

    def ask(self, requests: Sequence[bytes], timeout_s: float, write: bool) -> _Batch:
        """Sends requests as their turn comes.

        A caller who is cancelled leaves what was sent pending: its turn ends with the answer, or with the deadline.
        """
        batch = _Batch(requests, timeout_s, write, self.loop.create_future())
        if self.pending or self.queue or self.link.delay_s or self.link.depth.learning or len(requests) > 1:
            if self.link.depth.learning and not self.pending and not self.queue:
                self.link.depth.begin(monotonic())
            self.queue.append(batch)
            self.pump()
        else:  # what most scans are: one request, and nothing else
            key, frame = self.link.codec.encode(requests[0])
            batch.sent, self.writing, now = 1, int(write), monotonic()
            self.pending[key] = batch, 0, now + timeout_s, self.link.stale
            self.transport.write(frame)
            if now + timeout_s < self.deadline_s:
                self._watch(now + timeout_s, now)
        return batch

    def pump(self) -> None:
        """Sends what may be on its way now, of each batch in turn, in one piece."""
        if self.delay_timer is not None:
            return
        link, queue, pending = self.link, self.queue, self.pending
        now, depth, encode = monotonic(), link.depth, link.codec.encode
        if link.delay_s and now < self.heard_s + link.delay_s:
            left_s = self.heard_s + link.delay_s - now
            self.delay_timer = self.loop.call_later(math.ceil(left_s * 1000) / 1000, self._delayed)  # uvloop counts ms
            return
        proven, trial, frame, earliest_s = depth.proven, depth.trial, b"", self.deadline_s
        while queue:
            batch = queue[0]
            if batch.done.done():
                queue.popleft()
                continue
            limit = proven if batch.write or self.writing else trial
            if len(pending) >= limit:
                depth.held = True
                break
            index = batch.sent
            key, one = encode(batch.requests[index])
            while key in pending:  # all keys were used since
                key, one = encode(batch.requests[index])
            frame = frame + one if frame else one
            deadline_s = now + (batch.timeout_s if limit == proven else depth.patience_s(batch.timeout_s))
            pending[key] = batch, index, deadline_s, link.stale
            if deadline_s < earliest_s:
                earliest_s = deadline_s
            if batch.write:
                self.writing += 1
            batch.sent = index + 1
            if batch.sent == len(batch.requests):
                queue.popleft()
            elif len(queue) > 1:
                queue.rotate(-1)
        if frame:
            self.transport.write(frame)
            if depth.learning:
                depth.sent(len(pending), self.writing)
        if earliest_s < self.deadline_s:
            self._watch(earliest_s, now)

    def _delayed(self) -> None:
        self.delay_timer = None
        if self.lost is None:
            self.pump()

    def _end_trial(self) -> None:
        """A greater depth did harm: all that was read meanwhile is asked for anew, with the depth that is good."""
        self.link.depth.failed()
        batches = dict.fromkeys([*(batch for batch, *_ in self.pending.values()), *self.queue])
        for key in [key for key, (batch, *_) in self.pending.items() if not batch.write]:
            del self.pending[key]
        for batch in batches:
            if not batch.write and not batch.done.done():
                batch.begin_again()
                if batch not in self.queue:
                    self.queue.append(batch)

    # Receiving

    def data_received(self, data: bytes) -> None:
        if self.lost is not None:
            return
        self.heard_s = monotonic()
        try:
            answers = self.link.codec.feed(data)
        except FramingError as error:
            self.lose(Loss(
                f"{self.link.place} sends what is not of its protocol ({error})",
                "is this the right port, and is the device of this kind?",
                BAD_COMMUNICATION,
            ))  # fmt: skip
            return
        pending = self.pending
        for key, payload in answers:
            found = pending.pop(key, None)
            if found is None:
                self._stray()
                continue
            batch, index, _, _ = found
            if batch.write:
                self.writing -= 1
            batch.answers[index] = payload
            batch.missing -= 1
            self.strays = 0
            if not batch.missing and not batch.done.done():
                batch.done.set_result(None)
        if self.link.depth.learning:
            self.link.depth.answered(len(answers), self.heard_s)
        if self.queue and self.lost is None:
            self.pump()

    def _stray(self) -> None:
        """An answer that nobody waits for."""
        self.link.stale += 1
        self.strays += 1
        if self.link.depth.trying:
            self._end_trial()
        if self.strays > MOST_STALE:
            self.lose(Loss(
                f"{self.link.place} sends answers to what was not asked",
                "is it a device of this kind, and does no other program use it in edge's name?",
                BAD_COMMUNICATION,
            ))  # fmt: skip

    # Deadlines: one timer, set to the earliest

    def _watch(self, deadline_s: float, now: float) -> None:
        if self.deadline_timer is not None:
            self.deadline_timer.cancel()
        self.deadline_s = deadline_s
        self.deadline_timer = self.loop.call_later(max(deadline_s - now, 0.001), self._expire)

    def _expire(self) -> None:
        self.deadline_timer, self.deadline_s = None, math.inf
        now = monotonic()
        late = [key for key, (_, _, deadline_s, _) in self.pending.items() if deadline_s <= now]
        if late and self.link.depth.trying:
            self._end_trial()
        for key in late:
            self._miss(key, now)
        if self.lost is None:
            self.pump()
        if self.lost is None and self.pending:
            self._watch(min(deadline_s for _, _, deadline_s, _ in self.pending.values()), now)

    def _miss(self, key: int, now: float) -> None:
        """A request's deadline has passed."""
        if key not in self.pending:
            return  # it is asked again, or the connection was given up for another one
        batch, _, _, before = self.pending[key]
        stale = self.link.stale - before
        others_came = f"; it sent {stale} answers to what was not asked" if stale else ""
        loss = Loss(
            f"{self.link.place} did not answer within {batch.timeout_s:g} s{others_came}",
            "is the device running? where it is only slow, give it a longer `timeout`",
            BAD_TIMEOUT,
        )
        silent_s = now - self.heard_s
        if silent_s < batch.timeout_s and self.link.depth.proven > 1:
            self.link.depth.worsened()  # others were answered, this one was swallowed
        others = len(self.link.users) - 1
        if others > 0 and silent_s < (others + 1) * batch.timeout_s:
            del self.pending[key]  # one of several devices behind a gateway: the others' connection stays
            self.writing -= batch.write
            if not batch.done.done():
                batch.done.set_exception(loss.error())
        else:
            self.lose(loss)

    # The end

    def lose(self, loss: "Loss") -> None:
        """Gives the connection up and fails whatever waits for it. Only the first reason counts."""
        if self.lost is not None:
            return
        depth = self.link.depth
        loss.tried = depth.tried
        if loss.tried:
            depth.failed()
        elif len(self.pending) > 1 and monotonic() < self.began_s + EARLY_S:
            depth.worsened()
        self.lost = loss
        self.transport.abort()
        for timer in (self.deadline_timer, self.delay_timer):
            if timer is not None:
                timer.cancel()
        batches = [*(batch for batch, *_ in self.pending.values()), *self.queue]
        self.pending.clear()
        self.queue.clear()
        for batch in batches:
            if not batch.done.done():
                batch.done.set_exception(loss.error())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        self.lose(Loss.of(self.link.transport.lost(exc)))


class Loss:
    """Why there is no connection: the text, hint and status of each DeviceError that says so.

    `tried`: it may be that a depth was tried that the peer does not stand.
    """

    def __init__(self, text: str, hint: str, status: int) -> None:
        self.text, self.hint, self.status = text, hint, status
        self.tried = False

    @classmethod
    def of(cls, error: DeviceError) -> "Loss":
        return cls(error.text, error.hint, error.status)

    def error(self) -> DeviceError:
        return DeviceError(self.text, self.hint, status=self.status)


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
        self._wire: _Wire | None = None
        self._attempt: asyncio.Task[None] | None = None
        self._handshake: Handshake | None = None

    @property
    def up(self) -> bool:
        """Whether requests can be sent: connected, and the handshake done."""
        return self._wire is not None and self._wire.lost is None and self._attempt is None

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
                self._wire = await self.transport.open(lambda: _Wire(self))
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
