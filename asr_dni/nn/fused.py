"""The recurrence with fused gate arithmetic and noise on the CPU, forward and backward.

One product a step for the recurrent weights, one C pass for all the rest of the step, and one product over all
steps for the weight gradient. Held to :func:`asr_dni.nn.recurrence.run_reference` by the tests.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.amp.autocast_mode import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from asr_dni.nn import native
from asr_dni.nn.recurrence import LayerNoise, RecurrentWeights, State


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


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


class _Kernels:
    """The C functions with what every step of a layer hands to them; keeps alive what the pointers point to."""

    def __init__(
        self, rows: int, width: int, bias: Tensor | None = None, noise: LayerNoise | None = None
    ) -> None:
        kernels = native.library()
        assert kernels is not None
        self.library = kernels
        self.rows, self.width = ctypes.c_ssize_t(rows), ctypes.c_ssize_t(width)
        self._bias = None if bias is None else bias.contiguous()
        self.bias = _pointer(self._bias)
        if noise is not None:
            self.noise = ctypes.byref(native.c_layer_noise(noise))
            self._ids = noise.sample_ids.to("cpu", torch.int64).contiguous()
            self.sample_ids = _pointer(self._ids)


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient.contiguous()


def _weight_gradient(d_hidden: Tensor, h: Tensor, outputs: Tensor) -> Tensor:
    """Return the gradient of W_hh from that of W_hh h_{t-1} ``(T, N, gates * H)``, in one product over all steps."""
    gradient = d_hidden[0].t() @ h
    if len(outputs) > 1:
        gradient.addmm_(d_hidden[1:].flatten(0, 1).t(), outputs[:-1].flatten(0, 1))
    return gradient


class _FusedLSTM(torch.autograd.Function):
    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        projection: Tensor,
        w_hh: Tensor,
        b_hh: Tensor | None,
        h: Tensor,
        c: Tensor,
        noise: LayerNoise,
    ) -> tuple[Tensor, Tensor]:
        projection, h, c = projection.contiguous(), h.contiguous(), c.contiguous()
        steps, (rows, width) = len(projection), h.shape
        kernels = _Kernels(rows, width, b_hh, noise)
        outputs = projection.new_empty(steps, rows, width)
        keep = any(ctx.needs_input_grad)
        cells = projection.new_empty(steps if keep else 1, rows, width)
        gates = projection.new_empty(steps if keep else 1, rows, 4 * width)
        scratch = projection.new_empty(rows, 3 * width) if noise.elementwise else None
        transposed = w_hh.t().contiguous()
        h_before, c_before = h, c
        for t in range(steps):
            slot = t if keep else 0
            torch.mm(h_before, transposed, out=gates[slot])
            kernels.library.lstm_forward(
                _pointer(gates[slot]),
                _pointer(projection[t]),
                kernels.bias,
                _pointer(c_before),
                _pointer(cells[slot]),
                _pointer(outputs[t]),
                kernels.rows,
                kernels.width,
                kernels.noise,
                kernels.sample_ids,
                ctypes.c_int64(noise.first_step + t),
                _pointer(scratch),
            )
            h_before, c_before = outputs[t], cells[slot]
        last = cells[-1].clone()
        ctx.save_for_backward(w_hh, h, c, outputs, cells, gates)
        ctx.has_bias = b_hh is not None
        ctx.set_materialize_grads(False)
        return outputs, last

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Any) -> Any:  # type: ignore[override]
        d_outputs, d_last = gradients
        w_hh, h, c, outputs, cells, activations = ctx.saved_tensors
        kernels = _Kernels(h.shape[0], h.shape[1])
        gates = torch.empty_like(activations)
        d_outputs = _or_zeros(d_outputs, outputs)
        dc = torch.zeros_like(c) if d_last is None else d_last.clone(memory_format=torch.contiguous_format)
        dh = torch.zeros_like(h)
        weight = w_hh.contiguous()
        for t in range(len(outputs) - 1, -1, -1):
            kernels.library.lstm_backward(
                _pointer(activations[t]),
                _pointer(gates[t]),
                _pointer(cells[t - 1] if t else c),
                _pointer(cells[t]),
                _pointer(d_outputs[t]),
                _pointer(dh),
                _pointer(dc),
                kernels.rows,
                kernels.width,
            )
            torch.mm(gates[t], weight, out=dh)
        d_weight = _weight_gradient(gates, h, outputs) if ctx.needs_input_grad[1] else None
        d_bias = gates.sum((0, 1)) if ctx.has_bias else None
        return gates, d_weight, d_bias, dh, dc, None


class _FusedGRU(torch.autograd.Function):
    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any, projection: Tensor, w_hh: Tensor, b_hh: Tensor | None, h: Tensor, noise: LayerNoise
    ) -> Tensor:
        projection, h = projection.contiguous(), h.contiguous()
        steps, (rows, width) = len(projection), h.shape
        kernels = _Kernels(rows, width, b_hh, noise)
        outputs = projection.new_empty(steps, rows, width)
        keep = any(ctx.needs_input_grad)
        gates = projection.new_empty(steps if keep else 1, rows, 3 * width)
        hidden_n = projection.new_empty(steps if keep else 1, rows, width)
        hidden = projection.new_empty(rows, 3 * width)
        scratch = projection.new_empty(rows, 3 * width) if noise.elementwise else None
        transposed = w_hh.t().contiguous()
        before = h
        for t in range(steps):
            slot = t if keep else 0
            torch.mm(before, transposed, out=hidden)
            kernels.library.gru_forward(
                _pointer(hidden),
                _pointer(projection[t]),
                kernels.bias,
                _pointer(before),
                _pointer(gates[slot]),
                _pointer(hidden_n[slot]),
                _pointer(outputs[t]),
                kernels.rows,
                kernels.width,
                kernels.noise,
                ctypes.c_int(noise.recurrent_n_only),
                kernels.sample_ids,
                ctypes.c_int64(noise.first_step + t),
                _pointer(scratch),
            )
            before = outputs[t]
        ctx.save_for_backward(w_hh, h, outputs, gates, hidden_n)
        ctx.has_bias = b_hh is not None
        return outputs

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Any) -> Any:  # type: ignore[override]
        w_hh, h, outputs, gates, hidden_n = ctx.saved_tensors
        kernels = _Kernels(h.shape[0], h.shape[1])
        d_outputs = gradients[0].contiguous()
        d_gates, d_hidden = torch.empty_like(gates), torch.empty_like(gates)
        dh, weight = torch.zeros_like(h), w_hh.contiguous()
        for t in range(len(outputs) - 1, -1, -1):
            kernels.library.gru_backward(
                _pointer(gates[t]),
                _pointer(hidden_n[t]),
                _pointer(outputs[t - 1] if t else h),
                _pointer(d_outputs[t]),
                _pointer(d_gates[t]),
                _pointer(d_hidden[t]),
                _pointer(dh),
                kernels.rows,
                kernels.width,
            )
            dh.addmm_(d_hidden[t], weight)
        d_weight = _weight_gradient(d_hidden, h, outputs) if ctx.needs_input_grad[1] else None
        d_bias = d_hidden.sum((0, 1)) if ctx.has_bias else None
        return d_gates, d_weight, d_bias, dh, None


class _FusedRNN(torch.autograd.Function):
    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        projection: Tensor,
        w_hh: Tensor,
        b_hh: Tensor | None,
        h: Tensor,
        noise: LayerNoise,
        relu: bool,
    ) -> Tensor:
        projection, h = projection.contiguous(), h.contiguous()
        kernels = _Kernels(h.shape[0], h.shape[1], b_hh, noise)
        outputs = torch.empty_like(projection)
        transposed = w_hh.t().contiguous()
        before = h
        for t in range(len(projection)):
            torch.mm(before, transposed, out=outputs[t])
            kernels.library.rnn_forward(
                _pointer(outputs[t]),
                _pointer(projection[t]),
                kernels.bias,
                ctypes.c_int(relu),
                kernels.rows,
                kernels.width,
                kernels.noise,
                kernels.sample_ids,
                ctypes.c_int64(noise.first_step + t),
            )
            before = outputs[t]
        ctx.save_for_backward(w_hh, h, outputs)
        ctx.has_bias, ctx.relu = b_hh is not None, relu
        return outputs

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Any) -> Any:  # type: ignore[override]
        w_hh, h, outputs = ctx.saved_tensors
        kernels = _Kernels(h.shape[0], h.shape[1])
        d_outputs, d_gates = gradients[0].contiguous(), torch.empty_like(outputs)
        dh, weight = torch.zeros_like(h), w_hh.contiguous()
        for t in range(len(outputs) - 1, -1, -1):
            kernels.library.rnn_backward(
                _pointer(outputs[t]),
                _pointer(d_outputs[t]),
                _pointer(dh),
                _pointer(d_gates[t]),
                ctypes.c_int(ctx.relu),
                kernels.rows,
                kernels.width,
            )
            torch.mm(d_gates[t], weight, out=dh)
        d_weight = _weight_gradient(d_gates, h, outputs) if ctx.needs_input_grad[1] else None
        d_bias = d_gates.sum((0, 1)) if ctx.has_bias else None
        return d_gates, d_weight, d_bias, dh, None, None


def run(
    weights: RecurrentWeights, projection: Tensor, state: State, noise: Sequence[LayerNoise]
) -> tuple[Tensor, State]:
    """Run the recurrence of K networks; see :func:`asr_dni.nn.implementation.run_recurrence`.

    Raises:
        AssertionError: :func:`why_not` gives a reason.
    """
    results = [
        _run_one(
            weights.cell,
            weights.w_hh[k],
            None if weights.b_hh is None else weights.b_hh[k],
            projection[k],
            tuple(part[k] for part in state),
            its_noise,
        )
        for k, its_noise in enumerate(noise)
    ]
    finals = zip(*(final for _, final in results), strict=True)
    return torch.stack([outputs for outputs, _ in results]), tuple(torch.stack(parts) for parts in finals)


def _run_one(
    cell: str, w_hh: Tensor, b_hh: Tensor | None, projection: Tensor, state: State, noise: LayerNoise
) -> tuple[Tensor, State]:
    arguments = (projection, w_hh, b_hh, *state, noise)
    if cell == "lstm":
        outputs, c = _FusedLSTM.apply(*arguments)  # type: ignore[no-untyped-call]
        return outputs, (outputs[-1], c)
    if cell == "gru":
        outputs = _FusedGRU.apply(*arguments)  # type: ignore[no-untyped-call]
    else:
        outputs = _FusedRNN.apply(*arguments, cell == "rnn_relu")  # type: ignore[no-untyped-call]
    return outputs, (outputs[-1],)
