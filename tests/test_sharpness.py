"""Sharpness-aware minimisation in a trainer, against two passes by hand."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from asr_dni.cli.main import main
from asr_dni.data import DigitsData
from asr_dni.errors import UserError
from asr_dni.model import KeywordSpotter, NetworkSettings, NoiseAnnealing, TrainingNoise
from asr_dni.model.convolutions import ConvolutionBlock, ConvolutionSettings

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*logging interval",
    "ignore:.*LeafSpec",
    "ignore:.*reference is not registered",
)

CRNN = NetworkSettings(
    units=5, layers=1, dropout=0.2, convolutions=ConvolutionSettings([ConvolutionBlock(3, stride=[2, 2])], 4)
)
RATE, LARGEST = 0.5, 0.2


def spotter_of(rho):
    torch.manual_seed(2)
    return KeywordSpotter(
        [str(digit) for digit in range(10)],
        8,
        CRNN,
        TrainingNoise(scale="signal", seed=4),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=RATE),
        schedule="constant",
        warm_up=0.0,
        calibrate_every=1,
        sam_rho=rho,
    )


def trained(rho, **options):
    spotter = spotter_of(rho)
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=LARGEST,
        callbacks=[NoiseAnnealing(0.7, schedule="constant")],
        **options,
    )
    data = DigitsData()
    trainer.fit(spotter, datamodule=data)
    return spotter, trainer


def test_a_step_takes_the_gradient_where_the_loss_is_highest():
    rho = 0.3
    spotter, trainer = trained(rho)
    by_hand, data = spotter_of(rho).train(), DigitsData()
    by_hand.sigma_train = 0.7
    data.prepare_data()
    data.setup("fit")
    batch = data.transform(next(iter(data.train_dataloader())), training=True)
    weights = list(by_hand.network.parameters())
    loss = by_hand.training_step(batch, 0)
    buffers = {name: value.clone() for name, value in by_hand.network.named_buffers()}
    gradients = torch.autograd.grad(loss, weights)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight += rho * gradient / norm
    by_hand.second_pass = True  # so that the size of the signals stays what it is
    higher = by_hand.training_step(batch, 0)
    assert higher > loss + 0.1 * rho * norm
    taken = torch.autograd.grad(higher, weights)
    largest = torch.cat([gradient.flatten() for gradient in taken]).norm()
    assert largest > LARGEST
    for weight, start, gradient in zip(spotter.network.parameters(), before, taken, strict=True):
        torch.testing.assert_close(weight.detach(), start - RATE * gradient * LARGEST / largest)
    # What is logged, and what follows the batch, is of the first pass.
    torch.testing.assert_close(trainer.callback_metrics["train/loss"], loss.detach())
    plain, _ = trained(0.0)
    for name, value in spotter.network.named_buffers():
        torch.testing.assert_close(value, buffers[name], msg=name)
        torch.testing.assert_close(value, plain.network.get_buffer(name), msg=name)
    assert any(name.endswith("num_batches_tracked") and value == 1 for name, value in buffers.items())


def test_settings_have_it_where_it_is_on():
    assert "sam_rho" not in spotter_of(0.0).hparams["model"]
    assert spotter_of(0.2).hparams["model"]["sam_rho"] == 0.2
    with pytest.raises(UserError, match="model sam_rho is -1"):
        spotter_of(-1.0)


@pytest.mark.usefixtures("restored_process")
def test_gradients_of_several_batches_are_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="accumulate_grad_batches is 3"):
        trained(0.1, accumulate_grad_batches=3)
    monkeypatch.chdir(tmp_path)
    accumulated = ["--trainer.accumulate_grad_batches", "2", "--wandb", "disabled"]
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "digits_lstm_dni", "--model.sam_rho", "0.1", *accumulated])
    assert ended.value.code == 2
    assert "trainer.accumulate_grad_batches is 2" in capsys.readouterr().err
    assert not Path("runs").exists()
