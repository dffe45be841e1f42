"""OPC UA NodeIds and built-in types, without a connection."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.driver import AddressError, Point
from drivers.opcua import OpcUaDriver
from drivers.opcua_node import BUILT_IN, NodeAddress, convert, format_address, kind_number, parse_address, refusal
from drivers.value import BAD_OUT_OF_RANGE, BAD_TYPE_MISMATCH, GOOD, TYPES, DataType, parse_type


@pytest.mark.parametrize(
    ("text", "namespace", "identifier"),
    [
        ("ns=2;s=State", 2, "State"),
        ("ns=2;i=5", 2, 5),
        ("i=2258", 0, 2258),
        ("ns=65535;i=4294967295", 65535, 2**32 - 1),
        ('ns=3;s="DB".x;y=1', 3, '"DB".x;y=1'),
        ("ns=1;g=09087e75-8e5e-499b-954f-f2a9603db28a", 1, uuid.UUID("09087e75-8e5e-499b-954f-f2a9603db28a")),
        ("ns=1;b=AQID", 1, b"\x01\x02\x03"),
        ("nsu=urn:robot;s=Program", "urn:robot", "Program"),
        ("nsu=urn:a%3Bb%25c;i=1", "urn:a;b%c", 1),
    ],
)
def test_addresses(text, namespace, identifier):
    assert parse_address(text) == NodeAddress(namespace, identifier)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("State", "ns=2;s=State"),
        ("ns=2:s=State", "ns=2;s=State"),
        ("s=State", "ns=2;s=State"),
        ("ns=2;i=State", "s=State"),
        ("ns=2;i=4294967296", ""),
        ("ns=2;g=12", ""),
        ("ns=2;b=!", ""),
        ("ns=70000;i=1", "65535"),
        ("ns=2;s=", "ns=2;s="),
        ("", "ns=2;s="),
        ("DB1.DBX0.0", "NodeId"),
    ],
)
def test_bad_addresses_say_what_to_write(text, hint):
    with pytest.raises(AddressError) as caught:
        OpcUaDriver.check(Point("a", text, TYPES["int32"]))
    assert hint in caught.value.hint + caught.value.message
    assert caught.value.message


def test_byte_and_word_order_are_refused():
    OpcUaDriver.check(Point("a", "ns=2;i=1", TYPES["int32"]))
    for order in ({"byte_order": "little"}, {"word_order": "little"}):
        with pytest.raises(AddressError, match="order"):
            OpcUaDriver.check(Point("a", "ns=2;i=1", TYPES["int32"], **order))


identifiers = st.one_of(
    st.integers(0, 2**32 - 1), st.text(min_size=1), st.binary(min_size=1), st.uuids()
)  # fmt: skip


@given(st.one_of(st.integers(1, 65535), st.text(min_size=1)), identifiers)
def test_an_address_is_read_as_it_was_written(namespace, identifier):
    names = ["http://opcfoundation.org/UA/", namespace] if isinstance(namespace, str) else []
    index = 1 if isinstance(namespace, str) else namespace
    assert parse_address(format_address(index, identifier, names)) == NodeAddress(namespace, identifier)


kinds = st.sampled_from(list(TYPES.values()))


@given(st.integers(-(2**64), 2**65), kinds, kinds)
def test_an_integer_is_used_only_where_it_fits(value, node: DataType, declared: DataType):
    fits_node = node.kind == "int" and node.low <= value <= node.high
    assert (refusal(value, node) == GOOD) == (fits_node or node.kind == "float")
    if fits_node:
        got, status, trouble = convert(value, kind_number(node), False, declared)
        if declared.kind != "int":
            assert (got, status) == (None, BAD_TYPE_MISMATCH)
            assert node.name in trouble
        elif declared.low <= value <= declared.high:
            assert (got, status, trouble) == (value, GOOD, "")
        else:
            assert (got, status) == (None, BAD_OUT_OF_RANGE)


@given(st.text(), st.integers(1, 254))
def test_a_string_is_measured_in_bytes(text, size):
    got, status, _ = convert(text, 12, False, parse_type(f"string[{size}]"))
    assert (status == GOOD) == (len(text.encode()) <= size)
    assert got in (text, None)


def test_text_that_is_not_utf_8_is_no_value():
    got, status, trouble = convert(b"caf\xe9".decode(errors="surrogateescape"), 12, False, parse_type("string[8]"))
    assert (got, status) == (None, BAD_TYPE_MISMATCH)
    assert "UTF-8" in trouble


def test_kinds_are_not_mixed():
    samples = {"bool": True, "int": 1, "float": 1.5, "string": "x"}
    for number, node in BUILT_IN.items():
        for kind, value in samples.items():
            accepted = kind == node.kind or (kind == "int" and node.kind == "float")
            assert (refusal(value, node) == GOOD) == accepted, (number, value)
    assert refusal(float("nan"), TYPES["float32"]) == BAD_OUT_OF_RANGE
    assert refusal(1e300, TYPES["float32"]) == BAD_OUT_OF_RANGE
