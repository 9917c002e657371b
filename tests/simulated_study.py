"""Ledgers whose truth is known: accuracies are drawn around given curves."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from asr_dni.hardware_files import read_hardware
from asr_dni.noise import Strength

SIGMAS_TRAIN = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
SIGMAS_INFER = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)

Truth = Callable[[str, int, str, float, float], float]
"""Accuracy by cell, units, schedule, sigma_train, sigma_infer."""


def realistic_truth(cell: str, units: int, schedule: str, sigma_train: float, sigma_infer: float) -> float:
    """Return an accuracy that falls to chance around a midpoint which training under noise moves to the right."""
    chance = 0.125
    clean = {"rnn": 0.80, "gru": 0.91, "lstm": 0.92}[cell] + 0.02 * math.log2(units / 64)
    clean += 0.012 * (sigma_train == 0.25) - 0.035 * max(0, sigma_train - 0.5) ** 1.5
    midpoint = {"rnn": 0.7, "gru": 1.1, "lstm": 1.3}[cell] + 0.75 * sigma_train + 0.1 * math.log2(units / 64)
    midpoint += 0.2 * (schedule != "constant") * (sigma_train > 0)
    return chance + (clean - chance) / (1 + (sigma_infer / midpoint) ** 4)


def member_rows(
    rng: np.random.Generator,
    truth: Truth = realistic_truth,
    *,
    cell: str = "lstm",
    units: int = 64,
    schedule: str = "constant",
    sigma_train: float = 0.0,
    seed: int = 0,
    seed_effect: float = 0.0,
    spread: float = 0.006,
    sigmas_infer: Sequence[float] = SIGMAS_INFER,
    draws: int = 3,
    n_clips: int = 845,
    **other: Any,
) -> pd.DataFrame:
    """Return a member's rows: spread over trainings, and binomial draws of the clips that are right."""
    configuration = {
        "network": {"cell": cell, "units": units, "layers": 1},
        "annealing": {"schedule": schedule, "sigma": sigma_train},
        "seed": seed,
        "optimizer": {"lr": 1e-3, "weight_decay": 0.0},
    } | other.pop("configuration", {})
    text = json.dumps(configuration, sort_keys=True)
    member = hashlib.sha256(text.encode()).hexdigest()[:16]
    own = rng.normal(0, spread)
    rows = []
    for sigma in sigmas_infer:
        level = rng.normal(0, spread / 2)
        expected = truth(cell, units, schedule, sigma_train, sigma) + seed_effect + own + level
        for draw in range(draws if sigma else 1):
            noisy = expected + (rng.normal(0, 0.004) if sigma else 0.0)
            correct = int(np.clip(round(n_clips * noisy), 0, n_clips))
            rows.append({"strength": sigma, "draw": draw, "correct": correct, "accuracy": correct / n_clips})
    frame = pd.DataFrame(rows)
    fixed = {
        "member": member,
        "training": member,
        "study": "simulated",
        "data": "speech commands",
        "protocol": "8 words",
        "split": "test",
        "n_clips": n_clips,
        "cell": cell,
        "units": units,
        "layers": 1,
        "bidirectional": False,
        "convolutions": "",
        "schedule": schedule,
        "sigma_train": float(sigma_train),
        "drawn": "no",
        "train_scale": "signal",
        "train_hardware": "",
        "hardware": "",
        "axis": "output.sigma",
        "unit": Strength.sigma(other.get("scale") or "signal").unit,
        "chip": 0,
        "scale": "signal",
        "sites": "input+recurrent+output",
        "arrays": "separate",
        "votes": 1,
        "compensation": "",
        "seed": seed,
        "data_seed": seed,
        "epochs": 40,
        "n_classes": 8,
        "code_version": "0.1.0",
        "configuration": text,
        "train_seconds": 12.5,
    } | other
    snr = [math.inf if sigma == 0 else -20 * math.log10(sigma) for sigma in frame["strength"]]
    return frame.assign(snr_db=snr, **fixed)


def train_hardware(hardware: object, strength: str) -> str:
    """Return what a ledger says of a training on a hardware, over one of its strengths."""
    its, made = Strength(strength), read_hardware(hardware)
    noise = {"hardware": made.settings_beside(its), "strength": made.axis(its).as_dict(), "chips": "step"}
    return json.dumps(noise, sort_keys=True)


