"""A cell and its recipes -> a checked, compiled plan, or all their problems."""

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from edge.language import edition, recipe, shape, source, translations, trial_file
from edge.language.binding import Binding, Context, Written
from edge.language.cell_file import CELL, CellFile, apply_endpoints, load_cell
from edge.language.equipment import PhaseForm
from edge.language.expression import Compiled, from_cell
from edge.language.guards import CellGuards
from edge.language.master import Master
from edge.language.phases import PhaseCompiler
from edge.language.plant import Plant, load_plant
from edge.language.program import Phase, Plan, Recipe
from edge.language.shape import FAILED
from edge.language.sharing import Order, report_deadlocks
from edge.language.source import Node, Problems, suggest, tick
from edge.language.trial_plan import compile_trials
from edge.language.trial_program import Trial

PLANT = "plant.yaml"
TEST = ".test.yaml"
Endpoints = str | Path | Mapping[str, Mapping[str, Any]]


def load_plan(
    cell: str | Path, problems: Problems, recipes: Collection[str] | None = None, endpoints: Endpoints | None = None
) -> Plan | None:
    """The cell of this file with the recipes of its folder (those named, or all), or None with every problem reported.

    `endpoints` takes the place of the devices' connection settings (`edge.language.cell_file.apply_endpoints`).
    """
    before = problems.errors
    workshop = _open(Path(cell), problems)
    if workshop is None:
        return None
    for path in _recipe_files(Path(cell).parent):
        workshop.add(path, recipes)
    workshop.together()
    for name in recipes or ():
        workshop.startable(name, workshop.file.node)
    plan = workshop.plan
    if endpoints is not None:
        plan = msgspec.structs.replace(plan, cell=apply_endpoints(plan.cell, endpoints, problems))
    return plan if problems.errors == before else None


class Changes(msgspec.Struct, frozen=True):
    """What is other in the recipe files of a cell: recipes that are new or have changed, and names that are gone."""

    revised: tuple[Recipe, ...] = ()
    gone: tuple[str, ...] = ()


def changes(plan: Plan, problems: Problems) -> Changes:
    """The recipe files beside a plan's cell as they are now, against what is in force; every problem is reported.

    A recipe with a mistake is not among them: its version in force stays. A cell that has changed is a mistake too, for
    what is in force was checked against the one before.
    """
    path = Path(plan.cell.path)
    workshop = _open(path, problems)
    if workshop is None:
        return Changes()
    if workshop.plan.text != plan.text:
        message = "the cell has changed since edge started, and recipes are checked against it"
        problems.error(workshop.file.node, "cell-changed", message, "a changed cell takes a restart of edge")
        return Changes()
    for file in _recipe_files(path.parent):
        workshop.add(file)
    workshop.together()
    wrong = {problem.file for problem in problems if problem.severity == "error"}
    right = [one for one in workshop.plan.recipes.values() if one.file not in wrong]
    revised = [one for one in right if one.name not in plan.recipes or plan.recipes[one.name].hash != one.hash]
    there = workshop.names.keys() - workshop.operations()
    gone = [one.name for one in plan.recipes.values() if one.name not in there and one.file not in wrong]
    return Changes(tuple(revised), tuple(gone))


def recompile(plan: Plan, name: str, text: str) -> Recipe | None:
    """A version of a recipe from its text, against the plan's cell; None where it does not fit that.

    What it includes comes from that text as well, not from the files of now.
    """
    path, mark = Path(plan.cell.path), source.digest(text)[:7]
    own, included = edition.parted(text)
    file, *beside = (path.with_name(f"{title}.{mark}.yaml") for title in (name, *included))
    texts = zip(map(str, (file, *beside)), (own, *included.values()), strict=True)
    workshop = _open(path, Problems({plan.cell.path: plan.text, **dict(texts)}))
    if workshop is None:
        return None
    workshop.beside = beside
    workshop.add(file)
    return workshop.plan.recipes.get(name)


class Trials(msgspec.Struct, frozen=True):
    """A test file, its tests, the plan that has their recipe, and their plant; None: no plant models are installed."""

    file: str
    plan: Plan
    plant: Plant | None
    trials: list[Trial]


