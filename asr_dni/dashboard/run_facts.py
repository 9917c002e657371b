"""What the page of a run says in words and tables: settings beside another run's, files, commands."""

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from asr_dni.catalogue import Run
from asr_dni.catalogue.finding import CURVE, VALIDATION_CURVE
from asr_dni.catalogue.settings_book import flat

_EACH_START = ("ckpt_path", "name", "runs", "seed_everything")
"""Settings that differ from start to start of one training."""


def settings_beside(run: Run, other: Run | None = None) -> pd.DataFrame:
    """Return a run's settings, and another's beside them.

    Args:
        run: whose settings come first.
        other: the other run.

    Returns:
        Columns ``setting`` (dotted), ``value`` and ``other`` (as YAML has them; "" where the run has no such setting;
        all "" without another run), ``differs``; in the order of the files.
    """
    own = _texts(run.settings)
    others = {} if other is None else _texts(other.settings)
    names = [*own, *(name for name in others if name not in own)]
    rows = [
        {
            "setting": name,
            "value": own.get(name, ""),
            "other": others.get(name, ""),
            "differs": other is not None and own.get(name) != others.get(name),
        }
        for name in names
    ]
    return pd.DataFrame(rows, columns=["setting", "value", "other", "differs"]).astype({"differs": bool})


def count_differences(beside: pd.DataFrame) -> tuple[int, int]:
    """Return in how many settings two runs differ, and how many of those are a start's own: its name, its seed."""
    differs = beside[beside["differs"]]["setting"]
    of_start = differs.map(lambda name: name in _EACH_START)
    return len(differs), int(of_start.sum())


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in flat(settings).items()}


def _text(value: Any) -> str:
    """Return a setting as YAML and the command line take it."""
    if value is None or isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def files_of(run: Run) -> pd.DataFrame:
    """Return the files of a run's folder, without those of W&B and hidden ones.

    Returns:
        Columns ``file`` (path below the folder, with slashes), ``bytes``, ``changed`` (UTC), sorted by path.
    """
    rows = []
    for path in sorted(run.path.rglob("*")):
        name = path.relative_to(run.path)
        if any(part.startswith(".") or part == "wandb" for part in name.parts):
            continue
        try:
            if path.is_symlink() or not path.is_file():
                continue
            status = path.stat()
        except OSError:  # it went away
            continue
        changed = pd.Timestamp(status.st_mtime, unit="s", tz="UTC")
        rows.append({"file": name.as_posix(), "bytes": status.st_size, "changed": changed})
    return pd.DataFrame(rows, columns=["file", "bytes", "changed"])


def size_text(size: int) -> str:
    """Return a number of bytes as people read it.

    >>> size_text(512), size_text(1_530_000)
    ('512 B', '1.5 MB')
    """
    if size < 1000:
        return f"{size} B"
    power = min(int(math.log10(size)) // 3, 4)
    return f"{size / 1000**power:.1f} {'kMGT'[power - 1]}B"


def checkpoint_of(run: Run, name: str = "") -> Path | None:
    """Return a run's checkpoint of a file name, or its last one; None where there is none.

    Args:
        run: the run.
        name: of the file; one that the run does not have is passed over.
    """
    checkpoints = run.checkpoints()
    named = [path for path in checkpoints if path.name == name]
    return next(iter([*named, *checkpoints]), None)


def damaged_curve(run: Run) -> str:
    """Return what is wrong with the file of a run's own curve; "" where nothing is."""
    own = f"{CURVE}.csv" if run.identity == "." else f"{run.identity}/{CURVE}.csv"
    return f"{own} {run.faults[own]}" if own in run.faults else ""


def highest_strength(run: Run) -> float:
    """Return the strongest noise of the curve that stands for a run; NaN without one."""
    curves = {name: curve for name, curve in run.curves().items() if name != VALIDATION_CURVE}
    first = curves.get(CURVE) or next(iter(curves.values()), None)
    return math.nan if first is None else float(max(first.levels))


def commands_of(run: Run, folder: Path) -> dict[str, str]:
    """Return the commands that go on with a run, by what they do.

    Args:
        run: the run.
        folder: what paths are given from; paths that are not below it are given whole.
    """

    def shown(path: Path) -> str:
        return shlex.quote(str(path.relative_to(folder) if path.is_relative_to(folder) else path))

    commands = {}
    last = run.path / "checkpoints" / "last.ckpt"
    if last in run.checkpoints() and run.state != "running":
        # A curve that cannot be read was measured at the end of a training all the same.
        done = run.state == "finished" or (run.path / f"{CURVE}.csv").is_file()
        commands["Train it longer" if done else "Go on with it"] = (
            f"asr-dni fit --ckpt_path {shown(last)}{' --trainer.max_epochs EPOCHS' * done}"
        )
    configuration = run.path / "config.yaml"
    if configuration.is_file():
        commands["Repeat it"] = f"asr-dni fit --config {shown(configuration)}"
        if run.seed is not None:
            again = f"asr-dni fit --config {shown(configuration)} --seed_everything {run.seed + 1}"
            commands["Repeat it with another seed"] = again
    checkpoint = checkpoint_of(run)
    if checkpoint is not None:
        # In the place of one that cannot be read; else beside the run's own.
        there = f" --output {shown(run.path)}" if damaged_curve(run) else ""
        commands["Measure its noise curve"] = f"asr-dni noise-curve {shown(checkpoint)}{there}"
        commands["Evaluate it"] = evaluate_command(checkpoint, folder)
        commands["Hear recordings"] = f"asr-dni predict {shown(checkpoint)} FILES"
    return commands


def evaluate_command(checkpoint: Path, folder: Path, *options: str) -> str:
    """Return the command that evaluates a checkpoint.

    Args:
        checkpoint: the file.
        folder: see :func:`commands_of`.
        options: further words of the command.
    """
    path = checkpoint.relative_to(folder) if checkpoint.is_relative_to(folder) else checkpoint
    return shlex.join(["asr-dni", "evaluate", str(path), *options])
