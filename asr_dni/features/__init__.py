"""Features that a keyword spotter sees instead of samples."""

from asr_dni.features.mfcc import MFCC, MFCCSettings, MFCCStream

__all__ = ["MFCC", "MFCCSettings", "MFCCStream"]
