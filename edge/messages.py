"""What the processes tell one another beside the cyclic frames of `image.py`: commands, reports, events, commits.

A packet's first byte is its kind. Kind MESSAGE is followed by msgpack of one of the tagged Structs here.
"""

from typing import Any

import msgspec

from drivers.value import Value
from edge.language.program import Texts
from edge.language.rules import AlarmKind, Priority, Role

MESSAGE = 0

# --- into the loop: with the input frames all that can influence an output -----------------------------------------


class DeviceReport(msgspec.Struct, frozen=True, tag="device"):
    """A fieldbus process says that a device came or went; `text` and `hint` are for a technician."""

    device: int
    up: bool
    status: int
    text: str = ""
    hint: str = ""


class TagReport(msgspec.Struct, frozen=True, tag="tag"):
    """Tags that a device refuses to give or to take for one reason: the first, the `others`; good when that is over.

    `write`: it was a write.
    """

    tag: int
    status: int
    text: str = ""
    write: bool = False
    others: tuple[int, ...] = ()


class Command(msgspec.Struct, frozen=True, tag="command"):
    """An operator's command. `do` is start, hold, restart, pause, resume, stop, abort, reset (ISA-88), mode, confirm,
    answer, set, acknowledge, shelve or unshelve (ISA-18.2); `id` comes back in CommandDone. Which other fields count
    depends on `do`; `cause` is for the record, where there is more to say than who gave it, `seconds` how long to
    shelve, `step` the index of the step that is confirmed (-1: none), `role` who gives it. It is obeyed in the
    cycles from `since` to `until`; 0: in any.
    """

    id: int
    do: str
    by: str
    batch: str = ""
    recipe: str = ""
    parameters: dict[str, Value] = {}
    prompt: int = 0
    tag: str = ""
    value: Value | None = None
    alarm: int = 0
    cause: str = ""
    seconds: float = 0.0
    since: int = 0
    until: int = 0
    mode: str = ""
    step: int = -1
    role: Role = "operator"


class Revision(msgspec.Struct, frozen=True, tag="revision"):
    """A version of a recipe that new batches are to run from now on, or, where nothing is `packed`, that none is to.

    `packed` is of `edge.language.parcel`, for this Python; `text` the file's, from which any other can make it again.
    It is answered as a Command is, and obeyed in the same bounds.
    """

    id: int
    by: str
    recipe: str
    packed: bytes = b""
    text: str = ""
    since: int = 0
    until: int = 0


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    """The recorder has made every commit up to and including `commit` durable."""

    commit: int


class Restore(msgspec.Struct, frozen=True, tag="restore"):
    """A batch as its last commit left it (msgpack of the engine's batch state), after a restart of the loop."""

    batch: bytes


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """A process has (re)started: it wants the snapshot, the unacknowledged commits, or its output frames again."""

    name: str


Inward = DeviceReport | TagReport | Command | Revision | Ack | Restore | Hello

# --- out of the loop: what happened, for the record and for whoever watches ------------------------------------------


class BatchStarted(msgspec.Struct, frozen=True, tag="batch-started"):
    """A batch runs this version of a recipe. `units` are those of its parameters, by name, `lot` and `order` the
    numbers that it asks for.
    """

    batch: str
    recipe: str
    hash: str
    parameters: dict[str, Value]
    by: str
    units: dict[str, str] = {}
    lot: str = ""
    order: str = ""


class StateChanged(msgspec.Struct, frozen=True, tag="state"):
    """An ISA-88 state change; `by` a person, `interlock`, `device`, `recipe` or `edge`.

    `cause` is in English, as terminal and record have it, `cause_say` in the languages of the floor.
    """

    batch: str
    before: str
    state: str
    cause: str
    by: str
    cause_say: Texts = {}


class BatchRemoved(msgspec.Struct, frozen=True, tag="batch-removed"):
    """An ended batch was reset: the loop has forgotten it, the record has not."""

    batch: str


class ModeChanged(msgspec.Struct, frozen=True, tag="mode"):
    """A batch's mode (ISA-88) is another: automatic, semi-automatic or manual."""

    batch: str
    before: str
    mode: str
    by: str


class StepWaits(msgspec.Struct, frozen=True, tag="step-waits"):
    """In semi-automatic mode: a step waits to be confirmed, or (`waits` False) does so no longer."""

    batch: str
    step: int
    name: str
    branch: str = ""
    waits: bool = True


