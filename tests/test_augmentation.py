import math
import re

import pytest
import torch
import yaml

from asr_dni.data.augmentation import Augmentation, AugmentationSettings
from asr_dni.errors import UserError


def only(**values):
    """Settings with nothing but these."""
    return AugmentationSettings(**({"time_shift_ms": 0.0, "background_probability": 0.0} | values))


def tones(n_clips: int, n_samples: int = 16000, frequency: float = 500.0) -> torch.Tensor:
    return 0.1 * torch.sin(2 * math.pi * frequency * torch.arange(n_samples) / 16000).repeat(n_clips, 1)


def noise(n_samples: int, seed: int = 0) -> torch.Tensor:
    return 0.2 * torch.randn(n_samples, generator=torch.Generator().manual_seed(seed))


EVERYTHING = AugmentationSettings(
    speed=(0.9, 1.1), gain_db=(-6.0, 6.0), time_masks=2, frequency_masks=2, frequency_mask_bins=5, cutouts=1
)
WITHOUT_SPEED = AugmentationSettings(gain_db=(-6.0, 6.0))


@pytest.mark.parametrize("settings", [EVERYTHING, WITHOUT_SPEED])
def test_a_clip_is_changed_alike_in_every_batch(settings):
    augmentation = Augmentation(settings, seed=5)
    waveforms, background = noise(20 * 8000).view(20, 8000), noise(50000, seed=1)
    features = torch.rand(20, 49, 40) + 1
    ids = torch.arange(20) * 7919 + 2**40
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    together = augmentation.waveforms(waveforms, ids, 3, background)
    shuffled = augmentation.waveforms(waveforms[order], ids[order], 3, background)
    assert torch.equal(together[order], shuffled)
    alone = augmentation.waveforms(waveforms[4:5], ids[4:5], 3, background)
    assert torch.equal(together[4:5], alone)
    masked = augmentation.features(features, ids, 3)
    assert torch.equal(masked[order], augmentation.features(features[order], ids[order], 3))


def test_epochs_and_seeds_differ_and_repeat():
    waveforms, ids, background = noise(4 * 8000).view(4, 8000), torch.arange(4), noise(50000, seed=1)
    features = torch.rand(4, 49, 40) + 1
    outcomes = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        augmentation = Augmentation(EVERYTHING, seed=seed)
        changed = augmentation.waveforms(waveforms, ids, epoch, background)
        masked = augmentation.features(features, ids, epoch)
        if (seed, epoch) in outcomes:
            assert torch.equal(changed, outcomes[seed, epoch][0])
            assert torch.equal(masked, outcomes[seed, epoch][1])
        for other in outcomes.keys() - {(seed, epoch)}:
            assert not (changed == outcomes[other][0]).all(1).any()
            assert not torch.equal(masked, outcomes[other][1])
        outcomes[seed, epoch] = changed, masked


def test_inputs_are_left_as_they_are_and_off_changes_nothing():
    waveforms, ids, background = noise(4 * 8000).view(4, 8000), torch.arange(4), noise(50000, seed=1)
    features = torch.rand(4, 49, 40)
    kept, kept_features, kept_background = waveforms.clone(), features.clone(), background.clone()
    Augmentation(EVERYTHING).waveforms(waveforms, ids, 0, background)
    Augmentation(EVERYTHING).features(features, ids, 0)
    assert torch.equal(waveforms, kept)
    assert torch.equal(features, kept_features)
    assert torch.equal(background, kept_background)
    off = Augmentation(AugmentationSettings.off())
    assert torch.equal(off.waveforms(waveforms, ids, 0, background), kept)
    assert torch.equal(off.features(features, ids, 0), kept_features)


def test_time_shift_moves_fills_with_zeros_and_is_uniform():
    # An impulse tells how far its clip was moved.
    n_clips, limit = 2000, 40
    waveforms = torch.zeros(n_clips, 1000)
    waveforms[:, 500] = 1.0
    shifted = Augmentation(only(time_shift_ms=2.5)).waveforms(waveforms, torch.arange(n_clips), 0)
    assert torch.equal(shifted.sum(1), torch.ones(n_clips))
    shifts = shifted.argmax(1) - 500
    assert shifts.min() == -limit
    assert shifts.max() == limit
    counts = torch.bincount(shifts + limit, minlength=2 * limit + 1).double()
    expected = n_clips / (2 * limit + 1)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 144.6  # 80 degrees of freedom; false alarms: 1e-5
    ramp = torch.arange(1.0, 101.0).repeat(200, 1) / 100
    shifted = Augmentation(only(time_shift_ms=1.0)).waveforms(ramp, torch.arange(200), 0)
    for row in shifted:
        filled = int((row == 0).sum())
        assert torch.equal(row, torch.roll(ramp[0], filled) * (torch.arange(100) >= filled)) or torch.equal(
            row, torch.roll(ramp[0], -filled) * (torch.arange(100) < 100 - filled)
        )


