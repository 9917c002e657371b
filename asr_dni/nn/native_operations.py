"""What the C kernels are told of a layer's hardware: arrays, what lies on them, and what happens to their outputs."""

import ctypes
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from asr_dni.nn.cells import CELLS
from asr_dni.nn.operations import AffineNoise, GaussianNoise, LoweredOperation, Product, Quantisation
from asr_dni.nn.recurrence import Sites


def fields(kind: type, names: str) -> tuple[tuple[str, type], ...]:
    """Return fields of one kind of a structure of ctypes."""
    return tuple((name, kind) for name in names.split())


class SiteNoise(ctypes.Structure):
    """``site_noise`` of ``philox.h``."""

    _fields_ = (
        ("std", ctypes.c_float),
        *fields(ctypes.c_uint32, "k0 k1"),
        ("shares", ctypes.c_void_p),
    )


class LayerNoise(ctypes.Structure):
    """``layer_noise`` of ``cells.h``."""

    _fields_ = fields(SiteNoise, "input recurrent elementwise")


class _Drawn(ctypes.Structure):
    _fields_ = (("numbers", ctypes.c_void_p), *fields(ctypes.c_int64, "step row unit"))


class _Converter(ctypes.Structure):
    _fields_ = fields(ctypes.c_float, "bound step")


class _Operation(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("gaussian", SiteNoise),
        ("levels", _Converter),
        *fields(_Drawn, "gain add"),
    )


class ArrayStructure(ctypes.Structure):
    """``array`` of ``recurrence.c``."""

    _fields_ = fields(ctypes.c_int32, "kind first count noted")


class _Piece(ctypes.Structure):
    _fields_ = (*fields(ctypes.c_int32, "array of_hidden"), *fields(ctypes.c_int64, "first columns"))


_KINDS: tuple[type[LoweredOperation], ...] = (GaussianNoise, AffineNoise, Quantisation)
"""Operations in the order in which ``operations.h`` counts them."""
_INWARD, _HIDDEN, _BOTH = range(3)
"""What lies on an array, as ``recurrence.c`` counts it."""


def noise_structures(noise: GaussianNoise | None, networks: int, kept: list[Tensor]) -> list[SiteNoise]:
    """Return a Gaussian of each network, without any where there is none.

    Args:
        noise: of all networks.
        networks: K.
        kept: gets what has to stay alive as long as the structures, which have its address.
    """
    if noise is None:
        return [SiteNoise(0.0, 0, 0, None)] * networks
    addresses: list[int | None] = [None] * networks
    if noise.shares is not None:
        shares = noise.shares.detach().to("cpu", torch.float32).contiguous()
        kept.append(shares)
        addresses = [row.data_ptr() for row in shares]
    each = zip(noise.std.tolist(), noise.keys, addresses, strict=True)
    return [SiteNoise(std, *key, address) for std, key, address in each]


@dataclass
class HardwareStructures:
    """What a layer's hardware is to ``recurrence.c``.

    Attributes:
        arrays: of both matrices; none where all that happens to their outputs is Gaussian noise.
        pieces: of the matrices.
        inside: of the products inside the cell, where more than Gaussian noise happens to them.
        operations: of all networks, one after another, as many each.
        dac: of each network, of x and of h.
        noise: of each network, where there are no arrays.
        noted: numbers of a row of what was not clipped.
        kept: numbers that have to stay alive as long as the structures, which have their addresses.
    """

    arrays: list[ArrayStructure] = field(default_factory=list)
    pieces: list[_Piece] = field(default_factory=list)
    inside: ArrayStructure = field(default_factory=lambda: ArrayStructure(0, 0, 0, -1))
    operations: list[list[_Operation]] = field(default_factory=list)
    dac: list[tuple[_Converter, _Converter]] = field(default_factory=list)
    noise: list[LayerNoise] = field(default_factory=list)
    noted: int = 0
    kept: list[Tensor] = field(default_factory=list)

    def lists(self) -> dict[str, list[Any]]:
        """Return the structures that ``recurrence.c`` is given lists of, by the names that it has for them."""
        return {
            "noise": self.noise,
            "arrays": self.arrays,
            "pieces": self.pieces,
            "operations": list(itertools.chain(*self.operations)),
            "dac": list(itertools.chain(*self.dac)),
        }

    def place(self, kind: int, operations: Sequence[LoweredOperation], shape: Sequence[int]) -> None:
        """Add an array of the matrices, see :meth:`structure`."""
        self.arrays.append(self.structure(kind, operations, shape))

    def structure(
        self, kind: int, operations: Sequence[LoweredOperation], shape: Sequence[int]
    ) -> ArrayStructure:
        """Return an array with operations on outputs of a shape ``(K, T, N, out)``."""
        first, noted = len(self.operations[0]), -1
        for its in operations:
            for k, structure in enumerate(self._structures(its, shape)):
                self.operations[k].append(structure)
        if any(isinstance(its, Quantisation) for its in operations):
            noted = self.noted
            self.noted += shape[-1]
        return ArrayStructure(kind, first, len(operations), noted)

    def _structures(self, operation: LoweredOperation, shape: Sequence[int]) -> list[_Operation]:
        """Return an operation of each network."""
        kind, networks = _KINDS.index(type(operation)), shape[0]
        if isinstance(operation, GaussianNoise):
            return [
                _Operation(kind, gaussian=its) for its in noise_structures(operation, networks, self.kept)
            ]
        if isinstance(operation, AffineNoise):
            gains, adds = self._drawn(operation.gain, shape), self._drawn(operation.add, shape)
            return [_Operation(kind, gain=gain, add=add) for gain, add in zip(gains, adds, strict=True)]
        assert isinstance(operation, Quantisation)
        return [_Operation(kind, levels=its) for its in _converters(operation, networks)]

    def _drawn(self, numbers: Tensor | None, shape: Sequence[int]) -> list[_Drawn]:
        """Return where the numbers of each network are, which broadcast to a shape."""
        if numbers is None:
            return [_Drawn(None, 0, 0, 0)] * shape[0]
        numbers = numbers.detach().to("cpu", torch.float32)
        if numbers.stride(-1) != 1:
            numbers = numbers.contiguous()
        self.kept.append(numbers)
        whole = numbers.expand(*shape)
        of_network, step, row, unit = whole.stride()
        unit = unit if numbers.shape[-1] > 1 else 0
        size = whole.element_size()
        return [_Drawn(whole.data_ptr() + size * k * of_network, step, row, unit) for k in range(shape[0])]


