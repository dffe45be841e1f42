"""A checked recipe as the engine runs it: flat steps, compiled expressions, constant times in scan cycles.

`plan.py` makes it from the files, `engine.py` runs it. Nothing in it changes while it runs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from drivers.value import Value
from edge.language.cell import Cell
from edge.language.rules import Moment, Priority, Reaction, Role
from edge.language.units import NONE, Unit

Values = Sequence[Value | None]
Code = Callable[[Values, Values], Value | None]
"""A compiled expression: (tag values by index, then their ages in s; variables by index) -> value.

None: unknown, since a value is bad. The variables are those of the recipe, then the results of its function blocks.
"""

LONGEST_S = 10 * 366 * 86_400.0
"""The longest time that something can take."""

Texts = dict[str, str]
"""One text in several languages: language code (`en`, `fr`, `ar`) -> text."""

Kind = Literal[
    "set",
    "until",
    "wait",
    "ramp",
    "pulse",
    "parallel",
    "first",
    "choose",
    "repeat",
    "ask",
    "do",
    "include",
    "record",
    "let",
    "alarm",
    "acquire",
    "release",
]
"""What ends a step: it is `set` where no other says so."""

Block = tuple[int, ...]
"""Steps that run one after another: their indices in `Recipe.steps`."""


BlockKind = Literal["rising", "falling", "stable", "average", "elapsed"]
BlockScope = Literal["step", "batch", "interlock"]


class FunctionBlock(msgspec.Struct, frozen=True):
    """A call with memory in an expression (IEC 61131-3, 2.5.2): each is an instance of its own, called once a cycle.

    Its value is the variable `result`. `input` is what it looks at; `seconds` its time; `band`, in the unit of a
    number, how far that may move and still be stable. It remembers from the start of its `scope` on: of the step, of
    the batch, or as an interlock, which goes on in every state.
    """

    kind: BlockKind
    scope: BlockScope = "step"
    result: int = -1
    input: Code | None = None
    seconds: float | Code = 0.0
    band: float | Code | None = None


class Level(msgspec.Struct, frozen=True):
    """What an output is set to: tag index and its value in the tag's unit, a constant or an expression."""

    tag: int
    value: Value | Code


class Ramp(msgspec.Struct, frozen=True):
    """An output that goes to a value, in the tag's unit, at a `rate` in that unit per second; `start` None: from its
    level now.
    """

    tag: int
    to: Value | Code
    rate: float | Code
    start: Value | Code | None = None


class Prompt(msgspec.Struct, frozen=True):
    """A question to the operator. `choice` has `answers`, with `labels` to show; `number` has a unit and a range.

    `default` is the answer when its time is over, `who` may answer it.
    """

    say: Texts
    kind: Literal["confirm", "choice", "number", "text"]
    answers: tuple[str, ...] = ()
    unit: str = ""
    low: float | None = None
    high: float | None = None
    into: int | None = None
    labels: dict[str, Texts] = {}
    default: Value | None = None
    who: Role = "operator"


class Notice(msgspec.Struct, frozen=True):
    """An alarm that a step raises. The step waits until somebody has acknowledged it where `acknowledge` says so."""

    say: Texts
    priority: Priority
    acknowledge: bool


class Branch(msgspec.Struct, frozen=True):
    """A branch of a `parallel`, or a way of a `choose` (`when` None: else)."""

    name: str
    block: Block
    when: Code | None = None


class Repeat(msgspec.Struct, frozen=True):
    """A loop: a number of `times`, `while_` asked before each round, `until` asked after each; or the variable `each`
    has the values of `of`, in `unit`, in turn.
    """

    block: Block
    times: int | Code | None = None
    while_: Code | None = None
    until: Code | None = None
    each: int | None = None
    of: tuple[Value | Code, ...] = ()
    unit: str = ""


class Run(msgspec.Struct, frozen=True):
    """An equipment phase to run: index in `Plan.phases` and the levels of its parameters."""

    phase: int
    parameters: tuple[Level, ...]


class Entry(msgspec.Struct, frozen=True):
    """A value to be kept in the batch record."""

    name: str
    value: Code
    unit: Unit = NONE
    type: Literal["bool", "number", "text"] = "number"


