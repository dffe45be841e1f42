"""The engine: a pure function from the packets of a cycle to output frames, events and a commit.

No clock, no socket, no file, no randomness: the same packets in the same cycles give the same outputs, byte for byte.
"""

import msgspec

from drivers.value import BAD_WAITING
from edge.batch import BranchState, State
from edge.engine import states, words
from edge.engine.alarms import Alarms
from edge.engine.commands import Commands
from edge.engine.control import Control
from edge.engine.field import Field
from edge.engine.guards import Guards
from edge.engine.levels import Levels
from edge.engine.sequence import Sequence, halted
from edge.engine.versions import Versions
from edge.image import INPUT, layouts
from edge.language.program import Plan
from edge.messages import (
    MESSAGE,
    Ack,
    AlarmChanged,
    Command,
    CommandDone,
    Commit,
    DeviceReport,
    Event,
    Inward,
    Restore,
    Revision,
    StepWaits,
    TagReport,
    VariableSet,
    unpack_inward,
)

HEARTBEAT_NS = 100_000_000
RECORD_S = 3.0
"""A commit that is not durable after so long is an alarm: steps wait for it, and nobody would know why."""

PASSING = (CommandDone, AlarmChanged, StepWaits, VariableSet)
"""Events that only those who watch need: a device that gives another reason every few seconds wears out no disk."""

_pack = msgspec.msgpack.Encoder().encode
_unpack_state = msgspec.msgpack.Decoder(State).decode


class Output(msgspec.Struct, frozen=True):
    """What a cycle gives: an output frame for each device whose levels changed, the events, what must be durable."""

    frames: list[bytes]
    events: list[Event]
    commit: Commit | None


