"""The type, unit and range of every part of an expression, and its code: one assignment for each part.

The functions are in `calls.py`. Beside a value in a unit a plain number is refused, but for zero. A product of
temperatures in °C has no meaning; their difference is in K, and no temperature.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Literal

import msgspec

from drivers.value import Value
from edge.language.arithmetic import (
    CALLED,
    MOST,
    OPERATIONS,
    negative,
    range_of,
    verdict_of,
)
from edge.language.grammar import Tree
from edge.language.program import Code, Values
from edge.language.source import Place, Problems, suggest, tick
from edge.language.units import KELVIN, NONE, Unit, describe, quantity, ratio, same_dimension
from edge.language.units import parse as parse_unit

Type = Literal["bool", "number", "text"]


class Symbol(msgspec.Struct, frozen=True):
    """What a name stands for: a tag (`index` in `Cell.tags`) or a variable (`index` in `Recipe.variables`).

    `whole`: it is always a whole number in its unit. `fixed`: a parameter, which stays what it is.
    """

    kind: Literal["tag", "variable"]
    index: int
    type: Type
    unit: Unit = NONE
    low: float | None = None
    high: float | None = None
    whole: bool = False
    fixed: bool = False


Locate = Callable[[int, int], Place]
"""Start and length of a part in its text -> where it stands."""

FILE = "<expression>"
"""The file that the byte code of every expression names."""

_BOOLS = {"yes": "true", "on": "true", "open": "true", "no": "false", "off": "false", "closed": "false"}
WORDS = {"bool": "a condition (true or false)", "number": "a number", "text": "a text"}


_MINUTE = parse_unit("min")


def _by_time(given: Unit, wanted: Unit) -> str:
    """The hint where an amount stands for a rate, or a rate for an amount."""
    if same_dimension(given / _MINUTE, wanted):
        return "divide it by a time, as in `… / 1 min`"
    if same_dimension(given * _MINUTE, wanted):
        return "multiply it by a time, as in `… * 1 min`"
    return ""


class Term(msgspec.Struct, frozen=True):
    """A checked part: `ref` is its name or literal in the code. `bare`: a constant that was written without a unit.

    The range of a bool is 0 to 1. `certain`: it is never unknown. `whole`: a number that is whole in its unit.
    """

    ref: str
    type: Type
    tree: Tree
    unit: Unit = NONE
    low: float | None = None
    high: float | None = None
    constant: Value | None = None
    bare: bool = False
    certain: bool = False
    whole: bool = False


class Checker(ABC):
    """Checks a tree from its leaves up and writes one assignment for each part that is no constant.

    `tags` are those that were read, each with the place where it was first; `runs`: the code is wanted.
    """

    def __init__(
        self, text: str, symbols: Mapping[str, Symbol], problems: Problems, locate: Locate, *, runs: bool
    ) -> None:
        self._text = text
        self._symbols = symbols
        self._problems = problems
        self._locate = locate
        self._runs = runs
        self._loads: dict[str, str] = {}
        self._lines: list[str] = []
        self.tags: dict[int, Place] = {}
        self.variables: set[int] = set()

    def code(self, result: Term) -> Code:
        """The function of everything that was checked."""
        if not self._runs:
            return _no_code
        loads = [f"{name} = {source}" for name, source in self._loads.items()]
        source = "\n ".join(["def code(v, p):", *loads, *self._lines, f"return {result.ref}"])
        names = dict(CALLED)
        exec(compile(source, FILE, "exec"), names)
        return names["code"]

    # Reports.

    def _error(self, tree: Tree, code: str, message: str, hint: str = "") -> None:
        self._problems.error(self._place(tree), code, message, hint)

    def _place(self, tree: Tree) -> Place:
        return self._locate(tree.start, tree.end - tree.start)

    def _said(self, tree: Tree) -> str:
        return tick(self._text[tree.start : tree.end]) if tree.end > tree.start else "this"

    def _measured(self, term: Term) -> str:
        """`mixer.level` is in L, a volume; `20 kg` is a mass."""
        if not term.unit.name:
            return f"{self._said(term.tree)} has no unit"
        named = quantity(term.unit)
        if term.constant is not None and named:
            return f"{self._said(term.tree)} is {named}"
        return f"{self._said(term.tree)} is in {describe(term.unit)}"

    def is_expected(self, term: Term, expect: Type | None) -> bool:
        """Whether a part has the type that must stand there; reports where not."""
        if expect is None or term.type == expect:
            return True
        hint = {"bool": "compare it with a value", "number": "", "text": 'a text is written in quotes: "…"'}[expect]
        if expect == "bool" and term.type == "number" and term.constant in (0, 1):
            hint = f"true or false stands here: did you mean `{'true' if term.constant else 'false'}`?"
        message = f"expected {WORDS[expect]}, but {self._said(term.tree)} is {WORDS[term.type]}"
        self._error(term.tree, "wrong-type", message, hint)
        return False

    # Parts.

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

    def _checked(self, trees: tuple[Tree, ...], expect: Type | None) -> list[Term] | None:
        """All of some parts, or None where any is wrong."""
        terms = [self.check(tree, expect) for tree in trees]
        good = [term for term in terms if term is not None and self.is_expected(term, expect)]
        return good if len(good) == len(terms) else None

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

    def _made(self, code: str, term: Term, parts: list[Term]) -> Term | None:
        """A part that `code` computes from others: at once where all are constants, else in the function."""
        if any(part.constant is None for part in parts):
            name = f"r{len(self._lines)}"
            self._lines.append(f"{name} = {code}")
            return msgspec.structs.replace(term, ref=name)
        value: Value | None = eval(code, {**CALLED, "__builtins__": {}})
        if value is None:
            hint = "it divides by zero, or is too large"
            return self._error(term.tree, "no-value", f"{self._said(term.tree)} has no value", hint)
        if term.type == "number" and isinstance(value, int | float):
            return constant(value, term.tree, term.unit, bare=all(part.bare for part in parts))
        return msgspec.structs.replace(term, ref=repr(value), constant=value, low=value, high=value, certain=True)

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

    def _compare(self, tree: Tree) -> Term | None:
        op = tree.ops[0]
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

    # Numbers and their units.

    def _with_unit(self, term: Term, unit: Unit) -> Term | None:
        """A bare constant beside something in a unit: zero may be bare, where the unit's zero is zero."""
        if term.constant == 0 and not unit.offset:
            return msgspec.structs.replace(term, unit=unit, bare=False)
        said = self._said(term.tree)
        hint = (
            f"did you mean `{said.strip('`')} {unit.name}`?"
            if term.tree.kind in ("number", "negative")
            else f"it must be in {unit.name}"
        )
        return self._error(term.tree, "missing-unit", f"{said} has no unit", hint)

    def _converted(self, term: Term, unit: Unit) -> Term | None:
        """A part in another unit of its dimension."""
        if term.unit is unit:
            return term
        k, c = ratio(term.unit, unit)
        if k == 1 and not c:
            return msgspec.structs.replace(term, unit=unit)
        return self._scaled(term, k, c, unit)

    def _scaled(self, term: Term, k: Fraction, c: Fraction, unit: Unit) -> Term | None:
        """k·term + c, in a unit."""
        if isinstance(term.constant, int | float):
            exact = Fraction(term.constant) * k + c
            if abs(exact) > MOST:
                return self._error(term.tree, "no-value", f"{self._said(term.tree)} is too large in {unit.name}")
            whole = isinstance(term.constant, int) and exact.denominator == 1
            return constant(int(exact) if whole else float(exact), term.tree, unit, bare=False)
        term = msgspec.structs.replace(term, unit=unit)
        if k.numerator == 1 and k.denominator != 1:
            term = self._step("/", term, k.denominator)
        elif k != 1:
            term = self._step("*", term, int(k) if k.denominator == 1 else float(k))
        return self._step("+", term, float(c)) if c else term

    def _step(self, op: str, term: Term, number: float) -> Term:
        """A part that is no constant, with one operation on it."""
        name = f"r{len(self._lines)}"
        self._lines.append(f"{name} = {OPERATIONS[op].__name__}({term.ref}, {number!r})")
        low, high = range_of(op, (term.low, term.high), (number, number))
        whole = term.whole and op == "*" and isinstance(number, int)
        return msgspec.structs.replace(term, ref=name, low=low, high=high, whole=whole)

    def _aligned(self, terms: list[Term]) -> list[Term] | None:
        """Numbers in one unit: that of the first that is no constant, else the smallest that a constant has."""
        named = [term for term in terms if not term.bare] or terms
        least = min(named, key=lambda term: term.unit.factor)
        lead = next((term for term in named if term.constant is None), least)
        aligned: list[Term] = []
        for term in terms:
            if term.bare and lead.unit.name:
                moved = self._with_unit(term, lead.unit)
            elif not same_dimension(term.unit, lead.unit):
                moved = self._mismatch(lead, term)
            else:
                moved = self._converted(term, lead.unit)
            if moved is not None:
                aligned.append(moved)
        return aligned if len(aligned) == len(terms) else None

    def _mismatch(self, lead: Term, term: Term) -> None:
        hint = f"give it in {lead.unit.name}" if lead.unit.name else "give it without a unit"
        if lead.unit.difference or term.unit.difference:
            hint = "a difference of two temperatures is in K, not on a scale such as °C"
        self._error(term.tree, "wrong-unit", f"{self._measured(lead)}; {self._measured(term)}", hint)

    def in_unit(self, term: Term, unit: Unit) -> Term | None:
        """The result in the unit that is asked for."""
        if term.bare and unit.name:
            return self._with_unit(term, unit)
        if not same_dimension(term.unit, unit):
            wanted = f"a value in {describe(unit)}, is expected" if unit.name else "a value without a unit is expected"
            return self._error(term.tree, "wrong-unit", f"{self._measured(term)}; {wanted}", _by_time(term.unit, unit))
        return self._converted(term, unit)

    def _minus(self, tree: Tree) -> Term | None:
        terms = self._checked(tree.args, "number")
        if terms is None:
            return None
        term = terms[0]
        if term.unit.offset and term.constant is None:
            return self._no_scale(term)
        made = Term("", "number", tree, term.unit, negative(term.high), negative(term.low), whole=term.whole)
        return self._made(f"negative({term.ref})", made, terms)

    def _no_scale(self, term: Term) -> None:
        message = f"{self._measured(term)} on a scale with a zero of its own: it cannot be used so"
        self._error(term.tree, "wrong-unit", message, "subtract two temperatures first: the difference is in K")

    def _arithmetic(self, tree: Tree) -> Term | None:
        terms = self._checked(tree.args, "number")
        if terms is None:
            return None
        combine = self._added if tree.kind == "sum" else self._multiplied
        total: Term | None = terms[0]
        for op, term in zip(tree.ops, terms[1:], strict=True):
            if total is None:
                return None
            total = combine(op, total, term)
        return None if total is None else msgspec.structs.replace(total, tree=tree)

    def _operated(self, op: str, a: Term, b: Term, unit: Unit) -> Term | None:
        tree = Tree("sum", a.tree.start, b.tree.end)
        low, high = range_of(op, (a.low, a.high), (b.low, b.high))
        term = Term("", "number", tree, unit, low, high, whole=a.whole and b.whole and op != "/")
        return self._made(f"{OPERATIONS[op].__name__}({a.ref}, {b.ref})", term, [a, b])

    def _added(self, op: str, a: Term, b: Term) -> Term | None:
        if a.unit.dimension == KELVIN.dimension or b.unit.dimension == KELVIN.dimension:
            first = self._with_unit(a, KELVIN) if a.bare else a
            second = self._with_unit(b, KELVIN) if b.bare else b
            if first is None or second is None:
                return None
            if first.unit.dimension == second.unit.dimension:
                return self._temperatures(op, first, second)
        aligned = self._aligned([a, b])
        return None if aligned is None else self._operated(op, aligned[0], aligned[1], aligned[0].unit)

    def _temperatures(self, op: str, a: Term, b: Term) -> Term | None:
        """Two temperatures make a difference (K); one and a difference make a temperature.

        A constant in K is a difference beside °C or beside another difference; a tag in K is a temperature.
        """
        scales = bool(a.unit.offset), bool(b.unit.offset)
        steps = _is_step(a), _is_step(b)
        if op == "-" and True in scales and not (steps[0] or steps[1]):
            made = self._both(op, a, self._converted(b, a.unit), a.unit)
            return None if made is None else self._scaled(made, a.unit.factor, Fraction(0), KELVIN)
        if True in scales:
            if not (steps[1] or (op == "+" and steps[0])):
                hint = "only a difference in K, or a constant in K, is added to or subtracted from a temperature"
                message = f"{self._measured(a)}; {self._measured(b)}: they cannot be combined so"
                return self._error(b.tree, "wrong-unit", message, hint)
            scale = a.unit if scales[0] else b.unit
            return self._both(op, self._in_steps(a, scale), self._in_steps(b, scale), scale)
        difference = (op == "-" and not steps[1]) or (
            steps == (True, True) and (a.unit.difference or b.unit.difference)
        )
        unit = KELVIN if difference else _PLAIN
        return self._both(op, self._converted(a, _PLAIN), self._converted(b, _PLAIN), unit)

    def _in_steps(self, term: Term, scale: Unit) -> Term | None:
        """A difference of temperatures in the steps of a scale; a temperature on that scale as it is."""
        return term if term.unit.offset else self._scaled(term, term.unit.factor / scale.factor, Fraction(0), scale)

    def _may_be_zero(self, divisor: Term) -> None:
        """Warns of a divisor whose range is known to have zero in it."""
        low, high = divisor.low, divisor.high
        known = divisor.constant is None and not (low is None and high is None)
        if known and (low is None or low <= 0) and (high is None or high >= 0):
            said = self._said(divisor.tree)
            message = f"{said} may be 0: what is divided by it is unknown then"
            hint = f"divide by `max({said.strip('`')}, …)`, or narrow its range, where that is not meant"
            self._problems.warning(self._place(divisor.tree), "may-be-zero", message, hint)

    def _both(self, op: str, a: Term | None, b: Term | None, unit: Unit) -> Term | None:
        return None if a is None or b is None else self._operated(op, a, b, unit)

    def _multiplied(self, op: str, a: Term, b: Term) -> Term | None:
        for term in (a, b):
            if term.unit.offset:
                return self._no_scale(term)
        if op == "/":
            self._may_be_zero(b)
        unit = a.unit * b.unit if op == "*" else a.unit / b.unit
        made = self._operated(op, a, b, unit)
        if made is not None and a.unit.name and b.unit.name and unit.dimension == NONE.dimension:
            return self._converted(made, NONE)
        return made


_PLAIN = parse_unit("K")


def _is_step(term: Term) -> bool:
    """Whether a temperature is a difference, or a constant that may be one."""
    return term.unit.difference or (term.constant is not None and not term.unit.offset)


def constant(value: float, tree: Tree, unit: Unit, *, bare: bool) -> Term:
    whole = float(value).is_integer()
    return Term(repr(value), "number", tree, unit, value, value, value, bare=bare, certain=True, whole=whole)


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


def _no_code(_values: Values, _variables: Values) -> Value | None:
    raise RuntimeError("this expression was only checked")
