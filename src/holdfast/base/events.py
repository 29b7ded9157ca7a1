"""Coverage marks: rare situations that name themselves when they happen.

Code calls `mark` with a dotted name, such as wal.tail_cut, where something rare is handled; a named
test asserts that the mark was seen. A test fails for a mark that no test names. The idea is
TigerBeetle's coverage marks and FoundationDB's CODE_PROBE.

Thread safety: two threads may lose a count between them; that a mark was seen is never lost.
"""

from __future__ import annotations

_seen: dict[str, int] = {}


def mark(name: str) -> None:
    """Count one occurrence of the situation `name`."""
    _seen[name] = _seen.get(name, 0) + 1


def marks_seen() -> dict[str, int]:
    """Return how often each situation was seen in this process."""
    return dict(_seen)
