"""S7 communication without a socket: frames and messages of both roles.

Three layers, each inside the one before: TPKT (RFC 1006, 6), COTP class 0 (ISO 8073 / ITU-T X.224, 13), and S7
communication, which Siemens does not publish: it is written here as PLCs and Wireshark's dissector `s7comm` have it.
"""

import struct
from collections.abc import Sequence

import msgspec

from drivers.link import FramingError

CONNECT = 0x10000
"""The codec's key of the COTP connection request and of its answer; an S7 job's key is its PDU reference (16 bits)."""

# COTP TPDU codes (X.224, 13.1) and parameter codes of CR and CC (13.3.4).
CR, CC, DR, DT, ER = 0xE0, 0xD0, 0x80, 0xF0, 0x70
_TPDU_SIZE, _CALLING_TSAP, _CALLED_TSAP = 0xC0, 0xC1, 0xC2
_LARGEST_TPDU = 0xFFFF - 4
_LARGEST_MESSAGE = 0xFFFF

# S7: kinds of message (ROSCTR), functions.
JOB, ACK, ACK_DATA, USERDATA = 1, 2, 3, 7
READ_VAR, WRITE_VAR, SETUP = 0x04, 0x05, 0xF0

# S7: areas of memory and transport sizes of an address.
INPUTS, OUTPUTS, MEMORY, DATA_BLOCK = 0x81, 0x82, 0x83, 0x84
BIT, BYTE = 0x01, 0x02
SIZES = {BIT: 1, BYTE: 1, 0x03: 1, 0x04: 2, 0x05: 2, 0x06: 4, 0x07: 4, 0x08: 4}
"""Transport size of an address -> bytes of one element: BIT, BYTE, CHAR, WORD, INT, DWORD, DINT, REAL."""

# S7: transport sizes of data; the length of 3, 4 and 5 counts bits, of the others bytes.
DATA_BIT, DATA_BYTE, DATA_INTEGER = 0x03, 0x04, 0x05

# S7: return codes of an item.
OK, NO_ACCESS, OUT_OF_RANGE, WRONG_TYPE, NO_OBJECT = 0xFF, 0x03, 0x05, 0x06, 0x0A

DEFAULT_PDU = 240
"""Bytes of a message that every S7 PLC grants."""
MAX_ITEMS = 20
"""Items that every PLC takes in one job."""
READ_REQUEST, READ_ANSWER, READ_ITEM = 12, 14, 4
"""Bytes of a read job before its items, of its answer before its items, and of an answer's item before its data."""
WRITE_REQUEST, ADDRESS = 12, 12
"""Bytes of a write job before its items, and of an item's address in both jobs."""

_TPKT = struct.Struct(">BBH")
_HEADER = struct.Struct(">BBHHHH")
_ADDRESS = struct.Struct(">BBBBHHI")
_ITEM = struct.Struct(">BBH")
_SETUP = struct.Struct(">BBHHH")


class JobRefused(Exception):
    """The PLC refused a whole job; `error` is its error class and code (0x8104: no such function for this client)."""

    def __init__(self, error: int) -> None:
        super().__init__(f"job refused with error 0x{error:04X}")
        self.error = error


# TPKT and COTP


def frame(tpdu: bytes) -> bytes:
    """A TPDU in its TPKT."""
    return _TPKT.pack(3, 0, 4 + len(tpdu)) + tpdu


def fragments(message: bytes, tpdu_size: int = _LARGEST_TPDU) -> bytes:
    """A message in one DT, or in as many as TPDUs of `tpdu_size` bytes ask (their headers count); each in a TPKT."""
    room = tpdu_size - 3
    if len(message) <= room:
        return frame(_LAST_DT + message)
    parts = [message[at : at + room] for at in range(0, len(message), room)]
    marks = [b"\x02\xf0\x00"] * (len(parts) - 1) + [_LAST_DT]  # bit 8: end of the message (EOT)
    return b"".join(frame(mark + part) for mark, part in zip(marks, parts, strict=True))


