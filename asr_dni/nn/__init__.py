"""Noisy layers with the interface of their ``torch.nn`` counterparts. Know nothing of Lightning."""

from asr_dni.nn.implementation import Implementation, use_implementation
from asr_dni.nn.linear import NoisyLinear
from asr_dni.nn.recurrent import NoisyGRU, NoisyLSTM, NoisyRNN
from asr_dni.nn.statistics import CalibratedModule, calibrate, snr_db

__all__ = [
    "CalibratedModule",
    "Implementation",
    "NoisyGRU",
    "NoisyLSTM",
    "NoisyLinear",
    "NoisyRNN",
    "calibrate",
    "snr_db",
    "use_implementation",
]