class StepConfirmed(msgspec.Struct, frozen=True, tag="step-confirmed"):
    """A person has confirmed a step that waited for it in semi-automatic mode."""

    batch: str
    step: int
    name: str
    by: str
    branch: str = ""


class StepStarted(msgspec.Struct, frozen=True, tag="step-started"):
    """`branch` is the path of branch names of the parallels around it, joined by `/`; "" for the recipe's own body."""

    batch: str
    step: int
    name: str
    branch: str = ""


class StepEnded(msgspec.Struct, frozen=True, tag="step-ended"):
    """`how` is done, timeout or cut (by a stop or abort); `active` the cycles that its clock ran."""

    batch: str
    step: int
    name: str
    how: str
    active: int
    branch: str = ""


class PhaseChanged(msgspec.Struct, frozen=True, tag="phase"):
    """The equipment phase of a `do` step is in this state, in ISA-88's words, or is commanded into it."""

    batch: str
    step: int
    phase: str
    state: str


class UnitsAsked(msgspec.Struct, frozen=True, tag="units-asked"):
    """A step waits for units; of those that wait for one, the lowest `turn` has it first."""

    batch: str
    step: int
    units: tuple[str, ...]
    turn: int


class UnitsTaken(msgspec.Struct, frozen=True, tag="units-taken"):
    """A step has acquired what it waited for."""

    batch: str
    step: int
    units: tuple[str, ...]


class UnitsReleased(msgspec.Struct, frozen=True, tag="units-released"):
    """A step has given units back: their outputs go to failsafe."""

    batch: str
    step: int
    units: tuple[str, ...]


class Recorded(msgspec.Struct, frozen=True, tag="recorded"):
    batch: str
    step: int
    name: str
    value: Value
    unit: str = ""


class VariableSet(msgspec.Struct, frozen=True, tag="variable-set"):
    """A step has given a variable its value: `let`, a loop over values, `first`."""

    batch: str
    step: int
    name: str
    value: Value
    unit: str = ""


class Asked(msgspec.Struct, frozen=True, tag="asked"):
    """A question is open. `kind` is confirm, choice, number or text; `name` the variable that the answer fills.

    `labels` are the texts to show for the answers of a choice, `who` may answer.
    """

    batch: str
    prompt: int
    step: int
    say: Texts
    kind: str
    name: str = ""
    answers: tuple[str, ...] = ()
    unit: str = ""
    low: float | None = None
    high: float | None = None
    labels: dict[str, Texts] = {}
    who: Role = "operator"


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """`by` a person, in a `role` of theirs, or `recipe`: nobody has answered in time, and its default counts.

    `label` is the text of the answer that was chosen, where it has one.
    """

    batch: str
    prompt: int
    value: Value
    by: str
    name: str = ""
    role: Role = "operator"
    label: Texts = {}


class AlarmRaised(msgspec.Struct, frozen=True, tag="alarm-raised"):
    """`kind` is an AlarmKind. `say` is for the operator; `detail` the driver's own text and hint, for a technician.

    `key` names what has raised it: it is the same when that raises one again. One that does not `latch` needs no
    acknowledgement to go.
    """

    alarm: int
    kind: AlarmKind
    say: Texts
    batch: str = ""
    device: str = ""
    tag: str = ""
    detail: str = ""
    priority: Priority = "medium"
    key: str = ""
    latch: bool = True


class AlarmChanged(msgspec.Struct, frozen=True, tag="alarm-changed"):
    """An active alarm has another reason now; the record keeps the first."""

    alarm: int
    say: Texts
    detail: str = ""


class AlarmCleared(msgspec.Struct, frozen=True, tag="alarm-cleared"):
    alarm: int


class AlarmAcknowledged(msgspec.Struct, frozen=True, tag="alarm-acknowledged"):
    alarm: int
    by: str


class AlarmShelved(msgspec.Struct, frozen=True, tag="alarm-shelved"):
    """A person takes an alarm off the list until a cycle, and says why (ISA-18.2, 11.7)."""

    alarm: int
    by: str
    why: str
    until: int


class AlarmUnshelved(msgspec.Struct, frozen=True, tag="alarm-unshelved"):
    """A shelved alarm is back on the list: `by` a person, or `edge` when its time is over."""

    alarm: int
    by: str


