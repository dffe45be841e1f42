"""Live change: a changed recipe is the next version; a batch that runs keeps its own, over a restart too."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from edge import record
from edge.engine.engine import Engine
from edge.language import edition, source
from edge.language.parcel import MOST_BYTES, pack, unpack
from edge.language.plan import changes, load_plan, recompile
from edge.language.program import Plan
from edge.language.source import Problems
from edge.messages import BatchStarted, CommandDone, Commit, Event, RecipeRevised, Revision, StepStarted
from edge.recorder import Record, unfinished
from edge.versions import recalled
from tests.virtual import CELL, Virtual, plan_of

HERE = Path(__file__).parent
RUN, LIFE = 1_795_514_400_000_000_000, 7

FIRST = """recipe: one
uses: [mixer]
steps:
  - name: Fill
    during: {mixer.inlet: true}
    until: mixer.level >= 20 L
    within: 60 s
"""
SECOND = FIRST.replace("20 L", "30 L").replace("Fill", "Fill more")
BROKEN = FIRST.replace("mixer.level", "mixer.levle")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(HERE / "bottling" / "cell.yaml", tmp_path)
    (tmp_path / "one.yaml").write_text(FIRST)
    return tmp_path


def loaded(folder: Path) -> Plan:
    problems = Problems()
    plan = load_plan(folder / "cell.yaml", problems)
    assert plan is not None, list(problems)
    return plan


def revision(plan: Plan, text: str) -> Revision:
    recipe = recompile(plan, "one", text)
    assert recipe is not None
    return Revision(1, "Amina", "one", pack(recipe), text)


# What has changed in the files.


def test_files_that_are_as_they_were_change_nothing(folder: Path) -> None:
    problems = Problems()
    found = changes(loaded(folder), problems)
    assert (found.revised, found.gone, problems.errors) == ((), (), 0)


def test_a_changed_and_a_new_file_are_found_and_one_that_is_gone(folder: Path) -> None:
    (folder / "old.yaml").write_text(FIRST.replace("recipe: one", "recipe: old"))
    plan = loaded(folder)
    (folder / "old.yaml").unlink()
    (folder / "one.yaml").write_text(SECOND)
    (folder / "new.yaml").write_text(FIRST.replace("recipe: one", "recipe: new"))
    found = changes(plan, Problems())
    assert sorted(one.name for one in found.revised) == ["new", "one"] and found.gone == ("old",)


@pytest.mark.parametrize("text", [BROKEN, "recipe: one\nsteps: [", "", "steps: []"])
def test_a_file_with_a_mistake_changes_nothing_and_is_not_gone(folder: Path, text: str) -> None:
    plan = loaded(folder)
    (folder / "one.yaml").write_text(text)
    problems = Problems()
    found = changes(plan, problems)
    assert (found.revised, found.gone) == ((), ()) and problems.errors


def test_a_recipe_that_can_wait_for_ever_for_another_is_not_taken_in(folder: Path) -> None:
    acquire = "  - {{acquire: [{}], within: 1 s}}\n"
    order = f"recipe: {{}}\nshares: [mixer, conveyor]\nsteps:\n{acquire}{acquire}"
    (folder / "a.yaml").write_text(order.format("a", "mixer", "conveyor"))
    plan = loaded(folder)
    (folder / "b.yaml").write_text(order.format("b", "conveyor", "mixer"))
    problems = Problems()
    assert changes(plan, problems).revised == ()
    assert [(one.code, Path(one.file).name) for one in problems if one.severity == "error"] == [("deadlock", "b.yaml")]


def test_a_changed_cell_takes_a_restart(folder: Path) -> None:
    plan = loaded(folder)
    (folder / "one.yaml").write_text(SECOND)
    with (folder / "cell.yaml").open("a") as file:
        file.write("# later\n")
    problems = Problems()
    assert changes(plan, problems).revised == ()
    assert [one.code for one in problems] == ["cell-changed"]


def test_an_older_version_is_compiled_against_the_cell_that_was_loaded(folder: Path) -> None:
    plan = loaded(folder)
    (folder / "cell.yaml").write_text("cell: other\n")
    recipe = recompile(plan, "one", FIRST)
    assert recipe is not None and recipe.hash == plan.recipes["one"].hash
    assert [one.name for one in recipe.steps] == ["Fill"]
    assert recompile(plan, "one", BROKEN) is None and recompile(plan, "one", "") is None


# With another recipe in it.

OPERATION = """recipe: two
uses: [mixer]
steps:
  - {name: Empty, set: {mixer.inlet: false}, until: mixer.level < 5 L, within: 60 s}
