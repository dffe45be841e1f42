"""What a person commands: start, steer, answer, set an output, see to alarms; each checked, and answered."""

from collections.abc import Callable

from edge.batch import BatchState, State
from edge.engine import refusals, states, words
from edge.engine.alarms import Alarms
from edge.engine.allocation import Allocation
from edge.engine.control import Control
from edge.engine.fit import fit
from edge.engine.formula import check_answer, check_parameters
from edge.engine.guards import Guards
from edge.engine.levels import Levels
from edge.engine.refusals import Refused
from edge.engine.sequence import CONFIRMED, Sequence, offered
from edge.language.program import Plan
from edge.language.rules import Moment
from edge.messages import Answered, Command, CommandDone, Event, StepConfirmed, TagSet

MAX_BATCHES = 64
LONGEST_SHELF_S = 12 * 3600
"""A shelved alarm comes back within a shift, to people who know of it."""


class Commands:
    """Obeys or refuses each command."""

    def __init__(
        self,
        plan: Plan,
        state: State,
        emit: Callable[[Event], None],
        levels: Levels,
        alarms: Alarms,
        control: Control,
        guards: Guards,
    ) -> None:
        self.plan = plan
        self.cell = plan.cell
        self.state = state
        self.emit = emit
        self.levels = levels
        self.alarms = alarms
        self.control = control
        self.guards = guards

    def take(self, command: Command) -> None:
        """Obeys a command, or refuses it in words; either way it is answered."""
        try:
            if command.until and not command.since <= self.state.cycle <= command.until:
                raise Refused(refusals.TOO_LATE)
            self._obey(command)
        except Refused as refused:
            self.emit(CommandDone(command.id, False, refused.text, command.batch, refused.say))
            return
        self.emit(CommandDone(command.id, True, "", command.batch))

    def _obey(self, command: Command) -> None:
        match command.do:
            case "start":
                self._start(command)
            case "answer":
                self._answer(command)
            case "mode":
                self._mode(command)
            case "confirm":
                self._confirm(command)
            case "set":
                self._set(command)
            case "acknowledge":
                self._acknowledge(command)
            case "shelve":
                self._shelve(command)
            case "unshelve":
                if not self.alarms.unshelve(command.alarm, command.by):
                    raise Refused(refusals.NOT_SHELVED)
            case _:
                self._steer(command)

    def _start(self, command: Command) -> None:
        recipe = self.plan.recipes.get(command.recipe)
        if recipe is None:
            raise Refused(refusals.no_recipe(command.recipe))
        if not command.batch or command.batch in self.state.batches:
            raise Refused(refusals.batch_exists(command.batch))
        if len(self.state.batches) >= MAX_BATCHES:
            raise Refused(refusals.too_many_batches(MAX_BATCHES))
        if command.mode and command.mode not in states.MODES:
            raise Refused(refusals.no_mode(command.mode, states.MODES))
        values = check_parameters(recipe, command.parameters)
        for unit in recipe.uses:
            if unit in self.state.owners:
                raise Refused(refusals.unit_used(unit, self.state.owners[unit]))
            if waiting := Allocation(self.plan, self.state).ahead(unit):
                raise Refused(refusals.unit_awaited(unit, waiting))
        for device in recipe.devices:
            if not self.state.up[device]:
                name, report = self.cell.devices[device].name, self.state.reports[device]
                raise Refused(refusals.device_absent(name, report.status), f"{name} is not there: {report.text}")
        sequence = self.control.sequence(self.control.new_batch(command.batch, recipe, values, command.by))
        sequence.blocks.begin(sequence.blocks.of("interlock"), sequence.batch.instances, self.state.cycle)
        self._ready(sequence, "start")
        self.control.begin(sequence, values, command.by)
        if command.mode:
            self.control.set_mode(sequence, command.mode, command.by)

    def _ready(self, sequence: Sequence, moment: Moment) -> None:
        """Raises Refused while an input is bad, an interlock stands or a permissive is missing."""
        bad = [tag for tag in sequence.inputs() if self.state.values[tag] is None]
        if bad:
            raise Refused(refusals.no_good_value(self.cell.tags[tag].name for tag in bad[:5]))
        self.guards.clear_of(sequence)
        self.guards.permitted(sequence, moment)

    def _steer(self, command: Command) -> None:
        sequence = self._find(command.batch)
        batch = sequence.batch
        possible = states.allowed(batch.state, batch.mode)
        if command.do not in possible:
            raise Refused(refusals.not_possible(batch.batch, batch.state, command.do, possible))
        if command.do == "reset":
            self.control.remove(sequence, command.by)
            return
        if command.do == "restart":
            for device in sorted(sequence.devices()):
                self._reach(device)
            self._ready(sequence, "restart")
        if command.do == "resume":
            self.guards.permitted(sequence, "resume")
        batch.barred = False
        cause = {"en": command.cause} if command.cause else words.commanded(command.do, command.by)
        self.control.change(sequence, command.do, cause, command.by)

    def _mode(self, command: Command) -> None:
        sequence = self._find(command.batch)
        batch = sequence.batch
        if command.mode not in states.MODES:
            raise Refused(refusals.no_mode(command.mode, states.MODES))
        if command.mode not in states.modes(batch.state):
            raise Refused(refusals.not_possible(batch.batch, batch.state, "mode", states.allowed(batch.state)))
        self.control.set_mode(sequence, command.mode, command.by)

    def _confirm(self, command: Command) -> None:
        """A step that waits in semi-automatic mode may begin."""
        sequence = self._find(command.batch)
        batch = sequence.batch
        steps = sequence.steps
        waiting = offered(batch.body) if batch.body is not None and batch.state == "running" else ()
        branch = next((one for one in waiting if one.block[one.at] == command.step), None)
        if branch is None:
            raise Refused(refusals.NOT_WAITING)
        branch.offer = CONFIRMED
        name = steps[command.step].name
        self.emit(StepConfirmed(batch.batch, command.step, name, command.by, branch.path))

    def _find(self, name: str) -> Sequence:
        sequence = self.control.sequences.get(name)
        if sequence is None:
            raise Refused(refusals.no_batch(name))
        return sequence

    def _reach(self, device: int) -> None:
        """Raises Refused where the device is lost."""
        if not self.state.up[device]:
            name, report = self.cell.devices[device].name, self.state.reports[device]
            raise Refused(words.device_lost(name, "", report.status), f"{name} is lost: {report.text}")

    def _answer(self, command: Command) -> None:
        sequence = self._find(command.batch)
        batch = sequence.batch
        asked = batch.prompts.get(command.prompt)
        if asked is None or command.prompt in batch.answers:
            raise Refused(refusals.QUESTION_CLOSED)
        if asked.who == "engineer" and command.role != "engineer":
            raise Refused(refusals.ENGINEER_ONLY)
        value = check_answer(asked, command.value)
        batch.answers[command.prompt] = value
        ask = sequence.steps[asked.step].ask
        if ask is not None and ask.into is not None:
            batch.variables[ask.into] = value
        del batch.prompts[command.prompt]
        label = asked.labels.get(value, {}) if isinstance(value, str) else {}
        self.emit(Answered(batch.batch, command.prompt, value, command.by, asked.name, command.role, label))

    def _acknowledge(self, command: Command) -> None:
        alarm = self.state.alarms.get(command.alarm)
        if alarm is None or not self.alarms.acknowledge(command.alarm, command.by):
            raise Refused(refusals.NO_ALARM)
        batch = self.state.batches.get(alarm.batch)
        if batch is not None and batch.notices:
            batch.notices = [step for step in batch.notices if alarm.key != f"notice:{batch.batch}:{step}"]

    def _shelve(self, command: Command) -> None:
        if not command.cause.strip():
            raise Refused(refusals.SHELVE_REASON)
        if not 0 < command.seconds <= LONGEST_SHELF_S:
            raise Refused(refusals.shelve_time(LONGEST_SHELF_S // 3600))
        cycles = self.plan.cycles(command.seconds)
        if not self.alarms.shelve(command.alarm, command.by, command.cause, cycles):
            raise Refused(refusals.NOT_THERE)

    def _set(self, command: Command) -> None:
        tag = next((tag for tag in self.cell.tags if tag.name == command.tag), None)
        if tag is None:
            raise Refused(refusals.no_tag(command.tag))
        if not tag.writable:
            raise Refused(refusals.read_only(tag.name))
        if tag.index in self.levels.beats:
            raise Refused(refusals.heartbeat(tag.name))
        owner = self.levels.owner(tag.index)
        if owner is not None:
            self._by_hand(tag.name, owner)
        self._reach(tag.device)
        if command.value is None:
            raise Refused(refusals.VALUE_NEEDED)
        value = fit(tag, command.value)
        if value != tag.failsafe:
            self.guards.free(tag.index, owner)
        (self.state.manual if owner is None else owner.manual)[tag.index] = value
        self.levels.settle((tag.index,))
        self.emit(TagSet(tag.name, value, command.by, "" if owner is None else owner.batch))

    def _by_hand(self, tag: str, owner: BatchState) -> None:
        """Raises Refused unless the batch that owns the tag stands in manual mode."""
        if owner.mode != states.MANUAL:
            raise Refused(refusals.tag_owned(tag, owner.batch, owner.recipe))
        if owner.state != "held":
            raise Refused(refusals.not_held_yet(owner.batch))
