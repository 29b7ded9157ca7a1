"""Backups of open databases: whole, verifiable, and without harm to the origin."""

import asyncio
import errno
import threading
from contextlib import suppress
from itertools import pairwise

import pytest

import holdfast
import holdfast.aio
from holdfast.base import marks_seen
from holdfast.engine import open_database
from holdfast.env import FaultEnv, FaultRule, PosixEnv, SimEnv
from holdfast.env.fault import take_effect
from holdfast.recovery import check_folder
from tests.crash.copies import SMALL, small

KEY = bytes(range(32))
NEW_KEY = bytes(range(32, 64))
KEYS = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "db")


@pytest.fixture
def copy(tmp_path):
    return str(tmp_path / "copy")


def content(db):
    return {name: dict(db.keyspace(name).items()) for name in db.keyspaces()}


def copied(copy, key=None, env=None):
    """The content of a backup that was verified before and after it was opened."""
    source = holdfast.recovery.key_source(key)
    report = check_folder(env or PosixEnv(), copy, source=source)
    assert report.ok, report.errors
    with open_database(copy, create=False, key=key, env=env) as db:
        assert db.verify().ok
        return content(db)


@KEYS
def test_a_backup_of_an_empty_database_is_an_empty_database(path, copy, key):
    with holdfast.open(path, key=key) as db:
        db.backup(copy)
    assert copied(copy, key) == {"default": {}}


@KEYS
def test_a_backup_has_all_that_was_committed_in_whatever_form(path, copy, key):
    """Tables, several segments of log, unsynced writes, range deletes, merges, ingested rows."""
    with holdfast.open(path, key=key, settings=SMALL) as db:
        db.put_many((b"key %06d" % n, b"value %d" % n * 3) for n in range(4000))
        db.flush()
        db.keyspace("rows").ingest((b"row %06d" % n, b"r" * 50) for n in range(2000))
        for name in ("a", "b", "gone"):
            db.keyspace(name).put_many((b"k%d" % n, b"v" * 40) for n in range(800))
        db.drop_keyspace("gone")
        db.delete_range(b"key 000100", b"key 002000")
        db.keyspace("rows").delete_range(b"row 000000", b"row 000500")
        db.add(b"count", 5)
        db.flush()
        db.add(b"count", 6)
        db.merge(b"text", "append", b"x")
        db.put(b"unsynced", b"1", durability="none")
        expected = content(db)
        db.backup(copy + "/")
        db[b"later"] = b"1"
    found = copied(copy, key)
    assert found == expected
    assert found["default"][b"unsynced"] == b"1"
    with holdfast.open(path, key=key) as db:
        assert db.pop(b"later") == b"1"
        assert content(db) == expected


@KEYS
def test_writes_flushes_and_compactions_between_two_pieces_change_nothing(
    path, copy, key, monkeypatch
):
    """Each piece that is copied is followed by writes, a flush and a compaction of everything: the
    tables and segments of the copy leave the origin. None of them waits for the backup.
    """
    monkeypatch.setattr("holdfast.engine.backup.PIECE_BYTES", 20_000)
    with holdfast.open(path, key=key, settings=SMALL) as db:
        db.put_many((b"key %06d" % n, b"value %d" % n * 3) for n in range(3000))
        db.flush()
        db.put_many((b"log %06d" % n, b"value %d" % n * 3) for n in range(600))
        expected = content(db)
        calls = []

        def disturb(size, total):
            calls.append((size, total))
            if len(calls) % 3 == 1:
                db.put_many((b"key %06d" % n, b"new %d" % len(calls)) for n in range(3000))
                db.delete_range(b"log", b"loh")
                db.flush()
                db.compact()

        db.backup(copy, progress=disturb)
        assert len(calls) > 3
        assert sum(size for size, _ in calls) >= calls[0][1] > 0
        assert content(db) != expected
        names = {name for name in PosixEnv().list_dir(path) if name.endswith(".table")}
        assert len(names) == sum(level.tables for ks in db.stats().keyspaces for level in ks.levels)
        assert db.verify().ok
    assert copied(copy, key) == expected


