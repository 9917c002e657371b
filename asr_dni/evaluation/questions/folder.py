"""What ``asr-dni evaluate`` leaves: a folder of tidy tables, each a Parquet file that knows its settings, and a CSV."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.files import write_atomically

VERSION = 1
"""Of the tables."""

FOLDER = "evaluation"
"""Name of the folder, and with ``-`` and more behind it that of further ones."""

_ABOUT = b"asr_dni.evaluation"
_REAL, _WHOLE, _TEXT = pa.float64(), pa.int64(), pa.string()

TABLES: Mapping[str, Mapping[str, pa.DataType]] = {
    "curve": {
        "strength": _REAL,
        "chip": _WHOLE,
        "draw": _WHOLE,
        "snr_db": _REAL,
        "accuracy": _REAL,
        "loss": _REAL,
        "n_clips": _WHOLE,
    },
    "summary": {"quantity": _TEXT, "value": _REAL, "low": _REAL, "high": _REAL, "text": _TEXT},
    "classes": {
        "strength": _REAL,
        "chip": _WHOLE,
        "draw": _WHOLE,
        "label": _TEXT,
        "predicted": _TEXT,
        "count": _WHOLE,
    },
    "calibration": {
        "strength": _REAL,
        "chip": _WHOLE,
        "ece": _REAL,
        "ece_scaled": _REAL,
        "temperature": _REAL,
        "confidence": _REAL,
        "accuracy": _REAL,
    },
    "reliability": {
        "strength": _REAL,
        "low": _REAL,
        "high": _REAL,
        "count": _WHOLE,
        "confidence": _REAL,
        "accuracy": _REAL,
    },
    "voting": {
        "strength": _REAL,
        "votes": _WHOLE,
        "rule": _TEXT,
        "accuracy": _REAL,
        "low": _REAL,
        "high": _REAL,
        "draws_low": _REAL,
        "draws_high": _REAL,
    },
    "clips": {
        "clip": _WHOLE,
        "path": _TEXT,
        "label": _TEXT,
        "strength": _REAL,
        "correct_share": _REAL,
        "margin": _REAL,
        "predicted": _TEXT,
    },
    "sensitivity": {
        "part": _TEXT,
        "layer": _TEXT,
        "site": _TEXT,
        "gate": _TEXT,
        "strength": _REAL,
        "accuracy": _REAL,
        "low": _REAL,
        "high": _REAL,
        "loss_of_accuracy": _REAL,
    },
    "budget": {
        "part": _TEXT,
        "layer": _TEXT,
        "site": _TEXT,
        "gate": _TEXT,
        "alone": _REAL,
        "together": _REAL,
    },
    "cost": {
        "part": _TEXT,
        "site": _TEXT,
        "multiplications": _REAL,
        "cells": _REAL,
        "dac_conversions": _REAL,
        "adc_conversions": _REAL,
        "energy_joules": _REAL,
    },
}
"""Columns of the tables, by their names.

