"""`SealedEnv`: an env in which some files are sealed, and nobody above has to know.

A room that has a file format gives a *sealing* for it: what makes a sealed file of a plain one that
was created or opened. Whoever then reads and writes such a file through this env sees the bytes of
the plain format. All else, the clock and the threads among it, is that of the env below.

Thread safety: as of the env below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from holdfast.crypto.keyring import KeyRing
from holdfast.env import Buffer, Env, File


class Sealing(Protocol):
    """How the files of one format are sealed."""

    def created(self, file: File, ring: KeyRing) -> File:
        """Return the sealed face of a new, empty file."""
        ...

    def opened(self, file: File, ring: KeyRing) -> File:
        """Return the plain face of a file that was opened. Raises: CorruptionError, FormatError;
        OSError.
        """
        ...

    def plain_size(self, size: int) -> int:
        """Return how long the plain face of a file of `size` bytes is, at most."""
        ...


class SealedFile:
    """A file over another one: what a sealing does not change. Implements `File`."""

    def __init__(self, file: File) -> None:
        self._file = file

    @property
    def name(self) -> str:
        return self._file.name

    def read_at(self, offset: int, count: int) -> bytes:
        return self._file.read_at(offset, count)

    def write_at(self, offset: int, data: Buffer, *, site: str) -> None:
        self._file.write_at(offset, data, site=site)

    def allocate(self, size: int, *, written: bool, site: str) -> None:
        self._file.allocate(size, written=written, site=site)

    def truncate(self, size: int, *, site: str) -> None:
        self._file.truncate(size, site=site)

    def sync(self, *, site: str) -> None:
        self._file.sync(site=site)

    def write_and_sync_at(self, offset: int, data: Buffer, *, site: str, sync_site: str) -> None:
        self._file.write_and_sync_at(offset, data, site=site, sync_site=sync_site)

    def size(self) -> int:
        return self._file.size()

    def close(self) -> None:
        self._file.close()

    def fileno(self) -> int:
        """No descriptor: what it would read is sealed."""
        return -1


class SealedEnv:
    """An env whose files with some endings are sealed with the keys of `ring`. Implements `Env`."""

    def __init__(self, env: Env, ring: KeyRing, sealings: Mapping[str, Sealing]) -> None:
        """`sealings` are by the ending of names, `.wal` or `LIVE`, say."""
        self.plain = env
        """The env below, for who handles files as they lie on the disk."""
        self.ring = ring
        self._sealings = dict(sealings)
        self.rename = env.rename
        self.unlink = env.unlink
        self.make_dir = env.make_dir
        self.list_dir = env.list_dir
        self.sync_dir = env.sync_dir
        self.lock_file = env.lock_file
        self.monotonic = env.monotonic
        self.wall_time = env.wall_time
        self.sleep = env.sleep
        self.random_bytes = env.random_bytes
        self.mutex = env.mutex
        self.gate = env.gate
        self.condition = env.condition
        self.spawn = env.spawn
        self.thread_id = env.thread_id
        self.thread_life = env.thread_life
        self.uninterrupted = env.uninterrupted
        self.on_fork = env.on_fork

    def create(self, path: str, *, site: str) -> File:
        sealing = self._sealing(path)
        file = self.plain.create(path, site=site)
        return file if sealing is None else sealing.created(file, self.ring)

    def open(self, path: str) -> File:
        sealing = self._sealing(path)
        file = self.plain.open(path)
        if sealing is None:
            return file
        try:
            return sealing.opened(file, self.ring)
        except BaseException:
            file.close()
            raise

    def file_size(self, path: str) -> int:
        size = self.plain.file_size(path)
        sealing = self._sealing(path)
        return size if sealing is None else sealing.plain_size(size)

    def _sealing(self, path: str) -> Sealing | None:
        name = path.rpartition("/")[2]
        return self._sealings.get(name[max(name.rfind("."), 0) :])


def plain_env(env: Env) -> Env:
    """Return the env that shows files as they lie on the disk."""
    return env.plain if isinstance(env, SealedEnv) else env
