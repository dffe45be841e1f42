"""What `hil up` and the process of a simulated PLC tell one another: an assignment, then raw values both ways.

The assignment is a file that the process inherits as its standard input; everything else are packets of a SEQPACKET
socket. Values are levels, sent when they change and again until they went through; points are meant by their index.
"""

import socket
from typing import Any

import msgspec

from drivers.driver import Point
from drivers.value import Value
from edge import channel

PERIOD_S = 0.01
"""How often the plant steps and values are exchanged."""

_PER_PACKET = 500


class Assignment(msgspec.Struct, frozen=True):
    """What a PLC process is to be: the device, where it serves, its driver's `settings` of the cell file, how the
    `controller` is set up (None: it allows everything), points.
    """

    parent: int
    device: str
    driver: str
    host: str
    port: int
    settings: dict[str, Any]
    controller: dict[str, Any] | None
    points: list[Point]


class Serving(msgspec.Struct, frozen=True, tag="serving"):
    """From the process: it answers at its port; `settings` of the device in a cell file reach it."""

    settings: dict[str, Any]


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """From the process: it cannot serve, and why; then it ends."""

    text: str


class Values(msgspec.Struct, frozen=True, tag="values"):
    """Raw values by point: to the process what the plant's sensors show, from it what clients have written."""

    values: dict[int, Value]


Packet = Serving | Refused | Values

_encoder = msgspec.msgpack.Encoder()
_packets: "msgspec.msgpack.Decoder[Packet]" = msgspec.msgpack.Decoder(Packet)
_assignments = msgspec.msgpack.Decoder(Assignment)


def pack_assignment(assignment: Assignment) -> bytes:
    return _encoder.encode(assignment)


def unpack_assignment(data: bytes) -> Assignment:
    return _assignments.decode(data)


def send(end: socket.socket, packet: Packet) -> bool:
    """Sends a packet; False where it did not go through."""
    return channel.send(end, _encoder.encode(packet))


def receive(end: socket.socket) -> list[Packet]:
    """The packets that have come; never waits."""
    return [_packets.decode(packet) for packet in channel.drain(end)]


class Levels:
    """The values that the other end should have, and those that it has been sent."""

    def __init__(self) -> None:
        self._sent: dict[int, Value] = {}

    def bring(self, end: socket.socket, values: dict[int, Value]) -> None:
        """Sends what differs from what was sent; what does not go through stays due."""
        changed = [(index, value) for index, value in values.items() if self._sent.get(index) != value]
        for start in range(0, len(changed), _PER_PACKET):
            part = dict(changed[start : start + _PER_PACKET])
            if not send(end, Values(part)):
                return
            self._sent.update(part)
