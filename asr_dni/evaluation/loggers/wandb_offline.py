"""Runs that W&B has not got yet: they were logged offline, and lie below the folder of runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout


@dataclass(frozen=True)
class OfflineRun:
    """A run that W&B logged offline.

    Attributes:
        folder: ``offline-run-<time>-<id>``.
        file: what W&B uploads.
    """

    folder: Path
    file: Path

    @property
    def state(self) -> Literal["uploaded", "being written", "waiting"]:
        """Whether it was uploaded, which W&B's client notes beside the file; or its training is still under way."""
        if self.file.with_name(f"{self.file.name}.synced").exists():
            return "uploaded"
        return "being written" if _is_locked(self.folder.parents[1] / ".lock") else "waiting"


def _is_locked(lock: Path) -> bool:
    """Return whether a process holds the lock of a run's folder."""
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a file system without locks, or one that is only read
        return False


def offline_runs(folder: Path) -> list[OfflineRun]:
    """Return the offline runs in or below a folder, the oldest first."""
    own = [folder] if folder.name.startswith("offline-run-") else []
    folders = [*own, *folder.rglob("offline-run-*")]
    found = [
        OfflineRun(path, file)
        for path in folders
        if path.is_dir()
        for file in sorted(path.glob("run-*.wandb"))
    ]
    return sorted(found, key=lambda run: run.folder.name)
