"""Batches of recordings: decoded once into a packed store, gathered from it by index."""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from asr_dni.bounds import at_most
from asr_dni.checkpoint import open_checkpoint
from asr_dni.data.batch import AudioBatch, Batch, BatchLoader, BatchOrder, TrainingBatch
from asr_dni.data.clip_features import ClipFeatures, to_float
from asr_dni.data.labels import Selection
from asr_dni.data.origins import origins_remark
from asr_dni.data.overview import describe_splits
from asr_dni.data.source import SILENCE, Source, Split
from asr_dni.data.splits import Selected, SplitData
from asr_dni.data.store import SILENCE_BIT, PackedStore, pack
from asr_dni.errors import UserError, printable
from asr_dni.told_once import warn_once

logger = logging.getLogger(__name__)


class RecordedData(SplitData[AudioBatch]):
    """Batches of features and labels from a source of recordings.

    A subclass says which clips belong to a split (:meth:`_select`), and which are decoded.

    Args:
        source: where the recordings come from.
        features: what becomes of them.
        batch_size: clips in a batch (per process).
        seed: of the order of the clips and of the augmentation.
        cache_dir: where decoded clips are kept; may be deleted at any time between runs.
        num_workers: threads that decode; null: one per core.
        damaged: whether a recording that cannot be decoded is an ``error``, or is left out and counted (``skip``).
        **settings: the subclass's own arguments.

    Raises:
        UserError: a setting that is not valid.
    """

    _raw = AudioBatch

    source: Source
    cache_dir: Path
    num_workers: int | None
    damaged: Literal["error", "skip"]

    def __init__(
        self,
        source: Source,
        features: ClipFeatures,
        batch_size: int,
        seed: int,
        cache_dir: str | Path,
        num_workers: int | None,
        damaged: Literal["error", "skip"],
        **settings: Any,
    ) -> None:
        own = {"cache_dir": Path(cache_dir), "num_workers": num_workers, "damaged": damaged}
        super().__init__(batch_size, seed, source=source, **settings, **own)
        if num_workers is not None and num_workers < 1:
            raise UserError(f"num_workers: {num_workers} is not valid; give 1 or more")
        at_most("num_workers", num_workers or 1, 1_024)
        if damaged not in ("error", "skip"):
            raise UserError(f"damaged: {damaged!r} is not valid; give error or skip")
        self.features = features
        self._store: PackedStore | None = None
        self._selections: dict[str, Selection] = {}
        self._rows: dict[int, tuple[PackedStore, int]] = {}

    # ------------------------------------------------------------------ what they are

    @property
    def identity(self) -> str:
        """What the source says that it is."""
        return self.source.identity

    @property
    def n_features(self) -> int:
        """Features per frame."""
        return self.features.n_features

    @property
    def n_frames(self) -> int:
        """Frames per clip."""
        return self.features.n_frames

    @property
    def n_samples(self) -> int:
        """Samples per clip."""
        return self.features.n_samples

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return self.features.sample_rate

    # ------------------------------------------------------------------ preparing

    @abstractmethod
    def _decoded(self) -> set[str] | None:
        """Return the labels whose clips are decoded; None: all."""

    @abstractmethod
    def _select(self, split: Selected) -> Selection:
        """Return the clips of a split."""

    @abstractmethod
    def _no_clips(self, split: Selected) -> str:
        """Return what to say of a split that has no clips."""

    @abstractmethod
    def _splits(self) -> dict[str, tuple[PackedStore, Selection]]:
        """Return the splits that there are, by their names."""

    def prepare_data(self) -> None:
        """Bring the recordings to the disk and decode them; on one process only."""
        self.source.prepare()
        self._open_stores()

    def _open_stores(self) -> None:
        if self._store is None:
            self._store = self._pack(self.source, self._decoded())

    def _stores(self) -> list[PackedStore]:
        """Return all stores that clips come from."""
        return [self.store]

    def _store_of(self, split: Selected) -> PackedStore:
        return self.store

    @property
    def store(self) -> PackedStore:
        """The decoded clips; opened where that has not happened yet."""
        self._open_stores()
        assert self._store is not None
        return self._store

    def _pack(self, source: Source, labels: set[str] | None) -> PackedStore:
        """Open the store of the clips with these labels; None: all."""
        clips = source.clips()
        for remark in source.remarks():
            warn_once(logger, remark)
        if labels is not None:
            clips = [clip for clip in clips if clip.label in labels]
        store = pack(
            clips,
            source.background(),
            identity=source.identity,
            cache_dir=self.cache_dir,
            sample_rate=self.sample_rate,
            n_samples=self.n_samples,
            num_workers=self.num_workers,
            damaged=self.damaged,
        )
        odd = origins_remark(source.identity, store.origins, len(store), self.sample_rate)
        if odd is not None:
            warn_once(logger, odd)
        return store

    def _selection(self, split: Selected, check: bool = False) -> Selection:
        if split not in self._selections:
            self._selections[split] = self._select(split)
        chosen = self._selections[split]
        if check and not len(chosen):
            raise UserError(self._no_clips(split))
        return chosen

    def describe(self) -> str:
        """Return one line: the clips and speakers of each split."""
        return describe_splits(
            self.identity,
            self._splits(),
            speakers_known=self.source.speakers_known,
            skipped=sum(len(store.skipped) for store in self._stores()),
        )

    # ------------------------------------------------------------------ batches

    def _size(self, split: Selected) -> int:
        return len(self._selection(split, check=True))

    def _gathering(self, split: Selected, order: BatchOrder, pin_memory: bool = False) -> BatchLoader:
        return BatchLoader(self._store_of(split), self._selection(split), order, pin_memory)

    def labels_and_ids(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return labels and identities of all clips of a split, see :meth:`SplitData.labels_and_ids`."""
        chosen = self._selection(split, check=True)
        return torch.from_numpy(chosen.labels.copy()), torch.from_numpy(chosen.clip_ids.copy())

    def heard(self, batch: AudioBatch) -> Tensor:
        """Return the samples that features are made of, ``(N, S)`` floating-point in [-1, 1), without augmentation."""
        return to_float(batch.waveforms)

    @torch.no_grad()
    def transform(
        self, batch: AudioBatch, *, training: bool = False, epoch: int = 0
    ) -> Batch | TrainingBatch:
        """Turn samples ``(N, S)`` into features ``(N, T, F)`` on the same device, see :meth:`SplitData.transform`."""
        return Batch(self._features_on(batch.waveforms.device)(batch.waveforms), batch.labels, batch.clip_ids)

    def _features_on(self, device: torch.device) -> ClipFeatures:
        if self.features.mean.device != device:
            self.features.to(device)
        return self.features

    def clip_names(self, clip_ids: Iterable[int] | Tensor) -> list[str]:
        """Return ``label/file name`` of clips, printable; made clips of silence are called ``_silence_``."""
        if isinstance(clip_ids, Tensor):
            clip_ids = clip_ids.tolist()
        if not self._rows:
            for store in self._stores():
                self._rows |= {identity: (store, row) for row, identity in enumerate(store.clip_ids.tolist())}
        names = []
        for identity in clip_ids:
            if identity & SILENCE_BIT:
                names.append(SILENCE)
            else:
                store, row = self._rows[identity]
                names.append(printable(store.name(row)))
        return names

    def features_as_in(self, checkpoint: str | Path | Mapping[str, Any]) -> ClipFeatures:
        """Return the front end and normalisation of another network, see :meth:`SplitData.features_as_in`.

        Raises:
            UserError: it was not trained on recordings, or on clips of another sample rate or length.
        """
        _, where = open_checkpoint(checkpoint)
        features = type(self).clip_features_from_checkpoint(checkpoint)
        assert features is not None
        for what, unit, its, own in (
            ("sample rate", "Hz", features.sample_rate, self.sample_rate),
            ("clips", "samples", features.n_samples, self.n_samples),
        ):
            if its != own:
                raise UserError(
                    f"{where}: hears {what} of {its:,} {unit}, but these data have {own:,}: give a network that was"
                    " trained on the same"
                )
        return features

    # ------------------------------------------------------------------ statistics

    def statistics(self) -> dict[str, Tensor]:
        """Return the statistics that the features are normalised by."""
        return self.features.statistics()

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take over the statistics of a checkpoint.

        Raises:
            UserError: they are those of another front end.
        """
        self.features.load_statistics(statistics)
