"""K networks in one module: each member against the same network alone."""

import copy
import functools
import io
import math
import pickle

import pytest
import torch
from covering import thinned
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from asr_dni.errors import UserError
from asr_dni.model import KeywordNetwork, NetworkSettings
from asr_dni.nn import (
    NoisyGRU,
    NoisyLinear,
    NoisyLSTM,
    NoisyRNN,
    calibrate,
    repeat_network,
    snr_db,
    stack_networks,
    unstack_network,
    use_implementation,
)
from asr_dni.noise import SITES, Noise, NoisyModule
from asr_dni.philox import normal

K, T, N, F, H, C = 3, 4, 3, 3, 5, 2
SIGMAS = (0.3, 0.0, 0.7)
CELLS = {
    "tanh": functools.partial(NoisyRNN, nonlinearity="tanh"),
    "relu": functools.partial(NoisyRNN, nonlinearity="relu"),
    "lstm": NoisyLSTM,
    "projected": functools.partial(NoisyLSTM, proj_size=2),
    "gru": NoisyGRU,
}
ONE = {"num_layers": 1}
DEEP = {"num_layers": 2, "bidirectional": True}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
every_cell = pytest.mark.parametrize("cell", CELLS)
shared_or_separate = pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])


def make(cell, networks=K, first_seed=0, **keywords):
    """Networks of one shape with other weights each."""
    members = []
    for k in range(networks):
        torch.manual_seed(first_seed + k)
        members.append(CELLS[cell](F, H, **keywords))
    return members


def make_noises(networks=K, **keywords):
    """A noise for each member, with other strengths, seeds, draws and sample identities."""
    ids = torch.arange(N)
    return tuple(
        Noise(SIGMAS[k % 3], seed=10 + k, draw=2 * k, sample_ids=1000 * k + ids.roll(k), **keywords)
        for k in range(networks)
    )


def make_states(layer, networks=K, dtype=torch.float64):
    torch.manual_seed(7)
    depth = layer.num_layers * (2 if layer.bidirectional else 1)
    widths = [layer.proj_size or H, H][: 2 if isinstance(layer, nn.LSTM) else 1]
    return [torch.randn(networks, depth, N, width, dtype=dtype, requires_grad=True) for width in widths]


def run(layer, x, states):
    """Call a recurrent layer; return outputs and states in one list."""
    outputs, final = layer(x, tuple(states) if len(states) == 2 else states[0])
    return [outputs, *(final if isinstance(final, tuple) else (final,))]


def loss(results):
    """A weighted sum of all results of one network."""
    random = torch.Generator().manual_seed(0)
    return sum((r * torch.randn(r.shape, generator=random, dtype=torch.float64)).sum() for r in results)


def of_member(results, k):
    return [result[k] for result in results]


def assert_close(got, expected, tolerance):
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


@thinned(
    3,
    cell=list(CELLS),
    dtype=[torch.float32, torch.float64],
    arrays=["joint", "separate"],
    scale=["absolute", "signal", "range"],
    depth=[ONE, DEEP],
    shared=[True, False],
)
def test_recurrent_members_are_what_they_are_alone(cell, dtype, arrays, scale, depth, shared):
    """Outputs, final states and every gradient."""
    members = make(cell, dtype=dtype, **depth)
    torch.manual_seed(5)
    for member in members:
        calibrate(member, [torch.randn(T, N, F, dtype=dtype)])
    population = stack_networks(members)
    noises = make_noises(scale=scale, arrays=arrays, sites=SITES)
    x = torch.randn(*(() if shared else (K,)), T, N, F, dtype=dtype, requires_grad=True)
    states = make_states(members[0], dtype=dtype)
    with population.under(noises):
        results = run(population, x, states)
    leaves = [*states, *population.parameters(), x]
    gradients = torch.autograd.grad(sum(loss(of_member(results, k)) for k in range(K)), leaves)
    names = [name for name, _ in population.named_parameters()]
    assert names == [name for name, _ in members[0].named_parameters()]
    total = torch.zeros_like(x)
    for k, member in enumerate(members):
        mine = (x if shared else x[k]).detach().requires_grad_()
        its_states = [state[k].detach().requires_grad_() for state in states]
        with member.under(noises[k]):
            expected = run(member, mine, its_states)
        its_leaves = [*its_states, *member.parameters(), mine]
        its_gradients = torch.autograd.grad(loss(expected), its_leaves)
        for got, wanted in zip(results, expected, strict=True):
            assert_close(got[k], wanted, TOLERANCE[dtype])
        for got, wanted in zip(gradients[:-1], its_gradients[:-1], strict=True):
            assert_close(got[k], wanted, 10 * TOLERANCE[dtype])
        total[... if shared else k] += its_gradients[-1]
    assert_close(gradients[-1], total, 10 * TOLERANCE[dtype])


