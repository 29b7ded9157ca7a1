"""Bugs that the fault runs found, each in the smallest form."""

import errno
from contextlib import suppress

import pytest

import holdfast
from holdfast.env import CrashPoint, FaultEnv, FaultRule
from tests.fault.client import TINY, BoundedEnv


def opened(*rules: FaultRule) -> tuple[FaultEnv, holdfast.Database]:
    env = FaultEnv(BoundedEnv(), rules)
    return env, holdfast.open("/db", settings=TINY, env=env)


def test_a_failed_manifest_edit_is_told_as_poison_not_as_a_bare_os_error() -> None:
    env, database = opened()
    env.add(FaultRule(site="manifest.edit.sync"))
    with pytest.raises(holdfast.DatabasePoisonedError):
        database.keyspace("other")
    with pytest.raises(holdfast.DatabasePoisonedError):
        database.close()


@pytest.mark.parametrize("site", ["table.write.create", "table.write.sync", "table.folder_sync"])
def test_a_failed_table_of_a_manual_compaction_poisons(site: str) -> None:
    env, database = opened()
    database[b"key"] = b"value"
    database.flush()
    env.add(FaultRule(site=site))
    with pytest.raises(holdfast.DatabasePoisonedError):
        database.compact()
    with pytest.raises(holdfast.DatabasePoisonedError):
        database[b"key"] = b"other"
    assert b"value" == database[b"key"]
    with pytest.raises(holdfast.DatabasePoisonedError):
        database.close()


def test_a_manual_compaction_without_room_says_so_and_works_when_there_is_room() -> None:
    env, database = opened()
    database[b"key"] = b"value"
    database.flush()
    env.add(FaultRule(site="table.write.append", error=errno.ENOSPC))
    with pytest.raises(holdfast.DiskFullError):
        database.compact()
    database.compact()
    database.close()


def test_closing_a_poisoned_database_says_that_unsynced_writes_may_be_lost() -> None:
    env, database = opened()
    database.put(b"key", b"value", durability="none")
    env.add(FaultRule(site="wal.record.sync"))
    with pytest.raises(holdfast.DatabasePoisonedError):
        database[b"other"] = b"value"
    with pytest.raises(holdfast.DatabasePoisonedError):
        database.close()
    database.close()


def test_the_error_that_ends_a_with_block_is_not_replaced_by_that_of_the_close() -> None:
    env, database = opened()
    env.add(FaultRule(site="wal.record.sync"))
    with pytest.raises(holdfast.DatabasePoisonedError, match="the log failed"):
        with database:
            database[b"key"] = b"value"


def test_a_close_without_room_for_tables_leaves_everything_in_the_log() -> None:
    env, database = opened()
    database.put(b"key", b"value", durability="none")
    env.add(FaultRule(site="table.*", error=errno.ENOSPC, times=None))
    database.close()
    env.clear()
    assert "engine.close_disk_full" in holdfast.base.marks_seen()
    with holdfast.open("/db", env=env) as database:
        assert b"value" == database[b"key"]


def test_a_second_flush_tries_again_what_found_no_room() -> None:
    env, database = opened()
    database[b"key"] = b"value"
    # Always: the flush that is waited for may be tried again at once, by the one who waits.
    env.add(FaultRule(site="table.write.append", error=errno.ENOSPC, times=None))
    with pytest.raises(holdfast.DiskFullError):
        database.flush()
    env.clear()
    database.flush()
    assert database.verify().tables == 1
    database.close()


def test_an_open_without_room_removes_what_it_made() -> None:
    env, database = opened()
    database[b"key"] = b"value"
    env.add(FaultRule(site="table.*", error=errno.ENOSPC, times=None))
    database.close()
    env.clear()
    before = env.list_dir("/db")
    for site in ("table.write.sync", "wal.segment.allocate", "manifest.*"):
        env.add(FaultRule(site=site, error=errno.ENOSPC))
        with pytest.raises(holdfast.DiskFullError):
            holdfast.open("/db", env=env)
        env.clear()
        assert before == env.list_dir("/db")
    assert "recovery.attempt_removed" in holdfast.base.marks_seen()
    with holdfast.open("/db", env=env) as database:
        assert b"value" == database[b"key"]


