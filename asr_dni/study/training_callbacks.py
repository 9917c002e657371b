"""What goes along with the training of a study's population: its progress, its checkpoint, and less chatter."""

import contextlib
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint

from asr_dni.study.folder import Progress


class Work(Protocol):
    """The work on a population, as far as it goes along with the training.

    Attributes:
        progress: how far it is.
        training: whether a step was taken.
        checkpoint: the file that it is resumed from.
        checkpoint_seconds: time between checkpoints.
    """

    progress: Progress
    training: bool
    checkpoint: Path
    checkpoint_seconds: float

    @property
    def training_part(self) -> float:
        """Part of all work that the training is."""

    def note(self, force: bool = False, **changes: Any) -> None:
        """Write down how far the work is."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out Lightning's chatter and advice that does not apply here."""
    names = ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",
                ".*GPU available but not used.*",
                ".*isinstance.treespec, LeafSpec.*",
                ".*but have no `val_dataloader`.*",
                ".*You are trying to `self.log.*no logger.*",
                ".*Trying to infer the `batch_size`.*",
                ".*callbacks used to create the checkpoint need to be provided.*",
                ".*resuming from a checkpoint that ended before the epoch ended.*",
                ".*Checkpoint directory .* exists and is not empty.*",
            ):
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class ProgressNote(Callback):
    """Notes epochs and time."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._since = time.monotonic()
        self._before = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count the time."""
        self._since = time.monotonic()
        self._before = self.work.progress.train_seconds

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note how far the training is."""
        self.work.training = True
        done = trainer.global_step / max(1, int(trainer.estimated_stepping_batches))
        self.work.note(
            epoch=trainer.current_epoch,
            fraction=self.work.training_part * min(done, 1.0),
            train_seconds=self._before + time.monotonic() - self._since,
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the epoch."""
        self.work.note(epoch=trainer.current_epoch + 1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time that it took."""
        seconds = self._before + time.monotonic() - self._since
        self.work.note(force=True, train_seconds=seconds, epoch=trainer.current_epoch)


class ResumeCheckpoint(Checkpoint):
    """Writes what the population is resumed from; being a checkpoint it comes after the module's own hooks."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._saved = time.monotonic()

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.work.checkpoint, weights_only=False)
        self._saved = time.monotonic()
        self.work.note(force=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count the time."""
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint where the last one is old enough."""
        # The last batch's state is saved at the end of its epoch.
        last = batch_idx + 1 >= trainer.num_training_batches
        if not last and time.monotonic() - self._saved >= self.work.checkpoint_seconds:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a checkpoint where the last one is old enough, and at the end."""
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if last or time.monotonic() - self._saved >= self.work.checkpoint_seconds:
            self._save(trainer)
