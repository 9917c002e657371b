"""Training by inference hardware: the trainings of a study on all hardware that they were evaluated on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.axes import TIMES
from asr_dni.evaluation.curves.description import name_hardware
from asr_dni.identity import canonical_json, hardware_at
from asr_dni.noise import MVM_SITES, Hardware, Noise, Strength
from asr_dni.study.hypothesis_tests import Array, Tests, student_t_tests
from asr_dni.study.matrix import KEYS, Matrix
from asr_dni.study.matrix_words import describe_key

OF_TRAINING = ("schedule", "train_scale", "train_hardware")
"""Names of :data:`~asr_dni.study.matrix.KEYS` that tell trainings of one network apart, beside the level."""

OF_INFERENCE = ("hardware", "scale", "sites", "arrays", "axis", "unit")
"""Those that tell apart what networks were evaluated on."""

Inferred: TypeAlias = tuple[Any, ...]
"""Values of :data:`OF_INFERENCE`."""


@dataclass(frozen=True)
class Training:
    """A row: one way to train.

    Attributes:
        noise: hardware, strength and chips, or scale, sites and arrays of Gaussian noise; ``None``: conventional.
        sigma_train: level of the strength.
        schedule: how it is reached.
        drawn: whether it is drawn for each ``batch`` or ``sample``, or not (``no``).
        label: in words.
    """

    noise: Mapping[str, Any] | None
    sigma_train: float
    schedule: str
    drawn: str
    label: str = ""

    @property
    def conventional(self) -> bool:
        """Whether it is without noise."""
        return self.noise is None

    @property
    def gaussian(self) -> bool:
        """Whether it is under Gaussian noise on outputs alone."""
        return self.noise is not None and "hardware" not in self.noise

    @property
    def identity(self) -> tuple[str, float, str]:
        """What tells it from others."""
        return ("" if self.noise is None else canonical_json(self.noise)), self.sigma_train, self.schedule

    def hardware(self) -> tuple[Hardware, Strength]:
        """Return the hardware at its level, and the strength that the level is of.

        Raises:
            UserError: the hardware is not known here.
        """
        assert self.noise is not None
        if "hardware" in self.noise:
            strength = Strength.from_dict(self.noise["strength"])
            return hardware_at(self.noise["hardware"], strength, self.sigma_train), strength
        scale = self.noise["scale"]
        its = Noise(
            self.sigma_train, scale=scale, sites=tuple(self.noise["sites"]), arrays=self.noise["arrays"]
        )
        return its.hardware, Strength.sigma(scale)


@dataclass(frozen=True)
class Inference:
    """A column: what all were evaluated on.

    Attributes:
        key: values of :data:`OF_INFERENCE`.
        levels: of the strength, ascending.
        place: of the level that the matrix shows.
        name: of the hardware.
    """

    key: Mapping[str, Any]
    levels: tuple[float, ...]
    place: int
    name: str

    @property
    def strength(self) -> Strength:
        """The axis of :attr:`levels`."""
        return Strength(self.key["axis"], self.key["unit"])

    @property
    def level(self) -> str:
        """The level that is shown, in words."""
        return format_level(self.strength, self.levels[self.place])

    @property
    def label(self) -> str:
        """Hardware and level."""
        return f"{self.name} at {self.level}"

    def is_of(self, training: Training) -> bool:
        """Return whether a training was on this hardware: whether both differ in their strengths at most."""
        if training.noise is None:
            return False
        try:
            trained, annealed = training.hardware()
            level = self.levels[self.place]
            both = trained, self._hardware(level)
            if not all(one.has(strength) for one in both for strength in (annealed, self.strength)):
                return False
            first, second = (one.at(level, self.strength).at(training.sigma_train, annealed) for one in both)
            return first == second
        except UserError:  # a class that is not known here, or a level that the other can't have
            return False

    def _hardware(self, level: float) -> Hardware:
        if self.key["hardware"]:
            return hardware_at(json.loads(self.key["hardware"]), self.strength, level)
        sites = tuple(site for site in str(self.key["sites"]).split("+") if site)
        its = Noise(level, scale=self.key["scale"], sites=sites, arrays=self.key["arrays"])  # type: ignore[arg-type]
        return its.hardware


def format_value(strength: Strength, level: float) -> str:
    """Return a level as a figure's ticks have it: a time as people say it."""
    if strength.path.endswith(".time"):
        return next((name for name, time in TIMES.items() if time == level), f"{level:g} s")
    return f"{level:g}"


def format_level(strength: Strength, level: float) -> str:
    """Return a level in words: a time as it is, else with the strength's symbol."""
    symbol = "" if strength.path.endswith(".time") else f"{_symbol(strength)} "
    return f"{symbol}{format_value(strength, level)}"


