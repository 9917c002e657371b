"""Reading the CSV file of a noise curve, and refusing one that is damaged."""

import io
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from asr_dni.errors import UserError

COLUMNS = ("sigma", "draw", "snr_db", "accuracy", "loss", "n_clips")
"""Columns of a noise curve's table, one row per sigma and draw."""

_Values = npt.NDArray[np.float64]
_Holds = npt.NDArray[np.bool_]


_LARGEST = 2**53  # up to which a float64 holds every whole number


def _whole(values: _Values, least: int) -> _Holds:
    holds: _Holds = (values >= least) & (values <= _LARGEST) & (values == np.floor(values))
    return holds


def _anything(values: _Values) -> _Holds:
    return np.ones(len(values), dtype=bool)


# NaN compares as false: only what allows it may be empty, and not every SNR or loss is finite.
_RULES: Mapping[str, tuple[Callable[[_Values], _Holds], str]] = {
    "sigma": (lambda values: np.isfinite(values) & (values >= 0), "a finite number of at least 0"),
    "draw": (lambda values: _whole(values, 0), "a whole number of at least 0"),
    "snr_db": (_anything, "a number, or nothing"),
    "accuracy": (lambda values: (values >= 0) & (values <= 1), "a share of 1, from 0 to 1"),
    "loss": (lambda values: ~(values < 0), "a number of at least 0, or nothing"),
    "n_clips": (lambda values: _whole(values, 1), "a whole number of at least 1"),
}


def read_curve_file(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return settings and table of a noise curve's file; the table is complete.

    Every sigma has each of its draws once, all above 0 the same ones: as many as the setting ``draws`` says, where it
    is noted. All rows have the same number of clips.

    Raises:
        UserError: the file can't be read, is not a noise curve, or lacks something of one. The message names the file
            and the line.
    """
    settings: dict[str, Any] = {}
    try:
        text = path.read_text(encoding="utf-8")
        for line in text.split("\n"):
            if not line.startswith("#"):
                break
            key, _, value = line[1:].partition(":")
            settings[key.strip()] = json.loads(value)
        frame = pd.read_csv(io.StringIO(text), comment="#")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:  # includes JSON, Unicode and pandas parser errors
        raise UserError(f"{path} is not a noise curve: {str(error).splitlines()[0]}") from error
    # The first line that is no comment is the header.
    lines = [
        number
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip() and not line.startswith("#")
    ]
    try:
        check_columns(frame)
        if frame.empty:
            raise UserError("it has no rows")
        if not isinstance(frame.index, pd.RangeIndex):
            raise UserError(f"line {lines[1]} has more values than there are columns")
        if len(lines) != 1 + len(frame):
            raise UserError("it needs one row of numbers per line")
        frame = _checked(frame, lines[1:], settings.get("draws"))
        if not text.endswith("\n"):
            raise UserError(f"line {lines[-1]}, the last, is cut: no line break ends it")
    except UserError as error:
        raise UserError(f"{path} is not a noise curve: {error}") from error
    return settings, frame


def check_columns(frame: pd.DataFrame) -> None:
    """Check that a table has the columns of a noise curve.

    Raises:
        UserError: one is missing.
    """
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise UserError(f"a noise curve needs the columns {', '.join(COLUMNS)}: {missing[0]} is missing")


def _checked(frame: pd.DataFrame, lines: list[int], draws: Any) -> pd.DataFrame:
    """Return the table with its columns as numbers; ``lines`` are the file's, one per row."""
    for column, (rule, expected) in _RULES.items():
        values = pd.to_numeric(frame[column], errors="coerce")
        numbers = values.to_numpy(dtype=float)
        unreadable = np.isnan(numbers) & frame[column].notna().to_numpy()
        wrong = np.flatnonzero(unreadable | ~rule(numbers))
        if wrong.size:
            row = int(wrong[0])
            value = frame[column].iloc[row]
            found = "is missing" if pd.isna(value) else f"is {value}"
            raise UserError(f"line {lines[row]}: {column} {found}, expected {expected}")
        whole = column in ("draw", "n_clips")
        frame[column] = values.astype(np.int64) if whole else values
    _check_draws(frame, lines, draws)
    clips = frame["n_clips"].to_numpy()
    other = np.flatnonzero(clips != clips[0])
    if other.size:
        row = int(other[0])
        raise UserError(
            f"line {lines[row]}: n_clips is {clips[row]}, but {clips[0]} in line {lines[0]}: all rows are of the same"
            " clips"
        )
    return frame


def _check_draws(frame: pd.DataFrame, lines: list[int], draws: Any) -> None:
    twice = np.flatnonzero(frame.duplicated(["sigma", "draw"]).to_numpy())
    if twice.size:
        row = int(twice[0])
        raise UserError(
            f"line {lines[row]}: sigma {frame['sigma'].iloc[row]:g} has draw {frame['draw'].iloc[row]} a second time"
        )
    noisy = frame[frame["sigma"] > 0]
    if noisy.empty:
        return
    number = draws if type(draws) is int else int(noisy["draw"].max()) + 1
    for sigma, level in noisy.groupby("sigma"):
        found = set(level["draw"])
        lacking = next(draw for draw in itertools.count() if draw not in found)
        last = lines[int(level.index[-1])]
        if lacking < number:
            raise UserError(f"sigma {sigma:g}, up to line {last}, lacks draw {lacking} of 0 to {number - 1}")
        if len(found) > number:
            raise UserError(
                f"sigma {sigma:g}, up to line {last}, has {len(found)} draws, but draws is {number}"
            )
