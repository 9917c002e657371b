"""Data and a trained run that several test modules share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recordings import make_folder

from asr_dni.data import AugmentationSettings, Folder, KeywordData
from asr_dni.features import MFCCSettings


@pytest.fixture(scope="session")
def tone_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three words that are tones: 18 training, 6 validation and 6 test clips, and background."""
    return make_folder(tmp_path_factory.mktemp("shared") / "words")


@pytest.fixture(scope="session")
def tone_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where :func:`tone_words` are decoded to, once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def words(tone_words: Path, tone_cache: Path) -> Callable[..., KeywordData]:
    """Makes the data module of :func:`tone_words`, augmented, for a seed and further settings."""

    def words(seed: int, **options: Any) -> KeywordData:
        return KeywordData(
            Folder(tone_words),
            frontend=MFCCSettings(n_mfcc=10),
            augmentation=AugmentationSettings(time_shift_ms=100.0, background_probability=0.5, time_masks=1),
            batch_size=8,
            seed=seed,
            cache_dir=tone_cache,
            **options,
        )

    return words
