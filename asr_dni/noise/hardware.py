"""What arithmetic a network runs on: a value, never changed in place."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat, TypeVar

from asr_dni.errors import UserError
from asr_dni.noise.converter import CONVERTERS, UniformConverter
from asr_dni.noise.model import Converter, Model, OutputModel, WeightModel
from asr_dni.noise.output import OUTPUT_MODELS, Gaussian
from asr_dni.noise.sites import ARRAYS, MVM_SITES, SITES, Arrays, Scale, Site
from asr_dni.noise.strength import SIGMA, Strength
from asr_dni.noise.weight import WEIGHT_MODELS

Kind = TypeVar("Kind", bound=Model)

_PLACES: dict[str, Mapping[str, type[Model]]] = {
    "output": OUTPUT_MODELS,
    "weight": WEIGHT_MODELS,
    "dac": CONVERTERS,
    "adc": CONVERTERS,
}
_SHORT: dict[str, type[Model]] = {"output": Gaussian, "dac": UniformConverter, "adc": UniformConverter}
"""Whose settings they are where no class is named."""


@dataclass(frozen=True, init=False)
class Hardware:
    """The arithmetic of a network: what its analog products go through, in this order.

    A product W x takes its inputs through ``dac``; lies on arrays of at most ``tile`` columns of W each, programmed by
    ``weight``; has what ``output`` adds on each array's outputs, goes through ``adc``, and is summed over the arrays
    digitally. The bias is digital and comes last. Products inside the cell (site ``elementwise``) have ``output`` only.

    Attributes:
        output: models of the outputs, one after the other; one of them may be given alone.
        weight: models of the weights, one after the other; one of them may be given alone.
        dac: converts what goes into a matrix; ``None``: digital numbers go in as they are.
        adc: converts what comes out of an array.
        tile: most columns of an array; ``None``: each matrix lies on one.
        sites: which products are analog: ``convolution``, ``input`` (W_ih x_t), ``recurrent`` (W_hh h_{t-1}, and W_hr h
            of an LSTM with projection), ``elementwise`` (the products inside the cell), ``output`` (NoisyLinear).
        arrays: whether W_ih and W_hh lie on one array, so that with both their sites on a gate's pre-activation is one
            output ``[W_ih W_hh] [x_t; h_{t-1}]`` with one noise (``joint``), or on two, each with its own noise
            (``separate``). The two parts of the n gate of a GRU are always two outputs.

    Raises:
        UserError: a value is out of its range, or a site is unknown.
    """

    output: tuple[OutputModel, ...]
    weight: tuple[WeightModel, ...]
    dac: Converter | None
    adc: Converter | None
    tile: int | None
    sites: tuple[Site, ...]
    arrays: Arrays

    def __init__(
        self,
        output: OutputModel | Iterable[OutputModel] = (),
        weight: WeightModel | Iterable[WeightModel] = (),
        dac: Converter | None = None,
        adc: Converter | None = None,
        tile: int | None = None,
        sites: Iterable[Site] = MVM_SITES,
        arrays: Arrays = "joint",
    ) -> None:
        values: dict[str, object] = {"dac": dac, "adc": adc, "tile": tile, "sites": sites, "arrays": arrays}
        values |= {"output": _several("output", output), "weight": _several("weight", weight)}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        for name, base in (("output", OutputModel), ("weight", WeightModel)):
            for model in getattr(self, name):
                if not isinstance(model, base):
                    raise UserError(f"hardware {name} has a {type(model).__name__}: give an {base.__name__}")
        if self.arrays not in ARRAYS:
            raise UserError(f"noise arrays is {self.arrays!r}: give one of {', '.join(ARRAYS)}")
        if not isinstance(self.sites, Iterable):
            raise UserError(f"noise sites is {self.sites!r}: give a list of some of {', '.join(SITES)}")
        given = (self.sites,) if isinstance(self.sites, str) else tuple(self.sites)
        unknown = [site for site in given if site not in SITES]
        if unknown:
            raise UserError(f"noise site {unknown[0]!r} is not known: give any of {', '.join(SITES)}")
        if len(set(given)) != len(given):
            raise UserError(f"noise sites {', '.join(given)}: name each site once")
        object.__setattr__(self, "sites", tuple(site for site in SITES if site in given))
        for name in ("dac", "adc"):
            converter = getattr(self, name)
            if converter is not None and not isinstance(converter, Converter):
                raise UserError(f"hardware {name} is a {type(converter).__name__}: give a Converter")
        if self.dac is not None and self.dac.operation().scale == "signal":
            raise UserError(
                "hardware dac has scale 'signal': give absolute or range, inputs have no known RMS"
            )
        if isinstance(self.tile, float) and self.tile.is_integer():  # a strength's values are floats
            object.__setattr__(self, "tile", int(self.tile))
        if self.tile is not None and (
            isinstance(self.tile, bool) or not isinstance(self.tile, int) or self.tile < 1
        ):
            raise UserError(
                f"hardware tile is {self.tile}: give a whole number of columns of at least 1, or null"
            )

    @property
    def joint(self) -> bool:
        """Whether input and recurrent products are one output with one noise."""
        return self.arrays == "joint" and {"input", "recurrent"} <= set(self.sites)

    @property
    def outputs_on(self) -> bool:
        """Whether any output model changes anything."""
        return any(not model.neutral for model in self.output)

    @property
    def has_chips(self) -> bool:
        """Whether networks on it differ from chip to chip."""
        of_chip = (
            *(model for model in self.weight if model.random),
            *(model for model in self.output if model.of_chip),
        )
        return bool(self.sites) and any(not model.neutral for model in of_chip)

    @property
    def weights_on(self) -> bool:
        """Whether what lies on its arrays is not the exact weights."""
        return bool(self.sites) and any(not model.neutral for model in self.weight)

    @property
    def random(self) -> bool:
        """Whether two forward passes on one chip differ."""
        return bool(self.sites) and any(
            not model.neutral and model.drawn and not model.of_chip for model in self.output
        )

    @property
    def on(self) -> bool:
        """Whether anything differs from exact arithmetic."""
        return bool(self.sites) and (
            self.outputs_on or self.weights_on or self.dac is not None or self.adc is not None
        )

    def on_at(self, site: Site) -> bool:
        """Whether products at a site differ from exact ones."""
        return self.on and site in self.sites

    @property
    def additive(self) -> bool:
        """Whether all that it does is to add numbers to the outputs of matrices that are whole."""
        exact = not self.weights_on and self.dac is None and self.adc is None and self.tile is None
        return exact and all(model.additive or model.neutral for model in self.output)

    @property
    def by_output(self) -> bool:
        """Whether each output of an array has its errors for itself, so that gates can differ in them."""
        whole = any(model.of_arrays for model in self.output)
        return self.dac is None and self.adc is None and not whole

    @property
    def inputs_exact(self) -> bool:
        """Whether W_ih x of clean x may be computed once, for any number of noisy passes."""
        return self.additive or not self.on_at("input")

    @property
    def scales(self) -> tuple[Scale, ...]:
        """The scales that its numbers are measured in, that of the first model first."""
        parts = [*self.output, *filter(None, (self.dac, self.adc))]
        return tuple(dict.fromkeys(part.scale for part in parts if hasattr(part, "scale")))

    @property
    def scale(self) -> Scale:
        """The scale of the first model that has one."""
        return next(iter(self.scales), "absolute")

    @property
    def needs_sizes(self) -> bool:
        """Whether anything is measured by the size of the clean signals, which calibration has to find."""
        return set(self.scales) > {"absolute"} or self.scale != "absolute"

    def at(self, value: float, strength: Strength = SIGMA) -> "Hardware":
        """Return the same hardware with another strength.

        Raises:
            UserError: it has no such strength, or not this value.
        """
        place, index, name = self._find(strength)
        changes: dict[str, Any] = {name or place: value}
        try:
            if not name:
                return dataclasses.replace(self, **changes)
            models = list(self._models(place))
            models[index] = dataclasses.replace(models[index], **changes)
        except UserError as error:
            raise UserError(f"{strength.path}: {error}") from None
        changes = {place: tuple(models) if place in ("output", "weight") else models[0]}
        return dataclasses.replace(self, **changes)

    def value(self, strength: Strength = SIGMA) -> float:
        """Return a strength.

        Raises:
            UserError: it has no such strength.
        """
        place, index, name = self._find(strength)
        return float(getattr(self._models(place)[index], name) if name else getattr(self, place))

    def axis(self, strength: Strength = SIGMA) -> Strength:
        """Return a strength with the unit that it has here, where it comes with none.

        Raises:
            UserError: it has no such strength.
        """
        place, index, name = self._find(strength)
        unit = strength.unit or (self._models(place)[index].unit_of(name) if name else "")
        return Strength(strength.path, unit)

    def counts(self, strength: Strength) -> bool:
        """Whether a strength is a whole number, such as bits.

        Raises:
            UserError: it has no such strength.
        """
        place, index, name = self._find(strength)
        if not name:
            return True
        (declared,) = (its.type for its in dataclasses.fields(self._models(place)[index]) if its.name == name)
        return declared in (int, "int")

    def has(self, strength: Strength) -> bool:
        """Whether it has a strength."""
        try:
            self._find(strength)
        except UserError:
            return False
        return True

    def varies_by_sample(self, strength: Strength) -> int:
        """Return which of the output models has a strength that the samples of a batch can have shares of.

        Raises:
            UserError: it has no such strength, or not one that can differ from sample to sample.
        """
        place, index, name = self._find(strength)
        model = self._models(place)[index] if name else None
        if place != "output" or name != "sigma" or not getattr(model, "by_sample", False):
            raise UserError(
                f"strength {strength.path} cannot differ from sample to sample: give the sigma of an output model that"
                " is drawn afresh in every pass, such as Gaussian; all samples share what is of a chip or a converter"
            )
        return index

    def _models(self, place: str) -> tuple[Model, ...]:
        found = getattr(self, place) if place in _PLACES else ()
        return found if isinstance(found, tuple) else () if found is None else (found,)

    def _find(self, strength: Strength) -> tuple[str, int, str]:
        """Return where a strength stands: the place, which of the models there, and their field."""
        if strength.path == "tile" and self.tile is not None:
            return "tile", 0, ""
        place, _, rest = strength.path.partition(".")
        *index, name = rest.split(".")
        for k, model in enumerate(self._models(place)):
            if index in ([], [str(k)]) and name in _numbers_of(model):
                return place, k, name
        known = ", ".join(self.strengths()) or "there is none"
        raise UserError(f"strength {strength.path} is not one of this hardware's: {known}")

    def strengths(self) -> list[str]:
        """Return the paths of all numbers of its models."""
        paths = []
        for place in _PLACES:
            models = self._models(place)
            for k, model in enumerate(models):
                numbered = len(models) > 1
                paths += [
                    f"{place}.{k}.{name}" if numbered else f"{place}.{name}" for name in _numbers_of(model)
                ]
        return paths if self.tile is None else [*paths, "tile"]

    def alike(self, other: "Hardware") -> str | None:
        """Return in words what a network on another hardware of one population may not differ in, or ``None``.

        The numbers of the models may differ, such as sigma.
        """
        for name in ("sites", "arrays", "tile"):
            if getattr(self, name) != getattr(other, name):
                return f"{name} is {getattr(self, name)!r} for one member of a population and {getattr(other, name)!r}"
        for place in _PLACES:
            for name, mine, its in _differences(self._models(place), other._models(place)):
                return f"{place} {name} is {mine!r} for one member of a population and {its!r}"
        return None

    def as_settings(self) -> dict[str, Any]:
        """Return plain values, as YAML has them; :meth:`from_settings` takes them."""
        return {
            "output": [model.settings() for model in self.output],
            "weight": [model.settings() for model in self.weight],
            "dac": None if self.dac is None else self.dac.settings(),
            "adc": None if self.adc is None else self.adc.settings(),
            "tile": self.tile,
            "sites": list(self.sites),
            "arrays": self.arrays,
        }

    def settings_beside(self, strength: Strength) -> dict[str, Any]:
        """Return what :meth:`as_settings` does, with null for one strength: what is the same at all of its values.

        Raises:
            UserError: it has no such strength.
        """
        place, index, name = self._find(strength)
        settings = self.as_settings()
        if not name:
            return {**settings, place: None}
        model = settings[place][index] if place in ("output", "weight") else settings[place]
        model["init_args"][name] = None
        return settings

    @property
    def identity(self) -> str:
        """Eight hexadecimal digits that tell it from others."""
        return hashlib.sha256(json.dumps(self.as_settings(), sort_keys=True).encode()).hexdigest()[:8]

    @classmethod
    def from_settings(cls, settings: object, where: str = "hardware") -> "Hardware":
        """Make one of plain values.

        Args:
            settings: a mapping of its attributes. A model is ``{class_path: NAME, init_args: {...}}``, or its numbers
                alone, which are then a Gaussian's or a uniform converter's; a list has several.
            where: what messages call it.

        Raises:
            UserError: a name is unknown, or a value is not valid.
        """
        if not isinstance(settings, Mapping):
            raise UserError(f"{where} is {settings!r}: give a mapping with some of {_names(cls)}")
        unknown = [str(key) for key in settings if key not in {its.name for its in dataclasses.fields(cls)}]
        if unknown:
            raise UserError(f"{where} has no {unknown[0]!r}: give some of {_names(cls)}")
        arguments: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
        for place in _PLACES:
            given = arguments.get(place)
            if given is None:
                continue
            several = place in ("output", "weight")
            if several and isinstance(given, Sequence) and not isinstance(given, str):
                parts = [_model(place, part, f"{where}.{place}.{k}") for k, part in enumerate(given)]
                arguments[place] = tuple(parts)
            else:
                arguments[place] = _model(place, given, f"{where}.{place}")
        try:
            return cls(**arguments)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None


def _several(place: str, given: object) -> tuple[Any, ...]:
    """Return the models of a place, of which one may be given alone."""
    if isinstance(given, Model):
        return (given,)
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise UserError(f"hardware {place} is {given!r}: give a model, or several")
    return tuple(given)


def _numbers_of(model: Model) -> list[str]:
    """Return the names of the numbers that can be strengths."""
    names = [its.name for its in dataclasses.fields(model) if its.name not in model.of_training]
    return [name for name in names if _is_number(getattr(model, name))]


def _is_number(value: object) -> bool:
    return isinstance(value, SupportsFloat) and not isinstance(value, bool)


def _names(kind: type) -> str:
    return ", ".join(its.name for its in dataclasses.fields(kind))


def _differences(ours: Sequence[Model], theirs: Sequence[Model]) -> Iterator[tuple[str, object, object]]:
    """Give what models differ in beside their numbers."""
    our_kinds, their_kinds = ([type(model).__name__ for model in models] for models in (ours, theirs))
    if our_kinds != their_kinds:
        yield "models", our_kinds, their_kinds
        return
    for mine, its in zip(ours, theirs, strict=True):
        for name in (its_field.name for its_field in dataclasses.fields(mine)):
            values = getattr(mine, name), getattr(its, name)
            if values[0] != values[1] and not all(map(_is_number, values)):
                yield name, *values


def _model(place: str, settings: object, where: str) -> Model:
    """Make a model of plain values."""
    if isinstance(settings, Model):
        return settings
    if isinstance(settings, str):
        settings = {"class_path": settings}
    if not isinstance(settings, Mapping):
        raise UserError(f"{where} is {settings!r}: give class_path and init_args")
    known = _PLACES[place]
    if "class_path" in settings:
        extra = set(settings) - {"class_path", "init_args"}
        if extra:
            raise UserError(f"{where} has {min(map(str, extra))!r}: give class_path and init_args only")
        path = str(settings["class_path"])
        kind = next((its for name, its in known.items() if path in (name, f"{its.__module__}.{name}")), None)
        arguments = settings.get("init_args") or {}
    else:
        if place not in _SHORT:
            raise UserError(f"{where} has no class_path: give one of {', '.join(known)}")
        kind, arguments, path = _SHORT[place], settings, ""
    if kind is None:
        raise UserError(
            f"{where} is {path!r}: give one of {', '.join(known)}, or one that a module named by --allow registers"
        )
    if not isinstance(arguments, Mapping):
        raise UserError(f"{where}.init_args is {arguments!r}: give a mapping with some of {_names(kind)}")
    unknown = [str(key) for key in arguments if key not in {its.name for its in dataclasses.fields(kind)}]
    if unknown:
        raise UserError(
            f"{where}: {kind.__name__} has no {unknown[0]!r}: give some of {_names(kind) or 'nothing'}"
        )
    try:
        return kind(**arguments)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
