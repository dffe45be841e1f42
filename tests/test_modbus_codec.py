"""Modbus frames, messages, addresses and memory without a socket: third parties' bytes, pymodbus as the oracle."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.framer import FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse, bit_message, register_message

from drivers import modbus_codec as modbus
from drivers.blocks import unpacker
from drivers.driver import AddressError, Point
from drivers.link import FramingError
from drivers.modbus_address import Place, field, place
from drivers.modbus_codec import ClientCodec, Frames, Mismatch, Refused
from drivers.value import TYPES, parse_type
from hil.modbus_plc import Memory, Session

GOLDEN = Path(__file__).parent / "golden"
CONVERSATIONS = ["modbus_mbpoll_jsmodbus", "modbus_mbpoll_modbusserial"]


def conversation(name: str) -> list[tuple[bytes, bytes]]:
    """(request, answer) of each exchange."""
    lines = [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()]
    data = [bytes.fromhex(line["hex"]) for line in lines]
    assert [line["from"] for line in lines] == ["client", "server"] * (len(lines) // 2)
    return list(zip(data[::2], data[1::2], strict=True))


def exchanges() -> Iterator[Any]:
    for name in CONVERSATIONS:
        for number, (request, answer) in enumerate(conversation(name)):
            yield pytest.param(request, answer, id=f"{name}-{number}-function{request[7]}")


def outcome(request: bytes, answer: bytes) -> bytes | int:
    """What the payload of an answer says: data, or an exception code."""
    try:
        return modbus.answer_data(request, answer)
    except Refused as refused:
        return refused.code


def the_same_request(frame: bytes) -> bytes:
    """A recorded request, made again from its meaning by our codec."""
    unit, function, start, last = struct.unpack_from(">BBHH", frame, 6)
    if function <= modbus.READ_INPUT:
        return modbus.read_request(unit, function, start, last)
    if function == modbus.WRITE_COIL:
        return modbus.write_request(unit, function, start, 1, b"\1" if last else b"\0")
    if function == modbus.WRITE_REGISTER:
        return modbus.write_request(unit, function, start, 1, last.to_bytes(2, "big"))
    return modbus.write_request(unit, function, start, last, frame[13:])


@pytest.mark.parametrize(("request_frame", "answer_frame"), list(exchanges()))
class TestGoldenExchange:
    """One exchange that mbpoll had with a third party's server, in every way that TCP may bring it."""

    def test_our_request_has_the_same_bytes(self, request_frame: bytes, answer_frame: bytes) -> None:
        key, frame = ClientCodec().encode(the_same_request(request_frame))
        assert (key, frame) == (1, request_frame)

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 300])
    def test_the_answer_in_pieces(self, request_frame: bytes, answer_frame: bytes, size: int) -> None:
        codec = ClientCodec()
        pieces = [answer_frame[at : at + size] for at in range(0, len(answer_frame), size)]
        found = [codec.feed(piece) for piece in pieces]
        assert found[-1] == [(1, answer_frame[6:])]
        assert not any(found[:-1])

    def test_the_answer_doubled(self, request_frame: bytes, answer_frame: bytes) -> None:
        assert ClientCodec().feed(answer_frame * 2) == [(1, answer_frame[6:])] * 2

    def test_a_stale_answer_and_then_the_right_one(self, request_frame: bytes, answer_frame: bytes) -> None:
        codec = ClientCodec()
        codec.encode(request_frame[6:])
        key, _ = codec.encode(request_frame[6:])
        right = key.to_bytes(2, "big") + answer_frame[2:]
        assert codec.feed(answer_frame + right) == [(1, answer_frame[6:]), (key, answer_frame[6:])]

    def test_a_truncated_answer_is_no_answer_and_a_new_connection_forgets_it(
        self, request_frame: bytes, answer_frame: bytes
    ) -> None:
        codec = ClientCodec()
        for end in range(len(answer_frame)):
            assert codec.feed(answer_frame[:end]) == []
            codec.reset()
        assert codec.feed(answer_frame) == [(1, answer_frame[6:])]

    def test_an_answer_for_another_unit_or_function_is_no_answer(
        self, request_frame: bytes, answer_frame: bytes
    ) -> None:
        request, answer = request_frame[6:], answer_frame[6:]
        outcome(request, answer)
        with pytest.raises(Mismatch, match="unit 2 instead of 1"):
            outcome(request, b"\2" + answer[1:])
        with pytest.raises(Mismatch, match=r"answered function \d+ to function"):
            outcome(request, answer[:1] + bytes((answer[1] ^ 8,)) + answer[2:])

    def test_an_answer_of_another_size_is_no_answer(self, request_frame: bytes, answer_frame: bytes) -> None:
        request, answer = request_frame[6:], answer_frame[6:]
        for other in (answer + b"\0\0", answer[:-1]):
            with pytest.raises(Mismatch):
                outcome(request, other)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_what_mbpoll_was_told_is_what_we_understand(name: str) -> None:
    found = [outcome(request[6:], answer[6:]) for request, answer in conversation(name)]
    assert found[:3] == [b"\0\0", b"\x55\1", bytes(16)]
    assert (
        found[3]
        == {  # the first input register counts time in one of them
            "modbus_mbpoll_jsmodbus": struct.pack(">4H", 0, 1, 2, 3),
            "modbus_mbpoll_modbusserial": struct.pack(">4H", 0x1CCF, 3, 6, 9),
        }[name]
    )
    assert found[7:12] == [b"\x03\x09", b"\0\3", b"\xff\0", b"\0\x09", b"\0\4"]
    assert found[12] == struct.pack(">5H", 777, 1, 2, 65535, 0)
    refusal = {"modbus_mbpoll_jsmodbus": modbus.NO_DATA, "modbus_mbpoll_modbusserial": modbus.FAILURE}
    assert found[13] == refusal[name]


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("size", [1, 5, 100_000])
def test_our_server_answers_mbpoll_as_the_third_party_did(name: str, size: int) -> None:
    exchanged = conversation(name)[:-1]  # an illegal address: each server has an answer of its own
    memory = Memory([])
    memory.areas["coil"] = dict.fromkeys(range(100), 0)
    memory.areas["discrete"] = {bit: bit % 2 for bit in range(100)}
    memory.areas["holding"] = dict.fromkeys(range(200), 0)
    words = struct.unpack(">4H", exchanged[3][1][9:])
    memory.areas["input"] = dict(enumerate(words))
    session = Session({1: memory})
    asked = b"".join(request for request, _ in exchanged)
    told = b"".join(session.feed(asked[at : at + size]) for at in range(0, len(asked), size))
    assert told == b"".join(answer for _, answer in exchanged)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(min_size=2, max_size=254)), max_size=8), st.data())
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    sent: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(modbus.frame(*one) for one in sent)
    frames, found, at = Frames(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        found += frames.feed(stream[at : at + size])
        at += size
    assert found == sent


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_bytes_are_frames_or_a_framing_error(pieces: list[bytes]) -> None:
    frames, session = Frames(), Session({1: Memory([Place("holding", 0, 10)])})
    try:
        for piece in pieces:
            for _, payload in frames.feed(piece):
                assert 2 <= len(payload) <= 254
            session.feed(piece)
    except FramingError:
        pass


@pytest.mark.parametrize(
    "head", ["0001 0001 0006", "0001 0000 0001", "0001 0000 0000", "0001 0000 00ff", "4854 5450 2f31"]
)
def test_no_modbus(head: str) -> None:
    with pytest.raises(FramingError, match="no Modbus/TCP header"):
        ClientCodec().feed(bytes.fromhex(head))


def test_transaction_identifiers_go_round() -> None:
    codec = ClientCodec()
    codec._transaction = 0xFFFE
    assert [codec.encode(b"\1\3")[0] for _ in range(3)] == [0xFFFF, 0, 1]


# pymodbus as the oracle

UNITS, ADDRESSES, TRANSACTIONS = st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)
FRAMER = FramerSocket(DecodePDU(is_server=True))
ANSWERS = DecodePDU(is_server=False)
READS: dict[int, Any] = {
    1: bit_message.ReadCoilsRequest,
    2: bit_message.ReadDiscreteInputsRequest,
    3: register_message.ReadHoldingRegistersRequest,
    4: register_message.ReadInputRegistersRequest,
}


