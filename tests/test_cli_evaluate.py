import pandas as pd
import pytest

from asr_dni.cli.main import main
from asr_dni.evaluation.questions.folder import find_evaluations, read_evaluation
from asr_dni.inference import load
from asr_dni.noise import Noise


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory):
    """A run's folder with a checkpoint."""
    run = tmp_path_factory.mktemp("run")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").write_bytes(checkpoint.read_bytes())
    return run


def evaluate(run, spoken, *options):
    main(
        [
            "evaluate",
            str(run / "checkpoints" / "last.ckpt"),
            "--data",
            str(spoken),
            "--device",
            "cpu",
            *options,
        ]
    )


def test_all_tables_of_gaussian_noise(run, spoken, capsys):
    options = ("--strengths", "0,1", "--draws", "3")
    evaluate(run, spoken, *options)
    (folder,) = find_evaluations(run)
    assert folder.name == "evaluation-words"
    evaluation = read_evaluation(folder)
    spotter = load(run / "checkpoints" / "last.ckpt")
    data = spotter.data(spoken)
    curve = spotter.noise_curve(data, [0, 1], 3, noise=Noise())
    pd.testing.assert_frame_equal(evaluation.curve.frame, curve.frame)
    assert evaluation.curve.settings.items() >= curve.settings.items()
    assert evaluation.settings["data_folder"] == str(spoken)
    assert evaluation.settings["label_names"] == spotter.label_names
    assert evaluation.settings["hardware_name"] == "gaussian"
    assert evaluation.classes.query("strength == 1")["count"].sum() == 3 * 12
    assert set(evaluation.voting["votes"]) == {1, 2, 3}
    assert all((spoken / path).is_file() for path in evaluation.clips["path"])
    assert evaluation.clips.groupby("strength").size().tolist() == [12, 12]
    assert "clean_accuracy" in set(evaluation.summary["quantity"])
    assert evaluation.settings_of("calibration")["bins"] == 15
    parts = ["recurrent.l0 input+recurrent", "classifier output"]
    gates = [f"{parts[0]} {gate}" for gate in "ifgo"]
    assert set(evaluation.sensitivity["part"]) == {"all", *parts, *gates}
    assert evaluation.budget["part"].tolist() == [*parts, *gates]
    assert [part.removesuffix(" (digital)") for part in evaluation.cost["part"]][-2:] == [parts[1], "all"]
    assert evaluation.settings_of("cost")["energy"] is None
    least = evaluation.settings["clean_accuracy"] - 0.01
    assert evaluation.settings_of("budget")["together_accuracy"] >= least - 1e-9
    drawn = {path.name for path in folder.glob("*.png")}
    assert drawn == {
        f"{name}.png" for name in ("curve", "voting", "classes", "confusion", "calibration", "clips")
    } | {"sensitivity.png", "budget.png"}
    # Another batch size: the same, and nothing of the tables is left from before.
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    evaluate(run, spoken, *options, "--batch_size", "5", "--only", "voting,curve", "--figures", "false")
    again = read_evaluation(folder)
    pd.testing.assert_frame_equal(again.voting, evaluation.voting)
    pd.testing.assert_frame_equal(again.curve.frame, evaluation.curve.frame, rtol=1e-5)
    changed = {path.stem for path in folder.glob("*.parquet") if path.stat().st_mtime_ns != before[path.name]}
    assert changed == {"curve", "summary", "voting"}


def test_several_hardwares_in_one_call(run, spoken, tmp_path, capsys):
    options = ("--hardware", "pcm,noisy_weights", "--chips", "2", "--draws", "2", "--output", str(tmp_path))
    evaluate(run, spoken, *options, "--only", "curve,clips", "--figures", "false")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evaluation-noisy_weights-words",
        "evaluation-pcm-words",
    ]
    pcm = read_evaluation(tmp_path / "evaluation-pcm-words")
    assert pcm.curve.strength.path == "weight.time"
    assert pcm.curve.levels == [1, 60, 3600, 86400, 30 * 86400, 365 * 86400]
    assert pcm.curve.frame["chip"].nunique() == 2
    assert "worst_chip_accuracy" in set(pcm.summary["quantity"])
    assert pcm.voting is None
    assert read_evaluation(tmp_path / "evaluation-noisy_weights-words").curve.strength.path == "weight.sigma"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hardware", "pcn"], "hardware"),
        (["--hardware", "pcm", "--strength", "adc.bits"], "strength adc.bits is not one of this hardware's"),
        (["--votes", "20"], "20 votes need as many draws, but draws is 10"),
        (["--points", "0"], "--points is 0: give percentage points above 0"),
        (["--chips", "3"], "all chips are the same"),
        (["--only", "curves"], "only: expected one of"),
        (["--strengths", "1,1"], "twice"),
    ],
)
def test_mistakes_are_told_in_a_line_and_nothing_is_written(options, message, run, spoken, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        evaluate(run, spoken, *options, "--output", str(tmp_path / "out"))
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert not (tmp_path / "out").exists()
