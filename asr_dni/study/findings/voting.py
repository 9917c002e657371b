"""Whether several noisy passes that vote are better than one, and how many it takes against which noise."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from asr_dni.study.findings.families import align, key_without, labelled_families
from asr_dni.study.findings.judging import judge, largest, significant
from asr_dni.study.findings.question import Answer, Evidence, Question
from asr_dni.study.findings.tables import concatenate, table_of_tests, with_key
from asr_dni.study.findings.wording import PAIRED, describe_effect, points, power, untested
from asr_dni.study.hypothesis_tests import Array, student_t_tests
from asr_dni.study.matrix import Matrix


class Voting(Question):
    """Compares votes of several passes with single ones at every strength above 0.

    The table says too whether a vote makes up for the noise: whether, at this strength and all weaker ones, it is as
    good as clean inference of the same networks, or behind by less than what matters.
    """

    key = "voting"
    title = "Is a vote of several noisy passes better than one, and how many does it take?"

    _TEST = (
        f"{PAIRED}, two-sided, of votes against single passes of the same networks; Holm over all numbers of votes,"
        " sigma_train and strengths above 0 of the architecture. What makes up for the noise is read off the means,"
        " and not tested."
    )

    def ask(self, evidence: Evidence) -> tuple[pd.DataFrame, list[Answer]]:
        """Return the differences to single passes, and an answer per architecture and setting."""
        tables, answers = [], []
        for family, label in labelled_families(evidence.voted, "votes"):
            family = sorted(family, key=lambda matrix: int(matrix.key["votes"]))
            key = key_without(family[0].key, "votes")
            if family[0].key["votes"] != 1:
                text = "This can't be asked: single passes (votes: 1) are missing."
                answers.append(self._answer(key, label, "cannot tell", text))
                continue
            table = _compare(family, evidence.relevant)
            if table.empty:
                continue
            front = with_key(key, table.drop(columns="votes"))
            tables.append(front.assign(votes=table["votes"].to_numpy()))
            sentence = _describe(table, family[0], evidence.relevant) + untested(table)
            answers.append(self._answer(key, label, judge(table, evidence.relevant), sentence, self._TEST))
        return concatenate(tables), answers


def _compare(family: Sequence[Matrix], relevant: float) -> pd.DataFrame:
    """Return a row per number of votes, sigma_train and strength above 0; the first matrix is of single passes."""
    train, infer, seeds, accuracy = align(family)
    noisy = [place for place, level in enumerate(infer) if level > 0]
    if not train or not noisy or not seeds:
        return pd.DataFrame()
    mean = student_t_tests(accuracy, family[0].counting).effect
    numbers = [int(matrix.key["votes"]) for matrix in family[1:]]
    differences = (accuracy[1:] - accuracy[:1])[:, :, noisy]
    number, sigma, level = np.meshgrid(numbers, train, np.take(infer, noisy), indexing="ij")
    made_up = np.full(number.shape, np.nan, dtype=object)
    if infer[0] == 0 and family[0].clean:
        made_up = _holds(mean, mean[0, :, 0], relevant)[1:][:, :, noisy].astype(object)
    return table_of_tests(
        student_t_tests(differences, family[0].counting * math.sqrt(2)),
        {
            "votes": number.ravel(),
            "sigma_train": sigma.ravel(),
            "strength": level.ravel(),
            "accuracy": mean[1:][:, :, noisy].ravel(),
            "as_good_as_clean": made_up.ravel(),
        },
        f"{PAIRED}, two-sided",
        "all numbers of votes, sigma_train and strengths above 0 of this architecture",
    )


def _describe(table: pd.DataFrame, single: Matrix, relevant: float) -> str:
    most = int(table["votes"].max())
    best, better = largest(table), significant(table)
    if best is None:
        return "No seed has both."
    best = largest(better) if len(better) else best
    where = (
        f"{best.votes} votes at {single.strength.name} {best.strength:g}, sigma_train {best.sigma_train:g}"
    )
    shown = (
        f"{len(better)} of {len(table)} differences are shown to be gains"
        if len(better)
        else "No gain is shown"
    )
    sentence = f"{shown}; the largest, {where}, is {describe_effect(best)}."
    sentence += "" if len(better) else power(table)
    if not single.clean:
        return sentence
    parts = []
    for sigma, rows in table[table["votes"] == most].groupby("sigma_train"):
        alone = single.mean[single.sigma_train.index(float(str(sigma)))]
        held = np.take(single.levels, np.flatnonzero(_holds(alone, alone[0], relevant)))
        reached = rows.loc[rows["as_good_as_clean"].astype(bool), "strength"]
        parts.append(
            f"{float(str(sigma)):g}: up to {max(reached, default=0):g} (one pass: {max(held, default=0):g})"
        )
    return (
        f"{sentence} By sigma_train, the {single.strength.name} up to which {most} votes stay within"
        f" {points(relevant, sign=False)} points of the same networks' clean inference: {'; '.join(parts)}."
    )


def _holds(mean: Array, clean: Array, relevant: float) -> NDArray[np.bool_]:
    """Return whether means are within what matters of a clean one, at each level (the last axis) and all before it."""
    held: NDArray[np.bool_] = np.logical_and.accumulate(clean[..., None] - mean < relevant, axis=-1)
    return held
