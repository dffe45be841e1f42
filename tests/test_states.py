"""The state table is whole: every state has its row, every pair is decided, and what it says hangs together."""

import pytest

from edge.engine import states

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
