import numpy as np
import pytest
import soundfile
from recordings import tone, write

from asr_dni.data.audio import DamagedRecording, read_recording


def test_a_16_bit_mono_file_comes_bit_for_bit(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 16000, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="PCM_16")
    np.testing.assert_array_equal(read_recording(tmp_path / "a.wav", 16000), samples)


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT", "PCM_32", "ULAW"])
def test_other_encodings_agree_to_their_precision(tmp_path, subtype):
    expected = tone(440)
    read = read_recording(write(tmp_path / "a.wav", expected, subtype=subtype), 16000)
    tolerance = 700 if subtype == "ULAW" else 1.0
    np.testing.assert_allclose(read, expected * 32768, atol=tolerance)


def test_full_scale_is_clipped_not_wrapped(tmp_path):
    read = read_recording(write(tmp_path / "a.wav", np.array([1.5, -1.5, 1.0]), subtype="FLOAT"), 16000)
    assert read.tolist() == [32767, -32768, 32767]


def test_flac_is_read(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(440), 16000)
    np.testing.assert_allclose(read_recording(tmp_path / "a.flac", 16000), tone(440) * 32768, atol=1)


def test_short_clips_are_padded_and_long_ones_cropped_at_the_end(tmp_path):
    path = write(tmp_path / "a.wav", np.full(100, 0.25))
    assert read_recording(path, 16000, 150).tolist() == [8192] * 100 + [0] * 50
    assert read_recording(path, 16000, 60).tolist() == [8192] * 60
    assert len(read_recording(path, 16000)) == 100


def test_channels_are_averaged(tmp_path):
    path = write(tmp_path / "a.wav", np.stack([np.full(50, 0.5), np.full(50, -0.25)], axis=1))
    assert read_recording(path, 16000).tolist() == [4096] * 50


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_are_resampled(tmp_path, rate):
    """A sine is known at every rate; soxr's passband ripple and the file's 16 bits are far below the tolerance."""
    path = write(tmp_path / "a.wav", tone(1000, seconds=1.5, rate=rate), rate=rate)
    read = read_recording(path, 16000, 16000)
    expected = tone(1000) * 32768
    inside = slice(800, None)  # the filter starts from silence; the end is not at the file's end
    np.testing.assert_allclose(read[inside], expected[inside], atol=0.005 * 16384)


def test_cropping_while_resampling_equals_resampling_then_cropping(tmp_path):
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 3 * 44100)
    path = write(tmp_path / "a.wav", noise, rate=44100)
    whole = read_recording(path, 16000)
    assert np.abs(read_recording(path, 16000, 16000).astype(int) - whole[:16000]).max() <= 1


def test_a_tone_above_half_the_new_rate_does_not_alias(tmp_path):
    path = write(tmp_path / "a.wav", tone(11000, rate=48000), rate=48000)
    assert np.abs(read_recording(path, 16000)[800:-800]).max() < 0.001 * 16384


def make_damaged(folder):
    """Return files that cannot be used, with what must be said about each."""
    whole = write(folder / "whole.wav", tone(440)).read_bytes()
    contents = {
        "empty.wav": (b"", "an empty file"),
        "text.wav": (b"this is no audio\n" * 10, "not a recording that can be decoded"),
        "truncated.wav": (whole[:10000], "truncated .32000 bytes of samples announced, 9956 there"),
        "header_only.wav": (whole[:30], "truncated"),
        "no_samples.wav": (whole[:40] + bytes(4), "holds no samples"),
    }
    for name, (data, _) in contents.items():
        (folder / name).write_bytes(data)
    write(folder / "nan.wav", np.array([0.0, np.nan]), subtype="FLOAT")
    (folder / "folder.wav").mkdir()
    return {name: reason for name, (_, reason) in contents.items()} | {
        "nan.wav": "not finite",
        "folder.wav": "cannot be read",
        "missing.wav": "cannot be read .No such file",
    }


def test_damaged_files_are_named_with_the_reason(tmp_path):
    for name, reason in make_damaged(tmp_path).items():
        with pytest.raises(DamagedRecording, match=reason) as caught:
            read_recording(tmp_path / name, 16000, 16000)
        assert caught.value.path == tmp_path / name
        assert "\n" not in str(caught.value)


def test_a_truncated_flac_is_noticed(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedRecording):
        read_recording(tmp_path / "a.flac", 16000, 16000)


def test_a_streamed_wav_whose_header_does_not_know_its_length_is_read(tmp_path):
    data = bytearray(write(tmp_path / "a.wav", tone(440)).read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(data)
    assert len(read_recording(tmp_path / "a.wav", 16000)) == 16000
