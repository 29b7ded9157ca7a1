"""Where in the user's code something began, and warnings about what it left behind."""

from __future__ import annotations

import sys
import warnings
from types import FrameType, SimpleNamespace

PACKAGE = __name__.partition(".")[0] + "."
_OWN_FILES: set[str] = set()


def origin() -> tuple[str, int]:
    """Return file and line of the nearest caller outside of this package."""
    # By depth: without memory for it `f_back` is None, with an error that comes up elsewhere.
    frame = sys._getframe(1)  # noqa: SLF001  the only way to a frame that costs no traceback
    depth = 1
    # Most frames are of files that were seen before.
    while frame.f_code.co_filename in _OWN_FILES or _is_own(frame):
        depth += 1
        try:
            frame = sys._getframe(depth)  # noqa: SLF001  the same
        except ValueError:
            break
    return frame.f_code.co_filename, frame.f_lineno


def _is_own(frame: FrameType) -> bool:
    """Whether a frame is of this package, by the name of its module."""
    if not frame.f_globals.get("__name__", "").startswith(PACKAGE):
        return False
    _OWN_FILES.add(frame.f_code.co_filename)
    return True


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
