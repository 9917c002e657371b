"""Dropout whose masks are named by what they are for: seed, step, sample, time step and unit.

A sample is dropped alike in any batch, and a network alone and in a population.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from statistics import NormalDist
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_dni.errors import UserError
from asr_dni.nn.implementation import draw_noise
from asr_dni.nn.operations import GaussianNoise
from asr_dni.noise.recomputation import settings_of_pass
from asr_dni.philox import derive_key
from asr_dni.stackable import Stackable


@dataclass(frozen=True)
class DropoutSeed:
    """What the dropout masks of one training step are named by.

    Attributes:
        seed: different seeds give independent masks.
        step: of the training; different steps give independent masks.
        sample_ids: ``(N,)`` integer identities of the samples of the batch. ``None``: their positions in it.

    Raises:
        UserError: sample_ids are not one integer per sample.
    """

    seed: int
    step: int = 0
    sample_ids: Tensor | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        ids = self.sample_ids
        if ids is not None and (ids.dim() != 1 or ids.is_floating_point() or ids.is_complex()):
            raise UserError(
                f"dropout sample_ids are {tuple(ids.shape)} {ids.dtype}: give one integer per sample of the batch"
            )


_named_by: ContextVar[Mapping["DroppingModule", tuple[tuple[DropoutSeed, ...], int]]] = ContextVar(
    "asr_dni_dropout", default=MappingProxyType({})
)
"""Each network's seed and the module's place among those that drop, as :func:`seeded_dropout` has set them."""


class DroppingModule(Stackable):
    """A module that drops values in training.

    Within :func:`seeded_dropout` masks are counter-based; elsewhere they come from torch's global generator.
    """

    def _drop(self, values: Tensor, p: float, layer: int = 0) -> Tensor:
        """Return ``(T, N, H)`` or ``(N, H)`` values, in a population with a leading axis K, some of them zero."""
        named = settings_of_pass(self, "dropout", lambda: _named_by.get().get(self))
        if named is None:
            return functional.dropout(values, p, True)
        seeds, stream = named
        if p == 0 or p == 1:
            return values * (1 - p)
        axes = values.dim() - (self.networks is not None)
        if axes not in (2, 3):
            raise ValueError(
                f"seeded dropout takes (T, N, H) or (N, H) of each network, not {tuple(values.shape)}"
            )
        rows, width = values.shape[-2:]
        shape = (0, values.shape[-3] if axes == 3 else 1, 1, width)
        keys = tuple(derive_key(seed.seed, "dropout", stream, layer, seed.step) for seed in seeds)
        ids = [self._ids(seed, rows, values.device) for seed in seeds]
        like = values.new_empty(
            0, dtype=torch.float32
        )  # in lower precision too many would be at the quantile
        numbers = draw_noise(GaussianNoise(torch.ones(len(keys)), keys), ids, *shape, like)
        if self.networks is None:
            numbers = numbers[0]
        # Of a standard normal number the part p lies below its quantile.
        mask = numbers.gt_(NormalDist().inv_cdf(p)).to(values.dtype).mul_(1 / (1 - p))
        return values * (mask if axes == 3 else mask.squeeze(-3))

    def _ids(self, seed: DropoutSeed, rows: int, device: torch.device) -> Tensor:
        ids = seed.sample_ids
        ids = torch.arange(rows, device=device) if ids is None else ids.to(device)
        if ids.shape != (rows,):
            raise ValueError(f"dropout has {ids.numel()} sample identities for a batch of {rows}")
        return ids


class CounterDropout(DroppingModule, nn.Dropout):
    """``torch.nn.Dropout`` for ``(T, N, H)`` or ``(N, H)``, whose masks :func:`seeded_dropout` can name.

    Elsewhere it is ``torch.nn.Dropout``, for any shape.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with values dropped and the others multiplied by 1 / (1 - p); in evaluation as it is."""
        return self._drop(input, self.p) if self.training else input


@contextmanager
def seeded_dropout(network: nn.Module, seeds: DropoutSeed | Sequence[DropoutSeed]) -> Iterator[None]:
    """Name the dropout masks of a network for a block; afterwards each module has again what it had before.

    Every module that drops has masks of its own. The global generators are not touched. The block holds in its
    own thread; where activation checkpointing runs a forward pass again, the masks are those of the first time.

    Args:
        network: the network or layer.
        seeds: what the masks are named by; for a population one per member, or one for all.

    Raises:
        UserError: the number of seeds is not that of the networks.
    """
    modules = [module for module in network.modules() if isinstance(module, DroppingModule)]
    named = dict(_named_by.get())
    for stream, module in enumerate(modules):
        networks = module.networks or 1
        its_seeds = (seeds,) * networks if isinstance(seeds, DropoutSeed) else tuple(seeds)
        if len(its_seeds) != networks:
            raise UserError(
                f"got {len(its_seeds)} dropout seeds for {networks} networks: give one for each, or one for all"
            )
        named[module] = its_seeds, stream
    token = _named_by.set(named)
    try:
        yield
    finally:
        _named_by.reset(token)
