"""The commands. Each imports what it needs when it runs, so that `edge --help` and `edge check` are quick."""

import argparse
import gc
import io
import os
import re
import sys
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING, NoReturn

from edge import __version__

if TYPE_CHECKING:
    from edge.cell import Cell
    from edge.program import Plan

EXIT_BAD_INPUT, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

_EPILOG = """examples:
  edge check recipes/bottling                           find every mistake before anything moves
  edge test recipes/bottling                            try the recipes on a model of the plant
  edge run recipes/bottling rinse-and-fill --simulate --answer label_ok=yes
  edge serve recipes/bottling --simulate                then open http://127.0.0.1:8088
  edge tags recipes/bottling --once                     what every tag reads now
  edge batches                                          what has been made

`edge COMMAND --help` says more of each."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; gives its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a text in Arabic may come to a terminal that knows Latin only
    parser = _parser()
    chosen, unknown = parser.parse_known_args(arguments)
    if unknown:
        chosen.parser.refuse(unknown[0])
    if not hasattr(chosen, "call"):
        parser.print_help()
        return EXIT_USAGE
    try:
        return chosen.call(chosen)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


class _Form(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions and examples as they are written, and the list of commands without a heading."""

    def _format_action(self, action: argparse.Action) -> str:
        text = super()._format_action(action)
        return text.partition("\n")[2] if isinstance(action, argparse._SubParsersAction) else text  # pyright: ignore[reportPrivateUsage]


class _Parser(argparse.ArgumentParser):
    """Says of a word that it does not know which one was probably meant."""

    def error(self, message: str) -> NoReturn:
        if wrong := re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message):
            message = f"no command `{wrong[1]}`{_meant(wrong[1], re.findall('[a-z]+', wrong[2]))}"
        super().error(message)

    def refuse(self, word: str) -> NoReturn:
        """Ends it for an argument that is one too many, or no option of this command."""
        name = word.partition("=")[0]
        if not word.startswith("-"):
            self.error(f"`{word}` is one argument too many")
        self.error(f"no option `{name}`{_meant(name, re.findall('--[a-z]+', self.format_help()))}")


def _meant(word: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, known, 1)
    return f": did you mean `{near[0]}`?" if near else ""


def _parser() -> _Parser:
    about = "Runs the machines of a work cell: PLCs and robots over S7, Modbus and OPC UA, recipes in YAML."
    parser = _Parser("edge", description=about, epilog=_EPILOG, formatter_class=_Form, allow_abbrev=False)
    parser.set_defaults(parser=parser)
    parser.add_argument("--version", action="version", version=f"edge {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_check(commands)
    _add_run(commands)
    _add_serve(commands)
    _add_test(commands)
    _add_tags(commands)
    _add_batches(commands)
    _add_schema(commands)
    return parser


_Commands = argparse._SubParsersAction  # pyright: ignore[reportPrivateUsage]


def _add(commands: "_Commands[_Parser]", name: str, summary: str, about: str, examples: str = "") -> _Parser:
    epilog = f"examples:\n{indent(dedent(examples).strip(), '  ')}" if examples else None
    command = commands.add_parser(
        name, help=summary, description=dedent(about).strip(), epilog=epilog, formatter_class=_Form, allow_abbrev=False
    )
    command.set_defaults(parser=command)
    return command


def _add_check(commands: "_Commands[_Parser]") -> None:
    check = _add(
        commands,
        "check",
        "find every mistake in cells, recipes and their tests",
        """
        Checks cells, recipes and recipe tests as a compiler checks programs: every problem at once, each with its
        place and a hint. Nothing is started and no device is asked. Exit code: 0 no mistake, 1 mistakes.
        """,
        """
        edge check recipes/bottling                   a folder: its cell, and all recipes and tests beside it
        edge check recipes/bottling/fill.yaml         one recipe, against the cell.yaml beside it
        edge check recipes/bottling/fill.test.yaml    its tests
        """,
    )
    check.add_argument(
        "paths", nargs="+", metavar="PATH", help="a folder with a cell.yaml, or a cell, recipe or test file"
    )
    _add_format(check)
    check.set_defaults(call=_check)


def _add_format(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format", choices=("text", "json"), default="text", help="for people (default) or for programs"
    )


def _add_cell(command: argparse.ArgumentParser) -> None:
    command.add_argument("cell", metavar="CELL", help="the cell file, or the folder that has it as cell.yaml")
    command.add_argument(
        "--endpoints",
        metavar="FILE",
        help="connection settings to use in place of the cell's, as `hil up --endpoints FILE` writes them",
    )


def _add_state(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state",
        metavar="DIR",
        help="where journal and batch record are kept (default: $STATE_DIRECTORY, else ~/.local/state/edge/NAME with "
        "the cell's name)",
    )


def _add_run(commands: "_Commands[_Parser]") -> None:
    run = _add(
        commands,
        "run",
        "run one recipe to its end, with live progress",
        """
        Runs one recipe to its end, shows its progress, and prints the batch record. At a terminal it takes hold,
        restart, pause, resume, stop and abort, and the answers to questions. Ctrl-C stops the batch in order, a second
        one aborts it, a third one ends edge at once; in each case the outputs go to failsafe.

        Exit code: 0 complete; 1 it could not begin, or edge itself failed; 3 stopped: by someone, by an interlock, or
        because it was held or asked something and there was no terminal; 4 aborted.
        """,
        """
        edge run recipes/bottling rinse-and-fill --simulate --answer label_ok=yes
        edge run cell.yaml fill --set volume=20 --set "speed=2 1/s" --by maria
        """,
    )
    _add_cell(run)
    run.add_argument("recipe", metavar="RECIPE", help="the recipe's name, as after `recipe:` in its file")
    run.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the recipe (again for more)"
    )
    run.add_argument(
        "--answer",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="the answer to the question that the recipe asks `into: NAME` (again for more)",
    )
    run.add_argument("--by", default="", metavar="NAME", help="who runs it, for the record (default: your login name)")
    run.add_argument("--simulate", action="store_true", help="against simulated PLCs that are started for it")
    _add_state(run)
    run.set_defaults(call=_run)


