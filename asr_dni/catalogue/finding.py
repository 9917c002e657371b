"""Where results are: runs and studies below a folder, and which of a run's files say what."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asr_dni.errors import printable

CURVE = "noise_curve"
"""A run's own curve, of its test; ``noise_curve.csv``."""
VALIDATION_CURVE = "noise_curve_validation"
"""The newest curve of its validation."""
FURTHER_CURVES = "noise_curve-"
"""Beginning of the names of folders that hold further measurements of a checkpoint, on other data or noise."""

CONFIGURATION = "config.yaml"
METRICS = "metrics.csv"
LOCK = ".lock"

_DEEPEST = 32  # folders below the first one
_NO_RUNS = {"wandb", "noise_curves_validation", "__pycache__", "node_modules"}
_EVALUATION = re.compile(r"evaluation(-.+)?")


@dataclass(frozen=True)
class Stamp:
    """What tells that a file is still the one that was read.

    Attributes:
        size: bytes.
        changed: modification, in nanoseconds since 1970.
        inode: of the file system: a file that takes another's name has another.
    """

    size: int
    changed: int
    inode: int


@dataclass
class FoundRun:
    """A folder with files of a run.

    Attributes:
        identity: its path relative to the catalogue's folder, with slashes; "." for that folder itself.
        files: by path relative to the catalogue's folder: configuration, metrics, curves and checkpoints.
        curves: path of each curve by the curve's name.
        configuration: path of ``config.yaml``.
        metrics: path of ``metrics.csv``.
        lock: path of the lock that its process holds.
        checkpoints: their paths.
        evaluations: paths of the folders that ``asr-dni evaluate`` wrote, by their names.
        predicted: whether decisions on recordings were written.
        faults: what can't be read, by path: links that lead out of the catalogue's folder, folders without permission.
    """

    identity: str
    files: dict[str, Stamp] = field(default_factory=dict)
    curves: dict[str, str] = field(default_factory=dict)
    configuration: str | None = None
    metrics: str | None = None
    lock: str | None = None
    checkpoints: list[str] = field(default_factory=list)
    evaluations: dict[str, str] = field(default_factory=dict)
    predicted: bool = False
    faults: dict[str, str] = field(default_factory=dict)


@dataclass
class Found:
    """What there is below a folder: runs and studies by identity, in natural order."""

    runs: dict[str, FoundRun] = field(default_factory=dict)
    studies: list[str] = field(default_factory=list)


def find_results(folder: Path, links_out: bool = False) -> Found:
    """Look through a folder and all below it, but for what lies within studies, and links to folders.

    Args:
        folder: where to look.
        links_out: whether files that are links out of the folder count; else they are faults.
    """
    found = Found()
    _Search(os.path.realpath(folder), found, links_out).look("", 0)
    found.runs = dict(sorted(found.runs.items(), key=lambda item: _natural(item[0])))
    found.studies.sort(key=_natural)
    return found


def _natural(identity: str) -> list[tuple[bool, int | str]]:
    """Return what orders version_2 before version_10."""
    parts = re.split(r"(\d+)", identity)
    return [(not part.isdigit(), int(part) if part.isdigit() else part) for part in parts]


class _Search:
    def __init__(self, root: str, found: Found, links_out: bool) -> None:
        self.root = root
        self.found = found
        self.links_out = links_out

    def _entries(self, place: str, run: FoundRun) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(f"{self.root}/{place}") as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except FileNotFoundError:  # removed just now
            return []
        except OSError as error:
            run.faults[place or "."] = f"can't be looked into: {error.strerror or error}"
            return []
        foreign = [entry for entry in entries if not _is_utf8(entry.name)]
        for entry in foreign:
            run.faults[printable(f"{place}/{entry.name}")] = "has a name that is not UTF-8: rename it"
            entries.remove(entry)
        return entries

    def look(self, place: str, depth: int) -> None:
        """Look at one folder, then at those below it."""
        run = FoundRun(place or ".")
        entries = self._entries(place, run)
        names = {entry.name for entry in entries}
        if "study.yaml" in names or ("ledger" in names and "common.json" in names):
            self.found.studies.append(place or ".")
            return
        below = []
        for entry in entries:
            path = f"{place}/{entry.name}" if place else entry.name
            if _is_folder(entry):
                if entry.name == "checkpoints":
                    self._look_at_checkpoints(run, path)
                elif entry.name.startswith(FURTHER_CURVES):
                    self._look_at_further(run, path)
                elif _EVALUATION.fullmatch(entry.name) and self._is_evaluation(path, run):
                    run.evaluations[entry.name] = path
                elif not entry.name.startswith(".") and entry.name not in _NO_RUNS:
                    below.append(path)
            elif entry.name == LOCK:
                run.lock = path
            elif entry.name == "predictions.csv":
                run.predicted = True
            elif entry.name == CONFIGURATION and self._note(run, entry, path):
                run.configuration = path
            elif entry.name == METRICS and self._note(run, entry, path):
                run.metrics = path
            elif entry.name in (f"{CURVE}.csv", f"{VALIDATION_CURVE}.csv") and self._note(run, entry, path):
                run.curves[entry.name.removesuffix(".csv")] = path
        if run.files or run.faults:
            self.found.runs[run.identity] = run
        for path in below if depth < _DEEPEST else ():
            self.look(path, depth + 1)

    def _look_at_checkpoints(self, run: FoundRun, place: str) -> None:
        for entry in self._entries(place, run):
            path = f"{place}/{entry.name}"
            if _is_folder(entry):
                if entry.name.startswith(FURTHER_CURVES):
                    self._look_at_further(run, path)
            elif entry.name.endswith(".ckpt") and entry.name[0] != "." and self._note(run, entry, path):
                run.checkpoints.append(path)

    def _look_at_further(self, run: FoundRun, place: str) -> None:
        for entry in self._entries(place, run):
            path = f"{place}/{entry.name}"
            if entry.name == f"{CURVE}.csv" and self._note(run, entry, path):
                run.curves[place.rpartition("/")[2]] = path

    def _is_evaluation(self, place: str, run: FoundRun) -> bool:
        return any(entry.name.endswith(".parquet") for entry in self._entries(place, run))

    def _note(self, run: FoundRun, entry: os.DirEntry[str], path: str) -> bool:
        """Note a file's stamp; not that of a link out of the folder, or of a file that is gone by now."""
        try:
            if entry.is_symlink() and not self.links_out:
                target = os.path.realpath(entry.path)
                if os.path.commonpath([self.root, target]) != self.root:
                    run.faults[path] = "is a link that leads out of the folder"
                    return False
            stat = entry.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            run.faults[path] = f"can't be read: {error.strerror or error}"
            return False
        run.files[path] = Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ino)
        return True


def _is_utf8(name: str) -> bool:
    return name.isascii() or name == printable(name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def validation_curve_files(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield epoch and file of the validation curves that a run has kept."""
    for path in sorted((folder / "noise_curves_validation").glob("epoch_*.csv")):
        number = path.stem.removeprefix("epoch_")
        if number.isdecimal():
            yield int(number), path
