"""Noisy layers with the interface of their ``torch.nn`` counterparts. Know nothing of Lightning."""

from asr_dni.nn.cells import CELLS, OwnParameter, RecurrentCell
from asr_dni.nn.dropout import CounterDropout, DropoutSeed, seeded_dropout
from asr_dni.nn.implementation import Implementation, use_implementation
from asr_dni.nn.linear import NoisyLinear
from asr_dni.nn.population import stack_networks, unstack_network
from asr_dni.nn.recurrent import NoisyGRU, NoisyLSTM, NoisyRecurrent, NoisyRNN
from asr_dni.nn.statistics import CalibratedModule, calibrate, snr_db

__all__ = [
    "CELLS",
    "CalibratedModule",
    "CounterDropout",
    "DropoutSeed",
    "Implementation",
    "NoisyGRU",
    "NoisyLSTM",
    "NoisyLinear",
    "NoisyRNN",
    "NoisyRecurrent",
    "OwnParameter",
    "RecurrentCell",
    "calibrate",
    "seeded_dropout",
    "snr_db",
    "stack_networks",
    "unstack_network",
    "use_implementation",
]
