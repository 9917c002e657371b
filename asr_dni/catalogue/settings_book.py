"""Settings of many runs, kept in parts that many of them share: each is decoded, and laid flat, once."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml

from asr_dni.bounded_yaml import MOST_VALUES, load_yaml

Parts = tuple[str, ...]
"""Settings as texts: of each a key, a line break and the value as JSON; an empty key stands for all settings."""

_KEY = re.compile(r"([A-Za-z_][\w.-]*):(?= |$)")


@dataclass(frozen=True)
class _Part:
    nested: dict[str, Any]
    flat: dict[str, Any]


class SettingsBook:
    """Decodes parts of settings, each once. What it returns is shared: it is not to be changed."""

    def __init__(self) -> None:
        self._parts: dict[str, _Part] = {}
        self._of_yaml: dict[str, str] = {}

    def part(self, text: str) -> _Part:
        """Return a part decoded."""
        known = self._parts.get(text)
        if known is None:
            key, _, value = text.partition("\n")
            nested = {key: json.loads(value)} if key else json.loads(value)
            known = self._parts[text] = _Part(nested, flat(nested))
        return known

    def nested(self, parts: Parts) -> dict[str, Any]:
        """Return settings as their file has them."""
        found: dict[str, Any] = {}
        for text in parts:
            found.update((self._parts.get(text) or self.part(text)).nested)
        return found

    def flat(self, parts: Parts) -> dict[str, Any]:
        """Return settings with dotted names, see :func:`flat`."""
        return {key: value for part in parts for key, value in self.part(part).flat.items()}

    def write(self, settings: Mapping[str, Any]) -> Parts:
        """Return settings as one part."""
        return (f"\n{_json(settings)}",)

    def names(self, many: Iterable[Parts]) -> list[str]:
        """Return the dotted names that any of many settings have, each once."""
        distinct = dict.fromkeys(part for parts in many for part in parts)
        return list(dict.fromkeys(name for part in distinct for name in self.part(part).flat))

    def columns(self, many: Sequence[Parts]) -> dict[str, "pd.Series[Any]"]:
        """Return settings as columns of a table, by dotted name: a row for each of many; lists as JSON."""
        rows: dict[str, list[int]] = {}
        for row, parts in enumerate(many):
            for part in parts:
                rows.setdefault(part, []).append(row)
        columns: dict[str, np.ndarray[Any, np.dtype[np.object_]]] = {}
        for part, places in rows.items():
            for name, value in self.part(part).flat.items():
                if name not in columns:
                    columns[name] = np.full(len(many), None, dtype=object)
                columns[name][places] = _cell(value)
        return {name: pd.Series(values).infer_objects() for name, values in columns.items()}

    def read_yaml(self, text: str) -> Parts:
        """Return the settings that a configuration's text says.

        Its sections, from one key at the beginning of a line to the next, are read by themselves, so that what many
        configurations share is read once. Where any of them is not whole by itself, all of the text is read at once.

        Raises:
            yaml.YAMLError: see :func:`asr_dni.bounded_yaml.load_yaml`.
            ValueError: it is no mapping, or empty.
        """
        sections = _sections(text)
        if sections is not None:
            try:
                return tuple(self._read_section(key, section) for key, section in sections.items())
            except (yaml.YAMLError, ValueError, RecursionError):
                pass
        settings = load_yaml(text)
        if settings is None:
            raise ValueError("is empty")
        if not isinstance(settings, dict):
            raise ValueError("holds no settings: expected a mapping")
        return self.write(settings)

    def _read_section(self, key: str, section: str) -> str:
        known = self._of_yaml.get(section)
        if known is None:
            read = load_yaml(section)
            if not isinstance(read, dict) or list(read) != [key]:
                raise ValueError(f"{section!r} is not one setting")
            known = self._of_yaml[section] = f"{key}\n{_json(read[key])}"
        return known


def _sections(text: str) -> dict[str, str] | None:
    """Return the text of each key of a configuration; ``None`` where it is not made of such."""
    if len(text) > MOST_VALUES:  # so many characters may stand for too many values
        return None
    sections: dict[str, str] = {}
    key, begin, place = None, 0, 0
    for line in text.splitlines(keepends=True):
        if line[0] not in " #-\r\n":
            found = _KEY.match(line)
            if found is None or found[1] in sections:
                return None
            if key is not None:
                sections[key] = text[begin:place]
            key, begin = found[1], place
            sections[key] = ""
        elif key is None and line[0] != "#":
            return None
        place += len(line)
    if key is not None:
        sections[key] = text[begin:]
    return sections or None


def flat(settings: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings with dotted names.

    >>> flat({"model": {"network": {"cell": "lstm"}}, "sites": ["input"]})
    {'model.network.cell': 'lstm', 'sites': ['input']}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
