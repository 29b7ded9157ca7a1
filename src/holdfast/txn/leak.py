"""Warnings about what was left open."""

from __future__ import annotations

import warnings

from holdfast.base import mark


class Untold:
    """An error that nobody can be given: raised by a finalizer, which is this one's."""

    __slots__ = ("_error",)

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __del__(self) -> None:
        # The interpreter gives it to `sys.unraisablehook`, and knows what to do when that raises.
        raise self._error


def warn_of_leak(text: str) -> None:
    """Warn of something that was left open, wherever this is found out. Raises nothing: where
    warnings are errors, or a hook of them raises, that goes where exceptions of finalizers go.
    """
    try:
        warnings.warn(text, ResourceWarning, stacklevel=2)
    except BaseException as error:  # noqa: BLE001  a hook is code of a user
        try:
            # Forgotten at once.
            Untold(error)
        except MemoryError:
            mark("txn.leak_not_told")
