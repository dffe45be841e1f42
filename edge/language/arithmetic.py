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


def _corners(apply: Callable[[Any, Any], Any], a: Range, b: Range) -> Range:
    results = [apply(x, y) for x in a for y in b]
    return (None, None) if None in results else (min(results), max(results))


def range_of(op: str, a: Range, b: Range) -> Range:
    """The range of `a op b`. The ends are computed as the values are, so that they bound what is rounded too."""
    if op == "+":
        return add(a[0], b[0]), add(a[1], b[1])
    if op == "-":
        return subtract(a[0], b[1]), subtract(a[1], b[0])
    if op == "/" and (b[0] is None or b[1] is None or b[0] <= 0 <= b[1]):
        return None, None
    return _corners(OPERATIONS[op], a, b)


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
    """The range of `min`, `max` and `clamp`."""
    lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
    if name == "clamp":
        return lows[1], maximum(highs[1], highs[2])
    pick = min if name == "min" else max
    known_lows, known_highs = [low for low in lows if low is not None], [high for high in highs if high is not None]
    low = minimum(*lows) if name == "min" else pick(known_lows, default=None)
    high = pick(known_highs, default=None) if name == "min" else maximum(*highs)
    return low, high
