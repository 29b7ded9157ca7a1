"""What a user sees of a cursor: the compiled twin of `_user_py`, which specifies it.

A key with many versions is not walked through: after SKIP_MAX of them the source is asked to seek
past.

Thread safety: one thread at a time. A request while another one runs (a source may let go of the
interpreter lock while it reads) raises RuntimeError and harms nothing.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from holdfast.cursor._cursor_c cimport Cursor, bytes_data, compare_keys
from holdfast.cursor._tombstones_c cimport RangeTombstones

import sys

from holdfast.base import SEQ_MAX, DatabaseClosedError

cdef enum:
    ITEMS = 0
    KEYS = 1
    VALUES = 2
    PUT = 1
    SKIP_MAX = 16

SIZE_MAX = sys.maxsize

cdef uint64_t TRAILER_MAX = 0xFFFFFFFFFFFFFFFF


cdef inline bytes _key_of(Cursor source):
    return PyBytes_FromStringAndSize(<const char*>source.key_data, source.key_size)


cdef inline bytes _value_of(Cursor source):
    return PyBytes_FromStringAndSize(<const char*>source.value_data, source.value_size)


cdef class Owner:
    """See `_user_py.Owner`."""


@cython.final
cdef class UserCursor:
    """An iterator over (key, value), keys or values, as `what` is 0, 1 or 2.

    `tombstones` is one set or several. After `close` it yields nothing.

    Raises: TypeError, ValueError for arguments of the wrong type or range.
    """
    cdef Cursor source               # None once ended
    cdef tuple sets                  # the sets of tombstones that are not empty
    cdef uint64_t snapshot
    cdef uint64_t visible            # the greatest trailer that is not newer than the snapshot
    cdef bytes lower
    cdef bytes upper
    cdef bint reverse
    cdef Py_ssize_t left             # rows that may still be yielded; -1 is no limit
    cdef int what
    cdef object owner
    cdef Owner life                  # the owner, when it can end before the cursor
    cdef object failure
    cdef bint started
    cdef bint busy
    # The key that was decided last, in memory of our own: the source's is gone when it moves.
    cdef unsigned char* decided
    cdef Py_ssize_t decided_size     # -1 before the first
    cdef Py_ssize_t decided_room
    cdef object __weakref__

    def __cinit__(self, cursor, tombstones=(), snapshot: int = SEQ_MAX, lower: bytes | None = None,
                  upper: bytes | None = None, reverse: bool = False, limit: int | None = None,
                  what: int = 0, owner: object = None) -> None:
        if not isinstance(cursor, Cursor):
            raise TypeError(f"a source is a Cursor, not {type(cursor).__name__}")
        sets = [tombstones] if isinstance(tombstones, RangeTombstones) else list(tombstones)
        for each in sets:
            if not isinstance(each, RangeTombstones):
                raise TypeError(f"tombstones are RangeTombstones, not {type(each).__name__}")
        if not 0 <= snapshot <= SEQ_MAX:
            raise ValueError(f"the sequence number {snapshot} does not fit 56 bits")
        for bound in (lower, upper):
            if bound is not None and type(bound) is not bytes:
                raise TypeError(f"a bound is bytes or None, not {type(bound).__name__}")
        if limit is not None and limit < 0:
            raise ValueError(f"the limit is {limit}; it must not be negative")
        if what not in (0, 1, 2):
            raise ValueError(f"what is {what}; it must be 0 (items), 1 (keys) or 2 (values)")
        self.sets = tuple([each for each in sets if len(each)])
        self.snapshot = snapshot
        self.visible = self.snapshot << 8 | 0xFF
        self.lower = lower
        self.upper = upper
        self.reverse = reverse
        # More rows than fit the address space is no limit.
        self.left = -1 if limit is None else min(limit, SIZE_MAX)
        self.decided_size = -1
        self.what = what
        self.owner = owner
        self.life = owner if isinstance(owner, Owner) else None
        self.source = cursor

    def __dealloc__(self) -> None:
        free(self.decided)

    def __iter__(self):
        return self

    def __next__(self):
        row = self._take()
        if row is None:
            raise StopIteration
        return row

    def next_chunk(self, n: int) -> list:
        """Return the next rows, at most `n`; none at the end. Raises: ValueError when `n` is
        negative.
        """
        cdef list rows = []
        cdef Py_ssize_t count
        if n < 0:
            raise ValueError(f"the count is {n}; it must not be negative")
        # With nothing asked for, a failure or use by another thread is still reported.
        self._check()
        count = min(n, SIZE_MAX)
        while len(rows) < count:
            row = self._take()
            if row is None:
                break
            rows.append(row)
        return rows

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
        return 0

    cdef object _take(self):
        """Return the next row, or None at the end."""
        cdef object row = None
        if self.busy or self.failure is not None:
            self._check()
        if self.source is None:
            return None
        self.busy = 1
        try:
            if self.life is not None and self.life.ended is not None:
                raise DatabaseClosedError(self.life.ended)
            if self.left != 0:
                row = self._backward() if self.reverse else self._forward()
        except BaseException as error:
            self.failure = error
            self.busy = 0
            self._release()
            raise
        self.busy = 0
        if row is None:
            self._release()
        elif self.left > 0:
            self.left -= 1
        return row

    cdef int _release(self) except -1:
        self.source = None
        self.sets = ()
        self.owner = None
        self.life = None
        return 0

    cdef inline bint _is_decided(self) noexcept:
        """Return whether the source stands at a version of the key decided last."""
        return (self.source.key_size == self.decided_size
                and memcmp(self.source.key_data, self.decided, self.decided_size) == 0)

    cdef inline int _decide(self) except -1:
        """Remember the source's key as the one decided last."""
        cdef Py_ssize_t size = self.source.key_size
        cdef unsigned char* grown
        if size >= self.decided_room:
            # One byte more makes room for the key's successor. Safety: keys are far from the
            # greatest size.
            grown = <unsigned char*>realloc(self.decided, 2 * size + 64)
            if grown == NULL:
                raise MemoryError()
            self.decided = grown
            self.decided_room = 2 * size + 64
        memcpy(self.decided, self.source.key_data, size)
        self.decided_size = size
        return 0

    cdef bint _is_seen(self, uint64_t trailer) except -1:
        """Return whether the user sees the key decided last, whose newest visible version has this
        trailer.
        """
        cdef uint64_t kind = trailer & 0xFF
        if kind != PUT:
            if kind > PUT:
                raise ValueError(f"an entry of kind {kind} among point entries")
            return False
        cdef RangeTombstones one
        for each in self.sets:
            one = <RangeTombstones>each
            if one.c_cover(self.decided, self.decided_size, self.snapshot) > trailer >> 8:
                return False
        return True

    cdef object _forward(self):
        cdef Cursor source = self.source
        cdef const unsigned char* upper = NULL
        cdef Py_ssize_t upper_size = 0
        cdef Py_ssize_t size
        cdef int skipped = 0
        if self.upper is not None:
            upper = bytes_data(self.upper)
            upper_size = PyBytes_GET_SIZE(self.upper)
        if self.started:
            source.c_next()
        else:
            self.started = 1
            if self.lower is None:
                source.c_first()
            else:
                source.c_seek(bytes_data(self.lower), PyBytes_GET_SIZE(self.lower),
                              self.visible)
        while source.at:
            if self._is_decided():
                skipped += 1
                if skipped > SKIP_MAX:
                    skipped = 0
                    # Safety: _decide left room for one byte more.
                    self.decided[self.decided_size] = 0
                    source.c_seek(self.decided, self.decided_size + 1, TRAILER_MAX)
                else:
                    source.c_next()
                continue
            if upper != NULL and compare_keys(
                    source.key_data, source.key_size, upper, upper_size) >= 0:
                return None
            if source.trailer > self.visible:
                skipped += 1
                if skipped > SKIP_MAX:
                    skipped = 0
                    # The key is not decided, but its memory is needed while the source moves.
                    self._decide()
                    size = self.decided_size
                    self.decided_size = -1
                    source.c_seek(self.decided, size, self.visible)
                else:
                    source.c_next()
                continue
            skipped = 0
            self._decide()
            if self._is_seen(source.trailer):
                if self.what == ITEMS:
                    return _key_of(source), _value_of(source)
                return _key_of(source) if self.what == KEYS else _value_of(source)
            source.c_next()
        return None

    cdef object _backward(self):
        cdef Cursor source = self.source
        cdef const unsigned char* lower = NULL
        cdef Py_ssize_t lower_size = 0
        cdef uint64_t newest
        cdef bint found
        cdef int skipped
        cdef object value
        if self.lower is not None:
            lower = bytes_data(self.lower)
            lower_size = PyBytes_GET_SIZE(self.lower)
        if not self.started:
            self.started = 1
            if self.upper is None:
                source.c_last()
            else:
                source.c_seek_before(bytes_data(self.upper),
                                     PyBytes_GET_SIZE(self.upper))
        while source.at:
            if lower != NULL and compare_keys(
                    source.key_data, source.key_size, lower, lower_size) < 0:
                return None
            self._decide()
            found = False
            newest = 0
            skipped = 0
            value = None
            # The versions of a key come oldest first, so the last visible one counts. Its value is
            # copied before the source moves on.
            while source.at and self._is_decided():
                skipped += 1
                if skipped > SKIP_MAX:
                    if source.trailer <= self.visible:
                        source.c_seek(self.decided, self.decided_size, self.visible)
                        if source.at and self._is_decided():
                            found = True
                            newest = source.trailer
                            value = self._copy_value(source)
                    source.c_seek_before(self.decided, self.decided_size)
                    break
                if source.trailer <= self.visible:
                    found = True
                    newest = source.trailer
                    value = self._copy_value(source)
                source.c_prev()
            if found and self._is_seen(newest):
                if self.what == VALUES:
                    return value
                key = PyBytes_FromStringAndSize(<const char*>self.decided, self.decided_size)
                return key if self.what == KEYS else (key, value)
        return None

    cdef inline object _copy_value(self, Cursor source):
        if self.what == KEYS or source.trailer & 0xFF != PUT:
            return None
        return _value_of(source)
