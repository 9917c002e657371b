"""What the pages *run* and *try* of the dashboard say and compute, without a browser."""

import io
import math
import shlex
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from dash import html
from recordings import tone, write
from trained import train

from asr_dni.catalogue import Catalogue
from asr_dni.cli.main import main
from asr_dni.dashboard import run_clips, run_tabs
from asr_dni.dashboard.app import make_app
from asr_dni.dashboard.exports import export, figure_frame
from asr_dni.dashboard.links import State
from asr_dni.dashboard.listening import MOST_BYTES, Uploads, as_wav, clip_of_upload
from asr_dni.dashboard.measurements import Measurements
from asr_dni.dashboard.measuring_run import measuring
from asr_dni.dashboard.networks import Networks
from asr_dni.dashboard.run_clips import position_of
from asr_dni.dashboard.run_facts import commands_of, files_of, settings_beside
from asr_dni.dashboard.run_figures import evaluations_with
from asr_dni.dashboard.services import services_of
from asr_dni.dashboard.trying import Trial, dial_of, hardware_choices, run_trial
from asr_dni.dashboard.views.run import shown_of
from asr_dni.data import DigitsData
from asr_dni.errors import UserError
from asr_dni.evaluation.questions.clips import breaking_points
from asr_dni.noise import Noise


def clips_table(shares: dict[int, list[float]], levels=(0.0, 1.0, 2.0)) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "clip": clip,
                "path": f"yes/{clip}.wav",
                "label": "yes",
                "strength": level,
                "correct_share": share,
                "margin": 2 * share - 1,
                "predicted": "yes" if share > 0.5 else "no",
            }
            for clip, values in shares.items()
            for level, share in zip(levels, values, strict=True)
        ]
    )


def test_clips_are_ordered_by_how_soon_noise_breaks_them():
    shares = {
        1: [1.0, 1.0, 0.9],
        2: [1.0, 0.9, 0.1],
        3: [1.0, 0.2, 0.1],
        4: [0.0, 0.0, 0.3],
    }
    order = breaking_points(clips_table(shares)).set_index("clip")
    assert order.index[order["right"]].tolist() == [3, 2, 1]
    assert order["breaks_at"][[4, 3, 2]].tolist() == [0.0, 1.0, 2.0]
    assert math.isnan(order["breaks_at"][1])
    assert order["predicted"][[4, 3, 2]].tolist() == ["no", "no", "no"]


def test_noise_may_grow_as_the_strength_falls():
    """Few bits are noisy."""
    table = clips_table({1: [0.1, 0.9, 1.0], 2: [0.0, 0.1, 1.0], 3: [0.9, 0.9, 0.9]}, levels=(3.0, 4.0, 8.0))
    order = breaking_points(table)
    assert order["clip"].tolist() == [2, 1, 3]
    assert order["breaks_at"].tolist()[:2] == [4.0, 3.0]
    assert order["right"].all()


