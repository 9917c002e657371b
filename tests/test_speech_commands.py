import hashlib
import tarfile

import pytest
from recordings import tone, write
from test_download import Server, server

from asr_dni.configuration import from_configuration
from asr_dni.data.labels import CANONICAL_WORDS
from asr_dni.data.source import Source
from asr_dni.data.speech_commands import SpeechCommands
from asr_dni.errors import UserError

__all__ = ["server"]  # a fixture


def pack_archive(folder, path):
    with tarfile.open(path, "w:gz") as tar:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                tar.add(file, arcname=f"./{file.relative_to(folder)}")
    return path.read_bytes()


@pytest.fixture
def served(server: Server, tmp_path):
    """Small archives of both versions on a server; returns the constructor's arguments."""
    for version in ("0.01", "0.02"):
        words = SpeechCommands(version).words()
        for word in [*words, "_background_noise_"]:
            write(tmp_path / f"main{version}" / word / "a_nohash_0.wav", tone(440, 0.01))
        (tmp_path / f"main{version}" / "testing_list.txt").write_text("yes/a_nohash_0.wav\n")
        for label in [*CANONICAL_WORDS, "_silence_", "_unknown_"]:
            name = "a_nohash_0.wav.wav" if label == "yes" else "a_nohash_0.wav"
            write(tmp_path / f"test{version}" / label / name, tone(440, 0.01))
        for kind, name in (("main", "speech_commands_v"), ("test", "speech_commands_test_set_v")):
            content = pack_archive(tmp_path / f"{kind}{version}", tmp_path / "archive")
            server.files[f"/data/{name}{version}.tar.gz"] = content
    return server


def sha256(served, name):
    return hashlib.sha256(served.files[f"/data/{name}.tar.gz"]).hexdigest()


@pytest.mark.parametrize(("version", "words"), [("0.01", 30), ("0.02", 35)])
def test_download_unpack_and_use(served, tmp_path, version, words):
    root = tmp_path / "root"
    source = SpeechCommands(
        version, root, f"{served.address}/data/", sha256(served, f"speech_commands_v{version}")
    )
    assert len(source.words()) == words  # before anything is there
    assert not root.exists()
    source.prepare()
    clips = source.clips()
    assert [clip.label for clip in clips] == source.words()
    assert {clip.label for clip in clips if clip.split == "test"} >= {"yes"}
    assert [path.name for path in source.background()] == ["a_nohash_0.wav"]
    assert not list(root.glob("*.tar.gz*"))  # what was downloaded is not kept twice
    requests = len(served.requests)
    source.prepare()
    assert len(served.requests) == requests
    assert source.identity == f"Speech Commands v{version}"


def test_published_number_of_words():
    """P. Warden, arXiv:1804.03209, section 6: 35 words, of which five came with v0.02."""
    assert len(SpeechCommands("0.01").words()) == 30
    new = set(SpeechCommands("0.02").words()) - set(SpeechCommands("0.01").words())
    assert new == {"backward", "forward", "follow", "learn", "visual"}
    assert set(CANONICAL_WORDS) <= set(SpeechCommands("0.01").words())


def test_the_published_checksum_is_the_default(served, tmp_path):
    with pytest.raises(UserError, match="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"):
        SpeechCommands("0.02", tmp_path / "root", f"{served.address}/data").prepare()
    assert not (tmp_path / "root" / "speech_commands_v0.02").exists()
    assert not list((tmp_path / "root").glob("*.tar.gz*"))


def test_test_archive(served, tmp_path):
    address = f"{served.address}/data"
    checksum = sha256(served, "speech_commands_test_set_v0.02")
    archive = SpeechCommands("0.02", tmp_path / "root", address, test_archive_sha256=checksum).test_archive()
    archive.prepare()
    assert served.requests == [("/data/speech_commands_test_set_v0.02.tar.gz", None)]
    clips = archive.clips()
    assert {clip.split for clip in clips} == {"test"}
    assert {clip.label for clip in clips} == {*CANONICAL_WORDS, "_silence_", "_unknown_"}
    assert archive.words() == sorted(CANONICAL_WORDS)


def test_test_archive_of_the_first_version_has_no_checksum_and_says_so(served, tmp_path, caplog):
    archive = SpeechCommands("0.01", tmp_path / "root", f"{served.address}/data").test_archive()
    archive.prepare()
    assert "no SHA-256 is known" in caplog.text
    assert len(archive.clips()) == 12


def test_an_archive_that_is_there_is_used_and_kept(served, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    file = root / "speech_commands_v0.01.tar.gz"
    file.write_bytes(served.files["/data/speech_commands_v0.01.tar.gz"])
    source = SpeechCommands("0.01", root, sha256=sha256(served, "speech_commands_v0.01"))
    source.prepare()
    assert served.requests == []
    assert file.exists()
    assert len(source.clips()) == 30


def test_an_archive_that_is_there_and_wrong_is_named(tmp_path):
    file = tmp_path / "speech_commands_v0.01.tar.gz"
    file.write_bytes(b"not it")
    with pytest.raises(UserError, match="its SHA-256 is not 743935421bb51cccdb6bdd152e04c5") as error:
        SpeechCommands("0.01", tmp_path).prepare()
    assert str(file) in str(error.value)
    assert file.exists()


def test_a_folder_that_is_not_the_whole_data_set_is_named(tmp_path):
    for word in SpeechCommands("0.01").words():
        if word not in ("tree", "zero"):
            (tmp_path / "speech_commands_v0.01" / word).mkdir(parents=True)
    with pytest.raises(UserError, match="zero, _background_noise_ missing") as error:
        SpeechCommands("0.01", tmp_path).prepare()
    assert "tree" in str(error.value)


def test_an_archive_with_the_right_checksum_and_wrong_contents_leaves_nothing(served, tmp_path):
    served.files["/data/speech_commands_v0.02.tar.gz"] = served.files["/data/speech_commands_v0.01.tar.gz"]
    source = SpeechCommands(
        "0.02", tmp_path / "root", f"{served.address}/data", sha256(served, "speech_commands_v0.01")
    )
    with pytest.raises(UserError, match="backward, follow, forward, learn, visual missing"):
        source.prepare()
    assert not (tmp_path / "root" / "speech_commands_v0.02").exists()


def test_an_unknown_version_is_one_line():
    with pytest.raises(UserError, match=r"give 0\.01 or 0\.02"):
        SpeechCommands("2")  # type: ignore[arg-type]


def test_both_sources_can_be_rebuilt_from_their_configuration(tmp_path):
    source = SpeechCommands("0.01", tmp_path)
    for each in (source, source.test_archive()):
        again = from_configuration(each.configuration(), Source, "source")
        assert again.configuration() == each.configuration()
        assert again.identity == each.identity
