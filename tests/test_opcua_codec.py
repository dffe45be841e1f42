"""OPC UA's own codec: third parties' conversations, asyncua as the oracle, and bytes that make no sense."""

import asyncio
import contextlib
import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asyncua import ua
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.crypto.security_policies import SecurityPolicyNone
from asyncua.ua import ua_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import opcua_codec, opcua_wire
from drivers.link import FramingError
from drivers.opcua_codec import (
    MAX_CHUNK,
    MAX_CHUNKS,
    Frames,
    Request,
    ServiceFault,
    encode_node_id,
    modification_parameters,
    monitored_items,
    open_answer,
    open_plain_chunk,
    plain_chunk,
    publish_parameters,
    read_parameters,
    request,
    subscription_parameters,
    write_parameters,
)
from drivers.opcua_node import BUILT_IN
from drivers.opcua_notification import (
    MAX_HELD,
    Message,
    Order,
    created_items,
    created_subscription,
    modified_subscription,
    published,
    republished,
)
from drivers.opcua_values import (
    ARRAY,
    Columns,
    Layout,
    check_answer,
    encode_variant,
    read_results,
    read_statuses,
)

GOLDEN = Path(__file__).parent / "golden"
CONVERSATIONS = ("opcua_nodeopcua_nodeopcua", "opcua_nodeopcua_open62541")
READ_ANSWER, PUBLISH_ANSWER = 634, 829


def conversation(name: str) -> list[tuple[str, bytes]]:
    """Each payload of a recorded conversation: who sent it, and its bytes."""
    lines = (GOLDEN / f"{name}.jsonl").read_text().splitlines()
    return [(line["from"], bytes.fromhex(line["hex"])) for line in map(json.loads, lines)]


class Answer:
    """A recorded response, and the numbers that tie it to its request."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.channel, self.token, self.sequence, self.request = struct.unpack_from("<IIII", frame, 8)
        self.kind, _, self.handle, self.status = struct.unpack_from("<HqII", frame, 26)

    def __repr__(self) -> str:
        return f"{self.kind}-{self.request}"

    @property
    def body(self) -> bytes:
        return open_answer(self.frame[24:], self.handle, self.kind)


def answers(*kinds: int) -> list[Answer]:
    frames = [frame for name in CONVERSATIONS for sender, frame in conversation(name) if sender == "server"]
    found = [Answer(frame) for frame in frames if frame.startswith(b"MSGF")]
    return [answer for answer in found if answer.kind in kinds or not kinds]


class Sent(asyncio.Transport):
    """Takes what is written; remembers whether it was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.ended = False

    def write(self, data) -> None:
        self.data += data

    def is_closing(self) -> bool:
        return self.ended

    def abort(self) -> None:
        self.ended = True

    close = abort


def wire_before(answer: Answer):
    """A socket on the channel of this answer, and what waits for it."""
    wire = opcua_wire._wire_class()(1.0, SecurityPolicyNone())
    wire.connection_made(Sent())
    connection = wire._connection
    connection.security_token.ChannelId, connection.security_token.TokenId = answer.channel, answer.token
    connection._peer_sequence_number = answer.sequence - 1
    wire._request_id, wire._request_handle = answer.request - 1, answer.handle - 1
    expected = PUBLISH_ANSWER if answer.kind == 397 else answer.kind
    return wire, wire.ask(Request(b"", b"", expected))


def renumbered(answer: Answer, *, sequence: int = 0, request: int = 0, handle: int = 0) -> bytes:
    frame = bytearray(answer.frame)
    struct.pack_into("<II", frame, 16, answer.sequence + sequence, answer.request + request)
    struct.pack_into("<I", frame, 36, answer.handle + handle)
    return bytes(frame)


async def outcome(future) -> bytes | ServiceFault:
    assert future.done()
    try:
        return await future
    except ServiceFault as fault:
        return fault