@every_cell
@pytest.mark.parametrize("implementation", ["auto", "reference"])
@pytest.mark.parametrize("change", ["other members", "fewer", "more", "in another place"])
def test_a_member_does_not_depend_on_the_others(cell, implementation, change):
    """Its numbers, noise included, are the same whoever else is there."""
    members, noises = make(cell, **DEEP), make_noises(sites=SITES)
    others, other_noises = make(cell, first_seed=20, **DEEP), make_noises(4, sites=SITES)[1:]
    place, crowd = {
        "other members": (2, [(others[0], other_noises[0]), (others[1], noises[0]), (members[2], noises[2])]),
        "fewer": (0, [(members[2], noises[2])]),
        "more": (2, [*zip(members, noises, strict=True), *zip(others, other_noises, strict=True)]),
        "in another place": (0, [(members[2], noises[2]), (members[0], noises[1]), (members[1], noises[0])]),
    }[change]
    x, results = torch.randn(T, N, F), []
    for where, (networks, its_noises) in (
        (2, (members, noises)),
        (place, tuple(zip(*crowd, strict=True))),
    ):
        population = stack_networks(networks)
        with use_implementation(implementation), population.under(its_noises):
            outputs = population(x)[0]
        outputs[where].square().sum().backward()
        results.append([outputs[where], *(parameter.grad[where] for parameter in population.parameters())])
        apart = [parameter.grad[k] for parameter in population.parameters() for k in range(len(networks))]
        assert sum(bool(gradient.any()) for gradient in apart) <= len(results[-1]) - 1
    for before, after in zip(*results, strict=True):
        assert_close(after, before, 1e-6)


@every_cell
@pytest.mark.parametrize("batch_first", [False, True])
@shared_or_separate
def test_batch_first_and_default_states(cell, batch_first, shared):
    members = make(cell, batch_first=batch_first, **DEEP)
    population = stack_networks(members)
    x = torch.randn(*(() if shared else (K,)), *((N, T) if batch_first else (T, N)), F)
    outputs, final = population(x)
    for k, member in enumerate(members):
        expected, its_final = member(x if shared else x[k])
        assert_close(outputs[k], expected, 1e-6)
        for got, wanted in (
            zip(final, its_final, strict=True) if isinstance(final, tuple) else ((final, its_final),)
        ):
            assert_close(got[k], wanted, 1e-6)


@every_cell
def test_projection_is_in_one_piece_for_every_member(cell):
    """What the recurrence is handed has each network's numbers together: no copy is needed."""
    population = stack_networks(make(cell))
    for x in (torch.randn(T, N, F), torch.randn(K, T, N, F)):
        projection = population.input_projection(x)
        assert projection.shape[:3] == (K, T, N)
        assert projection.is_contiguous()


@pytest.mark.parametrize("groups", [1, 3, 4])
def test_numbers_for_several_keys_are_those_of_each(groups):
    keys, times = [(1, 2), (2**32 - 1, 0), (7, 2**31)], torch.arange(3, 3 + T)
    samples = torch.tensor([[0, 5, 2**40], [-1, 5, 6], [2**62, 0, 1]])
    together = normal(keys, samples, times, groups, H)
    assert together.shape == (3, T, 3, groups * H)
    for k, key in enumerate(keys):
        assert torch.equal(together[k], normal(key, samples[k], times, groups, H))


def test_numbers_of_networks_without_a_kernel():
    """Where there is no C kernel, as on a GPU, the noise of all members is drawn at once: the same numbers."""
    members = [NoisyLinear(F, C) for _ in range(K)]
    population, noises, x = stack_networks(members), make_noises(), torch.randn(K, N, 4, F)
    with population.under(noises):
        expected = population(x)
        with use_implementation("reference"):
            assert_close(population(x), expected, 1e-6)


@every_cell
def test_without_bias(cell):
    members = make(cell, bias=False)
    population, x = stack_networks(members), torch.randn(T, N, F)
    for k, member in enumerate(members):
        assert_close(population(x)[0][k], member(x)[0], 1e-6)


