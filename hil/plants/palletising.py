"""A palletising cell: the infeed belt, a robot with a vacuum gripper at a pallet, and a machine that speaks PackML."""

from typing import Annotated

import msgspec

from hil.plants.bottling import DONE, FAILED, IDLE, RUNNING
from hil.plants.model import Input, Output, Parameter, toward

PICK, PLACE, SHEET, PARK = 1, 2, 3, 4
"""The jobs of a palletiser."""


class Infeed(msgspec.Struct):
    """A belt that brings cases to a stop, one every `spacing`; they queue behind the one that stands there.

    `taken` counts those that were taken from the stop. `supply` says how many come at all.
    """

    spacing_mm: Annotated[float, Parameter("mm", least=1)] = 600.0
    case_length_mm: Annotated[float, Parameter("mm", least=1)] = 400.0
    supply: Annotated[int, Parameter()] = 1_000_000
    speed_mm_per_s: Annotated[float, Input("mm/s")] = 0.0
    taken: Annotated[int, Input()] = 0
    case: Annotated[bool, Output()] = False
    arrived: Annotated[int, Output()] = 0

    way_mm: float = 0.0
    gone: int = 0

    def __post_init__(self) -> None:
        self.way_mm = self.spacing_mm

    def step(self, dt_s: float) -> None:
        """`way` is how far the next case is from the stop: a case's length at least while another stands there."""
        if self.taken != self.gone:
            self.gone, self.case = self.taken, False
        self.way_mm -= max(self.speed_mm_per_s, 0.0) * dt_s
        if self.case:
            self.way_mm = max(self.way_mm, self.case_length_mm)
        elif self.way_mm <= 0 and self.arrived < self.supply:
            self.case, self.way_mm = True, self.spacing_mm
            self.arrived += 1
        else:
            self.way_mm = max(self.way_mm, 0.0)


class Palletiser(msgspec.Struct):
    """A robot with a vacuum gripper that stacks cases on a pallet, one job at a time.

    Job 1 goes down on the case at the stop, 2 carries what the gripper holds to `place` of `layer`, 3 lays a layer
    sheet, 4 parks. A job number other than 0 starts it; the state is 1 idle, 2 running, 3 done, 9 failed, and idle
    again when the number is 0. The vacuum is not the robot's: on over a case it builds up, without one it hardly does.
    A case whose vacuum goes while it is carried falls down (`dropped`); it is set down where the vacuum is let off
    after job 2. A place that is taken, out of reach or without a pallet fails, and so does a job with a stop active.
    `dispense` puts an empty pallet down, `discharge` takes the pallet away.
    """

    jobs_s: Annotated[dict[int, float], Parameter("s", least=0.01)] = msgspec.field(default_factory=dict[int, float])
    places: Annotated[int, Parameter()] = 6
    layers: Annotated[int, Parameter()] = 6
    vacuum_time_s: Annotated[float, Parameter("s")] = 0.15
    pallet_time_s: Annotated[float, Parameter("s", least=0.01)] = 1.5
    case_height_mm: Annotated[float, Parameter("mm", least=1)] = 250.0

    job: Annotated[int, Input()] = 0
    layer: Annotated[int, Input()] = 0
    place: Annotated[int, Input()] = 0
    case: Annotated[bool, Input()] = False
    suction: Annotated[bool, Input()] = False
    blow_off: Annotated[bool, Input()] = False
    dispense: Annotated[bool, Input()] = False
    discharge: Annotated[bool, Input()] = False

    state: Annotated[int, Output()] = IDLE
    executing: Annotated[bool, Output()] = False
    vacuum_kpa: Annotated[float, Output("kPa")] = 0.0
    holding: Annotated[bool, Output()] = False
    pallet: Annotated[bool, Output()] = False
    placed: Annotated[int, Output()] = 0
    sheets: Annotated[int, Output()] = 0
    height_mm: Annotated[float, Output("mm")] = 0.0
    taken: Annotated[int, Output()] = 0
    dropped: Annotated[int, Output()] = 0
    pallets: Annotated[int, Output()] = 0

    selected: int = 0
    left_s: float = 0.0
    pallet_left_s: float = 0.0
    at: int = 0
    aim: tuple[int, int] = (0, 0)
    stack: dict[tuple[int, int], bool] = msgspec.field(default_factory=dict[tuple[int, int], bool])

    def step(self, dt_s: float) -> None:
        before, self.selected = self.selected, self.job
        if self.job == 0:
            self.state = IDLE
        elif self.state == RUNNING:
            self.left_s -= dt_s
            if self.left_s <= 0:
                self.at, self.state = self.job, DONE
                self.sheets += self.job == SHEET
        elif self.state != FAILED and self.job != before:
            self._begin()
        self.executing = self.state == RUNNING
        self._grip(dt_s)
        self._move_pallet(dt_s)

    def _begin(self) -> None:
        if self.job == PLACE and self.holding and self.at == PICK:
            self.taken += 1
        self.at = 0
        self.left_s = self.jobs_s.get(self.job, 0.0)
        self.state = RUNNING if self.job in self.jobs_s and (self.job != PLACE or self._can_place()) else FAILED

    def _can_place(self) -> bool:
        self.aim = (self.layer, self.place)
        free = self.aim not in self.stack
        reached = 1 <= self.layer <= self.layers and 1 <= self.place <= self.places
        return self.holding and self.pallet and free and reached

    def _grip(self, dt_s: float) -> None:
        sealed = self.holding or (self.at == PICK and self.case)
        target_kpa = 0.0 if not self.suction or self.blow_off else -65.0 if sealed else -8.0
        time_s = self.vacuum_time_s / 4 if self.blow_off else self.vacuum_time_s
        self.vacuum_kpa = toward(self.vacuum_kpa, target_kpa, dt_s, time_s)
        if not self.holding:
            self.holding = sealed and self.vacuum_kpa <= -40.0
        elif self.vacuum_kpa > -20.0:
            self.holding = False
            if self.at == PLACE:
                self._set_down()
            elif self.at != PICK:
                self.dropped += 1

    def _set_down(self) -> None:
        self.stack[self.aim] = True
        self.placed = len(self.stack)
        self.height_mm = self.case_height_mm * max(layer for layer, _ in self.stack)

    def _move_pallet(self, dt_s: float) -> None:
        """A pallet comes or goes when it was asked for long enough."""
        asked = self.discharge if self.pallet else self.dispense
        self.pallet_left_s = self.pallet_left_s - dt_s if asked else self.pallet_time_s
        if self.pallet_left_s <= 0:
            self.pallet_left_s = self.pallet_time_s
            self.pallets += self.pallet
            self.pallet = not self.pallet
            self.stack, self.placed, self.sheets, self.height_mm = {}, 0, 0, 0.0


