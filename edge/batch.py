"""The engine's state as data: batches with their branches, alarms, the latched image. All of it is msgpack at any time.

Tags are meant by index, steps by their index in the recipe, times in cycles.
"""

import msgspec

from drivers.value import Value
from edge.language.program import Texts
from edge.language.rules import AlarmKind, Priority
from edge.messages import Asked, DeviceReport


class Instance(msgspec.Struct, omit_defaults=True):
    """What a function block remembers. `clock` is that of its batch, its handler or the cell when it was last called.

    `since` is the clock since which its condition is true, its number stays within the band (`low` to `high` so far)
    or has been good, or it began; -1: not so now. `cycles` is its time, `band` its band. `last` is the input of an
    edge in the last cycle. An average has `parts` (number, sum, weight), of which all but the last are in `total`.
    """

    clock: int
    since: int = -1
    cycles: int = 0
    band: float = 0.0
    last: Value | None = None
    low: float = 0.0
    high: float = 0.0
    parts: list[tuple[int, float, int]] = []
    total: tuple[float, int] = (0.0, 0)


class Slope(msgspec.Struct, frozen=True):
    """An output on its way: from `start` to `end`, in the tag's unit, at `rate` a second, begun when the clock was
    `since`.
    """

    start: float
    end: float
    rate: float
    since: int

    def at(self, seconds: float) -> float:
        """Its value so long after it has begun: a closed form, so that no error adds up."""
        way = self.end - self.start
        gone = self.rate * seconds
        if gone >= abs(way):
            return self.end
        return self.start + gone if way > 0 else self.start - gone


class BranchState(msgspec.Struct, omit_defaults=True):
    """One branch of control: the block it runs and where it stands in it.

    `path` are the names of the parallels' branches around it, its own last, joined by `/`; "" in the recipe's body.
    `at` is the step that is active or next, `entered` how many steps from the block's start have been entered (their
    start is recorded), `needs` the commit that must be durable before the step at `at` begins, `begun` that it has.
    `since` is the clock when it began, `limit` its time limit, `wait` its waiting time; `stage` and `rounds` are the
    step's own: how far a phase or pulse has come, how often a loop went round; `slopes` the outputs that a ramp moves.
    `offer` is how the step at `at` stands in semi-automatic mode: 0 not asked for, 1 waits to be confirmed, 2 is
    confirmed. `instances` are the function blocks of all that is active, by their result; the body or handler has them,
    none of its branches.
    """

    block: tuple[int, ...]
    path: str = ""
    at: int = 0
    entered: int = 0
    needs: int = 0
    begun: bool = False
    since: int = 0
    limit: int = -1
    wait: int = 0
    stage: int = 0
    rounds: int = 0
    prompt: int = 0
    offer: int = 0
    during: dict[int, Value] = {}
    slopes: dict[int, Slope] = {}
    children: list["BranchState"] = []
    instances: dict[int, Instance] = {}


class PhaseRun(msgspec.Struct, omit_defaults=True):
    """A run of an equipment phase by a `do` step (ISA-88).

    `state` is how it stands, in ISA-88's words: idle until its start is given; `resuming` after a hold or a power loss,
    until what the machine says has been looked at. `stage` is how far the command has come that leads out of its state,
    `since` the cycle in which that began, `needs` the commit that must be durable before it is given. `started`: its
    start was to be given; `confirmed`: the machine has taken it; `fresh` are what was seen untrue since, bit by bit.
    `left`: its step is no longer active. `levels` are what it gives.
    """

    phase: int
    state: str = "idle"
    stage: int = 0
    since: int = 0
    needs: int = 0
    fresh: int = 0
    started: bool = False
    confirmed: bool = False
    left: bool = False
    levels: dict[int, Value] = {}


class Mark(msgspec.Struct, omit_defaults=True):
    """A watched condition that is not at rest: whether it `stands`, and the cycles since which it has been true (before
    it stands) or over (while it stands), and unknown; -1: it is not.
    """

    stands: bool = False
    since: int = -1
    unknown: int = -1


