"""Recipe tests in virtual time: what happens to the plant and to edge, and what fails a test, at the moment it does."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.language.plan import load_trials
from edge.language.report import report
from edge.language.source import Problems
from edge.trial.trial import Failure, Verdict, run_trial
from tests.virtual import CELL

RECIPE = """
recipe: fill
uses: [plc]
parameters:
  volume: {unit: L, default: 20, range: [1, 100]}
interlocks:
  - {when: plc.level > 90 L, do: abort, say: too full}
steps:
  - {ask: {say: Ready?, answers: [yes, no], into: ready}}
  - name: Fill
    set: {plc.speed: 60 rpm}
    during: {plc.valve: true}
    until: plc.level >= volume
    within: 10 s
  - name: Stir
    wait: 1 s
  - record: {filled: plc.level}
"""


class Tank:
    """A plant by hand: the level of `plc.level` rises by 10 L/s while `plc.valve` is open."""

    title = "a tank"

    def __init__(self, cell, level=0.0):
        self.cell = cell
        self.tags = {tag.name: tag.index for tag in cell.tags}
        self.values = {tag.index: "" if tag.type.kind == "string" else 0 for tag in cell.tags}
        self.values[self.tags["plc.ready"]] = False
        self.values[self.tags["plc.level"]] = level

    def step(self, dt_s):
        if self.values[self.tags["plc.valve"]]:
            self.values[self.tags["plc.level"]] += 10 * dt_s

    def write(self, tag, value):
        self.values[tag] = value

    def read(self, tag):
        return self.values[tag]

    def copy(self):
        other = Tank(self.cell)
        other.values = self.values.copy()
        return other


@pytest.fixture
def tried(tmp_path: Path):
    """The verdict of one test, given as the text below its name."""

    def run(text: str, recipe: str = RECIPE, answers: str = "answers: {ready: yes}") -> Verdict:
        (tmp_path / "cell.yaml").write_text(CELL)
        (tmp_path / "fill.yaml").write_text(recipe)
        (tmp_path / "fill.test.yaml").write_text(f"recipe: fill\n{answers}\ntests:\n  It fills:\n{text}")
        problems = Problems()
        trials = load_trials([tmp_path / "fill.test.yaml"], problems)
        assert not problems.errors, report(problems)
        ((trial,),) = [one.trials for one in trials]
        plan = trials[0].plan
        first = run_trial(plan, trial, Tank(plan.cell))
        assert run_trial(plan, trial, Tank(plan.cell)) == first
        return first

    return run


def failed(verdict: Verdict) -> Failure:
    assert verdict.failure is not None
    return verdict.failure


def passed(verdict: Verdict) -> bool:
    assert verdict.failure is None, verdict.failure
    return True


def test_a_batch_runs_to_its_end(tried) -> None:
    verdict = tried("    ends: {by: 5 s, record: [filled >= 20 L and filled < 21 L]}\n")
    assert passed(verdict) and 3 < verdict.seconds < 4


def test_parameters_are_given_to_the_batch(tried) -> None:
    text = "    parameters: {volume: 30 L}\n    ends: {record: [filled >= 30 L and filled < 31 L]}\n"
    assert passed(tried(text))


# --- what fails a test -----------------------------------------------------------------------------------------------


def test_what_must_come_true_by_a_time(tried) -> None:
    assert passed(tried("    expect: [{by: 3 s, that: plc.level >= volume}]\n"))
    failure = failed(tried("    expect: [{by: 1 s, that: plc.level >= volume}]\n"))
    assert failure.message == "this has not come true: plc.level >= volume"
    assert (failure.place.line, failure.place.column) == (5, 30)
    assert failure.seconds == 1.0
    ((name, place),) = failure.steps
    assert name == "Fill" and place.endswith("fill.yaml:10")
    assert failure.state == "running"
    level, valve, speed = failure.tags[0], failure.tags[2], failure.tags[1]
    assert (level.tag, level.unit) == ("plc.level", "L") and 8 < level.truth < 10 and 8 < level.seen < 10
    assert (valve.tag, valve.truth, valve.seen) == ("plc.valve", True, True)
    assert (speed.tag, speed.truth, speed.seen) == ("plc.speed", 60, 60)


def test_what_must_be_true_at_a_time_was_not_before_nor_is_after(tried) -> None:
    assert passed(tried("    expect: [{at: 1 s, that: plc.level > 5 L and plc.level < 15 L}]\n"))
    assert failed(tried("    expect: [{at: 1 s, that: plc.level > 15 L}]\n")).seconds == 1.0
    assert failed(tried("    expect: [{at: 3 s, that: plc.valve}]\n")).seconds == 3.0


def test_what_must_come_true_after_something_else(tried) -> None:
    assert passed(tried("    expect: [{step: Stir, within: 50 ms, that: not plc.valve}]\n"))
    assert passed(tried("    expect: [{when: plc.level > 10 L, within: 1100 ms, that: plc.level >= 20 L}]\n"))
    failure = failed(tried("    expect: [{when: plc.level > 10 L, within: 500 ms, that: plc.level >= 20 L}]\n"))
    assert 1.4 < failure.seconds < 1.7


def test_the_state_that_a_batch_must_come_to(tried) -> None:
    text = "    happens: [{at: 1 s, command: hold}, {at: 2 s, command: restart}]\n    expect:\n"
    assert passed(tried(text + "      - {at: 1500 ms, state: held, that: not plc.valve}\n"))
    failure = failed(tried(text + "      - {by: 900 ms, state: held}\n"))
    assert failure.message == "this has not come true: state held"


def test_what_must_always_be(tried) -> None:
    failure = failed(tried("    always: [not plc.drain, plc.level < 15 L]\n"))
    assert failure.message == "this must always be: plc.level < 15 L"
    assert failure.place.column == 29 and 1.4 < failure.seconds < 1.7


def test_a_condition_that_is_not_known_yet_fails_nothing(tried) -> None:
    assert passed(tried('    always: [ready == "yes"]\n'))
    assert (
        not passed(tried('    always: [ready == "no"]\n')) if False else failed(tried('    always: [ready == "no"]\n'))
    )


def test_the_end_that_a_batch_must_come_to(tried) -> None:
    failure = failed(tried("    happens: [{at: 1 s, command: abort}]\n"))
    assert failure.message == "the batch is aborted, not complete: abort by operator"
    assert passed(tried("    happens: [{at: 1 s, command: abort}]\n    ends: {state: aborted}\n"))
    assert failed(tried("    ends: {state: aborted}\n")).message.startswith("the batch is complete, not aborted")


def test_a_batch_that_does_not_end_in_time(tried) -> None:
    failure = failed(tried("    ends: {by: 2 s}\n"))
    assert failure.message == "the batch has not ended by 2 s: it is running"
    failure = failed(tried("    ends: {by: 2 s}\n", answers=""))
    assert failure.message == "the batch has not ended by 2 s: it is running, and waits for an answer to ready"


def test_a_state_that_is_no_end_is_looked_at_when_the_time_is_over(tried) -> None:
    text = "    happens: [{at: 1 s, command: hold}]\n    ends: {state: %s, by: 4 s}\n"
    verdict = tried(text % "held")
    assert passed(verdict) and verdict.seconds == 4.0
    assert failed(tried(text % "paused")).message == "the batch is held, not paused"


def test_an_alarm_that_is_not_expected_and_one_that_does_not_come(tried) -> None:
    lost = "    happens: [{at: 1 s, lost: plc, for: 1 s}, {at: 3 s, command: restart}]\n"
    failure = failed(tried(lost))
    assert failure.message.startswith("an alarm that the test does not expect, device-lost: plc is lost")
    assert failure.seconds == 1.0
    assert passed(tried(lost + "    ends: {alarms: [device-lost]}\n"))
    failure = failed(tried(lost + "    ends: {alarms: [device-lost, interlock]}\n"))
    assert failure.message == "no alarm interlock was raised"


def test_recorded_values(tried) -> None:
    failure = failed(tried("    ends: {record: [filled > 30 L]}\n"))
    assert failure.message.startswith("not recorded as it must be, filled = 20: ")
    aborted = "    happens: [{at: 1 s, command: abort}]\n    ends: {state: aborted, record: [filled > 3 L]}\n"
    assert failed(tried(aborted)).message == "`filled` was not recorded: filled > 3 L"


def test_recorded_values_stand_beside_what_function_blocks_keep(tried) -> None:
    recipe = RECIPE.replace("until: plc.level >= volume", "until: stable(plc.level >= volume, 200 ms)")
    assert passed(tried("    ends: {record: [filled > 21 L and filled < 23 L]}\n", recipe))
    assert not failed(tried("    ends: {record: [filled < 21 L]}\n", recipe)).message.startswith("the batch")


def test_a_moment_that_never_comes(tried) -> None:
    failure = failed(tried("    happens: [{when: plc.level > 50 L, lost: plc}]\n"))
    assert failure.message == "the moment of this never came: lost plc"
    failure = failed(tried("    expect: [{when: plc.level > 50 L, within: 1 s, that: plc.valve}]\n"))
    assert failure.message == "the moment of this never came: plc.valve"


def test_a_command_that_is_refused(tried) -> None:
    failure = failed(tried("    happens: [{at: 1 s, command: restart}]\n"))
    assert failure.message.startswith("it was refused: ") and failure.place.line == 5


def test_an_answer_to_what_is_not_asked(tried) -> None:
    failure = failed(tried("    happens: [{at: 1 s, answer: {ready: yes}}]\n"))
    assert failure.message == "`ready` is not asked now"


def test_an_answer_at_its_time(tried) -> None:
    text = "    happens: [{at: 2 s, answer: {ready: yes}}]\n    expect: [{at: 2 s, that: plc.level < 1 L}]\n"
    assert passed(tried(text, answers=""))


def test_a_question_without_a_variable_is_answered_by_its_step(tried) -> None:
    recipe = RECIPE.replace(
        "  - {ask: {say: Ready?, answers: [yes, no], into: ready}}", "  - {name: Look, ask: {say: Ready?}}"
    )
    assert passed(tried("    {}\n", recipe, "answers: {Look: yes}"))


# --- faults ----------------------------------------------------------------------------------------------------------


def test_a_device_that_is_lost_and_returns(tried) -> None:
    text = """
    happens:
      - {at: 1 s, lost: plc}
      - {at: 3 s, returns: plc}
      - {at: 4 s, command: restart}
    expect:
      - {at: 1010 ms, state: held}
      - {at: 2 s, that: plc.valve}
      - {by: 3100 ms, that: not plc.valve}
    ends: {alarms: [device-lost]}
