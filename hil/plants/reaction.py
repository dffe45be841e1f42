"""A jacketed stirred reactor in which A and B become a product with heat, and the thermostat of its jacket."""

import math
from typing import Annotated

import msgspec

from hil.plants.model import Input, Output, Parameter, approach, toward

_GAS_KJ_PER_MOL_K = 8.314e-3
_ZERO_C_K = 273.15


class Thermostat(msgspec.Struct):
    """A heating and cooling unit that holds the temperature of the oil in a jacket.

    It follows its setpoint as fast as its heater and cooler let it. Off, the oil goes to the ambient temperature.
    """

    heating_k_per_s: Annotated[float, Parameter("K/s")] = 10.0
    cooling_k_per_s: Annotated[float, Parameter("K/s")] = 10.0
    lag_s: Annotated[float, Parameter("s")] = 0.5
    ambient_c: Annotated[float, Parameter("degC", least=-50)] = 20.0
    losses_s: Annotated[float, Parameter("s", least=1)] = 300.0
    highest_c: Annotated[float, Parameter("degC", least=-50)] = 180.0
    lowest_c: Annotated[float, Parameter("degC", least=-50)] = -20.0

    on: Annotated[bool, Input()] = False
    setpoint_c: Annotated[float, Input("degC")] = 20.0

    jacket_c: Annotated[float, Output("degC")] = 20.0
    running: Annotated[bool, Output()] = False

    def __post_init__(self) -> None:
        self.jacket_c = self.ambient_c

    def step(self, dt_s: float) -> None:
        self.running = self.on
        if not self.on:
            self.jacket_c = toward(self.jacket_c, self.ambient_c, dt_s, self.losses_s)
            return
        aim_c = min(max(self.setpoint_c, self.lowest_c), self.highest_c)
        wanted_c = toward(self.jacket_c, aim_c, dt_s, self.lag_s)
        rate_k_per_s = self.heating_k_per_s if wanted_c > self.jacket_c else self.cooling_k_per_s
        self.jacket_c = approach(self.jacket_c, wanted_c, rate_k_per_s * dt_s)


