"""A fieldbus process against a device in memory: what it tells the loop, and how a level gets to the device."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from drivers.driver import DeviceError
from drivers.value import (
    BAD_NO_COMMUNICATION,
    BAD_NODE_UNKNOWN,
    BAD_NOT_READABLE,
    BAD_NOT_WRITABLE,
    BAD_TIMEOUT,
    GOOD,
    Scan,
    Value,
    is_good,
)
from edge import channel, fieldbus, outputs
from edge.clock import now_ns
from edge.fieldbus import Fieldbus, Station
from edge.image import INPUT, caused, pack_tick
from edge.messages import DeviceReport, Hello, TagReport, pack, unpack_inward
from edge.troubles import Troubles
from tests.virtual import plan_of

DEADLINE_S = 10.0
WAIT = "recipe: wait\nuses: [plc]\nsteps:\n  - wait: 10 s\n"


class MemoryDriver:
    """A device that keeps what is written, unless told otherwise."""

    def __init__(self, settings, points: Sequence, connections: dict) -> None:
        self.points = points
        self.troubles: dict[str, str] = {}
        self.memory: list[Value] = [
            "" if one.type.kind == "string" else False if one.type.kind == "bool" else 0 for one in points
        ]
        self.shown: list[Value] = []
        self.there = True
        self.refused: set[int] = set()
        self.deaf: set[int] = set()
        self.written: list[tuple[int, Value]] = []
        self.scans = 0
        self.heard_ns: int | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def connect(self) -> None:
        self._check()

    def _check(self) -> None:
        if not self.there:
            raise DeviceError("no answer", "look at the cable", status=BAD_NO_COMMUNICATION)

    async def scan(self) -> Scan:
        self._check()
        await self.answers.wait()
        self.scans += 1
        changed, self.shown = self.memory != self.shown, list(self.memory)
        return Scan(self.shown, [GOOD] * len(self.memory), 1_000, changed, heard_ns=self.heard_ns)

    async def write(self, values: Mapping[int, Value]) -> dict[int, int]:
        self._check()
        await self.answers.wait()
        self.written += values.items()
        for place, value in values.items():
            if place not in self.refused and place not in self.deaf:
                self.memory[place] = value
        return {place: BAD_NOT_WRITABLE if place in self.refused else GOOD for place in values}

    async def close(self) -> None:
        pass


class Desk:
    """The process's parts without the process: one station of the cell `bench`, and the loop's end of the socket."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cell = plan_of(folder, WAIT).cell
        monkeypatch.setattr(fieldbus, "find", lambda name: MemoryDriver)
        ours, theirs = channel.pair()
        stats, watcher = channel.pair()
        self.sockets = (ours, theirs, stats, watcher)
        self.loop = theirs
        self.bus = Fieldbus(cell, "modbus", ours, stats)
        self.station: Station = self.bus.stations[0]
        self.driver: MemoryDriver = self.station.driver  # type: ignore[assignment]
        self.cell = cell
        self.heard: list[object] = []
        self.frames: list[bytes] = []

    def place(self, tag: str) -> int:
        return self.cell.tag(tag).index - self.station.layout.first

    def want(self, **levels: Value) -> None:
        """The loop's levels: failsafe but for those named."""
        layout, tags = self.station.layout, self.cell.tags
        all_levels = [levels.get(tags[index].name.split(".")[1], tags[index].failsafe) for index in layout.outputs]
        channel.send(self.loop, layout.pack_output(1, all_levels))
        self.bus.take()

    def take(self) -> None:
        for packet in channel.drain(self.loop):
            if packet[0] == INPUT:
                self.frames.append(packet)
            else:
                self.heard.append(unpack_inward(packet))

    async def until(self, condition) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self.bus.scanned.clear()
                await self.bus.scanned.wait()
                self.take()

    def reports(self, tag: str) -> list[TagReport]:
        self.take()
        return [one for one in self.heard if isinstance(one, TagReport) and one.tag == self.cell.tag(tag).index]


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(outputs, "WRITE_AGAIN_S", 0.01)
    monkeypatch.setattr(fieldbus, "FIRST_RETRY_S", 0.01)
    desk = Desk(tmp_path, monkeypatch)
    desk.bus.open()
    life = asyncio.create_task(desk.station.live())
    await desk.until(lambda: desk.station.up)
    yield desk
    life.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await life
    desk.bus.close()
    for end in desk.sockets:
        end.close()


async def test_a_level_is_written_and_then_settled(desk: Desk) -> None:
    desk.want(valve=True, speed=120)
    await desk.until(lambda: desk.station.settled)
    assert desk.driver.memory[desk.place("plc.valve")] is True
    assert desk.driver.memory[desk.place("plc.speed")] == 120
    before = len(desk.driver.written)
    scans = desk.driver.scans
    await desk.until(lambda: desk.driver.scans > scans + 5)
    assert len(desk.driver.written) == before


async def test_nothing_is_written_before_the_loop_has_said_anything(desk: Desk) -> None:
    scans = desk.driver.scans
    await desk.until(lambda: desk.driver.scans > scans + 5)
    assert desk.driver.written == []


