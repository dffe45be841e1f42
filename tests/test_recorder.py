"""The recorder as a process: real sockets, real kills, a disk that takes nothing."""

import contextlib
import ctypes
import logging
import os
import random
import resource
import select
import signal
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge import channel, record, recorder
from edge.image import pack_record
from edge.journal import FORMAT, Cycle, Gap, Header, Journal, read_journal
from edge.messages import Ack, Commit, Hello, Recorded, pack, unpack_inward
from edge.record import FILE
from edge.recorder import Clerk, Record, unfinished
from tests.recording import BATCH, RUN, batch_events, commits, plan_in

DEADLINE_S = 20


class Bench:
    """The loop's side, with its habits: commits are kept until acknowledged, and sent again upon a Hello."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = plan_in(folder / "cell")
        self.commits, self.theirs = channel.pair()
        self.journal, self.their_journal = channel.pair()
        self.log, self.their_log = os.pipe()
        os.set_blocking(self.log, False)
        self.said = ""
        self.unacked: OrderedDict[int, bytes] = OrderedDict()
        self.waiting: list[bytes] = []
        self.acked = 0
        self.hellos = 0
        self.pid = 0

    def start(self) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
            stream = os.fdopen(self.their_log, "w", buffering=1)
            logging.basicConfig(stream=stream, format="%(message)s", force=True)
            self.commits.close()
            self.journal.close()
            recorder.run(self.plan, self.folder, self.theirs, self.their_journal, RUN)
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            os._exit(status)

    def end(self, sign: signal.Signals) -> int:
        """Ends the recorder; its exit code."""
        os.kill(self.pid, sign)
        return self.wait()

    def wait(self) -> int:
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def send(self, commit: Commit) -> None:
        self.unacked[commit.commit] = pack(commit)
        self.waiting.append(self.unacked[commit.commit])
        self.pump(0)

    def pump(self, wait_ms: float) -> None:
        """One cycle: waits for the recorder's word at most so long, hears it, sends what waits."""
        select.select([self.commits], [], [], wait_ms / 1000)
        for packet in channel.drain(self.commits):
            message = unpack_inward(packet)
            if isinstance(message, Hello):
                self.hellos += 1
                self.waiting = list(self.unacked.values())
            elif isinstance(message, Ack):
                assert message.commit >= self.acked
                self.acked = message.commit
                for number in [number for number in self.unacked if number <= self.acked]:
                    del self.unacked[number]
        while self.waiting and channel.send(self.commits, self.waiting[0]):
            self.waiting.pop(0)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, (self.acked, self.heard())
            self.pump(20)

    def heard(self) -> str:
        """The recorder's log so far."""
        with contextlib.suppress(BlockingIOError):
            self.said += os.read(self.log, 1 << 16).decode()
        return self.said

    def kept(self) -> list[int]:
        """The numbers that the recorded values of `numbered` hold."""
        if not (self.folder / FILE).exists():
            return []
        with contextlib.closing(sqlite3.connect(self.folder / FILE)) as db:
            if not record.version(db, self.folder / FILE):
                return []
            return [int(value) for (value,) in db.execute("SELECT value FROM recorded ORDER BY rowid")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    if made.pid:
        made.end(signal.SIGKILL)
    for end in (made.commits, made.theirs, made.journal, made.their_journal):
        end.close()
    os.close(made.log)
    os.close(made.their_log)


def numbered(number: int) -> Commit:
    """A commit that leaves its number in the record."""
    return Commit(number, number, (Recorded(BATCH, 0, "n", number),), {BATCH: str(number).encode()})


def cycle(number: int) -> bytes:
    return pack_record(number, [b"\x01" * 28], [], b"")


# --- the ordinary life -----------------------------------------------------------------------------------------------


def test_it_records_a_whole_batch_and_ends_at_sigterm(bench: Bench) -> None:
    bench.start()
    sent = [commit for _, commit in commits(batch_events(bench.plan))]
    for commit in sent:
        bench.send(commit)
    bench.until(lambda: bench.acked == len(sent))
    assert Path(f"/proc/{bench.pid}/cmdline").read_bytes().rstrip(b"\x00") == b"edge-recorder"
    assert record.batch(bench.folder / FILE, BATCH).state == "complete"
    assert bench.hellos == 1
    assert bench.end(signal.SIGTERM) == 0
    assert bench.heard() == ""


def test_what_was_sent_before_sigterm_is_recorded(bench: Bench) -> None:
    bench.start()
    bench.until(lambda: bench.hellos == 1)
    for number in range(1, 401):
        bench.send(numbered(number))
        assert channel.send(bench.journal, cycle(number))
    assert bench.end(signal.SIGTERM) == 0
    assert bench.kept() == list(range(1, 401))
    assert unfinished(bench.folder) == [b"400"]
    _, *items = read_journal(bench.folder)
    assert [item.cycle for item in items if isinstance(item, Cycle)] == list(range(1, 401))
    bench.pump(0)
    assert bench.acked == 400


def test_it_ends_by_itself_when_the_loop_has_gone_and_keeps_the_loops_last_words(bench: Bench) -> None:
    for number in range(1, 11):
        bench.send(numbered(number))
    channel.send(bench.journal, cycle(1))
    for end in (bench.theirs, bench.their_journal):
        channel.send(end, b"never read")  # a peer that goes with packets unread resets the connection
    bench.commits.close()
    bench.journal.close()
    bench.start()
    assert bench.wait() == 0
    assert bench.kept() == list(range(1, 11))
    assert [item.cycle for item in read_journal(bench.folder) if isinstance(item, Cycle)] == [1]


def test_the_terminals_interrupt_is_not_for_the_recorder(bench: Bench) -> None:
    bench.start()
    bench.until(lambda: bench.hellos == 1)
    os.kill(bench.pid, signal.SIGINT)
    bench.send(numbered(1))
    bench.until(lambda: bench.acked == 1)
    assert bench.end(signal.SIGTERM) == 0


def test_rubbish_on_the_socket_is_said_and_passed_over(bench: Bench) -> None:
    bench.start()
    channel.send(bench.commits, b"\x00rubbish")
    bench.send(numbered(1))
    bench.until(lambda: bench.acked == 1)
    assert "cannot be read" in bench.heard()


# --- kills -----------------------------------------------------------------------------------------------------------


def assert_gaps_show(folder: Path) -> None:
    """Cycles only rise, and where one is missing a gap stands between its neighbours."""
    before, gap = 0, False
    for item in read_journal(folder):
        if isinstance(item, Gap):
            gap = True
        elif isinstance(item, Cycle):
            assert item.cycle == before + 1 or (gap and item.cycle > before), (before, item.cycle)
            before, gap = item.cycle, False


@pytest.mark.parametrize("seed", range(8))
def test_killed_in_mid_stream_it_loses_nothing_acknowledged_and_keeps_nothing_twice(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)
    number = 0
    for life in range(15):
        bench.start()
        if chance.random() < 0.8:  # else it is killed while it opens its files
            bench.until(lambda hellos=bench.hellos: bench.hellos > hellos)
        for _ in range(chance.randrange(6)):
            for _ in range(chance.randrange(1, 40)):
                number += 1
                bench.send(numbered(number))
                channel.send(bench.journal, cycle(number))
            bench.pump(chance.choice((0, 0, 0.2, 1, 5)))
        bench.end(signal.SIGKILL)
        kept = bench.kept()
        assert kept == list(range(1, len(kept) + 1)), "in order, none twice, none left out"
        assert len(kept) >= bench.acked, life
        assert unfinished(bench.folder) == ([str(len(kept)).encode()] if kept else [])
    bench.start()
    bench.until(lambda hellos=bench.hellos: bench.hellos > hellos and bench.acked == number)
    assert bench.end(signal.SIGTERM) == 0
    assert bench.kept() == list(range(1, number + 1))
    assert_gaps_show(bench.folder)


def test_a_gap_in_the_numbers_is_asked_for_and_never_acknowledged(bench: Bench) -> None:
    bench.start()
    bench.until(lambda: bench.hellos == 1)
    bench.send(numbered(1))
    bench.until(lambda: bench.acked == 1)
    bench.send(numbered(3))
    bench.until(lambda: bench.hellos == 2)
    assert bench.acked == 1 and bench.kept() == [1]
    bench.unacked = OrderedDict((number, pack(numbered(number))) for number in (2, 3))
    bench.until(lambda: bench.acked == 3)
    assert bench.kept() == [1, 2, 3]


# --- disk trouble ----------------------------------------------------------------------------------------------------


def limit(pid: int, size: int) -> None:
    """Files of the process grow no further than this: every write beyond fails."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def test_a_disk_that_takes_nothing_is_said_once_and_batches_go_on_when_it_does(bench: Bench) -> None:
    bench.start()
    bench.send(numbered(1))
    bench.until(lambda: bench.acked == 1)
    limit(bench.pid, 1)
    bench.send(numbered(2))
    channel.send(bench.journal, cycle(2))
    bench.until(lambda: "cannot be recorded" in bench.heard() and "journal is not kept" in bench.heard())
    for number in range(3, 60):
        bench.send(numbered(number))
    bench.until(lambda: not bench.waiting)
    assert bench.acked == 1 and bench.kept() == [1]
    limit(bench.pid, resource.RLIM_INFINITY)
    bench.until(lambda: bench.acked == 59)
    bench.until(lambda: channel.send(bench.journal, cycle(3)) and "journal is kept again" in bench.heard())
    said = bench.heard()
    assert said.count("Batches cannot be recorded") == 1
    assert said.count("Batches are recorded again") == 1
    assert "Traceback" not in said
    assert bench.end(signal.SIGTERM) == 0
    assert bench.kept() == list(range(1, 60))
    assert any(isinstance(item, Gap) for item in read_journal(bench.folder))


def test_what_waits_for_the_disk_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "WAITING_BYTES", 20_000)
    bench.start()
    bench.send(numbered(1))
    bench.until(lambda: bench.acked == 1)
    limit(bench.pid, 1)
    bench.send(numbered(2))
    bench.until(lambda: "cannot be recorded" in bench.heard())
    number = 2
    while not bench.waiting:  # until the socket is full as well: the rest stays with the loop
        number += 1
        bench.send(numbered(number))
        assert number < 500_000
    limit(bench.pid, resource.RLIM_INFINITY)
    bench.until(lambda: bench.acked == number)
    assert bench.kept() == list(range(1, number + 1))


def test_ended_while_the_disk_takes_nothing_it_says_what_was_not_recorded(bench: Bench) -> None:
    bench.start()
    bench.until(lambda: bench.hellos == 1)
    limit(bench.pid, 1)
    bench.send(numbered(1))
    bench.until(lambda: "cannot be recorded" in bench.heard())
    assert bench.end(signal.SIGTERM) == 1
    assert "What happened last is not in the batch record (1 left out)" in bench.heard()


def test_a_record_of_another_version_stops_no_more_than_the_batches(bench: Bench) -> None:
    with contextlib.closing(sqlite3.connect(bench.folder / FILE)) as db:
        db.execute("PRAGMA user_version = 99")
    bench.start()
    bench.send(numbered(1))
    bench.until(lambda: "written by a newer edge (version 99" in bench.heard())
    (bench.folder / FILE).rename(bench.folder / "newer.db")
    bench.until(lambda: bench.acked == 1)


class Small(Record):
    """On a disk that is as good as full."""

    pages = 1

    def open(self) -> None:
        super().open()
        assert self._db is not None
        self._db.execute(f"PRAGMA max_page_count = {self.pages}")


def test_on_a_full_disk_the_journal_gives_way_to_the_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path, Header(FORMAT, RUN, 10_000_000, "bottling"), segment_bytes=1)
    for number in range(4):
        journal.add(cycle(number))
        journal.flush()
    ours, theirs = channel.pair()
    small = Small(tmp_path, plan_in(tmp_path / "cell"), RUN)
    clerk = Clerk(small, theirs, -1, journal)
    clerk.keep()
    channel.send(ours, pack(Commit(1, 1, (Recorded(BATCH, 0, "n", "x" * 100_000),))))
    clerk.take()
    clerk.keep()
    assert "is full: free some space" in clerk.trouble
    assert journal.deleted == 1
    assert [unpack_inward(packet) for packet in channel.drain(ours)] == [Hello("recorder")]
    small.pages = 1_000_000
    clerk._retry = 0.0
    clerk.keep()
    assert clerk.trouble == ""
    assert [unpack_inward(packet) for packet in channel.drain(ours)] == [Ack(1), Hello("recorder")]
    assert [one.split(":")[0] for one in caplog.messages if "Batches" in one] == [
        "Batches cannot be recorded, and wait before their next step",
        "Batches are recorded again, and go on.",
    ]
    small.close()
    ours.close()
    theirs.close()


# --- reading while it works ------------------------------------------------------------------------------------------


def test_record_and_journal_are_read_while_they_are_written(bench: Bench) -> None:
    bench.start()
    bench.until(lambda: bench.hellos == 1)
    for number in range(1, 301):
        bench.send(numbered(number))
        assert channel.send(bench.journal, cycle(number))
        if number % 20 == 0:
            bench.until(lambda: bench.acked >= 1)
            found = record.batch(bench.folder / FILE, BATCH).values
            assert [one.value for one in found] == list(range(1, len(found) + 1)) and len(found) >= bench.acked
            assert_gaps_show(bench.folder)
    bench.until(lambda: bench.acked == 300)
    assert len(record.batch(bench.folder / FILE, BATCH).values) == 300


def test_a_person_who_locks_the_file_stops_batches_only_while_it_is_locked(bench: Bench) -> None:
    bench.start()
    bench.send(numbered(1))
    bench.until(lambda: bench.acked == 1)
    with contextlib.closing(sqlite3.connect(bench.folder / FILE, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        bench.send(numbered(2))
        bench.until(lambda: "is locked by another program: close it" in bench.heard())
        assert bench.acked == 1
    bench.until(lambda: bench.acked == 2)
