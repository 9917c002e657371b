"""Whether gates that are softened for the training's missing noise make networks better."""

import math

import numpy as np
import pandas as pd

from asr_dni.study.findings.families import align, key_without, labelled_families
from asr_dni.study.findings.judging import judge, largest, significant
from asr_dni.study.findings.question import Answer, Evidence, Question
from asr_dni.study.findings.tables import concatenate, table_of_tests, with_key
from asr_dni.study.findings.wording import PAIRED, describe_effect, power, untested
from asr_dni.study.hypothesis_tests import ALPHA, student_t_tests
from asr_dni.study.matrix import Matrix


class Compensation(Question):
    """Compares evaluations with and without compensation, wherever it does something."""

    key = "compensation"
    title = "Are networks better whose gates are softened for the training's noise that is missing?"

    _TEST = (
        f"{PAIRED}, two-sided, with against without, of the same networks; Holm over every pair (sigma_train, strength)"
        " of the architecture at which noise is missing."
    )

    def ask(self, evidence: Evidence) -> tuple[pd.DataFrame, list[Answer]]:
        """Return the differences that compensation makes, and an answer per architecture and compensation."""
        tables, answers = [], []
        for family, label in labelled_families(evidence.matrices, "compensation"):
            plain = next((matrix for matrix in family if not matrix.key["compensation"]), None)
            for softened in (matrix for matrix in family if matrix is not plain):
                kind = str(softened.key["compensation"])
                if plain is None:
                    continue
                table = _compare(plain, softened)
                key, about = key_without(softened.key, "compensation"), f"{label}, {kind}"
                if table.empty:
                    text = "There is no pair of sigma_train and strength at which noise is missing."
                    answers.append(self._answer(key, about, "cannot tell", text))
                    continue
                front = with_key(softened.key, table)
                tables.append(front)
                sentence = _describe(table, plain) + untested(table)
                answers.append(
                    self._answer(key, about, judge(table, evidence.relevant), sentence, self._TEST)
                )
        return concatenate(tables), answers


def _missing(matrix: Matrix, sigma_train: float, level: float) -> bool:
    """Return whether noise of the training, or of the sigma that is stated, is missing at a level."""
    kind = str(matrix.key["compensation"])
    if kind != "auto":
        return level < float(kind)
    same = matrix.train_strength == matrix.strength and not matrix.key["train_hardware"]
    return sigma_train > 0 and (not same or level < sigma_train)


def _compare(plain: Matrix, softened: Matrix) -> pd.DataFrame:
    train, infer, _, accuracy = align([plain, softened])
    places = [
        (row, column)
        for row, sigma in enumerate(train)
        for column, level in enumerate(infer)
        if _missing(softened, sigma, level)
    ]
    if not places or not accuracy.shape[-1]:
        return pd.DataFrame()
    rows, columns = (np.array(its) for its in zip(*places, strict=True))
    differences = (accuracy[1] - accuracy[0])[rows, columns]
    return table_of_tests(
        student_t_tests(differences, plain.counting * math.sqrt(2)),
        {
            "sigma_train": np.take(train, rows),
            "strength": np.take(infer, columns),
            "accuracy": student_t_tests(accuracy[1], softened.counting).effect[rows, columns],
        },
        f"{PAIRED}, two-sided",
        "every pair (sigma_train, strength) of this architecture at which noise is missing",
    )


def _describe(table: pd.DataFrame, plain: Matrix) -> str:
    best, better = largest(table), significant(table)
    worse = table[(table["p_holm"] < ALPHA) & (table["effect"] < 0)]
    if best is None:
        return "No seed has both."
    best = largest(better) if len(better) else best
    n = len(table)
    sentence = f"{len(better)} of {n} {'pair is' if n == 1 else 'pairs are'} shown to be better"
    sentence += f" and {len(worse)} worse" if len(worse) else ""
    sentence += (
        f"; at best, sigma_train {best.sigma_train:g} at {plain.strength.name} {best.strength:g}, it differs by"
        f" {describe_effect(best)}."
    )
    clean = table[table["strength"] == 0]
    if len(clean) and plain.clean:
        first = largest(clean)
        if first is not None and (first.sigma_train, first.strength) != (best.sigma_train, best.strength):
            sentence += (
                f" Of clean inference most at sigma_train {first.sigma_train:g}: {describe_effect(first)}."
            )
    return sentence + ("" if len(better) else power(table))
