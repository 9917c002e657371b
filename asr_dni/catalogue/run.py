"""One run: its folder, settings, curves, metrics and checkpoints."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from asr_dni.catalogue.entry import State
from asr_dni.catalogue.finding import validation_curve_files
from asr_dni.catalogue.metrics_file import read_metrics
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve


@dataclass(frozen=True)
class Run:
    """One run, as it was when the catalogue last looked; its methods read the files as they are now.

    Attributes:
        identity: path relative to the catalogue's folder, with slashes.
        path: its folder.
        state: see :data:`~asr_dni.catalogue.entry.State`.
        message: one line on what is wrong with it; "" where nothing is.
        faults: what is wrong, by file.
        settings: what ``config.yaml`` says, nested; of a run without it what its curve says.
        label: of its experiment, among all of the catalogue.
        experiment: key of what it has in common with repetitions of it.
        seed: of the training; ``None`` where that is not known.
    """

    identity: str
    path: Path
    state: State
    message: str
    faults: dict[str, str]
    settings: dict[str, Any]
    label: str
    experiment: str
    seed: int | None
    _curves: dict[str, Path] = field(default_factory=dict, repr=False)
    _checkpoints: tuple[Path, ...] = field(default=(), repr=False)
    _evaluations: dict[str, Path] = field(default_factory=dict, repr=False)

    def curves(self) -> dict[str, NoiseCurve]:
        """Return its curves by name; one whose file can't be used is left out, and told in :attr:`faults`.

        ``noise_curve`` is that of its test, ``noise_curve_validation`` the newest of its validation, and
        ``noise_curve-...`` are what ``asr-dni noise-curve`` measured of its checkpoints.
        """
        return _readable(self._curves)

    def validation_curves(self) -> dict[int, NoiseCurve]:
        """Return the curves of validations that it has kept, by epoch; what can't be used is left out."""
        return _readable(dict(validation_curve_files(self.path)))

    def metrics(self) -> pd.DataFrame:
        """Return its metrics: columns ``epoch``, ``step`` and whatever was logged, NaN where a row has none.

        It is empty where nothing was written yet.

        Raises:
            UserError: the file can't be read, or is damaged.
        """
        return read_metrics(self.path / "metrics.csv")

    def checkpoints(self) -> list[Path]:
        """Return its checkpoints, ``last.ckpt`` first."""
        return sorted(self._checkpoints, key=lambda path: (path.name != "last.ckpt", path.name))

    def evaluations(self) -> dict[str, Path]:
        """Return the folders that ``asr-dni evaluate`` wrote, by name: ``evaluation``, ``evaluation-...``."""
        return dict(self._evaluations)


def _readable(paths: "dict[Any, Path]") -> dict[Any, NoiseCurve]:
    curves = {}
    for key, path in paths.items():
        try:
            curves[key] = NoiseCurve.from_csv(path)
        except UserError:
            continue
    return curves
