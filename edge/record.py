"""The batch record in SQLite: its schema, how it is read, and how a person reads it.

`recorder.py` writes it; here it is only read, while the daemon runs and when it does not. Times are UTC.
"""

import errno
import sqlite3
import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from textwrap import wrap
from typing import Any, TypeVar

import msgspec

from drivers.value import Value
from edge.program import Texts

FILE = "edge.db"
"""The batch record's name in the state directory."""

VERSION = 2
"""Of the schema; `PRAGMA user_version` of the file."""

UPGRADES = {
    1: """
BEGIN;
ALTER TABLE state_change ADD COLUMN cause_say TEXT NOT NULL DEFAULT '{}';
ALTER TABLE alarm ADD COLUMN detail TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 2;
COMMIT;
""",
}
"""From each older version to the next. An older file is read as it is, and upgraded by the first recorder."""

SCHEMA = f"""
BEGIN;
-- One life of the control loop. `run` is when it began; `committed` the last of its commits that is in this file.
CREATE TABLE run (
    run INTEGER PRIMARY KEY, cell TEXT NOT NULL, scan_ns INTEGER NOT NULL, edge TEXT NOT NULL,
    committed INTEGER NOT NULL) STRICT;
-- The text of every recipe that could be started, by the SHA-256 of its file.
CREATE TABLE recipe (hash TEXT PRIMARY KEY, name TEXT NOT NULL, text TEXT NOT NULL) STRICT;
-- All times are ns since 1970, UTC, when the recorder heard of it; `cycle` is the loop's, within its run.
-- Values, parameters and texts are JSON. `number` is what other tables mean by `batch`: a clock that was set back
-- can give one id twice.
CREATE TABLE batch (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, run INTEGER NOT NULL, cycle INTEGER NOT NULL, cell TEXT NOT NULL,
    recipe TEXT NOT NULL, hash TEXT NOT NULL, parameters TEXT NOT NULL, who TEXT NOT NULL, state TEXT NOT NULL,
    started INTEGER NOT NULL, ended INTEGER, reset INTEGER) STRICT;
CREATE INDEX batch_id ON batch (id);
CREATE TABLE state_change (
    batch INTEGER NOT NULL REFERENCES batch, run INTEGER NOT NULL, cycle INTEGER NOT NULL, time INTEGER NOT NULL,
    before TEXT NOT NULL, state TEXT NOT NULL, cause TEXT NOT NULL, who TEXT NOT NULL,
    cause_say TEXT NOT NULL DEFAULT '{{}}') STRICT;
CREATE INDEX state_change_batch ON state_change (batch);
CREATE TABLE step (
    batch INTEGER NOT NULL REFERENCES batch, run INTEGER NOT NULL, cycle INTEGER NOT NULL, step INTEGER NOT NULL,
    name TEXT NOT NULL, branch TEXT NOT NULL, started INTEGER NOT NULL, ended INTEGER, how TEXT,
    duration_ns INTEGER, active_ns INTEGER) STRICT;
CREATE INDEX step_batch ON step (batch, step);
CREATE TABLE recorded (
    batch INTEGER NOT NULL REFERENCES batch, run INTEGER NOT NULL, cycle INTEGER NOT NULL, time INTEGER NOT NULL,
    step INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, unit TEXT NOT NULL) STRICT;
CREATE INDEX recorded_batch ON recorded (batch);
CREATE TABLE question (
    batch INTEGER NOT NULL REFERENCES batch, run INTEGER NOT NULL, cycle INTEGER NOT NULL, prompt INTEGER NOT NULL,
    step INTEGER NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, say TEXT NOT NULL, unit TEXT NOT NULL,
    asked INTEGER NOT NULL, answered INTEGER, value TEXT, who TEXT) STRICT;
CREATE INDEX question_batch ON question (batch, prompt);
CREATE TABLE alarm (
    run INTEGER NOT NULL, alarm INTEGER NOT NULL, cycle INTEGER NOT NULL, batch INTEGER REFERENCES batch,
    kind TEXT NOT NULL, say TEXT NOT NULL, device TEXT NOT NULL, tag TEXT NOT NULL,
    raised INTEGER NOT NULL, cleared INTEGER, acknowledged INTEGER, who TEXT, detail TEXT NOT NULL DEFAULT '') STRICT;
CREATE INDEX alarm_number ON alarm (run, alarm);
CREATE INDEX alarm_batch ON alarm (batch);
CREATE TABLE tag_set (
    run INTEGER NOT NULL, cycle INTEGER NOT NULL, time INTEGER NOT NULL, tag TEXT NOT NULL, value TEXT NOT NULL,
    who TEXT NOT NULL) STRICT;
-- What a restart resumes from: each batch that has not ended, as its last commit left it.
CREATE TABLE unfinished (batch TEXT PRIMARY KEY, state BLOB NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""


class NoRecord(Exception):
    """The batch record cannot be used, or lacks what was asked for; the text is for a technician."""


class Parameter(msgspec.Struct, frozen=True):
    name: str
    value: Value
    unit: str = ""


class StateChange(msgspec.Struct, frozen=True):
    """`cause` is in English, `cause_say` in several languages (empty in records of an older edge)."""

    time: datetime
    before: str
    state: str
    cause: str
    by: str
    cause_say: Texts = {}


class StepRun(msgspec.Struct, frozen=True):
    """One run of a step. `how` is done, timeout or cut; `active_s` is how long its clock ran (it stands in a hold)."""

    step: int
    name: str
    branch: str
    started: datetime
    ended: datetime | None = None
    how: str | None = None
    duration_s: float | None = None
    active_s: float | None = None


class RecordedValue(msgspec.Struct, frozen=True):
    time: datetime
    step: int
    name: str
    value: Value
    unit: str


class AlarmEntry(msgspec.Struct, frozen=True):
    """`detail` is what the driver said when it was raised."""

    kind: str
    say: Texts
    device: str
    tag: str
    raised: datetime
    cleared: datetime | None = None
    acknowledged: datetime | None = None
    by: str | None = None
    detail: str = ""


class Question(msgspec.Struct, frozen=True):
    """A question to the operator and its answer; `answered`, `value` and `by` are None while there is none."""

    step: int
    name: str
    kind: str
    say: Texts
    unit: str
    asked: datetime
    answered: datetime | None = None
    value: Value | None = None
    by: str | None = None


class Summary(msgspec.Struct, frozen=True):
    """One line of the list of batches."""

    id: str
    recipe: str
    state: str
    by: str
    started: datetime
    ended: datetime | None = None


class Batch(msgspec.Struct, frozen=True):
    """The whole record of one batch. `hash` is the SHA-256 of the recipe's file, `recipe_text` what the file said."""

    id: str
    cell: str
    recipe: str
    hash: str
    by: str
    state: str
    started: datetime
    ended: datetime | None = None
    parameters: tuple[Parameter, ...] = ()
    steps: tuple[StepRun, ...] = ()
    states: tuple[StateChange, ...] = ()
    alarms: tuple[AlarmEntry, ...] = ()
    questions: tuple[Question, ...] = ()
    values: tuple[RecordedValue, ...] = ()
    recipe_text: str = ""


