"""A recipe as an operation of another: its parameters, variables and interlocks; what is wrong with it."""

from pathlib import Path

import pytest

from edge.language.plan import changes, check, load_plan
from edge.language.source import Problems
from edge.messages import AlarmRaised, Asked, Recorded, StepStarted
from tests.virtual import CELL, Virtual, plan_of

RINSE = """
recipe: rinse
uses: [plc]
parameters: {volume: {unit: L, default: 5, range: [1, 20]}}
interlocks: [{when: plc.level > 4 * volume, do: hold, say: {en: Too full}}]
steps:
  - {name: Let in, during: {plc.valve: true}, until: plc.level >= volume, within: 60 s}
  - ask: {say: {en: Clear?}, answers: [yes, no], into: clear}
  - repeat: {each: n, of: [1, 2]}
    steps: [{record: {n: n}}, {wait: 10 ms}]
  - record: {volume: volume, clear: clear}
on: {hold: [{set: {plc.drain: true}}]}
"""
MAIN = """
recipe: main
uses: [plc]
parameters: {clear: {unit: L, default: 10, range: [1, 10]}}
steps:
  - {name: Before, include: rinse, with: {volume: clear}}
  - {name: After, include: rinse}
  - wait: 1 s
"""


def answer(run: Virtual, value: str) -> None:
    run.run(3)
    run.command("answer", prompt=run.of(Asked)[-1].prompt, value=value)
    run.run(12)


def test_an_operation_runs_with_its_parameters_and_variables_of_its_own(tmp_path: Path) -> None:
    run = Virtual(plan_of(tmp_path, MAIN, RINSE))
    run.start("main")
    run.put("plc.level", 8.0)
    run.run(5)
    assert run.level("plc.valve") is True
    run.put("plc.level", 10.0)
    answer(run, "no")
    answer(run, "yes")
    assert [(one.name, one.value) for one in run.of(Recorded)] == [
        *(("n", 1), ("n", 2), ("volume", 10), ("clear", "no")),
        *(("n", 1), ("n", 2), ("volume", 5), ("clear", "yes")),
    ]
    assert {one.branch for one in run.of(StepStarted) if one.name == "Let in"} == {"Before", "After"}
    assert [one.name for one in run.of(Asked)] == ["Before.clear", "After.clear"]


def test_its_interlocks_count_while_it_runs_and_its_handlers_do_not(tmp_path: Path) -> None:
    run = Virtual(plan_of(tmp_path, MAIN, RINSE))
    run.start("main")
    run.run(5)
    run.put("plc.level", 41.0)
    run.run(3)
    assert run.state() in ("holding", "held") and run.level("plc.drain") is False
    assert [alarm.kind for alarm in run.of(AlarmRaised)] == ["interlock"]


def test_an_operation_goes_on_after_a_hold_and_a_power_loss(tmp_path: Path) -> None:
    run = Virtual(plan_of(tmp_path, MAIN, RINSE))
    run.start("main")
    run.put("plc.level", 8.0)
    run.run(5)
    run.command("hold")
    run.run(3)
    assert run.level("plc.valve") is False
    after = Virtual(run.plan)
    after.put("plc.level", 8.0)
    after.run(2)
    after.restore(run.blobs["B1"])
    after.run(2)
    after.command("restart")
    after.run(6)
    assert after.level("plc.valve") is True
    after.put("plc.level", 10.0)
    answer(after, "no")
    assert ("volume", 10) in [(one.name, one.value) for one in after.of(Recorded)]


