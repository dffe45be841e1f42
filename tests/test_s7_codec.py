"""S7 frames and messages of both roles, without a socket: third parties' bytes, addresses, values, and any bytes."""

import contextlib
import itertools
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import s7_codec as s7
from drivers.blocks import Field, unpacker
from drivers.driver import AddressError, Point
from drivers.link import FramingError
from drivers.s7_address import NoString, Place, decode_string, encode, place
from drivers.s7_codec import ClientCodec, JobRefused
from drivers.value import TYPES, parse_type
from hil.s7_plc import Memory, Session

Conversation = list[tuple[str, bytes]]


def golden(name: str) -> Conversation:
    """Who said what, one TCP payload after the other, between two third parties."""
    lines = (Path(__file__).parent / "golden" / name).read_text().splitlines()
    return [(line["from"], bytes.fromhex(line["hex"])) for line in map(json.loads, lines)]


NODES7 = golden("s7_nodes7_snap7.jsonl")
"""nodes7 and the C server of Snap7: many items in a job, a data block that is missing."""
SNAP7 = golden("s7_snap7_snap7.jsonl")
"""The C client and the C server of Snap7: bits, words, reals, one item a job and many, errors."""
ASKED = [data for who, data in NODES7 if who == "client"]
ANSWERED = [data for who, data in NODES7 if who == "server"]


def nodes7_memory() -> Memory:
    """What the C server of Snap7 held when nodes7 asked: the words of DB1 count up."""
    areas = {(area, 0): bytearray(64) for area in (s7.INPUTS, s7.OUTPUTS, s7.MEMORY)}
    areas[s7.DATA_BLOCK, 1] = bytearray(struct.pack(">200H", *range(200)))
    areas[s7.DATA_BLOCK, 2] = bytearray(32768)
    return Memory(areas)


def snap7_memory() -> Memory:
    """What it held when its own client asked: nothing."""
    areas = {(area, 0): bytearray(32) for area in (s7.INPUTS, s7.OUTPUTS, s7.MEMORY)}
    return Memory(areas | {(s7.DATA_BLOCK, 1): bytearray(64), (s7.DATA_BLOCK, 7): bytearray(500)})


def session(memory: Memory, pdu: int = 960) -> Session:
    return Session(memory, rack=0, slot=1, pdu=pdu)


def messages(data: bytes) -> list[tuple[int, bytes]]:
    return s7.Reader().feed(data)


def meaning(data: bytes) -> list[object]:
    """Answers without what the standard leaves open: fill bytes, and the length of an item that failed."""
    found: list[object] = []
    for code, content in messages(data):
        if code == s7.DT and (answer := s7.parse_message(content)).function == s7.READ_VAR:
            found.append((answer.reference, s7.parse_read(content, answer.parameters[1])))
        else:
            found.append(content)
    return found


def value_of(at: Place, raw: bytes) -> object:
    if at.type.kind == "string":
        return decode_string(at.type, raw)
    return unpacker([Field(at.type, tuple(range(at.size)), at.bit)])(raw)[0]


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize(("conversation", "memory"), [(NODES7, nodes7_memory), (SNAP7, snap7_memory)])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 100_000])
def test_server_answers_as_snap7_did(conversation: Conversation, memory: Callable[[], Memory], size: int) -> None:
    asked, answered = (b"".join(data for who, data in conversation if who == side) for side in ("client", "server"))
    peer = session(memory())
    answers = b"".join(peer.feed(piece) for piece in pieces(asked, size))
    assert meaning(answers) == meaning(answered)
    assert len(answers) == len(answered)


def test_server_waits_for_the_rest_of_a_job() -> None:
    for cut in range(1, len(ASKED[2])):
        peer = session(nodes7_memory())
        peer.feed(b"".join(ASKED[:2]))
        assert peer.feed(ASKED[2][:cut]) == b""
        assert meaning(peer.feed(ASKED[2][cut:])) == meaning(ANSWERED[2])


