"""Logarithms of mel-band energies, the same alone, in any batch and in a stream.

The logarithm is ``log(energy + log_offset)``. A floor relative to the loudest frame (librosa's ``top_db``,
torchaudio's ``AmplitudeToDB``) would make a frame depend on the rest of its clip, or of its batch.
"""

import math
import warnings
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.functional import melscale_fbanks

from asr_dni.bounds import at_most
from asr_dni.errors import UserError
from asr_dni.features.band_energies import BandEnergies
from asr_dni.features.deltas import DeltaStream, append_deltas
from asr_dni.features.front_end import FeatureStream, FrontEnd

_CLIPS_AT_ONCE = 16
"""On a CPU larger batches are done in parts, whose frames and spectra stay in its cache: twice as fast."""

_MOST_BANDS = 4_096
_MOST_FFT_POINTS = 2**20
_MOST_FILTER_VALUES = 2**26


class LogMel(FrontEnd):
    """Log-mel energies: power spectrum of Hann-windowed frames, triangular mel bands, logarithm.

    A frame depends on its own samples and, with deltas, on its neighbouring frames. Whether its clip comes alone, in a
    batch or in pieces to :meth:`stream` doesn't matter: on the CPU the results agree to the bit, on other devices as
    far as the library's matrix product rounds alike for different batch sizes. At both ends of a clip the deltas see
    its first and last frame repeated.

    Args:
        sample_rate: in Hz; what recordings are resampled to.
        window_ms: length of a frame in milliseconds; it is Hann-windowed.
        hop_ms: distance between the starts of consecutive frames in milliseconds, at most ``window_ms``.
        n_fft: points of the Fourier transform; null for the smallest power of two that holds a window.
        n_mels: mel bands.
        f_min: lower edge of the lowest band in Hz.
        f_max: upper edge of the highest band in Hz; null for half the sampling rate.
        mel_scale: formula of the mel scale, ``htk`` or ``slaney``.
        mel_norm: ``slaney`` for bands of unit area, null for bands of unit height.
        log_offset: added to the band energies before the logarithm; samples lie in [-1, 1].
        deltas: 0 for none, 1 to append the features' slopes in time, 2 to append the slopes' slopes as well.
        delta_width: frames that a slope is fitted to, odd; a stream is later by half of them for each order.
        padding: zeros around a clip. ``none``: frames start at multiples of the hop and a last one that would
            not be full is dropped. ``causal``: a window less a hop of zeros in front, so that frame t ends
            with the hop t. ``center``: half a window on either side, so that frame t is centred on t hops.

    Raises:
        UserError: a value out of range; the line names the key.

    Example:
        >>> LogMel(n_mels=32)(torch.zeros(2, 16000)).shape
        torch.Size([2, 49, 32])
    """

    _window: Tensor
    _bands: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        window_ms: float = 30.0,
        hop_ms: float = 20.0,
        n_fft: int | None = None,
        n_mels: int = 40,
        f_min: float = 20.0,
        f_max: float | None = None,
        mel_scale: Literal["htk", "slaney"] = "htk",
        mel_norm: Literal["slaney"] | None = None,
        log_offset: float = 1e-6,
        deltas: Literal[0, 1, 2] = 0,
        delta_width: int = 5,
        padding: Literal["none", "causal", "center"] = "none",
    ) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.window_ms = window_ms
        self.hop_ms = hop_ms
        self.n_fft = n_fft
        self.n_mels = n_mels
        self.f_min = f_min
        self.f_max = f_max
        self.mel_scale = mel_scale
        self.mel_norm = mel_norm
        self.log_offset = log_offset
        self.deltas = deltas
        self.delta_width = delta_width
        self.padding = padding
        self._check()
        excess = self.fft_points - self.window_samples
        window = pad(torch.hann_window(self.window_samples), (0, excess))
        # Real and imaginary parts alternate: squared, they go through the product with the bands as they are.
        bands = mel_filterbank(self)
        self.register_buffer("_window", window, persistent=False)
        self.register_buffer("_bands", bands.repeat_interleave(2, dim=0), persistent=False)
        self._compiled = BandEnergies(window[: self.window_samples], bands, self.fft_points, self.hop_samples)

    def _require(self, valid: bool, key: str, expected: str) -> None:
        if not valid:
            raise UserError(f"{key}: {getattr(self, key)!r} is not valid: give {expected}")

    def _check(self) -> None:
        require = self._require
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
        """Features per frame, F: bands (or coefficients) and their deltas."""
        return self.n_bands * (1 + self.deltas)

    @property
    def n_bands(self) -> int:
        """Features per frame without their deltas, which SpecAugment masks with them."""
        return self.n_mels

    @property
    def min_samples(self) -> int:
        """Samples of a window."""
        return self.window_samples

    @property
    def latency_ms(self) -> float:
        """Time from the start of a frame's hop until its features can be known, in milliseconds.

        A window less the zeros in front of the clip, and the frames that the deltas look ahead.
        """
        frame = self.window_samples - self.zeros_around(self.window_samples)[0]
        lookahead = self.deltas * (self.delta_width // 2) * self.hop_samples
        return 1000.0 * (frame + lookahead) / self.sample_rate

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

    def n_frames(self, n_samples: int) -> int:
        """Return how many frames a clip has.

        Args:
            n_samples: length of the clip. One that is shorter than a window gives a single frame.
        """
        if n_samples == 0:
            return 0
        padded = sum(self.zeros_around(n_samples)) + n_samples
        return 1 + (padded - self.window_samples) // self.hop_samples

    def forward(self, waveforms: Tensor) -> Tensor:
        """Compute the features of whole clips.

        Args:
            waveforms: ``(N, S)`` or ``(S,)`` floating-point samples in [-1, 1].

        Returns:
            ``(N, T, F)`` or ``(T, F)`` float32, where T is ``n_frames(S)``.
        """
        return self._whole(waveforms)

    @property
    def n_mel_bands(self) -> int:
        """Mel bands, see :meth:`with_masked_bands`."""
        return self.n_mels

    def with_masked_bands(self, waveforms: Tensor, masked: Tensor, mean: Tensor) -> Tensor:
        """Compute the features of clips some of whose mel bands are at their mean, see the base class."""
        return self._whole(waveforms, masked, self._mean_of_bands(mean[: self.n_bands]))

    def _whole(self, waveforms: Tensor, masked: Tensor | None = None, fill: Tensor | None = None) -> Tensor:
        """Return the features of whole clips, of which some bands, ``(N, n_mels)``, are filled with ``(n_mels,)``."""
        n_samples = waveforms.shape[-1]
        if waveforms.dim() > 1 and len(waveforms) > _CLIPS_AT_ONCE and waveforms.device.type == "cpu":
            parts = torch.split(waveforms, _CLIPS_AT_ONCE)
            masks = [None] * len(parts) if masked is None else torch.split(masked, _CLIPS_AT_ONCE)
            return torch.cat([self._whole(part, its, fill) for part, its in zip(parts, masks, strict=True)])
        zeros = self.zeros_around(n_samples) if n_samples else (0, 0)
        static = self._static(waveforms, *zeros, masked, fill)
        return append_deltas(static, self.deltas, self.delta_width // 2)

    def stream(self) -> "LogMelStream":
        """Return a new, empty stream, which computes the same features from pieces of a recording."""
        return LogMelStream(self)

    def static(self, samples: Tensor) -> Tensor:
        """Return the features of the full frames in samples, without zeros around them and without deltas.

        Args:
            samples: ``(..., S)`` floating-point.

        Returns:
            ``(..., T, n_bands)`` float32.
        """
        return self._static(samples, 0, 0)

    def _static(
        self,
        samples: Tensor,
        before: int,
        after: int,
        masked: Tensor | None = None,
        fill: Tensor | None = None,
    ) -> Tensor:
        """Return the features of the full frames in samples with so many zeros around them, see :meth:`_whole`."""
        if not samples.is_floating_point():
            raise TypeError(f"waveforms must be floating-point samples in [-1, 1], not {samples.dtype}")
        *shape, n_samples = samples.shape
        n_frames = max(0, 1 + (before + n_samples + after - self.window_samples) // self.hop_samples)
        n_rows = math.prod(shape) * n_frames
        if not n_rows:
            return samples.new_zeros((*shape, n_frames, self.n_bands), dtype=torch.float32)
        with torch.autocast(samples.device.type, enabled=False):
            if self._compiled.runs(samples):
                energies = self._compiled(samples.reshape(-1, n_samples), before, n_frames)
            else:
                energies = self._energies(samples, before, n_frames)
            if n_rows == 1:
                # A single row would take the matrix-vector routine, which rounds differently.
                energies = energies[:1].expand(2, -1)
            bands = (energies + self.log_offset).log()
            if masked is not None and fill is not None:
                bands = torch.where(masked.repeat_interleave(n_frames, 0), fill.to(bands), bands)
            features = self._of_bands(bands)
        return features[:n_rows].reshape(*shape, n_frames, -1)

    def _energies(self, samples: Tensor, before: int, n_frames: int) -> Tensor:
        """Return ``(n, n_mels)`` band energies of all frames, by torch's operations; n at least 2."""
        end = (n_frames - 1) * self.hop_samples + self.fft_points
        samples = pad(samples.float(), (before, end - before - samples.shape[-1]))  # adds or cuts
        frames = samples.unfold(-1, self.fft_points, self.hop_samples) * self._window
        spectrum = torch.view_as_real(torch.fft.rfft(frames)).flatten(-2).reshape(-1, len(self._bands))
        in_place = None if spectrum.requires_grad else spectrum  # saves a pass through memory
        power = torch.mul(spectrum, spectrum, out=in_place)
        if len(power) == 1:
            power = power.expand(2, -1)
        return power @ self._bands

    def _of_bands(self, bands: Tensor) -> Tensor:
        """Return ``(n, n_bands)`` features of ``(n, n_mels)`` logarithms of energies, n at least 2."""
        return bands

    def _mean_of_bands(self, mean: Tensor) -> Tensor:
        """Return ``(n_mels,)`` logarithms of energies whose features are these, ``(n_bands,)``."""
        return mean


def mel_filterbank(settings: LogMel) -> Tensor:
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


class LogMelStream(FeatureStream):
    """The features of a recording that arrives in pieces.

    A frame comes out as soon as it is decided: when its window is full and, with deltas, ``delta_width // 2``
    further frames are there for each order (:attr:`LogMel.latency_ms`). :meth:`flush` gives the rest.

    Args:
        front_end: what computes them.
    """

    def __init__(self, front_end: LogMel) -> None:
        self._front_end = front_end
        self._reset()

    def _reset(self) -> None:
        self._samples: Tensor | None = None
        self._n_samples = 0
        self._deltas = DeltaStream(self._front_end.deltas, self._front_end.delta_width // 2)

    def push(self, chunk: Tensor) -> Tensor:
        """Take the next samples and return the frames that they decide, see :meth:`FeatureStream.push`."""
        before, _ = self._front_end.zeros_around(chunk.shape[-1])
        self._n_samples += chunk.shape[-1]
        if self._samples is None:
            self._samples = pad(chunk, (before, 0))
        else:
            self._samples = torch.cat((self._samples, chunk), dim=-1)
        return self._advance(last=False)

    def flush(self) -> Tensor:
        """End the recording and return the remaining frames, see :meth:`FeatureStream.flush`."""
        if self._samples is None:
            return self._front_end._window.new_zeros(0, self._front_end.n_features)
        if self._n_samples:
            _, after = self._front_end.zeros_around(self._n_samples)
            self._samples = pad(self._samples, (0, after))
        frames = self._advance(last=True)
        self._reset()
        return frames

    def _advance(self, last: bool) -> Tensor:
        assert self._samples is not None
        static = self._front_end.static(self._samples if self._n_samples else self._samples[..., :0])
        self._samples = self._samples[..., static.shape[-2] * self._front_end.hop_samples :]
        return self._deltas.push(static, last)
