"""Output models: noise on the outputs of analog products.

A new one is a class here, or in a file of its own, and its name in :data:`OUTPUT_MODELS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from asr_dni.errors import UserError
from asr_dni.noise.distributions import as_laplace, as_uniform, standard_normal_quantile
from asr_dni.noise.model import AddGaussian, Affine, Noisy, Operation, OutputModel, OutputNumbers
from asr_dni.noise.reading import GaussianOfRange, IRDrop, ReadNoise
from asr_dni.noise.sites import Per, Scale, check_per

_MOST_OCTAVES = 24


@dataclass(frozen=True)
class Scaled(Noisy):
    """A model whose ``sigma``, s, is measured in units of a ``scale``.

    With scale ``absolute`` s is ``sigma``, in units of the pre-activation; with ``signal`` ``sigma * RMS`` of the clean
    output (its SNR in dB is -20 log10 sigma); with ``range`` ``sigma * bound * max|W|`` (multiples of the largest
    representable output, as in aihwkit-lightning; ``bound`` is the largest absolute input of that matrix).

    With ``per: output`` each output (column) has an s of its own: the RMS is its own, max|W| that of its weights. All
    arrays that a matrix lies on are measured by the sizes of their sum; products inside the cell, which have no
    weights, have one range for all.

    Attributes:
        scale: ``absolute``, ``signal`` or ``range``.
        per: what the scale's size is of: the ``tensor``, all outputs together, or each ``output``.

    Raises:
        UserError: sigma is not a finite number of at least 0, the scale is unknown, or it is per output and absolute.
    """

    unnamed: ClassVar[tuple[str, ...]] = ("per",)

    scale: Scale = "absolute"
    per: Per = field(default="tensor", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_scale(self.scale)
        check_per(self.per)
        if self.per == "output" and self.scale == "absolute":
            raise UserError(
                "noise per is 'output' and scale 'absolute', which has no size: give signal or range"
            )

    @property
    def unit_per(self) -> Per:
        """:attr:`per`."""
        return self.per

    def variance(self, signal: float, unit: float) -> float:
        """Return s squared."""
        return (self.sigma * unit) ** 2


@dataclass(frozen=True)
class Gaussian(Scaled):
    """y + s N(0, 1): additive noise (M. Qin and D. Vucinic, arXiv:1807.06555).

    s is ``sigma`` in units of ``scale``, see :class:`Scaled`.

    Raises:
        UserError: sigma is not a finite number of at least 0, or the scale is unknown.
    """

    by_sample: ClassVar[bool] = True
    additive: ClassVar[bool] = True

    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return what adds it."""
        return AddGaussian(self.sigma, self.scale, numbers.shares, self.per)


@dataclass(frozen=True)
class Multiplicative(Noisy):
    """y (1 + sigma N(0, 1)): noise in proportion to the output (B. Klein et al., "Walking Noise", arXiv:2212.10430).

    Attributes:
        sigma: standard deviation, a share of each output.

    Raises:
        UserError: sigma is not a finite number of at least 0.
    """

    by_sample: ClassVar[bool] = True
    units: ClassVar[Mapping[str, str]] = {"sigma": "multiples of each output"}

    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return gains that are drawn outside."""
        return Affine(gain=self.sigmas(numbers) * numbers.normal())

    def variance(self, signal: float, unit: float) -> float:
        """Return sigma squared times the signal's power."""
        return self.sigma**2 * signal


@dataclass(frozen=True)
class AdditiveMultiplicative(Scaled):
    """y (1 + ratio sigma N1) + s N2: noise of both kinds at once (B. Klein et al., "Walking Noise", arXiv:2212.10430).

    N1 and N2 are standard normal and independent; s is ``sigma`` in units of ``scale``, see :class:`Scaled`. With order
    ``additive_first`` it is (y + s N2) (1 + ratio sigma N1).

    Attributes:
        ratio: of the gain's sigma to sigma.
        order: ``multiplicative_first`` or ``additive_first``.

    Raises:
        UserError: a value is out of its range.
    """

    by_sample: ClassVar[bool] = True

    ratio: float = 1.0
    order: Literal["multiplicative_first", "additive_first"] = "multiplicative_first"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("ratio")
        if self.order not in ("multiplicative_first", "additive_first"):
            raise UserError(f"noise order is {self.order!r}: give multiplicative_first or additive_first")

    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return gains and what is added, drawn outside."""
        sigma = self.sigmas(numbers)
        gain, add = self.ratio * sigma * numbers.normal("gain"), sigma * numbers.normal("add")
        return Affine(gain, add * (1 + gain) if self.order == "additive_first" else add, self.scale, self.per)

    def variance(self, signal: float, unit: float) -> float:
        """Return (ratio sigma)**2 times the signal's power, plus that of what is added."""
        gain, add = (self.ratio * self.sigma) ** 2, super().variance(signal, unit)
        return gain * signal + add * (1 + gain if self.order == "additive_first" else 1)


