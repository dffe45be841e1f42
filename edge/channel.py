"""Packets between the processes: non-blocking SEQPACKET sockets; they keep message bounds, no sender ever waits."""

import socket

MAX_PACKET = 180_000
"""A larger packet does not pass a SEQPACKET socket with the buffers below."""

_BUFFER = 4 << 20
_DRAIN = 512


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, both non-blocking, with room for some thousand frames each way."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    return ends


def send(end: socket.socket, packet: bytes) -> bool:
    """Sends one packet; False where it is too large, or the other end is full or gone: the caller decides what then."""
    if len(packet) > MAX_PACKET:
        return False
    try:
        end.send(packet)
    except OSError:
        return False
    return True


def drain(end: socket.socket, limit: int = _DRAIN) -> list[bytes]:
    """The packets that have come, at most `limit`; never waits."""
    packets: list[bytes] = []
    while len(packets) < limit:
        try:
            packet = end.recv(MAX_PACKET)
        except OSError:
            break
        if not packet:
            break
        packets.append(packet)
    return packets
