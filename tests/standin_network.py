"""A network whose accuracy under noise is known in closed form, for tests of the evaluation."""

import math

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from asr_dni.data.batch import Batch
from asr_dni.noise import Hardware, Noise, NoisyModule
from asr_dni.philox import derive_key, normal


class MarginNetwork(NoisyModule):
    """Two classes; the right one's logit is higher by ``margin``, and each logit gets N(0, sigma**2).

    The difference of the logits is N(margin, 2 sigma**2), so the accuracy is Phi(margin / (sigma sqrt 2)).
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(margin))
        self.dropout = nn.Dropout(0.5)
        self.n_projections = self.n_classifications = 0

    def project(self, features: Tensor) -> Tensor:
        self.n_projections += 1
        return self.dropout(features[:, 0] * self.scale)

    def inputs_exact(self, hardware: Hardware) -> bool:
        return hardware.inputs_exact

    def classify(self, projection: Tensor) -> Tensor:
        self.n_classifications += 1
        noise, sample_ids = self.noise, self.noise.realisation.sample_ids
        if not noise.on:
            return projection
        if sample_ids is None:
            sample_ids = torch.arange(len(projection))
        key = derive_key(noise.realisation.seed, "logits", self._begin_pass("output").draws[0])
        return projection + noise.sigma * normal(key, sample_ids, torch.zeros(1), 1, projection.shape[1])[0]

    def forward(self, features: Tensor) -> Tensor:
        return self.classify(self.project(features))

    def snr_db(self, noise: Noise) -> float | None:
        return None if noise.hardware.scale == "absolute" else -20 * math.log10(noise.sigma)


def make_clips(n: int, seed: int = 0) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Clips with features ``(1, 2)``: one-hot of the label."""
    labels = torch.randint(2, (n,), generator=torch.Generator().manual_seed(seed))
    features = nn.functional.one_hot(labels, 2).float()[:, None]
    return [(features[i], labels[i], torch.tensor(1_000_003 * i + 17)) for i in range(n)]


def collate(clips: list[tuple[Tensor, Tensor, Tensor]]) -> Batch:
    return Batch(*(torch.stack(column) for column in zip(*clips, strict=True)))


def batches(clips: list[tuple[Tensor, Tensor, Tensor]], size: int) -> list[Batch]:
    return [collate(clips[first : first + size]) for first in range(0, len(clips), size)]


class MarginSpotter(pl.LightningModule):
    """Trains the stand-in; its dropout takes numbers from the global generator."""

    label_names = ("no", "yes")

    def __init__(self) -> None:
        super().__init__()
        self.network = MarginNetwork(0.5)

    def _loss(self, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(self.network(batch.features), batch.labels)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val/loss", self._loss(batch), batch_size=len(batch.labels))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test/loss", self._loss(batch), batch_size=len(batch.labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class MarginData(pl.LightningDataModule):
    protocol = "stand-in, two classes"

    def train_dataloader(self) -> DataLoader:
        return DataLoader(make_clips(64, 1), batch_size=16, shuffle=True, collate_fn=collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(make_clips(100, 2), batch_size=32, collate_fn=collate)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(make_clips(101, 3), batch_size=32, collate_fn=collate)