# Third parties' conversations.


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_stream_is_cut_into_chunks_however_it_comes(name):
    frames = [frame for sender, frame in conversation(name) if sender == "server"]
    stream = b"".join(frames)
    assert Frames().feed(stream) == frames
    single = Frames()
    assert [frame for byte in stream for frame in single.feed(bytes([byte]))] == frames
    for cut in range(0, len(stream), 997):
        halves = Frames()
        assert halves.feed(stream[:cut]) + halves.feed(stream[cut:]) == frames


@pytest.mark.parametrize("answer", answers(), ids=repr)
async def test_a_recorded_answer_is_found_whole_and_byte_by_byte(answer):
    wire, future = wire_before(answer)
    wire.data_received(answer.frame)
    whole = await outcome(future)
    if answer.kind == 397:
        assert isinstance(whole, ServiceFault)
        assert whole.status == answer.status
    wire, future = wire_before(answer)
    for byte in answer.frame[:-1]:
        wire.data_received(bytes([byte]))
        assert not future.done()
    wire.data_received(answer.frame[-1:])
    again = await outcome(future)
    assert again == whole or (isinstance(again, ServiceFault) and again.status == whole.status)
    assert not wire.transport.ended


@pytest.mark.parametrize("answer", answers(READ_ANSWER, PUBLISH_ANSWER, 397), ids=repr)
async def test_a_stale_answer_is_dropped_and_the_right_one_found_behind_it(answer):
    wire, future = wire_before(answer)
    wire.data_received(renumbered(answer, request=1000) + renumbered(answer, sequence=1))
    assert wire.stale == 1
    await outcome(future)
    assert not wire.transport.ended


@pytest.mark.parametrize("answer", answers(READ_ANSWER, PUBLISH_ANSWER), ids=repr)
async def test_a_doubled_answer_counts_once_and_ends_the_connection(answer):
    wire, future = wire_before(answer)
    wire.data_received(answer.frame * 2)  # its sequence number has been used
    assert await outcome(future)
    assert wire.transport.ended


@pytest.mark.parametrize("answer", answers(READ_ANSWER, PUBLISH_ANSWER), ids=repr)
async def test_the_answer_to_another_request_is_none(answer):
    for frame in (renumbered(answer, handle=1), answer.frame.replace(struct.pack("<H", answer.kind), b"\x01\x02", 1)):
        wire, future = wire_before(answer)
        wire.data_received(frame)
        with pytest.raises(FramingError):
            await future
        assert wire.transport.ended


@pytest.mark.parametrize("answer", answers(READ_ANSWER, PUBLISH_ANSWER), ids=repr)
def test_a_truncated_answer_is_refused_at_every_byte(answer):
    body = answer.body
    decode = read_any if answer.kind == READ_ANSWER else published
    decode(body)
    for cut in range(len(body)):
        with pytest.raises(FramingError):
            decode(body[:cut])
    with pytest.raises(FramingError):
        decode(body + body)
    for cut in range(len(answer.frame) - len(body) - 24):
        with pytest.raises(FramingError):
            open_answer(answer.frame[24 : 24 + cut], answer.handle, answer.kind)


def read_any(body: bytes) -> Columns:
    """A ReadResponse of as many values as it says."""
    return read_results(body, struct.unpack_from("<i", body)[0] if len(body) >= 4 else 0)


def oracle(values) -> Columns:
    """What asyncua's DataValues are in columns."""
    columns = Columns([], [], [], [])
    for data in values:
        variant = data.Value
        kind = 0 if variant is None else variant.VariantType.value | (ARRAY if variant.is_array else 0)
        columns.values.append(variant.Value if kind in BUILT_IN else None)
        columns.kinds.append(kind)
        columns.statuses.append(data.StatusCode.value if data.StatusCode is not None else 0)
        stamp = data.SourceTimestamp
        columns.ticks.append(0 if stamp is None else ua.datetime_to_win_epoch(stamp))
    return columns


