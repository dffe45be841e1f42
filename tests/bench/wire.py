"""What a device sees: every 10 ms 100 registers are read and 10 written. libmodbus's server tells, by its own clock."""

import contextlib
import itertools
import tempfile
import time
from pathlib import Path

from tests.bench import programs
from tests.bench.case import Case
from tests.bench.programs import Program
from tests.processes import Served, running

PERIOD_MS = 10
SETTLE_S = 1.0

CELL = """cell: wire
scan: 2 ms
devices:
  plc: {{driver: modbus, host: 127.0.0.1, port: {port}, every: 10 ms}}
tags:
  plc:
{tags}
"""
RECIPE = """recipe: copy
uses: [plc]
steps:
  - repeat: {{while: plc.in0 != 65535}}
    steps:
      - {{set: {{{levels}}}, wait: 6 ms}}
"""
"""Five cycles of 2 ms a turn: three of the wait, one that commits the transition, one that begins the next turn."""


def write(folder: Path, port: int) -> Path:
    """The cell and its recipe; gives the cell file."""
    inputs = (f'    in{n}: {{at: "holding:{n}", type: uint16}}' for n in range(100))
    outputs = (
        f'    out{n}: {{at: "holding:{30000 + n}", type: uint16, access: write, failsafe: 0}}' for n in range(10)
    )
    levels = ", ".join(f"plc.out{n}: plc.in{10 * n}" for n in range(10))
    cell = folder / "cell.yaml"
    cell.write_text(CELL.format(port=port, tags="\n".join([*inputs, *outputs])), encoding="utf-8")
    (folder / "copy.yaml").write_text(RECIPE.format(levels=levels), encoding="utf-8")
    return cell


class Wire(Case):
    """How far the time between two writes is from 10 ms, as the server has it."""

    names = ("wire.deviation_p50", "wire.deviation_p99")
    unit = "ms"
    peer_name = "libmodbus client on clock_nanosleep"

    def begin(self, stack: contextlib.ExitStack) -> None:
        self.plc, (port,) = programs.modbus_server("writes")
        stack.enter_context(self.plc)
        self.other, (self.other_port,) = programs.modbus_server("writes")
        stack.enter_context(self.other)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-bench-")))
        cell = write(folder, port)
        served = stack.enter_context(running(Served(folder, cell)))
        served.start("copy")
        time.sleep(SETTLE_S)
        self.client = stack.enter_context(Program(programs.libmodbus("modbus_client"), self.other_port, "cycle"))

    def edge(self) -> tuple[float, ...]:
        self.plc.lines()
        time.sleep(self.seconds)
        return self._deviation("edge", self.plc)

    def peer(self) -> tuple[float, ...]:
        self.client.work(self.seconds)
        return self._deviation("libmodbus", self.other)

    def _deviation(self, who: str, server: Program) -> tuple[float, ...]:
        times = [int(line) / 1e6 for line in server.lines()]
        off = sorted(abs(later - earlier - PERIOD_MS) for earlier, later in itertools.pairwise(times))
        p50, p99 = off[len(off) // 2], off[int(len(off) * 0.99)]
        self.notes.append(f"{who}: {len(times)} writes, p50 {p50:.3f}, p99 {p99:.3f}, max {off[-1]:.3f} ms off")
        return p50, p99


CASES: tuple[type[Case], ...] = (Wire,)
