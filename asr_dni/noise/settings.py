"""What computation noise there is: its strength, scale, sites and seed."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, SupportsFloat, TypeAlias, get_args

from torch import Tensor

from asr_dni.errors import UserError

Scale: TypeAlias = Literal["absolute", "signal", "range"]
Site: TypeAlias = Literal["input", "recurrent", "elementwise", "output"]

Arrays: TypeAlias = Literal["joint", "separate"]

SCALES: tuple[Scale, ...] = get_args(Scale)
SITES: tuple[Site, ...] = get_args(Site)
MVM_SITES: tuple[Site, ...] = ("input", "recurrent", "output")
"""The sites of matrix-vector products: the default."""
ARRAYS: tuple[Arrays, ...] = get_args(Arrays)


def _is_number(value: object) -> bool:
    return isinstance(value, SupportsFloat)


@dataclass(frozen=True)
class Noise:
    """Additive Gaussian computation noise of a network; a value, never changed in place.

    At every site that is on, an independent number from N(0, s**2) is added to every element, fresh for every
    sample, time step and unit, with

    - ``s = sigma`` (scale ``absolute``: units of the pre-activation),
    - ``s = sigma * RMS`` of the clean output at that site (``signal``: SNR in dB is -20 log10 sigma),
    - ``s = sigma * bound * max|W|`` (``range``: multiples of the largest representable output, as in
      aihwkit-lightning; ``bound`` is the largest absolute input of that matrix).

    ``signal`` and ``range`` take their references from :func:`asr_dni.nn.calibrate`, on training data.

    Attributes:
        sigma: strength, at least 0; 0 is no noise.
        scale: what sigma is measured in.
        sites: where the noise enters: ``input`` (W_ih x_t), ``recurrent`` (W_hh h_{t-1}, and W_hr h of an LSTM with
            projection), ``elementwise`` (the products inside the cell), ``output`` (NoisyLinear).
        arrays: whether W_ih and W_hh lie on one array, so that with both their sites on a gate's pre-activation is one
            output ``[W_ih W_hh] [x_t; h_{t-1}]`` with one noise (``joint``), or on two, each with its own noise, whose
            variances add up (``separate``). The two parts of the n gate of a GRU are always two outputs.
        seed: makes the noise reproducible; different seeds give independent noise.
        draw: which realisation. ``None``: the first forward pass after the noise was set gets draw 0, the next
            draw 1, and so on.
        first_step: the time step that the first frame of the input is, for sequences that are processed in chunks.
        sample_ids: ``(N,)`` integer identities of the samples of the batch. ``None``: their positions in it. With
            identities given, a sample's noise does not depend on which batch it comes in.

    The gradient flows through the noisy values and takes s as a constant, also where s depends on the weights.

    Raises:
        UserError: a value is out of its range, or a site or scale is unknown.
    """

    sigma: float = 0.0
    scale: Scale = "absolute"
    sites: tuple[Site, ...] = MVM_SITES
    arrays: Arrays = "joint"
    seed: int = 0
    draw: int | None = None
    first_step: int = 0
    sample_ids: Tensor | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not _is_number(self.sigma) or not (self.sigma >= 0 and math.isfinite(self.sigma)):
            raise UserError(f"noise sigma is {self.sigma}: give a finite number of at least 0")
        if self.scale not in SCALES:
            raise UserError(f"noise scale is {self.scale!r}: give one of {', '.join(SCALES)}")
        if self.arrays not in ARRAYS:
            raise UserError(f"noise arrays is {self.arrays!r}: give one of {', '.join(ARRAYS)}")
        if not isinstance(self.sites, Iterable):
            raise UserError(f"noise sites is {self.sites!r}: give a list of some of {', '.join(SITES)}")
        object.__setattr__(self, "sites", tuple(self.sites))
        unknown = [site for site in self.sites if site not in SITES]
        if unknown:
            raise UserError(f"noise site {unknown[0]!r} is not known: give any of {', '.join(SITES)}")
        if not _is_number(self.first_step) or not 0 <= self.first_step < 2**32:
            raise UserError(f"noise first_step is {self.first_step}: give a time step from 0 to 2**32 - 1")
        ids = self.sample_ids
        if ids is not None and not isinstance(ids, Tensor):
            raise UserError(f"noise sample_ids is a {type(ids).__name__}: give a tensor of integers")
        if ids is not None and (ids.dim() != 1 or ids.is_floating_point() or ids.is_complex()):
            raise UserError(
                f"noise sample_ids are {tuple(ids.shape)} {ids.dtype}: give one integer per sample of the batch"
            )
        if len(set(self.sites)) != len(self.sites):
            raise UserError(f"noise sites {', '.join(self.sites)}: name each site once")

    @property
    def joint(self) -> bool:
        """Whether input and recurrent products are one output with one noise."""
        return self.arrays == "joint" and {"input", "recurrent"} <= set(self.sites)

    @property
    def on(self) -> bool:
        """Whether any noise is added at all."""
        return self.sigma > 0 and bool(self.sites)

    def at(self, sigma: float) -> "Noise":
        """Return the same noise with another strength."""
        return replace(self, sigma=sigma)

    def of(self, draw: int, sample_ids: Tensor) -> "Noise":
        """Return the same noise in a named realisation, of samples with these identities ``(N,)``."""
        return replace(self, draw=draw, sample_ids=sample_ids)
