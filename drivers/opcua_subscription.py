"""One subscription of a session (OPC 10000-4, 5.13 and 5.14), which keeps an `Image` up to date.

Publishes are answered as they come; what needs a request of its own (a message that is missing, a subscription that the
server has ended) is done by the next `refresh`. Nothing is dropped silently.
"""

import asyncio
import contextlib
import math
import struct
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
    created_items,
    created_subscription,
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
        self._clock = asyncio.get_running_loop().time
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
        self._heard_s, self._silence_s = self._clock(), self._settings.timeout
        self._refused: dict[int, bytes] = {}
        self._again_s = math.inf

    async def refresh(self) -> None:
        """The image is up to date when this returns, as far as the server has told. Raises DeviceError."""
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
            if self._refused and self._clock() >= self._again_s:
                await self._watch(self._refused, self._id)
            self._publish()
            left_s = self._heard_s + self._silence_s - self._clock()
            if left_s <= 0:
                raise await self._session.give_up(TimeoutError())
            if self._complete and self._id:
                return
            await self._hear(left_s)

    async def _hear(self, seconds: float) -> None:
        """Waits for an answer to a PublishRequest."""
        self._news.clear()
        if self._failure is None and self._id:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()

    async def _start(self) -> None:
        self._forget()
        interval_s, half_s = self._settings.every, self._settings.timeout / 2
        keep_alive = max(1, math.floor(half_s / interval_s))
        lifetime = max(3 * keep_alive, math.ceil(LIFETIME_S / interval_s))
        parameters = opcua_codec.subscription_parameters(interval_s * 1000, lifetime, keep_alive)
        request = self._session.request(opcua_codec.CREATE_SUBSCRIPTION, parameters)
        created = await self._session.ask(request, created_subscription)
        self._image.wait(self._nodes)
        await self._watch(self._nodes, created.id)
        self._id, self._heard_s = created.id, self._clock()
        self._silence_s = created.interval_s * created.keep_alive + half_s

    async def _watch(self, nodes: Mapping[int, bytes], subscription: int) -> None:
        """Makes monitored items; those that the server refuses are in trouble alone, and asked for again in a while."""
        asked = list(nodes.items())
        self._refused, self._again_s = {}, self._clock() + ITEMS_AGAIN_S
        for at in range(0, len(asked), self._batch):
            part = asked[at : at + self._batch]
            interval_ms = self._settings.every * 1000
            parameters = opcua_codec.monitored_items(subscription, part, interval_ms)
            request = self._session.request(opcua_codec.CREATE_ITEMS, parameters)
            statuses = await self._session.ask(request, partial(created_items, count=len(part)))
            for (index, node), status in zip(part, statuses, strict=True):
                if status >> 31:
                    self._image.take(index, None, 0, status, 0)
                    self._refused[index] = node

    async def _recover(self) -> None:
        """Asks for the messages that are missing; where one is lost, reads all afresh."""
        try:
            for number in self._order.missing:
                request = self._session.request(opcua_codec.REPUBLISH, struct.pack("<II", self._id, number))
                message = await self._session.attempt(request, partial(republished, sequence=number))
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
        self._heard_s = self._clock()
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
