"""`Secret`: bytes that show themselves to nobody by accident.

A key that stands in a variable shows in whatever prints variables: a repr, a traceback with locals,
a log line, a pickle. So keys travel in this, and only the two places that feed them to a library
take them out.
"""

from __future__ import annotations

from typing import Final, NoReturn


class Secret:
    """Bytes without a repr, that are neither compared, hashed by content, copied nor pickled."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data: Final = data

    def reveal(self) -> bytes:
        """Return the bytes. Requires: the caller keeps them in no variable that outlives a call."""
        return self._data

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is never pickled or copied")
