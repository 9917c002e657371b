"""Run a network under computation noise, and count: how a noise curve is measured."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.curves.curve_file import COLUMNS
from asr_dni.evaluation.measurement.running import LevelRunner
from asr_dni.evaluation.measurement.scoring import (
    NoisyClassifier,
    Passes,
    evaluating,
    fingerprint,
    score,
)
from asr_dni.evaluation.measurement.sweep import Sweep
from asr_dni.noise import SIGMA, Noise, Strength

if TYPE_CHECKING:
    from asr_dni.data.batch import Batch


class NoiseCurveMetric(Metric):
    """Counts correct answers and sums losses per level, chip and draw, batch by batch.

    The noise of a clip depends on the noise's seed, the chip, the draw and the clip's identity alone, so the result
    does not depend on batch size or order, nor on which process of several sees which clip; the global random
    generators are not touched. Memory does not grow with the number of clips. In distributed runs
    :meth:`compute` sums over processes, as every torchmetrics metric does.

    Several chips of a network are measured as a population of as many networks.

    Args:
        levels: values of the strength.
        draws: realisations of the noise per level and chip; where all are the same, as at sigma 0, it takes one.
        noise: hardware and seed; its strength, ``chip``, ``draw`` and ``sample_ids`` are replaced.
        strength: which of the hardware's numbers is swept.
        chips: of the network, where weights differ from chip to chip.

    Attributes:
        sweep: all of this.

    Raises:
        UserError: see :class:`~asr_dni.evaluation.measurement.sweep.Sweep`.
    """

    full_state_update = False
    correct: Tensor
    loss: Tensor
    n_clips: Tensor

    def __init__(
        self,
        levels: Sequence[float],
        draws: int,
        noise: Noise,
        strength: Strength = SIGMA,
        chips: int = 1,
    ) -> None:
        super().__init__()
        self.sweep = Sweep(levels, draws, noise, strength, chips)
        zeros = torch.zeros(len(self.sweep.passes), dtype=torch.float64)
        self.add_state("correct", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("loss", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("n_clips", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self._runners: list[LevelRunner] = []

    def update(
        self, network: NoisyClassifier, batch: "Batch", progress: Callable[[], None] | None = None
    ) -> None:
        """Run one batch through every level, chip and draw; what passes have in common is done once.

        Args:
            network: the network; its modes and noise are afterwards what they were. Of several chips it is copied, once
                for all batches.
            batch: features ``(N, T, F)``, labels ``(N,)``, clip_ids ``(N,)`` on the network's device. Clips
                labelled -1, whose word the network does not know, are left out.
            progress: called after every pass, :func:`~asr_dni.evaluation.measurement.sweep.count_passes` times.
        """
        if not self._runners or self._runners[0].network is not network:
            self._runners = [LevelRunner(network)]
        levels = self.sweep.levels
        zeros = batch.features.new_zeros
        right = [zeros(level.chips, level.draws, dtype=torch.float64) for level in levels]
        loss = [torch.zeros_like(its) for its in right]
        with evaluating(cast(nn.Module, network)):
            passes = Passes(network, batch.features)
            for its in self._runners[0].run(levels, batch, passes):
                chips = slice(its.chips.start, its.chips.stop)
                counted, lost = score(its.logits, batch.labels[its.clips])
                right[its.level][chips, its.draw] += counted
                loss[its.level][chips, its.draw] += lost
                if progress is not None and its.last:
                    for _ in its.chips:
                        progress()
        # One transfer per batch, not one per pass.
        self.correct += torch.cat([its.flatten() for its in right]).to(self.correct.device)
        self.loss += torch.cat([its.flatten() for its in loss]).to(self.loss.device)
        self.n_clips += (batch.labels >= 0).sum().to(self.n_clips.device)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return accuracy ``(passes,)``, mean cross entropy in nats ``(passes,)``, number of clips ``()``."""
        return self.correct / self.n_clips, self.loss / self.n_clips, self.n_clips

    def curve(self, network: NoisyClassifier, settings: Mapping[str, Any] | None = None) -> NoiseCurve:
        """Return what was measured so far.

        Args:
            network: is asked for the SNR of every level.
            settings: what else to note with the curve, see :class:`NoiseCurve`.

        Raises:
            UserError: no clip was seen.
        """
        return assemble_curve(self.sweep, network, *self.compute(), settings)