@KEYS
def test_a_backup_under_writers_is_a_prefix_of_what_each_wrote(path, tmp_path, key):
    """Four writers, each in order; two keyspaces in each batch. Copies hold what was acknowledged
    before they began and no gap.
    """
    acknowledged = [0] * 4
    is_over = threading.Event()
    with holdfast.open(path, key=key, settings=SMALL) as db:
        other = db.keyspace("other")

        def write(writer):
            number = 0
            while not is_over.is_set():
                with db.transaction(durability="none") as txn:
                    txn[b"%d %08d" % (writer, number)] = b"v" * 100
                    txn.keyspace("other")[b"%d %08d" % (writer, number)] = b"w" * 100
                number += 1
                acknowledged[writer] = number

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        before = []
        try:
            for turn in range(4):
                before.append(list(acknowledged))
                db.backup(tmp_path / f"copy{turn}")
                other.compact()
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
    for turn, least in enumerate(before):
        found = copied(str(tmp_path / f"copy{turn}"), key)
        assert found["default"].keys() == found["other"].keys()
        for writer in range(4):
            mine = [name for name in found["default"] if name.startswith(b"%d " % writer)]
            assert mine == [b"%d %08d" % (writer, number) for number in range(len(mine))]
            assert len(mine) >= least[writer]
    assert sum(before[-1]) > 0


def test_a_key_that_changes_during_a_backup_opens_the_copy(path, copy):
    with holdfast.open(path, key=KEY, settings=SMALL) as db:
        db.put_many((b"key %06d" % n, b"value %d" % n * 3) for n in range(3000))
        expected = content(db)
        changes = []

        def change(size, total):
            if not changes:
                changes.append(1)
                db.rekey(NEW_KEY, rewrite=True)

        db.backup(copy, progress=change)
    assert copied(copy, NEW_KEY) == expected
    with pytest.raises(holdfast.WrongKeyError):
        holdfast.open(copy, key=KEY)
    with pytest.raises(holdfast.WrongKeyError):
        holdfast.open(copy)


def test_a_backup_satisfies_the_root_of_before(path, copy):
    with holdfast.open(path) as db:
        db[b"k"] = b"v"
        root = db.root_digest()
        db.backup(copy)
    with holdfast.open(copy, root=root) as db:
        assert db[b"k"] == b"v"


def test_a_backup_of_a_backup_and_of_a_restored_one_works(path, tmp_path):
    places = [path, *(str(tmp_path / f"copy{n}") for n in range(3))]
    with holdfast.open(path) as db:
        db[b"0"] = b"v"
    for number, (source, target) in enumerate(pairwise(places), 1):
        with holdfast.open(source) as db:
            db[b"%d" % number] = b"v"
            db.backup(target)
    assert copied(places[-1]) == {"default": {b"%d" % n: b"v" for n in range(4)}}


