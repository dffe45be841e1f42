"""The batch record as a person or a program reads it: aligned text, JSON."""

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from textwrap import wrap

import msgspec

from drivers.value import display
from edge.language.program import Texts
from edge.record import Action, AlarmEntry, Batch, Question, Shelving, StateChange, StepRun, Summary, batch, batches

WIDTH = 100
"""Columns that the text keeps to."""


def printed(
    path: Path,
    batch_id: str | None = None,
    form: str = "text",
    language: str = "en",
    *,
    lot: str = "",
    order: str = "",
) -> str:
    """A batch's record, or the list of batches (None), of a lot or an order perhaps; as text or `json`.

    Raises NoRecord.
    """
    if batch_id is None:
        listed = batches(path, lot=lot, order=order)
        if not listed and (lot or order) and form == "text":
            return "No batch of that has been recorded."
        return as_json(listed) if form == "json" else as_table(listed)
    whole = batch(path, batch_id)
    return as_json(whole) if form == "json" else as_text(whole, language)


def as_json(record: Batch | Sequence[Summary]) -> str:
    """A batch, or a list of them, as indented JSON; times in RFC 3339, UTC."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2).decode()


def as_table(summaries: Sequence[Summary], zone: tzinfo | None = None) -> str:
    """The list of batches as aligned text, times in `zone` (None: this machine's)."""
    if not summaries:
        return "No batch has been recorded yet."
    numbers = [number for number in ("lot", "order") if any(getattr(one, number) for one in summaries)]
    rows = [
        (
            one.id,
            f"{one.started.astimezone(zone):%Y-%m-%d %H:%M:%S}",
            _duration((one.ended - one.started).total_seconds()) if one.ended else "",
            one.state,
            one.by,
            str(one.version or ""),
            *(getattr(one, number) for number in numbers),
            one.recipe,
        )
        for one in summaries
    ]
    columns = ("batch", "started", "took", "state", "by", "version", *numbers, "recipe")
    return "\n".join(_table(columns, rows, indent=""))


def as_text(record: Batch, language: str = "en", zone: tzinfo | None = None) -> str:
    """The batch record as a person reads it: plain aligned text, times in `zone` (None: this machine's).

    `language` is that of questions, alarms and causes; English, or whatever there is, where they lack it.
    """
    clock = _Clock(record.started, zone)
    title = f"Batch record {_plain(record.id)}"
    lines = [title, "=" * _width(title), *_head(record, clock, language)]
    sections = (
        ("Parameters", ("name", "value"), [(one.name, display(one.value, one.unit)) for one in record.parameters]),
        ("Steps", ("started", "took", "step", "ended"), [_step_row(one, clock) for one in record.steps]),
        (
            "States",
            ("time", "from", "to", "by", "cause"),
            [(clock.at(one.time), one.before, one.state, one.by, _cause(one, language)) for one in record.states],
        ),
        (
            "Actions",
            ("time", "by", "action"),
            [(clock.at(one.time), one.by, _action(one)) for one in record.actions],
        ),
        (
            "Questions",
            ("asked", "answer", "by", "question"),
            [_question_row(one, clock, language) for one in record.questions],
        ),
        (
            "Values",
            ("time", "name", "value"),
            [(clock.at(one.time), one.name, display(one.value, one.unit)) for one in record.values],
        ),
        (
            "Alarms",
            ("raised", "cleared", "acknowledged", "priority", "kind", "alarm"),
            [_alarm_row(one, clock, language) for one in record.alarms],
        ),
        (
            "Shelved alarms",
            ("shelved", "by", "back", "why", "alarm"),
            [_shelving_row(one, clock, language) for one in record.shelvings],
        ),
    )
    for heading, columns, rows in sections:
        if rows:
            lines += ["", heading, *_table(columns, rows)]
    return "\n".join(lines)


class _Clock:
    """Times of a batch: the hour; the date too where it is not the day on which the batch began."""

    def __init__(self, started: datetime, zone: tzinfo | None) -> None:
        self.zone = zone
        self.day = started.astimezone(zone).date()

    def at(self, time: datetime) -> str:
        local = time.astimezone(self.zone)
        text = local.isoformat(" " if local.date() != self.day else "T", "milliseconds")[:23]
        return text if local.date() != self.day else text[11:]

    def whole(self, time: datetime) -> str:
        local = time.astimezone(self.zone)
        return f"{local:%Y-%m-%d %H:%M:%S} {local.tzname() or ''}".rstrip()


def _head(record: Batch, clock: _Clock, language: str) -> list[str]:
    causes = [cause for one in record.states if one.state == record.state and (cause := _cause(one, language))]
    state = f"{record.state}: {causes[-1]}" if causes else record.state
    rows = [
        ("Recipe", record.recipe),
        *([("Version", str(record.version))] if record.version else ()),
        ("SHA-256", record.hash),
        ("Cell", record.cell),
        *((name, number) for name, number in (("Lot", record.lot), ("Order", record.order)) if number),
        ("Started", f"{clock.whole(record.started)} by {record.by or 'nobody named'}"),
    ]
    if record.ended:
        took = _duration((record.ended - record.started).total_seconds())
        rows.append(("Ended", f"{clock.whole(record.ended)} after {took}"))
    rows.append(("State", state))
    return _aligned(rows, indent="")


def _step_row(step: StepRun, clock: _Clock) -> tuple[str, ...]:
    name = f"{step.branch}: {step.name}" if step.branch else step.name
    if step.duration_s is None or step.active_s is None or step.how is None:
        return clock.at(step.started), "", name, "not yet"
    held = step.duration_s - step.active_s
    how = step.how if held < 1 else f"{step.how}, its clock stood for {_duration(held)}"
    return clock.at(step.started), _duration(step.duration_s), name, how


def _question_row(question: Question, clock: _Clock, language: str) -> tuple[str, ...]:
    say = _say(question.say, language)
    if question.value is None:
        return clock.at(question.asked), "none", "", say
    answer = labelled(display(question.value, question.unit), question.label, language)
    role = f" ({question.role})" if question.role not in ("", "operator") else ""
    return clock.at(question.asked), answer, f"{question.by}{role}", say


def labelled(answer: str, label: Texts, language: str = "en") -> str:
    """An answer with its text, where that is another."""
    text = _say(label, language) if label else answer
    return answer if text.casefold() == answer.casefold() else f"{answer} ({text})"


def _action(action: Action) -> str:
    if action.what == "mode":
        return f"{action.name} mode"
    return f"confirmed {action.name}" if action.value is None else f"set {action.name} to {display(action.value)}"


def _alarm_row(alarm: AlarmEntry, clock: _Clock, language: str) -> tuple[str, ...]:
    cleared = clock.at(alarm.cleared) if alarm.cleared else "no"
    who = f"by {alarm.by}" if alarm.by else "no"
    say = _say(alarm.say, language)
    text = f"{say} [{alarm.detail}]" if alarm.detail else say
    return clock.at(alarm.raised), cleared, who, alarm.priority, alarm.kind, text


def _shelving_row(shelving: Shelving, clock: _Clock, language: str) -> tuple[str, ...]:
    back = f"{clock.at(shelving.ended)} by {shelving.ended_by}" if shelving.ended else "not yet"
    return clock.at(shelving.shelved), shelving.by, back, shelving.why, _say(shelving.say, language)


def _say(texts: Texts, language: str) -> str:
    return texts.get(language) or texts.get("en") or next(iter(texts.values()), "")


def _cause(change: StateChange, language: str) -> str:
    return _say(change.cause_say, language) or change.cause


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "  ") -> list[str]:
    return _aligned([columns, *rows], indent)