class Engine:
    """One cell's engine. `step` is its whole behaviour; `state` all that it knows, plain data at any time."""

    def __init__(self, plan: Plan, state: State | None = None) -> None:
        self.plan = plan = plan.copy()
        self.layouts = layouts(plan.cell)
        self.silence = plan.cycles(plan.cell.silence_ns / 1e9)
        self.record_limit = plan.cycles(RECORD_S)
        self.beat = max(1, plan.cycles(HEARTBEAT_NS / 1e9))
        self.state = state if state is not None else first_state(plan)
        self.events: list[Event] = []
        emit = self.events.append
        self.levels = Levels(plan, self.state)
        self.alarms = Alarms(self.state, emit)
        self.control = Control(plan, self.state, emit, self.levels, self.alarms)
        self.field = Field(plan, self.state, self.layouts, self.levels, self.alarms, self.control)
        self.guards = Guards(plan, self.state, emit, self.levels, self.alarms, self.control)
        self.commands = Commands(plan, self.state, emit, self.levels, self.alarms, self.control, self.guards)
        self.versions = Versions(plan, self.state, emit)
        if state is None:
            self.levels.stale.update(range(len(plan.cell.devices)))

    def fork(self) -> "Engine":
        """Another in the same state, which goes its own way from here; between two cycles."""
        return Engine(self.plan, _unpack_state(_pack(self.state)))

    def step(self, cycle: int, packets: list[bytes]) -> Output:
        """Runs one cycle: takes in the packets, runs interlocks and steps, gives what changed. Cycles only rise."""
        state, field, levels = self.state, self.field, self.levels
        elapsed, state.cycle = cycle - state.cycle, cycle
        self.events.clear()
        for packet in packets:
            if packet[0] == INPUT:
                field.latch(packet)
            elif packet[0] == MESSAGE:
                self._take(packet)
        if elapsed > self.silence:
            self.control.stood_still(elapsed)
        if state.acked < state.next_commit - 1 and cycle - state.behind_since > self.record_limit:
            self.alarms.raise_alarm("record", "record", words.NOT_RECORDED)
        if cycle >= field.next_look:
            field.watch()
        if state.unshelve and cycle >= state.unshelve:
            self.alarms.come_back()
        if state.held:
            field.tell_ages()
        if self.guards.rules:
            self.guards.watch()
        for sequence in self.control.sequences.values():
            self._run(sequence, elapsed)
        if levels.beats and cycle % self.beat < elapsed:
            for tag, numbers in levels.beats.items():
                levels.give(tag, numbers[cycle // self.beat % len(numbers)])
        frames = [self.output_frame(device) for device in sorted(levels.stale)]
        levels.stale.clear()
        events = list(self.events)
        return Output(frames, events, self._commit(events) if events else None)

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
                self.field.report(message)
            case TagReport():
                self.field.refused(message)
            case Command():
                self.commands.take(message)
            case Revision():
                self.versions.take(message)
            case Restore():
                self.control.restore(message)
            case _:
                pass

    def _acknowledge(self, commit: int) -> None:
        """The record holds this commit: what waited for it may act."""
        state = self.state
        if commit > state.acked:
            state.acked, state.behind_since = commit, state.cycle
            self.alarms.clear("record")
        for batch in state.batches.values():
            if batch.needs and batch.needs <= state.acked:
                batch.needs = 0
                self.levels.settle(batch.during)

    # --- interlocks and steps ----------------------------------------------------------------------------------------

    def _run(self, sequence: Sequence, elapsed: int) -> None:
        """One batch's turn: interlocks first, then its handler or its steps, then what came of them."""
        batch = sequence.batch
        if batch.state in states.ENDED:
            return
        if batch.instances:
            sequence.blocks.call(batch.instances, self.state.cycle)
        values, variables = self.state.values, batch.variables
        for number, interlock in sequence.guards:
            answer = interlock.when(values, variables)
            if answer is not False or batch.marks:
                self.guards.interlock(sequence, number, interlock, answer)
        if batch.phases:
            sequence.phases.turn()
        if batch.state in states.HANDLED:
            self._handle(sequence)
        elif batch.state in ("running", "pausing") and not batch.needs and batch.body is not None:
            batch.clock += elapsed
            if sequence.run() and not batch.phases:
                self.control.change(sequence, "finish", words.FINISHED, "recipe")
            elif batch.state == "pausing" and halted(batch.body):
                self.control.change(sequence, "done", batch.cause_say, "edge")
        if sequence.faults or sequence.touched or sequence.mended:
            self._settle(sequence)

    def _handle(self, sequence: Sequence) -> None:
        """The turn of the handler of a state that acts for itself; the state is done when its handler is."""
        batch, cycle, name = sequence.batch, self.state.cycle, states.HANDLED[sequence.batch.state]
        if batch.handling is None:
            if name == "restart" and not (self.control.agrees(sequence) and self.guards.permit(sequence)):
                return
            batch.handling, batch.handled = BranchState(sequence.recipe.handlers.get(name, ())), cycle
        limit, ended = sequence.recipe.handler_limits.get(name), sequence.run(handler=True)
        if not ended and limit is not None and cycle - batch.handled >= limit:
            say, ended = words.handler_timed_out(name), True
            self.alarms.raise_alarm(f"batch:{batch.batch}:timeout", "timeout", say, batch=batch.batch)
            sequence.cut(handler=True)
            batch.handling = BranchState(())
        if ended and sequence.phases.settled:
            self.control.change(sequence, "done", batch.cause_say, "edge")

    def _settle(self, sequence: Sequence) -> None:
        """What came of the steps: faults change the batch's state, levels go to their tags."""
        name = sequence.batch.batch
        for fault in sequence.mended:
            self.alarms.clear(fault.key(name))
        for fault in sequence.faults:
            self.alarms.raise_alarm(
                fault.key(name), fault.kind, fault.say, batch=name, tag=fault.tag, priority=fault.priority
            )
            if fault.do:
                self.control.change(sequence, fault.do, fault.say, "recipe")
        sequence.mended.clear()
        sequence.faults.clear()
        self.levels.settle(sequence.touched)
        sequence.touched.clear()

    # --- what goes out -----------------------------------------------------------------------------------------------

    def output_frame(self, device: int) -> bytes:
        """The desired levels of a device's outputs now."""
        layout, levels = self.layouts[device], self.state.levels
        return layout.pack_output(self.state.cycle, [levels[tag] for tag in layout.outputs])

    def _commit(self, events: list[Event]) -> Commit | None:
        """What must be durable, with the new state of every batch concerned."""
        durable = tuple([event for event in events if not isinstance(event, PASSING)])  # from a list: see `allowed`
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


def first_state(plan: Plan) -> State:
    """Nothing is connected yet, every output is at its failsafe, no batch is here."""
    cell, devices = plan.cell, len(plan.cell.devices)
    return State(
        cycle=0,
        values=[None] * (2 * len(cell.tags)),
        statuses=[BAD_WAITING] * len(cell.tags),
        seen=[0] * devices,
        up=[False] * devices,
        reports=[DeviceReport(device, False, BAD_WAITING, "not connected yet") for device in range(devices)],
        levels=[tag.failsafe for tag in cell.tags],
        manual={},
        batches={},
        alarms={},
        alarm_keys={},
        owners={},
    )
