"""The file of recipe tests: every mistake in its place, and what is compiled."""

import re
import shutil
from pathlib import Path

import pytest

from edge.language.plan import TEST, check, load_trials
from edge.language.report import report
from edge.language.shape import keys
from edge.language.source import Problem, Problems
from edge.language.trial_file import Ends, Expectation, Happening, TrialFile, TrialForm
from edge.language.trial_program import Trial
from edge.trial.trial import run_trial
from tests.documents import blocks

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes"
BOTTLING = HERE / "bottling"
BAD = sorted((HERE / "bad" / "trials").glob("*.test.yaml"))
EXPECTED = re.compile(r"# (error|warning) (\d+):(\d+) ([a-z0-9-]+)((?: \| .*)?)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bottling cell with its recipe in a folder of its own."""
    for name in ("cell.yaml", "rinse-and-fill.yaml"):
        shutil.copy(BOTTLING / name, tmp_path)
    return tmp_path


def found(path: Path) -> list[Problem]:
    """What `edge check` finds in a test file."""
    problems = Problems()
    check([path], problems)
    return [problem for problem in problems if problem.file == str(path)]


def compiled(folder: Path, text: str) -> Trial:
    """The one test of a text that has no errors."""
    (folder / "one.test.yaml").write_text(f"recipe: rinse-and-fill\ntests:\n  It goes well:\n{text}", encoding="utf-8")
    problems = Problems()
    (found,) = load_trials([folder / "one.test.yaml"], problems)
    assert not problems.errors, report(problems)
    (trial,) = found.trials
    return trial


def test_the_shipped_files_have_no_problem() -> None:
    problems = Problems()
    assert len([path for path in check([RECIPES], problems) if path.endswith(TEST)]) >= 3
    assert not list(problems), report(problems)


def test_the_examples_of_the_documentation_are_sound_and_every_key_is_told(tmp_path: Path) -> None:
    page = RECIPES.parent / "docs" / "recipe-tests.md"
    text = page.read_text(encoding="utf-8")
    shutil.copytree(RECIPES / "bottling", tmp_path / "cell", ignore=shutil.ignore_patterns(f"*{TEST}"))
    for number, block in enumerate(blocks(page, "yaml")):
        (tmp_path / "cell" / f"{number}{TEST}").write_text(block.text, encoding="utf-8")
    problems = Problems()
    (found,) = load_trials([tmp_path / "cell"], problems)
    assert not list(problems), report(problems)
    assert [run_trial(found.plan, one, found.plant).failure for one in found.trials if found.plant] == [None, None]
    for form in (TrialFile, TrialForm, Happening, Expectation, Ends):
        assert [key for key in keys(form) if f"`{key}`" not in text and f"`{key}:" not in text] == [], form


# Mistakes, each in a file that says what must be reported.


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_every_mistake_is_reported_in_its_place(path: Path, folder: Path) -> None:
    shutil.copy(path, folder)
    expected = [match for line in path.read_text().splitlines() if (match := EXPECTED.match(line))]
    problems = found(folder / path.name)
    assert expected
    assert [(p.severity, str(p.line), str(p.column), p.code) for p in problems] == [
        match.group(1, 2, 3, 4) for match in expected
    ]
    for problem, match in zip(problems, expected, strict=True):
        message, _, hint = match[5].removeprefix(" | ").partition(" | ")
        assert (problem.message, problem.hint) == (message, hint)


def test_of_a_recipe_that_has_mistakes_only_those_are_reported(folder: Path) -> None:
    recipe = folder / "rinse-and-fill.yaml"
    recipe.write_text(recipe.read_text().replace("until: mixer.level", "until: mixer.levl"))
    (folder / "one.test.yaml").write_text(
        "recipe: rinse-and-fill\nalways: [not mixer.overflow]\ntests: {It fills: {}}\n"
    )
    problems = Problems()
    check([folder / "one.test.yaml"], problems)
    assert [(Path(one.file).name, one.code) for one in problems if one.severity == "error"] == [
        ("rinse-and-fill.yaml", "unknown-tag")
    ]


def test_a_broken_tag_of_the_cell_is_not_reported_where_a_test_uses_it(folder: Path) -> None:
    cell = folder / "cell.yaml"
    cell.write_text(
        cell.read_text().replace("bottle:   {at: discrete:3, type: bool}", "bottle: {at: discrete:3, type: bol}")
    )
    text = "recipe: rinse-and-fill\nalways: [not conveyor.bottle]\ntests:\n"
    (folder / "one.test.yaml").write_text(text + "  A: {happens: [{at: 1 s, stuck: conveyor.bottle}]}\n")
    assert found(folder / "one.test.yaml") == []


def test_the_recipe_of_a_test_may_be_in_any_file_and_other_recipes_do_not_matter(folder: Path) -> None:
    (folder / "broken.yaml").write_text("recipe: broken\nsteps: [{wait: long}]\n")
    shutil.move(folder / "rinse-and-fill.yaml", folder / "zebra.yaml")
    assert compiled(folder, "    {}\n").recipe == "rinse-and-fill"


def test_a_recipe_that_cannot_be_read_may_be_the_one_that_is_missing(folder: Path) -> None:
    (folder / "rinse-and-fill.yaml").write_text("recipe: rinse-and-fill\nsteps: [\n")
    (folder / "one.test.yaml").write_text("recipe: rinse-and-fill\ntests: {It fills: {}}\n")
    problems = Problems()
    check([folder / "one.test.yaml"], problems)
    assert {Path(problem.file).name for problem in problems} == {"one.test.yaml", "rinse-and-fill.yaml"}


def test_a_test_file_without_a_cell_beside_it(tmp_path: Path) -> None:
    (tmp_path / "one.test.yaml").write_text("recipe: r\ntests: {It runs: {}}\n")
    problems = Problems()
    check([tmp_path / "one.test.yaml"], problems)
    assert [(problem.file, problem.code) for problem in problems] == [(str(tmp_path / "cell.yaml"), "no-file")]


def test_a_parameter_without_a_default_must_be_given(folder: Path) -> None:
    recipe = folder / "rinse-and-fill.yaml"
    recipe.write_text(recipe.read_text().replace("default: 20, ", ""))
    (folder / "one.test.yaml").write_text("recipe: rinse-and-fill\ntests:\n  It fills: {}\n")
    assert [(one.line, one.code) for one in found(folder / "one.test.yaml")] == [(3, "missing-parameter")]
    assert compiled(folder, "    parameters: {volume: 7 L}\n").parameters == {"volume": 7.0}


def test_the_plant_is_that_beside_the_cell_or_another(folder: Path) -> None:
    text = "recipe: rinse-and-fill\nplant: other.yaml\ntests: {It fills: {}}\n"
    (folder / "one.test.yaml").write_text(text)
    assert [(one.line, one.column, one.code) for one in found(folder / "one.test.yaml")] == [(2, 8, "no-file")]
    (folder / "other.yaml").write_text(
        "blocks: {mixer: {model: tank, start_level: 30 L, outputs: {level: mixer.level}}}\n"
    )
    (other,) = load_trials([folder], Problems())
    (folder / "one.test.yaml").write_text(text.replace("plant: other.yaml", ""))
    (beside,) = load_trials([folder], Problems())
    level = other.plan.cell.tag("mixer.level").index
    assert other.plant is not None and beside.plant is not None
    assert (other.plant.read(level), beside.plant.read(level)) == (30.0, 0.0)


def test_a_mistake_in_the_plant_is_found_where_tests_need_it(folder: Path) -> None:
    (folder / "one.test.yaml").write_text("recipe: rinse-and-fill\ntests: {It fills: {}}\n")
    (folder / "plant.yaml").write_text("blocks: {mixer: {model: tnak}}\n")
    problems = Problems()
    check([folder], problems)
    assert [Path(one.file).name for one in problems if one.severity == "error"] == ["plant.yaml"]


def test_a_value_that_is_recorded_in_two_units_cannot_be_compared(folder: Path) -> None:
    recipe = folder / "rinse-and-fill.yaml"
    recipe.write_text(recipe.read_text().replace("on:\n", "  - record: {filled: conveyor.weight}\non:\n"))
    text = "recipe: rinse-and-fill\ntests:\n  It fills: {ends: {record: [filled > 3 kg]}}\n"
    (folder / "one.test.yaml").write_text(text)
    assert [(one.code, one.message) for one in found(folder / "one.test.yaml")] == [
        ("other-type", "`filled` is recorded as L and as kg: it cannot be compared")
    ]


def test_edge_test_of_what_has_no_tests(folder: Path) -> None:
    problems = Problems()
    assert load_trials([folder], problems) == []
    assert [problem.code for problem in problems] == ["no-test"]
    problems = Problems()
    assert load_trials([folder / "rinse-and-fill.yaml"], problems) == []
    assert [(Path(problem.file).name, problem.code) for problem in problems] == [("rinse-and-fill.yaml", "no-test")]


# What is compiled.


def test_a_test_that_says_nothing_is_complete_without_alarms(folder: Path) -> None:
    trial = compiled(folder, "    {}\n")
    assert (trial.state, trial.limit, trial.alarms) == ("complete", 60_000, ())
    assert not trial.parameters and not trial.answers and not trial.events


def test_times_are_cycles_and_values_are_in_the_tags_units(folder: Path) -> None:
    trial = compiled(
        folder,
        """
    parameters: {volume: 0.02 m3}
    happens:
      - {at: 3 s, spike: mixer.level, to: 500 mL}
      - {when: mixer.level > 3 L, after: 1500 ms, drift: mixer.level, by: 6 L/min, for: 2 s}
      - {step: Fill, slow: robot, by: 25 ms}
    expect:
      - {by: 2 s, that: mixer.inlet}
      - {at: 3 s, state: held}
      - {step: Fill, within: 4 s, that: mixer.inlet, state: running}
""",
    )
    assert trial.parameters == {"volume": 20.0}
    spike, drift, slow = trial.events
    assert (spike.moment.cycles, spike.value, spike.cycles) == (300, 0.5, None)
    assert (drift.moment.cycles, drift.rate, drift.cycles) == (150, pytest.approx(0.1), 200)
    assert (slow.moment.steps, slow.late) == ((0,), 3)
    assert [(wish.moment.cycles, wish.cycles, wish.state) for wish in trial.wishes] == [
        (0, 200, ""),
        (300, 0, "held"),
        (0, 400, "running"),
    ]


def test_a_test_has_what_is_said_for_all_unless_it_says_otherwise(folder: Path) -> None:
    (folder / "one.test.yaml").write_text(
        """
recipe: rinse-and-fill
parameters: {volume: 10 L}
answers: {label_ok: yes}
always: [not mixer.inlet or robot.state != 9]
tests:
  As it is: {}
  Otherwise: {parameters: {volume: 12 L}, answers: {label_ok: no}, always: [mixer.level < 50 L]}
  Nobody answers: {answers: {label_ok: null}}
"""
    )
    problems = Problems()
    (trials,) = load_trials([folder / "one.test.yaml"], problems)
    plain, other, nobody = trials.trials
    assert (plain.parameters, plain.answers) == ({"volume": 10.0}, {"label_ok": "yes"})
    assert (other.parameters, other.answers) == ({"volume": 12.0}, {"label_ok": "no"})
    assert nobody.answers == {}
    assert (len(plain.always), len(other.always)) == (1, 2)


def test_recorded_values_are_known_by_type_and_unit(folder: Path) -> None:
    trial = compiled(folder, "    ends: {record: [filled >= volume]}\n")
    (recording,) = trial.recordings
    assert recording.names == ("filled",) and trial.recorded == ("filled",)
    assert recording.that.code([], [20.0, None, 20.5]) is True
    assert recording.that.code([], [20.0, None, 19.5]) is False
