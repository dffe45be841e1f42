"""A plan, and the commits of a whole batch, for the tests of the record and of its process."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from drivers.value import TYPES
from edge.language.cell import Cell, Tag
from edge.language.program import Parameter, Plan, Recipe
from edge.messages import (
    AlarmAcknowledged,
    AlarmCleared,
    AlarmRaised,
    Answered,
    Asked,
    BatchRemoved,
    BatchStarted,
    Commit,
    Event,
    Recorded,
    StateChanged,
    StepEnded,
    StepStarted,
    TagSet,
)

RUN = 1_795_514_400_000_000_000
BATCH = "20261124-101530"
START = datetime(2026, 11, 24, 10, 15, 30, tzinfo=UTC)
_START_NS = int(START.timestamp()) * 1_000_000_000
TEXT = "recipe: rinse-and-fill\n# agité à 120 rpm\n"


def plan_in(folder: Path) -> Plan:
    """A cell with a scan of 10 ms and one recipe, and their files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cell.yaml").write_text("cell: bottling\n")
    file = folder / "rinse-and-fill.yaml"
    file.write_text(TEXT)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    tag = Tag(0, "mixer.level", 0, "input:0", TYPES["float32"], "L")
    cell = Cell("bottling", str(folder / "cell.yaml"), 10_000_000, (), (tag,), {}, {})
    recipe = Recipe(
        name="rinse-and-fill",
        file=str(file),
        hash=digest,
        uses=(),
        devices=(),
        parameters=(Parameter("volume", "number", "L"), Parameter("label", "text")),
        variables=("volume", "label"),
        steps=(),
        body=(),
        handlers={},
        interlocks=(),
        inputs=(),
        outputs=(),
        text=TEXT,
    )
    return Plan(cell, (), {"rinse-and-fill": recipe})


OVERLOAD = {"en": "Scale overloaded", "fr": "Balance en surcharge", "ar": "الميزان محمّل أكثر من اللازم"}
PARAMETERS = {"volume": 20.0, "label": "été"}
QUESTION = {"en": "Is the label straight?", "fr": "L'étiquette est-elle droite ?"}


def batch_events(plan: Plan, batch: str = BATCH) -> list[tuple[float, list[Event]]]:
    """A whole batch: (seconds since its start, the events of one commit)."""
    digest = plan.recipes["rinse-and-fill"].hash
    ask = Asked(batch, 3, 4, QUESTION, "choice", "label_ok", ("yes", "no"))
    return [
        (
            0,
            [
                BatchStarted(
                    batch, "rinse-and-fill", digest, {"volume": 20.0, "label": "été"}, "amira", {"volume": "L"}
                ),
                StateChanged(batch, "idle", "running", "start by amira", "amira"),
                StepStarted(batch, 0, "Fill"),
            ],
        ),
        (4, [AlarmRaised(1, "interlock", OVERLOAD, batch, "conveyor", "conveyor.weight", priority="high")]),
        (4, [StateChanged(batch, "running", "holding", "Scale overloaded", "interlock")]),
        (4.5, [StateChanged(batch, "holding", "held", "Scale overloaded", "interlock")]),
        (9, [AlarmCleared(1), AlarmAcknowledged(1, "yusuf")]),
        (10, [StateChanged(batch, "held", "restarting", "restart by yusuf", "yusuf")]),
        (10.1, [StateChanged(batch, "restarting", "running", "the plant is as it was", "edge")]),
        (16.25, [StepEnded(batch, 0, "Fill", "done", 1025), StepStarted(batch, 2, "wait", "stir")]),
        (16.25, [StepStarted(batch, 3, "robot.pick", "bring")]),
        (21, [StepEnded(batch, 3, "robot.pick", "timeout", 475, "bring")]),
        (96.25, [StepEnded(batch, 2, "wait", "done", 8000, "stir"), StepStarted(batch, 4, "ask"), ask]),
        (99, [Answered(batch, 3, "yes", "amira", "label_ok"), StepEnded(batch, 4, "ask", "done", 275)]),
        (99, [Recorded(batch, 5, "filled", 19.983471234, "L"), Recorded(batch, 5, "bottles", 240)]),
        (99.5, [StateChanged(batch, "running", "complete", "all steps done", "recipe")]),
        (120, [StateChanged(batch, "complete", "idle", "reset", "amira"), BatchRemoved(batch)]),
        (121, [TagSet("conveyor.lamp", True, "yusuf")]),
    ]


def commits(events: list[tuple[float, list[Event]]], first: int = 1) -> list[tuple[int, Commit]]:
    """(time, commit) for each; a batch is unfinished from its first commit to the one that ends it."""
    made: list[tuple[int, Commit]] = []
    for number, (seconds, several) in enumerate(events, first):
        batches: dict[str, bytes] = {}
        for event in several:
            name = getattr(event, "batch", "")
            ended = isinstance(event, StateChanged) and event.state in ("complete", "stopped", "aborted")
            if name and seconds < 100:
                batches[name] = b"" if ended else b"state of %s at %d" % (name.encode(), number)
        made.append(
            (_START_NS + int(seconds * 1e9), Commit(number, 1000 + int(seconds * 100), tuple(several), batches))
        )
    return made
