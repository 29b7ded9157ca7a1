"""Whether nothing changed that a transaction depends on: the plain Python twin and specification of
`_check_c`. See `conflict`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import TYPE_CHECKING

from holdfast.base import RANGE_DELETE, mark
from holdfast.txn.conflict import AHEAD_MIN, Changes, key_conflict, range_conflict
from holdfast.wal import WriteBatch

if TYPE_CHECKING:
    from holdfast.txn.keyspace import Source
    from holdfast.txn.reads import Range


class Dependence:
    """What a transaction depends on in one keyspace."""

    def __init__(self, source: Source, keys: list[bytes], ranges: list[Range]) -> None:
        self.source = source
        self.keys = keys
        self.ranges = ranges


class _Written:
    """What the accepted members of a group write in one keyspace."""

    def __init__(self) -> None:
        self.keys: dict[bytes, int] = {}
        self.order: list[bytes] | None = None
        """The keys, sorted; None until a range is asked for."""
        self.ranges: list[tuple[bytes, bytes, int]] = []

    def add(self, kind: int, key: bytes, stop: bytes, seq: int) -> None:
        if kind == RANGE_DELETE:
            self.ranges.append((key, stop, seq))
            return
        if self.order is not None and key not in self.keys:
            insort(self.order, key)
        self.keys[key] = seq

    def key_change(self, key: bytes) -> int:
        newest = self.keys.get(key, 0)
        for start, stop, seq in self.ranges:
            if start <= key < stop:
                newest = max(newest, seq)
        return newest

    def range_change(
        self, lower: bytes | None, upper: bytes | None
    ) -> tuple[bytes | None, int] | None:
        for start, stop, seq in self.ranges:
            if (upper is None or start < upper) and (lower is None or lower < stop):
                return None, seq
        if self.order is None:
            self.order = sorted(self.keys)
        at = 0 if lower is None else bisect_left(self.order, lower)
        if at < len(self.order) and (upper is None or self.order[at] < upper):
            return self.order[at], self.keys[self.order[at]]
        return None


class GroupWrites:
    """What the transactions write that come before, in the same commit group. Nobody sees it yet.

    Batches are looked into only when somebody asks.
    """

    def __init__(self, seq_first: int) -> None:
        self.next_seq = seq_first
        """The sequence number of the operation that is added next."""
        self._unread: list[tuple[WriteBatch, int]] = []
        self._written: dict[int, _Written] = {}

    def add(self, batch: WriteBatch) -> None:
        """Take in a batch whose operations come next. Raises: MemoryError with nothing changed."""
        self._unread.append((batch, self.next_seq))
        self.next_seq += batch.op_count

    def _of(self, keyspace: int) -> _Written | None:
        """Return what is written in `keyspace`, or None when nothing is."""
        while self._unread:
            batch, seq = self._unread[0]
            # Adding the same again changes nothing, so an error in the middle loses nothing.
            for number, (kind, where, key, value) in enumerate(batch.operations()):
                written = self._written.get(where)
                if written is None:
                    written = self._written[where] = _Written()
                written.add(kind, key, value or b"", seq + number)
            del self._unread[0]
        return self._written.get(keyspace)

    def key_change(self, keyspace: int, key: bytes) -> int:
        """Return the highest sequence number of what concerns `key`, or 0."""
        written = self._of(keyspace)
        return 0 if written is None else written.key_change(key)

    def last_key(self, keyspace: int) -> bytes | None:
        """Return the highest key that is written in `keyspace` by itself, removed ones too, or
        None.
        """
        written = self._of(keyspace)
        return None if written is None else max(written.keys, default=None)

    def range_change(
        self, keyspace: int, lower: bytes | None, upper: bytes | None
    ) -> tuple[bytes | None, int] | None:
        """Return (key or None, sequence number) of something in [lower, upper), or None."""
        written = self._of(keyspace)
        return None if written is None else written.range_change(lower, upper)


class Check:
    """The condition under which a transaction's batch may be written.

    `since` is the sequence number up to which nothing can have changed. `depends` has what the
    transaction depends on, or is called for it when somebody asks.
    """

    def __init__(
        self, since: int, depends: list[Dependence] | Callable[[], list[Dependence]]
    ) -> None:
        self.since = since
        self._depends = depends
        self.hold: object = None
        """What must live as long as the check."""

    @property
    def dependences(self) -> list[Dependence]:
        """What the transaction depends on."""
        if not isinstance(self._depends, list):
            self._depends = self._depends()
        return self._depends

    @property
    def is_large(self) -> bool:
        """Whether it is worth while to look ahead."""
        return sum(len(each.keys) + len(each.ranges) for each in self.dependences) > AHEAD_MIN

    def look_ahead(self, visible: int, changes: Callable[[int], Changes]) -> None:
        """Check what was visible at `visible` already, before the commit waits for its group.

        Requires: `visible` was read before `changes` is asked. Raises: ConflictError.
        """
        if visible != self.since and self.is_large:
            mark("txn.looked_ahead")
            self.require_unchanged(changes, None)
            self.since = visible

    def require_unchanged(
        self, changes: Callable[[int], Changes], group: GroupWrites | None
    ) -> None:
        """Return when nothing changed. Raises: ConflictError.

        `group` has what comes before in the same commit group. When it is given, everything else
        is in the trees.
        """
        since = self.since
        if group is not None and group.next_seq - 1 == since:
            return
        for each in self.dependences:
            keyspace, tree = each.source.id, changes(each.source.id)
            for key in each.keys:
                seq = tree.key_change(key, since)
                if not seq and group is not None:
                    seq = group.key_change(keyspace, key)
                if seq:
                    raise key_conflict(each.source.name, key, seq)
            for lower, upper in each.ranges:
                change = tree.range_change(lower, upper, since)
                if change is None and group is not None:
                    change = group.range_change(keyspace, lower, upper)
                if change is not None:
                    raise range_conflict(each.source.name, lower, upper, change)
