"""What a report says of runs: overview, noise curves, differences to a baseline, trainings, settings, evaluations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from asr_dni.catalogue import Run
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import CurveSummary, NoiseCurve, summarise_curves
from asr_dni.evaluation.curves.differences import differences, format_difference
from asr_dni.evaluation.curves.experiments import pool_by_experiment
from asr_dni.evaluation.curves.tables import format_accuracy, format_midpoint, noise_curve_texts
from asr_dni.evaluation.curves.tolerance import TOLERATED_LOSS, tolerable_strength
from asr_dni.evaluation.figures.differences import differences_figure
from asr_dni.evaluation.figures.noise_curves import noise_curves_figure
from asr_dni.evaluation.figures.training import learning_curves_figure, schedules_figure
from asr_dni.noise import Strength
from asr_dni.plotting import Figure
from asr_dni.report.document import Block, Choice, Section, Table, Text
from asr_dni.report.evaluations import evaluation_blocks
from asr_dni.report.results import Results
from asr_dni.report.settings import settings_tables

_VALIDATION = "noise_curve_validation"


@dataclass(frozen=True)
class Pooled:
    """Curves over one strength, by the label of their experiment.

    Attributes:
        strength: the axis.
        curves: one per training seed.
        runs: names of the runs that they are of, in the same order.
    """

    strength: Strength
    curves: dict[str, list[NoiseCurve]]
    runs: dict[str, list[str]]

    @property
    def summaries(self) -> dict[str, CurveSummary]:
        """Means and intervals over the seeds."""
        return {label: summarise_curves(curves) for label, curves in self.curves.items()}


def pool_runs(results: Results) -> list[Pooled]:
    """Return the curves of all runs by what they are over, that of most runs first; validation's are left out."""
    found: dict[Strength, dict[str, NoiseCurve]] = {}
    for name, run in results.runs.items():
        for kind, curve in run.curves().items():
            # A run's own curve comes first; of further ones over a strength the first.
            if kind != _VALIDATION:
                found.setdefault(curve.strength, {}).setdefault(name, curve)
    pooled = []
    for strength, curves in sorted(found.items(), key=lambda item: -len(item[1])):
        changed = {name: results.changed[name].timestamp() for name in curves}
        groups = pool_by_experiment(curves, changed)
        of_label = {label: [curves[name] for name in names] for label, names in groups.items()}
        pooled.append(Pooled(strength, of_label, groups))
    return pooled


def run_sections(results: Results, baseline: str | None = None) -> list[Section]:
    """Return the sections on the runs.

    Args:
        results: what there is; at least one run.
        baseline: label of the experiment that others are compared with, or name of one of its runs; ``None``: that with
            the least noise in training.

    Raises:
        UserError: there is no such baseline.
    """
    pooled = pool_runs(results)
    sections = [Section("Runs", tuple(_overview(results, pooled)))]
    chosen = [_baseline_of(one, baseline) for one in pooled]
    if baseline is not None and not any(chosen):
        known = dict.fromkeys(label for one in pooled for label in one.curves)
        raise UserError(
            f"--baseline {baseline}: there is no such experiment or run with a noise curve; there are"
            f" {', '.join(map(repr, known)) or 'none'}"
        )
    for one, base in zip(pooled, chosen, strict=True):
        sections += _curve_sections(one, base, len(pooled) > 1)
    for title, blocks in (
        ("Trainings", _trainings(results.runs)),
        ("Settings", settings_tables(results.runs)),
        ("Evaluations", evaluation_blocks(results.runs)),
    ):
        listed = tuple(blocks)
        if listed:
            sections.append(Section(title, listed))
    return sections


def _baseline_of(pooled: Pooled, baseline: str | None) -> str | None:
    if baseline is None:
        return next(iter(pooled.curves)) if len(pooled.curves) > 1 else None
    for label, runs in pooled.runs.items():
        if baseline == label or baseline in runs:
            return label
    return None


def _overview(results: Results, pooled: Sequence[Pooled]) -> Iterator[Block]:
    damaged = {name: run for name, run in results.runs.items() if run.state == "damaged"}
    for name, run in damaged.items():
        yield Text(f"{name} is damaged, and shown as far as it can be read: {run.message}", "warning")
    for one in pooled:
        yield _numbers(one, len(pooled) > 1)
    rows = []
    for name, run in results.runs.items():
        message = "" if run.state == "damaged" else run.message
        seed = "" if run.seed is None else str(run.seed)
        changed = results.changed[name]
        date = "" if changed.timestamp() <= 0 else f"{changed:%Y-%m-%d %H:%M} UTC"
        rows.append((name, run.label, seed, run.state, date, message))
    width = 6 if any(row[-1] for row in rows) else 5
    header = ("run", "experiment", "seed", "state", "last change", "")[:width]
    yield Table("All runs", header, tuple(row[:width] for row in rows), folded=len(rows) > 12)


