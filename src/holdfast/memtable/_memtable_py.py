"""The memtable: the plain Python twin and specification of `_memtable_c`.

A memtable is an ordered table in memory of point entries (key, seq, kind, value), in internal
order, and of range tombstones. It only grows, until it is frozen.

Cursors keep the memtable alive. They see entries that are added after they were made: a snapshot
number, not the cursor, hides what is newer.

`bytes_used` is what the compiled twin's arena takes, by a formula both twins share: the bytes of
the keys and values and a fixed number for each entry and tombstone. Replaced values still count.

Thread safety: writers are serialised by the caller; readers may run between writes at any point.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from holdfast.base import DELETE, KEY_BYTES_MAX, MERGE, PUT, SEQ_MAX, VALUE_BYTES_MAX, LimitError
from holdfast.cursor import Cursor, Entry, Gaps, RangeTombstones

Place = tuple[bytes, int]
"""Key and negated sequence number: where an entry stands in internal order."""

ENTRY_BYTES = 64
"""Overhead of one entry: 40 bytes of node, 16 of index in pages that are two thirds full, rounding,
on average.
"""

REPLACED_BYTES = 4
"""Overhead of the new value when an entry is replaced: rounding, on average."""

TOMBSTONE_BYTES = 400
"""Overhead of one range tombstone: its leaf, and its 32 bytes in each block above it, of which
there are about ten.
"""


class SpareChunks:
    """Memory of memtables that are gone, for those to come.

    The kernel clears what it gives to a process, and a virtual machine has to ask its host for it
    as well: of a put in random order that was an eighth. The compiled twin keeps whole chunks of
    large memtables instead, at first none. This one keeps nothing: the interpreter has the memory.
    """

    bytes_held: int = 0
    """Bytes that no memtable has now."""

    chunk_bytes: int = 0
    """Bytes of a chunk of a large memtable, or 0 where `prepare` can make none ready."""

    def keep(self, bytes_max: int) -> None:
        """Hold at most this much from now on; what is more goes back to the system."""

    def prepare(self) -> bool:
        """Hold one chunk more that the kernel cleared already; return False when there is no room
        for one. Other threads run meanwhile.
        """
        return False


class Memtable:
    """An ordered table in memory. It notes its PUTs and MERGEs in `gaps`, those of its tree, and
    takes its memory from `spare` as long as there is some, which gets it back in the end.
    """

    def __init__(self, gaps: Gaps | None = None, spare: SpareChunks | None = None) -> None:
        self.gaps = Gaps() if gaps is None else gaps
        """Constant after construction."""
        self._order: list[Place] = []
        self._entries: dict[Place, tuple[int, bytes]] = {}
        self._tombstones = RangeTombstones()
        self._bytes_used = 0
        self._seqs = (0, 0)
        self._frozen = False

    @property
    def bytes_used(self) -> int:
        """About the bytes of memory that the table takes."""
        return self._bytes_used

    @property
    def entry_count(self) -> int:
        """The number of point entries."""
        return len(self._order)

    @property
    def seq_min(self) -> int:
        """The lowest sequence number of an entry or tombstone, 0 when there is none."""
        return self._seqs[0]

    @property
    def seq_max(self) -> int:
        """The highest sequence number of an entry or tombstone, 0 when there is none."""
        return self._seqs[1]

    @property
    def frozen(self) -> bool:
        """Whether writes are refused."""
        return self._frozen

    @property
    def range_tombstones(self) -> RangeTombstones:
        """The range tombstones now; the set is immutable and is replaced by each `delete_range`."""
        return self._tombstones

    def put(self, seq: int, kind: int, key: bytes, value: bytes) -> None:
        """Insert an entry, or replace the one with the same key and sequence number.

        Raises: ValueError when the memtable is frozen or a number is out of range; LimitError;
        TypeError.
        """
        self._check_writable()
        _check_seq(seq)
        if kind not in (DELETE, PUT, MERGE):
            raise ValueError(f"a point entry has kind 0, 1 or 3, not {kind}")
        _check_bytes(key, "key")
        _check_bytes(value, "value")
        if len(key) > KEY_BYTES_MAX:
            raise LimitError(f"the key has {len(key)} bytes; the limit is {KEY_BYTES_MAX}")
        if len(value) > VALUE_BYTES_MAX:
            raise LimitError(f"the value has {len(value)} bytes; the limit is {VALUE_BYTES_MAX}")
        if kind != DELETE:
            self.gaps.note_put(key, seq)
        place = (key, -seq)
        is_new = place not in self._entries
        # First the entry, then its place: a reader that finds the place finds the entry.
        self._entries[place] = kind, value
        if is_new:
            insort(self._order, place)
            self._bytes_used += len(key) + len(value) + ENTRY_BYTES
            self._count_seq(seq)
        else:
            self._bytes_used += len(value) + REPLACED_BYTES

    def delete_range(self, seq: int, start: bytes, stop: bytes) -> None:
        """Delete what is older than `seq` of the keys in [start, stop). Nothing happens when the
        range is empty.

        Raises: ValueError when the memtable is frozen or `seq` is out of range; LimitError;
        TypeError.
        """
        self._check_writable()
        _check_seq(seq)
        for key in (start, stop):
            _check_bytes(key, "key")
            # The successor of the longest key is a bound, too.
            if len(key) > KEY_BYTES_MAX + 1:
                raise LimitError(f"the key has {len(key)} bytes; the limit is {KEY_BYTES_MAX}")
        if start < stop:
            self._tombstones = self._tombstones.with_added(start, stop, seq)
            self._bytes_used += len(start) + len(stop) + TOMBSTONE_BYTES
            self._count_seq(seq)

    def get(self, key: bytes, snapshot: int) -> tuple[int, int, bytes] | None:
        """Return (seq, kind, value) of the newest version of `key` with seq <= snapshot, or None.

        Range tombstones are not looked at. Raises: TypeError.
        """
        _check_bytes(key, "key")
        entry = self._entry((key, -snapshot), 0)
        return entry[1:] if entry is not None and entry[0] == key else None

    def overlaps(self, lower: bytes | None, upper: bytes | None) -> bool:
        """Return whether the range of the keys that it has now shares a key with [lower, upper);
        None is unbounded.
        """
        order = self._order
        return (
            bool(order)
            and (upper is None or order[0][0] < upper)
            and (lower is None or lower <= order[-1][0])
        )

    def cursor(self) -> Cursor:
        """Return a cursor over the entries, which keeps the memtable alive and sees entries added
        later.
        """
        return _MemtableCursor(self)

    def freeze(self) -> None:
        """Refuse all later writes with ValueError."""
        self._frozen = True

    def _entry(self, place: Place, step: int) -> Entry | None:
        """Return the entry `step` behind the first one at or behind `place`."""
        order = self._order
        while True:
            index = bisect_left(order, place)
            at = index + step
            found = order[at] if 0 <= at < len(order) else None
            # A writer may have run between the lines. Places are only added, so the index is still
            # right when it is still the same.
            if bisect_left(order, place) == index:
                return None if found is None else self._entry_at(found)

    def _entry_at(self, place: Place) -> Entry:
        kind, value = self._entries[place]
        return place[0], -place[1], kind, value

    def _check_writable(self) -> None:
        if self._frozen:
            raise ValueError("memtable is frozen")

    def _count_seq(self, seq: int) -> None:
        low, high = self._seqs
        self._seqs = min(low or seq, seq), max(high, seq)


class _MemtableCursor(Cursor):
    """Remembers where it stands by key and sequence number: indexes move as the table grows."""

    def __init__(self, table: Memtable) -> None:
        super().__init__()
        self._table = table
        self._place = (b"", 0)

    def _first(self) -> Entry | None:
        return self._stand_at(self._table._order[:1])

    def _last(self) -> Entry | None:
        return self._stand_at(self._table._order[-1:])

    def _seek(self, key: bytes, trailer: int) -> Entry | None:
        # The first entry whose trailer is not greater, whatever its kind.
        entry = self._stand((key, -(trailer >> 8)), 0)
        if entry is not None and entry[:2] == (key, trailer >> 8) and entry[2] > trailer & 0xFF:
            return self._next()
        return entry

    def _seek_before(self, key: bytes) -> Entry | None:
        return self._stand((key, -SEQ_MAX), -1)

    def _next(self) -> Entry | None:
        return self._stand(self._place, 1)

    def _prev(self) -> Entry | None:
        return self._stand(self._place, -1)

    def _stand_at(self, places: list[Place]) -> Entry | None:
        return self._settle(self._table._entry_at(places[0]) if places else None)

    def _stand(self, place: Place, step: int) -> Entry | None:
        return self._settle(self._table._entry(place, step))

    def _settle(self, entry: Entry | None) -> Entry | None:
        if entry is not None:
            self._place = entry[0], -entry[1]
        return entry


def _check_bytes(value: object, role: str) -> None:
    if type(value) is not bytes:
        raise TypeError(f"a {role} is bytes, not {type(value).__name__}")


def _check_seq(seq: int) -> None:
    if not isinstance(seq, int):
        raise TypeError(f"a sequence number is an int, not {type(seq).__name__}")
    if not 0 < seq <= SEQ_MAX:
        raise ValueError(f"the sequence number {seq} is not in 1..{SEQ_MAX}")
