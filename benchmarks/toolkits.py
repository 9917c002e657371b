"""Layers with noise on their outputs that others make: toolkits, where they are installed, and torch's compiler.

    pip install --no-deps aihwkit-lightning      # says that it wants another torch, and runs with this one
    pip install --no-deps aihwkit tqdm requests  # its wheels are for some versions of Python only

Each is set to the least work that it calls output noise: no quantisation, no bounds, one tile a matrix.
haste (github.com/lmnt-com/haste) and flashrnn (github.com/NX-AI/flashrnn) are not among them: both are built for CUDA
alone, and know no noise.
"""

import contextlib
import importlib
import io
from types import ModuleType
from typing import Any

import torch
from measuring import Unavailable
from torch import Tensor, nn

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


class CompiledLoop(nn.Module):
    """A plain loop over the steps of an LSTM with noise on all pre-activations, whose step torch.compile makes.

    A step and not the loop, whose compilation would take minutes: every step would be code of its own.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.of_inputs = nn.Linear(inputs, 4 * units)
        self.of_state = nn.Linear(units, 4 * units)
        self.step = torch.compile(self._step)

    @staticmethod
    def _step(projected: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        gates = torch.addmm(bias, h, weight.t()) + projected
        i, f, g, o = (gates + torch.randn_like(gates)).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return outputs ``(T, N, H)`` and the last states, of ``(T, N, F)``."""
        h = c = x.new_zeros(x.shape[1], self.of_state.in_features)
        outputs = []
        for projected in self.of_inputs(x):
            h, c = self.step(projected, h, c, self.of_state.weight, self.of_state.bias)
            outputs.append(h)
        return torch.stack(outputs), (h, c)


def compiled_loop(cell: str, inputs: int, units: int) -> nn.Module:
    """Return what torch's compiler makes of an LSTM with noise."""
    if cell != "lstm":
        raise Unavailable("torch.compile is measured for the LSTM only")
    return CompiledLoop(inputs, units)
