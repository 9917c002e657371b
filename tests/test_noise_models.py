"""Every noise model that is registered, held to what it declares."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from asr_dni.nn import NoisyLinear, NoisyLSTM, calibrate
from asr_dni.noise import (
    CONVERTERS,
    OUTPUT_MODELS,
    WEIGHT_MODELS,
    Converter,
    Hardware,
    OutputModel,
    Realisation,
    WeightModel,
)

DOUBLE = torch.float64
ROWS, FEATURES, OUTPUTS = 200, 7, 300

OF_OUTPUTS: list[OutputModel] = [
    kind(**{kind.strength: 0.3})
    if "scale" not in {field.name for field in dataclasses.fields(kind)}
    else kind(**{kind.strength: 0.3, "scale": scale})
    for kind in OUTPUT_MODELS.values()
    for scale in (
        ("absolute", "signal", "range")
        if "scale" in {field.name for field in dataclasses.fields(kind)}
        else ("",)
    )
]
OF_WEIGHTS: list[WeightModel] = [kind(**{kind.strength: 0.1}) for kind in WEIGHT_MODELS.values()]
OF_CONVERTERS: list[Converter] = [kind() for kind in CONVERTERS.values()]

every_output_model = pytest.mark.parametrize("model", OF_OUTPUTS, ids=str)
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
    place = {OutputModel: "output", WeightModel: "weight", Converter: "adc"}[type(model).__mro__[1]]
    hardware = Hardware(**{place: model})
    assert Hardware.from_settings(hardware.as_settings()) == hardware
    assert f"{place}.{model.strength}" in hardware.strengths()


@every_output_model
def test_outputs_have_the_variance_that_is_declared(model, layer):
    """60,000 errors. The mean square of what has a kurtosis of 9 has a relative deviation of 1.2 %; alarms 1e-6."""
    statistics, x = layer.statistics()["l0"], inputs()
    rms, bound = statistics.rms["output"], statistics.bound["output"]
    units = {"signal": rms, "range": bound * float(layer.weight.detach().abs().max())}
    declared = model.variance(rms**2, units.get(getattr(model, "scale", ""), 1.0))
    found = errors(layer, Hardware(output=model), x, seed=1, draw=0)
    assert float(found.square().mean()) == pytest.approx(declared, rel=4.9 * 0.012)
    assert abs(float(found.mean())) < 4.9 * math.sqrt(declared / found.numel())
    ((*_, signal, power),) = layer.signal_and_noise_power(Hardware(output=model))
    assert (signal, power) == pytest.approx((rms**2, declared))


@every_output_model
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
        errors(layer, hardware, x, seed=1, draw=0, first_step=1),
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


@every_weight_model
def test_weights_are_drawn_once_per_chip(model, layer):
    eye, hardware = torch.eye(FEATURES, dtype=DOUBLE), Hardware(weight=model)
    assert hardware.has_chips
    first = errors(layer, hardware, eye, chip=1)
    assert float(first.abs().mean()) > 0
    torch.testing.assert_close(errors(layer, hardware, eye, chip=1, draw=7), first, atol=1e-12, rtol=0)
    for other in ({"chip": 2}, {"chip": 1, "seed": 3}):
        assert not torch.allclose(errors(layer, hardware, eye, **other), first)


@every_weight_model
def test_weights_are_a_differentiable_function_of_the_parameters(model):
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
