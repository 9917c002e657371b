"""What a network decides on a clip while it hears it: posteriors after each frame, in several noisy passes."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from asr_dni.data.store import clip_id
from asr_dni.errors import UserError
from asr_dni.evaluation.measurement.scoring import evaluating
from asr_dni.evaluation.measurement.sweep import check_draws
from asr_dni.inference.spotter import Spotter
from asr_dni.noise import Noise


@dataclass(frozen=True)
class DecisionOverTime:
    """A decision on a clip as it comes about.

    Attributes:
        posteriors: ``(D, T, C)`` float64: of every pass after every frame, as if the clip had ended there, the
            probability of every label. The last frame's are the decision's.
        label_names: C labels.
    """

    posteriors: Tensor
    label_names: tuple[str, ...]

    @property
    def mean(self) -> Tensor:
        """``(T, C)``: the mean over the passes, as voting takes it."""
        return self.posteriors.mean(0)

    @property
    def label(self) -> str:
        """What is decided in the end, by the mean over the passes."""
        return self.label_names[int(self.mean[-1].argmax())]

    @property
    def posterior(self) -> float:
        """The probability of :attr:`label` in that mean."""
        return float(self.mean[-1].max())

    @property
    def votes(self) -> dict[str, int]:
        """How many passes decide on each label by themselves, the most frequent first."""
        decided = self.posteriors[:, -1].argmax(-1).tolist()
        return {self.label_names[label]: number for label, number in Counter(decided).most_common()}


def decide_over_time(
    spotter: Spotter, features: Tensor, noise: Noise, draws: int = 1, name: str | int = 0
) -> DecisionOverTime:
    """Run a network on one clip, and return what it would decide after each frame.

    Pass k is draw k of the noise and, where weights differ from chip to chip, chip k. The passes are those of
    :meth:`Spotter.predict` and of a noise curve under the same noise and seed, for the same clip.

    Args:
        spotter: the network.
        features: ``(T, F)``, as the network gets them.
        noise: hardware and seed; its ``chip``, ``draw`` and ``sample_ids`` are replaced.
        draws: noisy passes; where all would be the same one is enough, and is taken.
        name: of the clip, which its noise belongs to, or the identity that :func:`asr_dni.data.store.clip_id` makes of
            it.

    Raises:
        UserError: the features are not those of one clip, or what the network answers are no numbers.
    """
    check_draws(draws)
    if features.dim() != 2 or features.shape[1] != spotter.network.n_features or not len(features):
        raise UserError(
            f"features are {tuple(features.shape)}: give those of one clip, (T, {spotter.network.n_features})"
        )
    identity = clip_id(name) if isinstance(name, str) else name
    ids = torch.tensor([identity], device=spotter.device)
    clip = features[None].to(spotter.device, torch.float32)
    hardware = noise.hardware
    passes = draws if hardware.random or hardware.has_chips else 1
    network, found = spotter.network, []
    with evaluating(network):
        projection = network.project(clip) if network.inputs_exact(hardware) else None
        for number in range(passes):
            chip = number if hardware.has_chips else 0
            with network.under(noise.realised(draw=number, chip=chip, sample_ids=ids)):
                logits = (
                    network.logits_over_time(clip)
                    if projection is None
                    else network.classify_over_time(projection)
                )
            found.append(logits[:, 0].double().softmax(-1))
    posteriors = torch.stack(found).cpu()
    if not posteriors.isfinite().all():
        raise UserError("the network answers with values that are not finite numbers")
    return DecisionOverTime(posteriors, tuple(spotter.label_names))
