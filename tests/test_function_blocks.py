"""Expressions with memory in a running batch: edges, times, means, ages; held, restarted, after a power loss."""

from pathlib import Path

import msgspec
import pytest

from edge.batch import State
from edge.engine.engine import Engine
from edge.language.plan import load_plan
from edge.language.source import Problems
from edge.messages import AlarmRaised, CommandDone, Recorded, StepEnded
from tests.virtual import CELL, Virtual, plan_of


@pytest.fixture
def cell(tmp_path: Path):
    return lambda *recipes: Virtual(plan_of(tmp_path, *recipes))


def waiting(cell, until: str, head: str = "") -> Virtual:
    """A batch in the step `Look`, which ends when this is true."""
    run = cell(f"recipe: r\nuses: [plc]\n{head}steps:\n  - {{name: Look, until: '{until}', within: none}}\n")
    run.start("r")
    return run


def over(run: Virtual) -> bool:
    return bool(run.of(StepEnded))


def after(run: Virtual, *values: object, tag: str = "plc.ready", cycles: int = 1) -> bool:
    """Whether the step has ended when the tag has had these values, each for so many cycles."""
    for value in values:
        run.put(tag, value)  # type: ignore[arg-type]
        run.run(cycles)
    return over(run)


# --- edges -----------------------------------------------------------------------------------------------------------


def test_an_edge_is_true_in_its_one_cycle(cell) -> None:
    run = waiting(cell, "rising(plc.ready) and plc.count == 1")
    assert not after(run, True, cycles=3)
    run.put("plc.count", 1)
    assert not after(run, True, cycles=3)
    assert not after(run, False, cycles=2)
    assert after(run, True)


def test_a_condition_that_is_true_from_the_beginning_is_no_edge(cell) -> None:
    run = cell("recipe: r\nuses: [plc]\nsteps:\n  - {until: rising(plc.ready), within: none}\n")
    run.put("plc.ready", True)
    run.start("r")
    run.run(20)
    assert not over(run)
    assert after(run, False, True)


def test_falling(cell) -> None:
    run = waiting(cell, "falling(plc.level > 5 L)")
    assert not after(run, 3.0, 8.0, 7.0, tag="plc.level", cycles=2)
    assert after(run, 4.0, tag="plc.level")


def test_an_unknown_value_in_between_is_no_edge(cell) -> None:
    run = waiting(cell, "rising(plc.ready)")
    assert not after(run, False, None, True, cycles=2)
    assert after(run, False, True)


def test_a_change_while_the_batch_is_held_is_no_edge(cell) -> None:
    run = waiting(cell, "rising(plc.ready)")
    run.command("hold")
    run.run(5)
    assert run.state() == "held"
    assert not after(run, True, cycles=3)
    run.command("restart")
    run.run(5)
    assert run.state() == "running" and not over(run)
    assert after(run, False, True)


# --- stable ----------------------------------------------------------------------------------------------------------


def test_a_condition_is_stable_when_it_has_been_true_for_the_time_without_a_break(cell) -> None:
    run = waiting(cell, "stable(plc.ready, 100 ms)")
    run.put("plc.ready", True)
    run.run(10)
    assert not after(run, False) and not after(run, True, cycles=10)
    assert after(run, True)


def test_an_unknown_value_breaks_it(cell) -> None:
    run = waiting(cell, "stable(plc.ready, 100 ms)")
    assert not after(run, True, cycles=9)
    assert not after(run, None)
    assert not after(run, True, cycles=10)
    assert after(run, True)


def test_its_clock_stands_while_the_batch_is_held(cell) -> None:
    run = waiting(cell, "stable(plc.ready, 100 ms)")
    assert not after(run, True, cycles=8)
    run.command("hold")
    run.run(30)
    run.command("restart")
    run.run(1)
    while run.state() != "running":
        run.run(1)
    assert not over(run)
    run.run(4)
    assert over(run)


def test_a_number_is_stable_when_it_moves_by_no_more_than_the_band(cell) -> None:
    run = waiting(cell, "stable(plc.level, 100 ms, 500 mL)")
    for level in (10.0, 11.0, 12.0, 10.8):
        assert not after(run, level, tag="plc.level", cycles=9)
    run.put("plc.level", 11.25)
    run.run(4)
    assert over(run)


