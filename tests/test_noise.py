"""What a noise may be, and how it is set on modules."""

import copy
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from asr_dni.errors import UserError
from asr_dni.nn import DropoutSeed, NoisyLinear, NoisyLSTM, calibrate, seeded_dropout
from asr_dni.noise import MVM_SITES, SITES, Noise, NoisyModule, Realisation


class Network(NoisyModule):
    def __init__(self):
        super().__init__()
        self.first = NoisyLSTM(3, 4)
        self.second = nn.Sequential(nn.ReLU(), NoisyLinear(4, 4), NoisyLinear(4, 2))

    def forward(self, x):
        return self.second(self.first(x)[0])


class TestNoise:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"sigma": -0.1}, "sigma is -0.1"),
            ({"sigma": float("nan")}, "sigma is nan"),
            ({"sigma": float("inf")}, "sigma is inf"),
            ({"sigma": "a"}, "sigma is a: give a finite number"),
            ({"sigma": None}, "sigma is None"),
            ({"sites": 5}, "sites is 5: give a list"),
            ({"first_step": "a"}, "first_step is 'a'"),
            ({"sample_ids": [1, 2]}, "sample_ids is a list: give a tensor"),
            ({"scale": "relative"}, "scale is 'relative'.*absolute, signal, range"),
            ({"arrays": "three"}, "arrays is 'three'.*joint, separate"),
            (
                {"sites": ("input", "cell")},
                "'cell' is not known: give any of convolution, input, recurrent, elementwise, output$",
            ),
            ({"sites": ("input", "output", "input")}, "sites input, output, input: name each site once"),
            ({"first_step": -1}, "first_step is -1"),
            ({"first_step": 2**32}, "first_step is 4294967296"),
            ({"sample_ids": torch.zeros(2)}, "sample_ids"),
            ({"sample_ids": torch.zeros(2, 1, dtype=torch.int64)}, "sample_ids"),
        ],
    )
    def test_mistakes_are_named(self, arguments, message):
        with pytest.raises(UserError, match=message):
            Noise(**arguments)

    def test_steps_have_32_bits(self):
        assert Noise(first_step=2**32 - 1).realisation.first_step == 2**32 - 1

    def test_starts_as_none_at_the_sites_of_matrix_vector_products(self):
        assert not Noise().on
        assert Noise().hardware.sites == MVM_SITES == ("input", "recurrent", "output")

    @pytest.mark.parametrize(
        ("noise", "on"),
        [
            (Noise(1.0), True),
            (Noise(0.0), False),
            (Noise(1.0, sites=()), False),
            (Noise(1.0, sites=["output"]), True),
        ],
    )
    def test_on(self, noise, on):
        assert noise.on is on

    @pytest.mark.parametrize(
        ("noise", "joint"),
        [
            (Noise(1.0), True),
            (Noise(1.0, sites=SITES), True),
            (Noise(1.0, arrays="separate"), False),
            (Noise(1.0, sites=("input",)), False),
            (Noise(1.0, sites=("recurrent", "output")), False),
        ],
    )
    def test_joint_needs_both_products(self, noise, joint):
        assert noise.hardware.joint is joint

    def test_at_changes_the_strength_only(self):
        noise = Noise(0.5, scale="signal", sites=("input",), seed=3, draw=2, first_step=9)
        assert noise.at(2.0) == Noise(2.0, scale="signal", sites=("input",), seed=3, draw=2, first_step=9)

    def test_realised_names_the_realisation_and_the_samples_only(self):
        noise, ids = (
            Noise(0.5, scale="signal", sites=("input",), arrays="separate", seed=3, first_step=9),
            torch.arange(3),
        )
        named = noise.realised(draw=4, sample_ids=ids)
        assert named.hardware == noise.hardware
        assert named.realisation == Realisation(seed=3, draw=4, first_step=9)
        assert named.realisation.sample_ids is ids

    def test_can_be_a_key_and_be_pickled(self):
        noise = Noise(0.5, sites=["input"], sample_ids=torch.arange(3))
        again = pickle.loads(pickle.dumps(noise))
        assert again == noise
        assert torch.equal(again.realisation.sample_ids, noise.realisation.sample_ids)
        assert len({noise, again}) == 1


