import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from standin_network import MarginNetwork, batches, make_clips

from asr_dni.data.batch import Batch
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve, curve_label, summarise_curves
from asr_dni.evaluation.curves.curve_file import COLUMNS
from asr_dni.evaluation.measurement.measuring import NoiseCurveMetric, measure_noise_curve
from asr_dni.evaluation.measurement.scoring import fingerprint
from asr_dni.evaluation.measurement.sweep import count_passes
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.nn import calibrate
from asr_dni.noise import Noise, Strength


@pytest.fixture(scope="module")
def clips():
    return make_clips(600)


def accuracy_curve(accuracies, draws=1, spread=0.0, n_clips=845, **settings):
    """A curve of given mean accuracies at sigma 0, 1, 2..., draws evenly spread around them."""
    rows = []
    for sigma, accuracy in enumerate(accuracies):
        for draw in range(draws if sigma else 1):
            shift = spread * (draw - (draws - 1) / 2) if sigma else 0.0
            snr = -20 * math.log10(sigma) if sigma else math.inf
            rows.append((float(sigma), 0, draw, snr, accuracy + shift, 1 - accuracy, n_clips))
    return NoiseCurve(
        pd.DataFrame(rows, columns=list(COLUMNS)), {"n_classes": 8, "scale": "signal"} | settings
    )


def test_accuracy_is_the_closed_form(clips):
    curve = measure_noise_curve(MarginNetwork(1.0), batches(clips, 200), [0, 0.5, 1, 3], 8, Noise(seed=3))
    at_sigma = curve.frame.groupby("strength")
    assert curve.frame[curve.frame["strength"] == 0]["accuracy"].tolist() == [1.0]
    for sigma in (0.5, 1.0, 3.0):
        expected = stats.norm.cdf(1 / (sigma * math.sqrt(2)))
        correct = round(float(at_sigma.get_group(sigma)["accuracy"].sum()) * 600)
        # Every clip and draw is an independent trial; fails once in 10,000 correct programs, per sigma.
        assert stats.binomtest(correct, 8 * 600, expected).pvalue > 1e-4


def test_loss_is_cross_entropy(clips):
    curve = measure_noise_curve(MarginNetwork(1.0), batches(clips, 200), [0], 1, Noise())
    assert curve.frame["loss"].item() == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-6)


def test_result_does_not_depend_on_batch_size_or_order(clips):
    def measure(batch_list):
        return measure_noise_curve(MarginNetwork(), batch_list, [0, 1, 2], 3, Noise(seed=1)).frame

    expected = measure(batches(clips, 600))
    for other in (batches(clips, 41), batches(clips[::-1], 64)):
        pd.testing.assert_frame_equal(measure(other), expected, rtol=1e-6)
        assert measure(other)["accuracy"].tolist() == pytest.approx(expected["accuracy"].tolist(), abs=1e-15)


def test_what_several_processes_counted_adds_up(clips):
    noise, network = Noise(seed=1), MarginNetwork()
    whole, *parts = (NoiseCurveMetric([0, 1, 2], 3, noise) for _ in range(4))
    for batch in batches(clips, 60):
        whole.update(network, batch)
    for part, share in zip(parts, (slice(0, 60), slice(60, 120), slice(120, 600)), strict=True):
        for batch in batches(clips[share], 60):
            part.update(network, batch)
    parts[0].merge_state(parts[1])
    parts[0].merge_state(parts[2])
    for merged, expected in zip(parts[0].compute(), whole.compute(), strict=True):
        torch.testing.assert_close(merged, expected, rtol=1e-12, atol=0)
        assert merged.dtype == torch.float64
    assert int(parts[0].compute()[2]) == 600


def test_draws_and_seeds_differ_and_repeat(clips):
    def accuracies(seed):
        curve = measure_noise_curve(MarginNetwork(), batches(clips, 300), [1], 4, Noise(seed=seed))
        return curve.frame["accuracy"].tolist()

    assert len(set(accuracies(0))) > 1
    assert accuracies(0) == accuracies(0)
    assert accuracies(0) != accuracies(1)


