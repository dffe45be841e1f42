"""A device's frames: the values of its scans in the tags' units, whole where something is new and small where not."""

from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from drivers.value import BAD_OUT_OF_RANGE, BAD_TIMEOUT, GOOD, Scale, Scan, Value, from_raw, is_good, parse_type
from edge.image import Input, Layout
from edge.inputs import FULL_FRAME_NS, Inputs
from edge.language.cell import Cell, Device, Tag

KINDS = [("float32", None), ("uint16", Scale(0, 1000, 0, 500)), ("bool", None), ("string[8]", None), ("int64", None)]
RAW = (
    st.floats(width=32) | st.none(),
    st.integers(0, 65535) | st.none(),
    st.booleans() | st.none(),
    st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=8) | st.none(),
    st.integers(-(2**63), 2**63 - 1) | st.none(),
)


class Bench:
    def __init__(self) -> None:
        tags = [
            Tag(place, f"d.t{place}", 0, "", parse_type(kind), scale=scale) for place, (kind, scale) in enumerate(KINDS)
        ]
        device = Device(0, "d", "modbus", msgspec.Struct(), 10_000_000, tuple(range(len(tags))))
        cell = Cell("c", str(Path("c")), 10_000_000, (device,), tuple(tags), {"d": (0,)}, {})
        self.tags = tags
        self.layout = Layout(cell, device)
        self.frames: list[bytes] = []
        self.room = True
        self.inputs = Inputs(self.layout, tags, self.send)

    def send(self, frame: bytes) -> bool:
        if self.room:
            self.frames.append(frame)
        return self.room

    def scan(self, values: list[Value | None], *, changed: bool = True, now_ns: int = 0) -> Input | None:
        statuses = [BAD_TIMEOUT if value is None else GOOD for value in values]
        self.inputs.take(Scan(values, statuses, 1, changed))
        self.frames.clear()
        self.inputs.send(1, now_ns)
        return self.layout.unpack_input(self.frames[0]) if self.frames else None


GOOD_VALUES: list[Value | None] = [1.5, 500, True, "lot", 7]


@given(st.tuples(*RAW))
def test_values_are_those_that_each_tag_s_raw_value_stands_for(raw) -> None:
    bench = Bench()
    taken = bench.scan(list(raw))
    assert taken is not None and taken.values is not None
    statuses = taken.statuses or [GOOD] * len(raw)
    for value, status, one, tag in zip(taken.values, statuses, raw, bench.tags, strict=True):
        meant = from_raw(one, tag.scale)
        if meant is None:
            assert status == (BAD_TIMEOUT if one is None else BAD_OUT_OF_RANGE)
        else:
            assert is_good(status) and value == meant


def test_what_has_not_changed_is_a_small_frame_and_whole_again_after_a_second() -> None:
    bench = Bench()
    assert bench.scan(GOOD_VALUES).values is not None
    assert bench.scan(GOOD_VALUES, changed=False).values is None
    assert bench.scan(GOOD_VALUES, changed=False, now_ns=FULL_FRAME_NS).values == [1.5, 250.0, True, "lot", 7]


def test_a_frame_that_did_not_go_out_is_sent_again() -> None:
    bench = Bench()
    bench.room = False
    assert bench.scan(GOOD_VALUES) is None
    bench.room = True
    assert bench.scan(GOOD_VALUES, changed=False).values is not None


def test_after_a_loss_the_next_scan_is_new_whatever_it_says() -> None:
    bench = Bench()
    bench.scan(GOOD_VALUES)
    bench.inputs.forget()
    assert bench.inputs.take(Scan(GOOD_VALUES, [GOOD] * 5, 1, changed=False))


def test_values_that_are_too_old_are_bad_until_the_next_scan() -> None:
    bench = Bench()
    bench.scan(GOOD_VALUES)
    bench.frames.clear()
    bench.inputs.send_bad(1, 0, BAD_TIMEOUT)
    assert bench.layout.unpack_input(bench.frames[0]).statuses == (BAD_TIMEOUT,) * 5
    assert bench.scan(GOOD_VALUES, changed=False).values is not None
