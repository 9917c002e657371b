import math
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import ndimage
from sklearn.datasets import load_digits

from asr_dni.cli.main import main
from asr_dni.data import (
    DATA_MODULES,
    DeformationSettings,
    DigitsData,
    Folder,
    KeywordData,
    StrokesData,
    data_class_of,
    data_from_checkpoint,
)
from asr_dni.data.digits import FIRST_OF_FORM, deform
from asr_dni.data.in_memory import ExampleBatch
from asr_dni.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")

SPLITS = {"train": (0, 1157), "validation": (1157, 1415), "test": (1415, 1797)}
DEFORMATION = DeformationSettings(shift=0.7, rotation=10.0, slant=0.2, scale=1.15)


@pytest.fixture(scope="module")
def bundled():
    return load_digits()


def whole(batches):
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


# ---------------------------------------------------------------------- splits


def common_subsequence(a, b):
    """Return the length of the longest one (textbook dynamic programming)."""
    lengths = np.zeros(len(b) + 1, dtype=int)
    for x in a:
        extended = np.where(b == x, lengths[:-1] + 1, 0)
        lengths[1:] = np.maximum.accumulate(np.maximum(lengths[1:], extended))
    return int(lengths[-1])


def test_forms_are_fourteen_copies_of_one_sequence(bundled):
    """Which is what says where one begins: a begin that is off by some digits would leave them unmatched."""
    labels = bundled.target
    parts = np.split(labels, FIRST_OF_FORM[1:])
    preprinted = parts[0]
    assert len(parts) == 14
    assert len(preprinted) == 130
    for part in parts:
        assert (
            common_subsequence(part, preprinted) >= len(part) - 1
        )  # one label is another than in all others


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_holds_whole_forms(split, bundled):
    first, after = SPLITS[split]
    features, labels, clip_ids = whole(DigitsData(normalize=False).batches(split))
    assert first in FIRST_OF_FORM
    assert after in (*FIRST_OF_FORM, 1797)
    np.testing.assert_array_equal(features, bundled.images[first:after])
    np.testing.assert_array_equal(labels, bundled.target[first:after])
    names = DigitsData().clip_names(clip_ids)
    assert names == [f"digits/{index:04d}" for index in range(first, after)]
    assert len(set(clip_ids.tolist())) == after - first


def test_protocols_differ_and_name_what_was_tested_on():
    data = DigitsData()
    named = {split: data.protocol_of(split) for split in SPLITS}
    assert named["test"] == data.protocol
    assert len(set(named.values())) == 3
    with pytest.raises(UserError, match="split: 'all' is not valid; give train, validation, test"):
        data.protocol_of("all")


def test_other_images_are_refused(bundled, monkeypatch):
    changed = bundled.data.copy()
    changed[3, 30] += 1
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda return_X_y: (changed, bundled.target))
    with pytest.raises(UserError, match="not the 1,797 images"):
        DigitsData().prepare_data()


# ---------------------------------------------------------------------- features


def test_features_are_rows_normalised_by_the_training_split(bundled):
    training = bundled.images[:1157]
    features, _, _ = whole(DigitsData().batches("test"))
    expected = (bundled.images[1415:] - training.mean()) / training.std()
    np.testing.assert_allclose(features, expected, atol=1e-6)
    features, _, _ = whole(DigitsData().batches("train"))
    assert features.dtype == torch.float32
    assert features.shape == (1157, DigitsData().n_frames, DigitsData().n_features)
    assert (float(features.mean()), float(features.std())) == pytest.approx((0, 1), abs=1e-3)


def epochs_of(seed, batch_size, epochs=2, deformation=DEFORMATION):
    """Return features by clip, and the order of the clips, of training epochs."""
    data = DigitsData(deformation, batch_size=batch_size, seed=seed)
    data.trainer = None
    data.setup("fit")
    loader, seen = data.train_dataloader(), []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        seen.append(whole(data.transform(batch, training=True, epoch=epoch) for batch in loader))
    return seen


def test_training_batches_are_a_function_of_seed_and_epoch():
    reference, others = epochs_of(3, 64), epochs_of(3, 50)
    for (features, labels, clips), (other_features, other_labels, other_clips) in zip(
        reference, others, strict=True
    ):
        assert torch.equal(clips, other_clips)
        assert torch.equal(labels, other_labels)
        assert torch.equal(features, other_features)  # to the bit, in other batches
    first, second = reference
    assert not torch.equal(first[2], second[2])
    assert torch.equal(first[2].sort()[0], second[2].sort()[0])
    position = int((second[2] == first[2][0]).nonzero())
    assert not torch.allclose(first[0][0], second[0][position], atol=1e-3)  # deformed anew
    assert not torch.equal(first[2], epochs_of(4, 64, epochs=1)[0][2])


