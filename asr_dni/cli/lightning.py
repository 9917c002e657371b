"""``asr-dni fit``, ``validate``, ``test`` and ``predict``: Lightning's command line over this project's classes."""

import logging
import os
import warnings
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, cast

import pytorch_lightning as pl
from jsonargparse import DefaultHelpFormatter
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.seed import seed_everything
from pytorch_lightning.callbacks import (
    Callback,
    ModelCheckpoint,
    ProgressBar,
)
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger, WandbLogger
from rich.console import Console
from torch.optim import Optimizer
from wandb import Settings as WandbSettings

from asr_dni.checkpoint import check_evaluable, check_resumable, load_weights
from asr_dni.cli.lists import with_brackets
from asr_dni.cli.processes import PredictionTable, RunFolder, leave_speaking_to_the_main_process
from asr_dni.cli.run import (
    BareProgressBar,
    BestCheckpoint,
    LastCheckpoint,
    TrainingLog,
    call_trainer,
    check_monitors,
    describe_wandb,
    on_terminal,
)
from asr_dni.cli.run_arguments import name_of_data_class, with_configuration
from asr_dni.cli.run_files import (
    MetricsLog,
    SaveConfiguration,
    claimed_folder,
    folder_of_last_checkpoint,
    resumed_folder,
    wandb_run_in,
)
from asr_dni.cli.trainer_settings import (
    check_callbacks,
    check_trainer_settings,
    make_settings_readable_again,
    raised_by_lightning,
)
from asr_dni.configuration import check_groups, explain
from asr_dni.data import DATA_MODULES, KeywordData, SequenceData
from asr_dni.data.overview import tell
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurveCallback, make_wandb_logger, noise_curve_table
from asr_dni.evaluation.noise_curve import curve_label
from asr_dni.model import (
    AveragedWeights,
    KeywordSpotter,
    NoiseAnnealing,
    averages_weights,
    load_checkpoint,
)
from asr_dni.named_classes import ALLOW_OPTION, allowed_modules, only_named_classes

make_settings_readable_again()

_DESCRIPTIONS = {
    "fit": "Train a keyword spotter, then test it and draw its noise curve.",
    "validate": "Evaluate a checkpoint on the validation split.",
    "test": "Evaluate a checkpoint on the test split and draw its noise curve.",
    "predict": "Write a checkpoint's decisions on the test split to predictions.csv.",
}
_KEYS = """
The settings that matter most; all of them are listed below, and "asr-dni conf list" has names of files of them:
  --config FILE                          YAML, or such a name; several are layered, later ones and the command line win
  --data.source, --data.source.path      where the recordings come from (asr_dni.data.Folder, ...)
  --data_class                           which data; without it recordings. --data.* are the settings of this class
  --data.augmentation.*                  what happens to training clips
  --model.network.cell, .units, .layers  the network
  --annealing.sigma                      sigma_train: the noise that is trained under; 0 is conventional training
  --trainer.max_epochs                   length of the run
  --noise_curve.sigmas                   the levels at which accuracy is measured
  --name, --runs                         results go to RUNS/NAME/version_0, version_1, ...
  --ckpt_path FILE                       {use}
  --allow MODULE                         may name classes of this module of yours too, as often as given; without it
                                         only those of asr_dni, Lightning and torch.optim
  --print_config                         shows what would be used, and ends
"""
_USES = {
    "fit": "resume this checkpoint; alone it finds its settings",
    "validate": "the checkpoint; alone it finds its settings",
    "test": "the checkpoint; alone it finds its settings",
    "predict": "the checkpoint; alone it finds its settings",
}


def quiet_expected_warnings() -> None:
    """Leave out Lightning's chatter and advice that does not apply here."""
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric.utilities.seed").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric.utilities.distributed").setLevel(logging.WARNING)
    # "Received SIGTERM": the command's last line says so.
    logging.getLogger("pytorch_lightning.trainer.connectors.signal_connector").setLevel(logging.WARNING)
    for message in (
        ".*LightningCLI's args parameter is intended.*",
        ".*callbacks used to create the checkpoint need to be provided.*",  # they only matter to a training
        ".*is smaller than the logging interval.*",  # epoch metrics are logged all the same
        ".*GPU available but not used.*",  # then the user chose so
        ".*does not have many workers.*",  # batches are gathered from memory, not made by workers
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*Experiment logs directory .* exists and is not empty.*",  # W&B's folder is in it
        ".*isinstance.treespec, LeafSpec.*",
        ".*loading a checkpoint outside the 'fit' stage.*",  # what is averaged is in the checkpoint
        ".*The checkpoint was not created with WeightAveraging.*",
        ".*SWA is currently only supported every epoch.*",  # it takes the place of the schedule by step
        ".*Couldn't infer the batch indices.*",  # clips are told apart by their own identities
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # what is logged so is the same in all processes
    ):
        warnings.filterwarnings("ignore", message)


