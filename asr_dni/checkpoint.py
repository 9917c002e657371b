"""Read and write checkpoint files, whoever takes what from them."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from asr_dni.errors import UserError
from asr_dni.files import write_atomically


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


def write_checkpoint(contents: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint file; one that was there stays whole until the disk has all of the new one.

    Raises:
        OSError: it could not be written, such as on a full disk; it names ``path``.
    """
    # torch's writer answers a full disk with an error of its own that says neither what nor where.
    contents_in_memory = io.BytesIO()
    torch.save(dict(contents), contents_in_memory)
    with write_atomically(path) as temporary:
        temporary.write_bytes(contents_in_memory.getbuffer())


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a trainer's checkpoints by :func:`write_checkpoint`.

    Lightning's own way writes to the folder for temporary files. Where that is on another file system, the finished
    file is copied over the one before, which a kill or a full disk at that moment destroys.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; one in an object store as Lightning does."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            write_checkpoint(checkpoint, path)


def write_durable_checkpoints(trainer: pl.Trainer) -> None:
    """Have a trainer write its checkpoints by :class:`DurableCheckpointIO`, unless it was given a way of its own."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = DurableCheckpointIO()
