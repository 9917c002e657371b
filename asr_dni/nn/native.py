"""The C kernels of the recurrence, see :mod:`asr_dni.compiled`.

Where there is no compiler the reference in torch operations is used instead, which gives the same numbers.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from asr_dni.compiled import CompiledLibrary
from asr_dni.errors import UserError
from asr_dni.nn.cells import CELLS as EQUATIONS
from asr_dni.nn.mvm import Products, in_common
from asr_dni.nn.native_operations import (
    ArrayStructure,
    SiteNoise,
    fields,
    hardware_structures,
    noise_structures,
    noted_width,
)
from asr_dni.nn.operations import GaussianNoise, Quantisation
from asr_dni.nn.recurrence import Sites

_SOURCE = Path(__file__).with_name("recurrence.c")
_HEADERS = (
    "philox.h",
    "operations.h",
    "float32_products.h",
    "bfloat16_products.h",
    "products.h",
    "cells.h",
    "further_cells.h",
)
_KERNELS = CompiledLibrary(
    _SOURCE,
    [_SOURCE.with_name(name) for name in _HEADERS],
    without="noisy layers run on the slower reference implementation",
)
library, status, forget = _KERNELS.library, _KERNELS.status, _KERNELS.forget

CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru", "lstm_peephole", "mgu", "fastgrnn")
"""The cells that ``recurrence.c`` has, in the order in which it counts them."""

KERNELS = ("float32", "converted", "avx512_bf16", "amx_bf16")
"""The kernels of products that ``products.h`` has, in the order in which it counts them: one with factors in float32,
and those with factors in bfloat16, the fastest last. ``converted`` runs on any processor."""
KERNEL_SETTING = "ASR_DNI_BFLOAT16"
"""Environment variable: the kernel for bfloat16 that is to be taken, for tests."""


class _Recurrence(ctypes.Structure):
    _fields_ = (
        *fields(ctypes.c_int64, "networks steps rows features width first_step noted"),
        *fields(
            ctypes.c_int32, "cell joint keep shared repeated threads n_arrays n_pieces n_operations kernel"
        ),
        *fields(
            ctypes.c_void_p,
            "inputs w_ih b_ih projection w_hh b_hh own h c outputs gates kept passed noise arrays pieces "
            "operations dac samples lengths packed scratch sums "
            "d_outputs d_inputs d_projection d_w_ih d_b_ih d_w_hh d_b_hh d_own dh dc",
        ),
        ("inside", ArrayStructure),
    )


_WRITTEN = (
    "outputs",
    "gates",
    "kept",
    "passed",
    "d_inputs",
    "d_projection",
    "d_w_ih",
    "d_b_ih",
    "d_w_hh",
    "d_b_hh",
    "d_own",
    "dh",
    "dc",
)


_TYPES = {"passed": torch.uint8, "lengths": torch.int64}
"""Of arrays that are not float32."""


def keeps_activations(cell: str) -> bool:
    """Return whether the backward pass of a cell needs more than the outputs."""
    return cell not in ("rnn_tanh", "rnn_relu")


def _check_arrays(cell: str, sites: Sites, keep: bool, arrays: Mapping[str, Tensor | None]) -> None:
    """Check everything that ``recurrence.c`` takes for granted."""
    if cell not in CELLS:
        raise ValueError(f"recurrence.c has no cell {cell!r}, only {', '.join(CELLS)}")
    outputs, inputs = arrays["outputs"], arrays.get("inputs")
    if outputs is None or outputs.dim() != 4:
        raise ValueError("recurrence.c needs outputs of four axes: networks, steps, rows, units")
    networks, steps, rows, width = outputs.shape
    gates = len(EQUATIONS[cell].gates) * width
    features = 0 if inputs is None else inputs.shape[-1]
    of_inputs = (
        (steps, rows, features)
        if inputs is not None and inputs.dim() == 3
        else (*outputs.shape[:3], features)
    )
    kept = (networks, steps if keep else 1, rows, width)
    shapes: dict[str, tuple[int, ...]] = {
        "inputs": of_inputs,
        "d_inputs": (*outputs.shape[:3], features),
        "kept": kept,
    }
    shapes |= dict.fromkeys(("w_ih", "d_w_ih"), (networks, gates, features))
    shapes |= dict.fromkeys(("w_hh", "d_w_hh"), (networks, gates, width))
    shapes |= dict.fromkeys(("b_ih", "b_hh", "d_b_ih", "d_b_hh"), (networks, gates))
    shapes |= dict.fromkeys(("projection", "d_projection", "gates"), (networks, steps, rows, gates))
    shapes |= dict.fromkeys(("h", "c", "dh", "dc"), (networks, rows, width))
    shapes |= dict.fromkeys(("outputs", "d_outputs"), (networks, steps, rows, width))
    equations = EQUATIONS[cell]
    shapes |= dict.fromkeys(("own", "d_own"), (networks, len(equations.own), width))
    shapes["lengths"] = networks, rows
    shapes["passed"] = (networks, steps, rows, noted_width(cell, sites, width))
    for name, array in arrays.items():
        if array is None:
            continue
        dtype = _TYPES.get(name, torch.float32)
        if tuple(array.shape) != shapes[name] or array.dtype != dtype or array.device.type != "cpu":
            raise ValueError(
                f"{name} are {tuple(array.shape)}, {array.dtype}, on {array.device}: recurrence.c takes"
                f" {shapes[name]}, {dtype}, on the CPU"
            )
        if name in _WRITTEN and not array.is_contiguous():
            raise ValueError(f"{name} are not contiguous, and are written to")
    needed = ["w_hh", "h", *equations.states[1:], *(["own"] if equations.own else [])]
    needed += ["kept", *(["gates"] if keep else [])] if keeps_activations(cell) else []
    needed += ["projection"] if inputs is None and "d_outputs" not in arrays else []
    needed += ["w_ih"] if inputs is not None else []
    needed += ["passed"] if keep and shapes["passed"][-1] else []
    missing = [name for name in needed if arrays.get(name) is None]
    if missing:
        raise ValueError(f"recurrence.c needs {missing[0]} for the cell {cell}")
    if len(sites.sample_ids) != networks:
        raise ValueError(f"got {len(sites.sample_ids)} noises for {networks} networks")
    inside = sites.elementwise
    if inside is not None and any(isinstance(its, Quantisation) for its in inside.arrays[0]):
        raise ValueError("recurrence.c knows no converters of the products inside a cell")
    for ids in sites.sample_ids:
        _check_draw(ids, rows, sites.first_step, steps)


def _check_draw(sample_ids: Tensor, rows: int, first_step: int, steps: int) -> None:
    if tuple(sample_ids.shape) != (rows,) or sample_ids.is_floating_point() or sample_ids.is_complex():
        raise ValueError(
            f"sample identities are {tuple(sample_ids.shape)} {sample_ids.dtype}: give {rows} integers"
        )
    if not 0 <= first_step <= 2**32 - max(1, steps):
        raise ValueError(f"steps {first_step} to {first_step + steps - 1} are not all in [0, 2**32)")


def _once(arrays: dict[str, Tensor | None], *names: str) -> bool:
    """Return whether all networks have these arrays in common, of which one network's are then left."""
    given = {name: array for name in names if (array := arrays.get(name)) is not None}
    if not given or not all(map(in_common, given.values())):
        return False
    arrays |= {name: array[0] for name, array in given.items()}
    return True