def test_gain_is_uniform_in_decibels():
    waveforms = tones(3000, 160)
    changed = Augmentation(only(gain_db=(-12.0, 6.0))).waveforms(waveforms, torch.arange(3000), 0)
    decibels = 20 * torch.log10(changed.norm(dim=1) / waveforms.norm(dim=1))
    torch.testing.assert_close(changed, waveforms * 10 ** (decibels[:, None] / 20))
    assert -12.001 <= decibels.min() < -11.9
    assert 5.9 < decibels.max() <= 6.001
    # Mean -3, standard deviation 18 / sqrt(12): five standard errors, false alarms 6e-7.
    assert abs(decibels.mean() + 3) < 5 * 18 / math.sqrt(12 * 3000)


def test_loud_clips_are_limited_to_full_scale():
    changed = Augmentation(only(gain_db=(40.0, 40.0))).waveforms(tones(1), torch.arange(1), 0)
    assert changed.max() == 1.0
    assert changed.min() == -1.0


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_speed_changes_the_frequency(speed):
    changed = Augmentation(only(speed=(speed, speed))).waveforms(tones(2), torch.arange(2), 0)
    output = torch.arange(16000) - 7999.5
    expected = 0.1 * torch.sin(2 * math.pi * 500 * (output * speed + 7999.5) / 16000)
    inside = (output * speed).abs() < 7990
    assert inside.sum() > 14000
    error = (changed - expected)[:, inside].square().mean() / expected[inside].square().mean()
    assert error < 1e-4  # 40 dB
    if speed > 1:
        assert changed[:, (output * speed).abs() > 8010].abs().max() == 0


def test_speed_and_shift_together():
    waveforms = torch.zeros(500, 4000)
    waveforms[:, 1950:2050] = torch.hann_window(100)
    changed = Augmentation(only(speed=(0.8, 1.25), time_shift_ms=20.0)).waveforms(
        waveforms, torch.arange(500), 0
    )
    time = torch.arange(4000) - 1999.5
    centre = (changed * time).sum(1) / changed.sum(1)
    assert centre.abs().max() < 321
    assert centre.min() < -300
    assert centre.max() > 300
    area = changed.sum(1) / waveforms[0].sum()  # the length of the pulse
    assert 0.79 < area.min() < 0.82
    assert 1.22 < area.max() < 1.26


def test_background_volume_and_probability():
    n_clips = 4000
    background = torch.arange(1.0, 5001.0) / 5000  # a ramp tells where a part begins and how loud it is
    mixed = Augmentation(only(background_probability=0.8, background_volume=0.1)).waveforms(
        torch.zeros(n_clips, 100), torch.arange(n_clips), 0, background
    )
    slope = (mixed[:, -1] - mixed[:, 0]) / 99 * 5000
    touched = mixed.abs().amax(1) > 0
    volumes = slope[touched]
    # Binomial and uniform: five standard errors each, false alarms 6e-7.
    assert abs(touched.double().mean() - 0.8) < 5 * math.sqrt(0.16 / n_clips)
    assert abs(volumes.mean() - 0.05) < 5 * 0.1 / math.sqrt(12 * len(volumes))
    assert volumes.max() < 0.1001
    starts = (mixed[touched, 0] / volumes * 5000 - 1)[volumes > 0.02]
    assert -1 < starts.min() < 40
    assert 4850 < starts.max() < 4902
    assert abs(starts.mean() - 2450) < 5 * 4901 / math.sqrt(12 * len(starts))


