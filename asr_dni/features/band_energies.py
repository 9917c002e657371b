"""Energies of bands in the frames of recordings, compiled: ``band_energies.c`` and what it is given."""

import ctypes
import math
from pathlib import Path

import torch
from torch import Tensor

from asr_dni.compiled import CompiledLibrary

_SOURCE = Path(__file__).with_name("band_energies.c")
COMPILED = CompiledLibrary(
    _SOURCE,
    [_SOURCE.parent.with_name("vectors.h")],
    without="features are computed by torch's slower operations",
)
_RADICES = 4, 5, 3, 2
_MOST_POINTS = 2**14


class _Arguments(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ["samples", "window", "twiddles", "radices", "spans", "weights"]
        ),
        *((name, ctypes.c_void_p) for name in ["energies", "scratch"]),
        *(
            (name, ctypes.c_int64)
            for name in ["clips", "length", "before", "frames", "hop", "window_samples"]
        ),
        *((name, ctypes.c_int64) for name in ["points", "n_radices", "n_bands"]),
        ("threads", ctypes.c_int32),
    )


class BandEnergies:
    """Windows frames, takes their power spectrum and sums it over bands: the plan of that.

    A frame's energies are the same to the bit whatever the others, their number and the number of threads.

    Args:
        window: ``(window_samples,)``.
        bands: ``(points // 2 + 1, n_bands)`` weights of the power spectrum.
        points: of the transform.
        hop: samples between the starts of frames.
    """

    def __init__(self, window: Tensor, bands: Tensor, points: int, hop: int) -> None:
        self._hop = hop
        self._points = points
        self._n_bands = bands.shape[1]
        self._window = window.float().contiguous()
        spans, weights = [], []
        for band in bands.t():
            within = band.nonzero()[:, 0]
            first = int(within[0]) if len(within) else 0
            last = int(within[-1]) + 1 if len(within) else 0
            spans.append((first, last - first))
            weights.append(band[first:last])
        self._spans = torch.tensor(spans, dtype=torch.int32)
        self._weights = torch.cat(weights).float()
        self._radices, self._twiddles = _plan(self._points)

    def runs(self, samples: Tensor) -> bool:
        """Whether samples are such as this is for: on the CPU, without gradients, and the code can be compiled."""
        return (
            samples.device.type == "cpu"
            and not (samples.requires_grad and torch.is_grad_enabled())
            and self._radices is not None
            and COMPILED.library() is not None
        )

    def __call__(self, samples: Tensor, before: int, n_frames: int) -> Tensor:
        """Compute energies.

        Args:
            samples: ``(N, S)`` floating-point, for which :meth:`runs`.
            before: zeros in front of each clip; behind it there are as many as the frames need.
            n_frames: frames of a clip, T.

        Returns:
            ``(N * T, n_bands)`` float32.
        """
        library = COMPILED.library()
        assert library is not None
        assert self._radices is not None
        samples = samples.detach().float().contiguous()
        energies = torch.empty(len(samples) * n_frames, self._n_bands, dtype=torch.float32)
        threads = torch.get_num_threads()
        library.scratch_size.restype = ctypes.c_int64
        size = library.scratch_size(ctypes.c_int64(self._points), ctypes.c_int64(len(self._window)))
        scratch = torch.empty(threads * size, dtype=torch.float32)
        tensors = {
            "samples": samples,
            "window": self._window,
            "twiddles": self._twiddles,
            "radices": self._radices,
            "spans": self._spans,
            "weights": self._weights,
            "energies": energies,
            "scratch": scratch,
        }
        arguments = _Arguments(
            clips=len(samples),
            length=samples.shape[1],
            before=before,
            frames=n_frames,
            hop=self._hop,
            window_samples=len(self._window),
            points=self._points,
            n_radices=len(self._radices),
            n_bands=self._n_bands,
            threads=threads,
            **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        )
        library.compute_band_energies(ctypes.byref(arguments))
        return energies


def _plan(points: int) -> tuple[Tensor | None, Tensor]:
    """Return the radices of a transform and all its factors of modulus 1; no radices where it needs others."""
    if points % 2 or not 2 <= points <= _MOST_POINTS:  # of longer ones several do not fit in a cache
        return None, torch.empty(0)
    radices, rest, angles = [], points // 2, []
    while rest > 1:
        radix = next((r for r in _RADICES if rest % r == 0), None)
        if radix is None:
            return None, torch.empty(0)
        length, rest = rest, rest // radix
        radices.append(radix)
        turns = torch.arange(rest, dtype=torch.float64)[:, None] * torch.arange(1, radix) / length
        angles.append(turns.flatten())
    angles.append(torch.arange(points // 4 + 1, dtype=torch.float64) / points)
    angle = -2 * math.pi * torch.cat(angles)
    return torch.tensor(radices, dtype=torch.int32), torch.stack((angle.cos(), angle.sin()), dim=-1).float()
