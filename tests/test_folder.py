import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from recordings import make_folder, tone, write

from asr_dni.data.folder import Folder
from asr_dni.data.source import speaker_split
from asr_dni.errors import UserError


def splits(folder):
    return {clip.name: clip.split for clip in folder.clips()}


def test_lists_decide_the_splits(tmp_path):
    folder = Folder(make_folder(tmp_path, words=("no", "yes"), per_split=(3, 1, 2)))
    folder.prepare()
    assert folder.words() == ["no", "yes"]
    found = splits(folder)
    assert list(found) == sorted(found)
    for word, i in (("no", 0), ("yes", 1)):
        names = [f"{word}/{k:08x}_nohash_{i}.wav" for k in range(6)]
        assert [found[name] for name in names] == ["train"] * 3 + ["validation"] + ["test"] * 2
    assert [path.name for path in folder.background()] == ["hiss.wav"]


def test_without_lists_the_speaker_decides(tmp_path):
    make_folder(tmp_path, words=("yes",), per_split=(40, 0, 0))
    for name in ("validation_list.txt", "testing_list.txt"):
        (tmp_path / name).unlink()
    clips = Folder(tmp_path).clips()
    assert {clip.split for clip in clips} == {"train", "validation", "test"}
    assert all(clip.split == speaker_split(clip.speaker) for clip in clips)


def test_with_one_list_the_rule_decides_the_other_split(tmp_path):
    make_folder(tmp_path, words=("yes",), per_split=(40, 0, 0))
    (tmp_path / "testing_list.txt").write_text("yes/00000000_nohash_0.wav\n")
    (tmp_path / "validation_list.txt").unlink()
    found = splits(Folder(tmp_path))
    for name, split in found.items():
        by_rule = speaker_split(name[4:12])
        if name == "yes/00000000_nohash_0.wav":
            assert split == "test"
        else:
            assert split == ("validation" if by_rule == "validation" else "train")
    assert "validation" in found.values()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_all_clips_can_be_put_in_one_split(tmp_path, split):
    assert set(splits(Folder(make_folder(tmp_path), split=split)).values()) == {split}


def test_which_files_and_folders_count(tmp_path):
    names = ["yes/a_nohash_0.wav.wav", "yes/plain name.WAV", "yes/b.flac", "_unknown_/bed_c_nohash_0.wav"]
    ignored = ["yes/._a_nohash_0.wav", "_other_/x.wav", ".hidden/x.wav", "_background_noise_/hum.wav"]
    for name in names + ignored:
        write(tmp_path / name, tone(440)) if name.endswith(".wav") else (tmp_path / name).write_bytes(b"?")
    (tmp_path / "yes" / "notes.txt").write_text("not a clip")
    folder = Folder(tmp_path)
    assert folder.words() == ["yes"]
    found = {clip.name: clip.speaker for clip in folder.clips()}
    speakers = ["bed_c", "a", "b", "plain name"]
    assert found == dict(zip(sorted(names), speakers, strict=True))


def test_lists_from_other_systems_are_understood(tmp_path):
    make_folder(tmp_path, words=("yes",), per_split=(3, 0, 0))
    (tmp_path / "validation_list.txt").write_bytes(b"\xef\xbb\xbfyes\\00000001_nohash_0.wav\r\n\r\n")
    (tmp_path / "testing_list.txt").write_text("./yes/00000002_nohash_0.wav")
    assert list(splits(Folder(tmp_path)).values()) == ["train", "validation", "test"]


def line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="no such folder") as error:
        Folder(tmp_path / "nowhere").prepare()
    assert str(tmp_path / "nowhere") in line(error)


def test_a_file_instead_of_a_folder(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        Folder(write(tmp_path / "a.wav", tone(440))).words()


def test_a_folder_without_words(tmp_path):
    write(tmp_path / "a.wav", tone(440))
    with pytest.raises(UserError, match="no words in this folder"):
        Folder(tmp_path).prepare()


def test_a_word_with_no_clips(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "stop").mkdir()
    with pytest.raises(UserError, match="no clips of the word 'stop'") as error:
        Folder(tmp_path).clips()
    assert str(tmp_path / "stop") in line(error)


def test_a_list_of_something_else(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "testing_list.txt").write_text("tree/00000000_nohash_0.wav\n")
    with pytest.raises(UserError, match="none of its 1 lines names a clip"):
        Folder(tmp_path).clips()


def test_a_clip_in_both_lists(tmp_path):
    make_folder(tmp_path)
    text = (tmp_path / "validation_list.txt").read_text()
    (tmp_path / "testing_list.txt").write_text(text)
    with pytest.raises(UserError, match=r"is in validation_list\.txt too"):
        Folder(tmp_path).clips()


def test_an_unknown_split():
    with pytest.raises(UserError, match="split 'dev'"):
        Folder("x", split="dev")  # type: ignore[arg-type]


@contextmanager
def without_privileges():
    """Root may read everything: be nobody for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_folder():
    with tempfile.TemporaryDirectory() as name:
        path = make_folder(Path(name))
        path.chmod(0o755)
        (path / "yes").chmod(0)
        with without_privileges(), pytest.raises(UserError, match="this folder cannot be read") as error:
            Folder(path).clips()
        (path / "yes").chmod(0o755)
    assert str(path / "yes") in line(error)
