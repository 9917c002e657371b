"""The registry of implementations of the recurrence: chosen by what there is to run, or by an explicit setting."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from asr_dni.errors import UserError
from asr_dni.nn import fused, native, triton_recurrence
from asr_dni.nn.cells import State
from asr_dni.nn.operations import GaussianNoise, draw_plain
from asr_dni.nn.recurrence import Capabilities, Recurrence, check_recurrence
from asr_dni.nn.reference import run_reference
from asr_dni.told_once import warn_once

Implementation: TypeAlias = Literal["auto", "reference", "fused", "triton"]

logger = logging.getLogger(__name__)

SETTING = "ASR_DNI_IMPLEMENTATION"
"""Environment variable: the implementation where :func:`use_implementation` says nothing."""


class _Implementation(Protocol):
    """A module that runs the recurrence."""

    CAPABILITIES: Capabilities

    def why_not(self, problem: Recurrence) -> str | None:
        """Return in a line why it cannot run this, or ``None`` where it can."""

    def run(self, problem: Recurrence) -> tuple[Tensor, State]:
        """Run it; see :func:`asr_dni.nn.reference.run_reference`."""


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


def _why_no_kernel(*tensors: Tensor | None) -> str | None:
    """Return why no compiled kernel can run on these tensors now, or ``None``.

    A kernel takes addresses of numbers. What torch hands out instead while it transforms, traces or exports a function
    has none, or not those numbers; the reference is made of torch's own operations, which know.
    """
    if torch.compiler.is_exporting():
        return "torch.export takes operations of torch, not kernels"
    if torch.compiler.is_compiling():
        return None  # which leaves the kernels out of its graphs
    if torch._C._is_tracing():
        return "torch.jit.trace takes operations of torch, not kernels"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "the transforms of torch.func take operations of torch, not kernels"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation takes operations of torch, not kernels"
    for tensor in tensors:
        if tensor is not None and type(tensor) not in (Tensor, nn.Parameter):
            return f"no kernel for tensors of the class {type(tensor).__name__}"
        if tensor is not None and tensor.layout != torch.strided:
            return f"no kernel for tensors of the layout {tensor.layout}"
    return None


def choose(problem: Recurrence) -> tuple[str, dict[str, str]]:
    """Return the name of the implementation that would run this, and why those before it would not.

    Raises:
        RuntimeError: the implementation that was asked for cannot run it.
    """
    chosen = chosen_implementation()
    if chosen == "reference":
        return chosen, {}
    reasons: dict[str, str] = {}
    tensors = problem.given, problem.w_ih, problem.b_ih, problem.w_hh, problem.b_hh, *problem.state
    of_all = _why_no_kernel(*tensors)
    for name, implementation in IMPLEMENTATIONS.items():
        if chosen in ("auto", name):
            reason = of_all or implementation.why_not(problem)
            if reason is None:
                return name, reasons
            reasons[name] = reason
    if chosen != "auto":
        raise RuntimeError(
            f"the {chosen} recurrence was asked for, but cannot run: {'; '.join(reasons.values())};"
            ' use_implementation("reference") has the loop that is made of torch\'s own operations'
        )
    return "reference", reasons


def draw_noise(
    noise: GaussianNoise,
    sample_ids: Sequence[Tensor],
    first_step: int,
    steps: int,
    groups: int,
    width: int,
    like: Tensor,
) -> Tensor:
    """Draw Gaussian numbers of K networks; see :class:`asr_dni.nn.operations.Draw`."""
    if (
        chosen_implementation() == "reference"
        or like.device.type != "cpu"
        or _why_no_kernel(*sample_ids)
        or native.library() is None
    ):
        return draw_plain(noise, sample_ids, first_step, steps, groups, width, like)
    return native.draw_gaussian(noise, sample_ids, first_step, steps, groups, width, like)


def _say_slow(reasons: Mapping[str, str]) -> None:
    """Say why hardware, or a precision, is not run by a kernel; nothing where the loop was asked for."""
    if reasons:
        why = "; ".join(reasons.values())
        warn_once(logger, f"this hardware is run by the slower plain loop: {why}")


def run_recurrence(problem: Recurrence) -> tuple[Tensor, State]:
    """Run one layer in one direction of K networks, see :func:`asr_dni.nn.reference.run_reference`.

    Raises:
        UserError: see :func:`asr_dni.nn.recurrence.check_recurrence`.
        RuntimeError: the implementation that was asked for cannot run it.
    """
    check_recurrence(problem)
    name, reasons = choose(problem)
    if name == "reference":
        unusual = problem.products != "float32"
        if unusual or any(product.gaussian is None for product in problem.sites.products):
            _say_slow(reasons)
        return run_reference(problem, draw=draw_noise)
    return IMPLEMENTATIONS[name].run(problem)
