"""Ways to break the engine on purpose, which harnesses and checkers must notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.engine.snapshot import SnapshotRegistry
from holdfast.engine.write_path import WritePath
from holdfast.txn import Changes, Check, GroupWrites


class BlindCheck:
    """A check that does not look at what is committed in the same group."""

    def __init__(self, check: Check) -> None:
        self.check = check

    def require_unchanged(self, changes: Changes, group: GroupWrites | None) -> None:
        """Do as the check does without a group."""
        self.check.require_unchanged(changes, None)


def change_checks(monkeypatch: pytest.MonkeyPatch, change: Callable[[Check], Any]) -> None:
    """Let the leader of each group ask another check, or none, than the members handed in."""
    accept = WritePath._accept

    def accept_changed(self: WritePath, group: Any) -> Any:
        for waiter in group:
            for part in waiter.parts or (waiter,):
                if part.check is not None:
                    part.check = change(part.check)
        return accept(self, group)

    monkeypatch.setattr(WritePath, "_accept", accept_changed)


def do_not_validate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit whatever changed."""
    change_checks(monkeypatch, lambda _: None)


def do_not_look_into_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validate against what was committed before the group only."""
    change_checks(monkeypatch, BlindCheck)


def read_stale_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin at what was visible three operations ago."""
    acquire = SnapshotRegistry.acquire

    def acquire_stale(self: SnapshotRegistry, held: list[int], holder: Any) -> Any:
        tenure = acquire(self, held, holder)
        held[0] = max(held[0] - 3, 0)
        return tenure

    monkeypatch.setattr(SnapshotRegistry, "acquire", acquire_stale)
