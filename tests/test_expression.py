"""Expressions: what they mean, what they refuse, and that three-valued logic holds for any of them."""

import math
import operator
from decimal import ROUND_HALF_UP, Context, Decimal

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from drivers.value import TYPES, Scale, parse_type
from edge.language.calls import Memory, Use
from edge.language.cell import Cell, Tag
from edge.language.expression import RESERVED, Scope, Symbol, compile_expression, from_cell
from edge.language.grammar import MAX_DEPTH, MAX_TOKENS, Tree, parse
from edge.language.source import Node, Place, Problems
from edge.language.source import parse as parse_yaml
from edge.language.units import NONE, convert, describe
from edge.language.units import parse as unit

LINE = Place("r.yaml", 1, 1)


def number(kind, index, of="", low=None, high=None):
    return Symbol(kind, index, "number", unit(of), low, high)


SCOPE = Scope(
    {
        "mixer.level": number("tag", 0, "L", 0, 100),
        "mixer.temp": number("tag", 1, "°C"),
        "mixer.jacket": number("tag", 2, "°C"),
        "robot.state": number("tag", 3, "", -(2**31), 2**31 - 1),
        "mixer.inlet": Symbol("tag", 4, "bool"),
        "valve.open": number("tag", 5, "%", 0, 100),
        "mixer.dose": number("tag", 6, "mL"),
        "furnace.temp": number("tag", 7, "K"),
        "conveyor.lot": Symbol("tag", 8, "text"),
        "boiler.temp": number("tag", 9, "°F"),
        "volume": number("variable", 0, "L", 5, 50),
        "label_ok": Symbol("variable", 1, "text"),
        "pause": number("variable", 2, "s"),
        "span": Symbol("variable", 3, "number", unit("s"), 1, 9, fixed=True),
    }
)
TAGS = [20.0, 60.0, 80.0, 2, True, 50.0, 20_000, 300.0, "A12", 212.0]
VARIABLES = [20, "yes", 5.0, 3.0]


def compile_text(text, place, scope, problems, **kwargs):
    return compile_expression(Node("text", place, text), scope, problems, **kwargs)


def compiled(text, scope=SCOPE, **kwargs):
    problems = Problems()
    result = compile_text(text, LINE, scope, problems, **kwargs)
    assert result is not None, [problem.message for problem in problems]
    assert not problems.errors
    return result


def value(text, tags=TAGS, variables=VARIABLES, **kwargs):
    return compiled(text, **kwargs).code(tags, variables)


def fault(text, scope=SCOPE, **kwargs):
    problems = Problems()
    assert compile_text(text, LINE, scope, problems, **kwargs) is None
    (problem,) = [problem for problem in problems if problem.severity == "error"]
    return problem


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("mixer.level >= volume", True),
        ("mixer.level >= 20000 mL", True),
        ("mixer.level > 20000.1 mL", False),
        ("mixer.level == mixer.dose", True),
        ("mixer.dose == mixer.level", True),
        ("mixer.level > 0", True),
        ("mixer.level + 5 L > volume", True),
        ("mixer.level + 500 mL", 20.5),
        ("500 mL + mixer.level", 20.5),
        ("mixer.level * 50 % < 11 L", True),
        ("mixer.level / volume", 1.0),
        ("mixer.dose / mixer.level", 1.0),
        ("mixer.level / 2 min > 9 L/min", True),
        ("2 * mixer.level", 40.0),
        ("-mixer.level", -20.0),
        ("valve.open >= 50 %", True),
        ("valve.open == 0.5", None),
        ("mixer.temp > 20 °C", True),
        ("mixer.temp > 300 K", True),
        ("mixer.temp - mixer.jacket", -20.0),
        ("mixer.temp - mixer.jacket < 5 K", True),
        ("abs(mixer.temp - mixer.jacket) < 5 K", False),
        ("(mixer.temp - mixer.jacket) * 2 == -40 K", True),
        ("mixer.temp + 5 K", 65.0),
        ("5 K + mixer.temp", 65.0),
        ("mixer.temp - 5 K", 55.0),
        ("mixer.temp - (mixer.temp - mixer.jacket)", 80.0),
        ("boiler.temp == 100 °C", True),
        ("boiler.temp - mixer.temp == 40 K", True),
        ("boiler.temp + 5 K", 221.0),
        ("furnace.temp - mixer.temp < 0 K", True),
        ("furnace.temp > 20 °C", True),
        ("furnace.temp - 5 K > 20 °C", True),
        ("furnace.temp + (mixer.temp - mixer.jacket)", 280.0),
        ("-5 °C", -5),
        ("robot.state == 2", True),
        ("robot.state != 2 or mixer.inlet", True),
        ("not mixer.inlet", False),
        ("not robot.state == 3 and mixer.inlet == true", True),
        ("conveyor.lot == 'A12'", True),
        ('label_ok == "yes" and conveyor.lot != label_ok', True),
        ("good(mixer.level)", True),
        ("min(mixer.level, volume, 3 L)", 3),
        ("max(mixer.level, 30000 mL)", 30),
        ("clamp(mixer.level, 3 L, 5000 mL)", 5),
        ("clamp(mixer.level, 0, 50 L)", 20.0),
        ("abs(-3)", 3),
        ("round(2.5)", 3),
        ("round(-2.5)", -3),
        ("round(2.4999999999999996)", 2),
        ("round(0.49999999999999994)", 0),
        ("round(mixer.level / 3)", 7),
        ("round(mixer.dose / 3)", 6667),
        ("3 + 4 * 2 - 6 / 3", 9.0),
        ("2 - 3 - 4", -5),
        ("2.5e3", 2500.0),
        ("(1 + 2) * 3", 9),
        ("pause < 1 h 30 min", True),
        ("1 h 30 min + 1 s == 5401 s", True),
        ("120 1/min == 120 rpm", True),
        ("1 m3/h > 16 L/min", True),
        ("true and not false", True),
        ("9007199254740993 == 9007199254740992.0", False),
    ],
)
def test_values(text, result):
    if result is None:
        assert fault(text).code == "missing-unit"
    else:
        assert value(text) == result
        assert type(value(text)) is type(result)


