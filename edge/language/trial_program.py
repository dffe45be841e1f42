"""A checked recipe test as `trial.py` runs it: times in scan cycles, conditions as code. `trial_plan.py` makes it."""

import msgspec

from drivers.value import Value
from edge.language.program import Code, FunctionBlock
from edge.language.source import Place
from edge.language.trial_file import What


class Moment(msgspec.Struct, frozen=True):
    """So many cycles after the start, or after `when` is true or one of `steps` begins, for the first time."""

    cycles: int
    when: Code | None = None
    tags: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()


class Condition(msgspec.Struct, frozen=True):
    """A condition over the plant's tags and the recipe's variables, with its text, its place and the tags it reads."""

    code: Code
    text: str
    place: Place
    tags: tuple[int, ...]


class Event(msgspec.Struct, frozen=True):
    """What happens at a moment. `target` is a tag or a device by index, as `what` has it; `cycles` None: for good.

    `value` is what a tag shows (None: where it is), `rate` its drift in its unit a second, `late` a delay in cycles.
    """

    moment: Moment
    what: What
    text: str
    place: Place
    target: int = 0
    value: Value | None = None
    rate: float = 0.0
    late: int = 0
    cycles: int | None = None
    command: str = ""
    answers: dict[str, Value] = {}


class Wish(msgspec.Struct, frozen=True):
    """What must come true: from `moment` on for `cycles`, or at just the moment where those are 0."""

    moment: Moment
    cycles: int
    text: str
    place: Place
    that: Condition | None = None
    state: str = ""


class Recording(msgspec.Struct, frozen=True):
    """What must be true of recorded values; `names` are those that it reads, after the recipe's variables by index."""

    that: Condition
    names: tuple[str, ...]


class Trial(msgspec.Struct, frozen=True):
    """One recipe test. `answers` are by the question's variable or its step, `limit` is in cycles.

    `recorded` are the names that the recipe records, by index after its variables; `ends` is where the end is said.
    `blocks` are the function blocks of the conditions, by index after the recipe's own.
    """

    name: str
    place: Place
    ends: Place
    recipe: str
    parameters: dict[str, Value]
    answers: dict[str, Value]
    events: tuple[Event, ...]
    wishes: tuple[Wish, ...]
    always: tuple[Condition, ...]
    recordings: tuple[Recording, ...]
    recorded: tuple[str, ...]
    state: str
    limit: int
    alarms: tuple[str, ...]
    blocks: tuple[FunctionBlock, ...] = ()

    @property
    def tags(self) -> frozenset[int]:
        """The tags that its conditions read."""
        wishes = [wish.that for wish in self.wishes if wish.that is not None]
        conditions = [*self.always, *wishes, *(one.that for one in self.recordings)]
        moments = [one.moment for one in (*self.events, *self.wishes)]
        return frozenset(tag for one in (*conditions, *moments) for tag in one.tags)