def test_noise_of_every_member_without_draws_and_identities():
    """The count of passes and the places in the batch are those of a network alone."""
    members = make("lstm")
    population, x = stack_networks(members), torch.randn(T, N, F)
    noises = [Noise(0.5, seed=k) for k in range(K)]
    population.noise = noises
    passes = [population(x)[0] for _ in range(3)]
    for k, member in enumerate(members):
        member.noise = noises[k]
        for its_pass in passes:
            assert_close(its_pass[k], member(x)[0], 1e-6)


@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_a_clean_member_beside_noisy_ones(implementation):
    members, x = [NoisyLinear(F, H) for _ in range(K)], torch.randn(K, N, F)
    population = stack_networks(members)
    with use_implementation(implementation), population.under([Noise(0.5), Noise(), Noise(0.5, seed=1)]):
        outputs = population(x)
    for k, member in enumerate(members):
        assert torch.isclose(outputs[k], member(x[k]), atol=1e-6).all() == (k == 1)


def test_one_noise_is_every_members():
    members = make("gru")
    population, x = stack_networks(members), torch.randn(T, N, F)
    assert population.noise == (Noise(),) * K
    noise = Noise(0.5, seed=3, draw=1)
    with population.under(noise):
        assert population.noise == (noise,) * K
        outputs, _ = population(x)
    assert population.noise == (Noise(),) * K
    for k, member in enumerate(members):
        with member.under(noise):
            assert_close(outputs[k], member(x)[0], 1e-6)


@pytest.mark.parametrize("shape", [(), (2,), (2, 4)])
@pytest.mark.parametrize("scale", ["absolute", "signal", "range"])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_members_are_what_they_are_alone(shape, scale, bias):
    members = []
    for k in range(K):
        torch.manual_seed(k)
        members.append(NoisyLinear(F, C, bias=bias, dtype=torch.float64))
        calibrate(members[k], [torch.randn(10, F, dtype=torch.float64)])
    population, noises = stack_networks(members), make_noises(scale=scale)
    x = torch.randn(K, N, *shape, F, dtype=torch.float64, requires_grad=True)
    with population.under(noises):
        outputs = population(x)
    gradients = torch.autograd.grad(outputs.square().sum(), [x, *population.parameters()])
    for k, member in enumerate(members):
        mine = x[k].detach().requires_grad_()
        with member.under(noises[k]):
            expected = member(mine)
        assert_close(outputs[k], expected, 1e-12)
        its_gradients = torch.autograd.grad(expected.square().sum(), [mine, *member.parameters()])
        for got, wanted in zip(gradients, its_gradients, strict=True):
            assert_close(got[k], wanted, 1e-12)


def keyword_networks(networks=K, **settings):
    members = []
    for k in range(networks):
        torch.manual_seed(k)
        members.append(
            KeywordNetwork(NetworkSettings(**{"units": H, "layers": 1, "dropout": 0.0, **settings}), F, C)
        )
        if members[k].frame_weights is not None:  # zeros, before any training
            nn.init.normal_(members[k].frame_weights.weight)
    return members


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "frame", "attention"])
@shared_or_separate
def test_keyword_networks(cell, bidirectional, pooling, shared):
    members = keyword_networks(cell=cell, bidirectional=bidirectional, pooling=pooling, layers=2)
    population, noises = stack_networks(members), make_noises()
    features = torch.randn(*(() if shared else (K,)), N, T, F)
    projection = population.project(features)
    with population.under(noises):
        logits = population(features)
        assert_close(logits, population.classify(projection), 1e-5)
    assert logits.shape == (K, N, C)
    for k, member in enumerate(members):
        with member.under(noises[k]):
            assert_close(logits[k], member(features if shared else features[k]), 1e-5)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("scale", ["absolute", "signal"])
