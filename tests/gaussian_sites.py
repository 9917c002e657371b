"""Gaussian noise at the sites of a layer, written down network by network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from asr_dni.nn.operations import Product
from asr_dni.nn.recurrence import Sites
from asr_dni.philox import Key


class SiteNoise(NamedTuple):
    """N(0, std**2), named by a key."""

    std: float
    key: Key


@dataclass(frozen=True)
class LayerNoise:
    """The noise of one network."""

    sample_ids: Tensor
    first_step: int = 0
    input: SiteNoise | None = None
    recurrent: SiteNoise | None = None
    elementwise: SiteNoise | None = None
    projection: SiteNoise | None = None
    joint: bool = False


def together(noises: Sequence[LayerNoise]) -> Sites:
    """Return the noise of all networks as an implementation is given it."""
    products = {}
    for site in ("input", "recurrent", "elementwise", "projection"):
        each = [getattr(noise, site) for noise in noises]
        if any(each):
            products[site] = Product.gaussian_of(
                [its.std if its else 0.0 for its in each], [its.key if its else (0, 0) for its in each]
            )
    (first_step,) = {noise.first_step for noise in noises}
    (joint,) = {noise.joint for noise in noises}
    return Sites([noise.sample_ids for noise in noises], first_step, **products, joint=joint)


def of_network(sites: Sites, k: int, rows: slice = slice(None)) -> Sites:
    """Return the noise of one network, for some of the samples."""
    products = {}
    for site in ("input", "recurrent", "elementwise", "projection"):
        noise = sites.gaussian(site)
        if noise is not None:
            products[site] = Product.gaussian_of([float(noise.std[k])], [noise.keys[k]])
    return Sites([sites.sample_ids[k][rows]], sites.first_step, **products, joint=sites.joint)
