"""Equipment phases: a PLC's phase, a PackML unit, a level; commanded, acknowledged, held, restarted, stopped."""

from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.value import Value
from edge.language.plan import check
from edge.language.source import Problems
from edge.messages import AlarmRaised, PhaseChanged
from tests.virtual import Virtual, plan_of

DEVICES = """
cell: bench
scan: 10 ms
devices: {plc: {driver: modbus, host: 127.0.0.1, every: 10 ms}}
tags:
  plc:
    command: {at: holding:0, type: int16, access: write, failsafe: 0}
    setpoint: {at: holding:1, type: int16, unit: degC, access: write, failsafe: 0}
    request: {at: coil:0, type: bool, access: write, failsafe: false}
    run: {at: coil:1, type: bool, access: write, failsafe: false}
    status: {at: input:0, type: int16}
    echo: {at: input:1, type: int16}
"""

# An ISA-88 phase of a PLC: a command word whose change is the command, echoed; a status word.
WORD = """
phases:
  plc.heat:
    parameters: {setpoint: plc.setpoint}
    start: {plc.command: 1}
    acknowledged: plc.echo == plc.command
    running: plc.status == 2
    done: plc.status == 3
    failed: plc.status == 9
    hold: {plc.command: 2}
    held: plc.status == 4
    restart: {plc.command: 3}
    stop: {plc.command: 4}
    stopped: plc.status == 5
    abort: {plc.command: 5}
    aborted: plc.status == 6
    within: {hold: 1 s, stop: 2 s, abort: 500 ms}
"""

# A PackML unit (ISA-TR88.00.02): CntrlCmd and CmdChangeRequest, StateCurrent.
PACKML = """
phases:
  plc.heat:
    parameters: {setpoint: plc.setpoint}
    request: plc.request
    ready: plc.status == 4
    reset: {plc.command: 1}
    start: {plc.command: 2}
    running: plc.status == 6
    done: plc.status == 17
    failed: plc.status == 9
    hold: {plc.command: 4}
    held: plc.status == 11
    restart: {plc.command: 5}
    stop: {plc.command: 3}
    stopped: plc.status == 2
    within: {start: 1 s, hold: 1 s, stop: 1 s}
"""

# A level: it runs as long as the bit stands.
LEVEL = """
phases:
  plc.heat:
    parameters: {setpoint: plc.setpoint}
    start: {plc.run: true}
    running: plc.status == 2
    done: plc.status == 3
"""

RECIPE = """
recipe: r
uses: [plc]
steps:
  - {name: Heat, do: plc.heat, with: {setpoint: 60 degC}, within: 60 s}
  - {name: Rest, wait: 100 ms}
"""


