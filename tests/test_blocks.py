"""Spans -> blocks, and values out of blocks: properties for any points, and cases that a person can count."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.blocks import MANY, Block, Field, coalesce, unpacker
from drivers.value import TYPES, parse_type

SPANS = st.dictionaries(
    st.integers(0, 200), st.tuples(st.integers(0, 300), st.sampled_from([1, 1, 1, 2, 4, 8])), max_size=40
)


@given(SPANS, st.integers(8, 125), st.integers(0, 10))
def test_every_point_is_whole_in_exactly_one_legal_block(
    spans: dict[int, tuple[int, int]], limit: int, gap: int
) -> None:
    blocks = coalesce(spans, limit, gap)
    assert sorted(point for block in blocks for point in block.members) == sorted(spans)
    for block in blocks:
        assert block.size <= limit
        asked = set[int]()
        for point in block.members:
            start, size = spans[point]
            assert block.start <= start and start + size <= block.start + block.size
            asked.update(range(start, start + size))
        assert {block.start, block.start + block.size - 1} <= asked
        assert all(high - low - 1 <= gap for low, high in pairwise(sorted(asked)))


@given(SPANS, st.integers(8, 125))
def test_without_a_gap_nothing_is_read_that_no_point_needs(spans: dict[int, tuple[int, int]], limit: int) -> None:
    for block in coalesce(spans, limit):
        read = set(range(block.start, block.start + block.size))
        assert read == {at for point in block.members for at in range(spans[point][0], sum(spans[point]))}


@given(SPANS, st.integers(8, 60))
def test_there_are_never_fewer_blocks_possible(spans: dict[int, tuple[int, int]], limit: int) -> None:
    """Points that start a block of the answer cannot share a read: each lies out of reach of the one before."""
    blocks = coalesce(spans, limit)
    for block, following in pairwise(blocks):
        first = min((spans[point] for point in following.members), key=lambda span: span[0])
        assert first[0] > block.start + block.size or sum(first) - block.start > limit


@pytest.mark.parametrize(
    ("spans", "limit", "gap", "expected"),
    [
        ([], 125, 0, []),
        ([(10, 1)], 125, 0, [(10, 1)]),
        ([(at, 1) for at in range(125)], 125, 0, [(0, 125)]),
        ([(at, 1) for at in range(126)], 125, 0, [(0, 125), (125, 1)]),
        ([(at, 2) for at in range(0, 126, 2)], 125, 0, [(0, 124), (124, 2)]),  # the 63rd value is not cut in two
        ([(10, 1), (12, 1)], 125, 0, [(10, 1), (12, 1)]),
        ([(10, 1), (12, 1)], 125, 1, [(10, 3)]),
        ([(10, 1), (13, 1)], 125, 1, [(10, 1), (13, 1)]),
        ([(10, 2), (10, 1), (11, 1), (10, 2)], 125, 0, [(10, 2)]),
        ([(0, 4), (1, 1), (4, 1)], 125, 0, [(0, 5)]),
        ([(0, 200), (10, 1), (200, 1)], 125, 0, [(0, 200), (10, 1), (200, 1)]),  # over the limit: by itself
    ],
)
def test_blocks_that_can_be_counted(
    spans: list[tuple[int, int]], limit: int, gap: int, expected: list[tuple[int, int]]
) -> None:
    blocks = coalesce(dict(enumerate(spans)), limit, gap)
    assert [(block.start, block.size) for block in blocks] == expected


def test_members_are_in_order_of_place() -> None:
    assert coalesce({7: (3, 1), 2: (1, 2), 5: (1, 1)}, 10) == [Block(1, 3, (5, 2, 7))]


@st.composite
def fields_and_values(draw: st.DrawFn) -> tuple[list[Field], list[object]]:
    """Fields anywhere in a block, in any order of bytes, that do not touch one another's bytes; a value for each."""
    kinds = draw(st.lists(st.sampled_from([*TYPES.values(), parse_type("string[5]")]), min_size=1, max_size=12))
    fields: list[Field] = []
    values: list[object] = []
    at = 0
    for kind in kinds:
        at += draw(st.integers(0, 3))
        places = range(at, at + kind.size)
        at += kind.size
        swapped = draw(st.booleans()) and kind.kind != "string"
        fields.append(Field(kind, tuple(reversed(places) if swapped else places), draw(st.integers(0, 7))))
        if kind.kind == "bool":
            values.append(draw(st.booleans()))
        elif kind.kind == "string":
            values.append(draw(st.text(st.characters(exclude_characters="\0", codec="ascii"), max_size=5)))
        elif kind.kind == "int":
            values.append(draw(st.integers(int(kind.low), int(kind.high))))
        else:
            values.append(draw(st.floats(width=kind.size * 8, allow_nan=False)))
    order = draw(st.permutations(range(len(fields)))) if draw(st.booleans()) else range(len(fields))
    return [fields[index] for index in order], [values[index] for index in order]


