"""The noise of a module, or of a whole network: read it, replace it, set it for a block."""

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.noise.hardware import Hardware
from asr_dni.noise.noise import Noise, as_noise
from asr_dni.noise.parts import Part
from asr_dni.noise.realisation import Realisation
from asr_dni.noise.recomputation import backward_task, settings_of_pass
from asr_dni.noise.sites import Site
from asr_dni.stackable import Stackable


@dataclass
class _InForce:
    """The noise in force in one module, and how many passes there were since it was set."""

    noises: tuple[Noise, ...] = (Noise(),)
    stream: int = 0
    passes: int = 0
    set_in: int = -1
    """Backward pass in which it was set; -1: in none."""


class ForwardPass(NamedTuple):
    """What the noise of one forward pass of one module is named by.

    Attributes:
        noises: one for each network.
        stream: the module's place in the network.
        draws: which realisation, one for each network.
    """

    noises: tuple[Noise, ...]
    stream: int
    draws: tuple[int, ...]

    def at(self, *sites: str) -> bool:
        """Whether any network is on a hardware that makes products at any of these sites inexact."""
        return any(noise.on and not set(sites).isdisjoint(noise.hardware.sites) for noise in self.noises)


_of_blocks: ContextVar[Mapping["NoisyModule", _InForce]] = ContextVar(
    "asr_dni_noise", default=MappingProxyType({})
)
"""What :meth:`NoisyModule.under` has set: of this thread (or asynchronous task) alone."""

_counting = threading.Lock()