def test_training_together_is_training_alone(cell, scale):
    """Five steps of Adam: its arithmetic is elementwise, so stacked parameters move as they would alone."""
    members = [network.double() for network in keyword_networks(cell=cell, layers=2, bidirectional=True)]
    population = stack_networks(members)
    features, labels = torch.randn(5, N, T, F, dtype=torch.float64), torch.randint(C, (5, N))

    def train(network, losses):
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for step in range(5):
            calibrate(network, [features[step]], momentum=0.8)
            optimizer.zero_grad()
            losses(step).backward()
            optimizer.step()

    def noise(k, step):
        return Noise(0.2 * (k + 1), scale=scale, seed=k, draw=step)

    def losses_together(step):
        with population.under([noise(k, step) for k in range(K)]):
            logits = population(features[step])
        return sum(nn.functional.cross_entropy(its, labels[step]) for its in logits)

    before = [parameter.detach().clone() for parameter in population.parameters()]
    train(population, losses_together)
    for k, member in enumerate(members):

        def losses_alone(step, k=k, member=member):
            with member.under(noise(k, step)):
                return nn.functional.cross_entropy(member(features[step]), labels[step])

        train(member, losses_alone)
        trained = unstack_network(population, k).state_dict()
        assert list(trained) == list(member.state_dict())
        for key, value in member.state_dict().items():
            assert_close(trained[key], value, 1e-9)
    for start, parameter in zip(before, population.parameters(), strict=True):
        assert torch.isclose(start, parameter).double().mean() < 0.05


class TestCalibrate:
    @every_cell
    @shared_or_separate
    def test_members_are_calibrated_as_they_would_be_alone(self, cell, shared):
        members = make(cell, dtype=torch.float64, **DEEP)
        population = stack_networks(members)
        leading = () if shared else (K,)
        batches = [torch.randn(*leading, T, rows, F, dtype=torch.float64) for rows in (2, 5)]
        for momentum in (0.0, 0.8):
            calibrate(population, [momentum + batch for batch in batches], momentum)
            for k, member in enumerate(members):
                its_batches = [momentum + (batch if shared else batch[k]) for batch in batches]
                calibrate(member, its_batches, momentum)
                for part, expected in member.statistics().items():
                    got = population.statistics(k)[part]
                    assert got.rms == pytest.approx(expected.rms, rel=1e-9)
                    assert got.bound == pytest.approx(expected.bound, rel=1e-12)

    def test_is_clean_and_leaves_the_noise(self):
        members = keyword_networks()
        population, features = stack_networks(members), torch.randn(N, T, F)
        calibrate(population, [features])
        expected = population.classifier.statistics(1)["l0"].as_tensor()
        noises = make_noises()
        population.noise = noises
        calibrate(population, [features])
        assert torch.equal(population.classifier.statistics(1)["l0"].as_tensor(), expected)
        assert population.noise == noises
        assert population.training

    def test_signal_to_noise_ratio(self):
        members = keyword_networks()
        for k, member in enumerate(members):
            calibrate(member, [(k + 1) * torch.randn(N, T, F)])
        population = stack_networks(members)
        for k, member in enumerate(members):
            assert population.snr_db(Noise(0.3), k) == pytest.approx(member.snr_db(Noise(0.3)))
        assert population.snr_db(Noise()) == math.inf
        for call in (population.snr_db, functools.partial(snr_db, population)):
            with pytest.raises(UserError, match="give the member of the population, 0 to 2"):
                call(Noise(0.3))

    def test_member_must_be_named(self):
        population = stack_networks(make("lstm"))
        for member in (None, 3, -4):
            with pytest.raises(UserError, match=f"member is {member}"):
                population.statistics(member)
        calibrate(population, [torch.randn(T, N, F)])
        for member in range(K):
            mine, its = (population.statistics(place)["l0"].as_tensor() for place in (member - K, member))
            assert torch.equal(mine, its)
        ordinary = make("lstm")[0]
        calibrate(ordinary, [torch.randn(T, N, F)])
        mine, its = ordinary.statistics(0)["l0"], ordinary.statistics()["l0"]
        assert torch.equal(mine.as_tensor(), its.as_tensor())
        for member in (1, 2, -1):
            with pytest.raises(UserError, match=f"member is {member}, but this is an ordinary network"):
                ordinary.statistics(member)


