"""Run a network under computation noise, and count: how a noise curve is measured."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, cast

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from asr_dni.bounds import at_most
from asr_dni.errors import UserError
from asr_dni.evaluation.curve import NoiseCurve
from asr_dni.evaluation.curve_file import COLUMNS
from asr_dni.noise import MVM_SITES, Noise, Site

if TYPE_CHECKING:
    from asr_dni.data.batch import Batch


class NoisyClassifier(Protocol):
    """What a network has to offer to have its noise curve measured (it is a ``torch.nn.Module`` as well)."""

    def project(self, features: Tensor) -> Tensor:
        """Return the noise-free part of the work for features ``(N, T, F)``, the same under any noise."""
        ...

    def classify(self, projection: Tensor) -> Tensor:
        """Return logits ``(N, C)`` of what :meth:`project` returned, under the noise in force."""
        ...

    def under(self, noise: Noise) -> AbstractContextManager[Any]:
        """Set the noise for a block."""
        ...

    def snr_db(self, noise: Noise) -> float | None:
        """Return the signal-to-noise ratio of ``noise`` in dB; ``None`` where it is not known."""
        ...


_MOST_LEVELS = 1_000
_MOST_DRAWS = 10_000


def check_sigmas(sigmas: Sequence[float]) -> tuple[float, ...]:
    """Return noise levels in ascending order.

    Raises:
        UserError: none is given, too many are, one is given twice, negative, or not finite.
    """
    levels = sorted(float(sigma) for sigma in sigmas)
    if not levels:
        raise UserError("sigmas is empty: give at least one noise level, such as [0, 1, 2]")
    at_most("the number of sigmas", len(levels), _MOST_LEVELS)
    wrong = [sigma for sigma in levels if not (math.isfinite(sigma) and sigma >= 0)]
    if wrong:
        raise UserError(f"sigmas contains {wrong[0]}: give finite numbers of at least 0")
    twice = [first for first, second in pairwise(levels) if first == second]
    if twice:
        raise UserError(f"sigmas contains {twice[0]:g} twice: give every noise level once")
    return tuple(levels)


def check_draws(draws: int, name: str = "draws") -> int:
    """Return the number of draws.

    Raises:
        UserError: it is not positive, or too large.
    """
    if draws < 1:
        raise UserError(f"{name} is {draws}: give at least 1")
    at_most(name, draws, _MOST_DRAWS)
    return draws


def check_sites(
    sites: Sequence[Site], sigmas: Sequence[float], names: tuple[str, str] = ("sites", "sigmas [0]")
) -> None:
    """Check that a noise level above 0 has somewhere to enter.

    Args:
        sites: where the noise enters.
        sigmas: its levels.
        names: what a message calls the setting of the sites, and that of no noise.

    Raises:
        UserError: there are levels above 0, but no sites: every draw would be the same noiseless pass.
    """
    if not sites and any(sigma > 0 for sigma in sigmas):
        raise UserError(
            f"{names[0]} is empty, so there is no noise to measure at sigma {max(sigmas):g}: give some, such as"
            f" [{','.join(MVM_SITES)}], or {names[1]}"
        )


def fingerprint(network: nn.Module) -> str:
    """Return 16 hexadecimal digits that tell a network's weights and buffers from any others."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(network.state_dict().items()):
        if not isinstance(value, Tensor):
            continue
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def count_passes(sigmas: Sequence[float], draws: int) -> int:
    """Return how many noisy passes one batch takes: ``draws`` per level, but one at sigma 0."""
    return sum(draws if sigma > 0 else 1 for sigma in sigmas)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode without gradients; afterwards every module is in its mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


