"""The recurrent cells: one class each, with its equations as bare lines. Everything else derives from it.

The loop over time (:func:`asr_dni.nn.reference.run_reference`), the layers and their parameters, the settings and
the kernels' tables ask the cell for its gates, states, products and parameters. A new cell is a class here, or in a
file of its own, and its name in :data:`CELLS`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from asr_dni.errors import UserError

State: TypeAlias = tuple[Tensor, ...]
"""``(h,)`` or ``(h, c)``; each ``(N, H)``, of K networks ``(K, N, H)``."""

Activation: TypeAlias = Literal["sigmoid", "tanh"]

Times: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The product of two tensors inside the cell, element by element, with its noise."""


@dataclass(frozen=True)
class OwnParameter:
    """A parameter that a cell has beside its matrices and their biases.

    Attributes:
        per_unit: whether it is ``(H,)``, one number for each unit, or ``(1,)``.
        initial: what it starts from; ``None``: from U(-1 / sqrt(H), 1 / sqrt(H)), as torch's recurrent layers do.
        gate: to whose pre-activation it is proportional, and that it is softened with; "": to none.
    """

    per_unit: bool = True
    initial: float | None = None
    gate: str = ""


_SOFTENING = {"sigmoid": math.pi / 8, "tanh": math.pi / 2}
"""By activation, c of k = (1 + c s**2)**-0.5, with which it is about its mean under noise of variance s**2."""

_OF_LSTM: Mapping[str, Activation] = {
    "i": "sigmoid",
    "f": "sigmoid",
    "g": "tanh",
    "o": "sigmoid",
}
_SQUARE_OF_A_GATE = 1 / 3
"""The mean square of a gate that is anywhere between 0 and 1 alike."""


