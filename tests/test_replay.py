"""Replay: a journal of real runs gives the same again, and one in which something is other says what and where."""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from edge.image import INPUT, device_of, layouts, pack_record
from edge.journal import DIRECTORY, Cycle, Gap, Header, Journal, Keyframe, header_of, read_journal
from edge.language import parcel
from edge.language.plan import load_plan, recompile
from edge.language.program import Plan
from edge.language.source import Problems
from edge.messages import (
    Commit,
    RecipeRevised,
    Revision,
    Snapshot,
    StateChanged,
    StepStarted,
    pack,
    pack_events,
    unpack_events,
)
from edge.recorder import Record
from edge.replay import Settings, run
from tests.processes import BOTTLING, Plcs, Served, edge, running, until
from tests.recording import RUN
from tests.virtual import Virtual, plan_of

Change = Callable[[Cycle], Cycle]


def answer(daemon: Served, batch: str) -> None:
    question = until(lambda: daemon.batch(batch).get("questions"), "the question")[0]
    status, body = daemon.post(f"/api/batches/{batch}/answer", {"prompt": question["prompt"], "value": "yes"})
    assert status == 200, body


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """(state directory, batch) of a batch over three protocols: a PLC, the loop and the recorder were killed in it."""
    folder = tmp_path_factory.mktemp("incident")
    with (
        running(Plcs(folder, BOTTLING, "--restart-after", "1")) as plcs,
        running(Served(folder, BOTTLING, "--endpoints", plcs.endpoints)) as daemon,
    ):
        batch = daemon.start("rinse-and-fill")
        daemon.await_step(batch, "Fill the mixer")
        os.kill(plcs.pid_of("mixer"), signal.SIGKILL)
        daemon.await_state(batch, "held")
        daemon.up()
        daemon.post(f"/api/batches/{batch}/restart")
        daemon.await_step(batch, "Look at the label")
        os.kill(daemon.pid_called("edge-loop"), signal.SIGKILL)
        daemon.await_state(batch, "held")
        daemon.up()
        daemon.post(f"/api/batches/{batch}/restart")
        daemon.await_state(batch, "running")
        answer(daemon, batch)
        kept = daemon.state_dir
        until(lambda: any(isinstance(one, Cycle) and b"answered" in one.events for one in items(kept)), "the answer")
        recorder = daemon.pid_called("edge-recorder")
        os.kill(recorder, signal.SIGKILL)
        until(lambda: daemon.pid_called("edge-recorder") != recorder, "another recorder")
        daemon.await_step(batch, "Fill the bottle")
    yield daemon.state_dir, batch


def items(state_dir: Path) -> list[Header | Cycle | Keyframe | Gap]:
    return list(read_journal(state_dir))


def plan() -> Plan:
    found = load_plan(BOTTLING, Problems())
    assert found is not None
    return found


def rewritten(state_dir: Path, folder: Path, change: Change) -> Path:
    """A copy of a journal in which cycles are other."""
    writer: Journal | None = None
    header: Header | None = None
    for item in items(state_dir):
        if isinstance(item, Header | Gap):
            if writer is not None:
                writer.close()
            header = item if isinstance(item, Header) else header
            assert header is not None
            writer = Journal(folder, header)
            writer.begin()
        elif writer is not None and isinstance(item, Cycle):
            item = change(item)
            writer.add(pack_record(item.cycle, item.inputs, item.outputs, item.events, item.skipped))
        elif writer is not None:
            writer.add(pack(Snapshot(item.cycle, item.state)))
    assert writer is not None
    writer.close()
    return folder


def test_what_happened_over_three_protocols_and_two_kills_is_replayed_the_same(incident: tuple[Path, str]) -> None:
    state_dir, batch = incident
    whole = edge("replay", state_dir)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert whole.stdout.count("bottling, run of") >= 2 and "gap: the recorder was interrupted" in whole.stdout
    assert "every output and event is as it was" in whole.stdout
    part = edge("replay", state_dir, "--batch", batch)
    assert part.returncode == 0, part.stdout + part.stderr


