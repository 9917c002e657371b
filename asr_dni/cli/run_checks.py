"""Mistakes in what a run is, found before anything is built or written."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from asr_dni.checkpoint import check_evaluable, check_resumable, load_weights
from asr_dni.errors import UserError
from asr_dni.model import KeywordSpotter, NoiseAnnealing

logger = logging.getLogger(__name__)


def check_name(given: str) -> None:
    """Check that a run's folder is one below ``--runs``.

    Raises:
        UserError: it is not.
    """
    name = Path(given)
    if not name.parts or name.is_absolute() or ".." in name.parts:
        raise UserError(
            f"name is {given or 'empty'}: give a folder below --runs, such as spotter or words/lstm"
        )


def check_length(trainer: Mapping[str, Any]) -> None:
    """Check that a training's length is known.

    Raises:
        UserError: it is not, or there is nothing to train.
    """
    epochs, steps = trainer.get("max_epochs"), int(trainer.get("max_steps", -1))
    if epochs is not None and (epochs < -1 or epochs == 0):
        raise UserError(f"trainer.max_epochs is {epochs}: give 1 or more")
    if steps < -1 or steps == 0 or (epochs == -1 and steps == -1):
        raise UserError(
            f"trainer.max_epochs is {epochs} and trainer.max_steps {steps}: noise and learning rate are scheduled"
            " over a run of known length; give 1 or more of either"
        )


def check_annealing(model: KeywordSpotter, annealing: Mapping[str, Any]) -> None:
    """Check that the hardware can have the strengths that the annealing begins and ends with.

    A hardware whose own strength is given, and that the annealing keeps at 0, is warned of.

    Raises:
        UserError: it cannot.
    """
    noise = model.noise_settings
    NoiseAnnealing(**annealing).check(noise.noise.hardware, model.strength)
    jumps = annealing["schedule"] == "constant"
    visited = [annealing["sigma"]]
    visited += [annealing["start"]] if not jumps or annealing["warm_up"] > 0 else []
    for value in visited:
        try:
            noise.at(value)
        except UserError as error:
            raise UserError(
                f"{error}; it is annealed from annealing.start {annealing['start']:g} to annealing.sigma"
                f" {annealing['sigma']:g}, at once with annealing.schedule constant"
            ) from None
    own = noise.noise.hardware.value(model.strength)
    if noise.hardware is not None and own and not any(visited):
        logger.warning(
            "the training's hardware says %s %g, but the annealing keeps it at 0: give annealing.sigma %g (and"
            " annealing.schedule constant to have it from the start)",
            model.strength.path,
            own,
            own,
        )


def check_optimizer(model: KeywordSpotter) -> None:
    """Check that the optimiser is one, which Lightning does only when the run's folder is there.

    Raises:
        UserError: it is not, or its settings are not valid.
    """
    optimizer = model.optimizer_callable
    if not callable(optimizer):
        raise UserError(
            f"model.optimizer is {optimizer}: give a class_path, such as torch.optim.Adam, and init_args"
        )
    try:
        made = optimizer(model.parameters())
    except (ValueError, TypeError) as error:
        raise UserError(f"model.optimizer: {' '.join(str(error).split())}") from error
    if not isinstance(made, Optimizer):
        raise UserError(
            f"model.optimizer makes a {type(made).__name__}: give an optimiser, such as torch.optim.Adam"
        )


def check_fits(model: KeywordSpotter, contents: Mapping[str, Any], checkpoint: str, training: bool) -> None:
    """Check that a checkpoint is of this network and these labels, and load its weights.

    Args:
        model: as the settings describe it.
        contents: of the checkpoint.
        checkpoint: its file, for messages.
        training: whether a training goes on from it.

    Raises:
        UserError: it is of others, or cannot be used so.
    """
    trained = contents.get(KeywordSpotter.CHECKPOINT_HYPER_PARAMS_KEY, {}).get("model", {})
    known, asked = trained.get("label_names", model.label_names), model.label_names
    if known != asked:
        differ = f"{checkpoint}: knows the labels {', '.join(known)}, but the data have {', '.join(asked)}"
        raise UserError(
            f"{differ}; a training goes on with its own labels"
            if training
            else f"{differ}; for another folder's clips use: asr-dni noise-curve {checkpoint} --data FOLDER"
        )
    check_evaluable(contents, checkpoint)
    load_weights(model, contents, checkpoint)  # the trainer does so again
    if training:
        check_resumable(contents, checkpoint, model.optimizer_callable, model)


def progress_of(contents: Mapping[str, Any]) -> tuple[int, int]:
    """Return the epochs and steps that a checkpoint's training had done."""
    try:
        epochs = contents["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        return int(epochs), int(contents["global_step"])
    except (KeyError, TypeError, ValueError):
        return 0, 0
