"""Hardware in the words of IBM/aihwkit-lightning and IBM/aihwkit: the settings of one matrix there.

Both measure an output bound and output noise in multiples of the largest weight times the input range, which is where
their inputs are clipped: here the bound of the DAC. What has no equivalent is refused, all of it in one message.
"""

import importlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, fields
from typing import Any

from asr_dni.errors import UserError
from asr_dni.noise import (
    PCM,
    ClippedWeights,
    Converter,
    Gaussian,
    GaussianOfRange,
    GaussianWeights,
    Hardware,
    Hermes,
    OutputModel,
    QuantisedWeights,
    ReRAMCMO,
    ReRAMWan2022,
    Site,
    StateIndependent,
    UniformConverter,
    WeightModel,
)


@dataclass(frozen=True)
class Matrix:
    """What the settings of a matrix follow from.

    Attributes:
        name: of the layer, for messages.
        site: of its product.
        columns: of the matrix.
        largest_input: that calibration has found; ``None``: it is not known.
        joint: whether the hardware has it on one array with another matrix, which both toolkits do not.
        learned: what its converters' learned bounds are in multiples of the given ones, by ``dac`` and ``adc``.
    """

    name: str
    site: Site
    columns: int
    largest_input: float | None
    joint: bool = False
    learned: Mapping[str, float] = field(default_factory=dict)

    def bound(self, converter: UniformConverter, place: str) -> float:
        """Return a converter's bound, in units of its scale."""
        return converter.bound * (self.learned.get(place, 1.0) if converter.learned else 1.0)


def imported(module: str) -> Any:
    """Return a module of a toolkit.

    Raises:
        UserError: it cannot be imported.
    """
    package = module.partition(".")[0]
    try:
        with redirect_stdout(io.StringIO()):  # aihwkit-lightning prints which of its parts it lacks
            return importlib.import_module(module)
    except ImportError as error:
        install = package.replace("_", "-")
        raise UserError(f"{install} cannot be imported ({error}): pip install {install}") from error


class Unmatched(list[str]):
    """What of a hardware has no equivalent."""

    def add(self, model: object, why: str = "") -> None:
        """Note a model, or a setting in words."""
        what = model if isinstance(model, str) else type(model).__name__
        self.append(f"{what}{f' ({why})' if why else ''}")


def _levels(bits: int) -> int:
    """Return the resolution of a converter: how many steps there are from -bound to bound."""
    return (1 << bits) - 2


@dataclass(frozen=True)
class _Periphery:
    """Converters and output noise of a matrix, in multiples of the largest weight times the input range.

    Attributes:
        input_range: where inputs are clipped; ``None``: nowhere.
        learns: whether a training goes on to learn that.
        input_levels: of the DAC.
        output_bound: of the ADC; 0: there is none.
        output_levels: of the ADC.
        noise: on outputs.
        noise_per_output: whether its largest weight is that of each output.
    """

    input_range: float | None = None
    learns: bool = False
    input_levels: int = 0
    output_bound: float = 0.0
    output_levels: int = 0
    noise: float = 0.0
    noise_per_output: bool = False


def _periphery(hardware: Hardware, matrix: Matrix, left: Unmatched) -> _Periphery:
    """Return what is around a matrix, and note what of it has no equivalent."""
    outputs = [model for model in hardware.output if not model.neutral]
    dac, adc = (_uniform(its, left) for its in (hardware.dac, hardware.adc))
    if matrix.joint and (outputs or hardware.dac or hardware.adc):
        left.add("arrays joint", "W_ih and W_hh have an array each there: give arrays separate")
    if dac is None:
        if outputs or adc is not None:
            left.add("no dac", "noise and bound of outputs follow its bound there")
        return _Periphery()
    largest = matrix.largest_input
    needs_largest = dac.scale == "range" or adc is not None or bool(outputs)
    if largest is None and needs_largest:
        raise UserError(f"{matrix.name or 'the layer'} is not calibrated: its largest input is not known")
    largest = largest or 1.0
    input_range = matrix.bound(dac, "dac") * (largest if dac.scale == "range" else 1.0)
    bound, levels = 0.0, 0
    if adc is not None:
        if adc.scale != "range":
            left.add("adc", f"its scale is {adc.scale}: give range")
        bound, levels = matrix.bound(adc, "adc") * largest / input_range, _levels(adc.bits)
    noise, per_output = _noise(outputs, left)
    share = largest / input_range
    return _Periphery(input_range, dac.learned, _levels(dac.bits), bound, levels, noise * share, per_output)


