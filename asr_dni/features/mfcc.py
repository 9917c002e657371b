"""Mel-frequency cepstral coefficients and log-mel energies, the same alone, in any batch and in a stream.

The steps are those of S. Davis and P. Mermelstein, "Comparison of parametric representations for monosyllabic
word recognition in continuously spoken sentences", IEEE Trans. ASSP 28(4), 1980: power spectrum of
Hann-windowed frames, triangular mel bands, logarithm, orthonormal DCT-II.

The logarithm is ``log(energy + log_offset)``. A floor relative to the loudest frame (librosa's ``top_db``,
torchaudio's ``AmplitudeToDB``) would make a frame depend on the rest of its clip, or of its batch.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchaudio.functional import create_dct, melscale_fbanks

from asr_dni.bounds import at_most
from asr_dni.errors import UserError

_SMALLEST_STD = 1e-4
"""Below this a coefficient counts as constant and is only centred: dividing would blow up rounding errors."""

_CLIPS_AT_ONCE = 16
"""On a CPU larger batches are done in parts, whose frames and spectra stay in its cache: twice as fast."""


_MOST_BANDS = 4_096
_MOST_FFT_POINTS = 2**20
_MOST_FILTER_VALUES = 2**26


@dataclass(frozen=True)
class MFCCSettings:
    """What the front end computes.

    Args:
        sample_rate: in Hz.
        window_ms: length of a frame in milliseconds; it is Hann-windowed.
        hop_ms: distance between the starts of consecutive frames in milliseconds, at most ``window_ms``.
        n_fft: points of the Fourier transform; null for the smallest power of two that holds a window.
        n_mels: mel bands.
        n_mfcc: cepstral coefficients kept, beginning with the 0th; 0 for the log-mel energies themselves.
        f_min: lower edge of the lowest band in Hz.
        f_max: upper edge of the highest band in Hz; null for half the sampling rate.
        mel_scale: formula of the mel scale, ``htk`` or ``slaney``.
        mel_norm: ``slaney`` for bands of unit area, null for bands of unit height.
        log_offset: added to the band energies before the logarithm; samples lie in [-1, 1].
        deltas: 0 for none, 1 to append the features' slopes in time, 2 to append the slopes' slopes as well.
        delta_width: frames that a slope is fitted to, odd; a stream is later by half of them for each order.
        normalize: subtract each feature's mean over the training split and divide by its standard deviation.
        padding: zeros around a clip. ``none``: frames start at multiples of the hop and a last one that would
            not be full is dropped. ``causal``: a window less a hop of zeros in front, so that frame t ends
            with the hop t. ``center``: half a window on either side, so that frame t is centred on t hops.

    Raises:
        UserError: a value out of range; the line names the key.
    """

    sample_rate: int = 16000
    window_ms: float = 30.0
    hop_ms: float = 20.0
    n_fft: int | None = None
    n_mels: int = 40
    n_mfcc: int = 20
    f_min: float = 20.0
    f_max: float | None = None
    mel_scale: Literal["htk", "slaney"] = "htk"
    mel_norm: Literal["slaney"] | None = None
    log_offset: float = 1e-6
    deltas: Literal[0, 1, 2] = 0
    delta_width: int = 5
    normalize: bool = True
    padding: Literal["none", "causal", "center"] = "none"

    def __post_init__(self) -> None:
        def require(valid: bool, key: str, expected: str) -> None:
            if not valid:
                raise UserError(f"{key}: {getattr(self, key)!r} is not valid: give {expected}")

        require(self.sample_rate > 0, "sample_rate", "a sampling rate in Hz above 0")
        at_most("sample_rate", self.sample_rate, 1_000_000)
        at_most("window_ms", self.window_ms, 10_000)
        require(
            math.isfinite(self.window_ms) and self.window_samples >= 2,
            "window_ms",
            f"at least two samples, {2000 / self.sample_rate:g} ms",
        )
        require(
            math.isfinite(self.hop_ms) and 1 <= self.hop_samples <= self.window_samples,
            "hop_ms",
            f"{1000 / self.sample_rate:g} ms (a sample) to {self.window_ms:g} ms (window_ms)",
        )
        require(
            self.n_fft is None or self.n_fft >= self.window_samples,
            "n_fft",
            f"at least the {self.window_samples} samples of a window (window_ms), or null",
        )
        require(self.n_mels >= 1, "n_mels", "at least 1")
        at_most("n_mels", self.n_mels, _MOST_BANDS)
        at_most("n_fft", self.fft_points, _MOST_FFT_POINTS)
        at_most("n_mels x n_fft", self.n_mels * self.fft_points, _MOST_FILTER_VALUES)
        at_most("delta_width", self.delta_width, 1_001)
        require(
            0 <= self.n_mfcc <= self.n_mels,
            "n_mfcc",
            f"at most n_mels, {self.n_mels}, or 0 for log-mel energies",
        )
        nyquist = self.sample_rate / 2
        require(0 <= self.f_min < nyquist, "f_min", f"0 Hz or more and less than {nyquist:g} Hz")
        require(
            self.f_max is None or self.f_min < self.f_max <= nyquist,
            "f_max",
            f"more than f_min, {self.f_min:g} Hz, and at most half of sample_rate, {nyquist:g} Hz, or null",
        )
        require(self.mel_scale in ("htk", "slaney"), "mel_scale", "htk or slaney")
        require(self.mel_norm in (None, "slaney"), "mel_norm", "slaney or null")
        require(0 < self.log_offset < math.inf, "log_offset", "a number above 0, such as 1e-6")
        require(self.deltas in (0, 1, 2), "deltas", "0, 1 or 2")
        require(
            self.delta_width >= 3 and self.delta_width % 2 == 1, "delta_width", "an odd number of 3 or more"
        )
        require(self.padding in ("none", "causal", "center"), "padding", "none, causal or center")

    @property
    def window_samples(self) -> int:
        """Samples in a frame."""
        return round(self.window_ms * self.sample_rate / 1000)

    @property
    def hop_samples(self) -> int:
        """Samples between the starts of consecutive frames."""
        return round(self.hop_ms * self.sample_rate / 1000)

    @property
    def fft_points(self) -> int:
        """Points of the Fourier transform."""
        return self.n_fft or 1 << (self.window_samples - 1).bit_length()

    @property
    def n_features(self) -> int:
        """Features per frame: coefficients (or mel bands) and their deltas."""
        return (self.n_mfcc or self.n_mels) * (1 + self.deltas)

    def zeros_around(self, n_samples: int) -> tuple[int, int]:
        """Return how many zeros go in front of a clip and behind it.

        Args:
            n_samples: length of the clip. A short one is filled up to a window at its end.
        """
        before = after = 0
        if self.padding == "center":
            before = after = self.window_samples // 2
        elif self.padding == "causal":
            before = self.window_samples - self.hop_samples
        return before, max(after, self.window_samples - before - n_samples)

    @property
    def latency_ms(self) -> float:
        """Time from the start of a frame's hop until its features can be known, in milliseconds.

        A window less the zeros in front of the clip, and the frames that the deltas look ahead.
        """
        frame = self.window_samples - self.zeros_around(self.window_samples)[0]
        lookahead = self.deltas * (self.delta_width // 2) * self.hop_samples
        return 1000.0 * (frame + lookahead) / self.sample_rate

    def n_frames(self, n_samples: int) -> int:
        """Return how many frames a clip has.

        Args:
            n_samples: length of the clip. One that is shorter than a window gives a single frame.
        """
        if n_samples == 0:
            return 0
        padded = sum(self.zeros_around(n_samples)) + n_samples
        return 1 + (padded - self.window_samples) // self.hop_samples


def mel_filterbank(settings: MFCCSettings) -> Tensor:
    """Return the triangular mel bands.

    Args:
        settings: of which the sampling rate, the transform's length and the bands matter.

    Returns:
        ``(fft_points // 2 + 1, n_mels)`` float32 weights of the power spectrum.

    Raises:
        UserError: a band lies between two points of the spectrum and would always be empty.
    """
    f_max = settings.sample_rate / 2 if settings.f_max is None else settings.f_max
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchaudio warns of empty bands, which are an error here
        bank: Tensor = melscale_fbanks(
            settings.fft_points // 2 + 1,
            float(settings.f_min),
            float(f_max),
            settings.n_mels,
            settings.sample_rate,
            norm=settings.mel_norm,
            mel_scale=settings.mel_scale,
        )
    empty = int((bank.amax(0) == 0).sum())
    if empty:
        raise UserError(
            f"n_mels: {empty} of {settings.n_mels} bands fall between the points of a spectrum of "
            f"{settings.fft_points} points: give fewer bands, a larger n_fft or a wider range f_min to f_max"
        )
    return bank


def _extend(frames: Tensor, before: int, after: int) -> Tensor:
    """Repeat the first and the last frame of ``(..., T, F)``."""
    first = frames[..., :1, :].expand(*frames.shape[:-2], before, frames.shape[-1])
    last = frames[..., -1:, :].expand(*frames.shape[:-2], after, frames.shape[-1])
    return torch.cat((first, frames, last), dim=-2)


def _slopes(extended: Tensor, reach: int) -> Tensor:
    """Fit a line to ``2 * reach + 1`` consecutive frames and return its slope (HTK Book, equation 5.16).

    Args:
        extended: ``(..., T + 2 * reach, F)``.
        reach: frames on either side of the one whose slope is wanted.

    Returns:
        ``(..., T, F)``. A sum in fixed order of whole frames: rounding doesn't depend on T.
    """
    n_frames = extended.shape[-2] - 2 * reach
    total = torch.zeros_like(extended[..., :n_frames, :])
    for k in range(1, reach + 1):
        later = extended[..., reach + k : reach + k + n_frames, :]
        earlier = extended[..., reach - k : reach - k + n_frames, :]
        total = total + k * (later - earlier)
    return total / (2 * sum(k * k for k in range(1, reach + 1)))


class MFCC(nn.Module):
    """Waveforms to normalised MFCC or log-mel frames, batched, on the waveforms' device.

    A frame depends on its own samples (and, with deltas, on its neighbouring frames) and on the statistics.
    Whether its clip comes alone, in a batch or in pieces to :meth:`stream` doesn't matter: on the CPU the
    results agree to the bit, on other devices as far as the library's matrix product rounds alike for
    different batch sizes. At both ends of a clip the deltas see its first and last frame repeated.

    The statistics ``mean`` and ``std``, ``(F,)`` float32, and ``n_frames``, the number of frames that they
    were computed from, are buffers and so part of the ``state_dict``.

    Args:
        settings: what to compute; the defaults where None.

    Example:
        >>> mfcc = MFCC(MFCCSettings(n_mfcc=13, normalize=False))
        >>> mfcc(torch.zeros(2, 16000)).shape
        torch.Size([2, 49, 13])
    """

    mean: Tensor
    std: Tensor
    n_frames: Tensor
    _window: Tensor
    _bands: Tensor
    _dct: Tensor

    def __init__(self, settings: MFCCSettings | None = None) -> None:
        super().__init__()
        self.settings = settings = settings or MFCCSettings()
        excess = settings.fft_points - settings.window_samples
        window = pad(torch.hann_window(settings.window_samples), (0, excess))
        # Real and imaginary parts alternate: squared, they go through the product with the bands as they are.
        bands = mel_filterbank(settings).repeat_interleave(2, dim=0)
        dct = create_dct(settings.n_mfcc or 1, settings.n_mels, "ortho")
        self.register_buffer("_window", window, persistent=False)
        self.register_buffer("_bands", bands, persistent=False)
        self.register_buffer("_dct", dct, persistent=False)
        self.register_buffer("mean", torch.zeros(settings.n_features))
        self.register_buffer("std", torch.ones(settings.n_features))
        self.register_buffer("n_frames", torch.zeros((), dtype=torch.int64))
        self._fitted = False

    @property
    def n_features(self) -> int:
        """Features per frame, F."""
        return self.settings.n_features

    @property
    def fitted(self) -> bool:
        """Whether the statistics were computed or loaded."""
        if not self._fitted:
            self._fitted = int(self.n_frames) > 0
        return self._fitted

    def forward(self, waveforms: Tensor) -> Tensor:
        """Compute the features of whole clips.

        Args:
            waveforms: ``(N, S)`` or ``(S,)`` floating-point samples in [-1, 1].

        Returns:
            ``(N, T, F)`` or ``(T, F)`` float32, where T is ``settings.n_frames(S)``.

        Raises:
            RuntimeError: normalisation is on, but there are no statistics yet.
        """
        if waveforms.dim() > 1 and len(waveforms) > _CLIPS_AT_ONCE and waveforms.device.type == "cpu":
            starts = range(0, len(waveforms), _CLIPS_AT_ONCE)
            return torch.cat([self(waveforms[k : k + _CLIPS_AT_ONCE]) for k in starts])
        return self._normalize(self._with_deltas(self._static(self._pad(waveforms))))

    def stream(self) -> "MFCCStream":
        """Return a new, empty stream, which computes the same features from pieces of a recording."""
        return MFCCStream(self)

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
            features = self._with_deltas(self._static(self._pad(waveforms.to(self.mean.device))))
            frames = features.reshape(-1, self.n_features).cpu().double()
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
        self.n_frames.fill_(count)

    def extra_repr(self) -> str:
        """Return the settings, for ``print(module)``."""
        return repr(self.settings)

    def _pad(self, waveforms: Tensor) -> Tensor:
        n_samples = waveforms.shape[-1]
        return pad(waveforms, self.settings.zeros_around(n_samples)) if n_samples else waveforms

    def _static(self, samples: Tensor) -> Tensor:
        """Return the un-normalised features ``(..., T, F)`` of the full frames in ``(..., S)`` samples."""
        if not samples.is_floating_point():
            raise TypeError(f"waveforms must be floating-point samples in [-1, 1], not {samples.dtype}")
        settings = self.settings
        shape = samples.shape[:-1]
        n_frames = max(0, 1 + (samples.shape[-1] - settings.window_samples) // settings.hop_samples)
        if not n_frames or not shape.numel():
            width = settings.n_mfcc or settings.n_mels
            return samples.new_zeros((*shape, n_frames, width), dtype=torch.float32)
        end = (n_frames - 1) * settings.hop_samples + settings.fft_points
        with torch.autocast(samples.device.type, enabled=False):
            samples = pad(samples.float(), (0, end - samples.shape[-1]))  # adds or cuts
            frames = samples.unfold(-1, settings.fft_points, settings.hop_samples) * self._window
            spectrum = torch.view_as_real(torch.fft.rfft(frames)).flatten(-2).reshape(-1, len(self._bands))
            in_place = None if spectrum.requires_grad else spectrum  # saves a pass through memory
            power = torch.mul(spectrum, spectrum, out=in_place)
            if len(power) == 1:
                # A single row would take the matrix-vector routine, which rounds differently.
                power = power.expand(2, -1)
            features = (power @ self._bands + settings.log_offset).log()
            if settings.n_mfcc:
                features = features @ self._dct
        return features[: shape.numel() * n_frames].reshape(*shape, n_frames, -1)

    def _with_deltas(self, static: Tensor) -> Tensor:
        reach = self.settings.delta_width // 2
        orders = [static]
        for _ in range(self.settings.deltas):
            orders.append(_slopes(_extend(orders[-1], reach, reach), reach) if static.shape[-2] else static)
        return torch.cat(orders, dim=-1) if len(orders) > 1 else static

    def _normalize(self, features: Tensor) -> Tensor:
        if not self.settings.normalize:
            return features
        if not self.fitted:
            raise RuntimeError("normalisation needs statistics: call fit_statistics or load a state_dict")
        return (features - self.mean) / self.std


class _SlopeStage:
    """The slopes of frames that arrive in pieces."""

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self._frames: Tensor | None = None

    def push(self, frames: Tensor, last: bool) -> Tensor:
        """Take ``(..., T, F)`` new frames and return the slopes of all frames that are now decided."""
        if self._frames is None:
            if not frames.shape[-2]:
                return frames
            self._frames = _extend(frames, self._reach, 0)
        else:
            self._frames = torch.cat((self._frames, frames), dim=-2)
        if last:
            self._frames = _extend(self._frames, 0, self._reach)
        if self._frames.shape[-2] <= 2 * self._reach:
            return frames[..., :0, :]
        slopes = _slopes(self._frames, self._reach)
        self._frames = self._frames[..., slopes.shape[-2] :, :]
        return slopes


class MFCCStream:
    """The features of one recording, or of several in step, that arrives in pieces of any lengths.

    A frame comes out as soon as it is decided: when its window is full and, with deltas, ``delta_width // 2``
    further frames are there for each order (:attr:`MFCCSettings.latency_ms`). :meth:`flush` gives the rest.
    The concatenated frames are those of the whole recording.

    Args:
        mfcc: the module whose settings and statistics are used.
    """

    def __init__(self, mfcc: MFCC) -> None:
        self._mfcc = mfcc
        self._reset()

    def _reset(self) -> None:
        settings = self._mfcc.settings
        self._samples: Tensor | None = None
        self._n_samples = 0
        self._stages = [_SlopeStage(settings.delta_width // 2) for _ in range(settings.deltas)]
        self._waiting: list[Tensor | None] = [None] * (1 + settings.deltas)

    def push(self, chunk: Tensor) -> Tensor:
        """Take the next samples and return the frames that they decide.

        Args:
            chunk: ``(S,)`` or ``(N, S)`` samples in [-1, 1]; N is the same at every call, S any, also 0.

        Returns:
            ``(T, F)`` or ``(N, T, F)`` float32, where T may be 0.
        """
        before, _ = self._mfcc.settings.zeros_around(chunk.shape[-1])
        self._n_samples += chunk.shape[-1]
        if self._samples is None:
            self._samples = pad(chunk, (before, 0))
        else:
            self._samples = torch.cat((self._samples, chunk), dim=-1)
        return self._advance(last=False)

    def flush(self) -> Tensor:
        """End the recording, return the remaining frames and make the stream ready for another recording.

        Returns:
            ``(T, F)`` or ``(N, T, F)`` float32, where T may be 0.
        """
        if self._samples is None:
            return self._mfcc.mean.new_zeros(0, self._mfcc.n_features)
        if self._n_samples:
            _, after = self._mfcc.settings.zeros_around(self._n_samples)
            self._samples = pad(self._samples, (0, after))
        frames = self._advance(last=True)
        self._reset()
        return frames

    def _advance(self, last: bool) -> Tensor:
        assert self._samples is not None
        static = self._mfcc._static(self._samples if self._n_samples else self._samples[..., :0])
        self._samples = self._samples[..., static.shape[-2] * self._mfcc.settings.hop_samples :]
        orders = [static]
        for stage in self._stages:
            orders.append(stage.push(orders[-1], last))
        for i, frames in enumerate(orders):
            held = self._waiting[i]
            self._waiting[i] = orders[i] = frames if held is None else torch.cat((held, frames), dim=-2)
        decided = min(frames.shape[-2] for frames in orders)  # each order lags behind the one before
        self._waiting = [frames[..., decided:, :] for frames in orders]
        features = torch.cat([frames[..., :decided, :] for frames in orders], dim=-1)
        return self._mfcc._normalize(features)
