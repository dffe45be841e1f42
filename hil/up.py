"""`hil up`: a simulated PLC for each device of a cell, each a server process, and the plant that they are wired to."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import yaml
from setproctitle import setproctitle

from drivers.value import Value, from_raw
from edge.language.cell import Cell, Tag
from edge.language.plant import raw
from hil.exchange import PERIOD_S
from hil.plant_file import Plant
from hil.plc_process import Failure, PlcProcess

START_DEADLINE_S = 30.0
_LATE_STEPS = 10
"""So many steps the plant makes up at once where the machine was busy; more are left out."""


class Options(msgspec.Struct, frozen=True):
    """How `hil up` runs: the first of consecutive ports (0: any free ones), the endpoints file, when a PLC that ended
    is started again (None: never)."""

    host: str = "127.0.0.1"
    ports: int = 0
    endpoints: Path | None = None
    restart_after_s: float | None = 5.0


class Simulation:
    """The PLCs of a cell and its plant in one loop: the plant steps, then each PLC is watched and exchanges values."""

    def __init__(self, cell: Cell, plant: Plant, options: Options) -> None:
        self.plant = plant
        self.options = options
        self.stopped = False
        self.again_at_s: dict[PlcProcess, float] = {}
        self.plcs = [
            PlcProcess(device, [cell.tags[index] for index in device.tags], plant.controllers.get(device.name))
            for device in cell.devices
        ]

    def start(self) -> None:
        """Starts every PLC and waits until all serve. Raises Failure where a port is in use or one does not serve."""
        host, first = self.options.host, self.options.ports
        for place, plc in enumerate(self.plcs):
            plc.hold(host, first + place if first else 0)
        for plc in self.plcs:
            plc.start(self._sensors(plc))
        deadline_s = time.monotonic() + START_DEADLINE_S
        while not self.stopped and (silent := [plc.device.name for plc in self.plcs if plc.settings is None]):
            for plc in self.plcs:
                self._take(plc)
                if how := plc.ended():
                    raise Failure(f"{plc.device.name}: {how}")
            if time.monotonic() > deadline_s:
                raise Failure(f"{', '.join(silent)}: does not serve after {START_DEADLINE_S:g} s")
            time.sleep(PERIOD_S / 2)

    def run(self) -> None:
        """Runs until `stopped`."""
        next_s = time.monotonic()
        while not self.stopped:
            now_s = time.monotonic()
            next_s = max(next_s, now_s - _LATE_STEPS * PERIOD_S)
            while next_s <= now_s:
                self.plant.step(PERIOD_S)
                next_s += PERIOD_S
            for plc in self.plcs:
                self._watch(plc, now_s)
            time.sleep(max(next_s - time.monotonic(), 0))

    def stop(self) -> None:
        """Ends every process and gives up the ports."""
        for plc in self.plcs:
            plc.terminate()
        for plc in self.plcs:
            plc.close()

    def _watch(self, plc: PlcProcess, now_s: float) -> None:
        if plc.process is None:
            if now_s >= self.again_at_s.get(plc, now_s + 1):
                plc.start(self._sensors(plc))
            return
        served = plc.settings is not None
        self._take(plc)
        plc.bring(self._sensors(plc))
        if not served and plc.settings is not None:
            say(f"{plc.device.name}: serves again on {plc.place} (pid {plc.process.pid}), its memory cleared")
        elif how := plc.ended():
            self._lose(plc, how, now_s)

    def _lose(self, plc: PlcProcess, how: str, now_s: float) -> None:
        """A PLC without power: its outputs are off, the plant goes on."""
        for tag in plc.tags:
            if tag.writable:
                self.plant.write(tag.index, in_unit(tag, _off(tag)))
        after_s = self.options.restart_after_s
        if after_s is None:
            self.again_at_s.pop(plc, None)
            say(f"{plc.device.name}: {how}; it stays away")
        else:
            self.again_at_s[plc] = now_s + after_s
            say(f"{plc.device.name}: {how}; it starts again on {plc.place} in {after_s:g} s")

    def _take(self, plc: PlcProcess) -> None:
        for index, value in plc.receive().items():
            tag = plc.tags[index]
            self.plant.write(tag.index, in_unit(tag, value))

    def _sensors(self, plc: PlcProcess) -> dict[int, Value]:
        return {place: raw(tag, self.plant.read(tag.index)) for place, tag in enumerate(plc.tags) if not tag.writable}


def in_unit(tag: Tag, value: Value) -> Value | None:
    """A raw value in the tag's unit; None where it is no number."""
    return from_raw(value, tag.scale)


def _off(tag: Tag) -> Value:
    if tag.type.kind == "string":
        return ""
    return False if tag.type.kind == "bool" else 0


def write_endpoints(path: Path, plcs: Sequence[PlcProcess]) -> None:
    """Writes the settings that reach each device, whole or not at all. Raises Failure."""
    settings = {plc.device.name: _given(plc.settings) for plc in plcs if plc.settings is not None}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise Failure(f"cannot write the endpoints to {path}: {_reason(error)}") from error


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def remove_endpoints(path: Path) -> None:
    """Takes away a file that would tell of PLCs which do not answer. Raises Failure."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise Failure(f"cannot remove {path}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def say(text: str) -> None:
    """In one piece, so that it stays one where standard output is a socket that keeps the bounds of packets."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def up(cell: Cell, plant: Plant, options: Options) -> int:
    """Simulates the cell until SIGTERM or SIGINT; gives the exit code. Must run in the main thread."""
    setproctitle("hil-up")
    simulation = Simulation(cell, plant, options)
    _stop_on_signals(simulation)
    try:
        if options.endpoints is not None:
            if not options.endpoints.parent.is_dir():
                raise Failure(f"there is no directory {options.endpoints.parent} to write the endpoints to")
            remove_endpoints(options.endpoints)
        simulation.start()
        if not simulation.stopped:
            if options.endpoints is not None:
                write_endpoints(options.endpoints, simulation.plcs)
            _show(cell, plant, simulation)
        simulation.run()
        return 0
    except Failure as failure:
        print(f"hil up: {failure}", file=sys.stderr)
        return 1
    finally:
        simulation.stop()
        if options.endpoints is not None:
            with suppress(Failure):
                remove_endpoints(options.endpoints)


def _stop_on_signals(simulation: Simulation) -> None:
    def stop(_signal: int, _frame: object) -> None:
        simulation.stopped = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)


def _show(cell: Cell, plant: Plant, simulation: Simulation) -> None:
    plcs = simulation.plcs
    lines = [f"cell {cell.name}: {len(plcs)} simulated PLC{'s' if len(plcs) != 1 else ''}, {plant.title}"]
    width = max((len(plc.device.name) for plc in plcs), default=0)
    for plc in plcs:
        settings = plc.settings or {}
        where = settings.get("url") or plc.place
        extra = "".join(f", {key} {settings[key]}" for key in ("security", "user") if settings.get(key))
        extra += "; set up by the plant file" if plc.controller is not None else ""
        pid = plc.process.pid if plc.process is not None else 0
        lines.append(f"  {plc.device.name:{width}}  {plc.device.driver:6}  pid {pid:<7} {where}{extra}")
    if sys.stdout.isatty():
        lines += [f"endpoints: {simulation.options.endpoints}"] if simulation.options.endpoints is not None else []
        lines += ["Ctrl-C ends it."]
    say("\n".join(lines))