@pytest.mark.parametrize(
    ("text", "unit_name", "result"),
    [
        ("120 rpm", "rpm", 120),
        ("2 m/s", "mm/s", 2000),
        ("1.5 L", "mL", 1500.0),
        ("mixer.level", "mL", 20_000.0),
        ("0", "L", 0),
        ("mixer.temp", "°F", 140.0),
        ("mixer.temp - mixer.jacket", "K", -20.0),
        ("1 h 30 min", "s", 5400),
        ("3", "", 3),
        ("50 %", "", 0.5),
    ],
)
def test_a_result_is_converted_into_the_unit_that_is_asked_for(text, unit_name, result):
    assert value(text, unit=unit(unit_name)) == pytest.approx(result, rel=1e-12)
    assert type(value(text, unit=unit(unit_name))) is type(result)
    assert compiled(text, unit=unit(unit_name)).unit.name == unit_name


@pytest.mark.parametrize(
    ("text", "code", "at", "words"),
    [
        ("mixer.levl >= 3 L", "unknown-tag", (1, 10), "did you mean `mixer.level`?"),
        ("volum >= 3 L", "unknown-name", (1, 5), "did you mean `volume`?"),
        ("label_ok == maybe", "unknown-name", (13, 5), 'in quotes: "maybe"'),
        ("TRUE", "unknown-name", (1, 4), "did you mean `true`?"),
        ("mixer.inlet and not on", "unknown-name", (21, 2), "did you mean `true`?"),
        ("mixer.inlet or No", "unknown-name", (16, 2), "did you mean `false`?"),
        ("label_ok == yes", "unknown-name", (13, 3), 'a text is written in quotes: "yes"'),
        ("mixer.level >= 20 kg", "wrong-unit", (16, 5), "`mixer.level` is in L, a volume; `20 kg` is a mass"),
        ("mixer.level >= 20", "missing-unit", (16, 2), "did you mean `20 L`?"),
        ("20 < mixer.level", "missing-unit", (1, 2), "did you mean `20 L`?"),
        ("mixer.level >= (2 + 1)", "missing-unit", (16, 7), "it must be in L"),
        ("mixer.level > min(2, 1)", "missing-unit", (15, 9), "it must be in L"),
        ("valve.open > -5", "missing-unit", (14, 2), "did you mean `-5 %`?"),
        ("mixer.temp > 0", "missing-unit", (14, 1), "did you mean `0 °C`?"),
        ("mixer.temp + 5 > 3 °C", "missing-unit", (14, 1), "did you mean `5 K`?"),
        ("robot.state == 2 kg", "wrong-unit", (16, 4), "`robot.state` has no unit; `2 kg` is a mass"),
        ("robot.state == volume", "wrong-unit", (16, 6), "give it without a unit"),
        ("mixer.level * mixer.level > 3 L", "wrong-unit", (29, 3), "is in L·L; `3 L` is a volume"),
        ("mixer.temp - mixer.jacket > 5 °C", "wrong-unit", (29, 4), "is in K, not on a scale"),
        ("mixer.temp + mixer.jacket", "wrong-unit", (14, 12), "only a difference in K"),
        ("mixer.temp - furnace.temp > 3 °C", "wrong-unit", (29, 4), "a difference of temperatures"),
        ("mixer.temp + furnace.temp", "wrong-unit", (14, 12), "cannot be combined"),
        ("mixer.temp * 2", "wrong-unit", (1, 10), "subtract two temperatures first"),
        ("abs(mixer.temp)", "wrong-unit", (5, 10), "subtract two temperatures first"),
        ("-mixer.temp", "wrong-unit", (2, 10), "a zero of its own"),
        ("mixer.level > 2 Kg", "unknown-unit", (15, 4), "did you mean `kg`?"),
        ("2 volume > 3 L", "unknown-unit", (1, 8), "did you mean `2 * volume`?"),
        ("mixer.level > 10 L/volume", "unknown-unit", (15, 11), "put spaces around"),
        ("mixer.inlet == 3", "wrong-type", (1, 16), "is a condition (true or false), but `3` is a number"),
        ("mixer.inlet > true", "wrong-type", (1, 18), "compares numbers only"),
        ("label_ok < 'b'", "wrong-type", (1, 14), "write `==` or `!=`"),
        ("not mixer.level", "wrong-type", (5, 11), "expected a condition"),
        ("mixer.level and mixer.inlet", "wrong-type", (1, 11), "compare it with a value"),
        ("1 + mixer.inlet", "wrong-type", (5, 11), "expected a number"),
        ("1/0", "no-value", (1, 3), "divides by zero"),
        ("1e308 * 10", "no-value", (1, 10), "too large"),
        ("mixer.level > 1e308 m3", "no-value", (15, 8), "too large in L"),
        ("mini(1)", "unknown-function", (1, 7), "did you mean `min`?"),
        ("good(volume)", "wrong-arguments", (6, 6), "takes the name of a tag"),
        ("good(1 + 2)", "wrong-arguments", (6, 5), "takes the name of a tag"),
        ("good(mixer.levl)", "unknown-tag", (6, 10), "did you mean"),
        ("min(1)", "wrong-arguments", (1, 6), "2 or more"),
        ("clamp(1, 2)", "wrong-arguments", (1, 11), "takes 3"),
        ("0 < robot.state < 5", "expression-syntax", (17, 1), "0 < x and x < 5"),
        ("robot.state = 2", "expression-syntax", (13, 1), "write `==`"),
        ("mixer.inlet && true", "expression-syntax", (13, 1), "write `and`"),
        ("!mixer.inlet", "expression-syntax", (1, 1), "write `not`"),
        ("mixer.level ≥ 3 L", "expression-syntax", (13, 1), "write `>=`"),
        ("mixer.inlet AND true", "expression-syntax", (13, 3), "small letters"),
        ("volume L > 3 L", "expression-syntax", (8, 1), "right after a number"),
        ("a b", "expression-syntax", (3, 1), "an operator is missing"),
        ("1,5", "expression-syntax", (2, 1), "decimal point"),
        ("(1", "expression-syntax", (1, 1), "`(` is not closed"),
        ("min(1, 2", "expression-syntax", (4, 1), "`(` is not closed"),
        ("(1 2)", "expression-syntax", (4, 1), "an operator is missing"),
        ("1)", "expression-syntax", (2, 1), "means nothing"),
        ("1 +", "expression-syntax", (3, 1), "ends too soon"),
        ("* 2", "expression-syntax", (1, 1), "expected a value"),
        ("and", "expression-syntax", (1, 3), "expected a value"),
        ("", "expression-syntax", (1, 1), "missing here"),
        ("'abc", "expression-syntax", (1, 4), "quote is not closed"),
        ("1e999", "expression-syntax", (1, 5), "too large"),
        ("9" * 5000, "expression-syntax", None, "at most"),
        ("1 min 2 h", "expression-syntax", (7, 3), "an operator is missing"),
    ],
)
def test_faults(text, code, at, words):
    problem = fault(text)
    assert problem.code == code
    assert words in f"{problem.message}; {problem.hint}"
    assert at is None or (problem.column, problem.length) == at


