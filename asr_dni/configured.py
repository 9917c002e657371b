"""Objects that a configuration names: a class by its import path, and plain arguments."""

import inspect
from pathlib import Path
from typing import Any


class Configured:
    """Base of what is a setting by ``class_path`` and ``init_args``, such as a source of recordings or a front end.

    A subclass takes plain arguments only (str, int, float, bool, None, Path, and lists of them) and keeps each in an
    attribute of the argument's name; that makes it a setting on the command line, in YAML and in a checkpoint. Where
    its constructor passes ``**keywords`` on to the class above, that one's arguments are settings too.
    """

    def configuration(self) -> dict[str, Any]:
        """Return ``{"class_path": ..., "init_args": {...}}`` of plain types.

        :func:`asr_dni.configuration.from_configuration` is the way back.
        """
        arguments = {name: _plain(getattr(self, name), name) for name in arguments_of(type(self))}
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": arguments}

    @property
    def identity(self) -> Any:
        """What it is, in plain values that are the same from run to run and on every machine."""
        return {"class": type(self).__qualname__, **self.configuration()["init_args"]}


def arguments_of(kind: type[Any]) -> list[str]:
    """Return the names of a constructor's arguments, and of those above it that it passes on."""
    names: list[str] = []
    for above in kind.__mro__:
        if "__init__" not in vars(above):
            continue
        parameters = list(inspect.signature(vars(above)["__init__"]).parameters.values())[1:]
        passed_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        names += [
            parameter.name
            for parameter in parameters
            if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in names
        ]
        if not passed_on:
            break
    return names


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}: only plain values can be settings")
