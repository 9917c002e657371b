"""Which sigma_train is best for each strength of the inference noise."""

import math

import numpy as np
import pandas as pd

from asr_dni.study.findings.question import Answer, MatrixQuestion
from asr_dni.study.findings.wording import list_numbers, untested
from asr_dni.study.hypothesis_tests import ALPHA, some_other_is_better, student_t_tests
from asr_dni.study.matrix import Matrix


class Best(MatrixQuestion):
    """Names for each strength at inference the best sigma_train, and a set that holds the truly best one with 95 %.

    See :func:`~asr_dni.study.hypothesis_tests.some_other_is_better`.
    """

    key = "best"
    title = "Which sigma_train is best for each strength of the inference noise?"

    _TEST = (
        "strength at inference → best sigma_train (or others that may be the best); these together hold the truly best"
        " one with 95 % at each strength: a sigma_train is out if another is better,"
        " paired Student t test over seeds, one-sided, corrected (Bonferroni) over its rivals at that strength."
    )

    def _ask_matrix(self, matrix: Matrix, label: str, relevant: float) -> tuple[pd.DataFrame, Answer | None]:
        if len(matrix.sigma_train) < 2:
            return pd.DataFrame(), None
        table = _rank(matrix)
        parts = []
        for at, group in table.groupby("strength"):
            chosen = float(group.loc[group["best"], "sigma_train"].iloc[0])
            others = [value for value in group.loc[group["in_set"], "sigma_train"] if value != chosen]
            if len(others) == len(group) - 1:
                also = " (or any other)"
            else:
                also = f" (or {list_numbers(others)})" if others else " (alone)"
            parts.append(f"{float(str(at)):g} → {chosen:g}{also}")
        sentence = "; ".join(parts) + "." + untested(table)
        return table, self._answer(matrix.key, label, "estimate", sentence, self._TEST)


def _rank(matrix: Matrix) -> pd.DataFrame:
    mean, rows = matrix.mean, []
    for level, sigma in enumerate(matrix.levels):
        accuracy = matrix.accuracy[:, level]
        if not np.isfinite(mean[:, level]).any():
            continue
        best = int(np.nanargmax(mean[:, level]))
        corrected, made = some_other_is_better(accuracy, matrix.counting)
        against = student_t_tests(accuracy[best] - accuracy, matrix.counting * math.sqrt(2))
        for place, train in enumerate(matrix.sigma_train):
            if math.isnan(mean[place, level]):
                continue
            rows.append(
                {
                    "strength": sigma,
                    "sigma_train": train,
                    "accuracy": mean[place, level],
                    "best": place == best,
                    "in_set": not corrected[place] < ALPHA,
                    "behind_best": against.effect[place],
                    "low": against.low[place] if place != best else math.nan,
                    "high": against.high[place] if place != best else math.nan,
                    "n_seeds": int(matrix.n_seeds[place, level]),
                    "p_some_other_is_better": corrected[place],
                    "family": f"the {made[place]} other sigma_train at this strength",
                }
            )
    return pd.DataFrame(rows)
