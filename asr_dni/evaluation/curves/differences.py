"""Differences of noise curves to one of them, the baseline: paired over training seeds where both have the same."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import CurveSummary, NoiseCurve, summarise_curves
from asr_dni.evaluation.curves.description import as_summaries
from asr_dni.evaluation.curves.intervals import (
    FEWEST_SEEDS,
    counting_deviation,
    newcombe_interval,
    student_t_interval,
    welch_interval,
)
from asr_dni.wording import count

Method: TypeAlias = Literal["paired", "unpaired", "clips", "none"]
"""How the interval of a difference was made: over differences within seeds (Student), over seeds that do not pair
(Welch), over test clips, of one training each (Newcombe), or not at all: too few seeds."""


@dataclass(frozen=True)
class Differences:
    """Accuracy of several experiments minus that of the baseline.

    Attributes:
        frame: a row per experiment but the baseline and strength: ``label``, ``strength``, ``difference``, ``low``,
            ``high`` (NaN where there is no interval), ``accuracy``, ``baseline_accuracy``, ``n_seeds``,
            ``n_baseline_seeds``, ``n_pairs`` (0 where they do not pair), ``method`` (see :data:`Method`). Accuracies
            and differences are shares of 1; where seeds pair, they are those of the seeds that both have.
        baseline: its label.
        summaries: of all experiments, the baseline among them, by label.
    """

    frame: pd.DataFrame
    baseline: str
    summaries: dict[str, CurveSummary]

    def describe_intervals(self) -> str:
        """Return what the intervals are, each kind once, with the labels that it holds for where they differ."""
        kinds: dict[str, list[str]] = {}
        for label, rows in self.frame.groupby("label", sort=False):
            kinds.setdefault(_interval_text(rows.iloc[0].to_dict()), []).append(str(label))
        if len(kinds) == 1:
            return next(iter(kinds))
        return "; ".join(f"{', '.join(labels)}: {text}" for text, labels in kinds.items())


def differences(experiments: Mapping[str, Sequence[NoiseCurve]], baseline: str) -> Differences:
    """Return the differences of several experiments to one of them, at every strength that both were measured at.

    The same seed gives the same initial weights and order of clips, so that differences within seeds say more than
    those of means: they are taken where both experiments have the same seeds, or at least three in common. A standard
    deviation is taken to be at least that of counting in whole clips, see
    :func:`~asr_dni.evaluation.curves.intervals.counting_deviation`. No interval covers other clips, but that of single
    trainings, which covers nothing else.

    Args:
        experiments: curves by label, in the order in which they are shown: one per training seed each.
        baseline: label of the one that is subtracted.

    Raises:
        UserError: no such label, nothing to compare with it, curves on other axes, two of one seed, or no strength in
            common.
    """
    if baseline not in experiments:
        raise UserError(
            f"there is no {baseline!r} to be the baseline: give one of {', '.join(map(repr, experiments))}"
        )
    if len(experiments) < 2:
        raise UserError(f"{baseline!r} is all there is: give a noise curve to compare with it")
    summaries = as_summaries({label: summarise_curves(curves) for label, curves in experiments.items()})
    base = _Seeds.of(baseline, experiments[baseline])
    rows = [
        row
        for label, curves in experiments.items()
        if label != baseline
        for row in _rows(_Seeds.of(label, curves), base)
    ]
    return Differences(pd.DataFrame(rows), baseline, summaries)


@dataclass(frozen=True)
class _Seeds:
    """The trainings of one experiment."""

    label: str
    seeds: list[object]  # None where not known, N
    accuracy: pd.DataFrame  # a row per strength, a column per training
    summary: CurveSummary

    @classmethod
    def of(cls, label: str, curves: Sequence[NoiseCurve]) -> "_Seeds":
        seeds = [curve.settings.get("seed") for curve in curves]
        known = [seed for seed in seeds if seed is not None]
        if len(set(known)) < len(known):
            twice = next(seed for seed in known if known.count(seed) > 1)
            raise UserError(f"{label}: two curves are of seed {twice}: give one curve per training")
        columns = [curve.frame.groupby("strength")["accuracy"].mean() for curve in curves]
        return cls(label, seeds, pd.concat(columns, axis=1, ignore_index=True), summarise_curves(curves))


def _rows(own: _Seeds, base: _Seeds) -> Iterator[dict[str, object]]:
    levels = [level for level in own.accuracy.index if level in base.accuracy.index]
    if not levels:
        raise UserError(
            f"{own.label} and {base.label} were measured at no {own.summary.strength.word} in common: measure them at"
            " the same"
        )
    pairs = [
        (own.seeds.index(seed), base.seeds.index(seed))
        for seed in own.seeds
        if seed is not None and seed in base.seeds
    ]
    same = len(pairs) == len(own.seeds) == len(base.seeds)
    paired = same or len(pairs) >= FEWEST_SEEDS
    for level in levels:
        values, others = (one.accuracy.loc[level].to_numpy(dtype=float) for one in (own, base))
        if paired:
            values, others = values[[first for first, _ in pairs]], others[[second for _, second in pairs]]
        method, (low, high) = _interval(own, base, float(level), values, others, paired)
        yield {
            "label": own.label,
            "strength": float(level),
            "difference": float(values.mean() - others.mean()),
            "low": low,
            "high": high,
            "accuracy": float(values.mean()),
            "baseline_accuracy": float(others.mean()),
            "n_seeds": len(own.seeds),
            "n_baseline_seeds": len(base.seeds),
            "n_pairs": len(pairs) if paired else 0,
            "method": method,
        }


def _interval(
    own: _Seeds,
    base: _Seeds,
    level: float,
    values: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    others: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    paired: bool,
) -> tuple[Method, tuple[float, float]]:
    of_own, of_base = (
        one.summary.frame[one.summary.frame["strength"] == level].iloc[0] for one in (own, base)
    )
    counting = max(counting_deviation(int(row["n_clips"])) for row in (of_own, of_base))
    if paired and len(values) >= FEWEST_SEEDS:
        within = (values - others).tolist()
        return "paired", student_t_interval(within, least_deviation=math.sqrt(2) * counting)
    if min(len(own.seeds), len(base.seeds)) >= FEWEST_SEEDS:
        return "unpaired", welch_interval(values.tolist(), others.tolist(), least_deviation=counting)
    if len(own.seeds) == len(base.seeds) == 1:
        bounds, other_bounds = ((row["low"], row["high"]) for row in (of_own, of_base))
        return "clips", newcombe_interval(float(values[0]), bounds, float(others[0]), other_bounds)
    return "none", (math.nan, math.nan)


def _interval_text(row: Mapping[object, object]) -> str:
    seeds, base_seeds, pairs = (int(str(row[key])) for key in ("n_seeds", "n_baseline_seeds", "n_pairs"))
    if row["method"] == "paired":
        both = "" if pairs == seeds == base_seeds else " that both have"
        return f"95 % interval over differences within {count(pairs, 'seed')}{both} (Student), on these clips"
    if row["method"] == "unpaired":
        return f"95 % interval over {seeds} and {base_seeds} seeds, which do not pair (Welch), on these clips"
    if row["method"] == "clips":
        return "95 % interval over test clips as if each had its own (Newcombe), of one training each"
    return f"{seeds} and {base_seeds} seeds, too few for an interval"


def format_difference(difference: float, low: float = math.nan, high: float = math.nan) -> str:
    """Return a difference of accuracies in percentage points, with its sign and interval: "+1.2 [−0.3, +2.7]".

    Args:
        difference: share of 1.
        low: lower end of the interval; NaN where there is none.
        high: upper end.
    """
    texts = [f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "−") for value in (difference, low, high)]
    return texts[0] if math.isnan(low) or math.isnan(high) else f"{texts[0]} [{texts[1]}, {texts[2]}]"
