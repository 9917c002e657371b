"""A command that is a function: its settings come from the function's signature and docstring."""

from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr_dni.cli.help_formatter import HelpFormatter
from asr_dni.cli.lists import with_brackets
from asr_dni.configuration import refused_arguments
from asr_dni.errors import UserError
from asr_dni.models import packaged_name
from asr_dni.terminal import make_console

CHECKPOINT = {
    "type": Path,
    "help": "a .ckpt file that asr-dni fit wrote, or a name that asr-dni models lists",
}
"""The argument of commands that begin with a checkpoint."""


def run_function(
    function: Callable[..., None],
    prog: str,
    arguments: Sequence[str],
    epilog: str | None = None,
    **positional: dict[str, Any],
) -> None:
    """Call a function with its arguments from the command line.

    Args:
        function: its signature and docstring say which arguments there are.
        prog: name of the command.
        arguments: the command line after it.
        epilog: ends the help.
        **positional: options of the parser for arguments without ``--``, and for flags, ``{"--json": ...}``.
    """
    description = (function.__doc__ or "").split("\n\n")[0]
    parser = ArgumentParser(
        prog=f"asr-dni {prog}",
        description=description,
        epilog=epilog,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    for name, options in positional.items():
        parser.add_argument(name, **options)
    parser.add_function_arguments(function, skip={name.lstrip("-") for name in positional}, as_group=False)
    try:
        parsed = parser.parse_args(with_brackets(arguments, parser))
    except ArgumentError as error:
        raise refused_arguments(error, parser, prog) from error
    function(**parser.instantiate_classes(parsed).as_dict())


def folder_beside(checkpoint: Path) -> Path:
    """Return the folder for what is measured of a checkpoint: the file's own; ``runs/NAME`` of a packaged network."""
    name = packaged_name(checkpoint)
    return checkpoint.resolve().parent if name is None else Path("runs", name).absolute()


def progress_bar() -> Progress:
    """Return a bar on standard error that says how much is done, and when the rest will be."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=make_console(stderr=True),
    )


def check_folder(path: Path | None, name: str = "output") -> None:
    """Say before the work that its results could not be written; ``name`` is the argument's."""
    if path is not None and any(part.exists() and not part.is_dir() for part in (path, *path.parents)):
        raise UserError(f"{name} {path}: a file is in the way; give a folder")
