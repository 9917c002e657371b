"""Where in an epoch a training was broken off, and how it goes on there."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import pytorch_lightning as pl


class Place(NamedTuple):
    """Where in an epoch a checkpoint was written.

    Lightning restores it only into loaders that it makes afterwards. The learning rate's schedule asks for the number
    of steps, for which they are made before.

    Attributes:
        step: of the training.
        loaders: the states of the training's loaders.
    """

    step: int
    loaders: list[dict[str, Any]]

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> Self:
        """Return what a checkpoint says."""
        loop = checkpoint.get("loops", {}).get("fit_loop", {}).get("state_dict", {})
        return cls(checkpoint.get("global_step", 0), list(loop.get("combined_loader", [])))

    def restore(self, trainer: pl.Trainer) -> None:
        """Go on with the batches that are left, if ``trainer`` begins with the checkpoint."""
        loaders = trainer.train_dataloader
        loaders = loaders if isinstance(loaders, list) else [loaders]
        if trainer.global_step != self.step or len(loaders) != len(self.loaders):
            return
        for loader, state in zip(loaders, self.loaders, strict=True):
            loader.load_state_dict(state)
