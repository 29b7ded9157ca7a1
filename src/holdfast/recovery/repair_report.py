"""What a repair says about itself: what it kept, what is lost, and what that means.

Thread safety: none; one thread repairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from holdfast.base import CorruptionError


class Outcome(StrEnum):
    """How a repair ended. That it could not be done is an exception."""

    HEALTHY = "nothing to do"
    REPAIRED = "repaired without loss"
    REPAIRED_WITH_LOSS = "repaired with loss"


class LossKind(StrEnum):
    """What was lost."""

    ENTRIES = "entries"
    """Versions of keys in a range. So a key may be missing there, have an older value, or have come
    back after it was deleted."""
    DELETES = "deletes"
    """Range deletes in a range. What they deleted may have come back."""
    OPERATIONS = "operations"
    """Commits of the log. Every key of the keyspace may have the value of before."""
    ORDER = "order"
    """Which of two versions of a key is the newer one, in a range."""
    NAMES = "names"
    """Whose some data is. A keyspace has another name, or a table a keyspace of its own; then
    keyspaces may lack it in its range."""
    CHANGES = "changes"
    """What `changes()` showed of before; no data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Something that is not in the repaired database, or not known to be right there."""

    kind: LossKind
    file: str
    """The damaged file."""
    offset: int
    """Where in it."""
    keyspace: str | None = None
    """None: any of them."""
    lower: bytes | None = None
    """The first key that it is about; None: not known, so any."""
    upper: bytes | None = None
    """Exclusive; None: not known, so any."""
    count: int | None = None
    """How many entries, range deletes or operations; None: not known."""
    reason: str

    def concerns(self, keyspace: str, key: bytes) -> bool:
        """Return whether a key may have another answer than before because of this."""
        # Without a keyspace, any may be missing or back, with all its keys.
        is_name_only = (
            self.kind is LossKind.NAMES and self.keyspace is not None and self.lower is None
        )
        if self.kind is LossKind.CHANGES or is_name_only:
            return False
        return (
            self.keyspace in (None, keyspace)
            and (self.lower is None or self.lower <= key)
            and (self.upper is None or key < self.upper)
        )

    def __str__(self) -> str:
        count = "an unknown number" if self.count is None else f"{self.count}"
        where = "all keyspaces" if self.keyspace is None else f"keyspace {self.keyspace!r}"
        if self.lower is not None or self.upper is not None:
            lower = "the first key" if self.lower is None else repr(self.lower)
            upper = "the last key" if self.upper is None else f"{self.upper!r}, which is not in it"
            where += f", from {lower} to {upper}"
        return f"{self.kind} ({count}) in {where}: {self.file}, byte {self.offset}: {self.reason}"


@dataclass(slots=True)
class RepairReport:
    """What a repair found and did."""

    folder: str
    """The folder of the damaged database."""
    target: str
    """The folder of the repaired one; the same for a repair in place."""
    outcome: Outcome = Outcome.HEALTHY
    damage: list[CorruptionError] = field(default_factory=list)
    """Every damaged place that was found before the repair."""
    losses: list[Loss] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is worth knowing and no loss."""
    set_aside: str | None = None
    """The folder with the originals of everything that the repaired database does not use; None
    when they are where they were.
    """
    tables_kept: int = 0
    """Tables that are whole, and are used as they are."""
    tables_rebuilt: int = 0
    """Tables that were written anew from what could be read of damaged ones."""
    tables_lost: int = 0
    """Tables of which nothing could be read."""
    entries_rebuilt: int = 0
    """Entries of the rebuilt tables."""
    records: int = 0
    """Log records that were replayed."""
    operations: int = 0
    """Operations in them."""

    @property
    def is_changed(self) -> bool:
        """Whether a repaired database was written."""
        return self.outcome is not Outcome.HEALTHY

    def lose(self, loss: Loss) -> None:
        """Note a loss."""
        self.losses.append(loss)

    def __str__(self) -> str:
        if not self.is_changed:
            return f"{self.folder}: no damage found; nothing was changed"
        kept = (
            f"kept: {self.tables_kept} tables as they are, {self.entries_rebuilt} entries of "
            f"{self.tables_rebuilt} rebuilt tables, {self.operations} operations of "
            f"{self.records} log records"
        )
        lines = [f"{self.target}: {self.outcome}", kept]
        lines += [f"lost: {loss}" for loss in self.losses]
        lines += [f"note: {note}" for note in self.notes]
        if self.set_aside is not None:
            lines.append(f"the originals of what is not used any more are in {self.set_aside}")
        else:
            lines.append(f"the originals in {self.folder} were not touched")
        return "\n".join(lines)
