"""The modes of a batch (ISA-88): automatic, semi-automatic with each step confirmed, manual with outputs by hand."""

from pathlib import Path

import msgspec
import pytest

from edge.batch import State
from edge.engine.engine import Engine
from edge.messages import (
    AlarmRaised,
    CommandDone,
    ModeChanged,
    StateChanged,
    StepConfirmed,
    StepEnded,
    StepStarted,
    StepWaits,
    TagSet,
)
from tests.virtual import Virtual, plan_of

FILL = """
recipe: fill
uses: [plc]
interlocks:
  - {when: plc.count > 40, do: hold, grace: 100 ms, say: {en: Too many}}
steps:
  - {name: Stir, set: {plc.speed: 120 rpm}}
  - {name: Fill, during: {plc.valve: true}, until: plc.level >= 20 L, within: 9 s}
  - name: Both
    parallel:
      one: [{name: Wait one, wait: 100 ms}]
      two: [{name: Wait two, wait: 50 ms}]
on:
  hold: [{set: {plc.program: 7}}]
  restart: [{wait: 50 ms}]
"""


@pytest.fixture
def cell(tmp_path: Path):
    return lambda *recipes: Virtual(plan_of(tmp_path, *recipes))


def refusals(run: Virtual) -> list[str]:
    return [event.text for event in run.of(CommandDone) if not event.ok]


def waiting(run: Virtual) -> list[tuple[str, str]]:
    """The steps that wait to be confirmed, with their branches, as who follows the events knows them."""
    found: dict[tuple[str, str], None] = {}
    for event in run.of(StepWaits | StepStarted):
        if isinstance(event, StepStarted):
            found.pop((event.name, event.branch), None)
        elif event.waits:
            found[event.name, event.branch] = None
        else:
            del found[event.name, event.branch]
    return list(found)


def begin(run: Virtual, mode: str) -> None:
    run.run(2)
    run.command("start", recipe="fill", mode=mode)
    run.run(4)


def confirm(run: Virtual, name: str) -> None:
    run.command("confirm", step=next(step.index for step in run.plan.recipes["fill"].steps if step.name == name))
    run.run(4)


def by_hand(run: Virtual, tag: str, value: object) -> None:
    run.command("set", "", tag=tag, value=value)
    run.run(2)


def started(run: Virtual) -> list[str]:
    return [event.name for event in run.of(StepStarted)]


# --- semi-automatic --------------------------------------------------------------------------------------------------


def test_in_semi_automatic_mode_each_step_waits_to_be_confirmed(cell) -> None:
    run = cell(FILL)
    begin(run, "semi-automatic")
    run.run(50)
    assert waiting(run) == [("Stir", "")] and started(run) == [] and run.level("plc.speed") == 0
    confirm(run, "Stir")
    assert run.level("plc.speed") == 120 and waiting(run) == [("Fill", "")] and run.level("plc.valve") is False
    confirm(run, "Fill")
    assert run.level("plc.valve") is True and waiting(run) == []
    run.put("plc.level", 20.0)
    run.run(3)
    assert sorted(waiting(run)) == [("Wait one", "one"), ("Wait two", "two")]
    confirm(run, "Wait two")
    run.run(20)
    assert waiting(run) == [("Wait one", "one")] and run.state() == "running"
    confirm(run, "Wait one")
    run.run(20)
    assert run.state() == "complete"
    confirmed = [(event.name, event.branch, event.by) for event in run.of(StepConfirmed)]
    assert confirmed == [
        ("Stir", "", "tester"), ("Fill", "", "tester"), ("Wait two", "two", "tester"), ("Wait one", "one", "tester")
    ]  # fmt: skip


def test_a_step_that_does_not_wait_cannot_be_confirmed(cell) -> None:
    run = cell(FILL)
    begin(run, "semi-automatic")
    confirm(run, "Fill")
    run.command("confirm")
    run.command("confirm", step=99)
    run.run(1)
    assert refusals(run) == ["this step does not wait to be confirmed now"] * 3 and started(run) == []
    run.command("hold")
    run.run(3)
    confirm(run, "Stir")
    assert len(refusals(run)) == 4 and started(run) == ["set plc.program"]


def test_automatic_mode_goes_on_with_the_step_that_waited(cell) -> None:
    run = cell(FILL)
    begin(run, "semi-automatic")
    run.command("mode", mode="automatic")
    run.run(5)
    assert waiting(run) == [] and started(run) == ["Stir", "Fill"]
    run.command("mode", mode="semi-automatic")
    run.put("plc.level", 20.0)
    run.run(5)
    assert len(waiting(run)) == 2
    assert [(event.before, event.mode, event.by) for event in run.of(ModeChanged)] == [
        ("automatic", "semi-automatic", "tester"),
        ("semi-automatic", "automatic", "tester"),
        ("automatic", "semi-automatic", "tester"),
    ]


