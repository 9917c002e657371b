"""Whether training under noise makes the noise curve flatter."""

import math

import numpy as np
import pandas as pd

from asr_dni.study.findings.curves import loss_to_noise
from asr_dni.study.findings.judging import judge, largest, significant, why_not_compared
from asr_dni.study.findings.question import Answer, MatrixQuestion
from asr_dni.study.findings.tables import table_of_tests
from asr_dni.study.findings.wording import (
    NO_PAIR,
    PAIRED,
    describe_effect,
    list_numbers,
    points,
    untested,
)
from asr_dni.study.hypothesis_tests import student_t_tests
from asr_dni.study.matrix import Matrix


class Flatter(MatrixQuestion):
    """Compares what noise costs with and without training under noise, and accuracy over all noise."""

    key = "flatter"
    title = "Does training under noise (DNI) make the noise curve flatter?"

    _TEST = (
        f"{PAIRED}, two-sided, of (clean accuracy − accuracy averaged over all strengths, as the area below the"
        " curve) and of that average; Holm over both measures and every sigma_train > 0 of the architecture."
    )

    def _ask_matrix(self, matrix: Matrix, label: str, relevant: float) -> tuple[pd.DataFrame, Answer | None]:
        reason = why_not_compared(matrix, clean=True)
        if reason is None and len(matrix.levels) < 2:
            reason = f"One {matrix.strength.name} makes no curve."
        if reason:
            return self._refuse(matrix, label, reason)
        area, (loss, counting) = matrix.mean_over_levels(), loss_to_noise(matrix)
        count = len(matrix.sigma_train) - 1
        tests = student_t_tests(
            np.concatenate([loss[:1] - loss[1:], area[1:] - area[:1]]),
            math.sqrt(2) * np.repeat([counting, matrix.counting], count),
        )
        table = table_of_tests(
            tests,
            {
                "measure": ["less lost to noise"] * count + ["more accurate over all noise"] * count,
                "sigma_train": list(matrix.sigma_train[1:]) * 2,
            },
            f"{PAIRED}, two-sided",
            "both measures at every sigma_train > 0 of this architecture",
        )
        flat, high = table.iloc[:count], table.iloc[count:]
        if largest(flat) is None or largest(high) is None:
            return table, self._answer(matrix.key, label, "cannot tell", NO_PAIR)
        lost = student_t_tests(loss[:1], counting)
        sentence = (
            f"Averaged over noise from 0 to {matrix.levels[-1]:g}, conventional training loses"
            f" {points(float(lost.effect[0]), sign=False)} points of its clean accuracy."
            f"{self._describe(flat, high, relevant)}{untested(table)}"
        )
        return table, self._answer(matrix.key, label, judge(flat, relevant), sentence, self._TEST)

    def _describe(self, flat: pd.DataFrame, high: pd.DataFrame, relevant: float) -> str:
        best, flatter, better = largest(flat), significant(flat), significant(high)
        if len(flatter):
            best = largest(flatter)
            sentence = (
                f" DNI loses less at sigma_train {list_numbers(flatter['sigma_train'])}: at {best.sigma_train:g} the"
                f" loss differs in favour of DNI by {describe_effect(best, sign=False)}."
            )
        elif judge(flat, relevant) == "does not support":
            sentence = (
                f" No sigma_train loses {points(relevant, sign=False)} points less; the most is"
                f" {describe_effect(best)} at {best.sigma_train:g}."
            )
        else:
            sentence = (
                f" The largest difference in favour of DNI, at sigma_train {best.sigma_train:g}, is"
                f" {describe_effect(best, sign=False)}."
            )
        if len(better):
            higher = largest(better)
            sentence += (
                " It is also more accurate over all this noise at sigma_train"
                f" {list_numbers(better['sigma_train'])} (most at {higher.sigma_train:g}: {describe_effect(higher)})."
            )
        elif len(flatter):
            sentence += (
                " But it is not shown to be more accurate over this noise:"
                " its curve may be flat because it is low."
            )
        return sentence
