"""Batch normalisation in the weights of convolutions on hardware: against convolutions that have it in their own."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from asr_dni.errors import UserError
from asr_dni.model import KeywordNetwork, NetworkSettings
from asr_dni.model.convolutions import ConvolutionBlock, ConvolutionSettings
from asr_dni.nn import (
    NoisyConv2d,
    StackableBatchNorm2d,
    SubSpectralNorm2d,
    calibrate,
    snr_db,
    stack_networks,
    unstack_network,
)
from asr_dni.noise import (
    FixedPattern,
    Gaussian,
    GaussianWeights,
    Hardware,
    Multiplicative,
    Realisation,
    UniformConverter,
)

DOUBLE = torch.float64
N, C, OUT, T, B = 5, 2, 4, 7, 6
SITES = ("convolution",)
EXACT_TILES = Hardware(Gaussian(1e-12), tile=5, sites=SITES)

KINDS = {
    "absolute": Hardware(Gaussian(0.5), sites=SITES),
    "range": Hardware(Gaussian(0.1, "range"), sites=SITES),
    "range of each output": Hardware(Gaussian(0.1, "range", per="output"), sites=SITES),
    "signal": Hardware(Gaussian(0.3, "signal"), sites=SITES),
    "signal of each output": Hardware(Gaussian(0.3, "signal", per="output"), sites=SITES),
    "multiplicative": Hardware(Multiplicative(0.3), sites=SITES),
    "columns of a chip": Hardware(FixedPattern(0.2, gain=0.1), sites=SITES),
    "weights": Hardware(Gaussian(0.2), GaussianWeights(0.1), sites=SITES),
    "converters": Hardware(dac=UniformConverter(5), adc=UniformConverter(5, 4.0, "signal"), sites=SITES),
    "all on tiles": Hardware(
        Gaussian(0.2, "signal"), GaussianWeights(0.05), UniformConverter(6), UniformConverter(6), 5, SITES
    ),
}
every_kind = pytest.mark.parametrize("hardware", KINDS.values(), ids=KINDS)
SHAPES = [{"kernel_size": 3, "padding": 1}, {"kernel_size": (3, 1), "stride": (2, 1), "groups": 2}]
WHICH = Realisation(seed=3, chip=1, draw=2)


def make(shape: dict, seed: int = 0, folded: bool = True) -> nn.Sequential:
    """A convolution and its normalisation, as after some training; folded it is the convolution that is called."""
    torch.manual_seed(seed)
    convolution = NoisyConv2d(C, OUT, **shape, bias=False, dtype=DOUBLE)
    normalisation = StackableBatchNorm2d(OUT, dtype=DOUBLE)
    for tensor in (normalisation.weight.data, normalisation.bias.data, normalisation.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(normalisation.running_var, 0.1, 3.0)
    both = nn.Sequential(convolution, normalisation).eval()
    if folded:
        convolution.fold_in(normalisation)
    return both


def images(seed: int = 1) -> Tensor:
    return 1 + torch.randn(N, C, T, B, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def explicit(both: nn.Sequential, batch: Tensor | None) -> NoisyConv2d:
    """The convolution that has the folded weights and bias as its own; of a batch's statistics or the running ones."""
    convolution, normalisation = both
    mean, variance = normalisation.running_mean, normalisation.running_var
    if batch is not None:
        clean = functional.conv2d(
            batch, convolution.weight, None, convolution.stride, convolution.padding, 1, convolution.groups
        )
        mean, variance = clean.mean((0, 2, 3)), clean.var((0, 2, 3), unbiased=False)
    factors = normalisation.weight / (variance + normalisation.eps).sqrt()
    made = NoisyConv2d(
        C,
        OUT,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        groups=convolution.groups,
        dtype=DOUBLE,
    )
    with torch.no_grad():
        made.weight.copy_(convolution.weight * factors[:, None, None, None])
        made.bias.copy_(normalisation.bias - mean * factors)
    return made.eval()


