"""Which implementation of the recurrence runs: chosen by what it is given, or by an explicit setting."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeAlias

from torch import Tensor

from asr_dni.nn import fused, native
from asr_dni.nn.recurrence import (
    LayerNoise,
    RecurrentWeights,
    SiteNoise,
    State,
    draw_plain,
    run_reference,
)

Implementation: TypeAlias = Literal["auto", "reference", "fused"]

_chosen: ContextVar[Implementation] = ContextVar("asr_dni_implementation", default="auto")


@contextmanager
def use_implementation(implementation: Implementation) -> Iterator[None]:
    """Choose the implementation of the recurrence for a block.

    Args:
        implementation: ``auto`` takes the fused one wherever it can run; ``fused`` raises ``RuntimeError`` where it
            cannot; ``reference`` takes the plain loop and the plain generator.
    """
    token = _chosen.set(implementation)
    try:
        yield
    finally:
        _chosen.reset(token)


def draw_noise(
    noise: SiteNoise, sample_ids: Tensor, first_step: int, steps: int, groups: int, width: int, like: Tensor
) -> Tensor:
    """Draw the noise of a site; see :class:`asr_dni.nn.recurrence.Draw`."""
    if _chosen.get() == "reference" or like.device.type != "cpu" or native.library() is None:
        return draw_plain(noise, sample_ids, first_step, steps, groups, width, like)
    return native.draw_gaussian(noise, sample_ids, first_step, steps, groups, width).to(like.dtype)


def run_recurrence(
    weights: RecurrentWeights,
    projection: Tensor,
    state: State,
    noise: LayerNoise,
    lengths: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Run one layer in one direction; see :func:`asr_dni.nn.recurrence.run_reference`."""
    chosen = _chosen.get()
    if chosen != "reference":
        reason = fused.why_not(weights, projection, noise, lengths)
        if reason is None:
            return fused.run_fused(weights, projection, state, noise)
        if chosen == "fused":
            raise RuntimeError(f"the fused recurrence was asked for, but cannot run: {reason}")
    return run_reference(weights, projection, state, noise, lengths, draw=draw_noise)
