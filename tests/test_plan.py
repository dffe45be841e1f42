"""A cell and its recipes compiled: what the plan holds, and every mistake in its place."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.language.plan import check, load_plan
from edge.language.program import Plan, Recipe, Step
from edge.language.report import report
from edge.language.source import Problem, Problems

HERE = Path(__file__).parent
BOTTLING = HERE / "bottling"
BAD = sorted((HERE / "bad").glob("*.yaml"))
EXPECTED = re.compile(r"# (error|warning) (\d+):(\d+) ([a-z0-9-]+)((?: \| .*)?)")


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """The bottling cell in a folder of its own, without recipes."""
    return Path(shutil.copy(BOTTLING / "cell.yaml", tmp_path))


def compiled(cell: Path, text: str) -> tuple[Recipe, Plan]:
    """The one recipe of a text that has no errors, and its plan."""
    (cell.parent / "one.yaml").write_text(text)
    problems = Problems()
    plan = load_plan(cell, problems)
    assert plan is not None, report(problems)
    (recipe,) = plan.recipes.values()
    return recipe, plan


def found(cell: Path, text: str) -> list[Problem]:
    """What is wrong with the recipe of a text."""
    (cell.parent / "one.yaml").write_text(text)
    problems = Problems()
    assert load_plan(cell, problems) is None or not problems.errors
    return list(problems)


def steps(cell: Path, text: str, head: str = "uses: [mixer, conveyor, robot]") -> list[Step]:
    recipe, _ = compiled(cell, f"recipe: one\n{head}\nsteps:\n{text}")
    return list(recipe.steps)


# Mistakes, each in a file that says what must be reported.


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_every_mistake_is_reported_in_its_place(path: Path, cell: Path) -> None:
    shutil.copy(path, cell.parent)
    problems = Problems()
    check([cell.parent / path.name], problems)
    expected = [match for line in path.read_text().splitlines() if (match := EXPECTED.match(line))]
    assert expected
    assert [(p.severity, str(p.line), str(p.column), p.code) for p in problems] == [
        match.group(1, 2, 3, 4) for match in expected
    ], report(problems)
    for problem, match in zip(problems, expected, strict=True):
        message, _, hint = match[5].removeprefix(" | ").partition(" | ")
        assert message in problem.message
        assert hint in problem.hint


def test_a_text_has_the_languages_of_the_cell_and_of_all_its_recipes(cell: Path) -> None:
    with cell.open("a") as file:
        file.write("alarms:\n  full: {when: mixer.level > 90 L, say: {en: Full, fr: Plein}}\n")
    for name, say in (("one", "{en: One, ar: واحد}"), ("two", "Two")):
        (cell.parent / f"{name}.yaml").write_text(f"recipe: {name}\nsay: {say}\nsteps: [{{wait: 1 s}}]\n")

    def missing(*paths: Path) -> list[tuple[str, str]]:
        problems = Problems()
        check(paths, problems)
        told = [problem for problem in problems if problem.code == "missing-translation"]
        return [(Path(one.file).stem, one.message.removeprefix("this text is missing in ")) for one in told]

    assert missing(cell.parent) == [("cell", "ar"), ("one", "fr"), ("two", "fr, ar")]
    assert missing(cell.parent / "two.yaml") == [("two", "fr")]


def test_outputs_that_no_recipe_drives_are_told_where_all_recipes_are_looked_at(cell: Path) -> None:
    one = cell.parent / "one.yaml"
    one.write_text("recipe: one\nuses: [mixer]\nsteps: [{set: {mixer.inlet: true}}]\n")
    told: list[list[str]] = []
    for path in (cell.parent, one):
        problems = Problems()
        check([path], problems)
        told.append([problem.message for problem in problems if problem.code == "unused-tag"])
    assert told == [[f"no recipe drives `{tag}`" for tag in ("mixer.agitator", "conveyor.speed", "conveyor.lamp")], []]
    one.write_text("recipe: one\nsteps: [\n")
    problems = Problems()
    check([cell.parent], problems)
    assert not problems.warnings


MISTAKES = {
    "not UTF-8": (b"recipe: caf\xe9\n", "not-utf-8", 1, 12),
    "empty": (b"", "empty-file", 1, 1),
    "only a comment": (b"# soon\n", "empty-file", 1, 1),
    "10 MB": (b"# " + b"x" * 10_000_000, "too-large", 1, 1),
    "1,000 levels": (b"recipe: r\nsteps: " + b"[" * 1000 + b"]" * 1000, "too-deep", 2, 71),
    "an anchor bomb": (b"a: &a [x, x]\nb: &b [*a, *a]\nsteps: [*b, *b]\n", "yaml-anchor", 1, 4),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_file_that_is_no_recipe_at_all(name: str, cell: Path) -> None:
    data, code, line, column = MISTAKES[name]
    (cell.parent / "one.yaml").write_bytes(data)
    problems = Problems()
    assert load_plan(cell, problems) is None
    first = next(iter(problems))
    assert (first.code, first.line, first.column) == (code, line, column)


def test_a_broken_tag_is_reported_once_and_not_where_it_is_used(cell: Path) -> None:
    cell.write_text(cell.read_text().replace("type: float32, unit: L,", "type: float23, unit: L,"))
    text = (
        "recipe: one\nuses: [mixer]\nsteps:\n  - until: mixer.level > 3 L\n    within: 9 s\n  - set: {mixer.out: 1}\n"
    )
    assert [problem.code for problem in found(cell, text)] == ["unknown-type", "unknown-tag"]


def test_a_broken_device_is_reported_once_and_not_what_uses_it(cell: Path) -> None:
    shutil.copy(BOTTLING / "rinse-and-fill.yaml", cell.parent)
    cell.write_text(cell.read_text().replace("port: 102,", "port: many,").replace("robot: robot.alive", ""))
    problems = Problems()
    assert load_plan(cell, problems) is None
    assert [problem.code for problem in problems if problem.severity == "error"] == ["not-integer"]
    cell.write_text(cell.read_text().replace("host: 192.168.10.11, port: many,", ""))
    problems = Problems()
    assert load_plan(cell, problems) is None
    assert [problem.code for problem in problems if problem.severity == "error"] == ["missing-key"]


# What is compiled.


def test_the_bottling_cell_of_the_documentation(cell: Path) -> None:
    problems = Problems()
    plan = load_plan(BOTTLING / "cell.yaml", problems)
    assert plan is not None
    assert [problem.code for problem in problems] == ["missing-translation"]
    recipe = plan.recipes["rinse-and-fill"]
    tags = plan.cell.tags
    assert recipe.hash == hashlib.sha256((BOTTLING / "rinse-and-fill.yaml").read_bytes()).hexdigest()
    assert (recipe.uses, recipe.devices) == (("mixer", "conveyor", "robot"), (0, 1, 2))
    assert recipe.variables == ("volume", "label_ok")
    assert [tags[index].name for index in recipe.inputs] == ["mixer.level", "conveyor.weight", "robot.state"]
    assert [tags[index].name for index in recipe.outputs] == [
        "mixer.inlet",
        "mixer.agitator",
        "conveyor.speed",
        "robot.program",
    ]
    assert [recipe.steps[index].name for index in recipe.body] == [
        "Fill",
        "set mixer.agitator",
        "parallel stir, bring",
        "ask label_ok",
        "choose",
        "record filled",
    ]
    assert [phase.name for phase in plan.phases] == ["robot.pick", "robot.reject"]
    assert list(recipe.handlers) == ["hold"]
    (interlock,) = recipe.interlocks
    assert (interlock.do, interlock.grace, interlock.condition) == ("hold", 100, "conveyor.weight > 40 kg")
    assert interlock.say["fr"] == "Balance en surcharge"


def test_steps_lie_in_the_order_of_the_file(cell: Path) -> None:
    made = steps(
        cell,
        """
  - parallel:
      a: [{wait: 1 s}, {wait: 2 s}]
      b:
        - repeat: {times: 2}
          steps: [{wait: 3 s}]
  - wait: 4 s
