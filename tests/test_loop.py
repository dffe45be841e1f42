"""The loop on real sockets, cycle by cycle: what goes out where, and what happens when somebody does not listen."""

import gc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from drivers.value import GOOD
from edge import channel, loop
from edge.batch import State
from edge.image import OUTPUT, RECORD, TICK, device_of, since_cause, skipped_before, unpack_record, unpack_tick
from edge.loop import Loop, Sockets
from edge.messages import (
    Ack,
    Command,
    CommandDone,
    Commit,
    DeviceReport,
    Hello,
    Snapshot,
    pack,
    unpack_events,
    unpack_inward,
    unpack_outward,
)
from tests.virtual import plan_of

WAIT = "recipe: wait\nuses: [plc]\nsteps:\n  - {name: Open, during: {plc.valve: true}, wait: 10 s}\n"


class Desk:
    """A loop and the other ends of its sockets."""

    def __init__(self, folder: Path) -> None:
        self.plan = plan_of(folder, WAIT)
        self.pairs = {name: channel.pair() for name in ("bus", "commits", "journal", "watcher")}
        bus, commits, journal, watcher = (ends[0] for ends in self.pairs.values())
        self.loop = Loop(self.plan, Sockets([bus], ["modbus"], commits, journal, watcher), [])
        self.cycle = 0

    def run(self, cycles: int = 1) -> None:
        for _ in range(cycles):
            self.cycle += 1
            self.loop.run_cycle(self.cycle)

    def send(self, name: str, message: object) -> None:
        assert channel.send(self.pairs[name][1], pack(message))  # type: ignore[arg-type]

    def take(self, name: str) -> list[bytes]:
        return channel.drain(self.pairs[name][1], 100_000)

    def present(self) -> None:
        """Both devices come, with all values good."""
        for layout in self.loop.engine.layouts:
            self.send("bus", DeviceReport(layout.device, True, GOOD))
            blank = layout.inputs.blanks
            assert channel.send(self.pairs["bus"][1], layout.pack_input(1, 0, 0, blank))

    def start(self) -> None:
        self.present()
        self.send("watcher", Command(1, "start", "tester", "B1", "wait"))

    def commits(self) -> list[int]:
        return [one.commit for one in map(unpack_outward, self.take("commits")) if isinstance(one, Commit)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    for ends in desk.pairs.values():
        for end in ends:
            end.close()


def outputs(packets: list[bytes]) -> set[int]:
    return {device_of(packet) for packet in packets if packet[0] == OUTPUT}


def test_the_first_cycle_gives_every_device_its_levels(desk: Desk) -> None:
    desk.run(2)
    packets = desk.take("bus")
    assert outputs(packets) == {0, 1}
    assert any(packet[0] == TICK for packet in packets)


def test_a_fieldbus_process_that_starts_anew_gets_its_levels_again(desk: Desk) -> None:
    desk.run(2)
    desk.take("bus")
    desk.send("bus", Hello("fieldbus"))
    desk.run(3)
    assert outputs(desk.take("bus")) == {0, 1}


def test_unacknowledged_commits_are_sent_again_to_a_new_recorder_and_acknowledged_ones_are_not(desk: Desk) -> None:
    desk.start()
    desk.run(1)
    first = desk.commits()
    assert first
    desk.send("commits", Hello("recorder"))
    desk.run(1)
    assert desk.commits() == first
    desk.send("commits", Ack(first[-1]))
    desk.run(1)
    desk.send("commits", Hello("recorder"))
    desk.run(1)
    assert not set(desk.commits()) & set(first)


def test_a_watcher_gets_a_snapshot_when_it_asks_and_every_record_after(desk: Desk) -> None:
    desk.run(1)
    desk.take("watcher")
    desk.send("watcher", Hello("page"))
    desk.start()
    desk.run(2)
    packets = desk.take("watcher")
    assert any(isinstance(unpack_outward(packet), Snapshot) for packet in packets if packet[0] == 0)
    events = [event for packet in packets if packet[0] == RECORD for event in unpack_events(unpack_record(packet)[3])]
    assert CommandDone(1, True, "", "B1") in events


def test_what_the_loop_drained_is_in_the_journal_with_its_cycle(desk: Desk) -> None:
    desk.run(3)
    desk.take("journal")
    desk.start()
    desk.run(1)
    (record,) = desk.take("journal")
    cycle, inputs, _, _ = unpack_record(record)
    assert cycle == 4
    assert Command(1, "start", "tester", "B1", "wait") in [unpack_inward(one) for one in inputs if one[0] == 0]


def test_a_reader_who_does_not_read_makes_nobody_wait_and_is_told_of_the_gap(desk: Desk) -> None:
    desk.present()
    desk.run(1)
    frame = desk.loop.engine.layouts[0].pack_input(2, 0, 0, desk.loop.engine.layouts[0].inputs.blanks)
    bus = desk.pairs["bus"][1]
    for _ in range(40_000):
        channel.send(bus, frame)
        desk.run(1)
        desk.take("bus")
        desk.take("watcher")
        desk.take("commits")
        if desk.loop.dropped > 2:
            break
    assert desk.loop.dropped > 2
    seen = [unpack_record(packet) for packet in desk.take("journal")]
    assert all(later[0] == earlier[0] + 1 for earlier, later in pairwise(seen))
    channel.send(bus, frame)
    desk.run(1)
    gap, after, keyframe = desk.take("journal")
    gap, after = unpack_record(gap), unpack_record(after)
    assert [unpack_inward(one) for one in gap[1]] == [Hello("gap")]
    assert after[0] == desk.cycle
    snapshot = unpack_outward(keyframe)
    assert isinstance(snapshot, Snapshot) and snapshot.cycle == desk.cycle, "so that a replay can go on"


def test_the_journal_has_what_an_overrun_skipped_and_a_keyframe_where_it_asks(desk: Desk) -> None:
    desk.present()
    desk.run(3)
    desk.take("journal")
    desk.cycle += 4
    desk.run(1)
    (record,) = desk.take("journal")
    assert unpack_record(record) == (8, [], [], b"") and skipped_before(record) == 4
    desk.send("journal", Hello("journal"))
    desk.run(2)
    (keyframe,) = [packet for packet in desk.take("journal") if packet[0] != RECORD]
    snapshot = unpack_outward(keyframe)
    assert isinstance(snapshot, Snapshot)
    assert msgspec.msgpack.decode(snapshot.state, type=State).cycle == snapshot.cycle


def test_garbage_on_any_socket_is_not_an_input(desk: Desk) -> None:
    desk.start()
    desk.run(2)
    for name in ("bus", "commits", "watcher"):
        for garbage in (b"\x00garbage", b"\x09", b"\x01\x00"):
            channel.send(desk.pairs[name][1], garbage)
    desk.run(2)
    assert desk.loop.engine.state.batches["B1"].state == "running"


def test_how_old_a_frame_is_when_its_cycle_is_due_is_counted_for_its_device(desk: Desk) -> None:
    layout, scan_ns = desk.loop.engine.layouts[1], desk.plan.cell.scan_ns
    desk.loop.origin_ns = 10**12
    channel.send(desk.pairs["bus"][1], layout.pack_unchanged(1, 10**12 + scan_ns - 3_000_000, 0))
    channel.send(desk.pairs["bus"][1], layout.pack_unchanged(2, 10**12 + scan_ns + 1, 0))
    desk.run(1)
    ages = desk.loop.stats().ages
    assert [sum(one.counts) for one in ages] == [0, 2]
    assert ages[1].sum_s == 0.003, "one that came after the cycle was due has no age"


def test_outputs_say_which_inputs_they_answer_and_ticks_when_they_are_due(desk: Desk) -> None:
    desk.loop.origin_ns = 10**12
    desk.run(1)
    first = desk.take("bus")
    assert [since_cause(packet, 0) for packet in first if packet[0] == OUTPUT] == [None, None]
    assert [unpack_tick(packet) for packet in first if packet[0] == TICK] == [(1, 10**12 + desk.plan.cell.scan_ns)]
    for layout in desk.loop.engine.layouts:
        frame = layout.pack_input(1, 5_000_000 * (layout.device + 1), 0, layout.inputs.blanks)
        assert channel.send(desk.pairs["bus"][1], frame)
    desk.run(1)
    answers = [packet for packet in desk.take("bus") if packet[0] == OUTPUT]
    assert answers, "a device that has come is told its levels"
    assert {since_cause(packet, 25_000_000) for packet in answers} == {20_000_000}, "of several, the first to come"
    records = [unpack_record(packet) for packet in desk.take("journal")]
    assert all(since_cause(frame, 0) is None for record in records for frame in record[2]), "the record is the engine's"


def test_the_snapshot_of_a_large_cell_reaches_its_watcher(desk: Desk) -> None:
    desk.run(2)
    desk.loop.engine.state.reports = [DeviceReport(0, True, GOOD, "x" * 1000)] * 1000
    desk.take("watcher")
    desk.send("watcher", Hello("page"))
    desk.run(3)
    (snapshot,) = [one for one in map(unpack_outward, desk.take("watcher")) if isinstance(one, Snapshot)]
    assert len(snapshot.state) > 1_000_000
    assert msgspec.msgpack.decode(snapshot.state, type=State).values == desk.loop.engine.state.values


def test_what_a_loop_may_not_have_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_LATENCY", str(tmp_path / "missing"))
    monkeypatch.setattr(loop, "_lock_memory", lambda: False)
    monkeypatch.setattr(loop.os, "sched_setscheduler", refuse)
    monkeypatch.setattr(loop.os, "sched_setaffinity", refuse)
    try:
        refused = loop.make_realtime(3)
    finally:
        gc.unfreeze()
        gc.enable()
    assert len(refused) == 4
    assert "core 3" in refused and f"a processor that stays awake ({tmp_path / 'missing'})" in refused


def refuse(*_: object) -> None:
    raise PermissionError
