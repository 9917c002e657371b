"""Weight models: what programming a chip makes of a matrix.

A new one is a class here, or in a file of its own, and its name in :data:`WEIGHT_MODELS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.noise.devices import DEVICES
from asr_dni.noise.model import Numbers, WeightModel, straight_through


@dataclass(frozen=True)
class GaussianWeights(WeightModel):
    """W + sigma max|W| N(0, 1), the maximum over the matrix or over each output's row of weights.

    It is what aihwkit-lightning trains with (``nn/modules/torch_utils/torch_linear.py``, weight modifier additive
    Gaussian). The maximum is taken as a constant by the gradient.

    Attributes:
        sigma: standard deviation, in multiples of that maximum.
        per: ``tensor`` or ``output``: what the maximum is over.

    Raises:
        UserError: sigma is not a finite number of at least 0, or ``per`` is unknown.
    """

    units: ClassVar[Mapping[str, str]] = {"sigma": "multiples of the largest weight"}

    sigma: float = 0.0
    per: Literal["tensor", "output"] = "tensor"

    def __post_init__(self) -> None:
        self._check_number("sigma")
        _check_per(self.per)

    @property
    def neutral(self) -> bool:
        """Whether sigma is 0."""
        return self.sigma == 0

    def program(self, weight: Tensor, numbers: Numbers) -> Tensor:
        """Return the noisy matrix."""
        return weight + self.sigma * _largest(weight.detach(), self.per) * numbers.normal()


@dataclass(frozen=True)
class ClippedWeights(WeightModel):
    """W clipped to ±alpha std(W), the standard deviation about the mean of the matrix or of each output's row.

    Rare large weights then no longer decide what the largest conductance stands for. It is what aihwkit-lightning and
    IBM/analog-foundation-models do in training (alpha 2 to 3.5). The gradient passes everywhere, so that a clipped
    weight can come back.

    Attributes:
        alpha: in standard deviations; 0 clips nothing.
        per: ``tensor`` or ``output``: what the standard deviation is of.

    Raises:
        UserError: alpha is not a finite number of at least 0, or ``per`` is unknown.
    """

    strength: ClassVar[str] = "alpha"
    random: ClassVar[bool] = False
    units: ClassVar[Mapping[str, str]] = {"alpha": "standard deviations of the weights"}

    alpha: float = 2.5
    per: Literal["tensor", "output"] = "tensor"

    def __post_init__(self) -> None:
        self._check_number("alpha")
        _check_per(self.per)

    @property
    def neutral(self) -> bool:
        """Whether alpha is 0."""
        return self.alpha == 0

    def program(self, weight: Tensor, numbers: Numbers) -> Tensor:
        """Return the clipped matrix."""
        exact = weight.detach()
        flat = exact.flatten() if self.per == "tensor" else exact
        bound = self.alpha * flat.std(-1, unbiased=False, keepdim=self.per == "output")
        return straight_through(weight, torch.minimum(torch.maximum(exact, -bound), bound))


@dataclass(frozen=True)
class QuantisedWeights(WeightModel):
    """W rounded to multiples of max|W| / (levels - 1): what devices of so many levels, in pairs, can have.

    A pair of devices with ``levels`` conductances from 0 to g_max, one of which is at 0, has 2 levels - 1 weights: 128
    levels are 8 bits. The gradient goes straight through.

    Attributes:
        levels: of a device, at least 2; 0 rounds nothing.
        per: ``tensor`` or ``output``: what max|W| is over.

    Raises:
        UserError: levels are not a whole number of at least 2, nor 0, or ``per`` is unknown.
    """

    strength: ClassVar[str] = "levels"
    random: ClassVar[bool] = False

    levels: int = 128
    per: Literal["tensor", "output"] = "tensor"

    def __post_init__(self) -> None:
        self._check_number("levels")
        if self.levels != int(self.levels) or self.levels == 1:
            raise UserError(
                f"weights have {self.levels} levels: give a whole number of at least 2, or 0 for weights as they are"
            )
        object.__setattr__(self, "levels", int(self.levels))  # a strength's values are floats
        _check_per(self.per)

    @property
    def neutral(self) -> bool:
        """Whether levels is 0."""
        return self.levels == 0

    def program(self, weight: Tensor, numbers: Numbers) -> Tensor:
        """Return the rounded matrix."""
        exact = weight.detach()
        step = _largest(exact, self.per) / (self.levels - 1)
        whole = torch.where(step > 0, step, torch.ones_like(step))
        return straight_through(weight, (exact / whole).round() * whole)


def _check_per(per: str) -> None:
    if per not in ("tensor", "output"):
        raise UserError(f"a weight model is per {per!r}: give tensor or output")


def _largest(weight: Tensor, per: str) -> Tensor:
    """Return the largest absolute weight of a matrix, or of each of its rows."""
    return weight.abs().amax() if per == "tensor" else weight.abs().amax(-1, keepdim=True)


WEIGHT_MODELS: dict[str, type[WeightModel]] = {
    "GaussianWeights": GaussianWeights,
    "ClippedWeights": ClippedWeights,
    "QuantisedWeights": QuantisedWeights,
    **DEVICES,
}
"""Every weight model by its name. A new one is added here."""
