"""An order of one batch, made of what a person typed on the command line; values and answers as they are typed."""

import getpass
import math
import re
from collections.abc import Iterable
from datetime import datetime

import msgspec

from drivers.value import Value
from edge.language import units
from edge.language.program import Parameter, Plan, Prompt, Recipe
from edge.language.source import suggest
from edge.messages import Asked


class Order(msgspec.Struct, frozen=True):
    """One batch to make: recipe, parameters, the answers to its questions by variable as they were typed, who, mode."""

    batch: str
    recipe: str
    parameters: dict[str, Value]
    answers: dict[str, str]
    by: str
    mode: str = "automatic"


class WrongOrder(Exception):
    """What is wrong with an order, in words."""


def order(
    plan: Plan, name: str, given: dict[str, str], answers: dict[str, str], by: str, mode: str = "automatic"
) -> Order:
    """An order from the texts of the command line. Raises WrongOrder."""
    recipe = plan.recipes.get(name)
    if recipe is None:
        raise WrongOrder(f"the cell {plan.cell.name} has no recipe `{name}`: {_known(name, plan.recipes)}")
    parameters = {key: _parameter(recipe, key, text) for key, text in given.items()}
    missing = [one for one in recipe.parameters if one.default is None and one.name not in parameters]
    if missing:
        needed = " ".join(f"--set {one.name}=VALUE" for one in missing)
        limits = "; ".join(f"{one.name} {_limits(one)}" for one in missing if _limits(one))
        raise WrongOrder(f"{name} needs {needed}{f' ({limits})' if limits else ''}")
    for variable, text in answers.items():
        _check_answer(recipe, variable, text)
    batch = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    return Order(batch, name, parameters, answers, by or _login(), mode)


def _known(name: str, names: Iterable[str]) -> str:
    names = list(names)
    return suggest(name, names) or f"it has {', '.join(names) or 'none'}"


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"  # a user without a name, as in a container


def _parameter(recipe: Recipe, name: str, text: str) -> Value:
    """A parameter's value, as typed. Raises WrongOrder."""
    parameter = next((one for one in recipe.parameters if one.name == name), None)
    if parameter is None:
        known = _known(name, [one.name for one in recipe.parameters])
        raise WrongOrder(f"{recipe.name} has no parameter `{name}`: {known}")
    try:
        value = parse_value(text, parameter.type, parameter.unit)
    except ValueError as error:
        raise WrongOrder(f"--set {name}={text}: {error}") from None
    if isinstance(value, str):
        good = not parameter.choices or value in parameter.choices
    else:
        good = _within(value, parameter.low, parameter.high)
    if not good:
        raise WrongOrder(f"--set {name}={text}: {name} {_limits(parameter)}")
    return value


def _limits(parameter: Parameter) -> str:
    if parameter.choices:
        return f"is one of {', '.join(parameter.choices)}"
    return span(parameter.low, parameter.high, parameter.unit)


def span(low: float | None, high: float | None, unit: str) -> str:
    """A range in words; "" for none."""
    if low is not None and high is not None:
        return f"goes from {low:g} to {high:g} {unit}".rstrip()
    if low is None and high is None:
        return ""
    return f"is at least {low:g} {unit}".rstrip() if low is not None else f"is at most {high:g} {unit}".rstrip()


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _check_answer(recipe: Recipe, name: str, text: str) -> None:
    """Whether a question of the recipe takes this answer. Raises WrongOrder."""
    known = recipe.variables[len(recipe.parameters) :]
    if name not in known:
        raise WrongOrder(f"{recipe.name} asks nothing into `{name}`: {_known(name, known)}")
    place = recipe.variables.index(name)
    for prompt in [step.ask for step in recipe.steps if step.ask is not None and step.ask.into == place]:
        try:
            parse_answer(text, prompt)
        except ValueError as error:
            raise WrongOrder(f"--answer {name}={text}: {error}") from None


def parse_answer(text: str, asked: Prompt | Asked) -> Value:
    """An answer as a person types it. Raises ValueError in words."""
    match asked.kind:
        case "confirm":
            if text.casefold() in ("", "y", "yes", "ok", "true"):
                return True
            raise ValueError("it is only to be confirmed: yes")
        case "choice":
            near = [answer for answer in asked.answers if answer.casefold() == text.casefold()]
            if text in asked.answers or len(near) == 1:
                return text if text in asked.answers else near[0]
            raise ValueError(f"one of {', '.join(asked.answers)} was expected")
        case "number":
            value = parse_value(text, "number", asked.unit)
            if isinstance(value, str) or not _within(value, asked.low, asked.high):
                raise ValueError(f"the answer {span(asked.low, asked.high, asked.unit)}")
            return value
        case _:
            if 0 < len(text) <= 200:
                return text
            raise ValueError("a text of at most 200 characters was expected")


def parse_value(text: str, kind: str, unit: str = "") -> Value:
    """A value as a person types it: `20`, `20 L`, `0.02 m3`, `true`. Raises ValueError in words."""
    if kind == "text":
        return text
    if kind == "bool":
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ValueError("true or false was expected")
    match = re.fullmatch(r"\s*([+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(.*?)\s*", text)
    if match is None:
        raise ValueError(f"a number was expected{f', in {unit}' if unit else ''}")
    if match[2].startswith(","):
        raise ValueError(f"write a point before the decimals: {text.strip().replace(',', '.')}")
    if match[2] in ("", unit) and re.fullmatch(r"[+-]?[0-9]{1,20}", match[1]):
        if not -(2**63) <= (whole := int(match[1])) < 2**64:
            raise ValueError("this number is too large")
        return whole
    number = float(match[1])
    if match[2] and match[2] != unit:
        number = _converted(number, match[2], unit)
    if not math.isfinite(number):
        raise ValueError("this number is too large")
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _converted(number: float, given: str, wanted: str) -> float:
    source, target = units.parse(given), units.parse(wanted)
    if not units.same_dimension(source, target):
        raise ValueError(f"{given} is no unit for it: {f'it is in {wanted}' if wanted else 'it has none'}")
    return units.convert(number, source, target)
