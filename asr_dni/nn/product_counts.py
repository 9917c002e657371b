"""How many products a network takes for one sequence: counted in a pass, not from what it should be."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asr_dni.noise import SITES, Arrays, Gaussian, Hardware, Noise, NoisyModule, Site


@dataclass(frozen=True)
class CountedProduct:
    """A matrix and how often it is applied, or a product inside a cell.

    Attributes:
        module: which of the network's noisy modules.
        layer: of this module, and direction.
        site: of the hardware.
        joint: whether it is of W_ih and W_hh on one array.
        outputs: of one application.
        columns: of the matrix; ``None``: there is none, inputs are multiplied with each other.
        weights: elements of the matrix.
        applications: for one sequence.
        name: of the layer in the network.
    """

    module: int
    layer: str
    site: Site
    joint: bool
    outputs: int
    columns: int | None
    weights: int
    applications: int
    name: str = ""


_counting: ContextVar[list[CountedProduct] | None] = ContextVar("asr_dni_products", default=None)


def count(product: CountedProduct) -> None:
    """Take note of a product, where somebody counts."""
    counted = _counting.get()
    if counted is not None:
        counted.append(product)


def counting() -> bool:
    """Return whether somebody counts."""
    return _counting.get() is not None


@contextmanager
def _collected() -> Iterator[list[CountedProduct]]:
    counted: list[CountedProduct] = []
    token = _counting.set(counted)
    try:
        yield counted
    finally:
        _counting.reset(token)


@torch.no_grad()
def count_products(network: NoisyModule, features: Tensor, arrays: Arrays = "joint") -> list[CountedProduct]:
    """Return all products of a network for one sequence.

    Args:
        network: an ordinary one.
        features: what it takes of one sequence, such as ``(1, T, F)``.
        arrays: whether W_ih and W_hh lie on one array.
    """
    # So little noise that it only makes every product be looked at.
    hardware = Hardware(output=Gaussian(1e-30), sites=SITES, arrays=arrays)
    with _collected() as counted, network.under(Noise.of(hardware)):
        network(features)
    names = {(part.module, part.layer): part.name for part in network.parts(hardware)}
    return [replace(its, name=names[its.module, its.layer]) for its in counted]
