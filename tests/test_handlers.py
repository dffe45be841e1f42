"""Handlers of `on` with a time limit of their own, and restarts that wait until the plant is as the steps expect it."""

from pathlib import Path

import pytest

from edge.messages import AlarmCleared, AlarmRaised, CommandDone, StepEnded
from tests.virtual import Virtual, plan_of

SLOW = """
recipe: r
uses: [plc]
steps:
  - {name: Fill, set: {plc.speed: 50 rpm}, during: {plc.valve: true}, until: plc.level > 50 L, within: 9 s}
  - {name: Rest, wait: 9 s}
on:
  %s: {within: 300 ms, steps: [{set: {plc.drain: true}}, {name: Slow, wait: 5 s}]}
"""

EXPECTS = """
recipe: r
uses: [plc]
steps:
  - name: Both
    parallel:
      fill:
        - name: Fill
          during: {plc.valve: true}
          until: plc.level > 50 L
          within: 9 s
          expects: plc.level > 5 L
      stir: [{name: Stir, during: {plc.speed: 60 rpm}, wait: 9 s}]
on:
  restart: [{wait: 50 ms}]
"""


@pytest.fixture
def cell(tmp_path: Path):
    return lambda *recipes: Virtual(plan_of(tmp_path, *recipes))


def held(run: Virtual) -> Virtual:
    run.put("plc.level", 10.0)
    run.start("r")
    run.command("hold")
    run.run(3)
    assert run.state() == "held"
    return run


# --- time limits of handlers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "before", "state"),
    [("hold", "holding", "held"), ("stop", "stopping", "stopped"), ("abort", "aborting", "aborted")],
)
def test_a_handler_over_its_time_is_an_alarm_and_the_state_goes_on(cell, handler: str, before: str, state: str) -> None:
    run = cell(SLOW % handler)
    run.start("r")
    run.command(handler)
    run.run(29)
    assert run.state() == before and run.level("plc.drain") is True and not run.of(AlarmRaised)
    run.run(3)
    assert run.state() == state and [alarm.kind for alarm in run.of(AlarmRaised)] == ["timeout"]
    assert f"on: {handler}" in run.of(AlarmRaised)[0].say["fr"] and len(run.of(AlarmRaised)[0].say) == 3
    assert run.level("plc.drain") is (state == "held")
    assert ("Slow", "cut") in [(event.name, event.how) for event in run.of(StepEnded)]


def test_a_restart_handler_over_its_time_lets_the_batch_run_and_its_time_begins_with_its_steps(cell) -> None:
    run = held(cell(SLOW % "restart"))
    run.following = False
    run.put("plc.valve", True)
    run.command("restart")
    run.run(150)
    assert run.state() == "restarting" and run.level("plc.drain") is False
    run.following = True
    run.put("plc.valve", False)
    run.run(25)
    assert run.state() == "restarting" and run.level("plc.drain") is True
    run.run(12)
    assert run.state() == "running" and run.level("plc.drain") is False and run.level("plc.valve") is True


def test_a_handler_that_ends_in_time_raises_nothing(cell) -> None:
    run = cell((SLOW % "hold").replace("wait: 5 s", "wait: 100 ms"))
    run.start("r")
    run.command("hold")
    run.run(60)
    assert run.state() == "held" and not run.of(AlarmRaised)


# --- what a restart waits for ----------------------------------------------------------------------------------------


def differs(run: Virtual) -> list[str]:
    return [event.say["en"] for event in run.of(AlarmRaised) if event.kind == "differs"]


def test_a_hold_in_a_parallel_holds_all_its_branches_and_a_restart_brings_all_back(cell) -> None:
    run = held(cell(EXPECTS))
    assert run.level("plc.valve") is False and run.level("plc.speed") == 0
    run.command("restart")
    run.run(12)
    assert run.state() == "running" and run.level("plc.valve") is True and run.level("plc.speed") == 60


def test_a_restart_waits_for_what_the_active_step_expects_and_says_so(cell) -> None:
    run = held(cell(EXPECTS))
    run.put("plc.level", 4.0)
    run.run(2)
    run.command("restart")
    run.run(150)
    assert run.state() == "restarting" and not differs(run)
    run.run(60)
    assert differs(run) == ["the restart waits: step Fill expects plc.level > 5 L"]
    assert run.level("plc.valve") is False and run.level("plc.speed") == 0
    run.put("plc.level", 6.0)
    run.run(12)
    assert run.state() == "running" and run.of(AlarmCleared) and run.level("plc.valve") is True


def test_an_unknown_expectation_is_none(cell) -> None:
    run = held(cell(EXPECTS.replace("plc.level > 5 L", "plc.level > 5 L or plc.ready")))
    run.command("restart")
    run.run(1)
    run.put("plc.level", None)
    run.command("hold")
    run.run(3)
    run.put("plc.level", 1.0)
    run.run(2)
    run.command("restart")
    run.run(1)
    run.put("plc.level", None)
    run.run(250)
    (text,) = differs(run)
    assert text == ("the restart waits: no good value from plc.level; step Fill expects plc.level > 5 L or plc.ready")
    assert run.state() == "restarting"


def test_an_output_that_does_not_read_back_is_named_with_what_it_is_and_what_it_is_set_to(cell) -> None:
    run = held(cell(EXPECTS))
    run.following = False
    run.put("plc.speed", 12.5)
    run.command("restart")
    run.run(210)
    assert differs(run) == ["the restart waits: plc.speed is 12.5 rpm, set to 0 rpm"]
    run.put("plc.valve", None)
    run.run(200)
    alarm = next(one for one in run.engine.state.alarms.values() if one.kind == "differs")
    assert alarm.say["en"].startswith("the restart waits: ") and "plc.valve is ?, set to false" in alarm.say["en"]
    assert "plc.speed vaut 12.5 rpm" in alarm.say["fr"] and len(differs(run)) == 1
    run.command("stop")
    run.run(2)
    assert run.state() == "stopped" and not alarm_active(run)


def alarm_active(run: Virtual) -> bool:
    return any(one.active and one.kind == "differs" for one in run.engine.state.alarms.values())


def test_what_a_step_expects_counts_after_a_power_loss_too_and_only_where_the_step_stands(cell) -> None:
    run = cell(EXPECTS + "after_power_loss: resume\n")
    run.put("plc.level", 10.0)
    run.start("r")
    again = Virtual(run.plan)
    again.put("plc.level", 2.0)
    again.restore(run.blobs["B1"])
    again.run(220)
    assert again.state() == "restarting" and differs(again) and again.level("plc.valve") is False
    again.put("plc.level", 10.0)
    again.run(12)
    assert again.state() == "running"
    again.put("plc.level", 51.0)
    again.run(4)
    again.command("hold")
    again.run(3)
    again.put("plc.level", 1.0)
    again.command("restart")
    again.run(12)
    assert again.state() == "running" and all(event.ok for event in again.of(CommandDone))
