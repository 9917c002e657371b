"""The data module for trainings on recordings: labels, splits, augmentation and statistics."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from asr_dni.data.audio import FULL_SCALE
from asr_dni.data.augmentation import Augmentation, AugmentationSettings
from asr_dni.data.batch import AudioBatch, Batch, BatchLoader, BatchOrder, TrainingBatch
from asr_dni.data.clip_features import DEFAULT_FRONT_END, ClipFeatures, code_of, make_front_end, to_float
from asr_dni.data.labels import LabelSettings, Selection, label_names, select, select_known
from asr_dni.data.overview import empty_split_message, shared_speakers_remark
from asr_dni.data.recorded import RecordedData
from asr_dni.data.silence import silence
from asr_dni.data.source import BACKGROUND_FOLDER, SPLITS, Source
from asr_dni.data.splits import Selected
from asr_dni.data.store import SILENCE_BIT, PackedStore
from asr_dni.errors import UserError
from asr_dni.features import FrontEnd
from asr_dni.files import read_sealed_json, write_sealed_json
from asr_dni.philox import Key, derive_key
from asr_dni.told_once import warn_once

logger = logging.getLogger(__name__)

_DEFAULT_LABELS = LabelSettings()
_DEFAULT_AUGMENTATION = AugmentationSettings()
_STATISTICS_BATCH = 256


class KeywordData(RecordedData):
    """Batches of features and labels from a source of recordings.

    The recordings are decoded once into a packed store; batches are gathered from it by index, moved to the
    model's device as 16-bit samples, and there become features: augmentation (training batches only), front end,
    normalisation with the training split's statistics, SpecAugment (training batches only). The statistics
    and the label names are part of every checkpoint.

    Args:
        source: where the recordings come from.
        labels: which labels are told apart.
        front_end: what makes features of samples, such as asr_dni.features.LogMel, or its configuration; without
            class_path that is MFCC's. Its ``sample_rate`` is what the recordings are resampled to.
        augmentation: what happens to training batches.
        batch_size: clips in a batch (per process).
        seed: of the order of the clips and of the augmentation.
        cache_dir: where decoded clips are kept; may be deleted at any time between runs.
        num_workers: threads that decode; null: one per core.
        damaged: whether a recording that cannot be decoded is an ``error``, or is left out and counted
            (``skip``).
        clip_seconds: length of a clip; shorter ones are padded, longer ones cropped, at their end.
        normalize: subtract each feature's mean over the training split and divide by its standard deviation.

    Raises:
        UserError: a setting that is not valid.
    """

    labels: LabelSettings
    augmentation: AugmentationSettings

    def __init__(
        self,
        source: Source,
        labels: LabelSettings = _DEFAULT_LABELS,
        front_end: FrontEnd = DEFAULT_FRONT_END,
        augmentation: AugmentationSettings = _DEFAULT_AUGMENTATION,
        batch_size: int = 128,
        seed: int = 0,
        cache_dir: str | Path = "data/cache",
        num_workers: int | None = None,
        damaged: Literal["error", "skip"] = "error",
        clip_seconds: float = 1.0,
        normalize: bool = True,
    ) -> None:
        if isinstance(front_end, Mapping):
            front_end = make_front_end(front_end)
        if augmentation.mask_mel_bands and not (normalize and front_end.n_mel_bands):
            kind = type(front_end).__qualname__
            reason = (
                f"{kind} makes features of none"
                if normalize
                else "their mean is not known, give normalize: true"
            )
            raise UserError(f"augmentation.mask_mel_bands: no mel bands can be masked: {reason}")
        super().__init__(
            source,
            ClipFeatures(front_end, clip_seconds, normalize),
            batch_size,
            seed,
            cache_dir,
            num_workers,
            damaged,
            labels=labels,
            front_end=front_end,
            augmentation=augmentation,
            clip_seconds=clip_seconds,
            normalize=normalize,
        )
        self.augment = Augmentation(augmentation, self.sample_rate, seed)
        self._label_names: list[str] | None = None
        self._archive: PackedStore | None = None
        self._background: dict[torch.device, Tensor | None] = {}

    # ------------------------------------------------------------------ what is known before the data are

    @property
    def label_names(self) -> list[str]:
        """The labels in the order of the network's outputs."""
        if self._label_names is None:
            self._label_names = label_names(self.labels, self.source.words(), self.identity)
        return list(self._label_names)

    def protocol_of(self, split: str) -> str:
        """Return what an accuracy on ``split`` has to be called by: only on the test split does it name a test set."""
        labels, _, _ = self.labels.protocol.rpartition(", ")
        return f"{self.identity}, {self.labels.protocol if split == 'test' else labels}"

    # ------------------------------------------------------------------ preparing

    def prepare_data(self) -> None:
        """Bring the recordings to the disk and decode them; on one process only."""
        archive = self._archive_source()
        if archive is not None:
            archive.prepare()
        super().prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Open the store, select the clips of the stage's splits and compute the statistics.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``; None: all of them.

        Raises:
            UserError: a split is empty, or a word has no clips to train on.
        """
        self._open_stores()
        splits: dict[str | None, tuple[Selected, ...]] = {
            "fit": ("train", "validation"),
            "validate": ("validation",),
            "test": ("test",),
            "predict": ("test",),
            None: SPLITS,
        }
        for split in splits[stage]:
            self._selection(split, check=True)
        if self.source.speakers_known:
            shared = shared_speakers_remark(self.identity, self._splits())
            if shared is not None:
                warn_once(logger, shared)
        if stage in ("fit", None):
            self._check_words_have_clips()
            self._fit_statistics()
            if self.augmentation.background_probability and not len(self.store.background):
                logger.warning(
                    "%s: no background is mixed in, for there are no recordings of it; add a folder %s or give "
                    "augmentation.background_probability: 0",
                    self.identity,
                    BACKGROUND_FOLDER,
                )

    def _archive_source(self) -> Source | None:
        if self.labels.test_set != "archive":
            return None
        archive = self.source.test_archive()
        if archive is None:
            raise UserError(
                f"labels.test_set: {self.identity} has no separate test archive; "
                "give test_set: rule, or a folder with test_archive_path"
            )
        return archive

    def _decoded(self) -> set[str] | None:
        return None if self.labels.percent_unknown else set(self.label_names)

    def _open_stores(self) -> None:
        super()._open_stores()
        archive = self._archive_source() if self._archive is None else None
        if archive is not None:
            self._archive = self._pack(archive, set(self.label_names))

    def _stores(self) -> list[PackedStore]:
        return [self.store] if self._archive is None else [self.store, self._archive]

    def _store_of(self, split: Selected) -> PackedStore:
        return self._archive if split == "test" and self._archive is not None else self.store

    def _splits(self) -> dict[str, tuple[PackedStore, Selection]]:
        return {split: (self._store_of(split), self._selection(split)) for split in SPLITS}

    def _select(self, split: Selected) -> Selection:
        store, names = self._store_of(split), self.label_names
        if store is self._archive:
            return select_known(store, names, None)
        chosen = select(store, self.labels, names, "test" if split == "predict" else split)
        if (chosen.rows < 0).any() and not len(self.store.background):
            raise UserError(
                f"{self.identity}: the silence class is made from background recordings and there are "
                "none; add a folder _background_noise_ or give labels.silence_percent: 0"
            )
        return chosen

    def _no_clips(self, split: Selected) -> str:
        return empty_split_message(self.identity, self._store_of(split), split)

    def _check_words_have_clips(self) -> None:
        present = set(self._selection("train").labels.tolist())
        without = [name for position, name in enumerate(self.label_names) if position not in present]
        if without:
            raise UserError(
                f"{self.identity}: no training clips of {', '.join(without)}; add some or leave it "
                "out with labels.words"
            )

    # ------------------------------------------------------------------ batches

    @torch.no_grad()
    def transform(
        self, batch: AudioBatch, *, training: bool = False, epoch: int = 0
    ) -> Batch | TrainingBatch:
        """Turn samples into features.

        Args:
            batch: ``(N, S)`` clips on any device.
            training: whether they are augmented.
            epoch: of the training; with the seed and the clip it decides the augmentation.

        Returns:
            ``(N, T, F)`` features on the same device.
        """
        device = batch.waveforms.device
        features_of = self._features_on(device)
        self.augment.to(device)
        self._fit_statistics()
        waveforms = self._with_silence(
            batch, derive_key(self.seed, "silence", epoch) if training else self._evaluation_silence
        )
        if training:
            background = self._background_on(device)
            waveforms = self.augment.waveforms(waveforms, batch.clip_ids, epoch, background)
        masked = None
        if training:
            ids = batch.clip_ids.to(device)
            masked = self.augment.masked_bands(features_of.front_end.n_mel_bands, ids, epoch)
        features = features_of(waveforms, masked)
        if training:
            features = self.augment.features(features, batch.clip_ids, epoch, features_of.front_end.n_bands)
        return self._made(Batch(features, batch.labels, batch.clip_ids), waveforms, training)

    def heard(self, batch: AudioBatch) -> Tensor:
        """Return samples as :meth:`RecordedData.heard` does; made clips of silence have their background."""
        return self._to_float(batch, self._evaluation_silence)

    def _to_float(self, batch: AudioBatch, silence_key: Key) -> Tensor:
        """Return ``(N, S)`` samples in [-1, 1); made clips of silence get their background."""
        waveforms = self._with_silence(batch, silence_key)
        return to_float(waveforms) if waveforms.dtype == torch.int16 else waveforms

    def _with_silence(self, batch: AudioBatch, silence_key: Key) -> Tensor:
        """Return the samples; with made clips of silence, which get their background, as :meth:`_to_float` does."""
        made = (batch.clip_ids >= SILENCE_BIT).nonzero()[:, 0] if self.labels.percent_silence else ()
        if not len(made):
            return batch.waveforms
        waveforms = to_float(batch.waveforms)
        background = self._background_on(waveforms.device)
        assert background is not None  # _select has checked
        waveforms[made] = silence(background, batch.clip_ids[made], silence_key, waveforms.shape[1])
        return waveforms

    @property
    def _evaluation_silence(self) -> Key:
        return derive_key(self.labels.draw_seed, "silence", "evaluation")

    def _background_on(self, device: torch.device) -> Tensor | None:
        if device not in self._background:
            samples = self.store.background
            self._background[device] = (
                torch.from_numpy(np.array(samples)).to(device, torch.float32) / FULL_SCALE
                if len(samples)
                else None
            )
        return self._background[device]

    # ------------------------------------------------------------------ statistics and checkpoints

    def _fit_statistics(self) -> None:
        """Compute the statistics of the training split, or read those that an earlier run computed."""
        if not self.features.normalize or self.features.fitted:
            return
        selection = self._selection("train", check=True)
        path = self._statistics_file(selection)
        try:
            cached = read_sealed_json(path) if path is not None else None
        except FileNotFoundError:
            cached = None
        except (OSError, ValueError):
            logger.warning("%s: is damaged; the features' statistics are computed anew", path)
            cached = None
        if cached is not None:
            self.features.load_statistics({name: torch.tensor(value) for name, value in cached.items()})
            return
        loader = BatchLoader(self.store, selection, BatchOrder(len(selection), _STATISTICS_BATCH))
        silence_key = self._evaluation_silence
        device = self.features.mean.device
        clips = (AudioBatch(*(tensor.to(device) for tensor in batch)) for batch in loader)
        self.features.fit_statistics(self._to_float(batch, silence_key) for batch in clips)
        if path is not None:
            write_sealed_json(path, {name: tensor.tolist() for name, tensor in self.statistics().items()})

    def _statistics_file(self, selection: Selection) -> Path | None:
        """Return where the statistics are kept; None: nothing says whether the front end is still the same."""
        front_end = self.features.front_end
        code = code_of(front_end)
        if code is None:
            return None
        key = hashlib.blake2b(digest_size=10)
        key.update(
            repr((self.store.path.name, self.labels.draw_seed, code, front_end.configuration())).encode()
        )
        key.update(selection.clip_ids.tobytes())
        return self.cache_dir / f"{self.store.path.name}.statistics" / f"{key.hexdigest()}.json"

    def _remember(self, state: Mapping[str, Any]) -> None:
        self._label_names = list(state["label_names"])  # also where the folder has grown since

    @classmethod
    def clip_features_from_checkpoint(cls, checkpoint: str | Path | Mapping[str, Any]) -> ClipFeatures:
        """Rebuild what a network expects of recordings, without its data and what they are made of.

        Args:
            checkpoint: a checkpoint file, or what ``torch.load`` made of one.

        Raises:
            UserError: the file is missing or is not a checkpoint of a network that hears recordings.
        """
        settings, state, where = cls.kept_in(checkpoint)
        arguments = cls.arguments_of(settings, f"{where}: data", without=("source",))
        names = ("front_end", "clip_seconds", "normalize")
        features = ClipFeatures(**{name: arguments[name] for name in names if name in arguments})
        features.load_statistics(state["statistics"], where)
        return features
