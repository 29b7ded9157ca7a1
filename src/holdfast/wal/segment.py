"""The segments that a log writer has: what is known of each, and the files of one that is open."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from holdfast.env import Env, File
from holdfast.wal.format import SegmentHeader
from holdfast.wal.sealed import is_sealed


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment of this writer. Sequence numbers are 0 when it has no operation."""

    number: int
    lsn_first: int
    """The ordinal of its first record, or of the next one when it has none yet."""
    seq_first: int
    seq_last: int
    bytes_used: int
    salt: int | None = None
    """That of a sealed segment, by which the manifest tells it from one of a copy."""


class Segment:
    """A segment that is or will be written to.

    It is open twice. A system that could not write bytes back tells each open file of it, once, at
    its next sync (Linux: errseq_t, since 4.13). So whoever syncs the segment beside its writer has
    a file of its own, `beside`, that was open before the bytes were written: with one file the
    error might be told to the other thread, and the writer would acknowledge what is not there.

    Thread safety: by the writer's mutex, see there.
    """

    __slots__ = (
        "beside", "file", "header", "is_held", "is_zeroed", "lsn_first", "number", "position",
        "seq_first", "seq_last",
    )  # fmt: skip

    def __init__(self, file: File, header: SegmentHeader, *, is_zeroed: bool) -> None:
        self.file = file
        self.beside: File | None = None
        self.header = header
        self.is_zeroed = is_zeroed
        self.is_held = False
        """Whether a thread uses `beside`, which it closes itself when the writer left meanwhile."""
        self.number = header.number
        self.position = header.records_offset
        # Known when the segment before it is full.
        self.lsn_first = 0
        self.seq_first = 0
        self.seq_last = 0

    def open_beside(self, env: Env) -> None:
        """Open the second file. Raises: OSError with nothing changed."""
        self.beside = env.open(self.file.name)

    def close(self) -> None:
        """Close both files; a second close does nothing. Raises: OSError with both closed."""
        try:
            self.file.close()
        finally:
            self.close_beside()

    def close_beside(self) -> None:
        """Close the second file, by which nothing is written."""
        if self.beside is not None:
            with contextlib.suppress(OSError):
                self.beside.close()

    def info(self) -> SegmentInfo:
        return SegmentInfo(
            self.number,
            self.lsn_first,
            self.seq_first,
            self.seq_last,
            self.position,
            self.header.salt if is_sealed(self.file) else None,
        )
