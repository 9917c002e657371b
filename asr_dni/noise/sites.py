"""The words for where noise enters and what its strength is measured in."""

from typing import Literal, TypeAlias, get_args

from asr_dni.errors import UserError

Scale: TypeAlias = Literal["absolute", "signal", "range"]
Site: TypeAlias = Literal["convolution", "input", "recurrent", "elementwise", "output"]
Arrays: TypeAlias = Literal["joint", "separate"]
Per: TypeAlias = Literal["tensor", "output"]
"""Whether a size is that of all outputs of a product, or of each by itself."""

SCALES: tuple[Scale, ...] = get_args(Scale)
SITES: tuple[Site, ...] = get_args(Site)
MVM_SITES: tuple[Site, ...] = ("input", "recurrent", "output")
"""The sites of the matrix-vector products of recurrent layers and classifier: the default."""
ARRAYS: tuple[Arrays, ...] = get_args(Arrays)


def check_per(per: str) -> None:
    """Check that a size is one of a tensor or of each output.

    Raises:
        UserError: it is neither.
    """
    if per not in get_args(Per):
        raise UserError(f"noise per is {per!r}: give {' or '.join(get_args(Per))}")
