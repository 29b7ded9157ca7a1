"""The batch of a range delete without an end, which is made when its turn comes.

"To the end" is behind the last key of that moment. A key that was looked for any earlier need not
be the last one any more when the range is deleted: what others wrote behind it in between would
stay, and what they wrote after that, before it, would go. So the leader of the commit group looks
for the end, right before it takes the batch, when nothing else can be written. It reads no file:
the last key of a memtable is at hand, and a table says where it ends.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.base import KEY_BYTES_MAX
from holdfast.lsm import ReadView
from holdfast.txn import Changes, GroupWrites
from holdfast.wal import WriteBatch


class OpenRange:
    """Makes `batch` remove every key of a keyspace from `lower` on. A `Condition`, always true.

    `view` returns what the keyspace holds. Of one thread, and then of the leader.
    """

    __slots__ = ("_keyspace", "_lower", "_view", "batch")

    def __init__(self, keyspace: int, lower: bytes, view: Callable[[], ReadView]) -> None:
        self._keyspace = keyspace
        self._lower = lower
        self._view = view
        self.batch = WriteBatch()
        """Has no operation until its turn comes."""

    def require_unchanged(self, changes: Callable[[int], Changes], group: GroupWrites) -> None:
        """Fill the batch. `group` has what comes before in the same commit group, and everything
        else is in the trees. May be called again. Raises: MemoryError.
        """
        del changes
        batch, lower = self.batch, self._lower
        batch.clear()
        upper = upper_bound(self._view())
        last = group.last_key(self._keyspace)
        if last is not None:
            upper = max(upper, last + b"\0")
        if lower >= upper:
            return
        if len(upper) <= KEY_BYTES_MAX:
            batch.delete_range(self._keyspace, lower, upper)
        else:
            # What follows one of the longest keys is no key.
            batch.delete_range(self._keyspace, lower, upper[:-1])
            batch.delete(self._keyspace, upper[:-1])


def upper_bound(view: ReadView) -> bytes:
    """Return what is behind all keys of a view, b"" when it has none, without a look at files."""
    upper = b""
    for memtable in (view.active, *view.frozen):
        cursor = memtable.cursor()
        if cursor.seek_last():
            upper = max(upper, cursor.key + b"\0")
    for number, level in enumerate(view.levels):
        for reader in level if number == 0 else level[-1:]:
            upper = max(upper, reader.info.upper)
    return upper
