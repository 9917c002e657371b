"""A trained network on own recordings: load a checkpoint, predict, measure."""

from asr_dni.inference.prediction import FilePrediction, Prediction
from asr_dni.inference.spotter import Spotter, load

__all__ = ["FilePrediction", "Prediction", "Spotter", "load"]