def _add_serve(commands: "_Commands[_Parser]") -> None:
    serve = _add(
        commands,
        "serve",
        "the daemon: operator's page, API, metrics",
        """
        Runs the cell until it is told to end (Ctrl-C, SIGTERM): the operator's page at /, the API at /api, Prometheus
        metrics at /metrics. Its log goes to standard error. At the end the outputs go to failsafe; a batch that was
        running is held when edge starts again. There is no login yet: listen on this machine only.

        Exit code: 0 it was told to end; 1 it could not begin.
        """,
        """
        edge serve recipes/bottling --simulate        then open http://127.0.0.1:8088
        edge serve /etc/edge/cell.yaml --core 3
        """,
    )
    _add_cell(serve)
    serve.add_argument(
        "--listen", default="127.0.0.1:8088", metavar="HOST:PORT", help="where the page is (default: %(default)s)"
    )
    serve.add_argument("--simulate", action="store_true", help="against simulated PLCs that are started for it")
    serve.add_argument(
        "--core",
        type=_core,
        metavar="N",
        help="pin the control loop to this processor core (default: the last of four or more)",
    )
    _add_state(serve)
    serve.set_defaults(call=_serve)


def _add_test(commands: "_Commands[_Parser]") -> None:
    test = _add(
        commands,
        "test",
        "run recipe tests against the plant's model, in virtual time",
        """
        Runs the tests of *.test.yaml files: each is a batch on the model that plant.yaml describes, with the faults,
        answers and commands that the test says, faster than real time. Nothing is started and no device is asked.

        Exit code: 0 all passed; 1 a test failed, or there is a mistake in a file.
        """,
        """
        edge test recipes/bottling                          every test beside its cell
        edge test recipes/bottling/rinse-and-fill.test.yaml --junit results.xml
        """,
    )
    test.add_argument("paths", nargs="+", metavar="PATH", help="a folder with a cell.yaml, or a test file")
    test.add_argument("--junit", metavar="FILE", help="also write the results to FILE, as CI servers read them")
    test.set_defaults(call=_test)


def _core(text: str) -> int:
    last = (os.cpu_count() or 1) - 1
    if re.fullmatch("[0-9]{1,4}", text) and int(text) <= last:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is no processor core of this machine: they are 0 to {last}")


