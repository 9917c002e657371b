"""Reading the command lines of ``asr-dni study``."""

import sys
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from asr_dni.cli.plots import Plot
from asr_dni.errors import UserError

if TYPE_CHECKING:
    from asr_dni.study.engine import StudyRun
    from asr_dni.study.reading import Study


def read(command: str, arguments: Sequence[str]) -> "tuple[Study, Any]":
    """Return the study that ``run`` or ``plan`` is given, and the parsed command line.

    Raises:
        UserError: a setting is not valid, or no study is named.
    """
    from asr_dni.cli.help_formatter import HelpFormatter
    from asr_dni.cli.lists import with_brackets
    from asr_dni.configuration import expand_layers
    from asr_dni.named_classes import ALLOW_HELP, ALLOW_OPTION
    from asr_dni.study.engine import EngineSettings
    from asr_dni.study.reading import file_arguments, parse_study, study_parser

    parser = study_parser(f"asr-dni study {command}")
    parser.formatter_class = HelpFormatter
    parser.usage = f"asr-dni study {command} FILE [--KEY VALUE ...]"
    parser.description = {
        "run": "Train and evaluate what is missing of a study, then report.",
        "plan": "Print what a study would do, what is done already, and an estimate of the time.",
    }[command]
    parser.add_argument(
        "file",
        type=Path,
        help="the study: a YAML file, or the name of one that comes with the project, such as quick",
    )
    parser.add_argument(
        "--output", type=Path | None, default=None, help="folder of the study; by default runs/study/NAME"
    )
    parser.add_class_arguments(EngineSettings, as_group=False)
    if command == "run":
        parser.add_argument("--dry_run", type=bool, default=False, help="only print what would be done")
        parser.add_argument("--report", type=bool, default=True, help="write findings and figures at the end")
        parser.add_argument(
            "--wandb",
            type=Literal["disabled", "auto", "online", "offline"],
            default="disabled",
            help="log the results to W&B at the end, as asr-dni wandb study does",
        )
        parser.add_argument("--wandb_project", type=str | None, default=None, help="project in W&B")
    parser.add_argument(
        "--measure",
        type=bool,
        default=True,
        help="whether a plan times a few steps of every shape on this machine, for its estimate",
    )
    arguments = list(arguments)
    parser.epilog = f"{ALLOW_OPTION} MODULE: {ALLOW_HELP}."
    if "--help" in arguments or "-h" in arguments:
        parser.print_help()
        sys.exit(0)
    if not arguments or arguments[0].startswith("-"):
        raise UserError(f"asr-dni study {command} needs a study's file or name first, such as quick")
    # --dry_run alone means yes.
    for flag in ("--dry_run",):
        for place in [place for place, argument in enumerate(arguments) if argument == flag]:
            following = arguments[place + 1] if place + 1 < len(arguments) else "--"
            if following.startswith("--"):
                arguments[place] = f"{flag}=true"
    file = arguments.pop(0)
    given = with_brackets(_with_class_of_data(arguments), parser)
    return parse_study([*file_arguments(file), file, *expand_layers(given, folder="study")], parser)


def _with_class_of_data(arguments: Sequence[str]) -> list[str]:
    """Let the data's class be given by its name alone."""
    given: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if not equals and given and given[-1] == "--data_class":
            option, value = given[-1], argument
        if option == "--data_class" and value and not value.startswith("--"):
            path = value if "." in value else f"asr_dni.data.{value}"
            if equals:
                argument = f"--data={path}"
            else:
                given[-1], argument = "--data", path
        given.append(argument)
    return given


def prepare(study: "Study", parsed: Any) -> "StudyRun":
    """Return the study's run, with its folder and the engine's settings.

    Raises:
        UserError: a file is in the folder's way.
    """
    from asr_dni.cli.functions import check_folder
    from asr_dni.study.engine import EngineSettings, StudyRun
    from asr_dni.study.folder import StudyFolder

    output = parsed.output if parsed.output is not None else Path("runs") / "study" / study.settings.name
    check_folder(output)
    settings = EngineSettings(**{field.name: parsed[field.name] for field in fields(EngineSettings)})
    return StudyRun(study, StudyFolder(output), settings)


def folder_of(command: str, arguments: Sequence[str]) -> Path:
    """Return the study's folder that ``status`` or ``report`` is given, see :func:`folder_and_plot`."""
    return folder_and_plot(command, arguments)[0]


def folder_and_plot(command: str, arguments: Sequence[str]) -> tuple[Path, Plot]:
    """Return the study's folder that ``status`` or ``report`` is given, and whether to draw in the terminal.

    Raises:
        UserError: there is no such folder.
    """
    from jsonargparse import ArgumentParser

    from asr_dni.configuration import explain

    parser = ArgumentParser(prog=f"asr-dni study {command}", exit_on_error=False, allow_abbrev=False)
    parser.description = {
        "status": "Print how far a study is, while it runs too.",
        "report": "Write findings, figures and tables of the results that there are.",
    }[command]
    parser.add_argument("folder", type=Path, help="the study's, such as runs/study/quick")
    if command == "report":
        parser.add_argument(
            "--plot",
            type=Plot,
            default="auto",
            help="whether figures are drawn in the terminal as well; auto where the output is one",
        )
    try:
        given = parser.parse_args(list(arguments))
        path: Path = given.folder
    except ArgumentError as error:
        raise UserError(f"{explain(error)} (give a study's folder, such as runs/study/quick)") from error
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; give a study's, such as runs/study/quick")
    return path, given.get("plot", "never")
