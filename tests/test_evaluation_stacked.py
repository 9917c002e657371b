"""Noise curves of K networks at once against those of each alone."""

import pandas as pd
import pytest
import torch

from asr_dni.data import Batch
from asr_dni.errors import UserError
from asr_dni.evaluation import count_passes, evaluate_population, measure_noise_curve
from asr_dni.evaluation.measurement.scoring import score
from asr_dni.evaluation.measurement.stacked import evaluate_votes
from asr_dni.evaluation.measurement.sweep import Sweep
from asr_dni.evaluation.questions.voting import vote
from asr_dni.model import KeywordNetwork, NetworkSettings
from asr_dni.nn import calibrate
from asr_dni.nn.stacking import stack_networks, unstack_network
from asr_dni.noise import Noise

SIGMAS = [0.0, 0.5, 2.0]


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    networks = [KeywordNetwork(NetworkSettings(units=5, layers=2, dropout=0.2), 4, 3) for _ in range(3)]
    features = torch.randn(20, 6, 4)
    for k, network in enumerate(networks):
        with torch.no_grad():
            network.classifier.weight *= 4.0
        calibrate(network, [features[: 10 + k]])
    return networks


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(1)

    def batch(size, first):
        features = torch.randn(size, 6, 4, generator=generator)
        labels = torch.randint(3, (size,), generator=generator)
        return Batch(features, labels, torch.arange(first, first + size))

    batches = [batch(11, 100), batch(6, 5)]
    batches[1].labels[2] = -1  # a word that is not known
    return batches


@pytest.mark.parametrize("scale", ["absolute", "signal", "range"])
def test_numbers_are_those_of_each_member_alone(networks, batches, scale):
    noise = Noise(scale=scale, sites=("input", "recurrent", "elementwise", "output"), seed=3)
    population = stack_networks(networks)
    settings = [{"seed": k} for k in range(3)]
    curves = evaluate_population(population, batches, SIGMAS, 3, noise, settings)
    for k, (network, curve) in enumerate(zip(networks, curves, strict=True)):
        alone = measure_noise_curve(network, batches, SIGMAS, 3, noise, settings[k])
        assert curve.settings == alone.settings
        exact = ["strength", "chip", "draw", "snr_db", "accuracy", "n_clips"]
        pd.testing.assert_frame_equal(curve.frame[exact], alone.frame[exact])
        pd.testing.assert_frame_equal(curve.frame, alone.frame, rtol=1e-5)
    assert len({tuple(curve.frame["loss"]) for curve in curves}) == 3
    assert curves[0].frame["loss"].nunique() == 7


def test_the_network_is_as_it_was_and_how_much_is_done_at_once_does_not_matter(
    networks, batches, monkeypatch
):
    population = stack_networks(networks).train()
    noises = [Noise(0.1 * k, seed=k) for k in range(3)]
    population.noise = noises
    before = torch.get_rng_state()
    passes = []
    curves = evaluate_population(population, batches, SIGMAS, 2, Noise(), progress=lambda: passes.append(1))
    assert len(passes) == count_passes(SIGMAS, 2) * len(batches)
    assert torch.equal(torch.get_rng_state(), before)
    assert population.training
    assert population.noise == tuple(noises)
    one_batch = Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    passes.clear()
    at_once, project = [], population.project
    monkeypatch.setattr(population, "project", lambda clips: at_once.append(len(clips)) or project(clips))
    for rows, most in ((1, 1), (7, 2), (100, 17)):
        at_once.clear()
        again = evaluate_population(
            population, [one_batch], SIGMAS, 2, Noise(), progress=lambda: passes.append(1), rows=rows
        )
        for one, other in zip(again, curves, strict=True):
            pd.testing.assert_frame_equal(one.frame, other.frame, rtol=1e-5)
        assert max(at_once) == most
        assert sum(at_once) == 17
    assert len(passes) == 3 * count_passes(SIGMAS, 2)


