"""The noise curves of a population: K networks evaluated at once, each as it would be alone, and voting."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
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
    Votes,
    evaluating,
    pieces_of,
    rows_within_memory,
)
from asr_dni.evaluation.measurement.sweep import Sweep, check_votes
from asr_dni.nn.stacking import unstack_network
from asr_dni.noise import SIGMA, Hardware, Noise, Strength

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
    sweep = Sweep(levels, draws, noise, strength, chips)
    return evaluate_votes(network, batches, sweep, (1,), None, settings, progress, rows)[1]


def evaluate_votes(
    network: NoisyClassifiers,
    batches: Iterable["Batch"],
    sweep: Sweep,
    votes: Sequence[int],
    compensated: Sequence[Hardware | float | None] | None = None,
    settings: Sequence[Mapping[str, Any]] | None = None,
    progress: Callable[[], None] | None = None,
    rows: int | None = None,
) -> dict[int, list[NoiseCurve]]:
    """Measure the noise curves of every member by single passes and by votes of several, all of the same passes.

    A vote of n is for the label with the largest posterior, averaged over n draws; the draws in their order are cut
    into ``draws // n`` groups of n, so that no two votes share one. Where all draws are the same there is one vote.

    Args:
        network: see :func:`evaluate_population`, as for those that are not said here.
        batches: the clips.
        sweep: hardware, strengths, draws and chips.
        votes: numbers of votes, 1 for single passes.
        compensated: the training's noise that each member's gates are softened for, as
            :meth:`asr_dni.noise.Noise.compensating` takes it; ``None``: no member's.
        settings: what else to note with each member's curve.
        progress: called after every noisy pass over a batch.
        rows: members times clips that are computed at once.

    Returns:
        By number of votes, the curves in the order of the members; a curve's draws are its votes.

    Raises:
        UserError: see :func:`evaluate_population`; or there are fewer draws than votes.
    """
    members = network.networks
    if members is None:
        raise UserError("evaluate_population got an ordinary network: use measure_noise_curve")
    if settings is not None and len(settings) != members:
        raise UserError(f"settings has {len(settings)} entries for {members} members: give one for each")
    if rows is not None and rows < 1:
        raise UserError(f"rows is {rows}: give 1 or more")
    if compensated is not None and len(compensated) != members:
        raise UserError(
            f"compensated has {len(compensated)} entries for {members} members: give one for each"
        )
    votes = check_votes(votes, sweep.draws)
    of_votes = {number: replace(sweep, draws=sweep.draws // number) for number in votes}
    module = cast(nn.Module, network)
    finite = _finite_members(module, members)
    correct = {
        number: torch.zeros(members, len(its.passes), dtype=torch.float64) for number, its in of_votes.items()
    }
    loss = {number: torch.zeros_like(counted) for number, counted in correct.items()}
    n_clips = 0
    of_level = {level.value: level for level in sweep.levels}
    with evaluating(module):
        for batch in batches:
            if rows is None:
                rows = rows_within_memory(network, batch)
            pieces = list(pieces_of(batch, max(1, rows // members)))
            for piece in pieces:
                counted = {number: Votes(number, piece.labels) for number in votes}
                passes = Passes(network, piece.features)
                for value, chip, draw in sweep.passes:
                    level = of_level[value]
                    its = level.noise.realised(chip=chip, draw=draw, sample_ids=piece.clip_ids)
                    # What is not a number has no size, which the scales signal and range would ask for.
                    silent = (its.at(0.0) if its.hardware.has(SIGMA) else its).compensating(None)
                    softened = (
                        [its] * members
                        if compensated is None
                        else [its.compensating(trained) for trained in compensated]
                    )
                    noises = [one if well else silent for one, well in zip(softened, finite, strict=True)]
                    logits = passes.logits(noises)
                    for its_votes in counted.values():
                        its_votes.add(logits, draw, level.draws)
                    if progress is not None and piece is pieces[-1]:
                        progress()
                # One transfer per piece, not one per pass.
                for number, its_votes in counted.items():
                    right, losses = its_votes.scores()
                    correct[number] += right.cpu().double()
                    loss[number] += losses.cpu().double()
            n_clips += int((batch.labels >= 0).sum())
    curves: dict[int, list[NoiseCurve]] = {number: [] for number in votes}
    for member in range(members):
        alone = cast(NoisyClassifier, unstack_network(module, member))
        total = torch.tensor(n_clips, dtype=torch.float64)
        for number, its_sweep in of_votes.items():
            noted = {} if settings is None else dict(settings[member])
            noted |= {} if number == 1 else {"votes": number}
            scores = correct[number][member] / total, loss[number][member] / total
            curves[number].append(assemble_curve(its_sweep, alone, *scores, total, noted))
    return curves


def _finite_members(network: nn.Module, members: int) -> list[bool]:
    well = torch.ones(members, dtype=torch.bool)
    for parameter in network.parameters():
        well &= parameter.detach().isfinite().flatten(1).all(1).cpu()
    return cast(list[bool], well.tolist())
