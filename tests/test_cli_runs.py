"""``asr-dni runs``: what there is below a folder, for people and for programs."""

import json

import pytest
from test_catalogue import save_run

from asr_dni.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for sigma in (2.0, 0.0):
        for seed in range(3):
            accuracies = (0.9 - 0.01 * seed, 0.8, 0.3 if sigma == 0 else 0.7)
            save_run(tmp_path / "runs" / f"dni_{sigma:g}" / f"seed_{seed}", sigma, seed, accuracies)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path / "runs"


def cells(line):
    return [cell for cell in line.split("  ") if cell]


def test_a_row_tells_an_experiment(folder, capsys):
    (folder / "dni_2" / "seed_1" / "noise_curve.csv").write_bytes(b"x")
    main(["runs", str(folder)])
    out = capsys.readouterr().out
    assert out.startswith("6 runs of 2 experiments below ")
    rows = [cells(line.strip()) for line in out.splitlines()]
    (conventional,) = [row for row in rows if row and row[0].strip() == "conventional"]
    # Half-way from 0.89 to chance, 0.125, between sigma 1 with 0.81 and sigma 2 with 0.31.
    half = (0.89 + 0.125) / 2
    assert [cell.strip() for cell in conventional[1:5]] == [
        "3 finished",
        "3",
        "89.0",
        f"{1 + (0.81 - half) / 0.5:.2f}",
    ]
    (dni,) = [row for row in rows if row and row[0].strip() == "DNI σ_train=2"]
    assert [cell.strip() for cell in dni[1:5]] == ["2 finished, 1 damaged", "2", "89.0", "> 2"]
    assert "dni_2/seed_1/noise_curve.csv is not a noise curve: " in out


def test_a_row_tells_a_run_where_that_is_asked(folder, capsys):
    main(["runs", str(folder), "--each"])
    out = capsys.readouterr().out
    assert all(f"dni_{sigma}/seed_{seed}" in out for sigma in (0, 2) for seed in range(3))


def test_json_has_everything(folder, capsys):
    main(["runs", str(folder), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(folder)
    assert found["studies"] == []
    assert len(found["runs"]) == 6
    run = found["runs"][-1]
    assert (run["run"], run["state"], run["seed"]) == ("dni_2/seed_2", "finished", 2)
    assert run["clean_accuracy"] == pytest.approx(0.88)
    assert run["midpoint"] == "inf"
    assert run["settings.model.network.cell"] == "lstm"
    assert run["settings.annealing.sigma"] == 2.0


def test_an_empty_folder_says_what_to_do(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["runs", str(tmp_path)])
    assert ended.value.code == 2
    assert "holds no runs and no studies: asr-dni fit" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["runs", str(tmp_path / "nowhere")])
    assert "nowhere is not a folder" in capsys.readouterr().err
