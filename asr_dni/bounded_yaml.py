"""YAML whose size, nesting and repetitions are bounded, and whose mappings say everything once.

A few lines of YAML can stand for billions of values (aliases of aliases), exhaust the stack (brackets in brackets), or
say one thing twice, of which the last is taken without a word. Configurations may be anybody's, so all of them are
looked through before they are built.
"""

import importlib
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Any

import yaml

MOST_CHARACTERS = 1_000_000
MOST_VALUES = 100_000
DEEPEST = 40

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BoundedYamlError(yaml.YAMLError):
    """YAML that is too large, too deep, or says something twice."""


@dataclass
class _Open:
    """A list or mapping that is being read."""

    anchor: str | None
    keys: set[tuple[str, bool]] | None
    values: int = 1
    depth: int = 1
    parts: int = field(default=0)


def check_yaml(text: str) -> None:
    """Find what would take too much memory or time, and keys that are there twice, without building anything.

    Raises:
        yaml.YAMLError: says what and in which line.
    """
    if len(text) > MOST_CHARACTERS:
        raise BoundedYamlError(f"has more than {MOST_CHARACTERS:,} characters")
    if not any(character in text for character in "[{:&*-"):
        return
    anchored: dict[str, tuple[int, int]] = {}
    above: list[_Open] = []
    for event in yaml.parse(text, Loader=_PARSER):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.CollectionStartEvent):
            keys: set[tuple[str, bool]] | None = set() if isinstance(event, yaml.MappingStartEvent) else None
            above.append(_Open(event.anchor, keys))
            if len(above) > DEEPEST:
                raise BoundedYamlError(f"line {line}: is nested more than {DEEPEST} deep")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            closed = above.pop()
            size = closed.values, closed.depth
            anchor = closed.anchor
        elif isinstance(event, yaml.ScalarEvent):
            size, anchor = (1, 0), event.anchor
            _note_key(above, event, line)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchored:
                raise BoundedYamlError(f"line {line}: *{event.anchor} stands for nothing, or for itself")
            size, anchor = anchored[event.anchor], None
        else:
            continue
        if anchor is not None:
            anchored[anchor] = size
        if above:
            above[-1].values += size[0]
            above[-1].depth = max(above[-1].depth, size[1] + 1)
            above[-1].parts += 1
            if above[-1].values > MOST_VALUES or len(above) + size[1] > DEEPEST:
                raise BoundedYamlError(f"line {line}: stands for more than {MOST_VALUES:,} values")


def _note_key(above: list[_Open], event: yaml.ScalarEvent, line: int) -> None:
    """Find a key that its mapping has already."""
    if not above or above[-1].keys is None or above[-1].parts % 2:
        return
    key = event.value, event.implicit[0]
    if key in above[-1].keys:
        raise BoundedYamlError(f"line {line}: {event.value} is there twice; give it once")
    above[-1].keys.add(key)


def load_yaml(text: str) -> Any:
    """Return what YAML says, in plain types.

    Raises:
        yaml.YAMLError: it is not valid, too large, too deep, or says something twice.
    """
    check_yaml(text)
    return yaml.safe_load(text)


@cache
def bound_jsonargparse() -> None:
    """Have jsonargparse look through all YAML that it reads: values, and files that values name."""
    loaders = importlib.import_module("jsonargparse._loaders_dumpers")
    original = loaders.yaml_load

    @wraps(original)
    def yaml_load(stream: Any) -> Any:
        if isinstance(stream, str):
            check_yaml(stream)
        return original(stream)

    vars(loaders)["yaml_load"] = loaders.loaders["yaml"] = yaml_load
