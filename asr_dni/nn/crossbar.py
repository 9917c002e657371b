"""The analog product: the plain definition of what a matrix on arrays gives, and how hardware comes down to it.

The order is that of one product on an analog chip: inputs through the DAC, arrays of limited size with the weights as
programmed, noise on each array's outputs, its ADC, the digital sum over the arrays. The bias is digital and comes last.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from asr_dni.nn.mvm import linear
from asr_dni.nn.operations import (
    AffineNoise,
    Drawing,
    GaussianNoise,
    LoweredOperation,
    Outputs,
    Product,
    Quantisation,
    ReadingNoise,
    WireDrop,
)
from asr_dni.noise import (
    AddGaussian,
    AddReading,
    Affine,
    DropOfWires,
    Hardware,
    Operation,
    Per,
    Quantise,
    Scale,
)
from asr_dni.philox import Key, derive_key


class Unit(Protocol):
    """Gives what 1 in units of a scale is at a product."""

    def __call__(self, scale: Scale, needed: Sequence[bool], inward: bool, per: Per = "tensor") -> Tensor:
        """Return ``(K,)`` for the networks that need it, of the outputs or inward; per output ``(K, out)``."""


_LEAST_BOUND = 1e-30
"""Of a converter, so that it has steps."""

Factors = Callable[[str], Tensor | None]
"""Gives ``(K,)``, what the learned bounds of ``dac`` or ``adc`` are in multiples of the given ones; ``None``: those."""

Shares = tuple[int, Tensor]
"""Which output model's sigma the samples have shares of, and ``(N,)`` of them."""

Multiply = Callable[[Tensor, Tensor, bool], Tensor]
"""Gives the clean outputs of arrays: of inputs, weights ``(K, out, in)``, and whether the networks share the inputs."""


def _multiply(x: Tensor, weight: Tensor, shared: bool) -> Tensor:
    return linear(x, weight, shared=shared)


class Crossbar:
    """A matrix of each of K networks, on arrays.

    Args:
        product: the hardware.
        weight: ``(K, out, in)``, as programmed.
        drawing: what the random numbers are drawn for.
        linked: ``(out, in)`` booleans: which weights there are; an array without any for an output adds nothing to it.
            ``None``: all.
        multiply: the clean product, where it is more than that of a matrix and vectors, such as a convolution.
    """

    def __init__(
        self,
        product: Product,
        weight: Tensor,
        drawing: Drawing,
        linked: Tensor | None = None,
        multiply: Multiply = _multiply,
    ) -> None:
        self._dac, self._multiply = product.dac, multiply
        columns = [weight.shape[-1]] if product.columns is None else list(product.columns)
        self._columns, self._weights = columns, torch.split(weight, columns, -1)
        self._outputs = [Outputs(operations, drawing) for operations in product.arrays]
        all_of_them = weight.new_ones((1, 1), dtype=torch.bool)
        self._cells = [all_of_them] * len(columns) if linked is None else torch.split(linked, columns, -1)
        self._linked = None if linked is None else [its.any(-1) for its in self._cells]

    def __call__(self, x: Tensor, step: int | None = None, shared: bool = False) -> Tensor:
        """Return W x.

        Args:
            x: ``(K, *, in)``, or ``(*, in)`` where ``shared`` by all networks; what ``multiply`` takes, where there is
                one array only.
            step: the time step; ``None``: all of them at once.
            shared: whether the networks share x.

        Returns:
            ``(K, *, out)``.
        """
        if self._dac is not None:
            if shared:
                x, shared = x.expand(len(self._weights[0]), *x.shape), False
            x = self._dac(x)
        total: Tensor | None = None
        of_arrays = [x] if len(self._columns) == 1 else torch.split(x, self._columns, -1)
        parts = zip(of_arrays, self._weights, self._outputs, strict=True)
        for j, (inputs, weight, outputs) in enumerate(parts):
            applied = _Applied(inputs, weight, self._cells[j], shared, self._multiply)
            y = outputs(applied.product(inputs, weight), step, of=applied)
            if self._linked is not None:
                y = torch.where(self._linked[j], y, torch.zeros_like(y))
            total = y if total is None else total + y
        assert total is not None
        return total


