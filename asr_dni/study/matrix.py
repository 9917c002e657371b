"""A study's results as matrices: accuracy by training noise, inference noise and seed."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.interpolation import first_at_or_below, weights_of_mean
from asr_dni.evaluation.curves.intervals import counting_deviation
from asr_dni.noise import SIGMA, Strength
from asr_dni.study.hypothesis_tests import Array, student_t_tests
from asr_dni.study.ledger_file import COLUMNS, UNSAID
from asr_dni.study.training_noise import acts_at_zero, strength_of_training
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
    "votes",
    "compensation",
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
        drawn: whether levels above 0 were drawn for each ``batch`` or ``sample``, or not (``no``).
        chip_accuracy: mean over draws and seeds, ``(T, I, C)``, NaN where a level has fewer chips; ``None``: there is
            one chip.
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
    drawn: str = "no"
    chip_accuracy: Array | None = None

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
    def voted(self) -> bool:
        """Whether several passes decided together."""
        return int(self.key["votes"]) > 1

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
    frame = frame.assign(**{name: value for name, value in UNSAID.items() if name not in frame.columns})
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
    of_chips = frame[frame["member"].isin(frame.loc[frame["chip"] > 0, "member"].unique())]
    chips = of_chips.groupby(["member", "strength", "chip"], observed=True)["accuracy"].mean().unstack("chip")
    noted = frame[["member", "drawn"]] if "drawn" in frame.columns else frame[["member"]].assign(drawn="no")
    drawn = noted.drop_duplicates("member").set_index("member")["drawn"]
    return [_make_matrix(key, rows, order, chips, drawn) for key, rows in groups], notes


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


def _make_matrix(
    key: dict[str, Any],
    rows: pd.DataFrame,
    order: Mapping[str, int],
    chips: pd.DataFrame,
    drawn: pd.Series,
) -> Matrix:
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
        drawn=str(drawn[rows.sort_values("sigma_train")["member"].iloc[-1]]),
        chip_accuracy=_over_chips(rows, chips, sigma_train, levels),
    )


def _over_chips(
    rows: pd.DataFrame, chips: pd.DataFrame, sigma_train: Sequence[float], levels: Sequence[float]
) -> Array | None:
    """Return the mean over seeds of each chip, ``(T, I, C)``; ``None`` where there is one chip."""
    n_chips = 1 + int(rows["last_chip"].max())
    if n_chips == 1:
        return None
    places = pd.MultiIndex.from_frame(rows[["member", "strength"]])
    own = chips.reindex(index=places, columns=range(n_chips))
    own.index = pd.MultiIndex.from_frame(rows[["sigma_train", "strength"]])
    means = own.groupby(level=[0, 1]).mean()
    full = means.reindex(pd.MultiIndex.from_product([sigma_train, levels]))
    found: Array = full.to_numpy(dtype=float).reshape(len(sigma_train), len(levels), n_chips)
    return found