def calibrated_like(layer: NoisyConv2d, twin: NoisyConv2d) -> None:
    """Both have the sizes of the twin's signals, so that in training only weights and bias differ."""
    of_twin = {key: value for key, value in twin.state_dict().items() if "statistics" in key}
    marked = {"signal_statistics.l0.folded": torch.tensor(True)}
    layer.load_state_dict({"weight": layer.weight.detach(), **of_twin, **marked})


@every_kind
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "groups"])
def test_on_hardware_it_is_the_convolution_with_folded_weights(hardware, training, shape):
    both, x = make(shape), images()
    twin = explicit(both, x if training else None)
    calibrate(twin, [x])
    calibrated_like(both[0], twin)
    both.train(training)
    followed = copy.deepcopy(both)
    with both[0].under(hardware, WHICH), torch.no_grad():
        got = both[0](x)
    with twin.under(hardware, WHICH), torch.no_grad():
        expected = twin(x)
    torch.testing.assert_close(got, expected, atol=1e-7, rtol=1e-7)
    followed[0](x)  # digital: torch's batch normalisation
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(both[1], name), getattr(followed[1], name))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("hardware", [KINDS["absolute"], KINDS["range"], EXACT_TILES], ids=str)
def test_gradients_are_those_of_torchs_normalisation(hardware, training):
    """Noise that is added has none itself, and tiles without noise change nothing: through the statistics too."""
    both, x = make(SHAPES[0]).train(training), images().requires_grad_()
    calibrate(both[0], [x.detach()])
    parameters = [x, *both.parameters()]
    with both[0].under(hardware, WHICH):
        y = both[0](x)
    ours = torch.autograd.grad(y.sin().sum(), parameters)
    clean = functional.batch_norm(
        functional.conv2d(x, both[0].weight, padding=1),
        both[1].running_mean.clone(),
        both[1].running_var.clone(),
        both[1].weight,
        both[1].bias,
        training,
    )
    noise = 0 if hardware.tile else (y - clean).detach()
    if training and hardware.tile is None:  # that the statistics above are those of the pass
        assert float(noise.std()) > 0.01
    theirs = torch.autograd.grad((clean + noise).sin().sum(), parameters)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-8, rtol=1e-8)


@every_kind
def test_of_k_networks_each_is_what_it_is_alone(hardware):
    members = [make(SHAPES[1], seed) for seed in range(3)]
    for seed, member in enumerate(members):
        calibrate(member[0], [images(seed)])
    population, x = stack_networks(members), images()
    which = [Realisation(seed=k, chip=k, draw=k) for k in range(3)]
    for training in (True, False):
        population.train(training)
        with population[0].under([hardware] * 3, which):
            together = population[0](x)
        ours = torch.autograd.grad(together.square().sum(), list(population.parameters()))
        for k, member in enumerate(members):
            member.train(training)
            with member[0].under(hardware, which[k]):
                alone = member[0](x)
            torch.testing.assert_close(together[k], alone, atol=1e-8, rtol=1e-8)
            theirs = torch.autograd.grad(alone.square().sum(), list(member.parameters()))
            for mine, its in zip(ours, theirs, strict=True):
                torch.testing.assert_close(mine[k], its, atol=1e-8, rtol=1e-8)
            state = unstack_network(population, k).state_dict()
            for name, value in member.state_dict().items():
                torch.testing.assert_close(state[name], value)


def test_calibration_finds_the_size_of_folded_outputs():
    both, x = make(SHAPES[0]), images()
    twin = explicit(both, None)
    for layer in (both[0], twin):
        calibrate(layer, [x])
    torch.testing.assert_close(
        both[0].statistics()["l0"].as_tensor(), twin.statistics()["l0"].as_tensor(), atol=1e-10, rtol=1e-10
    )
    for hardware in (KINDS["absolute"], KINDS["range"], KINDS["range of each output"], KINDS["signal"]):
        assert snr_db(both[0], hardware) == pytest.approx(snr_db(twin, hardware))


