import os
import tempfile
import unicodedata
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import make_folder, tone, write

from asr_dni.configuration import from_configuration
from asr_dni.data.folder import Folder
from asr_dni.data.source import Source, composed, speaker_split
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
    for function in (Folder(tmp_path).prepare, Folder(tmp_path).words):
        with pytest.raises(UserError, match="1 recordings directly in this folder, and no folder of a word"):
            function()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no words in this folder"):
        Folder(tmp_path / "empty").words()


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


UNICODE_FORMS = ("NFC", "NFD")


@pytest.mark.parametrize("of_files", UNICODE_FORMS)
@pytest.mark.parametrize("of_list", UNICODE_FORMS)
def test_lists_and_files_may_have_different_unicode_forms(tmp_path, of_files, of_list):
    names = [f"{word}/sö{k}_nohash_0.wav" for word in ("fünf", "zwei") for k in range(6)]
    for name in names:
        write(tmp_path / unicodedata.normalize(of_files, name), tone(440, 0.01))
    for file, k in (("validation_list.txt", 1), ("testing_list.txt", 2)):
        lines = [unicodedata.normalize(of_list, name) for name in names if f"sö{k}_" in name]
        (tmp_path / file).write_text("\n".join(lines), encoding="utf-8")
    folder = Folder(tmp_path)
    assert folder.words() == ["fünf", "zwei"]
    found = splits(folder)
    assert sorted(found) == names
    assert {name for name, split in found.items() if split == "validation"} == {
        "fünf/sö1_nohash_0.wav",
        "zwei/sö1_nohash_0.wav",
    }
    assert Counter(found.values()) == {"train": 8, "validation": 2, "test": 2}
    assert all(clip.path.exists() for clip in folder.clips())
    assert folder.remarks() == []


def test_a_word_in_two_unicode_forms(tmp_path):
    for form in UNICODE_FORMS:
        write(tmp_path / unicodedata.normalize(form, "fünf") / "a.wav", tone(440, 0.01))
    with pytest.raises(UserError, match="two folders of the word 'fünf'"):
        Folder(tmp_path).words()


def test_recordings_that_were_converted_stay_in_their_split(tmp_path):
    make_folder(tmp_path, words=("no", "yes"), per_split=(2, 1, 1))
    before = splits(Folder(tmp_path))
    for path in (tmp_path / "yes").iterdir():
        path.rename(path.with_suffix(".FLAC"))
    after = splits(Folder(tmp_path))
    assert after == {
        name.replace(".wav", ".FLAC") if name.startswith("yes") else name: split
        for name, split in before.items()
    }


