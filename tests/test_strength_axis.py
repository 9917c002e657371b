"""Curves over any strength of any hardware: what is measured is what each pass alone would give."""

import math

import pytest
import torch

from asr_dni.data.batch import Batch
from asr_dni.errors import UserError
from asr_dni.evaluation import count_passes, evaluate_population, measure_noise_curve, noise_curve_markdown
from asr_dni.evaluation.measurement.sweep import Sweep
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.nn import calibrate, stack_networks
from asr_dni.noise import (
    Gaussian,
    GaussianWeights,
    Hardware,
    Multiplicative,
    Noise,
    Realisation,
    Strength,
    UniformConverter,
)

CELLS = ("lstm", "gru")
BITS, WEIGHTS = Strength("adc.bits"), Strength("weight.sigma")
CONVERTERS = Hardware(adc=UniformConverter(8, 4.0, "signal"))
CHIPS = Hardware(output=Gaussian(0.3), weight=GaussianWeights(0.1))


def make_network(seed=0, cell="lstm"):
    torch.manual_seed(seed)
    return KeywordNetwork(NetworkSettings(cell=cell, units=6, layers=2), n_features=5, n_labels=3)


@pytest.fixture(scope="module")
def batches():
    torch.manual_seed(1)
    whole = Batch(torch.randn(40, 9, 5), torch.randint(3, (40,)), torch.arange(40) * 7919)
    return [Batch(*(part[half] for part in whole)) for half in (slice(25), slice(25, None))]


@pytest.fixture(scope="module", params=CELLS)
def network(request, batches):
    network = make_network(cell=request.param)
    calibrate(network, [batch.features for batch in batches])
    return network.eval()


def alone(network, batches, noise):
    """Accuracy and loss of one ordinary forward pass over all clips."""
    logits = []
    with torch.no_grad():
        for batch in batches:
            with network.under(noise.realised(sample_ids=batch.clip_ids)):
                logits.append(network(batch.features))
    labels = torch.cat([batch.labels for batch in batches])
    right = (torch.cat(logits).argmax(1) == labels).double().mean().item()
    return right, torch.nn.functional.cross_entropy(torch.cat(logits), labels).item()


@pytest.mark.parametrize(
    ("hardware", "strength", "levels", "passes"),
    [
        (CONVERTERS, BITS, [3, 8], [(3, 0, 0), (8, 0, 0)]),
        (
            CHIPS,
            WEIGHTS,
            [0, 0.2],
            [(0, 0, 0), (0, 0, 1), *((0.2, c, d) for c in range(3) for d in range(2))],
        ),
        (Hardware(output=Multiplicative(0.1)), Strength(), [0, 0.5], [(0, 0, 0), (0.5, 0, 0), (0.5, 0, 1)]),
        (Hardware(weight=GaussianWeights(0.1)), WEIGHTS, [0.1], [(0.1, 0, 0), (0.1, 1, 0), (0.1, 2, 0)]),
    ],
    ids=["ADC bits", "chips and draws", "multiplicative", "chips alone"],
)
def test_every_pass_is_what_the_network_does_alone(network, batches, hardware, strength, levels, passes):
    """Also on hardware on which the first projection is not the same in every pass."""
    chips = 3 if hardware.weight else 1
    noise = Noise.of(hardware, Realisation(seed=4))
    called = []
    curve = measure_noise_curve(
        network, batches, levels, 2, noise, progress=lambda: called.append(1), strength=strength, chips=chips
    )
    found = curve.frame
    assert [tuple(row) for row in found[["strength", "chip", "draw"]].to_numpy().tolist()] == passes
    assert len(called) == 2 * len(passes) == 2 * count_passes(levels, 2, noise, strength, chips)
    for row in found.itertuples():
        its = noise.at(row.strength, strength).realised(chip=row.chip, draw=row.draw)
        accuracy, loss = alone(network, batches, its)
        assert row.accuracy == pytest.approx(accuracy)
        assert row.loss == pytest.approx(loss, rel=1e-4)
    assert curve.strength.path == strength.path
    noisy = found[found["strength"] > 0]
    assert noisy["loss"].nunique() == len(noisy)


def test_members_of_a_population_have_the_curves_that_they_have_alone(batches):
    networks = [make_network(seed) for seed in range(2)]
    noise = Noise.of(CHIPS)
    options = {"levels": [0, 0.2], "draws": 2, "noise": noise, "strength": WEIGHTS, "chips": 2}
    together = evaluate_population(stack_networks(networks), batches, **options)
    for one, curve in zip(networks, together, strict=True):
        expected = measure_noise_curve(one, batches, **options)
        assert curve.settings == expected.settings
        assert curve.frame["accuracy"].tolist() == pytest.approx(expected.frame["accuracy"].tolist())
        assert curve.frame["loss"].tolist() == pytest.approx(expected.frame["loss"].tolist(), rel=1e-4)