def test_a_step_that_waited_still_waits_after_a_hold_and_after_a_power_loss(cell) -> None:
    run = cell(FILL)
    begin(run, "semi-automatic")
    confirm(run, "Stir")
    run.command("hold")
    run.run(5)
    run.command("restart")
    run.run(10)
    assert run.state() == "running" and waiting(run) == [("Fill", "")] and run.level("plc.valve") is False
    again = Virtual(run.plan)
    again.restore(run.blobs["B1"])
    again.run(5)
    assert again.state() == "held" and again.batch().mode == "semi-automatic"
    again.command("restart")
    again.run(20)
    assert waiting(again) == [("Fill", "")] and again.level("plc.speed") == 120
    confirm(again, "Fill")
    assert again.level("plc.valve") is True


def test_a_pause_rests_at_a_step_that_waits(cell) -> None:
    run = cell(FILL)
    begin(run, "semi-automatic")
    run.command("pause")
    run.run(2)
    assert run.state() == "paused"
    confirm(run, "Stir")
    assert refusals(run) and started(run) == []
    run.command("resume")
    run.run(2)
    confirm(run, "Stir")
    assert started(run) == ["Stir"]


def test_a_step_waits_no_longer_when_its_batch_or_the_step_around_it_ends(cell) -> None:
    run = cell(FILL.replace("name: Both\n", "name: Both\n    within: 200 ms\n    on_timeout: continue\n"))
    begin(run, "automatic")
    run.command("mode", mode="semi-automatic")
    run.put("plc.level", 20.0)
    run.run(5)
    assert len(waiting(run)) == 2
    run.run(30)
    assert waiting(run) == [] and run.state() == "complete"
    run.command("reset")
    run.run(2)
    begin(run, "semi-automatic")
    assert len(waiting(run)) == 1
    run.command("stop")
    run.run(3)
    assert waiting(run) == [] and run.state() == "stopped"


def test_the_steps_of_handlers_wait_for_nobody(cell) -> None:
    run = cell(FILL)
    begin(run, "semi-automatic")
    run.command("hold")
    run.run(5)
    assert run.state() == "held" and run.level("plc.program") == 7


def test_a_repeated_step_is_confirmed_each_time(cell) -> None:
    run = cell("recipe: fill\nuses: [plc]\nsteps:\n  - {repeat: {times: 3}, steps: [{name: Turn, wait: 20 ms}]}\n")
    begin(run, "semi-automatic")
    for count in range(3):
        assert waiting(run) == [("Turn", "")] or count
        run.run(10)
        assert len(run.of(StepEnded)) == count
        confirm(run, "Turn")
    run.run(10)
    assert run.state() == "complete"


# --- manual ----------------------------------------------------------------------------------------------------------


def test_manual_mode_holds_the_batch_and_a_person_moves_its_outputs(cell) -> None:
    run = cell(FILL)
    begin(run, "automatic")
    by_hand(run, "plc.drain", True)
    assert "plc.drain belongs to batch B1" in refusals(run)[-1]
    run.command("mode", mode="manual")
    run.run(4)
    assert run.state() == "held" and run.of(StateChanged)[-2].cause == "manual mode by tester"
    assert run.level("plc.valve") is False and run.level("plc.speed") == 120
    clock = run.batch().clock
    by_hand(run, "plc.drain", True)
    by_hand(run, "plc.speed", 30)
    assert run.level("plc.drain") is True and run.level("plc.speed") == 30
    assert [(event.tag, event.value, event.batch, event.by) for event in run.of(TagSet)] == [
        ("plc.drain", True, "B1", "tester"), ("plc.speed", 30.0, "B1", "tester")
    ]  # fmt: skip
    assert run.batch().clock == clock and run.engine.state.manual == {}


def test_the_way_back_from_manual_mode_is_a_restart_which_gives_the_outputs_to_the_step(cell) -> None:
    run = cell(FILL)
    begin(run, "automatic")
    run.command("mode", mode="manual")
    run.run(4)
    by_hand(run, "plc.drain", True)
    by_hand(run, "plc.valve", True)
    run.command("restart")
    run.run(1)
    assert "restart is not possible now" in refusals(run)[-1] and run.state() == "held"
    run.command("mode", mode="automatic")
    run.run(1)
    assert [run.level(f"plc.{tag}") for tag in ("drain", "valve", "program")] == [False, False, 7]
    run.run(50)
    assert run.state() == "held"
    run.command("restart")
    run.run(12)
    assert run.state() == "running" and run.level("plc.valve") is True and run.level("plc.drain") is False


def test_a_value_by_hand_is_bounded_by_its_tag(cell) -> None:
    run = cell(FILL)
    begin(run, "manual")
    for tag, value in (("plc.speed", 301), ("plc.valve", 1), ("plc.level", 1.0), ("aux.beat", 1), ("plc.none", 1)):
        by_hand(run, tag, value)
    assert [text.partition(":")[0] for text in refusals(run)] == [
        "plc.speed may not be set to 301", "plc.valve may not be set to 1", "plc.level can only be read",
        "aux.beat is a heartbeat", "there is no tag plc.none",
    ]  # fmt: skip
    assert run.batch().manual == {}


