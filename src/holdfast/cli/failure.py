"""What ends a command early: a sentence for the user, and the exit status."""

from __future__ import annotations

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot do what was asked; the message is the one line that is printed."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


def wrong_usage(message: str) -> CommandError:
    """Return the failure of a command line that cannot be meant."""
    return CommandError(message, WRONG_USAGE)


def describe(error: BaseException) -> str:
    """Return an error as a sentence: file and reason, without numbers that only programs need."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
