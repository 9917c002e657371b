"""What the whole curve of a sigma_train comes to."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from asr_dni.study.findings.tables import concatenate, with_key
from asr_dni.study.hypothesis_tests import Array, student_t_tests
from asr_dni.study.matrix import Matrix


def curve_table(matrices: Iterable[Matrix]) -> pd.DataFrame:
    """Return a row per sigma_train: accuracy at both ends and over all levels, loss to noise, midpoint."""
    return concatenate(_curves(matrix) for matrix in matrices)


def _curves(matrix: Matrix) -> pd.DataFrame:
    area, (loss, counting_of_loss) = matrix.mean_over_levels(), loss_to_noise(matrix)
    measures = {
        "lowest_noise": (matrix.accuracy[:, 0], matrix.counting),
        "highest_noise": (matrix.accuracy[:, -1], matrix.counting),
        "mean_over_levels": (area, matrix.counting),
        "loss_to_noise": (loss, counting_of_loss),
    }
    table = pd.DataFrame({"sigma_train": matrix.sigma_train})
    for name, (values, counting) in measures.items():
        tests = student_t_tests(values, counting)
        table[name], table[f"{name}_low"], table[f"{name}_high"] = tests.effect, tests.low, tests.high
    # The median over seeds, since a midpoint may lie beyond the highest level.
    midpoints = matrix.midpoints()
    table["midpoint"] = [
        float(np.median(row[~np.isnan(row)])) if (~np.isnan(row)).any() else math.nan for row in midpoints
    ]
    return with_key(matrix.key, table)


def loss_to_noise(matrix: Matrix) -> tuple[Array, float]:
    """Return what noise costs, ``(T, S)``: clean accuracy less that over all levels; and what counting makes of it."""
    weights = np.eye(1, len(matrix.levels))[0] - matrix.level_weights
    loss: Array = np.einsum("i,tis->ts", weights, matrix.accuracy)
    return loss, matrix.counting * float(np.abs(weights).sum())
