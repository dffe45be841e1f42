"""What watches beside the steps, in virtual time: interlocks of cell, recipe and step, alarms, permissives."""

from pathlib import Path

import msgspec
import pytest

from edge.engine.engine import Engine
from edge.messages import (
    AlarmAcknowledged,
    AlarmCleared,
    AlarmRaised,
    AlarmShelved,
    AlarmUnshelved,
    BatchStarted,
    CommandDone,
    StateChanged,
    StepStarted,
    TagSet,
)
from tests.virtual import CELL, Virtual, plan_of

FILL = """
recipe: fill
uses: [plc]
steps:
  - {name: Fill, during: {plc.valve: true}, until: plc.level >= 50 L, within: none}
  - {name: Rest, wait: 10 s}
"""
OVERFULL = "interlocks:\n  - {when: plc.level > 90 L, do: hold, say: {en: Overfull, fr: Trop plein}%s}\n"


@pytest.fixture
def cell(tmp_path: Path):
    def made(*recipes: str, more: str = "") -> Virtual:
        return Virtual(plan_of(tmp_path, *recipes, cell=CELL + more))

    return made


def refusals(virtual: Virtual) -> list[CommandDone]:
    return [event for event in virtual.of(CommandDone) if not event.ok]


def cycles_until_held(run: Virtual, most: int = 200) -> int:
    for cycle in range(most):
        run.run()
        if run.state() != "running":
            return cycle
    raise AssertionError("it was not held")


# --- delays ----------------------------------------------------------------------------------------------------------


def test_an_interlock_trips_in_the_scan_after_its_settle_delay(cell) -> None:
    run = cell(FILL + OVERFULL % ", settle: 100 ms")
    run.start("fill")
    run.put("plc.level", 45.0)
    run.run(5)
    run.put("plc.level", 95.0)
    run.run(6)
    run.put("plc.level", 45.0)  # not long enough: it counts anew
    run.run(1)
    run.put("plc.level", 95.0)
    assert run.state() == "running"
    assert cycles_until_held(run) == 10
    assert [alarm.priority for alarm in run.of(AlarmRaised)] == ["high"]


def test_the_settle_delay_goes_on_over_a_value_that_is_bad_for_a_moment(cell) -> None:
    run = cell(FILL.replace(">= 50 L", ">= 99 L") + OVERFULL % ", settle: 200 ms")
    run.start("fill")
    run.put("plc.level", 95.0)
    run.run(10)
    run.put("plc.level", None)
    run.run(5)
    run.put("plc.level", 95.0)
    assert cycles_until_held(run) == 5


@pytest.mark.parametrize("clears, level", [("plc.level < 80 L", 85.0), ("300 ms", 45.0)])
def test_an_interlock_stands_until_it_has_cleared(cell, clears: str, level: float) -> None:
    run = cell(FILL + OVERFULL % f", clears: {clears}")
    run.start("fill")
    run.put("plc.level", 95.0)
    run.run(5)
    assert run.state() == "held"
    run.put("plc.level", level)
    run.run(2)
    run.command("restart")
    run.run(2)
    assert refusals(run)[-1].text.startswith("an interlock stands: Overfull")
    assert not run.of(AlarmCleared)
    run.put("plc.level", 45.0)
    run.run(40)
    assert run.of(AlarmCleared)
    run.command("restart")
    run.run(5)
    assert run.state() == "running"


def test_a_value_that_is_bad_clears_nothing(cell) -> None:
    run = cell(FILL + OVERFULL % ", clears: 50 ms")
    run.start("fill")
    run.put("plc.level", 95.0)
    run.run(5)
    run.put("plc.level", None)
    run.run(30)
    assert not run.of(AlarmCleared)
    run.put("plc.level", 45.0)
    run.run(10)
    assert run.of(AlarmCleared)


def test_what_stands_still_stands_after_a_power_loss(cell) -> None:
    run = cell(FILL + OVERFULL % ", clears: plc.level < 80 L")
    run.start("fill")
    run.put("plc.level", 95.0)
    run.run(5)
    run.put("plc.level", 85.0)
    run.run(3)
    again = Virtual(run.plan)
    again.put("plc.level", 85.0)
    again.restore(blob_of(run))
    again.run(5)
    assert [alarm.say["en"] for alarm in again.of(AlarmRaised) if alarm.kind == "interlock"] == ["Overfull"]
    again.command("restart")
    again.run(2)
    assert refusals(again)[-1].text.startswith("an interlock stands: Overfull")
    again.put("plc.level", 45.0)
    again.run(3)
    again.command("restart")
    again.run(5)
    assert again.state() == "running"


def blob_of(run: Virtual) -> bytes:
    """The batch as its last commit has it."""
    return msgspec.msgpack.encode(run.batch())


# --- of a step -------------------------------------------------------------------------------------------------------

