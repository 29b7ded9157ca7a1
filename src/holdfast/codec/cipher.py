"""What the page envelope asks of a cipher: it knows none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class PageCipher(Protocol):
    """What seals the pages of one file."""

    def seal(self, offset: int, data: bytes | memoryview, associated: bytes, /) -> bytes:
        """Return the sealed form of what will lie at `offset`."""
        ...

    @property
    def seal_bytes(self) -> int:
        """By how much what is sealed is longer than what it was made of."""
        ...

    def seal_many(
        self,
        offsets: Sequence[int],
        pieces: Sequence[memoryview],
        associated: Sequence[bytes],
        targets: Sequence[memoryview],
        /,
    ) -> None:
        """Write to each of `targets`, `seal_bytes` longer than its piece, what `seal` would return.

        Requires: nobody changes the pieces meanwhile.
        """
        ...

    def open(self, offset: int, sealed: bytes | memoryview, associated: bytes, /) -> bytes:
        """Return what was sealed. Raises: ValueError when it was not sealed so."""
        ...

    def open_many(
        self,
        offsets: Sequence[int],
        sealed: Sequence[memoryview],
        associated: Sequence[bytes],
        targets: Sequence[memoryview],
        /,
    ) -> int:
        """Write to each of `targets`, `seal_bytes` shorter than what is sealed, what `open` would
        return, up to the first for which it would raise; return how many came before that.

        Requires: nobody changes what is sealed meanwhile.
        """
        ...
