"""The recipe file as its engineer writes it, after ISA-88 (IEC 61512-1): the shape of its keys, nothing compiled yet.

These Structs are the one place where the keys are written: the loader reads by them, the JSON Schema is made from them.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, get_args

from msgspec import Meta, field

from edge.language.program import Kind
from edge.language.rules import Interlock, Permissive, Priority, Role, Say
from edge.language.shape import Condition, Expression, Form, Name, Range, Seconds, Text, keys
from edge.language.source import Node

COMPLETIONS: tuple[Kind, ...] = get_args(Kind)[1:]

LASTING: frozenset[Kind] = frozenset(COMPLETIONS) - {"record", "let", "release"}
"""The kinds that take time, and so may have `within`."""

GOES_WITH: dict[str, frozenset[Kind]] = {
    "for": frozenset({"pulse"}),
    "into": frozenset({"first"}),
    "with": frozenset({"do", "include"}),
    "steps": frozenset({"repeat"}),
    "within": LASTING,
    "expects": LASTING,
    "on_timeout": LASTING,
    "interlocks": LASTING,
}
"""Keys of a step that only these kinds have."""

NEEDS = {"until": "within", "pulse": "for", "repeat": "steps", "on_timeout": "within"}
"""Keys of a step that need another."""

PLAIN: frozenset[Kind] = frozenset(
    {"set", "until", "wait", "ramp", "pulse", "choose", "include", "record", "let", "alarm"}
)
"""The kinds that a handler of `on` may have: it runs while the body stands still, and must come to its end."""


LANGUAGES = keys(Say)


class Parameter(Form, frozen=True):
    """A formula parameter, asked for when a batch is started."""

    type: Annotated[Literal["number", "bool", "text"], Meta(description="What it is; a number if left out.")] = "number"
    unit: Annotated[str, Meta(description="Unit of a number.", examples=["L", "degC"])] = ""
    default: Annotated[Expression | None, Meta(description="Its value unless the start says another.")] = None
    range: Annotated[Range | None, Meta(description="Lowest and highest value, in the unit.", examples=[[5, 50]])] = (
        None
    )
    choices: Annotated[tuple[str, ...], Meta(description="The values that a text may have.")] = ()
    identify: Annotated[
        Literal["lot", "order"] | None,
        Meta(description="It is the lot or order number: the batch record has it as such, and finds batches by it."),
    ] = None
    say: Annotated[Text | Say | None, Meta(description="What the operator reads beside it.")] = None


class Repeat(Form, frozen=True):
    """How often the step's `steps` run: exactly one of these."""

    times: Annotated[Expression | None, Meta(description="A number of rounds.", examples=[3])] = None
    while_: Annotated[Condition | None, Meta(description="Asked before each round.")] = field(
        name="while", default=None
    )
    until: Annotated[Condition | None, Meta(description="Asked after each round.")] = None
    each: Annotated[
        Name | None, Meta(description="The variable that has each value of `of` in turn.", examples=["dose"])
    ] = None
    of: Annotated[
        tuple[Expression, ...],
        Meta(description="The values for `each`: numbers of one unit, texts or bools.", examples=[["5 L", "10 L"]]),
    ] = ()

    def title(self) -> str:
        """The loop in plain words."""
        if self.times is not None:
            return f"repeat {self.times.text} times"
        if self.has("each"):
            return f"repeat each {self.each}"
        key = "while" if self.while_ is not None else "until"
        return f"repeat {key} {self.place(key).text}"


class Number(Form, frozen=True):
    """A number that the operator enters."""

    unit: Annotated[str, Meta(description="Its unit.")] = ""
    range: Annotated[Range | None, Meta(description="Lowest and highest value, in the unit.")] = None


class Ramp(Form, frozen=True):
    """How an output goes to a value."""

    to: Annotated[Expression, Meta(description="The value that it goes to.", examples=["80 degC"])]
    rate: Annotated[Expression, Meta(description="How fast: its unit over a time.", examples=["2 K/min"])]
    from_: Annotated[
        Expression | None,
        Meta(description="Where it begins; the value that it has if left out.", examples=["mixer.temperature"]),
    ] = field(name="from", default=None)


class Raise(Form, frozen=True):
    """An alarm that the recipe raises."""

    say: Annotated[Text | Say, Meta(description="The alarm's text.")]
    priority: Annotated[Priority, Meta(description="How urgent it is.")] = "medium"
    acknowledge: Annotated[bool, Meta(description="The step waits until the operator has acknowledged it.")] = False


_Answers = Annotated[tuple[str, ...], Meta(min_length=1)]
_Units = Annotated[tuple[str, ...], Meta(min_length=1)]


