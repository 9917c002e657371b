"""One pass of a network, or of K at once, over a batch under a noise: logits, and how many of them are right."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_dni.nn.modes import in_evaluation_mode
from asr_dni.noise import Hardware, Noise, Part

if TYPE_CHECKING:
    from asr_dni.data.batch import Batch

_PROJECTED_BYTES = 2**28


class _Projecting(Protocol):
    def __call__(self, features: Tensor) -> Tensor:
        """Return logits ``(N, C)`` for features ``(N, T, F)`` under the noise in force; of K networks ``(K, N, C)``."""
        ...

    def project(self, features: Tensor) -> Tensor:
        """Return what no noise changes of the work for features ``(N, T, F)``; K networks get the same ones."""
        ...

    def inputs_exact(self, hardware: Hardware) -> bool:
        """Return whether :meth:`project` is the same in every pass on a hardware, whatever the realisation."""
        ...


class NoisyClassifier(_Projecting, Protocol):
    """What a network has to offer to have its noise curve measured (it is a ``torch.nn.Module`` as well)."""

    def classify(self, projection: Tensor) -> Tensor:
        """Return logits ``(N, C)`` of what :meth:`project` returned, under the noise in force."""
        ...

    def under(self, noise: Noise) -> AbstractContextManager[Any]:
        """Set the noise for a block."""
        ...

    def snr_db(self, noise: Noise) -> float | None:
        """Return the signal-to-noise ratio of ``noise`` in dB; ``None`` where it is not known."""
        ...

    def parts(self, hardware: Hardware, gates: bool = False) -> list[Part]:
        """Return the parts that a hardware makes inexact, see :meth:`asr_dni.noise.NoisyModule.parts`."""
        ...


class NoisyClassifiers(_Projecting, Protocol):
    """What K networks in one have to offer (they are a ``torch.nn.Module`` as well).

    See :func:`asr_dni.nn.stacking.stack_networks`, and :class:`NoisyClassifier` for one network.
    """

    networks: int | None

    def classify(self, projection: Tensor) -> Tensor:
        """Return logits ``(K, N, C)`` of what :meth:`project` returned, under the noise in force."""
        ...

    def under(self, noise: Noise | Sequence[Noise]) -> AbstractContextManager[Any]:
        """Set the noise for a block, one for all or one for each."""
        ...


@runtime_checkable
class DigitalFront(Protocol):
    """A network, or K of them, whose first layers may be digital: their work is the same whatever the noise."""

    def frames(self, features: Tensor) -> Tensor:
        """Return what the digital layers in front make of features ``(N, T, F)``; K networks get the same ones."""
        ...

    def frames_exact(self, hardware: Hardware) -> bool:
        """Return whether these layers are digital on a hardware."""
        ...

    def answer(self, frames: Tensor) -> Tensor:
        """Return logits ``(N, C)``, of K networks ``(K, N, C)``, of these frames, under the noise in force."""
        ...


@runtime_checkable
class Repeatable(Protocol):
    """A network that can be K networks with the same weights."""

    def repeated(self, number: int) -> NoisyClassifiers:
        """Return so many of it in one; weights that are changed in place are changed in all."""
        ...


Network = TypeVar("Network", bound=NoisyClassifier | NoisyClassifiers)


class Passes(Generic[Network]):
    """Any number of passes of a network over the same features; what they have in common is done once.

    That is the projection, in all passes whose hardware leaves the inputs exact; on other hardware that of digital
    layers in front, if there are any. Copies of one network share it.

    Args:
        network: one network, or K in one.
        features: ``(N, T, F)``.
        frames: what its :class:`DigitalFront` makes of them, where that is known, as of a copy of it.
    """

    def __init__(self, network: Network, features: Tensor, frames: Tensor | None = None) -> None:
        self._network, self._features, self._frames = network, features, frames
        self._projection: Tensor | None = None

    def logits(self, noise: Noise | Sequence[Noise]) -> Tensor:
        """Return ``(N, C)`` logits under a noise, of K networks ``(K, N, C)``.

        Args:
            noise: with its realisation; of K networks one for all or one for each.
        """
        network, noises = self._network, [noise] if isinstance(noise, Noise) else noise
        hardware = [its.hardware for its in noises]
        with cast(NoisyClassifiers, network).under(noise):
            if all(map(network.inputs_exact, hardware)):
                return network.classify(self._projected()).float()
            if isinstance(network, DigitalFront) and all(map(network.frames_exact, hardware)):
                return network.answer(self.frames(network)).float()
            return network(self._features).float()

    def logits_of_all(self, network: NoisyClassifiers, noises: Sequence[Noise]) -> Tensor:
        """Return ``(K, N, C)`` logits of the network's K repetitions, each under a noise, as each has them alone.

        They are the same to the last bit where the matrix library rounds a row alike whatever rows stand beside it (MKL
        on Intel's processors), else up to rounding.

        Args:
            network: what :meth:`Repeatable.repeated` gave.
            noises: each on hardware that leaves inputs or frames exact, as the others do.
        """
        with network.under(noises):
            if self._network.inputs_exact(noises[0].hardware):
                projection = self._projected()
                return network.classify(projection.expand(len(noises), *projection.shape)).float()
            assert isinstance(network, DigitalFront)
            assert isinstance(self._network, DigitalFront)
            return network.answer(self.frames(self._network)).float()

    def _projected(self) -> Tensor:
        if self._projection is None:
            self._projection = self._network.project(self._features)
        return self._projection

    def frames(self, network: DigitalFront) -> Tensor:
        """Return what the digital layers of the network in front make of the features."""
        if self._frames is None:
            self._frames = network.frames(self._features)
        return self._frames


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode without gradients; afterwards every module is in its mode again."""
    with in_evaluation_mode(network), torch.inference_mode():
        yield


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


class Votes:
    """What successive passes over a batch decide together, so many at a time; one at a time is each by itself.

    They decide for the label with the largest posterior, averaged over the passes.

    Args:
        number: of passes that vote.
        labels: ``(N,)`` of the clips; those labelled -1 are left out.
    """

    def __init__(self, number: int, labels: Tensor) -> None:
        self._number, self._labels = number, labels
        self._sum: Tensor | None = None
        self._scores: list[tuple[Tensor, Tensor]] = []

    def add(self, logits: Tensor, draw: int, draws: int) -> None:
        """Add a pass.

        Args:
            logits: ``(*, N, C)``.
            draw: its number, from 0 on, on one chip at one strength.
            draws: how many there are in all; one pass, which all others would be like, is a vote by itself.
        """
        if self._number == 1 or draws == 1:
            self._scores.append(score(logits, self._labels))
            return
        if draw >= draws - draws % self._number:
            return  # left over
        posteriors = logits.softmax(-1)
        self._sum = posteriors if draw % self._number == 0 or self._sum is None else self._sum + posteriors
        if (draw + 1) % self._number == 0:
            mean = self._sum / self._number
            self._scores.append(score(mean.clamp_min(torch.finfo(mean.dtype).tiny).log(), self._labels))

    def scores(self) -> tuple[Tensor, Tensor]:
        """Return what :func:`score` does for each vote in turn, ``(*, votes)`` each."""
        right, losses = (torch.stack(values, dim=-1) for values in zip(*self._scores, strict=True))
        return right, losses


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


def rows_within_memory(network: NoisyClassifier | NoisyClassifiers, batch: "Batch") -> int:
    """Return how many networks times clips keep what :meth:`NoisyClassifiers.project` gives within 256 MiB."""
    one = network.project(batch.features[:1])
    networks = getattr(network, "networks", None) or 1
    return _PROJECTED_BYTES * networks // max(1, one.numel() * one.element_size())


def pieces_of(batch: "Batch", size: int) -> Iterator["Batch"]:
    """Cut a batch into pieces of at most ``size`` clips."""
    parts = (torch.split(tensor, size) for tensor in (batch.features, batch.labels, batch.clip_ids))
    return (type(batch)(*piece) for piece in zip(*parts, strict=True))
