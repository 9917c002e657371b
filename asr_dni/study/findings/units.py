"""How results change with the number of units."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from asr_dni.study.findings.families import align, key_without, labelled_families
from asr_dni.study.findings.question import Answer, Evidence, Question
from asr_dni.study.findings.tables import concatenate, table_of_tests, with_key
from asr_dni.study.findings.wording import describe_effect, list_numbers, untested
from asr_dni.study.hypothesis_tests import Array, student_t_tests
from asr_dni.study.matrix import Matrix

_ACCURACY, _ADVANTAGE = "accuracy", "advantage over conventional"


class Units(Question):
    """Tests slopes over log2 units: a line through each seed's sizes, and a t test of the seeds' slopes."""

    key = "units"
    title = "How does it change with the number of units?"

    _TEST = (
        "slope of accuracy over log2(units) for every seed, two-sided Student t test of the mean slope over seeds;"
        " Holm over all slopes of the cell in the table."
    )

    def ask(self, evidence: Evidence) -> tuple[pd.DataFrame, list[Answer]]:
        """Return the slopes at the levels asked for, and an answer per cell."""
        tables, answers = [], []
        for family, label in labelled_families(evidence.matrices, "units"):
            key = key_without(family[0].key, "units")
            train, infer, _, accuracy = align(family)
            levels = _choose(infer, evidence.levels)
            if not train or not levels or accuracy.shape[-1] == 0:
                text = f"The sizes have no sigma_train, {family[0].strength.name} and seed in common."
                answers.append(self._answer(key, label, "cannot tell", text))
                continue
            at = accuracy[:, :, [infer.index(level) for level in levels]]
            table = _slopes(family, train, levels, at)
            tables.append(with_key(key, table))
            sizes = list_numbers(matrix.key["units"] for matrix in family)
            name = family[0].strength.name
            lowest = f"sigma_train {train[0]:g}"
            if train[0] == 0 and _compared(family):
                lowest = "conventional training"
            parts = [part for level in levels if (part := _describe(table, (train[0], lowest), name, level))]
            sentence = f"Per doubling of the units ({sizes}): " + "; ".join(parts) + "." + untested(table)
            answers.append(self._answer(key, label, "estimate", sentence, self._TEST))
        return concatenate(tables), answers


def _choose(infer: Sequence[float], asked: Sequence[float] | None) -> list[float]:
    """Return those levels that are asked for: by default the lowest, the middle and the highest."""
    if asked is not None:
        return [level for level in infer if any(math.isclose(level, one) for one in asked)]
    return sorted({infer[0], infer[len(infer) // 2], infer[-1]}) if infer else []


def _slopes(
    family: Sequence[Matrix], train: list[float], levels: Sequence[float], accuracy: Array
) -> pd.DataFrame:
    """Return the tests of a cell's slopes; accuracies are ``(M, T, I, S)``."""
    x = np.log2([matrix.key["units"] for matrix in family])
    x = x - x.mean()
    weights = x / (x @ x)
    slopes: list[Array] = []
    rows: list[tuple[str, float, float]] = []
    for place, level in enumerate(levels):
        slope = np.einsum("m,mts->ts", weights, accuracy[:, :, place])
        slopes.append(slope)
        rows += [(_ACCURACY, sigma, level) for sigma in train]
        if train[0] == 0 and len(train) > 1 and _compared(family):
            slopes.append(slope[1:] - slope[:1])
            rows += [(_ADVANTAGE, sigma, level) for sigma in train[1:]]
    measures, trains, infers = map(list, zip(*rows, strict=True))
    counting = max(matrix.counting for matrix in family) * float(np.sqrt(weights @ weights))
    networks = np.where(np.array(measures) == _ACCURACY, 1, 2)
    return table_of_tests(
        student_t_tests(np.concatenate(slopes), counting * np.sqrt(networks)),
        {"measure": measures, "sigma_train": trains, "strength": infers, "sizes": len(family)},
        "Student t test of the slope over log2(units), over seeds, two-sided",
        "all slopes of this cell",
    )


def _compared(family: Sequence[Matrix]) -> bool:
    return all(matrix.conventional is not None for matrix in family)


def _describe(table: pd.DataFrame, lowest: tuple[float, str], strength: str, level: float) -> str:
    """Return the slopes at one strength in words; empty where none is known."""
    sigma, name = lowest
    here = table[(table["strength"] == level) & table["effect"].notna()]
    own = here[(here["measure"] == _ACCURACY) & (here["sigma_train"] == sigma)]
    parts = [f"{name} {describe_effect(row)}" for row in own.itertuples()]
    gains = here[here["measure"] == _ADVANTAGE]
    if len(gains):
        strongest = next(gains.reindex(gains["effect"].abs().sort_values(ascending=False).index).itertuples())
        parts.append(
            f"DNI's advantage over it, at sigma_train {strongest.sigma_train:g} where it changes most,"
            f" {describe_effect(strongest)}"
        )
    return f"at {strength} {level:g} {', and '.join(parts)}" if parts else ""