@pytest.mark.parametrize(
    ("text", "kwargs", "words"),
    [
        ("mixer.level", {"expect": "bool"}, "expected a condition (true or false), but `mixer.level` is a number"),
        ("mixer.inlet", {"expect": "number"}, "expected a number"),
        ("3", {"expect": "text"}, "a text is written in quotes"),
        ("20", {"unit": unit("L")}, "did you mean `20 L`?"),
        ("yes", {"expect": "bool"}, "true or false stands here: did you mean `true`?"),
        ("OFF", {"expect": "bool"}, "did you mean `false`?"),
        ("1", {"expect": "bool"}, "did you mean `true`?"),
        ("0", {"expect": "bool"}, "did you mean `false`?"),
        ("2", {"expect": "bool"}, "compare it with a value"),
        ("yes", {"expect": "text"}, 'a text is written in quotes: "yes"'),
        ("20 kg", {"unit": unit("L")}, "`20 kg` is a mass; a value in L, a volume, is expected"),
        ("20 kg", {"unit": NONE}, "a value without a unit is expected"),
        ("mixer.temp - mixer.jacket", {"unit": unit("°C")}, "a difference of temperatures"),
    ],
)
def test_what_is_expected(text, kwargs, words):
    problem = fault(text, **kwargs)
    assert words in f"{problem.message}; {problem.hint}"


