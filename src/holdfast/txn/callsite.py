"""Where in the user's code something began, and warnings about what it left behind."""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace

PACKAGE = __name__.partition(".")[0] + "."


def origin() -> tuple[str, int]:
    """Return file and line of the nearest caller outside of this package."""
    frame = sys._getframe(1)  # noqa: SLF001  the only way to a frame that costs no traceback
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(PACKAGE):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


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
