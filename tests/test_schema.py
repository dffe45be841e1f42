"""The JSON Schemas of the files that engineers write: they take what the loader takes, and refuse what it refuses."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from edge.schema import schema
from edge.source import Node, Problems, load

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes"
FILES = [*sorted((HERE / "bottling").glob("*.yaml")), *sorted(RECIPES.glob("*/*.yaml"))]
KEPT = [path for path in FILES if path.name != "plant.yaml" and not path.name.endswith(".test.yaml")]


def plain(node: Node) -> Any:
    """A node as an editor's YAML 1.2 reader gives it (core schema)."""
    if node.kind == "list":
        return [plain(item) for item in node.items]
    if node.kind == "map":
        return {key: plain(entry.value) for key, entry in node.entries.items()}
    if node.quoted:
        return node.text
    try:
        return json.loads(node.text)
    except ValueError:
        return node.text


def faults(kind: Any, path: Path) -> list[str]:
    root = load(path, Problems())
    assert root is not None
    return [error.message for error in jsonschema.Draft202012Validator(schema(kind)).iter_errors(plain(root))]


@pytest.mark.parametrize("kind", ["cell", "recipe"])
def test_it_is_a_json_schema(kind: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(kind))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_it_takes_every_file_that_we_ship(path: Path) -> None:
    assert faults("cell" if path.name == "cell.yaml" else "recipe", path) == []


@pytest.mark.parametrize("kind", ["cell", "recipe"])
def test_the_kept_schemas_are_up_to_date(kind: Any) -> None:
    kept = RECIPES / "schema" / f"{kind}.json"
    written = msgspec.json.format(msgspec.json.encode(schema(kind))).decode()
    assert kept.read_text() == f"{written}\n", f"run: edge schema {kind} > recipes/schema/{kind}.json"


@pytest.mark.parametrize("name", ["cell-driver", "cell-tags", "recipe-bad-values", "recipe-keys", "recipe-handlers"])
def test_it_refuses_what_has_a_wrong_shape(name: str) -> None:
    path = HERE / "bad" / f"{name}.yaml"
    assert faults(name.partition("-")[0], path) != []


@pytest.mark.parametrize(
    "step",
    [
        {"until": "a.b", "wait": "3 s"},
        {"name": "nothing"},
        {"during": {"a.b": True}},
        {"wait": "3 s", "with": {"p": 1}},
        {"repeat": {"times": 3}},
        {"until": "a.b"},
        {"set": {"a.b": 1}, "within": "3 s"},
        {"choose": [{"when": "a.b"}]},
        {"ask": {"answers": ["yes"]}},
        {"wiat": "3 s"},
    ],
)
def test_a_step_that_cannot_be(step: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema("recipe"))
    assert not validator.is_valid({"recipe": "r", "steps": [step]})


@pytest.mark.parametrize(
    "step",
    [
        {"set": {"a.b": 1}},
        {"set": {"a.b": 1}, "during": {"a.c": "x * 2"}, "until": "a.d", "within": "none", "on_timeout": "abort"},
        {"wait": "x * 2"},
        {"repeat": {"while": "a.b"}, "steps": [{"wait": "1 s"}]},
        {"choose": [{"when": "a.b", "steps": [{"wait": "1 s"}]}, {"else": []}]},
        {"ask": {"say": {"en": "How much?"}, "number": {"unit": "L", "range": [0, 5]}, "into": "x"}},
        {"do": "a.go", "with": {"p": 1}, "within": "3 s"},
        {"parallel": {"x": [{"record": {"y": "a.b"}}]}},
    ],
)
def test_a_step_that_can_be(step: dict[str, Any]) -> None:
    jsonschema.validate({"recipe": "r", "steps": [step]}, schema("recipe"), jsonschema.Draft202012Validator)


def test_every_key_has_a_description() -> None:
    for name, definition in (schema("cell")["$defs"] | schema("recipe")["$defs"]).items():
        assert definition["description"], name
        for key, value in definition["properties"].items():
            assert value.get("description") or name in ("modbus", "opcua", "s7", "Secret"), f"{name}.{key}"
