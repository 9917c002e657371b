"""The recurrence of one layer in one direction: what every implementation is given, and the plain definition.

The equations of a step are the cell's, see :mod:`asr_dni.nn.cells`; there are always K networks, one being K = 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.nn.cells import CELLS, State
from asr_dni.nn.crossbar import Crossbar
from asr_dni.nn.mvm import linear
from asr_dni.nn.operations import (
    AffineNoise,
    Draw,
    Drawing,
    GaussianNoise,
    LoweredOperation,
    Outputs,
    Product,
    Quantisation,
    draw_plain,
)

Observer: TypeAlias = Callable[[Tensor, Tensor], None]
"""Called with the two factors of each product inside the cell, without the rows that are past their length."""


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
        return linear(self.inputs, self.w_ih, self.b_ih, shared=self.inputs.dim() == 3)


@dataclass(frozen=True)
class Capabilities:
    """What an implementation declares that it runs.

    Attributes:
        name: as it is called in messages.
        cells: names in :data:`asr_dni.nn.cells.CELLS`.
        dtypes: of what is given.
        projection: whether with ``proj_size``.
        lengths: whether sequences with lengths of their own (packed ones).
        operations: on the outputs of products, one at a site.
    """

    name: str
    cells: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    projection: bool = False
    lengths: bool = False
    operations: tuple[type[LoweredOperation], ...] = (GaussianNoise,)

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
        for product in problem.sites.products:
            if not product.whole:
                return f"no {self.name} recurrence for a DAC or for tiles"
            for operation in product.arrays[0]:
                if not isinstance(operation, self.operations):
                    return f"no {self.name} recurrence for {_IN_WORDS[type(operation)]}"
            if len(product.arrays[0]) > 1:
                return f"no {self.name} recurrence for several operations on one output"
        return None


_IN_WORDS: dict[type[LoweredOperation], str] = {
    GaussianNoise: "Gaussian noise",
    AffineNoise: "noise whose numbers are drawn outside",
    Quantisation: "an ADC",
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
        for operation in product.arrays[0]:
            if isinstance(operation, GaussianNoise) and len(operation.keys) != networks:
                raise UserError(
                    f"got {len(operation.keys)} noises for {networks} networks: give one for each"
                )


def _check_integers(name: str, tensor: Tensor, shapes: Sequence[tuple[int, ...]]) -> None:
    if tuple(tensor.shape) not in shapes or tensor.is_floating_point() or tensor.is_complex():
        raise UserError(
            f"{name} are {tuple(tensor.shape)} {tensor.dtype}: give one integer for each of the {shapes[0][-1]} samples"
        )


def run_reference(
    problem: Recurrence, observe: Observer | None = None, draw: Draw = draw_plain
) -> tuple[Tensor, State]:
    """Run the recurrence as a loop over time steps: the definition that every faster implementation is held to.

    Args:
        problem: what is to run.
        observe: told the factors of the products inside the cell, ``(K, N, H)`` or what broadcasts to it.
        draw: draws the noise.

    Returns:
        ``(K, T, N, H or P)`` outputs (zero after a sample's length) and the state after the last step. Network k's
        result is what its slices give alone, whichever networks are beside it.

    Raises:
        UserError: see :func:`check_recurrence`.
    """
    cell, lengths, state = CELLS[problem.cell], problem.lengths, problem.state
    check_recurrence(problem)
    gates = _gates(problem, draw)
    sites = problem.sites
    own = {name: parameter.unsqueeze(-2) for name, parameter in problem.own.items()}
    width = problem.w_hh.shape[-2] // len(cell.gates)
    drawing = _drawing(problem, draw, cell.products, width)
    times = _Products(
        Outputs(_operations(sites.elementwise) if cell.products else (), drawing), lengths, observe
    )
    onto_outputs: Crossbar | None = None
    if problem.w_hr is not None:
        drawing = _drawing(problem, draw, 1, problem.w_hr.shape[-2])
        onto_outputs = Crossbar(sites.projection or _EXACT, problem.w_hr, drawing)
    outputs = []
    for t in range(problem.given.shape[-3]):  # a traced program is then for this number of them
        times.begin(t)
        new = cell.step(*gates(t, state[0]), state, own, times)
        if onto_outputs is not None:
            new = (onto_outputs(new[0], t), *new[1:])
        if lengths is not None:
            valid = (t < lengths)[..., None]
            outputs.append(torch.where(valid, new[0], torch.zeros_like(new[0])))
            new = tuple(torch.where(valid, after, before) for after, before in zip(new, state, strict=True))
        else:
            outputs.append(new[0])
        state = new
    return torch.stack(outputs, -3), state


_EXACT = Product(((),))


def _operations(product: Product | None) -> tuple[LoweredOperation, ...]:
    return () if product is None else product.arrays[0]


def _drawing(problem: Recurrence, draw: Draw, groups: int, width: int) -> Drawing:
    sites, given = problem.sites, problem.given
    return Drawing(sites.sample_ids, sites.first_step, given.shape[-3], groups, width, given, draw)


def _gates(problem: Recurrence, draw: Draw) -> "_AddedTo | _OnArrays | _OnOneArray":
    """Return what gives the two parts of the gates' pre-activations."""
    sites = problem.sites
    if all(product is None or product.additive for product in (sites.input, sites.recurrent)):
        return _AddedTo(problem, draw)
    return _OnOneArray(problem, draw) if sites.joint else _OnArrays(problem, draw)


class _AddedTo:
    """Gates on hardware that only adds numbers to outputs: the inputs' part is there for all steps before the first."""

    def __init__(self, problem: Recurrence, draw: Draw) -> None:
        cell, sites, self._w_hh = CELLS[problem.cell], problem.sites, problem.w_hh
        width = problem.w_hh.shape[-2] // len(cell.gates)
        outputs = len(cell.gates) * width
        second = cell.apart if sites.joint and sites.input is not None else ()
        of_input = Outputs(
            _operations(sites.input), _drawing(problem, draw, len(cell.gates) + len(second), width)
        )
        self._of_hidden = Outputs(
            _operations(sites.recurrent), _drawing(problem, draw, len(cell.gates), width)
        )
        self._inward = of_input(problem.projected(), part=slice(outputs)).unbind(-3)
        self._b_hh = None if problem.b_hh is None else problem.b_hh.unsqueeze(-2)
        self._apart = [
            (slice(width * cell.gates.index(gate), width * (cell.gates.index(gate) + 1)), place)
            for gate, place in zip(
                second,
                (slice(outputs + width * k, outputs + width * (k + 1)) for k in range(len(second))),
                strict=True,
            )
        ]
        self._of_second = of_input

    def __call__(self, t: int, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return W_ih x_t + b_ih and W_hh h + b_hh with their noise, ``(K, N, gates * H)`` each."""
        hidden = h @ self._w_hh.mT
        if self._apart:
            pieces, end = [], 0
            for gate, place in self._apart:
                pieces += [hidden[..., end : gate.start], self._of_second(hidden[..., gate], t, place)]
                end = gate.stop
            hidden = torch.cat([*pieces, hidden[..., end:]], -1)
        hidden = self._of_hidden(hidden, t)
        return self._inward[t], hidden if self._b_hh is None else hidden + self._b_hh


class _OnArrays:
    """Gates whose W_ih and W_hh lie on arrays of their own."""

    def __init__(self, problem: Recurrence, draw: Draw) -> None:
        cell, sites, inputs = CELLS[problem.cell], problem.sites, problem.inputs
        width = problem.w_hh.shape[-2] // len(cell.gates)
        drawing = _drawing(problem, draw, len(cell.gates), width)
        if sites.input is None:
            inward = problem.projected()
        else:
            assert inputs is not None
            assert problem.w_ih is not None
            inward = Crossbar(sites.input, problem.w_ih, drawing)(inputs, shared=inputs.dim() == 3)
            inward = inward if problem.b_ih is None else inward + problem.b_ih[:, None, None]
        self._inward = inward.unbind(-3)
        self._hidden = Crossbar(sites.recurrent or _EXACT, problem.w_hh, drawing)
        self._b_hh = None if problem.b_hh is None else problem.b_hh.unsqueeze(-2)

    def __call__(self, t: int, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return W_ih x_t + b_ih and W_hh h + b_hh, ``(K, N, gates * H)`` each."""
        hidden = self._hidden(h, t)
        return self._inward[t], hidden if self._b_hh is None else hidden + self._b_hh


class _OnOneArray:
    """Gates that are outputs of one array [W_ih W_hh]; those that the cell keeps apart are two outputs of it."""

    def __init__(self, problem: Recurrence, draw: Draw) -> None:
        cell, w_ih, w_hh = CELLS[problem.cell], problem.w_ih, problem.w_hh
        assert problem.sites.input is not None
        assert problem.inputs is not None
        assert w_ih is not None
        self._outputs = w_hh.shape[-2]
        width = self._outputs // len(cell.gates)
        apart = torch.tensor([gate in cell.apart for gate in cell.gates], device=w_hh.device)
        apart = apart.repeat_interleave(width)
        self._apart = apart.nonzero()[:, 0] if cell.apart else None
        fed, fed_back = w_ih.shape[-1], w_hh.shape[-1]
        of_inputs = torch.cat((w_ih, w_ih.new_zeros(len(w_ih), int(apart.sum()), fed)), -2)
        of_hidden = torch.cat((w_hh.masked_fill(apart[:, None], 0.0), w_hh[:, apart]), -2)
        second = torch.arange(of_inputs.shape[-2], device=w_hh.device) >= self._outputs
        both = second | torch.cat((~apart, apart[apart]))
        linked = torch.cat(((~second)[:, None].expand(-1, fed), both[:, None].expand(-1, fed_back)), -1)
        groups = len(cell.gates) + len(cell.apart)
        self._array = Crossbar(
            problem.sites.input,
            torch.cat((of_inputs, of_hidden), -1),
            _drawing(problem, draw, groups, width),
            linked if cell.apart else None,
        )
        inputs = problem.inputs
        self._inputs = (inputs if inputs.dim() == 4 else inputs.expand(len(w_hh), *inputs.shape)).unbind(-3)
        self._b_ih = 0.0 if problem.b_ih is None else problem.b_ih.unsqueeze(-2)
        self._b_hh = (
            w_hh.new_zeros(1, 1, self._outputs) if problem.b_hh is None else problem.b_hh.unsqueeze(-2)
        )

    def __call__(self, t: int, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return two parts ``(K, N, gates * H)`` whose sum, where a cell takes it, is the gate's pre-activation."""
        y = self._array(torch.cat((self._inputs[t], h), -1), t)
        hidden = self._b_hh.expand(*y.shape[:-1], self._outputs)
        if self._apart is not None:
            hidden = hidden.index_add(-1, self._apart, y[..., self._outputs :])
        return y[..., : self._outputs] + self._b_ih, hidden


class _Products:
    """Takes the products inside the cell, each with its noise, step by step."""

    def __init__(self, outputs: Outputs, lengths: Tensor | None, observe: Observer | None) -> None:
        self._outputs, self._lengths, self._observe = outputs, lengths, observe
        self._step = self._first = 0

    def begin(self, step: int) -> None:
        """Begin a time step."""
        self._step, self._first = step, 0

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the product of two tensors that broadcast against each other."""
        product = left * right
        if self._observe is not None:
            within = slice(None) if self._lengths is None else self._step < self._lengths
            self._observe(left.expand_as(product)[within], right.expand_as(product)[within])
        last = self._first + product.shape[-1]
        product = self._outputs(product, self._step, slice(self._first, last))
        self._first = last
        return product
