"""Modbus/TCP without a socket: frames (Messaging on TCP/IP 1.0b), requests and answers (Application Protocol 1.1b3).

A payload here is what stands in a frame after its length: the unit identifier, the function code, its data.
"""

import struct

from drivers.link import FramingError

# Function codes (Application Protocol, 6).
READ_COILS, READ_DISCRETE, READ_HOLDING, READ_INPUT = 1, 2, 3, 4
WRITE_COIL, WRITE_REGISTER, WRITE_COILS, WRITE_REGISTERS = 5, 6, 15, 16
FAILED = 0x80
"""Set in the function code of an exception reply (Application Protocol, 7)."""

# Exception codes (Application Protocol, 7). NO_DATA is not one: some servers answer an illegal address with no data.
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, FAILURE = 1, 2, 3, 4
ACKNOWLEDGE, BUSY, PARITY, NO_PATH, NO_TARGET = 5, 6, 8, 0x0A, 0x0B
NO_DATA = 0

MAX_READ_REGISTERS, MAX_READ_BITS = 125, 2000
MAX_WRITE_REGISTERS, MAX_WRITE_BITS = 123, 1968

_HEADER = struct.Struct(">HHH")
_head, _header = _HEADER.pack, _HEADER.unpack_from
_REQUEST = struct.Struct(">BBHH")
_MULTIPLE = struct.Struct(">BBHHB")
_LARGEST = 254  # unit identifier and a PDU of 253 bytes (Application Protocol, 4.1)


class Refused(Exception):
    """An exception reply: the device understood the request and did not do it. `code` says why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}")
        self.code = code


class Mismatch(ValueError):
    """An answer that does not answer the request: the two sides have lost one another."""


class Frames:
    """Bytes of one direction of a connection -> (transaction identifier, payload) of each frame."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Raises FramingError for bytes that are no Modbus/TCP (Messaging on TCP/IP, 3.1.3)."""
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        if 8 <= size <= 6 + _LARGEST:  # one frame and no more, as nearly always
            transaction, protocol, length = _header(data)
            if length == size - 6 and not protocol:
                self._rest = b""
                return [(transaction, data[6:])]
        found: list[tuple[int, bytes]] = []
        while size - at >= 6:
            transaction, protocol, length = _header(data, at)
            if protocol != 0 or not 2 <= length <= _LARGEST:
                raise FramingError(f"no Modbus/TCP header: {data[at : at + 6].hex(' ')}")
            end = at + 6 + length
            if size < end:
                break
            found.append((transaction, data[at + 6 : end]))
            at = end
        self._rest = data[at:]
        return found


def frame(transaction: int, payload: bytes) -> bytes:
    """A payload with its header."""
    return _head(transaction, 0, len(payload)) + payload


class ClientCodec:
    """A client's `drivers.link.Codec`: the key of a request is its transaction identifier."""

    def __init__(self) -> None:
        self._transaction = 0
        self.reset()

    def reset(self) -> None:
        """Forgets half a frame. Identifiers count on: an old connection's answer fits no new request."""
        self.feed = Frames().feed

    def encode(self, request: bytes) -> tuple[int, bytes]:
        """(key, frame) of a payload."""
        self._transaction = key = self._transaction + 1 & 0xFFFF
        return key, _head(key, 0, len(request)) + request


def read_request(unit: int, function: int, start: int, count: int) -> bytes:
    """Functions 1 to 4: `count` bits or registers from `start`."""
    return _REQUEST.pack(unit, function, start, count)


def write_request(unit: int, function: int, start: int, count: int, data: bytes) -> bytes:
    """Functions 5, 6, 15, 16; `data` are registers, or bits, eight a byte, the first in the lowest place."""
    if function == WRITE_COIL:
        return _REQUEST.pack(unit, function, start, 0xFF00 if data[0] & 1 else 0)
    if function == WRITE_REGISTER:
        return _REQUEST.pack(unit, function, start, data[0] << 8 | data[1])
    return _MULTIPLE.pack(unit, function, start, count, len(data)) + data


def answer_data(request: bytes, answer: bytes) -> bytes:
    """The data of a read's answer, or what a write's answer confirms: value (5, 6) or count (15, 16), two bytes.

    Both are payloads. Raises Refused for an exception reply, Mismatch where this is no answer to the request.
    """
    if answer[0] != request[0]:
        raise Mismatch(f"it answered for unit {answer[0]} instead of {request[0]}")
    function = request[1]
    if answer[1] == function | FAILED and len(answer) == 3:
        raise Refused(answer[2])
    if answer[1] != function:
        raise Mismatch(f"it answered function {answer[1]} to function {function}")
    if function > READ_INPUT:
        if len(answer) != 6 or answer[2:4] != request[2:4]:
            raise Mismatch(f"it confirmed another write than that of address {request[2] << 8 | request[3]}")
        return answer[4:]
    count = request[4] << 8 | request[5]
    size = (count + 7) // 8 if function <= READ_DISCRETE else count * 2
    if answer[2:] == b"\0":
        raise Refused(NO_DATA)
    if len(answer) != 3 + size or answer[2] != size:
        raise Mismatch(f"it answered {len(answer) - 3} bytes where {size} were asked for")
    return answer[3:]