def test_client_connects_as_nodes7_did() -> None:
    assert s7.Connect(2, 0, 0x0A, b"\1\0", b"\1\1").encode(s7.CR) == ASKED[0][4:]
    assert s7.parse_connect(s7.connection_request(0, 1)) == s7.Connect(1, 0, 0x0A, b"\1\0", b"\1\1")
    assert s7.parse_connect(s7.connection_request(2, 3)).called == b"\1\x43"
    assert s7.setup_request(960, 8) == ASKED[1][7:]


@pytest.mark.parametrize("raw", [data for who, data in NODES7[4:] + SNAP7[4:] if who == "client"])
def test_client_asks_as_others_did(raw: bytes) -> None:
    job = s7.parse_message(raw[7:])
    items = [item for item in s7.parse_items(job.parameters) if item is not None]
    if job.function == s7.READ_VAR:
        assert s7.parse_message(s7.read_request(items)).parameters == job.parameters
        return
    values = [data for _, data in s7.parse_values(job.data, len(items), answer=False)]
    again = s7.parse_message(s7.write_request(list(zip(items, values, strict=True))))
    assert again.parameters == job.parameters
    assert [data for _, data in s7.parse_values(again.data, len(items), answer=False)] == values
    assert len(again.data) == len(job.data)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 100_000])
def test_client_reads_snap7s_answers(size: int) -> None:
    codec = ClientCodec()
    answers = [answer for piece in pieces(b"".join(ANSWERED), size) for answer in codec.feed(piece)]
    assert [key for key, _ in answers] == [s7.CONNECT, 0, 2, 3, 4, 5]
    assert s7.parse_connect(answers[0][1]).tpdu_size == 1024
    assert s7.parse_setup_answer(answers[1][1]) == (960, 8)
    words = s7.parse_read(answers[2][1], 10)
    assert [code for code, _ in words] == [s7.OK] * 10
    assert words[6] == (s7.OK, struct.pack(">6H", *range(100, 106)))
    assert s7.parse_write(answers[3][1], 6) == [s7.OK] * 6
    assert s7.parse_read(answers[5][1], 11)[10] == (s7.NO_OBJECT, b"")


SERVERS = {"nodes7": ANSWERED, "snap7": [data for who, data in SNAP7 if who == "server"]}


def heard(*received: bytes) -> list[tuple[int, bytes]]:
    """What a client that is connected takes out of these bytes, one after the other."""
    codec = ClientCodec()
    codec.feed(ANSWERED[0])
    return [answer for data in received for answer in codec.feed(data)]


@pytest.mark.parametrize(
    ("before", "answer"),
    [pair for said in SERVERS.values() for pair in itertools.pairwise(said[1:])],
)
def test_each_answer_of_others_whole_in_bytes_doubled_stale_and_cut(before: bytes, answer: bytes) -> None:
    stale, right = (parsed for raw in (before, answer) for parsed in [(s7.parse_message(raw[7:]).reference, raw[7:])])
    assert heard(answer) == [right]
    assert heard(*pieces(answer, 1)) == [right]
    assert heard(answer + answer) == [right, right]
    assert heard(before + answer) == heard(before, answer) == [stale, right]
    for cut in range(len(answer)):
        assert heard(answer[:cut]) == []
        assert heard(answer[:cut], answer[cut:] + before) == [right, stale]


def test_a_stale_answer_before_the_right_one_keeps_its_own_key() -> None:
    codec = ClientCodec()
    codec.feed(ANSWERED[0])
    assert [key for key, _ in codec.feed(ANSWERED[2] + ANSWERED[4])] == [2, 4]
    assert [key for key, _ in codec.feed(ANSWERED[4] + ANSWERED[4])] == [4, 4]


def test_half_a_frame_is_forgotten_with_its_connection() -> None:
    codec = ClientCodec()
    codec.feed(ANSWERED[0] + ANSWERED[2][:20])
    codec.reset()
    assert [key for key, _ in codec.feed(ANSWERED[0] + ANSWERED[2])] == [s7.CONNECT, 2]


def test_pdu_references_count_and_start_again() -> None:
    codec = ClientCodec()
    request = s7.setup_request(480, 1)
    keys = [codec.encode(request)[0] for _ in range(0x10001)]
    assert keys[:3] == [1, 2, 3] and keys[-3:] == [0xFFFF, 1, 2]
    key, frame = codec.encode(request)
    [(code, message)] = messages(frame)
    assert (code, s7.parse_message(message).reference) == (s7.DT, key)


