"""The network, its Lightning module and the annealing of its noise."""

from asr_dni.model.annealing import NoiseAnnealing
from asr_dni.model.averaging import AveragedWeights, averages_weights
from asr_dni.model.consistency import Consistency
from asr_dni.model.distillation import Distillation
from asr_dni.model.members import save_members, split_checkpoint, write_members
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.model.population_spotter import Member, PopulationSpotter
from asr_dni.model.spotter import KeywordSpotter, TrainingNoise, load_checkpoint

__all__ = [
    "AveragedWeights",
    "Consistency",
    "Distillation",
    "KeywordNetwork",
    "KeywordSpotter",
    "Member",
    "NetworkSettings",
    "NoiseAnnealing",
    "PopulationSpotter",
    "TrainingNoise",
    "averages_weights",
    "load_checkpoint",
    "save_members",
    "split_checkpoint",
    "write_members",
]