def test_every_problem_is_reported_at_once():
    problems = Problems()
    text = "mixer.levl > 3 L and (foo or mixer.level > 3) and mixer.inlet > 2 and 1 kg < volume"
    assert compile_text(text, LINE, SCOPE, problems) is None
    assert [problem.code for problem in problems] == [
        "unknown-tag",
        "unknown-name",
        "missing-unit",
        "wrong-type",
        "wrong-unit",
    ]


def at(yaml, needle, line, scope=SCOPE):
    """The text under the caret of the one problem of `key`'s expression."""
    problems = Problems()
    root = parse_yaml(yaml, "r.yaml", problems)
    assert compile_expression(root.entries["key"].value, scope, problems) is None
    (problem,) = problems
    assert problem.line == line
    row = yaml.split("\n")[problem.line - 1]
    assert row[problem.column - 1 : problem.column - 1 + problem.length] == needle


def test_carets_point_into_the_file():
    at("key: mixer.level >= 20 kg\n", "20 kg", 1)
    at('key: "mixer.level >= 20 kg"\n', "20 kg", 1)
    at("key: '  label_ok == ''it'' and  mixer.levl > 0'\n", "mixer.levl", 1)
    at('key: "label_ok == \\"a\\u0062\\" and \\\n   mixer.levl > 0"\n', "mixer.levl", 2)
    at("key: mixer.level > 0 and\n\n   mixer.levl > 0\n", "mixer.levl", 3)
    at("key: >-\n  mixer.level > 0\n\n  and mixer.levl > 0\n", "mixer.levl", 4)
    at("key: |\n    mixer.level > 0\n    and mixer.levl > 0\n", "mixer.levl", 3)
    at("key: mixer.level >\n", ">", 1)
    at("x: 1\nkey: ''\n", "'", 2)


def test_a_node_that_is_no_text():
    problems = Problems()
    assert compile_expression(Node("list", LINE), SCOPE, problems) is None
    (problem,) = problems
    assert problem.message == "expected an expression, found a list"


def test_a_text_in_the_quotes_of_the_file_is_that_text_where_text_is_expected():
    for text, quoted, expect, result in (
        ("A12", True, "text", "A12"),
        ("label_ok", True, "text", "label_ok"),
        ("label_ok", False, "text", "yes"),
        ("'A12'", False, "text", "A12"),
        ("robot.state == 2", True, "bool", True),
    ):
        problems = Problems()
        made = compile_expression(Node("text", LINE, text, quoted), SCOPE, problems, expect=expect)
        assert made.code(TAGS, VARIABLES) == result
        assert not problems.errors


def test_what_an_expression_reads():
    made = compiled("mixer.inlet and mixer.level > volume and mixer.level < 90 L and good(mixer.temp)")
    assert made.tags == (0, 1, 4)
    assert made.variables == (0,)
    assert made.constant is None
    assert made.places[0] == Place("r.yaml", 1, 17, 11)
    assert made.text.startswith("mixer.inlet and")


def test_constants():
    assert compiled("2 * 10 L").constant == 20
    assert compiled("1 > 2").constant is False
    assert compiled("'a'").constant == "a"
    assert compiled("not false").constant is True
    assert compiled("true or mixer.inlet").constant is None
    assert compiled("mixer.level - mixer.level").constant is None


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("mixer.level", 0, 100),
        ("mixer.level + volume", 5, 150),
        ("mixer.level - volume", -50, 95),
        ("-mixer.level", -100, 0),
        ("mixer.level * 2", 0, 200),
        ("mixer.level * -2", -200, 0),
        ("mixer.level / volume", 0, 20),
        ("volume / mixer.level", 0.05, None),
        ("mixer.dose", None, None),
        ("min(mixer.dose, 5 L)", None, 5000),
        ("max(mixer.dose, 5 L)", 5000, None),
        ("clamp(mixer.dose, 1 L, 5 L)", 1000, 5000),
        ("abs(mixer.level - volume)", 0, 95),
        ("abs(mixer.dose)", 0, None),
        ("round(mixer.level / 3)", 0, 33),
        ("20 L", 20, 20),
    ],
)
def test_ranges(text, low, high):
    made = compiled(text)
    assert (made.low, made.high) == (low, high)


