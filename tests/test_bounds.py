"""Sizes that would exhaust the memory are refused in one line, from a command line as from Python."""

import re

import pytest

from asr_dni.cli.main import main
from asr_dni.data import AugmentationSettings, DigitsData, Folder, KeywordData, LabelSettings, Synthetic
from asr_dni.errors import UserError
from asr_dni.evaluation.measurement.sweep import check_draws, check_sigmas
from asr_dni.features import MFCC
from asr_dni.model import KeywordSpotter
from asr_dni.model.network import NetworkSettings

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: NetworkSettings(units=10**9), "units is 1,000,000,000"),
        (lambda: NetworkSettings(layers=10**9), "layers is 1,000,000,000"),
        (lambda: KeywordSpotter(["a"], 10**9), "number of features is 1,000,000,000"),
        (lambda: KeywordSpotter(["a"], 8, NetworkSettings(units=16_000, layers=9)), "number of weights is"),
        (lambda: MFCC(n_mels=10**7), "n_mels is 10,000,000"),
        (lambda: MFCC(n_fft=2**40), "n_fft is"),
        (lambda: MFCC(n_fft=2**20, n_mels=4000), "n_mels x n_fft is"),
        (lambda: MFCC(sample_rate=10**12), "sample_rate is"),
        (lambda: MFCC(window_ms=1e9), "window_ms is"),
        (lambda: MFCC(delta_width=10**9 + 1), "delta_width is"),
        (lambda: KeywordData(Folder("x"), clip_seconds=1e9), "clip_seconds is"),
        (lambda: KeywordData(Folder("x"), batch_size=10**9), "batch_size is 1,000,000,000"),
        (lambda: KeywordData(Folder("x"), num_workers=10**9), "num_workers is"),
        (lambda: DigitsData(batch_size=10**9), "batch_size is"),
        (lambda: LabelSettings(words=["a"], silence_percent=1e12), "silence_percent is"),
        (lambda: AugmentationSettings(time_masks=10**9), "time_masks is"),
        (lambda: Synthetic(speakers=10**9), "words x speakers x takes is"),
        (lambda: Synthetic(processes=10**9), "processes is"),
        (lambda: check_draws(10**9), "draws is 1,000,000,000"),
        (lambda: check_sigmas([k / 100 for k in range(2000)]), "number of sigmas is 2,000"),
    ],
)
def test_a_size_that_exhausts_the_memory(make, named):
    with pytest.raises(UserError, match=re.escape(named)) as caught:
        make()
    assert "give at most" in str(caught.value)


def test_published_sizes_are_far_below():
    """A bidirectional LSTM of 3 x 512 units has more weights than any keyword spotter that was published."""
    KeywordSpotter(["a", "b"], 80, NetworkSettings(units=512, layers=3, bidirectional=True))
    MFCC(sample_rate=48_000, n_fft=4096, n_mels=128)


@pytest.mark.parametrize(
    "command",
    [
        ["fit", "--data_class", "DigitsData", "--model.network.units", "1000000000"],
        ["fit", "--data_class", "DigitsData", "--noise_curve.draws", "1000000000"],
        ["study", "plan", "study.yaml", "--seeds", "1000000000"],
        ["study", "plan", "study.yaml", "--units", "1000000000"],
    ],
)
def test_on_the_command_line(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text("data_class: DigitsData\n")
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert re.search(r",000,000,000: give at most [\d,]+", capsys.readouterr().err)
