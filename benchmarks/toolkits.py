"""Layers of other toolkits with noise on their outputs, where they are installed.

    pip install --no-deps aihwkit-lightning      # says that it wants another torch, and runs with this one
    pip install --no-deps aihwkit tqdm requests  # its wheels are for some versions of Python only

Each is set to the least work that it calls output noise: no quantisation, no bounds, one tile a matrix.
"""

import contextlib
import importlib
import io
from types import ModuleType
from typing import Any

from measuring import Unavailable
from torch import nn

CELLS = {"lstm": "AnalogLSTMCell", "gru": "AnalogGRUCell", "rnn": "AnalogVanillaRNNCell"}


def _load(name: str) -> ModuleType:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # they print what of theirs is not there
            return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name.partition('.')[0]} cannot be imported: {error}") from error


def aihwkit_lightning(cell: str, inputs: int, units: int) -> nn.Module:
    """Return a layer of aihwkit-lightning; its output noise needs ranges of the inputs, here fixed ones."""
    modules = _load("aihwkit_lightning.nn")
    configuration: Any = _load("aihwkit_lightning.simulator.configs").TorchInferenceRPUConfig()
    configuration.forward.out_noise = 1.0
    ranges = configuration.pre_post.input_range
    ranges.enable, ranges.fast_mode, ranges.init_from_data = True, True, 0
    layer: nn.Module = modules.AnalogRNN(
        getattr(modules, CELLS[cell]), inputs, units, bias=True, rpu_config=configuration
    )
    return layer


def aihwkit(cell: str, inputs: int, units: int) -> nn.Module:
    """Return a layer of aihwkit with its tile in torch operations."""
    modules, configs = _load("aihwkit.nn"), _load("aihwkit.simulator.configs")
    configuration: Any = configs.TorchInferenceRPUConfig()
    forward = configuration.forward
    forward.inp_res = forward.out_res = -1
    forward.inp_bound = forward.out_bound = 0
    forward.w_noise, forward.out_noise = 0.0, 1.0
    forward.noise_management = configs.NoiseManagementType.NONE
    forward.bound_management = configs.BoundManagementType.NONE
    configuration.mapping.max_input_size = configuration.mapping.max_output_size = 0
    layer: nn.Module = modules.AnalogRNN(
        getattr(modules, CELLS[cell]), inputs, units, bias=True, rpu_config=configuration
    )
    return layer


def aihwkit_hardware_aware(cell: str, inputs: int, units: int) -> nn.Module:
    """Return a layer of aihwkit with its preset for hardware-aware training."""
    modules = _load("aihwkit.nn")
    configuration = _load("aihwkit.simulator.presets").StandardHWATrainingPreset()
    layer: nn.Module = modules.AnalogRNN(
        getattr(modules, CELLS[cell]), inputs, units, bias=True, rpu_config=configuration
    )
    return layer
