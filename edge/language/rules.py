"""What is watched beside the steps, as its engineer writes it: interlocks, alarms (IEC 62682, ISA-18.2), permissives.

Cells and recipes have them; the texts for people that stand in them are here too.
"""

from typing import Annotated, Literal, get_args

from msgspec import Meta

from edge.language.shape import Condition, Expression, Form, Seconds, Text

Priority = Literal["low", "medium", "high", "critical"]
"""How urgent an alarm is: how bad what comes of it is, and how soon (IEC 62682, 8.4: three or four of them)."""

PRIORITIES: tuple[Priority, ...] = get_args(Priority)

AlarmKind = Literal["interlock", "alarm", "device-lost", "timeout", "no-value", "refused", "phase-failed", "phase-held",
                    "phase-late", "deadlock", "power-loss", "stood-still", "record", "differs"]  # fmt: skip
"""What can raise an alarm; `alarm` is one that an engineer has defined."""

Reaction = Literal["hold", "stop", "abort"]

Role = Literal["operator", "engineer"]
"""Who gives a command or an answer; an engineer may do all that an operator may."""


class Say(Form, frozen=True):
    """A text for people, by language."""

    en: Annotated[str | None, Meta(description="English")] = None
    fr: Annotated[str | None, Meta(description="French")] = None
    ar: Annotated[str | None, Meta(description="Arabic")] = None


class Watch(Form, frozen=True, kw_only=True):
    """A condition that is watched in every cycle, and tells when it comes and goes."""

    when: Annotated[Condition, Meta(description="Trips when this is true.", examples=["conveyor.weight > 40 kg"])]
    say: Annotated[Text | Say, Meta(description="The alarm's text.")]
    settle: Annotated[
        Seconds, Meta(description="How long the condition must have been true before it trips (on-delay).")
    ] = 0.0
    clears: Annotated[
        Expression | None,
        Meta(
            description="When it has cleared: a condition, or how long `when` must have been false (off-delay); at "
            "once when `when` is false if left out.",
            examples=["conveyor.weight < 35 kg", "5 s"],
        ),
    ] = None


class Interlock(Watch, frozen=True, kw_only=True):
    """A condition that must not be while the recipe, or the step, runs."""

    do: Annotated[Reaction, Meta(description="What the batch does then.")]
    grace: Annotated[
        Seconds, Meta(description="How long the condition may be unknown, since a value is bad, before it trips.")
    ] = 1.0
    priority: Annotated[Priority, Meta(description="Priority of its alarm; high if left out.")] = "high"


class CellInterlock(Interlock, frozen=True, kw_only=True):
    """A condition that must not be while one of its units is used."""

    units: Annotated[
        tuple[str, ...] | None,
        Meta(description="The units that it guards; those whose tags it reads if left out.", examples=[["mixer"]]),
    ] = None
    block: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="The outputs that nobody sets by hand meanwhile; all of its units if left out.",
            examples=[["mixer.inlet"]],
        ),
    ] = None


class Alarm(Watch, frozen=True, kw_only=True):
    """A condition that people are told of, and that acts on nothing."""

    priority: Annotated[Priority, Meta(description="How urgent it is; medium if left out.")] = "medium"
    latch: Annotated[bool, Meta(description="false: it goes by itself when it has cleared, acknowledged or not.")] = (
        True
    )


Moment = Literal["start", "restart", "resume"]


class Permissive(Form, frozen=True, kw_only=True):
    """What must be true before a batch starts or goes on."""

    must: Annotated[Condition, Meta(description="What must be true.", examples=["mixer.remote"])]
    say: Annotated[Text | Say, Meta(description="What must be, as people read it.", examples=["Mixer in remote"])]
    before: Annotated[
        tuple[Moment, ...], Meta(description="When it is asked; before start and restart if left out.", min_length=1)
    ] = ("start", "restart")


class UnexpectedRestart(Form, frozen=True):
    """Whether machines may start by themselves when power returns (IEC 60204-1, 7.5; ISO 12100, ISO 14118)."""

    allowed: Annotated[
        Text,
        Meta(
            description="Why nobody can come to harm by it; it permits `after_power_loss: resume`.",
            examples=["The cell is fenced and its gate is locked (risk assessment 12, 4.2)"],
        ),
    ]
