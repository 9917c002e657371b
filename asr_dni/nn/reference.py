"""The recurrence as a plain loop over time steps: the definition that every faster implementation is held to."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from asr_dni.nn.cells import CELLS, State
from asr_dni.nn.crossbar import Crossbar
from asr_dni.nn.mvm import linear, round_factor, round_gradient
from asr_dni.nn.operations import Draw, Drawing, LoweredOperation, Outputs, Product, draw_plain
from asr_dni.nn.recurrence import Recurrence, check_recurrence

Observer: TypeAlias = Callable[[Tensor, Tensor, int], None]
"""Called with the two factors of each product inside the cell and the place of its first output, without the rows that
are past their length."""


def run_reference(
    problem: Recurrence, observe: Observer | None = None, draw: Draw = draw_plain
) -> tuple[Tensor, State]:
    """Run the recurrence as a loop over time steps: the definition that every faster implementation is held to.

    Args:
        problem: what is to run.
        observe: told the factors of the products inside the cell, ``(K, N, H)`` or what broadcasts to it, and places.
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
        onto_outputs = _crossbar(problem, sites.projection, problem.w_hr, drawing)
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


def _crossbar(
    problem: Recurrence,
    product: Product | None,
    weight: Tensor,
    drawing: Drawing,
    linked: Tensor | None = None,
) -> Crossbar:
    """Return a matrix on arrays, with factors in the problem's precision."""

    def multiply(x: Tensor, weight: Tensor, shared: bool) -> Tensor:
        return linear(x, weight, shared=shared, products=problem.products)

    return Crossbar(product or _EXACT, weight, drawing, linked, multiply)


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
        cell, sites, self._products = CELLS[problem.cell], problem.sites, problem.products
        self._w_hh = round_factor(problem.w_hh, problem.products)
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
        hidden = round_gradient(round_factor(h, self._products) @ self._w_hh.mT, self._products)
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
            inward = _crossbar(problem, sites.input, problem.w_ih, drawing)(inputs, shared=inputs.dim() == 3)
            inward = inward if problem.b_ih is None else inward + problem.b_ih[:, None, None]
        self._inward = inward.unbind(-3)
        self._hidden = _crossbar(problem, sites.recurrent, problem.w_hh, drawing)
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
        self._array = _crossbar(
            problem,
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
            self._observe(left.expand_as(product)[within], right.expand_as(product)[within], self._first)
        last = self._first + product.shape[-1]
        product = self._outputs(product, self._step, slice(self._first, last))
        self._first = last
        return product
