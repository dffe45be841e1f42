"""The journal: what goes in comes out, what is missing shows, and it never grows past its bound."""

import errno
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import journal
from edge.image import pack_record
from edge.journal import FORMAT, Cycle, Gap, Header, Journal, header_of, read_journal
from edge.messages import Hello, pack
from tests.recording import RUN, TEXT, plan_in

HEADER = Header(FORMAT, RUN, 10_000_000, "bottling")
GAP = pack_record(7, [pack(Hello("gap"))], [], b"")


def record(cycle: int, size: int = 20) -> bytes:
    return pack_record(cycle, [b"\x01" * size], [b"\x02" * size], b"")


def write(folder: Path, *packets: bytes, header: Header = HEADER) -> Path:
    """A journal of these records; gives its last segment."""
    writer = Journal(folder, header)
    writer.begin()
    for packet in packets:
        writer.add(packet)
    writer.close()
    return segments(folder)[-1]


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "journal").iterdir())


def cycles(folder: Path) -> list[int | str]:
    """The cycles that are there; `run` and `gap` where they are."""
    names = {Header: "run", Gap: "gap"}
    return [item.cycle if isinstance(item, Cycle) else names[type(item)] for item in read_journal(folder)]


frames = st.lists(st.binary(min_size=1, max_size=40), max_size=4)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), frames, frames, st.binary(max_size=20)), max_size=30))
@settings(max_examples=50)
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, records: list) -> None:
    folder = tmp_path_factory.mktemp("journal")
    write(folder, *[pack_record(*one) for one in records])
    header, *items = read_journal(folder)
    assert isinstance(header, Header) and (header.run, header.scan_ns, header.cell) == (RUN, 10_000_000, "bottling")
    assert items == [Cycle(*one) for one in records]


def test_no_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert list(read_journal(tmp_path)) == []


def test_it_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    writer = Journal(tmp_path, HEADER)
    writer.begin()
    assert cycles(tmp_path) == ["run"]
    assert writer.due_s is None
    writer.add(record(1))
    assert writer.due_s is not None and writer.due_s <= journal.FLUSH_S
    writer.flush()
    assert cycles(tmp_path) == ["run", 1] and writer.due_s is None
    for cycle in range(2, 3000):
        writer.add(record(cycle))
    assert len(cycles(tmp_path)) > 1000  # a block is written when it is full, not only after a second
    writer.close()
    assert cycles(tmp_path) == ["run", *range(1, 3000)]


def test_cycles_in_which_nothing_changed_cost_few_bytes(tmp_path: Path) -> None:
    unchanged = [pack_record(n, [b"\x01\x04\x00\x00" + n.to_bytes(20, "little")], [], b"") for n in range(1000)]
    assert write(tmp_path, *unchanged).stat().st_size < 16 * 1000


# --- what is missing shows -------------------------------------------------------------------------------------------


def test_a_tail_torn_anywhere_is_read_up_to(tmp_path: Path) -> None:
    writer = Journal(tmp_path, HEADER)
    writer.begin()
    ends = [segments(tmp_path)[0].stat().st_size]
    for cycle in (1, 2, 3):
        writer.add(record(cycle))
        writer.flush()
        ends.append(segments(tmp_path)[0].stat().st_size)
    writer.close()
    (segment,) = segments(tmp_path)
    whole = segment.read_bytes()
    for length in range(len(whole)):
        segment.write_bytes(whole[:length])
        blocks = sum(length >= end for end in ends)
        expected: list[int | str] = ["run", *range(1, blocks)] if blocks else []
        if length not in ends:
            expected.append("gap")
        assert cycles(tmp_path) == expected, length


@pytest.mark.parametrize("tail", [b"\x00" * 4096, b"\xff" * 9, b"\x05\x00\x00\x00"])
def test_what_a_power_cut_left_at_the_end_is_no_record(tmp_path: Path, tail: bytes) -> None:
    segment = write(tmp_path, record(1), record(2))
    segment.write_bytes(segment.read_bytes() + tail)
    assert cycles(tmp_path) == ["run", 1, 2, "gap"]


