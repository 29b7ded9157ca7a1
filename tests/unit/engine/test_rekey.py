"""Changing keys, rewriting what older ones sealed, and digests that pin a state."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from time import sleep

import pytest

import holdfast
from holdfast import DatabaseSettings, KeyspaceSettings
from holdfast.base import marks_seen
from holdfast.crypto import KeyRing, KeySource
from holdfast.engine import open_database
from holdfast.env import FaultEnv, FaultRule, PosixEnv, SimCrash, SimEnv, crash_states
from holdfast.manifest import VersionEdit
from holdfast.recovery import check_folder

OLD = bytes(range(32))
NEW = bytes(range(32, 64))
SMALL = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=64 << 10,
    keyspace=KeyspaceSettings(
        memtable_bytes=1 << 16, page_bytes=1024, table_bytes=1 << 16, level0_tables=8
    ),
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "db")


def fill(db, count=3000):
    other = db.keyspace("other")
    for number in range(count):
        db.put(b"key %06d" % number, b"value %d" % number * 3, durability="none")
        other.put(b"key %06d" % number, b"other %d" % number, durability="none")
    db.sync()
    return content(db)


def content(db):
    return {name: dict(db.keyspace(name).items()) for name in db.keyspaces()}


def epochs_of(path, key):
    return KeyRing.load(PosixEnv(), path, KeySource(key)).epochs


def test_a_new_key_opens_and_the_old_one_does_not(path):
    with holdfast.open(path, key=OLD, settings=SMALL) as db:
        expected = fill(db)
        db.rekey(NEW)
        db[b"after"] = b"1"
        assert db.verify().ok
    with pytest.raises(holdfast.WrongKeyError):
        holdfast.open(path, key=OLD)
    with holdfast.open(path, key=NEW) as db:
        assert db.pop(b"after") == b"1"
        assert content(db) == expected
        assert db.verify().ok
    assert epochs_of(path, NEW) == (1, 2)


def test_a_passphrase_takes_the_place_of_a_raw_key_and_a_callable_that_of_a_passphrase(path):
    with holdfast.open(path, key=OLD) as db:
        db[b"k"] = b"v"
        db.rekey("the words")
    with holdfast.open(path, key="the words") as db:
        db.rekey(lambda wrapped: NEW if wrapped else (NEW, b"wrapped"))
    with holdfast.open(path, key=lambda wrapped: NEW) as db:
        assert db[b"k"] == b"v"


def test_a_rewrite_moves_every_table_and_the_next_open_drops_the_old_keys(path):
    with holdfast.open(path, key=OLD, settings=SMALL) as db:
        expected = fill(db)
        db.keyspace("other").ingest((b"z%06d" % n, b"x") for n in range(500))
        db.delete_range(b"key 000100", b"key 000200")
        expected = content(db)
        db.flush()
        told = []
        db.rekey(NEW, rewrite=True, progress=lambda size, total: told.append((size, total)))
        assert sum(size for size, _ in told) == told[0][1] > 0
        assert content(db) == expected
        assert db.verify().ok
    holdfast.open(path, key=NEW).close()
    assert epochs_of(path, NEW) == (2,)
    with holdfast.open(path, key=NEW) as db:
        assert content(db) == expected
    assert check_folder(PosixEnv(), path, source=KeySource(NEW)).ok


def test_keys_stay_as_long_as_a_kept_segment_needs_them(path):
    settings = DatabaseSettings(wal_keep_bytes=8 << 20)
    with holdfast.open(path, key=OLD, settings=settings) as db:
        db[b"k"] = b"v"
        db.rekey(NEW, rewrite=True)
    with holdfast.open(path, key=NEW) as db:
        assert [change.seq for change in db.changes()] == [1]
    assert epochs_of(path, NEW) == (1, 2)


def test_a_rewrite_that_was_cut_off_goes_on_where_it_was(path):
    with holdfast.open(path, key=OLD, settings=SMALL) as db:
        expected = fill(db)
        db.flush()

        def stop(size, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            db.rekey(NEW, rewrite=True, progress=stop)
    with holdfast.open(path, key=NEW) as db:
        told = []
        db.rekey(rewrite=True, progress=lambda size, total: told.append(size))
        assert told
        assert content(db) == expected
        db.rekey(rewrite=True, progress=lambda size, total: told.append(None))
        assert None not in told
    holdfast.open(path, key=NEW).close()
    assert epochs_of(path, NEW) == (2,)


def test_a_plain_database_has_no_key_to_change(path):
    with holdfast.open(path) as db, pytest.raises(holdfast.WrongKeyError, match="not encrypted"):
        db.rekey(NEW)


def test_a_handle_that_only_reads_changes_no_key(path):
    holdfast.open(path, key=OLD).close()
    with holdfast.open(path, key=OLD, read_only=True) as db, pytest.raises(holdfast.ReadOnlyError):
        db.rekey(NEW)


@pytest.mark.parametrize("key", [b"short", "", 5])
def test_what_is_no_key_is_refused_and_changes_nothing(path, key):
    with holdfast.open(path, key=OLD) as db, pytest.raises((TypeError, ValueError)):
        db.rekey(key)
    holdfast.open(path, key=OLD).close()


def opened_by(env, keys):
    """What the database in a simulated machine holds, and which of the keys open it."""
    found = []
    for key in keys:
        try:
            with open_database("/db", env=env, key=key) as db:
                found.append((key, content(db)))
                assert db.verify().ok
        except holdfast.WrongKeyError:
            continue
    return found


def small(env, key=OLD):
    db = open_database("/db", env=env, key=key, settings=SMALL)
    for number in range(20):
        db[b"%d" % number] = b"x" * 50
    db.flush()
    return db


def test_power_may_fail_at_any_moment_of_a_change_and_of_a_rewrite():
    """One of the two keys opens the database then, with everything in it; the new one once the call
    has returned.
    """
    env = SimEnv(5)
    db = small(env)
    before = env.op_count
    db.rekey(NEW, rewrite=True)
    count = env.op_count - before
    expected = content(db)
    db.close()
    assert count > 20
    states = 0
    for step in range(count):
        env = SimEnv(5)
        db = small(env)
        env.crash_at(env.op_count + step)
        with suppress(SimCrash, holdfast.Error, OSError):
            db.rekey(NEW, rewrite=True)
        with suppress(SimCrash, holdfast.Error, OSError):
            db.close()
        for state in crash_states(env, ["none", "all", "prefix", "drop-one"]):
            states += 1
            found = opened_by(state.build(), (OLD, NEW))
            assert len(found) == 1, state
            assert found[0][1] == expected
    assert states > 2 * count


@pytest.mark.parametrize("nth", range(1, 5))
def test_a_disk_that_fails_leaves_one_of_the_two_keys(nth):
    env = SimEnv(6)
    fault = FaultEnv(env)
    db = small(fault)
    expected = content(db)
    fault.add(FaultRule(site="keys.*", nth=nth))
    try:
        db.rekey(NEW)
    except OSError:
        pass
    db.close()
    found = opened_by(env, (OLD, NEW))
    assert len(found) == 1
    assert found[0][1] == expected


def test_old_keys_that_cannot_be_dropped_are_kept(path):
    env = SimEnv(7)
    db = small(env)
    db.rekey(NEW, rewrite=True)
    db.close()
    fault = FaultEnv(env)
    # The first one is that of the open itself.
    fault.add(FaultRule(site="keys.sync", nth=2))
    open_database("/db", env=fault, key=NEW).close()
    assert "keys.old_kept" in marks_seen()
    open_database("/db", env=env, key=NEW).close()
    assert KeyRing.load(env, "/db", KeySource(NEW)).epochs == (2,)


# -- roots


@pytest.fixture(params=[None, OLD], ids=["plain", "encrypted"])
def key(request):
    return request.param


def test_a_root_changes_with_every_commit_and_with_nothing_else(path, key):
    with holdfast.open(path, key=key) as db:
        roots = [db.root_digest()]
        db[b"a"] = b"1"
        roots.append(db.root_digest())
        db.put(b"b", b"2", durability="none")
        roots.append(db.root_digest())
        assert db.root_digest() == roots[-1]
        dict(db.items())
        db.verify()
        assert db.root_digest() == roots[-1]
        db.flush()
        roots.append(db.root_digest())
    assert len(set(roots)) == len(roots)
    assert roots == sorted(roots)
    assert all(len(root) == 48 for root in roots)


def test_a_root_is_that_of_the_next_open(path, key):
    with holdfast.open(path, key=key) as db:
        db[b"a"] = b"1"
        root = db.root_digest()
        shutil.copytree(path, f"{path}-crashed")
    with holdfast.open(f"{path}-crashed", key=key, read_only=True, root=root) as db:
        assert db.root_digest() == root
    with holdfast.open(f"{path}-crashed", key=key, root=root) as db:
        assert db[b"a"] == b"1"
        assert db.root_digest() > root
    for folder in (path, f"{path}-crashed"):
        with holdfast.open(folder, key=key, read_only=True) as db:
            closed = db.root_digest()
        holdfast.open(folder, key=key, root=closed).close()


@pytest.mark.parametrize("by", ["edit", "record"])
def test_a_folder_that_was_set_back_is_refused(path, key, by):
    with holdfast.open(path, key=key) as db:
        db[b"a"] = b"1"
        shutil.copytree(path, f"{path}-older")
        db[b"a"] = b"2"
        if by == "edit":
            db.flush()
        root = db.root_digest()
    for read_only in (True, False):
        with pytest.raises(holdfast.CorruptionError, match="set back"):
            holdfast.open(f"{path}-older", key=key, root=root, read_only=read_only)
    with holdfast.open(f"{path}-older", key=key) as db:
        assert db[b"a"] == b"1"


def test_another_history_of_the_same_length_is_refused(path, key):
    """Two copies of one folder that went on alike, up to what was written."""
    holdfast.open(path, key=key).close()
    shutil.copytree(path, f"{path}-clone")
    with holdfast.open(path, key=key) as db:
        db[b"a"] = b"1"
        root = db.root_digest()
        shutil.copytree(path, f"{path}-one")
    with holdfast.open(f"{path}-clone", key=key) as db:
        db[b"a"] = b"2"
        shutil.copytree(f"{path}-clone", f"{path}-two")
    holdfast.open(f"{path}-one", key=key, root=root).close()
    with pytest.raises(holdfast.CorruptionError, match="another history"):
        holdfast.open(f"{path}-two", key=key, root=root)


def test_what_is_no_root_is_refused(path):
    holdfast.open(path).close()
    with pytest.raises(ValueError, match="48 bytes"):
        holdfast.open(path, root=b"x")


def test_the_log_of_a_clone_does_not_take_the_place_of_the_log(path):
    """Both copies have the same keys, and a segment with the same number, ordinals and previous."""
    holdfast.open(path, key=OLD).close()
    shutil.copytree(path, f"{path}-clone")
    for folder, value in ((path, b"1"), (f"{path}-clone", b"2")):
        with holdfast.open(folder, key=OLD) as db:
            db[b"a"] = value
            shutil.copytree(folder, f"{folder}-crashed")
    (mine,) = Path(f"{path}-crashed").glob("*.wal")
    (theirs,) = Path(f"{path}-clone-crashed").glob("*.wal")
    assert mine.name == theirs.name
    shutil.copy(theirs, mine)
    assert not check_folder(PosixEnv(), f"{path}-crashed", source=KeySource(OLD)).ok
    with pytest.raises(holdfast.CorruptionError, match="another copy"):
        holdfast.open(f"{path}-crashed", key=OLD)


def test_an_older_key_file_does_not_open_newer_files(path):
    """Somebody who knows the key of before puts its file back."""
    holdfast.open(path, key=OLD).close()
    shutil.copy(f"{path}/KEYS.1", f"{path}-KEYS.1")
    with holdfast.open(path, key=OLD) as db:
        db.rekey(NEW)
        db[b"k"] = b"v"
    for newer in Path(path).glob("KEYS.*"):
        newer.unlink()
    shutil.copy(f"{path}-KEYS.1", f"{path}/KEYS.1")
    with pytest.raises(holdfast.CorruptionError, match="epoch 2"):
        holdfast.open(path, key=OLD)


def asks_and_waits(asked, go):
    """Return a key service whose answer waits until `go`."""

    def answer(wrapped):
        if wrapped is None:
            asked.set()
            assert go.wait(30)
            return NEW, b"wrapped"
        return NEW

    return answer


def in_a_thread(call):
    """Begin a call in a thread; return what waits for it and returns what it raised, or None."""
    with_error = ThreadPoolExecutor(1).submit(call)
    return lambda: with_error.exception(30)


def test_a_change_that_waits_for_a_key_service_does_not_touch_what_was_closed(path):
    asked, go = Event(), Event()
    db = holdfast.open(path, key=OLD)
    db[b"k"] = b"v"
    changed = in_a_thread(lambda: db.rekey(asks_and_waits(asked, go)))
    assert asked.wait(30)
    db.close()
    with holdfast.open(path, key=OLD) as db:
        go.set()
        assert isinstance(changed(), holdfast.DatabaseClosedError)
        db[b"k2"] = b"v2"
    with holdfast.open(path, key=OLD) as db:
        assert dict(db) == {b"k": b"v", b"k2": b"v2"}


def test_a_close_waits_for_a_change_that_has_begun(path, monkeypatch):
    begun, go = Event(), Event()
    real = KeyRing.replace

    def replace(ring, *protected):
        begun.set()
        assert go.wait(30)
        real(ring, *protected)

    monkeypatch.setattr(KeyRing, "replace", replace)
    db = holdfast.open(path, key=OLD)
    db[b"k"] = b"v"
    changed = in_a_thread(lambda: db.rekey(NEW))
    assert begun.wait(30)
    closed = in_a_thread(db.close)
    sleep(0.05)
    with pytest.raises(holdfast.DatabaseLockedError):
        holdfast.open(path, key=OLD)
    go.set()
    assert closed() is None
    # The new log that it asks for last may come too late.
    assert changed() is None or isinstance(changed(), holdfast.DatabaseClosedError)
    with holdfast.open(path, key=NEW) as db:
        assert dict(db) == {b"k": b"v"}


def test_no_edit_is_logged_behind_a_close(path):
    db = holdfast.open(path)
    db.close()
    before = {file.name: file.read_bytes() for file in Path(path).iterdir()}
    engine = db._engine
    with engine.version_mutex:
        with pytest.raises(holdfast.DatabaseClosedError):
            engine.log_edit(VersionEdit(has_merges=True))
        with pytest.raises(holdfast.DatabaseClosedError):
            engine.rewrite_manifest()
    assert {file.name: file.read_bytes() for file in Path(path).iterdir()} == before
