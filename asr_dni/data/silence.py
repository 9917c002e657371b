"""Clips of the silence class, which are made from background recordings."""

from torch import Tensor

from asr_dni.philox import Key, uniform


def silence(background: Tensor, clip_ids: Tensor, key: Key, n_samples: int) -> Tensor:
    """Make clips of the silence class: a piece of background at a volume between 0 and 1, as published.

    Args:
        background: ``(L,)`` float32, L at least ``n_samples``.
        clip_ids: ``(n,)`` int64.
        key: of the random numbers.
        n_samples: samples per clip.

    Returns:
        ``(n, n_samples)`` float32.
    """
    place, volume = uniform(key, clip_ids, 2).unbind(-1)
    pieces = background.unfold(0, n_samples, 1)
    starts = (place.double() * len(pieces)).long().clamp_(max=len(pieces) - 1)
    return pieces[starts] * volume[:, None]
