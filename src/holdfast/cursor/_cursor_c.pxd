"""The compiled face of cursors. Moves return 1 when positioned, 0 at the end, -1 with an exception
set.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t
from libc.string cimport memcmp


cdef enum:
    RUN_ROWS = 64
    RUN_KEY_BYTES = 4096


# One entry of a run.
cdef struct Row:
    const unsigned char* key
    Py_ssize_t key_size
    uint64_t trailer
    const unsigned char* value
    Py_ssize_t value_size


# Entries that a cursor had at hand together. `keys` has room for keys that lie nowhere as a whole.
cdef struct Run:
    Py_ssize_t count
    Py_ssize_t room                  # how many entries are wanted, at most RUN_ROWS
    Row[RUN_ROWS] rows
    unsigned char[RUN_KEY_BYTES] keys


cdef class Cursor:
    # Where the cursor stands; constant between moves. Valid memory until the next move or the
    # cursor's end, even if the source grows or its page is evicted. `at` is 1 when positioned.
    cdef bint at
    cdef const unsigned char* key_data
    cdef Py_ssize_t key_size
    cdef uint64_t trailer            # seq << 8 | kind
    cdef const unsigned char* value_data
    cdef Py_ssize_t value_size
    cdef object failure              # the exception that killed this cursor, or None
    cdef object entry                # private: keeps the bytes of a Python source alive

    # Overridden by sources. Sources do not check `failure`; the public methods and MergeCursor do.
    # c_next and c_prev of a cursor that is not positioned return 0 and change nothing.
    cdef int c_first(self) except -1
    cdef int c_last(self) except -1
    # First entry >= (key, trailer) in internal order.
    cdef int c_seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1
    # Last entry whose user key < key.
    cdef int c_seek_before(self, const unsigned char* key, Py_ssize_t size) except -1
    cdef int c_next(self) except -1
    cdef int c_prev(self) except -1
    # Put the entry at which the cursor stands and those after it (before it, when not `forward`)
    # into `run`, as far as they are at hand without reading, and stand at the entry after them.
    # Return their number. None is always right: then the cursor has not moved, and c_next must be
    # asked. The entries are valid memory until the next move of any kind. Requires: `at`; the
    # latest move was in this direction, or a seek; run.room is at least 1.
    cdef int c_run(self, Run* run, bint forward) except -1
    # Without the interpreter, for merges, forward only. q_next moves to the next entry and returns
    # 1; q_run does what c_run does. Where that takes the interpreter, memory, or the end is
    # reached, they return 0 and nothing has changed: ask c_next, or c_run. Nobody else may use the
    # cursor or its sources meanwhile, which the GIL does not see to here.
    cdef int q_next(self) noexcept nogil
    cdef int q_run(self, Run* run) noexcept nogil

    # Private to the cursor room.
    cdef int _take(self, object found) except -1
    cdef void _show(self, tuple pair, uint64_t trailer) noexcept
    cdef void _die(self, object error) noexcept
    cdef int _check_alive(self) except -1
    cdef int _check_at(self) except -1


cdef inline const unsigned char* bytes_data(object value) noexcept:
    """Return where the bytes of a bytes object are. Requires: bytes, kept alive by the caller."""
    return <const unsigned char*>PyBytes_AS_STRING(value)


cdef inline int compare_keys(const unsigned char* a, Py_ssize_t a_size,
                             const unsigned char* b, Py_ssize_t b_size) noexcept nogil:
    """Return <0, 0, >0 as a sorts before, with, after b: bytewise, the shorter first on a tie."""
    cdef int order = memcmp(a, b, a_size if a_size < b_size else b_size)
    if order != 0:
        return order
    return (a_size > b_size) - (a_size < b_size)


cdef inline int compare_entries(
        const unsigned char* a, Py_ssize_t a_size, uint64_t a_trailer,
        const unsigned char* b, Py_ssize_t b_size, uint64_t b_trailer) noexcept nogil:
    """Return <0, 0, >0 as a sorts before, with, after b in internal order: key ascending, trailer
    descending.
    """
    cdef int order = compare_keys(a, a_size, b, b_size)
    if order != 0:
        return order
    return (a_trailer < b_trailer) - (a_trailer > b_trailer)


cdef inline void add_row(Run* run, const unsigned char* key, Py_ssize_t key_size,
                         uint64_t trailer, const unsigned char* value,
                         Py_ssize_t value_size) noexcept nogil:
    """Add an entry to a run. Requires: it has room."""
    # Safety: the caller compared `count` with `room`.
    cdef Row* row = &run.rows[run.count]
    row.key = key
    row.key_size = key_size
    row.trailer = trailer
    row.value = value
    row.value_size = value_size
    run.count += 1


cdef inline uint64_t key_prefix(const unsigned char* key, Py_ssize_t size) noexcept nogil:
    """Return the first 8 bytes of key as a big-endian number, zero padded: unequal prefixes order
    their keys.
    """
    cdef uint64_t prefix = 0
    cdef Py_ssize_t index
    if size >= 8:
        # Safety: at least 8 bytes are there. Written out, this compiles to one load and a byte
        # swap.
        return (<uint64_t>key[0] << 56 | <uint64_t>key[1] << 48 | <uint64_t>key[2] << 40
                | <uint64_t>key[3] << 32 | <uint64_t>key[4] << 24 | <uint64_t>key[5] << 16
                | <uint64_t>key[6] << 8 | <uint64_t>key[7])
    for index in range(size):
        prefix |= <uint64_t>key[index] << (56 - 8 * index)
    return prefix


@cython.final
cdef class ListCursor(Cursor):
    cdef list entries
    cdef Py_ssize_t index
    cdef int c_stand(self, Py_ssize_t index) except -1
    cdef Py_ssize_t _count_before(self, const unsigned char* key, Py_ssize_t size,
                                  uint64_t trailer) except -1


# The entries of one source of a merge that are still to come. The source stands behind those of
# the run that are left, or at `here`.
cdef struct Feed:
    Run* run                         # NULL until a second entry is asked for
    Py_ssize_t run_at
    Row here


# Where one source of a merge is. The sources are kept alive by the merge, so `source` is borrowed.
cdef struct Leader:
    uint64_t prefix
    const Row* row                   # in the feed
    Feed* feed
    Py_ssize_t index
    PyObject* source


@cython.final
cdef class MergeCursor(Cursor):
    cdef tuple sources
    cdef Leader* heap
    cdef Feed* feeds                 # one for each source
    cdef Py_ssize_t heap_size
    cdef bint forward
    cdef int _place(self, int how, const unsigned char* key, Py_ssize_t size,
                    uint64_t trailer) except -1
    cdef int _advance(self, bint forward) except -1
    cdef int _move_source(self, Leader* leader) except -1
    cdef int _run_of_only(self, Run* run) except -1
    cdef int _refill(self, Leader* leader) except -1
    cdef bint _q_move(self, Leader* leader) noexcept nogil
    cdef int _turn(self, Cursor current, bint forward) except -1
    cdef int _build(self) except -1
    cdef inline void _load(self, Leader* leader, const Row* row) noexcept nogil
    cdef inline void _load_here(self, Leader* leader, Cursor source) noexcept nogil
    cdef void _sift_down(self, Py_ssize_t index) noexcept nogil
    cdef inline int _show_top(self) noexcept nogil
