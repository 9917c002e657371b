import filecmp
import itertools
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from asr_dni.configuration import from_configuration
from asr_dni.data import speech_synthesis, synthetic
from asr_dni.data.folder import Folder
from asr_dni.data.source import Source, speaker_of, speaker_split
from asr_dni.data.speech_synthesis import coloured_noise, room_response, speak_word, trim, write_clip
from asr_dni.data.synthetic import Synthetic
from asr_dni.errors import UserError

N_SPEAKERS = 26  # a block and a part of one


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    source = Synthetic(
        words=["stop", "go"], speakers=N_SPEAKERS, seed=3, root=tmp_path_factory.mktemp("data")
    )
    source.prepare()
    return source


def read(path):
    samples, sample_rate = soundfile.read(path, dtype="float32")
    assert sample_rate == 16000
    assert samples.ndim == 1
    return samples


def test_layout_and_clips(made):
    assert made.words() == ["go", "stop"]
    clips = made.clips()
    assert len(clips) == 2 * N_SPEAKERS
    assert len({(clip.label, clip.speaker) for clip in clips}) == 2 * N_SPEAKERS
    for clip in clips:
        assert soundfile.info(clip.path).subtype == "PCM_16"
        samples = read(clip.path)
        assert len(samples) == 16000
        assert 0.001 < np.sqrt(np.mean(samples**2)) < 0.3
    assert [path.stem for path in made.background()] == sorted(
        ["white_noise", "pink_noise", "brown_noise", "mains_hum", "babble"]
    )
    assert not list(made.path.parent.glob(".*"))


def test_clips_differ(made):
    # Different speakers, and different words of a speaker, are different recordings.
    recordings = [read(clip.path) for clip in made.clips()[:12]]
    for first, second in itertools.combinations(recordings, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.5


def test_splits_follow_the_rule_and_never_share_a_speaker(made):
    by_split = {}
    for clip in made.clips():
        assert clip.split == speaker_split(clip.speaker)
        by_split.setdefault(clip.split, set()).add(clip.speaker)
    assert {split: len(speakers) for split, speakers in by_split.items()} == {
        "train": 20,
        "validation": 3,
        "test": 3,
    }
    # The lists say the same.
    for split, name in (("validation", "validation_list.txt"), ("test", "testing_list.txt")):
        listed = (made.path / name).read_text().splitlines()
        assert listed == sorted(listed)
        assert {speaker_of(line.split("/")[1]) for line in listed} == by_split[split]
        assert len(listed) == 6


def test_the_same_bytes_however_many_processes(made, tmp_path):
    again = Synthetic(words=["go", "stop"], speakers=N_SPEAKERS, seed=3, root=tmp_path, processes=1)
    assert again.identity == made.identity
    again.prepare()
    names = [path.relative_to(made.path) for path in made.path.rglob("*") if path.is_file()]
    assert len(names) == 2 * N_SPEAKERS + 5 + 3
    same, different, missing = filecmp.cmpfiles(made.path, again.path, map(str, names), shallow=False)
    assert not different
    assert not missing
    assert len(same) == len(names)


def test_other_arguments_give_other_data(made):
    arguments = dict(words=["stop", "go"], speakers=N_SPEAKERS, seed=3, root=made.root)
    assert Synthetic(**arguments).path == made.path
    changes = [dict(seed=4), dict(words=["stop"]), dict(speakers=N_SPEAKERS + 1), dict(takes=2)]
    others = [Synthetic(**(arguments | change)) for change in changes]
    assert len({source.identity for source in (*others, made)}) == 5
    assert len({source.path for source in (*others, made)}) == 5


def test_every_split_has_a_speaker_even_of_three_and_other_seeds_have_others(made, tmp_path):
    source = Synthetic(words=["go"], speakers=3, seed=4, root=tmp_path, processes=1)
    source.prepare()
    names = {speaker_of(clip.path.name) for clip in source.clips()}
    assert {speaker_split(name) for name in names} == {"train", "validation", "test"}
    assert not names & {speaker_of(clip.path.name) for clip in made.clips()}


def test_prepared_data_are_not_touched(made):
    before = {path: path.stat().st_mtime_ns for path in made.path.rglob("*")}
    made.prepare()
    assert {path: path.stat().st_mtime_ns for path in made.path.rglob("*")} == before


def test_takes(tmp_path):
    source = Synthetic(words=["up"], speakers=3, takes=2, root=tmp_path, processes=1)
    source.prepare()
    names = sorted(clip.path.name for clip in source.clips())
    assert len(names) == 6
    assert names[0].endswith("_nohash_0.wav")
    assert names[1].endswith("_nohash_1.wav")
    first, second = (read(source.path / "up" / name) for name in names[:2])
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.5


def test_an_interrupted_run_leaves_nothing_that_could_be_used(tmp_path, monkeypatch):
    source = Synthetic(words=["up"], speakers=3, root=tmp_path, processes=1)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "publish_folder", interrupt)
    with pytest.raises(KeyboardInterrupt):
        source.prepare()
    assert not list(source.path.parent.iterdir())
    with pytest.raises(UserError):
        source.clips()
    monkeypatch.undo()
    source.prepare()
    assert len(source.clips()) == 3