def test_noise_free_work_is_done_once_per_batch(clips):
    network = MarginNetwork()
    calls = []
    measure_noise_curve(
        network, batches(clips, 100), [0, 1, 2], 5, Noise(), progress=lambda: calls.append(None)
    )
    assert network.n_projections == 6
    assert network.n_classifications == 6 * 11 == len(calls)
    assert count_passes([0, 1, 2], 5) == 11  # one pass suffices without noise


def test_modes_noise_gradients_and_random_state_are_left_alone(clips):
    network = MarginNetwork().train()
    network.dropout.eval()
    network.noise = Noise(sigma=0.3, seed=9)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    curve = measure_noise_curve(network, batches(clips, 100), [0, 1], 2, Noise())
    assert (network.training, network.dropout.training) == (True, False)
    assert network.noise == Noise(sigma=0.3, seed=9)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    network.train()
    # Dropout is off while measuring, whatever the mode was: without noise every clip is right.
    again = measure_noise_curve(network, batches(clips, 100), [0, 1], 2, Noise())
    pd.testing.assert_frame_equal(again.frame, curve.frame)
    assert network.dropout.training


def test_modes_come_back_after_an_error(clips):
    network = MarginNetwork().train()
    network.classify = None
    with pytest.raises(TypeError):
        measure_noise_curve(network, batches(clips, 100), [1], 1, Noise())
    assert network.training
    assert network.noise == Noise()


def test_clips_of_unknown_words_are_left_out(clips):
    batch = batches(clips, 100)[0]
    labels = batch.labels.clone()
    labels[:40] = -1
    curve = measure_noise_curve(MarginNetwork(), [batch._replace(labels=labels)], [0], 1, Noise())
    expected = measure_noise_curve(MarginNetwork(), batches(clips[40:100], 60), [0], 1, Noise())
    pd.testing.assert_frame_equal(curve.frame, expected.frame, rtol=1e-6)
    assert curve.frame["n_clips"].item() == 60


def test_snr_is_the_networks(clips):
    def snr(scale):
        noise = Noise(scale=scale)
        return measure_noise_curve(MarginNetwork(), batches(clips, 600), [0, 1, 2], 1, noise).frame["snr_db"]

    assert snr("signal").tolist() == pytest.approx([math.inf, 0.0, -6.0206], abs=1e-4)
    assert np.isnan(snr("absolute")[1:]).all()


def test_settings_are_noted(clips):
    noise = Noise(scale="signal", sites=("recurrent",), seed=5)
    network = MarginNetwork()
    curve = measure_noise_curve(network, batches(clips, 600), [1], 2, noise, {"cell": "LSTM"})
    expected = {
        "weights": fingerprint(network),
        "scale": "signal",
        "sites": ["recurrent"],
        "arrays": "joint",
        "noise_seed": 5,
        "draws": 2,
    }
    assert curve.settings == expected | {"cell": "LSTM"}


def test_the_fingerprint_is_of_the_weights():
    assert fingerprint(MarginNetwork(1.0)) == fingerprint(MarginNetwork(1.0).eval())
    assert fingerprint(MarginNetwork(1.0)) != fingerprint(MarginNetwork(1.0000001))


def test_noise_without_sites_is_not_measured(clips):
    nowhere = Noise(sites=())
    with pytest.raises(UserError, match=r"sites is empty.*sigma 2"):
        measure_noise_curve(MarginNetwork(), batches(clips, 600), [0, 2], 1, nowhere)
    assert measure_noise_curve(MarginNetwork(), batches(clips, 600), [0], 1, nowhere).levels == [0]


@pytest.mark.parametrize(
    ("sigmas", "draws", "message"),
    [
        ([], 1, "sigmas is empty"),
        ([1, -1], 1, "sigmas contains -1"),
        ([math.nan], 1, "sigmas contains nan"),
        ([1, 1], 1, "sigmas contains 1 twice"),
        ([1], 0, "draws is 0"),
    ],
)
def test_mistakes_are_named(sigmas, draws, message):
    with pytest.raises(UserError, match=message):
        NoiseCurveMetric(sigmas, draws, Noise())


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_clips_is_a_mistake():
    with pytest.raises(UserError, match="no clips"):
        measure_noise_curve(MarginNetwork(), [], [1], 1, Noise())