Bench = Callable[..., Virtual]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A batch of the recipe on a cell with these phases, started."""

    def made(phases: str, recipe: str = RECIPE, **shown: Value) -> Virtual:
        run = Virtual(plan_of(tmp_path, recipe, cell=DEVICES + phases))
        for tag, value in shown.items():
            run.put(f"plc.{tag}", value)
        run.start("r")
        run.run(4)
        return run

    return made


def gives(run: Virtual) -> tuple[Value | None, ...]:
    return tuple(run.level(f"plc.{tag}") for tag in ("command", "request", "setpoint"))


def phases(run: Virtual) -> list[str]:
    return [event.state for event in run.of(PhaseChanged)]


def kinds(run: Virtual) -> list[str]:
    return [alarm.kind for alarm in run.of(AlarmRaised)]


def running_word(bench: Bench, recipe: str = RECIPE) -> Virtual:
    """The PLC has taken the start of its phase."""
    run = bench(WORD, recipe)
    assert gives(run) == (1, False, 60)
    run.put("plc.echo", 1)
    run.put("plc.status", 2)
    run.run(3)
    run.put("plc.echo", 0)
    run.run(2)
    assert gives(run) == (0, False, 60)
    return run


# --- a PLC's phase ---------------------------------------------------------------------------------------------------


def test_the_parameters_are_there_before_the_start(bench: Bench) -> None:
    run = bench(WORD, RECIPE.replace("  - {name: Heat", "  - wait: 100 ms\n  - {name: Heat"))
    seen: list[tuple[Value | None, ...]] = []
    while gives(run)[0] == 0 and len(seen) < 100:
        seen.append(gives(run))
        run.run()
    assert seen[-1] == (0, False, 60) and gives(run) == (1, False, 60)


def test_a_start_waits_until_it_is_durable_that_it_will_be_given(bench: Bench) -> None:
    run = bench("\n" + WORD, RECIPE.replace("  - {name: Heat", "  - wait: 500 ms\n  - {name: Heat"))
    run.run(36)
    run.durable = False
    run.run(60)
    assert gives(run)[0] == 0


def test_a_start_is_taken_back_when_it_is_acknowledged_and_done_ends_the_step(bench: Bench) -> None:
    run = running_word(bench)
    run.put("plc.status", 3)
    run.run(2)
    assert phases(run) == ["starting", "running", "complete"]
    assert gives(run) == (0, False, 0) and run.batch().phases == {}
    run.run(12)
    assert run.state() == "complete"


def test_a_done_of_an_earlier_run_counts_for_nothing(bench: Bench) -> None:
    run = bench(WORD, status=3)
    run.put("plc.echo", 1)
    run.run(20)
    assert gives(run) == (0, False, 60) and run.state() == "running" and phases(run) == ["starting"]
    run.put("plc.status", 2)
    run.run(2)
    run.put("plc.status", 3)
    run.run(20)
    assert run.state() == "complete"


def test_a_phase_too_short_to_be_seen_running_is_done_once_its_start_was_acknowledged(bench: Bench) -> None:
    run = bench(WORD, status=1)
    run.put("plc.echo", 1)
    run.put("plc.status", 3)
    run.run(3)
    assert phases(run) == ["starting", "complete"]


def test_an_acknowledgement_from_before_counts_for_nothing(bench: Bench) -> None:
    """A word that the PLC itself takes back: its echo is what the command is at rest, too."""
    run = bench(WORD)
    run.following = False
    run.put("plc.command", 0)
    run.run(5)
    assert gives(run)[0] == 1 or run.batch().phases[0].stage == 4


def test_what_runs_already_is_not_started(bench: Bench) -> None:
    run = bench(WORD, status=2)
    run.run(50)
    assert gives(run) == (0, False, 0) and phases(run) == []
    run.put("plc.status", 1)
    run.run(5)
    assert gives(run) == (1, False, 60)


def test_a_hold_is_handed_over_and_the_batch_is_held_when_the_machine_says_so(bench: Bench) -> None:
    run = running_word(bench)
    run.command("hold")
    run.run(5)
    assert gives(run) == (2, False, 60) and run.state() == "holding"
    run.put("plc.echo", 2)
    run.run(2)
    assert gives(run) == (0, False, 60) and run.state() == "holding", "taken, and not yet held"
    run.put("plc.echo", 0)
    run.put("plc.status", 4)
    run.run(2)
    assert run.state() == "held" and not kinds(run)


def held_word(bench: Bench) -> Virtual:
    run = running_word(bench)
    run.command("hold")
    run.run(3)
    run.put("plc.status", 4)
    run.run(3)
    assert run.state() == "held" and gives(run) == (0, False, 60)
    return run


def test_a_restart_is_handed_over(bench: Bench) -> None:
    run = held_word(bench)
    run.command("restart")
    run.run(8)
    assert gives(run) == (3, False, 60)
    run.put("plc.status", 2)
    run.run(2)
    assert gives(run) == (0, False, 60)
    run.put("plc.status", 3)
    run.run(20)
    assert run.state() == "complete"
    assert phases(run) == ["starting", "running", "holding", "held", "restarting", "running", "complete"]


def test_a_phase_that_knows_no_restart_is_started_anew(bench: Bench) -> None:
    run = bench(WORD.replace("    restart: {plc.command: 3}\n", ""))
    run.put("plc.status", 2)
    run.run(3)
    run.command("hold")
    run.run(3)
    run.put("plc.status", 4)
    run.run(3)
    run.command("restart")
    run.run(12)
    assert gives(run) == (1, False, 60)


def test_a_phase_that_does_not_hold_in_time_is_an_alarm_and_one_that_runs_on_is_not_started_again(bench: Bench) -> None:
    run = running_word(bench)
    run.command("hold")
    run.run(99)
    assert run.state() == "holding"
    run.run(8)
    assert run.state() == "held" and kinds(run) == ["phase-late"] and gives(run) == (0, False, 60)
    run.command("restart")
    run.run(10)
    assert run.state() == "running" and gives(run) == (0, False, 60) and phases(run)[-1] == "running"
    run.put("plc.status", 3)
    run.run(20)
    assert run.state() == "complete"


def test_a_phase_that_ends_while_it_is_to_be_held_is_done(bench: Bench) -> None:
    run = running_word(bench)
    run.command("hold")
    run.run(3)
    run.put("plc.status", 3)
    run.run(3)
    assert run.state() == "held" and not kinds(run)
    run.command("restart")
    run.run(20)
    assert run.state() == "complete" and phases(run).count("starting") == 1


def test_a_stop_is_handed_over_and_ends_the_batch_when_the_machine_says_so(bench: Bench) -> None:
    run = running_word(bench)
    run.command("stop")
    run.run(50)
    assert gives(run) == (4, False, 60) and run.state() == "stopping"
    run.put("plc.status", 5)
    run.run(2)
    assert run.state() == "stopped" and gives(run) == (0, False, 0) and not kinds(run)


def test_a_phase_that_does_not_stop_in_time_ends_with_its_batch_all_the_same(bench: Bench) -> None:
    run = running_word(bench)
    run.command("stop")
    run.run(199)
    assert run.state() == "stopping"
    run.run(10)
    assert run.state() == "stopped" and kinds(run) == ["phase-late"] and gives(run) == (0, False, 0)


def test_an_abort_is_handed_over_at_once_from_any_state(bench: Bench) -> None:
    run = running_word(bench)
    run.durable = False
    run.command("stop")
    run.run(2)
    run.command("abort")
    run.run(4)
    assert gives(run) == (5, False, 0) and run.state() == "aborting"
    run.put("plc.status", 6)
    run.run(2)
    assert run.state() == "aborted" and gives(run) == (0, False, 0)


def test_a_held_phase_is_stopped_too(bench: Bench) -> None:
    run = held_word(bench)
    run.command("stop")
    run.run(5)
    assert gives(run)[0] == 4
    run.put("plc.status", 5)
    run.run(2)
    assert run.state() == "stopped"


def test_a_phase_that_the_machine_holds_by_itself_holds_the_batch(bench: Bench) -> None:
    run = running_word(bench)
    run.put("plc.status", 4)
    run.run(3)
    assert run.state() == "held" and kinds(run) == ["phase-held"] and gives(run)[0] == 0
    run.command("restart")
    run.run(8)
    assert gives(run)[0] == 3


def test_a_phase_that_the_machine_stops_by_itself_holds_the_batch(bench: Bench) -> None:
    run = running_word(bench)
    run.put("plc.status", 5)
    run.run(3)
    assert run.state() in ("holding", "held") and kinds(run) == ["phase-failed"]


def test_a_step_that_is_left_stops_its_phase_and_the_next_run_waits_for_that(bench: Bench) -> None:
    steps = RECIPE.replace("within: 60 s", "within: 300 ms, on_timeout: continue").replace(
        "  - {name: Rest, wait: 100 ms}", "  - {name: Again, do: plc.heat, with: {setpoint: 70 degC}, within: 9 s}"
    )
    run = bench(WORD, steps)
    run.put("plc.status", 2)
    run.run(40)
    assert gives(run) == (4, False, 60)
    run.put("plc.status", 5)
    run.run(6)
    assert gives(run) == (1, False, 70)


def test_a_batch_is_complete_only_when_the_phases_that_it_left_have_stopped(bench: Bench) -> None:
    run = bench(WORD, RECIPE.replace("within: 60 s", "within: 300 ms, on_timeout: continue"))
    run.put("plc.status", 2)
    run.run(60)
    assert run.state() == "running"
    run.put("plc.status", 5)
    run.run(2)
    assert run.state() == "complete"


# --- after a power loss ----------------------------------------------------------------------------------------------


def after_power_loss(run: Virtual, **shown: Value) -> Virtual:
    """The batch, restored after a power loss and restarted, at a machine that shows this."""
    again = Virtual(run.plan)
    for tag, value in shown.items():
        again.put(f"plc.{tag}", value)
    again.restore(run.blobs["B1"])
    again.run(3)
    assert again.state() == "held" and gives(again) == (0, False, 0)
    again.command("restart")
    again.run(10)
    assert again.state() == "running"
    return again


def test_after_a_power_loss_a_phase_that_still_runs_is_gone_on_with(bench: Bench) -> None:
    again = after_power_loss(running_word(bench), status=2)
    assert gives(again) == (0, False, 60)
    again.put("plc.status", 3)
    again.run(20)
    assert again.state() == "complete" and "starting" not in phases(again)


def test_after_a_power_loss_a_phase_that_is_held_is_restarted(bench: Bench) -> None:
    again = after_power_loss(running_word(bench), status=4)
    assert gives(again) == (3, False, 60)


def test_after_a_power_loss_a_phase_that_was_done_meanwhile_is_done(bench: Bench) -> None:
    again = after_power_loss(running_word(bench), status=3)
    again.run(20)
    assert again.state() == "complete"


def test_after_a_power_loss_a_phase_whose_start_was_lost_is_started(bench: Bench) -> None:
    again = after_power_loss(bench(WORD, status=1), status=1)
    assert gives(again) == (1, False, 60)


def test_after_a_power_loss_a_start_that_arrived_is_not_given_again(bench: Bench) -> None:
    again = after_power_loss(bench(WORD, status=1), status=2)
    assert gives(again) == (0, False, 60) and "starting" not in phases(again)


def test_after_a_power_loss_what_was_stopping_is_still_stopped(bench: Bench) -> None:
    run = bench(WORD, RECIPE.replace("within: 60 s", "within: 300 ms, on_timeout: continue"))
    run.put("plc.status", 2)
    run.run(40)
    assert gives(run)[0] == 4
    again = Virtual(run.plan)
    again.put("plc.status", 2)
    again.restore(run.blobs["B1"])
    again.run(5)
    assert again.state() == "held" and gives(again)[0] == 4


# --- bad values and lost devices -------------------------------------------------------------------------------------


def test_an_unknown_status_is_no_status(bench: Bench) -> None:
    run = running_word(bench)
    run.put("plc.status", None)
    run.run(30)
    assert run.state() == "running" and phases(run) == ["starting", "running"]
    run.put("plc.status", 3)
    run.run(20)
    assert run.state() == "complete"


def test_a_device_that_is_lost_while_its_phase_runs_is_compared_when_it_is_back(bench: Bench) -> None:
    run = running_word(bench)
    run.lose("plc")
    run.run(120)
    assert run.state() == "held" and "phase-late" in kinds(run)
    run.find("plc")
    run.run(3)
    run.command("restart")
    run.run(10)
    assert phases(run).count("starting") == 1 and phases(run)[-1] == "running"


# --- a PackML unit ---------------------------------------------------------------------------------------------------


def test_packml_a_request_rises_when_the_command_reads_back_and_falls_when_it_was_taken(bench: Bench) -> None:
    run = bench(PACKML, status=4)
    run.run(2)
    assert gives(run) == (2, True, 60)
    run.put("plc.status", 6)
    run.run(2)
    assert gives(run) == (2, False, 60) and phases(run) == ["starting", "running"]


def test_packml_a_unit_that_is_not_idle_is_reset_first_and_after_its_run(bench: Bench) -> None:
    run = bench(PACKML, status=2)
    assert gives(run) == (1, True, 0) and phases(run) == ["resetting"]
    run.put("plc.status", 15)
    run.run(5)
    assert gives(run) == (1, True, 0)
    run.put("plc.status", 4)
    run.run(10)
    assert gives(run) == (2, True, 60)
    run.put("plc.status", 6)
    run.run(3)
    run.put("plc.status", 17)
    run.run(5)
    assert gives(run) == (1, True, 60) and run.state() == "running"
    run.put("plc.status", 4)
    run.run(20)
    assert run.state() == "complete"


def test_packml_a_unit_on_its_way_is_not_reset(bench: Bench) -> None:
    run = bench(PACKML, status=7)
    run.run(20)
    assert gives(run) == (0, False, 0)


def test_packml_hold_and_unhold(bench: Bench) -> None:
    run = bench(PACKML, status=4)
    run.put("plc.status", 6)
    run.run(4)
    run.command("hold")
    run.run(4)
    assert gives(run) == (4, True, 60)
    run.put("plc.status", 10)
    run.run(4)
    assert run.state() == "holding"
    run.put("plc.status", 11)
    run.run(3)
    assert run.state() == "held" and gives(run) == (4, False, 60)
    run.command("restart")
    run.run(10)
    assert gives(run) == (5, True, 60)
    run.put("plc.status", 6)
    run.run(3)
    assert gives(run) == (5, False, 60) and phases(run)[-1] == "running"


def test_packml_a_start_that_is_not_taken_in_time_holds_the_batch(bench: Bench) -> None:
    run = bench(PACKML, status=4)
    run.run(110)
    assert "phase-late" in kinds(run) and run.state() == "holding"
    run.run(110)
    assert run.state() == "held" and kinds(run) == ["phase-late"], "it does not run: that it is not held is no alarm"


def test_packml_a_request_does_not_rise_while_the_last_one_is_still_there(bench: Bench) -> None:
    run = bench(PACKML, status=4)
    run.run(2)
    run.following = False
    run.put("plc.status", 6)
    run.run(3)
    run.command("hold")
    run.run(10)
    assert gives(run)[:2] == (2, False), "the device still shows the request of the start"
    run.put("plc.request", False)
    run.run(2)
    assert gives(run)[0] == 4


# --- a level ---------------------------------------------------------------------------------------------------------


def test_a_level_stands_as_long_as_the_phase_runs_and_goes_with_a_hold(bench: Bench) -> None:
    run = bench(LEVEL)
    assert run.level("plc.run") is True
    run.put("plc.status", 2)
    run.run(5)
    assert run.level("plc.run") is True
    run.command("hold")
    run.run(3)
    assert run.state() == "held" and run.level("plc.run") is False and run.level("plc.setpoint") == 0
    run.put("plc.status", 1)
    run.command("restart")
    run.run(10)
    assert run.level("plc.run") is True
    run.put("plc.status", 2)
    run.run(2)
    run.put("plc.status", 3)
    run.run(2)
    assert run.level("plc.run") is False


def test_a_stop_takes_a_level_back(bench: Bench) -> None:
    run = bench(LEVEL)
    run.put("plc.status", 2)
    run.run(3)
    run.command("stop")
    run.run(2)
    assert run.state() == "stopped" and run.level("plc.run") is False


# --- what the checker says -------------------------------------------------------------------------------------------


def said(folder: Path, phases: str, recipe: str) -> list[tuple[str, str]]:
    (folder / "cell.yaml").write_text(DEVICES + phases)
    (folder / "r.yaml").write_text(recipe)
    problems = Problems()
    check([folder], problems)
    return [(one.code, one.message) for one in problems]


def test_no_step_sets_what_commands_a_phase(tmp_path: Path) -> None:
    recipe = RECIPE + "  - set: {plc.command: 3}\n  - {during: {plc.request: true}, wait: 1 s}\n"
    wrong = said(tmp_path, PACKML, recipe)
    assert [code for code, _ in wrong] == ["phase-tag", "phase-tag"]
    assert wrong[0][1] == "`plc.command` commands the phase plc.heat: no step may set it"


def test_two_branches_cannot_run_phases_that_share_a_command(tmp_path: Path) -> None:
    phases = WORD + WORD.replace("\nphases:", "").replace("plc.heat", "plc.cool").replace("setpoint: plc.setpoint", "")
    phases = phases.replace("    parameters: {}\n", "")
    recipe = (
        "recipe: r\nuses: [plc]\nsteps:\n  - parallel:\n"
        "      a: [{do: plc.heat, with: {setpoint: 60 degC}, within: 9 s}]\n      b: [{do: plc.cool, within: 9 s}]\n"
    )
    assert "driven-twice" in [code for code, _ in said(tmp_path, phases, recipe)]


def test_a_phase_that_no_recipe_runs_is_a_warning(tmp_path: Path) -> None:
    recipe = "recipe: r\nuses: [plc]\nsteps:\n  - {until: plc.status == 1, within: 9 s}\n"
    assert ("unused-phase", "no recipe runs the phase `plc.heat`") in said(tmp_path, WORD, recipe)
