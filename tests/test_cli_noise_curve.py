from pathlib import Path

import pandas as pd
import pytest

from asr_dni.cli.main import main
from asr_dni.cli.noise_curve import DEFAULT_SIGMAS, _folder_name
from asr_dni.evaluation import NoiseCurve
from asr_dni.evaluation.measurement.sweep import Sweep
from asr_dni.hardware_files import read_hardware
from asr_dni.inference import load
from asr_dni.noise import GaussianWeights, Hardware, Noise, Realisation, Strength, UniformConverter

WEIGHTS = Strength("weight.sigma")
HARDWARE = Hardware(weight=GaussianWeights(), adc=UniformConverter())


def name(checkpoint="runs/best.ckpt", data=None, split="test", damaged=None, hardware=None, **sweep):
    sweep = {"values": DEFAULT_SIGMAS, "draws": 10} | sweep
    return _folder_name(Path(checkpoint), data, split, Sweep(**sweep), damaged, hardware)


def test_the_folder_says_what_differs_from_the_defaults():
    assert name() == "noise_curve-best-own-test"
    assert name(data=Path("to/my words: 2"), split="all") == "noise_curve-best-my_words_2-all"
    noise = Noise(scale="range", sites=("recurrent", "input"), arrays="separate", seed=3)
    assert (
        name(noise=noise, values=[2, 0, 0.5], draws=3)
        == "noise_curve-best-own-test-range-input+recurrent-separate-sigmas_0_0.5_2-draws_3-seed_3"
    )
    noise = Noise.of(HARDWARE)
    assert (
        name(noise=noise, values=[8, 4], strength=Strength("adc.bits"), hardware="my chip")
        == f"noise_curve-best-own-test-my_chip_{HARDWARE.identity}-adc_bits_4_8"
    )
    assert name(noise=noise, values=[0, 1], strength=WEIGHTS, hardware="a", chips=3).endswith("-chips_3")


def test_other_measurements_have_other_folders():
    weights = {"values": [0.1], "strength": WEIGHTS, "noise": Noise.of(HARDWARE), "hardware": "chip"}
    changes = [
        {},
        {"checkpoint": "runs/last.ckpt"},
        {"data": Path("own2")},
        {"split": "validation"},
        {"values": [0.0, 1.0]},
        {"values": [k / 7 for k in range(15)]},
        {"values": [k / 7 for k in range(15) if k != 3]},
        {"draws": 20},
        {"damaged": "skip"},
        {"noise": Noise(scale="signal")},
        {"noise": Noise(sites=("input",))},
        {"noise": Noise(arrays="separate")},
        {"noise": Noise(seed=1)},
        weights,
        weights | {"chips": 2},
        weights | {"noise": Noise.of(Hardware(weight=GaussianWeights(per="output")))},
        weights | {"strength": Strength("adc.bits"), "values": [4]},
    ]
    names = [name(**change) for change in changes]
    assert len(set(names)) == len(changes)
    assert all(len(one) < 100 and "/" not in one for one in names)
    assert name(noise=Noise(sites=("output", "input", "recurrent"))) == name()  # the order is no difference


def test_a_curve_over_the_weights_errors_of_several_chips(checkpoint, spoken, tmp_path, capsys):
    copy = tmp_path / "last.ckpt"
    copy.write_bytes(checkpoint.read_bytes())
    options = [
        "--hardware",
        "noisy_weights",
        "--strength",
        "weight.sigma",
        "--strengths",
        "0,0.2",
        "--chips",
        "3",
    ]
    main(["noise-curve", str(copy), "--data", str(spoken), *options, "--draws", "2", "--device", "cpu"])
    (file,) = tmp_path.glob(
        "noise_curve-last-words-test-noisy_weights_*-weight_sigma_0_0.2-chips_3-draws_2/*.csv"
    )
    curve = NoiseCurve.from_csv(file)
    # There is no noise on outputs, so that all draws are the same, and at 0 all chips.
    assert curve.frame[["strength", "chip", "draw"]].to_numpy().tolist() == [
        [0, 0, 0],
        [0.2, 0, 0],
        [0.2, 1, 0],
        [0.2, 2, 0],
    ]
    assert curve.frame["loss"].nunique() == 4
    spotter = load(copy, "cpu")
    noise = Noise.of(read_hardware("noisy_weights"))
    again = spotter.noise_curve(spotter.data(spoken), [0, 0.2], 2, noise=noise, strength=WEIGHTS, chips=3)
    assert again.frame["loss"].tolist() == pytest.approx(curve.frame["loss"].tolist(), rel=1e-4)
    said = capsys.readouterr().out
    assert "weight σ" in said
    assert "over 12 test clips, on these 3 chips" in " ".join(said.split())


def test_a_file_of_ones_own_and_decisions_on_a_chip(checkpoint, spoken, tmp_path):
    hardware = tmp_path / "mine.yaml"
    hardware.write_text("weight: {class_path: GaussianWeights, init_args: {sigma: 0.5}}\n")
    outputs = {}
    for chip in ("0", "1"):
        outputs[chip] = tmp_path / f"{chip}.csv"
        options = ["--hardware", str(hardware), "--chip", chip, "--output", str(outputs[chip])]
        main(["predict", str(checkpoint), str(spoken / "yes"), *options, "--device", "cpu"])
    spotter = load(checkpoint, "cpu")
    noise = Noise.of(read_hardware(str(hardware)), Realisation(chip=1))
    files = sorted((spoken / "yes").iterdir())
    expected = [file.predictions[0].posteriors for file in spotter.predict_files(files, noise=noise)]
    found = pd.read_csv(outputs["1"])[list(expected[0])]
    assert found.to_numpy() == pytest.approx(pd.DataFrame(expected).to_numpy(), abs=1e-5)
    assert outputs["0"].read_text() != outputs["1"].read_text()


BITS = ["--hardware", "noisy_weights", "--strength", "adc.bits"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--sites", "[]"], "sites is empty"),
        (["--sigmas", "0,-1"], "sigmas contains -1"),
        (
            ["--strength", "adc.bits", "--strengths", "4"],
            "--strength is adc.bits, which additive Gaussian noise has not",
        ),
        (["--strength", "Bits", "--strengths", "4"], "strength is 'Bits'"),
        (BITS, "--strength is adc.bits, but there are no levels: give --strengths"),
        ([*BITS, "--strengths", "4,4"], "--strengths contains 4 twice"),
        ([*BITS, "--strengths", "4.5"], "adc.bits: "),
        ([*BITS, "--strengths", "4", "--sigmas", "1"], "--sigmas and --strengths are both given"),
        ([*BITS, "--strengths", "4", "--scale", "range"], "--scale is given beside --hardware"),
        ([*BITS, "--strengths", "4", "--chips", "0"], "chips is 0"),
        (["--chips", "3"], "chips is 3, but on this hardware all chips are the same"),
        (["--hardware", "nothing_such"], "--hardware"),
        (
            ["--hardware", "noisy_weights", "--strength", "output.sigma"],
            "strength output.sigma is not one of this hardware's: weight.sigma",
        ),
    ],
)
def test_mistakes_are_told_before_the_checkpoint_is_read(options, named, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["noise-curve", "nowhere.ckpt", *options])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1
