"""Populations: K networks of one shape in one module, whose parameters have a leading axis K.

A population is called as its members are. Whatever an ordinary module returns has a leading axis K, and entry k is what
member k returns alone, within rounding, whichever networks are beside it. Inputs have a leading axis K as well, or none
where all members get the same:

==================== =================================================  ===============================
module               input                                              output
==================== =================================================  ===============================
NoisyRNN, LSTM, GRU  ``(T, N, F)`` for all, or ``(K, T, N, F)``; with   ``(K, T, N, D * H)``, with
                     ``batch_first`` ``(N, T, F)`` or                   ``batch_first``
                     ``(K, N, T, F)``                                   ``(K, N, T, D * H)``
their states         ``(K, layers * D, N, H)``                          ``(K, layers * D, N, H)``
NoisyLinear          ``(K, N, *, in)``                                  ``(K, N, *, out)``
NoisyConv2d          ``(N, C, T, B)`` for all or ``(K, N, C, T, B)``    ``(K, N, out, T, B)``
StackableBatchNorm2d ``(K, N, C, T, B)``                                ``(K, N, C, T, B)``
SubSpectralNorm2d    ``(K, N, C, T, B)``                                ``(K, N, C, T, B)``
==================== =================================================  ===============================

D is the number of directions. The gradient of a sum of K losses, one for each member, is for each member that of its
own loss.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.stackable import Stackable

Network = TypeVar("Network", bound=nn.Module)


def stack_networks(networks: Sequence[Network]) -> Network:
    """Make one module of K networks.

    Parameters, buffers and signal statistics are copied; a member's noise is not, the population starts without.

    Args:
        networks: noisy layers, or networks of them and of other :class:`~asr_dni.stackable.Stackable` modules, of one
            class, with the same settings, shapes, dtypes and devices. Modules without parameters of their own may be of
            any kind that works on tensors of any shape.

    Returns:
        A module of that class, with ``networks`` K, in the mode (training or evaluation) of the first.

    Raises:
        UserError: there is no network, they differ in something (which is named), one is itself a population, or a
            module with parameters or buffers has no form for K networks.
    """
    if not networks:
        raise UserError("there is no network to stack: give at least one")
    first = networks[0]
    _check_stackable(first)
    for k, network in enumerate(networks):
        _check_alike(first, network, k)
    tensors = zip(*(_own_tensors(network) for network in networks), strict=True)
    return _population(networks, [torch.stack([tensor.detach() for tensor in its]) for its in tensors])


def repeat_network(network: Network, number: int) -> Network:
    """Make one module of K networks that all are this one: a population that has its parameters and buffers in common.

    It is for passes that differ in their noise alone, such as levels and draws: what is the same for all networks is
    done and kept once. What changes the parameters in place, as an optimiser does, changes them here too; a network
    that is given other ones, as by ``to``, is repeated anew.

    Args:
        network: one that :func:`stack_networks` takes.
        number: K.

    Returns:
        A module of its class, with ``networks`` K, whose parameters ``(K, ...)`` need no gradients and are not to be
        written to.

    Raises:
        UserError: see :func:`stack_networks`.
    """
    _check_stackable(network)
    _check_alike(network, network, 0)
    shared = [tensor.detach().expand(number, *tensor.shape) for tensor in _own_tensors(network)]
    return _population([network] * number, shared, requires_grad=False)


def _population(
    networks: Sequence[Network], tensors: Sequence[Tensor], requires_grad: bool | None = None
) -> Network:
    """Return a population of networks, of whose tensors it has these."""
    first = networks[0]
    replacements = {
        id(tensor): _like(tensor, values, requires_grad)
        for tensor, values in zip(_own_tensors(first), tensors, strict=True)
    }
    population = copy.deepcopy(first, dict(replacements))
    modules = zip(population.modules(), *(network.modules() for network in networks), strict=True)
    for module, *members in modules:
        if isinstance(module, Stackable):
            module.stack_members(members)
    return population


def unstack_network(population: Network, member: int) -> Network:
    """Make an ordinary network of one member of a population, with copies of its parameters and statistics.

    Args:
        population: what :func:`stack_networks` made.
        member: which network, from 0.

    Returns:
        A module without noise, whose ``state_dict()`` is that of an ordinary one.

    Raises:
        UserError: the module is not a population, or has no such member.
    """
    sizes = {module.networks for module in population.modules() if isinstance(module, Stackable)}
    networks = sizes.pop() if len(sizes) == 1 else None
    if networks is None:
        raise UserError(f"this {type(population).__name__} is not a population: there is nothing to unstack")
    if not 0 <= member < networks:
        raise UserError(f"member is {member}: give one from 0 to {networks - 1}")
    replacements = {
        id(tensor): _like(tensor, tensor.detach()[member].clone()) for tensor in _own_tensors(population)
    }
    network = copy.deepcopy(population, dict(replacements))
    for module in network.modules():
        if isinstance(module, Stackable):
            module.keep_member(member)
    return network


def _own_tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _like(original: Tensor, values: Tensor, requires_grad: bool | None = None) -> Tensor:
    if isinstance(original, nn.Parameter):
        wanted = original.requires_grad if requires_grad is None else requires_grad
        return nn.Parameter(values, requires_grad=wanted)
    return values


def _check_stackable(network: nn.Module) -> None:
    for name, module in network.named_modules():
        own = [*module._parameters.values(), *module._buffers.values()]
        if any(tensor is not None for tensor in own) and not isinstance(module, Stackable):
            raise UserError(
                f"networks with a {type(module).__name__} ({name or 'the network itself'}) cannot be stacked: only"
                " noisy modules and other subclasses of asr_dni.nn.Stackable can be K networks"
            )


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return what a module was configured with: its public plain attributes."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name != "training"
        and (isinstance(value, int | float | str | tuple | None) or dataclasses.is_dataclass(value))
    }


def _check_alike(first: nn.Module, other: nn.Module, k: int) -> None:
    """Check that a network has the class, settings and shapes of the first one."""

    def differ(what: str, its: object, others: object) -> UserError:
        return UserError(
            f"networks of other kinds cannot be stacked: {what} is {its} in network 0 and {others} in network {k}"
        )

    ours, theirs = dict(first.named_modules()), dict(other.named_modules())
    if list(ours) != list(theirs):
        raise differ("the list of modules", list(ours), list(theirs))
    for name, module in ours.items():
        twin, label = theirs[name], name or "the network"
        if type(module) is not type(twin):
            raise differ(f"the class of {label}", type(module).__name__, type(twin).__name__)
        if isinstance(module, Stackable) and isinstance(twin, Stackable):
            for its in (module.networks, twin.networks):
                if its is not None:
                    raise UserError(f"{label} is a population of {its} networks: unstack it first")
        settings, others = _settings(module), _settings(twin)
        for key in settings | others:
            if settings.get(key) != others.get(key):
                raise differ(f"{key} of {label}", settings.get(key), others.get(key))
    tensors = dict(first.named_parameters()) | dict(first.named_buffers())
    others = dict(other.named_parameters()) | dict(other.named_buffers())
    if list(tensors) != list(others):
        raise differ("the list of parameters", list(tensors), list(others))
    for name, tensor in tensors.items():
        twin_tensor = others[name]
        for key in ("shape", "dtype", "device", "requires_grad"):
            its, others_its = getattr(tensor, key), getattr(twin_tensor, key)
            if its != others_its:
                raise differ(
                    f"{key} of {name}", *(tuple(v) if key == "shape" else v for v in (its, others_its))
                )