@pytest.mark.parametrize(
    ("text", "always", "warnings"),
    [
        ("mixer.level > 120 L", False, 1),
        ("mixer.level <= 100 L", True, 1),
        ("mixer.level < 100 L", None, 0),
        ("mixer.level > 100 L and mixer.inlet", False, 1),
        ("mixer.level > 100 L or mixer.inlet", None, 1),
        ("not mixer.level == -1 L", True, 1),
        ("mixer.inlet", None, 0),
        ("true or mixer.inlet", True, 0),
        ("1 > 2", False, 0),
        ("robot.state == 4000000000", False, 1),
    ],
)
def test_conditions_that_ranges_decide(text, always, warnings):
    problems = Problems()
    assert compile_text(text, LINE, SCOPE, problems).always is always
    assert problems.warnings == warnings
    assert not problems.errors


def test_such_a_warning_names_the_range():
    problems = Problems()
    compile_text("mixer.level > 120 L", LINE, SCOPE, problems)
    (problem,) = problems
    assert problem.message == "`mixer.level > 120 L` is never true: `mixer.level` is from 0 to 100 L"


def test_the_scope_of_a_cell():
    kinds = ("bool", "uint16", "uint16", "float32", "string[8]", "float64")
    scales = (None, None, Scale(0, 1000, 0, 500), None, None, None)
    tags = tuple(
        Tag(index, f"d.t{index}", 0, "", parse_type(kind), unit="mm/s" if scale else "", scale=scale, low=low, high=low)
        for index, (kind, scale, low) in enumerate(zip(kinds, scales, (None,) * 5 + (7.0,), strict=True))
    )
    scope = from_cell(Cell("c", "", 10_000_000, (), tags, {}, {}))
    found = [scope.symbols[f"d.t{index}"] for index in range(6)]
    assert [symbol.type for symbol in found] == ["bool", "number", "number", "number", "text", "number"]
    assert [(symbol.low, symbol.high) for symbol in found] == [
        (None, None),
        (0, 65535),
        (0, 32767.5),
        (None, None),
        (None, None),
        (7, 7),
    ]
    assert found[2].unit == unit("mm/s")
    assert TYPES["uint16"].high == 65535
    wider = scope.with_variables({"volume": number("variable", 0)})
    assert set(wider.symbols) == {*scope.symbols, "volume"}
    assert "volume" not in scope.symbols
    assert {"and", "true", "min", "good"} <= RESERVED


# Three-valued logic.


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("false and mixer.inlet", False),
        ("mixer.inlet and false", False),
        ("true and mixer.inlet", None),
        ("true or mixer.inlet", True),
        ("mixer.inlet or true", True),
        ("false or mixer.inlet", None),
        ("not mixer.inlet", None),
        ("mixer.inlet == true", None),
        ("mixer.level > 3 L", None),
        ("mixer.level - mixer.level", None),
        ("mixer.level * 0", None),
        ("min(mixer.level, 3 L)", None),
        ("-mixer.level", None),
        ("abs(mixer.level)", None),
        ("clamp(volume, mixer.level, 5 L)", None),
        ("good(mixer.level)", False),
        ("not good(mixer.level) or mixer.level > 3 L", True),
        ("conveyor.lot == 'x'", None),
        ("label_ok != 'x'", None),
    ],
)
def test_a_bad_value_is_unknown(text, result):
    assert value(text, [None] * 10, [20, None, None, None]) is result


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("1 / robot.state", {3: 0}),
        ("1 / robot.state > 3", {3: 0}),
        ("mixer.level * mixer.level", {0: 1e200}),
        ("mixer.level * mixer.level > 3 L * 3 L", {0: 1e200}),
        ("mixer.dose + mixer.dose", {6: 1.7e308}),
        ("mixer.dose - -1 * mixer.dose", {6: -1.7e308}),
        ("1 / (mixer.dose * mixer.dose)", {6: 1e200}),
        ("min(mixer.dose * mixer.dose, mixer.dose * 1 mL)", {6: 1e200}),
        ("1 L / mixer.level", {0: 5e-324}),
        ("mixer.level > mixer.dose * 1e300", {6: 1e200}),
    ],
)
def test_what_has_no_finite_value_is_unknown(text, tags):
    assert value(text, [tags.get(index, tag) for index, tag in enumerate(TAGS)]) is None