class _Began(Callback):
    """Knows whether a run has begun: before that, Lightning restores a checkpoint."""

    it_did = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note it."""
        self.it_did = True

    on_validation_start = on_test_start = on_predict_start = on_train_start


class _HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of the description as they are."""


class SpotterCLI(LightningCLI):
    """Lightning's command line with the noise's annealing, the noise curve and the run's folder as settings."""

    def __init__(
        self,
        subcommand: str,
        held: ExitStack,
        data_class: str = KeywordData.__qualname__,
        folder_is_named: bool = True,
        **keywords: Any,
    ) -> None:
        self._only = subcommand
        self._held = held
        self._folder_is_named = folder_is_named
        self._done = (0, 0)
        self._data_class = data_class
        self._checkpoint: Mapping[str, Any] = {}
        module = cast(type[pl.LightningDataModule], DATA_MODULES[data_class])
        super().__init__(KeywordSpotter, module, **keywords)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the one subcommand that is run: building the parsers of the others takes a second each."""
        skipped = LightningCLI.subcommands()[self._only]
        return {self._only: {*skipped, "verbose", "weights_only", "return_predictions"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what every run has."""
        parser.add_argument("--name", type=str, default="spotter", help="folder of the run, under --runs")
        parser.add_argument("--runs", type=str, default="runs", help="folder that all results go to")
        parser.add_argument(
            "--wandb",
            type=Literal["auto", "online", "offline", "disabled"],
            default="auto",
            help="W&B: auto is online where there is a login and a network, else offline; WANDB_MODE decides before it",
        )
        parser.add_argument(
            "--wandb_project",
            type=str | None,
            default=None,
            help="project in W&B; by default that of WANDB_PROJECT, else asr-dni",
        )
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=True,
            help="test the chosen checkpoint (without a choice the last one) when the training has ended",
        )
        parser.add_argument(
            "--data_class",
            type=Literal[tuple(DATA_MODULES)],
            default=self._data_class,
            help="the data module that --data.* are the settings of: KeywordData for recordings, or another task's",
        )
        parser.add_lightning_class_args(NoiseAnnealing, "annealing")
        parser.add_lightning_class_args(NoiseCurveCallback, "noise_curve")
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/accuracy",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.link_arguments("data.label_names", "model.label_names", apply_on="instantiate")
        parser.link_arguments("data.n_features", "model.n_features", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_seed_of)
        parser.link_arguments("seed_everything", "model.noise.seed", compute_fn=_seed_of)

    def setup_parser(self, *arguments: Any) -> None:
        """Build the parser; its help begins with the lines that matter most."""
        super().setup_parser(*arguments)
        for parser in self._subcommand_parsers.values():
            parser.formatter_class = _HelpFormatter

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Check the configurations' groups, then parse the command line, on which lists need no brackets."""
        own = self._subcommand_parsers[self._only]
        check_groups(own, args)
        super().parse_arguments(parser, with_brackets(args, own))

    def _parse_ckpt_path(self) -> None:
        # The settings of a checkpoint's run come as a configuration, see _with_configuration.
        pass

    def _set_seed(self) -> None:
        if self._get(self.config, "seed_everything") is False:
            raise UserError(
                "seed_everything is false, but every run has a seed: give a number, or true (Lightning's choice)"
            )
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {' '.join(str(error).split())}") from error

    def before_instantiate_classes(self) -> None:
        """Find mistakes in what the run is, before anything is built or written."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        name = Path(config.name)
        if name.is_absolute() or ".." in name.parts:
            raise UserError(
                f"name is {config.name}: give a folder below --runs, such as spotter or words/lstm"
            )
        if config.ckpt_path is not None:
            self._checkpoint = load_checkpoint(config.ckpt_path)
            self._done = _progress_of(self._checkpoint)
        elif self.subcommand != "fit":
            raise UserError(
                f"{self.subcommand} needs a trained network: give --ckpt_path FILE, a .ckpt that asr-dni fit wrote"
            )
        check_trainer_settings(config.trainer, fitting=self.subcommand == "fit")
        epochs, steps = config.trainer.get("max_epochs"), config.trainer.get("max_steps")
        if self.subcommand == "fit" and epochs is not None and (epochs < -1 or epochs == 0):
            raise UserError(f"trainer.max_epochs is {epochs}: give 1 or more")
        if self.subcommand == "fit" and (steps < -1 or steps == 0 or (epochs == -1 and steps == -1)):
            raise UserError(
                f"trainer.max_epochs is {epochs} and trainer.max_steps {steps}: noise and learning rate are scheduled"
                " over a run of known length; give 1 or more of either"
            )

    def _check_model(self) -> None:
        """Find what Lightning would find only when the run's folder is there."""
        assert self.subcommand is not None
        optimizer = self.model.optimizer_callable
        if not callable(optimizer):
            raise UserError(
                f"model.optimizer is {optimizer}: give a class_path, such as torch.optim.Adam, and init_args"
            )
        try:
            made = optimizer(self.model.parameters())
        except (ValueError, TypeError) as error:
            raise UserError(f"model.optimizer: {' '.join(str(error).split())}") from error
        if not isinstance(made, Optimizer):
            raise UserError(
                f"model.optimizer makes a {type(made).__name__}: give an optimiser, such as torch.optim.Adam"
            )
        if not self._checkpoint:
            return
        checkpoint, self._checkpoint, contents = self.config[self.subcommand].ckpt_path, {}, self._checkpoint
        trained = contents.get(KeywordSpotter.CHECKPOINT_HYPER_PARAMS_KEY, {}).get("model", {})
        known, asked = trained.get("label_names", self.model.label_names), self.model.label_names
        if known != asked:
            differ = (
                f"{checkpoint}: knows the labels {', '.join(known)}, but the data have {', '.join(asked)}"
            )
            raise UserError(
                f"{differ}; a training goes on with its own labels"
                if self.subcommand == "fit"
                else f"{differ}; for another folder's clips use: asr-dni noise-curve {checkpoint} --data FOLDER"
            )
        check_evaluable(contents, str(checkpoint))
        load_weights(self.model, contents, str(checkpoint))  # the trainer does so again
        if self.subcommand == "fit":
            check_resumable(contents, str(checkpoint), optimizer, self.model)

    def _check_data(self) -> None:
        """Say what there is to train and test on, and what is the matter with it, before the run's folder is there."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        data = cast(SequenceData, self.datamodule)
        data.prepare_data()
        data.setup(self.subcommand)
        if self.subcommand == "fit" and config.test_after_fit and not config.trainer.fast_dev_run:
            data.setup("test")
        tell(data.describe())

    def instantiate_classes(self) -> None:
        """Make the objects; what one of them finds wrong in its arguments is the user's mistake."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, ModuleNotFoundError) as error:
            raise UserError(
                f"{explain(error)} (asr-dni {self.subcommand} --help lists the settings)"
            ) from error

    def instantiate_trainer(self, **keywords: Any) -> pl.Trainer:
        """Give the trainer the run's loggers, unless the configuration names others."""
        self._check_model()
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        self._check_data()
        if config.trainer.logger is not None or config.trainer.fast_dev_run:
            trainer = super().instantiate_trainer(**keywords)
            if not trainer.is_global_zero:
                leave_speaking_to_the_main_process()
            return trainer
        # W&B's logger makes its folder at once, so it waits until the trainer's settings have turned out valid.
        trainer = super().instantiate_trainer(**{**keywords, "logger": False})
        if not trainer.is_global_zero:
            leave_speaking_to_the_main_process()
            return trainer
        folder, resumed = self._take_folder()
        loggers: list[Logger] = [MetricsLog(folder, self._done[1] if resumed else None)]
        if self.subcommand in ("fit", "test") and config.wandb != "disabled":
            mode = None if config.wandb == "auto" else config.wandb
            wandb = make_wandb_logger(
                config.wandb_project,
                f"{config.name}-{folder.name}",
                save_dir=str(folder),
                mode=mode,
                id=wandb_run_in(folder) if resumed else None,
                settings=WandbSettings(silent=True),
            )
            if wandb.mode != "disabled":
                loggers.append(wandb)
        trainer.loggers = loggers
        return trainer

    def _take_folder(self) -> tuple[Path, bool]:
        """Return the run's folder, and whether it is that of the run that is resumed."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        named = Path(config.runs, config.name)
        last = None
        if self.subcommand == "fit" and config.ckpt_path is not None:
            last = folder_of_last_checkpoint(Path(config.ckpt_path))
        if last is not None and (not self._folder_is_named or named.resolve() == last.parent.resolve()):
            return self._held.enter_context(resumed_folder(_shorten(last))), True
        # A run of a W&B sweep is found again by the agent's name for it.
        version = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        return self._held.enter_context(claimed_folder(named, version)), False

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        given = config.get("callbacks") or []
        given = given if isinstance(given, list) else [given]
        callbacks = [RunFolder(), *callbacks]
        if self.subcommand == "fit":
            curve = next(callback for callback in callbacks if isinstance(callback, NoiseCurveCallback))
            callbacks = [*callbacks, TrainingLog(), LastCheckpoint()]
        if config.get("enable_checkpointing") is False or self.subcommand != "fit":
            callbacks = [callback for callback in callbacks if not isinstance(callback, ModelCheckpoint)]
        check_callbacks(given)
        if self.subcommand == "fit":
            check_monitors([*given, *callbacks], curve, config)
            averaging = [callback for callback in given if averages_weights(callback)]
            if averaging:
                config["callbacks"] = [callback for callback in given if callback not in averaging]
                average = AveragedWeights([*given, *callbacks], self._settings_of(averaging[0]))
                callbacks = [*callbacks, *averaging, average]
        if config.get("enable_progress_bar") is None:
            named = any(isinstance(callback, ProgressBar) for callback in given)
            config["enable_progress_bar"] = named or on_terminal()
        if config["enable_progress_bar"] and not any(isinstance(callback, ProgressBar) for callback in given):
            callbacks = [*callbacks, BareProgressBar()]
        if config.get("enable_model_summary") is None:
            config["enable_model_summary"] = False
        try:
            return super()._instantiate_trainer(config, callbacks)
        except UserError:
            raise
        except Exception as error:  # whatever a setting makes the trainer's parts raise
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error

    def _settings_of(self, callback: Callback) -> dict[str, Any]:
        """Return what a callback of the trainer was configured with, as plain values."""
        assert self.subcommand is not None
        given = self.config[self.subcommand].trainer.callbacks or []
        for entry in given if isinstance(given, list) else [given]:
            if entry.class_path.rpartition(".")[2] == type(callback).__name__:
                return {"class": type(callback), **(entry.get("init_args") or {})}
        return {}

    def _how_to_go_on(self) -> str:
        if self.subcommand != "fit":
            return ""
        last = next((c for c in self.trainer.checkpoint_callbacks if isinstance(c, LastCheckpoint)), None)
        if last is None or not last.best_model_path or not Path(last.best_model_path).is_file():
            return "before the end of the first epoch, nothing to resume"
        allowed = "".join(f" {ALLOW_OPTION} {module}" for module in allowed_modules() or ())
        return f"to resume: asr-dni fit --ckpt_path {_shorten(last.best_model_path)}{allowed}"

    def _call(self, function: Callable[..., Any], **arguments: Any) -> None:
        began = _Began()
        self.trainer.callbacks.append(began)  # type: ignore[attr-defined]
        try:
            # A checkpoint's pickled content never runs.
            call_trainer(self.trainer, function, self._how_to_go_on, weights_only=True, **arguments)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            checkpoint = arguments.get("ckpt_path")
            if began.it_did or (checkpoint is None and not raised_by_lightning(error)):
                raise
            said = " ".join(str(error).split())[:200]
            if checkpoint is None:
                raise UserError(f"trainer: {said}") from error
            raise UserError(
                f"{checkpoint}: Lightning cannot take it ({type(error).__name__}: {said}); expected a .ckpt that"
                " asr-dni fit wrote"
            ) from error
        finally:
            self.trainer.callbacks.remove(began)  # type: ignore[attr-defined]

    def fit(self, **arguments: Any) -> None:
        """Train; say where the results go."""
        folder = self.trainer.log_dir
        if folder and self.trainer.loggers:
            print(f"results go to {folder}")
        self._say_if_finished()
        self._call(self.trainer.fit, **arguments)

    def _say_if_finished(self) -> None:
        if not any(self._done) or not self.trainer.is_global_zero:
            return
        for done, asked, name in zip(
            self._done, (self.trainer.max_epochs, self.trainer.max_steps), ("epochs", "steps"), strict=True
        ):
            if done == asked:
                print(
                    f"the training is finished: all {done} {name} are done;"
                    f" to train longer give --trainer.max_{name} above {done}"
                )

    def after_fit(self) -> None:
        """Test what was trained."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        if config.trainer.fast_dev_run or self.trainer.interrupted:
            return
        if config.test_after_fit:
            chosen = [
                callback.best_model_path
                for kind in (BestCheckpoint, LastCheckpoint)
                for callback in self.trainer.checkpoint_callbacks
                if isinstance(callback, kind) and callback.best_model_path
            ]
            self.test(model=self.model, datamodule=self.datamodule, ckpt_path=chosen[0] if chosen else None)
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger) and self.trainer.is_global_zero:
                print(describe_wandb(logger.experiment))

    def test(self, **arguments: Any) -> None:
        """Test; show accuracy, loss and noise curve."""
        self._call(self.trainer.test, verbose=False, **arguments)
        self._report("test", "test")

    def validate(self, **arguments: Any) -> None:
        """Validate; show accuracy, loss and noise curve."""
        self._call(self.trainer.validate, verbose=False, **arguments)
        self._report("val", "validation")

    def predict(self, **arguments: Any) -> None:
        """Write the decisions."""
        self._call(self.trainer.predict, return_predictions=False, **arguments)

    def _report(self, prefix: str, split: str) -> None:
        metrics = self.trainer.callback_metrics
        folder = self.trainer.log_dir  # asked by all processes: it is the main one's
        if not self.trainer.is_global_zero or f"{prefix}/accuracy" not in metrics:
            return
        accuracy, loss = float(metrics[f"{prefix}/accuracy"]), float(metrics[f"{prefix}/loss"])
        console = Console()
        evaluated = f" of {_shorten(self.trainer.ckpt_path)}" if self.trainer.ckpt_path else ""
        console.print(
            f"{split} split{evaluated}: accuracy {100 * accuracy:.1f} %, loss {loss:.3f}, without noise",
            soft_wrap=True,
            highlight=False,
        )
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, NoiseCurveCallback) and callback.curve is not None:
                console.print(noise_curve_table({curve_label(callback.curve.settings): callback.curve}))
        if self.trainer.loggers and folder:
            print(f"results are in {folder}")


