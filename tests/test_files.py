import doctest
import os
import time

import numpy as np
import pandas as pd
import pytest
from file_systems import small_file_system

import asr_dni.files
from asr_dni.files import publish_folder, write_atomically


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail():
        with write_atomically(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


def test_the_temporary_path_keeps_the_ending_and_the_folder_is_made(tmp_path):
    path = tmp_path / "deep" / "er" / "array.npy"
    with write_atomically(path) as temporary:
        np.save(temporary, np.arange(3))  # appends .npy to names that lack it
        assert temporary.parent == path.parent
        assert not path.exists()
    assert np.load(path).tolist() == [0, 1, 2]


WRITERS = {
    "text": lambda path: path.write_text("x" * 1_000_000),
    "numpy": lambda path: np.save(path, np.zeros(1_000_000)),
    "pandas": lambda path: pd.DataFrame({"a": np.zeros(1_000_000)}).to_csv(path),
    "parquet": lambda path: pd.DataFrame({"a": np.random.default_rng(0).random(1_000_000)}).to_parquet(path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_told_with_the_files_own_name_whatever_writes(tmp_path, writer):
    with small_file_system(tmp_path / "small", 100_000) as folder:
        path = folder / "table.npy"
        path.write_text("old")

        def write():
            with write_atomically(path) as temporary:
                WRITERS[writer](temporary)

        with pytest.raises(OSError, match=r"space|cannot be written") as raised:
            write()
        assert raised.value.filename == str(path)
        assert raised.value.strerror
        assert path.read_text() == "old"
        assert [entry.name for entry in folder.iterdir()] == ["table.npy"]


def test_what_killed_writers_left_is_removed_when_it_is_old(tmp_path):
    path = tmp_path / "last.ckpt"
    old, new, other = (
        tmp_path / f".{name}" for name in ("last.7-0badcafe.ckpt", "last.8-0badcafe.ckpt", "x.ckpt")
    )
    for leftover in (old, new, other):
        leftover.write_text("half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    with write_atomically(path) as temporary:
        temporary.write_text("whole")
    assert {entry.name for entry in tmp_path.iterdir()} == {"last.ckpt", new.name, other.name}


def test_a_folder_appears_with_all_that_is_in_it(tmp_path):
    temporary = tmp_path / ".temporary"
    for number in range(100):
        (temporary / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        (temporary / f"{number % 3}" / f"{number}").write_text(str(number))
    publish_folder(temporary, tmp_path / "whole")
    assert sum(entry.is_file() for entry in (tmp_path / "whole").rglob("*")) == 100
    assert [entry.name for entry in tmp_path.iterdir()] == ["whole"]


def test_docstring_example():
    assert doctest.testmod(asr_dni.files).failed == 0
