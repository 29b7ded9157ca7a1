"""A keyspace as users hold it: a mutable mapping of bytes to bytes with scans, batches and
durability.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from holdfast.base import (
    ConflictError,
    DatabaseClosedError,
    check_key,
    check_value,
    mark,
    pairs_of,
)
from holdfast.base.bounds import key_range
from holdfast.cursor import UserCursor
from holdfast.engine._core import FORKED, KeyspaceCore
from holdfast.engine.compact import compact_range
from holdfast.engine.open_range import OpenRange
from holdfast.engine.transactions import TransactionHost
from holdfast.engine.write_path import check_durability
from holdfast.merge import ADD_HEAD
from holdfast.txn import Check, Transaction
from holdfast.wal import WriteBatch

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine
    from holdfast.engine.write_path import Submission
    from holdfast.lsm import Tree

Default = TypeVar("Default")

ITEMS, KEYS, VALUES = 0, 1, 2

TAKERS_MAX = 64
"""So many calls of `popitem` at the same time each look for a key of their own."""

_NO_DEFAULT: Any = object()


class _Taker:
    """A call of `popitem` that is under way."""

    __slots__ = ("__weakref__",)


class Keyspace(KeyspaceCore, MutableMapping[bytes, bytes]):
    """A named, ordered mapping of bytes to bytes inside a database.

    Keys are ordered bytewise. Any bytes-like object is a key or a value. Writes are durable when
    the call returns unless `durability` says otherwise:

    - "commit" (default): survives power loss.
    - "interval": survives power loss after at most `sync_interval_ms`; a crash may take the newest
      writes, never one without all later ones.
    - "none": reaches the disk when a buffer fills, with the next durable write, or at close; a
      crash of the process or the machine may take the newest writes, never one without all later
      ones.

    Raises: DatabaseClosedError, DatabasePoisonedError, ReadOnlyError, DiskFullError, LimitError,
    TypeError, CorruptionError, MergeError. Thread safety: safe; an iterator belongs to one thread
    at a time.
    """

    _host: TransactionHost

    def __init__(self, engine: Engine, tree: Tree) -> None:
        settings = tree.version.settings
        KeyspaceCore.__init__(
            self, engine.state, tree.version.id, tree.view, settings.memtable_bytes
        )
        self._engine = engine
        self._host = TransactionHost(engine, self)
        self._name = tree.version.name
        # Which call of `popitem` takes a key. A hint: it keeps them from taking the same one over
        # and over, and is gone with the call, however that ends.
        self._takers: weakref.WeakValueDictionary[bytes, _Taker] = weakref.WeakValueDictionary()
        engine.on_view[tree.version.id] = self._show

    def _show(self, tree: Tree) -> None:
        self.memtable_bytes = tree.version.settings.memtable_bytes
        self.view = tree.view

    # Two handles are equal when they are one: comparing contents would read two databases.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def name(self) -> str:
        """The name it was created with."""
        return self._name

    # -- reading

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    def __bool__(self) -> bool:
        """Whether there is a key; asks for the first one only."""
        return next(self.keys(limit=1), None) is not None

    def __len__(self) -> int:
        """Count the keys, by reading all of them; `db.stats()` has an estimate at once."""
        return sum(1 for _ in self.keys())

    def items(  # type: ignore[override]
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> UserCursor[tuple[bytes, bytes]]:
        """Iterate over (key, value) with `start` <= key < `stop`, in key order or in reverse.

        `prefix` narrows to keys that begin with it, `limit` to that many rows. The iterator sees
        the keyspace as it was when it was made, whatever is written meanwhile; close it, or let it
        go, to free what it holds.
        """
        return self._cursor(start, stop, prefix, reverse, limit, ITEMS)

    def keys(  # type: ignore[override]
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> UserCursor[bytes]:
        """Iterate over the keys with `start` <= key < `stop`; see `items`."""
        return self._cursor(start, stop, prefix, reverse, limit, KEYS)

    def values(  # type: ignore[override]
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> UserCursor[bytes]:
        """Iterate over the values of the keys with `start` <= key < `stop`; see `items`."""
        return self._cursor(start, stop, prefix, reverse, limit, VALUES)

    def cursor_at(
        self,
        seq: int,
        lower: bytes | None,
        upper: bytes | None,
        reverse: bool,
        limit: int | None,
        what: int,
    ) -> UserCursor[Any]:
        """Iterate as of sequence number `seq`, which a live snapshot holds."""
        view, _ = self.read_point()
        return view.cursor(seq, lower, upper, reverse, limit, what)

    # -- writing

    def batch_of(self, pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]) -> WriteBatch:
        """Return the batch that writes all `pairs`."""
        batch = WriteBatch()
        batch.put_many(self.id, pairs_of(pairs))
        return batch

    def commit_at_once(self, batch: WriteBatch, durability: str | None) -> bool:
        """Commit without a group if nobody has to wait for it; return whether that was possible."""
        if durability is None or not batch.op_count:
            return False
        done = self._host.commit_at_once(
            batch, durability, (self.id,), self._engine.state.visible_seq
        )
        if done:
            self.beat()
        return done

    def beat(self) -> None:
        """Do what an open database does once a second, if that is due."""
        self._engine.pulse.beat(self._engine.env.monotonic())

    def compare_and_set(
        self, key: object, expected: object, new: object, *, durability: str | None = None
    ) -> bool:
        """Set `key` to `new` if its value is `expected`, as one step, and return whether it was.

        None stands for an absent key: as `expected` it inserts, as `new` it removes. It is a
        transaction of its own, which is run again while others change the key in between: so one of
        all that expect the same value succeeds, whatever else is written meanwhile. Nothing is
        written, nor waited for, when the value is another one.
        """
        check_durability(durability)
        wanted = None if expected is None else check_value(expected)
        value = None if new is None else check_value(new)
        plain = check_key(key)
        self.check_writable()
        while self.get(plain) == wanted:
            try:
                with self.begin(durability=durability) as txn:
                    done = txn.compare_and_set(plain, wanted, value)
                return done  # noqa: RET504  the commit is behind the block
            except ConflictError:
                mark("engine.compare_again")
        return False

    def insert(self, key: object, value: object, *, durability: str | None = None) -> bool:
        """Set `key` to `value` if it is absent, as one step, and return whether it was."""
        return self.compare_and_set(key, None, check_value(value), durability=durability)

    def _take(self, key: bytes) -> bytes | None:
        # A transaction of its own, as in `compare_and_set`.
        while True:
            try:
                with self.begin() as txn:
                    value: Any = txn.get(key)
                    if value is not None:
                        self.check_writable()
                        txn.delete(key)
            except ConflictError:
                mark("engine.take_again")
            else:
                return value  # type: ignore[no-any-return]

    @overload
    def pop(self, key: object) -> bytes: ...
    @overload
    def pop(self, key: object, default: Default) -> bytes | Default: ...
    def pop(self, key: object, default: Any = _NO_DEFAULT) -> Any:
        """Remove `key` and return its value, as one step: of all that do so at the same time one
        gets it. When it is absent, return `default`. Raises: KeyError without one.
        """
        value = self._take(check_key(key))
        if value is not None:
            return value
        if default is _NO_DEFAULT:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[bytes, bytes]:
        """Remove the first key in order, and return it and its value; each goes to one caller. It
        is the first one when the call looks that no other call is taking: a lower key that comes at
        the same time may stay. So the takers of a queue commit in groups.

        Raises: KeyError when there is none.
        """
        taker = _Taker()
        try:
            while (key := self._first_for(taker)) is not None:
                value = self._take(key)
                if value is not None:
                    return key, value
        finally:
            # A traceback would keep it.
            del taker
        raise KeyError("popitem(): the keyspace is empty")

    def _first_for(self, taker: _Taker) -> bytes | None:
        """Return the first key that nobody else is taking, or just the first one when all of the
        first TAKERS_MAX are being taken: perhaps in vain. None when there is none.
        """
        first = None
        for key in self.keys(limit=TAKERS_MAX):
            if self._takers.setdefault(key, taker) is taker:
                return key
            if first is None:
                first = key
        return first

    def setdefault(self, key: object, default: object = None) -> bytes:
        """Return the value of `key`; when it is absent, set it to `default` first, as one step."""
        plain = check_key(key)
        while (value := self.get(plain)) is None:
            if self.insert(plain, default):
                return check_value(default)
        return value

    def update(self, pairs: Any = (), /, **named: object) -> None:
        """Write all `pairs`, a mapping or pairs, as one atomic transaction; see `put_many`. Keyword
        arguments are a TypeError: keys are bytes.
        """
        for key in named:
            check_key(key)
        self.put_many(pairs)

    def merge(
        self, key: object, function: str, operand: object, *, durability: str | None = None
    ) -> None:
        """Apply the merge function named `function` to the value of `key`, which is not read.

        So calls of several threads or transactions never conflict with each other, and each is
        applied once, in the order of the commits. An absent key is where a function begins anew.

        - "add", "max", "min": `operand` is an int, and the value a decimal number in ASCII.
        - "append": `operand` is bytes-like and is put behind the value.
        - "union": `operand` is an iterable of bytes-like members; `holdfast.unpack_set` reads the
          value.
        - A name that the database was opened with (`merges`): what that function takes.

        Reads raise MergeError when the function cannot be applied to the value that is there.
        Raises: MergeError for a name that is not registered; TypeError, LimitError for the operand;
        what `put` raises.
        """
        self.write_merge(key, self._engine.merge_value(function, operand), durability)

    def _encode_amount(self, amount: object) -> bytes:
        value = self._engine.merge_value("add", amount)
        # Behind the marking of the manifest, which that call makes: it is for ever.
        self.add_head = ADD_HEAD
        return value

    @property
    def has_merges(self) -> bool:
        """Whether the database is marked as one that may have MERGE entries."""
        return self._engine.version.has_merges

    def merge_value(self, function: str, operand: object) -> bytes:
        """Return the value of a MERGE entry that may be written now; see `Engine.merge_value`."""
        return self._engine.merge_value(function, operand)

    def fold(self, key: bytes, base: bytes | None, entries: Sequence[bytes]) -> bytes:
        """Return the value of `key` after MERGE entries, newest first, over the value `base`."""
        return self._engine.merges.fold(key, base, entries)

    def ingest(self, pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]) -> int:
        """Write `pairs`, whose keys ascend, each once, straight into tables, as one durable atomic
        transaction of any size; return their number.

        For loading much that is sorted: it is written once, not logged, and takes little memory.
        The pairs are read one at a time, and what they come from may use the database. They become
        visible together, at the end, and are newer than whatever was committed until then. Closing
        the database waits until the next pairs were read, and ends it.

        Raises: what iterating raises; ValueError, naming both keys, when one does not ascend;
        otherwise what `put_many` raises. Then nothing was written.
        """
        self.read_point()
        from holdfast.engine.ingest import ingest  # noqa: PLC0415  an open does not need it

        return ingest(self._engine, self.id, pairs_of(pairs))

    def delete_range(self, start: object, stop: object, *, durability: str | None = None) -> None:
        """Remove every key with `start` <= key < `stop`, whatever their number, as one operation.

        `start` None begins at the first key. `stop` None ends after the last one of the moment of
        the commit.
        """
        if stop is None:
            check_durability(durability)
            check = self.open_range(start)
            self._commit(WriteBatch() if check is None else check.batch, durability, check)
        else:
            self._commit(self.range_batch(start, stop), durability)

    def range_batch(self, start: object, stop: object) -> WriteBatch:
        """Return the batch that removes [start, stop)."""
        lower, upper = check_key(b"" if start is None else start), check_key(stop)
        batch = WriteBatch()
        if lower < upper:
            batch.delete_range(self.id, lower, upper)
        return batch

    def open_range(self, start: object) -> OpenRange | None:
        """Return what makes the batch that removes every key from `start` on; None when none is
        there now, for which a key may have to be read.
        """
        lower = check_key(b"" if start is None else start)
        if next(self.keys(lower, reverse=True, limit=1), None) is None:
            return None
        return OpenRange(self.id, lower, lambda: self._engine.trees[self.id].view)

    def clear(self) -> None:
        """Remove every key, as one operation."""
        self.delete_range(None, None)

    def _commit(
        self, batch: WriteBatch, durability: str | None, check: OpenRange | None = None
    ) -> None:
        if self.dropped:
            self._refuse()
        engine = self._engine
        if check is not None:
            engine.write_path.commit(batch, durability, (self.id,), check)
        elif batch.op_count:
            engine.write_path.commit(batch, durability, (self.id,))
        else:
            check_durability(durability)
            engine.write_path.check_writable()
        if durability == "interval":
            # After the commit: a timer that runs before finds nothing to sync and ends.
            self.arm_interval()

    def begin(
        self,
        *,
        isolation: str = "serializable",
        read_only: bool = False,
        durability: str | None = None,
    ) -> Transaction:
        """Begin a transaction whose own mapping is this keyspace."""
        self.read_point()
        check_durability(durability)
        return Transaction(
            self._host, self, isolation=isolation, read_only=read_only, durability=durability
        )

    def sibling(self, name: str, *, create: bool) -> Keyspace:
        """Return a keyspace of the same database."""
        raise NotImplementedError  # unreachable: only transactions over the database name others

    def look_ahead(self, check: Check) -> None:
        """Check what is visible already, if it is much, before the commit is handed in."""
        self._host.look_ahead(check)

    def check_writable(self) -> None:
        """Raise the error that says why nothing can be written, if so."""
        if self.dropped:
            self._refuse()
        self._engine.write_path.check_writable()

    def submit(self, submission: Submission) -> None:
        """Hand in a batch of this keyspace, or a wish to have all synced; returns at once.

        Raises: what a commit raises that cannot begin; then nothing was handed in.
        """
        if self.dropped:
            self._refuse()
        self._engine.committer.submit(submission)

    def arm_interval(self) -> None:
        """See to it that what was committed with durability "interval" is synced in time."""
        self._engine.arm_interval()

    def _refuse(self) -> None:
        if self.state.flags & FORKED:
            raise DatabaseClosedError(
                "this handle belongs to the parent process; open the database again after fork"
            )
        if self.dropped:
            raise DatabaseClosedError(f"keyspace {self._name!r} was dropped")
        raise DatabaseClosedError("the database is closed")

    # -- upkeep

    def flush(self) -> None:
        """Write what only memory and the log hold into tables. Returns when they are installed."""
        self.read_point()
        self._engine.flush([self.id])

    def compact(
        self,
        start: object = None,
        stop: object = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Bring [start, stop) to the last level: the space of deleted data comes back.

        `progress` is called with the bytes of tables that were rewritten since its last call, and
        about how many there are to rewrite.
        """
        lower, upper = key_range(start, stop, None)
        self.flush()
        compact_range(self._engine, (self.id,), lower, upper, progress)
        self._engine.snapshots.warn()

    def __repr__(self) -> str:
        return f"<holdfast.Keyspace {self._name!r}>"
