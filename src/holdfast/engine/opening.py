"""Opening a database: lock the folder, recover, and hand out the handle."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress

from holdfast.base import (
    DatabaseSettings,
    DiskFullError,
    check_interpreter,
)
from holdfast.bufferpool import BufferPool
from holdfast.crypto import Key, KeySource, require_ciphers
from holdfast.engine.database import Database
from holdfast.engine.engine import Engine
from holdfast.env import Env, FileLock, PosixEnv, is_shortage
from holdfast.lsm import TableStore
from holdfast.merge import MergeFunction, Merges
from holdfast.recovery import (
    LOCK_NAME,
    Recovery,
    check_free_for_new,
    check_root,
    check_root_form,
    drop_old_keys,
    has_database_files,
    key_source,
    lock_for_reading,
    lock_for_writing,
    recover_for_reading,
    recover_for_writing,
    unlock,
)

_open_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def open_database(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    read_only: bool = False,
    key: Key | KeySource | None = None,
    root: bytes | None = None,
    settings: DatabaseSettings | None = None,
    merges: Mapping[str, MergeFunction | Callable[..., bytes]] | None = None,
    env: Env | None = None,
) -> Database:
    """Open the database in folder `path`; it is created when absent unless `create` is False.

    `settings` replaces the stored settings; None keeps them. `read_only` replays the log in memory
    and writes nothing, but for an empty file LOCK in a folder that can be written to and has none;
    any number of readers may have a database open, beside no writer. With a `key` a new database is
    encrypted, and one that is encrypted is opened: 32 bytes, a passphrase, or a callable that
    unwraps a key kept elsewhere (docs/guide/encryption.md). A `root` is what `Database.root_digest`
    returned; a folder that is older is refused. `merges` are merge functions beside the built-in
    ones, by name: each is a `MergeFunction`, or a callable that is its `apply`. `env` is for tests.

    Raises: FileNotFoundError when it is absent and may not be created, or when the folder in which
    it would lie is absent; DatabaseLockedError when another handle has it open, but not when
    both only read; CorruptionError, FormatError when its files are damaged, foreign, newer, or
    older than `root`; WrongKeyError when it is encrypted and `key` does not open it, or it is not
    and there is a `key`; TypeError, ValueError for what is no key or no root; ModuleNotFoundError
    when encryption takes a package that is not there; DiskFullError; OSError; what a key callable
    raises; RuntimeError in an interpreter that runs without its global lock.
    Durability: when it returns, everything that was ever acknowledged as durable is there, and
    synced in new files.
    """
    try:
        check_interpreter()
        source = key_source(key)
    finally:
        # What a traceback shows of this frame must not be the key.
        del key
    functions = Merges(merges)
    env = PosixEnv() if env is None else env
    folder = os.fspath(path)
    if not isinstance(folder, str):
        raise TypeError(f"a path is str, not {type(folder).__name__}")
    if settings is not None and not isinstance(settings, DatabaseSettings):
        raise TypeError(f"settings are DatabaseSettings, not {type(settings).__name__}")
    if root is not None:
        check_root_form(root)
    # A database that has a root was there before.
    creates = create and not read_only and root is None
    try:
        found = _prepare_folder(env, folder, create=creates, is_sealed=source is not None)
        lock = (lock_for_reading if read_only else lock_for_writing)(env, folder)
        recovery: Recovery | None = None
        plain = env
        try:
            if creates and not has_database_files(found):
                # Before a key file is made: others may have come since the first look.
                check_free_for_new(folder, env.list_dir(folder))
            env = unlock(env, folder, source, create=creates, for_writing=not read_only)
            if root is not None:
                check_root(env, folder, root)
            if read_only:
                recovery = recover_for_reading(env, folder, settings)
            else:
                recovery = recover_for_writing(
                    env, folder, settings, create=creates, merges=functions
                )
                drop_old_keys(env, folder)
            database = _handle(_start(env, folder, recovery, lock, functions))
        except BaseException:
            # An engine that came so far has closed it; a second close does nothing.
            if recovery is not None:
                recovery.close()
            elif LOCK_NAME not in found and not read_only:
                _unlink_lock(plain, folder)
            if lock is not None:
                lock.release()
            raise
    except OSError as error:
        if is_shortage(error):
            raise DiskFullError(f"{folder}: no room to open the database: {error}") from error
        raise
    return database


def _prepare_folder(env: Env, folder: str, *, create: bool, is_sealed: bool) -> list[str]:
    """Make the folder of a new database; return the names that were there. What can be refused
    without its lock is refused here, so that nothing is left behind.
    """
    try:
        names = env.list_dir(folder)
    except FileNotFoundError:
        if not create:
            raise FileNotFoundError(f"there is no database at {folder}") from None
        if is_sealed:
            require_ciphers()
        with suppress(FileExistsError):
            # Another open may be quicker; which of them has the database is for the lock to say.
            env.make_dir(folder, site="database.folder.create")
        names = []
    if has_database_files(names):
        return names
    if not create:
        raise FileNotFoundError(f"there is no database at {folder}")
    check_free_for_new(folder, names)
    # A folder that is there may be one that an attempt made which ended before this sync.
    # The parent of "db/" is not "db".
    parent = os.path.dirname(folder.rstrip("/") or "/") or "."
    env.sync_dir(parent, site="database.parent.folder_sync")
    return names


def _unlink_lock(env: Env, folder: str) -> None:
    """Take the lock file away that a refused open made. Requires: the lock is held, and not by
    readers: who waits for this file sees that it has no name any more, and takes the next one.
    """
    with suppress(OSError):
        env.unlink(f"{folder}/{LOCK_NAME}", site="database.refused.unlock")


def _start(
    env: Env, folder: str, recovery: Recovery, lock: FileLock | None, merges: Merges
) -> Engine:
    settings = recovery.settings
    pool = BufferPool(settings.memory_bytes)
    store = TableStore(env, folder, pool, merges)
    try:
        engine = Engine(
            env,
            folder,
            settings,
            pool=pool,
            store=store,
            version=recovery.version,
            version_set=recovery.version_set,
            log=recovery.log,
            lock=lock,
            numbers=recovery.numbers,
            last_seq=recovery.last_seq,
        )
        for keyspace, memtable in recovery.memtables.items():
            engine.adopt_memtable(keyspace, memtable)
    except BaseException:
        store.close()
        raise
    return engine


def _handle(engine: Engine) -> Database:
    """Return a handle, and let the background work begin."""
    try:
        database = Database(engine)
        _open_databases.add(database)
        if engine.log is not None:
            engine.schedule_compaction()
            engine.pulse.start()
    except BaseException:
        # Nobody has it yet, so nobody else would close it.
        engine.close()
        raise
    return database


@atexit.register
def _close_all() -> None:
    """Close what is still open when the interpreter ends: unsynced writes reach the disk."""
    for database in list(_open_databases):
        # The log has what was acknowledged as durable, there is nobody left to tell, and whatever
        # it is must not keep the others from being closed.
        with suppress(BaseException):
            database.close()