def test_sigma_is_in_standard_deviations_of_what_follows():
    """With scale 1 normalised outputs have variance 1, and noise of sigma 1 doubles it, whatever the raw size is.

    Of 200,000 numbers a variance has a relative deviation of 0.32 %; false alarms 1e-6.
    """
    torch.manual_seed(0)
    settings = ConvolutionSettings([ConvolutionBlock(8, [3, 3])])
    network = KeywordNetwork(NetworkSettings(units=4, layers=1, convolutions=settings), 25, 2).train()
    network.convolutions.blocks[0].weight.data *= 50
    network.convolutions.blocks[2] = nn.Identity()
    x = torch.randn(50, 20, 25)
    with network.under(Hardware(Gaussian(1.0), sites=SITES)):
        frames = network.convolutions(x).detach()
    assert float(frames.var()) == pytest.approx(2.0, rel=4.9 * math.sqrt(2 / frames.numel()))


def test_a_copy_has_its_own_normalisation():
    both, x = make(SHAPES[0]), images()
    before, other = both[0](x), copy.deepcopy(both)
    with torch.no_grad():
        other[1].bias += 1
    assert torch.equal(both[0](x), before)
    torch.testing.assert_close(other[0](x), before + 1)


@pytest.mark.parametrize("hardware", [KINDS["range"], KINDS["all on tiles"]], ids=["range", "tiles"])
def test_activation_checkpointing_has_the_noise_of_the_first_time(hardware):
    results = []
    for again in (False, True):
        both, x = make(SHAPES[0]), images().requires_grad_()
        calibrate(both[0], [x.detach()])
        both.train()
        with both[0].under(hardware, Realisation(seed=3)):
            y = checkpoint(both[0], x, use_reentrant=False) if again else both[0](x)
        y.square().sum().backward()
        results.append((y.detach(), x.grad, both[0].weight.grad, both[1].weight.grad))
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_what_is_programmed_once_follows_the_normalisation():
    both, x = make(SHAPES[0]), images()
    hardware = Hardware(weight=GaussianWeights(0.1), sites=SITES)
    with torch.no_grad(), both[0].under(hardware, WHICH):
        both[0](x)
        both[1].running_var *= 2
        got = both[0](x)
    twin = explicit(both, None)
    with twin.under(hardware, WHICH):
        torch.testing.assert_close(got, twin(x))


def test_the_explicit_convolution_can_be_had():
    both, x = make(SHAPES[0]), images()
    calibrate(both[0], [x])
    made = both[0].folded()
    assert made.normalisation is None
    assert made.bias.shape == (OUT,)
    torch.testing.assert_close(made(x), both[0](x))
    for hardware in KINDS.values():
        with both[0].under(hardware, WHICH), torch.no_grad():
            expected = both[0](x)
        with made.under(hardware, WHICH):
            torch.testing.assert_close(made(x), expected, atol=1e-9, rtol=1e-9)


def test_what_cannot_be_folded_is_refused():
    with pytest.raises(UserError, match="SyncBatchNorm cannot be folded into a convolution: leave"):
        NoisyConv2d(2, 3, 3, bias=False).fold_in(nn.SyncBatchNorm(3))
    with pytest.raises(UserError, match="has a bias beside its normalisation: give bias False"):
        NoisyConv2d(2, 3, 3).fold_in(StackableBatchNorm2d(3))