# --- reading ---------------------------------------------------------------------------------------------------------


def explain(error: Exception, path: Path) -> str:
    """Why the file cannot be used and what a technician does about it."""
    if isinstance(error, NoRecord):
        return str(error)
    name = getattr(error, "sqlite_errorname", "") or errno.errorcode.get(getattr(error, "errno", 0) or 0, "")
    for sign, reason in _REASONS:
        if sign in name:
            return reason.format(path=path, directory=path.parent)
    return f"{path} cannot be used ({error})"


_REASONS = (
    ("FULL", "the disk of {directory} is full: free some space"),
    ("ENOSPC", "the disk of {directory} is full: free some space"),
    ("EDQUOT", "the disk quota of {directory} is used up: free some space"),
    ("READONLY", "{path} is read-only: a worn SD card turns itself read-only; else see its owner and its mount"),
    ("EROFS", "the disk of {directory} is read-only: a worn SD card turns itself read-only; else see its mount"),
    ("IOERR", "the disk of {directory} gives errors: see `dmesg`, replace the card or the disk"),
    ("EFBIG", "the disk of {directory} takes no larger files: see the limits of the service and of the file system"),
    ("EIO", "the disk of {directory} gives errors: see `dmesg`, replace the card or the disk"),
    ("CORRUPT", "{path} is damaged: move it away and keep it, a new one will be made"),
    ("NOTADB", "{path} is damaged or no batch record: move it away and keep it, a new one will be made"),
    ("ENOENT", "{path} was moved or deleted while edge ran: a new one will be made"),
    ("BUSY", "{path} is locked by another program: close it"),
    ("CANTOPEN", "{path} cannot be opened: see the owner and the rights of {directory}"),
    ("EACCES", "{path} cannot be opened: see the owner and the rights of {directory}"),
    ("EPERM", "{path} cannot be opened: see the owner and the rights of {directory}"),
)


