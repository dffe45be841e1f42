"""The batch record: what is written comes back, and reads well."""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from datetime import UTC, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.value import Value
from edge import record, record_text
from edge.messages import (
    AlarmAcknowledged,
    AlarmCleared,
    AlarmRaised,
    AlarmShelved,
    AlarmUnshelved,
    Answered,
    Asked,
    BatchStarted,
    Commit,
    Recorded,
    StateChanged,
    StepEnded,
    StepStarted,
)
from edge.record import FILE, NoRecord
from edge.recorder import Record, unfinished
from tests.recording import BATCH, RUN, START, TEXT, batch_events, commits, plan_in


def kept(folder: Path, *events, run: int = RUN, first: int = 1) -> Path:
    """Writes commits with these events, one each second; gives the record's path."""
    writer = Record(folder, plan_in(folder / "cell"), run)
    writer.open()
    assert writer.keep(commits([(second, [event]) for second, event in enumerate(events)], first))
    writer.close()
    return folder / FILE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The record of one whole batch."""
    plan = plan_in(tmp_path / "cell")
    writer = Record(tmp_path, plan, RUN)
    writer.open()
    assert writer.keep(commits(batch_events(plan)))
    writer.close()
    return tmp_path / FILE


def test_the_record_reads_as_a_person_reads_it(path: Path) -> None:
    whole = record.batch(path, BATCH)
    text = (Path(__file__).parent / "golden" / "batch-record.txt").read_text()
    assert record_text.as_text(whole, zone=UTC) + "\n" == text


def test_the_whole_record_comes_back(path: Path) -> None:
    whole = record.batch(path, BATCH)
    assert (whole.recipe, whole.cell, whole.by, whole.state) == ("rinse-and-fill", "bottling", "amira", "complete")
    assert whole.recipe_text == TEXT
    assert whole.started == START and whole.ended == START + timedelta(seconds=99.5)
    assert [(one.name, one.value, one.unit) for one in whole.parameters] == [
        ("volume", 20.0, "L"),
        ("label", "été", ""),
    ]
    fill, stir, pick, _ = whole.steps
    assert (fill.how, fill.duration_s, fill.active_s) == ("done", 16.25, 10.25)
    assert (stir.branch, stir.duration_s, pick.branch, pick.how) == ("stir", 80, "bring", "timeout")
    assert [one.state for one in whole.states][-2:] == ["complete", "idle"]
    assert [(one.name, one.value, one.unit) for one in whole.values] == [
        ("filled", 19.983471234, "L"),
        ("bottles", 240, ""),
    ]
    (alarm,), (question,) = whole.alarms, whole.questions
    assert (alarm.device, alarm.tag, alarm.by) == ("conveyor", "conveyor.weight", "yusuf")
    assert (question.value, question.by, question.name) == ("yes", "amira", "label_ok")


def test_json_has_it_all_with_times_in_utc(path: Path) -> None:
    whole = json.loads(record_text.printed(path, BATCH, "json"))
    assert whole["started"] == "2026-11-24T10:15:30Z"
    assert whole["steps"][0]["ended"] == "2026-11-24T10:15:46.250000Z"
    assert whole["values"][0]["value"] == 19.983471234
    assert whole["recipe_text"] == TEXT
    (listed,) = json.loads(record_text.printed(path, form="json"))
    assert listed["id"] == BATCH and listed["state"] == "complete"


def test_texts_are_in_the_language_that_is_asked_for(path: Path) -> None:
    whole = record.batch(path, BATCH)
    assert "Balance en surcharge" in record_text.as_text(whole, "fr")
    arabic = record_text.as_text(whole, "ar")
    assert "الميزان محمّل أكثر من اللازم" in arabic
    assert "Is the label straight?" in arabic  # this question has no Arabic


def test_times_are_those_of_the_zone_and_another_day_is_named(tmp_path: Path) -> None:
    path = kept(tmp_path, BatchStarted(BATCH, "r", "", {}, "amira"), StepStarted(BATCH, 0, "Fill"))
    text = record_text.as_text(record.batch(path, BATCH), zone=timezone(timedelta(hours=13, minutes=44, seconds=29)))
    assert "Started  2026-11-24 23:59:59" in text
    assert "2026-11-25 00:00:00.000        Fill  not yet" in text


def test_the_list_has_the_latest_first(path: Path) -> None:
    plan = plan_in(path.parent / "cell")
    writer = Record(path.parent, plan, RUN + 1)
    writer.open()
    writer.keep(commits([(5, [BatchStarted("20261124-101535", "rinse-and-fill", "x", {}, "yusuf")])]))
    writer.close()
    assert [one.id for one in record.batches(path)] == ["20261124-101535", BATCH]
    assert record_text.as_table(record.batches(path), UTC) == (
        "batch            started              took        state     by     version  recipe\n"
        "20261124-101535  2026-11-24 10:15:35              idle      yusuf           rinse-and-fill\n"
        "20261124-101530  2026-11-24 10:15:30  1 min 40 s  complete  amira  1        rinse-and-fill"
    )
    assert [one.id for one in record.batches(path, limit=1)] == ["20261124-101535"]


def test_batches_are_found_by_their_lot_and_order(tmp_path: Path) -> None:
    kept(tmp_path, BatchStarted(BATCH, "first", "", {}, "amira", lot="L-7", order="4711"))
    path = kept(tmp_path, BatchStarted("other", "second", "", {}, "yusuf", lot="L-8"), run=RUN + 1)
    assert [one.id for one in record.batches(path, lot="L-7")] == [BATCH]
    assert [one.id for one in record.batches(path, lot="L-7", order="4711")] == [BATCH]
    assert record.batches(path, lot="L-8", order="4711") == []
    assert record_text.printed(path, lot="L-9") == "No batch of that has been recorded."
    first, _, second = record_text.printed(path).splitlines()
    assert first.split() == ["batch", "started", "took", "state", "by", "version", "lot", "order", "recipe"]
    assert second.split()[-3:] == ["L-7", "4711", "first"]
    assert "Lot      L-7\nOrder    4711\n" in record_text.printed(path, BATCH)


def test_who_has_shelved_an_alarm_and_why_is_kept(tmp_path: Path) -> None:
    raised = AlarmRaised(1, "interlock", {"en": "Overfull"}, BATCH, key="batch:interlock:0", priority="high")
    again = msgspec.structs.replace(raised, alarm=2)
    path = kept(
        tmp_path,
        BatchStarted(BATCH, "first", "", {}, "amira"),
        *(raised, AlarmShelved(1, "amira", "sensor is being changed", 500), AlarmCleared(1), again),
        *(AlarmUnshelved(2, "edge"), AlarmAcknowledged(2, "yusuf")),
    )
    whole = record.batch(path, BATCH)
    (shelving,) = whole.shelvings
    assert (shelving.by, shelving.why, shelving.ended_by) == ("amira", "sensor is being changed", "edge")
    assert [(one.priority, one.by) for one in whole.alarms] == [("high", None), ("high", "yusuf")]
    assert "sensor is being changed  Overfull" in record_text.printed(path, BATCH)


def test_what_people_typed_neither_moves_the_cursor_nor_breaks_the_columns(tmp_path: Path) -> None:
    path = kept(
        tmp_path,
        BatchStarted(BATCH, "r", "", {"note": "a\x1b[2J\nb\u202ec"}, "x\ry"),
        StepStarted(BATCH, 0, "温度を上げる"),
        StepStarted(BATCH, 1, "Cle\u0301"),
        StateChanged(BATCH, "idle", "running", "a long cause " * 20, "edge"),
    )
    lines = record_text.as_text(record.batch(path, BATCH), zone=UTC).splitlines()
    assert not any(char in line for line in lines for char in "\x1b\r\u202e")
    assert max(map(len, lines)) <= record_text.WIDTH
    wide, narrow = (next(line for line in lines if part in line) for part in ("温", "Cle"))
    assert len(wide) + 6 == len(narrow) - 1  # six characters of two columns each, one of none


values = st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(value=values, unit=st.text(max_size=5))
def test_every_value_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: Value, unit: str) -> None:
    path = kept(tmp_path_factory.mktemp("any"), Recorded(BATCH, 0, "x", value, unit))
    (found,) = record.batch(path, BATCH).values
    assert (found.value, type(found.value), found.unit) == (value, type(value), unit)
    assert record_text.as_text(record.batch(path, BATCH))


# --- unusual lives ---------------------------------------------------------------------------------------------------


def test_a_batch_that_goes_on_after_a_restart_stays_one_batch(tmp_path: Path) -> None:
    kept(tmp_path, BatchStarted(BATCH, "rinse-and-fill", "", {}, "amira"), StepStarted(BATCH, 0, "Fill"))
    path = kept(
        tmp_path,
        StateChanged(BATCH, "running", "held", "power loss", "edge"),
        StepEnded(BATCH, 0, "Fill", "done", 500),
        run=RUN + 10**12,
    )
    whole = record.batch(path, BATCH)
    (step,) = whole.steps
    assert whole.state == "held" and whole.ended is None
    assert (step.how, step.active_s, step.duration_s) == ("done", 5, 0)  # by the wall clock: cycles began anew


def test_alarms_of_two_runs_with_one_number_are_two_and_the_first_ends_with_its_run(tmp_path: Path) -> None:
    from edge.messages import AlarmRaised

    path = kept(tmp_path, AlarmRaised(1, "timeout", {"en": "first"}, BATCH))
    assert record.batch(path, BATCH).alarms[0].cleared is None
    path = kept(tmp_path, AlarmRaised(1, "timeout", {"en": "second"}, BATCH), run=RUN + 1)
    first, second = record.batch(path, BATCH).alarms
    assert first.cleared is not None and second.cleared is None


def test_an_id_that_a_clock_set_back_gave_twice_is_two_batches(tmp_path: Path) -> None:
    kept(tmp_path, BatchStarted(BATCH, "first", "", {}, "amira"), StepStarted(BATCH, 0, "Fill"))
    path = kept(tmp_path, BatchStarted(BATCH, "second", "", {}, "yusuf"), run=RUN + 1)
    assert [one.recipe for one in record.batches(path)] == ["second", "first"]
    assert record.batch(path, BATCH).steps == ()


def test_a_batch_whose_beginning_is_in_another_file_is_recorded_all_the_same(tmp_path: Path) -> None:
    path = kept(tmp_path, StateChanged(BATCH, "running", "held", "device lost", "device"))
    assert record.batch(path, BATCH).state == "held"
    assert BATCH in record_text.printed(path)


def test_a_loop_of_steps_and_an_open_question(tmp_path: Path) -> None:
    path = kept(
        tmp_path,
        *[one for _ in range(3) for one in (StepStarted(BATCH, 0, "Rinse"), StepEnded(BATCH, 0, "Rinse", "done", 100))],
        StepStarted(BATCH, 1, "ask"),
        Asked(BATCH, 1, 1, {"fr": "Combien ?"}, "number", unit="kg"),
    )
    whole = record.batch(path, BATCH)
    assert [(step.name, step.duration_s) for step in whole.steps] == [*[("Rinse", 1)] * 3, ("ask", None)]
    text = record_text.as_text(whole, zone=UTC)
    assert "10:15:37.000  none        Combien ?" in text
    assert "ask    not yet" in text


def test_an_answer_stands_with_its_text_and_the_role_that_was_declared(tmp_path: Path) -> None:
    labels = {"a": {"en": "Scrap", "fr": "Rebuter"}, "yes": {"en": "Yes", "fr": "Oui"}}
    asked = [Asked(BATCH, number, 1, {"en": "What now?"}, "choice", "x", tuple(labels)) for number in (1, 2)]
    answered = [
        Answered(BATCH, 1, "a", "yusuf", "x", "engineer", labels["a"]),
        Answered(BATCH, 2, "yes", "amira", "x", label=labels["yes"]),
    ]
    path = kept(tmp_path, asked[0], answered[0], asked[1], answered[1])
    whole = record.batch(path, BATCH)
    assert [(one.value, one.role, one.label) for one in whole.questions] == [
        ("a", "engineer", labels["a"]),
        ("yes", "operator", labels["yes"]),
    ]
    english, french = record_text.as_text(whole), record_text.as_text(whole, "fr")
    assert "a (Scrap)  yusuf (engineer)" in english and "yes        amira " in english
    assert "a (Rebuter)" in french and "yes (Oui)" in french


# --- each commit once ------------------------------------------------------------------------------------------------


def test_each_commit_is_kept_once_however_often_it_is_sent(tmp_path: Path) -> None:
    plan = plan_in(tmp_path / "cell")
    sent = commits(batch_events(plan))
    writer = Record(tmp_path, plan, RUN)
    writer.open()
    assert writer.keep(sent[:5]) and writer.last == 5
    assert writer.keep(sent[2:7]) and writer.last == 7
    writer.close()
    again = Record(tmp_path, plan, RUN)
    again.open()
    assert again.last == 7
    assert again.keep([*sent, *sent]) and again.last == len(sent)
    again.close()
    whole = record.batch(tmp_path / FILE, BATCH)
    assert len(whole.steps) == 4 and len(whole.states) == 7 and len(whole.values) == 2


def test_nothing_is_kept_over_a_gap(tmp_path: Path) -> None:
    plan = plan_in(tmp_path / "cell")
    sent = commits(batch_events(plan))
    writer = Record(tmp_path, plan, RUN)
    writer.open()
    assert not writer.keep([*sent[:3], *sent[4:6]])
    assert writer.last == 3
    assert not writer.keep(sent[5:])
    assert writer.last == 3
    assert writer.keep([*sent[6:8], *sent[3:8]])  # what came too early, and then all in its order
    assert writer.last == 8
    writer.close()


def test_unfinished_batches_are_those_that_a_restart_resumes(tmp_path: Path) -> None:
    assert unfinished(tmp_path) == []
    plan = plan_in(tmp_path / "cell")
    sent = commits(batch_events(plan))
    writer = Record(tmp_path, plan, RUN)
    writer.open()
    assert unfinished(tmp_path) == []
    writer.keep(sent[:8])
    assert unfinished(tmp_path) == [b"state of 20261124-101530 at 8"]
    writer.keep(sent[8:])
    assert unfinished(tmp_path) == []
    writer.close()


def test_a_commit_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    plan = plan_in(tmp_path / "cell")
    sent = commits(batch_events(plan))
    writer = Record(tmp_path, plan, RUN)
    writer.open()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON recorded BEGIN SELECT RAISE(ABORT, 'no room'); END")
    db.close()
    with pytest.raises(sqlite3.Error):
        writer.keep(sent)
    assert not writer.is_open and writer.last == 0
    assert record.batches(tmp_path / FILE) == []
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("DROP TRIGGER full")
    db.close()
    writer.open()
    assert writer.keep(sent)
    writer.close()
    assert len(record.batch(tmp_path / FILE, BATCH).steps) == 4


LIMITED = """
import pathlib, resource, sqlite3, sys
from edge.record import explain
path = pathlib.Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
db = sqlite3.connect(path)
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE t (b BLOB)")
try:
    while True:
        db.execute("INSERT INTO t VALUES (zeroblob(5000))")
        db.commit()
