"""Compare saved noise curves: pool the seeds of each experiment, draw and tabulate all of them together."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.table import Table

from asr_dni.catalogue.finding import CURVE, FURTHER_CURVES, find_results
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import (
    CurveSummary,
    NoiseCurve,
    Over,
    summarise_curves,
)
from asr_dni.evaluation.curves.experiments import (
    check_independent,
    group_by_experiment,
    label_experiments,
    older_of_one_training,
    order_of_experiment,
)
from asr_dni.evaluation.curves.tables import noise_curve_markdown, noise_curve_table
from asr_dni.evaluation.figures.noise_curves import draw_noise_curves, save_figure
from asr_dni.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAME = f"{CURVE}.csv"


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
        damaged: curves that a folder holds and that can't be used, with what is wrong.
    """

    summaries: dict[str, CurveSummary]
    figure: "Figure"
    table: Table
    markdown: str
    files: tuple[Path, ...] = ()
    left_out: tuple[Path, ...] = ()
    damaged: dict[Path, str] = dataclasses.field(default_factory=dict)


def find_curves(paths: Sequence[Path | str]) -> list[Path]:
    """Return noise curve files: those given, and the runs' own, of their tests, below the directories given.

    What ``asr-dni noise-curve`` wrote into folders ``noise_curve-...`` was measured otherwise than the runs' own
    curves: it is found only where such a folder is given itself.

    Raises:
        UserError: a path does not exist, or a directory holds no noise curve.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            runs = find_results(path, links_out=True).runs.values()
            files = [path / run.curves[CURVE] for run in runs if CURVE in run.curves]
            if not files:
                further = [
                    path / file for run in runs for file in run.curves.values() if file.endswith(_NAME)
                ]
                if further:
                    raise UserError(
                        f"{path} holds no {_NAME} but in folders {FURTHER_CURVES}...: name them to compare them, such"
                        f" as {further[0].parent}"
                    )
                raise UserError(f"{path} holds no {_NAME}: give a directory of runs that were tested")
        elif path.exists():
            files = [path]
        else:
            raise UserError(f"{path} does not exist: give noise curve files or directories that hold some")
        for file in files:
            found.setdefault(file.resolve(), file)
    if not found:
        raise UserError("there is nothing to compare: give noise curve files or directories that hold some")
    return list(found.values())


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
        UserError: nothing to compare, a file that was named and is no noise curve, two files of one training, or
            curves that can't be shown together.
    """
    named = {Path(path).resolve() for path in paths}
    curves: dict[Path, NoiseCurve] = {}
    damaged: dict[Path, str] = {}
    for path in find_curves(paths):
        try:
            curves[path] = NoiseCurve.from_csv(path)
        except UserError as error:
            if path.resolve() in named:
                raise
            damaged[path] = str(error)
    if not curves:
        raise UserError(next(iter(damaged.values())))
    searched = {path: curve.settings for path, curve in curves.items() if path.resolve() not in named}
    left_out = older_of_one_training(searched, {path: path.stat().st_mtime for path in searched})
    for path in left_out:
        del curves[path]
    experiments = group_by_experiment({path: curve.settings for path, curve in curves.items()})
    groups = [{path: curves[path] for path in paths} for paths in experiments]
    for members in groups:
        check_independent(members)
    pooled = [summarise_curves(list(members.values()), over) for members in groups]
    pooled.sort(key=lambda summary: order_of_experiment(summary.settings))
    summaries = dict(zip(label_experiments([summary.settings for summary in pooled]), pooled, strict=True))
    comparison = Comparison(
        summaries,
        draw_noise_curves(summaries, title),
        noise_curve_table(summaries, title),
        noise_curve_markdown(summaries),
        left_out=tuple(left_out),
        damaged=damaged,
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
