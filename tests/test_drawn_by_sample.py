"""Strengths that every sample of a batch has of its own."""

import math

import pytest
import torch
from scipy import stats

from asr_dni.cli.main import main
from asr_dni.errors import UserError
from asr_dni.model import Member, NoiseAnnealing, PopulationSpotter, TrainingNoise
from asr_dni.model.step import DrawnBySample
from asr_dni.nn import (
    NoisyConv2d,
    NoisyGRU,
    NoisyLinear,
    NoisyLSTM,
    NoisyRNN,
    stack_networks,
    use_implementation,
)
from asr_dni.noise import (
    AdditiveMultiplicative,
    Flicker,
    Gaussian,
    GaussianOfRange,
    Hardware,
    Impulse,
    Laplace,
    Multiplicative,
    Noise,
    ReadNoise,
    Realisation,
    Strength,
    Uniform,
    UniformConverter,
)

SHARES = torch.tensor([0.0, 0.25, 0.5, 1.0])


def test_strengths_of_clips_are_uniform_and_their_own_whatever_the_batch():
    """Kolmogorov-Smirnov over 4,000 clips, down from 3 to 1; correlation over steps; alarms 1e-6."""
    between, ids = DrawnBySample(3.0, 1.0), torch.arange(4000) * 7919

    def strengths(clips, seed=1, step=5):
        noise = between.of(Noise(sigma=between.largest, seed=seed, draw=step, sample_ids=clips))
        return noise.sigma * noise.realisation.shares

    found = strengths(ids)
    assert stats.kstest(found.numpy(), stats.uniform(1, 2).cdf).pvalue > 1e-6
    torch.testing.assert_close(strengths(ids[[17, 3]]), found[[17, 3]], rtol=0, atol=0)
    for other in (strengths(ids, step=6), strengths(ids, seed=2)):
        assert abs(stats.pearsonr(found, other).statistic) < 4.9 / math.sqrt(4000)
    assert (DrawnBySample(0.0, 0.0).of(Noise(draw=0, sample_ids=ids)).realisation.shares == 0).all()


def test_deviation_of_each_sample_follows_its_strength():
    """Chi-squared of 40 samples' noise on 2,000 outputs each, two-sided, alarms 1e-6 over all."""
    layer, ids = NoisyLinear(1, 2000, bias=False), torch.arange(40) + 11
    noise = DrawnBySample(0.0, 2.0).of(Noise(sigma=2.0, seed=3, draw=9, sample_ids=ids))
    with layer.under(noise), torch.no_grad():
        made = layer(torch.zeros(40, 1)).double()
    strengths = 2.0 * noise.realisation.shares.double()
    sums = (made / strengths[:, None]).square().sum(1)
    tails = 2 * torch.tensor([min(stats.chi2.cdf(s, 2000), stats.chi2.sf(s, 2000)) for s in sums.tolist()])
    assert tails.min() > 1e-6 / 40
    assert strengths.min() < 0.3 < 1.7 < strengths.max()


MODELS = [
    Gaussian(0.5),
    Multiplicative(0.5),
    AdditiveMultiplicative(0.5, ratio=2.0),
    AdditiveMultiplicative(0.5, order="additive_first"),
    Uniform(0.5),
    Laplace(0.5),
    Impulse(0.5, rate=0.3),
    Flicker(0.5, octaves=3),
    ReadNoise(0.5),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda its: f"{type(its).__name__}")
