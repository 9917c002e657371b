"""The catalogue: all runs and studies below a folder, with one identity and one label each, as they are on disk now."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from asr_dni.catalogue.finding import CURVE, VALIDATION_CURVE, Found, FoundRun, Stamp, find_results
from asr_dni.catalogue.locks import is_locked
from asr_dni.catalogue.reading import Contents, flat, read_contents
from asr_dni.catalogue.run import Run, State
from asr_dni.errors import UserError, first_few
from asr_dni.evaluation.curve import CurveSummary, NoiseCurve, Over, summarise_curves
from asr_dni.evaluation.experiments import label_experiments, older_of_one_training, order_of_experiment
from asr_dni.identity import canonical_json, experiment_key
from asr_dni.noise import Strength
from asr_dni.study.folder import StudyFolder
from asr_dni.study.ledger import Ledger

SETTING = "settings."
"""Beginning of the names of columns that are settings."""

_OF_THE_START = ("seed_everything", "name", "runs", "ckpt_path", "wandb", "wandb_project")


@dataclass
class _Read:
    """A run, as its files say."""

    found: FoundRun
    settings: dict[str, Any]
    curves: dict[str, Contents]
    faults: dict[str, str]
    tested: bool
    seed: int | None
    key: str = ""
    label: str = ""
    superseded: str = ""


class Catalogue:
    """All runs and studies below a folder.

    A run's identity is the path of its folder relative to the catalogue's, with slashes, such as
    ``eight_words/lstm/seed_1/version_0``; "." is the catalogue's folder itself. Links to folders are not followed, and
    a file that is a link out of the folder is not read.

    What is read is kept by each file's size, time and inode, so that :meth:`refresh` reads what has changed alone.

    Args:
        folder: with runs as ``asr-dni fit``, ``noise-curve`` and ``demo`` write them, and studies, at any depth.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(os.path.realpath(folder))
        """The folder, without links in its path."""
        if not self.folder.is_dir():
            raise UserError(f"{folder} is not a folder: give one with runs or studies")
        self._contents: dict[str, tuple[Stamp, Contents]] = {}
        self._found = Found()
        self._read: dict[str, _Read] = {}
        self._running: frozenset[str] = frozenset()
        self.refresh()

    def refresh(self) -> bool:
        """Look at the disk again.

        Returns:
            Whether anything has changed since the last time.
        """
        found = find_results(self.folder)
        running = frozenset(
            identity
            for identity, run in found.runs.items()
            if run.lock is not None and is_locked(self.folder / run.lock)
        )
        changed = found != self._found or running != self._running
        if changed:
            contents = {}
            for run in found.runs.values():
                for path, stamp in run.files.items():
                    known = self._contents.get(path)
                    contents[path] = (
                        known if known and known[0] == stamp else (stamp, read_contents(self.folder / path))
                    )
            self._found, self._contents, self._running = found, contents, running
            self._read = {identity: self._combine(run) for identity, run in found.runs.items()}
            self._name_experiments()
        return changed

    def _combine(self, run: FoundRun) -> _Read:
        contents = {path: self._contents[path][1] for path in run.files}
        faults = {path: own.fault for path, own in contents.items() if own.fault}
        faults |= {path: "is a link that leads out of the folder" for path in run.outside}
        curves = {name: contents[path] for name, path in run.curves.items() if not contents[path].fault}
        settings: dict[str, Any] = {}
        if run.configuration:
            settings = contents[run.configuration].settings
        elif curves:
            settings = settings_of_curve(next(iter(curves.values())).settings)
        elif not faults:
            faults[f"{run.identity}/config.yaml"] = "is missing: nothing tells the settings"
        own = curves.get(CURVE) or curves.get(VALIDATION_CURVE) or next(iter(curves.values()), None)
        seed = own.settings.get("seed") if own else settings.get("seed_everything")
        tested = CURVE in curves or bool(run.metrics and contents[run.metrics].tested)
        return _Read(run, settings, curves, faults, tested, seed if isinstance(seed, int) else None)

    def _state(self, read: _Read) -> State:
        if read.found.identity in self._running:
            return "running"
        if read.faults:
            return "damaged"
        return "finished" if read.tested else "interrupted"

    def _message(self, read: _Read) -> str:
        if read.faults:
            path, fault = next(iter(read.faults.items()))
            more = f"; and {len(read.faults) - 1} more" if len(read.faults) > 1 else ""
            return f"{path} {fault}{more}"
        return read.superseded

    # ------------------------------------------------------------------ experiments

    def _name_experiments(self) -> None:
        """Give each run its experiment's key and label; those without curve have that of others of their settings."""
        keys: dict[str, str] = {}
        groups: dict[Strength | None, dict[str, Mapping[str, Any]]] = {}
        own_keys = {}
        for identity, read in self._read.items():
            own = self._main_curve(read)
            own_keys[identity] = canonical_json(
                {k: v for k, v in read.settings.items() if k not in _OF_THE_START}
            )
            if own is not None:
                read.key = _digest(experiment_key(own.settings))
                assert own.summary is not None
                groups.setdefault(own.summary.strength, {}).setdefault(read.key, own.settings)
                if read.found.configuration:
                    keys.setdefault(own_keys[identity], read.key)
        for identity, read in self._read.items():
            if not read.key:
                read.key = keys.get(own_keys[identity]) or _digest(own_keys[identity])
                if own_keys[identity] not in keys:
                    groups.setdefault(None, {}).setdefault(read.key, curve_settings_of(read.settings))
        labels: dict[str, str] = {}
        for experiments in groups.values():
            new = label_experiments(list(experiments.values()))
            labels |= dict(zip(experiments, new, strict=True))
        for read in self._read.values():
            read.label = labels[read.key]
            read.superseded = ""
        settings = {
            identity: read.curves[CURVE].settings
            for identity, read in self._read.items()
            if CURVE in read.curves
        }
        for identity in older_of_one_training(
            settings, {key: self._changed(self._read[key]) for key in settings}
        ):
            self._read[identity].superseded = "the same weights were tested again later"

    @staticmethod
    def _main_curve(read: _Read) -> Contents | None:
        for name in (CURVE, *read.curves):
            if name in read.curves and name != VALIDATION_CURVE:
                return read.curves[name]
        return None

    @staticmethod
    def _changed(read: _Read) -> float:
        return max((stamp.changed for stamp in read.found.files.values()), default=0) / 1e9

    # ------------------------------------------------------------------ runs

    def runs(self) -> pd.DataFrame:
        """Return a row per run, in natural order of their identities.

        Columns: ``run`` (identity), ``state``, ``message`` (a line on what is wrong, or ""), ``label`` and
        ``experiment`` (key) of what it has in common with its repetitions, ``seed``, ``clean_accuracy`` (share of 1, at
        the curve's lowest strength where that is 0), ``midpoint`` (strength at which accuracy has fallen half-way to
        chance; inf where it does not fall so far), ``area`` (mean accuracy over the measured strengths, by
        trapezoids), ``strength`` (axis of its curve, as text), ``changed`` (newest file, UTC), and the settings of
        ``config.yaml``: ``settings.model.network.cell`` and so on; lists as JSON.
        """
        rows = []
        for identity, read in self._read.items():
            own = self._main_curve(read)
            rows.append(
                {
                    "run": identity,
                    "state": self._state(read),
                    "message": self._message(read),
                    "label": read.label,
                    "experiment": read.key,
                    "seed": read.seed,
                    **measures(own.summary if own else None),
                    "changed": pd.Timestamp(self._changed(read), unit="s", tz="UTC"),
                    **{f"{SETTING}{key}": _cell(value) for key, value in flat(read.settings).items()},
                }
            )
        columns = ["run", "state", "message", "label", "experiment", "seed", *measures(None), "changed"]
        frame = pd.DataFrame(
            rows, columns=list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
        )
        return frame.astype({"seed": "Int64"})

    def run(self, identity: str) -> Run:
        """Return a run.

        Raises:
            UserError: there is none of this identity; also for any path that leads out of the folder.
        """
        read = self._find(identity)
        run = read.found
        return Run(
            identity=run.identity,
            path=self.folder / run.identity,
            state=self._state(read),
            message=self._message(read),
            faults=dict(read.faults),
            settings=read.settings,
            label=read.label,
            experiment=read.key,
            seed=read.seed,
            _curves={name: self.folder / path for name, path in run.curves.items()},
            _checkpoints=tuple(self.folder / path for path in run.checkpoints),
            _evaluations={name: self.folder / path for name, path in run.evaluations.items()},
        )

    def _find(self, identity: str) -> _Read:
        self._check_inside(identity)
        if identity not in self._read:
            known = first_few(list(self._read)) if self._read else "none"
            raise UserError(f"there is no run {identity!r} in {self.folder}; there are {known}")
        return self._read[identity]

    def _check_inside(self, identity: str) -> None:
        parts = identity.split("/")
        inside = os.path.realpath(self.folder / identity) if "\0" not in identity else ""
        if (
            os.path.isabs(identity)
            or ".." in parts
            or "\\" in identity
            or not inside
            or os.path.commonpath([self.folder, inside]) != str(self.folder)
        ):
            raise UserError(
                f"{identity!r} is not below {self.folder}: give the path of a run as the catalogue lists it"
            )

    def curves(self) -> pd.DataFrame:
        """Return a row per curve of every run.

        Columns: ``run``, ``curve`` (name), ``label`` (of the run's experiment), ``experiment`` (the curve's), ``seed``,
        ``split`` and those of :meth:`runs` on the curve itself.
        """
        rows = []
        for identity, read in self._read.items():
            for name, own in read.curves.items():
                rows.append(
                    {
                        "run": identity,
                        "curve": name,
                        "label": read.label,
                        "experiment": _digest(experiment_key(own.settings)),
                        "seed": read.seed,
                        "split": own.settings.get("split"),
                        **measures(own.summary),
                    }
                )
        columns = ["run", "curve", "label", "experiment", "seed", "split", *measures(None)]
        return pd.DataFrame(rows, columns=columns).astype({"seed": "Int64"})

    def strengths(self, runs: Iterable[str] | None = None) -> list[Strength]:
        """Return the strengths that curves of runs are over, those of most curves first; all runs where none are given.

        Raises:
            UserError: a run is not there.
        """
        counts: dict[Strength, int] = {}
        for read in self._chosen(runs):
            for name, own in read.curves.items():
                if name != VALIDATION_CURVE and own.summary is not None:
                    counts[own.summary.strength] = counts.get(own.summary.strength, 0) + 1
        return sorted(counts, key=lambda strength: -counts[strength])

    def _chosen(self, runs: Iterable[str] | None) -> list[_Read]:
        return list(self._read.values()) if runs is None else [self._find(identity) for identity in runs]

    def noise_curves(
        self, runs: Iterable[str] | None = None, strength: Strength | None = None
    ) -> dict[str, NoiseCurve]:
        """Return one curve per run, every draw of it, by the run's identity: its own, or its first over a strength.

        Runs without such a curve are left out.
        """
        found = {}
        for read in self._chosen(runs):
            name = self._curve_over(read, strength)
            if name is not None:
                try:
                    found[read.found.identity] = NoiseCurve.from_csv(self.folder / read.found.curves[name])
                except UserError:
                    continue
        return found

    def run_summaries(self, strength: Strength | None = None) -> dict[str, CurveSummary]:
        """Return the summary of one curve per run, see :meth:`noise_curves`, of what is known: no file is read."""
        named = {identity: self._curve_over(read, strength) for identity, read in self._read.items()}
        found = {}
        for identity, name in named.items():
            summary = self._read[identity].curves[name].summary if name is not None else None
            if summary is not None:
                found[identity] = summary
        return found

    @staticmethod
    def _curve_over(read: _Read, strength: Strength | None) -> str | None:
        for name in (CURVE, *read.curves):
            own = read.curves.get(name)
            if own is None or own.summary is None or name == VALIDATION_CURVE:
                continue
            if strength is None or own.summary.strength == strength:
                return name
        return None

    def summaries(
        self,
        runs: Iterable[str] | None = None,
        by: str | Sequence[str] = "experiment",
        strength: Strength | None = None,
        over: Over = "clips",
    ) -> dict[str, CurveSummary]:
        """Return curves by label, pooled over the runs of each experiment, for the figures of noise curves.

        Of the same experiment and seed the newest run counts; experiments come in ascending sigma_train.

        Args:
            runs: identities; ``None``: all.
            by: "experiment" pools what differs in the seed alone; "run" pools nothing; else names of one or more
                settings, such as ``settings.model.network.cell``: runs that have them alike are pooled.
            strength: the axis; ``None``: that of most curves, see :meth:`strengths`.
            over: what the interval of a single run covers, see
                :meth:`~asr_dni.evaluation.curve.NoiseCurve.summary`.

        Raises:
            UserError: a run or a setting is not there.
        """
        chosen = [read.found.identity for read in self._chosen(runs)]
        if strength is None:
            strength = next(iter(self.strengths(chosen)), None)
        curves = self.noise_curves(chosen, strength)
        newest: dict[tuple[str, Any], str] = {}
        for identity in sorted(curves, key=lambda key: self._changed(self._read[key])):
            settings = curves[identity].settings
            newest[experiment_key(settings), settings.get("seed", identity)] = identity
        kept = [identity for identity in curves if by == "run" or identity in set(newest.values())]
        groups: dict[str, list[str]] = {}
        for identity in kept:
            groups.setdefault(self._group_of(identity, curves[identity], by), []).append(identity)
        pooled = [
            (summarise_curves([curves[identity] for identity in members], over), key, members)
            for key, members in groups.items()
        ]
        pooled.sort(key=lambda item: order_of_experiment(item[0].settings))
        if by == "experiment":
            labels = label_experiments([summary.settings for summary, _, _ in pooled])
        elif by == "run":
            labels = [f"{self._read[key].label}, {key}" for _, key, _ in pooled]
        else:
            labels = [key for _, key, _ in pooled]
        return {label: summary for label, (summary, _, _) in zip(labels, pooled, strict=True)}

    def _group_of(self, identity: str, curve: NoiseCurve, by: str | Sequence[str]) -> str:
        if by == "run":
            return identity
        if by == "experiment":
            shape = [curve.levels, int(curve.frame["n_clips"].iloc[0])]
            return experiment_key(curve.settings) + canonical_json(shape)
        settings = flat(self._read[identity].settings)
        names = [name.removeprefix(SETTING) for name in ([by] if isinstance(by, str) else by)]
        for name in names:
            if not any(name in flat(read.settings) for read in self._read.values()):
                raise UserError(f"no run has a setting {name}")
        return ", ".join(f"{name.rpartition('.')[2]} {_cell(settings.get(name))}" for name in names)

    # ------------------------------------------------------------------ studies

    def studies(self) -> pd.DataFrame:
        """Return a row per study.

        Columns: ``study`` (identity), ``state``, ``message``, ``name``, ``results`` (how many are in its ledger),
        ``changed`` (UTC).
        """
        rows = []
        for identity in self._found.studies:
            folder = StudyFolder(self.folder / identity)
            message, results = "", 0
            try:
                results = len(folder.ledger.members())
            except (UserError, OSError) as error:
                message = str(error)
            populations = folder.recorded_populations()
            if message:
                state: State = "damaged"
            elif any(folder.claimed(name) for name in populations):
                state = "running"
            else:
                unfinished = [name for name in populations if folder.progress(name).state != "done"]
                state = "interrupted" if unfinished or not results else "finished"
            newest = max(path.stat().st_mtime for path in (folder.path, folder.ledger.path) if path.exists())
            rows.append(
                {
                    "study": identity,
                    "state": state,
                    "message": message,
                    "name": Path(identity).name if identity != "." else self.folder.name,
                    "results": results,
                    "changed": pd.Timestamp(newest, unit="s", tz="UTC"),
                }
            )
        return pd.DataFrame(rows, columns=["study", "state", "message", "name", "results", "changed"])

    def study(self, identity: str) -> Ledger:
        """Return the ledger of a study.

        Raises:
            UserError: there is none of this identity; also for any path that leads out of the folder.
        """
        return self.study_folder(identity).ledger

    def study_folder(self, identity: str) -> StudyFolder:
        """Return the folder of a study, with its settings and how far it is.

        Raises:
            UserError: see :meth:`study`.
        """
        self._check_inside(identity)
        if identity not in self._found.studies:
            known = first_few(self._found.studies) if self._found.studies else "none"
            raise UserError(f"there is no study {identity!r} in {self.folder}; there are {known}")
        return StudyFolder(self.folder / identity)