async def test_what_the_device_forgets_is_written_again(desk: Desk) -> None:
    desk.want(valve=True)
    await desk.until(lambda: desk.station.settled)
    desk.driver.memory[desk.place("plc.valve")] = False
    await desk.until(lambda: desk.driver.memory[desk.place("plc.valve")] is True)


async def test_a_confirmed_write_that_is_not_applied_is_reported_once_and_when_it_is_over(desk: Desk) -> None:
    place = desk.place("plc.valve")
    desk.driver.deaf.add(place)
    desk.want(valve=True)
    await desk.until(lambda: desk.reports("plc.valve"))
    scans = desk.driver.scans
    await desk.until(lambda: desk.driver.scans > scans + 10)
    (report,) = desk.reports("plc.valve")
    assert report.write and "confirmed True but still shows False" in report.text
    desk.driver.deaf.clear()
    await desk.until(lambda: len(desk.reports("plc.valve")) == 2)
    assert is_good(desk.reports("plc.valve")[-1].status)


async def test_a_refused_write_is_reported_with_its_status(desk: Desk) -> None:
    desk.driver.refused.add(desk.place("plc.speed"))
    desk.want(speed=100)
    await desk.until(lambda: desk.reports("plc.speed"))
    assert desk.reports("plc.speed")[0].status == BAD_NOT_WRITABLE


async def test_a_new_level_overtakes_one_that_was_not_read_back_yet(desk: Desk) -> None:
    place = desk.place("plc.valve")
    desk.want(valve=True)
    desk.want(valve=False)
    desk.want(valve=True)
    desk.want(valve=False)
    await desk.until(lambda: desk.station.settled)
    assert desk.driver.memory[place] is False


async def test_a_lost_device_is_reported_found_again_and_gets_its_levels(desk: Desk) -> None:
    desk.want(valve=True)
    await desk.until(lambda: desk.station.settled)
    desk.driver.there = False
    await desk.until(lambda: desk.station.up is False)
    desk.driver.memory[desk.place("plc.valve")] = False
    desk.driver.there = True
    await desk.until(lambda: desk.driver.memory[desk.place("plc.valve")] is True)
    desk.take()
    ups = [one.up for one in desk.heard if isinstance(one, DeviceReport)]
    assert ups[0] is True and ups[-1] is True and False in ups


