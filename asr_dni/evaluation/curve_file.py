"""The CSV file of a noise curve: writing one, reading it, and refusing one that is damaged."""

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
from asr_dni.files import write_atomically
from asr_dni.noise import Strength

VERSION = 2
"""Of the file; the first version has no such number, and ``sigma`` for ``strength`` and ``chip``."""

COLUMNS = ("strength", "chip", "draw", "snr_db", "accuracy", "loss", "n_clips")
"""Columns of a noise curve's table, one row per strength, chip and draw."""

_FIRST_COLUMNS = ("sigma", "draw", "snr_db", "accuracy", "loss", "n_clips")
_ABOUT = "noise_curve"
"""Key of what a file says of itself: version, number of rows, strength."""

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
    "strength": (np.isfinite, "a finite number"),
    "chip": (lambda values: _whole(values, 0), "a whole number of at least 0"),
    "draw": (lambda values: _whole(values, 0), "a whole number of at least 0"),
    "snr_db": (_anything, "a number, or nothing"),
    "accuracy": (lambda values: (values >= 0) & (values <= 1), "a share of 1, from 0 to 1"),
    "loss": (lambda values: ~(values < 0), "a number of at least 0, or nothing"),
    "n_clips": (lambda values: _whole(values, 1), "a whole number of at least 1"),
}


def strength_of(settings: Mapping[str, Any]) -> Strength:
    """Return the strength that is a curve's axis: the setting ``strength``, else sigma in the unit of its ``scale``.

    Raises:
        UserError: the setting is not that of a strength.
    """
    if "strength" in settings:
        return Strength.from_dict(settings["strength"])
    scale = settings.get("scale")
    return Strength.sigma(scale) if scale in ("signal", "range") else Strength()


def curve_file_text(settings: Mapping[str, Any], frame: pd.DataFrame) -> str:
    """Return settings and table of a noise curve as its file has them.

    First comes what the file says of itself, then the settings, a line ``# key: JSON value`` each, so that
    ``pandas.read_csv(path, comment="#")`` reads the table.
    """
    about = {"version": VERSION, "rows": len(frame), "strength": strength_of(settings).as_dict()}
    lines = [
        f"# {key}: {json.dumps(value, ensure_ascii=False)}\n"
        for key, value in ({_ABOUT: about} | dict(settings)).items()
    ]
    return "".join(lines) + frame.to_csv(index=False, lineterminator="\n")


def write_curve_file(path: Path, settings: Mapping[str, Any], frame: pd.DataFrame) -> None:
    """Write settings and table of a noise curve, see :func:`curve_file_text`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        write_atomically(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        file.write(curve_file_text(settings, frame))


def read_curve_file(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return settings and table of a noise curve's file, of this version or the first; the table is complete.

    It has as many rows as the file says. Every strength has each of its chips once, and each of these every draw of
    that strength. All rows have the same number of clips. In a file of the first version, which does not say how many
    rows it has, every sigma above 0 has as many draws as the setting ``draws`` says.

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
        about = settings.pop(_ABOUT, None)
        if about is None and "strength" in frame.columns:
            raise UserError(f"its line {_ABOUT!r}, which says what it is, is missing")
        rows = None if about is None else _rows_of(about, settings)
        check_columns(frame, _FIRST_COLUMNS if rows is None else COLUMNS)
        if frame.empty:
            raise UserError("it has no rows")
        if not isinstance(frame.index, pd.RangeIndex):
            raise UserError(f"line {lines[1]} has more values than there are columns")
        if len(lines) != 1 + len(frame):
            raise UserError("it needs one row of numbers per line")
        frame = _checked(frame, lines[1:], strength_of(settings))
        if rows is None:
            _check_draws_of_first_version(frame, lines[1:], settings.get("draws"))
            frame = frame.rename(columns={"sigma": "strength"}).assign(chip=0)[list(COLUMNS)]
        else:
            _check_passes(frame, lines[1:], rows, strength_of(settings).word)
        if not text.endswith("\n"):
            raise UserError(f"line {lines[-1]}, the last, is cut: no line break ends it")
    except UserError as error:
        raise UserError(f"{path} is not a noise curve: {error}") from error
    return settings, frame


def _rows_of(about: Any, settings: dict[str, Any]) -> int:
    """Return how many rows a file should have; note its strength, where the settings do not tell it anyway."""
    known = isinstance(about, Mapping) and {"version", "rows", "strength"} <= set(about)
    if not known or type(about["rows"]) is not int:
        raise UserError(f"its line {_ABOUT!r} should hold version, rows and strength")
    if about["version"] != VERSION:
        raise UserError(
            f"it is of version {about['version']} of the file, this program reads up to version {VERSION}"
        )
    if Strength.from_dict(about["strength"]) != strength_of(settings):
        settings["strength"] = about["strength"]
    rows: int = about["rows"]
    return rows


def check_columns(frame: pd.DataFrame, columns: tuple[str, ...] = COLUMNS) -> None:
    """Check that a table has the columns of a noise curve.

    Args:
        frame: the table.
        columns: which; those of this version.

    Raises:
        UserError: one is missing.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise UserError(f"a noise curve needs the columns {', '.join(columns)}: {missing[0]} is missing")


