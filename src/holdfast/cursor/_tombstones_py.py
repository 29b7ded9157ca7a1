"""Range tombstones: the plain Python twin and specification of `_tombstones_c`.

A *range tombstone* (start, stop, seq) deletes every entry whose key lies in [start, stop) and whose
sequence number is less than its own. `RangeTombstones` is an immutable set of them, in canonical
form: the ranges of one sequence number neither overlap nor touch. It is shared freely between
threads.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.base import SEQ_MAX

Tombstone = tuple[bytes, bytes, int]
"""(start, stop, sequence number)."""


class RangeTombstones:
    """An immutable set of range tombstones. A tombstone whose start is not less than its stop is
    ignored.

    Raises: TypeError for a field of the wrong type; ValueError for a sequence number outside
    1..SEQ_MAX.
    """

    def __init__(self, tombstones: Iterable[Tombstone] = ()) -> None:
        by_seq: dict[int, list[tuple[bytes, bytes]]] = {}
        for start, stop, seq in tombstones:
            _check(start, stop, seq)
            if start < stop:
                by_seq.setdefault(seq, []).append((start, stop))
        canonical = [
            (start, stop, seq) for seq, spans in by_seq.items() for start, stop in _joined(spans)
        ]
        self._tombstones = sorted(canonical, key=lambda each: (each[0], -each[2]))

    def __len__(self) -> int:
        """Return the number of tombstones in canonical form."""
        return len(self._tombstones)

    @property
    def fragment_count(self) -> int:
        """The number of tombstones in canonical form: 0 when nothing is deleted."""
        return len(self._tombstones)

    def cover(self, key: bytes, snapshot: int) -> int:
        """Return the highest sequence number <= snapshot of a tombstone over `key`, 0 when there is
        none.
        """
        return max((seq for seq in self.seqs_covering(key) if seq <= snapshot), default=0)

    def seqs_covering(self, key: bytes) -> list[int]:
        """Return the sequence numbers of all tombstones over `key`, highest first."""
        if type(key) is not bytes:
            raise TypeError(f"a key is bytes, not {type(key).__name__}")
        return sorted(
            (seq for start, stop, seq in self._tombstones if start <= key < stop), reverse=True
        )

    def newest_over(self, lower: bytes | None, upper: bytes | None) -> int:
        """Return the highest sequence number of a tombstone over a part of [lower, upper), 0 when
        there is none. None is unbounded.
        """
        return max((seq for _, _, seq in self.clipped(lower, upper).tombstones()), default=0)

    def with_added(self, start: bytes, stop: bytes, seq: int) -> RangeTombstones:
        """Return a set that has one tombstone more. Quickest when `seq` is above all others."""
        return RangeTombstones([*self._tombstones, (start, stop, seq)])

    def merged(self, others: Iterable[RangeTombstones]) -> RangeTombstones:
        """Return the union of this set and the others."""
        return RangeTombstones([each for one in (self, *others) for each in one.tombstones()])

    def clipped(self, lower: bytes | None, upper: bytes | None) -> RangeTombstones:
        """Return what the tombstones delete of the keys in [lower, upper). None is unbounded."""
        return RangeTombstones(
            (
                start if lower is None else max(start, lower),
                stop if upper is None else min(stop, upper),
                seq,
            )
            for start, stop, seq in self._tombstones
        )

    def tombstones(self) -> list[Tombstone]:
        """Return the canonical tombstones, by start ascending, then sequence number descending."""
        return list(self._tombstones)

    def bounds(self) -> tuple[bytes, bytes] | None:
        """Return (least start, greatest stop), or None when the set is empty."""
        if not self._tombstones:
            return None
        return self._tombstones[0][0], max(stop for _, stop, _ in self._tombstones)


def _joined(spans: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the union of some ranges as sorted ranges that neither overlap nor touch."""
    joined: list[tuple[bytes, bytes]] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined


def _check(start: object, stop: object, seq: object) -> None:
    for key in (start, stop):
        if type(key) is not bytes:
            raise TypeError(f"a key is bytes, not {type(key).__name__}")
    if not isinstance(seq, int):
        raise TypeError(f"a sequence number is an int, not {type(seq).__name__}")
    if not 0 < seq <= SEQ_MAX:
        raise ValueError(f"the sequence number {seq} is not in 1..{SEQ_MAX}")
