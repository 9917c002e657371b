"""What a run does beside training: keep its last state, choose its best one, and say how it goes."""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar

from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurveCallback, metric_name
from asr_dni.model import KeywordSpotter


class LastCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt`` at the end of every epoch, validated or not: what a run is resumed from."""

    def __init__(self) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint`` that chooses over the whole of a run that was resumed.

    Without ``monitor`` there is nothing to choose, and ``last.ckpt`` is the result.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the folder; save nothing where nothing is chosen."""
        super().setup(trainer, pl_module, stage)
        if self.monitor is None and self.save_top_k == 1 and not self.save_last:
            self.save_top_k = 0

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score so far, though the resumed run has a folder of its own."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class TrainingLog(Callback):
    """Says what is trained and prints a line of metrics at every validation."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print what is trained on what."""
        assert isinstance(pl_module, KeywordSpotter)
        network = pl_module.network.settings
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        directions = "bidirectional " if network.bidirectional else ""
        layers = f"{network.layers} layers" if network.layers > 1 else "1 layer"
        print(
            f"{directions}{network.cell.upper()}, {layers} of {network.units} units, {parameters:,} parameters;"
            f" {len(pl_module.label_names)} labels; {trainer.num_training_batches} batches per epoch;"
            f" on {pl_module.device}"
        )
        if trainer.ckpt_path:
            print(f"resumed from {trainer.ckpt_path} after {trainer.current_epoch} epochs")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the metrics of an epoch that was validated."""
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs
        every = trainer.check_val_every_n_epoch or 1
        if not trainer.is_global_zero or (epoch % every and epoch != epochs):
            return
        metrics = trainer.callback_metrics
        names = ["sigma_train", "train/loss", "train/accuracy", "val/loss", "val/accuracy"]
        names += [name for name in metrics if name.startswith("val/accuracy@")]
        # A validation of an earlier epoch is not this epoch's.
        shown = [
            name for name in names if name in metrics and not (name.startswith("val/") and epoch % every)
        ]
        total = f"/{epochs}" if epochs and epochs > 0 else ""
        line = "  ".join(f"{name} {float(metrics[name]):.3f}" for name in shown)
        print(f"epoch {epoch}{total}  {line}", flush=True)


class BareProgressBar(RichProgressBar):
    """A progress bar without metrics, which :class:`TrainingLog` prints."""

    def __init__(self) -> None:
        super().__init__(leave=False)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return none."""
        return {}


def check_monitors(callbacks: list[Any], curve: NoiseCurveCallback) -> None:
    """Check that what early stopping and the choice of a checkpoint watch will be there at every validation.

    Raises:
        UserError: a name that nothing logs.
    """
    levels = {*curve.watched_sigmas, *(curve.sigmas if curve.every_n_epochs == 1 else ())}
    known = ["val/accuracy", "val/loss", "train/accuracy", "train/loss"]
    known += [
        metric_name("val", quantity, sigma) for quantity in ("accuracy", "loss") for sigma in sorted(levels)
    ]
    for callback in callbacks:
        if not isinstance(callback, ModelCheckpoint | EarlyStopping) or callback.monitor in (None, *known):
            continue
        raise UserError(
            f"{type(callback).__name__} monitors {callback.monitor!r}, which nothing measures at every validation:"
            f" give one of {', '.join(known)}, or add the sigma to noise_curve.watched_sigmas"
        )


def on_terminal() -> bool:
    """Return whether somebody watches: a progress bar in a file or pipe is only noise."""
    return sys.stdout.isatty()


def describe_wandb(run: Any) -> str:
    """Return where a W&B run is."""
    if not run.offline:
        return f"W&B: {run.url}"
    folder = Path(run.settings.sync_dir)
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return f"W&B, offline: {shown} (wandb sync uploads it, wandb leet shows it in the terminal)"
