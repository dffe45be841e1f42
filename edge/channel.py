"""Packets between the processes: non-blocking SEQPACKET sockets; they keep message bounds, no sender ever waits.

Of a packet that is too large for a socket the rest goes through memory: a file without a name (memfd_create(2)), whose
descriptor the first part carries. It arrives whole or not at all, as any other.
"""

import array
import os
import socket
import sys
import threading
from fcntl import ioctl
from termios import FIONREAD

MAX_INLINE = 180_000
"""A larger packet does not pass a SEQPACKET socket with the buffers that every user may have."""

MAX_PACKET = 64 << 20
"""A larger one is a fault of edge: nothing of this size is ever waited for."""

_FIRST_PART = 60_000
"""Of a large packet: so much that a reader who does not read has few of them waiting."""

_BUFFER = 4 << 20
_DRAIN = 512
_NO_BYTES = bytes(4)
_DESCRIPTORS = socket.CMSG_SPACE(array.array("i").itemsize)


class _Room(threading.local):
    """Where a packet is received: one for each thread, for while one waits for the interpreter another receives."""

    def __init__(self) -> None:
        self.buffer = bytearray(MAX_INLINE)
        self.seen = memoryview(self.buffer)


_room = _Room()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, both non-blocking, with room for some thousand frames each way."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    return ends


def send(end: socket.socket, packet: bytes) -> bool:
    """Sends one packet; False where the other end is full or gone: the caller decides what then.

    Raises ValueError for one that is larger than MAX_PACKET.
    """
    try:
        if len(packet) <= MAX_INLINE:
            end.send(packet)
        else:
            _send_large(end, packet)
    except OSError:
        return False
    return True


def _send_large(end: socket.socket, packet: bytes) -> None:
    if len(packet) > MAX_PACKET:
        raise ValueError(f"a packet of {len(packet)} bytes, more than {MAX_PACKET}")
    parts = memoryview(packet)
    memory = os.memfd_create("edge-packet", os.MFD_CLOEXEC)
    try:
        os.write(memory, parts[_FIRST_PART:])
        socket.send_fds(end, [parts[:_FIRST_PART]], [memory])
    finally:
        os.close(memory)


def drain(end: socket.socket, limit: int = _DRAIN) -> list[bytes]:
    """The packets that have come, at most `limit`; never waits. What comes meanwhile is left for the next time."""
    packets: list[bytes] = []
    buffer, seen = _room.buffer, _room.seen
    try:
        unread = _unread(end)
        while unread > 0 and len(packets) < limit:
            if unread < _FIRST_PART:  # then none of them is large
                size = end.recv_into(buffer)
                packets.append(bytes(seen[:size]))
            else:
                size, carried, _, _ = end.recvmsg_into((buffer,), _DESCRIPTORS)
                packet = bytes(seen[:size])
                packets.append(packet + _from_memory(carried) if carried else packet)
            unread -= size
    except OSError:
        pass
    return packets


def _unread(end: socket.socket) -> int:
    """How many bytes wait at this end, in all packets together (unix(7), SIOCINQ): no exception says that none does."""
    return int.from_bytes(ioctl(end, FIONREAD, _NO_BYTES), sys.byteorder)


def _from_memory(carried: list[tuple[int, int, bytes]]) -> bytes:
    (memory,) = array.array("i", carried[0][2])
    try:
        return os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)
