"""Pages of all settings of commands: name, type, default and meaning, read off the parsers of the commands."""

import html
import inspect
import re
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import jsonargparse
import yaml
from command_help import help_of
from jsonargparse import ActionConfigFile

from asr_dni.cli.help_formatter import plain
from asr_dni.data import DATA_MODULES, KeywordData

_INTRODUCTION = """\
# Settings of asr-dni {command}

Read off the command itself. On the command line a setting is `--NAME VALUE`; in YAML each dot is a level:
`model.network.units` is `{{model: {{network: {{units: 64}}}}}}`. {more}
"""
_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")
_FIT = (
    "`asr-dni validate` and `asr-dni test` have the same ones. Settings below `trainer` are Lightning's own. Where a"
    " setting is an object of a class, YAML names it by `class_path` and its settings by `init_args`, and the command"
    " line by its name, as in `--data.source Folder --data.source.path my_words`; these types are below."
    " What `model.noise.hardware` and `noise_curve.hardware` are made of: [hardware](../hardware.md), and"
    " `asr-dni noise list`."
)
_STUDY = "The first argument, FILE, has them in YAML; those of the command line win."


class _Group(NamedTuple):
    """Settings that share the levels before their own name."""

    prefix: str
    title: str
    settings: list[Action]


def pages() -> Iterator[tuple[str, str]]:
    """Yield name and Markdown of each page."""
    yield "fit", _fit()
    yield (
        "noise-curve",
        _page("noise-curve", "A checkpoint is the first argument.", help_of("noise-curve").parser),
    )
    yield "study", _page("study run", _STUDY, help_of("study", "run").parser)


def _fit() -> str:
    sections = []
    for name in DATA_MODULES:
        if name != KeywordData.__qualname__:  # the default
            (data,) = (
                group
                for group in _groups(help_of("fit", "--data_class", name).parser)
                if group.prefix == "data"
            )
            sections.append(
                f"## data, with `--data_class {name}`\n\n{data.title}.\n\n{_listed(data.settings, f'{name}-')}"
            )
    return "\n\n".join([_page("fit", _FIT, help_of("fit").parser), *sections, ""])


def _page(command: str, more: str, parser: ArgumentParser | None) -> str:
    groups = _groups(parser)
    sections = [_section(group) for group in groups]
    kinds = _types([its for group in groups for its in group.settings])
    if kinds:
        sections.append("## Types that settings have")
        sections += [_class_section(kind, settings) for kind, settings in kinds.items()]
    return "\n\n".join([_INTRODUCTION.format(command=command, more=more), *sections])


def _section(group: _Group) -> str:
    heading = f"## {group.prefix}\n\n{group.title}." if group.prefix else "## The command itself"
    return f"{heading}\n\n{_listed(group.settings)}"


def _groups(parser: ArgumentParser | None) -> list[_Group]:
    """Return the groups that have settings, those that share no level as one."""
    assert parser is not None
    groups: dict[str, _Group] = {}
    for group in parser._action_groups:
        settings = [action for action in group._group_actions if _is_setting(action)]
        if settings:
            prefix = _prefix([action.dest for action in settings])
            title = plain(group.title or "")
            its = groups.setdefault(prefix, _Group(prefix, title[:1].upper() + title[1:], []))
            its.settings.extend(settings)
    return list(groups.values())


def _is_setting(action: Action) -> bool:
    return (action.default is not SUPPRESS or type(action).__name__ == "ActionTypeHint") and not isinstance(
        action, ActionConfigFile | jsonargparse._link_arguments.ActionLink
    )


def _prefix(names: Iterable[str]) -> str:
    """Return the levels that all names share, their own last one left out."""
    levels = [name.split(".")[:-1] for name in names]
    shared = []
    for its in zip(*levels, strict=False):
        if len(set(its)) > 1:
            break
        shared.append(its[0])
    return ".".join(shared)


def _listed(settings: Iterable[Action], prefix: str = "") -> str:
    """Return a list of definitions; each has an anchor, the setting's name after a prefix."""
    entries = [
        f'<dt id="{prefix}{its.dest}"><code>{_breaking(its.dest)}</code></dt>'
        f"<dd>{_meaning(its.help or '')}<br><small>{_type_text(_type_of(its))}, {_default(its)}</small></dd>"
        for its in settings
    ]
    return "\n".join(['<dl class="settings">', *entries, "</dl>"])


