import math
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from recordings import tone, write

from asr_dni.data.folder import Folder
from asr_dni.data.labels import CANONICAL_WORDS, LabelSettings, label_names, select, select_known
from asr_dni.data.source import SPLITS
from asr_dni.data.store import SILENCE_BIT, clip_id, pack
from asr_dni.errors import UserError

OTHERS = ("bed", "bird", "tree")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Ten canonical words and three others with 7, 3 and 3 clips each, of a hundredth of a second."""
    path = tmp_path_factory.mktemp("words")
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for word in (*CANONICAL_WORDS, *OTHERS):
        for k in range(13):
            write(path / word / f"{k}_nohash_0.wav", tone(440, 0.01))
        lists["validation_list.txt"] += [f"{word}/{k}_nohash_0.wav" for k in (7, 8, 9)]
        lists["testing_list.txt"] += [f"{word}/{k}_nohash_0.wav" for k in (10, 11, 12)]
    for name, lines in lists.items():
        (path / name).write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    source = Folder(folder)
    return pack(source.clips(), [], identity="x", cache_dir=tmp_path_factory.mktemp("cache"), n_samples=160)


def test_all_words_are_sorted(folder):
    assert label_names(LabelSettings(), ["yes", "no", "bed"], "x") == ["bed", "no", "yes"]


def test_a_list_keeps_its_order():
    assert label_names(LabelSettings(["yes", "bed"]), ["bed", "no", "yes"], "x") == ["yes", "bed"]


def test_whole_numbers_are_words():
    settings = LabelSettings([0, 1, 2])
    assert settings == LabelSettings(["0", "1", "2"])
    assert label_names(settings, ["0", "1", "2", "3"], "x") == ["0", "1", "2"]


def test_words_are_the_same_in_another_unicode_form():
    words = ["fünf", "zwei"]
    assert (
        label_names(LabelSettings(["zwei", unicodedata.normalize("NFD", "fünf")]), words, "x") == words[::-1]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (LabelSettings(), "my words has only the word yes; give a folder with two words or more"),
        (
            LabelSettings(["yes"]),
            "from yes; give two words or more, or labels.unknown_percent or labels.silence_percent$",
        ),
    ],
)
def test_one_label_is_nothing_to_tell_apart(settings, message):
    with pytest.raises(UserError, match=message) as error:
        label_names(settings, ["yes"], "my words")
    assert "\n" not in str(error.value)
    assert label_names(LabelSettings(silence_percent=10), ["yes"], "my words") == ["_silence_", "yes"]


def test_canonical_labels_are_in_the_published_order():
    words = [*CANONICAL_WORDS, *OTHERS]
    expected = [
        "_silence_",
        "_unknown_",
        "yes",
        "no",
        "up",
        "down",
        "left",
        "right",
        "on",
        "off",
        "stop",
        "go",
    ]
    assert label_names(LabelSettings("canonical"), words, "x") == expected


def test_a_missing_word_is_named():
    words = ["bed", *(word for word in CANONICAL_WORDS if word not in ("on", "off"))]
    with pytest.raises(UserError, match="on, off: not in my words, which has bed, ") as error:
        label_names(LabelSettings("canonical"), words, "my words")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"words": "some"}, "give all, canonical or a list"),
        ({"words": []}, "an empty list"),
        ({"words": ["yes", "yes"]}, "'yes' is there twice"),
        ({"words": [1, "1"]}, "'1' is there twice"),
        ({"words": ["yes", False]}, "put quotes around each"),
        ({"words": [1.5, 2]}, "YAML reads 1.5 not as a word; put quotes around it"),
        ({"words": [None, 2]}, "YAML reads None not as a word"),
        ({"words": ["yes", "_silence_"]}, "ask for that class with silence_percent"),
        ({"words": ["yes", "_unknown_"]}, "ask for that class with unknown_percent"),
        ({"words": "all", "unknown_percent": 10}, "no other words are left"),
        ({"silence_percent": -1}, "silence_percent: -1 is not valid"),
        ({"words": ["yes"], "unknown_percent": math.nan}, "unknown_percent: nan is not valid"),
        ({"test_set": "other"}, "give rule or archive"),
    ],
)
def test_settings_that_are_not_valid(arguments, message):
    with pytest.raises(UserError, match=message):
        LabelSettings(**arguments)


@pytest.mark.parametrize(("split", "per_word"), [("train", 7), ("validation", 3), ("test", 3)])
def test_canonical_sizes_are_ten_per_cent_of_the_words_rounded_up(store, split, per_word):
    """As published: ceil(set_size * 10 / 100) of each, set_size counting the ten words only."""
    settings = LabelSettings("canonical")
    names = label_names(settings, [*CANONICAL_WORDS, *OTHERS], "x")
    chosen = select(store, settings, names, split)
    counts = np.bincount(chosen.labels, minlength=12)
    assert counts.tolist() == [per_word, per_word] + [per_word] * 10
    made = chosen.labels == names.index("_silence_")
    np.testing.assert_array_equal(chosen.rows == -1, made)
    np.testing.assert_array_equal((chosen.clip_ids & SILENCE_BIT) != 0, made)
    assert len(set(chosen.clip_ids.tolist())) == len(chosen)
    rows = chosen.rows[~made]
    assert set(store.splits[rows]) == {SPLITS.index(split)}
    for row, label in zip(rows, chosen.labels[~made], strict=True):
        word = store.label_names[store.labels[row]]
        assert names[label] == (word if word in CANONICAL_WORDS else "_unknown_")
        assert store.clip_ids[row] in chosen.clip_ids


def test_unknown_clips_are_drawn_by_the_seed(store):
    names = label_names(LabelSettings(["yes", "no"], unknown_percent=50), [*CANONICAL_WORDS, *OTHERS], "x")

    def drawn(seed):
        settings = LabelSettings(["yes", "no"], unknown_percent=50, draw_seed=seed)
        chosen = select(store, settings, names, "train")
        return set(chosen.clip_ids[chosen.labels == names.index("_unknown_")].tolist())

    assert len(drawn(0)) == 7
    assert drawn(0) == drawn(0)
    assert len({frozenset(drawn(seed)) for seed in range(20)}) > 15
    # every other clip gets its turn: 77 clips, 7 drawn, 200 seeds; a clip is missed with probability 6e-9
    assert len(set().union(*(drawn(seed) for seed in range(200)))) == 11 * 7


def test_the_clips_that_are_drawn_stay_the_same_from_version_to_version(store):
    """Accuracies of two versions compare on the same clips only; these are what the first one drew."""
    settings = LabelSettings("canonical")
    chosen = select(store, settings, label_names(settings, store.label_names, "x"), "train")
    unknown = {clip_id(f"{word}/{k}_nohash_0.wav"): f"{word} {k}" for word in OTHERS for k in range(13)}
    drawn = sorted(unknown[clip] for clip in chosen.clip_ids.tolist() if clip in unknown)
    assert drawn == ["bed 3", "bed 4", "bed 5", "bird 4", "bird 6", "tree 2", "tree 3"]


def test_a_draw_does_not_depend_on_the_order_of_the_store(store, folder, tmp_path):
    settings = LabelSettings(["yes"], unknown_percent=100)
    names = ["_unknown_", "yes"]
    clips = Folder(folder).clips()[::-1]
    reversed_store = pack(clips, [], identity="reversed", cache_dir=tmp_path, n_samples=160)
    ids = [set(select(each, settings, names, "train").clip_ids.tolist()) for each in (store, reversed_store)]
    assert ids[0] == ids[1]


def test_silence_of_different_splits_differs(store):
    settings = LabelSettings(silence_percent=20)
    names = label_names(settings, store.label_names, "x")
    ids = [set(select(store, settings, names, split).clip_ids.tolist()) for split in SPLITS]
    assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]


def test_recorded_classes_count_only_where_nothing_is_drawn(tmp_path):
    for label in ("yes", "tree", "_silence_", "_unknown_"):
        write(tmp_path / "w" / label / "a_nohash_0.wav", tone(440, 0.01))
    source = Folder(tmp_path / "w", split="test")
    store = pack(source.clips(), [], identity="x", cache_dir=tmp_path / "c", n_samples=160)
    names = ["_silence_", "_unknown_", "yes"]
    known = select_known(store, names, None)
    assert sorted(known.labels.tolist()) == [0, 1, 2]
    assert not (known.clip_ids & SILENCE_BIT).any()
    with_others = select_known(store, names, "test", other_words=True)
    assert sorted(with_others.labels.tolist()) == [-1, 0, 1, 2]
    assert len(select_known(store, names, "train")) == 0
    drawn = select(store, LabelSettings(["yes"], 100, 100), names, "test")
    labels = [store.label_names[store.labels[row]] for row in drawn.rows if row >= 0]
    assert labels == ["yes", "tree"]


@pytest.mark.parametrize(
    ("settings", "protocol"),
    [
        (LabelSettings(), "all words, own test split"),
        (LabelSettings("canonical"), "12 labels, own test split"),
        (LabelSettings("canonical", test_set="archive"), "12 labels, test archive"),
        (LabelSettings(["yes", "no"]), "2 labels, own test split"),
        (LabelSettings(["yes", "no"], silence_percent=10), "3 labels, own test split"),
        (LabelSettings(["yes", "no"], unknown_percent=10), "3 labels, own test split"),
        (LabelSettings(["yes", "no"], unknown_percent=10, silence_percent=10), "4 labels, own test split"),
        (LabelSettings("canonical", unknown_percent=0), "11 labels, own test split"),
        (LabelSettings("canonical", unknown_percent=0, silence_percent=0), "10 labels, own test split"),
    ],
)
def test_an_accuracy_names_its_protocol(settings, protocol):
    assert settings.protocol == protocol
