"""A batch as a watcher sees it: from the engine's state once, then from the events of its steps."""

from collections.abc import Iterable

import msgspec

from drivers.value import Value
from edge.batch import BatchState, BranchState
from edge.engine import states, words
from edge.engine.sequence import active, offered
from edge.language.program import Plan, Recipe, Texts
from edge.messages import (
    Answered,
    Asked,
    ModeChanged,
    PhaseChanged,
    Recorded,
    StateChanged,
    StepEnded,
    StepStarted,
    StepWaits,
    UnitsAsked,
    UnitsReleased,
    UnitsTaken,
    VariableSet,
)

CLOCK_RUNS = frozenset({"running", "pausing"})
"""The states in which a batch's clock runs (as the engine counts it)."""


class StepView(msgspec.Struct):
    """An active step: `since` is the batch's clock when it started, or the cycle where a handler runs it."""

    step: int
    name: str
    branch: str
    since: int
    handler: bool = False


class Quantity(msgspec.Struct, frozen=True):
    """A value in its unit."""

    value: Value
    unit: str = ""


class BatchView(msgspec.Struct):
    """A batch that the loop knows. `clock` is the batch's own as of cycle `at`; times are ns since 1970.

    `cause` says in English why it is in its state, `cause_say` in the languages of the floor. `waits` are the
    steps that a person is to confirm.
    """

    batch: str
    recipe: str
    hash: str
    by: str
    parameters: dict[str, Value]
    state: str = "idle"
    mode: str = "automatic"
    cause: str = ""
    changed_by: str = ""
    cause_say: Texts = {}
    started_ns: int | None = None
    since_ns: int | None = None
    clock: int = 0
    at: int = 0
    steps: dict[tuple[str, int], StepView] = {}
    waits: dict[tuple[str, int], StepWaits] = {}
    phases: dict[int, PhaseChanged] = {}
    units: list[str] = []
    asked: dict[int, UnitsAsked] = {}
    questions: dict[int, Asked] = {}
    answers: dict[str, Value] = {}
    variables: dict[str, Quantity] = {}
    recorded: list[Recorded] = []

    def active_cycles(self, step: StepView, cycle: int) -> int:
        """How many cycles a step's clock has run."""
        return max(0, (cycle if step.handler else self.clock_at(cycle)) - step.since)

    def clock_at(self, cycle: int) -> int:
        return self.clock + (max(0, cycle - self.at) if self.state in CLOCK_RUNS else 0)

    def take(
        self,
        event: StateChanged
        | ModeChanged
        | StepWaits
        | StepStarted
        | StepEnded
        | PhaseChanged
        | UnitsAsked
        | UnitsTaken
        | UnitsReleased
        | Recorded
        | VariableSet
        | Asked
        | Answered,
        cycle: int,
        now_ns: int,
    ) -> bool:
        """What has happened to the batch; False where something before it was missed."""
        match event:
            case ModeChanged():
                self.mode = event.mode
            case StepWaits(waits=True):
                self.waits[event.branch, event.step] = event
            case StepWaits():
                self.waits.pop((event.branch, event.step), None)
            case StateChanged():
                self.clock, self.at = self.clock_at(cycle), cycle
                self.state, self.changed_by = event.state, event.by
                self.cause, self.cause_say = event.cause, event.cause_say
                self.since_ns = now_ns
                if event.state in states.ENDED:
                    self.questions, self.phases, self.asked, self.units = {}, {}, {}, []
            case StepStarted():
                handler = self.state in states.HANDLED
                since = cycle if handler else self.clock_at(cycle)
                started = StepView(event.step, event.name, event.branch, since, handler)
                self.steps[event.branch, event.step] = started
                self.waits.pop((event.branch, event.step), None)
            case StepEnded():
                ended = self.steps.pop((event.branch, event.step), None)
                if ended is None:
                    return False
                for prompt in [one.prompt for one in self.questions.values() if one.step == event.step]:
                    del self.questions[prompt]
                phase = self.phases.get(event.step)
                if phase is not None and phase.state not in ("stopping", "aborting"):
                    del self.phases[event.step]
                self.asked.pop(event.step, None)
            case UnitsAsked():
                self.asked[event.step] = event
            case UnitsTaken():
                self.asked.pop(event.step, None)
                self.units = [*self.units, *(unit for unit in event.units if unit not in self.units)]
            case UnitsReleased():
                self.units = [unit for unit in self.units if unit not in event.units]
            case PhaseChanged(state="stopped" | "aborted"):
                self.phases.pop(event.step, None)
            case PhaseChanged():
                self.phases[event.step] = event
            case Recorded():
                self.recorded = [*self.recorded, event]
            case VariableSet():
                self.variables[event.name] = Quantity(event.value, event.unit)
            case Asked():
                self.questions[event.prompt] = event
            case Answered():
                self.questions.pop(event.prompt, None)
                if event.name:
                    self.answers[event.name] = event.value
        return True


