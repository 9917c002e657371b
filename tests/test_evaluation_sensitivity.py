"""Sensitivity and budget of a network whose accuracy with noise at either of its two layers is known."""

import io
import math

import pytest
import torch
from rich.console import Console
from scipy import stats
from standin_network import batches, make_clips

from asr_dni.evaluation.measurement.outcomes import EvaluationSet, OutcomeStore, measure_sweep
from asr_dni.evaluation.measurement.sweep import Sweep
from asr_dni.evaluation.questions.budget import has_budget, noise_budget
from asr_dni.evaluation.questions.evaluate import Request, evaluate_network
from asr_dni.evaluation.questions.folder import read_evaluation
from asr_dni.evaluation.questions.sensitivity import most_fragile, parts_to_ask, sensitivity_table
from asr_dni.evaluation.questions.tables import print_result
from asr_dni.nn import NoisyLinear
from asr_dni.noise import (
    PCM,
    Gaussian,
    GaussianWeights,
    GenericDevice,
    Hardware,
    Noise,
    NoisyModule,
    Placed,
    Strength,
    UniformConverter,
)

GAIN = 2.0


class TwoLayers(NoisyModule):
    """Logits GAIN (x + n1) + n2 of a one-hot x: with noise of sigma at part 1 or 2 the accuracy is known."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = NoisyLinear(2, 2, bias=False), NoisyLinear(2, 2, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(2))
            self.second.weight.copy_(GAIN * torch.eye(2))

    def project(self, features):
        return features[:, 0]

    def inputs_exact(self, hardware):
        return False

    def forward(self, features):
        return self.second(self.first(features[:, 0]))

    def snr_db(self, noise):
        return None


def accuracy(first, second):
    """Phi of the margin over the deviation of the difference of both logits."""
    return stats.norm.cdf(GAIN / math.sqrt(2 * ((GAIN * first) ** 2 + second**2)))


@pytest.fixture(scope="module")
def measured():
    network, clips = TwoLayers(), EvaluationSet(batches(make_clips(500), 250))
    sweep = Sweep([0, 0.25, 0.5, 0.75, 1, 1.5, 2], 6, Noise(seed=2))
    store = OutcomeStore(network, clips)
    asked = parts_to_ask(store, sweep, 6)
    return store, sweep, asked, sensitivity_table(store, asked, 1.0, measure_sweep(store, sweep))


def test_noise_at_one_part_has_the_accuracy_of_the_closed_form(measured):
    _, _, asked, table = measured
    assert [str(part) for part in asked.parts] == ["first output", "second output"]
    assert not asked.gates
    spread = math.sqrt(0.25 / (6 * 500))
    for row in table.to_dict("records"):
        sigma = row["strength"]
        both = {"all": (sigma, sigma), "first output": (sigma, 0), "second output": (0, sigma)}
        expected = accuracy(*both[row["part"]])
        assert abs(row["accuracy"] - expected) < 4 * spread  # false alarm: 6e-5 for each of 18
        assert row["loss_of_accuracy"] == pytest.approx(1 - row["accuracy"])
        assert row["low"] <= row["accuracy"] <= row["high"]
    assert most_fragile(table) == "first output"


def test_the_budget_is_that_of_the_closed_form_and_was_run(measured):
    store, sweep, asked, table = measured
    loss = 0.05
    assert has_budget(sweep)
    budget = noise_budget(store, asked, table, 1.0, loss)
    deviation = GAIN / (math.sqrt(2) * stats.norm.ppf(1 - loss))
    alone = budget.table.set_index("part")["alone"]
    # Accuracies are known to 0.4 %, and taken to be linear between levels.
    assert alone["first output"] == pytest.approx(deviation / GAIN, rel=0.1)
    assert alone["second output"] == pytest.approx(deviation, rel=0.1)
    # Either of two parts takes half of the variance.
    assert budget.share == pytest.approx(math.sqrt(0.5), rel=0.12)
    assert budget.accuracy >= 1 - loss
    first, second = budget.table["together"]
    assert accuracy(first, second) == pytest.approx(budget.accuracy, abs=0.02)
    noise = Noise(sigma=2.0, seed=2)
    placed = [
        (part, noise.hardware.at(value))
        for part, value in zip(asked.parts, budget.table["together"], strict=True)
    ]
    right = total = 0
    for batch in store.clips.batches:
        for draw in range(6):
            its = noise.only_at(*(Placed(*one) for one in placed))
            with (
                torch.no_grad(),
                store.network.under(its.realised(draw=draw, sample_ids=batch.clip_ids)),
            ):
                right += int((store.network(batch.features).argmax(-1) == batch.labels).sum())
            total += len(batch.labels)
    assert right / total == pytest.approx(budget.accuracy)


def test_a_part_without_noise_loses_nothing():
    network, clips = TwoLayers(), EvaluationSet(batches(make_clips(50), 50))
    with torch.no_grad():
        network.first.weight.zero_()  # of which a share is 0 as well
        network.second.weight.fill_(1.0)
    hardware = Hardware(weight=GaussianWeights(0.5))
    sweep = Sweep([0, 0.5], 1, Noise.of(hardware), Strength("weight.sigma"))
    store = OutcomeStore(network, clips)
    asked = parts_to_ask(store, sweep, 3)
    outcomes = measure_sweep(store, sweep)
    clean = outcomes[0].right.double().mean().item()
    table = sensitivity_table(store, asked, clean, outcomes)
    assert (table["loss_of_accuracy"] == 0).all()
    assert set(table["part"]) == {"all", "first output", "second output"}


def test_what_has_a_budget():
    adc = Hardware(adc=UniformConverter())
    assert has_budget(Sweep([4, 8], 1, Noise.of(adc), Strength("adc.bits")))
    assert not has_budget(
        Sweep([4, 8], 1, Noise.of(Hardware(output=Gaussian(1.0), tile=4)), Strength("tile"))
    )
    aged = Noise.of(Hardware(weight=PCM()))
    assert has_budget(Sweep([1, 3600], 1, aged, Strength("weight.time")))
    assert not has_budget(Sweep([0, 3600], 1, aged, Strength("weight.time")))
    weights = Hardware(weight=GaussianWeights(0.5), adc=UniformConverter())
    assert not has_budget(Sweep([0, 1], 1, Noise.of(weights), Strength("weight.sigma")))
    assert has_budget(Sweep([1, 2], 1, Noise()))


def budget_of(network, sweep, loss):
    store = OutcomeStore(network, EvaluationSet(batches(make_clips(200), 100)))
    asked = parts_to_ask(store, sweep, 1)
    outcomes = measure_sweep(store, sweep)
    table = sensitivity_table(store, asked, 1.0, outcomes)
    return noise_budget(store, asked, table, 1.0, loss)


def test_of_bits_each_part_needs_its_own():
    """Logits 1 and 0.9: they are told apart by steps of 1/7, not of 1/3; the first layer's 0 and 1 by any."""
    network = TwoLayers()
    with torch.no_grad():
        network.second.weight.copy_(torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    hardware = Hardware(adc=UniformConverter(8, 1.0, "absolute"))
    sweep = Sweep([2, 3, 4, 6], 1, Noise.of(hardware), Strength("adc.bits"))
    budget = budget_of(network, sweep, 0.1)
    assert budget.table["alone"].tolist() == budget.table["together"].tolist() == [2, 4]
    assert (budget.share, budget.accuracy) == (1.0, 1.0)
    # Steps of 1 and of 1/3 are not enough for the second.
    never = budget_of(network, Sweep([2, 3], 1, Noise.of(hardware), Strength("adc.bits")), 0.1)
    assert math.isnan(never.share)
    assert never.accuracy == pytest.approx(0.5, abs=0.1)
    assert never.table["alone"].isna().tolist() == [False, True]
    assert never.table["together"].isna().all()
    assert never.settings()["together_share"] is None


def test_of_bits_that_only_do_alone_there_are_more_together():
    """0.6 of a step is rounded up in either layer: alone that keeps the order, in both it does not."""
    network = TwoLayers()
    with (
        torch.no_grad()
    ):  # 0.9 becomes 1 at 3 bits in the first, and what is then 0.95 becomes 1 in the second
        network.first.weight.copy_(torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
        network.second.weight.copy_(torch.tensor([[1.0, 0.7], [0.7, 1.0]]) / 1.7)
    hardware = Hardware(adc=UniformConverter(8, 1.0, "absolute"))
    sweep = Sweep([3, 4, 5, 6, 8, 10], 1, Noise.of(hardware), Strength("adc.bits"))
    budget = budget_of(network, sweep, 0.1)
    assert budget.accuracy == 1.0
    assert (budget.table["together"] >= budget.table["alone"]).all()
    assert budget.table["alone"].tolist()[0] == 4


def test_times_are_split_up_by_their_logarithm():
    """Outputs shrink as weights drift, until an ADC no longer tells them apart: the sooner where both layers do."""
    network = TwoLayers()
    with torch.no_grad():
        network.second.weight.copy_(torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    drifting = Hardware(weight=GenericDevice(sigma=0.0, nu=0.1), adc=UniformConverter(4, 1.0, "absolute"))
    times = [10.0**k for k in range(8)]
    budget = budget_of(network, Sweep(times, 1, Noise.of(drifting), Strength("weight.time")), 0.02)
    first, second = budget.table["alone"]
    assert first == times[-1]
    assert 10 < second < first
    assert 0 < budget.share < 1
    assert budget.accuracy == 1.0
    # From the first time on, which is 1 s.
    assert budget.table["together"].tolist() == pytest.approx([first**budget.share, second**budget.share])


class Counted(TwoLayers):
    """Counts the clips that it is given."""

    clips = 0

    def forward(self, features):
        self.clips += len(features)
        return super().forward(features)


@pytest.mark.parametrize(("subject", "clips"), [("cost", 1), ("sensitivity", 50 * (1 + 5 + 5 * 2) + 50 * 5)])
def test_only_what_is_needed_is_measured(subject, clips, tmp_path):
    """The cost takes one clip; sensitivity five noisy levels of the whole and of each part; no level without noise."""
    network, set_of = Counted(), EvaluationSet(batches(make_clips(50), 50))
    adc = Noise.of(Hardware(adc=UniformConverter(8, 4.0, "absolute")))
    request = Request(Sweep([4, 5, 6, 7, 8], 1, adc, Strength("adc.bits")), (subject,), energy=None)
    store = OutcomeStore(network, set_of, tmp_path / "passes")
    result = evaluate_network(store, request, tmp_path, {}, ["a", "b"], [""] * 50)
    assert result.curve is None
    assert set(result.tables) == ({"cost"} if subject == "cost" else {"sensitivity", "budget"})
    assert request.passes(store) == (0 if subject == "cost" else 16)
    if subject == "cost":
        assert network.clips == clips
        assert not (tmp_path / "passes").exists()
        assert "clean_accuracy" not in result.settings
    else:
        assert 50 * 16 <= network.clips <= clips
    print_result(Console(file=io.StringIO()), result)
    assert read_evaluation(tmp_path).tables.keys() == result.tables.keys()