class Ask(Form, frozen=True):
    """A question to the operator. With none of `answers`, `number` and `text` it waits to be confirmed."""

    say: Annotated[Text | Say, Meta(description="The question.")]
    answers: Annotated[
        _Answers | dict[str, Text | Say] | None,
        Meta(
            description="The answers to choose from; a map has the texts that the operator reads for each.",
            examples=[["yes", "no"]],
        ),
    ] = None
    number: Annotated[Number | None, Meta(description="The operator enters a number.")] = None
    text: Annotated[bool, Meta(description="The operator enters a text.")] = False
    into: Annotated[Name | None, Meta(description="The variable that keeps the answer.")] = None
    default: Annotated[
        Expression | None,
        Meta(description="The answer when the time is over and `on_timeout` is `continue`.", examples=["no"]),
    ] = None
    who: Annotated[Role, Meta(description="Who may answer: anybody, or an engineer only.")] = "operator"

    @property
    def kind(self) -> Literal["confirm", "choice", "number", "text"]:
        if self.answers is not None:
            return "choice"
        if self.number is not None:
            return "number"
        return "text" if self.text else "confirm"


class Way(Form, frozen=True):
    """One way of a `choose`: `when` with `steps`, or `else`."""

    when: Annotated[Condition | None, Meta(description="The way is taken when this is true.")] = None
    steps: Annotated[list["Step"] | None, Meta(description="What is done then.")] = None
    else_: Annotated[list["Step"] | None, Meta(description="What is done when no other way is; the last one.")] = field(
        name="else", default=None
    )


class Step(Form, frozen=True):
    """One step. It ends by `until`, `wait`, `parallel`, `choose`, `repeat`, `ask` or `do`, else at once."""

    name: Annotated[str | None, Meta(description="What the operator reads; made from the step if left out.")] = None
    set: Annotated[
        dict[str, Expression],
        Meta(
            description="Outputs given at the start, which stay until changed or the recipe ends (IEC 61131-3 "
            "qualifier S).",
            examples=[{"mixer.agitator": "120 rpm"}],
        ),
    ] = field(default_factory=dict[str, Node])
    during: Annotated[
        dict[str, Expression],
        Meta(
            description="Outputs given while the step is active, then back to rest (IEC 61131-3 qualifier N).",
            examples=[{"mixer.inlet": True}],
        ),
    ] = field(default_factory=dict[str, Node])
    until: Annotated[Condition | None, Meta(description="The step ends when this is true; needs `within`.")] = None
    wait: Annotated[Expression | None, Meta(description="The step ends after this time.", examples=["30 s"])] = None
    ramp: Annotated[
        dict[str, Ramp] | None,
        Meta(
            description="Outputs that go to a value at a rate, and stay there as with `set`; ends when all are there.",
            examples=[{"mixer.agitator": {"to": "120 rpm", "rate": "10 rpm/s"}}],
        ),
    ] = None
    pulse: Annotated[
        dict[str, Expression] | None,
        Meta(
            description="Outputs given for the time of `for`, then back to rest (IEC 61131-3 qualifiers L and P).",
            examples=[{"mixer.reset": True}],
        ),
    ] = None
    for_: Annotated[Expression | None, Meta(description="How long a `pulse` is, at least.", examples=["500 ms"])] = (
        field(name="for", default=None)
    )
    parallel: Annotated[
        dict[str, list["Step"]] | None, Meta(description="Branches that run side by side; ends when all have ended.")
    ] = None
    first: Annotated[
        dict[str, list["Step"]] | None,
        Meta(description="Branches that run side by side; ends when the first has ended, the others are cut."),
    ] = None
    into: Annotated[
        Name | None, Meta(description="The variable that has the name of the branch that ended `first`.")
    ] = None
    choose: Annotated[list[Way] | None, Meta(description="The first way whose `when` is true is taken.")] = None
    repeat: Annotated[Repeat | None, Meta(description="Runs `steps` again and again.")] = None
    steps: Annotated[list["Step"] | None, Meta(description="The steps that `repeat` runs.")] = None
    ask: Annotated[Ask | None, Meta(description="Asks the operator and waits for the answer.")] = None
    do: Annotated[str | None, Meta(description="Runs an equipment phase of the cell.", examples=["robot.pick"])] = None
    with_: Annotated[
        dict[str, Expression],
        Meta(description="The parameters of the phase, or of the recipe that is included.", examples=[{"program": 3}]),
    ] = field(name="with", default_factory=dict[str, Node])
    include: Annotated[
        str | None, Meta(description="Runs another recipe of the folder as an operation.", examples=["rinse"])
    ] = None
    record: Annotated[
        dict[str, Expression] | None,
        Meta(description="Values kept in the batch record.", examples=[{"filled": "mixer.level"}]),
    ] = None
    let: Annotated[
        dict[Name, Expression] | None,
        Meta(
            description="Variables for the steps that follow, calculated when the step begins.",
            examples=[{"dose": "volume * 2"}],
        ),
    ] = None
    alarm: Annotated[Raise | None, Meta(description="Raises an alarm.")] = None
    acquire: Annotated[
        _Units | None,
        Meta(description="Waits for units of `shares` and takes them all at once.", examples=[["robot"]]),
    ] = None
    release: Annotated[
        _Units | None,
        Meta(description="Gives units back; their outputs go to failsafe.", examples=[["robot"]]),
    ] = None
    within: Annotated[
        Expression | None, Meta(description="The longest that the step may take, or none.", examples=["60 s", "none"])
    ] = None
    expects: Annotated[
        Condition | None,
        Meta(
            description="What must be true before the step goes on after a hold or a power cut.",
            examples=["mixer.level > 5 L"],
        ),
    ] = None
    on_timeout: Annotated[
        Literal["hold", "stop", "abort", "continue"] | None,
        Meta(description="What happens after `within`; hold if left out."),
    ] = None
    interlocks: Annotated[
        tuple[Interlock, ...], Meta(description="What must not be while the step, or one inside it, is active.")
    ] = ()

    def title(self, kind: Kind) -> str:
        """A name in plain words, for a step that has none."""
        match kind:
            case "set":
                return f"set {', '.join(self.set or self.during)}"
            case "until" | "wait" | "do" | "include":
                return f"{kind} {self.place(kind).text}"
            case "parallel" | "first" | "record" | "let" | "ramp" | "pulse":
                return f"{kind} {', '.join(self.place(kind).entries)}"
            case "acquire" | "release":
                return f"{kind} {', '.join(self.acquire or self.release or ())}"
            case "choose" | "alarm":
                return kind
            case "repeat":
                return self.repeat.title() if self.repeat is not None else "repeat"
            case "ask":
                return f"ask {self.ask.into}" if self.ask is not None and self.ask.into else "ask"


