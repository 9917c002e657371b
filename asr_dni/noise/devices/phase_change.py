"""Phase-change memory. Conductances in µS, r = g / g_max, times in s."""

from dataclasses import dataclass

import torch
from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.noise.devices.cells import Device, PowerLawDevice, logarithmic, polynomial


@dataclass(frozen=True, kw_only=True)
class _Of25MicroSiemens(PowerLawDevice):
    @property
    def g_max(self) -> float:
        """25 µS."""
        return 25.0

    @property
    def t_0(self) -> float:
        """20 s."""
        return 20.0

    @property
    def t_read(self) -> float:
        """250 ns."""
        return 250e-9


@dataclass(frozen=True, kw_only=True)
class PCM(_Of25MicroSiemens):
    """Phase-change memory as fitted by S. R. Nandakumar et al. (ICECS 2019), g_max 25 µS.

    Programming: s = 0.26348 + 1.9650 r - 1.1731 r**2 µS.
    Drift: g(t) = g_prog (t / t_0)**-nu, t = time + t_0, t_0 = 20 s, nu = abs(m + s N(0, 1)),
    m = -0.0155 ln r + 0.0244 within [0.049, 0.1], s = -0.0125 ln r - 0.0059 within [0.008, 0.045].
    Read: std = g(t) Q sqrt(ln((t + t_read) / (2 t_read))), Q = min(0.0088 / r**0.65, 0.2), t_read = 250 ns.

    Source: IBM/aihwkit ``inference/noise/pcm.py``. Where sources disagree: the linear coefficient is 1.9650, as there
    and in aihwkit's CUDA code, not 25 * 0.0768 of its polynomial weight modifier (4 % less noise at g_max); t_0 is
    20 s, not the 27.36 s of a comment in cross-sim; r of Q is that of the programmed conductance, as in aihwkit's
    code, not that of the target, as in its documentation; at time 0 (t = t_0) nothing has drifted, and reads are
    noisy.

    Raises:
        UserError: a value is out of its range.
    """

    def programming_std(self, g: Tensor) -> Tensor:
        """Return the deviation of programming, in µS."""
        return polynomial(g / self.g_max, (0.26348, 1.9650, -1.1731)).clamp(min=0)

    def drift(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of nu."""
        return logarithmic(r, -0.0155, 0.0244, 0.049, 0.1), logarithmic(r, -0.0125, -0.0059, 0.008, 0.045)

    def read_share(self, r: Tensor) -> Tensor:
        """Return Q."""
        return (0.0088 / r.pow(0.65).clamp(min=1e-3)).clamp(max=0.2)


@dataclass(frozen=True, kw_only=True)
class Hermes(PowerLawDevice):
    """Phase-change memory of IBM's HERMES Project Chip (M. Le Gallo et al., Nature Electronics 2023).

    Programming, 2 devices per side (g_max 20.7 µS, t_0 = 300 s):
    s = 0.16603222 + 4.71806468 r - 8.48101252 r**2 + 4.68961419 r**3 µS; 1 device (10.35 µS, 200 s):
    s = 0.15781817 + 2.32443916 r - 2.16310839 r**2 + 0.68841818 r**3 µS.
    Drift: as of :class:`PCM`; m = -0.0387 ln r - 0.0182 within [0.072, 0.13] where r < 0.0945, else
    0.0736 - 0.0126 r - 0.0436 r**2; s, 2 devices: -0.0117 ln r - 0.0057 within [0.0091, 0.04] where r < 0.3055, else
    0.0073 + 0.0093 r - 0.0118 r**2; 1: -0.0120 ln r - 0.0023 within [0.0124, 0.04] where r < 0.3039, else
    0.0104 + 0.0116 r - 0.0165 r**2.
    Read: as of :class:`PCM` with t_read = 512 ns; Q, 2 devices: -0.0117 ln r - 0.0069 within [0.015, 0.04] where
    r < 0.16, else 0.0123 + 0.0211 r - 0.0280 r**2 + 0.0069 r**3; 1: -0.0078 ln r + 0.0038 within [0.0179, 0.04] where
    r < 0.1591, else 0.0088 + 0.0768 r - 0.1352 r**2 + 0.0664 r**3.

    Source: IBM/aihwkit ``inference/noise/hermes.py``. The two devices of a side are taken to have half the conductance
    each, as there.

    Attributes:
        devices: 1 or 2 of each side of a pair.

    Raises:
        UserError: a value is out of its range.
    """

    devices: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.devices not in (1, 2) or isinstance(self.devices, bool):
            raise UserError(f"Hermes has {self.devices} devices per side: give 1 or 2")
        object.__setattr__(self, "devices", int(self.devices))

    @property
    def g_max(self) -> float:
        """20.7 µS of two devices, 10.35 µS of one."""
        return 10.35 * self.devices

    @property
    def t_0(self) -> float:
        """300 s with two devices, 200 s with one."""
        return 300.0 if self.devices == 2 else 200.0

    @property
    def t_read(self) -> float:
        """512 ns."""
        return 512e-9

    def programming_std(self, g: Tensor) -> Tensor:
        """Return the deviation of programming, in µS."""
        two, one = (
            (0.16603222, 4.71806468, -8.48101252, 4.68961419),
            (0.15781817, 2.32443916, -2.16310839, 0.68841818),
        )
        return polynomial(g / self.g_max, two if self.devices == 2 else one).clamp(min=0)

    def drift(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of nu."""
        mean = torch.where(
            r < 0.0945,
            logarithmic(r, -0.0387, -0.0182, 0.072, 0.13),
            polynomial(r, (0.0736, -0.0126, -0.0436)),
        )
        if self.devices == 2:
            low, high = (
                logarithmic(r, -0.0117, -0.0057, 0.0091, 0.04),
                polynomial(r, (0.0073, 0.0093, -0.0118)),
            )
            return mean, torch.where(r < 0.3055, low, high)
        low, high = logarithmic(r, -0.0120, -0.0023, 0.0124, 0.04), polynomial(r, (0.0104, 0.0116, -0.0165))
        return mean, torch.where(r < 0.3039, low, high)

    def read_share(self, r: Tensor) -> Tensor:
        """Return Q."""
        if self.devices == 2:
            low = logarithmic(r, -0.0117, -0.0069, 0.015, 0.04)
            return torch.where(r < 0.16, low, polynomial(r, (0.0123, 0.0211, -0.0280, 0.0069)))
        low = logarithmic(r, -0.0078, 0.0038, 0.0179, 0.04)
        return torch.where(r < 0.1591, low, polynomial(r, (0.0088, 0.0768, -0.1352, 0.0664)))


@dataclass(frozen=True, kw_only=True)
class StateIndependent(_Of25MicroSiemens):
    """Phase-change-like devices whose noise is the same at all conductances, g_max 25 µS.

    Programming: s = 0.2 µS. Drift: as of :class:`PCM`, nu = abs(0.1 + 0.05 N(0, 1)), t_0 = 20 s.
    Read: as of :class:`PCM`, Q = 1 µS / g_max = 0.04, t_read = 250 ns.

    Source: IBM/aihwkit ``inference/noise/custom.py``.

    Raises:
        UserError: a value is out of its range.
    """

    def programming_std(self, g: Tensor) -> Tensor:
        """Return the deviation of programming, in µS."""
        return torch.full_like(g, 0.2)

    def drift(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of nu."""
        return torch.full_like(r, 0.1), torch.full_like(r, 0.05)

    def read_share(self, r: Tensor) -> Tensor:
        """Return Q."""
        return torch.full_like(r, 0.04)


@dataclass(frozen=True, kw_only=True)
class PCMJoshi(Device):
    """Phase-change memory as programmed by V. Joshi et al. (Nature Communications 11, 2473, 2020), 0.25 to 25 µS.

    Programming: s = 0.28638599 + 0.07585724 g - 0.00178767 g**2 µS, g in µS. Drift was not fitted.

    Source: sandialabs/cross-sim ``devices/custom/PCM_Joshi.py``. It is another fit of much the same device as
    :class:`PCM`: 1.087 times its deviation at g = 0, 1.003 at half and 1.010 at g_max.

    Raises:
        UserError: a value is out of its range.
    """

    g_min = 0.25

    @property
    def g_max(self) -> float:
        """25 µS."""
        return 25.0

    def programming_std(self, g: Tensor) -> Tensor:
        """Return the deviation of programming, in µS."""
        return polynomial(g, (0.28638599, 0.07585724, -0.00178767)).clamp(min=0)