def version(db: sqlite3.Connection, path: Path) -> int:
    """The file's schema version; 0 for an empty one. Raises NoRecord for one that only a newer edge knows."""
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise NoRecord(f"{path} is not a batch record of edge: move it away, a new one will be made")
    if found > VERSION:
        raise NoRecord(
            f"{path} was written by a newer edge (version {found} of the record, this edge knows {VERSION}): "
            "use that edge, or move the file away and keep it, and a new one will be made"
        )
    return found


@contextmanager
def _reading(path: Path) -> Generator[sqlite3.Connection]:
    """One consistent view of the record. Raises NoRecord where there is none."""
    if not path.exists():
        raise NoRecord(f"there is no batch record at {path}: edge has not run with this state directory")
    db = None
    try:
        db = _connect(path)
        if version(db, path) == 0:
            raise NoRecord(f"the batch record at {path} is empty: nothing has been recorded yet")
        db.execute("BEGIN")
        yield db
    except sqlite3.Error as error:
        raise NoRecord(explain(error, path)) from error
    finally:
        if db is not None:
            db.close()


def _connect(path: Path) -> sqlite3.Connection:
    """For reading only. SQLite makes files beside one in WAL mode: who may not, reads one that nobody writes as it is.

    It is opened as for writing, where that is permitted: only then does the last to close it remove these files again.
    """
    uri = path.absolute().as_uri()
    db = sqlite3.connect(f"{uri}?mode=rw", uri=True, isolation_level=None, timeout=5)
    try:
        db.execute("PRAGMA query_only = ON")
        db.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        db.close()
        if path.with_name(path.name + "-wal").exists():
            raise
        db = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)
    return db


def batches(path: Path, limit: int = 1000) -> list[Summary]:
    """The batches, the latest first, at most `limit`. Raises NoRecord."""
    with _reading(path) as db:
        return list(_rows(db, Summary, "SELECT * FROM batch ORDER BY number DESC LIMIT ?", limit))


def batch(path: Path, batch_id: str) -> Batch:
    """The record of one batch; of the latest where an id was given twice. Raises NoRecord."""
    with _reading(path) as db:
        found = db.execute("SELECT max(number) FROM batch WHERE id = ?", (batch_id,)).fetchone()[0]
        if found is None:
            raise NoRecord(f"there is no batch `{batch_id}` in {path}: `edge batches` lists them")
        (whole,) = _rows(
            db,
            Batch,
            "SELECT batch.*, recipe.text AS recipe_text FROM batch LEFT JOIN recipe USING (hash) WHERE number = ?",
            found,
        )
        return msgspec.structs.replace(
            whole,
            steps=_of_batch(db, StepRun, "step", found),
            states=_of_batch(db, StateChange, "state_change", found),
            alarms=_of_batch(db, AlarmEntry, "alarm", found),
            questions=_of_batch(db, Question, "question", found),
            values=_of_batch(db, RecordedValue, "recorded", found),
        )


T = TypeVar("T")


def _of_batch(db: sqlite3.Connection, kind: type[T], table: str, number: int) -> tuple[T, ...]:
    return tuple(_rows(db, kind, f"SELECT * FROM {table} WHERE batch = ? ORDER BY rowid", number))


def _rows(db: sqlite3.Connection, kind: type[T], query: str, bound: int) -> Iterator[T]:
    """Rows as Structs: a field is the column of its name (that may need reading), or keeps its default."""
    cursor = db.execute(query, (bound,))
    names = [column[0] for column in cursor.description]
    for row in cursor:
        cells: dict[str, Any] = {}
        for name, cell in zip(names, row, strict=True):
            field, read = _READ.get(name, (name, None))
            if cell is not None:
                cells[field] = read(cell) if read else cell
        yield msgspec.convert(cells, kind)


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // 1000 / 1e6, UTC)


