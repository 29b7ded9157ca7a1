"""Moves entries from a cursor into a table, less what no reader can see: the specification.

It is the inner loop of flush and of compaction. The rule is `retain.retained`, applied one entry at
a time: the versions of a key arrive newest first, so the newest of a stripe is the first one seen.

When that is a MERGE, it needs what is older: it begins a *run*, which all older versions of the key
and stripe join, down to the first that is no MERGE. What comes of a run is written instead: a PUT
of the folded value, where it is known what lies below the operands, or else fewer operands. Many
that are left where older stripes of the key follow wait *above*, for the value that these have.
When the merge functions raise, all of it is written as it was.

Thread safety: a retention, its cursor, that one's sources and its builder belong to one thread. The
compiled twin uses them without the GIL, so others must not touch them meanwhile: the retention and
the builder refuse it, but a cursor does not know. Frozen memtables and tables themselves may be
read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from holdfast.base import DELETE, MERGE, SEQ_MAX
from holdfast.compaction.retain import (
    RUN_ENTRIES_MIN,
    Entry,
    MergeStop,
    awaits,
    merged_run,
    resolved,
    stripe_of,
)
from holdfast.cursor import Cursor, RangeTombstones
from holdfast.merge import Merges
from holdfast.sstable import TableBuilder


class Retention:
    """What one merge knows about who can see what, kept from step to step and from table to table.

    `snapshots` are the live snapshots, ascending; `tombstones` those of all inputs; `bottom` says
    that nothing else holds older data of the merged keys, but for keys in the ranges of `older`,
    which are [lower, upper), ascending and disjoint. Without `merges` operands stay as they are.

    Raises: ValueError when the snapshots are not ascending sequence numbers, or the ranges not
    ascending.
    """

    def __init__(
        self,
        snapshots: Sequence[int],
        tombstones: RangeTombstones,
        *,
        bottom: bool,
        older: Sequence[tuple[bytes, bytes]] = (),
        merges: Merges | None = None,
    ) -> None:
        self._merges = Merges() if merges is None else merges
        self.is_merging = False
        """Whether a `merge_into` runs: a second one is refused."""
        self._run: list[Entry] = []
        """A run of the key and stripe that came last."""
        self._above: list[list[Entry]] = []
        """Runs of newer stripes of that key, which wait for a value; the newest first."""
        self._run_max = RUN_ENTRIES_MIN
        """With so many entries a run is made shorter, if that is possible."""
        self._is_based = False
        """Whether all that lies below the run is known, and nothing joins it any more."""
        self._made: list[Entry] = []
        """What came of a run and is still to be written, the newest first."""
        self._snapshots = list(snapshots)
        if self._snapshots != sorted(self._snapshots):
            raise ValueError("snapshots must be ascending")
        if not all(0 <= snapshot <= SEQ_MAX for snapshot in self._snapshots):
            raise ValueError("a snapshot is a sequence number of 56 bits")
        self._tombstones = tombstones
        self._bottom = bottom
        for bound in (bound for span in older for bound in span):
            if type(bound) is not bytes:
                raise TypeError("a bound is bytes")
        self._bounds = [bound for span in older for bound in span]
        if self._bounds != sorted(self._bounds):
            raise ValueError("the ranges of older data must be ascending")
        self._key: bytes | None = None
        self._stripe = 0
        self.entries_in = 0
        """Entries read so far."""
        self.entries_out = 0
        """Entries written so far."""
        self.bytes_in = 0
        """Bytes of keys and values read so far."""
        self.bytes_out = 0
        """Bytes of keys and values written so far."""

    @property
    def entries_dropped(self) -> int:
        """Entries that were left out so far."""
        return self.entries_in - self.entries_out

    def _take(self, cursor: Cursor, builder: TableBuilder) -> None:
        """Pass the cursor's entry to the builder, to a run, or leave it out. Does not move the
        cursor. Requires: no run but that of this key and stripe.
        """
        key, seq, kind, value = cursor.key, cursor.seq, cursor.kind, cursor.value
        stripe = stripe_of(seq, self._snapshots)
        is_covered = self._is_covered(key, seq, stripe)
        stays = not (
            (key == self._key and stripe == self._stripe)
            or is_covered
            or (kind == DELETE and self._is_last(key, stripe))
        )
        if self._run or self._above:
            if not is_covered:
                self._run.append((seq, kind, value))
            self._is_based = is_covered or kind != MERGE
        elif stays and kind == MERGE:
            self._run.append((seq, kind, value))
        elif stays:
            self._write(builder, (seq, kind, value), key)
        self.entries_in += 1
        self.bytes_in += len(key) + len(value)
        self._key, self._stripe = key, stripe

    def _write(self, builder: TableBuilder, entry: Entry, key: bytes) -> None:
        seq, kind, value = entry
        builder.add(key, seq, kind, value)
        self.entries_out += 1
        self.bytes_out += len(key) + len(value)

    def _go_on(self, cursor: Cursor, builder: TableBuilder) -> bool:
        """Go on with what a run began. Return whether there was something to be done before the
        cursor's entry is looked at.
        """
        key = self._key or b""
        if self._made:
            self._write(builder, self._made[0], key)
            del self._made[0]
        elif (self._run or self._above) and (self._is_based or not self._joins(cursor)):
            if not self._is_based and self._goes_on(cursor):
                if not self._run:
                    return False
                group = merged_run(self._merges, key, self._run, is_based=False)
                if awaits(self._above, group):
                    self._above = [*self._above, group]
                else:
                    self._made = group
                self._run, self._run_max = [], RUN_ENTRIES_MIN
                return True
            is_last = self._is_last(key, self._stripe)
            self._made = resolved(
                self._merges,
                key,
                self._above,
                self._run,
                # At another version of the key there is a tombstone between.
                is_based=self._is_based or is_last or self._is_same_key(cursor),
                is_last=is_last,
            )
            self._run, self._above = [], []
            self._run_max, self._is_based = RUN_ENTRIES_MIN, False
        elif len(self._run) >= self._run_max:
            self._run = merged_run(self._merges, key, self._run, is_based=False)
            self._run_max = max(RUN_ENTRIES_MIN, 2 * len(self._run))
        else:
            return False
        return True

    def _joins(self, cursor: Cursor) -> bool:
        """Return whether the cursor stands at a version of the run's key in the run's stripe."""
        return self._is_same_key(cursor) and (
            stripe_of(cursor.seq, self._snapshots) == self._stripe
        )

    def _goes_on(self, cursor: Cursor) -> bool:
        """Return whether the cursor stands at an older version of the run's key, which those who
        see the run's stripe would see without it.
        """
        return self._is_same_key(cursor) and not self._is_covered(
            cursor.key, cursor.seq, self._stripe
        )

    def _is_same_key(self, cursor: Cursor) -> bool:
        return cursor.valid and cursor.key == self._key

    def _is_last(self, key: bytes, stripe: int) -> bool:
        """Return whether nothing older than the inputs has the key, for those who see a stripe."""
        return stripe == 0 and self._bottom and not self._has_older(key)

    def _has_older(self, key: bytes) -> bool:
        """Return whether `key` lies in one of the ranges: behind an odd number of bounds."""
        return bisect_right(self._bounds, key) % 2 == 1

    def _is_covered(self, key: bytes, seq: int, stripe: int) -> bool:
        """Return whether everybody who sees this version sees a newer tombstone over its key."""
        oldest = self._snapshots[stripe] if stripe < len(self._snapshots) else SEQ_MAX
        return self._tombstones.cover(key, oldest) > seq


def merge_into(
    cursor: Cursor,
    builder: TableBuilder,
    retention: Retention,
    *,
    target_bytes: int,
    drain_bytes: int,
    step_entries: int,
    stop: bytes | None = None,
) -> MergeStop:
    """Move entries from a positioned cursor into the builder until there is a reason to stop.

    DONE: the cursor is at its end. DRAIN: `drain_bytes` of output wait to be taken. CUT: the table
    has `target_bytes`, or the key is not below `stop`, and the cursor stands at another user key
    than the last one, so that all versions of a key are in one table. YIELD: `step_entries` were
    read. They are tried in this order before each entry.

    An exception of the cursor kills the cursor; one of the builder leaves the entry where it was.

    Raises: ValueError for a limit below 1 or a retention that merges already, and whatever cursor
    and builder raise.
    """
    if min(target_bytes, drain_bytes, step_entries) < 1:
        raise ValueError("target_bytes, drain_bytes and step_entries must be at least 1")
    if stop is not None and type(stop) is not bytes:
        raise TypeError(f"stop is bytes, not {type(stop).__name__}")
    if retention.is_merging:
        raise ValueError("another merge uses this retention")
    retention.is_merging = True
    try:
        return _merge(cursor, builder, retention, target_bytes, drain_bytes, step_entries, stop)
    finally:
        retention.is_merging = False


def _merge(
    cursor: Cursor,
    builder: TableBuilder,
    retention: Retention,
    target_bytes: int,
    drain_bytes: int,
    step_entries: int,
    stop: bytes | None,
) -> MergeStop:
    steps = 0
    while cursor.valid or retention._run or retention._above or retention._made:
        if builder.output_size >= drain_bytes:
            return MergeStop.DRAIN
        if retention._go_on(cursor, builder):
            continue
        if cursor.key != retention._key and (
            builder.file_bytes >= target_bytes or (stop is not None and cursor.key >= stop)
        ):
            return MergeStop.CUT
        if steps == step_entries:
            return MergeStop.YIELD
        retention._take(cursor, builder)
        cursor.next()
        steps += 1
    return MergeStop.DONE
