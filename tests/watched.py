"""A cell with two recipes, and a loop that runs the real engine over it: what a watcher of the loop meets.

`WatchedLoop` is the loop's side of the socket: it runs cycles of the engine against devices that take every level and
show it, acknowledges commits, and sends records, snapshots and figures as the control process does.
"""

import socket
import threading
import time
from pathlib import Path

import msgspec

from drivers.value import BAD_NO_COMMUNICATION, GOOD, Scale, Value, parse_type
from edge import channel
from edge.engine.engine import Engine
from edge.image import device_of, pack_record
from edge.language.cell import Cell, Device, Tag
from edge.language.program import (
    Branch,
    Entry,
    Interlock,
    Level,
    Notice,
    Parameter,
    Plan,
    Prompt,
    Ramp,
    Recipe,
    Step,
    Texts,
)
from edge.language.units import parse as unit
from edge.messages import (
    BOUNDS_S,
    Ack,
    DeviceReport,
    DeviceStats,
    Event,
    Hello,
    LoopStats,
    Snapshot,
    Times,
    pack,
    pack_events,
    unpack_inward,
)

SCAN_NS = 10_000_000


def _tag(index: int, name: str, device: int, kind: str, **more: object) -> Tag:
    return Tag(index, name, device, f"at:{index}", parse_type(kind), **more)  # type: ignore[arg-type]


def cell() -> Cell:
    tags = (
        _tag(0, "mixer.level", 0, "float32", unit="L", low=0, high=100),
        _tag(1, "mixer.inlet", 0, "bool", writable=True, failsafe=False),
        _tag(2, "mixer.agitator", 0, "float32", unit="rpm", writable=True, low=0, high=300, failsafe=0.0),
        _tag(3, "conveyor.weight", 1, "float32", unit="kg"),
        _tag(4, "conveyor.speed", 1, "uint16", unit="mm/s", writable=True, failsafe=0.0, scale=Scale(0, 1000, 0, 500)),
        _tag(5, "conveyor.bottle", 1, "bool"),
        _tag(6, "conveyor.lot", 1, "string[16]"),
        _tag(7, "conveyor.lamp", 1, "bool", writable=True, failsafe=False),
    )
    devices = (
        Device(0, "mixer", "s7", msgspec.Struct(), 20_000_000, (0, 1, 2)),
        Device(1, "conveyor", "modbus", msgspec.Struct(), 20_000_000, (3, 4, 5, 6, 7)),
    )
    return Cell("bottling", "cell.yaml", SCAN_NS, devices, tags, {"mixer": (0,), "conveyor": (1,)}, {})


def _fill(scan: Cell) -> Recipe:
    steps = (
        Step(
            0,
            "Fill",
            "until",
            10,
            during=(Level(1, True),),
            until=lambda values, variables: None if values[0] is None else values[0] >= variables[0],
            within=6000,
            inputs=(0,),
            condition="mixer.level >= volume",
        ),
        Step(1, "Agitator on", "set", 14, set=(Level(2, 120.0),)),
        Step(2, "Stir and bring", "parallel", 15, branches=(Branch("stir", (3,)), Branch("bring", (4,)))),
        Step(3, "Stir", "wait", 16, wait=20),
        Step(
            4,
            "Bring a bottle",
            "until",
            17,
            until=lambda values, _: values[5],
            within=60000,
            inputs=(5,),
            condition="conveyor.bottle",
        ),
        Step(
            5,
            "Look at the label",
            "ask",
            18,
            ask=Prompt(
                {"en": "Is the label straight?", "fr": "L'étiquette est-elle droite ?", "ar": "هل الملصق مستقيم؟"},
                "choice",
                ("yes", "no"),
                into=3,
            ),
        ),
        Step(6, "Record", "record", 19, record=(Entry("filled", lambda values, _: values[0], unit("L")),)),
    )
    overloaded = Interlock(
        when=lambda values, _: None if values[3] is None else values[3] > 40,
        do="hold",
        say={"en": "Scale overloaded", "fr": "Balance en surcharge", "ar": "الميزان محمّل أكثر من اللازم"},
        grace=100,
        condition="conveyor.weight > 40 kg",
        line=5,
        inputs=(3,),
        priority="high",
    )
    parameters = (
        Parameter("volume", "number", "L", 20, 5, 50, say={"en": "Volume", "fr": "Volume", "ar": "الحجم"}),
        Parameter("side", "text", default="front", choices=("front", "back"), say={"en": "Label side"}),
        Parameter("rinse", "bool", default=True, say={"en": "Rinse first", "fr": "Rincer d'abord", "ar": "اشطف أولًا"}),
    )
    return Recipe(
        name="rinse-and-fill",
        file="rinse-and-fill.yaml",
        hash="0" * 64,
        uses=("mixer", "conveyor"),
        devices=(0, 1),
        parameters=parameters,
        variables=("volume", "side", "rinse", "label_ok"),
        steps=steps,
        body=(0, 1, 2, 5, 6),
        handlers={},
        interlocks=(overloaded,),
        inputs=(0, 3, 5),
        outputs=(1, 2),
        say={"en": "Rinse and fill", "fr": "Rincer et remplir", "ar": "الشطف والتعبئة"},
        guards=1,
    )


