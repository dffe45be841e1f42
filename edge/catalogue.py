"""The recipes that can be started, as JSON: what they ask for, and what a person may set by hand."""

from edge.devices import Json
from edge.language.cell import Tag
from edge.language.program import Plan


def recipes(plan: Plan) -> Json:
    """The recipes that can be started, ready for JSON: titles by language, parameters with unit, range and default."""
    return {
        name: {
            "title": recipe.say,
            "hash": recipe.hash,
            "uses": list(recipe.uses),
            "shares": list(recipe.shares),
            "steps": [{"step": step, "name": recipe.steps[step].name} for step in recipe.body],
            "tags": [plan.cell.tags[tag].name for tag in sorted({*recipe.inputs, *recipe.outputs})],
            "outputs": [_output(tag) for tag in plan.cell.tags if tag.device in recipe.devices and _by_hand(plan, tag)],
            "parameters": [
                {
                    "name": one.name,
                    "type": one.type,
                    "unit": one.unit,
                    "default": one.default,
                    "low": one.low,
                    "high": one.high,
                    "choices": list(one.choices),
                    "say": one.say,
                }
                for one in recipe.parameters
            ],
        }
        for name, recipe in plan.recipes.items()
    }


def _by_hand(plan: Plan, tag: Tag) -> bool:
    return tag.writable and tag.index not in plan.cell.heartbeats.values()


def _output(tag: Tag) -> Json:
    """An output as a person may set it in manual mode."""
    kind = {"bool": "bool", "string": "text"}.get(tag.type.kind, "number")
    low, high = (tag.low, tag.high) if kind == "number" else (None, None)
    return {"tag": tag.name, "type": kind, "unit": tag.unit, "low": low, "high": high}