def test_nothing_is_set_by_hand_while_an_interlock_stands_and_what_was_set_ends_with_its_trip(cell) -> None:
    run = cell(FILL)
    begin(run, "manual")
    by_hand(run, "plc.drain", True)
    run.put("plc.count", 41)
    run.run(1)
    assert run.level("plc.drain") is False and run.of(AlarmRaised)[0].kind == "interlock" and run.state() == "held"
    by_hand(run, "plc.drain", True)
    assert "an interlock stands: Too many" in refusals(run)[-1] and run.level("plc.drain") is False
    run.put("plc.count", 0)
    run.run(2)
    assert run.level("plc.drain") is False
    by_hand(run, "plc.drain", True)
    assert run.level("plc.drain") is True


def test_what_was_set_by_hand_ends_where_an_interlock_cannot_be_watched(cell) -> None:
    run = cell(FILL.replace("do: hold", "do: abort"))
    begin(run, "manual")
    by_hand(run, "plc.drain", True)
    run.put("plc.count", None)
    run.run(9)
    assert run.level("plc.drain") is True
    run.run(3)
    assert run.level("plc.drain") is False and run.state() == "held"
    by_hand(run, "plc.drain", True)
    assert "Too many" in refusals(run)[-1]


@pytest.mark.parametrize("end", ["stop", "abort", "lose", "still", "power", "mode"])
def test_a_level_by_hand_never_outlives_manual_mode(cell, end: str) -> None:
    run = cell(FILL)
    begin(run, "manual")
    by_hand(run, "plc.drain", True)
    by_hand(run, "plc.speed", 30)
    match end:
        case "lose":
            run.lose("plc")
            run.run(5)
            run.find("plc")
            run.run(5)
        case "still":
            run.run(1, skip=60)
        case "power":
            again = Virtual(run.plan)
            again.restore(run.blobs["B1"])
            run = again
            run.run(5)
            assert run.batch().mode == "manual" and run.state() == "held"
        case "mode":
            run.command("mode", mode="semi-automatic")
            run.run(1)
        case _:
            run.command(end)
            run.run(1)
    assert run.level("plc.drain") is False and run.level("plc.speed") == 0
    assert all(not batch.manual for batch in run.engine.state.batches.values())


def test_a_manual_batch_does_not_resume_by_itself_after_a_power_loss(cell) -> None:
    run = cell(FILL + "after_power_loss: resume\n")
    begin(run, "manual")
    again = Virtual(run.plan)
    again.restore(run.blobs["B1"])
    again.run(20)
    assert again.state() == "held" and again.batch().mode == "manual"
    by_hand(again, "plc.drain", True)
    assert again.level("plc.drain") is True


def test_a_batch_begun_in_manual_mode_has_begun_no_step(cell) -> None:
    run = cell(FILL)
    begin(run, "manual")
    assert run.state() == "held" and started(run) == ["set plc.program"]
    run.command("mode", mode="automatic")
    run.command("restart")
    run.run(12)
    assert run.state() == "running" and "Stir" in started(run)


def test_outputs_are_not_set_by_hand_before_the_batch_is_held(cell) -> None:
    run = cell(FILL.replace("hold: [{set: {plc.program: 7}}]", "hold: [{wait: 1 s}]"))
    begin(run, "automatic")
    run.command("mode", mode="manual")
    run.run(2)
    by_hand(run, "plc.drain", True)
    assert run.state() == "holding" and refusals(run) == [
        "batch B1 is not held yet: its outputs can be set by hand when it is"
    ]


def test_a_batch_that_ends_takes_no_mode_and_there_are_but_three(cell) -> None:
    run = cell(FILL.replace("hold:", "stop: [{wait: 1 s}]\n  hold:"))
    run.run(2)
    run.command("start", recipe="fill", mode="fast")
    run.run(1)
    assert refusals(run) == ["there is no mode `fast`: choose automatic, semi-automatic, manual"]
    begin(run, "automatic")
    run.command("mode", mode="fast")
    run.command("stop")
    run.run(2)
    run.command("mode", mode="manual")
    run.run(1)
    assert len(refusals(run)) == 3 and "mode is not possible now" in refusals(run)[-1]
    assert run.batch().mode == "automatic" and not run.of(ModeChanged)
    assert all(len(event.say) == 3 for event in run.of(CommandDone) if not event.ok)


def test_modes_are_part_of_the_state_which_is_data(cell) -> None:
    run = cell(FILL)
    begin(run, "semi-automatic")
    fork = Engine(run.plan, msgspec.msgpack.decode(msgspec.msgpack.encode(run.engine.state), type=State))
    run.taken.clear()
    confirm(run, "Stir")
    run.command("mode", mode="manual")
    run.run(3)
    by_hand(run, "plc.drain", True)
    run.run(3)
    for cycle, packets in run.taken:
        fork.step(cycle, packets)
    assert msgspec.msgpack.encode(fork.state) == msgspec.msgpack.encode(run.engine.state)
    assert fork.state.batches["B1"].manual
