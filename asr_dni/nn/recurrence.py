"""The recurrence of one layer in one direction: what every implementation is given, and the plain definition.

The equations of a step are the cell's, see :mod:`asr_dni.nn.cells`; there are always K networks, one being K = 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.nn.cells import CELLS, State
from asr_dni.nn.mvm import linear
from asr_dni.philox import Key, derive_key, normal

Observer: TypeAlias = Callable[[Tensor, Tensor], None]
"""Called with the two factors of each product inside the cell, without the rows that are past their length."""

_MOST_GROUPS = 4
"""Numbers that one counter gives."""


class SiteNoise(NamedTuple):
    """Noise at one site of one layer in one direction: N(0, std**2), numbers named by ``key``."""

    std: float
    key: Key


@dataclass(frozen=True)
class LayerNoise:
    """Noise in one layer in one direction; ``None`` where a site is clean.

    With ``joint`` arrays ``input`` is the noise of the whole pre-activation, and of both outputs of the gates that a
    cell keeps apart, such as a GRU's n; ``recurrent`` is then clean.
    """

    sample_ids: Tensor
    first_step: int = 0
    input: SiteNoise | None = None
    recurrent: SiteNoise | None = None
    elementwise: SiteNoise | None = None
    projection: SiteNoise | None = None
    joint: bool = False

    @property
    def on(self) -> bool:
        """Whether any site is noisy."""
        return any((self.input, self.recurrent, self.elementwise, self.projection))


@dataclass(frozen=True)
class Recurrence:
    """One layer in one direction of K networks: all that an implementation is given.

    Attributes:
        cell: which equations, a name in :data:`asr_dni.nn.cells.CELLS`.
        w_hh: ``(K, gates * H, H or P)``.
        b_hh: ``(K, gates * H)`` or ``None``.
        state: before the first step, ``(K, N, H)`` each; h is ``(K, N, P)`` with a projection.
        noise: of each network.
        inputs: ``(K, T, N, F)``, or ``(T, N, F)`` that all share; ``None`` where ``projection`` is given.
        w_ih: ``(K, gates * H, F)``.
        b_ih: ``(K, gates * H)`` or ``None``.
        projection: ``(K, T, N, gates * H)``, the clean W_ih x_t + b_ih, where it is there already.
        w_hr: ``(K, P, H)``, with which h is projected to P numbers (``proj_size``), or ``None``.
        own: the cell's further parameters, ``(K, H)`` or ``(K, 1)``.
        lengths: ``(K, N)`` numbers of valid steps; a sample's state stays as it is after its last. ``None``: all T.
    """

    cell: str
    w_hh: Tensor
    b_hh: Tensor | None
    state: State
    noise: Sequence[LayerNoise]
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
    """

    name: str
    cells: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    projection: bool = False
    lengths: bool = False

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
        if len({noise.joint for noise in problem.noise}) > 1:
            return f"no {self.name} recurrence for networks whose arrays differ"
        return None


class Draw(Protocol):
    """How the noise of a site is drawn."""

    def __call__(
        self,
        noise: SiteNoise,
        sample_ids: Tensor,
        first_step: int,
        steps: int,
        groups: int,
        width: int,
        like: Tensor,
    ) -> Tensor:
        """Return ``(T, N, groups * width)`` numbers from N(0, std**2), with the dtype and device of ``like``."""


def draw_plain(
    noise: SiteNoise, sample_ids: Tensor, first_step: int, steps: int, groups: int, width: int, like: Tensor
) -> Tensor:
    """Draw by :func:`asr_dni.philox.normal`: the definition."""
    times = torch.arange(first_step, first_step + steps, device=like.device)
    return noise.std * normal(noise.key, sample_ids, times, groups, width).to(like.dtype)


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
    if len(problem.noise) != networks:
        raise UserError(f"got {len(problem.noise)} noises for {networks} networks: give one for each")
    for noise in problem.noise:
        _check_integers("the noise's sample identities", noise.sample_ids, ((rows,),))
        if not 0 <= noise.first_step <= 2**32 - max(1, steps):
            raise UserError(
                f"the noise's first step is {noise.first_step}: steps have numbers from 0 to 2**32 - 1"
            )
    if problem.lengths is not None:
        _check_integers("the lengths", problem.lengths, ((1, rows), (networks, rows)))


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
    projection = problem.projected()
    of_steps = projection.unbind(-3)  # a traced program is then for this number of them
    steps, width = len(of_steps), problem.w_hh.shape[-2] // len(cell.gates)
    drawing = _Drawing(problem, steps, width, projection, draw)
    n_input, n_recurrent = drawing.gates()
    n_projection = drawing.projection()
    b_hh = None if problem.b_hh is None else problem.b_hh.unsqueeze(-2)
    own = {name: parameter.unsqueeze(-2) for name, parameter in problem.own.items()}

    times = _Products(drawing.products(), lengths, observe)
    outputs = []
    for t in range(steps):
        times.begin(t)
        mvm = state[0] @ problem.w_hh.mT
        hidden = mvm + n_recurrent[t] if b_hh is None else mvm + b_hh + n_recurrent[t]
        new = cell.step(of_steps[t] + n_input[t], hidden, state, own, times)
        if problem.w_hr is not None:
            new = (new[0] @ problem.w_hr.mT + n_projection[t], *new[1:])
        if lengths is not None:
            valid = (t < lengths)[..., None]
            outputs.append(torch.where(valid, new[0], torch.zeros_like(new[0])))
            new = tuple(torch.where(valid, after, before) for after, before in zip(new, state, strict=True))
        else:
            outputs.append(new[0])
        state = new
    return torch.stack(outputs, -3), state


