"""RocksDB through `rocksdict` in raw mode (keys and values are bytes as they are).

- RocksDB's defaults (pages of 4 KiB, Snappy, leveled compaction, two background jobs, two write
  buffers), but for the block cache (LRU) and the write buffer, which have the sizes of the
  comparison.
- A Bloom filter of 10 bits a key, which RocksDB's tuning guide recommends and Holdfast has by
  default. RocksDB holds filters and indexes outside of its cache (its default), in more memory.
- Durable: `WriteOptions.sync = True`. Not synced: the default, one call a row; the log is written
  to the system, so a crash of the machine takes the newest rows, one of the process none.
- Transactions: it has none from Python. A get and a `WriteBatch` stand for one, without isolation.
- Batches: `WriteBatch`. Lists of keys: `get` of a list, which is RocksDB's MultiGet.
- Loads of sorted rows: an `SstFileWriter` with the options of the database, whose file is moved
  into it by `ingest_external_file`; it is durable then.
- Tasks: 64 threads; RocksDB syncs the commits of several at once.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import ClassVar, cast

import rocksdict

from holdfast.testing.bench_report import version_of
from holdfast.testing.versus_store import Put, Row, Setup, Store

_FILTER_BITS = 10
_BUSY = (
    "rocksdb.num-running-flushes",
    "rocksdb.mem-table-flush-pending",
    "rocksdb.num-running-compactions",
    "rocksdb.compaction-pending",
)


def version() -> str:
    """Return what runs; rocksdict does not say which RocksDB it holds."""
    return version_of("rocksdict")


class RocksStore(Store):
    """A database of RocksDB."""

    syncs: ClassVar[dict[str, str]] = {"commit": "sync=True", "none": "sync=False"}

    def __init__(self, setup: Setup) -> None:
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(rocksdict.Cache(setup.cache_bytes))
        table.set_bloom_filter(_FILTER_BITS, False)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_size(setup.memtable_bytes)
        self._options = options
        self._folder = setup.folder
        self._database = rocksdict.Rdict(setup.folder, options)
        write = rocksdict.WriteOptions()
        write.sync = setup.sync == "commit"
        self._database.set_write_options(write)

    def putter(self) -> Put:
        return self._database.put

    def deleter(self) -> Callable[[bytes], object]:
        return self._database.delete

    def committer(self) -> Put:
        return self._database.put

    def updater(self, isolation: str = "serializable") -> Put:
        database, new_batch = self._database, rocksdict.WriteBatch

        def update(key: bytes, value: bytes) -> None:
            database.get(key)
            batch = new_batch(raw_mode=True)
            batch.put(key, value)
            database.write(batch)

        return update

    def batch_putter(self) -> Callable[[Sequence[Row]], object]:
        database = self._database

        def put(rows: Sequence[Row]) -> None:
            batch = rocksdict.WriteBatch(raw_mode=True)
            add = batch.put
            for key, value in rows:
                add(key, value)
            database.write(batch)

        return put

    def loader(self) -> Callable[[Sequence[Row]], object]:
        path = f"{self._folder}/load.sst"
        moving = rocksdict.IngestExternalFileOptions()
        moving.set_move_files(True)

        def load(rows: Sequence[Row]) -> None:
            writer = rocksdict.SstFileWriter(self._options)
            writer.open(path)
            for key, value in rows:
                writer[key] = value
            writer.finish()
            self._database.ingest_external_file([path], moving)
            pathlib.Path(path).unlink(missing_ok=True)

        return load

    def getter(self) -> Callable[[bytes], bytes | None]:
        return cast("Callable[[bytes], bytes | None]", self._database.get)

    def many_getter(self) -> Callable[[Sequence[bytes]], object]:
        return cast("Callable[[Sequence[bytes]], object]", self._database.get)

    def rows(
        self, start: bytes | None = None, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[Row]:
        found = cast("Iterator[Row]", self._database.items(backwards=reverse, from_key=start))
        return found if limit is None else islice(found, limit)

    def chunks(self, count: int) -> Iterator[Sequence[Row]]:
        rows = self.rows()
        while chunk := list(islice(rows, count)):
            yield chunk

    def settle(self) -> None:
        self._database.flush()
        while any(self._database.property_int_value(name) for name in _BUSY):
            time.sleep(0.005)

    def close(self) -> None:
        self._database.close()


STORE = RocksStore