""",
    )
    assert [step.index for step in made] == list(range(len(made)))
    assert [(branch.name, branch.block) for branch in made[0].branches] == [("a", (1, 2)), ("b", (3,))]
    assert made[3].repeat is not None
    assert (made[3].repeat.block, made[3].repeat.times) == ((4,), 2)
    assert [step.wait for step in made] == [None, 100, 200, None, 300, 400]
    assert [step.line for step in made] == [5, 6, 6, 8, 9, 10]


def test_levels_are_constants_in_the_unit_of_the_tag_or_code(cell: Path) -> None:
    head = "uses: [mixer, conveyor, robot]\nparameters: {volume: {unit: L, range: [1, 50]}, fast: {type: bool}}"
    made = steps(
        cell,
        """
  - set: {mixer.agitator: 2 1/s, conveyor.speed: 0.2 m/s, mixer.inlet: fast}
  - set: {mixer.agitator: volume * 2 rpm/L}
""",
        head,
    )
    agitator, speed, inlet = made[0].set
    assert (agitator.value, speed.value) == (120, 200)
    assert callable(inlet.value)
    assert inlet.value([], [20, True]) is True
    (computed,) = made[1].set
    assert callable(computed.value)
    assert computed.value([], [20, True]) == 40
    assert computed.value([], [None, True]) is None


def test_times_are_cycles_or_code_that_gives_seconds(cell: Path) -> None:
    head = "uses: [mixer]\nparameters: {time: {unit: min}}"
    made = steps(
        cell, "  - wait: 0.25 s\n  - wait: time * 2\n  - until: mixer.level > 3 L\n    within: 5 ms * 5\n", head
    )
    assert made[0].wait == 25
    assert callable(made[1].wait)
    assert made[1].wait([], [3]) == 360
    assert made[2].within == 3
    assert made[2].on_timeout == "hold"


def test_within_none_is_no_limit(cell: Path) -> None:
    (made,) = steps(cell, "  - until: mixer.level > 3 L\n    within: none\n")
    assert made.within is None


def test_inputs_are_what_the_step_itself_reads(cell: Path) -> None:
    made = steps(
        cell,
        """
  - choose:
      - when: conveyor.bottle and mixer.level > 3 L
        steps: [{until: conveyor.ready, within: 9 s}]
      - else: []
