"""The engine in virtual time: steps, states, levels, interlocks, devices, commands; and that it is a pure function."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.value import BAD_CONNECTION_CLOSED, BAD_CONNECTION_REJECTED, BAD_NODE_UNKNOWN, GOOD
from edge.engine import states
from edge.engine.engine import Engine
from edge.messages import (
    Ack,
    AlarmChanged,
    AlarmCleared,
    AlarmRaised,
    Answered,
    Asked,
    BatchRemoved,
    CommandDone,
    DeviceReport,
    Recorded,
    StateChanged,
    StepEnded,
    StepStarted,
    TagReport,
    pack,
)
from tests.virtual import CELL, Virtual, plan_of

FILL = """
recipe: fill
uses: [plc]
parameters:
  volume: {unit: L, default: 20, range: [5, 50]}
interlocks:
  - {when: plc.count > 40, do: hold, grace: 100 ms, say: {en: Too many}}
steps:
  - {name: Fill, during: {plc.valve: true}, until: plc.level >= volume, within: 1 s}
  - set: {plc.speed: 120 rpm}
  - {name: Rest, wait: 100 ms}
on:
  hold: [{set: {plc.speed: 0 rpm}}]
"""


@pytest.fixture
def cell(tmp_path: Path):
    return lambda *recipes: Virtual(plan_of(tmp_path, *recipes))


def refusals(virtual: Virtual) -> list[str]:
    return [event.text for event in virtual.of(CommandDone) if not event.ok]


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_recipe_runs_to_its_end_and_leaves_its_outputs_at_failsafe(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    assert run.state() == "running"
    assert run.level("plc.valve") is True
    run.put("plc.level", 20.0)
    run.run(3)
    assert run.level("plc.valve") is False
    assert run.level("plc.speed") == 120
    run.run(15)
    assert run.state() == "complete"
    assert run.level("plc.speed") == 0
    assert [event.name for event in run.of(StepEnded)] == ["Fill", "set plc.speed", "Rest"]
    assert not run.engine.state.owners


def test_outputs_are_at_failsafe_before_any_batch(cell) -> None:
    run = cell(FILL)
    run.run(3)
    assert [run.level(tag) for tag in ("plc.valve", "plc.speed", "plc.program")] == [False, 0, 0]


def test_a_step_begins_only_when_its_transition_is_durable(cell) -> None:
    run = cell(FILL)
    run.durable = False
    run.run(2)
    run.command("start", recipe="fill")
    run.run(50)
    assert run.state() == "running"
    assert run.level("plc.valve") is False
    commits = run.engine.state.next_commit - 1
    run.durable = True
    run.packets.append(pack(Ack(commits)))
    run.run(3)
    assert run.level("plc.valve") is True


def test_a_record_that_takes_nothing_is_an_alarm_until_it_does(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    assert not run.of(AlarmRaised)
    run.durable = False
    run.put("plc.level", 30.0)
    run.run(320)
    assert [alarm.kind for alarm in run.of(AlarmRaised)] == ["record"]
    run.durable = True
    run.packets.append(pack(Ack(run.engine.state.next_commit - 1)))
    run.run(3)
    assert run.of(AlarmCleared)


def test_ceasing_to_act_waits_for_no_commit(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.durable = False
    run.command("hold")
    run.run(1)
    assert run.level("plc.valve") is False
    run.command("abort")
    run.run(1)
    assert run.state() == "aborted"


def test_sets_that_follow_one_another_share_one_commit(cell) -> None:
    many = "\n".join(f"  - set: {{plc.speed: {speed} rpm}}" for speed in range(50))
    run = cell(f"recipe: many\nuses: [plc]\nsteps:\n{many}\n  - wait: 10 ms\n")
    run.run(2)
    before = run.engine.state.next_commit
    run.command("start", recipe="many")
    run.run(8)
    assert run.state() == "complete"
    assert run.engine.state.next_commit - before <= 5


def test_a_skipped_cycle_still_counts_as_time(cell) -> None:
    run = cell("recipe: r\nuses: [plc]\nsteps:\n  - wait: 200 ms\n")
    run.start("r")
    run.run(2, skip=9)
    assert run.state() == "complete"


# --- step kinds ------------------------------------------------------------------------------------------------------


def test_parallel_branches_run_side_by_side_and_end_together(cell) -> None:
    run = cell("""
recipe: r
uses: [plc]
steps:
  - parallel:
      stir: [{set: {plc.speed: 100 rpm}}, {wait: 100 ms}]
      fill: [{during: {plc.valve: true}, until: plc.level > 5 L, within: 5 s}]