def test_keyword_network_is_measured_as_its_forward_pass_classifies():
    torch.manual_seed(0)
    network = KeywordNetwork(NetworkSettings(units=8, layers=2), n_features=5, n_labels=3)
    features, labels = torch.randn(30, 12, 5), torch.randint(3, (30,))
    clip_ids = torch.arange(30) * 7919
    calibrate(network, [features])
    batch = Batch(features, labels, clip_ids)
    halves = [Batch(*(part[half] for part in batch)) for half in (slice(17, None), slice(17))]
    noise = Noise(scale="signal", seed=4)
    curve = measure_noise_curve(network, halves, [0, 1], 3, noise)
    expected = []
    network.eval()
    for sigma, draw in ((0.0, 0), (1.0, 0), (1.0, 1), (1.0, 2)):
        with network.under(noise.at(sigma).realised(draw=draw, sample_ids=clip_ids)), torch.no_grad():
            logits = network(features)
        accuracy = (logits.argmax(1) == labels).double().mean().item()
        expected.append((accuracy, torch.nn.functional.cross_entropy(logits, labels).item()))
    assert curve.frame["accuracy"].tolist() == pytest.approx([accuracy for accuracy, _ in expected])
    assert curve.frame["loss"].tolist() == pytest.approx([loss for _, loss in expected], rel=1e-4)
    # All sites together; the classifier's clean output has another RMS than the gates, but sigma scales with each.
    assert curve.frame["snr_db"].tolist() == pytest.approx([math.inf, 0, 0, 0], abs=1e-6)


def test_levels_are_put_in_order(clips):
    curve = measure_noise_curve(MarginNetwork(), batches(clips, 600), [2, 0, 1], 1, Noise())
    assert curve.levels == [0.0, 1.0, 2.0]


def test_summary_over_draws():
    summary = accuracy_curve([0.9, 0.8], draws=5, spread=0.01).summary("draws")
    clean, noisy = summary.frame.to_dict("records")
    assert (clean["low"], clean["accuracy"], clean["high"]) == (0.9, 0.9, 0.9)
    half = stats.t.ppf(0.975, 4) * np.std([0, 0.01, 0.02, 0.03, 0.04], ddof=1) / math.sqrt(5)
    assert (noisy["accuracy"], noisy["low"], noisy["high"]) == pytest.approx((0.8, 0.8 - half, 0.8 + half))
    assert (noisy["n_draws"], clean["n_draws"]) == (5, 1)
    assert summary.interval == "95 % interval over 5 draws of the noise, on these clips"


def test_summary_over_clips():
    summary = accuracy_curve([0.9, 0.8], n_clips=100).summary("clips")
    expected = stats.binomtest(80, 100).proportion_ci(method="wilson")
    assert (summary.frame["low"][1], summary.frame["high"][1]) == pytest.approx(tuple(expected))
    assert "over 100 test clips" in summary.interval


def test_one_draw_has_no_interval_over_draws():
    summary = accuracy_curve([0.9, 0.8]).summary("draws")
    assert math.isnan(summary.frame["low"][1])
    assert summary.interval == "one draw, no interval"


def test_two_draws_are_draws():
    curve = accuracy_curve([0.9, 0.8], draws=2, spread=0.01)
    assert "draws of the noise included" in curve.summary().interval
    summary = curve.summary("draws")
    assert summary.interval == "95 % interval over 2 draws of the noise, on these clips"
    half = 12.7062 * 0.005
    assert summary.frame["low"].tolist() == pytest.approx([0.9, 0.8 - half])


