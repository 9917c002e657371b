"""A study's results as matrices: accuracy by training noise, inference noise and seed."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.description import describe_hardware, names_split
from asr_dni.evaluation.curves.interpolation import first_at_or_below, weights_of_mean
from asr_dni.evaluation.curves.intervals import counting_deviation
from asr_dni.noise import SIGMA, Strength
from asr_dni.study.hypothesis_tests import Array, student_t_tests
from asr_dni.study.ledger_file import COLUMNS
from asr_dni.study.training_noise import (
    acts_at_zero,
    describe_train_hardware,
    name_hardware_of,
    on_the_same_hardware,
    strength_of_training,
)
from asr_dni.wording import count

KEYS = (
    "data",
    "protocol",
    "split",
    "n_classes",
    "cell",
    "units",
    "layers",
    "bidirectional",
    "convolutions",
    "epochs",
    "schedule",
    "train_scale",
    "train_hardware",
    "hardware",
    "scale",
    "sites",
    "arrays",
    "axis",
    "unit",
)
"""Columns that tell one matrix from another; all others are axes of the matrix or repetitions."""


@dataclass(frozen=True)
class Matrix:
    """The accuracies of one architecture in one setting.

    Attributes:
        key: values of :data:`KEYS`.
        sigma_train: T levels of the training's strength, ascending.
        levels: I values of the strength at inference, ascending.
        seeds: S trainings, by name.
        accuracy: mean over draws, ``(T, I, S)``; NaN where there is no result.
        snr_db: ``(I,)``; NaN where not known or not the same for all networks.
        n_clips: number of test clips.
        n_draws: passes over them per level and chip, ``(I,)``: 1 without noise.
        n_networks: how many networks an accuracy is the mean of, beside draws.
        n_chips: on how many chips each was evaluated.
        zero_is_conventional: whether ``sigma_train`` 0 is conventional training; else a part of the training's hardware
            acts at strength 0 too.
    """

    key: dict[str, Any]
    sigma_train: tuple[float, ...]
    levels: tuple[float, ...]
    seeds: tuple[str, ...]
    accuracy: Array
    snr_db: Array
    n_clips: int
    n_draws: npt.NDArray[np.int64]
    n_networks: int = 1
    n_chips: int = 1
    zero_is_conventional: bool = True

    @property
    def strength(self) -> Strength:
        """The axis that :attr:`levels` are values of."""
        return Strength(self.key["axis"], self.key["unit"])

    @property
    def train_strength(self) -> Strength | None:
        """What :attr:`sigma_train` is a value of; ``None`` where the training of this matrix was conventional alone."""
        return strength_of_training(self.key)

    @property
    def train_symbol(self) -> str:
        """What :attr:`sigma_train` is called, in short."""
        strength = self.train_strength or SIGMA
        return strength.symbol_in_training + ("" if strength.is_sigma else " in training")

    def is_conventional(self, sigma_train: float) -> bool:
        """Return whether a level is conventional training."""
        return sigma_train == 0 and self.zero_is_conventional

    def train_text(self, sigma_train: float) -> str:
        """Return a level as a figure's ticks have it: conventional training is none of a strength that acts at 0."""
        none = self.is_conventional(sigma_train) and acts_at_zero(self.key["train_hardware"])
        return "none" if none else f"{sigma_train:g}"

    @property
    def clean(self) -> bool:
        """Whether the lowest level is inference without any noise: at strength 0 other parts of a hardware may act."""
        return self.levels[0] == 0 and (not self.key["hardware"] or bool(np.isposinf(self.snr_db[0])))

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return 1 / int(self.key["n_classes"])

    @property
    def counting(self) -> float:
        """Standard deviation that counting in whole clips makes of an accuracy, however many draws it is the mean of.

        That of a number that is rounded to steps of one clip; see :mod:`asr_dni.study.hypothesis_tests`.
        """
        return counting_deviation(self.n_clips) / math.sqrt(self.n_networks)

    @property
    def mean(self) -> Array:
        """Mean over seeds, ``(T, I)``; NaN where no seed has a result."""
        counts = self.n_seeds
        return np.where(counts > 0, np.nansum(self.accuracy, axis=2) / np.maximum(counts, 1), np.nan)

    @property
    def n_seeds(self) -> npt.NDArray[np.int64]:
        """Number of seeds with a result, ``(T, I)``."""
        counts: npt.NDArray[np.int64] = np.isfinite(self.accuracy).sum(axis=2)
        return counts

    def interval(self) -> tuple[Array, Array]:
        """Return the 95 % Student t interval of the mean over seeds, ``(T, I)`` each; NaN where seeds are too few."""
        found = student_t_tests(self.accuracy, self.counting)
        return np.clip(found.low, 0, 1), np.clip(found.high, 0, 1)

    @property
    def conventional(self) -> Array | None:
        """Accuracies of conventional training, ``(I, S)``."""
        return self.accuracy[0] if self.is_conventional(self.sigma_train[0]) else None

    @property
    def level_weights(self) -> Array:
        """Weights of the levels in :meth:`mean_over_levels`, ``(I,)``, by the trapezoidal rule; their sum is 1."""
        return weights_of_mean(self.levels)

    def mean_over_levels(self) -> Array:
        """Return accuracy averaged over the strength from lowest to highest, ``(T, S)``: the area below the curve.

        Between measured levels accuracy is taken to be linear, so that the choice of levels matters little.
        """
        area: Array = np.einsum("i,tis->ts", self.level_weights, self.accuracy)
        return area

    def midpoints(self) -> Array:
        """Return each training's midpoint, ``(T, S)``.

        That is the strength at which accuracy has fallen half-way from its value at 0 to chance; inf where it does
        not fall so far, NaN where it is not defined.
        """
        found = np.full((len(self.sigma_train), len(self.seeds)), np.nan)
        if self.levels[0] != 0:
            return found
        for place in np.ndindex(*found.shape):
            curve = self.accuracy[place[0], :, place[1]]
            if not np.isfinite(curve).all() or curve[0] <= self.chance:
                continue
            found[place] = first_at_or_below(self.levels, curve, (curve[0] + self.chance) / 2)
        return found


