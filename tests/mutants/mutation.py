"""The faults that are put into a module: each changes one place of its syntax tree."""

import ast
from collections.abc import Iterator
from copy import deepcopy
from typing import NamedTuple


class Mutant(NamedTuple):
    """A module with one fault; `what` says it in a line."""

    line: int
    what: str
    tree: ast.Module


COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift,
}  # fmt: skip


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its lines. Texts for people's eyes (docstrings, types) stay."""
    tree = ast.parse(source)
    places = list(_places(tree))
    for number, node in enumerate(places):
        for what, change in _changes(node):
            mutated = deepcopy(tree)
            twin = list(_places(mutated))[number]
            replacement = change(twin)
            if replacement is not twin:
                mutated = _Put(twin, replacement).visit(mutated)
            line = getattr(node, "lineno", 0)
            yield Mutant(line, f"{what}: {ast.unparse(node).splitlines()[0][:90]}", ast.fix_missing_locations(mutated))


class _Put(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old = old
        self.new = new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def _places(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that may be changed, in the order of the source."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "bases", "keywords") and not isinstance(node, ast.Call):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Import | ast.ImportFrom):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            if isinstance(child, ast.JoinedStr) or _is_cast(child) or _is_alias(child):
                continue
            yield child
            yield from _places(child)


def _is_cast(node: ast.AST) -> bool:
    """A type for the checker, or a text in the languages of the floor, whose words no test fixes."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("cast", "TypeVar")


def _is_alias(node: ast.AST) -> bool:
    """`Writes = dict[str, Node]`: a name for a type."""
    value = node.value if isinstance(node, ast.Assign) else None
    return isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name) and value.value.id in (
        "dict", "tuple", "list", "Callable", "Literal", "Sequence",
    )  # fmt: skip


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    match node:
        case ast.Compare():
            for at, operator in enumerate(node.ops):
                if type(operator) in COMPARED:
                    yield "compares otherwise", lambda twin, at=at: _compared(twin, at)
        case ast.BoolOp():
            yield (
                "and/or",
                lambda twin: ast.BoolOp(ast.Or() if isinstance(twin.op, ast.And) else ast.And(), twin.values),
            )
        case ast.UnaryOp(op=ast.Not()):
            yield "without not", lambda twin: twin.operand
        case ast.UnaryOp(op=ast.USub()):
            yield "without -", lambda twin: twin.operand
        case ast.BinOp() if type(node.op) in CALCULATED:
            yield "calculates otherwise", lambda twin: ast.BinOp(twin.left, CALCULATED[type(twin.op)](), twin.right)
        case ast.Constant():
            yield from _constant(node)
        case ast.IfExp():
            yield "the other way", lambda twin: ast.IfExp(twin.test, twin.orelse, twin.body)
        case ast.If() | ast.While() if isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
            yield "if not", _untrue
        case ast.Return() if node.value is not None and not isinstance(node.value, ast.Constant):
            yield "gives None", lambda twin: ast.Return(ast.Constant(None))
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Delete() | ast.Break() | ast.Continue() | ast.Raise():
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                yield "left out", lambda twin: ast.copy_location(ast.Pass(), twin)
        case _:
            pass


def _constant(node: ast.Constant) -> Iterator[tuple[str, object]]:
    value = node.value
    if isinstance(value, bool):
        yield f"{value} turned", lambda twin: ast.Constant(not twin.value)
    elif isinstance(value, int | float):
        yield f"{value} + 1", lambda twin: ast.Constant(twin.value + 1)
    elif isinstance(value, str) and value:
        yield "another text", lambda twin: ast.Constant(f"X{twin.value}")
    elif value is None:
        yield "1 for None", lambda twin: ast.Constant(1)


def _compared(twin: ast.Compare, at: int) -> ast.Compare:
    twin.ops[at] = COMPARED[type(twin.ops[at])]()
    return twin


def _untrue(twin: ast.If | ast.While) -> ast.AST:
    twin.test = ast.UnaryOp(ast.Not(), twin.test)
    return twin
