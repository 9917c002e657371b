"""C code that is compiled on first use with the machine's own C compiler, cached, and optional.

Where there is no compiler its caller goes on with torch's operations, which give the same numbers.
What is compiled shares torch's OpenMP threads, so ``torch.set_num_threads`` governs it too.
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

import torch

from asr_dni.files import write_atomically

# Not -ffast-math: it lets NaN vanish in comparisons, and a diverged training must show.
COMPILE_FLAGS = (
    "-O3",
    "-march=native",
    *(("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()),
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-fPIC",
    "-std=gnu11",
)

logger = logging.getLogger(__name__)


class CompiledLibrary:
    """A C file as a shared library.

    Args:
        source: the C file.
        included: files beside it that it includes.
        without: what is so where it cannot be had, for the log.
        flags: of the compiler.
    """

    def __init__(
        self, source: Path, included: Sequence[Path], without: str, flags: Sequence[str] = COMPILE_FLAGS
    ) -> None:
        self.source = source
        self.included = tuple(included)
        self.without = without
        self.flags = tuple(flags)
        self.forget()

    def library(self) -> ctypes.CDLL | None:
        """Return the compiled library, or ``None`` where it cannot be had; the reason is logged once."""
        return self._library()

    def status(self) -> str:
        """Say in one line whether it is in use, and why (not)."""
        loaded, reason = self._load()
        return f"{'compiled' if loaded is not None else 'reference'} ({reason})"

    def forget(self) -> None:
        """Have it looked for anew, as in a new process: the environment has changed."""
        self._load = functools.cache(self._look)
        self._library = functools.cache(self._look_and_tell)

    def _look_and_tell(self) -> ctypes.CDLL | None:
        loaded, reason = self._load()
        if loaded is None:
            logger.warning("%s: %s", self.without, reason)
        return loaded

    def _look(self) -> tuple[ctypes.CDLL | None, str]:
        if os.environ.get("ASR_DNI_NATIVE", "1") == "0":
            return None, "switched off by ASR_DNI_NATIVE=0"
        name = os.environ.get("CC") or next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
        if name is None:
            return None, "no C compiler (cc, gcc or clang) on the PATH"
        try:
            compiler = shlex.split(name)
            version = subprocess.run([*compiler, "--version"], check=True, capture_output=True).stdout
            identity = [
                *(file.read_text() for file in (self.source, *self.included)),
                " ".join(self.flags),
                version.decode(errors="replace"),
                _cpu_identity(),
                torch.__version__,
            ]
            digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]
            target = cache_directory() / f"{self.source.stem}-{digest}.so"
            loaded = ctypes.CDLL(str(target)) if _intact(target) else self._build(compiler, target)
            return loaded, f"compiled by {name}"
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or b"").decode(errors="replace").splitlines()
            return None, f"{name} failed: {lines[0] if lines else error}"
        except (OSError, ValueError) as error:
            return None, f"{name} failed: {error}"

    def _build(self, compiler: list[str], target: Path) -> ctypes.CDLL:
        """Compile and load it, and keep it at ``target`` where that can be written."""
        with tempfile.TemporaryDirectory() as folder:
            compiled, built = Path(folder, f"{self.source.stem}.o"), Path(folder, target.name)
            for command in (
                [*compiler, *self.flags, "-c", str(self.source), "-o", str(compiled)],
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


def cache_directory() -> Path:
    """Return where compiled libraries are kept: ``$ASR_DNI_CACHE``, else ``$XDG_CACHE_HOME/asr_dni``."""
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
