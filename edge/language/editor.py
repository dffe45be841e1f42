"""What an editor shows of a file that is being written: completions, hovers, definitions. No input, no output.

What the keys are comes from the forms that the loader reads by, what the names are from the cell beside the file.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import inspect

from drivers import driver
from drivers.value import TYPES
from edge.language import cursor, shape, units
from edge.language.calls import ARGUMENTS
from edge.language.cell import Tag
from edge.language.cell_file import CELL, CellFile, CellForm, DeviceForm, load_cell
from edge.language.cursor import Cursor
from edge.language.plan import TEST, check_file
from edge.language.recipe import RecipeFile
from edge.language.source import Node, Place, Problem, Problems
from edge.language.trial_file import TrialFile

Kind = Literal["key", "tag", "phase", "unit", "measure", "variable", "function", "value"]
_OUTPUTS = frozenset({"set", "during", "pulse"})
_AFTER_NUMBER = re.compile(r"[0-9]\s*[^\W\d]*\Z")


class Offer(msgspec.Struct, frozen=True):
    """A word that may stand at the cursor, and what it is."""

    word: str
    kind: Kind
    about: str = ""


class Editor:
    """The files of a workspace, with the texts of those that are open. A cell that is broken just now is known as it
    was last.
    """

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self._cells: dict[Path, CellFile] = {}

    def cell(self, path: Path) -> CellFile | None:
        """The cell beside a file."""
        file = path.parent / CELL
        if str(file) in self.texts or file.exists():
            found = load_cell(file, Problems(self.texts))
            if found is not None:
                self._cells[file] = found
        return self._cells.get(file)

    def problems(self, path: Path) -> list[Problem]:
        """All that is wrong in a file, as `edge check` says it."""
        problems = Problems(self.texts)
        check_file(path, problems)
        return [one for one in problems if Path(one.file) == path]

    # Completion.

    def offers(self, path: Path, line: int, column: int) -> list[Offer]:
        """The words that may stand at the cursor (line and column from 0)."""
        lines = self.texts.get(str(path), "").split("\n")
        here = cursor.at(lines, line, column)
        around = _walk(path, here.path)
        if here.key:
            return list(self._values(path, lines, here, around))
        return list(self._keys(path, here, around))

    def _keys(self, path: Path, here: Cursor, around: inspect.Type | None) -> Iterator[Offer]:
        above = here.path[-1] if here.path else ""
        file = self.cell(path)
        if above in _OUTPUTS and file is not None:
            yield from (Offer(tag.name, "tag", _tag(tag, file)) for tag in file.cell.tags if tag.writable)
        elif above == "with" and file is not None:
            names = {name: phase for phase, form in file.phases.items() for name in form.parameters}
            yield from (Offer(name, "variable", f"parameter of {phase}") for name, phase in names.items())
        elif path.name == CELL and here.path[:1] == ("devices",) and len(here.path) == 2:
            yield from self._device(path, here.path[1])
        elif above == "uses" and file is not None:
            yield from (Offer(unit, "unit", "a unit of the cell") for unit in file.cell.units)
        elif around is not None:
            yield from (Offer(key, "key", about) for key, about in shape.described(around).items())

    def _device(self, path: Path, name: str) -> Iterator[Offer]:
        """The keys of a device: those of all, and those of its driver."""
        yield from (Offer(key, "key", about) for key, about in shape.described(shape.root(DeviceForm)).items())
        found = re.search(rf"^\s+{re.escape(name)}:.*?driver:\s*(\w+)", self.texts[str(path)], re.M | re.S)
        if found and found[1] in driver.names():
            yield from (Offer(key, "key") for key in shape.keys(driver.find(found[1]).Settings))

    def _values(self, path: Path, lines: list[str], here: Cursor, around: inspect.Type | None) -> Iterator[Offer]:
        kind = None if around is None else shape.inner(around, here.key)
        simple = None if kind is None else shape.plain(kind)
        file = self.cell(path)
        if here.key == "unit":
            yield from (Offer(name, "measure", units.describe(units.parse(name))) for name in units.names())
        elif here.key == "type" and path.name == CELL:
            yield from (Offer(name, "value") for name in TYPES)
        elif here.key == "driver":
            yield from (Offer(name, "value") for name in driver.names())
        elif here.key == "do" and file is not None and not isinstance(simple, inspect.LiteralType):
            yield from (Offer(name, "phase", "an equipment phase") for name in file.phases)
        elif here.key == "uses" and file is not None:
            yield from (Offer(unit, "unit", "a unit of the cell") for unit in file.cell.units)
        elif isinstance(simple, inspect.LiteralType):
            yield from (Offer(str(value), "value") for value in simple.values)
        elif isinstance(simple, inspect.BoolType):
            yield from (Offer(word, "value") for word in ("true", "false"))
        elif isinstance(simple, inspect.Metadata) or here.path[-1:] == ("parameters",):
            yield from self._expression(lines, here, file)

    @staticmethod
    def _expression(lines: list[str], here: Cursor, file: CellFile | None) -> Iterator[Offer]:
        if _AFTER_NUMBER.search(here.before):
            yield from (Offer(name, "measure", units.describe(units.parse(name))) for name in units.names())
            return
        for tag in file.cell.tags if file is not None else ():
            yield Offer(tag.name, "tag", _tag(tag, file) if file is not None else "")
        yield from (Offer(name, "variable", "of this recipe") for name in _variables(lines))
        yield from (Offer(name, "function") for name in ARGUMENTS)

    # Hover and definition.

    def hover(self, path: Path, line: int, column: int) -> str:
        """What the word at the cursor is, in words; "" where it is nothing that has a name."""
        lines = self.texts.get(str(path), "").split("\n")
        here = cursor.at(lines, line, column)
        file = self.cell(path)
        for tag in file.cell.tags if file is not None else ():
            if file is not None and tag.name == here.word:
                return f"**{tag.name}** {_tag(tag, file)}"
        if file is not None and here.word in file.phases:
            form = file.phases[here.word]
            return f"**{here.word}** an equipment phase; parameters: {', '.join(form.parameters) or 'none'}"
        if here.word in (known := _variables(lines)):
            return f"**{here.word}** line {known[here.word] + 1}: `{lines[known[here.word]].strip()}`"
        around = _walk(path, here.path)
        about = "" if around is None else shape.described(around).get(here.word, "")
        return f"**{here.word}** {about}" if about else ""

    def definition(self, path: Path, line: int, column: int) -> Place | None:
        """Where what the cursor stands on is defined: a tag or phase in the cell, a parameter or answer in the file."""
        lines = self.texts.get(str(path), "").split("\n")
        here = cursor.at(lines, line, column)
        file = self.cell(path)
        if file is not None and "." in here.word:
            device, _, name = here.word.partition(".")
            found = _below(file.node, "tags", device, name) or _below(file.node, "phases", here.word)
            return None if found is None else found.place
        if here.word in (known := _variables(lines)):
            row = known[here.word]
            return Place(str(path), row + 1, lines[row].index(here.word) + 1, len(here.word))
        return self._recipe(path, here.word) if here.key == "include" or "include" in here.path else None

    def _recipe(self, path: Path, name: str) -> Place | None:
        """The file of a recipe by its name."""
        for other in sorted(path.parent.glob("*.yaml")):
            text = self.texts.get(str(other)) or other.read_text(encoding="utf-8", errors="replace")
            if found := re.search(rf"^recipe: *[\"']?{re.escape(name)}\b", text, re.M):
                return Place(str(other), text[: found.start()].count("\n") + 1, 1, len(found[0]))
        return None


def _walk(path: Path, keys: tuple[str, ...]) -> inspect.Type | None:
    """The type of what stands below these keys of a file."""
    forms: Mapping[bool, Any] = {path.name == CELL: CellForm, path.name.endswith(TEST): TrialFile}
    kind: inspect.Type | None = shape.root(forms.get(True, RecipeFile))
    for key in keys:
        kind = None if kind is None else shape.inner(kind, key)
    return kind


def _tag(tag: Tag, file: CellFile) -> str:
    """`float32 in L, 0 to 100, read from DB1.DBD0 of mixer (s7)`."""
    device = file.cell.devices[tag.device]
    unit = f" in {tag.unit}" if tag.unit else ""
    span = f", {tag.low:g} to {tag.high:g}" if tag.low is not None and tag.high is not None else ""
    access = "written to" if tag.writable else "read from"
    return f"{tag.type.name}{unit}{span}, {access} {tag.address} of {device.name} ({device.driver})"


def _variables(lines: list[str]) -> dict[str, int]:
    """The parameters, answers and `let`s of a recipe, each with the line (from 0) where it stands first."""
    found: dict[str, int] = {}
    for number, text in enumerate(lines):
        for match in re.finditer(r"\binto: *(\w+)", text):
            found.setdefault(match[1], number)
        key = re.match(r"[\s-]*(\w+):", text)
        if key:
            around = cursor.at(lines, number, len(text) - len(text.lstrip())).path
            if around in (("parameters",), ("steps", "let")):
                found.setdefault(key[1], number)
        for match in re.finditer(r"\b(?:parameters|let): *\{ *(\w+):", text):
            found.setdefault(match[1], number)
    return found


def _below(node: Node, *keys: str) -> Node | None:
    """The key at the end of a path of keys."""
    found = None
    for key in keys:
        entry = node.entries.get(key)
        if entry is None:
            return None
        found, node = entry.key, entry.value
    return found