def measures(summary: CurveSummary | None) -> dict[str, Any]:
    """Return the numbers that stand for a curve in a table, see :meth:`Catalogue.runs`; NaN where there is none."""
    if summary is None:
        return {"clean_accuracy": math.nan, "midpoint": math.nan, "area": math.nan, "strength": ""}
    strength = summary.frame["strength"].to_numpy(dtype=float)
    accuracy = summary.frame["accuracy"].to_numpy(dtype=float)
    try:
        midpoint = summary.midpoint()
    except UserError:
        midpoint = math.nan
    width = strength[-1] - strength[0]
    return {
        "clean_accuracy": float(accuracy[0]) if strength[0] == 0 else math.nan,
        "midpoint": math.inf if midpoint is None else midpoint,
        "area": float(np.trapezoid(accuracy, strength) / width) if width > 0 else math.nan,
        "strength": str(summary.strength),
    }


def settings_of_curve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a curve says of its training, under the names of a configuration."""
    network = {
        key: settings[key]
        for key in ("cell", "units", "layers", "bidirectional", "pooling")
        if key in settings
    }
    found: dict[str, Any] = {f"model.network.{key}": value for key, value in network.items()}
    training = settings.get("training")
    found |= training if isinstance(training, Mapping) else {}
    if "seed" in settings:
        found["seed_everything"] = settings["seed"]
    return found


def curve_settings_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration says of a training, under the names of a curve's settings, for its label."""
    names = flat(settings)
    found = {key: names.get(f"model.network.{key}") for key in ("cell", "units", "layers")}
    sigma = names.get("annealing.sigma")
    if isinstance(sigma, int | float):
        found["sigma_train"] = float(sigma)
    return {**found, "training": {key: value for key, value in names.items() if key not in _OF_THE_START}}


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value


def _digest(key: str) -> str:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
