"""What the page of curves lists and draws: runs, or groups of them whose curves are pooled."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from asr_dni.catalogue import Catalogue
from asr_dni.catalogue.catalogue import SETTING
from asr_dni.catalogue.entry import EntryCurve
from asr_dni.catalogue.naming import OF_THE_START
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.curves.interpolation import first_at_or_below, weights_of_mean
from asr_dni.noise import Strength

EXPERIMENT, RUN = "experiment", "run"
"""What runs are grouped by: what differs in the seed alone is pooled, or nothing is. Else names of settings."""

DRAWN_AT_FIRST = 6
"""Groups that are drawn where nothing was chosen and there are more."""

Key: TypeAlias = tuple[str, ...]
Array: TypeAlias = npt.NDArray[np.float64]

_COLUMNS = ("run", "label", "experiment", "seed", "state", "message", "changed")

_SIGMA_TRAIN = ("settings.annealing.sigma", "settings.annealing.value")
_LARGEST = {"damaged": 3, "running": 2, "interrupted": 1, "finished": 0}


@dataclass(frozen=True)
class Group:
    """Runs that are one line of the table and one curve.

    Attributes:
        key: stands for it in links.
        label: for people.
        runs: identities; of several of one seed the newest alone.
        left_out: what else belongs here and is not pooled, and why.
        row: of the table.
    """

    key: str
    label: str
    runs: tuple[str, ...]
    left_out: dict[str, str]
    row: dict[str, Any]

    @property
    def has_curve(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self.runs)


@dataclass(frozen=True)
class Listing:
    """All groups of a catalogue, as they were at one moment.

    Attributes:
        groups: by their keys.
        varying: settings in which runs differ, those of most values last.
        settings: all settings that runs have.
        strength: the axis; ``None`` where there is no curve.
        runs: how many there are.
    """

    groups: dict[str, Group]
    varying: tuple[str, ...]
    settings: tuple[str, ...]
    strength: Strength | None
    runs: int
    states: Counter[str] = field(default_factory=Counter)


class Groups:
    """Lists a catalogue's runs in groups, and reads the curves that are drawn; several pages may ask at once.

    Args:
        catalogue: of the results.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.version = 0
        """Grows whenever something has changed on disk."""
        self._lock = RLock()
        self._runs: tuple[int, pd.DataFrame] | None = None
        self._listings: dict[tuple[Any, ...], Listing] = {}
        self._curves: dict[tuple[str, Strength | None], tuple[pd.Timestamp, NoiseCurve]] = {}

    def refresh(self) -> int:
        """Look at the disk, and return :attr:`version`."""
        with self._lock:
            if self.catalogue.refresh():
                self.version += 1
                self._listings.clear()
            return self.version

    def runs(self) -> pd.DataFrame:
        """Return the catalogue's frame of runs."""
        with self._lock:
            if self._runs is None or self._runs[0] != self.version:
                self._runs = self.version, self.catalogue.runs()
            return self._runs[1]

    def listing(self, strength: Strength | None, by: Key = (EXPERIMENT,), loss: float = 0.02) -> Listing:
        """Return the groups.

        Args:
            strength: the axis; ``None``: that of most curves.
            by: see :data:`EXPERIMENT`, or names of settings.
            loss: accuracy that is given up at the largest tolerable strength, a share of 1.
        """
        with self._lock:
            if strength is None:
                strength = next(iter(self.catalogue.strengths()), None)
            asked = strength, by, loss
            if asked not in self._listings:
                self._listings[asked] = self._make(*asked)
            return self._listings[asked]

    def _make(self, strength: Strength | None, by: Key, loss: float) -> Listing:
        runs = self.runs()
        known = self.catalogue.known_curves(strength) if strength is not None else {}
        names = [name for name in runs.columns if name.startswith(SETTING)]
        varying = _varying(runs, names)
        keys, labels = _grouped(
            runs, tuple(name for name in by if name in (EXPERIMENT, RUN, *names)) or (EXPERIMENT,)
        )
        table = _Table(
            {name: runs[name].tolist() for name in (*_COLUMNS, *varying)},
            {run: _Means.of(curve) for run, curve in known.items()},
        )
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(str(key), []).append(place)
        groups = {key: _group(key, labels[key], own, table, varying, loss) for key, own in places.items()}
        return Listing(groups, tuple(varying), tuple(names), strength, len(runs), Counter(runs["state"]))

    def setting(self, group: Group, name: str) -> Any:
        """Return a setting of a group's runs; "several" where they differ."""
        runs = self.runs()
        if name not in runs.columns:
            return None
        return _common(runs.loc[runs["run"].isin(group.runs), name].tolist())

    def curves(self, group: Group, strength: Strength | None) -> list[NoiseCurve]:
        """Return the curves of a group's runs, every draw of them, read once for every state of the files."""
        with self._lock:
            changed = self.runs().set_index("run")["changed"]
            missing = [
                run
                for run in group.runs
                if (run, strength) not in self._curves or self._curves[run, strength][0] != changed[run]
            ]
            for run, curve in self.catalogue.noise_curves(missing, strength).items() if missing else ():
                self._curves[run, strength] = changed[run], curve
            return [self._curves[run, strength][1] for run in group.runs if (run, strength) in self._curves]


