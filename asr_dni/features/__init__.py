"""Front ends: features that a keyword spotter sees instead of samples."""

from asr_dni.features.front_end import FeatureStream, FrontEnd
from asr_dni.features.log_mel import LogMel
from asr_dni.features.mfcc import MFCC

__all__ = ["MFCC", "FeatureStream", "FrontEnd", "LogMel"]
