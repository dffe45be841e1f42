"""What the API is asked to do: typed bodies, checked against the plan before the loop hears of them.

The engine checks again: it alone knows the state. Here the text can say more, and names every parameter that is wrong.
"""

import difflib
import math
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from drivers.value import Value
from edge.cell import Tag
from edge.messages import Asked
from edge.program import Parameter, Plan, Recipe
from edge.sequence import Refused, fit

MAX_TEXT = 200

By = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$")]
"""Who gives the command: the name goes into the batch record."""


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/batches`."""

    recipe: str
    by: By
    parameters: dict[str, Value] = {}


class Steer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/batches/{id}/{command}` and `POST /api/alarms/{id}/acknowledge`."""

    by: By


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/batches/{id}/answer`; a question that is only to be confirmed needs no value."""

    prompt: int
    by: By
    value: Value | None = None


class SetTag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/tags/{tag}`."""

    value: Value
    by: By


class RequestError(Exception):
    """A request that cannot be done as it stands; `fields` says what is wrong with which parameter."""

    def __init__(self, status: int, text: str, fields: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.fields = fields or {}


def recipe_of(plan: Plan, name: str) -> Recipe:
    """Raises RequestError (404)."""
    recipe = plan.recipes.get(name)
    if recipe is None:
        raise RequestError(404, f"there is no recipe `{name}`{_meant(name, plan.recipes)}")
    return recipe


def tag_of(plan: Plan, name: str) -> Tag:
    """Raises RequestError (404)."""
    try:
        return plan.cell.tag(name)
    except KeyError:
        names = [tag.name for tag in plan.cell.tags]
        raise RequestError(404, f"there is no tag `{name}`{_meant(name, names)}") from None


def check_parameters(recipe: Recipe, given: dict[str, Value]) -> dict[str, Value]:
    """The parameters as the recipe takes them. Raises RequestError (400) that names every one that is wrong."""
    known = {one.name: one for one in recipe.parameters}
    wrong = {name: f"{recipe.name} has no parameter `{name}`{_meant(name, known)}" for name in given.keys() - known}
    for name, parameter in known.items():
        value = given.get(name)
        fault = _fault(parameter, value) if value is not None else ""
        if fault:
            wrong[name] = f"{name}: {fault}"
        elif value is None and parameter.default is None:
            limits = _limits(parameter.low, parameter.high, parameter.unit)
            wrong[name] = f"{name} is needed{': ' if limits else ''}{limits}"
    if wrong:
        raise RequestError(400, "; ".join(wrong.values()), wrong)
    return given


def check_answer(asked: Asked, value: Value | None) -> Value | None:
    """Raises RequestError (400) where the question does not take this answer."""
    match asked.kind:
        case "confirm":
            fault = "" if value in (None, True) else "this question is to be confirmed: answer true"
        case "choice":
            fault = "" if value in asked.answers else f"answer one of {', '.join(asked.answers)}"
        case "number":
            fault = _number_fault(value, asked.low, asked.high, asked.unit)
        case _:
            fault = _text_fault(value)
    if fault:
        raise RequestError(400, fault, {"value": fault})
    return value


def check_level(tag: Tag, value: Value) -> Value:
    """Raises RequestError (400) where the tag cannot be set to this value."""
    if not tag.writable:
        raise RequestError(400, f"{tag.name} can only be read")
    try:
        return fit(tag, value)
    except Refused as refused:
        raise RequestError(400, refused.say["en"]) from None


def _fault(parameter: Parameter, value: Any) -> str:
    match parameter.type:
        case "bool":
            return "" if isinstance(value, bool) else f"{value} is neither true nor false"
        case "number":
            return _number_fault(value, parameter.low, parameter.high, parameter.unit)
        case "text":
            if parameter.choices and value not in parameter.choices:
                return f"{value} is none of {', '.join(parameter.choices)}"
            return _text_fault(value)


def _number_fault(value: Any, low: float | None, high: float | None, unit: str) -> str:
    if isinstance(value, bool | str) or value is None or not math.isfinite(value):
        return f"{'nothing' if value is None else value} is not a number"
    if (low is not None and value < low) or (high is not None and value > high):
        return f"{value:g}{' ' if unit else ''}{unit} is out of range, {_limits(low, high, unit)}"
    return ""


def _text_fault(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        return "a text is needed"
    return "" if len(value) <= MAX_TEXT else f"a text has at most {MAX_TEXT} characters"


def _limits(low: float | None, high: float | None, unit: str) -> str:
    if low is not None and high is not None:
        return f"it goes from {low:g} to {high:g} {unit}".rstrip()
    if low is not None:
        return f"it is at least {low:g} {unit}".rstrip()
    return f"it is at most {high:g} {unit}".rstrip() if high is not None else ""


def _meant(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f" (did you mean `{close[0]}`?)" if close else ""