""")
    run.start("r")
    run.run(3)
    assert run.level("plc.valve") is True and run.level("plc.speed") == 100
    run.run(20)
    assert run.state() == "running"
    run.put("plc.level", 6.0)
    run.run(2)
    assert run.state() == "complete"
    assert {event.branch for event in run.of(StepStarted)} == {"", "stir", "fill"}


def choose(run: Virtual) -> list[str]:
    run.start("r")
    run.run(6)
    return [event.name for event in run.of(StepStarted)]


CHOOSE = """
recipe: r
uses: [plc]
steps:
  - choose:
      - {when: plc.count == 1, steps: [{name: One, wait: 10 ms}]}
      - else: [{name: Other, wait: 10 ms}]
"""


def test_choose_takes_the_first_true_way(cell) -> None:
    run = cell(CHOOSE)
    run.put("plc.count", 1)
    assert "One" in choose(run)


def test_choose_takes_else(cell) -> None:
    assert "Other" in choose(cell(CHOOSE))


def test_choose_without_else_waits_for_a_way(cell) -> None:
    run = cell(CHOOSE.replace("      - else: [{name: Other, wait: 10 ms}]\n", ""))
    assert "One" not in choose(run)
    run.run(50)
    assert run.state() == "running"
    run.put("plc.count", 1)
    run.run(6)
    assert run.state() == "complete"


def test_choose_waits_on_a_bad_value_instead_of_falling_to_else(cell) -> None:
    run = cell(CHOOSE)
    run.run(2)
    run.command("start", recipe="r")
    run.run(1)
    run.put("plc.count", None)
    run.run(20)
    assert [event.name for event in run.of(StepStarted) if event.name in ("One", "Other")] == []
    run.put("plc.count", 1)
    run.run(3)
    assert "One" in [event.name for event in run.of(StepStarted)]


@pytest.mark.parametrize(
    ("loop", "rounds"), [("times: 3", 3), ("until: plc.count == 0", 1), ("while: plc.count != 0", 0)]
)
def test_repeat(cell, loop: str, rounds: int) -> None:
    run = cell(f"""
recipe: r
uses: [plc]
steps:
  - repeat: {{{loop}}}
    steps: [{{name: Turn, wait: 20 ms}}]
""")
    run.start("r")
    run.run(60)
    assert run.state() == "complete"
    assert len([event for event in run.of(StepEnded) if event.name == "Turn"]) == rounds


def test_ask_waits_for_a_valid_answer_and_fills_its_variable(cell) -> None:
    run = cell("""
recipe: r
uses: [plc]
steps:
  - ask: {say: {en: "Straight?"}, answers: [yes, no], into: ok}
  - choose:
      - {when: ok == "yes", steps: [{set: {plc.valve: true}}, {wait: 50 ms}]}
      - else: [{wait: 10 ms}]
""")
    run.start("r")
    run.run(50)
    (asked,) = run.of(Asked)
    run.command("answer", prompt=asked.prompt, value="perhaps")
    run.run(1)
    assert refusals(run) == ["answer one of yes, no"]
    run.command("answer", prompt=asked.prompt, value="yes")
    run.run(5)
    assert run.of(Answered)[0].value == "yes"
    assert run.level("plc.valve") is True
    run.command("answer", prompt=asked.prompt, value="yes")
    run.run(1)
    assert refusals(run)[-1] == "this question is not open"


def test_record_keeps_a_good_value_and_waits_for_one(cell) -> None:
    run = cell("recipe: r\nuses: [plc]\nsteps:\n  - wait: 50 ms\n  - record: {filled: plc.level}\n")
    run.start("r")
    run.put("plc.level", None)
    run.run(20)
    assert run.of(Recorded) == []
    run.put("plc.level", 12.5)
    run.run(2)
    (kept,) = run.of(Recorded)
    assert (kept.name, kept.value, kept.unit) == ("filled", 12.5, "L")
    assert run.state() == "complete"


BLIND = {
    "record": "record: {filled: plc.level}",
    "set": "set: {plc.speed: plc.level * 1 rpm / 1 L}",
    "during": "{during: {plc.speed: plc.level * 1 rpm / 1 L}, wait: 10 ms}",
    "wait": "wait: plc.level * 1 ms / 1 L",
    "within": "{during: {plc.valve: true}, until: not plc.ready, within: plc.level * 1 s / 1 L}",
    "until": "{until: plc.level > 5 L, within: none}",
    "choose": "choose: [{when: plc.level > 5 L, steps: [{wait: 10 ms}]}, {else: []}]",
    "while": "{repeat: {while: plc.level < 5 L}, steps: [{wait: 10 ms}]}",
    "until of repeat": "{repeat: {until: plc.level > 5 L}, steps: [{wait: 10 ms}]}",
    "times": "{repeat: {times: plc.level / 10 L}, steps: [{wait: 10 ms}]}",
    "with": "{do: plc.work, with: {program: round(plc.level / 5 L)}, within: none}",
    "in a branch": "parallel: {a: [{record: {filled: plc.level}}], b: [{wait: 10 ms}]}",
}


@pytest.mark.parametrize("kind", BLIND)
def test_a_step_that_waits_for_a_bad_value_without_a_time_limit_says_so_until_it_goes_on(cell, kind: str) -> None:
    run = cell(f"recipe: r\nuses: [plc]\nsteps:\n  - wait: 50 ms\n  - {BLIND[kind]}\n  - {{name: Last, wait: 9 s}}\n")
    run.put("plc.level", 10.0)
    run.start("r")
    run.put("plc.level", None)
    run.run(200)
    assert not run.of(AlarmRaised)
    run.run(20)
    (alarm,) = run.of(AlarmRaised)
    assert (alarm.kind, alarm.tag, alarm.batch) == ("no-value", "plc.level", "B1") and run.state() == "running"
    step = run.plan.recipes["r"].steps[1 + (kind == "in a branch")]
    assert all("plc.level" in text and step.name in text for text in alarm.say.values()) and len(alarm.say) == 3
    assert not run.of(AlarmCleared)
    run.put("plc.level", 10.0)
    run.run(10)
    assert len(run.of(AlarmCleared)) == 1 and len(run.of(AlarmRaised)) == 1


def test_each_branch_says_what_it_waits_for(cell) -> None:
    run = cell(
        """
