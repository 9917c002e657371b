"""A convolution whose products are on analog hardware."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_dni.errors import UserError
from asr_dni.nn.analog import OneProduct
from asr_dni.nn.crossbar import Crossbar
from asr_dni.nn.mvm import linear
from asr_dni.nn.operations import Outputs
from asr_dni.noise import Site

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

    Raises:
        UserError: the padding mode is not ``zeros``.
    """

    _site: ClassVar[Site] = "convolution"

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

    def forward(self, input: Tensor) -> Tensor:
        """Return ``(N, out_channels, T, B)`` for an input ``(N, in_channels, T, B)``; without N it is one sample."""
        y = self._apply_to(self._of_all_networks(input))
        if self.networks is not None:
            return y
        return y[0, 0] if input.dim() == 3 else y[0]

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

    def _apply_to(self, images: Tensor) -> Tensor:
        if self._estimates is not None:
            self._observe(self._convolve(images, self.weight), images, -3)
        now = self._begin_pass("convolution")
        if not now.at("convolution"):
            return self._convolve(images, self.weight, self.bias)
        weight = self._programmed(now, "convolution", "weight")
        networks, rows = images.shape[:2]
        steps, bands = self._output_size(images)
        first_step = now.noises[0].realisation.first_step // self.stride[0]
        drawing = self._drawing(now, images, rows, first_step, steps, self.out_channels * bands, True, bands)
        columns = weight[0].numel() if self.networks is None else weight[0, 0].numel()
        product = self._only_product(now, drawing, columns)

        def as_images(y: Tensor) -> Tensor:
            return y.view(*y.shape[:-1], self.out_channels, bands).transpose(-3, -2)

        if product is None or product.additive:
            y = self._convolve(images, weight, self.bias)
            return y if product is None else as_images(Outputs(product.arrays[0], drawing)(_as_units(y)))
        on_arrays = weight.reshape(networks, self.out_channels, columns)
        if product.columns is None:
            y = Crossbar(product, on_arrays, drawing, multiply=self._of_images)(images)
        else:
            y = Crossbar(product, on_arrays, drawing, multiply=self._of_patches)(self._patches(images))
        y = as_images(y)
        return y if self.bias is None else y + self.bias.view(-1, 1, self.out_channels, 1, 1)

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


def _as_units(y: Tensor) -> Tensor:
    """Return ``(K, N, T, out * B)`` for ``(K, N, out, T, B)``: the outputs of a time step."""
    return y.transpose(-3, -2).flatten(-2)
