"""A linear layer with noise on its matrix-vector product."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_dni.nn.implementation import draw_noise
from asr_dni.nn.recurrence import SiteNoise
from asr_dni.nn.statistics import CalibratedModule, SignalStatistics
from asr_dni.noise import Noise, Site
from asr_dni.philox import derive_key


class NoisyLinear(CalibratedModule, nn.Linear):
    """``torch.nn.Linear`` with additive Gaussian noise on every output (site ``output``).

    Constructor, call, shapes and ``state_dict`` are those of ``torch.nn.Linear``; without noise so are outputs and
    gradients. The noise of an input ``(N, *, in_features)`` is named by sample (first dimension) and by the
    position in the dimensions between, which counts as the time step.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self._statistics = {"l0": SignalStatistics(("output",))}

    def forward(self, input: Tensor) -> Tensor:
        """Return ``(N, *, out_features)`` for an input ``(N, *, in_features)``; a lone vector is one sample."""
        if self._observing:
            self._statistics["l0"].observe_output("output", functional.linear(input, self.weight))
            self._statistics["l0"].observe_input("output", input)
        clean = functional.linear(input, self.weight, self.bias)
        noise = self._noise
        if not noise.on or "output" not in noise.sites:
            return clean
        std = self._std("l0", "output", noise)
        rows = clean.shape[0] if clean.dim() > 1 else 1
        steps = math.prod(clean.shape[1:-1])
        ids = noise.sample_ids
        ids = torch.arange(rows, device=clean.device) if ids is None else ids.to(clean.device)
        if ids.shape != (rows,):
            raise ValueError(f"noise has {ids.numel()} sample identities for a batch of {rows}")
        key = derive_key(noise.seed, "output", self._stream, self._next_draw())
        drawn = draw_noise(SiteNoise(std, key), ids, noise.first_step, steps, 1, self.out_features, clean)
        return clean + drawn.transpose(0, 1).reshape(clean.shape)

    def _matrices(self, part: str, site: str) -> list[Tensor]:
        return [self.weight]

    def signal_and_noise_power(self, noise: Noise) -> list[tuple[str, Site, float, float]]:
        """Return part, site, mean square of the clean signal and variance of the noise."""
        if "output" not in noise.sites:
            return []
        std = self._std("l0", "output", noise)
        return [("l0", "output", self._statistics["l0"].rms["output"] ** 2, std**2)]
