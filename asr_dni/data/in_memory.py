"""Data sets without recordings, which lie in memory as labelled sequences of features."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr_dni.data.batch import Batch, BatchOrder, OrderedLoader, TrainingBatch
from asr_dni.data.source import SPLITS, Split
from asr_dni.data.splits import Selected, SplitData
from asr_dni.data.store import clip_id
from asr_dni.errors import UserError


class Examples(NamedTuple):
    """The labelled sequences of a split.

    Attributes:
        features: ``(n, T, F)`` floating-point.
        labels: ``(n,)`` int64, positions in the label names.
        names: of the n examples, unlike those of all other splits; random numbers that belong to one are keyed by it.
    """

    features: Tensor
    labels: Tensor
    names: Sequence[str]


class ExampleBatch(NamedTuple):
    """Examples before they are changed and normalised.

    Attributes:
        features: ``(N, T, F)`` float32.
        labels: ``(N,)`` int64.
        clip_ids: ``(N,)`` int64, see :class:`asr_dni.data.batch.AudioBatch`.
    """

    features: Tensor
    labels: Tensor
    clip_ids: Tensor


class InMemoryData(SplitData[ExampleBatch]):
    """Labelled sequences without recordings.

    A subclass says what they are called (``identity``, ``label_names``), which there are (:meth:`examples`), and what
    happens to those of the training split (:meth:`augment`). Features are normalised with one mean and one standard
    deviation, those of all values of the training split, which are part of every checkpoint.

    Args:
        batch_size: examples in a batch (per process).
        seed: of the order of the examples and of what happens to them in training.
        normalize: whether features are normalised.
        **settings: the subclass's own arguments.

    Raises:
        UserError: a setting that is not valid.
    """

    _raw = ExampleBatch

    normalize: bool

    def __init__(self, batch_size: int, seed: int, normalize: bool = True, **settings: Any) -> None:
        super().__init__(batch_size, seed, **settings, normalize=normalize)
        self._clips: dict[str, ExampleBatch] = {}
        self._names: dict[int, str] = {}
        self._statistics: dict[str, Tensor] | None = None

    @abstractmethod
    def examples(self) -> Mapping[str, Examples]:
        """Return the examples of ``train``, ``validation`` and ``test``, the same at every call.

        T and F are the same in all; an example is in one of them only.
        """

    def augment(self, features: Tensor, clip_ids: Tensor, epoch: int) -> Tensor:
        """Change training examples at random.

        Args:
            features: ``(N, T, F)`` float32, before they are normalised.
            clip_ids: ``(N,)`` int64; with the seed and the epoch they decide how, see :func:`asr_dni.philox.uniform`.
            epoch: of the training.

        Returns:
            The same shape; as they are, unless a subclass changes them.
        """
        return features

    @property
    def n_features(self) -> int:
        """Features per step."""
        return self._of("train").features.shape[2]

    @property
    def n_frames(self) -> int:
        """Steps of a sequence."""
        return self._of("train").features.shape[1]

    def prepare_data(self) -> None:
        """Make sure that the examples are there."""
        self._of("train")

    def setup(self, stage: str | None = None) -> None:
        """Load the examples; compute the statistics, unless a checkpoint had them."""
        self.prepare_data()
        self.statistics()

    def _of(self, split: Selected) -> ExampleBatch:
        """Return all clips of a split."""
        if not self._clips:
            self._load()
        if split not in (*SPLITS, "predict"):
            raise UserError(f"split: {split!r} is not valid; give {', '.join(SPLITS)}")
        return self._clips["test" if split == "predict" else split]

    def _load(self) -> None:
        made = self.examples()
        if set(made) != set(SPLITS):
            raise UserError(
                f"{self.identity}: has the splits {', '.join(made)}; expected {', '.join(SPLITS)}"
            )
        for split in SPLITS:
            self._check(split, made[split], made["train"].features.shape[1:])
        names = [name for part in made.values() for name in part.names]
        if len(set(names)) != len(names):
            raise UserError(f"{self.identity}: two examples share a name; give each its own")
        self._names = {clip_id(name): name for name in names}
        self._clips = {
            split: ExampleBatch(
                part.features.float(), part.labels, torch.tensor([clip_id(name) for name in part.names])
            )
            for split, part in made.items()
        }

    def _check(self, split: Split, made: Examples, shape: tuple[int, ...]) -> None:
        n = len(made.labels)
        if made.features.shape != (n, *shape) or len(shape) != 2 or len(made.names) != n or not n:
            raise UserError(
                f"{self.identity}: the {split} split has features {tuple(made.features.shape)}, {n} labels and"
                f" {len(made.names)} names; expected (n, T, F), n and n, of at least one example"
            )
        if not 0 <= int(made.labels.min()) <= int(made.labels.max()) < len(self.label_names):
            raise UserError(
                f"{self.identity}: the {split} split has labels from {int(made.labels.min())} to"
                f" {int(made.labels.max())}; expected positions in the {len(self.label_names)} label names"
            )

    # ------------------------------------------------------------------ batches

    def _size(self, split: Selected) -> int:
        return len(self._of(split).labels)

    def _gathering(self, split: Selected, order: BatchOrder, pin_memory: bool = False) -> "ExampleLoader":
        return ExampleLoader(self._of(split), order, pin_memory)

    @torch.no_grad()
    def transform(
        self, batch: ExampleBatch, *, training: bool = False, epoch: int = 0
    ) -> Batch | TrainingBatch:
        """Change examples in training and normalise them, see :meth:`SplitData.transform`."""
        inputs = batch.features
        if training:
            # As the draws are, whatever precision Lightning has set.
            inputs = self.augment(inputs.float(), batch.clip_ids, epoch).to(inputs.dtype)
        features = _Standardised(**self.statistics())(inputs) if self.normalize else inputs
        return self._made(Batch(features, batch.labels, batch.clip_ids), inputs, training)

    def features_as_in(self, checkpoint: str | Path | Mapping[str, Any]) -> nn.Module:
        """Return the normalisation of another network, see :meth:`SplitData.features_as_in`.

        Raises:
            UserError: it was trained on other data.
        """
        settings, state, where = type(self).kept_in(checkpoint)
        if state.get("source") != self.identity:
            raise UserError(
                f"{where}: was trained on {state.get('source')}, not on {self.identity}; give a network of these data"
            )
        if not settings.get("normalize", True):
            return nn.Identity()
        return _Standardised(**_checked(state["statistics"], self.identity))

    def clip_names(self, clip_ids: Iterable[int] | Tensor) -> list[str]:
        """Return the examples' names."""
        if isinstance(clip_ids, Tensor):
            clip_ids = clip_ids.tolist()
        if not self._names:
            self._load()
        return [self._names[identity] for identity in clip_ids]

    # ------------------------------------------------------------------ statistics

    def statistics(self) -> dict[str, Tensor]:
        """Return mean and standard deviation of all values of the training split, or what a checkpoint had."""
        if self._statistics is None:
            values = self._of("train").features.double()
            std = values.std(correction=0).float()
            self._statistics = {"mean": values.mean().float(), "std": torch.where(std > 0, std, 1.0)}
        return self._statistics

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the statistics of a checkpoint.

        Raises:
            UserError: the checkpoint is one of other data.
        """
        if state_dict.get("source") != self.identity:
            raise UserError(
                f"the checkpoint was trained on {state_dict.get('source')}, not on {self.identity}; give its own data"
            )
        super().load_state_dict(state_dict)

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take over the statistics of a checkpoint.

        Raises:
            UserError: they are those of other data.
        """
        self._statistics = _checked(statistics, self.identity)