class TestStack:
    def members(self):
        members = keyword_networks(bidirectional=True, layers=2)
        for k, member in enumerate(members):
            calibrate(member, [(k + 1) * torch.randn(N, T, F)])
        return members

    def test_round_trip(self):
        members = self.members()
        population = stack_networks(members)
        assert type(population) is KeywordNetwork
        assert all(module.networks == K for module in population.modules() if isinstance(module, NoisyModule))
        for k, member in enumerate(members):
            again = unstack_network(population, k)
            assert type(again) is KeywordNetwork
            assert again.networks is again.classifier.networks is None
            state, expected = again.state_dict(), member.state_dict()
            assert list(state) == list(expected)
            assert all(torch.equal(state[key], value) for key, value in expected.items())
            x = torch.randn(N, T, F)
            noise = Noise(0.5, scale="signal", seed=1, draw=0)
            with again.under(noise), member.under(noise):
                assert torch.equal(again(x), member(x))

    def test_parameters_are_copies_that_an_optimiser_takes(self):
        members = self.members()
        population = stack_networks(members)
        parameters = dict(population.named_parameters())
        assert list(parameters) == [name for name, _ in members[0].named_parameters()]
        for name, parameter in parameters.items():
            assert isinstance(parameter, nn.Parameter)
            assert parameter.is_leaf
            assert parameter.requires_grad
            assert parameter.shape == (K, *members[0].get_parameter(name).shape)
        before = copy.deepcopy(members[0].state_dict())
        alone = unstack_network(population, 0)
        with torch.no_grad():
            for parameter in population.parameters():
                parameter.zero_()
        for network in (members[0], alone):
            assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())

    def test_moving_to_another_dtype_and_back(self):
        members = self.members()
        population, x = stack_networks(members).double().float(), torch.randn(N, T, F)
        assert_close(population(x)[1], members[1](x), 1e-5)

    def test_frozen_parameters_stay_frozen(self):
        members = self.members()
        for member in members:
            member.recurrent.weight_ih_l0.requires_grad_(False)
        population = stack_networks(members)
        assert not population.recurrent.weight_ih_l0.requires_grad
        assert not unstack_network(population, 1).recurrent.weight_ih_l0.requires_grad
        assert population.recurrent.weight_hh_l0.requires_grad

    def test_mode_and_noise(self):
        members = self.members()
        for member in members:
            member.noise = Noise(1.0)
            member.eval()
        population = stack_networks(members)
        assert not population.training
        assert population.noise == (Noise(),) * K
        population.noise = Noise(1.0)
        assert unstack_network(population, 0).noise == Noise()
        assert all(member.noise == Noise(1.0) for member in members)

    def test_a_population_of_one(self):
        member, x = self.members()[0], torch.randn(N, T, F)
        population = stack_networks([member])
        assert population(x).shape == (1, N, C)
        assert_close(population(x)[0], member(x), 1e-6)

    @pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
    def test_copies(self, way):
        population, x = stack_networks(self.members()), torch.randn(N, T, F)
        population.noise = make_noises(scale="signal")
        if way == "deepcopy":
            twin = copy.deepcopy(population)
        elif way == "pickle":
            twin = pickle.loads(pickle.dumps(population))
        else:
            buffer = io.BytesIO()
            torch.save(population, buffer)
            buffer.seek(0)
            twin = torch.load(buffer, weights_only=False)
        assert twin.networks == K
        assert torch.equal(twin(x), population(x))


class TestState:
    def test_round_trip(self, tmp_path):
        members = keyword_networks()
        for member in members:
            calibrate(member, [torch.randn(N, T, F)])
        population, twin = stack_networks(members), stack_networks(keyword_networks()[::-1])
        torch.save(population.state_dict(), tmp_path / "state.pt")
        twin.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        x, noises = torch.randn(N, T, F), make_noises(scale="range")
        with population.under(noises), twin.under(noises):
            assert torch.equal(population(x), twin(x))

    def test_keys_are_those_of_a_member(self):
        members = keyword_networks()
        population = stack_networks(members)
        assert list(population.state_dict()) == list(members[0].state_dict())
        calibrate(members[1], [torch.randn(N, T, F)])
        population = stack_networks(members)
        assert list(population.state_dict()) == list(members[1].state_dict())
        assert population.state_dict()["recurrent.signal_statistics.l0"].shape == (K, 2, 4)

    def test_members_without_statistics_stay_without(self):
        members = keyword_networks()
        calibrate(members[1], [torch.randn(N, T, F)])
        twin = stack_networks(keyword_networks())
        twin.load_state_dict(stack_networks(members).state_dict())
        known = [twin.classifier.statistics(k)["l0"].known for k in range(K)]
        assert known == [False, True, False]
        with twin.under(Noise(0.1, scale="signal")), pytest.raises(UserError, match="calibrate"):
            twin(torch.randn(N, T, F))

    def test_of_another_number_of_networks(self):
        for member in (members := keyword_networks()):
            calibrate(member, [torch.randn(N, T, F)])
        population = stack_networks(members)
        for other in (stack_networks(members[:2]), members[0]):
            with pytest.raises(RuntimeError, match=r"size mismatch for .*signal_statistics"):
                population.load_state_dict(other.state_dict())
            with pytest.raises(RuntimeError, match=r"size mismatch for .*signal_statistics"):
                other.load_state_dict(population.state_dict())


