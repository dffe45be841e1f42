"""The commands. Each imports what it needs when it runs, so that `edge --help` and `edge check` are quick."""

import argparse
import gc
import io
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.arguments import parser

if TYPE_CHECKING:
    from edge.language.cell import Cell
    from edge.language.program import Plan

EXIT_BAD_INPUT, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; gives its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a text in Arabic may come to a terminal that knows Latin only
    chosen, unknown = parser().parse_known_args(arguments)
    if unknown:
        chosen.parser.refuse(unknown[0])
    if chosen.command is None:
        chosen.parser.print_help()
        return EXIT_USAGE
    try:
        return _COMMANDS[chosen.command](chosen)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _fail(text: str, code: int = EXIT_BAD_INPUT) -> int:
    print(f"edge: {text}", file=sys.stderr)
    return code


def _check(chosen: argparse.Namespace) -> int:
    import msgspec

    from edge.language.plan import check
    from edge.language.report import as_json, report
    from edge.language.source import Problems

    gc.disable()  # nothing that is read refers back to what holds it, and the command soon ends
    problems = Problems()
    check([Path(path) for path in chosen.paths], problems)
    if chosen.format == "json":
        print(msgspec.json.format(msgspec.json.encode(as_json(problems))).decode())
    elif problems.errors or len(list(problems)):
        print(report(problems, color=sys.stdout.isatty()), end="")
    else:
        print("no problems found")
    return EXIT_BAD_INPUT if problems.errors else 0


def _load(chosen: argparse.Namespace, recipes: list[str] | None = None) -> "Plan | None":
    """The plan of the chosen cell with these recipes (None: all); None after its problems have been printed."""
    from edge.language.cell_file import cell_file
    from edge.language.plan import load_plan
    from edge.language.report import report
    from edge.language.source import Problems

    problems = Problems()
    endpoints = Path(chosen.endpoints) if chosen.endpoints else None
    plan = load_plan(cell_file(chosen.cell), problems, recipes, endpoints)
    if problems.errors or plan is None:
        print(report(problems, color=sys.stderr.isatty()), end="", file=sys.stderr)
        return None
    return plan


def _load_cell(chosen: argparse.Namespace) -> "Cell | None":
    """The chosen cell without its recipes, which may still be in the making; None after its problems were printed."""
    from edge.language.cell_file import apply_endpoints, cell_file, load_cell
    from edge.language.report import report
    from edge.language.source import Problems

    problems = Problems()
    loaded = load_cell(cell_file(chosen.cell), problems)
    cell = loaded.cell if loaded is not None else None
    if cell is not None and chosen.endpoints:
        cell = apply_endpoints(cell, chosen.endpoints, problems)
    if problems.errors or cell is None:
        print(report(problems, color=sys.stderr.isatty()), end="", file=sys.stderr)
        return None
    return cell


def _run(chosen: argparse.Namespace) -> int:
    from edge.order import WrongOrder, order
    from edge.start import run_once

    pairs = _pairs(chosen.set, "--set"), _pairs(chosen.answer, "--answer")
    if isinstance(pairs[0], str) or isinstance(pairs[1], str):
        return _fail(next(pair for pair in pairs if isinstance(pair, str)), EXIT_USAGE)
    plan = _load(chosen, [chosen.recipe])  # a mistake in another recipe is no reason not to run this one
    if plan is None:
        return EXIT_BAD_INPUT
    try:
        wanted = order(plan, chosen.recipe, pairs[0], pairs[1], chosen.by, chosen.mode)
    except WrongOrder as wrong:
        return _fail(str(wrong))
    return run_once(plan, wanted, state_directory(chosen.state, plan.cell), simulate=chosen.simulate)


def _serve(chosen: argparse.Namespace) -> int:
    from edge.start import serve

    match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):([0-9]{1,5})", chosen.listen)
    if match is None or int(match[2]) > 65535:
        return _fail(f"--listen {chosen.listen}: HOST:PORT was expected, as in 127.0.0.1:8088", EXIT_USAGE)
    plan = _load(chosen)
    if plan is None:
        return EXIT_BAD_INPUT
    where = match[1].strip("[]"), int(match[2])
    return serve(plan, where, state_directory(chosen.state, plan.cell), simulate=chosen.simulate, core=chosen.core)


def _test(chosen: argparse.Namespace) -> int:
    from edge.trial.report import run_tests
    from edge.trial.swept import sweep_tests

    if chosen.sweep and chosen.junit:
        return _fail("--junit cannot stand beside --sweep", EXIT_USAGE)
    try:
        good = sweep_tests(chosen.paths, chosen.cases) if chosen.sweep else run_tests(chosen.paths, chosen.junit)
    except OSError as error:
        return _fail(f"{error.filename} cannot be written: {error.strerror}")
    return 0 if good else EXIT_BAD_INPUT


