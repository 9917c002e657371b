"""Weights as conductances of memory cells, and back: what all devices have in common.

A weight w is a pair of conductances, one of which is the lowest the device has: w = (g+ - g-) / (g_max - g_min) w_max.
Both of them are as noisy as the device is, the one at g_min too.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.noise.distributions import standard_normal_quantile
from asr_dni.noise.model import Numbers, WeightModel, straight_through

Draw: TypeAlias = Callable[[str], Tensor]
"""Gives standard normal numbers, one per device, for a purpose; for the same one the same."""

Share: TypeAlias = Literal["tensor", "output"]


@dataclass(frozen=True, kw_only=True)
class Cells(WeightModel):
    """Each weight in a pair of memory cells (or in one), with g from ``g_min`` to ``g_max``.

    Every matrix has a ``w_max`` of its own, whether or not it shares an array with another one. The gradient goes
    straight through: it takes what a device does wrong as a constant.

    Attributes:
        per: what w_max, the weight at g_max, is the largest of: the matrix, or each output's row of weights.
        stuck_at_zero: share of the devices whose conductance is 0, whatever they are told.
        stuck_at_max: share of those whose conductance is g_max. Both are drawn once per chip, from one number per
            device, so that what is stuck at one rate is so at all higher ones.

    Raises:
        UserError: a value is out of its range.
    """

    units: ClassVar[Mapping[str, str]] = {
        "stuck_at_zero": "share of the devices",
        "stuck_at_max": "share of the devices",
        "sigma": "multiples of the device's own noise",
        "time": "s",
    }
    g_min: ClassVar[float] = 0.0
    conductance_unit: ClassVar[str] = "µS"
    paired: ClassVar[bool] = True
    """Whether a weight is two devices; else one, from g_min for the lowest weight to g_max for the highest."""

    per: Share = "tensor"
    stuck_at_zero: float = 0.0
    stuck_at_max: float = 0.0

    def __post_init__(self) -> None:
        if self.per not in ("tensor", "output"):
            raise UserError(f"weights are mapped per {self.per!r}: give tensor or output")
        self._check_number("stuck_at_zero")
        self._check_number("stuck_at_max")
        if self.stuck_at_zero + self.stuck_at_max > 1:
            raise UserError(
                f"stuck_at_zero is {self.stuck_at_zero:g} and stuck_at_max {self.stuck_at_max:g}: give shares of the"
                " devices, together at most 1"
            )

    @property
    @abstractmethod
    def g_max(self) -> float:
        """The conductance of the largest weight, in :attr:`conductance_unit`."""

    @property
    def neutral(self) -> bool:
        """Whether every device does as it is told."""
        return not self._stuck

    @property
    def _stuck(self) -> bool:
        return self.stuck_at_zero > 0 or self.stuck_at_max > 0

    def programmed(self, g: Tensor, draw: Draw) -> Tensor:
        """Return the conductances that devices have right after they were told to have ``g``."""
        return g

    def read(self, g_programmed: Tensor, g: Tensor, draw: Draw) -> Tensor:
        """Return what is read of devices when the network runs.

        Args:
            g_programmed: what they had after programming.
            g: what they were told to have.
            draw: gives their numbers.
        """
        return g_programmed

    def conductances(self, g: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return what devices that were told to have ``g`` have after programming, and what is read of them."""
        programmed = self.programmed(g, draw)
        both = programmed, self.read(programmed, g, draw)
        if not self._stuck:
            return both
        number = draw("stuck")
        at_zero = number < standard_normal_quantile(self.stuck_at_zero)
        at_max = -number < standard_normal_quantile(self.stuck_at_max)
        first, second = (its.masked_fill(at_zero, 0.0).masked_fill(at_max, self.g_max) for its in both)
        return first, second

    def program(self, weight: Tensor, numbers: Numbers) -> Tensor:
        """Return the matrix as it is read off the chip."""
        exact = weight.detach()
        exact = exact if exact.dtype == torch.float64 else exact.float()
        targets, weight_of = self._as_conductances(exact)

        def draw_of(side: str) -> Draw:
            return lambda purpose: numbers.normal(f"{side} {purpose}").to(exact)

        sides = [self.conductances(g, draw_of(side)) for side, g in zip("+-", targets, strict=False)]
        programmed, now = (weight_of(list(its)) for its in zip(*sides, strict=True))
        return straight_through(weight, self._compensated(programmed, now).to(weight.dtype))

    def _compensated(self, programmed: Tensor, now: Tensor) -> Tensor:
        """Return the weights that were read, after what the periphery does about their drift."""
        return now

    def _as_conductances(
        self, weight: Tensor
    ) -> tuple[Sequence[Tensor], Callable[[Sequence[Tensor]], Tensor]]:
        """Return what the devices are told to have, and how weights follow from what they have."""
        span = self.g_max - self.g_min

        def over(reduce: Callable[..., Tensor], values: Tensor) -> Tensor:
            return reduce(values) if self.per == "tensor" else reduce(values, -1, keepdim=True)

        low = weight.new_zeros(()) if self.paired else over(torch.amin, weight)
        largest = over(torch.amax, weight.abs() if self.paired else weight) - low
        unit = torch.where(largest > 0, largest, torch.ones_like(largest)) / span
        scaled = (weight - low) / unit
        if self.paired:
            return (
                [scaled.clamp(min=0) + self.g_min, (-scaled).clamp(min=0) + self.g_min],
                lambda pair: (pair[0] - pair[1]) * unit,
            )
        return [scaled + self.g_min], lambda single: (single[0] - self.g_min) * unit + low


