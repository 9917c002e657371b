"""The data module: from a source of recordings to batches of features."""

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from asr_dni.bounds import at_most
from asr_dni.configuration import checked_arguments, from_configuration
from asr_dni.data.audio import FULL_SCALE
from asr_dni.data.augmentation import Augmentation, AugmentationSettings
from asr_dni.data.batch import AudioBatch, Batch, BatchLoader, BatchOrder, OrderedLoader
from asr_dni.data.folder import Folder
from asr_dni.data.front_end import FrontEnd, load_statistics, to_float
from asr_dni.data.labels import LabelSettings, Selection, label_names, select, select_known
from asr_dni.data.origins import origins_remark
from asr_dni.data.overview import (
    count_left_out,
    describe_splits,
    empty_split_message,
    shared_speakers_remark,
    warn_once,
)
from asr_dni.data.source import BACKGROUND_FOLDER, SILENCE, SPLITS, Source, Split
from asr_dni.data.splits import SETTINGS_KEY, Selected, SplitData
from asr_dni.data.store import SILENCE_BIT, PackedStore, pack
from asr_dni.errors import UserError, printable
from asr_dni.features.mfcc import MFCC, MFCCSettings
from asr_dni.files import read_sealed_json, write_sealed_json
from asr_dni.philox import Key, derive_key, uniform

logger = logging.getLogger(__name__)

_DEFAULT_LABELS = LabelSettings()
_DEFAULT_FRONTEND = MFCCSettings()
_DEFAULT_AUGMENTATION = AugmentationSettings()
_STATISTICS_BATCH = 256

_MOST_CLIP_SECONDS = 600
_MOST_SAMPLES = 2**26


_NESTED = ("source", "labels", "frontend", "augmentation")
"""Settings that are more than one value."""


def check_clip(seconds: float, frontend: MFCCSettings) -> float:
    """Return a clip's length, if there are clips so long.

    Raises:
        UserError: it is not above 0, less than a window of the front end, or longer than any word is.
    """
    if not seconds > 0:
        raise UserError(f"clip_seconds: {seconds} is not valid; give a length in seconds above 0")
    if round(seconds * frontend.sample_rate) < frontend.window_samples:
        window = frontend.window_samples / frontend.sample_rate
        raise UserError(
            f"clip_seconds: {seconds} is not valid; give at least a window of the front end (window_ms), {window:g}"
        )
    at_most("clip_seconds", seconds, _MOST_CLIP_SECONDS)
    at_most("clip_seconds x sample_rate", seconds * frontend.sample_rate, _MOST_SAMPLES)
    return seconds