class Let(msgspec.Struct, frozen=True):
    """A variable that a step sets, a number in `unit`; `low` and `high` bound all that it is ever set to."""

    variable: int
    value: Code
    unit: Unit = NONE
    type: Literal["bool", "number", "text"] = "number"
    low: float | None = None
    high: float | None = None


class Operation(msgspec.Struct, frozen=True):
    """Another recipe as an operation of this one: its steps, and what its parameters (by their variables) are."""

    name: str
    block: Block
    parameters: tuple[tuple[int, "Parameter", Value | Code], ...]


class Step(msgspec.Struct, frozen=True):
    """One step. On entry its `set` levels are given (IEC 61131-3 action qualifier S), while it is active its `during`
    levels (qualifier N); it ends by what `kind` says, at most `within` cycles later. `line` is where it stands, `file`
    the recipe's own where it is empty.

    `inputs` are the tags that its own expressions read, `condition` the text of what it waits for, `blocks` the
    function blocks of what it asks again and again. After a hold it goes on when `expects` is true; `expected` is its
    text.
    """

    index: int
    name: str
    kind: Kind
    line: int
    set: tuple[Level, ...] = ()
    during: tuple[Level, ...] = ()
    until: Code | None = None
    wait: int | Code | None = None
    within: int | Code | None = None
    on_timeout: Literal["hold", "stop", "abort", "continue"] = "hold"
    ramp: tuple[Ramp, ...] = ()
    pulse: tuple[Level, ...] = ()
    branches: tuple[Branch, ...] = ()
    into: int | None = None
    repeat: Repeat | None = None
    ask: Prompt | None = None
    do: Run | None = None
    record: tuple[Entry, ...] = ()
    let: tuple[Let, ...] = ()
    alarm: Notice | None = None
    include: Operation | None = None
    file: str = ""
    acquire: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    inputs: tuple[int, ...] = ()
    condition: str = ""
    blocks: tuple[FunctionBlock, ...] = ()
    interlocks: tuple[int, ...] = ()
    expects: Code | None = None
    expected: str = ""


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """A condition that stands once `when` has been true for `settle` cycles, until that is false and `clears` (where
    there is one) true for `release` cycles. `condition` is its text, `inputs` are the tags that it reads.
    """

    when: Code
    say: Texts
    condition: str
    line: int
    settle: int = 0
    clears: Code | None = None
    release: int = 0
    inputs: tuple[int, ...] = ()
    priority: Priority


class Interlock(Watch, frozen=True, kw_only=True):
    """When it stands, or has been unknown for `grace` cycles, the batch does `do`."""

    do: Reaction
    grace: int


class CellInterlock(Interlock, frozen=True, kw_only=True):
    """It acts on every batch that owns one of its `units`, and on the outputs in `block` (tags) that hands have set."""

    units: tuple[str, ...]
    block: tuple[int, ...]


class Alarm(Watch, frozen=True, kw_only=True):
    """People are told of it. One that does not `latch` goes by itself when it has cleared."""

    name: str
    latch: bool


class Permissive(msgspec.Struct, frozen=True):
    """What `must` be true at some moments of a batch. `fixed`: it reads no parameters, and can be asked beforehand."""

    must: Code
    say: Texts
    condition: str
    before: tuple[Moment, ...]
    fixed: bool


class PhaseCommand(msgspec.Struct, frozen=True):
    """A command to an equipment phase: the outputs to give, what says that it has happened, and within how many cycles
    (None: no limit).
    """

    outputs: tuple[Level, ...]
    confirmed: Code
    limit: int | None = None


class Phase(msgspec.Struct, frozen=True):
    """An equipment phase of a unit (ISA-88): its parameters (name -> tag index), its commands and what tells its state.

    The commands are `reset`, `start`, `hold`, `restart`, `stop`, `abort`; without `start` its parameters start it.

    A command is handed over by the rising edge of `request`, or where only `acknowledged` is given by its outputs
    themselves; it is taken back once it was acknowledged. Else its outputs stand until the next one. `inputs` are the
    tags that its conditions read, `outputs` all that it drives.
    """

    name: str
    unit: str
    parameters: dict[str, int]
    running: Code
    done: Code
    failed: Code | None = None
    ready: Code | None = None
    acknowledged: Code | None = None
    request: int | None = None
    commands: dict[str, PhaseCommand] = {}
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()

    @property
    def commanded(self) -> frozenset[int]:
        """The tags that its commands drive: nobody else may."""
        return frozenset(self.outputs) - frozenset(self.parameters.values())

    @property
    def by_edge(self) -> bool:
        """Whether a command is an edge: the machine keeps it when its outputs are taken back."""
        return self.request is not None or self.acknowledged is not None


