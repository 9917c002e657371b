"""What turns recordings into features: the interface that every front end shares."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from asr_dni.configured import Configured
from asr_dni.errors import UserError


class FeatureStream(ABC):
    """The features of one recording, or of several in step, that arrives in pieces of any lengths.

    The frames of all pieces together are those of the whole recording.
    """

    @abstractmethod
    def push(self, chunk: Tensor) -> Tensor:
        """Take the next samples and return the frames that they decide.

        Args:
            chunk: ``(S,)`` or ``(N, S)`` samples in [-1, 1]; N is the same at every call, S any, also 0.

        Returns:
            ``(T, F)`` or ``(N, T, F)`` float32, where T may be 0.
        """

    @abstractmethod
    def flush(self) -> Tensor:
        """End the recording, return the remaining frames and make the stream ready for another recording.

        Returns:
            ``(T, F)`` or ``(N, T, F)`` float32, where T may be 0.
        """


class FrontEnd(Configured, nn.Module, ABC):
    """Waveforms to features, batched, on the waveforms' device; not normalised, and without parameters to train.

    A subclass takes plain arguments and keeps each in an attribute of its name, see
    :class:`asr_dni.configured.Configured`; that makes it a setting by ``class_path`` and ``init_args``. What it
    computes with, such as a window, are buffers that are not persistent. A clip's features depend on the clip alone.
    :class:`asr_dni.data.ClipFeatures` normalises them and keeps the statistics.

    Attributes:
        sample_rate: samples per second that it expects.
    """

    sample_rate: int

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Take away what belongs to the class above where clips are computed in another way: its stream, its bands."""
        super().__init_subclass__(**keywords)
        if "forward" in vars(cls) and "stream" not in vars(cls):
            cls.stream = FrontEnd.stream  # type: ignore[method-assign]
        if "forward" in vars(cls) and "with_masked_bands" not in vars(cls):
            cls.n_mel_bands = FrontEnd.n_mel_bands  # type: ignore[method-assign]
            cls.with_masked_bands = FrontEnd.with_masked_bands  # type: ignore[method-assign]

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Features per frame, F."""

    @abstractmethod
    def n_frames(self, n_samples: int) -> int:
        """Return how many frames a clip of so many samples has."""

    @abstractmethod
    def forward(self, waveforms: Tensor) -> Tensor:
        """Compute the features of whole clips.

        Args:
            waveforms: ``(N, S)`` floating-point samples in [-1, 1].

        Returns:
            ``(N, T, F)`` float32, where T is ``n_frames(S)``.
        """

    @property
    def min_samples(self) -> int:
        """Samples of the shortest clip that is worth hearing, such as a window."""
        return 1

    @property
    def n_bands(self) -> int:
        """Features that SpecAugment may mask by themselves: with feature k all others of band ``k % n_bands`` are."""
        return self.n_features

    @property
    def n_mel_bands(self) -> int:
        """Mel bands that features are made of and that can be masked before; 0: there are none."""
        return 0

    def with_masked_bands(self, waveforms: Tensor, masked: Tensor, mean: Tensor) -> Tensor:
        """Compute the features of clips some of whose mel bands are at their mean.

        Args:
            waveforms: ``(N, S)`` floating-point samples in [-1, 1].
            masked: ``(N, n_mel_bands)`` booleans, in all frames.
            mean: ``(F,)`` features, from which the bands' mean follows.

        Returns:
            ``(N, T, F)`` float32.

        Raises:
            UserError: they are made of no mel bands.
        """
        raise UserError(f"{type(self).__qualname__} makes its features of no mel bands that could be masked")

    def stream(self) -> FeatureStream:
        """Return a new, empty stream, which computes the same features from pieces of a recording.

        Raises:
            UserError: it computes those of whole recordings only.
        """
        raise UserError(f"{type(self).__qualname__} has no stream: give it whole recordings")

    def extra_repr(self) -> str:
        """Return the arguments, for ``print(module)``."""
        return ", ".join(f"{name}={value!r}" for name, value in self.configuration()["init_args"].items())