def test_a_number_at_the_end_of_its_band_is_stable(cell) -> None:
    run = waiting(cell, "stable(plc.level, 100 ms, 0.1 L)")
    assert not after(run, 50.8, 50.9, tag="plc.level", cycles=5)
    run.run(3)
    assert over(run)


def test_a_time_that_is_a_parameter(cell) -> None:
    head = "parameters: {settle: {unit: ms, range: [10, 500], default: 100}}\n"
    run = waiting(cell, "stable(plc.ready, settle * 2)", head)
    assert not after(run, True, cycles=20)
    assert after(run, True)


def test_it_begins_anew_with_the_step(cell) -> None:
    run = cell("""
recipe: r
uses: [plc]
steps:
  - {repeat: {times: 2}, steps: [{name: Look, until: "stable(plc.ready, 100 ms)", within: none}]}
""")
    run.start("r")
    assert not after(run, True, cycles=10)
    run.run(4)
    assert len(run.of(StepEnded)) == 1
    run.run(8)
    assert len(run.of(StepEnded)) == 1
    run.run(5)
    assert run.state() == "complete"
    assert not run.batch().body.instances


# --- average ---------------------------------------------------------------------------------------------------------


def kept(run: Virtual) -> dict[str, object]:
    return {event.name: event.value for event in run.of(Recorded)}


def test_an_average_is_that_of_the_last_time(cell) -> None:
    run = waiting(cell, "average(plc.level, 100 ms) > 14.9 L")
    run.put("plc.level", 99.0)
    run.run(6)
    assert not over(run)
    run = waiting(cell, "average(plc.level, 100 ms) > 14.9 L")
    assert not after(run, 10.0, tag="plc.level", cycles=20)
    assert not after(run, 20.0, tag="plc.level", cycles=4)
    assert after(run, 20.0, tag="plc.level")


def test_a_bad_value_makes_an_average_unknown_for_the_time(cell) -> None:
    run = waiting(cell, "average(plc.level, 100 ms) > 5 L")
    assert not after(run, 10.0, None, tag="plc.level", cycles=6)
    assert not after(run, 10.0, tag="plc.level", cycles=10)
    assert after(run, 10.0, tag="plc.level")


def test_an_average_over_a_long_time_has_a_small_memory(cell) -> None:
    run = waiting(cell, "average(plc.level, 100 s) > 5.5 L")
    run.put("plc.level", 0.0)
    run.run(10_050)
    (instance,) = run.batch().body.instances.values()
    assert len(instance.parts) == 50
    run.put("plc.level", 10.0)
    run.run(5_300)
    assert not over(run)
    run.run(300)
    assert over(run)


def test_a_skipped_cycle_counts_in_an_average(cell) -> None:
    run = waiting(cell, "average(plc.level, 1 s) > 8.9 L")
    assert not after(run, 0.0, tag="plc.level", cycles=110)
    run.put("plc.level", 10.0)
    run.run(4, skip=19)
    assert not over(run)
    run.run(1, skip=19)
    assert over(run)


RECORDED = """
recipe: r
uses: [plc]
steps:
  - {name: First, wait: 300 ms}
  - record: {mean: "average(plc.level, 200 ms)", now: plc.level}
  - wait: 10 s
"""


def test_a_record_has_the_average_of_the_time_before_it(cell) -> None:
    run = cell(RECORDED)
    run.put("plc.level", 10.0)
    run.start("r")
    run.put("plc.level", 20.0)
    run.run(40)
    assert kept(run) == {"mean": 20.0, "now": 20.0}


def test_a_record_waits_until_its_average_has_its_time(cell) -> None:
    run = cell(RECORDED.replace("300 ms", "20 ms"))
    run.start("r")
    run.run(10)
    assert kept(run) == {}
    run.run(20)
    assert kept(run) == {"mean": 0.0, "now": 0.0}


# --- elapsed, age ----------------------------------------------------------------------------------------------------


