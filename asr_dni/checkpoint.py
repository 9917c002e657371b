"""Read a checkpoint file, whoever takes what from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asr_dni.errors import UserError


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file without running code from it.

    Raises:
        UserError: the file is missing, cannot be read, or holds no mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint file")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its parts raise
        raise UserError(
            f"{path}: cannot be read as a checkpoint; expected a .ckpt that asr-dni fit wrote"
        ) from error
    if not isinstance(contents, dict):
        raise UserError(f"{path}: is not a Lightning checkpoint; expected a .ckpt that asr-dni fit wrote")
    return contents


def open_checkpoint(checkpoint: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return a checkpoint's contents, and what a message calls it.

    Args:
        checkpoint: a checkpoint file, or what ``torch.load`` made of one.

    Raises:
        UserError: the file is missing, cannot be read, or holds no mapping.
    """
    if isinstance(checkpoint, Mapping):
        return checkpoint, "the checkpoint"
    return read_checkpoint(checkpoint), str(checkpoint)