def _symbol(strength: Strength) -> str:
    """Return a strength's symbol, without the place of its model among several, and without training or inference."""
    path = ".".join(part for part in strength.path.split(".") if not part.isdigit())
    return replace(strength, path=path).symbol.removesuffix("_infer")


@dataclass(frozen=True)
class Transfer:
    """One network's trainings on all hardware.

    Attributes:
        key: values of :data:`~asr_dni.study.matrix.KEYS`; empty texts for those of training and inference.
        trainings: T rows.
        inferences: B columns.
        seeds: S.
        accuracy: mean over draws and chips, ``(T, I, S)`` per column; NaN where there is no result.
        over_chips: mean over draws and seeds, ``(T, I, C)`` per column.
        sources: the matrix of each row and column, by its index; ``None`` where there is no result.
        matrices: that it was made of.
    """

    key: dict[str, Any]
    trainings: tuple[Training, ...]
    inferences: tuple[Inference, ...]
    seeds: tuple[str, ...]
    accuracy: tuple[Array, ...]
    over_chips: tuple[Array, ...]
    sources: tuple[tuple[int | None, ...], ...]
    matrices: tuple[Matrix, ...]

    @property
    def counting(self) -> float:
        """See :attr:`Matrix.counting`."""
        return max(matrix.counting for matrix in self.matrices)

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return self.matrices[0].chance

    @property
    def shown(self) -> Array:
        """Accuracies at the levels that are shown, ``(T, B, S)``."""
        return np.stack(
            [values[:, column.place] for values, column in zip(self.accuracy, self.inferences, strict=True)],
            axis=1,
        )

    @property
    def conventional(self) -> int | None:
        """Row of conventional training."""
        return next((row for row, one in enumerate(self.trainings) if one.conventional), None)

    def intervals(self, column: int) -> Tests:
        """Return means and intervals over seeds at all levels of a column, ``(T, I)``."""
        return student_t_tests(self.accuracy[column], self.counting)

    def intervals_over_chips(self, column: int) -> Tests:
        """Return means and intervals over chips at all levels of a column, ``(T, I)``."""
        return student_t_tests(self.over_chips[column], self.counting)