def _uniform(converter: Converter | None, left: Unmatched) -> UniformConverter | None:
    if converter is None or isinstance(converter, UniformConverter):
        return converter
    left.add(converter)
    return None


def _noise(outputs: list[OutputModel], left: Unmatched) -> tuple[float, bool]:
    """Return the deviation of the noise on outputs, and whether the largest weight is that of each output."""
    for model in outputs[1:]:
        left.add(model, "a second model of outputs")
    for model in outputs[:1]:
        if isinstance(model, GaussianOfRange):
            return model.sigma, model.per == "output"
        if isinstance(model, Gaussian) and model.scale == "range":
            return model.sigma, model.per == "output"
        left.add(model, "" if not isinstance(model, Gaussian) else f"its scale is {model.scale}: give range")
    return 0.0, False


def _check_tile(hardware: Hardware, matrix: Matrix, of_tiles: bool, left: Unmatched) -> None:
    """Note arrays that are others there."""
    tile = hardware.tile
    if tile is None or matrix.columns <= tile:
        return
    if not of_tiles:
        left.add(f"tile {tile}", f"{matrix.columns} columns are on one array there")
    elif matrix.columns % tile:
        left.add(f"tile {tile}", f"{matrix.columns} columns are shared out evenly there: give a divisor")
    if hardware.adc is not None or any(isinstance(its, Gaussian) for its in hardware.output):
        left.add(f"tile {tile}", "the range of an array's outputs follows its own weights there")


def _checked(toolkit: str, matrix: Matrix, left: Unmatched) -> None:
    if left:
        raise UserError(f"{matrix.name or 'the layer'}: {toolkit} has no equivalent of {', '.join(left)}")


_ORDER: tuple[type[WeightModel], ...] = (ClippedWeights, QuantisedWeights, GaussianWeights)
"""That in which aihwkit-lightning applies them."""


def _in_order(weight: tuple[WeightModel, ...], left: Unmatched) -> Iterator[WeightModel]:
    """Give the weight models that aihwkit-lightning has, in its order."""
    place = -1
    for model in weight:
        its = next((k for k, kind in enumerate(_ORDER) if isinstance(model, kind)), None)
        if model.neutral:
            continue
        if its is None:
            left.add(model)
        elif its <= place:
            left.add(model, "in this order")
        else:
            place = its
            yield model


