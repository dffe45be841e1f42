"""The owner of a connection, against real sockets on loopback: turns, deadlines, losses and what is said of them."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from random import Random

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from drivers import depth
from drivers.driver import DeviceError
from drivers.link import Backoff, FramingError, Link, shared
from drivers.transport import Tcp
from drivers.value import (
    BAD_COMMUNICATION,
    BAD_CONNECTION_CLOSED,
    BAD_CONNECTION_REJECTED,
    BAD_NO_COMMUNICATION,
    BAD_NOT_CONNECTED,
    BAD_TIMEOUT,
)
from tests.listening import Peer, listening

LONG_S = 30.0
SHORT_S = 0.15
HEAD = struct.Struct(">HH")


class Letters:
    """The smallest protocol: a key, a length, the payload; a length over 1000 is none of it."""

    def __init__(self) -> None:
        self.key = 0
        self.rest = b""

    def encode(self, request: bytes) -> tuple[int, bytes]:
        self.key += 1
        return self.key, HEAD.pack(self.key, len(request)) + request

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        self.rest += data
        found: list[tuple[int, bytes]] = []
        while len(self.rest) >= 4:
            key, size = HEAD.unpack_from(self.rest)
            if size > 1000:
                raise FramingError(f"a letter of {size} bytes")
            if len(self.rest) < 4 + size:
                break
            found.append((key, self.rest[4 : 4 + size]))
            self.rest = self.rest[4 + size :]
        return found

    def reset(self) -> None:
        self.rest = b""


async def letter(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    key, size = HEAD.unpack(await reader.readexactly(4))
    return key, await reader.readexactly(size)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        key, payload = await letter(reader)
        writer.write(HEAD.pack(key, len(payload)) + payload)


async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


@contextlib.asynccontextmanager
async def linked(peer: Peer, *, timeout_s: float = LONG_S, depth: int = 1) -> AsyncIterator[Link]:
    async with listening(peer) as port:
        link = Link(Tcp("127.0.0.1", port), Letters(), timeout_s=timeout_s, depth=depth)
        await link.connect()
        try:
            yield link
        finally:
            await link.close()


async def refusal(doing: Awaitable[object]) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        await doing
    return caught.value


async def test_requests_get_their_own_answers() -> None:
    async with linked(echo) as link:
        assert link.up
        asked = [f"letter {number}".encode() for number in range(20)]
        assert await asyncio.gather(*map(link.request, asked)) == asked
        assert link.stale == 0


@pytest.mark.parametrize("depth", [1, 2, 5])
async def test_no_more_than_depth_requests_are_on_their_way(depth: int) -> None:
    most = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        waiting: list[int] = []
        for _ in range(20):
            waiting.append((await letter(reader))[0])
            most = max(most, len(waiting))
            if len(waiting) == depth:
                writer.write(b"".join(HEAD.pack(key, 0) for key in reversed(waiting)))  # in another order, too
                waiting.clear()

    async with linked(counting, depth=depth) as link:
        await asyncio.gather(*(link.request(b"x") for _ in range(20)))
    assert most == depth


async def test_answers_that_nobody_waits_for_are_dropped_and_counted() -> None:
    async def stale_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key, payload = await letter(reader)
        writer.write(HEAD.pack(999, 3) + b"old" + HEAD.pack(key, len(payload)) + payload + HEAD.pack(key, 0))
        await echo(reader, writer)

    async with linked(stale_first) as link:
        assert await link.request(b"right") == b"right"
        assert await link.request(b"next") == b"next"
        assert link.stale == 2


async def test_an_answer_byte_by_byte() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key, payload = await letter(reader)
        for byte in HEAD.pack(key, len(payload)) + payload:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)

    async with linked(slowly) as link:
        assert await link.request(b"one by one") == b"one by one"


async def test_a_peer_that_never_answers_is_given_up_at_the_deadline() -> None:
    async with linked(mute, timeout_s=SHORT_S) as link:
        error = await refusal(link.request(b"?"))
        assert error.status == BAD_TIMEOUT
        assert error.text == f"{link.place} did not answer within {SHORT_S:g} s"
        assert "timeout" in error.hint
        assert not link.up


async def test_answers_to_something_else_are_spoken_of_at_the_deadline() -> None:
    async def zero(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await letter(reader)
        writer.write(HEAD.pack(0, 0) * 2)
        await mute(reader, writer)

    async with linked(zero, timeout_s=SHORT_S) as link:
        error = await refusal(link.request(b"?"))
        assert error.text.endswith(f"within {SHORT_S:g} s; it sent 2 answers to what was not asked")


async def test_an_answer_that_came_while_the_loop_was_held_up_is_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = Link(Tcp("127.0.0.1", server.getsockname()[1]), Letters(), timeout_s=SHORT_S)
        await link.connect()
        peer, _ = server.accept()
        with peer:
            asked = asyncio.create_task(link.request(b"x"))
            await asyncio.sleep(0)
            peer.sendall(peer.recv(100))
            time.sleep(SHORT_S * 1.5)  # noqa: ASYNC251 - the loop stands still past the deadline
            assert await asked == b"x"
            await link.close()


async def test_a_broken_deadline_fails_everybody_who_waits() -> None:
    async with linked(mute, timeout_s=SHORT_S, depth=2) as link:
        errors = await asyncio.gather(*(link.request(b"?") for _ in range(5)), return_exceptions=True)
        assert all(isinstance(error, DeviceError) and error.status == BAD_TIMEOUT for error in errors)


async def test_the_next_connection_knows_nothing_of_the_last_one() -> None:
    async def half_an_answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key, payload = await letter(reader)
        if payload == b"first":
            writer.write(HEAD.pack(key, 100) + b"half")
            await mute(reader, writer)
        writer.write(HEAD.pack(key, len(payload)) + payload)

    async with linked(half_an_answer_once, timeout_s=SHORT_S) as link:
        await refusal(link.request(b"first"))
        link.timeout_s = LONG_S
        await link.connect()
        assert await link.request(b"second") == b"second"


async def test_the_peers_close_fails_the_request_in_flight_at_once() -> None:
    async def closing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await letter(reader)

    async with linked(closing) as link:
        error = await refusal(link.request(b"?"))
        assert error.status == BAD_CONNECTION_CLOSED
        assert error.text == f"the connection to {link.place} was closed by the device"
        assert "only one connection" in error.hint
        assert not link.up
        later = await refusal(link.request(b"?"))
        assert later.text == error.text


async def test_a_reset_by_the_peer() -> None:
    async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await letter(reader)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with linked(resetting) as link:
        error = await refusal(link.request(b"?"))
        assert "closed by the device" in error.text


async def test_what_is_not_of_the_protocol_ends_the_connection() -> None:
    async def web_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await letter(reader)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await mute(reader, writer)

    async with linked(web_server) as link:
        error = await refusal(link.request(b"?"))
        assert error.status == BAD_COMMUNICATION
        assert link.place in error.text and "a letter of 21584 bytes" in error.text
        assert "right port" in error.hint
        assert not link.up


async def test_a_caller_who_goes_away_leaves_the_stream_in_step() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key, payload = await letter(reader)
        writer.write(HEAD.pack(key, len(payload)) + payload[:2])
        arrived.set()
        await go_on.wait()
        writer.write(payload[2:])
        await echo(reader, writer)

    async with linked(held) as link:
        first = asyncio.create_task(link.request(b"cancelled"))
        await arrived.wait()
        second = asyncio.create_task(link.request(b"after it"))
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled() and not second.done()
        go_on.set()
        assert await second == b"after it"
        assert link.up


async def test_a_caller_who_goes_away_while_waiting_for_a_turn() -> None:
    go_on = asyncio.Event()

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await echo(reader, writer)

    async with linked(held) as link:
        tasks = [asyncio.create_task(link.request(bytes((number,)))) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        go_on.set()
        assert (await tasks[0], await tasks[2]) == (b"\0", b"\2")


async def test_connecting_is_one_attempt_for_all() -> None:
    made = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        await echo(reader, writer)

    async with listening(counting) as port:
        link = Link(Tcp("127.0.0.1", port), Letters(), timeout_s=LONG_S)
        await asyncio.gather(*(link.connect() for _ in range(10)))
        await link.connect()
        assert await link.request(b"x") == b"x"
        assert made == 1
        await link.close()


async def test_the_handshake_comes_before_every_other_request() -> None:
    seen: list[bytes] = []

    async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            key, payload = await letter(reader)
            seen.append(payload)
            writer.write(HEAD.pack(key, 0))

    async def greet(link: Link) -> None:
        assert not link.up
        early.append(asyncio.create_task(refusal(link.request(b"too early"))))
        await link.request(b"hello")
        await link.request(b"are you there")

    early: list[asyncio.Task[DeviceError]] = []
    async with listening(noting) as port:
        link = Link(Tcp("127.0.0.1", port), Letters(), timeout_s=LONG_S)
        await asyncio.gather(link.connect(greet), link.connect(greet))
        await link.request(b"work")
        assert (await early[0]).status == BAD_NOT_CONNECTED
        assert seen == [b"hello", b"are you there", b"work"]
        await link.close()


async def test_a_handshake_that_fails_leaves_no_connection() -> None:
    async def refused(link: Link) -> None:
        await link.request(b"hello")
        raise DeviceError("the rack is wrong", "look at it", status=BAD_NO_COMMUNICATION)

    async with listening(echo) as port:
        link = Link(Tcp("127.0.0.1", port), Letters(), timeout_s=LONG_S)
        error = await refusal(link.connect(refused))
        assert error.text == "the rack is wrong"
        assert not link.up
        await link.connect()
        assert await link.request(b"x") == b"x"
        await link.close()


async def test_a_handshake_that_is_not_answered_breaks_the_deadline_of_connecting() -> None:
    async def greet(link: Link) -> None:
        await link.request(b"hello", timeout_s=LONG_S)

    async with listening(mute) as port:
        link = Link(Tcp("127.0.0.1", port), Letters(), timeout_s=SHORT_S)
        error = await refusal(link.connect(greet))
        assert error.status == BAD_TIMEOUT
        assert error.text == f"127.0.0.1:{port} does not answer within {SHORT_S:g} s"


async def test_a_caller_who_goes_away_does_not_end_the_attempt_of_the_others() -> None:
    async with listening(echo) as port:
        link = Link(Tcp("127.0.0.1", port), Letters(), timeout_s=LONG_S)
        first, second = asyncio.create_task(link.connect()), asyncio.create_task(link.connect())
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert link.up
        await link.close()


async def test_closing_ends_an_attempt_and_fails_what_waits() -> None:
    async def greet(link: Link) -> None:
        await link.request(b"hello")

    async with listening(mute) as port:
        link = Link(Tcp("127.0.0.1", port), Letters(), timeout_s=LONG_S)
        attempt = asyncio.create_task(link.connect(greet))
        await asyncio.sleep(0)
        await link.close()
        assert (await refusal(attempt)).status == BAD_NOT_CONNECTED
        await link.connect()
        waiting = asyncio.create_task(link.request(b"?"))
        await asyncio.sleep(0)
        await link.close()
        assert (await refusal(waiting)).text == f"the connection to {link.place} was closed"
        await link.close()


async def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        error = await refusal(Link(Tcp("127.0.0.1", port), Letters(), timeout_s=LONG_S).connect())
    assert error.text == f"127.0.0.1:{port} refuses the connection"
    assert error.status == BAD_CONNECTION_REJECTED and "port" in error.hint


async def test_a_peer_whose_connections_are_all_taken() -> None:
    """A device that takes no further connection does not even answer; the kernel's full backlog is such a one."""
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        link = Link(Tcp("127.0.0.1", full.getsockname()[1]), Letters(), timeout_s=SHORT_S)
        error = await refusal(link.connect())
    assert error.status == BAD_TIMEOUT and "does not answer" in error.text


