"""The noise of a module, or of a whole network: read it, replace it, set it for a block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.noise.settings import Noise

_OF_ALL_MEMBERS = ("scale", "sites", "arrays", "first_step")


class NoisyModule(nn.Module):
    """A module whose arithmetic can be noisy, and the root of a network of such modules.

    ``module.noise`` is one value for the module and for all noisy modules below it. Noise is a property of the
    hardware: it does not depend on ``train()`` and ``eval()``, is not part of ``state_dict()``, and starts as
    none. Every noisy layer of a network has a stream of noise of its own, numbered in the order of
    ``modules()`` when the noise is set.

    A population (K networks of one shape in one module, see :func:`asr_dni.nn.stack_networks`) has one noise per
    member: ``module.noise`` is a tuple of K, which may differ in ``sigma``, ``seed``, ``draw`` and ``sample_ids``. Its
    members get the numbers that they would get alone. A single :class:`Noise` is given to every member.

    Attributes:
        networks: K, the number of networks in a population; ``None`` for an ordinary module.

    Example:
        >>> import torch
        >>> from asr_dni.nn import NoisyLinear
        >>> from asr_dni.noise import Noise
        >>> layer = NoisyLinear(3, 2)
        >>> with layer.under(Noise(sigma=0.5, seed=1)):
        ...     noisy = layer(torch.zeros(1, 3))
        >>> layer.noise.on
        False
    """

    networks: int | None = None
    _noises: tuple[Noise, ...] = (Noise(),)
    _stream: int = 0
    _passes: int = 0

    @property
    def noise(self) -> Noise | tuple[Noise, ...]:
        """The noise in force; assigning replaces it here and in every noisy module below.

        Raises:
            UserError: on assignment, where the number of noises is not that of the networks, or they differ in what all
                members of a population have in common.
        """
        return self._noises[0] if self.networks is None else self._noises

    @noise.setter
    def noise(self, noise: Noise | Sequence[Noise]) -> None:
        noises = self._one_each(noise)
        for stream, module in enumerate(self._noisy_modules()):
            module._noises = noises
            module._stream = stream
            module._passes = 0

    def _one_each(self, noise: Noise | Sequence[Noise]) -> tuple[Noise, ...]:
        """Return one noise for every network."""
        if isinstance(noise, Noise):
            return (noise,) * (self.networks or 1)
        noises = tuple(noise)
        if self.networks is None:
            raise UserError(f"got a sequence of {len(noises)} noises for an ordinary network: give one Noise")
        if len(noises) != self.networks:
            raise UserError(
                f"got {len(noises)} noises for {self.networks} networks: give one for each, or one for all"
            )
        for name in _OF_ALL_MEMBERS:
            for other in noises[1:]:
                first, its = getattr(noises[0], name), getattr(other, name)
                if its != first and not (name == "sites" and set(its) == set(first)):
                    raise UserError(
                        f"noise {name} is {first!r} for one member of a population and {its!r} for another: give all"
                        " the same (sigma, seed, draw and sample_ids may differ)"
                    )
        return noises

    def _noisy_modules(self) -> list["NoisyModule"]:
        return [module for module in self.modules() if isinstance(module, NoisyModule)]

    @contextmanager
    def under(self, noise: Noise | Sequence[Noise]) -> Iterator[None]:
        """Set the noise for a block; afterwards each module has again what it had before."""
        modules = self._noisy_modules()
        before = [(module._noises, module._stream, module._passes) for module in modules]
        self.noise = noise
        try:
            yield
        finally:
            for module, (noises, stream, passes) in zip(modules, before, strict=True):
                module._noises, module._stream, module._passes = noises, stream, passes

    def _member(self, member: int | None) -> int:
        """Return the place of a network among those of this module; ``None`` is an ordinary module's only one."""
        networks = self.networks
        if networks is None:
            if member in (None, 0):
                return 0
            raise UserError(f"member is {member}, but this is an ordinary network: leave member out")
        if member is None or not -networks <= member < networks:
            raise UserError(f"member is {member}: give the member of the population, 0 to {networks - 1}")
        return member % networks

    @staticmethod
    def _sample_ids(noise: Noise, rows: int, device: torch.device) -> Tensor:
        """Return ``(N,)`` identities of the samples of a batch of ``rows``, on a device."""
        ids = noise.sample_ids
        ids = torch.arange(rows, device=device) if ids is None else ids.to(device)
        if ids.shape != (rows,):
            raise ValueError(f"noise has {ids.numel()} sample identities for a batch of {rows}")
        return ids

    def _next_draws(self) -> tuple[int, ...]:
        """Return which realisation each network has in the forward pass that begins now."""
        passes = self._passes
        if any(noise.draw is None for noise in self._noises):
            self._passes += 1
        return tuple(passes if noise.draw is None else noise.draw for noise in self._noises)

    def _next_draw(self) -> int:
        """Return which realisation the forward pass of an ordinary module uses that begins now."""
        return self._next_draws()[0]
