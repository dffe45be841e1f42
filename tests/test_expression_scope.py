"""What an expression knows of its cell's tags, and what is no expression at all."""

from pathlib import Path

import pytest

from edge.language.cell_file import load_cell
from edge.language.expression import compile_expression, from_cell
from edge.language.source import Problems, load

CELL = """
cell: bench
devices: {plc: {driver: modbus, host: 127.0.0.1, every: 100 ms}}
tags:
  plc:
    count: {at: "input:0", type: int16}
    scaled: {at: "input:1", type: uint16, unit: L, scale: [0, 1000, 100, 0]}
    narrow: {at: "input:2", type: int16, range: [1, 9]}
    level: {at: "input:3", type: float32, unit: L}
    label: {at: "holding:1", type: "string[4]"}
    ready: {at: "discrete:0", type: bool}
"""


@pytest.fixture
def cell(tmp_path: Path):
    (tmp_path / "cell.yaml").write_text(CELL, encoding="utf-8")
    problems = Problems()
    loaded = load_cell(tmp_path / "cell.yaml", problems)
    assert loaded is not None and not problems.errors
    return loaded.cell


def test_each_tag_has_the_type_range_and_wholeness_of_its_own(cell) -> None:
    known = {
        name: (symbol.type, symbol.low, symbol.high, symbol.whole) for name, symbol in from_cell(cell).symbols.items()
    }
    assert known["plc.count"] == ("number", -32768, 32767, True)
    assert known["plc.scaled"] == ("number", pytest.approx(100 - 6553.5), pytest.approx(100), False)
    assert known["plc.narrow"] == ("number", 1, 9, True)
    assert known["plc.level"] == ("number", None, None, False)
    assert known["plc.label"][0] == "text" and known["plc.ready"][0] == "bool"


@pytest.mark.parametrize(
    ("written", "kind", "hint"),
    [("{a: b}", "map", "put it in quotes if it is meant as text"), ("[a, b]", "list", "")],
)
def test_what_is_no_scalar_is_no_expression(cell, tmp_path: Path, written: str, kind: str, hint: str) -> None:
    (tmp_path / "one.yaml").write_text(f"x: {written}\n", encoding="utf-8")
    problems = Problems()
    node = load(tmp_path / "one.yaml", problems)
    assert node is not None and compile_expression(node.entries["x"].value, from_cell(cell), problems) is None
    (problem,) = list(problems)
    assert (problem.code, problem.hint) == ("not-expression", hint) and f"found a {kind}" in problem.message


def test_an_expression_that_is_only_checked_does_not_run(cell, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("x: plc.ready\n", encoding="utf-8")
    node = load(tmp_path / "one.yaml", Problems())
    assert node is not None
    values = [True] * len(cell.tags)
    runs = compile_expression(node.entries["x"].value, from_cell(cell), Problems())
    checked = compile_expression(node.entries["x"].value, from_cell(cell, runs=False), Problems())
    assert runs is not None and runs.code(values, []) is True
    assert checked is not None
    with pytest.raises(RuntimeError, match="only checked"):
        checked.code(values, [])
