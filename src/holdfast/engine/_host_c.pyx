"""Compiled answers to what each transaction asks; `_host_py` is the specification."""
from holdfast.engine._core_c cimport CommitState

from functools import partial

cdef enum:
    C_FORKED = 2
    C_READ_ONLY = 16


cdef class HostCore:
    """See `_host_py.HostCore`."""
    cdef public object _engine
    cdef public object _snapshots
    cdef CommitState _state
    cdef public object batch_bytes_max

    def __init__(self, engine, batch_bytes_max):
        self._engine = engine
        self._state = engine.state
        self._snapshots = engine.snapshots
        self.batch_bytes_max = batch_bytes_max

    @property
    def is_read_only(self):
        """Whether nothing can be written."""
        return (self._state.flags & C_READ_ONLY) != 0

    def acquire(self, list held not None, holder):
        """Register the newest visible sequence number and put it into `held`. Return what is to be
        called before a read, or None.
        """
        snapshots = self._snapshots
        tenure = snapshots.acquire(held, holder)
        if snapshots.age_max or snapshots.bytes_max:
            return partial(snapshots.check, tenure)
        return None

    def release(self, list held not None):
        """Unregister the snapshot in `held` and take it out; does nothing when that is done."""
        if self._state.flags & C_FORKED:
            # Another thread of the parent may hold the registry's mutex for ever.
            held.clear()
        else:
            self._snapshots.release(held)

    def drop(self, list held not None):
        """Like `release`, from a finalizer; return whether it was there."""
        return self._snapshots.drop(held)

    def commit_at_once(self, batch, durability, tuple keyspaces, since):
        """Write a batch if nobody has to wait for it, and nothing was committed behind `since`;
        return whether it was written.
        """
        cdef bint is_interval = durability == "interval"
        if durability != "none" and not (is_interval and self._state.interval_armed):
            return False
        done = self._state.commit_at_once(
            batch, since, keyspaces, self._engine.write_path.memtables)
        if done and is_interval:
            # The timer may have ended while the commit waited for the mutex.
            self._engine.arm_interval()
        return done
