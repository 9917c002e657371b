"""The clean matrix-vector product, and the precision of its factors."""

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available
from torch.nn import functional

Products: TypeAlias = Literal["float32", "bfloat16"]
"""The precision of the factors of products with matrices; ``float32`` takes them as they are given."""


class _Rounded(torch.autograd.Function):
    """Numbers that bfloat16 has, nearest to those given, ties to even; the gradient goes through as it is."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.to(torch.bfloat16).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.clone()


class _RoundedGradient(torch.autograd.Function):
    """Numbers as they are, with a gradient that is rounded."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return round_factor(gradient, "bfloat16")

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.clone()


def round_factor(factor: Tensor, products: Products) -> Tensor:
    """Return a factor of a product in its precision, in the type that it was given in.

    The gradient goes through: rounding is a property of the arithmetic, not of the function that is learnt.
    """
    if products == "float32":
        return factor
    rounded: Tensor = _Rounded.apply(factor)  # type: ignore[no-untyped-call]
    return rounded


def round_gradient(product: Tensor, products: Products) -> Tensor:
    """Return a product whose gradient, which is a factor of its factors' gradients, has their precision."""
    if products == "float32":
        return product
    same: Tensor = _RoundedGradient.apply(product)  # type: ignore[no-untyped-call]
    return same


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    shared: bool = False,
    products: Products = "float32",
) -> Tensor:
    """``torch.nn.functional.linear``, of one network or of K at once.

    Args:
        input: ``(*, in)``; for K networks ``(K, *, in)``, or ``(*, in)`` where they share it.
        weight: ``(out, in)`` or ``(K, out, in)``.
        bias: ``(out,)`` or ``(K, out)``.
        shared: whether K networks share one input.
        products: the precision of the factors, forward and backward; sums are in that of what is given.

    Returns:
        ``(*, out)`` or ``(K, *, out)``. Where networks have weights, bias and input in common, so they have the result.
    """
    if weight.dim() == 3 and in_common(weight) and (bias is None or in_common(bias)):
        # One product each: in one of all rows a library may sum in another order than it does for one network alone.
        of_all = weight[0], None if bias is None else bias[0]
        if shared:
            once = linear(input, *of_all, products=products)
            return once.expand(len(weight), *once.shape)
        return torch.stack([linear(its, *of_all, products=products) for its in input])
    if products != "float32":
        input, weight = round_factor(input, products), round_factor(weight, products)
        product = round_gradient(linear(input, weight, shared=shared), products)
        if bias is None:
            return product
        return product + (bias if weight.dim() == 2 else bias.view(len(bias), *[1] * (product.dim() - 2), -1))
    if weight.dim() == 2:
        return functional.linear(input, weight, bias)
    networks, width = weight.shape[:2]
    # A batched product that reads the shared input K times is as fast as one product with all weights side by side,
    # (T * N, F) x (F, K * out), and leaves each network's result in one piece.
    rows = input.flatten(0, -2).expand(networks, -1, -1) if shared else input.flatten(1, -2)
    product = torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)
    return product.view(networks, *input.shape[0 if shared else 1 : -1], width)


def in_common(tensor: Tensor) -> bool:
    """Return whether K networks have one tensor in common, given as ``(K, *)``: see ``repeat_network``."""
    return tensor.shape[0] > 1 and tensor.stride(0) == 0


def like_product(input: Tensor) -> Tensor:
    """Return something with the dtype and device that a product has, which autocast may lower."""
    kind = input.device.type
    if is_autocast_available(kind) and torch.is_autocast_enabled(kind) and input.dtype != torch.float64:
        return input.new_empty(0, dtype=torch.get_autocast_dtype(kind))
    return input