@given(st.binary(min_size=10, max_size=3000), st.integers(7, 13), st.integers(1, 200))
def test_a_message_is_the_same_however_it_is_fragmented(content: bytes, size_code: int, chunk: int) -> None:
    sent = s7.fragments(content, 1 << size_code)
    reader = s7.Reader()
    assert [found for piece in pieces(sent, chunk) for found in reader.feed(piece)] == [(s7.DT, content)]
    at = 0
    while at < len(sent):
        length = int.from_bytes(sent[at + 2 : at + 4], "big")
        assert length - 4 <= 1 << size_code
        at += length


def test_an_empty_fragment_does_no_harm() -> None:
    """S7-1500 sends `02 F0 00` without data as a sign of life."""
    codec = ClientCodec()
    codec.feed(ANSWERED[0])
    assert [key for key, _ in codec.feed(bytes.fromhex("0300000702f000") + ANSWERED[2])] == [2]


def test_both_sides_fragment_to_the_tpdu_size_of_the_confirmation() -> None:
    peer, codec = session(nodes7_memory()), ClientCodec()
    codec.feed(peer.feed(codec.encode(s7.Connect(1, 0, 7, b"\1\0", b"\1\1").encode(s7.CR))[1]))
    codec.feed(peer.feed(codec.encode(s7.setup_request(960, 1))[1]))
    items = [s7.Area(s7.DATA_BLOCK, 1, 8 * at, 16) for at in range(15)]
    key, frame = codec.encode(s7.read_request(items))
    assert frame[6] == 0 and frame.count(b"\2\xf0") == 2  # the request of 192 bytes needs two TPDUs of 128
    answer = peer.feed(frame)
    assert answer[6] == 0
    [(answered, message)] = codec.feed(answer)
    assert answered == key
    assert [len(data) for _, data in s7.parse_read(message, 15)] == [16] * 15


def test_a_server_that_ends_the_connection_is_a_framing_error_once_connected() -> None:
    disconnect = s7.frame(bytes.fromhex("06800002000103"))
    assert [key for key, _ in ClientCodec().feed(disconnect)] == [s7.CONNECT]
    codec = ClientCodec()
    codec.feed(ANSWERED[0])
    with pytest.raises(FramingError):
        codec.feed(disconnect)


# any bytes


def mutations() -> st.SearchStrategy[bytes]:
    """Third parties' bytes with some changed, left out or doubled: closer to the mark than random bytes."""
    base = st.sampled_from([*(data for _, data in NODES7 + SNAP7), b"".join(ANSWERED), b"".join(ASKED)])
    changes = st.lists(st.tuples(st.integers(0, 700), st.binary(max_size=4), st.integers(0, 3)), max_size=4)

    def mutate(data: bytes, edits: list[tuple[int, bytes, int]]) -> bytes:
        for at, new, gone in edits:
            at %= len(data) + 1
            data = data[:at] + new + data[at + gone :]
        return data

    return st.builds(mutate, base, changes)


@given(st.lists(st.one_of(st.binary(max_size=64), mutations()), max_size=4))
def test_any_bytes_from_a_plc_are_answers_or_a_framing_error(received: list[bytes]) -> None:
    codec = ClientCodec()
    for data in received:
        try:
            answers = codec.feed(data)
        except FramingError:
            return
        for _, message in answers:
            for parse in (
                s7.parse_setup_answer,
                s7.parse_connect,
                lambda m: s7.parse_read(m, 10),
                lambda m: s7.parse_write(m, 6),
            ):
                with contextlib.suppress(FramingError, JobRefused):
                    parse(message)


@given(st.binary(max_size=80), st.integers(1, 3))
def test_any_message_is_an_answer_or_a_framing_error(tail: bytes, kind: int) -> None:
    message = bytes((0x32, kind)) + tail
    for parse in (s7.parse_setup_answer, lambda m: s7.parse_read(m, 2), lambda m: s7.parse_write(m, 2)):
        with contextlib.suppress(FramingError, JobRefused):
            parse(message)


