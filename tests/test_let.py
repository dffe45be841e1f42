"""Variables that steps set with `let`: what they are, when they are there, and that they survive."""

from pathlib import Path

import pytest

from edge.language.plan import load_plan
from edge.language.source import Problem, Problems
from edge.messages import AlarmCleared, AlarmRaised, Recorded, Snapshot, StepStarted, VariableSet, pack
from edge.view import View
from tests.virtual import CELL, Virtual, plan_of

HEAD = "recipe: r\nuses: [plc]\nparameters: {volume: {unit: L, default: 20, range: [5, 50]}}\nsteps:\n"


@pytest.fixture
def cell(tmp_path: Path):
    return lambda steps: Virtual(plan_of(tmp_path, HEAD + steps))


def kept(run: Virtual) -> dict[str, object]:
    return {event.name: event.value for event in run.of(Recorded)}


def test_what_follows_reads_what_was_calculated(cell) -> None:
    run = cell("""
  - let: {dose: volume / 2, twice: dose * 2, big: dose > 5 L, word: '"a"'}
  - {name: Speed, during: {plc.speed: dose * 1 rpm/L}, wait: 50 ms}
  - record: {dose: dose, twice: twice, big: big, word: word}
""")
    run.start("r", volume=30.0)
    run.run(2)
    assert run.level("plc.speed") == 15.0
    run.run(10)
    assert kept(run) == {"dose": 15.0, "twice": 30.0, "big": True, "word": "a"}
    first = run.of(VariableSet)[0]
    assert (first.name, first.value, first.unit) == ("dose", 15.0, "L")
    assert run.state() == "complete"


def test_it_counts_rounds(cell) -> None:
    run = cell("""
  - let: {turns: 0, sum: 0 L}
  - repeat: {until: turns >= 3}
    steps:
      - wait: 20 ms
      - let: {turns: turns + 1, sum: sum + 500 mL}
  - record: {turns: turns, sum: sum}
""")
    run.start("r")
    run.run(40)
    assert kept(run) == {"turns": 3, "sum": 1.5}


def test_it_waits_for_a_bad_value_and_sets_nothing_meanwhile(cell) -> None:
    run = cell("""
  - let: {a: 1, b: 2 L}
  - wait: 30 ms
  - let: {a: a + 1, b: plc.level}
  - {name: Last, wait: 1 s}
""")
    run.start("r")
    run.put("plc.level", None)
    run.run(210)
    (alarm,) = run.of(AlarmRaised)
    assert (alarm.kind, alarm.tag) == ("no-value", "plc.level")
    assert run.batch().variables[1:3] == [1, 2]
    run.put("plc.level", 7.0)
    run.run(3)
    assert run.batch().variables[1:3] == [2, 7.0]
    assert len(run.of(AlarmCleared)) == 1
    assert run.of(StepStarted)[-1].name == "Last"


def test_variables_survive_a_power_loss(cell) -> None:
    run = cell("""
  - let: {dose: plc.level}
  - {name: Rest, wait: 100 ms}
  - record: {dose: dose}
""")
    run.put("plc.level", 12.0)
    run.start("r")
    run.run(3)
    again = Virtual(run.plan)
    again.values = run.values
    again.put("plc.level", 1.0)
    again.restore(run.blobs["B1"])
    again.run(3)
    again.command("restart")
    again.run(30)
    assert kept(again) == {"dose": 12.0}


def test_a_handler_leaves_out_what_is_unknown(cell) -> None:
    run = cell("""
  - let: {dose: 3 L}
  - {name: Rest, wait: 10 s}
on:
  stop:
    - let: {left: plc.level, other: 5 L}
    - record: {left: left, other: other}
""")
    run.start("r")
    run.put("plc.level", None)
    run.command("stop")
    run.run(5)
    assert run.state() == "stopped"
    assert kept(run) == {"other": 5}


def test_a_number_of_any_size_is_kept(cell) -> None:
    run = cell("""
  - let: {n: plc.count * 1000000000000000000000}
  - record: {n: n, m: plc.count * 1000000000000000000000}
  - wait: 1 s
""")
    run.put("plc.count", 3)
    run.start("r")
    run.run(3)
    assert kept(run) == {"n": 3e21, "m": 3e21}