def test_an_input_that_was_changed_by_hand_is_told_with_cycle_step_and_tag(
    incident: tuple[Path, str], tmp_path: Path
) -> None:
    layout = layouts(plan().cell)[0]
    place = [plan().cell.tags[tag].name for tag in range(layout.first, layout.end)].index("mixer.level")
    filling: list[int] = []
    since: list[int] = []
    changed: list[int] = []

    def change(cycle: Cycle) -> Cycle:
        for event in unpack_events(cycle.events):
            if isinstance(event, StepStarted) and event.name == "Fill the mixer":
                filling.append(cycle.cycle)
            if isinstance(event, StepStarted | StateChanged):
                since[:] = [cycle.cycle] if getattr(event, "state", "running") == "running" else []
        if not filling or not since or cycle.cycle < since[0] + 10 or changed:
            return cycle
        inputs = list(cycle.inputs)
        for number, frame in enumerate(inputs):
            if frame[0] == INPUT and device_of(frame) == 0:
                found = layout.unpack_input(frame)
                if found.values is not None:
                    values = [50.0 if at == place else value for at, value in enumerate(found.values)]
                    inputs[number] = layout.pack_input(found.scan, found.received_ns, found.time_ns, values)
                    changed.append(cycle.cycle)
                    break
        return replace(cycle, inputs=inputs)

    again = edge("replay", rewritten(incident[0], tmp_path, change))
    assert again.returncode == 1
    assert f"cycle {changed[0]:,} (" in again.stdout
    assert "step Fill the mixer, waits for mixer.level >= volume (mixer.level = 50 L)" in again.stdout
    assert "output mixer.inlet: journal true, replay false" in again.stdout
    assert "replay alone: StepEnded" in again.stdout


def test_a_copy_without_a_change_is_the_same(incident: tuple[Path, str], tmp_path: Path) -> None:
    again = edge("replay", rewritten(incident[0], tmp_path, lambda cycle: cycle))
    assert again.returncode == 0, again.stdout


def test_another_version_of_the_recipe_shows_what_would_have_been_other(
    incident: tuple[Path, str], tmp_path: Path
) -> None:
    text = BOTTLING.with_name("rinse-and-fill.yaml").read_text()
    (tmp_path / "same.yaml").write_text(f"{text}# nothing else\n")
    same = edge("replay", incident[0], "--recipe", tmp_path / "same.yaml")
    assert same.returncode == 0, same.stdout
    (tmp_path / "other.yaml").write_text(text.replace("mixer.level >= 5 L", "mixer.level >= 4 L"))
    other = edge("replay", incident[0], "--recipe", tmp_path / "other.yaml")
    assert other.returncode == 1
    assert "step Rinse, waits for mixer.level >= 4 L" in other.stdout
    assert "output mixer.rinse: journal true, replay false" in other.stdout
    (tmp_path / "wrong.yaml").write_text(text.replace("mixer.level >= 5 L", "mixer.levle >= 5 L"))
    wrong = edge("replay", incident[0], "--recipe", tmp_path / "wrong.yaml")
    assert wrong.returncode == 1 and "mixer.levle" in wrong.stdout + wrong.stderr


