"""The bytes of one simulated file: sparse, cheap to copy, with a hash that says whether two are
equal.

An image is a size and a dict of chunks; a chunk that is absent is all zeros. Chunks are `bytes` and
therefore shared between copies: a copy costs one shallow dict copy, a write replaces the chunks it
touches. So the many crash states of a disk differ in memory only where they differ in content.

1. No chunk is all zeros and no chunk has a byte other than zero beyond the size: equal content is
   equal chunks.
2. A frozen image never changes again. It may be shared; whoever wants to change it takes
   `thawed()`.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

CHUNK_BYTES = 4096
_ZERO_CHUNK = bytes(CHUNK_BYTES)
_DIGEST_BYTES = 16


@lru_cache(maxsize=4096)
def _chunk_digest(chunk: bytes) -> bytes:
    return blake2b(chunk, digest_size=_DIGEST_BYTES).digest()


class Image:
    """The content of a file at one moment."""

    __slots__ = ("_digest", "chunks", "frozen", "size")

    def __init__(self) -> None:
        self.size = 0
        self.chunks: dict[int, bytes] = {}
        self.frozen = False
        self._digest: bytes | None = None

    def thawed(self) -> Image:
        """Return this image when it may be changed, else a copy that may."""
        if not self.frozen:
            return self
        copy = Image()
        copy.size = self.size
        copy.chunks = self.chunks.copy()
        copy._digest = self._digest
        return copy

    def freeze(self) -> Image:
        """Forbid further changes, so that the image may be shared; return it."""
        self.frozen = True
        return self

    def digest(self) -> bytes:
        """Return a hash of size and content, the same in every process."""
        if self._digest is None:
            state = blake2b(self.size.to_bytes(8, "little"), digest_size=_DIGEST_BYTES)
            for index in sorted(self.chunks):
                state.update(index.to_bytes(8, "little") + _chunk_digest(self.chunks[index]))
            self._digest = state.digest()
        return self._digest

    def read(self, offset: int, count: int) -> bytes:
        """Return at most `count` bytes from `offset`, fewer where the file ends."""
        end = min(offset + count, self.size)
        if end <= offset:
            return b""
        first, start = divmod(offset, CHUNK_BYTES)
        last = (end - 1) // CHUNK_BYTES
        chunks = self.chunks
        if first == last:
            return chunks.get(first, _ZERO_CHUNK)[start : start + end - offset]
        pieces = [chunks.get(index, _ZERO_CHUNK) for index in range(first, last + 1)]
        pieces[0] = pieces[0][start:]
        pieces[-1] = pieces[-1][: end - last * CHUNK_BYTES]
        return b"".join(pieces)

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`, growing the image when needed; no data changes nothing."""
        if not data:
            return
        position = 0
        while position < len(data):
            index, start = divmod(offset + position, CHUNK_BYTES)
            count = min(CHUNK_BYTES - start, len(data) - position)
            piece = data[position : position + count]
            if count < CHUNK_BYTES:
                old = self.chunks.get(index, _ZERO_CHUNK)
                piece = old[:start] + piece + old[start + count :]
            self._put(index, piece)
            position += count
        self._grow(offset + len(data))

    def put_chunks(self, chunks: dict[int, bytes], blank: tuple[int, ...], end: int) -> None:
        """Replace whole chunks: those of `chunks`, none of them zero, and the zero ones `blank`."""
        self.chunks.update(chunks)
        for index in blank:
            self.chunks.pop(index, None)
        self._grow(end)

    def zero(self, offset: int, count: int) -> None:
        """Put `count` zeros at `offset`, growing the image when needed."""
        self._clear(offset, offset + count)
        self._grow(offset + count)

    def resize(self, size: int) -> None:
        """Set the size: drop what lies beyond, or grow with zeros."""
        if size < self.size:
            self._clear(size, self.size)
        self.size = size
        self._digest = None

    def _clear(self, start: int, end: int) -> None:
        first, last = start // CHUNK_BYTES, (end - 1) // CHUNK_BYTES
        if last - first < len(self.chunks):
            touched = [index for index in range(first, last + 1) if index in self.chunks]
        else:
            touched = [index for index in self.chunks if first <= index <= last]
        for index in touched:
            base = index * CHUNK_BYTES
            low, high = max(start - base, 0), min(end - base, CHUNK_BYTES)
            old = self.chunks[index]
            self._put(index, old[:low] + bytes(high - low) + old[high:])

    def _put(self, index: int, chunk: bytes) -> None:
        if chunk == _ZERO_CHUNK:
            self.chunks.pop(index, None)
        else:
            self.chunks[index] = chunk

    def _grow(self, end: int) -> None:
        self.size = max(self.size, end)
        self._digest = None
