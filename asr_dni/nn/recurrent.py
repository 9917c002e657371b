"""Noisy counterparts of ``torch.nn.RNN``, ``torch.nn.LSTM`` and ``torch.nn.GRU``.

A population of K networks has a leading axis K in parameters, outputs and states; axes are counted from the end here,
so that an ordinary network and a population are the same code.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from asr_dni.errors import UserError
from asr_dni.nn.cells import CELLS, RecurrentCell, State
from asr_dni.nn.compensation import SoftenedModule
from asr_dni.nn.dropout import DroppingModule
from asr_dni.nn.implementation import draw_noise, run_recurrence
from asr_dni.nn.mvm import linear
from asr_dni.nn.operations import Drawing, Product
from asr_dni.nn.precision import PreciseProducts
from asr_dni.nn.recurrence import Recurrence, Sites, check_cell
from asr_dni.nn.reference import run_reference
from asr_dni.nn.signal_sizes import SignalStatistics
from asr_dni.nn.statistics import Matrices
from asr_dni.noise import ForwardPass, Hardware, Part, Site

Sequences: TypeAlias = Tensor | PackedSequence


class NoisyLayers(SoftenedModule, DroppingModule, PreciseProducts):
    """What the noisy recurrent networks share, whatever their cell; attributes are those of ``torch.nn.RNNBase``."""

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._set_up()

    def _set_up(self) -> None:
        cell, width = self._equations, self.hidden_size
        gates = len(cell.gates) * width
        sites = {"input": gates, "recurrent": gates, "gates": gates + len(cell.apart) * width}
        if cell.products:
            sites["elementwise"] = cell.products * width
        if self.proj_size:
            sites["projection"] = self.proj_size
        depth = self.num_layers * self._directions
        self._statistics = {self._part(k): SignalStatistics(sites) for k in range(depth)}

    @property
    def _equations(self) -> RecurrentCell:
        check_cell(self._cell)
        return CELLS[self._cell]

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _part(self, index: int) -> str:
        layer, direction = divmod(index, self._directions)
        return f"l{layer}{'_reverse' * direction}"

    def _sites(self, index: int, now: ForwardPass, inputs: Tensor) -> Sites:
        """Return the hardware of one layer in one direction in the pass that is under way."""
        part, first = self._part(index), now.noises[0].hardware
        cell, rows = self._equations, inputs.shape[-2]
        ids = [self._sample_ids(noise, rows, inputs.device) for noise in now.noises]
        first_step = now.noises[0].realisation.first_step

        def at(site: str, switch: Site, groups: int, width: int, columns: int | None) -> Product | None:
            drawing = Drawing(ids, first_step, inputs.shape[-3], groups, width, inputs, draw_noise)
            return self._product(now, switch, part, site, drawing, columns, index)

        gates, width, fed_back = len(cell.gates), self.hidden_size, self.proj_size or self.hidden_size
        fed = getattr(self, f"weight_ih_{part}").shape[-1]
        if first.joint:
            of_input = at("gates", "input", gates + len(cell.apart), width, fed + fed_back)
        else:
            of_input = at("input", "input", gates, width, fed)
        return Sites(
            sample_ids=ids,
            first_step=first_step,
            input=of_input,
            recurrent=None if first.joint else at("recurrent", "recurrent", gates, width, fed_back),
            elementwise=at("elementwise", "elementwise", cell.products, width, None),
            projection=at("projection", "recurrent", 1, fed_back, width),
            joint=first.joint,
        )

    def _own_parts(self, hardware: Hardware) -> list[tuple[str, tuple[Site, ...], tuple[str, ...]]]:
        """Return each layer and direction at each site; gates are those of the products with matrices."""
        weights_alone = not hardware.outputs_on and hardware.dac is None and hardware.adc is None
        each: list[tuple[Site, ...]] = [("input",), ("recurrent",)]
        if hardware.joint and not weights_alone:
            each = [("input", "recurrent")]
        parts: list[tuple[str, tuple[Site, ...], tuple[str, ...]]] = []
        for layer in self._statistics:
            parts += [(layer, its, self._equations.gates) for its in each if hardware.on_at(its[0])]
            if self._equations.products and hardware.on_at("elementwise") and hardware.outputs_on:
                parts.append((layer, ("elementwise",), ()))
        return parts

    def _outputs_of(self, part: Part | None, site: str) -> Tensor | None:
        if part is None or not part.gate:
            return None
        cell = self._equations
        gates = list(cell.gates) if site in ("input", "recurrent", "gates") else []
        second = list(cell.apart) if site == "gates" else []
        its = torch.tensor([gate == part.gate for gate in gates + second], dtype=torch.bool)
        return its.repeat_interleave(self.hidden_size) if gates else torch.zeros(1, dtype=torch.bool)

    def _matrices(self, part: str, site: str) -> list[Tensor]:
        kinds = {"input": "i", "recurrent": "h", "gates": "ih"}.get(site, "")
        matrices = [getattr(self, f"weight_{kind}h_{part}") for kind in kinds]
        return [getattr(self, f"weight_hr_{part}")] if site == "projection" else matrices

    def _largest_weights(self, part: str, site: str, matrices: Matrices | None = None) -> Tensor:
        if site != "gates" or not self._equations.apart:
            return super()._largest_weights(part, site, matrices)
        inward, hidden = (
            super(NoisyLayers, self)._largest_weights(part, its) for its in ("input", "recurrent")
        )
        apart = self._apart_of(inward)
        return torch.cat((torch.where(apart, inward, torch.maximum(inward, hidden)), hidden[:, apart]), -1)

    def _apart_of(self, like: Tensor) -> Tensor:
        """Return which outputs of a gate's two parts are two of the array, ``(gates * H,)`` booleans."""
        apart = [gate in self._equations.apart for gate in self._equations.gates]
        return torch.tensor(apart, device=like.device).repeat_interleave(self.hidden_size)

    def _project(self, x: Tensor, layer: int, shared: bool = False) -> Tensor:
        """Return ``W_ih x_t + b_ih`` of a layer's directions, ``(T, N, directions * gates * H)``, for all steps."""
        parts = [self._part(layer * self._directions + d) for d in range(self._directions)]
        weights = [getattr(self, f"weight_ih_{part}") for part in parts]
        biases = [getattr(self, f"bias_ih_{part}") for part in parts] if self.bias else []
        if self._estimates is not None:
            for part in parts:
                self._estimates[part].observe_input("input", x, shared)
        weight, bias = torch.cat(weights, -2), torch.cat(biases, -1) if biases else None
        return linear(x, weight, bias, shared, self.products_on(x))

    def _run_part(
        self,
        index: int,
        now: ForwardPass,
        inputs: Tensor,
        projection: Tensor | None,
        state: State,
        lengths: Tensor | None,
    ) -> tuple[Tensor, State]:
        """Run one layer in one direction, from its inputs on where there is no projection."""
        part = self._part(index)
        sites = self._sites(index, now, inputs)

        def of_all(tensor: Tensor) -> Tensor:
            """Return a tensor with an axis of K networks, which an ordinary one lacks."""
            return tensor[None] if self.networks is None else tensor

        def parameter(name: str) -> Tensor:
            return of_all(getattr(self, f"{name}_{part}"))

        def matrix(name: str, switch: Site) -> Tensor:
            return of_all(self._programmed(now, switch, f"{name}_{part}"))

        problem = Recurrence(
            cell=self._cell,
            w_hh=matrix("weight_hh", "recurrent"),
            b_hh=parameter("bias_hh") if self.bias else None,
            state=tuple(of_all(tensor) for tensor in state),
            sites=sites,
            inputs=of_all(inputs) if projection is None else None,
            w_ih=matrix("weight_ih", "input") if projection is None else None,
            b_ih=parameter("bias_ih") if self.bias and projection is None else None,
            projection=None if projection is None else of_all(projection),
            w_hr=matrix("weight_hr", "recurrent") if self.proj_size else None,
            own={name: parameter(name) for name in self._equations.own},
            lengths=None if lengths is None else lengths[None],
            products=self.products_on(inputs),
        )
        problem = self._soften(problem, part, now)
        if self._estimates is None:
            outputs, final = run_recurrence(problem)
        else:  # the noise is off
            outputs, final = run_reference(problem, self._estimates[part].observe_product)
        if self.networks is None:
            outputs, final = outputs[0], tuple(tensor[0] for tensor in final)
        if self._estimates is not None:
            assert projection is not None
            self._observe(part, projection, torch.cat((state[0].unsqueeze(-3), outputs), -3), lengths)
        return outputs, final

    def _observe(self, part: str, projection: Tensor, h: Tensor, lengths: Tensor | None) -> None:
        """Take the size of the clean signals from a noise-free pass; ``h`` has one step more than ``projection``."""
        assert self._estimates is not None
        estimate = self._estimates[part]
        before, after = h[..., :-1, :, :], h[..., 1:, :, :]
        inward = projection
        if self.bias:
            inward = projection - getattr(self, f"bias_ih_{part}")[..., None, None, :]
        mvm = linear(before, getattr(self, f"weight_hh_{part}"))
        if lengths is not None:
            valid = torch.arange(projection.shape[0], device=projection.device)[:, None] < lengths
            inward, mvm, after = inward[valid], mvm[valid], after[valid]
        gates = inward + mvm
        if self._equations.apart:
            apart = self._apart_of(gates)
            gates = torch.cat((torch.where(apart, inward, gates), mvm[..., apart]), -1)
        estimate.observe_output("input", inward)
        estimate.observe_output("recurrent", mvm)
        estimate.observe_output("gates", gates)
        estimate.observe_input("recurrent", h)
        estimate.observe_input("gates", h)
        estimate.observe_input("gates", estimate.largest("input"))
        if self.proj_size:
            # W_hr h_t is what comes out; what goes in, o * tanh(c), is at most 1.
            estimate.observe_output("projection", after)
            estimate.observe_input("projection", h.new_ones(1), shared=True)

    def input_projection(self, input: Tensor) -> Tensor:
        """Return the clean first input projection: the work that does not depend on the noise.

        Args:
            input: ``(N, T, F)`` with ``batch_first``, else ``(T, N, F)``; for a population with a leading axis K, or
                without it where the members share one input.

        Returns:
            ``(T, N, directions * gates * H)``, for :meth:`forward_projected`; of a population with a leading axis K.
        """
        steps_first = input.transpose(-3, -2) if self.batch_first else input
        return self._project(steps_first, 0, self.networks is not None and input.dim() == 3)

    def forward_projected(
        self, projection: Tensor, state: State, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all layers from the first input projection on; in a population everything has a leading axis K.

        Args:
            projection: what :meth:`input_projection` gave.
            state: initial states ``(layers * directions, N, H or P)``, for the LSTM also of the cells.
            lengths: ``(N,)`` numbers of valid steps, or ``None``.

        Returns:
            Outputs ``(T, N, directions * H or P)`` and the final states, shaped as the initial ones.

        Raises:
            UserError: a length is not an integer from 0 to T, or there is not one for each sample; or the hardware in
                force makes more of the inputs than their clean projection (it has no ``inputs_exact``).
        """
        steps, rows = projection.shape[-3:-1]
        if lengths is not None:
            if tuple(lengths.shape) != (rows,) or lengths.is_floating_point() or lengths.is_complex():
                raise UserError(f"lengths are {tuple(lengths.shape)} {lengths.dtype}: give {rows} integers")
            if bool(((lengths < 0) | (lengths > steps)).any()):
                raise UserError(f"lengths are {lengths.tolist()}: give numbers of steps from 0 to {steps}")
        return self._run_layers(projection, True, state, lengths)

    def _run_layers(
        self, inputs: Tensor, projected: bool, state: State, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        """Run all layers from the first one's inputs on, or from their projection on."""
        self._check_state(state, inputs)
        now = self._begin_pass("input", "recurrent", "elementwise")
        if projected and now.at("input") and not all(noise.hardware.inputs_exact for noise in now.noises):
            raise UserError(
                "the clean projection of the inputs was given, but the hardware in force does more than to add noise to"
                " it: give the inputs (see Hardware.inputs_exact)"
            )
        finals: list[State] = []
        outputs = inputs
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout > 0 and self.training:
                outputs = self._drop(outputs, self.dropout, layer)
            projection = None
            if layer == 0 and projected:
                projection = outputs
            elif self._estimates is not None:  # which want to see it
                projection = self._project(outputs, layer, self.networks is not None and outputs.dim() == 3)
            directions = []
            for direction in range(self._directions):
                index = layer * self._directions + direction
                before = tuple(part[..., index, :, :] for part in state)
                its_inputs, its_projection = outputs, projection
                if projection is not None and self._directions > 1:
                    its_projection = projection.chunk(2, -1)[direction]
                if direction:
                    its_inputs = _reverse(its_inputs, lengths)
                    its_projection = None if its_projection is None else _reverse(its_projection, lengths)
                out, final = self._run_part(index, now, its_inputs, its_projection, before, lengths)
                directions.append(_reverse(out, lengths) if direction else out)
                finals.append(final)
            outputs = directions[0] if len(directions) == 1 else torch.cat(directions, -1)
        return outputs, tuple(torch.stack(parts, -3) for parts in zip(*finals, strict=True))

    @property
    def _leading(self) -> tuple[int, ...]:
        return () if self.networks is None else (self.networks,)

    def initial_state(self, rows: int, like: Tensor) -> State:
        """Return zero states for ``rows`` samples, with the dtype and device of ``like``."""
        depth = self.num_layers * self._directions
        return tuple(like.new_zeros(*self._leading, depth, rows, width) for width in self._state_widths)

    @property
    def _state_widths(self) -> tuple[int, ...]:
        further = len(self._equations.states) - 1
        return (self.proj_size or self.hidden_size, *(self.hidden_size,) * further)

    def _forward(self, input: Sequences, state: State | None) -> tuple[Sequences, State]:
        if self.networks is not None:
            self._check_population_input(input)
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, state)
        if input.dim() not in (2, 3) and self.networks is None:
            raise ValueError(f"{type(self).__name__}: expected a 2-D or 3-D input, got {input.dim()}-D")
        batched = input.dim() > 2
        if not batched:
            input = input.unsqueeze(0 if self.batch_first else 1)
            state = None if state is None else tuple(part.unsqueeze(1) for part in state)
        if input.shape[-1] != self.input_size:
            raise ValueError(f"expected {self.input_size} input features, got {input.shape[-1]}")
        if input.shape[-2 if self.batch_first else -3] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        rows = input.shape[-3 if self.batch_first else -2]
        if state is None:
            state = self.initial_state(rows, input)
        outputs, final = self._run_layers(
            input.transpose(-3, -2) if self.batch_first else input, False, state, None
        )
        outputs = outputs.transpose(-3, -2) if self.batch_first else outputs
        if not batched:
            return outputs.squeeze(0 if self.batch_first else 1), tuple(part.squeeze(1) for part in final)
        return outputs, final

    def _check_population_input(self, input: Sequences) -> None:
        name = f"{type(self).__name__}, a population of {self.networks} networks"
        if isinstance(input, PackedSequence):
            raise UserError(f"{name}, takes no packed sequences: pad them, or unstack the networks")
        if input.dim() != 3 and (input.dim() != 4 or input.shape[0] != self.networks):
            axes = "N, T, F" if self.batch_first else "T, N, F"
            raise ValueError(
                f"{name}: expected an input ({axes}) for all or ({self.networks}, {axes}), got"
                f" {tuple(input.shape)}"
            )

    def _forward_packed(self, input: PackedSequence, state: State | None) -> tuple[PackedSequence, State]:
        padded, lengths = pad_packed_sequence(input)  # in the order of the unsorted samples
        if state is None:
            state = self.initial_state(padded.shape[1], padded)
        on_device = lengths.to(padded.device)
        outputs, final = self._run_layers(padded, False, state, on_device)
        packed = pack_padded_sequence(outputs, lengths, enforce_sorted=input.sorted_indices is None)
        if input.sorted_indices is not None:
            order = input.sorted_indices
            packed = pack_padded_sequence(outputs.index_select(1, order), lengths[order.cpu()])
            packed = PackedSequence(packed.data, packed.batch_sizes, order, input.unsorted_indices)
        return packed, final

    def _check_state(self, state: State, inputs: Tensor) -> None:
        rows, kind = inputs.shape[-2], inputs.device.type
        autocast = is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        widths = self._state_widths
        if len(state) != len(widths):
            raise RuntimeError(f"Expected {len(widths)} hidden states, got {len(state)}")
        for part, width in zip(state, widths, strict=True):
            expected = (*self._leading, self.num_layers * self._directions, rows, width)
            if tuple(part.shape) != expected:
                raise RuntimeError(f"Expected hidden state of size {expected}, got {tuple(part.shape)}")
            if part.device != inputs.device or (part.dtype != inputs.dtype and not autocast):
                expected_kind = f"{inputs.dtype} on {inputs.device}"
                raise RuntimeError(
                    f"Expected hidden state of {expected_kind}, got {part.dtype} on {part.device}"
                )

    def _matrix_sites(self, hardware: Hardware) -> Mapping[str, Site]:
        gates: dict[str, Site] = (
            {"gates": "input"} if hardware.joint else {"input": "input", "recurrent": "recurrent"}
        )
        return {**gates, "projection": "recurrent"}

    def signal_and_noise_power(
        self, hardware: Hardware, member: int | None = None
    ) -> list[tuple[str, Site, float, float]]:
        """Return part, site, mean square of the clean signal and variance of the noise."""
        switches: dict[str, Site] = {**self._matrix_sites(hardware), "elementwise": "elementwise"}
        place = self._member(member)
        rows = []
        for part in self._statistics:
            for site, switch in switches.items():
                rows += self._power_of(part, site, switch, hardware, place)
        return rows


