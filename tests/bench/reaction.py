"""How long an interlock takes, from the input's edge at a PLC to the output's edge at the PLC, by the PLC's own clock.

The PLC raises an input at a random time; the recipe's interlock holds the batch, which takes the output away; the PLC
takes the time until then. The batch is then restarted, over and over.
"""

import contextlib
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from drivers.driver import Point
from drivers.value import TYPES
from tests.bench import programs
from tests.bench.case import Case
from tests.bench.drivers import Reader
from tests.bench.programs import Program
from tests.processes import Served, running

SCAN_MS = 10
ALLOWED_MS = 0.5
ROUND_TRIPS_S = 0.5
LONGEST_WAIT_S = 20

CELL = """cell: reaction
scan: {scan} ms
devices:
  plc: {{driver: {driver}, {place}, every: {scan} ms}}
tags:
  plc:
    input: {{at: "{input}", type: {type}}}
    output: {{at: "{output}", type: {type}, access: write, failsafe: {off}}}
"""
RECIPE = """recipe: watch
uses: [plc]
interlocks:
  - {{when: plc.input == {on}, do: hold, say: {{en: The input is on}}}}
steps:
  - {{name: On, during: {{plc.output: {on}}}, wait: 24 h}}
"""


class Reaction(Case):
    """p99 of the reactions of a round; the limit is one scan, the round trip measured in it, and 0.5 ms."""

    unit = "ms"
    peer_name = "the limit: scan + round trip + 0.5 ms"
    driver = "modbus"
    addresses = ("holding:0", "holding:100")
    type, off, on = "uint16", "0", "1"

    def server(self) -> tuple[Program, dict[str, Any]]:
        """The PLC, and the settings that reach it."""
        server, ports = programs.modbus_server("reaction")
        return server, {"host": "127.0.0.1", "port": ports[0]}

    def begin(self, stack: contextlib.ExitStack) -> None:
        plc, settings = self.server()
        self.plc = stack.enter_context(plc)
        points = [Point(at, at, TYPES[self.type]) for at in self.addresses]
        self.reader = Reader(stack, self.driver, settings, points)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-bench-")))
        place = ", ".join(f'{key}: "{value}"' if key == "url" else f"{key}: {value}" for key, value in settings.items())
        words = {
            "scan": SCAN_MS,
            "driver": self.driver,
            "place": place,
            "input": self.addresses[0],
            "output": self.addresses[1],
            "type": self.type,
            "on": self.on,
            "off": self.off,
        }
        cell = folder / "cell.yaml"
        cell.write_text(CELL.format(**words), encoding="utf-8")
        (folder / "watch.yaml").write_text(RECIPE.format(**words), encoding="utf-8")
        self.served = stack.enter_context(running(Served(folder, cell)))
        self.batch = self.served.start("watch")

    def edge(self) -> tuple[float, ...]:
        end = time.monotonic() + self.seconds
        took: list[float] = []
        while not took or time.monotonic() < end:
            took.append(int(self.plc.line(LONGEST_WAIT_S)) / 1e6)
            self._restart()
        took.sort()
        self.round_trip = median(self.reader.times(ROUND_TRIPS_S)) * 1000
        p99 = took[int(len(took) * 0.99)]
        over = p99 - SCAN_MS - self.round_trip
        self.notes.append(
            f"{len(took)} reactions: p50 {median(took):.2f}, p99 {p99:.2f}, longest {took[-1]:.2f} ms; round trip "
            f"{self.round_trip:.2f} ms: p99 is {over:+.2f} ms over scan and round trip, {ALLOWED_MS} are allowed"
        )
        return (p99,)

    def peer(self) -> tuple[float, ...]:
        return (SCAN_MS + self.round_trip + ALLOWED_MS,)

    def _restart(self) -> None:
        """Restarts the batch once its interlock allows it."""
        end = time.monotonic() + LONGEST_WAIT_S
        while self.served.post(f"/api/batches/{self.batch}/restart")[0] >= 300:
            assert time.monotonic() < end, self.served.said
            time.sleep(0.005)


class ModbusReaction(Reaction):
    names = ("reaction.modbus_p99",)


class S7Reaction(Reaction):
    names = ("reaction.s7_p99",)
    driver = "s7"
    addresses = ("DB1.DBW0", "DB1.DBW100")
    type = "int16"

    def server(self) -> tuple[Program, dict[str, Any]]:
        server, ports = programs.s7_server("reaction")
        return server, {"host": "127.0.0.1", "port": ports[0]}


class OpcUaReaction(Reaction):
    names = ("reaction.opcua_p99",)
    driver = "opcua"
    addresses = ("ns=1;i=1", "ns=1;i=100")
    type, off, on = "bool", "false", "true"

    def server(self) -> tuple[Program, dict[str, Any]]:
        server, url = programs.opcua_server("reaction")
        return server, {"url": url}


CASES: tuple[type[Case], ...] = (ModbusReaction, S7Reaction, OpcUaReaction)
