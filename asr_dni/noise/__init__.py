"""Computation noise: what it is, and who has it. Knows nothing of layers."""

from asr_dni.noise.module import NoisyModule
from asr_dni.noise.settings import MVM_SITES, SCALES, SITES, Noise, Scale, Site

__all__ = ["MVM_SITES", "SCALES", "SITES", "Noise", "NoisyModule", "Scale", "Site"]