""",
    )
    assert made[0].inputs == (0, 5)
    assert made[0].condition == "conveyor.bottle and mixer.level > 3 L"
    assert made[1].inputs == (7,)
    assert [(branch.name, branch.block) for branch in made[0].branches][1] == ("else", ())


def test_questions(cell: Path) -> None:
    recipe, _ = compiled(
        cell,
        """
recipe: one
steps:
  - ask: {say: {en: Which?, ar: أي؟}, answers: [yes, no], into: which}
  - ask: {say: How much?, number: {unit: L, range: [0, 20]}, into: amount}
  - ask: {say: Which lot?, text: true, into: lot}
  - ask: {say: Ready?, into: ready}
  - ask: {say: Go on?}
  - record: {amount: amount, lot: lot, good: ready and which == "yes"}
""",
    )
    asks = [step.ask for step in recipe.steps if step.ask is not None]
    assert [(ask.kind, ask.into) for ask in asks] == [
        ("choice", 0),
        ("number", 1),
        ("text", 2),
        ("confirm", 3),
        ("confirm", None),
    ]
    assert asks[0].say == {"en": "Which?", "ar": "أي؟"}
    assert asks[0].answers == ("yes", "no")
    assert (asks[1].unit, asks[1].low, asks[1].high) == ("L", 0, 20)
    assert asks[1].say == {"en": "How much?"}
    assert [(entry.name, entry.unit.name) for entry in recipe.steps[-1].record] == [
        ("amount", "L"),
        ("lot", ""),
        ("good", ""),
    ]
    assert [entry.value([], ["yes", 3, "A1", True]) for entry in recipe.steps[-1].record] == [3, "A1", True]


def test_a_phase_runs_with_its_parameters(cell: Path) -> None:
    (made,) = steps(cell, "  - do: robot.reject\n    with: {program: 4}\n    within: 20 s\n")
    assert made.do is not None
    assert made.do.phase == 1
    assert [(level.tag, level.value) for level in made.do.parameters] == [(9, 4)]
    assert made.name == "do robot.reject"


def test_an_answer_may_be_awaited_beside_the_question(cell: Path) -> None:
    text = """
