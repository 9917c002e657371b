"""A matrix as it lies on a chip, read through what users call."""

from typing import Any

import torch
from torch import Tensor

from asr_dni.nn import NoisyLinear
from asr_dni.noise import Hardware, Realisation


def programmed(model: Any, weight: Tensor, **realisation: int) -> Tensor:
    """Return the matrix on a chip, read off by unit vectors."""
    layer = NoisyLinear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    with layer.under(Hardware(weight=model), Realisation(**realisation)), torch.no_grad():
        return layer(torch.eye(weight.shape[1], dtype=weight.dtype)).T