"""
    assert passed(tried(text))


def test_a_value_of_bad_quality_is_not_used(tried) -> None:
    text = "    happens: [{when: plc.level > 19 L, bad: plc.level, for: 500 ms}]\n    ends: {record: [filled > 23 L]}\n"
    assert passed(tried(text))


def test_a_value_that_stands_still(tried) -> None:
    stuck = "    happens: [{when: plc.level > 10 L, stuck: plc.level, for: 3 s}]\n"
    assert passed(tried(stuck + "    ends: {record: [filled > 39 L]}\n"))
    text = "    happens: [{at: 500 ms, stuck: plc.level, to: 25 L, for: 3 s}]\n    ends: {record: [filled == 25 L]}\n"
    assert passed(tried(text))


def test_an_output_that_stands_still_moves_nothing_until_it_is_free(tried) -> None:
    text = """
    happens:
      - {when: plc.level > 10 L, stuck: plc.valve, for: 1500 ms}
    expect:
      - {when: plc.level > 22 L, within: 10 ms, that: plc.valve}
      - {when: plc.level > 24 L, within: 200 ms, that: not plc.valve}
"""
    assert passed(tried(text))


def test_an_output_that_does_not_follow_holds_the_batch_as_on_the_wire(tried) -> None:
    text = """
    happens:
      - {when: plc.level > 15 L, stuck: plc.valve, for: 1800 ms}
      - {when: plc.level > 15 L, after: 4 s, command: restart}
    expect:
      - {step: Stir, within: 990 ms, that: plc.valve and plc.level > 29 L, state: running}
      - {step: Stir, within: 1010 ms, that: plc.valve, state: held}
      - {when: plc.level > 32 L, within: 200 ms, that: not plc.valve}
    ends: {alarms: [refused]}
