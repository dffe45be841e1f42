"""Ramps, pulses, `first`, loops over values, alarms and questions of a recipe: how they end, and what a hold does."""

from pathlib import Path

import pytest

from edge.language.plan import load_plan
from edge.language.source import Problems
from edge.messages import AlarmRaised, Answered, Asked, CommandDone, Recorded, StepEnded
from tests.virtual import CELL, Virtual, plan_of


@pytest.fixture
def cell(tmp_path: Path):
    def make(steps: str, rest: str = "") -> Virtual:
        return Virtual(plan_of(tmp_path, f"recipe: r\nuses: [plc]\n{rest}steps:\n{steps}"))

    return make


def ended(run: Virtual) -> list[tuple[str, str]]:
    return [(event.name, event.how) for event in run.of(StepEnded)]


def power_cut(run: Virtual) -> Virtual:
    """The same batch after a power loss, held."""
    after = Virtual(run.plan)
    after.run(2)
    after.restore(run.blobs["B1"])
    after.run(2)
    return after


# --- ramp ------------------------------------------------------------------------------------------------------------

RAMP = "  - {name: Up, ramp: {plc.speed: {from: 20 rpm, to: 120 rpm, rate: 100 rpm/s}}}\n  - {name: Rest, wait: 1 s}\n"


def test_a_ramp_goes_at_its_rate_and_stays_where_it_has_arrived(cell) -> None:
    run = cell(RAMP)
    run.start("r")
    start, cycle = run.level("plc.speed"), run.cycle
    run.run(50)
    assert run.level("plc.speed") - start == pytest.approx((run.cycle - cycle) * 1.0)
    run.run(60)
    assert run.level("plc.speed") == 120 and ended(run) == [("Up", "done")]
    run.run(150)
    assert run.state() == "complete" and run.level("plc.speed") == 0


def test_a_ramp_begins_at_the_level_that_the_output_has(cell) -> None:
    run = cell("  - set: {plc.speed: 200 rpm}\n  - ramp: {plc.speed: {to: 100 rpm, rate: 100 rpm/s}}\n")
    run.start("r")
    assert 190 <= run.level("plc.speed") <= 200
    run.run(50)
    assert 140 <= run.level("plc.speed") <= 152


def test_a_ramp_takes_no_notice_of_skipped_cycles(cell) -> None:
    run = cell(RAMP)
    run.start("r")
    before, cycle = run.level("plc.speed"), run.cycle
    run.run(3, skip=9)
    assert run.level("plc.speed") == pytest.approx(before + (run.cycle - cycle))


def test_a_ramp_stands_while_the_batch_is_held_and_goes_on_after_it(cell) -> None:
    run = cell(RAMP)
    run.start("r")
    run.run(30)
    run.command("hold")
    run.run(2)
    at = run.level("plc.speed")
    run.run(100)
    assert run.state() == "held" and run.level("plc.speed") == at
    run.command("restart")
    run.run(5)
    assert run.state() == "running" and at <= run.level("plc.speed") <= at + 5
    run.run(120)
    assert ended(run) == [("Up", "done")]


def test_a_ramp_begins_anew_after_a_power_loss_from_where_it_says(cell) -> None:
    run = cell(RAMP.replace("from: 20 rpm", "from: plc.level * 1 rpm / 1 L"))
    run.put("plc.level", 20.0)
    run.start("r")
    run.run(30)
    after = power_cut(run)
    assert after.level("plc.speed") == 0
    after.put("plc.level", 50.0)
    after.command("restart")
    after.run(6)
    assert 50 <= after.level("plc.speed") <= 56


def test_a_time_limit_holds_a_ramp_where_it_stands(cell) -> None:
    run = cell(RAMP.replace("rpm/s}}}", "rpm/s}}, within: 300 ms}"))
    run.start("r")
    run.run(40)
    assert run.state() == "held" and 45 <= run.level("plc.speed") <= 55
    run.command("restart")
    run.run(25)
    assert run.state() == "running" and 65 <= run.level("plc.speed") <= 80


def test_a_ramp_waits_for_a_value_that_is_unknown(cell) -> None:
    run = cell("  - wait: 50 ms\n  - ramp: {plc.speed: {to: plc.level * 1 rpm / 1 L, rate: 9 rpm/s}}\n")
    run.put("plc.level", 10.0)
    run.start("r")
    run.put("plc.level", None)
    run.run(300)
    assert [alarm.kind for alarm in run.of(AlarmRaised)] == ["no-value"] and run.level("plc.speed") == 0