STEPS = """
recipe: fill
uses: [plc]
steps:
  - {name: Before, wait: 100 ms}
  - name: Around
    repeat: {times: 2}
    interlocks: [{when: plc.count > 40, do: hold, say: {en: Too many}}]
    steps:
      - {name: Inside, during: {plc.valve: true}, wait: 100 ms}
  - {name: After, wait: 1 s}
"""


def test_the_interlock_of_a_step_counts_while_the_step_and_those_inside_it_are_active(cell) -> None:
    run = cell(STEPS)
    run.put("plc.count", 50)
    run.start("fill")
    run.run(8)
    assert run.state() == "running"  # before the step it does not count
    run.put("plc.count", 0)
    run.run(12)
    assert "Inside" in [event.name for event in run.of(StepStarted)]
    run.put("plc.count", 50)
    run.run(3)
    assert run.state() == "held" and run.level("plc.valve") is False
    run.command("restart")
    run.run(2)
    assert refusals(run)[-1].text == "an interlock stands: Too many (plc.count > 40)"
    run.put("plc.count", 0)
    run.run(2)
    run.command("restart")
    run.run(40)
    assert "After" in [event.name for event in run.of(StepStarted)]
    run.put("plc.count", 50)
    run.run(5)
    assert run.state() == "running"  # nor after it
    assert not run.batch().armed and not run.batch().marks


def test_nothing_of_a_step_is_given_whose_interlock_stands(cell) -> None:
    run = cell(STEPS)
    run.start("fill")
    run.put("plc.count", 50)
    opened = False
    for _ in range(60):
        run.run()
        opened = opened or run.level("plc.valve") is True
    assert run.state() == "held" and not opened


def test_a_cut_step_takes_its_interlock_and_its_alarm_along(cell) -> None:
    run = cell(STEPS + "on:\n  stop: [{name: Wait, wait: 1 s}]\n")
    run.start("fill")
    run.run(20)
    run.put("plc.count", 50)
    run.run(3)
    assert run.state() == "held"
    run.command("stop")
    run.run(3)
    assert run.state() == "stopping"
    assert run.of(AlarmCleared) and not run.batch().armed


def test_the_interlock_of_a_step_is_there_again_after_a_power_loss(cell) -> None:
    run = cell(STEPS)
    run.start("fill")
    run.run(20)
    again = Virtual(run.plan)
    again.restore(blob_of(run))
    again.run(5)
    again.put("plc.count", 50)
    again.run(2)
    again.command("restart")
    again.run(2)
    assert refusals(again)[-1].text == "an interlock stands: Too many (plc.count > 40)"


# --- of the cell -----------------------------------------------------------------------------------------------------

DOOR = "interlocks:\n  - {when: not plc.ready, do: stop, say: {en: Door open}%s}\n"
LAMP = "\nrecipe: lamp\nuses: [aux]\nsteps: [{during: {aux.lamp: true}, wait: 10 s}]\n"


def test_an_interlock_of_the_cell_acts_on_the_batches_of_its_units_alone(cell) -> None:
    run = cell(FILL, LAMP, more=DOOR % "")
    run.put("plc.ready", True)
    run.start("fill")
    run.start("lamp", "B2")
    run.put("plc.ready", False)
    run.run(3)
    assert (run.state(), run.state("B2")) == ("stopped", "running")
    (alarm,) = run.of(AlarmRaised)
    assert (alarm.kind, alarm.batch, alarm.say["en"]) == ("interlock", "B1", "Door open")
    run.command("start", "B3", recipe="fill")
    run.run(2)
    assert refusals(run)[-1].say["fr"].startswith("un verrouillage est actif : Door open")
    run.put("plc.ready", True)
    run.run(2)
    assert run.of(AlarmCleared)
    run.command("start", "B3", recipe="fill")
    run.run(2)
    assert run.state("B3") == "running"


def test_units_that_are_named_are_guarded_too(cell) -> None:
    run = cell(FILL, LAMP, more=DOOR % ", units: [plc, aux]")
    run.put("plc.ready", True)
    run.start("lamp", "B2")
    run.put("plc.ready", False)
    run.run(3)
    assert run.state("B2") == "stopped"


def test_with_no_batch_it_keeps_hands_off_and_alarms(cell) -> None:
    run = cell(FILL, more=DOOR % ", block: [plc.valve]")
    run.put("plc.ready", True)
    run.run(3)
    for tag, value in (("plc.valve", True), ("plc.drain", True)):
        run.command("set", "", tag=tag, value=value)
    run.run(2)
    run.put("plc.ready", False)
    run.run(3)
    assert (run.level("plc.valve"), run.level("plc.drain")) == (False, True)
    assert [(one.tag, one.by) for one in run.of(TagSet)][-1] == ("plc.valve", "interlock")
    assert [alarm.say["en"] for alarm in run.of(AlarmRaised)] == ["Door open"]
    run.command("set", "", tag="plc.valve", value=True)
    run.run(2)
    assert refusals(run)[-1].text == "an interlock stands: Door open (not plc.ready)"
    run.command("set", "", tag="plc.valve", value=False)  # ceasing to act is never barred
    run.run(2)
    assert run.of(CommandDone)[-1].ok


