import hashlib
import logging
import multiprocessing
import os
import shutil

import numpy as np
import pytest
from file_systems import small_file_system
from recordings import make_folder, tone, write
from test_audio import make_damaged

from asr_dni.data.audio import read_recording
from asr_dni.data.folder import Folder
from asr_dni.data.source import SPLITS
from asr_dni.data.store import SILENCE_BIT, clip_id, pack
from asr_dni.errors import UserError


def pack_folder(path, cache, **options):
    folder = Folder(path)
    return pack(folder.clips(), folder.background(), identity=folder.identity, cache_dir=cache, **options)


def entries(cache):
    return sorted(entry.name for entry in cache.iterdir() if not entry.name.endswith(".lock"))


@pytest.mark.parametrize("num_workers", [1, 4])
def test_rows_are_the_decoded_clips_with_what_is_known_of_them(tmp_path, num_workers):
    path = make_folder(tmp_path / "words", seconds=0.9)
    store = pack_folder(path, tmp_path / "cache", num_workers=num_workers)
    clips = Folder(path).clips()
    assert len(store) == len(clips) == 30
    assert store.label_names == ["go", "no", "yes"]
    for row, clip in enumerate(clips):
        np.testing.assert_array_equal(store.audio[row], read_recording(clip.path, 16000, 16000))
        assert store.label_names[store.labels[row]] == clip.label
        assert SPLITS[store.splits[row]] == clip.split
        assert store.name(row) == clip.name
        assert store.speaker(row) == clip.speaker
        assert store.clip_ids[row] == clip_id(clip.name)
    np.testing.assert_array_equal(store.background, read_recording(Folder(path).background()[0], 16000))
    assert isinstance(store.audio, np.memmap)


def test_rate_and_length(tmp_path):
    path = make_folder(tmp_path / "words")
    store = pack_folder(path, tmp_path / "cache", sample_rate=8000, n_samples=4000)
    assert store.audio.shape == (30, 4000)
    assert store.sample_rate == 8000
    expected = tone(200, seconds=0.5, rate=8000, level=0.2) * 32768
    np.testing.assert_allclose(store.audio[0, 400:], expected[400:], atol=0.005 * 0.2 * 32768)


def test_nothing_is_decoded_twice(tmp_path, monkeypatch):
    path = make_folder(tmp_path / "words")
    first = pack_folder(path, tmp_path / "cache")
    monkeypatch.setattr("asr_dni.data.store.load_recording", None)  # calling it would fail
    again = pack_folder(path, tmp_path / "cache")
    assert again.path == first.path
    np.testing.assert_array_equal(again.audio, first.audio)
    assert entries(tmp_path / "cache") == [first.path.name]


def test_the_same_data_elsewhere_have_the_same_store(tmp_path):
    first = pack_folder(make_folder(tmp_path / "a" / "words"), tmp_path / "cache")
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copy2)  # keeps the times
    assert pack_folder(tmp_path / "b" / "words", tmp_path / "cache").path == first.path


@pytest.mark.parametrize("change", ["content", "more", "lists", "rate", "length"])
def test_whatever_matters_gives_another_store(tmp_path, change):
    path = make_folder(tmp_path / "words")
    first = pack_folder(path, tmp_path / "cache").path
    options = {"rate": {"sample_rate": 8000}, "length": {"n_samples": 8000}}.get(change, {})
    if change == "content":
        write(path / "go" / "00000000_nohash_0.wav", tone(99))
    elif change == "more":
        write(path / "go" / "new_nohash_0.wav", tone(99))
    elif change == "lists":
        (path / "validation_list.txt").write_text("go/00000000_nohash_0.wav\n")
    assert pack_folder(path, tmp_path / "cache", **options).path != first


def test_gathering_is_indexing_and_negative_rows_are_silent(tmp_path):
    store = pack_folder(make_folder(tmp_path / "words"), tmp_path / "cache")
    out = np.full((4, 16000), 7, dtype=np.int16)
    store.gather(np.array([29, -1, 3, 3]), out)
    np.testing.assert_array_equal(out[[0, 2, 3]], store.audio[[29, 3, 3]])
    assert not out[1].any()


def test_damaged_clips_are_an_error_that_names_them(tmp_path):
    path = make_folder(tmp_path / "words", words=("yes",))
    reasons = {name: reason for name, reason in make_damaged(path / "yes").items() if name != "missing.wav"}
    with pytest.raises(
        UserError, match=f"{len(reasons)} of {10 + 1 + len(reasons) + 1} recordings are damaged"
    ) as e:
        pack_folder(path, tmp_path / "cache")
    assert f"{path / 'yes' / 'empty.wav'}: an empty file" in str(e.value)
    assert "damaged: skip" in str(e.value)
    assert "\n" not in str(e.value)
    assert entries(tmp_path / "cache") == []