def run_recurrence(
    direction: Literal["forward", "backward"],
    cell: str,
    sites: Sites,
    keep: bool,
    products: Products = "float32",
    **arrays: Tensor | None,
) -> None:
    """Run the C function ``recurrence_forward`` or ``recurrence_backward`` of ``recurrence.c`` on its struct's arrays.

    Args:
        direction: which.
        cell: which equations.
        sites: the hardware.
        keep: whether activations are kept for the backward pass.
        products: the precision of factors.
        **arrays: tensors on the CPU, float32 but those of :data:`_TYPES`; the C file says their names and shapes. Those
            that are written to must be contiguous, the others are made so.

    Raises:
        ValueError: the cell is not one of :data:`CELLS`, or an array, the noise or its sample identities do not have
            the type, device or shape that the C function takes for granted.
        UserError: see :func:`bfloat16_kernel`.
        AssertionError: :func:`library` is ``None``.
    """
    kernels = library()
    assert kernels is not None
    _check_arrays(cell, sites, keep, arrays)
    ids = [its.to("cpu", torch.int64).contiguous() for its in sites.sample_ids]
    forward, inputs = direction == "forward", arrays.get("inputs")
    shared = (inputs is not None and inputs.dim() == 3) or (forward and _once(arrays, "inputs", "projection"))
    repeated = forward and _once(arrays, "w_ih", "b_ih", "w_hh", "b_hh", "own")
    arrays = {
        name: None if array is None else array.resolve_neg().contiguous() for name, array in arrays.items()
    }
    outputs, inputs = arrays["outputs"], arrays.get("inputs")
    assert outputs is not None
    features = None if inputs is None else inputs.shape[-1]
    hardware = hardware_structures(cell, sites, outputs.shape, features)
    lists = {name: (type(its[0]) * len(its))(*its) for name, its in hardware.lists().items() if its}
    problem = _Recurrence(
        *outputs.shape[:3],
        features or 0,
        outputs.shape[3],
        sites.first_step,
        hardware.noted,
        CELLS.index(cell),
        sites.joint,
        keep,
        shared,
        repeated,
        torch.get_num_threads(),
        len(hardware.arrays),
        len(hardware.pieces),
        len(hardware.operations[0]),
        KERNELS.index(products if products == "float32" else bfloat16_kernel()),
        inside=hardware.inside,
        **{name: ctypes.addressof(its) for name, its in lists.items()},
        samples=ctypes.addressof(pointers := (ctypes.c_void_p * len(ids))(*(i.data_ptr() for i in ids))),
        **{name: None if array is None else array.data_ptr() for name, array in arrays.items()},
    )
    sizes = (ctypes.c_int64 * 3)()
    kernels.scratch_sizes(ctypes.byref(problem), ctypes.c_int(direction == "backward"), sizes)
    # The type is named: torch's default is another one in Lightning's precisions 64-true, bf16-true and 16-true.
    scratch = [torch.empty(size, dtype=torch.float32) for size in sizes]
    problem.packed, problem.scratch, problem.sums = (array.data_ptr() for array in scratch)
    getattr(kernels, f"recurrence_{direction}")(ctypes.byref(problem))
    del hardware, lists, pointers  # kept alive until here


