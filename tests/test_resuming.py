"""A run that is resumed with other settings has those settings, from its first step on."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from asr_dni.cli.run import LastCheckpoint
from asr_dni.data import DigitsData
from asr_dni.model import KeywordSpotter, NetworkSettings, NoiseAnnealing, TrainingNoise, load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")


class Steps(Callback):
    """Writes down what every optimiser's step is taken with."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        (group,) = optimizer.param_groups
        self.seen.append((trainer.global_step, group["lr"], group["weight_decay"], pl_module.sigma_train))


@pytest.fixture
def train(tmp_path):
    def train(name, epochs, checkpoint=None, schedule="cosine", validate_every=1, **optimizer):
        settings = {"lr": 0.1, "momentum": 0.9, **optimizer}
        pl.seed_everything(0, verbose=False)
        data = DigitsData(batch_size=200)
        spotter = KeywordSpotter(
            data.label_names,
            data.n_features,
            NetworkSettings(units=4, layers=1),
            TrainingNoise(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, **settings),
            schedule=schedule,
        )
        steps = Steps()
        trainer = pl.Trainer(
            max_epochs=epochs,
            check_val_every_n_epoch=validate_every,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path / name,
            callbacks=[NoiseAnnealing(sigma=1.0), steps, LastCheckpoint()],
        )
        trainer.fit(spotter, data, ckpt_path=checkpoint)
        return steps.seen, tmp_path / name / "checkpoints" / "last.ckpt"

    return train


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("validate_every", [1, 3])
def test_a_finished_run_that_goes_on_has_the_rates_of_the_longer_run(train, schedule, validate_every):
    options = {"schedule": schedule, "validate_every": validate_every}
    whole, _ = train("whole", 5, **options)
    short, checkpoint = train("short", 2, **options)
    longer, _ = train("longer", 5, checkpoint, **options)
    assert short[-1][1] < 0.02  # it had come to its end
    assert longer == whole[len(short) :]


def test_a_resumed_run_has_the_optimisers_settings_that_it_is_given(train):
    whole, _ = train("whole", 4, lr=0.02, weight_decay=0.5)
    short, checkpoint = train("short", 2)
    resumed, last = train("resumed", 4, checkpoint, lr=0.02, weight_decay=0.5)
    assert resumed == whole[len(short) :]
    noted = load_checkpoint(last)["trainings"][-1]
    assert (noted["optimizer.lr"], noted["optimizer.weight_decay"]) == (0.02, 0.5)
