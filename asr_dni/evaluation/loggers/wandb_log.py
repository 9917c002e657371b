"""Noise curves in Weights & Biases, without ever asking for a login.

What is logged for a curve:

- its numbers as scalars, one per level (the callback does that, through Lightning, for every logger);
- a table with a row per strength, chip and draw, and a chart of this run alone, accuracy with its interval, by W&B's
  own line series;
- the curve as a series of history rows, ``noise_curve/<split>/accuracy`` over its own step
  ``noise_curve/<split>/sigma_infer``, or another strength's :attr:`~asr_dni.noise.Strength.name`, set by
  ``define_metric``. Its panel is an ordinary line panel of the workspace: the curves of all selected runs overlay in
  it, and grouping runs shows the mean and spread over seeds, with nothing to set up by hand;
- its key figures, ``<split>/midpoint`` and ``<split>/clean_accuracy``, in the run's summary: columns to sort runs by.

A run holds one series per split: a second one at the same strengths would be joined with the first.
"""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import WandbLogger

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve, curve_label
from asr_dni.evaluation.loggers.wandb_mode import WandbMode, say_offline, wandb_settings, working_wandb_mode

if TYPE_CHECKING:
    from wandb import Artifact, Settings

_INIT_SECONDS = 30.0


class PromptlessWandbLogger(WandbLogger):
    """Lightning's ``WandbLogger``, offline where there is no login, no network, or a key that is refused.

    It never asks for a login. ``WANDB_RUN_ID`` (where no ``id`` is given) and ``WANDB_RESUME`` are
    as W&B documents them.

    Args:
        project: name of the project in W&B; ``None``: that of ``WANDB_PROJECT`` or a settings file, else ``asr-dni``.
        name: name of the run, unless ``WANDB_NAME`` gives one; ``None`` lets W&B make one up.
        save_dir: folder that W&B's ``wandb`` folder is made in, unless ``WANDB_DIR`` names one.
        mode: ``online``, ``offline``, ``disabled``; ``None`` decides by
            :func:`~asr_dni.evaluation.loggers.wandb_mode.resolve_wandb_mode`.
        **kwargs: further arguments of ``pytorch_lightning.loggers.WandbLogger`` and ``wandb.init``.

    Raises:
        UserError: see :func:`~asr_dni.evaluation.loggers.wandb_mode.check_wandb`; the folder cannot be written to.
    """

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        save_dir: str = "runs",
        mode: WandbMode | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("offline", False):
            mode = "offline"  # Lightning's own `offline` changes the environment of the whole process
        resolved = working_wandb_mode(mode)
        own = wandb_settings(project)
        chosen = own.model_fields_set
        # Agents of a sweep set WANDB_DIR to where they were started.
        if "root_dir" in chosen and not os.environ.get("WANDB_SWEEP_ID"):
            save_dir = own.root_dir
        # wandb writes to a temporary folder, with a warning only, if it cannot write to this one.
        os.makedirs(save_dir, exist_ok=True)
        if not os.access(save_dir, os.W_OK | os.X_OK):
            raise UserError(
                f"{save_dir}: W&B's files cannot be written to this folder (WANDB_DIR, or the run's own)"
            )
        # W&B's service may be an older process with another working directory.
        save_dir = os.path.abspath(save_dir)
        if kwargs.get("id") is None:
            kwargs["id"] = own.run_id
        if "resume" in chosen:
            kwargs.setdefault("resume", own.resume)
        super().__init__(
            name=own.run_name or name,
            save_dir=save_dir,
            project=own.project or "asr-dni",
            mode=resolved,
            settings=_impatient(kwargs.pop("settings", None), own),
            **kwargs,
        )
        # An argument that Lightning still passes and wandb warns of.
        self._wandb_init.pop("anonymous", None)

    @property
    def mode(self) -> str:
        """The mode the run is or will be in."""
        return str(self._wandb_init["mode"])

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run; offline where W&B does not take it (a key that is refused, a network that comes and goes)."""
        import wandb

        try:
            return super().experiment
        except (wandb.Error, ValueError) as error:
            if self.mode not in ("online", "shared") or self._experiment is not None:
                raise
            say_offline(str(error))
            self._wandb_init["mode"] = "offline"
            return super().experiment


def _impatient(given: "Settings | Mapping[str, Any] | None", own: "Settings") -> "Settings":
    """Return settings with which W&B does not wait for a minute and a half, unless the user chose how long."""
    import wandb

    settings = given if isinstance(given, wandb.Settings) else wandb.Settings(**(given or {}))
    if "init_timeout" not in settings.model_fields_set | own.model_fields_set:
        settings.init_timeout = _INIT_SECONDS
    return settings


def make_wandb_logger(
    project: str | None = None, name: str | None = None, save_dir: str = "runs", **kwargs: Any
) -> PromptlessWandbLogger:
    """Return a W&B logger that is offline where there is no login, see :class:`PromptlessWandbLogger`."""
    return PromptlessWandbLogger(project=project, name=name, save_dir=save_dir, **kwargs)


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Drop what a chart can't show: NaN, and the infinite SNR without noise."""
    return {key: float(value) for key, value in values.items() if math.isfinite(value)}


