"""The control recipes (ISA-88) that are here: how they begin, change their state, end, and come back after a crash."""

from collections.abc import Callable, Iterator
from zlib import crc32

import msgspec

from drivers.value import Value
from edge.batch import BatchState, BranchState, Mark, State
from edge.engine import refusals, states, words
from edge.engine.alarms import Alarms
from edge.engine.fit import agrees
from edge.engine.levels import Levels
from edge.engine.sequence import Sequence, active
from edge.image import layouts
from edge.language.program import Plan, Recipe, Texts
from edge.messages import BatchRemoved, BatchStarted, Event, ModeChanged, Restore, StateChanged, StepEnded

_unpack_batch = msgspec.msgpack.Decoder(BatchState).decode


class Control:
    """The batches of the cell; `sequences` runs the steps of each."""

    def __init__(self, plan: Plan, state: State, emit: Callable[[Event], None], levels: Levels, alarms: Alarms) -> None:
        self.plan = plan
        self.state = state
        self.emit = emit
        self.levels = levels
        self.alarms = alarms
        self.tags = crc32(repr([(tag.name, tag.type.name) for tag in plan.cell.tags]).encode())
        self.outputs_of = [layout.outputs for layout in layouts(plan.cell)]
        self.sequences = {batch.batch: self.sequence(batch) for batch in state.batches.values()}

    def sequence(self, batch: BatchState) -> Sequence:
        recipe = self.plan.version(batch.recipe, batch.hash) or self.plan.recipes[batch.recipe]
        return Sequence(self.plan, recipe, self.state, batch, self.emit)

    def new_batch(self, name: str, recipe: Recipe, parameters: dict[str, Value], by: str) -> BatchState:
        variables: list[Value | None] = [*parameters.values()]
        variables += [None] * (len(recipe.variables) + len(recipe.blocks) - len(parameters))
        return BatchState(name, recipe.name, recipe.hash, by, self.tags, variables=variables)

    def begin(self, sequence: Sequence, parameters: dict[str, Value], by: str) -> None:
        """A new batch takes its units, and with them every output of theirs, and runs."""
        batch, recipe = sequence.batch, sequence.recipe
        self._own(sequence)
        outputs = self._unit_outputs(recipe)
        for tag in outputs:
            self.state.manual.pop(tag, None)
        self.levels.settle(outputs)
        batch.body = BranchState(recipe.body)
        sequence.blocks.begin(sequence.blocks.of("batch"), batch.body.instances, batch.clock)
        units = {one.name: one.unit for one in recipe.parameters}
        numbers = recipe.identified(parameters)
        self.emit(BatchStarted(batch.batch, recipe.name, recipe.hash, parameters, by, units, **numbers))
        self.change(sequence, "start", words.STARTED, by)

    def _own(self, sequence: Sequence) -> None:
        batch = sequence.batch
        self.state.batches[batch.batch] = batch
        self.sequences[batch.batch] = sequence
        self.state.owners.update(dict.fromkeys([*sequence.recipe.uses, *batch.units], batch.batch))

    def _unit_outputs(self, recipe: Recipe) -> list[int]:
        return [tag for device in recipe.devices for tag in self.outputs_of[device]]

    def change(self, sequence: Sequence, command: str, cause: Texts, by: str) -> bool:
        """One change of state after the table, with all that goes with the new state; False where it is refused."""
        batch = sequence.batch
        new = states.after(batch.state, command)
        if new is None or new == batch.state:
            return False
        sequence.cut(handler=True)
        batch.handling, batch.handled = None, self.state.cycle
        self.let_go(sequence)
        if batch.state == "restarting":
            self.alarms.clear(f"batch:{batch.batch}:differs")
        self.emit(StateChanged(batch.batch, batch.state, new, words.english(cause), by, cause))
        stood, acted = batch.state in ("paused", "restarting"), batch.state in states.ACTING
        if new == "holding" and batch.body is not None:
            sequence.look(batch.body)
        batch.state, batch.cause_say = new, cause
        if batch.blind and new not in states.ACTING:
            batch.blind.clear()
            self.alarms.clear_all(f"batch:{batch.batch}:no-value:")
        if new in states.ACTING and not acted:
            batch.needs = self.state.next_commit
        if new in ("restarting", "running"):
            batch.handler.clear()
        if new == "running" and stood and batch.body is not None:
            sequence.blocks.look_away(batch.body.instances)
        if new == "running":
            batch.safe = batch.barred = False
        if new == "restarting":
            if batch.body is not None:
                sequence.again(batch.body)
            self.alarms.clear_all(f"batch:{batch.batch}:")
        if new == "holding":
            sequence.phases.hold()
        if new in ("stopping", "aborting"):
            sequence.cut()
        if new == "aborting":
            sequence.phases.abort()
            batch.set.clear()
            batch.handler.clear()
        if new in states.ENDED:
            self._release(sequence)
        self.levels.settle(sequence.recipe.outputs)
        return True

    def set_mode(self, sequence: Sequence, mode: str, by: str) -> None:
        """Another mode (ISA-88). Manual mode holds the batch; what was set in it ends with it."""
        batch = sequence.batch
        if mode == batch.mode:
            return
        self.emit(ModeChanged(batch.batch, batch.mode, mode, by))
        batch.mode = mode
        if batch.body is not None:
            sequence.withdraw(batch.body)
        self.let_go(sequence)
        if mode == states.MANUAL:
            self.change(sequence, "hold", words.manual_mode(by), by)

    def let_go(self, sequence: Sequence) -> None:
        """The levels that a person has set in manual mode end."""
        manual = sequence.batch.manual
        if manual:
            tags = list(manual)
            manual.clear()
            self.levels.settle(tags)

    def _release(self, sequence: Sequence) -> None:
        """An ended batch: its outputs go to failsafe, its units are free."""
        batch, owners = sequence.batch, self.state.owners
        sequence.cut()
        for levels in (batch.set, batch.handler, batch.during, batch.pulsed, batch.commanded, batch.phases):
            levels.clear()
        batch.prompts.clear()
        batch.asked.clear()
        batch.units.clear()
        self.alarms.clear_all(f"batch:{batch.batch}:")
        self.alarms.clear_all(f"notice:{batch.batch}:")
        for unit in [unit for unit, owner in owners.items() if owner == batch.batch]:
            del owners[unit]

    def remove(self, sequence: Sequence, by: str) -> None:
        """An ended batch is reset: it is no longer here."""
        name = sequence.batch.batch
        self.alarms.clear_all(f"batch:{name}:")
        self.change(sequence, "reset", words.commanded("reset", by), by)
        self.emit(BatchRemoved(name))
        del self.state.batches[name], self.sequences[name]

    def agrees(self, sequence: Sequence) -> bool:
        """Whether a batch may act again; where it waits for long, an alarm says what differs from what is expected."""
        batch, cycle = sequence.batch, self.state.cycle
        key, waited = f"batch:{batch.batch}:differs", cycle - batch.handled
        differ = self._differences(sequence)
        if not differ:
            self.alarms.clear(key)
        elif waited and waited % sequence.blind_limit == 0:
            self.alarms.raise_alarm(key, "differs", words.differs(differ), batch=batch.batch)
        return not differ

    def _differences(self, sequence: Sequence) -> list[Texts]:
        """What is not as it must be: inputs good, outputs read back as they are set, what active steps expect true."""
        values, levels, tags = self.state.values, self.state.levels, self.plan.cell.tags
        recipe, batch = sequence.recipe, sequence.batch
        bad = [tags[tag].name for tag in sequence.inputs() if values[tag] is None]
        differ = [refusals.no_good_value(bad[:5])] if bad else []
        for tag in sequence.outputs():
            if not agrees(tags[tag], values[tag], levels[tag]):
                differ.append(words.reads_back(tags[tag], values[tag], levels[tag]))
        for branch, _ in active(batch.body) if batch.body is not None else ():
            step = recipe.steps[branch.block[branch.at]]
            if step.expects is not None and step.expects(values, batch.variables) is not True:
                differ.append(words.expects(step.name, step.expected))
        return differ

    def stood_still(self, elapsed: int) -> None:
        """The loop has run no cycle for so long that outputs are at failsafe: nothing moves again by itself."""
        say = words.stood_still(elapsed * self.plan.cell.scan_ns / 1e9)
        for sequence in self.sequences.values():
            self.let_go(sequence)
            if self.change(sequence, "hold", say, "edge"):
                name = sequence.batch.batch
                self.alarms.raise_alarm(f"batch:{name}:stood-still", "stood-still", say, batch=name)

    # --- after the loop has died -------------------------------------------------------------------------------------

    def restore(self, message: Restore) -> None:
        """The batch as its last commit left it, in the state that the table gives it."""
        try:
            batch = _unpack_batch(message.batch)
        except msgspec.MsgspecError:
            return
        recipe = self.plan.version(batch.recipe, batch.hash) or self.plan.recipes.get(batch.recipe)
        if recipe is None or batch.batch in self.state.batches:
            return
        batch.needs, batch.safe, batch.barred = 0, True, True
        batch.handler, batch.manual, batch.blind, batch.commanded, batch.pulsed = {}, {}, {}, {}, {}
        batch.marks = {number: Mark(True) for number, mark in batch.marks.items() if mark.stands}
        changed = self._changed(batch, recipe)
        if changed:
            self._forget(batch, recipe)
        _durable(batch.body)
        _durable(batch.handling)
        _anew(batch.body, recipe)
        batch.variables[len(recipe.variables) :] = [None] * len(recipe.blocks)
        sequence = self.sequence(batch)
        sequence.blocks.begin(sequence.blocks.of("interlock"), batch.instances, self.state.cycle)
        if batch.body is not None:
            sequence.blocks.restore(batch.body.instances)
        sequence.phases.restore()
        self._own(sequence)
        self.state.next_prompt = max([self.state.next_prompt, *(number + 1 for number in batch.prompts)])
        self.state.next_turn = max([self.state.next_turn, *(turn + 1 for turn in batch.asked.values())])
        say = words.power_loss(recipe.name)
        if batch.state == "held":
            self.emit(StateChanged(batch.batch, "held", "held", say["en"], "edge", say))
        self.change(sequence, "power-loss", say, "edge")
        self.levels.settle(recipe.outputs)
        if batch.state in states.ENDED:
            return
        self.alarms.raise_alarm(f"batch:{batch.batch}:power", "power-loss", say, batch=batch.batch)
        for fault in sequence.notices():
            key = fault.key(batch.batch)
            self.alarms.raise_alarm(key, fault.kind, fault.say, batch=batch.batch, priority=fault.priority)
        if changed:
            self.change(sequence, "abort", changed, "edge")
        elif recipe.after_power_loss == "abort":
            self.change(sequence, "abort", say, "edge")
        elif recipe.after_power_loss == "resume" and batch.mode != states.MANUAL:
            batch.barred = False  # its engineer has commanded it beforehand
            self.change(sequence, "restart", words.RESUMED, "edge")

    def _changed(self, batch: BatchState, recipe: Recipe) -> Texts | None:
        """Why the batch cannot go on: its steps, variables and tags, meant by index, are not what they were."""
        if recipe.hash != batch.hash:
            return words.RECIPE_CHANGED
        return words.CELL_CHANGED if batch.tags not in (0, self.tags) else None

    def _forget(self, batch: BatchState, recipe: Recipe) -> None:
        """Leaves nothing in the batch that means another recipe's steps, variables or tags."""
        for step, path in [*_entered(batch.body), *_entered(batch.handling)]:
            self.emit(StepEnded(batch.batch, step, str(step), "cut", 0, path))
        batch.body = batch.handling = None
        batch.variables, batch.instances = [None] * len(recipe.variables), {}
        batch.set, batch.handler, batch.during, batch.prompts, batch.answers = {}, {}, {}, {}, {}
        batch.phases, batch.marks, batch.armed, batch.units, batch.asked = {}, {}, [], [], {}
        batch.notices = []


def _entered(branch: BranchState | None) -> Iterator[tuple[int, str]]:
    """The steps, by index, that were entered and not left, each with its branch's path."""
    if branch is not None:
        for child in branch.children:
            yield from _entered(child)
        for place in range(branch.at, branch.entered):
            yield branch.block[place], branch.path


def _durable(branch: BranchState | None) -> None:
    """What was restored had been committed: its steps wait for no acknowledgement; none is confirmed yet."""
    if branch is not None:
        branch.needs = branch.offer = 0
        for child in branch.children:
            _durable(child)


def _anew(branch: BranchState | None, recipe: Recipe) -> None:
    """What a power loss makes pointless is begun anew: a ramp, since the plant has gone on without it."""
    if branch is None:
        return
    kind = recipe.steps[branch.block[branch.at]].kind if branch.at < branch.entered else "set"
    if kind == "ramp":
        branch.begun, branch.slopes = False, {}
    for child in branch.children:
        _anew(child, recipe)