# Any expression against a walk over its tree.

SYMBOLS = {
    "d.b0": Symbol("tag", 0, "bool"),
    "d.b1": Symbol("tag", 1, "bool"),
    "d.i0": Symbol("tag", 2, "number", NONE, -(2**63), 2**63 - 1, whole=True),
    "d.i1": Symbol("tag", 3, "number", NONE, 0, 10, whole=True),
    "d.f0": Symbol("tag", 4, "number"),
    "d.f1": Symbol("tag", 5, "number", NONE, -1, 1),
    "d.s0": Symbol("tag", 6, "text"),
    "x": Symbol("variable", 0, "number", NONE, 1, 2),
    "y": Symbol("variable", 1, "bool"),
    "z": Symbol("variable", 2, "text"),
}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TAG_VALUES = st.tuples(
    *(
        st.none() | values
        for values in (
            st.booleans(),
            st.booleans(),
            st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2),
            st.integers(0, 10),
            FINITE | st.integers(-3, 3).map(float),
            st.floats(-1, 1),
            st.sampled_from(["a", "b", ""]),
        )
    )
)
VARIABLE_VALUES = st.tuples(st.none() | st.floats(1, 2), st.none() | st.booleans(), st.none() | st.sampled_from("ab"))


def binary(operators, inner):
    return st.tuples(inner, st.sampled_from(operators), inner).map(" ".join).map("({})".format)


def called(name, count, inner):
    return st.lists(inner, min_size=count, max_size=count).map(lambda parts: f"{name}({', '.join(parts)})")


literals = st.sampled_from(["0", "1", "2", "0.5", "-3", "1e300", "9223372036854775807", "0.1"])
numbers = st.recursive(
    st.sampled_from(["d.i0", "d.i1", "d.f0", "d.f1", "x"]) | literals,
    lambda inner: (
        binary("+-*/", inner)
        | inner.map("-{}".format)
        | called("min", 2, inner)
        | called("max", 3, inner)
        | called("abs", 1, inner)
        | called("round", 1, inner)
        | called("clamp", 3, inner)
        | st.lists(inner, min_size=2, max_size=5).map(" - ".join)
    ),
    max_leaves=6,
)
texts = st.sampled_from(["d.s0", "z", "'a'", '"b"'])
conditions = st.recursive(
    st.sampled_from(["d.b0", "d.b1", "y", "true", "false", "good(d.f0)"])
    | binary(["==", "!=", "<", "<=", ">", ">="], numbers)
    | binary(["==", "!="], texts),
    lambda inner: (
        binary(["and", "or", "==", "!="], inner)
        | inner.map("not {}".format)
        | st.lists(inner, min_size=2, max_size=4).map(" and ".join)
        | st.lists(inner, min_size=2, max_size=4).map(" or ".join)
    ),
    max_leaves=6,
)
COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def nearest(x):
    """By decimals, which are exact."""
    return int(Decimal(x).quantize(Decimal(1), ROUND_HALF_UP, Context(prec=400)))


CALLS = {"min": min, "max": max, "abs": abs, "round": nearest, "clamp": lambda x, low, high: max(low, min(x, high))}


def finite(compute):
    try:
        result = compute()
        return result if math.isfinite(result) else None
    except (ZeroDivisionError, OverflowError):
        return None


def walk(tree: Tree, tags, variables):
    """What a tree is by the rules alone, one node at a time."""
    if tree.kind in ("number", "text", "bool"):
        return tree.value
    if tree.kind == "name" or tree.value == "good":
        symbol = SYMBOLS[tree.value if tree.kind == "name" else tree.args[0].value]
        found = (tags if symbol.kind == "tag" else variables)[symbol.index]
        return found if tree.kind == "name" else found is not None
    args = [walk(arg, tags, variables) for arg in tree.args]
    if tree.kind in ("and", "or"):
        decides = tree.kind == "or"
        return decides if any(arg is decides for arg in args) else None if None in args else not decides
    if None in args:
        return None
    match tree.kind:
        case "not":
            return not args[0]
        case "negative":
            return -args[0]
        case "compare":
            return COMPARE[tree.ops[0]](*args)
        case "call":
            return CALLS[tree.value](*args)
    total = args[0]
    for op, arg in zip(tree.ops, args[1:], strict=True):
        apply = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[op]
        left = total
        total = finite(lambda apply=apply, left=left, arg=arg: apply(left, arg))
        if total is None:
            return None
    return total