recipe: r
uses: [plc]
steps:
  - wait: 50 ms
  - parallel: {a: [{record: {l: plc.level}}], b: [{record: {n: plc.count}}]}
"""
    )
    run.start("r")
    run.put("plc.level", None)
    run.put("plc.count", None)
    run.run(220)
    assert {alarm.tag for alarm in run.of(AlarmRaised)} == {"plc.level", "plc.count"}
    run.put("plc.count", 1)
    run.run(3)
    assert len(run.of(AlarmCleared)) == 1 and run.state() == "running"


def test_a_step_that_follows_has_a_time_of_its_own(cell) -> None:
    run = cell(
        "recipe: r\nuses: [plc]\nsteps:\n  - wait: 50 ms\n  - record: {l: plc.level}\n  - record: {n: plc.count}\n"
    )
    run.start("r")
    run.put("plc.level", None)
    run.put("plc.count", None)
    run.run(150)
    run.put("plc.level", 1.0)
    run.run(150)
    assert not run.of(AlarmRaised)
    run.run(70)
    assert [alarm.tag for alarm in run.of(AlarmRaised)] == ["plc.count"]


def test_a_wait_for_a_bad_value_is_counted_anew_after_a_hold(cell) -> None:
    run = cell("recipe: r\nuses: [plc]\nsteps:\n  - wait: 50 ms\n  - record: {share: plc.level / plc.level}\n")
    run.start("r")
    run.run(220)
    (alarm,) = run.of(AlarmRaised)  # the level is 0 L
    assert (alarm.kind, alarm.tag) == ("no-value", "") and "division by zero" in alarm.say["en"]
    run.command("hold")
    run.run(3)
    assert run.of(AlarmCleared) and run.state() == "held"
    run.command("restart")
    run.run(190)
    assert len(run.of(AlarmRaised)) == 1
    run.run(20)
    assert len(run.of(AlarmRaised)) == 2
    run.put("plc.level", 3.0)
    run.run(3)
    assert run.state() == "complete" and run.of(Recorded)[0].value == 1


def test_a_value_that_is_bad_for_a_moment_is_no_alarm(cell) -> None:
    run = cell("recipe: r\nuses: [plc]\nsteps:\n  - wait: 50 ms\n  - record: {filled: plc.level}\n")
    run.start("r")
    run.put("plc.level", None)
    run.run(150)
    run.put("plc.level", 1.0)
    run.run(5)
    assert run.state() == "complete" and not run.of(AlarmRaised)


DO = "recipe: r\nuses: [plc]\nsteps:\n  - {do: plc.work, with: {program: 3}, within: 1 s}\n"


def test_a_phase_is_done_only_after_it_was_seen_running(cell) -> None:
    run = cell(DO)
    run.put("plc.state", 3)
    run.start("r")
    run.run(5)
    assert run.level("plc.program") == 3
    assert run.state() == "running"
    run.put("plc.state", 2)
    run.run(2)
    run.put("plc.state", 3)
    run.run(2)
    assert run.state() == "complete"
    assert run.level("plc.program") == 0


def test_a_phase_that_fails_holds_the_batch_and_is_started_anew_by_a_restart(cell) -> None:
    run = cell(DO)
    run.start("r")
    run.run(3)
    run.put("plc.state", 9)
    run.run(2)
    assert run.state() == "held"
    assert run.of(AlarmRaised)[0].kind == "phase-failed"
    assert run.level("plc.program") == 0
    run.put("plc.state", 1)
    run.command("restart")
    run.run(5)
    assert run.state() == "running" and run.level("plc.program") == 3
    run.put("plc.state", 3)
    run.run(3)
    assert run.state() == "running"


def test_what_an_earlier_run_left_failed_counts_for_nothing(cell) -> None:
    run = cell(DO)
    run.put("plc.state", 9)
    run.start("r")
    run.run(5)
    assert run.state() == "running"


@pytest.mark.parametrize(("what", "state"), [("hold", "held"), ("stop", "stopped"), ("abort", "aborted")])
def test_a_step_over_its_time_does_what_it_says(cell, what: str, state: str) -> None:
    run = cell(f"recipe: r\nuses: [plc]\nsteps:\n  - {{until: plc.ready, within: 100 ms, on_timeout: {what}}}\n")
    run.start("r")
    run.run(15)
    assert run.state() == state
    assert run.of(AlarmRaised)[0].kind == "timeout"


def test_a_step_over_its_time_may_go_on(cell) -> None:
    run = cell("recipe: r\nuses: [plc]\nsteps:\n  - {until: plc.ready, within: 100 ms, on_timeout: continue}\n")
    run.start("r")
    run.run(15)
    assert run.state() == "complete"
    assert run.of(StepEnded)[0].how == "timeout"


def test_a_computed_level_out_of_range_holds_and_names_the_tag(cell) -> None:
    run = cell("""