def theirs(message: Any) -> bytes:
    return FRAMER.buildFrame(message)


@given(st.sampled_from([1, 2, 3, 4]), UNITS, ADDRESSES, st.integers(1, 125), TRANSACTIONS)
def test_read_requests_are_pymodbuss(function: int, unit: int, start: int, count: int, transaction: int) -> None:
    ours = modbus.frame(transaction, modbus.read_request(unit, function, start, count))
    assert ours == theirs(READS[function](dev_id=unit, transaction_id=transaction, address=start, count=count))


@given(UNITS, ADDRESSES, st.lists(st.booleans(), min_size=1, max_size=1968))
def test_writes_of_coils_are_pymodbuss(unit: int, start: int, bits: list[bool]) -> None:
    packed = sum(bit << place for place, bit in enumerate(bits)).to_bytes((len(bits) + 7) // 8, "little")
    ours = modbus.frame(7, modbus.write_request(unit, modbus.WRITE_COILS, start, len(bits), packed))
    assert ours == theirs(
        bit_message.WriteMultipleCoilsRequest(dev_id=unit, transaction_id=7, address=start, bits=list(bits))
    )
    ours = modbus.frame(7, modbus.write_request(unit, modbus.WRITE_COIL, start, 1, packed))
    assert ours == theirs(
        bit_message.WriteSingleCoilRequest(dev_id=unit, transaction_id=7, address=start, bits=bits[:1])
    )


@given(UNITS, ADDRESSES, st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=123))
def test_writes_of_registers_are_pymodbuss(unit: int, start: int, words: list[int]) -> None:
    packed = struct.pack(f">{len(words)}H", *words)
    ours = modbus.frame(7, modbus.write_request(unit, modbus.WRITE_REGISTERS, start, len(words), packed))
    assert ours == theirs(
        register_message.WriteMultipleRegistersRequest(dev_id=unit, transaction_id=7, address=start, registers=words)
    )
    ours = modbus.frame(7, modbus.write_request(unit, modbus.WRITE_REGISTER, start, 1, packed))
    assert ours == theirs(
        register_message.WriteSingleRegisterRequest(dev_id=unit, transaction_id=7, address=start, registers=words[:1])
    )


