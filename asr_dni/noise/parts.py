"""Parts of a network that noise can be at alone, to ask how much each of them bears."""

from dataclasses import dataclass, field

from asr_dni.noise.hardware import Hardware
from asr_dni.noise.sites import Site


@dataclass(frozen=True)
class Part:
    """Products of a network: those of a layer at some sites, or of these only the ones of a gate.

    Attributes:
        module: which of the network's noisy modules, in their order.
        layer: of this module, and direction: ``l0``, ``l1_reverse``.
        sites: of the hardware.
        gate: of the cell, such as ``f``; "": all.
        name: of the layer in the network, as people read it: ``recurrent.l0``, ``classifier``.
    """

    module: int
    layer: str
    sites: tuple[Site, ...]
    gate: str = ""
    name: str = field(default="", compare=False)

    def covers(self, module: int, layer: str, site: Site) -> bool:
        """Return whether a product is one of these, as far as its gate allows."""
        return (module, layer) == (self.module, self.layer) and site in self.sites

    @property
    def site(self) -> str:
        """Its sites in one word: ``input+recurrent``."""
        return "+".join(self.sites)

    def __str__(self) -> str:
        """Return layer, site and gate: ``recurrent.l0 input+recurrent f``."""
        return " ".join(filter(None, (self.name or self.layer, self.site, self.gate)))


@dataclass(frozen=True)
class Placed:
    """Noise at a part.

    Attributes:
        part: where.
        hardware: what there is; ``None``: the network's own.
    """

    part: Part
    hardware: Hardware | None = None
