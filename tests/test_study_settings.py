import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from tiny_study import SETTINGS, tiny, write

from asr_dni.data import DigitsData, KeywordData
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.axes import usual_levels
from asr_dni.noise import Strength
from asr_dni.study.noise_settings import NoiseModel, ScheduleSettings
from asr_dni.study.reading import read_study, study_from_text
from asr_dni.study.settings import StudySettings

STUDIES = sorted((Path(__file__).parents[1] / "conf" / "study").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_is_read_and_says_what_it_is_for(path):
    study = read_study(path, [] if path.stem != "base" else ["--data=asr_dni.data.DigitsData"])
    assert path.read_text().startswith("# ")
    assert study.settings.name == (path.stem if path.stem != "base" else "study")
    assert study_from_text(study.text) == study


def test_paper_is_what_it_says():
    settings = read_study(next(path for path in STUDIES if path.stem == "paper")).settings
    assert settings.cells == ["rnn", "lstm", "gru"]
    assert settings.units == [32, 64, 128, 256]
    assert settings.seed_list == [0, 1, 2, 3, 4]
    assert [model.scale for model in settings.noise_models] == ["absolute", "signal"]
    for model in settings.noise_models:
        assert len(settings.sigmas_of(model)) == 8
        (sweep,) = settings.sweeps_of(model)
        assert sweep.noise.hardware.scale == model.scale
        assert 0.0 in sweep.values


def test_layers_and_overrides_are_merged(tmp_path):
    (tmp_path / "below.yaml").write_text(
        "data_class: DigitsData\ndata: {batch_size: 32}\nrecipes: {lstm: {dropout: 0.5, input_gain: 4.0}}\n"
    )
    path = tmp_path / "study.yaml"
    path.write_text(
        "layers: [below.yaml]\nrecipes: {lstm: {dropout: 0.2}}\ndata: {deformation: {shift: 1.5}}\n"
    )
    study = read_study(path, ["--seeds=[3, 1]", "--epochs=7", "--data.deformation.slant=0.0"])
    assert study.settings.network("lstm", 8, 1).dropout == 0.2
    assert study.settings.network("lstm", 8, 1).input_gain == 4.0
    assert study.settings.seed_list == [3, 1]
    assert study.settings.epochs == 7
    data = study.make_data(5)
    assert isinstance(data, DigitsData)
    assert (data.seed, data.batch_size, data.deformation.shift, data.deformation.slant) == (5, 32, 1.5, 0.0)


def test_without_a_class_the_data_are_recordings(tmp_path, tone_words):
    path = tmp_path / "study.yaml"
    source = {"class_path": "asr_dni.data.Folder", "init_args": {"path": "nowhere"}}
    path.write_text(yaml.safe_dump({"data": {"source": source, "batch_size": 9}}))
    study = read_study(path, [f"--data.source.path={tone_words}"])
    data = study.make_data(1)
    assert isinstance(data, KeywordData)
    assert (data.batch_size, str(data.source.path)) == (9, str(tone_words))


def test_the_rate_of_a_recipe_replaces_that_of_the_optimiser(tmp_path):
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.3, "weight_decay": 0.5}}
    recipes = {"rnn": {"learning_rate": 0.1}, "others": {"learning_rate": 0.2}}
    study = tiny(tmp_path, optimizer=optimizer, cells=["lstm", "rnn", "mgu"], recipes=recipes)
    parameter = [torch.nn.Parameter(torch.zeros(1))]
    for cell, rate in (("lstm", 0.3), ("rnn", 0.1), ("mgu", 0.2)):
        made = study.make_optimizer(cell)(parameter)
        assert isinstance(made, torch.optim.AdamW)
        assert made.defaults["lr"] == rate
        assert made.defaults["weight_decay"] == 0.5


def test_schedules_move_in_multiples_of_sigma_train():
    falling = ScheduleSettings(schedule="linear", start=1.5, length=0.5)
    assert falling.annealing(2.0)["start"] == 3.0
    assert falling.annealing(2.0)["sigma"] == 2.0
    assert falling.annealing(0.0) == {"sigma": 0.0, "start": 0.0, "schedule": "constant"}


