"""The command `hil`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

_DESCRIPTION = """\
The hardware-in-the-loop rig of edge: simulated PLCs that speak the real protocols over TCP, and the plant behind them.
"""

_UP = """\
Starts a simulated PLC for each device of a cell, each in a server process of its own that speaks the device's real
protocol (S7, Modbus TCP or OPC UA), and simulates the plant behind them. It runs until Ctrl-C or SIGTERM.

The plant is what plant.yaml beside the cell says; where there is none, what the PLCs read stands still. Under
`controllers` it can set a PLC up as unhelpful as real ones are out of the box, for instance

  controllers:
    mixer: {put_get: false, optimized: [DB2]}         S7-1200, S7-1500
    conveyor: {unmapped: [holding:40-47], functions: [1, 2, 3, 4]}
    robot: {user: maria, not_readable: ["ns=2;s=State"]}
"""

_UP_MORE = """\
examples:
  hil up recipes/bottling/cell.yaml
  hil up recipes/bottling/cell.yaml --ports 10201 --endpoints /tmp/endpoints.yaml
  edge tags recipes/bottling/cell.yaml --endpoints /tmp/endpoints.yaml      (in another terminal)

To see what a lost PLC does, kill its process: `hil up` prints its pid, and it is called hil-DEVICE in ps and top.
Its memory is empty when it is back; the plant went on meanwhile, with that PLC's outputs off.
"""

_MODELS = "Lists the plant models for plant.yaml, with their parameters, inputs and outputs."

_SCHEMA = "Prints the JSON Schema of plant files. An editor with the YAML language server completes and checks with it."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `hil`; gives the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 2
    return options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("hil", description=_DESCRIPTION)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    raw = argparse.RawDescriptionHelpFormatter
    up = commands.add_parser(
        "up", help="simulated PLCs for a cell, until stopped", description=_UP, epilog=_UP_MORE, formatter_class=raw
    )
    up.add_argument("cell", metavar="CELL", type=Path, help="the cell file, or the folder that has it as cell.yaml")
    up.add_argument(
        "--ports", metavar="FROM", type=_port, default=0, help="consecutive ports from this one on (default: free ones)"
    )
    up.add_argument(
        "--endpoints", metavar="FILE", type=Path, help="write there how each device is reached, once all of them answer"
    )
    up.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1, this machine only)"
    )
    up.add_argument(
        "--restart-after",
        metavar="SECONDS",
        type=_seconds,
        default=5.0,
        help="start a PLC whose process ended again after so long, or `never` (default: 5)",
    )
    up.set_defaults(run=_up)
    models = commands.add_parser("models", help="the plant models for plant.yaml", description=_MODELS)
    models.set_defaults(run=_models)
    schema = commands.add_parser("schema", help="the JSON Schema of plant.yaml, for editors", description=_SCHEMA)
    schema.set_defaults(run=_schema)
    return parser


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is no port: 1 to 65535")


def _seconds(text: str) -> float | None:
    if text == "never":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if 0 <= seconds <= 86_400:
        return seconds
    raise argparse.ArgumentTypeError(f"{text} is neither a number of seconds nor `never`")


def _up(options: argparse.Namespace) -> int:
    from edge.language.cell_file import cell_file, load_cell
    from edge.language.report import report
    from edge.language.source import Problems
    from hil.plant_file import load_plant
    from hil.up import Options, up

    problems = Problems()
    loaded = load_cell(cell_file(options.cell), problems)
    plant = load_plant(loaded.cell, problems) if loaded is not None else None
    if problems.errors or loaded is None or plant is None:
        sys.stderr.write(report(problems, color=sys.stderr.isatty()))
        return 1
    return up(loaded.cell, plant, Options(options.host, options.ports, options.endpoints, options.restart_after))


def _models(_options: argparse.Namespace) -> int:
    from hil.plants.catalogue import MODELS
    from hil.plants.model import Input, Output, Parameter, fields

    for name, model in MODELS.items():
        about = (model.__doc__ or "").strip().partition("\n")[0]
        print(f"{name}: {about}")
        declared = fields(model).values()
        for title, role in (("parameters", Parameter), ("inputs", Input), ("outputs", Output)):
            for number, field in enumerate(one for one in declared if type(one.role) is role):
                unit = field.role.unit or {bool: "true or false"}.get(field.type, "")
                start = f", {field.start:g}" if role is Parameter and isinstance(field.start, float) else ""
                print(f"  {title if number == 0 else '':11} {field.name:22} {unit}{start}")
        print()
    return 0


def _schema(_options: argparse.Namespace) -> int:
    import msgspec

    from hil.schema import schema

    print(msgspec.json.format(msgspec.json.encode(schema())).decode())
    return 0
