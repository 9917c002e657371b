"""Pages of the Python interface: the public names of each package, which mkdocstrings documents."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module

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

MODULES = {
    "evaluation": (
        "curves.differences",
        "curves.tolerance",
        "figures.noise_curves",
        "figures.differences",
        "figures.training",
        "questions.folder",
    ),
    "plotting": ("with_matplotlib", "with_plotly", "page"),
}
"""Modules of a package that are public beside its own names: their functions and classes."""


def pages() -> Iterator[tuple[str, str]]:
    """Yield name and Markdown of the page of each package that there is."""
    yield "asr_dni", _page("asr_dni", ("load", "Spotter", "Prediction", "FilePrediction"))
    for package in PACKAGES:
        name = f"asr_dni.{package}"
        further = [_module(f"{name}.{module}") for module in MODULES.get(package, ())]
        yield package, "\n".join([_page(name, import_module(name).__all__), *further])


def _page(package: str, names: "list[str] | tuple[str, ...]") -> str:
    module = import_module(package)
    said = _without_roles((inspect.getdoc(module) or "").partition("\n>>>")[0].strip())
    documented = "\n\n".join(f"::: {package}.{name}" for name in sorted(names, key=str.lower))
    return f"# {package}\n\n{said}\n\n{documented}\n"


def _module(name: str) -> str:
    """Return a section of a module, with what it has and its package does not name."""
    module = import_module(name)
    named = import_module(".".join(name.split(".")[:2])).__all__
    own = [
        key
        for key, value in vars(module).items()
        if key[0] != "_" and getattr(value, "__module__", None) == name and key not in named
    ]
    said = _without_roles((inspect.getdoc(module) or "").partition("\n\n")[0])
    listed = (f"::: {name}.{key}\n    options:\n      heading_level: 3" for key in own)
    return "\n\n".join([f"## {name}", said, *listed]) + "\n"


def _without_roles(text: str) -> str:
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