def _checked(frame: pd.DataFrame, lines: list[int], strength: Strength) -> pd.DataFrame:
    """Return the table with its columns as numbers; ``lines`` are the file's, one per row."""
    rules = dict(_RULES)
    if strength.is_sigma:
        rules["strength"] = rules["sigma"]
    for column, (rule, expected) in rules.items():
        if column not in frame.columns:
            continue
        values = pd.to_numeric(frame[column], errors="coerce")
        numbers = values.to_numpy(dtype=float)
        unreadable = np.isnan(numbers) & frame[column].notna().to_numpy()
        wrong = np.flatnonzero(unreadable | ~rule(numbers))
        if wrong.size:
            row = int(wrong[0])
            value = frame[column].iloc[row]
            found = "is missing" if pd.isna(value) else f"is {value}"
            raise UserError(f"line {lines[row]}: {column} {found}, expected {expected}")
        whole = column in ("chip", "draw", "n_clips")
        frame[column] = values.astype(np.int64 if whole else np.float64)
    clips = frame["n_clips"].to_numpy()
    other = np.flatnonzero(clips != clips[0])
    if other.size:
        row = int(other[0])
        raise UserError(
            f"line {lines[row]}: n_clips is {clips[row]}, but {clips[0]} in line {lines[0]}: all rows are of the same"
            " clips"
        )
    return frame


def _check_passes(frame: pd.DataFrame, lines: list[int], rows: int, word: str) -> None:
    """Check that every strength has the same draws of each of its chips, numbered from 0, and nothing is cut off."""
    twice = np.flatnonzero(frame.duplicated(["strength", "chip", "draw"]).to_numpy())
    if twice.size:
        level, chip, draw = frame.iloc[int(twice[0])][["strength", "chip", "draw"]]
        raise UserError(
            f"line {lines[int(twice[0])]}: {word} {level:g} has draw {draw:.0f} of chip {chip:.0f} a second time"
        )
    if len(frame) != rows:
        raise UserError(f"it ends in line {lines[-1]} with {len(frame)} rows, but has {rows}")
    for strength, level in frame.groupby("strength"):
        last = lines[int(level.index[-1])]
        found = set(zip(level["chip"], level["draw"], strict=True))
        chips, draws = int(level["chip"].max()) + 1, int(level["draw"].max()) + 1
        # One of so many that a damaged number claims is soon lacking.
        for chip, draw in ((chip, draw) for chip in range(chips) for draw in range(draws)):
            if (chip, draw) not in found:
                raise UserError(f"{word} {strength:g}, up to line {last}, lacks draw {draw} of chip {chip}")


def _check_draws_of_first_version(frame: pd.DataFrame, lines: list[int], draws: Any) -> None:
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
