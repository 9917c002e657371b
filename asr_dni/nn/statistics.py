"""Reference values of the noise scales ``signal`` and ``range``, estimated on training data."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.noise import Noise, NoisyModule, Site


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
        self.begin()

    @property
    def known(self) -> bool:
        """Whether the statistics have been estimated."""
        return len(self.rms) == len(self.sites)

    def begin(self) -> None:
        """Begin a new estimate; what is known stays until :meth:`finish`."""
        self._squares = dict.fromkeys(self.sites, 0.0)
        self._counts = dict.fromkeys(self.sites, 0)
        self._largest = dict.fromkeys(self.sites, 0.0)

    def forget(self) -> None:
        """Return to the state in which nothing is known."""
        self.rms.clear()
        self.bound.clear()

    def observe_output(self, site: str, clean: Tensor) -> None:
        """Add clean outputs of a site to the estimate under way."""
        self._squares[site] += float(clean.detach().double().square().sum())
        self._counts[site] += clean.numel()

    def observe_input(self, site: str, values: Tensor) -> None:
        """Add inputs of a site's matrix to the estimate under way."""
        if values.numel():
            self._largest[site] = max(self._largest[site], float(values.detach().abs().max()))

    def observe_product(self, left: Tensor, right: Tensor) -> None:
        """Add products inside the cell, given their factors, to the estimate under way."""
        self.observe_output("elementwise", left * right)
        self.observe_input("elementwise", left)
        self.observe_input("elementwise", right)

    def largest(self, site: str) -> float:
        """Return the largest absolute input seen in the estimate under way."""
        return self._largest[site]

    def finish(self, momentum: float) -> None:
        """Fold the estimate under way into the statistics, with weight ``1 - momentum`` on the new."""
        for site in self.sites:
            if not self._counts[site]:
                continue
            power = self._squares[site] / self._counts[site]
            bound = self._largest[site]
            if site in self.rms:
                power = momentum * self.rms[site] ** 2 + (1 - momentum) * power
                bound = momentum * self.bound[site] + (1 - momentum) * bound
            self.rms[site], self.bound[site] = math.sqrt(power), bound

    def as_tensor(self) -> Tensor:
        """Return ``(2, sites)`` float64: RMS, then bound."""
        rows = [[values[site] for site in self.sites] for values in (self.rms, self.bound)]
        return torch.tensor(rows, dtype=torch.float64)

    def load(self, values: Tensor) -> None:
        """Take over what :meth:`as_tensor` gave."""
        for row, target in zip(values.tolist(), (self.rms, self.bound), strict=True):
            target.update(zip(self.sites, row, strict=True))


class CalibratedModule(NoisyModule):
    """A noisy layer that knows the size of its clean signals.

    The statistics are in ``state_dict()`` under ``signal_statistics.<part>`` once they are known; before that the
    keys are exactly those of the ``torch.nn`` counterpart. Weights that are loaded without statistics leave the layer
    uncalibrated: what was known belongs to the weights before.
    """

    _statistics: dict[str, SignalStatistics]
    _observing: bool = False

    def statistics(self) -> dict[str, SignalStatistics]:
        """Return the statistics of every part (layer and direction) of this module."""
        return self._statistics

    def _matrices(self, part: str, site: str) -> list[Tensor]:
        """Return the weights of a site; none for the elementwise products."""
        raise NotImplementedError

    def _std(self, part: str, site: str, noise: Noise) -> float:
        """Return the standard deviation of the noise at a site."""
        if noise.scale == "absolute":
            return noise.sigma
        statistics = self._statistics[part]
        if not statistics.known:
            raise UserError(
                f"noise scale {noise.scale!r} needs the size of the clean signals, which this network does not have:"
                " run asr_dni.nn.calibrate(network, inputs) on training data first, or use scale 'absolute'"
            )
        if noise.scale == "signal":
            return noise.sigma * statistics.rms[site]
        largest_weight = max((float(w.detach().abs().max()) for w in self._matrices(part, site)), default=1.0)
        return noise.sigma * statistics.bound[site] * largest_weight

    def signal_and_noise_power(self, noise: Noise) -> list[tuple[str, Site, float, float]]:
        """Return part, site, mean square of the clean signal and variance of the noise, where both are known."""
        raise NotImplementedError

    def _save_to_state_dict(self, destination: dict[str, object], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for part, statistics in self._statistics.items():
            if statistics.known:
                destination[f"{prefix}signal_statistics.{part}"] = statistics.as_tensor()

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *arguments: object, **keywords: object
    ) -> None:
        keys = {part: f"{prefix}signal_statistics.{part}" for part in self._statistics}
        has_weights = any(key.startswith(prefix) for key in state_dict)
        for part, key in keys.items():
            if key in state_dict:
                self._statistics[part].load(state_dict[key])
            elif has_weights:
                self._statistics[part].forget()
        rest = {key: value for key, value in state_dict.items() if key not in keys.values()}
        super()._load_from_state_dict(rest, prefix, *arguments, **keywords)


def calibrate(network: nn.Module, inputs: Iterable[Tensor], momentum: float = 0.0) -> None:
    """Estimate RMS and range of the clean signals of all noisy layers, with the noise off.

    Args:
        network: a noisy layer or a network of them.
        inputs: what the network is called with, one batch after another; training data.
        momentum: weight of what was known before, 0 to forget it.

    Raises:
        UserError: ``inputs`` is empty.
    """
    layers = [module for module in network.modules() if isinstance(module, CalibratedModule)]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    noises = [layer._noise for layer in layers]
    for layer in layers:
        layer._observing, layer._noise = True, Noise()
        for statistics in layer.statistics().values():
            statistics.begin()
    empty = True
    try:
        with torch.no_grad():
            for batch in inputs:
                network(batch)
                empty = False
    finally:
        for module, training in modes.items():
            module.training = training
        for layer, noise in zip(layers, noises, strict=True):
            layer._observing, layer._noise = False, noise
    if empty:
        raise UserError("calibration got no batch: give at least one batch of training data")
    for layer in layers:
        for statistics in layer.statistics().values():
            statistics.finish(momentum)


def snr_db(network: nn.Module, noise: Noise) -> float | None:
    """Return the signal-to-noise ratio of a network's matrix-vector products under a noise, in dB.

    Clean signal power and noise power are each averaged over the products (layers, directions and the sites
    ``input``, ``recurrent``, ``output`` that are on); the ratio of the two means is given. With scale ``signal`` and
    one product it is -20 log10 sigma.

    Returns:
        The ratio; infinity without noise; ``None`` where the network was not calibrated.
    """
    if not noise.on:
        return math.inf
    layers = [module for module in network.modules() if isinstance(module, CalibratedModule)]
    if not all(statistics.known for layer in layers for statistics in layer.statistics().values()):
        return None
    rows = [row for layer in layers for row in layer.signal_and_noise_power(noise) if row[1] != "elementwise"]
    signal, power = sum(row[2] for row in rows), sum(row[3] for row in rows)
    return 10 * math.log10(signal / power) if signal > 0 and power > 0 else None