@given(st.sampled_from([3, 4]), st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=125))
def test_register_answers_of_our_server_are_what_pymodbus_reads(function: int, words: list[int]) -> None:
    memory = Memory([])
    memory.areas["holding"] = memory.areas["input"] = dict(enumerate(words))
    request = modbus.read_request(1, function, 0, len(words))
    (answer,) = Frames().feed(Session({1: memory}).feed(modbus.frame(1, request)))
    decoded = ANSWERS.decode(answer[1][1:])
    assert decoded is not None and decoded.registers == words
    assert modbus.answer_data(request, answer[1]) == struct.pack(f">{len(words)}H", *words)


@given(st.sampled_from([1, 2]), st.lists(st.booleans(), min_size=1, max_size=2000))
def test_bit_answers_of_our_server_are_what_pymodbus_reads(function: int, bits: list[bool]) -> None:
    memory = Memory([])
    memory.areas["coil"] = memory.areas["discrete"] = {place: int(bit) for place, bit in enumerate(bits)}
    request = modbus.read_request(1, function, 0, len(bits))
    (answer,) = Frames().feed(Session({1: memory}).feed(modbus.frame(1, request)))
    decoded = ANSWERS.decode(answer[1][1:])
    assert decoded is not None and decoded.bits[: len(bits)] == bits
    assert len(modbus.answer_data(request, answer[1])) == (len(bits) + 7) // 8


@given(st.sampled_from([1, 2, 3, 4, 5, 6, 15, 16]), st.integers(1, 11))
def test_exception_replies_of_pymodbus_are_understood(function: int, code: int) -> None:
    reply = theirs(ExceptionResponse(function, exception_code=code, device_id=9))[6:]
    assert outcome(struct.pack(">BBHH", 9, function, 0, 1), reply) == code


ORDERED = [kind for kind in TYPES.values() if kind.kind != "bool" and kind.size > 1]
MIXIN: Any = ModbusClientMixin.DATATYPE


