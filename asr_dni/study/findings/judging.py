"""What the tests in a table come to, and whether there is anything to compare with."""

from typing import Any

import pandas as pd

from asr_dni.study.findings.question import Verdict
from asr_dni.study.hypothesis_tests import ALPHA
from asr_dni.study.matrix import Matrix


def judge(table: pd.DataFrame, relevant: float) -> Verdict:
    """Return whether some effect of a table is above 0, whether all that matter are ruled out, or neither."""
    tested = table[table["p_holm"].notna()]
    if tested.empty and len(table):
        return "cannot be tested"
    if ((tested["p_holm"] < ALPHA) & (tested["effect"] > 0)).any():
        return "supports"
    if len(tested) and len(tested) == len(table) and (tested["upper_all"] < relevant).all():
        return "does not support"
    return "cannot tell"


def largest(table: pd.DataFrame) -> Any:
    """Return the row of the largest effect, ``None`` where none is known."""
    known = table[table["effect"].notna()]
    return next(known.sort_values("effect", ascending=False).itertuples(), None)


def significant(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose effect is above 0 after correction."""
    return table[(table["p_holm"] < ALPHA) & (table["effect"] > 0)]


def why_not_compared(matrix: Matrix, clean: bool) -> str | None:
    """Return why a comparison with conventional training can't be made, if so.

    Args:
        matrix: which is compared.
        clean: whether the comparison needs clean inference.
    """
    reason = None
    if matrix.conventional is None:
        reason = "conventional training (sigma_train 0) is missing"
        if not matrix.zero_is_conventional:
            reason += ": at 0 other parts of the training's hardware act"
    elif len(matrix.sigma_train) < 2:
        reason = "there is no training under noise"
    elif clean and not matrix.clean:
        beside = "" if matrix.levels[0] else ", without the other parts of the hardware,"
        reason = f"clean inference ({matrix.strength.name} 0){beside} was not measured"
    return reason and f"This can't be asked: {reason}."