def test_a_folder_that_finds_no_room_is_a_full_disk() -> None:
    for kind in ("make_dir", "lock_file"):
        env = FaultEnv(BoundedEnv(), [FaultRule(kind=kind, error=errno.ENOSPC)])
        with pytest.raises(holdfast.DiskFullError):
            holdfast.open("/db", env=env)


def test_settings_that_cannot_change_are_refused_before_anything_is_written() -> None:
    env, database = opened()
    database[b"key"] = b"value"
    env.add(FaultRule(site="table.*", error=errno.ENOSPC, times=None))
    database.close()
    env.clear()
    count = env.inner.op_count
    with pytest.raises(holdfast.LimitError):
        holdfast.open("/db", settings=holdfast.DatabaseSettings(wal_alignment_bytes=512), env=env)
    with pytest.raises(TypeError):
        holdfast.open("/db", settings={}, env=env)
    assert count == env.inner.op_count


def test_an_open_that_cannot_list_the_folder_at_its_end_closes_its_files() -> None:
    env, database = opened()
    database.close()
    for nth in range(1, 99):
        env.add(FaultRule(kind="list_dir", nth=nth, times=None))
        try:
            with holdfast.open("/db", env=env) as database:
                database[b"key"] = b"value"
            break
        except (OSError, holdfast.DatabasePoisonedError):
            # The second is of the close, which lists the folder when it goes to its last manifest.
            assert not env.inner.unreturned()
        finally:
            env.clear()
    # The last listing is of files that nothing names: an open can do without.
    assert "recovery.orphan_kept" in holdfast.base.marks_seen()
    assert not env.inner.unreturned()


def test_a_compacted_table_that_cannot_be_read_does_not_enter_the_manifest() -> None:
    env, database = opened()
    database[b"key"] = b"value"
    database.flush()
    # Numbers go up: the next table is the output.
    for error, told in ((errno.EIO, OSError), (errno.EMFILE, holdfast.DiskFullError)):
        env.add(FaultRule(kind="open", path="*.table", error=error))
        with pytest.raises(told):
            database.compact()
        env.clear()
    assert 1 == database.verify().tables
    database[b"key"] = b"other"
    database.compact()
    assert b"other" == database[b"key"]
    database.close()
    assert not env.inner.unreturned()


def test_a_folder_whose_name_was_never_synced_is_synced_when_it_becomes_a_database() -> None:
    """An attempt made the folder and ended before its name was durable; the next one finds it."""
    machine = BoundedEnv()
    env = FaultEnv(machine, [FaultRule(site="database.parent.folder_sync")])
    with pytest.raises(OSError, match="Input/output"):
        holdfast.open("/db", settings=TINY, env=env)
    with holdfast.open("/db", settings=TINY, env=env) as database:
        database[b"key"] = b"value"
    left = CrashPoint(machine).state("none").build()
    with holdfast.open("/db", create=False, env=left) as database:
        assert b"value" == database[b"key"]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize(
    "rule",
    [
        {"site": "table.write.create"},
        {"site": "table.folder_sync"},
        {"kind": "open", "path": "*.table"},
    ],
    ids=["create", "folder", "open"],
)
def test_a_flush_without_descriptors_is_told_and_tried_again(rule: dict, error: int) -> None:
    env, database = opened()
    database[b"key"] = b"value"
    env.add(FaultRule(**rule, error=error, times=None))
    with pytest.raises(holdfast.DiskFullError, match="Too many open files"):
        database.flush()
    assert not database.stats().poisoned
    assert "Too many open files" in str(database.stats().background_error)
    database[b"other"] = b"value"
    env.clear()
    database.flush()
    assert database.stats().background_error is None
    assert {b"key": b"value", b"other": b"value"} == dict(database.items())
    database.close()
    with holdfast.open("/db", env=env) as database:
        assert 2 == len(database)


