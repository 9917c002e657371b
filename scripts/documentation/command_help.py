"""The commands' own help, as a page, and the parsers that it is printed by."""

import argparse
import contextlib
import html
import io
import os
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple
from unittest import mock

from asr_dni.cli.main import COMMANDS, main

_CONFIGURED = ("fit", "validate", "test")
"""Commands whose settings have a page of their own, see :mod:`settings_reference`."""


class Help(NamedTuple):
    """What a command says about itself.

    Attributes:
        text: that ``--help`` prints.
        parser: that it is of; None where a command prints a text.
    """

    text: str
    parser: argparse.ArgumentParser | None


@cache
def help_of(*command: str) -> Help:
    """Return what ``asr-dni COMMAND --help`` prints, and the parser that prints it."""
    parsers: list[argparse.ArgumentParser] = []
    printed = argparse.ArgumentParser.print_help

    def print_help(parser: argparse.ArgumentParser, *arguments: object) -> None:
        parsers.append(parser)
        printed(parser, *arguments)

    output = io.StringIO()
    with (
        mock.patch.object(argparse.ArgumentParser, "print_help", print_help),
        mock.patch.dict(os.environ, COLUMNS="100"),
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
    ):
        main([*command, "--help"])
    return Help(output.getvalue(), parsers[-1] if parsers else None)


def subcommands(command: str) -> list[str]:
    """Return the names of a command's own commands: of its parser, or of the list in its help."""
    text, parser = help_of(command)
    for action in getattr(parser, "_actions", []):
        if isinstance(action, argparse._SubParsersAction):
            return list(action.choices)
    listed = re.search(r"^commands:\n((?:  .*\n)+)", text, re.MULTILINE)
    return re.findall(r"^  (\w[\w-]*)", listed[1], re.MULTILINE) if listed and parser is None else []


def page() -> str:
    """Return the page of all commands."""
    return "# Commands\n\nWhat each command prints with `--help`.\n\n" + "\n\n".join(_sections())


def _sections() -> Iterator[str]:
    for name, command in COMMANDS.items():
        yield f"## asr-dni {name}\n\n{command.summary[0].upper()}{command.summary[1:]}."
        text = help_of(name).text
        if name in _CONFIGURED:
            text = text[: text.index("\noptions:")]
            yield "All settings: [asr-dni fit](fit.md)."
        yield _block(text)
        for its in subcommands(name):
            yield f"### asr-dni {name} {its}\n\n{_block(help_of(name, its).text)}"


def _block(text: str) -> str:
    return f"<pre><code>{html.escape(text.strip(), quote=False)}</code></pre>"