def test_an_interval_over_clips_has_a_width_without_noise_and_draws_are_said_too():
    summary = accuracy_curve([0.81, 0.8], draws=5, spread=0.01, n_clips=500).summary()
    expected = stats.binomtest(405, 500).proportion_ci(method="wilson")
    assert (summary.frame["low"][0], summary.frame["high"][0]) == pytest.approx(tuple(expected))
    assert summary.interval == "95 % interval over 500 test clips, draws of the noise included (Wilson)"
    of_draws = accuracy_curve([0.81, 0.8], draws=5, spread=0.01, n_clips=500).summary("draws").frame
    assert summary.frame["draws_low"].tolist() == of_draws["low"].tolist() == of_draws["draws_low"].tolist()
    assert summary.frame["draws_high"].tolist() == of_draws["high"].tolist()


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 8.0], ids=["without noise", "some noise", "much noise"])
def test_an_interval_over_clips_covers_other_clips_and_draws(sharpness):
    """1,000 test sets of 300 clips, each clip right with a probability of its own (mean 0.8), 4 draws each.

    A right program covers 0.8 in 95 % of them or more; it falls below 92 % once in 100,000 runs (binomial). What
    covers draws alone misses it most of the time where clips differ.
    """
    random, sets = np.random.default_rng(3), 1000
    shape = (sets, 1, 300)
    right = (
        random.random(shape) < 0.8 if not sharpness else random.beta(0.8 * sharpness, 0.2 * sharpness, shape)
    )
    accuracy = (random.random((sets, 4, 300)) < right).mean(-1)
    sigma, draw = np.indices(accuracy.shape)
    columns = {"strength": 1.0 + sigma, "chip": 0 * draw, "draw": draw, "accuracy": accuracy}
    frame = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
    summary = NoiseCurve(frame.assign(snr_db=math.nan, loss=1.0, n_clips=300)).summary().frame
    assert ((summary["low"] <= 0.8) & (summary["high"] >= 0.8)).mean() >= 0.92
    by_draws = ((summary["draws_low"] <= 0.8) & (summary["draws_high"] >= 0.8)).mean()
    assert by_draws < {0.0: 0.2, 1.0: 0.93}.get(sharpness, 0.99)


def test_summary_over_chips():
    """Two clean-cut sources of spread: chips differ by 0.02, draws by 0.01."""
    rows = [(0.0, 0, 0, math.inf, 0.9, 0.1, 400)]
    rows += [
        (1.0, chip, draw, math.nan, 0.7 + 0.02 * chip + 0.01 * draw, 0.3, 400)
        for chip in range(3)
        for draw in range(2)
    ]
    curve = NoiseCurve(pd.DataFrame(rows, columns=list(COLUMNS)), {"n_classes": 8})
    summary = curve.summary("chips")
    clean, noisy = summary.frame.to_dict("records")
    assert (clean["low"], clean["high"], clean["n_chips"], clean["n_draws"]) == (0.9, 0.9, 1, 1)
    assert (noisy["n_chips"], noisy["n_draws"]) == (3, 2)
    of_chips = stats.t.interval(0.95, 2, 0.725, stats.sem([0.705, 0.725, 0.745]))
    of_draws = stats.t.interval(0.95, 1, 0.725, stats.sem([0.72, 0.73]))
    assert (noisy["low"], noisy["high"]) == pytest.approx(of_chips)
    assert (noisy["chips_low"], noisy["chips_high"]) == pytest.approx(of_chips)
    assert (noisy["draws_low"], noisy["draws_high"]) == pytest.approx(of_draws)
    assert summary.interval == "95 % interval over 3 chips, draws of the noise included, on these clips"
    assert "over 2 draws of the noise, on these clips and chips" in curve.summary("draws").interval
    assert curve.summary().interval == (
        "95 % interval over 400 test clips, draws of the noise included, on these 3 chips (Wilson)"
    )
    assert "no interval" in accuracy_curve([0.9, 0.8], draws=2).summary("chips").interval


def test_bounds_stay_within_0_and_1():
    summary = accuracy_curve([1.0, 0.99], draws=3, spread=0.01).summary()
    assert summary.frame["high"].max() == 1.0


@pytest.mark.parametrize(
    ("accuracies", "midpoint"),
    [
        ([0.9, 0.9, 0.5, 0.1], 2.0),  # exactly at a level: half-way between 0.9 and chance 0.1
        ([0.9, 0.7, 0.3, 0.1], 1.5),
        ([0.9, 0.6, 0.2, 0.1], 1.25),
        ([0.9, 0.9, 0.8, 0.51], None),
        ([0.9, 0.4, 0.8, 0.1], 0.8),  # the first crossing
    ],
)
def test_midpoint(accuracies, midpoint):
    found = accuracy_curve(accuracies).midpoint(chance=0.1)
    assert found == (None if midpoint is None else pytest.approx(midpoint))


def test_midpoint_takes_chance_from_the_number_of_classes():
    curve = accuracy_curve([0.925, 0.125])
    assert curve.summary().chance == 0.125
    assert curve.midpoint() == pytest.approx(0.5)


