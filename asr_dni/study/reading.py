"""Reading a study: from YAML files and the command line to settings, data module and optimiser."""

import re
from argparse import ArgumentError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from pytorch_lightning.cli import OptimizerCallable

from asr_dni.bounded_yaml import load_yaml
from asr_dni.configuration import as_text, check_groups, explain, read_layers
from asr_dni.data import SequenceData, SplitData, find_data_class
from asr_dni.errors import UserError
from asr_dni.hardware_files import hardware_names, read_hardware
from asr_dni.named_classes import find_class, only_named_classes
from asr_dni.named_configurations import find_configuration
from asr_dni.study.noise_settings import NONE, NoiseModel, ScheduleSettings
from asr_dni.study.settings import StudySettings

_DEFAULT_DATA = "asr_dni.data.KeywordData"


@dataclass(frozen=True)
class Study:
    """A study as it was read.

    Attributes:
        settings: of the study itself.
        data: ``{"class_path": ..., "init_args": {...}}`` of the data module.
        optimizer: the same of the optimiser, without the parameters.
        text: all of it as YAML, which :func:`parse_study` reads back.
    """

    settings: StudySettings
    data: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    text: str

    def make_data(self, seed: int) -> SequenceData:
        """Return the data module, with another seed.

        Raises:
            UserError: the data module cannot be made.
        """
        return _make_data(self.data, seed)

    def make_optimizer(self, cell: str) -> Callable[..., torch.optim.Optimizer]:
        """Return the optimiser as a function of the parameters, with the learning rate of the cell's recipe."""
        rate = self.settings.recipes.of(cell).learning_rate
        arguments = dict(self.optimizer.get("init_args") or {}) | ({} if rate is None else {"lr": rate})
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--optimizer", type=OptimizerCallable)
        chosen = {"class_path": self.optimizer["class_path"], "init_args": arguments}
        with only_named_classes():
            made = parser.instantiate_classes(parser.parse_object({"optimizer": chosen})).optimizer
        return made  # type: ignore[no-any-return]