def test_a_folder_that_is_there_is_used_only_when_it_is_empty(path, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    with holdfast.open(path) as db:
        db[b"k"] = b"v"
        db.backup(tmp_path / "empty")
        with pytest.raises(FileExistsError, match="'mine'; give a new or an empty folder"):
            db.backup(tmp_path / "full")
        with pytest.raises(FileExistsError):
            db.backup(tmp_path / "empty")
        (tmp_path / "link").symlink_to(path)
        for inside in (path, path + "/", path + "/copy", tmp_path / "link" / "copy"):
            with pytest.raises(ValueError, match="lies in the folder of the database"):
                db.backup(inside)
        with pytest.raises(FileNotFoundError):
            db.backup(tmp_path / "absent" / "copy")
        with pytest.raises(TypeError):
            db.backup(b"copy")
        db.backup(path + "copy")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine"]
    assert copied(str(tmp_path / "empty")) == copied(path + "copy") == {"default": {b"k": b"v"}}


def test_a_handle_that_cannot_write_refuses(path, copy, tmp_path):
    with holdfast.open(path) as db:
        db[b"k"] = b"v"
    with pytest.raises(holdfast.DatabaseClosedError):
        db.backup(copy)
    with (
        holdfast.open(path, read_only=True) as db,
        pytest.raises(holdfast.ReadOnlyError, match="can be copied as it is"),
    ):
        db.backup(copy)
    assert not (tmp_path / "copy").exists()


def test_a_database_that_is_closed_meanwhile_ends_the_backup(path, copy, monkeypatch):
    monkeypatch.setattr("holdfast.engine.backup.PIECE_BYTES", 4096)
    db = holdfast.open(path)
    db.put_many((b"key %06d" % n, b"value" * 10) for n in range(2000))
    closers = []

    def close(size, total):
        if not closers:
            closers.append(threading.Thread(target=db.close))
            closers[0].start()
            while not db._engine.upkeep.is_stopped:
                pass

    with pytest.raises(holdfast.DatabaseClosedError, match="during the backup"):
        db.backup(copy, progress=close)
    closers[0].join()
    assert PosixEnv().list_dir(copy) == []
    with holdfast.open(path) as db:
        assert len(db) == 2000
        db.backup(copy)
    assert len(copied(copy)["default"]) == 2000


def test_tasks_go_on_during_a_backup(path, copy):
    async def main():
        async with await holdfast.aio.open(path) as db:
            await db.put(b"k", b"v")
            await db.backup(copy)

    asyncio.run(main())
    assert copied(copy) == {"default": {b"k": b"v"}}


def test_two_backups_to_one_folder_do_not_meet(path, copy, tmp_path):
    with holdfast.open(path) as db, holdfast.open(tmp_path / "other") as other:
        db[b"k"] = b"v"
        refused = []

        def try_too(size, total):
            with pytest.raises(holdfast.DatabaseLockedError):
                other.backup(copy)
            refused.append(1)

        db.backup(copy, progress=try_too)
        assert refused
        with pytest.raises(FileExistsError):
            other.backup(copy)
    assert copied(copy) == {"default": {b"k": b"v"}}


# --- failures


def judge_copy(env, expected, key=None):
    """The copy is whole, or refused, or there is nothing at all; return which."""
    try:
        names = env.list_dir("/copy")
    except FileNotFoundError:
        return "absent"
    if set(names) <= {"LOCK"}:
        return "empty"
    if set(names) <= {"LOCK", "UNFINISHED"}:
        return "begun"
    try:
        found = copied("/copy", key, env=env)
    except (AssertionError, holdfast.CorruptionError):
        with pytest.raises(holdfast.CorruptionError):
            open_database("/copy", env=env, key=key)
        return "refused"
    assert found == expected
    return "whole"


@KEYS
@pytest.mark.parametrize("effect", [None, take_effect], ids=["undone", "done"])
def test_every_call_of_a_backup_fails_once_and_leaves_nothing(key, effect):
    nth, sites = 0, set()
    while True:
        nth += 1
        inner = SimEnv(nth)
        env = FaultEnv(inner)
        db = small(env, key)
        expected = content(db)
        env.add(FaultRule(nth=nth, effect=effect))
        try:
            db.backup("/copy")
        except (OSError, holdfast.DatabasePoisonedError) as error:
            assert env.injected == 1
            is_origin = isinstance(error, holdfast.DatabasePoisonedError)
            assert is_origin == env.faults[0].site.startswith("wal.")
            assert not is_origin or env.faults[0].path.startswith("/db/")
            assert judge_copy(inner, expected, key) in ("absent", "empty")
        else:
            assert judge_copy(inner, expected, key) == "whole"
        sites |= {fault.site or fault.kind for fault in env.faults}
        env.clear()
        if not db._engine.is_poisoned:
            assert content(db) == expected
            assert db.verify().ok
        with suppress(holdfast.DatabasePoisonedError):
            db.close()
        if not any(
            fault.kind in ("open", "create", "lock_file") and effect for fault in env.faults
        ):
            # Nobody has a file that was opened although the call said that it failed.
            assert not inner.unreturned()
        with open_database("/db", env=inner, key=key) as again:
            found = content(again)
        if db._engine.is_poisoned:
            # Its log failed before what nobody had asked to be synced was in it.
            found["default"].setdefault(b"unsynced", b"1")
        assert found == expected
        if not env.injected:
            break
    assert sites >= {
        "open", "read", "wal.record.sync", "backup.folder.create", "backup.create", "backup.resize",
        "backup.write", "backup.sync",
        "backup.begin_sync", "backup.parent.folder_sync", "backup.end_sync",
        "manifest.create.write", "manifest.create.sync", "manifest.marker.create",
        "manifest.marker.folder_sync",
    }  # fmt: skip


@pytest.mark.parametrize("site", ["backup.create", "backup.write", "manifest.create.write"])
def test_a_full_disk_is_said_and_the_next_try_goes_through(site):
    inner = SimEnv(3)
    env = FaultEnv(inner)
    with small(env) as db:
        expected = content(db)
        env.add(FaultRule(site=site, nth=1, times=2, error=errno.ENOSPC, partial=3))
        with pytest.raises(holdfast.DiskFullError, match="no room for the backup"):
            db.backup("/copy")
        assert inner.list_dir("/copy") == []
        env.clear()
        db.backup("/copy")
    assert judge_copy(inner, expected) == "whole"


def test_a_copy_whose_removal_fails_too_is_refused():
    inner = SimEnv(4)
    env = FaultEnv(inner)
    with small(env) as db:
        expected = content(db)
        env.add(FaultRule(site="backup.parent.folder_sync"))
        env.add(FaultRule(site="backup.attempt.unlink", nth=1))
        with pytest.raises(OSError, match="Input/output"):
            db.backup("/copy")
        assert "backup.attempt_kept" in marks_seen()
        assert judge_copy(inner, expected) == "refused"
        db.backup("/copy")
        assert "recovery.unfinished_cleared" in marks_seen()
        assert judge_copy(inner, expected) == "whole"
        assert "UNFINISHED" not in inner.list_dir("/copy")
        assert content(db) == expected
