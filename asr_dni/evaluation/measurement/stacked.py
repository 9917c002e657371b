"""The noise curves of a population: K networks evaluated at once, each as it would be alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.measurement.measuring import assemble_curve
from asr_dni.evaluation.measurement.scoring import (
    NoisyClassifier,
    NoisyClassifiers,
    Passes,
    evaluating,
    pieces_of,
    rows_within_memory,
    score,
)
from asr_dni.evaluation.measurement.sweep import Sweep
from asr_dni.nn.stacking import unstack_network
from asr_dni.noise import SIGMA, Noise, Strength

if TYPE_CHECKING:
    from asr_dni.data.batch import Batch


def evaluate_population(
    network: NoisyClassifiers,
    batches: Iterable["Batch"],
    levels: Sequence[float],
    draws: int,
    noise: Noise,
    settings: Sequence[Mapping[str, Any]] | None = None,
    progress: Callable[[], None] | None = None,
    rows: int | None = None,
    strength: Strength = SIGMA,
    chips: int = 1,
) -> list[NoiseCurve]:
    """Measure the noise curve of every member at once.

    Each is what :func:`~asr_dni.evaluation.measure_noise_curve` gives for the member alone, with the same noise:
    all members see the same draws of it. A member whose weights are not finite gets a curve as well.

    Args:
        network: K networks in one, on the batches' device; their modes and noise are afterwards what they were.
        batches: the clips to evaluate, the same for all members.
        levels: values of the strength, in any order.
        draws: realisations of the noise per level and chip.
        noise: hardware and seed; its strength, ``chip``, ``draw`` and ``sample_ids`` are replaced.
        settings: what else to note with each member's curve, see :class:`~asr_dni.evaluation.curves.curve.NoiseCurve`.
        progress: called after every noisy pass over a batch;
            :func:`~asr_dni.evaluation.measurement.sweep.count_passes` times per batch.
        rows: members times clips that are computed at once, for memory grows with it; the result does not depend on it.
            ``None``: as many as keep what :meth:`NoisyClassifiers.project` gives within 256 MiB.
        strength: which of the hardware's numbers is swept.
        chips: of every member, where weights differ from chip to chip; all members are on the same ones.

    Returns:
        The curves, in the order of the members.

    Raises:
        UserError: a level or the number of draws is out of range, the noise has no sites, there are no clips, or the
            network is an ordinary one.
    """
    members = network.networks
    if members is None:
        raise UserError("evaluate_population got an ordinary network: use measure_noise_curve")
    if settings is not None and len(settings) != members:
        raise UserError(f"settings has {len(settings)} entries for {members} members: give one for each")
    if rows is not None and rows < 1:
        raise UserError(f"rows is {rows}: give 1 or more")
    sweep = Sweep(levels, draws, noise, strength, chips)
    module = cast(nn.Module, network)
    finite = _finite_members(module, members)
    correct = torch.zeros(members, len(sweep.passes), dtype=torch.float64)
    loss = torch.zeros_like(correct)
    n_clips = 0
    of_level = {level.value: level.noise for level in sweep.levels}
    with evaluating(module):
        for batch in batches:
            if rows is None:
                rows = rows_within_memory(network, batch)
            pieces = list(pieces_of(batch, max(1, rows // members)))
            for piece in pieces:
                scores = []
                passes = Passes(network, piece.features)
                for value, chip, draw in sweep.passes:
                    its = of_level[value].realised(chip=chip, draw=draw, sample_ids=piece.clip_ids)
                    # What is not a number has no size, which the scales signal and range would ask for.
                    silent = (its.at(0.0) if its.hardware.has(SIGMA) else its).compensating(None)
                    noises = [its if well else silent for well in finite]
                    scores.append(score(passes.logits(noises), piece.labels))
                    if progress is not None and piece is pieces[-1]:
                        progress()
                # One transfer per piece, not one per pass.
                right, losses = (torch.stack(values, dim=1) for values in zip(*scores, strict=True))
                correct += right.cpu().double()
                loss += losses.cpu().double()
            n_clips += int((batch.labels >= 0).sum())
    curves = []
    for member in range(members):
        alone = cast(NoisyClassifier, unstack_network(module, member))
        noted = None if settings is None else settings[member]
        total = torch.tensor(n_clips, dtype=torch.float64)
        curves.append(
            assemble_curve(sweep, alone, correct[member] / total, loss[member] / total, total, noted)
        )
    return curves


def _finite_members(network: nn.Module, members: int) -> list[bool]:
    well = torch.ones(members, dtype=torch.bool)
    for parameter in network.parameters():
        well &= parameter.detach().isfinite().flatten(1).all(1).cpu()
    return cast(list[bool], well.tolist())