@given(st.lists(st.one_of(st.binary(max_size=64), mutations()), max_size=4))
def test_any_bytes_from_a_client_are_answered_or_a_framing_error(received: list[bytes]) -> None:
    peer = session(nodes7_memory())
    for data in [*ASKED[:2], *received]:
        try:
            s7.Reader().feed(peer.feed(data))
        except FramingError:
            return


# the server's errors


def exchange(codec: ClientCodec, peer: Session, request: bytes) -> bytes:
    key, frame = codec.encode(request)
    [(answered, message)] = codec.feed(peer.feed(frame))
    assert answered == key
    return message


def connected(memory: Memory, pdu: int = 960) -> tuple[ClientCodec, Session]:
    codec, peer = ClientCodec(), session(memory, pdu)
    exchange(codec, peer, s7.connection_request(0, 1))
    exchange(codec, peer, s7.setup_request(960, 1))
    return codec, peer


def test_server_refuses_another_rack_or_slot() -> None:
    codec, peer = ClientCodec(), session(nodes7_memory())
    answer = exchange(codec, peer, s7.connection_request(0, 2))
    assert answer[1] == s7.DR and peer.ended


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (s7.Area(s7.DATA_BLOCK, 1, 8 * 398, 2), s7.OK),
        (s7.Area(s7.DATA_BLOCK, 1, 8 * 399, 2), s7.OUT_OF_RANGE),
        (s7.Area(s7.DATA_BLOCK, 1, 8 * 400, 1, s7.BIT), s7.OUT_OF_RANGE),
        (s7.Area(s7.DATA_BLOCK, 1, 3, 2), s7.OUT_OF_RANGE),
        (s7.Area(s7.DATA_BLOCK, 9, 0, 2), s7.NO_OBJECT),
        (s7.Area(s7.DATA_BLOCK, 2, 0, 2), s7.NO_ACCESS),
        (s7.Area(s7.DATA_BLOCK, 1, 0, 2, s7.BIT), s7.WRONG_TYPE),
        (s7.Area(s7.DATA_BLOCK, 1, 0, 1, 0x1C), s7.WRONG_TYPE),
        (s7.Area(0x1D, 0, 0, 1), s7.NO_OBJECT),
        (s7.Area(s7.DATA_BLOCK, 1, 0, 3, 0x08), s7.OK),
    ],
)
def test_server_answers_each_item_for_itself(item: s7.Area, code: int) -> None:
    memory = nodes7_memory()
    memory.no_access.add((s7.DATA_BLOCK, 2))
    codec, peer = connected(memory)
    good = s7.Area(s7.DATA_BLOCK, 1, 0, 2)
    read = s7.parse_read(exchange(codec, peer, s7.read_request([good, item, good])), 3)
    assert [found for found, _ in read] == [s7.OK, code, s7.OK]
    data = bytes(max(item.size, 1))
    write = s7.parse_write(exchange(codec, peer, s7.write_request([(good, b"\0\1"), (item, data), (good, b"\0\1")])), 3)
    assert write == [s7.OK, code, s7.OK]


def test_server_refuses_what_it_does_not_know_or_cannot_send() -> None:
    codec, peer = connected(nodes7_memory(), pdu=240)
    whole = s7.Area(s7.DATA_BLOCK, 1, 0, 222)
    assert s7.parse_read(exchange(codec, peer, s7.read_request([whole])), 1)[0][0] == s7.OK
    larger = s7.Area(s7.DATA_BLOCK, 1, 0, 223)
    for request in (
        s7.read_request([larger]),
        s7.read_request([s7.Area(s7.DATA_BLOCK, 1, 0, 1)] * 20),
        s7.Message(s7.JOB, 0, b"\x29\0\0\0\0\0\x09P_PROGRAM", b"").encode(),
        s7.Message(s7.JOB, 0, b"", b"").encode(),
    ):
        with pytest.raises(JobRefused):
            s7.parse_read(exchange(codec, peer, request), 1)
    szl = s7.Message(s7.USERDATA, 0, bytes.fromhex("0001120411440100"), bytes.fromhex("ff090004001c0000")).encode()
    answer = s7.parse_message(exchange(codec, peer, szl))
    assert (answer.kind, answer.parameters[5:7], answer.parameters[-2:]) == (s7.USERDATA, b"\x84\1", b"\x81\x04")