def log_curve_table(logger: WandbLogger, curve: NoiseCurve, split: str) -> None:
    """Log a curve's table and its chart.

    Args:
        logger: the run; in distributed runs the main process's.
        curve: the curve.
        split: ``val`` or ``test``; keys are ``<split>/noise_curve_table`` and ``<split>/noise_curve_chart``.
    """
    import wandb

    frame = curve.frame.astype({"chip": int, "draw": int, "n_clips": int})
    # JSON has no infinity: an absent SNR stands for both no noise and not known, as the strength tells.
    rows: list[Any] = [
        [None if isinstance(value, float) and not math.isfinite(value) else value for value in row]
        for row in frame.astype(object).to_numpy().tolist()
    ]
    table = wandb.Table(columns=[str(column) for column in frame.columns], data=rows)
    summary = curve.summary()
    columns = {"accuracy": "accuracy", "low": "lower bound", "high": "upper bound"}
    chart = wandb.plot.line_series(
        xs=summary.frame["strength"].tolist(),
        ys=[summary.frame[column].tolist() for column in columns],
        keys=list(columns.values()),
        title=f"{curve_label(curve.settings)}: accuracy, {summary.interval}",
        xname=curve.strength.label,
    )
    logger.experiment.log({f"{split}/noise_curve_table": table, f"{split}/noise_curve_chart": chart})


def log_curve_series(logger: WandbLogger, curve: NoiseCurve, split: str) -> None:
    """Log a curve as a series over its strength, so that the curves of several runs overlay in one panel.

    Args:
        logger: the run; in distributed runs the main process's.
        curve: the curve; its interval is over clips, draws of the noise included.
        split: ``val`` or ``test``; keys are ``noise_curve/<split>/`` and ``sigma_infer`` (the step; of other
            strengths their :attr:`~asr_dni.noise.Strength.name`),
            ``accuracy``, ``accuracy_low``, ``accuracy_high``, ``loss``, ``snr_db``; in the summary the key figures.
    """
    run, prefix = logger.experiment, f"noise_curve/{split}"
    step = f"{prefix}/{curve.strength.name}"
    run.define_metric(step, hidden=True, summary="none")
    # By full name: Lightning's own define_metric("*") would win over a pattern.
    for name in ("accuracy", "accuracy_low", "accuracy_high", "loss", "snr_db"):
        run.define_metric(f"{prefix}/{name}", step_metric=step, step_sync=False, summary="none")
    summary = curve.summary()
    run.summary.update({f"{split}/{name}": value for name, value in summary.key_figures().items()})
    for row in summary.frame.to_dict("records"):
        values = {
            step: row["strength"],
            f"{prefix}/accuracy": row["accuracy"],
            f"{prefix}/accuracy_low": row["low"],
            f"{prefix}/accuracy_high": row["high"],
            f"{prefix}/loss": row["loss"],
            f"{prefix}/snr_db": row["snr_db"],
        }
        run.log(_finite(values))


def log_checkpoint(logger: WandbLogger, checkpoint: Path, metadata: Mapping[str, Any]) -> None:
    """Log a checkpoint as the run's artifact ``model-<id of the run>``, which evaluations name as what they used.

    Offline W&B keeps a copy of the file (below ``WANDB_DATA_DIR``) until it is uploaded.

    Args:
        logger: the run that trained it.
        checkpoint: the file.
        metadata: plain values that are shown with the artifact.
    """
    run = logger.experiment
    run.log_artifact(_model_artifact(checkpoint, run.id, metadata), aliases=[checkpoint.stem])


def use_checkpoint(logger: WandbLogger, checkpoint: Path, training: str) -> bool:
    """Note that a run evaluates the checkpoint of another, so that W&B shows the lineage.

    An artifact of the same name and content is the same artifact: it need not have been uploaded before.

    Args:
        logger: the run that evaluates.
        checkpoint: the file.
        training: id of the W&B run that trained it.

    Returns:
        Whether it is noted: W&B takes it online only. Offline the run's configuration names the artifact, as
        ``uses_artifact``.
    """
    run = logger.experiment
    artifact = _model_artifact(checkpoint, training, {})
    run.config.update({"uses_artifact": artifact.name})
    if run.offline:
        return False
    run.use_artifact(artifact)
    return True


def _model_artifact(checkpoint: Path, training: str, metadata: Mapping[str, Any]) -> "Artifact":
    import wandb

    artifact = wandb.Artifact(f"model-{training}", type="model", metadata=dict(metadata))
    artifact.add_file(str(checkpoint), name=checkpoint.name)
    return artifact


def wandb_run_in(folder: Path) -> str | None:
    """Return the id of the W&B run that a run's folder holds; W&B names folders ``run-<time>-<id>``."""
    runs = sorted(
        (match[1], match[2])
        for entry in (folder / "wandb").glob("*run-*")
        if (match := re.fullmatch(r"(?:offline-)?run-(\d{8}_\d{6})-([\w-]+)", entry.name))
    )
    return runs[-1][1] if runs else None
