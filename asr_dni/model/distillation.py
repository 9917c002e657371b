"""Distillation: a network learns the soft labels of trained ones, which hear the same clips without noise."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_dni.checkpoint import NamedCheckpoint, read_checkpoint
from asr_dni.errors import UserError
from asr_dni.models import find_checkpoint


@dataclass(frozen=True)
class Distillation:
    """Trained networks whose answers a network learns beside the labels (G. Hinton et al., arXiv:1503.02531).

    With z the logits of a noisy pass of the network, q the mean over the teachers of the softmax of their clean logits
    over the temperature T, and w the weight, a clip's loss is

        (1 - w) cross_entropy(label, z) + w T^2 KL(q || softmax(z / T)).

    The teachers hear the clips as they are augmented for the network, each through its own front end and normalisation,
    without SpecAugment's masks, noise and dropout. With mixup they hear the same mixtures.

    Args:
        teachers: one or more checkpoints that asr-dni fit wrote, or names of packaged networks. They are needed to
            train and to resume, not to use what was trained.
        weight: w, above 0 and up to 1.
        temperature: T, above 0.

    Raises:
        UserError: a value is out of its range, or there is no teacher.
    """

    teachers: list[str]
    weight: float = 0.9
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not self.teachers:
            raise UserError(
                "distillation.teachers is empty: give at least one checkpoint, or no distillation"
            )
        if not 0 < self.weight <= 1:
            raise UserError(f"distillation.weight is {self.weight}: give a number above 0 and up to 1")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"distillation.temperature is {self.temperature}: give a number above 0")


class _Trained(Protocol):
    """A trained spotter, as far as a teacher is made of it."""

    label_names: list[str]
    network: Any


class Teachers:
    """The teachers of a training, who are never trained themselves, nor part of what is trained.

    Args:
        settings: of the distillation.
        networks: one for each teacher; features ``(N, T, F)`` in, logits ``(N, C)`` out.
        front_ends: one for each; what makes a network's features of ``inputs`` of
            :class:`~asr_dni.data.batch.TrainingBatch`.
        digests: of the teachers' files.
    """

    def __init__(
        self,
        settings: Distillation,
        networks: Sequence[nn.Module],
        front_ends: Sequence[nn.Module],
        digests: Sequence[str],
    ) -> None:
        self._settings = settings
        self._networks = nn.ModuleList(networks).eval().requires_grad_(False)
        self._front_ends = nn.ModuleList(front_ends).eval()
        self._digests = list(digests)

    @classmethod
    def read(
        cls,
        settings: Distillation,
        label_names: Sequence[str],
        data: Any,
        rebuild: Callable[[NamedCheckpoint], _Trained],
    ) -> Self:
        """Read the teachers' checkpoints.

        Args:
            settings: of the distillation.
            label_names: those of the network that learns of them.
            data: its data module, see :meth:`asr_dni.data.SplitData.features_as_in`.
            rebuild: makes a spotter of a checkpoint's contents.

        Raises:
            UserError: a file is missing or is not a checkpoint, or its network knows other labels or hears other data.
        """
        features_as_in = getattr(data, "features_as_in", None)
        if features_as_in is None:
            raise UserError(
                "model distillation: what the teachers hear comes from a data module such as KeywordData; give one"
            )
        networks, front_ends, digests = [], [], []
        for given in settings.teachers:
            try:
                contents = NamedCheckpoint(read_checkpoint(given), given)
                trained = rebuild(contents)
                if trained.label_names != list(label_names):
                    raise UserError(
                        f"{given}: knows the labels {', '.join(trained.label_names)}, but the network to train has"
                        f" {', '.join(label_names)}; give a teacher of the same labels"
                    )
                front_ends.append(features_as_in(contents))
            except UserError as error:
                raise UserError(f"model distillation.teachers: {error}") from error
            networks.append(trained.network)
            with find_checkpoint(given).open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest()[:12])
        return cls(settings, networks, front_ends, digests)

    def __deepcopy__(self, memo: Any) -> Self:
        """Return this one: copies of a network in training, such as its average, have the same teachers."""
        return self

    def settings(self) -> dict[str, Any]:
        """Return what tells trainings apart: the teachers by what is in their files, wherever these lie."""
        names = [Path(given).name for given in self._settings.teachers]
        return {
            "teachers": [f"{name} ({digest})" for name, digest in zip(names, self._digests, strict=True)],
            "weight": self._settings.weight,
            "temperature": self._settings.temperature,
        }

    @torch.no_grad()
    def soft_labels(self, inputs: Tensor | None, mixed: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return the teachers' mean probabilities at the temperature, ``(N, C)`` float32.

        They compute in float32, whatever the precision of the training.

        Args:
            inputs: what features are made of, of :class:`~asr_dni.data.batch.TrainingBatch`.
            mixed: what mixup makes of features ``(N, T, F)``; ``None``: there is none.

        Raises:
            UserError: the batch has no inputs.
        """
        if inputs is None:
            raise UserError(
                "model distillation: training batches lack what the teachers hear; a data module's transform has to"
                " pass what it returns through _made"
            )
        self._networks.to(inputs.device)
        self._front_ends.to(inputs.device)
        probabilities = []
        with torch.autocast(inputs.device.type, enabled=False):
            for network, front_end in zip(self._networks, self._front_ends, strict=True):
                features = front_end(inputs)
                logits = network(features if mixed is None else mixed(features))
                probabilities.append((logits / self._settings.temperature).softmax(-1))
        return torch.stack(probabilities).mean(0)

    def losses(self, of_labels: Tensor, logits: Tensor, soft_labels: Tensor) -> Tensor:
        """Return mean losses ``(K,)``, see :class:`Distillation`.

        Args:
            of_labels: mean cross entropies with the labels, ``(K,)``.
            logits: ``(K, N, C)``.
            soft_labels: ``(N, C)``, see :meth:`soft_labels`.
        """
        temperature, weight = self._settings.temperature, self._settings.weight
        learned = (logits / temperature).log_softmax(-1)
        apart = functional.kl_div(learned, soft_labels.expand_as(learned), reduction="none").sum(-1)
        return torch.lerp(of_labels, temperature**2 * apart.mean(-1), weight)
