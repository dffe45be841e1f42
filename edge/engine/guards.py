"""What watches beside the steps: interlocks of cell, recipe and step, the cell's alarms, permissives.

An interlock trips when its condition has stood for its `settle`, in that cycle, before the steps; or when it has been
unknown for its `grace` while a batch acts.
"""

from collections.abc import Callable, Sequence

from drivers.value import Value
from edge.batch import BatchState, Mark, State
from edge.engine import refusals, states, words
from edge.engine.alarms import Alarms
from edge.engine.control import Control
from edge.engine.levels import Levels
from edge.engine.refusals import Refused
from edge.engine.sequence import Sequence as Steps
from edge.language.program import Alarm, CellInterlock, Interlock, Permissive, Plan, Recipe, Values, Watch
from edge.language.rules import Moment
from edge.messages import Event, TagSet


def look(watch: Watch, mark: Mark, answer: Value | None, values: Values, variables: Values, cycle: int) -> bool | None:
    """Whether a condition stands, its delays counted in `mark`; None: it does not, and is unknown.

    The on-delay (IEC 61131-3, TON) goes on while the condition is unknown, and starts anew when it was false; the
    off-delay starts anew when it was anything but over.
    """
    if answer is None and not mark.stands:
        mark.unknown = cycle if mark.unknown < 0 else mark.unknown
        return None
    mark.unknown = -1
    if mark.stands:
        over = answer is False and (watch.clears is None or watch.clears(values, variables) is True)
        if over and mark.since < 0:
            mark.since = cycle
        mark.stands = not over or cycle - mark.since < watch.release
        mark.since = mark.since if over and mark.stands else -1
    elif answer is True:
        mark.since = cycle if mark.since < 0 else mark.since
        if cycle - mark.since >= watch.settle:
            mark.stands, mark.since = True, -1
    else:
        mark.since = -1
    return mark.stands


def missing(
    plan: Plan,
    recipe: Recipe,
    moment: Moment,
    values: Values,
    variables: Values | None = None,
    acquired: Sequence[str] = (),
) -> list[Permissive]:
    """The permissives of a recipe and of its units that are not true at a moment; an unknown one is not.

    Its units are those that it uses and those that its batch has `acquired`. Without variables those that read
    parameters are left out.
    """
    every = [
        *(one for unit in (*recipe.uses, *acquired) for one in plan.permissives.get(unit, ())),
        *recipe.permissives,
    ]
    asked = [one for one in every if moment in one.before and (one.fixed or variables is not None)]
    return [one for one in asked if one.must(values, variables or ()) is not True]


