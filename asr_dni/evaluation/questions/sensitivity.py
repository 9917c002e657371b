"""Which part of a network noise hurts most.

A part is a layer at a site, or of these only a gate; the noise there is what it is where the whole network has it, all
other products are exact.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from asr_dni.evaluation.curves.intervals import wilson_interval
from asr_dni.evaluation.measurement.outcomes import Outcomes, OutcomeStore
from asr_dni.evaluation.measurement.sweep import Level, Sweep
from asr_dni.noise import Part

WHOLE = "all"
"""What the table calls the whole network."""

_MOST_LEVELS = 6


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
            add(named(part), level.value, store.outcomes(its, progress))
    columns = ["part", "layer", "site", "gate", "strength", "accuracy", "low", "high", "loss_of_accuracy"]
    return pd.DataFrame(rows, columns=columns)


def named(part: Part) -> tuple[str, str, str, str]:
    """Return a part in one word, and its layer, site and gate."""
    return str(part), part.name, part.site, part.gate


def most_fragile(table: pd.DataFrame) -> str | None:
    """Return the layer and site with the largest loss of accuracy, mean over the strengths; ``None``: there is none."""
    layers = table[(table["part"] != WHOLE) & (table["gate"] == "")]
    if layers.empty:
        return None
    means = layers.groupby("part")["loss_of_accuracy"].mean()
    worst = float(means.max())
    return None if math.isnan(worst) else str(means.index[int(np.argmax(means.to_numpy()))])
