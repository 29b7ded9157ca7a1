"""The compiled face of batches and record buffers. The GIL is held; the owner serialises calls."""
cimport cython
from libc.stdint cimport uint32_t, uint64_t


@cython.final
cdef class Storage:
    """Growable memory that may be lent out as a read-only buffer; while it is, it cannot change."""
    cdef unsigned char* data
    cdef Py_ssize_t capacity
    cdef Py_ssize_t lent_size                 # how much a view shows
    cdef Py_ssize_t lent                      # views alive
    cdef int grow(self, Py_ssize_t used, Py_ssize_t more) except -1
    cdef int own(self) except -1
    cdef int trim(self) except -1


@cython.final
cdef class WriteBatch:
    cdef readonly uint64_t op_count           # operations collected
    cdef readonly Py_ssize_t bytes_max        # the most bytes that several operations may have
    cdef Py_ssize_t used                      # bytes of operations, without the count in front
    cdef Storage storage
    # Append an operation. Copies key and value. `value` is the stop key of OP_RANGE_DELETE, NULL
    # for OP_DELETE. Raises with nothing changed.
    cdef int c_add(self, int kind, uint32_t keyspace, const unsigned char* key, Py_ssize_t key_size,
                   const unsigned char* value, Py_ssize_t value_size) except -1
    # Append a put of each pair. Raises what their iterator raises too, with nothing changed.
    cdef int c_put_many(self, uint32_t number, pairs) except -1
    # Append the operations of another batch. Raises with nothing changed.
    cdef int c_add_batch(self, WriteBatch other) except -1
    # The operations, without the count in front; valid until the batch changes. Read them with a
    # PayloadWalk whose `left` is `op_count`.
    cdef const unsigned char* operations_data(self) noexcept


@cython.final
cdef class RecordBuffer:
    cdef readonly Py_ssize_t size             # payload bytes collected
    cdef readonly uint64_t op_count           # operations collected, over all batches
    cdef Py_ssize_t bytes_max
    cdef Storage storage
    # Append a batch of exactly one operation. Copies key and value. Raises with nothing changed.
    cdef int c_append_op(self, int kind, uint32_t keyspace,
                         const unsigned char* key, Py_ssize_t key_size,
                         const unsigned char* value, Py_ssize_t value_size) except -1
    # Append a copy of a batch; nothing when it has no operation. Raises with nothing changed.
    cdef int c_append_batch(self, WriteBatch batch) except -1
    # Where `more` bytes may be written; raises with nothing changed when they do not fit.
    cdef unsigned char* room(self, Py_ssize_t more) except NULL
    # The payload, `size` bytes; valid until the buffer changes. Read it with payload_start and
    # payload_next.
    cdef const unsigned char* payload_data(self) noexcept
