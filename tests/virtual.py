"""An engine in virtual time against a device that takes every level and shows it: for tests of pure behaviour."""

from pathlib import Path
from types import UnionType

from drivers.value import BAD_NOT_WRITABLE, Value
from edge.language.plan import load_plan
from edge.language.program import Plan
from edge.language.report import report
from edge.language.source import Problems
from edge.messages import Event, Restore, TagReport
from edge.trial.bench import Bench

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
unexpected_restart: {allowed: It is a bench}
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


class Virtual(Bench):
    """Runs an engine cycle by cycle. `values` are what the devices show; while `following`, outputs are read back as
    they were set. Tags and devices are meant by their names.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.following = True
        self.events: list[Event] = []
        self.taken: list[tuple[int, list[bytes]]] = []

    def index(self, tag: str) -> int:
        return self.plan.cell.tag(tag).index

    def put(self, tag: str, value: Value | None) -> None:
        """What the device shows from the next cycle on; None: a bad value."""
        self.values[self.index(tag)] = value

    def level(self, tag: str) -> Value | None:
        """The desired level now."""
        return self.engine.state.levels[self.index(tag)]

    def device(self, name: str) -> int:
        return next(one.index for one in self.plan.cell.devices if one.name == name)

    def refuse(self, tag: str, text: str) -> None:
        self.send(TagReport(self.index(tag), BAD_NOT_WRITABLE, text, write=True))

    def restore(self, blob: bytes) -> None:
        self.send(Restore(blob))

    def lose(self, device: str, text: str = "no answer") -> None:
        super().lose(self.device(device), text)

    def find(self, device: str) -> None:
        super().find(self.device(device))

    def command(self, do: str, batch: str = "B1", **fields: object) -> int:
        return super().command(do, "tester", batch, **fields)

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
            self.events += self.step(skip).events
            self.taken.append((self.cycle, self.drained))
        return self.events[before:]

    def take(self, device: int, frame: bytes) -> None:
        if self.following:
            super().take(device, frame)

    def batch(self, name: str = "B1"):
        return self.engine.state.batches[name]

    def state(self, name: str = "B1") -> str:
        return self.batch(name).state

    def of(self, kind: type | UnionType) -> list[Event]:
        """Every event of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]
