"""Output models: noise on the outputs of analog products.

A new one is a class here, or in a file of its own, and its name in :data:`OUTPUT_MODELS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from asr_dni.noise.model import AddGaussian, Affine, Numbers, Operation, OutputModel
from asr_dni.noise.sites import Scale


@dataclass(frozen=True)
class Gaussian(OutputModel):
    """y + s N(0, 1): additive noise (M. Qin and D. Vucinic, arXiv:1807.06555).

    With scale ``absolute`` s is ``sigma``, in units of the pre-activation; with ``signal`` ``sigma * RMS`` of the clean
    output (its SNR in dB is -20 log10 sigma); with ``range`` ``sigma * bound * max|W|`` (multiples of the largest
    representable output, as in aihwkit-lightning; ``bound`` is the largest absolute input of that matrix).

    Raises:
        UserError: sigma is not a finite number of at least 0, or the scale is unknown.
    """

    additive: ClassVar[bool] = True

    sigma: float = 0.0
    scale: Scale = "absolute"

    def __post_init__(self) -> None:
        self._check_number("sigma")
        self._check_scale(self.scale)

    @property
    def neutral(self) -> bool:
        """Whether sigma is 0."""
        return self.sigma == 0

    def operation(self, numbers: Numbers) -> Operation:
        """Return what adds it."""
        return AddGaussian(self.sigma, self.scale)

    def variance(self, signal: float, unit: float) -> float:
        """Return s squared."""
        return (self.sigma * unit) ** 2


@dataclass(frozen=True)
class Multiplicative(OutputModel):
    """y (1 + sigma N(0, 1)): noise in proportion to the output (B. Klein et al., "Walking Noise", arXiv:2212.10430).

    Raises:
        UserError: sigma is not a finite number of at least 0.
    """

    units: ClassVar[Mapping[str, str]] = {"sigma": "multiples of each output"}

    sigma: float = 0.0

    def __post_init__(self) -> None:
        self._check_number("sigma")

    @property
    def neutral(self) -> bool:
        """Whether sigma is 0."""
        return self.sigma == 0

    def operation(self, numbers: Numbers) -> Operation:
        """Return gains that are drawn outside."""
        return Affine(gain=self.sigma * numbers.normal())

    def variance(self, signal: float, unit: float) -> float:
        """Return sigma squared times the signal's power."""
        return self.sigma**2 * signal


OUTPUT_MODELS: dict[str, type[OutputModel]] = {"Gaussian": Gaussian, "Multiplicative": Multiplicative}
"""Every output model by its name. A new one is added here."""