class _Products:
    """Takes the products inside the cell, each with its noise, step by step."""

    def __init__(self, noise: Sequence[Tensor], lengths: Tensor | None, observe: Observer | None) -> None:
        self._noise, self._lengths, self._observe = noise, lengths, observe
        self._step = self._count = 0

    def begin(self, step: int) -> None:
        """Begin a time step."""
        self._step, self._count = step, 0

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the product of two tensors that broadcast against each other."""
        product = left * right
        if self._observe is not None:
            within = slice(None) if self._lengths is None else self._step < self._lengths
            self._observe(left.expand_as(product)[within], right.expand_as(product)[within])
        noise = self._noise[self._count]
        self._count += 1
        return product + noise[self._step]


class _Drawing:
    """Draws the noise of all steps of a problem's sites, ``(T, K, N, ...)``."""

    def __init__(self, problem: Recurrence, steps: int, width: int, like: Tensor, draw: Draw) -> None:
        self._problem, self._cell = problem, CELLS[problem.cell]
        self._steps, self._width, self._like, self._draw = steps, width, like, draw

    def _of_one(self, noise: LayerNoise, site: SiteNoise | None, groups: int, width: int) -> Tensor:
        """Return ``(T, N, groups * width)``; of a clean site what broadcasts to it and adds nothing."""
        if site is None:
            return self._like.new_zeros(self._steps, 1, 1)
        parts = []
        for first in range(0, groups, _MOST_GROUPS):
            # A counter has numbers for four groups; further ones have a key of their own.
            key = derive_key(*site.key, "groups", first) if first else site.key
            within = noise.sample_ids, noise.first_step, self._steps, min(groups - first, _MOST_GROUPS), width
            parts.append(self._draw(site._replace(key=key), *within, self._like))
        return torch.cat(parts, -1)

    def _of_all(self, drawn: Sequence[Tensor]) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*drawn), 1)  # type: ignore[no-untyped-call]

    def gates(self) -> tuple[Tensor, Tensor]:
        """Return the noise of W_ih x and of W_hh h, ``(T, K, N, gates * H)`` or, where clean, what broadcasts to it."""
        gates, width, apart = len(self._cell.gates), self._width, self._cell.apart
        inward, hidden = [], []
        for noise in self._problem.noise:
            second = len(apart) if noise.joint and noise.input is not None else 0
            drawn = self._of_one(noise, noise.input, gates + second, width)
            inward.append(drawn[..., : gates * width] if noise.input is not None else drawn)
            if second:
                seconds = dict(zip(apart, drawn[..., gates * width :].chunk(second, -1), strict=True))
                clean = torch.zeros_like(drawn[..., :width])
                hidden.append(torch.cat([seconds.get(gate, clean) for gate in self._cell.gates], -1))
            else:
                hidden.append(self._of_one(noise, noise.recurrent, gates, width))
        return self._of_all(inward), self._of_all(hidden)

    def products(self) -> list[Tensor]:
        """Return ``(T, K, N, H)``, or what broadcasts to it, for each of the cell's products."""
        count = self._cell.products
        if not count:
            return []
        drawn = self._of_all(
            [self._of_one(noise, noise.elementwise, count, self._width) for noise in self._problem.noise]
        )
        clean = all(noise.elementwise is None for noise in self._problem.noise)
        return [drawn] * count if clean else list(drawn.chunk(count, -1))

    def projection(self) -> Tensor:
        """Return ``(T, K, N, P)``."""
        width = self._problem.w_hh.shape[-1]
        return self._of_all(
            [self._of_one(noise, noise.projection, 1, width) for noise in self._problem.noise]
        )