CONFIGURATION = """
seed_everything: {seed}
name: mine
model:
  network: {{cell: {cell}, units: 8}}
  noise: {{sites: [input, output], hardware: null}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoint, spoken):
    """Two runs with the same checkpoint, one of which is damaged; the recordings are gone."""
    root = tmp_path_factory.mktemp("results")
    for name, cell, seed in (("lstm/version_0", "lstm", 1), ("a gru/version_0", "gru", 2)):
        run = root / name
        (run / "checkpoints").mkdir(parents=True)
        (run / "config.yaml").write_text(CONFIGURATION.format(cell=cell, seed=seed))
        shutil.copy(checkpoint, run / "checkpoints" / "last.ckpt")
        (run / "wandb").mkdir()
        (run / "wandb" / "log.txt").write_text("x")
    path = root / "a gru/version_0/checkpoints/last.ckpt"
    path.write_bytes(path.read_bytes()[:500] + b"\0" * 500 + path.read_bytes()[1000:])
    return root


@pytest.fixture(scope="module")
def catalogue(folder):
    return Catalogue(folder)


def test_settings_stand_beside_another_runs(catalogue):
    run, other = catalogue.run("lstm/version_0"), catalogue.run("a gru/version_0")
    alone = settings_beside(run)
    assert not alone["differs"].any()
    assert alone.set_index("setting")["value"]["model.noise.sites"] == '["input", "output"]'
    assert alone.set_index("setting")["value"]["model.noise.hardware"] == "null"
    beside = settings_beside(run, other)
    differing = beside[beside["differs"]].set_index("setting")
    assert set(differing.index) == {"seed_everything", "model.network.cell"}
    assert tuple(differing.loc["model.network.cell", ["value", "other"]]) == ("lstm", "gru")


def test_commands_are_those_of_the_shell(catalogue, folder):
    commands = commands_of(catalogue.run("a gru/version_0"), folder)
    assert commands["Go on with it"] == "asr-dni fit --ckpt_path 'a gru/version_0/checkpoints/last.ckpt'"
    assert commands["Repeat it"] == "asr-dni fit --config 'a gru/version_0/config.yaml'"
    assert commands["Repeat it with another seed"].endswith("--seed_everything 3")
    assert commands["Evaluate it"] == "asr-dni evaluate 'a gru/version_0/checkpoints/last.ckpt'"
    elsewhere = commands_of(catalogue.run("lstm/version_0"), folder / "nowhere")
    assert str(folder / "lstm/version_0/config.yaml") in elsewhere["Repeat it"]


def words_of(part) -> str:
    """What a part of a page says, a piece a line."""
    if isinstance(part, list | tuple):
        return "\n".join(map(words_of, part))
    return words_of(getattr(part, "children", None) or "") if hasattr(part, "to_plotly_json") else str(part)


def test_commands_are_run_where_the_dashboard_was_started(catalogue, folder, monkeypatch):
    """Relative paths of a run's data count from there."""
    shown = shown_of(State("run", {"run": ("lstm/version_0",)}), services_of(catalogue))
    monkeypatch.chdir(folder.parent)
    text = words_of(html.Div(run_tabs.overview(shown, State("run"), "light")))
    assert f"In {folder.parent}, where the dashboard was started" in text
    assert f"asr-dni evaluate {folder.name}/lstm/version_0/checkpoints/last.ckpt" in text.splitlines()
    (folder.parent / "elsewhere").mkdir()
    monkeypatch.chdir(folder.parent / "elsewhere")
    text = words_of(run_tabs.not_measured(shown))
    assert f"asr-dni evaluate {folder}/lstm/version_0/checkpoints/last.ckpt" in text.splitlines()


def test_files_are_the_runs_own(catalogue):
    assert files_of(catalogue.run("lstm/version_0"))["file"].tolist() == [
        "checkpoints/last.ckpt",
        "config.yaml",
    ]


@pytest.fixture(scope="module")
def networks():
    return Networks(most=2)


@pytest.fixture(scope="module")
def network(networks, folder):
    return networks.get(folder / "lstm/version_0/checkpoints/last.ckpt")


def test_networks_are_kept_until_their_file_changes(networks, folder, network, tmp_path):
    path = folder / "lstm/version_0/checkpoints/last.ckpt"
    assert networks.get(path) is network
    copy = shutil.copy(path, tmp_path / "last.ckpt")
    first = networks.get(copy)
    shutil.copy(path, copy)  # another time
    assert networks.get(copy) is not first
    assert networks.get(path) is not network  # two others were asked for since


def test_a_damaged_checkpoint_is_a_message(networks, folder):
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        networks.get(folder / "a gru/version_0/checkpoints/last.ckpt")
    with pytest.raises(UserError, match=r"nowhere\.ckpt"):
        networks.get(folder / "nowhere.ckpt")


def test_recordings_that_are_gone_are_a_message_and_nothing_is_made(network):
    with pytest.raises(UserError, match="words"):
        _ = network.clips


def test_a_wav_file_is_the_clip_to_the_bit(spoken):
    path = next(spoken.glob("go/*.wav"))
    values, rate = soundfile.read(path, dtype="int16")
    samples = torch.from_numpy(values.astype(np.float32)) / 32768
    found, found_rate = soundfile.read(io.BytesIO(as_wav(samples, rate)), dtype="int16")
    assert found_rate == rate
    np.testing.assert_array_equal(found, values)


def test_an_upload_is_heard_as_predict_hears_it(network, spoken, tmp_path):
    uploads = Uploads()
    path = write(tmp_path / "mine.flac", tone(350, 1.7, rate=8000), 8000)
    upload = uploads.add(path.read_bytes(), "../mine.flac")
    assert upload.name == "mine.flac"
    assert len(upload.samples) == pytest.approx(1.7 * upload.sample_rate, rel=0.01)
    clip = clip_of_upload(uploads.get(upload.identity), network)
    assert clip.label is None
    predicted = network.spotter.predict(
        upload.samples, upload.sample_rate, noise=Noise(sigma=1.0, seed=5), draws=3
    )
    answer = run_trial(Trial(upload=upload.identity, value=1.0, seed=5, draws=3), network, uploads)
    assert answer.decision.mean[-1].tolist() == pytest.approx(list(predicted.posteriors.values()), abs=1e-4)
    assert answer.right is None