def test_a_rate_of_nothing_holds_the_batch(cell) -> None:
    rest = "parameters: {fast: {unit: rpm/s, default: 0}}\n"
    run = cell("  - ramp: {plc.speed: {to: 10 rpm, rate: fast}}\n", rest)
    run.start("r")
    assert run.state() == "held"
    assert [alarm.kind for alarm in run.of(AlarmRaised)] == ["refused"]


# --- pulse -----------------------------------------------------------------------------------------------------------

PULSE = "  - {name: Tip, pulse: {plc.valve: true}, for: 100 ms}\n  - {name: Rest, wait: 1 s}\n"


def test_a_pulse_counts_from_its_read_back_and_goes_to_rest(cell) -> None:
    run = cell(PULSE)
    run.following = False
    run.start("r")
    run.run(60)
    assert run.level("plc.valve") is True and not ended(run)
    run.put("plc.valve", True)
    run.run(9)
    assert run.level("plc.valve") is True
    run.run(3)
    assert run.level("plc.valve") is False and ended(run) == [("Tip", "done")]


def test_two_pulses_are_two_edges_for_the_device(cell) -> None:
    run = cell("  - repeat: {times: 2}\n    steps: [{name: Tip, pulse: {plc.valve: true}, for: 10 ms}]\n")
    run.following = False
    run.start("r")
    run.put("plc.valve", True)
    run.run(10)
    assert run.level("plc.valve") is False and len(ended(run)) == 1
    run.put("plc.valve", False)
    run.run(4)
    assert run.level("plc.valve") is True


def test_a_pulse_that_a_device_has_seen_is_not_given_again_after_a_hold(cell) -> None:
    run = cell(PULSE)
    run.start("r")
    run.run(5)
    run.command("hold")
    run.run(2)
    assert run.level("plc.valve") is False
    run.command("restart")
    levels = [(run.run(1) and None) or run.level("plc.valve") for _ in range(10)]
    assert True not in levels and ended(run) == [("Tip", "done")]


def test_a_pulse_that_no_device_has_seen_is_given_again(cell) -> None:
    run = cell(PULSE)
    run.following = False
    run.start("r")
    run.run(5)
    run.command("hold")
    run.run(2)
    run.following = True
    run.command("restart")
    run.run(5)
    assert run.level("plc.valve") is True and not ended(run)


def test_a_pulse_of_a_handler_waits_for_no_device(cell) -> None:
    run = cell("  - wait: 9 s\n", "on: {hold: [{set: {plc.drain: true}}, {pulse: {plc.drain: false}, for: 50 ms}]}\n")
    run.following = False
    run.start("r")
    run.command("hold")
    run.run(4)
    assert (run.state(), run.level("plc.drain")) == ("holding", False)
    run.run(8)
    assert (run.state(), run.level("plc.drain")) == ("held", True)


# --- first -----------------------------------------------------------------------------------------------------------

FIRST = """
  - name: Whichever
    first:
      full: [{during: {plc.valve: true}, until: plc.level >= 20 L, within: none}]
      late: [{wait: 500 ms}]
    into: winner
  - choose:
      - {when: winner == "full", steps: [{name: It was full, wait: 1 s}]}
      - else: [{name: It was late, wait: 1 s}]
"""


@pytest.mark.parametrize(("level", "winner"), [(30.0, "full"), (0.0, "late")])
def test_the_first_branch_that_ends_cuts_the_others(cell, level: float, winner: str) -> None:
    run = cell(FIRST)
    run.start("r")
    run.put("plc.level", level)
    run.run(60)
    assert [(one.name, one.value) for one in run.of(Recorded)] == [("winner", winner)]
    assert [how for _, how in ended(run)[:3]] == ["done", "cut", "done"]
    assert run.level("plc.valve") is False
    assert any(branch.at < branch.entered for branch in run.batch().body.children)


def test_of_branches_that_end_together_the_first_in_the_file_counts(cell) -> None:
    run = cell("  - {first: {b: [{wait: 50 ms}], a: [{wait: 50 ms}]}, into: winner}\n  - record: {won: winner}\n")
    run.start("r")
    run.run(20)
    assert [one.value for one in run.of(Recorded)] == ["b", "b"]


def test_first_is_held_and_goes_on_with_all_its_branches(cell) -> None:
    run = cell(FIRST)
    run.start("r")
    run.run(10)
    run.command("hold")
    run.run(100)
    assert run.state() == "held" and run.level("plc.valve") is False
    run.command("restart")
    run.run(10)
    assert run.level("plc.valve") is True
    run.run(60)
    assert [one.value for one in run.of(Recorded)] == ["late"]


# --- repeat each -----------------------------------------------------------------------------------------------------


