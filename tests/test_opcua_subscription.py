"""OPC UA subscriptions against a server that is played here: what is lost, refused, late, ended or wrong."""

import asyncio
import struct
import time
from datetime import UTC, datetime

import pytest
from asyncua import ua
from asyncua.ua import ua_binary

from drivers.driver import DeviceError, Point
from drivers.link import FramingError
from drivers.opcua_codec import (
    CREATE_ITEMS,
    CREATE_SUBSCRIPTION,
    MODIFY_SUBSCRIPTION,
    PUBLISH,
    READ,
    REPUBLISH,
    ServiceFault,
    encode_node_id,
    read_parameters,
    request,
)
from drivers.opcua_image import Batch, Image
from drivers.opcua_session import OpcUaSettings
from drivers.opcua_subscription import OUTSTANDING, Subscription
from drivers.value import BAD_COMMUNICATION, BAD_NODE_UNKNOWN, BAD_TIMEOUT, BAD_WAITING, GOOD, parse_type

DEADLINE_S = 20
WHEN = datetime(2026, 1, 2, tzinfo=UTC)
TOO_MANY_ITEMS, TOO_MANY_PUBLISHES = 0x80DB_0000, 0x8078_0000
NO_SUBSCRIPTION, NOT_AVAILABLE, TIMEOUT, SESSION_CLOSED = 0x8079_0000, 0x807B_0000, 0x800A_0000, 0x8026_0000