async def test_a_fault_in_the_driver_is_that_device_s_trouble(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.driver.memory = None  # type: ignore[assignment]
    await desk.until(lambda: desk.station.up is False)
    assert "a fault in its driver" in caplog.text


async def test_a_loop_that_starts_anew_is_told_everything(desk: Desk) -> None:
    desk.take()
    desk.heard.clear()
    desk.frames.clear()
    channel.send(desk.loop, pack(Hello("loop")))
    desk.bus.take()
    desk.take()
    assert DeviceReport(0, True, GOOD) in desk.heard
    assert any(desk.station.layout.unpack_input(frame).values is not None for frame in desk.frames)


async def test_unchanged_values_cost_a_small_frame(desk: Desk) -> None:
    scans = desk.driver.scans
    await desk.until(lambda: desk.driver.scans > scans + 5)
    assert any(desk.station.layout.unpack_input(frame).values is None for frame in desk.frames)


async def test_outputs_go_to_failsafe_when_the_loop_is_silent_and_wait_for_its_return(desk: Desk) -> None:
    desk.want(valve=True)
    await desk.until(lambda: desk.station.settled)
    desk.bus.heard_ns -= desk.cell.silence_ns
    desk.bus.watch()
    await desk.until(lambda: desk.station.settled)
    assert desk.driver.memory[desk.place("plc.valve")] is False
    desk.want(valve=True)
    assert desk.station.outputs.desired[desk.place("plc.valve")] is False, "a level of a silent loop is stale"
    channel.send(desk.loop, pack_tick(2, now_ns()))
    desk.bus.take()
    desk.take()
    assert Hello("fieldbus") in desk.heard
    desk.want(valve=True)
    await desk.until(lambda: desk.driver.memory[desk.place("plc.valve")] is True)


async def test_values_of_a_device_that_does_not_answer_are_bad_before_its_connection_is_given_up(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def last() -> list[int]:
        full = [frame for one in desk.frames if (frame := desk.station.layout.unpack_input(one)).values is not None]
        return list(full[-1].statuses or [GOOD]) if full else []

    await desk.until(lambda: last() and not any(last()))
    desk.driver.answers.clear()
    await desk.until(lambda: set(last()) == {BAD_TIMEOUT})
    assert desk.station.up is True
    assert "plc: no answer for 0.5 s: its values are too old to be used" in caplog.text
    desk.frames.clear()
    channel.send(desk.loop, pack(Hello("loop")))
    desk.bus.take()
    desk.take()
    assert set(last()) == {BAD_TIMEOUT}, "a loop that starts anew does not get the old values either"
    desk.driver.answers.set()
    await desk.until(lambda: not any(last()))


async def test_values_are_as_old_as_the_device_was_last_heard_not_as_the_scan_that_gave_them(desk: Desk) -> None:
    def last() -> list[int]:
        full = [frame for one in desk.frames if (frame := desk.station.layout.unpack_input(one)).values is not None]
        return list(full[-1].statuses or [GOOD]) if full else []

    desk.driver.heard_ns = now_ns() - desk.cell.devices[0].max_age_ns // 2
    await desk.until(lambda: desk.station.heard_ns == desk.driver.heard_ns)
    assert not desk.station.stale
    await desk.until(lambda: set(last()) == {BAD_TIMEOUT})
    scans = desk.driver.scans
    await desk.until(lambda: desk.driver.scans > scans + 3)
    assert set(last()) == {BAD_TIMEOUT}, "a scan that brings nothing new does not make them good again"
    desk.driver.heard_ns = None
    await desk.until(lambda: not any(last()))


async def test_a_level_that_comes_while_another_is_written_is_written_too(desk: Desk) -> None:
    desk.want(valve=True)
    await desk.until(lambda: desk.station.settled)
    desk.driver.answers.clear()
    desk.want(valve=False)
    await asyncio.sleep(0)
    desk.want(valve=False, speed=7)
    desk.driver.answers.set()
    await desk.until(lambda: desk.driver.memory[desk.place("plc.speed")] == 7)


async def test_scans_are_begun_in_time_for_the_loop_s_ticks(desk: Desk) -> None:
    origin, scan_ns = now_ns() + 3_333_333, desk.cell.scan_ns
    channel.send(desk.loop, pack_tick(5, origin + 5 * scan_ns))
    desk.bus.take()
    scans = desk.driver.scans
    await desk.until(lambda: desk.driver.scans > scans + 3)
    assert (desk.station.turns.tick_ns - origin) % scan_ns == 0
    assert desk.station.start_ns == desk.station.turns.tick_ns - desk.station.lead.lead_ns


async def test_a_reaction_is_measured_from_the_inputs_arrival_to_the_confirmation(desk: Desk) -> None:
    layout = desk.station.layout
    levels = [desk.cell.tags[index].failsafe for index in layout.outputs]
    levels[0] = True
    channel.send(desk.loop, caused(layout.pack_output(1, levels), now_ns() - 3_000_000))
    desk.bus.take()
    await desk.until(lambda: sum(desk.station.stats().reaction.counts))
    reaction = desk.station.stats().reaction
    assert sum(reaction.counts) == 1 and reaction.sum_s >= 0.003
    desk.want(valve=False)
    await desk.until(lambda: desk.station.settled)
    channel.send(desk.loop, caused(layout.pack_output(1, [False, *levels[1:]]), now_ns() - 3_000_000))
    desk.bus.take()
    scans = desk.driver.scans
    await desk.until(lambda: desk.driver.scans > scans + 1)
    desk.want(valve=True)
    await desk.until(lambda: desk.station.settled)
    assert sum(desk.station.stats().reaction.counts) == 1, "what no input has caused is no reaction"


async def test_a_process_that_has_slept_blames_no_device(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.driver.answers.clear()
    station = desk.station
    station.heard_ns -= station.device.max_age_ns
    station.look_ns = now_ns() - 2 * fieldbus.ASLEEP_NS
    station._look_at_age()
    assert not station.stale, "the device has its turn first"
    await desk.until(lambda: station.stale)
    station.stale, station.stale_said = False, False
    station._look_at_age()
    assert caplog.text.count("too old to be used") == 1, "a slow device does not fill the log"


async def test_a_device_that_stays_silent_is_lost_though_its_request_may_still_wait(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fieldbus, "PATIENCE_NS", 50_000_000)
    desk.driver.answers.clear()
    await desk.until(lambda: desk.station.up is False)
    desk.take()
    lost = [one for one in desk.heard if isinstance(one, DeviceReport)][-1]
    assert (lost.up, lost.status) == (False, BAD_TIMEOUT) and lost.text.startswith("no answer for 0.")
    desk.driver.answers.set()
    await desk.until(lambda: desk.station.up)
    desk.take()
    assert [one for one in desk.heard if isinstance(one, DeviceReport)][-1].up


def test_tags_with_one_reason_are_told_together_and_once() -> None:
    told: list[tuple[list[int], int, str]] = []
    said: list[tuple[list[int], str]] = []
    troubles = Troubles(
        lambda places, status, text: told.append((list(places), status, text)),
        lambda places, text: said.append((list(places), text)),
    )
    block, other = (BAD_NODE_UNKNOWN, "DB2"), (BAD_NOT_READABLE, "DB3")
    for _ in range(2):
        troubles.take({4: block, 1: block, 2: other})
    assert told == [([1, 4], *block), ([2], *other)] and said == [([1, 4], "DB2"), ([2], "DB3")]
    told.clear()
    said.clear()
    troubles.take({4: block, 2: other})
    assert told == [([1, 4], GOOD, ""), ([4], *block)] and said == [([1], ""), ([4], "DB2")]
    told.clear()
    said.clear()
    troubles.again()
    assert told == [([2], *other), ([4], *block)] and not said
    told.clear()
    troubles.take({})
    assert told == [([2], GOOD, ""), ([4], GOOD, "")] and said == [([2, 4], "")]
