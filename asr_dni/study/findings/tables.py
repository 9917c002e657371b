"""How the tables of findings are made."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from asr_dni.study.hypothesis_tests import Tests, holm
from asr_dni.study.matrix import KEYS, Matrix


def rows_of(table: pd.DataFrame, matrix: Matrix) -> pd.DataFrame:
    """Return a table's rows of one matrix."""
    if table.empty:
        return table
    keep = np.ones(len(table), dtype=bool)
    for name in KEYS:
        keep &= (table[name] == matrix.key[name]).to_numpy()
    return table[keep]


def with_key(key: Mapping[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """Return a table that begins with the values of a matrix's key."""
    front = pd.DataFrame({name: [key[name]] * len(table) for name in KEYS})
    return pd.concat([front, table.reset_index(drop=True)], axis=1)


def concatenate(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return tables one below the other."""
    tables = list(tables)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def table_of_tests(tests: Tests, columns: Mapping[str, Any], test: str, family: str) -> pd.DataFrame:
    """Return a row per test, corrected over all of them.

    Args:
        tests: of one family.
        columns: what the rows are of.
        test: its name.
        family: what the correction is over.
    """
    corrected = holm(tests.p.ravel())
    made = int(np.isfinite(corrected).sum())
    return pd.DataFrame(
        {
            **columns,
            "effect": tests.effect.ravel(),
            "low": tests.low.ravel(),
            "high": tests.high.ravel(),
            "n_seeds": tests.n.ravel(),
            "p": tests.p.ravel(),
            "p_holm": corrected,
            "upper_all": tests.upper(made).ravel(),
            "detectable": tests.detectable(made).ravel(),
            "test": test,
            "family": f"{family} ({made} tests)",
        }
    )
