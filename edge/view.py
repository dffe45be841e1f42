"""What a watcher knows of the loop: tags, devices, batches, alarms, from the packets that the loop sends anyway.

The API, the metrics and the console look through a View; it never makes the loop wait and never shows a value that it
cannot vouch for: what a lost device, a lost packet or a silent loop has left behind is bad at once.
"""

import struct
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from drivers.value import BAD_NO_COMMUNICATION, BAD_TIMEOUT, BAD_WAITING, Value
from edge.batch import Alarm, Shelf, State
from edge.batch_view import BatchView, StepView, restored
from edge.catalogue import recipes
from edge.devices import DeviceView, Json, iso
from edge.engine import alarms, states, words
from edge.engine.guards import missing
from edge.image import INPUT, OUTPUT, RECORD, device_of, layouts, unpack_record
from edge.language.program import Plan, Recipe
from edge.messages import (
    MESSAGE,
    AlarmAcknowledged,
    AlarmChanged,
    AlarmCleared,
    AlarmRaised,
    AlarmShelved,
    AlarmUnshelved,
    Answered,
    Asked,
    BatchRemoved,
    BatchStarted,
    CommandDone,
    DeviceReport,
    DeviceStats,
    Event,
    LoopStats,
    ModeChanged,
    PhaseChanged,
    RecipeRevised,
    Recorded,
    Snapshot,
    StateChanged,
    StepEnded,
    StepStarted,
    StepWaits,
    TagReport,
    UnitsAsked,
    UnitsReleased,
    UnitsTaken,
    VariableSet,
    unpack_events,
    unpack_inward,
    unpack_outward,
)

LOG_LENGTH = 200
_snapshot = msgspec.msgpack.Decoder(State)