def without_remainders(columns: Columns) -> Columns:
    """asyncua's times are whole microseconds."""
    ticks = [tick // 10 * 10 for tick in columns.ticks]
    return Columns(list(columns.values), list(columns.kinds), list(columns.statuses), ticks)


@pytest.mark.parametrize("answer", answers(READ_ANSWER), ids=repr)
def test_recorded_reads_are_as_asyncua_reads_them(answer):
    body = answer.body
    response = ua_binary.struct_from_binary(ua.ReadResponse, ua.utils.Buffer(answer.frame[24:]))
    columns = read_any(body)
    assert without_remainders(columns) == without_remainders(oracle(response.Results))
    again = Layout(body, columns).read(body)
    assert without_remainders(again) == without_remainders(columns)


@pytest.mark.parametrize("answer", answers(PUBLISH_ANSWER), ids=repr)
def test_recorded_notifications_are_as_asyncua_reads_them(answer):
    ours = published(answer.body)
    theirs = ua_binary.struct_from_binary(ua.PublishResponse, ua.utils.Buffer(answer.frame[24:])).Parameters
    assert (ours.subscription, ours.more) == (theirs.SubscriptionId, theirs.MoreNotifications)
    assert ours.message.sequence == theirs.NotificationMessage.SequenceNumber
    items = [item for data in theirs.NotificationMessage.NotificationData or () for item in data.MonitoredItems]
    assert ours.message.keepalive == (not items)
    assert [change[0] for change in ours.message.changes] == [item.ClientHandle for item in items]
    columns = oracle([item.Value for item in items])
    assert [change[1:4] for change in ours.message.changes] == list(
        zip(columns.values, columns.kinds, columns.statuses, strict=True)
    )


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_recorded_subscription_is_made(name):
    frames = [frame for sender, frame in conversation(name) if sender == "server" and frame.startswith(b"MSGF")]
    bodies = {one.kind: one.body for one in map(Answer, frames) if one.kind in (754, 790)}
    number, terms = created_subscription(bodies[790])
    assert number > 0
    assert terms.interval_s > 0
    assert terms == modified_subscription(bodies[790][4:])
    body = bodies[754]
    statuses = created_items(body, struct.unpack_from("<i", body)[0])
    assert statuses[0] == 0
    with pytest.raises(FramingError):
        created_items(body, len(statuses) + 1)


# Requests, read by asyncua.


def parsed(kind, body: bytes):
    buffer = ua.utils.Buffer(body)
    found = ua_binary.struct_from_binary(kind, buffer)
    assert len(buffer) == 0
    return found


identifiers = st.one_of(st.integers(0, 2**32 - 1), st.text(), st.binary(), st.uuids())
nodes = st.builds(encode_node_id, st.integers(0, 65535), identifiers)


@given(st.integers(0, 65535), identifiers)
def test_a_node_id_is_encoded_as_asyncua_reads_it(namespace, identifier):
    encoded = encode_node_id(namespace, identifier)
    assert ua_binary.nodeid_from_binary(ua.utils.Buffer(encoded)) == ua.NodeId(identifier, namespace)
    assert opcua_codec.skip_node(encoded, 0) == len(encoded)


def test_requests_are_encoded_as_asyncua_reads_them():
    token = ua_binary.nodeid_to_binary(ua.NodeId(b"token", 1))
    some = [encode_node_id(2, "a"), encode_node_id(0, 2258)]
    whole = request(opcua_codec.READ, token, read_parameters(some), 1500).encode(77)
    read = parsed(ua.ReadRequest, whole)
    header = read.RequestHeader
    assert (header.AuthenticationToken, header.RequestHandle, header.TimeoutHint) == (ua.NodeId(b"token", 1), 77, 1500)
    assert abs(header.Timestamp - datetime.now(UTC)) < timedelta(seconds=20)
    assert [(one.NodeId, one.AttributeId) for one in read.Parameters.NodesToRead] == [
        (ua.NodeId("a", 2), 13),
        (ua.NodeId(2258), 13),
    ]
    assert (read.Parameters.MaxAge, read.Parameters.TimestampsToReturn) == (0, ua.TimestampsToReturn.Source)

    made = parsed(ua.CreateSubscriptionParameters, subscription_parameters(20.0, 300, 25))
    assert (made.RequestedPublishingInterval, made.RequestedLifetimeCount, made.RequestedMaxKeepAliveCount) == (
        20,
        300,
        25,
    )
    assert (made.MaxNotificationsPerPublish, made.PublishingEnabled, made.Priority) == (0, True, 0)

    changed = parsed(ua.ModifySubscriptionParameters, modification_parameters(5, 1000.0, 10, 1))
    assert (changed.SubscriptionId, changed.RequestedPublishingInterval) == (5, 1000)
    assert (changed.RequestedLifetimeCount, changed.RequestedMaxKeepAliveCount) == (10, 1)

    items = parsed(ua.CreateMonitoredItemsParameters, monitored_items(5, [(7, some[0])], 20.0))
    (item,) = items.ItemsToCreate
    assert (items.SubscriptionId, item.ItemToMonitor.NodeId, item.MonitoringMode) == (5, ua.NodeId("a", 2), 2)
    wanted = item.RequestedParameters
    assert (wanted.ClientHandle, wanted.SamplingInterval, wanted.QueueSize, wanted.DiscardOldest) == (7, 20, 1, True)

    acknowledged = parsed(ua.PublishParameters, publish_parameters([(5, 1), (5, 2)])).SubscriptionAcknowledgements
    assert [(one.SubscriptionId, one.SequenceNumber) for one in acknowledged] == [(5, 1), (5, 2)]


@given(st.binary(min_size=1, max_size=100), st.integers(1, 2**31), st.integers(1, 2**31))
def test_a_chunk_without_security_is_as_asyncua_makes_it(message, sequence, request_id):
    connection = SecureConnection(SecurityPolicyNone(), TransportLimits())
    connection.security_token = ua.ChannelSecurityToken(7, 9)
    connection._sequence_number = sequence - 1
    chunk = plain_chunk(7, 9, sequence, request_id, message)
    assert chunk == connection.message_to_binary(message, request_id=request_id)
    assert open_plain_chunk(chunk, 7, 9, sequence) == (request_id, message)
    for other in ((8, 9, sequence), (7, 8, sequence), (7, 9, sequence + 1)):
        assert open_plain_chunk(chunk, *other) is None
    assert open_plain_chunk(chunk[:3] + b"C" + chunk[4:], 7, 9, sequence) is None
    assert open_plain_chunk(chunk[:23], 7, 9, sequence) is None


# Values, with asyncua as the oracle.

times = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))
scalars = {
    ua.VariantType.Boolean: st.booleans(),
    **{
        ua.VariantType(number): st.integers(int(BUILT_IN[number].low), int(BUILT_IN[number].high))
        for number in range(2, 10)
    },
    ua.VariantType.Float: st.floats(width=32),
    ua.VariantType.Double: st.floats(),
    ua.VariantType.String: st.none() | st.text(max_size=20),
    ua.VariantType.DateTime: times,
    ua.VariantType.Guid: st.uuids(),
    ua.VariantType.ByteString: st.none() | st.binary(max_size=20),
    ua.VariantType.XmlElement: st.just(ua.XmlElement("<a/>")),
    ua.VariantType.NodeId: st.builds(ua.NodeId, identifiers, st.integers(0, 65535)),
    ua.VariantType.StatusCode: st.just(ua.StatusCode(0x8000_0000)),
    ua.VariantType.QualifiedName: st.builds(ua.QualifiedName, st.text(max_size=9), st.integers(0, 99)),
    ua.VariantType.LocalizedText: st.builds(
        ua.LocalizedText, st.none() | st.text(max_size=9), st.none() | st.just("ar")
    ),
    ua.VariantType.ExtensionObject: st.just(ua.Argument()),
}