def test_what_is_no_recording_is_refused():
    uploads = Uploads()
    with pytest.raises(UserError, match=r"notes.txt: .*WAV"):
        uploads.add(b"not audio", "notes.txt")
    with pytest.raises(UserError, match="MB"):
        uploads.add(b"\0" * (MOST_BYTES + 1), "long.wav")
    with pytest.raises(UserError, match="upload it again"):
        uploads.get("0000")


def test_a_dial_has_the_values_of_a_hardware(network):
    choices = hardware_choices(network)
    assert {"sigma", "pcm", "noisy_weights"} <= set(choices)
    for name in choices:
        dial = dial_of(name, network)
        if dial is None:
            continue
        for value in (dial.low, dial.value, dial.high):
            assert dial.at(dial.place(value)) == pytest.approx(value, rel=1e-3)
        assert Trial(hardware=name, value=dial.high).noise(network).hardware.has(dial.strength)
    assert dial_of("pcm", network).logarithmic
    with pytest.raises(UserError, match="none of those"):
        dial_of("../secret", network)


def test_the_same_trial_says_the_same_and_another_seed_something_else(network, tmp_path):
    uploads = Uploads()
    upload = uploads.add(write(tmp_path / "a.wav", tone(350)).read_bytes(), "a.wav")
    found = [
        run_trial(Trial(upload=upload.identity, value=2.0, seed=seed), network, uploads) for seed in (1, 1, 2)
    ]
    assert torch.equal(found[0].decision.posteriors, found[1].decision.posteriors)
    assert not torch.equal(found[0].decision.posteriors, found[2].decision.posteriors)
    assert found[0].figure(1.0) == found[1].figure(1.0)


