import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningCLI
from recordings import make_folder, tone, write
from torch import nn

from asr_dni.data import (
    AugmentationSettings,
    Batch,
    ClipFeatures,
    Folder,
    FolderClips,
    KeywordData,
    LabelSettings,
    SpeechCommands,
)
from asr_dni.data.labels import CANONICAL_WORDS
from asr_dni.data.silence import silence
from asr_dni.data.store import SILENCE_BIT
from asr_dni.errors import UserError
from asr_dni.features import MFCC, FrontEnd, LogMel
from asr_dni.philox import derive_key

AUGMENTED = AugmentationSettings(time_shift_ms=50, time_masks=1, frequency_masks=1)
MEL_MASKS = AugmentationSettings(
    time_shift_ms=0, background_probability=0, frequency_masks=2, frequency_mask_bins=8, mask_mel_bands=True
)


class Louder(MFCC):
    """Computes clips in its own way, so that bands of the class above can't be masked."""

    def forward(self, waveforms):
        return super().forward(2 * waveforms)


@pytest.fixture
def words(tmp_path) -> Path:
    return make_folder(tmp_path / "words")


@pytest.fixture
def make(words, tmp_path):
    def make(**options):
        source = options.pop("source", None) or Folder(words)
        options = {"augmentation": AUGMENTED, "batch_size": 4, "cache_dir": tmp_path / "cache", **options}
        return KeywordData(source, **options)

    return make


class Classifier(LightningModule):
    """As small as a network can be; it remembers what it was given."""

    def __init__(self, n_features: int = 20, n_labels: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(n_features, n_labels)
        self.seen: dict[str, list[Batch]] = {"train": [], "validation": [], "test": [], "predict": []}

    def _step(self, batch, kind):
        self.seen[kind].append(batch)
        logits = self.layer(batch.features.mean(dim=1))
        return nn.functional.cross_entropy(logits, batch.labels.clamp(min=0))

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self._step(batch, "validation")

    def test_step(self, batch, batch_idx):
        self._step(batch, "test")

    def predict_step(self, batch, batch_idx):
        self._step(batch, "predict")
        return batch.clip_ids

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path, **options):
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 2,
        "default_root_dir": tmp_path,
    }
    return Trainer(**{**defaults, **options})


def ids(batches):
    return torch.cat([batch.clip_ids for batch in batches])


def features_by_clip(batches):
    return {
        int(identity): row
        for batch in batches
        for identity, row in zip(batch.clip_ids, batch.features, strict=True)
    }


def all_equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# ---------------------------------------------------------------- before the data


