"""One connection, from its opening to its loss: what is to be sent, what is awaited, and until when."""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Protocol, cast

from drivers.depth import Depth
from drivers.driver import DeviceError
from drivers.transport import Transport
from drivers.value import BAD_COMMUNICATION, BAD_TIMEOUT

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


class Owner(Protocol):
    """What a wire needs to know of its link, and counts for it."""

    transport: Transport
    codec: Codec
    place: str
    depth: Depth
    delay_s: float
    users: set[object]
    stale: int


class Batch:
    """Requests of one caller: how many were sent, the answers, and how many of them are missing."""

    __slots__ = ("answers", "done", "missing", "requests", "sent", "timeout_s", "write")

    def __init__(self, requests: Sequence[bytes], timeout_s: float, write: bool, done: asyncio.Future[None]) -> None:
        self.requests, self.timeout_s, self.write, self.done = requests, timeout_s, write, done
        self.sent, self.missing = 0, len(requests)
        self.answers = [b""] * self.missing

    def begin_again(self) -> None:
        """Nothing of it counts as asked."""
        self.sent, self.missing = 0, len(self.requests)


_Pending = tuple[Batch, int, float, int]
"""A request that was sent: its batch and place there, its deadline, the stale answers that had come before it."""


class Wire(asyncio.Protocol):
    """One connection of a link, from its opening to its loss: what is to be sent, what is awaited."""

    def __init__(self, link: Owner) -> None:
        self.link = link
        self.loop = asyncio.get_running_loop()
        self.queue: deque[Batch] = deque()
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

    def ask(self, requests: Sequence[bytes], timeout_s: float, write: bool) -> Batch:
        """Sends requests as their turn comes.

        A caller who is cancelled leaves what was sent pending: its turn ends with the answer, or with the deadline.
        """
        batch = Batch(requests, timeout_s, write, self.loop.create_future())
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

    def lose(self, loss: Loss) -> None:
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
