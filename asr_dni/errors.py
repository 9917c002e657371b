"""The one exception that a user's mistake raises, and what its line is made of."""

import os
from collections.abc import Collection


class UserError(Exception):
    """A mistake in what the user gave: one clear line, no traceback.

    The message names the file, key or value, says what was expected and how to mend it.
    The command line prints it on standard error and exits with code 2.
    """


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return a file's name such that it can be printed and encoded.

    Names on a disk are bytes; those that are not UTF-8 (Latin-1 from an old archive) hold surrogates in Python.

    >>> import os
    >>> printable(os.fsdecode(b"gr\xfcn.wav"))
    'gr\\xfcn.wav'
    """
    return os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def first_few(names: Collection[str | os.PathLike[str]], number: int = 3) -> str:
    """Name the first few of many.

    >>> first_few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(printable(name) for name in list(names)[:number])
    return f"{shown} and {len(names) - number} more" if len(names) > number else shown
