"""Pages of the Python interface: the public names of each package, which mkdocstrings documents."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

PACKAGES = (
    "nn",
    "noise",
    "features",
    "data",
    "model",
    "evaluation",
    "inference",
    "study",
    "catalogue",
    "plotting",
)


def pages() -> Iterator[tuple[str, str]]:
    """Yield name and Markdown of the page of each package that there is."""
    yield "asr_dni", _page("asr_dni", ("load", "Spotter", "Prediction", "FilePrediction"))
    for package in PACKAGES:
        name = f"asr_dni.{package}"
        if find_spec(name) is None:
            continue
        yield package, _page(name, import_module(name).__all__)


def _page(package: str, names: "list[str] | tuple[str, ...]") -> str:
    module = import_module(package)
    said = _without_roles((inspect.getdoc(module) or "").partition("\n>>>")[0].strip())
    documented = "\n\n".join(f"::: {package}.{name}" for name in sorted(names, key=str.lower))
    return f"# {package}\n\n{said}\n\n{documented}\n"


def _without_roles(text: str) -> str:
    return re.sub(r":\w+:(`[^`]+`)", r"\1", text)
