"""The recurrence on the CPU, forward and backward, of K networks at once, in compiled C.

The C function goes through all steps by itself: products, gates, noise and weight gradients. Held to
:func:`asr_dni.nn.reference.run_reference` by the tests.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.amp.autocast_mode import custom_bwd, custom_fwd

from asr_dni.nn import native
from asr_dni.nn.cells import CELLS, State
from asr_dni.nn.mvm import Products
from asr_dni.nn.native_operations import noted_width
from asr_dni.nn.operations import (
    MOST_GROUPS,
    AffineNoise,
    Drawing,
    GaussianNoise,
    Product,
    Quantisation,
)
from asr_dni.nn.recurrence import Capabilities, Recurrence, Sites
from asr_dni.nn.reference import run_reference

CAPABILITIES = Capabilities(
    "fused",
    native.CELLS,
    (torch.float32,),
    operations=(GaussianNoise, AffineNoise, Quantisation),
    arrays=True,
    lengths=True,
    by_sample=True,
    products=("float32", "bfloat16"),
)


def why_not(problem: Recurrence) -> str | None:
    """Return why the fused recurrence cannot run this, or ``None`` where it can."""
    device, dtype = problem.given.device, problem.given.dtype
    if device.type != "cpu":
        return f"no fused recurrence on {device.type}"
    # Under autocast the functions below take everything but double precision as float32.
    lowered = torch.is_autocast_enabled("cpu") and dtype != torch.float64
    reason = CAPABILITIES.why_not(problem, torch.float32 if lowered else dtype)
    if reason is not None:
        return reason
    inside = problem.sites.elementwise
    if inside is not None and any(isinstance(its, Quantisation) for its in inside.arrays[0]):
        return "no fused recurrence for converters of the products inside the cell"
    if any(numbers.requires_grad for numbers in _drawn(problem.sites)):
        return "no fused recurrence for drawn numbers that have gradients"
    if native.library() is None:
        return native.status()
    return None


def _drawn(sites: Sites) -> Iterator[Tensor]:
    """Return the numbers of all affine operations."""
    for product in sites.products:
        for operation in itertools.chain(*product.arrays):
            if isinstance(operation, AffineNoise):
                yield from (its for its in (operation.gain, operation.add) if its is not None)


class _Fused(torch.autograd.Function):
    """Of one layer in one direction, from its inputs or from their projection on."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        cell: str,
        inputs: Tensor | None,
        w_ih: Tensor | None,
        b_ih: Tensor | None,
        projection: Tensor | None,
        w_hh: Tensor,
        b_hh: Tensor | None,
        h: Tensor,
        c: Tensor | None,
        own: Tensor | None,
        sites: Sites,
        keep: bool,
        lengths: Tensor | None,
        products: Products,
    ) -> tuple[Tensor, Tensor | None]:
        given = inputs if projection is None else projection
        assert given is not None
        networks, rows, width = h.shape
        steps = given.shape[-3]
        outputs = h.new_empty(networks, steps, rows, width)
        gates = kept = None
        if native.keeps_activations(cell):
            kept = h.new_empty(networks, steps if keep else 1, rows, width)
            gates = h.new_empty(networks, steps, rows, len(CELLS[cell].gates) * width) if keep else None
        noted = noted_width(cell, sites, width) if keep else 0
        passed = h.new_empty(networks, steps, rows, noted, dtype=torch.uint8) if noted else None
        native.run_recurrence(
            "forward",
            cell,
            sites,
            keep,
            products,
            inputs=inputs,
            w_ih=w_ih,
            b_ih=b_ih,
            projection=projection,
            w_hh=w_hh,
            b_hh=b_hh,
            h=h,
            c=c,
            own=own,
            lengths=lengths,
            outputs=outputs,
            gates=gates,
            kept=kept,
            passed=passed,
        )
        if keep:
            ctx.save_for_backward(
                inputs, w_ih, b_ih, projection, w_hh, b_hh, h, c, own, outputs, gates, kept, passed
            )
            ctx.cell, ctx.sites, ctx.lengths, ctx.products = cell, sites, lengths, products
        ctx.set_materialize_grads(False)
        return outputs, kept[:, -1].clone() if kept is not None and c is not None else None

    @staticmethod
    @custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Any) -> Any:
        d_outputs, d_last = gradients
        inputs, w_ih, b_ih, projection, w_hh, b_hh, h, c, own, outputs, gates, kept, passed = (
            ctx.saved_tensors
        )
        if torch.is_grad_enabled():  # create_graph: the gradients have to be differentiable
            arguments = inputs, w_ih, b_ih, projection, w_hh, b_hh, h, c, own
            its = _differentiable_gradients(
                ctx.cell,
                arguments,
                ctx.sites,
                ctx.lengths,
                ctx.products,
                ctx.needs_input_grad[1:10],
                gradients,
            )
            return None, *its, None, None, None, None
        _, of_inputs, of_w_ih, of_b_ih, of_projection, of_w_hh, of_b_hh, *_ = ctx.needs_input_grad
        of_own = ctx.needs_input_grad[9]
        if d_outputs is None:
            d_outputs = torch.zeros_like(outputs)
        dh = h.new_zeros(h.shape)
        dc = None
        if c is not None:
            dc = (
                torch.zeros_like(dh)
                if d_last is None
                else d_last.clone(memory_format=torch.contiguous_format)
            )

        def room(wanted: bool, *shape: int) -> Tensor | None:
            return h.new_empty(shape) if wanted else None

        sequences, fan_out = outputs.shape[:3], w_hh.shape[:2]
        d_inputs = room(of_inputs, *sequences, 0 if inputs is None else inputs.shape[-1])
        d_projection = room(of_projection, *sequences, fan_out[1])
        d_w_ih = room(of_w_ih, *fan_out, 0 if w_ih is None else w_ih.shape[2])
        d_w_hh = room(of_w_hh, *w_hh.shape)
        d_b_ih, d_b_hh = room(of_b_ih, *fan_out), room(of_b_hh, *fan_out)
        d_own = room(of_own, *(() if own is None else own.shape))
        native.run_recurrence(
            "backward",
            ctx.cell,
            ctx.sites,
            True,
            ctx.products,
            inputs=inputs,
            w_ih=w_ih,
            w_hh=w_hh,
            h=h,
            c=c,
            own=own,
            lengths=ctx.lengths,
            outputs=outputs,
            gates=gates,
            kept=kept,
            passed=passed,
            d_outputs=d_outputs,
            d_inputs=d_inputs,
            d_projection=d_projection,
            d_w_ih=d_w_ih,
            d_b_ih=d_b_ih,
            d_w_hh=d_w_hh,
            d_b_hh=d_b_hh,
            d_own=d_own,
            dh=dh,
            dc=dc,
        )
        if d_inputs is not None and inputs.dim() == 3:
            d_inputs = d_inputs.sum(0)  # shared by all networks
        return (
            None,
            d_inputs,
            d_w_ih,
            d_b_ih,
            d_projection,
            d_w_hh,
            d_b_hh,
            dh,
            dc,
            d_own,
            None,
            None,
            None,
            None,
        )


