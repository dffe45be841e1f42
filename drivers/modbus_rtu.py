"""Modbus RTU without a line: frames with a check sum and no transaction identifier (Serial Line Protocol 1.02, 2.5.1).

A payload here is as in `modbus_codec`: the unit identifier, the function code, its data.
"""

from drivers.modbus_codec import FAILED, READ_DISCRETE, READ_INPUT

MOST = 512
"""So many bytes are kept, at most, of what has come since the last request: two of the longest frames."""
MOST_EXACT_BAUD = 19200
LEAST_SILENCE_S = 0.00175


def _row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0xA001 if byte & 1 else 0)
    return byte


_ROWS = tuple(_row(byte) for byte in range(256))


def crc(data: bytes) -> bytes:
    """The check sum of a frame, as it is sent (Serial Line Protocol, 6.2.2)."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _ROWS[(value ^ byte) & 0xFF]
    return value.to_bytes(2, "little")


def frame(payload: bytes) -> bytes:
    """A payload with its check sum."""
    return payload + crc(payload)


def silence_s(baud: int, bits: int) -> float:
    """The silence between two frames (2.5.1.1): 3.5 characters of so many bits, of a fixed length on fast lines."""
    return LEAST_SILENCE_S if baud > MOST_EXACT_BAUD else 3.5 * bits / baud


class RtuCodec:
    """A client's `drivers.link.Codec` for one request at a time: the answer is found by what was asked.

    Everything else on the line (an answer to what is no longer waited for, an adapter's echo, noise) is skipped.
    `noise` counts its bytes, for the last two requests. Nothing here is a framing error: a frame that is not understood
    counts as not sent (2.5.1.1), and the deadline decides.
    """

    def __init__(self) -> None:
        self._key = 0
        self._last = b""
        self.noise: dict[bytes, int] = {}
        self.reset()

    def reset(self) -> None:
        """Forgets what has come."""
        self._request = self._come = b""

    def encode(self, request: bytes) -> tuple[int, bytes]:
        """(key, frame) of a payload."""
        self._key = self._key + 1 & 0xFFFF
        self.noise = {self._last: self.noise.get(self._last, 0), request: 0}
        self._request, self._last, self._come = request, request, b""
        return self._key, frame(request)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(key, payload) of the answer, when it is there."""
        if not self._request:
            return []
        self.noise[self._request] += len(data)
        come = self._come = (self._come + data)[-MOST:]
        for start in range(len(come) - 4):
            size = _size(self._request, come, start)
            end = start + size
            if size and end <= len(come) and crc(come[start : end - 2]) == come[end - 2 : end]:
                self.noise[self._request] -= size
                self._request = self._come = b""
                return [(self._key, come[start : end - 2])]
        return []


def _size(request: bytes, come: bytes, start: int) -> int:
    """How long a frame is that begins here and answers the request; 0 where none does."""
    unit, function = request[0], request[1]
    if come[start] != unit:
        return 0
    if come[start + 1] == function | FAILED:
        return 5
    if come[start + 1] != function:
        return 0
    if function > READ_INPUT:
        return 8 if come[start + 2 : start + 4] == request[2:4] else 0
    count = request[4] << 8 | request[5]
    data = (count + 7) // 8 if function <= READ_DISCRETE else count * 2
    return 5 + come[start + 2] if come[start + 2] in (0, data) else 0
