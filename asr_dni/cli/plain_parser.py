"""The command line of commands that take a few plain arguments, and no configuration."""

import argparse
from typing import NoReturn

from asr_dni.errors import UserError


class PlainParser(argparse.ArgumentParser):
    """``argparse``, but a mistake is a :class:`UserError`."""

    def error(self, message: str) -> NoReturn:
        """Raise it."""
        raise UserError(f"{message} ({self.prog} --help says what there is)")
