"""A run of several processes looks like one: the main process speaks and writes, for all of them, into one folder."""

import csv
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter, Callback
from pytorch_lightning.loggers import CSVLogger
from torch import distributed

from asr_dni.files import write_atomically
from asr_dni.model import KeywordSpotter
from asr_dni.processes import place_among_processes


def leave_speaking_to_the_main_process() -> None:
    """Silence this process, which the main one has started beside itself; errors are still told."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  as long as the process
    logging.getLogger("asr_dni").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


class RunFolder(Callback):
    """Tells the other processes of a run which folder the main process has taken for it.

    Until then they have none: looking for a free one, each would find its own.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give every process the logger of the same folder."""
        own = next((logger for logger in trainer.loggers if isinstance(logger, CSVLogger)), None)
        taken = (own.save_dir, own.name, own.version) if trainer.is_global_zero and own else None
        taken = trainer.strategy.broadcast(taken)
        if not trainer.is_global_zero and taken is not None:
            folder, name, version = taken
            trainer.loggers = [CSVLogger(folder, name=name, version=version)]


class PredictionTable(BasePredictionWriter):
    """Writes ``predictions.csv``: each clip's name, the decision and the posterior of every label."""

    def __init__(self) -> None:
        super().__init__("epoch")

    def write_on_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write all processes' predictions into the run's folder, in the order of the split."""
        assert isinstance(pl_module, KeywordSpotter)
        folder = Path(
            trainer.log_dir or trainer.default_root_dir
        )  # asked by all processes: it is the main one's
        data = trainer.datamodule  # type: ignore[attr-defined]
        rows = []
        for batch in predictions:
            clips = data.clip_names(batch["clip_ids"].cpu())
            rows += list(zip(clips, batch["posteriors"].float().cpu().tolist(), strict=True))
        rows = _in_order(rows)
        if not trainer.is_global_zero:
            return
        path, names = folder / "predictions.csv", pl_module.label_names
        with write_atomically(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["clip", "decision", *names])
            for clip, posteriors in rows:
                best = max(range(len(names)), key=posteriors.__getitem__)
                writer.writerow([clip, names[best], *(f"{value:.6f}" for value in posteriors)])
        print(f"decisions written to {path}")


def _in_order(rows: list[Any]) -> list[Any]:
    """Return the rows of all processes, of which each had every so-many-th clip; in the main process only."""
    rank, processes = place_among_processes()
    if processes == 1:
        return rows
    gathered: list[list[Any] | None] | None = [None] * processes if rank == 0 else None
    distributed.gather_object(rows, gathered)
    if gathered is None:
        return []
    in_turn = zip_longest(*(its or [] for its in gathered))
    return [row for row in chain.from_iterable(in_turn) if row is not None]
