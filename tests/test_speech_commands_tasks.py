"""The tasks on Speech Commands: labels, splits and test sets, from the published layout to an accuracy."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from speech_commands_tree import PER_SPLIT, SHORT, make_main, make_test_archive

from asr_dni.cli.main import main
from asr_dni.data import KeywordData, SpeechCommands
from asr_dni.data.labels import CANONICAL_WORDS, LabelSettings, label_names, select
from asr_dni.data.source import SPLITS, UNKNOWN, speaker_split
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurve

N_WORDS = {"0.01": 30, "0.02": 35}


@pytest.fixture(scope="module", params=list(N_WORDS))
def version(request):
    return request.param


@pytest.fixture(scope="module")
def root(version, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"v{version}")
    make_main(folder, version)
    make_test_archive(folder, version)
    return folder


def keyword_data(root, version, **labels):
    return KeywordData(
        SpeechCommands(version, root), LabelSettings(**labels), cache_dir=root / "cache", num_workers=1
    )


def chosen(data, split):
    """Names and labels of a split's clips."""
    data.prepare_data()
    data.setup("test" if split == "test" else "fit")
    labels, ids = data.labels_and_ids(split)
    return data.clip_names(ids), [data.label_names[k] for k in labels.tolist()]


def test_all_words_are_split_by_the_lists(root, version):
    data = keyword_data(root, version)
    assert len(data.label_names) == N_WORDS[version]
    for split, per_word in PER_SPLIT.items():
        names, labels = chosen(data, split)
        twin = split == "train"  # the recording that is there twice
        assert len(names) == N_WORDS[version] * per_word + twin
        assert [name.partition("/")[0] for name in names] == labels
        number = str(SPLITS.index(split))
        assert {name.partition("/")[2][0] for name in names} == {number}
    rule = {speaker_split(clip.speaker) for clip in data.source.clips() if clip.split != "train"}
    assert rule != {"validation", "test"}  # the lists and the rule on the names are at odds
    assert data.protocol == f"Speech Commands v{version}, all words, own test split"


@pytest.mark.parametrize("split", SPLITS)
def test_a_tenth_of_the_ten_words_is_unknown_and_silence(root, version, split):
    names, labels = chosen(keyword_data(root, version, words="canonical"), split)
    known = 10 * PER_SPLIT[split]
    tenth = math.ceil(known / 10)
    assert sorted(set(labels)) == sorted([*CANONICAL_WORDS, "_silence_", UNKNOWN])
    assert (labels.count(UNKNOWN), labels.count("_silence_"), len(labels)) == (
        tenth,
        tenth,
        known + 2 * tenth,
    )
    others = set(SpeechCommands(version).words()) - set(CANONICAL_WORDS)
    for name, label in zip(names, labels, strict=True):
        word, _, file = name.partition("/")
        assert label == (UNKNOWN if word in others else word)
        assert label == "_silence_" or file[0] == str(SPLITS.index(split))


def test_the_test_archive_is_the_test_split(root, version):
    data = keyword_data(root, version, words="canonical", test_set="archive")
    names, labels = chosen(data, "test")
    files = root / f"speech_commands_test_set_v{version}"
    assert sorted(names) == sorted(str(f.relative_to(files)) for f in files.glob("*/[!.]*.wav"))
    assert [name.partition("/")[0] for name in names] == labels
    assert (len(labels), labels.count("_silence_"), labels.count(UNKNOWN)) == (24, 2, 2)
    assert data.protocol == f"Speech Commands v{version}, 12 labels, test archive"
    # Two people say a word and another, and nobody speaks in silence.
    assert data.describe().endswith("test 24 clips by 2 speakers")


def test_people_of_the_test_archive_who_are_trained_on_are_told(tmp_path, caplog):
    make_main(tmp_path, "0.01")
    archive = make_test_archive(tmp_path, "0.01")
    for word in CANONICAL_WORDS:  # nobody of the ten words
        for clip in (archive / word).glob("[!.]*"):
            clip.rename(clip.with_name(f"{word}{clip.name}"))
    for clip in (archive / UNKNOWN).glob("bed*"):
        clip.rename(clip.with_name("bed_00000000_nohash_0.wav.wav"))
    data = keyword_data(tmp_path, "0.01", words="canonical", test_set="archive")
    data.prepare_data()
    data.setup()
    assert "speakers of the test split (00000000) are trained on too" in caplog.text


