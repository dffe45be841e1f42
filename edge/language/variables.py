"""The variables that steps with `let` set: what each is, and the range of all that it is set to."""

from collections.abc import Sequence

from msgspec.structs import replace

from edge.language.calls import Memory, Use
from edge.language.expression import Compiled, Scope, compile_expression
from edge.language.source import Node, Problems
from edge.language.terms import Symbol, Type

_TURNS = 2
"""After so many turns an end that still moves has no end: it is set from itself, in a loop."""


def loop_variable(values: Sequence[Compiled]) -> Symbol:
    """The variable of a loop that has these values in turn, of one type and unit; its index is not told yet."""
    first, lows, highs = values[0], [one.low for one in values], [one.high for one in values]
    low = None if None in lows else min(end for end in lows if end is not None)
    high = None if None in highs else max(end for end in highs if end is not None)
    return Symbol("variable", -1, first.type, first.unit, low, high, all(one.whole for one in values))


def loop_variables(loops: Sequence[tuple[str, Sequence[Node]]], scope: Scope, tags: int) -> dict[str, Symbol]:
    """The variables of loops by their names and values, as far as they can be told; nothing is reported."""
    known = Scope(scope.symbols, runs=False)
    found: dict[str, Symbol] = {}
    for name, nodes in loops:
        values: list[Compiled] = []
        for node in nodes:
            kind: Type | None = "text" if node.quoted else None
            made = compile_expression(node, known, Problems(), expect=kind, use=Use(Memory(0, tags)))
            values += [made] if made is not None else []
        if values and name not in scope.symbols:
            found[name] = replace(loop_variable(values), low=None, high=None)
    return found


def set_variables(lets: Sequence[tuple[str, Node]], scope: Scope, tags: int) -> dict[str, Symbol]:
    """The variables that have these names and expressions, in the order of the file, as far as they can be told.

    Type and unit are those of the first expression that is sound. Nothing is reported: each is compiled again where it
    stands. The symbols' indices are their places here.
    """
    known = Scope(scope.symbols, runs=False)
    found: dict[str, Symbol] = {}
    turn, changed = 0, bool(lets)
    while changed:
        changed = False
        for name, node in lets:
            if name in scope.symbols:
                continue
            old = found.get(name)
            unit = None if old is None else old.unit
            made = compile_expression(node, known, Problems(), unit=unit, use=Use(Memory(0, tags)))
            if made is None or (old is not None and old.type != made.type):
                continue
            new = _symbol(made) if old is None else _joined(old, made, wide=turn >= _TURNS)
            if new != old:
                found[name] = known.symbols[name] = new
                changed = True
        turn += 1
    return {name: replace(symbol, index=index) for index, (name, symbol) in enumerate(found.items())}


def _symbol(made: Compiled) -> Symbol:
    low, high = (made.low, made.high) if made.type == "number" else (None, None)
    return Symbol("variable", -1, made.type, made.unit, low, high, made.whole)


def _joined(old: Symbol, made: Compiled, *, wide: bool) -> Symbol:
    """What may be the one or the other."""
    if made.type != "number":
        return old
    low, high = old.low, old.high
    if low is not None and (made.low is None or made.low < low):
        low = None if wide else made.low
    if high is not None and (made.high is None or made.high > high):
        high = None if wide else made.high
    return replace(old, low=low, high=high, whole=old.whole and made.whole)