def found(folder: Path, *recipes: str) -> list[tuple[str, int, str]]:
    (folder / "cell.yaml").write_text(CELL, encoding="utf-8")
    for number, text in enumerate(recipes):
        (folder / f"{number}.yaml").write_text(text, encoding="utf-8")
    problems = Problems()
    check([folder], problems)
    return [(Path(one.file).name, one.line, one.code) for one in problems if one.severity == "error"]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("volume: clear", "volume: clear * 3", "out-of-range"),
        ("volume: clear", "volume: 30 L", "out-of-range"),
        ("volume: clear", "volume: 3 kg", "wrong-unit"),
        ("volume: clear", "volum: clear", "unknown-parameter"),
        ("include: rinse, with", "include: rince, with", "unknown-recipe"),
        ("uses: [plc]", "uses: [aux]", "unit-not-used"),
        ("name: Before,", "name: Before, during: {plc.valve: true},", "driven-twice"),
    ],
)
def test_each_mistake_is_found_where_it_is(tmp_path: Path, old: str, new: str, code: str) -> None:
    problems = found(tmp_path, MAIN.replace(old, new, 1), RINSE)
    assert code in [one for file, _, one in problems if file == "0.yaml"] and {file for file, _, _ in problems} == {
        "0.yaml"
    }


def test_a_missing_parameter_is_found(tmp_path: Path) -> None:
    problems = found(tmp_path, MAIN, RINSE.replace("default: 5, ", ""))
    assert [code for _, _, code in problems] == ["missing-parameter"]


def test_a_mistake_in_the_included_recipe_is_reported_once_at_its_own_place(tmp_path: Path) -> None:
    wrong = RINSE.replace("until: plc.level >= volume", "until: plc.level >= 3 kg")
    assert found(tmp_path, MAIN, wrong) == [("1.yaml", 7, "wrong-unit")]
    problems = Problems()
    assert load_plan(tmp_path / "cell.yaml", problems, ["main"]) is None
    assert [one.code for one in problems] == ["wrong-unit"]


def test_a_recipe_that_includes_itself_is_told_by_its_chain(tmp_path: Path) -> None:
    a = "recipe: a\nsteps: [{include: b}]\n"
    (tmp_path / "cell.yaml").write_text(CELL, encoding="utf-8")
    (tmp_path / "a.yaml").write_text(a, encoding="utf-8")
    (tmp_path / "b.yaml").write_text(a.replace("b", "c").replace("recipe: a", "recipe: b"), encoding="utf-8")
    (tmp_path / "c.yaml").write_text("recipe: c\nsteps: [{include: a}]\n", encoding="utf-8")
    problems = Problems()
    check([tmp_path], problems)
    (one,) = problems
    assert one.code == "includes-itself" and "a → b → c → a" in one.message


def test_a_recipe_has_only_so_many_steps_with_all_that_it_includes(tmp_path: Path) -> None:
    leaf = "recipe: r0\nuses: [plc]\nsteps:\n" + "  - {wait: 1 s, during: {plc.valve: true}}\n" * 600
    two = [f"recipe: r{n}\nuses: [plc]\nsteps: [{{include: r{n - 1}}}, {{include: r{n - 1}}}]\n" for n in range(1, 40)]
    assert found(tmp_path, leaf, *two) == [("5.yaml", 3, "too-many-steps")]
    assert next(code for _, _, code in found(tmp_path, leaf + "  - {wait: 1 s}\n" * 9_401)) == "too-many-steps"


def test_a_changed_operation_is_another_version_of_the_recipe_that_includes_it(tmp_path: Path) -> None:
    before = plan_of(tmp_path, MAIN, RINSE).recipes["main"].hash
    assert plan_of(tmp_path, MAIN, RINSE.replace("60 s", "61 s")).recipes["main"].hash != before


PART = RINSE.replace("recipe: rinse", "recipe: rinse\noperation: true").replace(
    "on: {hold: [{set: {plc.drain: true}}]}\n", ""
)


def test_an_operation_is_no_recipe_that_can_be_started(tmp_path: Path) -> None:
    assert list(plan_of(tmp_path, MAIN, PART).recipes) == ["main"]
    problems = Problems()
    assert load_plan(tmp_path / "cell.yaml", problems, ["rinse"]) is None
    (one,) = problems
    assert one.code == "is-operation" and "includes it" in one.hint
    run = Virtual(plan_of(tmp_path, MAIN, PART))
    run.start("main")
    run.put("plc.level", 8.0)
    run.run(5)
    assert run.level("plc.valve") is True


