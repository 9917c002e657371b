import importlib.metadata
import os
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
import wandb
import yaml
from wandb import wandb_agent

from asr_dni.cli.main import main
from asr_dni.configuration import read_layers
from asr_dni.evaluation.loggers.callback import metric_name

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[1]
SWEEPS = sorted((ROOT / "conf" / "sweep").glob("*.yaml"))
DISTRIBUTIONS = {"uniform", "log_uniform_values", "int_uniform"}


def first_point(parameters):
    """Return the first point of a grid; of a range its lower end."""
    return {
        name: {"value": settings["values"][0] if "values" in settings else settings["min"]}
        for name, settings in parameters.items()
    }


class Started:
    """In place of the agent's process."""

    def __init__(self, command=None, env=None, **others):
        self.command, self.env = command, env
        self.last_sigterm_time = None


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Have W&B's own agent start a run of a sweep; return the command and its environment."""

    def start(sweep, run_id="abcd1234"):
        monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
        monkeypatch.setenv("WANDB_RUN_ID", "set again by the agent")
        monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "set again by the agent")
        monkeypatch.setattr(wandb_agent, "AgentProcess", Started)
        agent = wandb_agent.Agent(api=None, queue=None, sweep_id="sweep1")
        agent._sweep_command = list(sweep["command"])
        arguments = first_point(sweep["parameters"])
        agent._command_run({"run_id": run_id, "program": sweep["program"], "args": arguments})
        process = agent._run_processes[run_id]
        return process.command, process.env

    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    return start


@pytest.fixture(autouse=True)
def _restore(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def test_there_are_sweeps_of_both_kinds():
    methods = {yaml.safe_load(path.read_text())["method"] for path in SWEEPS}
    assert methods == {"grid", "bayes"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_is_one_that_can_be_searched(path):
    """By the rules of W&B's reference of sweep files."""
    assert path.read_text().startswith("# ")
    sweep = yaml.safe_load(path.read_text())
    assert set(sweep) <= {
        "name",
        "project",
        "description",
        "method",
        "metric",
        "program",
        "command",
        "parameters",
    }
    assert set(sweep["metric"]) == {"name", "goal"}
    for settings in sweep["parameters"].values():
        listed = "values" in settings
        assert set(settings) == ({"values"} if listed else {"distribution", "min", "max"})
        if listed:
            assert len(set(settings["values"])) == len(settings["values"]) > 1
        else:
            assert sweep["method"] != "grid"  # which has no end with a range
            assert settings["distribution"] in DISTRIBUTIONS
            assert settings["min"] < settings["max"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_agents_command_trains_a_step(path, start, tone_words, tone_cache, tmp_path, monkeypatch):
    """What W&B's agent would run for the first point, up to the shell, with fewer steps and other recordings."""
    sweep = yaml.safe_load(path.read_text())
    command, environment = start(sweep)
    assert command[0] == "/usr/bin/env"
    scripts = importlib.metadata.entry_points(group="console_scripts", name=command[1])
    assert [script.value for script in scripts] == ["asr_dni.cli.main:main"]
    arguments = command[2:]
    experiment = arguments.index("--config") + 1
    arguments[experiment] = str(ROOT / arguments[experiment])  # the agent runs in the repository's root
    assert Path(arguments[experiment]).is_file()
    point = {name: setting["value"] for name, setting in first_point(sweep["parameters"]).items()}
    assert [f"--{name}={value}" for name, value in point.items()] == arguments[-len(point) :]

    options = {
        "runs": tmp_path / "runs",
        "wandb": "offline",
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": 1,
        "data.batch_size": 2000,  # more than there are: one step
        "trainer.check_val_every_n_epoch": 1,
        "noise_curve.sigmas": "[0,2]",
        "noise_curve.draws": 1,
        "noise_curve.validation_draws": 1,
    }
    on_digits = any(
        layer.get("data_class") == "DigitsData" for layer in read_layers(Path(arguments[experiment]))
    )
    if not on_digits:
        options |= {
            "data.source": "asr_dni.data.Folder",
            "data.source.init_args.path": tone_words,
            "data.cache_dir": tone_cache,
        }
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_DIR"):
        monkeypatch.setenv(name, environment[name])
    wandb.teardown()  # an agent starts a process, which has not read the environment before
    try:
        main([*arguments, *(f"--{key}={value}" for key, value in options.items())])
        assert wandb.run.id == "abcd1234"
        assert wandb.run.sweep_id == "sweep1"
        assert sweep["metric"]["name"] in wandb.run.summary.keys()  # noqa: SIM118  it is no mapping
    finally:
        wandb.finish()
        wandb.teardown()  # nor is the sweep that of the tests after this one

    name = arguments[arguments.index("--name") + 1]
    run = tmp_path / "runs" / name / "abcd1234"
    configuration = yaml.safe_load((run / "config.yaml").read_text())
    for key, value in point.items():
        found = configuration
        for part in key.split("."):
            found = found[part]
        assert found == value, key
    assert sweep["metric"]["name"] in pd.read_csv(run / "metrics.csv").columns
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 1


def test_metrics_are_named_as_they_are_logged():
    for path in SWEEPS:
        name = yaml.safe_load(path.read_text())["metric"]["name"]
        split, _, rest = name.partition("/")
        quantity, _, sigma = rest.partition("@")
        assert name == metric_name(split, quantity, float(sigma))