def _tags(chosen: argparse.Namespace) -> int:
    from edge import technician

    settings = _pairs(chosen.set, "--set")
    if isinstance(settings, str):
        return _fail(settings, EXIT_USAGE)
    cell = _load_cell(chosen)
    if cell is None:
        return EXIT_BAD_INPUT
    look = technician.Look(cell, chosen.once, chosen.format == "json", tuple(settings.items()), chosen.simulate)
    return technician.run(look, state_directory(chosen.state, cell))


def _replay(chosen: argparse.Namespace) -> int:
    from edge import replay

    if chosen.to_test:
        return _write_test(chosen)
    recipe = Path(chosen.recipe) if chosen.recipe else None
    return replay.run(replay.Settings(Path(chosen.state_dir), chosen.batch, recipe))


def _write_test(chosen: argparse.Namespace) -> int:
    from edge import incident

    try:
        Path(chosen.to_test).write_text(incident.test_of(Path(chosen.state_dir), chosen.batch), encoding="utf-8")
    except LookupError as missing:
        return _fail(str(missing.args[0]))
    except OSError as error:
        return _fail(f"{chosen.to_test} cannot be written: {error.strerror}")
    print(f"{chosen.to_test} is written; beside its cell and recipe, `edge test {chosen.to_test}` runs it")
    return 0


def _lsp(_chosen: argparse.Namespace) -> int:
    from edge import lsp

    return lsp.run()


def _reload(chosen: argparse.Namespace) -> int:
    from edge import reload

    cell = _load_cell(chosen)
    if cell is None:
        return EXIT_BAD_INPUT
    return reload.run(cell, state_directory(chosen.state, cell), chosen.by)


def _browse(chosen: argparse.Namespace) -> int:
    from edge import browse

    cell = _load_cell(chosen)
    if cell is None:
        return EXIT_BAD_INPUT
    return browse.run(cell, chosen.device, simulate=chosen.simulate)


def _batches(chosen: argparse.Namespace) -> int:
    return _print_record(chosen, None, lot=chosen.lot, order=chosen.order)


def _batch(chosen: argparse.Namespace) -> int:
    return _print_record(chosen, chosen.id)


def _print_record(chosen: argparse.Namespace, batch: str | None, **of: str) -> int:
    from edge import record, record_text

    try:
        state = _record_directory(chosen)
        print(record_text.printed(state / "edge.db", batch, chosen.format, **of))
    except record.NoRecord as missing:
        return _fail(str(missing))
    return 0


def _record_directory(chosen: argparse.Namespace) -> Path:
    """Where the record is: as said, that of the named cell, or the only one that there is."""
    from edge import record
    from edge.language.cell_file import cell_file

    if chosen.state or os.environ.get("STATE_DIRECTORY"):
        return _base(chosen.state)
    if chosen.cell:
        return _base(None) / _cell_name(cell_file(chosen.cell))
    found = [folder for folder in sorted(_base(None).glob("*")) if (folder / "edge.db").exists()]
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found)
        raise record.NoRecord(
            f"there are records of several cells ({names}): name one with --cell CELL or --state DIR"
            if found
            else f"no batch has been recorded below {_base(None)}: name another directory with --state DIR"
        )
    return found[0]


def _cell_name(path: Path) -> str:
    """The name of the cell of a file, be it sound in all else or not. Raises NoRecord."""
    from edge import record
    from edge.language import source

    problems = source.Problems()
    node = source.load(path, problems)
    entry = node.entries.get("cell") if node is not None else None
    if entry is None:
        raise record.NoRecord(next((f"{path}: {one.message}" for one in problems), f"{path} is no cell file"))
    return entry.value.text


def _schema(chosen: argparse.Namespace) -> int:
    import msgspec

    from edge.language.schema import schema

    print(msgspec.json.format(msgspec.json.encode(schema(chosen.kind))).decode())
    return 0


def _pairs(given: list[str], option: str) -> dict[str, str] | str:
    """`NAME=VALUE`s as a dict of texts; a text that says what is wrong."""
    pairs: dict[str, str] = {}
    for pair in given:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            return f"{option} {pair}: NAME=VALUE was expected"
        if name in pairs:
            return f"{option} {name} was given twice: {pairs[name]} and {value}"
        pairs[name] = value
    return pairs


def _base(state: str | None) -> Path:
    given = state or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edge"


def state_directory(state: str | None, cell: "Cell") -> Path:
    """Where a cell's journal and batch record are kept."""
    base = _base(state)
    return base if state or os.environ.get("STATE_DIRECTORY") else base / cell.name


_COMMANDS = {
    "check": _check,
    "run": _run,
    "serve": _serve,
    "test": _test,
    "tags": _tags,
    "browse": _browse,
    "reload": _reload,
    "lsp": _lsp,
    "batches": _batches,
    "batch": _batch,
    "replay": _replay,
    "schema": _schema,
}


if __name__ == "__main__":
    sys.exit(main())