def test_elapsed_is_the_time_since_the_step_began(cell) -> None:
    run = waiting(cell, "elapsed >= 200 ms and plc.ready or elapsed >= 1 s")
    assert not after(run, True, cycles=10)
    run.command("hold")
    run.run(100)
    run.command("restart")
    run.run(5)
    assert run.state() == "running" and not over(run)
    run.run(12)
    assert over(run)


AGE = CELL.replace("aux: {driver: modbus, host: 127.0.0.2, every: 10 ms}", "aux: {driver: modbus, host: 127.0.0.2}")


def test_age_is_the_time_since_the_device_said_that_the_value_holds(tmp_path: Path) -> None:
    recipe = """
recipe: r
uses: [plc, aux]
steps:
  - {name: Old, until: age(aux.lamp) > 80 ms, within: 1 s}
  - {name: New, until: age(aux.lamp) < 20 ms, within: 1 s}
  - {name: Bad, until: not good(plc.level) and age(plc.level) >= 300 ms, within: none}
  - record: {age: age(plc.level)}
"""
    run = Virtual(plan_of(tmp_path, recipe, cell=AGE))
    run.start("r")
    run.run(30)
    assert [event.name for event in run.of(StepEnded)] == ["Old", "New"]
    run.put("plc.level", None)
    run.run(29)
    assert len(run.of(StepEnded)) == 2
    run.run(5)
    (age,) = kept(run).values()
    assert age == pytest.approx(0.3, abs=0.03)


def test_the_age_of_what_was_never_heard_is_known(cell) -> None:
    run = cell("recipe: r\nuses: [plc]\nsteps:\n  - {until: age(plc.level) > 1 s, within: none}\n")
    run.put("plc.level", None)
    run.run(20)
    place = len(run.plan.cell.tags) + run.index("plc.level")
    assert run.engine.state.values[place] == pytest.approx(0.2)


# --- interlocks ------------------------------------------------------------------------------------------------------


def guarded(cell, when: str, do: str = "hold") -> Virtual:
    run = cell(f"""
recipe: r
uses: [plc]
interlocks: [{{when: "{when}", do: {do}, say: {{en: No}}}}]
steps: [{{wait: 100 s}}]
""")
    run.put("plc.level", 10.0)
    run.start("r")
    assert run.state() == "running"
    return run


def test_an_interlock_over_a_time_trips_and_clears(cell) -> None:
    run = guarded(cell, "stable(plc.count > 40, 100 ms)")
    run.put("plc.count", 50)
    run.run(10)
    assert run.state() == "running"
    run.run(3)
    assert run.state() == "held"
    run.command("restart")
    run.run(2)
    assert run.state() == "held"
    run.put("plc.count", 10)
    run.run(2)
    run.command("restart")
    run.run(5)
    assert run.state() == "running"


def test_an_interlock_goes_on_while_the_batch_is_held(cell) -> None:
    run = guarded(cell, "stable(plc.count > 40, 100 ms)", "stop")
    run.command("hold")
    run.run(3)
    run.put("plc.count", 50)
    run.run(20)
    assert run.state() == "stopped"


def test_the_average_of_an_interlock_is_that_of_what_there_is(cell) -> None:
    run = guarded(cell, "average(plc.level, 1 s) > 50 L")
    run.put("plc.level", 60.0)
    run.run(3)
    assert run.state() == "running"
    run.run(20)
    assert run.state() == "held"


def test_an_interlock_on_the_time_of_the_batch(cell) -> None:
    run = guarded(cell, "elapsed > 200 ms", "stop")
    run.command("hold")
    run.run(50)
    run.command("restart")
    run.run(4)
    assert run.state() == "running"
    run.run(25)
    assert run.state() == "stopped"


def test_an_edge_trips_an_interlock(cell) -> None:
    run = guarded(cell, "rising(plc.ready)")
    run.put("plc.ready", True)
    run.run(3)
    assert run.state() == "held"
    assert [alarm.kind for alarm in run.of(AlarmRaised)] == ["interlock"]
    run.command("restart")
    run.run(4)
    assert run.state() == "running"
    assert all(done.ok for done in run.of(CommandDone))


