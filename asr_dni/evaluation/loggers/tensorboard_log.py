"""Noise curves in TensorBoard."""

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import TensorBoardLogger

from asr_dni.evaluation.curves.curve import NoiseCurve, curve_label
from asr_dni.evaluation.figures.noise_curves import draw_noise_curves


class TensorBoardLog(TensorBoardLogger):
    """Lightning's ``TensorBoardLogger`` whose files lie in the folder of the run, with the run's other results.

    Hyperparameters are text from the beginning (tab *Text*), and once a noise curve is measured a row of the tab
    *HParams*, with the curve's key figures.

    Args:
        folder: of the run; ``asr-dni fit`` and its like choose that of their run.
        flush_secs: seconds between writes.
    """

    def __init__(self, folder: str = ".", flush_secs: int = 30) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False, flush_secs=flush_secs)
        self.folder = Path(folder)
        """Where the files are written, once there is something to log."""

    @property
    def log_dir(self) -> str:
        """The folder."""
        return os.fspath(self.folder)

    root_dir = save_dir = log_dir

    @rank_zero_only
    def log_hyperparams(
        self,
        params: dict[str, Any] | Namespace,
        metrics: dict[str, Any] | None = None,
        step: int | None = None,
    ) -> None:
        """Log hyperparameters as text, or, with ``metrics``, as a row of the tab *HParams*."""
        super().log_hyperparams(params, metrics, step)
        if metrics is None:
            # Four spaces: a block of code in Markdown.
            text = json.dumps(self.hparams, indent=2, default=str).replace("\n", "\n    ")
            self.experiment.add_text("hyperparameters", f"    {text}", 0)


def log_curve_to_tensorboard(logger: TensorBoardLogger, curve: NoiseCurve, split: str, step: int) -> None:
    """Log a curve's picture, and the run's hyperparameters with the curve's key figures.

    Args:
        logger: the run; in distributed runs the main process's.
        curve: the curve.
        split: ``val`` or ``test``; the picture is ``<split>/noise_curve``.
        step: of the training.
    """
    figure = draw_noise_curves({curve_label(curve.settings): curve})
    logger.experiment.add_figure(f"{split}/noise_curve", figure, step)
    figures = curve.summary().key_figures()
    logger.log_hyperparams(
        logger.hparams, {f"{split}/{name}": value for name, value in figures.items()}, step
    )
