"""What a noise model is: three small classes, and the few operations that output models and converters come down to."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, SupportsFloat, TypeAlias

import torch
from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.noise.sites import SCALES, Per, Scale
from asr_dni.noise.strength import Strength


class Numbers(Protocol):
    """Gives a model its random numbers: functions of seed, site, layer and whatever else a number is named by."""

    def normal(self, purpose: str = "") -> Tensor:
        """Return standard normal numbers.

        Args:
            purpose: tells draws of one model apart.

        Returns:
            For an output model ``(T, N, out)``, fresh for every sample, step and unit; for a weight model
            ``(out, in)``, one per weight of a chip.
        """


class OutputNumbers(Numbers, Protocol):
    """What an output model has beside."""

    @property
    def shares(self) -> Tensor | None:
        """``(N, 1)``, what share of its sigma each sample has, see :attr:`Noisy.by_sample`; ``None``: all of it."""

    def held(self, steps: int, purpose: str = "") -> Tensor:
        """Return ``(T, N, out)`` standard normal numbers, each of which lasts for some time steps.

        Args:
            steps: how many; a new number comes at every step t that is ``steps - steps // 2`` above a multiple of it.
            purpose: tells draws of one model apart.
        """

    def of_chip(self, purpose: str = "") -> Tensor:
        """Return ``(out,)`` standard normal numbers, the same in all passes of a chip."""


@dataclass(frozen=True)
class AddGaussian:
    """y + s N(0, 1), drawn where it is added; s is ``sigma`` in units of ``scale``, of a sample its share of it.

    ``per`` says whether the scale's size is that of all outputs or each one's own.
    """

    sigma: float
    scale: Scale = "absolute"
    shares: Tensor | None = None
    per: Per = "tensor"


@dataclass(frozen=True)
class Affine:
    """y (1 + gain) + add, numbers that broadcast to ``(T, N, out)``; ``add`` is in units of ``scale``, of ``per``."""

    gain: Tensor | None = None
    add: Tensor | None = None
    scale: Scale = "absolute"
    per: Per = "tensor"


@dataclass(frozen=True)
class Quantise:
    """Clip to ``[-bound, bound]`` and round to multiples of ``step``, both in units of ``scale``.

    Attributes:
        learned: whether both are multiplied by what the network has learned.
    """

    bound: float
    step: float
    scale: Scale = "absolute"
    learned: bool = False


@dataclass(frozen=True)
class AddReading:
    """y + s N(0, 1), s of the inputs and what lies on the array, see :mod:`asr_dni.noise.reading`.

    Attributes:
        sigma: in multiples of what the law says.
        law: ``conductance``: sqrt(w_max sum abs(w) x**2); ``constant``: w_max sqrt(sum x**2); ``largest``: x_max w_max.
        per: what w_max is of: ``tensor`` or ``output``.
        shares: of sigma, that each sample has; ``None``: all of it.
    """

    sigma: float
    law: str
    per: str
    shares: Tensor | None = None


@dataclass(frozen=True)
class DropOfWires:
    """y less what wires take from it, see :class:`asr_dni.noise.IRDrop`."""

    sigma: float
    g_ratio: float
    per: str


Operation: TypeAlias = AddGaussian | Affine | Quantise | AddReading | DropOfWires
"""What an implementation of a product has to know: every output model and converter is one of these."""


def straight_through(exact: Tensor, value: Tensor, within: Tensor | None = None) -> Tensor:
    """Return a value with another one's gradient (Y. Bengio et al., arXiv:1308.3432, section 4).

    Args:
        exact: has the gradient.
        value: is returned.
        within: where there is a gradient; ``None``: everywhere.
    """
    passed = exact if within is None else torch.where(within, exact, exact.detach())
    return passed + (value - passed).detach()


@dataclass(frozen=True)
class Model(ABC):  # noqa: B024  its kinds have the methods
    """A part of a :class:`~asr_dni.noise.Hardware`: a frozen dataclass of numbers and words, which YAML can hold.

    Attributes:
        strength: the field that is annealed, and swept by a curve, where no other is named.
    """

    called: ClassVar[str] = "noise"
    """What an error calls it."""
    strength: ClassVar[str] = "sigma"
    unnamed: ClassVar[tuple[str, ...]] = ()
    """Fields that :meth:`settings` leaves out at their defaults: those that came later, so that files still compare."""
    of_training: ClassVar[tuple[str, ...]] = ()
    """Numbers that do not change the arithmetic, and are no strengths."""
    units: ClassVar[Mapping[str, str]] = {}
    """Of its numbers, by their names, as people read them; where none is here, that of :attr:`scale`, if it has one."""

    @property
    def unit_per(self) -> Per:
        """Whether the size that a scale measures by is that of all outputs or each one's own."""
        return "tensor"

    def unit_of(self, name: str) -> str:
        """Return the unit of one of its numbers; "": a plain number, or in units of the pre-activation."""
        if name in self.units or name not in ("sigma", "bound"):
            return self.units.get(name, "")
        return Strength.sigma(getattr(self, "scale", "absolute"), self.unit_per).unit

    @property
    def neutral(self) -> bool:
        """Whether it changes nothing as it is set."""
        return False

    def settings(self) -> dict[str, object]:
        """Return class and fields as plain values, as YAML has them."""
        arguments = dataclasses.asdict(self)
        for its in dataclasses.fields(self):
            if its.name in self.unnamed and arguments[its.name] == its.default:
                del arguments[its.name]
        return {"class_path": type(self).__name__, "init_args": arguments}

    def _check_number(self, name: str, least: float = 0.0) -> None:
        value = getattr(self, name)
        if (
            not isinstance(value, SupportsFloat)
            or isinstance(value, bool | str)
            or not (value >= least and math.isfinite(value))  # type: ignore[operator]
        ):
            text = " (not text: YAML has 1.0e+9 for a number, 1e9 for text)" if isinstance(value, str) else ""
            raise UserError(
                f"{self.called} {name} is {value}: give a finite number of at least {least:g}{text}"
            )

    def _check_scale(self, scale: str) -> None:
        if scale not in SCALES:
            raise UserError(f"{self.called} scale is {scale!r}: give one of {', '.join(SCALES)}")


