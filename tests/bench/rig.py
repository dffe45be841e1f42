"""A control loop on real sockets, with all that is around it played by this process: for the cost of its cycle."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from drivers.value import GOOD, Value
from edge import channel
from edge.language.plan import load_plan
from edge.language.program import Plan
from edge.language.report import report
from edge.language.source import Problems
from edge.loop import Loop, Sockets
from edge.messages import Ack, Command, Commit, DeviceReport, pack, unpack_outward
from tests.bench import cells

Frames = list[bytes]
"""One input frame of each device, in their order."""


def plan_of(tags: int) -> Plan:
    """The plan of a generated cell."""
    with tempfile.TemporaryDirectory() as folder:
        problems = Problems()
        plan = load_plan(cells.write(Path(folder), tags), problems)
        assert plan is not None, report(problems)
        return plan


class Rig:
    """A loop whose packets come from here. `give` sends what the devices show, `cycle` runs one cycle."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        drivers = tuple(dict.fromkeys(device.driver for device in plan.cell.devices))
        pairs = [channel.pair() for _ in range(len(drivers) + 3)]
        self.pairs = pairs
        self.buses = [pair[1] for pair in pairs[:-3]]
        self.bus_of = [self.buses[drivers.index(device.driver)] for device in plan.cell.devices]
        (commits, self.recorder), (journal, self.reader), (watcher, self.operator) = pairs[-3:]
        self.loop = Loop(plan, Sockets([pair[0] for pair in pairs[:-3]], drivers, commits, journal, watcher), [])
        self.engine = self.loop.engine
        self.last = 0
        for device in plan.cell.devices:
            self.bus_of[device.index].send(pack(DeviceReport(device.index, True, GOOD)))

    def close(self) -> None:
        for pair in self.pairs:
            for end in pair:
                end.close()

    def frames(self, number: int) -> Frames:
        """Input frames whose values all differ from those of `number` + 1; outputs are read back as they are set."""
        tags, levels = self.plan.cell.tags, self.engine.state.levels
        made: Frames = []
        for layout in self.engine.layouts:
            values: list[Value | None] = []
            for index in range(layout.first, layout.end):
                kind = tags[index].type.kind
                shown: Value = (number + index) % 2 == 0 if kind == "bool" else (number + index) % 500 + 0.0
                values.append(levels[index] if tags[index].writable else shown if kind != "int" else int(shown))
            made.append(layout.pack_input(number, 0, 0, values))
        return made

    def unchanged(self) -> Frames:
        return [layout.pack_unchanged(1, 0, 0) for layout in self.engine.layouts]

    def give(self, frames: Sequence[bytes]) -> None:
        for bus, frame in zip(self.bus_of, frames, strict=False):
            bus.send(frame)

    def cycle(self) -> int:
        """Runs one cycle and takes what it sends, so that no socket fills; gives how long it took in ns."""
        self.last += 1
        self.loop.cycle = self.last
        began = time.perf_counter_ns()
        self.loop.run_cycle(self.last)
        took = time.perf_counter_ns() - began
        for end in (*self.buses, self.reader, self.operator):
            channel.drain(end)
        for packet in channel.drain(self.recorder):
            commit = unpack_outward(packet)
            if isinstance(commit, Commit):
                self.recorder.send(pack(Ack(commit.commit)))
        return took

    def command(self, do: str, batch: str, recipe: str = "", alarm: int = 0) -> None:
        self.operator.send(pack(Command(1, do, "operator", batch, recipe, alarm=alarm)))

    def start(self) -> None:
        """Starts each recipe once and runs until its steps wait."""
        for number in range(2):
            self.give(self.frames(number))
            self.cycle()
        for recipe in self.plan.recipes:
            self.command("start", recipe, recipe)
        for number in range(20):
            self.give(self.frames(number))
            self.cycle()
        assert all(self.waiting(batch) for batch in self.plan.recipes), "the recipes do not run"

    def waiting(self, batch: str) -> bool:
        """Whether all steps of a batch are active."""
        state = self.engine.state.batches[batch]
        return state.body is not None and all(child.begun for child in state.body.children)