def test_a_part_whose_beginning_is_gone_begins_at_its_keyframe(incident: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(incident[0], tmp_path / "state")
    segments = sorted((tmp_path / "state" / DIRECTORY).iterdir())
    for segment in segments[:-1]:
        segment.unlink()
    again = edge("replay", tmp_path / "state")
    assert again.returncode == 0, again.stdout
    assert "before the next keyframe are not replayed" in again.stdout


@pytest.mark.parametrize(
    ("number", "says"), [(1, "was written by an earlier edge"), (99, "was written by a newer edge (0.1.0)")]
)
def test_a_journal_of_another_format_says_why_it_is_not_replayed(tmp_path: Path, number: int, says: str) -> None:
    writer = Journal(tmp_path, Header(number, 1, 10_000_000, "bottling", "0.1.0" if number > 2 else ""))
    writer.begin()
    writer.close()
    again = edge("replay", tmp_path)
    assert again.returncode == 1
    assert says in again.stdout and "nothing could be replayed" in again.stderr


class Kept:
    """An engine in virtual time whose cycles go into a journal, as the loop and the recorder have them."""

    def __init__(self, folder: Path, *recipes: str) -> None:
        (folder / "cell").mkdir()
        self.state_dir = folder / "state"
        self.plan = plan_of(folder / "cell", *recipes)
        self.bench = Virtual(self.plan)
        self.journal = Journal(self.state_dir, header_of(self.plan, RUN), segment_bytes=1)
        self.journal.begin()
        self.spoilt = b"(what the journal has as zeros)"

    def run(self, cycles: int, *, skip: int = 0) -> None:
        for _ in range(cycles):
            output = self.bench.step(skip)
            if self.bench.drained or output.frames or output.events or skip:
                inputs = [one.replace(self.spoilt, bytes(len(self.spoilt))) for one in self.bench.drained]
                self.journal.add(pack_record(self.bench.cycle, inputs, output.frames, pack_events(output.events), skip))
        self.journal.flush()

    def keyframe(self) -> None:
        state = self.bench.engine.state
        self.journal.add(pack(Snapshot(state.cycle, msgspec.msgpack.encode(state))))
        self.journal.flush()

    def replayed(self, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
        code = run(Settings(self.state_dir))
        said = capsys.readouterr()
        return code, said.out + said.err


WAIT = """recipe: wait
uses: [plc]
steps:
  - {name: Open, during: {plc.valve: true}, wait: 100 ms}
  - {name: Stir, during: {plc.speed: 100 rpm}, wait: 100 ms}
"""


def test_cycles_that_an_overrun_skipped_are_not_run_and_those_that_were_idle_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Kept(tmp_path, WAIT)
    kept.bench.periods = [7, 5]
    kept.run(10)
    kept.bench.command("start", recipe="wait")
    kept.run(12)
    kept.run(2, skip=3)
    kept.keyframe()
    kept.run(30)
    code, said = kept.replayed(capsys)
    assert code == 0, said
    assert kept.bench.state() == "complete"


def test_a_recipe_that_came_into_force_is_compiled_from_its_text_and_never_unpacked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Kept(tmp_path, WAIT)
    kept.run(4)
    text = WAIT.replace("Stir", "Stir more")
    recipe = recompile(kept.plan, "wait", text)
    assert recipe is not None
    kept.spoilt = parcel.pack(recipe)
    kept.bench.send(Revision(1, "Amina", "wait", kept.spoilt, recipe.text))
    kept.run(3)
    kept.bench.command("start", recipe="wait")
    kept.run(5)
    kept.keyframe()
    kept.run(30)
    code, said = kept.replayed(capsys)
    assert code == 0, said
    with contextlib.closing(Record(kept.state_dir, kept.plan, RUN)) as book:
        book.open()
        for segment in sorted((kept.state_dir / DIRECTORY).iterdir())[:4]:
            segment.unlink()
        code, said = kept.replayed(capsys)
        assert code == 1 and "its text is neither in the journal nor in the record" in said
        book.keep([(1, Commit(1, 5, (RecipeRevised("wait", recipe.hash, "Amina", recipe.text),)))])
        code, said = kept.replayed(capsys)
        assert code == 0 and "the segments before 00000005.journal are no longer there" in said, said


def test_an_incident_becomes_a_recipe_test(incident: tuple[Path, str], tmp_path: Path) -> None:
    state_dir, batch = incident
    shutil.copytree(BOTTLING.parent, tmp_path / "cell")
    file = tmp_path / "cell" / "incident.test.yaml"
    made = edge("replay", state_dir, "--to-test", file)
    assert made.returncode == 0, made.stderr
    text = file.read_text()
    assert f"What happened to batch {batch}:" in text
    for part in (
        "parameters: {volume: 20 L}",
        '"label_ok": "yes"',
        "lost: mixer, for: ",
        "command: restart",
        "cut: power",
    ):
        assert part in text
    checked, tested = edge("check", file), edge("test", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert tested.returncode == 0, text + tested.stdout
    none = edge("replay", state_dir, "--batch", "20000101-000000", "--to-test", file)
    assert none.returncode == 1 and "has no start of a batch 20000101-000000" in none.stderr


def test_no_journal_and_no_such_batch_are_said(incident: tuple[Path, str], tmp_path: Path) -> None:
    assert edge("replay", tmp_path).returncode == 1
    none = edge("replay", incident[0], "--batch", "20000101-000000")
    assert none.returncode == 1 and "nothing of a batch 20000101-000000" in none.stderr
