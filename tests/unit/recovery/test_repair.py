"""Repair: what can be read is there afterwards, what is lost is said, and no original is gone."""

import errno
from contextlib import suppress

import pytest

import holdfast
from holdfast import DatabaseSettings, KeyspaceSettings, LossKind, Outcome
from holdfast.env import FaultEnv, FaultRule, PosixEnv
from holdfast.manifest import manifest_name
from holdfast.recovery import check_folder, key_source
from holdfast.sstable import TABLE_TAIL_BYTES, Footer
from tests.crash.copies import damaged, durable
from tests.hostile.folders import FOLDER, closed_database, crashed_database, files_of, machine_with

KEY = bytes(range(32))
KEYS = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
SMALL = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=4 << 10,
    wal_bytes_max=1 << 20,
    keyspace=KeyspaceSettings(
        memtable_bytes=64 << 10,
        page_bytes=512,
        table_bytes=4 << 10,
        level0_tables=64,
        level1_bytes=8 << 10,
        level_ratio=2,
    ),
)


def content(db):
    return {name: dict(db.keyspace(name).items()) for name in db.keyspaces()}


def repaired(env, key=None, folder=FOLDER):
    """The content of a repaired database, which is verified before and after it was opened."""
    report = check_folder(env, folder, source=key_source(key))
    assert report.ok, report.errors
    with holdfast.open(folder, create=False, env=env, key=key) as db:
        assert db.verify().ok
        found = content(db)
        db[b"probe"] = b"1"
    with holdfast.open(folder, create=False, env=env, key=key) as db:
        assert db[b"probe"] == b"1"
    return found


def unsaid(report, expected, found):
    """The keys whose answer is another than before although no loss is about them."""
    return [
        (name, key)
        for name in expected.keys() | found.keys()
        for key in expected.get(name, {}).keys() | found.get(name, {}).keys()
        if expected.get(name, {}).get(key) != found.get(name, {}).get(key)
        and not any(loss.concerns(name, key) for loss in report.losses)
    ]


