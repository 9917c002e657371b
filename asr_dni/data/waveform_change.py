"""Known changes to clips: speed, shift, gain and background; torch's operations define them, C code does them."""

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from asr_dni.compiled import COMPILE_FLAGS, CompiledLibrary
from asr_dni.data.audio import FULL_SCALE

_SOURCE = Path(__file__).with_name("waveform_change.c")
COMPILED = CompiledLibrary(
    _SOURCE,
    [_SOURCE.parent.with_name("vectors.h")],
    without="clips are augmented by torch's slower operations",
    flags=(*COMPILE_FLAGS, "-ffp-contract=off"),
)

_CLIPS_AT_ONCE = 8
"""On a CPU torch resamples larger batches in parts, whose grids stay in its cache."""


class _Arguments(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ["waveforms", "background", "shift", "speed", "gain", "start", "level"]
        ),
        *((name, ctypes.c_void_p) for name in ["changed", "scratch"]),
        *((name, ctypes.c_int64) for name in ["clips", "length"]),
        *((name, ctypes.c_int32) for name in ["integers", "by_power", "threads"]),
    )


@dataclass(frozen=True)
class Background:
    """What is mixed into clips.

    Attributes:
        recordings: ``(L,)`` float samples, at least as many as a clip has.
        start: ``(N,)`` where in them the part for a clip begins.
        level: ``(N,)`` factors of these parts or, ``by_power``, the ratios of a clip's power to its part's; 0: none.
        by_power: which. A clip or a part without any sound is then left as it is.
    """

    recordings: Tensor
    start: Tensor
    level: Tensor
    by_power: bool

    def mixed(self, waveforms: Tensor) -> Tensor:
        """Return ``(N, S)`` clips with their backgrounds."""
        part = self.recordings.unfold(0, waveforms.shape[1], 1).index_select(0, self.start)
        volume = self.level[:, None]
        if self.by_power:
            wanted, power = _power(waveforms) / volume, _power(part)
            volume = torch.where((power > 0) & (volume > 0), (wanted / power).sqrt(), 0.0)
        return torch.addcmul(waveforms, part, volume)


@dataclass(frozen=True)
class WaveformChange:
    """What happens to the N clips of a batch, in the order of the attributes; then samples are limited to [-1, 1].

    Attributes:
        shift: ``(N,)`` int64 samples to the right; zeros come in.
        max_shift: the largest of them, to either side, that there may be.
        speed: ``(N,)`` factors by which clips are played faster about their middles, or None. It is there that the
            shift is counted in samples of what comes out.
        gain: ``(N,)`` factors, or None.
        background: what is mixed in, or None.
    """

    shift: Tensor
    max_shift: int
    speed: Tensor | None
    gain: Tensor | None
    background: Background | None

    def apply(self, waveforms: Tensor) -> Tensor:
        """Return the changed clips, the same alone, in any batch and for any number of threads.

        Args:
            waveforms: ``(N, S)`` int16 or floating-point.

        Returns:
            ``(N, S)`` floating-point, in memory of its own.
        """
        if self._compiles(waveforms):
            return self._compiled(waveforms)
        if waveforms.dtype == torch.int16:
            waveforms = waveforms.float() / FULL_SCALE
        n_clips, n_samples = waveforms.shape
        changed = waveforms
        if self.speed is not None:
            changed = _resampled(changed, self.speed, self.shift)
        elif self.max_shift:
            # Rows of a view with one row per possible shift: a copy per clip rather than an index per sample.
            shifted = pad(changed, (self.max_shift, self.max_shift)).unfold(1, n_samples, 1)
            changed = shifted[torch.arange(n_clips, device=changed.device), self.max_shift - self.shift]
        if self.gain is not None:
            changed = changed * self.gain[:, None]
        if self.background is not None:
            changed = self.background.mixed(changed)
        return changed.clamp(-1.0, 1.0)

    def _compiles(self, waveforms: Tensor) -> bool:
        single = waveforms.dtype in (torch.float32, torch.int16) and waveforms.device.type == "cpu"
        background = torch.float32 if self.background is None else self.background.recordings.dtype
        # A clip of one sample has no length, which speed refers to.
        sizes = waveforms.numel() > 0 and waveforms.shape[1] > 1
        return single and background == torch.float32 and sizes and COMPILED.library() is not None

    def _compiled(self, waveforms: Tensor) -> Tensor:
        library = COMPILED.library()
        assert library is not None
        n_clips, n_samples = waveforms.shape
        threads = torch.get_num_threads()
        changed = torch.empty(n_clips, n_samples, dtype=torch.float32)
        library.scratch_size.restype = ctypes.c_int64
        size = library.scratch_size(ctypes.c_int64(n_samples))
        tensors = {
            "waveforms": waveforms,
            "shift": self.shift,
            "changed": changed,
            "scratch": torch.empty(threads * size, dtype=torch.float32),
        }
        if self.speed is not None:
            tensors["speed"] = self.speed / ((n_samples - 1) / 2)
        if self.gain is not None:
            tensors["gain"] = self.gain
        if self.background is not None:
            tensors["background"] = self.background.recordings
            tensors["start"] = self.background.start
            tensors["level"] = self.background.level
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        arguments = _Arguments(
            clips=n_clips,
            length=n_samples,
            integers=waveforms.dtype == torch.int16,
            by_power=self.background is not None and self.background.by_power,
            threads=threads,
            **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        )
        library.change_waveforms(ctypes.byref(arguments))
        return changed


def _power(waveforms: Tensor) -> Tensor:
    return waveforms.square().mean(dim=1, keepdim=True)


def _resampled(waveforms: Tensor, speed: Tensor, shift: Tensor) -> Tensor:
    """Play each clip at its speed about its middle, shifted, by cubic interpolation (36 dB on speech)."""
    if waveforms.device.type == "cpu" and len(waveforms) > _CLIPS_AT_ONCE:
        parts = [slice(k, k + _CLIPS_AT_ONCE) for k in range(0, len(waveforms), _CLIPS_AT_ONCE)]
        return torch.cat([_resampled(waveforms[k], speed[k], shift[k]) for k in parts])
    n_samples = waveforms.shape[1]
    middle = (n_samples - 1) / 2
    output = torch.arange(n_samples, device=waveforms.device, dtype=waveforms.dtype) - middle
    # grid_sample wants input positions from -1, the first sample, to 1, the last; zeros lie beyond.
    positions = (output - shift[:, None]) * (speed[:, None] / middle)
    grid = torch.stack((positions, torch.zeros_like(positions)), dim=-1)[:, None]
    resampled = grid_sample(
        waveforms[:, None, None], grid, mode="bicubic", padding_mode="zeros", align_corners=True
    )
    return resampled[:, 0, 0]
