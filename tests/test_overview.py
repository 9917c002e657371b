import os
from pathlib import Path

import pytest
import yaml
from recordings import make_folder, tone, write

from asr_dni.cli.main import main
from asr_dni.data import Folder, FolderClips, KeywordData, LabelSettings
from asr_dni.data.source import speaker_split

pytestmark = pytest.mark.filterwarnings("ignore")


def data_of(path: Path, cache: Path, **options) -> KeywordData:
    options = {"speaker": None, "labels": LabelSettings(), **options}
    return KeywordData(Folder(path, speaker=options["speaker"]), labels=options["labels"], cache_dir=cache)


def people(path: Path, names: str = "{}_{}.wav", speakers: int = 6, takes: int = 3) -> Path:
    for word in ("no", "yes"):
        for speaker in range(speakers):
            for take in range(takes):
                write(path / word / names.format(f"p{speaker}", take), tone(300, 0.1))
    return path


def test_a_line_tells_the_clips_and_speakers_of_each_split(tmp_path):
    data = data_of(make_folder(tmp_path / "words", seconds=0.1), tmp_path / "cache")
    data.setup("fit")
    assert data.describe() == (
        "folder words: train 18 clips by 6 speakers, validation 6 clips by 2 speakers, test 6 clips by 2 speakers"
    )


def test_silence_that_is_made_has_no_speaker(tmp_path):
    path = make_folder(tmp_path / "words", words=("no", "yes"), per_split=(10, 1, 1), seconds=0.1)
    data = data_of(path, tmp_path / "cache", labels=LabelSettings(silence_percent=10))
    data.setup("fit")
    assert (
        "train 22 clips (2 of them made of silence) by 10 speakers, validation 3 clips (1 of"
        in data.describe()
    )


def test_another_folder_has_one_split(tmp_path):
    data = data_of(make_folder(tmp_path / "words", seconds=0.1), tmp_path / "cache")
    data.setup("fit")
    other = FolderClips.for_network_of(data, make_folder(tmp_path / "others", seconds=0.1), "all")
    other.setup("test")
    assert other.describe() == "folder others: all 30 clips by 10 speakers"


def test_speakers_that_are_not_known_are_at_most_so_many(tmp_path, caplog):
    data = data_of(people(tmp_path / "words"), tmp_path / "cache")
    data.setup("fit")
    assert "by at most " in data.describe()
    assert "36 of 36 clips are not named <speaker>_nohash_<k>" in caplog.text
    caplog.clear()
    again = data_of(tmp_path / "words", tmp_path / "cache")
    again.setup("fit")
    assert "nohash" not in caplog.text  # once is enough


def test_people_in_two_splits_are_told(tmp_path, caplog):
    path = people(tmp_path / "told", "{}_nohash_{}.wav")
    (path / "validation_list.txt").write_text("yes/p1_nohash_0.wav\nno/p5_nohash_0.wav")
    (path / "testing_list.txt").write_text(
        "\n".join(f"{w}/p0_nohash_{k}.wav" for w in ("no", "yes") for k in range(3))
    )
    data_of(path, tmp_path / "cache").setup("fit")
    assert "2 of the 2 speakers of the validation split (p1, p5) are trained on too" in caplog.text
    assert "test split" not in caplog.text