def make_matrices(frame: pd.DataFrame) -> list[Matrix]:
    """Return a ledger's results by architecture and setting.

    Draws and chips are averaged within each training first. Conventional trainings (sigma_train 0, where nothing of
    the training's hardware acts) belong to every schedule, train_scale and train_hardware, which only say how the noise
    comes in; other trainings at 0 to every schedule.

    Args:
        frame: see :data:`asr_dni.study.ledger_file.COLUMNS`.

    Raises:
        UserError: there are no results, or a column is missing.
    """
    return make_matrices_with_notes(frame)[0]


def make_matrices_with_notes(frame: pd.DataFrame) -> tuple[list[Matrix], list[str]]:
    """Return what :func:`make_matrices` does, and what has to be said of it."""
    needed = [
        *KEYS,
        "member",
        "seed",
        "data_seed",
        "sigma_train",
        "strength",
        "chip",
        "draw",
        "accuracy",
        "n_clips",
        "snr_db",
    ]
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        raise UserError(f"a study's results need the columns {', '.join(COLUMNS)}: {missing[0]} is missing")
    if frame.empty:
        raise UserError("the study has no results yet: run it first")
    notes = []
    keys = list(KEYS)
    # Means over chips and draws; observed=True, since text may come as categories.
    grouped = frame.groupby(
        [*keys, "sigma_train", "seed", "data_seed", "member", "strength"],
        observed=True,
        sort=True,
        dropna=False,
    )
    means = grouped.agg(
        accuracy=("accuracy", "mean"),
        last_draw=("draw", "max"),
        last_chip=("chip", "max"),
        n_clips=("n_clips", "max"),
        snr_db=("snr_db", "mean"),
    ).reset_index()
    cells = means.groupby([*keys, "sigma_train", "seed"], observed=True)
    several = bool((cells["data_seed"].nunique() > 1).any())
    seed = means["seed"].astype(str)
    means["repetition"] = seed + "/" + means["data_seed"].astype(str) if several else seed
    order = {
        name: place
        for place, name in enumerate(
            means[["repetition", "seed", "data_seed"]]
            .sort_values(["seed", "data_seed"])["repetition"]
            .unique()
        )
    }
    twins = means.groupby([*keys, "sigma_train", "repetition"], observed=True)["member"].nunique()
    if (twins > 1).any():
        note = f"{int((twins > 1).sum())} trainings were there more than once, with other settings"
        notes.append(f"{note}{_differing(frame, means)}: their mean counts as one training.")
    own = ["schedule", "train_scale", "train_hardware"]
    shared = [key for key in keys if key not in own]
    under_noise = (means["sigma_train"] > 0) | means["train_hardware"].astype(str).map(acts_at_zero)
    noisy, conventional = means[under_noise], means[~under_noise]
    groups: list[tuple[dict[str, Any], pd.DataFrame]] = []
    bases = {values: rows for values, rows in conventional.groupby(shared, observed=True)}
    taken, apart = set(), 0
    for values, rows in _of_every_schedule(noisy).groupby(keys, observed=True):
        key = dict(zip(keys, values, strict=True))
        of_base = tuple(key[name] for name in shared)
        if of_base in bases and (rows["sigma_train"] > 0).all():
            taken.add(of_base)
            rows = pd.concat([bases[of_base], rows])
        else:
            apart += of_base in bases
        groups.append((key, rows))
    if apart:
        notes.append(
            f"{count(apart, 'matrix', 'matrices')} of trainings that are under noise at sigma_train 0 too, of other"
            " parts of their hardware, are not compared with conventional training, which is there by itself."
        )
    for values, rows in bases.items():
        if values not in taken:
            key = dict(zip(shared, values, strict=True)) | {name: "" for name in own}
            groups.append(({name: key[name] for name in keys}, rows))
    groups.sort(key=lambda group: tuple(map(_sortable, group[0].values())))
    return [_make_matrix(key, rows, order) for key, rows in groups], notes