def default_selection(listing: Listing) -> tuple[list[str], str]:
    """Return the groups that are drawn where nothing was chosen, and a sentence that says which these are.

    All where they are few. Else the one that keeps most accuracy under noise, and those that differ from it in the
    training noise alone; those of most accuracy under noise where there are none.
    """
    drawable = [group for group in listing.groups.values() if group.has_curve]
    drawable.sort(key=lambda group: -group.row["area"] if math.isfinite(group.row["area"]) else math.inf)
    if len(drawable) <= DRAWN_AT_FIRST:
        return [group.key for group in listing.groups.values() if group.has_curve], ""
    sigma = next((name for name in _SIGMA_TRAIN if name in listing.varying), None)
    if sigma is not None:
        others = [name for name in listing.varying if name != sigma]
        for best in drawable[:DRAWN_AT_FIRST]:
            alike = [
                group
                for group in drawable
                if all(group.row.get(name) == best.row.get(name) for name in others)
                and isinstance(group.row.get(sigma), int | float)
            ]
            if len(alike) > 1:
                alike = sorted(alike, key=lambda group: group.row[sigma])
                alike = _spread(alike, DRAWN_AT_FIRST)
                text = (
                    f"At first {len(alike)} of {len(drawable)}: the training noises of the setting that keeps most"
                    " accuracy under noise. Select rows to draw others."
                )
                return [group.key for group in alike], text
    shown = drawable[:DRAWN_AT_FIRST]
    which = f"At first {len(shown)} of {len(drawable)}: those that keep most accuracy under noise."
    return [group.key for group in shown], f"{which} Select rows to draw others."


def _spread(groups: Sequence[Group], most: int) -> list[Group]:
    places = sorted({round(place) for place in np.linspace(0, len(groups) - 1, most)})
    return [groups[place] for place in places]