@dataclass(frozen=True)
class _Applied:
    """An array and what it is applied to."""

    inputs: Tensor
    weight: Tensor
    cells: Tensor
    shared: bool
    multiply: Multiply

    def product(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """Return the clean outputs of inputs and weights."""
        return self.multiply(inputs, weight, self.shared)


@dataclass(frozen=True)
class _Numbers:
    """Numbers for an output model of one network."""

    drawing: Drawing
    member: int
    key: Key
    chip: Key
    of_samples: Tensor | None = None

    @property
    def shares(self) -> Tensor | None:
        """``(N, 1)``."""
        return None if self.of_samples is None else self.of_samples.to(self.drawing.like)[:, None]

    def normal(self, purpose: str = "") -> Tensor:
        """Return ``(T, N, out)`` fresh numbers."""
        return self._draw(self.key, purpose, self.drawing.first_step, self.drawing.steps)

    def held(self, steps: int, purpose: str = "") -> Tensor:
        """Return ``(T, N, out)`` numbers that last for some steps."""
        first, number = self.drawing.first_step, self.drawing.steps
        if steps == 1 or number == 0:
            return self.normal(purpose)
        places = (torch.arange(first, first + number, device=self.drawing.like.device) + steps // 2) // steps
        begin, end = ((step + steps // 2) // steps for step in (first, first + number - 1))
        return self._draw(self.key, purpose, begin, end - begin + 1).index_select(0, places - begin)

    def of_chip(self, purpose: str = "") -> Tensor:
        """Return ``(out,)`` numbers of the chip."""
        ids = [torch.zeros(1, dtype=torch.int64, device=self.drawing.like.device)]
        width = self.drawing.width // self.drawing.applications
        numbers = self._draw(self.chip, purpose, 0, 1, sample_ids=ids, width=width)[0, 0]
        return numbers.repeat_interleave(self.drawing.applications)

    def _draw(self, key: Key, purpose: str, first_step: int, steps: int, **changes: Any) -> Tensor:
        named = derive_key(*key, purpose) if purpose else key
        changes = {"sample_ids": [self.drawing.sample_ids[self.member]], **changes}
        drawing = dataclasses.replace(self.drawing, first_step=first_step, steps=steps, **changes)
        return drawing.gaussian(GaussianNoise(torch.ones(1), (named,)))[0]


def lower_product(
    hardware: Sequence[Hardware],
    keys: Sequence[Key],
    chips: Sequence[Key],
    unit: Unit,
    drawing: Drawing,
    columns: int | None = None,
    shares: Sequence[Shares | None] | None = None,
    factors: Factors = lambda converter: None,
) -> Product | None:
    """Return what hardware comes down to at one product.

    Args:
        hardware: of each of K networks, alike but for the models' numbers.
        keys: names the numbers of each network's product.
        chips: names those that are the same in all passes of its chip.
        unit: what the scales' units are at this product.
        drawing: what numbers are drawn for.
        columns: of the matrix; ``None``: it is a product inside the cell, which has no arrays and no converters.
        shares: of each network; ``None``: its samples are all alike.
        factors: of learned bounds.

    Returns:
        The operations; ``None`` where the product is exact.
    """
    first = hardware[0]
    widths: tuple[int, ...] | None = None
    if columns is not None and first.tile is not None and columns > first.tile:
        widths = tuple(min(first.tile, columns - start) for start in range(0, columns, first.tile))
    arrays = []
    for j in range(1 if widths is None else len(widths)):
        of_array, of_chip = (
            [derive_key(*key, "array", j) if j else key for key in its] for its in (keys, chips)
        )
        operations: list[LoweredOperation] = []
        for place, models in enumerate(zip(*(its.output for its in hardware), strict=True)):
            if all(model.neutral for model in models) or (columns is None and models[0].of_arrays):
                continue
            of_model, chip_of_model = (
                [derive_key(*key, "model", place) if place else key for key in its]
                for its in (of_array, of_chip)
            )
            of_samples = [
                its[1] if its is not None and its[0] == place else None
                for its in shares or [None] * len(models)
            ]
            named = zip(models, of_model, chip_of_model, of_samples, strict=True)
            lowered = [
                model.operation(_Numbers(drawing, member, key, chip, its_shares))
                for member, (model, key, chip, its_shares) in enumerate(named)
            ]
            needed = [not model.neutral for model in models]
            operations.append(_of_all(lowered, of_model, unit, needed, drawing))
        adcs = [its.adc.operation() for its in hardware if its.adc is not None]
        if columns is not None and adcs:
            operations.append(_quantisation(adcs, unit, factors("adc")))
        arrays.append(tuple(operations))
    dacs = [its.dac.operation() for its in hardware if its.dac is not None] if columns is not None else []
    if not any(arrays) and not dacs:
        return None
    return Product(
        tuple(arrays), widths, _quantisation(dacs, unit, factors("dac"), inward=True) if dacs else None
    )


def _of_all(
    operations: Sequence[Operation], keys: Sequence[Key], unit: Unit, needed: Sequence[bool], drawing: Drawing
) -> LoweredOperation:
    """Return one operation of K networks for theirs, of which some need no unit."""
    first = operations[0]
    if isinstance(first, AddGaussian):
        gaussian = [its for its in operations if isinstance(its, AddGaussian)]
        sigmas, shares = [its.sigma for its in gaussian], _shares_of_all([its.shares for its in gaussian])
        if first.per == "tensor":
            return GaussianNoise(_in_units(sigmas, first.scale, unit), tuple(keys), shares)
        noise = GaussianNoise(torch.tensor(sigmas, dtype=torch.float64), tuple(keys), shares)
        of_scale = _unit_of_outputs(first, unit, needed, drawing)
        return AffineNoise(add=drawing.gaussian(noise) * of_scale)
    if isinstance(first, Affine):
        affine = [its for its in operations if isinstance(its, Affine)]
        add = _stack([its.add for its in affine])
        if add is not None and first.scale != "absolute":
            add = add * _unit_of_outputs(first, unit, needed, drawing)
        return AffineNoise(_stack([its.gain for its in affine]), add)
    if isinstance(first, AddReading):
        reading = [its for its in operations if isinstance(its, AddReading)]
        scale: Scale = "range" if first.law == "largest" else "absolute"
        std = _in_units([its.sigma for its in reading], scale, unit, inward=True)
        shares = _shares_of_all([its.shares for its in reading])
        return ReadingNoise(std, tuple(keys), first.law, first.per, shares)
    if isinstance(first, DropOfWires):
        drops = [its for its in operations if isinstance(its, DropOfWires)]
        factors, ratios = (
            torch.tensor([getattr(its, name) for its in drops], dtype=torch.float64)
            for name in ("sigma", "g_ratio")
        )
        return WireDrop(factors, ratios, unit("range", needed, True), first.per)
    return _quantisation([its for its in operations if isinstance(its, Quantise)], unit)


def _unit_of_outputs(
    its: AddGaussian | Affine, unit: Unit, needed: Sequence[bool], drawing: Drawing
) -> Tensor:
    """Return what numbers in units of a scale are multiplied with; 0 for networks that need none."""
    of_scale = unit(its.scale, needed, False, its.per)
    if its.per == "output":
        of_scale = of_scale.repeat_interleave(drawing.applications, -1)
    of_scale = of_scale.view(len(of_scale), 1, 1, -1).to(drawing.like)
    wanted = torch.tensor(needed, device=of_scale.device).view(-1, 1, 1, 1)
    return torch.where(wanted, of_scale, torch.zeros_like(of_scale))


def _shares_of_all(shares: Sequence[Tensor | None]) -> Tensor | None:
    """Return ``(K, N)`` for ``(N, 1)`` each, of which those that have none have the whole strength."""
    like = next((its for its in shares if its is not None), None)
    if like is None:
        return None
    return torch.stack([torch.ones_like(like) if its is None else its for its in shares])[..., 0].float()


def _stack(numbers: Sequence[Tensor | None]) -> Tensor | None:
    """Return the numbers of all networks, of which those that have none have zeros."""
    like = next((its for its in numbers if its is not None), None)
    if like is None:
        return None
    filled = [torch.zeros_like(like) if its is None else its for its in numbers]
    broadcast = torch.broadcast_tensors(*filled)  # type: ignore[no-untyped-call]
    stacked: Tensor = torch.stack(broadcast)
    return stacked.view(len(numbers), *(1,) * (4 - stacked.dim()), *stacked.shape[1:])


def _quantisation(
    operations: Sequence[Quantise], unit: Unit, factors: Tensor | None = None, inward: bool = False
) -> Quantisation:
    scale = operations[0].scale
    bound, step = (
        _in_units([getattr(its, name) for its in operations], scale, unit, inward)
        for name in ("bound", "step")
    )
    # Of signals that are 0 everywhere, such as those of a layer that is dead, nothing else is let through.
    least = torch.tensor([_LEAST_BOUND * its.step / its.bound for its in operations], dtype=torch.float64)
    step = torch.where(bound == 0, least.to(step), step)
    bound = torch.where(bound == 0, torch.full_like(bound, _LEAST_BOUND), bound)
    if factors is None or not operations[0].learned:
        return Quantisation(bound, step)
    bound, step = bound.to(factors.device), step.to(factors.device)
    return Quantisation(bound * factors, step * factors.detach())


def _in_units(values: Sequence[float], scale: Scale, unit: Unit, inward: bool = False) -> Tensor:
    """Return ``(K,)`` values in units of the pre-activation; 0 stays 0 where the unit is not known."""
    plain = torch.tensor(values, dtype=torch.float64)
    if scale == "absolute":
        return plain
    of_scale = unit(scale, [value > 0 for value in values], inward)
    plain = plain.to(of_scale.device)
    return torch.where(plain > 0, plain * of_scale, torch.zeros_like(plain))
