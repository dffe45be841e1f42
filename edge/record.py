"""The batch record in SQLite: its schema, and how it is read while the daemon runs and when it does not.

`recorder.py` writes it, `record_text.py` prints it. Times are UTC.
"""

import errno
import resource
import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from drivers.value import Value
from edge.language.program import Texts

FILE = "edge.db"
"""The batch record's name in the state directory."""

VERSION = 5
"""Of the schema; `PRAGMA user_version` of the file."""

SHELVING = """
-- A person has taken an alarm off the list; `until` is the cycle in which it comes back by itself.
CREATE TABLE shelving (
    run INTEGER NOT NULL, alarm INTEGER NOT NULL, cycle INTEGER NOT NULL, shelved INTEGER NOT NULL,
    until INTEGER NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL, ended INTEGER, ended_by TEXT) STRICT;
CREATE INDEX shelving_alarm ON shelving (run, alarm);
"""
VERSIONS = """
-- Each version of a recipe that came into force: its number within the cell and recipe, its hash ("": the recipe was
-- withdrawn), who brought it, and the life of the daemon (when that began) in which it did.
CREATE TABLE version (
    number INTEGER PRIMARY KEY, cell TEXT NOT NULL, recipe TEXT NOT NULL, version INTEGER NOT NULL, hash TEXT NOT NULL,
    life INTEGER NOT NULL, time INTEGER NOT NULL, who TEXT NOT NULL) STRICT;
CREATE INDEX version_recipe ON version (cell, recipe);"""

ACTION = """
-- What a person did to a batch beside its states: `what` is mode (`name` the new one), confirm (`name` the step) or set
-- (`name` the tag, `value` its level).
CREATE TABLE action (
    batch INTEGER NOT NULL REFERENCES batch, run INTEGER NOT NULL, cycle INTEGER NOT NULL, time INTEGER NOT NULL,
    what TEXT NOT NULL, name TEXT NOT NULL, value TEXT, who TEXT NOT NULL) STRICT;
CREATE INDEX action_batch ON action (batch);
"""

