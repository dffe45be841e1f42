"""The recorder's process: makes the loop's commits durable in the batch record, and keeps the journal.

It serves one run of the loop, and may be killed and started again within it. The loop numbers its commits from 1; the
record holds, in the same transaction, the number of the last one, so that each is kept once however often it is sent.
Two threads, one for each socket: a disk that stalls under the record does not hold up the journal.
"""

import errno
import logging
import os
import select
import signal
import socket
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

import msgspec
from setproctitle import setproctitle

from edge import __version__
from edge.channel import drain, send
from edge.engine import words
from edge.engine.states import ENDED
from edge.journal import Journal, header_of
from edge.language.program import Plan
from edge.messages import (
    Ack,
    AlarmAcknowledged,
    AlarmChanged,
    AlarmCleared,
    AlarmRaised,
    AlarmShelved,
    AlarmUnshelved,
    Answered,
    Asked,
    BatchRemoved,
    BatchStarted,
    CommandDone,
    Commit,
    Event,
    Hello,
    ModeChanged,
    PhaseChanged,
    RecipeRevised,
    Recorded,
    StateChanged,
    StepConfirmed,
    StepEnded,
    StepStarted,
    StepWaits,
    TagSet,
    UnitsAsked,
    UnitsReleased,
    UnitsTaken,
    VariableSet,
    pack,
    unpack_outward,
)
from edge.record import FILE, SCHEMA, UPGRADES, VERSION, NoRecord, Parameter, explain, version

RETRY_S = 1.0
WAITING_BYTES = 16 << 20
"""Commits that wait in memory while the disk takes none; more wait in the socket, then in the loop."""

_ASK_KEYFRAME = pack(Hello("journal"))
_GATHER_MS = 20
_DRAIN_S = 0.5
Stamp = tuple[int, int, int]
"""Of an event: run, cycle, time (ns since 1970, UTC)."""

log = logging.getLogger(__name__)


def unfinished(state_dir: Path) -> list[bytes]:
    """The batches that had not ended, each as its last commit left it, for `Restore`; empty without a record.

    The recorder that wrote it must have ended. Raises NoRecord where the record cannot be read.
    """
    path = state_dir / FILE
    if not path.exists():
        return []
    try:
        db = sqlite3.connect(path, isolation_level=None)
        try:
            if version(db, path) == 0:
                return []
            return [state for (state,) in db.execute("SELECT state FROM unfinished ORDER BY batch")]
        finally:
            db.close()
    except sqlite3.Error as error:
        raise NoRecord(explain(error, path)) from error


