"""The models that a plant file may name."""

from hil.plants.bottling import Conveyor, Robot, Scale, Tank, Valve
from hil.plants.cleaning import CipSkid
from hil.plants.model import Block
from hil.plants.palletising import Infeed, PackMl, Palletiser
from hil.plants.phase import EquipmentPhase
from hil.plants.reaction import Reactor, Thermostat

MODELS: dict[str, type[Block]] = {
    "tank": Tank,
    "valve": Valve,
    "scale": Scale,
    "conveyor": Conveyor,
    "robot": Robot,
    "cip-skid": CipSkid,
    "thermostat": Thermostat,
    "reactor": Reactor,
    "infeed": Infeed,
    "palletiser": Palletiser,
    "packml": PackMl,
    "phase": EquipmentPhase,
}
"""By the name after `model:`."""