def study_parser(prog: str = "asr-dni study run") -> ArgumentParser:
    """Return the parser of a study's settings, which the command line adds its own to."""
    parser = ArgumentParser(prog=prog, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML in addition to the study's file")
    parser.add_class_arguments(StudySettings, as_group=False)
    parser.add_argument(
        "--optimizer",
        type=OptimizerCallable,
        default={"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01, "betas": [0.9, 0.99]}},
        help="the optimiser",
    )
    parser.add_subclass_arguments(
        SplitData,
        "data",
        required=True,
        help="the data; without class_path KeywordData's settings",
    )
    # As plain values, which the parser can write; of instances within a list or mapping it cannot.
    parser.set_defaults(
        {"schedules": {"linear": asdict(ScheduleSettings())}, "noise_models": [asdict(NoiseModel())]}
    )
    parser.set_defaults({"data": {"class_path": _DEFAULT_DATA}})
    return parser


_SETTINGS = (*StudySettings.__dataclass_fields__, "optimizer", "data")


def parse_study(arguments: Sequence[str], parser: ArgumentParser | None = None) -> tuple[Study, Namespace]:
    """Read a study from ``--config TEXT`` and further settings, as the command line has them.

    Args:
        arguments: see :func:`file_arguments`.
        parser: made by :func:`study_parser`, with further arguments.

    Returns:
        The study, and what was parsed.

    Raises:
        UserError: a setting is unknown or not valid.
    """
    with only_named_classes():
        return _parse_study(arguments, parser or study_parser())


def _parse_study(arguments: Sequence[str], parser: ArgumentParser) -> tuple[Study, Namespace]:
    check_groups(parser, arguments)
    try:
        parsed = parser.parse_args(list(arguments))
    except ArgumentError as error:
        said = re.sub(r"asr_dni\.study\.\w*settings\.\w+: ", "", explain(error))
        raise UserError(f"{said} (asr-dni study run --help lists the settings)") from error
    parsed["evaluation.hardware"] = _without_file(parsed["evaluation.hardware"], "evaluation.hardware")
    for key in ("noise_models", "evaluation.hardwares"):
        for index, one in enumerate(parsed[key] or []):
            if "hardware" in one:
                one["hardware"] = _without_file(one["hardware"], f"{key}[{index}].hardware")
    chosen = _namespace({key: parsed[key] for key in _SETTINGS})
    own = study_parser()
    text = own.dump(chosen, skip_none=False)
    plain = load_yaml(text)
    only = {key: parsed[key] for key in StudySettings.__dataclass_fields__}
    try:
        made = _settings_parser().instantiate_classes(_namespace(only))
    except ValueError as error:  # around the UserError of a part that may be left out
        raise UserError(explain(error)) from error
    settings = StudySettings(**{key: made[key] for key in StudySettings.__dataclass_fields__})
    settings.check()
    study = Study(settings, plain["data"], plain["optimizer"], text)
    for cell in settings.cells:
        try:
            study.make_optimizer(cell)([torch.nn.Parameter(torch.zeros(1))])
        except (ValueError, TypeError, ArgumentError) as error:
            raise UserError(f"optimizer: {explain(error)}") from error
    return study, parsed


def _without_file(hardware: Any, where: str) -> Any:
    """Return the contents of a hardware's own file, which may not be where the study is read again."""
    own = isinstance(hardware, str) and hardware not in (NONE, *hardware_names())
    return read_hardware(hardware, where).as_settings() if own else hardware


def _namespace(values: Mapping[str, Any]) -> Namespace:
    return Namespace(**values)  # type: ignore[no-untyped-call]


@cache
def _settings_parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(StudySettings, as_group=False)
    return parser


def file_arguments(path: str | Path) -> list[str]:
    """Return a study file and its layers as arguments of :func:`parse_study`."""
    arguments = []
    for layer in read_layers(find_configuration(path, folder="study")):
        arguments += ["--config", as_text(_with_class_path(layer), layer.file)]
    return arguments


def _with_class_path(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's settings with ``data_class``, as the configurations of ``asr-dni fit`` have it, resolved."""
    contents = dict(contents)
    if "data_class" in contents:
        found = find_data_class(str(contents.pop("data_class")))
        class_path = f"{found.__module__}.{found.__qualname__}"
        data = contents.get("data") or {}
        contents["data"] = (
            data if "class_path" in data else {"class_path": class_path, "init_args": dict(data)}
        )
    return contents


def read_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file.

    Args:
        path: a YAML file, whose key ``layers`` names files that it starts from; or the name of one, such as ``quick``,
            see :mod:`asr_dni.named_configurations`.
        overrides: further settings as on the command line, such as ``--seeds=2``.

    Raises:
        UserError: the file cannot be read, or a setting is unknown or not valid.
    """
    return parse_study([*file_arguments(path), *overrides])[0]


@lru_cache(maxsize=8)
def study_from_text(text: str) -> Study:
    """Return the study whose :attr:`Study.text` this is."""
    return parse_study(["--config", text])[0]


def _own_words(error: BaseException) -> str:
    """Return what a class itself said of its arguments, where the parser wraps that."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    assert isinstance(error, Exception)
    return explain(error)


def _make_data(spec: Mapping[str, Any], seed: int) -> SequenceData:
    try:
        find_class(spec["class_path"], SplitData)
    except UserError as error:
        raise UserError(f"data: {error}") from error
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(SplitData, "data", required=True)
    arguments = {**(spec.get("init_args") or {}), "seed": seed}
    try:
        with only_named_classes():
            parsed = parser.parse_object({"data": {"class_path": spec["class_path"], "init_args": arguments}})
            made = parser.instantiate_classes(parsed).data
    except (ArgumentError, ValueError, TypeError) as error:
        raise UserError(f"data: {_own_words(error).removeprefix('data: ')}") from error
    return made  # type: ignore[no-any-return]