def test_grids_are_those_of_the_scale():
    absolute, signal = NoiseModel(), NoiseModel(scale="signal", sigma_infer=[2.0, 0.0])
    settings = StudySettings(noise_models=[absolute, signal])
    common = tuple(settings.evaluation.sigma_infer)

    def grids_of(settings, model):
        return {sweep.noise.hardware.scale: sweep.values for sweep in settings.sweeps_of(model)}

    assert grids_of(settings, absolute) == {"absolute": common}
    assert grids_of(settings, signal) == {"signal": (0.0, 2.0)}
    both = replace(settings, evaluation=replace(settings.evaluation, scales=["signal", "absolute"]))
    assert grids_of(both, absolute) == {"signal": (0.0, 2.0), "absolute": common}


def test_a_hardware_is_evaluated_over_its_strength_whatever_the_training(tmp_path):
    (tmp_path / "chip.yaml").write_text("weight: {class_path: GaussianWeights}\nadc: {bits: 6}\n")
    on = [f"--evaluation.hardware={tmp_path / 'chip.yaml'}", "--evaluation.draws=2", "--evaluation.seed=3"]
    axis = ["--evaluation.strength=weight.sigma", "--evaluation.strengths=[0.1,0]", "--evaluation.chips=4"]
    study = read_study(write(tmp_path / "study.yaml"), [*on, *axis])
    (tmp_path / "chip.yaml").unlink()
    study = study_from_text(study.text)  # the file need not be where the study goes on
    (sweep,) = study.settings.sweeps_of(study.settings.noise_models[0])
    assert sweep.strength == Strength("weight.sigma", "multiples of the largest weight")
    assert sweep.passes == [(0.0, 0, 0), *((0.1, chip, 0) for chip in range(4))]
    assert sweep.noise.hardware.adc.bits == 6
    assert sweep.noise.realisation.seed == 3


