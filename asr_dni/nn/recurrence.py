"""The recurrence of one layer in one direction: what every implementation is given.

The equations of a step are the cell's, see :mod:`asr_dni.nn.cells`; there are always K networks, one being K = 1.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.nn.cells import CELLS, State
from asr_dni.nn.mvm import Products, linear
from asr_dni.nn.operations import (
    AffineNoise,
    GaussianNoise,
    LoweredOperation,
    Product,
    Quantisation,
    ReadingNoise,
    WireDrop,
)


@dataclass(frozen=True)
class Sites:
    """The hardware of one layer in one direction of K networks, site by site; ``None`` where a product is exact.

    Attributes:
        sample_ids: ``(N,)`` identities of the samples, of each network.
        first_step: the time step of the first frame.
        input: of W_ih x_t. With ``joint`` arrays it is the hardware of the whole pre-activation, and of both outputs of
            the gates that a cell keeps apart, such as a GRU's n; ``recurrent`` is then exact.
        recurrent: of W_hh h_{t-1}.
        elementwise: of the products inside the cell.
        projection: of W_hr h.
        joint: whether W_ih and W_hh lie on one array.
    """

    sample_ids: Sequence[Tensor]
    first_step: int = 0
    input: Product | None = None
    recurrent: Product | None = None
    elementwise: Product | None = None
    projection: Product | None = None
    joint: bool = False

    @property
    def products(self) -> tuple[Product, ...]:
        """The hardware of all sites that are not exact."""
        each = self.input, self.recurrent, self.elementwise, self.projection
        return tuple(product for product in each if product is not None)

    @property
    def on(self) -> bool:
        """Whether any product is not exact."""
        return bool(self.products)

    def gaussian(self, site: str) -> GaussianNoise | None:
        """Return the noise at a site, for implementations that know no other operation."""
        product: Product | None = getattr(self, site)
        return None if product is None else product.gaussian


@dataclass(frozen=True)
class Recurrence:
    """One layer in one direction of K networks: all that an implementation is given.

    Attributes:
        cell: which equations, a name in :data:`asr_dni.nn.cells.CELLS`.
        w_hh: ``(K, gates * H, H or P)``.
        b_hh: ``(K, gates * H)`` or ``None``.
        state: before the first step, ``(K, N, H)`` each; h is ``(K, N, P)`` with a projection.
        sites: the hardware.
        inputs: ``(K, T, N, F)``, or ``(T, N, F)`` that all share; ``None`` where ``projection`` is given.
        w_ih: ``(K, gates * H, F)``.
        b_ih: ``(K, gates * H)`` or ``None``.
        projection: ``(K, T, N, gates * H)``, the clean W_ih x_t + b_ih, where it is there already: only for hardware
            that adds to it, if anything.
        w_hr: ``(K, P, H)``, with which h is projected to P numbers (``proj_size``), or ``None``.
        own: the cell's further parameters, ``(K, H)`` or ``(K, 1)``.
        lengths: ``(K, N)`` numbers of valid steps; a sample's state stays as it is after its last. ``None``: all T.
        products: the precision of the factors of products with matrices, forward and backward: ``bfloat16`` rounds them
            to nearest, ties to even. Sums and everything else have the precision of what is given.
    """

    cell: str
    w_hh: Tensor
    b_hh: Tensor | None
    state: State
    sites: Sites
    inputs: Tensor | None = None
    w_ih: Tensor | None = None
    b_ih: Tensor | None = None
    projection: Tensor | None = None
    w_hr: Tensor | None = None
    own: Mapping[str, Tensor] = field(default_factory=dict)
    lengths: Tensor | None = None
    products: Products = "float32"

    @property
    def given(self) -> Tensor:
        """The inputs, or their projection where that is given."""
        given = self.inputs if self.projection is None else self.projection
        assert given is not None
        return given

    def projected(self) -> Tensor:
        """Return ``(K, T, N, gates * H)``, the clean W_ih x_t + b_ih."""
        if self.projection is not None:
            return self.projection
        assert self.inputs is not None
        assert self.w_ih is not None
        return linear(
            self.inputs, self.w_ih, self.b_ih, shared=self.inputs.dim() == 3, products=self.products
        )


@dataclass(frozen=True)
class Capabilities:
    """What an implementation declares that it runs.

    Attributes:
        name: as it is called in messages.
        cells: names in :data:`asr_dni.nn.cells.CELLS`.
        dtypes: of what is given.
        projection: whether with ``proj_size``.
        lengths: whether sequences with lengths of their own (packed ones).
        operations: on the outputs of products.
        arrays: whether with a DAC, tiles and several operations on one output.
        by_sample: whether with Gaussians of which the samples have different shares.
        learned: whether with converters whose bounds get gradients.
        products: precisions of factors.
    """

    name: str
    cells: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    projection: bool = False
    lengths: bool = False
    operations: tuple[type[LoweredOperation], ...] = (GaussianNoise,)
    arrays: bool = False
    by_sample: bool = False
    learned: bool = False
    products: tuple[Products, ...] = ("float32",)

    def why_not(self, problem: Recurrence, dtype: torch.dtype | None = None) -> str | None:
        """Return in a line why a problem is not among what is declared, or ``None`` where it is.

        Args:
            problem: what is to run.
            dtype: that it will be run in, where that is not the one of what is given.
        """
        dtype = problem.given.dtype if dtype is None else dtype
        if problem.cell not in self.cells:
            return f"no {self.name} recurrence for {problem.cell}"
        if problem.w_hr is not None and not self.projection:
            return f"no {self.name} recurrence for proj_size"
        if problem.lengths is not None and not self.lengths:
            return f"no {self.name} recurrence for packed sequences"
        if dtype not in self.dtypes:
            return f"no {self.name} recurrence for {dtype}"
        if problem.products not in self.products:
            return f"no {self.name} recurrence for products in {problem.products}"
        for product in problem.sites.products:
            if not product.whole and not self.arrays:
                return f"no {self.name} recurrence for a DAC or for tiles"
            converters = [product.dac, *itertools.chain(*product.arrays)]
            if not self.learned and any(isinstance(its, Quantisation) and its.learned for its in converters):
                return f"no {self.name} recurrence for a converter whose bound is being learned"
            for operation in itertools.chain(*product.arrays):
                if not isinstance(operation, self.operations):
                    return f"no {self.name} recurrence for {_IN_WORDS[type(operation)]}"
                if not self.by_sample and getattr(operation, "shares", None) is not None:
                    return f"no {self.name} recurrence for noise whose strength differs from sample to sample"
            if len(product.arrays[0]) > 1 and not self.arrays:
                return f"no {self.name} recurrence for several operations on one output"
        return None


_IN_WORDS: dict[type[LoweredOperation], str] = {
    GaussianNoise: "Gaussian noise",
    AffineNoise: "noise whose numbers are drawn outside",
    Quantisation: "an ADC",
    ReadingNoise: "noise that follows the inputs",
    WireDrop: "what wires take",
}
"""What a message calls an operation."""


def check_cell(name: str) -> None:
    """Check that the equations of a cell are known.

    Raises:
        UserError: they are not.
    """
    if name not in CELLS:
        raise UserError(f"there is no recurrence for the cell {name!r}: give one of {', '.join(CELLS)}")


def check_recurrence(problem: Recurrence) -> None:
    """Check that the equations of a problem's cell are known, and that all of its tensors fit together.

    Compiled kernels take addresses: what does not fit they would read past its end.

    Raises:
        UserError: the cell is unknown, or a shape or the number of noises does not fit.
    """
    check_cell(problem.cell)
    if torch._C._is_tracing():
        return  # sizes are values of the program there
    cell, w_hh, given = CELLS[problem.cell], problem.w_hh, problem.given
    shared = problem.projection is None and given.dim() == 3
    if w_hh.dim() != 3 or given.dim() != (3 if shared else 4):
        raise UserError(
            f"recurrent weights are {tuple(w_hh.shape)} and inputs {tuple(given.shape)}: give (K, ...)"
        )
    networks, fan_out, hidden = w_hh.shape
    width = fan_out // len(cell.gates)
    steps, rows, last = given.shape[-3:]
    leading = () if shared else (networks,)
    own = {name: (networks, width if its.per_unit else 1) for name, its in cell.own.items()}
    if set(own) != set(problem.own):
        raise UserError(
            f"the cell {problem.cell} has parameters {sorted(own)} of its own: got {sorted(problem.own)}"
        )
    if len(problem.state) != len(cell.states):
        raise UserError(
            f"got {len(problem.state)} states for the cell {problem.cell}: give {', '.join(cell.states)}"
        )
    state_widths = (hidden, *(width,) * (len(cell.states) - 1))
    of_w_hh = (networks, len(cell.gates) * width, hidden if problem.w_hr is not None else width)
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("recurrent weights", w_hh, of_w_hh),
        ("recurrent biases", problem.b_hh, (networks, fan_out)),
        ("projection's weights", problem.w_hr, (networks, hidden, width)),
        ("inputs", problem.inputs, (*leading, steps, rows, last)),
        ("input weights", problem.w_ih, (networks, fan_out, last)),
        ("input biases", problem.b_ih, (networks, fan_out)),
        ("projected inputs", problem.projection, (*leading, steps, rows, fan_out)),
        *((name, problem.own[name], shape) for name, shape in own.items()),
        *(
            (f"state {name}", part, (networks, rows, its))
            for name, part, its in zip(cell.states, problem.state, state_widths, strict=True)
        ),
    ]
    for name, tensor, shape in expected:
        if tensor is not None and tuple(tensor.shape) != shape:
            raise UserError(f"the {name} are {tuple(tensor.shape)} instead of {shape}")
    if problem.projection is None and problem.w_ih is None:
        raise UserError("there are inputs, but no input weights")
    _check_sites(problem.sites, networks, rows, steps, problem.projection is not None)
    if problem.lengths is not None:
        _check_integers("the lengths", problem.lengths, ((1, rows), (networks, rows)))


def _check_sites(sites: Sites, networks: int, rows: int, steps: int, projected: bool) -> None:
    if len(sites.sample_ids) != networks:
        raise UserError(f"got {len(sites.sample_ids)} noises for {networks} networks: give one for each")
    for ids in sites.sample_ids:
        _check_integers("the noise's sample identities", ids, ((rows,),))
    if not 0 <= sites.first_step <= 2**32 - max(1, steps):
        raise UserError(
            f"the noise's first step is {sites.first_step}: steps have numbers from 0 to 2**32 - 1"
        )
    if projected and sites.input is not None and not sites.input.additive:
        raise UserError(
            "the clean projection of the inputs was given, but this hardware does not only add to it: give the inputs"
        )
    for product in sites.products:
        for operation in itertools.chain(*product.arrays):
            if isinstance(operation, GaussianNoise) and len(operation.keys) != networks:
                raise UserError(
                    f"got {len(operation.keys)} noises for {networks} networks: give one for each"
                )
            shares = getattr(operation, "shares", None)
            if shares is not None and tuple(shares.shape) != (networks, rows):
                raise UserError(
                    f"noise has shares {tuple(shares.shape)} for {networks} networks and {rows} samples: give one for"
                    " each sample"
                )


def _check_integers(name: str, tensor: Tensor, shapes: Sequence[tuple[int, ...]]) -> None:
    if tuple(tensor.shape) not in shapes or tensor.is_floating_point() or tensor.is_complex():
        raise UserError(
            f"{name} are {tuple(tensor.shape)} {tensor.dtype}: give one integer for each of the {shapes[0][-1]} samples"
        )
