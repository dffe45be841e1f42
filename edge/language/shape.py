"""A msgspec Struct as the shape of a part of a file: it reads a node tree, and gives the JSON Schema for editors.

A `Form` is a Struct that remembers where it stands. The Settings of a driver are plain Structs, read in the same way.
"""

import re
from collections.abc import Callable, Collection
from functools import cache
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Final, cast

import msgspec
from msgspec import Meta, inspect

from drivers.driver import SettingError
from drivers.value import Value
from edge.language import units
from edge.language.nodes import as_bool, as_choice, as_integer, as_list, as_map, as_number, as_text
from edge.language.source import Node, Problems, tick

FAILED: Final = msgspec.UNSET
"""What a reader gives where it has reported a problem."""

NAME = "[A-Za-z_][A-Za-z0-9_]*"
TITLE = "^[A-Za-z0-9][A-Za-z0-9_-]*$"
"""What a cell or a recipe may be called: names that are good in a command and in an address."""
PHASE = rf"^{NAME}\.{NAME}$"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """Base of a part of a file. `node` is where it stands."""

    node: Node

    def place(self, key: str) -> Node:
        """The value of this key, or the whole where the key was left out."""
        entry = self.node.entries.get(key)
        return entry.value if entry else self.node

    def has(self, key: str) -> bool:
        """Whether the file has this key, be its value right or wrong."""
        return key in self.node.entries


def read_seconds(node: Node, problems: Problems) -> Any:
    """A duration with its unit (`10 ms`) in seconds, or FAILED."""
    text = as_text(node, problems)
    if text is None:
        return FAILED
    try:
        return units.duration(text)
    except ValueError as error:
        problems.error(node, "bad-duration", str(error))
        return FAILED


def read_expression(node: Node, problems: Problems) -> Any:
    """The node of an expression as it is, to be compiled later; FAILED where it is no text."""
    return FAILED if as_text(node, problems) is None else node


def read_map(node: Node, problems: Problems) -> Any:
    """The node of a map as it is, to be read when more is known; FAILED where it is no map."""
    return FAILED if as_map(node, None, {}, problems) is None else node


Seconds = Annotated[
    float,
    Meta(extra={"read": read_seconds}, extra_json_schema={"type": "string", "examples": ["500 ms", "10 s", "2 min"]}),
]
Name = Annotated[str, Meta(pattern=f"^{NAME}$")]
Text = Annotated[str, Meta(min_length=1)]
Range = tuple[float, float]
Expression = Annotated[
    Node, Meta(extra={"read": read_expression}, extra_json_schema={"type": ["string", "number", "boolean"]})
]
Condition = Annotated[Node, Meta(extra={"read": read_expression}, extra_json_schema={"type": ["string", "boolean"]})]

Map = Annotated[Node, Meta(extra={"read": read_map}, extra_json_schema={"type": "object"})]


def read(node: Node, shape: Any, problems: Problems, beside: Collection[str] = ()) -> Any:
    """The node as a value of this type, or FAILED; every problem in it is reported at its place.

    What cannot be read in a list or map is left out of it, and an optional key that cannot counts as left out, so that
    one mistake hides no other; a text or list that only breaks a rule is given all the same. `beside` are keys of the
    map that another shape reads.
    """
    kind = _shape(shape)
    return (
        _struct(node, kind, problems, beside) if isinstance(kind, inspect.StructType) else _read(node, kind, problems)
    )


def read_part(node: Node, shape: type[msgspec.Struct], problems: Problems) -> dict[str, Any]:
    """Those fields of a Struct that the map has, by name; none need be there."""
    kind = _shape(shape)
    assert isinstance(kind, inspect.StructType)
    return _values(node, kind, problems, required=False) or {}


def keys(shape: type[msgspec.Struct]) -> list[str]:
    """The keys of a map that this Struct reads."""
    kind = _shape(shape)
    assert isinstance(kind, inspect.StructType)
    return list(_fields(kind))


@cache
def _shape(shape: Any) -> inspect.Type:
    return inspect.type_info(shape)


