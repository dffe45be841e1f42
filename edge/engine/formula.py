"""What a person gives to a batch: the formula's parameters (ISA-88) at its start, answers to its questions.

The one place where both are checked: the engine does so for every command, the API before it troubles the engine.
"""

import difflib
import math
from collections.abc import Iterable

from drivers.value import Value
from edge.engine import refusals
from edge.engine.refusals import Refused
from edge.language.program import Parameter, Recipe, Texts
from edge.messages import Asked

MAX_TEXT = 200


class WrongParameters(Refused):
    """`fields` says what is wrong with which parameter."""

    def __init__(self, fields: dict[str, Texts]) -> None:
        super().__init__(refusals.together(fields.values()))
        self.fields = fields


def check_parameters(recipe: Recipe, given: dict[str, Value]) -> dict[str, Value]:
    """The recipe's parameters in their order, defaults filled in. Raises WrongParameters, with all that are wrong."""
    known = {one.name: one for one in recipe.parameters}
    wrong = {name: refusals.no_parameter(recipe.name, name, meant(name, known)) for name in given if name not in known}
    found: dict[str, Value] = {}
    for name, parameter in known.items():
        value = given.get(name, parameter.default)
        if value is None:
            limits = refusals.span(parameter.low, parameter.high, parameter.unit)
            wrong[name] = refusals.parameter_needed(name, limits)
            continue
        found[name] = value
        fault = fault_of(parameter, value) if name in given else None
        if fault is not None:
            wrong[name] = refusals.parameter_wrong(name, fault)
    if wrong:
        raise WrongParameters(wrong)
    return found


def check_answer(asked: Asked, value: Value | None) -> Value:
    """The answer as the question takes it; a question that is only to be confirmed needs none. Raises Refused."""
    match asked.kind:
        case "confirm":
            value = True if value is None else value
            fault = None if value is True else refusals.CONFIRM
        case "choice":
            fault = None if value in asked.answers else refusals.answer_one_of(asked.answers)
        case "number":
            fault = _number_fault(value, asked.low, asked.high, asked.unit)
        case _:
            fault = _text_fault(value)
    if fault is not None or value is None:
        raise Refused(fault or refusals.VALUE_NEEDED)
    return value


def meant(name: str, names: Iterable[str]) -> str:
    """` (did you mean …?)` where one of the names is near."""
    close = difflib.get_close_matches(name, list(names), 1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def fault_of(parameter: Parameter, value: Value) -> Texts | None:
    match parameter.type:
        case "bool":
            return None if isinstance(value, bool) else refusals.not_bool(value)
        case "number":
            return _number_fault(value, parameter.low, parameter.high, parameter.unit)
        case "text":
            if parameter.choices and value not in parameter.choices:
                return refusals.none_of(value, parameter.choices)
            return _text_fault(value)


def _number_fault(value: Value | None, low: float | None, high: float | None, unit: str) -> Texts | None:
    if isinstance(value, bool | str) or value is None or not math.isfinite(value):
        return refusals.not_number(value)
    outside = (low is not None and value < low) or (high is not None and value > high)
    return refusals.outside(value, low, high, unit) if outside else None


def _text_fault(value: Value | None) -> Texts | None:
    if not isinstance(value, str) or not value.strip():
        return refusals.TEXT_NEEDED
    return None if len(value) <= MAX_TEXT else refusals.too_long(MAX_TEXT)
