"""The recurrence on the GPU, by Triton kernels: networks x blocks of samples as parallel programs.

Up to :data:`PERSISTENT_UNITS` units one program runs a block of samples of one network through all time steps.
Where a network's recurrent weights fit they stay on the chip all the while; otherwise each step streams them from the
L2 cache. Wider layers take a batched product and a kernel for all the rest, step by step. The noise is drawn inside,
the same words of Philox as :func:`asr_dni.philox.normal` and the same numbers within rounding.

States, accumulation and gate arithmetic are float32 whatever the projection's dtype; products take their factors in
that dtype, and float32 ones as TF32 where ``torch.backends.cudnn.rnn`` allows it, which governs ``torch.nn.LSTM``
too; step by step, and for the weight gradient, ``torch.backends.cuda.matmul`` does. The same call gives the same bits
each time. A network's result does not depend on the number of samples or of other networks, within rounding: the
slices that a product is summed in depend on the width, the dtype and the device only.

Nothing here imports Triton before there is something to run. ``TRITON_INTERPRET=1``, set before Triton is imported,
runs the same kernels on the CPU in Triton's interpreter: slowly, for tests.
"""

import functools
import importlib.util
import os
import shutil
import struct
import sysconfig
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from asr_dni.nn.cells import CELLS, State
from asr_dni.nn.recurrence import Capabilities, Recurrence, Sites

PERSISTENT_UNITS = 256
"""Above, one program would take longer for its share of a step's products than the launches of a step take: by
estimate, which no GPU has confirmed yet."""

_GATES = {cell: len(CELLS[cell].gates) for cell in ("rnn_tanh", "rnn_relu", "lstm", "gru")}
"""The cells that there are kernels for, and how many gates each has."""

CAPABILITIES = Capabilities("Triton", tuple(_GATES), (torch.float32, torch.bfloat16, torch.float16))
_MOST_NETWORKS = 65535  # of CUDA's grids in the second and third direction


@functools.cache
def what_is_missing() -> str | None:
    """Return what Triton needs and this machine lacks."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if interpreted():
        return None
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Triton needs Python's headers"
    return None


def interpreted() -> bool:
    """Return whether Triton's interpreter was asked for."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def why_not(problem: Recurrence) -> str | None:
    """Return in a line why the kernels cannot run this, or ``None`` where they can."""
    given = problem.given
    if given.device.type != "cuda" and not (given.device.type == "cpu" and interpreted()):
        return f"no Triton recurrence on {given.device.type}, only on a GPU"
    reason = CAPABILITIES.why_not(problem)
    if reason is not None:
        return reason
    if 0 in given.shape or 0 in problem.w_hh.shape:
        return "nothing for the Triton recurrence to run"
    if problem.w_hh.shape[0] > _MOST_NETWORKS:
        return f"no Triton recurrence for more than {_MOST_NETWORKS} networks"
    if given.is_cuda and (torch.version.hip or gpu_of(given.device).capability < (8, 0)):
        return "the Triton recurrence is made for NVIDIA's GPUs, from Ampere on"
    return what_is_missing()


class Gpu(NamedTuple):
    """What :func:`plan` goes by."""

    capability: tuple[int, int]
    processors: int
    shared: int
    """Bytes of shared memory that one program can have."""


@functools.cache
def gpu_of(device: torch.device) -> Gpu:
    """Return what the kernels can have of a device; of a CPU, that interprets them, what an H100 has."""
    if device.type == "cpu":  # interpreted
        return Gpu((9, 0), 132, 232448)
    properties = torch.cuda.get_device_properties(device)
    shared = getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block)
    return Gpu((properties.major, properties.minor), properties.multi_processor_count, shared)


@dataclass(frozen=True)
class Plan:
    """How the persistent kernels cut their work up.

    Attributes:
        units: the width, filled up to a power of two.
        rows: samples a program.
        slice: columns of the weights that are streamed at a time; 0: the weights stay on the chip.
        warps: warps a program.
        stages: of Triton's pipeline, for the slices.
    """

    units: int
    rows: int
    slice: int
    warps: int
    stages: int