class NoisyModule(Stackable):
    """A module whose arithmetic can be noisy, and the root of a network of such modules.

    ``module.noise`` is one value for the module and for all noisy modules below it. Noise is a property of the
    hardware: it does not depend on ``train()`` and ``eval()``, is not part of ``state_dict()``, and starts as
    none. Every noisy layer of a network has a stream of noise of its own, numbered in the order of
    ``modules()`` when the noise is set.

    A population (K networks of one shape in one module, see :func:`asr_dni.nn.stack_networks`) has one noise per
    member: ``module.noise`` is a tuple of K, which may differ in the numbers of their hardware's models, such as
    ``sigma``, and in seed, chip, draw and samples. Its members get the numbers that they would get alone. A single
    :class:`Noise` is given to every member.

    The noise of a forward pass is the one in force when it begins, in its thread. Where activation checkpointing runs
    the pass again, its noise is that of the first time. What else works is listed in :mod:`asr_dni.nn`.

    Example:
        >>> import torch
        >>> from asr_dni.nn import NoisyLinear
        >>> from asr_dni.noise import Noise
        >>> layer = NoisyLinear(3, 2)
        >>> with layer.under(Noise(sigma=0.5, seed=1)):
        ...     noisy = layer(torch.zeros(1, 3))
        >>> layer.noise.on
        False
    """

    _own: _InForce | None = None
    _was_noisy = False
    """Whether a forward pass that can have a gradient had noise: one that is run again would need the same."""

    @property
    def noise(self) -> Noise | tuple[Noise, ...]:
        """The noise in force; assigning one, or a hardware, replaces it here and in every noisy module below.

        An assignment holds in all threads, but within a block of :meth:`under` only in the block.

        Raises:
            UserError: on assignment, where it is neither noise nor hardware, the number of noises is not that of the
                networks, or they differ in what all members of a population have in common.
        """
        return self._noises[0] if self.networks is None else self._noises

    @noise.setter
    def noise(self, noise: Noise | Hardware | Sequence[Noise | Hardware]) -> None:
        noises, blocks = self._one_each(self._with_realisations(noise, None)), _of_blocks.get()
        for stream, module in enumerate(self._noisy_modules()):
            set_now = _InForce(noises, stream, 0, backward_task())
            if module in blocks:
                vars(blocks[module]).update(vars(set_now))
            else:
                module._own = set_now

    @property
    def _in_force(self) -> _InForce:
        of_block = _of_blocks.get().get(self)
        return of_block or self._own or _InForce((Noise(),) * (self.networks or 1))

    @property
    def _noises(self) -> tuple[Noise, ...]:
        return self._in_force.noises

    def _one_each(self, noise: Noise | Sequence[Noise]) -> tuple[Noise, ...]:
        """Return one noise for every network."""
        if isinstance(noise, Noise):
            return (noise,) * (self.networks or 1)
        noises = tuple(noise)
        if self.networks is None:
            raise UserError(f"got a sequence of {len(noises)} noises for an ordinary network: give one Noise")
        if len(noises) != self.networks:
            raise UserError(
                f"got {len(noises)} noises for {self.networks} networks: give one for each, or one for all"
            )
        first = noises[0]
        for other in noises[1:]:
            if (
                other.hardware is first.hardware
                and other.realisation is first.realisation
                and other.placed is first.placed
            ):
                continue
            differs = first.hardware.alike(other.hardware)
            steps = [its.realisation.first_step for its in (first, other)]
            if differs is None and steps[0] != steps[1]:
                differs = f"first_step is {steps[0]} for one member of a population and {steps[1]}"
            of = [its.realisation.shares_of for its in (first, other) if its.realisation.shares is not None]
            if differs is None and len(of) == 2 and of[0] != of[1]:
                differs = f"shares are of {of[0].path} for one member of a population and of {of[1].path}"
            if differs is None and first.parts != other.parts:
                differs = "is at other parts for one member of a population and"
            if differs is not None:
                raise UserError(
                    f"noise {differs} for another: give all the same (the models' numbers, seed, chip, draw and"
                    " sample_ids may differ)"
                )
        return noises

    def _with_realisations(
        self,
        noise: Noise | Hardware | Sequence[Noise | Hardware],
        realisation: Realisation | Sequence[Realisation] | None,
    ) -> Noise | Sequence[Noise]:
        """Return the noises that hardware and realisations, each one or K, are."""
        if realisation is None:
            if isinstance(noise, Sequence):
                return [as_noise(its) for its in noise]
            return as_noise(noise)
        alone = not isinstance(noise, Sequence) and isinstance(realisation, Realisation)
        networks = 1 if alone else self.networks or 1
        hardware = list(noise) if isinstance(noise, Sequence) else [noise] * networks
        which = list(realisation) if isinstance(realisation, Sequence) else [realisation] * networks
        if len(hardware) != len(which):
            raise UserError(
                f"got {len(hardware)} hardwares and {len(which)} realisations: give one for each network"
            )
        noises = []
        for its, its_realisation in zip(hardware, which, strict=True):
            if isinstance(its, Noise):
                raise UserError("got a Noise and a Realisation: a Noise has one, give its hardware")
            noises.append(Noise.of(its, its_realisation))
        return noises[0] if alone else noises

    def _noisy_modules(self) -> list["NoisyModule"]:
        return [module for module in self.modules() if isinstance(module, NoisyModule)]

    @contextmanager
    def under(
        self,
        noise: Noise | Hardware | Sequence[Noise | Hardware],
        realisation: Realisation | Sequence[Realisation] | None = None,
    ) -> Iterator[None]:
        """Set the noise for a block; afterwards each module has again what it had before.

        Like ``torch.no_grad()`` it holds in the thread that it is used in (and in an asynchronous task's own context),
        not in others: a thread that is started within the block sets its own.

        Args:
            noise: hardware with its realisation, or hardware alone; of a population one for all or one for each.
            realisation: of the hardware, where that is given alone; ``None``: the first one.
        """
        with under(self, noise, realisation):
            yield

    def parts(self, hardware: Hardware, gates: bool = False) -> list[Part]:
        """Return the parts of the network that a hardware makes inexact: each layer at each site.

        Input and recurrent products that are one output of one array are one part.

        Args:
            hardware: what there is.
            gates: whether to return the gates of these products instead, of layers that have some. Converters, and read
                noise that follows inputs, are of a whole array and do not differ by gate.

        Raises:
            UserError: gates are asked for on hardware that is of whole arrays.
        """
        if gates and not hardware.by_output:
            raise UserError(
                "the hardware has converters, read noise or wires, which are of a whole array: gates can't differ in it"
            )
        found = []
        named = [(name, its) for name, its in self.named_modules() if isinstance(its, NoisyModule)]
        for place, (name, module) in enumerate(named):
            own = module._own_parts(hardware)
            for layer, sites, of_gates in own:
                called = f"{name}.{layer}" if not name or len(own) > 1 or of_gates else name
                names = of_gates if gates else ("",)
                found += [Part(place, layer, sites, gate, called.lstrip(".")) for gate in names]
        return found

    def _own_parts(self, hardware: Hardware) -> list[tuple[str, tuple[Site, ...], tuple[str, ...]]]:
        """Return layers of this module alone, their sites that are one part, and their gates."""
        return []

    def stack_members(self, members: Sequence[Any]) -> None:
        """Become a population, without noise."""
        super().stack_members(members)
        self._own = None

    def keep_member(self, member: int) -> None:
        """Become an ordinary module, without noise."""
        super().keep_member(member)
        self._own = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of: its noise is the one in force here and now, to stay."""
        state = dict(super().__getstate__())  # type: ignore[no-untyped-call]
        if self in _of_blocks.get():
            state["_own"] = self._in_force
        if state.get("_own") is not None:
            state["_own"] = dataclasses.replace(state["_own"], set_in=-1)
        return state

    def _replicate_for_data_parallel(self) -> Self:
        """Make a replica for ``torch.nn.DataParallel``, whose parts of a batch would have the same noise.

        Raises:
            UserError: there is noise.
        """
        if any(noise.on for noise in self._noises):
            raise UserError(
                "torch.nn.DataParallel cuts a batch up among threads, each of which would draw the same noise: use"
                " DistributedDataParallel (trainer.strategy ddp), or switch the noise off"
            )
        return super()._replicate_for_data_parallel()  # type: ignore[no-any-return,no-untyped-call]

    def _member(self, member: int | None) -> int:
        """Return the place of a network among those of this module; ``None`` is an ordinary module's only one."""
        networks = self.networks
        if networks is None:
            if member in (None, 0):
                return 0
            raise UserError(f"member is {member}, but this is an ordinary network: leave member out")
        if member is None or not -networks <= member < networks:
            raise UserError(f"member is {member}: give the member of the population, 0 to {networks - 1}")
        return member % networks

    @staticmethod
    def _sample_ids(noise: Noise, rows: int, device: torch.device) -> Tensor:
        """Return ``(N,)`` identities of the samples of a batch of ``rows``, on a device."""
        ids = noise.realisation.sample_ids
        ids = torch.arange(rows, device=device) if ids is None else ids.to(device)
        if ids.shape != (rows,):
            raise ValueError(f"noise has {ids.numel()} sample identities for a batch of {rows}")
        return ids

    def _begin_pass(self, *sites: str) -> ForwardPass:
        """Return what the forward pass that begins now runs under.

        Args:
            *sites: those of the module; a pass without noise at any of them is not counted.

        Raises:
            UserError: the noise of the pass cannot be told: it is run again in a backward pass, not by torch's own
                activation checkpointing; or it would be frozen into a program.
        """
        now = settings_of_pass(self, "noise", lambda: self._count_pass(sites))
        if now.at(*sites):
            _refuse_to_freeze(type(self).__name__)
            if not torch.is_inference_mode_enabled():
                self._was_noisy = True
        return now

    def _count_pass(self, sites: tuple[str, ...]) -> ForwardPass:
        state = self._in_force
        noises = state.noises
        task = backward_task()
        noisy = any(noise.on for noise in noises)
        if task not in (-1, state.set_in) and (noisy or self._was_noisy):
            raise UserError(
                f"{type(self).__name__} is run in the middle of a backward pass, as by activation checkpointing: which"
                " noise the forward pass had is only known with torch.utils.checkpoint; use that one, or set the noise,"
                " draw included, within the function that is run again"
            )
        none = ForwardPass(noises, state.stream, (0,) * len(noises))
        if not none.at(*sites):
            return none
        named = [noise.realisation.draw for noise in noises]
        passes = state.passes
        if None in named:
            with _counting:
                passes = state.passes
                state.passes += 1
        return none._replace(draws=tuple(passes if draw is None else draw for draw in named))