def variants(kind):
    one = scalars[kind].map(lambda value: ua.Variant(value, kind))
    many = st.lists(scalars[kind], max_size=3).map(lambda values: ua.Variant(values, kind, is_array=True))
    table = st.just([[1, 2], [3, 4]]).map(lambda values: ua.Variant(values, ua.VariantType.Int32))
    return st.one_of(one, many, table)


any_variant = st.one_of(
    st.sampled_from(list(scalars)).flatmap(variants),
    st.just(ua.Variant(None, ua.VariantType.Null)),
    st.lists(st.integers(0, 9), max_size=3).map(
        lambda values: ua.Variant([ua.Variant(value, ua.VariantType.Byte) for value in values], ua.VariantType.Variant)
    ),
)
picoseconds = st.none() | st.integers(0, 9999)
plain_variant = st.sampled_from([ua.VariantType(number) for number in BUILT_IN]).flatmap(
    lambda kind: scalars[kind].map(lambda value: ua.Variant(value, kind))
)
statuses = st.none() | st.integers(0, 2**32 - 1).map(ua.StatusCode)
data = st.builds(
    ua.DataValue, plain_variant | any_variant, statuses, st.none() | times, st.none() | times, picoseconds, picoseconds
)


def encoded(values) -> bytes:
    """A ReadResponse's parameters."""
    return struct.pack("<i", len(values)) + b"".join(map(ua_binary.struct_to_binary, values)) + struct.pack("<i", -1)