class Server:
    """Plays session and server: answers what is asked, keeps the PublishRequests until there is something to tell."""

    def __init__(
        self, points: int = 4, *, interval_ms: float = 20.0, keep_alive: int = 12, timeout: float = 1.0
    ) -> None:
        settings = OpcUaSettings("opc.tcp://robot", timeout=timeout, reading="subscribe", every=0.02)
        self.points = [Point(f"p{at}", f"ns=2;i={at}", parse_type("int32")) for at in range(points)]
        nodes = [encode_node_id(2, at) for at in range(points)]
        self.image = Image(self.points)
        self.asked: list[int] = []
        self.publishes: list[tuple[asyncio.Future[bytes], list[tuple[int, int]]]] = []
        self.number, self.interval_ms, self.keep_alive = 0, interval_ms, keep_alive
        self.values = [0] * points
        self.refused: dict[int, int] = {}
        self.kept: dict[int, bytes] = {}
        self.sequence = 1
        self.given_up: list[Exception] = []
        self.terms: list[tuple[float, int]] = []
        reads = [Batch(0, nodes, self.request(READ, read_parameters(nodes)))]
        self.subscription = Subscription(self, self.image, reads, settings)

    # what a Session has

    def request(self, service, parameters, *, patient=False):
        return request(service, b"\0\0", parameters, 0)

    def post(self, asked) -> asyncio.Future[bytes]:
        assert asked.answer == PUBLISH + 3
        future = asyncio.get_running_loop().create_future()
        parsed = ua_binary.struct_from_binary(ua.PublishRequest, ua.utils.Buffer(asked.encode(1)))
        acknowledged = parsed.Parameters.SubscriptionAcknowledgements or []
        self.publishes.append((future, [(one.SubscriptionId, one.SequenceNumber) for one in acknowledged]))
        return future

    async def attempt(self, asked, decode):
        self.asked.append(asked.answer - 3)
        await asyncio.sleep(0)
        return decode(self.answer(asked.answer - 3, asked.encode(1)))

    async def ask(self, asked, decode):
        try:
            return await self.attempt(asked, decode)
        except (ServiceFault, FramingError) as error:
            raise await self.give_up(error) from error

    async def give_up(self, error):
        self.given_up.append(error)
        if isinstance(error, DeviceError):
            return error
        return DeviceError(repr(error), status=BAD_TIMEOUT if isinstance(error, TimeoutError) else BAD_COMMUNICATION)

    # what a server does

    def answer(self, service: int, message: bytes) -> bytes:
        buffer = ua.utils.Buffer(message)
        if service == CREATE_SUBSCRIPTION:
            self.number += 1
            self.sequence, self.kept = 1, {}
            return struct.pack("<IdII", self.number, self.interval_ms, 300, self.keep_alive)
        if service == MODIFY_SUBSCRIPTION:
            wanted = ua_binary.struct_from_binary(ua.ModifySubscriptionRequest, buffer).Parameters
            self.terms.append((wanted.RequestedPublishingInterval, wanted.RequestedMaxKeepAliveCount))
            return struct.pack("<dII", wanted.RequestedPublishingInterval, 300, wanted.RequestedMaxKeepAliveCount)
        if service == CREATE_ITEMS:
            items = ua_binary.struct_from_binary(ua.CreateMonitoredItemsRequest, buffer).Parameters.ItemsToCreate
            handles = [item.RequestedParameters.ClientHandle for item in items]
            one = [struct.pack("<IIdI3x", self.refused.get(handle, 0), handle, 20.0, 1) for handle in handles]
            return struct.pack("<i", len(one)) + b"".join(one) + struct.pack("<i", -1)
        if service == READ:
            data = [ua_binary.struct_to_binary(self.data(value)) for value in self.values]
            return struct.pack("<i", len(data)) + b"".join(data) + struct.pack("<i", -1)
        assert service == REPUBLISH
        number = ua_binary.struct_from_binary(ua.RepublishRequest, buffer).Parameters.RetransmitSequenceNumber
        if number not in self.kept:
            raise ServiceFault(NOT_AVAILABLE)
        return self.kept.pop(number)

    def data(self, value: int) -> ua.DataValue:
        return ua.DataValue(ua.Variant(value, ua.VariantType.Int32), None, WHEN)

    def message(self, changes: dict[int, int] | None, *, status: int | None = None) -> bytes:
        told = ua.NotificationMessage(self.sequence, WHEN, [])
        if changes:
            items = [ua.MonitoredItemNotification(handle, self.data(value)) for handle, value in changes.items()]
            told.NotificationData.append(ua.DataChangeNotification(items))
        if status is not None:
            told.NotificationData.append(ua.StatusChangeNotification(ua.StatusCode(status)))
        return ua_binary.struct_to_binary(told)

    async def tell(
        self, changes: dict[int, int] | None = None, *, lost: bool = False, more: bool = False, **said
    ) -> None:
        """A notification, kept for a Republish; with nothing to tell a keep-alive. `lost`: it does not arrive."""
        message = self.message(changes, **said)
        for handle, value in (changes or {}).items():
            self.values[handle] = value
        if changes or said:
            self.kept[self.sequence] = message
            self.sequence += 1
        if not lost:
            await self.publish(struct.pack("<Ii?", self.number, -1, more) + message + struct.pack("<ii", -1, -1))

    async def publish(self, answer: bytes | Exception) -> None:
        future, _ = self.publishes.pop(0)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def begin(self) -> None:
        """Until the first values are there."""
        first = asyncio.ensure_future(self.subscription.refresh())
        await self.until(lambda: self.publishes)
        await self.tell(dict(enumerate(self.values)))
        await asyncio.wait_for(first, DEADLINE_S)

    async def until(self, true) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not true():  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def scan(self):
        heard_ns = await asyncio.wait_for(self.subscription.refresh(), DEADLINE_S)
        return self.image.scan(heard_ns)


async def test_only_what_has_changed_is_told_and_the_rest_stays():
    server = Server()
    await server.begin()
    first = await server.scan()
    assert list(first.values) == [0, 0, 0, 0]
    assert first.changed
    assert not (await server.scan()).changed
    await server.tell({2: 7})
    second = await server.scan()
    assert list(second.values) == [0, 0, 7, 0]
    assert second.changed
    assert second.times[2] == int(WHEN.timestamp()) * 10**9
    assert set(second.statuses) == {GOOD}
    assert READ not in server.asked


