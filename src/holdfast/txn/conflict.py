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

from typing import Protocol

from holdfast.base import ConflictError, mark

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


def shown(key: bytes | None) -> str:
    """Return a key as messages show it."""
    if key is None or len(key) <= SHOWN_BYTES_MAX:
        return repr(key)
    return f"{key[:SHOWN_BYTES_MAX]!r}... ({len(key)} bytes)"


def key_conflict(name: str, key: bytes, seq: int) -> ConflictError:
    """Return the error of one that lost a key."""
    mark("txn.conflict_on_key")
    return ConflictError(
        f"another transaction committed key {shown(key)} of keyspace {name!r} (sequence number "
        f"{seq}) after this one began; run it again",
        keyspace=name,
        key=key,
        seq=seq,
    )


def range_conflict(
    name: str, lower: bytes | None, upper: bytes | None, found: tuple[bytes | None, int]
) -> ConflictError:
    """Return the error of one that lost a range."""
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