def test_a_watcher_sees_them(cell) -> None:
    run = cell("  - let: {dose: volume / 2}\n  - {name: Rest, wait: 10 s}\n")
    run.start("r")
    view = View(run.plan)
    from edge.engine.engine import _pack

    view.feed(pack(Snapshot(run.cycle, _pack(run.engine.state))))
    batch = view.batch(view.batches["B1"])
    assert batch["variables"] == {"dose": {"value": 10.0, "unit": "L"}}
    assert batch["answers"] == {}


# --- what is checked -------------------------------------------------------------------------------------------------


def found(folder: Path, steps: str) -> list[Problem]:
    (folder / "cell.yaml").write_text(CELL)
    (folder / "r.yaml").write_text(HEAD + steps)
    problems = Problems()
    load_plan(folder / "cell.yaml", problems)
    return [one for one in problems if one.code != "unused-parameter"]


@pytest.mark.parametrize(
    ("steps", "code", "words"),
    [
        ("  - wait: dose * 1 s/L\n  - let: {dose: 3 L}\n", "not-yet-answered", "it is set on line 6"),
        (
            "  - choose: [{when: plc.ready, steps: [{let: {a: 1}}]}, {else: []}]\n  - record: {a: a}\n",
            "not-yet-answered",
            "whatever way",
        ),
        ("  - let: {a: 1 L}\n  - let: {a: true}\n  - record: {a: a}\n", "other-type", "`a` is a number, but this"),
        ("  - let: {a: 1 L}\n  - let: {a: 1 kg}\n  - record: {a: a}\n", "wrong-unit", "a value in L, a volume"),
        ("  - let: {volume: 1 L}\n", "name-taken", "`volume` is a parameter"),
        ("  - let: {elapsed: 1 L}\n", "reserved-name", "means something"),
        ("  - let: {a: plc.levl}\n  - record: {b: a}\n", "unknown-tag", "did you mean `plc.level`?"),
        ("  - let: {a: b + 1}\n", "unknown-name", "no parameter or variable `b`"),
        ("  - let: {a: elapsed}\n", "asked-once", "calculated only once"),
        ("  - let: {a: 1}\n  - {until: a > 2, within: 1 s}\n", "never-true", "the step cannot end"),
        ("  - let: {a: round(plc.level / 1 L)}\n  - {until: a > 2, within: 1 s}\n", "never-changes", "wait for a tag"),
        (
            "  - parallel: {x: [{let: {a: 1}}, {wait: 1 s}], y: [{let: {a: 2}}, {wait: 1 s}]}\n  - record: {a: a}\n",
            "driven-twice",
            "`a` is set by another branch too",
        ),
        ("  - {let: {a: 1}, within: 1 s}\n", "key-not-here", "a step that sets variables"),
    ],
)
def test_mistakes(tmp_path: Path, steps: str, code: str, words: str) -> None:
    errors = [one for one in found(tmp_path, steps) if one.severity == "error"]
    assert [one.code for one in errors] == [code]
    assert words in f"{errors[0].message}; {errors[0].hint}"


RANGED = """
  - let: {speed: volume * 5 rpm/L}
  - set: {plc.speed: speed}
"""


def test_a_variable_has_the_range_of_what_it_is_set_to(tmp_path: Path) -> None:
    assert found(tmp_path, RANGED) == []
    (problem,) = found(tmp_path, RANGED.replace("5 rpm", "10 rpm"))
    assert problem.code == "out-of-range" and "50 to 500 rpm" in problem.message


def test_all_that_it_is_set_to_counts(tmp_path: Path) -> None:
    steps = RANGED + "  - let: {speed: 400 rpm}\n  - record: {speed: speed}\n"
    (problem,) = found(tmp_path, steps)
    assert "25 to 400 rpm" in problem.message


def test_what_grows_in_a_loop_has_no_end(tmp_path: Path) -> None:
    steps = """
  - let: {speed: 10 rpm}
  - repeat: {times: 3}
    steps: [{wait: 1 s}, {let: {speed: speed + 10 rpm}}]
  - set: {plc.speed: speed}
  - set: {plc.speed: "clamp(speed, 0 rpm, 300 rpm)"}
"""
    assert found(tmp_path, steps) == []
    (tmp_path / "r.yaml").unlink()
    plan = plan_of(tmp_path, HEAD + steps)
    (first, *_) = [let for step in plan.recipes["r"].steps for let in step.let]
    assert (first.low, first.high) == (10, None)
