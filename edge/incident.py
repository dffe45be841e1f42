"""A batch of the journal as a recipe test: what it was started with, what happened to it and when, how it ended.

A test runs on the plant's model, which is not the plant: what happened is told by the steps that it happened in.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from drivers.value import Value
from edge import record
from edge.engine.states import ENDED
from edge.journal import Cycle, Gap, Header, read_journal
from edge.messages import (
    MESSAGE,
    AlarmCleared,
    AlarmRaised,
    Answered,
    Asked,
    BatchStarted,
    Command,
    CommandDone,
    Event,
    StateChanged,
    StepStarted,
    unpack_events,
    unpack_inward,
)

COMMANDS = frozenset({"hold", "restart", "pause", "resume", "stop", "abort"})
RESTS = ENDED | {"held", "paused"}


class Happening(msgspec.Struct):
    """Something that happened: the step that began last before it ("": none), how long after that, what, when
    (s since 1970), how long.
    """

    step: str
    after_s: float
    what: str
    at_s: float
    for_s: float | None = None

    def __str__(self) -> str:
        moment = f"step: {_text(self.step)}, after: {_seconds(self.after_s)}" if self.step else "at: 0 s"
        lasts = f", for: {_seconds(max(0.1, self.for_s))}" if self.for_s is not None else ""
        return f"{{{moment}, {self.what}{lasts}}}"


class Incident:
    """What a journal tells of a batch."""

    def __init__(self, batch: str) -> None:
        self.batch = batch
        self.started: BatchStarted | None = None
        self.began_s = self.now_s = 0.0
        self.state = "idle"
        self.step, self.step_s = "", 0.0
        self.steps: dict[int, str] = {}
        self.asked: dict[int, Asked] = {}
        self.answers: dict[str, Value] = {}
        self.happenings: list[Happening] = []
        self.lost: dict[int, Happening] = {}
        self.alarms: list[str] = []
        self.gap = False

    def begin(self, header: Header) -> None:
        """Another life of the loop: for a batch that stood in it edge was without power."""
        if self.started is not None and self.state not in ENDED:
            for one in self.lost.values():
                one.for_s = header.run / 1e9 - one.at_s
            self._happens("cut: power").for_s = header.run / 1e9 - self.now_s
        self.lost.clear()

    def take(self, header: Header, cycle: Cycle) -> None:
        """One cycle."""
        if self.started is None and self.batch.encode() not in cycle.events:
            return
        self.now_s = (header.run + cycle.cycle * header.scan_ns) / 1e9
        if self.state in ENDED:
            return
        events = unpack_events(cycle.events)
        done = {event.id for event in events if isinstance(event, CommandDone) and event.ok}
        for command in _commands(cycle):
            if command.batch == self.batch and command.do in COMMANDS and command.id in done:
                self._happens(f"command: {command.do}")
        for event in events:
            self._event(event)

    def _happens(self, what: str) -> Happening:
        self.happenings.append(Happening(self.step, self.now_s - self.step_s, what, self.now_s))
        return self.happenings[-1]

    def _event(self, event: Event) -> None:
        match event:
            case BatchStarted(batch=self.batch):
                self.started, self.began_s = event, self.now_s
            case StateChanged(batch=self.batch):
                self.state = event.state
            case StepStarted(batch=self.batch):
                if event.name not in self.steps.values():
                    self.step, self.step_s = event.name, self.now_s
                self.steps[event.step] = event.name
            case Asked(batch=self.batch):
                self.asked[event.prompt] = event
            case Answered(batch=self.batch) if event.by != "recipe" and event.prompt in self.asked:
                step = self.steps.get(self.asked[event.prompt].step, "")
                self.answers[event.name or step] = event.value
            case AlarmRaised() if self.started is not None and (event.batch == self.batch or event.device):
                self.alarms += [event.kind] if event.kind not in self.alarms else []
                if event.kind == "device-lost":
                    self.lost[event.alarm] = self._happens(f"lost: {event.device}")
            case AlarmCleared() if event.alarm in self.lost:
                happening = self.lost.pop(event.alarm)
                happening.for_s = self.now_s - happening.at_s
            case _:
                pass

    def complete(self, path: Path) -> None:
        """Adds what the record has of answers and alarms that a gap in the journal has swallowed."""
        with suppress(record.NoRecord):
            found = record.batch(path, self.batch)
            self.alarms += [one for one in dict.fromkeys(one.kind for one in found.alarms) if one not in self.alarms]
            for question in found.questions:
                name = question.name or self.steps.get(question.step, "")
                if name and question.value is not None and question.by != "recipe":
                    self.answers.setdefault(name, question.value)

    def test(self) -> Iterator[str]:
        """The lines of the test file."""
        started = self.started
        assert started is not None
        yield f"# What happened to batch {self.batch}, from the journal: times count from the first start of the step."
        if self.gap:
            yield "# The journal has a gap in it: commands and losses of that time are not here."
        yield f"recipe: {started.recipe}"
        yield "tests:"
        yield f"  What happened to batch {self.batch}:"
        given = {name: _value(value, started.units.get(name, "")) for name, value in started.parameters.items()}
        for key, values in (("parameters", given), ("answers", {_text(n): _value(v) for n, v in self.answers.items()})):
            if values:
                yield f"    {key}: {{{', '.join(f'{name}: {value}' for name, value in values.items())}}}"
        if self.happenings:
            yield "    happens:"
            yield from (f"      - {one}" for one in self.happenings)
        ends = [f"state: {self.state}"] if self.state in RESTS else []
        ends += [f"by: {1.5 * (self.now_s - self.began_s) + 60:.0f} s"]
        ends += [f"alarms: [{', '.join(self.alarms)}]"] if self.alarms else []
        yield f"    ends: {{{', '.join(ends)}}}"


def _commands(cycle: Cycle) -> Iterator[Command]:
    for packet in cycle.inputs:
        if packet[0] == MESSAGE:
            try:
                message = unpack_inward(packet)
            except msgspec.MsgspecError:
                continue
            if isinstance(message, Command):
                yield message


def _text(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _value(value: Value, unit: str = "") -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else f"{value:.10g} {unit}".rstrip()


def _seconds(seconds: float) -> str:
    return f"{max(0.0, seconds):.2f} s"


def test_of(state_dir: Path, batch: str) -> str:
    """The test file of a batch, of the last one that began where it is "". Raises LookupError where there is none."""
    incident: Incident | None = Incident(batch) if batch else None
    header: Header | None = None
    for item in read_journal(state_dir):
        if isinstance(item, Header):
            header = item
            if incident is not None:
                incident.begin(item)
        elif isinstance(item, Gap) and incident is not None and incident.started is not None:
            incident.gap |= incident.state not in ENDED
        elif isinstance(item, Cycle) and header is not None:
            began = None if batch else next(_began(item), None)
            incident = Incident(began) if began else incident
            if incident is not None:
                incident.take(header, item)
    if incident is None or incident.started is None:
        raise LookupError(f"the journal in {state_dir} has no start of {f'a batch {batch}' if batch else 'a batch'}")
    incident.complete(state_dir / record.FILE)
    return "\n".join([*incident.test(), ""])


def _began(cycle: Cycle) -> Iterator[str]:
    """The batches that began in a cycle."""
    if b"batch-started" in cycle.events:
        yield from (event.batch for event in unpack_events(cycle.events) if isinstance(event, BatchStarted))