def _aligned(rows: Iterable[Sequence[str]], indent: str) -> list[str]:
    """Rows in columns as wide as they must be; the last column takes what is left of the line and wraps."""
    plain = [[_plain(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in list(zip(*plain, strict=True))[:-1]]
    left = len(indent) + sum(widths) + 2 * len(widths)
    lines: list[str] = []
    for *cells, last in plain:
        start = indent + "".join(
            cell + " " * (width - _width(cell) + 2) for cell, width in zip(cells, widths, strict=True)
        )
        for text in wrap(last, max(WIDTH - left, 30)) or [""]:
            lines.append((start + text).rstrip())
            start = " " * left
    return lines


def _plain(text: str) -> str:
    """Without control characters: nothing that was typed in moves the cursor of who reads it."""
    return "".join(" " if unicodedata.category(char) in _CONTROLS and char not in _JOINERS else char for char in text)


_CONTROLS = ("Cc", "Cf", "Zl", "Zp")
_JOINERS = "\u200c\u200d\u200e\u200f"
"""Arabic needs them: (non-)joiners, direction marks."""


def _width(text: str) -> int:
    """Columns that a terminal gives the text: none for a combining mark, two for a wide character (UAX #11)."""
    return sum(
        0 if unicodedata.combining(char) or char in _JOINERS else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )
