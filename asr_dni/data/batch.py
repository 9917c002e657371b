"""Batches: what a data loader yields, what the network gets, and the loader itself."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr_dni.data.labels import Selection
from asr_dni.data.store import PackedStore


class AudioBatch(NamedTuple):
    """Clips as they are stored, before augmentation and features.

    Attributes:
        waveforms: ``(N, S)`` int16 samples; full scale is 32768.
        labels: ``(N,)`` int64, positions in the label names; -1 where a clip's word is not among them.
        clip_ids: ``(N,)`` int64, the clips' identities: hashes of their names, the same in every run, split,
            order and batch, for silence clips too. Random numbers that belong to a clip are keyed by them.
    """

    waveforms: Tensor
    labels: Tensor
    clip_ids: Tensor


class Batch(NamedTuple):
    """Features on the model's device.

    Attributes:
        features: ``(N, T, F)`` float32.
        labels: ``(N,)`` int64, see :class:`AudioBatch`.
        clip_ids: ``(N,)`` int64, see :class:`AudioBatch`.
    """

    features: Tensor
    labels: Tensor
    clip_ids: Tensor


class TrainingBatch(NamedTuple):
    """A batch of training with what its features were made of, for networks that make others of it.

    Attributes:
        features: as of :class:`Batch`, and so the following two.
        labels: ``(N,)`` int64.
        clip_ids: ``(N,)`` int64.
        inputs: of recordings ``(N, S)`` samples, augmented; of data without recordings ``(N, T, F)`` features, changed
            at random and not normalised.
    """

    features: Tensor
    labels: Tensor
    clip_ids: Tensor
    inputs: Tensor


class BatchOrder:
    """Which clips are in which batch of an epoch: a function of seed, epoch and rank, and of nothing else.

    In distributed training every rank takes each ``world_size``-th clip of the one order. With ``shuffle``
    (training) the order is filled up from its beginning, so that all ranks have equally many batches; without
    it (evaluation) every clip is seen exactly once.

    Args:
        n_clips: clips to go through.
        batch_size: clips in a batch; the last one may be smaller.
        shuffle: a new order in every epoch, or the clips as they are.
        seed: of the orders.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        n_clips: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.n_clips = n_clips
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the trainer calls it before each one."""
        self.epoch = epoch

    def positions(self) -> NDArray[np.int64]:
        """Return this rank's clips in the order of the epoch."""
        if not self.shuffle:
            return np.arange(self.rank, self.n_clips, self.world_size)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n_clips)
        return np.resize(order, self._per_rank * self.world_size)[self.rank :: self.world_size]

    @property
    def _per_rank(self) -> int:
        if self.shuffle:
            return -(-self.n_clips // self.world_size)
        return len(range(self.rank, self.n_clips, self.world_size))

    def __len__(self) -> int:
        return -(-self._per_rank // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        positions = self.positions()
        for first in range(0, len(positions), self.batch_size):
            yield positions[first : first + self.batch_size]


_Loaded = TypeVar("_Loaded")


class OrderedLoader(ABC, Generic[_Loaded]):
    """Batches gathered from what lies in memory: an index per batch, no work per clip, no worker processes.

    Its state is the position in the epoch, so a run that is resumed in the middle of an epoch goes on with
    the batch that would have come next.

    Args:
        order: how the clips are put into batches.
        pin_memory: whether batches lie in page-locked memory, from which copies to a GPU do not wait.
    """

    def __init__(self, order: BatchOrder, pin_memory: bool = False) -> None:
        self.sampler = order  # the name under which the trainer looks for `set_epoch`
        self.batch_sampler = None  # the trainer asks for it where there is a sampler
        self.pin_memory = pin_memory
        self._next_batch = 0
        self._resumed_epoch: int | None = None

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[_Loaded]:
        resumed = self._resumed_epoch == self.sampler.epoch and self._next_batch < len(self)
        first = self._next_batch if resumed else 0
        self._resumed_epoch = None
        for number, positions in enumerate(self.sampler):
            if number >= first:
                self._next_batch = number + 1
                yield self.gather(positions)

    @abstractmethod
    def gather(self, positions: NDArray[np.int64]) -> _Loaded:
        """Return the clips at these positions of the order."""

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and how many of its batches were handed out."""
        return {"epoch": self.sampler.epoch, "next_batch": self._next_batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that were handed out."""
        self._resumed_epoch = state["epoch"]
        self._next_batch = state["next_batch"]


class BatchLoader(OrderedLoader[AudioBatch]):
    """Batches gathered straight from the store.

    Args:
        store: the clips.
        selection: those that are wanted, with their labels.
        order: how they are put into batches.
        pin_memory: whether batches lie in page-locked memory, from which copies to a GPU do not wait.
    """

    def __init__(
        self, store: PackedStore, selection: Selection, order: BatchOrder, pin_memory: bool = False
    ) -> None:
        super().__init__(order, pin_memory)
        self.store = store
        self.selection = selection

    def gather(self, positions: NDArray[np.int64]) -> AudioBatch:
        """Return the clips at these positions of the selection."""
        rows = self.selection.rows[positions]
        shape = (len(rows), self.store.n_samples)
        waveforms = torch.empty(shape, dtype=torch.int16, pin_memory=self.pin_memory)
        self.store.gather(rows, waveforms.numpy())
        return AudioBatch(
            waveforms,
            torch.from_numpy(self.selection.labels[positions]),
            torch.from_numpy(self.selection.clip_ids[positions]),
        )
