"""What the data modules share: loaders of the splits, and what a checkpoint keeps of the data."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from pytorch_lightning import LightningDataModule

from asr_dni.bounds import at_most
from asr_dni.checkpoint import open_checkpoint
from asr_dni.data.batch import Batch, BatchOrder, OrderedLoader
from asr_dni.data.source import SPLITS, Split
from asr_dni.errors import UserError
from asr_dni.processes import place_among_processes

SETTINGS_KEY = "data"
"""Key of the hyper-parameters: one, so that no setting collides with one of the model's."""

Selected: TypeAlias = Split | Literal["predict"]

_Raw = TypeVar("_Raw", bound=tuple[Any, ...])


class SplitData(LightningDataModule, ABC, Generic[_Raw]):
    """A data module whose batches are gathered from memory and become features on the model's device.

    A subclass says what is gathered (:meth:`_size`, :meth:`_gathering`) and what becomes of it (:meth:`transform`).

    Args:
        batch_size: clips in a batch (per process).
        seed: of the order of the clips, and of what happens to them in training.

    Raises:
        UserError: a setting that is not valid.
    """

    _raw: ClassVar[type[Any]]
    """Type of the batches that are gathered."""

    def __init__(self, batch_size: int, seed: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size: {batch_size} is not valid; give 1 or more")
        if seed < 0:
            raise UserError(f"seed: {seed} is not valid; give 0 or more")
        at_most("batch_size", batch_size, 2**20)
        self.batch_size = batch_size
        self.seed = seed

    @abstractmethod
    def _size(self, split: Selected) -> int:
        """Return the number of clips of a split."""

    @abstractmethod
    def _gathering(self, split: Selected, order: BatchOrder, pin_memory: bool = False) -> OrderedLoader[_Raw]:
        """Return the loader that gathers the clips of a split in an order."""

    @abstractmethod
    def transform(self, batch: _Raw, *, training: bool = False, epoch: int = 0) -> Batch:
        """Turn what was gathered into features ``(N, T, F)`` on the same device.

        Args:
            batch: on any device.
            training: whether it is changed at random.
            epoch: of the training; with the seed and the clip it decides how.
        """

    def describe(self) -> str:
        """Return how many clips each split has, in one line."""
        return ", ".join(f"{split} {self._size(split):,} clips" for split in SPLITS)

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

    @classmethod
    def _kept(
        cls, checkpoint: str | Path | Mapping[str, Any], otherwise: str
    ) -> tuple[dict[str, Any], dict[str, Any], str]:
        """Return the settings and the state that a checkpoint keeps of this data module, and what a message calls it.

        Args:
            checkpoint: a checkpoint file, or what ``torch.load`` made of one.
            otherwise: what is the matter with a checkpoint that has none.

        Raises:
            UserError: the file is missing or is not a checkpoint with these data.
        """
        contents, where = open_checkpoint(checkpoint)
        settings = contents.get(cls.CHECKPOINT_HYPER_PARAMS_KEY, {}).get(SETTINGS_KEY)
        state = contents.get(cls.__qualname__)
        if settings is None or state is None:
            raise UserError(f"{where}: {otherwise}; expected a checkpoint that asr-dni fit wrote")
        missing = [key for key in ("label_names", "statistics") if key not in state]
        if missing:
            raise UserError(
                f"{where}: {cls.__qualname__} has no {missing[0]}; expected a checkpoint that asr-dni fit wrote"
            )
        return dict(settings), state, where