def _seconds(ns: int) -> float:
    return ns / 1e9


_READ: dict[str, tuple[str, Callable[[Any], Any] | None]] = {
    **{
        name: (name, _time)
        for name in ("time", "started", "ended", "asked", "answered", "raised", "cleared", "acknowledged")
    },
    **{name: (name, msgspec.json.decode) for name in ("say", "cause_say", "value", "parameters")},
    "duration_ns": ("duration_s", _seconds),
    "active_ns": ("active_s", _seconds),
    "who": ("by", None),
}
"""Column -> the Struct's field, and how its cell is read."""


# --- as a person reads it --------------------------------------------------------------------------------------------

WIDTH = 100
"""Columns that the text keeps to."""


def printed(path: Path, batch_id: str | None = None, form: str = "text", language: str = "en") -> str:
    """A batch's record, or the list of batches (None), as text or `json`. Raises NoRecord."""
    if batch_id is None:
        listed = batches(path)
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
    rows = [
        (
            one.id,
            f"{one.started.astimezone(zone):%Y-%m-%d %H:%M:%S}",
            _duration((one.ended - one.started).total_seconds()) if one.ended else "",
            one.state,
            one.by,
            one.recipe,
        )
        for one in summaries
    ]
    return "\n".join(_table(("batch", "started", "took", "state", "by", "recipe"), rows, indent=""))


def as_text(record: Batch, language: str = "en", zone: tzinfo | None = None) -> str:
    """The batch record as a person reads it: plain aligned text, times in `zone` (None: this machine's).

    `language` is that of questions, alarms and causes; English, or whatever there is, where they lack it.
    """
    clock = _Clock(record.started, zone)
    title = f"Batch record {_plain(record.id)}"
    lines = [title, "=" * _width(title), *_head(record, clock, language)]
    sections = (
        ("Parameters", ("name", "value"), [(one.name, _value(one.value, one.unit)) for one in record.parameters]),
        ("Steps", ("started", "took", "step", "ended"), [_step_row(one, clock) for one in record.steps]),
        (
            "States",
            ("time", "from", "to", "by", "cause"),
            [(clock.at(one.time), one.before, one.state, one.by, _cause(one, language)) for one in record.states],
        ),
        (
            "Questions",
            ("asked", "answer", "by", "question"),
            [_question_row(one, clock, language) for one in record.questions],
        ),
        (
            "Values",
            ("time", "name", "value"),
            [(clock.at(one.time), one.name, _value(one.value, one.unit)) for one in record.values],
        ),
        (
            "Alarms",
            ("raised", "cleared", "acknowledged", "kind", "alarm"),
            [_alarm_row(one, clock, language) for one in record.alarms],
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
        ("SHA-256", record.hash),
        ("Cell", record.cell),
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
    how = step.how if held < 0.1 else f"{step.how}, its clock stood for {_duration(held)}"
    return clock.at(step.started), _duration(step.duration_s), name, how


def _question_row(question: Question, clock: _Clock, language: str) -> tuple[str, ...]:
    say = _say(question.say, language)
    if question.value is None:
        return clock.at(question.asked), "none", "", say
    return clock.at(question.asked), _value(question.value, question.unit), question.by or "", say


def _alarm_row(alarm: AlarmEntry, clock: _Clock, language: str) -> tuple[str, ...]:
    cleared = clock.at(alarm.cleared) if alarm.cleared else "no"
    who = f"by {alarm.by}" if alarm.by else "no"
    say = _say(alarm.say, language)
    return clock.at(alarm.raised), cleared, who, alarm.kind, f"{say} [{alarm.detail}]" if alarm.detail else say


def _say(texts: Texts, language: str) -> str:
    return texts.get(language) or texts.get("en") or next(iter(texts.values()), "")


def _cause(change: StateChange, language: str) -> str:
    return _say(change.cause_say, language) or change.cause


def _value(value: Value, unit: str) -> str:
    if isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}".rstrip()


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
