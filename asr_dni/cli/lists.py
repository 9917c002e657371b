"""Lists on the command line, given as ``0,1,2`` as well as ``[0,1,2]``, whichever command and setting."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def with_brackets(arguments: Sequence[str], parser: ArgumentParser) -> list[str]:
    """Put brackets around the values of settings that are lists of plain values.

    Where a setting may be one value as well, what has a comma is a list; where any text is right, it stays as it is.

    Args:
        arguments: the command line.
        parser: knows the settings and their types.

    Example:
        >>> import jsonargparse
        >>> parser = jsonargparse.ArgumentParser()
        >>> _ = parser.add_argument("--sigmas", type=list[float])
        >>> with_brackets(["--sigmas", "0,1", "--sigmas=2"], parser)
        ['--sigmas', '[0,1]', '--sigmas=[2]']
    """
    types: dict[str, Any] = {}
    for action in parser._actions:
        if hasattr(action, "_typehint"):
            for option in action.option_strings:
                if not option.endswith("+"):
                    types |= _settings(option, action._typehint)
    bracketed: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option in types:
            argument = f"{option}={_bracketed(value, types[option])}"
        elif bracketed and bracketed[-1] in types and not argument.startswith("--"):
            argument = _bracketed(argument, types[bracketed[-1]])
        bracketed.append(argument)
    return bracketed


def _settings(option: str, hint: Any) -> dict[str, Any]:
    """Return the types of a setting and of those within it, where it may be a group of settings or nothing."""
    found = {option: hint}
    for kind in _alternatives(hint):
        if is_dataclass(kind):
            for name, inner in get_type_hints(kind).items():
                found |= _settings(f"{option}.{name}", inner)
    return found


def _bracketed(value: str, hint: Any) -> str:
    kinds = _alternatives(hint)
    lists = [kind for kind in kinds if get_origin(kind) in (list, tuple, Sequence)]
    items = {item for kind in lists for part in get_args(kind) for item in _alternatives(part)}
    if not lists or str in kinds or not all(_is_plain(item) for item in items):
        return value
    one = [kind for kind in kinds if kind not in lists]
    literals = {literal for kind in one if get_origin(kind) is Literal for literal in get_args(kind)}
    may_be_one = any(get_origin(kind) is not Literal and kind is not type(None) for kind in one)
    if (
        not value
        or value.startswith(("[", "("))
        or value in literals
        or (type(None) in kinds and value in ("null", "None"))
        or (may_be_one and "," not in value)
    ):
        return value
    texts = str in items or any(get_origin(item) is Literal for item in items)
    # Quoted, since YAML takes yes and no for something else.
    parts = [json.dumps(part.strip(), ensure_ascii=False) if texts else part for part in value.split(",")]
    return f"[{','.join(parts)}]"


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_plain(kind: Any) -> bool:
    return kind in (int, float, str, bool, type(None), Ellipsis) or get_origin(kind) is Literal
