"""A learned weight for each frame, in place of the mean over all."""

import torch
from torch import Tensor, nn

from asr_dni.nn.mvm import linear
from asr_dni.stackable import Stackable


class FrameWeights(Stackable):
    """Weights of frames, softmax over time of w h_t (P. Safari et al., arXiv:2008.01077, section 2.2); digital.

    Weights that are zero, as at first, make the mean.

    Args:
        width: D, numbers of a frame.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width))

    def forward(self, frames: Tensor) -> Tensor:
        """Return ``(T, N, 1)`` scores w h_t for frames ``(T, N, D)``, in a population with a leading axis K."""
        return linear(frames, self.weight)


def weighted_mean(values: Tensor, scores: Tensor) -> Tensor:
    """Return ``(*, N, C)``, the mean of values ``(*, T, N, C)`` with weights softmax(scores), ``(*, T, N, 1)``."""
    return (values * scores.softmax(-3)).sum(-3)
