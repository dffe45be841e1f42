"""An engine in virtual time against a device that takes every level and shows it: for tests of pure behaviour."""

from pathlib import Path

from drivers.value import GOOD, Value
from edge.engine import Engine, Output
from edge.image import INPUT, OUTPUT, device_of
from edge.messages import Ack, Command, DeviceReport, Event, Restore, TagReport, pack
from edge.plan import load_plan
from edge.program import Plan
from edge.report import report
from edge.source import Problems

CELL = """
cell: bench
scan: 10 ms
devices:
  plc: {driver: modbus, host: 127.0.0.1, every: 10 ms}
  aux: {driver: modbus, host: 127.0.0.2, every: 10 ms}
tags:
  plc:
    level: {at: input:0, type: float32, unit: L, range: [0, 100]}
    count: {at: input:2, type: int16}
    label: {at: holding:40, type: "string[8]"}
    ready: {at: discrete:0, type: bool}
    valve: {at: coil:0, type: bool, access: write, failsafe: false}
    drain: {at: coil:1, type: bool, access: write, failsafe: false}
    speed: {at: holding:0, type: float32, unit: rpm, access: write, range: [0, 300], failsafe: 0}
    program: {at: holding:10, type: int16, access: write, failsafe: 0}
    state: {at: input:10, type: int16}
  aux:
    lamp: {at: coil:0, type: bool, access: write, failsafe: false}
    beat: {at: holding:0, type: int16, access: write, failsafe: 0}
heartbeats: {aux: aux.beat}
phases:
  plc.work: {parameters: {program: plc.program}, running: plc.state == 2, done: plc.state == 3, failed: plc.state == 9}
"""


def plan_of(folder: Path, *recipes: str, cell: str = CELL) -> Plan:
    """The plan of a cell and recipes given as texts; fails with the report of their problems."""
    (folder / "cell.yaml").write_text(cell, encoding="utf-8")
    for number, text in enumerate(recipes):
        (folder / f"recipe{number}.yaml").write_text(text, encoding="utf-8")
    problems = Problems()
    plan = load_plan(folder / "cell.yaml", problems)
    assert plan is not None and not problems.errors, report(problems)
    return plan


class Virtual:
    """Runs an engine cycle by cycle. Commits are acknowledged in the next cycle while `durable`; `inputs` are what the
    devices show for the tags that are only read; outputs are read back as they were set.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.engine = Engine(plan)
        self.cycle = 0
        self.durable = True
        self.following = True
        self.packets: list[bytes] = []
        self.events: list[Event] = []
        self.blobs: dict[str, bytes] = {}
        self.taken: list[tuple[int, list[bytes]]] = []
        self.commands = 0
        cell = plan.cell
        self.values: list[Value | None] = [
            "" if tag.type.kind == "string" else False if tag.type.kind == "bool" else 0 for tag in cell.tags
        ]
        for device in cell.devices:
            self.packets.append(pack(DeviceReport(device.index, True, GOOD)))
        self.present = {device.index for device in cell.devices}

    def index(self, tag: str) -> int:
        return self.plan.cell.tag(tag).index

    def put(self, tag: str, value: Value | None) -> None:
        """What the device shows from the next cycle on; None: a bad value."""
        self.values[self.index(tag)] = value

    def level(self, tag: str) -> Value | None:
        """The desired level now."""
        return self.engine.state.levels[self.index(tag)]

    def lose(self, device: str, text: str = "no answer") -> None:
        index = next(one.index for one in self.plan.cell.devices if one.name == device)
        self.present.discard(index)
        self.packets.append(pack(DeviceReport(index, False, 0x80310000, text)))

    def find(self, device: str) -> None:
        index = next(one.index for one in self.plan.cell.devices if one.name == device)
        self.present.add(index)
        self.packets.append(pack(DeviceReport(index, True, GOOD)))

    def refuse(self, tag: str, text: str) -> None:
        self.packets.append(pack(TagReport(self.index(tag), 0x803B0000, text, write=True)))

    def restore(self, blob: bytes) -> None:
        self.packets.append(pack(Restore(blob)))

    def command(self, do: str, batch: str = "B1", **fields: object) -> int:
        self.commands += 1
        self.packets.append(pack(Command(self.commands, do, "tester", batch, **fields)))  # type: ignore[arg-type]
        return self.commands

    def start(self, recipe: str, batch: str = "B1", **parameters: Value) -> None:
        """Lets the devices come, starts a batch and runs until it has begun."""
        if not self.cycle:
            self.run(2)
        self.command("start", batch, recipe=recipe, parameters=parameters)
        self.run(4)

    def run(self, cycles: int = 1, *, skip: int = 0) -> list[Event]:
        """Runs cycles; gives their events. `skip`: overrun cycles before each."""
        before = len(self.events)
        for _ in range(cycles):
            self.cycle += 1 + skip
            packets = [*self._frames(), *self.packets]
            self.packets = []
            self.taken.append((self.cycle, packets))
            self._follow(self.engine.step(self.cycle, packets))
        return self.events[before:]

    def _frames(self) -> list[bytes]:
        frames: list[bytes] = []
        for index in sorted(self.present):
            layout = self.engine.layouts[index]
            values = self.values[layout.first : layout.end]
            statuses = [GOOD if value is not None else 0x803C0000 for value in values]
            frames.append(layout.pack_input(self.cycle, 0, 0, values, statuses if any(statuses) else None))
            assert frames[-1][0] == INPUT
        return frames

    def _follow(self, output: Output) -> None:
        self.events += output.events
        for frame in output.frames:
            assert frame[0] == OUTPUT
            layout = self.engine.layouts[device_of(frame)]
            if self.following and device_of(frame) in self.present:
                for tag, level in zip(layout.outputs, layout.unpack_output(frame)[1], strict=True):
                    self.values[tag] = level
        if output.commit is not None:
            self.blobs.update(output.commit.batches)
            if self.durable:
                self.packets.append(pack(Ack(output.commit.commit)))

    def batch(self, name: str = "B1"):
        return self.engine.state.batches[name]

    def state(self, name: str = "B1") -> str:
        return self.batch(name).state

    def of(self, kind: type) -> list[Event]:
        """Every event of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]