def test_each_value_has_its_round_in_its_unit(cell) -> None:
    run = cell("  - repeat: {each: dose, of: [5 L, 10000 mL]}\n    steps: [{wait: 20 ms}, {record: {dose: dose}}]\n")
    run.start("r")
    run.run(30)
    assert [(one.value, one.unit) for one in run.of(Recorded)] == [(5, "L"), (10, "L")]
    assert run.state() == "complete"


def test_two_loops_at_once_have_a_variable_each(cell) -> None:
    loop = "[{{repeat: {{each: x, of: [{}]}}, steps: [{{wait: 20 ms}}, {{record: {{{}: x}}}}]}}]"
    run = cell(f"""  - parallel:\n      a: {loop.format("1, 2", "a")}\n      b: {loop.format('"p", "q"', "b")}\n""")
    run.start("r")
    run.run(30)
    assert [(one.name, one.value) for one in run.of(Recorded)] == [("a", 1), ("b", "p"), ("a", 2), ("b", "q")]


def test_a_loop_over_values_goes_on_after_a_power_loss(cell) -> None:
    run = cell("  - repeat: {each: x, of: [1, 2, 3]}\n    steps: [{wait: 100 ms}, {record: {x: x}}]\n")
    run.start("r")
    run.run(18)
    after = power_cut(run)
    after.command("restart")
    after.run(60)
    assert [one.value for one in [*run.of(Recorded), *after.of(Recorded)]] == [1, 2, 3]


# --- alarm -----------------------------------------------------------------------------------------------------------


def test_an_alarm_that_nobody_waits_for_stands_until_it_is_acknowledged(cell) -> None:
    run = cell("  - alarm: {say: {en: Look}, priority: low}\n  - wait: 9 s\n")
    run.start("r")
    (alarm,) = run.of(AlarmRaised)
    assert (alarm.kind, alarm.priority, alarm.say) == ("alarm", "low", {"en": "Look"})
    run.command("hold")
    run.run(2)
    run.command("restart")
    run.run(5)
    assert run.engine.state.alarms[alarm.alarm].active
    run.command("acknowledge", alarm=alarm.alarm)
    run.run(2)
    assert not run.engine.state.alarms and run.state() == "running"


def test_an_alarm_that_nobody_waits_for_stands_again_after_a_power_loss_until_somebody_has_seen_it(cell) -> None:
    run = cell("  - alarm: {say: {en: Look}, priority: low}\n  - wait: 50 ms\n  - wait: 9 s\n")
    run.start("r")
    after = power_cut(run)
    (alarm,) = [one for one in after.of(AlarmRaised) if one.kind == "alarm"]
    assert (alarm.priority, alarm.say, alarm.batch) == ("low", {"en": "Look"}, "B1")
    after.command("acknowledge", alarm=alarm.alarm)
    after.command("restart")
    after.run(20)
    assert not [one for one in power_cut(after).of(AlarmRaised) if one.kind == "alarm"]


ACKNOWLEDGE = "  - alarm: {say: {en: Empty the bin}, acknowledge: true}\n  - wait: 9 s\n"


def test_a_step_waits_until_its_alarm_is_acknowledged(cell) -> None:
    run = cell(ACKNOWLEDGE)
    run.start("r")
    run.run(100)
    assert not ended(run)
    run.command("hold")
    run.run(2)
    run.command("restart")
    run.run(10)
    assert not ended(run)
    run.command("acknowledge", alarm=run.of(AlarmRaised)[0].alarm)
    run.run(2)
    assert ended(run) == [("alarm", "done")] and not run.engine.state.alarms


def test_an_alarm_that_was_acknowledged_while_held_after_a_power_loss_is_not_raised_a_third_time(cell) -> None:
    run = cell(ACKNOWLEDGE)
    run.start("r")
    after = power_cut(run)
    after.command("acknowledge", alarm=next(one.alarm for one in after.of(AlarmRaised) if one.kind == "alarm"))
    after.run(2)
    after.command("restart")
    after.run(8)
    assert ended(after) == [("alarm", "done")]
    assert len([one for one in after.of(AlarmRaised) if one.kind == "alarm"]) == 1


def test_an_alarm_that_is_waited_for_is_raised_again_after_a_power_loss(cell) -> None:
    run = cell(ACKNOWLEDGE)
    run.start("r")
    after = power_cut(run)
    after.command("restart")
    after.run(8)
    alarm = next(one for one in after.of(AlarmRaised) if one.kind == "alarm")
    assert not ended(after)
    after.command("acknowledge", alarm=alarm.alarm)
    after.run(3)
    assert ended(after) == [("alarm", "done")]


# --- ask -------------------------------------------------------------------------------------------------------------

ASK = """
  - ask: {say: {en: Fine?}, answers: {yes: {en: Yes, fr: Oui}, no: {en: No, fr: Non}}, into: ok, default: no, who: WHO}
    within: 500 ms
    on_timeout: continue
  - record: {ok: ok}
"""


