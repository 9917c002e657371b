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
from asr_dni.nn.normalisation import normalising_by_batch
from asr_dni.noise import Hardware, Noise, NoisyModule, Scale, Site
from asr_dni.noise.recomputation import settings_of_pass
from asr_dni.processes import largest_over_processes, sum_over_processes


class SignalStatistics:
    """RMS and largest input of the clean matrix-vector products (and products) of one layer in one direction.

    Of one network, or of K; values stay on the device that they were estimated on, where the noise is drawn.

    Attributes:
        sites: of the products.
        values: ``(K, 2, sites)`` float64: per network and site the root mean square of the clean output, then the
            largest absolute value that goes into the matrix (``elementwise``: of the factors); NaN where not known.
        known: of each network, whether all of its values have been estimated.
    """

    def __init__(self, sites: tuple[str, ...], networks: int = 1) -> None:
        self.sites = sites
        self.values = torch.full((networks, 2, len(sites)), math.nan, dtype=torch.float64)
        self.known = [False] * networks

    def rms(self, site: str) -> Tensor:
        """Return ``(K,)`` root mean squares of a site's clean outputs."""
        return self.values[:, 0, self.sites.index(site)]

    def bound(self, site: str) -> Tensor:
        """Return ``(K,)`` largest absolute inputs of a site's matrix."""
        return self.values[:, 1, self.sites.index(site)]

    def update(self, powers: Mapping[str, Tensor], bounds: Mapping[str, Tensor], momentum: float) -> None:
        """Fold estimates of mean squares and largest inputs, ``(K,)`` each, in, with weight ``1 - momentum`` on them.

        Where nothing was known they are taken as they are.
        """
        places = [self.sites.index(site) for site in powers]
        if not places:
            return
        new = torch.stack([torch.stack(list(of.values()), -1) for of in (powers, bounds)], 1)
        before = self.values.to(new.device)
        old = torch.stack((before[:, 0, places].square(), before[:, 1, places]), 1)
        mixed = torch.where(old.isnan(), new, momentum * old + (1 - momentum) * new)
        values = before.clone()
        values[:, 0, places], values[:, 1, places] = mixed[:, 0].sqrt(), mixed[:, 1]
        self.values = values
        self.known = [known or len(places) == len(self.sites) for known in self.known]

    def load(self, values: Tensor) -> None:
        """Take over ``(K, 2, sites)``."""
        self.values = values.detach().to(torch.float64).clone()
        self.known = (~self.values.isnan()).flatten(1).all(1).tolist()

    def of(self, member: int) -> "MemberStatistics":
        """Return those of one network."""
        return MemberStatistics(self, member)


class MemberStatistics:
    """The :class:`SignalStatistics` of one network."""

    def __init__(self, statistics: SignalStatistics, member: int) -> None:
        self._of_all, self._member = statistics, member
        self.sites = statistics.sites

    @property
    def known(self) -> bool:
        """Whether the statistics have been estimated."""
        return self._of_all.known[self._member]

    @property
    def rms(self) -> dict[str, float]:
        """Per site that is known, the root mean square of the clean output."""
        return self._row(0)

    @property
    def bound(self) -> dict[str, float]:
        """Per site that is known, the largest absolute value that goes in."""
        return self._row(1)

    def _row(self, row: int) -> dict[str, float]:
        values = self._of_all.values[self._member, row].tolist()
        return {site: value for site, value in zip(self.sites, values, strict=True) if value == value}

    def as_tensor(self) -> Tensor:
        """Return ``(2, sites)`` float64: RMS, then bound; NaN where nothing is known."""
        return self._of_all.values[self._member].clone()

    def forget(self) -> None:
        """Return to the state in which nothing is known."""
        self.load(torch.full_like(self._of_all.values[self._member], math.nan))

    def load(self, values: Tensor) -> None:
        """Take over what :meth:`as_tensor` gave."""
        of_all = self._of_all.values.clone()
        of_all[self._member] = values
        self._of_all.load(of_all)


class SignalEstimate:
    """An estimate of one part's :class:`SignalStatistics` that is under way, for one network or for K at once.

    What is observed has a leading axis of K networks where there are K.
    """

    def __init__(self, sites: tuple[str, ...], networks: int | None) -> None:
        self.sites = sites
        self._networks = networks or 1
        self._squares: dict[str, Tensor] = {}
        self._counts = dict.fromkeys(sites, 0)
        self._largest: dict[str, Tensor] = {}

    def observe_output(self, site: str, clean: Tensor) -> None:
        """Add clean outputs of a site."""
        squares = clean.detach().reshape(self._networks, -1).double().square().sum(1)
        self._squares[site] = self._squares[site] + squares if site in self._squares else squares
        self._counts[site] += clean.numel() // self._networks

    def observe_input(self, site: str, values: Tensor, shared: bool = False) -> None:
        """Add inputs of a site's matrix; ``shared`` where all networks have the same."""
        if values.numel():
            rows = values.detach().reshape(1 if shared else self._networks, -1)
            largest = rows.abs().amax(1).double().expand(self._networks)
            before = self._largest.get(site)
            self._largest[site] = largest if before is None else torch.maximum(before, largest)

    def observe_product(self, left: Tensor, right: Tensor) -> None:
        """Add products inside the cell, given their factors."""
        self.observe_output("elementwise", left * right)
        self.observe_input("elementwise", left)
        self.observe_input("elementwise", right)

    def largest(self, site: str) -> Tensor:
        """Return each network's largest absolute input seen so far, ``(K,)`` (K = 1 for an ordinary one)."""
        return self._largest.get(site, torch.zeros(self._networks, dtype=torch.float64))

    def take_over_processes(self) -> None:
        """Become the estimate over what all processes have observed; every one of them has to call it."""
        for site, squares in self._squares.items():
            self._squares[site] = sum_over_processes(squares)
            count = sum_over_processes(squares.new_tensor(float(self._counts[site])))
            self._counts[site] = int(count)
        for site, largest in self._largest.items():
            self._largest[site] = largest_over_processes(largest)

    def finish(self, statistics: SignalStatistics, momentum: float) -> None:
        """Fold the estimate into each network's statistics, with weight ``1 - momentum`` on the new."""
        seen = [site for site in self.sites if self._counts[site]]
        powers = {site: self._squares[site] / self._counts[site] for site in seen}
        bounds = {site: self.largest(site).to(powers[site]) for site in seen}
        statistics.update(powers, bounds, momentum)