def _of_every_schedule(noisy: pd.DataFrame) -> pd.DataFrame:
    """Return trainings under noise, with those at sigma_train 0 under every schedule of their kind.

    They are the same whatever the schedule, and there under one.
    """
    kind = [name for name in KEYS if name != "schedule"]
    at_zero = noisy[noisy["sigma_train"] == 0].drop(columns="schedule")
    if at_zero.empty:
        return noisy
    schedules = noisy[[*kind, "schedule"]].drop_duplicates()
    return pd.concat([noisy[noisy["sigma_train"] > 0], at_zero.merge(schedules, on=kind)])


def _sortable(value: Any) -> tuple[int, float, str]:
    return (1, 0.0, value) if isinstance(value, str) else (0, float(value), "")


def _differing(frame: pd.DataFrame, means: pd.DataFrame) -> str:
    """Name what the configurations of trainings that share their place differ in."""
    if "configuration" not in frame.columns:
        return ""
    texts = frame.drop_duplicates("member").set_index("member")["configuration"]
    names: dict[str, None] = {}
    for _, rows in means.groupby([*KEYS, "sigma_train", "repetition"], observed=True):
        members = list(rows["member"].unique())
        if len(members) < 2:
            continue
        try:
            flat = [_flatten(json.loads(str(texts[member]))) for member in members]
        except json.JSONDecodeError:
            return ""
        for one in flat[1:]:
            for name in dict.fromkeys([*flat[0], *one]):
                if flat[0].get(name) != one.get(name):
                    names[name] = None
    return f" ({', '.join(list(names)[:4])})" if names else ""


def _flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        return {prefix: settings}
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _make_matrix(key: dict[str, Any], rows: pd.DataFrame, order: Mapping[str, int]) -> Matrix:
    sigma_train = sorted(rows["sigma_train"].unique())
    levels = sorted(rows["strength"].unique())
    seeds = sorted(rows["repetition"].unique(), key=order.__getitem__)
    shape = (len(sigma_train), len(levels), len(seeds))
    places = np.ravel_multi_index(
        (
            np.searchsorted(sigma_train, rows["sigma_train"]),
            np.searchsorted(levels, rows["strength"]),
            rows["repetition"].map({name: place for place, name in enumerate(seeds)}).to_numpy(dtype=int),
        ),
        shape,
    )
    size = math.prod(shape)
    counts = np.bincount(places, minlength=size)
    sums = np.bincount(places, weights=rows["accuracy"].to_numpy(dtype=float), minlength=size)
    accuracy = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(shape)
    snr = []
    for level in levels:
        values = rows.loc[rows["strength"] == level, "snr_db"].to_numpy(dtype=float)
        same = bool((values == values[0]).all()) or bool(np.ptp(values) <= 0.1)
        snr.append(float(values[0]) if same else math.nan)
    return Matrix(
        key,
        tuple(map(float, sigma_train)),
        tuple(map(float, levels)),
        tuple(seeds),
        accuracy,
        np.array(snr),
        int(rows["n_clips"].min()),
        1 + rows.groupby("strength")["last_draw"].max().to_numpy(dtype=np.int64),
        n_chips=1 + int(rows["last_chip"].max()),
        zero_is_conventional=not rows.loc[rows["sigma_train"] == 0, "train_hardware"]
        .astype(str)
        .map(acts_at_zero)
        .any(),
    )


