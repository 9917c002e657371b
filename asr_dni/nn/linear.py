"""A linear layer whose matrix-vector product is on analog hardware."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from asr_dni.nn.analog import OneProduct
from asr_dni.nn.crossbar import Crossbar
from asr_dni.nn.mvm import linear
from asr_dni.nn.operations import Outputs
from asr_dni.noise import Site


class NoisyLinear(OneProduct, nn.Linear):
    """``torch.nn.Linear`` on the hardware in force (site ``output``).

    Constructor, call, shapes and ``state_dict`` are those of ``torch.nn.Linear``; on exact hardware so are outputs and
    gradients. The noise of an input ``(N, *, in_features)`` is named by sample (first dimension) and by the
    position in the dimensions between, which counts as the time step. A population takes ``(K, N, *, in_features)`` to
    ``(K, N, *, out_features)``.
    """

    _site: ClassVar[Site] = "output"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``(N, *, out_features)`` for an input ``(N, *, in_features)``; a lone vector is one sample."""
        axes = input.shape[0 if self.networks is None else 1 : -1]
        rows, steps = axes[0] if axes else 1, math.prod(axes[1:])
        return self._apply_to(input, rows, steps, samples_first=True)

    def over_time(self, input: Tensor) -> Tensor:
        """Return ``(T, N, out_features)`` for an input ``(T, N, in_features)``, of a population with a leading axis K.

        It is what :meth:`forward` gives for ``(N, T, in_features)``, without turning anything round.
        """
        return self._apply_to(input, input.shape[-2], input.shape[-3], samples_first=False)

    def _apply_to(self, input: Tensor, rows: int, steps: int, samples_first: bool) -> Tensor:
        if self.networks is not None and (input.dim() < 3 or input.shape[0] != self.networks):
            raise ValueError(
                f"expected an input (K, N, *, {self.in_features}) for K = {self.networks} networks, got"
                f" {tuple(input.shape)}"
            )
        if self._estimates is not None:
            self._observe(linear(input, self.weight), input)
        now = self._begin_pass("output")
        if not now.at("output"):
            return linear(input, self.weight, self.bias)
        weight = self._programmed(now, "output", "weight")
        first_step = now.noises[0].realisation.first_step
        drawing = self._drawing(now, input, rows, first_step, steps, self.out_features, samples_first)
        product = self._only_product(now, drawing, self.in_features)
        networks = len(now.noises)
        axes = (networks, rows, steps) if samples_first else (networks, steps, rows)
        if product is None or product.additive:
            y = linear(input, weight, self.bias)
            if product is not None:
                y = Outputs(product.arrays[0], drawing)(y.reshape(*axes, self.out_features)).reshape(y.shape)
            return y
        of_all = (weight, input) if self.networks is not None else (weight[None], input[None])
        y = Crossbar(product, of_all[0], drawing)(of_all[1].reshape(*axes, self.in_features))
        y = y.reshape(*input.shape[:-1], self.out_features)
        if self.bias is None:
            return y
        return y + (
            self.bias if self.networks is None else self.bias.view(networks, *(1,) * (y.dim() - 2), -1)
        )