UPGRADES = {
    1: """
BEGIN;
ALTER TABLE state_change ADD COLUMN cause_say TEXT NOT NULL DEFAULT '{}';
ALTER TABLE alarm ADD COLUMN detail TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 2;
COMMIT;
""",
    2: f"""
BEGIN;
ALTER TABLE alarm ADD COLUMN priority TEXT NOT NULL DEFAULT '';
ALTER TABLE alarm ADD COLUMN key TEXT NOT NULL DEFAULT '';
ALTER TABLE batch ADD COLUMN lot TEXT NOT NULL DEFAULT '';
ALTER TABLE batch ADD COLUMN order_number TEXT NOT NULL DEFAULT '';
CREATE INDEX batch_lot ON batch (lot);
{SHELVING}
{ACTION}
PRAGMA user_version = 3;
COMMIT;
""",
    3: f"""
BEGIN;
{VERSIONS}
ALTER TABLE batch ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 4;
COMMIT;
""",
    4: """
BEGIN;
ALTER TABLE question ADD COLUMN role TEXT;
ALTER TABLE question ADD COLUMN label TEXT;
PRAGMA user_version = 5;
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
-- The text of every recipe that could be started, with what it includes, by its SHA-256.
CREATE TABLE recipe (hash TEXT PRIMARY KEY, name TEXT NOT NULL, text TEXT NOT NULL) STRICT;
{VERSIONS}
-- All times are ns since 1970, UTC, when the recorder heard of it; `cycle` is the loop's, within its run.
-- Values, parameters and texts are JSON. `number` is what other tables mean by `batch`: a clock that was set back
-- can give one id twice.
CREATE TABLE batch (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, run INTEGER NOT NULL, cycle INTEGER NOT NULL, cell TEXT NOT NULL,
    recipe TEXT NOT NULL, hash TEXT NOT NULL, parameters TEXT NOT NULL, who TEXT NOT NULL, state TEXT NOT NULL,
    started INTEGER NOT NULL, ended INTEGER, reset INTEGER, version INTEGER NOT NULL DEFAULT 0,
    lot TEXT NOT NULL DEFAULT '', order_number TEXT NOT NULL DEFAULT '') STRICT;
CREATE INDEX batch_lot ON batch (lot);
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
    asked INTEGER NOT NULL, answered INTEGER, value TEXT, who TEXT,
    role TEXT, label TEXT) STRICT;
CREATE INDEX question_batch ON question (batch, prompt);
CREATE TABLE alarm (
    run INTEGER NOT NULL, alarm INTEGER NOT NULL, cycle INTEGER NOT NULL, batch INTEGER REFERENCES batch,
    kind TEXT NOT NULL, say TEXT NOT NULL, device TEXT NOT NULL, tag TEXT NOT NULL,
    raised INTEGER NOT NULL, cleared INTEGER, acknowledged INTEGER, who TEXT, detail TEXT NOT NULL DEFAULT '',
    priority TEXT NOT NULL DEFAULT '', key TEXT NOT NULL DEFAULT '') STRICT;
CREATE INDEX alarm_number ON alarm (run, alarm);
CREATE INDEX alarm_batch ON alarm (batch);{SHELVING}CREATE TABLE tag_set (
    run INTEGER NOT NULL, cycle INTEGER NOT NULL, time INTEGER NOT NULL, tag TEXT NOT NULL, value TEXT NOT NULL,
    who TEXT NOT NULL) STRICT;
{ACTION.strip()}
-- What a restart resumes from: each batch that has not ended, as its last commit left it.
CREATE TABLE unfinished (batch TEXT PRIMARY KEY, state BLOB NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""


class NoRecord(Exception):
    """The batch record cannot be used, or lacks what was asked for; the text is for a technician."""


class NothingYet(NoRecord):
    """The file is there, and empty: a recorder is about to make the record."""


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
    """`detail` is what the driver said when it was raised; `priority` is "" in records of an older edge."""

    kind: str
    say: Texts
    device: str
    tag: str
    raised: datetime
    cleared: datetime | None = None
    acknowledged: datetime | None = None
    by: str | None = None
    detail: str = ""
    priority: str = ""


class Shelving(msgspec.Struct, frozen=True):
    """An alarm was shelved, by whom and why; `ended_by` is `edge` where its time was over."""

    say: Texts
    shelved: datetime
    by: str
    why: str
    ended: datetime | None = None
    ended_by: str | None = None


class Question(msgspec.Struct, frozen=True):
    """A question to the operator and its answer; `answered`, `value` and `by` are None while there is none.

    `role` is what the person who answered has declared to be, `label` the text of the answer where it has one.
    """

    step: int
    name: str
    kind: str
    say: Texts
    unit: str
    asked: datetime
    answered: datetime | None = None
    value: Value | None = None
    by: str | None = None
    role: str = ""
    label: Texts = {}


class Action(msgspec.Struct, frozen=True):
    """What a person did to the batch beside its states: `what` is mode, confirm, set, `name` the mode, step, tag."""

    time: datetime
    what: str
    name: str
    by: str
    value: Value | None = None


class Summary(msgspec.Struct, frozen=True):
    """One line of the list of batches. `version` is the number of its recipe's version; 0: of an older edge. `lot` and
    `order` are "" where the recipe asks for none.
    """

    id: str
    recipe: str
    state: str
    by: str
    started: datetime
    ended: datetime | None = None
    version: int = 0
    lot: str = ""
    order: str = ""


class Version(msgspec.Struct, frozen=True):
    """A version of a recipe that came into force; `hash` "": the recipe was withdrawn."""

    recipe: str
    version: int
    hash: str
    time: datetime
    by: str
    text: str = ""


class Batch(msgspec.Struct, frozen=True):
    """The whole record of one batch. `hash` is the SHA-256 of `recipe_text`, what the recipe's file said,
    `version` the number of this version of the recipe; 0: of an older edge.
    """

    id: str
    cell: str
    recipe: str
    hash: str
    by: str
    state: str
    started: datetime
    ended: datetime | None = None
    lot: str = ""
    order: str = ""
    parameters: tuple[Parameter, ...] = ()
    steps: tuple[StepRun, ...] = ()
    states: tuple[StateChange, ...] = ()
    actions: tuple[Action, ...] = ()
    alarms: tuple[AlarmEntry, ...] = ()
    shelvings: tuple[Shelving, ...] = ()
    questions: tuple[Question, ...] = ()
    values: tuple[RecordedValue, ...] = ()
    recipe_text: str = ""
    version: int = 0


# --- reading ---------------------------------------------------------------------------------------------------------


def explain(error: Exception, path: Path) -> str:
    """Why the file cannot be used and what a technician does about it."""
    if isinstance(error, NoRecord):
        return str(error)
    name = getattr(error, "sqlite_errorname", "") or errno.errorcode.get(getattr(error, "errno", 0) or 0, "")
    if "IOERR" in name and _as_large_as_may_be(path):
        name = "EFBIG"
    for sign, reason in _REASONS:
        if sign in name:
            return reason.format(path=path, directory=path.parent)
    return f"{path} cannot be used ({error})"


def _as_large_as_may_be(path: Path) -> bool:
    """Whether SQLite's I/O error may be that of a process whose files grow no further: it has no other name for it."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    files = (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"))
    return limit != resource.RLIM_INFINITY and any(
        file.stat().st_size + _GROWTH > limit for file in files if file.exists()
    )


_GROWTH = 65_536
"""The most that one write lets a file of SQLite's grow: a page."""

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
        db.execute("BEGIN")  # before the version is read: the recorder may be making the file
        if version(db, path) == 0:
            raise NothingYet(f"the batch record at {path} is empty: nothing has been recorded yet")
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


def batches(path: Path, limit: int = 1000, *, lot: str = "", order: str = "") -> list[Summary]:
    """The batches, the latest first, at most `limit`; those of a lot, or of an order, where it is given.

    Raises NoRecord.
    """
    with _reading(path) as db:
        found = {"lot": lot, "order_number": order}
        wanted = [(column, number) for column, number in found.items() if number]
        if wanted and version(db, path) < 3:  # an older edge knew neither
            return []
        where = " AND ".join(f"{column} = ?" for column, _ in wanted) or "true"
        query = f"SELECT * FROM batch WHERE {where} ORDER BY number DESC LIMIT ?"
        return list(_rows(db, Summary, query, *(number for _, number in wanted), limit))


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
            actions=_of_batch(db, Action, "action", found) if version(db, path) > 2 else (),
            alarms=_of_batch(db, AlarmEntry, "alarm", found),
            shelvings=_shelvings(db, found, version(db, path)),
            questions=_of_batch(db, Question, "question", found),
            values=_of_batch(db, RecordedValue, "recorded", found),
        )


