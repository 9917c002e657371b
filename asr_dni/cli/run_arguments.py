"""The command line of a run before it is parsed: configurations in place of their names, and which data there are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from asr_dni.bounded_yaml import load_yaml
from asr_dni.configuration import as_text, expand_layers
from asr_dni.data import KeywordData, data_class_of, find_data_class
from asr_dni.errors import UserError
from asr_dni.model import KeywordSpotter, load_checkpoint
from asr_dni.model.spotter import arguments_from_settings
from asr_dni.models import find_checkpoint, packaged_name


def configuration_of(checkpoint: Path, contents: Mapping[str, Any], training: bool) -> list[str]:
    """Return the settings of a checkpoint's run, as arguments: from its folder, else what the checkpoint holds.

    Args:
        checkpoint: its file.
        contents: what is in it.
        training: whether a training goes on from it.

    Raises:
        UserError: it is none, or a training goes on and nothing is in its folder: a checkpoint does not hold the
            annealing, the optimiser and the trainer's settings, in place of which there would be others.
    """
    for folder in checkpoint.resolve().parents[:2]:
        if (folder / "config.yaml").is_file():
            return expand_layers(["--config", str(folder / "config.yaml")])
    model = dict(contents.get(KeywordSpotter.CHECKPOINT_HYPER_PARAMS_KEY, {}).get("model", {}))
    data = dict(contents.get(pl.LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY, {}).get("data", {}))
    if model:
        arguments_from_settings(model, str(checkpoint))
    data_class = data_class_of(contents)
    if not model or not data or data_class is None:
        raise UserError(
            f"{checkpoint}: holds no keyword spotter; expected a checkpoint that asr-dni fit wrote"
        )
    if training:
        raise UserError(
            f"{checkpoint}: has no config.yaml beside it or in the folder above, and does not say itself with which"
            " annealing, optimizer and trainer settings to go on: give its run's as well, --config FILE, or put"
            " config.yaml there"
        )
    settings = settings_of_run(data_class.__qualname__, data, model)
    return ["--config", as_text(settings, checkpoint)]


def settings_of_run(data_class: str, data: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings of data and network, as a configuration has them.

    Args:
        data_class: name of the data module's class.
        data: hyper-parameters of the data module.
        model: hyper-parameters of the keyword spotter.
    """
    # What is left out follows from the data and from seed_everything.
    noise = {key: value for key, value in model["noise"].items() if key != "seed"}
    own = {key: value for key, value in model.items() if key not in ("label_names", "n_features")}
    return {
        "seed_everything": data.get("seed", 0),
        "data_class": data_class,
        "data": {key: value for key, value in data.items() if key != "seed"},
        "model": {**own, "noise": noise},
    }


def name_of_data_class(arguments: Sequence[str]) -> str:
    """Return the name of the data module's class: the last ``data_class`` of configurations and command line.

    It has to be known before the parser is built, which has this class's settings.

    Args:
        arguments: with the text of configurations in place of their files' names.

    Raises:
        UserError: there is no such class.
    """
    chosen: Any = KeywordData.__qualname__
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if not equals:
            value = arguments[index + 1] if index + 1 < len(arguments) else ""
        if option == "--data_class":
            chosen = value
        elif option == "--config":
            contents = load_yaml(value)
            chosen = contents.get("data_class", chosen) if isinstance(contents, dict) else chosen
    find_data_class(str(chosen))
    return str(chosen)


def with_configuration(subcommand: str, arguments: list[str]) -> list[str]:
    """Read the layers of configurations; where there is a checkpoint alone, take the settings of its run."""
    checkpoint: str | None = None
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == "--ckpt_path":
            checkpoint = value if equals else (arguments[index + 1] if index + 1 < len(arguments) else "")
            if not checkpoint or checkpoint.startswith("--"):
                raise UserError("--ckpt_path needs a value: the name of a .ckpt file that asr-dni fit wrote")
            if packaged_name(checkpoint) is not None:  # Lightning opens files only
                checkpoint = str(find_checkpoint(checkpoint))
                arguments[index] = f"--ckpt_path={checkpoint}"
                del arguments[index + 1 : index + (1 if equals else 2)]
    if checkpoint in (None, "null"):
        return expand_layers(arguments)
    assert checkpoint is not None
    contents = load_checkpoint(checkpoint)  # a file that is none is told before anything is built
    names_config = any(argument.partition("=")[0] in ("--config", "-c") for argument in arguments)
    if names_config:
        return expand_layers(arguments)
    return [*configuration_of(Path(checkpoint), contents, subcommand == "fit"), *arguments]