def plan(
    cell: str, kind: torch.dtype, width: int, networks: int, rows: int, device: torch.device
) -> Plan | None:
    """Cut the work up by its size: no search, so that the same call always runs the same way.

    The numbers come from the registers and the shared memory that the compiled kernels take, not from timings.

    Returns:
        ``None`` where the persistent kernels are not the way: the layer is wide, or the chip small.
    """
    if width > PERSISTENT_UNITS:
        return None
    gpu = gpu_of(device)
    hopper = gpu.capability[0] == 9  # whose tensor cores read shared memory; others read registers
    units = max(16, 1 << (width - 1).bit_length())
    column = _GATES[cell] * units * kind.itemsize  # bytes of one column of the weights, all gates
    room = 128 * 1024 if hopper else min(64 * 1024, gpu.shared // 2)
    resident = units * column <= room and product_precision(kind) == "tf32"
    slice = 16  # the least that tensor cores are given
    while 2 * slice <= units and 4 * slice * column <= 0.6 * gpu.shared:
        slice *= 2
    buffers = 2 if 2 * slice * column <= 0.75 * gpu.shared else 1
    if not resident and buffers * slice * column > 0.75 * gpu.shared:
        return None

    # A step takes as long for the weights and the waiting as for the arithmetic of about 16 samples.
    def cost(block: int) -> int:
        return -(-networks * -(-rows // block) // gpu.processors) * (16 + block)

    numbers = 4096 if hopper else 2048  # of each kind that the registers of a program hold
    block = min((each for each in (8, 16, 32) if each == 8 or units * each <= numbers), key=cost)
    warps = 4 if units * block <= 512 else 8 if units * block <= 2048 else 16
    # The pipeline has a stage for each slice in shared memory, and one for the registers where they are read from.
    stages = buffers if hopper and block > 8 else buffers + 1
    return Plan(units, block, 0 if resident else slice, warps, stages)


def _pitch(width: int) -> int:
    """Return how far apart rows of the weights lie for the persistent kernels: a multiple of 16 numbers."""
    return -(-width // 16) * 16


def _has_room(launch: Callable[[], None]) -> bool:
    """Launch, and return whether the device had the memory on chip; nothing has run where it had not."""
    from triton.runtime.errors import OutOfResources  # type: ignore[import-untyped]

    try:
        launch()
    except OutOfResources as error:
        warnings.warn(
            f"the persistent recurrence does not fit this GPU, so a slower one runs: {error}", stacklevel=2
        )
        return False
    return True


def product_precision(kind: torch.dtype) -> str:
    """Return how float32 factors are multiplied: rounded to TF32, or as three TF32 products, nearly exactly."""
    if kind != torch.float32 or torch.backends.cudnn.rnn.fp32_precision == "tf32":  # type: ignore[attr-defined]
        return "tf32"
    return "tf32x3"


def _on(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@dataclass(frozen=True)
class _Noise:
    """The noise of K networks as the kernels take it."""

    table: Tensor
    ids: Tensor
    ids_network: int
    flags: dict[str, bool]


def _pack_noise(sites: Sites, device: torch.device) -> _Noise:
    networks = len(sites.sample_ids)
    gaussians = {site: sites.gaussian(site) for site in ("input", "recurrent", "elementwise")}
    # Standard deviations may be on the device, where the clean signals' sizes are: asking for them would wait for it.
    known = {
        site: its.std.float().tolist()
        for site, its in gaussians.items()
        if its is not None and its.std.device.type == "cpu"
    }
    packed = bytearray()
    for k in range(networks):
        packed += struct.pack("<I", sites.first_step & 0xFFFFFFFF)
        for site, its in gaussians.items():
            std = known[site][k] if site in known else 0.0
            packed += struct.pack("<fII", std, *(its.keys[k] if its else (0, 0)))
    table = torch.frombuffer(packed, dtype=torch.int32).to(device, non_blocking=True)
    rows = table.view(networks, -1)
    for place, (site, its) in enumerate(gaussians.items()):
        if its is not None and site not in known:
            rows[:, 1 + 3 * place] = its.std.to(device, torch.float32).view(torch.int32)
    first = sites.sample_ids[0]
    shared = all(its is first for its in sites.sample_ids)
    ids = first[None] if shared else torch.stack([its.to(device) for its in sites.sample_ids])
    flags = {site.upper(): its is not None for site, its in gaussians.items()}
    flags["JOINT"] = sites.joint and sites.input is not None
    ids = ids.to(device, torch.int64).contiguous()
    return _Noise(table, ids, 0 if shared else ids.shape[1], flags)


def _weight_gradient(d_hidden: Tensor, before: Tensor) -> Tensor:
    """Return the gradient of W_hh from that of W_hh h_{t-1} ``(K, T, N, rows)``, in one product over all steps."""
    return torch.bmm(d_hidden.flatten(1, 2).mT, before.flatten(1, 2))


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        projection: Tensor,
        w_hh: Tensor,
        b_hh: Tensor | None,
        h: Tensor,
        c: Tensor | None,
        cell: str,
        noise: _Noise,
    ) -> tuple[Tensor, ...]:
        networks, steps, rows = projection.shape[:3]
        width, kind = h.shape[-1], projection.dtype
        if projection.stride(-1) != 1 or projection.stride(2) >= 2**24:  # offsets in a tile are 32-bit
            projection = projection.contiguous()
        w_hh, h = w_hh.contiguous(), h.contiguous()
        save = any(ctx.needs_input_grad)
        new = projection.new_empty
        states = new(networks, steps + 1, rows, width)
        activations = new(networks, steps, rows, 4 * width) if save and _GATES[cell] > 1 else None
        cells = last_c = None
        if c is not None:
            c = c.contiguous()
            cells = new(networks, steps + 1, rows, width, dtype=torch.float32) if save else None
            last_c = torch.empty_like(c)
        arrays = _Arrays(projection, w_hh, b_hh, h, c, states, cells, activations, last_c)
        with _on(projection.device):
            its = plan(cell, kind, width, networks, rows, projection.device)
            if its is None or not _has_room(lambda: _forward_persistent(cell, its, arrays, noise)):
                _forward_by_steps(cell, arrays, noise)
        ctx.save_for_backward(w_hh, states, cells, activations)
        ctx.cell, ctx.kinds = cell, (kind, None if b_hh is None else b_hh.dtype)
        ctx.set_materialize_grads(False)
        return (states[:, 1:],) if last_c is None else (states[:, 1:], last_c)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        if torch.is_grad_enabled():  # create_graph
            raise RuntimeError(
                'there is no second derivative of the Triton recurrence: choose use_implementation("reference")'
            )
        w_hh, states, cells, activations = ctx.saved_tensors
        cell: str = ctx.cell
        kind, bias_kind = ctx.kinds
        d_outputs, d_last_c = gradients[0], gradients[1] if cell == "lstm" else None
        networks, steps, rows = states.shape[0], states.shape[1] - 1, states.shape[2]
        width = states.shape[3]
        if d_outputs is not None and max(d_outputs.stride()[2:]) >= 2**20:
            d_outputs = d_outputs.contiguous()
        new = states.new_empty
        d_projection = new(networks, steps, rows, _GATES[cell] * width)
        d_hidden_n = new(networks, steps, rows, width) if cell == "gru" else None
        dh = new(networks, rows, width, dtype=torch.float32)
        dc = torch.empty_like(dh) if cell == "lstm" else None
        arrays = _Gradients(
            d_outputs, d_last_c, w_hh, states, cells, activations, d_projection, d_hidden_n, dh, dc
        )
        # The forward pass ran without autocast (see run); a backward pass inside a user's must too.
        with _on(states.device), torch.autocast(states.device.type, enabled=False):
            its = plan(cell, kind, width, networks, rows, states.device)
            if its is None or not _has_room(lambda: _backward_persistent(cell, its, arrays)):
                _backward_by_steps(cell, arrays)
            of_hidden = (
                (d_projection,) if d_hidden_n is None else (d_projection[..., : 2 * width], d_hidden_n)
            )
            d_weight = d_bias = None
            if ctx.needs_input_grad[1]:
                d_weight = torch.cat([_weight_gradient(part, states[:, :-1]) for part in of_hidden], 1)
            if ctx.needs_input_grad[2]:
                d_bias = torch.cat([part.sum((1, 2), dtype=torch.float32) for part in of_hidden], -1).to(
                    bias_kind
                )
        return d_projection, d_weight, d_bias, dh.to(kind), dc, None, None


class _Arrays(NamedTuple):
    """What a forward pass reads and writes.

    ``projection`` ``(K, T, N, gates * H)``, ``states`` and ``cells`` ``(K, T + 1, N, H)`` from the initial ones on,
    ``activations`` ``(K, T, N, 4 H)``; ``h``, ``c`` and ``last_c`` ``(K, N, H)``.
    """

    projection: Tensor
    w_hh: Tensor
    b_hh: Tensor | None
    h: Tensor
    c: Tensor | None
    states: Tensor
    cells: Tensor | None
    activations: Tensor | None
    last_c: Tensor | None


class _Gradients(NamedTuple):
    """What a backward pass reads and writes; ``dh`` and ``dc`` are float32."""

    d_outputs: Tensor | None
    d_last_c: Tensor | None
    w_hh: Tensor
    states: Tensor
    cells: Tensor | None
    activations: Tensor | None
    d_projection: Tensor
    d_hidden_n: Tensor | None
    dh: Tensor
    dc: Tensor | None


def _persistent_constants(cell: str, its: Plan, width: int, kind: torch.dtype, steps: int) -> dict[str, Any]:
    """Return what both persistent kernels are compiled for."""
    return {
        "GATES": _GATES[cell],
        "WIDTH": width,
        "PITCH": _pitch(width),
        "UNITS": its.units,
        "ROWS": its.rows,
        "SLICE": its.slice,
        "PRECISION": product_precision(kind),
        "INTERPRETED": interpreted(),
        "LOOPS": steps if interpreted() else 0,
        "num_warps": its.warps,
        "num_stages": its.stages,
    }


def _forward_persistent(cell: str, its: Plan, arrays: _Arrays, noise: _Noise) -> None:
    from asr_dni.nn import triton_kernels

    projection, w_hh, b_hh, h, c, states, cells, activations, last_c = arrays
    networks, steps, rows = projection.shape[:3]
    width, kind = h.shape[-1], projection.dtype
    unused = states  # for a pointer that the kernel does not touch
    triton_kernels.forward[(-(-rows // its.rows), networks)](
        projection,
        *projection.stride()[:3],
        functional.pad(w_hh, (0, _pitch(width) - width)),
        unused if b_hh is None else b_hh.contiguous(),
        h,
        unused if c is None else c,
        noise.table,
        noise.ids,
        noise.ids_network,
        states,
        unused if cells is None else cells,
        unused if activations is None else activations,
        unused if last_c is None else last_c,
        steps,
        rows,
        CELL=cell,
        **noise.flags,
        SAVE=activations is not None,
        BIAS=b_hh is not None,
        **_persistent_constants(cell, its, width, kind, steps),
    )


def _backward_persistent(cell: str, its: Plan, arrays: _Gradients) -> None:
    from asr_dni.nn import triton_kernels

    d_outputs, d_last_c, w_hh, states, cells, activations, d_projection, d_hidden_n, dh, dc = arrays
    networks, steps, rows = d_projection.shape[:3]
    width, kind = dh.shape[-1], states.dtype
    # Tensor cores want the summed-over axis of a TF32 factor to be the contiguous one.
    transposed = w_hh.view(networks, _GATES[cell], width, width).mT
    transposed = functional.pad(transposed, (0, _pitch(width) - width)).contiguous()
    unused = states
    triton_kernels.backward[(-(-rows // its.rows), networks)](
        unused if d_outputs is None else d_outputs,
        *((0, 0, 0, 0) if d_outputs is None else d_outputs.stride()),
        unused if d_last_c is None else d_last_c.contiguous(),
        transposed,
        states,
        unused if cells is None else cells,
        unused if activations is None else activations,
        d_projection,
        unused if d_hidden_n is None else d_hidden_n,
        dh,
        unused if dc is None else dc,
        steps,
        rows,
        CELL=cell,
        FROM_OUTPUTS=d_outputs is not None,
        FROM_CELL=d_last_c is not None,
        **_persistent_constants(cell, its, width, kind, steps),
    )


_STEP_TILE = (64, 16)
"""Units and samples a program of the kernels that do one step: four or eight elements a thread."""


def _step_grid(width: int, rows: int, networks: int) -> tuple[int, int, int]:
    return -(-rows // _STEP_TILE[1]), -(-width // _STEP_TILE[0]), networks


def _forward_by_steps(cell: str, arrays: _Arrays, noise: _Noise) -> None:
    from asr_dni.nn import triton_kernels

    projection, w_hh, b_hh, h, c, states, cells, activations, last_c = arrays
    networks, steps, rows = projection.shape[:3]
    width = h.shape[-1]
    transposed = w_hh.mT
    bias = None if b_hh is None else b_hh.contiguous()
    hidden = projection.new_empty(networks, rows, _GATES[cell] * width)
    states[:, 0].copy_(h)
    if cells is not None and c is not None:
        cells[:, 0].copy_(c)
    c_before = c
    for t in range(steps):
        torch.bmm(states[:, t], transposed, out=hidden)
        # Without gradients the cell's state is replaced in place: no two units of it meet in a kernel.
        c_after = last_c if cells is None else cells[:, t + 1]
        triton_kernels.step_forward[_step_grid(width, rows, networks)](
            hidden,
            projection[:, t],
            projection.stride(0),
            projection.stride(2),
            hidden if bias is None else bias,
            states[:, t],
            states.stride(0),
            states[:, t + 1],
            hidden if c_before is None else c_before if cells is None else cells[:, t],
            0 if c_after is None else c_after.stride(0),
            hidden if c_after is None else c_after,
            hidden if activations is None else activations[:, t],
            0 if activations is None else activations.stride(0),
            noise.table,
            t,
            noise.ids,
            noise.ids_network,
            rows,
            CELL=cell,
            **noise.flags,
            SAVE=activations is not None,
            BIAS=bias is not None,
            GATES=_GATES[cell],
            WIDTH=width,
            UNITS=_STEP_TILE[0],
            ROWS=_STEP_TILE[1],
        )
        c_before = c_after
    if last_c is not None and cells is not None:
        last_c.copy_(cells[:, steps])


def _backward_by_steps(cell: str, arrays: _Gradients) -> None:
    from asr_dni.nn import triton_kernels

    d_outputs, d_last_c, w_hh, states, cells, activations, d_projection, d_hidden_n, dh, dc = arrays
    networks, steps, rows = d_projection.shape[:3]
    width = dh.shape[-1]
    through_weights = states.new_empty(networks, rows, width)
    if dc is not None:
        dc.zero_() if d_last_c is None else dc.copy_(d_last_c)
    for t in range(steps - 1, -1, -1):
        triton_kernels.step_backward[_step_grid(width, rows, networks)](
            dh if d_outputs is None else d_outputs[:, t],
            *((0, 0, 0) if d_outputs is None else (d_outputs.stride(0), *d_outputs.stride()[2:])),
            through_weights,
            dh,
            dh if dc is None else dc,
            states[:, t if cell == "gru" else t + 1],
            states.stride(0),
            dh if cells is None else cells[:, t],
            dh if cells is None else cells[:, t + 1],
            0 if cells is None else cells.stride(0),
            dh if activations is None else activations[:, t],
            0 if activations is None else activations.stride(0),
            d_projection[:, t],
            d_projection.stride(0),
            dh if d_hidden_n is None else d_hidden_n[:, t],
            0 if d_hidden_n is None else d_hidden_n.stride(0),
            rows,
            CELL=cell,
            FROM_OUTPUTS=d_outputs is not None,
            FROM_LATER=t < steps - 1,
            GATES=_GATES[cell],
            WIDTH=width,
            UNITS=_STEP_TILE[0],
            ROWS=_STEP_TILE[1],
        )
        if d_hidden_n is None:
            torch.bmm(d_projection[:, t], w_hh, out=through_weights)
        else:
            rz = 2 * width
            torch.bmm(d_projection[:, t, :, :rz], w_hh[:, :rz], out=through_weights)
            through_weights.baddbmm_(d_hidden_n[:, t], w_hh[:, rz:])
    if cell == "gru":
        dh += through_weights
    else:
        dh.copy_(through_weights)


def run(problem: Recurrence) -> tuple[Tensor, State]:
    """Run the recurrence of K networks; see :func:`asr_dni.nn.reference.run_reference`.

    Outputs have the projection's dtype, states that of the ones given. Only for what :func:`why_not` has no reason
    against.
    """
    if torch.compiler.is_compiling():
        # torch.compile would trace the launches, and do so anew for each seed and draw. (Disabling it where this is
        # defined would import the compiler, which takes as long as torch itself.)
        untraced: Callable[..., tuple[Tensor, State]] = torch.compiler.disable(_run)  # type: ignore[no-untyped-call]
        return untraced(problem)
    return _run(problem)


def _run(problem: Recurrence) -> tuple[Tensor, State]:
    projection, state = problem.projected(), problem.state
    kind = projection.dtype
    cell_state = state[1].to(torch.float32) if problem.cell == "lstm" else None
    # The dtypes are decided here, by the projection, which autocast has lowered already where it is on.
    with torch.autocast(projection.device.type, enabled=False):
        outputs, *last_c = _Recurrence.apply(  # type: ignore[no-untyped-call]
            projection,
            problem.w_hh.to(kind),
            problem.b_hh,
            state[0].to(kind),
            cell_state,
            problem.cell,
            _pack_noise(problem.sites, projection.device),
        )
    finals = (outputs[:, -1], *last_c)
    return outputs, tuple(part.to(before.dtype) for part, before in zip(finals, state, strict=True))
