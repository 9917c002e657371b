"""The clean matrix-vector product."""

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available
from torch.nn import functional


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, shared: bool = False) -> Tensor:
    """``torch.nn.functional.linear``, of one network or of K at once.

    Args:
        input: ``(*, in)``; for K networks ``(K, *, in)``, or ``(*, in)`` where they share it.
        weight: ``(out, in)`` or ``(K, out, in)``.
        bias: ``(out,)`` or ``(K, out)``.
        shared: whether K networks share one input.

    Returns:
        ``(*, out)`` or ``(K, *, out)``, contiguous.
    """
    if weight.dim() == 2:
        return functional.linear(input, weight, bias)
    networks, width = weight.shape[:2]
    # A batched product that reads the shared input K times is as fast as one product with all weights side by side,
    # (T * N, F) x (F, K * out), and leaves each network's result in one piece.
    rows = input.flatten(0, -2).expand(networks, -1, -1) if shared else input.flatten(1, -2)
    product = torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)
    return product.view(networks, *input.shape[0 if shared else 1 : -1], width)


def like_product(input: Tensor) -> Tensor:
    """Return something with the dtype and device that a product has, which autocast may lower."""
    kind = input.device.type
    if is_autocast_available(kind) and torch.is_autocast_enabled(kind) and input.dtype != torch.float64:
        return input.new_empty(0, dtype=torch.get_autocast_dtype(kind))
    return input