def _reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse ``(*, T, N, F)`` in time; each sample within its own length."""
    if lengths is None:
        return x.flip(-3)
    steps = torch.arange(x.shape[-3], device=x.device)[:, None]
    order = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x.gather(-3, order[:, :, None].expand_as(x))


class _OfTorch(NoisyLayers, nn.RNNBase):
    """Mixed into torch's recurrent layers."""

    def flatten_parameters(self) -> None:
        """Do nothing: it is for cuDNN, which does not run here."""

    @property
    def _cell(self) -> str:
        return self.mode.lower()


class NoisyRNN(_OfTorch, nn.RNN):
    """``torch.nn.RNN`` with noise at the sites ``input`` and ``recurrent``.

    Constructor arguments, call, shapes, states and ``state_dict`` are those of ``torch.nn.RNN``; without noise so are
    outputs and gradients. A vanilla RNN has no products inside the cell.
    """

    def forward(self, input: Sequences, hx: Tensor | None = None) -> tuple[Sequences, Tensor]:
        """Return outputs and final state, shaped as by ``torch.nn.RNN``."""
        outputs, (h,) = self._forward(input, None if hx is None else (hx,))
        return outputs, h


class NoisyGRU(_OfTorch, nn.GRU):
    """``torch.nn.GRU`` with noise at the sites ``input``, ``recurrent`` and ``elementwise``.

    Constructor arguments, call, shapes, states and ``state_dict`` are those of ``torch.nn.GRU``; without noise so are
    outputs and gradients. The products are r * (W_hn h + b_hn), (1 - z) * n and z * h.
    """

    def forward(self, input: Sequences, hx: Tensor | None = None) -> tuple[Sequences, Tensor]:
        """Return outputs and final state, shaped as by ``torch.nn.GRU``."""
        outputs, (h,) = self._forward(input, None if hx is None else (hx,))
        return outputs, h


class NoisyLSTM(_OfTorch, nn.LSTM):
    """``torch.nn.LSTM`` with noise at the sites ``input``, ``recurrent`` and ``elementwise``.

    Constructor arguments, call, shapes, states and ``state_dict`` are those of ``torch.nn.LSTM``; without noise so are
    outputs and gradients. The products are f * c, i * g and o * tanh(c). With ``proj_size`` the projection W_hr h is
    one more matrix-vector product; its noise belongs to the site ``recurrent``.
    """

    def forward(
        self, input: Sequences, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Sequences, tuple[Tensor, Tensor]]:
        """Return outputs and the final states of h and c, shaped as by ``torch.nn.LSTM``."""
        outputs, (h, c) = self._forward(input, hx)
        return outputs, (h, c)
