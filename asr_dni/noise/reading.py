"""What depends on the inputs of an array and on what lies on it, beside the clean output: noise of reading, wires.

All three are first-order models of an array of which x is applied to the columns and y is read at each output. What
reading its devices adds to an output, afresh in every product, is a Gaussian whose deviation follows the input.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from asr_dni.errors import UserError
from asr_dni.noise.model import AddReading, DropOfWires, Noisy, Operation, OutputNumbers
from asr_dni.noise.sites import Per, Scale, check_per


@dataclass(frozen=True)
class OfArray(Noisy):
    """A model of an array: products inside the cell, which lie on none, do not have it.

    The gradient takes what it adds as a constant. SNRs are not known: they follow the inputs.

    Attributes:
        per: what the largest weight is of: the ``tensor``, all that is on the array, or each ``output``.

    Raises:
        UserError: a value is out of its range.
    """

    of_arrays: ClassVar[bool] = True

    per: Per = "tensor"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_per(self.per)

    def variance(self, signal: float, unit: float) -> float:
        """Return NaN: it follows the inputs and the weights."""
        return math.nan


@dataclass(frozen=True)
class ReadNoise(OfArray):
    """y + s N(0, 1): what the noise of all devices, read afresh in every product, adds to an output.

    With law ``conductance`` s**2 = sigma**2 w_max sum_j abs(w_j) x_j**2, where the variance of a device grows with its
    conductance, as of phase-change memory; with ``constant`` s**2 = sigma**2 w_max**2 sum_j x_j**2, where all devices
    are equally noisy. w is what was programmed. Both do not depend on how inputs and weights are scaled.

    Source: IBM/aihwkit ``rpucuda/rpu_forward_backward_pass.cpp``, ``applyOutputWeightNoise`` (types PCM_READ and
    ADDITIVE_CONSTANT), which has weights and inputs in [-1, 1]; 0.0175 there stands for PCM (``presets/inference.py``).

    Attributes:
        sigma: deviation of a device at g_max, or of every device, in multiples of w_max.
        law: ``conductance`` or ``constant``.

    Raises:
        UserError: a value is out of its range.
    """

    by_sample: ClassVar[bool] = True
    units: ClassVar[Mapping[str, str]] = {"sigma": "multiples of the largest weight"}

    law: Literal["conductance", "constant"] = "conductance"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.law not in ("conductance", "constant"):
            raise UserError(f"noise law is {self.law!r}: give conductance or constant")

    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return what adds it."""
        return AddReading(self.sigma, self.law, self.per, numbers.shares)


@dataclass(frozen=True)
class GaussianOfRange(OfArray):
    """y + s N(0, 1), s = sigma x_max max abs(W), the maximum over the array or over each output's weights.

    x_max is the largest absolute input that calibration has found. With ``per: tensor`` and one array it is
    :class:`~asr_dni.noise.Gaussian` in scale ``range``; with ``per: output`` an output with small weights, whose
    conductances are spread over the whole range, has as much less noise after it is scaled back.

    Source: IBM/aihwkit-lightning ``nn/modules/torch_utils/torch_linear.py``; aihwkit's ``out_noise`` with weights
    scaled per column (``presets/inference.py``).

    Attributes:
        sigma: in multiples of that product.

    Raises:
        UserError: a value is out of its range.
    """

    by_sample: ClassVar[bool] = True
    units: ClassVar[Mapping[str, str]] = {"sigma": "multiples of the largest input times the largest weight"}
    scale: ClassVar[Scale] = "range"

    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return what adds it."""
        return AddReading(self.sigma, "largest", self.per, numbers.shares)


@dataclass(frozen=True)
class IRDrop(OfArray):
    """What the resistance of an output's wire takes from it, in first order; nothing is drawn.

    y_i - sigma c_i sum_j w_ij x_j (1 - (1 - j / n)**2), c_i = a_i (a_i (0.05 a_i - 0.2) + 0.5),
    a_i = n / g_ratio sum_j abs(w_ij x_j) / (w_max x_max): the more current flows, and the farther from the far end,
    j = 0, it comes in, the more is lost. n is the number of columns; x_max is the largest absolute input that
    calibration has found.

    Source: IBM/aihwkit ``rpucuda/rpu_forward_backward_pass.cpp``, ``applyIrDrop``, which has weights and inputs in
    [-1, 1] and g_ratio 1 / 0.35 / 5e-6 (``parameters/io.py``: wires of 0.35 ohm between cells of 5 µS).

    Attributes:
        sigma: multiples of the resistance; 1 is that of g_ratio, 0 none.
        g_ratio: conductance of the wire between two cells over the largest of a cell.

    Raises:
        UserError: a value is out of its range.
    """

    units: ClassVar[Mapping[str, str]] = {"sigma": "multiples of the wire's resistance"}
    drawn: ClassVar[bool] = False
    scale: ClassVar[Scale] = "range"

    g_ratio: float = 1 / 0.35 / 5e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("g_ratio")
        if self.g_ratio == 0:
            raise UserError("noise g_ratio is 0: give a number above 0")

    def operation(self, numbers: OutputNumbers) -> Operation:
        """Return what takes it away."""
        return DropOfWires(self.sigma, self.g_ratio, self.per)