def assemble_curve(
    sweep: Sweep,
    network: NoisyClassifier,
    accuracy: Tensor,
    loss: Tensor,
    n_clips: Tensor,
    settings: Mapping[str, Any] | None = None,
) -> NoiseCurve:
    """Return a noise curve of what was counted in the passes of a sweep.

    Args:
        sweep: what was measured.
        network: is asked for the SNR of every level.
        accuracy: ``(passes,)``.
        loss: ``(passes,)``.
        n_clips: ``()``.
        settings: what else to note with the curve, see :class:`NoiseCurve`.

    Raises:
        UserError: there are no clips.
    """
    accuracy, loss, n_clips = accuracy.cpu(), loss.cpu(), n_clips.cpu()
    if n_clips == 0:  # asked of the sum: one process of several may have none
        raise UserError("the noise curve has no clips: the split to evaluate is empty")
    snr = {level.value: _snr_db(network, level.noise) for level in sweep.levels}
    values, chips, draws = zip(*sweep.passes, strict=True)
    frame = pd.DataFrame(
        {
            "strength": values,
            "chip": chips,
            "draw": draws,
            "snr_db": [snr[value] for value in values],
            "accuracy": accuracy.numpy(),
            "loss": loss.numpy(),
            "n_clips": int(n_clips),
        },
        columns=list(COLUMNS),
    )
    return NoiseCurve(frame, settings_of(sweep, network) | dict(settings or {}))


def settings_of(sweep: Sweep, network: NoisyClassifier) -> dict[str, Any]:
    """Return what is noted of a sweep and of the network that it is of."""
    return {**sweep.settings(), "weights": fingerprint(cast(nn.Module, network))}


def _snr_db(network: NoisyClassifier, noise: Noise) -> float:
    if not noise.on:
        return math.inf
    snr = network.snr_db(noise)
    return math.nan if snr is None else float(snr)


def measure_noise_curve(
    network: NoisyClassifier,
    batches: Iterable["Batch"],
    levels: Sequence[float],
    draws: int,
    noise: Noise,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[], None] | None = None,
    strength: Strength = SIGMA,
    chips: int = 1,
) -> NoiseCurve:
    """Measure accuracy and loss at every value of a strength, ``draws`` times each.

    The work that no noise changes, the features (already in the batches) and, where the hardware leaves it exact, the
    first input projection, is done once per batch. The result depends on the noise's seed and on the clips, not on
    batch size or order, but for the rounding of sums.

    Args:
        network: the network, on the batches' device; its modes and noise are afterwards what they were.
        batches: the clips to evaluate.
        levels: values of the strength, in any order.
        draws: realisations of the noise per level and chip.
        noise: hardware and seed; its strength, ``chip``, ``draw`` and ``sample_ids`` are replaced.
        settings: what else to note with the curve, see :class:`NoiseCurve`.
        progress: called after every noisy pass over a batch; there are
            :func:`~asr_dni.evaluation.measurement.sweep.count_passes` per batch.
        strength: which of the hardware's numbers is swept; by default the sigma of the output noise.
        chips: of the network, where weights differ from chip to chip; they are measured as one population.

    Returns:
        The noise curve.

    Raises:
        UserError: a level, the number of draws or of chips is out of range, the hardware has no such strength or no
            sites, or there are no clips.
    """
    metric = NoiseCurveMetric(levels, draws, noise, strength, chips)
    for batch in batches:
        metric.update(network, batch, progress)
    return metric.curve(network, settings)