"""
WHOLE = FIRST + "  - include: two\n  - include: two\n"


@pytest.fixture
def pair(folder: Path) -> Plan:
    """The plan of a recipe and of the one that it includes."""
    (folder / "one.yaml").write_text(WHOLE)
    (folder / "two.yaml").write_text(OPERATION)
    return loaded(folder)


def test_a_recipe_changes_with_the_one_that_it_includes(folder: Path, pair: Plan) -> None:
    assert changes(pair, Problems()).revised == ()
    (folder / "two.yaml").write_text(OPERATION.replace("Empty", "Drain"))
    revised = {one.name: one for one in changes(pair, Problems()).revised}
    assert sorted(revised) == ["one", "two"]
    assert [one.name for one in revised["one"].steps if one.kind == "until"] == ["Fill", "Drain", "Drain"]
    assert revised["one"].text.count("recipe: two") == 1 and source.digest(revised["one"].text) == revised["one"].hash


def test_a_mistake_in_what_is_included_leaves_both_versions_in_force(folder: Path, pair: Plan) -> None:
    (folder / "two.yaml").write_text(OPERATION.replace("mixer.level", "mixer.levle"))
    found = changes(pair, Problems())
    assert (found.revised, found.gone) == ((), ())


@pytest.mark.parametrize("now", ["recipe: two\nsteps: [{wait: 1 s}]\n", "recipe: other\nsteps: [{wait: 1 s}]\n"])
def test_an_older_version_includes_what_was_included_then(folder: Path, pair: Plan, now: str) -> None:
    (folder / "two.yaml").write_text(now)
    recipe = recompile(pair, "one", pair.recipes["one"].text)
    assert recipe is not None and recipe.hash == pair.recipes["one"].hash
    assert [one.name for one in recipe.steps if one.kind == "until"] == ["Fill", "Empty", "Empty"]


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n# the end"])
def test_a_text_comes_apart_as_it_was_put_together(end: str) -> None:
    parts = f"recipe: one{end}", {"two": f"recipe: two{end}", "3-x": end}
    assert edition.parted(edition.joined(*parts)) == parts
    assert edition.parted("recipe: one") == ("recipe: one", {})


# From one process to another.


def test_a_packed_recipe_is_the_same_recipe() -> None:
    plan = loaded(HERE / "bottling")
    for recipe in plan.recipes.values():
        again = unpack(pack(recipe), recipe.text)
        assert (again.name, again.hash, again.text, again.body) == (
            recipe.name,
            recipe.hash,
            recipe.text,
            recipe.body,
        )
        values, variables = [1] * len(plan.cell.tags), [1] * len(recipe.variables)
        for mine, other in zip(recipe.steps, again.steps, strict=True):
            if mine.until is not None and other.until is not None:
                assert mine.until(values, variables) == other.until(values, variables)


@pytest.mark.parametrize("data", [b"", b"\x80", pack(loaded(HERE / "bottling").recipes["rinse-and-fill"])[:-9]])
def test_what_was_not_packed_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(data, "")


# In the engine.

FILL = """recipe: one
uses: [plc]
steps:
  - name: Fill
    during: {plc.valve: true}
    until: plc.level >= 20 L
    within: 60 s
