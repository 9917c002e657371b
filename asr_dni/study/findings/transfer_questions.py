"""The questions to training by inference hardware."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from asr_dni.study.findings.judging import judge, largest, significant
from asr_dni.study.findings.question import Answer, Evidence, Question, Verdict
from asr_dni.study.findings.tables import concatenate, table_of_tests, with_key
from asr_dni.study.findings.wording import PAIRED, describe_effect, points, untested
from asr_dni.study.hypothesis_tests import ALPHA, some_other_is_better, student_t_tests
from asr_dni.study.transfer import Inference, Training, Transfer, label_transfers


class BestTraining(Question):
    """Names for each hardware the best training, and a set that holds the truly best one with 95 %.

    See :func:`~asr_dni.study.hypothesis_tests.some_other_is_better`.
    """

    key = "transfer_best"
    title = "Which training is best on each hardware?"

    _TEST = (
        "hardware → best training (or others that may be the best); these together hold the truly best one with 95 % on"
        " each hardware: a training is out if another is better, paired Student t test over seeds, one-sided, corrected"
        " (Bonferroni) over its rivals there."
    )

    def ask(self, evidence: Evidence) -> tuple[pd.DataFrame, list[Answer]]:
        """Return a row per training and hardware, and an answer per hardware."""
        tables, answers = [], []
        for transfer, label in zip(evidence.transfers, label_transfers(evidence.transfers), strict=True):
            if len(transfer.trainings) < 2:
                continue
            for place, column in enumerate(transfer.inferences):
                table = _rank(transfer, place)
                if table.empty:
                    continue
                tables.append(with_key(transfer.key, table))
                best = table[table["best"]].to_dict("records")[0]
                others = list(table.loc[table["in_set"] & ~table["best"], "training"])
                also = f"; it may also be {'; '.join(others)}" if others else "; alone"
                if len(others) > 1 and len(others) == len(table) - 1:
                    also = "; it may be any other"
                sentence = f"{best['training']}: {points(best['accuracy'], sign=False)} %{also}." + untested(
                    table
                )
                answers.append(
                    self._answer(transfer.key, f"{label}: {column.label}", "estimate", sentence, self._TEST)
                )
        return concatenate(tables), answers


def _rank(transfer: Transfer, place: int) -> pd.DataFrame:
    accuracy, column = transfer.shown[:, place], transfer.inferences[place]
    mean = student_t_tests(accuracy, transfer.counting).effect
    if not np.isfinite(mean).any():
        return pd.DataFrame()
    corrected, made = some_other_is_better(accuracy, transfer.counting)
    best = int(np.nanargmax(mean))
    return pd.DataFrame(
        [
            {
                "inference": column.name,
                "level": column.levels[column.place],
                "training": training.label,
                "accuracy": mean[row],
                "best": row == best,
                "in_set": not corrected[row] < ALPHA,
                "n_seeds": int(np.isfinite(accuracy[row]).sum()),
                "p_some_other_is_better": corrected[row],
                "family": f"the {made[row]} other trainings on this hardware",
            }
            for row, training in enumerate(transfer.trainings)
            if math.isfinite(mean[row])
        ]
    )


class Matched(Question):
    """Tests trainings on the hardware of the inference against conventional training and against Gaussian noise."""

    key = "transfer_matched"
    title = "Is training on the hardware itself better than conventional training, and than Gaussian noise?"

    _TEST = (
        f"{PAIRED}, two-sided, of every training on the same hardware (whatever its level) against conventional"
        " training and every training under Gaussian noise; Holm over all of them on all hardware of the network."
        " Against several it is supported where one training is shown to be better than each."
    )

    def ask(self, evidence: Evidence) -> tuple[pd.DataFrame, list[Answer]]:
        """Return a row per pair of trainings and hardware, and an answer per hardware and kind of other training."""
        tables, answers = [], []
        for transfer, label in zip(evidence.transfers, label_transfers(evidence.transfers), strict=True):
            pairs = [
                (place, matched, other)
                for place, column in enumerate(transfer.inferences)
                for matched, training in enumerate(transfer.trainings)
                for other, rival in enumerate(transfer.trainings)
                if column.is_of(training) and _is_rival(rival, column)
            ]
            table = _compare(
                transfer, pairs, "all trainings on the same hardware and their rivals, on all hardware"
            )
            if len(table):
                tables.append(with_key(transfer.key, table))
            for place, column in enumerate(transfer.inferences):
                about = f"{label}: {column.label}"
                if not any(map(column.is_of, transfer.trainings)):
                    text = "No training was on this hardware."
                    answers.append(self._answer(transfer.key, about, "cannot tell", text))
                    continue
                for name, of_kind in (
                    ("conventional training", [row.conventional for row in transfer.trainings]),
                    ("Gaussian noise", [row.gaussian for row in transfer.trainings]),
                ):
                    own = [row for row, (at, _, other) in enumerate(pairs) if at == place and of_kind[other]]
                    if own:
                        verdict, sentence = _judge(table.iloc[own], evidence.relevant)
                        about_kind = f"{about}, against {name}"
                        answers.append(self._answer(transfer.key, about_kind, verdict, sentence, self._TEST))
        return concatenate(tables), answers


def _is_rival(training: Training, column: Inference) -> bool:
    return (training.conventional or training.gaussian) and not column.is_of(training)


def _judge(rows: pd.DataFrame, relevant: float) -> tuple[Verdict, str]:
    """Return what tests of trainings against others of one kind say."""
    verdict = judge(rows, relevant)
    n_rivals = rows["against"].nunique()
    if verdict == "supports" and n_rivals > 1:
        beaten = significant(rows).groupby("training")["against"].nunique()
        if beaten.max() < n_rivals:
            verdict = "cannot tell"
    parts = []
    for against, own in rows.groupby("against", sort=False):
        best = largest(own)
        if best is not None:
            of = f" against {against}" if n_rivals > 1 else ""
            parts.append(f"{best.training}{of} {describe_effect(best)}")
    if not parts:
        return "cannot tell", "No seed has both trainings."
    several = "the best is " if rows["training"].nunique() > 1 and n_rivals == 1 else ""
    return verdict, f"{several}{'; '.join(parts)}." + untested(rows)


class DrawnStrength(Question):
    """Tests trainings whose strength is drawn for each batch against those of the same hardware and level."""

    key = "transfer_drawn"
    title = "Is a strength that is drawn at random better than a fixed one?"

    _TEST = (
        f"{PAIRED}, two-sided, of every training with a drawn strength against that with the same level fixed; Holm"
        " over all of them on all hardware of the network."
    )

    def ask(self, evidence: Evidence) -> tuple[pd.DataFrame, list[Answer]]:
        """Return a row per pair of trainings and hardware, and an answer per drawn training."""
        tables, answers = [], []
        for transfer, label in zip(evidence.transfers, label_transfers(evidence.transfers), strict=True):
            pairs = [
                (place, drawn, fixed)
                for drawn, training in enumerate(transfer.trainings)
                for fixed, other in enumerate(transfer.trainings)
                if training.drawn != "no"
                and other.drawn == "no"
                and training.identity[:2] == other.identity[:2]
                for place in range(len(transfer.inferences))
            ]
            table = _compare(transfer, pairs, "all drawn trainings, on all hardware")
            if table.empty:
                continue
            tables.append(with_key(transfer.key, table))
            for (training, against), rows in table.groupby(["training", "against"], sort=False):
                better = significant(rows)
                worse = rows[(rows["p_holm"] < ALPHA) & (rows["effect"] < 0)]
                parts = [f"better on {'; '.join(better['inference'])}"] if len(better) else []
                parts += [f"worse on {'; '.join(worse['inference'])}"] if len(worse) else []
                best = largest(rows)
                if best is None:
                    continue
                parts = parts or ["no difference shown"]
                parts.append(f"at best, on {best.inference}, {describe_effect(best)}")
                sentence = f"Against {against}: {', '.join(parts)}." + untested(rows)
                verdict = judge(rows, evidence.relevant)
                answers.append(
                    self._answer(transfer.key, f"{label}: {training}", verdict, sentence, self._TEST)
                )
        return concatenate(tables), answers


def _compare(transfer: Transfer, pairs: Sequence[tuple[int, int, int]], family: str) -> pd.DataFrame:
    """Return the tests of pairs of trainings.

    Args:
        transfer: of a network.
        pairs: column, row, and row that it is compared with.
        family: what the correction is over.
    """
    if not pairs:
        return pd.DataFrame()
    places, rows, others = map(list, zip(*pairs, strict=True))
    shown = transfer.shown
    names = [one.label for one in transfer.trainings]
    return table_of_tests(
        student_t_tests(
            shown[rows, places] - shown[others, places],
            transfer.counting * math.sqrt(2),
        ),
        {
            "inference": [transfer.inferences[place].label for place in places],
            "training": [names[row] for row in rows],
            "against": [names[row] for row in others],
        },
        f"{PAIRED}, two-sided",
        f"{family} of this network",
    )
