"""Configuration files that are layered: a file may name others that it starts from."""

import copy
import re
from argparse import ArgumentError
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

from asr_dni.bounded_yaml import MOST_CHARACTERS, bound_jsonargparse, load_yaml
from asr_dni.configured import Configured
from asr_dni.errors import UserError
from asr_dni.later_layers import replace_lists, start_from_own_defaults
from asr_dni.named_classes import find_class, refusal
from asr_dni.named_configurations import find_configuration, named_configuration

LAYERS_KEY = "layers"
_FROM = "# from "
_MOST_LAYERS = 200
_OPTIONS = ("--config", "-c")
_OF_UNION = "Does not validate against any of the Union subtypes"
_NEAR = 0.7
"""Similarity of a setting's name to another that may have been meant, as difflib measures it."""

bound_jsonargparse()
start_from_own_defaults()
replace_lists()


class Layer(dict[str, Any]):
    """The settings of a configuration file, without those of the files that it names.

    Attributes:
        file: that they are from.
    """

    file: Path


def read_layers(path: Path) -> list[Layer]:
    """Return the contents of a configuration file and, before it, of the files that its ``layers`` name.

    Args:
        path: a YAML file; its key ``layers`` is a list of files, relative to it, or of names of configurations, see
            :mod:`asr_dni.named_configurations`.

    Returns:
        Mappings without the key ``layers``; later ones win over earlier ones.

    Raises:
        UserError: a file is missing, is not a YAML mapping, or names itself, or there are too many.
    """
    layers: list[Layer] = []
    _read_layers(path, (), layers, [0])
    return layers


