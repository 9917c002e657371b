"""Memory devices that weights lie in, each a weight model: its class says what programming, time and reads do to g.

A new one is a class here, in a file of its own, and its name in :data:`DEVICES`.
"""

from asr_dni.noise.devices.cells import (
    AgingDevice,
    Cells,
    Device,
    Draw,
    PowerLawDevice,
    StuckCells,
)
from asr_dni.noise.devices.generic import GenericDevice
from asr_dni.noise.devices.phase_change import PCM, Hermes, PCMJoshi, StateIndependent
from asr_dni.noise.devices.resistive import ReRAMCMO, ReRAMMilo, ReRAMWan2022
from asr_dni.noise.devices.sonos import SONOS

DEVICES: dict[str, type[Cells]] = {
    "PCM": PCM,
    "Hermes": Hermes,
    "PCMJoshi": PCMJoshi,
    "StateIndependent": StateIndependent,
    "ReRAMWan2022": ReRAMWan2022,
    "ReRAMCMO": ReRAMCMO,
    "ReRAMMilo": ReRAMMilo,
    "SONOS": SONOS,
    "GenericDevice": GenericDevice,
    "StuckCells": StuckCells,
}
"""Every device by its name. A new one is added here."""

__all__ = [
    "DEVICES",
    "PCM",
    "SONOS",
    "AgingDevice",
    "Cells",
    "Device",
    "Draw",
    "GenericDevice",
    "Hermes",
    "PCMJoshi",
    "PowerLawDevice",
    "ReRAMCMO",
    "ReRAMMilo",
    "ReRAMWan2022",
    "StateIndependent",
    "StuckCells",
]
