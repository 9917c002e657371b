"""What all data modules share: loaders of the splits, their settings, and what a checkpoint keeps of the data."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeAlias, TypeVar, get_type_hints

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor, nn

from asr_dni.bounds import at_most
from asr_dni.checkpoint import open_checkpoint
from asr_dni.configuration import checked_arguments, from_configuration
from asr_dni.configured import Configured, arguments_of
from asr_dni.data.batch import Batch, BatchOrder, OrderedLoader, TrainingBatch
from asr_dni.data.clip_features import ClipFeatures
from asr_dni.data.source import SPLITS, Split
from asr_dni.errors import UserError
from asr_dni.identity import NOT_OF_THE_RESULT
from asr_dni.processes import place_among_processes

SETTINGS_KEY = "data"
"""Key of the hyper-parameters: one, so that no setting collides with one of the model's."""

Selected: TypeAlias = Split | Literal["predict"]

_Raw = TypeVar("_Raw", bound=tuple[Any, ...])


class SplitData(LightningDataModule, ABC, Generic[_Raw]):
    """Labelled sequences of features in batches, which are gathered from memory and made on the model's device.

    A subclass says what is gathered (:meth:`_size`, :meth:`_gathering`), what becomes of it (:meth:`transform`), what
    the data are called, and which statistics a checkpoint has to keep. Its constructor passes all its arguments on,
    which are plain values, dataclasses of them or objects that are :class:`~asr_dni.configured.Configured`: they are
    kept in attributes of their names, in the hyper-parameters (``{"data": {...}}``) and so in every checkpoint.

    Args:
        batch_size: clips in a batch (per process).
        seed: of the order of the clips, and of what happens to them in training.
        **settings: the subclass's own arguments.

    Raises:
        UserError: a setting that is not valid.
    """

    _raw: ClassVar[type[Any]]
    """Type of the batches that are gathered."""

    _rebuilt: ClassVar[bool] = True
    """Whether checkpoints keep its settings, from which it is rebuilt."""

    keeps_inputs: bool = False
    """Whether training batches are :class:`TrainingBatch`, for networks that :meth:`features_as_in` is asked for."""

    def __init__(self, batch_size: int, seed: int, **settings: Any) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size: {batch_size} is not valid; give 1 or more")
        if seed < 0:
            raise UserError(f"seed: {seed} is not valid; give 0 or more")
        at_most("batch_size", batch_size, 2**20)
        self.batch_size = batch_size
        self.seed = seed
        for name, value in settings.items():
            setattr(self, name, value)
        settings |= {"batch_size": batch_size, "seed": seed}
        names = arguments_of(type(self)) if self._rebuilt else []
        missing = [name for name in names if name not in settings]
        if missing:
            raise TypeError(
                f"{type(self).__qualname__} has to pass its argument {missing[0]} on to the class above"
            )
        self._settings = {name: settings[name] for name in names}
        plain = {name: _plain(value) for name, value in self._settings.items()}
        self.save_hyperparameters({SETTINGS_KEY: plain})

    # ------------------------------------------------------------------ what they are

    @property
    @abstractmethod
    def identity(self) -> str:
        """What the data are, in a few words that are the same from run to run and on every machine."""

    @property
    @abstractmethod
    def label_names(self) -> list[str]:
        """The labels in the order of the network's outputs."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Features per frame."""

    @property
    @abstractmethod
    def n_frames(self) -> int:
        """Frames per clip."""

    @property
    def protocol(self) -> str:
        """What an accuracy on the test split has to be called by."""
        return self.protocol_of("test")

    def protocol_of(self, split: str) -> str:
        """Return what an accuracy on ``split`` has to be called by."""
        return f"{self.identity}, {split} split"

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that decide what the batches hold, as plain values; no paths, no seed."""
        return {
            name: value.identity if isinstance(value, Configured) else _plain(value)
            for name, value in self._settings.items()
            if name not in NOT_OF_THE_RESULT
        }

    def describe(self) -> str:
        """Return how many clips each split has, in one line; once :meth:`setup` was called."""
        return ", ".join(f"{split} {self._size(split):,} clips" for split in SPLITS)

    @property
    def left_out(self) -> Mapping[str, int]:
        """Clips that are there but cannot be evaluated on, by their label."""
        return {}

    # ------------------------------------------------------------------ batches

    @abstractmethod
    def _size(self, split: Selected) -> int:
        """Return the number of clips of a split."""

    @abstractmethod
    def _gathering(self, split: Selected, order: BatchOrder, pin_memory: bool = False) -> OrderedLoader[_Raw]:
        """Return the loader that gathers the clips of a split in an order."""

    @abstractmethod
    def transform(self, batch: _Raw, *, training: bool = False, epoch: int = 0) -> Batch | TrainingBatch:
        """Turn what was gathered into features ``(N, T, F)`` on the same device.

        Args:
            batch: on any device.
            training: whether it is changed at random.
            epoch: of the training; with the seed and the clip it decides how.
        """

    def _made(self, batch: Batch, inputs: Tensor, training: bool) -> Batch | TrainingBatch:
        """Return what :meth:`transform` returns, which has ``inputs`` where they are asked for."""
        return TrainingBatch(*batch, inputs) if training and self.keeps_inputs else batch

    def features_as_in(self, checkpoint: str | Path | Mapping[str, Any]) -> nn.Module:
        """Return what makes the features that another network takes of ``inputs`` of :class:`TrainingBatch`.

        Args:
            checkpoint: of the network: a file, or what ``torch.load`` made of one.

        Returns:
            Takes ``inputs``, returns features ``(N, T, F)`` as the network was trained with.

        Raises:
            UserError: the file is missing, or the network was trained on data of another kind.
        """
        raise UserError(
            f"{type(self).__qualname__} does not make another network's features: override features_as_in, and pass"
            " what transform returns through _made"
        )

    @abstractmethod
    def clip_names(self, clip_ids: Iterable[int] | Tensor) -> list[str]:
        """Return the names of clips."""

    def n_batches(self, split: Split) -> int:
        """Return how many batches :meth:`batches` goes through."""
        return len(BatchOrder(self._size(split), self.batch_size))

    def batches(self, split: Split, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Go through a split once, in the order of the data and without augmentation, outside a trainer.

        Args:
            split: the split.
            device: where the features are computed.
        """
        for batch in self._gathering(split, BatchOrder(self._size(split), self.batch_size)):
            made = self.transform(self._raw(*(tensor.to(device) for tensor in batch)))
            assert isinstance(made, Batch)
            yield made

    def n_clips(self, split: Split) -> int:
        """Return the number of clips of a split."""
        return self._size(split)

    def clips_at(self, split: Split, positions: Sequence[int]) -> _Raw:
        """Return some clips of a split as they are gathered; :meth:`transform` makes features of them.

        Args:
            split: the split.
            positions: of the clips, in the order of the data.

        Raises:
            IndexError: the split has no such clip.
        """
        n_clips = self._size(split)
        outside = [position for position in positions if not 0 <= position < n_clips]
        if outside:
            raise IndexError(f"the {split} split has {n_clips} clips, and none at {outside[0]}")
        chosen = np.asarray(positions, dtype=np.int64)
        return self._gathering(split, BatchOrder(n_clips, self.batch_size)).gather(chosen)

    def labels_and_ids(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return labels and identities of all clips of a split, ``(n,)`` each, in the order of the data."""
        batches = list(self._gathering(split, BatchOrder(self._size(split), self.batch_size)))
        return torch.cat([batch[1] for batch in batches]), torch.cat([batch[2] for batch in batches])

    def train_dataloader(self) -> OrderedLoader[_Raw]:
        """Return batches of the training split, in a new order in every epoch."""
        overfit = getattr(self.trainer, "overfit_batches", 0) > 0
        return self._loader("train", shuffle=not overfit)

    def val_dataloader(self) -> OrderedLoader[_Raw]:
        """Return batches of the validation split."""
        return self._loader("validation")

    def test_dataloader(self) -> OrderedLoader[_Raw]:
        """Return batches of the test split."""
        return self._loader("test")

    def predict_dataloader(self) -> OrderedLoader[_Raw]:
        """Return batches of the test split."""
        return self._loader("test")

    def _loader(self, split: Selected, shuffle: bool = False) -> OrderedLoader[_Raw]:
        """Return the batches of this process.

        Raises:
            UserError: there are more processes than clips; the others would wait for those without any forever.
        """
        rank, world_size = place_among_processes()
        n_clips = self._size(split)
        if n_clips < world_size:
            raise UserError(
                f"the {split} split has {n_clips} clips for {world_size} processes, each of which needs one: give"
                " fewer trainer.devices, or another split of the data"
            )
        order = BatchOrder(
            n_clips,
            self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return self._gathering(split, order, on_gpu)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make features on the model's device, in training of what is changed at random."""
        if not isinstance(batch, self._raw):
            return batch
        if self.trainer is None:
            return self.transform(batch)
        if self.trainer.training:
            made = self.transform(batch, training=True, epoch=self.trainer.current_epoch)
        else:
            made = self.transform(batch)
        return made._replace(features=self.trainer.precision_plugin.convert_input(made.features))

    # ------------------------------------------------------------------ checkpoints

    @abstractmethod
    def statistics(self) -> dict[str, Tensor]:
        """Return what was estimated on the training split and belongs to the network from then on."""

    @abstractmethod
    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take over the statistics of a checkpoint.

        Raises:
            UserError: they are those of other data.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the label names, the statistics and what the data are; plain types and tensors."""
        return {
            "label_names": self.label_names,
            "source": self.identity,
            "statistics": {name: tensor.cpu().clone() for name, tensor in self.statistics().items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the statistics of a checkpoint.

        Raises:
            UserError: the checkpoint's labels or statistics are others than those of these data.
        """
        if state_dict["label_names"] != self.label_names:
            raise UserError(
                f"the checkpoint tells apart {', '.join(state_dict['label_names'])}, but these data have "
                f"{', '.join(self.label_names)}; give the labels that it was trained with"
            )
        self.load_statistics(state_dict["statistics"])

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | Mapping[str, Any], **replacements: Any) -> Self:
        """Rebuild the data module that a network was trained with: its settings, labels and statistics.

        Args:
            checkpoint: a checkpoint file, or what ``torch.load`` made of one.
            **replacements: arguments of the constructor that are to be others, such as ``batch_size``.

        Raises:
            UserError: the file is missing or is not a checkpoint with these data.
        """
        settings, state, where = cls.kept_in(checkpoint)
        data = cls(**{**cls.arguments_of(settings, f"{where}: data", without=replacements), **replacements})
        data._remember(state)
        data.load_state_dict(state)
        return data

    def _remember(self, state: Mapping[str, Any]) -> None:
        """Take over of a checkpoint's state what stays as it was, whatever the data have become."""

    @classmethod
    def clip_features_from_checkpoint(cls, checkpoint: str | Path | Mapping[str, Any]) -> ClipFeatures | None:
        """Rebuild what a network expects of recordings, without its data; None: it was not trained on any."""
        return None

    @classmethod
    def kept_in(
        cls, checkpoint: str | Path | Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], str]:
        """Return the settings and the state that a checkpoint keeps of this data module, and what a message calls it.

        Args:
            checkpoint: a checkpoint file, or what ``torch.load`` made of one.

        Raises:
            UserError: the file is missing or is not a checkpoint with these data.
        """
        contents, where = open_checkpoint(checkpoint)
        settings = contents.get(cls.CHECKPOINT_HYPER_PARAMS_KEY, {}).get(SETTINGS_KEY)
        state = contents.get(cls.__qualname__)
        if settings is None or state is None:
            raise UserError(
                f"{where}: holds no settings of {cls.__qualname__}; expected a checkpoint that asr-dni fit wrote"
            )
        missing = [key for key in ("label_names", "statistics") if key not in state]
        if missing:
            raise UserError(
                f"{where}: {cls.__qualname__} has no {missing[0]}; expected a checkpoint that asr-dni fit wrote"
            )
        return dict(settings), state, where

    @classmethod
    def arguments_of(
        cls, settings: Mapping[str, Any], where: str, without: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return the constructor's arguments of plain settings; those ``without`` are left out, and not looked at."""
        hints = {name: hint for name, hint in get_type_hints(cls.__init__).items() if name != "return"}
        made: dict[str, Any] = {}
        nested = []
        for name, hint in hints.items():
            if isinstance(hint, type) and issubclass(hint, Configured):
                nested.append(name)
                if name not in without:
                    made[name] = from_configuration(settings.get(name), hint, f"{where}.{name}")
            elif dataclasses.is_dataclass(hint):
                nested.append(name)
                made_of: Any = hint
                made[name] = made_of(**checked_arguments(made_of, settings.get(name), f"{where}.{name}"))
        flat = {name: value for name, value in settings.items() if name not in nested}
        return {**made, **checked_arguments(cls, flat, where, skip=nested)}


def _plain(value: Any) -> Any:
    if isinstance(value, Configured):
        return value.configuration()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value) if isinstance(value, Path) else value
