"""Which versions a merge may drop: the rule, as pure functions.

An *observer* is a live snapshot, or now. It sees, of each key, the newest version whose sequence
number is at most its own; that version is hidden when it is a DELETE, or when a range tombstone
over the key that the observer also sees is newer. Snapshots cut the sequence numbers into
*stripes*: everything in one stripe is seen by the same observers. The merge kernel `_merge` applies
these rules one entry at a time; here they are whole, and a test compares them with brute force over
all small universes.

A MERGE is seen like a PUT, and needs the versions below it. So where it is the newest of a stripe,
all of that stripe stays down to the first that is no MERGE, and `merged_run` makes it shorter;
`retained` is about versions of the other kinds. Operands that cannot be combined become a value
over that of the older stripes, where many stay and that value is known (`resolved`): the versions
that older observers see are not touched by it.

Guarantees, for every observer, also over whatever older data lies in deeper levels unless `bottom`:
 1. What a reader sees is the same before and after.
 2. Of the versions of one key in one stripe at most one stays, but for operands that cannot be
    combined: at most OPERANDS_KEPT_MAX where what lies below them is among the inputs, or nothing.

Requires: the inputs of the merge and the deeper levels together hold every version older than those
of the inputs, of every key within a key or range tombstone of the inputs. `bottom` says that the
deeper levels hold none.

Thread safety: pure functions.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from enum import IntEnum

from holdfast.base import DELETE, MERGE, PUT, MergeError, mark
from holdfast.merge import Merges

RUN_ENTRIES_MIN = 1024
"""A run of operands that is at least as long is made shorter before it has ended."""

OPERANDS_KEPT_MAX = 32
"""With more in one stripe a value is made, if it can be. Each stripe has the whole value then, so
it is not done for few.
"""

Entry = tuple[int, int, bytes]
"""The (sequence number, kind, value) of a version of a key."""


class MergeStop(IntEnum):
    """Why a step of a merge came to its end; see `merge_into`."""

    DONE = 0
    DRAIN = 1
    CUT = 2
    YIELD = 3


def stripe_of(seq: int, snapshots: Sequence[int]) -> int:
    """Return the stripe of a number: how many of the ascending `snapshots` do not see it."""
    return bisect_left(snapshots, seq)


def retained(
    versions: Sequence[tuple[int, int]],
    covers: Sequence[int],
    snapshots: Sequence[int],
    bottom: bool,
) -> list[bool]:
    """Return for each version (sequence number, kind) of one key, newest first, whether it stays.

    `covers` are the sequence numbers of the range tombstones of the inputs over the key, in any
    order.
    """
    stays = []
    previous_stripe = -1
    for seq, kind in versions:
        stripe = stripe_of(seq, snapshots)
        shadowed = stripe == previous_stripe
        covered = any(cover > seq and stripe_of(cover, snapshots) == stripe for cover in covers)
        spent = kind == DELETE and bottom and stripe == 0
        stays.append(not (shadowed or covered or spent))
        previous_stripe = stripe
    return stays


def merged_run(merges: Merges, key: bytes, run: list[Entry], *, is_based: bool) -> list[Entry]:
    """Return what is written of a run, versions of a key in one stripe, newest first: all are
    MERGEs, but perhaps the last. `is_based` says that nothing older lies below them.
    """
    entries = [value for _, kind, value in run if kind == MERGE]
    _, last, base = run[-1]
    try:
        if is_based:
            return [(run[0][0], PUT, merges.fold(key, base if last == PUT else None, entries))]
        return [(run[index][0], MERGE, value) for index, value in merges.combine(key, entries)]
    except MergeError:
        # Reads tell why. What is kept is what was there, so nothing is lost meanwhile.
        mark("compaction.merge_failed")
        return run


def awaits(above: list[list[Entry]], run: list[Entry]) -> bool:
    """Return whether a run waits for what the older stripes of its key have, behind those `above`
    it.
    """
    return bool(above) or len(run) > OPERANDS_KEPT_MAX


def resolved(
    merges: Merges,
    key: bytes,
    above: list[list[Entry]],
    run: list[Entry],
    *,
    is_based: bool,
    is_last: bool,
) -> list[Entry]:
    """Return what is written of a run and of those `above` it, which waited for its value: runs of
    newer stripes, the newest first. `is_last` says that nothing older than the inputs has the key.
    """
    if not above:
        return merged_run(merges, key, run, is_based=is_based)
    value: bytes | None = None
    if any(kind == MERGE for _, kind, _ in run):
        made = merged_run(merges, key, run, is_based=is_based)
        # They are operands still where a function failed.
        is_based = is_based and made[0][1] == PUT
        value = made[0][2]
    else:
        made = [entry for entry in run if entry[1] == PUT or not is_last]
        value = run[0][2] if run and run[0][1] == PUT else None
    pending: list[bytes] = []
    for group in reversed(above):
        entries = group
        pending = [operand for _, _, operand in group] + pending
        if is_based and len(group) > OPERANDS_KEPT_MAX:
            try:
                value = merges.fold(key, value, pending)
            except MergeError:
                mark("compaction.merge_over_a_snapshot_failed")
                is_based = False
            else:
                mark("compaction.merged_over_a_snapshot")
                entries, pending = [(group[0][0], PUT, value)], []
        made = entries + made
    return made


def retained_tombstones(
    tombstones: Sequence[tuple[bytes, bytes, int]],
    snapshots: Sequence[int],
    bottom: bool,
    older: Sequence[tuple[bytes, bytes]] = (),
) -> list[tuple[bytes, bytes, int]]:
    """Return the tombstones (start, stop, sequence number) that stay, in their order.

    One goes when newer ones of its stripe cover all of its range; at the bottom those of the oldest
    stripe have done their work, but for those that reach into a range of `older` data; the ranges
    are ascending and disjoint. `retained` must be asked with the covers as they were before.
    """
    covered: dict[int, list[tuple[bytes, bytes]]] = {}
    stays = set()
    for start, stop, seq in sorted(tombstones, key=lambda tombstone: -tombstone[2]):
        stripe = stripe_of(seq, snapshots)
        is_spent = bottom and stripe == 0 and not reaches_into(older, start, stop)
        if is_spent or not _unite(covered.setdefault(stripe, []), start, stop):
            continue
        stays.add((start, stop, seq))
    return [tombstone for tombstone in tombstones if tombstone in stays]


def reaches_into(ranges: Sequence[tuple[bytes, bytes]], lower: bytes, upper: bytes) -> bool:
    """Return whether [lower, upper) overlaps one of the ascending, disjoint ranges."""
    at = bisect_right(ranges, lower, key=lambda span: span[1])
    return at < len(ranges) and ranges[at][0] < upper


def united(ranges: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the union of ranges that are not empty, as ascending, disjoint ones."""
    spans: list[tuple[bytes, bytes]] = []
    for lower, upper in sorted(ranges):
        if spans and lower <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], upper)
        else:
            spans.append((lower, upper))
    return spans


def _unite(spans: list[tuple[bytes, bytes]], start: bytes, stop: bytes) -> bool:
    """Add [start, stop) to the sorted disjoint spans; return False when it lay inside one of them
    already.
    """
    first = bisect_left(spans, start, key=lambda span: span[1])
    last = bisect_right(spans, stop, key=lambda span: span[0])
    touched = spans[first:last]
    if touched:
        if touched[0][0] <= start and stop <= touched[0][1]:
            return False
        start, stop = min(start, touched[0][0]), max(stop, touched[-1][1])
    spans[first:last] = [(start, stop)]
    return True
