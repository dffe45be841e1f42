"""The JSON Schemas of the files that engineers write: they take what the loader takes, and refuse what it refuses."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from edge.language.cell_file import CELL
from edge.language.plan import PLANT, TEST
from edge.language.schema import KINDS, schema
from edge.language.source import Node, Problems, load

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes"
FILES = [*sorted((HERE / "bottling").glob("*.yaml")), *sorted(RECIPES.glob("*/*.yaml"))]
KEPT = [path for path in FILES if not path.name.startswith("plant")]


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


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_json_schema(kind: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(kind))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_it_takes_every_file_that_we_ship(path: Path) -> None:
    assert faults("cell" if path.name == "cell.yaml" else "test" if path.name.endswith(TEST) else "recipe", path) == []


@pytest.mark.parametrize("kind", KINDS)
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


HAPPENINGS = [
    ({"at": "3 s", "lost": "a", "for": "2 s"}, True),
    ({"when": "a.b > 3 L", "after": "1 s", "spike": "a.b", "to": "50 L"}, True),
    ({"step": "Fill", "answer": {"x": "yes"}}, True),
    ({"lost": "a"}, False),
    ({"at": "3 s"}, False),
    ({"at": "3 s", "step": "Fill", "lost": "a"}, False),
    ({"at": "3 s", "lost": "a", "command": "hold"}, False),
    ({"at": "3 s", "after": "1 s", "lost": "a"}, False),
    ({"at": "3 s", "spike": "a.b"}, False),
    ({"at": "3 s", "slow": "a"}, False),
    ({"at": "3 s", "command": "hold", "for": "3 s"}, False),
    ({"at": "3 s", "lost": "a", "by": "3 s"}, False),
]
EXPECTATIONS = [
    ({"by": "3 s", "that": "a.b"}, True),
    ({"at": "3 s", "state": "held"}, True),
    ({"step": "Fill", "within": "3 s", "that": "a.b", "state": "held"}, True),
    ({"by": "3 s"}, False),
    ({"by": "3 s", "at": "3 s", "that": "a.b"}, False),
    ({"by": "3 s", "step": "Fill", "that": "a.b"}, False),
    ({"within": "3 s", "that": "a.b"}, False),
    ({"by": "3 s", "state": "helt"}, False),
]


@pytest.mark.parametrize(
    ("key", "entry", "good"),
    [("happens", *one) for one in HAPPENINGS] + [("expect", *one) for one in EXPECTATIONS],
)
def test_an_entry_of_a_test(key: str, entry: dict[str, Any], good: bool) -> None:
    validator = jsonschema.Draft202012Validator(schema("test"))
    assert validator.is_valid({"recipe": "r", "tests": {"it fills": {key: [entry]}}}) == good


def untold(part: Any, where: str) -> list[str]:
    """The properties of a schema, at any depth, that have no description; conditions repeat them."""
    found: list[str] = []
    if isinstance(part, dict):
        for key, value in part.get("properties", {}).items():
            if value and "const" not in value and not value.get("description"):
                found.append(f"{where}.{key}")
        for key, value in part.items():
            found += untold(value, f"{where}.{key}")
    elif isinstance(part, list):
        for value in part:
            found += untold(value, where)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_has_a_description(kind: Any) -> None:
    whole = schema(kind)
    assert untold(whole, kind) == []
    assert [name for name, definition in whole["$defs"].items() if not definition["description"]] == []


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_shipped_file_names_its_schema(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    kinds = (("cell", CELL), ("test", TEST), ("plant", ".yaml" if path.name.startswith("plant") else PLANT))
    kind = next((kind for kind, ending in kinds if path.name.endswith(ending)), "recipe")
    assert first == f"# yaml-language-server: $schema=../schema/{kind}.json"
    assert (RECIPES / "schema" / f"{kind}.json").exists()