RESETTING, STARTING, EXECUTE, COMPLETING, COMPLETE = 15, 3, 6, 16, 17
STOPPED, STOPPING, ABORTED, ABORTING, CLEARING = 2, 7, 9, 8, 1
PACKML_IDLE, HOLDING, HELD, UNHOLDING = 4, 10, 11, 12
"""The states of a PackML machine by their numbers (ANSI/ISA-TR88.00.02)."""

_ACTING = {
    CLEARING: STOPPED,
    RESETTING: PACKML_IDLE,
    STARTING: EXECUTE,
    COMPLETING: COMPLETE,
    STOPPING: STOPPED,
    ABORTING: ABORTED,
    HOLDING: HELD,
    UNHOLDING: EXECUTE,
}
"""An acting state ends by itself in this one."""
_COMMANDS = {
    1: ({STOPPED, COMPLETE}, RESETTING),
    2: ({PACKML_IDLE}, STARTING),
    4: ({EXECUTE}, HOLDING),
    5: ({HELD}, UNHOLDING),
    9: ({ABORTED}, CLEARING),
}
"""Reset, start, hold, unhold, clear: where each is taken, and what it begins."""
_STOP, _ABORT = 3, 8


class PackMl(msgspec.Struct):
    """A machine with the states and commands of PackML (ANSI/ISA-TR88.00.02), such as a stretch wrapper.

    A command counts when `request` (CmdChangeRequest) rises, and where the state takes it: 1 reset, 2 start, 3 stop,
    4 hold, 5 unhold, 8 abort, 9 clear. States that act last `acting`, Execute lasts `execute`; then it is Complete.
    """

    execute_s: Annotated[float, Parameter("s", least=0.01)] = 5.0
    acting_s: Annotated[float, Parameter("s", least=0.01)] = 0.3
    command: Annotated[int, Input()] = 0
    request: Annotated[bool, Input()] = False
    state: Annotated[int, Output()] = STOPPED
    cycles: Annotated[int, Output()] = 0

    asked: bool = False
    left_s: float = 0.0
    done_s: float = 0.0

    def step(self, dt_s: float) -> None:
        rises, self.asked = self.request and not self.asked, self.request
        if rises:
            self._command()
        elif self.state == EXECUTE:
            self.done_s += dt_s
            if self.done_s >= self.execute_s:
                self.cycles += 1
                self._begin(COMPLETING)
        elif self.state in _ACTING:
            self.left_s -= dt_s
            if self.left_s <= 0:
                self._begin(_ACTING[self.state])

    def _command(self) -> None:
        states, begun = _COMMANDS.get(self.command, (set[int](), 0))
        if self.command == _ABORT and self.state not in (ABORTED, ABORTING):
            self._begin(ABORTING)
        elif self.command == _STOP and self.state not in (STOPPED, STOPPING, ABORTED, ABORTING, CLEARING):
            self._begin(STOPPING)
        elif self.state in states:
            self._begin(begun)

    def _begin(self, state: int) -> None:
        if state == STARTING:
            self.done_s = 0.0
        self.state, self.left_s = state, self.acting_s