def test_what_the_network_needs_is_known_at_once(tmp_path):
    data = KeywordData(
        SpeechCommands("0.02", tmp_path),
        labels=LabelSettings("canonical"),
        front_end=MFCC(n_mfcc=13, deltas=1),
        clip_seconds=0.5,
    )
    assert len(data.label_names) == 12
    assert data.n_features == 26
    assert (data.n_samples, data.sample_rate) == (8000, 16000)
    assert data.n_frames == data.front_end.n_frames(8000)
    assert data.protocol == "Speech Commands v0.02, 12 labels, own test split"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0"),
        ({"num_workers": 0}, "num_workers: 0"),
        ({"damaged": "ignore"}, "give error or skip"),
        ({"seed": -1}, "seed: -1"),
        (
            {"augmentation": MEL_MASKS, "normalize": False},
            "mask_mel_bands: no mel bands can be masked: their mean is not known, give normalize: true",
        ),
        (
            {"augmentation": MEL_MASKS, "front_end": Louder()},
            "mask_mel_bands: no mel bands can be masked: Louder makes features of none",
        ),
        ({"clip_seconds": 0.0}, r"clip_seconds: 0\.0"),
        ({"clip_seconds": math.nan}, "clip_seconds: nan"),
        ({"clip_seconds": 0.001}, r"clip_seconds: 0\.001 is not valid; give at least 0.03"),
    ],
)
def test_settings_that_are_not_valid(make, options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


# ---------------------------------------------------------------- training


def test_fit_sees_every_training_clip_once_per_epoch_as_features(make, tmp_path):
    data, network = make(), Classifier()
    trainer(tmp_path).fit(network, datamodule=data)
    assert len(network.seen["train"]) == 2 * 5
    epochs = [network.seen["train"][:5], network.seen["train"][5:]]
    store = data.store
    expected = sorted(store.clip_ids[store.splits == 0].tolist())
    assert [sorted(ids(epoch).tolist()) for epoch in epochs] == [expected, expected]
    assert ids(epochs[0]).tolist() != ids(epochs[1]).tolist()
    batch = network.seen["train"][0]
    assert isinstance(batch, Batch)
    assert batch.features.shape == (4, data.n_frames, data.n_features)
    assert batch.features.dtype == torch.float32
    label_of = dict(zip(store.clip_ids.tolist(), store.labels.tolist(), strict=True))
    for batch in network.seen["train"]:
        assert batch.labels.tolist() == [label_of[identity] for identity in batch.clip_ids.tolist()]


def test_only_training_batches_are_augmented(make, tmp_path):
    data, network = make(), Classifier()
    trainer(tmp_path).fit(network, datamodule=data)
    first = features_by_clip(network.seen["train"][:5])
    second = features_by_clip(network.seen["train"][5:])
    plain = features_by_clip(data.batches("train"))
    for identity in plain:
        assert not torch.equal(first[identity], plain[identity])
        assert not torch.equal(first[identity], second[identity])
    assert all_equal(
        features_by_clip(network.seen["validation"]), features_by_clip(data.batches("validation"))
    )


def test_validation_features_are_the_front_end_of_the_files(make, words):
    """Against the parts alone: soundfile's samples through an MFCC with the statistics."""
    data = make()
    data.setup("fit")
    mfcc = ClipFeatures(data.front_end)
    mfcc.load_state_dict(data.state_dict()["statistics"])
    expected = {}
    for name in (words / "validation_list.txt").read_text().split():
        samples, _ = __import__("soundfile").read(words / name, dtype="float32")
        expected[name] = mfcc(torch.from_numpy(samples))
    for batch in data.batches("validation"):
        for name, features in zip(data.clip_names(batch.clip_ids), batch.features, strict=True):
            torch.testing.assert_close(features, expected.pop(name))
    assert not expected


def test_statistics_are_those_of_the_training_split(make):
    data = make()
    data.setup("fit")
    frames = torch.cat([batch.features.flatten(0, 1) for batch in data.batches("train")])
    torch.testing.assert_close(frames.mean(0), torch.zeros(20), atol=1e-3, rtol=0)
    torch.testing.assert_close(frames.std(0, correction=0), torch.ones(20), atol=1e-3, rtol=0)


def test_statistics_are_computed_once_per_cache(make, monkeypatch):
    first = make()
    first.setup("fit")
    monkeypatch.setattr(ClipFeatures, "fit_statistics", None)  # calling it would fail
    second = make()
    second.setup("fit")
    assert all_equal(first.state_dict()["statistics"], second.state_dict()["statistics"])


@pytest.mark.parametrize("damage", ["", '{"crc32": 0, "value": {}}', "{", "[1, 2]"])
def test_damaged_statistics_are_computed_anew(make, damage, caplog):
    first = make()
    first.setup("fit")
    (path,) = Path(first.cache_dir).glob("*.statistics/*.json")
    whole = path.read_text()
    path.write_text(damage or whole.replace("1", "2"))
    second = make()
    second.setup("fit")
    assert all_equal(first.state_dict()["statistics"], second.state_dict()["statistics"])
    assert path.read_text() == whole
    assert "computed anew" in caplog.text


def test_training_does_not_depend_on_batch_size_or_workers(make):
    def augmented(batch_size, num_workers, cache):
        data = make(batch_size=batch_size, num_workers=num_workers, cache_dir=cache)
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(3)
        return [data.transform(batch, training=True, epoch=3) for batch in loader]

    folder = make().cache_dir
    first = augmented(4, 1, folder / "one")
    second = augmented(7, 3, folder / "two")
    assert torch.equal(ids(first), ids(second))
    assert all_equal(features_by_clip(first), features_by_clip(second))


def test_mel_bands_are_masked_in_training_alone(make):
    """A mask of neighbouring bands changes all coefficients of an MFCC; its time course is that of the clip."""
    data = make(augmentation=MEL_MASKS)
    data.setup()
    clips = next(iter(data.train_dataloader()))
    exact = data.transform(clips).features
    masked = data.transform(clips, training=True, epoch=1).features
    bands = data.augment.masked_bands(40, clips.clip_ids, 1)
    assert torch.equal((masked != exact).flatten(1).any(1), bands.any(1))
    assert bands.any()
    front_end = data.features.front_end
    log_mel = LogMel(n_mels=40)(data._to_float(clips, ("none",)))
    fill = data.features.mean @ front_end._dct.T
    expected = (
        torch.where(bands[:, None], fill, log_mel) @ front_end._dct - data.features.mean
    ) / data.features.std
    torch.testing.assert_close(masked, expected, atol=1e-3, rtol=1e-3)


def test_other_seeds_give_other_orders_and_augmentation(make):
    def first_batch(seed):
        data = make(seed=seed, batch_size=18)
        data.setup("fit")
        (batch,) = data.train_dataloader()
        return data.transform(batch, training=True)

    assert first_batch(0).clip_ids.tolist() != first_batch(1).clip_ids.tolist()
    features = [features_by_clip([first_batch(seed)]) for seed in (0, 1, 0)]
    assert all_equal(features[0], features[2])
    assert not any(torch.equal(features[0][key], features[1][key]) for key in features[0])


class SaveAt(Callback):
    """Saves a checkpoint after so many steps."""

    def __init__(self, step: int, path: Path) -> None:
        self.step = step
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("step", [3, 5, 7])  # in the first epoch of five steps, at its end, in the second
def test_a_resumed_run_sees_what_the_uninterrupted_run_saw(make, tmp_path, step):
    path = tmp_path / "middle.ckpt"
    whole = Classifier()
    trainer(tmp_path, max_epochs=3, callbacks=[SaveAt(step, path)]).fit(whole, datamodule=make())
    resumed = Classifier()
    trainer(tmp_path, max_epochs=3).fit(resumed, datamodule=make(), ckpt_path=path)
    expected, found = whole.seen["train"][step:], resumed.seen["train"]
    assert [batch.clip_ids.tolist() for batch in found] == [batch.clip_ids.tolist() for batch in expected]
    assert all(torch.equal(a.features, b.features) for a, b in zip(found, expected, strict=True))


def test_a_run_resumed_from_the_end_of_an_epoch(make, tmp_path):
    whole = Classifier()
    saving = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    options = {"max_epochs": 3, "enable_checkpointing": True}
    trainer(tmp_path, callbacks=[saving], **options).fit(whole, datamodule=make())
    resumed = Classifier()
    trainer(tmp_path, max_epochs=3).fit(resumed, datamodule=make(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert torch.equal(ids(whole.seen["train"][5:]), ids(resumed.seen["train"]))


def test_overfitting_sees_the_same_batches_in_every_epoch(make, tmp_path):
    network = Classifier()
    trainer(tmp_path, overfit_batches=2).fit(network, datamodule=make())
    assert len(network.seen["train"]) == 4
    first, second = network.seen["train"][:2], network.seen["train"][2:]
    assert torch.equal(ids(first), ids(second))


# ---------------------------------------------------------------- labels


def canonical_folder(path, others=("bed", "tree")):
    return make_folder(path, [*CANONICAL_WORDS, *others], per_split=(3, 2, 2), seconds=0.2)


def test_canonical_task_by_rule(make, tmp_path):
    data = make(
        source=Folder(canonical_folder(tmp_path / "canonical")),
        labels=LabelSettings("canonical"),
        batch_size=64,
    )
    data.setup()
    for split, per_word in (("train", 3), ("validation", 2), ("test", 2)):
        (batch,) = data.batches(split)
        assert torch.bincount(batch.labels).tolist() == [per_word] * 12
        names = data.clip_names(batch.clip_ids)
        for name, label in zip(names, batch.labels.tolist(), strict=True):
            if label == 0:
                assert name == "_silence_"
            elif label == 1:
                assert name.split("/")[0] in ("bed", "tree")
            else:
                assert name.split("/")[0] == data.label_names[label]


def test_canonical_task_with_the_test_archive(make, tmp_path):
    archive = tmp_path / "archive"
    for label in ("_silence_", "_unknown_", *CANONICAL_WORDS):
        for k in range(3):
            write(archive / label / f"{k}_nohash_0.wav", tone(300))
    source = Folder(canonical_folder(tmp_path / "canonical"), test_archive_path=archive)
    data = make(source=source, labels=LabelSettings("canonical", test_set="archive"), batch_size=64)
    data.prepare_data()
    data.setup()
    (batch,) = data.batches("test")
    assert torch.bincount(batch.labels).tolist() == [3] * 12
    assert not (batch.clip_ids & SILENCE_BIT).any()  # recorded, not made
    (row,) = (batch.clip_ids == batch.clip_ids[batch.labels == 0][0]).nonzero()
    assert data.clip_names(batch.clip_ids[row]) == ["_silence_/0_nohash_0.wav"]
    assert len(next(iter(data.batches("train"))).labels) == 36
    assert "test archive" in data.protocol


def test_a_source_without_a_test_archive_says_so(make):
    with pytest.raises(UserError, match="has no separate test archive"):
        make(labels=LabelSettings(test_set="archive")).prepare_data()


def test_silence_is_background_at_a_volume_up_to_one(words):
    background = torch.from_numpy(np.random.default_rng(0).standard_normal(50_000).astype(np.float32))
    clip_ids = torch.arange(4000)
    clips = silence(background, clip_ids, derive_key(0), 100)
    unfolded = background.unfold(0, 100, 1)
    normed = unfolded / unfolded.norm(dim=1, keepdim=True)
    best = (clips @ normed.T).max(dim=1)
    torch.testing.assert_close(best.values, clips.norm(dim=1))  # each is a piece of the background, scaled
    volumes = clips.norm(dim=1) / unfolded.norm(dim=1)[best.indices]
    starts = best.indices / len(unfolded)
    for values in (
        volumes,
        starts.float(),
    ):  # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed once in 1,000 times
        ordered = values.sort().values
        distance = (ordered - torch.linspace(0, 1, len(values))).abs().max()
        assert distance < 1.95 / math.sqrt(len(values))


def test_made_silence_changes_with_the_epoch_in_training_only(make, tmp_path):
    data = make(
        source=Folder(canonical_folder(tmp_path / "canonical")),
        labels=LabelSettings("canonical"),
        batch_size=64,
        augmentation=AugmentationSettings.off(),
    )
    data.setup()
    (audio,) = data.train_dataloader()

    def silent(**options):
        batch = data.transform(audio, **options)
        return batch.features[batch.labels == 0]

    spoken = {
        epoch: data.transform(audio, training=True, epoch=epoch).features[audio.labels > 0]
        for epoch in (0, 1)
    }
    assert torch.equal(spoken[0], spoken[1])
    assert not torch.equal(silent(training=True, epoch=0), silent(training=True, epoch=1))
    assert torch.equal(silent(training=True, epoch=1), silent(training=True, epoch=1))
    assert torch.equal(silent(), silent())
    assert silent().std() > 0


def test_silence_needs_background(make, tmp_path):
    folder = make_folder(tmp_path / "quiet", background_seconds=0)
    data = make(source=Folder(folder), labels=LabelSettings(silence_percent=10))
    with pytest.raises(UserError, match="made from background recordings and there are none"):
        data.setup("fit")


# ---------------------------------------------------------------- mistakes


def test_a_split_left_empty_is_named(make, tmp_path):
    source = Folder(make_folder(tmp_path / "small", per_split=(3, 0, 2)))
    (tmp_path / "small" / "validation_list.txt").write_text("")
    data = make(source=source)
    with pytest.raises(UserError, match="no clips are left in the validation split") as error:
        data.setup("fit")
    assert "\n" not in str(error.value)
    data.setup("test")  # needs no validation clips


def test_a_word_without_training_clips_is_named(make, words):
    with (words / "testing_list.txt").open("a") as file:
        file.writelines(f"no/{k:08x}_nohash_1.wav\n" for k in range(6))
    with pytest.raises(UserError, match="no training clips of no;"):
        make().setup("fit")


def test_damaged_clips_of_words_that_are_not_asked_for_do_not_matter(make, words):
    (words / "go" / "bad.wav").write_bytes(b"")
    data = make(labels=LabelSettings(["yes", "no"]))
    data.setup()
    assert len(data.store) == 20
    with pytest.raises(UserError, match=r"bad\.wav: an empty file"):
        make().setup()
    skipping = make(damaged="skip")
    skipping.setup()
    assert len(skipping.store) == 30


# ---------------------------------------------------------------- checkpoints


@pytest.fixture
def checkpoint(make, tmp_path):
    data = make(labels=LabelSettings(["yes", "go"]), front_end=MFCC(n_mfcc=13))
    run = trainer(tmp_path)
    run.fit(Classifier(13, 2), datamodule=data)
    run.save_checkpoint(tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_a_checkpoint_has_plain_types_only(checkpoint):
    contents = torch.load(checkpoint, weights_only=True)
    assert contents["KeywordData"]["label_names"] == ["yes", "go"]
    settings = contents["datamodule_hyper_parameters"]["data"]
    assert settings["source"]["class_path"] == "asr_dni.data.folder.Folder"
    assert settings["front_end"]["init_args"]["n_mfcc"] == 13


def test_data_are_rebuilt_from_a_checkpoint(checkpoint, make, tmp_path):
    data = KeywordData.from_checkpoint(checkpoint)
    assert data.label_names == ["yes", "go"]
    assert data.front_end.identity == MFCC(n_mfcc=13).identity
    assert data.augmentation == AUGMENTED
    assert data.batch_size == 4
    original = make(labels=LabelSettings(["yes", "go"]), front_end=MFCC(n_mfcc=13))
    original.setup()
    assert all_equal(data.state_dict()["statistics"], original.state_dict()["statistics"])
    assert all_equal(features_by_clip(data.batches("test")), features_by_clip(original.batches("test")))
    again = KeywordData.from_checkpoint(torch.load(checkpoint, weights_only=True), batch_size=9)
    assert again.batch_size == 9


def test_statistics_come_from_the_checkpoint_not_from_the_data(checkpoint, words, monkeypatch):
    contents = torch.load(checkpoint, weights_only=True)
    contents["KeywordData"]["statistics"]["mean"] += 1.0
    before = features_by_clip(KeywordData.from_checkpoint(checkpoint).batches("test"))
    after = features_by_clip(KeywordData.from_checkpoint(contents).batches("test"))
    std = contents["KeywordData"]["statistics"]["std"]
    for key in before:
        torch.testing.assert_close(after[key], before[key] - 1.0 / std, atol=1e-4, rtol=1e-4)


def test_labels_stay_those_of_the_checkpoint_when_the_folder_grows(make, words, tmp_path):
    run = trainer(tmp_path)
    run.fit(Classifier(), datamodule=make())
    run.save_checkpoint(tmp_path / "a.ckpt")
    write(words / "alpha" / "a_nohash_0.wav", tone(440))
    data = KeywordData.from_checkpoint(tmp_path / "a.ckpt")
    assert data.label_names == ["go", "no", "yes"]
    assert len(ids(data.batches("test"))) == 6
    other_order = make(labels=LabelSettings(["yes", "no", "go"]))
    with pytest.raises(
        UserError, match="the checkpoint tells apart go, no, yes, but these data have yes, no, go"
    ):
        trainer(tmp_path).fit(Classifier(), datamodule=other_order, ckpt_path=tmp_path / "a.ckpt")


def test_another_front_end_does_not_take_a_checkpoint(checkpoint, make):
    state = torch.load(checkpoint, weights_only=True)["KeywordData"]
    with pytest.raises(UserError, match="another front end"):
        make(labels=LabelSettings(["yes", "go"])).load_state_dict(state)


def test_test_and_predict_use_the_checkpoint(checkpoint, make, tmp_path):
    for task in ("test", "predict", "validate"):
        network = Classifier(13, 2)
        getattr(trainer(tmp_path), task)(
            network, datamodule=KeywordData.from_checkpoint(checkpoint), ckpt_path=checkpoint
        )
        seen = network.seen["validation" if task == "validate" else task]
        assert len(ids(seen)) == 4


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint", {"state_dict": {}}, [1]])
def test_what_is_no_checkpoint_is_one_line(tmp_path, content):
    path = tmp_path / "x.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=str(path)) as error:
        KeywordData.from_checkpoint(path)
    assert "\n" not in str(error.value)


def test_hyper_parameters_do_not_collide_with_a_model_that_has_a_seed(make, tmp_path):
    class Seeded(Classifier):
        def __init__(self, seed: int = 5) -> None:
            super().__init__()
            self.save_hyperparameters()

    trainer(tmp_path, logger=True, max_epochs=1).fit(Seeded(), datamodule=make())


# ---------------------------------------------------------------- other folders


def test_any_folder_is_evaluated_with_the_checkpoints_labels(checkpoint, tmp_path, caplog):
    other = tmp_path / "other"
    for k in range(3):
        write(other / "yes" / f"a{k}_nohash_0.wav.wav", tone(500), rate=16000)
        write(other / "go" / f"b{k}.wav", np.stack([tone(300, rate=8000)] * 2, axis=1), rate=8000)
        write(other / "tree" / f"c{k}_nohash_0.wav", tone(700))
    data = FolderClips.for_checkpoint(checkpoint, other, split="all")
    with caplog.at_level(logging.WARNING):
        network = Classifier(13, 2)
        trainer(tmp_path).test(network, datamodule=data)
    batches = network.seen["test"]
    names = data.clip_names(ids(batches))
    assert sorted(names) == sorted(
        [f"yes/a{k}_nohash_0.wav.wav" for k in range(3)] + [f"go/b{k}.wav" for k in range(3)]
    )
    for name, label in zip(names, torch.cat([batch.labels for batch in batches]).tolist(), strict=True):
        assert name.split("/")[0] == ["yes", "go"][label]
    assert data.left_out == {"tree": 3}
    assert "left out 3 clips of words that the network does not know: tree (3)" in caplog.text
    network = Classifier(13, 2)
    predicted = torch.cat(trainer(tmp_path).predict(network, datamodule=data))
    assert len(predicted) == 9  # all of them
    assert (
        sorted(torch.cat([batch.labels for batch in network.seen["predict"]]).tolist())
        == [-1] * 3 + [0] * 3 + [1] * 3
    )


def test_a_folder_with_the_same_clips_gives_the_same_batches(checkpoint, words):
    """Also their identities: whatever is drawn for a clip is drawn alike."""
    own = KeywordData.from_checkpoint(checkpoint)
    other = FolderClips.for_network_of(own, words, split="test")
    assert all_equal(features_by_clip(own.batches("test")), features_by_clip(other.batches("test")))
    everything = FolderClips.for_network_of(own, words, split="all")
    assert len(ids(everything.batches("test"))) == 20


def test_a_folder_is_not_evaluated_without_the_networks_statistics(checkpoint, make, words):
    with pytest.raises(UserError, match="statistics are missing"):
        FolderClips.for_network_of(make(), words).setup("test")
    contents = torch.load(checkpoint, weights_only=True)
    contents["KeywordData"]["statistics"]["count"] *= 0
    with pytest.raises(UserError, match="no statistics of the features"):
        FolderClips.for_checkpoint(contents, words)


def test_a_folder_of_unknown_words_only_is_an_error(checkpoint, tmp_path):
    write(tmp_path / "other" / "tree" / "a.wav", tone(440))
    data = FolderClips.for_checkpoint(checkpoint, tmp_path / "other", split="all")
    with pytest.raises(UserError, match=r"no clips of the words that the network knows \(yes, go\)") as error:
        data.setup("test")
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- command line


class CommandLine(LightningCLI):
    def add_arguments_to_parser(self, parser):
        parser.link_arguments("data.n_features", "model.n_features", apply_on="instantiate")


def test_settings_from_yaml(words, tmp_path):
    settings = {
        "source": {"class_path": "asr_dni.data.Folder", "init_args": {"path": str(words)}},
        "labels": {"words": ["yes", "no"], "silence_percent": 20},
        "front_end": {"n_mfcc": 12, "deltas": 1},
        "augmentation": {"time_shift_ms": 10, "gain_db": [-3, 3]},
        "batch_size": 5,
        "cache_dir": str(tmp_path / "cache"),
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"data": settings}))
    cli = CommandLine(
        Classifier,
        KeywordData,
        run=False,
        save_config_callback=None,
        args=["--config", str(path), "--data.seed", "3", "--trainer.logger", "false"],
    )
    data = cli.datamodule
    assert isinstance(data, KeywordData)
    assert isinstance(data.source, Folder)
    assert data.label_names == ["_silence_", "yes", "no"]
    assert data.seed == 3
    assert cli.model.layer.in_features == data.n_features == 24
    assert data.augmentation.gain_db == (-3, 3)
    data.setup("fit")
    state = {"datamodule_hyper_parameters": dict(data.hparams), "KeywordData": data.state_dict()}
    torch.save(state, tmp_path / "x.ckpt")
    again = KeywordData.from_checkpoint(tmp_path / "x.ckpt")
    assert again.hparams == data.hparams


def from_command_line(words, chosen):
    arguments = ["--data.source", "asr_dni.data.Folder", "--data.source.path", str(words)]
    cli = LightningCLI(
        Classifier,
        KeywordData,
        run=False,
        save_config_callback=None,
        args=[*arguments, "--data.labels.words", chosen, "--trainer.logger", "false"],
    )
    return cli.datamodule


def test_words_can_be_named_on_the_command_line(words):
    assert from_command_line(words, "[go, 'yes']").label_names == ["go", "yes"]
    assert from_command_line(words, "all").label_names == ["go", "no", "yes"]


def test_words_that_yaml_takes_for_truth_values_get_a_clear_line(words):
    with pytest.raises(UserError, match="put quotes around each of these words"):
        from_command_line(words, "[go, yes]")


def test_transform_leaves_other_batches_alone(make):
    assert make().on_after_batch_transfer("something", 0) == "something"


class Samples(FrontEnd):
    """The samples themselves, a frame each."""

    sample_rate = 16000
    n_features = 1

    def n_frames(self, n_samples):
        return n_samples

    def forward(self, waveforms):
        return waveforms[..., None]


def test_waveforms_are_full_scale_at_32768():
    samples = torch.tensor([[-32768, 16384]], dtype=torch.int16)
    assert ClipFeatures(Samples(), normalize=False)(samples)[..., 0].tolist() == [[-1.0, 0.5]]
