"""What recovery does where the records of a segment end: one table, pure.

A scan reads records until something is not the next record. Whether that is the end of the log, a
tail torn by a crash, or damage to what was promised to be durable is decided here from what is
known, stated as yes or no. Each row of the table gives the answers it needs; `None` means that the
answer does not matter. Exactly one row matches every combination of answers, which a test checks
over all of them. The idea of a decision table that is tested over all its inputs is TigerBeetle's.

"The place" below is the first byte that is not part of a whole record, and "the missing record" is
the one that would have to start there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Final

from holdfast.base import require


class Decision(Enum):
    """What recovery does."""

    CONTINUE = "continue"
    """The segment is complete; go on with the one that its END record names."""
    STOP_CLEAN = "stop clean"
    """The log ends here, and nothing was torn."""
    CUT_TAIL = "cut tail"
    """The log ends here; what follows was never acknowledged as durable and is dropped."""
    REFUSE = "refuse"
    """Bytes are damaged whose loss would break a promise."""


class Subject(Enum):
    """What a row is about, so that an error can name its place."""

    PLACE = "the place where the scan stopped"
    LINK = "the link of a segment"
    NEXT = "the next segment"


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """What is known at the place where a scan stopped."""

    manifest_behind: bool
    """A record names a manifest edit that was synced before it, and the manifest does not hold that
    edit.
    """
    past_clean_end: bool
    """The manifest recorded a clean close, and the log has records beyond the end it recorded."""
    link_lost: bool
    """The link of this segment or one before it cannot be read though it was synced: the segment is
    the first of a process life, or something of it is proven durable.
    """
    foreign: bool
    """At the place stands a record whose checksums are right and that does not belong there:
    another segment, a wrong ordinal, a broken chain, or content that no writer makes.
    """
    ended: bool
    """An END record closed the segment."""
    next_whole: bool
    """The segment that the END record names exists, and its header and link are right."""
    manifest_proves: bool
    """The manifest recorded that the missing record was durable."""
    later_segment_proves: bool
    """A later segment holds a record. A segment is synced before the next one gets a record."""
    later_record_proves: bool
    """A later record of this segment says that the missing record was durable when it was written.
    """
    zeros: bool
    """From the place to the end of the segment there are only zeros."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the answers it needs, in the order of the fields of `Situation`, and what follows
    from them.
    """

    answers: tuple[bool | None, ...]
    decision: Decision
    reason: str
    subject: Subject = Subject.PLACE

    def matches(self, situation: Situation) -> bool:
        """Return whether the row speaks about `situation`."""
        return all(
            answer is None or answer == getattr(situation, question)
            for question, answer in zip(QUESTIONS, self.answers, strict=True)
        )


QUESTIONS: Final = tuple(field.name for field in fields(Situation))

_Y, _N, _X = True, False, None

# fmt: off
TABLE: Final = (
    # manifest_behind
    # |   past_clean_end
    # |   |   link_lost
    # |   |   |   foreign
    # |   |   |   |   ended
    # |   |   |   |   |   next_whole
    # |   |   |   |   |   |   manifest_proves
    # |   |   |   |   |   |   |   later_segment_proves
    # |   |   |   |   |   |   |   |   later_record_proves
    # |   |   |   |   |   |   |   |   |   zeros
    Row((_Y, _X, _X, _X, _X, _X, _X, _X, _X, _X), Decision.REFUSE,
        "the log knows of a manifest edit that the manifest does not hold"),
    Row((_N, _Y, _X, _X, _X, _X, _X, _X, _X, _X), Decision.REFUSE,
        "the log has records beyond the end that a clean close recorded"),
    Row((_N, _N, _Y, _X, _X, _X, _X, _X, _X, _X), Decision.REFUSE,
        "the link of a segment, which was durable, cannot be read", Subject.LINK),
    Row((_N, _N, _N, _Y, _X, _X, _X, _X, _X, _X), Decision.REFUSE,
        "a whole record stands where it does not belong"),
    Row((_N, _N, _N, _N, _Y, _N, _X, _X, _X, _X), Decision.REFUSE,
        "the segment that an END record names is missing or damaged", Subject.NEXT),
    Row((_N, _N, _N, _N, _Y, _Y, _X, _X, _X, _X), Decision.CONTINUE,
        "the segment is complete"),
    Row((_N, _N, _N, _N, _N, _X, _Y, _X, _X, _X), Decision.REFUSE,
        "a record is missing or damaged that the manifest knows to be durable"),
    Row((_N, _N, _N, _N, _N, _X, _N, _Y, _X, _X), Decision.REFUSE,
        "a record is missing or damaged although a later segment holds records"),
    Row((_N, _N, _N, _N, _N, _X, _N, _N, _Y, _X), Decision.REFUSE,
        "a record is missing or damaged that a later record knows to be durable"),
    Row((_N, _N, _N, _N, _N, _X, _N, _N, _N, _Y), Decision.STOP_CLEAN,
        "nothing was written behind the last record"),
    Row((_N, _N, _N, _N, _N, _X, _N, _N, _N, _N), Decision.CUT_TAIL,
        "what follows the last record was never durable"),
)
# fmt: on


def decide(situation: Situation) -> Row:
    """Return the one row that matches."""
    matching = [row for row in TABLE if row.matches(situation)]
    if len(matching) != 1:
        require(False, f"exactly one row matches {situation}")
    return matching[0]