def make_transfers(
    matrices: Sequence[Matrix], stated: Mapping[Inferred, float] | None = None
) -> list[Transfer]:
    """Return training by inference hardware, for each network that has several on either side.

    Gaussian noise alone, in whatever scales, makes none: that is a matrix of its levels.

    Args:
        matrices: of a study.
        stated: the levels that are to be shown; of others it is the middle one.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, matrix in enumerate(matrices):
        network = tuple(matrix.key[name] for name in KEYS if name not in (*OF_TRAINING, *OF_INFERENCE))
        groups.setdefault(network, []).append(index)
    found = [_transfer(matrices, indices, stated or {}) for indices in groups.values()]
    return [one for one in found if one is not None]


def told_by_transfer(matrix: Matrix, transfers: Sequence[Transfer]) -> bool:
    """Return whether a matrix says nothing beside: it is part of a transfer, and has one level of training noise."""
    noisy = [level for level in matrix.sigma_train if not matrix.is_conventional(level)]
    return len(noisy) <= 1 and any(matrix is one for transfer in transfers for one in transfer.matrices)


def label_transfers(transfers: Sequence[Transfer]) -> list[str]:
    """Return a label per transfer: cell, units, and whatever else differs."""
    varying = [name for name in KEYS if len({one.key[name] for one in transfers}) > 1]
    names = ["cell", "units", *(name for name in varying if name not in ("cell", "units"))]
    return [describe_key(one.key, names) for one in transfers]


def _transfer(
    matrices: Sequence[Matrix], indices: Sequence[int], stated: Mapping[Inferred, float]
) -> Transfer | None:
    sources: dict[tuple[tuple[str, float, str], Inferred], int] = {}
    trainings: dict[tuple[str, float, str], Training] = {}
    for index in indices:
        matrix = matrices[index]
        for level in matrix.sigma_train:
            training = _training(matrix, level)
            trainings.setdefault(training.identity, training)
            sources.setdefault((training.identity, _inferred(matrix)), index)
    inferred = list(dict.fromkeys(_inferred(matrices[index]) for index in indices))
    noisy = [row for row in trainings.values() if not row.conventional]
    if not any(values[0] for values in inferred) and all(row.gaussian for row in noisy):
        return None
    kinds = [{row.identity[0] for row in noisy if (row.identity, values) in sources} for values in inferred]
    several = max((sum((row.identity, values) in sources for values in inferred) for row in noisy), default=0)
    if max(map(len, kinds)) < 2 and several < 2:
        return None
    own = tuple(matrices[index] for index in indices)
    columns = sorted((_inference(own, values, stated) for values in inferred), key=lambda one: one.name)
    columns.sort(key=lambda one: bool(one.key["hardware"]))  # Gaussian noise first
    rows = sorted(_labelled(list(trainings.values())), key=_order)
    seeds = tuple(dict.fromkeys(seed for matrix in own for seed in matrix.seeds))
    accuracy, over_chips, places = [], [], []
    for column in columns:
        values = tuple(column.key[name] for name in OF_INFERENCE)
        of_rows = [sources.get((row.identity, values)) for row in rows]
        n_chips = max(matrix.n_chips for matrix in own if _inferred(matrix) == values)
        measured = np.full((len(rows), len(column.levels), len(seeds)), np.nan)
        chips = np.full((len(rows), len(column.levels), n_chips), np.nan)
        for place, (row, source) in enumerate(zip(rows, of_rows, strict=True)):
            if source is None:
                continue
            matrix = matrices[source]
            at = matrix.sigma_train.index(row.sigma_train)
            levels = [column.levels.index(level) for level in matrix.levels]
            measured[place][np.ix_(levels, [seeds.index(seed) for seed in matrix.seeds])] = matrix.accuracy[
                at
            ]
            if matrix.chip_accuracy is not None:
                chips[place][np.ix_(levels, range(matrix.chip_accuracy.shape[2]))] = matrix.chip_accuracy[at]
        accuracy.append(measured)
        over_chips.append(chips)
        places.append(of_rows)
    key = own[0].key | dict.fromkeys((*OF_TRAINING, *OF_INFERENCE), "")
    by_row = tuple(zip(*places, strict=True))
    return Transfer(key, tuple(rows), tuple(columns), seeds, tuple(accuracy), tuple(over_chips), by_row, own)


def _order(row: Training) -> tuple[bool, bool, str, float, bool, str]:
    """Return what rows are sorted by: conventional training first, then Gaussian noise, fixed before drawn."""
    noise, level, schedule = row.identity
    return not row.conventional, not row.gaussian, noise, level, row.drawn != "no", schedule


def _inferred(matrix: Matrix) -> Inferred:
    return tuple(matrix.key[name] for name in OF_INFERENCE)


def _training(matrix: Matrix, level: float) -> Training:
    if matrix.is_conventional(level):
        return Training(None, 0.0, "", "no")
    key = matrix.key
    noise = json.loads(key["train_hardware"] or "{}") or {
        "scale": key["train_scale"],
        "sites": str(key["sites"]).split("+"),
        "arrays": key["arrays"],
    }
    return Training(noise, level, key["schedule"], matrix.drawn)


def _inference(own: Sequence[Matrix], values: Inferred, stated: Mapping[Inferred, float]) -> Inference:
    levels = sorted({level for matrix in own if _inferred(matrix) == values for level in matrix.levels})
    place = levels.index(stated[values]) if stated.get(values) in levels else len(levels) // 2
    key = dict(zip(OF_INFERENCE, values, strict=True))
    name = _name_gaussian(key["scale"], str(key["sites"]).split("+"))
    if key["hardware"]:
        name = name_hardware(json.loads(key["hardware"]), Strength(key["axis"], key["unit"]))
    return Inference(key, tuple(levels), place, name)


def _name_gaussian(scale: str, sites: Sequence[str]) -> str:
    beside = [] if scale == "absolute" else [scale]
    beside += [] if set(sites) == set(MVM_SITES) else ["+".join(sites)]
    return "gaussian" + (f" ({', '.join(beside)})" if beside else "")


def _labelled(trainings: Sequence[Training]) -> list[Training]:
    """Return trainings with labels that tell them apart."""

    def label(row: Training, beside: Sequence[str]) -> str:
        if row.noise is None:
            return "conventional"
        if "hardware" in row.noise:
            strength = Strength.from_dict(row.noise["strength"])
            name = name_hardware(row.noise["hardware"], strength)
            text = f"{name}, {_symbol(strength)} {row.sigma_train:g}"
        else:
            name = _name_gaussian(row.noise["scale"], row.noise["sites"])
            text = f"{name}, σ {row.sigma_train:g}"
        text += {"no": "", "batch": ", drawn"}.get(row.drawn, f", drawn per {row.drawn}")
        told = {
            "schedule": row.schedule,
            "chips": f"chips per {row.noise['chips']}" if "chips" in row.noise else "",
            "arrays": f"{row.noise.get('arrays', '')} arrays" if "arrays" in row.noise else "",
        }
        return ", ".join([text, *(told[name] for name in beside if told[name])])

    beside: list[str] = []
    for name in ("schedule", "chips", "arrays"):
        labels = [label(row, beside) for row in trainings]
        twins = [row for row, one in zip(trainings, labels, strict=True) if labels.count(one) > 1]
        if not twins:
            break
        beside.append(name)
    return [replace(row, label=label(row, beside)) for row in trainings]
