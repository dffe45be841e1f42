"""The commands. Each imports what it needs when it runs, so that `edge --help` and `edge check` are quick."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge import __version__

if TYPE_CHECKING:
    from edge.cell import Cell
    from edge.program import Plan

EXIT_BAD_INPUT, EXIT_HELD, EXIT_ABORTED = 1, 3, 4

_EPILOG = """examples:
  edge check recipes/bottling                           find every mistake before anything moves
  edge run recipes/bottling/cell.yaml rinse-and-fill --simulate --answer label_ok=yes
  edge serve recipes/bottling/cell.yaml --simulate      then open http://127.0.0.1:8088
  edge tags recipes/bottling/cell.yaml --once           what every tag reads now
  edge batches                                          what has been made"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; gives its exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not hasattr(chosen, "call"):
        parser.print_help()
        return 2
    try:
        return chosen.call(chosen)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    about = "Runs the machines of a work cell: PLCs and robots over S7, Modbus and OPC UA, recipes in YAML."
    parser = argparse.ArgumentParser("edge", description=about, epilog=_EPILOG, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"edge {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_check(commands)
    _add_run(commands)
    _add_serve(commands)
    _add_tags(commands)
    _add_batches(commands)
    _add_schema(commands)
    return parser


_Commands = argparse._SubParsersAction  # pyright: ignore[reportPrivateUsage]


def _add_check(commands: "_Commands[argparse.ArgumentParser]") -> None:
    about = "Checks cells and recipes as a compiler checks programs: every problem at once, with its place and a hint."
    check = commands.add_parser("check", help="find every mistake in cells and recipes", description=about)
    check.add_argument(
        "paths", nargs="+", metavar="PATH", help="a folder with a cell.yaml, a cell file or a recipe file"
    )
    check.add_argument(
        "--format", choices=("text", "json"), default="text", help="for people (default) or for programs"
    )
    check.set_defaults(call=_check)


def _add_cell(command: argparse.ArgumentParser) -> None:
    command.add_argument("cell", metavar="CELL.yaml", help="the cell file")
    command.add_argument(
        "--endpoints",
        metavar="FILE",
        help="connection settings to use in place of the cell's, as `hil up --endpoints FILE` writes them",
    )


def _add_state(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state",
        metavar="DIR",
        help="where journal and batch record are kept (default: $STATE_DIRECTORY, else ~/.local/state/edge/CELL)",
    )


def _add_run(commands: "_Commands[argparse.ArgumentParser]") -> None:
    run = commands.add_parser(
        "run",
        help="run one recipe to its end, with live progress",
        description="Runs one recipe to its end. Exit code: 0 complete; 1 a mistake in a file; 3 held, stopped, or a "
        "question that nobody could answer; 4 aborted.",
    )
    _add_cell(run)
    run.add_argument("recipe", metavar="RECIPE", help="the recipe's name")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the recipe")
    run.add_argument(
        "--answer", action="append", default=[], metavar="NAME=VALUE", help="the answer to the question `into: NAME`"
    )
    run.add_argument("--by", default="", metavar="NAME", help="who runs it, for the record (default: your login name)")
    run.add_argument("--simulate", action="store_true", help="against simulated PLCs that are started for it")
    _add_state(run)
    run.set_defaults(call=_run)


def _add_serve(commands: "_Commands[argparse.ArgumentParser]") -> None:
    serve = commands.add_parser(
        "serve",
        help="the daemon: operator's page, API, metrics",
        description="Runs the cell until it is stopped (Ctrl-C, SIGTERM): the operator's page at /, the API at /api, "
        "Prometheus metrics at /metrics. There is no login yet: listen on this machine only.",
    )
    _add_cell(serve)
    serve.add_argument("--listen", default="127.0.0.1:8088", metavar="HOST:PORT", help="default: %(default)s")
    serve.add_argument("--simulate", action="store_true", help="against simulated PLCs that are started for it")
    serve.add_argument("--core", type=int, metavar="N", help="pin the control loop to this processor core")
    _add_state(serve)
    serve.set_defaults(call=_serve)


def _add_tags(commands: "_Commands[argparse.ArgumentParser]") -> None:
    tags = commands.add_parser(
        "tags",
        help="read every tag of a cell, or set outputs",
        description="Reads every tag, live (Ctrl-C ends it) or once, with quality and time; sets outputs. Where a "
        "daemon runs on the same state directory it goes through it, and a tag that a recipe owns is refused. Exit "
        "code: 0 every tag was read, or all was set; 1 a mistake in the cell, a tag that is bad, a value refused.",
    )
    _add_cell(tags)
    tags.add_argument("--once", action="store_true", help="read once and end")
    tags.add_argument("--format", choices=("text", "json"), default="text", help="for people (default) or for programs")
    tags.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TAG=VALUE",
        help="set an output, in the tag's unit or as in `2 1/s`, and wait until it is read back (again for more)",
    )
    _add_state(tags)
    tags.set_defaults(call=_tags)


def _add_batches(commands: "_Commands[argparse.ArgumentParser]") -> None:
    batches = commands.add_parser("batches", help="list the batches of the record", description="Lists the batches.")
    batch = commands.add_parser("batch", help="print the record of one batch", description="Prints a batch's record.")
    batch.add_argument("id", metavar="ID", help="the batch, as `edge batches` lists it")
    for command in (batches, batch):
        command.add_argument("--cell", metavar="CELL.yaml", help="the cell whose record it is (default: the only one)")
        command.add_argument("--format", choices=("text", "json"), default="text", help="for people or for programs")
        _add_state(command)
    batches.set_defaults(call=_batches)
    batch.set_defaults(call=_batch)


