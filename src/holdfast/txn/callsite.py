"""Where in the user's code something began."""

from __future__ import annotations

import sys

PACKAGE = __name__.partition(".")[0] + "."


def origin() -> tuple[str, int]:
    """Return file and line of the nearest caller outside of this package."""
    frame = sys._getframe(1)  # noqa: SLF001  the only way to a frame that costs no traceback
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(PACKAGE):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
