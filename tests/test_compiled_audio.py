"""Features and augmentation in C against torch's operations, which define them."""

import pytest
import torch
from rounding import assert_same
from torch_threads import threads

from asr_dni.data import AugmentationSettings
from asr_dni.data.augmentation import Augmentation
from asr_dni.data.clip_features import to_float
from asr_dni.data.waveform_change import COMPILED as CHANGE
from asr_dni.features import MFCC, LogMel
from asr_dni.features.band_energies import COMPILED as ENERGIES

pytestmark = pytest.mark.skipif(ENERGIES.library() is None, reason=f"nothing compiled: {ENERGIES.status()}")


@pytest.fixture
def by_torch(monkeypatch):
    """Return a function that has a piece of work done by torch's operations."""

    def run(work):
        with monkeypatch.context() as context:
            context.setenv("ASR_DNI_NATIVE", "0")
            for library in (CHANGE, ENERGIES):
                library.forget()
            result = work()
        for library in (CHANGE, ENERGIES):
            library.forget()
        return result

    return run


def recordings(n_clips: int, n_samples: int) -> torch.Tensor:
    samples = 4000 * torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(0))
    return samples.clamp(-32768, 32767).to(torch.int16)


@pytest.mark.parametrize(
    ("n_fft", "window_ms"),
    [
        (512, 30.0),  # radices 4
        (640, 40.0),  # and 5
        (480, 30.0),  # and 3
        (486, 30.0),  # 3 alone
        (250, 15.0),  # 5 alone
        (1024, 25.0),  # and 2, a window much shorter than the transform
        (490, 30.0),  # a factor of 7, which is torch's
        (481, 30.0),  # odd, which is too
        (432, 17.3),  # a window that is no multiple of any vector
    ],
)
@pytest.mark.parametrize("padding", ["none", "causal", "center"])
def test_log_mels_are_those_of_torch(n_fft, window_ms, padding, by_torch):
    front_end = LogMel(n_fft=n_fft, window_ms=window_ms, hop_ms=7.5, n_mels=12, padding=padding)
    clips = to_float(recordings(5, 3001))
    expected = by_torch(lambda: front_end(clips))
    torch.testing.assert_close(front_end(clips), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("n_samples", [1, 200, 479, 480, 481, 16000])
def test_clips_of_any_length(n_samples, by_torch):
    front_end = MFCC(padding="center")
    clips = to_float(recordings(3, n_samples))
    torch.testing.assert_close(front_end(clips), by_torch(lambda: front_end(clips)), atol=5e-5, rtol=0)
    # As columns of a matrix, and in double precision.
    columns = clips.double().t().contiguous().t()
    assert torch.equal(front_end(columns), front_end(clips))


ALL = AugmentationSettings(
    speed=(0.909, 1.1), gain_db=(-6.0, 6.0), background_volume=None, background_snr_db=(2.0, 40.0)
)
SETTINGS = {
    "all": ALL,
    "published": AugmentationSettings(),
    "speed alone": AugmentationSettings(time_shift_ms=0.0, speed=(0.9, 1.1), background_probability=0.0),
    "far and fast": AugmentationSettings(time_shift_ms=500.0, speed=(0.2, 6.0)),
    "gain alone": AugmentationSettings(time_shift_ms=0.0, gain_db=(0.0, 20.0), background_probability=0.0),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("n_samples", [2, 5, 3999, 4000])
def test_waveforms_are_changed_as_torch_changes_them(name, n_samples, by_torch):
    augmentation, ids = Augmentation(SETTINGS[name], seed=3), torch.arange(37) * 7919
    clips = recordings(37, n_samples)
    clips[0] = 0
    background = to_float(recordings(1, 9000))[0]
    background[:4500] = 0
    changed = augmentation.waveforms(clips, ids, 2, background)
    expected = by_torch(lambda: augmentation.waveforms(clips, ids, 2, background))
    torch.testing.assert_close(changed, expected, atol=2e-6, rtol=0)
    assert torch.equal(augmentation.waveforms(to_float(clips), ids, 2, background), changed)


def test_results_do_not_depend_on_the_number_of_threads():
    augmentation, front_end, clips = Augmentation(ALL), MFCC(), recordings(11, 8000)
    background = to_float(recordings(1, 20000))[0]
    results = []
    for count in (1, 2, 3):
        with threads(count):
            changed = augmentation.waveforms(clips, torch.arange(11), 0, background)
            results.append((changed, front_end(changed)))
    for changed, features in results[1:]:
        assert torch.equal(changed, results[0][0])
        assert_same(features, results[0][1])


def test_a_sample_that_is_no_number_stays_in_its_frames():
    clips = to_float(recordings(2, 4000))
    expected = LogMel()(clips)
    clips[0, 400] = float("nan")
    features = LogMel()(clips)
    assert features[0, :2].isnan().all()
    assert torch.equal(features[0, 2:], expected[0, 2:])
    assert torch.equal(features[1], expected[1])