recipe: r
uses: [plc]
steps:
  - wait: 50 ms
  - set: {plc.speed: plc.level * 3 rpm / 1 L}
  - wait: 1 s
""")
    run.put("plc.level", 101.0)
    run.start("r")
    run.run(20)
    assert run.state() == "held"
    alarm = run.of(AlarmRaised)[0]
    assert (alarm.kind, alarm.tag) == ("refused", "plc.speed")
    assert run.level("plc.speed") == 0


@pytest.mark.parametrize(("level", "program"), [(5.0, 3), (4.9, 2), (-5.0, -3), (3.0, 2), (1.0, 1)])
def test_a_calculated_number_is_rounded_for_an_integer_a_half_away_from_zero(cell, level: float, program: int) -> None:
    run = cell("recipe: r\nuses: [plc]\nsteps:\n  - {set: {plc.program: plc.level / 2 L}, wait: 1 s}\n")
    run.put("plc.level", level)
    run.start("r")
    assert run.level("plc.program") == program and type(run.level("plc.program")) is int


# --- states ----------------------------------------------------------------------------------------------------------


def test_hold_rests_the_during_levels_and_restart_brings_them_back(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.command("hold")
    run.run(1)
    assert run.level("plc.valve") is False
    assert run.state() == "held"
    run.command("restart")
    run.run(5)
    assert run.state() == "running" and run.level("plc.valve") is True


def test_what_a_hold_handler_set_ends_with_the_restart(cell) -> None:
    run = cell(FILL.replace("wait: 100 ms", "wait: 1 s"))
    run.put("plc.level", 30.0)
    run.start("fill")
    run.run(4)
    assert run.level("plc.speed") == 120
    run.command("hold")
    run.run(2)
    assert run.level("plc.speed") == 0
    run.command("restart")
    run.run(5)
    assert run.level("plc.speed") == 120


def test_timers_stand_still_while_a_batch_is_held(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.run(80)
    run.command("hold")
    run.run(500)
    run.command("restart")
    run.run(10)
    assert run.state() == "running"
    run.run(20)
    assert run.state() == "held"


def test_a_restart_waits_until_the_outputs_read_back_as_set(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.following = False
    run.command("hold")
    run.run(3)
    run.command("restart")
    run.run(20)
    assert run.state() == "restarting"
    assert run.level("plc.valve") is False
    run.put("plc.valve", False)
    run.run(4)
    assert run.state() == "running"


def test_pause_rests_between_two_steps(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.command("pause")
    run.run(10)
    assert run.state() == "pausing" and run.level("plc.valve") is True
    run.put("plc.level", 21.0)
    run.run(2)
    assert run.state() == "paused" and run.level("plc.valve") is False
    run.run(50)
    assert run.level("plc.speed") == 0
    run.command("resume")
    run.run(4)
    assert run.level("plc.speed") == 120


@pytest.mark.parametrize(("command", "state"), [("stop", "stopped"), ("abort", "aborted")])
def test_the_end_cuts_active_steps_and_frees_the_units(cell, command: str, state: str) -> None:
    run = cell(FILL)
    run.start("fill")
    run.command(command)
    run.run(3)
    assert run.state() == state
    assert run.of(StepEnded)[0].how == "cut"
    assert run.level("plc.valve") is False
    assert not run.engine.state.owners
    run.command("reset")
    run.run(1)
    assert run.of(BatchRemoved) and not run.engine.state.batches


def test_an_abort_handler_acts_and_then_all_is_at_failsafe(cell) -> None:
    run = cell(FILL.replace("on:", "on:\n  abort: [{set: {plc.drain: true}}, {wait: 100 ms}]"))
    run.start("fill")
    run.command("abort")
    run.run(3)
    assert run.state() == "aborting" and run.level("plc.drain") is True and run.level("plc.valve") is False
    run.run(15)
    assert run.state() == "aborted" and run.level("plc.drain") is False


def test_a_handler_does_not_hang_on_a_bad_value(cell) -> None:
    run = cell(
        FILL.replace(
            "on:", "on:\n  abort: [{set: {plc.speed: 'clamp(plc.count, 0, 300) * 1 rpm'}}, {set: {plc.drain: true}}]"
        )
    )
    run.start("fill")
    run.put("plc.count", None)
    run.command("abort")
    run.run(5)
    assert run.state() == "aborted"


# --- faults ----------------------------------------------------------------------------------------------------------


def test_a_lost_device_turns_its_tags_bad_and_holds_with_an_alarm_that_names_it(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.lose("plc", "no answer from 10.0.0.1")
    run.run(1)
    assert run.engine.state.values[run.index("plc.level")] is None
    assert run.state() == "held"
    alarm = run.of(AlarmRaised)[0]
    assert (alarm.kind, alarm.device, alarm.tag) == ("device-lost", "plc", "plc.level")
    assert alarm.detail == "no answer from 10.0.0.1"
    assert alarm.say["fr"] == "plc est perdu (plc.level) : injoignable" and set(alarm.say) == {"en", "fr", "ar"}
    assert run.of(StateChanged)[-1].cause_say == alarm.say
    run.command("restart")
    run.run(1)
    assert refusals(run)[-1] == "plc is lost: no answer from 10.0.0.1"
    assert run.of(CommandDone)[-1].say["ar"].startswith("انقطع الاتصال مع plc")
    run.find("plc")
    run.run(2)
    assert run.of(AlarmCleared)
    run.command("restart")
    run.run(6)
    assert run.state() == "running"


def test_the_alarm_of_a_lost_device_says_its_newest_reason_and_the_record_keeps_the_first(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    for status, text in ((BAD_CONNECTION_CLOSED, "was closed"), (BAD_CONNECTION_REJECTED, "refuses the connection")):
        for _ in range(2):
            run.packets.append(pack(DeviceReport(0, False, status, text, "look")))
            run.present.discard(0)
            run.run(1)
    (raised,), (changed,) = run.of(AlarmRaised), run.of(AlarmChanged)
    assert raised.say["en"] == "plc is lost (plc.level): connection closed by the device"
    assert changed.say["fr"] == "plc est perdu (plc.level) : connexion refusée"
    assert (raised.detail, changed.detail) == ("was closed (look)", "refuses the connection (look)")
    assert run.engine.state.alarms[raised.alarm].say == changed.say
    commits = [engine.step(*cycle).commit for engine in [Engine(run.plan)] for cycle in run.taken]
    assert not [one for commit in commits if commit for one in commit.events if isinstance(one, AlarmChanged)]


def test_a_device_of_another_unit_disturbs_nothing(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.lose("aux")
    run.run(3)
    assert run.state() == "running"


def test_a_fieldbus_process_that_says_nothing_loses_its_devices(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.present.clear()
    run.run(200)
    assert run.state() == "held" and run.engine.state.up == [False, False]


def test_a_loop_that_stood_still_holds_its_batches(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.run(1, skip=30)
    assert run.level("plc.valve") is False
    assert run.of(AlarmRaised)[0].kind == "stood-still"
    run.command("restart")
    run.run(5)
    assert run.state() == "running"


def test_tags_that_are_refused_together_are_one_alarm(cell) -> None:
    run = cell(FILL)
    tags = [tag.index for tag in run.plan.cell.tags if tag.name.startswith("plc.")]
    for status, active in ((BAD_NODE_UNKNOWN, True), (GOOD, False)):
        run.send(TagReport(tags[0], status, "DB2: look", others=tuple(tags[1:])))
        run.run(1)
        (alarm,) = [one for one in run.engine.state.alarms.values() if one.kind == "refused"]
        assert alarm.active == active
        assert alarm.say["en"].startswith(
            f"{run.plan.cell.tags[tags[0]].name} and {len(tags) - 1} more cannot be read: "
        )


def test_a_refused_output_holds_its_batch(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.refuse("plc.valve", "write protected")
    run.run(2)
    assert run.state() == "held"
    alarm = run.of(AlarmRaised)[0]
    assert alarm.say["en"] == "plc.valve could not be set: setting is not permitted"
    assert alarm.detail == "write protected"


def test_a_bad_value_fires_no_transition(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.put("plc.level", None)
    run.run(50)
    assert [event.name for event in run.of(StepEnded)] == []


def test_an_interlock_trips_holds_and_blocks_the_restart(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.put("plc.count", 41)
    run.run(1)
    assert run.state() in ("holding", "held") and run.level("plc.valve") is False
    run.command("restart")
    run.run(2)
    assert "an interlock stands: Too many" in refusals(run)[-1]
    run.put("plc.count", 0)
    run.run(2)
    run.command("restart")
    run.run(5)
    assert run.state() == "running"


def test_an_interlock_that_cannot_be_watched_trips_after_its_grace(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.put("plc.count", None)
    run.run(9)
    assert run.state() == "running"
    run.run(3)
    assert run.state() == "held"
    assert "plc.count" in run.of(AlarmRaised)[0].say["en"]


def test_an_unknown_interlock_does_not_end_a_batch_that_a_lost_device_holds(cell) -> None:
    run = cell(FILL.replace("do: hold", "do: stop"))
    run.start("fill")
    run.lose("plc")
    run.run(100)
    assert run.state() == "held"
    run.find("plc")
    run.run(2)
    run.command("restart")
    run.run(5)
    assert run.state() == "running"


def test_a_standing_interlock_ends_a_held_batch_and_an_unknown_one_bars_its_restart(cell) -> None:
    run = cell(FILL.replace("do: hold", "do: stop"))
    run.start("fill")
    run.command("hold")
    run.run(3)
    run.put("plc.count", None)
    run.run(100)
    assert run.state() == "held"
    run.command("restart")
    run.run(2)
    assert run.state() == "held" and "plc.count" in refusals(run)[-1]
    run.put("plc.count", 41)
    run.run(3)
    assert run.state() == "stopped" and run.of(AlarmRaised)[0].kind == "interlock"


def test_garbage_packets_change_nothing(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.packets += [
        b"\x01",
        b"\x00",
        b"\x00\xff\xff",
        b"\x01\x00\x00\x00" + b"x" * 40,
        b"\x01\x00\xff\xff" + b"\x00" * 40,
    ]
    run.run(3)
    assert run.state() == "running"


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"recipe": "none"}, "there is no recipe none"),
        ({"recipe": "fill", "parameters": {"volume": 51}}, "volume: 51 L is out of range, it goes from 5 to 50 L"),
        ({"recipe": "fill", "parameters": {"volume": "much"}}, "volume: much is not a number"),
        ({"recipe": "fill", "parameters": {"speed": 1}}, "fill has no parameter `speed`"),
    ],
)
def test_a_start_that_cannot_be_is_refused_in_words(cell, fields: dict, text: str) -> None:
    run = cell(FILL)
    run.run(2)
    run.command("start", **fields)
    run.run(1)
    assert text in refusals(run)[0]
    assert set(run.of(CommandDone)[0].say) == {"en", "fr", "ar"}
    assert not run.engine.state.batches


def test_a_command_that_came_too_late_or_from_another_life_of_the_loop_is_not_obeyed(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.run(40)
    now = run.cycle
    run.command("hold", since=now - 30, until=now)
    run.command("hold", since=now + 1000, until=now + 1200)
    run.run(1)
    assert ["too late" in text for text in refusals(run)] == [True, True]
    assert run.state() == "running"
    run.command("hold", since=now - 30, until=run.cycle + 1)
    run.run(2)
    assert run.state() == "held"


def test_a_unit_has_one_owner(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.command("start", "B2", recipe="fill")
    run.run(1)
    assert "plc is used by batch B1" in refusals(run)[0]


def test_a_start_with_a_bad_input_names_it(cell) -> None:
    run = cell(FILL)
    run.put("plc.level", None)
    run.run(2)
    run.command("start", recipe="fill")
    run.run(1)
    assert "no good value from plc.level" in refusals(run)[0]


def test_a_person_sets_an_output_only_while_no_batch_owns_it(cell) -> None:
    run = cell(FILL)
    run.run(2)
    run.command("set", "", tag="plc.valve", value=True)
    run.run(1)
    assert run.level("plc.valve") is True
    run.start("fill")
    run.command("set", "", tag="plc.drain", value=True)
    run.run(1)
    assert "belongs to batch B1" in refusals(run)[0]
    run.command("set", "", tag="aux.beat", value=1)
    run.command("set", "", tag="plc.level", value=1)
    run.command("set", "", tag="aux.lamp", value=3)
    run.run(1)
    assert (
        "heartbeat" in refusals(run)[1] and "only be read" in refusals(run)[2] and "true or false" in refusals(run)[3]
    )


@pytest.mark.parametrize("value", [2.5, float("nan"), float("inf"), 1e300])
def test_what_a_person_sets_is_not_rounded(cell, value: float) -> None:
    run = cell(FILL)
    run.run(2)
    run.command("set", "", tag="plc.program", value=value)
    run.run(1)
    assert "plc.program may not be set to" in refusals(run)[0] and run.level("plc.program") == 0
    run.command("set", "", tag="plc.program", value=2.0)
    run.run(1)
    assert run.level("plc.program") == 2 and type(run.level("plc.program")) is int


def test_every_command_that_the_state_does_not_allow_is_refused(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    for command in set(states.COMMANDS) - {"start", *states.allowed("running")}:
        run.command(command)
    run.run(1)
    assert len(refusals(run)) == len(set(states.COMMANDS) - {"start", *states.allowed("running")})
    assert run.state() == "running"


def test_a_heartbeat_counts_with_the_cycles(cell) -> None:
    run = cell(FILL)
    seen: set[object] = set()
    for _ in range(50):
        run.run(1)
        seen.add(run.level("aux.beat"))
    assert len(seen) >= 4


def test_a_heartbeat_of_eight_bits_counts_on(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path, FILL, cell=CELL.replace("beat: {at: holding:0, type: int16,", "beat: {at: holding:0, type: int8,")
    )
    run = Virtual(plan)
    seen: list[object] = []
    for _ in range(3000):
        run.run(1)
        if not seen or run.level("aux.beat") != seen[-1]:
            seen.append(run.level("aux.beat"))
    assert max(seen) == 127 and seen[seen.index(127) + 1] == 0


# --- after a power loss ----------------------------------------------------------------------------------------------


def test_after_a_power_loss_the_batch_is_held_with_its_outputs_at_failsafe(cell) -> None:
    run = cell(FILL.replace("wait: 100 ms", "wait: 1 s"))
    run.put("plc.level", 30.0)
    run.start("fill")
    run.run(4)
    assert run.level("plc.speed") == 120
    again = Virtual(run.plan)
    again.put("plc.level", 30.0)
    again.restore(run.blobs["B1"])
    again.run(3)
    assert again.state() == "held" and again.level("plc.speed") == 0
    assert again.of(AlarmRaised)[0].kind == "power-loss"
    again.command("restart")
    again.run(6)
    assert again.state() == "running" and again.level("plc.speed") == 120
    again.run(110)
    assert again.state() == "complete"


HANDLERS = """
recipe: fill
uses: [plc]
interlocks:
  - {when: plc.count > 40, do: stop, say: {en: Too many}}