class Record:
    """The batch record as it is written: commits go in, each once. Between `open` and an error it is open.

    `last` is the highest commit of this run that is durable.
    """

    def __init__(self, state_dir: Path, plan: Plan, run: int, life: int = 0) -> None:
        self.path = state_dir / FILE
        self.plan = plan
        self.run = run
        self.life = life or run
        self.last = 0
        self._db: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._force = {name: (recipe.hash, recipe.text) for name, recipe in plan.recipes.items()}

    @property
    def is_open(self) -> bool:
        return self._db is not None

    def open(self) -> None:
        """Opens or makes the file. Raises NoRecord, sqlite3.Error or OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, isolation_level=None, timeout=RETRY_S)
        try:
            found = version(db, self.path)
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise NoRecord(f"{self.path.parent} is on a file system without shared memory: use a local disk")
            db.execute("PRAGMA synchronous = FULL")
            if found == 0:
                db.executescript(SCHEMA)
            for older in range(found or VERSION, VERSION):
                db.executescript(UPGRADES[older])
            # What a failed fsync may have left in the page cache alone is written anew before it counts as durable.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET committed = max(committed, excluded.committed)",
                (self.run, self.plan.cell.name, self.plan.cell.scan_ns, __version__, self.last),
            )
            # An alarm of an earlier life of the loop ended with it, on the shelf or not.
            now = time.time_ns()
            db.execute("UPDATE alarm SET cleared = ? WHERE cleared IS NULL AND run <> ?", (now, self.run))
            shelved = "UPDATE shelving SET ended = ?, ended_by = 'edge' WHERE ended IS NULL AND run <> ?"
            db.execute(shelved, (now, self.run))
            for name, (digest, text) in self._force.items():
                self._bring(db, now, RecipeRevised(name, digest, "edge", text))
            self._end_orphans(db)
            db.execute("COMMIT")
            (self.last,) = db.execute("SELECT committed FROM run WHERE run = ?", (self.run,)).fetchone()
            self._identity = _identity(self.path)
        except BaseException:
            db.close()
            raise
        self._db = db

    def close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
        self._db = None

    def keep(self, commits: Iterable[tuple[int, Commit]]) -> bool:
        """Makes commits (each with its time) durable in one transaction; False: a number is missing, and what follows
        it was not kept. Raises sqlite3.Error or OSError: then none was, and the record is closed.
        """
        highest = self.last
        fresh: list[tuple[int, Commit]] = []
        for at, commit in commits:
            highest = max(highest, commit.commit)
            if commit.commit == self.last + len(fresh) + 1:
                fresh.append((at, commit))
        try:
            if fresh:
                self._transaction(fresh)
        except (sqlite3.Error, OSError):
            self.close()
            raise
        self.last += len(fresh)
        return highest == self.last

    def _transaction(self, commits: Sequence[tuple[int, Commit]]) -> None:
        db = self._db
        if db is None or _identity(self.path) != self._identity:
            raise FileNotFoundError(errno.ENOENT, "another file is in its place", str(self.path))
        db.execute("BEGIN IMMEDIATE")
        for at, commit in commits:
            for event in commit.events:
                self._write(db, (self.run, commit.cycle, at), event)
            for batch, state in commit.batches.items():
                if state:
                    db.execute("INSERT OR REPLACE INTO unfinished VALUES (?, ?)", (batch, state))
                else:
                    db.execute("DELETE FROM unfinished WHERE batch = ?", (batch,))
        db.execute("UPDATE run SET committed = ? WHERE run = ?", (commits[-1][1].commit, self.run))
        db.execute("COMMIT")

    def _end_orphans(self, db: sqlite3.Connection) -> None:
        """Ends the unfinished batches that no loop can resume, since their recipe is gone."""
        query = (
            "SELECT id, batch.state, recipe, hash FROM unfinished JOIN batch ON id = unfinished.batch "
            "WHERE ended IS NULL"
        )
        for batch, before, recipe, digest in db.execute(query).fetchall():
            if not recipe or recipe in self.plan.recipes or self.plan.version(recipe, digest):
                continue
            cause = words.recipe_gone(recipe)
            log.error("Batch %s cannot be resumed and is recorded as aborted: %s.", batch, cause["en"])
            ended = StateChanged(batch, before, "aborted", cause["en"], "edge", cause)
            self._write(db, (self.run, 0, time.time_ns()), ended)
            db.execute("DELETE FROM unfinished WHERE batch = ?", (batch,))

    def _bring(self, db: sqlite3.Connection, at: int, event: RecipeRevised) -> None:
        """Records which version of a recipe is in force, unless the record says so already. What a person has brought
        within this life of the daemon counts more than what that had found when it began.
        """
        known = (self.plan.cell.name, event.recipe)
        last = "SELECT version, hash, life FROM version WHERE cell = ? AND recipe = ? ORDER BY number DESC LIMIT 1"
        number, before, life = db.execute(last, known).fetchone() or (0, "", 0)
        if event.hash:
            db.execute("INSERT OR IGNORE INTO recipe VALUES (?, ?, ?)", (event.hash, event.recipe, event.text))
        if event.hash == before or (life == self.life and event.by == "edge"):
            return
        row = (*known, number + 1, event.hash, self.life, at, event.by)
        db.execute(
            "INSERT INTO version (cell, recipe, version, hash, life, time, who) VALUES (?, ?, ?, ?, ?, ?, ?)", row
        )

    def _write(self, db: sqlite3.Connection, stamp: Stamp, event: Event) -> None:
        """One event at (run, cycle, time)."""
        run, _, at = stamp
        match event:
            case BatchStarted():
                self._begin(db, stamp, event)
            case StateChanged():
                _change_state(db, stamp, self._number(db, stamp, event.batch), event)
            case BatchRemoved():
                number = self._number(db, stamp, event.batch)
                db.execute("UPDATE batch SET reset = ? WHERE number = ?", (at, number))
            case StepStarted():
                row = (self._number(db, stamp, event.batch), *stamp, event.step, event.name, event.branch)
                db.execute(
                    "INSERT INTO step (batch, run, cycle, started, step, name, branch) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
            case StepEnded():
                _end_step(db, stamp, self._number(db, stamp, event.batch), event, self.plan.cell.scan_ns)
            case Recorded():
                number = self._number(db, stamp, event.batch)
                row = (number, *stamp, event.step, event.name, _json(event.value), event.unit)
                db.execute("INSERT INTO recorded VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            case Asked():
                number = self._number(db, stamp, event.batch)
                texts = (event.name, event.kind, _json(event.say), event.unit)
                db.execute(
                    "INSERT INTO question (batch, run, cycle, asked, prompt, step, name, kind, say, unit) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (number, *stamp, event.prompt, event.step, *texts),
                )
            case Answered():
                number = self._number(db, stamp, event.batch)
                db.execute(
                    "UPDATE question SET answered = ?, value = ?, who = ?, role = ?, label = ? WHERE rowid = "
                    "(SELECT max(rowid) FROM question WHERE batch = ? AND prompt = ? AND answered IS NULL)",
                    (at, _json(event.value), event.by, event.role, _json(event.label), number, event.prompt),
                )
            case AlarmRaised():
                number = self._number(db, stamp, event.batch) if event.batch else None
                texts = (event.kind, _json(event.say), event.device, event.tag, event.detail, event.priority, event.key)
                db.execute(
                    "INSERT INTO alarm "
                    "(run, cycle, raised, alarm, batch, kind, say, device, tag, detail, priority, key) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*stamp, event.alarm, number, *texts),
                )
            case AlarmCleared():
                db.execute("UPDATE alarm SET cleared = ? WHERE run = ? AND alarm = ?", (at, run, event.alarm))
            case AlarmAcknowledged():
                db.execute(
                    "UPDATE alarm SET acknowledged = ?, who = ? WHERE run = ? AND alarm = ?",
                    (at, event.by, run, event.alarm),
                )
            case AlarmShelved():
                row = (*stamp, event.alarm, event.until, event.by, event.why)
                db.execute(
                    "INSERT INTO shelving (run, cycle, shelved, alarm, until, who, why) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
            case AlarmUnshelved():
                db.execute(
                    "UPDATE shelving SET ended = ?, ended_by = ? WHERE run = ? AND ended IS NULL AND alarm IN "
                    "(SELECT one.alarm FROM alarm AS one JOIN alarm AS last USING (run, key) "
                    "WHERE run = ? AND last.alarm = ?)",
                    (at, event.by, run, run, event.alarm),
                )
            case TagSet(batch=""):
                row = (*stamp, event.tag, _json(event.value), event.by)
                db.execute("INSERT INTO tag_set VALUES (?, ?, ?, ?, ?, ?)", row)
            case ModeChanged() | StepConfirmed() | TagSet():
                self._act(db, stamp, event)
            case RecipeRevised():
                self._force[event.recipe] = event.hash, event.text
                self._bring(db, at, event)
            case CommandDone() | AlarmChanged() | StepWaits() | VariableSet() | PhaseChanged():
                pass
            case UnitsAsked() | UnitsTaken() | UnitsReleased():
                pass

    def _act(self, db: sqlite3.Connection, stamp: Stamp, event: ModeChanged | StepConfirmed | TagSet) -> None:
        """What a person did to a batch beside its states."""
        match event:
            case ModeChanged():
                act = "mode", event.mode, None
            case StepConfirmed():
                act = "confirm", f"{event.branch}: {event.name}" if event.branch else event.name, None
            case TagSet():
                act = "set", event.tag, _json(event.value)
        row = (self._number(db, stamp, event.batch), *stamp, *act, event.by)
        db.execute("INSERT INTO action VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _begin(self, db: sqlite3.Connection, stamp: Stamp, event: BatchStarted) -> int:
        parameters = [Parameter(name, value, event.units.get(name, "")) for name, value in event.parameters.items()]
        texts = (self.plan.cell.name, event.recipe, event.hash, _json(parameters), event.by)
        texts = (*texts, event.lot, event.order)
        added = db.execute(
            "INSERT INTO batch (id, run, cycle, started, cell, recipe, hash, parameters, who, lot, order_number, "
            "state, version) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'idle', "
            "(SELECT ifnull(max(version), 0) FROM version WHERE (cell, recipe, hash) = (?5, ?6, ?7))) RETURNING number",
            (event.batch, *stamp, *texts),
        )
        return added.fetchone()[0]

    def _number(self, db: sqlite3.Connection, stamp: Stamp, batch: str) -> int:
        """The row of a batch; a bare one where its beginning is in a file that was moved away."""
        (number,) = db.execute("SELECT max(number) FROM batch WHERE id = ?", (batch,)).fetchone()
        return number or self._begin(db, stamp, BatchStarted(batch, "", "", {}, ""))


def _change_state(db: sqlite3.Connection, stamp: Stamp, number: int, event: StateChanged) -> None:
    row = (number, *stamp, event.before, event.state, event.cause, event.by, _json(event.cause_say))
    db.execute("INSERT INTO state_change VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    ended = stamp[2] if event.state in ENDED else None
    # The end state stays: a reset makes units free, it does not change what the batch has come to.
    db.execute("UPDATE batch SET state = ?, ended = ? WHERE number = ? AND ended IS NULL", (event.state, ended, number))


def _end_step(db: sqlite3.Connection, stamp: Stamp, number: int, event: StepEnded, scan_ns: int) -> None:
    run, cycle, at = stamp
    open_step = (number, event.step, event.branch)
    # Within a run the cycles tell a duration exactly; across a restart only the wall clock does.
    db.execute(
        "UPDATE step SET ended = ?, how = ?, active_ns = ?, "
        "duration_ns = iif(run = ?, (? - cycle) * ?, max(0, ? - started)) WHERE rowid = "
        "(SELECT max(rowid) FROM step WHERE batch = ? AND step = ? AND branch = ? AND ended IS NULL)",
        (at, event.how, event.active * scan_ns, run, cycle, scan_ns, at, *open_step),
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


# --- the process -----------------------------------------------------------------------------------------------------


class Clerk:
    """Takes commits from the loop's socket, has them kept, and acknowledges what is durable.

    After every opening of the record it says Hello, upon which the loop sends again what is not acknowledged.
    """

    def __init__(self, record: Record, end: socket.socket, stop: int, journal: Journal) -> None:
        self.record = record
        self.end = end
        self.stop = stop
        self.journal = journal
        self.waiting: list[tuple[int, bytes]] = []
        self.size = 0
        self.trouble = ""
        self._hello = False
        self._asked = 0.0
        self._acked = 0
        self._missing = False
        self._retry = 0.0

    def run(self) -> None:
        """Until it is stopped, or the loop's end is closed and all is durable."""
        both = _poll(self.end.fileno(), self.stop)
        alone = _poll(self.stop)
        closed = False
        self.keep()
        while not closed or self.waiting:
            full = closed or self.size >= WAITING_BYTES
            ready = dict((alone if full else both).poll(self._timeout_ms()))
            if self.stop in ready:
                break
            if self.end.fileno() in ready:
                closed = not self.take()
            self.keep()
        # Also when it is closed: that a peer died with packets unread comes as an error, before its last packets.
        deadline = time.monotonic() + _DRAIN_S
        while self.take() and time.monotonic() < deadline:
            pass
        self._retry = 0.0
        self.keep()
        self.record.close()

    def take(self) -> bool:
        """Takes what has come; False when nothing has."""
        packets = drain(self.end)
        now = time.time_ns()
        self.waiting += [(now, packet) for packet in packets]
        self.size += sum(map(len, packets))
        return bool(packets)

    def keep(self) -> None:
        """Makes durable what waits, in one transaction, and tells the loop; in trouble tries once in RETRY_S."""
        if time.monotonic() >= self._retry and (self.waiting or not self.record.is_open):
            try:
                if not self.record.is_open:
                    self.record.open()
                    self._hello = True
                self._missing = not self.record.keep(_commits(self.waiting))
            except (sqlite3.Error, OSError, NoRecord) as error:
                self._refused(error)
                return
            self.waiting.clear()
            self.size = 0
            self._retry = 0.0
            if self.trouble:
                log.warning("Batches are recorded again, and go on.")
                self.trouble = ""
        self._tell()

    def _refused(self, error: Exception) -> None:
        self.record.close()
        self._retry = time.monotonic() + RETRY_S
        text = explain(error, self.record.path)
        if text != self.trouble:
            log.error("Batches cannot be recorded, and wait before their next step: %s.", text)
            self.trouble = text
        if "FULL" in getattr(error, "sqlite_errorname", ""):
            self.journal.give_way()

    def _tell(self) -> None:
        """The acknowledgement goes first: what it covers need not be sent again."""
        if self.record.last > self._acked and send(self.end, pack(Ack(self.record.last))):
            self._acked = self.record.last
        now = time.monotonic()
        ask = self._hello or (self._missing and now >= self._asked + RETRY_S)
        if ask and send(self.end, pack(Hello("recorder"))):
            self._hello = False
            self._asked = now

    def _timeout_ms(self) -> float | None:
        """None: nothing is to be done before something comes."""
        if self.record.is_open and self.record.last == self._acked and not self._hello and not self._missing:
            return None
        return RETRY_S * 1000


