from pathlib import Path

import pytest

from asr_dni.cli.main import main
from asr_dni.cli.noise_curve import DEFAULT_SIGMAS, _folder_name
from asr_dni.noise import Noise

DEFAULTS = {
    "checkpoint": Path("runs/best.ckpt"),
    "data": None,
    "split": "test",
    "sigmas": list(DEFAULT_SIGMAS),
    "draws": 10,
    "noise": Noise(),
    "damaged": None,
}


def name(**changes):
    return _folder_name(**(DEFAULTS | changes))


def test_the_folder_says_what_differs_from_the_defaults():
    assert name() == "noise_curve-best-own-test"
    assert name(data=Path("to/my words: 2"), split="all") == "noise_curve-best-my_words_2-all"
    noise = Noise(scale="range", sites=("recurrent", "input"), arrays="separate", seed=3)
    assert (
        name(noise=noise, sigmas=[2, 0, 0.5], draws=3)
        == "noise_curve-best-own-test-range-input+recurrent-separate-sigmas_0_0.5_2-draws_3-seed_3"
    )


def test_other_measurements_have_other_folders():
    changes = [
        {},
        {"checkpoint": Path("runs/last.ckpt")},
        {"data": Path("own2")},
        {"split": "validation"},
        {"sigmas": [0.0, 1.0]},
        {"sigmas": [k / 7 for k in range(15)]},
        {"sigmas": [k / 7 for k in range(15) if k != 3]},
        {"draws": 20},
        {"damaged": "skip"},
        {"noise": Noise(scale="signal")},
        {"noise": Noise(sites=("input",))},
        {"noise": Noise(arrays="separate")},
        {"noise": Noise(seed=1)},
    ]
    names = [name(**change) for change in changes]
    assert len(set(names)) == len(changes)
    assert all(len(one) < 100 and "/" not in one for one in names)
    assert name(noise=Noise(sites=("output", "input", "recurrent"))) == name()  # the order is no difference


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--sites", "[]"], "sites is empty"), (["--sigmas", "0,-1"], "sigmas contains -1")],
)
def test_mistakes_are_told_before_the_checkpoint_is_read(options, named, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["noise-curve", "nowhere.ckpt", *options])
    assert ended.value.code == 2
    assert named in capsys.readouterr().err