_LAST_DT = b"\x02\xf0\x80"
_WHOLE_ANSWER = (_LAST_DT + bytes((0x32, ACK_DATA)), _LAST_DT + bytes((0x32, ACK)))
_ANSWER = struct.Struct(">HH5s2xH4x")  # TPKT, DT and an answer's first two bytes, PDU reference: the shortest answer
_answer_start = _ANSWER.unpack_from
_job_start = struct.Struct(">BBH3s4sH").pack  # TPKT, DT, a job's first four bytes, PDU reference


class Reader:
    """Bytes of one direction of a connection -> TPDUs; the fragments of a message are joined."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._message = bytearray()
        self.empty = True
        """Whether nothing was begun that more bytes would end."""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(TPDU code, the S7 message of a DT or the whole TPDU of another). Raises FramingError."""
        buffer = self._buffer
        buffer += data
        found: list[tuple[int, bytes]] = []
        at = 0
        while len(buffer) - at >= 4:
            version, _, length = _TPKT.unpack_from(buffer, at)
            if version != 3 or length < 7:
                raise FramingError(f"no TPKT header: {bytes(buffer[at : at + 4]).hex(' ')}")
            if len(buffer) - at < length:
                break
            self._tpdu(bytes(buffer[at + 4 : at + length]), found)
            at += length
        del buffer[:at]
        self.empty = not buffer and not self._message
        return found

    def _tpdu(self, tpdu: bytes, found: list[tuple[int, bytes]]) -> None:
        code = tpdu[1] & 0xF0
        if tpdu[0] >= len(tpdu):
            raise FramingError(f"a TPDU header of {tpdu[0]} bytes in {len(tpdu) - 1}")
        if code != DT:
            found.append((code, tpdu))
            return
        if tpdu[0] != 2:
            raise FramingError(f"a DT header of {tpdu[0]} bytes (class 0 has 2)")
        self._message += tpdu[3:]
        if len(self._message) > _LARGEST_MESSAGE:
            raise FramingError("a message without an end")
        if tpdu[2] & 0x80:
            found.append((DT, bytes(self._message)))
            self._message.clear()


class Connect(msgspec.Struct, frozen=True):
    """What a COTP connection request or confirmation says; a size of None: none was named (RFC 1006, 4: no limit)."""

    source: int
    destination: int
    size_code: int | None
    calling: bytes
    called: bytes

    def encode(self, code: int) -> bytes:
        """The TPDU: `code` is CR or CC."""
        fixed = struct.pack(">BHHB", code, self.destination, self.source, 0)
        if self.size_code is not None:
            fixed += bytes((_TPDU_SIZE, 1, self.size_code))
        for kind, tsap in ((_CALLING_TSAP, self.calling), (_CALLED_TSAP, self.called)):
            if tsap:
                fixed += bytes((kind, len(tsap))) + tsap
        return bytes((len(fixed),)) + fixed

    @property
    def tpdu_size(self) -> int:
        """The largest TPDU in bytes."""
        return _LARGEST_TPDU if self.size_code is None else min(1 << self.size_code, _LARGEST_TPDU)


def parse_connect(tpdu: bytes) -> Connect:
    """A CR or CC TPDU. Raises FramingError."""
    header = tpdu[: tpdu[0] + 1]
    if len(header) < 7:
        raise FramingError("a connection TPDU that is too short")
    destination, source, options = struct.unpack_from(">HHB", header, 2)
    if options & 0xF0:
        raise FramingError(f"COTP class {options >> 4}; S7 uses class 0")
    parameters: dict[int, bytes] = {}
    at = 7
    while at < len(header):
        if at + 2 > len(header) or at + 2 + header[at + 1] > len(header):
            raise FramingError("a connection parameter that is cut off")
        parameters[header[at]] = header[at + 2 : at + 2 + header[at + 1]]
        at += 2 + header[at + 1]
    size = parameters.get(_TPDU_SIZE)
    if size is not None and (len(size) != 1 or not 7 <= size[0] <= 13):
        raise FramingError(f"no TPDU size: {size.hex(' ')}")
    return Connect(
        source,
        destination,
        size[0] if size else None,
        parameters.get(_CALLING_TSAP, b""),
        parameters.get(_CALLED_TSAP, b""),
    )


