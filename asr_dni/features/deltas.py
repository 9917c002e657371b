"""Slopes of features in time, of whole clips and of frames that arrive in pieces."""

import torch
from torch import Tensor


def append_deltas(static: Tensor, orders: int, reach: int) -> Tensor:
    """Append the features' slopes in time, the slopes' slopes, and so on.

    At both ends the first and the last frame are taken to be repeated.

    Args:
        static: ``(..., T, F)``.
        orders: how many slopes are appended.
        reach: frames on either side that a slope is fitted to.

    Returns:
        ``(..., T, F * (1 + orders))``.
    """
    blocks = [static]
    for _ in range(orders):
        blocks.append(_slopes(_extend(blocks[-1], reach, reach), reach) if static.shape[-2] else static)
    return torch.cat(blocks, dim=-1) if len(blocks) > 1 else static


class DeltaStream:
    """Appends slopes to frames that arrive in pieces, as :func:`append_deltas` does to whole clips.

    Args:
        orders: how many slopes are appended.
        reach: frames on either side that a slope is fitted to; frames come out later by so many for each order.
    """

    def __init__(self, orders: int, reach: int) -> None:
        self._stages = [_SlopeStage(reach) for _ in range(orders)]
        self._waiting: list[Tensor | None] = [None] * (1 + orders)

    def push(self, static: Tensor, last: bool) -> Tensor:
        """Take ``(..., T, F)`` new frames; return those that are now decided, at the last call all.

        Returns:
            ``(..., T', F * (1 + orders))``.
        """
        blocks = [static]
        for stage in self._stages:
            blocks.append(stage.push(blocks[-1], last))
        for i, frames in enumerate(blocks):
            held = self._waiting[i]
            self._waiting[i] = blocks[i] = frames if held is None else torch.cat((held, frames), dim=-2)
        decided = min(frames.shape[-2] for frames in blocks)  # each order lags behind the one before
        self._waiting = [frames[..., decided:, :] for frames in blocks]
        return torch.cat([frames[..., :decided, :] for frames in blocks], dim=-1)


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