def _seed_of(seed: bool | int) -> int:
    """Return the seed of data and noise: the run's, also where Lightning chooses it (true)."""
    try:
        return seed_everything(workers=True, verbose=False) if seed is True else int(seed)
    except ValueError as error:  # what the environment says
        raise UserError(f"seed_everything: {error}") from error


def _shorten(path: str | Path) -> Path:
    """Return the path relative to the current folder where it is below it."""
    path = Path(path)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _progress_of(contents: Mapping[str, Any]) -> tuple[int, int]:
    """Return the epochs and steps that a checkpoint's training had done."""
    try:
        epochs = contents["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        return int(epochs), int(contents["global_step"])
    except (KeyError, TypeError, ValueError):
        return 0, 0


def run_lightning(subcommand: str, arguments: Sequence[str]) -> SpotterCLI:
    """Run ``asr-dni fit`` and its like: parse the command line, build the objects, call the trainer.

    Raises:
        UserError: the settings are not valid or do not go together.
    """
    quiet_expected_warnings()
    naming = ("--name", "--runs", "--config", "-c")
    folder_is_named = any(argument.partition("=")[0] in naming for argument in arguments)
    with ExitStack() as held, only_named_classes():
        return _run_lightning(subcommand, with_configuration(list(arguments)), held, folder_is_named)


def _run_lightning(
    subcommand: str, arguments: list[str], held: ExitStack, folder_is_named: bool
) -> SpotterCLI:
    defaults: dict[str, Any] = {
        "max_epochs": 30,
        "log_every_n_steps": 10,
        "num_sanity_val_steps": 0,
        "callbacks": [],
    }
    if subcommand == "predict":
        defaults["callbacks"] = [PredictionTable()]
    description = _DESCRIPTIONS[subcommand] + "\n" + _KEYS.format(use=_USES[subcommand])
    try:
        return SpotterCLI(
            subcommand,
            held,
            name_of_data_class(arguments),
            folder_is_named,
            args=[subcommand, *arguments],
            seed_everything_default=0,
            trainer_defaults=defaults,
            save_config_callback=SaveConfiguration,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={
                "prog": "asr-dni",
                "exit_on_error": False,
                "allow_abbrev": False,
                subcommand: {
                    "allow_abbrev": False,
                    "description": description,
                    "usage": f"asr-dni {subcommand} [--config FILE] [--KEY VALUE ...]",
                },
            },
        )
    except ArgumentError as error:
        raise UserError(f"{explain(error)} (asr-dni {subcommand} --help lists the settings)") from error
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error


def fit(arguments: Sequence[str]) -> None:
    """Run ``asr-dni fit``."""
    run_lightning("fit", arguments)


def validate(arguments: Sequence[str]) -> None:
    """Run ``asr-dni validate``."""
    run_lightning("validate", arguments)


def test(arguments: Sequence[str]) -> None:
    """Run ``asr-dni test``."""
    run_lightning("test", arguments)
