"""The C kernels: compiled on first use with the machine's own C compiler, cached, and optional.

Where there is no compiler the reference in torch operations is used instead, which gives the same numbers.
The kernels share torch's OpenMP threads, so ``torch.set_num_threads`` governs them too.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from asr_dni.files import write_atomically
from asr_dni.nn.recurrence import LayerNoise, SiteNoise

_SOURCE = Path(__file__).with_name("recurrence.c")
# Not -ffast-math: it lets NaN vanish in comparisons, and a diverged training must show.
_COMPILE_FLAGS = (
    "-O3",
    "-march=native",
    *(("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()),
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-fPIC",
    "-std=gnu11",
)

CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")
"""The cells that ``recurrence.c`` has, in the order in which it counts them."""

logger = logging.getLogger(__name__)


class _SiteNoise(ctypes.Structure):
    _fields_ = (("std", ctypes.c_float), ("k0", ctypes.c_uint32), ("k1", ctypes.c_uint32))


class _LayerNoise(ctypes.Structure):
    _fields_ = (("input", _SiteNoise), ("recurrent", _SiteNoise), ("elementwise", _SiteNoise))


def _site(noise: SiteNoise | None) -> _SiteNoise:
    return _SiteNoise(0.0, 0, 0) if noise is None else _SiteNoise(noise.std, *noise.key)


def _layer(noise: LayerNoise) -> _LayerNoise:
    return _LayerNoise(_site(noise.input), _site(noise.recurrent), _site(noise.elementwise))


def _fields(kind: type, names: str) -> tuple[tuple[str, type], ...]:
    return tuple((name, kind) for name in names.split())


class _Recurrence(ctypes.Structure):
    _fields_ = (
        *_fields(ctypes.c_int64, "networks steps rows features width first_step"),
        *_fields(ctypes.c_int32, "cell recurrent_n_only keep shared threads"),
        *_fields(
            ctypes.c_void_p,
            "inputs w_ih b_ih projection w_hh b_hh h c outputs gates kept noise samples packed scratch sums "
            "d_outputs d_inputs d_projection d_w_ih d_b_ih d_w_hh d_b_hh dh dc",
        ),
    )


def run_recurrence(
    direction: Literal["forward", "backward"],
    cell: str,
    noise: Sequence[LayerNoise],
    keep: bool,
    **arrays: Tensor | None,
) -> None:
    """Run the C function ``recurrence_forward`` or ``recurrence_backward`` of ``recurrence.c`` on its struct's arrays.

    Args:
        direction: which.
        cell: which equations.
        noise: of each network; the backward pass does not look at it.
        keep: whether activations are kept for the backward pass.
        **arrays: float32 tensors on the CPU; the C file says their names and shapes. Those that are written to must be
            contiguous, the others are made so.

    Raises:
        AssertionError: :func:`library` is ``None``.
    """
    kernels = library()
    assert kernels is not None
    ids = [layer.sample_ids.to("cpu", torch.int64).contiguous() for layer in noise]
    arrays = {name: None if array is None else array.contiguous() for name, array in arrays.items()}
    outputs, inputs = arrays["outputs"], arrays["inputs"]
    assert outputs is not None
    problem = _Recurrence(
        *outputs.shape[:3],
        0 if inputs is None else inputs.shape[-1],
        outputs.shape[3],
        noise[0].first_step,
        CELLS.index(cell),
        noise[0].recurrent_apart_only,
        keep,
        inputs is not None and inputs.dim() == 3,
        torch.get_num_threads(),
        noise=ctypes.addressof(noises := (_LayerNoise * len(noise))(*map(_layer, noise))),
        samples=ctypes.addressof(pointers := (ctypes.c_void_p * len(noise))(*(i.data_ptr() for i in ids))),
        **{name: None if array is None else array.data_ptr() for name, array in arrays.items()},
    )
    sizes = (ctypes.c_int64 * 3)()
    kernels.scratch_sizes(ctypes.byref(problem), ctypes.c_int(direction == "backward"), sizes)
    scratch = [torch.empty(size) for size in sizes]
    problem.packed, problem.scratch, problem.sums = (array.data_ptr() for array in scratch)
    getattr(kernels, f"recurrence_{direction}")(ctypes.byref(problem))
    del noises, pointers  # kept alive until here


def cache_directory() -> Path:
    """Return where compiled kernels are kept: ``$ASR_DNI_CACHE``, else ``$XDG_CACHE_HOME/asr_dni``."""
    chosen = os.environ.get("ASR_DNI_CACHE")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asr_dni"
    except RuntimeError:
        # A user without a home, as in containers: nothing is kept.
        return Path(os.devnull) / "asr_dni"


def _cpu_identity() -> str:
    """Return what ``-march=native`` depends on, so that a cache shared by machines stays right."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def _openmp_of_torch() -> list[str]:
    """Return the OpenMP library that torch brings, as a link argument; else the compiler's own."""
    root = Path(torch.__file__).parent
    for folder in (root / "lib", root.parent / "torch.libs"):
        for library in sorted(folder.glob("libgomp*.so*")):
            return [str(library)]
    return ["-lgomp"]


