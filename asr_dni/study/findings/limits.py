"""What limits the answers: the seeds, what is missing, the power of the tests, the clips."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from asr_dni.study.hypothesis_tests import MIN_SEEDS, detectable_effect, student_t_tests
from asr_dni.study.matrix import Matrix
from asr_dni.wording import count


def limits(
    frame: pd.DataFrame, matrices: Sequence[Matrix], missing: pd.DataFrame, families: int | None = None
) -> list[str]:
    """Return what limits the answers to a study's questions.

    Args:
        frame: the results, see :data:`asr_dni.study.ledger.COLUMNS`.
        matrices: made of it.
        missing: what they lack, see :func:`~asr_dni.study.findings.measured.missing_table`.
        families: of tests; ``None``: one per matrix.
    """
    notes = []
    fewest = min(len(matrix.seeds) for matrix in matrices)
    if fewest < MIN_SEEDS:
        notes.append(
            f"Some matrices have {count(fewest, 'seed')}: nothing can be tested there, and there is no interval. Train"
            f" at least {MIN_SEEDS}, better 5."
        )
    notes += _power(matrices)
    if len(missing):
        shown = [
            f"{row.matrix}, sigma_train {row.sigma_train:g}, seed {row.seed}"
            + ("" if row.missing == "the whole member" else f" ({row.missing})")
            for row in missing.head(5).itertuples()
        ]
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        notes.append(f"Missing: {'; '.join(shown)}{more}. Comparisons use the seeds that both sides have.")
    if all(matrix.conventional is None for matrix in matrices):
        notes.append("There is no conventional training (sigma_train 0) to compare with.")
    families = len(matrices) if families is None else families
    if families > 1:
        notes.append(
            f"Each of the {families} architectures and settings is a family of tests of its own, with 5 % for any false"
            f" alarm in it: if there were no effects at all, about {0.05 * families:.2g} of them would show one in each"
            " question."
        )
    notes.append(
        "Intervals and tests are over trainings (seeds): they say what other trainings would give on the same test"
        " clips, not what other clips would give. The t test takes the seeds' differences to be normally distributed,"
        " and to vary by no less than counting in whole clips makes them."
    )
    clips = min(matrix.n_clips for matrix in matrices)
    worst = math.sqrt(0.25 / clips)
    notes.append(
        f"With {clips} test clips the accuracy of one network on all clips of this kind is known to about"
        f" ±{100 * 1.96 * worst:.1f} points at worst (95 %)."
    )
    if "code_version" in frame.columns and frame["code_version"].nunique() > 1:
        versions = ", ".join(sorted(map(str, frame["code_version"].unique())))
        notes.append(f"The results were made by several versions of the program: {versions}.")
    return notes


def _power(matrices: Sequence[Matrix]) -> list[str]:
    """Say which differences the tests would have found, by how much the trainings of these studies differ."""
    spreads, counts, families = [], [], []
    for matrix in matrices:
        if matrix.conventional is None or len(matrix.sigma_train) < 2:
            continue
        tests = student_t_tests(matrix.accuracy[1:] - matrix.accuracy[:1], matrix.counting * math.sqrt(2))
        deviations = (tests.error * np.sqrt(tests.n))[np.isfinite(tests.error)]
        if deviations.size:
            spreads.append(float(np.median(deviations)))
            counts.append(int(tests.n.max()))
            families.append(len(matrix.sigma_train) - 1)
    if not spreads:
        return []
    spread, n, levels = float(np.median(spreads)), min(counts), max(families)
    one, corrected = (100 * spread * detectable_effect(n, tests) for tests in (1, levels))
    among = (
        f", one of {levels} that are corrected for is if it is {corrected:.1f} points" if levels > 1 else ""
    )
    return [
        f"Power: with {n} seeds, whose differences vary by {100 * spread:.1f} points (standard deviation, median), a"
        f" true difference is found with 80 % probability if it is {one:.1f} points{among}."
        ' "Cannot tell" does not mean that there is no effect.'
    ]
