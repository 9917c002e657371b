"""The catalogue: all runs and studies below a folder, with one identity and one label each, as they are on disk now."""

import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from asr_dni.catalogue.entry import NO_MEASURES, Entry, EntryCurve, make_entry
from asr_dni.catalogue.finding import VALIDATION_CURVE, Found, find_results
from asr_dni.catalogue.index import Index, Known
from asr_dni.catalogue.locks import is_locked
from asr_dni.catalogue.naming import Names
from asr_dni.catalogue.reading import read_files
from asr_dni.catalogue.run import Run
from asr_dni.catalogue.settings_book import SettingsBook
from asr_dni.catalogue.studies import study_row
from asr_dni.errors import UserError, first_few
from asr_dni.evaluation.curves.curve import CurveSummary, NoiseCurve, Over, pool_means
from asr_dni.evaluation.curves.experiments import distinct, label_experiments, order_of_experiment
from asr_dni.noise import Strength

if TYPE_CHECKING:  # a study's folder knows how to train one, and imports what that takes
    from asr_dni.study.folder import StudyFolder
    from asr_dni.study.ledger import Ledger

SETTING = "settings."
"""Beginning of the names of columns that are settings."""


class Catalogue:
    """All runs and studies below a folder.

    A run's identity is the path of its folder relative to the catalogue's, with slashes, such as
    ``eight_words/lstm/seed_1/version_0``; "." is the catalogue's folder itself. Links to folders are not followed, and
    a file that is a link out of the folder is not read. A file that can't be used makes its run ``damaged``, with a
    line that says which and why; everything else is shown all the same.

    What is read is kept by each file's size, time and inode, so that :meth:`refresh` reads what has changed alone, and
    in an index on disk, see :mod:`asr_dni.catalogue.index`, so that the next catalogue does so, too. Several threads
    may use one catalogue.

    Args:
        folder: with runs as ``asr-dni fit``, ``noise-curve`` and ``demo`` write them, and studies, at any depth.
        index: whether there is an index on disk.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: Path | str, index: bool = True) -> None:
        self.folder = Path(os.path.realpath(folder))
        """The folder, without links in its path."""
        if not self.folder.is_dir():
            raise UserError(f"{folder} is not a folder: give one with runs or studies")
        self._index = Index(self.folder) if index else None
        self._book = SettingsBook()
        self._names = Names(self._book)
        self._contents: Known = self._index.read() if self._index else {}
        self._found = Found()
        self._entries: dict[str, Entry] = {}
        self._running: frozenset[str] = frozenset()
        self._study_folders: dict[str, StudyFolder] = {}
        self._runs: pd.DataFrame | None = None
        self._looking = threading.Lock()
        self.refresh()

    def refresh(self) -> bool:
        """Look at the disk again.

        Returns:
            Whether anything has changed since the last time.
        """
        with self._looking:  # threads that look at once share what one of them reads
            return self._look()

    def _look(self) -> bool:
        began = time.time()
        found = find_results(self.folder)
        running = frozenset(
            identity
            for identity, run in found.runs.items()
            if run.lock is not None and is_locked(self.folder / run.lock)
        )
        changed = found != self._found or running != self._running
        if changed:
            self._read(found, began)
            entries = {}
            for identity, run in found.runs.items():
                old = self._entries.get(identity)
                same = old is not None and old.found == run
                contents = {path: self._contents[path][1] for path in run.files}
                entries[identity] = old if old and same else make_entry(run, contents, self._book)
            self._names.give(entries)
            self._found, self._running, self._entries, self._runs = found, running, entries, None
        return changed

    def _read(self, found: Found, began: float) -> None:
        """Read the files that have changed, and note them in the index."""
        stamps = {path: stamp for run in found.runs.values() for path, stamp in run.files.items()}
        known = {path: own for path, own in self._contents.items() if stamps.get(path) == own[0]}
        wanted = [path for path in stamps if path not in known]
        read = read_files([self.folder / path for path in wanted], self._book)
        known |= {path: (stamps[path], own) for path, own in zip(wanted, read, strict=True)}
        if self._index is not None and (wanted or known.keys() != self._contents.keys()):
            self._index.write(known, began)
        self._contents = known

    # ------------------------------------------------------------------ runs

    def runs(self) -> pd.DataFrame:
        """Return a row per run, in natural order of their identities.

        Columns: ``run`` (identity), ``state`` (see :data:`~asr_dni.catalogue.entry.State`), ``message`` (a line on what
        is wrong, or ""), ``label`` and ``experiment`` (key) of what it has in common with its repetitions, ``seed``;
        of its curve ``clean_accuracy`` (share of 1, without noise), ``midpoint`` (strength at which accuracy has fallen
        half-way from that at 0 to chance; inf where it does not fall so far), ``area`` (mean accuracy over the measured
        strengths), each NaN where it is not defined, and ``strength`` (the axis, as text); ``changed`` (newest file,
        UTC); and the settings of ``config.yaml``, ``settings.model.network.cell`` and so on, lists as JSON.
        """
        with self._looking:
            if self._runs is None:
                entries = self._entries
                columns: dict[str, Any] = {
                    "run": list(entries),
                    "state": [entry.state(identity in self._running) for identity, entry in entries.items()],
                    "message": [entry.message for entry in entries.values()],
                    "label": [entry.label for entry in entries.values()],
                    "experiment": [entry.key for entry in entries.values()],
                    "seed": pd.array([entry.seed for entry in entries.values()], dtype="Int64"),
                    **{name: [entry.measures[name] for entry in entries.values()] for name in NO_MEASURES},
                    "changed": pd.to_datetime(
                        [entry.changed for entry in entries.values()], unit="s", utc=True
                    ),
                }
                settings = self._book.columns([entry.parts for entry in entries.values()])
                columns |= {f"{SETTING}{name}": values for name, values in settings.items()}
                self._runs = pd.DataFrame(columns)
            return self._runs.copy()

    def run(self, identity: str) -> Run:
        """Return a run.

        Raises:
            UserError: there is none of this identity; also for any path that leads out of the folder.
        """
        entry = self._find(identity)
        found = entry.found
        return Run(
            identity=identity,
            path=self.folder / identity,
            state=entry.state(identity in self._running),
            message=entry.message,
            faults=dict(entry.faults),
            settings=self._book.nested(entry.parts),
            label=entry.label,
            experiment=entry.key,
            seed=entry.seed,
            _curves={name: self.folder / found.curves[name] for name in entry.curves},
            _checkpoints=tuple(self.folder / path for path in found.checkpoints),
            _evaluations={name: self.folder / path for name, path in found.evaluations.items()},
        )

    def _find(self, identity: str) -> Entry:
        if identity not in self._entries:
            raise self._not_there("run", identity, list(self._entries))
        return self._entries[identity]

    def _not_there(self, kind: str, identity: str, known: Sequence[str]) -> UserError:
        """Return the error for what is no identity of the catalogue, as no path out of its folder is."""
        plural = "studies" if kind == "study" else "runs"
        if os.path.isabs(identity) or ".." in identity.split("/") or "\\" in identity or "\0" in identity:
            return UserError(
                f"{identity!r} is not below {self.folder}: give the path of a {kind} as the catalogue lists it"
            )
        there = f"; there are {first_few(known)}" if known else f"; it holds no {plural}"
        return UserError(f"there is no {kind} {identity!r} in {self.folder}{there}")

    def _chosen(self, runs: Iterable[str] | None) -> dict[str, Entry]:
        return self._entries if runs is None else {identity: self._find(identity) for identity in runs}

    # ------------------------------------------------------------------ curves

    def curves(self) -> pd.DataFrame:
        """Return a row per curve of every run.

        Columns: ``run``, ``curve`` (name), ``label`` (of the run's experiment), ``experiment`` (the curve's), ``seed``,
        ``split`` and those of :meth:`runs` on the curve itself.
        """
        rows = [
            {
                "run": identity,
                "curve": name,
                "label": entry.label,
                "experiment": self._names.of_curve(curve.parts),
                "seed": entry.seed,
                "split": curve.settings.get("split"),
                **curve.measures(),
            }
            for identity, entry in self._entries.items()
            for name, curve in entry.curves.items()
        ]
        columns = ["run", "curve", "label", "experiment", "seed", "split", *NO_MEASURES]
        return pd.DataFrame(rows, columns=columns).astype({"seed": "Int64"})

    def strengths(self, runs: Iterable[str] | None = None) -> list[Strength]:
        """Return the strengths that curves of runs are over, that of most runs first.

        Args:
            runs: identities; ``None``: all.

        Raises:
            UserError: a run is not there.
        """
        counts: dict[Strength, int] = {}
        for entry in self._chosen(runs).values():
            for strength in {
                curve.strength for name, curve in entry.curves.items() if name != VALIDATION_CURVE
            }:
                counts[strength] = counts.get(strength, 0) + 1
        return sorted(counts, key=lambda strength: (-counts[strength], str(strength)))

    def _curves_over(
        self, runs: Iterable[str] | None, strength: Strength | None
    ) -> dict[str, tuple[str, EntryCurve]]:
        """Return name and curve of each run that has one over a strength; ``None``: of most runs."""
        chosen = self._chosen(runs)
        strength = strength or next(iter(self.strengths(chosen)), None)
        named = {identity: entry.curve_over(strength) for identity, entry in chosen.items()}
        return {identity: (name, chosen[identity].curves[name]) for identity, name in named.items() if name}

    def noise_curves(
        self, runs: Iterable[str] | None = None, strength: Strength | None = None
    ) -> dict[str, NoiseCurve]:
        """Return a curve with every draw of it per run, by the run's identity; runs without one are left out.

        Args:
            runs: identities; ``None``: all.
            strength: the axis; ``None``: that of most runs, see :meth:`strengths`. Of several curves over it that of
                the run's test counts, else the first.

        Raises:
            UserError: a run is not there.
        """
        found = {}
        for identity, (name, _) in self._curves_over(runs, strength).items():
            curve = self.run(identity).curves().get(name)  # not where it was damaged since
            if curve is not None:
                found[identity] = curve
        return found

    def known_curves(
        self, strength: Strength | None = None, runs: Iterable[str] | None = None
    ) -> dict[str, EntryCurve]:
        """Return the means of one curve per run, see :meth:`noise_curves`, of what is known: no file is read."""
        return {identity: curve for identity, (_, curve) in self._curves_over(runs, strength).items()}

    def summaries(
        self,
        runs: Iterable[str] | None = None,
        by: str | Sequence[str] = "experiment",
        strength: Strength | None = None,
        over: Over = "clips",
    ) -> dict[str, CurveSummary]:
        """Return curves by label, pooled over the runs of each experiment, for the figures of noise curves.

        Of runs of the same experiment and seed the newest counts, but where nothing is pooled. Experiments come in
        ascending sigma_train. Runs of one experiment that were measured at other levels are not pooled.

        Args:
            runs: identities; ``None``: all.
            by: "experiment" pools what differs in the seed alone; "run" pools nothing and gives the curves by identity;
                else names of one or more settings, such as ``settings.model.network.cell``: runs that have them alike
                are pooled.
            strength: see :meth:`noise_curves`.
            over: what the interval of a single run covers, see
                :meth:`~asr_dni.evaluation.curves.curve.NoiseCurve.summary`.

        Raises:
            UserError: a run or a setting is not there.
        """
        curves = {identity: curve for identity, (_, curve) in self._curves_over(runs, strength).items()}
        if by == "run":
            return {identity: curve.summary(over) for identity, curve in curves.items()}
        experiments = {identity: self._names.of_curve(curve.parts) for identity, curve in curves.items()}
        groups: dict[tuple[object, ...], list[str]] = {}
        for identity in self._newest_of_seeds(curves, experiments):
            name = experiments[identity] if by == "experiment" else self._name_of_settings(identity, by)
            groups.setdefault((name, *curves[identity].shape), []).append(identity)
        repetition = "seed" if by == "experiment" else "run"
        pooled = []
        for key, members in groups.items():
            own = [curves[identity] for identity in members]
            pooled.append(
                (
                    key[0],
                    own[0].summary(over)
                    if len(own) == 1
                    else pool_means([one.columns for one in own], [one.settings for one in own], repetition),
                )
            )
        pooled.sort(key=lambda item: order_of_experiment(item[1].settings))
        if by == "experiment":
            labels = label_experiments([summary.settings for _, summary in pooled])
        else:
            labels = distinct([str(key) for key, _ in pooled])
        return {label: summary for label, (_, summary) in zip(labels, pooled, strict=True)}

    @staticmethod
    def _newest_of_seeds(curves: dict[str, EntryCurve], experiments: dict[str, str]) -> list[str]:
        """Return runs in their order, of each experiment's seeds the one whose curve is newest."""
        newest: dict[tuple[object, ...], str] = {}
        for identity in sorted(curves, key=lambda identity: curves[identity].changed):
            seed = curves[identity].settings.get("seed")
            own = ("seed", seed) if seed is not None else ("means", curves[identity].means.tobytes())
            newest[experiments[identity], *own] = identity
        kept = set(newest.values())
        return [identity for identity in curves if identity in kept]

    def _name_of_settings(self, identity: str, by: str | Sequence[str]) -> str:
        settings = self._book.flat(self._entries[identity].parts)
        names = [name.removeprefix(SETTING) for name in ([by] if isinstance(by, str) else by)]
        for name in names:
            if name not in settings and name not in self._book.names(e.parts for e in self._entries.values()):
                raise UserError(f"no run has a setting {name}: give one of the columns of runs()")
        return ", ".join(f"{name.rpartition('.')[2]} {settings.get(name)}" for name in names)

    # ------------------------------------------------------------------ studies

    def studies(self) -> pd.DataFrame:
        """Return a row per study.

        Columns: ``study`` (identity), ``state``, ``message``, ``name``, ``results`` (how many are in its ledger),
        ``changed`` (UTC).
        """
        rows = [
            {"study": identity, **study_row(self.study_folder(identity))} for identity in self._found.studies
        ]
        return pd.DataFrame(rows, columns=["study", "state", "message", "name", "results", "changed"])

    def study(self, identity: str) -> "Ledger":
        """Return the ledger of a study.

        Raises:
            UserError: there is none of this identity; also for any path that leads out of the folder.
        """
        return self.study_folder(identity).ledger

    def study_folder(self, identity: str) -> "StudyFolder":
        """Return the folder of a study, with its settings and how far it is.

        Raises:
            UserError: see :meth:`study`.
        """
        if identity not in self._found.studies:
            raise self._not_there("study", identity, self._found.studies)
        from asr_dni.study.folder import StudyFolder

        return self._study_folders.setdefault(identity, StudyFolder(self.folder / identity))