@given(
    moved=st.lists(st.sampled_from(["train", "validation", "test"]), min_size=4, max_size=12),
    text=st.text(
        st.characters(exclude_categories=("Cc", "Cs", "Z"), exclude_characters="/\\\ufeff"),
        min_size=1,
        max_size=9,
    ),
    form=st.sampled_from(("NFC", "NFD", None)),
    ending=st.sampled_from((".wav", ".flac", ".wav.wav")),
    line_end=st.sampled_from(("\n", "\r\n", " \n")),
    before=st.sampled_from(("", "./", ".\\")),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_no_listed_clip_is_trained_on(moved, text, form, ending, line_end, before):
    """Whatever a name holds, however the list writes it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        (path / "yes").mkdir()
        lists = {"validation": [], "test": [], "train": []}
        for k, split in enumerate(moved):
            file = f"yes/{text}{k}_nohash_0"
            try:
                (path / f"{file}.wav").touch()
            except OSError:
                return  # too long for a file's name
            lists[split].append(before + (unicodedata.normalize(form, file) if form else file) + ending)
        for split, file in (("validation", "validation_list.txt"), ("test", "testing_list.txt")):
            (path / file).write_text(line_end.join(lists[split]), encoding="utf-8", newline="")
        assert [
            clip.split
            for clip in sorted(
                Folder(path).clips(), key=lambda clip: int(clip.speaker[len(composed(text)) :])
            )
        ] == moved


def test_few_lines_that_match_no_file_are_told_with_their_number(tmp_path):
    make_folder(tmp_path, words=("no", "yes"), per_split=(2, 20, 2))
    lines = (tmp_path / "validation_list.txt").read_text().split()
    lines[3] += "x"
    lines += ["bed/a_nohash_0.wav", "bed/b_nohash_0.wav", "bird/a_nohash_0.wav"]
    (tmp_path / "validation_list.txt").write_text("\n".join(lines))
    folder = Folder(tmp_path)
    assert Counter(splits(folder).values()) == {"train": 5, "validation": 39, "test": 4}
    path = tmp_path / "validation_list.txt"
    assert folder.remarks() == [
        f"{path}: 1 of 40 lines name no file, so that clips may be trained on that were meant to be held out:"
        f" {lines[3]}",
        f"{path}: 3 lines name words that have no folder: bed (2), bird (1)",
    ]


def test_many_lines_that_match_no_file_are_an_error(tmp_path):
    make_folder(tmp_path, words=("no", "yes"), per_split=(2, 10, 2))
    names = (tmp_path / "validation_list.txt").read_text().split()
    for wrong, refused in ((2, False), (3, True)):
        lines = [name + "x" for name in names[:wrong]] + names[wrong:]
        (tmp_path / "validation_list.txt").write_text("\n".join(lines))
        if refused:
            with pytest.raises(UserError, match="3 of 20 lines name no file") as error:
                Folder(tmp_path).clips()
            assert lines[0] in line(error)
        else:
            Folder(tmp_path).clips()


def test_a_list_that_is_no_file(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "testing_list.txt").unlink()
    os.mkfifo(tmp_path / "testing_list.txt")
    with pytest.raises(UserError, match=r"this list cannot be read \(not a file\)"):
        Folder(tmp_path).clips()


def unnamed(path, names=("anna_1", "anna_2", "ben_1")):
    for word in ("no", "yes"):
        for name in names:
            write(path / word / f"{name}.wav", tone(440, 0.01))
    return path


def test_speakers_that_the_names_do_not_tell_are_told(tmp_path):
    folder = Folder(unnamed(tmp_path))
    assert {clip.speaker for clip in folder.clips()} == {"anna_1", "anna_2", "ben_1"}
    (remark,) = folder.remarks()
    assert remark.startswith(
        f"{tmp_path}: 6 of 6 clips are not named <speaker>_nohash_<k>, such as no/anna_1.wav:"
    )
    assert "--data.source.init_args.speaker '(?P<speaker>...)'" in remark
    for name in ("validation_list.txt", "testing_list.txt"):
        (tmp_path / name).write_text("yes/ben_1.wav" if name.startswith("v") else "")
    folder.clips()
    assert folder.remarks() == []  # the lists say it all


def test_an_expression_tells_the_speakers(tmp_path):
    folder = Folder(unnamed(tmp_path), speaker="/(?P<speaker>[^_]+)_")
    clips = folder.clips()
    assert [clip.speaker for clip in clips] == ["anna", "anna", "ben"] * 2
    assert all(clip.split == speaker_split(clip.speaker) for clip in clips)
    assert folder.remarks() == []
    others = {Folder(tmp_path).identity, Folder(tmp_path, speaker="/(?P<speaker>[^_]+)").identity}
    assert folder.identity not in others
    assert folder.identity.startswith(f"folder {tmp_path.name}, speakers by pattern ")
    assert from_configuration(folder.configuration(), Source, "source").clips() == clips


@pytest.mark.parametrize(
    ("speaker", "message"),
    [
        ("(?P<speaker>", "no regular expression"),
        ("[a-z]+", r"does not say what the speaker is.*\(\?P<speaker>"),
        ("/(?P<speaker>anna)_", r"finds none in 2 of 6 names: no/ben_1\.wav, yes/ben_1\.wav"),
        ("/(?P<speaker>x*)", "finds none in 6 of 6 names"),
    ],
)
def test_an_expression_that_does_not_tell_the_speakers(tmp_path, speaker, message):
    with pytest.raises(UserError, match=message) as error:
        Folder(unnamed(tmp_path), speaker=speaker).clips()
    line(error)


def test_what_is_passed_over_is_named(tmp_path):
    make_folder(tmp_path, words=("no", "yes"), per_split=(2, 1, 1))
    for name in ("yes/a.m4a", "yes/b.txt", "no/c.aac", "yes/anna/d.wav", "e.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("yes/.DS_Store", "README.md", "_other_/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "stop").symlink_to(tmp_path / "nowhere")
    folder = Folder(tmp_path)
    folder.clips()
    assert folder.remarks() == [
        f"{tmp_path}: passed over 4 files that are no clips: of another type, or not in a word's folder"
        " (no/c.aac, yes/a.m4a, yes/b.txt and 1 more), 1 folders within a word's folder (yes/anna),"
        " 1 links to nothing (stop)"
    ]


def test_a_word_with_files_of_another_type_only(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "stop").mkdir()
    (tmp_path / "stop" / "a.m4a").touch()
    with pytest.raises(UserError, match=r"no clips of the word 'stop'.*\(there are a\.m4a\)"):
        Folder(tmp_path).clips()


def test_names_in_latin_1(tmp_path):
    make_folder(tmp_path, words=("no", "yes"), per_split=(2, 1, 1))
    name = os.fsdecode(b"gr\xfcn_1.wav")
    write(tmp_path / "yes" / "a.wav", tone(440, 0.01)).rename(tmp_path / "yes" / name)
    folder = Folder(tmp_path)
    (clip,) = (clip for clip in folder.clips() if clip.name == f"yes/{name}")
    assert clip.split == "train"  # a list that is there has named all others
    (tmp_path / "testing_list.txt").write_bytes(b"yes/gr\xfcn_1.wav")
    assert {clip.name for clip in Folder(tmp_path).clips() if clip.split == "test"} == {f"yes/{name}"}
    (tmp_path / os.fsdecode(b"gr\xfcn")).mkdir()
    with pytest.raises(UserError, match="a word, is not UTF-8; rename it"):
        folder.words()


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
