"""Floor 9: the same face with await, over the same engine.

    import holdfast.aio

    async with await holdfast.aio.open("sensors.hf") as db:
        await db.put(b"boot", b"2026-11-22")
        async for key, value in db.items(prefix=b"b"):
            print(key, value)

Commits of tasks that run at the same time, of any number of event loops, and those of threads share
commit groups, and one sync each. What memory and pool can answer is answered at once; what must
wait for the disk runs in a thread, and the event loop goes on.

`bridge` is the way between event loops and threads.
"""

from holdfast.aio.changes import Changes
from holdfast.aio.cursor import Cursor
from holdfast.aio.database import Database
from holdfast.aio.keyspace import Keyspace
from holdfast.aio.opening import open_database as open  # noqa: A004  the contract's name
from holdfast.aio.snapshot import Snapshot, SnapshotKeyspace
from holdfast.aio.transaction import Savepoint, Transaction, TransactionKeyspace

__all__ = [
    "Changes",
    "Cursor",
    "Database",
    "Keyspace",
    "Savepoint",
    "Snapshot",
    "SnapshotKeyspace",
    "Transaction",
    "TransactionKeyspace",
    "open",
]