"""
    assert passed(tried(text, RECIPE.replace("wait: 1 s", "wait: 2 s")))


def test_a_spike_is_there_for_one_scan(tried) -> None:
    text = "    happens: [{at: 1 s, spike: plc.level, to: 95 L}]\n    ends: {state: aborted, alarms: [interlock]}\n"
    verdict = tried(text + "    expect: [{by: 1100 ms, state: aborted}]\n    always: [plc.level < 12 L]\n")
    assert passed(verdict)


def test_a_drift_goes_away_from_the_truth(tried) -> None:
    text = "    happens: [{at: 0 s, drift: plc.level, by: -5 L/s}]\n    always: [plc.level < 41 L]\n"
    assert passed(tried(text + "    expect: [{by: 5 s, that: plc.level >= 39 L}]\n"))


def test_a_slow_device_sees_and_acts_late_but_in_order(tried) -> None:
    text = "    happens: [{step: Fill, slow: plc, by: 500 ms}]\n"
    assert passed(tried(text + "    ends: {record: [filled > 24 L]}\n    always: [plc.level < 31 L]\n"))


def test_a_device_that_is_later_than_its_values_may_be_old_has_bad_values_at_times(tried) -> None:
    recipe = RECIPE.replace("when: plc.level > 90 L,", "when: plc.level > 90 L, grace: %s,")
    text = "    happens: [{when: plc.level > 5 L, slow: plc, by: 800 ms, for: 3 s}]\n"
    assert passed(tried(text, recipe % "400 ms"))
    verdict = tried(text + "    ends: {state: aborted, alarms: [interlock]}\n", recipe % "200 ms")
    assert passed(verdict) and 1.2 < verdict.seconds < 1.6


def test_a_power_cut_takes_outputs_to_failsafe_and_the_batch_waits_held(tried) -> None:
    text = """
    happens:
      - {at: 1 s, cut: power, for: 2 s}
      - {at: 4 s, command: restart}
    expect:
      - {at: 1010 ms, that: not plc.valve and plc.speed == 0 rpm}
      - {at: 3500 ms, state: held, that: not plc.valve and plc.speed == 0 rpm}
      - {at: 4500 ms, state: running, that: plc.valve and plc.speed == 60 rpm}
    ends: {record: [filled >= 20 L], alarms: [power-loss]}