class TestSubBands:
    """Which have matrices of their own, were they on arrays."""

    def make(self) -> NoisyConv2d:
        torch.manual_seed(0)
        convolution = NoisyConv2d(C, OUT, 3, padding=1, bias=False, dtype=DOUBLE)
        normalisation = SubSpectralNorm2d(OUT, 3, dtype=DOUBLE)
        for tensor in (normalisation.weight.data, normalisation.bias.data, normalisation.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(normalisation.running_var, 0.1, 3.0)
        convolution.eval().fold_in(normalisation.eval())
        return convolution

    @pytest.mark.parametrize("scale", ["absolute", "signal", "range"])
    def test_noise_falls_on_normalised_outputs(self, scale):
        layer, x = self.make(), images()
        calibrate(layer, [x])
        normalisation = layer.normalisation
        raw = functional.conv2d(x, layer.weight, padding=1)
        factors = (normalisation.weight / (normalisation.running_var + 1e-5).sqrt()).view(OUT, 3)
        of_bands = factors.repeat_interleave(B // 3, 1)[:, None]
        largest = (layer.weight.abs().amax((1, 2, 3)) * factors.abs().amax(1)).max() * x.abs().max()
        unit = {"absolute": 1.0, "signal": (raw * of_bands).square().mean().sqrt(), "range": largest}[scale]
        plain = NoisyConv2d(C, OUT, 3, padding=1, bias=False, dtype=DOUBLE)
        plain.load_state_dict({"weight": layer.weight.detach()})
        with plain.under(Hardware(Gaussian(0.5), sites=SITES), WHICH):
            noise = plain(x) - raw
        with layer.under(Hardware(Gaussian(0.5, scale), sites=SITES), WHICH):
            got = layer(x)
        torch.testing.assert_close(got, normalisation(raw) + unit * noise, atol=1e-6, rtol=1e-6)

    def test_other_hardware_is_refused(self):
        layer, x = self.make(), images()
        with layer.under(KINDS["weights"]), pytest.raises(UserError, match="weights on arrays of their own"):
            layer(x)
        with pytest.raises(UserError, match="weights on arrays of their own"):
            layer.folded()


class TestNetwork:
    BLOCKS = (ConvolutionBlock(3, [3, 3], [2, 2]), ConvolutionBlock(4, separable=True))

    def make(self, folded: bool, x: Tensor) -> KeywordNetwork:
        torch.manual_seed(0)
        convolutions = ConvolutionSettings(list(self.BLOCKS), width=5, folded=folded)
        network = KeywordNetwork(NetworkSettings(units=4, layers=1, convolutions=convolutions), 8, 3)
        for _ in range(3):
            network(x)
        return network.eval()

    def test_folding_is_nothing_but_another_place_of_the_noise(self):
        x = torch.randn(6, 10, 8)
        folded, raw = self.make(True, x), self.make(False, x)
        assert folded.state_dict().keys() == raw.state_dict().keys()
        assert torch.equal(folded(x), raw(x))
        hardware = Hardware(Gaussian(0.5), sites=SITES)
        noisy = []
        for network in (folded, raw):
            with network.under(hardware, WHICH):
                noisy.append(network.convolutions(x))
        assert not torch.allclose(*noisy)
        assert str(raw.settings.convolutions) == f"{folded.settings.convolutions}, not folded"

    def test_weights_that_were_calibrated_before_get_the_size_of_folded_outputs(self):
        """And the other way round; of one network and of K."""
        x = torch.randn(6, 10, 8)
        for own, others in ((True, False), (False, True)):
            one, other = self.make(own, x), self.make(others, x)
            for network in (one, other):
                calibrate(network, [x])
            assert ("convolutions.blocks.0.signal_statistics.l0.folded" in one.state_dict()) == own
            expected = one.state_dict()
            loaded = self.make(own, x)
            loaded.load_state_dict(other.state_dict())
            torch.testing.assert_close(loaded.state_dict(), expected)
            population = stack_networks([self.make(own, x)] * 2)
            population.load_state_dict(stack_networks([other] * 2).state_dict())
            torch.testing.assert_close(unstack_network(population, 1).state_dict(), expected)

    def test_weights_without_the_size_of_single_outputs_are_not_calibrated(self):
        """Where the convolutions are digital that matters to nobody."""
        x = torch.randn(6, 10, 8)
        folded, raw = self.make(True, x), self.make(False, x)
        calibrate(raw, [x])
        state = {key: value for key, value in raw.state_dict().items() if not key.endswith(".outputs")}
        folded.load_state_dict(state)
        assert folded.snr_db(Hardware(Gaussian(0.5))) == pytest.approx(raw.snr_db(Hardware(Gaussian(0.5))))
        assert folded.snr_db(Hardware(Gaussian(0.5), sites=SITES)) is None
        with (
            folded.under(Hardware(Gaussian(0.5, "signal"), sites=SITES)),
            pytest.raises(UserError, match="calibrate"),
        ):
            folded(x)
