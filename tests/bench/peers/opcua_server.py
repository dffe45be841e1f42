"""An OPC UA server that is never what a benchmark waits for: `opcua_server.py still|changing|reaction`.

It prints its port of 127.0.0.1 and ends with its standard input; to a line there it says how many values it has
notified. Rare messages are decoded and encoded by asyncua;
those that come again and again are known by their bytes, and their answers were encoded before. It has 1000 variables
(Double, ns=1;i=1000 and following), which change at each read where it is `changing`, and every 20 ms for who has
subscribed to them. `reaction` prints how long the output (ns=1;i=100) took to follow the input (ns=1;i=1), in ns.
"""

import asyncio
import contextlib
import os
import random
import struct
import sys
import time
from datetime import UTC, datetime

import uvloop
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary, struct_to_binary

FIRST, COUNT = 1000, 1000
INPUT, OUTPUT = ua.NodeId(1, 1), ua.NodeId(100, 1)
TICK_S = 0.02
SETS = 16
"""So many different sets of values take turns."""
EPOCH_100NS = 116_444_736_000_000_000
TOKEN, CHANNEL = 1, 1
_HEAD = struct.Struct("<3scII")
_SEQUENCE = struct.Struct("<III")
_RESPONSE = struct.Struct("<qIIBi3x")
_SIGNED_OFF = b"\xff\xff\xff\xff"  # no DiagnosticInfos
_VALUE = "BBdqq"  # a DataValue: what it has, the type, value, source and server time
_BIT = "BB?qq"
_ONE_GOOD = struct.pack("<II", 1, 0) + _SIGNED_OFF  # StatusCodes: one, good
_ENDPOINT_POLICY = "http://opcfoundation.org/UA/SecurityPolicy#None"
IDS = ua.ObjectIds


def encoding(name: str) -> int:
    return getattr(IDS, f"{name}_Encoding_DefaultBinary")


def now_100ns() -> int:
    return time.time_ns() // 100 + EPOCH_100NS


class Values:
    """The variables' values, and their encodings, set after set."""

    def __init__(self, how: str) -> None:
        self.sets = 1 if how == "still" else SETS
        self.began = now_100ns()
        self.turn = self.notified = 0
        self.reads: dict[bytes, list[bytes]] = {}
        self.bits: dict[bytes, list[ua.NodeId]] = {}
        self.writes: dict[bytes, tuple[ua.NodeId, bool]] = {}
        self.plain: dict[ua.NodeId, object] = {
            INPUT: False,
            OUTPUT: False,
            ua.NodeId(IDS.Server_NamespaceArray): ["http://opcfoundation.org/UA/", "urn:edge:bench"],
            ua.NodeId(IDS.Server_ServerStatus_State): 0,
        }

    def results(self, nodes: list[int], turn: int) -> bytes:
        """DataValues of the variables of these numbers."""
        stamp = self.began + turn * 10_000
        fields = [part for number in nodes for part in (0x0D, 11, number * 0.5 + turn, stamp, stamp)]
        return struct.pack(f"<I{_VALUE * len(nodes)}", len(nodes), *fields)

    def read(self, body: bytes) -> bytes:
        """The answer to a read that came before. Raises KeyError for any other."""
        bits = self.bits.get(body)
        if bits is not None:
            stamp = now_100ns()
            fields = [part for node in bits for part in (0x0D, 1, self.plain[node], stamp, stamp)]
            return struct.pack(f"<I{_BIT * len(bits)}", len(bits), *fields) + _SIGNED_OFF
        self.turn += 1
        known = self.reads[body]
        return known[self.turn % len(known)]

    def learn(self, body: bytes, wanted: list[ua.ReadValueId]) -> None:
        """Encodes the answers to a read that may come again."""
        numbers = [one.NodeId.Identifier for one in wanted if one.AttributeId == ua.AttributeIds.Value]
        if len(numbers) == len(wanted) and all(is_variable(one.NodeId) for one in wanted):
            self.reads[body] = [self.results(numbers, turn) + _SIGNED_OFF for turn in range(self.sets)]
        elif len(numbers) == len(wanted) and all(isinstance(self.plain.get(one.NodeId), bool) for one in wanted):
            self.bits[body] = [one.NodeId for one in wanted]

    def value(self, one: ua.ReadValueId) -> ua.DataValue:
        """Any node's answer, one at a time."""
        now = datetime.now(UTC)
        known = is_variable(one.NodeId) or one.NodeId in self.plain
        if not known or one.AttributeId not in (ua.AttributeIds.Value, ua.AttributeIds.DataType):
            return ua.DataValue(None, ua.StatusCode(ua.StatusCodes.BadNodeIdUnknown))
        value = self.plain.get(one.NodeId, float(self.turn))
        if one.AttributeId == ua.AttributeIds.DataType:
            kind = IDS.Boolean if isinstance(value, bool) else IDS.Double
            return ua.DataValue(ua.Variant(ua.NodeId(kind), ua.VariantType.NodeId), ua.StatusCode(), now, now)
        kind = ua.VariantType.Int32 if isinstance(value, int) and not isinstance(value, bool) else None
        return ua.DataValue(ua.Variant(value, kind), ua.StatusCode(), now, now)


