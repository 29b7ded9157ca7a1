"""Compiled reads and writes within a transaction; `_workspace_py` is the specification."""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t

from holdfast.memtable._memtable_c cimport Memtable
from holdfast.wal._buffer_c cimport WriteBatch
from holdfast.wal._payload cimport PAYLOAD_OPERATION, PayloadWalk, payload_next, payload_start

from holdfast.base import check_key, check_value, pairs_of
from holdfast.env import this_thread

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        pass
    PyThreadState* PyThreadState_Get()
    # Never given twice, as a thread's own number is.
    uint64_t PyThreadState_GetID(PyThreadState* state)

cdef enum:
    C_ENDED = 1
    C_READ_ONLY = 2
    C_READ_BYTES = 96
    KEY_MAX = 65536
    VALUE_MAX = 1 << 30
    KIND_DELETE = 0
    KIND_PUT = 1
    KIND_MERGE = 3
    # A row counts as its bytes and these; so many are written in some milliseconds at most.
    TURN_BYTES = 1 << 20
    TURN_ROW_BYTES = 256

cdef uint64_t SEQS = (<uint64_t>1 << 56) - 1
cdef uint64_t FIRST = <uint64_t>1 << 55

OWN_FIRST = FIRST
ENDED = C_ENDED
READ_ONLY = C_READ_ONLY
READ_BYTES = C_READ_BYTES


@cython.final
cdef class WorkState:
    """See `_workspace_py.WorkState`."""

    def __init__(self, uint64_t snapshot, WriteBatch batch not None, int64_t reads_left):
        self.begin(snapshot, batch, reads_left)

    cdef void begin(self, uint64_t snapshot, WriteBatch batch, int64_t reads_left):
        self.snapshot = snapshot
        self.batch = batch
        self.reads_left = reads_left
        self.next_own = FIRST
        self.home = self.mover = PyThreadState_GetID(PyThreadState_Get())

    def enter(self):
        """Begin a use of the transaction.

        Raises: RuntimeError when another thread or task is in the middle of one.
        """
        self.c_enter()

    def leave(self):
        """End a use of the transaction."""
        self.busy = False

    cdef int c_enter(self) except -1:
        cdef uint64_t thread = PyThreadState_GetID(PyThreadState_Get())
        if thread != self.home and thread != self.mover:
            # Before the turn is taken: others may run here, and memory may be wanting.
            self.meet(thread)
        if self.busy:
            raise RuntimeError("the transaction is in use: one thread or task at a time")
        self.busy = True
        return 0

    cdef int meet(self, uint64_t thread) except -1:
        """Note that a thread has used the transaction."""
        life = this_thread()
        made = set()
        if self.movers is None:
            self.movers = made
        self.movers.add(life)
        self.mover = thread
        return 0


