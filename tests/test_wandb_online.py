"""W&B online, and uploading later, as the client does it, against a server on this machine that stands in for W&B's."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import pytorch_lightning as pl
import wandb
from filelock import FileLock
from standin_network import MarginData, MarginSpotter
from wandb.sdk.lib.wbauth import unauthenticate_session
from wandb_files import configuration_of, whole_run
from wandb_server import standing_in

from asr_dni.cli.main import main
from asr_dni.evaluation import NoiseCurve
from asr_dni.evaluation.loggers.callback import NoiseCurveCallback
from asr_dni.evaluation.loggers.wandb_log import log_checkpoint, make_wandb_logger, use_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")

SIGMAS = [0.0, 2.0]


def environment_of(folder, server=None, key=True):
    """Neither the user's login nor their settings."""
    login = {"WANDB_BASE_URL": server.url if server else "http://127.0.0.1:9"}
    login |= {"WANDB_API_KEY": "0" * 40} if key else {}
    folders = {"WANDB_DATA_DIR": folder / "data", "WANDB_CACHE_DIR": folder / "cache"}
    own = {"HOME": folder, "NETRC": folder / "netrc", "WANDB_CONFIG_DIR": folder / "config", **folders}
    return login | {"WANDB_SILENT": "true"} | {name: str(path) for name, path in own.items()}


def enter(patch, variables):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        patch.delenv(name)
    for name, value in variables.items():
        patch.setenv(name, value)


def forget_session():
    unauthenticate_session()
    wandb.teardown()


@contextmanager
def fresh_client():
    """Have W&B's client forget login, server and settings, before and after: it keeps them as long as the process."""
    forget_session()
    yield
    forget_session()


def train(folder, **options):
    """Train and test a small network with W&B, log its checkpoint, and end the run; return curve and run's id."""
    logger = make_wandb_logger(name="toy", save_dir=str(folder), group="study", job_type="train", **options)
    callback = NoiseCurveCallback(SIGMAS, draws=2, every_n_epochs=0)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=logger, callbacks=[callback], log_every_n_steps=1, **quiet
    )
    module = MarginSpotter()
    trainer.fit(module, datamodule=MarginData())
    trainer.test(module, datamodule=MarginData(), verbose=False)
    trainer.save_checkpoint(folder / "last.ckpt")
    log_checkpoint(logger, folder / "last.ckpt", callback.curve.summary().key_figures())
    identity = logger.experiment.id
    logger.experiment.finish()
    return callback.curve, identity


@pytest.fixture(scope="module")
def online(tmp_path_factory):
    """A run that trains online, then one that evaluates its checkpoint; the server, the curve and both ids."""
    folder = tmp_path_factory.mktemp("online")
    with pytest.MonkeyPatch.context() as patch, standing_in() as server, fresh_client():
        enter(patch, environment_of(folder, server))
        patch.chdir(folder)
        curve, training = train(folder)
        logger = make_wandb_logger(name="again", save_dir=str(folder), job_type="evaluate")
        assert use_checkpoint(logger, folder / "last.ckpt", training)
        evaluation = logger.experiment.id
        logger.experiment.finish()
        yield server, curve, training, evaluation


def series(rows, quantity, split="test"):
    prefix = f"noise_curve/{split}"
    return [
        (row[f"{prefix}/sigma_infer"], row[f"{prefix}/{quantity}"])
        for row in rows
        if f"{prefix}/{quantity}" in row
    ]


def assert_is_the_curve(rows, curve):
    summary = curve.summary().frame
    for quantity, column in (("accuracy", "accuracy"), ("accuracy_low", "low"), ("loss", "loss")):
        expected = list(zip(SIGMAS, summary[column], strict=True))
        assert [pytest.approx(point) for point in series(rows, quantity)] == expected


def test_the_curve_arrives_online(online):
    server, curve, training, _ = online
    assert_is_the_curve(server.history[training], curve)
    accuracy = [row["test/accuracy@2.0"] for row in server.history[training] if "test/accuracy@2.0" in row]
    assert accuracy == [pytest.approx(curve.summary().frame["accuracy"][1], rel=1e-6)]
    assert server.ended[training] == 0


