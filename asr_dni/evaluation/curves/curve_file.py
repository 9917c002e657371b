"""The CSV file of a noise curve: writing one, reading it, and refusing one that is damaged."""

import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

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

_HEADER = ",".join(COLUMNS)
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
    settings, table = parse_curve(path, read_curve_text(path))
    whole = ("chip", "draw", "n_clips")
    return settings, pd.DataFrame(
        {name: values.astype(np.int64) if name in whole else values for name, values in table.items()}
    )


def read_curve_text(path: Path) -> str:
    """Return what is in a curve's file.

    Raises:
        UserError: it can't be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:  # Unicode
        raise UserError(f"{path} is not a noise curve: {error}") from error


Loads: TypeAlias = Callable[[str], Any]
"""Reads JSON."""

Table: TypeAlias = dict[str, _Values]
"""Columns of a curve, see :data:`COLUMNS`, in ascending order of strength, chip and draw."""


def parse_curve(path: Path, text: str, loads: Loads = json.loads) -> tuple[dict[str, Any], Table]:
    """Return settings and columns of a noise curve from the text of its file, see :func:`read_curve_file`.

    Args:
        path: the file, for messages.
        text: what is in it.
        loads: reads a setting's JSON.

    Raises:
        UserError: see :func:`read_curve_file`.
    """
    (regular,) = parse_regular_curves([text], loads)
    if regular is not None:
        return regular
    try:
        lines = text.split("\n")
        settings = _settings_of(lines, loads)
        frame = pd.read_csv(io.StringIO(text), comment="#")
    except ValueError as error:  # JSON and pandas' parser
        raise UserError(f"{path} is not a noise curve: {str(error).splitlines()[0]}") from error
    try:
        frame = _checked_table(text, lines, settings, frame)
    except UserError as error:
        raise UserError(f"{path} is not a noise curve: {error}") from error
    return settings, {name: frame[name].to_numpy(dtype=float) for name in COLUMNS}


def _settings_of(lines: list[str], loads: Loads) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for line in itertools.takewhile(lambda line: line.startswith("#"), lines):
        key, _, value = line[1:].partition(":")
        settings[key.strip()] = loads(value)
    return settings


def parse_regular_curves(
    texts: Sequence[str], loads: Loads = json.loads
) -> list[tuple[dict[str, Any], Table] | None]:
    """Return settings and columns of many curves; quickly, all together, of files of this version without any fault.

    Args:
        texts: what is in their files.
        loads: reads a setting's JSON; one may keep what it has read before.

    Returns:
        For each file; ``None`` where it may be of another version, or something may be wrong with it:
        :func:`parse_curve` says what.
    """
    found = [_regular_values(text, loads) for text in texts]
    lengths = [0 if one is None else len(one[1]) for one in found]
    if not sum(lengths):
        return [None] * len(texts)
    columns = np.concatenate([one[1] for one in found if one is not None]).T
    owner = np.repeat(np.arange(len(texts)), lengths)
    columns = columns[:, np.lexsort((columns[2], columns[1], columns[0], owner))]
    table = dict(zip(COLUMNS, columns, strict=True))
    wrong = np.zeros(len(texts), dtype=bool)
    for name in COLUMNS:
        wrong[owner[~_RULES[name][0](table[name])]] = True
    wrong[owner[1:][(np.diff(table["n_clips"]) != 0) & (np.diff(owner) == 0)]] = True
    if not wrong.any():  # what is no whole number cannot be counted
        starts = level_starts(table["strength"], owner)
        wrong[owner[starts[~_complete_levels(table, starts)]]] = True
    ends = np.cumsum(lengths)
    if wrong.any() and len(texts) > 1:
        return [parse_regular_curves([text], loads)[0] for text in texts]
    return [
        None
        if one is None or wrong[index]
        else (
            one[0],
            {name: values[ends[index] - lengths[index] : ends[index]] for name, values in table.items()},
        )
        for index, one in enumerate(found)
    ]


def _regular_values(text: str, loads: Loads) -> tuple[dict[str, Any], _Values] | None:
    """Return settings and numbers, a row each, of a file of this version that looks right at first sight."""
    lines = text.split("\n")
    begin = next((number for number, line in enumerate(lines) if not line.startswith("#")), 0)
    rows = lines[begin + 1 : -1]
    joined = ",".join(rows)
    if (
        lines[-1] != ""
        or lines[begin] != _HEADER
        or not all(row.count(",") == len(COLUMNS) - 1 for row in rows)
        or any(character in joined for character in '_#"')
    ):
        return None
    try:
        settings = _settings_of(lines[:begin], loads)
        if _rows_of(settings.pop(_ABOUT, None), settings) != len(rows) or not rows:
            return None
        # What is not known is written as nothing.
        values = np.array([float(value or "nan") for value in joined.split(",")]).reshape(-1, len(COLUMNS))
        is_sigma = strength_of(settings).is_sigma
    except (ValueError, UserError):
        return None
    return None if is_sigma and not (values[:, 0] >= 0).all() else (settings, values)


def level_starts(strength: _Values, owner: npt.NDArray[np.intp] | None = None) -> npt.NDArray[np.intp]:
    """Return where each strength begins in an ordered table of one curve, or of several, whose rows have an owner."""
    begins = np.diff(strength, prepend=np.nan) != 0
    if owner is not None:
        begins |= np.diff(owner, prepend=-1) != 0
    return np.flatnonzero(begins)


def _complete_levels(table: Table, starts: npt.NDArray[np.intp]) -> _Holds:
    """Return for each strength of an ordered table whether it has all draws of all of its chips, each once."""
    counts = np.diff(starts, append=len(table["strength"]))
    draws = np.maximum.reduceat(table["draw"], starts) + 1
    place = np.arange(len(table["strength"])) - np.repeat(starts, counts)
    expected = table["chip"] * np.repeat(draws, counts) + table["draw"] == place
    chips = np.maximum.reduceat(table["chip"], starts) + 1
    complete: _Holds = np.logical_and.reduceat(expected, starts) & (draws * chips == counts)
    return complete


def _checked_table(
    text: str, lines: list[str], settings: dict[str, Any], frame: pd.DataFrame
) -> pd.DataFrame:
    """Return the table of a file of either version.

    Raises:
        UserError: something is wrong with it; the message says what and in which line.
    """
    # The first line that is no comment is the header.
    numbers = [
        number for number, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")
    ]
    about = settings.pop(_ABOUT, None)
    if about is None and "strength" in frame.columns:
        raise UserError(f"its line {_ABOUT!r}, which says what it is, is missing")
    rows = None if about is None else _rows_of(about, settings)
    check_columns(frame, _FIRST_COLUMNS if rows is None else COLUMNS)
    if frame.empty:
        raise UserError("it has no rows")
    if not isinstance(frame.index, pd.RangeIndex):
        raise UserError(f"line {numbers[1]} has more values than there are columns")
    if len(numbers) != 1 + len(frame):
        raise UserError("it needs one row of numbers per line")
    frame = _checked(frame, numbers[1:], strength_of(settings))
    if rows is None:
        _check_draws_of_first_version(frame, numbers[1:], settings.get("draws"))
        frame = frame.rename(columns={"sigma": "strength"}).assign(chip=0)[list(COLUMNS)]
    else:
        _check_passes(frame, numbers[1:], rows, strength_of(settings).word)
    if not text.endswith("\n"):
        raise UserError(f"line {numbers[-1]}, the last, is cut: no line break ends it")
    return frame.sort_values(["strength", "chip", "draw"], ignore_index=True)


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
