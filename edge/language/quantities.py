"""Numbers of an expression and their units: conversions, sums, products, temperatures and their differences.

Beside a value in a unit a plain number is refused, but for zero. A product of temperatures in °C has no meaning; their
difference is in K, and no temperature.
"""

from fractions import Fraction

import msgspec

from edge.language.arithmetic import MOST, OPERATIONS, negative, range_of
from edge.language.grammar import Tree
from edge.language.terms import Parts, Term, constant
from edge.language.units import KELVIN, NONE, Unit, describe, ratio, same_dimension
from edge.language.units import parse as parse_unit

_MINUTE = parse_unit("min")


def _by_time(given: Unit, wanted: Unit) -> str:
    """The hint where an amount stands for a rate, or a rate for an amount."""
    if same_dimension(given / _MINUTE, wanted):
        return "divide it by a time, as in `… / 1 min`"
    if same_dimension(given * _MINUTE, wanted):
        return "multiply it by a time, as in `… * 1 min`"
    return ""


class Quantities(Parts):
    """Checks the parts that are calculated."""

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
            said = describe(unit)
            comma = "," if ", " in said else ""
            wanted = f"a value in {said}{comma} is expected" if unit.name else "a value without a unit is expected"
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
