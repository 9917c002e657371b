"""Weights that torch's own layers were trained to: in Python, by convert and by fit --weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from asr_dni.cli.main import main
from asr_dni.data import DigitsData
from asr_dni.errors import UserError
from asr_dni.model import KeywordNetwork, KeywordSpotter, NetworkSettings
from asr_dni.model.foreign_weights import read_state_dict, take_weights

pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
DIGITS = ["--data_class", "DigitsData", "--trainer.accelerator", "cpu", "--data.batch_size", "200"]
SHAPE = ["--model.network.units", "5", "--model.network.layers", "1"]


class Foreign(nn.Module):
    """Logits are the mean of the frames', as pooling ``frame`` has it."""

    def __init__(self, cell: str = "lstm", bias: bool = True, **settings: object) -> None:
        super().__init__()
        self.rnn = KINDS[cell](8, 5, bias=bias, **settings)
        self.fc = nn.Linear(10 if settings.get("bidirectional") else 5, 10, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, 10)`` for ``(N, T, 8)``."""
        return self.fc(self.rnn(x.transpose(0, 1))[0]).mean(0)


@pytest.fixture
def saved(tmp_path) -> tuple[Foreign, Path]:
    torch.manual_seed(0)
    network = Foreign()
    torch.save(network.state_dict(), tmp_path / "foreign.pt")
    return network, tmp_path / "foreign.pt"


@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize(
    "settings", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}], ids=["plain", "deep", "bare"]
)
def test_the_network_computes_what_the_other_did(cell, settings):
    torch.manual_seed(0)
    foreign, x = Foreign(cell, **settings), torch.randn(3, 7, 8)
    own = {"layers": settings.get("num_layers", 1), "bidirectional": settings.get("bidirectional", False)}
    network = KeywordNetwork(NetworkSettings(cell=cell, units=5, pooling="frame", dropout=0.0, **own), 8, 10)
    assert take_weights(network, foreign.state_dict()) == []
    torch.testing.assert_close(network(x), foreign(x))
    order = list(range(9, -1, -1))
    take_weights(network, foreign.state_dict(), "rnn", "fc", order)
    torch.testing.assert_close(network(x), foreign(x)[:, order])


def test_convert_writes_a_checkpoint_that_hears_as_the_other_did(
    saved, tmp_path, capsys, monkeypatch, restored_process
):
    foreign, file = saved
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "mine.ckpt"
    labels = [str(digit) for digit in range(9, -1, -1)]
    main(["convert", str(file), *DIGITS, *SHAPE, "--labels", ",".join(labels), "--output", str(output)])
    assert "% on the validation split" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign.pt", "mine.ckpt"]
    spotter, data = KeywordSpotter.from_checkpoint(output), DigitsData.from_checkpoint(output)
    assert spotter.trainings[0]["weights.file"] == "foreign.pt"
    data.prepare_data()
    data.setup("test")
    x = torch.randn(3, 8, 8)
    torch.testing.assert_close(spotter(x), foreign(x).flip(-1))
    assert all(its.known for part in (spotter.network.recurrent,) for its in part.statistics().values())
    main(["noise-curve", str(output), "--sigmas", "0,1", "--draws", "1", "--output", str(tmp_path / "curve")])
    assert (tmp_path / "curve" / "noise_curve.csv").is_file()


def test_fit_begins_with_them(saved, tmp_path, monkeypatch, restored_process):
    foreign, file = saved
    monkeypatch.chdir(tmp_path)
    slow = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "1e-9"]
    short = ["--trainer.max_epochs", "1", "--test_after_fit", "false", "--wandb", "disabled"]
    main(["fit", *DIGITS, *SHAPE, *slow, *short, "--weights", str(file), "--name", "one"])
    first = next(tmp_path.rglob("last.ckpt"))
    spotter = KeywordSpotter.from_checkpoint(first)
    torch.testing.assert_close(
        spotter.network.recurrent.weight_hh_l0, foreign.rnn.weight_hh_l0, atol=1e-6, rtol=0
    )
    assert [training.get("weights.file") for training in spotter.trainings] == ["foreign.pt", None]
    main(["fit", *DIGITS, *SHAPE, *slow, *short, "--weights", str(first), "--name", "two"])
    second = KeywordSpotter.from_checkpoint(next((tmp_path / "runs" / "two").rglob("last.ckpt")))
    torch.testing.assert_close(
        second.network.classifier.weight, foreign.fc.weight, atol=1e-6, rtol=0, check_stride=False
    )


class TestMistakes:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"units": 6}, "has 0 linear layers of 6 inputs and 10 outputs"),
            ({"layers": 2}, "has no rnn.weight_ih_l1"),
            ({"bidirectional": True}, "linear layers? of 10 inputs and 10 outputs"),
            ({"pooling": "attention"}, "has no weights of frames by the network's names"),
            ({"cell": "gru"}, r"would be \(20, 8\), but a GRU of 1 x 5 units on 8 features has \(15, 8\)"),
        ],
    )
    def test_another_shape(self, settings, said):
        network = KeywordNetwork(NetworkSettings(**{"units": 5, "layers": 1, **settings}), 8, 10)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(UserError, match=said):
            take_weights(network, Foreign().state_dict())
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    @pytest.mark.parametrize(
        ("more", "given", "said"),
        [
            (
                {"other.weight_ih_l0": torch.ones(1)},
                {},
                r"has 2 recurrent layers \(rnn, other\): give --recurrent",
            ),
            (
                {"out.weight": torch.ones(10, 5)},
                {},
                r"2 linear layers of 5 inputs and 10 outputs \(fc, out\)",
            ),
            ({}, {"recurrent": "lstm"}, "recurrent is 'lstm', but the recurrent layers there are rnn"),
            ({"rnn.weight_hh_l0": torch.full((20, 5), torch.nan)}, {}, "not finite numbers, for recurrent"),
            ({"rnn.weight_ih_l0_reverse": torch.ones(20, 8)}, {}, "rnn.weight_ih_l0_reverse has no place"),
        ],
    )
    def test_not_the_one(self, more, given, said):
        network = KeywordNetwork(NetworkSettings(units=5, layers=1), 8, 10)
        with pytest.raises(UserError, match=said):
            take_weights(network, {**Foreign().state_dict(), **more}, **given)

    @pytest.mark.parametrize(
        ("contents", "said"),
        [(b"rubbish", "cannot be read"), (None, "there is no such"), ({"a": 1}, "holds no weights")],
    )
    def test_files_that_have_none(self, contents, said, tmp_path):
        path = tmp_path / "weights.pt"
        if isinstance(contents, bytes):
            path.write_bytes(contents)
        elif contents is not None:
            torch.save(contents, path)
        with pytest.raises(UserError, match=said):
            read_state_dict(path)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "convert needs weights"),
            (["none.pt", *DIGITS], "there is no such"),
            (["FILE", *DIGITS, *SHAPE, "--labels", "a,b"], "labels are a, b, but the data have 0, 1"),
            (["FILE", *DIGITS, *SHAPE, "--output", "weights.bin"], "give the name of a .ckpt file"),
            (["FILE"], "required: data.source (asr-dni convert --help lists the settings)"),
            (["FILE", *DIGITS, "--bogus", "1"], "--bogus (asr-dni convert --help lists the settings)"),
            (
                ["FILE", "--data.source", "Folder"],
                "required: path (asr-dni convert --help lists the settings)",
            ),
        ],
    )
    def test_commands(self, arguments, said, saved, tmp_path, monkeypatch, capsys, restored_process):
        monkeypatch.chdir(tmp_path)
        arguments = [str(saved[1]) if argument == "FILE" else argument for argument in arguments]
        with pytest.raises(SystemExit) as ended:
            main(["convert", *arguments])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["foreign.pt"]
