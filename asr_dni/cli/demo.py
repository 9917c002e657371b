"""``asr-dni demo``: from nothing to two noise curves, with speech that it makes itself."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import yaml
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import Logger
from rich.text import Text
from wandb import Settings as WandbSettings

from asr_dni.catalogue.compare import compare_curves
from asr_dni.cli.functions import run_function
from asr_dni.cli.quiet import quiet_expected_warnings
from asr_dni.cli.run import LastCheckpoint, call_trainer
from asr_dni.cli.run_arguments import settings_of_run
from asr_dni.cli.run_files import MetricsLog, claimed_folder
from asr_dni.data import AugmentationSettings, KeywordData, Synthetic
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurveCallback, make_wandb_logger, resolve_wandb_mode
from asr_dni.features import MFCC
from asr_dni.files import write_atomically
from asr_dni.model import KeywordSpotter, NetworkSettings, NoiseAnnealing, TrainingNoise
from asr_dni.terminal import make_console
from asr_dni.wording import count

SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


def demo(
    output: Path = Path("runs/demo"),
    data: Path = Path("data"),
    sigma_train: float = 2.0,
    epochs: int = 50,
    units: int = 64,
    draws: int = 5,
    seed: int = 0,
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto",
    speakers: int = 400,
) -> None:
    """Train a conventional and a noise-trained LSTM on synthetic speech and compare their noise curves.

    Args:
        output: folder for runs, curves and figures.
        data: folder that the spoken commands are kept in.
        sigma_train: noise that the second network is trained with.
        epochs: length of each training.
        units: LSTM units.
        draws: realisations of the noise per level.
        seed: of everything that is random.
        wandb: W&B: auto is online where there is a login, else offline.
        speakers: voices that say the eight words, of which a tenth is for validation and a tenth for test.
    """
    quiet_expected_warnings()
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    console = make_console()
    started = time.monotonic()
    # Mistakes are found before anything is made.
    if epochs < 1:
        raise UserError(f"epochs is {epochs}: give 1 or more")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}: give a number from 0 to {2**32 - 1}")
    NoiseAnnealing(sigma_train)
    NetworkSettings(units=units)
    NoiseCurveCallback(SIGMAS, draws=draws)
    if wandb != "disabled":
        resolve_wandb_mode(None if wandb == "auto" else wandb)
    for folder in (output, data):
        folder.mkdir(parents=True, exist_ok=True)
    source = Synthetic(root=str(data), seed=seed, speakers=speakers)
    console.print(Text("1/3", "bold"), "spoken commands: made with eSpeak NG once, then kept")
    runs = [
        ("2/3", "conventional", 0.0, "training without noise"),
        ("3/3", "dni", sigma_train, f"training under noise, sigma_train {sigma_train:g}"),
    ]
    curves = []
    with ExitStack() as held:
        for step, name, sigma, what in runs:
            module = KeywordData(
                source,
                front_end=MFCC(n_mfcc=20),
                augmentation=AugmentationSettings(time_shift_ms=100.0),
                batch_size=64,
                cache_dir=data / "cache",
                seed=seed,
            )
            module.prepare_data()
            console.print(Text(step, "bold"), f"{what}: {count(epochs, 'epoch')}")
            pl.seed_everything(seed, verbose=False)
            spotter = KeywordSpotter(
                module.label_names,
                module.n_features,
                NetworkSettings(
                    units=units, layers=1, dropout=0.0, input_gain=4.0, recurrent_gain=2.0, output_gain=4.0
                ),
                TrainingNoise(seed=seed),
            )
            annealing: dict[str, Any] = {"sigma": sigma, "schedule": "linear", "warm_up": 0.1, "length": 0.4}
            noise_curve: dict[str, Any] = {"sigmas": SIGMAS, "draws": draws, "every_n_epochs": 0}
            length: dict[str, Any] = {"max_epochs": epochs, "log_every_n_steps": 5}
            files = MetricsLog(held.enter_context(claimed_folder(output / name)))
            configuration = {
                "runs": str(output),
                "name": name,
                **settings_of_run(KeywordData.__qualname__, module.hparams["data"], spotter.hparams["model"]),
                "annealing": annealing,
                "noise_curve": {**noise_curve, "sigmas": list(SIGMAS)},
                "checkpoint": {"monitor": None},  # the last state is the result
                "trainer": length,
                "wandb": wandb,
            }
            with write_atomically(Path(files.log_dir, "config.yaml")) as temporary:
                temporary.write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")
            loggers: list[Logger] = [files]
            if wandb != "disabled":
                mode = None if wandb == "auto" else wandb
                quiet = WandbSettings(silent=True)
                loggers.append(
                    make_wandb_logger(name=f"demo-{name}", save_dir=files.log_dir, mode=mode, settings=quiet)
                )
            trainer = pl.Trainer(
                **length,
                accelerator="auto",
                logger=loggers,
                num_sanity_val_steps=0,
                enable_model_summary=False,
                callbacks=[
                    NoiseAnnealing(**annealing),
                    NoiseCurveCallback(**noise_curve),
                    LastCheckpoint(),
                    RichProgressBar(leave=False),
                ],
            )
            call_trainer(trainer, trainer.fit, _how_to_go_on, model=spotter, datamodule=module)
            call_trainer(
                trainer, trainer.test, _how_to_go_on, model=spotter, datamodule=module, verbose=False
            )
            for logger in loggers:
                logger.finalize("success")
            curves.append(Path(files.log_dir))
            _finish_wandb()
    comparison = compare_curves(
        curves, output / "comparison", title="Synthetic speech: conventional against DNI"
    )
    console.print(comparison.table)
    minutes = (time.monotonic() - started) / 60
    figure = next(file for file in comparison.files if file.suffix == ".png")
    console.print(f"done in {minutes:.1f} minutes; the figure is {figure}", soft_wrap=True)
    console.print(f"W&B runs and checkpoints: {', '.join(map(str, curves))}", soft_wrap=True)


def _how_to_go_on() -> str:
    return "the demo begins anew next time; the spoken commands are kept"


def _finish_wandb() -> None:
    """End the run, so that the next one is another."""
    import wandb

    if wandb.run is not None:
        wandb.finish()


def run(arguments: Sequence[str]) -> None:
    """Run ``asr-dni demo``."""
    run_function(demo, "demo", arguments)
