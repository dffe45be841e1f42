"""OPC UA messages of the cyclic path, without a socket: requests encoded once and patched, chunks cut, answers opened.

Source: OPC 10000-6, 5.2 (binary encoding) and 6.7, 7.1 (chunks, UA-TCP); OPC 10000-4, 7.32 and 7.33 (headers).
What secures a chunk, and numbers it, is not seen here.
"""

import struct
import time
import uuid
from collections.abc import Callable, Iterable, Sequence

import msgspec

from drivers.link import FramingError

CLOSE_SESSION, READ, WRITE, CREATE_ITEMS = 473, 631, 673, 751
CREATE_SUBSCRIPTION, MODIFY_SUBSCRIPTION, PUBLISH, REPUBLISH = 787, 793, 826, 832
"""Encoding ids of requests (OPC 10000-6, A.3); that of each one's response is 3 higher."""
READ_ANSWER, _SERVICE_FAULT = READ + 3, 397
_SOURCE_TIME = 0  # OPC 10000-4, 7.40 TimestampsToReturn

MAX_CHUNK = 65_535
MAX_MESSAGE = 4 * 1024 * 1024
MAX_CHUNKS = MAX_MESSAGE // 8192  # 8192 is the smallest buffer that a peer may have (OPC 10000-6, 7.1.2.3)
MAX_NESTING = 100  # OPC 10000-6, 5.2.2.15

EPOCH_TICKS = 116_444_736_000_000_000
"""1970 in OPC UA's time: 100 ns since 1601 (OPC 10000-6, 5.2.2.5)."""

_HEADER = struct.Struct("<3scI")
_PLAIN = struct.Struct("<3scIIIII")
_PATCH = struct.Struct("<qI")
_ANSWER = struct.Struct("<BBHqIIB")
_NO_OBJECT = bytes(3)
U32, I32 = struct.Struct("<I"), struct.Struct("<i")


class ServiceFault(Exception):
    """The server refuses a request as a whole: its StatusCode."""

    def __init__(self, status: int) -> None:
        super().__init__(f"0x{status:08X}")
        self.status = status


class Frames:
    """Cuts received bytes into whole chunks. No chunk, and no message in chunks, is longer than what edge announces."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._size = self._chunks = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The chunks that these bytes complete, each with its header. Raises FramingError."""
        if self._partial:
            self._partial += data
            if len(self._partial) < 8 or len(self._partial) < _HEADER.unpack_from(self._partial)[2] <= MAX_CHUNK:
                return []
            data = bytes(self._partial)
            self._partial.clear()
        chunks: list[bytes] = []
        at = 0
        while len(data) - at >= 8:
            size = self._check(data, at)
            if at + size > len(data):
                break
            self._count(data[at + 3], size)
            chunks.append(data[at : at + size])
            at += size
        self._partial += data[at:]
        return chunks

    def _check(self, data: bytes, at: int) -> int:
        kind, final, size = _HEADER.unpack_from(data, at)
        if kind not in (b"MSG", b"OPN", b"ACK", b"ERR") or final not in b"FCA":
            raise FramingError(f"a message begins with {data[at : at + 4]!r}")
        if not 8 <= size <= MAX_CHUNK:
            raise FramingError(f"a chunk of {size} bytes")
        return size

    def _count(self, final: int, size: int) -> None:
        if final == 0x41:  # A
            raise FramingError("an answer was broken off")
        self._size, self._chunks = self._size + size, self._chunks + 1
        if self._size > MAX_MESSAGE or self._chunks > MAX_CHUNKS:
            raise FramingError(f"an answer of more than {MAX_MESSAGE} bytes or {MAX_CHUNKS} chunks")
        if final == 0x46:  # F
            self._size = self._chunks = 0


def plain_chunk(channel: int, token: int, sequence: int, request_id: int, message: bytes) -> bytes:
    """A message that fits one chunk, on a channel without security (OPC 10000-6, 6.7.2)."""
    size = _PLAIN.size + len(message)
    return _PLAIN.pack(b"MSG", b"F", size, channel, token, sequence, request_id) + message


def open_plain_chunk(chunk: bytes, channel: int, token: int, sequence: int) -> tuple[int, bytes] | None:
    """(request id, message) of a whole message on a channel without security; None where anything is out of turn."""
    if len(chunk) < _PLAIN.size:
        return None
    kind, final, _, its_channel, its_token, its_sequence, request_id = _PLAIN.unpack_from(chunk)
    if (kind, final, its_channel, its_token, its_sequence) != (b"MSG", b"F", channel, token, sequence):
        return None
    return request_id, chunk[_PLAIN.size :]