def test_an_unknown_one_trips_what_acts_and_is_no_alarm_where_nothing_does(cell) -> None:
    run = cell(FILL, LAMP, more=DOOR % ", units: [plc, aux], grace: 100 ms")
    run.put("plc.ready", None)
    run.run(50)
    assert not run.of(AlarmRaised)
    run.command("start", "B2", recipe="lamp")
    run.run(2)
    assert refusals(run)  # but it bars a start
    run.put("plc.ready", True)
    run.run(2)
    run.command("start", "B2", recipe="lamp")
    run.run(5)
    run.put("plc.ready", None)
    run.run(20)
    assert run.state("B2") == "stopped"
    assert "cannot be watched" in run.of(AlarmRaised)[-1].say["en"]


# --- alarms ----------------------------------------------------------------------------------------------------------

ALARMS = """
alarms:
  low: {when: plc.level < 10 L, say: {en: Tank low, fr: Cuve basse}, priority: low, settle: 50 ms, latch: false}
  high: {when: plc.level > 90 L, say: {en: Tank high}, clears: plc.level < 80 L, priority: critical}
"""


def test_an_alarm_of_the_cell_tells_and_acts_on_nothing(cell) -> None:
    run = cell(FILL.replace(">= 50 L", ">= 99 L"), more=ALARMS)
    run.put("plc.level", 50.0)
    run.start("fill")
    run.put("plc.level", 95.0)
    run.run(2)
    (alarm,) = run.of(AlarmRaised)
    assert (alarm.kind, alarm.priority, alarm.key, alarm.batch) == ("alarm", "critical", "cell:alarm:high", "")
    assert run.state() == "running"
    run.put("plc.level", 85.0)
    run.run(5)
    assert not run.of(AlarmCleared)
    run.put("plc.level", None)
    run.run(5)
    assert not run.of(AlarmCleared)
    run.put("plc.level", 50.0)
    run.run(2)
    assert run.of(AlarmCleared)
    (kept,) = run.engine.state.alarms.values()  # returned to normal, unacknowledged
    assert not kept.active and not kept.acknowledged


def test_an_alarm_that_does_not_latch_goes_by_itself(cell) -> None:
    run = cell(FILL, more=ALARMS)
    run.put("plc.level", 50.0)
    run.run(3)
    run.put("plc.level", 5.0)
    run.run(4)
    assert not run.of(AlarmRaised)
    run.run(4)
    assert [alarm.priority for alarm in run.of(AlarmRaised)] == ["low"]
    run.put("plc.level", 50.0)
    run.run(2)
    assert not run.engine.state.alarms and not run.engine.state.marks


def high(run: Virtual, level: float) -> None:
    run.put("plc.level", level)
    run.run(2)


def test_a_shelved_alarm_comes_back_by_itself(cell) -> None:
    run = cell(FILL, more=ALARMS)
    high(run, 95.0)
    (number,) = run.engine.state.alarms
    run.command("shelve", "", alarm=number, cause="sensor is being changed", seconds=1.0)
    run.run(2)
    (shelved,) = run.of(AlarmShelved)
    assert (shelved.by, shelved.why) == ("tester", "sensor is being changed")
    high(run, 50.0)
    assert number in run.engine.state.alarms
    high(run, 95.0)  # again, while it is shelved
    (number,) = run.engine.state.alarms
    assert run.engine.state.alarms[number].shelved is not None
    run.run(100)
    assert [one.by for one in run.of(AlarmUnshelved)] == ["edge"]
    back = run.engine.state.alarms[number]
    assert back.shelved is None and back.active and not back.acknowledged
    assert run.engine.state.unshelve == 0
    run.command("acknowledge", "", alarm=number)
    high(run, 50.0)
    assert not run.engine.state.alarms and run.of(AlarmAcknowledged)


def test_an_alarm_is_taken_from_the_shelf_by_a_person(cell) -> None:
    run = cell(FILL, more=ALARMS)
    high(run, 95.0)
    (number,) = run.engine.state.alarms
    run.command("unshelve", "", alarm=number)
    run.command("shelve", "", alarm=number, cause="", seconds=60.0)
    run.command("shelve", "", alarm=number, cause="why", seconds=1e6)
    run.command("shelve", "", alarm=77, cause="why", seconds=60.0)
    run.run(2)
    assert [one.text for one in refusals(run)] == [
        "this alarm is not shelved",
        "say why the alarm is shelved",
        "an alarm is shelved for a time of at most 12 h",
        "there is no such alarm",
    ]
    run.command("shelve", "", alarm=number, cause="why", seconds=60.0)
    high(run, 50.0)
    run.command("unshelve", "", alarm=number)
    run.run(2)
    assert not run.engine.state.alarms  # its cause is gone, and who shelved it had seen it


