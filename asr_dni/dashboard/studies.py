"""What the page of matrices shows of a study: its findings, figures, and who is in a cell."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import pandas as pd

from asr_dni.catalogue import Catalogue
from asr_dni.catalogue.settings_book import flat
from asr_dni.errors import UserError
from asr_dni.plotting import Figure, HeatMap
from asr_dni.study.figures import FIGURES, grouped, named_transfers, row_figure, study_figures
from asr_dni.study.findings import Findings, find_in
from asr_dni.study.matrix import Matrix
from asr_dni.study.matrix_words import label_keys, varying_keys

_OF_CELLS = ("matrix", "difference", "difference_to_clean")
"""Figures whose cells are trainings under a noise."""

_OF_TRANSFERS = ("transfer", "transfer_difference", "transfer_levels")
"""Those whose cells are trainings on a hardware."""


@dataclass(frozen=True)
class Cell:
    """One cell of a matrix.

    Attributes:
        matrix: its index among the findings' matrices.
        sigma_train: noise in training.
        level: noise at inference.
    """

    matrix: int
    sigma_train: float
    level: float

    @classmethod
    def parse(cls, text: str) -> "Cell | None":
        """Return what :meth:`__str__` wrote; ``None`` for anything else."""
        parts = text.split(",")
        try:
            return cls(int(parts[0]), float(parts[1]), float(parts[2])) if len(parts) == 3 else None
        except ValueError:
            return None

    def __str__(self) -> str:
        """Return it as links have it."""
        return f"{self.matrix},{self.sigma_train:g},{self.level:g}"


@dataclass(frozen=True)
class ShownStudy:
    """A study's results so far.

    Attributes:
        findings: what it found.
        figures: its figures by name.
        frame: the ledger's rows.
    """

    findings: Findings
    figures: dict[str, Figure]
    frame: pd.DataFrame

    def titles(self) -> dict[str, str]:
        """Return what the figures are called."""
        found = {}
        for name in self.figures:
            kind, _, rest = name.partition("-")
            found[name] = FIGURES[kind] + (f": {rest.replace('_', ' ')}" if rest else "")
        return found

    def labels(self) -> list[str]:
        """Return what tells the matrices from one another."""
        names = varying_keys(self.findings.matrices) or ["cell", "units"]
        return label_keys([matrix.key for matrix in self.findings.matrices], names)

    def cell_at(self, name: str, point: Mapping[str, Any]) -> Cell | None:
        """Return the cell that was clicked.

        Args:
            name: of the figure.
            point: of plotly's ``clickData``.
        """
        kind, _, rest = name.partition("-")
        if kind in _OF_TRANSFERS:
            return self._cell_of_transfer(kind, rest, point)
        together = ("units",) if kind in _OF_CELLS else ("units", "cell")
        if kind not in (*_OF_CELLS, "best"):
            return None
        groups = {suffix.removeprefix("-"): group for suffix, group in grouped(self.findings, together)}
        if rest not in groups:
            return None
        group = groups[rest]
        # The traces of a panel come one after the other; a panel that only says something has none.
        panels = [
            place
            for place, panel in enumerate(self.figures[name].panels)
            for element in panel.elements
            if isinstance(element, HeatMap) or kind == "best"
        ]
        matrix = group[panels[int(point["curveNumber"])]]
        trains = sorted({sigma for one in group for sigma in one.sigma_train})
        levels = sorted({level for one in group for level in one.levels})
        trains = trains[1:] if kind.startswith("difference") else trains
        sigma, level = trains[int(point["y"])], levels[int(point["x"])]
        if sigma not in matrix.sigma_train or level not in matrix.levels:
            return None
        return Cell(self.findings.matrices.index(matrix), sigma, level)

    def _cell_of_transfer(self, kind: str, rest: str, point: Mapping[str, Any]) -> Cell | None:
        named = {suffix.removeprefix("-"): one for suffix, one in named_transfers(self.findings)}
        if rest not in named:
            return None
        transfer = named[rest]
        rows = [
            row
            for row, training in enumerate(transfer.trainings)
            if kind != "transfer_difference" or not training.conventional
        ]
        row, x = rows[int(point["y"])], int(point["x"])
        if kind == "transfer_levels":
            place = int(point["curveNumber"])
            level = transfer.inferences[place].levels[x]
        else:
            place = x
            level = transfer.inferences[place].levels[transfer.inferences[place].place]
        source = transfer.sources[row][place]
        if source is None or level not in self.findings.matrices[source].levels:
            return None
        return Cell(source, transfer.trainings[row].sigma_train, level)

    def matrix(self, cell: Cell) -> Matrix:
        """Return the matrix of a cell.

        Raises:
            UserError: there is no such cell.
        """
        matrices = self.findings.matrices
        if not 0 <= cell.matrix < len(matrices):
            raise UserError(f"the study has {len(matrices)} matrices, no {cell.matrix}")
        found = matrices[cell.matrix]
        if cell.sigma_train not in found.sigma_train or cell.level not in found.levels:
            raise UserError(
                f"{found.train_symbol} {cell.sigma_train:g} at {cell.level:g} was not measured: click on another cell"
            )
        return found

    def curve(self, cell: Cell) -> Figure:
        """Specify the curve that a cell is a point of."""
        return row_figure(self.matrix(cell), cell.sigma_train, cell.level)

    def members(self, cell: Cell) -> pd.DataFrame:
        """Return who is in a cell, a row per training.

        Columns: ``member``, ``seed``, ``accuracy`` (mean over draws and chips), ``draws``, ``chips``,
        ``configuration`` (JSON).
        """
        matrix, frame = self.matrix(cell), self.frame
        # Conventional trainings belong to every schedule and hardware of training.
        own = (
            ("schedule", "train_scale", "train_hardware") if matrix.is_conventional(cell.sigma_train) else ()
        )
        chosen = (frame["sigma_train"] == cell.sigma_train) & (frame["strength"] == cell.level)
        for name, value in matrix.key.items():
            if name not in own:
                chosen &= frame[name] == value
        rows = frame[chosen].astype({"configuration": str})
        return (
            rows.groupby(["seed", "member"], sort=True)
            .agg(
                accuracy=("accuracy", "mean"),
                draws=("draw", "nunique"),
                chips=("chip", "nunique"),
                configuration=("configuration", "first"),
            )
            .reset_index()
        )


def shared_settings(members: pd.DataFrame) -> dict[str, str]:
    """Return the settings of members, by dotted names; what they differ in has all its values."""
    found: dict[str, list[str]] = {}
    for text in members["configuration"]:
        for name, value in flat(json.loads(text)).items():
            values = found.setdefault(name, [])
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            if shown not in values:
                values.append(shown)
    return {name: ", ".join(values) for name, values in found.items()}


class Studies:
    """Reads a catalogue's studies; what was found is kept until there are other results.

    Args:
        catalogue: of the studies.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._known: dict[str, tuple[tuple[Any, ...], ShownStudy]] = {}
        self._lock = Lock()

    def list(self) -> pd.DataFrame:
        """Return the catalogue's studies, as they are on disk now."""
        with self._lock:
            self.catalogue.refresh()
            return self.catalogue.studies()

    def get(self, identity: str, state: tuple[Any, ...]) -> ShownStudy:
        """Return a study.

        Args:
            identity: the catalogue's.
            state: number of its results and when they changed; what was read in this state is not read again.

        Raises:
            UserError: there is no such study, it has no results yet, or its ledger is damaged.
        """
        with self._lock:
            known = self._known.get(identity)
            if known is None or known[0] != state:
                ledger = self.catalogue.study(identity)
                findings = find_in(ledger)
                known = state, ShownStudy(findings, study_figures(findings), ledger.frame())
                self._known[identity] = known
            return known[1]


@lru_cache(maxsize=8)
def studies_of(catalogue: Catalogue) -> Studies:
    """Return the studies of a catalogue: one object for all that ask."""
    return Studies(catalogue)
