"""Computation noise: what it is, and who has it. Knows nothing of layers."""

from asr_dni.noise.converter import CONVERTERS, UniformConverter
from asr_dni.noise.hardware import Hardware, Realisation
from asr_dni.noise.model import (
    AddGaussian,
    Affine,
    Converter,
    Numbers,
    Operation,
    OutputModel,
    Quantise,
    WeightModel,
    straight_through,
)
from asr_dni.noise.module import ForwardPass, NoisyModule
from asr_dni.noise.noise import Noise
from asr_dni.noise.output import OUTPUT_MODELS, Gaussian, Multiplicative
from asr_dni.noise.sites import ARRAYS, MVM_SITES, SCALES, SITES, Arrays, Scale, Site
from asr_dni.noise.strength import SIGMA, Strength
from asr_dni.noise.weight import WEIGHT_MODELS, GaussianWeights

__all__ = [
    "ARRAYS",
    "CONVERTERS",
    "MVM_SITES",
    "OUTPUT_MODELS",
    "SCALES",
    "SIGMA",
    "SITES",
    "WEIGHT_MODELS",
    "AddGaussian",
    "Affine",
    "Arrays",
    "Converter",
    "ForwardPass",
    "Gaussian",
    "GaussianWeights",
    "Hardware",
    "Multiplicative",
    "Noise",
    "NoisyModule",
    "Numbers",
    "Operation",
    "OutputModel",
    "Quantise",
    "Realisation",
    "Scale",
    "Site",
    "Strength",
    "UniformConverter",
    "WeightModel",
    "straight_through",
]
