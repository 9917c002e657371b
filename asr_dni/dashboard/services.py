"""What the pages of one dashboard share: networks in memory, uploaded recordings, measurements in the background."""

import weakref
from dataclasses import dataclass, field
from pathlib import Path

from asr_dni.catalogue import Catalogue, Run
from asr_dni.dashboard.listening import Uploads
from asr_dni.dashboard.measurements import Measurements
from asr_dni.dashboard.networks import Network, Networks
from asr_dni.dashboard.run_facts import checkpoint_of
from asr_dni.errors import UserError


@dataclass(frozen=True)
class Services:
    """What the pages of one dashboard share.

    Attributes:
        catalogue: of the results that are shown.
        networks: those that were asked for last.
        uploads: recordings that were uploaded.
        measurements: what is being measured.
    """

    catalogue: Catalogue
    networks: Networks = field(default_factory=Networks)
    uploads: Uploads = field(default_factory=Uploads)
    measurements: Measurements = field(default_factory=Measurements)

    def checkpoint(self, run: str, name: str = "") -> tuple[Run, Path]:
        """Return a run, and its checkpoint of a file name, or its last one.

        Raises:
            UserError: there is no such run, or it has no checkpoint.
        """
        found = self.catalogue.run(run)
        checkpoint = checkpoint_of(found, name)
        if checkpoint is None:
            raise UserError(f"{run} has no checkpoint yet: there is no network to run")
        return found, checkpoint

    def network(self, run: str, name: str = "") -> Network:
        """Return the network of a run's checkpoint.

        Raises:
            UserError: see :meth:`checkpoint`; the file is damaged.
        """
        return self.networks.get(self.checkpoint(run, name)[1])


_KNOWN: "weakref.WeakKeyDictionary[Catalogue, Services]" = weakref.WeakKeyDictionary()


def services_of(catalogue: Catalogue) -> Services:
    """Return what the pages of a catalogue's dashboard share."""
    if catalogue not in _KNOWN:
        _KNOWN[catalogue] = Services(catalogue)
    return _KNOWN[catalogue]