def test_the_network_is_left_as_it_was(batches):
    network = make_network().train()
    network.noise = Noise(sigma=0.2, seed=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    curve = measure_noise_curve(network, batches, [0.1], 1, Noise.of(CHIPS), strength=WEIGHTS, chips=2)
    assert network.noise == Noise(sigma=0.2, seed=3)
    assert network.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    # The noise that the network had has no part in the curve, nor has its projection.
    network.noise = Noise()
    again = measure_noise_curve(network, batches, [0.1], 1, Noise.of(CHIPS), strength=WEIGHTS, chips=2)
    assert again.frame.equals(curve.frame)


def test_what_was_measured_is_noted_and_tells_curves_apart(network, batches, tmp_path):
    curve = measure_noise_curve(
        network,
        batches,
        [4, 6],
        2,
        Noise.of(CONVERTERS, Realisation(seed=5)),
        {"n_classes": 3},
        strength=BITS,
    )
    assert curve.settings["strength"] == {"path": "adc.bits", "unit": ""}
    assert curve.settings["hardware"] == Hardware(adc=UniformConverter(6, 4.0, "signal")).settings_beside(
        BITS
    )
    assert curve.settings["noise_seed"] == 5
    assert "scale" not in curve.settings
    back = type(curve).from_csv(curve.to_csv(tmp_path / "noise_curve.csv"))
    assert back.settings == curve.settings
    table = noise_curve_markdown({"mine": curve})
    assert table.startswith("| ADC bits |")
    assert "σ_infer" not in table
    assert "midpoint" not in table
    assert "UniformConverter" in table
    weights = measure_noise_curve(network, batches, [0, 0.3], 2, Noise.of(CHIPS), strength=WEIGHTS, chips=2)
    assert weights.settings["chips"] == 2
    assert weights.strength.unit == "multiples of the largest weight"
    assert "2 chips; 2 draws" in noise_curve_markdown({"mine": weights})
    with pytest.raises(
        UserError, match=r"over adc\.bits and weight\.sigma .*: give curves over one strength"
    ) as failed:
        noise_curve_markdown({"a": curve, "b": weights})
    assert "\n" not in str(failed.value)


def test_gaussian_noise_over_sigma_is_noted_as_it_always_was(network, batches):
    noise = Noise(scale="signal", sites=("recurrent",), seed=2)
    noted = measure_noise_curve(network, batches, [0, 1], 1, noise).settings
    assert {key: noted[key] for key in noted if key != "weights"} == {
        "scale": "signal",
        "sites": ["recurrent"],
        "arrays": "joint",
        "noise_seed": 2,
        "draws": 1,
    }


def test_snr_is_unknown_where_errors_are_not_noise_on_outputs(network, batches):
    curve = measure_noise_curve(network, batches, [0, 0.1], 1, Noise.of(CHIPS), strength=WEIGHTS)
    assert math.isfinite(curve.frame["snr_db"][0])
    assert math.isnan(curve.frame["snr_db"][1])


@pytest.mark.parametrize(
    ("hardware", "strength", "levels", "options", "said"),
    [
        (CONVERTERS, BITS, [3.5], {}, r"adc\.bits: .* 3\.5: give a whole number from 2 to 24"),
        (
            CONVERTERS,
            Strength("dac.bits"),
            [4],
            {},
            r"strength dac\.bits is not one of this hardware's: .*adc\.bits",
        ),
        (CONVERTERS, Strength(), [1], {}, r"strength output\.sigma is not one of this hardware's"),
        (CHIPS, WEIGHTS, [-1], {}, r"weight\.sigma: .* -1"),
        (CHIPS, WEIGHTS, [1, 1], {}, "strengths contains 1 twice"),
        (CHIPS, WEIGHTS, [], {}, "strengths is empty"),
        (CHIPS, WEIGHTS, [math.inf], {}, "strengths contains inf"),
        (CHIPS, WEIGHTS, [1], {"chips": 0}, "chips is 0"),
        (CONVERTERS, BITS, [4], {"chips": 2}, "chips is 2, but on this hardware all chips are the same"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_line(hardware, strength, levels, options, said):
    with pytest.raises(UserError, match=said) as failed:
        Sweep(levels, 1, Noise.of(hardware), strength, **options)
    assert "\n" not in str(failed.value)