class _Standardised(nn.Module):
    """Features less a mean, in multiples of a standard deviation."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std


def _checked(statistics: Mapping[str, Tensor], identity: str) -> dict[str, Tensor]:
    """Return the mean and standard deviation that a checkpoint has of data called ``identity``."""
    if any(name not in statistics or statistics[name].shape != () for name in ("mean", "std")):
        raise UserError(
            f"the checkpoint's statistics are not those of {identity}; give a checkpoint of these data"
        )
    return {name: statistics[name].float().cpu() for name in ("mean", "std")}


class ExampleLoader(OrderedLoader[ExampleBatch]):
    """Batches of the examples of a split.

    Args:
        clips: of the split.
        order: how they are put into batches.
        pin_memory: whether batches lie in page-locked memory, from which copies to a GPU do not wait.
    """

    def __init__(self, clips: ExampleBatch, order: BatchOrder, pin_memory: bool = False) -> None:
        super().__init__(order, pin_memory)
        self.clips = clips

    def gather(self, positions: NDArray[np.int64]) -> ExampleBatch:
        """Return the examples at these positions."""
        chosen = torch.from_numpy(positions)
        parts = (tensor[chosen] for tensor in self.clips)
        return ExampleBatch(*(part.pin_memory() if self.pin_memory else part for part in parts))
