"""Plant models: pure physics in steps of `dt_s`; no clock, no socket, the same steps give the same plant.

A model is a Struct whose fields are declared as `Parameter` (given once), `Input` (what a controller or another block
gives) or `Output` (what a sensor shows). A field is named with its unit, `level_l`, and known in a plant file without
it, `level`. `step` integrates with the implicit or semi-implicit Euler rule, so that no step size makes it unstable.
"""

from typing import Protocol, get_args, get_type_hints

import msgspec

from drivers.value import Value

SUFFIXES = {
    "": "",
    "L": "_l",
    "L/s": "_l_per_s",
    "degC": "_c",
    "kW": "_kw",
    "rpm": "_rpm",
    "mS/cm": "_ms_per_cm",
    "mm": "_mm",
    "mm/s": "_mm_per_s",
    "mm/s²": "_mm_per_s2",
    "kg": "_kg",
    "kg/L": "_kg_per_l",
    "s": "_s",
    "%": "_percent",
    "m3/h": "_m3_per_h",
    "K/s": "_k_per_s",
    "kW/K": "_kw_per_k",
    "kJ/kg": "_kj_per_kg",
    "kg/s": "_kg_per_s",
    "1/s": "_per_s",
    "kPa": "_kpa",
}
"""The unit of a field and how its name ends."""


class Parameter(msgspec.Struct, frozen=True):
    """A property of the block, in `unit`; at least `least`, so that the physics is sound."""

    unit: str = ""
    least: float = 0.0


class Input(msgspec.Struct, frozen=True):
    """What acts on the block, in `unit`."""

    unit: str = ""


class Output(msgspec.Struct, frozen=True):
    """What can be measured at the block, in `unit`."""

    unit: str = ""


Role = Parameter | Input | Output


class Block(Protocol):
    """One piece of the plant. Inputs are set before a step, outputs read after it."""

    def step(self, dt_s: float) -> None:
        """The block `dt_s` seconds later, its inputs having stood as they are."""
        ...


class Field(msgspec.Struct, frozen=True):
    """A declared field of a model: its name in a plant file, attribute, role, and the type and start of its value."""

    name: str
    attribute: str
    role: Role
    type: type
    start: Value | None


def fields(model: type[Block]) -> dict[str, Field]:
    """The declared fields of a model, by their names in a plant file."""
    found: dict[str, Field] = {}
    defaults = {field.name: field.default for field in msgspec.structs.fields(model)}  # pyright: ignore[reportArgumentType]
    for attribute, hint in get_type_hints(model, include_extras=True).items():
        for role in get_args(hint)[1:]:
            if isinstance(role, Parameter | Input | Output):
                name = attribute.removesuffix(SUFFIXES[role.unit])
                default = defaults[attribute]
                start = default if isinstance(default, bool | int | float | str) else None
                found[name] = Field(name, attribute, role, get_args(hint)[0], start)
    return found


_ARRIVED = 1e-6
"""What lags is there when it is so near, in its unit: no instrument shows less."""


def toward(value: float, target: float, dt_s: float, time_constant_s: float) -> float:
    """First-order lag, implicit Euler; it arrives."""
    left = (value - target) * time_constant_s / (time_constant_s + dt_s)
    return target + left if abs(left) >= _ARRIVED else target


def approach(value: float, target: float, most: float) -> float:
    """Ramp: toward the target by at most `most`."""
    return min(max(target, value - most), value + most)


LITRE_KJ_PER_K = 4.186
"""Heat capacity of a litre of water."""
