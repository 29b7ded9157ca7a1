"""What a transaction read of one keyspace: keys and ranges, in bounded memory.

A range is (lower, upper), half-open; None is unbounded. What is remembered may be more than what
was read, never less: then a transaction may lose to one that did it no harm.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.base import successor
from holdfast.cursor import Overlay
from holdfast.txn._workspace import READ_BYTES

Range = tuple[bytes | None, bytes | None]
"""Lower and upper bound."""


class Scan:
    """A cursor of a transaction, and what it read so far."""

    __slots__ = ("lower", "overlay", "reverse", "upper")

    def __init__(
        self, overlay: Overlay, lower: bytes | None, upper: bytes | None, *, reverse: bool
    ) -> None:
        self.overlay = overlay
        self.lower = lower
        self.upper = upper
        self.reverse = reverse

    def read(self) -> Range | None:
        """Return the range that the rows which were given tell of, or None before the first."""
        reached = self.overlay.reached
        if self.overlay.exhausted:
            return self.lower, self.upper
        if reached is None:
            return None
        return (reached, self.upper) if self.reverse else (self.lower, successor(reached))


def range_bytes(ranges: Iterable[Range]) -> int:
    """Return the bytes that remembering `ranges` takes, about."""
    return sum(2 * READ_BYTES + len(lower or b"") + len(upper or b"") for lower, upper in ranges)


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return the union of ranges as sorted ranges that neither overlap nor touch."""
    result: list[Range] = []
    for lower, upper in sorted(ranges, key=lambda each: each[0] or b""):
        if lower is not None and upper is not None and lower >= upper:
            continue
        if result:
            low, high = result[-1]
            if high is None:
                break
            if (lower or b"") <= high:
                result[-1] = low, None if upper is None else max(high, upper)
                continue
        result.append((lower, upper))
    return result


def widened(keys: Iterable[bytes], ranges: Iterable[Range]) -> list[Range]:
    """Return about half as many ranges as there are keys and ranges, which hold all of them:
    neighbours become one.
    """
    exact = joined([*ranges, *((key, successor(key)) for key in keys)])
    return [(exact[at][0], exact[min(at + 1, len(exact) - 1)][1]) for at in range(0, len(exact), 2)]