def _shelvings(db: sqlite3.Connection, number: int, file_version: int) -> tuple[Shelving, ...]:
    """How the alarms of a batch were shelved; a file that an older edge wrote has nothing of it."""
    if file_version < 3:
        return ()
    query = "SELECT say, shelving.* FROM shelving JOIN alarm USING (run, alarm) WHERE batch = ? ORDER BY shelving.rowid"
    return tuple(_rows(db, Shelving, query, number))


def versions(path: Path, life: int | None = None) -> list[Version]:
    """The versions that have come into force, the oldest first: all, or those of one life of the daemon. Raises
    NoRecord.
    """
    with _reading(path) as db:
        if version(db, path) < 4:
            return []
        query = "SELECT version.*, text FROM version LEFT JOIN recipe USING (hash) WHERE ? IN (0, life) ORDER BY number"
        return list(_rows(db, Version, query, life or 0))


def recipe_text(path: Path, digest: str) -> str:
    """The text of the recipe that has this hash; "" where the record has none. Raises NoRecord."""
    with _reading(path) as db:
        found = db.execute("SELECT text FROM recipe WHERE hash = ?", (digest,)).fetchone()
        return found[0] if found else ""


T = TypeVar("T")


def _of_batch(db: sqlite3.Connection, kind: type[T], table: str, number: int) -> tuple[T, ...]:
    return tuple(_rows(db, kind, f"SELECT * FROM {table} WHERE batch = ? ORDER BY rowid", number))


def _rows(db: sqlite3.Connection, kind: type[T], query: str, *bound: int | str) -> Iterator[T]:
    """Rows as Structs: a field is the column of its name (that may need reading), or keeps its default."""
    cursor = db.execute(query, bound)
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
        for name in ("time", "started", "ended", "asked", "answered", "raised", "cleared", "acknowledged", "shelved")
    },
    **{name: (name, msgspec.json.decode) for name in ("say", "cause_say", "value", "label", "parameters")},
    "duration_ns": ("duration_s", _seconds),
    "active_ns": ("active_s", _seconds),
    "who": ("by", None),
    "order_number": ("order", None),
}
"""Column -> the Struct's field, and how its cell is read."""
