"""Files that are never half-written."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to, which takes the name ``path`` when the block ends well.

    The temporary file is in the same folder (which is made where it is missing) and keeps the ending, since
    writers such as ``numpy.save`` and ``Figure.savefig`` look at it. When the block raises, it is removed and
    whatever was at ``path`` stays as it was. Two processes that write the same path do not mix: the last one
    wins.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with write_atomically(Path(folder) / "a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     print([entry.name for entry in Path(folder).iterdir()])
    ['a.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
