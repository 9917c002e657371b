"""A run's ``metrics.csv``: reading it, and finding what is damaged."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from asr_dni.errors import UserError


def check_metrics(contents: bytes) -> str:
    """Return what is wrong with a metrics file, "" where nothing is: it is whole lines of as many values each."""
    if not contents:
        return "is empty"
    if b"\0" in contents:
        return "is not text"
    try:
        text = contents.decode("utf-8")
    except UnicodeDecodeError:
        return "is not text"
    header, *rows = text.split("\n")
    if "step" not in header.split(","):
        return "has no column step"
    if not rows or rows.pop():
        return "is cut: no line break ends its last line"
    values = header.count(",")
    if text.count(",") == values * (len(rows) + 1) and all(row.count(",") == values for row in rows):
        return ""
    if '"' in text:  # a value with a comma: pandas says whether it fits
        return ""
    number, row = next((n, row) for n, row in enumerate(rows, start=2) if row.count(",") != values)
    return f"line {number} has {row.count(',') + 1} values in place of {values + 1}"


def last_epoch(contents: bytes) -> int:
    """Return the epoch of the last row of a metrics file; -1 where there is none."""
    names = contents.partition(b"\n")[0].split(b",")
    row = contents.rstrip(b"\n").rpartition(b"\n")[2].split(b",")
    value = row[names.index(b"epoch")] if b"epoch" in names and len(row) == len(names) else b""
    return int(value) if value.isdigit() else -1


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
    for name in (name for name in frame.columns if not is_numeric_dtype(frame[name])):
        numbers = pd.to_numeric(frame[name], errors="coerce")
        wrong = np.flatnonzero(numbers.isna() & frame[name].notna())
        if wrong.size:
            row = int(wrong[0])
            raise UserError(f"{path} line {row + 2}: {name} is {frame[name].iloc[row]}, expected a number")
        frame[name] = numbers
    return frame
