"""Whether it is better to train under more noise than there is at inference."""

import math

import numpy as np
import pandas as pd

from asr_dni.study.findings.judging import judge, largest, significant
from asr_dni.study.findings.question import Answer, MatrixQuestion
from asr_dni.study.findings.tables import table_of_tests
from asr_dni.study.findings.wording import PAIRED, describe_effect, points, power, untested
from asr_dni.study.hypothesis_tests import student_t_tests
from asr_dni.study.matrix import Matrix


class MoreNoise(MatrixQuestion):
    """Compares every larger sigma_train with the one that is the noise at inference."""

    key = "more_noise"
    title = "Is training under more noise than there is at inference better than under just as much?"

    _TEST = (
        f"{PAIRED}, one-sided (better), of every larger sigma_train against the one that equals the strength at"
        " inference; Holm over all such pairs of the architecture."
    )

    def _ask_matrix(self, matrix: Matrix, label: str, relevant: float) -> tuple[pd.DataFrame, Answer | None]:
        if matrix.train_strength != matrix.strength or matrix.key["train_hardware"]:
            return pd.DataFrame(), None  # the levels of both are not of the same noise
        pairs = [
            (level, matched, more)
            for level, strength in enumerate(matrix.levels)
            for matched, sigma in enumerate(matrix.sigma_train)
            for more in range(matched + 1, len(matrix.sigma_train))
            if strength == sigma > 0
        ]
        if not pairs:
            return pd.DataFrame(), None
        levels, matched, more = (np.array(its) for its in zip(*pairs, strict=True))
        table = table_of_tests(
            student_t_tests(
                matrix.accuracy[more, levels] - matrix.accuracy[matched, levels],
                matrix.counting * math.sqrt(2),
                "greater",
            ),
            {"sigma_train": np.take(matrix.sigma_train, more), "strength": np.take(matrix.levels, levels)},
            f"{PAIRED}, one-sided",
            "all pairs of a strength above 0 that was trained under and a larger sigma_train of this architecture",
        )
        if largest(table) is None:
            return table, self._answer(matrix.key, label, "cannot tell", "No seed has both trainings.")
        verdict = judge(table, relevant)
        sentence = _describe(table, matrix, relevant, verdict) + untested(table)
        return table, self._answer(matrix.key, label, verdict, sentence, self._TEST)


def _describe(table: pd.DataFrame, matrix: Matrix, relevant: float, verdict: str) -> str:
    best, better = largest(table), significant(table)

    def name(row: pd.Series) -> str:
        return f"sigma_train {row.sigma_train:g} at {matrix.strength.name} {row.strength:g}"

    if len(better):
        best = largest(better)
        shown = f"{len(better)} of {len(table)} pairs of more training noise are better than as much"
        return f"{shown}; the most, {name(best)}, by {describe_effect(best)}."
    if verdict == "does not support":
        return (
            f"No larger sigma_train is better by {points(relevant, sign=False)} points or more; the highest,"
            f" {name(best)}, differs by {describe_effect(best)}."
        )
    return (
        f"No larger sigma_train is shown to be better; the highest, {name(best)}, differs by"
        f" {describe_effect(best)}.{power(table)}"
    )
