"""The recipe file, and how any Struct reads a node tree."""

import itertools
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from edge.language import recipe, shape
from edge.language.recipe import RecipeFile
from edge.language.shape import FAILED, Form
from edge.language.source import Problem, Problems, parse


def read(text: str, kind: Any = RecipeFile) -> tuple[Any, list[Problem]]:
    problems = Problems()
    node = parse(text, "recipe.yaml", problems)
    return (FAILED if node is None else shape.read(node, kind, problems)), list(problems)


RECIPE = """
recipe: one
say: {en: One, fr: Un, ar: واحد}
uses: [mixer, robot]
parameters:
  volume: {unit: L, default: 20, range: [5, 50], say: How much}
  kind: {type: text, choices: [a, b]}
interlocks:
  - {when: mixer.level > 3 L, do: stop, say: Full, grace: 250 ms}
steps:
  - name: Fill
    set: {mixer.agitator: 120 rpm}
    during: {mixer.inlet: true}
    until: mixer.level >= volume
    within: 60 s
    on_timeout: continue
  - parallel:
      a: [{wait: 30 s}]
      b: [{do: robot.pick, with: {program: 3}}]
  - choose:
      - {when: x, steps: [{wait: 1 s}]}
      - else: [{repeat: {while: x}, steps: [{wait: 2 s}]}]
  - {ask: {say: Ok?, answers: [yes, no], into: ok}}
  - {record: {level: mixer.level}}
on:
  hold: [{set: {mixer.agitator: 0 rpm}}]
after_power_loss: resume
"""


def test_a_recipe() -> None:
    form, problems = read(RECIPE)
    assert problems == []
    assert (form.recipe, form.uses, form.after_power_loss) == ("one", ("mixer", "robot"), "resume")
    assert recipe.texts(form.say) == {"en": "One", "fr": "Un", "ar": "واحد"}
    volume, kind = form.parameters["volume"], form.parameters["kind"]
    assert (volume.type, volume.unit, volume.range, volume.default.text) == ("number", "L", (5, 50), "20")
    assert recipe.texts(volume.say) == {"en": "How much"}
    assert (kind.type, kind.choices, kind.default) == ("text", ("a", "b"), None)
    (interlock,) = form.interlocks
    assert (interlock.do, interlock.grace, interlock.when.text) == ("stop", 0.25, "mixer.level > 3 L")
    fill, parallel, choose, ask, record = form.steps
    assert (fill.name, fill.until.text, fill.within.text) == ("Fill", "mixer.level >= volume", "60 s")
    assert fill.on_timeout == "continue"
    assert {name: node.text for name, node in fill.set.items()} == {"mixer.agitator": "120 rpm"}
    assert list(parallel.parallel) == ["a", "b"]
    assert parallel.parallel["b"][0].with_["program"].text == "3"
    assert [way.when and way.when.text for way in choose.choose] == ["x", None]
    assert choose.choose[1].else_[0].repeat.while_.text == "x"
    assert (ask.ask.answers, ask.ask.into, ask.ask.kind) == (("yes", "no"), "ok", "choice")
    assert record.record["level"].text == "mixer.level"
    assert list(form.on.blocks()) == ["hold"]


def test_a_form_knows_where_it_stands() -> None:
    form, _ = read(RECIPE)
    fill = form.steps[0]
    assert (fill.node.place.line, fill.place("until").place.line) == (11, 14)
    assert (fill.has("until"), fill.has("wait")) == (True, False)
    assert fill.place("wait") is fill.node


def test_walk_goes_through_every_step_in_order() -> None:
    form, _ = read(RECIPE)
    lines = [step.node.place.line for step in recipe.walk(form.steps)]
    assert lines == [11, 17, 18, 19, 20, 21, 22, 22, 23, 24]


def test_keys_of_kinds_are_keys_of_a_step() -> None:
    keys = set(shape.keys(recipe.Step))
    assert keys >= {*recipe.COMPLETIONS, *recipe.GOES_WITH, *itertools.chain(*recipe.NEEDS.items())}
    assert recipe.LANGUAGES == ["en", "fr", "ar"]


def test_one_mistake_hides_no_other() -> None:
    text = """
recipe: o ne
after_power_loss: no
parameters: {a: {range: [1]}, b: {type: texte}}
interlocks: [{when: x, do: halt}, {do: hold, when: [x], say: x}]
steps: [{within: {}, wait: []}, {choose: [{when: x, step: []}]}, 7]
"""
    form, problems = read(text)
    assert [(problem.line, problem.column, problem.code) for problem in problems] == [
        (2, 9, "bad-name"),
        (3, 19, "not-a-choice"),
        (4, 25, "wrong-length"),
        (4, 41, "not-a-choice"),
        (5, 14, "missing-key"),
        (5, 28, "not-a-choice"),
        (5, 52, "not-text"),
        (6, 18, "not-text"),
        (6, 28, "not-text"),
        (6, 53, "unknown-key"),
        (6, 66, "not-a-map"),
    ]
    assert form.recipe == "o ne"
    assert len(form.steps) == 2


