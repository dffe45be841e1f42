"""The engine: a pure function from the packets of a cycle to output frames, events and a commit.

No clock, no socket, no file, no randomness: the same packets in the same cycles give the same outputs, byte for byte.
"""

import struct
from typing import Any

import msgspec

from drivers.value import BAD_TIMEOUT, BAD_WAITING, Value, is_good
from edge import alarms, states
from edge.batch import Alarm, BatchState, BranchState, State
from edge.image import INPUT, device_of, layouts
from edge.messages import (
    MESSAGE,
    Ack,
    AlarmAcknowledged,
    AlarmCleared,
    AlarmRaised,
    Answered,
    Asked,
    BatchRemoved,
    BatchStarted,
    Command,
    CommandDone,
    Commit,
    DeviceReport,
    Event,
    Inward,
    Restore,
    StateChanged,
    TagReport,
    TagSet,
    unpack_inward,
)
from edge.program import Interlock, Parameter, Plan, Recipe, Texts
from edge.sequence import Refused, Sequence, agrees, fit, halted

MAX_ALARMS = 256
MAX_BATCHES = 64
HEARTBEAT_NS = 100_000_000
RECORD_S = 3.0
"""A commit that is not durable after so long is an alarm: steps wait for it, and nobody would know why."""

SILENCE_NS = 1_500_000_000
"""A device whose fieldbus process says nothing for three scans and this long is lost."""

_NEVER = 1 << 62
_pack = msgspec.msgpack.Encoder().encode
_unpack_batch = msgspec.msgpack.Decoder(BatchState).decode


class Denied(Exception):
    """A command that is refused; the text says why to the person who gave it."""


class Output(msgspec.Struct, frozen=True):
    """What a cycle gives: an output frame for each device whose levels changed, the events, what must be durable."""

    frames: list[bytes]
    events: list[Event]
    commit: Commit | None