def same(one: Columns, other: Columns) -> bool:
    return repr(without_remainders(one)) == repr(without_remainders(other))  # NaN is NaN


@given(st.lists(data, max_size=6))
@settings(max_examples=300)
def test_values_are_as_asyncua_encodes_them(values):
    body = encoded(values)
    columns = read_any(body)
    decoded = [
        ua_binary.struct_from_binary(ua.DataValue, ua.utils.Buffer(ua_binary.struct_to_binary(one))) for one in values
    ]
    assert same(columns, oracle(decoded))
    layout = Layout(body, columns)
    assert same(layout.read(body), columns)


@given(st.lists(data, min_size=1, max_size=4), st.data())
@settings(max_examples=300)
def test_a_layout_reads_as_the_strict_way_does_or_not_at_all(values, more):
    body = encoded(values)
    layout = Layout(body, read_any(body))
    changed = bytearray(body)
    for _ in range(more.draw(st.integers(1, 3))):
        changed[more.draw(st.integers(0, len(body) - 1))] = more.draw(st.integers(0, 255))
    found = layout.read(bytes(changed))
    if found is not None:
        assert same(found, read_any(bytes(changed)))


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=50), st.integers(0, 2**32 - 1))
def test_a_layout_follows_values_statuses_and_times(numbers, status):
    def answer(values, when):
        return encoded(
            [ua.DataValue(ua.Variant(value, ua.VariantType.Int32), ua.StatusCode(status), when) for value in values]
        )

    first = answer(numbers, datetime(2026, 1, 1, tzinfo=UTC))
    layout = Layout(first, read_any(first))
    second = answer(numbers[::-1], datetime(2027, 1, 1, tzinfo=UTC))
    assert same(layout.read(second), read_any(second))
    assert list(layout.read(second).values) == numbers[::-1]
    assert layout.read(second + b"\0") is None


@given(st.lists(plain_variant.filter(lambda one: one.Value is not None), max_size=5))
def test_a_write_is_encoded_as_asyncua_reads_it_and_its_answer_read_as_asyncua_encodes_it(values):
    nodes = [(ua.NodeId(place, 2), encode_node_id(2, place)) for place in range(len(values))]
    items = [
        (node, encode_variant(one.VariantType.value, one.Value)) for (_, node), one in zip(nodes, values, strict=True)
    ]
    read = parsed(ua.WriteParameters, write_parameters(items)).NodesToWrite or []
    assert [(one.NodeId, one.AttributeId) for one in read] == [(node, 13) for node, _ in nodes]
    assert repr([one.Value.Value for one in read]) == repr(values)  # NaN is NaN
    assert all(one.Value.SourceTimestamp is None for one in read)
    codes = [ua.StatusCode(number * 0x8000_0001) for number in (0, 1)]
    assert read_statuses(encoded(codes), 2) == [0, 0x8000_0001]
    with pytest.raises(FramingError, match="2 of 3 items"):
        read_statuses(encoded(codes), 3)


# Bytes that make no sense.

