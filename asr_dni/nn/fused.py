"""The recurrence on the CPU, forward and backward, of K networks at once, in compiled C.

The C function goes through all steps by itself, products, gates and noise; the weight gradient is one product over
all steps. Held to :func:`asr_dni.nn.recurrence.run_reference` by the tests.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.amp.autocast_mode import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from asr_dni.nn import native
from asr_dni.nn.recurrence import GATES, Cell, LayerNoise, RecurrentWeights, State


def why_not(
    weights: RecurrentWeights, projection: Tensor, noise: Sequence[LayerNoise], lengths: Tensor | None
) -> str | None:
    """Return why the fused recurrence cannot run this, or ``None`` where it can."""
    if weights.w_hr is not None:
        return "no fused recurrence for proj_size"
    if projection.device.type != "cpu":
        return f"no fused recurrence on {projection.device.type}"
    # Under autocast the functions below take everything but double precision as float32.
    lowered = torch.is_autocast_enabled("cpu") and projection.dtype != torch.float64
    if projection.dtype != torch.float32 and not lowered:
        return f"no fused recurrence for {projection.dtype}"
    if lengths is not None:
        return "no fused recurrence for packed sequences"
    if native.library() is None:
        return native.status()
    return None


def _weight_gradient(d_hidden: Tensor, h: Tensor, outputs: Tensor) -> Tensor:
    """Return the gradient of W_hh, in one product over all steps.

    Args:
        d_hidden: gradient of W_hh h_{t-1}, ``(K, T, N, rows of W_hh)``.
        h: before the first step, ``(K, N, H)``.
        outputs: ``(K, T, N, H)``.
    """
    gradient = torch.bmm(d_hidden[:, 0].mT, h)
    later, before = d_hidden[:, 1:].flatten(1, 2), outputs[:, :-1].flatten(1, 2)
    if len(gradient) == 1:  # one large product takes all threads, a batched one is slower
        return gradient[0].addmm_(later[0].t(), before[0])[None]
    return gradient.baddbmm_(later.mT, before)


class _Fused(torch.autograd.Function):
    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        cell: Cell,
        projection: Tensor,
        w_hh: Tensor,
        b_hh: Tensor | None,
        h: Tensor,
        c: Tensor | None,
        noise: Sequence[LayerNoise],
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        networks, steps, rows = projection.shape[:3]
        sizes = networks, steps, rows, h.shape[-1]
        outputs = projection.new_empty(sizes)
        gates = kept = None
        if cell in ("lstm", "gru"):
            kept = projection.new_empty(networks, steps if keep else 1, *sizes[2:])
            gates = projection.new_empty(*sizes[:3], GATES[cell] * sizes[3]) if keep else None
        native.run_recurrence(
            "forward",
            cell,
            noise,
            sizes,
            keep,
            weight=w_hh,
            bias=b_hh,
            projection=projection,
            h=h,
            c=c,
            outputs=outputs,
            gates=gates,
            kept=kept,
        )
        if keep:
            ctx.save_for_backward(w_hh, h, c, outputs, gates, kept)
        ctx.cell, ctx.noise, ctx.sizes, ctx.has_bias = cell, noise, sizes, b_hh is not None
        ctx.set_materialize_grads(False)
        return outputs, kept[:, -1].clone() if kept is not None and cell == "lstm" else None

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Any) -> Any:  # type: ignore[override]
        d_outputs, d_last = gradients
        w_hh, h, c, outputs, gates, kept = ctx.saved_tensors
        if d_outputs is None:
            d_outputs = torch.zeros_like(outputs)
        dh = torch.zeros_like(h, memory_format=torch.contiguous_format)
        dc = None
        if c is not None:
            dc = (
                torch.zeros_like(h) if d_last is None else d_last.clone(memory_format=torch.contiguous_format)
            )
        d_gates = torch.empty_like(outputs if gates is None else gates)
        d_kept = torch.empty_like(kept) if ctx.cell == "gru" else None
        native.run_recurrence(
            "backward",
            ctx.cell,
            ctx.noise,
            ctx.sizes,
            True,
            weight=w_hh,
            h=h,
            c=c,
            outputs=outputs,
            gates=gates,
            kept=kept,
            d_outputs=d_outputs,
            d_gates=d_gates,
            d_kept=d_kept,
            dh=dh,
            dc=dc,
        )
        d_weight = d_bias = None
        # Of a GRU, the last third of W_hh h has a gradient of its own.
        parts = (d_gates,) if d_kept is None else (d_gates[..., : 2 * h.shape[-1]], d_kept)
        if ctx.needs_input_grad[2]:
            d_weight = torch.cat([_weight_gradient(part, h, outputs) for part in parts], 1)
        if ctx.has_bias and ctx.needs_input_grad[3]:
            d_bias = torch.cat([part.sum((1, 2)) for part in parts], 1)
        return None, d_gates, d_weight, d_bias, dh, dc, None, None


def run(
    weights: RecurrentWeights, projection: Tensor, state: State, noise: Sequence[LayerNoise]
) -> tuple[Tensor, State]:
    """Run the recurrence of K networks; see :func:`asr_dni.nn.implementation.run_recurrence`.

    Raises:
        AssertionError: :func:`why_not` gives a reason.
    """
    h, c = state if weights.cell == "lstm" else (state[0], None)
    arguments = (projection, weights.w_hh, weights.b_hh, h, c)
    # Inside of forward() autograd does not tell whether it records.
    keep = torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in arguments)
    outputs, last = _Fused.apply(weights.cell, *arguments, noise, keep)  # type: ignore[no-untyped-call]
    return outputs, (outputs[:, -1],) if last is None else (outputs[:, -1], last)
