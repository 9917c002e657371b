"""Tables that answer no question: what was measured, what is missing, and the differences everywhere."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from asr_dni.study.findings.judging import why_not_compared
from asr_dni.study.findings.tables import concatenate, table_of_tests, with_key
from asr_dni.study.findings.wording import PAIRED, list_numbers
from asr_dni.study.hypothesis_tests import student_t_tests
from asr_dni.study.matrix import KEYS, Matrix


def matrix_table(matrices: Iterable[Matrix]) -> pd.DataFrame:
    """Return a row per sigma_train and strength at inference: accuracy, and how much it is the mean of."""
    return concatenate(_pairs(matrix) for matrix in matrices)


def _pairs(matrix: Matrix) -> pd.DataFrame:
    low, high = matrix.interval()
    train, infer = np.meshgrid(matrix.sigma_train, matrix.levels, indexing="ij")
    table = pd.DataFrame(
        {
            "sigma_train": train.ravel(),
            "strength": infer.ravel(),
            "snr_db": np.broadcast_to(matrix.snr_db, train.shape).ravel(),
            "accuracy": matrix.mean.ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
            "n_seeds": matrix.n_seeds.ravel(),
            "n_draws": np.broadcast_to(matrix.n_draws, train.shape).ravel(),
            "n_clips": matrix.n_clips,
            "chance": matrix.chance,
        }
    )
    return with_key(matrix.key, table)


def difference_table(matrices: Iterable[Matrix]) -> pd.DataFrame:
    """Return a row per pair, with sigma_train > 0: the difference to conventional training at the same strength."""
    return concatenate(with_key(matrix.key, _differences(matrix)) for matrix in matrices)


def _differences(matrix: Matrix) -> pd.DataFrame:
    if why_not_compared(matrix, clean=False):
        return pd.DataFrame()
    train, infer = np.meshgrid(matrix.sigma_train[1:], matrix.levels, indexing="ij")
    tests = student_t_tests(matrix.accuracy[1:] - matrix.accuracy[:1], matrix.counting * math.sqrt(2))
    return table_of_tests(
        tests,
        {"sigma_train": train.ravel(), "strength": infer.ravel()},
        f"{PAIRED}, two-sided",
        "all pairs (sigma_train > 0, strength at inference) of this architecture",
    )


def missing_table(labelled: Iterable[tuple[Matrix, str]]) -> pd.DataFrame:
    """Return what a full matrix would have: every sigma_train and seed that its likes have, at every strength.

    Args:
        labelled: matrices with their labels.
    """
    labelled = list(labelled)

    def like(matrix: Matrix) -> tuple[Any, ...]:
        of_network = ("cell", "units", "layers", "bidirectional", "convolutions")
        return tuple(matrix.key[name] for name in KEYS if name not in of_network)

    expected: dict[tuple[Any, ...], tuple[set[float], set[str], set[float]]] = {}
    for matrix, _ in labelled:
        train, seeds, infer = expected.setdefault(like(matrix), (set(), set(), set()))
        train |= set(matrix.sigma_train)
        seeds |= set(matrix.seeds)
        infer |= set(matrix.levels)
    rows: list[dict[str, Any]] = []
    for matrix, label in labelled:
        all_train, all_seeds, all_infer = expected[like(matrix)]
        for sigma in sorted(all_train):
            for seed in sorted(all_seeds, key=lambda name: [int(part) for part in name.split("/")]):
                there: set[float] = set()
                if sigma in matrix.sigma_train and seed in matrix.seeds:
                    row = matrix.accuracy[matrix.sigma_train.index(sigma), :, matrix.seeds.index(seed)]
                    there = {
                        one for one, value in zip(matrix.levels, row, strict=True) if math.isfinite(value)
                    }
                absent = sorted(all_infer - there)
                if absent:
                    what = (
                        "the whole member" if not there else f"{matrix.strength.name} {list_numbers(absent)}"
                    )
                    rows.append({"matrix": label, "sigma_train": sigma, "seed": seed, "missing": what})
    return pd.DataFrame(rows, columns=["matrix", "sigma_train", "seed", "missing"])
