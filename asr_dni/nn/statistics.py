"""Reference values of the noise scales ``signal`` and ``range``, estimated on training data."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.nn.modes import in_evaluation_mode
from asr_dni.nn.normalisation import normalising_by_batch
from asr_dni.nn.signal_sizes import MemberStatistics, SignalEstimate, SignalStatistics
from asr_dni.noise import Hardware, Noise, NoisyModule, Per, Scale, Site
from asr_dni.noise.recomputation import settings_of_pass

_under_way: ContextVar[Mapping["CalibratedModule", dict[str, SignalEstimate]]] = ContextVar(
    "asr_dni_estimates", default=MappingProxyType({})
)
"""What :func:`calibrate` is estimating in this thread: passes in others are none of its."""

Matrices = Callable[[], list[Tensor]]
"""Gives the weights of a product, ``(out, *)`` each, in a population ``(K, out, *)``."""


class CalibratedModule(NoisyModule):
    """A noisy layer that knows the size of its clean signals.

    The statistics are in ``state_dict()`` under ``signal_statistics.<part>`` once they are known, ``(2, sites)``, in a
    population ``(K, 2, sites)``, those of single outputs under ``signal_statistics.<part>.outputs``; before that the
    keys are exactly those of the ``torch.nn`` counterpart. Weights that are loaded without statistics leave the layer
    uncalibrated: what was known belongs to the weights before.
    """

    _statistics: dict[str, SignalStatistics]

    @property
    def _estimates(self) -> dict[str, SignalEstimate] | None:
        """What :func:`calibrate` is estimating; ``None`` outside of it."""
        return _under_way.get().get(self)

    def statistics(self, member: int | None = None) -> dict[str, MemberStatistics]:
        """Return the statistics of every part (layer and direction) of this module.

        Args:
            member: of a population, which network's.

        Raises:
            UserError: there is no such member, or this is a population and none is named.
        """
        place = self._member(member)
        return {part: statistics.of(place) for part, statistics in self._statistics.items()}

    def stack_members(self, members: Sequence[Any]) -> None:
        """Become a population, with the members' statistics."""
        super().stack_members(members)
        for part, statistics in self._statistics.items():
            each = [member._statistics[part] for member in members]
            statistics.load(torch.cat([its.values for its in each]), torch.cat([its.outputs for its in each]))

    def keep_member(self, member: int) -> None:
        """Become an ordinary module, with a member's statistics."""
        super().keep_member(member)
        for statistics in self._statistics.values():
            statistics.load(statistics.values[member : member + 1], statistics.outputs[member : member + 1])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for statistics in self._statistics.values():
            statistics.values = statistics.values.to(fn(statistics.values.float()).device)
            statistics.outputs = statistics.outputs.to(statistics.values.device)
        return self

    def _matrices(self, part: str, site: str) -> list[Tensor]:
        """Return the weights of a site; none for the elementwise products."""
        raise NotImplementedError

    def _largest_weights(self, part: str, site: str, matrices: Matrices | None = None) -> Tensor:
        """Return ``(K, out)``, the largest absolute weight of each output of a site that has matrices."""
        of_site = self._matrices(part, site) if matrices is None else matrices()
        if self.networks is None:
            of_site = [matrix[None] for matrix in of_site]
        return torch.stack([its.detach().abs().flatten(2).amax(-1) for its in of_site]).amax(0)

    def _unit_of_pass(
        self,
        part: str,
        site: str,
        scale: Scale,
        needed: Sequence[bool],
        inward: bool = False,
        per: Per = "tensor",
        matrices: Matrices | None = None,
    ) -> Tensor:
        """Return what :meth:`_unit` does in the forward pass that is under way.

        A pass that is run again has that of the first time, though weights or statistics have changed.
        """
        name = f"{part} {site} {scale} {per} {'inward' * inward}"
        return settings_of_pass(
            self, name, lambda: self._unit(part, site, scale, needed, inward, per, matrices)
        )

    def _unit(
        self,
        part: str,
        site: str,
        scale: Scale,
        needed: Sequence[bool],
        inward: bool = False,
        per: Per = "tensor",
        matrices: Matrices | None = None,
    ) -> Tensor:
        """Return ``(K,)`` float64, what 1 in units of a scale is at a site; of each output ``(K, out)``.

        Args:
            part: layer and direction.
            site: of the product.
            scale: of the number.
            needed: of which networks.
            inward: whether it is a number of the inputs, rather than of the outputs.
            per: whether the size is that of the site (``tensor``), or of each output.
            matrices: of the site in this pass; ``None``: those of :meth:`_matrices`.

        Raises:
            UserError: a network that needs it has not been calibrated.
        """
        statistics = self._statistics[part]
        if scale == "absolute":
            return torch.ones(len(needed), dtype=torch.float64)
        if not all(known or not its for known, its in zip(statistics.known, needed, strict=True)):
            raise UserError(
                f"noise scale {scale!r} needs the size of the clean signals, which this network does not have:"
                " run asr_dni.nn.calibrate(network, inputs) on training data first, or use scale 'absolute'"
            )
        if scale == "signal" and per == "output":
            rms = statistics.rms_of_outputs(site)
            if any(its and bool(row.isnan().any()) for its, row in zip(needed, rms, strict=True)):
                raise UserError(
                    "noise scale 'signal' per output needs the size of each output, which this network's calibration"
                    " did not find yet: calibrate it anew (asr_dni.nn.calibrate), train it anew, or give per 'tensor'"
                )
            return rms
        if scale == "signal":
            return statistics.rms(site)
        of_site: list[Tensor] = []
        if not inward:
            of_site = self._matrices(part, site) if matrices is None else matrices()
        if not of_site:
            bound = statistics.bound(site)
            return bound if per == "tensor" or inward else bound[:, None].expand(-1, statistics.widths[site])
        if per == "output":
            return statistics.bound(site)[:, None] * self._largest_weights(part, site, matrices).double()
        first = 0 if self.networks is None else 1
        largest = torch.stack([matrix.detach().abs().flatten(first).amax(-1) for matrix in of_site]).amax(0)
        return statistics.bound(site) * largest.double()

    def _power_of(
        self, part: str, site: str, switch: Site, hardware: Hardware, member: int
    ) -> list[tuple[str, Site, float, float]]:
        """Return what :meth:`signal_and_noise_power` does, of one site."""
        if switch not in hardware.sites or site not in self._statistics[part].sites:
            return []
        signal = self._statistics[part].of(member).rms[site] ** 2
        power = 0.0
        for model in hardware.output:
            needed = [k == member for k in range(self.networks or 1)]
            scale: Scale = getattr(model, "scale", "absolute")
            units = self._unit(part, site, scale, needed, False, model.unit_per)[member]
            unit = math.sqrt(float(units.square().mean()))  # variances are linear in its square
            power += model.variance(signal + power, unit)  # which noise of a model before is part of
        return [(part, switch, signal, power)]

    def signal_and_noise_power(
        self, hardware: Hardware, member: int | None = None
    ) -> list[tuple[str, Site, float, float]]:
        """Return part, site, mean square of the clean signal and variance of the noise, where both are known.

        Args:
            hardware: whose output models make the noise.
            member: of a population, which network's.
        """
        raise NotImplementedError

    def _save_to_state_dict(self, destination: dict[str, object], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for part, statistics in self._statistics.items():
            if any(statistics.known):
                values = statistics.values.clone()
                destination[f"{prefix}signal_statistics.{part}"] = (
                    values[0] if self.networks is None else values
                )
                outputs = statistics.outputs.clone()
                if not bool(outputs.isnan().all()):
                    destination[f"{prefix}signal_statistics.{part}.outputs"] = (
                        outputs[0] if self.networks is None else outputs
                    )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        keys = {part: f"{prefix}signal_statistics.{part}" for part in self._statistics}
        has_weights = any(key.startswith(prefix) for key in state_dict)
        for part, key in keys.items():
            statistics = self._statistics[part]
            if key in state_dict:
                # Weights that were calibrated before single outputs were have none of these.
                found = {name: state_dict[name] for name in (key, f"{key}.outputs") if name in state_dict}
                loaded = [its[None] if self.networks is None else its for its in found.values()]
                for name, its, own in zip(
                    found, loaded, (statistics.values, statistics.outputs), strict=False
                ):
                    if its.shape != own.shape:
                        error_msgs.append(
                            f"size mismatch for {name}: {tuple(its.shape)} instead of {tuple(own.shape)}"
                        )
                        break
                else:
                    statistics.load(*(its.to(statistics.values.device) for its in loaded))
            elif has_weights:
                statistics.load(torch.full_like(statistics.values, math.nan))
        taken = {*keys.values(), *(f"{key}.outputs" for key in keys.values())}
        rest = {key: value for key, value in state_dict.items() if key not in taken}
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def calibrate(
    network: nn.Module,
    inputs: Iterable[Tensor],
    momentum: float = 0.0,
    over_processes: bool = False,
    by_batch: bool = False,
) -> None:
    """Estimate RMS and range of the clean signals of all noisy layers, with the noise off.

    In a population each member's are estimated as they would be alone.

    Args:
        network: a noisy layer or a network of them.
        inputs: what the network is called with, one batch after another; training data.
        momentum: weight of what was known before, 0 to forget it.
        over_processes: whether the inputs are this process's part of those of all processes, which call this together
            and get the same estimates, as from all inputs in one process.
        by_batch: whether batch normalisation takes the batch's own statistics, as in training, at whose beginning the
            running ones are not yet of any use.

    Raises:
        UserError: ``inputs`` is empty.
    """
    layers = [module for module in network.modules() if isinstance(module, CalibratedModule)]
    estimates = {
        layer: {
            part: SignalEstimate(statistics.widths, layer.networks)
            for part, statistics in layer._statistics.items()
        }
        for layer in layers
    }
    empty = True
    token = _under_way.set({**_under_way.get(), **estimates})
    try:
        with torch.no_grad(), in_evaluation_mode(network), ExitStack() as stack:
            for layer in layers:
                stack.enter_context(layer.under(Noise()))
            if by_batch:
                stack.enter_context(normalising_by_batch(network))
            for batch in inputs:
                network(batch)
                empty = False
    finally:
        _under_way.reset(token)
    if empty:
        raise UserError("calibration got no batch: give at least one batch of training data")
    for layer, its_estimates in estimates.items():
        for part, estimate in its_estimates.items():
            if over_processes:
                estimate.take_over_processes()
            estimate.finish(layer._statistics[part], momentum)


def snr_db(network: nn.Module, noise: Noise | Hardware, member: int | None = None) -> float | None:
    """Return the signal-to-noise ratio of a network's matrix-vector products under a noise, in dB.

    Clean signal power and noise power are each averaged over the products (layers, directions and the sites but
    ``elementwise`` that are on); the ratio of the two means is given. With scale ``signal`` and one product it is
    -20 log10 sigma. The noise is that of the output models.

    Args:
        network: a noisy layer or a network of them.
        noise: the noise.
        member: of a population, which network's.

    Returns:
        The ratio; infinity without noise; ``None`` where the network was not calibrated, or where weights, converters
        or several arrays for one matrix take part, whose errors are not noise on an output.
    """
    hardware = noise.hardware if isinstance(noise, Noise) else noise
    if not hardware.on:
        return math.inf
    exact = (
        not hardware.weights_on and hardware.dac is None and hardware.adc is None and hardware.tile is None
    )
    layers = [
        module
        for module in network.modules()
        if isinstance(module, CalibratedModule) and module._own_parts(hardware)
    ]
    known = all(statistics.known for layer in layers for statistics in layer.statistics(member).values())
    if not exact or not known:
        return None
    rows = [row for layer in layers for row in layer.signal_and_noise_power(hardware, member)]
    rows = [row for row in rows if row[1] != "elementwise"]
    signal, power = sum(row[2] for row in rows), sum(row[3] for row in rows)
    return 10 * math.log10(signal / power) if signal > 0 and power > 0 else None