def load_trials(paths: Iterable[str | Path], problems: Problems) -> list[Trials]:
    """The tests in folders and test files; every problem in them, their cells and recipes is reported."""
    found: list[Trials] = []
    for cell, files in _wanted(paths, problems).items():
        tests = [path for path in (files if files is not None else _files(cell.parent)) if _is_test(path)]
        if not tests and cell.exists():
            place = source.Place(str(files[0] if files else cell), 1, 1)
            problems.error(place, "no-test", f"here is no test, no file *{TEST}", "name a test file or a cell's folder")
        elif not tests:
            source.load(cell, problems)  # which says why it cannot be read
        workshop = _open(cell, problems) if tests else None
        for path in tests if workshop is not None else ():
            if workshop is not None and (made := workshop.test(path)) is not None:
                found.append(made)
    return found


def _wanted(paths: Iterable[str | Path], problems: Problems) -> dict[Path, list[Path] | None]:
    """Cell file -> the recipe and test files that are meant, in the order to read them; None: all of its folder."""
    wanted: dict[Path, set[Path] | None] = {}
    for path in map(Path, paths):
        if _is_folder(path):
            found = sorted(path.rglob(CELL))
            place = source.Place(str(path), 1, 1)
            if not os.access(path, os.R_OK | os.X_OK):
                problems.error(place, "unreadable", "the folder cannot be read", "check its permissions")
            elif not found:
                problems.error(place, "no-cell", f"no {CELL} in this folder", "name a cell's folder")
            wanted |= dict.fromkeys(found)
        elif _belongs(path):
            known = wanted.setdefault(path.parent / CELL, set())
            if known is not None and path.name != PLANT:
                known.add(path)
        else:
            wanted[path] = None
    ordered = {cell: None if files is None else sorted(files) for cell, files in wanted.items()}
    return {cell: files and sorted(files, key=_is_test) for cell, files in ordered.items()}


def check(paths: Iterable[str | Path], problems: Problems) -> list[str]:
    """Checks folders (every cell in them), cell, recipe and test files; gives the files that were checked."""
    checked: list[str] = []
    for cell, files in _wanted(paths, problems).items():
        checked.append(str(cell))
        workshop = _open(cell, problems, runs=False)
        for path in () if workshop is None else files if files is not None else _files(cell.parent):
            if workshop is not None and (workshop.test(path) is not None if _is_test(path) else workshop.add(path)):
                checked.append(str(path))
        if workshop is not None:
            workshop.together()
        if workshop is not None and files is None:
            workshop.unused()
    return checked


def check_file(path: Path, problems: Problems) -> None:
    """Checks one file of a cell's folder, of which the text may be in `problems.given`; a cell with all beside it."""
    cell = path.parent / CELL
    if path.name == CELL:
        check([cell], problems)
        return
    workshop = _open(cell, problems, runs=False)
    if workshop is None:
        source.load(path, problems)
    elif path.name == PLANT:
        with suppress(LookupError):
            load_plant(workshop.file.cell, problems, path)
    elif _is_test(path):
        workshop.test(path)
    else:
        workshop.add(path)
        workshop.together()


