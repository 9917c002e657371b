"""Numbers for K networks at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from asr_dni.nn.implementation import draw_noise
from asr_dni.nn.recurrence import SiteNoise
from asr_dni.philox import normal


def _one_by_one(device: torch.device) -> bool:
    """Whether to draw for one network after another: elsewhere what costs is the number of operations."""
    return device.type == "cpu"


def draw_noises(
    noises: Sequence[SiteNoise | None],
    sample_ids: Sequence[Tensor],
    first_step: int,
    steps: int,
    groups: int,
    width: int,
    like: Tensor,
) -> Tensor:
    """Draw the noise of one site of K networks.

    Args:
        noises: one per network; ``None`` where it is clean.
        sample_ids: ``(N,)`` identities of the samples, one tensor per network.
        first_step: the time step that comes first.
        steps: T, time steps.
        groups: 1 to 4.
        width: numbers per group.
        like: has the dtype and device.

    Returns:
        ``(K, T, N, groups * width)``; entry k is what :func:`asr_dni.nn.implementation.draw_noise` draws for it.
    """
    if _one_by_one(like.device):
        shape = (steps, len(sample_ids[0]), groups * width)
        drawn = [
            like.new_zeros(shape)
            if noise is None
            else draw_noise(noise, ids, first_step, steps, groups, width, like)
            for noise, ids in zip(noises, sample_ids, strict=True)
        ]
        return torch.stack(drawn)
    keys = [(0, 0) if noise is None else noise.key for noise in noises]
    times = torch.arange(first_step, first_step + steps, device=like.device)
    numbers = normal(keys, torch.stack(list(sample_ids)), times, groups, width)
    stds = [0.0 if noise is None else noise.std for noise in noises]
    scale = torch.tensor(stds, dtype=torch.float32, device=like.device)
    return (scale[:, None, None, None] * numbers).to(like.dtype)