recipe: one
steps:
  - parallel:
      a: [{ask: {say: Ready?, into: ready}}]
      b: [{until: ready, within: none}]
"""
    assert found(cell, text) == []


def test_a_loop_may_ask_until_the_answer_is_right(cell: Path) -> None:
    text = """
recipe: one
steps:
  - repeat: {until: ok == "yes"}
    steps: [{ask: {say: Ok?, answers: [yes, no], into: ok}}]
  - record: {ok: ok}
"""
    assert found(cell, text) == []


@pytest.mark.parametrize(
    "ask",
    [
        "- choose: [{when: mixer.level > 3 L, steps: [{ASK}]}, {else: []}]",
        "- repeat: {while: mixer.level > 3 L}\n    steps: [{ASK}]",
        "- {ASK, within: 5 s, on_timeout: continue}",
    ],
)
def test_an_answer_that_may_be_missing_cannot_be_used(ask: str, cell: Path) -> None:
    ask = ask.replace("ASK", "ask: {say: Ok?, answers: [yes, no], into: ok}")
    problems = found(cell, f"recipe: one\nuses: [mixer]\nsteps:\n  {ask}\n  - record: {{ok: ok}}\n")
    assert [problem.code for problem in problems] == ["not-yet-answered"]


WORDS = re.compile(r"[\w.]+|[^\w\s]")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_mistyped_is_reported_in_a_place_that_exists(cell: Path, data: st.DataObject) -> None:
    text = (BOTTLING / "rinse-and-fill.yaml").read_text()
    words = list(WORDS.finditer(text))
    typed = data.draw(
        st.sampled_from([*sorted({word[0] for word in words}), "", "-1", "2 s", "[]", "{}", '"x"', "none"])
    )
    word = data.draw(st.sampled_from(words))
    text = text[: word.start()] + typed + text[word.end() :]
    (cell.parent / "one.yaml").write_text(text)
    problems = Problems()
    plan = load_plan(cell, problems)
    assert (plan is None) == (problems.errors > 0)
    assert all(1 <= problem.line <= text.count("\n") + 1 for problem in problems if problem.file != str(cell))


def test_names_in_plain_words(cell: Path) -> None:
    made = steps(
        cell,
        """
  - set: {mixer.agitator: 1 rpm, mixer.inlet: true}
  - during: {mixer.inlet: true}
    until: mixer.level > 3 L
    within: 9 s
  - parallel: {stir: [{wait: 30 s}], bring: [{record: {level: mixer.level}}]}
  - repeat: {times: 2}
    steps: [{wait: 1 s}]
  - repeat: {while: mixer.level > 3 L}
    steps: [{wait: 1 s}]
  - ask: {say: Ok?}
  - choose: [{when: conveyor.bottle, steps: [{wait: 1 s}]}, {else: []}]