def _is_folder(path: Path) -> bool:
    """False too where nobody may look; who opens it then says so."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _recipe_files(folder: Path) -> list[Path]:
    """The files of a folder that may be recipes."""
    return [path for path in sorted(folder.glob("*.yaml")) if path.name != CELL and _may_be_recipe(path)]


def _files(folder: Path) -> list[Path]:
    """The recipe files of a folder, then its test files."""
    return [*_recipe_files(folder), *sorted(folder.glob(f"*{TEST}"))]


def _may_be_recipe(path: Path) -> bool:
    """Whether a file is named neither as a plant nor as a test."""
    return path.name != PLANT and not _is_test(path)


def _is_test(path: Path) -> bool:
    return path.name.endswith(TEST)


def _belongs(path: Path) -> bool:
    """Whether a file that was named belongs to the cell beside it; its problems are reported later."""
    if path.name == CELL or not _may_be_recipe(path):
        return path.name != CELL
    node = source.load(path, Problems())
    return node is not None and "recipe" in node.entries


def _open(path: Path, problems: Problems, *, runs: bool = True) -> "_Workshop | None":
    file = load_cell(path, problems)
    return None if file is None else _Workshop(file, problems, runs=runs)


class _Workshop:
    """A cell with its phases compiled, to which recipes are added.

    `beside` are the files in which the recipes are looked for that others name, `names` the files of those that were
    added, by name, good or not, `sound` those without a mistake: they come into the plan unless they are operations.
    `included` are those that others include; `others` names and `unread` files that were passed over. The plan can run
    where it `runs`; else it is only checked.
    """

    def __init__(self, file: CellFile, problems: Problems, *, runs: bool) -> None:
        self.file = file
        self.problems = problems
        self._before = problems.errors
        self.beside = _recipe_files(Path(file.cell.path).parent)
        self.scope = from_cell(file.cell, runs=runs)
        self.broken = set(file.broken)
        self.known: dict[Written, Compiled] = {}
        self.names: dict[str, Path] = {}
        self.sound: set[str] = set()
        self.included: set[str] = set()
        self.added: set[Path] = set()
        self.forms: dict[str, recipe.RecipeFile] = {}
        self.chain: list[str] = []
        self.plants: dict[Path | None, Plant | None] = {}
        self.orders: list[Order] = []
        self.others: list[str] = []
        self.unread: list[Path] = []
        self.plan = Plan(file.cell, (), {})
        phases = [phase for name, form in file.phases.items() if (phase := self._phase(name, form)) is not None]
        self.plan = Plan(file.cell, tuple(phases), {}, text=problems.texts[file.cell.path])
        self.said = translations.of_cell(file.form)
        translations.report_empty(self.said, problems)
        guards = CellGuards(file.form, Binding(self._context(), problems))
        self.plan = msgspec.structs.replace(
            self.plan, interlocks=guards.interlocks(), alarms=guards.alarms(), permissives=guards.permissives()
        )

    def _context(self) -> Context:
        """For conditions of the cell itself, which may read any of its tags."""
        devices = range(len(self.file.cell.devices))
        return Context(self.plan, self.scope, (), {}, devices, frozenset(self.broken), {})

    def _phase(self, name: str, form: PhaseForm) -> Phase | None:
        """An equipment phase; None where it has problems."""
        phase = PhaseCompiler(name, form, self._context(), self.problems).phase()
        if phase is None:
            self.broken.add(name)
        return phase

    def add(self, path: Path, wanted: Collection[str] | None = None) -> bool:
        """Compiles the recipe of a file into the plan, if it is one, and one of those wanted; whether it was."""
        if path in self.added:
            return True
        if wanted is not None and not self._is_wanted(path, wanted):
            return False
        self.added.add(path)
        node = source.load(path, self.problems)
        if node is None:
            return True
        name = node.entries["recipe"].value if "recipe" in node.entries else None
        if name is None and "steps" not in node.entries:
            return False
        if name is not None and name.text in self.names:
            hint = "give each recipe of a cell a name of its own"
            message = f"{tick(name.text)} is already the recipe of {self.names[name.text].name}"
            self.problems.error(name, "recipe-twice", message, hint)
        elif name is not None:
            self.names[name.text] = path
        before = self.problems.errors
        form = shape.read(node, recipe.RecipeFile, self.problems)
        if form is FAILED:
            return True
        self.chain.append(form.recipe)
        self.forms[form.recipe] = form
        names = self.scope, frozenset(self.broken), self.known
        master = Master(form, self.plan, *names, self.problems, self._included)
        made = master.compile(path)
        self.chain.pop()
        if self.problems.errors == before and master.whole:
            self.sound.add(made.name)
        if form.operation:  # it counts where it is included
            return True
        self.orders += master.orders
        self.said += master.said
        if made.name in self.sound:
            self.plan.recipes[made.name] = made
        return True

    def _included(self, node: Node) -> recipe.RecipeFile | None:
        """The recipe that another includes, compiled alone before; None where it is not sound, or includes itself."""
        name = node.text
        self.included.add(name)
        if name in self.chain:
            chain = " → ".join([*self.chain[self.chain.index(name) :], name])
            self.problems.error(node, "includes-itself", f"{tick(name)} would include itself: {chain}", "leave one out")
            return None
        if name not in self.names:
            for other in self.beside:
                self.add(other, {name})
        if name not in self.names:
            self.unknown(name, node)
        return self.forms.get(name) if name in self.sound else None

    def operations(self) -> set[str]:
        """Those that nobody starts by themselves."""
        return {name for name, form in self.forms.items() if form.operation}

    def together(self) -> None:
        """Reports what only all recipes that were added show: deadlocks, and languages that a text lacks."""
        report_deadlocks(self.orders, self.problems)
        translations.report_missing(self.said, self.problems)

    def unused(self) -> None:
        """Warns of phases, operations and outputs that no recipe uses, where all recipes here are sound."""
        recipes = self.plan.recipes.values()
        if not recipes or self.problems.errors > self._before:
            return
        for name in sorted(self.operations() - self.included):
            hint = "include it, leave it out, or leave out `operation`: then it can be started"
            place = self.forms[name].place("operation")
            self.problems.warning(place, "unused-operation", f"no recipe includes the operation {tick(name)}", hint)
        used = {step.do.phase for recipe in recipes for step in recipe.steps if step.do is not None}
        entries = self.file.node.entries
        for index, phase in enumerate(self.plan.phases):
            if index not in used:
                place = entries["phases"].value.entries[phase.name].key
                hint = "leave it out, or run it with `do`"
                self.problems.warning(place, "unused-phase", f"no recipe runs the phase {tick(phase.name)}", hint)
        driven = {tag for one in (*recipes, *self.plan.phases) for tag in one.outputs}
        driven.update(self.file.cell.heartbeats.values())
        for tag in self.file.cell.tags:
            if tag.writable and tag.index not in driven:
                device, _, key = tag.name.partition(".")
                place = entries["tags"].value.entries[device].value.entries[key].key
                hint = "leave it out, drive it, or leave `access` out where it is only read"
                self.problems.warning(place, "unused-tag", f"no recipe drives {tick(tag.name)}", hint)

    def test(self, path: Path) -> Trials | None:
        """The tests of a file, against its recipe, which is compiled first if it was not; None where it is unsound."""
        node = source.load(path, self.problems)
        form = FAILED if node is None else shape.read(node, trial_file.TrialFile, self.problems)
        if form is FAILED:
            return None
        if form.recipe not in self.names:
            for other in self.beside:
                self.add(other, {form.recipe})
        self.startable(form.recipe, form.place("recipe"))
        if form.recipe not in self.plan.recipes:
            return None
        trials = compile_trials(form, self.plan, self.scope, frozenset(self.broken), self.problems)
        return Trials(str(path), self.plan, self._plant(form), trials)

    def _plant(self, form: trial_file.TrialFile) -> Plant | None:
        """The plant of a test file, which is read once; None where it has problems or nothing makes plants here."""
        path = None if form.plant is None else Path(form.plant)
        if path not in self.plants:
            self.plants[path] = None
            if path is not None and not path.exists():
                self.problems.error(form.place("plant"), "no-file", f"there is no file {tick(str(path))}")
                return None
            with suppress(LookupError):
                self.plants[path] = load_plant(self.file.cell, self.problems, path)
        return self.plants[path]

    def startable(self, name: str, node: Node) -> None:
        """Reports a name at a place that is of no recipe, or of one that nobody starts by itself."""
        if name not in self.names:
            self.unknown(name, node)
        elif name in self.operations():
            hint = "name a recipe that includes it, or leave out `operation` in its file"
            message = f"{tick(name)} is an operation: it runs only as a part of other recipes"
            self.problems.error(node, "is-operation", message, hint)

    def unknown(self, name: str, node: Node) -> None:
        """Reports a recipe that is not beside the cell, and the files that may have been meant to be it."""
        names = list(dict.fromkeys([*self.names, *self.others]))
        hint = suggest(name, names)
        if not hint and self.unread:
            hint = f"it may be in {', '.join(dict.fromkeys(path.name for path in self.unread))}, which cannot be read"
        hint = hint or f"there are {', '.join(names) or 'none'}"
        self.problems.error(node, "unknown-recipe", f"no recipe {tick(name)} beside this cell", hint)
        for path in self.unread:
            source.load(path, self.problems)

    def _is_wanted(self, path: Path, wanted: Collection[str]) -> bool:
        """Whether a file is one of the recipes wanted; `unread` gathers those that cannot be read."""
        node = source.load(path, Problems(self.problems.given))
        if node is None:
            self.unread.append(path)
            return False
        entry = node.entries.get("recipe")
        if entry is not None:
            self.others.append(entry.value.text)
        return entry is not None and entry.value.text in wanted
