"""The one reader of results: runs and studies below a folder, with one identity and one label each."""

from asr_dni.catalogue.catalogue import Catalogue
from asr_dni.catalogue.entry import State
from asr_dni.catalogue.run import Run

__all__ = ["Catalogue", "Run", "State"]