@pytest.mark.parametrize("scale", ["absolute", "signal"])
def test_a_member_that_is_not_finite_harms_nobody_else(networks, batches, scale):
    population = stack_networks(networks)
    with torch.no_grad():
        population.recurrent.weight_hh_l1[1] = torch.nan
    # Statistics that are not numbers come back from a checkpoint as unknown.
    population.recurrent.statistics(1)["l1"].forget()
    curves = evaluate_population(population, batches, SIGMAS, 2, Noise(scale=scale))
    for k in (0, 2):
        alone = measure_noise_curve(networks[k], batches, SIGMAS, 2, Noise(scale=scale))
        pd.testing.assert_frame_equal(curves[k].frame, alone.frame, rtol=1e-5)
    assert curves[1].frame["loss"].isna().all()
    ordinary = unstack_network(population, 1)
    alone = measure_noise_curve(ordinary, batches, SIGMAS, 2, Noise())
    assert curves[1].frame["accuracy"].tolist() == alone.frame["accuracy"].tolist()


def test_score_is_torchs_for_each_network():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 7, 3, generator=generator)
    labels = torch.tensor([0, 1, 2, -1, 1, 0, -1])
    known = labels >= 0
    correct, loss = score(logits, labels)
    for k in range(4):
        right = (logits[k].argmax(-1) == labels)[known]
        assert correct[k] == right.sum()
        expected = -logits[k][known].log_softmax(-1)[torch.arange(5), labels[known]].sum()
        torch.testing.assert_close(loss[k], expected)


def test_votes_are_those_of_the_posteriors_of_single_passes(networks, batches):
    """By `vote`, from posteriors of passes that are made here: draws 0 and 1 vote, 2 and 3, and 4 is left over."""
    population = stack_networks(networks).eval()
    curves = evaluate_votes(population, batches, Sweep([0.0, 2.0], 5, Noise(seed=3)), [2, 5, 1])
    assert list(curves) == [1, 2, 5]
    right = {(votes, first): torch.zeros(3) for votes in (1, 2, 5) for first in range(0, 6 - votes, votes)}
    for batch in batches:
        posteriors = []
        for draw in range(5):
            noise = Noise(2.0, seed=3).realised(draw=draw, sample_ids=batch.clip_ids)
            with population.under(noise), torch.no_grad():
                posteriors.append(population(batch.features).softmax(-1))
        for (votes, first), counted in right.items():
            decided = vote(torch.stack(posteriors[first : first + votes]), "mean")
            counted += (decided == batch.labels).sum(-1)
    for votes, of_members in curves.items():
        for k, curve in enumerate(of_members):
            frame = curve.frame[curve.frame["strength"] == 2.0]
            expected = [right[votes, first][k].item() / 16 for first in range(0, 6 - votes, votes)]
            assert frame["accuracy"].tolist() == pytest.approx(expected)
            assert frame["draw"].tolist() == list(range(5 // votes))
            clean = curve.frame[curve.frame["strength"] == 0.0]
            assert clean["accuracy"].tolist() == curves[1][k].frame["accuracy"][:1].tolist()
            assert curve.settings.get("votes", 1) == votes
    assert len({tuple(curves[votes][0].frame["accuracy"].round(6)) for votes in curves}) == 3


def test_each_member_is_softened_for_its_own_training(networks, batches):
    trained = [None, 1.5, Noise(3.0).hardware]
    sweep = Sweep(SIGMAS, 2, Noise(seed=3))
    curves = evaluate_votes(stack_networks(networks), batches, sweep, [1], trained)[1]
    for network, curve, its in zip(networks, curves, trained, strict=True):
        noise = Noise(seed=3).compensating(its)
        alone = measure_noise_curve(network, batches, SIGMAS, 2, noise)
        pd.testing.assert_frame_equal(curve.frame, alone.frame, rtol=1e-5)
        plain = measure_noise_curve(network, batches, SIGMAS, 2, Noise(seed=3)).frame["loss"]
        assert (curve.frame["loss"][0] == pytest.approx(plain[0], rel=1e-6)) == (its is None)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"settings": [{}]}, "settings has 1 entries for 3 members"),
        ({"rows": 0}, "rows is 0"),
        ({"levels": []}, "sigmas is empty"),
        ({"draws": 0}, "draws is 0"),
        ({"batches": []}, "no clips"),
    ],
)
def test_a_wrong_setting_is_named(networks, batches, options, named):
    arguments = {"batches": batches, "levels": SIGMAS, "draws": 1, "noise": Noise(), **options}
    with pytest.raises(UserError, match=named):
        evaluate_population(stack_networks(networks), **arguments)


def test_an_ordinary_network_is_refused(networks, batches):
    with pytest.raises(UserError, match="use measure_noise_curve"):
        evaluate_population(networks[0], batches, SIGMAS, 1, Noise())
