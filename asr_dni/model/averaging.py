"""Weights that are averaged over the steps or epochs of a training: one network is validated, kept and tested."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

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

from asr_dni.checkpoint import CURRENT_STATE_KEY
from asr_dni.errors import UserError

_CLIPS = 1024
"""Of the last training batches, which averaged weights have their running statistics of."""


def averages_weights(callback: object) -> bool:
    """Return whether a callback of Lightning averages weights."""
    return isinstance(callback, StochasticWeightAveraging | WeightAveraging)


class AveragedWeights(Callback):
    """Makes the average of the weights the network of the run: it is validated, chosen by, kept and tested.

    Lightning's ``WeightAveraging`` does so by itself; its ``StochasticWeightAveraging`` only puts the average into the
    network when everything has been validated and saved. Here a checkpoint has the average from the first epoch on in
    which there is one, and the weights that a resumed training goes on with under
    :data:`asr_dni.checkpoint.CURRENT_STATE_KEY`, as ``WeightAveraging`` has them. It has to come behind the averaging
    callback, and that behind the callbacks that look at the network after a validation.

    The running statistics of batch normalisation, of which Lightning keeps an average that belongs to no network, are
    taken anew wherever the average is used: on the epoch's last training batches of 1,024 clips, or what there is, in
    each process, and of all processes together (:func:`asr_dni.model.step.renew_statistics`).

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
        normalises = any(isinstance(layer, _BatchNorm) for layer in layers)
        if self._stochastic is not None and normalises:
            raise UserError(
                "trainer.callbacks: StochasticWeightAveraging has no running statistics for the batch normalisation of"
                " a network with convolutions before the run's end; give EMAWeightAveraging or WeightAveraging"
            )
        self._renews = bool(averaging) and normalises
        self._batches: deque[tuple[int, Any]] = deque()
        self._epoch = 0
        self._renewed: _Renewed | None = None
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

    def _renewed_statistics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Tensor]:
        """Return the running statistics of the weights that are in a module, by name; they are left in it as well."""
        statistics = _statistics_of(pl_module)
        weights = {name: its for name, its in pl_module.named_parameters() if ".convolutions." in name}
        known = self._renewed
        if known is not None and known.step == trainer.global_step and known.are_of(weights):
            for name, its in statistics.items():
                its.copy_(known.statistics[name])
        else:
            cast(_RenewsStatistics, pl_module).renew_statistics(self._batches, self._epoch)
            _pool_over_processes(trainer, pl_module)
            self._renewed = _Renewed(trainer.global_step, _copied(weights), _copied(statistics))
        return statistics

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the batches of the epoch before, which a resumed run would not have."""
        self._batches.clear()
        self._epoch = trainer.current_epoch

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch, which the average's running statistics may be taken of."""
        if self._renews:
            self._batches.append((trainer.global_step, batch))
            clips = sum(len(its.labels) for _, its in self._batches)
            while clips - len(self._batches[0][1].labels) >= _CLIPS:
                clips -= len(self._batches.popleft()[1].labels)

    @torch.no_grad()
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        if self._renews and self._batches and trainer.state.fn == TrainerFn.FITTING:
            self._renewed_statistics(trainer, pl_module)
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

    @torch.no_grad()
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the network, also where the training was ended early."""
        self._use_average(pl_module)
        if self._renews and self._batches:
            self._renewed_statistics(trainer, pl_module)

    @torch.no_grad()
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the average, and beside it what the training goes on with."""
        average = self._average(pl_module)
        if average:
            checkpoint[CURRENT_STATE_KEY] = checkpoint["state_dict"]
            checkpoint["state_dict"] = checkpoint["state_dict"] | average
        if self._renews and self._batches and CURRENT_STATE_KEY in checkpoint:
            parameters = dict(pl_module.named_parameters())
            current = _copied(parameters | _statistics_of(pl_module))
            try:
                for name, parameter in parameters.items():
                    parameter.copy_(checkpoint["state_dict"][name])
                checkpoint["state_dict"] |= _copied(self._renewed_statistics(trainer, pl_module))
            finally:
                for name, its in (parameters | _statistics_of(pl_module)).items():
                    its.copy_(current[name])

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on training the weights that were averaged."""
        if self._stochastic is not None and CURRENT_STATE_KEY in checkpoint:
            pl_module.load_state_dict(checkpoint[CURRENT_STATE_KEY])


class _RenewsStatistics(Protocol):
    """What a :class:`asr_dni.model.spotter.KeywordSpotter`, which needs this module, does here."""

    def renew_statistics(self, batches: Iterable[tuple[int, Any]], epoch: int) -> None: ...


@dataclass(frozen=True)
class _Renewed:
    """Running statistics that were taken anew.

    Attributes:
        step: of the training, at which they were.
        weights: of the convolutions that they belong to, by name.
        statistics: by name.
    """

    step: int
    weights: Mapping[str, Tensor]
    statistics: Mapping[str, Tensor]

    def are_of(self, weights: Mapping[str, Tensor]) -> bool:
        return all(torch.equal(self.weights[name], its) for name, its in weights.items())


def _pool_over_processes(trainer: pl.Trainer, module: nn.Module) -> None:
    """Make running statistics of each process's clips those of all clips, as many in each."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None and layer.running_var is not None:
            own = layer.running_mean.clone()
            layer.running_mean.copy_(trainer.strategy.reduce(own.clone(), reduce_op="mean"))
            square = layer.running_var + (own - layer.running_mean).square()
            layer.running_var.copy_(trainer.strategy.reduce(square, reduce_op="mean"))


def _statistics_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the running statistics of a module's batch normalisations, by their names in its state."""
    return {
        f"{prefix}.{name}": buffer
        for prefix, layer in module.named_modules()
        if isinstance(layer, _BatchNorm)
        for name, buffer in layer.named_buffers(recurse=False)
    }


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: its.detach().clone() for name, its in tensors.items()}
