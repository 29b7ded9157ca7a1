"""Warnings about what was left open."""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace


def warn_of_leak(text: str) -> None:
    """Warn of something that was left open, wherever this is found out. Raises nothing: where
    warnings are errors, it goes where exceptions of finalizers go.
    """
    try:
        warnings.warn(text, ResourceWarning, stacklevel=2)
    except ResourceWarning as error:
        sys.unraisablehook(
            SimpleNamespace(
                exc_type=type(error),
                exc_value=error,
                exc_traceback=error.__traceback__,
                err_msg="Holdfast found a leak",
                object=None,
            )
        )
