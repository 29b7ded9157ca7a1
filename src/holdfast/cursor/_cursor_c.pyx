"""Ordered cursors over internal entries: the compiled twin of `_cursor_py`, which specifies them.

A compiled source overrides the `c_*` methods of `_cursor_c.pxd` and is moved without calling
Python. A source written in Python overrides the hooks `_first` ... `_prev`, which the `c_*` methods
of the base class call.

`MergeCursor` keeps its positioned sources in a binary heap of C structs that hold the first eight
key bytes as a number, so that most comparisons touch no key. With one source a step compares
nothing, with two it compares once. It takes the entries of a source in runs, as far as the source
has them at hand, so that most steps move no source.

A merge of a flush or a compaction moves its cursors without the GIL, by `q_next` (ADR 0041).

Thread safety: none; one thread at a time uses a cursor and its sources.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, malloc

from holdfast.base import SEQ_MAX

cdef enum:
    ROOM_FIRST = 8

cdef uint64_t TRAILER_ANY = 0xFF


cdef uint64_t _checked_seq(object seq) except? 0xFFFFFFFFFFFFFFFF:
    if not isinstance(seq, int):
        raise TypeError(f"a sequence number is an int, not {type(seq).__name__}")
    if not 0 <= seq <= SEQ_MAX:
        raise ValueError(f"the sequence number {seq} does not fit 56 bits")
    return seq


cdef int _check_bytes(object value, str role) except -1:
    if type(value) is not bytes:
        raise TypeError(f"a {role} is bytes, not {type(value).__name__}")
    return 0


cdef class Cursor:
    """One ordered source of entries. The moves return whether the cursor stands at an entry."""

    def seek_first(self) -> bool:
        """Move to the first entry."""
        self._check_alive()
        try:
            return self.c_first() == 1
        except BaseException as error:
            self._die(error)
            raise

    def seek_last(self) -> bool:
        """Move to the last entry."""
        self._check_alive()
        try:
            return self.c_last() == 1
        except BaseException as error:
            self._die(error)
            raise

    def seek(self, key: bytes, seq: int = SEQ_MAX) -> bool:
        """Move to the newest version of `key` that is not newer than `seq`, or else to the next
        entry after it.

        Raises: TypeError, ValueError for arguments of the wrong type or range.
        """
        _check_bytes(key, "key")
        cdef uint64_t trailer = _checked_seq(seq) << 8 | TRAILER_ANY
        self._check_alive()
        try:
            return self.c_seek(bytes_data(key), PyBytes_GET_SIZE(key), trailer) == 1
        except BaseException as error:
            self._die(error)
            raise

    def seek_before(self, key: bytes) -> bool:
        """Move to the last entry whose key is less than `key`. Raises: TypeError."""
        _check_bytes(key, "key")
        self._check_alive()
        try:
            return self.c_seek_before(bytes_data(key), PyBytes_GET_SIZE(key)) == 1
        except BaseException as error:
            self._die(error)
            raise

    def next(self) -> bool:
        """Move to the next entry. Raises: ValueError when the cursor stands at no entry."""
        self._check_at()
        try:
            return self.c_next() == 1
        except BaseException as error:
            self._die(error)
            raise

    def prev(self) -> bool:
        """Move to the previous entry. Raises: ValueError when the cursor stands at no entry."""
        self._check_at()
        try:
            return self.c_prev() == 1
        except BaseException as error:
            self._die(error)
            raise

    @property
    def valid(self) -> bool:
        """Whether the cursor stands at an entry."""
        self._check_alive()
        return self.at

    @property
    def key(self) -> bytes:
        """The key of the entry. Raises: ValueError when the cursor stands at none."""
        self._check_at()
        return PyBytes_FromStringAndSize(<const char*>self.key_data, self.key_size)

    @property
    def seq(self) -> int:
        """The sequence number of the entry. Raises: ValueError when the cursor stands at none."""
        self._check_at()
        return self.trailer >> 8

    @property
    def kind(self) -> int:
        """The kind of the entry. Raises: ValueError when the cursor stands at none."""
        self._check_at()
        return self.trailer & 0xFF

    @property
    def value(self) -> bytes:
        """The value of the entry. Raises: ValueError when the cursor stands at none."""
        self._check_at()
        return PyBytes_FromStringAndSize(<const char*>self.value_data, self.value_size)

    def _first(self):
        raise NotImplementedError

    def _last(self):
        raise NotImplementedError

    def _seek(self, key, trailer):
        raise NotImplementedError

    def _seek_before(self, key):
        raise NotImplementedError

    def _next(self):
        raise NotImplementedError

    def _prev(self):
        raise NotImplementedError

    cdef int c_first(self) except -1:
        return self._take(self._first())

    cdef int c_last(self) except -1:
        return self._take(self._last())

    cdef int c_seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1:
        return self._take(self._seek(PyBytes_FromStringAndSize(<const char*>key, size), trailer))

    cdef int c_seek_before(self, const unsigned char* key, Py_ssize_t size) except -1:
        return self._take(self._seek_before(PyBytes_FromStringAndSize(<const char*>key, size)))

    cdef int c_next(self) except -1:
        return self._take(self._next()) if self.at else 0

    cdef int c_prev(self) except -1:
        return self._take(self._prev()) if self.at else 0

    cdef int c_run(self, Run* run, bint forward) except -1:
        run.count = 0
        return 0

    cdef int q_next(self) noexcept nogil:
        return 0

    cdef int q_run(self, Run* run) noexcept nogil:
        run.count = 0
        return 0

    cdef int _take(self, object found) except -1:
        """Stand at the entry that a Python hook returned."""
        self.at = 0
        if found is None:
            self.entry = None
            return 0
        key, seq, kind, value = found
        _check_bytes(key, "key")
        _check_bytes(value, "value")
        cdef uint64_t number = _checked_seq(seq)
        if not 0 <= kind <= 0xFF:
            raise ValueError(f"the kind {kind} is unknown")
        # A tuple of our own: the hook's could be a mutable list.
        self._show((key, value), number << 8 | <uint64_t>kind)
        return 1

    cdef void _show(self, tuple pair, uint64_t trailer) noexcept:
        """Stand at (key, value) = pair. Requires: two bytes objects."""
        # Safety: `entry` keeps both bytes objects, and so the memory pointed to, until the next
        # move.
        self.entry = pair
        self.key_data = bytes_data(pair[0])
        self.key_size = PyBytes_GET_SIZE(pair[0])
        self.trailer = trailer
        self.value_data = bytes_data(pair[1])
        self.value_size = PyBytes_GET_SIZE(pair[1])
        self.at = 1

    cdef void _die(self, object error) noexcept:
        self.failure = error
        self.at = 0
        self.entry = None

    cdef int _check_alive(self) except -1:
        if self.failure is not None:
            raise self.failure.with_traceback(None)
        return 0

    cdef int _check_at(self) except -1:
        self._check_alive()
        if not self.at:
            raise ValueError("the cursor stands at no entry")
        return 0


@cython.final
cdef class ListCursor(Cursor):
    """A cursor over a sequence of entries that is in internal order already.

    Raises: TypeError for a field of the wrong type; ValueError for a number out of range or entries
    out of order.
    """

    def __init__(self, entries) -> None:
        cdef list kept = []
        cdef uint64_t trailer
        cdef uint64_t trailer_before = 0
        cdef object key_before = None
        for key, seq, kind, value in list(entries):
            _check_bytes(key, "key")
            _check_bytes(value, "value")
            trailer = _checked_seq(seq) << 8
            if kind not in (0, 1, 2, 3):
                raise ValueError(f"the kind {kind} is unknown")
            trailer |= <uint64_t>kind
            if key_before is not None and (
                    key_before > key or (key_before == key and trailer_before <= trailer)):
                raise ValueError("the entries are not in internal order")
            kept.append((key, value, trailer))
            key_before = key
            trailer_before = trailer
        self.entries = kept
        self.index = -1
        self.at = 0

    cdef int c_stand(self, Py_ssize_t index) except -1:
        self.index = index
        if self.entries is None or index < 0 or index >= len(self.entries):
            self.at = 0
            self.entry = None
            return 0
        pair = <tuple>self.entries[index]
        self._show(pair, pair[2])
        return 1

    cdef int c_first(self) except -1:
        return self.c_stand(0)

    cdef int c_last(self) except -1:
        return self.c_stand(len(self.entries) - 1)

    cdef int c_seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1:
        return self.c_stand(self._count_before(key, size, trailer))

    cdef int c_seek_before(self, const unsigned char* key, Py_ssize_t size) except -1:
        # No trailer is greater than the greatest, so what is before it is before every version of
        # the key.
        return self.c_stand(self._count_before(key, size, 0xFFFFFFFFFFFFFFFF) - 1)

    cdef int c_next(self) except -1:
        return self.c_stand(self.index + 1) if self.at else 0

    cdef int c_prev(self) except -1:
        return self.c_stand(self.index - 1) if self.at else 0

    cdef int c_run(self, Run* run, bint forward) except -1:
        cdef Py_ssize_t index = self.index
        cdef Py_ssize_t last = len(self.entries) - 1 if forward else 0
        cdef tuple pair
        run.count = 0
        # Safety: `entries` never changes and keeps the bytes alive; the walk ends before `last`.
        while index != last and run.count < run.room:
            pair = <tuple>self.entries[index]
            add_row(run, bytes_data(pair[0]), PyBytes_GET_SIZE(pair[0]), pair[2],
                    bytes_data(pair[1]), PyBytes_GET_SIZE(pair[1]))
            index += 1 if forward else -1
        self.c_stand(index)
        return run.count

    cdef Py_ssize_t _count_before(self, const unsigned char* key, Py_ssize_t size,
                                  uint64_t trailer) except -1:
        """Return the number of entries before (key, trailer)."""
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = len(self.entries)
        cdef Py_ssize_t middle
        cdef tuple pair
        cdef bytes found
        while low < high:
            middle = (low + high) // 2
            pair = <tuple>self.entries[middle]
            found = <bytes>pair[0]
            if compare_entries(bytes_data(found), PyBytes_GET_SIZE(found), pair[2],
                               key, size, trailer) < 0:
                low = middle + 1
            else:
                high = middle
        return low


cdef inline bint _precedes(const Leader* a, const Leader* b, bint forward) noexcept nogil:
    """Return whether a is yielded before b."""
    cdef int order
    cdef uint64_t one, other
    if a.prefix != b.prefix:
        return (a.prefix < b.prefix) == forward
    if a.row.key_size >= 16 and b.row.key_size >= 16:
        # Safety: both have 16 bytes. Keys that begin alike mostly differ in these.
        one = key_prefix(a.row.key + 8, 8)
        other = key_prefix(b.row.key + 8, 8)
        if one != other:
            return (one < other) == forward
    order = compare_entries(a.row.key, a.row.key_size, a.row.trailer,
                            b.row.key, b.row.key_size, b.row.trailer)
    if order == 0:
        return (a.index < b.index) == forward
    return (order < 0) == forward


@cython.final
@cython.no_gc_clear
cdef class MergeCursor(Cursor):
    """The entries of several cursors in internal order, in both directions.

    See the plain twin for the algorithm. A failure of a source kills the merge and that source.
    """

    def __cinit__(self) -> None:
        self.heap = NULL
        self.feeds = NULL
        self.heap_size = 0
        self.forward = 1

    def __init__(self, cursors) -> None:
        cdef tuple sources = tuple(cursors)
        for source in sources:
            if not isinstance(source, Cursor):
                raise TypeError(f"a source is a Cursor, not {type(source).__name__}")
        if self.sources is not None:
            raise ValueError("the merge has its sources already")
        self.heap = <Leader*>malloc((len(sources) + 1) * sizeof(Leader))
        self.feeds = <Feed*>calloc(len(sources) + 1, sizeof(Feed))
        if self.heap == NULL or self.feeds == NULL:
            free(self.heap)
            free(self.feeds)
            self.heap = NULL
            self.feeds = NULL
            raise MemoryError()
        self.sources = sources

    def __dealloc__(self) -> None:
        cdef Py_ssize_t index
        if self.sources is not None:
            # Safety: there is a feed for each source.
            for index in range(len(self.sources)):
                free(self.feeds[index].run)
        free(self.feeds)
        free(self.heap)

    cdef int c_first(self) except -1:
        return self._place(0, NULL, 0, 0)

    cdef int c_last(self) except -1:
        return self._place(1, NULL, 0, 0)

    cdef int c_seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1:
        return self._place(2, key, size, trailer)

    cdef int c_seek_before(self, const unsigned char* key, Py_ssize_t size) except -1:
        return self._place(3, key, size, 0)

    cdef int c_next(self) except -1:
        if self.at:
            return self._advance(1)
        # A dead merge stands at no entry; it must not look like one that ended.
        self._check_alive()
        return 0

    cdef int c_prev(self) except -1:
        if self.at:
            return self._advance(0)
        self._check_alive()
        return 0

    cdef int _place(self, int how, const unsigned char* key, Py_ssize_t size,
                    uint64_t trailer) except -1:
        """Seek all sources and rebuild the heap: 0 first, 1 last, 2 seek, 3 seek before."""
        cdef Cursor source
        cdef Py_ssize_t index
        cdef Py_ssize_t count = 0 if self.sources is None else len(self.sources)
        self._check_alive()
        self.at = 0
        self.heap_size = 0
        self.forward = how == 0 or how == 2
        for index in range(count):
            source = <Cursor>self.sources[index]
            source._check_alive()
            try:
                if how == 0:
                    source.c_first()
                elif how == 1:
                    source.c_last()
                elif how == 2:
                    source.c_seek(key, size, trailer)
                else:
                    source.c_seek_before(key, size)
            except BaseException as error:
                source._die(error)
                self._die(error)
                raise
        return self._build()

    cdef int _advance(self, bint forward) except -1:
        """Move to the next entry in a direction. Requires: the merge stands at an entry."""
        # Safety: a merge that stands at an entry has a heap that is not empty.
        cdef Cursor current = <Cursor>self.heap[0].source
        if self.forward != forward:
            return self._turn(current, forward)
        if not self._move_source(&self.heap[0]):
            self.heap_size -= 1
            if self.heap_size == 0:
                self.at = 0
                return 0
            self.heap[0] = self.heap[self.heap_size]
        self._sift_down(0)
        return self._show_top()

    cdef int _move_source(self, Leader* leader) except -1:
        """Load the next entry of a leader's source. Return whether there is one."""
        cdef Cursor source = <Cursor>leader.source
        cdef Feed* feed = leader.feed
        if leader.row != &feed.here:
            feed.run_at += 1
            if feed.run_at < feed.run.count:
                # Safety: compared right above.
                self._load(leader, &feed.run.rows[feed.run_at])
                return 1
            # The source stands behind its run.
            self._load_here(leader, source)
        else:
            try:
                if self.forward:
                    source.c_next()
                else:
                    source.c_prev()
            except BaseException as error:
                source._die(error)
                self._die(error)
                raise
            if not source.at:
                return 0
            self._load_here(leader, source)
        self._refill(leader)
        return 1

    cdef int _refill(self, Leader* leader) except -1:
        """Ask a source for a run that begins with `here`. Return whether there is one."""
        cdef Cursor source = <Cursor>leader.source
        cdef Feed* feed = leader.feed
        if feed.run == NULL:
            feed.run = <Run*>malloc(sizeof(Run))
            if feed.run == NULL:
                error = MemoryError()
                self._die(error)
                raise error
            # Nobody may want many entries.
            feed.run.room = ROOM_FIRST // 2
        feed.run.room = min(2 * feed.run.room, <Py_ssize_t>RUN_ROWS)
        feed.run_at = 0
        try:
            source.c_run(feed.run, self.forward)
        except BaseException as error:
            source._die(error)
            self._die(error)
            raise
        if feed.run.count == 0:
            return 0
        self._load(leader, &feed.run.rows[0])
        return 1

    cdef int q_next(self) noexcept nogil:
        # Safety: a merge that stands at an entry has a heap that is not empty.
        if not self.at or not self.forward or not self._q_move(self.heap):
            return 0
        self._sift_down(0)
        return self._show_top()

    cdef bint _q_move(self, Leader* leader) noexcept nogil:
        """Do what `_move_source` does, where the source needs no interpreter for it. Return whether
        the leader was moved.
        """
        cdef Feed* feed = leader.feed
        if leader.row != &feed.here:
            feed.run_at += 1
            if feed.run_at < feed.run.count:
                # Safety: compared right above.
                self._load(leader, &feed.run.rows[feed.run_at])
                return True
            # The source stands behind its run.
            self._load_here(leader, <Cursor>leader.source)
        else:
            if not (<Cursor>leader.source).q_next():
                return False
            self._load_here(leader, <Cursor>leader.source)
        # The first run is made by `_refill`.
        if feed.run != NULL:
            feed.run.room = RUN_ROWS if feed.run.room > RUN_ROWS // 2 else 2 * feed.run.room
            feed.run_at = 0
            if (<Cursor>leader.source).q_run(feed.run):
                self._load(leader, &feed.run.rows[0])
        return True

    cdef int c_run(self, Run* run, bint forward) except -1:
        cdef Leader* top = self.heap
        cdef Leader* other
        cdef Row* row
        cdef Feed* feed
        run.count = 0
        if not self.at or self.forward != forward:
            return 0
        # Safety: a merge that stands at an entry has a heap that is not empty, and only the leaders
        # below heap_size are looked at.
        if top.row == &top.feed.here:
            if self.heap_size == 1:
                return self._run_of_only(run)
            if not self._refill(top):
                return 0
        while run.count < run.room and top.row != &top.feed.here:
            feed = top.feed
            other = NULL
            if self.heap_size > 1:
                other = &self.heap[1]
                if self.heap_size > 2 and _precedes(&self.heap[2], other, forward):
                    other = &self.heap[2]
            # Up to the first entry of the others nothing else comes.
            while run.count < run.room and (other == NULL or _precedes(top, other, forward)):
                row = &run.rows[run.count]
                row[0] = top.row[0]
                run.count += 1
                feed.run_at += 1
                if feed.run_at == feed.run.count:
                    # What the source had given must stay until the next move.
                    self._load_here(top, <Cursor>top.source)
                    break
                # Safety: run_at is less than the count.
                self._load(top, &feed.run.rows[feed.run_at])
            self._sift_down(0)
        self._show_top()
        return run.count

    cdef int _run_of_only(self, Run* run) except -1:
        """Let the only source that is left fill the run itself."""
        cdef Cursor current = <Cursor>self.heap[0].source
        try:
            current.c_run(run, self.forward)
        except BaseException as error:
            current._die(error)
            self._die(error)
            raise
        self._load_here(&self.heap[0], current)
        self._show_top()
        return run.count

    cdef int _turn(self, Cursor current, bint forward) except -1:
        """Change direction: seek all other sources to the other side of the current entry, then
        move `current`.
        """
        cdef Cursor source
        cdef Py_ssize_t index
        cdef Py_ssize_t current_index = self.heap[0].index
        cdef const Row* row = self.heap[0].row
        cdef bytes key
        cdef bint equal
        self.forward = forward
        for index in range(len(self.sources)):
            if index == current_index:
                continue
            source = <Cursor>self.sources[index]
            try:
                # Safety: `current` does not move in this loop, so its key stays valid.
                source.c_seek(row.key, row.key_size, row.trailer)
                equal = source.at and compare_entries(
                    source.key_data, source.key_size, source.trailer,
                    row.key, row.key_size, row.trailer) == 0
                if forward:
                    # An equal entry of an earlier source comes before the current one.
                    if equal and index < current_index:
                        source.c_next()
                elif not source.at:
                    source.c_last()
                elif not equal or index > current_index:
                    source.c_prev()
            except BaseException as error:
                source._die(error)
                self._die(error)
                raise
        try:
            if row != &self.heap[0].feed.here:
                # It stands behind its run: bring it back. The key is copied, since the sources of a
                # merge let go of their pages one by one.
                key = PyBytes_FromStringAndSize(<const char*>row.key, row.key_size)
                current.c_seek(<const unsigned char*>PyBytes_AS_STRING(key), row.key_size,
                               row.trailer)
            if forward:
                current.c_next()
            else:
                current.c_prev()
        except BaseException as error:
            current._die(error)
            self._die(error)
            raise
        return self._build()

    cdef int _build(self) except -1:
        """Make the heap of the sources that stand at an entry and show the first."""
        cdef Cursor source
        cdef Py_ssize_t index
        cdef Py_ssize_t count = 0 if self.sources is None else len(self.sources)
        self.heap_size = 0
        for index in range(count):
            source = <Cursor>self.sources[index]
            if source.at:
                # Safety: heap_size <= index < count, and the heap has room for count leaders.
                self.heap[self.heap_size].source = <PyObject*>source
                self.heap[self.heap_size].index = index
                self.heap[self.heap_size].feed = &self.feeds[index]
                self._load_here(&self.heap[self.heap_size], source)
                self.heap_size += 1
        if self.heap_size == 0:
            self.at = 0
            return 0
        for index in range(self.heap_size // 2 - 1, -1, -1):
            self._sift_down(index)
        return self._show_top()

    cdef inline void _load(self, Leader* leader, const Row* row) noexcept nogil:
        leader.row = row
        leader.prefix = key_prefix(row.key, row.key_size)

    cdef inline void _load_here(self, Leader* leader, Cursor source) noexcept nogil:
        cdef Row* here = &leader.feed.here
        here.key = source.key_data
        here.key_size = source.key_size
        here.trailer = source.trailer
        here.value = source.value_data
        here.value_size = source.value_size
        self._load(leader, here)

    cdef void _sift_down(self, Py_ssize_t index) noexcept nogil:
        # Safety: children are compared with heap_size before use.
        cdef Leader moving = self.heap[index]
        cdef Py_ssize_t child
        while True:
            child = 2 * index + 1
            if child >= self.heap_size:
                break
            if child + 1 < self.heap_size and _precedes(
                    &self.heap[child + 1], &self.heap[child], self.forward):
                child += 1
            if not _precedes(&self.heap[child], &moving, self.forward):
                break
            self.heap[index] = self.heap[child]
            index = child
        self.heap[index] = moving

    cdef inline int _show_top(self) noexcept nogil:
        # Safety: `sources` keeps every source alive as long as the merge; only the merge moves
        # them.
        cdef const Row* row = self.heap[0].row
        self.key_data = row.key
        self.key_size = row.key_size
        self.trailer = row.trailer
        self.value_data = row.value
        self.value_size = row.value_size
        self.at = 1
        return 1
