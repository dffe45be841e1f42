"""When scans begin: in time for their tick, in their turn, whatever the device's speed and the loop's restarts."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edge.phase import CHANGES, MARGIN_NS, STRAYS, WINDOW, Lead, Phase, Turns

MS = 1_000_000

scans = st.sampled_from([MS, 2 * MS, 10 * MS, 50 * MS])
times = st.integers(0, 10**15)


def phase_of(scan_ns: int, origin_ns: int) -> Phase:
    phase = Phase(scan_ns)
    phase.hear(7, origin_ns + 7 * scan_ns)
    return phase


@given(scans, times, times)
def test_a_tick_is_a_multiple_of_the_scan_from_the_loop_s_start_and_the_first_one_due(scan, origin, time) -> None:
    tick = phase_of(scan, origin).tick(time)
    assert (tick - origin) % scan == 0
    assert time <= tick < time + scan


def test_a_lead_covers_what_scans_take_but_for_the_strays() -> None:
    lead = Lead()
    for number in range(WINDOW):
        lead.add(50 * MS if number < STRAYS else MS + number, changed=False)
    assert MS + WINDOW + MARGIN_NS - 1000 <= lead.lead_ns <= MS + MARGIN_NS + 100_000
    for _ in range(WINDOW // 10):
        lead.add(3 * MS, changed=False)
    assert lead.lead_ns >= 3 * MS + MARGIN_NS, "a device that has become slower is begun with earlier"
    for _ in range(WINDOW + 10):
        lead.add(MS, changed=False)
    assert lead.lead_ns <= MS + MARGIN_NS + 50_000, "and one that has become faster later again"


def test_a_lead_covers_the_rare_scans_that_bring_something_new() -> None:
    lead = Lead()
    for number in range(3 * WINDOW):
        changed = number % WINDOW == WINDOW - 1
        lead.add(2 * MS if changed else MS, changed=changed)
    assert lead.lead_ns >= 2 * MS + MARGIN_NS
    for _ in range(CHANGES):
        lead.add(MS, changed=True)
    lead.add(9 * MS, changed=True)
    for _ in range(WINDOW):
        lead.add(MS, changed=False)
    assert lead.lead_ns <= MS + MARGIN_NS + 50_000, "one stray is no reason to be early ever after"


@given(scans, times, st.integers(1, 20), st.lists(st.integers(10_000, 60 * MS), min_size=1, max_size=60))
def test_every_scan_is_begun_in_time_for_a_later_tick_than_the_one_before(scan, origin, scans_apart, took) -> None:
    phase, turns, lead = phase_of(scan, origin), Turns(scans_apart * scan, origin), Lead()
    now, tick = origin, 0
    for time in took:
        start = turns.next(phase, now, lead.lead_ns)
        assert start >= now
        assert start + lead.lead_ns == turns.tick_ns > tick
        assert (turns.tick_ns - origin) % scan == 0
        tick, now = turns.tick_ns, start + time
        lead.add(time, changed=time % 2 == 0)


@given(scans, times, st.integers(1, 20), st.integers(0, 10**9))
def test_a_device_that_answers_in_time_is_scanned_once_each_period(scan, origin, scans_apart, first) -> None:
    every = scans_apart * scan
    phase, turns = phase_of(scan, origin), Turns(every, origin + first)
    ticks = []
    now = origin + first
    for _ in range(20):
        now = turns.next(phase, now, scan // 4) + scan // 8
        ticks.append(turns.tick_ns)
    assert {later - earlier for earlier, later in pairwise(ticks)} == {every}


@given(scans, st.integers(2, 20))
def test_devices_of_one_bus_take_turns(scan, devices) -> None:
    phase, every = phase_of(scan, 0), devices * scan
    ticks = []
    for number in range(devices):
        turns = Turns(every, every * number // devices)
        turns.next(phase, 0, 0)
        ticks.append(turns.tick_ns)
    assert len(set(ticks)) == devices


def test_a_period_that_is_no_multiple_of_the_scan_is_kept_on_average() -> None:
    phase, turns = phase_of(10 * MS, 0), Turns(25 * MS, 0)
    now, ticks = 0, []
    for _ in range(101):
        now = turns.next(phase, now, MS)
        ticks.append(turns.tick_ns)
    assert ticks[-1] - ticks[0] == 100 * 25 * MS


def test_a_loop_that_starts_anew_has_other_ticks_from_then_on() -> None:
    phase, turns = phase_of(10 * MS, 0), Turns(10 * MS, 0)
    turns.next(phase, 0, MS)
    assert turns.tick_ns == 10 * MS
    phase.hear(1, 23 * MS)
    turns.next(phase, 10 * MS, MS)
    assert turns.tick_ns == 23 * MS


def test_one_who_has_slept_does_not_scan_for_what_is_past() -> None:
    phase, turns = phase_of(10 * MS, 0), Turns(20 * MS, 0)
    turns.next(phase, 0, MS)
    start = turns.next(phase, 1005 * MS, MS)
    assert (start, turns.tick_ns) == (1009 * MS, 1010 * MS)
    turns.next(phase, 1010 * MS, MS)
    assert turns.tick_ns == 1020 * MS, "its turn is where it was"