# Any Struct.


class Inner(msgspec.Struct):
    size: int = 1


class Outer(Form, frozen=True):
    number: float
    count: Annotated[int, Meta(ge=1, le=5)] = 1
    part: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    flag: bool = False
    choice: Literal["a", "b"] = "a"
    either: Inner | str | None = None
    both: int | str = 0
    pair: tuple[float, str] = (0, "")
    many: tuple[int, ...] = ()
    list_: list[int] = msgspec.field(name="list", default_factory=list[int])
    named: dict[shape.Name, Inner] = msgspec.field(default_factory=dict[str, Inner])
    time: shape.Seconds = 0.0
    pause: Annotated[float, Meta(extra={"unit": "s"})] = 0.0
    text: shape.Text = "x"


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("number: 010", "number", 10),
        ("number: 1e3", "number", 1000),
        ("count: 5", "count", 5),
        ("part: 0.25", "part", 0.25),
        ("flag: true", "flag", True),
        ("choice: b", "choice", "b"),
        ("either: yes", "either", "yes"),
        ("either: {size: 3}", "either", Inner(3)),
        ("either: null", "either", None),
        ('either: "null"', "either", "null"),
        ("both: 7", "both", 7),
        ("both: seven", "both", "seven"),
        ("pair: [1, 2]", "pair", (1, "2")),
        ("many: [1, 2]", "many", (1, 2)),
        ("list: [1, 2]", "list_", [1, 2]),
        ("named: {x: {}, y: {size: 2}}", "named", {"x": Inner(1), "y": Inner(2)}),
        ("time: 250 ms", "time", 0.25),
        ("pause: 0.5", "pause", 0.5),
        ("pause: 500 ms", "pause", 0.5),
    ],
)
def test_values(text: str, name: str, value: Any) -> None:
    form, problems = read(f"number: 0\n{text}\n" if not text.startswith("number") else text, Outer)
    assert problems == []
    assert getattr(form, name) == value


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("count: 0", "out-of-range"),
        ("count: 6", "out-of-range"),
        ("count: 1.5", "not-integer"),
        ("part: 0", "out-of-range"),
        ("part: 1", "out-of-range"),
        ("flag: yes", "not-bool"),
        ("choice: c", "not-a-choice"),
        ("either: [x]", "not-a-map"),
        ("both: {}", "not-integer"),
        ("pair: [1]", "wrong-length"),
        ("pair: [x, y]", "not-number"),
        ("many: [1, x]", "not-integer"),
        ("many: 1", "not-a-list"),
        ("named: {1x: {}}", "bad-name"),
        ("named: {x: {sise: 1}}", "unknown-key"),
        ("time: 250", "bad-duration"),
        ("pause: 3 L", "bad-duration"),
        ('text: ""', "empty-text"),
        ("lists: []", "unknown-key"),
        ("node: x", "unknown-key"),
    ],
)
def test_values_that_are_wrong(text: str, code: str) -> None:
    _, problems = read(f"number: 0\n{text}\n", Outer)
    assert [problem.code for problem in problems] == [code]
    assert problems[0].line == 2


def test_a_needed_key() -> None:
    assert read("count: 1", Outer)[0] is FAILED
    assert [problem.code for problem in read("count: 1", Outer)[1]] == ["missing-key"]
    assert [problem.code for problem in read("number: x", Outer)[1]] == ["not-number"]


@pytest.mark.parametrize(
    ("text", "kind", "unit", "value"),
    [
        ("20", "float", "L", 20),
        ("20 L", "float", "L", 20),
        ("2 hL", "float", "L", 200),
        ("-5 °C", "int", "°C", -5),
        ("true", "bool", "", True),
        ("010", "string", "", "010"),
        ("20 kg", "float", "L", "wrong-unit"),
        ("20 L", "float", "", "wrong-unit"),
        ("20 lt", "float", "L", "wrong-unit"),
        ('"20"', "float", "L", "not-number"),
        ("twenty", "float", "L", "not-number"),
        ("1", "bool", "", "not-bool"),
    ],
)
def test_written_values(text: str, kind: str, unit: str, value: Any) -> None:
    problems = Problems()
    node = parse(text, "f", problems)
    assert node is not None
    made = shape.constant(node, kind, unit, problems)
    assert (made if made is not None else next(problem.code for problem in problems)) == value


PLAIN = st.recursive(
    st.one_of(st.just("true"), st.integers().map(str), st.text("abc: ,{}[]#\"'", max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(shape.keys(recipe.Step)), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(shape.keys(RecipeFile)), PLAIN))
def test_whatever_stands_there_is_reported_and_never_raises(content: dict[str, Any]) -> None:
    form, problems = read(msgspec.json.encode(content).decode())
    assert problems if form is FAILED else form.node.entries.keys() == content.keys()


def test_the_files_of_the_bottling_cell_are_recipes() -> None:
    for path in sorted((Path(__file__).parent / "bottling").glob("r*.yaml")):
        assert read(path.read_text())[1] == []
