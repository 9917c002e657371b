"""A device of one's own, given by a few numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.noise.devices.cells import Draw, PowerLawDevice
from asr_dni.noise.distributions import as_uniform


@dataclass(frozen=True, kw_only=True)
class GenericDevice(PowerLawDevice):
    """Devices with errors in units of g_max: g + sigma s(g) X, then drift (t / t_0)**-nu, then relative read noise.

    s(g) is 1 (``law: absolute``), g (``proportional``) or 1 / g, and 0 at g = 0 (``inverse``); X has mean 0 and
    variance 1, and is normal or uniform. Drift is that of :class:`PCM` with nu = abs(nu + nu_std N(0, 1)), and reads
    are its, with Q = ``read_noise``.

    Source of the laws: sandialabs/cross-sim ``devices/generic_device.py``, where the magnitude of a uniform error is
    its whole width, sqrt(12) sigma.

    Attributes:
        sigma: the standard deviation of programming, at s = 1.
        law: how it depends on g: ``absolute``, ``proportional`` or ``inverse``.
        distribution: that of X: ``normal`` or ``uniform``.
        nu: mean drift exponent.
        nu_std: its deviation from device to device.
        read_noise: Q, the deviation of a read as a share of g, but for the square root of the logarithm.
        first_read: t_0, seconds after programming.
        read_time: t_read, seconds.

    Raises:
        UserError: a value is out of its range.
    """

    conductance_unit = "g_max"
    units: ClassVar[Mapping[str, str]] = {
        **PowerLawDevice.units,
        "sigma": "multiples of g_max",
        "first_read": "s",
        "read_time": "s",
    }

    sigma: float = 0.0
    law: Literal["absolute", "proportional", "inverse"] = "absolute"
    distribution: Literal["normal", "uniform"] = "normal"
    nu: float = 0.0
    nu_std: float = 0.0
    read_noise: float = 0.0
    first_read: float = 20.0
    read_time: float = 250e-9

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("nu", "nu_std", "read_noise", "first_read", "read_time"):
            self._check_number(name)
        if not 0 < self.read_time <= self.first_read:
            raise UserError(
                f"GenericDevice has read_time {self.read_time:g} and first_read {self.first_read:g}: give a"
                " read_time above 0, and a first_read of at least that"
            )
        if self.law not in ("absolute", "proportional", "inverse"):
            raise UserError(f"GenericDevice's law is {self.law!r}: give absolute, proportional or inverse")
        if self.distribution not in ("normal", "uniform"):
            raise UserError(f"GenericDevice's distribution is {self.distribution!r}: give normal or uniform")

    @property
    def neutral(self) -> bool:
        """Whether nothing goes wrong."""
        return super().neutral and self.nu == self.nu_std == self.read_noise == 0

    @property
    def g_max(self) -> float:
        """1: in multiples of itself."""
        return 1.0

    @property
    def t_0(self) -> float:
        """:attr:`first_read`."""
        return self.first_read

    @property
    def t_read(self) -> float:
        """:attr:`read_time`."""
        return self.read_time

    @property
    def _ageing(self) -> float:
        return 1.0

    def programming_std(self, g: Tensor) -> Tensor:
        """Return s(g)."""
        if self.law == "absolute":
            return torch.ones_like(g)
        return g if self.law == "proportional" else torch.where(g > 0, 1 / g, torch.zeros_like(g))

    def programmed(self, g: Tensor, draw: Draw) -> Tensor:
        """Return the conductances with programming noise."""
        if self.distribution == "normal":
            return super().programmed(g, draw)
        number = (2 * as_uniform(draw("programming")) - 1) * 3**0.5
        return (g + self.sigma * self.programming_std(g) * number).clamp(min=0)

    def drift(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of nu."""
        return torch.full_like(r, self.nu), torch.full_like(r, self.nu_std)

    def read_share(self, r: Tensor) -> Tensor:
        """Return Q."""
        return torch.full_like(r, self.read_noise)
