"""The files of a run: a folder that one start claims and a resumed one goes on in, metrics and configuration."""

import csv
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from filelock import FileLock, Timeout
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.core.saving import save_hparams_to_yaml
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from asr_dni.errors import UserError
from asr_dni.files import write_atomically

_SECONDS_BETWEEN_WRITES = 5.0
_LOCK = ".lock"
_SECONDS_FOR_LOCK = 0.5


@contextmanager
def claimed_folder(runs: Path, version: str | None = None) -> Iterator[Path]:
    """Take a folder for a run's results, while the block lasts; it is removed if it stays empty.

    Args:
        runs: the folder of all runs of one name.
        version: name of the run's folder; ``None``: the next free of ``version_0``, ``version_1`` and so on, of which
            several processes that start at one instant each get their own.

    Raises:
        UserError: another process uses the folder.
        OSError: it cannot be made.
    """
    runs.mkdir(parents=True, exist_ok=True)
    path = runs / version if version is not None else _make_next_version(runs)
    path.mkdir(exist_ok=True)
    with ExitStack() as held:
        held.callback(_remove_if_empty, path)
        _lock(path, held)
        yield path


@contextmanager
def resumed_folder(path: Path) -> Iterator[Path]:
    """Go on in the folder of a run, while the block lasts.

    Raises:
        UserError: another process uses the folder.
    """
    with ExitStack() as held:
        _lock(path, held)
        yield path


def folder_of_last_checkpoint(checkpoint: Path) -> Path | None:
    """Return the folder of the run that a ``last.ckpt`` is the last state of; ``None`` for other checkpoints."""
    folder = checkpoint.absolute().parent.parent
    if checkpoint.absolute().relative_to(folder) != Path("checkpoints", "last.ckpt"):
        return None
    return folder if (folder / "config.yaml").is_file() else None


def _make_next_version(runs: Path) -> Path:
    taken = [re.fullmatch(r"version_(\d+)", entry.name) for entry in runs.iterdir()]
    version = max((int(match[1]) for match in taken if match), default=-1) + 1
    while True:
        path = runs / f"version_{version}"
        try:
            path.mkdir()  # of two at once one succeeds
        except FileExistsError:
            version += 1
        else:
            return path


def _lock(path: Path, held: ExitStack) -> None:
    # A catalogue asks in passing whether the lock is held, see asr_dni.catalogue.locks.
    lock = FileLock(path / _LOCK, timeout=_SECONDS_FOR_LOCK)
    try:
        held.enter_context(lock)
    except Timeout:
        raise UserError(
            f"{path}: another process is writing a run there; wait for it, or give another --name"
        ) from None
    except (OSError, NotImplementedError):  # a file system without locks
        return


def _remove_if_empty(path: Path) -> None:
    with suppress(OSError):
        if [entry.name for entry in path.iterdir()] in ([], [_LOCK]):
            (path / _LOCK).unlink(missing_ok=True)
            path.rmdir()


class MetricsLog(CSVLogger):
    """Lightning's ``CSVLogger``, whose files are whole at any moment, and which goes on with those of a resumed run.

    Args:
        folder: of the run.
        before_step: the step that a resumed run goes on with: what is there of later ones, which will be taken again,
            is left out; ``None``: nothing is there.
    """

    def __init__(self, folder: Path, before_step: int | None = None) -> None:
        super().__init__(folder.parent.parent, name=folder.parent.name, version=folder.name)
        self._before_step = before_step

    @property
    @rank_zero_experiment
    def experiment(self) -> "_MetricsFile":
        """What writes the files."""
        if self._experiment is None:
            self._experiment = _MetricsFile(Path(self.log_dir), self._before_step)
        assert isinstance(self._experiment, _MetricsFile)
        return self._experiment

    @rank_zero_only
    def write_ahead(self, metrics: Mapping[str, Any], step: int) -> None:
        """Write everything, and a row that will be logged only when the checkpoint is there that it belongs to."""
        self.experiment.write_ahead(metrics, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is not written yet."""
        if self._experiment is not None:
            self.experiment.write()


class _MetricsFile(ExperimentWriter):
    def __init__(self, folder: Path, before_step: int | None) -> None:
        # Lightning's own removes the metrics that are there, and appends to the file: a kill leaves part of a number.
        self.log_dir = str(folder)
        self.path = folder / self.NAME_METRICS_FILE
        self.hparams: dict[str, Any] = {}
        self.metrics: list[dict[str, Any]] = []
        self._ahead: list[dict[str, Any]] = []
        self._written = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if before_step is not None and self.path.is_file():
            self.metrics = _rows_before(self.path, before_step)

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        self._ahead = []
        super().log_metrics(metrics_dict, step)

    def log_hparams(self, params: dict[str, Any]) -> None:
        self.hparams.update(params)
        with write_atomically(Path(self.log_dir, self.NAME_HPARAMS_FILE)) as temporary:
            save_hparams_to_yaml(temporary, self.hparams)

    def write_ahead(self, metrics: Mapping[str, Any], step: int) -> None:
        self._ahead = [{**metrics, "step": step}]
        self.write()

    def save(self) -> None:
        if time.monotonic() - self._written >= _SECONDS_BETWEEN_WRITES:  # Lightning asks after every row
            self.write()

    def write(self) -> None:
        rows = [*self.metrics, *self._ahead]
        if not rows:
            return
        with (
            write_atomically(self.path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=sorted(set().union(*rows)))
            writer.writeheader()
            writer.writerows(rows)
        self._written = time.monotonic()


def _rows_before(path: Path, step: int) -> list[dict[str, Any]]:
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = [
            {name: value for name, value in row.items() if name and value} for row in csv.DictReader(file)
        ]
    return [row for row in rows if row.get("step", "").isdecimal() and int(row["step"]) < step]


class SaveConfiguration(SaveConfigCallback):
    """Writes a run's configuration, ``config.yaml``, whole."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the file into the run's folder."""
        folder = trainer.log_dir  # asked by all processes: it is the main one's
        if self.already_saved or not trainer.is_global_zero or folder is None:
            return
        config = self.config.clone()
        if config.ckpt_path is not None:
            resumed = folder_of_last_checkpoint(Path(config.ckpt_path))
            if resumed is not None and resumed.samefile(folder):
                config.ckpt_path = None  # a run that goes on in its folder begins where it began
        with write_atomically(Path(folder, self.config_filename)) as temporary:
            self.parser.save(
                config, str(temporary), skip_none=False, overwrite=True, multifile=self.multifile
            )
        self.already_saved = True
