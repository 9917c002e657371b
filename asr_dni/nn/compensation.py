"""Gates that are softened for the training's noise that is missing at inference: K networks with other weights.

Each row of W_ih, W_hh and the biases is multiplied with its gate's factor, see
:meth:`asr_dni.nn.RecurrentCell.softening`. Noise that remains comes before the factor, and is multiplied with it as
well. What is not compensated is the noise that h itself carries from step to step, and that of W_hr h. The classifier
is linear: its noise has no effect on mean logits.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.nn.analog import AnalogModule, placed_hardware
from asr_dni.nn.cells import CELLS, RecurrentCell
from asr_dni.nn.implementation import draw_noise
from asr_dni.nn.operations import Drawing
from asr_dni.nn.recurrence import Recurrence, Sites
from asr_dni.noise import ForwardPass, Hardware, Noise, NoisyModule, Part, Site, as_noise
from asr_dni.noise.recomputation import settings_of_pass

Network = TypeVar("Network", bound=nn.Module)


class SoftenedModule(AnalogModule):
    """Recurrent layers whose gates can be softened."""

    hidden_size: int

    @property
    def _equations(self) -> RecurrentCell:
        raise NotImplementedError

    def _soften(self, problem: Recurrence, part: str, now: ForwardPass) -> Recurrence:
        """Return a layer's recurrence with the compensation of a pass; without one, as it is."""
        factors = self._factors(part, now)
        return problem if factors is None else soften(problem, factors)

    def _factors(self, part: str, now: ForwardPass) -> Tensor | None:
        """Return ``(K, gates)`` factors of one layer and direction; ``None`` where all are 1."""
        if all(noise.compensation is None for noise in now.noises):
            return None
        # A pass that is run again has the factors of the first time, though weights or statistics have changed.
        return settings_of_pass(self, f"{part} softening", lambda: self._current_factors(part, now))

    def _current_factors(self, part: str, now: ForwardPass) -> Tensor | None:
        needed = [noise.compensation is not None for noise in now.noises]
        of_training = now._replace(
            noises=tuple(
                noise if noise.compensation is None else Noise.of(noise.compensation) for noise in now.noises
            )
        )
        variances = [self._variances(part, its, needed) for its in (of_training, now)]
        factors = self._equations.softening(*(there - here for there, here in zip(*variances, strict=True)))
        return None if bool((factors == 1).all()) else factors

    def _variances(self, part: str, now: ForwardPass, needed: Sequence[bool]) -> list[Tensor]:
        """Return variances of the noise of W_ih x, of W_hh h, ``(K, gates)``, and of products, ``(K, products)``.

        Args:
            part: layer and direction.
            now: the pass.
            needed: of which networks; 0 of all others.
        """
        cell, networks = self._equations, len(now.noises)
        apart = torch.tensor([gate in cell.apart for gate in cell.gates], dtype=torch.float64)
        inward, hidden = (torch.zeros(networks, len(cell.gates), dtype=torch.float64) for _ in range(2))
        inside = torch.zeros(networks, cell.products, dtype=torch.float64)
        for network, noise in enumerate(now.noises):
            if not needed[network]:
                continue
            only = now._replace(noises=(noise,), draws=now.draws[network : network + 1])
            alone = [k == network for k in range(networks)]
            switches: dict[str, Site] = {"input": "input", "recurrent": "recurrent"}
            if noise.hardware.joint:
                switches = {"gates": "input"}
            for site, switch in (switches | {"elementwise": "elementwise"}).items():
                for place, (hardware,) in placed_hardware(only, part, switch):
                    if not hardware.on_at(switch) or site not in self._statistics[part].sites:
                        continue
                    unit = self._unit(part, site, hardware.scale, alone)[network]
                    variance = (hardware.value() * unit.to("cpu", torch.float64)) ** 2
                    its_gates = _gates_of(place, cell)
                    if site == "elementwise":
                        inside[network] += variance
                    if site in ("gates", "input"):
                        inward[network] += variance * its_gates
                    if site in ("gates", "recurrent"):
                        hidden[network] += variance * its_gates * (apart if site == "gates" else 1)
        return [inward, hidden, inside]

    @torch.no_grad()
    def keep_softened(self, noise: Sequence[Noise]) -> None:
        """Multiply the parameters with the factors of a pass, for good.

        Args:
            noise: of each network, with its compensation.
        """
        now = ForwardPass(tuple(noise), 0, (0,) * len(noise))
        for part in self._statistics:
            factors = self._factors(part, now)
            if factors is None:
                continue
            for name, scale in _scales(self._equations, factors, self.hidden_size).items():
                parameter = getattr(self, f"{name}_{part}", None)
                if parameter is not None:
                    scale = scale.to(parameter)
                    parameter.mul_(scale[0] if self.networks is None else scale)
        for statistics in self._statistics.values():
            statistics.load(torch.full_like(statistics.values, math.nan))


