"""The data modules that there are, and which one a checkpoint was trained with."""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from asr_dni.checkpoint import open_checkpoint
from asr_dni.data.datamodule import KeywordData
from asr_dni.data.digits import DigitsData
from asr_dni.data.splits import SplitData
from asr_dni.data.strokes import StrokesData
from asr_dni.errors import UserError
from asr_dni.named_classes import find_class

SequenceData: TypeAlias = SplitData[Any]
"""Any data module."""

DATA_MODULES: dict[str, type[SequenceData]] = {
    module.__qualname__: module
    for module in (
        KeywordData,
        DigitsData,
        StrokesData,
    )
}
"""Every data module by its name, which is also the key of its state in a checkpoint. A new one is added here."""


def data_modules() -> dict[str, type[SequenceData]]:
    """Return every data module by its name: those of this package, and those of modules that the user has imported."""
    found: dict[str, type[SequenceData]] = {}
    classes: list[type[SequenceData]] = SplitData.__subclasses__()
    while classes:
        kind = classes.pop()
        classes += kind.__subclasses__()
        of_user = not kind.__module__.startswith("asr_dni.") and not inspect.isabstract(kind)
        if of_user and getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind:
            found[kind.__qualname__] = kind
    return {**found, **DATA_MODULES}


def find_data_class(name: str) -> type[SequenceData]:
    """Return a data module by its name or, of a module of the user's own, its import path.

    Raises:
        UserError: there is none.
    """
    known = data_modules()
    if name in known:
        return known[name]
    if "." not in name:
        raise UserError(f"data_class is {name}: give one of {', '.join(known)}")
    try:
        return find_class(name, SplitData)
    except UserError as error:
        raise UserError(f"data_class {error}") from error


def data_class_of(contents: Mapping[str, Any]) -> type[SequenceData] | None:
    """Return the class of the data module whose state a checkpoint holds; None: there is none.

    Args:
        contents: what ``torch.load`` made of a checkpoint.
    """
    return next((module for name, module in data_modules().items() if name in contents), None)


def data_from_checkpoint(checkpoint: str | Path | Mapping[str, Any], **replacements: Any) -> SequenceData:
    """Rebuild the data module that a network was trained with, whichever it was.

    Args:
        checkpoint: a checkpoint file, or what ``torch.load`` made of one.
        **replacements: arguments of the data module's constructor that are to be others, such as ``batch_size``.

    Raises:
        UserError: the file is missing or holds no data module's settings.
    """
    contents, where = open_checkpoint(checkpoint)
    module = data_class_of(contents)
    if module is None:
        raise UserError(f"{where}: holds no data settings; expected a checkpoint that asr-dni fit wrote")
    return module.from_checkpoint(contents, **replacements)