# --- handlers, power loss, data --------------------------------------------------------------------------------------


def test_a_handler_has_clocks_of_its_own(cell) -> None:
    run = cell("""
recipe: r
uses: [plc]
steps: [{name: Body, until: "stable(plc.ready, 1 s)", within: none}]
on:
  hold: [{name: Still, until: "stable(plc.ready, 100 ms)", within: 1 s}]
""")
    run.put("plc.ready", True)
    run.start("r")
    body = dict(run.batch().body.instances)
    run.command("hold")
    run.run(10)
    assert run.state() == "holding"
    run.run(4)
    assert run.state() == "held"
    assert run.batch().body.instances == body


def test_after_a_power_loss_only_the_clock_of_the_step_goes_on(cell, tmp_path: Path) -> None:
    run = cell("""
recipe: r
uses: [plc]
interlocks: [{when: "stable(plc.count > 40, 1 s)", do: stop, say: {en: No}}]
steps:
  - parallel:
      a: [{name: A, until: "stable(plc.ready, 100 ms)", within: none}]
      b: [{name: B, until: elapsed > 300 ms, within: none}]
      c: [{wait: 90 ms}, {wait: 100 s}]
      d: [{name: D, until: rising(plc.ready), within: none}]
after_power_loss: resume
""")
    run.start("r")
    run.put("plc.ready", True)
    run.run(10)
    run = _again(run)
    run.run(3)
    while run.state() != "running":
        run.run(1)
    run.run(5)
    ended = [event.name for event in run.of(StepEnded)]
    assert "A" not in ended and "B" not in ended
    run.run(7)
    assert "A" in [event.name for event in run.of(StepEnded)]
    run.run(20)
    ended = [event.name for event in run.of(StepEnded)]
    assert "B" in ended and "D" not in ended


def _again(run: Virtual) -> Virtual:
    """edge after a power cut, with what its record holds."""
    again = Virtual(run.plan)
    again.values = run.values
    again.restore(run.blobs["B1"])
    return again


def test_what_is_remembered_is_data(cell) -> None:
    run = waiting(cell, "stable(plc.ready, 200 ms) or average(plc.level, 200 ms) > 50 L or rising(plc.ready)")
    run.put("plc.level", 10.0)
    run.run(15)
    state = run.engine.state
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State)
    assert copy == state
    other = Virtual(run.plan)
    other.engine, other.values, other.cycle = Engine(run.plan, copy), list(run.values), run.cycle
    other.due, other.shown, other.packets = list(run.due), list(run.shown), list(run.packets)
    for each in (run, other):
        each.put("plc.level", 90.0)
    while not over(run):
        assert run.run(1) == other.run(1)
    assert over(other)


# --- mistakes --------------------------------------------------------------------------------------------------------


def found(folder: Path, step: str, head: str = "") -> list[tuple[str, str]]:
    (folder / "cell.yaml").write_text(CELL)
    (folder / "r.yaml").write_text(f"recipe: r\nuses: [plc]\n{head}steps:\n  - {step}\n")
    problems = Problems()
    load_plan(folder / "cell.yaml", problems)
    return [(one.code, f"{one.message}; {one.hint}") for one in problems if one.severity == "error"]


