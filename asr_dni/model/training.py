"""Say how a network was trained: everything that was configured but the seed, as plain values."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
)
from torch.optim import Optimizer

from asr_dni.identity import NOT_OF_THE_RESULT, data_settings, optimizer_settings
from asr_dni.model.averaging import averages_weights

_ELSEWHERE = (
    # The curve's settings name these by themselves, ...
    "model.network.cell",
    "model.network.units",
    "model.network.layers",
    "model.network.bidirectional",
    "model.network.pooling",
    "model.network.convolutions.blocks",
    "model.network.convolutions.width",
    "model.network.convolutions.folded",
    "model.noise.scale",
    # ... and these follow from the data's.
    "model.n_features",
)

_TARGET = "annealing.sigma"

_OF_THE_TRAINER = (
    "max_epochs",
    "max_steps",
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "limit_train_batches",
    "overfit_batches",
    "world_size",
)


def plain(value: Any) -> Any:
    """Return a setting as JSON has it; of an object that JSON cannot hold, the name of its class.

    Paths become the name of the file or folder: where it lies differs between machines.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return value.name
    if value is None or isinstance(value, str | bool | int | float):
        return json.loads(json.dumps(value))  # makes numpy's float64 and enumerations of strings plain
    return getattr(value, "__qualname__", type(value).__qualname__)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names, without the seeds and what does not change the result."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if key in NOT_OF_THE_RESULT or name in _ELSEWHERE:
            continue
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def describe_training(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: Any = None,
    replaced: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return how ``module`` is being trained, by dotted names such as ``optimizer.lr``.

    It is what tells one experiment from another: the hyper-parameters of the module (``model.``) and of the
    datamodule (``data.``), the optimiser, what callbacks say of themselves in a method
    ``training_settings() -> dict[str, dict]``, early stopping, and what of the trainer changes the result. Two
    trainings that differ in their seed only give the same.

    Args:
        trainer: in the middle of a training, when the optimisers are there.
        module: what it trains.
        data: the datamodule; ``None``: the trainer's.
        replaced: settings by group, such as ``trainer``, that hold instead of those found.
    """
    nested: dict[str, Any] = {"model": dict(module.hparams.get("model", module.hparams))}
    data = getattr(trainer, "datamodule", None) if data is None else data
    if data is not None:
        nested["data"] = data_settings(data)
    optimizers: list[Optimizer] = list(trainer.optimizers)
    for index, optimizer in enumerate(optimizers):
        name = "optimizer" if len(optimizers) == 1 else f"optimizer{index}"
        nested[name] = {"class": type(optimizer), **optimizer_settings(optimizer.defaults)}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        describe = getattr(callback, "training_settings", None)
        if callable(describe):
            nested |= describe()
        elif isinstance(callback, EarlyStopping):
            nested["early_stopping"] = {
                name: getattr(callback, name) for name in ("monitor", "mode", "patience", "min_delta")
            }
        elif averages_weights(callback) or isinstance(callback, GradientAccumulationScheduler):
            nested.setdefault("callbacks", {})[type(callback).__name__] = True
    nested["trainer"] = {name: getattr(trainer, name) for name in _OF_THE_TRAINER}
    for group, settings in (replaced or {}).items():
        nested[group] = {**nested.get(group, {}), **settings}
    return flatten(plain(nested))


def join_trainings(trainings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one description of trainings that followed each other on the same weights.

    Args:
        trainings: what :func:`describe_training` said, the first one first; a training that was resumed as it was
            is one.

    Returns:
        The last one; the earlier ones are listed under ``after``, if there are any.
    """
    *earlier, last = trainings
    # Of the last one it is the curve's sigma_train; of the others nothing else tells it.
    joined = {name: value for name, value in last.items() if name != _TARGET}
    return {**joined, "after": [dict(one) for one in earlier]} if earlier else joined


def goes_on(training: Mapping[str, Any], trainings: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a training is the last one of several, resumed as it was.

    Args:
        training: what :func:`describe_training` says of it.
        trainings: what it said of those before; older ones do not say where the training noise was moved to.
    """
    if not trainings:
        return False
    known = trainings[-1]
    return {name: value for name, value in training.items() if name != _TARGET or name in known} == dict(
        known
    )
