"""What a run does beside training: keep its last state, choose its best one, and say how it goes."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar

from asr_dni.cli.run_files import MetricsLog
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurveCallback, metric_name
from asr_dni.model import KeywordSpotter
from asr_dni.wording import count


class LastCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt`` at the end of every epoch, validated or not: what a run is resumed from.

    The metrics until then are written before it, so that a run that is killed at any moment and resumed has them all.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave a run as it is that was stopped early; Lightning would train it for another epoch."""
        super().on_train_start(trainer, pl_module)
        stopped = [
            callback.stopped_epoch + 1
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.stopped_epoch
        ]
        if stopped:
            trainer.should_stop = True
            if trainer.is_global_zero:
                print(
                    f"the training is finished: it was stopped early after {count(stopped[0], 'epoch')};"
                    " to train longer leave out EarlyStopping"
                )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the metrics, then the checkpoint."""
        metrics = trainer.callback_metrics  # in all processes: computing them may exchange them
        row = {name: value.item() for name, value in metrics.items() if not name.startswith("val/")}
        for logger in trainer.loggers:
            if isinstance(logger, MetricsLog):
                logger.write_ahead({"epoch": trainer.current_epoch, **row}, trainer.global_step - 1)
        super().on_train_epoch_end(trainer, pl_module)


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint`` that chooses over the whole of a run that was resumed.

    Without ``monitor`` there is nothing to choose, and ``last.ckpt`` is the result.

    Args:
        mode: whether the lowest or the highest value of ``monitor`` is the best; auto: the lowest loss, the highest
            accuracy.
        **settings: those of ``ModelCheckpoint``.
    """

    def __init__(self, mode: Literal["auto", "min", "max"] = "auto", **settings: Any) -> None:
        super().__init__(
            mode=(best_mode(settings.get("monitor")) or "max") if mode == "auto" else mode, **settings
        )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the folder; save nothing where nothing is chosen."""
        super().setup(trainer, pl_module, stage)
        if self.monitor is None and self.save_top_k == 1 and not self.save_last:
            self.save_top_k = 0

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score so far, though the resumed run may have a folder of its own, or a moved one."""
        state = {**state_dict, "dirpath": self.dirpath}
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[name] = self._found(state.get(name, ""))
        state["best_k_models"] = {
            self._found(path): score for path, score in state.get("best_k_models", {}).items()
        }
        super().load_state_dict(state)

    def _found(self, path: str) -> str:
        """Return where a file is now that was at ``path`` in a folder that was since moved."""
        here = Path(self.dirpath or "", Path(path).name)
        return str(here) if path and not Path(path).is_file() and here.is_file() else path


class TrainingLog(Callback):
    """Says what is trained and prints a line of metrics at every validation."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print what is trained on what."""
        assert isinstance(pl_module, KeywordSpotter)
        network = pl_module.network.settings
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        kind = "bidirectional " * network.bidirectional + network.cell.upper()
        if network.convolutions is not None:
            kind = f"convolutions ({network.convolutions}) and {kind}"
        batches = count(trainer.num_training_batches, "batch", "batches")
        size = f"{count(network.layers, 'layer')} of {count(network.units, 'unit')}"
        print(
            f"{kind}, {size}, {parameters:,} parameters;"
            f" {len(pl_module.label_names)} labels; {batches} per epoch;"
            f" on {pl_module.device}"
        )
        if trainer.ckpt_path:
            print(f"resumed from {trainer.ckpt_path} after {count(trainer.current_epoch, 'epoch')}")

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


def best_mode(monitor: str | None) -> str | None:
    """Return ``min`` for the name of a loss, ``max`` for that of an accuracy, else ``None``."""
    quantity = (monitor or "").rpartition("/")[2].partition("@")[0]
    return {"loss": "min", "accuracy": "max"}.get(quantity)


def check_monitors(callbacks: list[Any], curve: NoiseCurveCallback, trainer: Mapping[str, Any]) -> None:
    """Check that what early stopping and the choice of a checkpoint watch is measured, and that the best is kept.

    Args:
        callbacks: those of the training.
        curve: measures accuracy and loss under noise.
        trainer: settings of the trainer.

    Raises:
        UserError: a name that nothing logs at every validation, the worst value would be taken for the best, no epoch
            of the run is validated, or the curve is due in epochs that are not validated.
    """
    between = trainer.get("check_val_every_n_epoch") or 1
    if curve.every_n_epochs % between:
        raise UserError(
            f"noise_curve.every_n_epochs is {curve.every_n_epochs}, but only every {between}th epoch is validated"
            f" (trainer.check_val_every_n_epoch): give a multiple of {between}, or 0 (no curves in training)"
        )
    levels = {*curve.watched, *(curve.levels if curve.every_n_epochs == between else ())}
    known = ["val/accuracy", "val/loss", "train/accuracy", "train/loss"]
    known += [
        metric_name("val", quantity, level, curve.strength)
        for quantity in ("accuracy", "loss")
        for level in sorted(levels)
    ]
    for callback in callbacks:
        if not isinstance(callback, ModelCheckpoint | EarlyStopping) or callback.monitor is None:
            continue
        chooses = isinstance(callback, ModelCheckpoint)
        name = "checkpoint" if isinstance(callback, BestCheckpoint) else type(callback).__name__
        if callback.monitor not in known:
            raise UserError(
                f"{name} monitors {callback.monitor!r}, which nothing measures at every validation:"
                f" give one of {', '.join(known)}, or add the"
                f" {curve.strength.word} to noise_curve.watched_{'sigmas' if curve.strength.is_sigma else 'strengths'}"
            )
        mode = best_mode(callback.monitor)
        if callback.mode != mode:
            raise UserError(
                f"{name}.mode is {callback.mode}, which {'keeps the worst' if chooses else 'stops at the best'}"
                f" {callback.monitor}: give {name}.mode {mode}"
            )
        epochs = trainer.get("max_epochs")
        if trainer.get("limit_val_batches") == 0 or (epochs is not None and 0 <= epochs < between):
            raise UserError(
                f"{name} monitors {callback.monitor!r}, but no epoch is validated: trainer.max_epochs is {epochs},"
                f" trainer.check_val_every_n_epoch {between}, trainer.limit_val_batches"
                f" {trainer.get('limit_val_batches')}; validate more often, or give {name}.monitor null"
            )


def call_trainer(
    trainer: pl.Trainer, function: Callable[..., Any], how_to_go_on: Callable[[], str], **arguments: Any
) -> None:
    """Call a method of a trainer, which by itself ends the whole process when it is interrupted.

    Args:
        trainer: whose method is called.
        function: the method.
        how_to_go_on: says what can be done after an interruption; may be empty.
        **arguments: of the method.

    Raises:
        KeyboardInterrupt: with what ``how_to_go_on`` says.
    """
    try:
        function(**arguments)
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt(how_to_go_on()) from None


def on_terminal() -> bool:
    """Return whether somebody watches: a progress bar in a file or pipe is only noise."""
    return sys.stdout.isatty()