async def test_publishes_are_outstanding_and_acknowledge_what_came():
    server = Server()
    await server.begin()
    assert len(server.publishes) == OUTSTANDING
    assert server.publishes[-1][1] == [(1, 1)]
    await server.tell()  # a keep-alive is not acknowledged
    assert server.publishes[-1][1] == []
    await server.tell({0: 1})
    assert server.publishes[-1][1] == [(1, 2)]


async def test_values_in_several_messages_are_awaited():
    server = Server()
    first = asyncio.ensure_future(server.subscription.refresh())
    await server.until(lambda: server.publishes)
    await server.tell({0: 1, 1: 2}, more=True)
    assert not first.done()
    await server.tell({2: 3, 3: 4})
    await asyncio.wait_for(first, DEADLINE_S)
    assert server.image.values == [1, 2, 3, 4]


async def test_a_value_is_as_old_as_the_last_notification_or_keepalive():
    server = Server()
    await server.begin()
    heard_ns = (await server.scan()).heard_ns
    assert (await server.scan()).heard_ns == heard_ns
    await server.tell()
    scan = await server.scan()
    assert not scan.changed
    assert heard_ns < scan.heard_ns <= time.monotonic_ns()


async def test_a_missing_message_is_asked_for_and_used_in_order():
    server = Server()
    await server.begin()
    await server.tell({0: 1, 1: 1}, lost=True)
    await server.tell({0: 2})
    assert server.image.values == [0, 0, 0, 0]
    assert list((await server.scan()).values) == [2, 1, 0, 0]
    assert server.asked.count(REPUBLISH) == 1
    assert READ not in server.asked
    assert (1, 2) in server.publishes[-1][1] or (1, 2) in server.subscription._acknowledge


async def test_a_keepalive_shows_that_the_last_message_is_missing():
    server = Server()
    await server.begin()
    await server.tell({3: 9}, lost=True)
    await server.tell()
    assert list((await server.scan()).values) == [0, 0, 0, 9]


async def test_a_message_that_is_lost_for_good_is_followed_by_a_fresh_read():
    server = Server()
    await server.begin()
    await server.tell({0: 1, 1: 1}, lost=True)
    server.kept.clear()
    await server.tell({0: 2})
    assert list((await server.scan()).values) == [2, 1, 0, 0]
    assert server.asked[-2:] == [REPUBLISH, READ]
    await server.tell({1: 5})
    assert list((await server.scan()).values) == [2, 5, 0, 0]
    assert server.asked.count(READ) == 1


async def test_items_that_are_refused_are_in_trouble_alone_and_asked_for_again(monkeypatch):
    server = Server()
    server.refused = {1: BAD_NODE_UNKNOWN, 2: TOO_MANY_ITEMS}
    first = asyncio.ensure_future(server.subscription.refresh())
    await server.until(lambda: server.publishes)
    await server.tell({0: 1, 3: 1})
    await asyncio.wait_for(first, DEADLINE_S)
    scan = await server.scan()
    assert list(scan.values) == [1, None, None, 1]
    assert list(scan.statuses) == [GOOD, BAD_NODE_UNKNOWN, TOO_MANY_ITEMS, GOOD]
    assert "no such node" in server.image.troubles["p1"]
    assert "mode: poll" in server.image.troubles["p2"]
    # a fresh read does not make a value good that is not watched
    await server.tell({0: 2}, lost=True)
    server.kept.clear()
    await server.tell({3: 2})
    assert list((await server.scan()).values) == [2, None, None, 2]
    server.refused = {}
    monkeypatch.setattr(server.subscription, "_again_s", 0.0)
    await server.scan()
    await server.tell({1: 3, 2: 3})
    assert list((await server.scan()).values) == [2, 3, 3, 2]
    assert server.image.troubles == {}
    assert server.asked.count(CREATE_ITEMS) == 2