DECODERS = {
    "read": lambda body: read_results(body, 1),
    "published": published,
    "republished": lambda body: republished(body, 1),
    "subscription": created_subscription,
    "items": lambda body: created_items(body, 1),
    "answer": lambda body: open_answer(body, 1, READ_ANSWER),
    "frames": lambda body: Frames().feed(body),
    "reads": read_any,
    "rare": check_answer,
    "written": lambda body: read_statuses(body, 1),
}
whole_answers = [answer.frame[24:] for answer in answers(READ_ANSWER, PUBLISH_ANSWER)]


def survives(decode, body: bytes) -> None:
    with contextlib.suppress(FramingError, ServiceFault):
        decode(body)


@pytest.mark.parametrize("name", DECODERS)
@given(body=st.binary(max_size=200))
def test_random_bytes_are_refused_in_our_own_words(name, body):
    survives(DECODERS[name], body)
    survives(DECODERS[name], struct.pack("<i", 1) + body)


@given(st.sampled_from(whole_answers), st.data())
@settings(max_examples=400)
def test_recorded_answers_with_wrong_bytes_are_refused_in_our_own_words(message, more):
    changed = bytearray(message)
    for _ in range(more.draw(st.integers(1, 4))):
        changed[more.draw(st.integers(0, len(message) - 1))] = more.draw(st.integers(0, 255))
    kind, _, handle = struct.unpack_from("<HqI", message, 2)
    decode = read_any if kind == READ_ANSWER else published
    survives(lambda body: decode(open_answer(body, handle, kind)), bytes(changed))


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([answer.frame for answer in answers()]), max_size=5), st.data()
)
@settings(max_examples=200)
def test_whatever_comes_ends_in_an_answer_or_in_the_end_of_the_connection(parts, more):
    async def hear():
        wire, future = wire_before(answers(READ_ANSWER)[0])
        stream = bytearray(b"".join(parts))
        if stream and more.draw(st.booleans()):
            stream[more.draw(st.integers(0, len(stream) - 1))] ^= 1 << more.draw(st.integers(0, 7))
        for at in range(0, len(stream), 50):
            wire.data_received(bytes(stream[at : at + 50]))
        assert len(wire._frames._partial) <= MAX_CHUNK
        if wire.transport.ended:
            wire.connection_lost(None)
        if not future.done():
            future.cancel()
        elif not future.cancelled():
            future.exception()

    asyncio.run(hear())


def rare(kind: int, body: bytes, header: bytes = bytes(3)) -> bytes:
    """An answer to a request of asyncua's."""
    return struct.pack("<BBHqIIBi", 1, 0, kind, 0, 1, 0, 0, -1) + header + body


NULLS = b"\x80" + struct.pack("<i", 2**31 - 1)  # an array of Nulls, which asyncua would fill without end
HOSTILE = [
    rare(READ_ANSWER, struct.pack("<iB", 1, 1) + NULLS),
    rare(READ_ANSWER, struct.pack("<i", 2**31 - 1)),
    rare(READ_ANSWER, b""),
    rare(530, b"", struct.pack("<BBHBi", 1, 0, 811, 1, 20) + bytes(20)),  # an object in the header of a BrowseResponse
    rare(530, b"", b""),
    b"",
]


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
async def test_what_asyncua_would_not_stand_does_not_reach_it(message):
    wire, _ = wire_before(answers(READ_ANSWER)[0])
    first = answers(READ_ANSWER)[0]
    wire._callbackmap[first.request + 1] = asyncio.get_running_loop().create_future()
    head = struct.pack("<IIII", first.channel, first.token, first.sequence, first.request + 1)
    wire.data_received(b"MSGF" + struct.pack("<I", 24 + len(message)) + head + message)
    assert wire.transport.ended


@pytest.mark.parametrize("answer", answers(), ids=repr)
def test_every_recorded_answer_may_reach_asyncua(answer):
    check_answer(answer.frame[24:])


def test_values_nested_too_deeply_are_refused():
    nested = b"\x98\x01\x00\x00\x00" * 5000 + b"\x01\x01"  # arrays of Variants in arrays of Variants
    with pytest.raises(FramingError):
        read_any(struct.pack("<iB", 1, 1) + nested + struct.pack("<i", -1))


