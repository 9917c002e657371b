"""Computation noise: what it is, and who has it. Knows nothing of layers."""

from asr_dni.noise.module import ForwardPass, NoisyModule
from asr_dni.noise.settings import ARRAYS, MVM_SITES, SCALES, SITES, Arrays, Noise, Scale, Site
from asr_dni.noise.strength import Strength

__all__ = [
    "ARRAYS",
    "MVM_SITES",
    "SCALES",
    "SITES",
    "Arrays",
    "ForwardPass",
    "Noise",
    "NoisyModule",
    "Scale",
    "Site",
    "Strength",
]
