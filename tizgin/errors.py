"""Errors that a person at the terminal can act on."""

from __future__ import annotations

EXIT_OK = 0
EXIT_PROBLEM = 1
EXIT_WRONG_USE = 2
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Something the person can put right: printed as one line on standard error, without a traceback.

    The message names the thing, what was seen, what was expected and what to do. ``exit_code`` is
    :data:`EXIT_PROBLEM` (the command was right, what it found is not) or :data:`EXIT_WRONG_USE` (it was called
    wrongly). `tizgin verify` has codes of its own and gives them here.
    """

    def __init__(self, message: str, *, exit_code: int = EXIT_PROBLEM) -> None:
        if exit_code == EXIT_OK:
            raise ValueError("an error cannot exit with 0, expected 1..255: choose EXIT_PROBLEM or EXIT_WRONG_USE")
        super().__init__(message)
        self.exit_code = exit_code