def _converters(its: Quantisation | None, networks: int) -> list[_Converter]:
    if its is None:
        return [_Converter(0.0, 0.0)] * networks
    pairs = zip(its.bound.tolist(), its.step.tolist(), strict=True)
    return [_Converter(bound, step) for bound, step in pairs]


def hardware_structures(
    cell: str, sites: Sites, shape: Sequence[int], features: int | None
) -> HardwareStructures:
    """Return what ``recurrence.c`` is told of a layer's hardware.

    Args:
        cell: which equations.
        sites: the hardware.
        shape: K, T, N and H.
        features: F; ``None`` where the projection of the inputs is given.
    """
    networks, width, equations = shape[0], shape[-1], CELLS[cell]
    made = HardwareStructures(operations=[[] for _ in range(networks)])
    simple = all(product is None or product.gaussian for product in (sites.input, sites.recurrent))

    def outputs(groups: int) -> tuple[int, ...]:
        return *shape[:3], groups * width

    fed = 0 if features is None else features
    if simple:
        made.pieces = [_Piece(0, 1, 0, width), *([] if features is None else [_Piece(0, 0, 0, features)])]
    elif sites.joint:
        assert sites.input is not None
        groups = len(equations.gates) + len(equations.apart)
        for j, (first, last) in enumerate(_cut(sites.input, fed + width)):
            made.place(_BOTH, sites.input.arrays[j], outputs(groups))
            if first < fed:
                made.pieces.append(_Piece(j, 0, first, min(last, fed) - first))
            if last > fed:
                made.pieces.append(_Piece(j, 1, max(first, fed) - fed, last - max(first, fed)))
    else:
        groups = len(equations.gates)
        for kind, product, columns in ((_INWARD, sites.input, fed), (_HIDDEN, sites.recurrent, width)):
            for j, (first, last) in enumerate(_cut(product, columns)):
                operations = () if product is None else product.arrays[j]
                if last > first:
                    made.pieces.append(_Piece(len(made.arrays), kind == _HIDDEN, first, last - first))
                made.place(kind, operations, outputs(groups))
    inside = sites.elementwise
    if inside is not None and inside.gaussian is None:
        made.inside = made.structure(0, inside.arrays[0], outputs(equations.products))
    of_x = sites.input.dac if sites.input is not None else None
    of_h = of_x if sites.joint else sites.recurrent.dac if sites.recurrent is not None else None
    made.dac = list(zip(_converters(of_x, networks), _converters(of_h, networks), strict=True))
    each = [
        noise_structures(
            sites.gaussian(site) if simple or site == "elementwise" else None, networks, made.kept
        )
        for site in ("input", "recurrent", "elementwise")
    ]
    made.noise = [LayerNoise(*its) for its in zip(*each, strict=True)]
    return made


def noted_width(cell: str, sites: Sites, width: int) -> int:
    """Return for how many numbers of a row it is noted whether they were clipped: outputs of arrays with converters.

    Args:
        cell: which equations.
        sites: the hardware.
        width: H.
    """
    equations = CELLS[cell]
    groups = len(equations.gates) + (len(equations.apart) if sites.joint else 0)
    arrays = [its for product in (sites.input, sites.recurrent) if product for its in product.arrays]
    return sum(groups * width for its in arrays if any(isinstance(one, Quantisation) for one in its))


def _cut(product: Product | None, columns: int) -> list[tuple[int, int]]:
    """Return from which to which column each array of a product has a matrix."""
    if product is None or product.columns is None:
        return [(0, columns)]
    places, first = [], 0
    for its in product.columns:
        places.append((first, first + its))
        first += its
    return places
