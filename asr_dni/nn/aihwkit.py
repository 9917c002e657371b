"""Networks with noisy layers as IBM/aihwkit-lightning or IBM/aihwkit have them, and back, with the same weights.

Both toolkits are optional, and imported when one of these functions is called. A network's class and forward stay as
they are: each noisy layer is replaced by the toolkit's (``AnalogRNN`` with its cells, ``AnalogLinear``,
``AnalogConv2d``), which returns the same outputs with noise off. Final states are in lists there, one for each layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.nn.aihwkit_settings import Matrix, aihwkit_settings, imported, lightning_settings
from asr_dni.nn.analog import AnalogModule, OneProduct
from asr_dni.nn.conversion import COUNTERPARTS, check_skipped, replaced
from asr_dni.nn.convolution import NoisyConv2d
from asr_dni.nn.learned_bounds import CONVERTERS, learned_bounds
from asr_dni.nn.recurrent import NoisyGRU, NoisyLayers, NoisyLSTM, NoisyRNN
from asr_dni.noise import Hardware, Site

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class _Toolkit:
    """One of the two.

    Attributes:
        package: that has its layers.
        settings: gives the settings of a matrix.
        dtypes: that its layers compute in.
    """

    package: str
    settings: Callable[[Hardware | None, Matrix], Any]
    dtypes: tuple[torch.dtype, ...]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.package.replace("_", "-")

    @property
    def layers(self) -> Any:
        """The module of its layers."""
        return imported(f"{self.package}.nn")


_LIGHTNING = _Toolkit("aihwkit_lightning", lightning_settings, (torch.float32, torch.float64, torch.bfloat16))
_AIHWKIT = _Toolkit("aihwkit", aihwkit_settings, (torch.float32,))
_CELLS: dict[str, type[NoisyRNN | NoisyLSTM | NoisyGRU]] = {
    "AnalogVanillaRNNCell": NoisyRNN,
    "AnalogLSTMCell": NoisyLSTM,
    "AnalogGRUCell": NoisyGRU,
}


def to_aihwkit_lightning(
    network: Network, hardware: Hardware | None = None, skip: Sequence[str] = ()
) -> Network:
    """Return a copy of a network whose noisy layers are those of aihwkit-lightning, to be trained there.

    DAC, ADC (with learned bounds), arrays of limited size, output noise in multiples of the largest output, and
    Gaussian, clipped and rounded weights are taken over; what it has no equivalent of is refused. It draws noise in
    training only. A convolution on hardware has its folded normalisation in weights and bias, by the running
    statistics.

    Args:
        network: with layers such as :class:`NoisyLSTM` and :class:`NoisyLinear`; one of them alone will do.
        hardware: what it is to compute on; ``None``: exact.
        skip: names of layers that stay as they are, as ``named_modules`` has them.

    Raises:
        UserError: aihwkit-lightning is not installed; a layer or a part of the hardware has no equivalent there; there
            is nothing to convert.
    """
    return _to(_LIGHTNING, network, hardware, skip)


def from_aihwkit_lightning(network: Network) -> Network:
    """Return a copy of a network whose layers of aihwkit-lightning are noisy ones, without noise yet.

    Raises:
        UserError: aihwkit-lightning is not installed; a layer has no counterpart here; there is nothing to convert.
    """
    return _from(_LIGHTNING, network)


def to_aihwkit(network: Network, hardware: Hardware | None = None, skip: Sequence[str] = ()) -> Network:
    """Return a copy of a network whose noisy layers are those of aihwkit, on its torch tile.

    DAC, ADC (with learned bounds), output noise in multiples of the largest output, and PCM, HERMES and ReRAM devices
    with their drift's compensation are taken over; what it has no equivalent of is refused. A chip is drawn by its
    ``drift_analog_weights(network, time)``.

    Args:
        network: with layers such as :class:`NoisyLSTM` and :class:`NoisyLinear`; one of them alone will do.
        hardware: what it is to compute on; ``None``: exact.
        skip: names of layers that stay as they are, as ``named_modules`` has them.

    Raises:
        UserError: aihwkit is not installed; a layer or a part of the hardware has no equivalent there; there is nothing
            to convert.
    """
    return _to(_AIHWKIT, network, hardware, skip)


def from_aihwkit(network: Network) -> Network:
    """Return a copy of a network whose layers of aihwkit are noisy ones, without noise yet.

    Their weights are those that are on its tiles: of one that was programmed or has drifted, what that made of them.

    Raises:
        UserError: aihwkit is not installed; a layer has no counterpart here; there is nothing to convert.
    """
    return _from(_AIHWKIT, network)


# ------------------------------------------------------------------------ there


def _to(toolkit: _Toolkit, network: Network, hardware: Hardware | None, skip: Sequence[str]) -> Network:
    layers = toolkit.layers
    check_skipped(network, skip)
    folded: set[nn.Module | None] = set()

    def replacement(name: str, module: nn.Module) -> nn.Module | None:
        if name in skip:
            return module
        if module in folded:
            return nn.Identity()
        if not isinstance(module, AnalogModule):
            return None
        if isinstance(module, NoisyConv2d) and hardware is not None and hardware.on_at(module.site):
            folded.add(module.normalisation)
            module = module.folded()
        _check_has_equivalent(toolkit, name, module)
        make = _recurrent if isinstance(module, NoisyLayers) else _of_one_product
        made = make(toolkit, layers, name, module, hardware)
        return made.train(module.training)

    converted, number = replaced(network, replacement)
    if not number:
        raise UserError(f"{type(network).__name__} has no noisy layer that {toolkit.name} could take over")
    return cast(Network, converted)


def _check_has_equivalent(toolkit: _Toolkit, name: str, layer: AnalogModule) -> None:
    """Refuse what the toolkit's layers cannot be.

    Raises:
        UserError: it is refused.
    """
    weight = next(layer.parameters())
    reasons = {
        f"it is a population of {layer.networks} networks: unstack them first": layer.networks is not None,
        f"its weights are {weight.dtype}": weight.dtype not in toolkit.dtypes,
    }
    if isinstance(layer, NoisyLayers):
        reasons |= {
            f"{type(layer).__name__} is none of {', '.join(kind.__name__ for kind in _CELLS.values())}": type(
                layer
            )
            not in _CELLS.values(),
            "batch_first is True: its sequences are (T, N, F)": layer.batch_first,
            "proj_size is not 0": layer.proj_size != 0,
            "nonlinearity is relu": getattr(layer, "nonlinearity", "tanh") != "tanh",
        }
    if isinstance(layer, NoisyConv2d):
        reasons |= {
            "groups is not 1": layer.groups != 1,
            f"padding is {layer.padding!r}: give numbers": isinstance(layer.padding, str),
        }
    for reason, holds in reasons.items():
        if holds:
            where = name or "the layer"
            raise UserError(
                f"{where}: {toolkit.name} has no such layer, {reason} (skip=[{where!r}] leaves it)"
            )


def _of_one_product(
    toolkit: _Toolkit, layers: Any, name: str, layer: AnalogModule, hardware: Hardware | None
) -> nn.Module:
    assert isinstance(layer, OneProduct)
    largest = layer.statistics()["l0"].bound.get(layer.site)
    learned = _learned(layer, f"l0_{layer.site}")
    matrix = Matrix(name, layer.site, layer.weight[0].numel(), largest, learned=learned)
    kind = layers.AnalogConv2d if isinstance(layer, NoisyConv2d) else layers.AnalogLinear
    made: nn.Module = kind.from_digital(layer, toolkit.settings(hardware, matrix))
    return made.to(layer.weight.device)


def _recurrent(
    toolkit: _Toolkit, layers: Any, name: str, layer: AnalogModule, hardware: Hardware | None
) -> nn.Module:
    assert isinstance(layer, NoisyLayers)
    cell = next(cell for cell, kind in _CELLS.items() if kind is type(layer))
    like = layer.get_parameter("weight_hh_l0")
    made: nn.Module = layers.AnalogRNN(
        getattr(layers, cell),
        layer.input_size,
        layer.hidden_size,
        bias=layer.bias,
        num_layers=layer.num_layers,
        bidir=layer.bidirectional,
        dropout=layer.dropout if layer.num_layers > 1 else 0.0,
        rpu_config=toolkit.settings(None, Matrix(name, "input", layer.input_size, None)),
    )
    joint = hardware is not None and hardware.joint
    if hardware is not None and hardware.outputs_on and "elementwise" in hardware.sites:
        raise UserError(f"{name or 'the layer'}: {toolkit.name} has no noise on the products inside a cell")
    sites: tuple[tuple[str, Site], ...] = (("ih", "input"), ("hh", "recurrent"))
    for (part, statistics), its in zip(layer.statistics().items(), _cells(made), strict=True):
        for kind, site in sites:
            weight = layer.get_parameter(f"weight_{kind}_{part}")
            bias = layer.get_parameter(f"bias_{kind}_{part}") if layer.bias else None
            matrix = Matrix(
                f"{name or 'the layer'} {part} {site}",
                site,
                weight.shape[1],
                statistics.bound.get(site),
                joint,
                _learned(layer, f"{part}_{site}"),
            )
            settings = toolkit.settings(hardware, matrix)
            setattr(its, f"weight_{kind}", layers.AnalogLinear.from_digital(_digital(weight, bias), settings))
    return made.to(like.device)


def _learned(layer: AnalogModule, product: str) -> dict[str, float]:
    """Return what the learned bounds of a product's converters are, in multiples of the given ones."""
    bounds = {its.name: its.factor for its in learned_bounds(layer)}
    return {place: bounds.get(f"{place}_{product}", 1.0) for place in CONVERTERS}