class TestNetworkOfNoisyModules:
    def test_assignment_reaches_every_noisy_module_below(self):
        network, noise = Network(), Noise(0.7, seed=2)
        network.noise = noise
        assert all(module.noise is noise for module in network.modules() if isinstance(module, NoisyModule))

    def test_under_restores_what_each_module_had(self):
        network = Network()
        network.noise = Noise(1.0)
        network.first.noise = Noise(2.0)
        with network.under(Noise(3.0)):
            assert network.noise == network.first.noise == Noise(3.0)
            with network.second[1].under(Noise(4.0)):
                assert network.second[1].noise == Noise(4.0)
                assert network.second[2].noise == Noise(3.0)
            assert network.second[1].noise == Noise(3.0)
        assert network.noise == network.second[1].noise == Noise(1.0)
        assert network.first.noise == Noise(2.0)

    def test_under_restores_after_an_exception(self):
        network = Network()
        with pytest.raises(ZeroDivisionError), network.under(Noise(3.0)):
            raise ZeroDivisionError
        assert network.noise == Noise()

    def test_under_does_not_disturb_the_count_of_passes(self):
        x, network = torch.randn(5, 2, 3), Network()
        network.noise = Noise(1.0)
        expected = [network(x) for _ in range(3)]
        network.noise = Noise(1.0)
        first = network(x)
        with network.under(Noise(1.0, seed=8)):
            network(x)
        assert torch.equal(first, expected[0])
        assert torch.equal(network(x), expected[1])
        assert torch.equal(network(x), expected[2])

    def test_each_module_has_a_stream_of_its_own(self):
        network = Network()
        for layer in network.second[1:]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        network.noise = Noise(1.0)
        x = torch.zeros(1000, 4)
        first, second = network.second[1](x)[:, :2].flatten(), network.second[2](x).flatten()
        # |z| > 5 happens by chance once in 1.7 million.
        assert abs((first @ second).item()) / len(first) ** 0.5 < 5

    def test_is_independent_of_train_and_eval(self):
        x, network = torch.randn(5, 2, 3), Network()
        noise = Noise(1.0, draw=0)
        with network.under(noise):
            training, evaluating = network.train()(x), network.eval()(x)
        assert torch.equal(training, evaluating)
        assert not torch.equal(network.train()(x), training)

    def test_is_no_part_of_the_state(self):
        network = Network()
        keys = list(network.state_dict())
        network.noise = Noise(1.0)
        assert list(network.state_dict()) == keys
        assert Network().noise == Noise()

    @pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
    def test_copies_have_the_same_noise(self, way):
        network, x = Network(), torch.randn(5, 2, 3)
        network.noise = Noise(1.0, seed=4)
        network(x)
        if way == "deepcopy":
            twin = copy.deepcopy(network)
        elif way == "pickle":
            twin = pickle.loads(pickle.dumps(network))
        else:
            buffer = io.BytesIO()
            torch.save(network, buffer)
            buffer.seek(0)
            twin = torch.load(buffer, weights_only=False)
        assert twin.noise == network.noise
        assert torch.equal(twin(x), network(x))
        twin.noise = Noise()
        assert network.noise.on

    def test_global_random_state_is_untouched(self):
        network = Network()
        x = torch.randn(5, 2, 3)
        before = torch.get_rng_state()
        network.noise = Noise(1.0, sites=SITES)
        network(x)
        assert torch.equal(torch.get_rng_state(), before)

    def test_does_not_depend_on_the_global_random_state(self):
        network, x = Network(), torch.randn(5, 2, 3)
        results = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            with network.under(Noise(1.0)):
                results.append(network(x))
        assert torch.equal(*results)


class TestThreads:
    def test_a_block_holds_in_its_thread_alone(self):
        layer, x = NoisyLSTM(3, 4), torch.randn(5, 2, 3)
        noises = [Noise(), Noise(1.0, seed=1), Noise(0.5, seed=2), Noise(1.0, seed=3, draw=4)]
        expected = []
        for noise in noises:
            with layer.under(noise):
                expected.append([layer(x)[0] for _ in range(3)])
        together = threading.Barrier(len(noises), timeout=60)

        def work(noise):
            got = []
            with layer.under(noise):
                for _ in range(3):
                    together.wait()
                    got.append(layer(x)[0])
                together.wait()
                assert layer.noise == noise
            return got

        with ThreadPoolExecutor(len(noises)) as pool:
            for got, its in zip(pool.map(work, noises), expected, strict=True):
                for mine, wanted in zip(got, its, strict=True):
                    assert torch.equal(mine, wanted)
        assert layer.noise == Noise()

    def test_other_threads_see_what_was_assigned_and_no_block(self):
        layer = NoisyLSTM(3, 4)
        layer.noise = Noise(0.5)
        with layer.under(Noise(1.0)), ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: layer.noise).result() == Noise(0.5)
            pool.submit(lambda: setattr(layer, "noise", Noise(2.0))).result()
            assert layer.noise == Noise(1.0)
        assert layer.noise == Noise(2.0)

    def test_passes_of_several_threads_are_different_draws(self):
        layer, x = NoisyLinear(2, 3), torch.zeros(50, 2)
        layer.noise = Noise(1.0)
        expected = {layer(x).sum().item() for _ in range(40)}
        assert len(expected) == 40
        layer.noise = Noise(1.0)
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda _: layer(x).sum().item(), range(40))) == expected

    def test_calibration_does_not_see_the_passes_of_other_threads(self):
        layer, small, large = NoisyLinear(2, 3), torch.ones(4, 2), 1e6 * torch.ones(4, 2)

        def inputs():
            with ThreadPoolExecutor(1) as pool:
                pool.submit(layer, large).result()
            yield small

        calibrate(layer, inputs())
        assert layer.statistics()["l0"].bound["output"] == 1

    def test_dropout_seeds_hold_in_their_thread(self):
        layer, x = NoisyLSTM(3, 4, 2, dropout=0.5), torch.randn(5, 2, 3)
        with seeded_dropout(layer, DropoutSeed(3)):
            expected = layer(x)[0]
            with ThreadPoolExecutor(1) as pool:
                other = pool.submit(lambda: [layer(x)[0] for _ in range(8)]).result()
            assert torch.equal(layer(x)[0], expected)
        # Eight passes with masks of 10 x 4 units, all alike, have a probability of 2**-280.
        assert not all(torch.equal(one, other[0]) for one in other)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_from_within_a_block_keeps_the_noise_of_the_block(way):
    network, x = Network(), torch.randn(5, 2, 3)
    network.noise = Noise(0.2, seed=9)
    with network.under(Noise(1.0, seed=4)):
        network(x)
        twin = way(network)
        expected = network(x)
    assert torch.equal(twin(x), expected)
    assert twin.noise == Noise(1.0, seed=4)
    assert network.noise == Noise(0.2, seed=9)


