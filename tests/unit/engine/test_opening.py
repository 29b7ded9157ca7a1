"""Goal: opening gives what was there, in new files, and refuses what it cannot serve."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.base import (
    CorruptionError,
    DatabaseLockedError,
    DatabaseSettings,
    DiskFullError,
    FormatError,
    LimitError,
    ReadOnlyError,
)
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, FaultEnv, FaultRule, FileLock, PosixEnv, SimEnv
from holdfast.manifest import VersionSet
from holdfast.recovery import stored_settings
from tests.model.strategies import tiny

SUFFIXES = (".table", ".wal", ".manifest")


def opened(env: SimEnv) -> Database:
    return open_database("/db", env=env, settings=tiny())


def fill(database: Database) -> dict[bytes, bytes]:
    """Write enough for several levels; the last writes stay in the log."""
    pairs = {b"k%03d" % number: b"%d" % number + b"x" * 300 for number in range(80)}
    for key, value in pairs.items():
        database.put(key, value, durability="none")
    database.sync()
    return pairs


def crashed(state: str = "none") -> tuple[SimEnv, dict[bytes, bytes]]:
    """A machine that booted after a power cut, and what must be there."""
    env = SimEnv()
    database = opened(env)
    pairs = fill(database)
    machine = CrashPoint(env).state(state).build()
    database.close()
    return machine, pairs


# --- reading only


@pytest.mark.parametrize("state", ["none", "all"])
def test_reading_only_shows_the_log_and_writes_nothing(state: str) -> None:
    machine, pairs = crashed(state)
    with open_database("/db", env=machine, read_only=True) as database:
        assert pairs == dict(database.items())
        assert sorted(pairs)[::-1] == list(database.keys(reverse=True))
        assert [pairs[b"k079"], None] == database.get_many([b"k079", b"x"])
        with database.snapshot() as snapshot:
            assert pairs == dict(snapshot.items())
        assert database.verify().ok
        assert 80 == database.stats().last_seq
        assert ["default"] == database.keyspaces()
    assert [] == machine.op_log
    assert [] == machine.unreturned()


def test_reading_only_refuses_every_write() -> None:
    machine, _ = crashed()
    with open_database("/db", env=machine, read_only=True) as database:
        for call in (
            lambda: database.put(b"a", b"1"),
            lambda: database.put(b"a", b"1", durability="none"),
            lambda: database.put(b"a", b"1", durability="interval"),
            lambda: database.delete(b"a"),
            lambda: database.put_many([(b"a", b"1")]),
            lambda: database.put_many([]),
            lambda: database.delete_range(b"a", b"b"),
            lambda: database.clear(),
            lambda: database.flush(),
            lambda: database.compact(),
            lambda: database.sync(),
            lambda: database.keyspace("new"),
            lambda: database.keyspace("default").put(b"a", b"1"),
        ):
            with pytest.raises(ReadOnlyError):
                call()
    assert [] == machine.op_log


def test_reading_only_needs_a_database() -> None:
    env = SimEnv()
    with pytest.raises(FileNotFoundError, match="/db"):
        open_database("/db", env=env, read_only=True)
    assert [] == env.op_log


# --- folders


def test_a_database_that_is_absent_is_created_only_when_asked() -> None:
    env = SimEnv()
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="/db"):
            open_database("/db", env=env, create=False)
        if "db" not in env.list_dir("/"):
            env.make_dir("/db", site="test")
    with opened(env) as database:
        database[b"a"] = b"1"
    with open_database("/db", env=env, create=False) as database:
        assert b"1" == database[b"a"]


def test_a_folder_with_other_files_is_refused() -> None:
    env = SimEnv()
    env.make_dir("/db", site="test")
    env.create("/db/letter.txt", site="test").close()
    with pytest.raises(FormatError, match=r"letter\.txt"):
        opened(env)
    assert ["letter.txt"] == env.list_dir("/db")
    assert [] == env.unreturned()


def no_service(wrapped: bytes | None) -> bytes:
    raise ConnectionError("the service of the keys does not answer")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"root": bytes(48)}, FileNotFoundError),
        ({"root": bytes(48), "key": bytes(32)}, FileNotFoundError),
        ({"root": b"short"}, ValueError),
        ({"read_only": True}, FileNotFoundError),
        ({"create": False}, FileNotFoundError),
    ],
)
def test_a_refused_open_makes_no_folder(arguments: dict[str, Any], error: type[Exception]) -> None:
    env = SimEnv()
    with pytest.raises(error):
        open_database("/db", env=env, **arguments)
    assert [] == env.list_dir("/")
    env.make_dir("/db", site="t")
    with pytest.raises(error):
        open_database("/db", env=env, **arguments)
    assert [] == env.list_dir("/db")


def test_encryption_without_its_library_makes_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    env = SimEnv()
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(ModuleNotFoundError, match=r"holdfast\[crypto\]"):
        open_database("/db", env=env, key=bytes(32))
    assert [] == env.list_dir("/")


@pytest.mark.parametrize("key", [None, bytes(32)])
@pytest.mark.parametrize("name", ["notes.txt", "notes.wal", "x.table"])
def test_a_refused_folder_keeps_what_it_holds_and_nothing_else(
    tmp_path: Path, key: bytes | None, name: str
) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(FormatError, match="and no database"):
        open_database(tmp_path, key=key)
    assert [name] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("had_lock", [False, True])
def test_a_lock_file_goes_with_the_refused_open_that_made_it(
    tmp_path: Path, *, had_lock: bool
) -> None:
    if had_lock:
        (tmp_path / "LOCK").touch()
    with pytest.raises(ConnectionError):
        open_database(tmp_path, key=no_service)
    (tmp_path / "00000001.wal").write_bytes(b"of a damaged database")
    with pytest.raises(CorruptionError):
        open_database(tmp_path)
    (tmp_path / "00000001.wal").unlink()
    assert (["LOCK"] if had_lock else []) == [path.name for path in tmp_path.iterdir()]
    open_database(tmp_path).close()


class ArrivalEnv(PosixEnv):
    """Another program puts a file into the folder just before its lock is taken."""

    def lock_file(self, path: str, *, shared: bool = False) -> FileLock:
        Path(path).with_name("notes.txt").touch()
        return super().lock_file(path, shared=shared)


@pytest.mark.parametrize("key", [None, bytes(32)])
def test_a_folder_is_looked_at_again_under_its_lock(tmp_path: Path, key: bytes | None) -> None:
    with pytest.raises(FormatError, match=r"notes\.txt"):
        open_database(tmp_path / "db", key=key, env=ArrivalEnv())
    assert ["notes.txt"] == [path.name for path in (tmp_path / "db").iterdir()]


def test_an_open_that_waited_for_a_lock_file_which_is_gone_takes_the_next(
    tmp_path: Path,
) -> None:
    """The race of every lock file that is unlinked: one opens it, another unlinks it and makes the
    next, and both believe that they have the database.
    """
    path = tmp_path / "LOCK"

    class Race(PosixEnv):
        def unlink(self, path: str, *, site: str) -> None:
            if site == "database.refused.unlock":
                # Whoever looks at this moment is refused, and finds the same file.
                with pytest.raises(DatabaseLockedError):
                    open_database(tmp_path)
                super().unlink(path, site=site)
                # This one comes behind it, with a lock file of its own.
                other.append(open_database(tmp_path))
                return
            super().unlink(path, site=site)

    other: list[Database] = []
    with pytest.raises(ConnectionError):
        open_database(tmp_path, key=no_service, env=Race())
    assert path.exists()
    with pytest.raises(DatabaseLockedError):
        open_database(tmp_path)
    other[0][b"k"] = b"v"
    other[0].close()
    with open_database(tmp_path) as database:
        assert b"v" == database[b"k"]


def test_an_interpreter_without_its_lock_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(RuntimeError, match="PYTHON_GIL=1"):
        open_database(tmp_path / "db")
    assert [] == list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    open_database(tmp_path / "db").close()
    monkeypatch.delattr(sys, "_is_gil_enabled")
    open_database(tmp_path / "db").close()


def test_a_failed_open_gives_the_lock_back() -> None:
    machine, pairs = crashed()
    env = FaultEnv(machine)
    for kind, site in [
        ("create", "table.write.create"),
        ("sync", "wal.segment.sync"),
        ("sync_dir", "manifest.*"),
    ]:
        env.add(FaultRule(kind=kind, site=site, error=errno.ENOSPC))
        with pytest.raises(DiskFullError):
            open_database("/db", env=env)
        assert [] == machine.unreturned()
    with open_database("/db", env=env) as database:
        assert pairs == dict(database.items())


def test_two_handles_do_not_open_one_folder() -> None:
    env = SimEnv()
    with opened(env):
        for read_only in (False, True):
            with pytest.raises(DatabaseLockedError):
                open_database("/db", env=env, read_only=read_only)


@pytest.mark.parametrize(
    "arguments",
    [{"path": b"bytes"}, {"path": 5}, {"path": "x", "settings": {"memory_bytes": 1}}],
)
def test_arguments_of_a_wrong_type_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        open_database(env=SimEnv(), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [b"short", bytes(33), "", 5])
def test_what_is_no_key_is_refused_before_anything_is_done(key: object) -> None:
    env = SimEnv()
    with pytest.raises((TypeError, ValueError)):
        open_database("/db", env=env, key=key)  # type: ignore[arg-type]
    assert [] == env.op_log


def test_a_path_may_be_a_path_object(tmp_path: Path) -> None:
    with open_database(tmp_path / "db") as database:
        assert str(tmp_path / "db") == database.path


# --- settings


def test_a_folder_that_another_open_makes_meanwhile_is_used() -> None:
    env = SimEnv(1)
    fault = FaultEnv(env)
    fault.add(FaultRule(kind="list_dir", path="/db", error=errno.ENOENT))
    env.make_dir("/db", site="test.folder")
    with open_database("/db", env=fault) as database:
        database[b"k"] = b"v"
    assert fault.injected == 1


@pytest.mark.parametrize("ending", ["", "/", "//"])
def test_the_name_of_a_new_folder_is_synced_in_its_parent(tmp_path: Path, ending: str) -> None:
    fault = FaultEnv(PosixEnv())
    fault.add(FaultRule(site="database.parent.folder_sync"))
    with pytest.raises(OSError, match="Input/output"):
        open_database(f"{tmp_path}/db{ending}", env=fault)
    assert [one.path for one in fault.faults] == [str(tmp_path)]


def test_settings_are_kept_and_may_be_replaced() -> None:
    env = SimEnv()
    opened(env).close()
    with open_database("/db", env=env) as database:
        assert tiny() == database._engine.settings
    other = tiny(wal_segment_bytes=64 << 10, memory_bytes=4 << 20)
    with open_database("/db", env=env, settings=other) as database:
        assert other == database._engine.settings
        assert 4 << 20 == database.stats().pool_capacity_bytes
    assert other == stored_settings(VersionSet.recover(env, "/db"))
    with open_database("/db", env=env) as database:
        assert other == database._engine.settings


def test_settings_given_for_reading_are_not_kept() -> None:
    env = SimEnv()
    opened(env).close()
    other = tiny(memory_bytes=4 << 20)
    with open_database("/db", env=env, settings=other, read_only=True) as database:
        assert 4 << 20 == database.stats().pool_capacity_bytes
    assert tiny() == stored_settings(VersionSet.recover(env, "/db"))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_fixed_setting_cannot_change(read_only: bool) -> None:
    env = SimEnv()
    opened(env).close()
    before = env.op_count
    with pytest.raises(LimitError, match="wal_alignment_bytes"):
        open_database("/db", env=env, settings=tiny(wal_alignment_bytes=512), read_only=read_only)
    assert before == env.op_count
    opened(env).close()


def test_defaults_hold_for_a_database_without_settings() -> None:
    env = SimEnv()
    with open_database("/db", env=env) as database:
        assert DatabaseSettings() == database._engine.settings


# --- restart: the order, and the numbers of files


def test_a_restart_makes_new_files_before_it_removes_old_ones() -> None:
    machine, pairs = crashed("all")
    old = {name for name in machine.list_dir("/db") if name.endswith(SUFFIXES)}
    with open_database("/db", env=machine) as database:
        ops = list(machine.op_log)
        assert pairs == dict(database.items())
        made = {op.path.rpartition("/")[2] for op in ops if op.kind == "create"}
        assert not old & made, "no file of an earlier life is written to"
        written = {op.path.rpartition("/")[2] for op in ops if op.kind in ("write", "allocate")}
        assert written <= made

        def last(prefix: str) -> int:
            return max(op.number for op in ops if op.site.startswith(prefix))

        def first(prefix: str) -> int:
            return min(op.number for op in ops if op.site.startswith(prefix))

        assert last("table.folder_sync") < first("manifest."), "tables are durable first"
        assert last("wal.segment.folder_sync") < first("manifest.")
        assert last("manifest.") < first("recovery.orphan.unlink"), "old files go last"
        assert first("table.write.create") < first("wal.segment.create")


def test_nothing_is_acknowledged_from_a_log_that_is_not_in_new_files() -> None:
    """What a page cache shows after a failed sync may not be on the disk."""
    machine, pairs = crashed("all")
    with open_database("/db", env=machine):
        pass
    twice = CrashPoint(machine).state("none").build()
    with open_database("/db", env=twice) as database:
        assert pairs == dict(database.items())


@pytest.mark.parametrize("state", ["none", "all"])
def test_the_numbers_of_files_are_never_used_again(state: str) -> None:
    machine, _ = crashed("all")
    highest = 0
    for _ in range(4):
        present = [int(name[:8]) for name in machine.list_dir("/db") if name.endswith(SUFFIXES)]
        highest = max([highest, *present])
        with open_database("/db", env=machine) as database:
            fill(database)
            database.compact()
            point = CrashPoint(machine)
            made = [
                int(op.path.rpartition("/")[2][:8])
                for op in machine.op_log
                if op.kind == "create" and op.path.endswith(SUFFIXES)
            ]
        assert len(set(made)) == len(made)
        assert min(made) > highest
        machine = point.state(state).build()
