"""64 devices, 10,000 tags, every 100 ms: the processor time of the fieldbus processes."""

import contextlib
import os
import tempfile
import time
from pathlib import Path

from tests.bench import programs
from tests.bench.case import Case
from tests.processes import Served, descendants, running

DEVICES, TAGS, EVERY_MS = 64, 10_000, 100
INTEGERS = 100
"""Of a device's tags the first so many are int16, the rest float32."""
DEPTH = 2
"""A Modbus device's registers are two reads: both on their way at a time. The peer's libraries have one."""
SETTLE_S = 3.0
BUSES = ("edge-modbus", "edge-s7")


def tags(driver: str, count: int) -> list[str]:
    """Lines of a cell file: so many tags side by side."""
    lines: list[str] = []
    for place in range(count):
        unit = place if place < INTEGERS else INTEGERS + 2 * (place - INTEGERS)
        kind = "int16" if place < INTEGERS else "float32"
        at = f"holding:{unit}" if driver == "modbus" else f"DB1.DB{'W' if kind == 'int16' else 'D'}{2 * unit}"
        lines.append(f'    t{place}: {{at: "{at}", type: {kind}}}')
    return lines


def cell(modbus: list[int], s7: list[int]) -> str:
    """A cell with a device for each port."""
    places = [("modbus", port) for port in modbus] + [("s7", port) for port in s7]
    lines = ["cell: scale", f"scan: {EVERY_MS} ms", "devices:"]
    lines += [
        f"  d{n}: {{driver: {driver}, host: 127.0.0.1, port: {port}, depth: {DEPTH}, every: {EVERY_MS} ms}}"
        for n, (driver, port) in enumerate(places)
    ]
    lines.append("tags:")
    for n, (driver, _) in enumerate(places):
        share = TAGS // len(places) + (n < TAGS % len(places))
        lines += [f"  d{n}:", *tags(driver, share)]
    return "\n".join(lines) + "\n"


def cpu_s(pids: list[int]) -> tuple[float, float]:
    """Processor time of some processes together so far, in user mode and in the kernel (proc(5))."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    tick = os.sysconf("SC_CLK_TCK")
    return sum(int(one[11]) for one in fields) / tick, sum(int(one[12]) for one in fields) / tick


class Scale(Case):
    """Half of the devices Modbus, half S7, all on servers in C whose values change from read to read (or stand still).

    The peer is one asyncio task a device with pymodbus's and python-snap7's clients: the blocks read and decoded.
    """

    names = ("scale.fieldbus_cpu", "scale.fieldbus_cpu_still")
    unit = "%"
    peer_name = "an asyncio task a device: pymodbus, python-snap7"
    rounds = 3

    def begin(self, stack: contextlib.ExitStack) -> None:
        self.cells: list[Path] = []
        self.ports: list[list[int]] = []
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-bench-")))
        for how in ("changing", "still"):
            modbus, ports = programs.modbus_server(how, DEVICES // 2)
            stack.enter_context(modbus)
            s7, more = programs.s7_server(how, DEVICES // 2)
            stack.enter_context(s7)
            file = self.folder / f"{how}.yaml"
            file.write_text(cell(ports, more), encoding="utf-8")
            self.cells.append(file)
            self.ports.append([*ports, *more])
        self.clients = [
            stack.enter_context(programs.python("plain_client.py", EVERY_MS, *ports)) for ports in self.ports
        ]

    def edge(self) -> tuple[float, ...]:
        return tuple(self._served(cell) for cell in self.cells)

    def _served(self, cell: Path) -> float:
        with running(Served(self.folder, cell)) as served:
            served.up()
            time.sleep(SETTLE_S)
            pids = [pid for name, pid in descendants(served.pid).items() if name in BUSES]
            assert len(pids) == len(BUSES), served.said
            (user, kernel), began = cpu_s(pids), time.monotonic()
            time.sleep(self.seconds)
            (user_now, kernel_now), took = cpu_s(pids), time.monotonic() - began
            user, kernel = 100 * (user_now - user) / took, 100 * (kernel_now - kernel) / took
            self.notes.append(f"edge, {cell.stem}: {user:.1f} % of a core in Python, {kernel:.1f} % in the kernel")
            return user + kernel

    def peer(self) -> tuple[float, ...]:
        figures: list[float] = []
        for client in self.clients:
            scans, cpu = (float(word) for word in client.work(self.seconds).split())
            due = DEVICES * 1000 / EVERY_MS
            self.notes.append(f"the plain libraries: {scans:.0f} scans/s of {due:.0f}, {cpu:.1f} % of a core")
            figures.append(cpu * max(1.0, due / scans))
        return tuple(figures)


CASES: tuple[type[Case], ...] = (Scale,)