class ClientCodec:
    """A client's `drivers.link.Codec`: requests are S7 messages, or (once, first) a COTP connection request.

    `pdu`: the bytes of a message; who sets communication up puts here what the PLC grants.
    """

    def __init__(self) -> None:
        self.pdu = DEFAULT_PDU
        self._reference = 0
        self.reset()

    def reset(self) -> None:
        """Forgets half a frame and the negotiated TPDU size: a new connection."""
        self._reader = Reader()
        self._tpdu_size = _LARGEST_TPDU
        self._connected = False

    def encode(self, request: bytes) -> tuple[int, bytes]:
        """(key, bytes to send); an S7 message gets the next PDU reference."""
        if request[0] != 0x32:
            return CONNECT, frame(request)
        self._reference = reference = self._reference % 0xFFFF + 1
        if len(request) <= self._tpdu_size - 3:  # in one piece, as nearly always
            return reference, _job_start(3, 0, 7 + len(request), _LAST_DT, request, reference) + request[6:]
        return reference, fragments(request[:4] + reference.to_bytes(2, "big") + request[6:], self._tpdu_size)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(key, answer): an S7 message, or the TPDU that answered the connection request. Raises FramingError."""
        if len(data) >= _ANSWER.size and self._reader.empty:
            version, size, start, reference = _answer_start(data)
            if version == 0x0300 and size == len(data) and start in _WHOLE_ANSWER:  # in one piece, as nearly always
                return [(reference, data[7:])]
        answers: list[tuple[int, bytes]] = []
        for code, content in self._reader.feed(data):
            if code == DT:
                kind, reference = _kind(content)
                if kind != JOB:  # a PLC's own jobs are for engineering tools
                    answers.append((reference, content))
            elif code in (CC, DR) and not self._connected:
                if code == CC:
                    self._tpdu_size = parse_connect(content).tpdu_size
                    self._connected = True
                answers.append((CONNECT, content))
            elif code == DR:
                raise FramingError("the PLC ended the connection")
            else:
                raise FramingError(f"an unexpected TPDU 0x{code:02X}")
        return answers


def connection_request(rack: int, slot: int) -> bytes:
    """The COTP connection request to a CPU: called TSAP 01 (programming device) and rack and slot in one byte."""
    return Connect(1, 0, 0x0A, b"\x01\x00", bytes((1, rack << 5 | slot))).encode(CR)


# S7 messages


class Message(msgspec.Struct, frozen=True, gc=False):
    """An S7 message in its parts; `error` is an answer's error class and code in one number."""

    kind: int
    reference: int
    parameters: bytes
    data: bytes
    error: int = 0

    @property
    def function(self) -> int:
        """The function of a job or its answer; -1 where it names none."""
        return self.parameters[0] if self.parameters else -1

    def encode(self) -> bytes:
        """The message's bytes."""
        header = _HEADER.pack(0x32, self.kind, 0, self.reference, len(self.parameters), len(self.data))
        error = self.error.to_bytes(2, "big") if self.kind in (ACK, ACK_DATA) else b""
        return header + error + self.parameters + self.data


def _kind(message: bytes) -> tuple[int, int]:
    """Kind and PDU reference. Raises FramingError where it is no S7 message."""
    if len(message) < 10 or message[0] != 0x32 or message[1] not in (JOB, ACK, ACK_DATA, USERDATA):
        raise FramingError(f"no S7 message: {message[:10].hex(' ')}")
    return message[1], message[4] << 8 | message[5]


