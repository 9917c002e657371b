"""Operations, converter steps and array cells of one inference, and an estimate of its energy.

The estimate is a sum of counts times constants, which the user sets:

    energy = dac x DAC conversions + adc x ADC conversions + cell x analog multiplications + digital x digital ones

It leaves out what is no such count: control, buffers, the digital sum over arrays, leakage.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
from torch import Tensor

from asr_dni.configuration import read_layers
from asr_dni.errors import UserError
from asr_dni.evaluation.measurement.scoring import NoisyClassifier
from asr_dni.nn.product_counts import CountedProduct, count_products
from asr_dni.noise import Arrays, Hardware, NoisyModule

DEVICES_PER_WEIGHT = 2
"""A pair of conductances."""

_OPERATIONS = ("dac", "adc", "cell", "digital")


@dataclass(frozen=True)
class EnergyConstant:
    """What one operation takes.

    Attributes:
        joules: energy.
        source: where it is from.
    """

    joules: float
    source: str


def read_energy(path: Path) -> dict[str, EnergyConstant]:
    """Return the constants of a YAML file: ``dac``, ``adc``, ``cell`` and ``digital``, each with joules and source.

    Raises:
        UserError: one is missing, is not a number of at least 0, or has no source.
    """
    settings: dict[str, Any] = {}
    for layer in read_layers(path):
        settings |= layer
    unknown = [str(name) for name in settings if name not in _OPERATIONS]
    if unknown:
        raise UserError(f"{path}: has no {unknown[0]!r}: give {', '.join(_OPERATIONS)}")
    constants = {}
    for name in _OPERATIONS:
        given = settings.get(name)
        if not isinstance(given, Mapping) or set(given) != {"joules", "source"}:
            raise UserError(f"{path}: {name} is {given!r}: give joules and source, such as {_EXAMPLE}")
        joules = given["joules"]
        if isinstance(joules, bool) or not isinstance(joules, int | float) or not 0 <= joules < math.inf:
            raise UserError(
                f"{path}: {name}.joules is {joules!r}: give a number of at least 0 (YAML has 1.0e-12 for a number)"
            )
        if not str(given["source"] or "").strip():
            raise UserError(f"{path}: {name}.source is empty: say where the number is from")
        constants[name] = EnergyConstant(float(joules), str(given["source"]))
    return constants


_EXAMPLE = "{joules: 1.0e-12, source: a data sheet}"


def products_of(network: NoisyClassifier, features: Tensor, hardware: Hardware) -> list[CountedProduct]:
    """Return the products of a network for one clip, as they lie on the arrays of a hardware.

    Args:
        network: the network.
        features: ``(1, T, F)``.
        hardware: whose arrays.
    """
    arrays: Arrays = "joint" if hardware.joint else "separate"
    return count_products(cast(NoisyModule, network), features, arrays)


def cost_table(
    products: Sequence[CountedProduct],
    hardware: Hardware,
    energy: Mapping[str, EnergyConstant] | None = None,
) -> pd.DataFrame:
    """Return what one inference takes, by layer and site, and in all.

    Args:
        products: see :func:`products_of`.
        hardware: its sites are analog, all others digital; ``tile`` cuts matrices up, each array having converters.
        energy: see :func:`read_energy`; ``None``: energies are NaN.

    Returns:
        The table ``cost`` of :data:`~asr_dni.evaluation.questions.folder.TABLES`: multiplications, cells (two
        devices per weight), conversions (of ideal converters, too) and energy; the last row, ``all``, has the sums.
    """
    rows = []
    for product in products:
        analog = product.site in hardware.sites and product.columns is not None
        times = product.applications
        multiplications = (product.weights if product.columns else product.outputs) * times
        arrays = 1
        if product.columns and hardware.tile is not None:
            arrays = math.ceil(product.columns / hardware.tile)
        dac = (product.columns or 0) * times if analog else 0
        adc = product.outputs * arrays * times if analog else 0
        joules = math.nan
        if energy is not None:
            of_products = energy["cell" if analog else "digital"].joules * multiplications
            joules = energy["dac"].joules * dac + energy["adc"].joules * adc + of_products
        site = "input+recurrent" if product.joint else product.site
        rows.append(
            (
                f"{product.name} {site}{'' if analog else ' (digital)'}",
                site,
                float(multiplications),
                float(DEVICES_PER_WEIGHT * product.weights) if analog else 0.0,
                float(dac),
                float(adc),
                joules,
            )
        )
    columns = [
        "part",
        "site",
        "multiplications",
        "cells",
        "dac_conversions",
        "adc_conversions",
        "energy_joules",
    ]
    frame = pd.DataFrame(rows, columns=columns)
    sums = frame[columns[2:]].sum(skipna=False)
    return pd.concat([frame, pd.DataFrame([("all", "", *sums)], columns=columns)], ignore_index=True)
