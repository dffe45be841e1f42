"""What a cycle of the engine gives, to the cycle: frames, commits and their numbers, heartbeats, time limits."""

from itertools import pairwise
from pathlib import Path

import pytest

from edge.engine.engine import Engine, first_state
from edge.image import device_of
from edge.messages import Ack, AlarmRaised, CommandDone, StateChanged, pack
from tests.virtual import CELL, Virtual, plan_of

WAIT = "recipe: r\nuses: [plc]\nsteps:\n  - {name: Wait, until: plc.ready, within: 100 ms}\n  - {wait: 9 s}\n"


@pytest.fixture
def run(tmp_path: Path) -> Virtual:
    return Virtual(plan_of(tmp_path, WAIT))


def test_the_first_cycle_tells_every_device_its_levels_and_the_next_only_what_changed(run: Virtual) -> None:
    engine = Engine(run.plan)
    assert [device_of(frame) for frame in engine.step(1, []).frames] == [0, 1]
    assert [engine.step(cycle, []).frames for cycle in range(2, 10)] == [[]] * 8
    assert [device_of(frame) for frame in engine.step(10, []).frames] == [1]


def test_an_engine_that_goes_on_from_a_state_tells_nothing_anew(run: Virtual) -> None:
    state = first_state(run.plan)
    assert Engine(run.plan, state).step(1, []).frames == []
    assert state.seen == [0, 0] and state.up == [False, False] and set(state.values) == {None}


def test_a_heartbeat_counts_ten_times_a_second(run: Virtual) -> None:
    beats = []
    for _ in range(100):
        run.run(1)
        beats.append(run.level("aux.beat"))
    assert len(set(beats)) == 11 and beats[9:19] == [beats[9]] * 10


def test_a_heartbeat_counts_in_every_scan_where_that_is_longer(tmp_path: Path) -> None:
    slow = CELL.replace("scan: 10 ms", "scan: 200 ms").replace("every: 10 ms", "every: 200 ms")
    run = Virtual(plan_of(tmp_path, WAIT.replace("100 ms", "1 s"), cell=slow))
    beats = []
    for _ in range(8):
        run.run(1)
        beats.append(run.level("aux.beat"))
    assert [after - before for before, after in pairwise(beats)] == [1] * 7


def test_a_device_that_has_not_come_yet_is_said_in_the_refusal(run: Virtual) -> None:
    run.present.clear()
    run.packets.clear()
    run.command("start", recipe="r")
    run.run(1)
    assert run.of(CommandDone)[0].text == "plc is not there: not connected yet"


def test_commits_are_numbered_one_after_another_and_what_a_step_does_is_by_the_recipe(run: Virtual) -> None:
    run.start("r")
    run.run(15)
    engine = Engine(run.plan)
    commits = [output.commit.commit for one in run.taken if (output := engine.step(*one)).commit is not None]
    assert commits == list(range(1, len(commits) + 1)) and len(commits) > 3
    assert [event.by for event in run.of(StateChanged)] == ["tester", "recipe", "edge"]


def test_a_commit_that_waits_is_an_alarm_after_three_seconds_counted_from_its_own_beginning(run: Virtual) -> None:
    run.run(1000)
    run.durable = False
    run.command("start", recipe="r")
    run.run(1)
    run.run(300)
    assert not run.of(AlarmRaised)
    run.run(1)
    assert [alarm.kind for alarm in run.of(AlarmRaised)] == ["record"]
    run.durable = True
    run.packets.append(pack(Ack(run.engine.state.next_commit - 1)))
    run.run(400)
    assert len([alarm for alarm in run.of(AlarmRaised) if alarm.kind == "record"]) == 1


def test_a_loop_that_was_late_within_its_silence_holds_nothing(run: Virtual) -> None:
    run.start("r")
    run.put("plc.ready", True)
    run.run(3)
    silence = run.engine.silence
    run.run(1, skip=silence - 1)
    assert run.state() == "running"
    run.run(1, skip=silence)
    assert run.state() == "held" and run.of(AlarmRaised)[-1].kind == "stood-still"
