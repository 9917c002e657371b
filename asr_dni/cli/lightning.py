"""``asr-dni fit``, ``validate``, ``test`` and ``predict``: Lightning's command line over this project's classes."""

import os
from argparse import ArgumentError
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import (
    Callback,
    ModelCheckpoint,
    ProgressBar,
)

from asr_dni.cli.processes import PredictionTable, RunFolder, leave_speaking_to_the_main_process
from asr_dni.cli.quiet import quiet_expected_warnings
from asr_dni.cli.run import (
    BareProgressBar,
    BestCheckpoint,
    LastCheckpoint,
    TrainingLog,
    call_trainer,
    check_monitors,
    on_terminal,
)
from asr_dni.cli.run_arguments import name_of_data_class, with_configuration
from asr_dni.cli.run_checks import (
    check_annealing,
    check_fits,
    check_length,
    check_name,
    check_optimizer,
    progress_of,
)
from asr_dni.cli.run_files import (
    SaveConfiguration,
    claimed_folder,
    folder_of_last_checkpoint,
    resumed_folder,
)
from asr_dni.cli.run_loggers import (
    finish_wandb,
    has_own_loggers,
    loggers_of_run,
    logs_to_wandb,
    wandb_mode,
)
from asr_dni.cli.run_parser import RunParser, describe
from asr_dni.cli.trainer_settings import (
    check_callbacks,
    check_trainer_settings,
    make_settings_readable_again,
    raised_by_lightning,
)
from asr_dni.configuration import explain
from asr_dni.data import KeywordData, SequenceData
from asr_dni.data.overview import tell
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurve, NoiseCurveCallback, check_wandb, noise_curve_table
from asr_dni.evaluation.curves.curve import curve_label
from asr_dni.model import (
    AveragedWeights,
    averages_weights,
    load_checkpoint,
)
from asr_dni.model.foreign_weights import SavedWeights, begin_with
from asr_dni.model.sharpness import check_accumulation
from asr_dni.named_classes import ALLOW_OPTION, allowed_modules, only_named_classes
from asr_dni.terminal import make_console

make_settings_readable_again()


