import functools
import io
import os
import socket

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st
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


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("riff", [0, 36])
@pytest.mark.parametrize("samples", [16000, None])
def test_a_streamed_wav_whose_header_does_not_know_its_length_is_read(tmp_path, size, riff, samples):
    """Sizes as ffmpeg, SoX, arecord and GStreamer leave them where they write into a pipe."""
    data = bytearray(write(tmp_path / "a.wav", tone(440)).read_bytes())
    data[4:8] = min(size + riff, 0xFFFFFFFF).to_bytes(4, "little")
    data[40:44] = size.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    np.testing.assert_allclose(read_recording(tmp_path / "a.wav", 16000, samples), tone(440) * 32768, atol=1)


def test_a_wav_that_says_it_is_empty_is_believed(tmp_path):
    """What follows the samples, here a comment, is no sound."""
    data = bytearray(write(tmp_path / "a.wav", np.zeros(0)).read_bytes()[:44]) + b"LIST\x08\0\0\0INFOabcd"
    data[4:8] = (len(data) - 8).to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(DamagedRecording, match="holds no samples"):
        read_recording(tmp_path / "a.wav", 16000, 16000)


def test_rf64_is_read_and_its_length_is_a_promise(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(440), 16000, format="RF64", subtype="PCM_16")
    data = (tmp_path / "a.wav").read_bytes()
    assert data[:4] == b"RF64"
    np.testing.assert_allclose(read_recording(tmp_path / "a.wav", 16000), tone(440) * 32768, atol=1)
    (tmp_path / "a.wav").write_bytes(data[:-1000])
    with pytest.raises(DamagedRecording, match="32000 bytes of samples announced, 31000 there"):
        read_recording(tmp_path / "a.wav", 16000)


@pytest.mark.parametrize(
    ("rate", "seconds", "channels"), [(16000, 1.0, 1), (16000, 0.6, 1), (16000, 2.0, 1), (44100, 0.4, 2)]
)
@pytest.mark.parametrize("samples", [16000, None])
def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path, rate, seconds, channels, samples):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (round(seconds * rate), channels))
    soundfile.write(tmp_path / "a.flac", noise, rate)
    expected = read_recording(tmp_path / "a.flac", 16000, samples)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0  # the last 36 of bytes 18 to 25 of STREAMINFO are the number of samples, 0: unknown
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    np.testing.assert_array_equal(read_recording(tmp_path / "a.flac", 16000, samples), expected)


def mpeg_frames(data):
    """Return where the frames of MPEG-2 layer III begin."""
    bit_rates = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    places, place = [], 0
    while place + 4 < len(data):
        assert data[place] == 0xFF
        places.append(place)
        place += 72 * bit_rates[data[place + 2] >> 4] * 1000 // 16000 + (data[place + 2] >> 1 & 1)
    return places


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("order", [1, -1])
def test_an_mp3_without_a_count_of_frames_is_read_to_its_end(tmp_path, mode, order):
    """From the first frame's bit rate libsndfile expects too much or too little of a loud and a quiet second."""
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 16000)
    sound = np.concatenate([noise, tone(300, level=0.1)])[::order]
    options = {"bitrate_mode": mode, "compression_level": 0.2}
    soundfile.write(tmp_path / "a.mp3", sound, 16000, format="MP3", **options)
    whole = read_recording(tmp_path / "a.mp3", 16000)
    assert len(whole) == 32000
    data = (tmp_path / "a.mp3").read_bytes()
    places = mpeg_frames(data)
    assert b"Xing" in data[:100] or b"Info" in data[:100]
    (tmp_path / "a.mp3").write_bytes(b"ID3\x03\0\0\0\0\x01\x00" + bytes(128) + data[places[1] :])
    read = read_recording(tmp_path / "a.mp3", 16000)
    assert len(read) == 576 * (len(places) - 1)
    # the coder's delay is cut off only where the first frame states it; the decoder needs a frame to begin
    start = {1: 4000, -1: 20000}[order]
    noisy = whole[start : start + 8000].astype(float)
    delay = int(np.argmax(np.correlate(read[start : start + 12000].astype(float), noisy, "valid")))
    assert 0 < delay < 2000
    middle = slice(4000, 30000)
    np.testing.assert_allclose(read[delay:][middle], whole[middle], atol=2)


def test_a_joined_mp3_is_read(tmp_path):
    soundfile.write(tmp_path / "a.mp3", tone(440), 16000, format="MP3")
    data = (tmp_path / "a.mp3").read_bytes()
    without = data[mpeg_frames(data)[1] :]
    (tmp_path / "b.mp3").write_bytes(without + without)
    assert len(read_recording(tmp_path / "b.mp3", 16000)) == 2 * 576 * (len(mpeg_frames(data)) - 1)


def test_a_truncated_mp3_that_counts_its_frames_is_noticed(tmp_path):
    soundfile.write(tmp_path / "a.mp3", tone(440), 16000, format="MP3")
    data = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedRecording, match="16000 samples announced"):
        read_recording(tmp_path / "a.mp3", 16000)


def test_the_loudest_floats_are_clipped(tmp_path):
    """Their sums and resampled values are beyond the largest float."""
    loud = np.stack([np.full(4800, 3e38), np.full(4800, 3e38)], axis=1)
    path = write(tmp_path / "a.wav", loud, rate=48000, subtype="FLOAT")
    read = read_recording(path, 16000)
    assert read[200:-200].min() == 32767


@pytest.mark.parametrize("rate", [1, 2_000_000_000])
def test_a_sampling_rate_that_no_recording_has(tmp_path, rate):
    data = bytearray(write(tmp_path / "a.wav", tone(440)).read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(DamagedRecording, match=f"a sampling rate of {rate} Hz"):
        read_recording(tmp_path / "a.wav", 16000)


@pytest.mark.parametrize("kind", ["named pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path, kind):
    path = tmp_path / "a.wav"
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "named pipe":
            os.mkfifo(path)
        elif kind == "socket":
            listener.bind(str(path))
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        with pytest.raises(DamagedRecording, match=f"not a file but a {kind}"):
            read_recording(path, 16000)


def test_the_name_says_nothing_about_the_format(tmp_path):
    path = tmp_path / os.fsdecode(b"gr\xfcn.raw")  # a Latin-1 name; raw would need a rate
    path.write_bytes(write(tmp_path / "a.wav", tone(440)).read_bytes())
    assert len(read_recording(path, 16000)) == 16000


ENDINGS = ("wav", "flac", "ogg", "mp3")


@functools.cache
def whole_file(ending):
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, 4000) + tone(440, 0.25)
    file = io.BytesIO()
    soundfile.write(file, sound, 16000, format=ending)
    return file.getvalue()


@pytest.mark.timeout(120)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    ending=st.sampled_from(ENDINGS),
    flips=st.lists(st.tuples(st.integers(0, 2**16) | st.integers(0, 100), st.integers(0, 255)), max_size=8),
    cut=st.none() | st.integers(0, 2**14),
    samples=st.sampled_from([None, 16000, 100]),
)
@example(ending="mp3", flips=[], cut=17, samples=None)
def test_damaged_files_give_a_clip_or_say_so(tmp_path_factory, ending, flips, cut, samples):
    data = bytearray(whole_file(ending))
    for place, value in flips:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data if cut is None else data[: cut % len(data)])
    try:
        read = read_recording(path, 16000, samples)
    except DamagedRecording as error:
        said = error
        assert str(path) in str(said)
        assert "\n" not in str(said)
    else:
        assert read.dtype == np.int16
        assert read.ndim == 1
        assert samples is None or len(read) == samples
