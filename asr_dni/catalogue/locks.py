"""Whether a run is being written just now: its process holds the lock in its folder."""

import os
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # such as on Windows, where nobody can be asked
    fcntl = None  # type: ignore[assignment]


def is_locked(path: Path) -> bool:
    """Return whether a process holds a lock, see :func:`asr_dni.cli.run_files.claimed_folder`; nothing is written.

    It is asked for by a shared lock, which is given back at once: readers are not in each other's way, and who starts
    a run waits for longer than that.
    """
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    else:
        return False
    finally:
        with suppress(OSError):
            os.close(descriptor)