@given(st.data())
@settings(max_examples=100)
def test_no_damage_is_read_as_a_record(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    segment = write(folder, *[record(cycle) for cycle in range(50)])
    whole = bytearray(segment.read_bytes())
    place = data.draw(st.integers(0, 9999)) % len(whole)
    whole[place] ^= data.draw(st.integers(1, 255))
    segment.write_bytes(whole)
    assert "gap" in cycles(folder) or cycles(folder) == ["run", *range(50)]


def test_a_recorder_that_began_anew_within_a_run_leaves_a_gap(tmp_path: Path) -> None:
    write(tmp_path, record(1))
    write(tmp_path, record(5))
    assert cycles(tmp_path) == ["run", 1, "gap", 5]


def test_a_recorder_that_was_killed_before_its_first_record_leaves_a_gap_too(tmp_path: Path) -> None:
    Journal(tmp_path, HEADER).begin()
    write(tmp_path, record(5))
    assert cycles(tmp_path) == ["run", "gap", 5]


def test_another_run_begins_with_its_own_header(tmp_path: Path) -> None:
    write(tmp_path, record(1))
    write(tmp_path, record(1), header=Header(FORMAT, RUN + 1, 10_000_000, "bottling"))
    assert cycles(tmp_path) == ["run", 1, "run", 1]


def test_the_loops_word_that_it_could_not_hand_over_is_a_gap(tmp_path: Path) -> None:
    write(tmp_path, record(1), GAP, record(9))
    assert cycles(tmp_path) == ["run", 1, "gap", 9]


def test_a_record_of_rubbish_or_a_segment_of_another_format_is_a_gap(tmp_path: Path) -> None:
    write(tmp_path, record(1), b"\x04", record(2))
    write(tmp_path, record(3), header=Header(FORMAT + 1, RUN, 10_000_000, "bottling"))
    (tmp_path / "journal" / "notes.txt").write_text("not a segment")
    assert cycles(tmp_path) == ["run", 1, "gap", 2, "gap"]


# --- the bound -------------------------------------------------------------------------------------------------------


def noise(cycle: int) -> bytes:
    return pack_record(cycle, [os.urandom(1000)], [], b"")


def test_segments_rotate_and_the_oldest_give_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    writer = Journal(tmp_path, HEADER, total_bytes=400_000, segment_bytes=100_000)
    writer.begin()
    largest = 0
    for cycle in range(2000):
        writer.add(noise(cycle))
        if cycle % 20 == 0:
            writer.flush()
            largest = max(largest, sum(one.stat().st_size for one in segments(tmp_path)))
    writer.close()
    assert largest <= 400_000 + 70_000  # the last block of a segment may reach past its end
    left = cycles(tmp_path)
    assert left[:2] == ["gap", "run"] and left[2:] == list(range(left[2], 2000))
    assert writer.deleted > 10
    assert sum("was deleted to make room" in one for one in caplog.messages) == writer.deleted


def test_a_segment_missing_in_the_middle_is_a_gap(tmp_path: Path) -> None:
    writer = Journal(tmp_path, HEADER, segment_bytes=1)
    for cycle in range(5):
        writer.add(record(cycle))
        writer.flush()
    segments(tmp_path)[2].unlink()
    assert cycles(tmp_path) == ["run", 0, 1, "gap", 3, 4]


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    for run in range(3):
        write(tmp_path, record(1), header=Header(FORMAT, run, 10_000_000, "bottling"))
    assert [one.name for one in segments(tmp_path)] == [f"{number:08}.journal" for number in (1, 2, 3)]


# --- disk trouble ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [0, 5])
def test_a_full_disk_costs_records_is_said_once_and_shows_as_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, written: int
) -> None:
    caplog.set_level(logging.INFO)
    writer = Journal(tmp_path, HEADER, segment_bytes=400)
    for cycle in range(10):
        writer.add(noise(cycle))
        writer.flush()
    whole = os.write

    def full(file: int, data: bytes) -> int:
        if written and len(data) > written:
            return whole(file, data[:written])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        for cycle in range(10, 14):
            writer.add(noise(cycle))
            writer.flush()
    assert writer.lost == 4
    for cycle in range(14, 16):
        writer.add(noise(cycle))
        writer.flush()
    writer.close()
    left = cycles(tmp_path)
    assert [item for item in left if isinstance(item, int)] == [4, 5, 6, 7, 8, 9, 14, 15]
    assert left[-3:] == ["gap", 14, 15]
    (trouble,) = [one for one in caplog.messages if "not kept" in one]
    assert "is full: free some space" in trouble
    assert [one for one in caplog.messages if "kept again; 4 records" in one]


def test_the_torn_end_of_a_segment_is_cut_off_when_the_disk_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Journal(tmp_path, HEADER)
    writer.add(record(1))
    writer.flush()
    size = segments(tmp_path)[0].stat().st_size
    whole, calls = os.write, iter([4])

    def torn(file: int, data: bytes) -> int:
        for length in calls:
            return whole(file, data[:length])
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", torn)
        writer.add(record(2))
        writer.flush()
    assert segments(tmp_path)[0].stat().st_size == size
    writer.add(record(3))
    writer.close()
    assert cycles(tmp_path) == ["run", 1, "gap", 3]


def test_its_header_has_the_texts_that_a_replay_needs(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    write(tmp_path, record(1), header=header_of(plan, RUN))
    header = next(read_journal(tmp_path))
    assert isinstance(header, Header)
    assert header.text == plan.text
    assert [(one.name, one.text, one.in_force) for one in header.recipes] == [("rinse-and-fill", TEXT, True)]
