"""What the devices give: their values latched, devices that come and go, tags that are refused."""

import struct
from collections.abc import Sequence

from drivers.value import BAD_TIMEOUT, GOOD, is_good
from edge.batch import State
from edge.engine import states, words
from edge.engine.alarms import Alarms
from edge.engine.control import Control
from edge.engine.levels import Levels
from edge.image import Layout, device_of
from edge.language.program import Plan
from edge.messages import DeviceReport, TagReport

SILENCE_NS = 1_500_000_000
"""A device whose fieldbus process says nothing for three scans and this long is lost."""

_NEVER = 1 << 62


class Field:
    """The devices as the engine has them. `next_look` is the cycle in which one can first be lost by its silence."""

    def __init__(
        self, plan: Plan, state: State, layouts: Sequence[Layout], levels: Levels, alarms: Alarms, control: Control
    ) -> None:
        self.cell = plan.cell
        self.scan_s = plan.cell.scan_ns / 1e9
        self.state = state
        self.layouts = layouts
        self.levels = levels
        self.alarms = alarms
        self.control = control
        self.age_limits = [plan.cycles((3 * device.every_ns + SILENCE_NS) / 1e9) for device in plan.cell.devices]
        self.next_look = 0
        for tag in sorted({tag for recipe in (*plan.recipes.values(), *plan.others.values()) for tag in recipe.ages}):
            state.held.setdefault(tag, 0)

    def latch(self, frame: bytes) -> None:
        """Takes an input frame into the image. One that cannot be read changes nothing."""
        state = self.state
        try:
            device = device_of(frame)
            changed = self.layouts[device].latch(frame, state.values, state.statuses)
        except (struct.error, IndexError):
            return
        if state.up[device]:
            state.seen[device] = state.cycle
        elif changed:
            self._find(device)

    def report(self, report: DeviceReport) -> None:
        if report.device >= len(self.layouts):
            return
        if report.up:
            self._find(report.device)
        else:
            self._lose(report)

    def _find(self, device: int) -> None:
        state = self.state
        state.up[device] = True
        state.reports[device] = DeviceReport(device, True, GOOD)
        state.seen[device] = state.cycle
        self.next_look = min(self.next_look, state.cycle + self.age_limits[device] + 1)
        self.levels.stale.add(device)
        self.alarms.clear(f"device:{device}")

    def _lose(self, report: DeviceReport) -> None:
        """Its tags turn bad at once; every batch that owns it is held, with an alarm that names device and tag."""
        device = report.device
        state, layout = self.state, self.layouts[device]
        state.up[device] = False
        state.reports[device] = report
        count = layout.end - layout.first
        state.values[layout.first : layout.end] = [None] * count
        state.statuses[layout.first : layout.end] = [report.status] * count
        name = self.cell.devices[device].name
        concerned = [one for one in self.control.sequences.values() if device in one.devices()]
        used = [tag for one in concerned for tag in (*one.recipe.inputs, *one.recipe.outputs)]
        tag = next((self.cell.tags[tag].name for tag in used if layout.first <= tag < layout.end), "")
        say, detail = words.device_lost(name, tag, report.status), words.detail(report)
        owner = next((one.batch.batch for one in concerned if one.batch.state not in states.ENDED), "")
        self.alarms.raise_alarm(
            f"device:{device}", "device-lost", say, batch=owner, device=name, tag=tag, detail=detail
        )
        for one in concerned:
            self.control.let_go(one)
            self.control.change(one, "hold", say, "device")

    def watch(self) -> None:
        """Devices that have been silent for too long are lost. Looks again when the next one can be."""
        state = self.state
        for device, seen in enumerate(state.seen):
            if state.up[device] and state.cycle - seen > self.age_limits[device]:
                self._lose(DeviceReport(device, False, BAD_TIMEOUT, "its fieldbus process sends nothing"))
        due = [seen + self.age_limits[device] + 1 for device, seen in enumerate(state.seen) if state.up[device]]
        self.next_look = min(due, default=_NEVER)

    def tell_ages(self) -> None:
        """How long ago each value whose age is asked for was last said to hold: good, by a frame of its device."""
        values, held, tags = self.state.values, self.state.held, self.cell.tags
        for tag in held:
            if values[tag] is not None:
                held[tag] = self.state.seen[tags[tag].device]
            values[len(tags) + tag] = (self.state.cycle - held[tag]) * self.scan_s

    def refused(self, report: TagReport) -> None:
        """Tags that their device does not give or take; an output that it does not take holds its batch."""
        tags = report.tag, *report.others
        if max(tags) >= len(self.cell.tags):
            return
        tag = self.cell.tags[report.tag]
        key = f"tag:{report.tag}:{'write' if report.write else 'read'}"
        if is_good(report.status):
            self.alarms.clear(key)
            return
        names = [self.cell.tags[tag].name for tag in tags]
        say = words.tags_refused(names, report.status, write=report.write)
        owner = self.levels.owner(report.tag)
        batch = owner.batch if owner is not None else ""
        device = self.cell.devices[tag.device].name
        self.alarms.raise_alarm(key, "refused", say, batch=batch, device=device, tag=tag.name, detail=report.text)
        sequence = self.control.sequences.get(batch)
        if sequence is not None and report.write and not set(tags).isdisjoint(sequence.recipe.outputs):
            self.control.change(sequence, "hold", say, "device")
