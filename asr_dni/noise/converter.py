"""Converters between digital numbers and analog values.

A new one is a class here, or in a file of its own, and its name in :data:`CONVERTERS`.
"""

from dataclasses import dataclass
from typing import ClassVar

from asr_dni.errors import UserError
from asr_dni.noise.model import Converter, Quantise
from asr_dni.noise.sites import Scale

_MOST_BITS = 24
"""What float32 tells apart."""


@dataclass(frozen=True)
class UniformConverter(Converter):
    """A converter with 2**bits - 1 levels at equal distances from -bound to bound, one of them 0.

    What lies outside is clipped, and has no gradient; inside the gradient goes straight through. The levels are those
    of aihwkit (``parameters/io.py``: a resolution of 1 / (2**bits - 2) of the range).

    Args:
        bits: 2 to 24.
        bound: the largest value that it takes.
        scale: what the bound is measured in: ``absolute``, or multiples of the RMS (``signal``) or of the largest value
            (``range``) that calibration has found: of a DAC the inputs', of an ADC the outputs', of which the largest
            is taken to be the largest input times max|W|. The RMS of inputs is not known.
        learned: whether a training learns the bound, for each layer and site by itself, from the one that is given
            here on; see :mod:`asr_dni.nn.learned_bounds`. A network that has learned none has the given one.
        decay: what the loss has beside for each learned bound, times its logarithm: it shrinks a bound until clipping
            costs as much, as aihwkit-lightning's ``decay`` of input ranges does.

    Raises:
        UserError: a value is out of its range, or the scale is unknown.
    """

    strength: ClassVar[str] = "bits"
    unnamed: ClassVar[tuple[str, ...]] = ("learned", "decay")
    of_training: ClassVar[tuple[str, ...]] = ("decay",)

    bits: int = 8
    bound: float = 1.0
    scale: Scale = "range"
    learned: bool = False
    decay: float = 0.0

    def __post_init__(self) -> None:
        given: float = self.bits
        if isinstance(given, float) and given.is_integer():  # a strength's values are floats
            object.__setattr__(self, "bits", int(given))
        if not isinstance(self.bits, int) or isinstance(self.bits, bool) or not 2 <= self.bits <= _MOST_BITS:
            raise UserError(
                f"a converter's bits are {self.bits!r}: give a whole number from 2 to {_MOST_BITS}"
            )
        self._check_number("bound")
        if self.bound == 0:
            raise UserError("a converter's bound is 0: give a number above 0")
        self._check_scale(self.scale)
        if not isinstance(self.learned, bool):
            raise UserError(f"a converter's learned is {self.learned!r}: give true or false")
        self._check_number("decay")
        if self.decay and not self.learned:
            raise UserError(
                f"a converter's decay is {self.decay:g}, but not its bound learned: give learned: true"
            )

    def operation(self) -> Quantise:
        """Return clipping and rounding."""
        return Quantise(self.bound, self.bound / (2 ** (self.bits - 1) - 1), self.scale, self.learned)


CONVERTERS: dict[str, type[Converter]] = {"UniformConverter": UniformConverter}
"""Every converter by its name. A new one is added here."""