class Engine:
    """One cell's engine. `step` is its whole behaviour; `state` all that it knows, plain data at any time."""

    def __init__(self, plan: Plan, state: State | None = None) -> None:
        self.plan = plan
        self.cell = cell = plan.cell
        self.layouts = layouts(cell)
        self.unit_of = {device: unit for unit, devices in cell.units.items() for device in devices}
        self.age_limits = [plan.cycles((3 * device.every_ns + SILENCE_NS) / 1e9) for device in cell.devices]
        self.silence = plan.cycles(cell.silence_ns / 1e9)
        self.record_limit = plan.cycles(RECORD_S)
        self.beat = max(1, plan.cycles(HEARTBEAT_NS / 1e9))
        self.beats = dict.fromkeys(cell.heartbeats.values(), True)
        self.fresh = state is None
        self.state = state if state is not None else self._first_state()
        self.events: list[Event] = []
        self.sequences = {batch.batch: self._sequence(batch) for batch in self.state.batches.values()}
        self.next_look = 0
        self.stale = set(range(len(cell.devices))) if self.fresh else set[int]()

    def _first_state(self) -> State:
        cell, devices = self.cell, len(self.cell.devices)
        return State(
            cycle=0,
            values=[None] * len(cell.tags),
            statuses=[BAD_WAITING] * len(cell.tags),
            seen=[0] * devices,
            up=[False] * devices,
            reasons=["not connected yet"] * devices,
            levels=[tag.failsafe for tag in cell.tags],
            manual={},
            batches={},
            alarms={},
            alarm_keys={},
            owners={},
        )

    def _sequence(self, batch: BatchState) -> Sequence:
        return Sequence(self.plan, self.plan.recipes[batch.recipe], self.state, batch, self.events.append)

    # --- one cycle ---------------------------------------------------------------------------------------------------

    def step(self, cycle: int, packets: list[bytes]) -> Output:
        """Runs one cycle: takes in the packets, runs interlocks and steps, gives what changed. Cycles only rise."""
        state = self.state
        elapsed, state.cycle = cycle - state.cycle, cycle
        self.events.clear()
        for packet in packets:
            if packet[0] == INPUT:
                self._latch(packet)
            elif packet[0] == MESSAGE:
                self._take(packet)
        if elapsed > self.silence:
            self._stood_still(elapsed)
        if state.acked < state.next_commit - 1 and cycle - state.behind_since > self.record_limit:
            self._raise("record", "record", alarms.not_recorded())
        if cycle >= self.next_look:
            self._watch_ages()
        for sequence in self.sequences.values():
            self._run(sequence, elapsed)
        if self.beats and cycle % self.beat < elapsed:
            for tag in self.beats:
                self._set_level(tag, cycle // self.beat % 32768)
        frames = [self.output_frame(device) for device in sorted(self.stale)]
        self.stale.clear()
        events = list(self.events)
        return Output(frames, events, self._commit(events) if events else None)

    def output_frame(self, device: int) -> bytes:
        """The desired levels of a device's outputs now."""
        layout, levels = self.layouts[device], self.state.levels
        return layout.pack_output(self.state.cycle, [levels[tag] for tag in layout.outputs])

    def _commit(self, events: list[Event]) -> Commit | None:
        """What must be durable: all but the answers to commands; with the new state of every batch concerned."""
        durable = tuple([event for event in events if not isinstance(event, CommandDone)])  # from a list: see `allowed`
        if not durable:
            return None
        number = self.state.next_commit
        if self.state.acked == number - 1:
            self.state.behind_since = self.state.cycle
        self.state.next_commit += 1
        batches: dict[str, bytes] = {}
        for event in durable:
            name: str = getattr(event, "batch", "")
            batch = self.state.batches.get(name)
            if batch is not None and name not in batches:
                batches[name] = b"" if batch.state in states.ENDED else _pack(batch)
        return Commit(number, self.state.cycle, durable, batches)

    # --- what comes in -----------------------------------------------------------------------------------------------

    def _take(self, packet: bytes) -> None:
        try:
            message: Inward = unpack_inward(packet)
        except msgspec.MsgspecError:
            return
        match message:
            case Ack():
                self._acknowledge(message.commit)
            case DeviceReport():
                self._device(message)
            case TagReport():
                self._tag(message)
            case Command():
                self._command(message)
            case Restore():
                self._restore(message)
            case _:
                pass

    def _latch(self, frame: bytes) -> None:
        state = self.state
        try:
            device = device_of(frame)
            changed = self.layouts[device].latch(frame, state.values, state.statuses)
        except (struct.error, IndexError):
            return
        if state.up[device]:
            state.seen[device] = state.cycle
        elif changed:
            self._device_up(device)

    def _acknowledge(self, commit: int) -> None:
        state = self.state
        if commit > state.acked:
            state.acked, state.behind_since = commit, state.cycle
            self._clear("record")
        for sequence in self.sequences.values():
            if sequence.batch.needs and sequence.batch.needs <= self.state.acked:
                sequence.batch.needs = 0
                self._relevel(sequence.batch.during)

    # --- devices and tags --------------------------------------------------------------------------------------------

    def _device(self, report: DeviceReport) -> None:
        if report.device >= len(self.layouts):
            return
        if report.up:
            self._device_up(report.device)
        else:
            self._device_lost(report.device, report.status, report.text)

    def _device_up(self, device: int) -> None:
        self.state.up[device] = True
        self.state.reasons[device] = ""
        self.state.seen[device] = self.state.cycle
        self.next_look = min(self.next_look, self.state.cycle + self.age_limits[device] + 1)
        self.stale.add(device)
        self._clear(f"device:{device}")

    def _device_lost(self, device: int, status: int, reason: str) -> None:
        """Its tags turn bad at once; every batch that owns it is held, with an alarm that names device and tag."""
        state, layout = self.state, self.layouts[device]
        state.up[device] = False
        state.reasons[device] = reason
        count = layout.end - layout.first
        state.values[layout.first : layout.end] = [None] * count
        state.statuses[layout.first : layout.end] = [status] * count
        name = self.cell.devices[device].name
        concerned = [one for one in self.sequences.values() if device in one.recipe.devices]
        used = [tag for one in concerned for tag in (*one.recipe.inputs, *one.recipe.outputs)]
        tag = next((self.cell.tags[tag].name for tag in used if layout.first <= tag < layout.end), "")
        say = alarms.device_lost(name, tag, reason)
        owner = next((one.batch.batch for one in concerned if one.batch.state not in states.ENDED), "")
        self._raise(f"device:{device}", "device-lost", say, batch=owner, device=name, tag=tag)
        for one in concerned:
            self._change(one, "hold", say["en"], "device")

    def _watch_ages(self) -> None:
        """Devices that have been silent for too long are lost. Looks again when the next one can be."""
        state = self.state
        for device, seen in enumerate(state.seen):
            if state.up[device] and state.cycle - seen > self.age_limits[device]:
                self._device_lost(device, BAD_TIMEOUT, "its fieldbus process sends nothing")
        due = [seen + self.age_limits[device] + 1 for device, seen in enumerate(state.seen) if state.up[device]]
        self.next_look = min(due, default=_NEVER)

    def _tag(self, report: TagReport) -> None:
        if report.tag >= len(self.cell.tags):
            return
        tag = self.cell.tags[report.tag]
        key = f"tag:{report.tag}:{'write' if report.write else 'read'}"
        if is_good(report.status):
            self._clear(key)
            return
        say = alarms.tag_refused(tag.name, report.text, write=report.write)
        owner = self._owner(report.tag)
        batch = owner.batch.batch if owner is not None else ""
        device = self.cell.devices[tag.device].name
        self._raise(key, "refused", say, batch=batch, device=device, tag=tag.name)
        if owner is not None and report.write and report.tag in owner.recipe.outputs:
            self._change(owner, "hold", say["en"], "device")

    def _stood_still(self, elapsed: int) -> None:
        """The loop has run no cycle for so long that outputs are at failsafe: nothing moves again by itself."""
        say = alarms.stood_still(elapsed * self.cell.scan_ns / 1e9)
        for sequence in self.sequences.values():
            if self._change(sequence, "hold", say["en"], "edge"):
                name = sequence.batch.batch
                self._raise(f"batch:{name}:stood-still", "stood-still", say, batch=name)

    # --- levels ------------------------------------------------------------------------------------------------------

    def _owner(self, tag: int) -> Sequence | None:
        """The batch that owns the tag's unit."""
        return self.sequences.get(self.state.owners.get(self.unit_of.get(self.cell.tags[tag].device, ""), ""))

    def _relevel(self, tags: Any) -> None:
        for tag in tags:
            if tag not in self.beats:
                self._set_level(tag, self._level(tag))

    def _level(self, tag: int) -> Value | None:
        owner, failsafe = self._owner(tag), self.cell.tags[tag].failsafe
        if owner is None:
            return self.state.manual.get(tag, failsafe)
        batch = owner.batch
        if tag in batch.during and batch.state in states.ACTING and not batch.needs:
            return batch.during[tag]
        if batch.safe:
            return failsafe
        return batch.handler.get(tag, batch.set.get(tag, failsafe))

    def _set_level(self, tag: int, level: Value | None) -> None:
        if level != self.state.levels[tag]:
            self.state.levels[tag] = level
            self.stale.add(self.cell.tags[tag].device)

    # --- batches -----------------------------------------------------------------------------------------------------

    def _run(self, sequence: Sequence, elapsed: int) -> None:
        """One batch's turn: interlocks first, then its handler or its steps, then what came of them."""
        batch = sequence.batch
        if batch.state in states.ENDED:
            return
        values, keys = self.state.values, self.state.alarm_keys
        for number, interlock in enumerate(sequence.recipe.interlocks):
            tripped = interlock.when(values, batch.variables)
            if tripped is not False or batch.unknown_since or keys:
                self._interlock(sequence, number, interlock, tripped)
        if batch.state in states.HANDLED:
            self._handle(sequence)
        elif batch.state in ("running", "pausing") and not batch.needs and batch.body is not None:
            batch.clock += elapsed
            if sequence.run():
                self._change(sequence, "finish", "all steps done", "recipe")
            elif batch.state == "pausing" and halted(batch.body):
                self._change(sequence, "done", batch.cause, "edge")
        if sequence.faults or sequence.touched:
            self._settle(sequence)

    def _settle(self, sequence: Sequence) -> None:
        for fault in sequence.faults:
            name = sequence.batch.batch
            self._raise(f"batch:{name}:{fault.kind}", fault.kind, fault.say, batch=name, tag=fault.tag)
            if fault.do:
                self._change(sequence, fault.do, fault.say["en"], "recipe")
        sequence.faults.clear()
        self._relevel(sequence.touched)
        sequence.touched.clear()

    def _handle(self, sequence: Sequence) -> None:
        batch = sequence.batch
        if batch.handling is None:
            if batch.state == "restarting" and self._not_ready(sequence):
                return
            batch.handling = BranchState(sequence.recipe.handlers.get(states.HANDLED[batch.state], ()))
        if sequence.run(handler=True):
            self._change(sequence, "done", batch.cause, "edge")

    def _interlock(self, sequence: Sequence, number: int, interlock: Interlock, tripped: Value | None) -> None:
        state, batch = self.state, sequence.batch
        key = f"batch:{batch.batch}:interlock:{number}"
        if tripped is None:
            since = batch.unknown_since.setdefault(number, state.cycle)
            if batch.state not in states.ACTING or state.cycle - since < interlock.grace:
                return  # a batch that is held already need not be ended: the unknown bars its restart
            names = ", ".join(self.cell.tags[tag].name for tag in interlock.inputs if state.values[tag] is None)
            say = alarms.interlock_unknown(interlock.condition, names)
        else:
            batch.unknown_since.pop(number, None)
            if tripped is not True:
                self._clear(key)
                return
            say = interlock.say
        self._raise(key, "interlock", say, batch=batch.batch)
        self._change(sequence, interlock.do, _english(say), "interlock")

    def _change(self, sequence: Sequence, command: str, cause: str, by: str) -> bool:
        """One change of state after the table, with all that goes with the new state; False where it is refused."""
        batch = sequence.batch
        new = states.after(batch.state, command)
        if new is None or new == batch.state:
            return False
        sequence.cut(handler=True)
        batch.handling = None
        self.events.append(StateChanged(batch.batch, batch.state, new, cause, by))
        acted, batch.state, batch.cause = batch.state in states.ACTING, new, cause
        if new in states.ACTING and not acted:
            batch.needs = self.state.next_commit
        outputs = sequence.recipe.outputs
        if new in ("restarting", "running"):
            batch.handler.clear()
        if new == "running":
            batch.safe = False
        if new == "restarting":
            if batch.body is not None:
                sequence.again(batch.body)
            self._clear_all(f"batch:{batch.batch}:")
        if new in ("stopping", "aborting"):
            sequence.cut()
        if new == "aborting":
            batch.set.clear()
            batch.handler.clear()
        if new in states.ENDED:
            self._release(sequence)
        self._relevel(outputs)
        return True

    def _release(self, sequence: Sequence) -> None:
        """An ended batch: its outputs go to failsafe, its units are free."""
        batch, owners = sequence.batch, self.state.owners
        sequence.cut()
        for levels in (batch.set, batch.handler, batch.during):
            levels.clear()
        batch.prompts.clear()
        self._clear_all(f"batch:{batch.batch}:")
        for unit in [unit for unit, owner in owners.items() if owner == batch.batch]:
            del owners[unit]

    def _not_ready(self, sequence: Sequence) -> str:
        """Why a batch may not act yet: a bad input, or an output that does not read back as set; "" when it may."""
        state, tags = self.state, self.cell.tags
        bad = [tags[tag].name for tag in sequence.recipe.inputs if state.values[tag] is None]
        if bad:
            return f"no good value from {', '.join(bad[:5])}{' and more' if len(bad) > 5 else ''}"
        for tag in sequence.recipe.outputs:
            if not agrees(tags[tag], state.values[tag], state.levels[tag]):
                return f"{tags[tag].name} reads {state.values[tag]} where {state.levels[tag]} was set"
        return ""

    def _restore(self, message: Restore) -> None:
        """After the loop has died: the batch as its last commit left it, in the state that the table gives it."""
        try:
            batch = _unpack_batch(message.batch)
        except msgspec.MsgspecError:
            return
        recipe = self.plan.recipes.get(batch.recipe)
        if recipe is None or batch.batch in self.state.batches:
            return
        batch.needs, batch.safe = 0, True
        batch.unknown_since = {}
        self._durable(batch.body)
        self._durable(batch.handling)
        self.state.batches[batch.batch] = batch
        sequence = self.sequences[batch.batch] = self._sequence(batch)
        self.state.owners.update(dict.fromkeys(recipe.uses, batch.batch))
        self.state.next_prompt = max([self.state.next_prompt, *(number + 1 for number in batch.prompts)])
        say = alarms.power_loss(recipe.name)
        if batch.state == "held":
            self.events.append(StateChanged(batch.batch, "held", "held", say["en"], "edge"))
        self._change(sequence, "power-loss", say["en"], "edge")
        self._relevel(recipe.outputs)
        if batch.state in states.ENDED:
            return
        self._raise(f"batch:{batch.batch}:power", "power-loss", say, batch=batch.batch)
        if recipe.hash != batch.hash:
            self._change(sequence, "abort", "its recipe file has changed since", "edge")
        elif recipe.after_power_loss == "abort":
            self._change(sequence, "abort", say["en"], "edge")
        elif recipe.after_power_loss == "resume":
            self._change(sequence, "restart", "after_power_loss: resume", "edge")

    def _durable(self, branch: BranchState | None) -> None:
        """What was restored had been committed: its steps wait for no acknowledgement of this run."""
        if branch is not None:
            branch.needs = 0
            for child in branch.children:
                self._durable(child)

    # --- commands ----------------------------------------------------------------------------------------------------

    def _command(self, command: Command) -> None:
        try:
            self._obey(command)
        except Denied as denied:
            self.events.append(CommandDone(command.id, False, str(denied), command.batch))
            return
        self.events.append(CommandDone(command.id, True, "", command.batch))

    def _obey(self, command: Command) -> None:
        match command.do:
            case "start":
                self._start(command)
            case "answer":
                self._answer(command)
            case "set":
                self._set(command)
            case "acknowledge":
                self._acknowledge_alarm(command)
            case _:
                self._steer(command)

    def _start(self, command: Command) -> None:
        recipe = self.plan.recipes.get(command.recipe)
        if recipe is None:
            raise Denied(f"there is no recipe {command.recipe}")
        if not command.batch or command.batch in self.state.batches:
            raise Denied(f"there is a batch {command.batch} already")
        if len(self.state.batches) >= MAX_BATCHES:
            raise Denied(f"{MAX_BATCHES} batches are here already: reset those that have ended")
        values = _parameters(recipe, command.parameters)
        for unit in recipe.uses:
            if unit in self.state.owners:
                raise Denied(f"{unit} is used by batch {self.state.owners[unit]}")
        lost = [device for device in recipe.devices if not self.state.up[device]]
        if lost:
            device = lost[0]
            raise Denied(f"{self.cell.devices[device].name} is not there: {self.state.reasons[device]}")
        variables: list[Value | None] = [*values.values(), *[None] * (len(recipe.variables) - len(values))]
        batch = BatchState(command.batch, recipe.name, recipe.hash, command.by, variables=variables)
        sequence = self._sequence(batch)
        self._ready(sequence)
        self.state.batches[batch.batch] = batch
        self.sequences[batch.batch] = sequence
        self.state.owners.update(dict.fromkeys(recipe.uses, batch.batch))
        for tag in self._unit_outputs(recipe):
            self.state.manual.pop(tag, None)
        self._relevel(self._unit_outputs(recipe))
        batch.body = BranchState(recipe.body)
        self.events.append(BatchStarted(batch.batch, recipe.name, recipe.hash, values, command.by))
        self._change(sequence, "start", "started", command.by)

    def _unit_outputs(self, recipe: Recipe) -> list[int]:
        return [tag for device in recipe.devices for tag in self.layouts[device].outputs]

    def _ready(self, sequence: Sequence) -> None:
        """Raises Denied while an input is bad or an interlock stands."""
        bad = [tag for tag in sequence.recipe.inputs if self.state.values[tag] is None]
        if bad:
            raise Denied(f"no good value from {', '.join(self.cell.tags[tag].name for tag in bad[:5])}")
        for interlock in sequence.recipe.interlocks:
            if interlock.when(self.state.values, sequence.batch.variables) is not False:
                raise Denied(f"an interlock stands: {_english(interlock.say)} ({interlock.condition})")

    def _steer(self, command: Command) -> None:
        sequence = self._find(command.batch)
        batch = sequence.batch
        if command.do not in states.allowed(batch.state):
            possible = ", ".join(states.allowed(batch.state)) or "nothing"
            raise Denied(
                f"batch {batch.batch} is {batch.state}: {command.do} is not possible now (possible: {possible})"
            )
        if command.do == "restart":
            for device in sequence.recipe.devices:
                if not self.state.up[device]:
                    raise Denied(f"{self.cell.devices[device].name} is lost: {self.state.reasons[device]}")
            self._ready(sequence)
        if command.do == "reset":
            self._clear_all(f"batch:{batch.batch}:")
            self._change(sequence, "reset", "reset", command.by)
            self.events.append(BatchRemoved(batch.batch))
            del self.state.batches[batch.batch], self.sequences[batch.batch]
            return
        self._change(sequence, command.do, command.cause or f"{command.do} by {command.by}", command.by)

    def _find(self, name: str) -> Sequence:
        sequence = self.sequences.get(name)
        if sequence is None:
            raise Denied(f"no batch {name} is running here")
        return sequence

    def _answer(self, command: Command) -> None:
        batch = self._find(command.batch).batch
        asked = batch.prompts.get(command.prompt)
        if asked is None or command.prompt in batch.answers:
            raise Denied("this question is not open")
        value = _answer(asked, command.value)
        batch.answers[command.prompt] = value
        recipe = self.plan.recipes[batch.recipe]
        if asked.name:
            batch.variables[recipe.variables.index(asked.name)] = value
        del batch.prompts[command.prompt]
        self.events.append(Answered(batch.batch, command.prompt, value, command.by, asked.name))

    def _set(self, command: Command) -> None:
        tag = next((tag for tag in self.cell.tags if tag.name == command.tag), None)
        if tag is None:
            raise Denied(f"there is no tag {command.tag}")
        if not tag.writable:
            raise Denied(f"{tag.name} can only be read")
        if tag.index in self.beats:
            raise Denied(f"{tag.name} is a heartbeat: edge counts it")
        owner = self._owner(tag.index)
        if owner is not None:
            raise Denied(f"{tag.name} belongs to batch {owner.batch.batch} ({owner.recipe.name}) while it runs")
        if not self.state.up[tag.device]:
            raise Denied(f"{self.cell.devices[tag.device].name} is lost: {self.state.reasons[tag.device]}")
        if command.value is None:
            raise Denied("a value is needed")
        try:
            value = fit(tag, command.value)
        except Refused as refused:
            raise Denied(refused.say["en"]) from None
        self.state.manual[tag.index] = value
        self._relevel((tag.index,))
        self.events.append(TagSet(tag.name, value, command.by))

    # --- alarms ------------------------------------------------------------------------------------------------------

    def _raise(self, key: str, kind: str, say: Texts, *, batch: str = "", device: str = "", tag: str = "") -> None:
        state = self.state
        if key in state.alarm_keys:
            return
        number = state.next_alarm
        state.next_alarm += 1
        state.alarm_keys[key] = number
        state.alarms[number] = Alarm(number, kind, say, state.cycle, batch, device, tag)
        self.events.append(AlarmRaised(number, kind, say, batch, device, tag))
        if len(state.alarms) > MAX_ALARMS:
            old = next((one for one, alarm in state.alarms.items() if not alarm.active), None)
            if old is not None:
                del state.alarms[old]

    def _clear(self, key: str) -> None:
        """The alarm's cause is gone; it stays until it is acknowledged (ISA-18.2, returned to normal)."""
        number = self.state.alarm_keys.pop(key, None)
        if number is None:
            return
        alarm = self.state.alarms[number]
        self.events.append(AlarmCleared(number))
        if alarm.acknowledged:
            del self.state.alarms[number]
        else:
            self.state.alarms[number] = msgspec.structs.replace(alarm, active=False)

    def _clear_all(self, prefix: str) -> None:
        for key in [key for key in self.state.alarm_keys if key.startswith(prefix)]:
            self._clear(key)

    def _acknowledge_alarm(self, command: Command) -> None:
        alarm = self.state.alarms.get(command.alarm)
        if alarm is None or alarm.acknowledged:
            raise Denied("there is no such alarm to acknowledge")
        self.events.append(AlarmAcknowledged(alarm.alarm, command.by))
        if alarm.active:
            self.state.alarms[alarm.alarm] = msgspec.structs.replace(alarm, acknowledged=True)
        else:
            del self.state.alarms[alarm.alarm]


def _english(say: Texts) -> str:
    return say.get("en") or next(iter(say.values()), "interlock")


def _parameters(recipe: Recipe, given: dict[str, Value]) -> dict[str, Value]:
    """The recipe's parameters in their order, defaults filled in. Raises Denied."""
    names = [parameter.name for parameter in recipe.parameters]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise Denied(f"{recipe.name} has no parameter {unknown[0]}; it has {', '.join(names) or 'none'}")
    return {one.name: _parameter(one, given.get(one.name, one.default)) for one in recipe.parameters}


def _parameter(parameter: Parameter, value: Value | None) -> Value:
    name, unit = parameter.name, f" {parameter.unit}" if parameter.unit else ""
    if value is None:
        raise Denied(f"parameter {name} is needed")
    kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
    if kind != parameter.type:
        raise Denied(f"parameter {name} is a {parameter.type}, {value!r} is none")
    if isinstance(value, str) and parameter.choices and value not in parameter.choices:
        raise Denied(f"parameter {name} is one of {', '.join(parameter.choices)}, not {value}")
    if not isinstance(value, str) and not _within(value, parameter.low, parameter.high):
        raise Denied(
            f"parameter {name} goes from {parameter.low} to {parameter.high}{unit}, {value}{unit} does not fit"
        )
    return value


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or low <= value) and (high is None or value <= high)


def _answer(asked: Asked, value: Value | None) -> Value:
    """The answer as the question wants it. Raises Denied."""
    match asked.kind:
        case "confirm":
            if value is None or value is True:
                return True
            raise Denied("this is to be confirmed")
        case "choice":
            if isinstance(value, str) and value in asked.answers:
                return value
            raise Denied(f"answer one of {', '.join(asked.answers)}")
        case "number":
            if isinstance(value, bool | str) or value is None:
                raise Denied("answer with a number")
            if not _within(value, asked.low, asked.high):
                raise Denied(f"the answer goes from {asked.low} to {asked.high} {asked.unit}".rstrip())
            return value
        case _:
            if isinstance(value, str) and 0 < len(value) <= 200:
                return value
            raise Denied("answer with a text of at most 200 characters")
