"""A run as its files say: settings, curves, faults, state, and the numbers that stand for it in a table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from asr_dni.catalogue.finding import CURVE, VALIDATION_CURVE, FoundRun
from asr_dni.catalogue.reading import Contents, Means
from asr_dni.catalogue.settings_book import Parts, SettingsBook
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import CurveSummary, Over, summary_of_means
from asr_dni.evaluation.curves.curve_file import strength_of
from asr_dni.evaluation.curves.interpolation import first_at_or_below, weights_of_mean
from asr_dni.evaluation.curves.level_means import MEASURED, Columns
from asr_dni.noise import Strength

State = Literal["finished", "running", "interrupted", "damaged"]
"""``finished``: it has done what it was started for; ``running``: a process holds its lock; ``interrupted``: neither;
``damaged``: a file of it can't be used."""

_COLUMN = {name: place for place, name in enumerate(MEASURED)}


@dataclass(frozen=True)
class EntryCurve:
    """A curve of a run.

    Attributes:
        settings: see :class:`asr_dni.evaluation.curves.curve.NoiseCurve`.
        parts: the same as parts.
        means: a row for each strength.
        strength: the axis.
        changed: when its file was written, seconds since 1970.
    """

    settings: dict[str, Any]
    parts: Parts
    means: Means
    strength: Strength
    changed: float
    _summaries: dict[Over, CurveSummary] = field(default_factory=dict, repr=False, compare=False)

    def summary(self, over: Over = "clips") -> CurveSummary:
        """Return the summary of this curve alone; it is shared, and not to be changed."""
        if over not in self._summaries:
            self._summaries[over] = summary_of_means(self.columns, self.settings, over)
        return self._summaries[over]

    @property
    def columns(self) -> Columns:
        """Its means by name."""
        return {name: self.means[:, place] for name, place in _COLUMN.items()}

    @property
    def shape(self) -> tuple[object, ...]:
        """What curves that are pooled have in common beside their settings: strengths and number of clips."""
        return (*self.means[:, _COLUMN["strength"]].tolist(), self.means[0, _COLUMN["n_clips"]])

    def measures(self) -> dict[str, Any]:
        """Return the numbers that stand for it in a table, see :meth:`asr_dni.catalogue.Catalogue.runs`."""
        strength, snr, accuracy = (
            self.means[:, _COLUMN[name]] for name in ("strength", "snr_db", "accuracy")
        )
        clean = [value for value, at in zip(accuracy.tolist(), snr.tolist(), strict=True) if at == math.inf]
        classes = self.settings.get("n_classes")
        chance = 1 / classes if isinstance(classes, int) and classes > 0 else math.nan
        falls = strength[0] == 0 and accuracy[0] > chance
        return {
            "clean_accuracy": clean[0] if clean else math.nan,
            "midpoint": first_at_or_below(strength, accuracy, (accuracy[0] + chance) / 2)
            if falls
            else math.nan,
            "area": float(weights_of_mean(strength) @ accuracy),
            "strength": str(self.strength),
        }


NO_MEASURES: dict[str, Any] = dict.fromkeys(("clean_accuracy", "midpoint", "area"), math.nan) | {
    "strength": ""
}
"""What stands in a table for a run without curve."""


@dataclass
class Entry:
    """A run as its files say.

    Attributes:
        found: its files.
        parts: settings of its configuration; without one what its curve says, under the same names.
        curves: that can be used, by name.
        faults: what is wrong, by file.
        done: whether it has done what it was started for.
        seed: of the training.
        changed: when its newest file was written, seconds since 1970.
        key: of its experiment.
        label: of its experiment.
        remark: on a curve that another replaces; "" where there is none.
        main: the curve that stands for it.
        measures: the numbers of this curve, see :meth:`EntryCurve.measures`.
    """

    found: FoundRun
    parts: Parts
    curves: dict[str, EntryCurve]
    faults: dict[str, str]
    done: bool
    seed: int | None
    changed: float
    key: str = ""
    label: str = ""
    remark: str = ""
    main: EntryCurve | None = None
    measures: dict[str, Any] = field(default_factory=lambda: NO_MEASURES)

    def state(self, running: bool) -> State:
        """Return its state, given whether its lock is held."""
        if running:
            return "running"
        if self.faults:
            return "damaged"
        return "finished" if self.done else "interrupted"

    @property
    def message(self) -> str:
        """One line on what is wrong; "" where nothing is."""
        if not self.faults:
            return self.remark
        path, fault = next(iter(self.faults.items()))
        more = f"; {len(self.faults) - 1} more" if len(self.faults) > 1 else ""
        return f"{path} {fault}{more}"

    def curve_over(self, strength: Strength | None) -> str | None:
        """Return the name of its curve over a strength, its own first; ``None`` for the strength: any."""
        names = [name for name in (CURVE, *self.curves) if name in self.curves and name != VALIDATION_CURVE]
        return next((name for name in names if strength in (None, self.curves[name].strength)), None)


def make_entry(run: FoundRun, contents: Mapping[str, Contents], book: SettingsBook) -> Entry:
    """Return a run from what its files say, by path."""
    faults = {path: own.fault for path, own in contents.items() if own.fault} | run.faults
    curves = {}
    for name, path in run.curves.items():
        own = contents[path]
        if own.fault or own.means is None:
            continue
        try:
            settings = book.nested(own.parts)
            curves[name] = EntryCurve(
                settings, own.parts, own.means, strength_of(settings), run.files[path].changed / 1e9
            )
        except (UserError, ValueError) as error:
            faults[path] = str(error)
    parts = Parts()
    any_curve = next(iter(curves.values()), None)
    if run.configuration:
        parts = contents[run.configuration].parts
    elif any_curve is not None:
        parts = book.write(settings_of_curve(any_curve.settings))
    elif not faults:
        faults["config.yaml" if run.identity == "." else f"{run.identity}/config.yaml"] = (
            "is missing: nothing tells the settings"
        )
    first = curves.get(CURVE) or any_curve
    seed = first.settings.get("seed") if first else book.nested(parts).get("seed_everything")
    metrics = contents[run.metrics] if run.metrics else Contents()
    entry = Entry(
        run,
        parts,
        curves,
        faults,
        CURVE in curves or metrics.tested or _is_done(run, book.nested(parts), metrics),
        seed if type(seed) is int else None,
        max((stamp.changed for stamp in run.files.values()), default=0) / 1e9,
    )
    main = entry.curve_over(None)
    if main is not None:
        entry.main = curves[main]
        entry.measures = entry.main.measures()
    return entry


def _is_done(run: FoundRun, settings: Mapping[str, Any], metrics: Contents) -> bool:
    """Return whether a run without test is done: it evaluated a checkpoint, or was trained to the end."""
    if settings.get("ckpt_path") is not None and not run.checkpoints:
        return bool(run.metrics or run.predicted)
    trainer = settings.get("trainer")
    epochs = trainer.get("max_epochs") if isinstance(trainer, Mapping) else None
    if not settings:  # only measured here
        return any(name != VALIDATION_CURVE for name in run.curves)
    if settings.get("test_after_fit") is not False or type(epochs) is not int:
        return False
    return 0 < epochs <= metrics.epoch + 1


def settings_of_curve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a curve says of its training, under the dotted names of a configuration."""
    network = ("cell", "units", "layers", "bidirectional", "pooling")
    found: dict[str, Any] = {f"model.network.{key}": settings[key] for key in network if key in settings}
    training = settings.get("training")
    found |= training if isinstance(training, Mapping) else {}
    if "seed" in settings:
        found["seed_everything"] = settings["seed"]
    return found
