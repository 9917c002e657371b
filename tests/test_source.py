import doctest
import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

import asr_dni.data.source
from asr_dni.configuration import from_configuration
from asr_dni.data.folder import Folder
from asr_dni.data.source import Clip, Source, speaker_of, speaker_split
from asr_dni.errors import UserError

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "speech_commands_8"


@pytest.mark.skipif(
    not REAL.exists(), reason="the real recordings (../shared/data/speech_commands_8) are not here"
)
def test_rule_reproduces_the_lists_of_the_real_data():
    lists = {"validation": "validation_list.txt", "test": "testing_list.txt"}
    listed = {line: split for split, name in lists.items() for line in (REAL / name).read_text().split()}
    names = [f"{path.parent.name}/{path.name}" for path in REAL.glob("[a-z]*/*.wav")]
    assert len(names) == 5120 + 863 + 845
    for name in names:
        assert speaker_split(speaker_of(name.split("/")[1])) == listed.get(name, "train"), name


def which_set(filename, validation_percentage, testing_percentage):
    """The published rule, written from its description: the oracle for other percentages."""
    hash_name = re.sub(r"_nohash_.*$", "", filename)
    digest = int(hashlib.sha1(hash_name.encode()).hexdigest(), 16)
    percentage = (digest % (2**27)) * (100.0 / (2**27 - 1))
    if percentage < validation_percentage:
        return "validation"
    if percentage < testing_percentage + validation_percentage:
        return "test"
    return "train"


@pytest.mark.parametrize(("validation", "test"), [(10, 10), (0, 10), (25, 50)])
def test_rule_with_other_percentages(validation, test):
    counts = Counter()
    for number in range(4000):
        speaker = f"{number * 2654435761 % 2**32:08x}"
        split = speaker_split(speaker, validation, test)
        assert split == which_set(f"{speaker}_nohash_0.wav", validation, test)
        counts[split] += 1
    # binomial, n = 4000: 5 standard deviations, a false alarm in about 2 million
    for name, percent in (("validation", validation), ("test", test)):
        p = percent / 100
        assert abs(counts[name] - 4000 * p) <= 5 * (4000 * p * (1 - p)) ** 0.5


@pytest.mark.parametrize(
    ("file_name", "speaker"),
    [
        ("0a7c2a8d_nohash_0.wav", "0a7c2a8d"),
        ("0a7c2a8d_nohash_0.wav.wav", "0a7c2a8d"),
        ("bed_00f0204f_nohash_0.wav", "bed_00f0204f"),
        ("anna.take.2.flac", "anna.take.2"),
        ("anna.wav.wav", "anna"),
    ],
)
def test_speaker_of_a_file_name(file_name, speaker):
    assert speaker_of(file_name) == speaker


def test_configuration_is_plain_and_leads_back(tmp_path):
    source = Folder(tmp_path, split="test")
    configuration = source.configuration()
    assert configuration == {
        "class_path": "asr_dni.data.folder.Folder",
        "init_args": {"path": str(tmp_path), "split": "test", "test_archive_path": None, "speaker": None},
    }
    again = from_configuration(configuration, Source, "source")
    assert isinstance(again, Folder)
    assert again.configuration() == configuration


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("no_such_package.Source", "import no_such_package before"),
        ("asr_dni.data.folder.Missing", "no such class"),
        ("asr_dni.data.no_such_module.Source", "no such class"),
        ("Folder", "no such class"),
        ("asr_dni.data.source.importlib", "no such class"),
        (7, "expected class_path"),
    ],
)
def test_an_unknown_source_is_one_line(class_path, message):
    with pytest.raises(UserError, match=message):
        from_configuration({"class_path": class_path}, Source, "source")


def test_a_class_that_is_not_a_source_is_not_called():
    with pytest.raises(UserError, match="not a subclass"):
        from_configuration(
            {"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}}, Source, "source"
        )


def test_name_of_a_clip_does_not_depend_on_where_it_lies():
    assert Clip("yes", "a", "train", Path("/x/yes/a_nohash_0.wav")).name == "yes/a_nohash_0.wav"


def test_docstring_examples():
    assert doctest.testmod(asr_dni.data.source).failed == 0
