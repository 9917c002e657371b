"""A trained network in one object: decisions on recordings and waveforms, under any noise, without its data."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from recordings import tone, write
from trained import train

import asr_dni
from asr_dni.data import ClipFeatures, DigitsData, FolderClips
from asr_dni.errors import UserError
from asr_dni.evaluation import measure_noise_curve
from asr_dni.features import MFCC
from asr_dni.inference import Spotter
from asr_dni.model import KeywordSpotter
from asr_dni.noise import Noise

pytestmark = pytest.mark.filterwarnings("ignore")

NOISY = Noise(sigma=1.5, seed=3)


@pytest.fixture(scope="module")
def spotter(checkpoint):
    return asr_dni.load(checkpoint)


@pytest.fixture(scope="module")
def clips(spoken):
    return [spoken / line for line in (spoken / "testing_list.txt").read_text().split()]


def probabilities(prediction) -> list[float]:
    return list(prediction.posteriors.values())


def test_importing_the_package_imports_neither_torch_nor_lightning():
    script = "import sys, asr_dni; assert not {'torch', 'pytorch_lightning', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="nothing"):
        _ = asr_dni.nothing


def test_decisions_and_accuracy_are_those_of_the_noise_curve(spotter, spoken, clips, tmp_path):
    """Each draw of the noise is the same noise for a clip, whichever way it comes in."""
    truth = [path.parent.name for path in clips]
    data = spotter.data(spoken, batch_size=5)
    curve = spotter.noise_curve(data, [0.0, 1.5], 3, noise=NOISY)
    frame = curve.frame.set_index(["strength", "draw"])["accuracy"]
    assert frame[0.0, 0] > 0.6  # it learnt something: otherwise nothing below could tell
    for sigma, draw in frame.index:
        noise = Noise(sigma=sigma, seed=3, draw=draw)
        decided = [file.label for file in spotter.predict_files(clips, noise=noise)]
        correct = sum(a == b for a, b in zip(decided, truth, strict=True))
        assert frame[sigma, draw] == pytest.approx(correct / len(truth))
    assert frame[1.5].nunique() > 1 or frame[1.5].iloc[0] < frame[0.0, 0]
    assert curve.settings["checkpoint"].endswith("last.ckpt")


def test_posteriors_are_the_softmax_of_the_networks_answers(checkpoint, spoken, clips, spotter):
    data = FolderClips.for_checkpoint(checkpoint, spoken)
    data.setup("test")
    model = KeywordSpotter.from_checkpoint(checkpoint)
    found = {file.path.name: probabilities(file.predictions[0]) for file in spotter.predict_files(clips)}
    for batch in data.batches("test"):
        with torch.no_grad():
            expected = model(batch.features).softmax(-1).tolist()
        for name, row in zip(data.clip_names(batch.clip_ids), expected, strict=True):
            assert found.pop(name.partition("/")[2]) == pytest.approx(row, abs=1e-6)
    assert not found


@pytest.mark.parametrize("hop", [None, 0.4])
@pytest.mark.parametrize("noise", [None, NOISY])
def test_batches_of_any_size_give_the_same(spotter, clips, tmp_path, noise, hop):
    long = write(tmp_path / "no" / "long.wav", tone(333, 2.9))
    paths = [clips[0], tmp_path / "absent.wav", long, *clips[1:]]
    results = []
    for batch_size in (1, 4, 256):
        files = spotter.predict_files(paths, noise=noise, draws=2, hop_seconds=hop, batch_size=batch_size)
        results.append(list(files))
    for files in results[1:]:
        assert [file.path for file in files] == paths
        for file, other in zip(files, results[0], strict=True):
            assert (file.error, len(file.predictions)) == (other.error, len(other.predictions))
            for one, same in zip(file.predictions, other.predictions, strict=True):
                assert (one.start, one.seconds) == (same.start, same.seconds)
                assert probabilities(one) == pytest.approx(probabilities(same), abs=1e-6)


def test_a_vote_is_the_mean_of_its_draws(spotter, clips):
    (vote,) = spotter.predict_files(clips[:1], noise=NOISY, draws=4)
    single = []
    for draw in range(4):
        (file,) = spotter.predict_files(clips[:1], noise=Noise(sigma=1.5, seed=3, draw=draw))
        single.append(probabilities(file.predictions[0]))
    assert probabilities(vote.predictions[0]) == pytest.approx(np.mean(single, axis=0).tolist(), abs=1e-9)
    assert np.std(single, axis=0).max() > 0.01
    (other,) = spotter.predict_files(clips[:1], noise=Noise(sigma=1.5, seed=4), draws=4)
    assert probabilities(other.predictions[0]) != probabilities(vote.predictions[0])


def test_noise_of_the_object_and_of_a_call(checkpoint, clips):
    spotter = asr_dni.load(checkpoint)
    samples, rate = soundfile.read(clips[0])
    clean = spotter.predict(samples, rate)
    noisy = spotter.predict(samples, rate, noise=NOISY)
    spotter.noise = NOISY
    assert spotter.predict(samples, rate) == noisy != clean
    assert spotter.predict(samples, rate, noise=Noise()) == clean
    assert not spotter.network.noise.on


@pytest.mark.parametrize("noise", [Noise(), NOISY])
def test_a_waveform_in_any_form_is_what_the_file_is(spotter, clips, noise):
    path = clips[3]
    (file,) = spotter.predict_files([path], noise=noise)
    samples, rate = soundfile.read(path, dtype="int16")
    floats = samples / 32768
    forms = [
        samples,
        floats,
        floats.astype(np.float32),
        samples.astype(np.int32) * 65536,
        torch.from_numpy(samples),
        torch.from_numpy(floats).requires_grad_(),
        samples[None],
        np.stack([samples, samples]),
        np.stack([floats, floats], axis=1),
        floats.tolist(),
    ]
    for form in forms:
        prediction = spotter.predict(form, rate, noise=noise, name=f"{path.parent.name}/{path.name}")
        assert prediction == file.predictions[0]
    assert prediction.posterior == max(probabilities(prediction))
    assert sum(probabilities(prediction)) == pytest.approx(1)


def test_without_a_name_the_noise_belongs_to_the_samples(spotter):
    one, other = tone(200), tone(201)
    first = spotter.predict(one, 16000, noise=NOISY)
    spotter.predict(other, 16000, noise=NOISY)
    assert spotter.predict(one, 16000, noise=NOISY) == first


@pytest.mark.parametrize(
    ("ending", "rate", "channels"),
    [("flac", 16000, 1), ("wav", 44100, 2), ("flac", 8000, 1), ("ogg", 22050, 2), ("mp3", 48000, 1)],
)
def test_files_of_every_kind_are_decided_alike(spotter, tmp_path, ending, rate, channels):
    """Tones below 1 kHz are in every one of them."""
    for frequency, label in ((220, "go"), (360, "no"), (510, "yes")):
        samples = np.stack([tone(frequency, rate=rate)] * channels, axis=1)
        soundfile.write(tmp_path / f"{label}.{ending}", samples, rate)
        expected = spotter.predict(tone(frequency), 16000)
        (file,) = spotter.predict_files([tmp_path / f"{label}.{ending}"])
        assert file.label == expected.label
        if ending in ("wav", "flac"):
            assert probabilities(file.predictions[0]) == pytest.approx(probabilities(expected), abs=0.15)


def test_a_bad_file_is_reported_and_the_rest_goes_on(spotter, clips, tmp_path):
    (tmp_path / "text.wav").write_text("these are no samples")
    (tmp_path / "empty.wav").write_bytes(b"")
    paths = [tmp_path / "text.wav", clips[0], tmp_path / "absent.wav", tmp_path / "empty.wav", clips[1]]
    files = list(spotter.predict_files(paths, batch_size=2))
    assert [file.path for file in files] == paths
    assert [file.error is None for file in files] == [False, True, False, False, True]
    assert [file.label is None for file in files] == [True, False, True, True, False]
    assert files[3].error.startswith("an empty file")
    with pytest.raises(UserError, match=r"text\.wav: not a recording"):
        list(spotter.predict_files(paths, damaged="error"))


def test_files_are_read_as_they_are_asked_for(spotter, clips):
    asked = 0

    def endless():
        nonlocal asked
        for path in itertools.cycle(clips):
            asked += 1
            yield path

    files = list(itertools.islice(spotter.predict_files(endless(), batch_size=4), 6))
    assert [file.path for file in files] == clips[:6]
    assert asked < 60


def test_of_a_long_recording_the_beginning_is_heard_and_of_a_short_one_all(spotter):
    first, then = tone(220), tone(510)
    long = spotter.predict(np.concatenate([first, then]), 16000)
    assert long.posteriors == spotter.predict(first, 16000).posteriors
    assert (long.start, long.seconds) == (0.0, 2.0)
    half = first[:8000]
    padded = np.concatenate([half, np.zeros(8000)])
    assert spotter.predict(half, 16000).posteriors == spotter.predict(padded, 16000).posteriors


def test_with_a_hop_all_of_a_recording_is_heard(spotter, tmp_path):
    samples = np.concatenate([tone(220), tone(510), tone(360, 0.3)])
    windows = spotter.predict_windows(samples, 16000, 0.5)
    assert [window.start for window in windows] == [0.0, 0.5, 1.0, 1.5]
    for window in windows:
        rest = samples[round(window.start * 16000) :]
        assert probabilities(window) == pytest.approx(probabilities(spotter.predict(rest, 16000)), abs=1e-6)
        assert window.seconds == 2.3
    write(tmp_path / "long.wav", samples)
    (file,) = spotter.predict_files([tmp_path / "long.wav"], hop_seconds=0.5)
    assert [window.label for window in file.predictions] == [window.label for window in windows]
    assert len(spotter.predict_windows(tone(220), 16000, 1.0)) == 1
    noisy = spotter.predict_windows(np.zeros(64000), 16000, 1.0, noise=NOISY, name="silence")
    assert len({window.posterior for window in noisy}) == 4  # each has its own noise


def test_loading_needs_the_file_alone_and_runs_nothing_that_it_names(checkpoint, tmp_path, monkeypatch):
    contents = torch.load(checkpoint, weights_only=True)
    source = contents["datamodule_hyper_parameters"]["data"]["source"]
    source["class_path"] = "planted.Source"
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(contents, tmp_path / "planted.ckpt")
    spotter = asr_dni.load(tmp_path / "planted.ckpt")
    assert spotter.predict(tone(220), 16000).label in spotter.label_names
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (np.zeros(0), 16000, "no samples"),
        (np.zeros((2, 3, 4)), 16000, r"\(2, 3, 4\)"),
        (np.zeros((4, 4)), 16000, "more samples than channels"),
        (np.full(100, np.nan), 16000, "not finite"),
        (np.full(100, 1e300), 16000, "not finite"),
        (np.full(100, 20000.0), 16000, "16-bit samples as int16"),
        (np.zeros(100, dtype=np.int64), 16000, "int64"),
        (np.zeros(100, dtype=complex), 16000, "complex128"),
        (["a"], 16000, "U1"),
        (np.zeros(100), 16, "samples per second"),
        (np.zeros(100), float("nan"), "samples per second"),
        (np.zeros(100), -16000, "samples per second"),
    ],
)
def test_what_is_no_audio_is_refused(spotter, waveform, rate, message):
    with pytest.raises(UserError, match=message):
        spotter.predict(waveform, rate)


def test_a_front_end_of_another_network_is_refused(checkpoint):
    model = KeywordSpotter.from_checkpoint(checkpoint)
    features = ClipFeatures(MFCC(n_mels=20, n_mfcc=12))
    with pytest.raises(UserError, match="12 features, but the network takes 10"):
        Spotter(model, features)


def test_settings_out_of_range_are_refused(spotter, checkpoint, clips, tmp_path):
    with pytest.raises(UserError, match="draws is 0"):
        spotter.predict(tone(220), 16000, draws=0)
    with pytest.raises(UserError, match="batch_size"):
        spotter.predict_files(clips, batch_size=0)
    with pytest.raises(UserError, match=r"hop_seconds is 1\.5"):
        spotter.predict_files(clips, hop_seconds=1.5)
    with pytest.raises(UserError, match="give a list"):
        spotter.predict_files("clip.wav")
    with pytest.raises(UserError, match="report or error"):
        spotter.predict_files(clips, damaged="skip")
    with pytest.raises(UserError, match="there is no such checkpoint"):
        asr_dni.load(tmp_path / "absent.ckpt")
    with pytest.raises(UserError, match="device 'abacus' cannot be used"):
        asr_dni.load(checkpoint, device="abacus")


@pytest.mark.filterwarnings("ignore")
def test_a_network_of_other_data_decides_on_features(tmp_path):
    data = DigitsData(batch_size=64)
    spotter = asr_dni.load(train(tmp_path, data, epochs=1))
    (batch, *_) = data.batches("test")
    for noise in (Noise(), NOISY):
        predictions = spotter.predict_features(batch.features, noise=noise)
        again = spotter.predict_features(batch.features[3:5], noise=noise)
        assert [p.label for p in predictions[3:5]] == [p.label for p in again]
        for one, same in zip(predictions[3:5], again, strict=True):
            assert probabilities(one) == pytest.approx(probabilities(same), abs=1e-6)
    curve = measure_noise_curve(spotter.network, data.batches("test"), [0.0], 1, Noise())
    own = spotter.noise_curve(spotter.data(), [0.0], 1)
    assert own.frame["accuracy"][0] == curve.frame["accuracy"][0]
    with pytest.raises(UserError, match="was not trained on recordings"):
        spotter.predict(tone(220), 16000)
    with pytest.raises(UserError, match="was not trained on recordings"):
        spotter.predict_files(["a.wav"])
    with pytest.raises(UserError, match=r"\(N, T, 8\)"):
        spotter.predict_features(torch.zeros(2, 8, 7))