"""
FILL_MORE = FILL.replace("20 L", "30 L").replace("Fill", "Fill more")


def test_a_batch_that_runs_keeps_its_version_and_the_next_one_has_the_new(tmp_path: Path) -> None:
    virtual = Virtual(plan_of(tmp_path, FILL))
    virtual.put("plc.level", 5.0)
    virtual.start("one")
    virtual.send(revision(virtual.plan, FILL_MORE))
    virtual.run(3)
    (revised,) = virtual.of(RecipeRevised)
    assert (revised.recipe, revised.by, revised.text) == ("one", "Amina", FILL_MORE)
    assert [one.ok for one in virtual.of(CommandDone)][-1] and virtual.state() == "running"
    virtual.put("plc.level", 25.0)
    virtual.run(4)
    assert virtual.state() == "complete"
    virtual.start("one", "B2")
    assert [one.name for one in virtual.of(StepStarted)] == ["Fill", "Fill more"]
    assert virtual.state("B2") == "running" and virtual.batch("B2").hash == revised.hash
    first, second = virtual.of(BatchStarted)
    assert first.hash != second.hash == revised.hash


def test_versions_that_no_batch_runs_are_forgotten(tmp_path: Path) -> None:
    virtual = Virtual(plan_of(tmp_path, FILL))
    virtual.put("plc.level", 5.0)
    virtual.start("one")
    for litres in range(21, 41):
        virtual.send(revision(virtual.plan, FILL.replace("20 L", f"{litres} L")))
        virtual.run()
    assert list(virtual.engine.plan.others) == [virtual.batch().hash]


def test_the_same_packets_give_the_same_outputs_with_a_revision_among_them(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, FILL)
    virtual = Virtual(plan)
    virtual.put("plc.level", 25.0)
    virtual.start("one")
    virtual.send(revision(plan, FILL_MORE))
    virtual.run(5)
    virtual.start("one", "B2")
    virtual.run(5)
    again = Engine(plan)
    events = [event for cycle, packets in virtual.taken for event in again.step(cycle, packets).events]
    assert events == virtual.events and again.state == virtual.engine.state


def test_an_engine_that_takes_over_a_state_runs_each_batch_in_its_version(tmp_path: Path) -> None:
    virtual = Virtual(plan_of(tmp_path, FILL))
    virtual.put("plc.level", 5.0)
    virtual.start("one")
    virtual.send(revision(virtual.plan, FILL_MORE))
    virtual.run(3)
    again = Engine(virtual.engine.plan, virtual.engine.state)
    assert again.control.sequences["B1"].recipe.steps[0].name == "Fill"
    assert again.state.versions == {"one": again.plan.recipes["one"].hash}


def test_a_withdrawn_recipe_starts_no_batch_and_stops_none(tmp_path: Path) -> None:
    virtual = Virtual(plan_of(tmp_path, FILL))
    virtual.put("plc.level", 5.0)
    virtual.start("one")
    virtual.send(Revision(1, "Amina", "one"))
    virtual.run(3)
    assert virtual.state() == "running" and virtual.engine.state.versions == {"one": ""}
    virtual.command("start", "B2", recipe="one", parameters={})
    virtual.run()
    assert "no recipe" in virtual.of(CommandDone)[-1].text
    virtual.put("plc.level", 25.0)
    virtual.run(4)
    assert virtual.state() == "complete"


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (Revision(1, "Amina", "one", b"nothing"), "no recipe that this Python packed"),
        (Revision(1, "Amina", "one", bytes(MOST_BYTES + 1)), "too long"),
        (Revision(1, "Amina", "two"), "there is no recipe two"),
        (Revision(1, "Amina", "one", until=1), "too late"),
    ],
)
def test_a_revision_that_cannot_be_is_refused_and_changes_nothing(tmp_path: Path, packet: Revision, text: str) -> None:
    virtual = Virtual(plan_of(tmp_path, FILL))
    virtual.run(5)
    virtual.send(packet)
    virtual.run()
    (done,) = virtual.of(CommandDone)
    assert not done.ok and text in done.text and set(done.say) == {"en", "fr", "ar"}
    assert virtual.engine.plan.recipes["one"].text == FILL and virtual.engine.state.versions == {}


# After a restart: the record knows the versions.


def recorded(folder: Path, plan: Plan, *events: Event, batches: dict[str, bytes] | None = None) -> Path:
    """A record in which these have happened, in one commit."""
    writer = Record(folder, plan, RUN, LIFE)
    writer.open()
    assert writer.keep([(RUN, Commit(writer.last + 1, 1, events, batches or {}))])
    writer.close()
    return folder / record.FILE


def test_a_loop_that_starts_again_has_the_versions_of_this_life_of_the_daemon(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, FILL)
    digest = source.digest(FILL_MORE)
    path = recorded(tmp_path, plan, RecipeRevised("one", digest, "Amina", FILL_MORE))
    assert recalled(plan, tmp_path, LIFE).recipes["one"].hash == digest
    assert recalled(plan, tmp_path, LIFE + 1).recipes["one"].hash == source.digest(FILL)  # it reads the files
    recorded(tmp_path, plan)  # the recorder starts again: the version that was brought stays in force
    assert [(one.version, one.hash, one.by) for one in record.versions(path)] == [
        (1, source.digest(FILL), "edge"),
        (2, digest, "Amina"),
    ]
    recorded(tmp_path, plan, RecipeRevised("one", "", "Amina"))
    assert recalled(plan, tmp_path, LIFE).recipes == {}


def test_a_batch_says_which_version_it_ran(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, FILL)
    digest = source.digest(FILL_MORE)
    path = recorded(
        tmp_path,
        plan,
        BatchStarted("B1", "one", source.digest(FILL), {}, "Amina"),
        RecipeRevised("one", digest, "Amina", FILL_MORE),
        BatchStarted("B2", "one", digest, {}, "Amina"),
    )
    assert [(one.id, one.version) for one in record.batches(path)] == [("B2", 2), ("B1", 1)]
    assert record.batch(path, "B1").recipe_text == FILL and record.batch(path, "B2").recipe_text == FILL_MORE


@pytest.mark.parametrize("changed", ["revised", "gone"])
def test_a_batch_goes_on_in_its_version_after_a_power_cut(tmp_path: Path, changed: str) -> None:
    plan = plan_of(tmp_path, FILL)
    virtual = Virtual(plan)
    virtual.put("plc.level", 5.0)
    virtual.start("one")
    recorded(tmp_path, plan, *virtual.of(BatchStarted), batches={"B1": virtual.blobs["B1"]})
    (tmp_path / "recipe0.yaml").unlink()
    later = plan_of(tmp_path, FILL_MORE if changed == "revised" else FILL.replace("recipe: one", "recipe: two"))
    again = Virtual(recalled(later, tmp_path, LIFE + 1))
    again.put("plc.level", 5.0)
    again.restore(virtual.blobs["B1"])
    again.run(4)
    assert again.state() == "held"
    again.command("restart")
    again.run(10)
    assert again.state() == "running" and again.level("plc.valve") is True
    again.put("plc.level", 25.0)
    again.run(4)
    assert again.state() == "complete"
    later_record = Record(tmp_path, recalled(later, tmp_path, LIFE + 1), RUN + 1, LIFE + 1)
    later_record.open()  # which ends what no loop can resume
    later_record.close()
    assert len(unfinished(tmp_path)) == 1


def test_a_batch_goes_on_after_a_power_cut_with_what_was_included_then(tmp_path: Path) -> None:
    operation = FILL.replace("recipe: one", "recipe: two")
    plan = plan_of(tmp_path, "recipe: one\nuses: [plc]\nsteps: [{include: two}]\n", operation)
    virtual = Virtual(plan)
    virtual.put("plc.level", 5.0)
    virtual.start("one")
    recorded(tmp_path, plan, *virtual.of(BatchStarted), batches={"B1": virtual.blobs["B1"]})
    (tmp_path / "recipe1.yaml").write_text("recipe: two\nsteps: [{wait: 1 s}]\n")
    problems = Problems()
    later = load_plan(tmp_path / "cell.yaml", problems)
    assert later is not None and later.recipes["one"].hash != plan.recipes["one"].hash
    again = Virtual(recalled(later, tmp_path, LIFE + 1))
    again.put("plc.level", 5.0)
    again.restore(virtual.blobs["B1"])
    again.run(4)
    again.command("restart")
    again.run(10)
    assert again.state() == "running" and again.level("plc.valve") is True
    again.put("plc.level", 25.0)
    again.run(4)
    assert again.state() == "complete"


def test_a_batch_whose_version_does_not_fit_the_cell_any_more_is_aborted(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, FILL)
    virtual = Virtual(plan)
    virtual.put("plc.level", 5.0)
    virtual.start("one")
    recorded(tmp_path, plan, *virtual.of(BatchStarted), batches={"B1": virtual.blobs["B1"]})
    later = plan_of(tmp_path, FILL.replace("plc.valve", "plc.drain"), cell=CELL.replace("    valve:", "    vent:"))
    again = Virtual(recalled(later, tmp_path, LIFE + 1))
    again.restore(virtual.blobs["B1"])
    again.run(4)
    assert again.state() == "aborted"


def test_a_record_that_is_just_being_made_is_no_reason_not_to_start(folder: Path) -> None:
    """The loop and the recorder start together: the file may be there before its tables are."""
    with contextlib.closing(sqlite3.connect(folder / record.FILE, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        plan = loaded(folder)
        assert recalled(plan, folder, LIFE).recipes == plan.recipes
