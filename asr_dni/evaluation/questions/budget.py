"""How much noise each part of a network can bear, alone and together with all others."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from asr_dni.evaluation.curves.intervals import wilson_interval
from asr_dni.evaluation.curves.tolerance import is_logarithmic, more_is_better, tolerable_value
from asr_dni.evaluation.measurement.outcomes import OutcomeStore
from asr_dni.evaluation.measurement.sweep import Sweep
from asr_dni.evaluation.questions.sensitivity import Sensitivity, named
from asr_dni.noise import Noise, Part, Placed

_HALVINGS = 7


@dataclass(frozen=True)
class Budget:
    """How much of a strength each part bears.

    Attributes:
        table: ``budget`` of :data:`~asr_dni.evaluation.questions.folder.TABLES`.
        share: ``together`` is this share of the way to ``alone`` at every part; NaN where even at the gentlest measured
            level all parts together lose more.
        accuracy: with noise at all parts, each at its ``together``, or at the gentlest level: measured.
        low: lower end of its interval over clips (Wilson).
        high: upper end.
    """

    table: pd.DataFrame
    share: float
    accuracy: float
    low: float
    high: float

    def settings(self) -> dict[str, Any]:
        """Return all but the table, to be noted with it."""
        values = {name: getattr(self, name) for name in ("share", "accuracy", "low", "high")}
        # JSON has no NaN.
        return {f"together_{name}": None if math.isnan(its) else its for name, its in values.items()}


def has_budget(sweep: Sweep) -> bool:
    """Return whether a strength can be split up: bits and times, and what is no noise at 0 and takes numbers above."""
    hardware, strength = sweep.noise.hardware, sweep.strength
    if more_is_better(strength):
        return True
    if is_logarithmic(strength, np.array(sweep.values)):
        return all(level.noise.on for level in sweep.levels)
    if hardware.counts(strength) or strength.path.endswith(".time"):
        return False
    return not hardware.at(0.0, strength).on and hardware.at(max(sweep.values), strength).on


def noise_budget(
    store: OutcomeStore,
    asked: Sensitivity,
    table: pd.DataFrame,
    clean: float,
    loss: float,
    progress: Callable[[int], None] | None = None,
) -> Budget:
    """Return how much each part bears alone, and a split under which all together stay within the loss.

    Alone it is how far the strength may go with an accuracy within ``loss`` of clean, see
    :func:`~asr_dni.evaluation.curves.tolerance.tolerable_value`, at most as far as was measured. Together every part
    goes the same share of that way, from no noise on; of bits it begins at the most that were measured and takes whole
    numbers, of times at the first one that was measured, by the logarithm. The largest share that keeps accuracy, with
    noise at all parts, is found by halving, to 1 % of the whole, and accuracy at it is measured, not computed.

    Args:
        store: measures, and keeps what it measured.
        asked: which parts and levels. Of a gate only what it bears alone is told: it is a part of a layer's.
        table: what :func:`~asr_dni.evaluation.questions.sensitivity.sensitivity_table` gave.
        clean: accuracy without noise.
        loss: that is tolerated, as a share of 1.
        progress: see :meth:`~asr_dni.evaluation.measurement.outcomes.OutcomeStore.outcomes`.
    """
    strength, last = asked.sweep.strength, asked.levels[-1]
    noise, least = last.noise, clean - loss - 1e-12
    bits, values = more_is_better(strength), np.array(sorted(level.value for level in asked.levels))
    logarithmic = not bits and is_logarithmic(strength, values)
    alone = {}
    for part in (*asked.parts, *asked.gates):
        own = table[table["part"] == str(part)].sort_values("strength")
        levels, accuracy = (own[name].to_numpy(dtype=float) for name in ("strength", "accuracy"))
        if not (bits or logarithmic):  # at 0 it is exact
            levels, accuracy = np.append(0.0, levels), np.append(clean, accuracy)
        alone[part] = min(tolerable_value(strength, levels, accuracy, clean - loss), float(levels[-1]))

    def value_at(part: Part, share: float) -> float:
        its = alone[part]
        if bits:
            most = values[-1]
            return float(most if math.isnan(its) else math.ceil(most - share * (most - its) - 1e-9))
        if logarithmic:
            first = values[0]
            return float(first if math.isnan(its) else first * (its / first) ** share)
        return share * its

    known: dict[tuple[float, ...], float] = {}

    def accuracy_at(share: float) -> float:
        each = tuple(value_at(part, share) for part in asked.parts)
        if each not in known:
            placed = [
                Placed(part, noise.hardware.at(value, strength))
                for part, value in zip(asked.parts, each, strict=True)
                if value > 0
            ]
            level = replace(last, value=share, noise=noise.only_at(*placed) if placed else Noise())
            known[each] = store.outcomes(level, progress).right.double().mean().item()
        return known[each]

    share, found = 1.0, accuracy_at(1.0)
    if found < least:
        share, found, bad = 0.0, accuracy_at(0.0) if bits or logarithmic else clean, 1.0
        for _ in range(_HALVINGS if found >= least else 0):
            middle = (share + bad) / 2
            accuracy_there = accuracy_at(middle)
            if accuracy_there >= least:
                share, found = middle, accuracy_there
            else:
                bad = middle
        share = share if found >= least else math.nan
    rows = [
        (*named(part), its, math.nan if part.gate or math.isnan(share) else value_at(part, share))
        for part, its in alone.items()
    ]
    frame = pd.DataFrame(rows, columns=["part", "layer", "site", "gate", "alone", "together"])
    low, high = wilson_interval(found, len(store.clips))
    return Budget(frame, share, found, low, high)