def test_background_at_a_signal_to_noise_ratio():
    waveforms = tones(1000, 1000)
    settings = only(background_probability=1.0, background_volume=None, background_snr_db=(5.0, 15.0))
    background = noise(20000)
    mixed = Augmentation(settings).waveforms(waveforms, torch.arange(1000), 0, background)
    ratio = 20 * torch.log10(waveforms.norm(dim=1) / (mixed - waveforms).norm(dim=1))
    assert 4.99 < ratio.min() < 5.2
    assert 14.8 < ratio.max() < 15.01
    assert abs(ratio.mean() - 10) < 5 * 10 / math.sqrt(12 * 1000)  # false alarms: 6e-7
    silent = Augmentation(settings).waveforms(torch.zeros(3, 1000), torch.arange(3), 0, background)
    assert torch.equal(silent, torch.zeros(3, 1000))
    digital_silence = Augmentation(settings).waveforms(waveforms, torch.arange(1000), 0, torch.zeros(20000))
    assert torch.equal(digital_silence, waveforms)


def test_short_or_missing_background():
    augmentation = Augmentation(only(background_probability=1.0, background_volume=0.1))
    waveforms = tones(5, 1000)
    mixed = augmentation.waveforms(waveforms, torch.arange(5), 0, torch.full((7,), 0.5))
    added = mixed - waveforms
    torch.testing.assert_close(added, added[:, :1].expand(-1, 1000), atol=1e-6, rtol=0)
    assert (added[:, 0] > 0).all()
    assert torch.equal(augmentation.waveforms(waveforms, torch.arange(5), 0, None), waveforms)
    assert torch.equal(augmentation.waveforms(waveforms, torch.arange(5), 0, torch.zeros(0)), waveforms)