@dataclass(frozen=True)
class Uniform(Scaled):
    """y + s U, U uniform in ±sqrt(3), of variance 1: the error of rounding to multiples of sqrt(12) s.

    s is ``sigma`` in units of ``scale``, see :class:`Scaled`.

    Raises:
        UserError: sigma is not a finite number of at least 0, or the scale is unknown.
    """

    by_sample: ClassVar[bool] = True
    additive: ClassVar[bool] = True

    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return what is added, drawn outside."""
        return Affine(
            add=self.sigmas(numbers) * 3**0.5 * (2 * as_uniform(numbers.normal()) - 1),
            scale=self.scale,
            per=self.per,
        )


@dataclass(frozen=True)
class Laplace(Scaled):
    """y + s L, L of a Laplace distribution with variance 1 (b = 1 / sqrt(2)): additive noise with heavier tails.

    s is ``sigma`` in units of ``scale``, see :class:`Scaled`.

    Raises:
        UserError: sigma is not a finite number of at least 0, or the scale is unknown.
    """

    by_sample: ClassVar[bool] = True
    additive: ClassVar[bool] = True

    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return what is added, drawn outside."""
        return Affine(add=self.sigmas(numbers) * as_laplace(numbers.normal()), scale=self.scale, per=self.per)


@dataclass(frozen=True)
class Impulse(Scaled):
    """y + s B, B = 1 or -1 with probability rate / 2 each, else 0: rare large errors, such as of a bit or a spike.

    s, the size of an error, is ``sigma`` in units of ``scale``, see :class:`Scaled`. The variance is rate s**2.

    Attributes:
        rate: share of the outputs that are hit.

    Raises:
        UserError: a value is out of its range.
    """

    by_sample: ClassVar[bool] = True
    additive: ClassVar[bool] = True
    units: ClassVar[Mapping[str, str]] = {"rate": "share of the outputs"}

    rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("rate")
        if self.rate > 1:
            raise UserError(f"noise rate is {self.rate:g}: give a share of the outputs, 0 to 1")

    @property
    def neutral(self) -> bool:
        """Whether sigma or the rate is 0."""
        return self.rate == 0 or super().neutral

    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return what is added, drawn outside."""
        number = numbers.normal()
        hit = number.abs() > -standard_normal_quantile(self.rate / 2)
        return Affine(add=self.sigmas(numbers) * number.sign() * hit, scale=self.scale, per=self.per)

    def variance(self, signal: float, unit: float) -> float:
        """Return rate s squared."""
        return self.rate * super().variance(signal, unit)


@dataclass(frozen=True)
class Flicker(Scaled):
    """y + s x_t, x_t of variance 1 with a spectrum near 1/f: noise that is correlated in time.

    x_t = K**-0.5 sum over k = 0..K-1 of N_k(floor((t + h / 2) / h)), h = 2**k, N_k independent and standard normal: K
    numbers, of which number k is drawn anew every h steps, never two at a time but for the first (R. F. Voss and J.
    Clarke, JASA 63, 258, 1978; staggered as by J. McCartney). Averaged over t the autocovariance at lag j is sum over
    k of max(0, 1 - j / h) / K, and the spectrum sum over k of sin(pi f h)**2 / (h sin(pi f)**2) / K, which falls like
    1/f from 0.5 to 2**-K cycles per time step, and is flat below. s is ``sigma`` in units of ``scale``, see
    :class:`Scaled`. As all noise it is named by seed, draw, sample, time step and unit, whatever the chunks and
    batches.

    Attributes:
        octaves: K, 1 to 24; the longest number lasts 2**(K - 1) time steps. 1 is white noise.

    Raises:
        UserError: a value is out of its range.
    """

    by_sample: ClassVar[bool] = True
    additive: ClassVar[bool] = True

    octaves: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("octaves", 1)
        if self.octaves != int(self.octaves) or self.octaves > _MOST_OCTAVES:
            raise UserError(f"noise octaves is {self.octaves}: give a whole number from 1 to {_MOST_OCTAVES}")
        object.__setattr__(self, "octaves", int(self.octaves))  # a strength's values are floats

    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return what is added, drawn outside."""
        total = numbers.held(1, "octave 0")
        for octave in range(1, self.octaves):
            total = total + numbers.held(2**octave, f"octave {octave}")
        return Affine(add=self.sigmas(numbers) * self.octaves**-0.5 * total, scale=self.scale, per=self.per)


@dataclass(frozen=True)
class FixedPattern(Scaled):
    """y (1 + gain G) + s O, G and O standard normal, one per column (output) and chip: errors of its periphery.

    They are the same in every pass, sample and time step; another chip has others. s is ``sigma`` in units of
    ``scale``, see :class:`Scaled`. The variance is that over chips.

    Attributes:
        gain: standard deviation of the gains, a share of the output.

    Raises:
        UserError: a value is out of its range.
    """

    of_chip: ClassVar[bool] = True
    units: ClassVar[Mapping[str, str]] = {"gain": "multiples of each output"}

    gain: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("gain")

    @property
    def neutral(self) -> bool:
        """Whether sigma and gain are 0."""
        return self.gain == 0 and super().neutral

    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return gains and offsets of the chip."""
        return Affine(
            self.gain * numbers.of_chip("gain"), self.sigma * numbers.of_chip("offset"), self.scale, self.per
        )

    def variance(self, signal: float, unit: float) -> float:
        """Return s squared plus gain squared times the signal's power."""
        return self.gain**2 * signal + super().variance(signal, unit)


OUTPUT_MODELS: dict[str, type[OutputModel]] = {
    "Gaussian": Gaussian,
    "Multiplicative": Multiplicative,
    "AdditiveMultiplicative": AdditiveMultiplicative,
    "Uniform": Uniform,
    "Laplace": Laplace,
    "Impulse": Impulse,
    "Flicker": Flicker,
    "FixedPattern": FixedPattern,
    "GaussianOfRange": GaussianOfRange,
    "ReadNoise": ReadNoise,
    "IRDrop": IRDrop,
}
"""Every output model by its name. A new one is added here."""
