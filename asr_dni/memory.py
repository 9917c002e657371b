"""How the process's allocator treats large tensors."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_UNLIMITED = 2**31 - 1
_LARGEST_KEPT = 2**30


def keep_freed_memory() -> bool:
    """Let the GNU C library's allocator keep freed blocks of up to 1 GiB instead of giving them back to the system.

    A training step allocates and frees the same large tensors over and over; where they are given back, the system
    fills every page of them with zeros anew at every step. It holds for the whole process, so that it is for programs
    to decide, not for the layers.

    Returns:
        Whether the allocator took it; another C library does not know it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(mallopt(_TRIM_THRESHOLD, _UNLIMITED))
