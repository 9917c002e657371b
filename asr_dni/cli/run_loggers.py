"""Where a run's numbers go: its own metrics file, W&B, and the loggers that its settings name."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from wandb import Settings as WandbSettings

from asr_dni.cli.run_files import MetricsLog
from asr_dni.evaluation import NoiseCurve, make_wandb_logger
from asr_dni.evaluation.loggers.tensorboard_log import TensorBoardLog
from asr_dni.evaluation.loggers.wandb_log import log_checkpoint, wandb_run_in
from asr_dni.evaluation.loggers.wandb_mode import WandbMode

JOB_TYPES = {"fit": "train", "test": "evaluate"}
"""The commands of a run that log to W&B, and what they are called there."""


def has_own_loggers(config: Mapping[str, Any]) -> bool:
    """Return whether the settings leave it to us where a run logs to."""
    return config["trainer"]["logger"] in (None, True)


def wandb_mode(chosen: str) -> WandbMode | None:
    """Return the mode that the setting ``wandb`` asks for; ``None``: what works."""
    return None if chosen == "auto" else chosen  # type: ignore[return-value]


def logs_to_wandb(subcommand: str, config: Mapping[str, Any]) -> bool:
    """Return whether a run logs to W&B: other loggers are in place of it, unless it is asked for."""
    wanted = ("auto", "online", "offline") if has_own_loggers(config) else ("online", "offline")
    return config["wandb"] in wanted and subcommand in JOB_TYPES and not config["trainer"]["fast_dev_run"]


def loggers_of_run(
    subcommand: str, config: Mapping[str, Any], folder: Path, named: Sequence[Logger], resumed_at: int | None
) -> list[Logger]:
    """Return a run's loggers.

    Args:
        subcommand: ``fit``, ``test`` or another.
        config: the run's settings.
        folder: of the run.
        named: the loggers that the settings name.
        resumed_at: the step that a resumed run goes on with; ``None``: a new run.

    Returns:
        First the run's own metrics file, since the first one's folder is where Lightning puts files; none at all where
        ``trainer.logger`` is false and W&B is not asked for.
    """
    loggers: list[Logger] = []
    if config["trainer"]["logger"] is not False or logs_to_wandb(subcommand, config):
        loggers = [MetricsLog(folder, resumed_at), *named]
    for logger in loggers:
        if isinstance(logger, TensorBoardLog):
            logger.folder = folder
    if logs_to_wandb(subcommand, config):
        wandb = make_wandb_logger(
            config["wandb_project"],
            f"{config['name']}-{folder.name}",
            save_dir=str(folder),
            mode=wandb_mode(config["wandb"]),
            id=wandb_run_in(folder) if resumed_at is not None else None,
            group=config["wandb_group"] or os.environ.get("WANDB_RUN_GROUP") or config["name"],
            job_type=os.environ.get("WANDB_JOB_TYPE") or JOB_TYPES[subcommand],
            settings=WandbSettings(silent=True),
        )
        if wandb.mode != "disabled":
            loggers.append(wandb)
    return loggers


def finish_wandb(loggers: Sequence[Logger], checkpoint: Path | None, curve: NoiseCurve | None = None) -> None:
    """Upload the result where that is asked for, and say where a run is in W&B.

    Args:
        loggers: those of the run.
        checkpoint: logged as an artifact; ``None``: none is.
        curve: its key figures are shown with the artifact.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            if checkpoint is not None:
                figures = {} if curve is None else curve.summary().key_figures()
                log_checkpoint(logger, checkpoint, figures)
            print(describe_wandb(logger.experiment))


def describe_wandb(run: Any) -> str:
    """Return where a W&B run is, or the commands that upload and show it."""
    if not run.offline:
        return f"W&B: {run.url}"
    folder = Path(run.settings.sync_dir)
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    quoted = shlex.quote(str(shown))
    return f"W&B, offline: asr-dni wandb sync {quoted} uploads it, wandb leet run {quoted} shows it in the terminal"