def test_a_test_names_no_operation(tmp_path: Path) -> None:
    plan_of(tmp_path, MAIN, PART)
    (tmp_path / "rinse.test.yaml").write_text("recipe: rinse\ntests: {It rinses: {}}\n", encoding="utf-8")
    problems = Problems()
    check([tmp_path], problems)
    assert [(one.code, one.line) for one in problems if one.severity == "error"] == [("is-operation", 1)]


@pytest.mark.parametrize(
    "line",
    ["on: {stop: [{wait: 1 s}]}", "after_power_loss: hold", "permissives: [{must: plc.ready, say: {en: Ready}}]"],
)
def test_an_operation_has_nothing_that_would_not_count(tmp_path: Path, line: str) -> None:
    assert [code for _, _, code in found(tmp_path, MAIN, f"{PART}{line}\n")] == ["not-here"]


def test_an_operation_that_nobody_includes_is_told(tmp_path: Path) -> None:
    (tmp_path / "cell.yaml").write_text(CELL, encoding="utf-8")
    (tmp_path / "part.yaml").write_text(PART, encoding="utf-8")
    (tmp_path / "other.yaml").write_text(
        "recipe: other\nuses: [plc]\nsteps: [{do: plc.work, with: {program: 1}, within: 1 s}]\n"
    )
    problems = Problems()
    check([tmp_path], problems)
    assert [one.code for one in problems if one.code != "unused-tag"] == ["unused-operation"]


def test_a_recipe_that_becomes_an_operation_is_withdrawn(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, MAIN, PART.replace("operation: true", ""))
    assert sorted(plan.recipes) == ["main", "rinse"]
    (tmp_path / "recipe1.yaml").write_text(PART, encoding="utf-8")
    assert changes(plan, Problems()).gone == ("rinse",)


QUENCH = """
recipe: quench
operation: true
uses: [plc]
steps: [{set: {plc.drain: true}, until: plc.level < 5 L, within: 1 s}]
"""
SAFE = """
recipe: safe
uses: [plc]
steps: [{during: {plc.valve: true}, wait: 1 s}]
on: {stop: [{include: quench}, {set: {plc.speed: 10 rpm}, wait: 50 ms}]}
"""


def test_a_handler_includes_an_operation(tmp_path: Path) -> None:
    run = Virtual(plan_of(tmp_path, SAFE, QUENCH))
    run.put("plc.level", 8.0)
    run.start("safe")
    run.command("stop")
    run.run(5)
    assert run.state() == "stopping" and run.level("plc.drain") is True and run.level("plc.speed") == 0
    run.put("plc.level", 4.0)
    run.run(4)
    assert run.level("plc.speed") == 10
    run.run(10)
    assert run.state() == "stopped" and run.level("plc.drain") is False


def test_an_operation_in_a_handler_that_does_not_end_is_left_after_its_time(tmp_path: Path) -> None:
    run = Virtual(plan_of(tmp_path, SAFE, QUENCH))
    run.start("safe")
    run.put("plc.level", None)
    run.command("stop")
    run.run(120)
    assert run.state() == "stopped" and run.level("plc.drain") is False


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("within: 1 s", "within: none", "a handler must come to its end"),
        ("set: {plc.drain", "during: {plc.drain", "`during` cannot stand"),
        ("steps: [{", "interlocks: [{when: plc.ready, do: hold, say: {en: No}}]\nsteps: [{", "it has interlocks"),
    ],
)
def test_an_operation_that_cannot_stand_in_a_handler_is_told_where_it_is_included(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert found(tmp_path, SAFE, QUENCH.replace(old, new)) == [("0.yaml", 5, "not-in-handler")]
    problems = Problems()
    check([tmp_path], problems)
    assert said in next(iter(problems)).message


def test_what_a_handler_passes_on_is_known(tmp_path: Path) -> None:
    taking = QUENCH.replace("steps:", "parameters: {low: {unit: L}}\nsteps:").replace("5 L", "low")
    assert found(tmp_path, SAFE.replace("quench}", "quench, with: {low: plc.level}}"), taking) == [
        ("0.yaml", 5, "not-in-handler")
    ]
