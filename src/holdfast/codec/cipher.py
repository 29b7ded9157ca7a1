"""What the page envelope asks of a cipher: it knows none."""

from __future__ import annotations

from typing import Protocol


class PageCipher(Protocol):
    """What seals the pages of one file."""

    def seal(self, offset: int, data: bytes | memoryview, associated: bytes, /) -> bytes:
        """Return the sealed form of what will lie at `offset`."""
        ...

    def open(self, offset: int, sealed: bytes | memoryview, associated: bytes, /) -> bytes:
        """Return what was sealed. Raises: ValueError when it was not sealed so."""
        ...