def test_the_run_has_its_group_job_type_and_metrics_axes(online):
    server, _, training, evaluation = online
    told = server.runs[training]
    assert (told["project"], told["groupName"], told["jobType"]) == ("asr-dni", "study", "train")
    assert server.runs[evaluation]["jobType"] == "evaluate"
    metrics = json.loads(told["config"])["_wandb"]["value"]["m"]
    by_name = {metric["1"]: metric for metric in metrics if "1" in metric}
    step = by_name["noise_curve/test/accuracy"]["5"]  # the number of the metric that is its axis, from 1
    assert metrics[step - 1]["1"] == "noise_curve/test/sigma_infer"


def test_a_checkpoint_is_an_artifact_and_the_evaluation_its_user(online):
    server, curve, training, evaluation = online
    (name,) = [
        name for name in server.created if name.startswith(f"model-{training}:")
    ]  # one, though logged twice
    metadata = json.loads(server.created[name]["metadata"])
    assert metadata == pytest.approx(curve.summary().key_figures())
    assert server.files[f"{name}/last.ckpt"][:2] == b"PK"  # as torch writes
    assert server.used == [(evaluation, name)]


def test_the_client_asks_nothing_that_the_stand_in_does_not_know(online):
    """What it asks beside and goes on without; anything else would be a path that is not tested."""
    assert online[0].unknown <= {
        "OrganizationCoreWeaveOrganizationID",
        "ArtifactType",
        "FetchArtifactDigestAlgorithm",
    }


def test_a_noise_curve_is_a_run_that_uses_the_checkpoint(
    checkpoint, spoken, server, monkeypatch, tmp_path, capfd
):
    """Of a training whose folder holds a W&B run; it need not have been uploaded."""
    run = tmp_path / "runs" / "words" / "version_0"
    (run / "checkpoints").mkdir(parents=True)
    trained = run / "checkpoints" / "last.ckpt"
    trained.write_bytes(checkpoint.read_bytes())
    (run / "config.yaml").write_text("name: words\n")
    (run / "wandb" / "offline-run-20260101_000000-training1").mkdir(parents=True)
    enter(monkeypatch, environment_of(tmp_path, server))
    options = ["--data", str(spoken), "--sigmas", "0,2", "--draws", "2", "--output", str(tmp_path / "curve")]
    main(["noise-curve", str(trained), *options, "--wandb", "auto"])
    assert f"W&B: {server.url}/team/asr-dni/runs/" in capfd.readouterr().out
    ((identity, told),) = server.runs.items()
    assert (told["groupName"], told["jobType"], told["displayName"]) == ("words", "evaluate", "curve")
    assert_is_the_curve(server.history[identity], NoiseCurve.from_csv(tmp_path / "curve" / "noise_curve.csv"))
    ((user, name),) = server.used
    assert (user, name.partition(":")[0]) == (identity, "model-training1")
    assert server.files[f"{name}/last.ckpt"] == checkpoint.read_bytes()


def test_offline_a_noise_curve_names_the_checkpoint_in_its_configuration(
    checkpoint, spoken, monkeypatch, tmp_path
):
    """W&B's client takes no use of an artifact offline."""
    (tmp_path / "wandb" / "run-20260101_000000-training1").mkdir(parents=True)
    trained = tmp_path / "checkpoints" / "last.ckpt"
    trained.parent.mkdir()
    trained.write_bytes(checkpoint.read_bytes())
    enter(monkeypatch, environment_of(tmp_path, key=False))
    options = ["--data", str(spoken), "--sigmas", "0", "--draws", "1", "--output", str(tmp_path / "curve")]
    main(["noise-curve", str(trained), *options, "--wandb", "offline"])
    (file,) = tmp_path.glob("curve/wandb/offline-run-*/*.wandb")
    assert configuration_of(whole_run(file))["uses_artifact"] == "model-training1"

    options = ["--data", str(spoken), "--strengths", "0,1", "--draws", "1", "--only", "classes,clips"]
    main(["evaluate", str(trained), *options, "--figures", "false", "--wandb", "offline"])
    (file,) = tmp_path.glob("evaluation*/wandb/offline-run-*/*.wandb")
    records = whole_run(file)
    assert configuration_of(records)["curve"]["hardware_name"] == "gaussian"
    tables = {
        item.path.rpartition("/")[2].partition("_")[0] for record in records for item in record.files.files
    }
    assert {"classes", "clips"} <= tables


