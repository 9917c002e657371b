"""A linear layer with noise on its matrix-vector product."""

import math

import torch
from torch import Tensor, nn

from asr_dni.nn.drawing import draw_noises
from asr_dni.nn.implementation import draw_noise
from asr_dni.nn.mvm import linear
from asr_dni.nn.recurrence import SiteNoise
from asr_dni.nn.statistics import CalibratedModule, SignalStatistics
from asr_dni.noise import Noise, Site
from asr_dni.philox import derive_key


class NoisyLinear(CalibratedModule, nn.Linear):
    """``torch.nn.Linear`` with additive Gaussian noise on every output (site ``output``).

    Constructor, call, shapes and ``state_dict`` are those of ``torch.nn.Linear``; without noise so are outputs and
    gradients. The noise of an input ``(N, *, in_features)`` is named by sample (first dimension) and by the
    position in the dimensions between, which counts as the time step. A population takes ``(K, N, *, in_features)`` to
    ``(K, N, *, out_features)``.
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
        self._statistics = ({"l0": SignalStatistics(("output",))},)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``(N, *, out_features)`` for an input ``(N, *, in_features)``; a lone vector is one sample."""
        clean = self._clean(input)
        axes = clean.shape[0 if self.networks is None else 1 : -1]
        drawn = self._drawn(axes[0] if axes else 1, math.prod(axes[1:]), clean)
        return clean if drawn is None else clean + drawn.transpose(-3, -2).reshape(clean.shape)

    def over_time(self, input: Tensor) -> Tensor:
        """Return ``(T, N, out_features)`` for an input ``(T, N, in_features)``, of a population with a leading axis K.

        It is what :meth:`forward` gives for ``(N, T, in_features)``, without turning anything round.
        """
        clean = self._clean(input)
        drawn = self._drawn(clean.shape[-2], clean.shape[-3], clean)
        return clean if drawn is None else clean + drawn

    def _clean(self, input: Tensor) -> Tensor:
        if self.networks is not None and (input.dim() < 3 or input.shape[0] != self.networks):
            raise ValueError(
                f"expected an input (K, N, *, {self.in_features}) for K = {self.networks} networks, got"
                f" {tuple(input.shape)}"
            )
        if self._estimates is not None:
            self._estimates["l0"].observe_output("output", linear(input, self.weight))
            self._estimates["l0"].observe_input("output", input)
        return linear(input, self.weight, self.bias)

    def _drawn(self, rows: int, steps: int, like: Tensor) -> Tensor | None:
        """Return the noise, ``(T, N, out_features)`` or ``(K, T, N, out_features)``; ``None`` where there is none."""
        now = self._begin_pass("output")
        if not any(noise.on and "output" in noise.sites for noise in now.noises):
            return None
        sites, ids = [], []
        for member, (noise, draw) in enumerate(zip(now.noises, now.draws, strict=True)):
            key = derive_key(noise.seed, "output", now.stream, draw)
            sites.append(
                SiteNoise(self._std_of_pass("l0", "output", noise, member), key) if noise.on else None
            )
            ids.append(self._sample_ids(noise, rows, like.device))
        shape = now.noises[0].first_step, steps, 1, self.out_features
        if self.networks is not None:
            return draw_noises(sites, ids, *shape, like)
        assert sites[0] is not None
        return draw_noise(sites[0], ids[0], *shape, like)

    def _matrices(self, part: str, site: str) -> list[Tensor]:
        return [self.weight]

    def signal_and_noise_power(
        self, noise: Noise, member: int | None = None
    ) -> list[tuple[str, Site, float, float]]:
        """Return part, site, mean square of the clean signal and variance of the noise."""
        if "output" not in noise.sites:
            return []
        std = self._std("l0", "output", noise, self._member(member))
        return [("l0", "output", self.statistics(member)["l0"].rms["output"] ** 2, std**2)]