def test_training_and_inference_hardware_are_lists_of_their_own(tmp_path):
    (tmp_path / "chip.yaml").write_text(
        "weight: {class_path: GaussianWeights, init_args: {sigma: 0.1}}\nadc: {bits: 6}\n"
    )
    models = [
        {"hardware": "none"},
        {"hardware": "pcm", "strength": "weight.sigma", "sigma_train": [1.0]},
        {"hardware": "pcm", "strength": "weight.sigma", "sigma_train": [1.0], "drawn": "batch"},
    ]
    on = [
        {"hardware": "pcm", "strengths": [1.0, 86400.0], "at": 86400.0, "chips": 3},
        {"hardware": str(tmp_path / "chip.yaml"), "strength": "adc.bits", "strengths": [4, 8]},
        {"hardware": "gaussian", "draws": 4},
    ]
    study = tiny(tmp_path, noise_models=models, evaluation={"hardwares": on, "draws": 2, "chips": 2})
    (tmp_path / "chip.yaml").unlink()
    study = study_from_text(study.text)
    settings = study.settings
    none, fixed, drawn = settings.noise_models
    assert (settings.sigmas_of(none), none.training_noise().noise.hardware.weight) == ([0.0], ())
    assert {name: one.drawn for name, one in settings.schedules_of(fixed).items()} == {"linear": "no"}
    assert {name: one.drawn for name, one in settings.schedules_of(drawn).items()} == {
        "linear drawn": "batch"
    }
    assert settings.sweeps_of(none) == settings.sweeps_of(drawn)
    time, bits, sigma = settings.sweeps_of(fixed)
    assert (time.strength.path, time.chips, [level.chips for level in time.levels]) == (
        "weight.time",
        3,
        [3, 3],
    )
    assert (bits.strength.path, bits.values, bits.chips) == ("adc.bits", (4.0, 8.0), 2)
    assert (sigma.strength, sigma.chips, sigma.draws) == (Strength(), 1, 4)
    assert sigma.values == usual_levels(sigma.noise.hardware, Strength())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--seeds=0", "seeds is 0: give how many"),
        ("--evaluation.votes=[1,3]", "evaluation.votes: 3 votes need as many draws, but draws is 2"),
        ("--evaluation.votes=[]", "evaluation.votes: votes are []: give numbers of at least 1"),
        ("--evaluation.votes=[2,2]", "evaluation.votes contains a number twice"),
        ("--evaluation.compensation=0", "evaluation.compensation is 0: give a sigma above 0, auto, or null"),
        (
            "--noise_models=[{hardware: pcm_8bit, strength: weight.1.sigma}]\n--evaluation.compensation=auto",
            "evaluation.compensation: compensation is for Gaussian noise on outputs alone",
        ),
        (
            "--schedules={mixed: {drawn: batch}}\n--evaluation.compensation=auto",
            "evaluation.compensation is auto, but the strengths of noise_models[0] are drawn at random",
        ),
        ("--seeds=[1,1]", "seeds contains 1 twice"),
        ("--seeds=[-1]", "seeds contains -1"),
        ("--epochs=0", "epochs is 0: give 1 or more"),
        ("--epochs=many", "epochs: expected int. Got many"),
        ("--cells=[foo]", "cells contains 'foo': give any of rnn, lstm, gru"),
        ("--cells=[]", "cells is empty"),
        ("--units=[0]", "recipes.lstm: network units is 0"),
        ("--unknown=3", "unknown"),
        ("--recipes.lstm.dropout=2", "recipes.lstm: network dropout is 2.0"),
        ("--recipes.lstm.learning_rate=0", "recipes.lstm.learning_rate is 0"),
        ("--optimizer.lr=-1", "optimizer: Invalid learning rate: -1"),
        ("--optimizer=torch.optim.Adan", "optimizer: "),
        ("--data=foo.Bar", "data: "),
        ("--schedules={a: {schedule: exponential}}", "schedules.a: annealing schedule exponential needs"),
        ("--schedules={a: {lenth: 1}}", "schedules: there is no setting 'lenth'"),
        ("--noise_models=[{scale: foo}]", "noise_models: scale: expected one of"),
        ("--noise_models=[{sites: []}]", "noise_models[0]: sites is empty"),
        (
            "--noise_models=[{scale: absolute}, {sites: [output, recurrent, input]}]",
            "noise_models[1] is the noise of noise_models[0]",
        ),
        ("--sigma_train=[0,-1]", "sigma_train: sigmas contains -1"),
        ("--evaluation.draws=0", "evaluation.draws is 0"),
        ("--evaluation.sigma_infer=[]", "evaluation at scale absolute: sigmas is empty"),
        ("--evaluation.strength=adc.bits", "evaluation.strength is given without a hardware"),
        (
            "--evaluation.chips=2",
            "evaluation.chips is 2, but on this study's hardware all chips are the same",
        ),
        ("--evaluation.hardware=nothing", "evaluation.hardware"),
        ("--evaluation.hardware=noisy_weights", "strength output.sigma is not one of this hardware's"),
        ("--evaluation.scales=[]", "evaluation.scales is empty"),
        ("--evaluation.hardwares=[]", "evaluation.hardwares is empty"),
        ("--evaluation.hardwares=[{hardware: foo}]", "evaluation.hardwares[0].hardware"),
        (
            "--evaluation.hardwares=[{hardware: pcm, strengths: [1, 10], at: 5}]",
            "evaluation.hardwares[0].at is 5",
        ),
        (
            "--evaluation.hardwares=[{hardware: gaussian, chips: 3}]",
            "evaluation.hardwares[0]: chips is 3, but on this hardware",
        ),
        (
            "--evaluation.hardwares=[{hardware: pcm}, {hardware: pcm}]",
            "evaluation.hardwares[1] is the hardware of evaluation.hardwares[0]",
        ),
        ("--noise_models=[{hardware: none, sigma_train: [1]}]", "sigma_train is given beside hardware none"),
        ("--noise_models=[{hardware: none, chips: run}]", "chips is given beside hardware none"),
        (
            "--noise_models=[{hardware: none, strength: weight.sigma}]",
            "strength is given beside hardware none",
        ),
        (
            "--noise_models=[{drawn: batch}, {drawn: batch}]",
            "noise_models[1] is the noise of noise_models[0]",
        ),
        ("--training.gradient_clip=0", "training.gradient_clip is 0"),
        ("--training.consistency={draws: 1}", "consistency.draws is 1"),
        ("--training.consistency={draws: 2, weight: 0}", "consistency.weight is 0"),
        ("--population.members=0", "population.members is 0"),
        ("--name=../elsewhere", "name is '../elsewhere'"),
    ],
)
def test_mistakes_are_told_in_one_line_with_the_key(tmp_path, override, said):
    with pytest.raises(UserError) as raised:
        tiny(tmp_path, *override.split("\n"))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_mistake_in_the_recipe_of_further_cells_is_told_with_its_key(tmp_path):
    with pytest.raises(UserError, match=r"^recipes\.others\.learning_rate is 0"):
        tiny(tmp_path, "--recipes.others.learning_rate=0", cells=["mgu"])