@given(st.sampled_from(ORDERED), st.sampled_from(["big", "little"]), st.sampled_from(["big", "little"]), st.data())
def test_values_lie_in_registers_as_pymodbus_has_them(
    kind: Any, byte_order: Any, word_order: Any, data: st.DataObject
) -> None:
    value: Any = data.draw(
        st.integers(int(kind.low), int(kind.high))
        if kind.kind == "int"
        else st.floats(width=kind.size * 8, allow_nan=False)
    )
    point = Point("p", "holding:7", kind, byte_order=byte_order, word_order=word_order)
    at = place(point)
    buffer = bytearray(at.size * 2)
    field(point, at, 7, whole=True).put(buffer, value)
    words = list(struct.unpack(f"{'>' if byte_order == 'big' else '<'}{at.size}H", buffer))
    theirs_type = MIXIN[kind.name.upper()]
    assert words == ModbusClientMixin.convert_to_registers(value, theirs_type, word_order=word_order)
    assert list(unpacker([field(point, at, 7)])(bytes(buffer))) == [value]
    assert ModbusClientMixin.convert_from_registers(words, theirs_type, word_order=word_order) == value


# Addresses


def point(address: str, kind: str = "uint16", **extra: Any) -> Point:
    return Point("p", address, parse_type(kind), **extra)


@pytest.mark.parametrize(
    ("address", "kind", "expected"),
    [
        ("holding:0", "uint16", Place("holding", 0, 1)),
        ("holding:10", "int8", Place("holding", 10, 1)),
        ("input:20", "float32", Place("input", 20, 2)),
        ("input:65532", "float64", Place("input", 65532, 4)),
        ("discrete:3", "bool", Place("discrete", 3, 1)),
        ("coil:65535", "bool", Place("coil", 65535, 1)),
        ("holding:12.3", "bool", Place("holding", 12, 1, 3)),
        ("input:12.15", "bool", Place("input", 12, 1, 15)),
        ("holding:40", "string[16]", Place("holding", 40, 8)),
        ("holding:40", "string[5]", Place("holding", 40, 3)),
        ("holding:0", "string[250]", Place("holding", 0, 125)),
    ],
)
def test_addresses(address: str, kind: str, expected: Place) -> None:
    assert place(point(address, kind)) == expected


BAD_ADDRESSES: list[tuple[Point, str, str]] = [
    (point("40001"), "`40001` is no Modbus address", "addresses are the protocol's own, from 0: holding:0"),
    (point("4x0010"), "`4x0010` is no Modbus address", "from 0: holding:9"),
    (point("400013"), "`400013` is no Modbus address", "from 0: holding:12"),
    (point("30021"), "`30021` is no Modbus address", "from 0: input:20"),
    (point("10004", "bool"), "`10004` is no Modbus address", "from 0: discrete:3"),
    (point("00008", "bool"), "`00008` is no Modbus address", "from 0: coil:7"),
    (point("4x0000"), "`4x0000` is no Modbus address", "from 0: holding:0"),
    (point(""), "`` is no Modbus address", "an address is holding:10"),
    (point("DB1.DBW4"), "`DB1.DBW4` is no Modbus address", "an address is holding:10"),
    (point("holdng:10"), "`holdng:10` is no Modbus address", "did you mean holding:10?"),
    (point("Holding:10"), "`Holding:10` is no Modbus address", "did you mean holding:10?"),
    (point("holding"), "`holding` is no Modbus address", "an address is holding:10"),
    (point("holding: 10"), "`holding: 10` is no Modbus address", "an address is holding:10"),
    (point("holding:-1"), "`holding:-1` is no Modbus address", "addresses count from 0"),
    (point("holding:0x10"), "`holding:0x10` is no Modbus address", "an address is holding:10"),
    (point("holding:٣"), "is no Modbus address", "an address is holding:10"),
    (point("holding:65536"), "`holding:65536` as uint16 ends after 65535", ""),
    (point("holding:65535", "float32"), "`holding:65535` as float32 ends after 65535", ""),
    (point("holding:65530", "string[20]"), "`holding:65530` as string[20] ends after 65535", ""),
    (point("coil:7"), "a coil is a bool, not uint16", "type: bool"),
    (point("discrete:7", "float32"), "a discrete input is a bool, not float32", "type: bool"),
    (point("coil:7.1", "bool"), "a coil has no bits", "write coil:7"),
    (point("holding:12", "bool"), "a holding register is no bool", "holding:12.0"),
    (point("holding:12.16", "bool"), "a register has the bits 0 to 15, not 16", "bit 0 is the least significant"),
    (point("holding:12.3", "uint16"), "a bit is a bool, not uint16", "holding:12 for the whole register"),
    (point("holding:12.3", "bool", writable=True), "a bit of a register can only be read", "coil"),
    (point("input:12", writable=True), "an input register can only be read", "coils and holding registers"),
    (point("discrete:1", "bool", writable=True), "a discrete input can only be read", "coils and holding registers"),
    (point("holding:0", "string[251]"), "string[251] is more than one read can hold", "string[250]"),
    (point("holding:0", "string[247]", writable=True), "string[247] is more than one write can hold", "string[246]"),
    (point("holding:0", "string[4]", word_order="little"), "a string has no word order", "byte_order: little"),
]