@pytest.mark.parametrize("kind", ["create", "open"])
def test_a_background_compaction_without_descriptors_is_tried_again(kind: str) -> None:
    env, database = opened()
    for number in range(6):
        database[b"key"] = b"%d" % number
        # What a flush makes has a number that the next compaction does not.
        database.flush()
        database._engine.upkeep.wait_idle()
        if number == 2:
            site = "table.write.create" if kind == "create" else ""
            rule = FaultRule(kind=kind, site=site, path="*.table", nth=2, error=errno.EMFILE)
            env.add(rule)
    assert 1 == env.injected
    assert not database.stats().poisoned
    assert database.stats().compactions > 0
    assert database.stats().background_error is None
    database.close()


def test_an_open_without_descriptors_leaves_nothing_and_may_be_tried_again() -> None:
    env, database = opened()
    database[b"key"] = b"value"
    database.close()
    nth, struck = 1, 1
    while struck:
        before = env.injected
        for kind in ("create", "open", "sync_dir", "lock_file"):
            env.add(FaultRule(kind=kind, nth=nth, error=errno.EMFILE))
        try:
            database = holdfast.open("/db", env=env)
        except holdfast.DiskFullError as error:
            assert "Too many open files" in str(error)
        else:
            env.clear()
            with suppress(holdfast.DatabasePoisonedError):
                database.close()
        env.clear()
        struck = env.injected - before
        assert not env.inner.unreturned()
        with holdfast.open("/db", env=env) as database:
            assert b"value" == database[b"key"]
        nth += 1
    assert nth > 5


def test_a_manifest_whose_marker_finds_no_descriptor_is_written_by_the_next_edit() -> None:
    env, database = opened()
    database[b"key"] = b"value"
    engine = database._engine
    env.add(FaultRule(site="manifest.marker.create", error=errno.EMFILE))
    with engine.version_mutex, pytest.raises(holdfast.DiskFullError):
        engine.rewrite_manifest()
    assert not database.stats().poisoned
    with engine.version_mutex:
        engine.rewrite_manifest()
    database[b"key"] = b"other"
    database.close()
    with holdfast.open("/db", env=env) as database:
        assert b"other" == database[b"key"]


def test_a_damaged_input_of_a_compaction_stays_in_the_figures_when_a_flush_succeeds() -> None:
    env, database = opened()
    for number in range(2):
        database.put_many({b"key %03d" % n: b"%d" % number * 40 for n in range(50)})
        database.flush()
    database._engine.upkeep.wait_idle()
    for name in env.list_dir("/db"):
        if name.endswith(".table"):
            env.add(FaultRule(kind="read", path=name, times=None))
    for number in range(3):
        database.put_many({b"key %03d" % n: b"%d more" % number * 40 for n in range(50)})
        database.flush()
        database._engine.upkeep.wait_idle()
    assert "Input/output error" in str(database.stats().background_error)
    database.flush()
    assert "Input/output error" in str(database.stats().background_error)
    env.clear()
    database.compact()
    assert database.stats().background_error is None
    database.close()


def test_a_poisoned_database_keeps_the_tables_that_a_late_compaction_replaced() -> None:
    """The compaction had begun its edit when another thread's commit failed."""
    env, database = opened()
    for number in range(2):
        # Their ranges overlap, or the compaction would only move them.
        database.put_many({b"a": b"%d" % number, b"z": b"%d" % number})
        database.flush()
        database._engine.upkeep.wait_idle()
    engine = database._engine
    before = [name for name in env.list_dir("/db") if name.endswith(".table")]
    log_edit = engine.log_edit

    def fail_behind(edit):
        version = log_edit(edit)
        engine.poison(OSError(errno.EIO, "the log failed"))
        return version

    engine.log_edit = fail_behind
    with pytest.raises(holdfast.DatabasePoisonedError):
        database.compact()
    assert set(before) < set(env.list_dir("/db"))
    with pytest.raises(holdfast.DatabasePoisonedError):
        database.close()
    with holdfast.open("/db", env=env) as database:
        assert 2 == len(database)
    assert not set(before) & set(env.list_dir("/db"))
