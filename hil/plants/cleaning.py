"""A CIP skid: tanks of media, a pump, a heater, and the circuit that is cleaned."""

from typing import Annotated

import msgspec

from hil.plants.model import LITRE_KJ_PER_K, Input, Output, Parameter, toward

_CELLS = 4
"""Mixed cells in a row that a circuit is made of: a step of conductivity comes back late and smeared."""
_S_PER_H = 3.6
"""m3/h is so many times L/s."""


class Medium(msgspec.Struct):
    """A volume of a medium, ideally mixed."""

    volume_l: float
    temperature_c: float
    conductivity_ms_per_cm: float

    def mix(self, volume_l: float, other: "Medium") -> None:
        """Lets so much of another medium in."""
        if volume_l > 0:
            part = volume_l / (self.volume_l + volume_l)
            self.temperature_c += part * (other.temperature_c - self.temperature_c)
            self.conductivity_ms_per_cm += part * (other.conductivity_ms_per_cm - self.conductivity_ms_per_cm)
            self.volume_l += volume_l


class CipSkid(msgspec.Struct):
    """A CIP skid with caustic, acid, recovered and mains water, and the circuit that it cleans.

    Pump and heater have controllers of their own, which are given a flow and a temperature. Something flows where a
    supply valve is open, its tank holds something, and a route to what is cleaned is open (`route_a`, `route_b`: how
    far its valve is). The return pump brings it back, to the tank or drain whose return valve is open; what is not
    brought back stands in what is cleaned (`pool`). Tanks that are full run over.
    """

    circuit_volume_l: Annotated[float, Parameter("L", least=1)] = 25.0
    tank_volume_l: Annotated[float, Parameter("L", least=10)] = 600.0
    start_level_l: Annotated[float, Parameter("L")] = 400.0
    most_flow_m3_per_h: Annotated[float, Parameter("m3/h", least=0.1)] = 30.0
    flow_time_s: Annotated[float, Parameter("s")] = 0.5
    heater_kw: Annotated[float, Parameter("kW")] = 600.0
    heater_time_s: Annotated[float, Parameter("s")] = 1.0
    water_supply_c: Annotated[float, Parameter("degC")] = 15.0
    water_strength_ms_per_cm: Annotated[float, Parameter("mS/cm")] = 0.4
    caustic_supply_c: Annotated[float, Parameter("degC")] = 70.0
    caustic_strength_ms_per_cm: Annotated[float, Parameter("mS/cm")] = 90.0
    acid_supply_c: Annotated[float, Parameter("degC")] = 55.0
    acid_strength_ms_per_cm: Annotated[float, Parameter("mS/cm")] = 60.0

    water: Annotated[bool, Input()] = False
    recovered: Annotated[bool, Input()] = False
    caustic: Annotated[bool, Input()] = False
    acid: Annotated[bool, Input()] = False
    to_drain: Annotated[bool, Input()] = False
    to_recovered: Annotated[bool, Input()] = False
    to_caustic: Annotated[bool, Input()] = False
    to_acid: Annotated[bool, Input()] = False
    return_pump: Annotated[bool, Input()] = False
    flow_setpoint_m3_per_h: Annotated[float, Input("m3/h")] = 0.0
    temperature_setpoint_c: Annotated[float, Input("degC")] = 0.0
    route_a_percent: Annotated[float, Input("%")] = 0.0
    route_b_percent: Annotated[float, Input("%")] = 0.0

    flow_m3_per_h: Annotated[float, Output("m3/h")] = 0.0
    supply_temperature_c: Annotated[float, Output("degC")] = 15.0
    return_flow_m3_per_h: Annotated[float, Output("m3/h")] = 0.0
    return_temperature_c: Annotated[float, Output("degC")] = 15.0
    return_conductivity_ms_per_cm: Annotated[float, Output("mS/cm")] = 0.0
    caustic_level_l: Annotated[float, Output("L")] = 0.0
    acid_level_l: Annotated[float, Output("L")] = 0.0
    recovered_level_l: Annotated[float, Output("L")] = 0.0
    caustic_tank_ms_per_cm: Annotated[float, Output("mS/cm")] = 0.0
    pool_l: Annotated[float, Output("L")] = 0.0
    used_l: Annotated[float, Output("L")] = 0.0

    tanks: dict[str, Medium] = msgspec.field(default_factory=dict[str, Medium])
    cells: list[Medium] = msgspec.field(default_factory=list[Medium])

    def __post_init__(self) -> None:
        level_l = min(self.start_level_l, self.tank_volume_l)
        self.tanks = {
            "water": Medium(level_l, self.water_supply_c, self.water_strength_ms_per_cm),
            "recovered": Medium(level_l, self.water_supply_c, self.water_strength_ms_per_cm),
            "caustic": Medium(level_l, self.caustic_supply_c, self.caustic_strength_ms_per_cm),
            "acid": Medium(level_l, self.acid_supply_c, self.acid_strength_ms_per_cm),
        }
        cell_l = self.circuit_volume_l / _CELLS
        self.cells = [Medium(cell_l, self.water_supply_c, self.water_strength_ms_per_cm) for _ in range(_CELLS)]
        self.supply_temperature_c = self.water_supply_c
        self._show()

    def step(self, dt_s: float) -> None:
        open_tanks = [tank for name, tank in self.tanks.items() if getattr(self, name) and tank.volume_l > 0]
        routed = max(self.route_a_percent, self.route_b_percent) >= 50.0
        wanted = min(max(self.flow_setpoint_m3_per_h, 0.0), self.most_flow_m3_per_h) if open_tanks and routed else 0.0
        self.flow_m3_per_h = toward(self.flow_m3_per_h, wanted, dt_s, self.flow_time_s)
        sent = self._draw(open_tanks, self.flow_m3_per_h / _S_PER_H * dt_s)
        self._heat(sent, dt_s)
        self._pass_on(sent)
        self.pool_l += sent.volume_l
        self._return(dt_s)
        self._show()

    def _draw(self, open_tanks: list[Medium], volume_l: float) -> Medium:
        """What the pump takes, in equal parts from what is open; mains water (the first tank) never ends."""
        sent = Medium(0.0, self.supply_temperature_c, self.water_strength_ms_per_cm)
        for tank in open_tanks:
            part_l = min(volume_l / len(open_tanks), tank.volume_l)
            sent.mix(part_l, tank)
            if tank is not self.tanks["water"]:
                tank.volume_l -= part_l
            else:
                self.used_l += part_l
        return sent

    def _heat(self, sent: Medium, dt_s: float) -> None:
        if sent.volume_l <= 0:
            return
        reach_c = sent.temperature_c + self.heater_kw * dt_s / (LITRE_KJ_PER_K * sent.volume_l)
        heated_c = max(min(self.temperature_setpoint_c, reach_c, 140.0), sent.temperature_c)
        self.supply_temperature_c = toward(self.supply_temperature_c, heated_c, dt_s, self.heater_time_s)
        sent.temperature_c = self.supply_temperature_c

    def _pass_on(self, sent: Medium) -> None:
        cell_l = self.circuit_volume_l / _CELLS
        coming = sent
        for cell in self.cells:
            cell.mix(sent.volume_l, coming)
            cell.volume_l = cell_l
            coming = cell

    def _return(self, dt_s: float) -> None:
        """The return pump draws a fifth more than what comes, so that nothing stays where it cleans."""
        ways = [name for name in ("drain", "recovered", "caustic", "acid") if getattr(self, f"to_{name}")]
        most_l = self.most_flow_m3_per_h * 1.2 / _S_PER_H * dt_s if self.return_pump and ways else 0.0
        back_l = min(self.pool_l, most_l)
        self.pool_l = max(self.pool_l - back_l, 0.0)
        self.return_flow_m3_per_h = toward(
            self.return_flow_m3_per_h, back_l / dt_s * _S_PER_H if dt_s else 0.0, dt_s, self.flow_time_s
        )
        for name in ways:
            if name != "drain":
                tank = self.tanks[name]
                tank.mix(back_l / len(ways), self.cells[-1])
                tank.volume_l = min(tank.volume_l, self.tank_volume_l)

    def _show(self) -> None:
        self.return_temperature_c = self.cells[-1].temperature_c
        self.return_conductivity_ms_per_cm = self.cells[-1].conductivity_ms_per_cm
        self.caustic_level_l = self.tanks["caustic"].volume_l
        self.acid_level_l = self.tanks["acid"].volume_l
        self.recovered_level_l = self.tanks["recovered"].volume_l
        self.caustic_tank_ms_per_cm = self.tanks["caustic"].conductivity_ms_per_cm
