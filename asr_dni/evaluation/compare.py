"""Compare saved noise curves: pool the seeds of each experiment, draw and tabulate all of them together."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.table import Table

from asr_dni.errors import UserError
from asr_dni.evaluation.curve import (
    CurveSummary,
    NoiseCurve,
    Over,
    curve_label,
    strength_of_training,
    summarise_curves,
)
from asr_dni.evaluation.description import describe_hardware, name_hardware
from asr_dni.evaluation.figures import draw_noise_curves, save_figure
from asr_dni.evaluation.tables import noise_curve_markdown, noise_curve_table
from asr_dni.files import write_atomically
from asr_dni.identity import experiment_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IN_THE_LABEL = (
    "sigma_train",
    "sigma_train_highest",
    "train_strength",
    "trained_under_noise",
    "label",
    "draws",
    "training",
)
"""Settings that labels tell otherwise, or not at all."""


@dataclass(frozen=True)
class Comparison:
    """Noise curves of several experiments.

    Attributes:
        summaries: by label; in ascending sigma_train, then in the order of their files.
        figure: all curves in one picture.
        table: for the terminal.
        markdown: the same table in Markdown.
        files: what was written.
        left_out: older curves of weights that were evaluated again.
    """

    summaries: dict[str, CurveSummary]
    figure: "Figure"
    table: Table
    markdown: str
    files: tuple[Path, ...] = ()
    left_out: tuple[Path, ...] = ()


FURTHER_CURVES = "noise_curve-"
"""Beginning of the names of folders that hold further measurements of a checkpoint, on other data or noise."""

_MOST_DIFFERENCES = 4  # of the training, that a label names


def find_curves(paths: Sequence[Path | str], name: str = "noise_curve.csv") -> list[Path]:
    """Return noise curve files: those given, and those called ``name`` anywhere below the directories given.

    Folders ``noise_curve-...`` are searched only where they are given themselves: what ``asr-dni noise-curve`` wrote
    there was measured otherwise than the runs' own curves.

    Raises:
        UserError: a path does not exist, or a directory holds no noise curve.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            every = sorted(path.rglob(name))
            files = [file for file in every if not _is_further(file.relative_to(path))]
            if not files and every:
                raise UserError(
                    f"{path} holds no {name} but in folders {FURTHER_CURVES}...: name them to compare them, such as"
                    f" {every[0].parent}"
                )
            if not files:
                raise UserError(f"{path} holds no {name}: give a directory of runs that were tested")
        elif path.exists():
            files = [path]
        else:
            raise UserError(f"{path} does not exist: give noise curve files or directories that hold some")
        for file in files:
            found.setdefault(file.resolve(), file)
    if not found:
        raise UserError("there is nothing to compare: give noise curve files or directories that hold some")
    return list(found.values())


def _is_further(file: Path) -> bool:
    return any(part.startswith(FURTHER_CURVES) for part in file.parts[:-1])


def _group(curves: Mapping[Path, NoiseCurve]) -> list[dict[Path, NoiseCurve]]:
    """Return curves by experiment, that is by all settings but those of a repetition."""
    groups: list[tuple[dict[str, Any], dict[Path, NoiseCurve]]] = []
    for path, curve in curves.items():
        experiment = experiment_settings(curve.settings)
        for known, members in groups:
            if known == experiment:
                members[path] = curve
                break
        else:
            groups.append((experiment, {path: curve}))
    return [members for _, members in groups]


def _older_of_one_training(curves: Mapping[Path, NoiseCurve]) -> list[Path]:
    """Return the files that a newer one of the same weights replaces, as when a run is tested again."""
    newest: list[dict[str, Any]] = []
    older = []
    for path in sorted(curves, key=lambda path: path.stat().st_mtime, reverse=True):
        settings = curves[path].settings
        if any(_same_weights(settings, known) for known in newest):
            older.append(path)
        else:
            newest.append(settings)
    return older


def _same_weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two curves are of one checkpoint: by the weights, or by its name where they are not noted."""
    if experiment_settings(one) != experiment_settings(other) or one.get("seed") != other.get("seed"):
        return False
    for key in ("weights", "checkpoint"):
        if one.get(key) and other.get(key):
            return bool(one[key] == other[key])
    return False


def _check_independent(members: Mapping[Path, NoiseCurve]) -> None:
    """Refuse two curves of one training: counted as two seeds they would feign certainty."""
    seen: list[tuple[Path, NoiseCurve]] = []
    for path, curve in members.items():
        for other_path, other in seen:
            seed = curve.settings.get("seed")
            if seed is not None and seed == other.settings.get("seed"):
                raise UserError(
                    f"{other_path} and {path} are of the same experiment and seed {seed}: give one of them, or train"
                    " with another seed"
                )
            if curve.frame.equals(other.frame):
                raise UserError(f"{other_path} and {path} hold the same curve: give one of them")
        seen.append((path, curve))


def _value_text(key: str, value: Any) -> str:
    if key == "hardware" and isinstance(value, Mapping):
        return describe_hardware(value)
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, str):
        return value
    return f"{key} {value:g}" if isinstance(value, int | float) else f"{key} {value}"


def _training_texts(trainings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each of several trainings what it has otherwise than the others; nothing where that is not noted."""
    known = [training for training in trainings if training]
    names = list(dict.fromkeys(name for training in known for name in training))
    differing = [name for name in names if any(one.get(name) != known[0].get(name) for one in known)]
    endings = [name.rpartition(".")[2] for name in names]
    texts = []
    for training in trainings:
        parts = []
        for name in differing:
            # The last name is enough where no other setting has it, the evaluation's noise included: "dropout", but
            # "annealing warm_up" and "noise sites".
            first, _, ending = name.rpartition(".")
            part = first.rpartition(".")[2]
            shown = ending if endings.count(ending) == 1 and part != "noise" else f"{part} {ending}"
            value = training.get(name)
            if not training or (value is None and name not in training):
                continue
            if name == "after":
                parts.append("trained on")
            elif isinstance(value, list) and len(value) > 4:
                parts.append(f"{shown} of {len(value)}")
            elif isinstance(value, list):
                parts.append(f"{shown} {' '.join(map(str, value))}")
            else:
                parts.append(f"{shown} {value:g}" if isinstance(value, float) else f"{shown} {value}")
        if len(parts) > _MOST_DIFFERENCES:
            parts = [*parts[:_MOST_DIFFERENCES], f"{len(parts) - _MOST_DIFFERENCES} more"]
        texts.append(", ".join(parts))
    return texts