@contextmanager
def under(
    network: nn.Module,
    noise: Noise | Hardware | Sequence[Noise | Hardware],
    realisation: Realisation | Sequence[Realisation] | None = None,
) -> Iterator[None]:
    """Set the noise of any network that has noisy layers for a block, as :meth:`NoisyModule.under` does of its own.

    Args:
        network: such as one that :func:`asr_dni.nn.convert` made.
        noise: hardware with its realisation, or hardware alone; of a population one for all or one for each.
        realisation: of the hardware, where that is given alone; ``None``: the first one.

    Raises:
        UserError: it has no noisy layer; or as :meth:`NoisyModule.under` has it.
    """
    modules = [module for module in network.modules() if isinstance(module, NoisyModule)]
    if not modules:
        raise UserError(
            f"{type(network).__name__} has no noisy layer: asr_dni.nn.convert(network) makes its layers noisy"
        )
    first, now = modules[0], backward_task()
    noises = first._one_each(first._with_realisations(noise, realisation))
    within = {module: _InForce(noises, stream, 0, now) for stream, module in enumerate(modules)}
    token = _of_blocks.set({**_of_blocks.get(), **within})
    try:
        yield
    finally:
        _of_blocks.reset(token)


def _refuse_to_freeze(name: str) -> None:
    """Refuse to make a program of a noisy pass: each of its calls would have the same noise."""
    if torch._C._is_tracing() or torch.compiler.is_exporting():
        raise UserError(
            f"a traced or exported {name} would have the same noise in every call: switch the noise off to trace or"
            " export it, and run the module itself to have noise"
        )
