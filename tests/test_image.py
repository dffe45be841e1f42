"""Frames and messages: what is packed is what is unpacked, for every type; anything else is refused, never misread."""

import struct
from array import array
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.blocks import Runs
from drivers.value import TYPES, DataType, parse_type
from edge import image
from edge.language.cell import Cell, Device, Tag
from edge.messages import (
    Ack,
    Command,
    Commit,
    DeviceReport,
    Recorded,
    StateChanged,
    pack,
    pack_events,
    unpack_events,
    unpack_inward,
    unpack_outward,
)

KINDS = [*TYPES.values(), parse_type("string[8]")]


def cell_of(kinds: list[DataType]) -> Cell:
    tags = tuple(Tag(place, f"d.t{place}", 0, "", kind, writable=place % 2 == 0) for place, kind in enumerate(kinds))
    device = Device(0, "d", "modbus", msgspec.Struct(), 10_000_000, tuple(range(len(tags))))
    return Cell("c", str(Path("c")), 10_000_000, (device,), tags, {"d": (0,)}, {})


def values_of(kind: DataType) -> st.SearchStrategy:
    if kind.kind == "bool":
        return st.booleans()
    if kind.kind == "string":
        return st.text(st.characters(min_codepoint=1, max_codepoint=0x7FF), max_size=4)
    if kind.kind == "int":
        return st.integers(int(kind.low), int(kind.high))
    return st.floats(allow_nan=False, allow_infinity=False, width=32 if kind.name == "float32" else 64)


@st.composite
def frames(draw) -> tuple:
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=12))
    values = [draw(st.none() | values_of(kind)) for kind in kinds]
    statuses = draw(st.none() | st.lists(st.integers(0, 2**32 - 1), min_size=len(kinds), max_size=len(kinds)))
    times = draw(st.none() | st.lists(st.integers(0, 2**62), min_size=len(kinds), max_size=len(kinds)))
    return kinds, values, statuses, times


@given(frames())
def test_an_input_frame_is_taken_apart_as_it_was_packed(frame) -> None:
    kinds, values, statuses, times = frame
    layout = image.layouts(cell_of(kinds))[0]
    taken = layout.unpack_input(layout.pack_input(7, 11, 13, values, statuses, times))
    assert (taken.scan, taken.received_ns, taken.time_ns) == (7, 11, 13)
    assert (list(taken.statuses) if taken.statuses is not None else None) == statuses
    assert (list(taken.times) if taken.times is not None else None) == times
    assert taken.values is not None
    for value, found in zip(values, taken.values, strict=True):
        assert found == value if value is not None else not found


def test_machine_numbers_are_packed_as_others_are() -> None:
    """Arrays and runs of them, whatever the frame wants of them: a number that is scaled is packed as a float64."""
    kinds = [*[TYPES["int16"]] * 3, *[TYPES["float32"]] * 2, TYPES["bool"], *[TYPES["uint64"]] * 2]
    layout = image.layouts(cell_of(kinds))[0]
    ints, floats = array("h", [-1, 2, 3]), array("f", [0.5, -7.25])
    made = Runs([ints, Runs([floats, (True,)]), array("Q", [1, 2**64 - 1])])
    assert layout.pack_input(1, 2, 3, made) == layout.pack_input(1, 2, 3, list(made))
    wide = image.layouts(cell_of([TYPES["float64"]] * 5))[0]
    mixed = Runs([floats, ints])
    assert wide.unpack_input(wide.pack_input(1, 2, 3, mixed)).values == (0.5, -7.25, -1, 2, 3)
    short = image.layouts(cell_of([TYPES["int16"]] * 3))[0]
    assert short.unpack_input(short.pack_input(1, 2, 3, ints)).values == (-1, 2, 3)


@given(frames())
def test_an_output_frame_has_the_levels_of_the_outputs_alone(frame) -> None:
    kinds, values, _, _ = frame
    layout = image.layouts(cell_of(kinds))[0]
    levels = [values[place] for place in layout.outputs]
    cycle, found = layout.unpack_output(layout.pack_output(99, levels))
    assert cycle == 99
    for level, value in zip(levels, found, strict=True):
        assert value == level if level is not None else not value


def test_an_unchanged_frame_has_no_values() -> None:
    layout = image.layouts(cell_of(KINDS))[0]
    assert layout.unpack_input(layout.pack_unchanged(1, 2, 3)).values is None


@given(st.binary(max_size=60))
def test_any_other_bytes_are_refused_in_one_way(data: bytes) -> None:
    layout = image.layouts(cell_of(KINDS))[0]
    for read in (layout.unpack_input, layout.unpack_output, image.device_of, image.unpack_tick, image.unpack_record):
        try:
            read(data)
        except struct.error:
            continue


def test_tags_of_a_device_must_follow_one_another() -> None:
    cell = cell_of(KINDS[:3])
    scattered = msgspec.structs.replace(cell.devices[0], tags=(0, 2))
    with pytest.raises(ValueError, match="do not follow"):
        image.Layout(cell, scattered)


@given(
    st.integers(0, 2**63), st.lists(st.binary(max_size=50), max_size=5), st.lists(st.binary(max_size=50), max_size=5)
)
def test_a_record_keeps_what_came_in_and_went_out(cycle: int, inputs: list[bytes], outputs: list[bytes]) -> None:
    events = pack_events(
        [Recorded("B1", 3, "filled", 12.5, "L"), StateChanged("B1", "idle", "running", "started", "me")]
    )
    assert image.unpack_record(image.pack_record(cycle, inputs, outputs, events)) == (cycle, inputs, outputs, events)
    assert unpack_events(events)[0] == Recorded("B1", 3, "filled", 12.5, "L")


@pytest.mark.parametrize(
    "message", [Ack(3), DeviceReport(1, False, 5, "lost", "look"), Command(1, "start", "me", "B", "fill", {"v": 1.5})]
)
def test_messages_to_the_loop_come_as_they_were_sent(message) -> None:
    assert unpack_inward(pack(message)) == message


def test_a_commit_comes_as_it_was_sent() -> None:
    commit = Commit(4, 100, (StateChanged("B1", "running", "held", "why", "device"),), {"B1": b"state"})
    assert unpack_outward(pack(commit)) == commit


@given(st.integers(0, 2**62), st.integers(0, 3_600_000_000_000))
def test_an_output_frame_says_how_long_ago_its_cause_came(arrived, since) -> None:
    layout = image.layouts(cell_of(KINDS))[0]
    levels = [layout.levels.blanks[place] for place in range(len(layout.outputs))]
    plain = layout.pack_output(99, levels)
    frame = image.caused(plain, arrived)
    assert image.since_cause(plain, arrived) is None
    assert image.since_cause(frame, arrived + since) == pytest.approx(since, abs=1000)
    assert layout.unpack_output(frame) == layout.unpack_output(plain)
    assert image.device_of(frame) == 0


def test_a_tick_says_when_its_cycle_was_due() -> None:
    assert image.unpack_tick(image.pack_tick(2**40, 2**62)) == (2**40, 2**62)


def test_an_input_frame_says_when_it_arrived_and_whether_it_brings_values() -> None:
    layout = image.layouts(cell_of(KINDS))[0]
    assert image.arrival(layout.pack_input(1, 2**62, 0, layout.inputs.blanks)) == (0, True, 2**62)
    assert image.arrival(layout.pack_unchanged(1, 3, 0)) == (0, False, 3)
