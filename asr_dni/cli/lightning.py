"""``asr-dni fit``, ``validate``, ``test`` and ``predict``: Lightning's command line over this project's classes."""

import csv
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import BasePredictionWriter, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger

from asr_dni.cli.configuration import expand_layers
from asr_dni.data import KeywordData
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurveCallback, make_wandb_logger
from asr_dni.files import write_atomically
from asr_dni.model import KeywordSpotter, NoiseAnnealing

logger = logging.getLogger(__name__)


def quiet_expected_warnings() -> None:
    """Leave out Lightning's advice that does not apply here."""
    for message in (
        ".*does not have many workers.*",  # batches are gathered from memory, not made by workers
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*Experiment logs directory .* exists and is not empty.*",  # W&B's folder is in it
        ".*isinstance.treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message)


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
        """Write the table into the run's folder."""
        assert isinstance(pl_module, KeywordSpotter)
        data = trainer.datamodule  # type: ignore[attr-defined]
        path = Path(trainer.log_dir or trainer.default_root_dir) / "predictions.csv"
        names = pl_module.label_names
        with write_atomically(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["clip", "decision", *names])
            for batch in predictions:
                clips = data.clip_names(batch["clip_ids"].cpu())
                for clip, posteriors in zip(clips, batch["posteriors"].cpu().tolist(), strict=True):
                    best = max(range(len(names)), key=posteriors.__getitem__)
                    writer.writerow([clip, names[best], *(f"{value:.6f}" for value in posteriors)])
        print(f"decisions written to {path}")


class SpotterCLI(LightningCLI):
    """Lightning's command line with the noise's annealing, the noise curve and the run's folder as settings."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what every run has."""
        parser.add_argument("--name", type=str, default="spotter", help="folder of the run, under --runs")
        parser.add_argument("--runs", type=str, default="runs", help="folder that all results go to")
        parser.add_argument(
            "--wandb",
            type=Literal["auto", "online", "offline", "disabled"],
            default="auto",
            help="W&B: auto is online where there is a login, else offline",
        )
        parser.add_argument("--wandb_project", type=str, default="asr-dni", help="project in W&B")
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=True,
            help="test the best checkpoint when the training has ended",
        )
        parser.add_lightning_class_args(NoiseAnnealing, "annealing")
        parser.add_lightning_class_args(NoiseCurveCallback, "noise_curve")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/accuracy",
                "checkpoint.mode": "max",
                "checkpoint.save_last": True,
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.link_arguments("data.label_names", "model.label_names", apply_on="instantiate")
        parser.link_arguments("data.n_features", "model.n_features", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "model.noise.seed", compute_fn=int)

    def instantiate_trainer(self, **keywords: Any) -> pl.Trainer:
        """Give the trainer the run's loggers, unless the configuration names others."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        if config.trainer.logger is None and not config.trainer.fast_dev_run:
            files = CSVLogger(config.runs, name=config.name)
            loggers: list[Logger] = [files]
            if self.subcommand in ("fit", "test") and config.wandb != "disabled":
                mode = None if config.wandb == "auto" else config.wandb
                run_name = f"{config.name}-{Path(files.log_dir).name}"
                loggers.append(
                    make_wandb_logger(config.wandb_project, run_name, save_dir=files.log_dir, mode=mode)
                )
            keywords["logger"] = loggers
        return super().instantiate_trainer(**keywords)

    def after_fit(self) -> None:
        """Test what was trained."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        if not config.test_after_fit or config.trainer.fast_dev_run or self.trainer.interrupted:
            return
        checkpoint = self.trainer.checkpoint_callback
        best = getattr(checkpoint, "best_model_path", "")
        self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best or None)
        print(f"results are in {self.trainer.log_dir}")


def _configuration_of(checkpoint: str) -> Path | None:
    for folder in Path(checkpoint).resolve().parents[:2]:
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    return None


def _with_configuration(subcommand: str, arguments: list[str]) -> list[str]:
    """Take the settings of a checkpoint's run where the command line names the checkpoint alone."""
    names_config = any(argument.partition("=")[0] in ("--config", "-c") for argument in arguments)
    if subcommand == "fit" or names_config:
        return arguments
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == "--ckpt_path":
            value = value if equals else (arguments[index + 1] if index + 1 < len(arguments) else "")
            if value in ("best", "last", "hpc"):
                continue
            if not Path(value).is_file():
                raise UserError(f"{value}: there is no such checkpoint file")
            found = _configuration_of(value)
            return ["--config", str(found), *arguments] if found else arguments
    return arguments


def make_cli(subcommand: str, arguments: Sequence[str], run: bool = True) -> SpotterCLI:
    """Parse the command line of a subcommand, build its objects and, with ``run``, run it.

    Raises:
        UserError: the settings do not go together.
    """
    quiet_expected_warnings()
    arguments = expand_layers(_with_configuration(subcommand, list(arguments)))
    defaults: dict[str, Any] = {
        "max_epochs": 30,
        "log_every_n_steps": 10,
        "num_sanity_val_steps": 0,
        "callbacks": [],
    }
    if subcommand == "predict":
        defaults["callbacks"] = [PredictionTable()]
    try:
        return SpotterCLI(
            KeywordSpotter,
            KeywordData,
            args=[subcommand, *arguments],
            run=run,
            seed_everything_default=0,
            trainer_defaults=defaults,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            parser_kwargs={"prog": "asr-dni"},
        )
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error


def run_lightning(subcommand: str, arguments: Sequence[str]) -> None:
    """Run ``asr-dni fit`` and its like."""
    make_cli(subcommand, arguments)
