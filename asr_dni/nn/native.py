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
from pathlib import Path

import torch

from asr_dni.nn.recurrence import LayerNoise, SiteNoise

_SOURCE = Path(__file__).with_name("recurrence.c")
_COMPILE_FLAGS = (
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-ffast-math",
    "-fno-math-errno",
    "-fopenmp",
    "-fPIC",
    "-std=gnu11",
)

logger = logging.getLogger(__name__)


class _SiteNoise(ctypes.Structure):
    _fields_ = (("std", ctypes.c_float), ("k0", ctypes.c_uint32), ("k1", ctypes.c_uint32))


class _LayerNoise(ctypes.Structure):
    _fields_ = (("input", _SiteNoise), ("recurrent", _SiteNoise), ("elementwise", _SiteNoise))


def _site(noise: SiteNoise | None) -> _SiteNoise:
    return _SiteNoise(0.0, 0, 0) if noise is None else _SiteNoise(noise.std, *noise.key)


def c_site_noise(noise: SiteNoise) -> _SiteNoise:
    """Return the C struct ``site_noise``."""
    return _site(noise)


def c_layer_noise(noise: LayerNoise) -> _LayerNoise:
    """Return the C struct ``layer_noise``."""
    return _LayerNoise(_site(noise.input), _site(noise.recurrent), _site(noise.elementwise))


def cache_directory() -> Path:
    """Return where compiled kernels are kept: ``$ASR_DNI_CACHE``, else ``$XDG_CACHE_HOME/asr_dni``."""
    chosen = os.environ.get("ASR_DNI_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asr_dni"


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


def _compile(compiler: list[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        compiled, library = Path(folder, "recurrence.o"), Path(folder, target.name)
        subprocess.run(
            [*compiler, *_COMPILE_FLAGS, "-c", str(_SOURCE), "-o", str(compiled)],
            check=True,
            capture_output=True,
        )
        # Linked without -ffast-math: with it gcc makes the library switch denormals off for the whole process.
        link = [*compiler, "-shared", str(compiled), "-o", str(library), *_openmp_of_torch(), "-lm"]
        subprocess.run(link, check=True, capture_output=True)
        os.replace(library, target)


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("ASR_DNI_NATIVE", "1") == "0":
        return None, "switched off by ASR_DNI_NATIVE=0"
    name = os.environ.get("CC") or next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    if name is None:
        return None, "no C compiler (cc, gcc or clang) on the PATH"
    compiler = shlex.split(name)
    try:
        identity = [
            _SOURCE.read_text(),
            " ".join(_COMPILE_FLAGS),
            subprocess.run([*compiler, "--version"], check=True, capture_output=True, text=True).stdout,
            _cpu_identity(),
            torch.__version__,
        ]
        digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]
        target = cache_directory() / f"recurrence-{digest}.so"
        if not target.exists():
            _compile(compiler, target)
        return ctypes.CDLL(str(target)), f"compiled by {name}"
    except subprocess.CalledProcessError as error:
        lines = (
            error.stderr if isinstance(error.stderr, str) else (error.stderr or b"").decode()
        ).splitlines()
        return None, f"{name} failed: {lines[0] if lines else error}"
    except OSError as error:
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