class _Began(Callback):
    """Knows whether a run has begun: before that, Lightning restores a checkpoint."""

    it_did = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note it."""
        self.it_did = True

    on_validation_start = on_test_start = on_predict_start = on_train_start


class SpotterCLI(RunParser):
    """Lightning's command line with the noise's annealing, the noise curve and the run's folder as settings."""

    def __init__(
        self,
        subcommand: str,
        held: ExitStack,
        data_class: str = KeywordData.__qualname__,
        folder_is_named: bool = True,
        **keywords: Any,
    ) -> None:
        self._held = held
        self._folder_is_named = folder_is_named
        self._done = (0, 0)
        self._checkpoint: Mapping[str, Any] = {}
        super().__init__(subcommand, data_class, **keywords)

    def before_instantiate_classes(self) -> None:
        """Find mistakes in what the run is, before anything is built or written."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        check_name(config.name)
        if config.ckpt_path is not None:
            self._checkpoint = load_checkpoint(config.ckpt_path)
            self._done = progress_of(self._checkpoint)
        elif self.subcommand != "fit":
            raise UserError(
                f"{self.subcommand} needs a trained network: give --ckpt_path FILE, a .ckpt that asr-dni fit wrote"
            )
        check_trainer_settings(config.trainer, fitting=self.subcommand == "fit")
        if self.subcommand == "fit":
            check_length(config.trainer)
        if logs_to_wandb(self.subcommand, config):
            check_wandb(config.wandb_project, wandb_mode(config.wandb))

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
            raise UserError(f"{explain(error)} (asr-dni {self.command} --help lists the settings)") from error

    def instantiate_trainer(self, **keywords: Any) -> pl.Trainer:
        """Give the trainer the run's loggers, unless the configuration names others."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        contents, self._checkpoint = self._checkpoint, {}
        check_optimizer(self.model)
        if self.subcommand == "fit" and config.weights is not None and not contents:
            begin_with(self.model, SavedWeights.read(config.weights))
        if self.subcommand == "fit":
            check_annealing(self.model, vars(config.annealing))
            check_accumulation(self.model.recipe, config.trainer.accumulate_grad_batches)
            self.model.read_teachers(self.datamodule)
        if contents:
            check_fits(self.model, contents, str(config.ckpt_path), training=self.subcommand == "fit")
        self._check_data()
        if config.trainer.fast_dev_run:
            trainer = super().instantiate_trainer(**keywords)
            if not trainer.is_global_zero:
                leave_speaking_to_the_main_process()
            return trainer
        # W&B's logger makes its folder at once, so it waits until the trainer's settings have turned out valid.
        own = has_own_loggers(config)
        trainer = super().instantiate_trainer(**(keywords | {"logger": False} if own else keywords))
        if not trainer.is_global_zero:
            leave_speaking_to_the_main_process()
            return trainer
        folder, resumed = self._take_folder()
        if config.trainer.default_root_dir is None:
            # Where results go without a logger; Lightning takes it before the folder is known.
            trainer._default_root_dir = str(folder)  # type: ignore[attr-defined]
        resumed_at = self._done[1] if resumed else None
        trainer.loggers = loggers_of_run(self.subcommand, config, folder, trainer.loggers, resumed_at)
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
                average = AveragedWeights([*given, *callbacks], self._settings_of(averaging[0]), self.model)
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
        if folder and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
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
        chosen = [
            callback.best_model_path
            for kind in (BestCheckpoint, LastCheckpoint)
            for callback in self.trainer.checkpoint_callbacks
            if isinstance(callback, kind) and callback.best_model_path
        ]
        if config.test_after_fit:
            self.test(model=self.model, datamodule=self.datamodule, ckpt_path=chosen[0] if chosen else None)
        if self.trainer.is_global_zero:
            result = Path(chosen[0]) if chosen and config.wandb_checkpoints else None
            finish_wandb(self.trainer.loggers, result, self._noise_curve())

    def _noise_curve(self) -> NoiseCurve | None:
        """Return the last curve that was measured."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        return next((own.curve for own in callbacks if isinstance(own, NoiseCurveCallback)), None)

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
        console = make_console()
        evaluated = f" of {_shorten(self.trainer.ckpt_path)}" if self.trainer.ckpt_path else ""
        console.print(
            f"{split} split{evaluated}: accuracy {100 * accuracy:.1f} %, loss {loss:.3f}, without noise",
            soft_wrap=True,
            highlight=False,
        )
        curve = self._noise_curve()
        if curve is not None:
            console.print(noise_curve_table({curve_label(curve.settings): curve}))
        if folder and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            print(f"results are in {folder}")


def _shorten(path: str | Path) -> Path:
    """Return the path relative to the current folder where it is below it."""
    path = Path(path)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def run_lightning(subcommand: str, arguments: Sequence[str]) -> SpotterCLI:
    """Run ``asr-dni fit`` and its like: parse the command line, build the objects, call the trainer.

    Raises:
        UserError: the settings are not valid or do not go together.
    """
    quiet_expected_warnings()
    naming = ("--name", "--runs", "--config", "-c")
    folder_is_named = any(argument.partition("=")[0] in naming for argument in arguments)
    with ExitStack() as held, only_named_classes():
        parsed = with_configuration(subcommand, list(arguments))
        return build(SpotterCLI, subcommand, parsed, held, folder_is_named=folder_is_named)


def build(
    kind: Callable[..., SpotterCLI],
    subcommand: str,
    arguments: list[str],
    held: ExitStack,
    command: str | None = None,
    description: str | None = None,
    **keywords: Any,
) -> SpotterCLI:
    """Parse a run's command line, build its objects and do what its subcommand says.

    Args:
        kind: the command line.
        subcommand: the trainer's, whose settings it has.
        arguments: with the text of configurations in place of their files' names.
        held: what is to be let go in the end.
        command: what the user calls it, where that is not the subcommand.
        description: what its help begins with, if it has one of its own.
        **keywords: further arguments of ``kind``.

    Raises:
        UserError: the settings are not valid or do not go together.
    """
    command = command or subcommand
    defaults: dict[str, Any] = {
        "max_epochs": 30,
        "log_every_n_steps": 10,
        "num_sanity_val_steps": 0,
        "callbacks": [],
    }
    if subcommand == "predict":
        defaults["callbacks"] = [PredictionTable()]
    try:
        return kind(
            subcommand,
            held,
            name_of_data_class(arguments),
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
                    "description": description or describe(subcommand),
                    "usage": f"asr-dni {command} [--config FILE] [--KEY VALUE ...]",
                },
            },
            **keywords,
        )
    except ArgumentError as error:
        raise UserError(f"{explain(error)} (asr-dni {command} --help lists the settings)") from error
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