"""
    assert passed(tried(text))


def test_a_power_cut_while_a_question_is_open(tried) -> None:
    text = """
    happens:
      - {at: 1 s, cut: power, for: 1 s}
      - {at: 3 s, command: restart}
      - {at: 4 s, answer: {ready: yes}}
    ends: {alarms: [power-loss]}
"""
    assert passed(tried(text, answers=""))


def test_the_time_without_power_is_told(tried) -> None:
    failure = failed(
        tried("    happens: [{at: 1 s, cut: power, for: 2 s}]\n    expect: [{at: 2 s, that: plc.valve}]\n")
    )
    assert failure.state == "running, edge without power"


TIMES = st.integers(0, 50).map(lambda tenths: f"{tenths * 100} ms")
HAPPENINGS = st.sampled_from(
    [
        "lost: plc, for: {d}",
        "lost: plc",
        "returns: plc",
        "slow: plc, by: {d}",
        "bad: plc.level, for: {d}",
        "stuck: plc.level, to: 95 L, for: {d}",
        "stuck: plc.valve, for: {d}",
        "spike: plc.level, to: -3 L",
        "drift: plc.level, by: 2 L/s, for: {d}",
        "cut: power, for: {d}",
        "command: hold",
        "command: restart",
        "command: abort",
    ]
)
ALL_ALARMS = "[interlock, device-lost, timeout, no-value, refused, phase-failed, phase-late, power-loss, stood-still]"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TIMES, TIMES, HAPPENINGS), max_size=6))
def test_whatever_happens_a_test_comes_to_the_same_verdict_again(tried, happenings) -> None:
    """The fixture runs each test twice. Where the connection was sound, an abort has closed the valve."""
    text = "".join(f"      - {{at: {at}, {what.format(d=d)}}}\n" for at, d, what in happenings)
    ends = f"    ends: {{by: 8 s, alarms: {ALL_ALARMS}}}\n"
    verdict = tried(f"    happens:\n{text}{ends}" if text else ends)
    assert verdict.seconds < 20
    if verdict.failure is not None and verdict.failure.state == "aborted":
        outputs = {shown.tag: shown.truth for shown in verdict.failure.tags}
        lost = any(what.startswith(("lost", "slow", "stuck", "cut")) for _, _, what in happenings)
        assert lost or outputs.get("plc.valve", False) is False


# --- conditions with memory ------------------------------------------------------------------------------------------


def test_conditions_of_a_test_have_a_memory_of_their_own(tried) -> None:
    recipe = RECIPE.replace("until: plc.level >= volume", "until: stable(plc.level >= volume, 100 ms)")
    text = """
    happens:
      - {when: rising(plc.valve), after: 1 s, command: hold}
      - {when: falling(plc.valve), after: 1 s, command: restart}
    expect: [{by: 6 s, that: "stable(plc.level, 500 ms, 0.1 L) and plc.level > 20 L"}]
    always: ["not stable(plc.valve, 1500 ms)"]
    ends: {by: 10 s, record: [filled >= volume]}
"""
    assert passed(tried(text, recipe))
    failure = failed(tried(text.replace("1500 ms", "900 ms"), recipe))
    assert failure.message == "this must always be: not stable(plc.valve, 900 ms)" and 0.9 < failure.seconds < 1.1


def test_variables_of_let_are_known_to_a_test(tried) -> None:
    recipe = RECIPE.replace("steps:\n", "steps:\n  - let: {share: volume / 2, pace: volume / (10 L / 1 s)}\n", 1)
    text = (
        "    expect: [{by: 3 s, that: plc.level >= share and pace == 2 s}]\n    ends: {record: [filled >= 2 * share]}\n"
    )
    assert passed(tried(text, recipe.replace("record: {filled: plc.level}", "record: {filled: plc.level, pace: pace}")))
