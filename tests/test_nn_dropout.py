"""Dropout by name: the masks' statistics, and what they depend on."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from asr_dni.data import Batch
from asr_dni.errors import UserError
from asr_dni.model import KeywordNetwork, KeywordSpotter, NetworkSettings
from asr_dni.nn import (
    CounterDropout,
    DropoutSeed,
    NoisyGRU,
    NoisyLSTM,
    NoisyRNN,
    calibrate,
    seeded_dropout,
    stack_networks,
    unstack_network,
    use_implementation,
)
from asr_dni.noise import Noise

FALSE_ALARM = 1e-6
"""Of every statistical comparison; seeds are fixed."""

T, N, H = 20, 24, 40


def kept(seed=0, step=0, ids=None, p=0.5, shape=(T, N, H), dropout=None):
    """Which values are kept."""
    dropout = CounterDropout(p) if dropout is None else dropout
    with seeded_dropout(dropout, DropoutSeed(seed, step, ids)):
        return dropout(torch.ones(shape)) != 0


def uncorrelated(rows):
    """Whether no two rows of decisions with probability 1/2 are correlated: sums of n signs are at most N(0, n)."""
    signs = rows.flatten(1).double() * 2 - 1
    count, length = signs.shape
    scores = (signs @ signs.T / math.sqrt(length))[tuple(torch.triu_indices(count, count, 1))]
    assert scores.abs().max() < stats.norm.isf(FALSE_ALARM / len(scores) / 2)


class TestStatistics:
    @pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
    @pytest.mark.parametrize("implementation", ["auto", "reference"])
    def test_rate(self, p, implementation):
        with use_implementation(implementation):
            dropped = ~kept(p=p, shape=(50, 50, 40))
        low, high = stats.binom.interval(1 - FALSE_ALARM, dropped.numel(), p)
        assert low <= int(dropped.sum()) <= high

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_rate_of_every_step_sample_and_unit(self, axis):
        dropped = (~kept(p=0.2, shape=(60, 50, 40))).movedim(axis, 0).flatten(1)
        low, high = stats.binom.interval(1 - FALSE_ALARM / len(dropped), dropped.shape[1], 0.2)
        counts = dropped.sum(1)
        assert low <= int(counts.min())
        assert int(counts.max()) <= high

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_independence_of_steps_samples_units(self, axis):
        uncorrelated(kept().movedim(axis, 0))

    def test_independence_of_training_steps_and_seeds(self):
        uncorrelated(torch.stack([kept(seed, step) for seed in range(4) for step in range(4)]))

    def test_independence_of_modules(self):
        network = nn.Sequential(*(CounterDropout(0.5) for _ in range(4)))
        with seeded_dropout(network, DropoutSeed(0)):
            uncorrelated(torch.stack([module(torch.ones(T, N, H)) != 0 for module in network]))

    def test_independence_of_a_recurrent_networks_layers(self):
        """Read off layers that hand on what they are given: zero where it was dropped on the way."""
        layer = NoisyRNN(H, H, num_layers=3, dropout=0.5, nonlinearity="relu")
        for name, parameter in layer.named_parameters():
            nn.init.eye_(parameter) if name.startswith("weight_ih") else nn.init.zeros_(parameter)
        with seeded_dropout(layer, DropoutSeed(0)):
            outputs, h = layer(torch.ones(1, 400, H))
        first, second = h[1] != 0, h[2] != 0
        assert torch.equal(outputs[0], h[2])
        assert not (second & ~first).any()
        rate = stats.binom.interval(1 - FALSE_ALARM, int(first.sum()), 0.5)
        assert rate[0] <= int(second.sum()) <= rate[1]

    def test_independence_of_the_noise(self):
        """Noise and masks come from the same generator by different names."""
        network = KeywordNetwork(NetworkSettings("rnn", units=H, layers=1, dropout=0.5), 1, 2)
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        with network.under(Noise(1.0, seed=3, draw=0)), seeded_dropout(network, DropoutSeed(3)):
            outputs, _ = network.recurrent(torch.zeros(T, N, 1))
            dropped = network.dropout(outputs)
        uncorrelated(torch.stack([outputs > 0, dropped != 0]))


class TestWhatTheMaskDependsOn:
    def test_same_name_same_mask(self):
        assert torch.equal(kept(3, 5), kept(3, 5))
        for other in (kept(4, 5), kept(3, 6), kept(3, 5, torch.arange(N) + 1)):
            assert not torch.equal(kept(3, 5), other)

    @pytest.mark.parametrize("chosen", [[0], [7, 2, 11], list(range(N))[::-1]])
    def test_not_on_the_batch(self, chosen):
        ids = torch.arange(N) * 1_000_003 - 5
        assert torch.equal(kept(ids=ids[chosen], shape=(T, len(chosen), H)), kept(ids=ids)[:, chosen])

    def test_not_on_the_length(self):
        assert torch.equal(kept(shape=(7, N, H)), kept()[:7])

    def test_pooled_outputs_are_one_step(self):
        assert torch.equal(kept(shape=(N, H)), kept()[0])

    @pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 39, 41])
    def test_odd_widths(self, width):
        mask = kept(shape=(T, N, width))
        assert mask.shape == (T, N, width)
        assert mask.any()
        assert not mask.all()

    def test_not_on_the_implementation(self):
        expected = kept()
        with use_implementation("reference"):
            assert torch.equal(kept(), expected)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_not_on_the_dtype(self, dtype):
        dropout = CounterDropout(0.25)
        with seeded_dropout(dropout, DropoutSeed(0)):
            values = dropout(torch.ones(T, N, H, dtype=dtype))
        assert values.dtype == dtype
        assert torch.equal(values != 0, kept(p=0.25))
        assert values.max() == torch.tensor(4 / 3, dtype=dtype)

    def test_not_on_the_global_generator_which_is_untouched(self):
        masks = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            masks.append(kept())
            assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(*masks)


class TestCounterDropout:
    @pytest.mark.parametrize("shape", [(5,), (T, N, H), (2, 3, 4, 5)])
    def test_without_a_name_it_is_torchs(self, shape):
        x = torch.randn(shape)
        results = []
        for dropout in (CounterDropout(0.4), nn.Dropout(0.4)):
            torch.manual_seed(6)
            results.append(dropout(x))
        assert torch.equal(*results)

    def test_evaluation(self):
        dropout, x = CounterDropout(0.4).eval(), torch.randn(T, N, H)
        with seeded_dropout(dropout, DropoutSeed(0)):
            assert dropout(x) is x

    def test_values_and_gradient(self):
        dropout, x = CounterDropout(0.4), torch.randn(T, N, H, dtype=torch.float64, requires_grad=True)
        with seeded_dropout(dropout, DropoutSeed(0)):
            y = dropout(x)
        mask = kept(p=0.4).double() / 0.6
        torch.testing.assert_close(y, x * mask, rtol=1e-12, atol=0)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(gradient, mask, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("p", [0.0, 1.0])
    def test_nothing_and_everything(self, p):
        x = torch.randn(T, N, H, requires_grad=True)
        dropout = CounterDropout(p)
        with seeded_dropout(dropout, DropoutSeed(0)):
            y = dropout(x)
        assert torch.equal(y, x * (1 - p))
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.full_like(x, 1 - p))

    def test_a_block_ends(self):
        dropout, x = CounterDropout(0.5), torch.ones(T, N, H)
        with seeded_dropout(dropout, DropoutSeed(1)):
            outer = dropout(x)
            with seeded_dropout(dropout, DropoutSeed(2)):
                assert not torch.equal(dropout(x), outer)
            assert torch.equal(dropout(x), outer)
        assert not torch.equal(dropout(x), outer)
        with pytest.raises(ZeroDivisionError), seeded_dropout(dropout, DropoutSeed(1)):
            raise ZeroDivisionError
        assert not torch.equal(dropout(x), outer)

    def test_shapes_can_be_computed_without_numbers(self):
        dropout = CounterDropout(0.5)
        with seeded_dropout(dropout, DropoutSeed(1)):
            assert dropout(torch.empty(T, N, H, device="meta")).device.type == "meta"

    def test_masks_are_those_of_every_version(self):
        """Changing this changes every recorded training with dropout."""
        dropout = CounterDropout(0.5)
        with seeded_dropout(dropout, DropoutSeed(3, step=7)):
            mask = dropout(torch.ones(1, 1, 16)) > 0
        assert mask.flatten().nonzero().flatten().tolist() == [2, 6, 7, 9, 10, 15]

    def test_mistakes(self):
        dropout = CounterDropout(0.5)
        two = [DropoutSeed(0)] * 2
        with pytest.raises(UserError, match="2 dropout seeds for 1 networks"), seeded_dropout(dropout, two):
            pass
        for ids in (torch.zeros(3), torch.zeros(3, 1, dtype=torch.int64)):
            with pytest.raises(UserError, match="one integer per sample"):
                DropoutSeed(0, sample_ids=ids)
        with pytest.raises(ValueError, match="3 sample identities for a batch of 24"):
            kept(ids=torch.arange(3))
        with pytest.raises(ValueError, match="T, N, H"):
            kept(shape=(2, T, N, H))


class TestPopulation:
    K, F, C = 3, 3, 2

    def networks(self, cell="lstm", **settings):
        members = []
        for k in range(self.K):
            torch.manual_seed(k)
            settings = {"units": 6, "layers": 2, "bidirectional": True, "dropout": 0.3, **settings}
            members.append(KeywordNetwork(NetworkSettings(cell=cell, **settings), self.F, self.C))
        return members

    @pytest.mark.parametrize("pooling", ["last", "mean", "max", "frame"])
    def test_a_member_drops_what_it_would_drop_alone(self, pooling):
        members = self.networks(pooling=pooling)
        population, features = stack_networks(members), torch.randn(5, 7, self.F)
        seeds = [DropoutSeed(k, 2 + k, torch.arange(5) + 10 * k) for k in range(self.K)]
        with seeded_dropout(population, seeds):
            together = population(features)
        with seeded_dropout(population, DropoutSeed(9)):
            alike = population(features)
        for k, member in enumerate(members):
            with seeded_dropout(member, seeds[k]):
                torch.testing.assert_close(together[k], member(features), rtol=1e-5, atol=1e-6)
            with seeded_dropout(member, DropoutSeed(9)):
                torch.testing.assert_close(alike[k], member(features), rtol=1e-5, atol=1e-6)
            with seeded_dropout(trained := unstack_network(population, k), seeds[k]):
                torch.testing.assert_close(together[k], trained(features), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
    def test_training_together_is_training_alone(self, cell):
        """Five steps of Adam with noise and dropout."""
        members = [network.double() for network in self.networks(cell)]
        population = stack_networks(members)
        features = torch.randn(5, 8, 4, self.F, dtype=torch.float64)
        labels = torch.randint(self.C, (5, 8))

        def train(network, logits):
            optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
            for step in range(5):
                calibrate(network, [features[step]], momentum=0.8)
                optimizer.zero_grad()
                losses = [nn.functional.cross_entropy(its, labels[step]) for its in logits(step)]
                sum(losses).backward()
                optimizer.step()

        def noise(k, step):
            return Noise(0.2 * k, scale="signal", seed=k, draw=step)

        def together(step):
            noises = [noise(k, step) for k in range(self.K)]
            seeds = [DropoutSeed(k, step) for k in range(self.K)]
            with population.under(noises), seeded_dropout(population, seeds):
                return population(features[step])

        train(population, together)
        for k, member in enumerate(members):

            def alone(step, k=k, member=member):
                with member.under(noise(k, step)), seeded_dropout(member, DropoutSeed(k, step)):
                    return [member(features[step])]

            train(member, alone)
            trained = unstack_network(population, k)
            for got, wanted in zip(trained.parameters(), member.parameters(), strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)

    def test_without_names_the_global_generator_serves_all(self):
        population, features = stack_networks(self.networks()), torch.randn(5, 7, self.F)
        torch.manual_seed(0)
        first = population(features)
        assert not torch.equal(population(features), first)
        torch.manual_seed(0)
        assert torch.equal(population(features), first)

    def test_number_of_seeds(self):
        population, features = stack_networks(self.networks()), torch.randn(5, 7, self.F)
        with (
            pytest.raises(UserError, match="got 2 dropout seeds for 3 networks"),
            seeded_dropout(population, [DropoutSeed(0)] * 2),
        ):
            pass
        assert not torch.equal(
            population(features), population(features)
        )  # masks of the global generator again


@pytest.mark.parametrize("kind", [NoisyRNN, NoisyLSTM, NoisyGRU])
def test_between_recurrent_layers_it_follows_the_sample(kind):
    layer, x = kind(3, 5, num_layers=2, dropout=0.5, bidirectional=True), torch.randn(6, 4, 3)
    ids = torch.tensor([5, 9, 2, 7])
    with seeded_dropout(layer, DropoutSeed(0, 3, ids)):
        together, _ = layer(x)
    for chosen in ([2], [3, 0]):
        with seeded_dropout(layer, DropoutSeed(0, 3, ids[chosen])):
            torch.testing.assert_close(layer(x[:, chosen])[0], together[:, chosen], rtol=1e-5, atol=1e-6)
    layer.eval()
    with seeded_dropout(layer, DropoutSeed(0, 3, ids)):
        assert not torch.allclose(layer(x)[0], together)


def test_training_drops_by_clip_and_step():
    """A clip's loss in a training step depends on the clip, not on the batch or the global generator."""
    spotter = KeywordSpotter(["no", "yes"], 3, NetworkSettings(units=8, dropout=0.5), calibrate_every=0)
    spotter.log = lambda *arguments, **keywords: None
    features, labels, ids = torch.randn(6, 5, 3), torch.tensor([0, 1, 1, 0, 1, 0]), torch.arange(6) * 7

    def loss(chosen):
        return spotter.training_step(Batch(features[chosen], labels[chosen], ids[chosen]), 0).detach()

    together, apart = loss(list(range(6))), [loss([k]) for k in range(6)]
    torch.testing.assert_close(together, torch.stack(apart).mean())
    spotter.eval()
    assert not torch.isclose(loss(list(range(6))), together)
