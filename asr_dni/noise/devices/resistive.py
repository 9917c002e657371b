"""Resistive memory (ReRAM). Conductances in µS, r = g / g_max, times in s."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.noise.devices.cells import AgingDevice, Device, Draw, polynomial

DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class ReRAMWan2022(AgingDevice):
    """ReRAM of W. Wan et al. (Nature 608, 504, 2022), g_max 40 µS: how far off devices are at a time.

    s = 0.348 + 16.030 r - 43.853 r**2 + 45.393 r**3 - 16.815 r**4 µS at 1 s,
    0.701 + 22.086 r - 50.773 r**2 + 47.095 r**3 - 16.458 r**4 at 1 day,
    0.782 + 20.274 r - 43.507 r**2 + 37.062 r**3 - 11.934 r**4 at 2 days; between them s is linear in ln(time).
    A device keeps its number: its deviation grows as s does. There is no mean drift and no read noise.

    Source: IBM/aihwkit ``inference/noise/reram.py``. Where sources disagree: g_max is 40 µS, for which the polynomials
    were fitted; aihwkit sets that reference and does not read it, so that at its default g_max of 25 its noise is 1.6
    times too large. At 1 s cross-sim's fit of the same figures is larger, most of all at the ends (1.053 for
    0.348 µS at r = 0, 2.404 for 2.258 at 0.25, 2.378 for 2.023 at 0.5, 1.681 for 1.103 at 1); aihwkit's is taken, the
    only one of several times.

    Raises:
        UserError: a value is out of its range; the time is not within 1 s and 2 days.
    """

    times = (1.0, 2 * DAY)
    TABLES: ClassVar[tuple[tuple[float, tuple[float, ...]], ...]] = (
        (1.0, (0.348, 16.030, -43.853, 45.393, -16.815)),
        (DAY, (0.701, 22.086, -50.773, 47.095, -16.458)),
        (2 * DAY, (0.782, 20.274, -43.507, 37.062, -11.934)),
    )

    time: float = 1.0

    @property
    def g_max(self) -> float:
        """40 µS."""
        return 40.0

    def std_at(self, g: Tensor, time: float) -> Tensor:
        """Return s at a time within those of the tables, in µS."""
        place = 0 if time <= DAY else 1
        (first, before), (last, after) = self.TABLES[place : place + 2]
        share = math.log(time / first) / math.log(last / first)
        r = g / self.g_max
        return (polynomial(r, before) * (1 - share) + polynomial(r, after) * share).clamp(min=0)

    def programming_std(self, g: Tensor) -> Tensor:
        """Return s at 1 s, in µS."""
        return self.std_at(g, 1.0)

    def read(self, g_programmed: Tensor, g: Tensor, draw: Draw) -> Tensor:
        """Return what is read at :attr:`time`."""
        if self.time == 1.0:
            return g_programmed
        return (g + self.sigma * self.std_at(g, self.time) * draw("programming")).clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class ReRAMCMO(AgingDevice):
    """Filamentary ReRAM of conductive metal oxide and HfOx (D. F. Falcone et al.), one device per weight, 9 to 88.2 µS.

    Programming: s = 0.00106879 g + 0.00081107 µS where a device is told again until it is within 0.2 % of its target,
    0.01129027 g + 0.01121854 within 2 %.
    Relaxation: g(t) = g_prog - 0.08900206 ln t + (0.04201137 ln t + 0.41183342) N(0, 1) µS, at t = time >= 1 s.
    Read: std = 0.0277316483 log10(g(t)) sqrt(ln((t + t_read) / (2 t_read))) µS, t_read = 1 µs; within 9 to 88.2 µS.
    At time 0 there is programming alone. The lowest weight is at 9 µS, the highest at 88.2 µS.

    Source: IBM/aihwkit ``inference/noise/reram.py`` (another version: ``reram_cmo.py``). Where sources disagree: its
    default acceptance of 2e-2 is no key of its table and comes down to 0.2 % silently; here it is 2 %, and what the
    table has not is refused.

    Attributes:
        acceptance: ``2%`` or ``0.2%``.

    Raises:
        UserError: a value is out of its range; the time is neither 0 nor at least 1 s.
    """

    g_min = 9.0
    paired = False

    acceptance: Literal["2%", "0.2%"] = "2%"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.acceptance not in ("2%", "0.2%"):
            raise UserError(f"ReRAMCMO's acceptance is {self.acceptance!r}: give 2% or 0.2%")
        if 0 < self.time < 1:
            raise UserError(
                f"ReRAMCMO is known at 0 s, right after programming, and from 1 s on: time is {self.time:g}"
            )

    @property
    def g_max(self) -> float:
        """88.2 µS."""
        return 88.199997

    def programming_std(self, g: Tensor) -> Tensor:
        """Return the deviation of programming, in µS."""
        tables = {"2%": (0.0112185391, 0.01129027418), "0.2%": (0.00081107, 0.00106879)}
        return polynomial(g, tables[self.acceptance])

    def read(self, g_programmed: Tensor, g: Tensor, draw: Draw) -> Tensor:
        """Return what is read at :attr:`time`."""
        if self.time == 0 or self.sigma == 0:
            return g_programmed
        logarithm, t_read = math.log(self.time), 1e-6
        relaxed = -0.08900206 * logarithm + (0.04201137 * logarithm + 0.41183342) * draw("drift")
        drifted = g_programmed + self.sigma * relaxed
        flicker = math.sqrt(math.log((self.time + t_read) / (2 * t_read)))
        noise = 0.0277316483 * drifted.clamp(min=1).log10() * flicker
        return (drifted + self.sigma * noise * draw("read")).clamp(self.g_min, self.g_max)


@dataclass(frozen=True, kw_only=True)
class ReRAMMilo(Device):
    """ReRAM as programmed by V. Milo et al. (IRPS 2021, algorithm IGVVA-100), 50 to 225 µS.

    Programming: s = 4.782321 - 0.009107 g µS, g in µS. Drift was not fitted.

    Source: sandialabs/cross-sim ``devices/custom/RRAM_Milo.py``.

    Raises:
        UserError: a value is out of its range.
    """

    g_min = 50.0

    @property
    def g_max(self) -> float:
        """225 µS."""
        return 225.0

    def programming_std(self, g: Tensor) -> Tensor:
        """Return the deviation of programming, in µS."""
        return polynomial(g, (4.782321, -0.009107))