def test_a_shelved_interlock_still_acts(cell) -> None:
    run = cell(FILL + OVERFULL % "")
    run.start("fill")
    high(run, 95.0)
    (number,) = run.engine.state.alarms
    run.command("shelve", "", alarm=number, cause="known", seconds=60.0)
    high(run, 45.0)
    run.command("restart")
    run.run(5)
    assert run.state() == "running"
    high(run, 95.0)
    assert run.state() == "held"


# --- permissives -----------------------------------------------------------------------------------------------------

PERMISSIVES = """
permissives:
  plc:
    - {must: plc.ready, say: {en: PLC in remote, fr: Automate en mode distant, ar: وحدة التحكم عن بُعد}}
    - {must: plc.count < 100, say: {en: Counter reset}, before: [start, resume]}
"""
ROOM = "permissives:\n  - {must: plc.level + volume <= 100 L, say: {en: Room for the volume}}\n"
WITH_VOLUME = FILL.replace("steps:", "parameters:\n  volume: {unit: L, default: 20}\nsteps:")


def test_a_refused_start_names_all_that_is_missing(cell) -> None:
    run = cell(WITH_VOLUME + ROOM, more=PERMISSIVES)
    run.put("plc.count", 200)
    run.put("plc.level", 90.0)
    run.run(3)
    run.command("start", recipe="fill")
    run.run(2)
    refused = refusals(run)[-1]
    assert refused.text == (
        "this must be first: PLC in remote (plc.ready); Counter reset (plc.count < 100); "
        "Room for the volume (plc.level + volume <= 100 L)"
    )
    assert refused.say["fr"].startswith("il faut d'abord : Automate en mode distant (plc.ready); Counter reset")
    assert refused.say["ar"].startswith("يجب أولًا: وحدة التحكم عن بُعد")
    run.put("plc.count", 0)
    run.put("plc.ready", True)
    run.put("plc.level", 10.0)
    run.run(2)
    run.command("start", recipe="fill")
    run.run(4)
    assert run.state() == "running"


def test_a_permissive_is_asked_at_a_restart_and_where_it_says_so_before_a_resume(cell) -> None:
    run = cell(FILL, more=PERMISSIVES)
    run.put("plc.ready", True)
    run.start("fill")
    run.put("plc.ready", False)
    run.put("plc.count", 200)
    run.run(5)
    assert run.state() == "running"  # it is no interlock
    run.command("pause")
    run.run(2)
    run.command("resume")
    run.run(2)
    assert refusals(run)[-1].text == "this must be first: Counter reset (plc.count < 100)"
    run.command("hold")
    run.run(3)
    run.command("restart")
    run.run(3)
    assert refusals(run)[-1].text == "this must be first: PLC in remote (plc.ready)"
    assert run.state() == "held"


def test_a_restart_by_itself_waits_for_the_permissives(cell) -> None:
    run = cell(FILL + "after_power_loss: resume\n", more=PERMISSIVES)
    run.put("plc.ready", True)
    run.start("fill")
    again = Virtual(run.plan)
    again.put("plc.ready", False)
    again.restore(blob_of(run))
    again.run(20)
    assert again.state() == "restarting" and again.level("plc.valve") is False
    again.put("plc.ready", True)
    again.run(5)
    assert again.state() == "running" and again.level("plc.valve") is True


# --- lot and order numbers -------------------------------------------------------------------------------------------

LOT = FILL.replace("steps:", "parameters:\n  lot: {type: text, identify: lot}\nsteps:")


def test_a_lot_number_is_asked_for_and_recorded_as_such(cell) -> None:
    run = cell(LOT)
    run.run(3)
    for parameters in ({}, {"lot": " "}):
        run.command("start", recipe="fill", parameters=parameters)
    run.run(2)
    assert [one.text for one in refusals(run)] == ["lot is needed", "lot: a text is needed"]
    run.start("fill", lot="L-7")
    (started,) = run.of(BatchStarted)
    assert (started.lot, started.order) == ("L-7", "")


def test_the_same_inputs_give_the_same_again(cell) -> None:
    run = cell(STEPS, more=DOOR % ", settle: 50 ms" + ALARMS)
    run.put("plc.ready", True)
    run.put("plc.level", 95.0)
    run.start("fill")
    run.put("plc.ready", False)
    run.run(20)
    other = Engine(run.plan)
    for cycle, packets in run.taken:
        other.step(cycle, packets)
    assert other.state == run.engine.state
    assert [event.state for event in run.of(StateChanged)][-1] == "stopped"
