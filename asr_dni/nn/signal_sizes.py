"""How large the clean signals of a layer's products are: what is known, and an estimate that is under way."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from asr_dni.processes import largest_over_processes, sum_over_processes


class SignalStatistics:
    """RMS and largest input of the clean matrix-vector products (and products) of one layer in one direction.

    Of one network, or of K; values stay on the device that they were estimated on, where the noise is drawn.

    Args:
        sites: of the products, and how many outputs each has.
        networks: K.

    Attributes:
        sites: of the products.
        values: ``(K, 2, sites)`` float64: per network and site the root mean square of the clean output, then the
            largest absolute value that goes into the matrix (``elementwise``: of the factors); NaN where not known.
        outputs: ``(K, outputs)`` float64: the root mean square of each output of all sites, one site after the other;
            NaN where not known, also beside values that are: of weights that were calibrated before there was any.
        known: of each network, whether all of its values have been estimated.
    """

    def __init__(self, sites: Mapping[str, int], networks: int = 1) -> None:
        self.sites = tuple(sites)
        self.widths = dict(sites)
        self.values = torch.full((networks, 2, len(sites)), math.nan, dtype=torch.float64)
        self.outputs = torch.full((networks, sum(sites.values())), math.nan, dtype=torch.float64)
        self.known = [False] * networks

    def rms(self, site: str) -> Tensor:
        """Return ``(K,)`` root mean squares of a site's clean outputs."""
        return self.values[:, 0, self.sites.index(site)]

    def rms_of_outputs(self, site: str) -> Tensor:
        """Return ``(K, out)`` root mean squares of each of a site's clean outputs."""
        return torch.split(self.outputs, list(self.widths.values()), -1)[self.sites.index(site)]

    def bound(self, site: str) -> Tensor:
        """Return ``(K,)`` largest absolute inputs of a site's matrix."""
        return self.values[:, 1, self.sites.index(site)]

    def update(
        self,
        powers: Mapping[str, Tensor],
        bounds: Mapping[str, Tensor],
        of_outputs: Mapping[str, Tensor],
        momentum: float,
    ) -> None:
        """Fold estimates in, with weight ``1 - momentum`` on them; where nothing was known they are taken as they are.

        Args:
            powers: mean squares of sites, ``(K,)`` each.
            bounds: their largest inputs, ``(K,)`` each.
            of_outputs: mean squares of their outputs, ``(K, out)`` each.
            momentum: weight of what was known before.
        """
        places = [self.sites.index(site) for site in powers]
        if not places:
            return
        new = torch.stack([torch.stack(list(of.values()), -1) for of in (powers, bounds)], 1)
        before = self.values.to(new.device)
        old = torch.stack((before[:, 0, places].square(), before[:, 1, places]), 1)
        mixed = _mixed(old, new, momentum)
        values = before.clone()
        values[:, 0, places], values[:, 1, places] = mixed[:, 0].sqrt(), mixed[:, 1]
        self.values = values
        self.known = [known or len(places) == len(self.sites) for known in self.known]
        before = self.outputs.to(new.device)
        seen = [
            of_outputs.get(site, self.rms_of_outputs(site).to(new.device).square()) for site in self.sites
        ]
        self.outputs = _mixed(before.square(), torch.cat(seen, -1), momentum).sqrt()

    def load(self, values: Tensor, outputs: Tensor | None = None) -> None:
        """Take over ``(K, 2, sites)``, and ``(K, outputs)`` where they are known."""
        self.values = values.detach().to(torch.float64).clone()
        self.outputs = (
            self.values.new_full((len(self.values), self.outputs.shape[-1]), math.nan)
            if outputs is None
            else outputs.detach().to(self.values).clone()
        )
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

    def rms_of_outputs(self, site: str) -> Tensor:
        """Return ``(out,)`` root mean squares of each of a site's clean outputs; NaN where they are not known."""
        return self._of_all.rms_of_outputs(site)[self._member].clone()

    def as_tensor(self) -> Tensor:
        """Return ``(2, sites)`` float64: RMS, then bound; NaN where nothing is known."""
        return self._of_all.values[self._member].clone()

    def forget(self) -> None:
        """Return to the state in which nothing is known."""
        self.load(torch.full_like(self._of_all.values[self._member], math.nan))

    def load(self, values: Tensor) -> None:
        """Take over what :meth:`as_tensor` gave; the sizes of single outputs are then not known."""
        of_all, outputs = self._of_all.values.clone(), self._of_all.outputs.clone()
        of_all[self._member], outputs[self._member] = values, math.nan
        self._of_all.load(of_all, outputs)


