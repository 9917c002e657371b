"""The recurrence of one layer in one direction: what every implementation is given, and the plain definition.

Gates are named i, f, g, o (LSTM) and r, z, n (GRU); equations and order of rows are those of ``torch.nn``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from asr_dni.philox import Key, normal

Cell: TypeAlias = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]
State: TypeAlias = tuple[Tensor, ...]
"""``(h,)``, or ``(h, c)`` for the LSTM; each ``(N, units)``, of K networks ``(K, N, units)``."""

Observer: TypeAlias = Callable[[Tensor, Tensor], None]
"""Called with the two factors of each product inside the cell, without the rows that are past their length."""

GATES: dict[Cell, int] = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
PRODUCTS: dict[Cell, int] = {"rnn_tanh": 0, "rnn_relu": 0, "lstm": 3, "gru": 3}


class SiteNoise(NamedTuple):
    """Noise at one site of one layer in one direction: N(0, std**2), numbers named by ``key``."""

    std: float
    key: Key


@dataclass(frozen=True)
class LayerNoise:
    """Noise in one layer in one direction; ``None`` where a site is clean.

    With joint arrays ``input`` is the noise of the whole pre-activation. What is then left for ``recurrent`` is the
    second output of a GRU's n gate (``recurrent_n_only``).
    """

    sample_ids: Tensor
    first_step: int = 0
    input: SiteNoise | None = None
    recurrent: SiteNoise | None = None
    elementwise: SiteNoise | None = None
    projection: SiteNoise | None = None
    recurrent_n_only: bool = False

    @property
    def on(self) -> bool:
        """Whether any site is noisy."""
        return any((self.input, self.recurrent, self.elementwise, self.projection))


@dataclass(frozen=True)
class RecurrentWeights:
    """What the recurrence of one layer in one direction multiplies with; of K networks with a leading axis K.

    Attributes:
        cell: which equations.
        w_hh: ``(gates * H, H or P)``.
        b_hh: ``(gates * H,)`` or ``None``.
        w_hr: ``(P, H)``, the projection of an LSTM with ``proj_size`` P, or ``None``.
    """

    cell: Cell
    w_hh: Tensor
    b_hh: Tensor | None
    w_hr: Tensor | None = None


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


def run_reference(
    weights: RecurrentWeights,
    projection: Tensor,
    state: State,
    noise: LayerNoise | Sequence[LayerNoise],
    lengths: Tensor | None = None,
    observe: Observer | None = None,
    draw: Draw = draw_plain,
) -> tuple[Tensor, State]:
    """Run the recurrence as a loop over time steps: the definition that every faster implementation is held to.

    With a sequence of K noises everything else has a leading axis of K networks, and so has the result.

    Args:
        weights: the layer's recurrent weights.
        projection: ``(T, N, gates * H)``, the clean ``W_ih x_t + b_ih``.
        state: the state before the first step.
        noise: the noise at each site.
        lengths: ``(N,)`` numbers of valid steps; a sample's state stays as it is after its last. ``None``: all T.
        observe: told the factors of the products inside the cell.
        draw: draws the noise.

    Returns:
        ``(T, N, H or P)`` outputs (zero after a sample's length) and the state after the last step.
    """
    cell, w_hh = weights.cell, weights.w_hh
    steps, width = projection.shape[-3], projection.shape[-1] // GATES[cell]
    noises = [noise] if isinstance(noise, LayerNoise) else noise

    def numbers(site: Literal["input", "recurrent", "elementwise", "projection"], groups: int) -> Tensor:
        """Draw ``(T, N, groups * width)``, of K networks ``(T, K, N, groups * width)``."""
        site_width = w_hh.shape[-1] if site == "projection" else width
        drawn = []
        for its_noise in noises:
            its_site: SiteNoise | None = getattr(its_noise, site)
            if its_site is None:
                drawn.append(projection.new_zeros(steps, 1, 1))  # adds nothing
                continue
            arguments = its_noise.sample_ids, its_noise.first_step, steps, groups, site_width, projection
            its_drawn = draw(its_site, *arguments)
            if site == "recurrent" and its_noise.recurrent_n_only:
                zeros = torch.zeros_like(its_drawn[..., : 2 * width])
                its_drawn = torch.cat((zeros, its_drawn[..., 2 * width :]), -1)
            drawn.append(its_drawn)
        if isinstance(noise, LayerNoise):
            return drawn[0]
        return torch.stack(torch.broadcast_tensors(*drawn), 1)  # type: ignore[no-untyped-call]

    n_input, n_recurrent = numbers("input", GATES[cell]), numbers("recurrent", GATES[cell])
    n_products, n_projection = numbers("elementwise", PRODUCTS[cell]), numbers("projection", 1)
    b_hh = None if weights.b_hh is None else weights.b_hh.unsqueeze(-2)
    projection = projection.movedim(-3, 0)

    def product(left: Tensor, right: Tensor, its_noise: Tensor) -> Tensor:
        if observe is not None:
            within = slice(None) if lengths is None else t < lengths
            observe(left[within], right[within])
        return left * right + its_noise

    outputs = []
    for t in range(steps):
        h = state[0]
        mvm = h @ w_hh.mT
        hidden = mvm + n_recurrent[t] if b_hh is None else mvm + b_hh + n_recurrent[t]
        inward = projection[t] + n_input[t]
        n_a, n_b, n_c = (inward,) * 3
        if PRODUCTS[cell]:
            n_a, n_b, n_c = n_products[t].expand(*n_products[t].shape[:-1], 3 * width).chunk(3, -1)
        if cell == "lstm":
            i, f, g, o = (inward + hidden).chunk(4, -1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            c = product(f, state[1], n_a) + product(i, g, n_b)
            h = product(o, c.tanh(), n_c)
            if weights.w_hr is not None:
                h = h @ weights.w_hr.mT + n_projection[t]
            new: State = (h, c)
        elif cell == "gru":
            inward_r, inward_z, inward_n = inward.chunk(3, -1)
            hidden_r, hidden_z, hidden_n = hidden.chunk(3, -1)
            r = (inward_r + hidden_r).sigmoid()
            z = (inward_z + hidden_z).sigmoid()
            n = (inward_n + product(r, hidden_n, n_a)).tanh()
            new = (product(1 - z, n, n_b) + product(z, h, n_c),)
        else:
            total = inward + hidden
            new = (total.tanh() if cell == "rnn_tanh" else total.relu(),)
        if lengths is not None:
            valid = (t < lengths)[..., None]
            outputs.append(torch.where(valid, new[0], torch.zeros_like(new[0])))
            new = tuple(torch.where(valid, after, before) for after, before in zip(new, state, strict=True))
        else:
            outputs.append(new[0])
        state = new
    return torch.stack(outputs, -3), state
