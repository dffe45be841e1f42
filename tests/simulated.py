"""Simulated PLCs of a cell in a thread of the test, which reaches into their memory; and ports that never answer."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from edge.language.cell import Cell
from edge.language.cell_file import load_cell
from edge.language.report import report
from edge.language.source import Problems
from hil.modbus_plc import ModbusPlc
from hil.opcua_plc import OpcUaPlc
from hil.plc import SimulatedPlc
from hil.s7_plc import S7Plc

PLCS: dict[str, type[SimulatedPlc]] = {"modbus": ModbusPlc, "s7": S7Plc, "opcua": OpcUaPlc}


class Simulated:
    """The PLCs by device, each with the settings that reach it."""

    def __init__(self, cell: Path) -> None:
        problems = Problems()
        loaded = load_cell(cell, problems)
        assert loaded is not None and not problems.errors, report(problems)
        self.cell: Cell = loaded.cell
        self.plcs: dict[str, Any] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def do(self, work: Callable[[], Any]) -> Any:
        """Calls something in the PLCs' own thread."""

        async def call() -> Any:
            return work()

        return self._run(call())

    def serve(self, device: str, settings: Any = None) -> dict[str, Any]:
        """Starts the PLC of a device, with its settings in the cell or others; gives those that reach it."""
        known = next(one for one in self.cell.devices if one.name == device)
        points = [self.cell.tags[index].point for index in known.tags]

        async def start() -> dict[str, Any]:
            plc = self.plcs[device] = PLCS[known.driver](device, points, settings or known.settings)
            return await plc.start("127.0.0.1", 0)

        self.settings[device] = self._run(start())
        return self.settings[device]

    def _place(self, tag: str) -> tuple[Any, int]:
        known = self.cell.tag(tag)
        return self.plcs[self.cell.devices[known.device].name], self.cell.devices[known.device].tags.index(known.index)

    def __getitem__(self, tag: str) -> Any:
        plc, place = self._place(tag)
        return self.do(lambda: plc.read(place))

    def __setitem__(self, tag: str, value: Any) -> None:
        plc, place = self._place(tag)
        self.do(lambda: plc.write(place, value))

    def stop(self) -> None:
        for plc in self.plcs.values():
            self._run(plc.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextlib.contextmanager
def simulated(cell: Path) -> Iterator[Simulated]:
    bench = Simulated(cell)
    try:
        yield bench
    finally:
        bench.stop()


@contextlib.contextmanager
def mute() -> Iterator[int]:
    """A port that takes connections and says nothing; gives its number."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def shut() -> Iterator[int]:
    """A port that refuses connections, and is nobody else's meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def write_endpoints(path: Path, settings: dict[str, dict[str, Any]]) -> Path:
    path.write_text(json.dumps(settings))  # which is YAML too
    return path