def _add_tags(commands: "_Commands[_Parser]") -> None:
    tags = _add(
        commands,
        "tags",
        "read every tag of a cell, or set outputs",
        """
        Reads every tag, live (Ctrl-C ends it) or once, with quality and time; sets outputs. Where `edge serve` runs on
        the same state directory it goes through that, and an output that a recipe owns is refused.

        Exit code: 0 every tag was read, or all was set; 1 a mistake in the cell, a bad tag, a value refused.
        """,
        """
        edge tags recipes/bottling --once
        edge tags cell.yaml --set conveyor.lamp=true --set "conveyor.speed=100 mm/s"
        """,
    )
    _add_cell(tags)
    tags.add_argument("--once", action="store_true", help="read once and end")
    tags.add_argument("--simulate", action="store_true", help="at simulated PLCs that are started for it")
    _add_format(tags)
    tags.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TAG=VALUE",
        help="set an output, in the tag's unit or as in `2 1/s`, and wait until it is read back (again for more)",
    )
    _add_state(tags)
    tags.set_defaults(call=_tags)


def _add_batches(commands: "_Commands[_Parser]") -> None:
    batches = _add(commands, "batches", "list the batches of the record", "Lists the batches, the latest first.")
    batch = _add(
        commands,
        "batch",
        "print the record of one batch",
        "Prints the record of a batch: recipe, parameters, steps, states, questions, values, alarms.",
    )
    batch.add_argument("id", metavar="ID", help="the batch, as `edge batches` lists it")
    for command in (batches, batch):
        command.add_argument(
            "--cell",
            metavar="CELL",
            help="the cell whose record it is, its file or folder (default: the only one that has a record)",
        )
        _add_format(command)
        _add_state(command)
    batches.set_defaults(call=_batches)
    batch.set_defaults(call=_batch)


def _add_schema(commands: "_Commands[_Parser]") -> None:
    schema = _add(
        commands,
        "schema",
        "print the JSON Schema of a file format, for editors",
        """
        Prints the JSON Schema of cell, recipe or test files. An editor with the YAML language server completes and
        checks a file that begins with the line

          # yaml-language-server: $schema=PATH-OF-THE-SCHEMA
        """,
    )
    schema.add_argument("kind", choices=("cell", "recipe", "test"), help="which file format")
    schema.set_defaults(call=_schema)


# --- what they do ----------------------------------------------------------------------------------------------------


def _fail(text: str, code: int = EXIT_BAD_INPUT) -> int:
    print(f"edge: {text}", file=sys.stderr)
    return code


def _check(chosen: argparse.Namespace) -> int:
    import msgspec

    from edge.plan import check
    from edge.report import as_json, report
    from edge.source import Problems

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
    from edge.cell import cell_file
    from edge.plan import load_plan
    from edge.report import report
    from edge.source import Problems

    problems = Problems()
    endpoints = Path(chosen.endpoints) if chosen.endpoints else None
    plan = load_plan(cell_file(chosen.cell), problems, recipes, endpoints)
    if problems.errors or plan is None:
        print(report(problems, color=sys.stderr.isatty()), end="", file=sys.stderr)
        return None
    return plan


def _load_cell(chosen: argparse.Namespace) -> "Cell | None":
    """The chosen cell without its recipes, which may still be in the making; None after its problems were printed."""
    from edge.cell import apply_endpoints, cell_file, load_cell
    from edge.report import report
    from edge.source import Problems

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
        wanted = order(plan, chosen.recipe, pairs[0], pairs[1], chosen.by)
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
    from edge.trial_report import run_tests

    try:
        return 0 if run_tests(chosen.paths, chosen.junit) else EXIT_BAD_INPUT
    except OSError as error:
        return _fail(f"{chosen.junit} cannot be written: {error.strerror}")


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
    from edge.cell import cell_file

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
    from edge import record, source

    problems = source.Problems()
    node = source.load(path, problems)
    entry = node.entries.get("cell") if node is not None else None
    if entry is None:
        raise record.NoRecord(next((f"{path}: {one.message}" for one in problems), f"{path} is no cell file"))
    return entry.value.text


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


if __name__ == "__main__":
    sys.exit(main())
