"""Measure noise curves while a network is trained and after it is tested."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve, Over
from asr_dni.evaluation.figures.noise_curves import save_noise_curve
from asr_dni.evaluation.measurement.measuring import NoiseCurveMetric
from asr_dni.evaluation.measurement.scoring import NoisyClassifier
from asr_dni.evaluation.measurement.sweep import Sweep, check_draws, check_levels, choose_levels
from asr_dni.hardware_files import noise_of
from asr_dni.noise import MVM_SITES, SIGMA, Arrays, Scale, Site, Strength

_NETWORK_METHODS = ("project", "inputs_exact", "classify", "under", "snr_db")


def metric_name(split: str, quantity: str, level: float, strength: Strength = SIGMA) -> str:
    """Return the name under which a level's value is logged: ``val/accuracy@1.0``, or ``val/accuracy@adc_bits=6.0``.

    Args:
        split: ``val`` or ``test``.
        quantity: ``accuracy`` or ``loss``.
        level: value of the strength.
        strength: the axis; of sigma the level alone is named.
    """
    axis = "" if strength.is_sigma else f"{strength.name}="
    return f"{split}/{quantity}@{axis}{float(level)}"


def _is_trial(trainer: pl.Trainer) -> bool:
    return bool(getattr(trainer, "fast_dev_run", False))


def _checkpoint(trainer: pl.Trainer) -> dict[str, Any]:
    return {"checkpoint": str(trainer.ckpt_path)} if trainer.ckpt_path else {}


def _training_seed(data: Any) -> int | None:
    """Return the seed of a run; None: nothing tells.

    Where ``seed_everything`` notes its seed, in the environment, another run's may have been left: it counts only where
    torch's generator, too, was seeded with it.
    """
    seed = getattr(data, "seed", None)
    if isinstance(seed, int):
        return seed
    noted = os.environ.get("PL_GLOBAL_SEED", "")
    return int(noted) if noted.isdecimal() and torch.initial_seed() == int(noted) else None


class NoiseCurveCallback(Callback):
    """Measures the noise curve in validation every k epochs, and after test.

    The curve is measured on the batches of the validation (or test) itself, each while it is at hand: nothing
    is decoded or transformed again, nothing is kept. The noise is a function of ``seed``, draw and clip: the
    training's randomness is not touched, and training goes on as if the callback were not there. With several
    processes the counts are summed.

    **Logged**, to every logger and for other callbacks: ``val/accuracy@S`` and ``val/loss@S`` (means over chips and
    draws), and ``test/...`` after test, for every level S, written as Python writes the float: ``val/accuracy@1.0``; of
    another strength than sigma with its name, ``val/accuracy@adc_bits=6.0``. Early stopping and checkpoint choice can
    monitor them. In epochs in which the curve is not measured, Lightning shows them their last value again: patience
    counts those epochs too, and before the first curve the name does not exist. So list the level to be monitored in
    ``watched_sigmas`` (or ``watched_strengths``): it is measured at every validation.

    **Written**: ``noise_curve.csv``, ``.png`` and ``.svg`` after test; ``noise_curve_validation`` likewise,
    replaced by the newest, and ``noise_curves_validation/epoch_0004.csv``, which stay (not in
    ``fast_dev_run``). They go to ``directory``, else to ``save_dir/name/version`` of the first logger, where
    Lightning puts checkpoints too, else to the trainer's ``default_root_dir``.

    **W&B**, where there is a ``WandbLogger``: a table and a chart as well, and the curve as a series over
    its strength (of validation: the last one, at the end of the training), see
    :mod:`asr_dni.evaluation.loggers.wandb_log`. **TensorBoard**, where there is a ``TensorBoardLogger``: the picture,
    and the hyperparameters with the curve's :meth:`~asr_dni.evaluation.CurveSummary.key_figures`.

    The curve's settings, by which :func:`~asr_dni.catalogue.compare.compare_curves` groups runs, are those
    of the noise, the seed (the datamodule's; where it has none that of Lightning's ``seed_everything``), the number of
    classes, the datamodule's ``protocol_of(split)`` or ``protocol``, what the module's and the datamodule's method
    ``curve_settings() -> dict`` returns where they have one, and ``settings``. The fingerprint ``weights`` tells
    checkpoints apart.

    Args:
        sigmas: levels of the curve over the sigma of the output noise, where there are no ``strengths``.
        draws: realisations of the noise per level and chip in test (and in ``trainer.validate``).
        every_n_epochs: the curve is measured in validation of every so-many-th epoch and of the last one; 0:
            never.
        validation_draws: realisations per level in validation during training.
        watched_sigmas: levels that are measured at every validation, likewise.
        scale: what sigma is measured in, see :class:`asr_dni.noise.Noise`.
        sites: where the noise enters.
        arrays: whether W_ih and W_hh share one array (``joint``) or not (``separate``).
        seed: seed of the noise.
        over: what the interval in pictures covers: other test ``clips``, draws of the noise included, or other
            ``draws`` on the same clips alone.
        directory: where files go.
        settings: noted with the curve; overrides what is found by itself.
        hardware: any other hardware than the additive Gaussian one, as :class:`asr_dni.noise.Hardware` has it: a
            mapping, the name of a configuration in ``conf/hardware``, or a YAML file; scale, sites and arrays are then
            its own.
        strength: which of the hardware's numbers is the axis, such as ``adc.bits``.
        strengths: levels of the curve over this strength.
        watched_strengths: those of them that are measured at every validation.
        chips: how many chips each level is measured on, where weights differ from chip to chip.

    Raises:
        UserError: an argument is out of range, there are no sites, or the module has no noisy ``network``.
    """

    def __init__(
        self,
        sigmas: Sequence[float] = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0),
        draws: int = 10,
        every_n_epochs: int = 5,
        validation_draws: int = 2,
        watched_sigmas: Sequence[float] = (),
        scale: Scale = "absolute",
        sites: Sequence[Site] = MVM_SITES,
        arrays: Arrays = "joint",
        seed: int = 0,
        over: Over = "clips",
        directory: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        hardware: dict[str, Any] | str | None = None,
        strength: str = SIGMA.path,
        strengths: Sequence[float] | None = None,
        watched_strengths: Sequence[float] = (),
        chips: int = 1,
    ) -> None:
        super().__init__()
        self.strength = Strength.parse(strength)
        """The axis."""
        self.levels = choose_levels(self.strength, sigmas, strengths)
        """Its values at which the curve is measured."""
        self.draws = check_draws(draws)
        self.validation_draws = check_draws(validation_draws, "validation_draws")
        if every_n_epochs < 0:
            raise UserError(f"every_n_epochs is {every_n_epochs}: give 0 (never) or more")
        self.every_n_epochs = every_n_epochs
        watched = watched_strengths or (watched_sigmas if self.strength.is_sigma else ())
        self.watched = check_levels(watched, "watched_strengths") if watched else ()
        """Those that are measured at every validation."""
        self.noise = noise_of(hardware, scale, sites, arrays, seed)
        self.chips = chips
        Sweep(sorted({*self.levels, *self.watched}), self.draws, self.noise, self.strength, chips)
        self.over: Over = over
        self.directory = directory
        self.settings = dict(settings or {})
        self.curve: NoiseCurve | None = None
        """The last curve that was measured."""
        self._metric: NoiseCurveMetric | None = None
        self._whole = False
        self._validation_curve: NoiseCurve | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the module has a network whose noise can be set."""
        network = getattr(pl_module, "network", None)
        if not isinstance(network, nn.Module) or not all(hasattr(network, name) for name in _NETWORK_METHODS):
            raise UserError(
                f"the noise curve needs a noisy network: {type(pl_module).__name__}.network has to offer"
                f" {', '.join(_NETWORK_METHODS)}"
            )

    # Validation

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Decide what this validation measures."""
        self._metric = None
        if trainer.sanity_checking:
            return
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._whole = not fitting or self._is_due(trainer)
        levels = {*self.watched, *(self.levels if self._whole else ())}
        if levels:
            self._start(pl_module, trainer, sorted(levels), self.validation_draws if fitting else self.draws)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Run the batch through the levels; of several data loaders the first one's."""
        if self._metric is None or dataloader_idx > 0:
            return
        if not all(hasattr(batch, name) for name in ("features", "labels", "clip_ids")):
            raise UserError(
                "the noise curve needs batches with features, labels and clip_ids, not"
                f" {type(batch).__name__}"
            )
        self._metric.update(cast(NoisyClassifier, pl_module.network), batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log and write what was measured."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        # Outside of a training Lightning's count of epochs is 0, whatever the weights.
        found = {"epoch": trainer.current_epoch} if fitting else _checkpoint(trainer)
        curve = self._finish(trainer, pl_module, "val", {"split": "validation", **found})
        if curve is None or not self._whole:
            return
        self.curve = self._validation_curve = curve
        if trainer.is_global_zero and not _is_trial(trainer):
            directory = self._directory(trainer)
            save_noise_curve(curve, directory, "noise_curve_validation", self.over)
            if fitting:
                curve.to_csv(directory / "noise_curves_validation" / f"epoch_{trainer.current_epoch:04d}.csv")
        self._log_picture(trainer, curve, "val", series=not fitting)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the last validation curve to W&B as a series: a run holds one."""
        if self._validation_curve is not None:
            self._log_picture(trainer, self._validation_curve, "val", picture=False)

    # Test

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the test's curve."""
        self._start(pl_module, trainer, sorted({*self.levels, *self.watched}), self.draws)

    on_test_batch_end = on_validation_batch_end

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log and write the test's curve."""
        curve = self._finish(trainer, pl_module, "test", {"split": "test", **_checkpoint(trainer)})
        if curve is None:
            return
        self.curve = curve
        if trainer.is_global_zero and not _is_trial(trainer):
            save_noise_curve(curve, self._directory(trainer), over=self.over)
        self._log_picture(trainer, curve, "test")

    # Parts

    def _is_due(self, trainer: pl.Trainer) -> bool:
        if not self.every_n_epochs:
            return False
        epochs = trainer.current_epoch + 1
        return epochs % self.every_n_epochs == 0 or epochs == trainer.max_epochs

    def _start(
        self, pl_module: pl.LightningModule, trainer: pl.Trainer, levels: Sequence[float], draws: int
    ) -> None:
        sweep = Sweep(levels, draws, self.noise, self.strength)
        # Watched levels alone may be such that all chips are the same.
        chips = self.chips if any(level.noise.hardware.has_chips for level in sweep.levels) else 1
        self._metric = NoiseCurveMetric(levels, draws, self.noise, self.strength, chips)
        if trainer.world_size > 1:
            self._metric.to(pl_module.device)  # processes on GPUs can only exchange what is there

    def _finish(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str, found: Mapping[str, Any]
    ) -> NoiseCurve | None:
        if self._metric is None:
            return None
        settings = self._common_settings(trainer, pl_module, found["split"]) | dict(found) | self.settings
        curve = self._metric.curve(cast(NoisyClassifier, pl_module.network), settings)
        self._metric = None
        for row in curve.summary().frame.to_dict("records"):
            for quantity in ("accuracy", "loss"):
                # Already summed over processes, so every one logs the same.
                pl_module.log(
                    metric_name(split, quantity, row["strength"], self.strength),
                    float(row[quantity]),
                    on_step=False,
                    on_epoch=True,
                    add_dataloader_idx=False,
                    batch_size=int(row["n_clips"]),
                )
        return curve

    def _common_settings(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str
    ) -> dict[str, Any]:
        data = getattr(trainer, "datamodule", None)
        seed = _training_seed(data)
        settings: dict[str, Any] = {} if seed is None else {"seed": seed}
        protocol_of = getattr(data, "protocol_of", None)
        protocol = protocol_of(split) if callable(protocol_of) else getattr(data, "protocol", None)
        if protocol:
            settings["protocol"] = str(protocol)
        label_names = getattr(pl_module, "label_names", None)
        if label_names:
            settings["n_classes"] = len(label_names)
        for part in (data, pl_module):
            describe = getattr(part, "curve_settings", None)
            if callable(describe):
                settings |= describe()
        return settings

    def _directory(self, trainer: pl.Trainer) -> Path:
        if self.directory is not None:
            return Path(self.directory)
        if not trainer.loggers:
            return Path(trainer.default_root_dir)
        logger = trainer.loggers[0]
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version

    @staticmethod
    def _log_picture(
        trainer: pl.Trainer, curve: NoiseCurve, split: str, picture: bool = True, series: bool = True
    ) -> None:
        """Log what is more than scalars to the loggers that show it: the picture, and the series over the strength."""
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                from asr_dni.evaluation.loggers.wandb_log import log_curve_series, log_curve_table  # wandb

                if picture:
                    log_curve_table(logger, curve, split)
                if series:
                    log_curve_series(logger, curve, split)
            elif isinstance(logger, TensorBoardLogger) and picture:
                from asr_dni.evaluation.loggers.tensorboard_log import log_curve_to_tensorboard

                log_curve_to_tensorboard(logger, curve, split, trainer.global_step)