def parse_message(message: bytes) -> Message:
    """Bytes -> message. Raises FramingError."""
    kind, reference = _kind(message)
    start, error = 10, 0
    if kind in (ACK, ACK_DATA):
        start, error = 12, int.from_bytes(message[10:12], "big")
    middle = start + (message[6] << 8 | message[7])
    end = middle + (message[8] << 8 | message[9])
    if end != len(message):
        raise FramingError(f"an S7 message of {len(message)} bytes that says {end}")
    return Message(kind, reference, message[start:middle], message[middle:end], error)


def setup_request(pdu: int, depth: int) -> bytes:
    """Setup communication: asks for messages of `pdu` bytes and `depth` jobs in parallel."""
    return Message(JOB, 0, _SETUP.pack(SETUP, 0, depth, depth, pdu), b"").encode()


def parse_setup(parameters: bytes) -> tuple[int, int]:
    """(bytes of a message, jobs in parallel) of a setup request or answer. Raises FramingError."""
    if len(parameters) != 8:
        raise FramingError("a setup of communication that is cut off")
    _, _, depth, _, pdu = _SETUP.unpack(parameters)
    return pdu, depth


class Area(msgspec.Struct, frozen=True, gc=False):
    """What an item addresses, in S7ANY form: `count` elements of a transport size from a bit address of an area."""

    area: int
    db: int
    bit: int
    count: int
    transport: int = BYTE

    def encode(self) -> bytes:
        """The 12 bytes of the item's address."""
        where = self.area << 24 | self.bit
        return _ADDRESS.pack(0x12, 0x0A, 0x10, self.transport, self.count, self.db, where)

    @property
    def size(self) -> int:
        """Bytes of data, 0 for a transport size that is not in `SIZES`."""
        return SIZES.get(self.transport, 0) * self.count


def read_request(items: Sequence[Area]) -> bytes:
    """The job that reads these items."""
    parameters = bytes((READ_VAR, len(items))) + b"".join([item.encode() for item in items])
    return Message(JOB, 0, parameters, b"").encode()


def write_request(items: Sequence[tuple[Area, bytes]]) -> bytes:
    """The job that writes these bytes; a BIT item has one byte, 0 or 1."""
    parameters = bytes((WRITE_VAR, len(items))) + b"".join([area.encode() for area, _ in items])
    return Message(JOB, 0, parameters, _values([(0, _data_size(area), data) for area, data in items])).encode()


def _data_size(area: Area) -> int:
    return DATA_BIT if area.transport == BIT else DATA_BYTE


def _values(items: Sequence[tuple[int, int, bytes]]) -> bytes:
    """(return code, transport size, data) -> a data part; odd data is filled up, except the last."""
    out = bytearray()
    for code, transport, data in items:
        if len(out) & 1:
            out.append(0)
        out += _ITEM.pack(code, transport, len(data) << 3 if transport in (DATA_BYTE, DATA_INTEGER) else len(data))
        out += data
    return bytes(out)


def parse_values(data: bytes, count: int, *, answer: bool) -> list[tuple[int, bytes]]:
    """A data part -> (return code, data) of `count` items. Raises FramingError.

    In an answer an item that failed has no data, whatever its length says (the C server of Snap7 says 4).
    """
    items: list[tuple[int, bytes]] = []
    at = 0
    for _ in range(count):
        at += at & 1
        if at + 4 > len(data):
            raise FramingError("items that are cut off")
        code, transport, size = _ITEM.unpack_from(data, at)
        if DATA_BIT <= transport <= DATA_INTEGER:
            size = size + 7 >> 3
        if answer and code != OK:
            size = 0
        at += 4
        if at + size > len(data):
            raise FramingError("an item that is cut off")
        items.append((code, data[at : at + size]))
        at += size
    if len(data) - at > 1:
        raise FramingError(f"{len(data) - at} bytes after the last item")
    return items


def _accepted(message: bytes, function: int) -> Message:
    """A job's answer. Raises JobRefused, FramingError where it answers something else."""
    answer = parse_message(message)
    if answer.error:
        raise JobRefused(answer.error)
    if answer.kind != ACK_DATA or answer.function != function:
        raise FramingError("an answer to another function")
    return answer