def _cells(recurrent: nn.Module) -> list[Any]:
    """Return the cells of an ``AnalogRNN``: layer by layer, of each the forward direction first."""
    layers = cast(Any, recurrent).rnn.layers
    return [its.cell for layer in layers for its in getattr(layer, "directions", [layer])]


def _digital(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a layer with these weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, weight.device, weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


# -------------------------------------------------------------------- and back


def _from(toolkit: _Toolkit, network: Network) -> Network:
    layers = toolkit.layers
    base = imported(f"{toolkit.package}.nn.modules.base").AnalogLayerBase

    def replacement(name: str, module: nn.Module) -> nn.Module | None:
        made: AnalogModule
        if isinstance(module, layers.AnalogRNN):
            made = _noisy_recurrent(layers, name, module)
        elif type(module) in (layers.AnalogLinear, layers.AnalogConv2d):
            digital = cast(Any, module).to_digital(module)
            made = COUNTERPARTS[type(digital)].of_torch(digital)
        elif isinstance(module, base) and not cast(Any, module).IS_CONTAINER:
            raise UserError(
                f"{name or 'the layer'}: there is no noisy counterpart of {type(module).__name__}"
            )
        else:
            return None
        return made.train(module.training)

    converted, number = replaced(network, replacement)
    if not number:
        raise UserError(f"{type(network).__name__} has no layer of {toolkit.name}")
    return cast(Network, converted)


def _noisy_recurrent(layers: Any, name: str, module: Any) -> AnalogModule:
    cells = _cells(module)
    first = cells[0]
    kind = next((kind for cell, kind in _CELLS.items() if type(first) is getattr(layers, cell)), None)
    if kind is None:
        raise UserError(f"{name or 'the layer'}: there is no noisy counterpart of {type(first).__name__}")
    matrices = [
        {which: layers.AnalogLinear.to_digital(getattr(cell, f"weight_{which}")) for which in ("ih", "hh")}
        for cell in cells
    ]
    number, like = len(module.rnn.layers), matrices[0]["hh"].weight
    dropped = module.rnn.dropout_layer
    made = kind(
        first.input_size,
        first.hidden_size,
        num_layers=number,
        bias=matrices[0]["hh"].bias is not None,
        bidirectional=len(cells) > number,
        dropout=0.0 if dropped is None else dropped.p,
        device=like.device,
        dtype=like.dtype,
    )
    with torch.no_grad():
        for part, its in zip(made.statistics(), matrices, strict=True):
            for which, linear in its.items():
                for what, values in linear.named_parameters():
                    made.get_parameter(f"{what}_{which}_{part}").copy_(values)
    return made
