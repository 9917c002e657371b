"""Sensitivity and budget of a network whose accuracy with noise at either of its two layers is known."""

import math

import pytest
import torch
from scipy import stats
from standin_network import batches, make_clips

from asr_dni.evaluation.measurement.outcomes import EvaluationSet, OutcomeStore, measure_sweep
from asr_dni.evaluation.measurement.sweep import Sweep
from asr_dni.evaluation.questions.sensitivity import (
    has_budget,
    most_fragile,
    noise_budget,
    parts_to_ask,
    sensitivity_table,
)
from asr_dni.nn import NoisyLinear
from asr_dni.noise import (
    GaussianWeights,
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
    assert not has_budget(Sweep([4, 8], 1, Noise.of(adc), Strength("adc.bits")))
    weights = Hardware(weight=GaussianWeights(0.5), adc=UniformConverter())
    assert not has_budget(Sweep([0, 1], 1, Noise.of(weights), Strength("weight.sigma")))
    assert has_budget(Sweep([1, 2], 1, Noise()))