def restored(plan: Plan, batch: BatchState, cycle: int, known: BatchView | None) -> BatchView:
    """A batch as the engine has it, with what only the events had told (times, recorded values)."""
    recipe = plan.version(batch.recipe, batch.hash) or plan.recipes[batch.recipe]
    count = len(recipe.parameters)
    named = zip(recipe.variables, batch.variables, strict=False)
    values = {name: value for name, value in named if value is not None}  # two loops may have one name
    parameters = {one.name: value for one in recipe.parameters if (value := values.get(one.name)) is not None}
    view = BatchView(batch.batch, batch.recipe, batch.hash, batch.by, parameters, batch.state)
    view.cause, view.cause_say = words.english(batch.cause_say), batch.cause_say
    view.clock, view.at = batch.clock, cycle
    view.mode, view.questions = batch.mode, dict(batch.prompts)
    for branch in offered(batch.body) if batch.body is not None else ():
        step = recipe.steps[branch.block[branch.at]]
        view.waits[branch.path, step.index] = StepWaits(batch.batch, step.index, step.name, branch.path)
    for index, run in batch.phases.items():
        view.phases[index] = PhaseChanged(batch.batch, index, plan.phases[run.phase].name, run.state)
    view.units = list(batch.units)
    for index, turn in batch.asked.items():
        view.asked[index] = UnitsAsked(batch.batch, index, recipe.steps[index].acquire, turn)
    lets = _calculated(recipe)
    found = {name: value for name in recipe.variables[count:] if (value := values.get(name)) is not None}
    view.answers = {name: value for name, value in found.items() if name not in lets}
    view.variables = {name: Quantity(found[name], unit) for name, unit in lets.items() if name in found}
    for root, handler in ((batch.body, False), (batch.handling, True)):
        for branch, path in active(root) if root is not None else ():
            for step in _entered(branch, path, recipe):
                step.handler = handler
                step.since = branch.since if branch.begun else cycle if handler else batch.clock
                view.steps[step.branch, step.step] = step
    if known is not None:
        view.started_ns, view.recorded = known.started_ns, known.recorded
        view.since_ns = known.since_ns if known.state == view.state else None
    return view


def _calculated(recipe: Recipe) -> dict[str, str]:
    """The variables that steps set without asking, with their units."""
    names = recipe.variables
    found = {names[let.variable]: let.unit.name for step in recipe.steps for let in step.let}
    found |= {names[step.into]: "" for step in recipe.steps if step.into is not None}
    loops = [step.repeat for step in recipe.steps if step.repeat is not None]
    return found | {names[loop.each]: loop.unit for loop in loops if loop.each is not None}


def _entered(branch: BranchState, path: str, recipe: Recipe) -> Iterable[StepView]:
    """The steps of a branch that are entered and not left: the active one, and those that were entered with it."""
    for place in range(branch.at, branch.entered):
        step = recipe.steps[branch.block[place]]
        yield StepView(step.index, step.name, path, 0)
