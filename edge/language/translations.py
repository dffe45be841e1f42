"""The texts for people in a cell and its recipes: which of them lack a language that others have."""

from collections.abc import Iterable, Sequence

from edge.language import recipe, rules
from edge.language.cell_file import CellForm
from edge.language.program import Texts
from edge.language.shape import Form
from edge.language.source import Node, Problems

Said = tuple[Node, Texts]
"""A text by language, and where it stands."""


def of_cell(form: CellForm) -> list[Said]:
    """The texts of a cell's own interlocks, alarms and permissives."""
    permissives = (one for forms in form.permissives.values() for one in forms)
    return [_said(one, one.say) for one in (*form.interlocks, *form.alarms.values(), *permissives)]


def of_recipe(form: recipe.RecipeFile, steps: Sequence[recipe.Step]) -> list[Said]:
    """The texts of a recipe and of all its steps."""
    asks = [step.ask for step in steps if step.ask is not None]
    watched = (*form.interlocks, *form.permissives, *(one for step in steps for one in step.interlocks))
    alarms = (step.alarm for step in steps if step.alarm is not None)
    forms = (form, *form.parameters.values(), *watched, *asks, *alarms)
    said = [_said(one, one.say) for one in forms if one.say is not None]
    for ask in asks:
        if isinstance(ask.answers, dict):
            entries = ask.place("answers").entries
            said += [(entries[answer].value, recipe.texts(say)) for answer, say in ask.answers.items()]
    return said


def _said(form: Form, say: str | rules.Say | None) -> Said:
    return form.place("say"), recipe.texts(say)


def report_empty(said: Iterable[Said], problems: Problems) -> None:
    """Reports texts that have no language at all."""
    for node, texts in said:
        if not texts:
            problems.error(node, "no-text", "here is no text", "such as `{en: …, fr: …, ar: …}`")


def report_missing(said: Sequence[Said], problems: Problems) -> None:
    """Warns of texts that lack a language which others of the same cell, or of its recipes, have."""
    languages = {language for _, texts in said for language in texts}
    for node, texts in said:
        missing = [language for language in recipe.LANGUAGES if language in languages and language not in texts]
        if missing:
            message = f"this text is missing in {', '.join(missing)}"
            hint = "other texts of the cell and its recipes have it: add it here too"
            problems.warning(node, "missing-translation", message, hint)
