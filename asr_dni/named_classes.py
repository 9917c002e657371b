"""Which classes a configuration may name: a closed set of kinds, looked up before anything is imported or called.

A configuration (a command line, a YAML file, what a checkpoint holds) names classes by their import path. Whoever reads
one may not trust it, so a name is looked up in

- optimisers of ``torch.optim``,
- callbacks, loggers, strategies, accelerators, profilers and plugins of Lightning,
- this project's own sources, front ends, data modules, callbacks and settings,
- the same kinds from modules that the user himself named: by ``--allow MODULE`` on the command line; in Python, by
  importing them before.

Nothing else is imported, and no function is ever taken for a class. jsonargparse, which reads the configurations,
imports whatever it is told; within :func:`only_named_classes` it asks :func:`find_class` instead.
"""

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from functools import cache
from typing import Any

from asr_dni.configured import Configured
from asr_dni.errors import UserError

ALLOW_OPTION = "--allow"
ALLOW_HELP = (
    "a module of your own whose classes (sources, front ends, data modules, callbacks, optimisers, ...) the settings"
    " may name; may be given several times. Without it only classes of asr_dni, Lightning and torch.optim are taken"
)

_HOMES = ("asr_dni", "torch.optim", "pytorch_lightning", "lightning_fabric")
"""Packages whose classes of the kinds below may be named."""
_IMPORTED = (
    *(
        f"asr_dni.{part}"
        for part in ("cli", "data", "evaluation", "features", "model", "nn", "noise", "study")
    ),
    *(
        f"pytorch_lightning.{part}"
        for part in ("accelerators", "callbacks", "loggers", "plugins", "profilers", "strategies")
    ),
)
"""Those of their parts that are imported where they have not been yet."""

_modules: ContextVar[tuple[str, ...] | None] = ContextVar("modules that the user named", default=None)
_refused: ContextVar[dict[str, str] | None] = ContextVar(
    "names that parsers were refused, and why", default=None
)
"""None: parsers are not guarded."""


class UnknownClassError(UserError, ImportError):
    """A name that no configuration may have; an ImportError as well, which jsonargparse explains to the user."""


@cache
def _kinds() -> tuple[type[Any], ...]:
    """Return the base classes of what may be named."""
    from lightning_fabric.accelerators.accelerator import Accelerator
    from lightning_fabric.loggers.logger import Logger
    from lightning_fabric.plugins import CheckpointIO, ClusterEnvironment, Precision
    from lightning_fabric.strategies.strategy import Strategy as FabricStrategy
    from pytorch_lightning import Callback, LightningDataModule
    from pytorch_lightning.plugins import LayerSync
    from pytorch_lightning.profilers import Profiler
    from pytorch_lightning.strategies import Strategy
    from torch.optim import Optimizer

    plugins = (CheckpointIO, ClusterEnvironment, Precision, LayerSync)
    lightning = (Callback, LightningDataModule, Logger, Strategy, FabricStrategy, Accelerator, Profiler)
    return (Optimizer, Configured, *lightning, *plugins)