@given(numbers | conditions, TAG_VALUES, VARIABLE_VALUES)
@example("d.i0 - 1 == d.f0", (None, None, 2**63 - 1, 0, 2.0**63, 0.0, "a"), (1.0, True, "a"))
def test_compiled_code_agrees_with_a_walk_over_the_tree(text, tags, variables):
    problems = Problems()
    made = compile_text(text, LINE, Scope(SYMBOLS), problems)
    if made is None:
        assert {problem.code for problem in problems if problem.severity == "error"} == {"no-value"}
        assume(False)
    expected = walk(parse(text), tags, variables)
    result = made.code(tags, variables)
    assert result == expected
    assert type(result) is type(expected)
    if made.constant is not None:
        assert result == made.constant
    if isinstance(result, bool):
        assert made.always in (None, result)
    elif result is not None:
        assert made.low is None or made.low <= result
        assert made.high is None or result <= made.high
        assert not made.whole or result == int(result)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("d.i0", True),
        ("d.f0", False),
        ("x", False),
        ("d.i0 + 2 * d.i1 - abs(-d.i1)", True),
        ("max(d.i0, min(d.i1, 3), clamp(d.i0, 0, 9))", True),
        ("d.i0 / 2", False),
        ("d.i0 * 0.5", False),
        ("max(d.i0, 0.5)", False),
        ("d.i0 + d.f0", False),
        ("round(d.f0 / 2) + 1", True),
        ("6 / 2", True),
    ],
)
def test_what_is_sure_to_be_whole(text, whole):
    assert compiled(text, Scope(SYMBOLS)).whole is whole


def test_a_whole_number_in_another_unit_may_not_be_whole():
    scope = Scope({"d.a": Symbol("tag", 0, "number", unit("mL"), whole=True)})
    assert compiled("d.a", scope, unit=unit("mL")).whole
    assert not compiled("d.a", scope, unit=unit("L")).whole
    assert compiled("d.a", scope, unit=unit("µL")).whole


UNITS = ["L", "mL", "m3", "hL", "cm3"]


@given(
    st.sampled_from(UNITS), st.sampled_from(UNITS), st.sampled_from(UNITS), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)
)
def test_units_are_converted_wherever_they_meet(first, second, third, a, b):
    scope = Scope({"d.a": number("tag", 0, first), "d.b": number("tag", 1, second)})
    code = compiled("d.a + d.b", scope, unit=unit(third)).code
    exact = convert(a, unit(first), unit(third)) + convert(b, unit(second), unit(third))
    size = abs(convert(a, unit(first), unit(third))) + abs(convert(b, unit(second), unit(third)))
    assert code((a, b), ()) == pytest.approx(exact, abs=1e-12 * size + 1e-300)
    assert compiled(f"d.a <= {abs(a)!r} {first}", scope).code((a, b), ()) is True


SOUP = """
mixer.level volume mixer.temp mixer.inlet label_ok robot.state 1 2.5 20 L kg °C K % mm/s 1/min rpm true false and or
not + - * / == != < <= > >= ( ) , min( max( abs( round( clamp( good( 'a' "b" ' 0 1e308 1e-308 = ! ; # h s 30
rising( falling( stable( average( age( elapsed pause span , 2 s , 0.1 L
"""
WORDS = st.sampled_from([*SOUP.split(), "\n"])


@given(
    st.text(max_size=60) | st.lists(WORDS, max_size=14).map(" ".join) | st.lists(WORDS, max_size=8).map("".join),
    st.sampled_from([None, "step", "batch", "interlock"]),
)
def test_any_text_is_code_or_problems(text, scope):
    problems = Problems()
    memory = Memory(len(VARIABLES), len(TAGS))
    made = compile_text(text, LINE, SCOPE, problems, use=None if scope is None else Use(memory, scope))
    assert (made is None) == (problems.errors > 0)
    for problem in problems:
        assert 1 <= problem.column <= len(text) + 1
        assert problem.length >= 1
        assert "\n" not in problem.message
    if made is not None:
        results = [None] * len(memory.blocks)
        for tags, variables in ((TAGS, VARIABLES), ([None] * len(TAGS), [None] * len(VARIABLES))):
            for code in [made.code, *(block.input for block in made.blocks if block.input)]:
                code([*tags, *tags], [*variables, *results])
        describe(made.unit)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000,
        "not " * 10_000,
        "-" * 10_000,
        "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
        "min(" * 100 + "1",
        " + ".join(["1"] * MAX_TOKENS),
        "x" * 100_000,
        "1" + "0" * 50,
    ],
    ids=["(", "not", "-", "depth", "calls", "tokens", "characters", "digits"],
)
def test_size_is_bounded(text):
    assert fault(text).code == "expression-syntax"