def _read(node: Node, shape: inspect.Type, problems: Problems) -> Any:
    match shape:
        case inspect.Metadata(type=inner):
            return _marked(node, shape, inner, problems)
        case inspect.StructType():
            return _struct(node, shape, problems)
        case inspect.DictType():
            return _dict(node, shape, problems)
        case inspect.ListType() | inspect.VarTupleType() | inspect.TupleType():
            return _sequence(node, shape, problems)
        case inspect.UnionType():
            nothing = node.text == "null" and not node.quoted and shape.includes_none
            return None if nothing else _read(node, _member(node, shape), problems)
        case inspect.LiteralType(values=values):
            return _given(as_choice(node, [str(value) for value in values], problems))
        case inspect.BoolType():
            return _given(as_bool(node, problems))
        case inspect.IntType(ge=low, le=high):
            return _given(as_integer(node, problems, low=low, high=high))
        case inspect.FloatType():
            value = as_number(node, problems)
            return FAILED if value is None else _bounded(node, value, shape, problems)
        case inspect.StrType():
            return _text(node, shape, problems)
        case _:
            raise TypeError(f"no reader for {shape}")


def _marked(node: Node, shape: inspect.Metadata, inner: inspect.Type, problems: Problems) -> Any:
    """A value whose type says more (`Meta(extra=…)`): a reader of its own, a path, a number that may have a unit."""
    if own := _own_reader(shape):
        return own(node, problems)
    if _is_path(shape):
        text = as_text(node, problems)
        return FAILED if text is None else _beside(node, text)
    unit = _unit(shape)
    if unit is None or not isinstance(inner, inspect.FloatType):
        return _read(node, inner, problems)
    if unit == "s" and not _NUMBER.fullmatch(node.text):
        value = read_seconds(node, problems)
    else:
        value = _given(constant(node, "float", unit, problems))
    return FAILED if value is FAILED else _bounded(node, float(value), inner, problems)


def _own_reader(shape: inspect.Metadata) -> Callable[[Node, Problems], Any] | None:
    return cast("dict[str, Any]", shape.extra or {}).get("read")


def _unit(shape: inspect.Metadata) -> str | None:
    return cast("dict[str, Any]", shape.extra or {}).get("unit")


def _is_path(shape: inspect.Metadata) -> bool:
    return "path" in cast("dict[str, Any]", shape.extra or {})


def _beside(node: Node, text: str) -> str:
    """A path as it is meant in the file that names it; `~` is the home of who runs edge, wherever the file is."""
    return text if text.startswith("~") else str((Path(node.place.file).parent / text).absolute())


def _words(shape: inspect.Metadata) -> dict[str, Any]:
    """What the type's Meta says to its JSON Schema: a description, examples."""
    return cast("dict[str, Any]", shape.extra_json_schema or {})


def _example(shape: inspect.Type) -> str:
    """How a value of the type may look, where its Meta has an example that is a plain word."""
    examples = _words(shape).get("examples", ()) if isinstance(shape, inspect.Metadata) else ()
    return str(examples[0]) if examples and isinstance(examples[0], str | int | float) else ""


def _given(value: Any) -> Any:
    return FAILED if value is None else value


def _struct(node: Node, shape: inspect.StructType, problems: Problems, beside: Collection[str] = ()) -> Any:
    before = problems.errors
    values = _values(node, shape, problems, beside, required=True)
    fields = _fields(shape)
    if values is None or any(fields[key].name not in values for key in _needed(shape)):
        return FAILED
    try:
        return shape.cls(**values, **({"node": node} if issubclass(shape.cls, Form) else {}))
    except ValueError as error:
        if problems.errors == before:
            _blame(node, error, problems)
        return FAILED


def _blame(node: Node, error: ValueError, problems: Problems) -> None:
    """Values that do not go together: at the key that is to blame."""
    key, hint = (error.key, error.hint) if isinstance(error, SettingError) else ("", "")
    entry = node.entries.get(key)
    problems.error(entry.value if entry else node, "bad-value", str(error), hint)


def _values(
    node: Node, shape: inspect.StructType, problems: Problems, beside: Collection[str] = (), *, required: bool
) -> dict[str, Any] | None:
    fields = _fields(shape)
    needed = _needed(shape) if required else {}
    found = as_map(node, (*beside, *fields) if beside else fields, needed, problems)
    if found is None:
        return None
    values: dict[str, Any] = {}
    for key, inner in found.items():
        if key in fields:
            value = _read(inner, fields[key].type, problems)
            if value is not FAILED:
                values[fields[key].name] = value
    return values


def _fields(shape: inspect.StructType) -> dict[str, inspect.Field]:
    """The fields of a Struct by key; the place of a form is none."""
    found = _FIELDS.get(shape.cls)
    if found is None:
        found = {field.encode_name: field for field in shape.fields if not _is_place(field.type)}
        _FIELDS[shape.cls] = found
    return found


def _needed(shape: inspect.StructType) -> dict[str, str]:
    """The keys that must be there, each with an example."""
    found = _NEEDED.get(shape.cls)
    if found is None:
        found = {key: _example(field.type) for key, field in _fields(shape).items() if field.required}
        _NEEDED[shape.cls] = found
    return found


