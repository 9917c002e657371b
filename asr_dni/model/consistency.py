"""Consistency: each clip runs under several draws of noise in one step, whose outputs are to agree."""

import math
from dataclasses import dataclass

from torch import Tensor

from asr_dni.errors import UserError


@dataclass(frozen=True)
class Consistency:
    """Several noisy passes of each clip in a training step (compare R-Drop, X. Liang et al., arXiv:2106.14448).

    The loss is the mean of the draws' losses plus ``weight`` times the mean, over all pairs of draws, of the symmetric
    Kullback-Leibler divergence (KL(p || q) + KL(q || p)) / 2 between their outputs. Draws differ in noise and dropout,
    in the chip where weights are programmed anew for each step, and in a strength that is drawn for each sample. They
    have the same features, and convolutions that are digital are passed once for all draws, with their dropout. A
    draw's random numbers are named by seed, step, clip and draw.

    Args:
        draws: passes of each clip, 2 or more.
        weight: of the divergence, above 0.

    Raises:
        UserError: a value is out of its range.
    """

    draws: int = 2
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise UserError(f"consistency.draws is {self.draws}: give 2 or more, or no consistency")
        if not 0 < self.weight < math.inf:
            raise UserError(f"consistency.weight is {self.weight}: give a number above 0")


def divergence(logits: Tensor) -> Tensor:
    """Return the mean symmetric Kullback-Leibler divergence between draws, ``(K,)``.

    Args:
        logits: of D draws of K networks, ``(D, K, N, C)``.
    """
    draws = len(logits)
    logarithms = logits.log_softmax(-1)
    probabilities = logarithms.exp()
    # Summed over all ordered pairs, p_i (log p_i - log p_j).
    own = draws * (probabilities * logarithms).sum(0)
    summed = own - probabilities.sum(0) * logarithms.sum(0)
    return summed.sum(-1).mean(-1) / (draws * (draws - 1))
