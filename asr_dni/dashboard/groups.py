"""What the page of curves lists and draws: runs, or groups of them whose curves are pooled."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from asr_dni.catalogue import Catalogue
from asr_dni.errors import UserError
from asr_dni.evaluation.curve import CurveSummary, NoiseCurve, summarise_curves
from asr_dni.evaluation.interpolation import first_at_or_below
from asr_dni.noise import Strength

SETTING = "settings."
EXPERIMENT, RUN = "experiment", "run"
"""What runs are grouped by: what differs in the seed alone is pooled, or nothing is. Else names of settings."""

DRAWN_AT_FIRST = 6
"""Groups that are drawn where nothing was chosen and there are more."""

Key: TypeAlias = tuple[str, ...]

_OF_THE_START = ("seed_everything", "name", "runs", "ckpt_path", "wandb", "wandb_project")
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
        summary: of the pooled curve, its mean without interval; ``None`` where there is no curve.
        row: of the table.
    """

    key: str
    label: str
    runs: tuple[str, ...]
    left_out: dict[str, str]
    summary: CurveSummary | None
    row: dict[str, Any]


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
            asked = strength, by, loss
            if asked not in self._listings:
                self._listings[asked] = self._make(*asked)
            return self._listings[asked]

    def _make(self, strength: Strength | None, by: Key, loss: float) -> Listing:
        runs = self.runs()
        if strength is None:
            strength = next(iter(self.catalogue.strengths()), None)
        summaries = self.catalogue.run_summaries(strength) if strength is not None else {}
        names = [name for name in runs.columns if name.startswith(SETTING)]
        varying = _varying(runs, names)
        keys, labels = _grouped(
            runs, tuple(name for name in by if name in (EXPERIMENT, RUN, *names)) or (EXPERIMENT,)
        )
        groups = {}
        for key, rows in runs.groupby(keys, sort=False):
            found = _group(str(key), labels[str(key)], rows, summaries, varying, loss)
            groups[found.key] = found
        return Listing(groups, tuple(varying), tuple(names), strength, len(runs), Counter(runs["state"]))

    def setting(self, group: Group, name: str) -> Any:
        """Return a setting of a group's runs; "several" where they differ."""
        runs = self.runs()
        if name not in runs.columns:
            return None
        values = runs.loc[runs["run"].isin(group.runs), name]
        return _common(values)

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

    def pooled(self, group: Group, strength: Strength | None) -> CurveSummary:
        """Return the curve of a group, with its interval over seeds, or over clips where there is one run.

        Raises:
            UserError: none of its curves can be read any more.
        """
        return summarise_curves(self.curves(group, strength))


def default_selection(listing: Listing) -> tuple[list[str], str]:
    """Return the groups that are drawn where nothing was chosen, and a sentence that says which these are.

    All where they are few. Else the one that keeps most accuracy under noise, and those that differ from it in the
    training noise alone; those of most accuracy under noise where there are none.
    """
    drawable = [group for group in listing.groups.values() if group.summary is not None]
    drawable.sort(key=lambda group: -group.row["area"] if math.isfinite(group.row["area"]) else math.inf)
    if len(drawable) <= DRAWN_AT_FIRST:
        return [group.key for group in listing.groups.values() if group.summary is not None], ""
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
        if name.removeprefix(SETTING) in _OF_THE_START or name.endswith(("logger", "root_dir")):
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


def _group(
    key: str,
    label: str,
    rows: pd.DataFrame,
    summaries: dict[str, CurveSummary],
    varying: Sequence[str],
    loss: float,
) -> Group:
    members, left_out = _members(rows, summaries)
    summary = _mean([summaries[run] for run in members]) if members else None
    states = Counter(rows["state"])
    worst = max(states, key=lambda state: _LARGEST[state])
    messages = [message for message in rows["message"] if message]
    row: dict[str, Any] = {
        "key": key,
        "label": label,
        "state": worst if len(states) == 1 else f"{worst} {states[worst]} of {len(rows)}",
        "message": "; ".join(dict.fromkeys([*messages, *left_out.values()])),
        "seeds": len(members),
        **_measures(summary, loss),
        "changed": rows["changed"].max().isoformat(timespec="seconds"),
    }
    for name in varying:
        row[name] = _common(rows[name])
    return Group(key, label, tuple(members), left_out, summary, row)


def _members(rows: pd.DataFrame, summaries: dict[str, CurveSummary]) -> tuple[list[str], dict[str, str]]:
    """Return the runs whose curves are pooled, and why others of the group are not."""
    left_out: dict[str, str] = {}
    kept: dict[Any, str] = {}
    shape: tuple[Any, ...] | None = None
    newest_first = rows.sort_values("changed", ascending=False)
    for run, seed, experiment in zip(
        newest_first["run"], newest_first["seed"], newest_first["experiment"], strict=True
    ):
        if run not in summaries:
            continue
        frame = summaries[run].frame
        own = tuple(frame["strength"]), int(frame["n_clips"].iloc[0])
        training = (experiment, run if pd.isna(seed) else seed)
        if training in kept:
            left_out[run] = f"{run}: {kept[training]} is newer and of the same seed"
        elif shape is not None and own != shape:
            left_out[run] = (
                f"{run}: was measured at other strengths, or on other clips, than {next(iter(kept.values()))}"
            )
        else:
            shape = shape or own
            kept[training] = run
    order = set(kept.values())
    return [run for run in rows["run"] if run in order], left_out


def _mean(summaries: Sequence[CurveSummary]) -> CurveSummary:
    first = summaries[0]
    if len(summaries) == 1:
        return first
    accuracy = np.mean([one.frame["accuracy"].to_numpy(dtype=float) for one in summaries], axis=0)
    return replace(first, frame=first.frame.assign(accuracy=accuracy, low=math.nan, high=math.nan))


def _measures(summary: CurveSummary | None, loss: float) -> dict[str, Any]:
    """Return the numbers of a row: ``None`` where one is not defined, inf where it is beyond what was measured."""
    if summary is None:
        return {"clean": None, "midpoint": None, "area": math.nan, "tolerable": None, "highest": None}
    levels = summary.frame["strength"].to_numpy(dtype=float)
    accuracy = summary.frame["accuracy"].to_numpy(dtype=float)
    clean = float(accuracy[0]) if levels[0] == 0 else None
    try:
        midpoint = summary.midpoint()
    except UserError:
        midpoint = math.nan
    tolerable = math.nan if clean is None else first_at_or_below(levels, accuracy, clean - loss)
    return {
        "clean": clean,
        "midpoint": math.inf if midpoint is None else midpoint,
        "area": summary.area(),
        "tolerable": tolerable,
        "highest": float(levels[-1]),
    }


def _common(values: "pd.Series[Any]") -> Any:
    """Return what all of several runs have."""
    texts = set(map(str, values))
    return _plain(values.iloc[0]) if len(texts) == 1 else ("several" if texts else None)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
