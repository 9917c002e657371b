"""Every noise model that is registered, held to what it declares."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from asr_dni.nn import NoisyLinear, NoisyLSTM, calibrate, stack_networks
from asr_dni.noise import (
    CONVERTERS,
    OUTPUT_MODELS,
    WEIGHT_MODELS,
    Converter,
    Flicker,
    Hardware,
    OutputModel,
    Realisation,
    WeightModel,
)

DOUBLE = torch.float64
ROWS, FEATURES, OUTPUTS = 200, 7, 300

BESIDE = {"FixedPattern": {"gain": 0.2}}
OF_OUTPUTS: list[OutputModel] = [
    kind(**{kind.strength: 0.3}, **BESIDE.get(kind.__name__, {}), **scale)
    for kind in OUTPUT_MODELS.values()
    for scale in (
        [{"scale": scale} for scale in ("absolute", "signal", "range")]
        if "scale" in {field.name for field in dataclasses.fields(kind)}
        else [{}]
    )
]
STRENGTHS = {"levels": 4, "alpha": 1.0}
OF_WEIGHTS: list[WeightModel] = [
    kind(**{kind.strength: STRENGTHS.get(kind.strength, 0.1)}) for kind in WEIGHT_MODELS.values()
]
OF_CONVERTERS: list[Converter] = [kind() for kind in CONVERTERS.values()]

# Those that follow the inputs have tests of their own.
every_output_model = pytest.mark.parametrize(
    "model", [model for model in OF_OUTPUTS if not model.of_arrays], ids=str
)
every_fresh_model = pytest.mark.parametrize(
    "model", [model for model in OF_OUTPUTS if not model.of_chip and model.drawn], ids=str
)
every_weight_model = pytest.mark.parametrize("model", OF_WEIGHTS, ids=str)
every_model = pytest.mark.parametrize("model", [*OF_OUTPUTS, *OF_WEIGHTS, *OF_CONVERTERS], ids=str)


@pytest.fixture(scope="module")
def layer() -> NoisyLinear:
    torch.manual_seed(0)
    layer = NoisyLinear(FEATURES, OUTPUTS, bias=False, dtype=DOUBLE)
    calibrate(layer, [inputs()])
    return layer


def inputs(seed: int = 0) -> Tensor:
    return torch.randn(ROWS, FEATURES, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def errors(layer: NoisyLinear, hardware: Hardware, x: Tensor, **realisation: int) -> Tensor:
    with torch.no_grad():
        clean = layer(x)
        with layer.under(hardware, Realisation(**realisation)):
            return layer(x) - clean


@every_model
def test_settings_give_it_back(model):
    places = {OutputModel: "output", WeightModel: "weight", Converter: "adc"}
    place = next(place for kind, place in places.items() if isinstance(model, kind))
    hardware = Hardware(**{place: model})
    assert Hardware.from_settings(hardware.as_settings()) == hardware
    assert f"{place}.{model.strength}" in hardware.strengths()


@every_output_model
def test_outputs_have_the_variance_that_is_declared(model, layer):
    """60,000 errors, or those of 300 columns; alarms 1e-6 each.

    The mean square of what has a kurtosis of 9 has a relative deviation of 1.2 %; of impulses one of 4.1 %.
    """
    deviation = {"Impulse": 0.041, "FixedPattern": math.sqrt(8 / OUTPUTS)}.get(type(model).__name__, 0.012)
    independent = OUTPUTS if model.of_chip else ROWS * OUTPUTS
    statistics, x = layer.statistics()["l0"], inputs()
    rms, bound = statistics.rms["output"], statistics.bound["output"]
    units = {"signal": rms, "range": bound * float(layer.weight.detach().abs().max())}
    declared = model.variance(rms**2, units.get(getattr(model, "scale", ""), 1.0))
    found = errors(layer, Hardware(output=model), x, seed=1, draw=0)
    assert float(found.square().mean()) == pytest.approx(declared, rel=4.9 * deviation)
    assert abs(float(found.mean())) < 4.9 * math.sqrt(declared / independent)
    ((*_, signal, power),) = layer.signal_and_noise_power(Hardware(output=model))
    assert (signal, power) == pytest.approx((rms**2, declared))


@every_fresh_model
def test_outputs_are_fresh_for_every_draw_sample_step_and_seed(model, layer):
    """Correlations of 60,000 pairs: standard deviation 0.41 %, twice that for heavy tails; alarms 1e-6 each."""

    def correlation(one: Tensor, other: Tensor) -> float:
        return float((one * other).mean() / (one.square().mean() * other.square().mean()).sqrt())

    hardware, x = Hardware(output=model), inputs()[:1].expand(ROWS, FEATURES)
    found = errors(layer, hardware, x, seed=1, draw=0)
    assert torch.equal(errors(layer, hardware, x, seed=1, draw=0), found)
    others = [
        errors(layer, hardware, x, seed=1, draw=1),
        errors(layer, hardware, x, seed=2, draw=0),
        errors(layer, hardware, x, seed=1, draw=0, first_step=1000 if isinstance(model, Flicker) else 1),
        found.roll(1, 0),
        found.roll(1, 1),
    ]
    for other in others:
        assert abs(correlation(found, other)) < 4.9 * 0.0082


@every_output_model
def test_what_is_declared_additive_does_not_depend_on_the_product(model, layer):
    hardware = Hardware(output=model)
    one, other = (errors(layer, hardware, inputs(seed), draw=0) for seed in (0, 1))
    assert torch.allclose(one, other, atol=1e-9) is model.additive
    assert hardware.inputs_exact is model.additive


@pytest.mark.parametrize(
    "kind", [*OUTPUT_MODELS.values(), *WEIGHT_MODELS.values()], ids=lambda kind: kind.__name__
)
def test_of_strength_0_it_is_exact(kind, layer):
    model, x = kind(**{kind.strength: 0}), inputs()
    hardware = Hardware(**{"output" if issubclass(kind, OutputModel) else "weight": model})
    assert model.neutral
    assert not hardware.on
    assert not errors(layer, hardware, x).any()


@pytest.mark.parametrize("model", [model for model in OF_OUTPUTS if model.of_chip], ids=str)
def test_outputs_of_a_chip_are_the_same_in_all_its_passes(model, layer):
    hardware, x = Hardware(output=model), inputs()[:1].expand(ROWS, FEATURES)
    assert hardware.has_chips
    assert not hardware.random
    first = errors(layer, hardware, x, chip=1)
    assert float(first[0].abs().mean()) > 0
    assert torch.equal(first, first[:1].expand_as(first))
    assert torch.equal(errors(layer, hardware, x, chip=1, draw=7, first_step=9), first)
    for other in ({"chip": 2}, {"chip": 1, "seed": 3}):
        pairs = torch.stack((first[0], errors(layer, hardware, x, **other)[0]))
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 4.9 / math.sqrt(OUTPUTS)  # alarms 1e-6


@every_weight_model
def test_weights_are_as_the_chip_is(model, layer):
    eye, hardware = torch.eye(FEATURES, dtype=DOUBLE), Hardware(weight=model)
    assert hardware.on
    assert hardware.has_chips is model.random
    first = errors(layer, hardware, eye, chip=1)
    assert float(first.abs().mean()) > 0
    torch.testing.assert_close(errors(layer, hardware, eye, chip=1, draw=7), first, atol=1e-12, rtol=0)
    for other in ({"chip": 2}, {"chip": 1, "seed": 3}):
        assert torch.allclose(errors(layer, hardware, eye, **other), first) is not model.random


@every_weight_model
def test_weights_are_a_differentiable_function_of_the_parameters(model):
    torch.manual_seed(0)
    layer, x = NoisyLSTM(3, 4, dtype=DOUBLE), torch.randn(5, 2, 3, dtype=DOUBLE)
    with layer.under(Hardware(weight=model)):
        layer(x)[0].sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


@pytest.mark.parametrize("model", OF_CONVERTERS, ids=str)
def test_a_converter_rounds_to_its_step_within_its_bound(model):
    operation = model.operation()
    assert 0 < operation.step < operation.bound
    assert operation.bound / operation.step == pytest.approx(round(operation.bound / operation.step))


@every_weight_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_keep_their_dtype_and_the_gradient_is_that_of_the_noisy_product(model, dtype):
    """What a model does to a weight is a constant to the gradient, which is that of a product with the noisy one."""
    torch.manual_seed(0)
    layer, x = NoisyLinear(FEATURES, OUTPUTS, bias=False, dtype=dtype), torch.randn(3, FEATURES, dtype=dtype)
    with layer.under(Hardware(weight=model)):
        y = layer(x)
        y.float().sum().backward()
    assert y.dtype == dtype
    assert y.isfinite().all()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(OUTPUTS, FEATURES), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("place", ["weight", "output"])
def test_chips_of_one_network_are_a_population_on_every_model(place):
    torch.manual_seed(0)
    layer, x = NoisyLSTM(3, 4), torch.randn(5, 2, 3)
    calibrate(layer, [x])
    chips = stack_networks([layer] * 2)
    for model in OF_WEIGHTS if place == "weight" else OF_OUTPUTS:
        hardware = Hardware(**{place: model})
        realisations = [Realisation(chip=chip, draw=0) for chip in (0, 3)]
        with chips.under(hardware, realisations):
            together = chips(x)[0]
        for realisation, its in zip(realisations, together, strict=True):
            with layer.under(hardware, realisation):
                torch.testing.assert_close(its, layer(x)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("model", [*OF_OUTPUTS, *OF_WEIGHTS], ids=str)
def test_all_weights_zero_are_no_trouble(model):
    layer = NoisyLinear(3, 4)
    with torch.no_grad():
        layer.weight.zero_()
    calibrate(layer, [torch.ones(2, 3)])
    with layer.under(Hardware(**{"output" if isinstance(model, OutputModel) else "weight": model})):
        assert layer(torch.ones(2, 3)).isfinite().all()
