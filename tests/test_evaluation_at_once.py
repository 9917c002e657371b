"""Passes of a noise curve that are made at once, as repetitions of one network, against one after another."""

import pytest
import torch
from rounding import rounded

from asr_dni.data.batch import Batch
from asr_dni.evaluation.measurement.measuring import NoiseCurveMetric
from asr_dni.evaluation.measurement.scoring import Passes, evaluating, score
from asr_dni.evaluation.measurement.sweep import Sweep
from asr_dni.model.convolutions import ConvolutionBlock, ConvolutionSettings
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.nn import calibrate
from asr_dni.noise import SITES, Gaussian, Hardware, Noise, Strength, UniformConverter

N_FEATURES, N_LABELS = 13, 5
HARDWARE = {
    "joint": Noise(),
    "separate": Noise(arrays="separate"),
    "every site, relative": Noise(sites=SITES, scale="signal"),
    "converters": Noise.of(
        Hardware(Gaussian(1.0), adc=UniformConverter(6, 8.0), dac=UniformConverter(6, 3.0))
    ),
}


def network_of(cell="lstm", **settings):
    torch.manual_seed(0)
    network = KeywordNetwork(NetworkSettings(cell, 37, 2, **settings), N_FEATURES, N_LABELS)
    calibrate(network, [torch.randn(20, 16, N_FEATURES)])
    if network.frame_weights is not None:  # zeros, before any training
        torch.nn.init.normal_(network.frame_weights.weight)
    return network


def batch_of(clips=23, frames=16):
    features = torch.randn(clips, frames, N_FEATURES, generator=torch.Generator().manual_seed(1))
    return Batch(features, torch.arange(clips) % N_LABELS - 1, torch.arange(clips) * 977 + 2**40)


def one_after_another(network, batches, sweep):
    """Return correct answers and losses of every pass, each of which is one call."""
    totals = torch.zeros(2, len(sweep.passes), dtype=torch.float64)
    with evaluating(network):
        for batch in batches:
            passes = Passes(network, batch.features)
            noises = {level.value: level.noise for level in sweep.levels}
            scores = [
                score(
                    passes.logits(noises[value].realised(chip=chip, draw=draw, sample_ids=batch.clip_ids)),
                    batch.labels,
                )
                for value, chip, draw in sweep.passes
            ]
            totals += torch.tensor(scores, dtype=torch.float64).T
    return totals


def assert_same(network, batches, levels, draws, noise, **options):
    sweep = Sweep(levels, draws, noise, **options)
    metric = NoiseCurveMetric(levels, draws, noise, **options)
    for batch in batches:
        metric.update(network, batch)
    correct, loss = one_after_another(network, batches, sweep)
    assert metric.correct.tolist() == correct.tolist()
    assert metric.loss.tolist() == rounded(loss.tolist())
    assert len(set(loss.tolist())) == len(sweep.passes)  # all differ: no pass stands for another


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "lstm_peephole", "mgu", "fastgrnn"])
@pytest.mark.parametrize("noise", HARDWARE.values(), ids=HARDWARE)
def test_a_curve_is_to_the_last_bit_that_of_passes_one_after_another(cell, noise):
    assert_same(network_of(cell), [batch_of(), batch_of(6, 9)], [0, 0.3, 1, 2.5], 3, noise)


@pytest.mark.parametrize(
    "settings",
    [
        {"bidirectional": True, "pooling": "last"},
        {"projection": 11},
        {"pooling": "attention"},
        {"convolutions": ConvolutionSettings([ConvolutionBlock(3)], width=4)},
    ],
    ids=["bidirectional", "projection", "attention", "convolutions"],
)
def test_so_it_is_for_other_networks(settings):
    assert_same(network_of(**settings), [batch_of(frames=30)], [0, 0.3, 1], 2, Noise())


@pytest.mark.slow
def test_so_it_is_where_memory_holds_a_few_passes_only():
    # A projection of 3,000 x 200 frames is 89 MB: three passes at once, of draws of four levels.
    assert_same(network_of("rnn"), [batch_of(3_000, 200)], [0.5, 1, 1.5, 2], 1, Noise())


def test_so_it_is_over_another_strength():
    noise = HARDWARE["converters"]
    assert_same(network_of(), [batch_of()], [2, 4, 6], 2, noise, strength=Strength("adc.bits"))


def test_weights_and_calibration_that_change_between_batches_count():
    network, batches = network_of(), [batch_of(), batch_of(6, 9)]
    noise, levels = Noise(scale="signal"), [0.5, 1.0]
    metric, expected = NoiseCurveMetric(levels, 2, noise), torch.zeros(2, 4, dtype=torch.float64)
    for batch in batches:
        metric.update(network, batch)
        expected += one_after_another(network, [batch], Sweep(levels, 2, noise))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.5)
        calibrate(network, [batch.features])
    assert metric.loss.tolist() == expected[1].tolist()
