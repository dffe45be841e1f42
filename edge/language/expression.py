"""Expressions: text -> tree -> checked type, unit and range -> one compiled Python function over the process image.

Logic is three-valued (Kleene): a bad value is unknown (None), what is computed or compared with it is unknown, but
`false and unknown` is false and `true or unknown` true. A division by zero or an overflow is unknown too.
Arithmetic is that of IEC 61131-3's LREAL, exact while all values are whole numbers.
"""

from collections.abc import Mapping

import msgspec

from drivers.value import Value, from_raw
from edge.language.calls import ARGUMENTS, ELAPSED, Calls, Use
from edge.language.cell import Cell, Tag
from edge.language.grammar import KEYWORDS, SyntaxFault, Tree, parse
from edge.language.program import Code, FunctionBlock
from edge.language.source import Node, Place, Problems, origin
from edge.language.terms import Locate, Symbol, Type
from edge.language.units import Unit
from edge.language.units import parse as parse_unit

RESERVED = frozenset({*KEYWORDS, *ARGUMENTS, ELAPSED})
"""Names that no variable can have."""


class Scope:
    """The names that an expression may use. `runs`: what is compiled may run; False: it is checked, and has no code."""

    def __init__(self, symbols: Mapping[str, Symbol], *, runs: bool = True) -> None:
        self.symbols = dict(symbols)
        self.runs = runs

    def with_variables(self, variables: Mapping[str, Symbol]) -> "Scope":
        """These names and more."""
        return Scope({**self.symbols, **variables}, runs=self.runs)


def from_cell(cell: Cell, *, runs: bool = True) -> Scope:
    """The tags of a cell, each with its type, unit and range."""
    return Scope({tag.name: _symbol(tag) for tag in cell.tags}, runs=runs)


def _symbol(tag: Tag) -> Symbol:
    if tag.type.kind in ("bool", "string"):
        return Symbol("tag", tag.index, "bool" if tag.type.kind == "bool" else "text")
    low, high = tag.low, tag.high
    if tag.type.kind == "int":
        ends = [from_raw(end, tag.scale) for end in (tag.type.low, tag.type.high)]
        bounds = sorted(end for end in ends if isinstance(end, int | float))
        low, high = bounds[0] if low is None else low, bounds[-1] if high is None else high
    whole = tag.type.kind == "int" and tag.scale is None
    return Symbol("tag", tag.index, "number", parse_unit(tag.unit), low, high, whole)


class Compiled(msgspec.Struct, frozen=True):
    """A checked expression.

    `low` and `high` bound a number, `always` is what a condition is, while every tag is in its range; None: not known.
    `whole`: a number that is sure to be whole. `certain`: it is never unknown.
    `constant` is its value where it reads nothing. `tags` and `variables` are what it reads, `places` where it first
    reads each tag; `ages` are the tags whose age it asks for, `blocks` its function blocks, each after those that its
    input asks.
    """

    code: Code
    type: Type
    unit: Unit
    low: float | None
    high: float | None
    whole: bool
    always: bool | None
    constant: Value | None
    tags: tuple[int, ...]
    variables: tuple[int, ...]
    places: dict[int, Place]
    text: str
    certain: bool = False
    ages: tuple[int, ...] = ()
    blocks: tuple[FunctionBlock, ...] = ()


def compile_expression(
    node: Node,
    scope: Scope,
    problems: Problems,
    *,
    expect: Type | None = None,
    unit: Unit | None = None,
    use: Use | None = None,
) -> Compiled | None:
    """A node's text as code, its result in `unit` where one is given; None, with every problem added, if it is wrong.

    Where text is expected, a scalar in YAML's quotes is that text. Without a `use` it can have no memory.
    """
    if node.kind != "text":
        hint = "put it in quotes if it is meant as text" if node.kind == "map" else ""
        return problems.error(node, "not-expression", f"expected an expression, found a {node.kind}", hint)
    if expect == "text" and node.quoted:
        tree = Tree("text", 0, len(node.text), node.text)
        return _compile(node.text, tree, scope, problems, lambda at, length: node.place, expect, unit, use)

    def locate(at: int, length: int) -> Place:
        return origin(node, at, length, problems)

    try:
        tree = parse(node.text)
    except SyntaxFault as fault:
        place = locate(fault.start, fault.end - fault.start)
        return problems.error(place, "expression-syntax", fault.message, fault.hint)
    return _compile(node.text, tree, scope, problems, locate, expect, unit, use)


def _compile(
    text: str,
    tree: Tree,
    scope: Scope,
    problems: Problems,
    locate: Locate,
    expect: Type | None,
    unit: Unit | None,
    use: Use | None,
) -> Compiled | None:
    checker = Calls(text, scope.symbols, problems, locate, use=use, runs=scope.runs)
    result = checker.check(tree, expect)
    if result is None or not checker.is_expected(result, expect):
        return None
    if unit is not None and result.type == "number" and (result := checker.in_unit(result, unit)) is None:
        return None
    is_bool = result.type == "bool"
    return Compiled(
        code=checker.code(result),
        type=result.type,
        unit=result.unit,
        low=None if is_bool else result.low,
        high=None if is_bool else result.high,
        whole=result.whole,
        always=bool(result.low) if is_bool and result.low == result.high else None,
        constant=result.constant,
        tags=tuple(sorted(checker.tags)),
        variables=tuple(sorted(checker.variables)),
        places=checker.tags,
        text=text,
        certain=result.certain,
        ages=tuple(sorted(checker.ages)),
        blocks=tuple(checker.blocks),
    )
