import doctest

import numpy as np
import pytest

import asr_dni.files
from asr_dni.files import write_atomically


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


def test_docstring_example():
    assert doctest.testmod(asr_dni.files).failed == 0
