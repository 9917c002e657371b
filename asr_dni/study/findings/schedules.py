"""Whether annealing the noise does better than constant noise."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from asr_dni.study.findings.families import align, key_without, labelled_families
from asr_dni.study.findings.judging import judge, largest, significant
from asr_dni.study.findings.question import Answer, Evidence, Question
from asr_dni.study.findings.tables import concatenate, table_of_tests, with_key
from asr_dni.study.findings.wording import PAIRED, describe_effect, list_numbers, sentence_case, untested
from asr_dni.study.hypothesis_tests import ALPHA, Array, student_t_tests
from asr_dni.study.matrix import Matrix

_AVERAGED = "accuracy averaged over all strengths"


class Schedules(Question):
    """Compares every other schedule with constant noise of the same sigma_train."""

    key = "schedules"
    title = "Does annealing the noise do better than constant noise?"

    _TEST = (
        f"{PAIRED}, two-sided, against constant noise of the same sigma_train, of accuracy averaged over"
        " all strengths and of accuracy at the lowest; Holm over schedules, sigma_train and both measures of the"
        " architecture."
    )

    def ask(self, evidence: Evidence) -> tuple[pd.DataFrame, list[Answer]]:
        """Return the differences to constant noise, and an answer per architecture and other schedule."""
        tables, answers = [], []
        scheduled = [matrix for matrix in evidence.matrices if matrix.key["schedule"]]
        for family, label in labelled_families(scheduled, "schedule"):
            key = key_without(family[0].key, "schedule")
            constant = next((matrix for matrix in family if matrix.key["schedule"] == "constant"), None)
            if constant is None:
                text = "This can't be asked: constant noise is missing."
                answers.append(self._answer(key, label, "cannot tell", text))
                continue
            table = _compare(constant, [matrix for matrix in family if matrix is not constant])
            if table is None:
                text = "The schedules have no sigma_train above 0 and seed in common."
                answers.append(self._answer(key, label, "cannot tell", text))
                continue
            front = with_key(key, table.drop(columns="schedule"))
            front["schedule"] = table["schedule"]
            tables.append(front)
            for name, rows in table.groupby("schedule", sort=False):
                verdict = judge(rows[rows["measure"] == _AVERAGED], evidence.relevant)
                sentence = f"{sentence_case(str(name))} against constant: {_describe(rows)}.{untested(rows)}"
                answers.append(self._answer(key, label, verdict, sentence, self._TEST))
        return concatenate(tables), answers


def _compare(constant: Matrix, others: Sequence[Matrix]) -> pd.DataFrame | None:
    """Return the tests of an architecture's other schedules; ``None`` where there is nothing in common."""
    differences: list[Array] = []
    columns: dict[str, list[Any]] = {"schedule": [], "measure": [], "sigma_train": []}
    for other in others:
        for measure, sigmas, values in _differences(constant, other):
            differences.append(values)
            columns["schedule"] += [other.key["schedule"]] * len(sigmas)
            columns["measure"] += [measure] * len(sigmas)
            columns["sigma_train"] += sigmas
    if not differences:
        return None
    return table_of_tests(
        student_t_tests(np.concatenate(differences), constant.counting * math.sqrt(2)),
        columns,
        f"{PAIRED}, two-sided",
        "all schedules, sigma_train and both measures of this architecture",
    )


def _differences(constant: Matrix, other: Matrix) -> Iterator[tuple[str, list[float], Array]]:
    """Yield per measure the sigma_train above 0 and the differences, ``(T, S)`` with all seeds of the constant."""
    train, infer, seeds, accuracy = align([constant, other])
    noisy = [place for place, sigma in enumerate(train) if sigma > 0]
    if not noisy or not infer or not seeds:
        return
    shared = replace(
        constant, sigma_train=tuple(train), levels=tuple(infer), seeds=tuple(seeds), accuracy=accuracy[0]
    )
    area = replace(shared, accuracy=accuracy[1]).mean_over_levels() - shared.mean_over_levels()
    for measure, values in (
        (_AVERAGED, area),
        (f"accuracy at {constant.strength.name} {infer[0]:g}", accuracy[1, :, 0] - accuracy[0, :, 0]),
    ):
        full = np.full((len(noisy), len(constant.seeds)), np.nan)
        full[:, [constant.seeds.index(seed) for seed in seeds]] = values[noisy]
        yield measure, [train[place] for place in noisy], full


def _describe(rows: pd.DataFrame) -> str:
    """Return what one schedule's tests say."""
    parts = []
    for measured, own in rows.groupby("measure", sort=False):
        best = largest(own)
        if best is None:
            continue
        better, worse = significant(own), own[(own["p_holm"] < ALPHA) & (own["effect"] < 0)]
        part = f"{measured}: "
        part += f"better at sigma_train {list_numbers(better['sigma_train'])}, " if len(better) else ""
        part += f"worse at sigma_train {list_numbers(worse['sigma_train'])}, " if len(worse) else ""
        part += "" if len(better) or len(worse) else "no difference shown, "
        parts.append(part + f"at best (sigma_train {best.sigma_train:g}) {describe_effect(best)}")
    return "; ".join(parts)
