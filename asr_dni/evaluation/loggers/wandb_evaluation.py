"""An evaluation of a trained network as a W&B run of its own, with the training that it belongs to."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from asr_dni.bounded_yaml import load_yaml
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.loggers.wandb_log import (
    log_curve_series,
    log_curve_table,
    make_wandb_logger,
    use_checkpoint,
    wandb_run_in,
)
from asr_dni.evaluation.loggers.wandb_mode import WandbMode


def log_evaluation(
    curve: NoiseCurve | None,
    settings: Mapping[str, Any],
    split: str,
    checkpoint: Path,
    folder: Path,
    project: str | None = None,
    mode: WandbMode | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> Any:
    """Log what was measured of a network after its training, as a run of job type ``evaluate``.

    Its group is that of the training, whose checkpoint it uses: W&B shows the lineage where the training was logged to
    W&B, see :func:`~asr_dni.evaluation.loggers.wandb_log.use_checkpoint`.

    Args:
        curve: the curve, where all of it was measured.
        settings: noted with all that was measured.
        split: which of the clips, ``validation`` or another.
        checkpoint: the file that was evaluated.
        folder: where W&B's files go, if ``WANDB_DIR`` does not say.
        project: see :class:`~asr_dni.evaluation.loggers.wandb_log.PromptlessWandbLogger`.
        mode: see there.
        tables: further tables of the evaluation, by their names.

    Returns:
        The run, which is finished.
    """
    import wandb

    run_folder = checkpoint.resolve().parent.parent
    logger = make_wandb_logger(
        project,
        folder.name,
        save_dir=str(folder),
        mode=mode,
        group=os.environ.get("WANDB_RUN_GROUP") or _group_of(run_folder),
        job_type=os.environ.get("WANDB_JOB_TYPE") or "evaluate",
        settings=wandb.Settings(silent=True),
    )
    run = logger.experiment
    run.config.update({"curve": dict(settings), "split": split})
    key = "val" if split == "validation" else "test"
    if curve is not None:
        log_curve_table(logger, curve, key)
        log_curve_series(logger, curve, key)
    for name, frame in (tables or {}).items():
        run.log({f"{key}/{name}": wandb.Table(dataframe=frame)})
    training = wandb_run_in(run_folder)
    if training is not None:
        use_checkpoint(logger, checkpoint, training)
    run.finish()
    return run


def _group_of(run_folder: Path) -> str | None:
    """Return the W&B group that a run's configuration names; ``None``: there is no configuration."""
    file = run_folder / "config.yaml"
    if not file.is_file():
        return None
    configuration = load_yaml(file.read_text(encoding="utf-8"))
    group = configuration.get("wandb_group") or configuration.get("name")
    return None if group is None else str(group)