@pytest.mark.parametrize("how", ["status", "fault"])
async def test_a_subscription_that_the_server_ends_is_made_again(how):
    server = Server()
    await server.begin()
    server.values = [5, 5, 5, 5]
    if how == "status":
        await server.tell(status=TIMEOUT)
    else:
        await server.publish(ServiceFault(NO_SUBSCRIPTION))
    again = asyncio.ensure_future(server.scan())
    await server.until(lambda: server.number == 2 and len(server.publishes) == OUTSTANDING)
    assert server.image.statuses == [BAD_WAITING] * 4
    await server.tell(dict.fromkeys(range(4), 5))
    assert list((await asyncio.wait_for(again, DEADLINE_S)).values) == [5, 5, 5, 5]


async def test_a_subscription_that_ends_again_and_again_is_given_up():
    server = Server()
    scan = asyncio.ensure_future(server.subscription.refresh())
    with pytest.raises(DeviceError):
        while True:
            await server.until(lambda: server.publishes or scan.done())
            if scan.done():
                await scan
            await server.publish(ServiceFault(NO_SUBSCRIPTION))


async def test_news_of_an_earlier_subscription_is_none():
    server = Server()
    await server.begin()
    server.number = 99
    await server.tell({0: 8})
    assert list((await server.scan()).values) == [0, 0, 0, 0]
    assert len(server.publishes) == OUTSTANDING


async def test_fewer_publishes_where_the_server_takes_no_more():
    server = Server()
    await server.begin()
    await server.publish(ServiceFault(TOO_MANY_PUBLISHES))
    await server.scan()
    assert len(server.publishes) == OUTSTANDING - 1
    await server.publish(ServiceFault(TIMEOUT))  # it waited too long: it is sent again
    await server.scan()
    assert len(server.publishes) == OUTSTANDING - 1
    assert not server.given_up


async def test_silence_is_a_loss_within_the_deadline():
    server = Server(timeout=0.05, keep_alive=1)
    await server.begin()
    with pytest.raises(DeviceError) as caught:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                await server.subscription.refresh()
                await asyncio.sleep(0)
    assert caught.value.status == BAD_TIMEOUT


async def test_a_server_that_says_nothing_at_all_is_lost():
    server = Server(timeout=0.05, keep_alive=1)
    with pytest.raises(DeviceError) as caught:
        await asyncio.wait_for(server.subscription.refresh(), DEADLINE_S)
    assert caught.value.status == BAD_TIMEOUT


async def test_a_server_with_a_longer_interval_is_asked_for_earlier_keepalives():
    server = Server(interval_ms=100.0, keep_alive=12)
    await server.begin()
    assert server.terms == [(100.0, 2)]
    server = Server(interval_ms=20.0, keep_alive=12)
    await server.begin()
    assert server.terms == []


def test_two_keepalives_come_before_a_value_is_too_old_and_before_the_device_is_lost():
    def heartbeat(**settings) -> float:
        return OpcUaSettings("opc.tcp://robot", **settings).heartbeat_s

    assert heartbeat() == 0.25
    assert heartbeat(every=0.5) == 0.5
    assert heartbeat(every=0.5, timeout=0.6) == 0.3
    assert heartbeat(every=0.02, max_age=0.1) == 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        FramingError("nonsense"),
        ServiceFault(SESSION_CLOSED),
        ConnectionError("gone"),
        b"",
        b"\xff" * 40,
        struct.pack("<Ii?", 1, -1, False) + b"\x02",
    ],
    ids=repr,
)
async def test_whatever_is_wrong_with_an_answer_ends_the_session(wrong):
    server = Server()
    await server.begin()
    await server.publish(wrong)
    with pytest.raises(DeviceError):
        await server.scan()
    assert len(server.given_up) == 1


async def test_a_notification_of_what_was_not_asked_for_is_no_value():
    server = Server()
    await server.begin()
    server.values.append(0)
    await server.tell({4: 1})
    with pytest.raises(DeviceError, match="item 4"):
        await server.scan()
    # nor in a message that was asked for again
    server = Server()
    await server.begin()
    server.values.append(0)
    await server.tell({4: 1}, lost=True)
    await server.tell({0: 1})
    with pytest.raises(DeviceError, match="item 4"):
        await server.scan()
