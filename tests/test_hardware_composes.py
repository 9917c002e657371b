"""Every noise model with every other, converters and arrays, in every layer: one network and K, trained and not."""

import copy
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch

from asr_dni.nn import (
    CELLS,
    NoisyConv2d,
    NoisyLinear,
    NoisyRecurrent,
    calibrate,
    learn_bounds,
    stack_networks,
)
from asr_dni.noise import (
    OUTPUT_MODELS,
    SITES,
    WEIGHT_MODELS,
    Hardware,
    Realisation,
    Strength,
    UniformConverter,
)

STRENGTHS = {"levels": 8, "alpha": 2.0, "sigma": 0.2}
SCALES = ("absolute", "signal", "range")


class Case(NamedTuple):
    """A hardware, and the layer that is on it."""

    output: str | None
    weight: str | None
    layer: str
    dac: bool
    adc: bool
    learned: bool
    tile: int | None
    by_sample: bool
    dtype: torch.dtype


AXES: tuple[tuple[Any, ...], ...] = (
    (None, *OUTPUT_MODELS),
    (None, *WEIGHT_MODELS),
    (*CELLS, "linear", "convolution"),
    (False, True),
    (False, True),
    (False, True),
    (None, 2),
    (False, True),
    (torch.float32, torch.float64),
)


def pairs_of_all() -> Iterator[Case]:
    """Give cases among which every pair of values is: all of the two longest axes, the others turning along."""
    for i, output in enumerate(AXES[0]):
        for j, weight in enumerate(AXES[1]):
            turns = (
                i + j,
                i + j // 2,
                i // 2 + j,
                i // 3 + j // 2,
                i // 4 + j // 3,
                i // 2 + j // 4,
                i // 5 + j // 2,
            )
            values = (axis[turn % len(axis)] for axis, turn in zip(AXES[2:], turns, strict=True))
            yield Case(output, weight, *values)


def model_of(kinds, name, place):
    """Return a model with a strength that acts."""
    if name is None:
        return ()
    kind = kinds[name]
    arguments = {kind.strength: STRENGTHS.get(kind.strength, 0.1)}
    if "scale" in {its.name for its in dataclasses.fields(kind)}:
        arguments["scale"] = SCALES[place % 3]
    if name == "FixedPattern":
        arguments["gain"] = 0.2
    return kind(**arguments)


def hardware_of(case: Case) -> Hardware:
    place = sum(map(ord, f"{case.output}{case.weight}"))
    return Hardware(
        model_of(OUTPUT_MODELS, case.output, place),
        model_of(WEIGHT_MODELS, case.weight, place),
        UniformConverter(8, 0.8, learned=case.learned) if case.dac else None,
        UniformConverter(8, 2.0, "signal", learned=case.learned) if case.adc else None,
        case.tile,
        SITES,
        ("joint", "separate")[place % 2],
    )


def layer_of(case: Case):
    if case.layer == "linear":
        return NoisyLinear(3, 4, dtype=case.dtype), torch.randn(2, 4, 3, dtype=case.dtype)
    if case.layer == "convolution":
        return NoisyConv2d(2, 3, 2, dtype=case.dtype), torch.randn(2, 2, 4, 3, dtype=case.dtype)
    return NoisyRecurrent(case.layer, 3, 4, dtype=case.dtype), torch.randn(2, 2, 3, dtype=case.dtype)


def outputs_of(layer, x):
    y = layer(x)
    return y[0] if isinstance(y, tuple) else y


def check(case: Case) -> None:
    torch.manual_seed(0)
    hardware = hardware_of(case)
    one, x = layer_of(case)
    calibrate(one, [x])
    learn_bounds(one, hardware)
    other = copy.deepcopy(one)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    both = stack_networks([one, other])
    shares = None
    if case.by_sample and getattr(OUTPUT_MODELS.get(case.output or ""), "by_sample", False):
        shares = torch.tensor([0.3, 1.0])
    which = [Realisation(k, chip=k, draw=k, shares=shares, shares_of=Strength()) for k in range(2)]
    of_all = x if case.layer != "linear" else x.expand(2, *x.shape)
    with both.under(hardware, which):
        together = outputs_of(both, of_all)
        together.square().sum().backward()
    assert together.isfinite().all()
    with one.under(hardware, which[0]):  # in training
        alone = outputs_of(one, x)
        alone.square().sum().backward()
    torch.testing.assert_close(together[0], alone, rtol=1e-4, atol=1e-5)
    for name, parameter in one.named_parameters():
        of_both = both.get_parameter(name).grad
        assert of_both.isfinite().all(), name
        torch.testing.assert_close(of_both[0], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)
    with torch.no_grad():
        with other.under(hardware, which[1]):  # at inference
            alone = outputs_of(other, x)
        torch.testing.assert_close(together[1], alone, rtol=1e-4, atol=1e-5)
        if hardware.on and alone.any():
            assert not torch.equal(alone, outputs_of(other, x)), "this hardware changes nothing"


def test_cases_have_every_pair_of_values():
    cases = list(pairs_of_all())
    for a, b in itertools.combinations(range(len(AXES)), 2):
        found = {(case[a], case[b]) for case in cases}
        assert found == set(itertools.product(AXES[a], AXES[b])), Case._fields[a] + " " + Case._fields[b]


@pytest.mark.parametrize("output", AXES[0])
def test_every_pair_of_models_goes_together(output):
    for case in pairs_of_all():
        if case.output == output:
            check(case)


@pytest.mark.slow
@pytest.mark.parametrize("layer", AXES[2])
@pytest.mark.parametrize("output", AXES[0])
def test_everything_goes_together(output, layer):
    for weight, dac, adc, learned, tile in itertools.product(*(AXES[k] for k in (1, 3, 4, 5, 6))):
        if learned <= (dac or adc):
            check(Case(output, weight, layer, dac, adc, learned, tile, bool(dac), torch.float64))