steps:
  - {name: Stir, set: {plc.speed: 120 rpm}, wait: 9 s}
on:
  hold: [{set: {plc.program: 7}}]
  restart: [{set: {plc.drain: true}}, {wait: 100 ms}]
  stop: [{set: {plc.drain: true}}, {wait: 100 ms}]
  abort: [{set: {plc.drain: true}}, {wait: 100 ms}]
"""


def after_a_power_loss(cell, recipe: str = HANDLERS, *, held: bool = False) -> Virtual:
    run = cell(recipe)
    run.start("fill")
    if held:
        run.command("hold")
        run.run(3)
        assert run.level("plc.program") == 7
    again = Virtual(run.plan)
    again.restore(run.blobs["B1"])
    return again


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("command", ["restart", "stop", "abort"])
def test_what_a_person_commands_after_a_power_loss_sets_its_outputs(cell, command: str, held: bool) -> None:
    run = after_a_power_loss(cell, held=held)
    run.run(50)
    assert run.state() == "held"
    assert [run.level(f"plc.{tag}") for tag in ("drain", "program", "speed")] == [False, 0, 0]
    run.command(command)
    run.run(5)
    assert run.level("plc.drain") is True
    assert [run.level(f"plc.{tag}") for tag in ("program", "speed")] == [0, 0]
    run.run(20)
    assert run.state() == {"restart": "running", "stop": "stopped", "abort": "aborted"}[command]
    assert run.level("plc.speed") == (120 if command == "restart" else 0) and run.level("plc.drain") is False


def test_nothing_moves_after_a_power_loss_where_nobody_commands_it(cell) -> None:
    run = after_a_power_loss(cell)
    run.run(5)
    run.put("plc.count", 41)
    run.run(3)
    assert run.state() == "stopping" and run.level("plc.drain") is False
    run.run(20)
    assert run.state() == "stopped"


@pytest.mark.parametrize(("policy", "drains"), [("abort", False), ("resume", True)])
def test_after_a_power_loss_only_a_restart_that_the_recipe_wants_sets_outputs(cell, policy: str, drains: bool) -> None:
    run = after_a_power_loss(cell, HANDLERS + f"after_power_loss: {policy}\n")
    run.run(6)
    assert run.state() == {"abort": "aborting", "resume": "restarting"}[policy]
    assert run.level("plc.drain") is drains and run.level("plc.speed") == 0


def test_a_batch_that_an_older_edge_has_left_comes_back(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    left = msgspec.msgpack.decode(run.blobs["B1"], strict=False)
    del left["tags"], left["cause_say"]
    again = Virtual(run.plan)
    again.restore(msgspec.msgpack.encode({**left, "cause": "started"}))
    again.run(3)
    assert again.state() == "held"
    again.command("restart")
    again.run(6)
    assert again.state() == "running"


@pytest.mark.parametrize(("policy", "state"), [("abort", "aborted"), ("resume", "running")])
def test_after_a_power_loss_the_recipe_s_policy_counts(cell, policy: str, state: str) -> None:
    run = cell(FILL + f"after_power_loss: {policy}\n")
    run.start("fill")
    again = Virtual(run.plan)
    again.restore(run.blobs["B1"])
    again.run(8)
    assert again.state() == state


CHANGED = """
recipe: fill
uses: [plc]
parameters:
  a: {unit: L, default: 20}
  b: {unit: L, default: 20}
