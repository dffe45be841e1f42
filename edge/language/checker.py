"""The type, unit and range of every part of an expression, and its code: one assignment for each part.

What is calculated is in `quantities.py`, the functions are in `calls.py`.
"""

import re
from abc import abstractmethod
from typing import Literal

from edge.language.arithmetic import verdict_of
from edge.language.grammar import Tree
from edge.language.quantities import Quantities
from edge.language.source import suggest, tick
from edge.language.terms import WORDS, Symbol, Term, Type, constant
from edge.language.units import NONE
from edge.language.units import parse as parse_unit

_BOOLS = {"yes": "true", "on": "true", "open": "true", "no": "false", "off": "false", "closed": "false"}


class Checker(Quantities):
    """Checks a tree from its leaves up and writes one assignment for each part that is no constant."""

    def check(self, tree: Tree, expect: Type | None = None) -> Term | None:
        """A part with its type, unit and range, or None where it is wrong; `expect` helps to say what was meant."""
        match tree.kind:
            case "number":
                return self._number(tree)
            case "text":
                return Term(repr(tree.value), "text", tree, constant=tree.value, certain=True)
            case "bool":
                return self._bool(tree)
            case "name":
                return self._name(tree, expect)
            case "call":
                return self._call(tree)
            case "compare":
                return self._compare(tree)
            case "sum" | "product":
                return self._arithmetic(tree)
            case "negative":
                return self._minus(tree)
            case "not" | "and" | "or":
                return self._logic(tree)

    def _number(self, tree: Tree) -> Term | None:
        value = tree.value
        assert isinstance(value, int | float)
        try:
            unit = parse_unit(tree.unit)
        except ValueError as error:
            if tree.unit in self._symbols:
                hint = f"did you mean `{value} * {tree.unit}`?"
            elif any(part in self._symbols for part in re.split("[/*]", tree.unit)):
                hint = "put spaces around `/` and `*` to divide and multiply"
            elif not (hint := str(error).partition(": ")[2]):
                hint = "a unit stands after its number, without spaces in it: `200 mm/s`"
            return self._error(tree, "unknown-unit", str(error).partition(": ")[0], hint)
        return constant(value, tree, unit, bare=not tree.unit)

    def _bool(self, tree: Tree) -> Term:
        value = bool(tree.value)
        return Term(repr(value), "bool", tree, NONE, value, value, value, certain=True)

    @abstractmethod
    def _call(self, tree: Tree) -> Term | None:
        """A function with its arguments."""

    def _name(self, tree: Tree, expect: Type | None = None) -> Term | None:
        symbol = self._symbol(tree, expect)
        if symbol is None:
            return None
        low, high = (0, 1) if symbol.type == "bool" else (symbol.low, symbol.high)
        if not symbol.whole and symbol.type == "number":  # as its values are
            low, high = low if low is None else float(low), high if high is None else float(high)
        ref = self._loaded("v" if symbol.kind == "tag" else "p", symbol.index)
        return Term(ref, symbol.type, tree, symbol.unit, low, high, whole=symbol.whole)

    def _loaded(self, of: Literal["v", "p"], index: int) -> str:
        """The name in the code of a tag's value (of `v`) or of a variable (of `p`)."""
        name = f"{of}{index}"
        self._loads[name] = f"{of}[{index}]"
        return name

    def _symbol(self, tree: Tree, expect: Type | None = None) -> Symbol | None:
        """What a name stands for, which is read here."""
        name = str(tree.value)
        symbol = self._symbols.get(name)
        if symbol is None:
            hint = suggest(name, self._symbols)
            if name.casefold() in ("true", "false"):
                hint = f"did you mean `{name.casefold()}`?"
            if expect == "bool" and (meant := _BOOLS.get(name.casefold())):
                hint = f"true or false stands here: did you mean `{meant}`?"
            if "." in name:
                return self._error(tree, "unknown-tag", f"no tag {tick(name)}", hint)
            if not hint and expect in (None, "text"):
                hint = f'a text is written in quotes: "{name[:40]}"'
            return self._error(tree, "unknown-name", f"no parameter or variable {tick(name)}", hint)
        if symbol.kind == "tag":
            self.tags.setdefault(symbol.index, self._place(tree))
        else:
            self.variables.add(symbol.index)
        return symbol

    # Logic and comparison.

    def _logic(self, tree: Tree) -> Term | None:
        terms = self._checked(tree.args, "bool")
        if terms is None:
            return None
        lows, highs = [term.low or 0 for term in terms], [1 if term.high is None else term.high for term in terms]
        certain = all(term.certain for term in terms)
        if tree.kind == "not":
            term = Term("", "bool", tree, NONE, 1 - highs[0], 1 - lows[0], certain=certain)
            return self._made(_unless_unknown(terms, f"not {terms[0].ref}"), term, terms)
        decides, pick = ("False", min) if tree.kind == "and" else ("True", max)
        term = Term("", "bool", tree, NONE, pick(lows), pick(highs), certain=certain)
        decided = " or ".join(f"{part.ref} is {decides}" for part in terms)
        other = "True" if tree.kind == "and" else "False"
        return self._made(f"{decides} if {decided} else {_unless_unknown(terms, other)}", term, terms)

    def _unkept(self, tree: Tree) -> bool:
        """Reports a name beside a text that is like none: an answer that no `into` keeps."""
        if not any(part.kind == "text" for part in tree.args):
            return False
        names = {str(part.value): part for part in tree.args if part.kind == "name"}
        for name, part in names.items():
            if name not in self._symbols and "." not in name and not suggest(name, self._symbols):
                hint = f"add `into: {name}` to the `ask` or `first` that gives it"
                self._error(part, "unknown-name", f"no parameter or variable {tick(name)}", hint)
                return True
        return False

    def _compare(self, tree: Tree) -> Term | None:
        op = tree.ops[0]
        if self._unkept(tree):
            return None
        terms = self._checked(tree.args, None)
        if terms is None:
            return None
        a, b = terms
        if a.type != b.type:
            message = f"{self._said(a.tree)} is {WORDS[a.type]}, but {self._said(b.tree)} is {WORDS[b.type]}"
            return self._error(tree, "wrong-type", message, "only values of one type can be compared")
        if a.type != "number" and op not in ("==", "!="):
            return self._error(tree, "wrong-type", f"`{op}` compares numbers only", "write `==` or `!=`")
        verdict = None
        if a.type == "number":
            aligned = self._aligned([a, b])
            if aligned is None:
                return None
            a, b = aligned
            verdict = verdict_of(op, (a.low, a.high), (b.low, b.high))
            if verdict is not None and None in (a.constant, b.constant):
                self._decided(tree, a if a.constant is None else b, verdict)
            if verdict is None and op in ("==", "!=") and (whole := _only_whole(a, b)) is not None:
                verdict = op == "!="
                words = f"{'always' if verdict else 'never'} true: {self._said(whole.tree)} is a whole number"
                code = "always-true" if verdict else "never-true"
                self._problems.warning(self._place(tree), code, f"{self._said(tree)} is {words}")
        low, high = (0, 1) if verdict is None else (verdict, verdict)
        term = Term("", "bool", tree, NONE, low, high, certain=a.certain and b.certain)
        return self._made(_unless_unknown([a, b], f"{a.ref} {op} {b.ref}"), term, [a, b])

    def _decided(self, tree: Tree, term: Term, verdict: bool) -> None:
        ends = f"from {_short(term.low)} to {_short(term.high)}"
        if term.low is None or term.high is None:
            ends = f"{_short(term.high)} or less" if term.low is None else f"{_short(term.low)} or more"
        unit = f" {term.unit.name}" if term.unit.name else ""
        words = "always" if verdict else "never"
        message = f"{self._said(tree)} is {words} true: {self._said(term.tree)} is {ends}{unit}"
        self._problems.warning(self._place(tree), f"{words}-true", message, "check the value, or the range of the tag")


def _only_whole(a: Term, b: Term) -> Term | None:
    """The one of two that is always whole, where the other is a constant that is not."""
    for one, other in ((a, b), (b, a)):
        if one.constant is None and one.whole and isinstance(other.constant, float) and not other.whole:
            return one
    return None


def _unless_unknown(terms: list[Term], code: str) -> str:
    """Code that is unknown where one of the parts is."""
    unknown = " or ".join(f"{term.ref} is None" for term in terms if not term.certain)
    return f"None if {unknown} else {code}" if unknown else code


def _short(number: float | None) -> str:
    return f"{number:.6g}" if number is not None else ""
