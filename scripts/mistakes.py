"""A user's mistake ends a script as it ends a command: by one line on standard error and exit code 2."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from asr_dni.errors import UserError


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """End the script where a mistake is found in the block."""
    try:
        yield
    except UserError as error:
        print(f"{sys.argv[0]}: error: {error}", file=sys.stderr)
        sys.exit(2)