def test_a_question_that_nobody_answers_in_time_has_its_default(cell) -> None:
    run = cell(ASK.replace("WHO", "operator"))
    run.start("r")
    (asked,) = run.of(Asked)
    assert asked.labels == {"yes": {"en": "Yes", "fr": "Oui"}, "no": {"en": "No", "fr": "Non"}}
    run.run(60)
    assert [(one.value, one.by) for one in run.of(Answered)] == [("no", "recipe")]
    assert [one.value for one in run.of(Recorded)] == ["no"] and run.state() == "complete"


def test_a_question_for_an_engineer_takes_no_answer_of_an_operator(cell) -> None:
    run = cell(ASK.replace("WHO", "engineer"))
    run.start("r")
    (asked,) = run.of(Asked)
    run.command("answer", prompt=asked.prompt, value="yes")
    run.run(1)
    (refused,) = [event for event in run.of(CommandDone) if not event.ok]
    assert set(refused.say) == {"en", "fr", "ar"} and not run.of(Answered)
    run.command("answer", prompt=asked.prompt, value="yes", role="engineer")
    run.run(1)
    assert [one.value for one in run.of(Answered)] == ["yes"]


LATE = "within: 1 s, on_timeout: continue"

# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ("{ramp: {plc.speed: {to: 400 rpm, rate: 9 rpm/s}}}", "out-of-range"),
        ("{ramp: {plc.speed: {to: 100 rpm, rate: 9 rpm}}}", "wrong-unit"),
        ("{ramp: {plc.speed: {to: 100 rpm, rate: 0 rpm/s}}}", "out-of-range"),
        ("{ramp: {plc.valve: {to: true, rate: 1 1/s}}}", "not-number"),
        ("{ramp: {plc.level: {to: 3 L, rate: 1 L/s}}}", "not-writable"),
        ("{ramp: {}}", "no-outputs"),
        ("{set: {plc.speed: 1 rpm}, ramp: {plc.speed: {to: 9 rpm, rate: 9 rpm/s}}}", "driven-twice"),
        ("{pulse: {plc.valve: true}}", "missing-key"),
        ("{wait: 1 s, for: 1 s}", "key-not-here"),
        (
            "{first: {a: [{set: {plc.valve: true}}, {wait: 1 s}], b: [{pulse: {plc.valve: true}, for: 1 s}]}}",
            "driven-twice",
        ),
        ("{parallel: {a: [{wait: 1 s}]}, into: x}", "key-not-here"),
        ("{repeat: {each: x, of: [1 L, 2 kg]}, steps: [{record: {x: x}}]}", "wrong-unit"),
        ("{repeat: {each: x}, steps: [{wait: 1 s}]}", "missing-key"),
        ("{repeat: {each: x, of: []}, steps: [{wait: 1 s}]}", "empty-list"),
        ("{repeat: {each: x, of: [1], times: 2}, steps: [{wait: 1 s}]}", "bad-repeat"),
        ("{repeat: {each: min, of: [1]}, steps: [{wait: 1 s}]}", "reserved-name"),
        ("{repeat: {each: volume, of: [1]}, steps: [{wait: 1 s}]}", "name-taken"),
        ('{repeat: {each: x, of: ["a", "b"]}, steps: [{until: x == "c", within: 1 s}]}', "no-such-answer"),
        ("{alarm: {say: {en: A}}, within: 1 s}", "key-not-here"),
        ("{ask: {say: {en: A}, into: a}, within: 1 s, on_timeout: continue}\n  - record: {a: a}", "not-yet-answered"),
        ("{ask: {say: {en: A}, into: a, default: true}}", "key-not-here"),
        (f"{{ask: {{say: {{en: A}}, answers: [x, y], into: a, default: z}}, {LATE}}}", "not-a-choice"),
        (f"{{ask: {{say: {{en: A}}, number: {{range: [1, 2]}}, into: a, default: 3}}, {LATE}}}", "out-of-range"),
    ],
)
def test_each_mistake_is_found(tmp_path: Path, step: str, code: str) -> None:
    (tmp_path / "cell.yaml").write_text(CELL, encoding="utf-8")
    head = "recipe: r\nuses: [plc]\nparameters: {volume: {unit: L, default: 1, range: [0, 9]}}\n"
    body = f"steps:\n  - wait: volume * 1 s / 1 L + 1 s\n  - {step}\n"
    (tmp_path / "r.yaml").write_text(head + body, encoding="utf-8")
    problems = Problems()
    load_plan(tmp_path / "cell.yaml", problems)
    assert code in [one.code for one in problems if one.severity == "error"], [
        (one.code, one.message) for one in problems
    ]
