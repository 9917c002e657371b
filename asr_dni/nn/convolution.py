"""A convolution whose products are on analog hardware."""

import copy
import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_dni.errors import UserError
from asr_dni.nn.analog import OneProduct
from asr_dni.nn.crossbar import Crossbar
from asr_dni.nn.mvm import linear
from asr_dni.nn.normalisation import StackableBatchNorm2d
from asr_dni.nn.operations import Outputs
from asr_dni.noise import ForwardPass, Site

_FOLDED = "signal_statistics.l0.folded"

_Size = int | tuple[int, int]


class NoisyConv2d(OneProduct, nn.Conv2d):
    """``torch.nn.Conv2d`` on the hardware in force (site ``convolution``).

    Constructor, call, shapes and ``state_dict`` are those of ``torch.nn.Conv2d``; on exact hardware so are outputs and
    gradients. By default the hardware's sites leave convolutions digital.

    Of an input ``(N, C, T, B)``, as of a spectrogram, axis -2 is time and axis -1 are bands. Noise is named by sample,
    time step of the output and (channel, band). In a chunk of a longer sequence that begins at the input's time step
    ``first_step``, a multiple of the stride, the first output's step is ``first_step / stride``: chunks that overlap by
    the kernel, without padding in time, continue each other.

    A group is a matrix ``(out_channels / groups, in_channels / groups * kernel)``, whose columns lie on arrays in the
    order of ``weight``; each application of the kernel, at each step and band, is a product with it. What a chip's
    outputs have for good, such as an offset of a column, is of the channel.

    A population takes ``(K, N, C, T, B)``, or ``(N, C, T, B)`` for all of its members, to ``(K, N, out, T, B)``.

    With a batch normalisation that is folded in (:meth:`fold_in`) it gives normalised outputs. Digital it is then one
    module after the other. On hardware there is one product, with the weights W gamma / sqrt(var + eps), and the bias
    beta - gamma mean / sqrt(var + eps) is digital: noise of a fixed size falls on normalised outputs. In training mean
    and variance are those of the batch's clean product, as in quantisation-aware training (B. Jacob et al.,
    arXiv:1712.05877, section 3.2). The size of signals, of which calibration takes note, is that of the folded product.

    Raises:
        UserError: the padding mode is not ``zeros``.
    """

    _site: ClassVar[Site] = "convolution"
    # In a tuple, of which torch makes no submodule: it has a place and names of its own in the network.
    _normalisations: tuple[StackableBatchNorm2d, ...] = ()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: str | _Size = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if padding_mode != "zeros":
            raise UserError(f"NoisyConv2d padding_mode is {padding_mode!r}: give zeros")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    @property
    def normalisation(self) -> StackableBatchNorm2d | None:
        """The batch normalisation of its outputs that is folded into its products."""
        return self._normalisations[0] if self._normalisations else None

    def fold_in(self, normalisation: nn.Module) -> None:
        """Give normalised outputs from now on, and on hardware have the normalisation in the product itself.

        Args:
            normalisation: a module beside this one, whose parameters and buffers stay where they are; its forward is
                not to be called on the outputs again.

        Raises:
            UserError: it is of another kind, such as one over several processes, or the convolution has a bias.
        """
        if not isinstance(normalisation, StackableBatchNorm2d):
            raise UserError(
                f"a {type(normalisation).__name__} cannot be folded into a convolution: leave trainer.sync_batchnorm"
                " out, or set network convolutions.folded to false"
            )
        if self.bias is not None:
            raise UserError(
                "a convolution that has a bias beside its normalisation: give bias False to fold it"
            )
        if self.normalisation is not normalisation:
            self._normalisations = (normalisation,)

    @torch.no_grad()
    def folded(self) -> "NoisyConv2d":
        """Return a convolution without normalisation that has it in weights and bias, by the running statistics.

        Raises:
            UserError: sub-bands are normalised by themselves, which takes weights of each.
        """
        if self.normalisation is None:
            return self
        self._check_one_matrix()
        made = copy.deepcopy(self)
        (weight,), bias = self._on_arrays(None)
        assert bias is not None
        made._normalisations = ()
        made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias.flatten())
        return made

    def forward(self, input: Tensor) -> Tensor:
        """Return ``(N, out_channels, T, B)`` for an input ``(N, in_channels, T, B)``; without N it is one sample."""
        images = self._of_all_networks(input)
        if self._estimates is not None:
            self._observe_folded(images)
        now = self._begin_pass("convolution")
        on_hardware = now.at("convolution")
        y = self._on_hardware(now, images) if on_hardware else self._convolve(images, self.weight, self.bias)
        if self.networks is None:
            y = y.squeeze(0)  # whose gradient is a view
        if self.normalisation is not None and not on_hardware:
            y = self.normalisation(y)
        return y[0] if self.networks is None and input.dim() == 3 else y

    def _of_all_networks(self, input: Tensor) -> Tensor:
        """Return ``(K, N, C, T, B)``."""
        if self.networks is None:
            if input.dim() not in (3, 4):
                raise ValueError(
                    f"expected an input (N, {self.in_channels}, T, B) or without N, got {tuple(input.shape)}"
                )
            return input[None] if input.dim() == 4 else input[None, None]
        if input.dim() == 4:
            return input.expand(self.networks, *input.shape)
        if input.dim() != 5 or input.shape[0] != self.networks:
            raise ValueError(
                f"expected an input (N, {self.in_channels}, T, B) for all or ({self.networks}, N,"
                f" {self.in_channels}, T, B) for {self.networks} networks, got {tuple(input.shape)}"
            )
        return input

    def _on_hardware(self, now: ForwardPass, images: Tensor) -> Tensor:
        batch = self._batch(images)

        @torch.no_grad()
        def matrices() -> list[Tensor]:  # not asked for where a pass is run again
            return self._on_arrays(batch)[0]

        networks, rows = images.shape[:2]
        steps, bands = self._output_size(images)
        first_step = now.noises[0].realisation.first_step // self.stride[0]
        drawing = self._drawing(now, images, rows, first_step, steps, self.out_channels * bands, True, bands)
        columns = math.prod(self.weight.shape[-3:])
        product = self._only_product(now, drawing, columns, matrices)

        def as_images(y: Tensor) -> Tensor:
            return y.view(*y.shape[:-1], self.out_channels, bands).transpose(-3, -2)

        def plus_noise(y: Tensor) -> Tensor:
            if product is None:
                return y
            # To the images, rather than to their units, so that they keep their order in memory.
            numbers = Outputs(product.arrays[0], drawing)(y.new_zeros(()))
            return y + as_images(numbers.expand(*numbers.shape[:-1], self.out_channels * bands))

        additive = product is None or product.additive
        if additive and not self._programs(now, "convolution"):
            # Clean weights: the product, normalised, is the folded one.
            y = self._convolve(images, self.weight, self.bias) if batch is None else batch
            return plus_noise(self._normalised(y))
        if batch is not None:
            with torch.no_grad():
                self._normalised(batch)  # whose running statistics follow
        self._check_one_matrix()
        (folded,), bias = self._on_arrays(batch)
        weight = self._programmed(now, "convolution", "weight", folded, keep=batch is None)
        if product is None or additive:
            return plus_noise(self._convolve(images, weight, bias))
        matrix = weight.reshape(networks, self.out_channels, columns)
        if product.columns is None:
            y = Crossbar(product, matrix, drawing, multiply=self._of_images)(images)
        else:
            y = Crossbar(product, matrix, drawing, multiply=self._of_patches)(self._patches(images))
        y = as_images(y)
        return y if bias is None else y + bias.reshape(-1, 1, self.out_channels, 1, 1)

    def _normalised(self, y: Tensor) -> Tensor:
        """Return outputs ``(K, N, out, T, B)`` normalised, where there is a normalisation."""
        if self.normalisation is None:
            return y
        normalised: Tensor = self.normalisation(y if self.networks is not None else y.squeeze(0))
        return normalised if self.networks is not None else normalised[None]

    def _batch(self, images: Tensor) -> Tensor | None:
        """Return the clean outputs ``(K, N, out, T, B)``, where a normalisation takes their statistics."""
        by_batch = self.normalisation is not None and self.normalisation.by_batch
        return self._convolve(images, self.weight) if by_batch else None

    def _on_arrays(self, batch: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        """Return weights, in the parameter's shape, and bias, with the normalisation in them where there is one.

        Args:
            batch: clean outputs whose statistics count; ``None``: the running ones.

        Returns:
            Weights of each sub-band, where these are normalised by themselves; and the bias ``(out, sub-bands)``.
        """
        if self.normalisation is None:
            return [self.weight], self.bias
        factors, shifts = self.normalisation.fold(batch)
        return [self.weight * its[..., None, None, None] for its in factors.unbind(-1)], shifts

    def _check_one_matrix(self) -> None:
        """Refuse what takes several matrices of a convolution.

        Raises:
            UserError: there are several sub-bands.
        """
        if self.normalisation is not None and self.normalisation.sub_bands > 1:
            raise UserError(
                "a convolution whose sub-bands are normalised by themselves would take weights on arrays of their own:"
                " give hardware that only adds noise to its outputs, sites without convolution, or a network with"
                " convolutions.folded false"
            )

    def _observe_folded(self, images: Tensor) -> None:
        """Take the size of clean outputs with the normalisation's scale, and of inputs."""
        y = self._convolve(images, self.weight)
        if self.normalisation is not None:
            factors, _ = self.normalisation.fold(y if self.normalisation.by_batch else None)
            factors = factors.unsqueeze(-2).repeat_interleave(y.shape[-1] // factors.shape[-1], -1)
            y = y * factors.view(-1, 1, self.out_channels, 1, y.shape[-1])
        self._observe(y, images, -3)

    def _matrices(self, part: str, site: str) -> list[Tensor]:
        return self._on_arrays(None)[0]

    def _convolve(self, images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the clean ``(K, N, out, T, B)`` for ``(K, N, C, T, B)``: K networks are groups of one convolution."""
        networks = images.shape[0]
        if weight.dim() == 3:  # of a crossbar
            weight = weight.view(*weight.shape[:2], -1, *self.kernel_size)
        y = functional.conv2d(
            images.transpose(0, 1).flatten(1, 2),
            weight.flatten(0, -4),  # which keeps channels last
            None if bias is None else bias.flatten(),
            self.stride,
            self.padding,
            self.dilation,
            networks * self.groups,
        )
        return y.view(y.shape[0], networks, self.out_channels, *y.shape[-2:]).transpose(0, 1)

    def _of_images(self, images: Tensor, weight: Tensor, shared: bool) -> Tensor:
        """Return the clean ``(K, N, T, out * B)`` for ``(K, N, C, T, B)``, as a crossbar's product."""
        return _as_units(self._convolve(images, weight))

    def _patches(self, images: Tensor) -> Tensor:
        """Return ``(K, groups, N, T, B, columns)``: what a group's matrix is applied to for each output."""
        (above, below), (left, right) = self._padded
        padded = functional.pad(images.flatten(0, 1), (left, right, above, below))
        patches = functional.unfold(padded, self.kernel_size, self.dilation, 0, self.stride)
        of_groups = patches.view(*images.shape[:2], self.groups, -1, *self._output_size(images))
        return of_groups.permute(0, 2, 1, 4, 5, 3)

    def _of_patches(self, patches: Tensor, weight: Tensor, shared: bool) -> Tensor:
        """Return the clean ``(K, N, T, out * B)`` for some columns of patches, as a crossbar's product."""
        of_groups = weight.reshape(len(weight) * self.groups, -1, weight.shape[-1])
        y = linear(patches.flatten(0, 1), of_groups)
        return y.view(*patches.shape[:-1], -1).permute(0, 2, 3, 1, 5, 4).flatten(3)

    @property
    def _padded(self) -> list[tuple[int, int]]:
        """Zeros before and after, in time and in bands."""
        if isinstance(self.padding, str):
            spans = [
                dilation * (kernel - 1) if self.padding == "same" else 0
                for dilation, kernel in zip(self.dilation, self.kernel_size, strict=True)
            ]
            return [(span // 2, span - span // 2) for span in spans]
        return [(width, width) for width in self.padding]

    def _output_size(self, images: Tensor) -> tuple[int, int]:
        """Return steps and bands of the outputs.

        Raises:
            ValueError: the input is smaller than the kernel.
        """
        steps, bands = (
            (size + sum(padded) - dilation * (kernel - 1) - 1) // stride + 1
            for size, padded, dilation, kernel, stride in zip(
                images.shape[-2:], self._padded, self.dilation, self.kernel_size, self.stride, strict=True
            )
        )
        if steps < 1 or bands < 1:
            raise ValueError(
                f"expected an input at least as large as the kernel {self.kernel_size}, got {tuple(images.shape[-2:])}"
            )
        return steps, bands

    def convert_sizes(self, state: dict[str, Tensor], prefix: str, factors: Tensor) -> None:
        """Make the size of clean signals in a state dict that of the outputs which this convolution calibrates.

        Args:
            state: with signal statistics of raw outputs, or of folded ones; changed in place. Where the size of single
                outputs is not known, or they have several factors, that of all is not known afterwards.
            prefix: of this convolution's names there.
            factors: ``(out,)``, in a population ``(K, out)``, that fold the normalisation's scale in.
        """
        key, folded = f"{prefix}signal_statistics.l0", self.normalisation is not None
        if key not in state or (f"{prefix}{_FOLDED}" in state) == folded:
            return
        values, each = state.pop(key).clone(), state.pop(f"{key}.outputs", None)
        if each is not None and each.shape == factors.shape:
            each = each * (factors.abs() if folded else 1 / factors.abs()).to(each)
            values[..., 0, 0] = each.square().mean(-1).sqrt()
            state |= {key: values, f"{key}.outputs": each}

    def _save_to_state_dict(self, destination: dict[str, object], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.normalisation is not None and any(self._statistics["l0"].known):
            destination[f"{prefix}{_FOLDED}"] = torch.tensor(True)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any, **keywords: Any
    ) -> None:
        rest = {key: value for key, value in state_dict.items() if key != f"{prefix}{_FOLDED}"}
        super()._load_from_state_dict(rest, prefix, *arguments, **keywords)


def _as_units(y: Tensor) -> Tensor:
    """Return ``(K, N, T, out * B)`` for ``(K, N, out, T, B)``: the outputs of a time step."""
    return y.transpose(-3, -2).flatten(-2)
