"""Convolutions in front of the recurrent layers, which make a network a CRNN."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asr_dni.bounds import at_most
from asr_dni.errors import UserError
from asr_dni.nn import CounterDropout, NoisyConv2d, StackableBatchNorm2d, SubSpectralNorm2d
from asr_dni.noise import NoisyModule

_MOST_CHANNELS = 16_384
_MOST_BLOCKS = 64
_MOST_KERNEL = 1_001
_EPSILON = 1e-5
"""Of the batch normalisations."""


@dataclass(frozen=True)
class ConvolutionBlock:
    """A convolution over time and features, with batch normalisation and ReLU.

    Args:
        channels: that come out.
        kernel: its extent in time and over the features, two odd numbers; the input is padded with zeros.
        stride: its steps in time and over the features. A stride in time makes fewer steps for the recurrent layers.
        separable: a convolution of each channel by itself and then one of 1 x 1, each with normalisation and ReLU
            (A. Howard et al., MobileNets, arXiv:1704.04861), in place of one over all.
        residual: whether the block's input is added to its last normalised outputs, before ReLU (K. He et al., "Deep
            residual learning", arXiv:1512.03385); it has to be of their shape. The sum is digital.
        sub_bands: groups of neighbouring features that are normalised each by themselves (S. Chang et al., "SubSpectral
            normalization", arXiv:2103.13620); 1: all together. They divide the features that come out. On hardware
            that does more than to add noise the convolutions of such a block are refused.

    Raises:
        UserError: a value is out of its range.
    """

    channels: int = 32
    kernel: list[int] = field(default_factory=lambda: [3, 3])
    stride: list[int] = field(default_factory=lambda: [1, 1])
    separable: bool = False
    residual: bool = False
    sub_bands: int = 1

    def __post_init__(self) -> None:
        for name in ("channels", "sub_bands"):
            if not getattr(self, name) >= 1:
                raise UserError(f"network convolutions: {name} is {getattr(self, name)}: give 1 or more")
        at_most("network convolutions: channels", self.channels, _MOST_CHANNELS)
        for name in ("kernel", "stride"):
            given = list(getattr(self, name))
            if (
                len(given) != 2
                or min(given) < 1
                or (name == "kernel" and not all(size % 2 for size in given))
            ):
                kind = "odd numbers" if name == "kernel" else "numbers of at least 1"
                raise UserError(
                    f"network convolutions: {name} is {given}: give two {kind}, in time and over the features"
                )
            at_most(f"network convolutions: {name}", max(given), _MOST_KERNEL)
            object.__setattr__(self, name, given)

    def __str__(self) -> str:
        """Return it in short, such as ``32 separable 3x3/1x2``."""
        size = f"{self.kernel[0]}x{self.kernel[1]}"
        strides = "" if self.stride == [1, 1] else f"/{self.stride[0]}x{self.stride[1]}"
        kind = f"{' residual' * self.residual}{' separable' * self.separable}"
        groups = f" in {self.sub_bands} sub-bands" if self.sub_bands > 1 else ""
        return f"{self.channels}{kind} {size}{strides}{groups}"

    def check_input(self, fed: int) -> None:
        """Check that a residual block's input of ``fed`` channels has the shape of its outputs.

        Raises:
            UserError: it has not.
        """
        if self.residual and (fed != self.channels or self.stride != [1, 1]):
            raise UserError(
                f"network convolutions: a residual block of {self.channels} channels and stride {self.stride} gets"
                f" {fed} {'channel' if fed == 1 else 'channels'}: give as many channels as the block before has, and"
                " stride [1, 1]"
            )

    def sizes(self, fed: int) -> list[tuple[int, int, list[int], list[int], int]]:
        """Return channels in and out, kernel, stride and groups of its convolutions, where ``fed`` channels go in."""
        if not self.separable:
            return [(fed, self.channels, self.kernel, self.stride, 1)]
        return [(fed, fed, self.kernel, self.stride, fed), (fed, self.channels, [1, 1], [1, 1], 1)]


@dataclass(frozen=True)
class ConvolutionSettings:
    """Convolutions in front of the recurrent layers.

    Args:
        blocks: one after the other; the first one's input is one channel, of frames and features.
        width: of the frames that the recurrent layers get: a convolution of 1 x 1 over all channels and features of a
            frame makes so many numbers of them, with batch normalisation and ReLU; 0: they get all of them.
        dropout: probability with which values that go into this last convolution are dropped in training.
        gain: the initial weights of all convolutions, in multiples of torch's initialisation.
        folded: whether convolutions on hardware have their normalisation in their weights, so that noise falls on
            normalised outputs; else it falls on the raw ones, and the normalisation comes after.

    Raises:
        UserError: a value is out of its range.
    """

    blocks: list[ConvolutionBlock]
    width: int = 0
    dropout: float = 0.0
    gain: float = 1.0
    folded: bool = True

    def __post_init__(self) -> None:
        blocks = [ConvolutionBlock(**its) if isinstance(its, Mapping) else its for its in self.blocks]
        object.__setattr__(self, "blocks", blocks)
        if not blocks:
            raise UserError(
                "network convolutions.blocks is empty: give at least one, or no convolutions (null)"
            )
        at_most("the number of network convolutions.blocks", len(blocks), _MOST_BLOCKS)
        for before, block in zip([1, *(its.channels for its in blocks)], blocks, strict=False):
            block.check_input(before)
        if self.width < 0:
            raise UserError(
                f"network convolutions.width is {self.width}: give 0 (no such convolution) or more"
            )
        at_most("network convolutions.width", self.width, _MOST_CHANNELS)
        if not 0 <= self.dropout < 1:
            raise UserError(f"network convolutions.dropout is {self.dropout}: give a probability below 1")
        if not (self.gain > 0 and math.isfinite(self.gain)):
            raise UserError(f"network convolutions.gain is {self.gain}: give a number above 0")

    def __str__(self) -> str:
        """Return them in short, such as ``24 5x5/2x2, 32 separable 3x3/1x2, 96``."""
        marks = [*([str(self.width)] if self.width else []), *([] if self.folded else ["not folded"])]
        return ", ".join([*map(str, self.blocks), *marks])

    def n_frames(self, n_frames: int) -> int:
        """Return how many frames the recurrent layers get of so many."""
        for block in self.blocks:
            n_frames = -(-n_frames // block.stride[0])
        return n_frames

    def n_outputs(self, n_features: int) -> int:
        """Return how many numbers a frame has for the recurrent layers."""
        return self.width or self.n_flat(n_features)

    def n_flat(self, n_features: int) -> int:
        """Return how many numbers of a frame the blocks give, channels times features."""
        for block in self.blocks:
            n_features = -(-n_features // block.stride[1])
        return self.blocks[-1].channels * n_features

    def products(self, n_frames: int, n_features: int) -> list[tuple[int, int, int]]:
        """Return of every convolution how many weights, outputs and applications of the kernel to a clip it has.

        Args:
            n_frames: T.
            n_features: F.
        """
        found = []
        fed, steps, bands = 1, n_frames, n_features
        for block in self.blocks:
            for channels, out, kernel, stride, groups in block.sizes(fed):
                steps, bands = -(-steps // stride[0]), -(-bands // stride[1])
                weights = channels // groups * out * kernel[0] * kernel[1]
                found.append((weights, out * steps * bands, steps * bands))
            fed = block.channels
        if self.width:
            found.append((self.n_flat(n_features) * self.width, self.width * steps, steps))
        return found

    def n_weights(self, n_features: int) -> int:
        """Return the number of weights, without those of the normalisation."""
        return sum(weights for weights, _, _ in self.products(1, n_features))

    def operations(self, n_frames: int, n_features: int) -> float:
        """Return the floating-point operations of a clip's forward pass."""
        return float(sum(2 * weights * times for weights, _, times in self.products(n_frames, n_features)))

    def n_kept(self, n_frames: int, n_features: int) -> int:
        """Return how many numbers of a clip training keeps: before and after normalisation, and after ReLU."""
        return 3 * sum(outputs for _, outputs, _ in self.products(n_frames, n_features))


class ConvolutionalLayers(NoisyModule):
    """Convolutions from features to what the recurrent layers get, on the hardware in force (site ``convolution``).

    Of several processes each normalises by its own part of a batch, as torch's batch normalisation does.

    Args:
        settings: what they are.
        n_features: F, features per frame.
    """

    def __init__(self, settings: ConvolutionSettings, n_features: int) -> None:
        super().__init__()
        self._blocks, self._folded = settings.blocks, settings.folded
        stages: list[nn.Module] = []
        fed, bands = 1, n_features
        for block in settings.blocks:
            for channels, out, kernel, stride, groups in block.sizes(fed):
                bands = -(-bands // stride[1])
                if bands % block.sub_bands:
                    raise UserError(
                        f"network convolutions: a block ({block}) has sub_bands {block.sub_bands}, but there are"
                        f" {bands} features behind its stride: give a number that divides them"
                    )
                stages += _stage(channels, out, kernel, stride, groups, block.sub_bands)
            fed = block.channels
        # Channels last: a step of training of conf/model/crnn_separable.yaml takes 14 % less time on a CPU.
        self.blocks = nn.Sequential(*stages)
        self.blocks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dropout = CounterDropout(settings.dropout)
        self.pointwise = (
            nn.Sequential(*_stage(settings.n_flat(n_features), settings.width, [1, 1], [1, 1], 1))
            if settings.width
            else None
        )
        self.n_outputs = settings.n_outputs(n_features)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, NoisyConv2d):
                    module.weight.mul_(settings.gain)
        for group in (self.blocks, self.pointwise):
            if group is not None:
                self._stages(group)

    def _stages(self, group: nn.Sequential) -> list["_Stage"]:
        """Return the stages of a group; folds the normalisations in anew where others have taken their places."""
        modules = list(group)
        stages = [_Stage(*modules[first : first + 3]) for first in range(0, len(modules), 3)]
        for convolution, normalisation, _ in stages:
            normalises = not isinstance(normalisation, nn.Identity)
            if self._folded and normalises and isinstance(convolution, NoisyConv2d):
                convolution.fold_in(normalisation)
        return stages

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(T, N, outputs)`` for features ``(N, T, F)``.

        In a population features are ``(K, N, T, F)``, or ``(N, T, F)`` for all, and outputs ``(K, T, N, outputs)``.
        """
        images = features.unsqueeze(-3)
        stages = iter(self._stages(self.blocks))
        for block in self._blocks:
            *first, last = itertools.islice(stages, len(block.sizes(1)))
            before = images
            for stage in first:
                images = stage(images)
            images = last(images, before if block.residual else None)
        frames: Tensor = self.dropout(images.transpose(-3, -2).flatten(-2).transpose(-3, -2))
        if self.pointwise is not None:
            (stage,) = self._stages(self.pointwise)
            frames = stage(frames.movedim(-3, -1).unsqueeze(-1)).squeeze(-1).movedim(-1, -3)
        return frames

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any, **keywords: Any
    ) -> None:
        """Take over the size of clean signals of raw outputs as that of folded ones, and the other way round.

        Weights that were calibrated before normalisations were folded have the former.
        """
        super()._load_from_state_dict(state_dict, prefix, *arguments, **keywords)
        for name, convolution in self.named_modules():
            group, _, place = name.rpartition(".")
            if not isinstance(convolution, NoisyConv2d) or not place.isdigit():
                continue
            following = f"{prefix}{group}.{int(place) + 1}"
            scale, variance = (state_dict.get(f"{following}.{part}") for part in ("weight", "running_var"))
            if scale is not None and variance is not None:
                factors = scale * torch.rsqrt(variance + _EPSILON)
                convolution.convert_sizes(state_dict, f"{prefix}{name}.", factors)


class _Stage(NamedTuple):
    """A convolution, the normalisation of its outputs, and what comes after."""

    convolution: nn.Module
    normalisation: nn.Module
    activation: nn.Module

    def __call__(self, images: Tensor, added: Tensor | None = None) -> Tensor:
        """Return what becomes of ``(*, N, C, T, B)``; something may be added to the normalised outputs."""
        y = self.convolution(images)
        if getattr(self.convolution, "normalisation", None) is None:
            y = self.normalisation(y)
        if added is not None:
            y = y + added
        activated: Tensor = self.activation(y)
        return activated


def _stage(
    fed: int, out: int, kernel: list[int], stride: list[int], groups: int, sub_bands: int = 1
) -> list[nn.Module]:
    sizes: dict[str, Any] = {
        "kernel_size": tuple(kernel),
        "stride": tuple(stride),
        "padding": tuple(size // 2 for size in kernel),
    }
    # The normalisation has a shift.
    convolution = NoisyConv2d(fed, out, **sizes, groups=groups, bias=False)
    normalisation = (
        SubSpectralNorm2d(out, sub_bands, eps=_EPSILON)
        if sub_bands > 1
        else StackableBatchNorm2d(out, eps=_EPSILON)
    )
    return [convolution, normalisation, nn.ReLU()]
