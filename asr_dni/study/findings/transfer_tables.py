"""Tables of training by inference hardware: what was measured, and the differences to conventional training."""

import math

import numpy as np
import pandas as pd

from asr_dni.study.findings.tables import table_of_tests, with_key
from asr_dni.study.findings.wording import PAIRED
from asr_dni.study.hypothesis_tests import student_t_tests
from asr_dni.study.transfer import Transfer


def transfer_table(transfer: Transfer) -> pd.DataFrame:
    """Return a row per training, hardware and level: accuracy with intervals over seeds and over chips."""
    rows = []
    for place, column in enumerate(transfer.inferences):
        seeds, chips = transfer.intervals(place), transfer.intervals_over_chips(place)
        with np.errstate(all="ignore"):
            worst = np.where(chips.n > 1, np.nanmin(_known(transfer.over_chips[place]), axis=2), np.nan)
        for at in np.ndindex(len(transfer.trainings), len(column.levels)):
            if not seeds.n[at]:
                continue
            rows.append(
                {
                    "training": transfer.trainings[at[0]].label,
                    "inference": column.name,
                    "strength": column.strength.path,
                    "level": column.levels[at[1]],
                    "shown": at[1] == column.place,
                    "accuracy": seeds.effect[at],
                    "low": seeds.low[at],
                    "high": seeds.high[at],
                    "n_seeds": int(seeds.n[at]),
                    "low_over_chips": chips.low[at],
                    "high_over_chips": chips.high[at],
                    "worst_chip": worst[at],
                    "n_chips": max(int(chips.n[at]), 1),
                }
            )
    return with_key(transfer.key, pd.DataFrame(rows))


def _known(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values).all(axis=2, keepdims=True), np.inf, values)


def transfer_differences(transfer: Transfer) -> pd.DataFrame:
    """Return a row per training under noise and hardware, at the level that is shown: difference to conventional."""
    base = transfer.conventional
    if base is None or len(transfer.trainings) < 2:
        return pd.DataFrame()
    rows = [row for row in range(len(transfer.trainings)) if row != base]
    differences = transfer.shown[rows] - transfer.shown[base]
    labels = [
        (transfer.trainings[row].label, column.name, column.levels[column.place])
        for row in rows
        for column in transfer.inferences
    ]
    trainings, inferences, levels = zip(*labels, strict=True)
    table = table_of_tests(
        student_t_tests(differences, transfer.counting * math.sqrt(2)),
        {"training": trainings, "inference": inferences, "level": levels},
        f"{PAIRED}, two-sided",
        "all trainings under noise and hardware of this network",
    )
    return with_key(transfer.key, table)