def _add_schema(commands: "_Commands[argparse.ArgumentParser]") -> None:
    schema = commands.add_parser("schema", help="print the JSON Schema of a file format, for editors")
    schema.add_argument("kind", choices=("cell", "recipe"))
    schema.set_defaults(call=_schema)


# --- what they do ----------------------------------------------------------------------------------------------------


def _fail(text: str, code: int = EXIT_BAD_INPUT) -> int:
    print(f"edge: {text}", file=sys.stderr)
    return code


def _check(chosen: argparse.Namespace) -> int:
    import msgspec

    from edge.plan import check
    from edge.source import Problems, as_json, report

    problems = Problems()
    check([Path(path) for path in chosen.paths], problems)
    if chosen.format == "json":
        print(msgspec.json.format(msgspec.json.encode(as_json(problems))).decode())
    elif problems.errors or len(list(problems)):
        print(report(problems, color=sys.stdout.isatty()))
    else:
        print("no problems found")
    return EXIT_BAD_INPUT if problems.errors else 0


def _load(chosen: argparse.Namespace) -> "Plan | None":
    """The plan of the chosen cell; None after its problems have been printed."""
    from edge.plan import load_plan
    from edge.source import Problems, report

    problems = Problems()
    endpoints = Path(chosen.endpoints) if chosen.endpoints else None
    plan = load_plan(Path(chosen.cell), problems, endpoints=endpoints)
    if problems.errors or plan is None:
        print(report(problems, color=sys.stderr.isatty()), file=sys.stderr)
        return None
    return plan


def _load_cell(chosen: argparse.Namespace) -> "Cell | None":
    """The chosen cell without its recipes, which may still be in the making; None after its problems were printed."""
    from edge.cell import apply_endpoints, load_cell
    from edge.source import Problems, report

    problems = Problems()
    loaded = load_cell(Path(chosen.cell), problems)
    cell = loaded.cell if loaded is not None else None
    if cell is not None and chosen.endpoints:
        cell = apply_endpoints(cell, chosen.endpoints, problems)
    if problems.errors or cell is None:
        print(report(problems, color=sys.stderr.isatty()), file=sys.stderr)
        return None
    return cell


def _run(chosen: argparse.Namespace) -> int:
    from edge import terminal
    from edge.start import run_once

    pairs = _pairs(chosen.set, "--set"), _pairs(chosen.answer, "--answer")
    if isinstance(pairs[0], str) or isinstance(pairs[1], str):
        return _fail(next(pair for pair in pairs if isinstance(pair, str)), 2)
    plan = _load(chosen)
    if plan is None:
        return EXIT_BAD_INPUT
    order = terminal.order(plan, chosen.recipe, pairs[0], pairs[1], chosen.by)
    if isinstance(order, str):
        return _fail(order)
    return run_once(plan, order, state_directory(chosen.state, plan.cell), simulate=chosen.simulate)


def _serve(chosen: argparse.Namespace) -> int:
    from edge.start import serve

    match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):([0-9]{1,5})", chosen.listen)
    if match is None or int(match[2]) > 65535:
        return _fail(f"--listen {chosen.listen}: HOST:PORT was expected, as in 127.0.0.1:8088", 2)
    plan = _load(chosen)
    if plan is None:
        return EXIT_BAD_INPUT
    where = match[1].strip("[]"), int(match[2])
    return serve(plan, where, state_directory(chosen.state, plan.cell), simulate=chosen.simulate, core=chosen.core)


def _tags(chosen: argparse.Namespace) -> int:
    from edge import technician

    settings = _pairs(chosen.set, "--set")
    if isinstance(settings, str):
        return _fail(settings, 2)
    cell = _load_cell(chosen)
    if cell is None:
        return EXIT_BAD_INPUT
    look = technician.Look(cell, chosen.once, chosen.format == "json", tuple(settings.items()))
    return technician.run(look, state_directory(chosen.state, cell))


def _batches(chosen: argparse.Namespace) -> int:
    return _print_record(chosen, None)


def _batch(chosen: argparse.Namespace) -> int:
    return _print_record(chosen, chosen.id)


def _print_record(chosen: argparse.Namespace, batch: str | None) -> int:
    from edge import record

    try:
        state = _record_directory(chosen)
        print(record.printed(state / "edge.db", batch, chosen.format))
    except record.NoRecord as missing:
        return _fail(str(missing))
    return 0


def _record_directory(chosen: argparse.Namespace) -> Path:
    """Where the record is: as said, that of the named cell, or the only one that there is."""
    from edge import record

    if chosen.state or os.environ.get("STATE_DIRECTORY"):
        return _base(chosen.state)
    if chosen.cell:
        plan_cell = re.search(r"^cell:\s*(\S+)", Path(chosen.cell).read_text(encoding="utf-8"), re.MULTILINE)
        return _base(None) / (plan_cell[1] if plan_cell else "cell")
    found = [folder for folder in sorted(_base(None).glob("*")) if (folder / "edge.db").exists()]
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found)
        raise record.NoRecord(
            f"there are records of several cells ({names}): name one with --state DIR" if found else "no batch yet"
        )
    return found[0]


def _schema(chosen: argparse.Namespace) -> int:
    import msgspec

    from edge.schema import schema

    print(msgspec.json.format(msgspec.json.encode(schema(chosen.kind))).decode())
    return 0


def _pairs(given: list[str], option: str) -> dict[str, str] | str:
    """`NAME=VALUE`s as a dict of texts; a text that says what is wrong."""
    pairs: dict[str, str] = {}
    for pair in given:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            return f"{option} {pair}: NAME=VALUE was expected"
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


if __name__ == "__main__":
    sys.exit(main())
