"""One step of noisy training, of one network or of K at once, and the recipe that it follows."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from asr_dni.bounds import at_most
from asr_dni.errors import UserError
from asr_dni.model.consistency import Consistency, divergence
from asr_dni.model.distillation import Teachers
from asr_dni.model.network import KeywordNetwork
from asr_dni.nn import DropoutSeed, calibrate, seeded_dropout
from asr_dni.nn.learned_bounds import decay_of_bounds
from asr_dni.nn.modes import in_evaluation_mode
from asr_dni.nn.normalisation import keeping_running_statistics, renew_running_statistics
from asr_dni.noise import SIGMA, Noise, Strength
from asr_dni.philox import derive_key, uniform
from asr_dni.processes import place_among_processes

LearningRateSchedule: TypeAlias = Literal["constant", "linear", "cosine"]

_CALIBRATION_CLIPS = 32
_LARGEST_ALPHA = 1e6
"""Of mixup: all weights are a half to three digits, and sums of squares of far larger ones overflow."""


@dataclass(frozen=True)
class TrainingRecipe:
    """What a network's training does beside its noise and its optimiser.

    Args:
        schedule: the learning rate after the warm-up: ``constant``, or falling to zero as a line or a half cosine.
        warm_up: part of the run in which the learning rate rises linearly from zero.
        label_smoothing: of the cross entropy, in [0, 1).
        mixup: parameter alpha of mixup (H. Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018): in
            training each clip's features and label are mixed with another's of the batch, with a weight from
            Beta(alpha, alpha) that depends on the noise's seed, the step and the place in the batch; 0: off.
        calibrate_every: steps between estimates of the clean signals' size; 0: never, which rules out the scales
            ``signal`` and ``range`` and leaves SNRs unknown.
        consistency: several draws of each clip in a step, which are to agree; null: one.
        sam_rho: how far, as the norm of the change of all weights, sharpness-aware minimisation looks for the highest
            loss near the weights, whose gradient it takes (two passes to a step); 0: off.

    Raises:
        UserError: a value is out of its range.
    """

    schedule: LearningRateSchedule = "cosine"
    warm_up: float = 0.1
    label_smoothing: float = 0.05
    mixup: float = 0.0
    calibrate_every: int = 50
    consistency: Consistency | None = None
    sam_rho: float = 0.0

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "linear", "cosine"):
            raise UserError(f"schedule is {self.schedule!r}: give constant, linear or cosine")
        if not 0 <= self.warm_up < 1:
            raise UserError(f"warm_up is {self.warm_up}: give a part of the run, from 0 to below 1")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing is {self.label_smoothing}: give a number from 0 to below 1")
        if not self.mixup >= 0:
            raise UserError(f"mixup is {self.mixup}: give 0 (off) or more")
        at_most("mixup", self.mixup, _LARGEST_ALPHA)
        if self.calibrate_every < 0:
            raise UserError(f"calibrate_every is {self.calibrate_every}: give 0 (never) or more")
        if not 0 <= self.sam_rho < math.inf:
            raise UserError(f"sam_rho is {self.sam_rho}: give 0 (off) or more")
        if isinstance(self.consistency, Mapping):
            object.__setattr__(self, "consistency", Consistency(**self.consistency))

    @property
    def draws(self) -> int:
        """Noisy forward passes of each clip in a step."""
        return 1 if self.consistency is None else self.consistency.draws

    @property
    def passes(self) -> int:
        """Forward and backward passes of each clip in a step."""
        return self.draws * (2 if self.sam_rho else 1)

    def as_settings(self) -> dict[str, Any]:
        """Return what it is, as plain values; what is off is left out, as in trainings of before there was any."""
        settings = asdict(self)
        for name in ("consistency", "sam_rho"):
            if not settings[name]:
                del settings[name]
        return settings


NoisesOfPass: TypeAlias = Callable[[int], Sequence[Noise]]
"""The noise of each network, one for an ordinary one, in a pass of the training."""


def noisy_step(
    network: KeywordNetwork,
    batch: Any,
    recipe: TrainingRecipe,
    noises: NoisesOfPass,
    step: int,
    drawn: Sequence["DrawnBySample | None"] | None = None,
    teachers: Teachers | None = None,
    follows: bool = True,
) -> tuple[Tensor, Tensor]:
    """Run the forward pass of a training step under noise, or as many as the recipe has draws.

    Noise and dropout of a clip are named by the noise's seed, the pass and the clip's identity. The passes of a
    training count from 0 on; with one to a step, a pass is the step.

    Args:
        network: the network, or K of them.
        batch: ``features`` ``(N, T, F)``, ``labels`` ``(N,)`` and ``clip_ids`` ``(N,)``; of K networks these for all,
            or with a leading axis K.
        recipe: of the training.
        noises: of a pass; draw and samples are those of the step.
        step: that is about to be taken.
        drawn: of each network, what its clips' strengths are drawn from; ``None``: they all have the noise's.
        teachers: of an ordinary network, who hear ``inputs`` of the batch, see
            :class:`asr_dni.data.batch.TrainingBatch`; ``None``: it learns of the labels alone.
        follows: whether running statistics and the size of signals follow the batch.

    Returns:
        Each network's mean loss ``(K,)`` and logits ``(K, N, C)``, of several passes the first one's; K = 1 for an
        ordinary network.
    """
    calibrate_in_training(network, batch.features, step, recipe.calibrate_every if follows else 0)
    features, targets = batch.features, batch.labels
    first = noises(step * recipe.draws)
    weights = None
    if recipe.mixup:
        size = targets.shape[-1]
        weights = torch.stack(
            [mixup_weights(recipe.mixup, noise.realisation.seed, step, size) for noise in first]
        )
        if network.networks is None:
            weights = weights[0]
        features, targets = mix(features, targets, weights.to(features), network.classifier.out_features)
    alone, draws = network.networks is None, []
    # Digital convolutions are the same in all draws.
    shared = recipe.draws > 1 and all(network.frames_exact(noise.hardware) for noise in first)
    frames: Tensor | None = None
    for draw in range(recipe.draws):
        which = step * recipe.draws + draw
        with (
            nullcontext() if follows and draw == 0 else keeping_running_statistics(network),
            _realised(network, noises(which), batch.clip_ids, which, drawn),
        ):
            if shared:
                frames = network.frames(features) if frames is None else frames
                logits = at_least_single(network.answer(frames))
            else:
                logits = at_least_single(network(features))
        draws.append(logits[None] if alone else logits)
    losses = torch.stack([member_losses(logits, targets, recipe.label_smoothing) for logits in draws])
    if teachers is not None:
        mixed = None if weights is None else partial(mix_features, weights=weights)
        soft_labels = teachers.soft_labels(getattr(batch, "inputs", None), mixed)
        pairs = zip(losses, draws, strict=True)
        losses = torch.stack([teachers.losses(loss, logits, soft_labels) for loss, logits in pairs])
    losses = losses.mean(0)
    if recipe.consistency is not None:
        losses = losses + recipe.consistency.weight * divergence(torch.stack(draws))
    decay = decay_of_bounds(network, [noise.hardware for noise in first])
    if decay is not None:  # which has a gradient, and is no part of what is reported
        losses = losses + (decay - decay.detach())
    return losses, draws[0]


@torch.no_grad()
def renew_statistics(
    network: KeywordNetwork,
    batches: Iterable[tuple[int, Any]],
    draws: int,
    noises: NoisesOfPass,
    drawn: Sequence["DrawnBySample | None"] | None = None,
) -> None:
    """Take the running statistics of a network's convolutions anew, on batches of the training.

    They are of what the network meets when it is used: under noise, without dropout and mixup. See
    :func:`asr_dni.nn.normalisation.renew_running_statistics`.

    Args:
        network: without convolutions nothing happens.
        batches: steps, and the batch of each as :func:`noisy_step` has it; without any the statistics stay.
        draws: passes to a step, of which the first one's noise counts.
        noises: see :func:`noisy_step`.
        drawn: see :func:`noisy_step`.
    """
    convolutions = network.convolutions
    if convolutions is None:
        return

    def passes() -> Iterator[int]:
        for step, batch in batches:
            which = step * draws
            with _realised(network, noises(which), batch.clip_ids, which, drawn):
                convolutions(batch.features)
            yield len(batch.labels)

    with in_evaluation_mode(convolutions):
        renew_running_statistics(convolutions, passes())


@contextmanager
def _realised(
    network: KeywordNetwork,
    noises: Sequence[Noise],
    clip_ids: Tensor,
    which: int,
    drawn: Sequence["DrawnBySample | None"] | None,
) -> Iterator[None]:
    """Put a network under noise and dropout of a pass of the training for a block."""
    ids = clip_ids.expand(len(noises), -1)
    of_pass = [noise.realised(draw=which, sample_ids=its) for noise, its in zip(noises, ids, strict=True)]
    if drawn is not None:
        of_pass = [
            noise if between is None else between.of(noise)
            for noise, between in zip(of_pass, drawn, strict=True)
        ]
    dropout = [
        DropoutSeed(noise.realisation.seed, which, its) for noise, its in zip(noises, ids, strict=True)
    ]
    alone = network.networks is None
    with (
        network.under(of_pass[0] if alone else of_pass),
        seeded_dropout(network, dropout[0] if alone else dropout),
    ):
        yield


@dataclass(frozen=True)
class DrawnBySample:
    """A strength that every clip of a batch has of its own, uniform between two values.

    A clip's is a function of the noise's seed, the step and the clip's identity, whatever batch it comes in.

    Attributes:
        start: where the strengths begin.
        end: where they end; also below ``start``.
        strength: of the hardware, which they are values of.
    """

    start: float
    end: float
    strength: Strength = SIGMA

    @property
    def largest(self) -> float:
        """The strength of the noise that clips have shares of."""
        return max(self.start, self.end)

    def of(self, noise: Noise) -> Noise:
        """Return a noise of the largest strength with each clip's share of it.

        Args:
            noise: with the step as its draw, and the clips' identities.
        """
        which = noise.realisation
        assert which.sample_ids is not None
        assert which.draw is not None
        key = derive_key(which.seed, "strength of a clip", which.draw)
        parts = uniform(key, which.sample_ids, 1)[:, 0]
        strengths = self.start + (self.end - self.start) * parts
        shares = strengths / self.largest if self.largest > 0 else strengths
        return noise.realised(shares=shares, shares_of=self.strength)


def at_least_single(logits: Tensor) -> Tensor:
    """Return logits in which a loss can be told apart from its neighbours: half precisions have 3 digits."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def member_losses(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return each network's mean cross entropy ``(K,)``.

    Args:
        logits: ``(K, N, C)``.
        targets: labels ``(N,)`` or ``(K, N)``, or probabilities ``(N, C)`` or ``(K, N, C)``.
        label_smoothing: in [0, 1).
    """
    members, rows, classes = logits.shape
    if targets.is_floating_point():
        targets = targets.expand(members, rows, classes).flatten(0, 1)
    else:
        targets = targets.expand(members, rows).flatten()
    losses: Tensor = functional.cross_entropy(
        logits.flatten(0, 1), targets, label_smoothing=label_smoothing, reduction="none"
    )
    return losses.reshape(members, rows).mean(dim=1)


def calibrate_in_training(network: KeywordNetwork, features: Tensor, step: int, every: int) -> None:
    """Follow the size of the clean signals on 32 clips of a training batch, in every so-many-th step; 0: never.

    With several processes the 32 clips are the first ones of their joint batch, so that all have the estimate that one
    process would have. More than 32 processes take one clip each.

    Args:
        network: the network, or K of them.
        features: ``(*, N, T, F)``.
        step: that is about to be taken.
        every: steps between estimates.
    """
    if every and step % every == 0:
        rank, processes = place_among_processes()
        its_share = max(len(range(rank, _CALIBRATION_CLIPS, processes)), 1)
        clips = features[..., :its_share, :, :]
        calibrate(
            network, [clips], momentum=0.8 if step else 0.0, over_processes=processes > 1, by_batch=True
        )


def mixup_weights(alpha: float, seed: int, step: int, size: int) -> Tensor:
    """Return the weights ``(size,)``, float64 in [0, 1], that a step's clips have in :func:`mix`."""
    random = np.random.default_rng(derive_key(seed, "mixup", step))
    return torch.from_numpy(random.beta(alpha, alpha, size))


def mix(features: Tensor, labels: Tensor, weights: Tensor, n_labels: int) -> tuple[Tensor, Tensor]:
    """Mix each clip with the one at the other end of the batch.

    Args:
        features: ``(*, N, T, F)``.
        labels: ``(*, N)`` positions in the label names.
        weights: ``(*, N)``, each clip's own share. Leading dimensions broadcast.
        n_labels: C.

    Returns:
        Mixed features, and labels as ``(*, N, C)`` probabilities.
    """
    one_hot = functional.one_hot(labels, n_labels).to(features)
    return mix_features(features, weights), torch.lerp(one_hot.flip(-2), one_hot, weights[..., None])


def mix_features(features: Tensor, weights: Tensor) -> Tensor:
    """Return the features of :func:`mix`, ``(*, N, T, F)``, of weights ``(*, N)``."""
    return torch.lerp(features.flip(-3), features, weights[..., None, None].to(features))
