"""Writing the log: one current segment, one prepared ahead, and what happens when the disk says no.

Guarantees:
1. A record is written only behind records of the same log that were written whole; a later segment
   gets a record only after the one before it was closed by an END record and synced.
2. A segment is used only after it was created, allocated, given its header, synced, and its folder
   synced.
3. No room (ENOSPC, EDQUOT, EFBIG) raises DiskFullError and changes nothing: the same append may be
   tried again, and a crash does not bring the failed one back.
4. Any other failed write and any failed sync poisons the writer: that call and every later one
   raises DatabasePoisonedError, nothing is tried again and nothing is deleted. So does a write for
   which there is no room, but whose record stands in the file whole and cannot be wiped either:
   nobody may say that it is refused.
5. An ordinal (lsn) is given only to a record that was written.

Thread safety: `append`, `leave_full`, `sync`, `begin_segment` and `close` are serialised by the
caller.
`sync_beside`, `sync_end_beside`, `prepare_next`, `needs_next`, `segments`, `first_needed` and
`forget_before` may run in other threads meanwhile.
`allocate_number` must not wait for a lock that a caller of `append` or `prepare_next` holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from holdfast.base import (
    DatabaseClosedError,
    DatabasePoisonedError,
    DatabaseSettings,
    DiskFullError,
    mark,
    require,
)
from holdfast.env import Env, SyncError, is_disk_full, is_shortage
from holdfast.wal._buffer import RecordBuffer
from holdfast.wal.format import (
    BLOCK_BYTES,
    END_PAYLOAD_BYTES,
    RECORD_HEADER_BYTES,
    RecordHeader,
    RecordType,
    SegmentHeader,
    SegmentLink,
    align_up,
    encode_end,
    encode_link,
    encode_segment_header,
    record_bytes,
    records_offset,
    segment_name,
    version_for,
)
from holdfast.wal.segment import Segment, SegmentInfo

FIRST_SEGMENT_BYTES_MAX: Final = 1 << 20
"""The first segment of a process life is at most this large, so that a short process pays little
for it.
"""
SEGMENT_GROWTH: Final = 4
"""Each segment is at most so many times as large as the one before, for the same reason."""

PREPARE_AT: Final = 8
"""The next segment is asked for when one part in this many of the current one is used."""

ZEROED_SYNC_BYTES: Final = 256 << 10
"""While the log is synced at least once in so many bytes of records, segments are filled with zeros
ahead, which makes each sync cheaper. Where syncs are rare, that would write each byte twice for
little (docs/adr/0021).
"""

_LOOK_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 20
"""So much of a refused record is read back at once: where a disk is full, memory may be short."""
_LOOK_SYNCS: Final = 32
"""After so many bytes or syncs, whatever comes first, it is looked at anew how often syncs are."""


class LogWriter:
    """The log of one process life. Construction makes the first segment ready, so its number may be
    recorded then.

    Ordinals start with `lsn_first`; records before it count as durable. `allocate_number` gives
    numbers of new segments, each higher than the one before, and `manifest_edit` the highest
    manifest edit that was synced.
    """

    def __init__(
        self,
        env: Env,
        folder: str,
        *,
        settings: DatabaseSettings,
        database_id: bytes,
        allocate_number: Callable[[], int],
        lsn_first: int,
        manifest_edit: Callable[[], int],
    ) -> None:
        require(lsn_first > 0, "ordinals start with 1")
        self._env = env
        self._folder = folder
        self._database_id = database_id
        self._allocate_number = allocate_number
        self._manifest_edit = manifest_edit
        self._alignment = settings.wal_alignment_bytes
        self._segment_bytes = settings.wal_segment_bytes
        self._version = version_for(self._alignment)
        self._front_bytes = records_offset(self._version, self._alignment)
        self._end_bytes = record_bytes(END_PAYLOAD_BYTES, self._alignment)
        self._written_lsn = self._durable_lsn = lsn_first - 1
        self._written_seq = self._durable_seq = 0
        self._bytes_logged = 0
        self._syncs = 0
        # Each is of one thread at a time: segments are made one by one, links by whoever appends.
        self._bytes_allocated = 0
        self._bytes_around = 0
        self._link_bytes = 0
        self._wait_seconds = 0.0
        self._waits = 0
        self._full: list[SegmentInfo] = []
        self._closed = False
        self._poison: BaseException | None = None
        # What `sync_beside` made durable, an ordinal and a sequence number; of whoever has its
        # mutex. The fields for both above are of the thread that makes the calls.
        self._synced_beside = (lsn_first - 1, 0)
        self._beside_mutex = env.mutex()
        # A call that changes the disk is under way. It is still set at the next call when an
        # exception took the place of an error of the disk before that could be noted.
        self._in_doubt = False
        # The bytes at the position may be those of a record that was not accepted.
        self._stale = False
        self._link_due = False
        self._mutex = env.mutex()
        self._prepared = env.condition(self._mutex)
        # Guarded by _mutex, as is every change of _closed and _current. While an append is on its
        # way to another segment none is prepared: it would not continue the right one.
        self._next: Segment | None = None
        self._preparing = False
        self._rotating = False
        # How often syncs are: of all that was logged, what the last look saw; guarded likewise.
        self._seen_bytes = 0
        self._seen_syncs = 0
        self._wants_zeroed = True
        # Syncs became frequent in a segment that has no zeros, and the next one is ready.
        self._leaves_early = False
        # The END record that names it is written; `_current` is still the segment before it.
        self._following: Segment | None = None
        try:
            self._current = self._create_segment(
                0, min(self._segment_bytes, FIRST_SEGMENT_BYTES_MAX), lsn_first
            )
        except OSError as exc:
            if is_shortage(exc):
                raise DiskFullError(f"no room for the log: {exc}") from exc
            raise
        self._chain = self._current.header.salt

    @property
    def written_lsn(self) -> int:
        """The ordinal of the last record that was written."""
        return self._written_lsn

    @property
    def durable_lsn(self) -> int:
        """The ordinal of the last record that is known to be synced."""
        return max(self._durable_lsn, self._synced_beside[0])

    @property
    def chain(self) -> int:
        """What the next record chains to. Of the thread that makes the calls, between two."""
        return self._chain

    @property
    def written_seq(self) -> int:
        """The last sequence number written by this writer, 0 when there is none."""
        return self._written_seq

    @property
    def durable_seq(self) -> int:
        """The last sequence number of this writer known to be synced, 0 when there is none."""
        return max(self._durable_seq, self._synced_beside[1])

    @property
    def bytes_logged(self) -> int:
        """Bytes of records written, headers and padding included."""
        return self._bytes_logged

    @property
    def bytes_allocated(self) -> int:
        """Bytes of zeros with which segments were filled before their first record."""
        return self._bytes_allocated

    @property
    def bytes_written(self) -> int:
        """All that was given to the disk: records, zeros before them, headers and links."""
        return self._bytes_logged + self._bytes_allocated + self._bytes_around + self._link_bytes

    @property
    def waits(self) -> tuple[int, float]:
        """How often and for how long an append waited because the next segment was not ready."""
        return self._waits, self._wait_seconds

    @property
    def poisoned(self) -> bool:
        """Whether a failure ended this writer."""
        return self._poison is not None

    @property
    def in_doubt(self) -> bool:
        """Whether a call was interrupted so that nobody knows what it did: the next one fails.

        Of the thread that makes the calls, between two of them.
        """
        return self._in_doubt

    @property
    def needs_next(self) -> bool:
        """Whether `prepare_next` would be of use now."""
        with self._mutex:
            current = self._current
            used = current.position - self._front_bytes
            room = current.header.size - self._front_bytes
            is_due = used * PREPARE_AT >= room
            self._look(is_due=is_due)
            is_dear = self._wants_zeroed and not current.is_zeroed
            return self._may_prepare() and (is_due or is_dear)

    def append(self, buffer: RecordBuffer, seq_first: int, *, durable: bool = False) -> int:
        """Write the record in `buffer`, whose first operation has `seq_first`; return its ordinal.

        Goes to a next segment when it does not fit. Durable after `sync`, or at once with
        `durable`, which is quicker. Raises: DiskFullError when there is no room, with nothing
        changed; DatabasePoisonedError; DatabaseClosedError; ValueError for an empty buffer.
        """
        # Every commit comes here, right behind a wait that left the caches cold: what is rarely
        # needed is asked for before it is called.
        if self._closed or self._in_doubt or self._poison is not None:
            self._check_usable()
        op_count = buffer.op_count
        if op_count == 0:
            raise ValueError("a record has at least one operation")
        if seq_first <= self._written_seq:
            raise AssertionError("sequence numbers grow")
        need = record_bytes(buffer.size, self._alignment)
        if self._stale:
            self._wipe()
        while self._following is not None or self._is_full(need):
            self._rotate(need)
        if self._link_due:
            self._write_link()
        self._see_synced_beside()
        segment = self._current
        lsn = self._written_lsn + 1
        view, chain = buffer.seal(
            segment.number, segment.header.salt, lsn, seq_first, self._durable_lsn,
            self._manifest_edit(), self._chain, self._alignment,
        )  # fmt: skip
        try:
            self._write_record(
                view, lsn, chain, "wal.record.write",
                seq_first=seq_first, seq_last=seq_first + op_count - 1, durable=durable,
            )  # fmt: skip
        finally:
            view.release()
        return lsn

    def leave_full(self, size: int) -> bool:
        """Close the current segment with an END record if a payload of `size` bytes does not fit.
        Return whether its append would wait for a sync that `sync_end_beside` can make before it:
        then a caller who need not append yet had better not.

        Raises: DiskFullError with nothing lost; DatabasePoisonedError; DatabaseClosedError.
        """
        self._check_usable()
        need = record_bytes(size, self._alignment)
        if self._stale or (self._following is None and not self._is_full(need)):
            return False
        following = self._following or self._end_segment(need)
        # What comes while the caller waits is to fit as well.
        return self.durable_lsn < self._written_lsn and 2 * need <= following.header.size

    def sync(self) -> None:
        """Make every record durable that was appended before, and no other; does nothing when all
        are.

        Raises: DatabasePoisonedError when it fails, and for good; DiskFullError when a record that
        was refused cannot be wiped for want of room; DatabaseClosedError.
        """
        if self._closed or self._in_doubt or self._poison is not None:
            self._check_usable()
        if self._stale:
            # Whoever says that all is durable must not find more than that in the log later.
            self._wipe()
        if self.durable_lsn == self._written_lsn:
            return
        self._sync_current("wal.record.sync")

    def sync_beside(self, seq: int) -> None:
        """Make every operation up to `seq` durable, which were all appended before, while others
        are appended. May be called by any thread.

        Raises: DatabasePoisonedError when it fails, and for good; DatabaseClosedError.
        """
        with self._beside_mutex:
            if self.durable_seq < seq:
                self._sync_beside("wal.beside.sync", seq)

    def sync_end_beside(self) -> None:
        """Make the END record of a full segment durable, and all before it, so that the next append
        need not. Does nothing when the writer has left the segment. May be called by any thread.

        Raises: DatabasePoisonedError when it fails, and for good; DatabaseClosedError.
        """
        with self._beside_mutex:
            with self._mutex:
                is_left = self._following is None
            if not is_left and self.durable_lsn < self._written_lsn:
                self._sync_beside("wal.end.sync", 0)

    def _sync_beside(self, site: str, seq: int) -> None:
        """Sync the current segment, which holds `seq`, by its second file. Requires: the mutex of
        syncs beside.
        """
        with self._mutex:
            self._check_open()
            # The segments before it were synced when the writer left them. The last number is read
            # before the ordinal, as the writer counts them the other way round: each was given to
            # the file before it was counted, and the ordinal covers the number.
            segment, seq_last = self._current, self._written_seq
            lsn = self._written_lsn
            require(seq <= seq_last, "what is synced was appended")
            segment.is_held = True
        try:
            self._sync_segment_beside(segment, site)
            self._synced_beside = lsn, seq_last
        finally:
            with self._mutex:
                segment.is_held = False
                is_used = segment is self._current and not self._closed
            if not is_used:
                segment.close_beside()

    def _sync_segment_beside(self, segment: Segment, site: str) -> None:
        if segment.beside is None:  # unreachable: a segment that is used was made whole
            raise AssertionError("a segment is open twice")
        try:
            segment.beside.sync(site=site)
        except OSError as exc:
            # The writer is told by its own file, perhaps only after more was written.
            raise self._poisoned_by(exc) from exc

    def prepare_next(self) -> None:
        """Make the next segment ready, so that no append has to. Does nothing when that is done or
        under way. When syncs are frequent by now and the one that is ready has no zeros, it makes
        another in its place.

        Raises: DiskFullError when there is no room, with nothing changed; DatabasePoisonedError.
        """
        with self._mutex:
            if not self._may_prepare():
                return
            self._preparing = True
            previous = self._current
        made: Segment | None = None
        try:
            made = self._make_segment(previous)
        finally:
            # An append that needs a segment waits for this one, whatever became of it.
            with self._mutex:
                self._preparing = False
                if made is not None and not self._closed:
                    self._next, made = made, self._next
                    self._leaves_early = self._next.is_zeroed and not self._current.is_zeroed
                self._prepared.notify_all()
        if made is not None:
            mark("wal.segment_replaced")
            self._discard(made)

    def begin_segment(self) -> None:
        """Go to a segment that is made after this call, so that nothing which is appended later
        stands in a file of before. What was appended is durable then.

        Raises: DiskFullError with nothing lost; DatabasePoisonedError; DatabaseClosedError.
        """
        self._check_usable()
        if self._stale:
            self._wipe()
        if self._following is not None:
            # An append was on its way to a segment of before.
            self._rotate(0)
        with self._mutex:
            while self._preparing:
                self._prepared.wait()
            unused, self._next, self._leaves_early = self._next, None, False
        if unused is not None:
            self._discard(unused)
        self._rotate(0)

    def settle(self) -> None:
        """Arrive at the next segment where an exception cut the way to it off: then `segments` has
        every one that an END record names. Serialised as `append`.

        Raises: DatabasePoisonedError; DatabaseClosedError.
        """
        self._check_usable()
        if self._following is not None:
            mark("wal.settled")
            self._rotate(0)

    def segments(self) -> list[SegmentInfo]:
        """Return this writer's segments that were not forgotten, oldest first, the current one
        last.
        """
        with self._mutex:
            return [*self._full, self._current.info()]

    def first_needed(self, seq: int) -> SegmentInfo:
        """Return the first segment with an operation above `seq`, or the current one.

        Its number and its first ordinal go into the manifest, the number then into
        `forget_before`.
        """
        with self._mutex:
            kept = (segment for segment in self._full if segment.seq_last > seq)
            return next(kept, None) or self._current.info()

    def forget_before(self, number: int) -> list[int]:
        """Forget the segments before segment `number`; return their numbers.

        Never the current one. The caller unlinks them after the manifest edit that names `number`
        as the first segment is synced. It is a number and not a sequence number, because appends
        go on while the edit is written: a segment that became full meanwhile is one that the edit
        names.
        """
        with self._mutex:
            gone = [segment.number for segment in self._full if segment.number < number]
            del self._full[: len(gone)]
        return gone

    def close(self) -> None:
        """Close the files and unlink a prepared segment that was not used. Syncs nothing; a second
        close is harmless.
        """
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            while self._preparing:
                self._prepared.wait()
            unused, self._next = self._next, None
            is_held = self._current.is_held
        self._current.file.close()
        if not is_held:
            self._current.close_beside()
        if self._following is not None:
            self._following.close()
        if unused is not None:
            self._discard(unused)

    def _check_usable(self) -> None:
        """Raise when the next call cannot be made. Of the thread that makes the calls."""
        if self._in_doubt and self._poison is None and not self._closed:
            self._poison = InterruptedError("a call of the disk was interrupted")
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise DatabaseClosedError("the log is closed")
        if self._poison is not None:
            raise DatabasePoisonedError(
                "the log failed earlier; reopen the database"
            ) from self._poison

    def _may_prepare(self) -> bool:
        """Return whether a next segment is wanted. Requires: the mutex is held."""
        if self._closed or self._preparing or self._rotating or self.poisoned:
            return False
        return self._next is None or (self._wants_zeroed and not self._next.is_zeroed)

    def _look(self, *, is_due: bool) -> None:
        """See how often the log is synced these days. Requires: the mutex is held."""
        logged, syncs = self._bytes_logged - self._seen_bytes, self._syncs - self._seen_syncs
        is_first = is_due and self._seen_bytes == 0
        if logged >= _LOOK_BYTES or syncs >= _LOOK_SYNCS or is_first:
            self._wants_zeroed = logged <= ZEROED_SYNC_BYTES * syncs
            self._seen_bytes, self._seen_syncs = self._bytes_logged, self._syncs

    def _wipe(self) -> None:
        """Make sure that a record which was not accepted cannot come back after a crash."""
        mark("wal.record_wiped")
        segment = self._current
        self._write(segment.position, bytes(RECORD_HEADER_BYTES), "wal.record.wipe")
        self._sync_current("wal.record.wipe_sync")
        self._stale = False

    def _write_link(self) -> None:
        """Say in the segment's header block what its first record continues, so that a damaged
        first record is noticed even when the segment before is gone.
        """
        header = self._current.header
        link = SegmentLink(
            segment=header.number,
            previous=header.previous,
            lsn_first=self._current.lsn_first,
            chain=self._chain,
        )
        encoded = encode_link(link, header.salt)
        link_bytes = self._link_bytes + len(encoded)
        self._write(header.link_offset, encoded, "wal.segment.link")
        self._link_due, self._link_bytes = False, link_bytes

    def _write_record(
        self,
        record: memoryview,
        lsn: int,
        chain: int,
        site: str,
        *,
        seq_first: int = 0,
        seq_last: int = 0,
        following: Segment | None = None,
        durable: bool = False,
    ) -> None:
        """Write a record at the position and accept it; an END record has a `following` segment.

        With `durable` the segment is synced before the record is accepted.

        Guarantees: after an exception the record is not accepted, and a crash does not bring it
        back, unless the writer is poisoned or a second exception came meanwhile; then the next call
        sees to that. After DiskFullError a crash does not bring it back.
        """
        segment, size = self._current, len(record)
        position, logged = segment.position + size, self._bytes_logged + size
        syncs = self._syncs + durable
        try:
            self._write(segment.position, record, site, durable=durable)
            record.release()
            # Up to the end of the block nothing is called, behind which a signal handler could
            # raise, and nothing needs memory: the record is accepted with all that this means, or
            # not at all.
            segment.position = position
            self._written_lsn = lsn
            if following is None:
                segment.seq_first = segment.seq_first or seq_first
                segment.seq_last = self._written_seq = seq_last
            self._bytes_logged = logged
            self._chain = chain
            self._following = following
            if durable:
                self._durable_lsn, self._durable_seq, self._syncs = lsn, seq_last, syncs
        except BaseException as exc:
            self._stale = True
            is_refused = isinstance(exc, DiskFullError)
            is_whole = is_refused and self._is_in_file(record)
            try:
                self._check_usable()
                self._wipe()
            except DiskFullError as full:
                # There is no room for the zeros either. A part of a record is none after a crash:
                # the next call tries again before it does anything else.
                if is_whole:
                    raise self._poisoned_by(full) from exc
            except DatabasePoisonedError:
                if is_refused:
                    raise
            raise

    def _is_in_file(self, record: memoryview) -> bool:
        """Return whether a record that was refused may stand whole at the position all the same."""
        segment = self._current
        try:
            for at in range(0, len(record), _PIECE_BYTES):
                piece = record[at : at + _PIECE_BYTES]
                if segment.file.read_at(segment.position + at, len(piece)) != piece:
                    return False
        except (OSError, MemoryError):
            pass
        return True

    def _write(
        self, offset: int, data: bytes | memoryview, site: str, *, durable: bool = False
    ) -> None:
        """Write to the current segment, and sync it with `durable`, which is for records.

        After an exception that is neither DiskFullError nor poison the write may have taken effect.
        """
        file = self._current.file
        self._in_doubt = True
        try:
            if durable:
                file.write_and_sync_at(offset, data, site=site, sync_site="wal.record.sync")
            else:
                file.write_at(offset, data, site=site)
            self._in_doubt = False
        except SyncError as exc:
            raise self._poisoned_by(exc) from exc
        except OSError as exc:
            if not is_disk_full(exc):
                raise self._poisoned_by(exc) from exc
            self._in_doubt = False
            raise DiskFullError(f"no room for the log: {exc}") from exc
        except BaseException as exc:
            self._interrupted_by(exc)
            raise

    def _sync_current(self, site: str) -> None:
        lsn, seq, syncs = self._written_lsn, self._written_seq, self._syncs + 1
        self._in_doubt = True
        try:
            self._current.file.sync(site=site)
            self._durable_lsn, self._durable_seq, self._syncs = lsn, seq, syncs
            self._in_doubt = False
        except OSError as exc:
            raise self._poisoned_by(exc) from exc
        except BaseException as exc:
            self._interrupted_by(exc)
            raise

    def _is_full(self, need: int) -> bool:
        """Return whether a record of `need` bytes goes to another segment."""
        current = self._current
        return self._leaves_early or need > current.header.size - self._end_bytes - current.position

    def _see_synced_beside(self) -> None:
        """Take over what another thread made durable."""
        if self._synced_beside[0] > self._durable_lsn:
            self._durable_lsn, self._durable_seq = self._synced_beside

    def _rotate(self, need: int) -> None:
        """Close the current segment and go to one that holds a record of `need` bytes.

        May be called again after it was interrupted: `_following` says that the END record is
        written.
        """
        following = self._following or self._end_segment(need)
        self._see_synced_beside()
        if self._durable_lsn < self._written_lsn:
            self._sync_current("wal.end.sync")
        full = self._current
        following.lsn_first = self._written_lsn + 1
        with self._mutex:
            # As in _write_record: all of it or nothing, nothing is called.
            grown = [*self._full, full.info()]
            self._full = grown
            self._current, self._following = following, None
            self._rotating = self._leaves_early = False
            self._link_due = True
            is_held = full.is_held
        with contextlib.suppress(OSError):
            # It was synced: closing cannot lose anything.
            full.file.close()
        if not is_held:
            full.close_beside()

    def _end_segment(self, need: int) -> Segment:
        """Write an END record behind the last one; return the segment that it names."""
        if self._link_due:
            # It got no record, or none was accepted.
            self._write_link()
        following = self._take_next(need)
        current = self._current
        header = RecordHeader(
            payload_size=0, segment=current.number, lsn=self._written_lsn + 1,
            seq_first=self._written_seq + 1, durable_lsn=self._durable_lsn,
            manifest_edit=self._manifest_edit(), chain=self._chain, op_count=0,
            type=RecordType.END, payload_checksum=0,
        )  # fmt: skip
        record, chain = encode_end(header, current.header.salt, following.number, self._alignment)
        try:
            self._write_record(
                memoryview(record), header.lsn, chain, "wal.end.write", following=following
            )
        except BaseException:
            with self._mutex:
                if self._following is None:
                    self._next, self._rotating = following, False
            raise
        return following

    def _take_next(self, need: int) -> Segment:
        """Return a segment for a record of `need` bytes: the prepared one, or one made now."""
        least = self._front_bytes + need + self._end_bytes
        began = self._env.monotonic()
        with self._mutex:
            is_late = self._next is None
            while self._preparing:
                self._prepared.wait()
            following, self._next = self._next, None
            self._rotating = True
        try:
            if following is not None and following.header.size < least:
                small, following = following, None
                self._discard(small)
            if following is None:
                is_late = True
                mark("wal.segment_made_in_append")
                following = self._make_segment(self._current, least)
            if is_late:
                self._waits += 1
                self._wait_seconds += self._env.monotonic() - began
        except BaseException:
            with self._mutex:
                self._next, self._rotating = following, False
                # What fits the current one does not fail because a larger record found no room.
                self._leaves_early = self._leaves_early and following is not None
            raise
        return following

    def _make_segment(self, previous: Segment, least: int = 0) -> Segment:
        """Make a segment ready for records, of `least` bytes at the least. Raises: DiskFullError
        with nothing left behind; DatabasePoisonedError.
        """
        size = max(min(self._segment_bytes, SEGMENT_GROWTH * previous.header.size), least)
        try:
            return self._create_segment(previous.number, size, None)
        except OSError as exc:
            if is_shortage(exc):
                raise DiskFullError(f"no room for the log: {exc}") from exc
            raise self._poisoned_by(exc) from exc

    def _create_segment(self, previous: int, size: int, lsn_first: int | None) -> Segment:
        """Make a segment ready for records; with `lsn_first` it is the first of a process life and
        has its link.
        """
        number = self._allocate_number()
        is_zeroed = self._wants_zeroed
        path = f"{self._folder}/{segment_name(number)}"
        least = self._front_bytes + self._end_bytes
        header = SegmentHeader(
            version=self._version,
            number=number,
            alignment=self._alignment,
            salt=int.from_bytes(self._env.random_bytes(8), "little"),
            database_id=self._database_id,
            size=align_up(max(size, least), BLOCK_BYTES),
            previous=previous,
            created_us=int(self._env.wall_time() * 1_000_000),
        )
        block = encode_segment_header(header)
        if lsn_first is not None:
            link = SegmentLink(
                segment=number, previous=previous, lsn_first=lsn_first, chain=header.salt
            )
            encoded = encode_link(link, header.salt)
            at = header.link_offset
            block = block[:at] + encoded + block[at + len(encoded) :]
        allocated = self._bytes_allocated + (header.size if is_zeroed else 0)
        around = self._bytes_around + len(block)
        file = self._env.create(path, site="wal.segment.create")
        segment = Segment(file, header, is_zeroed=is_zeroed)
        segment.lsn_first = lsn_first or 0
        try:
            segment.open_beside(self._env)
            file.allocate(header.size, written=is_zeroed, site="wal.segment.allocate")
            file.write_at(0, block, site="wal.segment.header")
            file.sync(site="wal.segment.sync")
            self._env.sync_dir(self._folder, site="wal.segment.folder_sync")
            self._bytes_allocated, self._bytes_around = allocated, around
        except OSError as exc:
            if is_shortage(exc):
                self._discard(segment)
            else:
                segment.close()
            raise
        except BaseException:
            segment.close()
            raise
        return segment

    def _discard(self, segment: Segment) -> None:
        """Give up a segment that is not linked into the log. What cannot be unlinked is an orphan
        for recovery.
        """
        with contextlib.suppress(OSError):
            segment.close()
            if not self.poisoned:
                self._env.unlink(segment.file.name, site="wal.segment.unlink")

    def _interrupted_by(self, exc: BaseException) -> None:
        """Note that a call of the disk ended with the exception of a signal handler. When that took
        the place of an error of the disk, the error counts.
        """
        if isinstance(exc.__context__, OSError):
            self._poison = exc.__context__
        self._in_doubt = False

    def _poisoned_by(self, exc: OSError | DiskFullError) -> DatabasePoisonedError:
        self._poison = exc
        return DatabasePoisonedError(f"the log failed: {exc}; reopen the database")