def _changeover(scan: Cell) -> Recipe:
    steps = (
        Step(0, "Clear", "ask", 4, ask=Prompt({"en": "Is the line clear?", "ar": "هل الخط خالٍ؟"}, "confirm")),
        Step(1, "Weigh", "ask", 5, ask=Prompt({"en": "Tare of the bottle"}, "number", (), "g", 10, 500, 1)),
        Step(2, "Lot", "ask", 6, ask=Prompt({"en": "Lot number"}, "text", into=2)),
        Step(3, "Lamp", "wait", 7, wait=100_000, during=(Level(7, True),)),
    )
    return Recipe(
        name="changeover",
        file="changeover.yaml",
        hash="1" * 64,
        uses=("conveyor",),
        devices=(1,),
        parameters=(Parameter("bottles", "number", "pcs", None, 1, 999),),
        variables=("bottles", "tare", "lot"),
        steps=steps,
        body=(0, 1, 2, 3),
        handlers={},
        interlocks=(),
        inputs=(),
        outputs=(7,),
    )


def _release(scan: Cell) -> Recipe:
    """A ramp, a question for an engineer whose answers have texts, an alarm that is waited for."""
    answers: dict[str, Texts] = {
        "release": {"en": "Release", "fr": "Libérer", "ar": "إفراج"},
        "scrap": {"en": "Scrap", "fr": "Rebuter", "ar": "إتلاف"},
    }
    asked: Texts = {"en": "What becomes of the lot?", "fr": "Que devient le lot ?", "ar": "ما مصير الدفعة؟"}
    alarm: Texts = {"en": "Empty the bin", "fr": "Videz le bac", "ar": "أفرغ الحاوية"}
    steps = (
        Step(0, "Speed up", "ramp", 4, ramp=(Ramp(4, 400.0, 200.0),), condition="conveyor.speed to 400 mm/s"),
        Step(
            1, "Decide", "ask", 5, ask=Prompt(asked, "choice", tuple(answers), into=0, labels=answers, who="engineer")
        ),
        Step(2, "Bin", "alarm", 6, alarm=Notice(alarm, "high", True)),
    )
    return Recipe(
        name="release",
        file="release.yaml",
        hash="2" * 64,
        uses=("conveyor",),
        devices=(1,),
        parameters=(),
        variables=("fate",),
        steps=steps,
        body=(0, 1, 2),
        handlers={},
        interlocks=(),
        inputs=(),
        outputs=(4,),
    )


def plan() -> Plan:
    found = cell()
    recipes = (_fill(found), _changeover(found), _release(found))
    return Plan(found, (), {recipe.name: recipe for recipe in recipes})


def histogram(sum_s: float, *counts: int) -> Times:
    return Times((*counts, *[0] * (len(BOUNDS_S) + 1 - len(counts))), sum_s)


