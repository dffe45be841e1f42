"""JSON Schemas of the files that engineers write, from the Structs that read them, so that editors complete."""

from typing import Any, Literal

from drivers import driver
from edge import recipe, shape
from edge.cell import CellForm, DeviceForm
from edge.recipe import RecipeFile, Repeat, Step, Way

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(kind: Literal["cell", "recipe"]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a kind of file."""
    return {"$schema": DRAFT, **(_cell() if kind == "cell" else _recipe())}


def _cell() -> dict[str, Any]:
    """A cell's schema; a device has the keys of its driver."""
    found = shape.schema(CellForm)
    own = shape.schema(DeviceForm)["$defs"][DeviceForm.__name__]
    devices: list[dict[str, Any]] = []
    for name in driver.names():
        settings = driver.find(name).Settings
        definitions = shape.schema(settings)["$defs"]
        device = definitions.pop(settings.__name__)
        device["properties"] = {**own["properties"], "driver": {"const": name}, **device["properties"]}
        device["required"] = [*own["required"], *device["required"]]
        found["$defs"] |= {**definitions, name: device}
        devices.append(_when({"driver": {"const": name}}, name))
    keys = found["$defs"][CellForm.__name__]["properties"]
    keys["devices"]["additionalProperties"] = {
        "type": "object",
        "properties": {**own["properties"], "driver": {**own["properties"]["driver"], "enum": driver.names()}},
        "required": own["required"],
        "allOf": devices,
    }
    return found


def _when(properties: dict[str, Any], definition: str) -> dict[str, Any]:
    """A map that has these properties is as the definition says."""
    condition = {"properties": properties, "required": list(properties)}
    return {"if": condition, "then": {"$ref": f"#/$defs/{definition}"}}


def _recipe() -> dict[str, Any]:
    """A recipe's schema, with what `edge.recipe` says about keys that exclude or need each other."""
    found = shape.schema(RecipeFile)
    step, way, repeat = (found["$defs"][form.__name__] for form in (Step, Way, Repeat))
    endings = [{"required": [key]} for key in recipe.COMPLETIONS]
    step["oneOf"] = [*endings, {"required": ["set"], "not": {"anyOf": endings}}]
    step["dependentRequired"] = {key: [needed] for key, needed in recipe.NEEDS.items()}
    step["dependentSchemas"] = {
        key: {"anyOf": [{"required": [kind]} for kind in recipe.COMPLETIONS if kind in kinds]}
        for key, kinds in recipe.GOES_WITH.items()
    }
    way["oneOf"] = [{"required": ["when", "steps"]}, {"required": ["else"], "maxProperties": 1}]
    repeat |= {"minProperties": 1, "maxProperties": 1}
    return found
