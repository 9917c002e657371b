"""What a data loader yields and what the network gets."""

from typing import NamedTuple

from torch import Tensor


class AudioBatch(NamedTuple):
    """Clips as they are stored, before augmentation and features.

    Attributes:
        waveforms: ``(N, S)`` int16 samples; full scale is 32768.
        labels: ``(N,)`` int64, positions in the label names.
        clip_ids: ``(N,)`` int64, the clips' identities: hashes of their names, the same in every run, split, order and
            batch, and for silence clips too. Random numbers that belong to a clip are keyed by them.
    """

    waveforms: Tensor
    labels: Tensor
    clip_ids: Tensor


class Batch(NamedTuple):
    """Features on the model's device.

    Attributes:
        features: ``(N, T, F)`` float32.
        labels: ``(N,)`` int64, positions in the label names.
        clip_ids: ``(N,)`` int64, see :class:`AudioBatch`.
    """

    features: Tensor
    labels: Tensor
    clip_ids: Tensor
