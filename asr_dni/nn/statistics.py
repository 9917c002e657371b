"""Reference values of the noise scales ``signal`` and ``range``, estimated on training data."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.noise import Noise, NoisyModule, Site
from asr_dni.noise.recomputation import settings_of_pass
from asr_dni.processes import largest_over_processes, sum_over_processes


class SignalStatistics:
    """RMS and largest input of the clean matrix-vector products (and products) of one layer in one direction.

    Attributes:
        rms: per site, the root mean square of the clean output.
        bound: per site, the largest absolute value that goes into the matrix (``elementwise``: of the factors).
    """

    def __init__(self, sites: tuple[str, ...]) -> None:
        self.sites = sites
        self.rms: dict[str, float] = {}
        self.bound: dict[str, float] = {}

    @property
    def known(self) -> bool:
        """Whether the statistics have been estimated."""
        return len(self.rms) == len(self.sites)

    def forget(self) -> None:
        """Return to the state in which nothing is known."""
        self.rms.clear()
        self.bound.clear()

    def update(self, site: str, power: float, bound: float, momentum: float) -> None:
        """Fold an estimate of a site's mean square and largest input in, with weight ``1 - momentum`` on the new."""
        if site in self.rms:
            power = momentum * self.rms[site] ** 2 + (1 - momentum) * power
            bound = momentum * self.bound[site] + (1 - momentum) * bound
        self.rms[site], self.bound[site] = math.sqrt(power), bound

    def as_tensor(self) -> Tensor:
        """Return ``(2, sites)`` float64: RMS, then bound; NaN where nothing is known."""
        rows = [[values.get(site, math.nan) for site in self.sites] for values in (self.rms, self.bound)]
        return torch.tensor(rows, dtype=torch.float64)

    def load(self, values: Tensor) -> None:
        """Take over what :meth:`as_tensor` gave."""
        self.forget()
        for row, target in zip(values.tolist(), (self.rms, self.bound), strict=True):
            known = ((site, value) for site, value in zip(self.sites, row, strict=True) if value == value)
            target.update(known)


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

    def finish(self, statistics: Sequence[SignalStatistics], momentum: float) -> None:
        """Fold the estimate into each network's statistics, with weight ``1 - momentum`` on the new."""
        for site in self.sites:
            if self._counts[site]:
                powers = (self._squares[site] / self._counts[site]).tolist()
                bounds = self.largest(site).tolist()
                for member, power, bound in zip(statistics, powers, bounds, strict=True):
                    member.update(site, power, bound, momentum)


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

    _statistics: tuple[dict[str, SignalStatistics], ...]

    @property
    def _estimates(self) -> dict[str, SignalEstimate] | None:
        """What :func:`calibrate` is estimating; ``None`` outside of it."""
        return _under_way.get().get(self)

    def statistics(self, member: int | None = None) -> dict[str, SignalStatistics]:
        """Return the statistics of every part (layer and direction) of this module.

        Args:
            member: of a population, which network's.

        Raises:
            UserError: there is no such member, or this is a population and none is named.
        """
        return self._statistics[self._member(member)]

    def _matrices(self, part: str, site: str) -> list[Tensor]:
        """Return the weights of a site; none for the elementwise products."""
        raise NotImplementedError

    def _std_of_pass(self, part: str, site: str, noise: Noise, member: int = 0) -> float:
        """Return the standard deviation of a network's noise at a site in the forward pass that is under way.

        A pass that is run again has that of the first time, though weights or statistics have changed.
        """
        if noise.scale == "absolute":
            return noise.sigma
        return settings_of_pass(self, f"{part} {site} {member}", lambda: self._std(part, site, noise, member))

    def _std(self, part: str, site: str, noise: Noise, member: int = 0) -> float:
        """Return the standard deviation of a network's noise at a site."""
        if noise.scale == "absolute":
            return noise.sigma
        statistics = self._statistics[member][part]
        if not statistics.known:
            raise UserError(
                f"noise scale {noise.scale!r} needs the size of the clean signals, which this network does not have:"
                " run asr_dni.nn.calibrate(network, inputs) on training data first, or use scale 'absolute'"
            )
        if noise.scale == "signal":
            return noise.sigma * statistics.rms[site]
        matrices = self._matrices(part, site)
        if self.networks is not None:
            matrices = [matrix[member] for matrix in matrices]
        largest_weight = max((float(matrix.detach().abs().max()) for matrix in matrices), default=1.0)
        return noise.sigma * statistics.bound[site] * largest_weight

    def signal_and_noise_power(
        self, noise: Noise, member: int | None = None
    ) -> list[tuple[str, Site, float, float]]:
        """Return part, site, mean square of the clean signal and variance of the noise, where both are known.

        Args:
            noise: the noise.
            member: of a population, which network's.
        """
        raise NotImplementedError

    def _save_to_state_dict(self, destination: dict[str, object], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for part in self._statistics[0]:
            members = [statistics[part] for statistics in self._statistics]
            if any(statistics.known for statistics in members):
                values = [statistics.as_tensor() for statistics in members]
                key = f"{prefix}signal_statistics.{part}"
                destination[key] = values[0] if self.networks is None else torch.stack(values)

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
        keys = {part: f"{prefix}signal_statistics.{part}" for part in self._statistics[0]}
        has_weights = any(key.startswith(prefix) for key in state_dict)
        for part, key in keys.items():
            members = [statistics[part] for statistics in self._statistics]
            if key in state_dict:
                values = state_dict[key][None] if self.networks is None else state_dict[key]
                expected = (len(members), 2, len(members[0].sites))
                if tuple(values.shape) != expected:
                    error_msgs.append(f"size mismatch for {key}: {tuple(values.shape)} instead of {expected}")
                    continue
                for statistics, its in zip(members, values, strict=True):
                    statistics.load(its)
            elif has_weights:
                for statistics in members:
                    statistics.forget()
        rest = {key: value for key, value in state_dict.items() if key not in keys.values()}
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def calibrate(
    network: nn.Module, inputs: Iterable[Tensor], momentum: float = 0.0, over_processes: bool = False
) -> None:
    """Estimate RMS and range of the clean signals of all noisy layers, with the noise off.

    In a population each member's are estimated as they would be alone.

    Args:
        network: a noisy layer or a network of them.
        inputs: what the network is called with, one batch after another; training data.
        momentum: weight of what was known before, 0 to forget it.
        over_processes: whether the inputs are this process's part of those of all processes, which call this together
            and get the same estimates, as from all inputs in one process.

    Raises:
        UserError: ``inputs`` is empty.
    """
    layers = [module for module in network.modules() if isinstance(module, CalibratedModule)]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    estimates = {
        layer: {
            part: SignalEstimate(statistics.sites, layer.networks)
            for part, statistics in layer._statistics[0].items()
        }
        for layer in layers
    }
    empty = True
    token = _under_way.set({**_under_way.get(), **estimates})
    try:
        with torch.no_grad(), ExitStack() as stack:
            for layer in layers:
                stack.enter_context(layer.under(Noise()))
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
            estimate.finish([statistics[part] for statistics in layer._statistics], momentum)


def snr_db(network: nn.Module, noise: Noise, member: int | None = None) -> float | None:
    """Return the signal-to-noise ratio of a network's matrix-vector products under a noise, in dB.

    Clean signal power and noise power are each averaged over the products (layers, directions and the sites
    ``input``, ``recurrent``, ``output`` that are on); the ratio of the two means is given. With scale ``signal`` and
    one product it is -20 log10 sigma.

    Args:
        network: a noisy layer or a network of them.
        noise: the noise.
        member: of a population, which network's.

    Returns:
        The ratio; infinity without noise; ``None`` where the network was not calibrated.
    """
    if not noise.on:
        return math.inf
    layers = [module for module in network.modules() if isinstance(module, CalibratedModule)]
    if not all(statistics.known for layer in layers for statistics in layer.statistics(member).values()):
        return None
    rows = [row for layer in layers for row in layer.signal_and_noise_power(noise, member)]
    rows = [row for row in rows if row[1] != "elementwise"]
    signal, power = sum(row[2] for row in rows), sum(row[3] for row in rows)
    return 10 * math.log10(signal / power) if signal > 0 and power > 0 else None