def _varying(runs: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the settings in which runs differ, but for those that only name a start."""
    counted = {}
    for name in names:
        if name.removeprefix(SETTING) in OF_THE_START or name.endswith(("logger", "root_dir")):
            continue
        known = runs[name].map(str)
        if (number := known.nunique()) > 1:
            counted[name] = number
    return sorted(counted, key=lambda name: counted[name])


def _grouped(runs: pd.DataFrame, by: Key) -> tuple["pd.Series[str]", dict[str, str]]:
    """Return each run's group, and the groups' labels."""
    if by[0] == RUN:
        return runs["run"], {run: run for run in runs["run"]}
    if by[0] == EXPERIMENT:
        return runs["experiment"], dict(zip(runs["experiment"], runs["label"], strict=True))
    texts = runs[list(by)].apply(
        lambda row: ", ".join(f"{name.rpartition('.')[2]} {_shown(value)}" for name, value in row.items()),
        axis=1,
    )
    return texts, {text: text for text in texts}


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:g}"
    return "–" if value is None else str(value)


@dataclass(frozen=True)
class _Means:
    """A run's curve without intervals."""

    levels: Array
    accuracy: Array
    snr: Array
    shape: tuple[object, ...]
    chance: float | None

    @classmethod
    def of(cls, curve: EntryCurve) -> "_Means":
        columns, classes = curve.columns, curve.settings.get("n_classes")
        chance = 1 / classes if isinstance(classes, int) and classes > 0 else None
        return cls(columns["strength"], columns["accuracy"], columns["snr_db"], curve.shape, chance)


@dataclass(frozen=True)
class _Table:
    """All runs: columns by name, and curves by run."""

    columns: dict[str, list[Any]]
    means: dict[str, _Means]


def _group(
    key: str, label: str, places: Sequence[int], table: _Table, varying: Sequence[str], loss: float
) -> Group:
    def of(name: str) -> list[Any]:
        return [table.columns[name][place] for place in places]

    members, left_out = _members(places, table)
    states = Counter(of("state"))
    worst = max(states, key=lambda state: _LARGEST[state])
    messages = [message for message in of("message") if message]
    row: dict[str, Any] = {
        "key": key,
        "label": label,
        "state": worst if len(states) == 1 else f"{worst} {states[worst]} of {len(places)}",
        "message": "; ".join(dict.fromkeys([*messages, *left_out.values()])),
        "seeds": len(members),
        **_measures([table.means[run] for run in members], loss),
        "changed": max(of("changed")).isoformat(timespec="seconds"),
        **{name: _common(of(name)) for name in varying},
    }
    return Group(key, label, tuple(members), left_out, row)


def _members(places: Sequence[int], table: _Table) -> tuple[list[str], dict[str, str]]:
    """Return the runs whose curves are pooled, and why others of the group are not."""
    columns = table.columns
    left_out: dict[str, str] = {}
    kept: dict[Any, str] = {}
    for place in sorted(places, key=lambda place: columns["changed"][place], reverse=True):
        run, seed = columns["run"][place], columns["seed"][place]
        if run not in table.means:
            continue
        training = columns["experiment"][place], run if pd.isna(seed) else seed
        newest = next(iter(kept.values()), run)
        if training in kept:
            left_out[run] = f"{run}: {kept[training]} is newer and of the same seed"
        elif table.means[run].shape != table.means[newest].shape:
            left_out[run] = f"{run}: was measured at other strengths, or on other clips, than {newest}"
        else:
            kept[training] = run
    pooled = set(kept.values())
    return [columns["run"][place] for place in places if columns["run"][place] in pooled], left_out


def _measures(means: Sequence[_Means], loss: float) -> dict[str, Any]:
    """Return the numbers of a row: ``None`` where one is not defined, inf where it is beyond what was measured."""
    if not means:
        return {"clean": None, "midpoint": None, "area": math.nan, "tolerable": None, "highest": None}
    levels, chance = means[0].levels, means[0].chance
    accuracy = np.mean([one.accuracy for one in means], axis=0)
    # At strength 0 other parts of a hardware may act: without any noise is where the SNR is infinite.
    clean = accuracy[np.isposinf(means[0].snr)]
    midpoint = tolerable = math.nan
    if levels[0] == 0:
        tolerable = first_at_or_below(levels, accuracy, accuracy[0] - loss)
        if chance is not None and accuracy[0] > chance:
            midpoint = first_at_or_below(levels, accuracy, (accuracy[0] + chance) / 2)
    return {
        "clean": float(clean[0]) if clean.size else None,
        "midpoint": midpoint,
        "area": float(weights_of_mean(levels) @ accuracy),
        "tolerable": tolerable,
        "highest": float(levels[-1]),
    }


def _common(values: Sequence[Any]) -> Any:
    """Return what all of several runs have."""
    texts = set(map(str, values))
    return _plain(values[0]) if len(texts) == 1 else ("several" if texts else None)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
