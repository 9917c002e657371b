"""The noise curves of a population: K networks evaluated at once, each as it would be alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.evaluation.curve import NoiseCurve
from asr_dni.evaluation.measuring import NoiseCurveMetric, NoisyClassifier, evaluating, score
from asr_dni.nn.stacking import unstack_network
from asr_dni.noise import Noise

if TYPE_CHECKING:
    from asr_dni.data.batch import Batch


_PROJECTED_BYTES = 2**28


class NoisyClassifiers(Protocol):
    """What K networks in one have to offer (they are a ``torch.nn.Module`` as well).

    See :func:`asr_dni.nn.stacking.stack_networks`, and :class:`~asr_dni.evaluation.measuring.NoisyClassifier` for
    one network.
    """

    networks: int | None

    def project(self, features: Tensor) -> Tensor:
        """Return the noise-free part of the work for features ``(N, T, F)`` that all networks get."""
        ...

    def classify(self, projection: Tensor) -> Tensor:
        """Return logits ``(K, N, C)`` of what :meth:`project` returned, under the noise in force."""
        ...

    def under(self, noise: Noise | Sequence[Noise]) -> AbstractContextManager[Any]:
        """Set the noise for a block, one for all or one for each."""
        ...


def evaluate_population(
    network: NoisyClassifiers,
    batches: Iterable["Batch"],
    sigmas: Sequence[float],
    draws: int,
    noise: Noise,
    settings: Sequence[Mapping[str, Any]] | None = None,
    progress: Callable[[], None] | None = None,
    rows: int | None = None,
) -> list[NoiseCurve]:
    """Measure the noise curve of every member at once.

    Each is what :func:`~asr_dni.evaluation.measuring.measure_noise_curve` gives for the member alone, with the same
    noise: all members see the same draws of it. A member whose weights are not finite gets a curve as well.

    Args:
        network: K networks in one, on the batches' device; their modes and noise are afterwards what they were.
        batches: the clips to evaluate, the same for all members.
        sigmas: noise levels, in any order.
        draws: realisations of the noise per level.
        noise: seed, scale and sites; its ``sigma``, ``draw`` and ``sample_ids`` are replaced.
        settings: what else to note with each member's curve, see :class:`~asr_dni.evaluation.curve.NoiseCurve`.
        progress: called after every noisy pass over a batch;
            :func:`~asr_dni.evaluation.measuring.count_passes` times per batch.
        rows: members times clips that are computed at once, for memory grows with it; the result does not depend on it.
            ``None``: as many as keep what :meth:`NoisyClassifiers.project` gives within 256 MiB.

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
    metric = NoiseCurveMetric(sigmas, draws, noise)
    module = cast(nn.Module, network)
    finite = _finite_members(module, members)
    correct = torch.zeros(members, len(metric.passes), dtype=torch.float64)
    loss = torch.zeros_like(correct)
    n_clips = 0
    with evaluating(module):
        for batch in batches:
            if rows is None:
                one = network.project(batch.features[:1])
                rows = _PROJECTED_BYTES * members // max(1, one.numel() * one.element_size())
            pieces = list(_pieces(batch, max(1, rows // members)))
            for piece in pieces:
                scores = []
                projection = network.project(piece.features)
                for sigma, draw in metric.passes:
                    its = noise.at(sigma).realised(draw=draw, sample_ids=piece.clip_ids)
                    # What is not a number has no size, which the scales signal and range would ask for.
                    noises = [its if well else its.at(0.0) for well in finite]
                    with network.under(noises):
                        scores.append(score(network.classify(projection).float(), piece.labels))
                    if progress is not None and piece is pieces[-1]:
                        progress()
                # One transfer per piece, not one per pass.
                right, losses = (torch.stack(values, dim=1) for values in zip(*scores, strict=True))
                correct += right.cpu().double()
                loss += losses.cpu().double()
            n_clips += int((batch.labels >= 0).sum())
    curves = []
    for member in range(members):
        alone = unstack_network(module, member)
        noted = None if settings is None else settings[member]
        total = torch.tensor(n_clips, dtype=torch.float64)
        curves.append(
            metric.assemble(
                cast(NoisyClassifier, alone), correct[member] / total, loss[member] / total, total, noted
            )
        )
    return curves


def _finite_members(network: nn.Module, members: int) -> list[bool]:
    well = torch.ones(members, dtype=torch.bool)
    for parameter in network.parameters():
        well &= parameter.detach().isfinite().flatten(1).all(1).cpu()
    return cast(list[bool], well.tolist())


def _pieces(batch: "Batch", size: int) -> Iterator["Batch"]:
    parts = (torch.split(tensor, size) for tensor in (batch.features, batch.labels, batch.clip_ids))
    return (type(batch)(*piece) for piece in zip(*parts, strict=True))
