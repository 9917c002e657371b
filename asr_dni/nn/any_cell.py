"""Recurrent layers of any cell, by its name."""

import math

import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.nn.cells import CELLS, State
from asr_dni.nn.recurrent import NoisyLayers, Sequences


class _Parameters(nn.Module):
    """The parameters of recurrent layers of any cell, named, shaped and initialised as torch's are."""

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise UserError(f"there is no cell {cell!r}: give one of {', '.join(CELLS)}")
        equations = CELLS[cell]
        for name, value in (
            ("input_size", input_size),
            ("hidden_size", hidden_size),
            ("num_layers", num_layers),
        ):
            if value < 1:
                raise UserError(f"{name} is {value}: give 1 or more")
        if not 0 <= dropout <= 1:
            raise UserError(f"dropout is {dropout}: give a probability")
        if not 0 <= proj_size < hidden_size or (proj_size and not equations.projects):
            projecting = ", ".join(name for name, its in CELLS.items() if its.projects)
            raise UserError(
                f"proj_size is {proj_size}: give 0, or of a cell that projects ({projecting}) less than hidden_size"
            )
        self.cell = cell
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = equations.biases, batch_first, dropout
        self.bidirectional, self.proj_size = bidirectional, proj_size
        rows, directions = len(equations.gates) * hidden_size, 1 + bidirectional
        fed_back = proj_size or hidden_size

        def register(name: str, *shape: int) -> None:
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))

        for layer in range(num_layers):
            for direction in range(directions):
                part = f"l{layer}{'_reverse' * direction}"
                register(f"weight_ih_{part}", rows, input_size if layer == 0 else directions * fed_back)
                register(f"weight_hh_{part}", rows, fed_back)
                if self.bias:
                    register(f"bias_ih_{part}", rows)
                    register(f"bias_hh_{part}", rows)
                if proj_size:
                    register(f"weight_hr_{part}", proj_size, hidden_size)
                for name, its in equations.own.items():
                    register(f"{name}_{part}", hidden_size if its.per_unit else 1)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all parameters from U(-1 / sqrt(H), 1 / sqrt(H)), but those that the cell has a value for."""
        bound = 1 / math.sqrt(self.hidden_size)
        own = CELLS[self.cell].own
        for name, parameter in self.named_parameters():
            its = own.get(name.rpartition("_l")[0])
            if its is None or its.initial is None:
                parameter.uniform_(-bound, bound)
            else:
                parameter.fill_(its.initial)

    def extra_repr(self) -> str:
        """Return what tells layers apart."""
        shown = f"{self.cell}, {self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        for name in ("batch_first", "dropout", "bidirectional", "proj_size"):
            if getattr(self, name):
                shown += f", {name}={getattr(self, name)}"
        return shown


class NoisyRecurrent(NoisyLayers, _Parameters):
    """Recurrent layers of any cell of :data:`asr_dni.nn.cells.CELLS`, with noise at all sites that the cell has.

    Call and shapes are those of ``torch.nn.LSTM`` (of a cell with one state: of ``torch.nn.GRU``), names and initial
    values of the parameters too; a cell's own parameters are called by their name and layer (``peephole_i_l0``). Of the
    cells that torch has, a layer computes what torch's does.

    Args:
        cell: its name.
        input_size: F, features of a step.
        hidden_size: H, units.
        num_layers: layers, one on the other.
        batch_first: whether inputs and outputs are ``(N, T, F)`` rather than ``(T, N, F)``.
        dropout: probability with which the outputs of all layers but the last are dropped in training.
        bidirectional: whether each layer runs in both directions.
        proj_size: numbers that h is projected to; 0: it is not.
        device: of the parameters.
        dtype: of the parameters.
        products: the precision of factors, see :class:`asr_dni.nn.precision.PreciseProducts`.

    Raises:
        UserError: there is no such cell, or a value is out of its range.
    """

    @property
    def _cell(self) -> str:
        return self.cell

    def forward(self, input: Sequences, hx: Tensor | State | None = None) -> tuple[Sequences, Tensor | State]:
        """Return outputs and final states; a cell's only state is a tensor, several are a tuple."""
        outputs, state = self._forward(input, (hx,) if isinstance(hx, Tensor) else hx)
        return outputs, state if len(state) > 1 else state[0]