def parse_setup_answer(message: bytes) -> tuple[int, int]:
    """(negotiated bytes of a message, jobs in parallel). Raises JobRefused, FramingError."""
    return parse_setup(_accepted(message, SETUP).parameters)


def parse_read(message: bytes, count: int) -> list[tuple[int, bytes]]:
    """(return code, data) of each of `count` items read. Raises JobRefused, FramingError."""
    answer = _accepted(message, READ_VAR)
    if answer.parameters != bytes((READ_VAR, count)):
        raise FramingError("an answer of another number of items")
    return parse_values(answer.data, count, answer=True)


def read_answer_start(count: int, size: int) -> bytes:
    """Bytes 6 to 14 of the answer to a read of `count` items, if it is of `size` bytes and refuses nothing."""
    return struct.pack(">HHHBB", 2, size - READ_ANSWER, 0, READ_VAR, count)


def good_item(size: int) -> bytes:
    """The four bytes before the `size` bytes of an item that was read."""
    return _ITEM.pack(OK, DATA_BYTE, size << 3)


def parse_write(message: bytes, count: int) -> list[int]:
    """The return code of each of `count` items written. Raises JobRefused, FramingError."""
    answer = _accepted(message, WRITE_VAR)
    if answer.parameters != bytes((WRITE_VAR, count)) or len(answer.data) != count:
        raise FramingError("an answer of another number of items")
    return list(answer.data)


# the server's side of the same


def parse_items(parameters: bytes) -> list[Area | None]:
    """The addresses of a read or write job; None for one that is not S7ANY. Raises FramingError."""
    items: list[Area | None] = []
    at = 2
    for _ in range(parameters[1] if len(parameters) > 1 else 0):
        if at + 2 > len(parameters) or parameters[at] != 0x12 or at + 2 + parameters[at + 1] > len(parameters):
            raise FramingError("addresses that are cut off")
        end = at + 2 + parameters[at + 1]
        if end - at == ADDRESS and parameters[at + 2] == 0x10:
            _, _, _, transport, count, db, where = _ADDRESS.unpack_from(parameters, at)
            items.append(Area(where >> 24, db, where & 0xFFFFFF, count, transport))
        else:
            items.append(None)
        at = end + (end & 1)
    if at < len(parameters):
        raise FramingError("bytes after the last address")
    return items


def refusal(job: Message, error: int) -> bytes:
    """The answer that refuses a whole job, or a userdata request."""
    if job.kind == USERDATA:
        group, function = job.parameters[5:7].ljust(2, b"\0")
        parameters = bytes((0, 1, 0x12, 8, 0x12, 0x80 | group & 0x0F, function, 0, 0, 0)) + error.to_bytes(2, "big")
        return Message(USERDATA, job.reference, parameters, _ITEM.pack(NO_OBJECT, 0, 0)).encode()
    return Message(ACK, job.reference, b"", b"", error).encode()


def setup_answer(job: Message, pdu: int, depth: int) -> bytes:
    """The answer that grants messages of `pdu` bytes and `depth` jobs in parallel."""
    return Message(ACK_DATA, job.reference, _SETUP.pack(SETUP, 0, depth, depth, pdu), b"").encode()


def read_answer(job: Message, items: Sequence[tuple[Area | None, int, bytes]]) -> bytes:
    """The answer to a read: (what was asked for, return code, data) an item."""
    values = [(code, _data_size(area) if area and code == OK else 0, data) for area, code, data in items]
    return Message(ACK_DATA, job.reference, bytes((READ_VAR, len(items))), _values(values)).encode()


def write_answer(job: Message, codes: Sequence[int]) -> bytes:
    """The answer to a write: a return code an item."""
    return Message(ACK_DATA, job.reference, bytes((WRITE_VAR, len(codes))), bytes(codes)).encode()