class Request(msgspec.Struct, frozen=True):
    """A request, encoded but for its time and its handle; `answer` is the encoding id of its response."""

    before: bytes
    after: bytes
    answer: int

    def encode(self, handle: int) -> bytes:
        return b"".join((self.before, _PATCH.pack(time.time_ns() // 100 + EPOCH_TICKS, handle), self.after))


def request(service: int, token: bytes, body: bytes, timeout_ms: int = 0) -> Request:
    """`token` is the session's AuthenticationToken, an encoded NodeId; `timeout_ms` 0: the server may take its time."""
    after = struct.pack("<IiIBBB", 0, -1, timeout_ms, 0, 0, 0) + body
    return Request(struct.pack("<BBH", 1, 0, service) + token, after, service + 3)


def open_answer(message: bytes, handle: int, answer: int) -> bytes:
    """What follows the ResponseHeader of the answer to this request.

    Raises ServiceFault; FramingError where this is no answer, or that to another request.
    """
    try:
        form, namespace, kind, _, its_handle, status, diagnostics = _ANSWER.unpack_from(message)
        if form != 1 or namespace or kind not in (answer, _SERVICE_FAULT):
            raise FramingError(f"the answer begins with {message[:4].hex()}, expected is {answer}")
        if its_handle != handle and (kind == answer or its_handle):
            raise FramingError(f"the answer to request {its_handle} came for request {handle}")
        if kind == _SERVICE_FAULT or status >> 31:
            raise ServiceFault(status if status >> 31 else 0x8000_0000)
        at = skip_extension(message, _behind_strings(message, diagnostics))
    except (struct.error, IndexError) as error:
        raise FramingError("the answer's header is cut off") from error
    if at > len(message):
        raise FramingError("the answer's header is cut off")
    return message[at:]


def plain_answer(message: bytes) -> tuple[int, bytes]:
    """(encoding id, what follows the ResponseHeader) of an answer whose header brings no object of its own.

    Raises FramingError.
    """
    try:
        form, namespace, kind, *_, diagnostics = _ANSWER.unpack_from(message)
        at = _behind_strings(message, diagnostics)
        if form != 1 or namespace or message[at : at + 3] != _NO_OBJECT:
            raise FramingError(f"the answer begins with {message[:4].hex()}")
    except (struct.error, IndexError) as error:
        raise FramingError("the answer's header is cut off") from error
    return kind, message[at + 3 :]


def _behind_strings(message: bytes, diagnostics: int) -> int:
    """Where a ResponseHeader's AdditionalHeader is."""
    at = _ANSWER.size if diagnostics == 0 else skip_diagnostics(message, _ANSWER.size - 1)
    return skip_array(message, at, skip_bytes)


def skip_bytes(data: bytes, at: int) -> int:
    """Behind a String, ByteString or XmlElement."""
    (size,) = I32.unpack_from(data, at)
    if size < -1 or size > len(data) - at:
        raise FramingError(f"a length of {size}")
    return at + 4 + max(size, 0)


def skip_array(data: bytes, at: int, skip: Callable[[bytes, int], int]) -> int:
    count, at = array(data, at)
    for _ in range(count):
        at = skip(data, at)
    return at


def array(data: bytes, at: int) -> tuple[int, int]:
    """How many elements follow, and where. No element is shorter than a byte."""
    (count,) = I32.unpack_from(data, at)
    if count < -1 or count > len(data) - at - 4:
        raise FramingError(f"an array of {count}")
    return max(count, 0), at + 4


def node_number(data: bytes, at: int) -> tuple[int, int]:
    """(numeric identifier in OPC UA's own namespace, or -1; where it ends) of a NodeId (OPC 10000-6, 5.2.2.9)."""
    form = data[at] & 0x3F
    if form == 0:
        return data[at + 1], at + 2
    if form == 1:
        number: int = struct.unpack_from("<H", data, at + 2)[0]
        return (number if data[at + 1] == 0 else -1), at + 4
    namespace: int = struct.unpack_from("<H", data, at + 1)[0]
    if form == 2:
        return (U32.unpack_from(data, at + 3)[0] if namespace == 0 else -1), at + 7
    if form in (3, 5):
        return -1, skip_bytes(data, at + 3)
    if form == 4:
        return -1, at + 19
    raise FramingError(f"a NodeId of form {form}")


def skip_node(data: bytes, at: int) -> int:
    if data[at] & 0xC0:
        raise FramingError("a NodeId of another server")
    return node_number(data, at)[1]


def skip_expanded_node(data: bytes, at: int) -> int:
    flags, at = data[at], node_number(data, at)[1]
    if flags & 0x80:
        at = skip_bytes(data, at)
    return at + 4 if flags & 0x40 else at


def skip_extension(data: bytes, at: int) -> int:
    """Behind an ExtensionObject (OPC 10000-6, 5.2.2.15)."""
    at = skip_node(data, at)
    form = data[at]
    if form > 2:
        raise FramingError(f"an ExtensionObject of form {form}")
    return skip_bytes(data, at + 1) if form else at + 1


def skip_diagnostics(data: bytes, at: int, depth: int = 0) -> int:
    """Behind a DiagnosticInfo (OPC 10000-6, 5.2.2.12)."""
    mask = data[at]
    if mask & 0x80 or depth > MAX_NESTING:
        raise FramingError("a DiagnosticInfo that is none")
    at += 1 + 4 * (mask & 0x0F).bit_count()
    if mask & 0x10:
        at = skip_bytes(data, at)
    if mask & 0x20:
        at += 4
    return skip_diagnostics(data, at, depth + 1) if mask & 0x40 else at


def encode_node_id(namespace: int, identifier: int | str | bytes | uuid.UUID) -> bytes:
    """A NodeId in its shortest form (OPC 10000-6, 5.2.2.9)."""
    if isinstance(identifier, int):
        if namespace == 0 and identifier < 256:
            return struct.pack("<BB", 0, identifier)
        if namespace < 256 and identifier < 65_536:
            return struct.pack("<BBH", 1, namespace, identifier)
        return struct.pack("<BHI", 2, namespace, identifier)
    if isinstance(identifier, uuid.UUID):
        return struct.pack("<BH", 4, namespace) + identifier.bytes_le
    form, data = (3, identifier.encode()) if isinstance(identifier, str) else (5, identifier)
    return struct.pack("<BHi", form, namespace, len(data)) + data


def _value_of(node: bytes) -> bytes:
    """A ReadValueId: a node's attribute Value, whole (OPC 10000-4, 7.29)."""
    return node + struct.pack("<IiHi", 13, -1, 0, -1)


def read_parameters(nodes: Sequence[bytes]) -> bytes:
    """A ReadRequest's parameters (OPC 10000-4, 5.11.2.2): values, none from a cache, with their source times."""
    return struct.pack("<dii", 0, _SOURCE_TIME, len(nodes)) + b"".join(map(_value_of, nodes))


def write_parameters(items: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A WriteRequest's (5.11.4.2) for (node, Variant): the value alone, for many servers refuse a status or a time."""
    head, only_value = struct.pack("<Ii", 13, -1), b"\x01"
    return I32.pack(len(items)) + b"".join([node + head + only_value + variant for node, variant in items])


def subscription_parameters(interval_ms: float, lifetime: int, keep_alive: int) -> bytes:
    """A CreateSubscriptionRequest's (5.14.2.2): as many notifications in a message as the server likes, enabled."""
    return struct.pack("<dIIIBB", interval_ms, lifetime, keep_alive, 0, 1, 0)


def modification_parameters(subscription: int, interval_ms: float, lifetime: int, keep_alive: int) -> bytes:
    """A ModifySubscriptionRequest's (5.14.3.2)."""
    return struct.pack("<IdIIIB", subscription, interval_ms, lifetime, keep_alive, 0, 0)


def monitored_items(subscription: int, nodes: Iterable[tuple[int, bytes]], interval_ms: float) -> bytes:
    """A CreateMonitoredItemsRequest's (5.13.2.2) for {handle: node}: reporting, of each the newest value alone."""
    items = [
        _value_of(node) + struct.pack("<iIdBBBIB", 2, handle, interval_ms, 0, 0, 0, 1, 1) for handle, node in nodes
    ]
    return struct.pack("<Iii", subscription, _SOURCE_TIME, len(items)) + b"".join(items)


def publish_parameters(acknowledged: Sequence[tuple[int, int]]) -> bytes:
    """A PublishRequest's (5.14.5.2): (subscription, sequence number) of what was received."""
    return I32.pack(len(acknowledged)) + b"".join(struct.pack("<II", *one) for one in acknowledged)
