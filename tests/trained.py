"""Trains small networks for the tests."""

from pathlib import Path

import pytorch_lightning as pl
import torch

from asr_dni.data import SequenceData
from asr_dni.model import KeywordSpotter, NetworkSettings


def train(folder: Path, data: SequenceData, epochs: int) -> Path:
    """Train eight units a little, and return the checkpoint."""
    pl.seed_everything(1, verbose=False)
    network = NetworkSettings(units=8, layers=1, dropout=0.0, input_gain=4.0, output_gain=4.0)
    optimizer = lambda parameters: torch.optim.Adam(parameters, lr=0.02)  # noqa: E731
    spotter = KeywordSpotter(data.label_names, data.n_features, network, optimizer=optimizer)
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(spotter, datamodule=data)
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"