def test_lines_of_the_lists_without_a_file_are_told(tmp_path, caplog):
    path = make_main(tmp_path, "0.01")
    next((path / "wow").glob("1*")).unlink()
    keyword_data(tmp_path, "0.01").prepare_data()
    assert "validation_list.txt: 1 of 30 lines name no file" in caplog.text


def test_short_clips_are_padded_and_damaged_ones_named(tmp_path):
    path = make_main(tmp_path, "0.01")
    data = keyword_data(tmp_path, "0.01")
    data.prepare_data()
    (row,) = [k for k in range(len(data.store)) if data.store.name(k) == SHORT]
    samples = data.store.audio[row]
    assert samples[:6400].any()
    assert not samples[6400:].any()
    (path / SHORT).write_bytes(b"")
    with pytest.raises(UserError, match=f"{SHORT}: an empty file"):
        keyword_data(tmp_path, "0.01").prepare_data()


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [((18538, 2577, 2567), (22246, 3093, 3081)), ((30769, 3703, 4074), (36923, 4445, 4890))],
    ids=["v0.01", "v0.02"],
)
def test_sizes_of_the_12_label_task_are_those_of_the_literature(counts, sizes):
    """Clips of the ten words in each split, and what the published rule makes of them.

    v0.01's sizes are those of TC-ResNet's lists (arXiv:1904.03814), 3,081 and 4,890 also those of the test archives.
    """
    words = [*CANONICAL_WORDS, "tree"]
    settings = LabelSettings("canonical")
    names = label_names(settings, sorted(words), "x")
    for split, n_known, size in zip(SPLITS, counts, sizes, strict=True):
        labels = np.concatenate([np.arange(n_known) % 10, np.full(5000, 10)])
        store = SimpleNamespace(
            label_names=words,
            labels=labels,
            splits=np.full(len(labels), SPLITS.index(split)),
            clip_ids=np.arange(len(labels)),
        )
        assert len(select(store, settings, names, split)) == size


def fit(root, version, experiment):
    """Train for an epoch as the configuration says, and measure a noise curve."""
    options = {
        "config": experiment,
        "runs": root / "runs",
        "name": experiment,
        "data.source.init_args.version": version,
        "data.source.init_args.root": root,
        "data.cache_dir": root / "cache",
        "data.batch_size": 64,
        "model.network.units": 8,
        "trainer.max_epochs": 1,
        "trainer.accelerator": "cpu",
        "noise_curve.sigmas": "[0.0, 1.0]",
        "noise_curve.draws": 1,
        "noise_curve.validation_draws": 1,
        "wandb": "disabled",
    }
    main(["fit", *(f"--{key}={value}" for key, value in options.items())])
    run = root / "runs" / experiment / "version_0"
    return NoiseCurve.from_csv(run / "noise_curve.csv")


@pytest.mark.parametrize(
    "experiment",
    [
        "speech_commands_12_lstm_dni",
        *(
            pytest.param(f"speech_commands_{task}_{kind}", marks=pytest.mark.slow)
            for task in (12, 35)
            for kind in ("lstm_conventional", "lstm_dni", "crnn_conventional", "crnn_dni")
            if (task, kind) != (12, "lstm_dni")
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("restored_process")
def test_an_experiment_from_the_archives_to_a_noise_curve(root, version, experiment):
    curve = fit(root, version, experiment)
    labels, n_clips = (
        ("12 labels, test archive", 24) if "_12_" in experiment else ("all words, own test split", 0)
    )
    assert curve.settings["protocol"] == f"Speech Commands v{version}, {labels}"
    assert set(curve.frame["n_clips"]) == {n_clips or N_WORDS[version]}
    assert set(curve.frame["strength"]) == {0.0, 1.0, 2.0}  # those asked for and those watched
