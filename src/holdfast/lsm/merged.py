"""The values of keys that have MERGE entries, as reads of one tree find them.

A MERGE entry is an operand; the value of its key is that of the versions below it, with the
operands applied. So a read walks down from the newest version to the first that is none, from
source to source. A key with a long run of operands would be walked again by each read: what came of
a run of more than KNOWN_OPERANDS_MIN is *known* from then on, by the sequence number of its newest
entry, and ends the walk of later reads. What the value was as of an entry never changes, but for
retention that drops tables: whoever installs other tables begins anew.

Flushes and compactions make runs short (see `compaction`): they leave at most one operand for each
table and snapshot, of functions that can be combined.

Thread safety: safe. What two threads write down at once may be lost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from holdfast.base import MERGE, PUT, mark
from holdfast.memtable import Memtable
from holdfast.merge import Merges

if TYPE_CHECKING:
    from holdfast.lsm._view import ReadView
    from holdfast.sstable import TableReader

KNOWN_OPERANDS_MIN = 4
KNOWN_BYTES_MAX = 1 << 20
"""Of values that are known, of one tree; with more all are forgotten."""
KNOWN_VERSIONS_MAX = 4
"""Of one key: readers at several snapshots."""
_KNOWN_BYTES = 200
"""What one takes beside its key and value, about."""

Known = tuple[tuple[int, bytes], ...]
Otherwise = TypeVar("Otherwise")


class _NotCachedError(Exception):
    """The answer takes a page from a file."""


class _Missed:
    """Stands for an answer that takes a page from a file."""


_MISSED = _Missed()


class MergeTally:
    """What reads of merged keys cost, of one database. Two threads may count too few."""

    __slots__ = ("operands",)

    def __init__(self) -> None:
        self.operands = 0
        """How many operands were worked through."""


class MergeReads:
    """The merge functions of a tree, and what is known of long runs of operands in it."""

    def __init__(self, merges: Merges, tally: MergeTally | None = None) -> None:
        self._merges = merges
        self._tally = MergeTally() if tally is None else tally
        self._known: dict[bytes, Known] = {}
        self._known_bytes = 0

    def fold(self, key: bytes, base: bytes | None, entries: Sequence[bytes]) -> bytes:
        """Return the value of a key after MERGE entries, the newest first, over the value `base`.

        Raises: MergeError.
        """
        self._tally.operands += len(entries)
        return self._merges.fold(key, base, entries)

    def value_at(self, view: ReadView, key: bytes, snapshot: int) -> bytes | None:
        """Return the value of `key` in `view` as of `snapshot`, None when it is absent.

        Raises: MergeError, CorruptionError.
        """
        return self._value(view, key, snapshot, cached_only=False)

    def value_cached(
        self, view: ReadView, key: bytes, snapshot: int, otherwise: Otherwise
    ) -> bytes | Otherwise | None:
        """Like `value_at`, but return `otherwise` when that takes a page from a file."""
        try:
            return self._value(view, key, snapshot, cached_only=True)
        except _NotCachedError:
            return otherwise

    def _value(
        self, view: ReadView, key: bytes, snapshot: int, *, cached_only: bool
    ) -> bytes | None:
        entries: list[bytes] = []
        known = dict(self._known.get(key, ()))
        newest, base = _walk(view, key, snapshot, known, entries, cached_only=cached_only)
        if not entries:
            return base
        folded = self.fold(key, base, entries)
        if len(entries) > KNOWN_OPERANDS_MIN:
            self._remember(key, newest, folded)
        return folded

    def _remember(self, key: bytes, seq: int, value: bytes) -> None:
        mark("lsm.merge_remembered")
        size = len(key) + len(value) + _KNOWN_BYTES
        if size > KNOWN_BYTES_MAX:
            return
        known = self._known
        if self._known_bytes + size > KNOWN_BYTES_MAX:
            mark("lsm.merges_forgotten")
            known, self._known_bytes = {}, 0
            self._known = known
        # Dropped ones still count: they are few, and the sum is only a bound.
        self._known_bytes += size
        known[key] = ((seq, value), *known.get(key, ())[: KNOWN_VERSIONS_MAX - 1])


def _walk(
    view: ReadView,
    key: bytes,
    snapshot: int,
    known: Mapping[int, bytes],
    entries: list[bytes],
    *,
    cached_only: bool,
) -> tuple[int, bytes | None]:
    """Add the MERGE entries of a key that are visible at `snapshot`, the newest first, down to what
    is `known` or no MERGE. Return the number of the newest version, and the value below them all.
    """
    newest = cover = 0
    for source in _sources(view, key):
        cover = max(cover, source.range_tombstones.cover(key, snapshot))
        found = _get(source, key, snapshot, cached_only=cached_only)
        while found is not None:
            seq, kind, value = found
            if seq < cover:
                return newest, None
            newest = newest or seq
            if kind != MERGE:
                return newest, value if kind == PUT else None
            if seq in known:
                return newest, known[seq]
            entries.append(value)
            found = _get(source, key, seq - 1, cached_only=cached_only)
        if cover:
            # Later sources are older than the tombstone.
            break
    return newest, None


def _get(
    source: Memtable | TableReader, key: bytes, snapshot: int, *, cached_only: bool
) -> tuple[int, int, bytes] | None:
    if not cached_only or isinstance(source, Memtable):
        return source.get(key, snapshot)
    found = source.get_cached(key, snapshot, _MISSED)
    if isinstance(found, _Missed):
        raise _NotCachedError
    return found


def _sources(view: ReadView, key: bytes) -> list[Memtable | TableReader]:
    """Return the sources that may have a key, the newest first."""
    found: list[Memtable | TableReader] = [view.active, *view.frozen]
    for number, level in enumerate(view.levels):
        if number == 0:
            found += [reader for reader in level if reader.info.lower <= key < reader.info.upper]
            continue
        at = bisect_right(level, key, key=lambda reader: reader.info.upper)
        if at < len(level) and level[at].info.lower <= key:
            found.append(level[at])
    return found