@dataclass(frozen=True, kw_only=True)
class StuckCells(Cells):
    """Devices that have what they are told, but for those that are stuck at 0 or at the largest conductance.

    g is 0 with probability ``stuck_at_zero``, g_max with ``stuck_at_max``, as it should be else. A weight is a pair, so
    that a stuck device adds ±w_max to it or takes it away.

    Raises:
        UserError: a value is out of its range.
    """

    strength: ClassVar[str] = "stuck_at_zero"
    conductance_unit: ClassVar[str] = "g_max"

    @property
    def g_max(self) -> float:
        """1: in multiples of itself."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Device(Cells):
    """Devices whose conductance is g + sigma s(g) N(0, 1) after programming, at least 0.

    Attributes:
        sigma: of all that the device does wrong, in multiples of what was measured: 1 is the device, 0 exact.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("sigma")

    @property
    def neutral(self) -> bool:
        """Whether sigma is 0 and nothing is stuck."""
        return self.sigma == 0 and super().neutral

    @abstractmethod
    def programming_std(self, g: Tensor) -> Tensor:
        """Return s(g), in :attr:`conductance_unit`."""

    def programmed(self, g: Tensor, draw: Draw) -> Tensor:
        """Return the conductances with programming noise."""
        return (g + self.sigma * self.programming_std(g) * draw("programming")).clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class AgingDevice(Device):
    """Devices that change after they were programmed.

    Attributes:
        time: seconds since programming ended.
        compensation: what a chip's outputs are multiplied by: ``none``, 1; ``tensor``, alpha = mean abs(W) after
            programming / mean abs(W) now, read off each matrix by one-hot inputs; ``output``: each output by its own
            (aihwkit, ``inference/compensation/drift.py``, global and per column).

    Raises:
        UserError: a value is out of its range, also a time for which nothing was measured.
    """

    times: ClassVar[tuple[float, float]] = (0.0, math.inf)
    """The first and the last time that the device is known at."""

    time: float = 0.0
    compensation: Literal["none", "tensor", "output"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("time")
        if self.compensation not in ("none", "tensor", "output"):
            raise UserError(f"drift compensation is {self.compensation!r}: give none, tensor or output")
        first, last = self.times
        if not first <= self.time <= last:
            raise UserError(
                f"{type(self).__name__} is known from {first:g} to {last:g} s after programming: time is {self.time:g}"
            )

    def _compensated(self, programmed: Tensor, now: Tensor) -> Tensor:
        if self.compensation == "none":
            return now
        before, after = (
            its.abs().mean() if self.compensation == "tensor" else its.abs().mean(-1, keepdim=True)
            for its in (programmed, now)
        )
        return now * torch.where(after > 0, before / after, torch.ones_like(after))


@dataclass(frozen=True, kw_only=True)
class PowerLawDevice(AgingDevice):
    """Devices that drift by a power of time, and whose reads are noisy.

    g(t) = g_prog (t / t_0)**-nu with t = time + t_0, where nu = abs(m + s N(0, 1)) is one number per device, m and s
    those of the conductance that it was to have. A read adds N(0, 1) g(t) Q sqrt(ln((t + t_read) / (2 t_read))) to
    what is left of g, the 1/f noise since programming.
    """

    @property
    @abstractmethod
    def t_0(self) -> float:
        """When the device is first read, in seconds after programming."""

    @property
    @abstractmethod
    def t_read(self) -> float:
        """How long a read takes, in seconds."""

    @abstractmethod
    def drift(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean m and deviation s of nu, for g / g_max."""

    @abstractmethod
    def read_share(self, r: Tensor) -> Tensor:
        """Return Q, for g / g_max as programmed."""

    @property
    def _ageing(self) -> float:
        """What nu and Q are multiplied by."""
        return self.sigma

    def read(self, g_programmed: Tensor, g: Tensor, draw: Draw) -> Tensor:
        """Return what is read at :attr:`time`."""
        t = self.time + self.t_0
        mean, deviation = self.drift(g / self.g_max)
        nu = (mean + deviation * draw("drift")).abs() * self._ageing
        drifted = g_programmed * (t / self.t_0) ** -nu
        flicker = math.sqrt(math.log((t + self.t_read) / (2 * self.t_read)))
        share = self._ageing * self.read_share(g_programmed / self.g_max) * flicker
        return (drifted * (1 + share * draw("read"))).clamp(min=0)


def polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Return c_0 + c_1 x + c_2 x**2 + ..."""
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value


def logarithmic(r: Tensor, slope: float, offset: float, low: float, high: float) -> Tensor:
    """Return slope ln r + offset, between ``low`` and ``high``."""
    return (slope * r.clamp(min=1e-7).log() + offset).clamp(low, high)
