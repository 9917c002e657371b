"""Charge-trapping memory (SONOS)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from asr_dni.noise.devices.cells import AgingDevice, Draw, polynomial

_DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class SONOS(AgingDevice):
    """40 nm charge-trapping memory of V. Agrawal et al. (IEDM 2022, 21.7), whose currents I stand for conductances.

    Drift: I_t = I + sum_i c_i I**i nA of degree 10, measured at 1 to 5 days (0 at once).
    Programming and variation of devices: s = A (1 - exp(-I_t / B)) nA, with A / B 19.88665 / 176.3115 at once,
    25.59102 / 186.85544 at 1 day, 28.72753 / 193.56834 at 2, 31.04318 / 198.90332 at 3, 33.76214 / 204.77023 at 4 and
    34.57909 / 207.34309 at 5 days. A, B and c are linear in time between these. A device keeps its number.
    Read: std = 12.58037 (1 - exp(-I / 215.36557)) nA of what is programmed, here one read-out per chip.
    Weights are stored in 0 to 1600 nA.

    Source: sandialabs/cross-sim ``devices/custom/SONOS.py``, which extrapolates beyond 5 days; here that is refused.
    Its polynomials are kept as they are, though at their upper end they do not follow time: up to 1400 nA what is lost
    grows from day to day (39, 46, 55, 60 and 60 nA), at 1600 nA it is 246, 98, 197, 160 and 118 nA. The largest weights
    of a matrix lie there.

    Raises:
        UserError: a value is out of its range; the time is beyond 5 days.
    """

    conductance_unit = "nA"
    times = (0.0, 5 * _DAY)
    SATURATIONS: ClassVar[Sequence[tuple[float, float]]] = (
        (19.88665, 176.3115),
        (25.59102, 186.85544),
        (28.72753, 193.56834),
        (31.04318, 198.90332),
        (33.76214, 204.77023),
        (34.57909, 207.34309),
    )
    """A and B after 0 to 5 days."""
    DRIFTS: ClassVar[Sequence[Sequence[float]]] = (
        (0.0,) * 11,
        (
            *(6.83650e-01, 6.51250e-03, -4.03163e-04, 3.37944e-06, -1.87435e-08, 5.88902e-11),
            *(-1.07685e-13, 1.17751e-16, -7.60016e-20, 2.67255e-23, -3.94954e-27),
        ),
        (
            *(6.60925e-01, 8.60627e-03, -1.72936e-04, 7.44096e-07, -5.94866e-09, 2.36734e-11),
            *(-4.83740e-14, 5.56072e-17, -3.65397e-20, 1.28405e-23, -1.87450e-27),
        ),
        (
            *(1.15821e00, 1.96116e-02, -4.70807e-04, 3.67510e-06, -2.08786e-08, 6.59752e-11),
            *(-1.19499e-13, 1.28435e-16, -8.11574e-20, 2.78802e-23, -4.02057e-27),
        ),
        (
            *(8.72216e-01, 1.70926e-02, -2.23370e-04, 1.57526e-06, -1.32779e-08, 5.08256e-11),
            *(-1.01251e-13, 1.14633e-16, -7.46124e-20, 2.60559e-23, -3.78724e-27),
        ),
        (
            *(1.15294e00, 1.03149e-02, -6.05199e-05, 1.76086e-08, -6.46690e-09, 3.39044e-11),
            *(-7.53872e-14, 8.98185e-17, -6.00346e-20, 2.12615e-23, -3.11099e-27),
        ),
    )
    """c_0 to c_10 after 0 to 5 days, in nA."""

    @property
    def g_max(self) -> float:
        """1600 nA."""
        return 1600.0

    def programming_std(self, g: Tensor) -> Tensor:
        """Return the deviation at once, in nA."""
        return _saturating(g, *self.SATURATIONS[0])

    def read(self, g_programmed: Tensor, g: Tensor, draw: Draw) -> Tensor:
        """Return what is read at :attr:`time`."""
        now = g_programmed
        if self.time > 0:
            days = self.time / _DAY
            first = min(int(days), len(self.DRIFTS) - 2)

            def between(tables: Sequence[Sequence[float]]) -> list[float]:
                pairs = zip(*itertools.islice(tables, first, first + 2), strict=True)
                return [before + (days - first) * (after - before) for before, after in pairs]

            # In float64: of degree 10 the terms are much larger than their sum.
            shift = polynomial(g.double(), between(self.DRIFTS)).to(g)
            drifted = g + self.sigma * shift
            deviation = _saturating(g + shift, *between(self.SATURATIONS))
            now = (drifted + self.sigma * deviation * draw("programming")).clamp(min=0)
        return (now + self.sigma * _saturating(now, 12.58037, 215.36557) * draw("read")).clamp(min=0)


def _saturating(current: Tensor, most: float, scale: float) -> Tensor:
    return (-most * torch.expm1(-current / scale)).clamp(min=0)