def _commits(waiting: Iterable[tuple[int, bytes]]) -> list[tuple[int, Commit]]:
    commits: list[tuple[int, Commit]] = []
    for at, packet in waiting:
        try:
            message = unpack_outward(packet)
        except msgspec.DecodeError as error:
            log.error("The loop sent the recorder something that cannot be read (%s).", error)
            continue
        if isinstance(message, Commit):
            commits.append((at, message))
    return commits


def keep_journal(journal: Journal, end: socket.socket, stop: int) -> None:
    """Until it is stopped or the loop's end is closed. What comes is gathered for a moment: one wake for many.

    For each segment that begins it asks the loop for a keyframe.
    """
    both = _poll(end.fileno(), stop)
    alone = _poll(stop)
    journal.begin()
    closed = stopped = False
    while not closed and not stopped:
        if journal.begun and send(end, _ASK_KEYFRAME):
            journal.begun = False
        due_s = journal.due_s
        ready = dict(both.poll(None if due_s is None else due_s * 1000))
        packets = drain(end)
        for packet in packets:
            journal.add(packet)
        if journal.due_s == 0:
            journal.flush()
        closed = end.fileno() in ready and not packets
        stopped = bool(alone.poll(_GATHER_MS if packets else 0))
    deadline = time.monotonic() + _DRAIN_S
    while time.monotonic() < deadline and (packets := drain(end)):
        for packet in packets:
            journal.add(packet)
    journal.close()


