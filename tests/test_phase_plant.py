"""A PLC's phase and edge: on the plant model in virtual time, and once through the real protocol."""

from pathlib import Path

import pytest

from edge.language.plan import load_trials
from edge.language.report import report
from edge.language.source import Problems
from edge.trial.trial import run_trial
from hil.plants import phase
from hil.plants.phase import EquipmentPhase
from tests.processes import Plcs, Served, running, until

CELL = """
cell: reactor
scan: 10 ms
devices: {plc: {driver: modbus, host: 127.0.0.1, every: 20 ms}}
tags:
  plc:
    command: {at: holding:0, type: int16, access: write, failsafe: 0}
    status: {at: input:0, type: int16}
    taken: {at: input:1, type: int16}
    starts: {at: input:2, type: int16}
phases:
  plc.heat:
    acknowledged: plc.taken == plc.command
    start: {plc.command: 1}
    hold: {plc.command: 2}
    restart: {plc.command: 3}
    stop: {plc.command: 4}
    abort: {plc.command: 5}
    running: plc.status == 2
    done: plc.status == 3
    held: plc.status == 4
    stopped: plc.status == 5
    aborted: plc.status == 6
"""
PLANT = """
blocks:
  heat:
    model: phase
    duration: 4 s
    inputs: {command: plc.command}
    outputs: {status: plc.status, taken: plc.taken, starts: plc.starts}
"""
RECIPE = """
recipe: heat
uses: [plc]
steps:
  - {name: Heat, do: plc.heat, within: 60 s}
  - record: {starts: plc.starts}
"""
TESTS = """
recipe: heat
always: [plc.starts <= 1]
tests:
  It runs once:
    ends: {by: 10 s, record: [starts == 1]}
  A hold and a restart go to the PLC:
    happens:
      - {step: Heat, after: 1 s, command: hold}
      - {step: Heat, after: 3 s, command: restart}
    expect:
      - {step: Heat, within: 2 s, that: plc.status == 4, state: held}
    ends: {by: 12 s, record: [starts == 1]}
  A stop ends the batch when the PLC has stopped:
    happens: [{step: Heat, after: 1 s, command: stop}]
    expect: [{step: Heat, within: 2 s, that: plc.status == 5, state: stopped}]
    ends: {state: stopped, by: 5 s}
  After a power cut it is not started again:
    happens:
      - {step: Heat, after: 1 s, cut: power, for: 1 s}
      - {step: Heat, after: 3 s, command: restart}
    ends: {by: 12 s, record: [starts == 1], alarms: [power-loss]}
  What was done meanwhile is done:
    happens:
      - {step: Heat, after: 1 s, cut: power, for: 6 s}
      - {step: Heat, after: 9 s, command: restart}
    ends: {by: 12 s, record: [starts == 1], alarms: [power-loss]}
  A connection that is lost in the middle starts nothing twice:
    happens:
      - {step: Heat, after: 40 ms, lost: plc, for: 2 s}
      - {step: Heat, after: 4 s, command: restart}
    ends: {by: 30 s, record: [starts == 1], alarms: [device-lost]}
"""


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    for name, text in (("cell", CELL), ("plant", PLANT), ("heat", RECIPE), ("heat.test", TESTS)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path / "cell.yaml"


def test_a_command_that_does_not_fit_does_nothing() -> None:
    model = EquipmentPhase(duration_s=0.1)
    for command in (phase.HOLD, phase.RESTART, phase.STOP, phase.ABORT, 0, 77):
        model.command = command
        model.step(0.01)
        assert (model.status, model.taken) == (phase.IDLE, command)


def test_a_phase_runs_holds_and_completes() -> None:
    model = EquipmentPhase(duration_s=0.1, transition_s=0.02, command=phase.START)
    seen: list[int] = []
    for command in (phase.START, phase.HOLD, phase.RESTART):
        model.command = command
        for _ in range(4):
            model.step(0.01)
            seen.append(model.status)
    for _ in range(12):
        model.step(0.01)
    assert list(dict.fromkeys(seen)) == [phase.RUNNING, phase.HOLDING, phase.HELD, phase.RESTARTING]
    assert (model.status, model.starts) == (phase.COMPLETE, 1)


def test_in_virtual_time(cell: Path) -> None:
    problems = Problems()
    (trials,) = load_trials([cell.parent], problems)
    assert not problems.errors, report(problems)
    assert trials.plant is not None
    for trial in trials.trials:
        verdict = run_trial(trials.plan, trial, trials.plant)
        assert verdict.failure is None, (trial.name, verdict.failure)


def test_through_the_real_protocol(cell: Path, tmp_path: Path) -> None:
    with (
        running(Plcs(tmp_path, cell)) as plcs,
        running(Served(tmp_path, cell, "--endpoints", plcs.endpoints)) as served,
    ):
        batch = served.start("heat")
        until(
            lambda: served.batch(batch).get("phases") == [{"step": 0, "phase": "plc.heat", "state": "running"}], "a run"
        )
        assert served.post(f"/api/batches/{batch}/hold")[0] == 200
        served.await_state(batch, "held")
        assert served.state()["tags"]["plc.status"]["value"] == phase.HELD
        assert served.post(f"/api/batches/{batch}/restart")[0] == 200
        ended = served.await_state(batch, "complete")
        assert [(one["name"], one["value"]) for one in ended["recorded"]] == [("starts", 1)]
