"""Clips of recordings, as a network expects them: from waveforms of any form, and from files, a few of them ahead."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from asr_dni.data.audio import LOUDEST, Samples
from asr_dni.errors import UserError

_INTEGERS_PER_UNIT = {"int16": 2**15, "int32": 2**31}

_SHORTEST_HOP = 0.01

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def as_samples(waveform: ArrayLike | Tensor) -> Samples:
    """Return a waveform as ``(S, channels)``, int16 or float32 in [-1, 1].

    Args:
        waveform: see :meth:`Spotter.predict`.

    Raises:
        UserError: it has another shape or type, no samples, or samples that are not finite or far beyond [-1, 1].
    """
    if isinstance(waveform, Tensor):
        waveform = waveform.detach().cpu()
        waveform = (waveform.float() if waveform.is_floating_point() else waveform).numpy()
    samples = np.asarray(waveform)
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2 or (samples.shape[0] == samples.shape[1] > 1):
        raise UserError(
            f"the waveform is {samples.shape}: give (S,), (channels, S) or (S, channels), more samples than channels"
        )
    if samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if not samples.size:
        raise UserError("the waveform has no samples")
    if samples.dtype == np.int16:
        return samples
    scale = _INTEGERS_PER_UNIT.get(samples.dtype.name)
    if scale is None and samples.dtype.kind != "f":
        raise UserError(
            f"the waveform is of {samples.dtype}: give floating-point samples in [-1, 1], int16 or int32"
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        scaled: NDArray[np.float32] = (samples / scale if scale else samples).astype(np.float32)
    if not np.isfinite(scaled).all():
        raise UserError("the waveform has samples that are not finite numbers")
    loudest = float(np.abs(scaled).max())
    if loudest > LOUDEST:
        raise UserError(
            f"the waveform reaches {loudest:g}: give floating-point samples in [-1, 1], or 16-bit samples as int16"
        )
    return scaled


@dataclass(frozen=True)
class Piece:
    """A clip of a recording.

    Attributes:
        samples: at most as many as a clip has.
        start: the sample of the recording that it begins with.
        seconds: length of the whole recording.
        name: what its noise belongs to; ``None``: to the samples.
    """

    samples: NDArray[np.int16]
    start: int
    seconds: float
    name: str | None


def cut(
    samples: NDArray[np.int16], seconds: float, length: int, hop: int | None, name: str | None
) -> list[Piece]:
    """Return the clips of a recording: where one begins there is another after each hop, until all was heard.

    Args:
        samples: ``(S,)`` at the rate that the network expects.
        seconds: length of the recording.
        length: samples of a clip.
        hop: samples from the beginning of a clip to that of the next, at most ``length``; ``None``: only the first.
        name: of the recording.
    """
    if hop is None:
        return [
            Piece(samples[:length].copy(), 0, seconds, name)
        ]  # a copy: the rest of a long recording is let go
    starts = range(0, max(0, len(samples) - length) + hop, hop)
    return [
        Piece(
            samples[start : start + length],
            start,
            seconds,
            name if name is None or not start else f"{name}@{start}",
        )
        for start in starts
    ]


def check_hop(hop_seconds: float, clip_seconds: float, name: str = "hop_seconds") -> None:
    """Check the time from one clip to the next.

    Args:
        hop_seconds: that time.
        clip_seconds: length of a clip.
        name: what a message calls the setting.

    Raises:
        UserError: it is too short, or would leave out something between two clips.
    """
    if not _SHORTEST_HOP <= hop_seconds <= clip_seconds:
        raise UserError(
            f"{name} is {hop_seconds}: give {_SHORTEST_HOP:g} to {clip_seconds:g} (a clip's length)"
        )


def name_of(values: NDArray[Any]) -> str:
    """Return a name for what has none."""
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).hexdigest()


def ahead(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Call a function on items in threads, a few ahead of what is asked for; results come in the items' order."""
    threads = min(8, os.cpu_count() or 1)
    waiting: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
