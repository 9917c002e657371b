"""In which precision recurrent layers take the factors of their products: a setting, and what it comes to."""

import os
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.nn import fused, native
from asr_dni.nn.implementation import chosen_implementation
from asr_dni.nn.mvm import Products

ProductsSetting: TypeAlias = Literal["float32", "bfloat16", "auto"]

SETTING = "ASR_DNI_PRODUCTS"
"""Environment variable: the setting of layers that have none of their own."""

WORTH_IT = ("amx_bf16",)
"""Kernels that ``auto`` takes bfloat16 for: the others were measured to be slower than float32, see docs/speed.md."""


def check_products(setting: str | None, name: str = "products") -> ProductsSetting | None:
    """Return a setting that is known.

    Raises:
        UserError: it is not.
    """
    if setting is None:
        return None
    for known in get_args(ProductsSetting):
        if setting == known:
            return known  # type: ignore[no-any-return]
    raise UserError(f"{name} is {setting!r}: give one of {', '.join(get_args(ProductsSetting))}")


def chosen_products(setting: str | None = None) -> ProductsSetting:
    """Return the setting in force: a layer's own, else the environment's, else ``float32``.

    Raises:
        UserError: it is not known.
    """
    return check_products(setting) or check_products(os.environ.get(SETTING), SETTING) or "float32"


class PreciseProducts(nn.Module):
    """Mixed into recurrent layers.

    Attributes:
        products: the precision of the factors of products with matrices, forward and backward: ``float32`` (as they are
            given), ``bfloat16`` (rounded to nearest, ties to even; by the plain loop where no kernel runs the layer),
            or ``auto``: bfloat16 where this processor's kernel for it makes it faster, else float32. Sums, gates,
            states, noise and gradients of weights have the precision of what is given. ``None``: what the environment's
            ``ASR_DNI_PRODUCTS`` says, else float32. May be set at any time; no part of the ``state_dict``.
    """

    products: ProductsSetting | None = None
    proj_size: int

    def __init__(self, *arguments: Any, products: ProductsSetting | None = None, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.products = check_products(products)

    @property
    def _cell(self) -> str:
        """The name of the cell in :data:`asr_dni.nn.cells.CELLS`."""
        raise NotImplementedError

    def products_on(self, like: Tensor) -> Products:
        """Return the precision that :attr:`products` comes to for inputs like these.

        Raises:
            UserError: the setting is not known.
        """
        chosen = chosen_products(self.products)
        if chosen != "auto":
            return chosen
        runs = (
            like.device.type == "cpu"
            and like.dtype == torch.float32
            and not self.proj_size
            and self._cell in fused.CAPABILITIES.cells
            and chosen_implementation() in ("auto", "fused")
            and native.library() is not None
        )
        return "bfloat16" if runs and native.bfloat16_kernel() in WORTH_IT else "float32"