def test_data_parallel_replicas_are_refused_under_noise():
    network = Network()
    replica = network._replicate_for_data_parallel()
    x = torch.randn(5, 2, 3)
    assert torch.equal(replica(x), network(x))
    with (
        network.under(Noise(1.0)),
        pytest.raises(
            UserError,
            match=r"^torch\.nn\.DataParallel .* use DistributedDataParallel \(.*\), or switch the noise off$",
        ),
    ):
        network._replicate_for_data_parallel()


def test_only_noise_that_lacks_a_draw_is_counted():
    layer, x = NoisyLinear(2, 3), torch.zeros(5, 2)
    layer.noise = Noise(1.0)
    expected = [layer(x) for _ in range(2)]
    layer.noise = Noise(1.0)
    first = layer(x)
    with layer.under(Noise(1.0, draw=7)):
        assert torch.equal(layer(x), layer(x))
    assert torch.equal(first, expected[0])
    assert torch.equal(layer(x), expected[1])
    layer.noise = Noise(1.0, draw=1)
    assert torch.equal(layer(x), expected[1])


def test_as_many_identities_as_samples():
    layer = NoisyLinear(2, 3)
    for ids in (torch.arange(4), torch.arange(6)):
        with (
            layer.under(Noise(1.0, sample_ids=ids)),
            pytest.raises(ValueError, match=rf"{len(ids)} sample identities for a batch of 5"),
        ):
            layer(torch.zeros(5, 2))


@pytest.mark.parametrize("ids", [None, torch.arange(5)], ids=["positions", "identities"])
def test_shapes_under_noise_can_be_computed_without_numbers(ids):
    """On torch's device ``meta``, as for a summary of a network that is too large to be made."""
    with torch.device("meta"):
        network, x = Network(), torch.empty(5, 5, 3)
    with network.under(Noise(1.0, sites=SITES, sample_ids=ids)):
        output = network(x)
    assert output.shape == (5, 5, 2)
    assert output.device.type == "meta"


def test_the_last_step_has_its_own_noise():
    layer, x = NoisyLinear(2, 3), torch.randn(5, 2, 2)
    last = 2**32 - 1
    with layer.under(Noise(1.0, draw=0, first_step=last - 1)):
        both = layer(x)
    with layer.under(Noise(1.0, draw=0, first_step=last)):
        torch.testing.assert_close(layer(x[:, 1:]), both[:, 1:])
        with pytest.raises((UserError, ValueError), match="steps"):
            layer(x)


@pytest.mark.parametrize(
    ("make", "sites", "recorded"),
    [
        (lambda: NoisyLinear(1, 4), ("output",), [-1.1187, -0.8518, -1.2066, 0.0355]),
        (lambda: NoisyLSTM(1, 3), ("input", "recurrent"), [0.0087, 0.0352, 0.1909]),
        (lambda: NoisyLSTM(1, 3), ("input",), [-0.4090, 0.1059, -0.1503]),
        (lambda: NoisyLSTM(1, 3), ("recurrent",), [0.0281, -0.1293, -0.2512]),
        (lambda: NoisyLSTM(1, 3), ("elementwise",), [-0.5675, 0.8837, 2.7343]),
        (lambda: NoisyLSTM(1, 4, proj_size=3), ("recurrent",), [-0.9334, -0.9966, -0.6194]),
    ],
    ids=["output", "joint", "input", "recurrent", "elementwise", "projection"],
)
def test_numbers_are_those_of_every_version(make, sites, recorded):
    """Changing them changes every recorded result; they are read off layers whose weights are zero."""
    layer = make()
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    noise = Noise(1.0, sites=sites, seed=5, draw=3, sample_ids=torch.tensor([2**40]), first_step=7)
    with layer.under(noise):
        outputs = layer(torch.zeros(1, 1)) if sites == ("output",) else layer(torch.zeros(1, 1, 1))[0]
    torch.testing.assert_close(outputs.detach().flatten(), torch.tensor(recorded), atol=2e-4, rtol=0)
