"""What a subscription brings (OPC 10000-4, 5.14.5 and 7.25): its messages, and their order."""

import struct
from collections.abc import Sequence

import msgspec

from drivers.link import FramingError
from drivers.opcua_codec import U32, array, node_number, skip_array, skip_bytes, skip_diagnostics, skip_extension
from drivers.opcua_values import data_value, end_of_results
from drivers.value import Value

MAX_HELD = 8
"""So many messages wait for one before them that is missing."""
MAX_CHANGES = 100_000
_NUMBERS = 0xFFFF_FFFF  # after which comes 1 again: 0 is none (OPC 10000-4, 7.5 Counter)
_DATA_CHANGE, _STATUS_CHANGE = 811, 820

Change = tuple[int, Value | None, int, int, int]
"""(client handle, value, kind, StatusCode, ticks), as in `opcua_values.Columns`."""


class Message(msgspec.Struct, frozen=True):
    """A NotificationMessage. `keepalive`: it brings nothing, and its sequence number is that of the next one.

    `status` is that of a StatusChangeNotification: the subscription has ended.
    """

    sequence: int
    keepalive: bool
    changes: Sequence[Change]
    status: int | None


class Published(msgspec.Struct, frozen=True):
    """A PublishResponse; `more`: what belongs to this message comes in the next."""

    subscription: int
    more: bool
    message: Message


def published(body: bytes) -> Published:
    """The parameters of a PublishResponse, whole. Raises FramingError."""
    try:
        (subscription,) = U32.unpack_from(body)
        available, at = array(body, 4)
        at += 4 * available
        more = body[at] != 0
        message, at = _message(body, at + 1)
        results, at = array(body, at)
        at += 4 * results
    except (struct.error, IndexError) as error:
        raise FramingError("a notification is cut off") from error
    end_of_results(body, at)
    return Published(subscription, more, message)


def republished(body: bytes, sequence: int) -> Message:
    """The parameters of the RepublishResponse for this sequence number, whole. Raises FramingError."""
    try:
        message, at = _message(body, 0)
    except (struct.error, IndexError) as error:
        raise FramingError("a notification is cut off") from error
    if at != len(body):
        raise FramingError(f"a notification of {len(body)} bytes ends at {at}")
    if message.sequence != sequence:
        raise FramingError(f"message {message.sequence} was sent again for {sequence}")
    return msgspec.structs.replace(message, keepalive=False)


class Terms(msgspec.Struct, frozen=True):
    """What the server has made of the wanted publishing interval and keep-alive count."""

    interval_s: float
    keep_alive: int


def created_subscription(body: bytes) -> tuple[int, Terms]:
    """The number and terms in a CreateSubscriptionResponse's parameters, whole. Raises FramingError."""
    terms = modified_subscription(body[4:])
    (number,) = U32.unpack_from(body)
    if number == 0:
        raise FramingError("a subscription without a number")
    return number, terms


def modified_subscription(body: bytes) -> Terms:
    """The parameters of a ModifySubscriptionResponse, whole. Raises FramingError."""
    try:
        interval_ms, _, keep_alive = struct.unpack("<dII", body)
    except struct.error as error:
        raise FramingError("a subscription's answer is of another length") from error
    if not 0 < interval_ms < 1e9:
        raise FramingError(f"a subscription every {interval_ms} ms")
    return Terms(interval_ms / 1000, keep_alive)


def created_items(body: bytes, count: int) -> list[int]:
    """The StatusCode of each of `count` items of a CreateMonitoredItemsResponse. Raises FramingError."""
    statuses: list[int] = []
    try:
        found, at = array(body, 0)
        if found != count:
            raise FramingError(f"an answer of {found} of {count} items")
        for _ in range(count):
            statuses.append(U32.unpack_from(body, at)[0])
            at = skip_extension(body, at + 20)
    except (struct.error, IndexError) as error:
        raise FramingError("the monitored items' answer is cut off") from error
    end_of_results(body, at)
    return statuses


def _message(body: bytes, at: int) -> tuple[Message, int]:
    sequence, _, count = struct.unpack_from("<Iqi", body, at)
    _, at = array(body, at + 12)
    changes: list[Change] = []
    status = None
    for _ in range(count):
        kind, at = node_number(body, at)
        if body[at] != 1:
            raise FramingError(f"a notification of form {body[at]}")
        start, at = at + 5, skip_bytes(body, at + 1)
        if kind == _DATA_CHANGE:
            changes += _changes(body[start:at])
        elif kind == _STATUS_CHANGE:
            (status,) = U32.unpack_from(body, start)
            end_of = skip_diagnostics(body, start + 4)
            if end_of != at:
                raise FramingError("a status change of another length")
        else:
            raise FramingError(f"a notification of type {kind}")
    return Message(sequence, count <= 0, changes, status), at


def _changes(data: bytes) -> list[Change]:
    count, at = array(data, 0)
    if count > MAX_CHANGES:
        raise FramingError(f"a notification of {count} changes")
    changes: list[Change] = []
    handle_at = U32.unpack_from
    for _ in range(count):
        (handle,) = handle_at(data, at)
        value, kind, status, ticks, at = data_value(data, at + 4)
        changes.append((handle, value, kind, status, ticks))
    if at > len(data):
        raise FramingError("a notification is cut off")
    if skip_array(data, at, skip_diagnostics) != len(data):
        raise FramingError("a notification of another length")
    return changes


class Order:
    """Puts a subscription's messages in order, without a socket: what is missing, what was lost."""

    def __init__(self) -> None:
        self.lossy = False
        """A message is lost for good: only a fresh read knows all values."""
        self._next = 1
        self._known = 0  # so many numbers from `_next` on are known to have been sent
        self._held: dict[int, Message] = {}

    def take(self, message: Message) -> list[Message]:
        """The messages that can be used now, in order. One that comes after its turn is none of them."""
        ahead = (message.sequence - self._next) % _NUMBERS
        if ahead > _NUMBERS // 2:
            self.lossy = self.lossy or not message.keepalive
            return []
        if message.keepalive:
            self._known = max(self._known, ahead)
        else:
            self._known = max(self._known, ahead + 1)
            self._held[message.sequence] = message
        ready = self._ready()
        return ready if self._known <= MAX_HELD else ready + self.give_up()

    @property
    def missing(self) -> list[int]:
        """The sequence numbers before the last known that have not come."""
        numbers = (self._after(count) for count in range(self._known))
        return [number for number in numbers if number not in self._held]

    def give_up(self) -> list[Message]:
        """What waited, in order; what is missing is not waited for any longer."""
        self.lossy = True
        left = sorted(self._held, key=lambda number: (number - self._next) % _NUMBERS)
        messages = [self._held.pop(number) for number in left]
        self._next, self._known = self._after(self._known), 0
        return messages

    def _ready(self) -> list[Message]:
        messages: list[Message] = []
        while self._next in self._held:
            messages.append(self._held.pop(self._next))
            self._next, self._known = self._after(1), self._known - 1
        return messages

    def _after(self, count: int) -> int:
        return (self._next - 1 + count) % _NUMBERS + 1
