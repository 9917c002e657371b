"""The registry of implementations of the recurrence: chosen by what there is to run, or by an explicit setting."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol, TypeAlias, get_args

from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.nn import fused, native, triton_recurrence
from asr_dni.nn.cells import State
from asr_dni.nn.recurrence import Capabilities, Recurrence, SiteNoise, draw_plain, run_reference

Implementation: TypeAlias = Literal["auto", "reference", "fused", "triton"]

SETTING = "ASR_DNI_IMPLEMENTATION"
"""Environment variable: the implementation where :func:`use_implementation` says nothing."""


class _Implementation(Protocol):
    """A module that runs the recurrence."""

    CAPABILITIES: Capabilities

    def why_not(self, problem: Recurrence) -> str | None:
        """Return in a line why it cannot run this, or ``None`` where it can."""

    def run(self, problem: Recurrence) -> tuple[Tensor, State]:
        """Run it; see :func:`asr_dni.nn.recurrence.run_reference`."""


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


def choose(problem: Recurrence) -> tuple[str, dict[str, str]]:
    """Return the name of the implementation that would run this, and why those before it would not.

    Raises:
        RuntimeError: the implementation that was asked for cannot run it.
    """
    chosen = chosen_implementation()
    if chosen == "reference":
        return chosen, {}
    reasons: dict[str, str] = {}
    for name, implementation in IMPLEMENTATIONS.items():
        if chosen in ("auto", name):
            reason = implementation.why_not(problem)
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


def run_recurrence(problem: Recurrence) -> tuple[Tensor, State]:
    """Run one layer in one direction of K networks, see :func:`asr_dni.nn.recurrence.run_reference`."""
    name, _ = choose(problem)
    if name == "reference":
        return run_reference(problem, draw=draw_noise)
    return IMPLEMENTATIONS[name].run(problem)
