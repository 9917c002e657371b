import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from asr_dni.data.download import download, file_sha256, unpack
from asr_dni.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` with byte ranges; hangs up after `cut_after` bytes as often as `cuts` says."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.cuts = 0
        self.cut_after = 100_000
        self.errors = 0
        self.requests: list[tuple[str, str | None]] = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        if server.errors:
            server.errors -= 1
            return self.send_error(503)
        content = server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = 0
        if server.ranges and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if server.cuts:
            server.cuts -= 1
            self.wfile.write(rest[: server.cut_after])
            return self.connection.close()
        self.wfile.write(rest)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    server = Server()
    server.files["/a.bin"] = CONTENT
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(server, path, sha256=SHA256, name="a.bin"):
    download(f"{server.address}/{name}", path, sha256, pause_seconds=0)


def test_download_arrives_whole_under_its_name_only(server, tmp_path):
    get(server, tmp_path / "new" / "a.bin")
    assert (tmp_path / "new" / "a.bin").read_bytes() == CONTENT
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["a.bin"]


def test_an_earlier_attempt_is_continued(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:123_456])
    get(server, tmp_path / "a.bin")
    assert server.requests == [("/a.bin", "bytes=123456-")]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.cuts = 2
    get(server, tmp_path / "a.bin")
    assert [header for _, header in server.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:123_456])
    get(server, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_finished_part_is_not_fetched_again(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    get(server, tmp_path / "a.bin")
    assert len(server.requests) == 1
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("old", [b"something else", bytes(400_000)])
def test_a_part_of_another_file_is_replaced(server, tmp_path, old):
    (tmp_path / "a.bin.part").write_bytes(old)
    get(server, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.errors = 3
    get(server, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match=f"SHA-256 of what was downloaded is not {'0' * 64}"):
        get(server, tmp_path / "a.bin", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_without_a_checksum_the_length_still_counts(server, tmp_path):
    server.cuts = 1
    get(server, tmp_path / "a.bin", sha256=None)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_missing_file_is_one_line(server, tmp_path):
    with pytest.raises(UserError, match=r"/b\.bin: the server answers 404"):
        get(server, tmp_path / "b.bin", name="b.bin")


def test_no_network_is_one_line_that_says_what_to_do(server, tmp_path):
    address = server.address
    server.socket.close()  # nobody listens there now
    with pytest.raises(UserError, match="cannot be downloaded") as error:
        download(f"{address}/a.bin", tmp_path / "a.bin", SHA256, pause_seconds=0)
    assert f"put it at {tmp_path / 'a.bin'}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["http://example.org/a.bin", "ftp://example.org/a.bin", "/a.bin"])
def test_other_than_https_is_refused(tmp_path, address):
    with pytest.raises(UserError, match="not an HTTPS address"):
        download(address, tmp_path / "a.bin", SHA256)


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return path


def accept(folder):
    pass


def test_unpacking(tmp_path):
    path = archive(tmp_path / "a.tar.gz", {"./yes/a.wav": b"A", "b.txt": b"B"})
    unpack(path, tmp_path / "a", accept)
    assert (tmp_path / "a" / "yes" / "a.wav").read_bytes() == b"A"
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"B"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "a.tar.gz"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../evil.txt", b"x"),
        ("yes/../../evil.txt", b"x"),
        ("/tmp/evil.txt", b"x"),
        ("link", (tarfile.SYMTYPE, "/etc/passwd")),
        ("link", (tarfile.LNKTYPE, "yes/a.wav")),
        ("device", (tarfile.CHRTYPE, "")),
        ("pipe", (tarfile.FIFOTYPE, "")),
    ],
)
def test_a_member_that_is_not_a_plain_file_inside_is_refused(tmp_path, name, content):
    (tmp_path / "work").mkdir()
    path = archive(tmp_path / "work" / "a.tar.gz", {"yes/a.wav": b"A", name: content})
    with pytest.raises(UserError, match="not a plain file inside it") as error:
        unpack(path, tmp_path / "work" / "a", accept)
    assert name in str(error.value)
    assert [entry.name for entry in tmp_path.rglob("*")] == ["work", "a.tar.gz"]


@pytest.mark.parametrize("damage", ["cut", "flip", "text"])
def test_a_damaged_archive_leaves_nothing(tmp_path, damage):
    noise = np.random.default_rng(0).bytes(50_000)
    path = archive(tmp_path / "a.tar.gz", {"yes/a.wav": noise, "yes/b.wav": noise[::-1]})
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flip":
        data[len(data) // 2] ^= 0xFF
    else:
        data = bytearray(b"404 not found")
    path.write_bytes(data)
    with pytest.raises(UserError, match="the archive is damaged"):
        unpack(path, tmp_path / "a", accept)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]


def test_contents_that_are_not_accepted_leave_nothing(tmp_path):
    def refuse(folder):
        assert (folder / "a.wav").exists()
        raise UserError("not what was expected")

    path = archive(tmp_path / "a.tar.gz", {"a.wav": b"A"})
    with pytest.raises(UserError, match="not what was expected"):
        unpack(path, tmp_path / "a", refuse)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]


def test_what_an_interrupted_run_left_is_removed(tmp_path):
    (tmp_path / ".a.partial-1-00" / "yes").mkdir(parents=True)
    unpack(archive(tmp_path / "a.tar.gz", {"a.wav": b"A"}), tmp_path / "a", accept)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "a.tar.gz"]


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == expected