@pytest.mark.parametrize(("length", "starts"), [(1, 1), (999, 999), (1000, 1), (1001, 2)])
def test_every_part_of_the_background_is_used(length, starts):
    """A recording as long as a clip has one part, a shorter one as many as it has samples, for it is repeated."""
    background = torch.arange(1.0, length + 1) / length
    augmentation = Augmentation(only(background_probability=1.0, background_volume=0.1))
    mixed = augmentation.waveforms(torch.zeros(2000, 1000), torch.arange(2000), 0, background)
    repeated = background.repeat(2000 // length + 2)
    assert (mixed[:, 0] > 0).all()
    if starts <= 2:
        scaled = mixed / mixed[:, :1]
        expected = torch.stack([repeated[k : k + 1000] / repeated[k] for k in range(starts)])
        which = (scaled[:, None] - expected).abs().amax(2) < 1e-2 * expected.amax(1)
        assert (which.sum(1) == 1).all()
        # Binomial, 2,000 clips: five standard deviations, false alarms 6e-7.
        assert all(
            abs(float(share) - 1 / starts) < 5 * 0.5 / math.sqrt(2000) for share in which.float().mean(0)
        )
    else:
        steps = mixed.diff(dim=1)
        jumps = steps.argmin(1)[(steps < 0).any(1)]  # where the recording begins again
        assert len(jumps.unique()) > 500  # of 999, 864 are expected


@pytest.mark.parametrize("speed", [None, (0.9, 1.1)])
def test_samples_in_double_precision_are_changed_alike(speed):
    augmentation = Augmentation(AugmentationSettings(speed=speed, gain_db=(-6.0, 6.0)), seed=1)
    waveforms, background = noise(20 * 800).view(20, 800), noise(5000, seed=1)
    changed = augmentation.waveforms(waveforms.double(), torch.arange(20), 0, background.double())
    assert changed.dtype == torch.float64
    single = augmentation.waveforms(waveforms, torch.arange(20), 0, background)
    torch.testing.assert_close(changed, single.double(), atol=1e-4, rtol=0)


def test_a_module_says_its_settings():
    said = repr(Augmentation(seed=7))
    assert "time_shift_ms=100.0" in said
    assert "sample_rate=16000, seed=7" in said


def test_a_shift_is_a_time_at_every_rate():
    impulse = torch.zeros(2000, 400)
    impulse[:, 200] = 1.0
    for rate, limit in ((16000, 32), (8000, 16)):
        shifted = Augmentation(only(time_shift_ms=2.0), sample_rate=rate).waveforms(
            impulse, torch.arange(2000), 0
        )
        moved = shifted.argmax(1) - 200
        assert (int(moved.min()), int(moved.max())) == (-limit, limit)


def test_the_places_of_two_masks_do_not_depend_on_their_widths():
    settings = only(frequency_masks=2, frequency_mask_bins=3)
    masked = Augmentation(settings).features(torch.ones(4000, 1, 50), torch.arange(4000), 0)[:, 0] == 0
    edges = torch.diff(torch.nn.functional.pad(masked.int(), (1, 1)), dim=1)
    two = (edges == 1).sum(1) == 2
    starts = (edges[two] == 1).nonzero()[:, 1].view(-1, 2).double()
    widths = (edges[two] == -1).nonzero()[:, 1].view(-1, 2).double() - starts
    assert two.sum() > 1500
    for place in (
        0,
        1,
    ):  # a wide one begins earlier on average: -0.03; of 1,500 five standard deviations are 0.13
        correlation = torch.corrcoef(torch.stack([starts[:, place], widths[:, place]]))[0, 1]
        assert abs(correlation + 0.03) < 0.13
    assert abs(torch.corrcoef(widths.T)[0, 1]) < 0.13


def runs(masked: torch.Tensor) -> int:
    """Number of runs of true values."""
    edges = torch.diff(torch.cat([torch.zeros(1), masked.float(), torch.zeros(1)]))
    return int((edges == 1).sum())


def test_masks_have_the_stated_number_and_widths():
    n_clips = 4000
    features = torch.ones(n_clips, 50, 20)
    masked = Augmentation(only(time_masks=1, time_mask_frames=9)).features(features, torch.arange(n_clips), 0)
    frames = masked[:, :, 0] == 0
    assert torch.equal(masked == 0, frames[:, :, None].expand(-1, -1, 20))
    widths = frames.sum(1)
    counts = torch.bincount(widths, minlength=10).double()
    assert len(counts) == 10
    chi_square = float(((counts - n_clips / 10) ** 2 / (n_clips / 10)).sum())
    assert chi_square < 39.3  # 9 degrees of freedom; false alarms: 1e-5
    assert all(runs(row) == (row.sum() > 0) for row in frames[:200])
    first = frames.float().argmax(1)[widths == 9]
    assert first.min() == 0
    assert first.max() == 41
    masked = Augmentation(only(frequency_masks=2, frequency_mask_bins=3)).features(
        features, torch.arange(n_clips), 0
    )
    bins = masked[:, 0] == 0
    assert torch.equal(masked == 0, bins[:, None].expand(-1, 50, -1))
    assert bins.sum(1).max() == 6
    assert max(runs(row) for row in bins[:500]) == 2


def test_cutouts_are_boxes_of_one_size_with_uniform_centres():
    n_clips, n_frames, n_features = 6000, 12, 5
    settings = only(cutouts=1, cutout_frames=5, cutout_bins=2)
    masked = Augmentation(settings).features(
        torch.ones(n_clips, n_frames, n_features), torch.arange(n_clips), 0
    )
    box = masked == 0
    frames, bins = box.any(2), box.any(1)
    assert torch.equal(box, frames[:, :, None] & bins[:, None])
    # A span of a width about a centre, of which the ends cut some off: its last place tells the centre.
    centres = torch.zeros(n_clips, 2, dtype=torch.int64)
    for axis, (its, width) in enumerate(((frames, 5), (bins, 2))):
        length = its.shape[1]
        spans = [torch.zeros(length, dtype=torch.bool) for _ in range(length)]
        for centre, span in enumerate(spans):
            span[max(centre - width // 2, 0) : centre - width // 2 + width] = True
        matches = (its[:, None] == torch.stack(spans)).all(2)
        assert (matches.sum(1) == 1).all()
        centres[:, axis] = matches.float().argmax(1)
    cells = n_frames * n_features
    counts = torch.bincount(centres[:, 0] * n_features + centres[:, 1], minlength=cells).double()
    chi_square = float(((counts - n_clips / cells) ** 2 / (n_clips / cells)).sum())
    assert chi_square < 116  # 59 degrees of freedom; false alarms: 1e-5


def test_several_cutouts_and_deltas_with_their_feature():
    features = torch.ones(200, 30, 40)
    settings = only(cutouts=2, cutout_frames=4, cutout_bins=3)
    masked = Augmentation(settings).features(features, torch.arange(200), 0, n_bands=20)
    static, deltas = masked.chunk(2, dim=-1)
    assert torch.equal(static, deltas)
    sizes = (static == 0).sum((1, 2))
    assert sizes.max() == 24
    assert (sizes > 12).float().mean() > 0.8  # two boxes seldom cover each other


def test_masks_of_mel_bands_are_those_of_features():
    features, ids = torch.ones(50, 3, 20), torch.arange(50)
    before = only(frequency_masks=2, frequency_mask_bins=5, mask_mel_bands=True)
    after = Augmentation(only(frequency_masks=2, frequency_mask_bins=5)).features(features, ids, 2)
    assert torch.equal(Augmentation(before).masked_bands(20, ids, 2), after[:, 0] == 0)
    assert torch.equal(Augmentation(before).features(features, ids, 2), features)
    assert Augmentation(only(frequency_masks=2)).masked_bands(20, ids, 2) is None


def test_deltas_are_masked_with_their_feature():
    features = torch.ones(100, 10, 60)
    settings = only(frequency_masks=1, frequency_mask_bins=5)
    masked = Augmentation(settings).features(features, torch.arange(100), 0, n_bands=20)
    static, first, second = masked.chunk(3, dim=-1)
    assert torch.equal(static, first)
    assert torch.equal(static, second)
    assert (static == 0).any()


def test_masks_wider_than_the_clip():
    masked = Augmentation(only(time_masks=1, time_mask_frames=100)).features(
        torch.ones(300, 5, 4), torch.arange(300), 0
    )
    assert (masked[:, :, 0] == 0).sum(1).max() == 5


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("time_shift_ms", dict(time_shift_ms=-1)),
        ("speed", dict(speed=(1.1, 0.9))),
        ("time_shift_ms", dict(time_shift_ms=math.inf)),
        ("time_shift_ms", dict(time_shift_ms=math.nan)),
        ("speed", dict(speed=(0.0, 1.0))),
        ("speed", dict(speed=(0.1, 1.0))),
        ("speed", dict(speed=(0.9, math.inf))),
        ("gain_db", dict(gain_db=(-math.inf, 3))),
        ("background_probability", dict(background_probability=-0.1)),
        ("background_volume", dict(background_volume=math.inf)),
        ("time_mask_frames", dict(time_mask_frames=-1)),
        ("gain_db", dict(gain_db=(3, -3))),
        ("gain_db", dict(gain_db=(3,))),
        ("background_probability", dict(background_probability=1.5)),
        ("background_volume", dict(background_volume=-0.1)),
        ("background_volume", dict(background_snr_db=(0, 20))),
        ("background_probability", dict(background_volume=None)),
        ("background_snr_db", dict(background_volume=None, background_snr_db=(20, 0))),
        ("time_masks", dict(time_masks=-1)),
        ("time_mask_frames", dict(time_masks=1, time_mask_frames=0)),
        ("frequency_masks", dict(frequency_masks=-1)),
        ("frequency_mask_bins", dict(frequency_masks=1, frequency_mask_bins=0)),
        ("mask_mel_bands", dict(mask_mel_bands=True)),
        ("cutouts", dict(cutouts=-1)),
        ("cutouts", dict(cutouts=10_000)),
        ("cutout_frames", dict(cutouts=1, cutout_frames=0)),
        ("cutout_bins", dict(cutouts=1, cutout_bins=0)),
    ],
)
def test_bad_settings_name_the_key(key, values):
    with pytest.raises(UserError, match=rf"^{key}\b") as error:
        AugmentationSettings(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["speed", "gain_db", "background_snr_db"])
def test_the_example_in_a_message_is_a_setting(key):
    level = {"background_volume": None} if key == "background_snr_db" else {}
    with pytest.raises(UserError, match=r"such as \[.*\], or null$") as error:
        AugmentationSettings(**level, **{key: (3.0, 2.0)})
    example = yaml.safe_load(re.search(r"such as (.*), or null", str(error.value)).group(1))
    AugmentationSettings(**level, **{key: tuple(example)})


@pytest.mark.parametrize(
    "values",
    [
        dict(time_shift_ms=0),
        dict(speed=(1.0, 1.0)),
        dict(gain_db=(3, 3)),
        dict(background_probability=1),
        dict(background_probability=0, background_volume=None),
        dict(background_probability=0, background_volume=0.1, background_snr_db=(0, 20)),
        dict(background_volume=0.0),
        dict(time_mask_frames=0, frequency_mask_bins=0),
        dict(time_masks=1, time_mask_frames=1, frequency_masks=1, frequency_mask_bins=1),
    ],
)
def test_limits_are_settings_too(values):
    settings = AugmentationSettings(**values)
    changed = Augmentation(settings).waveforms(tones(2, 4000), torch.arange(2), 0, noise(5000))
    assert changed.shape == (2, 4000)
    assert changed.isfinite().all()
