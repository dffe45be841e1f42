"""The file of recipe tests as its engineer writes it: the shape of its keys, nothing compiled yet.

    recipe: fill
    tests:
      It fills to the volume:
        parameters: {volume: 20 L}
        happens:
          - {at: 3 s, lost: mixer, for: 2 s}
          - {at: 6 s, command: restart}
        expect:
          - {by: 30 s, that: mixer.level >= 20 L}
        always:
          - not (mixer.inlet and mixer.outlet)
        ends: {state: complete, by: 40 s, record: [filled >= 20 L], alarms: [device-lost]}

As in `recipe.py`, the loader reads by these Structs and the JSON Schema is made from them. Times count from the start
of the batch. Conditions are asked of the plant itself: of what is there, whatever a faulty sensor shows edge.
"""

from typing import Annotated, Literal, get_args

from msgspec import Meta, field

from drivers.driver import File
from edge.language.rules import AlarmKind
from edge.language.shape import Condition, Expression, Form, Name, Seconds, read_expression
from edge.language.source import Node

Fault = Literal["lost", "slow", "bad", "stuck", "spike", "drift", "cut"]
What = Literal["lost", "returns", "slow", "bad", "stuck", "spike", "drift", "cut", "answer", "command"]
"""What can happen: keys of which a happening has exactly one."""

WHATS: tuple[What, ...] = get_args(What)

OF_DEVICE: frozenset[What] = frozenset({"lost", "returns", "slow"})
OF_TAG: frozenset[What] = frozenset({"bad", "stuck", "spike", "drift"})

MOMENTS = ("at", "when", "step")
"""The keys that say when something happens: exactly one of them."""

GOES_WITH: dict[str, tuple[str, ...]] = {
    "after": ("when", "step"),
    "to": ("spike", "stuck"),
    "by": ("slow", "drift"),
    "for": get_args(Fault),
}
"""Keys of a happening that only stand beside these."""

NEEDS = {"slow": "by", "drift": "by", "spike": "to", "cut": "for"}
"""Keys of a happening that need another."""

DUE = ("by", "at", "within")
"""The keys that say when an expectation is due: exactly one of them."""

BatchState = Literal["running", "pausing", "paused", "holding", "held", "restarting", "stopping", "stopped", "aborting",
                     "aborted", "complete"]  # fmt: skip


class Happening(Form, frozen=True):
    """Something that happens: when (`at`, `when` or `step`), and what (a fault, an answer or a command)."""

    at: Annotated[Seconds | None, Meta(description="So long after the start of the batch.")] = None
    when: Annotated[
        Condition | None, Meta(description="When this is true for the first time.", examples=["mixer.level >= 10 L"])
    ] = None
    step: Annotated[str | None, Meta(description="When this step of the recipe begins for the first time.")] = None
    after: Annotated[Seconds, Meta(description="So long after that; at once if left out.")] = 0.0
    lost: Annotated[str | None, Meta(description="A device: the connection to it is lost.")] = None
    returns: Annotated[str | None, Meta(description="A device that was lost or slow is there as before.")] = None
    slow: Annotated[str | None, Meta(description="A device: what goes to it and comes from it is late.")] = None
    bad: Annotated[str | None, Meta(description="A tag: its value is of bad quality.")] = None
    stuck: Annotated[
        str | None, Meta(description="A tag: it stands where it is, or at `to`; an output takes no level any more.")
    ] = None
    spike: Annotated[str | None, Meta(description="A tag that is read: it shows `to`, for one scan if not longer.")] = (
        None
    )
    drift: Annotated[str | None, Meta(description="A number that is read: it goes away from the truth.")] = None
    cut: Annotated[Literal["power"] | None, Meta(description="edge is without power; outputs go to failsafe.")] = None
    answer: Annotated[
        dict[str, Expression] | None,
        Meta(
            description="The operator answers a question that is open, by its `into` or its step.",
            examples=[{"label_ok": "yes"}],
        ),
    ] = None
    command: Annotated[
        Literal["hold", "restart", "pause", "resume", "stop", "abort"] | None,
        Meta(description="The operator commands."),
    ] = None
    to: Annotated[Expression | None, Meta(description="The value that the tag shows.", examples=["50 kg"])] = None
    by: Annotated[
        Expression | None, Meta(description="How late it is, or how fast it drifts.", examples=["200 ms", "0.5 L/s"])
    ] = None
    for_: Annotated[Seconds | None, Meta(description="How long it lasts; for good if left out.")] = field(
        name="for", default=None
    )