def _seal(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _intact(library: Path) -> bool:
    """Whether a library is whole: loading a damaged one would end the process, not raise."""
    content = library.read_bytes() if library.is_file() else b""
    return content[-32:] == _seal(content[:-32])


def _build(compiler: list[str], target: Path) -> ctypes.CDLL:
    """Compile and load the kernels, and keep them at ``target`` where that can be written."""
    with tempfile.TemporaryDirectory() as folder:
        compiled, built = Path(folder, "recurrence.o"), Path(folder, target.name)
        for command in (
            [*compiler, *_COMPILE_FLAGS, "-c", str(_SOURCE), "-o", str(compiled)],
            # Apart from compiling: with -fopenmp here there would be a second OpenMP library beside torch's.
            [*compiler, "-shared", str(compiled), "-o", str(built), *_openmp_of_torch(), "-lm"],
        ):
            subprocess.run(command, check=True, capture_output=True)
        content = built.read_bytes()
        try:
            with write_atomically(target) as temporary:
                temporary.write_bytes(content + _seal(content))
        except OSError:
            return ctypes.CDLL(str(built))
    try:
        return ctypes.CDLL(str(target))
    except OSError:
        target.unlink(missing_ok=True)
        raise


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("ASR_DNI_NATIVE", "1") == "0":
        return None, "switched off by ASR_DNI_NATIVE=0"
    name = os.environ.get("CC") or next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    if name is None:
        return None, "no C compiler (cc, gcc or clang) on the PATH"
    try:
        compiler = shlex.split(name)
        version = subprocess.run([*compiler, "--version"], check=True, capture_output=True).stdout
        identity = [
            _SOURCE.read_text(),
            " ".join(_COMPILE_FLAGS),
            version.decode(errors="replace"),
            _cpu_identity(),
            torch.__version__,
        ]
        digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]
        target = cache_directory() / f"recurrence-{digest}.so"
        loaded = ctypes.CDLL(str(target)) if _intact(target) else _build(compiler, target)
        return loaded, f"compiled by {name}"
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or b"").decode(errors="replace").splitlines()
        return None, f"{name} failed: {lines[0] if lines else error}"
    except (OSError, ValueError) as error:
        return None, f"{name} failed: {error}"


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or ``None`` where they cannot be had; the reason is logged once."""
    loaded, reason = _load()
    if loaded is None:
        logger.warning("noisy layers run on the slower reference implementation: %s", reason)
    return loaded


def status() -> str:
    """Say in one line whether the compiled kernels are in use, and why (not)."""
    loaded, reason = _load()
    return f"{'compiled' if loaded is not None else 'reference'} ({reason})"


def draw_gaussian(
    noise: SiteNoise, sample_ids: Tensor, first_step: int, steps: int, groups: int, width: int
) -> Tensor:
    """Draw what :func:`asr_dni.nn.recurrence.draw_plain` draws, float32 on the CPU, from the same 32-bit words.

    Raises:
        AssertionError: :func:`library` is ``None``.
    """
    kernels = library()
    assert kernels is not None
    ids = sample_ids.to("cpu", torch.int64).contiguous()
    drawn = torch.empty(steps, ids.numel(), groups * width)
    kernels.draw_gaussian(
        ctypes.c_void_p(drawn.data_ptr()),
        ctypes.c_ssize_t(steps),
        ctypes.c_ssize_t(ids.numel()),
        ctypes.c_ssize_t(width),
        ctypes.c_int(groups),
        ctypes.byref(_site(noise)),
        ctypes.c_void_p(ids.data_ptr()),
        ctypes.c_int64(first_step),
    )
    return drawn