@pytest.fixture
def server():
    with standing_in() as server, fresh_client():
        yield server


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Two runs that were logged offline, below one folder."""
    folder = tmp_path_factory.mktemp("offline")
    with pytest.MonkeyPatch.context() as patch, fresh_client():
        enter(patch, environment_of(folder, key=False))
        patch.chdir(folder)
        curves = {}
        for name in ("one", "two"):
            run = folder / "runs" / "study" / name
            curve, identity = train(run)
            curves[identity] = curve
            (file,) = run.glob("wandb/offline-run-*/*.wandb")
            whole_run(file)
    return folder, curves


def forget(folder):
    for marker in folder.rglob("*.wandb.sync*"):
        marker.unlink()


def test_offline_runs_are_uploaded_once(offline, server, monkeypatch, capfd):
    folder, curves = offline
    forget(folder)
    enter(monkeypatch, {**environment_of(folder, server), "WANDB_MODE": "offline", "WANDB_RUN_ID": "other"})
    main(["wandb", "sync", str(folder / "runs")])
    said = capfd.readouterr().out
    assert said.startswith("2 runs to upload\n")
    assert said.endswith("2 runs uploaded\n")
    assert set(server.runs) == set(curves)
    for identity, curve in curves.items():
        assert_is_the_curve(server.history[identity], curve)
        assert server.runs[identity]["groupName"] == "study"
        assert any(name.startswith(f"model-{identity}:") for name in server.created)
    server.runs.clear()
    main(["wandb", "sync", str(folder / "runs")])
    assert capfd.readouterr().out == "0 runs to upload, 2 uploaded already\n"
    assert not server.runs
    main(["wandb", "sync", str(folder / "runs" / "study" / "one"), "--again", "true", "--project", "renamed"])
    assert capfd.readouterr().out.startswith("1 run to upload\n")
    assert [told["project"] for told in server.runs.values()] == ["renamed"]


def test_a_run_that_is_being_written_waits(offline, server, monkeypatch, capfd):
    """Uploading it now would mark it as uploaded."""
    folder, _ = offline
    forget(folder)
    enter(monkeypatch, environment_of(folder, server))
    with FileLock(folder / "runs" / "study" / "one" / ".lock"):
        main(["wandb", "sync", str(folder / "runs"), "--dry_run", "true"])
    said = capfd.readouterr().out
    assert said.startswith("1 run to upload, 1 still being written\n")
    assert "study/two/wandb/offline-run" in said
    assert not server.asked


def refused(arguments, capfd):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    return line


def test_without_a_login_or_a_network_it_says_so_in_a_line(offline, monkeypatch, capfd):
    folder, _ = offline
    forget(folder)
    enter(monkeypatch, environment_of(folder, key=False))
    for command in (["sync", str(folder / "runs")], ["workspace"]):
        assert "there is no login at http://127.0.0.1:9: run `wandb login`" in refused(
            ["wandb", *command], capfd
        )
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    for command in (["sync", str(folder / "runs")], ["workspace"]):
        assert "http://127.0.0.1:9 cannot be reached" in refused(["wandb", *command], capfd)
    assert not list(folder.rglob("*.synced"))
    assert "there is no such folder" in refused(["wandb", "sync", str(folder / "nowhere")], capfd)


def test_status_says_what_waits(offline, monkeypatch, capfd):
    folder, _ = offline
    forget(folder)
    enter(monkeypatch, environment_of(folder, key=False))
    main(["wandb", "status", str(folder / "runs")])
    said = capfd.readouterr().out
    assert "there is no login" in said
    assert "runs are logged: offline" in said
    assert f"offline runs below {folder / 'runs'}: 2 waiting" in said


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_upload_goes_on_after_an_interruption(offline, monkeypatch, tmp_path, capfd):
    """The server goes away in the middle: nothing is marked that did not arrive."""
    folder, curves = offline
    forget(folder)
    with socket.socket() as silent:  # accepts, and never answers the upload
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        variables = {
            **environment_of(folder),
            "WANDB_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        runs = [str(path) for path in folder.rglob("offline-run-*")]
        command = [sys.executable, "-m", "wandb", "sync", "--yes", *runs]
        client = subprocess.Popen(command, env={**os.environ, **variables, "WANDB_MODE": "online"})
        time.sleep(5)
        client.send_signal(signal.SIGINT)
        client.wait(60)
    assert not list(folder.rglob("*.synced"))
    with standing_in() as server:
        enter(monkeypatch, environment_of(folder, server))
        main(["wandb", "sync", str(folder / "runs")])
        assert set(server.runs) == set(curves)


def test_a_workspace_is_built(server, monkeypatch, tmp_path, capfd):
    enter(monkeypatch, environment_of(tmp_path, server))
    main(["wandb", "workspace", "--project", "digits", "--output", str(tmp_path / "spec.json")])
    said = capfd.readouterr().out
    assert f"W&B: {server.url}/team/digits?nw=" in said
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == (
        "team",
        "digits",
        "Noise curves",
    )
    written = json.loads((tmp_path / "spec.json").read_text())
    assert json.loads(view["spec"]) == written["spec"]
    address = said.rpartition("W&B: ")[2].strip()
    main(["wandb", "workspace", "--project", "digits", "--replace", address, "--name", "Drift"])
    assert [view.get("id") for view in server.views] == [None, "view"]
    assert server.views[1]["name"] == server.views[0]["name"]
    assert server.views[1]["displayName"] == "Drift"


def panels_of(specification):
    sections = specification["spec"]["section"]["panelBankConfig"]["sections"]
    return [panel for section in sections for panel in section["panels"]]


def test_the_workspaces_panels_show_what_is_logged(online, tmp_path, monkeypatch, capfd):
    """Each name in a panel is one that a run has."""
    server, _, training, _ = online
    monkeypatch.setenv("WANDB_MODE", "offline")
    output = tmp_path / "spec.json"
    main(["wandb", "workspace", "--dry_run", "true", "--output", str(output)])
    specification = json.loads(output.read_text())
    lines = [
        panel["config"] for panel in panels_of(specification) if panel["viewType"] == "Run History Line Plot"
    ]
    logged = {name for row in server.history[training] for name in row}
    overlaid = [line for line in lines if line.get("xAxis", "").startswith("noise_curve/test/")]
    assert {name for line in overlaid for name in [line["xAxis"], *line["metrics"]]} <= logged
    assert any(line.get("groupBy") for line in overlaid)
    assert all(line.get("smoothingType") == "none" for line in overlaid)


def test_a_workspace_of_another_strength(capfd):
    main(["wandb", "workspace", "--dry_run", "true", "--strengths", "output.sigma,adc.bits"])
    specification = json.loads(capfd.readouterr().out)
    axes = {panel["config"].get("xAxis") for panel in panels_of(specification)}
    assert {"noise_curve/test/sigma_infer", "noise_curve/test/adc_bits", "noise_curve/val/adc_bits"} <= axes


def test_what_the_server_refuses_is_a_line(server, monkeypatch, tmp_path, capfd):
    server.on_UpsertView2 = lambda **view: None
    enter(monkeypatch, environment_of(tmp_path, server))
    assert "UpsertView2" in refused(["wandb", "workspace", "--project", "digits"], capfd)