def _numbers(pooled: Pooled, several: bool) -> Table:
    """Return the numbers that stand for each experiment's curve."""
    loss = f"{100 * TOLERATED_LOSS:g} points"
    rows = []
    for label, curves in pooled.curves.items():
        summary = summarise_curves(curves)
        first = summary.frame.iloc[0]
        clean = first["strength"] == 0
        try:
            tolerable = str(tolerable_strength(curves))
        except UserError:
            tolerable = "–"
        rows.append(
            (
                label,
                str(len(curves)),
                format_accuracy(first["accuracy"], first["low"], first["high"]) if clean else "–",
                format_midpoint(summary),
                f"{100 * summary.area():.1f}",
                tolerable,
            )
        )
    symbol = pooled.strength.symbol
    header = ("experiment", "seeds", f"accuracy at {symbol} 0 (%)", "midpoint", "area (%)", f"{loss} lost at")
    intervals = ", ".join(dict.fromkeys(summary.interval for summary in pooled.summaries.values()))
    note = (
        f"{intervals}; midpoint: the {symbol} at which accuracy has fallen half-way to chance; area: mean accuracy over"
        f" all {symbol}; {loss} lost at: the largest {symbol} at which accuracy stays within {loss} of that at 0, with"
        " its 95 % interval over seeds"
    )
    return Table(
        f"Experiments{f' over {symbol}' if several else ''}", header, tuple(rows), note, numbers=True
    )


def _curve_sections(pooled: Pooled, baseline: str | None, several: bool) -> Iterator[Section]:
    over = f" over {pooled.strength.symbol}" if several else ""
    try:
        summaries = pooled.summaries
        header, rows, note = noise_curve_texts(summaries)
        figure = noise_curves_figure(summaries)
    except UserError as error:
        yield Section(f"Noise curves{over}", (Text(str(error), "warning"),))
        return
    title = "Accuracy (%)" if len(header) > 2 else f"Accuracy (%) of {header[1]}"
    table = Table(title, tuple(header), tuple(map(tuple, rows)), note, numbers=True)
    yield Section(f"Noise curves{over}", (figure, table))
    if len(summaries) < 2:
        return
    if baseline is None:
        text = Text("The baseline has no curve over this strength: there are no differences to it.", "small")
        yield Section(f"Differences{over}", (text,))
        return
    try:
        found = differences(pooled.curves, baseline)
    except UserError as error:
        yield Section(f"Differences to {baseline}{over}", (Text(str(error), "warning"),))
        return
    labels = list(dict.fromkeys(found.frame["label"]))
    levels = sorted(set(found.frame["strength"]))
    cells = {
        (row["label"], row["strength"]): format_difference(row["difference"], row["low"], row["high"])
        for row in found.frame.to_dict("records")
    }
    texts = tuple((f"{level:g}", *(cells.get((label, level), "") for label in labels)) for level in levels)
    table = Table(
        f"Difference to {baseline} (percentage points)",
        (pooled.strength.symbol, *labels),
        texts,
        found.describe_intervals(),
        numbers=True,
    )
    yield Section(f"Differences to {baseline}{over}", (differences_figure(found), table))


def _trainings(runs: Mapping[str, Run]) -> Iterator[Block]:
    learning: dict[str, Figure] = {}
    schedules: dict[str, Figure] = {}
    for name, run in runs.items():
        try:
            metrics = run.metrics()
        except UserError as error:
            yield Text(f"{name} has no learning curves: {error}", "warning")
            continue
        own = next(iter(run.curves().values()), None)
        note = f"run {name}, {run.label}" + ("" if run.seed is None else f", seed {run.seed}")
        menu = f"{name} ({run.label})"
        for figures, make in ((learning, learning_curves_figure), (schedules, schedules_figure)):
            try:
                figures[menu] = (
                    schedules_figure(metrics, own.settings if own else None, note=note)
                    if make is schedules_figure
                    else learning_curves_figure(metrics, note=note)
                )
            except UserError:
                continue
    if learning:
        yield Choice("Learning curves", learning)
    if schedules:
        yield Choice("Noise and learning rate over the training", schedules)