""",
    )
    assert [step.name for step in made if step.name != "wait 1 s"] == [
        "set mixer.agitator, mixer.inlet",
        "until mixer.level > 3 L",
        "parallel stir, bring",
        "wait 30 s",
        "record level",
        "repeat 2 times",
        "repeat while mixer.level > 3 L",
        "ask",
        "choose",
    ]


# Files and folders.


def test_every_recipe_of_the_folder_and_no_other_file(cell: Path) -> None:
    for name in ("a", "b"):
        (cell.parent / f"{name}.yaml").write_text(f"recipe: {name}\nsteps: [{{wait: 1 s}}]\n")
    (cell.parent / "plant.yaml").write_text("blocks: {}\n")
    (cell.parent / "a.test.yaml").write_text("recipe: a\nsteps: no\n")
    (cell.parent / "endpoints.yaml").write_text("mixer: {host: 127.0.0.1}\n")
    problems = Problems()
    plan = load_plan(cell, problems)
    assert plan is not None
    assert list(plan.recipes) == ["a", "b"]
    assert (
        check([cell], problems)
        == check([cell.parent], problems)
        == [
            str(cell),
            str(cell.parent / "a.yaml"),
            str(cell.parent / "b.yaml"),
        ]
    )


def test_only_the_recipes_that_are_wanted(cell: Path) -> None:
    (cell.parent / "a.yaml").write_text("recipe: a\nsteps: [{wait: 1 s}]\n")
    (cell.parent / "b.yaml").write_text("recipe: b\nsteps: [{wait: 1}]\n")
    (cell.parent / "c.yaml").write_text("recipe: [\n")
    problems = Problems()
    plan = load_plan(cell, problems, recipes=["a"])
    assert plan is not None
    assert list(plan.recipes) == ["a"]
    assert load_plan(cell, problems, recipes=["aa"]) is None
    assert [(problem.code, problem.hint) for problem in problems if problem.file == str(cell)] == [
        ("unknown-recipe", "did you mean `a`?")
    ]


def test_two_recipes_of_one_name(cell: Path) -> None:
    for name in ("a", "b"):
        (cell.parent / f"{name}.yaml").write_text("recipe: same\nsteps: [{wait: 1 s}]\n")
    problems = Problems()
    assert load_plan(cell, problems) is None
    (problem,) = problems
    assert (problem.file, problem.line, problem.column) == (str(cell.parent / "b.yaml"), 1, 9)
    assert (problem.code, problem.message) == ("recipe-twice", "`same` is already the recipe of a.yaml")


def test_endpoints_are_in_the_plan(cell: Path) -> None:
    problems = Problems()
    plan = load_plan(cell, problems, endpoints={"mixer": {"host": "127.0.0.1", "port": 10102}})
    assert plan is not None
    settings = plan.cell.devices[0].settings
    assert (getattr(settings, "host", None), getattr(settings, "port", None)) == ("127.0.0.1", 10102)


def test_check_of_a_folder_finds_every_cell_below(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(BOTTLING, tmp_path / name)
    problems = Problems()
    assert len(check([tmp_path, tmp_path / "one"], problems)) == 4
    assert problems.errors == 0


def test_check_of_a_folder_without_a_cell(tmp_path: Path) -> None:
    problems = Problems()
    assert check([tmp_path, tmp_path / "none.yaml"], problems) == [str(tmp_path / "none.yaml")]
    assert [(problem.code) for problem in problems] == ["no-cell", "no-file"]


def test_check_of_what_a_shell_pattern_gives(cell: Path) -> None:
    shutil.copy(BOTTLING / "rinse-and-fill.yaml", cell.parent)
    (cell.parent / "plant.yaml").write_text("blocks: {}\n")
    (cell.parent / "rinse.test.yaml").write_text("recipe: rinse-and-fill\ntests: {It rinses: {}}\n")
    problems = Problems()
    names = [Path(name).name for name in check(sorted(cell.parent.glob("*.yaml")), problems)]
    assert names == ["cell.yaml", "rinse-and-fill.yaml", "rinse.test.yaml"]
    assert problems.errors == 0
    assert check([cell.parent / "plant.yaml"], problems) == [str(cell)]
