"""The registry of implementations of the recurrence: chosen by what there is to run, or by an explicit setting."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Literal, Protocol, TypeAlias, get_args

from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.nn import fused, native, triton_recurrence
from asr_dni.nn.mvm import linear
from asr_dni.nn.recurrence import (
    LayerNoise,
    RecurrentWeights,
    SiteNoise,
    State,
    draw_plain,
    run_reference,
)

Implementation: TypeAlias = Literal["auto", "reference", "fused", "triton"]

SETTING = "ASR_DNI_IMPLEMENTATION"
"""Environment variable: the implementation where :func:`use_implementation` says nothing."""


class _Implementation(Protocol):
    """A module that runs the recurrence of K networks; one network comes as K = 1."""

    def why_not(
        self,
        weights: RecurrentWeights,
        projection: Tensor,
        noise: Sequence[LayerNoise],
        lengths: Tensor | None,
    ) -> str | None:
        """Return in a line why it cannot run this, or ``None`` where it can."""

    def run(
        self, weights: RecurrentWeights, projection: Tensor, state: State, noise: Sequence[LayerNoise]
    ) -> tuple[Tensor, State]:
        """Run it; see :func:`run_recurrence`, form of K networks."""


IMPLEMENTATIONS: dict[str, _Implementation] = {"fused": fused, "triton": triton_recurrence}
"""Add an implementation here; the first one that can run is taken, and the reference loop where none can."""

_chosen: ContextVar[Implementation | None] = ContextVar("asr_dni_implementation", default=None)


def chosen_implementation() -> Implementation:
    """Return the setting in force: of :func:`use_implementation`, else of the environment, else ``auto``.

    Raises:
        UserError: the environment's is not known.
    """
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    named = os.environ.get(SETTING, "auto")
    for known in get_args(Implementation):
        if named == known:
            return known  # type: ignore[no-any-return]
    raise UserError(f"{SETTING} is {named!r}: give one of {', '.join(get_args(Implementation))}")


@contextmanager
def use_implementation(implementation: Implementation) -> Iterator[None]:
    """Choose the implementation of the recurrence for a block.

    Args:
        implementation: ``auto`` takes the first of the registry that can run; a name of the registry takes that one,
            and raises ``RuntimeError`` where it cannot run; ``reference`` takes the plain loop and the plain generator.
    """
    token = _chosen.set(implementation)
    try:
        yield
    finally:
        _chosen.reset(token)


def choose(
    weights: RecurrentWeights, projection: Tensor, noise: Sequence[LayerNoise], lengths: Tensor | None = None
) -> tuple[str, dict[str, str]]:
    """Return the name of the implementation that would run this, and why those before it would not.

    Arguments are those of :func:`run_recurrence`, form of K networks.

    Raises:
        RuntimeError: the implementation that was asked for cannot run it.
    """
    chosen = chosen_implementation()
    if chosen == "reference":
        return chosen, {}
    reasons: dict[str, str] = {}
    for name, implementation in IMPLEMENTATIONS.items():
        if chosen in ("auto", name):
            reason = implementation.why_not(weights, projection, noise, lengths)
            if reason is None:
                return name, reasons
            reasons[name] = reason
    if chosen != "auto":
        raise RuntimeError(
            f"the {chosen} recurrence was asked for, but cannot run: {'; '.join(reasons.values())}"
        )
    return "reference", reasons


def draw_noise(
    noise: SiteNoise, sample_ids: Tensor, first_step: int, steps: int, groups: int, width: int, like: Tensor
) -> Tensor:
    """Draw the noise of a site; see :class:`asr_dni.nn.recurrence.Draw`."""
    if chosen_implementation() == "reference" or like.device.type != "cpu" or native.library() is None:
        return draw_plain(noise, sample_ids, first_step, steps, groups, width, like)
    return native.draw_gaussian(noise, sample_ids, first_step, steps, groups, width).to(like.dtype)


def _population_of_one(weights: RecurrentWeights) -> RecurrentWeights:
    return replace(
        weights,
        w_hh=weights.w_hh[None],
        b_hh=None if weights.b_hh is None else weights.b_hh[None],
        w_hr=None if weights.w_hr is None else weights.w_hr[None],
    )


def run_recurrence(
    weights: RecurrentWeights,
    projection: Tensor,
    state: State,
    noise: LayerNoise | Sequence[LayerNoise],
    lengths: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Run one layer in one direction, of one network or of K networks of one shape.

    With one :class:`~asr_dni.nn.recurrence.LayerNoise` see :func:`asr_dni.nn.recurrence.run_reference`. With a
    sequence of K of them every tensor has a leading axis of K networks: weights ``(K, gates * H, H or P)``, projection
    ``(K, T, N, gates * H)``, states ``(K, N, H or P)``, lengths ``(K, N)``, outputs ``(K, T, N, H or P)``. Network k's
    result is what its slices give alone, whichever networks are beside it.
    """
    if isinstance(noise, LayerNoise):
        of_one = _population_of_one(weights), projection[None], (noise,)
        name, _ = choose(*of_one, None if lengths is None else lengths[None])
        if name == "reference":
            return run_reference(weights, projection, state, noise, lengths, draw=draw_noise)
        outputs, final = IMPLEMENTATIONS[name].run(
            of_one[0], of_one[1], tuple(part[None] for part in state), (noise,)
        )
        return outputs[0], tuple(part[0] for part in final)
    name, _ = choose(weights, projection, noise, lengths)
    if name != "reference":
        return IMPLEMENTATIONS[name].run(weights, projection, state, noise)
    return run_reference(weights, projection, state, noise, lengths, draw=draw_noise)


def run_layer(
    weights: RecurrentWeights,
    w_ih: Tensor,
    b_ih: Tensor | None,
    inputs: Tensor,
    state: State,
    noise: LayerNoise | Sequence[LayerNoise],
    lengths: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Run one layer in one direction from its inputs on: ``W_ih x_t + b_ih`` and then :func:`run_recurrence`.

    Args:
        weights: the layer's recurrent weights; of K networks with a leading axis, as all that follows.
        w_ih: ``(gates * H, F)``.
        b_ih: ``(gates * H,)`` or ``None``.
        inputs: ``(T, N, F)``; for K networks ``(K, T, N, F)``, or ``(T, N, F)`` that all of them share.
        state: see :func:`run_recurrence`.
        noise: see :func:`run_recurrence`.
        lengths: see :func:`run_recurrence`.
    """
    alone = isinstance(noise, LayerNoise)
    of_all = _population_of_one(weights) if alone else weights
    noises = (noise,) if isinstance(noise, LayerNoise) else noise
    name, _ = choose(of_all, inputs, noises, lengths)
    if name == "fused":
        if not alone:
            return fused.run_layer(weights, w_ih, b_ih, inputs, state, noises)
        of_one = w_ih[None], None if b_ih is None else b_ih[None], inputs[None]
        outputs, final = fused.run_layer(of_all, *of_one, tuple(part[None] for part in state), noises)
        return outputs[0], tuple(part[0] for part in final)
    shared = not alone and inputs.dim() == 3
    return run_recurrence(weights, linear(inputs, w_ih, b_ih, shared), state, noise, lengths)
