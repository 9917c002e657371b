"""Numbers, tests and verdicts in words."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from asr_dni.study.hypothesis_tests import MIN_SEEDS, TOO_FEW_SEEDS

PAIRED = "paired Student t test over seeds"
NO_PAIR = "No seed has both a conventional and a noisy training."


def sentence_case(text: str) -> str:
    """Return a text that begins with a capital."""
    return text[:1].upper() + text[1:]


def list_numbers(values: Iterable[float]) -> str:
    """Return numbers, separated by commas."""
    return ", ".join(f"{value:g}" for value in values)


def points(value: float, sign: bool = True) -> str:
    """Return a fraction in percentage points."""
    return f"{round(100 * value, 1) + 0.0:{'+' if sign else ''}.1f}".replace("-", "−")


def describe_effect(row: Any, sign: bool = True) -> str:
    """Return the effect of a row of :func:`~asr_dni.study.findings.tables.table_of_tests`, with interval and p."""
    if math.isnan(row.low):
        return f"{points(row.effect, sign)} points, {TOO_FEW_SEEDS}"
    interval = f"[{points(row.low, sign)}, {points(row.high, sign)}]"
    return f"{points(row.effect, sign)} points {interval}" + _p(row.p_holm)


def _p(p: float) -> str:
    return "" if math.isnan(p) else (", corrected p < 0.001" if p < 0.001 else f", corrected p {p:.2g}")


def power(table: pd.DataFrame) -> str:
    """Return the sentence that says what a table's tests would have found; empty where nothing was tested."""
    needed = table["detectable"].to_numpy(dtype=float)
    known = needed[np.isfinite(needed)]
    if not known.size:
        return ""
    typical = points(float(np.median(known)), sign=False)
    return f" A true difference of {typical} points would have been found with 80 % probability (median of the tests)."


def untested(table: pd.DataFrame) -> str:
    """Return the sentence that says that seeds were too few for any test of a table; empty where they were not."""
    most = int(table["n_seeds"].max())
    if most >= MIN_SEEDS:
        return ""
    are = "is one seed" if most == 1 else f"are {most} seeds"
    return f" There {are} only, of {MIN_SEEDS} that a test needs: it cannot be tested, and may be chance."
