"""What hardware is: a value, from settings and back, with strengths that can be named."""

import pickle

import numpy as np
import pytest
import torch
import yaml

import asr_dni
from asr_dni.errors import UserError
from asr_dni.hardware_files import hardware_names, read_hardware
from asr_dni.nn import NoisyLinear, NoisyLSTM, compensate, stack_networks
from asr_dni.noise import (
    PCM,
    SITES,
    FixedPattern,
    Flicker,
    Gaussian,
    GaussianWeights,
    Hardware,
    Laplace,
    Multiplicative,
    Noise,
    QuantisedWeights,
    Realisation,
    Strength,
    UniformConverter,
)

WHOLE = Hardware(
    output=(Gaussian(0.5, "signal"), Multiplicative(0.1)),
    weight=GaussianWeights(0.03, per="output"),
    dac=UniformConverter(8),
    adc=UniformConverter(6, 4.0, "signal"),
    tile=256,
    sites=SITES,
    arrays="separate",
)


class TestValue:
    def test_settings_are_plain_and_give_it_back(self):
        assert Hardware.from_settings(yaml.safe_load(yaml.safe_dump(WHOLE.as_settings()))) == WHOLE

    def test_identity_tells_it_from_others(self):
        others = [
            WHOLE.at(0.4),
            WHOLE.at(7, Strength("adc.bits")),
            WHOLE.at(128, Strength("tile")),
            Hardware(),
        ]
        assert len({WHOLE.identity, *(its.identity for its in others)}) == 5
        again = Hardware.from_settings(WHOLE.as_settings())
        assert again.identity == WHOLE.identity
        assert hash(again) == hash(WHOLE)
        assert pickle.loads(pickle.dumps(WHOLE)) == WHOLE

    def test_a_noise_is_short_for_the_gaussian_one(self):
        noise = Noise(0.5, scale="signal", sites=("input",), seed=3, draw=1)
        assert noise == Noise.of(
            Hardware(output=Gaussian(0.5, "signal"), sites=("input",)), Realisation(seed=3, draw=1)
        )

    @pytest.mark.parametrize(
        ("hardware", "on", "random", "has_chips", "inputs_exact"),
        [
            (Hardware(), False, False, False, True),
            (Hardware(output=Gaussian(0.0), weight=GaussianWeights(0.0)), False, False, False, True),
            (Hardware(output=Gaussian(1.0)), True, True, False, True),
            (Hardware(output=Gaussian(1.0), sites=()), False, False, False, True),
            (Hardware(output=Multiplicative(1.0)), True, True, False, False),
            (Hardware(output=Multiplicative(1.0), sites=("recurrent",)), True, True, False, True),
            (Hardware(weight=GaussianWeights(0.1)), True, False, True, False),
            (Hardware(dac=UniformConverter()), True, False, False, False),
            (Hardware(output=Flicker(1.0)), True, True, False, True),
            (Hardware(output=FixedPattern(1.0)), True, False, True, False),
            (Hardware(weight=QuantisedWeights()), True, False, False, False),
            (Hardware(weight=(QuantisedWeights(), PCM(sigma=0.0))), True, False, False, False),
            (Hardware(weight=PCM(sigma=0.0, stuck_at_zero=0.1)), True, False, True, False),
            (Hardware(adc=UniformConverter(), sites=("output",)), True, False, False, True),
            (Hardware(output=Gaussian(1.0), tile=8), True, True, False, False),
        ],
    )
    def test_what_it_changes(self, hardware, on, random, has_chips, inputs_exact):
        assert (hardware.on, hardware.random, hardware.has_chips, hardware.inputs_exact) == (
            on,
            random,
            has_chips,
            inputs_exact,
        )

    def test_every_strength_is_found_and_replaced(self):
        paths = WHOLE.strengths()
        assert paths == [
            "output.0.sigma",
            "output.1.sigma",
            "weight.sigma",
            "dac.bits",
            "dac.bound",
            "adc.bits",
            "adc.bound",
            "tile",
        ]
        for path in paths:
            changed = WHOLE.at(5, Strength(path))
            assert changed.value(Strength(path)) == 5
            assert [changed.value(Strength(its)) == WHOLE.value(Strength(its)) for its in paths].count(
                False
            ) == 1

    def test_a_path_without_a_place_is_the_first_that_has_it(self):
        assert WHOLE.value(Strength("output.sigma")) == 0.5

    @pytest.mark.parametrize("path", ["output.bits", "weight.0.sigma.sigma", "drift.time", "sigma", "tile.x"])
    def test_strengths_that_there_are_not(self, path):
        with pytest.raises(UserError, match=r"is not one of this hardware's: output.0.sigma, .*, tile$"):
            WHOLE.value(Strength(path))
        assert not WHOLE.has(Strength(path))

    def test_a_value_out_of_range_names_the_strength(self):
        with pytest.raises(UserError, match=r"adc.bits: a converter's bits are 4.5: give a whole number"):
            WHOLE.at(4.5, Strength("adc.bits"))
        assert WHOLE.at(4.0, Strength("adc.bits")).adc == UniformConverter(4, 4.0, "signal")
        with pytest.raises(UserError, match=r"a converter's bound is -1: give a finite number of at least 0"):
            UniformConverter(bound=-1)


