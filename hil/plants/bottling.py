"""A small bottling line: tank, valve, scale, conveyor, robot."""

import random
from typing import Annotated

import msgspec

from hil.plants.model import LITRE_KJ_PER_K, Input, Output, Parameter, approach, toward


class Tank(msgspec.Struct):
    """A stirred, heated tank with on/off valves, ideally mixed. What does not fit leaves through the overflow.

    `heel` wets the walls and never drains, so that a rinse dilutes what was there before, as in a real tank.
    """

    capacity_l: Annotated[float, Parameter("L", least=0.1)] = 100.0
    inlet_flow_l_per_s: Annotated[float, Parameter("L/s")] = 5.0
    rinse_flow_l_per_s: Annotated[float, Parameter("L/s")] = 5.0
    caustic_flow_l_per_s: Annotated[float, Parameter("L/s")] = 5.0
    outlet_flow_l_per_s: Annotated[float, Parameter("L/s")] = 3.0
    drain_flow_l_per_s: Annotated[float, Parameter("L/s")] = 5.0
    heel_l: Annotated[float, Parameter("L", least=0.01)] = 0.2
    ambient_c: Annotated[float, Parameter("degC", least=-50)] = 20.0
    caustic_supply_c: Annotated[float, Parameter("degC", least=-50)] = 55.0
    caustic_strength_ms_per_cm: Annotated[float, Parameter("mS/cm")] = 80.0
    heater_power_kw: Annotated[float, Parameter("kW")] = 60.0
    cooling_time_s: Annotated[float, Parameter("s", least=1)] = 900.0
    agitator_inertia_s: Annotated[float, Parameter("s")] = 0.5
    start_level_l: Annotated[float, Parameter("L")] = 0.0

    inlet: Annotated[bool, Input()] = False
    rinse: Annotated[bool, Input()] = False
    caustic: Annotated[bool, Input()] = False
    outlet: Annotated[bool, Input()] = False
    drain: Annotated[bool, Input()] = False
    heater: Annotated[bool, Input()] = False
    feed_l_per_s: Annotated[float, Input("L/s")] = 0.0
    agitator_rpm: Annotated[float, Input("rpm")] = 0.0

    level_l: Annotated[float, Output("L")] = 0.0
    temperature_c: Annotated[float, Output("degC")] = 20.0
    conductivity_ms_per_cm: Annotated[float, Output("mS/cm")] = 0.0
    agitator_speed_rpm: Annotated[float, Output("rpm")] = 0.0
    outflow_l_per_s: Annotated[float, Output("L/s")] = 0.0
    overflow: Annotated[bool, Output()] = False
    spilled_l: Annotated[float, Output("L")] = 0.0

    def __post_init__(self) -> None:
        self.heel_l = min(self.heel_l, self.capacity_l)
        self.level_l = min(max(self.start_level_l, self.heel_l), self.capacity_l)
        self.temperature_c = self.ambient_c

    def step(self, dt_s: float) -> None:
        if self.inlet or self.rinse or self.feed_l_per_s > 0:
            cold_l_per_s = self.inlet * self.inlet_flow_l_per_s + self.rinse * self.rinse_flow_l_per_s
            self._mix(dt_s * (cold_l_per_s + max(self.feed_l_per_s, 0.0)), 0.0, self.ambient_c)
        if self.caustic:
            caustic_l = dt_s * self.caustic_flow_l_per_s
            self._mix(caustic_l, self.caustic_strength_ms_per_cm, self.caustic_supply_c)
        self._release(dt_s)
        if self.heater:
            self.temperature_c += dt_s * self.heater_power_kw / (LITRE_KJ_PER_K * max(self.level_l, 1.0))
        if self.temperature_c != self.ambient_c:
            self.temperature_c = min(toward(self.temperature_c, self.ambient_c, dt_s, self.cooling_time_s), 100.0)
        if self.agitator_speed_rpm != self.agitator_rpm:
            self.agitator_speed_rpm = toward(self.agitator_speed_rpm, self.agitator_rpm, dt_s, self.agitator_inertia_s)

    def _mix(self, volume_l: float, conductivity_ms_per_cm: float, temperature_c: float) -> None:
        part = volume_l / (self.level_l + volume_l)
        self.conductivity_ms_per_cm += part * (conductivity_ms_per_cm - self.conductivity_ms_per_cm)
        self.temperature_c += part * (temperature_c - self.temperature_c)
        self.level_l += volume_l

    def _release(self, dt_s: float) -> None:
        """Outlet and drain share what lies above the heel; then what is above the rim spills."""
        self.outflow_l_per_s = 0.0
        if self.outlet or self.drain:
            wanted_l_per_s = self.outlet * self.outlet_flow_l_per_s + self.drain * self.drain_flow_l_per_s
            released_l = min(wanted_l_per_s * dt_s, max(self.level_l - self.heel_l, 0.0))
            share = released_l / (wanted_l_per_s * dt_s) if released_l else 0.0
            self.outflow_l_per_s = share * self.outlet * self.outlet_flow_l_per_s
            self.level_l = max(self.level_l - released_l, self.heel_l)
        over_l = self.level_l - self.capacity_l
        self.overflow = over_l > 0
        if self.overflow:
            self.spilled_l += over_l
            self.level_l -= over_l


