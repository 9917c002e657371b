"""``asr-dni conf``: list, show and copy the configurations that come with the project."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from asr_dni.cli.plain_parser import PlainParser
from asr_dni.configuration import LAYERS_KEY
from asr_dni.errors import UserError
from asr_dni.files import copy_new
from asr_dni.named_configurations import FOLDER, configuration_names, describe, find_configuration

_WIDTH = 120


def conf(arguments: Sequence[str]) -> None:
    """Run ``asr-dni conf``.

    Args:
        arguments: the command line after ``conf``.

    Raises:
        UserError: there is no such configuration, or a copy would overwrite another file.
    """
    parser = PlainParser(
        "asr-dni conf",
        description="The configurations that come with the project. Wherever a command takes one (--config NAME,"
        " study run NAME) its name is enough; a path to a file wins over a name.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="list, show or copy")
    listing = actions.add_parser("list", help="names and what they are for")
    listing.add_argument("part", nargs="?", default="", help="only names with this part, such as experiment/")
    show = actions.add_parser(
        "show", help="print one; fit --config NAME --print_config shows it with its layers"
    )
    show.add_argument("name")
    copy = actions.add_parser(
        "copy", help="copy some, with their layers, or all, into a folder; nothing is overwritten"
    )
    copy.add_argument("names", nargs="*", metavar="NAME", help="without a name: all")
    copy.add_argument("--to", type=Path, default=Path("conf"), metavar="FOLDER", help="default: conf")
    options = parser.parse_args(list(arguments))
    if options.action == "list":
        _list(options.part)
    elif options.action == "show":
        print(find_configuration(options.name).read_text(encoding="utf-8"), end="")
    else:
        _copy(options.names, options.to)


def _list(part: str) -> None:
    names = [name for name in configuration_names() if part in name]
    if not names:
        raise UserError(f"no configuration has {part!r} in its name; asr-dni conf list shows all")
    width = max(map(len, names)) + 2
    for name in names:
        print(f"{name:{width}}{textwrap.shorten(describe(name), _WIDTH - width, placeholder=' ...')}")


def _copy(names: Sequence[str], to: Path) -> None:
    asked = [_shipped(name) for name in names or configuration_names()]
    files = sorted({file for path in asked for file in _with_layers(path)})
    copied = copy_new({FOLDER / path: to / path for path in files})
    kept = len(files) - len(copied)
    print(
        f"copied to {to}: {_joined(path.relative_to(to) for path in copied)}"
        + (f" ({kept} were there already)" if kept else "")
    )


def _shipped(name: str) -> Path:
    path = find_configuration(name).resolve()
    if not path.is_relative_to(FOLDER.resolve()):
        raise UserError(f"{name}: is a file of your own; give a name that asr-dni conf list shows")
    return path


def _with_layers(path: Path) -> set[Path]:
    """Return a configuration and those that it starts from, relative to their folder."""
    layers = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get(LAYERS_KEY, [])
    below = (_with_layers((path.parent / layer).resolve()) for layer in layers)
    return {path.relative_to(FOLDER.resolve())}.union(*below)


def _joined(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths)) or "nothing"