@pytest.mark.parametrize(("bad", "message", "hint"), BAD_ADDRESSES, ids=[one[0].address for one in BAD_ADDRESSES])
def test_bad_addresses(bad: Point, message: str, hint: str) -> None:
    with pytest.raises(AddressError) as caught:
        place(bad)
    assert message in caught.value.message
    assert hint in caught.value.hint


@given(st.text(max_size=12))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    try:
        found = place(point(text))
    except AddressError as error:
        assert error.message
    else:
        assert f"{found.area}:{found.start}" == text or text.lstrip("0") != text


# The server's role


def answer(memory: Memory, function: int, data: str, unit: int = 1) -> str:
    payload = bytes((unit, function)) + bytes.fromhex(data)
    ((_, found),) = Frames().feed(Session({1: memory}).feed(modbus.frame(1, payload)))
    return found[1:].hex(" ")


def small_memory() -> Memory:
    places = [Place("coil", 0, 10), Place("discrete", 0, 10), Place("holding", 10, 4), Place("input", 10, 4)]
    return Memory(places)


@pytest.mark.parametrize(
    ("function", "data", "expected"),
    [
        (1, "0000 000a", "01 02 00 00"),
        (3, "000a 0001", "03 02 00 00"),
        (3, "0009 0001", "83 02"),
        (3, "000d 0002", "83 02"),
        (3, "ffff 0002", "83 02"),
        (3, "000a 0000", "83 03"),
        (3, "000a 007e", "83 03"),
        (1, "0000 07d1", "81 03"),
        (3, "000a", "83 03"),
        (5, "0000 ff00", "05 00 00 ff 00"),
        (5, "0000 0001", "85 03"),
        (5, "000a ff00", "85 02"),
        (6, "000a 1234", "06 00 0a 12 34"),
        (6, "000e 1234", "86 02"),
        (6, "000a", "86 03"),
        (15, "0000 000a 02 ff03", "0f 00 00 00 0a"),
        (15, "0000 000a 01 ff", "8f 03"),
        (15, "0000 0000 00", "8f 03"),
        (15, "0008 0004 01 0f", "8f 02"),
        (16, "000a 0002 04 00010002", "10 00 0a 00 02"),
        (16, "000a 0002 04 000100", "90 03"),
        (16, "000a 0002 02 0001", "90 03"),
        (16, "000a 0000 00", "90 03"),
        (16, "000d 0002 04 00010002", "90 02"),
        (7, "", "87 01"),
        (43, "0e 02 00", "2b 0e 02 83 00 00 03 00 04 65 64 67 65 01 09 73 69 6d 75 6c 61 74 65 64 02 01 31"),
        (43, "0d 01 00", "ab 01"),
        (22, "000a 0000 0000", "96 01"),
    ],
)
def test_requests_to_our_server(function: int, data: str, expected: str) -> None:
    assert answer(small_memory(), function, data) == expected


def test_a_refused_write_changes_nothing() -> None:
    memory = small_memory()
    answer(memory, 16, "000d 0002 04 ffffffff")
    answer(memory, 15, "0008 0004 01 0f")
    assert not any(value for area in memory.areas.values() for value in area.values())


def test_another_unit_is_not_reached() -> None:
    assert answer(small_memory(), 3, "000a 0001", unit=2) == "83 0b"
