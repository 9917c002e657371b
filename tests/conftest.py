"""Data and a trained run that several test modules share."""

from pathlib import Path

import pytest
from recordings import make_folder


@pytest.fixture(scope="session")
def tone_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three words that are tones: 18 training, 6 validation and 6 test clips, and background."""
    return make_folder(tmp_path_factory.mktemp("shared") / "words")


@pytest.fixture(scope="session")
def tone_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where :func:`tone_words` are decoded to, once."""
    return tmp_path_factory.mktemp("cache")
