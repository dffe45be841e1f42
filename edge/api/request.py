"""What the API is asked to do: typed bodies, checked against the plan before the loop hears of them.

The engine checks again, by the same rules: it alone knows the state.
"""

from typing import Annotated, Literal

import msgspec

from drivers.value import Value
from edge.engine import refusals
from edge.engine.fit import fit
from edge.engine.formula import WrongParameters, check_answer, check_parameters, meant
from edge.engine.refusals import Refused
from edge.language.cell import Tag
from edge.language.program import Plan, Recipe, Texts
from edge.language.rules import Role
from edge.messages import Asked

By = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$")]
"""Who gives the command: the name goes into the batch record."""

Why = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$")]


Mode = Literal["automatic", "semi-automatic", "manual"]


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/batches`."""

    recipe: str
    by: By
    parameters: dict[str, Value] = {}
    mode: Mode = "automatic"


class Steer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/batches/{id}/{command}` and `POST /api/alarms/{id}/acknowledge` and `…/unshelve`."""

    by: By


class Shelve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/alarms/{id}/shelve`: for so many minutes, and why."""

    by: By
    minutes: float
    why: Why


class SetMode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/batches/{id}/mode`."""

    mode: Mode
    by: By


class Confirm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/batches/{id}/confirm`: the step, by its number in the recipe, that may begin."""

    step: int
    by: By


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/batches/{id}/answer`; a question that is only to be confirmed needs no value.

    `role` is what the person declares to be: nothing here can tell whether that is so.
    """

    prompt: int
    by: By
    value: Value | None = None
    role: Role = "operator"


class SetTag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/tags/{tag}`."""

    value: Value
    by: By


class RequestError(Exception):
    """A request that cannot be done as it stands; `fields` says what is wrong with which parameter.

    `say` is `text` in the languages of the floor, where an operator may meet it.
    """

    def __init__(
        self, status: int, text: str, fields: dict[str, str] | None = None, *, say: Texts | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.fields = fields or {}
        self.say = say or {}


def recipe_of(plan: Plan, name: str) -> Recipe:
    """Raises RequestError (404)."""
    recipe = plan.recipes.get(name)
    if recipe is None:
        raise RequestError(404, f"there is no recipe `{name}`{meant(name, plan.recipes)}")
    return recipe


def tag_of(plan: Plan, name: str) -> Tag:
    """Raises RequestError (404)."""
    try:
        return plan.cell.tag(name)
    except KeyError:
        names = [tag.name for tag in plan.cell.tags]
        raise RequestError(404, f"there is no tag `{name}`{meant(name, names)}") from None


def parameters_of(recipe: Recipe, given: dict[str, Value]) -> dict[str, Value]:
    """The parameters as the engine will take them. Raises RequestError (400) that names every one that is wrong."""
    try:
        return check_parameters(recipe, given)
    except WrongParameters as wrong:
        fields = {name: say["en"] for name, say in wrong.fields.items()}
        raise RequestError(400, wrong.text, fields, say=wrong.say) from None


def answer_to(asked: Asked, value: Value | None) -> Value:
    """Raises RequestError (400) where the question does not take this answer."""
    try:
        return check_answer(asked, value)
    except Refused as refused:
        raise RequestError(400, refused.text, {"value": refused.text}, say=refused.say) from None


def level_of(tag: Tag, value: Value) -> Value:
    """Raises RequestError (400) where the tag cannot be set to this value."""
    try:
        if not tag.writable:
            raise Refused(refusals.read_only(tag.name))
        return fit(tag, value)
    except Refused as refused:
        raise RequestError(400, refused.text, say=refused.say) from None
