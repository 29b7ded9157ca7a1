"""Writes a table file: a builder, the file its output goes to, and what an error leaves of them.

A merge adds to `builder` itself and calls `drain` when it stops for that; everybody else calls
`add`. Either way the file is written in pieces of about DRAIN_BYTES.

Durability: when `finish` returns, the bytes of the table are durable. Its *name* is not: the caller
syncs the folder, once for all tables of one edit, before a manifest edit names them.

Errors: after an OSError the writer is dead and says so; what the file then holds has no footer and
is no table. `abandon` removes it, and so does leaving the `with` block before `finish`. A file that
could not be removed is one that no manifest names, and the next open removes those.

Thread safety: a writer belongs to one thread at a time.
"""

from __future__ import annotations

from types import TracebackType

from holdfast.base import KeyspaceSettings
from holdfast.codec import Compression
from holdfast.env import Env
from holdfast.sstable._builder import TableBuilder
from holdfast.sstable.format import TableInfo
from holdfast.sstable.sealed import page_cipher

DRAIN_BYTES = 1024 * 1024
"""Sealed output of this size is written to the file."""


class TableWriter:
    """A table file under construction.

    `site` is the stem of the sites of its calls: `.create`, `.append`, `.sync` and `.abandon` are
    put behind it. Raises: OSError when the file cannot be created; then there is nothing to clean.
    """

    def __init__(
        self,
        env: Env,
        path: str,
        number: int,
        file_id: bytes,
        *,
        settings: KeyspaceSettings,
        compression: Compression,
        is_ingested: bool = False,
        origin: bytes = b"",
        site: str = "table.write",
    ) -> None:
        self._env = env
        self._path = path
        self._number = number
        self._site = site
        self._written = 0
        self._state = "open"
        self._file = env.create(path, site=f"{site}.create")
        try:
            self.builder = TableBuilder(
                file_id,
                page_bytes=settings.page_bytes,
                restart_interval=settings.restart_interval,
                filter_bits_per_key=settings.filter_bits_per_key,
                compression=compression,
                prefix_bytes=settings.prefix_bytes,
                is_ingested=is_ingested,
                cipher=page_cipher(self._file),
                origin=origin,
            )
            """What entries are added to; there until the writer has finished."""
        except BaseException:
            self.abandon()
            raise

    @property
    def path(self) -> str:
        """The path of the file."""
        return self._path

    @property
    def bytes_written(self) -> int:
        """Bytes that were given to the file."""
        return self._written

    def add(self, key: bytes, seq: int, kind: int, value: bytes) -> None:
        """Append one entry in internal order. Raises: as `TableBuilder.add`; OSError."""
        self._require_open()
        self.builder.add(key, seq, kind, value)
        if self.builder.output_size >= DRAIN_BYTES:
            self.drain()

    def add_range_tombstone(self, start: bytes, stop: bytes, seq: int) -> None:
        """Add a range tombstone, in any order. Raises: as `TableBuilder.add_range_tombstone`."""
        self._require_open()
        self.builder.add_range_tombstone(start, stop, seq)

    def drain(self) -> None:
        """Write the builder's output to the file. Raises: OSError; then the writer is dead."""
        self._require_open()
        # Until the write has succeeded the output is neither here nor there.
        self._state = "failed"
        output = self.builder.take_output()
        for start in range(0, len(output), DRAIN_BYTES):
            piece = output[start : start + DRAIN_BYTES]
            self._file.write_at(self._written, piece, site=f"{self._site}.append")
            self._written += len(piece)
        self._state = "open"

    def finish(self) -> TableInfo:
        """Write what is left, sync and close the file, and return what the table is.

        Raises: ValueError when the table has neither entries nor range tombstones; OSError, and
        then the writer is dead. The sync of a dead writer is never tried again.
        """
        self._require_open()
        info = self.builder.finish(self._number, int(self._env.wall_time() * 1_000_000))
        self.drain()
        self._state = "failed"
        # Compactions keep the writers of all their tables until the last of them is done; the
        # buffers of a builder are some megabytes.
        del self.builder
        self._file.sync(site=f"{self._site}.sync")
        self._file.close()
        self._state = "finished"
        return info

    def abandon(self) -> None:
        """Close and remove the file, finished or not. A second call does nothing.

        An OSError is not raised: whoever abandons a table is on the way out of something worse, and
        a file that no manifest names is removed by the next open.
        """
        if self._state == "abandoned":
            return
        self._state = "abandoned"
        try:
            self._file.close()
        except OSError:
            pass
        try:
            self._env.unlink(self._path, site=f"{self._site}.abandon")
        except OSError:
            pass

    def _require_open(self) -> None:
        if self._state != "open":
            raise ValueError(f"the table writer of {self._path} is {self._state}")

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None or self._state != "finished":
            self.abandon()
