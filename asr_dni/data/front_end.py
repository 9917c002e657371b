"""From 16-bit samples to a network's features: which rate, which length, which features, which normalisation."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from asr_dni.data.audio import FULL_SCALE
from asr_dni.errors import UserError
from asr_dni.features.mfcc import MFCC


class FrontEnd(nn.Module):
    """What a trained network expects of a recording; knows nothing of the data that it was trained on.

    Args:
        features: the features, with the statistics that they are normalised by.
        clip_seconds: length of a clip.
    """

    def __init__(self, features: MFCC, clip_seconds: float) -> None:
        super().__init__()
        self.features = features
        self.clip_seconds = clip_seconds

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return self.features.settings.sample_rate

    @property
    def n_samples(self) -> int:
        """Samples per clip, S."""
        return round(self.clip_seconds * self.sample_rate)

    @torch.no_grad()
    def forward(self, waveforms: Tensor) -> Tensor:
        """Return features ``(N, T, F)`` for clips ``(N, S)`` of int16."""
        features: Tensor = self.features(to_float(waveforms))
        return features


def to_float(waveforms: Tensor) -> Tensor:
    """Return int16 samples as float32 in [-1, 1)."""
    return waveforms.to(torch.float32).mul_(1.0 / FULL_SCALE)


def load_statistics(features: MFCC, statistics: Mapping[str, Tensor], where: str = "the checkpoint") -> None:
    """Take over the statistics that a checkpoint keeps of its features.

    Args:
        features: that have the checkpoint's settings.
        statistics: the checkpoint's.
        where: what a message calls the checkpoint.

    Raises:
        UserError: they are those of other features.
    """
    expected = {name: tensor.shape for name, tensor in features.state_dict().items()}
    found = {name: tensor.shape for name, tensor in statistics.items()}
    if expected != found:
        raise UserError(f"{where} was trained with another front end; give the frontend settings that it has")
    features.load_state_dict(dict(statistics))