def is_variable(node: ua.NodeId) -> bool:
    return node.NamespaceIndex == 1 and isinstance(node.Identifier, int) and FIRST <= node.Identifier < FIRST + COUNT


class Reaction:
    """The PLC's part: while the output is on, the input comes on after 20 to 60 ms, until the output goes off."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.since_ns = 0
        self.due: asyncio.TimerHandle | None = None

    def output(self, on: bool) -> None:
        if on and not self.since_ns and self.due is None:
            self.due = asyncio.get_running_loop().call_later(random.uniform(0.02, 0.06), self.begin)
        if not on and self.since_ns:
            print(time.monotonic_ns() - self.since_ns, flush=True)
            self.since_ns = 0
            self.values.plain[INPUT] = False

    def begin(self) -> None:
        self.due = None
        self.values.plain[INPUT] = True
        self.since_ns = time.monotonic_ns()


class Subscription:
    """What a client has asked to be told, and the publish requests that wait for it."""

    def __init__(self) -> None:
        self.handles: list[int] = []
        self.sequence = 0
        self.waiting: list[tuple[int, int]] = []

    def notification(self, values: Values) -> bytes:
        """The answer to a publish request: every item, with its new value (OPC 10000-4, 5.14.5)."""
        self.sequence += 1
        stamp = now_100ns()
        turn = self.sequence % values.sets
        fields = [part for handle in self.handles for part in (handle, 0x0D, 11, handle * 0.5 + turn, stamp, stamp)]
        count = len(self.handles)
        values.notified += count
        items = struct.pack(f"<I{('I' + _VALUE) * count}i", count, *fields, -1)
        kind = struct.pack("<BBHBi", 1, 0, encoding("DataChangeNotification"), 1, len(items))
        begun = struct.pack("<IiBIqi", 1, 0, 0, self.sequence, stamp, 1)
        return begun + kind + items + struct.pack("<ii", 0, -1)


class Wire(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, values: Values, reaction: Reaction) -> None:
        self.values, self.reaction = values, reaction
        self.buffer = b""
        self.parts: list[bytes] = []
        self.sequence = 0
        self.subscription = Subscription()
        self.publishing: asyncio.TimerHandle | None = None
        self.rare = {
            encoding(f"{name}Request"): getattr(self, f"on_{name}")
            for name in (
                "GetEndpoints", "CreateSession", "ActivateSession", "CloseSession", "Read", "Write",
                "CreateSubscription", "ModifySubscription", "DeleteSubscriptions", "SetPublishingMode",
                "CreateMonitoredItems", "DeleteMonitoredItems", "Republish",
            )
        }  # fmt: skip

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self.publishing is not None:
            self.publishing.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 8 and len(self.buffer) >= (size := struct.unpack_from("<I", self.buffer, 4)[0]):
            frame, self.buffer = self.buffer[:size], self.buffer[size:]
            self.take(frame)

    def take(self, frame: bytes) -> None:
        kind, final = frame[:3], frame[3:4]
        if kind == b"HEL":
            _, receive, send = struct.unpack_from("<III", frame, 8)
            self.transport.write(struct.pack("<3scIIIIII", b"ACK", b"F", 28, 0, min(send, 1 << 20), receive, 0, 0))
        elif kind == b"OPN":
            self.open(frame)
        elif kind == b"MSG":
            self.parts.append(frame[24:])
            if final == b"F":
                body, self.parts = b"".join(self.parts), []
                self.request(struct.unpack_from("<I", frame, 20)[0], body)
        else:
            self.transport.close()

    def open(self, frame: bytes) -> None:
        lengths, place = 3, 12
        for _ in range(lengths):
            place += 4 + max(0, struct.unpack_from("<i", frame, place)[0])
        number = struct.unpack_from("<I", frame, place + 4)[0]
        buffer = Buffer(frame[place + 8 :])
        nodeid_from_binary(buffer)
        asked = struct_from_binary(ua.RequestHeader, buffer)
        answer = ua.OpenSecureChannelResponse()
        answer.ResponseHeader.RequestHandle = asked.RequestHandle
        answer.Parameters.SecurityToken = ua.ChannelSecurityToken(CHANNEL, TOKEN, datetime.now(UTC), 3_600_000)
        uri = _ENDPOINT_POLICY.encode()
        policy = struct.pack(f"<i{len(uri)}sii", len(uri), uri, -1, -1)
        self.sequence += 1
        body = policy + struct.pack("<II", self.sequence, number) + struct_to_binary(answer)
        self.transport.write(_HEAD.pack(b"OPN", b"F", len(body) + 12, CHANNEL) + body)

    def answer(self, number: int, body: bytes) -> None:
        self.sequence += 1
        head = _HEAD.pack(b"MSG", b"F", len(body) + 24, CHANNEL)
        self.transport.write(head + _SEQUENCE.pack(TOKEN, self.sequence, number) + body)

    def results(self, number: int, kind: int, handle: int, body: bytes) -> None:
        """A response whose parameters are encoded already."""
        head = struct.pack("<BBH", 1, 0, kind) + _RESPONSE.pack(now_100ns(), handle, 0, 0, 0)
        self.answer(number, head + body)

    def request(self, number: int, body: bytes) -> None:
        """The parameters lie behind a header whose length depends on the token and the audit entry only."""
        kind = struct.unpack_from("<H", body, 2)[0]
        place = 4 + {0: 2, 1: 4, 2: 7}[body[4]] + 8
        handle = struct.unpack_from("<I", body, place)[0]
        audit = max(0, struct.unpack_from("<i", body, place + 8)[0])
        rest = body[place + 12 + audit + 4 + 3 :]
        if kind == _READ:
            try:
                self.results(number, _READ_ANSWER, handle, self.values.read(rest))
                return
            except KeyError:
                pass
        elif kind == _WRITE and rest in self.values.writes:
            self.put(*self.values.writes[rest])
            self.results(number, _WRITE_ANSWER, handle, _ONE_GOOD)
            return
        elif kind == _PUBLISH:
            self.subscription.waiting.append((number, handle))
            return
        self.answer(number, struct_to_binary(self.decoded(kind, handle, rest)))

    def decoded(self, kind: int, handle: int, rest: bytes) -> object:
        if kind in self.rare:
            answer = self.rare[kind](rest)
        else:
            answer = ua.ServiceFault()
            answer.ResponseHeader.ServiceResult = ua.StatusCode(ua.StatusCodes.BadServiceUnsupported)
        answer.ResponseHeader.RequestHandle = handle
        answer.ResponseHeader.Timestamp = datetime.now(UTC)
        return answer

    # what comes rarely

    def endpoints(self) -> list[ua.EndpointDescription]:
        host, port = self.transport.get_extra_info("sockname")
        anonymous = ua.UserTokenPolicy("anonymous", ua.UserTokenType.Anonymous)
        one = ua.EndpointDescription()
        one.EndpointUrl = f"opc.tcp://{host}:{port}"
        one.Server = ua.ApplicationDescription("urn:edge:bench", DiscoveryUrls=[one.EndpointUrl])
        one.SecurityMode, one.SecurityPolicyUri = ua.MessageSecurityMode.None_, _ENDPOINT_POLICY
        one.UserIdentityTokens = [anonymous]
        one.TransportProfileUri = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"
        return [one]

    def on_GetEndpoints(self, _: bytes) -> object:
        answer = ua.GetEndpointsResponse()
        answer.Endpoints = self.endpoints()
        return answer

    def on_CreateSession(self, _: bytes) -> object:
        answer = ua.CreateSessionResponse()
        told = answer.Parameters
        told.SessionId, told.AuthenticationToken = ua.NodeId(7, 1), ua.NodeId(70_000, 1)
        told.RevisedSessionTimeout = 60_000.0
        told.ServerNonce, told.ServerEndpoints = bytes(32), self.endpoints()
        return answer

    def on_ActivateSession(self, _: bytes) -> object:
        answer = ua.ActivateSessionResponse()
        answer.Parameters.ServerNonce = bytes(32)
        return answer

    def on_CloseSession(self, _: bytes) -> object:
        return ua.CloseSessionResponse()

    def on_Read(self, rest: bytes) -> object:
        wanted = struct_from_binary(ua.ReadParameters, Buffer(rest)).NodesToRead
        answer = ua.ReadResponse()
        answer.Results = [self.values.value(one) for one in wanted]
        self.values.learn(rest, wanted)
        return answer

    def on_Write(self, rest: bytes) -> object:
        answer = ua.WriteResponse()
        wanted = struct_from_binary(ua.WriteParameters, Buffer(rest)).NodesToWrite
        for one in wanted:
            self.put(one.NodeId, one.Value.Value.Value)
            answer.Results.append(ua.StatusCode())
        if len(wanted) == 1 and isinstance(wanted[0].Value.Value.Value, bool):
            self.values.writes[rest] = wanted[0].NodeId, wanted[0].Value.Value.Value
        return answer

    def put(self, node: ua.NodeId, value: object) -> None:
        self.values.plain[node] = value
        if node == OUTPUT:
            self.reaction.output(bool(value))

    def on_CreateSubscription(self, _: bytes) -> object:
        answer = ua.CreateSubscriptionResponse()
        told = answer.Parameters
        told.SubscriptionId, told.RevisedPublishingInterval = 1, TICK_S * 1000
        told.RevisedLifetimeCount, told.RevisedMaxKeepAliveCount = 10_000, 100
        self.publishing = asyncio.get_running_loop().call_later(TICK_S, self.publish)
        return answer

    def on_ModifySubscription(self, _: bytes) -> object:
        answer = ua.ModifySubscriptionResponse()
        told = answer.Parameters
        told.RevisedPublishingInterval, told.RevisedLifetimeCount, told.RevisedMaxKeepAliveCount = 20.0, 10_000, 100
        return answer

    def on_DeleteSubscriptions(self, _: bytes) -> object:
        self.subscription.handles.clear()
        answer = ua.DeleteSubscriptionsResponse()
        answer.Results = [ua.StatusCode()]
        return answer

    def on_SetPublishingMode(self, _: bytes) -> object:
        answer = ua.SetPublishingModeResponse()
        answer.Parameters.Results = [ua.StatusCode()]
        return answer

    def on_CreateMonitoredItems(self, rest: bytes) -> object:
        answer = ua.CreateMonitoredItemsResponse()
        for one in struct_from_binary(ua.CreateMonitoredItemsParameters, Buffer(rest)).ItemsToCreate:
            self.subscription.handles.append(one.RequestedParameters.ClientHandle)
            told = ua.MonitoredItemCreateResult()
            told.MonitoredItemId = len(self.subscription.handles)
            told.RevisedSamplingInterval, told.RevisedQueueSize = TICK_S * 1000, 1
            answer.Results.append(told)
        return answer

    def on_DeleteMonitoredItems(self, rest: bytes) -> object:
        answer = ua.DeleteMonitoredItemsResponse()
        asked = struct_from_binary(ua.DeleteMonitoredItemsParameters, Buffer(rest))
        answer.Results = [ua.StatusCode() for _ in asked.MonitoredItemIds]
        self.subscription.handles.clear()
        return answer

    def on_Republish(self, _: bytes) -> object:
        answer = ua.ServiceFault()
        answer.ResponseHeader.ServiceResult = ua.StatusCode(ua.StatusCodes.BadMessageNotAvailable)
        return answer

    def publish(self) -> None:
        """Each 20 ms: every item, to the request that has waited the longest."""
        self.publishing = asyncio.get_running_loop().call_later(TICK_S, self.publish)
        subscription = self.subscription
        if subscription.handles and subscription.waiting:
            number, handle = subscription.waiting.pop(0)
            self.results(number, _PUBLISH_ANSWER, handle, subscription.notification(self.values))


_READ, _READ_ANSWER = encoding("ReadRequest"), encoding("ReadResponse")
_WRITE, _WRITE_ANSWER = encoding("WriteRequest"), encoding("WriteResponse")
_PUBLISH, _PUBLISH_ANSWER = encoding("PublishRequest"), encoding("PublishResponse")


async def main() -> None:
    running, ended = asyncio.get_running_loop(), asyncio.Event()
    with contextlib.suppress(PermissionError):  # a server is a machine of its own
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(70))
    values = Values(sys.argv[1])
    reaction = Reaction(values)
    server = await running.create_server(lambda: Wire(values, reaction), "127.0.0.1", 0)
    running.add_reader(0, lambda: print(values.notified, flush=True) if os.read(0, 99) else ended.set())
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(main())
