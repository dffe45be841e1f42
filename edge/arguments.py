"""The words of the command line: commands, options, examples, and what was meant where a word is wrong."""

import argparse
import os
import re
from textwrap import dedent, indent
from typing import NoReturn

from edge import __version__

_EPILOG = """examples:
  edge check recipes/bottling                           find every mistake before anything moves
  edge test recipes/bottling                            try the recipes on a model of the plant
  edge run recipes/bottling rinse-and-fill --simulate --answer label_ok=yes
  edge serve recipes/bottling --simulate                then open http://127.0.0.1:8088
  edge tags recipes/bottling --once                     what every tag reads now
  edge batches                                          what has been made

`edge COMMAND --help` says more of each."""


class _Form(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions and examples as they are written, and the list of commands without a heading."""

    def _format_action(self, action: argparse.Action) -> str:
        text = super()._format_action(action)
        return text.partition("\n")[2] if isinstance(action, argparse._SubParsersAction) else text  # pyright: ignore[reportPrivateUsage]


class Parser(argparse.ArgumentParser):
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


def parser() -> Parser:
    """The parser of the command line. `command` is what was chosen, None for nothing, `parser` that of the command."""
    about = "Runs the machines of a work cell: PLCs and robots over S7, Modbus and OPC UA, recipes in YAML."
    edge = Parser("edge", description=about, epilog=_EPILOG, formatter_class=_Form, allow_abbrev=False)
    edge.set_defaults(parser=edge)
    edge.add_argument("--version", action="version", version=f"edge {__version__}")
    commands = edge.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    _add_check(commands)
    _add_run(commands)
    _add_serve(commands)
    _add_reload(commands)
    _add_test(commands)
    _add_tags(commands)
    _add_browse(commands)
    _add_batches(commands)
    _add_replay(commands)
    _add_schema(commands)
    _add_lsp(commands)
    return edge


_Commands = argparse._SubParsersAction  # pyright: ignore[reportPrivateUsage]


def _add(commands: "_Commands[Parser]", name: str, summary: str, about: str, examples: str = "") -> Parser:
    epilog = f"examples:\n{indent(dedent(examples).strip(), '  ')}" if examples else None
    command = commands.add_parser(
        name, help=summary, description=dedent(about).strip(), epilog=epilog, formatter_class=_Form, allow_abbrev=False
    )
    command.set_defaults(parser=command)
    return command


def _add_check(commands: "_Commands[Parser]") -> None:
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


def _add_simulate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--simulate", action="store_true", help="with simulated PLCs that are started for it")


def _add_state(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state",
        metavar="DIR",
        help="where journal and batch record are kept (default: $STATE_DIRECTORY, else ~/.local/state/edge/NAME with "
        "the cell's name)",
    )


def _add_run(commands: "_Commands[Parser]") -> None:
    run = _add(
        commands,
        "run",
        "run one recipe to its end, with live progress",
        """
        Runs one recipe to its end, shows its progress, and prints the batch record. At a terminal it takes hold,
        restart, pause, resume, stop and abort, automatic and semi-automatic, the answers to questions, and Enter for a
        step that waits to be confirmed. Ctrl-C stops the batch in order, a second one aborts it, a third one ends edge
        at once; in each case the outputs go to failsafe.

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
    run.add_argument(
        "--mode",
        choices=("automatic", "semi-automatic"),
        default="automatic",
        help="semi-automatic: Enter confirms each step before it begins (default: automatic)",
    )
    run.add_argument("--by", default="", metavar="NAME", help="who runs it, for the record (default: your login name)")
    _add_simulate(run)
    _add_state(run)


def _add_serve(commands: "_Commands[Parser]") -> None:
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
    _add_simulate(serve)
    serve.add_argument(
        "--core",
        type=_core,
        metavar="N",
        help="pin the control loop to this processor core (default: the last of four or more)",
    )
    _add_state(serve)


def _add_test(commands: "_Commands[Parser]") -> None:
    test = _add(
        commands,
        "test",
        "run recipe tests against the plant's model, in virtual time",
        """
        Runs the tests of *.test.yaml files: each is a batch on the model that plant.yaml describes, with the faults,
        answers and commands that the test says, faster than real time. Nothing is started and no device is asked.

        With --sweep each test is repeated with faults that it does not name: each device lost or slow, each tag bad,
        stuck, off by a spike or a drift, the power cut, at each cycle. The smallest case that breaks what must `always`
        be is told, and written to a test file that replays it.

        Exit code: 0 all passed; 1 a test failed, or there is a mistake in a file.
        """,
        """
        edge test recipes/bottling                          every test beside its cell
        edge test recipes/bottling/rinse-and-fill.test.yaml --junit results.xml
        edge test recipes/bottling --sweep --cases 200      so many faults of each test
        """,
    )
    test.add_argument("paths", nargs="+", metavar="PATH", help="a folder with a cell.yaml, or a test file")
    test.add_argument("--junit", metavar="FILE", help="also write the results to FILE, as CI servers read them")
    test.add_argument("--sweep", action="store_true", help="repeat each test with each kind of fault at each cycle")
    test.add_argument(
        "--cases",
        type=_cases,
        default=1000,
        metavar="N",
        help="of a sweep: so many of each test, or all (default: 1000)",
    )


def _cases(text: str) -> int | None:
    if text == "all":
        return None
    if re.fullmatch("[1-9][0-9]{0,8}", text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is no number of cases, nor `all`")


def _core(text: str) -> int:
    last = (os.cpu_count() or 1) - 1
    if re.fullmatch("[0-9]{1,4}", text) and int(text) <= last:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is no processor core of this machine: they are 0 to {last}")


def _add_tags(commands: "_Commands[Parser]") -> None:
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
    _add_simulate(tags)
    _add_format(tags)
    tags.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TAG=VALUE",
        help="set an output, in the tag's unit or as in `2 1/s`, and wait until it is read back (again for more)",
    )
    _add_state(tags)


def _add_reload(commands: "_Commands[Parser]") -> None:
    reload = _add(
        commands,
        "reload",
        "have a running daemon take in changed recipe files",
        """
        Has `edge serve` read the recipe files of its cell again. What has changed and has no mistake is the version
        that new batches run; batches that run keep theirs to their end. A file with mistakes is refused, and its
        version in force stays. A changed cell takes a restart.

        Exit code: 0 all that has changed is in force, or nothing has; 1 a file was refused, or no daemon runs.
        """,
        """
        edge reload recipes/bottling
        edge reload /etc/edge/cell.yaml --by Amina
        """,
    )
    _add_cell(reload)
    reload.add_argument("--by", default="", metavar="NAME", help="who does it, for the record (default: your login)")
    _add_state(reload)


def _add_browse(commands: "_Commands[Parser]") -> None:
    browse = _add(
        commands,
        "browse",
        "what a device says of itself and offers",
        """
        Asks a device who it is and what it offers, as lines for the cell file: the variables of an OPC UA server, the
        data blocks of an S7 PLC. A Modbus device cannot tell its addresses. It talks to the device itself: one that
        takes a single connection must not be in use.

        Exit code: 0 it has answered; 1 it is not there, or the cell has no such device.
        """,
        """
        edge browse recipes/bottling robot --simulate
        """,
    )
    _add_cell(browse)
    browse.add_argument("device", metavar="DEVICE", help="the device's name in the cell")
    _add_simulate(browse)


def _add_batches(commands: "_Commands[Parser]") -> None:
    batches = _add(commands, "batches", "list the batches of the record", "Lists the batches, the latest first.")
    batches.add_argument("--lot", metavar="LOT", default="", help="those of this lot alone")
    batches.add_argument("--order", metavar="ORDER", default="", help="those of this order alone")
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


def _add_replay(commands: "_Commands[Parser]") -> None:
    replay = _add(
        commands,
        "replay",
        "run the journal of a cell again, and compare every cycle",
        """
        Runs every cycle that the journal of a state directory has once more, with what came in then, in the same
        engine, and compares the outputs and events. No device is asked; the daemon may run. Where the journal has a
        gap (a kill, a full disk) it goes on after it. A difference is told with its cycle, its step and its tags.

        With --recipe it shows what would have been other with another version of a recipe: the inputs stay those of
        the journal, so that what follows the first difference says less and less.

        Exit code: 0 every cycle is identical; 1 one differs, or nothing could be replayed.
        """,
        """
        edge replay ~/.local/state/edge/bottling
        edge replay /var/lib/edge --batch 20260102-030405
        edge replay /var/lib/edge --batch 20260102-030405 --recipe rinse-and-fill.yaml
        edge replay /var/lib/edge --batch 20260102-030405 --to-test recipes/bottling/spill.test.yaml
        """,
    )
    replay.add_argument("state_dir", metavar="STATE_DIR", help="where the journal is kept, as after --state")
    replay.add_argument("--batch", default="", metavar="ID", help="the part that this batch ran in alone")
    what = replay.add_mutually_exclusive_group()
    what.add_argument("--recipe", metavar="FILE", help="this in place of the recipe of its name")
    what.add_argument(
        "--to-test",
        metavar="FILE",
        help="write what happened to the batch (the last one, if none is named) as a recipe test, and replay nothing",
    )


def _add_lsp(commands: "_Commands[Parser]") -> None:
    _add(
        commands,
        "lsp",
        "a language server, which an editor starts",
        """
        Speaks the Language Server Protocol over standard input and output: the problems of cells, recipes, tests and
        plants as you type, completion, hovers, and go to definition. docs/editor.md says how an editor starts it.
        """,
    )


def _add_schema(commands: "_Commands[Parser]") -> None:
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
