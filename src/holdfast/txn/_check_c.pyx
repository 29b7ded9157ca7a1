"""Compiled check of a commit; `_check_py` is the specification."""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t

from holdfast.wal._buffer_c cimport WriteBatch
from holdfast.wal._payload cimport (
    OP_RANGE_DELETE, PAYLOAD_OPERATION, PayloadWalk, payload_next, payload_start,
)

from bisect import bisect_left, insort

from holdfast.base import mark
from holdfast.txn.conflict import AHEAD_MIN, key_conflict, range_conflict


@cython.final
cdef class Dependence:
    """See `_check_py.Dependence`."""

    def __init__(self, source, list keys not None, list ranges not None):
        self.source = source
        self.keys = keys
        self.ranges = ranges


@cython.final
cdef class Written:
    """What the accepted members of a group write in one keyspace."""

    def __cinit__(self):
        self.keys = {}
        self.ranges = []

    cdef uint64_t key_change(self, bytes key) except? 0:
        cdef uint64_t newest = 0
        found = self.keys.get(key)
        if found is not None:
            newest = found
        for start, stop, seq in self.ranges:
            if start <= key < stop and seq > newest:
                newest = seq
        return newest

    cdef object range_change(self, lower, upper):
        cdef Py_ssize_t at = 0
        for start, stop, seq in self.ranges:
            if (upper is None or start < upper) and (lower is None or lower < stop):
                return None, seq
        if self.order is None:
            self.order = sorted(self.keys)
        if lower is not None:
            at = bisect_left(self.order, lower)
        if at < len(self.order) and (upper is None or self.order[at] < upper):
            return self.order[at], self.keys[self.order[at]]
        return None


@cython.final
cdef class GroupWrites:
    """See `_check_py.GroupWrites`."""

    def __init__(self, uint64_t seq_first):
        self.next_seq = seq_first
        self.unread = []
        self.written = {}

    def add(self, WriteBatch batch not None):
        """Take in a batch whose operations come next. Raises: MemoryError with nothing changed."""
        self.unread.append((batch, self.next_seq))
        self.next_seq += batch.op_count

    cdef Written of(self, uint32_t keyspace):
        """Return what is written in a keyspace, or None when nothing is."""
        cdef WriteBatch batch
        cdef PayloadWalk walk
        cdef Written into
        cdef uint64_t seq
        while self.unread:
            batch, seq = self.unread[0]
            payload_start(&walk, batch.operations_data(), batch.used)
            walk.left = batch.op_count
            # Adding the same again changes nothing, so an error in the middle loses nothing.
            while payload_next(&walk) == PAYLOAD_OPERATION:
                into = self.written.get(walk.keyspace)
                if into is None:
                    into = Written.__new__(Written)
                    self.written[walk.keyspace] = into
                key = PyBytes_FromStringAndSize(<const char*>walk.key, walk.key_size)
                if walk.kind == OP_RANGE_DELETE:
                    stop = PyBytes_FromStringAndSize(<const char*>walk.value, walk.value_size)
                    into.ranges.append((key, stop, seq))
                else:
                    if into.order is not None and key not in into.keys:
                        insort(into.order, key)
                    into.keys[key] = seq
                seq += 1
            del self.unread[0]
        return self.written.get(keyspace)

    def key_change(self, uint32_t keyspace, bytes key not None):
        """Return the highest sequence number of what concerns `key`, or 0."""
        cdef Written written = self.of(keyspace)
        return 0 if written is None else written.key_change(key)

    def last_key(self, uint32_t keyspace):
        """Return the highest key that is written in `keyspace` by itself, removed ones too, or
        None.
        """
        cdef Written written = self.of(keyspace)
        return None if written is None else max(written.keys, default=None)

    def range_change(self, uint32_t keyspace, lower, upper):
        """Return (key or None, sequence number) of something in [lower, upper), or None."""
        cdef Written written = self.of(keyspace)
        return None if written is None else written.range_change(lower, upper)


@cython.final
cdef class Check:
    """See `_check_py.Check`."""

    def __init__(self, uint64_t since, depends):
        self.since = since
        self.depends = depends

    cdef list found(self):
        if type(self.depends) is not list:
            self.depends = self.depends()
        return <list?>self.depends

    @property
    def dependences(self):
        """What the transaction depends on."""
        return self.found()

    @property
    def is_large(self):
        """Whether it is worth while to look ahead."""
        cdef Dependence each
        cdef Py_ssize_t count = 0
        for each in self.found():
            count += len(each.keys) + len(each.ranges)
        return count > <Py_ssize_t>AHEAD_MIN

    def look_ahead(self, uint64_t visible, changes):
        """Check what was visible at `visible` already, before the commit waits for its group.

        Requires: `visible` was read before `changes` is asked. Raises: ConflictError.
        """
        if visible != self.since and self.is_large:
            mark("txn.looked_ahead")
            self.require_unchanged(changes, None)
            self.since = visible

    def require_unchanged(self, changes, GroupWrites group):
        """Return when nothing changed. Raises: ConflictError.

        `group` has what comes before in the same commit group. When it is given, everything else
        is in the trees.
        """
        cdef uint64_t since = self.since, seq
        cdef Dependence each
        cdef Written written
        cdef bytes key
        if group is not None and group.next_seq - 1 == since:
            return
        for each in self.found():
            tree = changes(each.source.id)
            written = None if group is None else group.of(each.source.id)
            for key in each.keys:
                seq = tree.key_change(key, since)
                if not seq and written is not None:
                    seq = written.key_change(key)
                if seq:
                    raise key_conflict(each.source.name, key, seq)
            for lower, upper in each.ranges:
                change = tree.range_change(lower, upper, since)
                if change is None and written is not None:
                    change = written.range_change(lower, upper)
                if change is not None:
                    raise range_conflict(each.source.name, lower, upper, change)