def test_damaged_clips_can_be_left_out_and_are_counted(tmp_path, caplog):
    path = make_folder(tmp_path / "words", words=("yes",))
    write(path / "yes" / "whole.wav", tone(440))
    before = [clip.name for clip in Folder(path).clips()]
    reasons = {name: reason for name, reason in make_damaged(path / "yes").items() if name != "missing.wav"}
    with caplog.at_level(logging.WARNING):
        store = pack_folder(path, tmp_path / "cache", damaged="skip")
    assert [store.name(row) for row in range(len(store))] == before
    for row in range(len(store)):
        expected = read_recording(path / store.name(row), 16000, 16000)
        np.testing.assert_array_equal(store.audio[row], expected)
    assert store.audio.shape == (len(before), 16000)
    assert {name.rsplit("/", 1)[1] for name, _ in store.skipped} == set(reasons)
    assert len(caplog.records) == 1
    assert f"left out {len(reasons)} damaged of {len(before) + len(reasons) + 1} recordings" in caplog.text
    with pytest.raises(UserError, match="damaged"):  # the store is there, but the setting is another
        pack_folder(path, tmp_path / "cache")


def test_damaged_background_is_treated_alike(tmp_path):
    path = make_folder(tmp_path / "words")
    (path / "_background_noise_" / "bad.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"bad\.wav: an empty file"):
        pack_folder(path, tmp_path / "cache")
    assert len(pack_folder(path, tmp_path / "cache", damaged="skip").background) == 32000


@pytest.mark.parametrize("folder", ["yes", "_background_noise_"])
@pytest.mark.parametrize("kind", ["link to nothing", "named pipe", "streamed"])
def test_no_kind_of_file_escapes_the_setting(tmp_path, folder, kind):
    """A streamed FLAC, whose length is not known, is none of the damaged ones."""
    path = make_folder(tmp_path / "words", words=("no", "yes"), per_split=(2, 1, 1))
    file = path / folder / "a_nohash_0.wav"
    if kind == "link to nothing":
        file.symlink_to(tmp_path / "nowhere")
    elif kind == "named pipe":
        os.mkfifo(file)
    else:
        data = bytearray((path / "_background_noise_" / "hiss.wav").read_bytes())
        data[4:8] = data[40:44] = bytes(4)
        file.write_bytes(data)
    if kind != "streamed":
        with pytest.raises(UserError, match=f"1 of 10 recordings is damaged: {file}: cannot be read"):
            pack_folder(path, tmp_path / "cache")
    store = pack_folder(path, tmp_path / "cache", damaged="skip")
    assert len(store.skipped) == (kind != "streamed")
    assert len(store) == 8 + (folder == "yes" and kind == "streamed")
    assert len(store.background) == 32000 * (1 + (folder != "yes" and kind == "streamed"))


def test_a_name_in_latin_1_is_kept(tmp_path, caplog):
    path = make_folder(tmp_path / "words", words=("no", "yes"), per_split=(2, 1, 1))
    name = os.fsdecode(b"gr\xfcn_nohash_0.wav")
    write(path / "yes" / "a.wav", tone(440)).rename(path / "yes" / name)
    (path / "yes" / os.fsdecode(b"br\xfcn_nohash_0.wav")).touch()
    store = pack_folder(path, tmp_path / "cache", damaged="skip")
    assert f"yes/{name}" in [store.name(row) for row in range(len(store))]
    assert "left out 1 damaged" in caplog.text
    assert r"br\xfcn_nohash_0.wav" in caplog.text
    again = pack_folder(path, tmp_path / "cache", damaged="skip")
    assert again.path == store.path
    assert again.skipped == store.skipped


def test_all_clips_damaged(tmp_path):
    (tmp_path / "words" / "yes").mkdir(parents=True)
    (tmp_path / "words" / "yes" / "a.wav").write_bytes(b"")
    with pytest.raises(UserError, match="all 1 clips are damaged"):
        pack_folder(tmp_path / "words", tmp_path / "cache", damaged="skip")


def test_short_background_is_repeated(tmp_path):
    path = make_folder(tmp_path / "words", background_seconds=0.3)
    background = pack_folder(path, tmp_path / "cache").background
    assert len(background) == 16000
    np.testing.assert_array_equal(background[4800:9600], background[:4800])


def test_no_background(tmp_path):
    assert len(pack_folder(make_folder(tmp_path / "w", background_seconds=0), tmp_path / "c").background) == 0


def test_an_incomplete_store_is_made_anew(tmp_path):
    path = make_folder(tmp_path / "words")
    store = pack_folder(path, tmp_path / "cache")
    expected = np.array(store.audio)
    os.truncate(store.path / "audio.i16", 1000)
    np.testing.assert_array_equal(pack_folder(path, tmp_path / "cache").audio, expected)
    (store.path / "names.npy").unlink()
    assert pack_folder(path, tmp_path / "cache").name(0) == "go/00000000_nohash_0.wav"


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path):
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)


def change_json(path):
    path.write_text(path.read_text().replace('"n_clips": 30', '"n_clips": 29'))


