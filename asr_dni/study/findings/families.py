"""Matrices that differ in one name only: together, aligned, averaged."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from asr_dni.study.findings.wording import list_numbers
from asr_dni.study.hypothesis_tests import Array
from asr_dni.study.matrix import KEYS, Matrix
from asr_dni.study.matrix_words import label_keys, varying_keys


def labelled_families(matrices: Iterable[Matrix], without: str) -> list[tuple[list[Matrix], str]]:
    """Return matrices that differ in one name only, together, and a label for each such family."""
    found: dict[tuple[Any, ...], list[Matrix]] = {}
    for matrix in matrices:
        found.setdefault(tuple(matrix.key[name] for name in KEYS if name != without), []).append(matrix)
    families = [group for group in found.values() if len(group) > 1]
    firsts = [family[0] for family in families]
    varying = [name for name in varying_keys(firsts) if name != without] if firsts else []
    names = [name for name in ["cell", "units"] if name != without]
    names += [name for name in varying if name not in names]
    return list(zip(families, label_keys([first.key for first in firsts], names), strict=True))


def key_without(key: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a matrix's key for all values of one name."""
    return {**key, name: None}


def align(matrices: Sequence[Matrix]) -> tuple[list[float], list[float], list[str], Array]:
    """Return the levels and seeds that all have, and their accuracies ``(M, T, I, S)``."""

    def common(lists: Iterable[Sequence[Any]]) -> list[Any]:
        first, *others = lists
        return [value for value in first if all(value in other for other in others)]

    train = common(matrix.sigma_train for matrix in matrices)
    infer = common(matrix.levels for matrix in matrices)
    seeds = common(matrix.seeds for matrix in matrices)
    picked = [
        matrix.accuracy[
            np.ix_(
                [matrix.sigma_train.index(value) for value in train],
                [matrix.levels.index(value) for value in infer],
                [matrix.seeds.index(value) for value in seeds],
            )
        ]
        for matrix in matrices
    ]
    return train, infer, seeds, np.stack(picked)


def mean_over_sizes(matrices: Iterable[Matrix]) -> list[tuple[Matrix, str]]:
    """Return the mean of each cell's sizes, seed by seed, and its label.

    It varies less than one size, and so shows smaller effects. Cells whose sizes have nothing in common have none.
    """
    means = []
    for family, label in labelled_families(matrices, "units"):
        mean = _mean_of(family)
        if mean is not None:
            sizes = list_numbers(matrix.key["units"] for matrix in family)
            means.append((mean, f"{label}, mean over {sizes} units"))
    return means


def _mean_of(family: Sequence[Matrix]) -> Matrix | None:
    train, infer, seeds, accuracy = align(family)
    if not (train and infer and seeds):
        return None
    return Matrix(
        key_without(family[0].key, "units"),
        tuple(train),
        tuple(infer),
        tuple(seeds),
        accuracy.mean(axis=0),
        _common_snr(family, infer),
        min(matrix.n_clips for matrix in family),
        np.ones(len(infer), dtype=np.int64),
        n_networks=len(family),
    )


def _common_snr(family: Sequence[Matrix], infer: Sequence[float]) -> Array:
    """Return SNRs by level: that of no noise where all have none, else not known, for it differs between sizes."""
    snr = np.array([[matrix.snr_db[matrix.levels.index(level)] for level in infer] for matrix in family])
    return np.where(np.isposinf(snr).all(axis=0), np.inf, np.nan)
