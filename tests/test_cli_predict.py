"""``asr-dni predict CHECKPOINT FILES...``."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import tone, write

import asr_dni
from asr_dni.cli.main import main
from asr_dni.noise import Noise

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def mixed(tmp_path, spoken):
    """Recordings of every kind, some of them bad, in nested folders."""
    folder = tmp_path / "mixed"
    shutil.copytree(spoken / "go", folder / "go")
    for ending, rate in (("flac", 44100), ("ogg", 22050), ("mp3", 48000), ("WAV", 8000)):
        samples = np.stack([tone(360, rate=rate)] * 2, axis=1)
        path = folder / "deep" / "er" / f"no.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate)
    (folder / "deep" / "text.wav").write_text("no samples")
    (folder / "notes.txt").write_text("not a recording")
    write(folder / ".hidden" / "a.wav", tone(220))
    write(folder / "._resource.wav", tone(220))
    return folder


def ran(capsys, *command: object, code: int = 0) -> tuple[str, str]:
    """Run a command that ends with this code; return what it printed, and what it said on standard error."""
    capsys.readouterr()
    try:
        main(["predict", *map(str, command)])
        ended = 0
    except SystemExit as end:
        ended = end.code
    said = capsys.readouterr()
    assert ended == code, said.err
    return said.out, said.err


def fails(capsys, *command: object) -> str:
    out, said = ran(capsys, *command, code=2)
    assert out == ""
    assert re.fullmatch(r"asr-dni: error: [^\n]+\n", said), said
    return said


def test_csv_of_a_folder_with_bad_files(checkpoint, mixed, capsys):
    out, said = ran(capsys, checkpoint, mixed, "--format", "csv", "--batch_size", 3, code=1)
    rows = list(csv.DictReader(io.StringIO(out)))
    names = [Path(row["file"]).relative_to(mixed).as_posix() for row in rows]
    nested = [f"deep/er/no.{ending}" for ending in ("WAV", "flac", "mp3", "ogg")]
    assert names == ["deep/text.wav", *nested, *(f"go/{k:08x}_nohash_0.wav" for k in range(11))]
    spotter = asr_dni.load(checkpoint)
    expected = list(spotter.predict_files(row["file"] for row in rows))
    for row, file in zip(rows, expected, strict=True):
        assert (row["decision"] or None) == file.label
        assert (row["error"] or None) == file.error
        if file.error is None:
            assert float(row["seconds"]) == pytest.approx(1, abs=0.06)  # MP3 is padded
            for label, posterior in file.predictions[0].posteriors.items():
                assert float(row[label]) == pytest.approx(posterior, abs=2e-6)
    assert "deep/text.wav: not a recording that can be decoded" in said
    assert f"passed over, for their endings: {mixed / 'notes.txt'}\n" in said
    assert "1 of 16 recordings could not be used" in said


def test_noise_by_option(checkpoint, spoken, capsys):
    options = [
        "--sigma",
        1.5,
        "--sites",
        "input,recurrent",
        "--seed",
        4,
        "--draws",
        3,
        "--arrays",
        "separate",
    ]
    out, _ = ran(capsys, checkpoint, spoken / "no", *options, "--format=jsonl")
    noise = Noise(sigma=1.5, sites=("input", "recurrent"), seed=4, arrays="separate")
    rows = [json.loads(line) for line in out.splitlines()]
    files = asr_dni.load(checkpoint).predict_files([row["file"] for row in rows], noise=noise, draws=3)
    for row, file in zip(rows, files, strict=True):
        assert row["posteriors"] == pytest.approx(dict(file.predictions[0].posteriors), abs=2e-6)
        assert row["decision"] == file.label
    clean, _ = ran(capsys, checkpoint, spoken / "no", "--format=jsonl")
    assert clean != out


def test_a_table_by_default(checkpoint, mixed, capsys):
    (mixed / "[bold]1.wav").write_bytes((mixed / "go" / "00000000_nohash_0.wav").read_bytes())
    paths = [mixed / "[bold]1.wav", mixed / "deep" / "er" / "no.flac", mixed / "absent.wav"]
    out, said = ran(capsys, checkpoint, *paths, code=1)
    head, *lines = out.splitlines()
    assert head.split() == ["decision", "p", "/", "%", "next", "p", "/", "%", "file"]
    spotter = asr_dni.load(checkpoint)
    for line, file in zip(lines[:2], spotter.predict_files(paths[:2]), strict=True):
        (prediction,) = file.predictions
        label, posterior, then, second, name = line.split()
        assert (label, name) == (prediction.label, str(file.path))
        ordered = sorted(prediction.posteriors.values(), reverse=True)
        assert (posterior, second) == (f"{100 * ordered[0]:.1f}", f"{100 * ordered[1]:.1f}")
        assert then != label
    assert lines[2] == f"{'-':36}{paths[2]}: cannot be read (No such file or directory)"
    assert "absent.wav" in said


def test_output_is_a_whole_file(checkpoint, spoken, tmp_path, capsys):
    path = tmp_path / "results" / "decisions.csv"
    out, said = ran(capsys, checkpoint, spoken / "yes", "--output", path)
    assert out == ""
    assert f"written: {path}" in said
    with open(path, newline="") as file:
        assert len(list(csv.DictReader(file))) == 11
    assert [entry.name for entry in path.parent.iterdir()] == ["decisions.csv"]
    ran(capsys, checkpoint, spoken / "yes", "--output", path.with_suffix(".jsonl"))
    assert json.loads(path.with_suffix(".jsonl").read_text().splitlines()[0])["error"] is None


def test_long_recordings_are_named_and_heard_with_a_hop(checkpoint, tmp_path, capsys):
    path = write(tmp_path / "long.wav", np.concatenate([tone(220), tone(510)]))
    out, said = ran(capsys, checkpoint, path, "--format", "csv")
    assert len(out.splitlines()) == 2
    assert "1 recording longer than 1 s, of which the beginning was heard; --hop 0.5 hears all of it" in said
    out, said = ran(capsys, checkpoint, path, "--format", "csv", "--hop", 0.5)
    assert [row["start"] for row in csv.DictReader(io.StringIO(out))] == ["0", "0.5", "1"]
    assert "longer than" not in said
    out, _ = ran(capsys, checkpoint, path, "--hop", 0.5)
    assert [line.split()[4] for line in out.splitlines()[1:]] == ["0.00", "0.50", "1.00"]


def test_recordings_that_are_heard_badly_are_told_once_with_numbers(checkpoint, tmp_path, capsys, caplog):
    full = [write(tmp_path / f"full{k}.wav", tone(220 + 40 * k)) for k in range(5)]
    rates = (4000, 8000, 8000)
    low = [write(tmp_path / f"low{k}.wav", tone(300, rate=r), rate=r) for k, r in enumerate(rates)]
    soundfile.write(tmp_path / "a.mp3", tone(360), 16000)
    ran(capsys, checkpoint, *full, "--format", "csv")
    assert caplog.messages == []
    absent = tmp_path / "absent.wav"
    ran(capsys, checkpoint, *full, *low, tmp_path / "a.mp3", absent, "--format", "csv", "--hop", 0.5, code=1)
    (said,) = caplog.messages
    assert said.startswith(
        "predict: 3 of 9 recordings are sampled at less than the 16,000 Hz that are wanted"
    )
    assert "(4,000 Hz: 1, 8,000 Hz: 2)" in said
    assert "1 of 9 recordings are MP3" in said
    files = list(asr_dni.load(checkpoint).predict_files([full[0], low[0], tmp_path / "a.mp3"]))
    assert [file.origin for file in files] == ["", "low rate 4000", "MP3"]


def test_a_recording_far_beyond_full_scale_is_not_decided_on(checkpoint, tmp_path, capsys):
    write(tmp_path / "clips" / "loud.wav", tone(300, level=340), subtype="FLOAT")
    write(tmp_path / "clips" / "over.wav", tone(300, level=1.5), subtype="FLOAT")
    out, said = ran(capsys, checkpoint, tmp_path / "clips", "--format", "csv", code=1)
    loud, over = csv.DictReader(io.StringIO(out))
    assert re.fullmatch(
        r"its samples reach 3\d\d\S*; expected floating-point samples in \[-1, 1\]", loud["error"]
    )
    assert loud["decision"] == ""
    assert over["decision"]
    assert "1 of 2 recordings could not be used" in said


def test_names_that_are_no_text(checkpoint, spoken, tmp_path, capsys):
    name = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    try:
        shutil.copy(next((spoken / "go").iterdir()), name)
    except OSError:
        pytest.skip("this file system takes names of UTF-8 only")
    for layout in ("csv", "jsonl", "table"):
        out, _ = ran(capsys, checkpoint, tmp_path, "--format", layout)
        assert "caf\\xe9.wav" in out.replace("\\\\", "\\")


def test_mistakes(checkpoint, spoken, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    clip = next((spoken / "go").iterdir())
    assert "asr-dni predict CHECKPOINT FILES..." in fails(capsys)
    assert "no recordings in this folder" in fails(capsys, checkpoint, tmp_path / "empty")
    assert "there is no such checkpoint" in fails(capsys, tmp_path / "absent.ckpt", clip)
    assert "files" in fails(capsys, checkpoint)
    assert "cannot be read as a checkpoint" in fails(capsys, clip, checkpoint)
    assert "--format csv or jsonl" in fails(capsys, checkpoint, clip, "--output", tmp_path / "a.txt")
    assert "is a folder" in fails(capsys, checkpoint, clip, "--output", tmp_path, "--format", "csv")
    assert "--hop is 3.0: give 0.01 to 1" in fails(capsys, checkpoint, clip, "--hop", 3)
    assert "sigma is -1" in fails(capsys, checkpoint, clip, "--sigma", -1)
    said = fails(capsys, checkpoint, clip, "--sigma", 1, "--sites", "[]")
    assert said.startswith("asr-dni: error: --sites is empty")
    assert said.endswith("or --sigma 0\n")
    assert "give auto" in fails(capsys, checkpoint, clip, "--device", "abacus")
    assert "draws is 0" in fails(capsys, checkpoint, clip, "--draws", 0)
    assert "Got xml" in fails(capsys, checkpoint, clip, "--format", "xml")


def test_help_says_how_to_decide_on_the_own_split(capsys):
    out, _ = ran(capsys, "--help")
    assert "usage: asr-dni predict" in out
    flat = " ".join(out.split())
    for part in ("--sigma", "--hop", "exit code is then 1", "asr-dni predict --ckpt_path CHECKPOINT"):
        assert part in flat


@pytest.mark.slow
def test_a_reader_that_has_had_enough(checkpoint, spoken):
    script = "from asr_dni.cli.main import main; main()"
    command = [sys.executable, "-c", script, "predict", str(checkpoint), "--format=csv", *[str(spoken)] * 400]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("file,")
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() == 141
    assert "Error" not in said
