"""Train one lever of the recipe at a time, and write docs/recipes.md: what each gains on the validation split.

    python scripts/recipes.py train --runs runs/recipes --workers 2      # trains what is not trained yet, and goes on
    python scripts/recipes.py page --runs runs/recipes                   # tables and figures of docs/recipes.md

A lever is a line of LEVERS: settings that are added to conf/experiment/eight_words_crnn_dni.yaml. The test split is
looked at nowhere.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from asr_dni.wording import count

EXPERIMENT = "eight_words_crnn_dni"
EPOCHS = 20
SEEDS = (1, 2, 3)
SIGMAS = (0.0, 1.0, 2.0, 3.0)
DRAWS = 5


@dataclass(frozen=True)
class Lever:
    """One change of the recipe.

    Attributes:
        says: what it changes, for the page.
        settings: of ``asr-dni fit``.
        kind: which part of the recipe it belongs to.
    """

    says: str
    settings: tuple[str, ...] = ()
    kind: str = "recipe"


def _network(settings: str, says: str) -> Lever:
    return Lever(says, tuple(f"--model.network.{one}" for one in settings.split()), "network")


def _data(settings: str, says: str, kind: str = "augmentation") -> Lever:
    return Lever(says, tuple(f"--data.{one}" for one in settings.split()), kind)


_BLOCKS = (
    "--model.network.convolutions.blocks=[{channels: 32, kernel: [5, 5], stride: [2, 2]}, "
    "{channels: 64, stride: [1, 2], separable: true}, {channels: 96, stride: [1, 2], separable: true}]"
)

LEVERS = {
    "base": Lever("nothing: the recipe as it is", kind="base"),
    "speed": _data("augmentation.speed=[0.909,1.1]", "speed and pitch changed by up to 10 %"),
    "wide": Lever(
        "32, 64, 96 channels, 128 numbers a frame",
        (_BLOCKS, "--model.network.convolutions.width=128"),
        "network",
    ),
    "ema": Lever(
        "exponential averages of the weights (decay 0.998 a step)",
        ("--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.998"),
    ),
    "mixup": Lever("mixup, alpha 0.2", ("--model.mixup=0.2",)),
    "bidirectional": _network("bidirectional=true units=80", "LSTM in both directions, 80 units each"),
    "gru": _network("cell=gru", "GRU for LSTM"),
    "mfcc": Lever(
        "MFCC: DCT of 80 mel bands to 40, at the same windows",
        (
            "--data.front_end=asr_dni.features.MFCC",
            "--data.front_end.n_mfcc=40",
            "--data.front_end.n_mels=80",
            "--data.front_end.window_ms=30.0",
            "--data.front_end.hop_ms=10.0",
            "--data.front_end.padding=center",
        ),
        "front end",
    ),
    "windows_40_20": _data(
        "front_end.window_ms=40.0 front_end.hop_ms=20.0 augmentation.time_mask_frames=10",
        "windows of 40 ms every 20 ms",
        "front end",
    ),
    "no_masks": _data("augmentation.time_masks=0 augmentation.frequency_masks=0", "no SpecAugment"),
    "drawn_batch": Lever("sigma drawn for each batch, from 0 to 2", ("--annealing.drawn=batch",), "noise"),
    "drawn_sample": Lever(
        "sigma drawn for each clip, from 0 to 3",
        ("--annealing.drawn=sample", "--annealing.sigma=3.0"),
        "noise",
    ),
    "sigma_3": Lever("sigma_train 3", ("--annealing.sigma=3.0",), "noise"),
}


def _is_done(folder: Path) -> bool:
    return any(folder.glob("version_*/noise_curve.csv"))


def train(runs: Path, names: Sequence[str], seeds: Sequence[int], workers: int, epochs: int) -> None:
    """Train what is not trained yet, ``workers`` at a time, each on one thread."""
    runs.mkdir(parents=True, exist_ok=True)
    program = shutil.which(
        "asr-dni", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    assert program is not None, "asr-dni is not installed"
    sigmas = ",".join(str(sigma) for sigma in SIGMAS[1:])

    def one(name: str, seed: int) -> bool:
        folder = runs / name / f"seed_{seed}"
        if _is_done(folder):
            return True
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            program, "fit", "--config", EXPERIMENT, "--runs", str(runs), "--name", f"{name}/seed_{seed}",
            "--seed_everything", str(seed), "--trainer.enable_progress_bar", "false", "--wandb", "disabled",
            "--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(epochs),
            f"--noise_curve.watched_sigmas=[{sigmas}]", "--noise_curve.validation_draws", str(DRAWS),
            "--noise_curve.sigmas=[0.0]", "--noise_curve.draws=1",
            *LEVERS[name].settings,
        ]  # fmt: skip
        with (folder / "log.txt").open("w") as log:
            code = subprocess.run(
                command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
            ).returncode
        print(f"{folder}: {'done' if code == 0 else f'failed ({code}), see log.txt'}", flush=True)
        return code == 0

    with ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(lambda which: one(*which), [(name, seed) for name in names for seed in seeds]))
    if not all(done):
        raise SystemExit(f"{count(done.count(False), 'training')} failed")


def main() -> None:
    """Train, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "page"))
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=list(LEVERS), default=list(LEVERS), help="levers")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    given = parser.parse_args()
    if given.what == "train":
        train(given.runs, given.only, given.seeds, given.workers, given.epochs)


if __name__ == "__main__":
    main()