DAMAGES = {
    "empty": lambda path: os.truncate(path, 0),
    "cut": cut,
    "flipped bit": flip_a_bit,
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "missing": lambda path: path.unlink(),
    "random": lambda path: path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size)),
}
FILES = [
    *("store.json", "labels.npy", "splits.npy", "clip_ids.npy", "names.npy", "speakers.npy"),
    *("audio.i16", "background.i16"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_made_anew_and_that_is_said_in_a_line(tmp_path, caplog, damage):
    path = make_folder(tmp_path / "words")
    store = pack_folder(path, tmp_path / "cache")
    contents = {name: (store.path / name).read_bytes() for name in FILES}
    assert sorted(FILES) == sorted(entry.name for entry in store.path.iterdir())
    for name in FILES:
        DAMAGES[damage](store.path / name)
        caplog.clear()
        again = pack_folder(path, tmp_path / "cache")
        (line,) = caplog.messages
        assert line == f"{store.path}: {name} is damaged; the recordings are decoded anew"
        assert {name: (again.path / name).read_bytes() for name in FILES} == contents
    assert entries(tmp_path / "cache") == [store.path.name]


def test_a_store_that_contradicts_itself_is_made_anew(tmp_path, caplog):
    path = make_folder(tmp_path / "words")
    store = pack_folder(path, tmp_path / "cache")
    expected = np.array(store.audio)
    change_json(store.path / "store.json")
    np.testing.assert_array_equal(pack_folder(path, tmp_path / "cache").audio, expected)
    assert "store.json is damaged" in caplog.text
    shutil.rmtree(store.path)
    store.path.write_text("a file in its place")
    np.testing.assert_array_equal(pack_folder(path, tmp_path / "cache").audio, expected)


def test_a_part_of_long_audio_that_was_zeroed_is_found(tmp_path, caplog):
    """1.9 MB of audio, of which blocks are sampled, and a tenth of it that the disk has lost."""
    path = make_folder(tmp_path / "words")
    store = pack_folder(path, tmp_path / "cache", n_samples=32000)
    size = (store.path / "audio.i16").stat().st_size
    for begin in range(0, size, size // 10):
        with open(store.path / "audio.i16", "r+b") as file:
            file.seek(begin)
            length = min(size // 10, size - begin)
            if not any(file.read(length)):
                continue  # padding: silent anyway
            file.seek(begin)
            file.write(bytes(length))
        caplog.clear()
        store = pack_folder(path, tmp_path / "cache", n_samples=32000)
        assert "audio.i16 is damaged" in caplog.text


def test_a_full_disk_is_a_line_and_leaves_nothing(tmp_path, monkeypatch):
    """The room is less than what was free when it was looked up."""
    path = make_folder(tmp_path / "words")
    enough = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("asr_dni.data.store.shutil.disk_usage", lambda _: enough)
    for n_bytes in (20_000, 300_000, 964_000):  # fails in the background, the audio, the columns
        with small_file_system(tmp_path / "small", n_bytes) as cache:
            with pytest.raises(UserError, match="cannot be written"):
                pack_folder(path, cache)
            assert entries(cache) == []


def test_what_an_interrupted_run_left_is_no_store_and_is_removed(tmp_path, monkeypatch):
    path = make_folder(tmp_path / "words")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("asr_dni.data.store.np.save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pack_folder(path, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []
    store = pack_folder(path, tmp_path / "cache")
    shutil.rmtree(store.path)
    (tmp_path / "cache" / f".{store.path.name}.partial-1-aa").mkdir()  # as after a power cut
    pack_folder(path, tmp_path / "cache")
    assert entries(tmp_path / "cache") == [store.path.name]


def test_too_little_space_is_said_before_decoding(tmp_path, monkeypatch):
    path = make_folder(tmp_path / "words")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("asr_dni.data.store.shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"need 0\.0 GB, 0\.0 GB are free"):
        pack_folder(path, tmp_path / "cache")


def test_a_file_that_vanished_is_named(tmp_path):
    folder = Folder(make_folder(tmp_path / "words"))
    clips = folder.clips()
    clips[3].path.unlink()
    with pytest.raises(UserError, match=str(clips[3].path)):
        pack(clips, [], identity="x", cache_dir=tmp_path / "cache")


def digest_in_process(arguments):
    path, cache = arguments
    store = pack_folder(path, cache)
    return hashlib.sha256(np.array(store.audio).tobytes()).hexdigest()


def test_two_processes_at_once_share_one_whole_store(tmp_path):
    path = make_folder(tmp_path / "words", per_split=(100, 2, 2))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        digests = pool.map(digest_in_process, [(path, tmp_path / "cache")] * 2, chunksize=1)
    store = pack_folder(path, tmp_path / "cache")
    assert set(digests) == {hashlib.sha256(np.array(store.audio).tobytes()).hexdigest()}
    assert entries(tmp_path / "cache") == [store.path.name]


def test_identities_are_stable_and_made_clips_are_marked():
    expected = int.from_bytes(hashlib.blake2b(b"yes/a_nohash_0.wav", digest_size=8).digest(), "little")
    assert clip_id("yes/a_nohash_0.wav") == expected % 2**62
    assert clip_id("_silence_/train/0", silence=True) & SILENCE_BIT
    assert not clip_id("_silence_/train/0") & SILENCE_BIT
    assert clip_id("_silence_/train/0", silence=True) < 2**63