class Reactor(msgspec.Struct):
    """A stirred reactor on load cells: solvent, A, a dosed B, a quench; A + B become a product and heat.

    The rate goes with what there is of A and B and, after Arrhenius, with the temperature: B that is dosed into a cold
    reactor waits, and reacts all at once when it is heated. Without the agitator heat passes badly and nothing mixes.
    Above the boiling point of water its vapour builds up pressure. `quench` water cools and thins.
    """

    solvent_flow_kg_per_s: Annotated[float, Parameter("kg/s")] = 5.0
    a_flow_kg_per_s: Annotated[float, Parameter("kg/s")] = 5.0
    quench_flow_kg_per_s: Annotated[float, Parameter("kg/s")] = 10.0
    discharge_flow_kg_per_s: Annotated[float, Parameter("kg/s")] = 8.0
    capacity_kg: Annotated[float, Parameter("kg", least=1)] = 100.0
    feed_c: Annotated[float, Parameter("degC", least=-50)] = 20.0
    heat_transfer_kw_per_k: Annotated[float, Parameter("kW/K")] = 40.0
    heat_of_reaction_kj_per_kg: Annotated[float, Parameter("kJ/kg")] = 400.0
    rate_at_70_c_per_s: Annotated[float, Parameter("1/s")] = 4.0
    activation_kj_per_mol: float = 60.0
    agitator_inertia_s: Annotated[float, Parameter("s")] = 0.5

    solvent: Annotated[bool, Input()] = False
    a: Annotated[bool, Input()] = False
    quench: Annotated[bool, Input()] = False
    discharge: Annotated[bool, Input()] = False
    dosing_kg_per_s: Annotated[float, Input("kg/s")] = 0.0
    agitator_rpm: Annotated[float, Input("rpm")] = 0.0
    jacket_c: Annotated[float, Input("degC")] = 20.0

    weight_kg: Annotated[float, Output("kg")] = 0.0
    temperature_c: Annotated[float, Output("degC")] = 20.0
    pressure_kpa: Annotated[float, Output("kPa")] = 100.0
    agitator_speed_rpm: Annotated[float, Output("rpm")] = 0.0
    dosed_kg: Annotated[float, Output("kg")] = 0.0
    unreacted_kg: Annotated[float, Output("kg")] = 0.0
    product_kg: Annotated[float, Output("kg")] = 0.0
    conversion_percent: Annotated[float, Output("%")] = 0.0

    water_kg: float = 0.0
    a_kg: float = 0.0
    b_kg: float = 0.0

    def __post_init__(self) -> None:
        self.temperature_c = self.feed_c

    def step(self, dt_s: float) -> None:
        """Charges, then discharges, reacts and exchanges heat; `dosed` starts anew when the reactor is empty."""
        room_kg = max(self.capacity_kg - self.weight_kg, 0.0)
        solvent_kg = (self.solvent * self.solvent_flow_kg_per_s + self.quench * self.quench_flow_kg_per_s) * dt_s
        coming = [solvent_kg, self.a * self.a_flow_kg_per_s * dt_s, max(self.dosing_kg_per_s, 0.0) * dt_s]
        share = min(room_kg / total, 1.0) if (total := sum(coming)) else 0.0
        self._charge(*(amount * share for amount in coming))
        self._discharge(dt_s)
        self.agitator_speed_rpm = toward(self.agitator_speed_rpm, self.agitator_rpm, dt_s, self.agitator_inertia_s)
        stirred = min(self.agitator_speed_rpm / 60.0, 1.0)
        heat_kj = self._react(dt_s, stirred)
        self._exchange(dt_s, heat_kj, stirred)
        self.pressure_kpa = 100.0 + max(self.temperature_c - 100.0, 0.0) * 3.6
        self.unreacted_kg = self.b_kg
        made_from_b_kg = self.product_kg / 2
        self.conversion_percent = 100.0 * made_from_b_kg / total if (total := made_from_b_kg + self.b_kg) > 0 else 0.0

    def _charge(self, solvent_kg: float, a_kg: float, b_kg: float) -> None:
        coming_kg = solvent_kg + a_kg + b_kg
        if coming_kg > 0:
            part = coming_kg / (self.weight_kg + coming_kg)
            self.temperature_c += part * (self.feed_c - self.temperature_c)
        self.water_kg += solvent_kg
        self.a_kg += a_kg
        self.b_kg += b_kg
        self.dosed_kg += b_kg
        self.weight_kg = self.water_kg + self.a_kg + self.b_kg + self.product_kg

    def _discharge(self, dt_s: float) -> None:
        if not self.discharge or self.weight_kg <= 0:
            return
        left = max(1.0 - self.discharge_flow_kg_per_s * dt_s / self.weight_kg, 0.0)
        self.water_kg, self.a_kg, self.b_kg, self.product_kg = (
            amount * left for amount in (self.water_kg, self.a_kg, self.b_kg, self.product_kg)
        )
        self.weight_kg *= left
        if self.weight_kg == 0:
            self.dosed_kg = 0.0

    def _react(self, dt_s: float, stirred: float) -> float:
        """The heat in kJ. As much of A as of B is used up; implicit in B, so that no more reacts than there is."""
        if self.weight_kg <= 0:
            return 0.0
        kelvin = self.temperature_c + _ZERO_C_K
        warmth = (1 / (70.0 + _ZERO_C_K) - 1 / kelvin) * self.activation_kj_per_mol / _GAS_KJ_PER_MOL_K
        rate_per_s = self.rate_at_70_c_per_s * math.exp(warmth) * stirred * self.a_kg / self.weight_kg
        used_kg = min(self.b_kg * rate_per_s * dt_s / (1 + rate_per_s * dt_s), self.a_kg)
        self.a_kg -= used_kg
        self.b_kg -= used_kg
        self.product_kg += 2 * used_kg
        return used_kg * self.heat_of_reaction_kj_per_kg

    def _exchange(self, dt_s: float, heat_kj: float, stirred: float) -> None:
        capacity_kj_per_k = 4.0 * max(self.weight_kg, 1.0)
        self.temperature_c = min(self.temperature_c + heat_kj / capacity_kj_per_k, 250.0)
        transfer_kw_per_k = self.heat_transfer_kw_per_k * (0.1 + 0.9 * stirred)
        time_s = capacity_kj_per_k / transfer_kw_per_k if transfer_kw_per_k else math.inf
        if math.isfinite(time_s):
            self.temperature_c = toward(self.temperature_c, self.jacket_c, dt_s, time_s)