def test_an_expression_is_part_of_what_is_cached_and_kept_for_other_folders(tmp_path):
    path = people(tmp_path / "words", speakers=20, takes=1)
    plain, found = (
        data_of(path, tmp_path / "cache"),
        data_of(path, tmp_path / "cache", speaker="/(?P<speaker>p[0-9]+)_"),
    )
    for data in (plain, found):
        data.prepare_data()
    assert plain.store.path != found.store.path
    assert {found.store.speaker(row) for row in range(len(found.store))} == {f"p{k}" for k in range(20)}
    other = FolderClips.for_network_of(found, people(tmp_path / "others", speakers=20, takes=1), "test")
    other.prepare_data()
    assert {other.store.speaker(row) for row in range(len(other.store))} == {f"p{k}" for k in range(20)}


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """A run's folder and the arguments of a short fit on a folder of recordings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")

    def configured(folder: Path, **source) -> list[str]:
        settings = {
            "trainer": {"max_epochs": 1, "accelerator": "cpu"},
            "data": {
                "source": {"class_path": "asr_dni.data.Folder", "init_args": {"path": str(folder), **source}},
                "augmentation": {"background_probability": 0},
            },
            "model": {"network": {"units": 2, "layers": 1}},
            "noise_curve": {"sigmas": [0.0], "draws": 1, "every_n_epochs": 0},
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
        return ["fit", "--config", "run.yaml", "--wandb", "disabled"]

    return configured


@pytest.mark.parametrize("kind", ["flat", "empty", "one word", "six speakers", "half a list"])
def test_what_cannot_be_trained_on_is_one_line_before_anything_is_written(kind, configured, tmp_path, capsys):
    path, source = tmp_path / "words", {}
    if kind == "flat":
        write(path / "yes.wav", tone(300, 0.1))
        said = "1 recordings directly in this folder, and no folder of a word"
    elif kind == "empty":
        path.mkdir()
        said = "no words in this folder"
    elif kind == "one word":
        write(path / "yes" / "a_nohash_0.wav", tone(300, 0.1))
        said = "nothing to tell apart, for folder words has only the word yes"
    elif kind == "six speakers":
        speakers = [k for k in range(30) if speaker_split(f"p{k}") != "test"]
        for word in ("no", "yes"):
            for k in speakers[:6]:
                write(path / word / f"p{k}_nohash_0.wav", tone(300, 0.1))
        (path / "validation_list.txt").write_text(f"yes/p{speakers[0]}_nohash_0.wav")
        said = "in the test split, where the rule puts about 10 % of the speakers, of whom there are 6;"
    else:
        make_folder(path, seconds=0.1)
        (path / "testing_list.txt").write_text("yes/00000008_nohash_2.wav\nyes/0000000x_nohash_2.wav")
        said = "1 of 2 lines name no file"
    with pytest.raises(SystemExit) as ended:
        main(configured(path, **source))
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert lines[-1].startswith("asr-dni: error: ")
    assert not any("Traceback" in text for text in lines)
    assert not (tmp_path / "runs").exists()


def test_a_run_on_names_in_latin_1(configured, tmp_path, capsys):
    """Files may have any name; what is written down, a folder's name, may not."""
    path = make_folder(tmp_path / "words", words=("no", "yes"), per_split=(4, 2, 2), seconds=0.1)
    for name in ("00000007_nohash_1.wav", "00000000_nohash_1.wav"):
        (path / "yes" / name).rename(path / "yes" / os.fsdecode(b"gr\xfcn" + name.encode()))
    (path / "testing_list.txt").write_bytes(
        b"no/00000006_nohash_0.wav\nyes/00000006_nohash_1.wav\nyes/gr\xfcn00000007_nohash_1.wav"
    )
    main(configured(path))
    assert (
        "folder words: train 9 clips by 6 speakers, validation 4 clips by 2 speakers, test 3 clips by 2 speakers\n"
        in capsys.readouterr().out
    )
    main(["predict", "--ckpt_path", "runs/spotter/version_0/checkpoints/last.ckpt"])
    table = next((tmp_path / "runs").rglob("predictions.csv")).read_text(encoding="utf-8")
    assert "yes/gr\\xfcn00000007_nohash_1.wav,no" in table or "yes/gr\\xfcn00000007_nohash_1.wav,yes" in table
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--data.source.path", os.fsdecode(b"w\xf6rter")])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "asr-dni: error: w\\xf6rter: this name is not UTF-8; rename it (convmv -f latin1 -t utf8), or make a link to it"
        " that has another name (ln -s)\n"
    )
