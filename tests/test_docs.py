"""What the documentation says is so: its examples are sound, its commands and names are those of the program."""

import argparse
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from drivers import driver
from drivers.identity import Secret
from drivers.modbus_settings import Serial, TlsSettings
from edge import arguments
from edge.engine.states import COMMANDS, TABLE
from edge.language import recipe, rules, units
from edge.language.cell_file import CELL, CellForm, DeviceForm, TagForm, apply_endpoints, load_cell
from edge.language.equipment import PhaseForm, PhaseLimits
from edge.language.plan import PLANT, check
from edge.language.report import report
from edge.language.shape import keys
from edge.language.source import Problem, Problems, parse
from hil import cli as hil_cli
from hil.controllers import CONTROLLERS
from hil.plant_file import PlantForm, load_plant
from tests.documents import PAGES, ROOT, Block, blocks
from tests.served import Served, wait_for

BOTTLING = ROOT / "recipes" / "bottling"
CELL_PAGE, RECIPE_PAGE, OPERATE_PAGE = (ROOT / "docs" / name for name in ("cell.md", "recipes.md", "operate.md"))

# An example may be a part: what a whole file needs besides is put behind it.
REST = {
    "cell": {"cell": "example", "devices": "{}", "tags": "{}"},
    "recipe": {
        "recipe": "example",
        "uses": "[mixer, conveyor, robot]",
        "parameters": "{volume: {unit: L, default: 20, range: [5, 50]}}",
        "steps": "[{wait: 1 s}]",
    },
    "plant": {},
}
KEYS = {"cell": set(keys(CellForm)), "recipe": set(keys(recipe.RecipeFile)), "plant": set(keys(PlantForm))}
OF_A_PART = {"unused-parameter", "unused-variable", "unused-unit", "unused-phase", "unused-tag"}
"""What the checker may say of an example that is only a part of a file."""

EXAMPLES = [block for page in PAGES for block in blocks(page, "yaml") if "\ntests:" not in block.text]


def whole(block: Block) -> tuple[str, str]:
    """(kind, text) of the file that an example is, or is a part of."""
    text, problems = f"steps:\n{block.text}" if block.text.startswith("- ") else block.text, Problems()
    node = parse(text, block.place, problems)
    assert node is not None, report(problems)
    kinds = sorted(KEYS, key=lambda kind: not block.page.startswith(kind))  # both cells and recipes have interlocks
    kind = next((kind for kind in kinds if KEYS[kind].issuperset(node.entries)), None)
    assert kind is not None, f"{block.place}: an example of a file that edge does not know: {list(node.entries)}"
    rest = [f"{key}: {value}" for key, value in REST[kind].items() if key not in node.entries]
    return kind, "\n".join([text.rstrip("\n"), *rest, ""])


def cell_of(block: Block) -> str:
    """The cell in which an example of a recipe or plant lives: the last one of its page, else that of the bottles."""
    page = next(page for page in PAGES if page.name == block.page)
    before = [one.text for one in blocks(page, "yaml") if one.line < block.line and re.search("^cell:", one.text, re.M)]
    return before[-1] if before else (BOTTLING / CELL).read_text(encoding="utf-8")


def found_in(block: Block, folder: Path) -> list[Problem]:
    """What the checker finds in the file of an example."""
    problems = Problems()
    kind, text = whole(block)
    (folder / CELL).write_text(text if kind == "cell" else cell_of(block), encoding="utf-8")
    if kind == "recipe":
        (folder / "example.yaml").write_text(text, encoding="utf-8")
        for name in re.findall(r"^  include: (\S+)$", text, re.MULTILINE):
            shutil.copy(BOTTLING / f"{name}.yaml", folder)
    check([folder], problems)
    if kind == "plant":
        (folder / PLANT).write_text(text, encoding="utf-8")
        loaded = load_cell(folder / CELL, Problems())
        assert loaded is not None
        load_plant(loaded.cell, problems)
    rest = any(line not in block.text for line in text.splitlines())
    part = OF_A_PART if rest else OF_A_PART & {"unused-phase", "unused-tag"}
    return [one for one in problems if one.code not in part]


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.place)
def test_every_example_is_sound(block: Block, tmp_path: Path) -> None:
    found = found_in(block, tmp_path)
    assert not found, f"{block.place}\n" + "\n".join(f"{one.line}: {one.message} ({one.hint})" for one in found)


