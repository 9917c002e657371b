"""Sharpness-aware minimisation: gradients are taken where the loss is highest near the weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from asr_dni.errors import UserError
from asr_dni.model.gradients import beside, norms_by_member
from asr_dni.model.network import KeywordNetwork
from asr_dni.model.step import TrainingRecipe

_SMALLEST_NORM = 1e-12


class SharpnessAware(pl.LightningModule):
    """A module whose steps are those of SAM where its recipe says so (P. Foret et al., arXiv:2010.01412).

    With w the weights and g their gradient, the optimiser takes a step from w with the gradient at
    w + rho g / ||g||, the norm being that of all weights of a network. Both passes are of one step: the same clips,
    noise and dropout. The second one is not logged, and running statistics and the size of signals do not follow it.
    """

    recipe: TrainingRecipe
    network: KeywordNetwork

    second_pass: bool = False
    """Whether the weights are moved."""

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Take the optimiser's step.

        Raises:
            UserError: gradients are accumulated over several batches, which all would have to be passed again.
        """
        closure = optimizer_closure
        if self.recipe.sam_rho and closure is not None:
            check_accumulation(self.recipe, self.trainer.accumulate_grad_batches)
            closure = self.in_two_passes(closure)
        super().optimizer_step(epoch, batch_idx, optimizer, closure)

    def in_two_passes(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return forward and backward pass at the weights, then where they are moved to."""

        def both() -> Any:
            loss = closure()
            with self._moved():
                closure()
            return loss

        return both

    @contextmanager
    def _moved(self) -> Iterator[None]:
        """Move the weights by rho along their gradient for a block; afterwards they are what they were."""
        moved = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        before = [parameter.detach().clone() for parameter in moved]
        _move(moved, self.recipe.sam_rho, of_several=self.network.networks is not None)
        self.second_pass = True
        try:
            yield
        finally:
            self.second_pass = False
            with torch.no_grad():
                for parameter, value in zip(moved, before, strict=True):
                    parameter.copy_(value)


@torch.no_grad()
def _move(parameters: Sequence[Tensor], rho: float, of_several: bool) -> None:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not of_several:
        gradients = [gradient[None] for gradient in gradients]
    factors = rho / (norms_by_member(gradients) + _SMALLEST_NORM)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.add_((gradient * beside(factors, gradient)).view_as(parameter))


def check_accumulation(recipe: TrainingRecipe, batches: int) -> None:
    """Check that gradients are of one batch where SAM takes them twice.

    Raises:
        UserError: they are accumulated over several batches.
    """
    if recipe.sam_rho and batches != 1:
        raise UserError(
            f"trainer.accumulate_grad_batches is {batches}, but model.sam_rho takes two passes of each batch: give 1,"
            " and a larger data.batch_size"
        )
