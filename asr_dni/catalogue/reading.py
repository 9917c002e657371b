"""What each file of a run says: its settings, its curve, whether it was tested, or what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from asr_dni.bounded_yaml import load_yaml
from asr_dni.catalogue.finding import CONFIGURATION, METRICS
from asr_dni.catalogue.metrics_file import check_metrics
from asr_dni.errors import UserError
from asr_dni.evaluation.curve import CurveSummary, NoiseCurve


@dataclass(frozen=True)
class Contents:
    """What one file says.

    Attributes:
        fault: what is wrong with it, after its name; "" where nothing is.
        settings: of a configuration: nested, as YAML has them; of a curve: its settings.
        summary: of a curve: its means over chips and draws.
        tested: of metrics: whether those of a test are among them.
    """

    fault: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    summary: CurveSummary | None = None
    tested: bool = False


def read_contents(path: Path) -> Contents:
    """Read a file of a run; whatever is wrong with it becomes its fault."""
    try:
        if path.name == CONFIGURATION:
            return Contents(settings=_read_configuration(path))
        if path.name == METRICS:
            contents = path.read_bytes()
            header = contents.partition(b"\n")[0].decode("utf-8", "replace").split(",")
            return Contents(check_metrics(contents), tested="test/accuracy" in header)
        if path.suffix == ".ckpt":
            return Contents(_check_checkpoint(path))
        curve = NoiseCurve.from_csv(path)
        return Contents(settings=curve.settings, summary=curve.summary())
    except UserError as error:
        return Contents(str(error).removeprefix(str(path)).lstrip(": "))
    except OSError as error:
        return Contents(f"can't be read: {error.strerror or error}")


def _read_configuration(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        settings = load_yaml(text)
    except UnicodeDecodeError:
        raise UserError("is not text") from None
    except yaml.YAMLError as error:
        raise UserError(f"is not YAML: {_one_line(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not YAML: {str(error).splitlines()[0]}") from error
    if settings is None:
        raise UserError("is empty")
    if not isinstance(settings, dict):
        raise UserError("holds no settings: expected a mapping")
    return settings


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1}: {problem}"
    return " ".join(str(error).split())


def _check_checkpoint(path: Path) -> str:
    """Return what is wrong with a checkpoint: it is a ZIP archive, whose directory stands at its end."""
    with open(path, "rb") as file:
        if not file.seek(0, 2):
            return "is empty"
        file.seek(0)
        begins = file.read(4)
        file.seek(max(file.seek(0, 2) - 65_557, 0))
        return "" if begins == b"PK\x03\x04" and b"PK\x05\x06" in file.read() else "is cut, or no checkpoint"


def flat(settings: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings with dotted names; of a class with arguments these stand under its own name.

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
