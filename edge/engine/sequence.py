"""Runs the steps of one batch, as an IEC 61131-3 sequential function chart does: branches, each with one active step.

A step is entered (its start goes to the record), begins once that is durable, acts, and is left. Pure, as the engine.
"""

from collections.abc import Callable, Iterator

from edge.batch import BatchState, BranchState, State
from edge.engine import states, words
from edge.engine.acting import Acting, Fault
from edge.engine.allocation import Allocation
from edge.engine.phases import Phases
from edge.language.program import Branch, Plan, Recipe, Repeat, Step
from edge.messages import Event, Recorded, StepEnded, StepStarted, StepWaits, VariableSet

STEPS_PER_CYCLE = 100
"""Steps that end at once are bounded in number per cycle; the rest goes on in the next one."""


OPEN, OFFERED, CONFIRMED = 0, 1, 2
"""How a branch's next step stands in semi-automatic mode: `BranchState.offer`."""


class Sequence(Acting):
    """The steps of one batch. `run` is called once a cycle for the recipe's body or for the handler that runs."""

    def __init__(self, plan: Plan, recipe: Recipe, state: State, batch: BatchState, emit: Callable[[Event], None]):
        super().__init__(plan, recipe, state, batch, emit)
        self.phases = Phases(self)
        self.allocation = Allocation(plan, state)

    def run(self, *, handler: bool = False) -> bool:
        """The cycle's turn of the recipe's body, or of the handler; True when the last step has ended."""
        branch = self._turn(handler=handler)
        if branch is not None and branch.instances:
            self.blocks.call(branch.instances, self.clock)
        ended = branch is not None and self._advance(branch)
        if self.blind or self.batch.blind:
            self._tell_blind()
        return ended

    def _tell_blind(self) -> None:
        """A step that has waited too long for an unknown value is a fault until it goes on."""
        since = self.batch.blind
        for index in [index for index in since if index not in self.blind]:
            del since[index]
            self.mended.append(Fault("", "no-value", {}, step=index))
        for index in self.blind:
            if self.clock - since.setdefault(index, self.clock) >= self.blind_limit:
                step = self.steps[index]
                bad = [self.plan.cell.tags[tag].name for tag in self._reads(step) if self.values[tag] is None]
                if not bad and self.blocks.filling(self.instances):
                    continue  # nothing is wrong: an average has not had its time yet
                say = words.no_value(step.name, ", ".join(bad))
                self.faults.append(Fault("", "no-value", say, bad[0] if len(bad) == 1 else "", index))
        self.blind.clear()

    def _reads(self, step: Step) -> tuple[int, ...]:
        """The tags that a step asks for, those of its phase too."""
        if step.do is None:
            return step.inputs
        phase = self.plan.phases[step.do.phase]
        return tuple(dict.fromkeys([*step.inputs, *(level.tag for level in step.do.parameters), *phase.inputs]))

    def cut(self, *, handler: bool = False) -> None:
        """Ends the recipe's body, or the handler, where it stands."""
        branch = self._turn(handler=handler)
        if branch is not None:
            self._cut(branch)

    def _turn(self, *, handler: bool) -> BranchState | None:
        self.handling = handler
        self.clock = self.state.cycle if handler else self.batch.clock
        branch = self.batch.handling if handler else self.batch.body
        self.instances = {} if branch is None else branch.instances
        return branch

    def _advance(self, branch: BranchState) -> bool:
        """Runs a branch as far as it goes in this cycle; True when its last step has ended."""
        left = STEPS_PER_CYCLE
        while left:
            if not branch.begun and not self._started(branch):
                return branch.at == len(branch.block)
            step = self.steps[branch.block[branch.at]]
            until = step.until
            over = self._over(step, branch) if until is None else until(self.values, self.variables)
            if over:
                self._leave(step, branch, "done")
            elif branch.limit < 0:
                if over is None:
                    self.blind.append(step.index)
                return False
            elif self.clock - branch.since < branch.limit or not self._time_out(step, branch):
                return False
            left -= 1
        return False

    def _started(self, branch: BranchState) -> bool:
        """Whether the branch's next step has begun: it is entered first, and begins when that is durable."""
        if branch.at == len(branch.block):
            return False
        if branch.at == branch.entered:
            if self.batch.state in ("pausing", "paused") and not self.handling:
                return False
            if self.batch.mode != states.AUTOMATIC and not self.handling and not self._confirmed(branch):
                return False
            self._enter(branch)
        return branch.needs <= self.state.acked and self._begin(self.steps[branch.block[branch.at]], branch)

    def _confirmed(self, branch: BranchState) -> bool:
        """Whether the operator has confirmed the branch's next step; one that only holds others needs no word."""
        step = self.steps[branch.block[branch.at]]
        if (step.branches or step.repeat is not None or step.include is not None) and not (step.set or step.during):
            return True
        if branch.offer == OPEN:
            branch.offer = OFFERED
            self.emit(StepWaits(self.batch.batch, step.index, step.name, branch.path))
        return branch.offer == CONFIRMED

    def withdraw(self, branch: BranchState) -> None:
        """No step of the branch, nor of those inside it, waits to be confirmed any longer."""
        if branch.offer == OFFERED:
            step = self.steps[branch.block[branch.at]]
            self.emit(StepWaits(self.batch.batch, step.index, step.name, branch.path, False))
        branch.offer = OPEN
        for child in branch.children:
            self.withdraw(child)

    def _enter(self, branch: BranchState) -> None:
        """Enters the next step, and with it those that follow a step which ends at once: they share one commit.

        Where each is to be confirmed it enters that one alone.
        """
        branch.offer = OPEN
        while branch.entered < len(branch.block):
            step = self.steps[branch.block[branch.entered]]
            self.emit(StepStarted(self.batch.batch, step.index, step.name, branch.path))
            branch.entered += 1
            if step.kind != "set" or (self.batch.mode != states.AUTOMATIC and not self.handling):
                break
        branch.needs = 0 if self.handling else self.state.next_commit

    def _begin(self, step: Step, branch: BranchState) -> bool:
        """Gives the step's levels and starts its clock; False while one of them is unknown or refused.

        A handler does what it can: it leaves out what is unknown or refused.
        """
        given = step.include is None or self._pass_on(step.include)
        if not given and not self.handling:
            self.blind.append(step.index)
            return False
        if step.interlocks and not self._arm(step):
            return False
        levels, during = self.levels(step.set), self.levels(step.during)
        wait, limit = self._cycles(step.wait), self._cycles(step.within)
        slopes = self._slopes(step.ramp)
        unknown = levels is None or during is None or wait is None or limit is None or slopes is None
        if (unknown or not self._record(step) or (step.let and not self._let(step))) and not self.handling:
            self.blind.append(step.index)
            return False
        levels, during, wait, limit = levels or {}, during or {}, wait or 0, limit or 0
        (self.batch.handler if self.handling else self.batch.set).update(levels)
        self.touched.update(levels)
        self._give(branch, during)
        branch.begun = True
        branch.since = self.clock
        branch.wait = wait
        branch.slopes = slopes or {}
        branch.limit = limit if step.within is not None else -1
        if step.blocks:
            self.blocks.begin(step.blocks, self.instances, self.clock)
        if step.kind in ("parallel", "first"):
            branch.children = [BranchState(way.block, _inside(branch.path, way.name)) for way in step.branches]
        if step.include is not None and given:
            branch.children = [BranchState(step.include.block, _inside(branch.path, step.include.name))]
        if step.ask is not None:
            self._ask(step, branch)
        if step.acquire:
            self.emit(self.allocation.ask(self.batch, step))
        return True

    def _over(self, step: Step, branch: BranchState) -> bool | None:
        """Whether the active step has done its work (None: unknown); runs the branches inside it."""
        match step.kind:
            case "wait":
                return self.clock - branch.since >= branch.wait
            case "ramp":
                return self._move(branch)
            case "pulse":
                return self._pulse(step.pulse, branch)
            case "parallel":
                return self._advance_all(branch.children)
            case "include":
                return self._advance_all(branch.children)
            case "first":
                return self._advance_first(step, branch)
            case "alarm":
                assert step.alarm is not None
                return self._notify(step.alarm, step, branch)
            case "choose":
                return self._choose(step.branches, branch)
            case "repeat":
                assert step.repeat is not None
                return self._repeat(step.repeat, branch)
            case "ask":
                return branch.prompt in self.batch.answers
            case "acquire":
                return self._acquire(step)
            case "release":
                return self._release(step)
            case "do":
                return self.phases.advance(step)
            case (
                _
            ):  # set and record end at once; until was asked by the caller, without a call, since most steps are so
                return True

    def _acquire(self, step: Step) -> bool:
        """Whether the step has its units now. The batch that closes a ring of such waits is stopped: so it opens."""
        batch, allocation = self.batch, self.allocation
        if allocation.may_take(batch, step):
            self.emit(allocation.take(batch, step))
            self._settle_units(step.acquire)
            return True
        if ring := allocation.ring(batch):
            say = words.deadlock(ring, {name: self.state.batches[name].units for name in ring})
            self.faults.append(Fault("stop", "deadlock", say))
        return False

    def _release(self, step: Step) -> bool:
        """Gives the units back, once no phase of theirs is still being stopped."""
        phases = self.plan.phases
        if any(phases[run.phase].unit in step.release for run in self.batch.phases.values()):
            return False
        self.emit(self.allocation.release(self.batch, step))
        self._settle_units(step.release)
        return True

    def _settle_units(self, units: tuple[str, ...]) -> None:
        for unit in units:
            self.touched.update(self.allocation.outputs(unit))

    def _advance_all(self, children: list[BranchState]) -> bool:
        """Each branch gets its turn, whatever the others say; True when all have ended."""
        ended = True
        for child in children:
            if not self._advance(child):
                ended = False
        return ended

    def _advance_first(self, step: Step, branch: BranchState) -> bool:
        """The branches have their turn in their order, until one has ended: which one goes to the record."""
        for way, child in zip(step.branches, branch.children, strict=True):
            if self._advance(child):
                name = step.name
                if step.into is not None:
                    self.variables[step.into] = way.name
                    name = self.recipe.variables[step.into]
                    self.emit(VariableSet(self.batch.batch, step.index, name, way.name))
                self.emit(Recorded(self.batch.batch, step.index, name, way.name))
                return True
        return False

    def _choose(self, ways: tuple[Branch, ...], branch: BranchState) -> bool | None:
        """The first way whose condition is true; where there is none it waits (IEC 61131-3, selection divergence).

        An unknown condition before it makes the choice wait too: it is no `else`. A handler cannot wait for a value:
        there the unknown is not true, and no true way is the end of the choice.
        """
        if branch.stage == 0:
            for way in ways:
                answer = True if way.when is None else way.when(self.values, self.variables)
                if answer is None and not self.handling:
                    return None
                if answer:
                    branch.children = [BranchState(way.block, branch.path)]
                    break
            if not branch.children and not self.handling:
                return False
            branch.stage = 1
        return self._advance_all(branch.children)

    def _repeat(self, repeat: Repeat, branch: BranchState) -> bool | None:
        """Stage 0: shall there be a round? 1: a round runs. Each round begins in a cycle of its own."""
        values, variables = self.values, self.variables
        if branch.stage == 0:
            if repeat.while_ is not None:
                answer = repeat.while_(values, variables)
                if answer is not True:
                    return True if answer is False else None
            if repeat.times is not None:
                times = repeat.times(values, variables) if callable(repeat.times) else repeat.times
                if times is None or isinstance(times, str) or branch.rounds >= times:
                    return True if times is not None else None
            if repeat.each is not None and (more := self._next(repeat.each, repeat, branch)) is not True:
                return None if more is None else True
            branch.children = [BranchState(repeat.block, branch.path)]
            branch.stage = 1
        if not self._advance(branch.children[0]):
            return False
        if repeat.until is not None:
            answer = repeat.until(values, variables)
            if answer is not False:
                return True if answer is True else None
        branch.rounds += 1
        branch.stage = 0
        branch.children = []
        return False

    def _next(self, variable: int, repeat: Repeat, branch: BranchState) -> bool | None:
        """Gives a loop's variable its next value: False when there is none, None while it is unknown."""
        if branch.rounds >= len(repeat.of):
            return False
        value = repeat.of[branch.rounds]
        if callable(value):
            value = value(self.values, self.variables)
        if value is None:
            return None
        self.variables[variable] = value
        name, step = self.recipe.variables[variable], branch.block[branch.at]
        self.emit(VariableSet(self.batch.batch, step, name, value, repeat.unit))
        return True

    def _time_out(self, step: Step, branch: BranchState) -> bool:
        """The step's time limit has passed; True where it is left. A limit that holds or ends the batch is a fault."""
        if step.on_timeout != "continue":
            do = "" if self.handling else step.on_timeout
            self.faults.append(Fault(do, "timeout", words.timed_out(step.name, step.condition)))
        if step.on_timeout != "continue" and not self.handling:
            branch.since = self.clock
            return False
        if step.ask is not None:
            self._unanswered(step.ask, branch)
        self._leave(step, branch, "timeout")
        return True

    def _leave(self, step: Step, branch: BranchState, how: str) -> None:
        for child in branch.children:
            self._cut(child)
        self._take_back(branch)
        if step.blocks:
            self.blocks.end(step.blocks, self.instances)
        if step.do is not None:
            self.phases.leave(step.index)
        self.batch.asked.pop(step.index, None)
        if step.interlocks:
            self._disarm(step)
        active = self.clock - branch.since if branch.begun else 0
        self.emit(StepEnded(self.batch.batch, step.index, step.name, how, active, branch.path))
        self.batch.prompts.pop(branch.prompt, None)
        self.batch.answers.pop(branch.prompt, None)
        branch.at += 1
        branch.begun, branch.limit, branch.stage, branch.rounds, branch.prompt = False, -1, 0, 0, 0
        branch.children, branch.slopes = [], {}

    def _cut(self, branch: BranchState) -> None:
        """Ends the branch where it stands: every step that was entered and not left is recorded as cut."""
        if branch.offer:
            self.withdraw(branch)
        while branch.at < branch.entered:
            self._leave(self.steps[branch.block[branch.at]], branch, "cut")

    def look(self, branch: BranchState) -> None:
        """Before a hold takes the outputs back: a pulse that its device shows by now has been seen."""
        for child in branch.children:
            self.look(child)
        step = self.steps[branch.block[branch.at]] if branch.at < branch.entered else None
        if step is not None and step.pulse and branch.stage == 1 and self._shown(step.pulse):
            branch.stage = 2

    def again(self, branch: BranchState) -> None:
        """Before a restart: a pulse that the hold has cut short is given anew, unless its device has seen it: then it
        is over.
        """
        self.handling = False
        for child in branch.children:
            self.again(child)
        if branch.at < branch.entered and self.steps[branch.block[branch.at]].kind == "pulse":
            self._take_back(branch)
            branch.stage = 2 if branch.stage == 2 else 0
            branch.wait = 0 if branch.stage == 2 else branch.wait


def offered(branch: BranchState) -> Iterator[BranchState]:
    """The branches whose next step waits to be confirmed."""
    if branch.offer == OFFERED:
        yield branch
    for child in branch.children:
        yield from offered(child)


def halted(branch: BranchState) -> bool:
    """Whether every branch stands between two steps, where a pause may rest (ISA-88: the next safe break point)."""
    if branch.at == branch.entered:
        return True
    return bool(branch.children) and all(halted(child) for child in branch.children)


def active(branch: BranchState) -> Iterator[tuple[BranchState, str]]:
    """The branches whose step is active, innermost last, with their paths."""
    if branch.at < branch.entered:
        yield branch, branch.path
    for child in branch.children:
        yield from active(child)


def _inside(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