def test_a_strength_that_clips_share_is_not_drawn_for_each(tmp_path):
    said = r"^schedules\.mixed: annealing drawn is sample: strength weight\.sigma cannot differ"
    models = [{"hardware": {"weight": {"class_path": "GaussianWeights"}}, "strength": "weight.sigma"}]
    with pytest.raises(UserError, match=said):
        tiny(tmp_path, "--schedules={mixed: {drawn: sample}}", noise_models=models)


def test_there_are_chips_wherever_the_swept_hardware_has_any(tmp_path):
    """Also where only what is on the outputs differs from chip to chip, and only at some strengths."""
    pattern = {"output": {"class_path": "FixedPattern", "init_args": {"gain": 0.3}}}
    exact = {"weight": {"class_path": "GaussianWeights"}, "output": {"sigma": 0.1}}
    models = [
        {"hardware": pattern, "strength": "output.gain", "sigma_infer": [0.0, 0.3]},
        {"hardware": exact, "sigma_infer": [0.0, 0.5]},
    ]
    study = tiny(tmp_path, "--evaluation.chips=3", noise_models=models)
    (on,), (off,) = map(study.settings.sweeps_of, study.settings.noise_models)
    assert [level.chips for level in on.levels] == [1, 3]
    assert [level.chips for level in off.levels] == [1, 1]


def test_signals_have_to_be_measured_where_the_scale_needs_them(tmp_path):
    with pytest.raises(UserError, match=r"training\.calibrate_every is 0, but noise_models"):
        tiny(tmp_path, "--training.calibrate_every=0", "--evaluation.scales=[signal]")
    tiny(tmp_path, "--training.calibrate_every=0")


def test_the_words_of_the_data_reach_the_user(tmp_path):
    with pytest.raises(UserError, match=r"^data: batch_size"):
        tiny(tmp_path, "--data.batch_size=0").make_data(0)
    importlib.import_module("pytorch_lightning.demos.boring_classes")
    with pytest.raises(UserError, match="BoringDataModule: not a SplitData"):
        tiny(
            tmp_path, data={"class_path": "pytorch_lightning.demos.boring_classes.BoringDataModule"}
        ).make_data(0)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match="there is no such configuration file"):
        read_study(tmp_path / "none.yaml")
    path = write(tmp_path / "a.yaml", layers=["gone.yaml"])
    with pytest.raises(UserError, match="a layer of"):
        read_study(path)
    assert SETTINGS["name"] == "tiny"


@pytest.mark.parametrize(
    "changes", [{"seeds": 10**12}, {"seeds": 30_000}, {"seeds": 100, "units": list(range(1, 301))}]
)
def test_more_trainings_than_can_be_planned_are_refused_at_once(tmp_path, changes):
    with pytest.raises(UserError, match=r"number of trainings, cells x units .* give at most 50,000"):
        tiny(tmp_path, **changes)