_FIELDS: dict[type, dict[str, inspect.Field]] = {}
_NEEDED: dict[type, dict[str, str]] = {}


def _is_place(shape: inspect.Type) -> bool:
    return isinstance(shape, inspect.StructType) and shape.cls is Node


def _dict(node: Node, shape: inspect.DictType, problems: Problems) -> Any:
    if as_map(node, None, {}, problems) is None:
        return FAILED
    result: dict[str, Any] = {}
    for entry in node.entries.values():
        before = problems.errors
        key = _read(entry.key, shape.key_type, problems)
        named = problems.errors == before
        value = _read(entry.value, shape.value_type, problems)
        if named and value is not FAILED:
            result[key] = value
    return result


def _sequence(
    node: Node, shape: inspect.ListType | inspect.VarTupleType | inspect.TupleType, problems: Problems
) -> Any:
    items = as_list(node, problems)
    if items is None:
        return FAILED
    if isinstance(shape, inspect.TupleType):
        if len(items) != len(shape.item_types):
            count = len(shape.item_types)
            problems.error(node, "wrong-length", f"here are {len(items)} values; {count} are needed")
            return FAILED
        values = [_read(item, kind, problems) for item, kind in zip(items, shape.item_types, strict=True)]
        return FAILED if FAILED in values else tuple(values)
    if shape.min_length and len(items) < shape.min_length:
        problems.error(node, "empty-list", "this list is empty", "at least one entry is needed")
    values = [value for item in items if (value := _read(item, shape.item_type, problems)) is not FAILED]
    return values if isinstance(shape, inspect.ListType) else tuple(values)


def _member(node: Node, shape: inspect.UnionType) -> inspect.Type:
    """The member of a union that the node looks like, else the first, whose reader then says what is wrong."""
    members = [member for member in shape.types if not isinstance(member, inspect.NoneType)]
    return next((member for member in members if _fits(node, member)), members[0])


def _fits(node: Node, shape: inspect.Type) -> bool:
    match shape:
        case inspect.Metadata(type=inner):
            return node.kind == "text" if _own_reader(shape) else _fits(node, inner)
        case inspect.StructType() | inspect.DictType():
            return node.kind == "map"
        case inspect.ListType() | inspect.TupleType() | inspect.VarTupleType():
            return node.kind == "list"
        case inspect.BoolType():
            return node.kind == "text" and node.text in ("true", "false")
        case inspect.IntType() | inspect.FloatType():
            return node.kind == "text" and not node.quoted and _NUMBER.fullmatch(node.text) is not None
        case _:
            return node.kind == "text"


def _bounded(node: Node, value: float, shape: inspect.FloatType, problems: Problems) -> Any:
    for bound, inside, words in (
        (shape.ge, shape.ge is None or value >= shape.ge, "at least"),
        (shape.gt, shape.gt is None or value > shape.gt, "more than"),
        (shape.le, shape.le is None or value <= shape.le, "at most"),
        (shape.lt, shape.lt is None or value < shape.lt, "less than"),
    ):
        if not inside:
            problems.error(node, "out-of-range", f"{tick(node.text)} is out of range", f"it must be {words} {bound:g}")
            return FAILED
    return value


def _text(node: Node, shape: inspect.StrType, problems: Problems) -> Any:
    text = as_text(node, problems)
    if text is None:
        return FAILED
    if shape.min_length and len(text) < shape.min_length:
        problems.error(node, "empty-text", "this text is empty")
    elif shape.pattern and not re.search(shape.pattern, text):
        hint = _NAME_HINTS.get(shape.pattern, f"it must match {shape.pattern}")
        plain = re.sub(r"[ .-]", "_", text)
        if re.search(shape.pattern, plain):
            hint = f"write {tick(plain)}: {hint}"
        problems.error(node, "bad-name", f"{tick(text)} cannot be a name", hint)
    return text


_NAME_HINTS = {
    f"^{NAME}$": "a name here has the letters A to Z, digits and `_`, and begins with no digit",
    TITLE: "a name here has the letters A to Z, digits, `-` and `_`",
    PHASE: "a phase is named by its unit and what it does, such as `robot.pick`",
}


def constant(node: Node, kind: str, unit: str, problems: Problems) -> Value | None:
    """A written value of this kind (`bool`, `int`, `float`, `string`), a number in `unit` or with a unit of its own."""
    if kind == "bool":
        return as_bool(node, problems)
    if kind == "string":
        return as_text(node, problems)
    match = _NUMBER.match(node.text)
    written = node.text[match.end() :].strip() if match else ""
    if match is None or not written or node.quoted:
        return as_number(node, problems)
    try:
        return units.convert(float(match[0]), units.parse(written), units.parse(unit))
    except ValueError as error:
        problems.error(
            node, "wrong-unit", str(error), f"give it in {unit}" if unit else "it is a number without a unit"
        )
        return None


