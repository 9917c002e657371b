"""The learning rate over a run, also one that is resumed."""

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from asr_dni.errors import UserError
from asr_dni.model.step import LearningRateSchedule


def schedule_learning_rate(
    optimizer: Optimizer, trainer: pl.Trainer, schedule: LearningRateSchedule, warm_up: float
) -> OptimizerLRSchedulerConfig:
    """Return an optimiser whose learning rate rises and falls by step over the whole run, as Lightning wants it.

    Args:
        optimizer: with the highest rate.
        trainer: of the run.
        schedule: the rate after the warm-up.
        warm_up: part of the run in which it rises linearly.

    Raises:
        UserError: the length of the run is not known.
    """
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps):
        raise UserError("the learning rate's schedule needs a run of known length: give trainer.max_epochs")

    def factor(step: int) -> float:
        progress = min(step / steps, 1.0)
        if progress < warm_up:
            # The first step is taken with half a step's worth, not with a rate of zero.
            return (step + 0.5) / (warm_up * steps)
        rest = (progress - warm_up) / (1 - warm_up)
        if schedule == "constant":
            return 1.0
        return 1.0 - rest if schedule == "linear" else (1.0 + math.cos(math.pi * rest)) / 2

    optimizer.register_load_state_dict_post_hook(_keep_settings)
    scheduler = LearningRateOfRun(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class LearningRateOfRun(LambdaLR):
    """Learning rates as a function of the step, also in a run that is resumed with another length or another rate.

    torch's own goes on with the rate that the checkpoint's run had in its last step, which is 0 where it had ended, and
    with the highest rate of that run.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the step; the rates are those that this run's schedule has there."""
        self.last_epoch, self._step_count = state_dict["last_epoch"], state_dict["_step_count"]
        for group, rate, factor in zip(
            self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True
        ):
            group["initial_lr"], group["lr"] = rate, rate * factor(self.last_epoch)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def _keep_settings(optimizer: Optimizer) -> None:
    """Keep an optimiser's settings where it takes over a checkpoint's state, which has those of another run."""
    for group in optimizer.param_groups:
        group.update({name: value for name, value in optimizer.defaults.items() if name != "lr"})
