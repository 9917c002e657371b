"""Bounds of converters that are learned: a parameter for each layer and site, as multiples of what calibration found.

A bound is exp(p) times the one that the converter says, which is in units that calibration has found (``range``,
``signal``) or absolute. p, the parameter, begins at 0: a network begins with the calibrated bound, and where it has
learned none that is what it has. The steps of p are of a share of the bound, whatever that is measured in, and an
optimiser's weight decay draws a bound back to the calibrated one.

The gradient of a bound is that of clipping: what is clipped moves with it, what is not does not (J. Choi et al., "PACT:
Parameterized clipping activation for quantized neural networks", arXiv:1805.06085, section 3; the levels between are
constants, unlike in S. K. Esser et al., "Learned step size quantization", arXiv:1902.08153). All arrays that a matrix
lies on, and all steps, share its bounds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asr_dni.nn.statistics import CalibratedModule
from asr_dni.noise import Hardware, Site

_PREFIX = "log_bound_"
CONVERTERS = ("dac", "adc")
"""The converters of a hardware that can have learned bounds."""


class BoundedModule(CalibratedModule):
    """A calibrated layer whose converters may have learned bounds.

    They are in ``state_dict()`` under ``log_bound_<converter>_<part>_<site>``, ``(1,)``, in a population ``(K, 1)``,
    once :func:`learn_bounds` has made them. Weights that are loaded without are a network that has not learned yet.
    """

    def _matrix_sites(self, hardware: Hardware) -> Mapping[str, Site]:
        """Return the sites of signal statistics that are products with matrices, and the hardware's site of each."""
        raise NotImplementedError

    def _learn_bounds(self, hardware: Hardware) -> None:
        like = next(self.parameters())
        shape = (1,) if self.networks is None else (self.networks, 1)
        for converter in CONVERTERS:
            if not getattr(getattr(hardware, converter), "learned", False):
                continue
            for part, statistics in self._statistics.items():
                for site, switch in self._matrix_sites(hardware).items():
                    name = f"{_PREFIX}{converter}_{part}_{site}"
                    known = site in statistics.sites and hardware.on_at(switch)
                    if known and name not in self._parameters:
                        self.register_parameter(name, nn.Parameter(like.new_zeros(shape)))

    def _bound_factors(self, converter: str, part: str, site: str) -> Tensor | None:
        """Return ``(K,)`` float64, what a learned bound is in multiples of the calibrated one; ``None``: none is."""
        log_bound = self._parameters.get(f"{_PREFIX}{converter}_{part}_{site}")
        return None if log_bound is None else log_bound.double().exp().reshape(-1)

    def _own_bounds(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self._parameters.items():
            if parameter is not None and name.startswith(_PREFIX):
                yield name.removeprefix(_PREFIX), parameter

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any, **keywords: Any
    ) -> None:
        if any(key.startswith(prefix) for key in state_dict):
            for name, parameter in self._own_bounds():
                state_dict.setdefault(f"{prefix}{_PREFIX}{name}", torch.zeros_like(parameter))
        super()._load_from_state_dict(state_dict, prefix, *arguments, **keywords)


def decay_of_bounds(network: nn.Module, hardware: Sequence[Hardware]) -> Tensor | None:
    """Return what is added to the loss of each network for its learned bounds, ``(K,)``; ``None``: nothing.

    Args:
        network: a network of noisy layers, one or K.
        hardware: of each network, see :class:`asr_dni.noise.UniformConverter`.
    """
    total: Tensor | None = None
    bounds = [
        its
        for module in network.modules()
        if isinstance(module, BoundedModule)
        for its in module._own_bounds()
    ]
    for name, parameter in bounds:
        converter = name.partition("_")[0]
        decays = [getattr(getattr(its, converter), "decay", 0.0) for its in hardware]
        if any(decays):
            added = parameter.reshape(-1) * parameter.new_tensor(decays)
            total = added if total is None else total + added
    return total


def is_learned_bound(name: str) -> bool:
    """Return whether a parameter's name in a network is that of a learned bound."""
    return name.rpartition(".")[2].startswith(_PREFIX)


def learn_bounds(network: nn.Module, hardware: Hardware) -> None:
    """Give a network a parameter for each bound that a hardware's converters learn; those that it has stay.

    Args:
        network: a noisy layer or a network of them, one or K.
        hardware: that it is trained on.
    """
    for module in network.modules():
        if isinstance(module, BoundedModule):
            module._learn_bounds(hardware)


@dataclass(frozen=True)
class LearnedBound:
    """A bound that a network has learned.

    Attributes:
        layer: in the network: ``recurrent``, ``classifier``.
        name: converter, part and site: ``adc_l0_gates``.
        factor: what it is in multiples of the calibrated one.
    """

    layer: str
    name: str
    factor: float


def learned_bounds(network: nn.Module, member: int | None = None) -> list[LearnedBound]:
    """Return the bounds that a network has learned.

    Args:
        network: a noisy layer or a network of them.
        member: of a population, which network's.

    Raises:
        UserError: there is no such member, or this is a population and none is named.
    """
    found = []
    for layer, module in network.named_modules():
        if isinstance(module, BoundedModule):
            place = module._member(member)
            for name, parameter in module._own_bounds():
                factor = float(parameter.detach().reshape(-1)[place].double().exp())
                found.append(LearnedBound(layer, name, factor))
    return found
