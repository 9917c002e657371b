import http.server
import json
import os
import socket
import threading
from pathlib import Path

import pytest
import pytorch_lightning as pl
import wandb
from pytorch_lightning.loggers import WandbLogger
from standin_network import MarginData, MarginSpotter
from wandb.sdk.lib.wbauth import unauthenticate_session
from wandb_files import configuration_of, history_rows, summary_of, whole_run

from asr_dni.errors import UserError
from asr_dni.evaluation.loggers.callback import NoiseCurveCallback
from asr_dni.evaluation.loggers.wandb_log import PromptlessWandbLogger, make_wandb_logger
from asr_dni.evaluation.loggers.wandb_mode import resolve_wandb_mode

SIGMAS = [0.0, 0.5, 2.0]


@pytest.fixture(autouse=True)
def _no_login(tmp_path, monkeypatch):
    """Neither the user's login nor their settings; what a test does to the environment is undone."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An offline run that trained and tested, as its file tells it."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("NETRC", str(folder / "netrc"))
        patch.setenv("WANDB_CONFIG_DIR", str(folder / "config"))
        patch.setenv("WANDB_SILENT", "true")
        logger = make_wandb_logger(name="toy", save_dir=str(folder / "runs"))
        callback = NoiseCurveCallback(SIGMAS, draws=4, every_n_epochs=2, watched_sigmas=[0.5])
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=4,
            logger=logger,
            callbacks=[callback],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            log_every_n_steps=1,
        )
        module = MarginSpotter()
        trainer.fit(module, datamodule=MarginData())
        trainer.test(module, datamodule=MarginData(), verbose=False)
        identity = logger.experiment.id
        logger.experiment.finish()
        mode_in_environment = os.environ.get("WANDB_MODE")
    (file,) = (folder / "runs" / "wandb").glob("offline-run-*/*.wandb")
    records = whole_run(file)
    return {
        "records": records,
        "history": history_rows(records),
        "curve": callback.curve,
        "folder": folder / "runs",
        "id": identity,
        "media": file.parent / "files",
        "mode": mode_in_environment,
    }


def test_one_metric_per_level(run):
    for split, levels in (("val", [0.0, 0.5, 2.0]), ("test", [0.0, 0.5, 2.0])):
        for sigma in levels:
            for quantity in ("accuracy", "loss"):
                values = [
                    row[f"{split}/{quantity}@{sigma}"]
                    for row in run["history"]
                    if f"{split}/{quantity}@{sigma}" in row
                ]
                # Four epochs; the curve in every second one, and its watched level in all.
                assert len(values) == {"test": 1, "val": 4 if sigma == 0.5 else 2}[split]
    accuracy = next(row["test/accuracy@2.0"] for row in run["history"] if "test/accuracy@2.0" in row)
    assert accuracy == pytest.approx(run["curve"].summary().frame["accuracy"][2], rel=1e-6)


def test_curve_is_a_series_over_sigma(run):
    for split in ("val", "test"):
        prefix = f"noise_curve/{split}"
        rows = [row for row in run["history"] if f"{prefix}/accuracy" in row]
        assert [row[f"{prefix}/sigma_infer"] for row in rows] == SIGMAS  # one curve, not one per epoch
        for name in ("accuracy_low", "accuracy_high", "loss"):
            assert all(f"{prefix}/{name}" in row for row in rows)
    summary = run["curve"].summary().frame
    assert [row["noise_curve/test/accuracy"] for row in rows] == pytest.approx(summary["accuracy"].tolist())
    assert [row["noise_curve/test/accuracy_low"] for row in rows] == pytest.approx(summary["low"].tolist())


def test_the_series_has_its_own_axis(run):
    metrics = [record.metric for record in run["records"] if record.WhichOneof("record_type") == "metric"]
    steps = {metric.name: metric.step_metric for metric in metrics if metric.name}
    assert steps["noise_curve/test/accuracy"] == "noise_curve/test/sigma_infer"
    assert steps["noise_curve/val/loss"] == "noise_curve/val/sigma_infer"


def media(run, key):
    (path,) = [row[f"{key}/path"] for row in run["history"] if f"{key}/path" in row]
    return json.loads((run["media"] / path).read_text(encoding="utf-8"))


def test_table_has_every_row(run):
    table, frame = media(run, "test/noise_curve_table"), run["curve"].frame
    assert table["columns"] == list(frame.columns)
    assert len(table["data"]) == 1 + 4 + 4
    by_name = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["accuracy"] for row in by_name] == pytest.approx(frame["accuracy"].tolist())
    assert [row["strength"] for row in by_name] == frame["strength"].tolist()


def test_chart_is_the_curve(run):
    """W&B's own line series: its panel is in the run's configuration, its numbers are a table."""
    table, summary = media(run, "test/noise_curve_chart_table"), run["curve"].summary().frame
    for line, column in {"accuracy": "accuracy", "lower bound": "low", "upper bound": "high"}.items():
        points = [(x, y) for x, name, y in table["data"] if name == line]
        assert [x for x, _ in points] == SIGMAS
        assert [y for _, y in points] == pytest.approx(summary[column].tolist())
    configured = configuration_of(run["records"])
    panel = configured["_wandb/visualize/test/noise_curve_chart"]["panel_config"]
    assert panel["panelDefId"] == "wandb/lineseries/v0"
    assert panel["stringSettings"]["xname"] == "inference noise σ_infer (absolute: pre-activation units)"


def test_key_figures_are_in_the_summary(run):
    summary = summary_of(run["records"])
    frame = run["curve"].summary().frame
    assert summary["test/clean_accuracy"] == pytest.approx(frame["accuracy"][0])
    assert summary["test/midpoint"] == pytest.approx(run["curve"].midpoint())


def test_the_run_is_offline_and_leaves_the_environment_alone(run):
    assert run["mode"] is None
    assert (run["folder"] / "asr-dni" / run["id"] / "noise_curve.csv").exists()


def test_offline_without_login():
    assert resolve_wandb_mode() == "offline"
    assert make_wandb_logger(save_dir="runs").mode == "offline"


def test_online_with_a_key(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert resolve_wandb_mode() == "online"


def test_online_with_netrc(tmp_path):
    host = wandb.Settings().base_url.removeprefix("https://")
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert resolve_wandb_mode() == "online"


@pytest.mark.parametrize(
    ("chosen", "mode"), [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")]
)
def test_the_environments_choice_stands(monkeypatch, chosen, mode):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", chosen)
    assert resolve_wandb_mode() == mode


def test_the_arguments_choice_goes_first(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_wandb_mode("disabled") == "disabled"
    assert PromptlessWandbLogger(save_dir="runs", mode="disabled").mode == "disabled"
    assert PromptlessWandbLogger(save_dir="runs", offline=True).mode == "offline"


def test_online_without_login_is_refused_instead_of_asking(monkeypatch):
    with pytest.raises(UserError, match="there is no login"):
        resolve_wandb_mode("online")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(UserError, match="WANDB_MODE=offline"):
        make_wandb_logger()


def test_unknown_mode(monkeypatch):
    with pytest.raises(UserError, match="'sometimes' is not known"):
        resolve_wandb_mode("sometimes")
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    with pytest.raises(UserError, match=r"WANDB_MODE is 'nonsense': .*'online'") as raised:
        resolve_wandb_mode()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("WANDB_INIT_TIMEOUT", "soon"), ("WANDB_RESUME", "perhaps"), ("WANDB_SILENT", "so")],
)
def test_a_setting_in_the_environment_that_is_not_valid(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"^W&B: {variable} is '{value}': ") as raised:
        make_wandb_logger()
    assert "\n" not in str(raised.value)


def test_disabled_by_the_environments_other_variable(monkeypatch):
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert make_wandb_logger().mode == "disabled"


@pytest.fixture
def closed_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def logged_out():
    """W&B remembers a login for as long as the process lives."""
    yield
    unauthenticate_session()


@pytest.fixture
def server(logged_out):
    """A server on this machine that answers every request with the same status: 401, a key that is refused."""

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("chosen", [None, "online"])
def test_offline_where_there_is_a_key_but_no_network(monkeypatch, caplog, closed_port, chosen):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port}")
    logger = make_wandb_logger(mode=chosen)
    assert logger.mode == "offline"
    (said,) = caplog.messages
    assert f"http://127.0.0.1:{closed_port} cannot be reached" in said
    assert "this run is offline" in said
    assert "\n" not in said


def test_online_where_a_server_answers(monkeypatch, caplog, server):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    assert make_wandb_logger().mode == "online"
    assert caplog.messages == []


@pytest.mark.slow
def test_offline_where_a_server_accepts_and_never_answers(monkeypatch, caplog):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert make_wandb_logger().mode == "offline"
    assert "timed out" in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_offline_where_the_key_is_refused(monkeypatch, caplog, server, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    logger = make_wandb_logger(save_dir=str(tmp_path / "runs"))
    logger.log_metrics({"loss": 1.0})
    assert logger.mode == "offline"
    assert logger.experiment.offline
    logger.experiment.finish()
    assert list((tmp_path / "runs" / "wandb").glob("offline-run-*/*.wandb"))
    (said,) = [message for message in caplog.messages if message.startswith("W&B: ")]
    assert "\n" not in said


def test_a_key_that_is_none(monkeypatch, caplog, server):
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert make_wandb_logger().mode == "offline"
    (said,) = caplog.messages
    assert said.startswith("W&B: WANDB_API_KEY cannot be a key (")
    assert "short" not in said.replace("too short", "")


def begun(logger):
    """What W&B was told of a run that is begun and ended."""
    run = logger.experiment
    run.finish()
    (file,) = Path(run.settings.wandb_dir).glob(f"offline-run-*-{run.id}/*.wandb")
    (record,) = [r.run for r in whole_run(file) if r.WhichOneof("record_type") == "run"][:1]
    return record


def test_project_name_and_identity_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_NAME", "named")
    monkeypatch.setenv("WANDB_RUN_ID", "fixed1")
    monkeypatch.setenv("WANDB_RESUME", "never")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "all"))
    logger = make_wandb_logger(name="ours", save_dir=str(tmp_path / "one"))
    record = begun(logger)
    assert (record.project, record.display_name, record.run_id) == ("theirs", "named", "fixed1")
    assert logger.experiment.settings.resume == "never"
    assert list((tmp_path / "all" / "wandb").glob("offline-run-*"))
    assert not (tmp_path / "one").exists()
    assert make_wandb_logger("given").name == "given"  # what is said here wins over the environment


def test_without_them_they_are_our_own(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    record = begun(make_wandb_logger(name="ours", save_dir=str(tmp_path / "one")))
    assert (record.project, record.display_name) == ("asr-dni", "ours")
    assert list((tmp_path / "one" / "wandb").glob("offline-run-*"))


def test_a_sweeps_agent_does_not_choose_the_folder(monkeypatch, tmp_path):
    """It sets WANDB_DIR to where it was started."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "agent"))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    make_wandb_logger(save_dir=str(tmp_path / "run"))
    assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "agent").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(monkeypatch, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "locked"))
    with pytest.raises(UserError, match="locked: W&B's files cannot be written"):
        make_wandb_logger()


def test_it_is_a_wandb_logger():
    logger = make_wandb_logger("project", "name", "runs", tags=["a"])
    assert isinstance(logger, WandbLogger)
    assert logger.name == "project"
    assert Path("runs").is_dir()