except sqlite3.Error as error:
    print(error.sqlite_errorname, explain(error, path))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(explain(error, path))
"""


def test_a_limit_of_the_size_of_files_is_no_broken_disk(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, "-c", LIMITED, tmp_path / FILE], capture_output=True, text=True, check=True)
    limited, broken = made.stdout.splitlines()
    assert "IOERR" in limited and "takes no larger files" in limited
    assert "gives errors: see `dmesg`" in broken


def test_a_record_that_was_moved_away_is_begun_anew_without_a_hole_in_the_numbers(tmp_path: Path) -> None:
    plan = plan_in(tmp_path / "cell")
    sent = commits(batch_events(plan))
    writer = Record(tmp_path, plan, RUN)
    writer.open()
    writer.keep(sent[:5])
    (tmp_path / FILE).rename(tmp_path / "old.db")
    with pytest.raises(FileNotFoundError) as refused:
        writer.keep(sent[5:8])
    assert "moved or deleted" in record.explain(refused.value, tmp_path / FILE)
    writer.open()
    assert writer.keep(sent[5:8]) and writer.last == 8
    writer.close()
    assert record.batch(tmp_path / FILE, BATCH).steps


# --- files that are none ---------------------------------------------------------------------------------------------


def test_no_file_an_empty_one_and_an_unknown_batch_are_said_in_words(tmp_path: Path, path: Path) -> None:
    with pytest.raises(NoRecord, match=r"there is no batch record at .*edge\.db"):
        record.batches(tmp_path / "nowhere" / FILE)
    (tmp_path / "empty.db").touch()
    with pytest.raises(NoRecord, match="empty: nothing has been recorded"):
        record.batches(tmp_path / "empty.db")
    with pytest.raises(NoRecord, match="no batch `20990101-000000`"):
        record.batch(path, "20990101-000000")
    assert record_text.as_table([]) == "No batch has been recorded yet."


@pytest.mark.parametrize(("version", "words"), [(record.VERSION + 1, "a newer edge"), (0, "not a batch record")])
def test_a_record_of_another_version_is_left_alone(path: Path, version: int, words: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    before = path.read_bytes()
    for use in (
        lambda: record.batches(path),
        lambda: unfinished(path.parent),
        lambda: Record(path.parent, plan_in(path.parent / "cell"), RUN).open(),
    ):
        with pytest.raises(NoRecord, match=words):
            use()
    assert path.read_bytes() == before


def test_a_record_of_an_older_edge_is_read_as_it_is_and_upgraded_by_the_recorder(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with sqlite3.connect(path) as db:
        db.executescript((Path(__file__).parent / "golden" / "record-1.sql").read_text())
    db.close()
    before = record.batch(path, BATCH)
    assert before.states[-1].cause == "the plant is as it was" and before.states[-1].cause_say == {}
    assert "restart by yusuf" in record_text.as_text(before, "fr")
    assert len(unfinished(tmp_path)) == 1
    kept(tmp_path, StateChanged(BATCH, "running", "held", "why", "edge", {"en": "why", "fr": "pourquoi"}), run=RUN + 1)
    after = record.batch(path, BATCH)
    assert after.states[:-1] == before.states and after.steps == before.steps and after.alarms == before.alarms
    assert after.states[-1].cause_say["fr"] == "pourquoi" and "held: pourquoi" in record_text.as_text(after, "fr")


def test_an_unfinished_batch_whose_recipe_is_gone_is_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    digest = "0" * 64
    path = kept(
        tmp_path,
        BatchStarted(BATCH, "rinse-and-fill", digest, {}, "amira"),
        StateChanged(BATCH, "idle", "running", "started", "amira"),
        BatchStarted("gone", "spin", digest, {}, "amira"),
        StateChanged("gone", "idle", "running", "started", "amira"),
    )
    assert len(unfinished(tmp_path)) == 2
    kept(tmp_path, run=RUN + 1)
    assert len(unfinished(tmp_path)) == 1
    ended = record.batch(path, "gone")
    assert (ended.state, ended.states[-1].cause) == ("aborted", "its recipe spin is no longer there")
    assert ended.ended is not None and record.batch(path, BATCH).state == "running"
    assert "Batch gone cannot be resumed and is recorded as aborted" in caplog.text


def test_a_damaged_file_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all" * 500)
    with pytest.raises(NoRecord, match="is damaged or no batch record: move it away"):
        record.batches(tmp_path / FILE)
    with pytest.raises(NoRecord, match="is damaged or no batch record: move it away"):
        unfinished(tmp_path)


def test_reading_while_it_is_written(tmp_path: Path) -> None:
    plan = plan_in(tmp_path / "cell")
    writer = Record(tmp_path, plan, RUN)
    writer.open()
    for number, (at, commit) in enumerate(commits(batch_events(plan))):
        writer.keep([(at, commit)])
        assert [one.id for one in record.batches(tmp_path / FILE)] == [BATCH]
        states = [event for event in commit.events if isinstance(event, StateChanged)]
        assert len(record.batch(tmp_path / FILE, BATCH).states) >= len(states), number
    writer.close()


def test_reading_leaves_no_file_behind(path: Path) -> None:
    before = sorted(path.parent.iterdir())
    assert record.batches(path) and record.batch(path, BATCH)
    assert sorted(path.parent.iterdir()) == before


def test_who_may_only_read_reads_a_record_that_nobody_writes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_in(Path(folder) / "cell")
        writer = Record(Path(folder), plan, RUN)
        writer.open()
        writer.keep(commits(batch_events(plan)))
        writer.close()
        Path(folder).chmod(0o555)
        reader = os.fork()
        if reader == 0:
            if os.geteuid() == 0:
                os.setuid(65534)
            os._exit(len(record.batches(Path(folder) / FILE)) + 10)
        assert os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]) == 11
        Path(folder).chmod(0o755)


def test_the_text_that_is_kept_is_the_one_that_was_loaded(tmp_path: Path) -> None:
    plan = plan_in(tmp_path / "cell")
    Path(plan.recipes["rinse-and-fill"].file).write_text("recipe: another\n")
    writer = Record(tmp_path, plan, RUN)
    writer.open()
    writer.keep(commits(batch_events(plan)))
    writer.close()
    assert record.batch(tmp_path / FILE, BATCH).recipe_text == TEXT


def test_commits_without_batches_are_kept_too(tmp_path: Path) -> None:
    writer = Record(tmp_path, plan_in(tmp_path / "cell"), RUN)
    writer.open()
    assert writer.keep([(RUN, Commit(1, 1, ()))]) and writer.last == 1
    writer.close()