def schema(shape: Any) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `read` takes for this type, with `$defs` for its Structs."""
    definitions: dict[str, Any] = {}
    top = _schema(_shape(shape), definitions)
    return {**top, "$defs": dict(sorted(definitions.items()))}


def _schema(shape: inspect.Type, definitions: dict[str, Any]) -> dict[str, Any]:
    match shape:
        case inspect.Metadata(type=inner):
            own = {} if _own_reader(shape) else _schema(inner, definitions)
            if _unit(shape) is not None:
                own["type"] = ["number", "string"]
            return {**own, **_words(shape)}
        case inspect.StructType(cls=cls):
            if cls.__name__ not in definitions:
                definitions[cls.__name__] = {}
                definitions[cls.__name__] = _object(shape, definitions)
            return {"$ref": f"#/$defs/{cls.__name__}"}
        case inspect.DictType(key_type=key, value_type=value):
            names = _schema(key, definitions)
            limits = {"propertyNames": {"pattern": names["pattern"]}} if "pattern" in names else {}
            return {"type": "object", "additionalProperties": _schema(value, definitions), **limits}
        case inspect.TupleType(item_types=kinds):
            items = [_schema(kind, definitions) for kind in kinds]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        case (
            inspect.ListType(item_type=item, min_length=least) | inspect.VarTupleType(item_type=item, min_length=least)
        ):
            return {"type": "array", "items": _schema(item, definitions), **({"minItems": least} if least else {})}
        case inspect.UnionType(types=kinds):
            members = [_schema(kind, definitions) for kind in kinds if not isinstance(kind, inspect.NoneType)]
            return members[0] if len(members) == 1 else {"anyOf": members}
        case inspect.LiteralType(values=values):
            return {"enum": list(values)}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType() | inspect.FloatType():
            bounds = {
                "minimum": shape.ge,
                "exclusiveMinimum": shape.gt,
                "maximum": shape.le,
                "exclusiveMaximum": shape.lt,
            }
            kind = "integer" if isinstance(shape, inspect.IntType) else "number"
            return {"type": kind, **{key: bound for key, bound in bounds.items() if bound is not None}}
        case inspect.StrType(min_length=least, pattern=pattern):
            limits = {"minLength": least, "pattern": pattern}
            return {"type": "string", **{key: limit for key, limit in limits.items() if limit}}
        case _:
            raise TypeError(f"no JSON Schema for {shape}")


def _object(shape: inspect.StructType, definitions: dict[str, Any]) -> dict[str, Any]:
    fields = _fields(shape)
    return {
        "type": "object",
        "description": cleandoc(shape.cls.__doc__ or ""),
        "properties": {key: _schema(field.type, definitions) for key, field in fields.items()},
        "required": [key for key, field in fields.items() if field.required],
        "additionalProperties": False,
    }


def inner(kind: inspect.Type, key: str) -> inspect.Type | None:
    """What stands below a key of what this type reads; None where that has no such key."""
    match plain(kind):
        case inspect.StructType() as struct:
            field = _fields(struct).get(key)
            return None if field is None else field.type
        case inspect.DictType(value_type=value):
            return value
        case _:
            return None


def plain(kind: inspect.Type) -> inspect.Type:
    """The type of one thing: less what is said about it, as an item of its list, the map where text may stand too."""
    match kind:
        case inspect.Metadata(type=inside):
            return kind if _own_reader(kind) else plain(inside)
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return plain(item)
        case inspect.UnionType(types=kinds):
            members = [plain(member) for member in kinds if not isinstance(member, inspect.NoneType)]
            return next((one for one in members if isinstance(one, inspect.StructType)), members[0])
        case _:
            return kind


def root(shape: type[Form]) -> inspect.Type:
    """The type that reads a whole file."""
    return _shape(shape)


def described(kind: inspect.Type) -> dict[str, str]:
    """The keys of a map that this type reads, each with its description."""
    struct = plain(kind)
    return (
        {key: about(field.type) for key, field in _fields(struct).items()}
        if isinstance(struct, inspect.StructType)
        else {}
    )


def about(kind: inspect.Type) -> str:
    """The description of what this type reads."""
    return str(_words(kind).get("description", "")) if isinstance(kind, inspect.Metadata) else ""