def _mixed(old: Tensor, new: Tensor, momentum: float) -> Tensor:
    return torch.where(old.isnan(), new, momentum * old + (1 - momentum) * new)


class SignalEstimate:
    """An estimate of one part's :class:`SignalStatistics` that is under way, for one network or for K at once.

    What is observed has a leading axis of K networks where there are K.
    """

    def __init__(self, sites: Mapping[str, int], networks: int | None) -> None:
        self.sites = tuple(sites)
        self._widths = dict(sites)
        self._networks = networks or 1
        self._squares: dict[str, Tensor] = {}
        self._of_outputs: dict[str, Tensor] = {}
        self._counts = dict.fromkeys(sites, 0)
        self._largest: dict[str, Tensor] = {}

    def observe_output(self, site: str, clean: Tensor, axis: int = -1, first: int = 0) -> None:
        """Add clean outputs of a site.

        Args:
            site: of the product.
            clean: the outputs.
            axis: of single outputs.
            first: which of the site's outputs comes first there.
        """
        power = clean.detach().double().square()
        squares = power.reshape(self._networks, -1).sum(1)
        self._squares[site] = self._squares[site] + squares if site in self._squares else squares
        self._counts[site] += clean.numel() // self._networks
        each = power.movedim(axis, -1).reshape(self._networks, -1, clean.shape[axis]).sum(1)
        if site not in self._of_outputs:
            self._of_outputs[site] = each.new_zeros(self._networks, self._widths[site])
        self._of_outputs[site][:, first : first + each.shape[-1]] += each

    def observe_input(self, site: str, values: Tensor, shared: bool = False) -> None:
        """Add inputs of a site's matrix; ``shared`` where all networks have the same."""
        if values.numel():
            rows = values.detach().reshape(1 if shared else self._networks, -1)
            largest = rows.abs().amax(1).double().expand(self._networks)
            before = self._largest.get(site)
            self._largest[site] = largest if before is None else torch.maximum(before, largest)

    def observe_product(self, left: Tensor, right: Tensor, first: int) -> None:
        """Add products inside the cell, given their factors and which of all products comes first."""
        self.observe_output("elementwise", left * right, first=first)
        self.observe_input("elementwise", left)
        self.observe_input("elementwise", right)

    def largest(self, site: str) -> Tensor:
        """Return each network's largest absolute input seen so far, ``(K,)`` (K = 1 for an ordinary one)."""
        return self._largest.get(site, torch.zeros(self._networks, dtype=torch.float64))

    def take_over_processes(self) -> None:
        """Become the estimate over what all processes have observed; every one of them has to call it."""
        for site, squares in self._squares.items():
            self._squares[site] = sum_over_processes(squares)
            self._of_outputs[site] = sum_over_processes(self._of_outputs[site])
            count = sum_over_processes(squares.new_tensor(float(self._counts[site])))
            self._counts[site] = int(count)
        for site, largest in self._largest.items():
            self._largest[site] = largest_over_processes(largest)

    def finish(self, statistics: SignalStatistics, momentum: float) -> None:
        """Fold the estimate into each network's statistics, with weight ``1 - momentum`` on the new."""
        seen = [site for site in self.sites if self._counts[site]]
        powers = {site: self._squares[site] / self._counts[site] for site in seen}
        bounds = {site: self.largest(site).to(powers[site]) for site in seen}
        of_outputs = {site: self._of_outputs[site] * self._widths[site] / self._counts[site] for site in seen}
        statistics.update(powers, bounds, of_outputs, momentum)