def test_lightning_hands_over_images_and_gets_features():
    data = DigitsData()
    batch = next(iter(data.val_dataloader()))
    assert isinstance(batch, ExampleBatch)
    features = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(features.features, next(data.batches("validation")).features)
    assert data.on_after_batch_transfer(features, 0) is features


def test_evaluation_is_not_deformed():
    plain, deformed = DigitsData(), DigitsData(DEFORMATION)
    for split in SPLITS:
        assert torch.equal(whole(plain.batches(split))[0], whole(deformed.batches(split))[0])


def test_each_process_gets_its_share(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    seen = []
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        data = DigitsData()
        data.trainer = None
        seen += whole(data.val_dataloader())[2].tolist()
    assert sorted(seen) == sorted(whole(DigitsData().batches("validation"))[2].tolist())


# ---------------------------------------------------------------------- deformation


def scipy_deformed(image, settings, draws):
    """Deform with scipy's affine_transform, from a matrix put together the other way round."""
    shift_y, shift_x, turn, slant, log_height, log_width = draws
    angle = math.radians(settings.rotation) * turn
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = np.array([[1.0, 0.0], [-slant * settings.slant, 1.0]])
    scale = np.diag([settings.scale**log_height, settings.scale**log_width])
    matrix = scale @ shear @ rotation
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - matrix @ (centre + settings.shift * np.array([shift_y, shift_x]))
    padded = np.pad(image, 2)  # scipy doesn't interpolate between the edge and what is outside, torch does
    offset = offset + 2 - matrix @ np.array([2.0, 2.0])
    return ndimage.affine_transform(padded, matrix, offset, order=1)[2:-2, 2:-2]


def test_deformation_is_the_affine_map_that_scipy_makes():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(20, 8, 8, generator=generator)
    draws = 2 * torch.rand(20, 6, generator=generator) - 1
    settings = DeformationSettings(shift=1.5, rotation=30.0, slant=0.4, scale=1.3)
    deformed = deform(images, settings, draws)
    for image, draw, found in zip(images, draws, deformed, strict=True):
        np.testing.assert_allclose(found, scipy_deformed(image.numpy(), settings, draw.tolist()), atol=1e-4)


def test_deformations_go_where_they_say():
    image = torch.zeros(1, 8, 8)
    image[0, 1:7, 3] = 1.0  # an upright stroke, left of the centre
    down_right = deform(image, DeformationSettings(shift=2.0), torch.tensor([[0.5, 1.0, 0, 0, 0, 0]]))
    assert torch.allclose(down_right, image.roll((1, 2), (1, 2)), atol=1e-5)
    turned = deform(image, DeformationSettings(rotation=90.0), torch.tensor([[0, 0, 1.0, 0, 0, 0]]))
    assert torch.allclose(turned, torch.rot90(image, -1, (1, 2)), atol=1e-5) or torch.allclose(
        turned, torch.rot90(image, 1, (1, 2)), atol=1e-5
    )
    nothing = deform(image, DEFORMATION, torch.zeros(1, 6))
    assert torch.allclose(nothing, image, atol=1e-5)
    larger = deform(image, DeformationSettings(scale=1.5), torch.tensor([[0, 0, 0, 0, -1.0, 0]]))
    assert float(larger.sum()) == pytest.approx(
        8.0, abs=0.5
    )  # the stroke has grown from 6 rows over the edge


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: DigitsData(batch_size=0), "batch_size: 0 is not valid"),
        (lambda: DigitsData(seed=-1), "seed: -1 is not valid"),
        (lambda: DeformationSettings(shift=-1), "deformation.shift: -1 is not valid; give 0"),
        (lambda: DeformationSettings(scale=0.5), "deformation.scale: 0.5 is not valid; give 1"),
        (lambda: DeformationSettings(rotation=math.nan), "deformation.rotation: nan"),
    ],
)
def test_mistakes_in_settings(make, named):
    with pytest.raises(UserError, match=re.escape(named)):
        make()


# ---------------------------------------------------------------------- checkpoints and the command line


