"""A database as users hold it: its default keyspace, and what concerns the whole folder."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import TypeVar

from holdfast.base import DatabaseSettings, Error, KeyspaceSettings, LimitError, mark
from holdfast.crypto import Key, KeySource, plain_env
from holdfast.engine._core import CLOSED
from holdfast.engine.changes import Change, Feed
from holdfast.engine.compact import compact_range
from holdfast.engine.engine import Engine
from holdfast.engine.keyspace import Keyspace
from holdfast.engine.slow import SlowReport, explain
from holdfast.engine.snapshot import Snapshot, TransactionInfo
from holdfast.engine.statistics import collect_stats, collect_totals
from holdfast.engine.stats import Stats
from holdfast.engine.tuning import tune_keyspace
from holdfast.engine.write_path import DURABILITIES, check_durability
from holdfast.env import PosixEnv
from holdfast.lsm import ReadView
from holdfast.memtable import Memtable
from holdfast.recovery import DEFAULT_KEYSPACE, Report, key_source
from holdfast.txn import Transaction, run

Result = TypeVar("Result")

_unclosed: set[Engine] = set()
"""A handle that was forgotten still has writes that no disk has: it lives until the interpreter
ends, which closes it. Simulated machines are let go.
"""


class Database(Keyspace):
    """An open database folder; the mapping itself is its default keyspace.

    Close it when done, or use it as a context manager. Thread safety: safe. After a fork the
    child's handle raises DatabaseClosedError.
    """

    def __init__(self, engine: Engine) -> None:
        tree = next(tree for tree in engine.trees.values() if tree.version.name == DEFAULT_KEYSPACE)
        super().__init__(engine, tree)
        self._keyspaces: weakref.WeakValueDictionary[int, Keyspace] = weakref.WeakValueDictionary()
        if engine.log is not None and isinstance(plain_env(engine.env), PosixEnv):
            _unclosed.add(engine)

    @property
    def path(self) -> str:
        """The folder."""
        return self._engine.folder

    @property
    def settings(self) -> DatabaseSettings:
        """The settings in force."""
        return self._engine.settings

    # -- keyspaces

    def keyspace(
        self, name: str, *, create: bool = True, settings: KeyspaceSettings | None = None
    ) -> Keyspace:
        """Return keyspace `name`; a new one is created durably, unless `create` is False (then
        KeyError).

        One that exists has the given settings from then on, durably; what is in its tables stays as
        it was written until it is compacted. Of a database that is only read nothing changes.
        Raises: LimitError when the keyspace exists and has other fixed settings than are given.
        """
        if not isinstance(name, str):
            raise TypeError(f"a keyspace name is str, not {type(name).__name__}")
        if settings is not None and not isinstance(settings, KeyspaceSettings):
            raise TypeError(f"settings are KeyspaceSettings, not {type(settings).__name__}")
        self.read_point()
        if name == DEFAULT_KEYSPACE:
            if settings is not None:
                tune_keyspace(self._engine, self.id, settings)
            return self
        engine = self._engine
        while True:
            number = engine.find_keyspace(name)
            if number is None:
                if not create:
                    raise KeyError(name)
                number = engine.create_keyspace(name, settings or engine.settings.keyspace)
            if settings is not None:
                tune_keyspace(engine, number, settings)
            with engine.version_mutex:
                found = self._keyspaces.get(number)
                if found is None and number in engine.trees:
                    found = self._keyspaces[number] = Keyspace(engine, engine.trees[number])
            if found is not None:
                return found
            mark("engine.keyspace_dropped_meanwhile")

    def keyspaces(self) -> list[str]:
        """Return the names of all keyspaces, sorted; the default one is among them."""
        self.read_point()
        return sorted(tree.version.name for tree in list(self._engine.trees.values()))

    def drop_keyspace(self, name: str) -> None:
        """Remove a keyspace with everything in it, durably.

        Raises: KeyError; LimitError for the default one.
        """
        self.read_point()
        if name == DEFAULT_KEYSPACE:
            raise LimitError("the default keyspace cannot be dropped; use clear()")
        number = self._engine.find_keyspace(name)
        if number is None:
            raise KeyError(name)

        def forget() -> None:
            handle = self._keyspaces.get(number)
            if handle is not None:
                handle.dropped = True
                # A handle that lives on must not hold the files.
                handle.view = ReadView(Memtable(), (), ())
                self._keyspaces.pop(number, None)

        if not self._engine.drop_keyspace(number, forget):
            raise KeyError(name)
        self._engine.collect()

    # -- the whole database

    def snapshot(self) -> Snapshot:
        """Return a read-only mapping that stays as the database is now; close it when done."""
        self.read_point()
        return Snapshot(
            self._engine.snapshots, self, lambda name: self.keyspace(name, create=False)
        )

    def changes(self, since: int = 0, *, follow: bool = False) -> Iterator[Change]:
        """Iterate over the committed batches behind sequence number `since`, in order; all
        keyspaces.

        Each comes once and whole, when it is durable; the iterator ends behind the newest one, or
        with `follow` waits for more until the database is closed. To go on later, after a restart
        too, give the `seq` of the last change that was worked off. To begin with what is
        there, take a snapshot, copy it, and begin with its `seq`. The changes are read from
        the log, of which recovery needs little: `wal_keep_bytes` keeps more. What is no commit is
        not told: `drop_keyspace`, and what retention drops.

        Raises, while iterating: ChangesGoneError when the log does not hold all of them any more,
        or never did because they were ingested; CorruptionError; DatabaseClosedError; OSError.
        Raises: ValueError for a number that was not given yet. Thread safety: an iterator belongs
        to one thread at a time.
        """
        feed = self.change_feed(since)
        return feed.follow() if follow else feed.available()

    def change_feed(self, since: int) -> Feed:
        """Return what `changes` reads from, for those who wait in their own way."""
        self.read_point()
        if type(since) is not int:
            raise TypeError(f"a sequence number is an int, not {type(since).__name__}")
        if not 0 <= since <= self.state.visible_seq:
            raise ValueError(
                f"since is {since}; the sequence numbers are 0 to {self.state.visible_seq}"
            )
        return Feed(self._engine, since, self.read_point)

    def transaction(
        self,
        *,
        isolation: str = "serializable",
        read_only: bool = False,
        durability: str | None = None,
    ) -> Transaction:
        """Begin a transaction, a mapping over the default keyspace that reads the database as it is
        now. Use it as a context manager: it commits at the end, and rolls back on an exception.

        `isolation` is "serializable", where what was read must not change until the commit, or
        "snapshot", where only two that write the same exclude each other. A read-only transaction
        waits for nobody and always succeeds. `durability` is that of the commit.
        """
        # As `begin` does: each frame of a transaction shows.
        if durability is not None and durability not in DURABILITIES:
            check_durability(durability)
        self.read_point()
        return Transaction(
            self._host, self, isolation=isolation, read_only=read_only, durability=durability
        )

    def sibling(self, name: str, *, create: bool) -> Keyspace:
        return self.keyspace(name, create=create)

    def run(
        self,
        function: Callable[[Transaction], Result],
        *,
        attempts: int = 10,
        isolation: str = "serializable",
        durability: str | None = None,
    ) -> Result:
        """Run `function(transaction)`, commit, and return its result; again, after a short random
        pause, when the transaction loses to another one.

        Raises: ConflictError when it lost `attempts` times; whatever the function raises, with the
        transaction rolled back.
        """
        return run(
            self._engine.env,
            partial(self.transaction, isolation=isolation, durability=durability),
            function,
            attempts,
        )

    def transactions(self) -> list[TransactionInfo]:
        """Return the live transactions and snapshots, the oldest first: since when, begun where,
        and how much they may hold back.
        """
        self.read_point()
        return self._engine.snapshots.infos()

    def flush(self) -> None:
        """Write what only memory and the log hold into tables, of all keyspaces."""
        self._engine.flush(list(self._engine.trees))

    def compact(
        self,
        start: object = None,
        stop: object = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Bring all keyspaces to the last level: the space of deleted data comes back. `progress`
        is that of `Keyspace.compact`.

        With `start` or `stop` it is [start, stop) of the default keyspace, so `compact(b"")` is all
        of that one.
        """
        if start is not None or stop is not None:
            super().compact(start, stop, progress=progress)
            return
        self.flush()
        compact_range(self._engine, list(self._engine.trees), None, None, progress)
        self._engine.snapshots.warn()

    def sync(self) -> None:
        """Make every earlier write durable, whatever durability it was made with."""
        self._engine.write_path.sync()

    def verify(self) -> Report:
        """Read and check every byte of every file.

        Returns a report; damage is listed in it, not raised.
        """
        self.read_point()
        try:
            return self._engine.verify()
        except OSError:
            # A close in another thread takes the files away.
            self.read_point()
            raise

    def backup(
        self,
        folder: str | os.PathLike[str],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Copy the database as it is now to `folder`, which is new or empty, while it stays open.

        The copy holds everything that was acknowledged before the call, and of what is committed
        meanwhile the earliest part or nothing; it opens as any database, an encrypted one with the
        same key. Other commits wait for one sync of the log and until its files are open, not for
        the copying. Segments that `wal_keep_bytes` keeps are not copied. The origin is only read;
        its disk keeps what compactions replace until the copy has it. `progress` is called with the
        bytes copied since its last call and the bytes there are to copy.

        Durability: durable when it returns. After an exception what was made is removed again but
        for the folder itself, and after a crash there is the whole copy or none: a folder with some
        of it is refused when it is opened, and the next backup to it replaces what is there.
        Raises: FileExistsError when the folder is not empty; ValueError when it lies in the
        database's own; FileNotFoundError when its parent is absent; DiskFullError; OSError when
        either disk fails; DatabaseClosedError, DatabasePoisonedError, ReadOnlyError. Thread safety:
        safe.
        """
        self.read_point()
        from holdfast.engine.backup import backup  # noqa: PLC0415  an open does not need it

        backup(self._engine, os.fspath(folder), progress)

    def stats(self) -> Stats:
        """Return sizes, counters and amplifications; costs no I/O."""
        self.read_point()
        stats = collect_stats(self._engine)
        self._engine.snapshots.warn()
        return stats

    def why_slow(self) -> SlowReport:
        """Return what this database waited for, in the last minute and since open, each with the
        counters behind it and what to do; costs no I/O.
        """
        self.read_point()
        now = collect_totals(self._engine, self._engine.env.monotonic())
        history = self._engine.history
        return explain(history.since(now), now.since(history.first))

    def rekey(
        self,
        key: Key | KeySource | None = None,
        *,
        rewrite: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Change the key of an encrypted database, and with it the data key of all new files.

        From the moment at which the call returns only the new `key` opens the database, durably;
        no data is rewritten for it. With `rewrite` all tables that older data keys opened are then
        rewritten under the newest one, and the next open for writing drops the keys that nothing
        needs any more. A rewrite that was cut off goes on when it is asked for again; without a
        `key` nothing but that is done. `progress` is called with the bytes of tables rewritten
        since its last call and the bytes there are to rewrite.

        Raises: WrongKeyError when the database is not encrypted; TypeError, ValueError for what is
        no key; LimitError after 4096 changes without a rewrite; ReadOnlyError; what a key callable
        raises; what a compaction raises. After an exception either key may be the one that opens
        the database, and no other.
        """
        try:
            source = key_source(key)
        finally:
            # What a traceback shows of this frame must not be the key.
            del key
        self.read_point()
        from holdfast.engine.rekey import rekey  # noqa: PLC0415  an open does not need it

        rekey(self._engine, source, rewrite=rewrite, progress=progress)

    def root_digest(self) -> bytes:
        """Return 48 bytes that stand for everything that was committed until now, and make it
        durable.

        Keep them where whoever may change the folder cannot, and give them to a later
        `holdfast.open(root=...)`: it refuses a folder that was set back to an earlier state. The
        digest of a database that was closed is that of an open with `read_only=True`.
        Raises: CorruptionError; OSError; DatabasePoisonedError.
        """
        self.read_point()
        from holdfast.engine.root import root_digest  # noqa: PLC0415  an open does not need it

        return root_digest(self._engine)

    def close(self) -> None:
        """Flush and close; a second close is harmless. Raises: DatabasePoisonedError when a sync
        failed meanwhile.
        """
        try:
            self._engine.close()
        finally:
            if self.state.flags & CLOSED:
                _unclosed.discard(self._engine)
            self._engine.snapshots.warn()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Error:
            # What ended the block says more than that the end was not clean.
            if error is None:
                raise

    def __repr__(self) -> str:
        state = "closed" if self.state.flags & CLOSED else "open"
        return f"<holdfast.Database {self.path!r} {state}>"
