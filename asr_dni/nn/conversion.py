"""Make the layers of any torch module noisy, and leave its forward as it is."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from torch import nn

from asr_dni.errors import UserError
from asr_dni.nn.analog import AnalogModule
from asr_dni.nn.convolution import NoisyConv2d
from asr_dni.nn.linear import NoisyLinear
from asr_dni.nn.recurrent import NoisyGRU, NoisyLSTM, NoisyRNN

Network = TypeVar("Network", bound=nn.Module)

COUNTERPARTS: dict[type[nn.Module], type[AnalogModule]] = {
    nn.RNN: NoisyRNN,
    nn.LSTM: NoisyLSTM,
    nn.GRU: NoisyGRU,
    nn.Linear: NoisyLinear,
    nn.Conv2d: NoisyConv2d,
}
"""What becomes of torch's layers. A new one is added here."""

_WITH_PRODUCTS: tuple[type[nn.Module], ...] = (
    nn.RNNBase,
    nn.RNNCellBase,
    nn.Linear,
    nn.Bilinear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.MultiheadAttention,
)


def convert(network: Network, skip: Sequence[str] = ()) -> Network:
    """Return a copy of a network whose recurrent, linear and convolution layers are noisy, without noise yet.

    Its class, its forward, the keys of its ``state_dict``, its hooks and what of its weights is tied stay as they are;
    without noise so does what it computes. Noise is set for a block by :func:`asr_dni.noise.under`.

    ``torch.nn.RNN``, ``LSTM``, ``GRU``, ``Linear`` and ``Conv2d`` become their noisy counterparts. Layers of classes
    derived from them, or of others that have matrix products, such as ``MultiheadAttention`` with all that is in it,
    stay digital, and a warning names them. So do products that a forward makes itself, such as ``x @ self.weight``.

    Layers that are noisy already stay as they are.

    Args:
        network: any module; a layer alone becomes its counterpart.
        skip: names of modules, as ``named_modules`` has them, that stay digital with all that is below them.

    Raises:
        UserError: there is no module of a name to skip, or nothing to make noisy.
    """
    check_skipped(network, skip)
    left: list[str] = []

    def replacement(name: str, module: nn.Module) -> nn.Module | None:
        if name in skip or isinstance(module, AnalogModule):
            return module
        counterpart = COUNTERPARTS.get(type(module))
        if counterpart is not None and getattr(module, "padding_mode", "zeros") == "zeros":
            return counterpart.of_torch(module)
        if isinstance(module, _WITH_PRODUCTS):
            left.append(f"{name or 'the network'} ({type(module).__name__})")
            return module
        return None

    whole, _ = replaced(network, replacement)
    if not any(isinstance(module, AnalogModule) for module in whole.modules()):
        raise UserError(
            f"{type(network).__name__} has no layer to make noisy: one of"
            f" {', '.join(f'torch.nn.{kind.__name__}' for kind in COUNTERPARTS)}"
        )
    if left:
        warnings.warn(f"these stay digital: {', '.join(left)}; name them in skip to say so", stacklevel=2)
    return cast(Network, whole)  # the counterpart of a layer alone is of a class derived from the layer's


def check_skipped(network: nn.Module, skip: Sequence[str]) -> None:
    """Check that a network has the modules that are to be skipped.

    Raises:
        UserError: there is no module of a name.
    """
    known = dict(network.named_modules())
    unknown = [name for name in skip if name not in known]
    if unknown:
        names = ", ".join(name for name in known if name) or "none, it is a layer alone"
        raise UserError(f"skip names {unknown[0]!r}, but the network's modules are {names}")


def replaced(
    network: nn.Module, replacement: Callable[[str, nn.Module], nn.Module | None]
) -> tuple[nn.Module, int]:
    """Return a copy of a network with other modules in place of some, and of how many.

    Args:
        network: any module.
        replacement: of the name and the module of the copy, what takes its place, with all that is below it; the module
            itself: it stays so; ``None``: it stays, and what is below it is asked for. It is asked once for a module
            that is at several places.
    """
    found: dict[nn.Module, nn.Module] = {}

    def of(name: str, module: nn.Module) -> nn.Module:
        if module in found:
            return found[module]
        other = replacement(name, module)
        if other is not None:
            found[module] = other
            return other
        for part, below in list(
            module._modules.items()
        ):  # a module at two places is among named_children once
            if below is not None:
                setattr(module, part, of(f"{name}.{part}" if name else part, below))
        return module

    whole = of("", copy.deepcopy(network))
    return whole, sum(other is not module for module, other in found.items())