class Valve(msgspec.Struct):
    """A valve with a drive and two limit switches; its flow goes with its position."""

    travel_time_s: Annotated[float, Parameter("s", least=0.01)] = 0.5
    full_flow_l_per_s: Annotated[float, Parameter("L/s")] = 1.0
    open: Annotated[bool, Input()] = False
    position_percent: Annotated[float, Output("%")] = 0.0
    opened: Annotated[bool, Output()] = False
    closed: Annotated[bool, Output()] = True
    flow_l_per_s: Annotated[float, Output("L/s")] = 0.0

    def step(self, dt_s: float) -> None:
        target = 100.0 if self.open else 0.0
        self.position_percent = approach(self.position_percent, target, 100.0 * dt_s / self.travel_time_s)
        self.opened, self.closed = self.position_percent >= 99.0, self.position_percent <= 1.0
        self.flow_l_per_s = self.full_flow_l_per_s * self.position_percent / 100.0


class Scale(msgspec.Struct):
    """A weighed hopper: what flows in stays until it is emptied."""

    tare_kg: Annotated[float, Parameter("kg")] = 0.0
    density_kg_per_l: Annotated[float, Parameter("kg/L", least=0.01)] = 1.0
    settling_time_s: Annotated[float, Parameter("s")] = 0.05
    emptying_time_s: Annotated[float, Parameter("s")] = 1.0
    fill_l_per_s: Annotated[float, Input("L/s")] = 0.0
    empty: Annotated[bool, Input()] = False
    weight_kg: Annotated[float, Output("kg")] = 0.0
    content_kg: float = 0.0

    def __post_init__(self) -> None:
        self.weight_kg = self.tare_kg

    def step(self, dt_s: float) -> None:
        self.content_kg += max(self.fill_l_per_s, 0.0) * self.density_kg_per_l * dt_s
        if self.empty:
            self.content_kg = toward(self.content_kg, 0.0, dt_s, self.emptying_time_s)
        self.weight_kg = toward(self.weight_kg, self.tare_kg + self.content_kg, dt_s, self.settling_time_s)


class Bottle(msgspec.Struct):
    """A bottle on the belt: its place from the middle of the scale, along the belt, and what is in it."""

    position_mm: float
    content_l: float = 0.0


