"""Batch normalisation, of one network or of K."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from asr_dni.stackable import Stackable


class StackableBatchNorm2d(Stackable, nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d``, which can be K networks (:func:`asr_dni.nn.stack_networks`).

    A population takes ``(K, N, C, T, B)``. Each member is normalised by its own batch, or by its own running
    statistics, as it would be alone.

    Attributes:
        sub_bands: S, groups of bands that are normalised each by themselves.
    """

    sub_bands = 1

    @property
    def by_batch(self) -> bool:
        """Whether it normalises by the batch's own statistics, rather than by the running ones."""
        return self.training or self.running_mean is None

    def fold(self, batch: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return factors and shifts of the channels, ``(C, S)`` each, in a population ``(K, C, S)``; S is 1 here.

        An input times the factors plus the shifts is what :meth:`forward` makes of it. The running statistics stay as
        they are.

        Args:
            batch: ``(K, N, C, T, B)``, K = 1 for an ordinary one: the input whose own statistics count, with their
                gradients; ``None``: the running ones.
        """
        if batch is None:
            assert self.running_mean is not None
            assert self.running_var is not None
            mean, variance = self.running_mean, self.running_var
        else:
            exact = batch.float() if batch.dtype in (torch.bfloat16, torch.float16) else batch
            variance, mean = torch.var_mean(exact, (1, 3, 4), correction=0)
            if self.networks is None:
                mean, variance = mean[0], variance[0]
        factors = torch.rsqrt(variance + self.eps)
        factors = factors if self.weight is None else factors * self.weight
        shifts = -mean * factors
        shifts = shifts if self.bias is None else shifts + self.bias
        shape = (*factors.shape[:-1], -1, self.sub_bands)
        return factors.view(shape), shifts.view(shape)

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input, in the same shape."""
        networks = self.networks
        if networks is None:
            y: Tensor = super().forward(input)
            return y
        if input.dim() != 5 or len(input) != networks:
            raise ValueError(f"expected an input ({networks}, N, C, T, B), got {tuple(input.shape)}")
        # The channels of K networks are channels of one.
        channels = input.transpose(0, 1).flatten(1, 2)
        scale = None if self.weight is None else self.weight.flatten()
        shift = None if self.bias is None else self.bias.flatten()
        mean, variance = (
            None if its is None else its.flatten() for its in (self.running_mean, self.running_var)
        )
        of_batch = self.training or mean is None
        follows = self.training and self.track_running_stats
        if of_batch and mean is not None:
            mean, variance = torch.zeros_like(mean), torch.ones_like(mean)
        # A momentum of 1 puts the batch's own statistics there.
        y = functional.batch_norm(channels, mean, variance, scale, shift, of_batch, 1.0, self.eps)
        if follows and mean is not None and variance is not None:
            self._follow(mean.view(networks, -1), variance.view(networks, -1))
        return y.view(y.shape[0], networks, -1, *y.shape[2:]).transpose(0, 1)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Fold a batch's statistics ``(K, C)`` into the running ones."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        if self.momentum is None:  # members may have seen different numbers of batches
            weight = (1 / self.num_batches_tracked.to(mean))[:, None]
        else:
            weight = mean.new_tensor(self.momentum)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


@contextmanager
def _restored(network: nn.Module) -> Iterator[list[_BatchNorm]]:
    """Give the batch normalisations of a network; after a block they are in the modes that they were in."""
    modules = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [(module.training, module.track_running_stats) for module in modules]
    try:
        yield modules
    finally:
        for module, (training, tracking) in zip(modules, before, strict=True):
            module.training, module.track_running_stats = training, tracking


@contextmanager
def keeping_running_statistics(network: nn.Module) -> Iterator[None]:
    """Have a network's batch normalisation leave its running statistics as they are for a block."""
    with _restored(network) as modules:
        for module in modules:
            module.track_running_stats = False
        yield


@contextmanager
def normalising_by_batch(network: nn.Module) -> Iterator[None]:
    """Have a network's batch normalisation take the batch's own statistics for a block, and keep its running ones."""
    with _restored(network) as modules:
        for module in modules:
            module.training, module.track_running_stats = True, False
        yield


def renew_running_statistics(network: nn.Module, passes: Iterable[int]) -> None:
    """Take the running statistics of a network's batch normalisation anew: those of all clips of some batches.

    With mean and variance of each batch, weighted by its clips, the mean is E[mean] and the variance
    E[variance] + Var[mean] (Y. Wu and J. Johnson, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3.1).

    Args:
        network: whose normalisations take each batch's own statistics for the passes; then they are as they were.
        passes: each step of this iterator runs the network on a batch, and gives its number of clips. Without any the
            statistics stay as they are.
    """
    with _restored(network) as modules:
        momenta = [module.momentum for module in modules]
        clips: list[int] = []
        of_batches: list[list[tuple[Tensor, Tensor]]] = [[] for _ in modules]
        try:
            for module in modules:
                # A momentum of 1 puts the batch's own statistics there.
                module.training, module.track_running_stats, module.momentum = True, True, 1.0
            for size in passes:
                clips.append(size)
                for module, found in zip(modules, of_batches, strict=True):
                    assert module.running_mean is not None
                    assert module.running_var is not None
                    found.append((module.running_mean.clone(), module.running_var.clone()))
        finally:
            for module, momentum in zip(modules, momenta, strict=True):
                module.momentum = momentum
        if not clips:
            return
        for module, found in zip(modules, of_batches, strict=True):
            means, variances = (torch.stack(its) for its in zip(*found, strict=True))
            weights = means.new_tensor(clips).div_(sum(clips)).view(-1, *[1] * (means.dim() - 1))
            mean = (weights * means).sum(0)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(mean)
            module.running_var.copy_((weights * (variances + (means - mean).square())).sum(0))


class SubSpectralNorm2d(StackableBatchNorm2d):
    """Batch normalisation of groups of neighbouring bands, each by itself, of one network or of K.

    S. Chang et al., "SubSpectral Normalization for neural audio data processing", arXiv:2103.13620: scale, shift and
    statistics are of each channel in each of S sub-bands of one width.

    Args:
        channels: C.
        sub_bands: S, which divides the bands B of an input ``(N, C, T, B)``.
        **settings: of ``torch.nn.BatchNorm2d``.
    """

    def __init__(self, channels: int, sub_bands: int, **settings: Any) -> None:
        super().__init__(channels * sub_bands, **settings)
        self.sub_bands = sub_bands

    def fold(self, batch: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return factors and shifts, see the base class."""
        return super().fold(None if batch is None else self._as_channels(batch))

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input, in the same shape."""
        y = super().forward(self._as_channels(input))
        of_sub_bands = y.reshape(*y.shape[:-3], -1, self.sub_bands, *y.shape[-2:])
        return of_sub_bands.movedim(-3, -2).flatten(-2)

    def _as_channels(self, input: Tensor) -> Tensor:
        """Return ``(*, C * S, T, B / S)`` for ``(*, C, T, B)``.

        Raises:
            ValueError: the sub-bands do not divide the bands.
        """
        if input.shape[-1] % self.sub_bands:
            raise ValueError(
                f"expected an input of bands that {self.sub_bands} sub-bands divide, got {tuple(input.shape)}"
            )
        of_sub_bands = input.reshape(*input.shape[:-1], self.sub_bands, -1)
        return of_sub_bands.movedim(-2, -3).flatten(-4, -3)
