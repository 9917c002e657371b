"""Every setting of Lightning's trainer works, or gets one line before anything is written."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from asr_dni.cli.main import main

pytestmark = [pytest.mark.filterwarnings("ignore")]

DATA = ["--data_class", "DigitsData", "--data.batch_size", "400"]
NETWORK = ["--model.network.units", "4", "--model.network.layers", "1"]
CURVE = ["--noise_curve.draws", "1", "--noise_curve.sigmas", "0,1"]
TRAINER = ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--wandb", "disabled"]
FIT = ["fit", *DATA, *NETWORK, *CURVE, *TRAINER]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
    return tmp_path


REFUSED = {
    "--trainer.precision 16-true": "give 16-mixed or bf16-true",
    "--trainer.accumulate_grad_batches 0": "accumulate_grad_batches is 0: give 1 or more",
    "--trainer.accumulate_grad_batches -1": "accumulate_grad_batches is -1: give 1 or more",
    "--trainer.gradient_clip_val -0.5": "gradient_clip_val is -0.5: give 0 or more",
    "--trainer.check_val_every_n_epoch 0": "check_val_every_n_epoch is 0: give 1 or more",
    "--trainer.check_val_every_n_epoch -1": "check_val_every_n_epoch is -1",
    "--trainer.val_check_interval 0": "val_check_interval is 0",
    "--trainer.val_check_interval 100": "number of the training batches (3)",
    "--trainer.num_sanity_val_steps -5": "num_sanity_val_steps is -5",
    "--trainer.limit_train_batches 0": "nothing is trained",
    "--trainer.limit_train_batches -1": "invalid value -1 for limit_train_batches",
    "--trainer.log_every_n_steps -1": "log_every_n_steps is -1",
    "--trainer.reload_dataloaders_every_n_epochs -1": "reload_dataloaders_every_n_epochs is -1",
    "--trainer.min_epochs -3": "min_epochs is -3",
    "--trainer.num_nodes 0": "num_nodes is 0",
    "--trainer.devices 0": "devices is 0",
    "--trainer.devices 5000": "devices is 5000: on the CPU each is a process",
    "--trainer.devices nonsense": "should be an int > 0",
    "--trainer.strategy fsdp": "give one of auto, ddp",
    "--trainer.strategy ddp_spawn": "give one of auto, ddp",
    "--trainer.strategy nonsense": "give one of auto, ddp",
    "--trainer.profiler nonsense": "it can only be one of",
    "--trainer.callbacks BatchSizeFinder": "give data.batch_size",
    "--trainer.callbacks LearningRateFinder": "give model.optimizer.init_args.lr",
    "--trainer.callbacks BackboneFinetuning": "leave it out",
    "--trainer.callbacks ModelPruning --trainer.callbacks.pruning_fn l1_unstructured": "leave it out",
    "--trainer.callbacks StochasticWeightAveraging --trainer.callbacks.swa_lrs -1": "swa_lrs",
    "--trainer.gradient_clip_algorithm nonsense": "nonsense",
    "--trainer.max_time nonsense": "nonsense",
    "--trainer.fast_dev_run -1": "fast_dev_run=-1",
    "--trainer.callbacks LearningRateMonitor --trainer.logger false": "has no logger",
    "--trainer.callbacks nonsense": "nonsense",
}
if find_spec("transformer_engine") is None:
    REFUSED["--trainer.precision transformer-engine"] = "transformer_engine"
if find_spec("tensorboard") is None and find_spec("tensorboardX") is None:
    REFUSED["--trainer.logger TensorBoardLogger --trainer.logger.save_dir here"] = "tensorboard"


# Numbers out of range, of which all go through one table, and names that the parser knows the list of.
_ALIKE = re.compile(
    r"-[135]$|num_nodes 0|strategy (nonsense|ddp_spawn)|(algorithm|max_time|devices) nonsense"
)
_FIRST = ("--trainer.accumulate_grad_batches -1", "--trainer.fast_dev_run -1", "swa_lrs -1")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(o, marks=[pytest.mark.slow] if _ALIKE.search(o) and not o.endswith(_FIRST) else [])
        for o in REFUSED
    ],
)
def test_what_cannot_work_gets_one_line(options, here, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*FIT, *options.split()])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"asr-dni: error: [^\n]+\n", said), said
    assert REFUSED[options] in said
    assert not list(here.rglob("*.ckpt"))


_FAST = (
    "--trainer.callbacks Timer --trainer.callbacks.duration 00:00:10:00",
    "--trainer.accumulate_grad_batches 2",
)
WORKS = (
    *_FAST,
    "--trainer.precision 16-mixed",
    "--trainer.precision 64",
    "--trainer.overfit_batches 1",
    "--trainer.num_sanity_val_steps 2",
    "--trainer.num_sanity_val_steps -1",
    "--trainer.val_check_interval 0.5",
    "--trainer.val_check_interval 5 --trainer.check_val_every_n_epoch null",
    "--trainer.detect_anomaly true",
    "--trainer.deterministic true",
    "--trainer.logger true",
    "--trainer.logger CSVLogger --trainer.logger.save_dir here",
    "--trainer.profiler simple",
    "--trainer.profiler advanced",
    "--trainer.max_time 00:00:10:00",
    "--trainer.max_epochs null --trainer.max_steps 7",
    "--trainer.max_steps 3",
    "--trainer.min_epochs 3",
    "--trainer.accumulate_grad_batches 100",
    "--trainer.gradient_clip_val 0.5 --trainer.gradient_clip_algorithm value",
    "--trainer.inference_mode false",
    "--trainer.enable_model_summary true --trainer.enable_progress_bar true",
    "--trainer.reload_dataloaders_every_n_epochs 1",
    "--data.batch_size 5000",
    "--model.optimizer torch.optim.LBFGS --model.optimizer.lr 0.1",
    "--model.optimizer torch.optim.SGD --model.optimizer.lr 0.1 --model.optimizer.momentum 0.9",
    "--trainer.callbacks Timer",
    "--trainer.callbacks EarlyStopping --trainer.callbacks.monitor val/loss",
    "--trainer.callbacks LearningRateMonitor",
    "--trainer.callbacks RichProgressBar",
    "--trainer.callbacks TQDMProgressBar",
    "--trainer.callbacks DeviceStatsMonitor",
    "--trainer.callbacks LambdaCallback",
)


@pytest.mark.parametrize(
    "options", [pytest.param(o, marks=[] if o in _FAST else [pytest.mark.slow]) for o in WORKS]
)
def test_what_works_ends_with_a_curve_and_can_be_resumed(options, here, capsys):
    main([*FIT, *options.split()])
    said = capsys.readouterr().out
    assert re.search(r"accuracy \d+\.\d %, loss \d\.\d+, without noise", said), said
    (curve,) = here.rglob("noise_curve.csv")
    frame = pd.read_csv(curve, comment="#")
    assert frame["strength"].tolist() == [0, 1]
    assert frame["loss"].between(0, 4).all()
    last = next(here.rglob("last.ckpt"))
    assert not any("Unable to serialize" in path.read_text() for path in here.rglob("config.yaml"))
    main(["test", "--ckpt_path", str(last), "--wandb", "disabled", "--runs", str(Path("again"))])
