"""Which realisation of a hardware a network runs in: a value, never changed in place."""

import operator
from dataclasses import dataclass, field

from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.noise.strength import SIGMA, Strength


@dataclass(frozen=True)
class Realisation:
    """Which realisation of a hardware: what its random numbers are named by.

    Attributes:
        seed: makes the noise reproducible; different seeds give independent noise.
        chip: which chip: what was programmed, once and for all its forward passes.
        draw: which realisation of what is fresh in every pass. ``None``: the first forward pass after the noise was set
            gets draw 0, the next draw 1, and so on.
        first_step: the time step that the first frame of the input is, for sequences that are processed in chunks.
        sample_ids: ``(N,)`` integer identities of the samples of the batch. ``None``: their positions in it. With
            identities given, a sample's noise does not depend on which batch it comes in.
        shares: ``(N,)`` numbers of at least 0: what share of a strength each sample of the batch has. ``None``: all of
            it.
        shares_of: which strength; see :meth:`asr_dni.noise.Hardware.varies_by_sample`.

    Raises:
        UserError: a value is out of its range.
    """

    seed: int = 0
    chip: int = 0
    draw: int | None = None
    first_step: int = 0
    sample_ids: Tensor | None = field(default=None, compare=False, repr=False)
    shares: Tensor | None = field(default=None, compare=False, repr=False)
    shares_of: Strength = SIGMA

    def __post_init__(self) -> None:
        for name in ("seed", "chip", "draw", "first_step"):
            value = getattr(self, name)
            if value is None and name == "draw":
                continue
            try:
                object.__setattr__(self, name, operator.index(value))
            except TypeError:
                raise UserError(f"noise {name} is {value!r}: give a whole number") from None
        if not 0 <= self.first_step < 2**32:
            raise UserError(f"noise first_step is {self.first_step}: give a time step from 0 to 2**32 - 1")
        ids = self.sample_ids
        if ids is not None and not isinstance(ids, Tensor):
            raise UserError(f"noise sample_ids is a {type(ids).__name__}: give a tensor of integers")
        if ids is not None and (ids.dim() != 1 or ids.is_floating_point() or ids.is_complex()):
            raise UserError(
                f"noise sample_ids are {tuple(ids.shape)} {ids.dtype}: give one integer per sample of the batch"
            )
        shares = self.shares
        if shares is not None and (
            not isinstance(shares, Tensor) or shares.dim() != 1 or not shares.is_floating_point()
        ):
            raise UserError(
                "noise shares are not a tensor (N,) of floating-point numbers: give one per sample"
            )