class OutputModel(Model):
    """What happens to the outputs of an analog product, freshly each time or as the chip is.

    Attributes:
        additive: whether it only adds numbers that do not depend on the product, so that what was computed before it
            may be computed once for many noisy passes.
        of_chip: whether its numbers are drawn once per chip, not freshly.
        drawn: whether it has any random numbers.
        of_arrays: whether only matrices have it, not the products inside a cell.
    """

    additive: ClassVar[bool] = False
    of_chip: ClassVar[bool] = False
    drawn: ClassVar[bool] = True
    of_arrays: ClassVar[bool] = False

    @abstractmethod
    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return what it comes down to in one forward pass of one network."""

    @abstractmethod
    def variance(self, signal: float, unit: float) -> float:
        """Return the noise's variance.

        Args:
            signal: mean square of the output before, the noise of earlier models included.
            unit: what a sigma of 1 is in units of the pre-activation, by the model's scale.
        """


@dataclass(frozen=True)
class Noisy(OutputModel):
    """A model whose strength is ``sigma``.

    Attributes:
        by_sample: whether the samples of a batch can each have a share of sigma, as :meth:`sigmas` gives it.
        sigma: standard deviation of the noise, or what the model says.

    Raises:
        UserError: sigma is not a finite number of at least 0.
    """

    by_sample: ClassVar[bool] = False

    sigma: float = 0.0

    def __post_init__(self) -> None:
        self._check_number("sigma")

    @property
    def neutral(self) -> bool:
        """Whether sigma is 0."""
        return self.sigma == 0

    def sigmas(self, numbers: OutputNumbers) -> float | Tensor:
        """Return sigma, or ``(N, 1)`` where samples have shares of it."""
        return self.sigma if numbers.shares is None else self.sigma * numbers.shares


class WeightModel(Model):
    """What programming makes of a matrix: once per chip.

    Attributes:
        random: whether it differs from chip to chip.
    """

    random: ClassVar[bool] = True

    @abstractmethod
    def program(self, weight: Tensor, numbers: Numbers) -> Tensor:
        """Return what lies on the chip for a matrix ``(out, in)``, as a differentiable function of it."""


class Converter(Model):
    """A converter between digital numbers and analog values."""

    called: ClassVar[str] = "a converter's"

    @abstractmethod
    def operation(self) -> Quantise:
        """Return what it comes down to."""
