"""Weights that are averaged over the steps or epochs of a training: one network is validated, kept and tested."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    Callback,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from asr_dni.errors import UserError

CURRENT_STATE_KEY = "current_model_state"
"""Where a checkpoint has the weights that its training goes on with, if its ``state_dict`` has averaged ones."""


def averages_weights(callback: object) -> bool:
    """Return whether a callback of Lightning averages weights."""
    return isinstance(callback, StochasticWeightAveraging | WeightAveraging)


class AveragedWeights(Callback):
    """Makes the average of the weights the network of the run: it is validated, chosen by, kept and tested.

    Lightning's ``WeightAveraging`` does so by itself; its ``StochasticWeightAveraging`` only puts the average into the
    network when everything has been validated and saved. Here a checkpoint has the average from the first epoch on in
    which there is one, and the weights that a resumed training goes on with under :data:`CURRENT_STATE_KEY`, as
    ``WeightAveraging`` has them. It has to come behind the averaging callback, and that behind the callbacks that look
    at the network after a validation.

    Args:
        callbacks: those of the run.
        settings: of the averaging, noted with the training.
        network: that is trained.

    Raises:
        UserError: two of them average, or a checkpoint would keep weights that are not those that it was chosen by, or
            StochasticWeightAveraging would average a network with batch normalisation, whose running statistics it
            makes at the end of the run alone: until then they are not those of the average.
    """

    def __init__(
        self,
        callbacks: Sequence[object],
        settings: Mapping[str, Any] | None = None,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        averaging = [callback for callback in callbacks if averages_weights(callback)]
        names = [type(callback).__name__ for callback in averaging]
        if len(averaging) > 1:
            raise UserError(f"trainer.callbacks: {' and '.join(names)} both average the weights; give one")
        for callback in callbacks:
            if averaging and isinstance(callback, ModelCheckpoint) and callback.save_weights_only:
                raise UserError(
                    f"save_weights_only of {type(callback).__name__} would keep the weights before {names[0]} averages"
                    " them: leave it out"
                )
        self._stochastic = next((c for c in averaging if isinstance(c, StochasticWeightAveraging)), None)
        layers = () if network is None else network.modules()
        if self._stochastic is not None and any(isinstance(layer, _BatchNorm) for layer in layers):
            raise UserError(
                "trainer.callbacks: StochasticWeightAveraging has no running statistics for the batch normalisation of"
                " a network with convolutions before the run's end; give EMAWeightAveraging or WeightAveraging"
            )
        self._settings = {name: value for name, value in (settings or {}).items() if name != "device"}
        self._current: list[Tensor] | None = None

    def training_settings(self) -> dict[str, dict[str, Any]]:
        """Return what tells trainings apart, see :func:`asr_dni.model.training.describe_training`."""
        return {"averaging": self._settings} if self._settings else {}

    def _average(self, pl_module: pl.LightningModule) -> dict[str, Tensor]:
        """Return the averaged parameters by name; none where nothing has been averaged."""
        if self._stochastic is None:
            return {}
        state = self._stochastic.state_dict()
        if not state["n_averaged"]:
            return {}
        return {name: state["average_model_state"][name] for name, _ in pl_module.named_parameters()}

    @torch.no_grad()
    def _use_average(self, pl_module: pl.LightningModule) -> None:
        average = self._average(pl_module)
        for name, parameter in pl_module.named_parameters():
            parameter.copy_(average.get(name, parameter))

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        if trainer.state.fn == TrainerFn.FITTING and self._average(pl_module):
            self._current = [parameter.detach().clone() for parameter in pl_module.parameters()]
            self._use_average(pl_module)

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on training the weights that are averaged."""
        if self._current is not None:
            for parameter, current in zip(pl_module.parameters(), self._current, strict=True):
                parameter.copy_(current)
            self._current = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the network, also where the training was ended early."""
        self._use_average(pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the average, and beside it what the training goes on with."""
        average = self._average(pl_module)
        if average:
            checkpoint[CURRENT_STATE_KEY] = checkpoint["state_dict"]
            checkpoint["state_dict"] = checkpoint["state_dict"] | average

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on training the weights that were averaged."""
        if self._stochastic is not None and CURRENT_STATE_KEY in checkpoint:
            pl_module.load_state_dict(checkpoint[CURRENT_STATE_KEY])
