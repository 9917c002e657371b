"""Made-up runs, for measuring what looks through many: plausible curves, nothing trained.

    python benchmarks/many_runs.py FOLDER [--runs 1000] [--seeds 5] [--seed 0]

Writes FOLDER/EXPERIMENT/seed_S/version_0 with config.yaml, metrics.csv, noise_curve.csv and a place holder of a
checkpoint, of the size and form that `asr-dni fit --config eight_words_lstm_dni` writes. Experiments differ in cell,
units, sigma_train, schedule and learning rate; accuracy falls from its clean value to chance with sigma, later where
more noise was trained under.
"""

import argparse
import contextlib
import copy
import io
import itertools
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from asr_dni.bounded_yaml import load_yaml
from asr_dni.cli.main import main as asr_dni
from asr_dni.evaluation.curves.curve_file import COLUMNS, curve_file_text

SIGMAS = tuple(0.5 * step for step in range(9))
DRAWS, CLIPS, EPOCHS, CLASSES = 10, 845, 24, 8
_STEPS_PER_EPOCH, _LOGGED_EVERY, _VALIDATED_EVERY = 80, 10, 5
_CLEAN = {"lstm": 0.95, "gru": 0.945, "rnn": 0.90}
_WORDS = ["down", "go", "left", "no", "right", "stop", "up", "yes"]


def fit_configuration() -> dict[str, Any]:
    """Return the configuration that ``asr-dni fit`` would write for the published experiment."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        asr_dni(["fit", "--config", "eight_words_lstm_dni", "--print_config"])
    settings: dict[str, Any] = load_yaml(printed.getvalue())
    settings["trainer"]["max_epochs"] = EPOCHS
    return settings


def experiments() -> Iterator[dict[str, Any]]:
    """Yield what experiments differ in, without end."""
    for repetition in itertools.count():
        for schedule, sigma, units, cell in itertools.product(
            ("linear", "cosine"), (0.0, 0.5, 1.0, 1.5, 2.0, 3.0), (64, 128, 256), _CLEAN
        ):
            rate = round(0.01 * 0.7**repetition, 6)
            yield {"cell": cell, "units": units, "sigma": sigma, "schedule": schedule, "lr": rate}


def accuracy(experiment: Mapping[str, Any], sigma: float, luck: float) -> float:
    """Return the true accuracy of one training under noise."""
    chance = 1 / CLASSES
    clean = _CLEAN[experiment["cell"]] + 0.01 * math.log2(experiment["units"] / 128)
    clean -= 0.006 * experiment["sigma"] + 0.3 * abs(experiment["lr"] - 0.007) - 0.006 * luck
    middle = 1.9 + 0.75 * experiment["sigma"] + 0.15 * luck + 0.1 * (experiment["schedule"] == "cosine")
    return float(chance + (clean - chance) / (1 + (sigma / middle) ** 3))


def noise_curve(experiment: Mapping[str, Any], random: np.random.Generator) -> pd.DataFrame:
    """Return a curve's table: binomial counts of correct clips around the true accuracy."""
    luck = random.normal()
    rows = []
    for sigma in SIGMAS:
        true = accuracy(experiment, sigma, luck)
        for draw in range(DRAWS if sigma else 1):
            share = random.binomial(CLIPS, true) / CLIPS
            snr = -20 * math.log10(sigma) + 6.0 if sigma else math.inf
            rows.append((sigma, 0, draw, snr, share, 2.1 * (1 - true) + 0.02, CLIPS))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def metrics(curve: pd.DataFrame, sigma: float) -> str:
    """Return the metrics of a training that ended with this curve, as ``metrics.csv`` has them."""
    means = curve.groupby("strength")[["accuracy", "loss"]].mean().to_dict("index")
    final, rows = float(means[0.0]["accuracy"]), list[dict[str, Any]]()
    for epoch in range(EPOCHS):
        last = _STEPS_PER_EPOCH * (epoch + 1) - 1
        level = sigma * min(1.0, (epoch + 1) / EPOCHS)
        for step in range(_STEPS_PER_EPOCH * epoch + _LOGGED_EVERY - 1, last + 1, _LOGGED_EVERY):
            rows.append({"epoch": epoch, "sigma_train": level, "step": step})
        reached = final - (final - 1 / CLASSES) * math.exp(-(epoch + 1) / 4)
        loss = 2.1 * (1 - reached)
        if (epoch + 1) % _VALIDATED_EVERY == 0 or epoch + 1 == EPOCHS:
            noisy = {f"val/accuracy@{value}": reached * (1 - 0.05 * value) for value in (1.0, 2.0)}
            noisy |= {f"val/loss@{value}": loss * (1 + 0.2 * value) for value in (1.0, 2.0)}
            rows.append({"epoch": epoch, "step": last, "val/accuracy": reached, "val/loss": loss, **noisy})
        rows.append(
            {"epoch": epoch, "step": last, "train/accuracy": reached - 0.02, "train/loss": loss + 0.1}
        )
        rows[-1]["sigma_train"] = level
    test = {f"test/{name}@{value}": means[value][name] for value in SIGMAS for name in ("accuracy", "loss")}
    rows.append({"epoch": EPOCHS, "step": EPOCHS * _STEPS_PER_EPOCH, "test/accuracy": final, **test})
    frame = pd.DataFrame(rows)
    return frame[sorted(frame.columns)].to_csv(index=False, lineterminator="\n")