@pytest.mark.parametrize("sites", [("input", "recurrent"), ("input", "recurrent", "elementwise")])
def test_a_sample_is_what_it_is_on_hardware_of_its_strength(model, sites):
    """In a recurrence, in a population beside a network whose samples are alike, by the kernel where it can."""
    layers = [NoisyLSTM(3, 5, 2) for _ in range(2)]
    both, x = stack_networks(layers), torch.randn(6, 4, 3)
    hardware = Hardware((Gaussian(0.1), model), adc=UniformConverter(6, 8.0, "absolute"), sites=sites)
    strength = Strength("output.1.sigma")
    realisation = Realisation(seed=1, draw=2)
    mixed = [
        Noise.of(hardware, Realisation(1, 0, 2, shares=SHARES, shares_of=strength)),
        Noise.of(hardware, realisation),
    ]
    with both.under(mixed):
        found, _ = both(x)
    for k, share in enumerate(SHARES.tolist()):
        its = hardware.at(0.5 * share, strength)
        with layers[0].under(its, realisation):
            torch.testing.assert_close(found[0, :, k], layers[0](x)[0][:, k], rtol=1e-4, atol=1e-5)
    with layers[1].under(hardware, realisation):
        torch.testing.assert_close(found[1], layers[1](x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [NoisyLSTM, NoisyGRU, NoisyRNN])
@pytest.mark.parametrize("arrays", ["joint", "separate"])
@pytest.mark.parametrize("more", [{}, {"dac": UniformConverter(6, 4.0, "absolute"), "tile": 4}])
def test_kernel_has_a_strength_for_each_sample(kind, arrays, more):
    layer, x = kind(3, 7), torch.randn(5, 4, 3)
    sites = ("input", "recurrent", *(("elementwise",) if kind is not NoisyRNN else ()))
    hardware = Hardware(Gaussian(0.7), sites=sites, arrays=arrays, **more)
    results = []
    for name in ("fused", "reference"):
        layer.zero_grad()
        with layer.under(hardware, Realisation(4, draw=1, shares=SHARES)), use_implementation(name):
            y, _ = layer(x)
            y.square().sum().backward()
        results.append([y, *(p.grad for p in layer.parameters())])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    with layer.under(hardware, Realisation(4, draw=1)), use_implementation("fused"):
        alike, _ = layer(x)
    torch.testing.assert_close(results[0][0][:, 3], alike[:, 3], rtol=0, atol=0)
    assert not torch.allclose(results[0][0][:, :3], alike[:, :3], atol=1e-2)


def test_convolution_and_arrays_have_it_too():
    layer, x = NoisyConv2d(2, 3, 3), torch.randn(4, 2, 8, 6)
    hardware = Hardware(ReadNoise(0.5), sites=("convolution",), tile=7)
    with layer.under(hardware, Realisation(4, draw=1, shares=SHARES)), torch.no_grad():
        found = layer(x)
        for k, share in enumerate(SHARES.tolist()):
            with layer.under(hardware.at(0.5 * share), Realisation(4, draw=1)):
                torch.testing.assert_close(found[k], layer(x)[k], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("hardware", "strength"),
    [
        ({"adc": {"bits": 6}}, "adc.bits"),
        ({"weight": {"class_path": "GaussianWeights", "init_args": {"sigma": 0.1}}}, "weight.sigma"),
        ({"output": {"class_path": "FixedPattern", "init_args": {"sigma": 0.1}}}, "output.sigma"),
        ({"output": {"class_path": "IRDrop", "init_args": {"sigma": 1.0}}}, "output.sigma"),
        ({"output": {"class_path": "Impulse", "init_args": {"sigma": 1.0}}}, "output.rate"),
    ],
)
def test_strengths_that_samples_share_are_refused(hardware, strength):
    noise = TrainingNoise(hardware=hardware, strength=strength)
    said = f"annealing drawn is sample: strength {strength} cannot differ from sample to sample"
    with pytest.raises(UserError, match=said):
        NoiseAnnealing(4.0, drawn="sample").check(noise.noise.hardware, Strength(strength))
    with pytest.raises(UserError, match=said):
        PopulationSpotter([Member(annealing={"sigma": 4.0, "drawn": "sample"})], ["a", "b"], 3, noise=noise)
    with pytest.raises(UserError, match="cannot differ"):
        noise.noise.realised(shares=SHARES, shares_of=Strength(strength))


def test_as_many_shares_as_samples_are_needed():
    with NoisyLSTM(3, 5).under(Hardware(GaussianOfRange(0.1)), Realisation(shares=SHARES[:3])):
        pass
    layer = NoisyLSTM(3, 5)
    with (
        layer.under(Noise(sigma=1.0).realised(shares=SHARES[:3])),
        pytest.raises(ValueError, match="3 shares"),
    ):
        layer(torch.zeros(6, 4, 3))
    with pytest.raises(UserError, match="shares"):
        Realisation(shares=torch.zeros(3, dtype=torch.int64))


FIT = ["fit", "--data_class", "DigitsData", "--data.batch_size", "200", "--trainer.accelerator", "cpu"]
FIT += ["--model.network.units", "6", "--model.network.layers", "1", "--trainer.max_epochs", "1"]
FIT += ["--trainer.limit_train_batches", "2", "--wandb", "disabled", "--test_after_fit", "false"]
FIT += ["--annealing.sigma", "1.5", "--annealing.schedule", "constant", "--annealing.drawn", "sample"]


@pytest.mark.filterwarnings("ignore")
def test_command_trains_with_it_and_refuses_what_it_cannot(tmp_path, monkeypatch, restored_process, capsys):
    monkeypatch.chdir(tmp_path)
    main([*FIT, "--name", "drawn"])
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    noted = torch.load(checkpoint, weights_only=True)
    assert noted["sigma_train"] == {"now": 1.5, "annealed_to": 1.5, "highest": 1.5}
    assert noted["trainings"][0]["annealing.drawn"] == "sample"
    bits = ["--model.noise.hardware", "pcm_8bit", "--model.noise.strength", "adc.bits"]
    with pytest.raises(SystemExit) as stopped:
        main([*FIT, *bits, "--annealing.sigma", "8", "--annealing.start", "8", "--name", "bits"])
    assert stopped.value.code == 2
    assert "adc.bits cannot differ from sample to sample" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "bits").exists()
