"""The words for where noise enters and what its strength is measured in."""

from typing import Literal, TypeAlias, get_args

Scale: TypeAlias = Literal["absolute", "signal", "range"]
Site: TypeAlias = Literal["convolution", "input", "recurrent", "elementwise", "output"]
Arrays: TypeAlias = Literal["joint", "separate"]

SCALES: tuple[Scale, ...] = get_args(Scale)
SITES: tuple[Site, ...] = get_args(Site)
MVM_SITES: tuple[Site, ...] = ("input", "recurrent", "output")
"""The sites of the matrix-vector products of recurrent layers and classifier: the default."""
ARRAYS: tuple[Arrays, ...] = get_args(Arrays)
