"""What layers on analog hardware share: matrices as they are programmed, products as the hardware lowers to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from asr_dni.nn.crossbar import lower_product
from asr_dni.nn.implementation import draw_noise
from asr_dni.nn.learned_bounds import BoundedModule
from asr_dni.nn.mvm import like_product
from asr_dni.nn.operations import Drawing, GaussianNoise, Product
from asr_dni.nn.product_counts import CountedProduct, count, counting
from asr_dni.nn.signal_sizes import SignalStatistics
from asr_dni.nn.statistics import Matrices
from asr_dni.noise import ForwardPass, Hardware, Part, Per, Scale, Site
from asr_dni.philox import Key, derive_key


class AnalogModule(BoundedModule):
    """A layer whose matrices may lie on analog arrays."""

    _kept: dict[str, tuple[Tensor, object, Tensor]] | None = None

    @classmethod
    def of_torch(cls, layer: nn.Module) -> Self:
        """Return a torch layer as its noisy counterpart, with the same parameters, mode and hooks.

        Args:
            layer: an instance of the class of torch's that this one is derived from; not to be used any more.
        """
        noisy = cls.__new__(cls)
        noisy.__dict__.update(layer.__dict__)
        noisy._set_up()
        return noisy

    def _set_up(self) -> None:
        """Make what it has beside torch's layer."""
        raise NotImplementedError

    def _programmed(
        self, now: ForwardPass, site: Site, name: str, folded: Tensor | None = None, keep: bool = True
    ) -> Tensor:
        """Return a matrix as it lies on the chips, a differentiable function of the parameter.

        What is on a chip depends on seed and chip alone, not on the draw. Where no gradient is wanted it is programmed
        once for all passes in a row, as the draws of a curve's level, whose hardware, chips and weights are the same.

        Args:
            now: the forward pass.
            site: of its product.
            name: of the parameter, ``(out, *)``, in a population ``(K, out, *)``.
            folded: what is programmed in the parameter's place, a function of it; ``None``: the parameter.
            keep: whether it may be the same in further passes.
        """
        parameter: Tensor = getattr(self, name)
        weight = parameter if folded is None else folded
        _, _, kind_and_layer = name.partition("_")
        kind, _, layer = kind_and_layer.partition("_")
        placed = [
            (hardware, self._outputs_of(part, {"ih": "input", "hh": "recurrent"}.get(kind, "")))
            for part, hardware in placed_hardware(now, layer or "l0", site)
        ]
        if not self._programs(now, site, layer or "l0"):
            return weight
        chips = [(noise.realisation.seed, noise.realisation.chip) for noise in now.noises]
        # Elsewhere than on the CPU, to compare would be to wait for the device.
        keep = (
            keep and not torch.is_grad_enabled() and weight.is_cpu and type(parameter) is torch.nn.Parameter
        )
        kept = self._kept_matrices()
        named = (tuple((noise.hardware, noise.placed) for noise in now.noises), tuple(chips), now.stream)
        if keep and name in kept:
            made_of, made_as, programmed = kept[name]
            if made_as == named and made_of.dtype == weight.dtype and torch.equal(made_of, weight):
                return programmed
        keys = [derive_key(seed, "weight", now.stream, name, chip) for seed, chip in chips]
        members = weight[None] if self.networks is None else weight
        matrices = []
        for member, (matrix, key) in enumerate(zip(members, keys, strict=True)):
            exact = matrix.flatten(1)
            made = exact
            for hardware, rows in placed:
                its = _program(exact, hardware[member], key)
                made = its if rows is None else torch.where(rows[:, None], its, made)
            matrices.append(made.view_as(matrix))
        programmed = matrices[0] if self.networks is None else torch.stack(matrices)
        if keep:
            kept[name] = weight.detach().clone(), named, programmed
        return programmed

    @staticmethod
    def _programs(now: ForwardPass, site: Site, layer: str = "l0") -> bool:
        """Return whether a pass has other weights than the exact ones on the arrays of a product."""
        return any(its.weights_on for _, hardware in placed_hardware(now, layer, site) for its in hardware)

    def _kept_matrices(self) -> dict[str, tuple[Tensor, object, Tensor]]:
        """Return the matrices as they were last programmed, with what they were programmed from; a copy has none."""
        if self._kept is None:
            self._kept = {}
        return self._kept

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of."""
        return {**super().__getstate__(), "_kept": None}

    def _product(
        self,
        now: ForwardPass,
        switch: Site,
        part: str,
        site: str,
        drawing: Drawing,
        columns: int | None,
        *place: int,
        matrices: Matrices | None = None,
    ) -> Product | None:
        """Return what the hardware of a pass comes down to at one product; ``None`` where it is exact.

        Args:
            now: the forward pass.
            switch: the hardware's site that the product belongs to.
            part: layer and direction.
            site: of the signal statistics.
            drawing: what numbers are drawn for.
            columns: of the matrix, see :func:`asr_dni.nn.crossbar.lower_product`.
            *place: tells products at a site of one module apart.
            matrices: that are on the arrays, where they are not the parameters.
        """
        if not now.at(switch) or site not in self._statistics[part].sites:
            return None
        if counting():
            weights = sum(matrix.numel() for matrix in self._matrices(part, site)) // len(now.noises)
            of_one = drawing.groups * drawing.width // drawing.applications
            applied = drawing.steps * drawing.applications
            joint = site == "gates"
            count(CountedProduct(now.stream, part, switch, joint, of_one, columns, weights, applied))

        def unit(scale: Scale, needed: Sequence[bool], inward: bool, per: Per = "tensor") -> Tensor:
            return self._unit_of_pass(part, site, scale, needed, inward, per, matrices)

        def factors(converter: str) -> Tensor | None:
            return self._bound_factors(converter, part, site)

        which = [noise.realisation for noise in now.noises]
        keys = [
            derive_key(its.seed, site, now.stream, *place, draw)
            for its, draw in zip(which, now.draws, strict=True)
        ]
        products = []
        for placed, hardware in placed_hardware(now, part, switch):
            chips = keys  # which no model asks for where none is of a chip
            if any(model.of_chip for model in hardware[0].output):
                chips = [
                    derive_key(its.seed, "outputs of a chip", now.stream, part, site, its.chip)
                    for its in which
                ]
            shares = [
                None
                if its.shares is None
                else (of.varies_by_sample(its.shares_of), self._shares(its.shares, ids))
                for of, its, ids in zip(hardware, which, drawing.sample_ids, strict=True)
            ]
            product = lower_product(hardware, keys, chips, unit, drawing, columns, shares, factors)
            outputs = self._outputs_of(placed, site)
            if product is not None:
                products.append(product if outputs is None else product.at_outputs(outputs, drawing))
        if len(products) < 2:
            return products[0] if products else None
        arrays = zip(*(product.arrays for product in products), strict=True)
        return replace(products[0], arrays=tuple(sum(operations, ()) for operations in arrays))

    @staticmethod
    def _shares(shares: Tensor, sample_ids: Tensor) -> Tensor:
        """Return the shares of a batch's samples, on their device."""
        if shares.shape != sample_ids.shape:
            raise ValueError(f"noise has {shares.numel()} shares for a batch of {sample_ids.numel()}")
        return shares.to(sample_ids.device)

    def _outputs_of(self, part: Part | None, site: str) -> Tensor | None:
        """Return which outputs of a product a part has, ``(out,)`` booleans; ``None``: all of them.

        Args:
            part: ``None``: the whole network.
            site: of the signal statistics.
        """
        return None