class NoiseCurveMetric(Metric):
    """Counts correct answers and sums losses per noise level and draw, batch by batch.

    The noise of a clip depends on the noise's seed, the draw and the clip's identity alone, so the result
    does not depend on batch size or order, nor on which process of several sees which clip; the global random
    generators are not touched. Memory does not grow with the number of clips. In distributed runs
    :meth:`compute` sums over processes, as every torchmetrics metric does.

    Args:
        sigmas: noise levels.
        draws: realisations of the noise per level; sigma 0, where all are the same, takes one.
        noise: seed, scale and sites; its ``sigma``, ``draw`` and ``sample_ids`` are replaced.

    Raises:
        UserError: a level or the number of draws is out of range, or the noise has no sites.
    """

    full_state_update = False
    correct: Tensor
    loss: Tensor
    n_clips: Tensor

    def __init__(self, sigmas: Sequence[float], draws: int, noise: Noise) -> None:
        super().__init__()
        self.sigmas = check_sigmas(sigmas)
        self.draws = check_draws(draws)
        check_sites(noise.hardware.sites, self.sigmas)
        self.noise = noise
        self.passes = [
            (sigma, draw) for sigma in self.sigmas for draw in range(self.draws if sigma > 0 else 1)
        ]
        zeros = torch.zeros(len(self.passes), dtype=torch.float64)
        self.add_state("correct", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("loss", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("n_clips", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, network: NoisyClassifier, batch: "Batch", progress: Callable[[], None] | None = None
    ) -> None:
        """Run one batch through every level and draw; the noise-free work is done once.

        Args:
            network: the network; its modes and noise are afterwards what they were.
            batch: features ``(N, T, F)``, labels ``(N,)``, clip_ids ``(N,)`` on the network's device. Clips
                labelled -1, whose word the network does not know, are left out.
            progress: called after every pass, :func:`count_passes` times.
        """
        correct, losses = [], []
        with evaluating(cast(nn.Module, network)):
            projection = network.project(batch.features)
            for sigma, draw in self.passes:
                noise = self.noise.at(sigma).realised(draw=draw, sample_ids=batch.clip_ids)
                with network.under(noise):
                    logits = network.classify(projection).float()
                right, loss = score(logits, batch.labels)
                correct.append(right)
                losses.append(loss)
                if progress is not None:
                    progress()
        # One transfer per batch, not one per pass.
        self.correct += torch.stack(correct).to(self.correct.device).double()
        self.loss += torch.stack(losses).to(self.loss.device).double()
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
        return self.assemble(network, *self.compute(), settings)

    def assemble(
        self,
        network: NoisyClassifier,
        accuracy: Tensor,
        loss: Tensor,
        n_clips: Tensor,
        settings: Mapping[str, Any] | None = None,
    ) -> NoiseCurve:
        """Return a noise curve of what :meth:`compute` gives, though it was computed elsewhere.

        Args:
            network: see :meth:`curve`.
            accuracy: ``(passes,)``.
            loss: ``(passes,)``.
            n_clips: ``()``.
            settings: see :meth:`curve`.

        Raises:
            UserError: there are no clips.
        """
        accuracy, loss, n_clips = accuracy.cpu(), loss.cpu(), n_clips.cpu()
        if n_clips == 0:  # asked of the sum: one process of several may have none
            raise UserError("the noise curve has no clips: the split to evaluate is empty")
        snr = {sigma: _snr_db(network, self.noise, sigma) for sigma in self.sigmas}
        frame = pd.DataFrame(
            {
                "strength": [sigma for sigma, _ in self.passes],
                "chip": 0,
                "draw": [draw for _, draw in self.passes],
                "snr_db": [snr[sigma] for sigma, _ in self.passes],
                "accuracy": accuracy.numpy(),
                "loss": loss.numpy(),
                "n_clips": int(n_clips),
            },
            columns=list(COLUMNS),
        )
        noted = {
            "scale": self.noise.hardware.scale,
            "sites": list(self.noise.hardware.sites),
            "arrays": self.noise.hardware.arrays,
            "noise_seed": self.noise.realisation.seed,
            "draws": self.draws,
            "weights": fingerprint(cast(nn.Module, network)),
        }
        return NoiseCurve(frame, noted | dict(settings or {}))


def score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of correct answers and the sum of the cross entropies, in nats.

    Args:
        logits: ``(*, N, C)``.
        labels: ``(N,)``; clips labelled -1 are left out.

    Returns:
        Two tensors ``(*)``.
    """
    correct = (logits.argmax(dim=-1) == labels).sum(-1)
    targets = labels.expand(logits.shape[:-1]).reshape(-1)
    losses = F.cross_entropy(logits.flatten(0, -2), targets, reduction="none", ignore_index=-1)
    return correct, losses.view(logits.shape[:-1]).sum(-1)


def _snr_db(network: NoisyClassifier, noise: Noise, sigma: float) -> float:
    if sigma == 0:
        return math.inf
    snr = network.snr_db(noise.at(sigma))
    return math.nan if snr is None else float(snr)


def measure_noise_curve(
    network: NoisyClassifier,
    batches: Iterable["Batch"],
    sigmas: Sequence[float],
    draws: int,
    noise: Noise,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[], None] | None = None,
) -> NoiseCurve:
    """Measure accuracy and loss under every noise level, ``draws`` times each.

    The noise-free work, the features (already in the batches) and the first input projection, is done once
    per batch. The result depends on the noise's seed and on the clips, not on batch size or order, but for
    the rounding of sums.

    Args:
        network: the network, on the batches' device; its modes and noise are afterwards what they were.
        batches: the clips to evaluate.
        sigmas: noise levels, in any order.
        draws: realisations of the noise per level.
        noise: seed, scale and sites; its ``sigma``, ``draw`` and ``sample_ids`` are replaced.
        settings: what else to note with the curve, see :class:`NoiseCurve`.
        progress: called after every noisy pass over a batch; there are :func:`count_passes` per batch.

    Returns:
        The noise curve.

    Raises:
        UserError: a level or the number of draws is out of range, the noise has no sites, or there are no clips.
    """
    metric = NoiseCurveMetric(sigmas, draws, noise)
    for batch in batches:
        metric.update(network, batch, progress)
    return metric.curve(network, settings)