@given(fields_and_values())
def test_what_is_put_into_a_block_is_taken_out_again(case: tuple[list[Field], list[object]]) -> None:
    fields, values = case
    buffer = bytearray(max(max(field.places) for field in fields) + 1)
    for field, value in zip(fields, values, strict=True):
        field.put(buffer, value)
    assert list(unpacker(fields)(bytes(buffer))) == values


def test_fields_may_overlap_and_share_bytes() -> None:
    word, low = Field(TYPES["uint16"], (0, 1)), Field(TYPES["uint8"], (1,))
    bits = [Field(TYPES["bool"], (1,), bit) for bit in range(8)]
    assert unpacker([word, low, *bits])(b"\x12\x85") == [0x1285, 0x85, 1, 0, 1, 0, 0, 0, 0, 1]


def test_a_bit_is_put_without_touching_its_neighbours() -> None:
    buffer = bytearray(b"\xf0")
    Field(TYPES["bool"], (0,), 7).put(buffer, False)
    Field(TYPES["bool"], (0,), 1).put(buffer, True)
    assert buffer == b"\x72"


def test_a_string_ends_at_its_first_nul_and_broken_letters_show() -> None:
    field = Field(parse_type("string[6]"), tuple(range(6)))
    assert unpacker([field])(b"ab\0cd\0") == ["ab"]
    assert unpacker([field])(b"\xc3\xa9a\xff\0\0") == ["éa\ufffd"]


@pytest.mark.parametrize(
    ("kind", "value"), [("int8", 128), ("uint16", -1), ("uint32", 2**32), ("string[3]", "four"), ("float32", 1e39)]
)
def test_a_value_that_does_not_fit_is_refused(kind: str, value: int | float | str) -> None:
    field = Field(parse_type(kind), tuple(range(parse_type(kind).size)))
    with pytest.raises(ValueError, match=r"does not fit|is longer"):
        field.put(bytearray(8), value)


def test_values_of_one_order_cost_one_struct() -> None:
    """The layout of a usual block is the same as a struct written by hand."""
    fields = [Field(TYPES["uint16"], (0, 1)), Field(TYPES["float32"], (4, 5, 6, 7)), Field(TYPES["int16"], (8, 9))]
    data = struct.pack(">Hxxfh", 7, 1.5, -3)
    assert list(unpacker(fields)(data)) == [7, 1.5, -3]


@pytest.mark.parametrize(("kind", "letter"), [("uint8", "B"), ("int16", "h"), ("uint64", "Q"), ("float32", "f")])
def test_many_numbers_of_one_type_are_taken_out_as_by_a_struct(kind: str, letter: str) -> None:
    size, start, count = TYPES[kind].size, 4, MANY
    places = [tuple(range(start + size * number, start + size * (number + 1))) for number in range(count)]
    fields = [Field(TYPES[kind], place) for place in places]
    numbers = [number + 0.5 if kind == "float32" else number for number in range(count)]
    data = bytes(start) + struct.pack(f">{count}{letter}", *numbers) + b"more"
    assert list(unpacker(fields)(data)) == numbers
    swapped = [Field(TYPES[kind], place[::-1]) for place in places]
    little = bytes(start) + struct.pack(f"<{count}{letter}", *numbers)
    assert list(unpacker(swapped)(little)) == numbers


@given(
    st.lists(st.tuples(st.sampled_from(["int16", "float32", "uint8", "bool"]), st.integers(1, 2 * MANY)), max_size=5)
)
def test_a_block_of_several_types_gives_what_each_field_alone_gives(stretches: list[tuple[str, int]]) -> None:
    fields, at = list[Field](), 0
    for kind, count in stretches:
        for _ in range(count):
            fields.append(Field(TYPES[kind], tuple(range(at, at + TYPES[kind].size))))
            at += TYPES[kind].size
    data = bytes(number * 7 % 120 for number in range(at))
    values = unpacker(fields)(data)
    alone = [unpacker([field])(data)[0] for field in fields]
    assert (len(values), list(values)) == (len(alone), alone)
    assert [values[place] for place in range(len(alone))] == alone