def test_what_killed_runs_left_is_removed_when_it_is_old(tmp_path):
    source = Synthetic(words=["up"], speakers=3, root=tmp_path)
    recent, old = (source.path.with_name(f".{source.path.name}-1-abcdef0{k}.partial") for k in (1, 2))
    for leftover in (recent, old):
        (leftover / "up").mkdir(parents=True)
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    source.prepare()
    assert recent.exists()  # another process may be at work
    assert not old.exists()


def test_configuration_round_trip(made):
    configuration = made.configuration()
    json.dumps(configuration)
    rebuilt = from_configuration(configuration, Source, "source")
    assert isinstance(rebuilt, Synthetic)
    assert rebuilt.identity == made.identity
    assert rebuilt.path == made.path


def test_default_words():
    assert Synthetic().words() == sorted(["yes", "no", "up", "down", "left", "right", "stop", "go"])


def test_background_spectra(made):
    """Welch slopes of the coloured noises, in dB per octave: 0, -3 and -6."""
    from scipy.signal import welch

    for name, slope in (("white_noise", 0.0), ("pink_noise", -3.01), ("brown_noise", -6.02)):
        samples = read(made.path / "_background_noise_" / f"{name}.wav")
        assert len(samples) == 60 * 16000
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.1, rel=0.01)
        frequencies, density = welch(samples, 16000, nperseg=4096)
        inside = (frequencies > 100) & (frequencies < 6000)
        octaves = np.log2(frequencies[inside])
        fitted = np.polyfit(octaves, 10 * np.log10(density[inside]), 1)[0]
        assert fitted == pytest.approx(slope, abs=0.1)
    hum = read(made.path / "_background_noise_" / "mains_hum.wav")
    frequencies, density = welch(hum, 16000, nperseg=16000)
    harmonics = density[50:501:50]
    between = density[75:526:50]
    assert (harmonics > 10 * between).all()


def test_babble_is_of_training_speakers_only(made, tmp_path):
    # Without the other speakers' clips it can still be made, and is the same.
    for clip in made.clips():
        if clip.split == "train":
            target = tmp_path / clip.name
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(clip.path.resolve())
    babble = made._babble(made._generator("babble"), 60 * 16000, made._plan(), tmp_path)
    written = read(made.path / "_background_noise_" / "babble.wav")
    scale = min(0.1 / np.sqrt(np.mean(babble**2)), 0.99 / np.abs(babble).max())
    np.testing.assert_allclose(written, babble * scale, atol=1e-4)


def test_room_response_decays_as_stated():
    generator = np.random.default_rng(0)
    energies = np.zeros(6400)
    for _ in range(200):
        response = room_response(generator, rt60=0.4, direct_db=5.0)
        assert response[0] == 1
        energies[: len(response)] += response**2 / 200
    assert 10 * np.log10(energies[1:].sum()) == pytest.approx(-5.0, abs=0.01)
    # Schroeder's backward integration between -5 and -25 dB.
    decay = 10 * np.log10(np.cumsum(energies[:0:-1])[::-1] / energies[1:].sum())
    time = np.arange(1, 6400) / 16000
    inside = (decay < -5) & (decay > -25)
    assert -60 / np.polyfit(time[inside], decay[inside], 1)[0] == pytest.approx(0.4, rel=0.05)


