"""Compiled reads and unsynced writes of a keyspace; `_core_py` is the specification."""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from holdfast.lsm._view_c cimport ReadView
from holdfast.memtable._memtable_c cimport Memtable
from holdfast.wal._buffer_c cimport RecordBuffer, WriteBatch
from holdfast.wal._payload cimport (
    OP_RANGE_DELETE, PAYLOAD_OPERATION, PayloadWalk, payload_next, payload_start,
)

from holdfast.base import check_key, check_value, pairs_of
from holdfast.base.bounds import key_range
from holdfast.recovery import apply_buffer

cdef enum:
    C_CLOSED = 1
    C_FORKED = 2
    C_POISONED = 4
    C_BUSY = 8
    C_READ_ONLY = 16
    C_CLOSING = 32
    KEY_MAX = 65536
    VALUE_MAX = 1 << 30
    # Upper bound of one operation's encoding beyond its key and value: count, kind, three varints.
    OPERATION_OVERHEAD = 32
    KIND_DELETE = 0
    KIND_PUT = 1
    KIND_MERGE = 3
    # A sign and the digits of 64 bits.
    AMOUNT_BYTES_MAX = 20
    # Batches of so many operations, and no more bytes, are applied as one step: within some
    # microseconds, in which no other thread runs.
    STEP_OPS_MAX = 16
    STEP_BYTES_MAX = 64 << 10

# No snapshot has this number: sequence numbers have 56 bits.
cdef uint64_t NOW = <uint64_t>-1

# No number of reads or bytes comes there.
cdef uint64_t C_NEVER = <uint64_t>-1
cdef uint64_t C_SCAN_SAMPLE = 61

NEVER = C_NEVER
SCAN_SAMPLE = C_SCAN_SAMPLE
AMOUNT_MIN, AMOUNT_MAX = INT64_MIN, INT64_MAX
CLOSED = C_CLOSED
FORKED = C_FORKED
POISONED = C_POISONED
BUSY = C_BUSY
READ_ONLY = C_READ_ONLY
CLOSING = C_CLOSING


