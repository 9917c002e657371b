from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from recordings import make_folder, tone, write

from asr_dni.data import Folder, KeywordData
from asr_dni.data.audio import read_recording
from asr_dni.data.origins import is_band_limited
from asr_dni.features import MFCC

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "speech_commands_8"


def voice(seed: int, noise_db: float = -60.0, slope_db: float = -12.0) -> np.ndarray:
    """A second of a vowel: harmonics that fall by so many dB an octave, and a microphone's noise."""
    rng = np.random.default_rng(seed)
    pitch = rng.uniform(90, 250)
    harmonics = np.arange(1, int(7900 / pitch))
    levels = harmonics ** (slope_db / 20 / np.log10(2))
    time = np.arange(16000) / 16000
    phases = rng.uniform(0, 2 * np.pi, len(harmonics))
    sound = (levels[:, None] * np.sin(2 * np.pi * pitch * harmonics[:, None] * time + phases[:, None])).sum(0)
    sound *= 0.3 / np.abs(sound).max()
    return sound + 0.3 * 10 ** (noise_db / 20) * rng.standard_normal(16000)


def to_16_bits(sound: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)


def by_soxr(sound: np.ndarray) -> np.ndarray:
    return soxr.resample(soxr.resample(sound, 16000, 8000), 8000, 16000)


def by_scipy(sound: np.ndarray) -> np.ndarray:
    return scipy.signal.resample_poly(scipy.signal.resample_poly(sound, 1, 2), 2, 1)


def test_a_natural_fall_of_the_spectrum_is_no_edge():
    assert not any(is_band_limited(to_16_bits(voice(seed)), 16000) for seed in range(50))
    assert not any(is_band_limited(to_16_bits(voice(seed, -55, slope_db=-24)), 16000) for seed in range(50))
    assert not is_band_limited(to_16_bits(tone(300)), 16000)


@pytest.mark.parametrize("resample", [by_soxr, by_scipy])
def test_what_was_upsampled_is_noticed(resample):
    """A harmonic that lies close to the edge may show beyond it; words begin and end softly, in silence."""
    sounds = [resample(voice(seed)) for seed in range(50)]
    assert sum(is_band_limited(to_16_bits(sound), 16000) for sound in sounds) >= 48
    words = [np.pad(sound[:6000] * np.hanning(6000), (3000, 7000)) for sound in sounds]
    assert sum(is_band_limited(to_16_bits(word), 16000) for word in words) >= 48


def test_nothing_is_said_of_what_cannot_be_told():
    assert not is_band_limited(np.zeros(16000, np.int16), 16000)
    assert not is_band_limited(np.full(16000, 900, np.int16), 16000)  # a constant
    assert not is_band_limited(to_16_bits(by_soxr(voice(0)))[:500], 16000)
    assert not is_band_limited(to_16_bits(voice(0)), 8000)
    faint = np.random.default_rng(0).integers(-3, 4, 16000).astype(np.int16)
    assert not is_band_limited(faint, 16000)


@pytest.mark.skipif(
    not REAL.exists(), reason="the real recordings (../shared/data/speech_commands_8) are not here"
)
def test_real_recordings_give_few_false_alarms_and_their_upsampled_copies_many_right_ones():
    """Of all 6,828 clips 1.2 % are called so: of 400, more than 5 % with probability 1e-7."""
    files = sorted(REAL.glob("[a-z]*/*.wav"))
    sounds = [read_recording(file, 16000, 16000) for file in files[:: len(files) // 400]]
    assert sum(is_band_limited(sound, 16000) for sound in sounds) <= 0.05 * len(sounds)
    for resample in (by_soxr, by_scipy):
        found = [is_band_limited(to_16_bits(resample(sound / 32768)), 16000) for sound in sounds[::2]]
        assert sum(found) >= 0.9 * len(found)


@pytest.fixture
def opened(tmp_path, caplog):
    """Opens a folder as training data; returns what was warned of."""

    def opened(path: Path, **options) -> str:
        caplog.clear()
        KeywordData(Folder(path), cache_dir=tmp_path / "cache", **options).prepare_data()
        return caplog.text

    return opened


def spoken(path: Path, changed: int, change) -> Path:
    """Twenty clips; of each word as many as asked for were changed: (samples, rate), or a file's ending."""
    for word in ("no", "yes"):
        for k in range(10):
            sound, rate, ending = voice(10 * len(word) + k), 16000, "wav"
            if k < changed:
                sound, rate, ending = change(sound)
            file = path / word / f"{k:08x}_nohash_0.{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, sound, rate)
    return path


def test_full_recordings_need_no_word(tmp_path, opened):
    assert opened(spoken(tmp_path / "full", 0, None)) == ""
    assert opened(make_folder(tmp_path / "tones")) == ""


def test_a_lower_rate_is_told_with_numbers(tmp_path, opened):
    path = spoken(tmp_path / "telephone", 3, lambda sound: (soxr.resample(sound, 16000, 8000), 8000, "wav"))
    said = opened(path)
    assert (
        "folder telephone: 6 of 20 recordings are sampled at less than the 16,000 Hz that are wanted (8,000 Hz: 6), so"
        " they have nothing above 4,000 Hz. A network that was trained on other recordings" in said
    )
    assert opened(path) == ""  # once is enough
    assert opened(path, front_end=MFCC(sample_rate=8000)) == ""


def test_upsampled_recordings_are_told_with_numbers(tmp_path, opened):
    said = opened(spoken(tmp_path / "upsampled", 4, lambda sound: (by_soxr(sound), 16000, "wav")))
    assert "8 of 20 recordings have no content above 4,000 Hz, as if upsampled from 8,000 Hz" in said


def test_mp3_is_told_with_numbers(tmp_path, opened):
    said = opened(spoken(tmp_path / "mp3", 2, lambda sound: (sound, 16000, "mp3")))
    assert "folder mp3: 4 of 20 recordings are MP3, compressed with losses" in said


def test_the_numbers_are_kept_with_the_decoded_clips(tmp_path):
    path = spoken(tmp_path / "kept", 4, lambda sound: (by_soxr(sound), 16000, "wav"))
    write(path / "yes" / "00000099_nohash_0.wav", tone(300, rate=11025), rate=11025)
    stores = []
    for _ in range(2):
        data = KeywordData(Folder(path), cache_dir=tmp_path / "cache")
        data.prepare_data()
        stores.append(data.store.origins)
    assert stores == [{"band-limited": 8, "low rate 11025": 1}] * 2