interlocks:
  - {when: plc.level > b, do: hold, grace: 100 ms, say: {en: Too many}}
steps: [{wait: 10 ms}]
"""


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    ("recipe", "cell_text", "cause"),
    [
        (CHANGED, CELL, "its recipe file has changed since"),
        (FILL, CELL.replace("    valve:", "    vent: {at: coil:9, type: bool}\n    valve:"), "the tags of its cell"),
    ],
)
def test_after_a_power_loss_a_batch_whose_recipe_or_cell_is_another_is_aborted(
    cell, tmp_path, held: bool, recipe: str, cell_text: str, cause: str
) -> None:
    run = cell(FILL.replace("Rest, wait: 100 ms", "Rest, wait: 9 s"))
    run.put("plc.level", 30.0)
    run.start("fill")
    run.run(6)
    if held:
        run.command("hold")
        run.run(5)
    again = Virtual(plan_of(tmp_path, recipe.replace("Rest, wait: 100 ms", "Rest, wait: 9 s"), cell=cell_text))
    again.put("plc.level", 30.0)
    again.restore(run.blobs["B1"])
    again.run(10)
    assert again.state() == "aborted" and again.of(StateChanged)[-1].cause.startswith(cause)
    assert [event.how for event in again.of(StepEnded)] == ["cut"]
    assert all(again.level(tag.name) == tag.failsafe for tag in again.plan.cell.tags if tag.device == 0)


# --- pure ------------------------------------------------------------------------------------------------------------


def replay(run: Virtual) -> list[tuple[list[bytes], list[object], object]]:
    engine = Engine(run.plan)
    outputs = [engine.step(cycle, packets) for cycle, packets in run.taken]
    return [(one.frames, one.events, one.commit) for one in outputs]


COMMANDS = st.sampled_from([*states.COMMANDS, "lose", "find", "level", "count", "bad"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(COMMANDS, st.integers(0, 60), st.integers(1, 40)), max_size=25))
def test_whatever_happens_the_promises_hold(tmp_path_factory, happenings) -> None:
    """Random commands and faults: owners, failsafe, `during` with the state; the same again gives the same."""
    run = Virtual(plan_of(tmp_path_factory.mktemp("cell"), FILL))
    run.run(2)
    for what, number, cycles in happenings:
        match what:
            case "start":
                run.command("start", recipe="fill", batch=f"B{number}")
            case "lose" | "find":
                getattr(run, what)("plc")
            case "level" | "count":
                run.put(f"plc.{what}", number if what == "count" else float(number))
            case "bad":
                run.put("plc.level", None)
            case _:
                for batch in list(run.engine.state.batches):
                    run.command(what, batch)
        for _ in range(cycles):
            run.run(1)
            state = run.engine.state
            live = [batch for batch in state.batches.values() if batch.state not in states.ENDED]
            assert len(live) <= 1 and set(state.owners.values()) == {batch.batch for batch in live}
            acting = live[0].state in states.ACTING if live else False
            if not acting:
                assert run.level("plc.valve") is False
            if not live:
                assert run.level("plc.speed") == 0
    assert msgspec.msgpack.encode(run.engine.state)
    first, second = replay(run), replay(run)
    assert first == second


def test_the_state_is_data_and_a_fork_goes_on_the_same(cell) -> None:
    from edge.batch import State

    run = cell(FILL)
    run.start("fill")
    blob = msgspec.msgpack.encode(run.engine.state)
    fork = Engine(run.plan, msgspec.msgpack.decode(blob, type=State))
    run.taken.clear()
    run.put("plc.level", 25.0)
    run.run(30)
    for cycle, packets in run.taken:
        fork.step(cycle, packets)
    assert msgspec.msgpack.encode(fork.state) == msgspec.msgpack.encode(run.engine.state)


def test_state_changes_are_told_with_cause_and_person(cell) -> None:
    run = cell(FILL)
    run.start("fill")
    run.command("hold")
    run.run(2)
    assert run.of(StateChanged)[-1].cause == "hold by tester"
    assert run.of(StateChanged)[-1].cause_say["fr"] == "maintien par tester"
    changes = [(event.before, event.state, event.by) for event in run.of(StateChanged)]
    assert changes == [("idle", "running", "tester"), ("running", "holding", "tester"), ("holding", "held", "edge")]
