"""The few operations on the outputs of analog products, of K networks in one forward pass, and their plain definition.

Every model of :mod:`asr_dni.noise` comes down to these, so that an implementation of the recurrence learns them once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from asr_dni.noise import straight_through
from asr_dni.philox import Key, derive_key, normal

MOST_GROUPS = 4
"""Numbers that one counter gives."""


@dataclass(frozen=True)
class GaussianNoise:
    """y + std N(0, 1), with numbers that are named by keys, samples and steps.

    Attributes:
        std: ``(K,)``; 0 for a network that has none.
        keys: of each network.
        shares: ``(K, N)``, what share of std each sample has; ``None``: all of it.
    """

    std: Tensor
    keys: tuple[Key, ...]
    shares: Tensor | None = None


@dataclass(frozen=True)
class AffineNoise:
    """y (1 + gain) + add, with numbers that were drawn outside.

    Attributes:
        gain: ``(K, T, N, out)`` or what broadcasts to it; ``None``: 0.
        add: likewise.
    """

    gain: Tensor | None = None
    add: Tensor | None = None


@dataclass(frozen=True)
class Quantisation:
    """Clip to ``[-bound, bound]``, round to multiples of ``step``; ``(K,)`` each.

    The gradient goes straight through within the bound; what is clipped has the bound's, where that has one. Steps are
    constants.
    """

    bound: Tensor
    step: Tensor

    @property
    def learned(self) -> bool:
        """Whether the bound gets a gradient now."""
        return self.bound.requires_grad and torch.is_grad_enabled()

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``(K, *)`` values for ``(K, *)``."""
        shape = (-1, *(1,) * (x.dim() - 1))
        bound, step = (its.to(x.device, x.dtype).view(shape) for its in (self.bound, self.step))
        exact, limit = x.detach(), bound.detach()
        levels = (
            torch.round(torch.minimum(torch.maximum(exact, -limit), limit) / step.detach()) * step.detach()
        )
        if not self.learned:
            return straight_through(x, levels, exact.abs() <= limit)
        clipped = torch.where(exact.abs() <= limit, x, exact.sign() * bound)
        return straight_through(clipped, levels)


