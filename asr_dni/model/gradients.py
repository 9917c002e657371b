"""Gradients of K networks at once: their norms by member, clipped by them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def norms_by_member(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norms ``(K,)`` of members' gradients, ``(K, *)`` each."""
    parts = [torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(parts), dim=0)
    return norms


def beside(factors: Tensor, gradient: Tensor) -> Tensor:
    """Return members' factors ``(K,)`` in a shape that multiplies a gradient ``(K, *)``."""
    return factors.view(-1, *(1,) * (gradient.dim() - 1))


@torch.no_grad()
def clip_by_member(parameters: Sequence[Tensor], largest: float) -> Tensor:
    """Scale each member's gradient down to a norm, as :func:`torch.nn.utils.clip_grad_norm_` does for one network.

    Args:
        parameters: ``(K, *)`` each; gradients are changed in place.
        largest: the largest norm that is left as it is.

    Returns:
        The norms ``(K,)`` before.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = norms_by_member(gradients)
    factors = (largest / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(beside(factors, gradient))
    return norms