def _labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a label per experiment: how it was trained, then the settings in which experiments differ.

    What else was configured for a training is named only where labels would be the same without it.
    """
    if all(one.get("label") for one in settings) and len({one["label"] for one in settings}) == len(settings):
        return [str(one["label"]) for one in settings]
    keys = dict.fromkeys(key for one in settings for key in experiment_settings(one))
    differing = [
        key
        for key in keys
        if key not in _IN_THE_LABEL and any(one.get(key) != settings[0].get(key) for one in settings)
    ]
    labels = []
    for one in settings:
        more = [
            _value_text(key, one[key])
            if key != "train_hardware"
            else f"trained on {name_hardware(one[key], strength_of_training(one))}"
            for key in differing
            if one.get(key) is not None
        ]
        name = curve_label(one)
        labels.append(", ".join(([] if name == "network" and more else [name]) + more))
    for label in dict.fromkeys(labels):
        places = [place for place, other in enumerate(labels) if other == label]
        if len(places) > 1:
            texts = _training_texts([settings[place].get("training") or {} for place in places])
            for place, text in zip(places, texts, strict=True):
                more = ([] if label == "network" and text else [label]) + ([text] if text else [])
                labels[place] = ", ".join(more)
    return _distinct(labels)


def _distinct(labels: Sequence[str]) -> list[str]:
    """Number the labels that several have; no number makes a label that is there already."""
    taken, counts, distinct = set(labels), Counter(labels), []
    for label in labels:
        name, number = label, 0
        while counts[label] > 1 and name in taken:
            number += 1
            name = f"{label} ({number})"
        taken.add(name)
        distinct.append(name)
    return distinct


def _order(settings: Mapping[str, Any]) -> tuple[float, bool]:
    return float(settings.get("sigma_train") or 0), bool(settings.get("trained_under_noise"))


def compare_curves(
    paths: Sequence[Path | str],
    output: Path | str | None = None,
    over: Over = "clips",
    title: str = "Accuracy under computation noise",
) -> Comparison:
    """Read noise curves, pool those that differ only in their seed, and show all together.

    An experiment is what has the same settings, everything about the training among them, all but the training
    seed, the noise seed, the checkpoint and its weights, epoch, step and run. With several seeds the interval is
    over seeds, with one as ``over`` says; the small print and the tables say which.

    Args:
        paths: CSV files written by :meth:`NoiseCurve.to_csv`, or directories that are searched for
            ``noise_curve.csv``, see :func:`find_curves`; of several that directories hold of the same weights the
            newest counts.
        output: directory for ``noise_curves.png``, ``.svg``, ``.md`` and ``.csv`` (the summaries); ``None``:
            nothing is written. Accuracies and bounds in the CSV are shares of 1.
        over: what the interval of a single seed covers, see :meth:`NoiseCurve.summary`.
        title: stands above figure and table.

    Returns:
        The comparison.

    Raises:
        UserError: nothing to compare, a file that is no noise curve, two files of one training, or curves
            that can't be shown together.
    """
    curves = {path: NoiseCurve.from_csv(path) for path in find_curves(paths)}
    named = {Path(path).resolve() for path in paths}
    left_out = _older_of_one_training({path: curves[path] for path in curves if path.resolve() not in named})
    for path in left_out:
        del curves[path]
    groups = _group(curves)
    for members in groups:
        _check_independent(members)
    pooled = [summarise_curves(list(members.values()), over) for members in groups]
    pooled.sort(key=lambda summary: _order(summary.settings))
    summaries = dict(zip(_labels([summary.settings for summary in pooled]), pooled, strict=True))
    comparison = Comparison(
        summaries,
        draw_noise_curves(summaries, title),
        noise_curve_table(summaries, title),
        noise_curve_markdown(summaries),
        left_out=tuple(left_out),
    )
    if output is None:
        return comparison
    output = Path(output)
    files = save_figure(comparison.figure, output / "noise_curves")
    table = pd.concat(
        [
            summary.frame.assign(label=label, axis=str(summary.strength), interval=summary.interval)
            for label, summary in summaries.items()
        ]
    )
    with write_atomically(output / "noise_curves.md") as temporary:
        Path(temporary).write_text(comparison.markdown, encoding="utf-8")
    with write_atomically(output / "noise_curves.csv") as temporary:
        table[["label", "axis", *pooled[0].frame.columns, "interval"]].to_csv(
            temporary, index=False, lineterminator="\n"
        )
    files += [output / "noise_curves.md", output / "noise_curves.csv"]
    return dataclasses.replace(comparison, files=tuple(files))
