"""An env that reads around what a disk does not give: for files of which as much as possible is
wanted, and not all or nothing.

A read that fails because the medium does is tried again in halves, down to single blocks. Of a
block that cannot be read the bytes are FILL, and its place is remembered. So whoever reads sees a
damaged file where it would see none: what a checksum covers is refused, and the rest is read.

Guarantees: what was read once is not tried again when it could not be read, as every attempt may
take a failing disk seconds; FILL is not zero, so a hole does not look like room that was never
written. Halving is how ddrescue (GNU) narrows an error down.

Thread safety: as the env below; one thread reads a file.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Final

from holdfast.base import CorruptionError
from holdfast.env.protocol import Buffer, Env, File

FILL: Final = b"\xff"
BLOCK_BYTES: Final = 4096
"""What a page cache reads at the least, so a smaller read fails with its neighbours."""
_NAMES: Final = ("EIO", "EBADMSG", "EUCLEAN", "ENODATA", "EREMOTEIO", "EILSEQ")
_OF_THE_MEDIUM: Final = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))
"""Device errors, checksums of file systems and remote disks; which there are is up to the system.
Want of memory or descriptors is none of them, and says nothing of the file.
"""


class ReadAroundFile:
    """A file that was opened by a `ReadAroundEnv`. Implements `File`."""

    __slots__ = ("_blocks", "_env", "_inner")

    def __init__(self, env: ReadAroundEnv, inner: File) -> None:
        self._env = env
        self._inner = inner
        self._blocks = env._blocks_of(inner.name)

    @property
    def name(self) -> str:
        return self._inner.name

    def read_at(self, offset: int, count: int) -> bytes:
        if not self._blocks:
            try:
                return self._inner.read_at(offset, count)
            except OSError as error:
                if not self._env.reads_around(self.name, error):
                    raise
        count = min(count, max(self._inner.size() - offset, 0))
        return b"".join(self._pieces(offset, offset + count))

    def write_at(self, offset: int, data: Buffer, *, site: str) -> None:
        self._inner.write_at(offset, data, site=site)

    def allocate(self, size: int, *, written: bool, site: str) -> None:
        self._inner.allocate(size, written=written, site=site)

    def truncate(self, size: int, *, site: str) -> None:
        self._inner.truncate(size, site=site)

    def sync(self, *, site: str) -> None:
        self._inner.sync(site=site)

    def write_and_sync_at(self, offset: int, data: Buffer, *, site: str, sync_site: str) -> None:
        self._inner.write_and_sync_at(offset, data, site=site, sync_site=sync_site)

    def size(self) -> int:
        return self._inner.size()

    def close(self) -> None:
        self._inner.close()

    def fileno(self) -> int:
        return -1

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield what lies between two places, piece by piece."""
        for number in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)):
            if number in self._blocks:
                begin, end = number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES
                yield from self._narrowed(start, begin)
                yield FILL * (min(end, stop) - max(begin, start))
                start = end
        yield from self._narrowed(start, stop)

    def _narrowed(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield what lies between two places; what cannot be read is narrowed down to blocks."""
        stack = [(start, stop)]
        while stack:
            start, stop = stack.pop()
            if start >= stop:
                continue
            first, last = start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
            try:
                yield self._inner.read_at(start, stop - start)
            except OSError as error:
                if not self._env.reads_around(self.name, error):
                    raise
                if first == last:
                    self._blocks[first] = str(error.strerror)
                    yield FILL * (stop - start)
                else:
                    middle = (first + (last - first) // 2 + 1) * BLOCK_BYTES
                    stack += [(middle, stop), (start, middle)]


class ReadAroundEnv:
    """An env whose files are read around what cannot be read. Implements `Env`.

    Files that are created, and everything else, are as in `inner`.
    """

    def __init__(self, inner: Env) -> None:
        self.inner = inner
        self._lost: dict[str, dict[int, str]] = {}
        """By path and number of the block: what the system said."""
        self._settled: set[str] | None = set()
        """The files of which no more is read around; None: all."""
        self.create = inner.create
        self.rename = inner.rename
        self.unlink = inner.unlink
        self.make_dir = inner.make_dir
        self.list_dir = inner.list_dir
        self.sync_dir = inner.sync_dir
        self.file_size = inner.file_size
        self.lock_file = inner.lock_file
        self.monotonic = inner.monotonic
        self.wall_time = inner.wall_time
        self.sleep = inner.sleep
        self.random_bytes = inner.random_bytes
        self.mutex = inner.mutex
        self.gate = inner.gate
        self.condition = inner.condition
        self.spawn = inner.spawn
        self.thread_id = inner.thread_id
        self.thread_life = inner.thread_life
        self.uninterrupted = inner.uninterrupted
        self.on_fork = inner.on_fork

    def open(self, path: str) -> File:
        """As in `Env`. Raises: CorruptionError, too, for a file that cannot even be opened."""
        try:
            return ReadAroundFile(self, self.inner.open(path))
        except OSError as error:
            if not self.reads_around(path, error):
                raise
            self._blocks_of(path)[0] = str(error.strerror)
            raise CorruptionError(path, 0, f"it cannot be opened: {error.strerror}") from error

    def settle(self, paths: Iterable[str]) -> None:
        """Read around no more of these files than so far: what is known of them is relied on from
        now on. What cannot be read then raises, as in `inner`.
        """
        if self._settled is not None:
            self._settled.update(paths)

    def settle_all(self) -> None:
        """Do what `settle` does, for all files."""
        self._settled = None

    def reads_around(self, path: str, error: OSError) -> bool:
        """Return whether what failed with `error` is read around."""
        is_open = self._settled is not None and path not in self._settled
        return is_open and error.errno in _OF_THE_MEDIUM

    def is_unreadable(self, path: str) -> bool:
        """Return whether something of a file could not be read so far."""
        return bool(self._lost.get(path))

    def damage(self) -> Iterator[CorruptionError]:
        """Yield what there is to say of every stretch of blocks that could not be read so far."""
        for path, blocks in self._lost.items():
            numbers = sorted(blocks)
            begin = 0
            for place in range(1, len(numbers) + 1):
                if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
                    start, stop = numbers[begin] * BLOCK_BYTES, numbers[place - 1] * BLOCK_BYTES
                    where = f"bytes {start} to {stop + BLOCK_BYTES - 1}"
                    reason = blocks[numbers[begin]]
                    yield CorruptionError(path, start, f"{where} cannot be read: {reason}")
                    begin = place

    def _blocks_of(self, path: str) -> dict[int, str]:
        return self._lost.setdefault(path, {})
