"""Sweeps: a run that is forked goes on alike, each kind of fault is tried, the smallest case that fails is replayed."""

import re
import shutil
from pathlib import Path

import pytest

from edge.cli import main
from edge.engine.engine import Engine, Output
from edge.language.plan import TEST, Trials, load_trials
from edge.language.report import report
from edge.language.source import Problems
from edge.trial.sweep import Case, Course, sweep
from edge.trial.trial import Run

BOTTLING = Path(__file__).parent.parent / "recipes" / "bottling"

FRAGILE = """
recipe: rinse-and-fill
answers: {label_ok: "yes"}
parameters: {volume: 5 L}
tests:
  The mixer is never fuller than it should be:
    always: [mixer.level < 8 L]
    expect: [{by: 10 s, that: mixer.level >= 5 L}]
    ends: {by: 30 s}
"""
SOUND = FRAGILE.replace("mixer.level < 8 L", "not (mixer.inlet and mixer.drain)")


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """The shipped cell with its recipes and its plant, without their tests."""
    shutil.copytree(BOTTLING, tmp_path / "cell", ignore=shutil.ignore_patterns(f"*{TEST}"))
    return tmp_path / "cell"


def loaded(cell: Path, text: str) -> Trials:
    (cell / "a.test.yaml").write_text(text)
    problems = Problems()
    (made,) = load_trials([cell / "a.test.yaml"], problems)
    assert not problems.errors, report(problems)
    return made


def course(cell: Path, text: str) -> Course:
    made = loaded(cell, text)
    return Course(made.plan, made.trials[0], made.plant)


FAULTY = """
recipe: rinse-and-fill
answers: {label_ok: "yes"}
always: ["not stable(mixer.inlet, 30 s)"]
tests:
  Much happens:
    happens:
      - {at: 1 s, slow: mixer, by: 100 ms, for: 2 s}
      - {at: 4 s, drift: mixer.level, by: 0.1 L/s, for: 3 s}
      - {step: Bring a bottle, after: 200 ms, lost: conveyor, for: 1 s}
      - {step: Bring a bottle, after: 2 s, command: restart}
      - {step: Drain the rest, stuck: mixer.drain, to: false, for: 500 ms}
    ends: {by: 60 s, alarms: [device-lost]}
"""


def told(run: Run) -> tuple[object, ...]:
    site = run.site
    return site.engine.state, site.truth, site.plant.state(), run.state, run.recorded, run.raised


def test_a_run_that_is_forked_goes_on_alike(cell: Path) -> None:
    start = course(cell, FAULTY).start
    straight, forked = start.fork(), start.fork()
    other: Case | None = None
    for cycle in range(3000):
        if cycle % 37 == 0:
            forked = forked.fork()
        straight.forward()
        forked.forward()
        if cycle == 500:
            other = forked.fork()
            while not other.rests(0):
                other.forward()
        assert told(straight) == told(forked), cycle
    assert other is not None and straight.ended is not None and told(other)[3:] == told(straight)[3:]


def test_every_kind_of_fault_is_tried_of_all_that_the_recipe_concerns(cell: Path) -> None:
    tried = course(cell, SOUND)
    kinds = {(one.kind, one.target) for one in tried.faults}
    assert {("lost", "mixer"), ("slow", "robot"), ("cut", "power"), ("stuck", "mixer.inlet")} <= kinds
    assert {(kind, "mixer.level") for kind in ("bad", "stuck", "spike", "drift")} <= kinds
    assert {one.event.what for one in tried.faults} == {"lost", "slow", "bad", "stuck", "spike", "drift", "cut"}


def test_every_fault_reads_in_a_test_file_as_it_was_tried(cell: Path) -> None:
    for fault in course(cell, SOUND).faults:
        text = SOUND.replace("    always:", f"    happens: [{{at: 10 ms, {fault.keys}}}]\n    always:")
        (event,) = loaded(cell, text).trials[0].events
        period = 2  # cycles: a spike that does not say how long it lasts is seen for one scan of its device
        wanted = fault.event
        assert (event.what, event.target, event.value, event.rate, event.late, event.cycles or period) == (
            (wanted.what, wanted.target, wanted.value, wanted.rate, wanted.late, wanted.cycles)
        ), fault.keys