_under_way: ContextVar[Mapping["CalibratedModule", dict[str, SignalEstimate]]] = ContextVar(
    "asr_dni_estimates", default=MappingProxyType({})
)
"""What :func:`calibrate` is estimating in this thread: passes in others are none of its."""


class CalibratedModule(NoisyModule):
    """A noisy layer that knows the size of its clean signals.

    The statistics are in ``state_dict()`` under ``signal_statistics.<part>`` once they are known, ``(2, sites)``, in a
    population ``(K, 2, sites)``; before that the keys are exactly those of the ``torch.nn`` counterpart. Weights that
    are loaded without statistics leave the layer uncalibrated: what was known belongs to the weights before.
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
            statistics.load(torch.cat([member._statistics[part].values for member in members]))

    def keep_member(self, member: int) -> None:
        """Become an ordinary module, with a member's statistics."""
        super().keep_member(member)
        for statistics in self._statistics.values():
            statistics.load(statistics.values[member : member + 1])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for statistics in self._statistics.values():
            statistics.values = statistics.values.to(fn(statistics.values.float()).device)
        return self

    def _matrices(self, part: str, site: str) -> list[Tensor]:
        """Return the weights of a site; none for the elementwise products."""
        raise NotImplementedError

    def _unit_of_pass(
        self, part: str, site: str, scale: Scale, needed: Sequence[bool], inward: bool = False
    ) -> Tensor:
        """Return what :meth:`_unit` does in the forward pass that is under way.

        A pass that is run again has that of the first time, though weights or statistics have changed.
        """
        name = f"{part} {site} {scale} {'inward' * inward}"
        return settings_of_pass(self, name, lambda: self._unit(part, site, scale, needed, inward))

    def _unit(
        self, part: str, site: str, scale: Scale, needed: Sequence[bool], inward: bool = False
    ) -> Tensor:
        """Return ``(K,)`` float64: what 1 in units of a scale is at a site.

        Args:
            part: layer and direction.
            site: of the product.
            scale: of the number.
            needed: of which networks.
            inward: whether it is a number of the inputs, rather than of the outputs.

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
        if scale == "signal":
            return statistics.rms(site)
        matrices = [] if inward else self._matrices(part, site)
        if not matrices:
            return statistics.bound(site)
        first = 0 if self.networks is None else 1
        largest = torch.stack([matrix.detach().abs().flatten(first).amax(-1) for matrix in matrices]).amax(0)
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
            unit = float(self._unit(part, site, getattr(model, "scale", "absolute"), needed)[member])
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
                values = state_dict[key][None] if self.networks is None else state_dict[key]
                if values.shape != statistics.values.shape:
                    error_msgs.append(
                        f"size mismatch for {key}: {tuple(values.shape)} instead of {tuple(statistics.values.shape)}"
                    )
                    continue
                statistics.load(values.to(statistics.values.device))
            elif has_weights:
                statistics.load(torch.full_like(statistics.values, math.nan))
        rest = {key: value for key, value in state_dict.items() if key not in keys.values()}
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
    modes = {module: module.training for module in network.modules()}
    network.eval()
    estimates = {
        layer: {
            part: SignalEstimate(statistics.sites, layer.networks)
            for part, statistics in layer._statistics.items()
        }
        for layer in layers
    }
    empty = True
    token = _under_way.set({**_under_way.get(), **estimates})
    try:
        with torch.no_grad(), ExitStack() as stack:
            for layer in layers:
                stack.enter_context(layer.under(Noise()))
            if by_batch:
                stack.enter_context(normalising_by_batch(network))
            for batch in inputs:
                network(batch)
                empty = False
    finally:
        _under_way.reset(token)
        for module, training in modes.items():
            module.training = training
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
    layers = [module for module in network.modules() if isinstance(module, CalibratedModule)]
    known = all(statistics.known for layer in layers for statistics in layer.statistics(member).values())
    if not exact or not known:
        return None
    rows = [row for layer in layers for row in layer.signal_and_noise_power(hardware, member)]
    rows = [row for row in rows if row[1] != "elementwise"]
    signal, power = sum(row[2] for row in rows), sum(row[3] for row in rows)
    return 10 * math.log10(signal / power) if signal > 0 and power > 0 else None
