"""A run's ``metrics.csv``: reading it, and finding what is damaged."""

import io
from pathlib import Path

import numpy as np
import pandas as pd

from asr_dni.errors import UserError


def check_metrics(contents: bytes) -> str:
    """Return what is wrong with a metrics file, "" where nothing is: it is whole lines of as many values each."""
    if not contents:
        return "is empty"
    if b"\0" in contents:
        return "is not text"
    try:
        header, *rows = contents.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return "is not text"
    if "step" not in header.split(","):
        return "has no column step"
    if rows[-1:] != [""]:
        return "is cut: no line break ends its last line"
    if '"' in contents.decode("utf-8"):
        return ""
    values = header.count(",")
    for number, row in enumerate(rows[:-1], start=2):
        if row.count(",") != values:
            return f"line {number} has {row.count(',') + 1} values in place of {values + 1}"
    return ""


def read_metrics(path: Path) -> pd.DataFrame:
    """Return the metrics of a run, a row per logged step; empty where there is no file yet.

    Raises:
        UserError: the file can't be read, or is damaged.
    """
    try:
        contents = path.read_bytes()
    except FileNotFoundError:
        return pd.DataFrame({"epoch": [], "step": []}, dtype=float)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from error
    fault = check_metrics(contents)
    if fault:
        raise UserError(f"{path} {fault}")
    try:
        frame = pd.read_csv(io.BytesIO(contents))
    except ValueError as error:
        raise UserError(f"{path} is not a table of metrics: {str(error).splitlines()[0]}") from error
    for name in frame.columns[[not np.issubdtype(kind, np.number) for kind in frame.dtypes]]:
        numbers = pd.to_numeric(frame[name], errors="coerce")
        wrong = np.flatnonzero(numbers.isna() & frame[name].notna())
        if wrong.size:
            row = int(wrong[0])
            raise UserError(f"{path} line {row + 2}: {name} is {frame[name].iloc[row]}, expected a number")
        frame[name] = numbers
    return frame