def _breaking(name: str) -> str:
    return html.escape(name).replace(".", ".<wbr>")


def _type_of(action: Action) -> Any:
    return getattr(action, "_typehint", action.type)


def _type_text(kind: Any) -> str:
    return _code("str" if kind is None else _written(kind))


def _written(kind: Any) -> str:
    """Return a type as it is read: values of a Literal, alternatives with a bar, classes without their modules."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in (None, NoneType):
        return "null"
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(map(_written, arguments)))
    if origin is not None and arguments:
        name = getattr(origin, "__name__", str(origin))
        inner = [
            ", ".join(map(_written, its)) if isinstance(its, list) else _written(its) for its in arguments
        ]
        return f"{name}[{', '.join(inner)}]"
    return getattr(kind, "__name__", str(kind)).removeprefix("typing.")


def _default(action: Action) -> str:
    value = action.default
    if getattr(action, "required", False):
        return "to be given"
    text = yaml.safe_dump(_simple(value), default_flow_style=True, width=10**6, sort_keys=False)
    return f"default {_code(text.removesuffix(chr(10)).removesuffix(chr(10) + '...'))}"


def _simple(value: Any) -> Any:
    """Return a default as YAML writes it."""
    if isinstance(value, jsonargparse.Namespace):
        value = value.as_dict()
    if isinstance(value, dict):
        return {str(key): _simple(its) for key, its in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_simple(its) for its in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _simple(getattr(value, field.name)) for field in fields(value)}
    return str(value)


def _own_classes(kind: Any) -> list[type]:
    """Return this project's classes that a setting of this type may name."""
    if inspect.isclass(kind) and kind.__module__.startswith("asr_dni.") and not get_origin(kind):
        if is_dataclass(kind):
            return [kind]  # a mapping
        return [
            its for its in (kind, *_below(kind)) if not inspect.isabstract(its) and its.__name__[0] != "_"
        ]
    return [
        its for argument in get_args(kind) if not isinstance(argument, list) for its in _own_classes(argument)
    ]


def _below(kind: type) -> list[type]:
    below = [its for its in kind.__subclasses__() if its.__module__.startswith("asr_dni.")]
    return [found for its in below for found in (its, *_below(its))]


def _types(settings: Iterable[Action]) -> dict[type, list[Action]]:
    """Return this project's types that settings have, and the settings of these, and theirs."""
    found: dict[type, list[Action]] = {}
    waiting = [kind for its in settings for kind in _own_classes(_type_of(its))]
    while waiting:
        kind = waiting.pop(0)
        if kind not in found:
            parser = jsonargparse.ArgumentParser()
            parser.add_class_arguments(kind, as_group=False)
            found[kind] = [its for group in _groups(parser) for its in group.settings]
            waiting += [other for its in found[kind] for other in _own_classes(_type_of(its))]
    return found


def _class_section(kind: type, settings: Sequence[Action]) -> str:
    said = _meaning((inspect.getdoc(kind) or "").partition("\n\n")[0])
    listed = _listed(settings, f"{kind.__name__}-") if settings else "It has no settings."
    name = kind.__name__ if is_dataclass(kind) else f"{kind.__module__.rpartition('.')[0]}.{kind.__name__}"
    return f"### {name}\n\n<p>{said}</p>\n\n{listed}"


def _meaning(text: str) -> str:
    """Return a text of a help as HTML; code in it stays code."""
    text = re.sub(r"\s*Default: ``[^`]*``\.?", "", " ".join(text.split()))  # Lightning's; ours may be another
    pieces = re.split(r"`+([^`]+)`+", _ROLE.sub(lambda role: f"`{role[1]}`", text))
    return "".join(
        _code(piece) if k % 2 else html.escape(piece, quote=False) for k, piece in enumerate(pieces)
    )


def _code(text: str) -> str:
    return f"<code>{html.escape(text, quote=False)}</code>"