def simulate(
    seed: int = 0,
    truth: Truth = realistic_truth,
    cells: Sequence[str] = ("lstm",),
    sizes: Sequence[int] = (64,),
    schedules: Sequence[str] = ("constant",),
    sigmas_train: Sequence[float] = SIGMAS_TRAIN,
    seeds: Sequence[int] = range(5),
    seed_spread: float = 0.006,
    **other: Any,
) -> pd.DataFrame:
    """Return a study's rows. Conventional training is there once, under the first schedule."""
    rng = np.random.default_rng(seed)
    effects = {one: rng.normal(0, seed_spread) for one in seeds}
    members = [
        member_rows(
            rng,
            truth,
            cell=cell,
            units=units,
            schedule=schedule,
            sigma_train=sigma_train,
            seed=one,
            seed_effect=effects[one],
            **other,
        )
        for cell in cells
        for units in sizes
        for schedule in schedules
        for sigma_train in sigmas_train
        for one in seeds
        if sigma_train > 0 or schedule == schedules[0]
    ]
    return pd.concat(members, ignore_index=True)


def simulate_without_effect(
    rng: np.random.Generator,
    studies: int,
    n_seeds: int,
    spread: float,
    sigmas_train: Sequence[float] = (0.0, 1.0, 2.0),
    sigmas_infer: Sequence[float] = (0.0, 0.2, 0.9),
    draws: int = 10,
    n_clips: int = 845,
    gain: float = 0.0,
) -> pd.DataFrame:
    """Return studies in which no noise changes anything, as trainings of different ``epochs``.

    Every clip is right where its margin is above 0: a part of its own, which all trainings share, one of the seed,
    which the trainings of one seed share, and one of the training. Inference noise takes the place of a share of the
    latter and comes anew with each draw, so that every clip is right with the same probability whatever the noise:
    draws of weak noise are nearly the same pass, those of strong noise are not. Clean inference is one pass. Accuracies
    are thus binomial, in whole clips and with ties, and no null hypothesis is false on any clips.

    Args:
        rng: generator.
        studies: how many.
        n_seeds: S, trainings of each kind.
        spread: standard deviation of a training's own part; that of clips is 1, so that it decides how many clips
            two trainings differ in: 1 of 845 at 0.003, 80 at 0.3.
        sigmas_train: T levels; they do nothing.
        sigmas_infer: I levels, as parts of ``spread``, at most 1.
        draws: passes at each level above 0.
        n_clips: of the test split.
        gain: what every training under noise has in addition, in units of the margin.
    """
    shape = (studies, len(sigmas_train), n_seeds, n_clips)
    shared = rng.normal(1.3, 1.0, (studies, 1, 1, n_clips)) + rng.normal(
        0, spread, (studies, 1, n_seeds, n_clips)
    )
    own = rng.normal(0, spread, shape)
    shared = np.repeat(shared, len(sigmas_train), axis=1)
    shared[:, 1:] += gain
    frames = []
    for sigma in sigmas_infer:
        for draw in range(draws if sigma else 1):
            noise = rng.normal(0, sigma * spread, shape) if sigma else 0.0
            right = (shared + math.sqrt(1 - sigma**2) * own + noise > 0).sum(axis=-1)
            study, train, seed = (axis.ravel() for axis in np.indices(right.shape))
            frames.append(
                pd.DataFrame(
                    {
                        "epochs": study + 1,
                        "sigma_train": np.take(sigmas_train, train),
                        "seed": seed,
                        "strength": sigma,
                        "draw": draw,
                        "correct": right.ravel(),
                    }
                )
            )
    frame = pd.concat(frames, ignore_index=True)
    names = frame[["epochs", "sigma_train", "seed"]].astype(str).agg("-".join, axis=1)
    fixed = {
        "data": "speech commands",
        "protocol": "8 words",
        "split": "test",
        "n_clips": n_clips,
        "cell": "lstm",
        "units": 64,
        "layers": 1,
        "bidirectional": False,
        "convolutions": "",
        "schedule": "constant",
        "train_scale": "signal",
        "train_hardware": "",
        "hardware": "",
        "axis": "output.sigma",
        "unit": Strength.sigma("signal").unit,
        "chip": 0,
        "scale": "signal",
        "sites": "input+recurrent+output",
        "arrays": "separate",
        "votes": 1,
        "compensation": "",
        "n_classes": 8,
        "snr_db": math.nan,
    }
    return frame.assign(
        **fixed, accuracy=frame["correct"] / n_clips, data_seed=frame["seed"], member=names.astype("category")
    )
