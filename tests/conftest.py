"""Data and a trained run that several test modules share."""

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Of a million objects of imported modules and collected tests, which it would look at again and again, none is garbage:
# the garbage collector has nothing to do before the first test.
gc.disable()

# Fixtures import what they need: the process that hands the tests to the workers needs none of it.
if TYPE_CHECKING:
    from asr_dni.data import KeywordData

# Files whose tests wait for processes of their own: begun last, they would be waited for by everybody.
LONGEST = ["test_processes.py", "test_nn_triton.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the others stay where they are."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _imports_are_left_to_themselves() -> None:
    """Let the garbage collector begin, with what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _no_run_is_left_open() -> Iterator[None]:
    """Finish the W&B run that a test has begun: the next test of this process begins without one."""
    yield
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish()


@pytest.fixture(autouse=True)
def _depends_on_no_other_test() -> None:
    """Seed torch's generator for tests that name no seed, and have warnings that are given once given again."""
    from asr_dni import told_once

    told_once.forget()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture
def restored_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes back what a command leaves in the process, and keeps W&B offline."""
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    handler = signal.getsignal(signal.SIGINT)
    # A process in the background begins with another one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="session")
def tone_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three words that are tones: 18 training, 6 validation and 6 test clips, and background."""
    from recordings import make_folder

    return make_folder(tmp_path_factory.mktemp("shared") / "words")


@pytest.fixture(scope="session")
def tone_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where :func:`tone_words` are decoded to, once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def words(tone_words: Path, tone_cache: Path) -> Callable[..., "KeywordData"]:
    """Makes the data module of :func:`tone_words`, augmented, for a seed and further settings."""
    from asr_dni.data import AugmentationSettings, Folder, KeywordData
    from asr_dni.features import MFCC

    def words(seed: int, **options: Any) -> KeywordData:
        return KeywordData(
            Folder(tone_words),
            front_end=MFCC(n_mfcc=10),
            augmentation=AugmentationSettings(time_shift_ms=100.0, background_probability=0.5, time_masks=1),
            batch_size=8,
            seed=seed,
            cache_dir=tone_cache,
            **options,
        )

    return words


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three words that are tones; four test clips of each."""
    from recordings import make_folder

    return make_folder(tmp_path_factory.mktemp("spoken") / "words", per_split=(6, 1, 4), background_seconds=0)


@pytest.fixture(scope="session")
def checkpoint(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was trained on a copy of :func:`spoken` which is not there any more."""
    from trained import train

    from asr_dni.data import Folder, KeywordData
    from asr_dni.features import MFCC

    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(spoken, folder / "words")
    front_end = MFCC(n_mels=20, n_mfcc=10)
    data = KeywordData(
        Folder(folder / "words"), front_end=front_end, batch_size=6, cache_dir=folder / "cache", seed=1
    )
    path = train(folder, data, epochs=8)
    shutil.rmtree(folder / "words")
    shutil.rmtree(folder / "cache")
    return path
