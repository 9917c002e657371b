import pandas as pd
import pyarrow.parquet as pq
import pytest

from asr_dni.errors import UserError
from asr_dni.evaluation.questions.folder import TABLES, find_evaluations, read_evaluation, write_table

VOTING = pd.DataFrame(
    {
        "strength": [0.0, 1.0],
        "votes": [1, 3],
        "rule": ["mean", "majority"],
        "accuracy": [0.5, 1.0],
        "low": [0.4, 0.9],
        "high": [0.6, 1.0],
        "draws_low": [0.5, float("nan")],
        "draws_high": [0.5, float("nan")],
    }
)


def test_what_was_written_is_read_with_its_settings(tmp_path):
    folder = tmp_path / "evaluation-pcm"
    written = write_table(folder, "voting", VOTING, {"label_names": ["ja", "#nein"], "draws": 10})
    write_table(
        folder, "clips", pd.DataFrame({name: [] for name in TABLES["clips"]}), {"label_names": [], "draws": 3}
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "clips.csv",
        "clips.parquet",
        "voting.csv",
        "voting.parquet",
    ]
    evaluation = read_evaluation(folder)
    pd.testing.assert_frame_equal(evaluation.voting, VOTING)
    pd.testing.assert_frame_equal(pd.read_csv(written[1]), VOTING)
    assert evaluation.classes is None
    assert evaluation.curve is None
    assert len(evaluation.clips) == 0
    assert evaluation.settings_of("voting") == {"label_names": ["ja", "#nein"], "draws": 10}
    assert evaluation.settings_of("clips")["draws"] == 3
    assert evaluation.name == "pcm"
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluation").mkdir()
    assert find_evaluations(tmp_path) == [folder]


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no evaluation"):
        read_evaluation(tmp_path)
    write_table(tmp_path, "voting", VOTING, {})
    path = tmp_path / "voting.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"voting.parquet is not a table of an evaluation"):
        read_evaluation(tmp_path)
    pq.write_table(
        pq.read_table(write_table(tmp_path, "clips", pd.DataFrame({c: [] for c in TABLES["clips"]}), {})[0]),
        path,
    )
    with pytest.raises(UserError, match="the column votes is missing"):
        read_evaluation(tmp_path)