def test_coloured_noise_has_unit_power():
    assert np.mean(coloured_noise(np.random.default_rng(0), 16000, 1.3) ** 2) == pytest.approx(1.0, rel=1e-4)


def test_trim():
    samples = np.zeros(1000, dtype=np.float32)
    samples[300:400] = 0.5
    samples[100] = 0.004  # 42 dB down
    samples[500] = 0.006  # 38 dB down
    np.testing.assert_array_equal(trim(samples), samples[300:501])
    assert len(trim(np.zeros(10, dtype=np.float32))) == 0
    assert len(trim(samples[:0])) == 0


def test_clips_are_written_without_loss(tmp_path):
    samples = np.array([0.0, 0.5, -0.5, 1.0, -1.0, 2.0], dtype=np.float32)
    write_clip(tmp_path / "clip.wav", samples)
    written, sample_rate = soundfile.read(tmp_path / "clip.wav", dtype="int16")
    assert sample_rate == 16000
    np.testing.assert_array_equal(written, [0, 16384, -16384, 32767, -32767, 32767])


def test_long_words_are_spoken_fast_enough_to_fit():
    class Slow:
        sample_rate = 16000
        rates: list[int] = []  # noqa: RUF012

        def say(self, text, rate, pitch, pitch_range):
            self.rates.append(rate)
            return np.ones(16000 * 200 // rate, dtype=np.float32)

    espeak = Slow()
    speaker = {"rate": 120, "pitch": 50, "range": 50}
    spoken = speak_word(espeak, "supercalifragilistic", speaker, np.random.default_rng(0))
    assert espeak.rates[0] < 131
    assert espeak.rates[-1] > 200
    assert len(spoken) == 16000 * 200 // espeak.rates[-1] <= 0.95 * 16000


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("words", dict(words=[])),
        ("words", dict(words=["yes", "yes"])),
        ("words", dict(words=["a/b"])),
        ("words", dict(words=["_silence_"])),
        ("words", dict(words=[".."])),
        ("words", dict(words=[" "])),
        ("speakers", dict(speakers=2)),
        ("takes", dict(takes=0)),
        ("seed", dict(seed=-1)),
        ("processes", dict(processes=0)),
    ],
)
def test_bad_arguments_name_the_key(key, arguments):
    with pytest.raises(UserError, match=f"^{key}: "):
        Synthetic(**arguments)


def test_a_word_without_sound_is_named(tmp_path):
    source = Synthetic(words=["yes", "-"], speakers=3, root=tmp_path, processes=1)
    with pytest.raises(UserError, match="'-'") as error:
        source.prepare()
    assert "\n" not in str(error.value)
    assert not list(source.path.parent.iterdir())


def test_a_missing_library_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    (broken / "espeakng_loader").mkdir(parents=True)
    (broken / "espeakng_loader" / "__init__.py").write_text(
        f"def get_library_path():\n    return {str(broken / 'none.so')!r}\n\n\nget_data_path = get_library_path\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(broken))
    source = Synthetic(words=["yes"], speakers=3, root=tmp_path / "data")
    with pytest.raises(UserError, match="espeakng-loader") as error:
        source.prepare()
    assert "cannot be loaded" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_process_that_dies_is_reported(tmp_path, monkeypatch):
    script = tmp_path / "dies.py"
    script.write_text("import os\nos.abort()\n")
    monkeypatch.setattr(speech_synthesis, "__file__", str(script))
    with pytest.raises(UserError, match="ended with -6"):
        Synthetic(words=["yes"], speakers=3, root=tmp_path / "data").prepare()


def test_an_unwritable_root_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        Synthetic(words=["yes"], speakers=3, root=tmp_path / "file").prepare()


def test_the_speaking_process_imports_nothing_heavy():
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, speech_synthesis.__file__]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_folder_reads_it(made):
    folder = Folder(made.path)
    folder.prepare()
    assert folder.words() == made.words()
    assert folder.clips() == made.clips()