@cython.final
cdef class CommitState:
    """See `_core_py.CommitState`."""
    def __init__(self, RecordBuffer buffer not None, Py_ssize_t buffer_bytes_max,
                 uint64_t last_seq):
        self.buffer = buffer
        self.buffer_bytes_max = buffer_bytes_max
        self.sample_at = C_NEVER
        self.pause_at = C_NEVER
        self.next_seq = last_seq + 1
        self.visible_seq = last_seq

    def begin_group(self):
        """Keep writes without a group out until BUSY is cleared. Requires: the leadership."""
        # Such a write is one step, so none is half done now.
        self.flags |= C_BUSY

    def commit_at_once(self, WriteBatch batch not None, uint64_t since, tuple keyspaces,
                       dict memtables):
        """Commit a batch without a sync as a group of one, if nobody else commits, nothing was
        committed behind `since`, and there is nothing to be done before. Return whether that was
        possible.

        Does what `WritePath.commit` does then: a few operations as one step, more of them with the
        leadership, step by step.
        """
        cdef RecordBuffer buffer = self.buffer
        cdef Py_ssize_t size_before
        cdef uint64_t count
        cdef bint leads = False
        path = self.path
        if path is None or not self.may_commit_at_once(batch, since):
            return False
        if (batch.op_count <= STEP_OPS_MAX and batch.used <= STEP_BYTES_MAX
                and self.commit_step(batch, keyspaces, memtables)):
            return True
        thread = path.thread_id()
        # Asked again, as that may have let others run; what comes before the mutex does not.
        if not self.may_commit_at_once(batch, since):
            return False
        mutex = path._mutex
        waiter = path.alone
        try:
            mutex.acquire()
            try:
                for keyspace in keyspaces:
                    if keyspace not in memtables:
                        return False
                # A new list may begin a collection, whose finalizers may write, or let others.
                queue, group = [waiter], [waiter]
                # So may those have done for whom this thread waited with the mutex.
                if (self.flags or path._leader is not None or since + 1 != self.next_seq
                        or buffer.size + batch.used + OPERATION_OVERHEAD
                        > self.buffer_bytes_max // 2):
                    return False
                self.flags |= C_BUSY
                waiter.thread = thread
                path._leader, path._queue, path._group = waiter, queue, group
                path._settled = False
                leads = True
            finally:
                mutex.release()
            size_before = buffer.size
            count = batch.op_count
            buffer.c_append_batch(batch)
            try:
                user_bytes = apply_buffer(buffer, size_before, self.next_seq, memtables)
            except BaseException:
                user_bytes = path.apply_again(buffer, size_before, self.next_seq)
            self.next_seq += count
            self.visible_seq = self.next_seq - 1
            self.write_count += count
            self.user_bytes += <uint64_t>user_bytes
            path._settled = True
            mutex.acquire()
            try:
                if len(<list>path._queue) == 1 and not path._waking:
                    path._leader, path._queue, path._group = None, [], []
                    path._settled = False
                    self.flags &= ~C_BUSY
                else:
                    path._hand_over(waiter)
                leads = False
            finally:
                mutex.release()
        except BaseException:
            if leads:
                path._withdraw(waiter)
            raise
        return True

    cdef bint may_commit_at_once(self, WriteBatch batch, uint64_t since) noexcept:
        """Return whether nobody commits, nothing was committed behind `since`, and there is nothing
        to be done before.
        """
        return not (self.flags
                    or self.user_bytes >= self.room_at or self.user_bytes >= self.pause_at
                    or since + 1 != self.next_seq
                    or self.buffer.size + batch.used + OPERATION_OVERHEAD
                    > self.buffer_bytes_max // 2)

    cdef bint commit_step(self, WriteBatch batch, tuple keyspaces, dict memtables) except -1:
        """Log the few operations of a batch into the buffer and apply them at once, as an unsynced
        put does: as one step, in which nobody else runs. Return whether that was possible: all are
        of one keyspace, whose memtable has memory for them. Requires: `may_commit_at_once`, right
        before.
        """
        cdef PayloadWalk walk
        cdef Memtable table
        cdef uint32_t keyspace
        cdef uint64_t seq = self.next_seq
        cdef Py_ssize_t user_bytes = 0
        for needed in keyspaces:
            if needed not in memtables:
                return False
        payload_start(&walk, batch.operations_data(), batch.used)
        walk.left = batch.op_count
        if payload_next(&walk) != PAYLOAD_OPERATION:
            return False
        keyspace = walk.keyspace
        found = memtables.get(keyspace)
        if found is None:
            return False
        table = <Memtable?>found
        while True:
            if walk.kind == OP_RANGE_DELETE or walk.keyspace != keyspace:
                return False
            user_bytes += walk.key_size + walk.value_size
            if payload_next(&walk) != PAYLOAD_OPERATION:
                break
        if table.frozen or not table.c_make_room(<Py_ssize_t>batch.op_count, user_bytes):
            return False
        self.buffer.c_append_batch(batch)
        # From here on nothing can fail: the log must not hold an operation that is never applied.
        payload_start(&walk, batch.operations_data(), batch.used)
        walk.left = batch.op_count
        while payload_next(&walk) == PAYLOAD_OPERATION:
            table.c_put(seq, walk.kind, walk.key, walk.key_size, walk.value, walk.value_size)
            seq += 1
        self.next_seq = seq
        self.visible_seq = seq - 1
        self.user_bytes += <uint64_t>user_bytes
        self.write_count += batch.op_count
        return True


cdef bytes encoded_amount(bytes head, int64_t amount):
    """Return `amount` as decimal text behind `head`."""
    cdef unsigned char[AMOUNT_BYTES_MAX] text
    cdef Py_ssize_t at = AMOUNT_BYTES_MAX
    cdef Py_ssize_t head_size = PyBytes_GET_SIZE(head)
    # The smallest amount has no positive counterpart among signed numbers.
    cdef uint64_t rest = <uint64_t>0 - <uint64_t>amount if amount < 0 else <uint64_t>amount
    cdef bytes encoded
    while True:
        at -= 1
        text[at] = <unsigned char>(48 + rest % 10)
        rest //= 10
        if not rest:
            break
    if amount < 0:
        at -= 1
        text[at] = 45
    encoded = PyBytes_FromStringAndSize(NULL, head_size + AMOUNT_BYTES_MAX - at)
    memcpy(PyBytes_AS_STRING(encoded), PyBytes_AS_STRING(head), head_size)
    memcpy(PyBytes_AS_STRING(encoded) + head_size, text + at, AMOUNT_BYTES_MAX - at)
    return encoded


cdef class KeyspaceCore:
    """See `_core_py.KeyspaceCore`."""
    cdef public CommitState state
    cdef public ReadView view
    cdef public uint32_t id
    cdef public bint dropped
    cdef public Py_ssize_t memtable_bytes
    cdef public bytes add_head
    cdef public object _host

    def __init__(self, CommitState state not None, uint32_t keyspace_id, ReadView view not None,
                 Py_ssize_t memtable_bytes):
        self.state = state
        self.id = keyspace_id
        self.view = view
        self.memtable_bytes = memtable_bytes

    cdef inline object _get(self, key, uint64_t snapshot):
        """Read at `snapshot`, or at the newest visible state when it is NOW."""
        cdef bytes plain = key if type(key) is bytes else check_key(key)
        cdef ReadView view
        if PyBytes_GET_SIZE(plain) > KEY_MAX:
            check_key(plain)
        if self.state.flags & (C_CLOSED | C_FORKED) or self.dropped:
            self._refuse()
        # The view and the sequence number are read in one step: no Python code runs between them,
        # and holding the view keeps its tables alive while a page read lets other threads run.
        view = self.view
        if snapshot == NOW:
            snapshot = self.state.visible_seq
        self.state.read_count += 1
        if self.state.read_count >= self.state.sample_at and self.state.sampler is not None:
            return self._sampled(view, plain, snapshot)
        return view.c_get(<const unsigned char*>PyBytes_AS_STRING(plain),
                          PyBytes_GET_SIZE(plain), snapshot, NULL)

    cdef object _sampled(self, ReadView view, bytes plain, uint64_t snapshot):
        """Do what `_get` does at its end, and measure it."""
        cdef object sampler = self.state.sampler
        began = sampler.begin()
        value = view.c_get(<const unsigned char*>PyBytes_AS_STRING(plain),
                           PyBytes_GET_SIZE(plain), snapshot, NULL)
        sampler.end(began)
        return value

    def get(self, key, default=None):
        """Return the value of `key`, or `default` when it is absent."""
        value = self._get(key, NOW)
        return default if value is None else value

    def get_at(self, key, uint64_t snapshot):
        """Return the value of `key` as of `snapshot`, or None when it is absent."""
        return self._get(key, snapshot)

    def get_cached(self, key, otherwise, snapshot=None):
        """Return the value of `key`, None when it is absent, or `otherwise` when that takes a page
        from a file. With `snapshot`, as of that.
        """
        cdef bytes plain = key if type(key) is bytes else check_key(key)
        cdef bint missed = False
        cdef ReadView view
        cdef uint64_t seq
        if PyBytes_GET_SIZE(plain) > KEY_MAX:
            check_key(plain)
        if self.state.flags & (C_CLOSED | C_FORKED) or self.dropped:
            self._refuse()
        view = self.view
        seq = self.state.visible_seq if snapshot is None else snapshot
        found = view.c_get(<const unsigned char*>PyBytes_AS_STRING(plain),
                           PyBytes_GET_SIZE(plain), seq, &missed)
        if missed:
            return otherwise
        self.state.read_count += 1
        return found

    def __getitem__(self, key):
        value = self._get(key, NOW)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key):
        return self._get(key, NOW) is not None

    def get_many(self, keys):
        """Return the values of `keys` in their order, None where absent."""
        cdef list plain = []
        cdef ReadView view
        for key in keys:
            if type(key) is bytes and PyBytes_GET_SIZE(key) <= KEY_MAX:
                plain.append(key)
            else:
                plain.append(check_key(key))
        if self.state.flags & (C_CLOSED | C_FORKED) or self.dropped:
            self._refuse()
        view = self.view
        self.state.read_count += <uint64_t>len(plain)
        return view.c_get_many(plain, self.state.visible_seq)

    def read_point(self):
        """Return (view, newest visible sequence number), read in one step."""
        if self.state.flags & (C_CLOSED | C_FORKED) or self.dropped:
            self._refuse()
        return self.view, self.state.visible_seq

    def _cursor(self, start, stop, prefix, reverse, limit, what):
        """Iterate over what is visible now of the keys that the bounds take in."""
        lower, upper = start, stop
        if (prefix is not None
                or not (start is None
                        or type(start) is bytes and PyBytes_GET_SIZE(start) <= KEY_MAX)
                or not (stop is None
                        or type(stop) is bytes and PyBytes_GET_SIZE(stop) <= KEY_MAX)):
            lower, upper = key_range(start, stop, prefix)
        if self.state.flags & (C_CLOSED | C_FORKED) or self.dropped:
            self._refuse()
        self.state.scan_count += 1
        if self.state.scan_count % C_SCAN_SAMPLE == 0 and self.state.sampler is not None:
            self.state.sampler.scanned()
            # Whatever that did, a handle may have been closed meanwhile.
            if self.state.flags & (C_CLOSED | C_FORKED) or self.dropped:
                self._refuse()
        return self.view.cursor(self.state.visible_seq, lower, upper, reverse, limit, what)

    cdef inline bint _may_skip_group(self, durability) except -1:
        return durability == "none" or (durability == "interval" and self.state.interval_armed)

    cdef bint _write_fast(self, int kind, bytes key, bytes value) except -1:
        """Log into the buffer and apply at once. Return whether that was possible."""
        cdef CommitState state = self.state
        cdef Py_ssize_t key_size = PyBytes_GET_SIZE(key)
        cdef Py_ssize_t value_size = PyBytes_GET_SIZE(value)
        cdef Py_ssize_t size_before
        if (state.flags or self.dropped or state.user_bytes >= state.pause_at
                or key_size > KEY_MAX or value_size > VALUE_MAX):
            return False
        if state.buffer.size + key_size + value_size + OPERATION_OVERHEAD > state.buffer_bytes_max:
            return False
        if self.view.active.bytes_used >= self.memtable_bytes:
            # The group that this goes through instead looks for it.
            state.room_at = 0
            return False
        size_before = state.buffer.size
        # A deletion has no value, which is something else than an empty one.
        state.buffer.c_append_op(
            kind, self.id, <const unsigned char*>PyBytes_AS_STRING(key), key_size,
            NULL if kind == KIND_DELETE else <const unsigned char*>PyBytes_AS_STRING(value),
            value_size)
        try:
            self.view.active.c_put(
                state.next_seq, kind, <const unsigned char*>PyBytes_AS_STRING(key), key_size,
                <const unsigned char*>PyBytes_AS_STRING(value), value_size)
        except BaseException:
            # The log must not hold an operation that was never applied.
            state.buffer.size = size_before
            state.buffer.op_count -= 1
            raise
        state.visible_seq = state.next_seq
        state.next_seq += 1
        state.user_bytes += <uint64_t>(key_size + value_size)
        state.write_count += 1
        return True

    cdef WriteBatch _batch(self, int kind, bytes key, bytes value):
        cdef WriteBatch batch = WriteBatch.__new__(WriteBatch)
        if PyBytes_GET_SIZE(key) > KEY_MAX:
            check_key(key)
        if PyBytes_GET_SIZE(value) > VALUE_MAX:
            check_value(value)
        # A deletion has no value, which is something else than an empty one.
        batch.c_add(
            kind, self.id, <const unsigned char*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key),
            NULL if kind == KIND_DELETE else <const unsigned char*>PyBytes_AS_STRING(value),
            PyBytes_GET_SIZE(value))
        return batch

    cdef bint _commit_alone(self, int kind, bytes key, bytes value) except -1:
        """Commit durably as a group of one, if nobody else commits and there is nothing to be done
        before. Return whether that was possible.

        Does what `WritePath.commit` does then, step by step. It is a step of its own because the
        wait for the disk leaves the processor's caches cold: what runs before and after it costs
        several times what it costs in a loop.
        """
        cdef CommitState state = self.state
        cdef RecordBuffer buffer = state.buffer
        cdef Py_ssize_t more = PyBytes_GET_SIZE(key) + PyBytes_GET_SIZE(value) + OPERATION_OVERHEAD
        cdef bint leads = False
        path = state.path
        if (path is None or state.flags or self.dropped
                or state.user_bytes >= min(state.room_at, state.pause_at)
                or PyBytes_GET_SIZE(key) > KEY_MAX
                or buffer.size + more > state.buffer_bytes_max // 2):
            return False
        mutex = path._mutex
        waiter = path.alone
        clock = path.clock
        thread = path.thread_id()
        began = clock()
        try:
            mutex.acquire()
            try:
                # While this thread waited for the mutex others may have run.
                if state.flags or self.dropped or path._leader is not None:
                    return False
                waiter.thread = thread
                path._leader, path._queue, path._group = waiter, [waiter], [waiter]
                path._settled = False
                state.flags |= C_BUSY
                leads = True
            finally:
                mutex.release()
            synced = self._write_alone(path, kind, key, value, clock)
            mutex.acquire()
            try:
                if len(<list>path._queue) == 1 and not path._waking:
                    path._leader, path._queue, path._group = None, [], []
                    path._settled = False
                    state.flags &= ~C_BUSY
                else:
                    path._hand_over(waiter)
                leads = False
            finally:
                mutex.release()
        except BaseException:
            if leads:
                path._withdraw(waiter)
            raise
        path.note_alone(began, synced)
        return True

    cdef object _write_alone(self, path, int kind, bytes key, bytes value, clock):
        """Log, sync, apply and publish one operation; see `WritePath._write`. Return when it was
        synced. Requires: the leadership.
        """
        cdef CommitState state = self.state
        cdef RecordBuffer buffer = state.buffer
        cdef Py_ssize_t size_before = buffer.size
        cdef uint64_t count_before = buffer.op_count
        cdef uint64_t seq = state.next_seq
        cdef const unsigned char* key_data = <const unsigned char*>PyBytes_AS_STRING(key)
        cdef const unsigned char* value_data = <const unsigned char*>PyBytes_AS_STRING(value)
        interruption = None
        synced = None
        try:
            # A deletion has no value, which is something else than an empty one.
            buffer.c_append_op(
                kind, self.id, key_data, PyBytes_GET_SIZE(key),
                NULL if kind == KIND_DELETE else value_data, PyBytes_GET_SIZE(value))
            path._log.append(buffer, seq - count_before, durable=True)
            synced = clock()
        except BaseException as error:
            interruption = path.after_failure(
                error, (size_before, count_before), seq - count_before, True)
        try:
            self.view.active.c_put(
                seq, kind, key_data, PyBytes_GET_SIZE(key), value_data, PyBytes_GET_SIZE(value))
        except BaseException:
            path.apply_again(buffer, size_before, seq)
        state.next_seq = seq + 1
        state.visible_seq = seq
        state.write_count += 1
        state.user_bytes += <uint64_t>(PyBytes_GET_SIZE(key) + PyBytes_GET_SIZE(value))
        path._settled = True
        buffer.clear()
        if interruption is not None:
            raise interruption
        return synced

    cdef int _write_slow(self, int kind, bytes key, bytes value, durability) except -1:
        """Write through a commit group."""
        if (durability is None or durability == "commit") and self._commit_alone(kind, key, value):
            return 0
        self._commit(self._batch(kind, key, value), durability)
        return 0

    def begin_put(self, key, value, durability):
        """Set `key` to `value` and return None if nothing has to wait for that; otherwise do
        nothing, and return the batch that is to be committed.
        """
        cdef bytes plain_key = key if type(key) is bytes else check_key(key)
        cdef bytes plain_value = value if type(value) is bytes else check_value(value)
        if self._may_skip_group(durability) and self._write_fast(KIND_PUT, plain_key, plain_value):
            return None
        return self._batch(KIND_PUT, plain_key, plain_value)

    def begin_delete(self, key, durability):
        """Remove `key` and return None, or return the batch to commit; see `begin_put`."""
        cdef bytes plain = key if type(key) is bytes else check_key(key)
        if self._may_skip_group(durability) and self._write_fast(KIND_DELETE, plain, b""):
            return None
        return self._batch(KIND_DELETE, plain, b"")

    def begin_merge(self, key, value, durability):
        """Write a MERGE entry and return None, or return the batch to commit; see `begin_put`."""
        cdef bytes plain_key = key if type(key) is bytes else check_key(key)
        cdef bytes plain_value = value if type(value) is bytes else check_value(value)
        if (self._may_skip_group(durability)
                and self._write_fast(KIND_MERGE, plain_key, plain_value)):
            return None
        return self._batch(KIND_MERGE, plain_key, plain_value)

    def write_merge(self, key, value, durability):
        """Write a MERGE entry with this value."""
        cdef bytes plain_key = key if type(key) is bytes else check_key(key)
        cdef bytes plain_value = value if type(value) is bytes else check_value(value)
        if (self._may_skip_group(durability)
                and self._write_fast(KIND_MERGE, plain_key, plain_value)):
            return
        self._write_slow(KIND_MERGE, plain_key, plain_value, durability)

    def add(self, key, amount=1, *, durability=None):
        """Add `amount` to the number that `key` has, 0 when it is absent; see `merge`."""
        cdef int overflow = 1
        cdef int64_t number = 0
        if self.add_head is not None and type(amount) is int:
            number = PyLong_AsLongLongAndOverflow(amount, &overflow)
        self.write_merge(
            key, self._encode_amount(amount) if overflow else encoded_amount(self.add_head, number),
            durability)

    def put(self, key, value, *, durability=None):
        """Set `key` to `value`."""
        cdef bytes plain_key = key if type(key) is bytes else check_key(key)
        cdef bytes plain_value = value if type(value) is bytes else check_value(value)
        if self._may_skip_group(durability) and self._write_fast(KIND_PUT, plain_key, plain_value):
            return
        self._write_slow(KIND_PUT, plain_key, plain_value, durability)

    def put_many(self, pairs, *, durability=None):
        """Write all `pairs` as one atomic transaction; of equal keys the last wins."""
        cdef WriteBatch batch = WriteBatch.__new__(WriteBatch)
        batch.c_put_many(self.id, pairs if type(pairs) is list else pairs_of(pairs))
        if durability is None or not batch.op_count or not self._host.commit_at_once(
                batch, durability, (self.id,), self.state.visible_seq):
            self._commit(batch, durability)

    def __setitem__(self, key, value):
        self._write_slow(
            KIND_PUT, key if type(key) is bytes else check_key(key),
            value if type(value) is bytes else check_value(value), None)

    def delete(self, key, *, durability=None):
        """Remove `key`; nothing happens when it is absent."""
        cdef bytes plain_key = key if type(key) is bytes else check_key(key)
        if self._may_skip_group(durability) and self._write_fast(KIND_DELETE, plain_key, b""):
            return
        self._write_slow(KIND_DELETE, plain_key, b"", durability)

    def __delitem__(self, key):
        if self._take(check_key(key)) is None:
            raise KeyError(key)