class View:
    """One watcher's knowledge of a cell. `feed` it the packets of the loop and of the fieldbus processes.

    `reloaded` is what came of the last look at the recipe files.
    While `incomplete`, it lacks something that only a Snapshot brings: send the loop a Hello. `alive` is False until
    the loop is heard, and after `silence`.
    """

    def __init__(self, plan: Plan, now_ns: Callable[[], int] = time.time_ns) -> None:
        cell = plan.cell
        self.plan = plan = plan.copy()
        self.incomplete = True
        self.alive = False
        self.cycle = 0
        self.devices = [
            DeviceView(device, layout, [cell.tags[tag] for tag in device.tags])
            for device, layout in zip(cell.devices, layouts(cell), strict=True)
        ]
        self.batches: dict[str, BatchView] = {}
        self.alarms: dict[int, Alarm] = {}
        self.alarm_times: dict[int, int] = {}
        self.loop: LoopStats | None = None
        self.reloaded: Json = {}
        self.log: deque[tuple[int, int, Event | DeviceReport]] = deque(maxlen=LOG_LENGTH)
        self._number = 0
        self._now_ns = now_ns
        self._by_name = {one.device.name: one for one in self.devices}
        self._unit_of = {device: unit for unit, devices in cell.units.items() for device in devices}

    # --- what comes in -----------------------------------------------------------------------------------------------

    def feed(self, packet: bytes) -> Sequence[Event]:
        """Takes one packet in; gives the events that it brought. Bytes that are no packet make the view incomplete."""
        try:
            if packet[0] == RECORD:
                return self._record(packet)
            if packet[0] == MESSAGE:
                self._message(packet)
        except (struct.error, IndexError, msgspec.MsgspecError):
            self._miss()
        return ()

    def silence(self) -> None:
        """The loop is not heard any more: nothing that it said counts now."""
        self.alive = False
        self._miss()
        for device in self.devices:
            device.lose(BAD_NO_COMMUNICATION, "the control loop is silent", "see the log of the edge service")

    def _miss(self) -> None:
        """Something was not understood: an `unchanged` frame could now confirm a value that is not the last one."""
        self.incomplete = True
        for device in self.devices:
            device.turn_bad(BAD_WAITING)

    def _record(self, packet: bytes) -> Sequence[Event]:
        cycle, inputs, outputs, packed = unpack_record(packet)
        events = unpack_events(packed)
        self._hear(cycle)
        for frame in inputs:
            if frame[0] == INPUT:
                self.devices[device_of(frame)].take(frame, cycle)
            elif frame[0] == MESSAGE:
                self._inward(frame)
        for frame in outputs:
            if frame[0] == OUTPUT:
                self.devices[device_of(frame)].take_levels(frame)
        for event in events:
            self._event(event)
        return events

    def _hear(self, cycle: int) -> None:
        if not self.alive or cycle < self.cycle:
            self.incomplete = True
        elif (missed := cycle - self.cycle) > self.plan.cycles(self.plan.cell.silence_ns / 1e9):
            for batch in self.batches.values():  # the loop stood still: it holds them, and counts this for no step
                batch.at += missed
        self.alive = True
        self.cycle = cycle

    def _inward(self, packet: bytes) -> None:
        match unpack_inward(packet):
            case DeviceReport() as report:
                device = self.devices[report.device]
                if report.up != device.up:
                    self._note(report)
                device.take_report(report)
                device.seen = self.cycle
            case TagReport() as report:
                self.devices[self.plan.cell.tags[report.tag].device].take_trouble(report)
            case _:
                pass

    def _message(self, packet: bytes) -> None:
        match unpack_outward(packet):
            case Snapshot() as snapshot:
                self._restore(_snapshot.decode(snapshot.state), snapshot.cycle)
            case LoopStats() as stats:
                self.loop = stats
                self._hear(stats.cycle)
            case DeviceStats() as stats:
                self.devices[stats.device].stats = stats
            case _:
                pass

    def _restore(self, state: State, cycle: int) -> None:
        self.alive, self.cycle, self.incomplete = True, cycle, False
        for device in self.devices:
            device.restore(state)
        for name, digest in state.versions.items():
            self._revise(name, digest)
        known, self.batches = self.batches, {}
        for batch in state.batches.values():
            self.batches[batch.batch] = restored(self.plan, batch, cycle, known.get(batch.batch))
        now = self._now_ns()
        self.alarms = dict(state.alarms)
        scan = self.plan.cell.scan_ns
        self.alarm_times = {number: now - (cycle - one.cycle) * scan for number, one in state.alarms.items()}

    def _revise(self, name: str, digest: str) -> None:
        """Another version is in force, one that was put among the plan's others before it was sent to the loop."""
        recipe = self.plan.version(name, digest)
        if not digest:
            self.plan.withdraw(name)
        elif recipe is not None:
            self.plan.put(recipe)

    def recall(self, batch: str, started_ns: int, since_ns: int | None, recorded: Sequence[Recorded]) -> None:
        """What the batch record knows of a batch that was already running when this view began."""
        view = self.batches.get(batch)
        if view is not None and view.started_ns is None:
            view.started_ns = started_ns
            view.since_ns = view.since_ns or since_ns
            view.recorded = [*recorded, *(one for one in view.recorded if one not in recorded)]

    # --- events ------------------------------------------------------------------------------------------------------

    def _note(self, event: Event | DeviceReport) -> None:
        self._number += 1
        self.log.append((self._number, self._now_ns(), event))

    def _event(self, event: Event) -> None:
        if isinstance(event, RecipeRevised):
            self._note(msgspec.structs.replace(event, text=""))
        elif not isinstance(event, CommandDone | AlarmChanged | StepWaits | VariableSet):
            self._note(event)
        match event:
            case BatchStarted():
                now = self._now_ns()
                started = BatchView(event.batch, event.recipe, event.hash, event.by, event.parameters)
                started.started_ns = started.since_ns = now
                started.at = self.cycle
                self.batches[event.batch] = started
            case BatchRemoved():
                self.batches.pop(event.batch, None)
            case AlarmRaised():
                self._raise(event)
            case AlarmChanged() | AlarmCleared() | AlarmAcknowledged() | AlarmShelved() | AlarmUnshelved():
                alarms.change(event, self.alarms)
            case RecipeRevised():
                self._revise(event.recipe, event.hash)
            case CommandDone() | StateChanged(state="idle"):
                pass
            case (
                StateChanged()
                | ModeChanged()
                | StepWaits()
                | StepStarted()
                | StepEnded()
                | PhaseChanged()
                | UnitsAsked()
                | UnitsTaken()
                | UnitsReleased()
                | Recorded()
                | VariableSet()
                | Asked()
                | Answered()
            ):
                batch = self.batches.get(event.batch)
                if batch is None:
                    self.incomplete = True
                else:
                    if not batch.take(event, self.cycle, self._now_ns()):
                        self.incomplete = True
            case _:
                pass

    def _raise(self, event: AlarmRaised) -> None:
        alarms.raised(event, self.cycle, self.alarms)
        known = self.alarm_times | {event.alarm: self._now_ns()}
        self.alarm_times = {number: time for number, time in known.items() if number in self.alarms}
        if event.kind == "device-lost":
            self._lost_by_age(event)

    def _lost_by_age(self, event: AlarmRaised) -> None:
        """The engine has given a silent device up by itself: no report says so, only the alarm."""
        device = self._by_name.get(event.device)
        if device is not None and device.up and device.seen < self.cycle:
            device.lose(BAD_TIMEOUT, event.detail)

    # --- what it knows -----------------------------------------------------------------------------------------------

    def owner(self, device: int) -> str | None:
        """The batch that owns the device's unit."""
        unit = self._unit_of.get(device)
        for batch in self.batches.values():
            recipe = self.plan.version(batch.recipe, batch.hash)
            if recipe is not None and (unit in recipe.uses or unit in batch.units) and batch.state not in states.ENDED:
                return batch.batch
        return None

    def _waiting(self, unit: str) -> list[str]:
        """The batches that wait for a unit, in the order of their turns."""
        asked = [one for batch in self.batches.values() for one in batch.asked.values() if unit in one.units]
        return [one.batch for one in sorted(asked, key=lambda one: one.turn)]

    def seconds(self, batch: BatchView, step: StepView) -> float:
        """How long a step has been active; its clock stands while the batch is held."""
        return batch.active_cycles(step, self.cycle) * self.plan.cell.scan_ns / 1e9

    def tags(self) -> Json:
        """Every tag: value (None unless good), quality, source time, unit; an output has its level and owner too."""
        found: Json = {}
        for device in self.devices:
            found |= device.tag_states(self.owner(device.device.index))
        return found

    def state(self) -> Json:
        """Everything, ready for JSON: what the API gives and the page shows. Sections of named things are objects."""
        cell = self.plan.cell
        return {
            "cell": cell.name,
            "scan_s": cell.scan_ns / 1e9,
            "cycle": self.cycle,
            "loop": self._loop(),
            "devices": {one.device.name: one.state() for one in self.devices},
            "units": {
                unit: {
                    "devices": [cell.devices[device].name for device in devices],
                    "owner": self.owner(devices[0]) if devices else None,
                    "waiting": self._waiting(unit),
                }
                for unit, devices in cell.units.items()
            },
            "tags": self.tags(),
            "batches": {name: self.batch(one) for name, one in self.batches.items()},
            "alarms": {str(number): self._alarm_json(one) for number, one in self.alarms.items()},
            "log": {str(number): self._entry(time_ns, event) for number, time_ns, event in self.log},
            "recipes": self.recipes(),
            "reloaded": self.reloaded,
        }

    def recipes(self) -> Json:
        """The recipes that can be started, each with the texts of the permissives that are missing now."""
        values = self._values()
        found = recipes(self.plan)
        for name, recipe in self.plan.recipes.items():
            found[name]["missing"] = [one.say for one in missing(self.plan, recipe, "start", values)]
        return found

    def _values(self) -> list[Value | None]:
        """The value of every tag, by its index; None unless it is good."""
        read = [reading for device in self.devices for reading in device.readings()]
        return [value for _, value, _, _ in sorted(read, key=lambda reading: reading[0].index)]

    def _loop(self) -> Json:
        stats = self.loop
        return {
            "alive": self.alive,
            "overruns": stats.overruns if stats else 0,
            "dropped": stats.dropped if stats else 0,
        }

    def batch(self, batch: BatchView) -> Json:
        """One batch, ready for JSON."""
        recipe = self.plan.version(batch.recipe, batch.hash)
        return {
            "recipe": batch.recipe,
            "hash": batch.hash,
            "state": batch.state,
            "cause": batch.cause,
            "cause_say": batch.cause_say,
            "changed_by": batch.changed_by,
            "by": batch.by,
            "started": iso(batch.started_ns),
            "since": iso(batch.since_ns),
            "commands": list(states.allowed(batch.state, batch.mode)),
            "mode": batch.mode,
            "modes": list(states.modes(batch.state)),
            "waits": [{"step": one.step, "name": one.name, "branch": one.branch} for one in batch.waits.values()],
            "parameters": batch.parameters,
            "steps": [self._step(batch, step, recipe) for step in batch.steps.values()],
            "units": batch.units,
            "phases": [{"step": one.step, "phase": one.phase, "state": one.state} for one in batch.phases.values()],
            "questions": [msgspec.to_builtins(one) for one in batch.questions.values()],
            "answers": batch.answers,
            "variables": msgspec.to_builtins(batch.variables),
            "recorded": [
                {"name": one.name, "value": one.value, "unit": one.unit, "step": one.step} for one in batch.recorded
            ],
        }

    def _step(self, batch: BatchView, step: StepView, recipe: Recipe | None) -> Json:
        entry: Json = {"step": step.step, "name": step.name, "branch": step.branch, "handler": step.handler}
        entry["seconds"] = int(self.seconds(batch, step))
        if recipe is not None:
            source = recipe.steps[step.step]
            entry |= {"kind": source.kind, "condition": source.condition, "limit": self._limit(source.within)}
            if step.step in batch.asked:
                owners = [self.owner(self.plan.cell.units[unit][0]) for unit in source.acquire]
                entry["waits_for"] = [one for one in dict.fromkeys(owners) if one not in (None, batch.batch)]
        return entry

    def _limit(self, within: object) -> float | None:
        return within * self.plan.cell.scan_ns / 1e9 if isinstance(within, int) else None

    def _alarm_json(self, alarm: Alarm) -> Json:
        return {
            "kind": alarm.kind,
            "say": alarm.say,
            "detail": alarm.detail,
            "time": iso(self.alarm_times.get(alarm.alarm)),
            "batch": alarm.batch,
            "device": alarm.device,
            "tag": alarm.tag,
            "active": alarm.active,
            "acknowledged": alarm.acknowledged,
            "priority": alarm.priority,
            "shelved": self._shelf(alarm, alarm.shelved),
        }

    def _shelf(self, alarm: Alarm, shelf: Shelf | None) -> Json | None:
        if shelf is None:
            return None
        cycles = shelf.until - alarm.cycle
        return {
            "by": shelf.by,
            "why": shelf.why,
            "until": iso(self.alarm_times[alarm.alarm] + cycles * self.plan.cell.scan_ns),
        }

    def _entry(self, time_ns: int, event: Event | DeviceReport) -> Json:
        entry: Json = {"time": iso(time_ns), **msgspec.to_builtins(event)}
        if isinstance(event, DeviceReport):
            entry["device"] = self.plan.cell.devices[event.device].name
            if not event.up:
                entry["say"] = words.why_lost(event.status)
        return entry