class Applied(Protocol):
    """Arrays and what they are applied to, for operations that depend on more than the clean outputs."""

    @property
    def inputs(self) -> Tensor:
        """What goes in, ``(K, *, in)``, or ``(*, in)`` where the networks share it."""

    @property
    def weight(self) -> Tensor:
        """``(K, out, in)``, as programmed."""

    @property
    def cells(self) -> Tensor:
        """Which weights there are: booleans that broadcast to ``(out, in)``."""

    def product(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """Return the clean outputs of other inputs or weights, of the same shapes."""


@dataclass(frozen=True)
class ReadingNoise:
    """y + std s N(0, 1), s of the inputs and the weights; a constant for the gradient.

    Attributes:
        std: ``(K,)``; 0 for a network that has none.
        keys: of each network.
        law: as :class:`asr_dni.noise.AddReading` has it; of ``largest`` the largest input is part of std.
        per: likewise.
        shares: as of :class:`GaussianNoise`.
    """

    std: Tensor
    keys: tuple[Key, ...]
    law: str
    per: str
    shares: Tensor | None = None

    @torch.no_grad()
    def deviation(self, of: Applied, y: Tensor, applications: int) -> Tensor:
        """Return what broadcasts to outputs.

        Args:
            of: the product.
            y: its clean outputs, ``(K, *, out)``.
            applications: see :class:`Drawing`.
        """
        largest = _largest(of.weight, self.per)
        if self.law == "largest":
            spread = largest.expand(*of.weight.shape[:2], 1)[..., 0].repeat_interleave(applications, -1)
            spread = spread.view(len(spread), *(1,) * (y.dim() - 2), -1)
        else:
            each = largest**2 * of.cells if self.law == "constant" else largest * of.weight.abs()
            power = of.product(of.inputs.square(), each.expand_as(of.weight).to(of.weight))
            spread = power.clamp(min=0).sqrt()
        shape = (-1, *(1,) * (spread.dim() - 1))
        return self.std.to(spread).view(shape) * spread


@dataclass(frozen=True)
class WireDrop:
    """y less what the resistance of wires takes, see :class:`asr_dni.noise.IRDrop`; a constant for the gradient.

    Attributes:
        factor: ``(K,)``; 0 for a network whose wires have none.
        ratio: ``(K,)``, conductance of a piece of wire over that of a cell.
        bound: ``(K,)``, the largest input.
        per: what the largest weight is of.
    """

    factor: Tensor
    ratio: Tensor
    bound: Tensor
    per: str

    @torch.no_grad()
    def of(self, applied: Applied) -> Tensor:
        """Return what is taken, ``(K, *, out)``."""
        weight, columns = applied.weight, applied.weight.shape[-1]
        largest = _largest(weight, self.per)
        shares = weight.abs() / torch.where(largest > 0, largest, torch.ones_like(largest))
        current = applied.product(applied.inputs.abs(), shares)
        shape = (-1, *(1,) * (current.dim() - 1))
        factor, ratio, bound = (its.to(current).view(shape) for its in (self.factor, self.ratio, self.bound))
        a = torch.where(bound > 0, current * columns / (ratio * bound), torch.zeros_like(current))
        from_the_end = 1 - torch.arange(columns, device=weight.device, dtype=weight.dtype) / columns
        lost = applied.product(applied.inputs, weight * (1 - from_the_end**2))
        return factor * a * (a * (0.05 * a - 0.2) + 0.5) * lost


def _largest(weight: Tensor, per: str) -> Tensor:
    """Return the largest absolute weight of each network, or of each of its outputs, ``(K, 1 or out, 1)``."""
    return weight.abs().amax((-2, -1) if per == "tensor" else -1, keepdim=True)


LoweredOperation: TypeAlias = GaussianNoise | AffineNoise | Quantisation | ReadingNoise | WireDrop


@dataclass(frozen=True)
class Product:
    """The hardware of one product of K networks in one forward pass.

    Attributes:
        arrays: what happens to the outputs of each array that the matrix lies on.
        columns: how many columns of the matrix each array has; ``None``: one array has them all.
        dac: what happens to the inputs before.
    """

    arrays: tuple[tuple[LoweredOperation, ...], ...]
    columns: tuple[int, ...] | None = None
    dac: Quantisation | None = None

    @classmethod
    def gaussian_of(cls, std: Sequence[float], keys: Sequence[Key]) -> "Product":
        """Return additive Gaussian noise of the standard deviations ``std``, one for each network as the keys are."""
        return cls(((GaussianNoise(torch.tensor(std, dtype=torch.float64), tuple(keys)),),))

    @property
    def whole(self) -> bool:
        """Whether exact inputs meet an array that has the whole matrix."""
        return self.columns is None and self.dac is None

    def at_outputs(self, which: Tensor, drawing: "Drawing") -> "Product":
        """Return the same at some outputs only; it has to be of Gaussians and affine maps.

        Args:
            which: ``(out,)`` booleans.
            drawing: what numbers are drawn for.
        """
        arrays = []
        for operations in self.arrays:
            masked = []
            for its in operations:
                if isinstance(its, GaussianNoise):
                    its = AffineNoise(add=drawing.gaussian(its))
                assert isinstance(its, AffineNoise)
                gain, add = (
                    None if numbers is None else numbers * which.to(numbers)
                    for numbers in (its.gain, its.add)
                )
                masked.append(AffineNoise(gain, add))
            arrays.append(tuple(masked))
        return replace(self, arrays=tuple(arrays))

    def times(self, factors: Tensor, drawing: "Drawing") -> "Product":
        """Return what it does to outputs that are multiplied with factors, followed by it; it has to be additive.

        Args:
            factors: ``(K, out)``.
            drawing: what numbers are drawn for.
        """
        assert self.additive
        softened = []
        for its in self.arrays[0]:
            add = drawing.gaussian(its) if isinstance(its, GaussianNoise) else getattr(its, "add", None)
            softened.append(AffineNoise(add=None if add is None else add * factors[:, None, None].to(add)))
        return replace(self, arrays=(tuple(softened),))

    @property
    def additive(self) -> bool:
        """Whether all it does is to add numbers to the outputs."""
        return self.whole and all(
            isinstance(its, GaussianNoise) or (isinstance(its, AffineNoise) and its.gain is None)
            for its in self.arrays[0]
        )

    @property
    def gaussian(self) -> GaussianNoise | None:
        """The one Gaussian that is all there is; ``None`` where there is anything else."""
        if self.whole and len(self.arrays[0]) == 1 and isinstance(self.arrays[0][0], GaussianNoise):
            return self.arrays[0][0]
        return None


class Draw(Protocol):
    """How the numbers of a Gaussian are drawn."""

    def __call__(
        self,
        noise: GaussianNoise,
        sample_ids: Sequence[Tensor],
        first_step: int,
        steps: int,
        groups: int,
        width: int,
        like: Tensor,
    ) -> Tensor:
        """Draw the numbers of K networks.

        Args:
            noise: standard deviations and keys.
            sample_ids: ``(N,)`` identities of the samples, one tensor per network.
            first_step: the time step that comes first.
            steps: T, time steps.
            groups: 1 to 4.
            width: numbers per group.
            like: has the dtype and device.

        Returns:
            ``(K, T, N, groups * width)``; entry k is what network k's key and samples give alone.
        """


def draw_plain(
    noise: GaussianNoise,
    sample_ids: Sequence[Tensor],
    first_step: int,
    steps: int,
    groups: int,
    width: int,
    like: Tensor,
) -> Tensor:
    """Draw by :func:`asr_dni.philox.normal`: the definition."""
    times = torch.arange(first_step, first_step + steps, device=like.device)
    ids = torch.stack([its.to(like.device) for its in sample_ids])
    numbers = normal(noise.keys, ids, times, groups, width)
    std = noise.std.to(numbers)[:, None, None, None]
    if noise.shares is not None:
        std = std * noise.shares.to(numbers)[:, None, :, None]
    return (std * numbers).to(like.dtype)


@dataclass(frozen=True)
class Drawing:
    """What the numbers of one product of K networks are drawn for, and how.

    Attributes:
        sample_ids: ``(N,)`` identities of the samples, one tensor per network.
        first_step: the time step that comes first.
        steps: T, time steps.
        groups: such as gates.
        width: outputs per group.
        like: has the dtype and device.
        draw: draws.
        samples_first: whether the outputs are ``(K, N, T, *)`` rather than ``(K, T, N, *)``.
        applications: how often a matrix is applied in a step: so many of the outputs, next to each other, are the same
            output of the array.
    """

    sample_ids: Sequence[Tensor]
    first_step: int
    steps: int
    groups: int
    width: int
    like: Tensor
    draw: Draw = draw_plain
    samples_first: bool = False
    applications: int = 1

    def gaussian(self, noise: GaussianNoise) -> Tensor:
        """Return ``(K, T, N, groups * width)`` numbers."""
        parts = []
        for first in range(0, self.groups, MOST_GROUPS):
            # A counter has numbers for four groups; further ones have a key of their own.
            keys = tuple(derive_key(*key, "groups", first) for key in noise.keys) if first else noise.keys
            groups = min(self.groups - first, MOST_GROUPS)
            within = self.sample_ids, self.first_step, self.steps, groups, self.width, self.like
            parts.append(self.draw(replace(noise, keys=keys), *within))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def turned(self, numbers: Tensor) -> Tensor:
        """Return numbers with the axes of the outputs."""
        return numbers.transpose(-3, -2) if self.samples_first else numbers


class Outputs:
    """Does to outputs what a product's operations say: the plain definition. All random numbers are drawn at once.

    Args:
        operations: one after the other.
        drawing: what the numbers are drawn for.
    """

    def __init__(self, operations: Sequence[LoweredOperation], drawing: Drawing) -> None:
        self._operations: list[AffineNoise | Quantisation | WireDrop | tuple[ReadingNoise, Tensor]] = []
        self._applications = drawing.applications
        for its in operations:
            if isinstance(its, GaussianNoise):
                self._operations.append(AffineNoise(add=drawing.turned(drawing.gaussian(its))))
            elif isinstance(its, ReadingNoise):
                unit = GaussianNoise(torch.ones_like(its.std), its.keys, its.shares)
                self._operations.append((its, drawing.turned(drawing.gaussian(unit))))
            elif isinstance(its, AffineNoise):
                gain, add = (
                    None if numbers is None else drawing.turned(numbers) for numbers in (its.gain, its.add)
                )
                self._operations.append(AffineNoise(gain, add))
            else:
                self._operations.append(its)

    def __call__(
        self, y: Tensor, step: int | None = None, part: slice = slice(None), of: Applied | None = None
    ) -> Tensor:
        """Return what becomes of clean outputs.

        Args:
            y: ``(K, N, out)`` of one step, or of all steps at once.
            step: which; ``None``: all.
            part: which of the outputs ``y`` are.
            of: what they are a product of; for operations that depend on it.
        """
        for its in self._operations:
            if isinstance(its, Quantisation):
                y = its(y)
                continue
            if isinstance(its, WireDrop):
                assert of is not None
                y = y - its.of(of)
                continue
            if isinstance(its, tuple):
                assert of is not None
                reading, numbers = its
                y = y + reading.deviation(of, y, self._applications) * _at(numbers, step, part)
                continue
            if its.gain is not None:
                y = y * (1 + _at(its.gain, step, part))
            if its.add is not None:
                y = y + _at(its.add, step, part)
        return y


def _at(numbers: Tensor, step: int | None, part: slice) -> Tensor:
    of_step = numbers if step is None else numbers[:, min(step, numbers.shape[1] - 1)]
    return of_step[..., part] if of_step.shape[-1] > 1 else of_step