def test_the_examples_of_other_connections_are_sound(tmp_path: Path) -> None:
    for number, block in enumerate(blocks(CELL_PAGE, "yaml endpoints")):
        loaded, problems = load_cell(BOTTLING / CELL, Problems()), Problems()
        assert loaded is not None
        path = tmp_path / f"{number}.yaml"
        path.write_text(block.text, encoding="utf-8")
        assert apply_endpoints(loaded.cell, path, problems) != loaded.cell
        assert not list(problems), report(problems)


# --- commands --------------------------------------------------------------------------------------------------------


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(place, words) of each command of edge or hil in a fenced block, from its name on."""
    for page in PAGES:
        for block in blocks(page, "", "sh"):
            for number, line in enumerate(block.text.splitlines(), start=block.line):
                words = re.sub("^(sudo )?(-u edge )?", "", line)
                if re.match(r"(\S*/)?(edge|hil) \S", words):
                    name, *rest = shlex.split(words, comments=True)
                    yield f"{page.name}:{number}", [Path(name).name, *rest]


@pytest.mark.parametrize(("place", "words"), list(command_lines()), ids=lambda value: str(value)[:60])
def test_every_command_can_be_typed(place: str, words: list[str]) -> None:
    name, *rest = words
    parser: argparse.ArgumentParser = arguments.parser() if name == "edge" else hil_cli._parser()
    try:
        _, unknown = parser.parse_known_args(rest)
    except SystemExit as ended:  # --help and --version end it too
        assert ended.code == 0, f"{place}: {words}"
    else:
        assert not unknown, f"{place}: {unknown}"
    missing = [word for word in rest if word.startswith("recipes/") and not (ROOT / word).exists()]
    assert not missing, f"{place}: {missing}"


# --- names -----------------------------------------------------------------------------------------------------------


def untold(page: Path, names: Iterable[str]) -> list[str]:
    """The names that a page does not say in code."""
    text = page.read_text(encoding="utf-8")
    return [name for name in names if not re.search(rf"[`{{, ]{re.escape(name)}(`|: |=)", text)]


@pytest.mark.parametrize(
    "form",
    [
        *(rules.CellInterlock, rules.Alarm, rules.Permissive, rules.UnexpectedRestart),
        *(CellForm, DeviceForm, TagForm, PhaseForm, PhaseLimits, Serial, TlsSettings, Secret, PlantForm),
        *(driver.find(name).Settings for name in driver.names()),
        *CONTROLLERS.values(),
    ],
    ids=lambda form: form.__name__,
)
def test_every_key_of_a_cell_is_told(form: type) -> None:
    assert untold(CELL_PAGE, keys(form)) == []


@pytest.mark.parametrize(
    "form",
    [
        *(recipe.RecipeFile, recipe.Parameter, rules.Interlock, rules.Permissive, recipe.Handlers, recipe.Say),
        *(recipe.Step, recipe.Way, recipe.Repeat, recipe.Ramp, recipe.Ask, recipe.Number, recipe.Raise),
    ],
    ids=lambda form: form.__name__,
)
def test_every_key_of_a_recipe_is_told(form: type) -> None:
    assert untold(RECIPE_PAGE, keys(form)) == []


def test_every_state_and_its_commands_are_told() -> None:
    table = section(RECIPE_PAGE, "States and commands").partition("\n### ")[0]
    rows = re.findall(r"^\| (`[a-z`, ]+) \|([a-z, ]*)\|", table, re.MULTILINE)
    told = {state: set(re.findall("[a-z]+", commands)) for states, commands in rows for state in words(states)}
    real = {state: set(COMMANDS) & row.keys() for state, row in TABLE.items() if state != "idle"}
    assert told == real


def test_every_unit_is_told() -> None:
    rows = re.findall(
        r"^\| (?:with prefixes|without)[^|]*\| (.*) \|$", section(RECIPE_PAGE, "Expressions"), re.MULTILINE
    )
    with_prefixes, without = (words(row, "[^`]+") for row in rows)
    assert with_prefixes == set(units._METRIC)
    assert without == set(units._OTHER) - with_prefixes


def test_every_problem_that_is_told_can_be_found() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "edge").rglob("*.py"))
    told = words(section(RECIPE_PAGE, "What `edge check` finds"), r"[a-z]+(?:-[a-z]+)+")
    real = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source)) | {f"unknown-{kind}" for kind in ("device", "tag")}
    assert told and told <= real, told - real


def test_every_metric_is_told() -> None:
    source = (ROOT / "edge" / "api" / "metrics.py").read_text(encoding="utf-8")
    real = set(re.findall(r'"(edge_[a-z_]+)"', source))
    told = words(section(OPERATE_PAGE, "Metrics"), "edge_[a-z_]+")
    assert {re.sub("_(total|info)$", "", name) for name in told} == real


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r"`(docs/[\w/.-]+)`", text)
        missing = [one for one in named if not ((page.parent / one).exists() or (ROOT / one).exists())]
        assert not missing, f"{page.name}: {missing}"


def section(page: Path, title: str) -> str:
    """What stands below a heading, up to the next of its rank."""
    text = page.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2]
    assert text, f"{page.name} has no section {title}"
    return text.partition("\n## ")[0]


def words(text: str, pattern: str = r"[\w-]+") -> set[str]:
    """What a text has in backticks that is of a pattern."""
    return set(re.findall(rf"`({pattern})`", text))


# --- the API ---------------------------------------------------------------------------------------------------------

ROUTE = re.compile(r"^\| `(GET|POST) (\S+)` \|.*\| `(curl .*)` \|$", re.MULTILINE)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = Served(tmp_path)
    yield found
    found.close()


def asked(served: Served, line: str, **variables: object) -> tuple[int, object]:
    """What the API answers to a line of curl."""
    for name, value in {"EDGE": "", **variables}.items():
        line = line.replace(f"${name}", str(value))
    parser = argparse.ArgumentParser("curl")
    parser.add_argument("-N", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("url")
    chosen = parser.parse_args(shlex.split(line)[1:])
    assert "$" not in line, line
    if chosen.N:
        return 200, None  # a stream without an end: test_api reads it
    body = None if chosen.json is None else chosen.json.encode()
    status, answer, _ = served.ask("GET" if body is None else "POST", chosen.url, body)
    return status, answer


def test_the_examples_of_the_api_work_and_every_route_is_told(served: Served) -> None:
    told = {f"{method} {path}": line for method, path, line in ROUTE.findall(section(OPERATE_PAGE, "API"))}
    source = (ROOT / "edge" / "api" / "server.py").read_text(encoding="utf-8")
    routes = {f"{how.upper()} {path}" for how, path in re.findall(r'web\.(get|post)\("([^"]+)"', source)}
    assert told.keys() == {re.sub(r"\{(\w+):.*\}", r"{\1}", route) for route in routes}
    status, answer = asked(served, told.pop("POST /api/tags/{tag}"))
    assert status == 200, answer
    status, answer = asked(served, told.pop("POST /api/batches"))
    assert status == 201, answer
    batch = answer["batch"]
    served.reach(batch, "running")
    served.loop.put(mixer__level=12.0, conveyor__bottle=True)
    question = wait_for(lambda: served.batch(batch)["questions"], "the question")[0]
    served.loop.lose("mixer")
    (alarm,) = wait_for(lambda: served.get("/api/state")["alarms"], "the alarm")
    served.loop.find("mixer")
    served.reach(batch, "held")
    assert served.post(f"/api/batches/{batch}/restart")[0] == 200
    served.reach(batch, "running")
    for route in ("mode", "answer"):
        line = told.pop(f"POST /api/batches/{{batch}}/{route}")
        status, answer = asked(served, line, BATCH=batch, PROMPT=question["prompt"])
        assert status == 200, f"{route}: {answer}"
    status, answer = asked(served, told.pop("POST /api/batches/{batch}/{command}"), BATCH=batch)
    assert status == 200, answer
    served.reach(batch, "held")
    assert served.post(f"/api/batches/{batch}/restart")[0] == 200
    served.reach(batch, "running")
    step = wait_for(lambda: served.batch(batch)["waits"], "a step that waits")[0]["step"]
    status, answer = asked(served, told.pop("POST /api/batches/{batch}/confirm"), BATCH=batch, STEP=step)
    assert status == 200, answer
    status, answer = asked(served, told.pop("POST /api/recipes/reload"))
    assert status == 422 and answer["problems"][0]["code"] == "no-file", answer  # the files of this cell are gone
    for route, line in told.items():
        status, answer = asked(served, line, BATCH=batch, PROMPT=question["prompt"], ALARM=alarm)
        assert status == 200, f"{route}: {answer}"
