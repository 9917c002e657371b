"""Keyword spotters that keep working when their arithmetic is noisy.

>>> import asr_dni
>>> asr_dni.load.__name__  # a trained network from its checkpoint, see asr_dni.inference
'load'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_dni.inference import FilePrediction, Prediction, Spotter, load

__version__ = "0.1.0"
__all__ = ["FilePrediction", "Prediction", "Spotter", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # torch and Lightning are imported when they are asked for: `asr-dni --help` has no use for them.
    if name in __all__:
        return getattr(import_module("asr_dni.inference"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
