"""A folder of recordings that a trained network is evaluated on, whatever data it was trained with."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from asr_dni.data.clip_features import ClipFeatures
from asr_dni.data.datamodule import KeywordData
from asr_dni.data.folder import Folder
from asr_dni.data.labels import Selection, select_known
from asr_dni.data.overview import count_left_out
from asr_dni.data.recorded import RecordedData
from asr_dni.data.source import SPLITS, Split
from asr_dni.data.splits import Selected
from asr_dni.data.store import PackedStore
from asr_dni.errors import UserError

logger = logging.getLogger(__name__)

FolderSplit: TypeAlias = Split | Literal["all"]


class FolderClips(RecordedData):
    """The clips of a folder under the labels, front end and statistics of a trained network.

    Nothing is trained or drawn: its batches of every split are the clips that were asked for. Those of words that are
    not among the labels are left out, reported in the log and counted in :attr:`left_out`; ``predict`` has them too.

    Args:
        path: a folder in the layout of :class:`asr_dni.data.Folder`.
        label_names: the network's labels, in the order of its outputs.
        features: what the network expects of a recording, with its statistics.
        split: which of the folder's clips; ``all``: every one.
        speaker: how file names tell the speaker, see :class:`asr_dni.data.Folder`.
        batch_size: clips in a batch.
        seed: of the network's training, which its results are told apart by.
        cache_dir: where decoded clips are kept.
        num_workers: threads that decode; None: one per core.
        damaged: whether a recording that cannot be decoded is an ``error``, or is left out (``skip``).

    Raises:
        UserError: a setting that is not valid.
    """

    _rebuilt = False

    def __init__(
        self,
        path: str | Path,
        label_names: list[str],
        features: ClipFeatures,
        split: FolderSplit = "test",
        speaker: str | None = None,
        batch_size: int = 256,
        seed: int = 0,
        cache_dir: str | Path = "data/cache",
        num_workers: int | None = None,
        damaged: Literal["error", "skip"] = "error",
    ) -> None:
        if split not in (*SPLITS, "all"):
            raise UserError(f"split: {split!r} is not valid; give train, validation, test or all")
        # Who was trained on is not to be in a split; of all clips the speakers do not matter.
        source = Folder(path, speaker=None if split == "all" else speaker)
        super().__init__(source, features, batch_size, seed, cache_dir, num_workers, damaged)
        self._label_names = list(label_names)
        self._split: Split | None = None if split == "all" else split
        self._left_out: dict[str, int] = {}

    @classmethod
    def for_network_of(cls, data: KeywordData, path: str | Path, split: FolderSplit = "test") -> Self:
        """Return a folder's clips for a network that was trained with ``data``."""
        return cls(
            path,
            data.label_names,
            data.features,
            split,
            getattr(data.source, "speaker", None),
            data.batch_size,
            data.seed,
            data.cache_dir,
            data.num_workers,
            data.damaged,
        )

    @classmethod
    def for_checkpoint(
        cls,
        checkpoint: str | Path | Mapping[str, Any],
        path: str | Path,
        split: FolderSplit = "test",
        **replacements: Any,
    ) -> Self:
        """Return a folder's clips for the network of a checkpoint, whose own data need not be here any more.

        Args:
            checkpoint: a checkpoint file, or what ``torch.load`` made of one.
            path: the folder.
            split: which of its clips.
            **replacements: arguments that are to be others than in training, such as ``batch_size``.

        Raises:
            UserError: the file is missing or is not a checkpoint of a network that hears recordings.
        """
        settings, state, where = KeywordData.kept_in(checkpoint)
        trained = KeywordData.arguments_of(settings, f"{where}: data", without=("source",))
        names = ("batch_size", "seed", "cache_dir", "num_workers", "damaged")
        arguments = {name: trained[name] for name in names if name in trained}
        features = KeywordData.clip_features_from_checkpoint(checkpoint)
        speaker = _speaker(settings.get("source"))
        return cls(path, state["label_names"], features, split, speaker, **{**arguments, **replacements})

    @property
    def label_names(self) -> list[str]:
        """The labels in the order of the network's outputs."""
        return list(self._label_names)

    @property
    def left_out(self) -> Mapping[str, int]:
        """Clips of words that the network does not know, by their word; once :meth:`setup` was called."""
        return self._left_out

    def protocol_of(self, split: str) -> str:
        """Return what an accuracy has to be called by, whichever split is asked for."""
        return f"{self.identity}, {self._split} split" if self._split else f"{self.identity}, all clips"

    def setup(self, stage: str | None = None) -> None:
        """Open the store and select the clips.

        Raises:
            UserError: there are none that the network could tell apart, or it came without statistics.
        """
        if self.features.normalize and not self.features.fitted:
            raise UserError("the features' statistics are missing: the folder's network came without them")
        self._open_stores()
        self._selection("predict" if stage == "predict" else "test", check=True)

    def predict_dataloader(self) -> Any:
        """Return batches of the clips, those of unknown words included."""
        return self._loader("predict")

    def _decoded(self) -> None:
        return None

    def _select(self, split: Selected) -> Selection:
        if split == "predict":
            return select_known(self.store, self._label_names, self._split, other_words=True)
        if not self._left_out:
            self._report_left_out()
        return select_known(self.store, self._label_names, self._split)

    def _report_left_out(self) -> None:
        self._left_out = count_left_out(self.store, self._label_names, self._split)
        if self._left_out:
            listed = ", ".join(f"{label} ({count})" for label, count in self._left_out.items())
            logger.warning(
                "%s: left out %d clips of words that the network does not know: %s",
                self.identity,
                sum(self._left_out.values()),
                listed,
            )

    def _splits(self) -> dict[str, tuple[PackedStore, Selection]]:
        return {self._split or "all": (self.store, self._selection("test"))}

    def _no_clips(self, split: Selected) -> str:
        which = "clips" if self._split is None else f"{self._split} clips"
        return (
            f"{self.identity}: no {which} of the words that the network knows ({', '.join(self._label_names)}); "
            "give another folder or --split all"
        )


def _speaker(source: Any) -> str | None:
    """Return how file names tell the speaker: the habit of whoever named the recordings that were trained on."""
    arguments = source.get("init_args") if isinstance(source, Mapping) else None
    speaker = arguments.get("speaker") if isinstance(arguments, Mapping) else None
    return speaker if isinstance(speaker, str) else None