class TestMistakes:
    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (lambda: NoisyLSTM(F, H + 1), "hidden_size of the network is 5 in network 0 and 6 in network 2"),
            (lambda: NoisyLSTM(F + 1, H), "input_size .* 3 in network 0 and 4 in network 2"),
            (lambda: NoisyLSTM(F, H, num_layers=2), "num_layers .* 1 in network 0 and 2 in network 2"),
            (lambda: NoisyLSTM(F, H, batch_first=True), "batch_first .* False in network 0 and True"),
            (lambda: NoisyLSTM(F, H, dropout=0.5, bias=False), "bias .* True in network 0 and False"),
            (lambda: NoisyGRU(F, H), "class of the network is NoisyLSTM in network 0 and NoisyGRU"),
            (lambda: NoisyLSTM(F, H, dtype=torch.float64), "dtype of weight_ih_l0 is torch.float32"),
            (lambda: NoisyLSTM(F, H).requires_grad_(False), "requires_grad of weight_ih_l0 is True"),
            (lambda: stack_networks(make("lstm")), "population of 3 networks: unstack it first"),
        ],
    )
    def test_networks_of_other_kinds(self, other, message):
        with pytest.raises(UserError, match=message):
            stack_networks([*make("lstm")[:2], other()])

    @pytest.mark.parametrize("change", [{"pooling": "max"}, {"dropout": 0.5}, {"cell": "gru"}, {"units": 6}])
    def test_keyword_networks_of_other_kinds(self, change):
        (key,) = change
        with pytest.raises(UserError, match=rf"{key}.* in network 1"):
            stack_networks([*keyword_networks(1), *keyword_networks(1, **change)])

    def test_layers_with_and_without_biases(self):
        said = r"list of parameters is \['weight', 'bias'\] in network 0 and \['weight'\] in network 1"
        with pytest.raises(UserError, match=said):
            stack_networks([NoisyLinear(2, 3), NoisyLinear(2, 3, bias=False)])

    def test_nothing_to_stack(self):
        with pytest.raises(UserError, match="give at least one"):
            stack_networks([])

    @pytest.mark.parametrize("layer", [nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2, affine=False))])
    def test_modules_without_a_form_for_networks(self, layer):
        with pytest.raises(UserError, match=r"(Linear|BatchNorm1d) .* cannot be stacked"):
            stack_networks([layer, copy.deepcopy(layer)])

    def test_nothing_to_unstack(self):
        with pytest.raises(UserError, match="NoisyLSTM is not a population"):
            unstack_network(make("lstm")[0], 0)
        with pytest.raises(UserError, match="nothing to unstack"):
            unstack_network(nn.Linear(2, 2), 0)
        for member in (-1, K):
            with pytest.raises(UserError, match=f"member is {member}: give one from 0 to 2"):
                unstack_network(stack_networks(make("lstm")), member)

    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({"sites": ("input",)}, "sites"),
            ({"scale": "signal"}, "scale"),
            ({"arrays": "separate"}, "arrays"),
            ({"first_step": 1}, "first_step"),
        ],
    )
    def test_noises_of_other_kinds(self, changes, name):
        population = stack_networks(make("lstm"))
        said = (
            rf"noise (output )?{name} is .* for one member .*: give all the same"
            r" \(the models' numbers, seed, chip, draw and sample_ids may differ\)$"
        )
        for place in range(K):
            noises = [Noise(0.5)] * K
            noises[place] = Noise(0.5, **changes)
            with pytest.raises(UserError, match=said):
                population.noise = noises
            with (
                pytest.raises(UserError, match=said),
                population.under(noises),
            ):
                pass
        assert population.noise == (Noise(),) * K

    def test_order_of_sites_does_not_matter(self):
        population = stack_networks(make("lstm"))
        population.noise = [Noise(0.5, sites=sites) for sites in (SITES, SITES[::-1], SITES)]
        assert population.noise[1].hardware.sites == SITES

    def test_number_of_noises(self):
        with pytest.raises(UserError, match="2 noises for 3 networks"):
            stack_networks(make("lstm")).noise = (Noise(), Noise())
        with pytest.raises(UserError, match="1 noises for an ordinary network"):
            make("lstm")[0].noise = (Noise(),)

    def test_number_of_identities(self):
        population = stack_networks(make("lstm"))
        noises = [Noise(0.5), Noise(0.5), Noise(0.5, sample_ids=torch.arange(N + 1))]
        with population.under(noises), pytest.raises(ValueError, match="4 sample identities"):
            population(torch.randn(T, N, F))

    def test_packed_sequences(self):
        packed = pack_sequence([torch.randn(T, F)] * N)
        with pytest.raises(UserError, match="takes no packed sequences"):
            stack_networks(make("lstm"))(packed)

    @pytest.mark.parametrize("shape", [(F,), (T, F), (2, T, N, F), (K, T, N, F, 1), (T, N, F + 1), (0, N, F)])
    def test_inputs(self, shape):
        with pytest.raises((ValueError, RuntimeError), match=r"expected|Expected"):
            stack_networks(make("lstm"))(torch.randn(shape))

    @pytest.mark.parametrize(("batch_first", "axes"), [(False, "T, N, F"), (True, "N, T, F")])
    def test_both_shapes_of_inputs_are_said(self, batch_first, axes):
        said = rf"expected an input \({axes}\) for all or \({K}, {axes}\), got \(2, {T}, {N}, {F}\)$"
        with pytest.raises(ValueError, match=said):
            stack_networks(make("lstm", batch_first=batch_first))(torch.randn(2, T, N, F))

    @pytest.mark.parametrize("shape", [(F,), (K, F), (2, N, F)])
    def test_inputs_of_a_linear_layer(self, shape):
        population = stack_networks([NoisyLinear(F, C) for _ in range(K)])
        with pytest.raises(ValueError, match="expected an input"):
            population(torch.randn(shape))

    @pytest.mark.parametrize("shape", [(1, N, H), (K, 2, N, H), (1, K, N, H)])
    def test_states(self, shape):
        with pytest.raises(RuntimeError, match="Expected hidden state"):
            stack_networks(make("gru"))(torch.randn(T, N, F), torch.randn(shape))