async def test_a_name_that_no_machine_has() -> None:
    error = await refusal(Link(Tcp("plc.invalid", 502), Letters(), timeout_s=LONG_S).connect())
    assert error.text == "no machine is known as `plc.invalid`"


async def test_the_socket_has_no_delay_and_keeps_itself_alive() -> None:
    async with linked(echo) as link:
        assert link._wire is not None
        connection = link._wire.transport.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10


# Finding the depth out


class Pipelined:
    """A peer that tells what it was sent in one piece, and does with several at once what a test wants."""

    def __init__(self, several: Callable[[list[tuple[int, bytes]]], bytes | None]) -> None:
        self.several = several
        self.most = self.connections = self.together = 0
        self.writes: list[int] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        letters = Letters()
        while data := await reader.read(65536):
            found = letters.feed(data)
            self.most = max(self.most, len(found))
            self.writes += [len(found) for _, payload in found if payload == b"write"]
            if len(found) == 1:
                writer.write(data)
            elif (answer := self.several(found)) is not None:
                self.together += 1
                writer.write(answer)
            else:
                return


def echoed(found: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(HEAD.pack(key, len(payload)) + payload for key, payload in found)


ASKED = [f"letter {number}".encode() for number in range(16)]


@contextlib.asynccontextmanager
async def probing(peer: Pipelined, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Link]:
    """A link that finds its depth out, on a machine where any depth pays."""
    monkeypatch.setattr(depth, "GAIN", 0.0)
    async with listening(peer) as port:
        link = Link(Tcp("127.0.0.1", port), Letters(), timeout_s=LONG_S, depth="auto")
        await link.connect()
        try:
            yield link
        finally:
            await link.close()


async def test_a_peer_that_answers_everything_is_asked_ever_more_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Pipelined(echoed)
    async with probing(peer, monkeypatch) as link:
        for _ in range(depth.ROUNDS * 5 + 1):
            assert await link.requests(ASKED) == ASKED
        assert link.depth.proven == 16 and peer.most == 16
        await link.close()
        await link.connect()
        assert await link.requests(ASKED) == ASKED
        assert (link.depth.proven, peer.connections) == (16, 2)


def first_only(found: list[tuple[int, bytes]]) -> bytes:
    return echoed(found[:1])


def last_key_for_all(found: list[tuple[int, bytes]]) -> bytes:
    return echoed([(found[-1][0], payload) for _, payload in found])


def hangs_up(_found: list[tuple[int, bytes]]) -> None:
    return None


def garbles(_found: list[tuple[int, bytes]]) -> bytes:
    return b"\xff" * 8


@pytest.mark.parametrize(
    ("several", "connections"), [(first_only, 1), (last_key_for_all, 1), (hangs_up, 2), (garbles, 2)]
)
async def test_a_peer_that_stands_one_request_only_is_found_out_without_harm(
    several: Callable[[list[tuple[int, bytes]]], bytes | None], connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = Pipelined(several)
    async with probing(peer, monkeypatch) as link:
        for _ in range(depth.ROUNDS * 4):
            assert await link.requests(ASKED) == ASKED
        assert (link.depth.proven, link.depth.trial) == (1, 1)
        assert (peer.most, peer.connections) == (2, connections)
        assert peer.together <= 1


async def test_no_write_is_part_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Pipelined(echoed)
    async with probing(peer, monkeypatch) as link:
        for _ in range(depth.ROUNDS * 3 + 1):
            await link.requests(ASKED)
        assert (link.depth.proven, link.depth.trial) == (4, 8)
        reads = [asyncio.create_task(link.requests(ASKED)) for _ in range(4)]
        writes = [asyncio.create_task(link.request(b"write", write=True)) for _ in range(20)]
        assert [await one for one in reads] == [ASKED] * 4
        assert [await one for one in writes] == [b"write"] * 20
        assert max(peer.writes) <= 4


async def test_a_trial_that_ends_the_connection_repeats_no_write_that_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Pipelined(hangs_up)
    async with probing(peer, monkeypatch) as link:
        for _ in range(depth.ROUNDS):
            await link.requests(ASKED)
        link.depth.begin(0.0)
        assert link.depth.trying
        read = asyncio.create_task(link.requests(ASKED))
        await asyncio.sleep(0)
        write = asyncio.create_task(link.request(b"write", write=True))
        assert await read == ASKED and await write == b"write"
        assert peer.writes == [1] and peer.connections == 2


async def test_a_write_that_is_not_answered_during_a_trial_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    async def no_writes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            key, payload = await letter(reader)
            seen.append(payload)
            if payload != b"write":
                writer.write(HEAD.pack(key, len(payload)) + payload)

    monkeypatch.setattr(depth, "GAIN", 0.0)
    async with listening(no_writes) as port:
        link = Link(Tcp("127.0.0.1", port), Letters(), timeout_s=LONG_S, depth="auto")
        await link.connect()
        for _ in range(depth.ROUNDS):
            await link.requests(ASKED)
        link.depth.begin(0.0)
        assert link.depth.trying
        error = await refusal(link.request(b"write", timeout_s=SHORT_S, write=True))
        assert error.text == f"{link.place} did not answer within {SHORT_S:g} s"
        assert seen.count(b"write") == 1
        await link.close()


async def test_the_least_time_between_an_answer_and_the_next_request() -> None:
    loop = asyncio.get_running_loop()
    between: list[float] = []

    async def timing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered_s = loop.time()
        while True:
            key, payload = await letter(reader)
            between.append(loop.time() - answered_s)
            writer.write(HEAD.pack(key, len(payload)) + payload)
            answered_s = loop.time()

    async with linked(timing) as link:
        link.delay_s = 0.02
        assert await link.requests(ASKED[:4]) == ASKED[:4]
        assert len(between) == 4 and min(between[1:]) >= 0.019


async def test_of_several_devices_one_that_is_silent_does_not_end_the_others_connection() -> None:
    async def gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            key, payload = await letter(reader)
            if payload != b"silent one":
                writer.write(HEAD.pack(key, len(payload)) + payload)

    async with linked(gateway, timeout_s=SHORT_S) as link:
        link.join("one")
        link.join("two")
        assert await link.request(b"x") == b"x"
        asked = asyncio.create_task(refusal(link.request(b"silent one")))
        await asyncio.sleep(0)
        assert await link.request(b"y", timeout_s=LONG_S) == b"y"
        assert (await asked).status == BAD_TIMEOUT
        assert link.up


async def test_a_connection_with_several_users_that_is_dead_is_given_up() -> None:
    async with linked(mute, timeout_s=SHORT_S) as link:
        link.join("one")
        link.join("two")
        await refusal(link.request(b"?"))
        await refusal(link.request(b"?"))
        assert not link.up


async def test_the_last_user_closes_the_connection() -> None:
    async with linked(echo) as link:
        link.join("one")
        link.join("two")
        await link.leave("one")
        assert link.up
        await link.leave("two")
        assert not link.up


def test_shared_makes_one_link_for_a_key() -> None:
    connections: dict[str, object] = {}
    made = [shared(connections, key, Tcp("h", 1), Letters, timeout_s=1) for key in ("a", "b", "a")]
    assert made[0] is made[2] and made[0] is not made[1]


@given(st.floats(0.01, 5), st.floats(0.01, 60), st.integers())
def test_delays_grow_to_the_cap_jittered_and_are_the_same_for_a_seed(first_s: float, cap_s: float, seed: int) -> None:
    backoff, again = Backoff(first_s, cap_s, Random(seed)), Backoff(first_s, cap_s, Random(seed))
    delays = [backoff.next() for _ in range(40)]
    assert delays == [again.next() for _ in range(40)]
    for number, delay in enumerate(delays):
        full = min(first_s * 2**number, cap_s)
        assert full / 2 * 0.999 <= delay <= full * 1.001
    backoff.reset()
    assert backoff.next() <= first_s


def test_backoffs_of_different_seeds_part() -> None:
    assert len({Backoff(1, 10, Random(seed)).next() for seed in range(20)}) == 20


@pytest.mark.parametrize(
    "case",
    [
        test_requests_get_their_own_answers,
        test_answers_that_nobody_waits_for_are_dropped_and_counted,
        test_a_peer_that_never_answers_is_given_up_at_the_deadline,
        test_an_answer_that_came_while_the_loop_was_held_up_is_in_time,
        test_the_peers_close_fails_the_request_in_flight_at_once,
        test_a_reset_by_the_peer,
        test_what_is_not_of_the_protocol_ends_the_connection,
        test_a_caller_who_goes_away_leaves_the_stream_in_step,
        test_closing_ends_an_attempt_and_fails_what_waits,
        test_a_port_where_nobody_listens,
        test_a_peer_whose_connections_are_all_taken,
        test_a_name_that_no_machine_has,
        test_the_socket_has_no_delay_and_keeps_itself_alive,
    ],
)
def test_the_same_on_uvloop(case: Callable[[], Coroutine[None, None, None]]) -> None:
    """The loop on which the devices are read."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(case())
