"""Read views: one immutable picture of a tree, and the reads that go through it.

A `ReadView` is the active memtable, the frozen ones and the tables of every level at one moment. It
is replaced as a whole when any of them changes (LevelDB's Version, RocksDB's SuperVersion); who
holds an old one keeps reading it.

Invariants:
1. Everything in an earlier source is newer than everything about the same key in a later one, in
   this order: active memtable, frozen memtables newest first, level 0 newest first, level 1, level
   2, ...
2. The tables of a level below 0 are sorted by key and their ranges are disjoint.
3. A view never changes, but its active memtable grows: the snapshot number hides what came later.

Thread safety: views are immutable and may be read from any thread; a cursor belongs to one thread
at a time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.base import MERGE, PUT, SEQ_MAX, check_key, prefix_upper, unpack_trailer
from holdfast.cursor import Cursor, ListCursor, MergeCursor, Owner, RangeTombstones, UserCursor
from holdfast.memtable import Memtable

if TYPE_CHECKING:
    from holdfast.lsm.merged import MergeReads
    from holdfast.sstable import TableReader

Entry = tuple[bytes, int, int, bytes]
Found = tuple[int, int, bytes] | None
Otherwise = TypeVar("Otherwise")
Read = Callable[["Memtable | TableReader", bytes, int], Found]
"""How one source is asked for a key."""


class _NotCachedError(Exception):
    """The answer takes a page from a file."""


class ReadView(Owner):
    """The sources of one tree at one moment, newest first. `merges` resolves MERGE entries."""

    __slots__ = ("__weakref__", "_table_tombstones", "active", "frozen", "levels", "merges")

    def __init__(
        self,
        active: Memtable,
        frozen: tuple[Memtable, ...],
        levels: tuple[tuple[TableReader, ...], ...],
        merges: MergeReads | None = None,
    ) -> None:
        super().__init__()
        self.merges = merges
        self.active = active
        self.frozen = frozen
        self.levels = levels
        self._table_tombstones: RangeTombstones | None = None

    def get(self, key: bytes, snapshot: int) -> bytes | None:
        """Return the value of `key` as of `snapshot`, or None when it is absent or deleted."""
        return self._get(check_key(key), snapshot, _read)

    def get_cached(
        self, key: bytes, snapshot: int, otherwise: Otherwise
    ) -> bytes | Otherwise | None:
        """Like `get`, but return `otherwise` when that takes a page from a file."""
        try:
            return self._get(check_key(key), snapshot, _read_cached)
        except _NotCachedError:
            return otherwise

    def _get(self, key: bytes, snapshot: int, read: Read) -> bytes | None:
        cover = 0
        for source in self._sources(key):
            cover = max(cover, source.range_tombstones.cover(key, snapshot))
            found = read(source, key, snapshot)
            if found is not None:
                seq, kind, value = found
                if kind == MERGE and seq >= cover:
                    if read is not _read_cached or self.merges is None:
                        return self.merged(key, snapshot)
                    missed = _NotCachedError()
                    merged = self.merges.value_cached(self, key, snapshot, missed)
                    if isinstance(merged, _NotCachedError):
                        raise merged
                    return merged
                return value if kind == PUT and seq >= cover else None
            if cover and source is not self.active and source not in self.frozen:
                return None
        return None

    def _sources(self, key: bytes) -> Iterable[Memtable | TableReader]:
        yield self.active
        yield from self.frozen
        for number, level in enumerate(self.levels):
            if number == 0:
                yield from (reader for reader in level if _holds(reader, key))
                continue
            index = bisect_right(level, key, key=lambda reader: reader.info.upper)
            if index < len(level) and _holds(level[index], key):
                yield level[index]

    def merged(self, key: bytes, snapshot: int) -> bytes | None:
        """Return the value of `key` as of `snapshot`, whatever versions it has. Raises: MergeError,
        and ValueError when there is nothing that resolves MERGE entries.
        """
        if self.merges is None:
            raise ValueError("nothing resolves the MERGE entries of this view")
        return self.merges.value_at(self, key, snapshot)

    def fold(self, key: bytes, base: bytes | None, entries: Sequence[bytes]) -> bytes:
        """Return the value of `key` after MERGE entries, the newest first, over the value `base`.
        Raises: as `merged`.
        """
        if self.merges is None:
            raise ValueError("nothing resolves the MERGE entries of this view")
        return self.merges.fold(key, base, entries)

    def get_many(self, keys: Iterable[bytes], snapshot: int) -> list[bytes | None]:
        """Return the values of `keys` in their order, None where absent."""
        return [self.get(key, snapshot) for key in keys]

    def key_change(self, key: bytes, since: int) -> int:
        """Return the highest sequence number of what concerns `key` when it is above `since`, or
        else 0. A source that has nothing above `since` is not asked.
        """
        plain = check_key(key)
        for source in self._sources(plain):
            if _seq_max(source) > since:
                found = source.get(plain, SEQ_MAX)
                newest = source.range_tombstones.cover(plain, SEQ_MAX)
                if found is not None:
                    newest = max(newest, found[0])
                if newest > 0:
                    # What follows is older.
                    return newest if newest > since else 0
        return 0

    def range_change(
        self, lower: bytes | None, upper: bytes | None, since: int
    ) -> tuple[bytes | None, int] | None:
        """Return something about [lower, upper) whose sequence number is above `since`: (key,
        number) of an entry, (None, number) of a range tombstone, or None when there is nothing.

        A source that has nothing above `since` is not asked. Of the others the newest one that has
        something decides: its newest tombstone over the range, or else its first entry.
        """
        if lower is not None and upper is not None and lower >= upper:
            return None
        for source in self._sources_over(lower, upper):
            if _seq_max(source) <= since:
                continue
            covering = source.range_tombstones.newest_over(lower, upper)
            if covering > since:
                return None, covering
            cursor = _cursor_of(source)
            at = cursor.seek_first() if lower is None else cursor.seek(lower)
            while at and (upper is None or cursor.key < upper):
                if cursor.seq > since:
                    return cursor.key, cursor.seq
                at = cursor.next()
        return None

    def _sources_over(
        self, lower: bytes | None, upper: bytes | None
    ) -> Iterable[Memtable | TableReader]:
        yield self.active
        yield from self.frozen
        for number, level in enumerate(self.levels):
            if number == 0:
                yield from (reader for reader in level if reader.info.overlaps(lower, upper))
            else:
                first, last = overlapping(level, lower, upper)
                yield from level[first:last]

    def tombstone_sets(self) -> list[RangeTombstones]:
        """Return the sets of range tombstones of all sources; those of the tables are one set."""
        if self._table_tombstones is None:
            tables = [reader.range_tombstones for level in self.levels for reader in level]
            self._table_tombstones = RangeTombstones([]).merged(
                [each for each in tables if len(each)]
            )
        memtables = [table.range_tombstones for table in (self.active, *self.frozen)]
        return [each for each in (self._table_tombstones, *memtables) if len(each)]

    def internal_cursor(
        self, lower: bytes | None = None, upper: bytes | None = None, *, fill_cache: bool = True
    ) -> Cursor:
        """Return a cursor over all versions in sources that overlap [lower, upper) now.

        Raises: TypeError for a bound that is neither bytes nor None.
        """
        for bound in (lower, upper):
            if bound is not None and type(bound) is not bytes:
                raise TypeError(f"a bound is bytes or None, not {type(bound).__name__}")
        # What comes into a memtable later is newer than all that whoever asks now may see.
        tables = [table for table in (self.active, *self.frozen) if table.overlaps(lower, upper)]
        cursors: list[Cursor] = [table.cursor() for table in tables]
        for number, level in enumerate(self.levels):
            if number == 0:
                readers = [reader for reader in level if reader.info.overlaps(lower, upper)]
                cursors.extend(_cursor_in(reader, fill_cache, lower, upper) for reader in readers)
                continue
            first, last = overlapping(level, lower, upper)
            if last - first == 1:
                cursors.append(_cursor_in(level[first], fill_cache, lower, upper))
            elif first < last:
                cursors.append(LevelCursor(level, fill_cache, first, last, lower, upper))
        return cursors[0] if len(cursors) == 1 else MergeCursor(cursors)

    def cursor(
        self,
        snapshot: int,
        lower: bytes | None = None,
        upper: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        what: int = 0,
        *,
        fill_cache: bool = True,
    ) -> UserCursor[Any]:
        """Return an iterator over what a user sees in [lower, upper) as of `snapshot`."""
        return UserCursor(
            self.internal_cursor(lower, upper, fill_cache=fill_cache),
            self.tombstone_sets(),
            snapshot,
            lower,
            upper,
            reverse,
            limit,
            what,
            self,
            self.active.gaps,
            merges=None if self.merges is None else self,
        )


def _read(source: Memtable | TableReader, key: bytes, snapshot: int) -> Found:
    return source.get(key, snapshot)


def _read_cached(source: Memtable | TableReader, key: bytes, snapshot: int) -> Found:
    if isinstance(source, Memtable):
        return source.get(key, snapshot)
    found = source.get_cached(key, snapshot, _NotCachedError())
    if isinstance(found, _NotCachedError):
        raise found
    return found


def _seq_max(source: Memtable | TableReader) -> int:
    return source.seq_max if isinstance(source, Memtable) else source.info.seq_max


def _cursor_of(source: Memtable | TableReader) -> Cursor:
    # What is only compared should not push out of the pool what is read.
    return source.cursor() if isinstance(source, Memtable) else source.cursor(fill_cache=False)


def overlapping(
    level: Sequence[TableReader], lower: bytes | None, upper: bytes | None
) -> tuple[int, int]:
    """Return the half-open range of the tables of a sorted run that overlap [lower, upper)."""
    first = 0
    last = len(level)
    if lower is not None:
        first = bisect_right(level, lower, key=lambda reader: reader.info.upper)
    if upper is not None:
        last = bisect_left(level, upper, key=lambda reader: reader.info.lower)
    return first, last


def _holds(reader: TableReader, key: bytes) -> bool:
    return reader.info.lower <= key < reader.info.upper


def shared_prefix(lower: bytes | None, upper: bytes | None, count: int) -> bytes | None:
    """Return the first `count` bytes, if all keys in [lower, upper) share them, else None. With a
    count of 0 nobody asks.
    """
    if count == 0 or lower is None or upper is None or len(lower) < count:
        return None
    above = prefix_upper(lower[:count])
    return lower[:count] if above is None or upper <= above else None


def _cursor_in(
    reader: TableReader, fill_cache: bool, lower: bytes | None, upper: bytes | None
) -> Cursor:
    """Return the cursor of a table, of which only the keys in [lower, upper) are wanted."""
    if shared_prefix(lower, upper, reader.prefix_bytes) is None:
        return reader.cursor(fill_cache)
    return LevelCursor((reader,), fill_cache, 0, 1, lower, upper)


class LevelCursor(Cursor):
    """One cursor over the disjoint, sorted tables of a level, or over those from `first` to before
    `last`; opens a table's cursor when it gets there. There is at least one.

    Only keys in [lower, upper) are wanted: a table whose filters deny their common prefix has none.
    """

    def __init__(
        self,
        readers: Sequence[TableReader],
        fill_cache: bool = True,
        first: int = 0,
        last: int | None = None,
        lower: bytes | None = None,
        upper: bytes | None = None,
    ) -> None:
        super().__init__()
        self._lower = lower
        self._upper = upper
        self._readers = readers[first:last]
        self._fill_cache = fill_cache
        self._index = -1
        self._table: Cursor

    def _open(self, index: int, *, is_walk: bool = False) -> Cursor:
        """Open the cursor of a table; a `walk` goes on with the scan of the one before."""
        if index != self._index:
            reader = self._readers[index]
            prefix = shared_prefix(self._lower, self._upper, reader.prefix_bytes)
            is_denied = prefix is not None and not reader.may_contain_prefix(prefix)
            walked_bytes = getattr(self._table, "walked_bytes", 0) if is_walk else 0
            self._table = (
                ListCursor([])
                if is_denied
                else reader.cursor(self._fill_cache, walked_bytes=walked_bytes)
            )
            self._index = index
        return self._table

    def _entry_here(self) -> Entry | None:
        current = self._table
        return (current.key, current.seq, current.kind, current.value) if current.valid else None

    def _forward(self) -> Entry | None:
        """Return the current entry, or enter the tables behind until one has an entry."""
        while not self._table.valid and self._index + 1 < len(self._readers):
            self._open(self._index + 1, is_walk=True).seek_first()
        return self._entry_here()

    def _backward(self) -> Entry | None:
        """Return the current entry, or enter the tables in front until one has an entry."""
        while not self._table.valid and self._index > 0:
            self._open(self._index - 1, is_walk=True).seek_last()
        return self._entry_here()

    def _first_above(self, key: bytes) -> int:
        """Return the index of the first table whose upper bound lies above `key`."""
        return bisect_right(self._readers, key, key=lambda reader: reader.info.upper)

    def _first(self) -> Entry | None:
        self._open(0).seek_first()
        return self._forward()

    def _last(self) -> Entry | None:
        self._open(len(self._readers) - 1).seek_last()
        return self._backward()

    def _seek(self, key: bytes, trailer: int) -> Entry | None:
        index = self._first_above(key)
        if index == len(self._readers):
            return None
        self._open(index).seek(key, unpack_trailer(trailer)[0])
        return self._forward()

    def _seek_before(self, key: bytes) -> Entry | None:
        index = self._first_above(key)
        if index == len(self._readers):
            return self._last()
        self._open(index).seek_before(key)
        return self._backward()

    def _next(self) -> Entry | None:
        self._table.next()
        return self._forward()

    def _prev(self) -> Entry | None:
        self._table.prev()
        return self._backward()