class TestSettings:
    def test_numbers_alone_are_a_gaussian_and_uniform_converters(self):
        given = {"output": {"sigma": 1}, "dac": {"bits": 4}, "adc": {"bits": 5, "bound": 2.0}}
        assert Hardware.from_settings(given) == Hardware(
            output=Gaussian(1), dac=UniformConverter(4), adc=UniformConverter(5, 2.0)
        )

    def test_a_model_is_named_shortly_in_full_or_alone(self):
        for given in ("Multiplicative", {"class_path": "asr_dni.noise.output.Multiplicative"}):
            assert Hardware.from_settings({"output": [given]}) == Hardware(output=Multiplicative())

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ([], r"^hardware is \[\]: give a mapping"),
            ({"outputs": []}, r"^hardware has no 'outputs': give some of output, weight, dac"),
            ({"output": 3}, r"^hardware.output is 3: give class_path and init_args$"),
            (
                {"output": "Gausian"},
                r"^hardware.output is 'Gausian': give one of Gaussian, Multiplicative",
            ),
            ({"output": "os.system"}, r"'os.system': give one of Gaussian"),
            ({"weight": [{"sigma": 1}]}, r"^hardware.weight.0 has no class_path: give one of"),
            (
                {"output": [{"class_path": "Gaussian", "args": {}}]},
                r"has 'args': give class_path and init_args",
            ),
            ({"output": {"class_path": "Gaussian", "init_args": [1]}}, r"init_args is \[1\]: give a mapping"),
            ({"output": {"sgma": 1}}, r"Gaussian has no 'sgma': give some of sigma, scale, per$"),
            ({"output": {"sigma": -1}}, r"^hardware.output: noise sigma is -1: give a finite number"),
            ({"output": {"sigma": "1"}}, r"noise sigma is 1: give a finite"),
            ({"output": {"sigma": float("nan")}}, r"sigma is nan"),
            ({"output": {"scale": "db"}}, r"scale is 'db': give one of absolute, signal, range"),
            ({"weight": {"class_path": "GaussianWeights", "init_args": {"per": "row"}}}, "per 'row'"),
            ({"adc": {"bits": 1}}, r"bits are 1: give a whole number from 2 to 24"),
            ({"adc": {"bits": True}}, r"bits are True"),
            ({"adc": {"bound": 0}}, r"bound is 0: give a number above 0"),
            ({"dac": {"scale": "signal"}}, r"dac has scale 'signal': give absolute or range"),
            ({"tile": 0}, r"tile is 0: give a whole number of columns"),
            ({"tile": 2.5}, r"tile is 2.5"),
            ({"sites": ["cell"]}, r"site 'cell' is not known"),
            ({"arrays": "both"}, r"arrays is 'both'"),
        ],
    )
    def test_mistakes_are_one_line(self, settings, message):
        with pytest.raises(UserError, match=message) as raised:
            Hardware.from_settings(settings)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("name", hardware_names())
    def test_every_hardware_that_comes_with_the_project(self, name):
        assert read_hardware(name).on

    def test_a_file_of_ones_own(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("layers: [hardware/gaussian]\nadc: {bits: 5, bound: 10, scale: absolute}\n")
        assert read_hardware(str(path)) == Hardware(
            output=Gaussian(1.0), adc=UniformConverter(5, 10, "absolute")
        )

    def test_a_name_that_there_is_not(self):
        with pytest.raises(UserError, match="no such configuration file, and none of that name"):
            read_hardware("gausian_weights_of_mine")


class TestOfAPopulation:
    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (
                Hardware(output=Multiplicative(0.5)),
                r"output models is \['Gaussian'\] .* \['Multiplicative'\]",
            ),
            (Hardware(output=Gaussian(0.5, "range")), "output scale is 'absolute'"),
            (Hardware(output=Gaussian(0.5), dac=UniformConverter()), r"dac models is \[\]"),
            (Hardware(output=Gaussian(0.5), tile=3), "tile is None"),
        ],
    )
    def test_structure_is_common(self, other, message):
        population = stack_networks([NoisyLinear(3, 2)] * 2)
        with (
            pytest.raises(UserError, match=message),
            population.under([Hardware(output=Gaussian(0.5)), other]),
        ):
            pass

    def test_it_is_assigned_as_a_noise_is(self):
        layer, x = NoisyLinear(5, 3), torch.randn(2, 7, 5)
        layer.noise = Hardware(output=Gaussian(0.5))
        with torch.no_grad():
            assigned = layer(x)
            with layer.under(Noise(0.5)):
                torch.testing.assert_close(assigned, layer(x), rtol=0, atol=0)
        with pytest.raises(UserError, match=r"noise is 0.5: give a Noise or a Hardware"):
            layer.noise = 0.5

    def test_hardware_and_realisations_are_given_once_or_each(self):
        population, x = stack_networks([NoisyLSTM(3, 2)] * 2), torch.randn(4, 5, 3)
        hardware = [Hardware(output=Gaussian(sigma)) for sigma in (0.5, 1.0)]
        realisations = [Realisation(seed=k, draw=0) for k in range(2)]
        with population.under(hardware, realisations):
            expected = population(x)[0]
            assert population.noise == tuple(map(Noise.of, hardware, realisations))
        for k in range(2):
            with population.under(hardware[k], realisations):
                assert torch.equal(population(x)[0][k], expected[k])
            with population.under(hardware, realisations[k]):
                assert torch.equal(population(x)[0][k], expected[k])
        with (
            pytest.raises(UserError, match="2 hardwares and 3 realisations"),
            population.under(hardware, [*realisations, Realisation()]),
        ):
            pass
        with (
            pytest.raises(UserError, match="a Noise has one"),
            population.under([Noise(), Noise()], Realisation()),
        ):
            pass