def _gates_of(part: Part | None, cell: RecurrentCell) -> Tensor:
    """Return which gates a part has, as 0 and 1."""
    every = part is None or not part.gate
    return torch.tensor([every or (part is not None and gate == part.gate) for gate in cell.gates]).double()


def _scales(cell: RecurrentCell, factors: Tensor, width: int) -> dict[str, Tensor]:
    """Return by name what each parameter of a layer is multiplied with, from ``(K, gates)`` factors."""
    rows = factors.repeat_interleave(width, -1)
    of_gates = {
        **dict.fromkeys(("weight_ih", "weight_hh"), rows[:, :, None]),
        **dict.fromkeys(("bias_ih", "bias_hh"), rows),
    }
    own = {name: factors[:, [cell.gates.index(its.gate)]] for name, its in cell.own.items() if its.gate}
    return of_gates | own


def soften(problem: Recurrence, factors: Tensor) -> Recurrence:
    """Return a recurrence in which each gate's pre-activation, with its noise, is multiplied with a factor.

    Args:
        problem: of K networks.
        factors: ``(K, gates)``.
    """
    cell = CELLS[problem.cell]
    width = problem.w_hh.shape[-2] // len(cell.gates)
    factors = factors.to(problem.w_hh.device)
    scales = _scales(cell, factors, width)

    def scaled(name: str, tensor: Tensor | None) -> Tensor | None:
        return tensor if tensor is None or name not in scales else tensor * scales[name].to(tensor)

    w_hh = scaled("weight_hh", problem.w_hh)
    assert w_hh is not None
    projection = problem.projection
    if projection is not None:
        projection = projection * scales["bias_ih"][:, None, None].to(projection)
    return replace(
        problem,
        w_hh=w_hh,
        b_hh=scaled("bias_hh", problem.b_hh),
        w_ih=scaled("weight_ih", problem.w_ih),
        b_ih=scaled("bias_ih", problem.b_ih),
        projection=projection,
        own={
            name: its * scales[name].to(its) if name in scales else its for name, its in problem.own.items()
        },
        sites=_soften_noise(problem, cell, factors, width),
    )


def _soften_noise(problem: Recurrence, cell: RecurrentCell, factors: Tensor, width: int) -> Sites:
    """Return the hardware, what is added to a gate's pre-activation multiplied with its factor."""
    sites, given = problem.sites, problem.given
    of_gate = dict(zip(cell.gates, factors.unbind(-1), strict=True)) | {"": torch.ones_like(factors[:, 0])}
    second = cell.apart if sites.joint else ()
    of_groups = {
        "input": (*cell.gates, *second),
        "recurrent": cell.gates,
        "elementwise": cell.within or ("",) * cell.products,
    }
    softened = {}
    for site, gates in of_groups.items():
        product = getattr(sites, site)
        if product is None or not any(gates):
            continue
        drawing = Drawing(
            sites.sample_ids, sites.first_step, given.shape[-3], len(gates), width, given, draw_noise
        )
        its = torch.stack([of_gate[gate] for gate in gates], -1).repeat_interleave(width, -1)
        softened[site] = product.times(its, drawing)
    return replace(sites, **softened)


def compensate(network: Network, trained: Hardware | Noise | Sequence[Hardware | Noise]) -> Network:
    """Return a network for exact arithmetic whose gates are softened for the noise that it was trained under.

    It is an ordinary network with other weights, to be saved, exported, or run by other programs: without noise it
    gives what the one given does under ``Noise().compensating(trained)``. On noisy hardware use that in place of
    this: noise that remains is to be multiplied with the factors as well.

    Args:
        network: a noisy layer, or a network with some; it is not changed.
        trained: the noise of the training; of K networks one for all, or one for each. For the scales ``signal`` and
            ``range`` the network has to be calibrated.

    Returns:
        A copy. It is not calibrated: the size of its clean signals is another one.

    Raises:
        UserError: the noise is not a Gaussian on outputs, a cell has no softened form, or there are no recurrent
            layers.
    """
    softened = copy.deepcopy(network)
    layers = [module for module in softened.modules() if isinstance(module, SoftenedModule)]
    if not layers:
        raise UserError(
            f"{type(network).__name__} has no noisy recurrent layer: there is nothing to compensate"
        )
    several = list(trained) if isinstance(trained, Sequence) else [trained]
    hardware = [as_noise(its).hardware for its in several]
    for layer in layers:
        each = hardware * (layer.networks or 1) if len(hardware) == 1 else hardware
        if len(each) != (layer.networks or 1):
            raise UserError(f"got {len(each)} noises for {layer.networks or 1} networks: give one for each")
        layer.keep_softened([Noise.of(replace(its, sites=())).compensating(its) for its in each])
    for module in softened.modules():
        if isinstance(module, NoisyModule):
            module.noise = Noise()
    return softened
