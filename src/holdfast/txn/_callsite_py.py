"""Where in the user's code something began: the plain Python twin and specification of
`_callsite_c`.

Thread safety: safe.
"""

from __future__ import annotations

import sys
from types import FrameType

PACKAGE = __name__.partition(".")[0] + "."
_OWN_FILES: set[str] = set()


class CallSite:
    """The place from which the nearest caller outside of this package called, when it is made.

    Raises: MemoryError.
    """

    __slots__ = ("file", "line")

    def __init__(self) -> None:
        # By depth: without memory for it `f_back` is None, with an error that comes up elsewhere.
        frame = sys._getframe(1)
        depth = 1
        # Most frames are of files that were seen before.
        while frame.f_code.co_filename in _OWN_FILES or _is_own(frame):
            depth += 1
            try:
                frame = sys._getframe(depth)
            except ValueError:
                break
        self.file = frame.f_code.co_filename
        self.line = frame.f_lineno

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _is_own(frame: FrameType) -> bool:
    """Whether a frame is of this package, by the name of its module."""
    name = frame.f_globals.get("__name__", "")
    if not (isinstance(name, str) and name.startswith(PACKAGE)):
        return False
    _OWN_FILES.add(frame.f_code.co_filename)
    return True
