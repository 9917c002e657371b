"""Mel-frequency cepstral coefficients.

The steps are those of S. Davis and P. Mermelstein, "Comparison of parametric representations for monosyllabic
word recognition in continuously spoken sentences", IEEE Trans. ASSP 28(4), 1980: log-mel energies and their
orthonormal DCT-II.
"""

from typing import Any

from torch import Tensor
from torchaudio.functional import create_dct

from asr_dni.features.log_mel import LogMel


class MFCC(LogMel):
    """Mel-frequency cepstral coefficients: the DCT of log-mel energies, the same alone, in any batch and in a stream.

    Args:
        n_mfcc: coefficients kept, beginning with the 0th; at most ``n_mels``.
        **log_mel: arguments of :class:`asr_dni.features.LogMel`.

    Raises:
        UserError: a value out of range; the line names the key.

    Example:
        >>> MFCC(n_mfcc=13)(torch.zeros(2, 16000)).shape
        torch.Size([2, 49, 13])
    """

    _dct: Tensor

    def __init__(self, n_mfcc: int = 20, **log_mel: Any) -> None:
        super().__init__(**log_mel)
        self.n_mfcc = n_mfcc
        expected = f"1 to n_mels, {self.n_mels}; the energies themselves are the front end LogMel"
        self._require(1 <= n_mfcc <= self.n_mels, "n_mfcc", expected)
        self.register_buffer("_dct", create_dct(n_mfcc, self.n_mels, "ortho"), persistent=False)

    @property
    def n_bands(self) -> int:
        """Coefficients per frame, without their deltas, which SpecAugment masks with them."""
        return self.n_mfcc

    def _of_bands(self, bands: Tensor) -> Tensor:
        return bands @ self._dct

    def _mean_of_bands(self, mean: Tensor) -> Tensor:
        # The smoothest ones: what else the bands' means have is in no coefficient.
        return mean @ self._dct.T
