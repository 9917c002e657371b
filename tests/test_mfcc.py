import math

import librosa
import numpy as np
import pytest
import torch
from rounding import assert_same
from scipy.fft import dct

from asr_dni.data import Augmentation, AugmentationSettings, ClipFeatures
from asr_dni.errors import UserError
from asr_dni.features import MFCC, FrontEnd, LogMel
from asr_dni.features.log_mel import mel_filterbank


def speechlike(n_clips: int, n_samples: int, seed: int = 0) -> torch.Tensor:
    """Tones and noise of very different levels, from silence to full scale."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(n_samples) / 16000
    pitch = 80 + 400 * torch.rand(n_clips, 1, generator=generator)
    level = 10 ** (-5 * torch.rand(n_clips, 1, generator=generator))
    level[0] = 0.0
    noise = 0.3 * torch.randn(n_clips, n_samples, generator=generator)
    return (level * (torch.sin(2 * math.pi * pitch * time * (1 + time)) + noise)).clamp(-1, 1)


def fitted(front_end: FrontEnd) -> ClipFeatures:
    features = ClipFeatures(front_end)
    features.fit_statistics([speechlike(8, 16000, seed=99)])
    return features


VARIANTS = [
    MFCC(),
    LogMel(),
    MFCC(deltas=1, delta_width=9, padding="causal"),
    MFCC(deltas=2, padding="center", window_ms=25, hop_ms=10),
    MFCC(window_ms=20, hop_ms=20, deltas=2, delta_width=3, mel_scale="slaney", mel_norm="slaney"),
]


@pytest.mark.parametrize(("mel_scale", "mel_norm"), [("htk", None), ("slaney", "slaney"), ("htk", "slaney")])
@pytest.mark.parametrize(("f_min", "f_max"), [(20.0, None), (300.0, 3400.0)])
def test_filterbank_is_that_of_librosa(mel_scale, mel_norm, f_min, f_max):
    settings = MFCC(n_mels=20, f_min=f_min, f_max=f_max, mel_scale=mel_scale, mel_norm=mel_norm)
    expected = librosa.filters.mel(
        sr=16000, n_fft=512, n_mels=20, fmin=f_min, fmax=f_max, htk=mel_scale == "htk", norm=mel_norm
    )
    np.testing.assert_allclose(mel_filterbank(settings).numpy().T, expected, atol=2e-5 * expected.max())


@pytest.mark.parametrize(("mel_scale", "mel_norm"), [("htk", None), ("slaney", "slaney")])
@pytest.mark.parametrize("padding", ["none", "center"])
def test_coefficients_and_log_mels_are_those_of_librosa(padding, mel_scale, mel_norm):
    samples = speechlike(4, 16000)[1]
    common = dict(window_ms=25, hop_ms=10, padding=padding, mel_scale=mel_scale, mel_norm=mel_norm)
    settings = MFCC(n_mfcc=13, **common)
    # Without centring, librosa's window sits in the middle of the transform's span.
    around = (512 - 400) // 2 if padding == "none" else 0
    mel = librosa.feature.melspectrogram(
        y=np.pad(samples.numpy(), around),
        sr=16000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        n_mels=40,
        fmin=20.0,
        center=padding == "center",
        pad_mode="constant",
        htk=mel_scale == "htk",
        norm=mel_norm,
        power=2.0,
    )
    log_mel = np.log(mel + 1e-6)
    log_mels = LogMel(**common)(samples)
    np.testing.assert_allclose(log_mels.numpy(), log_mel.T, atol=2e-4)
    expected = librosa.feature.mfcc(S=log_mel, n_mfcc=13, dct_type=2, norm="ortho")
    features = settings(samples)
    assert features.shape == (settings.n_frames(16000), 13)
    np.testing.assert_allclose(features.numpy(), expected.T, atol=5e-4)


@pytest.mark.parametrize("width", [3, 5, 9])
def test_deltas_are_those_of_librosa(width):
    settings = MFCC(deltas=2, delta_width=width)
    static, first, second = settings(speechlike(3, 16000)[2]).chunk(3, dim=-1)
    expected = librosa.feature.delta(static.numpy(), width=width, axis=0, mode="nearest")
    np.testing.assert_allclose(first.numpy(), expected, atol=1e-5)
    expected = librosa.feature.delta(first.numpy(), width=width, axis=0, mode="nearest")
    np.testing.assert_allclose(second.numpy(), expected, atol=1e-5)


def test_default_shape_and_silence():
    settings = LogMel()
    features = settings(torch.zeros(2, 16000))
    assert features.shape == (2, 49, 40)
    torch.testing.assert_close(features, torch.full((2, 49, 40), math.log(1e-6)))


@pytest.mark.parametrize("deltas", [0, 1])
def test_bands_are_masked_before_the_transform(deltas):
    """Against SciPy's DCT of log-mel energies, and librosa's deltas; in more clips than are done at once."""
    settings = {"n_mels": 30, "deltas": deltas, "padding": "center"}
    x = speechlike(40, 8000)
    masked = torch.rand(40, 30, generator=torch.Generator().manual_seed(1)) < 0.3
    bands = LogMel(**{**settings, "deltas": 0})(x)
    mean = bands.mean((0, 1))
    filled = np.where(masked[:, None].numpy(), mean.numpy(), bands.numpy())
    expected = dct(filled, type=2, norm="ortho")
    if deltas:
        slopes = librosa.feature.delta(expected, width=5, axis=1, mode="nearest")
        expected = np.concatenate([expected, slopes], -1)
    front_end = MFCC(n_mfcc=30, **settings)
    mean_features = torch.from_numpy(dct(mean.numpy(), type=2, norm="ortho"))
    mean_features = torch.cat([mean_features, torch.zeros(30 * deltas)])
    got = front_end.with_masked_bands(x, masked, mean_features)
    torch.testing.assert_close(got, torch.from_numpy(expected), atol=2e-4, rtol=1e-4)
    assert torch.equal(front_end.with_masked_bands(x[3:4], masked[3:4], mean_features), got[3:4])
    assert torch.equal(front_end.with_masked_bands(x, masked & False, mean_features), front_end(x))


def test_clips_of_which_all_bands_are_masked_have_mean_features():
    for front_end in (MFCC(n_mfcc=13), LogMel()):
        features, x = fitted(front_end), speechlike(3, 8000)
        masked = torch.ones(3, 40, dtype=torch.bool)
        torch.testing.assert_close(
            features(x, masked), torch.zeros(3, 24, features.n_features), atol=1e-4, rtol=0
        )


def test_masked_bands_of_log_mel_are_masked_features():
    features, x = fitted(LogMel()), speechlike(5, 8000)
    augmentation = [
        Augmentation(AugmentationSettings(frequency_masks=2, mask_mel_bands=before), seed=1)
        for before in (True, False)
    ]
    ids = torch.arange(5)
    before = augmentation[0].features(features(x, augmentation[0].masked_bands(40, ids, 0)), ids, 0)
    after = augmentation[1].features(features(x), ids, 0)
    assert (after == 0).any()
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


def test_sine_lands_in_the_band_around_its_frequency():
    settings = LogMel()
    edges = librosa.mel_frequencies(n_mels=42, fmin=20, fmax=8000, htk=True)
    for frequency in (440.0, 1000.0, 3000.0):
        samples = torch.sin(2 * math.pi * frequency * torch.arange(16000) / 16000)
        band = int(settings(samples).mean(0).argmax())
        assert edges[band] < frequency < edges[band + 2]


@pytest.mark.parametrize("settings", VARIANTS)
def test_neighbours_in_the_batch_do_not_matter(settings):
    mfcc = fitted(settings)
    waveforms = speechlike(33, 16000)
    together = mfcc(waveforms)
    alone = torch.stack([mfcc(waveform) for waveform in waveforms])
    assert torch.equal(together, alone)
    assert torch.equal(together[5:12], mfcc(waveforms[5:12]))
    loud = torch.cat([waveforms[:4], torch.ones(1, 16000)])
    assert torch.equal(mfcc(loud)[:4], together[:4])


@pytest.mark.parametrize("settings", VARIANTS)
@pytest.mark.parametrize("n_samples", [16000, 15999, 1500, 480, 479, 100, 1, 0])
def test_stream_equals_the_whole(settings, n_samples):
    mfcc = fitted(settings)
    waveforms = speechlike(3, n_samples, seed=n_samples)
    whole = mfcc(waveforms)
    assert whole.shape == (3, settings.n_frames(n_samples), settings.n_features)
    stream = mfcc.stream()  # flushing makes it ready for the next recording
    generator = torch.Generator().manual_seed(1)
    for longest in (1, 37, 320, 5000) if n_samples <= 1500 else (37, 320, 5000, 16000):
        pieces, position = [], 0
        while position < n_samples:
            length = int(torch.randint(0, longest + 1, (), generator=generator))
            pieces.append(stream.push(waveforms[:, position : position + length]))
            position += length
        rest = stream.flush()
        pieces.append(rest if rest.dim() == 3 else rest.expand(3, -1, -1))  # nothing pushed: no batch size
        assert_same(torch.cat(pieces, dim=1), whole, atol=5e-4)  # of values up to 40


@pytest.mark.parametrize("settings", VARIANTS)
def test_stream_is_as_late_as_it_says_and_no_later(settings):
    mfcc = fitted(settings)
    samples = speechlike(2, 16000)[1]
    latency = round(settings.latency_ms * 16)
    stream = mfcc.stream()
    assert len(stream.push(samples[: latency - 1])) == 0
    assert len(stream.push(samples[latency - 1 : latency])) == 1
    assert len(stream.push(samples[latency : latency + settings.hop_samples])) == 1


def test_frames_depend_on_their_own_samples_only():
    settings = MFCC(padding="causal")
    samples = speechlike(2, 16000)[1]
    changed = samples.clone()
    changed[320 * 10 :] = 0.7
    same = (settings(samples) == settings(changed)).all(-1)
    assert same[:10].all()
    assert not same[10:].any()


def test_statistics_are_those_of_all_frames_however_batched():
    settings = MFCC(deltas=1)
    waveforms = speechlike(50, 16000) + 0.01
    frames = settings(waveforms).flatten(0, 1).double()
    for sizes in ([50], [1, 7, 42], [20, 0, 30]):
        mfcc = ClipFeatures(settings)
        mfcc.fit_statistics(waveforms.split(sizes))
        torch.testing.assert_close(mfcc.mean.double(), frames.mean(0), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(mfcc.std.double(), frames.std(0, correction=0), atol=0, rtol=1e-6)
        assert int(mfcc.count) == len(frames)
    normalized = mfcc(waveforms).flatten(0, 1)
    torch.testing.assert_close(normalized.mean(0), torch.zeros(40), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalized.std(0), torch.ones(40), atol=1e-3, rtol=0)


def test_constant_feature_is_centred_not_blown_up():
    mfcc = ClipFeatures(MFCC())
    mfcc.fit_statistics([torch.zeros(4, 16000)])
    assert torch.equal(mfcc.std, torch.ones(20))
    assert mfcc(torch.zeros(1, 16000)).abs().max() < 1e-5


def test_statistics_travel_in_the_state_dict():
    mfcc = fitted(MFCC())
    state = mfcc.state_dict()
    assert set(state) == {"mean", "std", "count"}
    other = ClipFeatures(MFCC())
    with pytest.raises(RuntimeError, match="fit_statistics"):
        other(torch.zeros(1, 16000))
    other.load_state_dict(state)
    waveforms = speechlike(3, 16000)
    assert torch.equal(mfcc(waveforms), other(waveforms))


def test_no_training_clips():
    with pytest.raises(UserError, match="training split is empty"):
        ClipFeatures(MFCC()).fit_statistics([])


def test_integer_samples_are_refused():
    with pytest.raises(TypeError, match="floating-point"):
        MFCC()(torch.zeros(1, 16000, dtype=torch.int16))


def test_gradient_reaches_the_samples():
    mfcc = MFCC(deltas=1)
    waveforms = speechlike(2, 2000)[1:].requires_grad_()
    mfcc(waveforms).square().sum().backward()
    direction = torch.randn(1, 2000, generator=torch.Generator().manual_seed(3))
    expected = (waveforms.grad * direction).sum()
    step = 1e-3
    with torch.no_grad():
        up = mfcc(waveforms + step * direction).double().square().sum()
        down = mfcc(waveforms - step * direction).double().square().sum()
    torch.testing.assert_close(((up - down) / (2 * step)).float(), expected, rtol=0.02, atol=0)


def test_autocast_does_not_degrade_the_features():
    mfcc = fitted(MFCC())
    waveforms = speechlike(4, 16000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = mfcc(waveforms)
    assert torch.equal(features, mfcc(waveforms))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("sample_rate", dict(sample_rate=0)),
        ("window_ms", dict(window_ms=0)),
        ("window_ms", dict(window_ms=math.inf)),
        ("hop_ms", dict(hop_ms=0)),
        ("hop_ms", dict(hop_ms=-5)),
        ("hop_ms", dict(hop_ms=40, window_ms=30)),
        ("n_fft", dict(n_fft=256)),
        ("n_mels", dict(n_mels=0)),
        ("n_mfcc", dict(n_mfcc=41)),
        ("n_mfcc", dict(n_mfcc=-1)),
        ("f_min", dict(f_min=-1)),
        ("f_min", dict(f_min=8000)),
        ("f_max", dict(f_max=8001)),
        ("f_max", dict(f_max=20)),
        ("mel_scale", dict(mel_scale="bark")),
        ("mel_norm", dict(mel_norm="area")),
        ("log_offset", dict(log_offset=0)),
        ("deltas", dict(deltas=3)),
        ("delta_width", dict(delta_width=4)),
        ("padding", dict(padding="reflect")),
    ],
)
def test_bad_settings_name_the_key(key, values):
    with pytest.raises(UserError, match=rf"^{key}(:| is) ") as error:
        MFCC(**values)
    assert "\n" not in str(error.value)


def test_empty_bands_are_an_error():
    with pytest.raises(UserError, match=r"^n_mels: \d+ of 128 bands"):
        MFCC(n_mels=128)
