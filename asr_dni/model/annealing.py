"""Move the training noise over the run."""

import math
from typing import Any, Literal, TypeAlias

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from asr_dni.errors import UserError
from asr_dni.model.spotter import KeywordSpotter
from asr_dni.model.step import DrawnBySample
from asr_dni.noise import Hardware, Strength
from asr_dni.philox import derive_key

Schedule: TypeAlias = Literal["constant", "linear", "cosine", "exponential", "steps"]
Drawn: TypeAlias = Literal["no", "batch", "sample"]


class NoiseAnnealing(Callback):
    """Sets sigma_train of a :class:`~asr_dni.model.spotter.KeywordSpotter` from the progress of the run, and logs it.

    With p the progress of the run in [0, 1] and q = clip((p - warm_up) / length, 0, 1), sigma_train is

    - ``constant``: ``start`` while p < warm_up, ``sigma`` from then on;
    - ``linear``: start + (sigma - start) q;
    - ``cosine``: start + (sigma - start) (1 - cos(pi q)) / 2;
    - ``exponential``: start (sigma / start)**q, both above 0;
    - ``steps``: start + (sigma - start) floor(n_steps q) / n_steps.

    That is the strength of every step, or, with ``drawn: batch``, the far end of what it is drawn from: uniformly
    between ``start`` and it, anew for each training step and the same for all clips of the step's batch (variance-aware
    training, arXiv:2503.16183, draws it likewise, from another distribution). The number drawn depends on the noise's
    seed and the step alone. With ``drawn: sample`` each clip of the batch has a strength of its own, uniform between
    the same two, which depends on the noise's seed, the step and the clip; what is logged is then the schedule's. It
    has to be the sigma of an output model that is drawn afresh in every pass: weights, converters and what else is of a
    chip all clips of a step share.

    It goes down where ``sigma`` is below ``start``. Sigma is a function of how far the run is, so a run that is
    resumed from a checkpoint goes on exactly where it was. It is logged as ``sigma_train`` at every logged step
    and at the end of every epoch.

    Args:
        sigma: sigma_train at the end of the movement.
        start: sigma_train at its beginning, and during the warm-up.
        schedule: the shape of the movement.
        warm_up: part of the run, in [0, 1], in which sigma stays at ``start``.
        length: part of the run that the movement takes; after it sigma stays where it is. ``constant`` jumps, and does
            not use it.
        by: whether sigma moves at every optimiser ``step`` or only at the beginning of an ``epoch``.
        n_steps: number of jumps of the schedule ``steps``; the others do not use it.
        drawn: whether the strength is as the schedule has it (``no``) or drawn at random for each ``batch`` or
            ``sample``.

    Raises:
        UserError: a value is out of its range, or the length of the run is not known (``max_epochs: -1``).
    """

    def __init__(
        self,
        sigma: float = 0.0,
        start: float = 0.0,
        schedule: Schedule = "linear",
        warm_up: float = 0.0,
        length: float = 1.0,
        by: Literal["step", "epoch"] = "step",
        n_steps: int = 4,
        drawn: Drawn = "no",
    ) -> None:
        super().__init__()
        for name, value in (("sigma", sigma), ("start", start)):
            if not (value >= 0 and math.isfinite(value)):
                raise UserError(f"annealing {name} is {value}: give a finite number of at least 0")
        if schedule not in ("constant", "linear", "cosine", "exponential", "steps"):
            raise UserError(
                f"annealing schedule is {schedule!r}: give constant, linear, cosine, exponential or steps"
            )
        if schedule == "exponential" and not (sigma > 0 and start > 0):
            raise UserError("annealing schedule exponential needs sigma and start above 0")
        if not 0 <= warm_up <= 1:
            raise UserError(f"annealing warm_up is {warm_up}: give a part of the run, from 0 to 1")
        if not 0 < length <= 1:
            raise UserError(f"annealing length is {length}: give a part of the run, above 0 and up to 1")
        if by not in ("step", "epoch"):
            raise UserError(f"annealing by is {by!r}: give step or epoch")
        if n_steps < 1:
            raise UserError(f"annealing n_steps is {n_steps}: give 1 or more")
        if drawn not in ("no", "batch", "sample"):
            raise UserError(f"annealing drawn is {drawn!r}: give no, batch or sample")
        self.drawn = drawn
        self.sigma, self.start, self.schedule = sigma, start, schedule
        self.warm_up, self.length, self.by, self.n_steps = warm_up, length, by, n_steps

    def sigma_at(self, progress: float) -> float:
        """Return sigma_train when ``progress`` (0 to 1) of the run is done."""
        if self.schedule == "constant":
            return self.start if progress < self.warm_up else self.sigma
        q = min(max((progress - self.warm_up) / self.length, 0.0), 1.0)
        if self.schedule == "exponential":
            return float(self.start * (self.sigma / self.start) ** q)
        if self.schedule == "cosine":
            q = (1 - math.cos(math.pi * q)) / 2
        elif self.schedule == "steps":
            q = math.floor(self.n_steps * q) / self.n_steps
        return self.start + (self.sigma - self.start) * q

    def training_settings(self) -> dict[str, dict[str, Any]]:
        """Return what tells trainings apart, see :func:`asr_dni.model.training.describe_training`."""
        names = ["sigma", "start", "schedule", "warm_up", "by"]
        names += [] if self.schedule == "constant" else ["length"]
        names += ["n_steps"] if self.schedule == "steps" else []
        names += ["drawn"] if self.drawn != "no" else []
        return {"annealing": {name: getattr(self, name) for name in names}}

    def _progress(self, trainer: pl.Trainer) -> float:
        steps = trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise UserError(
                "noise annealing needs a run of known length: give trainer.max_epochs or max_steps"
            )
        if self.by == "step" or trainer.max_epochs in (None, -1):
            return min(trainer.global_step / steps, 1.0)
        assert trainer.max_epochs is not None
        return min(trainer.current_epoch / trainer.max_epochs, 1.0)

    def sigma_now(self, trainer: pl.Trainer, seed: int = 0) -> float:
        """Return sigma_train of the step that ``trainer`` is about to take.

        Args:
            trainer: of the run.
            seed: of the noise, for a strength that is drawn.

        Raises:
            UserError: the length of the run is not known.
        """
        sigma = self.sigma_at(self._progress(trainer))
        return self.drawn_for(sigma, seed, trainer.global_step) if self.drawn == "batch" else sigma

    def by_sample(self, sigma: float, strength: Strength) -> DrawnBySample | None:
        """Return what the clips' strengths are drawn from; ``None`` where all clips of a step have the same.

        Args:
            sigma: of the step, as :meth:`sigma_now` has it.
            strength: that is annealed.
        """
        return DrawnBySample(self.start, sigma, strength) if self.drawn == "sample" else None

    def check(self, hardware: Hardware, strength: Strength) -> None:
        """Check that a hardware's strength can be drawn so.

        Raises:
            UserError: it is to be drawn for each sample, and cannot differ among them.
        """
        if self.drawn == "sample":
            try:
                hardware.varies_by_sample(strength)
            except UserError as error:
                raise UserError(f"annealing drawn is sample: {error}") from None

    def drawn_for(self, sigma: float, seed: int, step: int) -> float:
        """Return the strength of a training step, uniform between ``start`` and ``sigma``.

        Args:
            sigma: what the schedule has.
            seed: of the noise.
            step: that is about to be taken.
        """
        share = np.random.default_rng(derive_key(seed, "strength", step)).random()
        return self.start + (sigma - self.start) * float(share)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tell the module where its noise goes."""
        if not isinstance(pl_module, KeywordSpotter):
            raise UserError(f"noise annealing needs a KeywordSpotter, not a {type(pl_module).__name__}")
        if stage == "fit":
            self.check(pl_module.training_noise.hardware, pl_module.strength)
            pl_module.annealed_to = self.sigma

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the module again: a checkpoint that it goes on from may have been on its way elsewhere."""
        assert isinstance(pl_module, KeywordSpotter)
        pl_module.annealed_to = self.sigma

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set sigma_train for this step."""
        assert isinstance(pl_module, KeywordSpotter)
        pl_module.sigma_train = self.sigma_now(trainer, pl_module.noise_settings.seed)
        pl_module.drawn = self.by_sample(pl_module.sigma_train, pl_module.strength)
        pl_module.log("sigma_train", pl_module.sigma_train)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log sigma_train of the epoch's last step, also where epochs are shorter than the logging interval."""
        assert isinstance(pl_module, KeywordSpotter)
        pl_module.log("sigma_train", pl_module.sigma_train)