def _poll(*files: int) -> select.poll:
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return poll


def run(
    plan: Plan, state_dir: Path, commits: socket.socket, journal: socket.socket, run_id: int, life: int = 0
) -> None:
    """Works until SIGTERM, or until the loop has closed both sockets.

    `life` is when the daemon began, `run_id` when the loop's life did (ns since 1970, UTC): the same when the recorder
    starts again within that life. The next loop has another one, and other sockets. Raises SystemExit(1) when commits
    that came were not kept.
    """
    setproctitle("edge-recorder")
    stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    # A forked process has its parent's wakeup descriptor: a signal here would be heard there.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, lambda _number, _frame: os.eventfd_write(stop, 1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    book = Journal(state_dir, header_of(plan, run_id))
    clerk = Clerk(Record(state_dir, plan, run_id, life), commits, stop, book)
    failures: list[Exception] = []

    def keep_journal_or_stop() -> None:
        try:
            keep_journal(book, journal, stop)
        except Exception as error:
            failures.append(error)
            os.eventfd_write(stop, 1)

    thread = Thread(target=keep_journal_or_stop, name="journal")
    thread.start()
    clerk.run()
    thread.join()
    if clerk.waiting:
        log.error("What happened last is not in the batch record (%d left out): %s.", len(clerk.waiting), clerk.trouble)
    if failures:
        log.critical("The recorder ends: the journal failed (%r).", failures[0])
    if clerk.waiting or failures:
        raise SystemExit(1)
