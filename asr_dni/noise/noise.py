"""What a network runs under: hardware, and which realisation of it; with a short way to write the Gaussian one."""

import dataclasses
from typing import Any

from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.noise.compensation import check_compensation
from asr_dni.noise.hardware import Hardware
from asr_dni.noise.output import Gaussian
from asr_dni.noise.parts import Part, Placed
from asr_dni.noise.realisation import Realisation
from asr_dni.noise.sites import MVM_SITES, Arrays, Scale, Site
from asr_dni.noise.strength import SIGMA, Strength


@dataclasses.dataclass(frozen=True, init=False)
class Noise:
    """Hardware and which realisation of it; a value, never changed in place.

    ``Noise(sigma=0.5, seed=1)`` is the additive Gaussian noise of the papers: at every site that is on, an independent
    number from N(0, s**2) is added to every element, fresh for every sample, time step and unit. It is short for
    ``Noise.of(Hardware(output=Gaussian(sigma=0.5)), Realisation(seed=1))``.

    The gradient flows through the noisy values and takes s as a constant, also where s depends on the weights. Scales
    other than ``absolute`` take their references from :func:`asr_dni.nn.calibrate`, on training data.

    Args:
        sigma: see :class:`Gaussian`, as for ``scale``; 0 is no noise.
        scale: what sigma is measured in.
        sites: where the noise enters, see :class:`Hardware`, as for ``arrays``.
        arrays: whether W_ih and W_hh lie on one array.
        seed: see :class:`Realisation`, as for the following ones.
        draw: which realisation.
        first_step: the time step that the first frame of the input is.
        sample_ids: ``(N,)`` integer identities of the samples of the batch.

    Attributes:
        hardware: what there is.
        realisation: which.
        placed: the parts of a network that it is at, all others being exact; ``None``: it is everywhere.
        compensation: the hardware of the training, for whose noise that is missing here the gates are softened; see
            :meth:`compensating`. ``None``: they are not.

    Raises:
        UserError: a value is out of its range, or a site or scale is unknown.
    """

    hardware: Hardware
    realisation: Realisation
    placed: tuple[Placed, ...] | None
    compensation: Hardware | None

    def __init__(
        self,
        sigma: float = 0.0,
        scale: Scale = "absolute",
        sites: tuple[Site, ...] = MVM_SITES,
        arrays: Arrays = "joint",
        seed: int = 0,
        draw: int | None = None,
        first_step: int = 0,
        sample_ids: Tensor | None = None,
    ) -> None:
        hardware = Hardware(output=(Gaussian(sigma, scale),), sites=sites, arrays=arrays)
        self._set(hardware, Realisation(seed, 0, draw, first_step, sample_ids))

    def _set(
        self,
        hardware: Hardware,
        realisation: Realisation,
        placed: tuple[Placed, ...] | None = None,
        compensation: Hardware | None = None,
    ) -> None:
        if realisation.shares is not None:
            hardware.varies_by_sample(realisation.shares_of)
            if compensation is not None:
                raise UserError(
                    "samples with noise of different strength can't be compensated: leave one out"
                )
        object.__setattr__(self, "hardware", hardware)
        object.__setattr__(self, "realisation", realisation)
        object.__setattr__(self, "placed", placed)
        object.__setattr__(self, "compensation", compensation)

    @classmethod
    def of(cls, hardware: Hardware, realisation: Realisation | None = None) -> "Noise":
        """Return what runs on a hardware in a realisation."""
        noise = cls.__new__(cls)
        noise._set(hardware, Realisation() if realisation is None else realisation)
        return noise

    @property
    def on(self) -> bool:
        """Whether anything differs from exact arithmetic."""
        return self.hardware.on

    @property
    def parts(self) -> tuple[Part, ...] | None:
        """The parts of a network that it is at; ``None``: everywhere."""
        return None if self.placed is None else tuple(its.part for its in self.placed)

    @property
    def sigma(self) -> float:
        """The sigma of the output noise.

        Raises:
            UserError: the hardware has none.
        """
        return self.hardware.value()

    def at(self, value: float, strength: Strength = SIGMA) -> "Noise":
        """Return the same noise with another strength.

        Raises:
            UserError: it has no such strength, or not this value.
        """
        return self._changed(hardware=self.hardware.at(value, strength))

    def realised(self, **changes: Any) -> "Noise":
        """Return the same noise in another realisation.

        Args:
            **changes: of the attributes of :class:`Realisation`.

        Raises:
            UserError: a value is not valid, or samples would have shares of a strength that cannot differ among them.
        """
        return self._changed(realisation=dataclasses.replace(self.realisation, **changes))

    def only_at(self, *placed: Part | Placed) -> "Noise":
        """Return the same noise at some parts of a network only, see :meth:`NoisyModule.parts`.

        Numbers that are drawn there are those that it has there where it is everywhere.

        Args:
            *placed: parts that have no product in common, or what hardware there is at each of them: it is like
                :attr:`hardware`, but for the models' numbers.

        Raises:
            UserError: the hardware of a part differs in more.
        """
        each = tuple(Placed(its) if isinstance(its, Part) else its for its in placed)
        for its in each:
            differs = None if its.hardware is None else self.hardware.alike(its.hardware)
            if differs is not None:
                raise UserError(f"the hardware at {its.part} is to be like the network's: {differs}")
        return self._changed(placed=each)

    def compensating(self, trained: "Hardware | Noise | float | None") -> "Noise":
        """Return the same noise for a network whose gates are softened for the training's noise that is missing here.

        The mean of an activation under Gaussian noise of variance s**2 on its argument a is about sigmoid(k a), k =
        (1 + pi s**2 / 8)**-0.5, or tanh(k a), k = (1 + pi s**2 / 2)**-0.5 (D. MacKay, Neural Computation 4, 720, 1992).
        s**2 is the variance that the training's noise had of each pre-activation, less that of this one; k is 1 where
        this one has no less. The factor comes after the noise, on the digital side: what is noisy is multiplied with
        it. What a cell makes of it: :meth:`asr_dni.nn.RecurrentCell.softening`.

        Args:
            trained: what the network was trained on, or the noise on it; a number: this hardware with that sigma;
                ``None``: nothing is softened.

        Raises:
            UserError: there or here is anything but Gaussian noise on outputs.
        """
        if trained is None:
            return self._changed(compensation=None)
        if isinstance(trained, Noise):
            trained = trained.hardware
        if not isinstance(trained, Hardware):
            check_compensation(self.hardware, self.hardware)
            trained = self.hardware.at(trained)
        check_compensation(trained, self.hardware)
        return self._changed(compensation=trained)

    def _changed(self, **changes: Any) -> "Noise":
        parts = {its.name: getattr(self, its.name) for its in dataclasses.fields(self)}
        noise = type(self).__new__(type(self))
        noise._set(**(parts | changes))
        return noise


def as_noise(given: Noise | Hardware) -> Noise:
    """Return the noise of a hardware, in its first realisation, or the noise itself.

    Raises:
        UserError: it is neither.
    """
    if isinstance(given, Noise):
        return given
    if isinstance(given, Hardware):
        return Noise.of(given)
    raise UserError(f"noise is {given!r}: give a Noise or a Hardware, such as Noise(sigma=0.5)")