def placed_hardware(
    now: ForwardPass, layer: str, switch: Site
) -> Iterator[tuple[Part | None, list[Hardware]]]:
    """Yield the parts that a product belongs to, and the hardware of each network there; the whole is ``None``."""
    first = now.noises[0]
    if switch not in first.hardware.sites:
        return
    if first.placed is None:
        yield None, [noise.hardware for noise in now.noises]
        return
    for place, its in enumerate(first.placed):
        if its.part.covers(now.stream, layer, switch):
            yield (
                its.part,
                [(noise.placed or first.placed)[place].hardware or noise.hardware for noise in now.noises],
            )


class OneProduct(AnalogModule):
    """A layer with one matrix, ``weight``, and one product with it, at a site of its own."""

    _site: ClassVar[Site]
    weight: Tensor

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._set_up()

    def _set_up(self) -> None:
        self._statistics = {"l0": SignalStatistics({self._site: len(self.weight)})}

    @property
    def site(self) -> Site:
        """The hardware's site that its product belongs to."""
        return self._site

    def _own_parts(self, hardware: Hardware) -> list[tuple[str, tuple[Site, ...], tuple[str, ...]]]:
        """Return its only part, which has no gates."""
        return [("l0", (self._site,), ())] if hardware.on_at(self._site) else []

    def _observe(self, clean: Tensor, input: Tensor, axis: int = -1) -> None:
        """Take the size of clean outputs, of which one axis is that of single ones, and of inputs."""
        assert self._estimates is not None
        self._estimates["l0"].observe_output(self._site, clean, axis)
        self._estimates["l0"].observe_input(self._site, input)

    def _only_product(
        self, now: ForwardPass, drawing: Drawing, columns: int, matrices: Matrices | None = None
    ) -> Product | None:
        """Return what :meth:`_product` does."""
        return self._product(now, self._site, "l0", self._site, drawing, columns, matrices=matrices)

    def _drawing(
        self,
        now: ForwardPass,
        input: Tensor,
        rows: int,
        first_step: int,
        steps: int,
        width: int,
        samples_first: bool,
        applications: int = 1,
    ) -> Drawing:
        """Return what the product's numbers are drawn for.

        Args:
            now: the forward pass.
            input: of the layer.
            rows: N, samples.
            first_step: of the outputs.
            steps: T, of the outputs.
            width: outputs per sample and step.
            samples_first: whether the outputs are ``(K, N, T, *)`` rather than ``(K, T, N, *)``.
            applications: of the matrix in a step, see :class:`~asr_dni.nn.operations.Drawing`.
        """
        ids = [self._sample_ids(noise, rows, input.device) for noise in now.noises]
        like = like_product(input)
        return Drawing(ids, first_step, steps, 1, width, like, draw_noise, samples_first, applications)

    def _matrices(self, part: str, site: str) -> list[Tensor]:
        return [self.weight]

    def _matrix_sites(self, hardware: Hardware) -> Mapping[str, Site]:
        return {self._site: self._site}

    def signal_and_noise_power(
        self, hardware: Hardware, member: int | None = None
    ) -> list[tuple[str, Site, float, float]]:
        """Return part, site, mean square of the clean signal and variance of the noise."""
        return self._power_of("l0", self._site, self._site, hardware, self._member(member))


class _OfMatrix:
    """Numbers for the weight models of one network's matrix."""

    def __init__(self, key: Key, like: Tensor) -> None:
        self._key, self._like = key, like

    def normal(self, purpose: str = "") -> Tensor:
        """Return ``(out, in)`` numbers."""
        key = derive_key(*self._key, purpose) if purpose else self._key
        rows, columns = self._like.shape
        ids = [torch.arange(rows, device=self._like.device)]
        noise = GaussianNoise(torch.ones(1), (key,))
        return draw_noise(noise, ids, 0, 1, 1, columns, self._like)[0, 0]


def _program(matrix: Tensor, hardware: Hardware, key: Key) -> Tensor:
    """Return what all weight models of a hardware make of a matrix ``(out, in)``, one after the other."""
    for place, model in enumerate(hardware.weight):
        if not model.neutral:
            matrix = model.program(matrix, _OfMatrix(derive_key(*key, place), matrix.detach()))
    return matrix