# addresses and values

NUMBERS = {kind.name: kind for kind in TYPES.values() if kind.kind != "bool"}


@st.composite
def written_points(draw: st.DrawFn) -> tuple[Point, bool | int | float | str]:
    """A writable point somewhere in 64 bytes of DB1, M or Q, and a value of its type."""
    name = draw(st.sampled_from(["bool", *NUMBERS, "string[5]", "string[20]"]))
    kind = parse_type(name)
    width = "X" if name == "bool" else {2: "W", 4: "D"}.get(kind.size if kind.kind != "string" else 0, "B")
    byte = draw(st.integers(0, 64 - kind.size - 2))
    bit = f".{draw(st.integers(0, 7))}" if name == "bool" else ""
    area = draw(st.sampled_from(["DB1.DB", "M", "Q"]))
    address = f"{area}{'' if width == 'X' and area in 'MQ' else width}{byte}{bit}"
    if kind.kind == "string":
        value = draw(st.text(st.characters(max_codepoint=255), max_size=kind.size))
    elif kind.kind == "bool":
        value = draw(st.booleans())
    elif kind.kind == "float":
        value = draw(st.floats(width=kind.size * 8, allow_nan=False))
    else:
        value = draw(st.integers(int(kind.low), int(kind.high)))
    return Point("tag", address, kind, writable=True), value


@given(written_points(), st.binary(min_size=64, max_size=64))
def test_what_was_written_is_read_and_its_neighbours_stay(written: tuple[Point, object], before: bytes) -> None:
    point, value = written
    at = place(point)
    memory = Memory({(at.area, at.db): bytearray(before)})
    inside = memory.areas[at.area, at.db]
    item, data = at.item(), encode(point.type, value)
    if point.type.kind == "string":
        inside[at.byte] = point.type.size
        item = s7.Area(at.area, at.db, 8 * at.byte + 8, len(data))
    expected = bytearray(inside)
    codec, peer = connected(memory)
    assert s7.parse_write(exchange(codec, peer, s7.write_request([(item, data)])), 1) == [s7.OK]
    whole = s7.Area(at.area, at.db, 8 * at.byte, at.size)
    [(_, raw)] = s7.parse_read(exchange(codec, peer, s7.read_request([whole])), 1)
    assert value_of(at, raw) == value
    if point.type.kind != "bool":
        first = at.byte + (1 if point.type.kind == "string" else 0)
        expected[first : first + len(data)] = data
        assert inside == expected
    else:
        assert [a ^ b for a, b in zip(inside, expected, strict=True)].count(0) >= 63
        assert inside[at.byte] & ~(1 << at.bit) == expected[at.byte] & ~(1 << at.bit)


@pytest.mark.parametrize(
    ("address", "kind", "expected"),
    [
        ("DB1.DBX4.0", "bool", (s7.DATA_BLOCK, 1, 4, 0, 1)),
        ("DB65535.DBX65535.7", "bool", (s7.DATA_BLOCK, 65535, 65535, 7, 1)),
        ("DB1.DBB5", "int8", (s7.DATA_BLOCK, 1, 5, 0, 1)),
        ("DB1.DBW6", "uint16", (s7.DATA_BLOCK, 1, 6, 0, 2)),
        ("DB1.DBD8", "float32", (s7.DATA_BLOCK, 1, 8, 0, 4)),
        ("DB1.DBB10", "int64", (s7.DATA_BLOCK, 1, 10, 0, 8)),
        ("DB1.DBB10", "string[16]", (s7.DATA_BLOCK, 1, 10, 0, 18)),
        ("M10.0", "bool", (s7.MEMORY, 0, 10, 0, 1)),
        ("MB10", "uint8", (s7.MEMORY, 0, 10, 0, 1)),
        ("MW12", "int16", (s7.MEMORY, 0, 12, 0, 2)),
        ("MD14", "int32", (s7.MEMORY, 0, 14, 0, 4)),
        ("QW4", "uint16", (s7.OUTPUTS, 0, 4, 0, 2)),
        ("QB0", "float64", (s7.OUTPUTS, 0, 0, 0, 8)),
    ],
)
def test_addresses(address: str, kind: str, expected: tuple[object, ...]) -> None:
    at = place(Point("tag", address, parse_type(kind), writable=True))
    assert (at.area, at.db, at.byte, at.bit, at.size) == expected