class Parameter(msgspec.Struct, frozen=True):
    """A formula parameter of a recipe, asked at the start."""

    name: str
    type: Literal["number", "bool", "text"]
    unit: str = ""
    default: Value | None = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    say: Texts = {}
    identify: Literal["lot", "order"] | None = None


class Recipe(msgspec.Struct, frozen=True):
    """A master recipe, checked against its cell. `hash` is the SHA-256 of its `text` in UTF-8: that of its file, and of
    the recipes that it includes (`edition.py`).

    `variables` are the names of the parameters, of what answers fill, of what `let` sets; expressions have them by
    index. `inputs` are all tags that it reads (its phases too), `outputs` all that it writes, `devices` those of its
    units. `ages` are the tags whose age it asks for; `blocks` the function blocks of all its expressions, in the order
    in which their results follow the variables. The first `guards` of the interlocks count always, the others while
    their step is active. `shares` are the units that its steps acquire; its `devices` are those of `uses` alone.
    """

    name: str
    file: str
    hash: str
    uses: tuple[str, ...]
    devices: tuple[int, ...]
    parameters: tuple[Parameter, ...]
    variables: tuple[str, ...]
    steps: tuple[Step, ...]
    body: Block
    handlers: dict[str, Block]
    interlocks: tuple[Interlock, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    after_power_loss: Literal["hold", "resume", "abort"] = "hold"
    handler_limits: dict[str, int] = {}
    say: Texts = {}
    shares: tuple[str, ...] = ()
    ages: tuple[int, ...] = ()
    blocks: tuple[FunctionBlock, ...] = ()
    guards: int = 0
    permissives: tuple[Permissive, ...] = ()
    text: str = ""

    def identified(self, values: Mapping[str, Value]) -> dict[str, str]:
        """The lot and order number among the values of its parameters, as far as it asks for them."""
        named = [(one.identify, values.get(one.name)) for one in self.parameters if one.identify is not None]
        return {kind: str(value) for kind, value in named if value is not None}


class Plan(msgspec.Struct, frozen=True):
    """A cell and every recipe that runs in it. `cycles(seconds)` of its scan gives durations in cycles.

    `recipes` are the versions in force, by name: new batches run these. `others` are versions that batches still run,
    by hash. `interlocks` and `alarms` are the cell's own, `permissives` those of its units by name, `text` is that of
    the cell file.
    """

    cell: Cell
    phases: tuple[Phase, ...]
    recipes: dict[str, Recipe]
    interlocks: tuple[CellInterlock, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    permissives: dict[str, tuple[Permissive, ...]] = {}
    others: dict[str, Recipe] = {}
    text: str = ""

    def version(self, name: str, digest: str) -> Recipe | None:
        """The version of a recipe that has this hash, in force or not."""
        recipe = self.recipes.get(name)
        return recipe if recipe is not None and recipe.hash == digest else self.others.get(digest)

    def copy(self) -> "Plan":
        """The same, whose recipes may change without changing these."""
        return msgspec.structs.replace(self, recipes=dict(self.recipes), others=dict(self.others))

    def put(self, recipe: Recipe) -> None:
        """Brings a version into force; the one before it is kept among the others."""
        self.withdraw(recipe.name)
        self.others.pop(recipe.hash, None)
        self.recipes[recipe.name] = recipe

    def withdraw(self, name: str) -> None:
        """No new batch runs this recipe any more; its version is kept among the others."""
        before = self.recipes.pop(name, None)
        if before is not None:
            self.others[before.hash] = before

    def cycles(self, seconds: float) -> int:
        """A duration in scan cycles, rounded up: at least the time that was asked for. 0 for 0 s."""
        return -int(-seconds * 1e9 // self.cell.scan_ns)
