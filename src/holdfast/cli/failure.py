"""What ends a command early: a sentence for the user, and the exit status."""

from __future__ import annotations

from holdfast.base import MergeError

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130

MERGE_FUNCTION = "--merge-function"
"""The option that gives a merge function."""


class CommandError(Exception):
    """A command cannot do what was asked; the message is the one line that is printed."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


def wrong_usage(message: str) -> CommandError:
    """Return the failure of a command line that cannot be meant."""
    return CommandError(message, WRONG_USAGE)


def is_missing_extra(error: ModuleNotFoundError) -> bool:
    """Whether a package is missing that an extra of Holdfast brings; the text says what to do."""
    return (error.name or "").partition(".")[0] == "cryptography"


def describe(error: BaseException) -> str:
    """Return an error as a sentence: file and reason, without numbers that only programs need."""
    if isinstance(error, MergeError) and error.unregistered is not None:
        return (
            f"the merge function {error.unregistered!r} is none of Holdfast's own: give the one "
            f"of the program that wrote it, {MERGE_FUNCTION} "
            f"{error.unregistered}=MODULE:FUNCTION"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
