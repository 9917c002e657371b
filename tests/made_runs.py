"""Run folders as ``asr-dni fit`` leaves them, made up by a formula: for whatever shows results."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.curves.curve_file import COLUMNS

LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
CLIPS, CLASSES, EPOCHS, STEPS = 845, 8, 12, 20


def accuracy_at(sigma_train: float, sigma: float) -> float:
    """Return the accuracy that a training has: it falls later, from a little lower, the more noise it knew."""
    return 1 / CLASSES + (0.80 - 0.012 * sigma_train) / (
        1 + math.exp(2.2 * (sigma - 3.1 - 0.55 * sigma_train))
    )


def write_run(folder: Path, sigma_train: float, seed: int, draws: int = 3) -> Path:
    """Write one run: configuration, metrics and curve; the same arguments give the same files."""
    rng = np.random.default_rng([seed, round(10 * sigma_train)])
    luck = rng.normal(0, 0.006)
    rows = []
    for level in LEVELS:
        for draw in range(draws if level else 1):
            chance = min(max(accuracy_at(sigma_train, level) + luck, 0), 1)
            accuracy = rng.binomial(CLIPS, chance) / CLIPS
            snr = 9.5 - 20 * math.log10(level) if level else math.inf
            rows.append((level, 0, draw, snr, accuracy, 2.4 * (1 - accuracy), CLIPS))
    settings = {
        **{"scale": "absolute", "sites": ["input", "recurrent", "output"], "arrays": "joint", "draws": draws},
        **{
            "n_classes": CLASSES,
            "seed": seed,
            "sigma_train": sigma_train,
            "weights": f"{sigma_train}-{seed}",
        },
        **{"cell": "lstm", "layers": 2, "units": 128, "data": "made up", "split": "test", "noise_seed": 0},
    }
    folder.mkdir(parents=True, exist_ok=True)
    NoiseCurve(pd.DataFrame(rows, columns=list(COLUMNS)), settings).to_csv(folder / "noise_curve.csv")
    configuration = {
        "seed_everything": seed,
        "name": folder.name,
        "model": {"network": {"cell": "lstm", "units": 128, "layers": 2}, "schedule": "cosine"},
        "annealing": {"sigma": sigma_train, "schedule": "linear"},
        "noise_curve": {"watched_sigmas": [1.0, 3.0]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")
    metrics(sigma_train, rng).to_csv(folder / "metrics.csv", index=False)
    return folder


def metrics(sigma_train: float, rng: np.random.Generator) -> pd.DataFrame:
    """Return what such a training logs."""
    rows = []
    steps = EPOCHS * STEPS
    for step in range(9, steps, 10):
        progress = (step + 1) / steps
        rate = 0.004 * (1 + math.cos(math.pi * progress)) / 2
        epoch = step // STEPS
        rows.append(
            {"epoch": epoch, "step": step, "sigma_train": sigma_train * progress, "learning_rate": rate}
        )
        if (step + 1) % STEPS:
            continue
        loss = 0.3 + 1.7 * math.exp(-epoch / 2.5) + 0.05 * sigma_train + rng.normal(0, 0.01)
        right = {
            sigma: accuracy_at(sigma_train, sigma) * (1 - math.exp(-(epoch + 1) / 2)) for sigma in (0, 1, 3)
        }
        rows.append(
            {"epoch": epoch, "step": step, "val/loss": loss, "val/accuracy": right[0]}
            | {f"val/accuracy@{float(sigma)}": right[sigma] for sigma in (1, 3)}
            | {f"val/loss@{float(sigma)}": 2.4 * (1 - right[sigma]) for sigma in (1, 3)}
        )
        trained = {"train/loss": loss + 0.15, "train/accuracy": 0.97 * right[0], "test/accuracy": math.nan}
        rows.append({"epoch": epoch, "step": step, **trained})
    return pd.DataFrame(rows)


def write_runs(folder: Path, sigmas: tuple[float, ...] = (0.0, 1.0, 2.0), seeds: int = 3) -> Path:
    """Write a run for every noise of the training and seed."""
    for sigma in sigmas:
        for seed in range(1, seeds + 1):
            write_run(folder / f"lstm_{sigma:g}" / f"seed_{seed}", sigma, seed)
    return folder
