"""The state table is whole: every state has its row, every pair is decided, and the engine does what it says."""

from pathlib import Path

import pytest

from edge.engine import states
from edge.messages import CommandDone
from tests.virtual import Virtual, plan_of

EVERY_STATE = {
    "idle", "running", "pausing", "paused", "holding", "held", "restarting", "stopping", "stopped", "aborting",
    "aborted", "complete",
}  # fmt: skip
EVERY_COMMAND = {*states.COMMANDS, "done", "finish", "power-loss"}


def test_every_isa88_state_has_a_row() -> None:
    assert set(states.TABLE) == EVERY_STATE


@pytest.mark.parametrize("state", sorted(EVERY_STATE))
def test_every_pair_of_state_and_command_is_decided(state: str) -> None:
    assert set(states.TABLE[state]) <= EVERY_COMMAND
    for command in EVERY_COMMAND:
        assert states.after(state, command) in {None, *EVERY_STATE}


def test_nothing_but_a_reset_leaves_an_ended_state() -> None:
    for state in states.ENDED:
        assert set(states.TABLE[state]) == {"reset"}


def test_a_state_that_acts_for_itself_is_done_and_no_other_is() -> None:
    for state, row in states.TABLE.items():
        assert ("done" in row) == (state in states.HANDLED or state == "pausing")


def test_every_state_is_reached_from_idle() -> None:
    reached, todo = {"idle"}, ["idle"]
    while todo:
        for state in states.TABLE[todo.pop()].values():
            if state not in reached:
                reached.add(state)
                todo.append(state)
    assert reached == EVERY_STATE


def test_every_state_that_may_act_can_be_held_stopped_and_aborted() -> None:
    for state in (*states.ACTING, "restarting"):
        for command in ("hold", "stop", "abort"):
            assert states.after(state, command) is not None


def test_a_power_loss_never_leads_to_a_state_that_acts() -> None:
    for row in states.TABLE.values():
        assert row.get("power-loss") not in states.ACTING


def test_allowed_names_only_what_a_person_can_command() -> None:
    assert states.allowed("held") == ("restart", "stop", "abort")
    assert states.allowed("aborting") == ()


# --- the whole product of states and commands, as the engine does it ------------------------------------------------

SLOW = """
recipe: slow
uses: [plc]
interlocks:
  - {when: plc.count == 1, do: hold, say: {en: Hold}}
  - {when: plc.count == 2, do: stop, say: {en: Stop}}
  - {when: plc.count == 3, do: abort, say: {en: Abort}}
steps:
  - {name: Fill, set: {plc.speed: 50 rpm}, during: {plc.valve: true}, until: plc.level > 5 L, within: none}
  - {name: Rest, wait: 1 s}
on:
  hold: [{wait: 1 s}]
  restart: [{wait: 1 s}]
  stop: [{wait: 1 s}]
  abort: [{wait: 1 s}]
"""

LEADS = {
    "idle": {"start": "running"},
    "running": {"pause": "pausing", "hold": "holding", "stop": "stopping", "abort": "aborting", "power": "held"},
    "pausing": {"resume": "running", "hold": "holding", "stop": "stopping", "abort": "aborting", "power": "held"},
    "paused": {"resume": "running", "hold": "holding", "stop": "stopping", "abort": "aborting", "power": "held"},
    "holding": {"stop": "stopping", "abort": "aborting", "power": "held"},
    "held": {"restart": "restarting", "stop": "stopping", "abort": "aborting", "power": "held"},
    "restarting": {"hold": "holding", "stop": "stopping", "abort": "aborting", "power": "held"},
    "stopping": {"abort": "aborting", "power": "stopped"},
    "aborting": {"power": "aborted"},
    "stopped": {"reset": None},
    "aborted": {"reset": None},
    "complete": {"reset": None},
}
"""What leaves each state, and for which; None: the batch is no longer here. Whatever is not here changes nothing."""

SOURCES = [
    *((command, "operator") for command in states.COMMANDS),
    *((command, "interlock") for command in ("hold", "stop", "abort")),
    ("hold", "device"),
    ("power", "power"),
]


def brought_to(run: Virtual, state: str) -> None:
    """A batch of SLOW in this state; for idle none."""
    run.run(2)
    if state == "idle":
        return
    run.start("slow")
    ways = {
        "running": [], "pausing": ["pause"], "paused": ["pause", "full"], "holding": ["hold"], "held": ["hold", "wait"],
        "restarting": ["hold", "wait", "restart"], "stopping": ["stop"], "stopped": ["stop", "wait"],
        "aborting": ["abort"], "aborted": ["abort", "wait"], "complete": ["full", "wait"],
    }  # fmt: skip
    for what in ways[state]:
        if what == "full":
            run.put("plc.level", 6.0)
        elif what != "wait":
            run.command(what)
        run.run(110 if what == "wait" else 2)
    assert run.state() == state


def done_to(run: Virtual, command: str, source: str) -> Virtual:
    """The command given by this source; the engine that is there then."""
    if source == "power":
        restarted = Virtual(run.plan)
        restarted.values = list(run.values)
        if blob := run.blobs.get("B1"):
            restarted.restore(blob)
        run = restarted
    elif source == "device":
        run.lose("plc")
    elif source == "interlock":
        run.put("plc.count", {"hold": 1, "stop": 2, "abort": 3}[command])
    else:
        run.command(command, recipe="slow" if command == "start" else "")
    run.run(1)
    return run


@pytest.mark.parametrize("state", sorted(EVERY_STATE))
def test_every_pair_of_state_and_command_does_in_the_engine_what_is_decided(tmp_path: Path, state: str) -> None:
    plan = plan_of(tmp_path, SLOW)
    for command, source in SOURCES:
        run = Virtual(plan)
        brought_to(run, state)
        run = done_to(run, command, source)
        expected = LEADS[state].get(command, state)
        batch = run.engine.state.batches.get("B1")
        if state == "idle" or (state in states.ENDED and source == "power"):
            expected = "running" if (command, state) == ("start", "idle") else None
        found = None if batch is None else batch.state
        assert found == expected, f"{state}, {command} by {source}: {found}"
        if source == "operator":
            assert run.of(CommandDone)[-1].ok == (command in LEADS[state]), f"{state}, {command}"
        if found != "running" or state not in states.ACTING:
            acting = found in states.ACTING and (state, command) != ("idle", "start") and state != "paused"
            assert run.level("plc.valve") is acting, f"{state}, {command} by {source}"
        if found is None or found in states.ENDED or found == "aborting" or source == "power":
            assert run.level("plc.speed") == 0, f"{state}, {command} by {source}"