def test_a_fault_that_changes_nothing_rejoins_at_once(cell: Path) -> None:
    tried = course(cell, SOUND)
    number = next(place for place, one in enumerate(tried.faults) if one.keys.startswith("bad: conveyor.lot"))
    how, finding = tried.start.fork().follow(number, tried.faults[number], tried)
    assert (how, finding) == ("rejoined", None)


def test_a_recipe_that_bears_every_fault_passes(cell: Path) -> None:
    made = loaded(cell, SOUND)
    swept = sweep(made.plan, made.trials[0], made.plant, 60)
    assert swept.smallest is None
    assert 40 < swept.covered <= 60 < swept.total
    assert swept.counts["rejoined"] and swept.counts["waiting"]


def test_the_smallest_case_that_fails_does_not_depend_on_the_cores(cell: Path) -> None:
    made = loaded(cell, FRAGILE)
    swept = [sweep(made.plan, made.trials[0], made.plant, 120, cores) for cores in (1, 3)]
    assert swept[0] == swept[1] and swept[0].smallest is not None
    finding, fault = swept[0].smallest
    tried = course(cell, FRAGILE)
    case = tried.start.fork()
    while case.now < finding.cycle - 2:
        case.forward()
    assert case.fork().follow(finding.fault, fault, tried)[1] is None  # a cycle before it does not fail
    case.forward()
    assert case.follow(finding.fault, fault, tried)[1] == finding


def test_a_case_that_fails_is_told_and_replayed(cell: Path, monkeypatch, capsys) -> None:
    loaded(cell, FRAGILE)
    monkeypatch.chdir(cell)
    assert main(["test", "a.test.yaml", "--sweep", "--cases", "120"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"should be FAILED \d+ of [\d,]+ faults: ", out)
    assert re.search(r"the smallest case that fails: \w+, mixer[\w.]*, cycle \d+", out)
    (moment,) = re.findall(r"^at [\d.]+ s, .*$", out, re.MULTILINE)
    assert "to replay it: edge test a.6.swept.test.yaml" in out
    assert main(["test", "a.6.swept.test.yaml"]) == 1
    replayed = capsys.readouterr().out
    assert moment in replayed and "this must always be: mixer.level < 8 L" in replayed
    swept = cell / "a.6.swept.test.yaml"
    swept.write_text(swept.read_text().replace("mixer.level < 8 L", "mixer.level < 90 L"))
    assert main(["test", "a.6.swept.test.yaml"]) == 0  # all else is as the case had it


def test_a_fault_that_edge_itself_does_not_bear_is_found(cell: Path, monkeypatch) -> None:
    tried = course(cell, SOUND)
    number = next(place for place, one in enumerate(tried.faults) if one.keys.startswith("bad: mixer.level"))
    level, step = tried.faults[number].event.target, Engine.step

    def broken(engine: Engine, cycle: int, packets: list[bytes]) -> Output:
        output = step(engine, cycle, packets)
        if engine.state.values[level] is None:
            raise ArithmeticError("no level")
        return output

    monkeypatch.setattr(Engine, "step", broken)
    how, finding = tried.start.fork().follow(number, tried.faults[number], tried)
    assert how == "failed" and finding is not None
    assert finding.failure.message == "edge itself fails: ArithmeticError('no level')"


def test_how_a_sweep_is_asked_for(cell: Path, monkeypatch, capsys) -> None:
    loaded(cell, SOUND)
    monkeypatch.chdir(cell)
    assert main(["test", "a.test.yaml", "--sweep", "--junit", "x.xml"]) == 2
    with pytest.raises(SystemExit):
        main(["test", "a.test.yaml", "--sweep", "--cases", "0"])
    assert "is no number of cases" in capsys.readouterr().err