# ---------------------------------------------------------------------- a run that was measured


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A network on digits, evaluated as the page does it."""
    root = tmp_path_factory.mktemp("measured")
    run = root / "digits"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("seed_everything: 1\nmodel: {network: {cell: lstm}}\n")
    checkpoint = train(run / "checkpoints", DigitsData(batch_size=256), epochs=3)
    (run / "metrics.csv").write_text(
        "epoch,sigma_train,step,train/loss,train/accuracy\n0,0.5,4,2.1,0.3\n1,1.0,9,1.9,0.5\n"
    )
    measurements = Measurements()
    told = []
    measurement = measurements.start(run, measuring(checkpoint, run, ("curve", "classes", "clips")))
    while measurement.active:
        told.append(measurement.share)
        time.sleep(0.01)
    assert measurement.state == "done", measurement.message
    assert told == sorted(told)
    return root


def test_what_the_page_measures_is_what_the_command_measures(measured):
    run = Catalogue(measured).run("digits")
    (evaluation,), faults = evaluations_with(run, "clips")
    assert faults == []
    network = Networks().get(run.checkpoints()[0])
    curve = network.spotter.noise_curve(network.clips.data, [2.0], 10, noise=Noise())
    own = evaluation.curve.frame.query("strength == 2.0")["accuracy"]
    assert own.tolist() == pytest.approx(curve.frame["accuracy"].tolist())


def test_each_tab_has_its_figures_and_they_are_files(measured):
    catalogue = Catalogue(measured)
    services = services_of(catalogue)
    expected = {
        "overview": {"noise_curve"},
        "training": {"learning_curves", "schedule"},
        "words": {"confusion", "words"},
        "clips": {"clips"},
        "sensitivity": set(),
        "voting": set(),
    }
    for tab, names in expected.items():
        shown = shown_of(State("run", {"run": ("digits",), "tab": (tab,)}), services)
        figures = shown.figures()
        assert set(figures) == names, tab
        for figure in figures.values():
            frame = pd.read_csv(io.BytesIO(export(figure, "csv")))
            assert len(frame)
    confusion = figure_frame(
        shown_of(
            State("run", {"run": ("digits",), "tab": ("words",), "strength": ("1.4",)}), services
        ).figures()["confusion"]
    )
    assert set(confusion["panel"]) == {"σ_infer 0", "σ_infer 1.5"}
    # Shares of each digit, of what it is taken for.
    assert confusion.groupby(["panel", "y"])["value"].sum().tolist() == pytest.approx([100.0] * 20)


def test_a_figure_is_a_file_by_its_link(measured):
    client = make_app(Catalogue(measured)).server.test_client()
    table = client.get("/export/run/words.csv?run=digits&tab=words")
    assert (table.status_code, table.mimetype) == (200, "text/csv")
    assert {"panel", "label", "x", "y"} <= set(pd.read_csv(io.BytesIO(table.data)).columns)
    svg = client.get("/export/try/posteriors.svg?run=digits&clip=2&value=1&seed=4")
    assert svg.data.startswith(b"<?xml")
    same = client.get("/export/try/posteriors.csv?run=digits&clip=2&value=1&seed=4")
    assert same.data == client.get("/export/try/posteriors.csv?run=digits&clip=2&value=1&seed=4").data
    assert same.data != client.get("/export/try/posteriors.csv?run=digits&clip=2&value=1&seed=5").data
    for path in (
        "/export/run/words.exe?run=digits&tab=words",
        "/export/run/nothing.csv?run=digits",
        "/export/run/words.csv?run=../..",
        "/export/try/posteriors.csv?run=digits&clip=100000",
        "/export/try/posteriors.csv?run=digits&hardware=/etc/passwd",
        "/audio/clip.wav?run=digits&clip=0",  # no recordings
        "/audio/upload.wav?upload=../../x",
    ):
        assert client.get(path).status_code == 404, path


def test_the_tables_of_clips_name_places_in_the_split(measured):
    run = Catalogue(measured).run("digits")
    (evaluation,), _ = evaluations_with(run, "clips")
    network = Networks().get(run.checkpoints()[0])
    order = breaking_points(evaluation.clips)
    for row in order.head(3).to_dict("records"):
        place = position_of(network, row["clip"])
        assert network.clips.names[place] == row["path"]
        assert network.clips[place].label == row["label"]
    assert position_of(network, 5) is None


@pytest.mark.parametrize(("shares", "at"), [([1.0, 0.4, 0.1], "1"), ([1.0, 0.9, 0.9], "2")])
def test_a_clip_is_tried_where_noise_breaks_it(measured, shares, at):
    """At the first strength at which it is wrong; one that never is, at the strongest."""
    services = services_of(Catalogue(measured))
    shown = shown_of(State("run", {"run": ("digits",), "tab": ("clips",)}), services)
    clip = int(shown.evaluation.clips["clip"].iloc[0])
    tables = {**shown.evaluation.tables, "clips": clips_table({clip: shares})}
    evaluation = replace(shown.evaluation, tables=tables)
    detail = run_clips.clip_detail(
        replace(shown, evaluation=evaluation, clip=clip), State("run"), "light", services
    )
    links = [part.href for part in html.Div(detail)._traverse() if getattr(part, "href", None)]
    (tried,) = [State.parse(link) for link in links if link.startswith("/try")]
    assert tried.one("value") == at


def test_a_damaged_curve_is_said_to_be_and_measured_again_in_its_place(measured, tmp_path):
    run = shutil.copytree(measured / "digits", tmp_path / "digits") / "noise_curve.csv"
    run.write_text("# {broken")
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    shown = shown_of(State("run", {"run": ("digits",)}), services_of(catalogue))
    text = words_of(run_tabs.overview(shown, State("run"), "light"))
    assert "The noise curve is damaged" in text
    assert "No noise curve yet" not in text
    assert "Go on with it" not in text
    command = f"noise-curve {run.parent}/checkpoints/last.ckpt --output {run.parent}"
    assert command in text
    main(["noise-curve", *shlex.split(command)[1:], "--sigmas", "[0,1]", "--draws", "1"])
    catalogue.refresh()
    assert "noise_curve" in catalogue.run("digits").curves()


def test_small_print_tells_what_is_drawn(measured):
    network = Networks().get(Catalogue(measured).run("digits").checkpoints()[0])
    answer = run_trial(Trial(value=1.0), network, Uploads())
    assert "bands: lowest to highest" in answer.figure(1.0, "lines").note
    assert "bands" not in answer.figure(1.0, "map").note


def test_a_measurement_that_nobody_wants_any_more_ends(tmp_path):
    measurements = Measurements()
    reported = threading.Event()

    def work(report):
        while True:
            report(1, 10)
            reported.set()
            time.sleep(0.005)

    running = measurements.start(tmp_path, work)
    assert measurements.start(tmp_path, work) is running  # one at a time
    assert reported.wait(30)
    assert (running.done, running.total, running.active) == (1, 10, True)
    running.cancel()
    failing = measurements.start(tmp_path / "other", lambda report: Networks().get(tmp_path / "none.ckpt"))
    while failing.active:
        time.sleep(0.005)
    assert running.state == "cancelled"
    assert failing.state == "failed"
    assert "none.ckpt" in failing.message