def _differentiable_gradients(
    cell: str,
    arguments: Sequence[Tensor | None],
    sites: Sites,
    lengths: Tensor | None,
    products: Products,
    wanted: Sequence[bool],
    gradients: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Return the gradients of :class:`_Fused`'s arguments by the reference, as functions of all that goes into them.

    Args:
        cell: which equations.
        arguments: inputs, w_ih, b_ih, projection, w_hh, b_hh, h, c and own.
        sites: the noise; the same numbers are drawn again.
        lengths: of the samples' sequences.
        products: the precision of factors.
        wanted: of which arguments.
        gradients: of outputs and last cell state.

    Raises:
        RuntimeError: the forward pass ran on copies in another precision, of which there is no second derivative.
    """
    if any(
        want and argument is not None and not argument.requires_grad
        for want, argument in zip(wanted, arguments, strict=True)
    ):
        raise RuntimeError(
            "there is no second derivative of the fused recurrence under autocast: choose"
            ' use_implementation("reference"), or leave autocast out'
        )
    # Views of their own: gradients must not go on through one argument into another that it was computed from.
    views = [None if argument is None else argument.view_as(argument) for argument in arguments]
    inputs, w_ih, b_ih, projection, w_hh, b_hh, h, c, own = views
    assert w_hh is not None
    assert h is not None
    problem = Recurrence(
        cell,
        w_hh,
        b_hh,
        (h,) if c is None else (h, c),
        sites,
        inputs=inputs,
        w_ih=w_ih,
        b_ih=b_ih,
        projection=projection,
        own={} if own is None else _unstacked(cell, own),
        lengths=lengths,
        products=products,
    )
    outputs, final = run_reference(problem, draw=native.draw_gaussian)
    results = [(outputs, gradients[0]), (final[-1], gradients[1] if c is not None else None)]
    known = [(result, gradient) for result, gradient in results if gradient is not None]
    leaves = [leaf for leaf, want in zip(views, wanted, strict=True) if want and leaf is not None]
    found = iter(
        torch.autograd.grad(
            [result for result, _ in known],
            leaves,
            [gradient for _, gradient in known],
            create_graph=True,
            allow_unused=True,
        )
    )
    return [
        next(found) if want and leaf is not None else None for leaf, want in zip(views, wanted, strict=True)
    ]


def _stacked(problem: Recurrence) -> Tensor | None:
    """Return a cell's own parameters as ``(K, how many, H)``; one that all units share is there for each."""
    width = problem.state[-1].shape[-1]
    each = [problem.own[name].expand(-1, width) for name in CELLS[problem.cell].own]
    return torch.stack(each, 1) if each else None


def _unstacked(cell: str, own: Tensor) -> dict[str, Tensor]:
    """Return what :func:`_stacked` was given."""
    return {
        name: own[:, k] if its.per_unit else own[:, k, :1]
        for k, (name, its) in enumerate(CELLS[cell].own.items())
    }


def _drawn_outside(problem: Recurrence) -> Sites:
    """Return the hardware, of which noise of more products inside the cell than a counter has numbers for is drawn."""
    sites, products = problem.sites, CELLS[problem.cell].products
    if products <= MOST_GROUPS or sites.elementwise is None:
        return sites
    steps, like = problem.given.shape[-3], problem.w_hh.new_empty(0, dtype=torch.float32)
    width = problem.state[-1].shape[-1]
    drawing = Drawing(sites.sample_ids, sites.first_step, steps, products, width, like, native.draw_gaussian)
    operations = tuple(
        AffineNoise(add=drawing.gaussian(its)) if isinstance(its, GaussianNoise) else its
        for its in sites.elementwise.arrays[0]
    )
    return replace(sites, elementwise=Product((operations,)))


def run(problem: Recurrence) -> tuple[Tensor, State]:
    """Run the recurrence of K networks; see :func:`asr_dni.nn.reference.run_reference`.

    The projection of the inputs, where it is not given, is made step by step, where it is used, and never lies in
    memory as a whole.

    Raises:
        AssertionError: :func:`why_not` gives a reason.
    """
    h, c = problem.state if len(problem.state) == 2 else (problem.state[0], None)
    inputs = (
        (problem.inputs, problem.w_ih, problem.b_ih, None)
        if problem.projection is None
        else (None, None, None, problem.projection)
    )
    arguments = (*inputs, problem.w_hh, problem.b_hh, h, c, _stacked(problem))
    # Inside of forward() autograd does not tell whether it records.
    keep = torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in arguments)
    sites, lengths = _drawn_outside(problem), problem.lengths
    if lengths is not None:
        lengths = lengths.to("cpu", torch.int64).expand(h.shape[:2]).contiguous()
    outputs, last = _Fused.apply(  # type: ignore[no-untyped-call]
        problem.cell, *arguments, sites, keep, lengths, problem.products
    )
    if lengths is None:
        final = outputs[:, -1]
    else:
        place = (lengths - 1).clamp(min=0)[:, None, :, None].expand(-1, 1, -1, outputs.shape[-1])
        final = torch.where(lengths[..., None] > 0, outputs.gather(1, place)[:, 0], h.to(outputs.dtype))
    return outputs, (final,) if last is None else (final, last)
