"""Weight models: what programming a chip makes of a matrix.

A new one is a class here, or in a file of its own, and its name in :data:`WEIGHT_MODELS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.noise.model import Numbers, WeightModel


@dataclass(frozen=True)
class GaussianWeights(WeightModel):
    """W + sigma max|W| N(0, 1), the maximum over the matrix or over each output's row of weights.

    It is what aihwkit-lightning trains with (``nn/modules/torch_utils/torch_linear.py``, weight modifier additive
    Gaussian). The maximum is taken as a constant by the gradient.

    Raises:
        UserError: sigma is not a finite number of at least 0, or ``per`` is unknown.
    """

    units: ClassVar[Mapping[str, str]] = {"sigma": "multiples of the largest weight"}

    sigma: float = 0.0
    per: Literal["tensor", "output"] = "tensor"

    def __post_init__(self) -> None:
        self._check_number("sigma")
        if self.per not in ("tensor", "output"):
            raise UserError(f"weights' noise is per {self.per!r}: give tensor or output")

    @property
    def neutral(self) -> bool:
        """Whether sigma is 0."""
        return self.sigma == 0

    def program(self, weight: Tensor, numbers: Numbers) -> Tensor:
        """Return the noisy matrix."""
        sizes = weight.detach().abs()
        largest = sizes.amax() if self.per == "tensor" else sizes.amax(-1, keepdim=True)
        return weight + self.sigma * largest * numbers.normal()


WEIGHT_MODELS: dict[str, type[WeightModel]] = {"GaussianWeights": GaussianWeights}
"""Every weight model by its name. A new one is added here."""