cdef class WorkspaceCore:
    """See `_workspace_py.WorkspaceCore`."""

    def __init__(self, WorkState state not None, uint32_t keyspace_id, read_at, bint tracks):
        self.begin(state, keyspace_id, read_at, tracks)

    cdef int begin(self, WorkState state, uint32_t keyspace_id, read_at, bint tracks) except -1:
        self.state = state
        self.id = keyspace_id
        self.read_at = read_at
        self.read_keys = set() if tracks else None
        self.tables = []
        self.table_depth = -1
        self.ranges = []
        self.scans = []
        return 0

    def forget(self):
        """Let go of everything that was read and written."""
        self.c_forget()

    cdef int c_forget(self) except -1:
        self.tables.clear()
        self.merged = None
        self.ranges.clear()
        if self.read_keys is not None:
            self.read_keys.clear()
        return 0

    cdef object _find(self, key):
        cdef bytes plain = key if type(key) is bytes else check_key(key)
        cdef WorkState state = self.state
        if PyBytes_GET_SIZE(plain) > KEY_MAX:
            check_key(plain)
        if state.flags & C_ENDED:
            self._refuse()
        state.c_enter()
        try:
            return self._read(state, plain)
        finally:
            state.busy = False

    cdef object _read(self, WorkState state, bytes key):
        cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(key)
        cdef const unsigned char* value = NULL
        cdef Py_ssize_t size = PyBytes_GET_SIZE(key), value_size = 0, at
        cdef uint64_t trailer = 0, cover = 0, found
        cdef Memtable table
        for at in range(len(self.tables) - 1, -1, -1):
            table = <Memtable?>self.tables[at]
            if table.range_tombstones.fragment_count:
                found = table.range_tombstones.c_cover(data, size, SEQS)
                cover = found if found > cover else cover
            if table.c_get(data, size, SEQS, &trailer, &value, &value_size):
                if (trailer & 0xFF) != KIND_PUT or (trailer >> 8) < cover:
                    if (trailer & 0xFF) == KIND_MERGE and (trailer >> 8) >= cover:
                        return self._merge_own(key)
                    return None
                return value[:value_size]
            if cover:
                return None
        return self._read_at_snapshot(state, key)

    cdef object _read_at_snapshot(self, WorkState state, bytes key):
        if self.read_keys is not None and key not in self.read_keys:
            state.reads_left -= PyBytes_GET_SIZE(key) + C_READ_BYTES
            if state.reads_left < 0:
                self._widen()
            self.read_keys.add(key)
        self.has_asked = True
        if state.guard is not None:
            state.guard()
        found_value = self.read_at(key, state.snapshot)
        if state.flags & C_ENDED:
            # It was ended meanwhile, and what it saw may not have been kept.
            self._refuse()
        return found_value

    def read_snapshot(self, bytes key not None):
        """Return the value of `key` as of the snapshot, and remember that it was read. Requires:
        the turn.
        """
        return self._read_at_snapshot(self.state, key)

    def get(self, key, default=None):
        """Return the value of `key`, or `default` when it is absent."""
        value = self._find(key)
        return default if value is None else value

    def __getitem__(self, key):
        value = self._find(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key):
        return self._find(key) is not None

    def get_many(self, keys):
        """Return the values of `keys` in their order, None where absent."""
        cdef list values = []
        for key in keys:
            values.append(self._find(key))
        return values

    cdef Memtable _table(self, WorkState state):
        """Return the memtable for writes at the present depth."""
        if self.table_depth != state.depth:
            self.tables.append(Memtable())
            self.table_depth = state.depth
        return <Memtable?>self.tables[len(self.tables) - 1]

    cdef int _write(self, int kind, bytes key, bytes value) except -1:
        cdef WorkState state = self.state
        cdef const unsigned char* key_data = <const unsigned char*>PyBytes_AS_STRING(key)
        cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(value)
        cdef Py_ssize_t used
        cdef Memtable table
        if PyBytes_GET_SIZE(key) > KEY_MAX:
            check_key(key)
        if PyBytes_GET_SIZE(value) > VALUE_MAX:
            check_value(value)
        if state.flags:
            self._refuse()
        state.c_enter()
        try:
            # Another thread may have ended it before the turn was taken.
            if state.flags:
                self._refuse()
            table = self._table(state)
            used = state.batch.used
            # A deletion has no value, which is something else than an empty one.
            state.batch.c_add(kind, self.id, key_data, PyBytes_GET_SIZE(key),
                              NULL if kind == KIND_DELETE else data, PyBytes_GET_SIZE(value))
            try:
                table.c_put(state.next_own, kind, key_data, PyBytes_GET_SIZE(key), data,
                            PyBytes_GET_SIZE(value))
            except BaseException:
                # What is committed must not be more than what reads saw.
                state.batch.used = used
                state.batch.op_count -= 1
                raise
            state.next_own += 1
        finally:
            state.busy = False
        return 0

    def put(self, key, value):
        """Set `key` to `value`."""
        self._write(KIND_PUT, key if type(key) is bytes else check_key(key),
                    value if type(value) is bytes else check_value(value))

    def put_many(self, pairs):
        """Write all `pairs`; of equal keys the last wins. Of pairs that are refused none is
        written.
        """
        cdef WorkState state = self.state
        cdef WriteBatch given = WriteBatch(state.batch.bytes_max)
        cdef Memtable table
        cdef bint done
        # What they come from may use the transaction, so that ends first.
        given.c_put_many(self.id, pairs if type(pairs) is list else pairs_of(pairs))
        if state.flags:
            self._refuse()
        if not given.op_count:
            return
        state.c_enter()
        try:
            # Another thread may have ended it before the turn was taken.
            if state.flags:
                self._refuse()
            table = self._table(state)
            # The encoded size is more than that of keys and values. What gives no turn within it
            # does not fail there, once it has memory.
            done = (given.used + <Py_ssize_t>given.op_count * TURN_ROW_BYTES < TURN_BYTES
                    and table.c_make_room(<Py_ssize_t>given.op_count, given.used))
            if done:
                self._write_given(state, table, given)
        finally:
            state.busy = False
        if not done:
            self._write_or_undo(given)

    def _write_all(self, WriteBatch given not None):
        """Write the puts of this keyspace that `given` has. Requires: a savepoint around it, which
        is rolled back when this raises.
        """
        cdef WorkState state = self.state
        if state.flags:
            self._refuse()
        state.c_enter()
        try:
            if state.flags:
                self._refuse()
            self._write_given(state, self._table(state), given)
        finally:
            state.busy = False

    cdef int _write_given(self, WorkState state, Memtable table, WriteBatch given) except -1:
        cdef WriteBatch batch = state.batch
        cdef PayloadWalk walk
        cdef Py_ssize_t left = TURN_BYTES
        batch.c_add_batch(given)
        if state.flags:
            # To copy much lets others run.
            self._refuse()
        payload_start(&walk, given.operations_data(), given.used)
        walk.left = given.op_count
        while walk.left and payload_next(&walk) == PAYLOAD_OPERATION:
            if left < 0:
                # Others, and signal handlers, get their turn, who may end the transaction.
                left = TURN_BYTES
                PyErr_CheckSignals()
                with nogil:
                    pass
                if state.flags:
                    self._refuse()
            table.c_put(state.next_own, walk.kind, walk.key, walk.key_size, walk.value,
                        walk.value_size)
            state.next_own += 1
            left -= walk.key_size + walk.value_size + TURN_ROW_BYTES
        return 0

    def __setitem__(self, key, value):
        self._write(KIND_PUT, key if type(key) is bytes else check_key(key),
                    value if type(value) is bytes else check_value(value))

    def write_merge(self, key, value):
        """Write a MERGE entry with this value."""
        self._write(KIND_MERGE, key if type(key) is bytes else check_key(key),
                    value if type(value) is bytes else check_value(value))

    def delete(self, key):
        """Remove `key`; nothing happens when it is absent."""
        self._write(KIND_DELETE, key if type(key) is bytes else check_key(key), b"")

    def __delitem__(self, key):
        cdef bytes plain = check_key(key)
        if self._find(plain) is None:
            raise KeyError(key)
        self._write(KIND_DELETE, plain, b"")

    def delete_span(self, bytes start not None, bytes stop not None):
        """Remove every key with `start` <= key < `stop`."""
        cdef WorkState state = self.state
        cdef Memtable table
        if state.flags:
            self._refuse()
        state.c_enter()
        try:
            # Another thread may have ended it before the turn was taken.
            if state.flags:
                self._refuse()
            table = self._table(state)
            mark = state.batch.mark()
            try:
                state.batch.delete_range(self.id, start, stop)
                table.delete_range(state.next_own, start, stop)
            except BaseException:
                state.batch.rollback(mark)
                raise
            state.next_own += 1
        finally:
            state.busy = False
