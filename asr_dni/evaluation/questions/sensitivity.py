"""Which part of a network noise hurts most, and how much noise each part can bear.

A part is a layer at a site, or of these only a gate; the noise there is what it is where the whole network has it, all
other products are exact.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from asr_dni.evaluation.curves.intervals import wilson_interval
from asr_dni.evaluation.measurement.outcomes import Outcomes, OutcomeStore
from asr_dni.evaluation.measurement.sweep import Level, Sweep
from asr_dni.evaluation.questions.summary import last_tolerable
from asr_dni.noise import Noise, Part, Placed

WHOLE = "all"
"""What the table calls the whole network."""

_MOST_LEVELS = 6
_HALVINGS = 7


@dataclass(frozen=True)
class Sensitivity:
    """What is asked: the parts of a network, at some levels of a sweep.

    Attributes:
        sweep: of the whole network; its noise, strength, chips and seed.
        parts: layers at sites.
        gates: of these, where the hardware tells gates apart.
        draws: per part, level and chip.
    """

    sweep: Sweep
    parts: Sequence[Part]
    gates: Sequence[Part]
    draws: int

    @property
    def levels(self) -> list[Level]:
        """Levels with noise, at most six, the first and the last among them; with as many draws as are asked for."""
        noisy = [level for level in self.sweep.levels if level.noise.on]
        places = np.linspace(0, len(noisy) - 1, min(len(noisy), _MOST_LEVELS)).round().astype(int)
        return [replace(noisy[place], draws=min(noisy[place].draws, self.draws)) for place in places]

    @property
    def passes(self) -> int:
        """Passes over each batch, without those of the budget."""
        each = sum(level.chips * level.draws for level in self.levels)
        return each * (len(self.parts) + len(self.gates))


def parts_to_ask(store: OutcomeStore, sweep: Sweep, draws: int) -> Sensitivity:
    """Return which parts a network has on the hardware of a sweep.

    Args:
        store: has the network.
        sweep: of the whole network.
        draws: per part, level and chip.
    """
    hardware = sweep.levels[-1].noise.hardware
    on = next((level.noise.hardware for level in sweep.levels if level.noise.on), hardware)
    gates = store.network.parts(on, gates=True) if on.by_output else []
    return Sensitivity(sweep, store.network.parts(on), gates, draws)


def sensitivity_table(
    store: OutcomeStore,
    asked: Sensitivity,
    clean: float,
    whole: Sequence[Outcomes],
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Measure a network with noise at one part at a time.

    Args:
        store: measures, and keeps what it measured.
        asked: which parts and levels.
        clean: accuracy without noise.
        whole: outcomes of the whole network at the levels of the sweep, for comparison.
        progress: see :meth:`~asr_dni.evaluation.measurement.outcomes.OutcomeStore.outcomes`.

    Returns:
        The table ``sensitivity`` of :data:`~asr_dni.evaluation.questions.folder.TABLES`; intervals are over clips,
        draws included (Wilson).
    """
    rows = []

    def add(name: tuple[str, str, str, str], strength: float, outcomes: Outcomes) -> None:
        accuracy = outcomes.right.double().mean().item()
        low, high = wilson_interval(accuracy, len(outcomes.labels))
        rows.append((*name, strength, accuracy, low, high, clean - accuracy))

    shown = {level.value for level in asked.levels}
    for outcomes in whole:
        if outcomes.strength in shown:
            add((WHOLE, "", "", ""), outcomes.strength, outcomes)
    for part in (*asked.parts, *asked.gates):
        for level in asked.levels:
            its = replace(level, noise=level.noise.only_at(part))
            add(_named(part), level.value, store.outcomes(its, progress))
    columns = ["part", "layer", "site", "gate", "strength", "accuracy", "low", "high", "loss_of_accuracy"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class Budget:
    """How much of a strength each part bears.

    Attributes:
        table: ``budget`` of :data:`~asr_dni.evaluation.questions.folder.TABLES`.
        share: ``together`` is this share of ``alone`` at every part.
        accuracy: with noise at all parts, each at its ``together``: measured.
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
        names = ("share", "accuracy", "low", "high")
        return {f"together_{name}": getattr(self, name) for name in names}


def has_budget(sweep: Sweep) -> bool:
    """Return whether a strength can be split up: at 0 there is no noise, and it takes all numbers above."""
    hardware, strength = sweep.noise.hardware, sweep.strength
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

    Alone it is the largest strength at which accuracy is within ``loss`` of clean, at most the largest that was
    measured. Together every part gets the same share of that; the largest share that keeps accuracy, with noise at all
    parts, is found by halving, to 1 % of the whole, and accuracy at it is measured, not computed.

    Args:
        store: measures, and keeps what it measured.
        asked: which parts and levels. Of a gate only what it bears alone is told: it is a part of a layer's.
        table: what :func:`sensitivity_table` gave.
        clean: accuracy without noise.
        loss: that is tolerated, as a share of 1.
        progress: see :meth:`~asr_dni.evaluation.measurement.outcomes.OutcomeStore.outcomes`.
    """
    strength, noise = asked.sweep.strength, asked.sweep.levels[-1].noise
    alone = {}
    for part in (*asked.parts, *asked.gates):
        own = table[table["part"] == str(part)].sort_values("strength")
        levels = np.array([0.0, *own["strength"]])
        accuracy = np.array([clean, *own["accuracy"]])
        alone[part] = min(last_tolerable(levels, accuracy, clean - loss), float(levels[-1]))

    def together(share: float) -> Outcomes:
        placed = [
            Placed(part, noise.hardware.at(share * alone[part], strength))
            for part in asked.parts
            if alone[part] > 0
        ]
        last = asked.levels[-1]
        return store.outcomes(
            replace(last, value=share, noise=noise.only_at(*placed) if placed else Noise()), progress
        )

    def accuracy_of(outcomes: Outcomes) -> float:
        return outcomes.right.double().mean().item()

    share, found = 1.0, accuracy_of(together(1.0))
    if found < clean - loss - 1e-12:
        share, found, bad = 0.0, clean, 1.0
        for _ in range(_HALVINGS):
            middle = (share + bad) / 2
            accuracy_there = accuracy_of(together(middle))
            if accuracy_there >= clean - loss - 1e-12:
                share, found = middle, accuracy_there
            else:
                bad = middle
    rows = [(*_named(part), value, math.nan if part.gate else share * value) for part, value in alone.items()]
    frame = pd.DataFrame(rows, columns=["part", "layer", "site", "gate", "alone", "together"])
    low, high = wilson_interval(found, len(store.clips))
    return Budget(frame, share, found, low, high)


def _named(part: Part) -> tuple[str, str, str, str]:
    return str(part), part.name, part.site, part.gate


def most_fragile(table: pd.DataFrame) -> str | None:
    """Return the layer and site with the largest loss of accuracy, mean over the strengths; ``None``: there is none."""
    layers = table[(table["part"] != WHOLE) & (table["gate"] == "")]
    if layers.empty:
        return None
    means = layers.groupby("part")["loss_of_accuracy"].mean()
    worst = float(means.max())
    return None if math.isnan(worst) else str(means.index[int(np.argmax(means.to_numpy()))])
