"""The exceptions whose message is meant for the person at the keyboard."""


class UserError(ValueError):
    """Something the user gave (a file, a key, a name) is wrong.

    The message names it, says what is wrong, and what to do. The command line
    prints it without a traceback and exits with code 2.
    """


class UnwritableError(UserError):
    """The disk refuses a file: it is full, read-only, or the place is not one to write to."""
