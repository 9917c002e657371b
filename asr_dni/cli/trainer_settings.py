"""Settings of Lightning's trainer that it takes without a look, and trips over later or does nothing with."""

import os
import traceback
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse.typing import register_type
from lightning_utilities.core.enums import StrEnum
from pytorch_lightning.callbacks import BaseFinetuning, BatchSizeFinder, LearningRateFinder, ModelPruning
from pytorch_lightning.callbacks.spike import SpikeDetection

from asr_dni.errors import UserError

_AT_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "min_epochs": 0,
    "min_steps": 0,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,
    "reload_dataloaders_every_n_epochs": 0,
}
_UNSUITABLE: dict[type, str] = {
    BatchSizeFinder: "give data.batch_size",
    LearningRateFinder: "give model.optimizer.init_args.lr",
    BaseFinetuning: "a network is trained as a whole: leave it out",
    ModelPruning: "weights are trained as they are: leave it out",
    SpikeDetection: "leave it out",
}
_STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")


def make_settings_readable_again() -> None:
    """Let a run's configuration be written, and read when it is resumed, where it has a device or an enumeration."""
    register_type(torch.device)
    yaml.SafeDumper.add_multi_representer(StrEnum, _represent)


def _represent(dumper: yaml.SafeDumper, value: Enum) -> yaml.ScalarNode:
    return dumper.represent_str(str(value.value))


def check_trainer_settings(settings: Mapping[str, Any], fitting: bool) -> None:
    """Check what the trainer does not.

    Args:
        settings: the trainer's, by name.
        fitting: whether it is going to train.

    Raises:
        UserError: a value that is out of its range, or that trains nothing, or nothing sensible.
    """
    for name, least in _AT_LEAST.items():
        value = settings.get(name)
        if isinstance(value, int | float) and not value >= least:
            raise UserError(f"trainer.{name} is {value}: give {least} or more")
    if settings.get("val_check_interval") == 0:
        raise UserError("trainer.val_check_interval is 0: give a part of an epoch, or a number of batches")
    if settings.get("devices") in (0, "0"):
        raise UserError("trainer.devices is 0: give 1 or more, or auto")
    _check_processes(settings)
    strategy = settings.get("strategy")
    if isinstance(strategy, str) and strategy not in _STRATEGIES:
        raise UserError(f"trainer.strategy is {strategy}: give one of {', '.join(_STRATEGIES)}")
    if not fitting:
        return
    if settings.get("limit_train_batches") == 0:
        raise UserError("trainer.limit_train_batches is 0, with which nothing is trained: give 1 or more")
    if settings.get("precision") == "16-true":
        raise UserError(
            "trainer.precision is 16-true, in which small gradients are 0 and nothing is learnt: give 16-mixed or"
            " bf16-true"
        )


def _check_processes(settings: Mapping[str, Any]) -> None:
    """Refuse more processes than cores: on the CPU each of the devices is one, and Lightning starts any number."""
    accelerator = settings.get("accelerator")
    name = getattr(accelerator, "class_path", accelerator)
    on_cpu = str(name).rpartition(".")[2] in ("cpu", "CPUAccelerator") or (
        name in (None, "auto") and not torch.accelerator.is_available()
    )
    try:
        asked = int(settings.get("devices"))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # auto, or numbers of GPUs
        return
    cores = os.cpu_count() or 1
    if on_cpu and asked > cores:
        raise UserError(
            f"trainer.devices is {asked}: on the CPU each is a process, and this machine has {cores} cores; give 1 to"
            f" {cores}"
        )


def check_callbacks(callbacks: Iterable[object]) -> None:
    """Check that no callback is there which a keyword spotter's training does not go together with.

    Raises:
        UserError: one that looks for the best value of a setting, after the schedules have been made for another; that
            wants a network of another kind; or that changes weights behind the network's back.
    """
    for callback in callbacks:
        for kind, instead in _UNSUITABLE.items():
            if isinstance(callback, kind):
                name = type(callback).__name__
                raise UserError(
                    f"trainer.callbacks: {name} does not go together with this training; {instead}"
                )


def raised_by_lightning(error: Exception) -> bool:
    """Return whether Lightning itself found something wrong, not what it calls."""
    *_, innermost = traceback.extract_tb(error.__traceback__)
    return bool({"pytorch_lightning", "lightning_fabric"} & set(Path(innermost.filename).parts))
