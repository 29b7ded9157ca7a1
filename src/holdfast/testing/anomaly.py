"""What can be wrong with a history: the kinds of anomaly, the isolation levels that forbid them,
and the report of a checker.

The levels, and which of them promise more than others:

    read committed < snapshot < serializable    < strict serializable
                     snapshot < strong snapshot < strict serializable

The two strong ones also promise real time: whoever begins after an acknowledged commit sees it.
Holdfast promises `strict serializable` to transactions that ask for `serializable`, and `strong
snapshot` to those that ask for `snapshot`.

Sources: the names G0 to G2 are those of Adya, Weak Consistency (1999), as Elle uses them (Kingsbury
and Alvaro 2020); lost update and write skew those of Berenson and others, A Critique of ANSI SQL
Isolation Levels (1995); strong snapshot isolation is that of Daudjee and Salem (2006).

Thread safety: a report is filled by one thread.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

READ_COMMITTED = "read committed"
SNAPSHOT = "snapshot"
SERIALIZABLE = "serializable"
STRONG_SNAPSHOT = "strong snapshot"
STRICT = "strict serializable"

LEVELS = (READ_COMMITTED, SNAPSHOT, SERIALIZABLE, STRONG_SNAPSHOT, STRICT)
"""From the weakest on."""

IMPLIED: dict[str, frozenset[str]] = {
    READ_COMMITTED: frozenset(LEVELS),
    SNAPSHOT: frozenset(LEVELS) - {READ_COMMITTED},
    SERIALIZABLE: frozenset((SERIALIZABLE, STRICT)),
    STRONG_SNAPSHOT: frozenset((STRONG_SNAPSHOT, STRICT)),
    STRICT: frozenset((STRICT,)),
}
"""The levels that forbid what a level forbids."""

FORBIDDEN_BY: dict[str, str] = {
    "own write not seen": READ_COMMITTED,
    "duplicated element": READ_COMMITTED,
    "unwritten value": READ_COMMITTED,
    "wrong scan": READ_COMMITTED,
    "incompatible order": READ_COMMITTED,
    "G1a": READ_COMMITTED,
    "G1b": READ_COMMITTED,
    "G0": READ_COMMITTED,
    "G1c": READ_COMMITTED,
    "non-repeatable read": SNAPSHOT,
    "lost update": SNAPSHOT,
    "fractured read": SNAPSHOT,
    "G-single": SNAPSHOT,
    "long fork": SNAPSHOT,
    "G-nonadjacent": SNAPSHOT,
    "write skew": SERIALIZABLE,
    "phantom": SERIALIZABLE,
    "G2": SERIALIZABLE,
    "G0-process": STRONG_SNAPSHOT,
    "G1c-process": STRONG_SNAPSHOT,
    "G-single-process": STRONG_SNAPSHOT,
    "G-nonadjacent-process": STRONG_SNAPSHOT,
    "G2-process": STRICT,
    "G0-realtime": STRONG_SNAPSHOT,
    "G1c-realtime": STRONG_SNAPSHOT,
    "G-single-realtime": STRONG_SNAPSHOT,
    "G-nonadjacent-realtime": STRONG_SNAPSHOT,
    "G2-realtime": STRICT,
    "no read committed order": READ_COMMITTED,
    "no snapshot order": SNAPSHOT,
    "no serial order": SERIALIZABLE,
    "no strong snapshot order": STRONG_SNAPSHOT,
    "no strict serial order": STRICT,
}
"""The weakest level that forbids each kind. What each kind is: docs/internals/histories.md."""


class Anomaly(NamedTuple):
    """One thing that is wrong, with the transactions that show it."""

    kind: str
    transactions: tuple[int, ...]
    """Their numbers; of a cycle, in its order."""
    text: str
    """For a person to read: several lines."""


@dataclass(slots=True)
class Report:
    """What a checker found in a history."""

    most: int = 8
    """So many anomalies of each kind are kept; all are counted."""
    counts: Counter[str] = field(default_factory=Counter)
    anomalies: list[Anomaly] = field(default_factory=list)
    _seen: set[tuple[str, frozenset[int]]] = field(default_factory=set)

    def add(self, kind: str, transactions: tuple[int, ...], text: str) -> None:
        """Add an anomaly, unless the same transactions have shown the same before."""
        identity = (kind, frozenset(transactions))
        if identity in self._seen:
            return
        self._seen.add(identity)
        self.counts[kind] += 1
        if self.counts[kind] <= self.most:
            self.anomalies.append(Anomaly(kind, transactions, text))

    def kinds(self) -> frozenset[str]:
        """Return the kinds of what was found."""
        return frozenset(self.counts)

    def violated(self) -> frozenset[str]:
        """Return the levels that the history is not of."""
        return frozenset(level for kind in self.counts for level in IMPLIED[FORBIDDEN_BY[kind]])

    def against(self, level: str) -> list[Anomaly]:
        """Return the anomalies that a level forbids, of those that were kept."""
        return [one for one in self.anomalies if level in IMPLIED[FORBIDDEN_BY[one.kind]]]

    def __str__(self) -> str:
        """Return the whole report, the worst first."""
        if not self.counts:
            return "no anomaly"
        lines: list[str] = []
        for one in sorted(self.anomalies, key=lambda one: LEVELS.index(FORBIDDEN_BY[one.kind])):
            lines += [f"{one.kind} (forbidden from {FORBIDDEN_BY[one.kind]} on)", one.text, ""]
        counts = ", ".join(f"{count} x {kind}" for kind, count in sorted(self.counts.items()))
        lines.append(f"found: {counts}")
        return "\n".join(lines)