def curve_settings(settings: Mapping[str, Any], experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a curve of this configuration says of itself, but for what tells repetitions apart."""
    network, optimizer = settings["model"]["network"], settings["model"]["optimizer"]
    training: dict[str, Any] = {"model.label_names": _WORDS}
    named = ("cell", "units", "layers", "bidirectional", "pooling")
    training |= {f"model.network.{key}": value for key, value in network.items() if key not in named}
    training |= {f"data.front_end.{k}": v for k, v in settings["data"]["front_end"]["init_args"].items()}
    training |= {f"data.augmentation.{k}": v for k, v in settings["data"]["augmentation"].items()}
    training |= {f"optimizer.{key}": value for key, value in optimizer["init_args"].items()}
    training |= {f"annealing.{k}": v for k, v in settings["annealing"].items() if k != "sigma"}
    training |= {"trainer.max_epochs": EPOCHS, "trainer.precision": "32-true", "trainer.world_size": 1}
    return {
        "scale": "absolute",
        "sites": ["input", "recurrent", "output"],
        "arrays": "joint",
        "noise_seed": 0,
        "draws": DRAWS,
        "protocol": "folder speech_commands_8, all words, own test split",
        "n_classes": CLASSES,
        **{key: network[key] for key in named},
        "sigma_train": experiment["sigma"],
        "train_scale": "absolute",
        "training": training,
        "split": "test",
    }


def write_runs(folder: Path, number: int, seeds: int = 5, seed: int = 0) -> list[Path]:
    """Write made-up runs.

    Args:
        folder: below which they go.
        number: of runs.
        seeds: trainings of each experiment.
        seed: of the made-up luck.

    Returns:
        The runs' folders.
    """
    common, written = fit_configuration(), list[Path]()
    for experiment in experiments():
        settings = copy.deepcopy(common)
        settings["model"]["network"] |= {"cell": experiment["cell"], "units": experiment["units"]}
        settings["model"]["optimizer"]["init_args"]["lr"] = experiment["lr"]
        settings["annealing"] |= {"sigma": experiment["sigma"], "schedule": experiment["schedule"]}
        name = "{cell}_{units}_{schedule}_{sigma:g}_{lr:g}".format(**experiment)
        of_curve = curve_settings(settings, experiment)
        for repetition in range(1, seeds + 1):
            if len(written) == number:
                return written
            path = folder / name / f"seed_{repetition}" / "version_0"
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            settings |= {
                "seed_everything": repetition,
                "name": f"{name}/seed_{repetition}",
                "runs": str(folder),
            }
            text = yaml.dump(settings, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
            (path / "config.yaml").write_text(f"# pytorch_lightning==2.6.6\n{text}", encoding="utf-8")
            curve = noise_curve(experiment, np.random.default_rng((seed, len(written))))
            checkpoint = path / "checkpoints" / "last.ckpt"
            own = {"weights": f"{len(written):016x}", "seed": repetition, "checkpoint": str(checkpoint)}
            (path / "noise_curve.csv").write_text(
                curve_file_text({**of_curve, **own}, curve), encoding="utf-8"
            )
            (path / "metrics.csv").write_text(metrics(curve, experiment["sigma"]), encoding="utf-8")
            (path / ".lock").touch()
            with zipfile.ZipFile(checkpoint, "w") as archive:
                archive.writestr("made_up", "no network: this run was made up")
            written.append(path)
    return written


def main() -> None:
    """Write runs as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    print(f"{len(write_runs(chosen.folder, chosen.runs, chosen.seeds, chosen.seed))} runs in {chosen.folder}")


if __name__ == "__main__":
    main()
