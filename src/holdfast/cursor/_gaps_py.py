"""Ranges of keys in which a scan found nothing to show: the plain Python twin and specification of
`_gaps_c`.

A *gap* (lower, upper, seq) says: of the keys in [lower, upper) nobody whose snapshot is `seq` or
newer sees any. A scan that passed many entries without a row notes the gap; the next one steps over
it, whatever lies there, in memtables or in tables. A queue is the case: what was taken off its head
would else be walked by every look for the next item.

A tree has one set of gaps for all its memtables, one after the other, which tell it of every PUT.
A MERGE is told like one, and is meant where PUT stands here. That is sound for these reasons:

1. Only a PUT makes a key visible. A DELETE, a flush, a compaction and retention never do.
2. Every PUT of the tree is noted, before a reader can see it, and cuts the gap that it falls into.
3. A gap is taken from a scan only while no PUT newer than the scan's snapshot was noted. So
   whatever could end it is either in what the scan saw or will be noted later.
4. A reader with an older view or snapshot than the noted PUTs finds less in the set, never more.

Who opens a tree over tables begins with an empty set, so what is in tables then needs no note.
What brings keys into a tree past its memtables has to `clear` them.

There are at most GAPS_MAX gaps, with keys of at most GAP_KEY_BYTES_MAX; the one that saves the
fewest entries goes first. Where a PUT cuts a gap in two nobody knows how the entries are shared,
so each part counts as half, and what saves fewer than GAP_ENTRIES_MIN is forgotten.

Thread safety: one thread at a time notes PUTs; any number may look and note gaps beside it, because
what they found counts only if no PUT was noted since they began to write it down.
"""

from __future__ import annotations

from holdfast.base import SEQ_MAX

GAPS_MAX = 32
GAP_KEY_BYTES_MAX = 1024
ENTRIES_MAX = 1 << 62
GAP_ENTRIES_MIN = 16
"""A gap that saves fewer entries is not worth its seek."""

Gap = tuple[bytes, bytes | None, int, int]
"""Lower and upper bound (None is behind all keys), sequence number, entries that it saves."""


class Gaps:
    """The gaps of one tree."""

    def __init__(self) -> None:
        self._newest = 0
        self._puts = 0
        # The number of PUTs noted, and the gaps as of then, sorted and disjoint.
        self._found: tuple[int, tuple[Gap, ...]] = (0, ())

    def __len__(self) -> int:
        """Return the number of gaps."""
        return len(self._gaps())

    def note_put(self, key: bytes, seq: int) -> None:
        """Cut the gap that `key` lies in. To be called before a reader can see the PUT."""
        _check_bytes(key)
        _check_seq(seq)
        gaps = self._gaps()
        self._newest = max(self._newest, seq)
        self._puts += 1
        cut: list[Gap] = []
        for gap in gaps:
            cut.extend(_cut(gap, key, is_full=len(gaps) == GAPS_MAX))
        self._found = (self._puts, tuple(cut))

    def note_gap(self, lower: bytes, upper: bytes | None, seq: int, entries: int) -> bool:
        """Take the word of a scan with the snapshot `seq` that it passed so many `entries` in
        [lower, upper) and saw no row. Return whether it was taken.
        """
        _check_bytes(lower)
        if upper is not None:
            _check_bytes(upper)
        _check_seq(seq)
        puts, gaps = self._puts, self._gaps()
        if entries < 0:
            raise ValueError(f"the count of entries is {entries}; it must not be negative")
        if self._newest > seq or entries < GAP_ENTRIES_MIN:
            return False
        if max(len(lower), len(upper or b"")) > GAP_KEY_BYTES_MAX or _is_behind(lower, upper):
            return False
        others = []
        for gap in gaps:
            if _is_apart(gap, lower, upper):
                others.append(gap)
                continue
            lower = min(lower, gap[0])
            upper = None if upper is None or gap[1] is None else max(upper, gap[1])
            seq = max(seq, gap[2])
            entries = min(entries + gap[3], ENTRIES_MAX)
        if len(others) == GAPS_MAX:
            others.remove(min(others, key=lambda gap: gap[3]))
        self._found = (puts, tuple(sorted([*others, (lower, upper, seq, entries)])))
        return True

    def gap_at(self, key: bytes, snapshot: int) -> tuple[bytes, bytes | None] | None:
        """Return the gap that `key` lies in, for a reader with this snapshot, or None."""
        _check_bytes(key)
        for lower, upper, seq, _ in self._gaps():
            if lower <= key and not _is_behind(key, upper) and seq <= snapshot:
                return lower, upper
        return None

    def gap_before(self, key: bytes | None, snapshot: int) -> tuple[bytes, bytes | None] | None:
        """Return the gap that reaches up to `key` from below, or over it. None is behind all."""
        if key is not None:
            _check_bytes(key)
        for lower, upper, seq, _ in self._gaps():
            reaches = upper is None or (key is not None and key <= upper)
            if reaches and (key is None or lower < key) and seq <= snapshot:
                return lower, upper
        return None

    def clear(self, seq: int) -> None:
        """Forget all gaps, because keys came with numbers up to `seq` that nobody noted. As
        `note_put`, before a reader can see them.
        """
        _check_seq(seq)
        self._newest = max(self._newest, seq)
        self._puts += 1

    def _gaps(self) -> tuple[Gap, ...]:
        puts, gaps = self._found
        # What a reader wrote down while a PUT was noted may lack the cut.
        return gaps if puts == self._puts else ()


def _cut(gap: Gap, key: bytes, *, is_full: bool) -> list[Gap]:
    """Return what a PUT leaves of a gap: one part at most when there is no room for another."""
    lower, upper, seq, entries = gap
    if key < lower or _is_behind(key, upper):
        return [gap]
    after = key + b"\0"
    if len(after) > GAP_KEY_BYTES_MAX:
        return []
    entries //= 2
    if entries < GAP_ENTRIES_MIN:
        return []
    parts = [(lower, key, seq, entries), (after, upper, seq, entries)]
    parts = [part for part in parts if not _is_behind(part[0], part[1])]
    return parts[:1] if is_full else parts


def _is_behind(key: bytes, upper: bytes | None) -> bool:
    return upper is not None and key >= upper


def _is_apart(gap: Gap, lower: bytes, upper: bytes | None) -> bool:
    """Return whether a gap neither overlaps nor touches [lower, upper)."""
    return (upper is not None and gap[0] > upper) or (gap[1] is not None and gap[1] < lower)


def _check_bytes(key: object) -> None:
    if type(key) is not bytes:
        raise TypeError(f"a key is bytes, not {type(key).__name__}")


def _check_seq(seq: int) -> None:
    if not isinstance(seq, int):
        raise TypeError(f"a sequence number is an int, not {type(seq).__name__}")
    if not 0 <= seq <= SEQ_MAX:
        raise ValueError(f"the sequence number {seq} does not fit 56 bits")