def repeated_noises(networks, rows, **keywords):
    """Strengths of the same two draws, in turn of one and of the other: some have their random numbers in common."""
    ids = 2**40 + torch.arange(rows)
    drawn = [0, 0, 0, 1, 1, 0][:networks]
    return [Noise(0.4 * k, seed=3, draw=draw, sample_ids=ids, **keywords) for k, draw in enumerate(drawn)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sites", [("input",), ("input", "recurrent"), SITES])
@pytest.mark.parametrize("arrays", ["joint", "separate"])
def test_repetitions_are_to_the_last_bit_the_network_alone(cell, sites, arrays):
    rows = 70  # of several blocks
    layer = make(cell, networks=1, num_layers=2, bidirectional=True)[0]
    repeated = repeat_network(layer, 6)
    x = torch.randn(T, rows, F)
    noises = repeated_noises(6, rows, sites=sites, arrays=arrays)
    with torch.no_grad():
        for inputs in (x, torch.stack([x] * 3 + [-x] * 3)):
            with repeated.under(noises):
                together = repeated(inputs)[0]
            for k, noise in enumerate(noises):
                with layer.under(noise):
                    alone = layer(inputs if inputs.dim() == 3 else inputs[k])[0]
                assert torch.equal(together[k], alone)


def test_repetitions_have_the_weights_in_common():
    layer = make("lstm", networks=1)[0]
    repeated = repeat_network(layer, 3)
    assert not any(parameter.requires_grad for parameter in repeated.parameters())
    x = torch.randn(T, N, F)
    before = repeated(x)[0]
    with torch.no_grad():
        layer.weight_hh_l0.mul_(-2.0)
        layer.bias_ih_l0.add_(0.5)
    after = repeated(x)[0]
    assert not torch.equal(before, after)
    assert all(torch.equal(its, layer(x)[0]) for its in after)


def test_what_cannot_be_stacked_cannot_be_repeated():
    with pytest.raises(UserError, match=r"networks with a Linear \(0\) cannot be stacked"):
        repeat_network(nn.Sequential(nn.Linear(2, 2)), 3)
    with pytest.raises(UserError, match="is a population of 2 networks"):
        repeat_network(stack_networks(make("tanh", networks=2)), 3)