def test_what_is_within_the_bounds_works():
    assert value(" + ".join(["robot.state"] * (MAX_TOKENS // 2))) == MAX_TOKENS
    assert value(" and ".join(["mixer.inlet"] * (MAX_TOKENS // 2))) is True
    depth = MAX_DEPTH - 2
    assert value("(" * depth + "robot.state" + ")" * depth) == 2
    assert value("-" * depth + "robot.state") == 2


# Where ranges have no end, and what is told of them.


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("max(mixer.dose, 1 mL) * 2", 2, None),
        ("max(mixer.dose, 1 mL) * -2", None, -2),
        ("max(mixer.dose, 1 mL) * mixer.dose", None, None),
        ("max(mixer.dose, 0 mL) * max(mixer.dose, 1 mL)", 0, None),
        ("10 mL / max(mixer.dose, 2 mL)", 0, 5),
        ("-10 mL / max(mixer.dose, 2 mL)", -5, 0),
        ("max(mixer.dose, 2 mL) / 2 mL", 1, None),
        ("max(mixer.dose, 1 mL) / max(mixer.dose, 1 mL)", 0, None),
        ("volume / mixer.level", 0.05, None),
        ("(volume - 60 L) / mixer.level", None, -0.1),
        ("(volume - 20 L) / mixer.level", None, None),
        ("volume / -mixer.level", None, -0.05),
        ("volume / (mixer.level - volume)", None, None),
        ("volume / max(mixer.dose, 0 mL)", 0, None),
        ("clamp(volume, 10 L, 100 L)", 10, 50),
        ("clamp(mixer.level, volume, 60 L)", 5, 60),
        ("abs(min(mixer.dose, -3 mL))", 3, None),
        ("abs(-volume)", 5, 50),
        ("max(mixer.dose, 1 mL) - mixer.level", -99999, None),
    ],
)
def test_ranges_without_an_end(text, low, high):
    made = compiled(text)
    assert (made.low, made.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("volume / mixer.level", "may-be-zero", "`mixer.level` may be 0"),
        ("volume / (mixer.level - 1 L)", "may-be-zero", "divide by `max((mixer.level - 1 L), …)`"),
        ("mixer.level / volume", None, ""),
        ("volume / mixer.dose", None, ""),
        ("volume / max(mixer.level, 1 L)", None, ""),
        ("mixer.level / 2", None, ""),
        ("whole.state == 2.5", "never-true", "`whole.state` is a whole number"),
        ("2.5 != whole.state", "always-true", "`whole.state` is a whole number"),
        ("whole.state == 2.0", None, ""),
    ],
)
def test_warnings(text, code, words):
    scope = Scope({**SCOPE.symbols, "whole.state": Symbol("tag", 3, "number", NONE, 0, 9, whole=True)})
    problems = Problems()
    assert compile_text(text, LINE, scope, problems)
    assert [problem.code for problem in problems] == ([code] if code else [])
    assert all(words in f"{problem.message}; {problem.hint}" for problem in problems)


PARTS = st.recursive(
    st.sampled_from(["mixer.level > 3 L", "mixer.inlet", "elapsed > 3 s", "age(mixer.level) < 1 s", "volume > 9 L"]),
    lambda inner: (
        st.builds("{}({})".format, st.sampled_from(["rising", "falling"]), inner)
        | st.builds("stable({}, {})".format, inner, st.sampled_from(["2 s", "span", "500 ms", "span * 2"]))
        | st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner)
        | st.sampled_from(["average(mixer.level, span) > 2 L", "stable(mixer.level - volume, 2 s, 1 L)"])
    ),
    max_leaves=5,
)


@given(PARTS)
def test_a_function_block_comes_after_those_that_its_input_asks(text):
    memory = Memory(len(VARIABLES), len(TAGS))
    made = compile_text(text, LINE, SCOPE, Problems(), use=Use(memory, "step"))
    assert made is not None
    assert list(made.blocks) == memory.blocks
    results = {block.result for block in made.blocks}
    assert results == set(range(len(VARIABLES), len(VARIABLES) + len(made.blocks)))
    seen = []
    for block in made.blocks:  # what an input reads was called before it
        asked = _Noted([*VARIABLES, *[None] * len(made.blocks)])
        if block.input is not None:
            block.input([*TAGS, *TAGS], asked)
        assert {index for index in asked.read if index >= len(VARIABLES)} <= set(seen)
        seen.append(block.result)


class _Noted(list):
    """A list that notes which of its items are read."""

    def __init__(self, items):
        super().__init__(items)
        self.read = set()

    def __getitem__(self, index):
        self.read.add(index)
        return super().__getitem__(index)
