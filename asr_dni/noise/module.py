"""The noise of a module, or of a whole network: read it, replace it, set it for a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from asr_dni.noise.settings import Noise


class NoisyModule(nn.Module):
    """A module whose arithmetic can be noisy, and the root of a network of such modules.

    ``module.noise`` is one value for the module and for all noisy modules below it. Noise is a property of the
    hardware: it does not depend on ``train()`` and ``eval()``, is not part of ``state_dict()``, and starts as
    none. Every noisy layer of a network has a stream of noise of its own, numbered in the order of
    ``modules()`` when the noise is set.

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

    _noise: Noise = Noise()
    _stream: int = 0
    _passes: int = 0

    @property
    def noise(self) -> Noise:
        """The noise in force; assigning replaces it here and in every noisy module below."""
        return self._noise

    @noise.setter
    def noise(self, noise: Noise) -> None:
        for stream, module in enumerate(self._noisy_modules()):
            module._noise = noise
            module._stream = stream
            module._passes = 0

    def _noisy_modules(self) -> list["NoisyModule"]:
        return [module for module in self.modules() if isinstance(module, NoisyModule)]

    @contextmanager
    def under(self, noise: Noise) -> Iterator[None]:
        """Set the noise for a block; afterwards each module has again what it had before."""
        modules = self._noisy_modules()
        before = [(module._noise, module._stream, module._passes) for module in modules]
        self.noise = noise
        try:
            yield
        finally:
            for module, (its_noise, stream, passes) in zip(modules, before, strict=True):
                module._noise, module._stream, module._passes = its_noise, stream, passes

    def _next_draw(self) -> int:
        """Return which realisation the forward pass that begins now uses."""
        if self._noise.draw is not None:
            return self._noise.draw
        self._passes += 1
        return self._passes - 1