def _within(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _module(name: str, path: str) -> Any:
    """Return a module by its name; import it only where it is this project's or the user named it."""
    allowed = _modules.get()
    if _within(name, (*_IMPORTED, *(allowed or ()))):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not _within(name, (error.name,)):
                raise
            raise UnknownClassError(f"{path}: no such class") from None
    if (_within(name, _HOMES) or allowed is None) and name in sys.modules:
        return sys.modules[name]
    if _within(name, _HOMES):
        raise UnknownClassError(f"{path}: no such class")
    own_module = f"give {ALLOW_OPTION} {name}" if allowed is not None else f"import {name} before"
    standard = name.partition(".")[0] in sys.stdlib_module_names
    advice = f"{name} is part of Python itself" if standard else f"if it is a class of your own, {own_module}"
    raise UnknownClassError(
        f"{path}: not among the classes that a configuration may name (optimisers of torch.optim; callbacks, loggers,"
        f" strategies and plugins of Lightning; classes of asr_dni); {advice}"
    )


def find_class(path: str, base: type[Any] | None = None) -> type[Any]:
    """Return the class that a configuration names.

    Args:
        path: its import path, such as ``asr_dni.data.Folder``.
        base: what it has to be a subclass of; without it, one of the kinds that may be named, or a dataclass.

    Raises:
        UserError: there is no such class, it is of another kind, or nobody allowed its module. Nothing was imported or
            called then that the user did not name himself.
    """
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        near = get_close_matches(str(path), _names_of(Configured), n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UnknownClassError(
            f"{path}: no such class; expected a name or an import path such as asr_dni.data.Folder{meant}"
        )
    kinds = _kinds()  # imports the packages whose classes may be named
    module = _module(".".join(parts[:-1]), path)
    found = vars(module).get(parts[-1])
    if found is None:
        raise UnknownClassError(f"{path}: no such class")
    of_kind = isinstance(found, type) and (issubclass(found, kinds) or dataclasses.is_dataclass(found))
    allowed = _modules.get()
    at_home = of_kind and (allowed is None or _within(found.__module__, (*_HOMES, *allowed)))
    if not at_home or (base is not None and not issubclass(found, base)):
        wanted = (
            f"a subclass of {base.__module__}.{base.__qualname__}"
            if base
            else "of a kind that may be named here"
        )
        raise UnknownClassError(f"{path}: not {wanted}")
    return found  # type: ignore[no-any-return]


def _names_of(kind: type[Any]) -> list[str]:
    """Return the names of all classes below one that have been imported."""
    below = kind.__subclasses__()
    return [kind.__name__ for kind in below] + [name for kind in below for name in _names_of(kind)]


@contextmanager
def only_named_classes(modules: Sequence[str] | None = None) -> Iterator[None]:
    """Let parsers of jsonargparse take only classes that :func:`find_class` finds, within this block.

    Args:
        modules: what the user named by ``--allow``; they are imported. None: as it is, which outside of a command
            means the modules that the program has imported.

    Raises:
        UserError: a module cannot be imported.
    """
    _guard_jsonargparse()
    refused = _refused.set({})
    named = None if modules is None else _modules.set(tuple(modules))
    try:
        for module in modules or ():
            _import_named(module)
        yield
    finally:
        if named is not None:
            _modules.reset(named)
        _refused.reset(refused)


def allowed_modules() -> tuple[str, ...] | None:
    """Return what the user named by ``--allow``; None outside of a command."""
    return _modules.get()


def refusal(error: str) -> str | None:
    """Return why a class was refused that a parser's error is about; None: it is about something else."""
    refused = [(name, why) for name, why in (_refused.get() or {}).items() if name in error]
    # Where a value may be of several types, its whole text was tried as a name too.
    refused.sort(key=lambda item: len(item[0]))
    return refused[0][1] if refused else None


def modules_of(*configurations: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the modules that another process has to be allowed, for it to read the same configurations.

    Args:
        *configurations: ``class_path`` and ``init_args``, at any depth.
    """
    allowed = _modules.get()
    if allowed is not None:
        return allowed
    found: list[str] = []
    values: list[Any] = list(configurations)
    while values:
        value = values.pop()
        if isinstance(value, Mapping):
            values += value.values()
            if isinstance(value.get("class_path"), str):
                found.append(value["class_path"].rpartition(".")[0])
        elif isinstance(value, list | tuple):
            values += value
    # What the program has imported itself, the other process has not.
    return tuple(sorted({name for name in found if name in sys.modules and not _within(name, _HOMES)}))


def take_allowed(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take ``--allow MODULE`` out of a command line: configurations must not have it, so no parser knows it.

    Returns:
        The modules, and the other arguments.

    Raises:
        UserError: the option has no value, or one that is no module's name.
    """
    modules: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        option, equals, value = argument.partition("=")
        if option != ALLOW_OPTION:
            others.append(argument)
            continue
        value = value if equals else (rest.pop(0) if rest else "")
        if not all(part.isidentifier() for part in value.split(".")):
            raise UserError(f"{ALLOW_OPTION} {value!r}: give the name of a module, such as my_sources")
        modules.append(value)
    return modules, others


def _import_named(module: str) -> None:
    """Import a module that the user named; one that is not installed is looked for in the current folder."""
    here = os.getcwd()
    try:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not _within(module, (error.name,)) or here in sys.path:
                raise
            sys.path.append(here)
            importlib.invalidate_caches()
            importlib.import_module(module)
    except Exception as error:  # whatever the module itself raises
        raise UserError(
            f"{ALLOW_OPTION} {module}: cannot be imported: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


@cache
def _guard_jsonargparse() -> None:
    """Put :func:`find_class` before what jsonargparse imports by a name out of a configuration.

    Outside of :func:`only_named_classes` it does what it always did.

    Raises:
        RuntimeError: this version of jsonargparse imports elsewhere; nothing may be parsed with it then.
    """
    importlib.import_module("jsonargparse")
    guarded = set()
    for name, module in list(sys.modules.items()):
        # What the others import by name is their own.
        if name.startswith("jsonargparse.") and name not in ("jsonargparse.typing", "jsonargparse._util"):
            original: Callable[[str], Any] | None = vars(module).get("import_object")
            if original is not None:
                vars(module)["import_object"] = _guarded(original)
                guarded.add(name.partition(".")[2])
    if not {"_typehints", "_actions"} <= guarded:
        raise RuntimeError("this version of jsonargparse cannot be kept from importing: give one below 4.49")


def _guarded(original: Callable[[str], Any]) -> Callable[[str], Any]:
    def import_object(name: str) -> Any:
        refused = _refused.get()
        if refused is None or name == "jsonargparse.ArgumentParser":
            return original(name)
        try:
            return find_class(name)
        except UnknownClassError as error:
            refused[str(name)] = str(error)
            raise

    return import_object