class Conveyor(msgspec.Struct):
    """A belt that brings empty bottles, one every `spacing`, over a scale with a bottle sensor and a filling head.

    The sensor sees a bottle while it stands on the scale. `jitter` moves each bottle by up to that much, drawn from a
    generator with `seed`. What is filled with no bottle below, or beyond the bottle's brim, is spilled.
    """

    spacing_mm: Annotated[float, Parameter("mm", least=1)] = 400.0
    jitter_mm: Annotated[float, Parameter("mm")] = 0.0
    seed: Annotated[int, Parameter()] = 1
    scale_length_mm: Annotated[float, Parameter("mm", least=1)] = 160.0
    acceleration_mm_per_s2: Annotated[float, Parameter("mm/s²", least=1)] = 2000.0
    bottle_weight_kg: Annotated[float, Parameter("kg")] = 0.3
    bottle_volume_l: Annotated[float, Parameter("L", least=0.001)] = 7.0
    density_kg_per_l: Annotated[float, Parameter("kg/L", least=0.01)] = 1.0
    settling_time_s: Annotated[float, Parameter("s")] = 0.03

    speed_mm_per_s: Annotated[float, Input("mm/s")] = 0.0
    fill_l_per_s: Annotated[float, Input("L/s")] = 0.0

    belt_speed_mm_per_s: Annotated[float, Output("mm/s")] = 0.0
    bottle: Annotated[bool, Output()] = False
    ready: Annotated[bool, Output()] = False
    weight_kg: Annotated[float, Output("kg")] = 0.0
    filled: Annotated[int, Output()] = 0
    spilled_l: Annotated[float, Output("L")] = 0.0

    bottles: list[Bottle] = msgspec.field(default_factory=list["Bottle"])
    chance: random.Random = msgspec.field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.chance.seed(self.seed)
        self.bottles = [self._arriving(self.spacing_mm)]

    def step(self, dt_s: float) -> None:
        """`ready`: a bottle is on the scale and the belt stands; `filled` counts the bottles that left it full."""
        if self.belt_speed_mm_per_s != self.speed_mm_per_s:
            most_mm_per_s = self.acceleration_mm_per_s2 * dt_s
            self.belt_speed_mm_per_s = approach(self.belt_speed_mm_per_s, self.speed_mm_per_s, most_mm_per_s)
        if self.belt_speed_mm_per_s:
            self._move(self.belt_speed_mm_per_s * dt_s)
        reach_mm = self.scale_length_mm / 2
        on_scale = [bottle for bottle in self.bottles if -reach_mm <= bottle.position_mm <= reach_mm]
        self.bottle = bool(on_scale)
        self.ready = self.bottle and self.belt_speed_mm_per_s == 0
        if self.fill_l_per_s > 0:
            self._fill(self.fill_l_per_s * dt_s, on_scale[0] if on_scale else None)
        load_kg = 0.0
        for bottle in on_scale:
            load_kg += self.bottle_weight_kg + bottle.content_l * self.density_kg_per_l
        if self.weight_kg != load_kg:
            self.weight_kg = toward(self.weight_kg, load_kg, dt_s, self.settling_time_s)

    def _arriving(self, distance_mm: float) -> Bottle:
        return Bottle(-distance_mm + self.jitter_mm * self.chance.uniform(-1, 1))

    def _move(self, way_mm: float) -> None:
        for bottle in self.bottles:
            bottle.position_mm += way_mm
        while self.bottles[-1].position_mm > -self.spacing_mm:
            self.bottles.append(self._arriving(self.spacing_mm - self.bottles[-1].position_mm))
        while self.bottles[0].position_mm > self.scale_length_mm / 2:
            gone = self.bottles.pop(0)
            self.filled += gone.content_l > self.bottle_volume_l / 2

    def _fill(self, volume_l: float, bottle: Bottle | None) -> None:
        room_l = self.bottle_volume_l - bottle.content_l if bottle else 0.0
        taken_l = min(volume_l, room_l)
        if bottle:
            bottle.content_l += taken_l
        self.spilled_l += volume_l - taken_l


IDLE, RUNNING, DONE, FAILED = 1, 2, 3, 9
"""The states of a robot, as its `state` shows them."""


class Robot(msgspec.Struct):
    """A robot controller with numbered programs. `programs` says how long each runs.

    A program number other than 0 starts it; the robot then is running, and done when the time is over, or failed where
    it has no such program. While it runs another number counts for nothing. It is idle again when the number returns
    to 0, which also ends a running program. Where a heartbeat was seen to count and then stands still for `watchdog`,
    a running robot stops and has failed; a heartbeat of 0 says that nobody counts.
    """

    programs_s: Annotated[dict[int, float], Parameter("s", least=0.01)] = msgspec.field(
        default_factory=dict[int, float]
    )
    watchdog_s: Annotated[float, Parameter("s", least=0.1)] = 2.0
    program: Annotated[int, Input()] = 0
    heartbeat: Annotated[int, Input()] = 0
    state: Annotated[int, Output()] = IDLE
    cycles: Annotated[int, Output()] = 0

    selected: int = 0
    left_s: float = 0.0
    last_heartbeat: int = 0
    counted: bool = False
    quiet_s: float = 0.0

    def step(self, dt_s: float) -> None:
        self._watch(dt_s)
        before, self.selected = self.selected, self.program
        if self.program == 0:
            self.state = IDLE
        elif self.state == RUNNING:
            self._run(dt_s)
        elif self.state != FAILED and self.program != before:
            self._begin()

    def _begin(self) -> None:
        self.quiet_s = 0.0
        self.left_s = self.programs_s.get(self.program, 0.0)
        self.state = RUNNING if self.program in self.programs_s else FAILED

    def _run(self, dt_s: float) -> None:
        if self.counted and self.quiet_s >= self.watchdog_s:
            self.state = FAILED
            return
        self.left_s -= dt_s
        if self.left_s <= 0:
            self.state = DONE
            self.cycles += 1

    def _watch(self, dt_s: float) -> None:
        moved = self.heartbeat != self.last_heartbeat
        self.counted = self.heartbeat != 0 and (self.counted or (moved and self.last_heartbeat != 0))
        self.quiet_s = 0.0 if moved else self.quiet_s + dt_s
        self.last_heartbeat = self.heartbeat