def test_midpoint_says_what_it_needs():
    curve = accuracy_curve([0.9, 0.2])
    with pytest.raises(UserError, match=r"accuracy 0\.900 at sigma 0 is not above chance, 0\.950"):
        curve.midpoint(0.95)
    with pytest.raises(UserError, match="give chance"):
        NoiseCurve(curve.frame).midpoint()
    with pytest.raises(UserError, match="measure sigma 0"):
        NoiseCurve(curve.frame[curve.frame["strength"] > 0]).midpoint(0.1)


def test_summarise_curves_over_seeds():
    curves = [
        accuracy_curve([0.9 + shift, 0.8 + shift], seed=seed) for seed, shift in enumerate((0, 0.01, 0.02))
    ]
    summary = summarise_curves(curves)
    assert summary.frame["accuracy"].tolist() == pytest.approx([0.91, 0.81])
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert summary.frame["low"].tolist() == pytest.approx([0.91 - half, 0.81 - half])
    assert summary.frame["n_seeds"].tolist() == [3, 3]
    assert summary.interval == "95 % interval over 3 seeds, on these clips"
    assert summary.frame[["draws_low", "draws_high"]].isna().all(axis=None)
    two = summarise_curves(curves[:2])
    assert two.frame[["low", "high"]].isna().all(axis=None)
    assert two.interval == "2 seeds, too few for an interval"
    assert all(pd.api.types.is_float_dtype(summary.frame[name]) for name in ("draws_low", "draws_high"))
    assert "seed" not in summary.settings
    assert summary.settings["n_classes"] == 8
    wide = summarise_curves([accuracy_curve([accuracy, 1 - accuracy]) for accuracy in (0.99, 1.0, 0.9)])
    assert (wide.frame["low"].min(), wide.frame["high"].max()) == (0, 1)


def test_summary_of_one_curve_keeps_its_own_interval():
    curve = accuracy_curve([0.9, 0.8], draws=4, spread=0.01)
    assert "test clips" in summarise_curves([curve]).interval
    assert summarise_curves([curve], over="draws").interval.startswith(
        "95 % interval over 4 draws of the noise"
    )


def test_summarise_curves_refuses_unlike_curves():
    with pytest.raises(UserError, match="differ in sigma"):
        summarise_curves([accuracy_curve([0.9]), accuracy_curve([0.9, 0.8])])
    with pytest.raises(UserError, match="differ in n_clips"):
        summarise_curves([accuracy_curve([0.9]), accuracy_curve([0.9], n_clips=3)])
    with pytest.raises(UserError, match=r"^there is no noise curve to summarise: give at least one$"):
        summarise_curves([])


def test_labels():
    assert curve_label({"sigma_train": 0}) == "conventional"
    assert curve_label({"sigma_train": 1.5}) == "DNI σ_train=1.5"
    assert curve_label({"sigma_train": 0, "sigma_train_highest": 2.0}) == "DNI σ_train=2→0"
    drawn = {"annealing.drawn": "sample"}
    assert curve_label({"sigma_train": 4.0, "training": drawn}) == "DNI σ_train drawn up to 4"
    assert curve_label({"sigma_train": 4.0, "training": "not what fit writes"}) == "DNI σ_train=4"
    assert curve_label({"sigma_train": 1.5, "label": "mine"}) == "mine"
    assert curve_label({}) == "network"


@pytest.mark.parametrize(
    ("strength", "settings", "label"),
    [
        (
            Strength("weight.sigma", "multiples of the largest weight"),
            {"sigma_train": 0.05},
            "DNI weight σ=0.05",
        ),
        (Strength("adc.bits"), {"sigma_train": 4, "sigma_train_highest": 8}, "DNI ADC bits=8→4"),
        (Strength("weight.time", "s"), {"sigma_train": 3600}, "DNI weight time=3600 s"),
        (
            Strength("weight.time", "s"),
            {"sigma_train": 0, "trained_under_noise": True},
            "DNI weight time=0 s",
        ),
        (Strength("weight.sigma"), {"sigma_train": 0}, "conventional"),
    ],
)
def test_labels_of_trainings_over_another_strength(strength, settings, label):
    assert curve_label(settings | {"train_strength": strength.as_dict()}) == label
