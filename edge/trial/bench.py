"""An engine in virtual time with the devices of its cell around it: no clock, no socket, no sleeping.

The devices show their values once in each period of theirs, and take every level in the cycle in which it is given; a
commit is durable in the next cycle. A device that is late is asked again when it has answered, as by a fieldbus
process, and its values are bad when they are older than its `max_age`. Tags and devices are meant by their index.
"""

import copy
from collections import deque
from collections.abc import Iterable
from typing import Self

from drivers.value import BAD_DEVICE_FAILURE, BAD_NO_COMMUNICATION, BAD_TIMEOUT, GOOD, Value
from edge.engine.engine import Engine, Output
from edge.image import device_of
from edge.language.program import Plan
from edge.messages import Ack, Command, DeviceReport, Inward, Restore, pack


class Way:
    """What is on its way from and to a device that is `late` by so many cycles: when it comes, and the frame."""

    def __init__(self) -> None:
        self.late = 0
        self.inward: deque[tuple[int, bytes]] = deque()
        self.outward: deque[tuple[int, bytes]] = deque()


class Bench:
    """Runs an engine cycle by cycle. `values` are what the devices show (None: of bad quality), `present` those that
    are there; `restored` are the batches that an engine finds after a power loss, as their last commits left them.
    """

    def __init__(self, plan: Plan, restored: Iterable[bytes] = ()) -> None:
        self.plan = plan
        cell = plan.cell
        self.periods = [max(1, device.every_ns // cell.scan_ns) for device in cell.devices]
        self.age_limits = [plan.cycles(device.max_age_ns / 1e9) for device in cell.devices]
        self.values: list[Value | None] = [{"bool": False, "string": ""}.get(tag.type.kind, 0) for tag in cell.tags]
        self.present = set(range(len(cell.devices)))
        self.ways: dict[int, Way] = {}
        self.durable = True
        self.blobs: dict[str, bytes] = {}
        self.commands = 0
        self.packets: list[bytes] = []
        self.drained: list[bytes] = []
        self.power_up(restored)

    def power_up(self, restored: Iterable[bytes] = ()) -> None:
        """The engine as it starts, knowing nothing but the batches that are restored."""
        self.engine = Engine(self.plan)
        self.cycle = 0
        self.due = [0] * len(self.periods)
        self.heard = [0] * len(self.periods)
        self.shown: list[list[Value | None] | None] = [None] * len(self.periods)
        self.packets = []
        for device in sorted(self.present):
            self.send(DeviceReport(device, True, GOOD))
        for batch in restored:
            self.send(Restore(batch))

    def fork(self) -> Self:
        """Another in the same state, which goes its own way from here; between two cycles."""
        made = copy.copy(self)
        made.engine = self.engine.fork()
        made.values, made.present, made.ways = self.values.copy(), self.present.copy(), copy.deepcopy(self.ways)
        made.due, made.heard, made.shown = self.due.copy(), self.heard.copy(), self.shown.copy()
        made.blobs, made.packets, made.drained = self.blobs.copy(), self.packets.copy(), []
        return made

    def send(self, message: Inward) -> None:
        """The engine takes this in the next cycle."""
        self.packets.append(pack(message))

    def command(self, do: str, by: str, batch: str, **fields: object) -> int:
        """A person's command; its number, which comes back in CommandDone."""
        self.commands += 1
        self.send(Command(self.commands, do, by, batch, **fields))  # pyright: ignore[reportArgumentType]
        return self.commands

    def lose(self, device: int, text: str = "no answer") -> None:
        """The connection is lost, with all that was on its way; `text` is what the driver says."""
        if device in self.present:
            self.present.discard(device)
            self.ways.pop(device, None)
            self.send(DeviceReport(device, False, BAD_NO_COMMUNICATION, text))

    def find(self, device: int) -> None:
        """The device is there again."""
        if device not in self.present:
            self.present.add(device)
            self.shown[device] = None
            self.heard[device] = self.cycle
            self.send(DeviceReport(device, True, GOOD))

    def delay(self, device: int, cycles: int) -> None:
        """What comes from the device and goes to it is late from now on; nothing overtakes what is on its way."""
        if cycles or device in self.ways:
            self.ways.setdefault(device, Way()).late = cycles

    def step(self, skip: int = 0) -> Output:
        """One cycle, after so many that an overrun has skipped; `drained` are then the packets that the engine took."""
        self.cycle += 1 + skip
        for device, way in self.ways.items():
            while way.outward and way.outward[0][0] <= self.cycle:
                self.take(device, way.outward.popleft()[1])
        self.drained = [*self._frames(), *self.packets]
        self.packets = []
        output = self.engine.step(self.cycle, self.drained)
        for frame in output.frames:
            device = device_of(frame)
            if device not in self.present:
                continue
            if (way := self.ways.get(device)) is not None:
                way.outward.append((self.cycle + way.late, frame))
            else:
                self.take(device, frame)
        if output.commit is not None:
            self.blobs.update(output.commit.batches)
            if self.durable:
                self.send(Ack(output.commit.commit))
        return output

    def take(self, device: int, frame: bytes) -> None:
        """The device takes the levels of an output frame."""
        layout = self.engine.layouts[device]
        for tag, level in zip(layout.outputs, layout.unpack_output(frame)[1], strict=True):
            self.values[tag] = level

    def _frames(self) -> list[bytes]:
        """The input frames that come in this cycle."""
        frames: list[bytes] = []
        for device, due in enumerate(self.due):
            if self.cycle < due or device not in self.present:
                continue
            way = self.ways.get(device)
            if not (way and way.inward):
                self.due[device] = self.cycle + self.periods[device]
                if way is None:
                    self.heard[device] = self.cycle
                    frames.append(self._frame(device))
                else:
                    self.shown[device] = None
                    way.inward.append((self.cycle + way.late, self._frame(device)))
        for device, way in self.ways.items():
            frames += self._late(device, way)
        return frames

    def _late(self, device: int, way: Way) -> list[bytes]:
        """What comes from a device that is late: its answer, or that its values are too old."""
        frames: list[bytes] = []
        while way.inward and way.inward[0][0] <= self.cycle:
            self.heard[device] = self.cycle
            frames.append(way.inward.popleft()[1])
        if self.cycle - self.heard[device] == self.age_limits[device]:
            layout = self.engine.layouts[device]
            count = layout.end - layout.first
            frames.append(layout.pack_input(self.cycle, 0, 0, [None] * count, [BAD_TIMEOUT] * count))
        return frames

    def _frame(self, device: int) -> bytes:
        layout = self.engine.layouts[device]
        values = self.values[layout.first : layout.end]
        if values == self.shown[device]:
            return layout.pack_unchanged(self.cycle, 0, 0)
        self.shown[device] = values
        if None not in values:
            return layout.pack_input(self.cycle, 0, 0, values)
        statuses = [GOOD if value is not None else BAD_DEVICE_FAILURE for value in values]
        return layout.pack_input(self.cycle, 0, 0, values, statuses)
