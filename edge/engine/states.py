"""The states of a control recipe and what changes them: one table, whole (ANSI/ISA-88.00.01, 6.5 procedural states).

A pair that is not in the table is refused. `done` ends a state that acts for itself (holding, restarting…), `finish`
is the recipe's last step ended, `power-loss` is the start after the loop has died.
"""

from typing import Final

COMMANDS: Final = ("start", "hold", "restart", "pause", "resume", "stop", "abort", "reset")
"""What a person can command; interlocks and lost devices use hold, stop and abort too."""

ENDED: Final = frozenset({"stopped", "aborted", "complete"})
"""Its units and outputs are released; only a reset leaves these."""

ACTING: Final = frozenset({"running", "pausing", "paused"})
"""The steps' `during` levels stand and the batch's clock runs."""

HANDLED: Final = {"holding": "hold", "restarting": "restart", "stopping": "stop", "aborting": "abort"}
"""States that run the recipe's handler of this name and are done when it is."""

AUTOMATIC: Final = "automatic"
SEMI_AUTOMATIC: Final = "semi-automatic"
MANUAL: Final = "manual"
MODES: Final = (AUTOMATIC, SEMI_AUTOMATIC, MANUAL)
"""The modes of a control recipe (ISA-88): its steps follow one another by themselves; each waits to be confirmed; a
person moves the outputs while the steps stand. Manual mode is within `held`: whoever chooses it holds the batch, and
a restart, not the choice of another mode, lets it act again (IEC 60204-1, 9.2.3: no start by mode selection)."""

TABLE: Final[dict[str, dict[str, str]]] = {
    "idle": {"start": "running"},
    "running": {
        "pause": "pausing",
        "hold": "holding",
        "stop": "stopping",
        "abort": "aborting",
        "finish": "complete",
        "power-loss": "held",
    },
    "pausing": {
        "done": "paused",
        "resume": "running",
        "hold": "holding",
        "stop": "stopping",
        "abort": "aborting",
        "finish": "complete",
        "power-loss": "held",
    },
    "paused": {
        "resume": "running",
        "hold": "holding",
        "stop": "stopping",
        "abort": "aborting",
        "power-loss": "held",
    },
    "holding": {"done": "held", "stop": "stopping", "abort": "aborting", "power-loss": "held"},
    "held": {"restart": "restarting", "stop": "stopping", "abort": "aborting", "power-loss": "held"},
    "restarting": {
        "done": "running",
        "hold": "holding",
        "stop": "stopping",
        "abort": "aborting",
        "power-loss": "held",
    },
    "stopping": {"done": "stopped", "abort": "aborting", "power-loss": "stopped"},
    "stopped": {"reset": "idle"},
    "aborting": {"done": "aborted", "power-loss": "aborted"},
    "aborted": {"reset": "idle"},
    "complete": {"reset": "idle"},
}


def after(state: str, command: str) -> str | None:
    """The state that this command leads to; None where it is refused."""
    return TABLE[state].get(command)


def allowed(state: str, mode: str = AUTOMATIC) -> tuple[str, ...]:
    """The commands that a person can give in this state and mode.

    A tuple from a generator would leave a spare one in Python's pool each time: the loop's memory would creep.
    """
    barred = "restart" if mode == MANUAL else ""
    return tuple([command for command in COMMANDS if command in TABLE[state] and command != barred])


def modes(state: str) -> tuple[str, ...]:
    """The modes that a batch can be put into in this state: none while it comes to its end."""
    return MODES if state in ACTING or state in ("holding", "held", "restarting") else ()
