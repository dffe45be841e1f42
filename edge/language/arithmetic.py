"""Arithmetic in which None is unknown: what compiled expressions call, and the arithmetic of ranges.

A bad value makes a result unknown, and so does a division by zero or an overflow. Whole numbers are exact, all others
IEEE 754 doubles; nothing here depends on the platform.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

MOST = sys.float_info.max
"""The largest number."""

Range = tuple[float | None, float | None]
"""The least and the largest value; None: not known."""


def add(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    result = a + b
    return result if -MOST <= result <= MOST else None


def subtract(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    result = a - b
    return result if -MOST <= result <= MOST else None


def multiply(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    result = a * b
    return result if -MOST <= result <= MOST else None


def divide(a: Any, b: Any) -> Any:
    if a is None or b is None or b == 0:
        return None
    result = a / b
    return result if -MOST <= result <= MOST else None


def negative(a: Any) -> Any:
    return None if a is None else -a


def absolute(a: Any) -> Any:
    return None if a is None else abs(a)


def minimum(*values: Any) -> Any:
    return None if None in values else min(values)


def maximum(*values: Any) -> Any:
    return None if None in values else max(values)


def clamp(value: Any, low: Any, high: Any) -> Any:
    return None if value is None or low is None or high is None else max(low, min(value, high))


def rounded(a: Any) -> Any:
    """The nearest whole number; a half goes away from zero."""
    if a is None:
        return None
    whole = math.trunc(a)
    return whole if abs(a - whole) < 0.5 else whole + (1 if a > 0 else -1)


CALLED: dict[str, Any] = {
    called.__name__: called
    for called in (add, subtract, multiply, divide, negative, absolute, rounded, minimum, maximum, clamp)
}
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {"+": add, "-": subtract, "*": multiply, "/": divide}


def _open(ends: Range) -> tuple[float, float]:
    """A range with infinite ends where they are not known."""
    return -math.inf if ends[0] is None else ends[0], math.inf if ends[1] is None else ends[1]


def _closed(low: float, high: float) -> Range:
    return None if math.isinf(low) else low, None if math.isinf(high) else high


def _end(apply: Callable[[Any, Any], Any], a: float, b: float) -> float | None:
    """One end of a product or quotient; zero times infinity is zero, since every value is finite."""
    if math.isinf(a) or math.isinf(b):
        if apply is divide:
            return 0.0 if math.isinf(b) else a * math.copysign(1, b)
        return 0.0 if 0 in (a, b) else math.copysign(math.inf, a) * math.copysign(1, b)
    return apply(a, b)


def _corners(apply: Callable[[Any, Any], Any], a: Range, b: Range) -> Range:
    results = [_end(apply, x, y) for x in _open(a) for y in _open(b)]
    return (None, None) if None in results else _closed(min(results), max(results))  # type: ignore[type-var]


def range_of(op: str, a: Range, b: Range) -> Range:
    """The range of `a op b`. The ends are computed as the values are, so that they bound what is rounded too."""
    if op == "+":
        return add(a[0], b[0]), add(a[1], b[1])
    if op == "-":
        return subtract(a[0], b[1]), subtract(a[1], b[0])
    return _quotient(a, b) if op == "/" else _corners(multiply, a, b)


def _quotient(a: Range, b: Range) -> Range:
    """The range of a quotient; by zero it has no value, so that a divisor from or to zero is never zero itself."""
    low, high = _open(b)
    if low < 0 < high or low == high == 0:
        return None, None
    if 0 not in (low, high):
        return _corners(divide, a, b)
    sign, far = (1, high) if low == 0 else (-1, low)
    a_low, a_high = _open(a)
    near = [end * sign for end in (a_low, a_high)]
    ends = [_end(divide, end, far) for end in (a_low, a_high)]
    if None in ends:
        return None, None
    lows = [end for end in ends if end is not None]
    low = -math.inf if min(near) < 0 else min(lows)
    high = math.inf if max(near) > 0 else max(lows)
    return _closed(low, high)


def verdict_of(op: str, a: Range, b: Range) -> bool | None:
    """What a comparison is for every value of both ranges; None: it depends."""
    if op in (">", ">="):
        op, a, b = {">": "<", ">=": "<="}[op], b, a
    (a_low, a_high), (b_low, b_high) = a, b
    below = a_high is not None and b_low is not None and (a_high < b_low or (op == "<=" and a_high == b_low))
    above = a_low is not None and b_high is not None and (a_low > b_high or (op == "<" and a_low == b_high))
    if op in ("==", "!="):
        if below or above:
            return op == "!="
        one = a_low is not None and a_low == a_high == b_low == b_high
        return (op == "==") if one else None
    return True if below else False if above else None


def range_of_call(name: str, ranges: list[Range]) -> Range:
    """The range of `min`, `max` and `clamp`, whose ends rise with the ends of what they are made of."""
    lows, highs = zip(*map(_open, ranges), strict=True)
    called = {"min": min, "max": max, "clamp": clamp}[name]
    return _closed(called(*lows), called(*highs))


def absolute_range(of: Range) -> Range:
    """The range of a number without its sign."""
    low, high = _open(of)
    return _closed(max(0, low, -high), max(-low, high))
