"""One subscription of a session (OPC 10000-4, 5.13 and 5.14), which keeps an `Image` up to date.

Publishes are answered as they come; what needs a request of its own (a message that is missing, a subscription that the
server has ended) is done by the next `refresh`. Nothing is dropped silently.
"""

import asyncio
import contextlib
import math
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from drivers import opcua_codec
from drivers.driver import DeviceError
from drivers.link import FramingError
from drivers.opcua_codec import ServiceFault
from drivers.opcua_image import Batch, Image
from drivers.opcua_notification import (
    Message,
    Order,
    Published,
    Terms,
    created_items,
    created_subscription,
    modified_subscription,
    published,
    republished,
)
from drivers.opcua_session import OpcUaSettings, Session

OUTSTANDING = 3
MAX_STARTS = 3
LIFETIME_S = 10.0  # a subscription that edge lost ends at the server after this
ITEMS_AGAIN_S = 30.0
_TIMEOUT = 0x800A_0000
_TOO_MANY_PUBLISHES = 0x8078_0000
_ENDED = (0x8079_0000, 0x8028_0000)  # BadNoSubscription, BadSubscriptionIdInvalid


class Subscription:
    """Watches the nodes of `reads`, each in one request, and reads them afresh where a message was lost.

    The device is lost when it has sent nothing, not even a keep-alive, for its `timeout`; longer only where the server
    insists on a longer interval.
    """

    def __init__(self, session: Session, image: Image, reads: Sequence[Batch], settings: OpcUaSettings) -> None:
        self._session, self._image, self._reads, self._settings = session, image, reads, settings
        self._nodes = {read.first + place: node for read in reads for place, node in enumerate(read.nodes)}
        self._batch = max((len(read.nodes) for read in reads), default=1)
        self._news = asyncio.Event()
        self._failure: Exception | None = None
        self._outstanding, self._allowed = 0, OUTSTANDING
        self._forget()

    def _forget(self) -> None:
        """There is no subscription; an answer that still comes to the last one's is not taken."""
        self._id = 0
        self._order = Order()
        self._acknowledge: list[tuple[int, int]] = []
        self._complete = False
        self._heard_ns, self._silence_s = time.monotonic_ns(), self._settings.timeout
        self._doubted, self._interval_s = False, self._settings.every
        self._refused: dict[int, int] = {}
        self._again_s = math.inf

    async def refresh(self) -> int:
        """The image is up to date then, as far as the server has told. Raises DeviceError.

        Gives when it was last heard, in a notification or keep-alive (CLOCK_MONOTONIC, ns).
        """
        try:
            return await self._refresh()
        except FramingError as error:
            raise await self._session.give_up(error) from error

    async def _refresh(self) -> int:
        starts = 0
        while True:
            if self._failure is not None:
                raise await self._session.give_up(self._failure)
            if self._id == 0:
                starts += 1
                if starts > MAX_STARTS:
                    raise await self._session.give_up(ServiceFault(_ENDED[0]))
                await self._start()
            await self._recover()
            if self._refused and time.monotonic() >= self._again_s:
                await self._watch({index: self._nodes[index] for index in self._refused}, self._id)
            self._publish()
            left_s = self._silence_s - (time.monotonic_ns() - self._heard_ns) / 1e9
            if left_s <= 0:
                raise await self._session.give_up(TimeoutError())
            if left_s < self._settings.timeout / 4 and not self._doubted:
                self._doubted = True
                await self._look(left_s)
                continue
            if self._complete and self._id:
                return self._heard_ns
            await self._hear(left_s)

    async def _hear(self, seconds: float) -> None:
        """Waits for an answer to a PublishRequest."""
        self._news.clear()
        if self._failure is None and self._id:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()

    async def _look(self, seconds: float) -> None:
        """Silent for long: is there still a subscription? Some servers forget the PublishRequests of one that ends."""
        parameters = opcua_codec.modification_parameters(self._id, *self._wanted(self._interval_s))
        request = self._session.request(opcua_codec.MODIFY_SUBSCRIPTION, parameters)  # to what it is already
        try:
            async with asyncio.timeout(seconds):
                await self._session.attempt(request, modified_subscription)
        except TimeoutError as error:
            raise await self._session.give_up(error) from error
        except ServiceFault as error:
            if error.status in _ENDED:
                self._id = 0

    async def _start(self) -> None:
        self._forget()
        parameters = opcua_codec.subscription_parameters(*self._wanted(self._settings.every))
        request = self._session.request(opcua_codec.CREATE_SUBSCRIPTION, parameters)
        number, terms = await self._session.ask(request, created_subscription)
        self._image.wait(self._nodes)
        await self._watch(self._nodes, number)
        if terms.interval_s * terms.keep_alive > 2 * self._settings.heartbeat_s:
            terms = await self._modify(number, terms)
        self._id, self._interval_s, self._heard_ns = number, terms.interval_s, time.monotonic_ns()
        self._silence_s = max(self._settings.timeout, terms.interval_s * terms.keep_alive + self._settings.timeout / 2)

    def _wanted(self, interval_s: float) -> tuple[float, int, int]:
        """(publishing interval in ms, lifetime count, keep-alive count)."""
        keep_alive = max(1, math.floor(self._settings.heartbeat_s / interval_s))
        return interval_s * 1000, max(3 * keep_alive, math.ceil(LIFETIME_S / interval_s)), keep_alive

    async def _modify(self, number: int, terms: Terms) -> Terms:
        """The server insists on a longer interval: its keep-alive comes after fewer of them."""
        parameters = opcua_codec.modification_parameters(number, *self._wanted(terms.interval_s))
        request = self._session.request(opcua_codec.MODIFY_SUBSCRIPTION, parameters)
        try:
            return await self._session.attempt(request, modified_subscription)
        except ServiceFault:
            return terms

    async def _watch(self, nodes: Mapping[int, bytes], subscription: int) -> None:
        """Makes monitored items; those that the server refuses are in trouble alone, and asked for again in a while."""
        asked = list(nodes.items())
        self._refused, self._again_s = {}, time.monotonic() + ITEMS_AGAIN_S
        for at in range(0, len(asked), self._batch):
            part = asked[at : at + self._batch]
            interval_ms = self._settings.every * 1000
            parameters = opcua_codec.monitored_items(subscription, part, interval_ms)
            request = self._session.request(opcua_codec.CREATE_ITEMS, parameters)
            statuses = await self._session.ask(request, partial(created_items, count=len(part)))
            indexes = (index for index, _ in part)
            self._refused |= {index: status for index, status in zip(indexes, statuses, strict=True) if status >> 31}
        self._mark_refused()

    def _mark_refused(self) -> None:
        for index, status in self._refused.items():
            self._image.take(index, None, 0, status, 0)

    async def _recover(self) -> None:
        """Asks for the messages that are missing; where one is lost, reads all afresh."""
        try:
            for number in self._order.missing:
                request = self._session.request(opcua_codec.REPUBLISH, struct.pack("<II", self._id, number))
                message = await self._session.attempt(request, partial(republished, sequence=number))
                self._acknowledge.append((self._id, number))
                self._apply(self._order.take(message))
        except ServiceFault as error:
            if error.status in _ENDED:
                self._id = 0
            self._apply(self._order.give_up())
        if self._order.lossy and self._id:
            self._order.lossy = False
            for read in self._reads:
                read.forget()
                await self._session.ask(read.request, partial(read.take, image=self._image))
            self._mark_refused()

    def _publish(self) -> None:
        """Sends PublishRequests until as many wait at the server as may."""
        while self._id and self._outstanding < self._allowed:
            parameters = opcua_codec.publish_parameters(self._acknowledge)
            try:
                answer = self._session.post(self._session.request(opcua_codec.PUBLISH, parameters, patient=True))
            except DeviceError as error:
                self._failure = error
                return
            self._acknowledge = []
            self._outstanding += 1
            answer.add_done_callback(partial(self._answered, self._id))

    def _answered(self, subscription: int, answer: asyncio.Future[bytes]) -> None:
        self._outstanding -= 1
        if answer.cancelled():
            return
        self._news.set()
        error = answer.exception()
        try:
            if error is None:
                self._take(published(answer.result()))
            else:
                self._refuse(error, subscription)
        except FramingError as wrong:
            self._failure = wrong

    def _take(self, news: Published) -> None:
        message = news.message
        if news.subscription != self._id:
            return
        self._heard_ns, self._doubted = time.monotonic_ns(), False
        if not message.keepalive:
            self._acknowledge.append((self._id, message.sequence))
        self._apply(self._order.take(message))
        self._complete = self._complete or not news.more
        self._publish()

    def _refuse(self, error: BaseException, subscription: int) -> None:
        """A PublishRequest that failed. It is sent again at the next refresh, if at all, lest two programs run hot."""
        status = error.status if isinstance(error, ServiceFault) else 0
        if status == _TOO_MANY_PUBLISHES and self._allowed > 1:
            self._allowed -= 1
        elif status in _ENDED:
            self._id = 0 if subscription == self._id else self._id
        elif status != _TIMEOUT:
            self._failure = error if isinstance(error, Exception) else None

    def _apply(self, messages: Iterable[Message]) -> None:
        take = self._image.take
        for message in messages:
            for index, value, kind, status, ticks in message.changes:
                if index not in self._nodes:
                    raise FramingError(f"a notification of item {index}, which was not asked for")
                take(index, value, kind, status, ticks)
            if message.status is not None:
                self._id = 0
