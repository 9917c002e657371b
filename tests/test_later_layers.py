"""A list that is given takes the place of the one before: its entries have what was said of them, and defaults."""

from dataclasses import asdict

import pytest
import yaml

from asr_dni.cli.main import main
from asr_dni.model.convolutions import ConvolutionBlock
from asr_dni.study.reading import parse_study, study_from_text


def configured(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    with pytest.raises(SystemExit):
        main(["fit", *arguments, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


BLOCKS = [{"channels": 12}, {"channels": 24, "stride": [1, 2]}, {"channels": 48}]


@pytest.mark.parametrize("by", ["command line", "later file"])
def test_blocks_of_convolutions(by, tmp_path, capsys):
    """As many as the configuration has, whose kernels, strides and kinds are other ones."""
    if by == "command line":
        later = ["--model.network.convolutions.blocks", yaml.safe_dump(BLOCKS, default_flow_style=True)]
    else:
        file = tmp_path / "later.yaml"
        file.write_text(yaml.safe_dump({"model": {"network": {"convolutions": {"blocks": BLOCKS}}}}))
        later = ["--config", str(file)]
    found = configured(capsys, "--config", "eight_words_crnn_small_dni", *later)
    convolutions = found["model"]["network"]["convolutions"]
    assert convolutions["blocks"] == [asdict(ConvolutionBlock(**block)) for block in BLOCKS]
    assert convolutions["width"] == 96


def test_callbacks_are_still_added_and_set_one_by_one(capsys):
    added = ["EMAWeightAveraging", "LearningRateMonitor"]
    settings = [("decay", "0.5"), ("log_momentum", "true")]
    options = [
        option
        for name, (key, value) in zip(added, settings, strict=True)
        for option in (f"--trainer.callbacks+={name}", f"--trainer.callbacks.{key}={value}")
    ]
    callbacks = configured(capsys, "--config", "digits_lstm_dni", *options)["trainer"]["callbacks"]
    assert [its["class_path"].rpartition(".")[2] for its in callbacks] == added
    assert (callbacks[0]["init_args"]["decay"], callbacks[1]["init_args"]["log_momentum"]) == (0.5, True)


def test_hardware_of_a_study():
    former = {"hardware": "noisy_weights", "strength": "adc.bits", "strengths": [3.0, 4.0], "at": 4.0}
    file = {
        "epochs": 1,
        "evaluation": {"hardwares": [former]},
        "data": {"class_path": "asr_dni.data.DigitsData"},
    }
    later = "--evaluation.hardwares=[{hardware: gaussian}]"
    study, _ = parse_study(["--config", yaml.safe_dump(file), later])
    (found,) = study.settings.evaluation.hardwares
    assert (found.hardware, found.strength, found.strengths, found.at) == ("gaussian", None, None, None)
    assert study_from_text(study.text).settings == study.settings