def bytes_of(folder):
    """The content of a folder; who locks it says so there."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "LOCK"}


def flipped(data, at, count=1):
    return data[:at] + bytes(byte ^ 0x55 for byte in data[at : at + count]) + data[at + count :]


def named(files, suffix):
    return sorted(name for name in files if name.endswith(suffix))


def check_originals(machine, files, report):
    """Every file of before is as it was: in its place, or put aside."""
    for name, data in files.items():
        if name in ("LOCK", "LIVE", "WATCH"):
            continue
        places = [f"{FOLDER}/{name}"]
        if report.set_aside is not None:
            places.append(f"{report.set_aside}/{name}")
        found = []
        for place in places:
            with suppress(FileNotFoundError):
                file = machine.open(place)
                found.append(file.read_at(0, file.size()))
                file.close()
        assert data in found, name


# --- kinds of damage


@KEYS
def test_a_healthy_database_is_left_alone(tmp_path, key):
    path = str(tmp_path / "db")
    with holdfast.open(path, key=key) as db:
        db[b"k"] = b"v"
    before = bytes_of(tmp_path / "db")
    report = holdfast.repair(path, key=key)
    assert report.outcome is Outcome.HEALTHY
    assert str(report) == f"{path}: no damage found; nothing was changed"
    holdfast.repair(path, tmp_path / "new", key=key)
    assert not (tmp_path / "new").exists()
    assert bytes_of(tmp_path / "db") == before


@pytest.mark.parametrize("make", [closed_database, crashed_database], ids=["closed", "crashed"])
def test_after_any_flip_every_answer_is_right_or_its_key_is_said_to_be_lost(make, rng):
    """A stretch of 16 bytes at places all over every file. What was written last is another
    matter: before a repair looks, it looks like the torn end of a log to every open.
    """
    files, states = make()
    state = states if isinstance(states, dict) else states[-1]
    last = states if isinstance(states, dict) else states[-2]
    outcomes = set()
    for name in [*named(files, ".table"), *named(files, ".wal"), *named(files, ".manifest")]:
        data = files[name]
        for at in range(rng.randrange(149), len(data), 149):
            if not any(data[at : at + 16]):
                continue
            machine = machine_with(files | {name: flipped(data, at, 16)})
            report = holdfast.repair(FOLDER, env=machine)
            check_originals(machine, files | {name: flipped(data, at, 16)}, report)
            found = repaired(machine)
            if name.endswith(".wal") and report.outcome is Outcome.HEALTHY:
                assert found in (state, last)
            else:
                assert unsaid(report, state, found) == [], (name, at, str(report))
            outcomes.add((name.rpartition(".")[2], report.outcome))
            machine.cut_power()
    assert ("table", Outcome.REPAIRED) in outcomes
    assert ("table", Outcome.REPAIRED_WITH_LOSS) in outcomes
    assert ("wal", Outcome.REPAIRED) in outcomes
    assert ("manifest", Outcome.REPAIRED_WITH_LOSS) in outcomes or make is closed_database


@KEYS
def test_a_damaged_page_loses_its_own_keys_and_no_others(tmp_path, key):
    path = str(tmp_path / "db")
    with holdfast.open(path, key=key, settings=SMALL) as db:
        db.put_many((b"key %04d" % n, b"value %d" % n * 5) for n in range(400))
        db.compact()
        expected = content(db)
    tables = sorted((tmp_path / "db").glob("*.table"))
    tables[1].write_bytes(flipped(tables[1].read_bytes(), 700, 4))
    report = holdfast.repair(path, key=key)
    (loss,) = report.losses
    assert loss.kind is LossKind.ENTRIES
    assert loss.file == str(tables[1])
    assert loss.offset <= 700
    found = repaired(PosixEnv(), key, path)
    lost = sorted(expected["default"].keys() - found["default"].keys())
    assert len(lost) == loss.count
    assert 1 < len(lost) < 40
    assert all(loss.concerns("default", each) for each in lost)
    assert sum(loss.concerns("default", each) for each in expected["default"]) == len(lost) + 2
    assert f"lost: entries ({loss.count}) in keyspace 'default', from " in str(report)


def footer_of(table, key):
    """The footer of a table file, and the size of its plain face."""
    data = table.read_bytes()
    size = len(data) - (TABLE_TAIL_BYTES if key else 0)
    return Footer.decode(data[size - 128 : size], str(table), size), size


@KEYS
@pytest.mark.parametrize("place", ["index", "root", "properties", "footer", "tail"])
def test_damage_outside_of_the_data_loses_nothing(tmp_path, key, place):
    path = str(tmp_path / "db")
    with holdfast.open(path, key=key, settings=SMALL) as db:
        db.put_many((b"key %04d" % n, b"value %d" % n * 5) for n in range(100))
        db.flush()
        expected = content(db)
    (table,) = (tmp_path / "db").glob("*.table")
    footer, size = footer_of(table, key)
    at = {
        "index": footer.root.offset - 40,
        "root": footer.root.offset,
        "properties": footer.properties.offset + 3,
        "footer": size - 60,
        "tail": size - 4,
    }[place]
    table.write_bytes(flipped(table.read_bytes(), at))
    report = holdfast.repair(path, key=key)
    assert report.outcome is Outcome.REPAIRED, str(report)
    assert report.tables_rebuilt == 1
    assert repaired(PosixEnv(), key, path) == expected


@KEYS
def test_lost_range_deletes_are_said(tmp_path, key):
    path = str(tmp_path / "db")
    with holdfast.open(path, key=key, settings=SMALL) as db:
        db.put_many((b"key %04d" % n, b"v") for n in range(100))
        db.flush()
        # Without it a compaction may have taken the range delete by now.
        view = db.snapshot()
        db.delete_range(b"key 0010", b"key 0020")
        db[b"later"] = b"1"
        expected = content(db)
    view.close()
    table = max((tmp_path / "db").glob("*.table"))
    footer, _ = footer_of(table, key)
    table.write_bytes(flipped(table.read_bytes(), footer.tombstones.offset))
    report = holdfast.repair(path, key=key)
    (loss,) = report.losses
    assert (loss.kind, loss.count) == (LossKind.DELETES, 1)
    found = repaired(PosixEnv(), key, path)
    assert found["default"].keys() > expected["default"].keys()
    assert unsaid(report, expected, found) == []


@KEYS
def test_a_missing_table_is_lost_with_its_range_and_count(tmp_path, key):
    path = str(tmp_path / "db")
    with holdfast.open(path, key=key, settings=SMALL) as db:
        db.put_many((b"key %04d" % n, b"value %d" % n * 5) for n in range(400))
        db.compact()
        db.keyspace("other")[b"o"] = b"1"
        expected = content(db)
    tables = sorted((tmp_path / "db").glob("*.table"))
    tables[0].unlink()
    report = holdfast.repair(path, key=key)
    (loss,) = report.losses
    assert (loss.kind, loss.keyspace) == (LossKind.ENTRIES, "default")
    assert "missing" in loss.reason
    found = repaired(PosixEnv(), key, path)
    assert found["other"] == expected["other"]
    assert len(expected["default"]) - len(found["default"]) == loss.count
    assert unsaid(report, expected, found) == []
    assert report.tables_lost == 1


def crowded(path, key=None):
    """A database with all that a manifest has to say: levels, keyspaces with settings, range
    deletes, merges, ingested rows, and operations that are only in the log.
    """
    db = holdfast.open(path, key=key, settings=SMALL)
    db.put_many((b"key %04d" % n, b"value %d" % n * 5) for n in range(300))
    db.flush()
    db.compact()
    db.keyspace("rows").ingest((b"row %04d" % n, b"r" * 20) for n in range(100))
    windows = KeyspaceSettings(compaction="time-window", window_seconds=7, memtable_bytes=5000)
    db.keyspace("windows", settings=windows)[bytes(8)] = b"w"
    db.keyspace("gone")[b"g"] = b"1"
    db.drop_keyspace("gone")
    for number in range(0, 300, 3):
        db[b"key %04d" % number] = b"newer"
    db.delete_range(b"key 0100", b"key 0120")
    del db[b"key 0200"]
    db.add(b"count", 5)
    db.flush()
    db.add(b"count", 6)
    db.keyspace("windows").flush()
    db[b"key 0001"] = b"newest"
    del db[b"key 0002"]
    db.keyspace("windows")[bytes(7) + b"1"] = b"x"
    db.keyspace("logged")[b"only"] = b"here"
    return db


def settings_of(db, name):
    return db._engine.version.keyspace_named(name).settings


def lose_manifest(folder, how):
    (path,) = folder.glob("*.manifest")
    if how == "missing":
        path.unlink()
    elif how == "garbage":
        path.write_bytes(bytes(len(path.read_bytes())))
    else:
        data = path.read_bytes()
        path.write_bytes(flipped(data, {"header": 24, "snapshot": 130}[how], 8))


@KEYS
@pytest.mark.parametrize("how", ["missing", "garbage", "header", "snapshot"])
@pytest.mark.parametrize("is_clean", [True, False], ids=["closed", "killed"])
def test_a_lost_manifest_is_found_out_from_tables_and_log(tmp_path, key, how, is_clean):
    """Names and settings of keyspaces come from tables; a keyspace that is only in the log loses
    its name, and nothing of it.
    """
    path = tmp_path / "db"
    db = crowded(str(path), key)
    expected = content(db)
    settings = settings_of(db, "windows")
    if is_clean:
        db.close()
    else:
        copy = tmp_path / "killed"
        db._engine.upkeep.wait_idle()
        copy.mkdir()
        for each in path.iterdir():
            (copy / each.name).write_bytes(each.read_bytes())
        db.close()
        path = copy
    lose_manifest(path, how)
    with pytest.raises(holdfast.CorruptionError):
        holdfast.open(path, key=key)
    report = holdfast.repair(path, key=key)
    found = repaired(PosixEnv(), key, str(path))
    # Without a name: that a keyspace may be missing or back, as edits cannot be read.
    renamed = {loss.keyspace for loss in report.losses if loss.kind is LossKind.NAMES} - {None}
    assert len(renamed) <= 1
    for name in renamed:
        found["logged"] = found.pop(name)
    assert found == expected
    if any(loss.kind is LossKind.ORDER for loss in report.losses):
        assert report.outcome is Outcome.REPAIRED_WITH_LOSS
    with holdfast.open(path, key=key) as db:
        assert settings_of(db, "windows") == settings


def test_a_lost_marker_is_made_anew(tmp_path):
    path = tmp_path / "db"
    with crowded(str(path)) as db:
        expected = content(db)
    (marker,) = path.glob("CURRENT.*")
    for damage in ("gone", "renamed", "doubled"):
        if damage == "gone":
            marker.unlink()
        elif damage == "renamed":
            marker.rename(path / "CURRENT.x")
        else:
            iteration = marker.name.split(".")[1]
            (path / f"CURRENT.{iteration}.999").touch()
        with pytest.raises(holdfast.CorruptionError):
            holdfast.open(path)
        report = holdfast.repair(path)
        assert report.damage
        assert repaired(PosixEnv(), folder=str(path))["rows"] == expected["rows"]
        (marker,) = path.glob("CURRENT.*")
    with holdfast.open(path) as db:
        del db[b"probe"]
        assert content(db) == expected


def damaged_log(tmp_path, key=None):
    """A log of several segments with damage in the second; return path and what was committed."""
    path = tmp_path / "db"
    db = holdfast.open(path, key=key, settings=SMALL)
    for number in range(60):
        with db.transaction() as txn:
            txn[b"key %02d" % number] = b"v" * 200
            txn.keyspace("other")[b"key %02d" % number] = b"w"
    copy = tmp_path / "killed"
    copy.mkdir()
    for each in path.iterdir():
        (copy / each.name).write_bytes(each.read_bytes())
    db.close()
    segments = sorted(copy.glob("*.wal"))
    assert len(segments) > 3
    segments[1].write_bytes(flipped(segments[1].read_bytes(), 5000, 20))
    return copy


@KEYS
def test_a_replay_stops_at_damage_and_says_what_was_behind(tmp_path, key):
    path = damaged_log(tmp_path, key)
    with pytest.raises(holdfast.CorruptionError):
        holdfast.open(path, key=key)
    report = holdfast.repair(path, key=key)
    (loss,) = report.losses
    assert loss.kind is LossKind.OPERATIONS
    assert "left out" in loss.reason
    found = repaired(PosixEnv(), key, str(path))
    count = len(found["default"])
    assert 0 < count < 40
    assert list(found["default"]) == [b"key %02d" % n for n in range(count)]
    assert found["other"].keys() == found["default"].keys()
    assert loss.count == 2 * (60 - count)


@KEYS
def test_what_is_behind_damage_is_kept_when_that_is_asked_for(tmp_path, key):
    path = damaged_log(tmp_path, key)
    report = holdfast.repair(path, key=key, keep_behind=True)
    assert any("were kept, as was asked" in loss.reason for loss in report.losses)
    found = repaired(PosixEnv(), key, str(path))
    missing = sorted({b"key %02d" % n for n in range(60)} - found["default"].keys())
    assert 0 < len(missing) < 10
    assert b"key 59" in found["default"]
    assert found["other"].keys() == found["default"].keys()


def test_a_missing_segment_stops_the_replay_too(tmp_path):
    path = damaged_log(tmp_path)
    segments = sorted(path.glob("*.wal"))
    segments[1].unlink()
    report = holdfast.repair(path)
    assert [loss.kind for loss in report.losses] == [LossKind.OPERATIONS]
    found = repaired(PosixEnv(), folder=str(path))
    assert list(found["default"]) == [b"key %02d" % n for n in range(len(found["default"]))]


def test_numbers_of_what_was_lost_are_not_given_again(tmp_path):
    path = damaged_log(tmp_path)
    holdfast.repair(path)
    with holdfast.open(path) as db:
        db[b"new"] = b"1"
        assert db._engine.state.visible_seq > 120


def test_damage_that_tables_make_up_for_loses_nothing(tmp_path):
    """The first segment is needed for one keyspace only, and what is damaged there is flushed."""
    path = tmp_path / "db"
    db = holdfast.open(path, settings=SMALL)
    for number in range(20):
        db[b"key %02d" % number] = b"v" * 100
    db.flush()
    db[b"later"] = b"1"
    expected = content(db)
    copy = tmp_path / "killed"
    copy.mkdir()
    for each in path.iterdir():
        (copy / each.name).write_bytes(each.read_bytes())
    db.close()
    (segment, *_) = sorted(copy.glob("*.wal"))
    segment.write_bytes(flipped(segment.read_bytes(), 4300, 4))
    report = holdfast.repair(copy)
    assert report.outcome is Outcome.REPAIRED, str(report)
    assert repaired(PosixEnv(), folder=str(copy)) == expected


# --- where to, and refusals


@KEYS
def test_a_repair_into_a_new_folder_touches_no_original(tmp_path, key):
    path, target = tmp_path / "db", tmp_path / "new"
    with crowded(str(path), key) as db:
        expected = content(db)
    table = sorted(path.glob("*.table"))[0]
    table.write_bytes(flipped(table.read_bytes(), 100, 3))
    before = bytes_of(path)
    report = holdfast.repair(path, target, key=key)
    assert report.set_aside is None
    assert bytes_of(path) == before
    assert "were not touched" in str(report)
    found = repaired(PosixEnv(), key, str(target))
    assert unsaid(report, expected, found) == []
    assert not (target / "UNFINISHED").exists()


def test_where_a_repair_may_not_write(tmp_path):
    path = tmp_path / "db"
    with holdfast.open(path) as db:
        db[b"k"] = b"v"
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match="'mine'"):
        holdfast.repair(path, full)
    (full / "UNFINISHED").touch()
    with pytest.raises(FileExistsError):
        holdfast.repair(path, full)
    for inside in (path, path / "new"):
        with pytest.raises(ValueError, match="lies in the folder"):
            holdfast.repair(path, inside)
    with pytest.raises(FileNotFoundError, match="no database"):
        holdfast.repair(full)
    with pytest.raises(FileNotFoundError, match="no database"):
        holdfast.repair(tmp_path / "absent")
    with pytest.raises(TypeError):
        holdfast.repair(b"bytes")
    with holdfast.open(path), pytest.raises(holdfast.DatabaseLockedError):
        holdfast.repair(path)


def test_without_its_key_nothing_is_repaired(tmp_path):
    path = tmp_path / "db"
    with holdfast.open(path, key=KEY) as db:
        db[b"k"] = b"v"
    with pytest.raises(holdfast.WrongKeyError):
        holdfast.repair(path)
    with pytest.raises(holdfast.WrongKeyError):
        holdfast.repair(path, key=bytes(32))
    (keys,) = path.glob("KEYS.*")
    keys.write_bytes(flipped(keys.read_bytes(), 20, 4))
    before = bytes_of(path)
    with pytest.raises(holdfast.CorruptionError):
        holdfast.repair(path, key=KEY)
    assert bytes_of(path) == before


def test_what_a_newer_version_wrote_is_refused(tmp_path):
    files, _ = closed_database()
    (name,) = named(files, ".manifest")
    newer = bytearray(files[name])
    newer[8] = 9
    newer[56:64] = holdfast.codec.checksum(bytes(newer[:56])).to_bytes(8, "little")
    machine = machine_with(files | {name: bytes(newer)})
    with pytest.raises(holdfast.FormatError):
        holdfast.repair(FOLDER, env=machine)
    assert {n: d for n, d in files_of(machine).items() if n != name} == {
        n: d for n, d in files.items() if n != name
    }


def test_files_of_another_database_are_set_aside(tmp_path):
    files, state = closed_database()
    machine = machine_with(files | {"99999999999999.table": b"mine"})
    report = holdfast.repair(FOLDER, env=machine)
    assert repaired(machine) == state
    file = machine.open(f"{report.set_aside}/99999999999999.table")
    assert file.read_at(0, 10) == b"mine"
    file.close()


# --- failures


def check_all_kept(machine, files):
    """Every original is in the folder or in one of those for originals."""
    folders = [FOLDER, *(f"{FOLDER}/{name}" for name in machine.list_dir(FOLDER))]
    found = {}
    for folder in folders:
        with suppress(OSError):
            for name in machine.list_dir(folder):
                with suppress(OSError):
                    file = machine.open(f"{folder}/{name}")
                    found.setdefault(name, []).append(file.read_at(0, file.size()))
                    file.close()
    for name, data in files.items():
        if name != "LOCK":
            assert data in found.get(name, []), name


@pytest.mark.parametrize("kind", ["table", "manifest"])
@pytest.mark.parametrize("target", [None, "/new"], ids=["in place", "elsewhere"])
def test_every_call_of_a_repair_fails_once(kind, target):
    nth, sites = 0, set()
    while True:
        nth += 1
        files = damaged(kind, None)
        inner = durable(files)
        env = FaultEnv(inner)
        env.add(FaultRule(kind="[wsctamu]*", nth=nth))
        with suppress(OSError, holdfast.Error):
            holdfast.repair(FOLDER, target, env=env)
        sites |= {fault.site for fault in env.faults}
        injected = env.injected
        env.clear()
        check_all_kept(inner, files)
        assert not inner.unreturned()
        report = holdfast.repair(FOLDER, None, env=inner)
        assert report is not None
        repaired(inner)
        if not injected:
            break
    assert sites >= {"repair.write.sync", "manifest.marker.create"} or kind == "manifest"


def test_a_full_disk_is_said_and_leaves_nothing_behind():
    files = damaged("table", None)
    inner = durable(files)
    before = set(inner.list_dir(FOLDER))
    env = FaultEnv(inner)
    env.add(FaultRule(site="repair.copy.write", nth=1, times=None, error=errno.ENOSPC))
    with pytest.raises(holdfast.DiskFullError, match="no room for the repair"):
        holdfast.repair(FOLDER, env=env)
    assert {name for name in inner.list_dir(FOLDER) if not name.startswith("damaged-")} == before
    env.clear()
    report = holdfast.repair(FOLDER, env=inner)
    assert report.set_aside == f"{FOLDER}/damaged-1"
    check_originals(inner, files, report)
    assert manifest_name(1) in inner.list_dir(report.set_aside)


def test_a_second_repair_has_a_folder_of_its_own_for_originals(tmp_path):
    path = tmp_path / "db"
    with holdfast.open(path) as db:
        db[b"k"] = b"v"
    for number in (1, 2):
        lose_manifest(path, "snapshot")
        assert holdfast.repair(path).set_aside == f"{path}/damaged-{number}"
    assert repaired(PosixEnv(), folder=str(path)) == {"default": {b"k": b"v"}}