def lightning_settings(hardware: Hardware | None, matrix: Matrix) -> Any:
    """Return a ``TorchInferenceRPUConfig`` of aihwkit-lightning.

    Noise on outputs and weights is there in training only, and weights are clipped when its optimiser says so.

    Raises:
        UserError: it has no equivalent, or what it needs is not known.
    """
    configs = imported("aihwkit_lightning.simulator.configs")
    kinds = imported("aihwkit_lightning.simulator.parameters")
    config = configs.TorchInferenceRPUConfig()
    if hardware is None or not hardware.on_at(matrix.site):
        return config
    left = Unmatched()
    around = _periphery(hardware, matrix, left)
    _check_tile(hardware, matrix, True, left)
    tiles = 1
    if hardware.tile is not None:
        config.mapping.max_input_size = hardware.tile
        tiles = -(-matrix.columns // hardware.tile)
    if around.input_range is not None:
        input_range = config.pre_post.input_range
        input_range.enable, input_range.learn_input_range = True, around.learns
        input_range.init_value, input_range.init_from_data = around.input_range, 0
        config.forward.inp_res = around.input_levels
    if around.output_levels:
        config.forward.out_bound, config.forward.out_res = around.output_bound, around.output_levels
    config.forward.out_noise = around.noise * tiles**0.5
    config.forward.out_noise_per_channel = around.noise_per_output
    for model in _in_order(hardware.weight, left):
        per_output = getattr(model, "per", "tensor") == "output"
        suffix = "_PER_CHANNEL" if per_output else ""
        if isinstance(model, ClippedWeights):
            config.clip.sigma = model.alpha
            config.clip.type = kinds.WeightClipType[f"LAYER_GAUSSIAN{suffix}"]
            if per_output and around.output_levels:
                left.add(
                    "adc", "its range follows each output's weights there, where these are clipped per output"
                )
        elif isinstance(model, QuantisedWeights):
            config.modifier.res = 2 * (model.levels - 1)
            config.modifier.quantization_type = kinds.WeightQuantizationType[f"DISCRETIZE{suffix}"]
        elif isinstance(model, GaussianWeights):
            config.modifier.std_dev = model.sigma
            config.modifier.noise_type = kinds.WeightNoiseInjectionType[f"ADD_NORMAL{suffix}"]
    _checked("aihwkit-lightning", matrix, left)
    return config


def aihwkit_settings(hardware: Hardware | None, matrix: Matrix) -> Any:
    """Return a ``TorchInferenceRPUConfig`` of aihwkit.

    Its ``program_analog_weights`` and ``drift_analog_weights`` then draw a chip.

    Raises:
        UserError: it has no equivalent, or what it needs is not known.
    """
    configs = imported("aihwkit.simulator.configs")
    enums = imported("aihwkit.simulator.parameters.enums")
    config = configs.TorchInferenceRPUConfig()
    config.mapping.max_input_size = config.mapping.max_output_size = 0
    config.noise_model, config.drift_compensation = None, None
    config.forward.is_perfect = True
    if hardware is None or not hardware.on_at(matrix.site):
        return config
    left = Unmatched()
    around = _periphery(hardware, matrix, left)
    _check_tile(hardware, matrix, False, left)
    per_output = around.noise_per_output
    for place, model in enumerate(model for model in hardware.weight if not model.neutral):
        made = _noise_model(model)
        if made is None or place:
            left.add(model)
            continue
        config.noise_model = made
        compensation = getattr(model, "compensation", "none")
        if compensation != "none":
            drift = imported("aihwkit.inference.compensation.drift")
            name = "GlobalDriftCompensation" if compensation == "tensor" else "PerColumnDriftCompensation"
            config.drift_compensation = getattr(drift, name)()
        its_per_output = getattr(model, "per", "tensor") == "output"
        if around.noise and its_per_output != per_output:
            left.add(model, "its largest weight is that of the output noise there: give both the same per")
        per_output = its_per_output
    if around.output_levels and per_output:
        left.add("adc", "its range follows each output's weights there, where these are mapped per output")
    config.mapping.weight_scaling_omega, config.mapping.weight_scaling_columnwise = 1.0, per_output
    if around.input_range is not None:
        input_range, forward = config.pre_post.input_range, config.forward
        input_range.enable, input_range.learn_input_range = True, around.learns
        input_range.init_value, input_range.init_from_data = around.input_range, 0
        forward.is_perfect = False
        forward.noise_management = enums.NoiseManagementType.NONE
        forward.bound_management = enums.BoundManagementType.NONE
        forward.inp_bound, forward.inp_res = 1.0, around.input_levels
        forward.out_bound, forward.out_res = around.output_bound, around.output_levels or -1
        forward.out_noise = around.noise
    _checked("aihwkit", matrix, left)
    return config


_NOISE_MODELS: dict[type[WeightModel], Callable[[Any, Any], Any]] = {
    PCM: lambda toolkit, model: toolkit.PCMLikeNoiseModel(),
    Hermes: lambda toolkit, model: toolkit.HermesNoiseModel(num_devices=model.devices),
    StateIndependent: lambda toolkit, model: toolkit.StateIndependentNoiseModel(),
    ReRAMWan2022: lambda toolkit, model: toolkit.ReRamWan2022NoiseModel(g_max=model.g_max),
    ReRAMCMO: lambda toolkit, model: toolkit.ReRamCMONoiseModel(
        acceptance_range=float(model.acceptance.removesuffix("%"))
    ),
}


def _noise_model(model: WeightModel) -> Any:
    """Return aihwkit's noise model of a memory device; ``None``: it has none."""
    make = _NOISE_MODELS.get(type(model))
    beside = {"time", "compensation", "per", "acceptance", "devices"}  # time is that of drift_analog_weights
    if make is None or any(
        getattr(model, its.name) != its.default for its in fields(model) if its.name not in beside
    ):
        return None
    return make(imported("aihwkit.inference"), model)