_NAMES: dict[str, Any] = {
    "cell": lambda cell: str(cell).upper(),
    "units": lambda units: count(units, "unit"),
    "layers": lambda layers: count(layers, "layer"),
    "bidirectional": lambda both: "both directions" if both else "one direction",
    "convolutions": lambda text: f"behind convolutions ({text})" if text else "",
    "epochs": lambda epochs: count(epochs, "epoch"),
    "schedule": lambda name: f"{name} training noise" if name else "conventional training",
    "train_scale": lambda scale: f"training scale {scale}" if scale else "",
    "train_hardware": describe_train_hardware,
    "scale": lambda scale: f"inference scale {scale}" if scale else "",
    "sites": lambda sites: f"noise at {str(sites).replace('+', ', ')}",
    "arrays": lambda arrays: f"{arrays} arrays",
    "hardware": lambda text: describe_hardware(json.loads(text)) if text else "",
    "axis": lambda path: "" if Strength(path).is_sigma else f"over {Strength(path).symbol}",
    "unit": lambda unit: "",
    "n_classes": lambda n: f"{n} classes, chance {100 / n:.1f} %",
    "split": lambda split: f"{split} split",
}


def describe_key(key: Mapping[str, Any], names: Collection[str], *, briefly: bool = False) -> str:
    """Return values of :data:`KEYS` in words; ``briefly`` with names for hardware."""
    told = name_hardware_of(key) if briefly else {}
    if not briefly and "train_hardware" in names and on_the_same_hardware(key):
        told = {"hardware": "evaluated on the same"}
    parts = [told.get(name) or str(_NAMES.get(name, str)(key[name])) for name in names]
    return ", ".join(part for part in parts if part)


def label_keys(keys: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return :func:`describe_key` of each, briefly where that tells them apart."""
    labels = [describe_key(key, names, briefly=True) for key in keys]
    return labels if len(set(labels)) == len(labels) else [describe_key(key, names) for key in keys]


def varying_keys(matrices: Sequence[Matrix]) -> list[str]:
    """Return the names in which matrices differ."""
    return [name for name in KEYS if len({matrix.key[name] for matrix in matrices}) > 1]


def label_matrices(matrices: Sequence[Matrix]) -> list[str]:
    """Return a label per matrix: cell, units and whatever else differs."""
    varying = varying_keys(matrices)
    names = ["cell", "units", *(name for name in varying if name not in ("cell", "units"))]
    return label_keys([matrix.key for matrix in matrices], names)


def describe_shared(matrices: Sequence[Matrix]) -> str:
    """Return what matrices have in common, in words: data, clips, chance, noise, repetitions."""
    varying = varying_keys(matrices)
    key = matrices[0].key
    names = [name for name in KEYS if name not in varying]
    if {"data", "protocol"} <= set(names) and str(key["protocol"]).lower().startswith(
        str(key["data"]).lower()
    ):
        names.remove("data")  # the protocol begins with it
    if {"protocol", "split"} <= set(names) and names_split(str(key["protocol"]), str(key["split"])):
        names.remove("split")
    parts = [describe_key(key, names)]
    clips = sorted({matrix.n_clips for matrix in matrices})
    parts.append(f"{'–'.join(map(str, clips[:: max(len(clips) - 1, 1)]))} test clips")
    for numbers, word in (
        (sorted({len(matrix.seeds) for matrix in matrices}), "seed"),
        (sorted({matrix.n_chips for matrix in matrices}), "chip"),
        (sorted({int(matrix.n_draws.max()) for matrix in matrices}), "draw"),
    ):
        if word == "chip" and numbers == [1]:
            continue
        text = "–".join(map(str, numbers[:: max(len(numbers) - 1, 1)]))
        parts.append(f"{text} {word}" + ("" if text == "1" else "s"))
    if not {"axis", "unit"} & set(varying):
        strength = matrices[0].strength
        unit = strength.unit or ("pre-activation units" if strength.is_sigma else "")
        parts += [f"{strength.word} in {unit}"] if unit else []
    return "; ".join(parts)