class BatchState(msgspec.Struct, omit_defaults=True):
    """One control recipe (ISA-88): its state, mode, variables, clock (cycles while it acts), the levels that it gives.

    A level is taken from `manual` (what a person has set in manual mode), else `commanded` (by a phase), else `during`
    (while it acts), else `pulsed` (a pulse of a handler), `handler`, `set`, the tag's failsafe. `needs` is the
    commit that must be durable before it acts; `cause_say` says why it is in its state. After a power loss it is `safe`
    until a restart is through: what its steps had set stays at failsafe; and `barred` until it is commanded: what its
    handlers set does too (no unexpected start-up, IEC 60204-1, 7.5). What is meant by index in it counts only with the
    recipe of this `hash` and the tags of this checksum (0: of an older edge).

    `notices` are the steps, by index, whose alarm nobody has acknowledged.

    `marks` are the interlocks that are not at rest, by their places in the recipe, `armed` those of active steps.


    `handled` is the cycle in which the state's own work began, its handler or the wait before it.

    `blind` are the steps, by index, that wait for a value that is unknown, and the clock when that began. `instances`
    are the function blocks of its interlocks. `phases` are the equipment phases that run, each by its step, `commanded`
    the levels that they give. `units` are those that steps have acquired, `asked` the steps, by index, that wait for
    some, each with the number of its turn.
    """

    batch: str
    recipe: str
    hash: str
    by: str
    tags: int = 0
    state: str = "idle"
    mode: str = "automatic"
    cause_say: Texts = {}
    variables: list[Value | None] = []
    clock: int = 0
    needs: int = 0
    safe: bool = False
    barred: bool = False
    set: dict[int, Value] = {}
    handler: dict[int, Value] = {}
    pulsed: dict[int, Value] = {}
    during: dict[int, Value] = {}
    manual: dict[int, Value] = {}
    commanded: dict[int, Value] = {}
    phases: dict[int, PhaseRun] = {}
    body: BranchState | None = None
    handling: BranchState | None = None
    handled: int = 0
    units: list[str] = []
    asked: dict[int, int] = {}
    prompts: dict[int, Asked] = {}
    answers: dict[int, Value] = {}
    notices: list[int] = []
    marks: dict[int, Mark] = {}
    armed: list[int] = []
    blind: dict[int, int] = {}
    instances: dict[int, Instance] = {}


class Shelf(msgspec.Struct, frozen=True):
    """An alarm is shelved: by whom, why, until which cycle."""

    by: str
    why: str
    until: int


class Alarm(msgspec.Struct, frozen=True):
    """An alarm that is raised, or cleared and not yet acknowledged, or shelved. `detail` is for a technician.

    The states of ISA-18.2: unacknowledged (active), acknowledged (active and acknowledged), returned to normal
    unacknowledged (not active), shelved. One that is normal is not here.
    """

    alarm: int
    kind: AlarmKind
    say: Texts
    cycle: int
    batch: str = ""
    device: str = ""
    tag: str = ""
    detail: str = ""
    active: bool = True
    acknowledged: bool = False
    priority: Priority = "medium"
    key: str = ""
    latch: bool = True
    shelved: Shelf | None = None


class State(msgspec.Struct):
    """Everything that the engine knows. `values` are None where the status is not good, and followed by the ages of
    those tags whose age is asked for; `held` has the cycle in which each of these was last said to hold. `levels` are
    the desired ones.

    `seen` is the cycle of each device's last frame, `reports` the last that was said of it, `manual` what a person has
    set on outputs that no batch owns, `acked` the last durable commit, `behind_since` the cycle since which a newer one
    waits, `owners` the batch of each acquired unit, `alarm_keys` the active alarm of each thing that can raise one,
    `unshelve` the cycle in which the next shelved alarm comes back (0: none is shelved), `marks` the cell's interlocks
    and alarms that are not at rest, by their places in the plan, interlocks first, `versions` the hash of each recipe
    that was revised since the start ("": it was withdrawn).
    """

    cycle: int
    values: list[Value | None]
    statuses: list[int]
    seen: list[int]
    up: list[bool]
    reports: list[DeviceReport]
    levels: list[Value | None]
    manual: dict[int, Value]
    batches: dict[str, BatchState]
    alarms: dict[int, Alarm]
    alarm_keys: dict[str, int]
    owners: dict[str, str]
    next_alarm: int = 1
    next_prompt: int = 1
    next_turn: int = 1
    next_commit: int = 1
    acked: int = 0
    behind_since: int = 0
    unshelve: int = 0
    held: dict[int, int] = {}
    marks: dict[int, Mark] = {}
    versions: dict[str, str] = {}