class TestWhatIsGivenInPython:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Hardware(output=3), "hardware output is 3: give a model"),
            (lambda: Hardware(weight=GaussianWeights), "hardware weight is .*: give a model"),
            (lambda: Hardware(adc=UniformConverter(bits=float("inf"))), "bits are inf"),
            (lambda: Realisation(chip=1.5), "chip is 1.5: give a whole number"),
            (lambda: Realisation(chip=None), "chip is None"),
            (lambda: Realisation(draw=1.5), "draw is 1.5"),
            (lambda: Realisation(seed="a"), "seed is 'a'"),
            (lambda: NoisyLinear(2, 2).under(0.5).__enter__(), "noise is 0.5: give a Noise or a Hardware"),
        ],
    )
    def test_mistakes_are_named(self, make, message):
        with pytest.raises(UserError, match=message):
            make()

    def test_a_site_alone(self):
        assert Hardware(Gaussian(1.0), sites="input").sites == ("input",)

    def test_a_strength_that_counts_takes_whole_numbers_as_curves_have_them(self):
        assert WHOLE.at(64.0, Strength("tile")).tile == 64
        with pytest.raises(UserError, match=r"tile is 64\.5"):
            WHOLE.at(64.5, Strength("tile"))
        assert [
            WHOLE.counts(Strength(path)) for path in ("tile", "adc.bits", "adc.bound", "output.sigma")
        ] == [
            True,
            True,
            False,
            False,
        ]
        assert not Hardware(Gaussian(1)).counts(Strength())  # whatever number it is given with


def test_what_is_no_noise_is_refused_in_words_wherever_one_is_given():
    spotter = asr_dni.load("eight_words_dni")
    clip = np.zeros(16000)
    for given in (1.0, "0.5"):
        for call in (
            lambda its=given: spotter.predict(clip, 16000, noise=its),
            lambda its=given: compensate(spotter.network, its),
        ):
            with pytest.raises(UserError, match="give a Noise or a Hardware"):
                call()
    hardware = Hardware(output=Laplace(1.0))
    by_noise = spotter.predict(clip, 16000, noise=Noise.of(hardware), name="a")
    assert spotter.predict(clip, 16000, noise=hardware, name="a") == by_noise
