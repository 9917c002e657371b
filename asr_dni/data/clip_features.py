"""From samples to what a network sees of a clip: a front end, the length of a clip, and the normalisation."""

import hashlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from asr_dni.bounds import at_most
from asr_dni.configuration import from_configuration
from asr_dni.data.audio import FULL_SCALE
from asr_dni.errors import UserError
from asr_dni.features import FeatureStream, FrontEnd

DEFAULT_FRONT_END: Any = {"class_path": "asr_dni.features.MFCC"}
"""As a configuration has it: a front end's settings without ``class_path`` are this class's."""

_SMALLEST_STD = 1e-4
"""Below this a feature counts as constant and is only centred: dividing would blow up rounding errors."""

_MOST_CLIP_SECONDS = 600
_MOST_SAMPLES = 2**26


class ClipFeatures(nn.Module):
    """What a trained network expects of a recording; knows nothing of the data that it was trained on.

    The statistics are ``mean`` and ``std``, ``(F,)`` float32, and ``count``, the number of frames that they were
    computed from.

    Args:
        front_end: makes features of samples.
        clip_seconds: length of a clip.
        normalize: subtract each feature's mean over the training split and divide by its standard deviation.

    Raises:
        UserError: there are no clips so short or so long.
    """

    mean: Tensor
    std: Tensor
    count: Tensor
    _fitted = False

    def __init__(self, front_end: FrontEnd, clip_seconds: float = 1.0, normalize: bool = True) -> None:
        super().__init__()
        _check_clip(clip_seconds, front_end)
        self.front_end = front_end
        self.clip_seconds = clip_seconds
        self.normalize = normalize
        self.register_buffer("mean", torch.zeros(front_end.n_features))
        self.register_buffer("std", torch.ones(front_end.n_features))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return self.front_end.sample_rate

    @property
    def n_samples(self) -> int:
        """Samples per clip, S."""
        return round(self.clip_seconds * self.sample_rate)

    @property
    def n_features(self) -> int:
        """Features per frame, F."""
        return self.front_end.n_features

    @property
    def n_frames(self) -> int:
        """Frames per clip, T."""
        return self.front_end.n_frames(self.n_samples)

    @property
    def fitted(self) -> bool:
        """Whether the statistics were computed or loaded."""
        # Once they are there they stay, and asking a GPU would wait for it.
        self._fitted = self._fitted or int(self.count) > 0
        return self._fitted

    def forward(self, waveforms: Tensor, masked_bands: Tensor | None = None) -> Tensor:
        """Compute normalised features.

        Args:
            waveforms: ``(N, S)`` int16, or floating-point samples in [-1, 1].
            masked_bands: ``(N, n_mel_bands)`` booleans: mel bands of the front end that are at their mean.

        Returns:
            ``(N, T, F)`` float32, where T is ``front_end.n_frames(S)``.

        Raises:
            RuntimeError: normalisation is on, but there are no statistics yet.
        """
        return self._normalized(self._features(waveforms, masked_bands))

    def stream(self) -> FeatureStream:
        """Return a new, empty stream, which computes the same features from pieces of a recording.

        Raises:
            UserError: the front end computes those of whole recordings only.
        """
        return _NormalizedStream(self, self.front_end.stream())

    @torch.no_grad()
    def fit_statistics(self, batches: Iterable[Tensor]) -> None:
        """Compute mean and standard deviation of each feature over all frames.

        Batches are merged by the formulas of T. Chan, G. Golub and R. LeVeque, "Updating formulae and a
        pairwise algorithm for computing sample variances", 1979, in double precision.

        Args:
            batches: ``(N, S)`` waveforms of the training split, without augmentation.

        Raises:
            UserError: there are no frames.
        """
        count = 0
        mean = torch.zeros(self.n_features, dtype=torch.float64)
        squares = torch.zeros(self.n_features, dtype=torch.float64)
        for waveforms in batches:
            frames = (
                self._features(waveforms.to(self.mean.device)).reshape(-1, self.n_features).cpu().double()
            )
            if not len(frames):
                continue
            batch_mean = frames.mean(0)
            difference = batch_mean - mean
            total = count + len(frames)
            squares += (frames - batch_mean).square().sum(0) + difference.square() * (
                count * len(frames) / total
            )
            mean += difference * (len(frames) / total)
            count = total
        if not count:
            raise UserError("the training split is empty: no features to compute the normalisation from")
        std = (squares / count).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > _SMALLEST_STD, std, 1.0))
        self.count.fill_(count)

    def statistics(self) -> dict[str, Tensor]:
        """Return the statistics; all else that a front end has follows from its arguments."""
        return {"mean": self.mean, "std": self.std, "count": self.count}

    def load_statistics(self, statistics: Mapping[str, Tensor], where: str = "the checkpoint") -> None:
        """Take over the statistics that a checkpoint keeps.

        Args:
            statistics: the checkpoint's.
            where: what a message calls the checkpoint.

        Raises:
            UserError: they are those of other features.
        """
        own = self.statistics()
        expected = {name: tensor.shape for name, tensor in own.items()}
        found = {name: tensor.shape for name, tensor in statistics.items()}
        if expected != found:
            raise UserError(
                f"{where} was trained with another front end; give the front_end settings that it has"
            )
        if self.normalize and not int(statistics["count"]) > 0:
            raise UserError(f"{where} has no statistics of the features: they were computed from no frames")
        for name, tensor in own.items():
            tensor.copy_(statistics[name])

    def _features(self, waveforms: Tensor, masked_bands: Tensor | None = None) -> Tensor:
        if waveforms.dtype == torch.int16:
            waveforms = to_float(waveforms)
        features: Tensor = (
            self.front_end(waveforms)
            if masked_bands is None
            else self.front_end.with_masked_bands(waveforms, masked_bands, self.mean)
        )
        frames = self.front_end.n_frames(waveforms.shape[-1])
        if features.shape[-2:] != (frames, self.n_features):
            raise UserError(
                f"{type(self.front_end).__qualname__} makes {tuple(features.shape[-2:])} frames and features of"
                f" {waveforms.shape[-1]} samples, but says that it makes {(frames, self.n_features)}: n_frames,"
                " n_features and forward have to agree"
            )
        return features

    def _normalized(self, features: Tensor) -> Tensor:
        if not self.normalize:
            return features
        if not self.fitted:
            raise RuntimeError("normalisation needs statistics: call fit_statistics or load_statistics")
        return (features - self.mean) / self.std


