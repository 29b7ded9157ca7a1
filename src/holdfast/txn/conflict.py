"""Whether a transaction may commit, which asks if what it depends on changed since its snapshot.

A serializable transaction depends on what it read, one at the level "snapshot" on what it writes.
The question is asked right before the commit group's record is sealed, with the leadership, so that
nothing can change between the answer and the commit. Two places can hold a change: the trees, which
have everything that was applied, and the transactions before this one in the same group.

What it costs depends on how much the transaction read or wrote, and not on what others did: sources
that have nothing newer than the snapshot are passed over, and of the others only the keys and
ranges in question are looked at.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.base import MERGE, RANGE_DELETE, ConflictError, mark
from holdfast.txn.reads import Range
from holdfast.wal import WriteBatch

SHOWN_BYTES_MAX = 48
"""Longer keys are cut in messages."""

AHEAD_MIN = 16
"""A transaction that depends on more is checked once before it joins a group, so that the group
waits for a look at what came since then only.
"""


class Changes(Protocol):
    """What is asked of a tree: `lsm.ReadView` has it."""

    def key_change(self, key: bytes, since: int) -> int:
        """Return the highest sequence number of what concerns `key`, or 0 if it is not above
        `since`.
        """
        ...

    def range_change(
        self, lower: bytes | None, upper: bytes | None, since: int
    ) -> tuple[bytes | None, int] | None:
        """Return (key or None, sequence number) of something above `since` in [lower, upper)."""
        ...


@dataclass(frozen=True, slots=True)
class Dependence:
    """What a transaction depends on in one keyspace."""

    keyspace: int
    name: str
    keys: Sequence[bytes]
    ranges: Sequence[Range]


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
        self._seq = seq_first
        self._unread: list[tuple[WriteBatch, int]] = []
        self._written: dict[int, _Written] = {}

    @property
    def next_seq(self) -> int:
        """The sequence number of the operation that is added next."""
        return self._seq

    def add(self, batch: WriteBatch) -> None:
        """Take in a batch whose operations come next. Raises: MemoryError with nothing changed."""
        self._unread.append((batch, self._seq))
        self._seq += batch.op_count

    def of(self, keyspace: int) -> _Written | None:
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


class Check:
    """The condition under which a transaction's batch may be written.

    `since` is the sequence number up to which nothing can have changed.
    """

    def __init__(self, since: int, depends: Callable[[], Iterable[Dependence]]) -> None:
        self.since = since
        self._depends = depends
        self._found: Sequence[Dependence] | None = None
        self.hold: object = None
        """What must live as long as the check."""

    @property
    def dependences(self) -> Sequence[Dependence]:
        """What the transaction depends on."""
        if self._found is None:
            self._found = list(self._depends())
        return self._found

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
            tree = changes(each.keyspace)
            written = None if group is None else group.of(each.keyspace)
            for key in each.keys:
                seq = tree.key_change(key, since)
                if not seq and written is not None:
                    seq = written.key_change(key)
                if seq:
                    raise _conflict(each.name, key, seq)
            for lower, upper in each.ranges:
                found = tree.range_change(lower, upper, since)
                if found is None and written is not None:
                    found = written.range_change(lower, upper)
                if found is not None:
                    raise _range_conflict(each.name, lower, upper, found)


def written_by(batch: WriteBatch, names: Mapping[int, str]) -> list[Dependence]:
    """Return the keys and ranges that a batch writes, but for keys that are only merged: operands
    are applied to whatever is there.
    """
    keys: dict[int, dict[bytes, None]] = {}
    ranges: dict[int, list[Range]] = {}
    for kind, keyspace, key, value in batch.operations():
        if kind == RANGE_DELETE:
            ranges.setdefault(keyspace, []).append((key, value))
        elif kind != MERGE:
            keys.setdefault(keyspace, {})[key] = None
    return [
        Dependence(keyspace, name, list(keys.get(keyspace, ())), ranges.get(keyspace, []))
        for keyspace, name in names.items()
    ]


def shown(key: bytes | None) -> str:
    """Return a key as messages show it."""
    if key is None or len(key) <= SHOWN_BYTES_MAX:
        return repr(key)
    return f"{key[:SHOWN_BYTES_MAX]!r}... ({len(key)} bytes)"


def _conflict(name: str, key: bytes, seq: int) -> ConflictError:
    mark("txn.conflict_on_key")
    return ConflictError(
        f"another transaction committed key {shown(key)} of keyspace {name!r} (sequence number "
        f"{seq}) after this one began; run it again",
        keyspace=name,
        key=key,
        seq=seq,
    )


def _range_conflict(
    name: str, lower: bytes | None, upper: bytes | None, found: tuple[bytes | None, int]
) -> ConflictError:
    mark("txn.conflict_on_range")
    key, seq = found
    what = f"key {shown(key)}" if key is not None else "a range delete"
    return ConflictError(
        f"another transaction committed {what} (sequence number {seq}) in the range from "
        f"{shown(lower)} to {shown(upper)} of keyspace {name!r}, which this one depends on, after "
        "it began; run it again",
        keyspace=name,
        key=lower if key is None else key,
        stop=upper if key is None else None,
        seq=seq,
    )