@pytest.fixture(autouse=True)
def _restore(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder in which `asr-dni fit` trained for a few epochs on digits."""
    folder = tmp_path_factory.mktemp("fitted")
    settings = {
        "name": "tiny",
        "wandb": "disabled",
        "data_class": "DigitsData",
        "data": {"batch_size": 32, "deformation": {"shift": 0.5}},
        "trainer": {"max_epochs": 6, "accelerator": "cpu"},
        "model": {
            "network": {"units": 32, "layers": 1, "input_gain": 4.0, "recurrent_gain": 2.0},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        },
        "annealing": {"sigma": 0.5},
        "noise_curve": {"sigmas": [0.0, 1.0], "draws": 2, "every_n_epochs": 0},
        "checkpoint": {"monitor": None},
        "seed_everything": 5,
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    before = Path.cwd()
    os.chdir(folder)
    try:
        main(["fit", "--config", "tiny.yaml"])
    finally:
        os.chdir(before)
    return folder


LAST = "runs/tiny/version_0/checkpoints/last.ckpt"


@pytest.fixture
def here(fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    return fitted


def fails(capsys, *command):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(command))
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.fullmatch(r"asr-dni: error: [^\n]+\n", said), said
    return said


def test_fit_learns_and_draws_a_curve(here):
    run = here / "runs" / "tiny" / "version_0"
    curve = pd.read_csv(run / "noise_curve.csv", comment="#")
    assert set(curve["n_clips"]) == {382}
    accuracy = pd.read_csv(run / "metrics.csv")["test/accuracy"].dropna().item()
    assert accuracy > 0.6  # chance is 0.1
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data_class"] == "DigitsData"


def test_a_checkpoint_brings_its_data(here):
    contents = torch.load(LAST, weights_only=True)
    assert data_class_of(contents) is DigitsData
    data = data_from_checkpoint(LAST, batch_size=17)
    assert isinstance(data, DigitsData)
    assert (data.batch_size, data.seed, data.deformation.shift) == (17, 5, 0.5)
    contents["DigitsData"]["statistics"]["mean"] += 1.0
    shifted = whole(DigitsData.from_checkpoint(contents).batches("test"))[0]
    std = contents["DigitsData"]["statistics"]["std"]
    assert torch.allclose(shifted, whole(data.batches("test"))[0] - 1.0 / std, atol=1e-5)


def test_every_data_module_finds_its_own_checkpoints(tone_words, tmp_path):
    modules = [
        DigitsData(seed=3),
        StrokesData(seed=3),
        KeywordData(Folder(str(tone_words)), cache_dir=tmp_path, seed=3),
    ]
    assert {type(module).__qualname__ for module in modules} == set(DATA_MODULES)
    for module in modules:
        module.prepare_data()
        module.setup("fit")
        contents = {
            "datamodule_hyper_parameters": dict(module.hparams),
            type(module).__qualname__: module.state_dict(),
        }
        found = data_from_checkpoint(contents)
        assert type(found) is type(module)
        assert found.seed == 3
        assert dict(found.hparams) == dict(module.hparams)
    with pytest.raises(UserError, match="holds no data settings"):
        data_from_checkpoint({"state_dict": {}})


def test_statistics_of_other_data_are_refused():
    state = {**DigitsData().state_dict(), "source": "Folder words"}
    with pytest.raises(UserError, match="was trained on Folder words"):
        DigitsData().load_state_dict(state)
    with pytest.raises(UserError, match="holds no settings of DigitsData"):
        DigitsData.from_checkpoint({"state_dict": {}})


def test_noise_curve_is_that_of_the_run(here, tmp_path):
    command = ["noise-curve", LAST, "--sigmas", "0,1", "--draws", "2", "--batch_size", "100"]
    main([*command, "--output", str(tmp_path)])
    frames = [
        pd.read_csv(folder / "noise_curve.csv", comment="#")
        for folder in (tmp_path, here / "runs" / "tiny" / "version_0")
    ]
    pd.testing.assert_frame_equal(*frames, rtol=1e-4)


def test_a_checkpoint_alone_is_evaluated_wherever_it_lies(here, tmp_path, capsys):
    moved = tmp_path / "elsewhere" / "moved.ckpt"
    moved.parent.mkdir()
    shutil.copy(LAST, moved)
    main(["predict", "--ckpt_path", str(moved), "--runs", str(tmp_path), "--name", "p"])
    table = pd.read_csv(tmp_path / "p" / "version_0" / "predictions.csv")
    assert list(table["clip"]) == [f"digits/{index:04d}" for index in range(1415, 1797)]
    right = (table["decision"] == load_digits().target[1415:]).mean()
    main(["test", "--ckpt_path", LAST, "--runs", str(tmp_path), "--wandb", "disabled"])
    assert f"accuracy {100 * right:.1f} %" in capsys.readouterr().out


def test_help_lists_the_settings_of_the_chosen_data(here, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--data_class", "DigitsData", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--data.deformation.slant" in said
    assert "--data.cache_dir" not in said


def test_mistakes_on_the_command_line(here, tone_words, capsys):
    said = fails(capsys, "fit", "--config", "tiny.yaml", "--data_class", "Digits")
    assert "data_class is Digits: give one of KeywordData, DigitsData" in said
    assert "data.cache_dir" in fails(capsys, "fit", "--config", "tiny.yaml", "--data.cache_dir", "x")
    assert "was not trained on recordings" in fails(capsys, "noise-curve", LAST, "--data", str(tone_words))
    assert "was not trained on recordings" in fails(capsys, "noise-curve", LAST, "--damaged", "skip")