class WatchedLoop:
    """Runs cycles, one call or (after `begin`) one period each, until `end`. Its methods may be called meanwhile."""

    def __init__(self, watched: Plan, end: socket.socket, state_dir: Path | None = None) -> None:
        self.plan = watched
        self.socket = end
        self.lock = threading.RLock()
        self.mute = False
        self.events: list[Event] = []
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.renew()

    def renew(self) -> None:
        """The loop as it starts: a new engine, every device there, every value at its rest."""
        with self.lock:
            self.engine = Engine(self.plan)
            self.cycle = 0
            self.values: list[Value | None] = [
                {"bool": False, "string": ""}.get(tag.type.kind, 0.0) for tag in self.plan.cell.tags
            ]
            self.present = {device.index for device in self.plan.cell.devices}
            self.packets = [pack(DeviceReport(index, True, GOOD)) for index in sorted(self.present)]
            self.snapshot = True
            self.events.clear()

    # --- what happens in the plant -----------------------------------------------------------------------------------

    def put(self, **values: Value | None) -> None:
        """What the tags show from now on, by name with `__` for the dot; None: a bad value."""
        with self.lock:
            for name, value in values.items():
                self.values[self.plan.cell.tag(name.replace("__", ".")).index] = value

    def lose(
        self, name: str, text: str = "no answer from 192.168.10.11:102", status: int = BAD_NO_COMMUNICATION
    ) -> None:
        index = next(one.index for one in self.plan.cell.devices if one.name == name)
        with self.lock:
            self.present.discard(index)
            report = DeviceReport(index, False, status, text, "check its power and its cable")
            self.packets.append(pack(report))

    def find(self, name: str) -> None:
        index = next(one.index for one in self.plan.cell.devices if one.name == name)
        with self.lock:
            self.present.add(index)
            self.packets.append(pack(DeviceReport(index, True, GOOD)))

    def state(self, batch: str) -> str:
        """The batch's state in the engine; "" where it has none."""
        with self.lock:
            found = self.engine.state.batches.get(batch)
            return found.state if found is not None else ""

    # --- cycles ------------------------------------------------------------------------------------------------------

    def run(self, cycles: int = 1) -> list[bytes]:
        """Runs cycles; gives the packets that went to the watcher."""
        sent: list[bytes] = []
        with self.lock:
            for _ in range(cycles):
                sent += self._cycle()
        return sent

    def _cycle(self) -> list[bytes]:
        self.cycle += 1
        inputs = [*self.packets, *self._frames()]
        self.packets = []
        for packet in channel.drain(self.socket):
            if isinstance(unpack_inward(packet), Hello):
                self.snapshot = True
            else:
                inputs.append(packet)
        output = self.engine.step(self.cycle, inputs)
        self.events += output.events
        for frame in output.frames:
            layout = self.engine.layouts[device_of(frame)]
            for tag, level in zip(layout.outputs, layout.unpack_output(frame)[1], strict=True):
                self.values[tag] = level
        if output.commit is not None:
            self.packets.append(pack(Ack(output.commit.commit)))
        sent = [pack_record(self.cycle, inputs, output.frames, pack_events(output.events))]
        if self.snapshot:
            sent.append(pack(Snapshot(self.cycle, msgspec.msgpack.encode(self.engine.state))))
            self.snapshot = False
        if self.cycle % 50 == 0:
            ages = (histogram(0.004, *[0] * 7, 4), histogram(0.0))
            sent.append(pack(LoopStats(self.cycle, 2, histogram(1e-4, 5, 3), histogram(2e-4, 0, 8), 0, ages, 3e-4)))
            reaction = histogram(0.002, *[0] * 7, 2)
            sent.append(pack(DeviceStats(0, True, 40, 3, 4, histogram(0.01, 0, 0, 0, 20, 20), reaction)))
        for packet in sent:
            channel.send(self.socket, packet)
        return sent

    def _frames(self) -> list[bytes]:
        frames: list[bytes] = []
        for index in sorted(self.present):
            layout = self.engine.layouts[index]
            values = self.values[layout.first : layout.end]
            statuses = [GOOD if value is not None else BAD_NO_COMMUNICATION for value in values]
            now = time.time_ns()
            frames.append(layout.pack_input(self.cycle, 0, now, values, statuses if any(statuses) else None))
        return frames

    def begin(self) -> None:
        """Runs a cycle each scan in a thread of its own, until `end`; while `mute` it stands still."""
        self._thread = threading.Thread(target=self._cycles, daemon=True)
        self._thread.start()

    def _cycles(self) -> None:
        while not self._stop.wait(SCAN_NS / 1e9):
            if not self.mute:
                self.run()

    def end(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