class TagSet(msgspec.Struct, frozen=True, tag="tag-set"):
    """A person set an output that no batch owns, or one of a `batch` in manual mode."""

    tag: str
    value: Value
    by: str
    batch: str = ""


class RecipeRevised(msgspec.Struct, frozen=True, tag="recipe-revised"):
    """Another version of a recipe is in force: new batches run it. `hash` "": the recipe was withdrawn."""

    recipe: str
    hash: str
    by: str
    text: str = ""


class CommandDone(msgspec.Struct, frozen=True, tag="command-done"):
    """The answer to a Command. `batch` is the one that it was about.

    Where it was refused `text` says why in English, `say` in the languages of the floor.
    """

    id: int
    ok: bool
    text: str = ""
    batch: str = ""
    say: Texts = {}


Event = (
    BatchStarted
    | StateChanged
    | BatchRemoved
    | ModeChanged
    | StepWaits
    | StepConfirmed
    | StepStarted
    | StepEnded
    | PhaseChanged
    | UnitsAsked
    | UnitsTaken
    | UnitsReleased
    | Recorded
    | VariableSet
    | Asked
    | Answered
    | AlarmRaised
    | AlarmChanged
    | AlarmCleared
    | AlarmAcknowledged
    | AlarmShelved
    | AlarmUnshelved
    | TagSet
    | RecipeRevised
    | CommandDone
)


class Commit(msgspec.Struct, frozen=True, tag="commit"):
    """To the recorder: the events of one cycle that must be durable, and the state of the batches they changed.

    `batches` maps a batch to msgpack of its state for Restore; empty bytes: it has ended, there is nothing to restore.
    Numbers rise by one; the recorder keeps each once, however often it is sent.
    """

    commit: int
    cycle: int
    events: tuple[Event, ...]
    batches: dict[str, bytes] = {}


class Times(msgspec.Struct, frozen=True, array_like=True):
    """How long something took, often: counts per bucket of BOUNDS_S (the last is the rest), and the sum in s."""

    counts: tuple[int, ...] = ()
    sum_s: float = 0.0


class LoopStats(msgspec.Struct, frozen=True, tag="loop-stats"):
    """The loop's own figures since its start. `ages` are those of each device's input frames when they were latched,
    `cpu_max_s` the most processor time that a cycle took.
    """

    cycle: int
    overruns: int
    lateness: Times
    duration: Times
    dropped: int
    ages: tuple[Times, ...] = ()
    cpu_max_s: float = 0.0


class DeviceStats(msgspec.Struct, frozen=True, tag="device-stats"):
    """A device's figures since its fieldbus process started. `scan` is how long scans took, `reaction` how long it was
    from changed inputs' arrival to the device's confirmation of the outputs that changed with them.
    """

    device: int
    up: bool
    scans: int
    errors: int
    writes: int
    scan: Times
    reaction: Times = Times()


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """All that a newcomer must know: the engine's state (msgpack of `engine.State`) at a cycle."""

    cycle: int
    state: bytes


Outward = Commit | LoopStats | DeviceStats | Snapshot

BOUNDS_S = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0)
"""Upper bounds of the histograms' buckets, in seconds."""

_encoder = msgspec.msgpack.Encoder()
_inward: "msgspec.msgpack.Decoder[Inward]" = msgspec.msgpack.Decoder(Inward)
_outward: "msgspec.msgpack.Decoder[Outward]" = msgspec.msgpack.Decoder(Outward)
_events: "msgspec.msgpack.Decoder[tuple[Event, ...]]" = msgspec.msgpack.Decoder(tuple[Event, ...])


def pack(message: Inward | Outward) -> bytes:
    """One message as a packet."""
    return b"\x00" + _encoder.encode(message)


def unpack_inward(packet: bytes) -> Inward:
    """A packet of kind MESSAGE to the loop. Raises msgspec.DecodeError or ValidationError for any other bytes."""
    return _inward.decode(memoryview(packet)[1:])


def unpack_outward(packet: bytes) -> Outward:
    """A packet of kind MESSAGE from the loop or a fieldbus process. Raises as `unpack_inward`."""
    return _outward.decode(memoryview(packet)[1:])


def pack_events(events: list[Any]) -> bytes:
    return _encoder.encode(events) if events else b""


def unpack_events(data: bytes) -> tuple[Event, ...]:
    return _events.decode(data) if data else ()