def bfloat16_kernel() -> str:
    """Return by which of :data:`KERNELS` products with factors in bfloat16 are made: the fastest one of this processor.

    Raises:
        UserError: the environment's ``ASR_DNI_BFLOAT16`` is not one that this processor has.
        AssertionError: :func:`library` is ``None``.
    """
    kernels = library()
    assert kernels is not None
    has = [name for number, name in enumerate(KERNELS) if number and kernels.has_products(number)]
    wanted = os.environ.get(KERNEL_SETTING) or has[-1]
    if wanted not in has:
        raise UserError(f"{KERNEL_SETTING} is {wanted!r}: on this processor give one of {', '.join(has)}")
    return wanted


def draw_gaussian(
    noise: GaussianNoise,
    sample_ids: Sequence[Tensor],
    first_step: int,
    steps: int,
    groups: int,
    width: int,
    like: Tensor,
) -> Tensor:
    """Draw what :func:`asr_dni.nn.operations.draw_plain` draws, from the same 32-bit words.

    Raises:
        ValueError: ``groups`` is not 1 to 4, or the identities or steps are not what they have to be.
        AssertionError: :func:`library` is ``None``.
    """
    kernels = library()
    assert kernels is not None
    if not 1 <= groups <= 4 or width < 0 or steps < 0:
        raise ValueError(
            f"groups must be 1 to 4, width and steps at least 0, not {groups}, {width} and {steps}"
        )
    rows = sample_ids[0].numel()
    for its in sample_ids:
        _check_draw(its, rows, first_step, steps)
    drawn = torch.empty(len(sample_ids), steps, rows, groups * width, dtype=torch.float32)
    kept: list[Tensor] = []
    structures = noise_structures(noise, len(sample_ids), kept)
    ids = [its.to("cpu", torch.int64).contiguous() for its in sample_ids]
    kernels.draw_gaussian(
        ctypes.c_void_p(drawn.data_ptr()),
        *map(ctypes.c_ssize_t, (len(ids), steps, rows, width)),
        ctypes.c_int(groups),
        (SiteNoise * len(ids))(*structures),
        (ctypes.c_void_p * len(ids))(*(its.data_ptr() for its in ids)),
        ctypes.c_int64(first_step),
    )
    return drawn.to(like.dtype)