class Guards:
    """`rules` are the cell's interlocks and alarms, with their places among the marks of the state."""

    def __init__(
        self,
        plan: Plan,
        state: State,
        emit: Callable[[Event], None],
        levels: Levels,
        alarms: Alarms,
        control: Control,
    ) -> None:
        self.plan = plan
        self.state = state
        self.emit = emit
        self.levels = levels
        self.alarms = alarms
        self.control = control
        self.rules: list[tuple[int, CellInterlock | Alarm]] = list(enumerate((*plan.interlocks, *plan.alarms)))
        self.interlocks = list(enumerate(plan.interlocks))

    # --- in every cycle ----------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """The turn of the cell's own interlocks and alarms."""
        values, marks = self.state.values, self.state.marks
        for number, rule in self.rules:
            answer = rule.when(values, ())
            if answer is not False or (marks and number in marks):
                self._watch(number, rule, answer)

    def _watch(self, number: int, rule: CellInterlock | Alarm, answer: Value | None) -> None:
        state = self.state
        mark = state.marks.get(number)
        if mark is None:
            mark = state.marks[number] = Mark()
        stands = look(rule, mark, answer, state.values, (), state.cycle)
        key = f"cell:alarm:{rule.name}" if isinstance(rule, Alarm) else f"cell:interlock:{number}"
        if isinstance(rule, CellInterlock):
            if stands:
                self._trip(key, rule)
            elif stands is None and state.cycle - mark.unknown >= rule.grace:
                self._trip(key, rule, unknown=True)
        elif stands:
            self.alarms.raise_alarm(key, "alarm", rule.say, priority=rule.priority, latch=rule.latch)
        if stands is False and mark.since < 0:
            del state.marks[number]
            self.alarms.clear(key)

    def _trip(self, key: str, rule: CellInterlock, *, unknown: bool = False) -> None:
        """Acts on the batches that own the interlock's units, and on what hands have set. An unknown one acts on no
        batch that is held already, and is no alarm where there is nothing to act on.
        """
        state = self.state
        say = self._unknown(rule) if unknown else rule.say
        owners = dict.fromkeys(state.owners[unit] for unit in rule.units if unit in state.owners)
        sequences = [self.control.sequences[owner] for owner in owners]
        sequences = [one for one in sequences if not unknown or one.batch.state in states.ACTING]
        by_hand = [one for owner in ("", *owners) for one in self._by_hand(rule, owner)]
        if unknown and not sequences and not by_hand:
            return
        batch = sequences[0].batch.batch if sequences else ""
        self.alarms.raise_alarm(key, "interlock", say, batch=batch, priority=rule.priority)
        for sequence in sequences:
            self.control.change(sequence, rule.do, say, "interlock")
        for owner, tag, failsafe in by_hand:
            del self._manual(owner)[tag]
            self.emit(TagSet(self.plan.cell.tags[tag].name, failsafe, "interlock", owner))
            self.levels.settle((tag,))

    def _manual(self, owner: str) -> dict[int, Value]:
        """What hands have set: in a batch in manual mode, or where no batch is."""
        return self.state.batches[owner].manual if owner else self.state.manual

    def _by_hand(self, rule: CellInterlock, owner: str) -> list[tuple[str, int, Value]]:
        """The outputs that hands have set and that the interlock keeps them off, with their failsafe."""
        tags, manual = self.plan.cell.tags, self._manual(owner)
        found: list[tuple[str, int, Value]] = []
        for tag in rule.block if manual else ():
            failsafe = tags[tag].failsafe
            if failsafe is not None and manual.get(tag, failsafe) != failsafe:
                found.append((owner, tag, failsafe))
        return found

    def interlock(self, sequence: Steps, number: int, interlock: Interlock, answer: Value | None) -> None:
        """The turn of an interlock of a recipe or of an active step."""
        state, batch = self.state, sequence.batch
        mark = batch.marks.get(number)
        if mark is None:
            if answer is False or (number >= sequence.recipe.guards and number not in batch.armed):
                return
            mark = batch.marks[number] = Mark()
        key = f"batch:{batch.batch}:interlock:{number}"
        stands = look(interlock, mark, answer, state.values, batch.variables, state.cycle)
        say = interlock.say
        if stands is None:
            if state.cycle - mark.unknown < interlock.grace:
                return
            self.control.let_go(sequence)
            if batch.state not in states.ACTING:
                return  # a batch that is held already need not be ended: the unknown bars its restart
            say = self._unknown(interlock)
        elif not stands:
            if mark.since < 0:
                del batch.marks[number]
                self.alarms.clear(key)
            return
        self.control.let_go(sequence)
        self.alarms.raise_alarm(key, "interlock", say, batch=batch.batch, priority=interlock.priority)
        self.control.change(sequence, interlock.do, say, "interlock")

    def _unknown(self, interlock: Interlock) -> dict[str, str]:
        tags, values = self.plan.cell.tags, self.state.values
        names = ", ".join(tags[tag].name for tag in interlock.inputs if values[tag] is None)
        return words.interlock_unknown(interlock.condition, names)

    # --- before something starts -------------------------------------------------------------------------------------

    def clear_of(self, sequence: Steps) -> None:
        """Raises Refused while an interlock of the batch or of its units stands or is unknown."""
        self._own(sequence)
        for number, one in self.interlocks:
            if not set(one.units).isdisjoint((*sequence.recipe.uses, *sequence.batch.units)):
                self._bar(one, self.state.marks.get(number), ())

    def _own(self, sequence: Steps) -> None:
        batch = sequence.batch
        for number, one in sequence.guards:
            self._bar(one, batch.marks.get(number), batch.variables)

    def free(self, tag: int, owner: BatchState | None) -> None:
        """Raises Refused while an interlock of the cell, or of the batch that owns it, keeps hands off an output."""
        if owner is not None:
            self._own(self.control.sequences[owner.batch])
        for number, one in self.interlocks:
            if tag in one.block:
                self._bar(one, self.state.marks.get(number), ())

    def _bar(self, interlock: Interlock, mark: Mark | None, variables: Sequence[Value | None]) -> None:
        if (mark is not None and mark.stands) or interlock.when(self.state.values, variables) is not False:
            raise Refused(refusals.interlock_stands(interlock.say, interlock.condition))

    def permitted(self, sequence: Steps, moment: Moment) -> None:
        """Raises Refused, with all that are missing."""
        lacking = self._missing(sequence, moment)
        if lacking:
            raise Refused(refusals.not_permitted([(one.say, one.condition) for one in lacking]))

    def permit(self, sequence: Steps) -> bool:
        """Whether a batch that restarts, by itself perhaps, may go on."""
        return not self._missing(sequence, "restart")

    def _missing(self, sequence: Steps, moment: Moment) -> list[Permissive]:
        batch = sequence.batch
        return missing(self.plan, sequence.recipe, moment, self.state.values, batch.variables, batch.units)
