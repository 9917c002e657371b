"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """A mistake in what the user gave: one clear line, no traceback.

    The message names the file, key or value, says what was expected and how to mend it.
    The command line prints it on standard error and exits with code 2.
    """
