"""Steps of several calls of the system: the compiled twin of `_file_py`.

Thread safety: safe. The calls of a step run in one section without the GIL.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, EIO, errno
from posix.types cimport off_t

import os

from holdfast.env.protocol import SyncError

cdef extern from *:
    """
    #include <fcntl.h>
    #include <sys/types.h>
    #include <unistd.h>

    static int holdfast_sync_data(int descriptor)
    {
    #if defined(F_FULLFSYNC)
        return fcntl(descriptor, F_FULLFSYNC);
    #elif defined(__linux__)
        return fdatasync(descriptor);
    #else
        return fsync(descriptor);
    #endif
    }
    """
    int holdfast_sync_data(int descriptor) nogil
    ssize_t pwrite(int descriptor, const void* source, size_t size, off_t offset) nogil

cdef enum Outcome:
    DONE = 0
    WRITE_FAILED = 1
    NO_PROGRESS = 2
    SYNC_FAILED = 3

cdef enum:
    # No system takes more than this in one call.
    PIECE_BYTES_MAX = 1 << 30
    ZEROS_BYTES = 1 << 16

cdef char[ZEROS_BYTES] ZEROS


def write_and_sync(int descriptor, str name, off_t offset, data):
    """Write all of `data` at `offset`, then make the data of the file durable.

    `name` is the file's, for messages. Raises: SyncError when all was written and the sync failed;
    another OSError when the write failed, and then nothing was synced; what a signal handler
    raises, and then neither is known.
    """
    cdef Py_buffer view
    cdef Py_ssize_t done = 0
    cdef Outcome outcome
    cdef int number = 0
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        while True:
            with nogil:
                outcome = go_on(
                    descriptor, <const char*>view.buf, view.len, offset, &done, &number
                )
            if outcome == DONE:
                return
            if number != EINTR:
                break
            PyErr_CheckSignals()
    finally:
        PyBuffer_Release(&view)
    if outcome == NO_PROGRESS:
        raise OSError(EIO, "a write made no progress", name)
    if outcome == WRITE_FAILED:
        raise OSError(number, os.strerror(number))
    raise SyncError(number, os.strerror(number))


def write_zeros(int descriptor, str name, off_t start, off_t end):
    """Write zeros from `start` to `end`, in pieces that end at multiples of 64 KiB.

    `name` is the file's, for messages. Raises: OSError when a write failed, and what a signal
    handler raises; then a part may have been written.
    """
    cdef Outcome outcome
    cdef int number = 0
    while True:
        with nogil:
            outcome = fill(descriptor, &start, end, &number)
        if outcome == DONE:
            return
        if number != EINTR:
            break
        PyErr_CheckSignals()
    if outcome == NO_PROGRESS:
        raise OSError(EIO, "a write made no progress", name)
    raise OSError(number, os.strerror(number))


cdef Outcome fill(int descriptor, off_t* position, off_t end, int* number) noexcept nogil:
    """Write zeros from `position`, which moves on, to `end`; outcomes as those of `go_on`."""
    cdef off_t count
    number[0] = 0
    while position[0] < end:
        # Safety: at most ZEROS_BYTES, as what is taken off lies in 0 to ZEROS_BYTES - 1; a negative
        # position is refused by the system.
        count = ZEROS_BYTES - (position[0] & (ZEROS_BYTES - 1))
        if count > end - position[0]:
            count = end - position[0]
        count = pwrite(descriptor, ZEROS, count, position[0])
        if count < 0:
            number[0] = errno
            return WRITE_FAILED
        if count == 0:
            return NO_PROGRESS
        position[0] += count
    return DONE


cdef Outcome go_on(
    int descriptor, const char* source, Py_ssize_t size, off_t offset, Py_ssize_t* done,
    int* number,
) noexcept nogil:
    """Write what is left of `size` bytes, then sync. After an outcome other than DONE `number`
    says why; when that is EINTR, the call may be made again.
    """
    cdef Py_ssize_t count
    number[0] = 0
    # Safety: 0 <= done <= size, since no call writes more than it was given.
    while done[0] < size:
        count = size - done[0]
        if count > PIECE_BYTES_MAX:
            count = PIECE_BYTES_MAX
        count = pwrite(descriptor, source + done[0], count, offset + done[0])
        if count < 0:
            number[0] = errno
            return WRITE_FAILED
        if count == 0:
            return NO_PROGRESS
        done[0] += count
    if holdfast_sync_data(descriptor) < 0:
        number[0] = errno
        return SYNC_FAILED
    return DONE
