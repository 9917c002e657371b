"""A decision as it comes about: posteriors after each frame, and the clips of a split one at a time."""

import numpy as np
import pytest
import soundfile
import torch

import asr_dni
from asr_dni.data import DigitsData
from asr_dni.data.labels import LabelSettings
from asr_dni.data.split_clips import SplitClips
from asr_dni.errors import UserError
from asr_dni.hardware_files import read_hardware
from asr_dni.inference.figures import clip_figure, decision_figure, features_panel, waveform_panel
from asr_dni.inference.over_time import decide_over_time
from asr_dni.model import KeywordNetwork, NetworkSettings
from asr_dni.model.convolutions import ConvolutionSettings
from asr_dni.noise import Noise
from asr_dni.plotting import with_matplotlib, with_plotly

T, F, C = 9, 6, 4


def network(**settings) -> KeywordNetwork:
    torch.manual_seed(0)
    made = KeywordNetwork(NetworkSettings(units=8, dropout=0.0, **settings), F, C).eval()
    if made.frame_weights is not None:  # zeros, before any training
        torch.nn.init.normal_(made.frame_weights.weight, std=30)  # exponentials of which no float holds
    return made


def features(n: int = 3) -> torch.Tensor:
    return torch.randn(n, T, F, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pooling", ["frame", "last", "mean", "max", "attention"])
@pytest.mark.parametrize("noise", [Noise(), Noise(0.7, seed=3, draw=2)])
def test_the_decision_after_a_frame_is_that_on_a_clip_which_ends_there(pooling, noise):
    whole, x = network(pooling=pooling), features()
    with whole.under(noise), torch.no_grad():
        over_time = whole.logits_over_time(x)
        assert over_time.shape == (T, 3, C)
        for end in (1, 4, T):
            torch.testing.assert_close(over_time[end - 1], whole(x[:, :end]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(whole.classify_over_time(whole.project(x)), over_time)


@pytest.mark.parametrize("pooling", ["frame", "last", "attention"])
def test_the_last_frame_decides_in_both_directions_and_behind_convolutions(pooling):
    convolutions = ConvolutionSettings(blocks=[{"channels": 3, "stride": [2, 1]}])
    for settings in ({"bidirectional": True}, {"convolutions": convolutions}):
        whole, x = network(pooling=pooling, **settings), features()
        with whole.under(Noise(0.5, draw=1)), torch.no_grad():
            torch.testing.assert_close(whole.logits_over_time(x)[-1], whole(x), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def spotter(checkpoint):
    return asr_dni.load(checkpoint)


@pytest.fixture(scope="module")
def clips(spotter, spoken):
    return SplitClips(spotter.data(spoken), "test")


def test_the_end_is_what_predict_says_and_a_seed_says_it_again(spotter, spoken, clips):
    for position in (0, 7):
        clip = clips[position]
        noise = Noise(sigma=1.5, seed=3)
        found = decide_over_time(spotter, clip.features, noise, 4, clip.clip_id)
        (file,) = spotter.predict_files([spoken / clip.name], noise=noise, draws=4)
        predicted = list(file.predictions[0].posteriors.values())
        assert found.mean[-1].tolist() == pytest.approx(predicted, abs=1e-4)
        assert found.label == file.label
        assert sum(found.votes.values()) == 4
        again = decide_over_time(spotter, clip.features, noise, 4, clip.name)
        assert torch.equal(found.posteriors, again.posteriors)
        other = decide_over_time(spotter, clip.features, Noise(sigma=1.5, seed=4), 4, clip.name)
        assert not torch.equal(found.posteriors, other.posteriors)


def test_passes_differ_by_chip_where_weights_do_and_are_one_where_nothing_does(spotter, clips):
    clip = clips[0]
    assert len(decide_over_time(spotter, clip.features, Noise(), 5).posteriors) == 1
    chips = decide_over_time(spotter, clip.features, Noise.of(read_hardware("pcm")), 3, clip.clip_id)
    assert len({tuple(row) for row in chips.posteriors[:, -1].tolist()}) == 3


def test_features_of_something_else_are_refused(spotter):
    with pytest.raises(UserError, match=r"\(T, 10\)"):
        decide_over_time(spotter, torch.zeros(5, 3), Noise())


def test_clips_are_the_recordings_of_the_split(spotter, spoken, clips):
    listed = (spoken / "testing_list.txt").read_text().split()
    assert sorted(clips.names) == sorted(listed)
    for position in (0, len(clips) - 1):
        clip = clips[position]
        assert clip.name.startswith(f"{clip.label}/")
        samples, rate = soundfile.read(spoken / clip.name, dtype="float32")
        assert clip.sample_rate == rate
        np.testing.assert_array_equal(clip.samples, samples)
        torch.testing.assert_close(clip.features, spotter.features(clip.samples[None])[0])
    for position in (-1, len(clips)):
        with pytest.raises(IndexError, match="has 12 clips"):
            clips[position]


def test_made_clips_of_silence_sound_as_the_network_hears_them(words):
    data = words(1, labels=LabelSettings(silence_percent=50.0))
    data.prepare_data()
    data.setup("test")
    clips = SplitClips(data, "test")
    made = [clips[k] for k in range(len(clips)) if clips.names[k] == "_silence_"]
    assert made
    for clip in made:
        assert clip.label == "_silence_"
        assert clip.samples.abs().max() > 0
        torch.testing.assert_close(clip.features, data.features(clip.samples[None])[0])


def test_what_is_no_recording_has_features_only():
    data = DigitsData()
    data.setup()
    clips = SplitClips(data, "test")
    assert not clips.recorded
    assert len(clips) == data.n_clips("test") == 382
    assert clips[3].samples is None
    assert clips[3].features.shape == (8, 8)
    assert clips[3].name == clips.names[3]


@pytest.mark.parametrize("form", ["lines", "map"])
def test_figures_render_in_both_libraries(spotter, clips, form, tmp_path):
    clip = clips[0]
    found = decide_over_time(spotter, clip.features, Noise(sigma=1.0), 3, clip.clip_id)
    decision = decision_figure(found, 1.0, "A clip", form=form)
    heard = waveform_panel(clip.samples, clip.sample_rate)
    seen = features_panel(clip.features, 1.0, spotter.features.front_end, normalised=True)
    assert seen.y.label == "coefficient"
    assert heard.x.text == seen.x.text == "time (s)"
    (line,) = heard.elements
    assert (min(line.y), max(line.y)) == pytest.approx(
        (clip.samples.min().item(), clip.samples.max().item()), abs=1e-4
    )
    for number, figure in enumerate((decision, clip_figure((heard, seen), "A clip"))):
        assert with_plotly.render(figure).data
        with_matplotlib.save(figure, tmp_path / f"{number}.png")


def test_the_line_of_the_decision_ends_at_its_posterior(spotter, clips):
    found = decide_over_time(spotter, clips[0].features, Noise(sigma=1.0), 3, clips[0].clip_id)
    (panel,) = decision_figure(found, 1.0, "A clip").panels
    widest = max(panel.elements, key=lambda line: line.style.width)
    assert widest.label == found.label
    assert widest.x[-1] == 1.0
    assert widest.y[-1] == pytest.approx(100 * found.posterior, abs=0.01)
    assert widest.low[-1] <= widest.y[-1] <= widest.high[-1]