class Handler(Form, frozen=True):
    """The steps of a handler with a time limit for the whole of it."""

    steps: Annotated[list[Step], Meta(description="What is done.", min_length=1)]
    within: Annotated[
        Seconds, Meta(description="The longest that it may take; then there is an alarm, and the state goes on.")
    ]


_Steps = list[Step] | Handler | None


class Handlers(Form, frozen=True):
    """What the recipe does when its state changes."""

    hold: Annotated[_Steps, Meta(description="While holding: outputs `during` a step are at rest.")] = None
    restart: Annotated[_Steps, Meta(description="While restarting, before the body goes on.")] = None
    stop: Annotated[_Steps, Meta(description="While stopping.")] = None
    abort: Annotated[_Steps, Meta(description="While aborting.")] = None

    def blocks(self) -> dict[str, list[Step]]:
        """The steps of each state that has some."""
        given = ((name, getattr(self, name)) for name in keys(Handlers))
        return {name: one.steps if isinstance(one, Handler) else one for name, one in given if one}

    def limits(self) -> dict[str, float]:
        """The time limit, in seconds, of each state that has one."""
        given = ((name, getattr(self, name)) for name in keys(Handlers))
        return {name: one.within for name, one in given if isinstance(one, Handler)}


class RecipeFile(Form, frozen=True):
    """A master recipe of a cell."""

    recipe: Annotated[
        str, Meta(description="Its name.", examples=["rinse-and-fill"], pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$")
    ]
    steps: Annotated[list[Step], Meta(description="What it does, one step after another.", min_length=1)]
    say: Annotated[Text | Say | None, Meta(description="Its title for the operator.")] = None
    operation: Annotated[
        bool, Meta(description="true: it is a part that other recipes `include`; nobody starts it by itself.")
    ] = False
    uses: Annotated[
        tuple[str, ...], Meta(description="The units that it owns while it runs.", examples=[["mixer"]])
    ] = ()
    shares: Annotated[
        tuple[str, ...],
        Meta(description="Units that its steps acquire for a while, and release.", examples=[["robot"]]),
    ] = ()
    parameters: Annotated[dict[Name, Parameter], Meta(description="Its formula parameters.")] = field(
        default_factory=dict[str, Parameter]
    )
    permissives: Annotated[
        tuple[Permissive, ...], Meta(description="What must be true before it starts or restarts.")
    ] = ()
    interlocks: Annotated[tuple[Interlock, ...], Meta(description="What must not be while it runs.")] = ()
    on: Annotated[Handlers | None, Meta(description="Steps for hold, restart, stop and abort.")] = None
    after_power_loss: Annotated[
        Literal["hold", "resume", "abort"], Meta(description="What it does when power returns in the middle of it.")
    ] = "hold"


def texts(say: "str | Say | None") -> dict[str, str]:
    """A text by language; one that names none counts as English."""
    if say is None:
        return {}
    if isinstance(say, str):
        return {"en": say}
    return {name: text for name in LANGUAGES if (text := getattr(say, name)) is not None}


def walk(steps: Iterable[Step]) -> Iterator[Step]:
    """Every step, with those inside it, in the order of the file."""
    for step in steps:
        yield step
        for inner in (*(step.parallel or {}).values(), *(step.first or {}).values(), step.steps or ()):
            yield from walk(inner)
        for way in step.choose or ():
            yield from walk((*(way.steps or ()), *(way.else_ or ())))
