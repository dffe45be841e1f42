"""Packets between processes: whole, in order, of any size; a sender never waits."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge import channel
from edge.channel import MAX_INLINE, MAX_PACKET

Ends = tuple[channel.socket.socket, channel.socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = channel.pair()
    yield made
    for end in made:
        end.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("size", [1, 1000, MAX_INLINE, MAX_INLINE + 1, 1_000_000])
def test_a_packet_of_any_size_arrives_whole_and_in_its_turn(ends: Ends, size: int) -> None:
    one, other = ends
    before = descriptors()
    packets = [b"first", os.urandom(size), b"last"]
    assert all(channel.send(one, packet) for packet in packets)
    assert channel.drain(other) == packets
    assert descriptors() == before


@pytest.mark.parametrize("size", [10, MAX_INLINE + 1])
def test_a_reader_who_does_not_read_makes_nobody_wait(ends: Ends, size: int) -> None:
    one, other = ends
    before, sent, packet = descriptors(), 0, bytes(size)
    while channel.send(one, packet):
        sent += 1
    assert sent > 10 and descriptors() == before
    got = []
    while came := channel.drain(other, 7):
        got += came
    assert got == [packet] * sent
    assert channel.send(one, packet)


def test_a_peer_that_is_gone_is_no_error(ends: Ends) -> None:
    one, other = ends
    other.close()
    assert not channel.send(one, b"x")
    assert not channel.send(one, bytes(MAX_INLINE + 1))
    assert channel.drain(one) == []


def test_a_packet_beyond_all_sense_is_a_fault_at_once(ends: Ends) -> None:
    with pytest.raises(ValueError, match="more than"):
        channel.send(ends[0], bytes(MAX_PACKET + 1))


def test_two_threads_may_receive_at_once() -> None:
    """As in the recorder: each gets the packets of its own socket, whatever the other receives meanwhile."""
    packets = [[bytes([thread]) * (1 + number % 700) for number in range(3000)] for thread in range(2)]

    def receive(thread: int) -> list[bytes]:
        one, other = channel.pair()
        found: list[bytes] = []
        for at in range(0, len(packets[thread]), 100):
            assert all(channel.send(one, packet) for packet in packets[thread][at : at + 100])
            found += channel.drain(other)
        one.close()
        other.close()
        return found

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(receive, range(2))) == packets
    finally:
        sys.setswitchinterval(switch)