class Expectation(Form, frozen=True):
    """What must come true: `by` a time, `at` a time, or `within` a time after `when` or `step`; `that` and `state`."""

    by: Annotated[Seconds | None, Meta(description="At some time until then, from the start of the batch.")] = None
    at: Annotated[Seconds | None, Meta(description="At just that time.")] = None
    within: Annotated[Seconds | None, Meta(description="At some time in this time after `when` or `step`.")] = None
    when: Annotated[Condition | None, Meta(description="When this is true for the first time.")] = None
    step: Annotated[str | None, Meta(description="When this step of the recipe begins for the first time.")] = None
    that: Annotated[Condition | None, Meta(description="This is true.", examples=["mixer.level >= 20 L"])] = None
    state: Annotated[BatchState | None, Meta(description="The batch is in this state.")] = None


class Ends(Form, frozen=True):
    """How the batch and its record end."""

    state: Annotated[BatchState, Meta(description="The state that it comes to; complete if left out.")] = "complete"
    by: Annotated[Seconds, Meta(description="When at the latest; 10 min if left out.")] = 600.0
    record: Annotated[
        tuple[Condition, ...],
        Meta(
            description="What must be true of recorded values, each time that they are recorded.",
            examples=[["bottles == 3"]],
        ),
    ] = ()
    alarms: Annotated[
        tuple[AlarmKind, ...], Meta(description="The alarms that are raised, and no others; none if left out.")
    ] = ()


_Answer = Annotated[
    Node, Meta(extra={"read": read_expression}, extra_json_schema={"type": ["string", "number", "boolean", "null"]})
]
_Parameters = Annotated[
    dict[Name, Expression], Meta(description="Parameters of the recipe; their defaults if left out.")
]
_Answers = Annotated[
    dict[str, _Answer],
    Meta(
        description="What the operator answers as soon as it is asked, by the question's `into` or its step; null: not "
        "at all.",
        examples=[{"label_ok": "yes"}],
    ),
]
_Always = Annotated[
    tuple[Condition, ...],
    Meta(description="What must be true at any time.", examples=[["not (mixer.inlet and mixer.outlet)"]]),
]


class TrialForm(Form, frozen=True):
    """One batch in virtual time: what is set, what happens, what must come of it."""

    parameters: _Parameters = field(default_factory=dict[str, Node])
    answers: _Answers = field(default_factory=dict[str, Node])
    happens: Annotated[tuple[Happening, ...], Meta(description="Faults, answers and commands at their times.")] = ()
    expect: Annotated[tuple[Expectation, ...], Meta(description="What must come true.")] = ()
    always: _Always = ()
    ends: Annotated[Ends | None, Meta(description="How it ends; complete, without alarms, if left out.")] = None


class TrialFile(Form, frozen=True):
    """Tests of one recipe. Parameters, answers and `always` beside `tests` are those of every test."""

    recipe: Annotated[str, Meta(description="The recipe that is tested.", examples=["rinse-and-fill"])]
    tests: Annotated[dict[str, TrialForm], Meta(description="The tests, each by a sentence that says what it shows.")]
    plant: Annotated[
        File | None, Meta(description="The file of the plant's model; plant.yaml beside the cell if left out.")
    ] = None
    parameters: _Parameters = field(default_factory=dict[str, Node])
    answers: _Answers = field(default_factory=dict[str, Node])
    always: _Always = ()
