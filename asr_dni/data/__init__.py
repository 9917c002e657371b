"""Recordings (or images) in, batches of features out."""

from asr_dni.data.augmentation import Augmentation, AugmentationSettings
from asr_dni.data.batch import AudioBatch, Batch, BatchLoader, BatchOrder, TrainingBatch
from asr_dni.data.clip_features import ClipFeatures
from asr_dni.data.datamodule import KeywordData
from asr_dni.data.digits import DeformationSettings, DigitsData
from asr_dni.data.folder import Folder
from asr_dni.data.folder_clips import FolderClips
from asr_dni.data.in_memory import Examples, InMemoryData
from asr_dni.data.labels import LabelSettings
from asr_dni.data.modules import (
    DATA_MODULES,
    SequenceData,
    data_class_of,
    data_from_checkpoint,
    data_modules,
    find_data_class,
)
from asr_dni.data.population_data import PopulationData
from asr_dni.data.source import Clip, Source
from asr_dni.data.speech_commands import SpeechCommands
from asr_dni.data.splits import SplitData
from asr_dni.data.store import PackedStore
from asr_dni.data.strokes import StrokesData
from asr_dni.data.synthetic import Synthetic

__all__ = [
    "DATA_MODULES",
    "AudioBatch",
    "Augmentation",
    "AugmentationSettings",
    "Batch",
    "BatchLoader",
    "BatchOrder",
    "Clip",
    "ClipFeatures",
    "DeformationSettings",
    "DigitsData",
    "Examples",
    "Folder",
    "FolderClips",
    "InMemoryData",
    "KeywordData",
    "LabelSettings",
    "PackedStore",
    "PopulationData",
    "SequenceData",
    "Source",
    "SpeechCommands",
    "SplitData",
    "StrokesData",
    "Synthetic",
    "TrainingBatch",
    "data_class_of",
    "data_from_checkpoint",
    "data_modules",
    "find_data_class",
]
