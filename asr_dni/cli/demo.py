"""``asr-dni demo``: from nothing to two noise curves, with speech that it makes itself."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.text import Text

from asr_dni.catalogue.compare import compare_curves
from asr_dni.cli.functions import check_folder, run_function
from asr_dni.cli.lightning import run_lightning
from asr_dni.data import Synthetic
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurveCallback, resolve_wandb_mode
from asr_dni.model import NetworkSettings, NoiseAnnealing
from asr_dni.terminal import make_console


def demo(
    output: Path = Path("runs/demo"),
    data: Path = Path("data"),
    sigma_train: float = 2.0,
    epochs: int = 10,
    units: int = 128,
    draws: int = 10,
    seed: int = 0,
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto",
    speakers: int = 400,
) -> None:
    """Train a conventional and a noise-trained CRNN on synthetic speech and compare their noise curves.

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
    console = make_console()
    started = time.monotonic()
    # Mistakes are found before anything is made.
    if epochs < 1:
        raise UserError(f"epochs is {epochs}: give 1 or more")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}: give a number from 0 to {2**32 - 1}")
    NoiseAnnealing(sigma_train)
    NetworkSettings(units=units)
    NoiseCurveCallback(draws=draws)
    Synthetic(root=str(data), seed=seed, speakers=speakers)
    for argument, folder in (("output", output), ("data", data)):
        check_folder(folder, argument)
        folder.mkdir(parents=True, exist_ok=True)
    if wandb != "disabled":
        resolve_wandb_mode(None if wandb == "auto" else wandb)
    named = output.resolve() if output.name in ("", "..") else output
    settings = {
        "--runs": named.parent,
        "--data.source.root": data,
        "--data.source.seed": seed,
        "--data.source.speakers": speakers,
        "--data.cache_dir": data / "cache",
        "--seed_everything": seed,
        "--model.network.units": units,
        "--trainer.max_epochs": epochs,
        "--noise_curve.draws": draws,
        "--wandb": wandb,
        "--wandb_group": "demo",
    }
    trainings = [
        ("1/2", "conventional", {}, "training without noise"),
        (
            "2/2",
            "dni",
            {"--annealing.sigma": sigma_train},
            f"training under noise, sigma_train {sigma_train:g}",
        ),
    ]
    curves = []
    for step, kind, own, what in trainings:
        console.print(Text(step, "bold"), f"{what}:")
        name = f"{named.name}/{kind}"
        given = {"--config": f"synthetic_crnn_{kind}", "--name": name, **settings, **own}
        command = [f"{key}={value}" for key, value in given.items()]
        console.print(Text(f"asr-dni fit {shlex.join(command)}", "dim"), soft_wrap=True)
        try:
            log_dir = run_lightning("fit", command).trainer.log_dir
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the demo begins anew next time; the spoken commands are kept") from None
        assert log_dir is not None
        curves.append(Path(log_dir))
        _end_wandb_run()
    comparison = compare_curves(
        curves, output / "comparison", title="Synthetic speech: conventional against DNI"
    )
    console.print(comparison.table)
    minutes = (time.monotonic() - started) / 60
    figure = next(file for file in comparison.files if file.suffix == ".png")
    console.print(f"done in {minutes:.1f} minutes; the figure is {figure}", soft_wrap=True)
    console.print(f"W&B runs and checkpoints: {', '.join(map(str, curves))}", soft_wrap=True)


def _end_wandb_run() -> None:
    """End the run, so that the next one is another."""
    import wandb

    if wandb.run is not None:
        wandb.finish()


def run(arguments: Sequence[str]) -> None:
    """Run ``asr-dni demo``."""
    run_function(demo, "demo", arguments)