def _read_layers(path: Path, above: tuple[Path, ...], layers: list[Layer], n_files: list[int]) -> None:
    n_files[0] += 1
    if n_files[0] > _MOST_LAYERS:
        raise UserError(
            f"{(*above, path)[0]}: starts from more than {_MOST_LAYERS} files, in its layers and theirs"
        )
    named = f" (a layer of {above[-1]})" if above else ""
    if path.resolve() in (other.resolve() for other in above):
        raise UserError(f"{path}: names itself in its layers")
    try:
        with path.open(encoding="utf-8") as file:
            contents = load_yaml(file.read(MOST_CHARACTERS + 1))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such configuration file{named}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read{named}: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if contents is None:
        contents = {}
    if not isinstance(contents, dict):
        raise UserError(f"{path}: expected a mapping of settings")
    names = contents.pop(LAYERS_KEY, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: {LAYERS_KEY} has to be a list of file names")
    for name in names:
        _read_layers(_layer(path, name), (*above, path), layers, n_files)
    if contents:
        layer = Layer(contents)
        layer.file = path
        layers.append(layer)


def _layer(path: Path, layer: str) -> Path:
    beside = path.parent / layer
    return beside if beside.exists() else named_configuration(layer) or beside


def checked_arguments(
    made: Callable[..., Any], values: Any, where: str, skip: Collection[str] = ()
) -> dict[str, Any]:
    """Return arguments of a class, out of a checkpoint, whose names and types are checked.

    Args:
        made: a class whose arguments are plain values, or made of such in mappings.
        values: its arguments; may lack those with a default.
        where: what a message begins with.
        skip: arguments that ``values`` does not have.

    Raises:
        UserError: names the argument that is unknown, missing or of another type.
    """
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{where}: expected a mapping of settings")
    parser = _parser_of(made, frozenset(skip))
    try:
        parsed = parser.parse_object(copy.deepcopy(dict(values)))  # whose nested values it changes in place
    except (ArgumentError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {explain(error)}") from error
    empty = sorted(key for key, value in values.items() if value is None and key in _never_none(made))
    if empty:
        raise UserError(f"{where}: {empty[0]} has no value")
    return {key: its.as_dict() if isinstance(its := parsed[key], Namespace) else its for key in values}


_Made = TypeVar("_Made", bound=Configured)


def from_configuration(configuration: Any, base: type[_Made], key: str) -> _Made:
    """Rebuild an object from what :meth:`asr_dni.configured.Configured.configuration` returned.

    A class of your own is found where your program has imported its module, or where the command was given
    ``--allow MODULE``: a configuration, which may come out of anybody's checkpoint, imports nothing.

    Args:
        configuration: ``class_path`` and ``init_args``.
        base: what the class has to be a subclass of.
        key: the setting that it is, which a message begins with.

    Raises:
        UserError: there is no such class, it is of another kind, or it does not take these arguments.
    """
    settings = configuration if isinstance(configuration, Mapping) else {}
    class_path, arguments = settings.get("class_path"), settings.get("init_args")
    if not isinstance(class_path, str) or not isinstance(arguments, Mapping | None):
        raise UserError(f"{key}: expected class_path, and init_args as a mapping")
    try:
        found = find_class(class_path, base)
    except UserError as error:
        raise UserError(f"{key} {error}") from error
    checked = checked_arguments(found, arguments or {}, f"{key} {class_path}")
    try:
        made: _Made = found(**checked)
    except UserError as error:
        raise UserError(f"{key} {class_path}: {error}") from error
    except (TypeError, ValueError) as error:  # where its arguments have no types
        raise UserError(f"{key} {class_path}: {' '.join(str(error).split())}") from error
    return made


@cache
def _parser_of(made: Any, skip: frozenset[str]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(made, skip=set(skip), fail_untyped=False, as_group=False)
    return parser


@cache
def _never_none(made: Any) -> frozenset[str]:
    """Return the arguments that may not be None, which a parser takes for an argument that is not given."""
    hints = get_type_hints(vars(made).get("__init__", made))
    return frozenset(
        name for name, hint in hints.items() if hint is not Any and type(None) not in (hint, *get_args(hint))
    )


def explain(error: Exception, longest: int = 400) -> str:
    """Return one line that says what the command line's parser found wrong, without the parser's own vocabulary.

    Where a value could have been of several types, the parser explains for each why it was not; only the reasons stay.
    """
    text = str(error)
    key_of = re.match(r'(?:error: )?Parser key "([^"]+)"', text)
    refused = refusal(text)
    if refused is not None:
        return f"{key_of.group(1)}: {refused}" if key_of else refused
    key, union, reasons = text.partition(_OF_UNION)
    if union:
        said, _, given = reasons.partition("Errors:")[2].partition("Given value type:")
        said = re.sub(rf"{_OF_UNION}\s+Subtypes: .*\s+Errors:", "", said)  # of a value in this one
        # A reason may go on in the next lines.
        causes = [" ".join(cause.split()) for cause in re.split(r"^\s*- ", said, flags=re.MULTILINE)]
        causes = [cause for cause in causes if cause and "NoneType" not in cause]
        value = given.partition("Given value: ")[2].partition("Given value type:")[0].strip()
        named = any(
            said in cause
            for cause in causes
            for said in ("not accepted", "unrecognized arguments", "Got value:")
        )
        whole = re.sub(r":; ", ": ", "; ".join(dict.fromkeys(causes)))
        # Only a class that was named, not that of an entry of a list.
        for path in re.findall(r"Problem with given class_path '([\w.]+)':", whole):
            if path.rpartition(".")[2] not in given:
                whole = whole.replace(f"Problem with given class_path '{path}':", "")
        text = f"{key}{whole}" + (f" Got value: {value}" if value and not named else "")
    for pattern, replacement in (
        (r'Parser key "([^"]+)":', r"\1:"),
        (r"- Expected a path but \S+ either not accessible or invalid", ""),
        (r"- Problem with", "Problem with"),
        (r"(?:- )?Import path (\S+) does not correspond to a subclass of (\w+)", r"\1: not a \2"),
        (r"Type typing\.Callable\S*(?: \S+)? expects a function or a callable class:", ""),
        (r"Expected a typing\.Literal\[([^\]]*)\]\.?", r"expected one of \1."),
        (r"Expected a <class '([\w.]+)'>\.?", r"expected \1."),
        (r"Got value: \[?Namespace\(.*", ""),
        (r"\.;", ";"),
        (r"Got value:", "Got"),
        (r"Problem with given class_path '([\w.]+)':", r"\1:"),
        (r"Got NestedArg\(.*\)$", ""),
        (r"Option '([^']+)' is not accepted", r"there is no setting '\1'"),
        (r"unrecognized arguments: --([\w.]+)(=\S*)?.*", r"there is no setting --\1"),
        (r"arguments are required: (?:fit|validate|test|predict)\.", "settings are required: "),
    ):
        text = re.sub(pattern, replacement, text)
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[:longest]} ..."


def refused_arguments(error: Exception, parser: ArgumentParser, command: str) -> UserError:
    """Return what to raise for a command line that a parser does not take; it names a setting that may be meant.

    Args:
        error: the parser's.
        parser: of the command.
        command: of ``asr-dni``.
    """
    said = explain(error)
    unknown = re.match(r"there is no setting (--[\w.]+)$", said)
    if unknown is not None:
        options = {option for action in parser._actions for option in action.option_strings}
        settings = sorted(option for option in options if not option.endswith(".help"))
        near = get_close_matches(unknown[1], settings, n=1, cutoff=_NEAR)
        said += f"; did you mean {near[0]}?" if near else ""
    return UserError(f"{said} (asr-dni {command} --help lists the settings)")


def as_text(contents: Mapping[str, Any], file: str | Path) -> str:
    """Return settings as a parser takes them in place of a file's name; :func:`check_groups` finds the name in it."""
    named = " ".join(str(file).split())
    return f"{_FROM}{named}\n{yaml.safe_dump(dict(contents), sort_keys=False)}"


def check_groups(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Find a configuration that has a value where a group of settings belongs, which would be dropped without a word.

    Args:
        parser: that will read the arguments.
        arguments: after :func:`expand_layers`.

    Raises:
        UserError: names the file and the key.
    """
    groups = {
        name.rpartition(".")[0]
        for action in parser._actions
        if not action.dest.endswith(".help")  # of a class
        for name in accumulate(action.dest.split("."), "{}.{}".format)
        if "." in name
    }
    for option, text in pairwise(arguments):
        if option not in _OPTIONS:
            continue
        contents = load_yaml(text)
        named, _, _ = text.partition("\n")
        where = f"{named.removeprefix(_FROM)}: " if named.startswith(_FROM) else ""
        _check_groups(contents, groups, where, "")


def _check_groups(contents: Mapping[str, Any], groups: Collection[str], where: str, above: str) -> None:
    for key, value in contents.items():
        name = f"{above}{key}"
        if name not in groups:
            continue
        if not isinstance(value, Mapping):
            shown = "null" if value is None else value
            raise UserError(
                f"{where}{name} is {shown}: it is a group of settings; give a mapping of them, or leave it out"
            )
        _check_groups(value, groups, where, f"{name}.")


def expand_layers(arguments: Sequence[str], folder: str = "experiment") -> list[str]:
    """Replace every ``--config FILE`` by the contents of the file and its layers, in order.

    The command line's parser takes a configuration's text in place of a file's name.

    Args:
        arguments: of the command line; a file may be given by the name of a configuration.
        folder: where a name is looked for first, see :func:`asr_dni.named_configurations.named_configuration`.
    """
    expanded: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        option, equals, value = argument.partition("=")
        if option not in _OPTIONS:
            expanded.append(argument)
            continue
        if not equals:
            if not rest:
                raise UserError(f"{option} needs the name of a configuration file")
            value = rest.pop(0)
        for layer in read_layers(find_configuration(value, folder)):
            expanded += ["--config", as_text(layer, layer.file)]
    return expanded
