"""The network, its Lightning module and the annealing of its noise."""

from asr_dni.model.annealing import NoiseAnnealing
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.model.spotter import KeywordSpotter, TrainingNoise, load_checkpoint

__all__ = [
    "KeywordNetwork",
    "KeywordSpotter",
    "NetworkSettings",
    "NoiseAnnealing",
    "TrainingNoise",
    "load_checkpoint",
]
