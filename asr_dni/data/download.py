"""Archives over HTTPS: resumable downloads, checksums, and unpacking that trusts nothing in the archive."""

import gzip
import hashlib
import logging
import os
import secrets
import shutil
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from asr_dni.errors import UserError
from asr_dni.files import flush_to_disk, publish_folder
from asr_dni.terminal import make_console

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30
_ATTEMPTS = 5
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def download(address: str, path: Path, sha256: str | None, pause_seconds: float = 2.0) -> None:
    """Download a file, going on where an earlier attempt stopped, and check it.

    What has arrived is in ``path`` with ``.part`` appended until it is whole and its checksum is right.

    Args:
        address: of the file, HTTPS.
        path: where it goes.
        sha256: the checksum in hexadecimal; None: only its length is checked.
        pause_seconds: before the second attempt after a broken connection; doubled each time.

    Raises:
        UserError: the server cannot be reached, answers with an error, or the checksum is wrong.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    _require_https(address)
    resumed = part.exists() and part.stat().st_size > 0
    _fetch(address, part, pause_seconds)
    if sha256 is not None and file_sha256(part) != sha256.lower():
        part.unlink()
        if resumed:  # the pieces may be of two different files
            logger.warning("%s: the checksum is wrong after resuming; downloading it afresh", path.name)
            download(address, path, sha256, pause_seconds)
            return
        raise UserError(
            f"{address}: the SHA-256 of what was downloaded is not {sha256}; it was deleted. Try again, and "
            "if that does not help, give another address"
        )
    flush_to_disk(part)
    os.replace(part, path)
    flush_to_disk(path.parent)


def _require_https(address: str) -> None:
    parts = urllib.parse.urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise UserError(f"{address}: not an HTTPS address; give one that begins with https://")


def _fetch(address: str, part: Path, pause_seconds: float) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=make_console(stderr=True)) as progress:
        task = progress.add_task(part.name.removesuffix(".part"), total=None)
        failures = 0
        while failures < _ATTEMPTS:
            before = part.stat().st_size if part.exists() else 0
            try:
                if _fetch_rest(
                    address, part, lambda done, total: progress.update(task, completed=done, total=total)
                ):
                    return
                reason = "the connection ended early"
            except urllib.error.HTTPError as error:
                reason = f"the server answers {error.code} {error.reason}"
                if error.code < 500:
                    raise UserError(f"{address}: {reason}") from None
            except (OSError, HTTPException) as error:
                reason = str(getattr(error, "reason", None) or error or type(error).__name__)
            if part.exists() and part.stat().st_size > before:
                failures = 0  # it goes on, if with interruptions
            else:
                time.sleep(pause_seconds * 2**failures)
                failures += 1
    raise UserError(
        f"{address}: cannot be downloaded ({reason}). Run the command again to go on where it stopped, or "
        f"get the file on another machine and put it at {part.with_name(part.name.removesuffix('.part'))}"
    )


def _fetch_rest(address: str, part: Path, report: Callable[[int, int | None], None]) -> bool:
    """Append what is missing to ``part``; return whether it is whole."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        address, headers={"User-Agent": "asr-dni", "Accept-Encoding": "identity"}
    )
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if total == str(start):
            return True
        part.unlink()  # longer than the file: of something else
        return False
    with response:
        _require_https(response.geturl())
        length = response.headers.get("Content-Length")
        if response.status != 206:
            start = 0  # the server sends everything
        total_bytes = None if length is None else start + int(length)
        free = shutil.disk_usage(part.parent).free
        if length is not None and int(length) > free:
            raise UserError(
                f"{part.parent}: the download needs {int(length) / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
                "free; make room"
            )
        done = start
        with part.open("ab" if start else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                report(done, total_bytes)
    return total_bytes is None or done == total_bytes


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(archive: Path, folder: Path, check: Callable[[Path], None]) -> None:
    """Unpack a gzipped tar archive of plain files; ``folder`` appears when all is there and has been checked.

    Args:
        archive: the archive.
        folder: where its contents go; must not exist.
        check: called with the unpacked contents before they get their name; raises where something is wrong.

    Raises:
        UserError: the archive is damaged, or a member is a link, a device or would land outside the folder.
    """
    if not hasattr(tarfile, "data_filter"):
        raise UserError(
            "unpacking safely needs Python 3.11.4 or later; update Python, or unpack the archive yourself"
        )
    for leftover in folder.parent.glob(f".{folder.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with (
            archive.open("rb") as file,
            gzip.open(file) as unzipped,
            tarfile.open(fileobj=unzipped, mode="r:") as tar,
            Progress(*columns, console=make_console(stderr=True)) as progress,
        ):
            task = progress.add_task(f"unpacking {archive.name}", total=archive.stat().st_size)
            for member in tar:
                _require_harmless(archive, member)
                tar.extract(member, temporary, filter="data")
                progress.update(task, completed=file.tell())
            while unzipped.read(_CHUNK):  # gzip compares its checksum only at the very end
                pass
        check(temporary)
        publish_folder(temporary, folder)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
        raise UserError(
            f"{archive}: the archive is damaged ({str(error) or type(error).__name__}); delete it and run "
            "the command again to download it afresh"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_harmless(archive: Path, member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
        raise UserError(
            f"{archive}: the archive is not what it should be: its member {member.name!r} is not a plain "
            "file inside it; delete the archive and get it from its own address"
        )