@pytest.mark.parametrize(
    "head",
    [b"HTTP", b"MSGX", b"HELF", b"CLOF", b"MSGA" + struct.pack("<I", 24) + bytes(16),
     b"MSGF" + struct.pack("<I", MAX_CHUNK + 1), b"MSGF" + struct.pack("<I", 7)],
)  # fmt: skip
def test_what_is_no_chunk_is_refused_at_its_head(head):
    with pytest.raises(FramingError):
        Frames().feed(head.ljust(8, b" "))
    with pytest.raises(FramingError):
        frames = Frames()
        for byte in head.ljust(8, b" "):
            frames.feed(bytes([byte]))


def test_a_message_without_end_is_refused():
    chunk = b"MSGC" + struct.pack("<IIIII", 24, 1, 1, 1, 1)
    frames = Frames()
    assert len(frames.feed(chunk * MAX_CHUNKS)) == MAX_CHUNKS
    with pytest.raises(FramingError):
        frames.feed(chunk)
    large = b"MSGC" + struct.pack("<I", MAX_CHUNK) + bytes(MAX_CHUNK - 8)
    frames = Frames()
    with pytest.raises(FramingError):
        for _ in range(MAX_CHUNKS):
            frames.feed(large)


# The order of a subscription's messages.


def message(number: int, *, keepalive: bool = False) -> Message:
    return Message(number, keepalive, [], None)


def numbers_of(messages) -> list[int]:
    return [one.sequence for one in messages]


def test_messages_in_order_are_used_as_they_come():
    order = Order()
    assert numbers_of(order.take(message(1))) == [1]
    assert order.take(message(2, keepalive=True)) == []
    assert numbers_of(order.take(message(2))) == [2]
    assert not order.missing
    assert not order.lossy


def test_a_message_after_its_turn_is_not_used_but_all_is_read_afresh():
    order = Order()
    order.take(message(1))
    assert order.take(message(1, keepalive=True)) == []
    assert not order.lossy
    assert order.take(message(1)) == []
    assert order.lossy


def test_what_is_missing_is_asked_for_and_then_used_in_order():
    order = Order()
    order.take(message(1))
    assert order.take(message(3)) == []
    assert order.take(message(5)) == []
    assert order.missing == [2, 4]
    assert numbers_of(order.take(message(2))) == [2, 3]
    assert order.missing == [4]
    assert numbers_of(order.take(message(4))) == [4, 5]
    assert not order.missing


def test_a_keepalive_tells_what_is_missing():
    order = Order()
    order.take(message(3, keepalive=True))
    assert order.missing == [1, 2]
    assert numbers_of(order.give_up()) == []
    assert order.lossy
    assert numbers_of(order.take(message(3))) == [3]


def test_what_is_lost_is_not_waited_for_without_end():
    order = Order()
    for number in range(2, MAX_HELD + 1):
        assert order.take(message(number)) == []
    assert numbers_of(order.take(message(MAX_HELD + 1))) == list(range(2, MAX_HELD + 2))
    assert order.lossy
    assert not order.missing
    far = Order()
    assert far.take(message(2**31 - 1, keepalive=True)) == []
    assert far.lossy
    assert not far.missing


def test_numbers_begin_again_at_one():
    order = Order()
    order._next = 2**32 - 1
    assert numbers_of(order.take(message(2**32 - 1))) == [2**32 - 1]
    assert order.take(message(2)) == []
    assert order.missing == [1]
    assert numbers_of(order.take(message(1))) == [1, 2]


@given(st.permutations(range(1, MAX_HELD)), st.sets(st.integers(1, MAX_HELD - 1)))
def test_whatever_is_lost_comes_in_order_or_is_known_to_be_lost(sent, lost):
    order = Order()
    used = numbers_of([ready for one in sent if one not in lost for ready in order.take(message(one))])
    order.take(message(MAX_HELD, keepalive=True))
    assert used == sorted(used)
    assert set(order.missing) == lost
    used += numbers_of(order.give_up())
    assert used == sorted(set(range(1, MAX_HELD)) - lost)
