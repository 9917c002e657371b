"""Files and folders that are never half-written, and that outlast a kill, a crash of the machine and a full disk."""

import errno
import json
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any

from asr_dni.errors import UserError

_ABANDONED_AFTER = 3600.0  # seconds: nobody writes one file for so long
_MANY_FILES = 64


@contextmanager
def write_atomically(
    path: str | os.PathLike[str], publish: Callable[[Path, Path], None] = os.replace
) -> Iterator[Path]:
    """Give a temporary path to write to, which takes the name ``path`` when the block ends well.

    The temporary file is in the same folder (which is made where it is missing), so on the same file system: its
    renaming is one step, which happens or does not. It keeps the ending, since writers such as ``numpy.save`` and
    ``Figure.savefig`` look at it. It is renamed only when the disk has its contents, and the disk has the new name when
    this returns. When the block raises, it is removed and whatever was at ``path`` stays as it was. Two processes that
    write the same path do not mix: the last one wins.

    Args:
        path: of the file.
        publish: gives the temporary path, its first argument, the name that is its second.

    Raises:
        OSError: it could not be written, such as on a full disk; it names ``path``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with write_atomically(Path(folder) / "a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     print([entry.name for entry in Path(folder).iterdir()])
    ['a.txt']
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        yield temporary
        flush_to_disk(temporary)
        publish(temporary, path)
        flush_to_disk(path.parent)
    except OSError as error:
        _name(error, temporary, path)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _name(error: OSError, temporary: Path, path: Path) -> None:
    """Have an error name the file that was to be written; writing to an open file names none."""
    if error.filename is None or os.fspath(error.filename) == os.fspath(temporary):
        error.filename, error.filename2 = os.fspath(path), None
    if error.errno is None:  # numpy says only how much it wrote
        error.errno, error.strerror = errno.EIO, f"cannot be written: {error}"


@lru_cache(maxsize=1024)
def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes have left of ``path``; once per process, since it lists the folder."""
    for leftover in path.parent.glob(f".{escape(path.stem)}.*-????????{escape(path.suffix)}"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER:
                leftover.unlink()


def write_sealed_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as JSON, with a checksum by which :func:`read_sealed_json` knows damage.

    Raises:
        OSError: it could not be written; it names ``path``.
    """
    with write_atomically(path) as temporary:
        temporary.write_text(
            json.dumps({"crc32": _checksum(value), "value": value}, indent=1), encoding="utf-8"
        )


def read_sealed_json(path: str | os.PathLike[str]) -> Any:
    """Return what :func:`write_sealed_json` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut, changed or another kind of file.
    """
    found = json.loads(Path(path).read_bytes())
    if not isinstance(found, dict) or found.get("crc32") != _checksum(found.get("value")):
        raise ValueError(f"{os.fspath(path)}: the checksum is not that of the contents")
    return found["value"]


def _checksum(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def flush_to_disk(path: str | os.PathLike[str]) -> None:
    """Wait until the disk has a file's contents, or the names in a folder.

    Raises:
        OSError: the disk could not take them.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot be asked to.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def publish_folder(temporary: Path, path: Path) -> None:
    """Give a folder its name when the disk has all that is in it.

    Args:
        temporary: the folder under the name it was filled under, on the same file system.
        path: its name; there must be no file and no folder with contents.

    Raises:
        OSError: the disk could not take it, or ``path`` is taken.
    """
    entries = [Path(folder, name) for folder, _, names in os.walk(temporary) for name in names]
    if len(entries) > _MANY_FILES:  # one wait for all instead of one for each
        os.sync()
    else:
        for entry in entries:
            flush_to_disk(entry)
        for folder, _, _ in os.walk(temporary):
            flush_to_disk(folder)
    os.rename(temporary, path)
    flush_to_disk(path.parent)


def copy_new(targets: Mapping[Path, Path]) -> list[Path]:
    """Copy files to where each is to be; return those that were not there yet.

    Raises:
        UserError: another file is there already; then nothing is copied.
    """
    contents = {target: path.read_bytes() for path, target in targets.items()}
    for target, content in contents.items():
        if target.exists() and (not target.is_file() or target.read_bytes() != content):
            raise UserError(
                f"{target}: is there and differs; nothing was copied: give another folder with --to"
            )
    missing = [target for target in contents if not target.exists()]
    for target in missing:
        with write_atomically(target) as temporary:
            temporary.write_bytes(contents[target])
    return missing