@pytest.mark.parametrize(
    ("address", "kind", "words", "hint"),
    [
        ("DB1.DBX4", "bool", "names no bit", "`DB1.DBX4.0`"),
        ("DB1.DBX4.8", "bool", "no bit 8", "0 to 7"),
        ("DB0.DBW0", "int16", "no DB0", "1 to 65535"),
        ("DB65536.DBW0", "int16", "no DB65536", "1 to 65535"),
        ("DB1.DBW65535", "int16", "behind the end", "65535"),
        ("DB1.DBB65535", "string[4]", "6 bytes from 65535", "65535"),
        ("DB1.DBW6.1", "int16", "only a bit", "`DB1.DBX6.1`"),
        ("MW6.1", "bool", "only a bit", "`M6.1`"),
        ("DB1.DBW6", "float32", "it cannot be float32", "`DB1.DBD6`"),
        ("DB1.DBX6.0", "int8", "is bool", "`DB1.DBB6`"),
        ("MW6", "bool", "it cannot be bool", "`M6.0`"),
        ("DB1.DBD8", "string[4]", "it cannot be string[4]", "`DB1.DBB8`"),
        ("E0.1", "bool", "no S7 address", "`I0.1`"),
        ("AW4", "int16", "no S7 address", "`QW4`"),
        ("%MW4", "int16", "no S7 address", "`MW4`"),
        ("MX1.0", "bool", "no S7 address", "`M1.0`"),
        ("db1.dbw4", "int16", "no S7 address", "`DB1.DBW4`"),
        ("DB1.4.0", "bool", "no S7 address", "`DB1.DBX4.0`"),
        ("DB1,X4.0", "bool", "no S7 address", "`DB1.DBX4.0`"),
        ("T5", "int16", "no S7 address", "timers and counters"),
        ('"Tank".level', "float32", "no S7 address", "Optimized block access"),
        ("Tank.level", "float32", "no S7 address", "Optimized block access"),
        ("holding:3", "int16", "no S7 address", "`DB1.DBX4.0`"),
        ("", "int16", "no S7 address", "`DB1.DBX4.0`"),
        ("I0.0", "bool", "inputs cannot be written", "data block"),
    ],
)
def test_wrong_addresses_say_what_to_write(address: str, kind: str, words: str, hint: str) -> None:
    with pytest.raises(AddressError) as caught:
        place(Point("tag", address, parse_type(kind), writable=True))
    assert words in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("order", ["byte_order", "word_order"])
def test_s7_has_one_order(order: str) -> None:
    with pytest.raises(AddressError, match=f"{order} big, never little"):
        place(Point("tag", "DB1.DBD0", TYPES["float32"], **{order: "little"}))


@given(st.text(max_size=30), st.sampled_from(["bool", "int16", "string[9]"]))
def test_any_text_is_an_address_or_an_address_error(text: str, kind: str) -> None:
    try:
        place(Point("tag", text, parse_type(kind)))
    except AddressError as error:
        assert error.message and error.hint


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\4\2abcdef", "it is a STRING[4]"),
        (b"\6\7abcdef", "no STRING at all"),
        (b"\0\0\0\0\0\0\0\0", "it is a STRING[0]"),
        (b"\x50\x07abcdef", "7 characters now"),
    ],
)
def test_bytes_that_are_no_such_string(raw: bytes, words: str) -> None:
    point = Point("tag", "DB1.DBB0", parse_type("string[6]"))
    with pytest.raises(NoString, match=words.replace("[", r"\[")):
        value_of(place(point), raw)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("string[4]", "abcde"),
        ("string[4]", "عربي"),
        ("int16", 40000),
        ("uint8", -1),
        ("float32", 1e300),
        ("int16", 1.5),
    ],
)
def test_values_that_do_not_fit(kind: str, value: float | str) -> None:
    with pytest.raises(ValueError, match=r"fit|hold"):
        encode(parse_type(kind), value)