class RecurrentCell(ABC):
    """One step of a recurrence.

    Attributes:
        gates: the blocks of H rows of W_ih and W_hh, in their order.
        states: what is carried from step to step; ``h`` comes first, and is the output.
        products: how many products :meth:`step` takes element by element, by ``times``.
        apart: gates whose input and recurrent parts do not simply add up: two outputs even of one array.
        biases: whether W_ih x and W_hh h have biases of their own.
        forget_gate: the gate that keeps the old state the more the larger it is, where ``forget_bias`` is added.
        projects: whether the layer may project h to fewer numbers (``proj_size``).
        own: further parameters, by their names.
        activations: what each gate's pre-activation goes through, and through nothing else; empty: softening is not
            known.
        within: of each product inside the cell, the gate whose pre-activation it is part of; "": of none.
    """

    gates: ClassVar[tuple[str, ...]]
    states: ClassVar[tuple[str, ...]] = ("h",)
    products: ClassVar[int] = 0
    apart: ClassVar[tuple[str, ...]] = ()
    biases: ClassVar[bool] = True
    forget_gate: ClassVar[str | None] = None
    projects: ClassVar[bool] = False
    own: ClassVar[Mapping[str, OwnParameter]] = {}
    activations: ClassVar[Mapping[str, Activation]] = {}
    within: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def step(
        self, inward: Tensor, hidden: Tensor, state: State, own: Mapping[str, Tensor], times: Times
    ) -> State:
        """Return the state after a step.

        Args:
            inward: ``(*, N, gates * H)``, W_ih x_t + b_ih with its noise.
            hidden: ``(*, N, gates * H)``, W_hh h_{t-1} + b_hh with its noise.
            state: before the step.
            own: the cell's own parameters, to be broadcast over the samples.
            times: takes the products inside the cell; called ``products`` times, always in the same order.
        """

    def split(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the gates' parts of ``(*, gates * H)``, each ``(*, H)``."""
        return rows.chunk(len(self.gates), -1)

    def softening(self, inward: Tensor, hidden: Tensor, inside: Tensor) -> Tensor:
        """Return what pre-activations are multiplied with for each activation to be about its mean under noise.

        The mean of sigmoid(a + s N) is about sigmoid(a / sqrt(1 + pi s**2 / 8)), that of tanh(a + s N) about
        tanh(a / sqrt(1 + pi s**2 / 2)) (D. MacKay, Neural Computation 4, 720, 1992). Of a gate in :attr:`apart`, W_ih x
        + r (W_hh h), s**2 = s_ih**2 + r**2 s_hh**2, in which 1/3 stands for the square of the gate r: rows of matrices
        can't follow it from step to step.

        Args:
            inward: ``(K, gates)``, variance of the noise on W_ih x; all of it where a gate is one output of one array.
            hidden: ``(K, gates)``, of the noise on W_hh h.
            inside: ``(K, products)``, of the noise of the products inside the cell.

        Returns:
            ``(K, gates)``, 1 where the sum of the variances is not above 0.

        Raises:
            UserError: an activation is another one, or one output goes through two.
        """
        if set(self.activations) != set(self.gates):
            raise UserError(
                f"the cell {type(self).__name__} can't make up for missing noise, as not each of its gates goes through"
                " one sigmoid or tanh: leave the compensation out"
            )
        factors = []
        for place, gate in enumerate(self.gates):
            share = _SQUARE_OF_A_GATE if gate in self.apart else 1.0
            variance = inward[:, place] + share * hidden[:, place]
            for product in (k for k, its in enumerate(self.within) if its == gate):
                variance = variance + inside[:, product]
            factors.append((1 + _SOFTENING[self.activations[gate]] * variance.clamp(min=0)).rsqrt())
        return torch.stack(factors, -1)


class TanhRNN(RecurrentCell):
    """``torch.nn.RNN``: h = tanh(W_ih x + b_ih + W_hh h + b_hh)."""

    gates = ("h",)
    activations: ClassVar[Mapping[str, Activation]] = {"h": "tanh"}

    def step(
        self, inward: Tensor, hidden: Tensor, state: State, own: Mapping[str, Tensor], times: Times
    ) -> State:
        """Return ``(h,)``."""
        return ((inward + hidden).tanh(),)


class ReluRNN(RecurrentCell):
    """``torch.nn.RNN`` with ``nonlinearity="relu"``."""

    gates = ("h",)

    def step(
        self, inward: Tensor, hidden: Tensor, state: State, own: Mapping[str, Tensor], times: Times
    ) -> State:
        """Return ``(h,)``."""
        return ((inward + hidden).relu(),)


class LSTM(RecurrentCell):
    """``torch.nn.LSTM`` (S. Hochreiter and J. Schmidhuber 1997, with forget gates)."""

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    products = 3
    forget_gate = "f"
    projects = True
    activations = _OF_LSTM

    def step(
        self, inward: Tensor, hidden: Tensor, state: State, own: Mapping[str, Tensor], times: Times
    ) -> State:
        """Return ``(h, c)``."""
        _, c = state
        i, f, g, o = self.split(inward + hidden)
        c = times(f.sigmoid(), c) + times(i.sigmoid(), g.tanh())
        h = times(o.sigmoid(), c.tanh())
        return h, c


class PeepholeLSTM(RecurrentCell):
    """LSTM whose gates see the cell's state (F. Gers, N. Schraudolph and J. Schmidhuber, JMLR 3, 2002).

    The input and forget gates see the state before the step, the output gate the one after it.
    """

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    products = 6
    forget_gate = "f"
    projects = True
    own: ClassVar[Mapping[str, OwnParameter]] = {
        "peephole_i": OwnParameter(gate="i"),
        "peephole_f": OwnParameter(gate="f"),
        "peephole_o": OwnParameter(gate="o"),
    }
    activations = _OF_LSTM
    within = ("i", "f", "", "", "o", "")

    def step(
        self, inward: Tensor, hidden: Tensor, state: State, own: Mapping[str, Tensor], times: Times
    ) -> State:
        """Return ``(h, c)``."""
        _, c = state
        i, f, g, o = self.split(inward + hidden)
        i = (i + times(own["peephole_i"], c)).sigmoid()
        f = (f + times(own["peephole_f"], c)).sigmoid()
        c = times(f, c) + times(i, g.tanh())
        o = (o + times(own["peephole_o"], c)).sigmoid()
        h = times(o, c.tanh())
        return h, c


class GRU(RecurrentCell):
    """``torch.nn.GRU``: the reset gate comes after the recurrent product (K. Cho et al. 2014, in cuDNN's form)."""

    gates = ("r", "z", "n")
    products = 3
    apart = ("n",)
    activations: ClassVar[Mapping[str, Activation]] = {
        "r": "sigmoid",
        "z": "sigmoid",
        "n": "tanh",
    }
    within = ("n", "", "")

    def step(
        self, inward: Tensor, hidden: Tensor, state: State, own: Mapping[str, Tensor], times: Times
    ) -> State:
        """Return ``(h,)``."""
        (h,) = state
        inward_r, inward_z, inward_n = self.split(inward)
        hidden_r, hidden_z, hidden_n = self.split(hidden)
        r = (inward_r + hidden_r).sigmoid()
        z = (inward_z + hidden_z).sigmoid()
        n = (inward_n + times(r, hidden_n)).tanh()
        h = times(1 - z, n) + times(z, h)
        return (h,)


class MinimalGatedUnit(RecurrentCell):
    """A GRU with one gate (G.-B. Zhou et al., "Minimal gated unit for recurrent neural networks", 2016, eq. 6 to 8).

    The gate comes after the recurrent product, as in ``torch.nn.GRU``, so that a step is one product; in the paper it
    comes before.
    """

    gates = ("f", "n")
    products = 3
    apart = ("n",)
    activations: ClassVar[Mapping[str, Activation]] = {"f": "sigmoid", "n": "tanh"}
    within = ("n", "", "")

    def step(
        self, inward: Tensor, hidden: Tensor, state: State, own: Mapping[str, Tensor], times: Times
    ) -> State:
        """Return ``(h,)``."""
        (h,) = state
        inward_f, inward_n = self.split(inward)
        hidden_f, hidden_n = self.split(hidden)
        f = (inward_f + hidden_f).sigmoid()
        n = (inward_n + times(f, hidden_n)).tanh()
        h = times(1 - f, h) + times(f, n)
        return (h,)


class FastGRNN(RecurrentCell):
    """A gate and an update from one product (A. Kusupati et al., NeurIPS 2018, arXiv:1901.02358, section 3.2).

    zeta and nu are kept as what the logistic function takes to (0, 1); initial values are those of the authors' code.
    """

    gates = ("z",)
    products = 2
    biases = False
    own: ClassVar[Mapping[str, OwnParameter]] = {
        "bias_z": OwnParameter(initial=1.0),
        "bias_h": OwnParameter(initial=1.0),
        "zeta": OwnParameter(per_unit=False, initial=1.0),
        "nu": OwnParameter(per_unit=False, initial=-4.0),
    }

    def step(
        self, inward: Tensor, hidden: Tensor, state: State, own: Mapping[str, Tensor], times: Times
    ) -> State:
        """Return ``(h,)``."""
        (h,) = state
        shared = inward + hidden
        z = (shared + own["bias_z"]).sigmoid()
        update = (shared + own["bias_h"]).tanh()
        h = times(own["zeta"].sigmoid() * (1 - z) + own["nu"].sigmoid(), update) + times(z, h)
        return (h,)


CELLS: dict[str, RecurrentCell] = {
    "rnn_tanh": TanhRNN(),
    "rnn_relu": ReluRNN(),
    "lstm": LSTM(),
    "gru": GRU(),
    "lstm_peephole": PeepholeLSTM(),
    "mgu": MinimalGatedUnit(),
    "fastgrnn": FastGRNN(),
}
"""Every cell by its name. A new one is added here."""