PAUSE = "parameters: {pause: {unit: s, default: 1}, word: {type: text, default: a}}\n"


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        ("{until: rising(plc.level), within: 1 s}", "wrong-type", "expected a condition"),
        ("{until: rising(true), within: 1 s}", "never-changes", "nothing in `true` changes"),
        ("{until: 'rising(pause > 2 s)', within: 1 s}", "never-changes", "name a tag"),
        ("{until: 'stable(plc.ready)', within: 1 s}", "wrong-arguments", "`stable` takes 2 or 3 arguments, not 1"),
        ("{until: 'stable(plc.level, 2 s)', within: 1 s}", "wrong-arguments", "add a band"),
        ("{until: 'stable(plc.ready, 2 s, 1)', within: 1 s}", "wrong-arguments", "a condition has no band"),
        ("{until: 'stable(plc.label, 2 s, 1)', within: 1 s}", "wrong-type", "is a text"),
        ("{until: 'stable(plc.level, 2 s, 1 kg)', within: 1 s}", "wrong-unit", "a value in L, a volume, is expected"),
        ("{until: 'stable(plc.level, 2 s, -1 L)', within: 1 s}", "out-of-range", "a band cannot be negative"),
        ("{until: 'stable(plc.ready, 2)', within: 1 s}", "missing-unit", "did you mean `2 s`?"),
        ("{until: 'stable(plc.ready, 2 L)', within: 1 s}", "wrong-unit", "`2 L` is a volume"),
        ("{until: 'stable(plc.ready, 0 s)', within: 1 s}", "negative-time", "the time must be more than 0 s"),
        ("{until: 'stable(plc.ready, pause)', within: 1 s}", "negative-time", "give the parameter a `range` above 0 s"),
        ("{until: 'stable(plc.ready, 20 d * 1000)', within: 1 s}", "bad-duration", "longer than 10 years"),
        ("{until: 'stable(plc.ready, plc.level * 1 s/L)', within: 1 s}", "wrong-arguments", "write a constant, or a"),
        ("{until: 'average(plc.ready, 2 s) > 1', within: 1 s}", "wrong-type", "expected a number"),
        ("{until: 'elapsed() > 2 s', within: 1 s}", "unknown-function", "write it without brackets"),
        ("{until: 'age(plc.level + 1 L) > 2 s', within: 1 s}", "wrong-arguments", "`age` takes the name of a tag"),
        ("{until: 'elapsed > 2', within: 1 s}", "missing-unit", "did you mean `2 s`?"),
        ("{until: age(elapsed) > 1 s, within: 1 s}", "wrong-arguments", "takes the name of a tag"),
        ("{set: {plc.valve: rising(plc.ready)}}", "asked-once", "calculated only once, when the step begins"),
        ("record: {took: elapsed}", "asked-once", "`until`, `while`, a `when` without `else`"),
        ("{wait: 'elapsed + 1 s'}", "asked-once", "`elapsed` has no meaning here"),
        ("choose: [{when: rising(plc.ready), steps: [{wait: 1 s}]}, {else: []}]", "asked-once", "without `else`"),
        ("{until: 'rising(average(plc.level, 0 s) > 3 L)', within: 1 s}", "negative-time", "more than 0 s"),
    ],
)
def test_mistakes(tmp_path: Path, step: str, code: str, words: str) -> None:
    (problem,) = found(tmp_path, step, PAUSE)
    assert problem[0] == code
    assert words in problem[1]


def test_a_phase_has_no_memory(tmp_path: Path) -> None:
    (tmp_path / "cell.yaml").write_text(CELL.replace("running: plc.state == 2", "running: rising(plc.ready)"))
    problems = Problems()
    load_plan(tmp_path / "cell.yaml", problems)
    (problem,) = problems
    assert (problem.code, problem.severity) == ("no-memory", "error")


def test_the_names_are_reserved(tmp_path: Path) -> None:
    (problem,) = found(tmp_path, "wait: 1 s", "parameters: {elapsed: {default: 1}}\n")
    assert problem[0] == "reserved-name"


def test_a_band_of_a_temperature_is_a_difference(tmp_path: Path) -> None:
    cell = CELL.replace("count: {at: input:2, type: int16}", "count: {at: input:2, type: float32, unit: degF}")
    text = "recipe: r\nuses: [plc]\nsteps:\n  - {until: 'stable(plc.count, 1 s, 5 K)', within: 1 s}\n"
    plan = plan_of(tmp_path, text, cell=cell)
    (block,) = plan.recipes["r"].blocks
    assert block.band == pytest.approx(9)


def test_an_average_that_is_not_full_yet_is_no_alarm(cell) -> None:
    run = waiting(cell, "average(plc.level, 5 s) > 5 L")
    run.put("plc.level", 9.0)
    run.run(400)
    assert not run.of(AlarmRaised)
    run.put("plc.level", None)
    run.run(230)
    (alarm,) = run.of(AlarmRaised)
    assert (alarm.kind, alarm.tag) == ("no-value", "plc.level")
