"""Which of a hardware's strengths is the axis of a curve: a path into its description, and the unit of the values."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from asr_dni.errors import UserError
from asr_dni.noise.sites import Per, Scale

_SIGMA = "output.sigma"
_SCALE_UNITS: Mapping[str, str] = {
    "absolute": "",
    "signal": "multiples of the clean signal's RMS",
    "range": "multiples of the largest output",
}
_UNITS_PER_OUTPUT: Mapping[str, str] = {
    "absolute": "",
    "signal": "multiples of each output's clean RMS",
    "range": "multiples of each output's largest value",
}
_PATH = re.compile(r"[a-z][a-z0-9_]*(\.([a-z][a-z0-9_]*|[0-9]+))*")
_WITH_UNIT = re.compile(r"(?P<path>[^\[\]]*?)\s*(\[(?P<unit>[^\[\]]*)\])?")
_WORDS = {"sigma": "σ", "adc": "ADC", "dac": "DAC"}


@dataclass(frozen=True)
class Strength:
    """A number of a hardware that can be an axis: how strong a noise is, how fine a converter, how old a chip.

    Attributes:
        path: where it stands in the hardware's description, names and indices joined by dots: ``output.sigma`` (of the
            first output model that has a sigma), ``weight.sigma``, ``adc.bits``, ``output.1.sigma``, ``tile``.
        unit: of its values, as people read it; "": a plain number, or for ``output.sigma`` the units of the
            pre-activation.

    Raises:
        UserError: the path is malformed.

    Example:
        >>> Strength().label
        'inference noise σ_infer (absolute: pre-activation units)'
        >>> Strength.parse("drift.time [s]")
        Strength(path='drift.time', unit='s')
        >>> Strength("adc.bits").label, Strength("adc.bits").name
        ('ADC bits', 'adc_bits')
    """

    path: str = _SIGMA
    unit: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not _PATH.fullmatch(self.path):
            raise UserError(
                f"strength is {self.path!r}: give the place of a number in the hardware, such as {_SIGMA} or adc.bits"
            )
        if not isinstance(self.unit, str) or not self.unit.isprintable() or set(self.unit) & set("[]"):
            raise UserError(f"strength {self.path} has the unit {self.unit!r}: give one such as s, or none")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the strength that :meth:`__str__` wrote: a path, and in brackets a unit where it has one.

        Raises:
            UserError: the text is no such thing.
        """
        found = _WITH_UNIT.fullmatch(text.strip()) if isinstance(text, str) else None
        return cls(found["path"], (found["unit"] or "").strip()) if found else cls(text)

    @classmethod
    def sigma(cls, scale: Scale = "absolute", per: Per = "tensor") -> Self:
        """Return the sigma of the output noise, in the unit that its scale gives it, of all outputs or of each."""
        return cls(_SIGMA, (_UNITS_PER_OUTPUT if per == "output" else _SCALE_UNITS)[scale])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the strength of which these are the values, see :meth:`as_dict`.

        Raises:
            UserError: they are not those of a strength.
        """
        if not isinstance(values, Mapping) or "path" not in values or set(values) - {"path", "unit"}:
            raise UserError(f"strength is {values!r}: give its path and its unit")
        return cls(**values)

    def as_dict(self) -> dict[str, str]:
        """Return path and unit as plain values, for files."""
        return asdict(self)

    def __str__(self) -> str:
        """Return path and unit as :meth:`parse` reads them."""
        return f"{self.path} [{self.unit}]" if self.unit else self.path

    @property
    def is_sigma(self) -> bool:
        """Whether it is the sigma of the output noise, the axis that curves have where nothing else is said."""
        return self.path == _SIGMA

    @property
    def symbol(self) -> str:
        """What stands above a column of a table, without unit: ``σ_infer``, ``ADC bits``."""
        if self.is_sigma:
            return "σ_infer"
        return " ".join(_WORDS.get(word, word.replace("_", " ")) for word in self.path.split("."))

    @property
    def symbol_in_training(self) -> str:
        """The same of the training's noise: ``σ_train``, ``ADC bits``."""
        return "σ_train" if self.is_sigma else self.symbol

    @property
    def word(self) -> str:
        """What a message calls it: ``sigma``, or the path."""
        return "sigma" if self.is_sigma else self.path

    @property
    def title(self) -> str:
        """What stands at an axis, without the unit."""
        return f"inference noise {self.symbol}" if self.is_sigma else self.symbol

    @property
    def measured_in(self) -> str:
        """The unit as an axis says it: of an absolute sigma that, too."""
        return self.unit or ("absolute: pre-activation units" if self.is_sigma else "")

    @property
    def label(self) -> str:
        """What stands at an axis, with the unit."""
        return f"{self.title} ({self.measured_in})" if self.measured_in else self.title

    @property
    def name(self) -> str:
        """A name of letters, digits and underscores, for keys of loggers and files: ``sigma_infer``, ``adc_bits``."""
        return "sigma_infer" if self.is_sigma else self.path.replace(".", "_")


SIGMA = Strength()
"""The sigma of the output noise, absolute."""