class KeywordData(SplitData[AudioBatch]):
    """Batches of features and labels from a source of recordings.

    The recordings are decoded once into a packed store; batches are gathered from it by index, moved to the
    model's device as 16-bit samples, and there become features: augmentation (training batches only), MFCC,
    normalisation with the training split's statistics, SpecAugment (training batches only). The statistics
    and the label names are part of every checkpoint.

    Args:
        source: where the recordings come from.
        labels: which labels are told apart.
        frontend: the features; its ``sample_rate`` is what the recordings are resampled to.
        augmentation: what happens to training batches.
        batch_size: clips in a batch (per process).
        seed: of the order of the clips and of the augmentation.
        cache_dir: where decoded clips are kept; may be deleted at any time between runs.
        num_workers: threads that decode; null: one per core.
        damaged: whether a recording that cannot be decoded is an ``error``, or is left out and counted
            (``skip``).
        clip_seconds: length of a clip; shorter ones are padded, longer ones cropped, at their end.

    Raises:
        UserError: a setting that is not valid.
    """

    _raw = AudioBatch

    def __init__(
        self,
        source: Source,
        labels: LabelSettings = _DEFAULT_LABELS,
        frontend: MFCCSettings = _DEFAULT_FRONTEND,
        augmentation: AugmentationSettings = _DEFAULT_AUGMENTATION,
        batch_size: int = 128,
        seed: int = 0,
        cache_dir: str | Path = "data/cache",
        num_workers: int | None = None,
        damaged: Literal["error", "skip"] = "error",
        clip_seconds: float = 1.0,
    ) -> None:
        super().__init__(batch_size, seed)
        if num_workers is not None and num_workers < 1:
            raise UserError(f"num_workers: {num_workers} is not valid; give 1 or more")
        at_most("num_workers", num_workers or 1, 1_024)
        if damaged not in ("error", "skip"):
            raise UserError(f"damaged: {damaged!r} is not valid; give error or skip")
        check_clip(clip_seconds, frontend)
        self.source = source
        self._source_settings: Mapping[str, Any] = source.configuration()
        self.labels = labels
        self.frontend = frontend
        self.augmentation = augmentation
        self.cache_dir = Path(cache_dir)
        self.num_workers = num_workers
        self.damaged = damaged
        self.clip_seconds = clip_seconds
        self.features = MFCC(frontend)
        self.augment = Augmentation(augmentation, frontend.sample_rate, seed)
        self.left_out: dict[str, int] = {}
        self._label_names: list[str] | None = None
        self._evaluated_split: Split | None = "test"
        self._foreign = False
        self._store: PackedStore | None = None
        self._archive: PackedStore | None = None
        self._selections: dict[str, Selection] = {}
        self._rows: dict[int, tuple[PackedStore, int]] = {}
        self._background: dict[torch.device, Tensor | None] = {}
        self.save_hyperparameters({SETTINGS_KEY: self._plain_settings()})

    # ------------------------------------------------------------------ what is known before the data are

    @property
    def label_names(self) -> list[str]:
        """The labels in the order of the network's outputs."""
        if self._label_names is None:
            self._label_names = label_names(self.labels, self.source.words(), self.source.identity)
        return list(self._label_names)

    @property
    def n_features(self) -> int:
        """Features per frame."""
        return self.features.n_features

    @property
    def n_frames(self) -> int:
        """Frames per clip."""
        return self.frontend.n_frames(self.n_samples)

    @property
    def n_samples(self) -> int:
        """Samples per clip."""
        return round(self.clip_seconds * self.frontend.sample_rate)

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return self.frontend.sample_rate

    @property
    def front_end(self) -> FrontEnd:
        """What the network expects of a recording; the statistics are there when the data are set up."""
        return FrontEnd(self.features, self.clip_seconds)

    @property
    def from_folder(self) -> bool:
        """Whether its test batches are a folder's clips, see :meth:`with_folder`."""
        return self._foreign

    @property
    def protocol(self) -> str:
        """What an accuracy on the test split has to be called by: the data, the labels and the test set."""
        if self._foreign:
            split = self._evaluated_split
            return f"{self.source.identity}, {'all clips' if split is None else f'{split} split'}"
        return f"{self.source.identity}, {self.labels.protocol}"

    def protocol_of(self, split: str) -> str:
        """Return what an accuracy on ``split`` has to be called by: only on the test split does it name a test set."""
        if self._foreign or split == "test":
            return self.protocol
        labels, _, _ = self.labels.protocol.rpartition(", ")
        return f"{self.source.identity}, {labels}"

    # ------------------------------------------------------------------ preparing

    def prepare_data(self) -> None:
        """Bring the recordings to the disk and decode them; on one process only."""
        self.source.prepare()
        archive = self._archive_source()
        if archive is not None:
            archive.prepare()
        self._open_stores()

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
            "predict": ("predict" if self._foreign else "test",),
            None: SPLITS,
        }
        for split in splits[stage]:
            self._selection(split, check=True)
        if self.source.speakers_known and not self._foreign:
            shared = shared_speakers_remark(self.source.identity, self._splits())
            if shared is not None:
                warn_once(shared)
        if stage in ("fit", None):
            self._check_words_have_clips()
            self._fit_statistics()
            if self.augmentation.background_probability and not len(self.store.background):
                logger.warning(
                    "%s: no background is mixed in, for there are no recordings of it; add a folder %s or give "
                    "augmentation.background_probability: 0",
                    self.source.identity,
                    BACKGROUND_FOLDER,
                )

    def _archive_source(self) -> Source | None:
        if self.labels.test_set != "archive" or self._foreign:
            return None
        archive = self.source.test_archive()
        if archive is None:
            raise UserError(
                f"labels.test_set: {self.source.identity} has no separate test archive; "
                "give test_set: rule, or a folder with test_archive_path"
            )
        return archive

    def _open_stores(self) -> None:
        if self._store is None:
            names = None if self.labels.percent_unknown and not self._foreign else set(self.label_names)
            self._store = self._pack(self.source, names)
        archive = self._archive_source() if self._archive is None else None
        if archive is not None:
            self._archive = self._pack(archive, set(self.label_names))

    def _pack(self, source: Source, names: set[str] | None) -> PackedStore:
        """Open the store of the clips with these labels; None: all."""
        clips = source.clips()
        for remark in source.remarks():
            warn_once(remark)
        if names is not None and not self._foreign:
            clips = [clip for clip in clips if clip.label in names]
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
            warn_once(odd)
        return store

    @property
    def store(self) -> PackedStore:
        """The decoded clips; opened where that has not happened yet."""
        self._open_stores()
        assert self._store is not None
        return self._store

    def _store_of(self, split: str) -> PackedStore:
        return self._archive if split == "test" and self._archive is not None else self.store

    def _selection(self, split: Selected, check: bool = False) -> Selection:
        if split not in self._selections:
            store, names = self._store_of(split), self.label_names
            if store is self._archive:
                chosen = select_known(store, names, None)
            elif split == "predict":
                chosen = select_known(store, names, self._evaluated_split, other_words=True)
            elif self._foreign:
                chosen = select_known(store, names, self._evaluated_split)
                self._report_left_out(store)
            else:
                chosen = select(store, self.labels, names, split)
            self._selections[split] = chosen
        chosen = self._selections[split]
        if check and not len(chosen):
            raise UserError(self._empty_split_message(split))
        if (chosen.rows < 0).any() and not len(self.store.background):
            raise UserError(
                f"{self.source.identity}: the silence class is made from background recordings and there are "
                "none; add a folder _background_noise_ or give labels.silence_percent: 0"
            )
        return chosen

    # ------------------------------------------------------------------ batches

    def predict_dataloader(self) -> OrderedLoader[AudioBatch]:
        """Return batches of the test split; of a folder (:meth:`with_folder`) with its other words."""
        return self._loader("predict" if self._foreign else "test")

    def _size(self, split: Selected) -> int:
        return len(self._selection(split))

    def _gathering(self, split: Selected, order: BatchOrder, pin_memory: bool = False) -> BatchLoader:
        return BatchLoader(self._store_of(split), self._selection(split), order, pin_memory)

    @torch.no_grad()
    def transform(self, batch: AudioBatch, *, training: bool = False, epoch: int = 0) -> Batch:
        """Turn samples into features.

        Args:
            batch: ``(N, S)`` clips on any device.
            training: whether they are augmented.
            epoch: of the training; with the seed and the clip it decides the augmentation.

        Returns:
            ``(N, T, F)`` features on the same device.
        """
        device = batch.waveforms.device
        if self.features.mean.device != device:
            self.features.to(device)
            self.augment.to(device)
        self._fit_statistics()
        waveforms = self._to_float(
            batch, derive_key(self.seed, "silence", epoch) if training else self._evaluation_silence
        )
        if training:
            background = self._background_on(device)
            waveforms = self.augment.waveforms(waveforms, batch.clip_ids, epoch, background)
        features = self.features(waveforms)
        if training:
            blocks = 1 + self.frontend.deltas
            features = self.augment.features(features, batch.clip_ids, epoch, blocks)
        return Batch(features, batch.labels, batch.clip_ids)

    def batches(self, split: Split, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Go through a split once, without augmentation, outside a trainer.

        Args:
            split: the split; ``test`` of a folder (:meth:`with_folder`) is what was asked for there.
            device: where the features are computed.
        """
        selection = self._selection(split, check=True)
        for batch in self._gathering(split, BatchOrder(len(selection), self.batch_size)):
            yield self.transform(AudioBatch(*(tensor.to(device) for tensor in batch)))

    def clip_names(self, clip_ids: Iterable[int] | Tensor) -> list[str]:
        """Return ``label/file name`` of clips, printable; made clips of silence are called ``_silence_``."""
        if isinstance(clip_ids, Tensor):
            clip_ids = clip_ids.tolist()
        if not self._rows:
            for store in (self.store, self._archive):
                if store is not None:
                    rows = {identity: (store, row) for row, identity in enumerate(store.clip_ids.tolist())}
                    self._rows.update(rows)
        names = []
        for identity in clip_ids:
            if identity & SILENCE_BIT:
                names.append(SILENCE)
            else:
                store, row = self._rows[identity]
                names.append(printable(store.name(row)))
        return names

    def _to_float(self, batch: AudioBatch, silence_key: Key) -> Tensor:
        """Return ``(N, S)`` samples in [-1, 1); made clips of silence get their background."""
        waveforms = to_float(batch.waveforms)
        made = (batch.clip_ids >= SILENCE_BIT).nonzero()[:, 0] if self.labels.percent_silence else None
        if made is not None and len(made):
            background = self._background_on(waveforms.device)
            assert background is not None  # _selection has checked
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
        if not self.frontend.normalize or self.features.fitted:
            return
        if self._foreign:
            raise UserError("the features' statistics are missing: the folder's network came without them")
        selection = self._selection("train", check=True)
        key = hashlib.blake2b(digest_size=10)
        key.update(repr((self.store.path.name, self.labels.draw_seed, self.frontend)).encode())
        key.update(selection.clip_ids.tobytes())
        path = self.cache_dir / f"{self.store.path.name}.statistics" / f"{key.hexdigest()}.json"
        try:
            cached = read_sealed_json(path)
        except FileNotFoundError:
            pass
        except (OSError, ValueError):
            logger.warning("%s: is damaged; the features' statistics are computed anew", path)
        else:
            self.features.load_state_dict({name: torch.tensor(value) for name, value in cached.items()})
            return
        loader = BatchLoader(self.store, selection, BatchOrder(len(selection), _STATISTICS_BATCH))
        silence_key = self._evaluation_silence
        device = self.features.mean.device
        clips = (AudioBatch(*(tensor.to(device) for tensor in batch)) for batch in loader)
        self.features.fit_statistics(self._to_float(batch, silence_key) for batch in clips)
        values = {name: tensor.tolist() for name, tensor in self.features.state_dict().items()}
        write_sealed_json(path, values)

    def state_dict(self) -> dict[str, Any]:
        """Return the label names, the features' statistics and what the data are; plain types and tensors."""
        return {
            "label_names": self.label_names,
            "source": self.source.identity,
            "statistics": {name: tensor.cpu().clone() for name, tensor in self.features.state_dict().items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the statistics of a checkpoint.

        Raises:
            UserError: the checkpoint's labels or features are others than those of these data.
        """
        if state_dict["label_names"] != self.label_names:
            raise UserError(
                f"the checkpoint tells apart {', '.join(state_dict['label_names'])}, but these data have "
                f"{', '.join(self.label_names)}; give the labels that it was trained with"
            )
        load_statistics(self.features, state_dict["statistics"])

    @classmethod
    def front_end_from_checkpoint(cls, checkpoint: str | Path | Mapping[str, Any]) -> FrontEnd:
        """Rebuild the front end that a network was trained with, without its data and what they are made of.

        Args:
            checkpoint: a checkpoint file, or what ``torch.load`` made of one.

        Raises:
            UserError: the file is missing or is not a checkpoint of a network that hears recordings.
        """
        settings, state, where = cls._kept(checkpoint, otherwise="was not trained on recordings")
        frontend = checked_arguments(MFCCSettings, settings.get("frontend"), f"{where}: data.frontend")
        flat = {key: value for key, value in settings.items() if key not in _NESTED}
        flat = checked_arguments(cls, flat, f"{where}: data", skip=_NESTED)
        settings_of_features = MFCCSettings(**frontend)
        clip_seconds = check_clip(flat.get("clip_seconds", 1.0), settings_of_features)
        features = MFCC(settings_of_features)
        load_statistics(features, state["statistics"], where)
        return FrontEnd(features, clip_seconds)

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | Mapping[str, Any], **replacements: Any) -> Self:
        """Rebuild the data module that a network was trained with: its settings, labels and statistics.

        Args:
            checkpoint: a checkpoint file, or what ``torch.load`` made of one.
            **replacements: arguments of the constructor that are to be others, such as ``cache_dir`` or
                ``source``.

        Raises:
            UserError: the file is missing or is not a checkpoint with these data.
        """
        arguments, state, file = cls._kept(checkpoint, otherwise="holds no data settings")
        where = f"{file}: data"
        flat = {key: value for key, value in arguments.items() if key not in _NESTED}
        made: dict[str, Any] = checked_arguments(cls, flat, where, skip=_NESTED)
        for key, settings_class in (
            ("labels", LabelSettings),
            ("frontend", MFCCSettings),
            ("augmentation", AugmentationSettings),
        ):
            made[key] = settings_class(
                **checked_arguments(settings_class, arguments.get(key), f"{where}.{key}")
            )
        settings = arguments.get("source")
        if not isinstance(settings, Mapping) or not isinstance(settings.get("init_args", {}), Mapping):
            raise UserError(f"{where}.source: expected class_path, and init_args as a mapping")
        if "source" not in replacements:
            made["source"] = from_configuration(settings, Source, "source")
        data = cls(**{**made, **replacements})
        data._source_settings = dict(settings)
        data._label_names = list(state["label_names"])
        data.load_state_dict(state)
        return data

    def with_folder(
        self, path: str | Path, split: Literal["train", "validation", "test", "all"] = "test"
    ) -> Self:
        """Return a data module whose test (and predict) batches are the clips of a folder.

        The labels, their order, the front end and its statistics stay. Clips of words that are not among the
        labels are left out of the test batches, reported in the log and counted in ``left_out``.

        Args:
            path: a folder in the layout of :class:`asr_dni.data.folder.Folder`.
            split: which of its clips; ``all``: every one.
        """
        if split not in (*SPLITS, "all"):
            raise UserError(f"split: {split!r} is not valid; give train, validation, test or all")
        # the habit of whoever names the recordings; who was trained on is not to be in the test
        speaker = None if split == "all" else self._source_settings.get("init_args", {}).get("speaker")
        arguments: dict[str, Any] = {
            "source": Folder(path, speaker=speaker),
            "labels": self.labels,
            "frontend": self.frontend,
            "augmentation": self.augmentation,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "cache_dir": self.cache_dir,
            "num_workers": self.num_workers,
            "damaged": self.damaged,
            "clip_seconds": self.clip_seconds,
        }
        data = type(self)(**arguments)
        data._label_names = self.label_names
        data._foreign = True
        data._evaluated_split = None if split == "all" else split
        data.features.load_state_dict(self.features.state_dict())
        return data

    def _plain_settings(self) -> dict[str, Any]:
        return {
            "source": self.source.configuration(),
            "labels": dataclasses.asdict(self.labels),
            "frontend": dataclasses.asdict(self.frontend),
            "augmentation": dataclasses.asdict(self.augmentation),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "cache_dir": str(self.cache_dir),
            "num_workers": self.num_workers,
            "damaged": self.damaged,
            "clip_seconds": self.clip_seconds,
        }

    # ------------------------------------------------------------------ messages

    def describe(self) -> str:
        """Return one line: the clips and speakers of each split."""
        skipped = sum(len(store.skipped) for store in (self.store, self._archive) if store is not None)
        return describe_splits(
            self.source.identity,
            self._splits(),
            speakers_known=self.source.speakers_known,
            skipped=skipped,
        )

    def _splits(self) -> dict[str, tuple[PackedStore, Selection]]:
        if self._foreign:
            which = self._evaluated_split or "all"
            return {which: (self.store, self._selection("test"))}
        return {split: (self._store_of(split), self._selection(split)) for split in SPLITS}

    def _report_left_out(self, store: PackedStore) -> None:
        self.left_out = count_left_out(store, self.label_names, self._evaluated_split)
        if self.left_out:
            listed = ", ".join(f"{label} ({count})" for label, count in self.left_out.items())
            total = sum(self.left_out.values())
            logger.warning(
                "%s: left out %d clips of words that the network does not know: %s",
                self.source.identity,
                total,
                listed,
            )

    def _empty_split_message(self, split: str) -> str:
        identity = self.source.identity
        if not self._foreign:
            return empty_split_message(identity, self._store_of(split), split)
        which = "clips" if self._evaluated_split is None else f"{self._evaluated_split} clips"
        return (
            f"{identity}: no {which} of the words that the network knows ({', '.join(self.label_names)}); "
            "give another folder or --split all"
        )

    def _check_words_have_clips(self) -> None:
        present = set(self._selection("train").labels.tolist())
        without = [name for position, name in enumerate(self.label_names) if position not in present]
        if without:
            raise UserError(
                f"{self.source.identity}: no training clips of {', '.join(without)}; add some or leave it "
                "out with labels.words"
            )


def silence(background: Tensor, clip_ids: Tensor, key: Key, n_samples: int) -> Tensor:
    """Make clips of the silence class: a piece of background at a volume between 0 and 1, as published.

    Args:
        background: ``(L,)`` float32, L at least ``n_samples``.
        clip_ids: ``(n,)`` int64.
        key: of the random numbers.
        n_samples: samples per clip.

    Returns:
        ``(n, n_samples)`` float32.
    """
    place, volume = uniform(key, clip_ids, 2).unbind(-1)
    pieces = background.unfold(0, n_samples, 1)
    starts = (place.double() * len(pieces)).long().clamp_(max=len(pieces) - 1)
    return pieces[starts] * volume[:, None]