``curve`` has a row per strength, chip and draw, as :class:`~asr_dni.evaluation.NoiseCurve`. ``summary`` says what
it comes to. ``classes`` counts clips by their ``label`` and what was ``predicted`` (what was never confused has no
row). ``calibration`` has the expected calibration error of each chip, draws pooled, as the network is and after
temperature scaling; ``reliability`` its bins, ``low`` to ``high`` in confidence, chips and draws pooled. ``voting`` is
over ``votes`` noisy inferences by a ``rule`` (``mean`` posterior or ``majority``); ``low`` to ``high`` is over clips,
``draws_low`` to ``draws_high`` over draws. ``clips`` says of each clip in which share of the passes it is right, its
mean ``margin`` (posterior of its label less the largest other one, -1 to 1) and what it is taken for most often.
``sensitivity`` has the noise at one ``part`` at a time, ``budget`` what each part bears ``alone`` and, with all others
at theirs, ``together``. ``cost`` is per inference. Accuracies and shares are from 0 to 1.
"""


@dataclass(frozen=True)
class Evaluation:
    """What one folder holds; a table that is not there is ``None``.

    Attributes:
        path: the folder.
        settings: under which it was measured: those of the noise curve (:class:`~asr_dni.evaluation.NoiseCurve`),
            with ``label_names``, ``hardware_name``, and ``data_folder`` where the clips are files there. A table that
            was measured by another call has its own in :meth:`settings_of`.
        tables: the frames, by their name in :data:`TABLES`.
    """

    path: Path
    settings: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    _settings: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """What stands behind ``evaluation-`` in the folder's name; "" for the folder ``evaluation``."""
        return self.path.name.removeprefix(FOLDER).removeprefix("-")

    def settings_of(self, table: str) -> dict[str, Any]:
        """Return the settings under which a table was measured."""
        return self._settings.get(table, self.settings)

    @property
    def curve(self) -> NoiseCurve | None:
        """Accuracy and loss by strength, chip and draw."""
        frame = self.tables.get("curve")
        return None if frame is None else NoiseCurve(frame, self.settings_of("curve"))

    @property
    def summary(self) -> pd.DataFrame | None:
        """Midpoint, area, tolerable strength, worst chip."""
        return self.tables.get("summary")

    @property
    def classes(self) -> pd.DataFrame | None:
        """Confusion counts."""
        return self.tables.get("classes")

    @property
    def calibration(self) -> pd.DataFrame | None:
        """Calibration errors."""
        return self.tables.get("calibration")

    @property
    def reliability(self) -> pd.DataFrame | None:
        """Accuracy by confidence."""
        return self.tables.get("reliability")

    @property
    def voting(self) -> pd.DataFrame | None:
        """Accuracy by the number of votes."""
        return self.tables.get("voting")

    @property
    def clips(self) -> pd.DataFrame | None:
        """How often each clip is right."""
        return self.tables.get("clips")

    @property
    def sensitivity(self) -> pd.DataFrame | None:
        """Accuracy with noise at one part."""
        return self.tables.get("sensitivity")

    @property
    def budget(self) -> pd.DataFrame | None:
        """What each part bears."""
        return self.tables.get("budget")

    @property
    def cost(self) -> pd.DataFrame | None:
        """Operations, conversions, cells and energy per inference."""
        return self.tables.get("cost")


def write_table(folder: Path, name: str, frame: pd.DataFrame, settings: Mapping[str, Any]) -> list[Path]:
    """Write a table as Parquet, with its settings in the schema's metadata, and as CSV, each whole or not at all.

    Args:
        folder: is made where it does not exist.
        name: one of :data:`TABLES`.
        frame: with its columns, in any order.
        settings: plain values.

    Returns:
        The paths of the two files.
    """
    columns = TABLES[name]
    about = {"version": VERSION, "table": name, "rows": len(frame), "settings": dict(settings)}
    schema = pa.schema(
        list(columns.items()), metadata={_ABOUT: json.dumps(about, ensure_ascii=False).encode()}
    )
    frame = frame[list(columns)]
    table = pa.Table.from_pandas(frame, schema, preserve_index=False).replace_schema_metadata(schema.metadata)
    # The CSV first: what a reader looks for is the Parquet file.
    with write_atomically(folder / f"{name}.csv") as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
    with write_atomically(folder / f"{name}.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return [folder / f"{name}.parquet", folder / f"{name}.csv"]


def read_table(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return settings and frame of a table.

    Args:
        path: of its Parquet file.

    Raises:
        UserError: it can't be read, or is not a table of an evaluation.
    """
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[_ABOUT])
        version, rows, settings = about["version"], about["rows"], dict(about["settings"])
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from error
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a table of an evaluation: measure it again (asr-dni evaluate)"
        ) from error
    if version != VERSION:
        raise UserError(f"{path} is of version {version} of the tables, this program reads version {VERSION}")
    expected = TABLES.get(path.stem, {})
    missing = [column for column in expected if column not in table.column_names]
    if missing or len(table) != rows:
        what = f"the column {missing[0]} is missing" if missing else f"it has {len(table)} of {rows} rows"
        raise UserError(f"{path} is damaged, {what}: measure it again (asr-dni evaluate)")
    return settings, table.to_pandas()


def read_evaluation(folder: Path | str) -> Evaluation:
    """Return what a folder holds.

    Raises:
        UserError: it holds no table of an evaluation, or one that is damaged.
    """
    folder = Path(folder)
    settings, frames = {}, {}
    for name in TABLES:
        path = folder / f"{name}.parquet"
        if path.is_file():
            settings[name], frames[name] = read_table(path)
    if not frames:
        raise UserError(f"{folder} holds no evaluation: give a folder that asr-dni evaluate wrote")
    return Evaluation(folder, settings[next(iter(frames))], frames, settings)


def find_evaluations(run: Path | str) -> list[Path]:
    """Return the folders of a run that hold evaluations, by their names."""
    folders = (path for path in Path(run).glob(f"{FOLDER}*") if path.name == FOLDER or path.name[10] == "-")
    return sorted(path for path in folders if any((path / f"{name}.parquet").is_file() for name in TABLES))
