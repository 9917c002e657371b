"""The data modules that there are: what they have in common, and which one a checkpoint was trained with."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from asr_dni.checkpoint import open_checkpoint
from asr_dni.data.batch import Batch, OrderedLoader
from asr_dni.data.datamodule import KeywordData
from asr_dni.data.digits import DigitsData
from asr_dni.data.source import Split
from asr_dni.errors import UserError


class SequenceData(Protocol):
    """What a LightningDataModule offers here: labelled sequences of features, in batches.

    Its hyper-parameters are ``{"data": {...}}``, the constructor's arguments as plain values, and its state is part of
    every checkpoint.
    """

    CHECKPOINT_HYPER_PARAMS_KEY: str
    seed: int
    batch_size: int

    @property
    def label_names(self) -> list[str]:
        """The labels in the order of the network's outputs."""

    @property
    def n_features(self) -> int:
        """Features per step."""

    @property
    def n_frames(self) -> int:
        """Steps of a sequence."""

    @property
    def protocol(self) -> str:
        """What an accuracy on the test split has to be called by."""

    def protocol_of(self, split: str) -> str:
        """Return what an accuracy on ``split`` has to be called by."""

    def prepare_data(self) -> None:
        """Bring the data to the disk; on one process only."""

    def setup(self, stage: str) -> None:
        """Open the splits of ``fit``, ``validate``, ``test`` or ``predict``, and compute the statistics."""

    def train_dataloader(self) -> OrderedLoader[Any]:
        """Return batches of the training split, in a new order in every epoch."""

    def val_dataloader(self) -> OrderedLoader[Any]:
        """Return batches of the validation split."""

    def test_dataloader(self) -> OrderedLoader[Any]:
        """Return batches of the test split."""

    def batches(self, split: Split, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Go through a split once, without augmentation, outside a trainer."""

    def describe(self) -> str:
        """Return how many clips each split has, in one line; once :meth:`setup` was called."""

    def clip_names(self, clip_ids: Iterable[int] | Tensor) -> list[str]:
        """Return the names of clips."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint has to keep; plain types and tensors."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | Mapping[str, Any], **replacements: Any) -> Self:
        """Rebuild the data module that a network was trained with."""


DATA_MODULES: dict[str, type[SequenceData]] = {
    module.__qualname__: module
    for module in (
        KeywordData,
        DigitsData,
    )
}
"""Every data module by its name, which is also the key of its state in a checkpoint. A new one is added here."""


def data_class_of(contents: Mapping[str, Any]) -> type[SequenceData] | None:
    """Return the class of the data module whose state a checkpoint holds; None: there is none.

    Args:
        contents: what ``torch.load`` made of a checkpoint.
    """
    return next((module for name, module in DATA_MODULES.items() if name in contents), None)


def data_from_checkpoint(checkpoint: str | Path | Mapping[str, Any], **replacements: Any) -> SequenceData:
    """Rebuild the data module that a network was trained with, whichever it was.

    Args:
        checkpoint: a checkpoint file, or what ``torch.load`` made of one.
        **replacements: arguments of the data module's constructor that are to be others, such as ``batch_size``.

    Raises:
        UserError: the file is missing or holds no data module's settings.
    """
    contents, where = open_checkpoint(checkpoint)
    module = data_class_of(contents)
    if module is None:
        raise UserError(f"{where}: holds no data settings; expected a checkpoint that asr-dni fit wrote")
    return module.from_checkpoint(contents, **replacements)