class _NormalizedStream(FeatureStream):
    """The normalised features of a recording that arrives in pieces."""

    def __init__(self, features: ClipFeatures, stream: FeatureStream) -> None:
        self._features = features
        self._stream = stream

    def push(self, chunk: Tensor) -> Tensor:
        return self._features._normalized(self._stream.push(chunk))

    def flush(self) -> Tensor:
        return self._features._normalized(self._stream.flush())


def to_float(waveforms: Tensor) -> Tensor:
    """Return int16 samples as float32 in [-1, 1)."""
    return waveforms.to(torch.float32).mul_(1.0 / FULL_SCALE)


def make_front_end(configuration: Mapping[str, Any], key: str = "front_end") -> FrontEnd:
    """Make a front end of ``class_path`` and ``init_args``; without them they are arguments of the default one.

    Raises:
        UserError: there is no such front end, or it does not take these arguments.
    """
    if not {"class_path", "init_args"} & configuration.keys():
        configuration = {**DEFAULT_FRONT_END, "init_args": configuration}
    return from_configuration(configuration, FrontEnd, key)


def code_of(front_end: FrontEnd) -> str | None:
    """Return a digest of the files that a front end's classes are in; None: there are none, as of a notebook."""
    digest = hashlib.blake2b(digest_size=10)
    for kind in type(front_end).__mro__:
        if issubclass(kind, FrontEnd) and kind is not FrontEnd:
            try:
                digest.update(inspect.getsource(sys.modules[kind.__module__]).encode())
            except (OSError, TypeError):
                return None
    return digest.hexdigest()


def _check_clip(seconds: float, front_end: FrontEnd) -> None:
    if not seconds > 0:
        raise UserError(f"clip_seconds: {seconds} is not valid; give a length in seconds above 0")
    least = front_end.min_samples
    if round(seconds * front_end.sample_rate) < least:
        raise UserError(
            f"clip_seconds: {seconds} is not valid; give at least {least / front_end.sample_rate:g}, what the front end"
            " needs (its window)"
        )
    at_most("clip_seconds", seconds, _MOST_CLIP_SECONDS)
    at_most("clip_seconds x sample_rate", seconds * front_end.sample_rate, _MOST_SAMPLES)
