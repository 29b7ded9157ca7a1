"""LevelDB through `plyvel`.

- LevelDB's defaults (blocks of 4 KiB, Snappy, one background thread), but for the block cache and
  the write buffer, which have the sizes of the comparison.
- A Bloom filter of 10 bits a key, as its documentation recommends and Holdfast has by default.
- Durable: `put(..., sync=True)`. Not synced: the default, one call a row; the log is written to the
  system, so a crash of the machine takes the newest rows, one of the process none.
- Transactions: it has none. A get and a `write_batch` stand for one, without isolation.
- Batches: `write_batch`. Lists of keys: one get each, as LevelDB has nothing else.
- It cannot be told to flush: its log is left as it is at the end.
- Tasks: 64 threads; LevelDB syncs the commits of several at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import ClassVar, cast

import plyvel

from holdfast.testing.bench_report import version_of
from holdfast.testing.versus_store import Put, Row, Setup, Store

_FILTER_BITS = 10
_STILL_SECONDS = 0.1
_SETTLE_SECONDS = 60.0


def version() -> str:
    """Return what runs."""
    return f"{version_of('plyvel')}, LevelDB {plyvel.__leveldb_version__}"


class LevelStore(Store):
    """A database of LevelDB."""

    syncs: ClassVar[dict[str, str]] = {"commit": "sync=True", "none": "sync=False"}

    def __init__(self, setup: Setup) -> None:
        self._folder = setup.folder
        self._is_synced = setup.sync == "commit"
        self._database = plyvel.DB(
            setup.folder,
            create_if_missing=True,
            write_buffer_size=setup.memtable_bytes,
            lru_cache_size=setup.cache_bytes,
            bloom_filter_bits=_FILTER_BITS,
        )

    def putter(self) -> Put:
        return cast("Put", self._database.put)

    def deleter(self) -> Callable[[bytes], object]:
        return cast("Callable[[bytes], object]", self._database.delete)

    def committer(self) -> Put:
        return partial(self._database.put, sync=True)

    def updater(self, isolation: str = "serializable") -> Put:
        get, begin = self._database.get, partial(self._database.write_batch, sync=self._is_synced)

        def update(key: bytes, value: bytes) -> None:
            get(key)
            with begin() as batch:
                batch.put(key, value)

        return update

    def batch_putter(self) -> Callable[[Sequence[Row]], object]:
        return self._batches(is_synced=False)

    def loader(self) -> Callable[[Sequence[Row]], object]:
        return self._batches(is_synced=True)

    def _batches(self, *, is_synced: bool) -> Callable[[Sequence[Row]], object]:
        begin = partial(self._database.write_batch, sync=is_synced)

        def put(rows: Sequence[Row]) -> None:
            with begin() as batch:
                add = batch.put
                for key, value in rows:
                    add(key, value)

        return put

    def getter(self) -> Callable[[bytes], bytes | None]:
        return cast("Callable[[bytes], bytes | None]", self._database.get)

    def many_getter(self) -> Callable[[Sequence[bytes]], object]:
        get = self._database.get
        return lambda keys: [get(key) for key in keys]

    def rows(
        self, start: bytes | None = None, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[Row]:
        found = cast("Iterator[Row]", self._database.iterator(start=start, reverse=reverse))
        return found if limit is None else islice(found, limit)

    def chunks(self, count: int) -> Iterator[Sequence[Row]]:
        rows = self.rows()
        while chunk := list(islice(rows, count)):
            yield chunk

    def settle(self) -> None:
        """Wait until no table came or went for a while: LevelDB does not say what it does."""
        until = time.monotonic() + _SETTLE_SECONDS
        before: list[str] = []
        while time.monotonic() < until:
            tables = sorted(name for name in os.listdir(self._folder) if name.endswith(".ldb"))
            if tables == before:
                return
            before = tables
            time.sleep(_STILL_SECONDS)

    def close(self) -> None:
        self._database.close()


STORE = LevelStore
