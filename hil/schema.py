"""The JSON Schema of plant files, from what reads them: the form of the file, the plant models, the controllers."""

from inspect import cleandoc
from typing import Any

from edge.language import shape
from edge.language.schema import DRAFT
from hil.controllers import CONTROLLERS
from hil.plant_file import PlantForm
from hil.plants.catalogue import MODELS
from hil.plants.model import Block, Field, Input, Output, Parameter, fields

_MODEL = "The plant model, as `hil models` lists them."


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a plant file."""
    found = shape.schema(PlantForm)
    keys = found["$defs"][PlantForm.__name__]["properties"]
    keys["blocks"]["additionalProperties"] = {
        "type": "object",
        "properties": {"model": {"enum": list(MODELS), "description": _MODEL}},
        "required": ["model"],
        "allOf": [
            {
                "if": {"properties": {"model": {"const": name}}, "required": ["model"]},
                "then": {"$ref": f"#/$defs/{name}"},
            }
            for name in MODELS
        ],
    }
    found["$defs"] |= {name: _block(name, model) for name, model in MODELS.items()}
    controllers = [shape.schema(controller) for controller in CONTROLLERS.values()]
    for one in controllers:
        found["$defs"] |= one["$defs"]
    keys["controllers"]["additionalProperties"] = {"anyOf": [{"$ref": one["$ref"]} for one in controllers]}
    return {"$schema": DRAFT, **found}


def _block(name: str, model: type[Block]) -> dict[str, Any]:
    """A block of this model."""
    declared = fields(model)
    tag = {"type": "string", "pattern": shape.PHASE}
    ports = {
        "inputs": ("The written tag that acts on an input.", Input),
        "outputs": ("The read tag that shows an output.", Output),
        "from": ("The output of another block, BLOCK.OUTPUT, that acts on an input.", Input),
    }
    return {
        "type": "object",
        "description": cleandoc(model.__doc__ or ""),
        "properties": {
            "model": {"const": name, "description": _MODEL},
            **{key: _parameter(field) for key, field in declared.items() if isinstance(field.role, Parameter)},
            **{key: _ports(text, declared, role, tag) for key, (text, role) in ports.items()},
        },
        "required": ["model"],
        "additionalProperties": False,
    }


def _parameter(field: Field) -> dict[str, Any]:
    assert isinstance(field.role, Parameter)
    if field.type is int:
        return {"type": "integer", "description": _words(field)}
    amount = {"type": ["number", "string"], "minimum": field.role.least, "description": _words(field)}
    if field.type is float:
        return {**amount, "default": field.start}
    numbers = {"propertyNames": {"pattern": "^[1-9][0-9]*$"}, "description": f"By number, {_words(field)}"}
    return {"type": "object", "additionalProperties": amount, **numbers}


def _ports(text: str, declared: dict[str, Field], role: type, tag: dict[str, Any]) -> dict[str, Any]:
    found = {key: field for key, field in declared.items() if isinstance(field.role, role)}
    return {
        "type": "object",
        "description": text,
        "properties": {key: {**tag, "description": _words(field)} for key, field in found.items()},
        "additionalProperties": False,
    }


def _words(field: Field) -> str:
    if field.type is bool:
        return "true or false"
    return f"in {field.role.unit}" if field.role.unit else "a number without a unit"
