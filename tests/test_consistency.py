"""Several draws of each clip in a training step: which noise they have, and the loss by which they are to agree."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from asr_dni.data import Batch
from asr_dni.errors import UserError
from asr_dni.model import (
    Consistency,
    KeywordSpotter,
    Member,
    NetworkSettings,
    PopulationSpotter,
    TrainingNoise,
)
from asr_dni.model.convolutions import ConvolutionBlock, ConvolutionSettings
from asr_dni.model.step import noisy_step
from asr_dni.noise import Noise

pytestmark = pytest.mark.filterwarnings("ignore:.*reference is not registered")

LABELS = ["a", "b", "c"]
PLAIN = NetworkSettings(units=5, layers=1, dropout=0.0)
CRNN = NetworkSettings(
    units=5, layers=1, dropout=0.0, convolutions=ConvolutionSettings([ConvolutionBlock(3, stride=[2, 2])], 4)
)


def made(consistency, network=PLAIN, sigma=1.5, **options):
    torch.manual_seed(3)
    options = {"noise": TrainingNoise(seed=6), "calibrate_every": 0, "label_smoothing": 0.0, **options}
    spotter = KeywordSpotter(LABELS, 6, network, consistency=consistency, **options)
    spotter.sigma_train = sigma
    return spotter.train()


def batch_of(clips=7):
    torch.manual_seed(4)
    return Batch(torch.randn(clips, 9, 6), torch.arange(clips) % 3, torch.arange(clips) * 7919 + 2**40)


def pairwise(logits):
    """The mean over pairs of (KL(p || q) + KL(q || p)) / 2, by torch's own divergence."""
    logs = [log_softmax(one, -1) for one in logits]
    pairs = [(p, q) for i, p in enumerate(logs) for j, q in enumerate(logs) if i != j]
    return sum(kl_div(q, p, reduction="batchmean", log_target=True) for p, q in pairs) / len(pairs)


@pytest.mark.parametrize("draws", [2, 3])
def test_the_loss_is_the_mean_of_the_draws_and_their_divergence(draws):
    spotter, batch = made(Consistency(draws, weight=0.8)), batch_of()
    loss = spotter.training_step(batch, 0)
    logits = []
    for draw in range(draws):
        noise = Noise(1.5, seed=6).realised(draw=draw, sample_ids=batch.clip_ids)
        with spotter.network.under(noise):
            logits.append(spotter.network(batch.features))
    mean = sum(cross_entropy(one, batch.labels) for one in logits) / draws
    apart = pairwise(logits)
    assert apart > 0.01
    torch.testing.assert_close(loss, mean + 0.8 * apart)


def test_a_draw_is_named_by_its_clip_and_not_by_the_batch():
    whole, batch = made(Consistency(2), dropout_network(0.4)), batch_of()
    singles = [Batch(*(part[k : k + 1] for part in batch)) for k in range(7)]
    alone = torch.stack([whole.training_step(one, 0) for one in singles])
    torch.testing.assert_close(whole.training_step(batch, 0), alone.mean())


def dropout_network(dropout):
    return NetworkSettings(units=5, layers=1, dropout=dropout)


def step_of(spotter, step):
    """The loss of a step of its own training, without the labels' part."""
    noise = spotter.noise_settings.at(spotter.sigma_train)
    noises = lambda which: [spotter.noise_settings.of_pass(noise, which, 0)]  # noqa: E731
    losses, logits = noisy_step(spotter.network, batch_of(), spotter.recipe, noises, step)
    return (losses[0] - cross_entropy(logits[0], batch_of().labels)).item(), logits


def test_draws_and_steps_have_noise_of_their_own():
    spotter = made(Consistency(2))
    logits = torch.stack([step_of(spotter, step)[1] for step in range(4)])
    assert len({tuple(one.flatten().tolist()) for one in logits}) == 4


@pytest.mark.parametrize(("chips", "differ"), [("step", True), ("epoch", False)])
def test_draws_differ_in_weights_that_are_programmed_for_each_step(chips, differ):
    hardware = {"weight": {"class_path": "GaussianWeights"}}
    noise = TrainingNoise(hardware=hardware, strength="weight.sigma", chips=chips, seed=2)
    spotter = made(Consistency(2, weight=100.0), noise=noise, sigma=0.3)
    beyond, _ = step_of(spotter, 0)
    assert (abs(beyond) > 1e-2) == differ


def test_digital_convolutions_are_passed_once():
    """With all noise behind them off, only their dropout could tell draws apart, and with analog ones it does."""
    blocks = ConvolutionSettings([ConvolutionBlock(3, stride=[2, 2])], 4, dropout=0.4)
    network = NetworkSettings(units=5, layers=1, dropout=0.0, convolutions=blocks)
    passes = []
    for sites in (["output"], ["convolution"]):
        spotter = made(Consistency(2, weight=100.0), network, 1e-9, noise=TrainingNoise(sites=sites))
        spotter.network.convolutions.register_forward_hook(lambda *_, sites=sites: passes.append(sites))
        beyond, _ = step_of(spotter, 0)
        assert (abs(beyond) > 1e-2) == (sites == ["convolution"])
    assert passes == [["output"], ["convolution"], ["convolution"]]


def test_running_statistics_follow_a_step_once():
    several, one = made(Consistency(3), CRNN), made(None, CRNN)
    for spotter in (several, one):
        spotter.training_step(batch_of(), 0)
    for name, value in one.network.named_buffers():
        assert torch.equal(value, several.network.get_buffer(name)), name
    assert any(value.abs().max() > 0 for name, value in one.network.named_buffers() if "running_mean" in name)


def test_members_of_a_population_draw_as_they_would_alone():
    members = [Member(seed=seed) for seed in (6, 8)]
    network = dataclasses.replace(CRNN, dropout=0.3)
    options = {"network": network, "calibrate_every": 0, "consistency": Consistency(2, 0.5)}
    population = PopulationSpotter(members, LABELS, 6, **options).train()
    noises = lambda which: [Noise(1.0, seed=member.seed) for member in members]  # noqa: E731
    losses, _ = noisy_step(population.network, batch_of(), population.recipe, noises, 5)
    for member, loss in enumerate(losses):
        network = population.unstack(member).train().network
        of_it = lambda which, member=member: [Noise(1.0, seed=members[member].seed)]  # noqa: E731
        alone, _ = noisy_step(network, batch_of(), population.recipe, of_it, 5)
        torch.testing.assert_close(loss[None], alone)


def test_settings_have_it_where_it_is_on():
    assert "consistency" not in made(None).hparams["model"]
    given = {"draws": 3, "weight": 0.25}
    spotter = made(Consistency(**given))
    assert spotter.hparams["model"]["consistency"] == given
    contents = {
        "hyper_parameters": {"model": dict(spotter.hparams["model"])},
        "state_dict": spotter.state_dict(),
    }
    assert KeywordSpotter.from_checkpoint(contents).recipe.consistency == Consistency(**given)


@pytest.mark.parametrize(
    ("settings", "said"), [({"draws": 1}, "draws is 1"), ({"weight": 0.0}, "weight is 0")]
)
def test_what_is_no_consistency_is_told(settings, said):
    with pytest.raises(UserError, match=f"consistency.{said}"):
        Consistency(**settings)
