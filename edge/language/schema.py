"""JSON Schemas of the files that engineers write, from the Structs that read them, so that editors complete."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from drivers import driver
from edge.language import recipe, shape, trial_file
from edge.language.cell_file import CellForm, DeviceForm
from edge.language.recipe import RecipeFile, Repeat, Step, Way
from edge.language.trial_file import Expectation, Happening, TrialFile

DRAFT = "https://json-schema.org/draft/2020-12/schema"


Kind = Literal["cell", "recipe", "test"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a kind of file."""
    return {"$schema": DRAFT, **{"cell": _cell, "recipe": _recipe, "test": _test}[kind]()}


def _cell() -> dict[str, Any]:
    """A cell's schema; a device has the keys of its driver."""
    found = shape.schema(CellForm)
    own = shape.schema(DeviceForm)["$defs"][DeviceForm.__name__]
    devices: list[dict[str, Any]] = []
    for name in driver.names():
        settings = driver.find(name).Settings
        definitions = shape.schema(settings)["$defs"]
        device = definitions.pop(settings.__name__)
        keys = {key: value for key, value in device["properties"].items() if key not in own["properties"]}
        device["properties"] = {**own["properties"], "driver": {"const": name}, **keys}
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
    """A recipe's schema, with what `edge.language.recipe` says about keys that exclude or need each other."""
    found = shape.schema(RecipeFile)
    step, way, repeat = (found["$defs"][form.__name__] for form in (Step, Way, Repeat))
    endings = [{"required": [key]} for key in recipe.COMPLETIONS]
    step["oneOf"] = [*endings, {"required": ["set"], "not": {"anyOf": endings}}]
    beside = {key: [kind for kind in recipe.COMPLETIONS if kind in kinds] for key, kinds in recipe.GOES_WITH.items()}
    _bind(step, recipe.NEEDS, beside)
    way["oneOf"] = [{"required": ["when", "steps"]}, {"required": ["else"], "maxProperties": 1}]
    loops = [*({"required": [key]} for key in ("times", "while", "until")), {"required": ["each", "of"]}]
    repeat |= {"oneOf": loops, "dependentRequired": {"of": ["each"]}}
    return found


def _test() -> dict[str, Any]:
    """A test file's schema, with what `edge.language.trial_file` says about keys that exclude or need each other."""
    found = shape.schema(TrialFile)
    found["$defs"][TrialFile.__name__]["properties"]["tests"]["minProperties"] = 1
    happening, expectation = (found["$defs"][form.__name__] for form in (Happening, Expectation))
    happening["allOf"] = [_one_of(trial_file.MOMENTS), _one_of(trial_file.WHATS)]
    _bind(happening, trial_file.NEEDS, trial_file.GOES_WITH)
    expectation["oneOf"] = [
        *({"required": [key], "not": _any_of(("when", "step"))} for key in ("by", "at")),
        {"required": ["within"], **_one_of(("when", "step"))},
    ]
    expectation["allOf"] = [_one_of(trial_file.DUE), _any_of(("that", "state"))]
    return found


def _bind(keys: dict[str, Any], needs: Mapping[str, str], goes_with: Mapping[str, Iterable[str]]) -> None:
    """Which keys need another, and beside which others they stand."""
    keys["dependentRequired"] = {key: [needed] for key, needed in needs.items()}
    keys["dependentSchemas"] = {key: _any_of(beside) for key, beside in goes_with.items()}


def _one_of(names: Iterable[str]) -> dict[str, Any]:
    return {"oneOf": [{"required": [name]} for name in names]}


def _any_of(names: Iterable[str]) -> dict[str, Any]:
    return {"anyOf": [{"required": [name]} for name in names]}
