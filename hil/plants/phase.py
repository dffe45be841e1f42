"""A PLC's equipment phase behind a command word and a status word (ISA-88 phase logic)."""

from typing import Annotated

import msgspec

from hil.plants.model import Input, Output, Parameter

START, HOLD, RESTART, STOP, ABORT = range(1, 6)
"""The commands."""

IDLE, RUNNING, COMPLETE, HELD, STOPPED, ABORTED, HOLDING, RESTARTING, STOPPING = range(1, 10)
"""The states, as `status` shows them."""

_TABLE = {
    START: dict.fromkeys((IDLE, COMPLETE, STOPPED, ABORTED), RUNNING),
    HOLD: {RUNNING: HOLDING, RESTARTING: HOLDING},
    RESTART: {HELD: RESTARTING},
    STOP: dict.fromkeys((RUNNING, HOLDING, HELD, RESTARTING), STOPPING),
    ABORT: dict.fromkeys((RUNNING, HOLDING, HELD, RESTARTING, STOPPING), ABORTED),
}
_ENDS = {HOLDING: HELD, RESTARTING: RUNNING, STOPPING: STOPPED}


class EquipmentPhase(msgspec.Struct):
    """A phase of a PLC that runs for `duration` once it is started. A change of the command word is a command.

    1 start, 2 hold, 3 restart, 4 stop, 5 abort. The status is 1 idle, 2 running, 3 complete, 4 held, 5 stopped,
    6 aborted, 7 holding, 8 restarting, 9 stopping; the last three last for `transition`. `taken` shows the command
    word as the PLC has seen it, `starts` counts its starts. A command that does not fit the status does nothing.
    """

    duration_s: Annotated[float, Parameter("s", least=0.01)] = 5.0
    transition_s: Annotated[float, Parameter("s", least=0.01)] = 0.5
    command: Annotated[int, Input()] = 0
    status: Annotated[int, Output()] = IDLE
    taken: Annotated[int, Output()] = 0
    starts: Annotated[int, Output()] = 0

    left_s: float = 0.0
    moving_s: float = 0.0

    def step(self, dt_s: float) -> None:
        if self.command != self.taken:
            self.taken = self.command
            self._obey(_TABLE.get(self.command, {}).get(self.status))
        elif self.status in _ENDS:
            self.moving_s -= dt_s
            self.status = _ENDS[self.status] if self.moving_s <= 0 else self.status
        elif self.status == RUNNING:
            self.left_s -= dt_s
            self.status = COMPLETE if self.left_s <= 0 else RUNNING

    def _obey(self, status: int | None) -> None:
        if status is None:
            return
        if status == RUNNING:
            self.left_s = self.duration_s
            self.starts += 1
        self.status, self.moving_s = status, self.transition_s
