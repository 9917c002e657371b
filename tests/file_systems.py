"""Other file systems than the one of the temporary folder, for tests of what a kill or a full disk leaves."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def other_file_system() -> Iterator[Path]:
    """Yield a folder on another file system than temporary files; skip the test where there is none."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or not os.access(shared, os.W_OK):
        pytest.skip("there is no /dev/shm, a file system beside that of the temporary folder")
    if shared.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("the temporary folder is on the file system of /dev/shm: there is no second one")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@contextmanager
def small_file_system(path: Path, n_bytes: int) -> Iterator[Path]:
    """Mount a file system of so many bytes; skip the test where that is not allowed."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small file system needs the right to mount one (root)")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Write a file that leaves so many bytes of a file system free."""
    status = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(b"\0" * max(0, status.f_bavail * status.f_frsize - leave))
    return filler
