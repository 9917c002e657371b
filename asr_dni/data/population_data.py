"""The data of a population: K networks that are trained at once, each on its own order of the clips."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from pytorch_lightning import LightningDataModule, Trainer

from asr_dni.data.batch import Batch, OrderedLoader
from asr_dni.data.modules import SequenceData
from asr_dni.data.source import Split
from asr_dni.errors import UserError

_SETTINGS_KEY = "population"


class PopulationData(LightningDataModule):
    """Training batches for every member of a population, and shared ones for evaluation.

    A member's training batches are those that it would get alone: the datamodule's seed decides the order of the
    clips and their augmentation. Members of one seed share one batch, made once. Validation and test, which no seed
    changes, are the same for all.

    **Training batches** are :class:`~asr_dni.data.batch.Batch` with features ``(N, T, F)``, labels and clip_ids
    ``(N,)`` where all members share one seed, else ``(K, N, T, F)`` and ``(K, N)``. Others are ``(N, T, F)``, ``(N,)``.

    Args:
        data: datamodules that differ in their ``seed`` only. Decoded clips come from one file that is mapped into
            memory, so a further one takes little of it.
        of_member: for each of the K members, the position of its datamodule in ``data``.

    Raises:
        UserError: the datamodules differ in more than their seed, or ``of_member`` does not fit them.

    Example:
        >>> from asr_dni.data import DigitsData
        >>> data = PopulationData.from_seeds(lambda seed: DigitsData(seed=seed), [7, 7, 8])
        >>> data.networks, [part.seed for part in data.data], data.of_member
        (3, [7, 8], (0, 0, 1))
    """

    def __init__(self, data: Sequence[SequenceData], of_member: Sequence[int]) -> None:
        super().__init__()
        self.data = tuple(data)
        self.of_member = tuple(of_member)
        if not self.data or not self.of_member:
            raise UserError(
                "a population needs data and members: give at least one datamodule and one member"
            )
        wrong = [index for index in self.of_member if not 0 <= index < len(self.data)]
        if wrong:
            raise UserError(f"of_member has {wrong[0]}: give positions in the {len(self.data)} datamodules")
        unused = set(range(len(self.data))) - set(self.of_member)
        if unused:
            raise UserError(f"of_member gives datamodule {min(unused)} to no member: leave it out")
        for other in self.data[1:]:
            _check_alike(self.data[0], other)
        self.save_hyperparameters(
            {_SETTINGS_KEY: {"data_seeds": [self.data[i].seed for i in self.of_member]}}
        )

    @classmethod
    def from_seeds(cls, make: Callable[[int], SequenceData], data_seeds: Sequence[int]) -> Self:
        """Make the datamodules, one for each seed that there is.

        Args:
            make: makes the datamodule of a seed.
            data_seeds: one per member.
        """
        distinct = list(dict.fromkeys(data_seeds))
        return cls([make(seed) for seed in distinct], [distinct.index(seed) for seed in data_seeds])

    # ------------------------------------------------------------------ what is known before the data are

    @property
    def networks(self) -> int:
        """K, the number of members."""
        return len(self.of_member)

    @property
    def label_names(self) -> list[str]:
        """The labels in the order of the networks' outputs."""
        return self.data[0].label_names

    @property
    def n_features(self) -> int:
        """Features per frame."""
        return self.data[0].n_features

    @property
    def n_frames(self) -> int:
        """Frames per clip."""
        return self.data[0].n_frames

    @property
    def batch_size(self) -> int:
        """N, clips in a batch of one member."""
        return self.data[0].batch_size

    @property
    def protocol(self) -> str:
        """What an accuracy on the test split has to be called by."""
        return self.data[0].protocol

    def protocol_of(self, split: str) -> str:
        """Return what an accuracy on ``split`` has to be called by."""
        return self.data[0].protocol_of(split)

    def data_of(self, member: int) -> SequenceData:
        """Return the datamodule that a member would be trained with alone."""
        return self.data[self.of_member[member]]

    # ------------------------------------------------------------------ batches

    def prepare_data(self) -> None:
        """Bring the data to the disk; on one process only."""
        self._attach()
        self.data[0].prepare_data()

    def setup(self, stage: str) -> None:
        """Open the splits of the stage."""
        self._attach()
        for data in self.data if stage == "fit" else self.data[:1]:
            data.setup(stage)

    def _attach(self) -> None:
        """Tell the datamodules whose trainer it is: it decides how they shuffle, augment and pin."""
        trainer: Trainer | None = self.trainer
        for data in self.data:
            data.trainer = trainer

    def train_dataloader(self) -> Any:
        """Return each datamodule's batches of the training split; the trainer draws one from each at a step."""
        self._attach()
        loaders = [data.train_dataloader() for data in self.data]
        return loaders[0] if len(loaders) == 1 else loaders

    def val_dataloader(self) -> OrderedLoader[Any]:
        """Return batches of the validation split, the same for all members."""
        return self.data[0].val_dataloader()

    def test_dataloader(self) -> OrderedLoader[Any]:
        """Return batches of the test split, the same for all members."""
        return self.data[0].test_dataloader()

    def batches(self, split: Split, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Go through a split once, without augmentation, outside a trainer; the same for all members."""
        return self.data[0].batches(split, device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make features on the model's device, and a batch of every member's."""
        if not isinstance(batch, list):
            return self._features(self.data[0], batch, dataloader_idx)
        parts = [
            self._features(data, part, dataloader_idx) for data, part in zip(self.data, batch, strict=True)
        ]
        batch = Batch(*(torch.stack(tensors) for tensors in zip(*parts, strict=True)))
        if self.of_member == tuple(range(len(self.data))):
            return batch
        rows = torch.tensor(self.of_member, device=batch.labels.device)
        return Batch(*(tensor.index_select(0, rows) for tensor in batch))

    @staticmethod
    def _features(data: Any, batch: Any, dataloader_idx: int) -> Any:
        return data.on_after_batch_transfer(batch, dataloader_idx)

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return the data's state and, for each member, what its datamodule puts into an ordinary checkpoint."""
        name = type(self.data[0]).__qualname__
        state = self.data[0].state_dict()
        members = [
            {
                type(data).CHECKPOINT_HYPER_PARAMS_KEY: dict(data.hparams),
                name: state,
            }
            for data in map(self.data_of, range(self.networks))
        ]
        return {
            "data_seeds": [self.data[i].seed for i in self.of_member],
            "of_member": list(self.of_member),
            "data": state,
            "members": members,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the data's state.

        Raises:
            UserError: the checkpoint's members have other seeds of the data, or it is one of other data.
        """
        seeds = [self.data[i].seed for i in self.of_member]
        if state_dict["data_seeds"] != seeds:
            raise UserError(
                f"the checkpoint's members have the data seeds {_listed(state_dict['data_seeds'])}, these have"
                f" {_listed(seeds)}; give the members that it was trained with"
            )
        for data in self.data:
            data.load_state_dict(state_dict["data"])


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _check_alike(first: Any, other: Any) -> None:
    if type(first) is not type(other):
        raise UserError(
            f"the datamodules of a population are {type(first).__name__} and {type(other).__name__}: give one kind"
        )
    settings, others = first.hparams["data"], other.hparams["data"]
    differing = [key for key in settings if key != "seed" and settings[key] != others[key]]
    if differing:
        key = differing[0]
        raise UserError(
            f"the datamodules of a population differ in {key} ({settings[key]} and {others[key]}):"
            " only seed may differ"
        )
