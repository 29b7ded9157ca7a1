"""What a user sees of a cursor: the compiled twin of `_user_py`, which specifies it.

Entries are taken from the source in runs, as far as it has them at hand, so that a row usually
costs no call to the source. A key with many versions is not walked through: after SKIP_MAX of them
the source is asked to seek past.

A long stretch without a row is looked up in the gaps of the tree, and noted there when its other
end is reached.

Thread safety: one thread at a time. A request while another one runs (a source may let go of the
interpreter lock while it reads) raises RuntimeError and harms nothing.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_REFCNT
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from holdfast.cursor._column_c cimport ColumnBuilder
from holdfast.cursor._cursor_c cimport RUN_ROWS, Cursor, Row, Run, bytes_data, compare_keys
from holdfast.cursor._gaps_c cimport Gap, Gaps
from holdfast.cursor._scan cimport bytes_of, check_scan, replace, rows_asked, same_bytes
from holdfast.cursor._tombstones_c cimport RangeTombstones

from holdfast.base import SEQ_MAX, DatabaseClosedError
from holdfast.cursor.entry import Columns

cdef enum:
    ITEMS = 0
    KEYS = 1
    VALUES = 2
    PUT = 1
    MERGE = 3
    # More operands of a key are not walked through: the source of merges may know what they give.
    OPERANDS_MAX = 16
    SKIP_MAX = 16
    ROOM_FIRST = 8
    GAP_ENTRIES_MIN = 16
    GAP_LOOK_ENTRIES = 64

cdef uint64_t TRAILER_MAX = 0xFFFFFFFFFFFFFFFF


@cython.final
cdef class ScanTally:
    """See `_user_py.ScanTally`."""


cdef class Owner:
    """See `_user_py.Owner`."""


cdef class Overlay:
    """See `_user_py.Overlay`."""

    def __init__(self, first: int, last: int, tombstones=()) -> None:
        for number in (first, last):
            if not 0 <= number <= SEQ_MAX:
                raise ValueError(f"the sequence number {number} does not fit 56 bits")
        self.first = first
        self.last = last
        self.tombstones = tuple(tombstones)
        for each in self.tombstones:
            if not isinstance(each, RangeTombstones):
                raise TypeError(f"tombstones are RangeTombstones, not {type(each).__name__}")


@cython.final
cdef class UserCursor:
    """See `_user_py.UserCursor`."""
    cdef Cursor source               # None once ended
    cdef tuple sets                  # the sets of tombstones that are not empty
    cdef uint64_t snapshot
    cdef uint64_t visible            # the greatest trailer that is not newer than the snapshot
    cdef Overlay overlay
    cdef uint64_t own_first          # the trailers of the overlay, from the least to the greatest
    cdef uint64_t own_last
    cdef uint64_t newest             # the greatest trailer that may be visible
    cdef bytes lower
    cdef bytes upper
    cdef bint reverse
    cdef Py_ssize_t left             # rows that may still be yielded; -1 is no limit
    cdef int what
    cdef object owner
    cdef object merges               # what gives the values of MERGE entries, or None
    cdef Owner life                  # the owner, when it can end before the cursor
    cdef ScanTally tally             # of the owner, or one of its own
    cdef object failure
    cdef bint started
    cdef bint busy
    cdef bint taken                  # the entry where the source stands was given out (forward)
    # Entries that the source had at hand; those from `run_at` on (none from RUN_ROWS) are still to
    # come, and the source stands behind them. NULL until a second row is asked for.
    cdef Run* run
    cdef Py_ssize_t run_at
    cdef Row single                  # where the source stands, when no run has it
    # The key that was decided last: in the run or in the source's memory, or in memory of our own
    # when that is about to go.
    cdef const unsigned char* decided
    cdef Py_ssize_t decided_size     # -1 before the first
    cdef unsigned char* own
    cdef Py_ssize_t own_room
    # The row that was found; valid until the next one is looked for. `held` keeps a value alive
    # that its source has left.
    cdef Row row
    cdef bytes held
    # Of the stretch without a row in which the cursor is: where it began (forward its lower bound,
    # in reverse its upper one, where None is behind all keys), if that is known, and the entries
    # passed in it.
    cdef Gaps gaps                   # None when nobody keeps any
    cdef bytes stretch
    cdef bint has_stretch
    cdef bint has_rest               # no: the stretch is known to reach to the end of the range
    cdef Py_ssize_t passed
    cdef readonly Py_ssize_t entries_passed
    cdef tuple pair                  # the last row, to be used again if nobody kept it
    cdef object __weakref__

    def __cinit__(self, cursor, tombstones=(), snapshot: int = SEQ_MAX, lower: bytes | None = None,
                  upper: bytes | None = None, reverse: bool = False, limit: object = None,
                  what: int = 0, owner: object = None, gaps: Gaps | None = None,
                  overlay: object = None, merges: object = None) -> None:
        if not isinstance(cursor, Cursor):
            raise TypeError(f"a source is a Cursor, not {type(cursor).__name__}")
        sets = [tombstones] if isinstance(tombstones, RangeTombstones) else list(tombstones)
        for each in sets:
            if not isinstance(each, RangeTombstones):
                raise TypeError(f"tombstones are RangeTombstones, not {type(each).__name__}")
        if not 0 <= snapshot <= SEQ_MAX:
            raise ValueError(f"the sequence number {snapshot} does not fit 56 bits")
        self.left = check_scan(lower, upper, limit, what)
        if gaps is not None and not isinstance(gaps, Gaps):
            raise TypeError(f"gaps are Gaps, not {type(gaps).__name__}")
        self.gaps = gaps
        self.merges = merges
        self.has_rest = 1
        self.sets = tuple([each for each in sets if len(each)])
        self.snapshot = snapshot
        self.visible = self.snapshot << 8 | 0xFF
        if overlay is not None and not isinstance(overlay, Overlay):
            raise TypeError(f"an overlay is an Overlay, not {type(overlay).__name__}")
        if overlay is not None and gaps is not None:
            raise ValueError("a cursor with an overlay has no gaps")
        self.overlay = overlay
        self.newest = self.visible
        # Without an overlay no trailer lies between these.
        self.own_first = TRAILER_MAX
        self.own_last = 0
        if self.overlay is not None:
            self.own_first = self.overlay.first << 8
            self.own_last = self.overlay.last << 8 | 0xFF
            self.newest = max(self.visible, self.own_last)
        self.lower = lower
        self.upper = upper
        self.reverse = reverse
        self.decided_size = -1
        self.what = what
        self.owner = owner
        self.life = owner if isinstance(owner, Owner) else None
        self.tally = self.life.tally if self.life is not None else None
        if self.tally is None:
            self.tally = ScanTally()
        self.source = cursor

    def __dealloc__(self) -> None:
        if self.overlay is not None:
            self.overlay.closed = True
        free(self.own)
        free(self.run)

    def __iter__(self):
        return self

    def __next__(self):
        row = self._take(True)
        if row is None:
            raise StopIteration
        return row

    def next_chunk(self, n: object) -> list:
        """Return the next rows, at most `n`; none at the end. Raises: ValueError when `n` is
        negative.
        """
        cdef list rows = []
        cdef Py_ssize_t count = rows_asked(n)
        # With nothing asked for, a failure or use by another thread is still reported.
        self._check()
        while len(rows) < count:
            row = self._take(False)
            if row is None:
                break
            rows.append(row)
        return rows

    def next_columns(self, n: object) -> Columns:
        """Return the next rows, at most `n`, as columns; none at the end. Raises: ValueError when
        `n` is negative.
        """
        cdef Py_ssize_t count = rows_asked(n)
        self._check()
        self.busy = 1
        try:
            return self._columns(count)
        except BaseException as error:
            self.failure = error
            self._release()
            raise
        finally:
            self.busy = 0

    def close(self) -> None:
        """End the iteration and let go of `owner` and the source. A second close is harmless."""
        if self.busy:
            raise RuntimeError("the cursor is in use")
        self._release()

    cdef int _check(self) except -1:
        if self.busy:
            raise RuntimeError("the cursor is in use")
        if self.failure is not None:
            raise self.failure.with_traceback(None)
        if self.source is not None:
            try:
                self._check_owner()
            except BaseException as error:
                self.failure = error
                self._release()
                raise
        return 0

    cdef object _take(self, bint reuse):
        """Return the next row, or None at the end. With `reuse` the pair may be the last one anew.
        """
        cdef object row = None
        if self.busy or self.failure is not None:
            self._check()
        if self.source is None:
            return None
        self.busy = 1
        try:
            if self._find():
                row = self._make(reuse)
        except BaseException as error:
            self.failure = error
            self.busy = 0
            self._release()
            raise
        self.busy = 0
        if row is None:
            self._exhaust()
            return None
        self.tally.rows += 1
        if self.left > 0:
            self.left -= 1
        return row

    cdef object _columns(self, Py_ssize_t count):
        """Return at most `count` rows as columns."""
        cdef ColumnBuilder keys = None if self.what == VALUES else ColumnBuilder()
        cdef ColumnBuilder values = None if self.what == KEYS else ColumnBuilder()
        cdef Py_ssize_t found = 0
        while found < count and self.source is not None:
            if not self._find():
                self._exhaust()
                break
            if self.overlay is not None:
                self._reach()
            found += 1
            self.tally.rows += 1
            if keys is not None:
                keys.c_add(self.row.key, self.row.key_size)
            if values is not None:
                values.c_add(self.row.value, self.row.value_size)
            self.held = None
            if self.left > 0:
                self.left -= 1
        return Columns(found, *((None, None) if keys is None else keys.c_finish()),
                       *((None, None) if values is None else values.c_finish()))

    cdef inline int _check_owner(self) except -1:
        """Raise if nothing may be read any more."""
        if self.life is not None and self.life.ended is not None:
            raise DatabaseClosedError(self.life.ended)
        if self.overlay is not None and self.overlay.refusal is not None:
            raise self.overlay.refusal.with_traceback(None)
        return 0

    cdef inline int _find(self) except -1:
        """Move to the next row. Return whether there is one. Requires: there is a source."""
        self._check_owner()
        if self.left == 0:
            return 0
        return self._backward() if self.reverse else self._forward()

    cdef inline object _make(self, bint reuse):
        """Return the row that was found."""
        cdef bytes key = None
        cdef bytes value = self.held
        cdef tuple pair = self.pair
        if self.what != VALUES:
            key = PyBytes_FromStringAndSize(<const char*>self.row.key, self.row.key_size)
            if self.overlay is not None:
                self.overlay.reached = key
        elif self.overlay is not None:
            self._reach()
        if self.what == KEYS:
            return key
        if value is None:
            value = PyBytes_FromStringAndSize(<const char*>self.row.value, self.row.value_size)
        else:
            self.held = None
        if self.what == VALUES:
            return value
        if not reuse:
            return key, value
        # Safety: with one reference from here and one from `self` nobody else can see the pair, as
        # in `zip`. What it held are bytes, whose end runs no code.
        if pair is not None and Py_REFCNT(pair) == 2:
            replace(pair, 0, key)
            replace(pair, 1, value)
            return pair
        pair = key, value
        self.pair = pair
        return pair

    cdef int _reach(self) except -1:
        """Note the key of the row that was found."""
        self.overlay.reached = PyBytes_FromStringAndSize(
            <const char*>self.row.key, self.row.key_size)
        return 0

    cdef int _exhaust(self) except -1:
        """End because there is no further row, or none may be given."""
        if self.overlay is not None and self.left != 0:
            self.overlay.exhausted = True
        return self._release()

    cdef int _release(self) except -1:
        if self.overlay is not None:
            self.overlay.closed = True
        self.source = None
        self.sets = ()
        self.owner = None
        self.gaps = None
        self.life = None
        self.merges = None
        self.pair = None
        self.held = None
        return 0

    cdef int _keep_decided(self) except -1:
        """Copy the key decided last, before the memory where it lies goes."""
        cdef Py_ssize_t size = self.decided_size
        cdef unsigned char* grown
        if size < 0 or self.decided == self.own:
            return 0
        if size >= self.own_room:
            # One byte more makes room for the key's successor. Safety: keys are far from the
            # greatest size.
            grown = <unsigned char*>realloc(self.own, 2 * size + 64)
            if grown == NULL:
                raise MemoryError()
            self.own = grown
            self.own_room = 2 * size + 64
        memcpy(self.own, self.decided, size)
        self.decided = self.own
        return 0

    cdef inline bint _is_decided(self, const Row* row) noexcept:
        """Return whether this is a version of the key decided last."""
        cdef Py_ssize_t size = row.key_size
        return size == self.decided_size and same_bytes(row.key, self.decided, size)

    cdef inline int _is_seen(self, const Row* row) except -1:
        """Return 0, or the kind of this newest visible version when the user sees its key."""
        cdef uint64_t kind = row.trailer & 0xFF
        if kind != PUT:
            if kind > PUT and (kind != MERGE or self.merges is None):
                raise ValueError(f"an entry of kind {kind} among point entries")
            if kind != MERGE:
                return 0
        if (self.sets or self.overlay is not None) and self._is_covered(row):
            return 0
        return <int>kind

    cdef inline bint _is_visible(self, uint64_t trailer) noexcept:
        return trailer <= self.visible or (trailer >= self.own_first and trailer <= self.own_last)

    cdef bint _is_covered(self, const Row* row) except -1:
        """Return whether a tombstone that the user sees is newer than this entry."""
        return self._cover(row) > row.trailer >> 8

    cdef uint64_t _cover(self, const Row* row) except? 0xFFFFFFFFFFFFFFFF:
        """Return the highest number of a tombstone over an entry's key that the user sees."""
        cdef RangeTombstones one
        cdef uint64_t cover = 0
        for each in self.sets:
            one = <RangeTombstones>each
            cover = max(cover, one.c_cover(row.key, row.key_size, self.snapshot))
        if self.overlay is not None:
            for each in self.overlay.tombstones:
                one = <RangeTombstones>each
                cover = max(cover, one.c_cover(row.key, row.key_size, self.overlay.last))
        return cover

    cdef Row* _stand(self) noexcept:
        """Return the entry where the source stands."""
        self.single.key = self.source.key_data
        self.single.key_size = self.source.key_size
        self.single.trailer = self.source.trailer
        self.single.value = self.source.value_data
        self.single.value_size = self.source.value_size
        return &self.single

    cdef int _seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1:
        """Move the source, and forget the run. `key` is memory of our own."""
        self.run_at = RUN_ROWS
        self.taken = 0
        self.source.c_seek(key, size, trailer)
        return 0

    cdef int _fill(self) except -1:
        """Ask for a run. Requires: the source stands at an entry that was not given out, and all
        entries of the last run were. Return whether there is one.
        """
        self._keep_decided()
        if self.run == NULL:
            self.run = <Run*>malloc(sizeof(Run))
            if self.run == NULL:
                raise MemoryError()
            self.run.room = ROOM_FIRST // 2
            self.run.count = 0
        self.run_at = 0
        # Nobody may want many rows.
        self.run.room = min(2 * self.run.room, <Py_ssize_t>RUN_ROWS)
        self.source.c_run(self.run, not self.reverse)
        return self.run.count > 0

    cdef int _start(self) except -1:
        """Move the source to the first entry."""
        self.started = 1
        self.has_stretch = 1
        if self.reverse:
            self.stretch = self.upper
        else:
            self.stretch = b"" if self.lower is None else self.lower
        if self.gaps is not None and self._step_over(self.stretch):
            return 0
        if self.reverse:
            if self.upper is None:
                self.source.c_last()
            else:
                self.source.c_seek_before(bytes_data(self.upper), PyBytes_GET_SIZE(self.upper))
        elif self.lower is None:
            self.source.c_first()
        else:
            self.source.c_seek(bytes_data(self.lower), PyBytes_GET_SIZE(self.lower), self.newest)
        return 0

    cdef Row* _next(self) except? NULL:
        """Return the next entry, or NULL at the end. Requires: forward."""
        cdef Row* row
        if self.run != NULL and self.run_at < self.run.count:
            # Safety: run_at is less than the run's count.
            row = &self.run.rows[self.run_at]
            self.run_at += 1
            return row
        if not self.started:
            self._start()
        elif self.taken:
            self._keep_decided()
            self.taken = 0
            self.source.c_next()
            if self.source.at and self._fill():
                self.run_at = 1
                return &self.run.rows[0]
        elif self.source.at and self._fill():
            self.run_at = 1
            return &self.run.rows[0]
        if not self.source.at:
            return NULL
        self.taken = 1
        return self._stand()

    cdef bint _step_over(self, bytes bound) except -1:
        """Move to the other side of the gap that begins at `bound`. Return whether there is one.
        Requires: there are gaps.
        """
        cdef const Gap* gap
        cdef bytes target
        if self.reverse:
            if bound is None:
                gap = self.gaps.c_gap_before(NULL, -1, self.snapshot)
            else:
                gap = self.gaps.c_gap_before(bytes_data(bound), PyBytes_GET_SIZE(bound),
                                             self.snapshot)
            if gap == NULL:
                return False
            # A gap may go while the source reads.
            target = PyBytes_FromStringAndSize(<const char*>gap.lower, gap.lower_size)
            self.has_rest = target > (b"" if self.lower is None else self.lower)
        else:
            gap = self.gaps.c_gap_at(bytes_data(bound), PyBytes_GET_SIZE(bound), self.snapshot)
            if gap == NULL:
                return False
            if gap.upper_size < 0:
                self.has_rest = 0
                return True
            target = PyBytes_FromStringAndSize(<const char*>gap.upper, gap.upper_size)
            self.has_rest = self.upper is None or target < self.upper
        if not self.has_rest:
            return True
        self._keep_decided()
        if self.reverse:
            self.run_at = RUN_ROWS
            self.source.c_seek_before(bytes_data(target), PyBytes_GET_SIZE(target))
        else:
            self._seek(bytes_data(target), PyBytes_GET_SIZE(target), self.visible)
        return True

    cdef inline bint _pass(self, const unsigned char* key, Py_ssize_t size, bint done) except -1:
        """Count an entry of this key that gave no row; `done` says that no other one of it will.
        Return whether the source was moved over a gap that begins there.
        """
        self.passed += 1
        self.entries_passed += 1
        if self.passed % GAP_LOOK_ENTRIES != GAP_ENTRIES_MIN or self.gaps is None:
            return False
        return self._look(key, size, done)

    cdef bint _look(self, const unsigned char* key, Py_ssize_t size, bint done) except -1:
        cdef bytes bound = bytes_of(key, size, done and not self.reverse)
        if not self.has_stretch:
            self.has_stretch = 1
            self.stretch = bound
        return self._step_over(bound)

    cdef int _end_stretch(self, const unsigned char* key, Py_ssize_t size) except -1:
        """Note the stretch without a row, which was long and in the scan's direction ends at this
        key; with a size of -1 at the end of the range.
        """
        cdef bytes bound
        cdef const unsigned char* upper = NULL
        cdef Py_ssize_t upper_size = -1
        if self.gaps is None or not self.has_stretch:
            return 0
        if self.reverse:
            if size >= 0:
                bound = bytes_of(key, size, True)
            else:
                bound = b"" if self.lower is None else self.lower
            if self.stretch is not None:
                upper, upper_size = bytes_data(self.stretch), PyBytes_GET_SIZE(self.stretch)
        else:
            bound = self.stretch
            if size >= 0:
                upper, upper_size = key, size
            elif self.upper is not None:
                upper, upper_size = bytes_data(self.upper), PyBytes_GET_SIZE(self.upper)
        self.gaps.c_note_gap(bytes_data(bound), PyBytes_GET_SIZE(bound), upper, upper_size,
                             self.snapshot, <uint64_t>self.passed)
        return 0

    cdef inline int _end(self) except -1:
        """Note what is known at the end of the range. Return 0: there is no row."""
        if self.passed >= GAP_ENTRIES_MIN:
            self._end_stretch(NULL, -1)
        return 0

    cdef int _forward(self) except -1:
        cdef Row* row
        cdef const unsigned char* upper = NULL
        cdef Py_ssize_t upper_size = 0
        cdef int skipped = 0, seen
        if self.upper is not None:
            upper = bytes_data(self.upper)
            upper_size = PyBytes_GET_SIZE(self.upper)
        self.has_stretch = 0
        self.passed = 0
        while self.has_rest:
            row = self._next()
            if row == NULL:
                break
            if self._is_decided(row):
                if self._pass(row.key, row.key_size, True):
                    continue
                skipped += 1
                if skipped > SKIP_MAX:
                    skipped = 0
                    self._keep_decided()
                    # Safety: _keep_decided left room for one byte more.
                    self.own[self.decided_size] = 0
                    self._seek(self.own, self.decided_size + 1, TRAILER_MAX)
                continue
            if upper != NULL and compare_keys(row.key, row.key_size, upper, upper_size) >= 0:
                break
            if not self._is_visible(row.trailer):
                if self._pass(row.key, row.key_size, False):
                    continue
                skipped += 1
                if skipped > SKIP_MAX:
                    skipped = 0
                    self._seek_visible(row)
                continue
            skipped = 0
            self.decided = row.key
            self.decided_size = row.key_size
            seen = self._is_seen(row)
            if seen:
                if self.passed >= GAP_ENTRIES_MIN:
                    self._end_stretch(row.key, row.key_size)
                self.row = row[0]
                if seen == MERGE and self.what != KEYS:
                    self._merge(self._is_single(row, self.run_at))
                return 1
            self.tally.deleted += 1
            self._pass(row.key, row.key_size, True)
        return self._end()

    cdef int _merge(self, bint single) except -1:
        """Give the row, a MERGE, its value. Unless it is known to be the `single` version of its
        key, which then is the one decided last, the source is moved behind what was looked at.
        """
        cdef bytes key = bytes_of(self.row.key, self.row.key_size, False)
        cdef bytes base = None
        cdef list entries = [bytes_of(self.row.value, self.row.value_size, False)]
        if not single:
            self._keep_decided()
            self.row.key = self.decided
            self._seek(self.own, self.decided_size, self.row.trailer)
            base = self._walk(key, entries)
        self.held = self.merges.fold(key, base, entries)
        self.row.value = bytes_data(self.held)
        self.row.value_size = PyBytes_GET_SIZE(self.held)

    cdef bytes _walk(self, bytes key, list entries):
        """Add the operands behind the row, where the source stands; return the value below them."""
        cdef uint64_t cover = self._cover(&self.row), last = self.row.trailer
        cdef Row* row
        while self.source.c_next():
            row = self._stand()
            if self._is_decided(row) and not self._is_visible(row.trailer):
                self._seek(self.own, self.decided_size, self.visible)  # past what came later
                row = self._stand()
            if not self.source.at or not self._is_decided(row) or row.trailer >> 8 < cover:
                break
            if row.trailer & 0xFF == PUT:
                return bytes_of(row.value, row.value_size, False)
            if row.trailer & 0xFF != MERGE:
                break
            if len(entries) >= OPERANDS_MAX and row.trailer <= self.visible:
                return self.merges.merged(key, row.trailer >> 8)
            if row.trailer != last:  # else it is in two sources
                entries.append(bytes_of(row.value, row.value_size, False))
            last = row.trailer
        return None

    cdef int _seek_visible(self, const Row* row) except -1:
        """Move to the first version of a key that the user may see, or what follows it."""
        cdef Py_ssize_t size = row.key_size
        # Private versions come first, then those that came after the snapshot.
        cdef uint64_t target = self.own_last if row.trailer > self.own_last else self.visible
        # The key is not decided, but its memory is needed while the source moves.
        self.decided = row.key
        self.decided_size = size
        self._keep_decided()
        self.decided_size = -1
        return self._seek(self.own, size, max(target, self.visible))

    cdef Row* _peek(self) except? NULL:
        """Return the next entry without taking it, or NULL at the end. Requires: reverse."""
        if self.run != NULL and self.run_at < self.run.count:
            # Safety: run_at is less than the run's count.
            return &self.run.rows[self.run_at]
        if not self.started:
            self._start()
        elif self.source.at and self._fill():
            return &self.run.rows[0]
        return self._stand() if self.source.at else NULL

    cdef int _drop(self) except -1:
        """Take the entry that `_peek` showed."""
        if self.run != NULL and self.run_at < self.run.count:
            self.run_at += 1
        else:
            self._keep_decided()
            self.source.c_prev()
        return 0

    cdef int _backward(self) except -1:
        cdef Row* row
        cdef const unsigned char* lower = NULL
        cdef Py_ssize_t lower_size = 0
        cdef int seen
        if self.lower is not None:
            lower = bytes_data(self.lower)
            lower_size = PyBytes_GET_SIZE(self.lower)
        self.has_stretch = 0
        self.passed = 0
        while self.has_rest:
            row = self._peek()
            if row == NULL:
                break
            if lower != NULL and compare_keys(row.key, row.key_size, lower, lower_size) < 0:
                break
            if self._is_single(row, self.run_at + 1):
                self.run_at += 1
                seen = self._is_seen(row) if self._is_visible(row.trailer) else 0
                if not seen and self._is_visible(row.trailer):
                    self.tally.deleted += 1
                self.row = row[0]
                self.held = None
                if seen == MERGE and self.what != KEYS:
                    self._merge(True)
            else:
                seen = self._newest_of(row)
            if seen:
                if self.passed >= GAP_ENTRIES_MIN:
                    self._end_stretch(self.row.key, self.row.key_size)
                return 1
            self._pass(self.row.key, self.row.key_size, True)
        return self._end()

    cdef inline bint _is_single(self, const Row* row, Py_ssize_t following) noexcept:
        """Return whether the next entry, in the run at `following`, is sure to have another key."""
        cdef const unsigned char* key
        cdef Py_ssize_t size
        if self.run == NULL or not 0 < following <= self.run.count:
            return False
        if following < self.run.count:
            # Safety: compared right above.
            key = self.run.rows[following].key
            size = self.run.rows[following].key_size
        else:
            # The source stands behind the run.
            key = self.source.key_data
            size = self.source.key_size
        return size != row.key_size or memcmp(key, row.key, size) != 0

    cdef bint _newest_of(self, Row* row) except -1:
        """Take all versions of a key, which come oldest first. Return whether the user sees the
        last visible one, which then is the row.
        """
        cdef bint found = False
        cdef int skipped = 0
        self.decided = row.key
        self.decided_size = row.key_size
        # The value is copied before the source moves on.
        while row != NULL and self._is_decided(row):
            skipped += 1
            if skipped > SKIP_MAX:
                self._keep_decided()
                if row.trailer <= self.visible and self._take_newest(self.visible):
                    found = True
                if self.overlay is not None and self._take_newest(self.own_last):
                    found = True
                self.run_at = RUN_ROWS
                self.source.c_seek_before(self.own, self.decided_size)
                break
            if self._is_visible(row.trailer):
                found = True
                self._hold(row)
            self._drop()
            row = self._peek()
        # The loop may have kept it only now.
        self._keep_decided()
        self.row.key = self.decided
        self.row.key_size = self.decided_size
        if not found:
            return False
        if self._is_seen(&self.row):
            if self.row.trailer & 0xFF == MERGE and self.what != KEYS:
                self._merge(False)
                self.run_at = RUN_ROWS
                self.source.c_seek_before(self.own, self.decided_size)
            return True
        self.tally.deleted += 1
        return False

    cdef bint _take_newest(self, uint64_t trailer) except -1:
        """Make the row what is the newest version up to `trailer` of the key decided last, if there
        is one that the user may see. Requires: that key is in memory of our own.
        """
        cdef Row* row
        self._seek(self.own, self.decided_size, trailer)
        row = self._stand()
        if not (self.source.at and self._is_decided(row) and self._is_visible(row.trailer)):
            return False
        self._hold(row)
        return True

    cdef int _hold(self, const Row* row) except -1:
        """Make this entry the row, with a copy of its value."""
        self.row = row[0]
        self.held = None
        if self.what != KEYS and row.trailer & 0xFF != 0:
            self.held = PyBytes_FromStringAndSize(<const char*>row.value, row.value_size)
            self.row.value = bytes_data(self.held)
        return 0
