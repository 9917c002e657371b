"""A study's results in W&B, read from the client's own files."""

import json

import numpy as np
import pytest
from simulated_study import member_rows
from tiny_study import write
from wandb_files import configuration_of, history_rows, summary_of, whole_run

from asr_dni.cli.main import main
from asr_dni.evaluation.curves.intervals import wilson_interval
from asr_dni.study.ledger import Ledger

pytestmark = pytest.mark.filterwarnings("ignore")

LEVELS = (0.0, 1.0, 2.0)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A study of four members, logged offline; its folder, ledger and what each run was told, by job type."""
    folder = tmp_path_factory.mktemp("study") / "small"
    generator = np.random.default_rng(0)
    ledger = Ledger(folder / "ledger")
    for sigma in (0.0, 1.0):
        for seed in (0, 1):
            rows = member_rows(generator, sigma_train=sigma, seed=seed, sigmas_infer=LEVELS)
            ledger.append(rows["member"].iloc[0], rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DATA_DIR", str(folder.parent / "data"))
        patch.delenv("WANDB_DIR", raising=False)
        main(["wandb", "study", str(folder)])
    runs = {"member": {}, "study": {}}
    for file in folder.glob("wandb/offline-run-*/*.wandb"):
        records = whole_run(file)
        (told,) = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
        runs[told.job_type][told.run_id] = (told, records, file.parent / "files")
    return folder, ledger.frame(), runs


def test_every_member_is_a_run_of_the_studys_group(logged):
    _, frame, runs = logged
    assert set(runs["member"]) == set(frame["member"])
    assert {told.run_group for told, *_ in runs["member"].values()} == set(frame["study"])
    for member, (told, records, _) in runs["member"].items():
        first = frame[frame["member"] == member].iloc[0]
        assert told.display_name == f"lstm 64, σ_train {first.sigma_train:g}, seed {first.seed}"
        configuration = configuration_of(records)
        assert configuration["sigma_train"] == first.sigma_train
        assert configuration["configuration"]["network"]["units"] == 64


def test_a_members_curve_is_a_series_with_its_interval(logged):
    _, frame, runs = logged
    for member, (_, records, _) in runs["member"].items():
        own = frame[frame["member"] == member].groupby("strength")
        rows = [row for row in history_rows(records) if "noise_curve/test/accuracy" in row]
        assert [row["noise_curve/test/sigma_infer"] for row in rows] == list(LEVELS)
        means = own["accuracy"].mean()
        assert [row["noise_curve/test/accuracy"] for row in rows] == pytest.approx(means.tolist())
        low = [wilson_interval(mean, 845)[0] for mean in means]
        assert [row["noise_curve/test/accuracy_low"] for row in rows] == pytest.approx(low)
        assert summary_of(records)["sigma_train"] == configuration_of(records)["sigma_train"]


def media(files, records, key):
    (path,) = [row[f"{key}/path"] for row in history_rows(records) if f"{key}/path" in row]
    return json.loads((files / path).read_text(encoding="utf-8"))


def test_the_whole_study_is_a_run_with_matrix_curves_and_findings(logged):
    _, frame, runs = logged
    ((told, records, files),) = runs["study"].values()
    assert told.run_group == frame["study"].iloc[0]
    table = media(files, records, "study/matrix")
    cells = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    expected = frame.groupby(["sigma_train", "strength"])["accuracy"].mean()
    assert {(cell["sigma_train"], cell["sigma_infer"]): cell["accuracy"] for cell in cells} == pytest.approx(
        expected.to_dict()
    )
    assert {cell["seeds"] for cell in cells} == {2}
    lines = media(files, records, "study/curves_table")["data"]
    assert [round(y, 9) for x, name, y in lines if name == "σ_train 1"] == pytest.approx(
        expected[1.0].tolist()
    )
    assert media(files, records, "study/heat_map")["data"]
    assert media(files, records, "study/findings")["data"]


def test_a_member_is_logged_once(logged, monkeypatch, capfd):
    folder, *_ = logged
    before = sorted(path.name for path in (folder / "wandb").iterdir())
    monkeypatch.setenv("WANDB_MODE", "offline")
    main(["wandb", "study", str(folder)])
    assert "nothing to log" in capfd.readouterr().out
    assert sorted(path.name for path in (folder / "wandb").iterdir()) == before


def test_a_folder_without_results_is_a_line(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for folder, said in ((tmp_path, "holds no results yet"), (tmp_path / "none", "there is no such folder")):
        with pytest.raises(SystemExit):
            main(["wandb", "study", str(folder)])
        assert said in capfd.readouterr().err


@pytest.mark.slow
def test_a_study_logs_at_its_end_where_that_is_asked_for(tmp_path, monkeypatch, restored_process):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "tiny.yaml")
    main(["study", "run", "tiny.yaml", "--workers", "0", "--wandb", "offline", "--report", "false"])
    files = list((tmp_path / "runs" / "study" / "tiny" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 4 + 1
